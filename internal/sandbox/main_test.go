package sandbox_test

import (
	"testing"

	"go.uber.org/goleak"
)

// W8: no test of this room leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

package sqldb_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashFolder); dir != "" {
		crashWriter(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

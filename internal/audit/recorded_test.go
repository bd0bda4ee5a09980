package audit_test

import (
	"testing"

	"github.com/ambit-dev/ambit/internal/audit"
)

// Rule 3: what is built without a tag puts calls on record. One that does not refuses
// to start for anybody but who measures.
func TestRecorded(t *testing.T) {
	t.Parallel()
	if !audit.Recorded {
		t.Fatal("this build puts no call on record")
	}
}

package api

import (
	"testing"

	"github.com/ambit-dev/ambit/internal/session"
)

// Issue 5: what a call is about, in the provider's words, is in the API too.
func TestApprovalNamesItsTarget(t *testing.T) {
	t.Parallel()
	if got := (&API{}).approvalOf(session.Approval{Call: &session.CallSubject{Tool: "cloud_delete_volume"}, Target: "production-db"}); got.Call == nil || got.Call.Target != "production-db" {
		t.Errorf("got %+v", got.Call)
	}
}

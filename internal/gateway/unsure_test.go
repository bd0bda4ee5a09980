package gateway_test

import (
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// F4, rule 5: a commit whose outcome nobody knows may have used an approval up
// that a person gave for one call. Nothing was sent, and the agent hears what to
// do; it used to be told only that the log could not be written.
func TestAnUnsureIntentSaysWhatBecameOfTheApproval(t *testing.T) {
	t.Parallel()
	s, away, proxy := cutOff(t)
	s.Approve(t, s.owner, s.asked(t, 1), nil) // so that nothing is prepared any more
	if _, f := s.remove(t, away, 1); f != nil {
		t.Fatal(f)
	}
	sent := len(s.Arrivals("/issues/2"))
	s.Approve(t, s.owner, s.asked(t, 2), nil)
	proxy.Lose(500)
	_, err := away.Call(t, s.bot, s.handle, "tracker_delete_issue", map[string]any{"number": 2})
	if !proxy.Lost() {
		t.Fatalf("no message was lost: %v", err)
	}
	f := fault.Of(err)
	if f == nil || !sqldb.Uncertain(err) || !strings.Contains(f.Hint, "may be used up") || !strings.Contains(f.Hint, "Nothing was sent") {
		t.Errorf("the agent hears %v, %v", err, f)
	}
	if n := len(s.Arrivals("/issues/2")); n != sent {
		t.Errorf("%d requests were sent", n-sent)
	}
	proxy.Thaw()
	if _, f := s.remove(t, s.World, 2); f != nil && f.Code != "approval_required" {
		t.Errorf("the same call again: %v", f)
	}
}

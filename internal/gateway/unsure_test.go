package gateway_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

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
	number, err := 2, error(nil)
	var sent int
	for ; ; number++ {
		sent = len(s.Arrivals(fmt.Sprintf("/issues/%d", number)))
		s.Approve(t, s.owner, s.asked(t, number), nil)
		proxy.Lose(500)
		// A connection that is new prepares its statements, and the node has other work:
		// it may be one of those messages that is lost. Then it is tried again.
		thaw := time.AfterFunc(15*time.Second, proxy.Thaw)
		_, err = away.Call(t, s.bot, s.handle, "tracker_delete_issue", map[string]any{"number": number})
		if thaw.Stop(); sqldb.Uncertain(err) || number == 8 {
			break
		}
		proxy.Thaw()
	}
	if !proxy.Lost() {
		t.Fatalf("no message was lost: %v", err)
	}
	f := fault.Of(err)
	if f == nil || !sqldb.Uncertain(err) || !strings.Contains(f.Hint, "may be used up") || !strings.Contains(f.Hint, "Nothing was sent") {
		t.Errorf("the agent hears %v, %v", err, f)
	}
	if n := len(s.Arrivals(fmt.Sprintf("/issues/%d", number))); n != sent {
		t.Errorf("%d requests were sent", n-sent)
	}
	proxy.Thaw()
	if _, f := s.remove(t, s.World, number); f != nil && f.Code != "approval_required" {
		t.Errorf("the same call again: %v", f)
	}
}

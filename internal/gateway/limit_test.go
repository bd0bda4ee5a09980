package gateway_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// A8, issue 3 item 1: the limits against approval fatigue are one limit over all
// nodes, also for requests that come in the same moment.
func TestRequestLimitsHoldOverNodes(t *testing.T) {
	t.Parallel()
	eachCluster(t, func(t *testing.T, db *sqldb.DB, another func() *sqldb.DB) {
		s := newScene(t, db)
		nodes := []*gatewaytest.World{s.World, s.Beside(t, another())}
		mia := s.Person(t, "mia2@example.com", account.RoleMember)
		s.Connect(t, mia, "tracker", false)
		eager := s.Agent(t, mia, "Eager bot")
		var mu sync.Mutex
		got := map[string]int{}
		count := func(err error) {
			mu.Lock()
			defer mu.Unlock()
			got[code(err)]++
		}
		var wg sync.WaitGroup
		for i := range 24 {
			wg.Go(func() {
				_, err := nodes[i%2].Sessions.Request(t.Context(), eager, session.Ask{Providers: []string{"tracker"}, Effects: []policy.Effect{policy.Read}, Purpose: fmt.Sprint("Reason ", i)}, "")
				count(err)
			})
		}
		wg.Wait()
		if got[""] != 3 || got["rate_limited"] != 21 {
			t.Errorf("of 24 requests at once: %v, want 3 taken", got)
		}

		// The same request, and the same call, asked for many times at once is one.
		approvals, sessions := map[id.Approval]bool{}, map[id.Session]bool{}
		for i := range 16 {
			wg.Go(func() {
				r, err := nodes[i%2].Sessions.Request(t.Context(), s.bot, session.Ask{Providers: []string{"tracker"}, Purpose: "The same."}, "")
				if err != nil {
					t.Error(err)
				}
				_, err = nodes[i%2].Call(t, s.bot, s.handle, "tracker_delete_issue", map[string]any{"number": 1})
				mu.Lock()
				defer mu.Unlock()
				sessions[r.Session.ID] = true
				approvals[id.Approval(fault.Of(err).Fields["request_id"])] = true
			})
		}
		wg.Wait()
		if len(sessions) != 1 || len(approvals) != 1 || approvals[""] {
			t.Errorf("one request became %d, one call's approval %d: %v", len(sessions), len(approvals), approvals)
		}
	})
}

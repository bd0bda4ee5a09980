package gateway_test

import (
	"slices"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// Rule 7, F6: the notice of a revoke is no part of the promise. A node that
// cannot hear of it reads the database instead; one that cannot do that either
// gives up what runs, since nobody can tell it that the session has ended. The
// request itself would be given up after half a minute: here it must be the node
// that ends the call.
func TestRule7RevokeReachesANodeThatHearsNothing(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		freeze func(*sqldbtest.Proxy)
		codes  []string
	}{
		"no notices":  {(*sqldbtest.Proxy).FreezeNotices, []string{"revoked", "outcome_unknown"}},
		"no database": {(*sqldbtest.Proxy).Freeze, []string{"outcome_unknown"}}, // it cannot know that the session has ended
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, away, proxy := cutOff(t)
			r := s.Ask(t, s.bot, "tracker")
			s.Approve(t, s.owner, r.Session.Approval, nil)
			s.Fault(t, map[string]any{"path": "/issues", "delay_ms": 60_000})
			answered := make(chan error, 1)
			go func() {
				_, err := away.Call(t, s.bot, r.Handle, "tracker_list_issues", nil)
				answered <- err
			}()
			soon(t, "the call has arrived", func() bool { return len(s.Arrivals("/issues")) > 0 })
			row.freeze(proxy)
			got, err := s.Sessions.Revoke(t.Context(), s.System.In(s.Environment), session.Aim{Session: r.Session.ID})
			if err != nil || len(got.Running) != 1 {
				t.Fatalf("revoke lists %+v, %v, want the running call", got, err)
			}
			select {
			case err := <-answered:
				if !slices.Contains(row.codes, code(err)) { // a node that is slow to ask cuts for that
					t.Errorf("the agent gets %v, want one of %v", err, row.codes)
				}
			case <-time.After(15 * time.Second):
				t.Error("the call still runs")
			}
			proxy.Thaw()
		})
	}
}

// Rule 7, precise: to be deaf alone cuts nothing.
func TestRule7DeafNodeDisturbsNothing(t *testing.T) {
	t.Parallel()
	s, away, proxy := cutOff(t)
	s.Fault(t, map[string]any{"path": "/issues", "delay_ms": 4_000})
	answered := make(chan error, 1)
	go func() {
		_, err := away.Call(t, s.bot, s.handle, "tracker_list_issues", nil)
		answered <- err
	}()
	soon(t, "the call has arrived", func() bool { return len(s.Arrivals("/issues")) > 0 })
	proxy.FreezeNotices()
	if err := <-answered; err != nil {
		t.Errorf("a call of a node that reads and does not hear: %v", err)
	}
	proxy.Thaw()
}

// cutOff gives a scene and one more node of it, which reaches PostgreSQL
// through a proxy.
func cutOff(t *testing.T) (scene, *gatewaytest.World, *sqldbtest.Proxy) {
	t.Helper()
	cfg := sqldbtest.Migrated(t, sqldb.PostgreSQL)
	through, proxy := sqldbtest.Through(t, cfg)
	s := newScene(t, sqldbtest.OpenConfig(t, cfg))
	t.Cleanup(proxy.Thaw) // before the node stops, which waits for the database
	return s, s.Beside(t, sqldbtest.OpenConfig(t, through)), proxy
}

// Issue 3 item 1: a call that comes to a node that has cut its calls is not
// sent, is on record, and may be made again, elsewhere.
func TestCallToAServerThatStops(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.Sessions.CutCalls()
		_, err := s.do(t, "tracker_list_issues", nil)
		if f := fault.Of(err); f.Code != "server_stopping" || f.Kind != fault.Unavailable || f.RetryAfter == 0 {
			t.Errorf("the agent gets %v, want to hear that it may call again", err)
		}
		if n := len(s.Arrivals("/issues")); n != 0 {
			t.Errorf("%d requests were sent", n)
		}
		if got := s.outcome(t); got != "cut" {
			t.Errorf("outcome %s, want cut", got)
		}
	})
}

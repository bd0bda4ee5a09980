package gateway_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// F5, K4: calls whose keys are held ask no keeper and go on while it is away, for
// the grace; then, or at once when it refuses, nothing reaches the provider, and
// every refusal is on record with its own code. Then all goes on by itself.
func TestF5CallsWhileTheKeeperIsAway(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		server := keyringtest.New(t)
		var later atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
		keeper := server.Guard(t, keyring.Config{Timeout: 5 * time.Second, Now: now})
		s := scene{World: gatewaytest.NewOn(t, agenttest.NewOn(t, db, keeper), nil)}
		s.KeyProvider(t, "tracker")
		s.owner = s.Person(t, "mia@example.com", account.RoleMember)
		s.conn = s.Connect(t, s.owner, "tracker", false)
		s.bot = s.Agent(t, s.owner, "Triage bot")
		s.handle = s.Active(t, s.owner, s.bot, "tracker", policy.Read)
		call := func() error { _, err := s.do(t, "tracker_list_issues", nil); return err }
		gatewaytest.Must(t, call())

		asked := server.Asked()
		for range 20 {
			gatewaytest.Must(t, call())
		}
		if n := server.Asked() - asked; n != 0 {
			t.Errorf("20 calls asked the keeper %d times", n)
		}
		for _, mode := range []keyringtest.Mode{keyringtest.Silent, keyringtest.Throttled, keyringtest.Broken} {
			server.Be(mode)
			for range 5 {
				if err := call(); err != nil {
					t.Errorf("%s: within the grace: %v", mode, err)
				}
			}
		}
		refused := func(name, want string) {
			t.Helper()
			before := len(s.Arrivals("/issues"))
			err := call()
			if f := fault.Of(err); f.Code != want || f.Kind != fault.Unavailable || f.Hint == "" || f.RetryAfter <= 0 {
				t.Errorf("%s: got %v, want %s", name, err, want)
			}
			if n := len(s.Arrivals("/issues")) - before; n != 0 {
				t.Errorf("%s: %d requests reached the provider", name, n)
			}
			if r := s.last(t); r.Outcome == nil || r.Outcome.Status != "error" || r.Outcome.Code != want {
				t.Errorf("%s: on record is %+v", name, r.Outcome)
			}
		}
		later.Add(int64(6 * time.Minute))
		refused("after the grace", keyring.CodeUnavailable)

		server.Be(keyringtest.Fine)
		later.Add(int64(time.Minute))
		if err := call(); err != nil {
			t.Errorf("after the outage: %v", err)
		}
		server.Be(keyringtest.Denied)
		if err := keeper.Prove(t.Context()); !fault.Is(err, keyring.CodeDenied) {
			t.Errorf("got %v", err)
		}
		refused("disabled", keyring.CodeDenied)
		server.Be(keyringtest.Fine)
		later.Add(int64(time.Minute))
		if err := call(); err != nil {
			t.Errorf("enabled again: %v", err)
		}
	})
}

package gateway_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// W7: one organization's flood of calls to a provider that hangs fills its own
// share: what is over it is shed with a time to wait, before any work and with one
// line on record, and another organization's calls go on as if nothing were.
func TestOneOrganizationStarvesNoOther(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		tenant, err := s.Accounts.CreateOrganization(t.Context(), s.System, s.Environment, "Tenant", "")
		gatewaytest.Must(t, err)
		first := s.Organization
		s.Organization = tenant.ID
		quiet := s
		quiet.owner = s.Person(t, "noa@example.com", account.RoleMember)
		quiet.conn = s.Connect(t, quiet.owner, "tracker", false)
		quiet.bot = s.Agent(t, quiet.owner, "Quiet bot")
		quiet.handle = s.Active(t, quiet.owner, quiet.bot, "tracker", policy.Read)
		s.Organization = first

		const all, share = 16, 4
		s.Gateway = gateway.New(gateway.Config{Sessions: s.Sessions, Credentials: s.Credentials, Connections: s.Connections, Providers: s.Providers,
			Audit: s.Audit, Outbound: s.Outbound, SessionRate: 1e6, Calls: all, Now: s.Clock.Now})
		quiet.Gateway = s.Gateway
		s.Fault(t, map[string]any{"path": "/issues", "delay_ms": 5000, "times": share})
		before := len(s.Arrivals("/issues"))
		var shed atomic.Int64
		var wg sync.WaitGroup
		for range 4 * all {
			wg.Go(func() {
				_, err := s.do(t, "tracker_list_issues", nil)
				switch f := fault.Of(err); {
				case err == nil:
				case f.Code == "overloaded" && f.RetryAfter > 0 && f.Hint != "":
					shed.Add(1)
				default:
					t.Errorf("the flood got %v", err)
				}
			})
		}
		soon(t, "the share is full", func() bool { return len(s.Arrivals("/issues"))-before >= share })
		for range 10 {
			if _, err := quiet.do(t, "tracker_me", nil); err != nil {
				t.Errorf("the other organization: %v", err)
			}
		}
		wg.Wait()
		if n := shed.Load(); n != 4*all-share {
			t.Errorf("%d of %d calls were shed, want all but %d", n, 4*all, share)
		}
		if n := len(s.Arrivals("/issues")) - before; n != share {
			t.Errorf("%d calls of the flood reached the provider at once, want %d", n, share)
		}
		soon(t, "it is on record, once", func() bool {
			page, err := s.Audit.List(t.Context(), audit.Filter{Environment: s.Environment, Action: "call.shed"})
			gatewaytest.Must(t, err)
			return len(page.Records) == 1
		})
		if _, err := s.do(t, "tracker_list_issues", nil); err != nil {
			t.Errorf("after the flood: %v", err)
		}
	})
}

package credential_test

import (
	"fmt"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// BenchmarkConnections is what it costs to keep many connections: a round of the
// scheduler in which nothing is due, a token for a call, a page of the list, the
// catalogue, and a thousand grants that are due at once. docs/performance.md has its
// figures.
func BenchmarkConnections(b *testing.B) {
	for _, engine := range sqldbtest.Engines() {
		for _, stored := range []int{1000, 100_000} {
			b.Run(fmt.Sprintf("%s/%d", engine, stored), func(b *testing.B) { connections(b, sqldbtest.Open(b, engine), stored) })
		}
	}
}

func connections(b *testing.B, db *sqldb.DB, stored int) {
	w := gatewaytest.New(b, db)
	w.OAuthProvider(b)
	owner := w.Person(b, "mia@example.com", account.RoleOwner)
	conn := w.ConnectOAuth(b, owner, gatewaytest.Mia, nil)
	bot := w.Agent(b, owner, "Triage bot")
	handle := w.Active(b, owner, bot, "sandbox", policy.Read)
	ctx := b.Context()
	gatewaytest.Must(b, w.Credentials.Plant(ctx, conn.ID, stored))
	_, err := provider.Search("data") // reads the catalogue, once a process
	gatewaytest.Must(b, err)
	each := func(name string, do func() error) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				gatewaytest.Must(b, do())
			}
		})
	}
	each("round", func() error { return w.Credentials.Upkeep(ctx) })
	each("token", func() error {
		live, err := w.Sessions.Live(ctx, bot, handle)
		if err != nil {
			return err
		}
		target, err := live.Target("sandbox_list_issues", "")
		if err != nil {
			return err
		}
		req, err := target.Tool.Build([]byte(`{}`), target.Bases...)
		if err != nil {
			return err
		}
		p, _, err := w.Sessions.Permit(ctx, live, target, req)
		if err == nil {
			_, _, err = w.Credentials.Token(ctx, p)
		}
		return err
	})
	me := account.ByPerson(owner.Signed(b)).In(w.Environment)
	page, err := w.Connections.List(ctx, me, connection.Filter{Organization: w.Organization, Limit: 50})
	gatewaytest.Must(b, err)
	each("page", func() error {
		_, err := w.Connections.List(ctx, me, connection.Filter{Organization: w.Organization, Limit: 50, After: page.Next})
		return err
	})
	each("catalogue", func() error {
		_, err := provider.Search("data")
		if err == nil {
			_, err = w.Providers.List(ctx, w.Environment)
		}
		return err
	})
	b.Run("1000 due", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			gatewaytest.Must(b, w.Credentials.Due(ctx, min(1000, stored)))
			w.Fault(b, map[string]any{"path": "/oauth/token", "body": map[string]any{"access_token": "made-up-access-token-1", "refresh_token": "made-up-refresh-token-1", "token_type": "Bearer", "expires_in": 3600}, "times": 100_000})
			b.StartTimer()
			gatewaytest.Must(b, w.Credentials.Upkeep(ctx))
			b.StopTimer()
			w.Mend(b)
			b.StartTimer()
		}
	})
}

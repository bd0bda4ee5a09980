package gateway_test

import (
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// BenchmarkInvoke is the cost of one permitted call, the third party's included.
func BenchmarkInvoke(b *testing.B) {
	for _, engine := range []sqldb.Engine{sqldb.SQLite, sqldb.PostgreSQL} {
		b.Run(engine.String(), func(b *testing.B) {
			w := gatewaytest.New(b, sqldbtest.Open(b, engine))
			w.KeyProvider(b, "tracker")
			p := w.Person(b, "mia@example.com", account.RoleMember)
			w.Connect(b, p, "tracker", false)
			bot := w.Agent(b, p, "Bot")
			handle := w.Active(b, p, bot, "tracker")
			b.ReportAllocs()
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := w.Gateway.Invoke(b.Context(), gateway.Call{Identity: bot, Handle: handle, Tool: "tracker_get_issue", Arguments: []byte(`{"number":1}`)}); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

//go:build unix

package app_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
)

// BenchmarkSecrets is what a read and a write of a secret cost the process, eight
// at once over real sockets, as BenchmarkServer measures.
func BenchmarkSecrets(b *testing.B) {
	for _, engine := range []sqldb.Engine{sqldb.SQLite, sqldb.PostgreSQL} {
		b.Run(engine.String(), func(b *testing.B) {
			cfg := app.Config{}
			if engine == sqldb.PostgreSQL {
				own := sqldbtest.Migrated(b, engine)
				cfg.DatabaseURL = own.URL + "&search_path=" + own.Schema
			}
			a := run(b, cfg)
			ctx, system := context.WithoutCancel(b.Context()), account.System("test")
			env, err := a.People.CreateEnvironment(ctx, system, "production", account.Agreement{})
			must(b, err)
			_, token, err := a.People.IssueKey(ctx, account.NewKey{Environment: env.ID, Name: "bench", Scopes: []account.Scope{account.ScopeVaultRead, account.ScopeVaultWrite}})
			must(b, err)
			c := vault.Caller{Actor: audit.Actor{Kind: "api_key", ID: "key_bench"}, Environment: env.ID, Reach: vault.Everything()}
			var reads, writes [][]byte
			head := fmt.Sprintf("Host: %s\r\nUser-Agent: bench\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\nAccept-Encoding: gzip\r\n", a.PublicURL().Host, token.Reveal())
			body := `{"value":"` + strings.Repeat("y", 512) + `"}`
			for i := range 500 {
				o, err := a.Vault.Create(ctx, c, vault.NewObject{Name: fmt.Sprint("bench/", i), Context: map[string]string{"organization_id": "org_bench"},
					Value: vault.Value{Secret: secret.FromString(strings.Repeat("x", 512))}})
				must(b, err)
				reads = append(reads, fmt.Appendf(nil, "GET /vault/v1/kv/%s HTTP/1.1\r\n%s\r\n", o.ID, head))
				writes = append(writes, fmt.Appendf(nil, "PUT /vault/v1/kv/%s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s", o.ID, head, len(body), body))
			}
			address := a.Addresses()[0]
			b.Run("read", func(b *testing.B) { caller{address, reads, a.Commits}.measure(b, 8) })
			b.Run("write", func(b *testing.B) { caller{address, writes, a.Commits}.measure(b, 8) })
		})
	}
}

package credential_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sandbox"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

func secretOf(s string) secret.Value { return secret.FromString(s) }

func oauthInput(w *gatewaytest.World) provider.Input {
	return provider.Input{YAML: []byte(sandbox.Record(w.Sandbox.URL)), ClientID: "ambit-test", ClientSecret: secretOf("sbxs_" + gatewaytest.SandboxKey)}
}

// app is an application's key with these scopes.
func (s scene) app(t *testing.T, scopes ...account.Scope) account.Actor {
	t.Helper()
	return s.appIn(t, s.Environment, "", scopes...)
}

func (s scene) appIn(t *testing.T, env id.Environment, org id.Organization, scopes ...account.Scope) account.Actor {
	t.Helper()
	_, token, err := s.Accounts.IssueKey(t.Context(), account.NewKey{Environment: env, Organization: org, Name: "backend", Scopes: scopes})
	gatewaytest.Must(t, err)
	k, err := s.Accounts.AuthenticateKey(t.Context(), token)
	gatewaytest.Must(t, err)
	return account.ByKey(k)
}

// Rule 2: of the three roads, one needs a Permit that only session makes, one
// the key of an application with the scope for it; the third answers nobody.
func TestRule2CredentialsLeaveOnThreeRoadsOnly(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		ctx := t.Context()
		if c, _, err := s.Credentials.Token(ctx, session.Permit{}); code(err) != "no_permit" || len(c.Values) != 0 {
			t.Errorf("Token without a permit: %d values, %v", len(c.Values), err)
		}
		if c, _, err := s.Credentials.Refresh(ctx, session.Permit{}, 1); code(err) != "no_permit" || len(c.Values) != 0 {
			t.Errorf("Refresh without a permit: %d values, %v", len(c.Values), err)
		}
		p := s.permit(t, s.World)
		if c, _, err := s.Credentials.Token(ctx, p); err != nil || len(c.Values) != 1 {
			t.Errorf("with a permit: %d values, %v, want the access token alone", len(c.Values), err)
		}
		org, err := s.Accounts.CreateOrganization(ctx, s.System, s.Environment, "Other", "")
		gatewaytest.Must(t, err)
		env, err := s.Accounts.CreateEnvironment(ctx, s.System, "staging", account.Agreement{})
		gatewaytest.Must(t, err)
		for name, row := range map[string]struct {
			by   account.Actor
			want string
		}{
			"a person, though the owner":     {s.me(t), "api_key_required"},
			"the server itself":              {s.System.In(s.Environment), "api_key_required"},
			"nobody":                         {account.Actor{}, "api_key_required"},
			"a key without the scope":        {s.app(t, account.ScopeConnectionsRead, account.ScopeConnectionsWrite), "missing_scope"},
			"a key of another organization":  {s.appIn(t, s.Environment, org.ID, account.ScopeConnectionsVend), "not_found"},
			"a key of another environment":   {s.appIn(t, env.ID, "", account.ScopeConnectionsVend), "not_found"},
			"a key of the very organization": {s.appIn(t, s.Environment, s.Organization, account.ScopeConnectionsVend), ""},
		} {
			if v, err := s.Credentials.Vend(ctx, row.by, s.conn.ID, ""); code(err) != row.want || (row.want == "") != (len(v.Credential.Values) == 1) {
				t.Errorf("vend to %s: %d values, %v, want %q", name, len(v.Credential.Values), err, row.want)
			}
		}
	})
}

// Rule 8, K1: a sealed credential opens in its own place only. Rows exchanged
// between connections, tenants and versions yield nothing, and nothing is sent.
func TestRule8RowsExchangedYieldNothing(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		noa := s.Person(t, "noa@example.com", account.RoleMember)
		foreign := s.ConnectOAuth(t, noa, gatewaytest.Noa, nil)
		own := s.ConnectOAuth(t, s.owner, gatewaytest.Noa, nil) // the same owner's other account
		var mine []byte
		gatewaytest.Must(t, db.Reader().QueryRowContext(t.Context(), `select envelope from credential where connection_id = $1`, s.conn.ID).Scan(&mine))
		before := len(s.Arrivals("/"))
		p := s.permit(t, s.World)
		for name, from := range map[string]connection.Connection{"another person's": foreign, "the owner's own other": own} {
			s.exec(t, `update credential set envelope = (select envelope from credential where connection_id = $2) where connection_id = $1`, s.conn.ID, from.ID)
			// On a node that has not read the row before.
			if c, _, err := s.Beside(t, db).Credentials.Token(t.Context(), p); code(err) != "sealed_value_invalid" || len(c.Values) != 0 {
				t.Errorf("%s credential in this row: %d values, %v", name, len(c.Values), err)
			}
		}
		s.exec(t, `update credential set envelope = $2, version = 7 where connection_id = $1`, s.conn.ID, mine)
		if c, _, err := s.Credentials.Token(t.Context(), p); code(err) != "sealed_value_invalid" || len(c.Values) != 0 {
			t.Errorf("as another version: %d values, %v", len(c.Values), err)
		}
		if n := len(s.Arrivals("/")); n != before {
			t.Errorf("%d requests left with what did not open", n-before)
		}
		s.exec(t, `update credential set version = 1 where connection_id = $1`, s.conn.ID)
		if _, _, err := s.Beside(t, db).Credentials.Token(t.Context(), p); err != nil {
			t.Errorf("back in its place: %v", err)
		}
	})
}

// Rule 8, K6: the database, with its log and all that it was made to hold, has
// none of the credentials in any encoding.
func TestRule8DumpShowsNoCredential(t *testing.T) {
	t.Parallel()
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			cfg := sqldbtest.Migrated(t, engine)
			s := newScene(t, sqldbtest.OpenConfig(t, cfg))
			s.KeyProvider(t, "tracker")
			s.Connect(t, s.owner, "tracker", false)
			for range 3 {
				s.expire()
				gatewaytest.Must(t, s.call(t))
			}
			open := s.Begin(t, s.owner, nil) // a flow that is not finished
			dump := dumpFolder
			if engine == sqldb.PostgreSQL {
				dump = func(t *testing.T, _ string) []byte { return dumpPostgres(t, s.DB) }
			}
			text := dump(t, cfg.DataDir)
			if !bytes.Contains(text, []byte(s.conn.ID)) {
				t.Fatal("the dump lacks what stands in clear; it proves nothing")
			}
			secrets := append(s.Tokens(), gatewaytest.SandboxKey, "sbxs_"+gatewaytest.SandboxKey)
			if len(secrets) < 10 {
				t.Fatalf("only %d secrets were made", len(secrets))
			}
			secrets = append(secrets, stateOf(t, open))
			for _, planted := range secrets {
				for how, form := range map[string]string{
					"text": planted, "hex": hex.EncodeToString([]byte(planted)),
					"base64": base64.StdEncoding.EncodeToString([]byte(planted))[:len(planted)],
				} {
					if bytes.Contains(text, []byte(form)) {
						t.Errorf("a credential stands in the database as %s", how)
					}
				}
			}
		})
	}
}

// stateOf is the secret that ties a callback to what was begun.
func stateOf(t *testing.T, authorizeURL string) string {
	t.Helper()
	u, err := url.Parse(authorizeURL)
	gatewaytest.Must(t, err)
	return u.Query().Get("state")
}

func dumpFolder(t *testing.T, dir string) (all []byte) {
	t.Helper()
	gatewaytest.Must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		all = append(all, raw...)
		return err
	}))
	return all
}

func dumpPostgres(t *testing.T, db *sqldb.DB) (all []byte) {
	t.Helper()
	column := func(query string) (out []string) {
		rows, err := db.Reader().QueryContext(t.Context(), query)
		gatewaytest.Must(t, err)
		defer rows.Close()
		for rows.Next() {
			var v string
			gatewaytest.Must(t, rows.Scan(&v))
			out = append(out, v)
		}
		gatewaytest.Must(t, rows.Err())
		return out
	}
	for _, table := range column(`select table_name from information_schema.tables where table_schema = current_schema()`) {
		for _, row := range column(fmt.Sprintf(`select r::text from %q r`, table)) {
			all = append(all, row...)
		}
	}
	return all
}

package credential_test

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sandbox"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

func TestConnectByOAuth(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := gatewaytest.New(t, db)
		w.OAuthProvider(t)
		mia := w.Person(t, "mia@example.com", account.RoleMember)
		at := w.Begin(t, mia, func(st *credential.Start) { st.ReturnTo = "/ui/connections" })
		q := must(url.Parse(at)).Query()
		// O5: S256 always; O4: at least 128 bits of state.
		if q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 || len(q.Get("state")) < 22 {
			t.Errorf("the authorization URL asks %v", q)
		}
		if want := "http://localhost:7420" + credential.CallbackPath(w.Environment, "sandbox"); q.Get("redirect_uri") != want {
			t.Errorf("redirect_uri: got %s, want %s", q.Get("redirect_uri"), want)
		}
		done, err := w.Credentials.Callback(t.Context(), mia.Signed(t), w.Environment, "sandbox", w.Consent(t, at, gatewaytest.Mia))
		if err != nil {
			t.Fatal(err)
		}
		c := done.Connection
		if c.State != connection.Connected || c.Owner != mia.ID || c.AccountLabel != gatewaytest.Mia || c.AuthMethod != string(provider.OAuth2) || done.ReturnTo != "/ui/connections" {
			t.Errorf("connected %+v", done)
		}
		if len(done.Missing) != 0 || len(c.Scopes) != 4 {
			t.Errorf("scopes %v, missing %v: want all", c.Scopes, done.Missing)
		}
		if s := w.Stats(t); s.Codes != 1 || s.Reuses != 0 {
			t.Errorf("the provider counts %+v", s)
		}
		// A bug of this test: a key's entry of the same moment can come between them.
		if got := w.Actions(t); slices.Index(got, "connection.authorizing") < 0 || slices.Index(got, "connection.connected") < slices.Index(got, "connection.authorizing") {
			t.Errorf("audit: %v", got)
		}
	})
}

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

// O14: what the person did not grant is said, and what was asked is bounded.
func TestPartialScopes(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := gatewaytest.New(t, db)
		w.OAuthProvider(t)
		mia := w.Person(t, "mia@example.com", account.RoleMember)
		ask := func(scopes ...string) func(*credential.Start) {
			return func(st *credential.Start) { st.Scopes = scopes }
		}
		at := w.Begin(t, mia, ask("issues:write"))
		if got := must(url.Parse(at)).Query().Get("scope"); got != "issues:read issues:write" {
			t.Errorf("asked for %q, want the base and what was chosen", got)
		}
		done, err := w.Credentials.Callback(t.Context(), mia.Signed(t), w.Environment, "sandbox", w.Consent(t, at, gatewaytest.Mia, "issues:read"))
		gatewaytest.Must(t, err)
		if diff := cmp.Diff([]string{"issues:write"}, done.Missing); diff != "" {
			t.Errorf("missing: %s", diff)
		}
		st := start(w, "sandbox")
		st.Scopes = []string{"admin:everything"}
		if _, err := w.Credentials.Authorize(t.Context(), mia.Signed(t), st); code(err) != "unknown_scope" {
			t.Errorf("a scope that the record does not know: got %v", err)
		}
	})
}

// O1: the callback of one person's authorization in another person's browser
// links nothing, to either of them, and voids it.
func TestCallbackCountsForWhoBegan(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := gatewaytest.New(t, db)
		w.OAuthProvider(t)
		mia, noa := w.Person(t, "mia@example.com", account.RoleOwner), w.Person(t, "noa@example.com", account.RoleOwner)
		back := w.Consent(t, w.Begin(t, mia, nil), gatewaytest.Mia)
		if _, err := w.Credentials.Callback(t.Context(), noa.Signed(t), w.Environment, "sandbox", back); code(err) != "flow_expired" {
			t.Errorf("in the victim's browser: got %v, want flow_expired", err)
		}
		if _, err := w.Credentials.Callback(t.Context(), mia.Signed(t), w.Environment, "sandbox", back); code(err) != "flow_expired" {
			t.Errorf("in the first browser, afterwards: got %v, want flow_expired", err)
		}
		// Another login of the same person may count elsewhere only: an organization's
		// identity provider makes such.
		back = w.Consent(t, w.Begin(t, mia, nil), gatewaytest.Mia)
		first := mia.Signed(t)
		mia.SignIn(t)
		if _, err := w.Credentials.Callback(t.Context(), mia.Signed(t), w.Environment, "sandbox", back); code(err) != "flow_expired" {
			t.Errorf("in another login of the same person: got %v, want flow_expired", err)
		}
		if first.Login() == mia.Signed(t).Login() {
			t.Error("it was the same login")
		}
		back = w.Consent(t, w.Begin(t, mia, nil), gatewaytest.Mia)
		if _, err := w.Credentials.Callback(t.Context(), account.Person{}, w.Environment, "sandbox", back); code(err) != "flow_expired" {
			t.Errorf("nobody signed in: got %v, want flow_expired", err)
		}
		if _, err := w.Credentials.Callback(t.Context(), mia.Signed(t), w.Environment, "sandbox", back); err != nil {
			t.Errorf("after somebody without a sign-in tried: %v", err)
		}
		if s := w.Stats(t); s.Codes != 1 {
			t.Errorf("%d codes were exchanged, want the last one only", s.Codes)
		}
		if got := w.Actions(t); !strings.Contains(strings.Join(got, " "), "connection.refused") {
			t.Errorf("the refusal is not in the audit: %v", got)
		}
	})
}

// O2, O3, O4: whatever does not fit exactly what was begun is refused, and
// nothing is sent to the provider.
func TestCallbackRefuses(t *testing.T) {
	t.Parallel()
	rows := map[string]struct {
		change func(w *gatewaytest.World, q url.Values, env *id.Environment, slug *string)
		want   string
		voids  bool
	}{
		"another environment's path": {func(_ *gatewaytest.World, _ url.Values, env *id.Environment, _ *string) { *env = id.NewEnvironment() }, "flow_expired", true},
		"another provider's path":    {func(_ *gatewaytest.World, _ url.Values, _ *id.Environment, slug *string) { *slug = "other" }, "flow_expired", true},
		"another issuer": {func(_ *gatewaytest.World, q url.Values, _ *id.Environment, _ *string) {
			q.Set("iss", "https://evil.example")
		}, "issuer_mismatch", true},
		"no issuer":   {func(_ *gatewaytest.World, q url.Values, _ *id.Environment, _ *string) { q.Del("iss") }, "issuer_mismatch", true},
		"two issuers": {func(_ *gatewaytest.World, q url.Values, _ *id.Environment, _ *string) { q.Add("iss", q.Get("iss")) }, "invalid_callback", false},
		"a forged state": {func(_ *gatewaytest.World, q url.Values, _ *id.Environment, _ *string) {
			q.Set("state", strings.Repeat("A", 43))
		}, "flow_expired", false},
		"a cut state": {func(_ *gatewaytest.World, q url.Values, _ *id.Environment, _ *string) {
			q.Set("state", q.Get("state")[:len(q.Get("state"))-1])
		}, "flow_expired", false},
		"no state":   {func(_ *gatewaytest.World, q url.Values, _ *id.Environment, _ *string) { q.Del("state") }, "invalid_callback", false},
		"two states": {func(_ *gatewaytest.World, q url.Values, _ *id.Environment, _ *string) { q.Add("state", "x") }, "invalid_callback", false},
		"two codes":  {func(_ *gatewaytest.World, q url.Values, _ *id.Environment, _ *string) { q.Add("code", "x") }, "invalid_callback", false},
		"no code":    {func(_ *gatewaytest.World, q url.Values, _ *id.Environment, _ *string) { q.Del("code") }, "invalid_callback", true},
		"too late": {func(w *gatewaytest.World, _ url.Values, _ *id.Environment, _ *string) {
			w.Clock.Advance(10 * time.Minute)
		}, "flow_expired", true},
		"the person says no": {func(_ *gatewaytest.World, q url.Values, _ *id.Environment, _ *string) {
			q.Del("code")
			q.Set("error", "access_denied")
		}, "access_denied", true},
		"another error": {func(_ *gatewaytest.World, q url.Values, _ *id.Environment, _ *string) {
			q.Set("error", "<script>alert(1)</script>")
			q.Set("error_description", "sbx_rt_leak")
		}, "provider_refused", true},
	}
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := gatewaytest.New(t, db)
		w.OAuthProvider(t)
		mia := w.Person(t, "mia@example.com", account.RoleMember)
		for name, row := range rows {
			right := w.Consent(t, w.Begin(t, mia, nil), gatewaytest.Mia)
			wrong, env, slug := url.Values{}, w.Environment, "sandbox"
			for k, v := range right {
				wrong[k] = append([]string(nil), v...)
			}
			row.change(w, wrong, &env, &slug)
			_, err := w.Credentials.Callback(t.Context(), mia.Signed(t), env, slug, wrong)
			if code(err) != row.want {
				t.Errorf("%s: got %v, want %s", name, err, row.want)
			}
			if err != nil && (strings.Contains(err.Error(), "script") || strings.Contains(err.Error(), "leak")) {
				t.Errorf("%s: the provider's text passes: %v", name, err)
			}
			if s := w.Stats(t); s.Codes != 0 {
				t.Fatalf("%s: a code was exchanged", name)
			}
			if !row.voids {
				continue
			}
			if _, err := w.Credentials.Callback(t.Context(), mia.Signed(t), w.Environment, "sandbox", right); code(err) != "flow_expired" {
				t.Errorf("%s, then the right answer: got %v, want flow_expired: a state counts once", name, err)
			}
		}
	})
}

// O4: a state counts once, also when the callback comes twice at a time.
func TestCallbackOnce(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := gatewaytest.New(t, db)
		w.OAuthProvider(t)
		mia := w.Person(t, "mia@example.com", account.RoleMember)
		back := w.Consent(t, w.Begin(t, mia, nil), gatewaytest.Mia)
		errs := make(chan error)
		for range 8 {
			go func() {
				_, err := w.Credentials.Callback(t.Context(), mia.Signed(t), w.Environment, "sandbox", back)
				errs <- err
			}()
		}
		won := 0
		for range 8 {
			if err := <-errs; err == nil {
				won++
			} else if code(err) != "flow_expired" {
				t.Errorf("got %v, want flow_expired", err)
			}
		}
		if s := w.Stats(t); won != 1 || s.Codes != 1 || s.Reuses != 0 {
			t.Errorf("%d callbacks counted, the provider saw %+v: want one", won, s)
		}
	})
}

// O16: nonsense from the token endpoint makes no connection.
func TestExchangeGarbage(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := gatewaytest.New(t, db)
		w.OAuthProvider(t)
		mia := w.Person(t, "mia@example.com", account.RoleMember)
		for name, f := range map[string]map[string]any{
			"503":              {"path": "/oauth/token", "status": 503},
			"HTML":             {"path": "/oauth/token", "body": "<html>hello</html>"},
			"huge":             {"path": "/oauth/token", "fill_bytes": 8 << 20},
			"truncated":        {"path": "/oauth/token", "body": `{"access_token":"x","refresh_tok`},
			"cut off":          {"path": "/oauth/token", "cut": true},
			"redirect":         {"path": "/oauth/token", "redirect": "https://evil.example/token"},
			"error in 200":     {"path": "/oauth/token", "body": map[string]any{"error": "invalid_grant", "access_token": "x"}},
			"duplicate keys":   {"path": "/oauth/token", "body": `{"access_token":"x","access_token":"y"}`},
			"no token":         {"path": "/oauth/token", "body": map[string]any{"token_type": "Bearer"}},
			"identity refuses": {"path": "/me", "status": 401},
			"identity breaks":  {"path": "/me", "status": 500},
			"identity unclear": {"path": "/me", "body": map[string]any{"id": []string{"x"}}},
		} {
			back := w.Consent(t, w.Begin(t, mia, nil), gatewaytest.Mia)
			w.Fault(t, f)
			_, err := w.Credentials.Callback(t.Context(), mia.Signed(t), w.Environment, "sandbox", back)
			if err == nil || code(err) == "internal" {
				t.Errorf("%s: got %v, want a typed error", name, err)
			}
			w.Mend(t)
		}
		usable, err := w.Connections.Usable(t.Context(), w.Environment, w.Organization, mia.ID, nil)
		if err != nil || len(usable) != 0 {
			t.Errorf("%d connections came of nonsense, %v", len(usable), err)
		}
	})
}

// F11: a sign-in that fails after the provider has given a grant leaves none behind
// that nobody knows: it is given back, or the audit and the person are told.
func TestNoGrantIsAbandoned(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := gatewaytest.New(t, db)
		w.OAuthProvider(t)
		mia := w.Person(t, "mia@example.com", account.RoleMember)
		try := func(spoil func() (mend func())) error {
			back := w.Consent(t, w.Begin(t, mia, nil), gatewaytest.Mia)
			mend := spoil()
			_, err := w.Credentials.Callback(t.Context(), mia.Signed(t), w.Environment, "sandbox", back)
			mend()
			return err
		}
		faulty := func(faults ...map[string]any) func() func() {
			return func() func() {
				for _, f := range faults {
					w.Fault(t, f)
				}
				return func() { w.Mend(t) }
			}
		}
		told := func(err error) bool { return strings.Contains(fault.Of(err).Hint, "remove it there") }

		if err := try(faulty(map[string]any{"path": "/me", "status": 500})); err == nil || told(err) {
			t.Errorf("the identity breaks: %v, want an error that says nothing of a grant", err)
		}
		if err := try(func() func() { return gatewaytest.Break(t, w.DB, "insert on credential") }); err == nil || told(err) {
			t.Errorf("the database breaks: %v", err)
		}
		if s := w.Stats(t); s.Codes != 2 || s.Revocations != 2 {
			t.Errorf("the provider counts %+v, want both grants given back", s)
		}
		if err := try(faulty(map[string]any{"path": "/me", "status": 500}, map[string]any{"path": "/oauth/revoke", "status": 503, "times": 2})); !told(err) {
			t.Errorf("the provider does not take it back: %v", err)
		}
		if err := try(faulty(map[string]any{"path": "/oauth/token", "after": true, "cut": true})); !told(err) {
			t.Errorf("the answer is lost: %v", err)
		}
		wantAbandoned(t, w, "revoked", "revoked", "not_revoked", "unknown")

		// A process that dies in between tells when it has come back.
		for _, age := range []time.Duration{time.Minute, time.Hour} {
			gatewaytest.Must(t, w.DB.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
				_, err := tx.ExecContext(ctx, `insert into oauth_exchange (flow_id, environment_id, organization_id, user_id, provider, connection_id, began_at) values ($1, $2, $3, $4, 'sandbox', '', $5)`,
					age.String(), w.Environment, w.Organization, mia.ID, sqldb.Micros(w.Clock.Now().Add(-age)))
				return err
			}))
		}
		gatewaytest.Must(t, w.Credentials.RetryRevocations(t.Context()))
		wantAbandoned(t, w, "revoked", "revoked", "not_revoked", "unknown", "unknown")

		w.ConnectOAuth(t, mia, gatewaytest.Mia, nil)
		var open int
		gatewaytest.Must(t, w.DB.Reader().QueryRowContext(t.Context(), `select count(*) from oauth_exchange`).Scan(&open))
		if open != 1 { // the one that may still be at work
			t.Errorf("%d exchanges are open", open)
		}
	})
}

func wantAbandoned(t *testing.T, w *gatewaytest.World, want ...string) {
	t.Helper()
	list, err := w.Audit.List(t.Context(), audit.Filter{Environment: w.Environment, Action: "connection.grant_abandoned"})
	gatewaytest.Must(t, err)
	var got []string
	for _, r := range list.Records {
		got = append(got, r.Detail["grant"])
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the audit tells of %v, want %v", got, want)
	}
}

// A reconnect keeps the id and gives the grant that it replaces back (O15).
func TestReconnect(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		first, _, err := s.token(t)
		gatewaytest.Must(t, err)
		again := s.ConnectOAuth(t, s.owner, gatewaytest.Mia, func(st *credential.Start) { st.Reconnect = s.conn.ID })
		if again.ID != s.conn.ID || again.CredentialVersion != s.conn.CredentialVersion+1 {
			t.Fatalf("reconnected as %s version %d, want %s", again.ID, again.CredentialVersion, s.conn.ID)
		}
		if st := s.Stats(t); st.Revocations != 1 {
			t.Errorf("%d revocations, want the old grant's", st.Revocations)
		}
		second, version, err := s.token(t)
		if err != nil || second == first || version != again.CredentialVersion {
			t.Errorf("after the reconnect: version %d, %v, want a new token", version, err)
		}
		if err := s.call(t); err != nil {
			t.Errorf("the session goes on: %v", err)
		}
		// Not said that it is a reconnect, but the same account: the same connection.
		if c := s.ConnectOAuth(t, s.owner, gatewaytest.Mia, nil); c.ID != s.conn.ID {
			t.Errorf("the same account became connection %s as well", c.ID)
		}
		// O15: another account never takes its place.
		done, err := s.Credentials.Callback(t.Context(), s.owner.Signed(t), s.Environment, "sandbox",
			s.Consent(t, s.Begin(t, s.owner, func(st *credential.Start) { st.Reconnect = s.conn.ID }), gatewaytest.Noa))
		gatewaytest.Must(t, err)
		if done.Instead != gatewaytest.Mia {
			t.Errorf("the person is not told that %q was not reconnected: %q", gatewaytest.Mia, done.Instead)
		}
		other := done.Connection
		if other.ID == s.conn.ID || other.AccountLabel != gatewaytest.Noa {
			t.Errorf("another account: %s, %s", other.ID, other.AccountLabel)
		}
		if now := s.now(t); now.AccountLabel != gatewaytest.Mia {
			t.Errorf("the connection is now of %s", now.AccountLabel)
		}
		// Somebody else's connection is not there to be reconnected.
		noa := s.Person(t, "noa@example.com", account.RoleMember)
		st := start(s.World, "sandbox")
		st.Reconnect = s.conn.ID
		if _, err := s.Credentials.Authorize(t.Context(), noa.Signed(t), st); code(err) != "not_found" {
			t.Errorf("a foreign connection: got %v, want not_found", err)
		}
		st.OrganizationOwned = true
		if _, err := s.Credentials.Authorize(t.Context(), s.Person(t, "admin@example.com", account.RoleAdmin).Signed(t), st); code(err) != "not_found" {
			t.Errorf("a member's connection as the organization's: got %v, want not_found", err)
		}
	})
}

// O15, and a bug: a key of another account, given to reconnect one, silently made
// a connection of its own.
func TestReconnectWithAnotherAccountsKey(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.KeyProvider(t, "tracker")
		conn := s.Connect(t, s.owner, "tracker", false)
		if err := db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
			_, err := tx.ExecContext(ctx, `update connection set account_id = 'acct_9', account_label = 'zoe@sandbox.example' where id = $1`, conn.ID)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		st := start(s.World, "tracker")
		st.Reconnect = conn.ID
		_, err := s.Credentials.AddKey(t.Context(), account.ByPerson(s.owner.Signed(t)).In(s.Environment), st, s.owner.ID, map[string]secret.Value{"api_key": secret.FromString(gatewaytest.SandboxKey)}, account.Agreement{})
		if f := fault.Of(err); f == nil || f.Code != "account_differs" || !strings.Contains(f.Message, "zoe@sandbox.example") || !strings.Contains(f.Message, "Nothing was changed") {
			t.Errorf("got %v", err)
		}
		var n int
		if err := db.Reader().QueryRowContext(t.Context(), `select count(*) from connection where provider = 'tracker'`).Scan(&n); err != nil || n != 1 {
			t.Errorf("%d connections, %v", n, err)
		}
		if got := s.Actions(t); !strings.Contains(strings.Join(got, " "), "connection.refused") {
			t.Errorf("the audit holds %v", got)
		}
	})
}

// A reconnect mends what needed it.
func TestReconnectMends(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.exec(t, `update connection set state = 'needs_reauthorization', reason = 'invalid_grant' where id = $1`, s.conn.ID)
		if err := s.call(t); code(err) != "reconnect" {
			t.Fatalf("got %v, want reconnect", err)
		}
		s.ConnectOAuth(t, s.owner, gatewaytest.Mia, func(st *credential.Start) { st.Reconnect = s.conn.ID })
		if err := s.call(t); err != nil {
			t.Errorf("after the reconnect: %v", err)
		}
	})
}

func TestAddKey(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := gatewaytest.New(t, db)
		w.KeyProvider(t, "tracker")
		w.OAuthProvider(t)
		w.Put(t, strings.NewReplacer("id: sandbox_key", "id: basic", `inject: {header: X-Api-Key, format: "{api_key}"}`, `inject: {basic: {username: "{username}", password: "{password}"}}`).
			Replace(sandbox.KeyRecord(w.Sandbox.URL)))
		mia, noa := w.Person(t, "mia@example.com", account.RoleMember), w.Person(t, "noa@example.com", account.RoleMember)
		me, key := account.ByPerson(mia.Signed(t)).In(w.Environment), secret.FromString(gatewaytest.SandboxKey)
		fields := func(kv ...string) map[string]secret.Value {
			m := map[string]secret.Value{}
			for i := 0; i < len(kv); i += 2 {
				m[kv[i]] = secret.FromString(kv[i+1])
			}
			return m
		}
		foreign := start(w, "tracker")
		foreign.Environment = id.NewEnvironment()
		shared := start(w, "tracker")
		for name, row := range map[string]struct {
			st     credential.Start
			owner  id.User
			fields map[string]secret.Value
			want   string
		}{
			"nothing":                       {start(w, "tracker"), mia.ID, nil, "invalid_credential"},
			"an empty key":                  {start(w, "tracker"), mia.ID, fields("api_key", ""), "invalid_credential"},
			"another field":                 {start(w, "tracker"), mia.ID, map[string]secret.Value{"api_key": key, "region": key}, "invalid_credential"},
			"a huge key":                    {start(w, "tracker"), mia.ID, fields("api_key", strings.Repeat("k", 8193)), "invalid_credential"},
			"a line break":                  {start(w, "tracker"), mia.ID, fields("api_key", gatewaytest.SandboxKey+"\r\nX-Admin: 1"), "credential_unusable"},
			"a wrong key":                   {start(w, "tracker"), mia.ID, fields("api_key", "wrong-key-0123456789"), "credential_rejected"},
			"half of name and password":     {start(w, "basic"), mia.ID, fields("username", "mia"), "invalid_credential"},
			"a name with a colon":           {start(w, "basic"), mia.ID, fields("username", "mia:admin", "password", "p"), "credential_unusable"},
			"a provider by OAuth":           {start(w, "sandbox"), mia.ID, fields("api_key", "x"), "not_key"},
			"no such provider":              {start(w, "nowhere"), mia.ID, fields("api_key", "x"), "not_found"},
			"for another person":            {start(w, "tracker"), noa.ID, fields("api_key", gatewaytest.SandboxKey), "not_found"},
			"for the organization":          {shared, "", fields("api_key", gatewaytest.SandboxKey), "not_allowed"},
			"in an environment not theirs":  {foreign, mia.ID, fields("api_key", gatewaytest.SandboxKey), "not_found"},
			"in an organization not theirs": {credential.Start{Environment: w.Environment, Organization: id.NewOrganization(), Provider: "tracker"}, mia.ID, fields("api_key", gatewaytest.SandboxKey), "not_found"},
		} {
			_, err := w.Credentials.AddKey(t.Context(), me, row.st, row.owner, row.fields, account.Agreement{})
			if code(err) != row.want {
				t.Errorf("%s: got %v, want %s", name, err, row.want)
			}
			if err != nil && strings.Contains(err.Error(), gatewaytest.SandboxKey) {
				t.Errorf("%s: the error quotes the key", name)
			}
		}
		if _, err := w.Credentials.Authorize(t.Context(), mia.Signed(t), start(w, "tracker")); code(err) != "not_oauth" {
			t.Errorf("OAuth at a provider with keys: got %v", err)
		}
		c := w.Connect(t, mia, "tracker", false)
		if again := w.Connect(t, mia, "tracker", false); again.ID != c.ID || again.CredentialVersion != 2 {
			t.Errorf("the same account once more: %s version %d", again.ID, again.CredentialVersion)
		}
	})
}

// Rule 3 asks for denials too: a key that the provider refused and a sign-in that
// was declined left nothing on record. Who tried, where, and why is there; what
// they showed and what the provider said is not.
func TestRefusedConnectIsOnRecord(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := gatewaytest.New(t, db)
		w.KeyProvider(t, "tracker")
		w.OAuthProvider(t)
		mia := w.Person(t, "mia@example.com", account.RoleMember)
		me := account.ByPerson(mia.Signed(t)).In(w.Environment)
		back := func(change func(q url.Values)) error {
			q := w.Consent(t, w.Begin(t, mia, nil), gatewaytest.Mia)
			change(q)
			_, err := w.Credentials.Callback(t.Context(), mia.Signed(t), w.Environment, "sandbox", q)
			return err
		}
		for _, row := range []struct {
			slug, rule, want string
			try              func() error
		}{
			{"tracker", "provider.identity", "credential_rejected", func() error {
				_, err := w.Credentials.AddKey(t.Context(), me, start(w, "tracker"), mia.ID, map[string]secret.Value{"api_key": secret.FromString("wrong-key-0123456789")}, account.Agreement{})
				return err
			}},
			{"sandbox", "provider.answer", "access_denied", func() error {
				return back(func(q url.Values) {
					q.Del("code")
					q.Set("error", "access_denied")
					q.Set("error_description", "wrong-key-0123456789")
				})
			}},
			{"sandbox", "provider.answer", "exchange_failed", func() error {
				return back(func(q url.Values) { q.Set("code", "wrong-key-0123456789") })
			}},
		} {
			w.Clock.Advance(time.Second)
			if err := row.try(); code(err) != row.want {
				t.Errorf("%s: got %v, want %s", row.want, err, row.want)
			}
			page, err := w.Audit.List(t.Context(), audit.Filter{Environment: w.Environment, Action: "connection.refused"})
			gatewaytest.Must(t, err)
			if len(page.Records) == 0 {
				t.Fatalf("%s is not on record", row.want)
			}
			got := page.Records[0].Entry
			if got.Decision != "deny" || got.Code != row.want || got.Provider != row.slug || got.Rule != row.rule || got.User != mia.ID || got.Actor.ID != string(mia.ID) || got.Organization != w.Organization {
				t.Errorf("%s: on record is %+v", row.want, got)
			}
			if strings.Contains(fmt.Sprintf("%+v", got), "wrong-key") {
				t.Errorf("%s: the record holds what was shown: %+v", row.want, got)
			}
		}
	})
}

// What may not connect may not begin either.
func TestAuthorizeNeedsAuthority(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := gatewaytest.New(t, db)
		w.OAuthProvider(t)
		member, auditor := w.Person(t, "mia@example.com", account.RoleMember), w.Person(t, "eve@example.com", account.RoleAuditor)
		shared := start(w, "sandbox")
		shared.OrganizationOwned = true
		foreign := start(w, "sandbox")
		foreign.Organization = id.NewOrganization()
		elsewhere := start(w, "sandbox")
		elsewhere.Environment = id.NewEnvironment()
		for name, row := range map[string]struct {
			who account.Person
			st  credential.Start
		}{
			"a member for the organization": {member.Signed(t), shared}, "an auditor": {auditor.Signed(t), start(w, "sandbox")},
			"another organization": {member.Signed(t), foreign}, "another environment": {member.Signed(t), elsewhere}, "nobody": {account.Person{}, start(w, "sandbox")},
		} {
			if at, err := w.Credentials.Authorize(t.Context(), row.who, row.st); err == nil {
				t.Errorf("%s: got %s, want a refusal", name, at)
			}
		}
	})
}

package credential_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// alive lists the access tokens that the provider still takes.
func (s scene) alive(t *testing.T) (out []string) {
	t.Helper()
	for _, token := range s.Tokens() {
		if !strings.HasPrefix(token, "sbx_at_") {
			continue
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Sandbox.URL+"/me", nil)
		gatewaytest.Must(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := s.Sandbox.Client().Do(req)
		gatewaytest.Must(t, err)
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			out = append(out, token)
		}
	}
	return out
}

// O13: disconnecting ends the access at the provider too, and destroys what was
// kept here.
func TestDisconnect(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		d, err := s.Credentials.Disconnect(t.Context(), s.me(t), s.conn.ID)
		if err != nil || d.Upstream != credential.RevokedUpstream || d.Connection.State != connection.Disconnected || d.Note != "" {
			t.Fatalf("got %+v, %v", d, err)
		}
		if left := s.alive(t); len(left) != 0 {
			t.Errorf("%d tokens still work at the provider", len(left))
		}
		if r := s.stored(t); r.sealed || r.revoke != credential.RevokedUpstream {
			t.Errorf("stored %+v, want nothing kept", r)
		}
		if err := s.call(t); code(err) != "revoked" {
			t.Errorf("a call: got %v, want revoked", err)
		}
		if again, err := s.Credentials.Disconnect(t.Context(), s.me(t), s.conn.ID); err != nil || again.Upstream != credential.RevokedUpstream {
			t.Errorf("a second time: %+v, %v", again, err)
		}
		if got := strings.Join(s.Actions(t), " "); !strings.Contains(got, "connection.disconnected") || !strings.Contains(got, "credential.revoked") {
			t.Errorf("audit: %s", got)
		}
	})
}

// O13: a provider that cannot be reached does not hold the disconnect up. It is
// told later, and only then is the credential destroyed.
func TestRevocationIsRetried(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.Fault(t, map[string]any{"path": "/oauth/revoke", "status": 503, "times": 2})
		d, err := s.Credentials.Disconnect(t.Context(), s.me(t), s.conn.ID)
		if err != nil || d.Upstream != credential.RevokePending || d.Note == "" {
			t.Fatalf("got %+v, %v", d, err)
		}
		if err := s.call(t); code(err) != "revoked" {
			t.Errorf("a call: got %v, want revoked at once", err)
		}
		retry := func(after time.Duration, state string, sealed bool) {
			t.Helper()
			s.Clock.Advance(after)
			gatewaytest.Must(t, s.Credentials.RetryRevocations(t.Context()))
			if r := s.stored(t); r.revoke != state || r.sealed != sealed {
				t.Fatalf("stored %+v, want %s, kept %v", r, state, sealed)
			}
		}
		asked := func() int { return len(s.Arrivals("/oauth/revoke")) }
		retry(59*time.Second, credential.RevokePending, true)
		if asked() != 1 {
			t.Errorf("asked %d times before it was due", asked())
		}
		retry(2*time.Second, credential.RevokePending, true) // the second 503
		retry(3*time.Minute, credential.RevokedUpstream, false)
		if left := s.alive(t); len(left) != 0 {
			t.Errorf("%d tokens still work", len(left))
		}
		before := asked()
		retry(24*time.Hour, credential.RevokedUpstream, false)
		if asked() != before {
			t.Error("a revocation that was taken is sent again")
		}
	})
}

// After a week it is given up, and nothing is kept.
func TestRevocationIsGivenUp(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.Fault(t, map[string]any{"path": "/oauth/revoke", "status": 500, "times": 1000})
		_, err := s.Credentials.Disconnect(t.Context(), s.me(t), s.conn.ID)
		gatewaytest.Must(t, err)
		days := 0.0
		for ; s.stored(t).revoke == credential.RevokePending && days < 30; days += 0.25 {
			s.Clock.Advance(6 * time.Hour)
			gatewaytest.Must(t, s.Credentials.RetryRevocations(t.Context()))
		}
		if r := s.stored(t); r.revoke != credential.RevokeFailed || r.sealed || days < 7 || days > 11 {
			t.Errorf("after %v days: %+v", days, r)
		}
	})
}

// O13: a provider that cannot revoke: said so, and nothing is kept.
func TestRevocationUnsupported(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.KeyProvider(t, "tracker")
		s.conn = s.Connect(t, s.owner, "tracker", false)
		d, err := s.Credentials.Disconnect(t.Context(), s.me(t), s.conn.ID)
		if err != nil || d.Upstream != credential.Unsupported || !strings.Contains(d.Note, s.Sandbox.URL) {
			t.Errorf("got %+v, %v", d, err)
		}
		if r := s.stored(t); r.sealed {
			t.Error("the key is still kept")
		}
	})
}

// O12, O13: a refresh whose answer comes after the disconnect leaves no token
// behind, neither here nor at the provider.
func TestDisconnectDuringRefresh(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.expire()
		p := s.permit(t, s.World)
		made, release := s.HoldToken(t)
		answered := make(chan error, 1)
		go func() {
			_, _, err := s.Credentials.Token(t.Context(), p)
			answered <- err
		}()
		<-made
		if _, err := s.Credentials.Disconnect(t.Context(), s.me(t), s.conn.ID); err != nil {
			t.Fatal(err)
		}
		release()
		if err := <-answered; code(err) != "reconnect" {
			t.Errorf("the caller gets %v", err)
		}
		if r := s.stored(t); r.sealed || r.revoke != credential.RevokedUpstream {
			t.Errorf("stored %+v, want nothing kept", r)
		}
		// The sandbox ends the whole grant with any of its tokens. A provider
		// that does not must have been given the newest one.
		newest, given := s.Tokens()[len(s.Tokens())-1], false
		for _, a := range s.Arrivals("/oauth/revoke") {
			given = given || strings.Contains(a.Body, "token="+newest+"&")
		}
		if !given {
			t.Error("the tokens of the late answer were not given back")
		}
		if c := s.now(t); c.State != connection.Disconnected {
			t.Errorf("the connection is %s", c.State)
		}
	})
}

// A reconnect during a refresh counts; the late answer is given back.
func TestReconnectDuringRefresh(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.expire()
		p := s.permit(t, s.World)
		made, release := s.HoldToken(t)
		answered := make(chan error, 1)
		go func() {
			_, _, err := s.Credentials.Token(t.Context(), p)
			answered <- err
		}()
		<-made
		late := s.Tokens()[len(s.Tokens())-1]
		s.ConnectOAuth(t, s.owner, gatewaytest.Mia, nil)
		release()
		if err := <-answered; err != nil {
			t.Errorf("the caller gets %v", err)
		}
		if r := s.stored(t); r.version != 2 {
			t.Errorf("stored %+v, want the reconnect's version", r)
		}
		given := false
		for _, a := range s.Arrivals("/oauth/revoke") {
			given = given || strings.Contains(a.Body, "token="+late+"&")
		}
		if !given {
			t.Error("the tokens of the late answer were not given back")
		}
		if err := s.call(t); err != nil {
			t.Errorf("a call: %v", err)
		}
	})
}

// invalid_client means our registration. No connection is to blame, and once an
// admin has mended it, all go on.
func TestOurRegistrationIsRefused(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		put := func(secretText string) {
			t.Helper()
			in := oauthInput(s.World)
			none := time.Duration(0)
			in.ClientSecret, in.Overlap = secretOf(secretText), &none
			_, err := s.Providers.Put(t.Context(), s.System.In(s.Environment), in, account.Agreement{})
			gatewaytest.Must(t, err)
		}
		put("wrong")
		s.expire()
		err := s.call(t)
		if code(err) != "upstream_unreachable" || !strings.Contains(err.Error(), "registration") {
			t.Errorf("got %v", err)
		}
		if c := s.now(t); c.State != connection.Connected {
			t.Errorf("the connection is %s, %s", c.State, c.Reason)
		}
		put("sbxs_" + gatewaytest.SandboxKey)
		s.Clock.Advance(31 * time.Second)
		if err := s.call(t); err != nil {
			t.Errorf("mended: %v", err)
		}
	})
}

// Rule 6: a permit for one set of hosts does not get the credential that a
// reconnect with another record brought.
func TestRule6PermitOfAnOlderRecordGetsNoNewCredential(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		same, other := s.permit(t, s.World), s.permit(t, s.World)
		s.ConnectOAuth(t, s.owner, gatewaytest.Mia, nil)
		if _, _, err := s.Credentials.Token(t.Context(), same); err != nil {
			t.Errorf("a reconnect with the same record: %v", err)
		}
		in := oauthInput(s.World)
		in.YAML = []byte(strings.Replace(string(in.YAML), "name: Sandbox\n", "name: Sandbox elsewhere\n", 1))
		_, err := s.Providers.Put(t.Context(), s.System.In(s.Environment), in, account.Agreement{})
		gatewaytest.Must(t, err)
		s.ConnectOAuth(t, s.owner, gatewaytest.Mia, nil)
		if _, _, err := s.Credentials.Token(t.Context(), other); code(err) != "approval_stale" {
			t.Errorf("Token: got %v, want approval_stale", err)
		}
		if _, _, err := s.Credentials.Refresh(t.Context(), other, 1); code(err) != "approval_stale" {
			t.Errorf("Refresh: got %v, want approval_stale", err)
		}
	})
}

// Vending is on record, allowed or not, and gives no refresh token.
func TestVend(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		app := s.app(t, account.ScopeConnectionsVend)
		s.expire()
		v, err := s.Credentials.Vend(t.Context(), app, s.conn.ID, "")
		if err != nil || v.Version != 2 || len(v.Credential.Values) != 1 || v.Credential.Values[provider.FieldAccessToken].IsZero() {
			t.Errorf("got version %d with %d values, %v: want the access token of a refreshed credential alone", v.Version, len(v.Credential.Values), err)
		}
		mend := gatewaytest.Break(t, s.DB, "insert on audit_entry")
		if v, err := s.Credentials.Vend(t.Context(), app, s.conn.ID, ""); code(err) != "audit_unavailable" || len(v.Credential.Values) != 0 {
			t.Errorf("the audit cannot be written: got %d values, %v", len(v.Credential.Values), err)
		}
		mend()
		_, err = s.Credentials.Disconnect(t.Context(), s.me(t), s.conn.ID)
		gatewaytest.Must(t, err)
		if _, err := s.Credentials.Vend(t.Context(), app, s.conn.ID, ""); code(err) != "disconnected" {
			t.Errorf("disconnected: got %v", err)
		}
		page, err := s.Audit.List(t.Context(), audit.Filter{Environment: s.Environment, Action: "credential.vended"})
		gatewaytest.Must(t, err)
		var got []string
		for _, r := range page.Records {
			if r.Connection != s.conn.ID || r.Actor != app.Audit() {
				t.Errorf("the record names %+v", r.Entry)
			}
			got = append(got, r.Decision+" "+r.Code)
		}
		if strings.Join(got, ",") != "deny disconnected,allow " {
			t.Errorf("on record: %q", got)
		}
	})
}

// Callers of all kinds at once, with a revocation in the middle: nothing is
// left half done.
func TestEverythingAtOnce(t *testing.T) {
	t.Parallel()
	eachCluster(t, func(t *testing.T, db *sqldb.DB, another func() *sqldb.DB) {
		s := newScene(t, db)
		nodes := []*gatewaytest.World{s.World, s.Beside(t, another())}
		app := s.app(t, account.ScopeConnectionsVend)
		s.expire()
		var wg sync.WaitGroup
		for _, w := range nodes {
			p := s.permit(t, w)
			for range 10 {
				wg.Go(func() { _, _, _ = w.Credentials.Token(t.Context(), p) })
				wg.Go(func() { _, _, _ = w.Credentials.Refresh(t.Context(), p, 1) })
				wg.Go(func() { _, _ = w.Credentials.Vend(t.Context(), app, s.conn.ID, "") })
			}
			wg.Go(func() { _ = w.Credentials.RetryRevocations(t.Context()) })
		}
		wg.Go(func() { _, _ = s.Credentials.Disconnect(t.Context(), s.me(t), s.conn.ID) })
		wg.Wait()
		s.Clock.Advance(2 * time.Minute)
		gatewaytest.Must(t, s.Credentials.RetryRevocations(t.Context()))
		if r := s.stored(t); r.sealed || r.revoke != credential.RevokedUpstream {
			t.Errorf("stored %+v, want nothing kept", r)
		}
		if left := s.alive(t); len(left) != 0 {
			t.Errorf("%d tokens still work at the provider", len(left))
		}
		if st := s.Stats(t); st.Reuses != 0 {
			t.Errorf("%d refresh tokens were used twice", st.Reuses)
		}
	})
}

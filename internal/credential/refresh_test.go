package credential_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// expire moves the clock past the end of the access token.
func (s scene) expire() { s.Clock.Advance(61 * time.Second) }

func TestRefreshOnExpiry(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		first, v1, err := s.token(t)
		gatewaytest.Must(t, err)
		if again, v, err := s.token(t); err != nil || again != first || v != v1 {
			t.Errorf("a fresh token: version %d, %v, want the same", v, err)
		}
		s.expire()
		second, v2, err := s.token(t)
		if err != nil || second == first || v2 != v1+1 {
			t.Fatalf("an expired token: version %d, %v, want a new one", v2, err)
		}
		if err := s.call(t); err != nil {
			t.Errorf("a call with it: %v", err)
		}
		if st := s.Stats(t); st.Refreshes != 1 || st.Reuses != 0 {
			t.Errorf("the provider counts %+v, want one refresh", st)
		}
		if c := s.now(t); c.CredentialVersion != v2 {
			t.Errorf("the connection names version %d, want %d", c.CredentialVersion, v2)
		}
	})
}

// O11: three nodes, fifty callers each, one expired credential: one refresh, and
// everybody gets the token that it brought.
func TestOneRefresherOnAllNodes(t *testing.T) {
	t.Parallel()
	eachCluster(t, func(t *testing.T, db *sqldb.DB, another func() *sqldb.DB) {
		s := newScene(t, db)
		nodes := []*gatewaytest.World{s.World, s.Beside(t, another()), s.Beside(t, another())}
		const rounds, callers = 5, 50
		for round := range rounds {
			s.expire()
			var mu sync.Mutex
			got := map[string]int{}
			var wg sync.WaitGroup
			for _, w := range nodes {
				p := s.permit(t, w)
				for range callers {
					wg.Go(func() {
						c, _, err := w.Credentials.Token(t.Context(), p)
						if err != nil {
							t.Errorf("round %d: %v", round, err)
							return
						}
						mu.Lock()
						defer mu.Unlock()
						got[string(c.Values[provider.FieldAccessToken].Reveal())]++
					})
				}
			}
			wg.Wait()
			if st := s.Stats(t); st.Refreshes != round+1 || st.Reuses != 0 {
				t.Fatalf("round %d: the provider counts %+v, want one refresh a round and no reuse", round, st)
			}
			if len(got) != 1 {
				t.Errorf("round %d: %d different tokens were handed out", round, len(got))
			}
		}
	})
}

// Twenty calls meet a 401 at the same time: one refresh, and all succeed.
func TestOneRefreshForManyRefusals(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.revokeAtProvider(t, s.Tokens()[0])
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if err := s.call(t); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if st := s.Stats(t); st.Refreshes != 1 || st.Reuses != 0 {
			t.Errorf("the provider counts %+v, want one refresh", st)
		}
	})
}

// revokeAtProvider ends a token at the sandbox, as its own console would.
func (s scene) revokeAtProvider(t *testing.T, token string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.Sandbox.URL+"/oauth/revoke", strings.NewReader(url.Values{"token": {token}}.Encode()))
	gatewaytest.Must(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("ambit-test", "sbxs_"+gatewaytest.SandboxKey)
	resp, err := s.Sandbox.Client().Do(req)
	gatewaytest.Must(t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("revoking at the sandbox: %s", resp.Status)
	}
}

// While a token still works, a refresh that fails or hangs holds nobody up.
func TestEarlyRefreshMayFail(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		first, v, err := s.token(t)
		gatewaytest.Must(t, err)
		s.Clock.Advance(50 * time.Second) // in the early window of a token of 60 s
		s.Fault(t, map[string]any{"path": "/oauth/token", "status": 503, "times": 2})
		if again, version, err := s.token(t); err != nil || again != first || version != v {
			t.Errorf("the provider is down: version %d, %v, want the token that works", version, err)
		}
		if err := s.call(t); err != nil {
			t.Error(err)
		}
		if c := s.now(t); c.State != connection.Connected {
			t.Errorf("state %s", c.State)
		}
		s.exec(t, `update credential set next_attempt_at = 0, lease_owner = 'another node', lease_until = $1`, sqldb.Micros(s.Clock.Now().Add(time.Minute)))
		began := time.Now()
		if again, _, err := s.token(t); err != nil || again != first {
			t.Errorf("another node refreshes: %v, want the token that works", err)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("the caller waited %v", took)
		}
	})
}

// O16: what follows from each answer that a token endpoint can come up with. In
// no row is the refresh token lost: once the provider behaves, it still works.
func TestRefreshAnswers(t *testing.T) {
	t.Parallel()
	type fields = map[string]any
	token := func(more fields) fields {
		body := fields{"access_token": "made-up-access-token-1", "token_type": "Bearer"}
		for k, v := range more {
			body[k] = v
		}
		return fields{"path": "/oauth/token", "body": body}
	}
	long := time.Hour.Microseconds()
	rows := map[string]struct {
		fault   fields
		code    string // of the error; empty: the made-up token
		state   connection.State
		reason  string        // stored with the failure
		wait    time.Duration // at least this long no further attempt
		expires int64         // of the new token from now, µs
	}{
		"503":                    {fields{"path": "/oauth/token", "status": 503, "times": 2}, "upstream_unreachable", connection.Connected, "unavailable", 30 * time.Second, 0},
		"500 with a page":        {fields{"path": "/oauth/token", "status": 500, "body": "<html>", "times": 2}, "upstream_unreachable", connection.Connected, "unavailable", 30 * time.Second, 0},
		"429":                    {fields{"path": "/oauth/token", "status": 429, "headers": map[string]string{"Retry-After": "600"}}, "upstream_unreachable", connection.Connected, "unavailable", 600 * time.Second, 0},
		"429 for a century":      {fields{"path": "/oauth/token", "status": 429, "headers": map[string]string{"Retry-After": "3153600000"}}, "upstream_unreachable", connection.Connected, "unavailable", time.Hour, 0},
		"HTML for 200":           {fields{"path": "/oauth/token", "body": "<html>Log in</html>"}, "upstream_unreachable", connection.Connected, "unreadable", 30 * time.Second, 0},
		"nothing":                {fields{"path": "/oauth/token", "status": 200, "body": ""}, "upstream_unreachable", connection.Connected, "unreadable", 30 * time.Second, 0},
		"endless":                {fields{"path": "/oauth/token", "fill_bytes": 32 << 20, "times": 2}, "upstream_unreachable", connection.Connected, "upstream_too_large", 30 * time.Second, 0},
		"cut in the middle":      {fields{"path": "/oauth/token", "body": `{"access_token":"made-up-access-token-1"}`, "cut": true, "times": 2}, "upstream_unreachable", connection.Connected, "upstream_broken", 30 * time.Second, 0},
		"half a document":        {fields{"path": "/oauth/token", "body": `{"access_token":"made-up-acce`}, "upstream_unreachable", connection.Connected, "unreadable", 30 * time.Second, 0},
		"two tokens":             {fields{"path": "/oauth/token", "body": `{"access_token":"a","access_token":"b"}`, "headers": map[string]string{"Content-Type": "application/json"}}, "upstream_unreachable", connection.Connected, "unreadable", 30 * time.Second, 0},
		"no token":               {fields{"path": "/oauth/token", "body": fields{"token_type": "Bearer"}}, "upstream_unreachable", connection.Connected, "unreadable", 30 * time.Second, 0},
		"a list":                 {fields{"path": "/oauth/token", "body": []int{1}}, "upstream_unreachable", connection.Connected, "unreadable", 30 * time.Second, 0},
		"a redirect":             {fields{"path": "/oauth/token", "redirect": "/elsewhere"}, "upstream_unreachable", connection.Connected, "unreadable", 30 * time.Second, 0},
		"no gzip":                {fields{"path": "/oauth/token", "body": "not gzip", "headers": map[string]string{"Content-Encoding": "gzip"}, "times": 2}, "upstream_unreachable", connection.Connected, "upstream_broken", 30 * time.Second, 0},
		"a token in a list":      {token(fields{"access_token": []string{"made-up-access", "token-1"}}), "upstream_unreachable", connection.Connected, "unreadable", 30 * time.Second, 0},
		"a token in an object":   {token(fields{"access_token": fields{"value": "made-up-access-token-1"}}), "upstream_unreachable", connection.Connected, "unreadable", 30 * time.Second, 0},
		"a token that is null":   {token(fields{"access_token": nil}), "upstream_unreachable", connection.Connected, "unreadable", 30 * time.Second, 0},
		"deep":                   {fields{"path": "/oauth/token", "body": strings.Repeat("[", 60_000), "headers": map[string]string{"Content-Type": "application/json"}}, "upstream_unreachable", connection.Connected, "unreadable", 30 * time.Second, 0},
		"NaN":                    {fields{"path": "/oauth/token", "body": `{"access_token":"made-up-access-token-1","expires_in":NaN}`}, "upstream_unreachable", connection.Connected, "unreadable", 30 * time.Second, 0},
		"429 until a date":       {fields{"path": "/oauth/token", "status": 429, "headers": map[string]string{"Retry-After": "Fri, 31 Dec 2038 23:59:59 GMT"}}, "upstream_unreachable", connection.Connected, "unavailable", 30 * time.Second, 0},
		"429 in the past":        {fields{"path": "/oauth/token", "status": 429, "headers": map[string]string{"Retry-After": "-7"}}, "upstream_unreachable", connection.Connected, "unavailable", 30 * time.Second, 0},
		"invalid_client":         {fields{"path": "/oauth/token", "status": 401, "body": fields{"error": "invalid_client"}}, "upstream_unreachable", connection.Connected, "invalid_client", 30 * time.Second, 0},
		"401 without a word":     {fields{"path": "/oauth/token", "status": 401}, "upstream_unreachable", connection.Connected, "invalid_client", 30 * time.Second, 0},
		"invalid_scope":          {fields{"path": "/oauth/token", "status": 400, "body": fields{"error": "invalid_scope"}}, "upstream_unreachable", connection.Connected, "invalid_scope", 30 * time.Second, 0},
		"an unknown error":       {fields{"path": "/oauth/token", "status": 400, "body": fields{"error": "tea_time"}}, "upstream_unreachable", connection.Connected, "tea_time", 30 * time.Second, 0},
		"a token as error":       {fields{"path": "/oauth/token", "status": 400, "body": fields{"error": strings.Repeat("sbx_rt_", 20)}}, "upstream_unreachable", connection.Connected, "unreadable", 30 * time.Second, 0},
		"invalid_grant":          {fields{"path": "/oauth/token", "status": 400, "body": fields{"error": "invalid_grant"}}, "reconnect", connection.NeedsReauth, "invalid_grant", 0, 0},
		"an error with 200":      {fields{"path": "/oauth/token", "body": fields{"error": "invalid_grant", "access_token": "made-up-access-token-1"}}, "reconnect", connection.NeedsReauth, "invalid_grant", 0, 0},
		"a token too short":      {token(fields{"access_token": "short-7"}), "reconnect", connection.NeedsReauth, "credential_unusable", 0, 0},
		"a token not ASCII":      {token(fields{"access_token": "made-up-tökén-1"}), "reconnect", connection.NeedsReauth, "credential_unusable", 0, 0},
		"no refresh token":       {token(fields{"expires_in": 3600}), "", connection.Connected, "", 0, long},
		"an empty refresh token": {token(fields{"expires_in": 3600, "refresh_token": ""}), "", connection.Connected, "", 0, long},
		"expires_in as text":     {token(fields{"expires_in": "3600"}), "", connection.Connected, "", 0, long},
		"expires_in a fraction":  {token(fields{"expires_in": 3600.0}), "", connection.Connected, "", 0, long},
		"expires_in missing":     {token(nil), "", connection.Connected, "", 0, long / 60},
		"expires_in negative":    {token(fields{"expires_in": -1}), "", connection.Connected, "", 0, long / 60},
		"expires_in zero":        {token(fields{"expires_in": 0}), "", connection.Connected, "", 0, long / 60},
		"expires_in for ever":    {token(fields{"expires_in": 1e18}), "", connection.Connected, "", 0, long / 60},
		"expires_in NaN as text": {token(fields{"expires_in": "NaN"}), "", connection.Connected, "", 0, long / 60},
		"expires_in a list":      {token(fields{"expires_in": []int{3600}}), "", connection.Connected, "", 0, long / 60},
		"an id for a token":      {token(fields{"id": 7, "user": fields{"id": "somebody-else"}, "refresh_token": nil, "expires_in": 3600}), "", connection.Connected, "", 0, long},
		"expires_in a word":      {token(fields{"expires_in": "soon"}), "", connection.Connected, "", 0, long / 60},
		"as a form": {fields{"path": "/oauth/token", "body": "access_token=made-up-access-token-1&expires_in=3600", "headers": map[string]string{"Content-Type": "application/x-www-form-urlencoded"}},
			"", connection.Connected, "", 0, long},
	}
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		for name, row := range rows {
			// Each row starts with a fresh grant and a long session.
			s.conn = s.ConnectOAuth(t, s.owner, gatewaytest.Mia, func(st *credential.Start) { st.Reconnect = s.conn.ID })
			if _, err := s.Sessions.Live(t.Context(), s.bot, s.handle); err != nil {
				s.handle = s.Active(t, s.owner, s.bot, "sandbox")
			}
			s.expire()
			s.Fault(t, row.fault)
			got, _, err := s.token(t)
			if code(err) != row.code {
				t.Errorf("%s: got %v, want %q", name, err, row.code)
			}
			if row.code == "" && got != "made-up-access-token-1" {
				t.Errorf("%s: got another token", name)
			}
			for _, secret := range append(s.Tokens(), "made-up", "sbx_rt_", "<html>", gatewaytest.SandboxKey) {
				if err != nil && strings.Contains(err.Error(), secret) {
					t.Errorf("%s: the error quotes %q", name, secret)
				}
			}
			c, r := s.now(t), s.stored(t)
			if c.State != row.state || r.lastError != row.reason || !r.sealed || r.lease != "" {
				t.Errorf("%s: state %s, stored %+v, want %s, %q, no lease", name, c.State, r, row.state, row.reason)
			}
			if wait := time.Duration(r.next-sqldb.Micros(s.Clock.Now())) * time.Microsecond; row.wait > 0 && (wait < row.wait || wait > row.wait+time.Second) {
				t.Errorf("%s: the next attempt is in %v, want %v", name, wait, row.wait)
			}
			if row.code == "" {
				var until int64
				gatewaytest.Must(t, s.DB.Reader().QueryRowContext(t.Context(), `select expires_at from credential where connection_id = $1`, s.conn.ID).Scan(&until))
				if life := until - sqldb.Micros(s.Clock.Now()); life != row.expires {
					t.Errorf("%s: lives %d s, want %d s", name, life/1e6, row.expires/1e6)
				}
			}
			// The provider behaves again.
			s.Mend(t)
			s.Clock.Advance(time.Hour + time.Minute)
			if _, err := s.Sessions.Live(t.Context(), s.bot, s.handle); err != nil {
				if row.state == connection.NeedsReauth {
					continue
				}
				s.handle = s.Active(t, s.owner, s.bot, "sandbox")
			}
			if _, _, err := s.token(t); err != nil {
				t.Errorf("%s: afterwards: %v", name, err)
			}
		}
		if st := s.Stats(t); st.Reuses != 0 {
			t.Errorf("%d refresh tokens were used twice", st.Reuses)
		}
		if n := len(s.Arrivals("/elsewhere")); n != 0 {
			t.Errorf("a redirect of the token endpoint was followed %d times", n)
		}
	})
}

// O16: the answer to a refresh that the provider carried out gets lost. The
// grant is gone at a provider that rotates; that is said, with its reason.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.expire()
		s.Fault(t, map[string]any{"path": "/oauth/token", "after": true, "cut": true})
		if _, _, err := s.token(t); code(err) != "reconnect" {
			t.Errorf("got %v, want reconnect", err)
		}
		if c := s.now(t); c.State != connection.NeedsReauth || c.Reason != "refresh_outcome_unknown" {
			t.Errorf("state %s, reason %s", c.State, c.Reason)
		}
		if err := s.call(t); code(err) != "reconnect" {
			t.Errorf("a call: got %v, want reconnect", err)
		}
	})
}

// A request that never arrived is repeated once, at once.
func TestLostRequest(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.expire()
		s.Fault(t, map[string]any{"path": "/oauth/token", "cut": true})
		if _, _, err := s.token(t); err != nil {
			t.Errorf("got %v, want the repeat to succeed", err)
		}
		if st := s.Stats(t); st.Refreshes != 1 || st.Reuses != 0 {
			t.Errorf("the provider counts %+v", st)
		}
	})
}

// A caller that goes away does not abort the refresh: its answer may carry the
// only token that works.
func TestRefreshOutlivesItsCaller(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.expire()
		made, release := s.HoldToken(t)
		p := s.permit(t, s.World)
		ctx, cancel := context.WithCancel(t.Context())
		answered := make(chan error, 1)
		go func() {
			_, _, err := s.Credentials.Token(ctx, p)
			answered <- err
		}()
		<-made
		cancel()
		select {
		case err := <-answered:
			if code(err) != "upstream_timeout" || !errors.Is(err, context.Canceled) {
				t.Errorf("the caller gets %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("the caller still waits")
		}
		release()
		soon(t, "the refresh is stored", func() bool { return s.stored(t).version == 2 })
		if _, _, err := s.token(t); err != nil {
			t.Error(err)
		}
		if st := s.Stats(t); st.Refreshes != 1 || st.Reuses != 0 {
			t.Errorf("the provider counts %+v", st)
		}
	})
}

// O11: the lease of an owner that died is waited for, and then taken over.
func TestLeaseOfADeadOwner(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.expire()
		now := s.Clock.Now()
		s.exec(t, `update credential set lease_owner = 'dead', lease_until = $1, attempt_started_at = $2`, sqldb.Micros(now.Add(time.Minute)), sqldb.Micros(now))
		p := s.permit(t, s.World)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, _, err := s.Credentials.Token(ctx, p); code(err) != "upstream_timeout" {
			t.Errorf("while the lease lasts: got %v", err)
		}
		if n := s.Stats(t).Refreshes; n != 0 {
			t.Errorf("%d refreshes beside the owner's", n)
		}
		s.Clock.Advance(time.Minute + time.Second)
		if _, version, err := s.token(t); err != nil || version != 2 {
			t.Errorf("after the lease: version %d, %v", version, err)
		}
		// The same with a grant that the dead owner's attempt has used up.
		s.expire()
		s.exec(t, `update credential set lease_owner = 'dead', lease_until = $1, attempt_started_at = $1`, sqldb.Micros(s.Clock.Now().Add(-time.Second)))
		s.revokeAtProvider(t, s.Tokens()[len(s.Tokens())-1])
		p = s.permit(t, s.World)
		for range 2 { // the next attempt is held back, and used to be told as worth waiting for
			if _, _, err := s.Credentials.Token(t.Context(), p); code(err) != "reconnect" {
				t.Errorf("got %v, want reconnect", err)
			}
		}
		if c := s.now(t); c.Reason != "refresh_outcome_unknown" {
			t.Errorf("reason %s", c.Reason)
		}
	})
}

// The provider has answered and the database is down: the token is kept and
// written when it is back. Nobody gets it before.
func TestDatabaseDownWhileStoring(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.expire()
		p := s.permit(t, s.World)
		mend := gatewaytest.Break(t, s.DB, "update of version on credential")
		answered := make(chan error, 1)
		go func() {
			_, _, err := s.Credentials.Token(t.Context(), p)
			answered <- err
		}()
		soon(t, "the provider has answered", func() bool { return s.Stats(t).Refreshes == 1 })
		select {
		case err := <-answered:
			t.Errorf("the caller got an answer before it was durable: %v", err)
		case <-time.After(300 * time.Millisecond):
		}
		mend()
		if err := <-answered; err != nil {
			t.Errorf("afterwards: %v", err)
		}
		if r := s.stored(t); r.version != 2 {
			t.Errorf("stored %+v", r)
		}
		if st := s.Stats(t); st.Refreshes != 1 || st.Reuses != 0 {
			t.Errorf("the provider counts %+v", st)
		}
	})
}

// A credential that cannot be refreshed is tried once in each back-off window,
// however many call, and the windows grow.
func TestBackOff(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.expire()
		s.Fault(t, map[string]any{"path": "/oauth/token", "status": 400, "body": map[string]any{"error": "temporarily_unavailable"}, "times": 1000})
		before := len(s.Arrivals("/oauth/token"))
		for window := range 4 {
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() {
					err := s.call(t)
					if code(err) != "upstream_unreachable" || fault.Of(err).RetryAfter <= 0 {
						t.Errorf("got %v, want upstream_unreachable with a time", err)
					}
				})
			}
			wg.Wait()
			if n := len(s.Arrivals("/oauth/token")) - before; n != window+1 {
				t.Fatalf("%d requests in %d windows", n, window+1)
			}
			s.Clock.Advance(30*time.Second<<window - time.Second)
			if err := s.call(t); code(err) != "upstream_unreachable" || len(s.Arrivals("/oauth/token"))-before != window+1 {
				t.Fatalf("window %d ended too early: %v", window, err)
			}
			s.Clock.Advance(time.Second)
		}
		s.Mend(t)
		if err := s.call(t); err != nil {
			t.Errorf("the provider is back: %v", err)
		}
		if r := s.stored(t); r.failures != 0 || r.lastError != "" {
			t.Errorf("stored %+v, want a clean row", r)
		}
	})
}

// A provider that gave no refresh token: when the access ends, the person is
// asked to connect again.
func TestNothingToRefreshWith(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.exec(t, `update credential set refreshable = 0`)
		s.Clock.Advance(50 * time.Second)
		if err := s.call(t); err != nil {
			t.Errorf("while it lasts: %v", err)
		}
		s.expire()
		if err := s.call(t); code(err) != "reconnect" {
			t.Errorf("got %v, want reconnect", err)
		}
		if c := s.now(t); c.State != connection.NeedsReauth || c.Reason != "no_refresh_token" {
			t.Errorf("state %s, reason %s", c.State, c.Reason)
		}
	})
}

// Stop lets a refresh under way finish, and starts no other.
func TestStopKeepsTheAnswer(t *testing.T) {
	t.Parallel()
	eachCluster(t, func(t *testing.T, db *sqldb.DB, another func() *sqldb.DB) {
		s := newScene(t, db)
		w := s.Beside(t, another())
		s.expire()
		p := s.permit(t, w)
		made, release := s.HoldToken(t)
		go func() { _, _, _ = w.Credentials.Token(t.Context(), p) }()
		<-made
		stopped := make(chan struct{})
		go func() { w.Credentials.Stop(); close(stopped) }()
		select {
		case <-stopped:
			t.Error("stopped while an answer was on its way")
		case <-time.After(100 * time.Millisecond):
		}
		release()
		<-stopped
		if r := s.stored(t); r.version != 2 {
			t.Errorf("stored %+v, want the new version", r)
		}
		s.expire()
		if _, _, err := w.Credentials.Token(t.Context(), s.permit(t, w)); code(err) != "upstream_unreachable" {
			t.Errorf("after Stop: got %v", err)
		}
		if _, _, err := s.token(t); err != nil {
			t.Errorf("on the other node: %v", err)
		}
	})
}

// Rule 7 of oauth.md §3.1: where a provider does not rotate, one answer that calls
// a grant dead is no proof. It is asked once more, a minute later and also if nobody
// calls, before a person has to sign in again.
func TestDeadGrantIsConfirmed(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := gatewaytest.New(t, db)
		in := oauthInput(w)
		in.YAML = []byte(strings.Replace(string(in.YAML), "refresh: {rotates: true}", "refresh: {rotates: false}", 1))
		_, err := w.Providers.Put(t.Context(), w.System.In(w.Environment), in, account.Agreement{})
		gatewaytest.Must(t, err)
		s := scene{World: w, owner: w.Person(t, "mia@example.com", account.RoleMember)}
		s.conn = w.ConnectOAuth(t, s.owner, gatewaytest.Mia, nil)
		s.bot = w.Agent(t, s.owner, "Triage bot")
		s.handle = w.Active(t, s.owner, s.bot, "sandbox", policy.Read)
		s.exec(t, `update credential set check_at = 0`)
		dead := func(times int) {
			s.Fault(t, map[string]any{"path": "/oauth/token", "status": 400, "body": map[string]any{"error": "invalid_grant"}, "times": times})
		}
		dead(1)
		s.expire()
		for range 2 {
			_, _, err := s.token(t)
			if f := fault.Of(err); f.Code != "upstream_unreachable" || f.RetryAfter <= 0 || f.RetryAfter > time.Minute {
				t.Errorf("after one answer: %v, to be repeated in %v", err, f.RetryAfter)
			}
		}
		if c := s.now(t); c.State != connection.Connected {
			t.Errorf("after one answer it is %s %s", c.State, c.Reason)
		}
		s.Clock.Advance(61 * time.Second)
		gatewaytest.Must(t, s.Credentials.Upkeep(t.Context())) // nobody calls
		if r := s.stored(t); r.version != 2 || r.failures != 0 || s.now(t).State != connection.Connected {
			t.Errorf("asked again, the provider gave a token: %+v", r)
		}
		dead(2)
		s.expire()
		_, _, err = s.token(t)
		if code(err) != "upstream_unreachable" {
			t.Errorf("after one answer: %v", err)
		}
		s.Clock.Advance(61 * time.Second)
		if _, _, err := s.token(t); code(err) != "reconnect" {
			t.Errorf("after two answers: %v", err)
		}
		if c := s.now(t); c.State != connection.NeedsReauth || c.Reason != "invalid_grant" {
			t.Errorf("after two answers it is %s %s", c.State, c.Reason)
		}
		gatewaytest.Must(t, s.Credentials.Upkeep(t.Context()))
		if n := s.Stats(t).Refreshes; n != 1 {
			t.Errorf("%d refreshes went through, want one", n)
		}
	})
}

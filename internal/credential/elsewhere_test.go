package credential_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/sandbox"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// elsewhere is a second host, to which the provider's record is moved.
type elsewhere struct {
	*httptest.Server
	mu     sync.Mutex
	bodies []string // of all that it was sent, in clear
}

// newElsewhere starts one, and gives s rooms that may reach both hosts.
func (s scene) newElsewhere(t *testing.T) *elsewhere {
	t.Helper()
	box := sandbox.New(sandbox.Config{Now: s.Clock.Now, ClientID: "ambit-test", ClientSecret: secretOf("sbxs_" + gatewaytest.SandboxKey),
		RedirectURIs: []string{s.PublicURL.JoinPath(credential.CallbackPath(s.Environment, "sandbox")).String()}}).Handler()
	e := &elsewhere{}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		e.mu.Lock()
		e.bodies = append(e.bodies, r.Header.Get("Authorization")+"\n"+r.URL.String()+"\n"+string(body))
		e.mu.Unlock()
		box.ServeHTTP(w, r)
	}))
	t.Cleanup(e.Close)
	var err error
	s.Outbound, err = outbound.New(outbound.Policy{Allow: []string{s.Sandbox.Listener.Addr().String(), e.Listener.Addr().String()}})
	gatewaytest.Must(t, err)
	t.Cleanup(s.Outbound.Close)
	s.Node(t)
	return e
}

// move edits the record so that it names e, and the owner reconnects there.
func (s scene) move(t *testing.T, e *elsewhere) {
	t.Helper()
	in := oauthInput(s.World)
	in.YAML = []byte(sandbox.Record(e.URL))
	_, err := s.Providers.Put(t.Context(), s.System.In(s.Environment), in, account.Agreement{})
	gatewaytest.Must(t, err)
	s.ConnectOAuth(t, s.owner, gatewaytest.Mia, func(st *credential.Start) { st.Reconnect = s.conn.ID })
}

// got reports what e was sent of tokens, which it did not give.
func (e *elsewhere) got(t *testing.T, tokens []string) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.bodies) == 0 || len(tokens) == 0 {
		t.Errorf("%d requests, %d tokens of the first host: this proves nothing", len(e.bodies), len(tokens))
	}
	for _, body := range e.bodies {
		for _, token := range tokens {
			if strings.Contains(body, token) {
				_, path, _ := strings.Cut(body, "\n")
				path, _, _ = strings.Cut(path, "\n")
				t.Errorf("%s of another host received a token of the first", path)
			}
		}
	}
}

// Rule 6: a refresh was answered by the first host after the record was moved to
// a second one and the owner had reconnected there. The brand-new refresh token
// of the first host used to be posted to the second one's revocation endpoint.
func TestRule6OvertakenRefreshGivesNothingToTheNewHost(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		e := s.newElsewhere(t)
		s.expire()
		p := s.permit(t, s.World)
		made, release := s.HoldToken(t)
		answered := make(chan error, 1)
		go func() {
			_, _, err := s.Credentials.Token(t.Context(), p)
			answered <- err
		}()
		<-made
		s.move(t, e)
		before := len(s.Arrivals("/oauth/revoke"))
		release()
		if err := <-answered; code(err) != "approval_stale" {
			t.Errorf("the caller, whose permit is for the first host, gets %v", err)
		}
		e.got(t, s.Tokens())
		if n := len(s.Arrivals("/oauth/revoke")); n != before {
			t.Errorf("%d tokens were given back with a registration that is for other places", n-before)
		}
		// Two grants are left at the first host: that of the reconnect, and ours.
		s.wantLeftBehind(t, 2)
	})
}

// Rule 6: a reconnect came between the reading of a refresh token and that of
// the connection. The old refresh token used to be posted to the token endpoint
// of the host that the reconnect had moved to.
func TestRule6RefreshTokenOfAnOlderRecordIsNotSentToTheNewHost(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		e := s.newElsewhere(t)
		s.expire()
		before := s.Stats(t).Refreshes
		version, err := s.Credentials.RefreshAfter(t, s.conn.ID, func() { s.move(t, e) })
		if err != nil || version != 2 {
			t.Errorf("the caller gets version %d, %v, want that of the reconnect", version, err)
		}
		e.got(t, s.Tokens())
		if n := s.Stats(t).Refreshes; n != before {
			t.Errorf("the first host was asked %d times", n-before)
		}
		if r := s.stored(t); r.version != 2 || r.failures != 0 {
			t.Errorf("stored %+v, want the reconnect's, without a failure", r)
		}
	})
}

// wantLeftBehind wants the audit to tell n times of a grant at the first host,
// with the place to remove it at.
func (s scene) wantLeftBehind(t *testing.T, n int) {
	t.Helper()
	list := s.leftBehind(t)
	if len(list) != n {
		t.Errorf("the audit tells of %d grants, want %d", len(list), n)
	}
	for _, r := range list {
		if r.Connection != s.conn.ID || r.Code != "provider_changed" || r.Detail["grant"] != "not_revoked" || r.Detail["remove_at"] != s.Sandbox.URL {
			t.Errorf("the audit tells %+v", r.Entry)
		}
	}
}

// F4, and a bug: a refresh whose commit did not take place, which nobody could tell,
// was taken for stored once a reconnect had stored something else. Its grant was left
// at the provider, and nothing said so.
func TestUncertainRefreshThatAReconnectReplacesIsGivenBack(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.expire()
		ours := ""
		version, known, err := s.Credentials.RefreshUncertain(t, s.conn.ID, func() {
			tokens := s.Tokens()
			ours = tokens[len(tokens)-1]
			s.ConnectOAuth(t, s.owner, gatewaytest.Mia, func(st *credential.Start) { st.Reconnect = s.conn.ID })
		})
		if err != nil || !known || version != 2 {
			t.Errorf("the caller gets version %d, known %v, %v; want that of the reconnect", version, known, err)
		}
		given := false
		for _, a := range s.Arrivals("/oauth/revoke") {
			given = given || ours != "" && strings.Contains(a.Body, ours)
		}
		if !given {
			t.Error("the tokens that were not stored live on at the provider")
		}
		if _, known, err := s.Credentials.RefreshUncertain(t, s.conn.ID, func() {}); err != nil || known {
			t.Errorf("nothing was stored since: known %v, %v", known, err)
		}
	})
}

// O15, and a bug: where a provider takes no access back, the audit did not say that
// the one which a reconnect replaced is still there, and where to remove it.
func TestReplacedGrantThatCannotBeGivenBackIsOnRecord(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		in := oauthInput(s.World)
		var kept []string
		for line := range strings.Lines(string(in.YAML)) {
			if !strings.Contains(line, "revoke_") {
				kept = append(kept, line)
			}
		}
		in.YAML = []byte(strings.Join(kept, ""))
		_, err := s.Providers.Put(t.Context(), s.System.In(s.Environment), in, account.Agreement{})
		gatewaytest.Must(t, err)
		reconnect := func() {
			s.ConnectOAuth(t, s.owner, gatewaytest.Mia, func(st *credential.Start) { st.Reconnect = s.conn.ID })
		}
		reconnect() // from here on the account is one of the record without a way to revoke
		before := s.leftBehind(t)
		reconnect()
		after := s.leftBehind(t)
		if len(after) != len(before)+1 {
			t.Fatalf("the audit tells of %d grants, want one more than %d", len(after), len(before))
		}
		if r := after[0]; r.Connection != s.conn.ID || r.Code != "unsupported" || r.Detail["grant"] != "unsupported" || r.Detail["remove_at"] != s.Sandbox.URL {
			t.Errorf("the audit tells %+v", r.Entry)
		}
	})
}

func (s scene) leftBehind(t *testing.T) []audit.Record {
	t.Helper()
	list, err := s.Audit.List(t.Context(), audit.Filter{Environment: s.Environment, Action: "connection.grant_abandoned"})
	gatewaytest.Must(t, err)
	return list.Records
}

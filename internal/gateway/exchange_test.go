package gateway_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// request is a raw request of the scene's agent to the third party.
func (s scene) request(t *testing.T, method, path, body string, header ...string) gateway.Raw {
	t.Helper()
	u, err := url.Parse(s.Sandbox.URL + path)
	gatewaytest.Must(t, err)
	r := gateway.Raw{Identity: s.bot, Handle: s.handle, Method: method, URL: u, Header: http.Header{}, Door: "relay", Address: "127.0.0.1"}
	if body != "" {
		r.Body, r.Length = strings.NewReader(body), int64(len(body))
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

// exchange makes a raw request and reads its answer.
func (s scene) exchange(t *testing.T, r gateway.Raw) (*gateway.Exchange, string, error) {
	t.Helper()
	x, err := s.Gateway.Exchange(t.Context(), r)
	if err != nil {
		return nil, "", err
	}
	defer x.Close()
	text, err := io.ReadAll(x)
	return x, string(text), err
}

// Issue 7, "From a raw request to a grant": a request is the tool that could have
// made it, else the generic one of its effect; what makes access, replaces the
// method or bundles requests is refused, and so is a place of nobody's.
func TestRawRequestToGrant(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		tests := []struct {
			method, path, body string
			header             []string
			tool, code         string
		}{
			{"GET", "/issues?state=open&per_page=2", "", nil, "tracker_list_issues", ""},
			{"GET", "/issues/1", "", nil, "tracker_get_issue", ""},
			{"GET", "/issues?page=1", "", nil, "tracker_read", ""},
			{"HEAD", "/me", "", nil, "tracker_read", ""},
			{"POST", "/issues", `{"title": "by hand"}`, nil, "tracker_create_issue", ""},
			{"POST", "/issues", `{"title":"by hand","colour":"red"}`, nil, "tracker_write", ""},
			{"POST", "/issues", `{"title":"a","title":"b"}`, nil, "tracker_destroy", "approval_required"}, // not strictly JSON: nobody can tell
			{"DELETE", "/issues/2", "", nil, "tracker_delete_issue", "approval_required"},
			{"DELETE", "/elsewhere", "", nil, "tracker_destroy", "approval_required"},
			{"POST", "/keys", `{"name":"mine"}`, nil, "", "access_refused"},
			{"GET", "/%6beys/1", "", nil, "", "access_refused"},
			{"GET", "/x/..%2fkeys/1", "", nil, "", "destination_denied"},
			{"POST", "/batch", `{"requests":[]}`, nil, "", "access_refused"},
			{"POST", "/graphql", `{"query":"{me}"}`, nil, "", "access_refused"},
			{"POST", "/issues/2", `{}`, []string{"X-HTTP-Method-Override", "DELETE"}, "", "method_override_refused"},
			{"POST", "/issues/2", `{}`, []string{"X_Http_Method", "DELETE"}, "", "method_override_refused"},
			{"POST", "/issues/2?_method=DELETE", `{}`, nil, "", "method_override_refused"},
			{"POST", "/issues/2", `_method=DELETE`, []string{"Content-Type", "application/x-www-form-urlencoded"}, "", "method_override_refused"},
			{"POST", "/issues/2", "--b\r\nContent-Disposition: form-data; name=\"_method\"\r\n\r\nDELETE\r\n--b--\r\n", []string{"Content-Type", "multipart/form-data; boundary=b"}, "", "method_override_refused"},
			{"POST", "/issues/2", "x", []string{"Content-Type", "multipart/mixed; boundary=b"}, "", "access_refused"},
			// An attacker: headers, spellings of a form and a body that nobody reads.
			{"GET", "/issues/1", "", []string{"Sudo", "root"}, "tracker_read", ""},
			{"POST", "/issues", `{"title": "by hand"}`, []string{"Other-Account", "9"}, "tracker_write", ""},
			{"POST", "/issues/2", `_method=DELETE`, []string{"Content-Type", "application/x-www-form-urlencoded; a=1; a=2"}, "", "content_type_refused"},
			{"POST", "/issues/2", "--b\r\nContent-ID: <_method>\r\n\r\nDELETE\r\n--b--\r\n", []string{"Content-Type", "multipart/related; boundary=b"}, "", "method_override_refused"},
			{"POST", "/issues", `{"title": "unread"}`, []string{"Content-Type", "application/grpc"}, "tracker_write", ""},
			{"TRACE", "/me", "", nil, "", "method_refused"},
			{"GET", "/me?token=amb_at_stolen", "", nil, "", "own_credential"},
		}
		for _, test := range tests {
			name := fmt.Sprint(test.method, " ", test.path, " ", test.body, test.header)
			_, text, err := s.exchange(t, s.request(t, test.method, test.path, test.body, test.header...))
			if code(err) != test.code {
				t.Errorf("%s: %q %q, want %q", name, code(err), text, test.code)
			}
			if got := s.last(t); got.Tool != test.tool && test.tool != "" || got.Session == "" && test.code != "method_refused" && test.code != "own_credential" || got.Agent != s.bot.Agent() {
				t.Errorf("%s: on record is tool %q of session %q, want %q", name, got.Tool, got.Session, test.tool)
			}
		}
	})
}

// brokers.md §2.3 (authproxy): the destination is never chosen by the caller. No
// place but the account's own is reached, and nothing arrives there.
func TestDestinationIsNeverChosenByTheCaller(t *testing.T) {
	t.Parallel()
	s := newScene(t, sqldbtest.Open(t, sqldb.SQLite))
	before := len(s.Arrivals(""))
	own, err := url.Parse(s.Sandbox.URL)
	gatewaytest.Must(t, err)
	for _, place := range []string{"https://elsewhere.example/me", "http://127.0.0.1:1/me", "http://localhost:" + own.Port() + "/me", "https://" + own.Host + "/me", "http://user@" + own.Host + "/me"} {
		r := s.request(t, "GET", "/me", "")
		if r.URL, err = url.Parse(place); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.exchange(t, r); code(err) != "destination_denied" {
			t.Errorf("%s: %v", place, err)
		}
	}
	r := s.request(t, "GET", "/me", "", "Host", "elsewhere.example", "X-Forwarded-Host", "elsewhere.example", "Forwarded", "host=elsewhere.example")
	if x, _, err := s.exchange(t, r); err != nil || x.Status != 200 {
		t.Errorf("a request with other hosts in its headers: %v", err)
	}
	all := s.Arrivals("")
	if len(all) != before+1 {
		t.Fatalf("%d requests arrived, want one", len(all)-before)
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-Host", "Via", "Cookie"} {
		if v := all[len(all)-1].Header.Get(name); v != "" {
			t.Errorf("%s: %s arrived", name, v)
		}
	}
}

// Issue 7: what needs an approval is answered with the URL, and the identical
// request passes once after it; any other does not, and a body over 1 MiB cannot
// be approved (rule 5).
func TestRawApprovalIsForTheIdenticalRequest(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		ask := func(method, path, body string) error {
			_, _, err := s.exchange(t, s.request(t, method, path, body))
			return err
		}
		if err := ask("DELETE", "/things/1?hard=yes", `{"why":"done"}`); code(err) != "approval_required" {
			t.Fatal(err)
		}
		s.approve(t)
		for _, other := range [][3]string{{"DELETE", "/things/2?hard=yes", `{"why":"done"}`}, {"DELETE", "/things/1?hard=no", `{"why":"done"}`}, {"DELETE", "/things/1?hard=yes", `{"why":"else"}`}} {
			if err := ask(other[0], other[1], other[2]); code(err) != "approval_required" {
				t.Errorf("%v passes: %v", other, err)
			}
		}
		// An attacker: under an approval of one request, another account's header was sent.
		for _, header := range [][2]string{{"Sudo", "root"}, {"Other-Account", "9"}} {
			if _, _, err := s.exchange(t, s.request(t, "DELETE", "/things/1?hard=yes", `{"why":"done"}`, header[0], header[1])); code(err) != "approval_required" && code(err) != "rate_limited" {
				t.Errorf("with %v: %v", header, err)
			}
		}
		if err := ask("DELETE", "/things/1?hard=yes", `{"why":"done"}`); err != nil {
			t.Errorf("the identical request: %v", err)
		}
		if err := ask("DELETE", "/things/1?hard=yes", `{"why":"done"}`); code(err) == "" {
			t.Error("the approval was good for two requests")
		}
		large := s.request(t, "DELETE", "/things/9", strings.Repeat("x", 1<<20+1))
		if _, _, err := s.exchange(t, large); code(err) != "not_approvable" {
			t.Errorf("a body over 1 MiB: %v", err)
		}
	})
}

// An attacker opened a WebSocket at the place of a tool that reads, in a session that
// may read, and said over it what they liked; and hid a body behind an upgrade.
func TestSocketIsNoRead(t *testing.T) {
	t.Parallel()
	s := newScene(t, sqldbtest.Open(t, sqldb.SQLite))
	open := func(method, body string) error {
		r := s.request(t, method, "/issues/1", body)
		r.Handle, r.Upgrade = s.Active(t, s.owner, s.bot, "tracker", policy.Read), true
		_, _, err := s.exchange(t, r)
		return err
	}
	if err := open("GET", ""); code(err) != "not_granted" {
		t.Errorf("a socket in a session that reads: %v", err)
	}
	for _, method := range []string{"POST", "GET"} {
		if err := open(method, `{"query":"mutation"}`); code(err) != "socket_refused" {
			t.Errorf("%s with a body: %v", method, err)
		}
	}
}

// brokers.md §2.3 (agent-vault): a revoke ends what is open at once. The stream is
// cut within a second, its outcome is on record as cut, and the next request is
// refused.
func TestRevokeCutsAStreamThatIsOpen(t *testing.T) {
	t.Parallel()
	eachCluster(t, func(t *testing.T, db *sqldb.DB, another func() *sqldb.DB) {
		s := newScene(t, db)
		s.PlainProvider(t, "plain") // events are no JSON, of which fields can be cut
		s.Connect(t, s.owner, "plain", false)
		s.handle = s.Active(t, s.owner, s.bot, "plain", policy.Read)
		gone := make(chan struct{})
		s.Serve("stream", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: first\n\n")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			close(gone)
		}))
		x, err := s.Gateway.Exchange(t.Context(), s.request(t, "GET", "/stream", ""))
		gatewaytest.Must(t, err)
		defer x.Close()
		p := make([]byte, 100)
		n, err := x.Read(p)
		if err != nil || string(p[:n]) != "data: first\n\n" {
			t.Fatalf("the first event: %q, %v", p[:n], err)
		}
		elsewhere := s.Beside(t, another())
		began := time.Now()
		_, err = elsewhere.Sessions.Revoke(t.Context(), account.ByPerson(s.owner.Signed(t)).In(s.Environment), session.Aim{Agent: s.bot.Agent()})
		gatewaytest.Must(t, err)
		if _, err := x.Read(p); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("the stream goes on, or looks whole: %v", err)
		}
		<-x.Context().Done()
		<-gone
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("it took %v", d)
		}
		if reason, cut := x.Cut(); !cut || reason != "revoked" {
			t.Errorf("why: %q", reason)
		}
		if got := s.outcome(t); got != "cut" {
			t.Errorf("the outcome is %s", got)
		}
		if _, _, err := s.exchange(t, s.request(t, "GET", "/me", "")); code(err) != "revoked" {
			t.Errorf("the next request: %v", err)
		}
	})
}

// Whatever comes back, in whatever pieces and form, the credential is not in it
// (rule 1, threats.md U1), and headers of the agent's do not arrive (S1).
func TestRule1RawAnswerHoldsNoCredential(t *testing.T) {
	t.Parallel()
	s := newScene(t, sqldbtest.Open(t, sqldb.SQLite))
	for kind, inject := range map[string]string{
		"bearer": `{header: Authorization, format: "Bearer {api_key}"}`, "header": `{header: X-Api-Key, format: "{api_key}"}`,
		"query": `{query: key, format: "{api_key}"}`, "basic": `{basic: {username: "x", password: "{api_key}"}}`,
		"headers": `{headers: {X-One: "{api_key}", X-Two: "t {api_key}"}}`,
	} {
		slug := "mirror" + kind
		s.Put(t, s.MirrorRecord(slug, inject))
		s.Connect(t, s.owner, slug, false)
		handle := s.Active(t, s.owner, s.bot, slug, policy.Read, policy.Write)
		for _, path := range gatewaytest.Mirrors() {
			r := s.request(t, "GET", "/mirror"+path, "", "Authorization", "Bearer amb_at_mine", "Cookie", "a=b", "Accept-Encoding", "gzip")
			r.Handle = handle
			x, text, err := s.exchange(t, r)
			shown := text
			if err != nil {
				shown += fmt.Sprintf("%+v", err)
			}
			if x != nil {
				shown += fmt.Sprint(x.Header, x.Trailer())
			}
			if found := leaks(shown, []string{gatewaytest.SandboxKey}); len(found) > 0 {
				t.Errorf("%s %s shows %v: %.300s", kind, path, found, shown)
			}
			if x != nil && x.Header.Get("Set-Cookie") != "" {
				t.Errorf("%s %s sets a cookie", kind, path)
			}
			if path == "/echo" && (x == nil || x.Status != 200 || !strings.Contains(text, "****")) {
				t.Errorf("%s: the echo is %q, %v", kind, text, err)
			}
		}
		all := s.Arrivals("/mirror/echo")
		for _, a := range all {
			if a.Header.Get("Cookie") != "" || strings.Contains(fmt.Sprint(a.Header), "amb_at_") {
				t.Errorf("%s: a header of the agent arrived: %v", kind, a.Header)
			}
		}
	}
}

// A bug: a policy on what a request says looked at JSON alone, and let the same pass
// as a form or as text, of which the arguments know the hash. A policy on a tool's
// argument did not see it in the same request made generically.
func TestPoliciesSeeRawRequests(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		by := s.System.In(s.Environment)
		const text = `@id("secret") forbid(principal, action, resource) when { context.arguments.hasTag("body.visibility") && context.arguments.getTag("body.visibility") == "public" };
@id("ours") forbid(principal, action == Action::"read", resource) when { context.generic || context.arguments.hasTag("number") && context.arguments.getTag("number") != "2" };`
		_, err := s.Sessions.SetPolicy(t.Context(), by, s.Organization, 0, text, account.Agreement{})
		gatewaytest.Must(t, err)
		for _, row := range []struct{ method, path, body, media, want string }{
			{"POST", "/things", `{"visibility":"private"}`, "application/json", ""},
			{"POST", "/things", `{"visibility":"public"}`, "application/json", "policy_denied"},
			{"POST", "/things", `visibility=public`, "application/x-www-form-urlencoded", "policy_denied"},
			{"POST", "/things", "\ufeff" + `{"visibility":"public"}`, "text/plain", "policy_denied"},
			{"POST", "/things", `{"visibility":"public","x":1.00000000000000000000001}`, "application/json", "policy_denied"},
			{"POST", "/things", `{"visibility":"public","x":"` + strings.Repeat("x", 1<<20) + `"}`, "application/json", "policy_denied"},
			{"GET", "/issues/2", "", "", ""},
			{"GET", "/issues/1", "", "", "policy_denied"},
			{"GET", "/issues/1?zz=1", "", "", "policy_denied"},
		} {
			before := len(s.Arrivals(""))
			_, _, err := s.exchange(t, s.request(t, row.method, row.path, row.body, "Content-Type", row.media))
			if arrived := len(s.Arrivals("")) > before; code(err) != row.want || arrived != (row.want == "") {
				t.Errorf("%s %s with %.60q: got %q, arrived %v, want %q", row.method, row.path, row.body, code(err), arrived, row.want)
			}
		}
	})
}

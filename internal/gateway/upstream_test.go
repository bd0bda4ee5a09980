package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// mirror connects a mirror and gives the handle of a session on it.
func (s scene) mirror(t *testing.T) string {
	t.Helper()
	s.Put(t, s.MirrorRecord("mirror", `{header: X-Mirror-Auth, format: "{api_key}"}`))
	_, err := s.Credentials.AddKey(t.Context(), account.ByPerson(s.owner.Signed(t)).In(s.Environment),
		credential.Start{Environment: s.Environment, Organization: s.Organization, Provider: "mirror"}, s.owner.ID,
		map[string]secret.Value{"api_key": secret.FromString(gatewaytest.SandboxKey)}, account.Agreement{})
	gatewaytest.Must(t, err)
	return s.Active(t, s.owner, s.bot, "mirror", policy.Read, policy.Write)
}

// U2: whatever an upstream does ends in an answer or a typed error that tells
// the agent what it knows, in bounded time and memory, and in the outcome that
// is on record.
func TestHostileUpstream(t *testing.T) {
	t.Parallel()
	type fields = map[string]any
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		for name, row := range map[string]struct {
			fault   fields
			code    string // of the error; empty: an answer
			status  int
			outcome string
			refused int // status of an answer that was refused
		}{
			"an error":               {fields{"status": 500, "body": "boom"}, "", 500, "error", 0},
			"a polite error":         {fields{"status": 422, "body": fields{"error": "no"}}, "", 422, "error", 0},
			"HTML":                   {fields{"body": "<html><script>alert(1)</script>"}, "", 200, "ok", 0},
			"nothing":                {fields{"status": 204}, "", 204, "ok", 0},
			"JSON that is none":      {fields{"body": `{"a":`, "headers": fields{"Content-Type": "application/json"}}, "", 200, "ok", 0},
			"a redirect":             {fields{"redirect": "/echo"}, "", 302, "ok", 0},
			"half an answer":         {fields{"body": strings.Repeat("x", 1000), "cut": true}, "outcome_unknown", 0, "unknown", 0},
			"no answer":              {fields{"cut": true, "times": 10}, "outcome_unknown", 0, "unknown", 0},
			"over the limit":         {fields{"fill_bytes": 20 << 20}, "upstream_answer_refused", 0, "ok", 200},
			"a bad length of gzip":   {fields{"body": "not gzip", "headers": fields{"Content-Encoding": "gzip"}}, "upstream_answer_refused", 0, "ok", 200},
			"an unknown compression": {fields{"body": "x", "headers": fields{"Content-Encoding": "br"}}, "upstream_answer_refused", 0, "ok", 200},
		} {
			row.fault["path"] = "/issues"
			s.Fault(t, row.fault)
			r, err := s.do(t, "tracker_list_issues", nil)
			if code(err) != row.code || r.Status != row.status || err == nil && r.Event == "" {
				t.Errorf("%s: got %d, %v, want %d %s", name, r.Status, err, row.status, row.code)
			}
			if got := s.last(t).Outcome; got == nil || got.Status != row.outcome || got.UpstreamStatus != row.status+row.refused {
				t.Errorf("%s: outcome %+v, want %s", name, got, row.outcome)
			}
			s.Mend(t)
		}
		handle := s.mirror(t)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for path, want := range map[string]string{"/bomb": "upstream_answer_refused", "/fat": "outcome_unknown", "/malformed": "outcome_unknown", "/half": "outcome_unknown"} {
			began := time.Now()
			_, err := s.Call(t, s.bot, handle, "mirror_read", map[string]any{"path": path})
			if code(err) != want || fault.Of(err).Hint == "" {
				t.Errorf("%s: got %v, want %s", path, err, want)
			}
			if took := time.Since(began); took > time.Minute {
				t.Errorf("%s took %v", path, took)
			}
		}
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 256<<20 {
			t.Errorf("memory grew by %d MiB", grown>>20)
		}

		// Slow, for a caller with little time.
		s.Fault(t, fields{"path": "/issues", "delay_ms": 20_000})
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if err := s.in(ctx, "tracker_list_issues"); code(err) != "outcome_unknown" {
			t.Errorf("slow: got %v, want outcome_unknown", err)
		}
		// Gone.
		s.Sandbox.Close()
		_, err := s.do(t, "tracker_list_issues", nil)
		if code(err) != "upstream_unreachable" || fault.Of(err).Kind != fault.Unavailable {
			t.Errorf("gone: got %v, want upstream_unreachable", err)
		}
		if got := s.last(t).Outcome; got.Status != "error" || got.Code != "upstream_unreachable" {
			t.Errorf("gone: outcome %+v", got)
		}
	})
}

// An answer that arrived and is refused says so, and what has become of the call:
// it used to be "no answer came back, do not repeat it" for a list that was too
// long as for a payment that was made. A write that the provider gave up waiting
// for or answered with a redirect may have been carried out, and one that it does
// not take now is right as it is; they used to be told otherwise.
func TestRefusedAnswerSaysWhatIsKnown(t *testing.T) {
	t.Parallel()
	type fields = map[string]any
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		brotli := fields{"Content-Encoding": "br"}
		for name, row := range map[string]struct {
			fault                       fields
			tool                        string
			code, says, hint, sent, end string
		}{
			"a read too large":    {fields{"fill_bytes": 20 << 20}, "tracker_list_issues", "upstream_answer_refused", "size limit", "smaller page", "200", "ok"},
			"a read in a coding":  {fields{"body": "x", "headers": brotli}, "tracker_list_issues", "upstream_answer_refused", "coding", "Nothing was changed", "200", "ok"},
			"a write too large":   {fields{"status": 201, "fill_bytes": 20 << 20}, "tracker_create_issue", "upstream_answer_refused", "size limit", "has carried it out. Do not repeat it", "201", "ok"},
			"a write refused":     {fields{"status": 422, "body": "x", "headers": brotli}, "tracker_create_issue", "upstream_answer_refused", "coding", "did not carry it out", "422", "error"},
			"a write that failed": {fields{"status": 502, "body": "x", "headers": brotli}, "tracker_create_issue", "upstream_answer_refused", "coding", "look first", "502", "error"},
			"a write timed out":   {fields{"status": 408, "body": "x", "headers": brotli}, "tracker_create_issue", "upstream_answer_refused", "coding", "look first", "408", "error"},
			"a write too early":   {fields{"status": 425, "body": "x", "headers": brotli}, "tracker_create_issue", "upstream_answer_refused", "coding", "Wait, then call again", "425", "error"},
			"a write limited":     {fields{"status": 429, "body": "x", "headers": fields{"Content-Encoding": "br", "Retry-After": "7"}}, "tracker_create_issue", "upstream_answer_refused", "coding", "Wait, then call again", "429", "error"},
			"a read limited":      {fields{"status": 429, "body": "x", "headers": brotli}, "tracker_list_issues", "upstream_answer_refused", "coding", "Wait, then call again", "429", "error"},
			"a write redirected":  {fields{"status": 303, "body": "x", "headers": brotli}, "tracker_create_issue", "upstream_answer_refused", "coding", "look first", "303", "ok"},
			"a read broken off":   {fields{"body": strings.Repeat("x", 1000), "cut": true}, "tracker_list_issues", "outcome_unknown", "no whole answer", "may be repeated", "", "unknown"},
			"a write broken off":  {fields{"body": strings.Repeat("x", 1000), "cut": true}, "tracker_create_issue", "outcome_unknown", "no whole answer", "Do not repeat it", "", "unknown"},
		} {
			row.fault["path"] = "/issues"
			s.Fault(t, row.fault)
			var args map[string]any
			if row.tool == "tracker_create_issue" {
				args = map[string]any{"title": "One"}
			}
			_, err := s.do(t, row.tool, args)
			if f := fault.Of(err); f == nil || f.Code != row.code || !strings.Contains(f.Message, row.says) || !strings.Contains(f.Hint, row.hint) || f.Fields["status"] != row.sent {
				t.Errorf("%s: got %v, hint %q, facts %v", name, err, fault.Of(err).Hint, fault.Of(err).Fields)
			}
			if got, want := fault.Of(err).RetryAfter, map[string]time.Duration{"a write limited": 7 * time.Second}[name]; got != want {
				t.Errorf("%s: retry after %v, want %v", name, got, want)
			}
			if got := s.last(t).Outcome; got == nil || got.Status != row.end || got.Code != row.code {
				t.Errorf("%s: on record is %+v, want %s", name, got, row.end)
			}
			s.Mend(t)
		}
		// A credential that is refused in a coding is refused all the same.
		s.Fault(t, fields{"path": "/", "status": 401, "body": "x", "headers": brotli, "times": 5})
		if _, err := s.do(t, "tracker_list_issues", nil); code(err) != "reconnect" {
			t.Errorf("a refused credential: got %v, want reconnect", err)
		}
	})
}

// A provider refuses the credential: one refresh, one repeat. Refused again, the
// account needs its person, but only if the provider's own check of a credential
// refuses it too: an agent cannot disable an account by a request that is always
// refused.
func TestCredentialIsRefused(t *testing.T) {
	t.Parallel()
	refuse := func(path string, times int) map[string]any {
		return map[string]any{"path": path, "status": 401, "times": times, "body": "go away"}
	}
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.OAuthProvider(t)
		oauth := s.ConnectOAuth(t, s.owner, gatewaytest.Mia, nil)
		handle := s.Active(t, s.owner, s.bot, "sandbox", policy.Read, policy.Write)
		state := func(c connection.Connection) string {
			t.Helper()
			now, err := s.Connections.ByID(t.Context(), db.Reader(), s.Environment, c.ID)
			gatewaytest.Must(t, err)
			return string(now.State) + " " + now.Reason
		}
		calls := func(path string, do func()) int {
			before := len(s.Arrivals(path))
			do()
			return len(s.Arrivals(path)) - before
		}

		s.Fault(t, refuse("/issues", 1))
		n := calls("/issues", func() {
			if r, err := s.Call(t, s.bot, handle, "sandbox_create_issue", map[string]any{"title": "once"}); err != nil || r.Status != 201 {
				t.Errorf("refused once: got %d, %v", r.Status, err)
			}
		})
		if n != 2 || s.Stats(t).Refreshes != 1 || state(oauth) != "connected " {
			t.Errorf("refused once: %d requests, %d refreshes, %s", n, s.Stats(t).Refreshes, state(oauth))
		}

		s.Fault(t, refuse("/issues", 2))
		n = calls("/issues", func() {
			r, err := s.Call(t, s.bot, handle, "sandbox_list_issues", nil)
			if err != nil || r.Status != 401 || r.Withheld == "" || len(r.Body) > 0 {
				t.Errorf("a request that is always refused: got %d %q, %v", r.Status, r.Body, err)
			}
		})
		if n != 2 || s.Stats(t).Refreshes != 2 || state(oauth) != "connected " {
			t.Errorf("a request that is always refused: %d requests, %d refreshes, %s", n, s.Stats(t).Refreshes, state(oauth))
		}

		s.Fault(t, refuse("/issues", 2))
		s.Fault(t, refuse("/me", 1))
		n = calls("/issues", func() {
			if _, err := s.Call(t, s.bot, handle, "sandbox_list_issues", nil); code(err) != "reconnect" {
				t.Errorf("refused for good: got %v, want reconnect", err)
			}
		})
		if n != 2 || s.Stats(t).Refreshes != 3 || state(oauth) != "needs_reauthorization credential_rejected" {
			t.Errorf("refused for good: %d requests, %d refreshes, %s", n, s.Stats(t).Refreshes, state(oauth))
		}
		if got := s.last(t).Outcome; got.Status != "error" || got.Code != "reconnect" {
			t.Errorf("refused for good: outcome %+v", got)
		}
		n = calls("/issues", func() {
			_, err := s.Call(t, s.bot, handle, "sandbox_list_issues", nil)
			if code(err) != "reconnect" || fault.Of(err).Fields["connect_url"] == "" {
				t.Errorf("from then on: got %v with %v, want reconnect with where", err, fault.Of(err).Fields)
			}
		})
		if n != 0 {
			t.Error("a connection that needs its person was used")
		}

		// A key cannot be refreshed: no repeat.
		s.Fault(t, refuse("/issues", 1))
		n = calls("/issues", func() {
			if r, err := s.do(t, "tracker_list_issues", nil); err != nil || r.Status != 401 {
				t.Errorf("a key, this request refused: got %d, %v", r.Status, err)
			}
		})
		if n != 1 || state(s.conn) != "connected " {
			t.Errorf("a key, this request refused: %d requests, %s", n, state(s.conn))
		}
		s.Fault(t, refuse("/issues", 1))
		s.Fault(t, refuse("/me", 1))
		if _, err := s.do(t, "tracker_list_issues", nil); code(err) != "reconnect" {
			t.Errorf("a key, refused for good: got %v", err)
		}
		if got := state(s.conn); got != "needs_reauthorization credential_rejected" {
			t.Errorf("a key, refused for good: %s", got)
		}
	})
}

// S1, workos.md §3.6, 3: what the provider receives is made here. No header, parameter or field of
// the agent's request goes through.
func TestOnlyOurHeadersGoOut(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		for _, args := range []string{`{}`, `{"session":"` + s.handle + `"}`, `{"headers":{"X-Admin":"1"}}`, `{"Authorization":"Bearer mine"}`, `{"authorization":"Bearer mine"}`, `{"X-Api-Key":"mine"}`} {
			_, err := s.raw(t, "tracker_echo", args)
			if args == `{}` && err != nil || args != `{}` && code(err) != "invalid_arguments" {
				t.Errorf("%s: got %v", args, err)
			}
		}
		_, err := s.do(t, "tracker_create_issue", map[string]any{"title": "x", "body": "y"})
		gatewaytest.Must(t, err)
		for _, a := range append(s.Arrivals("/echo"), s.Arrivals("/issues")...) {
			var names []string
			for name, values := range a.Header {
				names = append(names, name)
				if len(values) != 1 {
					t.Errorf("%s: %s comes %d times", a.URI, name, len(values))
				}
			}
			slices.Sort(names)
			want := []string{"Accept", "Accept-Encoding", "User-Agent", "X-Api-Key"}
			if a.Method == "POST" {
				want = []string{"Accept", "Accept-Encoding", "Content-Length", "Content-Type", "User-Agent", "X-Api-Key"}
			}
			if !slices.Equal(names, want) || a.Header.Get("User-Agent") != "ambit" || a.Header.Get("X-Api-Key") != gatewaytest.SandboxKey {
				t.Errorf("%s %s carries %v", a.Method, a.URI, a.Header)
			}
		}
	})
}

// U3: an argument stays where its template puts it: one path segment, one query
// value, one JSON value. It forms no host, path, parameter or header.
func TestArgumentsStayInTheirPlace(t *testing.T) {
	t.Parallel()
	nasty := []string{"a/b", "..", ".", "../x", "..%2fx", "%2e%2e", "%252e%252e", "a?b=c", "a#b", "a&admin=1", "a;b", "a b", "a\\b", "//evil.example", "https://evil.example/", "@evil.example",
		"a\r\nX-Admin: 1", "a\x00b", "%0d%0aX-Admin:1", "ä", "\u202eevil", "{id}", "{api_key}", strings.Repeat("a", 200), "\u2025/", "．．", "%c0%ae%c0%ae"}
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		handle := s.mirror(t)
		for _, value := range nasty {
			before := len(s.Arrivals("/"))
			_, err := s.Call(t, s.bot, handle, "mirror_look", map[string]any{"id": value, "q": value})
			if c := code(err); c != "" && c != "invalid_arguments" {
				t.Errorf("%q: got %v", value, err)
			}
			for _, a := range s.Arrivals("/")[before:] {
				path, query, _ := strings.Cut(a.URI, "?")
				segment, ok := strings.CutPrefix(path, "/mirror/items/")
				if !ok || strings.Contains(segment, "/") || segment == "." || segment == ".." || strings.Contains(strings.ToLower(segment), "%2e%2e") {
					t.Errorf("%q became the path %s", value, path)
				}
				if len(a.Query) != 1 || a.Query.Get("q") != value || strings.Contains(query, "#") || a.Header.Get("X-Admin") != "" || strings.Contains(a.URI, gatewaytest.SandboxKey) {
					t.Errorf("%q became the request %s %v", value, a.URI, a.Header)
				}
			}
			r, err := s.do(t, "tracker_create_issue", map[string]any{"title": value, "body": value + `","state":"closed`})
			if err != nil {
				if code(err) != "invalid_arguments" {
					t.Errorf("%q in a body: %v", value, err)
				}
				continue
			}
			var made struct{ Title, Body, State string }
			if err := json.Unmarshal(r.Body, &made); err != nil || made.Title != value || made.State != "open" || made.Body != value+`","state":"closed` {
				t.Errorf("%q in a body made %s", value, r.Body)
			}
		}
		// The path of a generic tool stays below the API and away from access.
		for path, want := range map[string]string{
			"//evil.example/x": "invalid_arguments", "https://evil.example/": "invalid_arguments", "evil": "invalid_arguments", "/../mirror": "invalid_arguments", "/a/../../x": "invalid_arguments",
			"/%2e%2e/x": "invalid_arguments", "/%252e%252e/x": "invalid_arguments", "/a\\..\\b": "invalid_arguments", "/echo?x=1": "invalid_arguments", "/echo#x": "invalid_arguments", "/a\r\nb": "invalid_arguments", "/@evil": "",
			"/keys": "access_refused", "/KEYS": "access_refused", "/keys/": "access_refused", "/%6beys": "access_refused", "/keys;x=1": "access_refused", "/keys.json": "access_refused", "/keys%20": "access_refused", "/keys/1": "access_refused",
		} {
			before := len(s.Arrivals("/"))
			_, err := s.do(t, "tracker_write", map[string]any{"method": "POST", "path": path, "body": map[string]any{"name": "x"}})
			if c := code(err); c != want && !(want == "invalid_arguments" && c == "access_refused") {
				t.Errorf("%q: got %v, want %s", path, err, want)
			}
			if got := s.Arrivals("/")[before:]; want != "" && len(got) != 0 {
				t.Errorf("%q reached the provider as %s", path, got[0].URI)
			}
		}
		if len(s.Keys()) != 0 {
			t.Errorf("a generic tool made %d keys", len(s.Keys()))
		}
	})
}

// What a call costs the provider: exactly one request.
func TestOneCallOneRequest(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		before := s.Stats(t).Calls
		for i := range 10 {
			if _, err := s.do(t, "tracker_create_issue", map[string]any{"title": fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
		if n := s.Stats(t).Calls - before; n != 10 {
			t.Errorf("%d requests for 10 calls", n)
		}
	})
}

package gateway_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sandbox"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// Rule 3, L2: the intent is durable before the provider hears of the call, and
// when the audit cannot be written, it hears nothing.
func TestRule3NoCallWithoutAnAuditEntry(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		var intents atomic.Int64
		s.Watch(func(gatewaytest.Arrival) {
			var n int64
			if err := db.Reader().QueryRowContext(t.Context(), `select count(*) from audit_entry where kind = 'intent' and session_id <> ''`).Scan(&n); err != nil {
				t.Error(err)
			}
			intents.Store(n)
		})
		for i := range 3 {
			if _, err := s.do(t, "tracker_list_issues", nil); err != nil {
				t.Fatal(err)
			}
			if n := intents.Load(); n != int64(i+1) {
				t.Fatalf("call %d arrived when %d intents were durable", i+1, n)
			}
		}
		before := s.Stats(t).Calls
		mend := gatewaytest.Break(t, db, "insert on audit_entry")
		for _, tool := range []string{"tracker_list_issues", "tracker_create_issue"} {
			if _, err := s.do(t, tool, map[string]any{"title": "x"}); err == nil {
				t.Errorf("%s: the call was made", tool)
			}
		}
		if _, err := s.do(t, "tracker_list_issues", nil); code(err) != "audit_unavailable" || fault.Of(err).Hint == "" {
			t.Errorf("got %v, want audit_unavailable", err)
		}
		if after := s.Stats(t).Calls; after != before {
			t.Errorf("%d calls reached the provider without a record", after-before)
		}
		mend()
		if _, err := s.do(t, "tracker_list_issues", nil); err != nil {
			t.Errorf("after the disk was mended: %v", err)
		}
		s.records(t)
		s.Audit.Stop()
		before = s.Stats(t).Calls
		if _, err := s.do(t, "tracker_list_issues", nil); code(err) != "audit_unavailable" {
			t.Errorf("after the log stopped: got %v, want audit_unavailable", err)
		}
		if after := s.Stats(t).Calls; after != before {
			t.Error("a call was made after the log stopped")
		}
	})
}

// Rule 3: a database that is gone refuses, and nothing is sent.
func TestRule3DatabaseGone(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, shared *sqldb.DB) {
		db := sqldbtest.Open(t, shared.Engine())
		s := newScene(t, db)
		before := s.Stats(t).Calls
		gatewaytest.Must(t, db.Close())
		if _, err := s.do(t, "tracker_list_issues", nil); err == nil || fault.Of(err).Kind != fault.Unavailable {
			t.Errorf("got %v, want a typed refusal that says to come back", err)
		}
		if after := s.Stats(t).Calls; after != before {
			t.Error("a call was made without a database")
		}
	})
}

// Rule 3, L1: who, for whom, in which session, on what: on every record, of
// calls that were made and of those that were refused.
func TestRule3EveryRecordIsComplete(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		other := s.Active(t, s.owner, s.bot, "tracker")
		calls := []struct {
			handle, tool string
			args         map[string]any
			code         string // of the record; empty: allowed
		}{
			{s.handle, "tracker_list_issues", nil, ""},
			{s.handle, "tracker_create_issue", map[string]any{"title": "x"}, ""},
			{s.handle, "tracker_get_issue", map[string]any{"number": 4711}, ""},
			{s.handle, "tracker_get_issue", map[string]any{"number": "one"}, "invalid_arguments"},
			{s.handle, "tracker_delete_issue", map[string]any{"number": 1}, "approval_required"},
			{s.handle, "tracker_fly", nil, "not_granted"},
			{other, "tracker_create_issue", map[string]any{"title": "x"}, "not_granted"},
			{"", "tracker_create_issue", map[string]any{"title": "x"}, "approval_required"},
			{"sh_AAAAAAAAAAAAAAAAAAAAAA", "tracker_list_issues", nil, "session_not_found"},
			{s.handle, "tracker\r\n{\"forged\":1}\x1b[2J", nil, "not_granted"},
		}
		for _, c := range calls {
			_, _ = s.Call(t, s.bot, c.handle, c.tool, c.args)
		}
		all := s.records(t)
		if len(all) != len(calls) {
			t.Fatalf("%d records of %d calls", len(all), len(calls))
		}
		for i, r := range all {
			c := calls[i]
			if r.Agent != s.bot.Agent() || r.User != s.owner.ID || r.Organization != s.Organization || r.Actor != (audit.Actor{Kind: "agent", ID: string(s.bot.Agent())}) || r.Object == "" || r.Tool == "" || r.Rule == "" || r.Address == "" {
				t.Errorf("%s: the record names %+v", c.tool, r.Entry)
			}
			if r.Session == "" && c.code != "session_not_found" {
				t.Errorf("%s: the record names no session", c.tool)
			}
			if strings.ContainsAny(r.Tool+r.Object, "\r\n\x1b") { // L5
				t.Errorf("control characters in %q", r.Tool)
			}
			if c.code == "" {
				if r.Decision != "allow" || r.Connection != s.conn.ID || r.Provider != "tracker" || len(r.ArgumentDigest) != 64 || r.Outcome == nil || r.Outcome.UpstreamStatus == 0 {
					t.Errorf("%s: the record of a call says %+v, %+v", c.tool, r.Entry, r.Outcome)
				}
			} else if r.Decision != "deny" || r.Code != c.code || r.Outcome != nil {
				t.Errorf("%s: the record of a refusal says %s %s, want %s", c.tool, r.Decision, r.Code, c.code)
			}
		}
	})
}

// Rule 4: nothing that an agent can do approves, renews, widens or outlives.
func TestRule4AnAgentCannotApproveRenewWidenOrOutlive(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		ctx, me := t.Context(), s.owner.Signed(t)
		r := s.Ask(t, s.bot, "tracker", policy.Read)
		ap, err := s.Sessions.Approval(ctx, me, r.Session.Approval)
		gatewaytest.Must(t, err)
		d := s.Sessions.DefaultDecision(ap)
		digest, err := s.Sessions.Digest(ctx, me, ap.ID, d)
		gatewaytest.Must(t, err)
		bad := digest
		bad[0] ^= 1
		for name, proof := range map[string]account.Proof{
			"none": {}, "another digest": s.owner.Proof(t, bad), "a code of nobody's": {TOTP: "000000"}, "no assertion": {Assertion: []byte(`{}`)},
		} {
			if _, err := s.Sessions.Approve(ctx, me, ap.ID, d, proof); err == nil {
				t.Fatalf("approved with a proof of %s", name)
			}
		}
		if _, err := s.Sessions.Approve(ctx, account.Person{}, ap.ID, d, s.owner.Proof(t, digest)); err == nil {
			t.Fatal("approved by nobody")
		}
		wider := d
		wider.Confirm = policy.ConfirmNone
		if _, err := s.Sessions.Approve(ctx, me, ap.ID, wider, s.owner.Proof(t, digest)); err == nil {
			t.Fatal("a proof over one decision carried a wider one")
		}
		if _, err := s.Call(t, s.bot, r.Handle, "tracker_list_issues", nil); code(err) != "pending" {
			t.Fatalf("before the approval: got %v, want pending", err)
		}
		s.Clock.Advance(10 * time.Minute)
		s.Approve(t, s.owner, ap.ID, nil)
		approved := s.Clock.Now()
		if got, err := s.Sessions.Check(ctx, s.bot, r.Handle, 0); err != nil || !got.ExpiresAt.Equal(approved.Add(30*time.Minute)) {
			t.Errorf("ends %v, %v: want %v after the approval", got.ExpiresAt, err, 30*time.Minute)
		}
		if _, err := s.Call(t, s.bot, r.Handle, "tracker_create_issue", map[string]any{"title": "x"}); code(err) != "not_granted" {
			t.Errorf("wider than approved: got %v, want not_granted", err)
		}
		// Whatever it does meanwhile, the end stays where it is.
		for range 5 {
			s.Clock.Advance(5 * time.Minute)
			if _, err := s.Call(t, s.bot, r.Handle, "tracker_list_issues", nil); err != nil {
				t.Fatal(err)
			}
			_, _ = s.Sessions.Check(ctx, s.bot, r.Handle, 0)
			_, _ = s.Sessions.Request(ctx, s.bot, session.Ask{Providers: []string{"tracker"}, Effects: []policy.Effect{policy.Read}, Purpose: "Look after the issues."}, "")
		}
		s.Clock.Advance(4 * time.Minute)
		if _, err := s.Call(t, s.bot, r.Handle, "tracker_list_issues", nil); err != nil {
			t.Errorf("a minute before the end: %v", err)
		}
		s.Clock.Advance(time.Minute)
		if _, err := s.Call(t, s.bot, r.Handle, "tracker_list_issues", nil); code(err) != "expired" {
			t.Errorf("at the end: got %v, want expired", err)
		}
		if got, err := s.Sessions.Complete(ctx, s.bot, r.Handle); err != nil || got.State != session.Ended || got.Reason != session.Expired {
			t.Errorf("ending it then: %s %s, %v, want it to stay expired", got.State, got.Reason, err)
		}
	})
}

// edit changes the tracker's record; the owner connects the account again.
func (s scene) edit(t *testing.T, from, to string) {
	t.Helper()
	text := strings.Replace(sandbox.KeyRecord(s.Sandbox.URL), "id: sandbox_key", "id: tracker", 1)
	if strings.Count(text, from) == 0 {
		t.Fatalf("the record has no %q", from)
	}
	s.Put(t, strings.Replace(text, from, to, 1))
	if c := s.Connect(t, s.owner, "tracker", false); c.ID != s.conn.ID {
		t.Fatal("the reconnect made another connection")
	}
}

// Rule 5, A4: after an approval, what it was about must be the same to the
// letter. A difference refuses the call and does not use the approval up.
func TestRule5WhatWasApprovedIsWhatRuns(t *testing.T) {
	t.Parallel()
	const deletes = `request: {method: DELETE, path: "/issues/{number}"}`
	changes := []struct{ name, from, to string }{
		{"the path", deletes, `request: {method: DELETE, path: "/echo/{number}"}`},
		{"the method", deletes, `request: {method: POST, path: "/issues/{number}"}`},
		{"the effect", "an issue for good.\n    effect: destructive", "an issue for good.\n    effect: access"},
		{"the schema", "number: {type: integer, minimum: 1}\n    " + deletes, "number: {type: integer, minimum: 0}\n    " + deletes},
		{"a header that is always sent", "health: {path: /me}", "health: {path: /me}\ndefault_headers: {X-Workspace: another}"},
	}
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		for i, c := range changes {
			args := fmt.Sprintf(`{"number": %d}`, i+1)
			del := func(args string) error {
				_, err := s.raw(t, "tracker_delete_issue", args)
				return err
			}
			if err := del(args); code(err) != "approval_required" {
				t.Fatalf("%s: %v", c.name, err)
			}
			s.approve(t)
			s.edit(t, c.from, c.to)
			before := s.Stats(t).Calls
			for range 2 {
				if err := del(args); code(err) != "approval_stale" {
					t.Errorf("%s changed: got %v, want approval_stale", c.name, err)
				}
			}
			if n := s.Stats(t).Calls - before; n != 0 {
				t.Errorf("%s changed: %d calls were made", c.name, n)
			}
			s.edit(t, deletes, deletes)
			if err := del(fmt.Sprintf(`{"number": %d}`, i+100)); code(err) != "approval_required" {
				t.Errorf("other arguments: got %v, want approval_required", err)
			}
			gatewaytest.Must(t, s.Sessions.Deny(t.Context(), s.owner.Signed(t), s.open(t), "no"))
			s.Clock.Advance(5 * time.Minute) // past the pause after a denial
			if err := del(fmt.Sprintf(` { "number" :%d}`, i+1)); err != nil {
				t.Errorf("%s as it was: %v, want the approval to hold still", c.name, err)
			}
			if err := del(args); code(err) != "approval_required" {
				t.Errorf("a second time: got %v, want approval_required", err)
			}
			gatewaytest.Must(t, s.Sessions.Deny(t.Context(), s.owner.Signed(t), s.open(t), "no"))
			s.handle = s.Active(t, s.owner, s.bot, "tracker", policy.Read, policy.Write, policy.Destructive, policy.Access)
		}
		// A tool that needs no approval of its own is held to the session's.
		s.edit(t, `request: {method: GET, path: /issues, `, `request: {method: GET, path: /echo, `)
		if _, err := s.do(t, "tracker_list_issues", nil); code(err) != "approval_stale" {
			t.Errorf("a changed read: got %v, want approval_stale", err)
		}
		if _, err := s.do(t, "tracker_get_issue", map[string]any{"number": 5}); err != nil {
			t.Errorf("a tool that did not change: %v", err)
		}
	})
}

// open is the only request that waits.
func (s scene) open(t *testing.T) id.Approval {
	t.Helper()
	inbox, err := s.Sessions.Inbox(t.Context(), s.owner.Signed(t))
	gatewaytest.Must(t, err)
	if len(inbox) != 1 {
		t.Fatalf("%d requests are open, want one", len(inbox))
	}
	return inbox[0].ID
}

// Rule 6, O7, O10, workos.md §3.6, 7: a credential goes to the hosts that its connection was made
// with. An edited record, a redirect, a private address move it nowhere.
func TestRule6DestinationBinding(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		var reached atomic.Int64
		evil := httptest.NewUnstartedServer(http.NotFoundHandler())
		evil.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				reached.Add(1)
			}
		}
		evil.Start()
		defer evil.Close()
		_, port, err := net.SplitHostPort(evil.Listener.Addr().String())
		gatewaytest.Must(t, err)

		// An edited record reaches a connection only when its owner reconnects.
		key := strings.Replace(sandbox.KeyRecord(s.Sandbox.URL), "id: sandbox_key", "id: tracker", 1)
		s.Put(t, strings.Replace(key, fmt.Sprintf("base: [%q]", s.Sandbox.URL), fmt.Sprintf("base: [%q]", s.Sandbox.URL+"/mirror"), 1))
		if _, err := s.do(t, "tracker_list_issues", nil); err != nil {
			t.Errorf("after an edit: %v", err)
		}
		if n := len(s.Arrivals("/mirror")); n != 0 {
			t.Errorf("%d calls went where only the edited record points", n)
		}
		moved := s.Connect(t, s.owner, "tracker", false) // the other place says it is another account
		if moved.ID == s.conn.ID {
			t.Error("an account at another place took the connection over")
		}
		if _, err := s.do(t, "tracker_list_issues", nil); err != nil || len(s.Arrivals("/mirror/issues")) != 0 {
			t.Errorf("after another account was connected: %v", err)
		}
		s.Put(t, key)

		// A redirect is an answer, not an instruction.
		for to, shown := range map[string]string{evil.URL + "/steal": provider.Redacted, "/echo": "/echo", "//127.0.0.1:" + port + "/x": provider.Redacted} {
			s.Fault(t, map[string]any{"path": "/issues", "redirect": to})
			r, err := s.do(t, "tracker_list_issues", nil)
			if err != nil || r.Status != 302 || r.Header.Get("Location") != shown || r.Withheld == "" {
				t.Errorf("redirect to %s: got %d, %v, %v", to, r.Status, r.Header, err)
			}
		}
		if n := len(s.Arrivals("/echo")); n != 0 {
			t.Errorf("%d redirects were followed", n)
		}

		// Private and metadata addresses, written down or behind a name.
		for _, host := range []string{"http://127.0.0.1:" + port, "https://127.0.0.1:" + port, "http://localhost:" + port, "https://[::1]", "https://10.0.0.1", "https://192.168.1.1",
			"http://169.254.169.254", "https://169.254.169.254", "https://[::ffff:169.254.169.254]", "https://[fd00:ec2::254]", "https://0.0.0.0", "https://100.64.0.1"} {
			_, err := s.Providers.Put(t.Context(), s.System.In(s.Environment), provider.Input{YAML: []byte(strings.ReplaceAll(strings.Replace(sandbox.KeyRecord(host), "id: sandbox_key", "id: private", 1), "website: http:", "website: https:"))}, account.Agreement{})
			if code(err) != "destination_denied" {
				t.Errorf("a provider at %s: got %v, want destination_denied", host, err)
			}
		}
		s.Put(t, strings.Replace(sandbox.KeyRecord("https://localhost:"+port), "id: sandbox_key", "id: named", 1))
		_, err = s.Credentials.AddKey(t.Context(), account.ByPerson(s.owner.Signed(t)).In(s.Environment),
			credential.Start{Environment: s.Environment, Organization: s.Organization, Provider: "named"}, s.owner.ID,
			map[string]secret.Value{provider.FieldAPIKey: secret.FromString(gatewaytest.SandboxKey)}, account.Agreement{})
		if code(err) != "destination_denied" {
			t.Errorf("a name of a private address: got %v, want destination_denied", err)
		}
		if n := reached.Load(); n != 0 {
			t.Errorf("%d connections reached a place that nobody bound", n)
		}
	})
}

// Rule 6: when a record's token endpoint moves, existing connections neither
// refresh there nor at the old place with a secret that is for the new one.
func TestRule6TokenEndpointMoves(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.OAuthProvider(t)
		s.ConnectOAuth(t, s.owner, gatewaytest.Mia, nil)
		handle := s.Active(t, s.owner, s.bot, "sandbox", policy.Read)
		_, err := s.Providers.Put(t.Context(), s.System.In(s.Environment), provider.Input{
			YAML:     []byte(strings.Replace(sandbox.Record(s.Sandbox.URL), "token_url: "+s.Sandbox.URL+"/oauth/token", "token_url: "+s.Sandbox.URL+"/mirror/token", 1)),
			ClientID: "ambit-test", ClientSecret: secret.FromString("sbxs_" + gatewaytest.SandboxKey)}, account.Agreement{})
		gatewaytest.Must(t, err)
		before := len(s.Arrivals("/oauth/token"))
		if _, err := s.Call(t, s.bot, handle, "sandbox_me", nil); err != nil {
			t.Errorf("while the token works: %v", err)
		}
		s.Clock.Advance(61 * time.Second)
		if _, err := s.Call(t, s.bot, handle, "sandbox_me", nil); code(err) != "reconnect" {
			t.Errorf("got %v, want reconnect", err)
		}
		if len(s.Arrivals("/mirror/token")) != 0 || len(s.Arrivals("/oauth/token")) != before {
			t.Error("a refresh was sent all the same")
		}
	})
}

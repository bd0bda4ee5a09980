package gateway_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// Rule 9: each way in which a call is refused has its stable code, says what to
// do next, is on record under that code, and makes no request.
func TestRule9FailClosedSayWhy(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		w := s.World
		read := s.Active(t, s.owner, s.bot, "tracker", policy.Read)
		by := s.System.In(s.Environment)
		one := map[string]any{"number": 1}
		// ended makes a session that ends as end does it.
		n := 0
		ended := func(end func(r session.Requested)) string {
			t.Helper()
			n++
			r, err := w.Sessions.Request(t.Context(), s.bot, session.Ask{Providers: []string{"tracker"}, Effects: []policy.Effect{policy.Read}, Minutes: 1, Purpose: fmt.Sprint("Task ", n)}, "")
			gatewaytest.Must(t, err)
			end(r)
			return r.Handle
		}
		revoked := ended(func(r session.Requested) {
			s.Approve(t, s.owner, r.Session.Approval, nil)
			_, err := w.Sessions.Revoke(t.Context(), by, session.Aim{Session: r.Session.ID})
			gatewaytest.Must(t, err)
		})
		completed := ended(func(r session.Requested) {
			s.Approve(t, s.owner, r.Session.Approval, nil)
			_, err := w.Sessions.Complete(t.Context(), s.bot, r.Handle)
			gatewaytest.Must(t, err)
		})
		expired := ended(func(r session.Requested) {
			s.Approve(t, s.owner, r.Session.Approval, nil)
			s.Clock.Advance(2 * time.Minute)
		})
		pending := ended(func(session.Requested) {})
		denied := ended(func(r session.Requested) {
			gatewaytest.Must(t, w.Sessions.Deny(t.Context(), s.owner.Signed(t), r.Session.Approval, "no"))
		})
		s.Clock.Advance(5 * time.Minute) // past the pause after a denial
		other := s.Person(t, "noa@example.com", account.RoleMember)
		stranger := s.Agent(t, other, "Other bot")
		boss := s.Person(t, "boss@example.com", account.RoleOwner)
		s.Connect(t, boss, "tracker", true)
		s.Connect(t, boss, "tracker", false)
		boss2 := s.Agent(t, boss, "Boss bot")
		asked := s.Ask(t, boss2, "tracker", policy.Read)
		s.Approve(t, boss, asked.Session.Approval, func(d *session.Decision) {
			d.Grants = nil
			for _, g := range asked.Session.Grants {
				d.Grants = append(d.Grants, session.Choice{Connection: g.Connection, Effects: []policy.Effect{policy.Read}})
			}
		})
		s.Put(t, s.MirrorRecord("mirror", `{header: X-Mirror-Auth, format: "{api_key}"}`)) // nobody connected it

		before := s.Stats(t).Calls
		for name, row := range map[string]struct {
			who    agent.Identity
			handle string
			tool   string
			args   map[string]any
			code   string
			fields []string
		}{
			"no session":                     {s.bot, "", "tracker_list_issues", nil, "approval_required", []string{"approval_url", "request_id", "session"}},
			"no session, no such tool":       {s.bot, "", "tracker_fly", nil, "tool_not_found", nil},
			"no session, nobody connected":   {s.bot, "", "mirror_look", map[string]any{"id": "1"}, "connect_provider", []string{"connect_url"}},
			"a handle of nobody's":           {s.bot, "sh_AAAAAAAAAAAAAAAAAAAAAA", "tracker_list_issues", nil, "session_not_found", nil},
			"another agent's handle":         {stranger, s.handle, "tracker_list_issues", nil, "session_not_found", nil},
			"not a handle at all":            {s.bot, "'; drop table session; --", "tracker_list_issues", nil, "session_not_found", nil},
			"nobody decided yet":             {s.bot, pending, "tracker_list_issues", nil, "pending", []string{"approval_url", "request_id"}},
			"a person said no":               {s.bot, denied, "tracker_list_issues", nil, "denied", nil},
			"the time is over":               {s.bot, expired, "tracker_list_issues", nil, "expired", nil},
			"a person revoked it":            {s.bot, revoked, "tracker_list_issues", nil, "revoked", nil},
			"the agent ended it":             {s.bot, completed, "tracker_list_issues", nil, "ended", nil},
			"an effect that was not granted": {s.bot, read, "tracker_create_issue", map[string]any{"title": "x"}, "not_granted", nil},
			"a tool that nobody has":         {s.bot, read, "tracker_fly", nil, "not_granted", nil},
			"a tool of another provider":     {s.bot, read, "mirror_look", map[string]any{"id": "1"}, "not_granted", nil},
			"wrong arguments":                {s.bot, read, "tracker_get_issue", map[string]any{"number": -1}, "invalid_arguments", nil},
			"arguments that nobody knows":    {s.bot, read, "tracker_get_issue", map[string]any{"number": 1, "admin": true}, "invalid_arguments", nil},
			"access by a generic tool":       {s.bot, s.handle, "tracker_write", map[string]any{"method": "POST", "path": "/keys"}, "access_refused", nil},
			"a call that needs its own yes":  {s.bot, s.handle, "tracker_delete_issue", one, "approval_required", []string{"approval_url", "request_id"}},
			"two accounts":                   {boss2, asked.Handle, "tracker_list_issues", nil, "ambiguous_account", nil},
		} {
			_, err := s.Call(t, row.who, row.handle, row.tool, row.args)
			f, ok := errors.AsType[*fault.Error](err)
			if !ok || f.Code != row.code || f.Hint == "" || f.Message == "" {
				t.Errorf("%s: got %v, want %s with a hint", name, err, row.code)
				continue
			}
			for _, field := range row.fields {
				if f.Fields[field] == "" {
					t.Errorf("%s: the answer lacks %s: %v", name, field, f.Fields)
				}
			}
			if r := s.last(t); r.Decision != "deny" || r.Code != row.code || r.Agent != row.who.Agent() || r.Tool != row.tool {
				t.Errorf("%s: the record says %s %s of %s", name, r.Decision, r.Code, r.Tool)
			}
		}
		if n := s.Stats(t).Calls - before; n != 0 {
			t.Errorf("refused calls made %d requests", n)
		}
		for name, change := range map[string]struct {
			query, code string
		}{
			"the account needs its person": {`update connection set state = 'needs_reauthorization' where provider = 'tracker'`, "reconnect"},
			"the grant names nothing":      {`delete from session_grant`, "not_granted"},
		} {
			t.Run(name, func(t *testing.T) {
				s := newScene(t, sqldbtest.Open(t, db.Engine()))
				s.exec(t, change.query)
				if _, err := s.do(t, "tracker_list_issues", nil); code(err) != change.code || fault.Of(err).Hint == "" {
					t.Errorf("got %v, want %s", err, change.code)
				}
			})
		}
	})
}

// Rule 9, S3: what exists but is not yours looks like what does not exist, to
// the last word and byte.
func TestRule9ForeignLooksAbsent(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		stranger := s.Agent(t, s.Person(t, "noa@example.com", account.RoleMember), "Other bot")
		own := s.Agent(t, s.owner, "Second bot of the same person")
		absent := func(who agent.Identity) *fault.Error {
			_, err := s.Call(t, who, "sh_AAAAAAAAAAAAAAAAAAAAAA", "tracker_list_issues", nil)
			return fault.Of(err)
		}
		for name, who := range map[string]agent.Identity{"another person's agent": stranger, "the same person's other agent": own} {
			_, err := s.Call(t, who, s.handle, "tracker_list_issues", nil)
			if diff := cmp.Diff(absent(who), fault.Of(err), cmpopts.IgnoreUnexported(fault.Error{})); diff != "" {
				t.Errorf("%s sees a difference (-absent +foreign):\n%s", name, diff)
			}
			if _, err := s.Sessions.Check(t.Context(), who, s.handle, 0); code(err) != "session_not_found" {
				t.Errorf("%s checks: %v", name, err)
			}
		}
		// A connection that is not in the session, and one that does not exist.
		foreign := s.Connect(t, s.Person(t, "eve@example.com", account.RoleMember), "tracker", false)
		var got []*fault.Error
		for _, c := range []gateway.Call{
			{Identity: s.bot, Handle: s.handle, Tool: "tracker_list_issues", Connection: foreign.ID, Arguments: json.RawMessage(`{}`)},
			{Identity: s.bot, Handle: s.handle, Tool: "tracker_list_issues", Connection: "conn_01arz3ndektsv4rrffq69g5fav", Arguments: json.RawMessage(`{}`)},
		} {
			_, err := s.Gateway.Invoke(t.Context(), c)
			got = append(got, fault.Of(err))
		}
		if diff := cmp.Diff(got[1], got[0], cmpopts.IgnoreUnexported(fault.Error{})); diff != "" || got[0].Code != "not_granted" {
			t.Errorf("a foreign connection (-absent +foreign):\n%s", diff)
		}
	})
}

// Rule 9: this node's own doubts refuse calls too, before anything is read.
func TestRule9NodeNotReady(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		off := fault.New(fault.Unavailable, "clock_off", "The clock is off.").WithHint("Try again.")
		g := gateway.New(gateway.Config{Sessions: s.Sessions, Credentials: s.Credentials, Connections: s.Connections, Providers: s.Providers, Audit: s.Audit,
			Outbound: s.Outbound, Ready: func() error { return off }, Now: s.Clock.Now})
		before := s.Stats(t).Calls
		if _, err := g.Invoke(t.Context(), call(s.bot, s.handle, "tracker_list_issues", "{}")); !errors.Is(err, error(off)) {
			t.Errorf("got %v", err)
		}
		if s.Stats(t).Calls != before {
			t.Error("a call was made")
		}
		slow := gateway.New(gateway.Config{Sessions: s.Sessions, Credentials: s.Credentials, Connections: s.Connections, Providers: s.Providers, Audit: s.Audit,
			Outbound: s.Outbound, SessionRate: 1, Now: s.Clock.Now})
		limited := false
		for range 10 {
			_, err := slow.Invoke(t.Context(), call(s.bot, s.handle, "tracker_list_issues", "{}"))
			if code(err) == "rate_limited" && fault.Of(err).RetryAfter > 0 {
				limited = true
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if !limited {
			t.Error("ten calls at once pass a limit of one a second")
		}
	})
}

// Rule 9: no input makes the spine panic or answer with an untyped error.
func TestRule9NoInputPanics(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		pieces := []string{"", "tracker_list_issues", "tracker_get_issue", "tracker_write", "\x00", "\xff\xfe", "\u202e", "sh_", s.handle, strings.Repeat("a", 100_000), `{}`, `{"number":1}`, `{"number":1,"number":2}`,
			`{"Number":1}`, `[]`, `null`, `{"number":1e400}`, strings.Repeat("[", 10_000), `{"method":"GET","path":"/me"}`, "{", "'", "\r\n", `{"number":"` + strings.Repeat("9", 5000) + `"}`}
		pick := func() string { return pieces[rand.IntN(len(pieces))] }
		for range 300 {
			c := gateway.Call{Identity: s.bot, Handle: s.handle, Tool: pick(), Arguments: json.RawMessage(pick()), Address: "127.0.0.1"}
			if rand.IntN(3) == 0 {
				c.Handle = pick()
			}
			_, err := s.Gateway.Invoke(t.Context(), c)
			if f, ok := errors.AsType[*fault.Error](err); err != nil && (!ok || f.Kind == fault.Internal) {
				t.Errorf("%.80q %.80q %.80q: %v", c.Handle, c.Tool, c.Arguments, err)
			}
		}
		if _, err := s.Gateway.Invoke(t.Context(), gateway.Call{}); err == nil {
			t.Error("nobody's call was made")
		}
	})
}

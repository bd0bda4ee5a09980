package session_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/sandbox"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// A request used to outlive the only account that it asked for: it stayed in the
// inbox, and who approved it was told to let the agent ask again (rule 7).
func TestRequestEndsWithItsAccount(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.KeyProvider(t, "other")
		s.Connect(t, s.owner, "other", false)
		lost, kept := s.Ask(t, s.bot, "tracker"), s.Ask(t, s.bot, "other")
		_, err := s.Credentials.Disconnect(t.Context(), account.ByPerson(s.owner.Signed(t)).In(s.Environment), s.conn.ID)
		gatewaytest.Must(t, err)

		a, err := s.Sessions.Approval(t.Context(), s.owner.Signed(t), lost.Session.Approval)
		if err != nil || a.State != session.ApprovalWithdrawn || a.Session.Reason != session.Withdrawn || a.Session.Cause != session.CauseAccount || a.Session.Grants[0].Lost != session.LostAccount {
			t.Errorf("the request: got %s of a session %+v, %v, want it withdrawn with its account", a.State, a.Session, err)
		}
		inbox, err := s.Sessions.Inbox(t.Context(), s.owner.Signed(t))
		if err != nil || len(inbox) != 1 || inbox[0].ID != kept.Session.Approval {
			t.Errorf("the inbox has %d requests, %v, want the other one alone", len(inbox), err)
		}
		if err := s.TryApprove(t, s.owner, lost.Session.Approval, nil); code(err) != "withdrawn" {
			t.Errorf("approving it: got %v, want withdrawn", err)
		}
		_, err = s.Sessions.Live(t.Context(), s.bot, lost.Handle)
		if f := fault.Of(err); f.Code != "withdrawn" || !strings.Contains(f.Hint, s.conn.AccountLabel) || f.Fields["connect_url"] == "" {
			t.Errorf("a call: got %+v, want withdrawn, the account's name and where to connect one", f)
		}
		page, err := s.Audit.List(t.Context(), audit.Filter{Environment: s.Environment, Session: lost.Session.ID, Action: "session.withdrawn"})
		if err != nil || len(page.Records) != 1 || page.Records[0].Detail["by_connection"] != string(s.conn.ID) {
			t.Errorf("the audit: %+v, %v, want one session.withdrawn by the connection", page.Records, err)
		}
		s.Approve(t, s.owner, kept.Session.Approval, nil) // rule 7: nothing else is disturbed
	})
}

// A request with other accounts left goes on without the lost one.
func TestRequestGoesOnWithoutALostAccount(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.KeyProvider(t, "other")
		left := s.Connect(t, s.owner, "other", false)
		ask := session.Ask{Providers: []string{"tracker", "other"}, Purpose: "Compare the two."}
		r, err := s.Sessions.Request(t.Context(), s.bot, ask, "")
		gatewaytest.Must(t, err)
		before, err := s.Sessions.Approval(t.Context(), s.owner.Signed(t), r.Session.Approval)
		gatewaytest.Must(t, err)
		all := s.Sessions.DefaultDecision(before)
		_, err = s.Credentials.Disconnect(t.Context(), account.ByPerson(s.owner.Signed(t)).In(s.Environment), s.conn.ID)
		gatewaytest.Must(t, err)

		got, err := s.Sessions.Check(t.Context(), s.bot, r.Handle, 0)
		if err != nil || got.State != session.Pending {
			t.Fatalf("the request: got %+v, %v, want it pending", got, err)
		}
		for _, g := range got.Grants {
			if want := map[bool]string{true: session.LostAccount}[g.Connection == s.conn.ID]; g.Lost != want {
				t.Errorf("%s: lost %q, want %q", g.Provider, g.Lost, want)
			}
		}
		if err := s.TryApprove(t, s.owner, r.Session.Approval, func(d *session.Decision) { *d = all }); code(err) != "approval_stale" {
			t.Errorf("granting the lost account too: got %v, want approval_stale", err)
		}
		s.Approve(t, s.owner, r.Session.Approval, nil)
		if got, err = s.Sessions.Check(t.Context(), s.bot, r.Handle, 0); err != nil || len(got.Grants) != 1 || got.Grants[0].Connection != left.ID {
			t.Errorf("approved: got %+v, %v, want the account that is left", got.Grants, err)
		}
	})
}

// Rule 7, precisely: a session that asked for an account and runs without it
// does not end with it; a revoke of an account or a provider takes what waits
// for it along.
func TestWhatWasAskedAndWhatWasGranted(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.KeyProvider(t, "other")
		other := s.Connect(t, s.owner, "other", false)
		narrowed, err := s.Sessions.Request(t.Context(), s.bot, session.Ask{Providers: []string{"tracker", "other"}, Purpose: "Compare."}, "")
		gatewaytest.Must(t, err)
		s.Approve(t, s.owner, narrowed.Session.Approval, func(d *session.Decision) {
			d.Grants = []session.Choice{{Connection: other.ID, Effects: []policy.Effect{policy.Read}}}
		})
		by := s.System.In(s.Environment)
		for name, aim := range map[string]session.Aim{"connection": {Connection: s.conn.ID}, "provider": {Provider: "tracker"}} {
			waits := s.Ask(t, s.bot, "tracker")
			got, err := s.Sessions.Revoke(t.Context(), by, aim)
			if err != nil || !slices.Equal(got.Sessions, []id.Session{waits.Session.ID}) {
				t.Errorf("%s: ended %v, %v, want the request alone", name, got.Sessions, err)
			}
		}
		_, err = s.Credentials.Disconnect(t.Context(), by, s.conn.ID)
		gatewaytest.Must(t, err)
		if _, err := s.Sessions.Live(t.Context(), s.bot, narrowed.Handle); err != nil {
			t.Errorf("the session without a grant on it: %v", err)
		}
	})
}

// An account whose key does not work cannot be granted until it is connected
// again.
func TestRequestForAnAccountToReconnect(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		r := s.Ask(t, s.bot, "tracker")
		mark := func(state connection.State, reason string) {
			gatewaytest.Must(t, s.DB.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
				return s.Connections.Mark(ctx, tx, audit.Actor{Kind: "system", ID: "server"}, s.Environment, s.conn.ID, state, reason)
			}))
		}
		mark(connection.NeedsReauth, "refused")
		a, err := s.Sessions.Approval(t.Context(), s.owner.Signed(t), r.Session.Approval)
		if err != nil || a.State != session.ApprovalPending || a.Session.Grants[0].Lost != session.LostKey || len(s.Sessions.DefaultDecision(a).Grants) != 0 {
			t.Errorf("got %+v, %v, want it waiting, with nothing to grant", a, err)
		}
		mark(connection.Connected, "")
		s.Approve(t, s.owner, r.Session.Approval, nil)
	})
}

// A tool that is no longer what the agent asked for cannot be granted: the
// provider's record was edited and its account connected again.
func TestRequestForAToolThatChanged(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		edit := func(to string) {
			t.Helper()
			record := strings.Replace(sandbox.KeyRecord(s.Sandbox.URL), "id: sandbox_key", "id: tracker", 1)
			s.Put(t, strings.Replace(record, "{method: GET, path: /issues,", "{method: GET, path: "+to+",", 1))
			if c := s.Connect(t, s.owner, "tracker", false); c.ID != s.conn.ID {
				t.Fatal("the reconnect made another connection")
			}
		}
		r := s.Ask(t, s.bot, "tracker")
		edit("/echo")
		a, err := s.Sessions.Approval(t.Context(), s.owner.Signed(t), r.Session.Approval)
		if err != nil || a.Session.Grants[0].Lost != session.LostTool {
			t.Errorf("got %+v, %v, want the account lost to the change", a.Session.Grants, err)
		}
		edit("/issues")
		s.Approve(t, s.owner, r.Session.Approval, nil)
	})
}

// What ends with an agent or a person says so.
func TestEndedSessionsSayWhatEndedThem(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		by := s.System.In(s.Environment)
		boss := s.Person(t, "boss@example.com", account.RoleOwner)
		shared := s.Connect(t, boss, "tracker", true)
		bots := []session.Requested{s.Ask(t, s.bot, "tracker"), s.Ask(t, s.Agent(t, s.owner, "Second bot"), "tracker")}
		_, err := s.Agents.Disable(t.Context(), by, s.bot.Agent())
		gatewaytest.Must(t, err)
		gatewaytest.Must(t, s.Accounts.RemoveMember(t.Context(), by, s.Organization, s.owner.ID, account.Agreement{}))
		for i, want := range []string{session.CauseAgent, session.CauseUser} {
			a, err := s.Sessions.Approval(t.Context(), boss.Signed(t), bots[i].Session.Approval)
			if err != nil || a.State != session.ApprovalWithdrawn || a.Session.Cause != want {
				t.Errorf("got %s, cause %q, %v, want withdrawn, %s", a.State, a.Session.Cause, err, want)
			}
		}
		_ = shared
	})
}

// Asking, approving and disconnecting at once leaves no request for an account
// that is gone and no session that runs on one, whichever comes first.
func TestAccountEndsWhileSomebodyAsksOrApproves(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		by := s.System.In(s.Environment)
		for i := range 12 {
			bot, conn := s.Agent(t, s.owner, "Bot"), s.conn
			if i > 0 {
				conn = s.Connect(t, s.owner, "tracker", false)
			}
			var r session.Requested
			if i%2 == 0 {
				r = s.Ask(t, bot, "tracker")
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				if _, err := s.Credentials.Disconnect(t.Context(), by, conn.ID); err != nil {
					t.Errorf("disconnecting: %v", err)
				}
			})
			if r.Handle == "" {
				r, _ = s.Sessions.Request(t.Context(), bot, session.Ask{Providers: []string{"tracker"}, Purpose: "x"}, "")
			} else {
				_ = s.TryApprove(t, s.owner, r.Session.Approval, nil)
			}
			wg.Wait()
			if r.Handle == "" {
				continue // it was told that there is no account
			}
			if got, err := s.Sessions.Check(t.Context(), bot, r.Handle, 0); err != nil || got.State != session.Ended {
				t.Errorf("round %d: the session is %s, %v, without an account", i, got.State, err)
			}
		}
	})
}

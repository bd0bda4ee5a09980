package webhook_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/webhook"
)

// asked emits a request that waits for users and roles.
func (w *world) asked(data map[string]any, users []id.User, roles ...string) {
	w.t.Helper()
	all := map[string]any{"agent_label": "Release notes", "agent_verified": true, "providers": []string{"github"}, "effects": []string{"read"}, "minutes": 30,
		"url": "https://ambit.example/ui/approvals/apr_1", "expires_at": w.clock().Add(time.Hour).Format(time.RFC3339)}
	for name, v := range data {
		all[name] = v
	}
	must(w.t, w.db.Update(w.t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
		return w.Emit(ctx, tx, webhook.Event{ID: id.NewEvent(), Environment: w.env, Organization: w.org, Kind: "approval.requested", At: w.clock(), Data: all, Users: users, Roles: roles})
	}))
}

// Issue 6: Slack is told in words, without an agent's markup in them, and its address
// is sealed, since whoever has it writes there.
func TestSlack(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		e, key, err := w.made(webhook.Input{Form: webhook.FormSlack, URL: w.url + "/services/T0/B0/canary-of-slack", Events: []string{"approval.requested"}})
		must(t, err)
		if !key.IsZero() || strings.Contains(e.URL, "canary") || e.Host() == "" {
			t.Errorf("told of %q, with a secret %v", e.URL, !key.IsZero())
		}
		w.asked(map[string]any{"agent_label": "<!channel> *Rel\u202eease* & <https://evil.example|notes>"}, nil)
		got := w.deliver()
		if len(got) != 1 || got[0].path != "/hooks/services/T0/B0/canary-of-slack" || got[0].header.Get("Webhook-Signature") != "" {
			t.Fatalf("arrived: %+v", got)
		}
		var body struct {
			Text   string
			Mrkdwn *bool
		}
		must(t, json.Unmarshal(got[0].body, &body))
		if want := "&lt;!channel&gt; *Release* &amp; &lt;https://evil.example|notes&gt; asks for access: read at github, for 30 min.\nDecide in Ambit: <https://ambit.example/ui/approvals/apr_1>"; body.Text != want || body.Mrkdwn == nil || *body.Mrkdwn {
			t.Errorf("it says %q, mrkdwn %v", body.Text, body.Mrkdwn)
		}
		// An agent that nobody has confirmed does not choose by what name people are told of it.
		w.asked(map[string]any{"agent_label": "Your bank", "agent_verified": false, "tool": "github_create_issue"}, nil)
		if got := w.deliver(); len(got) != 1 || strings.Contains(string(got[0].body), "bank") || !strings.Contains(string(got[0].body), "github_create_issue") {
			t.Errorf("arrived: %+v", got)
		}
		// What is over is not told any more.
		w.asked(nil, nil)
		w.advance(2 * time.Hour)
		if got := w.deliver(); len(got) != 0 {
			t.Errorf("told too late: %+v", got)
		}
		if _, _, err := w.Rotate(t.Context(), w.me(), e.ID, time.Hour, account.Agreement{}); !fault.Is(err, "no_secret") {
			t.Errorf("its secret is replaced: %v", err)
		}
		// A change without the address leaves it; with one, it goes there.
		for _, c := range []struct{ url, path string }{{e.URL, "/hooks/services/T0/B0/canary-of-slack"}, {"", "/hooks/services/T0/B0/canary-of-slack"}, {w.url + "/other-canary", "/hooks/other-canary"}} {
			var now webhook.Endpoint
			must(t, w.agreed(func(ag account.Agreement) (err error) {
				now, err = w.Edit(t.Context(), w.me(), e.ID, webhook.Input{URL: c.url, Events: []string{"approval.requested"}}, ag)
				return err
			}))
			if strings.Contains(now.URL, "canary") {
				t.Errorf("shown: %s", now.URL)
			}
			w.asked(nil, nil)
			if got := w.deliver(); len(got) != 1 || got[0].path != c.path {
				t.Errorf("after a change to %q: %+v", c.url, got)
			}
		}
		var rows int
		must(t, w.db.Reader().QueryRowContext(t.Context(), `select count(*) from webhook where url like '%canary%'`).Scan(&rows))
		if rows != 0 {
			t.Error("an address lies in the clear")
		}
	})
}

// Issue 6: mail tells where to decide, and a person who wants it is told of what waits
// for them and of nothing else.
func TestMail(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		_, _, err := w.made(webhook.Input{Form: webhook.FormMail, URL: "mailto:team@example.com", Events: []string{"connection.revoked"}})
		must(t, err)
		for _, bad := range []webhook.Input{{Form: webhook.FormMail, URL: "team@example.com"}, {Form: webhook.FormMail, URL: "mailto:a@example.com,b@example.com"}, {Form: "fax", URL: w.url}} {
			if _, _, err := w.made(bad); err == nil {
				t.Errorf("%+v is taken", bad)
			}
		}
		w.happens(w.org, "connection.revoked", nil)
		w.deliver()
		if got := w.mails.Mails(); len(got) != 1 || got[0].To != "team@example.com" || !strings.Contains(got[0].Data, "revoked") {
			t.Fatalf("arrived: %+v", got)
		}

		member := accounttest.Join(t, w.people, w.env, w.org, account.RoleMember, "mia@example.com")
		approver := accounttest.Join(t, w.people, w.env, w.org, account.RoleApprover, "ada@example.com")
		if err := w.SetPersonal(t.Context(), w.owner.Person, w.env, true); !fault.Is(err, "no_address") {
			t.Errorf("somebody without an address: %v", err)
		}
		for _, p := range []account.Person{approver.Person, member.Person} {
			must(t, w.SetPersonal(t.Context(), p, w.env, true))
			must(t, w.SetPersonal(t.Context(), p, w.env, true)) // twice is once
			if on, failed, err := w.Personal(t.Context(), p, w.env); err != nil || !on || failed {
				t.Fatalf("wants mail: %v, %v", on, err)
			}
		}
		told := func() (to string) {
			w.deliver()
			for _, m := range w.mails.Mails() {
				to += m.To + " "
				if !strings.Contains(m.Data, "https://ambit.example/ui/approvals/apr_1") || !strings.Contains(m.Data, "Subject: Ambit: somebody waits for your decision") {
					t.Errorf("says %s", m.Data)
				}
			}
			return to
		}
		for _, c := range []struct {
			what  string
			users []id.User
			roles []string
			want  string
		}{
			{"a member's own account", []id.User{member.Person.User()}, nil, "mia@example.com "},
			{"the organization's", nil, []string{"owner", "approver"}, "ada@example.com "},
			{"somebody else's", []id.User{id.NewUser()}, nil, ""},
		} {
			w.asked(nil, c.users, c.roles...)
			if got := told(); got != c.want {
				t.Errorf("%s: told %q, want %q", c.what, got, c.want)
			}
		}
		list, err := w.List(t.Context(), w.me(), "")
		must(t, err)
		all, err := w.List(t.Context(), w.me(), w.org)
		must(t, err)
		for _, e := range append(list, all...) {
			if e.User != "" {
				t.Error("a person's own notices are in a list of others")
			}
		}
		// Refused by the mail server: tried again. Later: too late, and not any more.
		w.mails.Refuse("451 4.7.1 later")
		w.asked(nil, []id.User{member.Person.User()})
		told()
		w.mails.Refuse("")
		w.advance(time.Minute)
		if got := told(); got != "mia@example.com " {
			t.Errorf("after the mail server was away: %q", got)
		}
		must(t, w.SetPersonal(t.Context(), member.Person, w.env, false))
		w.asked(nil, []id.User{member.Person.User()})
		if got := told(); got != "" {
			t.Errorf("told who wants none: %q", got)
		}
	})
}

// personalMail has a member of org told by mail.
func (w *world) personalMail(org id.Organization, role account.Role, address string) account.Person {
	w.t.Helper()
	p := accounttest.Join(w.t, w.people, w.env, org, role, address).Person
	must(w.t, w.SetPersonal(w.t.Context(), p, w.env, true))
	return p
}

// mailed makes a round and gives to whom mail went.
func (w *world) mailed() string {
	w.t.Helper()
	w.deliver()
	var to []string
	for _, m := range w.mails.Mails() {
		to = append(to, m.To)
	}
	slices.Sort(to)
	return strings.Join(to, " ")
}

// T1: mail of one's own tells what waits for one's decision when it is sent, in one's own
// organization: not to who left or decides no more, whatever was put down before, nor
// what a binary of before put down for everybody.
func TestPersonalMailIsTheirs(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx, sys := t.Context(), account.System("test")
		other, err := w.people.CreateOrganization(ctx, sys, w.env, "Other", "")
		must(t, err)
		ada := w.personalMail(w.org, account.RoleApprover, "ada@example.com")
		mia := w.personalMail(w.org, account.RoleMember, "mia@example.com")
		eve := w.personalMail(other.ID, account.RoleApprover, "eve@example.com")
		everybody := []id.User{ada.User(), mia.User(), eve.User()}
		var none account.Agreement
		for _, c := range []struct {
			what   string
			users  []id.User
			before func() // the mail is sent, and after it was put down
			want   string
		}{
			{"all that there are", everybody, func() {}, "ada@example.com mia@example.com"},
			{"the organization's", nil, func() {}, "ada@example.com"},
			{"the organization's, of who decides no more", nil, func() { must(t, w.people.SetRole(ctx, sys, w.org, ada.User(), account.RoleMember, none)) }, ""},
			{"put down by a binary of before", everybody, func() {
				must(t, w.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
					for _, p := range []account.Person{ada, mia, eve} {
						if _, err := tx.ExecContext(ctx, `insert into webhook_delivery (id, webhook_id, environment_id, event_id, kind, body, state, attempts, next_at, status, error, created_at, updated_at)
							select $1, id, environment_id, $2, 'approval.requested', $3, 'pending', 0, 0, 0, '', $4, $4 from webhook where user_id = $5`, id.NewDelivery(), id.NewEvent(),
							[]byte(`{"type":"approval.requested","data":{"organization_id":"`+string(w.org)+`"}}`), sqldb.Micros(w.clock()), p.User()); err != nil {
							return err
						}
					}
					return nil
				}))
			}, "ada@example.com mia@example.com"},
			{"of who is disabled, and who has left", everybody, func() {
				must(t, w.people.DisableUser(ctx, sys, ada.User(), none))
				must(t, w.people.RemoveMember(ctx, sys, w.org, mia.User(), none))
			}, ""},
		} {
			w.asked(nil, c.users, "owner", "approver")
			c.before()
			if got := w.mailed(); got != c.want {
				t.Errorf("%s: mail went to %q, want %q", c.what, got, c.want)
			}
		}
		var body string
		must(t, w.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
			return tx.QueryRowContext(ctx, `select count(*) || '' from webhook_delivery where state = 'pending'`).Scan(&body)
		}))
		if body != "0" {
			t.Errorf("%s are tried again", body)
		}
		// What an application is told does not name who decides.
		w.create(webhook.Input{})
		w.asked(nil, everybody, "owner")
		if got := w.deliver(); len(got) != 1 || strings.Contains(string(got[0].body), "waits_for") {
			t.Errorf("an application is told %+v", got)
		}
	})
}

// An address of one's own that takes no mail for days is switched off and said so to that
// person; owners are not bothered, and no log has the address.
func TestPersonalMailThatFails(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		mia := w.personalMail(w.org, account.RoleMember, "mia-canary@example.com")
		w.mails.Refuse("550 5.1.1 mia-canary@example.com unknown")
		hours := 0
		for on := true; on && hours < 24*6; hours++ {
			w.asked(nil, []id.User{mia.User()})
			w.deliver()
			w.advance(time.Hour)
			var err error
			on, _, err = w.Personal(ctx, mia, w.env)
			must(t, err)
		}
		if on, failed, err := w.Personal(ctx, mia, w.env); on || !failed || err != nil || hours < 24*5 {
			t.Errorf("after %d hours: on %v, failed %v, %v", hours, on, failed, err)
		}
		notices, err := w.people.Notices(ctx, w.owner.Person)
		if err != nil || slices.ContainsFunc(notices, func(n account.Notice) bool { return n.Kind == account.NoticeWebhook }) {
			t.Errorf("the owner is told of %+v, %v", notices, err)
		}
		if strings.Contains(w.log.String(), "canary") || !strings.Contains(w.log.String(), "mail_refused") {
			t.Errorf("the log says %s", w.log.String())
		}
		rows := func() (n int) {
			must(t, w.db.Reader().QueryRowContext(ctx, `select (select count(*) from webhook) + (select count(*) from webhook_delivery where state in ('pending', 'held'))`).Scan(&n))
			return n
		}
		w.mails.Refuse("")
		w.asked(nil, []id.User{mia.User()})
		if got := w.mailed(); got != "" {
			t.Errorf("mail went to %s", got)
		}
		must(t, w.SetPersonal(ctx, mia, w.env, false))
		if n := rows(); n != 0 {
			t.Errorf("switched off by them, %d rows are left", n)
		}
		must(t, w.SetPersonal(ctx, mia, w.env, true))
		w.asked(nil, []id.User{mia.User()})
		if got := w.mailed(); got != "mia-canary@example.com" {
			t.Errorf("switched on again, mail went to %q", got)
		}
	})
}

// Whoever names an agent or an account writes no link into mail of the operator's domain.
func TestMailHasNoLinksOfOthers(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		_, _, err := w.made(webhook.Input{Form: webhook.FormMail, URL: "mailto:team@example.com"})
		must(t, err)
		for _, name := range []string{"evil.example", "https://evil.example/x", "www.evil.example", "see evil.example/login now", "evil。example", "mailto:a@evil.example", "e..vil.example", "EVIL.EXAMPLE."} {
			w.asked(map[string]any{"agent_label": name, "providers": []string{name}}, nil)
			w.deliver()
			got := w.mails.Mails()
			if len(got) != 1 {
				t.Fatalf("%d mails", len(got))
			}
			_, text, _ := strings.Cut(got[0].Data, "\n\n")
			text = strings.ReplaceAll(strings.ReplaceAll(text, "=\n", ""), "https://ambit.example/ui/approvals/apr_1", "")
			if lower := strings.ToLower(text); !strings.Contains(lower, "evil") && !strings.Contains(lower, "vil example") || strings.Contains(lower, ".example") || strings.Contains(lower, "://") || strings.Contains(lower, "@") || strings.Contains(lower, "www.") || strings.Contains(lower, "。") {
				t.Errorf("%s: says %s", name, text)
			}
		}
	})
}

// An admin has an address of somebody else written to a few times, and no more, whichever
// endpoints they make.
func TestMailThatIsAskedForIsBounded(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		mail := func(address string) id.Webhook {
			e, _ := w.create(webhook.Input{Form: webhook.FormMail, URL: "mailto:" + address, Organization: w.org})
			return e.ID
		}
		one := mail("victim@example.com")
		for range 30 {
			w.happens(w.org, "connection.revoked", nil)
		}
		for range 2 { // not all is due at once
			w.mailed()
		}
		if _, err := w.Replay(ctx, w.me(), one, webhook.Window{All: true}); !fault.Is(err, "too_many_mails") || fault.KindOf(err) != fault.TooLarge {
			t.Errorf("a replay of 30: %v", err)
		}
		for n := range 4 {
			if _, err := w.Test(ctx, w.me(), one); err != nil {
				t.Fatalf("trial %d: %v", n, err)
			}
		}
		for what, hook := range map[string]id.Webhook{"the same": one, "the same address again": mail("Victim@example.com"), "another address of the organization": mail("other@example.com")} {
			if _, err := w.Test(ctx, w.me(), hook); !fault.Is(err, "too_many_mails") {
				t.Errorf("%s: %v", what, err)
			}
			if _, err := w.Replay(ctx, w.me(), hook, webhook.Window{}); !fault.Is(err, "too_many_mails") {
				t.Errorf("a replay to %s: %v", what, err)
			}
		}
		signed, _ := w.create(webhook.Input{Organization: w.org})
		if _, err := w.Test(ctx, w.me(), signed.ID); err != nil {
			t.Errorf("a program of their own: %v", err)
		}
		w.advance(20 * time.Minute)
		if _, err := w.Test(ctx, w.me(), one); err != nil {
			t.Errorf("later: %v", err)
		}
	})
}

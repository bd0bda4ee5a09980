package webhook_test

import (
	"context"
	"encoding/json"
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
			now, err := w.Edit(t.Context(), w.me(), e.ID, webhook.Input{URL: c.url, Events: []string{"approval.requested"}})
			must(t, err)
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
			if on, err := w.Personal(t.Context(), p, w.env); err != nil || !on {
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

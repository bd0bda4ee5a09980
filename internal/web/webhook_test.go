package web_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/webhook"
)

// told is an application that is told of what happens.
type told struct {
	URL string

	mu     sync.Mutex
	status int
	got    []heard
}

type heard struct {
	header http.Header
	body   []byte
}

func newTold(t *testing.T) (*told, *outbound.Client) {
	t.Helper()
	r := &told{status: http.StatusNoContent}
	srv := httptest.NewServer(r)
	t.Cleanup(srv.Close)
	r.URL = srv.URL + "/hooks"
	to, err := outbound.New(outbound.Policy{Allow: []string{srv.Listener.Addr().(*net.TCPAddr).String()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(to.Close)
	return r, to
}

func (r *told) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, heard{req.Header.Clone(), body})
	w.WriteHeader(r.status)
}

func (r *told) answers(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

// deliver makes a round and gives what arrived in it.
func (s *site) deliver(t *testing.T) []heard {
	t.Helper()
	if err := s.Hooks.Deliver(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.told.mu.Lock()
	defer s.told.mu.Unlock()
	got := s.told.got
	s.told.got = nil
	return got
}

// signedBy reports whether one of the signatures is by the secret.
func (h heard) signedBy(t *testing.T, key string) bool {
	t.Helper()
	seconds, err := strconv.ParseInt(h.header.Get("Webhook-Timestamp"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	want, err := webhook.Sign(secret.FromString(key), h.header.Get("Webhook-Id"), time.Unix(seconds, 0), h.body)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(h.header.Get("Webhook-Signature"), want)
}

// shownSecret is the one on a page that shows it once.
func (d *doc) shownSecret() string {
	d.b.t.Helper()
	for n := range d.root.Descendants() {
		if n.Data == "code" && strings.HasPrefix(textOf(n), "whsec_") {
			return textOf(n)
		}
	}
	d.b.t.Fatalf("%s shows no secret: %s", d.url.Path, d.text("main"))
	return ""
}

// Issue 6: people are told by Slack and mail, added on the web; a Slack address is never
// shown again, and each person decides about mail of their own.
func TestNoticesToPeople(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.person(t, "admin@example.com", account.RoleAdmin)
	add := func(form, address string) *doc {
		return b.get("/ui/webhooks/new").submit("/ui/webhooks", func(v url.Values) { v.Set("form", form); v.Set("url", address); v.Add("event", "approval.requested") })
	}
	agreed := func(d *doc) *doc {
		return d.want(http.StatusOK).says("is told of 1 kind of event").submit("/ui/webhooks", nil)
	}
	add("slack", "ftp://canary.example/x").want(http.StatusUnprocessableEntity).not("canary")
	page := agreed(add("slack", s.told.URL+"/T0/canary-of-slack")).follow().says("Saved").not("canary", "Its secret")
	add("mail", "team@example.com").want(http.StatusUnprocessableEntity).says("mailto:team@example.com")
	agreed(add("mail", "mailto:team@example.com")).follow().says("mailto:team@example.com").not("Its secret")
	b.get("/ui/webhooks").not("canary")

	b.get("/ui/account").says("Ambit can mail you").submit("/ui/account/mail", nil).follow().says("Saved", "You get a mail")
	ask := func() string {
		s.deliver(t)
		err := s.DB.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
			return s.Hooks.Emit(ctx, tx, webhook.Event{ID: id.NewEvent(), Environment: s.Environment, Organization: s.Organization, Kind: "approval.requested", At: s.Clock.Now(),
				Data: map[string]any{"agent_label": "x", "url": "https://ambit.example/ui/approvals/apr_1"}, Users: []id.User{b.Person.User()}})
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.deliver(t); len(got) != 1 || !strings.Contains(string(got[0].body), "Decide in Ambit") {
			t.Errorf("Slack was told %d times", len(got))
		}
		var to []string
		for _, m := range s.mail.Mails() {
			to = append(to, m.To)
		}
		slices.Sort(to)
		return strings.Join(to, " ")
	}
	if got := ask(); got != "admin@example.com team@example.com" {
		t.Errorf("mail went to %q", got)
	}
	b.get(page.url.Path).submit(page.url.Path+"/edit", func(v url.Values) { v.Set("description", "Ops channel") }).follow().says("Ops channel").not("canary")
	b.get("/ui/account").submit("/ui/account/mail", nil).follow().says("Ambit can mail you")
	if got := ask(); got != "team@example.com" {
		t.Errorf("mail went to %q", got)
	}
}

// Issue 5: on the web, an admin has an application told of what happens: adds its
// address, is shown the signing secret once, sees what was delivered, sends again
// what was not, replaces the secret and switches it off and on. Each step by its
// form, without script.
func TestWebhooks(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := siteOn(t, db)
		b := s.person(t, "admin@example.com", account.RoleAdmin)
		b.get(b.get("/ui/webhooks").says("Nobody is told yet").link("Add a webhook")).want(http.StatusOK).
			submit("/ui/webhooks", func(v url.Values) { v.Set("url", "ftp://x.example/") }).want(http.StatusUnprocessableEntity).says("Add a webhook")
		first := b.get("/ui/webhooks/new").submit("/ui/webhooks", func(v url.Values) {
			v.Set("url", s.told.URL)
			v.Add("event", connection.ChangeConnected)
		}).want(http.StatusOK).says("shown one time, on the next page").not("whsec_").submit("/ui/webhooks", nil).want(http.StatusOK).says("shown this one time").not("stored only as a hash").shownSecret()
		at := b.get("/ui/webhooks").says("told of 1 kind of event", "On").not("whsec_").link(s.told.URL)

		happen := func(kind string) id.Event {
			t.Helper()
			e := webhook.Event{ID: id.NewEvent(), Environment: s.Environment, Organization: s.Organization, Kind: kind, At: s.Clock.Now(), Data: map[string]any{"object": "connection"}}
			if err := s.DB.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error { return s.Hooks.Emit(ctx, tx, e) }); err != nil {
				t.Fatal(err)
			}
			return e.ID
		}
		b.get(at).submit(at+"/test", nil).to(at)
		if got := s.deliver(t); len(got) != 1 || !got[0].signedBy(t, first) {
			t.Fatalf("a trial: %d deliveries", len(got))
		}
		b.get(at).says("A trial", "It answered 204.", "Delivered")

		s.told.answers(http.StatusServiceUnavailable)
		missed := happen(connection.ChangeConnected)
		happen(connection.ChangeRevoked) // it did not ask for these
		if got := s.deliver(t); len(got) != 1 {
			t.Fatalf("%d deliveries, want 1", len(got))
		}
		b.get(at).says("Failing", "An account is connected", "It answered 503.", "1 attempt", "Waiting")
		s.told.answers(http.StatusNoContent)
		second := b.get(at).confirmed(at+"/rotate", nil, "with the old one too").want(http.StatusOK).says("with the old one too").shownSecret()
		b.get(at).says("The one before signs too").submit(at+"/replay", nil).to(at)
		if got := s.deliver(t); len(got) != 1 || got[0].header.Get("Webhook-Id") != string(missed) || !got[0].signedBy(t, first) || !got[0].signedBy(t, second) {
			t.Fatalf("sent again: %d deliveries, want the one that was missed, signed with both secrets", len(got))
		}
		b.get(at + "?state=failed").says("Nothing in the last month")
		b.get(at+"?state=delivered").says("An account is connected").submit(at+"/again", nil).to(at) // this one, though it was delivered
		if got := s.deliver(t); len(got) != 1 {
			t.Fatalf("one sent again: %d deliveries", len(got))
		}

		b.get(at).confirmed(at+"/rotate", func(v url.Values) { v.Set("overlap", "0s") }, "the new one alone").says("the new one alone").shownSecret()
		b.get(at).submit(at+"/off", nil).to(at)
		happen(connection.ChangeConnected)
		if got := s.deliver(t); len(got) != 0 {
			t.Fatalf("switched off: %d deliveries", len(got))
		}
		b.get(at).says("Somebody switched it off", "Held back").submit(at+"/on", nil).to(at)
		b.get(at).submit(at+"/replay", nil)
		if got := s.deliver(t); len(got) != 1 || got[0].signedBy(t, first) || got[0].signedBy(t, second) {
			t.Fatalf("switched on again: %d deliveries, want one that is signed with the newest secret alone", len(got))
		}
		b.get(at).submit(at+"/edit", func(v url.Values) { v.Set("url", "http://10.0.0.1/") }).want(http.StatusForbidden).says("Plain http is not allowed")
		b.get(at).submit(at+"/edit", func(v url.Values) { v.Set("description", "Billing") }).to(at) // who is told, and of what, is as it was
		b.get(at).confirmed(at+"/edit", func(v url.Values) { v.Del("event") }, "is told of everything").to(at)
		b.get(at).confirmed(at+"/edit", func(v url.Values) { v.Set("url", s.told.URL+"/moved") }, "/moved is told of everything").to(at)
		b.get(at).says("Billing", "told of everything").submit(at+"/delete", nil).to("/ui/webhooks")
		b.get(at).want(http.StatusNotFound)
	})
}

// Rule 4, A9, W2: with the cookie of an admin alone no webhook is made and no secret
// shown; nor with the proof of somebody else.
func TestCookieAloneMakesNoWebhook(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b, stranger := s.person(t, "admin@example.com", account.RoleAdmin), s.person(t, "other@example.com", account.RoleAdmin)
	thief := s.thief(t, b)
	b.get("/ui/webhooks/new").submit("/ui/webhooks", func(v url.Values) { v.Set("url", s.told.URL) }).submit("/ui/webhooks", nil).shownSecret()
	at := b.get("/ui/webhooks").link(s.told.URL)
	state := func() (out string) {
		if err := s.DB.Reader().QueryRowContext(t.Context(), `select count(*) || '/' || sum(secret_version) || '/' || sum(version) from webhook`).Scan(&out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	before := state()
	for path, form := range map[string]url.Values{"/ui/webhooks": {"url": {s.told.URL + "/thief"}}, at + "/rotate": {"overlap": {"24h"}}, at + "/edit": {"url": {s.told.URL + "/thief"}}} {
		thief.post(path, form).want(http.StatusOK).says("Cancel").not("whsec_")
		asked := joined(form, url.Values{"nonce": {"n"}})
		theirs := string(stranger.Proof(t, thief.challenged(path, asked)).Assertion)
		for name, proof := range map[string]url.Values{"no passkey": {"credential": {"{}"}}, "a wrong code": {"code": {"123456"}}, "another's passkey": {"credential": {theirs}}} {
			if d := thief.post(path, joined(asked, proof)).not("whsec_"); d.status < 400 || d.status >= 500 {
				t.Errorf("%s with %s: got status %d: %s", path, name, d.status, d.text("main"))
			}
		}
	}
	thief.get(at + "/rotate?overlap=24h").want(http.StatusOK).not("whsec_")
	if now := state(); now != before {
		t.Errorf("with the cookie alone something changed: %s, then %s", before, now)
	}
}

// T1: who is no admin sees and changes no webhook, and one of another organization
// is not there.
func TestWebhooksOfOthers(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	owner, member := s.person(t, "owner@example.com", account.RoleOwner), s.person(t, "member@example.com", account.RoleMember)
	member.get("/ui/webhooks").want(http.StatusForbidden)
	member.get("/ui/webhooks/new").want(http.StatusForbidden)
	member.post("/ui/webhooks", url.Values{"url": {s.told.URL}}).want(http.StatusForbidden)
	owner.get("/ui/webhooks/new").submit("/ui/webhooks", func(v url.Values) { v.Set("url", s.told.URL); v.Set("reach", "environment") }).want(http.StatusOK).says("in all of").submit("/ui/webhooks", nil).want(http.StatusOK)
	at := owner.get("/ui/webhooks").says("All of").link(s.told.URL)
	other, err := s.Accounts.CreateOrganization(t.Context(), s.System, s.Environment, "Other", "")
	if err != nil {
		t.Fatal(err)
	}
	admin := s.open(t)
	admin.Human = accounttest.Join(t, s.Accounts, s.Environment, other.ID, account.RoleAdmin, "admin@example.com")
	admin.signIn("/ui/")
	for _, b := range []*browser{member, admin} {
		b.get(at).want(http.StatusNotFound)
		for _, form := range []string{"", "/on", "/off", "/test", "/replay", "/again", "/rotate", "/delete"} {
			b.post(at+form, url.Values{"url": {s.told.URL}, "overlap": {"0"}, "delivery": {string(id.NewDelivery())}}).want(http.StatusNotFound)
		}
	}
	owner.get(at).says("Nothing in the last month", "On")
}

package webhook_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/mail"
	"github.com/ambit-dev/ambit/internal/mail/mailtest"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
	"github.com/ambit-dev/ambit/internal/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a product's back end that is told, and the room that tells it.
type world struct {
	*webhook.Service
	t      *testing.T
	db     *sqldb.DB
	audit  *audit.Log
	people *account.Service
	owner  *accounttest.Human
	env    id.Environment
	org    id.Organization
	url    string
	mails  *mailtest.Server
	log    logged

	mu     sync.Mutex
	now    time.Time
	status []int // of the next answers; then 204
	got    []arrival
}

// logged is what was logged.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

type arrival struct {
	header http.Header
	body   []byte
	path   string
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(time.Millisecond)
	return w.now
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) answers(status ...int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status = status
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got = append(w.got, arrival{r.Header.Clone(), body, r.URL.Path})
	status := http.StatusNoContent
	if len(w.status) > 0 {
		status, w.status = w.status[0], w.status[1:]
	}
	if status == http.StatusFound {
		rw.Header().Set("Location", "http://evil.example/")
	}
	rw.WriteHeader(status)
}

// deliver makes one round and gives what arrived in it.
func (w *world) deliver() []arrival {
	w.t.Helper()
	must(w.t, w.Deliver(w.t.Context()))
	w.mu.Lock()
	defer w.mu.Unlock()
	got := w.got
	w.got = nil
	return got
}

func each(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := &world{t: t, db: db, now: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)}
		dir := t.TempDir()
		keeper := keyringtest.File(t, filepath.Join(dir, "root.key"))
		var err error
		w.audit, err = audit.New(t.Context(), audit.Config{DB: db, Keeper: keeper, CheckpointDir: filepath.Join(dir, "checkpoints")})
		must(t, err)
		t.Cleanup(w.audit.Stop)
		v := vault.New(vault.Config{DB: db, Keeper: keeper, Audit: w.audit})
		public, err := url.Parse("http://localhost:7420")
		must(t, err)
		w.people, err = account.New(account.Config{DB: db, Vault: v, Audit: w.audit, PublicURL: public})
		must(t, err)
		w.owner = accounttest.Owner(t, w.people)
		w.env, w.org = w.owner.Organizations()[0].Environment, w.owner.Organizations()[0].Organization
		srv := httptest.NewServer(w)
		t.Cleanup(srv.Close)
		w.url = srv.URL + "/hooks"
		out, err := outbound.New(outbound.Policy{Allow: []string{strings.TrimPrefix(srv.URL, "http://")}})
		must(t, err)
		t.Cleanup(out.Close)
		w.mails = mailtest.New(t)
		sender, err := mail.New(mail.Config{URL: "smtp://" + w.mails.Address, From: "Ambit <ambit@example.com>"})
		must(t, err)
		w.Service = webhook.New(webhook.Config{Mail: sender, DB: db, Vault: v, Audit: w.audit, People: w.people, Outbound: out, Kinds: []string{"connection.connected", "connection.revoked", "approval.requested"}, Now: w.clock,
			Logger: slog.New(slog.NewTextHandler(&w.log, nil))})
		fn(t, w)
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) me() account.Actor { return account.ByPerson(w.owner.Person).In(w.env) }

func (w *world) create(in webhook.Input) (webhook.Endpoint, secret.Value) {
	w.t.Helper()
	if in.URL == "" {
		in.URL = w.url
	}
	e, key, err := w.made(in)
	must(w.t, err)
	return e, key
}

// made is an endpoint to which the owner agrees.
func (w *world) made(in webhook.Input) (e webhook.Endpoint, key secret.Value, err error) {
	w.t.Helper()
	err = w.agreed(func(ag account.Agreement) error {
		e, key, err = w.Create(w.t.Context(), w.me(), in, ag)
		return err
	})
	return e, key, err
}

func (w *world) rotated(hook id.Webhook, overlap time.Duration) (key secret.Value, err error) {
	w.t.Helper()
	err = w.agreed(func(ag account.Agreement) error {
		_, key, err = w.Rotate(w.t.Context(), w.me(), hook, overlap, ag)
		return err
	})
	return key, err
}

// agreed makes a change with the owner's agreement to what it asks for.
func (w *world) agreed(change func(account.Agreement) error) error {
	w.t.Helper()
	err := change(account.Asking())
	if fault.Is(err, "nothing_to_confirm") {
		return change(account.Agreement{})
	}
	need, ok := errors.AsType[*account.Unproven](err)
	if !ok {
		return err
	}
	ag, err := w.owner.Agree(w.t, need.Raise)
	must(w.t, err)
	return change(ag)
}

// happens emits an event of org in a transaction, which fails with err.
func (w *world) happens(org id.Organization, kind string, err error) id.Event {
	w.t.Helper()
	event := id.NewEvent()
	got := w.db.Update(w.t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
		if e := w.Emit(ctx, tx, webhook.Event{ID: event, Environment: w.env, Organization: org, Kind: kind, At: w.clock(), Data: map[string]any{"id": "conn_1"}}); e != nil {
			return e
		}
		return err
	})
	if err == nil {
		must(w.t, got)
	}
	return event
}

func (w *world) states(hook id.Webhook) string {
	w.t.Helper()
	list, _, err := w.Deliveries(w.t.Context(), w.me(), hook, "", "", 100)
	must(w.t, err)
	var out []string
	for _, d := range slices.Backward(list) {
		out = append(out, fmt.Sprintf("%s/%d", d.State, d.Attempts))
	}
	return strings.Join(out, " ")
}

// Issue 5: what happens is told once it is committed, signed so that the receiver
// can check it, to those who asked for it and to nobody else.
func TestDelivery(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		e, key := w.create(webhook.Input{Events: []string{"connection.revoked"}})
		if k := string(key.Reveal()); !strings.HasPrefix(k, "whsec_") || len(k) < 40 {
			t.Errorf("the secret has the form %d bytes", len(k))
		}
		other, err := w.people.CreateOrganization(t.Context(), account.System("test"), w.env, "Other", "")
		must(t, err)
		theirs, _, err := w.Create(t.Context(), account.System("test").In(w.env), webhook.Input{Organization: other.ID, URL: w.url}, account.Agreement{})
		must(t, err)
		w.happens(w.org, "connection.connected", nil)            // not asked for
		w.happens(w.org, "connection.revoked", io.ErrNoProgress) // rolled back
		event := w.happens(w.org, "connection.revoked", nil)
		got := w.deliver()
		if len(got) != 1 {
			t.Fatalf("%d deliveries, want 1", len(got))
		}
		h := got[0].header
		if h.Get("Webhook-Id") != string(event) || h.Get("Content-Type") != "application/json" {
			t.Errorf("sent with %v", h)
		}
		seconds, err := strconv.ParseInt(h.Get("Webhook-Timestamp"), 10, 64)
		must(t, err)
		want, err := webhook.Sign(key, string(event), time.Unix(seconds, 0), got[0].body)
		must(t, err)
		if h.Get("Webhook-Signature") != want {
			t.Errorf("signed %s, want %s", h.Get("Webhook-Signature"), want)
		}
		var body struct {
			Type string
			Data map[string]string
		}
		if err := json.Unmarshal(got[0].body, &body); err != nil || body.Type != "connection.revoked" || body.Data["id"] != "conn_1" {
			t.Errorf("body %s, %v", got[0].body, err)
		}
		if n := len(w.deliver()); n != 0 {
			t.Errorf("told again %d times", n)
		}
		if got := w.states(e.ID); got != "delivered/1" {
			t.Errorf("deliveries: %s", got)
		}
		w.happens(other.ID, "connection.revoked", nil) // one organization's own, and the whole environment's none
		if n := len(w.deliver()); n != 2 {
			t.Errorf("%d told of the other organization's, want it and whoever has the environment", n)
		}
		_ = theirs
	})
}

// A published example: the signature is that of the Standard Webhooks specification.
func TestSignature(t *testing.T) {
	t.Parallel()
	got, err := webhook.Sign(secret.FromString("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; err != nil || got != want {
		t.Errorf("got %s, want %s (%v)", got, want, err)
	}
}

// At least once: a failure is tried again, less and less often, with the same id
// and a new time; a redirect is no success, and is not followed.
func TestRetries(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		e, _ := w.create(webhook.Input{})
		w.answers(500, http.StatusFound)
		event := w.happens(w.org, "connection.revoked", nil)
		ids := map[string]bool{}
		count := 0
		for range 6 {
			for _, a := range w.deliver() {
				ids[a.header.Get("Webhook-Id")] = true
				count++
			}
			w.advance(time.Minute)
		}
		if count != 3 || len(ids) != 1 || !ids[string(event)] {
			t.Errorf("%d attempts with the ids %v", count, ids)
		}
		if got := w.states(e.ID); got != "delivered/3" {
			t.Errorf("deliveries: %s", got)
		}
		if again, err := w.Get(t.Context(), w.me(), e.ID); err != nil || !again.FailingSince.IsZero() || !again.Enabled {
			t.Errorf("afterwards: %+v, %v", again, err)
		}
	})
}

// What an owner changes while deliveries fail stays changed: outcomes are written
// one after another with it. On PostgreSQL an outcome that had read the endpoint
// before wrote it back as it was, and outcomes that ended it ran into each other.
func TestChangeWhileDeliveriesFail(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.answers(slices.Repeat([]int{503}, 10_000)...)
		for range 12 {
			e, _ := w.create(webhook.Input{})
			for range 8 {
				w.happens(w.org, "connection.revoked", nil)
			}
			done := make(chan error, 1)
			go func() { done <- w.Deliver(t.Context()) }()
			for text := 0; ; text++ {
				want := strconv.Itoa(text)
				_, err := w.Edit(t.Context(), w.me(), e.ID, webhook.Input{URL: w.url, Description: want}, account.Agreement{})
				must(t, err)
				if now, err := w.Get(t.Context(), w.me(), e.ID); err != nil || now.Description != want {
					t.Fatalf("changed to %q, reads %q, %v", want, now.Description, err)
				}
				if len(done) > 0 {
					break
				}
			}
			must(t, <-done)
			must(t, w.Delete(t.Context(), w.me(), e.ID))
		}
	})
}

// An endpoint that does not answer is not asked for each delivery, and after five
// days is switched off; its environment's owners are told. What it missed can be
// sent again.
func TestEndpointThatDoesNotAnswer(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		e, _ := w.create(webhook.Input{})
		w.answers(slices.Repeat([]int{503}, 10_000)...)
		for range 60 {
			w.happens(w.org, "connection.revoked", nil)
		}
		attempts, hours := len(w.deliver()), 0
		if attempts > 20 {
			t.Errorf("%d attempts at once at one that does not answer", attempts)
		}
		for ; hours < 24*8; hours++ {
			w.advance(time.Hour)
			attempts += len(w.deliver())
			if now, err := w.Get(t.Context(), w.me(), e.ID); err != nil || !now.Enabled {
				break
			}
			if hours%12 == 0 {
				w.happens(w.org, "connection.revoked", nil)
			}
		}
		now, err := w.Get(t.Context(), w.me(), e.ID)
		if err != nil || now.Enabled || now.Reason != "failing" || hours < 24*5-2 || hours > 24*5+14 {
			t.Fatalf("after %d hours: %+v, %v", hours, now, err)
		}
		if attempts > 1500 {
			t.Errorf("%d attempts in five days", attempts)
		}
		notices, err := w.people.Notices(t.Context(), w.owner.Person)
		must(t, err)
		if !slices.ContainsFunc(notices, func(n account.Notice) bool { return n.Kind == account.NoticeWebhook }) {
			t.Errorf("the owner is told of %+v", notices)
		}
		missed := w.happens(w.org, "connection.revoked", nil)
		w.answers()
		if n := len(w.deliver()); n != 0 {
			t.Errorf("%d deliveries while it is off", n)
		}
		if _, err := w.Replay(t.Context(), w.me(), e.ID, webhook.Window{}); !fault.Is(err, "webhook_disabled") {
			t.Errorf("a replay while it is off: %v", err)
		}
		_, err = w.Enable(t.Context(), w.me(), e.ID)
		must(t, err)
		n, err := w.Replay(t.Context(), w.me(), e.ID, webhook.Window{From: w.clock().Add(-time.Hour)})
		if err != nil || n != 1 {
			t.Errorf("a replay of the last hour: %d, %v", n, err)
		}
		if got := w.deliver(); len(got) != 1 || got[0].header.Get("Webhook-Id") != string(missed) {
			t.Errorf("%d deliveries after the replay", len(got))
		}
		if n, err := w.Replay(t.Context(), w.me(), e.ID, webhook.Window{}); err != nil || n < 60 {
			t.Errorf("a replay of all that failed: %d, %v", n, err)
		}
		if n := len(w.deliver()); n < 60 {
			t.Errorf("%d deliveries after that", n)
		}
	})
}

// One delivery is sent again as it was, also one that arrived; of a stranger's
// nothing is known. 410 means that the endpoint is gone.
func TestReplayOneAndGone(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		e, _ := w.create(webhook.Input{})
		w.happens(w.org, "connection.revoked", nil)
		first := w.deliver()
		list, more, err := w.Deliveries(t.Context(), w.me(), e.ID, "", "", 10)
		if err != nil || len(list) != 1 || more {
			t.Fatalf("%v, %v", list, err)
		}
		if n, err := w.Replay(t.Context(), w.me(), e.ID, webhook.Window{Delivery: list[0].ID}); err != nil || n != 1 {
			t.Errorf("a replay: %d, %v", n, err)
		}
		if again := w.deliver(); len(again) != 1 || string(again[0].body) != string(first[0].body) || again[0].header.Get("Webhook-Id") != first[0].header.Get("Webhook-Id") {
			t.Errorf("sent again: %+v", again)
		}
		if _, err := w.Replay(t.Context(), w.me(), e.ID, webhook.Window{Delivery: id.NewDelivery()}); !fault.Is(err, "not_found") {
			t.Errorf("one that is not there: %v", err)
		}
		w.answers(http.StatusGone)
		if _, err := w.Test(t.Context(), w.me(), e.ID); err != nil {
			t.Error(err)
		}
		w.deliver()
		if now, err := w.Get(t.Context(), w.me(), e.ID); err != nil || now.Enabled || now.Reason != "gone" {
			t.Errorf("after 410: %+v, %v", now, err)
		}
		w.advance(31 * 24 * time.Hour)
		must(t, w.Sweep(t.Context()))
		if got := w.states(e.ID); got != "" {
			t.Errorf("after a month there is still %s", got)
		}
	})
}

// Secrets rotate with an overlap in which a receiver may have either.
func TestRotation(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		e, old := w.create(webhook.Input{})
		fresh, err := w.rotated(e.ID, time.Hour)
		must(t, err)
		signed := func() []string {
			event := w.happens(w.org, "connection.revoked", nil)
			got := w.deliver()
			if len(got) != 1 {
				t.Fatalf("%d deliveries", len(got))
			}
			seconds, err := strconv.ParseInt(got[0].header.Get("Webhook-Timestamp"), 10, 64)
			must(t, err)
			var by []string
			for name, key := range map[string]secret.Value{"fresh": fresh, "old": old} {
				sig, err := webhook.Sign(key, string(event), time.Unix(seconds, 0), got[0].body)
				must(t, err)
				if slices.Contains(strings.Fields(got[0].header.Get("Webhook-Signature")), sig) {
					by = append(by, name)
				}
			}
			slices.Sort(by)
			return by
		}
		if by := signed(); !slices.Equal(by, []string{"fresh", "old"}) {
			t.Errorf("signed by %v", by)
		}
		w.advance(2 * time.Hour)
		if by := signed(); !slices.Equal(by, []string{"fresh"}) {
			t.Errorf("after the overlap signed by %v", by)
		}
	})
}

// Rule 4, A9: whoever has a person's cookie or their command line's login makes no
// webhook and no secret of one; what a person agreed to is kept, and counts once.
func TestMakingTakesAnAgreement(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx, in := t.Context(), webhook.Input{URL: w.url, Events: []string{"connection.revoked"}}
		rows := func() (n, versions int64) {
			must(t, w.db.Reader().QueryRowContext(ctx, `select count(*), coalesce(sum(secret_version), 0) from webhook`).Scan(&n, &versions))
			return n, versions
		}
		if _, key, err := w.Create(ctx, w.me(), in, account.Agreement{}); !fault.Is(err, "proof_required") || !key.IsZero() {
			t.Errorf("without a proof: %v, a secret %v", err, !key.IsZero())
		}
		_, _, err := w.Create(ctx, w.me(), in, account.Asking())
		need, ok := errors.AsType[*account.Unproven](err)
		if !ok {
			t.Fatal(err)
		}
		ag, err := w.owner.Agree(t, need.Raise)
		must(t, err)
		for what, other := range map[string]webhook.Input{"another address": {URL: w.url + "/x", Events: in.Events}, "other events": {URL: w.url}, "mail": {Form: webhook.FormMail, URL: "mailto:a@example.com", Events: in.Events},
			"another place in Slack": {Form: webhook.FormSlack, URL: w.url, Events: in.Events}} {
			if _, _, err := w.Create(ctx, w.me(), other, ag); !fault.Is(err, "changed_meanwhile") {
				t.Errorf("%s with that agreement: %v", what, err)
			}
		}
		if n, _ := rows(); n != 0 {
			t.Fatalf("%d are there", n)
		}
		e, key, err := w.Create(ctx, w.me(), in, ag)
		if err != nil || key.IsZero() {
			t.Fatal(err)
		}
		if _, key, err := w.Create(ctx, w.me(), in, ag); err == nil || !key.IsZero() {
			t.Errorf("the agreement counts again: %v", err)
		}
		if _, key, err := w.Rotate(ctx, w.me(), e.ID, 0, account.Agreement{}); !fault.Is(err, "proof_required") || !key.IsZero() {
			t.Errorf("a new secret without a proof: %v, a secret %v", err, !key.IsZero())
		}
		if _, _, err := w.Rotate(ctx, w.me(), e.ID, 0, ag); !fault.Is(err, "changed_meanwhile") {
			t.Errorf("a new secret with the proof for another thing: %v", err)
		}
		if n, versions := rows(); n != 1 || versions != 1 {
			t.Errorf("%d are there, with secrets %d", n, versions)
		}
		_, err = w.rotated(e.ID, 0)
		must(t, err)
		for _, action := range []string{"webhook.created", "webhook.rotated"} {
			found, err := w.audit.List(ctx, audit.Filter{Environment: w.env, Action: action, Limit: 5})
			if err != nil || len(found.Records) != 1 || len(found.Records[0].Evidence) == 0 {
				t.Errorf("%s: the audit keeps no proof: %+v, %v", action, found.Records, err)
			}
		}
		if _, key, err := w.Create(ctx, account.System("test").In(w.env), in, account.Agreement{}); err != nil || key.IsZero() {
			t.Errorf("an application: %v", err)
		}
	})
}

// O7, T1: where a webhook may go and who may say so.
func TestWhoAndWhere(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		for address, want := range map[string]string{"http://169.254.169.254/latest": "", "https://10.0.0.1/": "", "http://example.com/": "", "https://u:p@example.com/": "webhook_url",
			"javascript:alert(1)": "", "https://example.com/#x": "webhook_url", "": ""} {
			_, _, err := w.made(webhook.Input{URL: address})
			if err == nil || want != "" && !fault.Is(err, want) {
				t.Errorf("%q: got %v", address, err)
			}
		}
		if _, _, err := w.made(webhook.Input{URL: w.url, Events: []string{"secret.read"}}); !fault.Is(err, "unknown_event") {
			t.Errorf("an event that there is not: %v", err)
		}
		e, _ := w.create(webhook.Input{})
		member := account.ByPerson(accounttest.Join(t, w.people, w.env, w.org, account.RoleMember, "m@example.com").Person).In(w.env)
		elsewhere := account.System("test").In(id.NewEnvironment())
		for name, by := range map[string]account.Actor{"a member": member, "another environment": elsewhere} {
			if _, err := w.Get(ctx, by, e.ID); !fault.Is(err, "not_found") {
				t.Errorf("%s reads it: %v", name, err)
			}
			if _, _, err := w.Rotate(ctx, by, e.ID, 0, account.Agreement{}); !fault.Is(err, "not_found") {
				t.Errorf("%s rotates it: %v", name, err)
			}
			if err := w.Delete(ctx, by, e.ID); !fault.Is(err, "not_found") {
				t.Errorf("%s removes it: %v", name, err)
			}
		}
		if _, _, err := w.Create(ctx, member, webhook.Input{URL: w.url, Organization: w.org}, account.Agreement{}); !fault.Is(err, "not_allowed") {
			t.Errorf("a member adds one: %v", err)
		}
		must(t, w.Delete(ctx, w.me(), e.ID))
		w.happens(w.org, "connection.revoked", nil)
		if n := len(w.deliver()); n != 0 {
			t.Errorf("%d deliveries to one that is removed", n)
		}
	})
}

// Start delivers by itself, and Stop ends it.
func TestStart(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		e, _ := w.create(webhook.Input{})
		w.Start()
		defer w.Stop()
		w.happens(w.org, "connection.revoked", nil)
		for range 400 {
			if w.states(e.ID) == "delivered/1" {
				return
			}
			time.Sleep(25 * time.Millisecond)
		}
		t.Error("nothing was delivered within ten seconds")
	})
}

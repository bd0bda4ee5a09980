package provider_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Rule 4, A9: a record decides where keys go, so that a person's counts only
// with their agreement to exactly this record, on exactly what is there now.
func TestARecordTakesAnAgreement(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		in := trackerInput(t)
		_, err := w.Put(ctx, w.by(), in, account.Agreement{})
		wantCode(t, "a cookie", err, "proof_required")
		_, err = w.Put(ctx, w.by(), in, account.Asking())
		need, ok := errors.AsType[*account.Unproven](err)
		if !ok {
			t.Fatal(err)
		}
		agreed, err := w.owner.Agree(t, need.Raise)
		check(t, err)
		bent := func(change func(*provider.Input)) provider.Input {
			x := trackerInput(t)
			change(&x)
			return x
		}
		for name, x := range map[string]provider.Input{
			"another host": bent(func(x *provider.Input) {
				x.YAML = bytes.ReplaceAll(x.YAML, []byte("tracker.example"), []byte("evil.example"))
			}),
			"another client id": bent(func(x *provider.Input) { x.ClientID = "client-2" }),
			"another provider":  {YAML: []byte(strings.Replace(minimal, "example.com", "example.org", 1))},
		} {
			_, err := w.Put(ctx, w.by(), x, agreed)
			wantCode(t, name, err, "changed_meanwhile")
		}
		made, err := w.Put(ctx, w.by(), in, agreed)
		check(t, err)
		_, err = w.Put(ctx, w.by(), in, agreed)
		wantCode(t, "the agreement to the version before", err, "changed_meanwhile")
		check(t, w.Delete(ctx, w.by(), made.Record.ID)) // which is quick
		_, err = w.Put(ctx, w.by(), in, agreed)
		wantCode(t, "the agreement after it was removed", err, "changed_meanwhile")
		for _, by := range []account.Actor{account.System("test").In(w.env), account.ByKey(w.key(t, account.ScopeProvidersWrite))} {
			_, err := w.Put(ctx, by, in, account.Agreement{})
			check(t, err)
		}
	})
}

// What a person hands in waits for them alone, with its secret sealed, and is
// nothing before.
func TestDrafts(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		other := accounttest.Join(t, w.account, w.env, w.owner.Organizations()[0].Organization, account.RoleAdmin, "admin@example.com")
		d, err := w.Draft(ctx, w.by(), trackerInput(t), "")
		check(t, err)
		if _, err := w.Get(ctx, w.env, "tracker"); !fault.Is(err, "not_found") {
			t.Errorf("a draft counts: %v", err)
		}
		got, err := w.Drafted(ctx, w.by(), d.ID)
		check(t, err)
		if got.Record.Digest() != d.Record.Digest() || got.ClientID != "client-1" || !got.NewSecret {
			t.Errorf("got %+v", got)
		}
		var kept []byte
		check(t, w.db.Reader().QueryRowContext(ctx, `select client_secret from provider_draft where id = $1`, d.ID).Scan(&kept))
		if len(kept) == 0 || bytes.Contains(kept, []byte("client secret")) {
			t.Error("the client secret is kept as it is")
		}
		for name, by := range map[string]account.Actor{"another admin": account.ByPerson(other.Person), "an application": account.ByKey(w.key(t, account.ScopeProvidersWrite)), "nobody": {}} {
			_, err := w.Drafted(ctx, by, d.ID)
			wantCode(t, name, err, "not_found")
			_, err = w.Accept(ctx, by, d.ID, account.Agreement{})
			wantCode(t, name, err, "not_found")
		}
		// The same words handed in twice, as a second press of a button does, are
		// one draft, with the secret that came the first time.
		twice := trackerInput(t)
		twice.ClientSecret = secret.Value{}
		d, err = w.Draft(ctx, w.by(), twice, "")
		check(t, err)
		var drafts int
		check(t, w.db.Reader().QueryRowContext(ctx, `select count(*) from provider_draft`).Scan(&drafts))
		if drafts != 1 || !d.NewSecret {
			t.Errorf("%d drafts, with a secret: %v; want one that has it", drafts, d.NewSecret)
		}
		_, err = w.Accept(ctx, w.by(), d.ID, account.Agreement{})
		wantCode(t, "without an agreement", err, "proof_required")
		accept := func(draft id.Draft) (p provider.Provider, err error) {
			err = w.owner.Do(t, func(ag account.Agreement) (err error) { p, err = w.Accept(ctx, w.by(), draft, ag); return err })
			return p, err
		}
		made, err := accept(d.ID)
		check(t, err)
		client, err := w.Client(ctx, w.env, "tracker", made.Record.Pinned())
		check(t, err)
		if !client.Secret.Equal(secret.FromString("client secret")) {
			t.Error("the secret did not come along")
		}
		_, err = accept(d.ID)
		wantCode(t, "a draft that was accepted", err, "not_found")

		// Whoever goes back to the form need not type the secret again, unless it
		// would now go elsewhere.
		first := trackerInput(t)
		first.ClientSecret = secret.FromString("another secret")
		d, err = w.Draft(ctx, w.by(), first, "")
		check(t, err)
		next := first
		next.ClientSecret = secret.Value{}
		next.YAML = []byte(strings.Replace(string(first.YAML), "name: Tracker", "name: Tracker 2", 1))
		again, err := w.Draft(ctx, w.by(), next, d.ID)
		check(t, err)
		if !again.NewSecret {
			t.Error("the secret of the draft before is lost")
		}
		_, err = w.Drafted(ctx, w.by(), d.ID)
		wantCode(t, "the draft that it follows", err, "not_found")
		moved := next
		moved.YAML = bytes.ReplaceAll(next.YAML, []byte("tracker.example"), []byte("evil.example"))
		_, err = w.Draft(ctx, w.by(), moved, again.ID)
		wantCode(t, "the secret at another place", err, "client_secret_missing")
		_, err = w.Draft(ctx, account.ByPerson(other.Person), moved, again.ID)
		wantCode(t, "another's draft", err, "client_secret_missing")

		// Their number is bounded, and only those who may put hand in.
		for i := range 25 {
			_, err := w.Draft(ctx, w.by(), provider.Input{YAML: []byte(strings.Replace(minimal, "id: ", fmt.Sprintf("id: x%d", i), 1))}, "")
			check(t, err)
		}
		var n int
		check(t, w.db.Reader().QueryRowContext(ctx, `select count(*) from provider_draft where user_id = $1`, w.owner.User()).Scan(&n))
		if n != 20 {
			t.Errorf("%d drafts of one person are kept, want 20", n)
		}
		member := accounttest.Join(t, w.account, w.env, w.owner.Organizations()[0].Organization, account.RoleMember, "member@example.com")
		_, err = w.Draft(ctx, account.ByPerson(member.Person), trackerInput(t), "")
		wantCode(t, "a member", err, "not_allowed")
	})
}

func (w *world) key(t testing.TB, scopes ...account.Scope) account.Key {
	t.Helper()
	_, token, err := w.account.IssueKey(t.Context(), account.NewKey{Environment: w.env, Name: "app", Scopes: scopes})
	check(t, err)
	k, err := w.account.AuthenticateKey(t.Context(), token)
	check(t, err)
	return k
}

func wantCode(t testing.TB, what string, err error, code string) {
	t.Helper()
	if !fault.Is(err, code) {
		t.Errorf("%s: got %v, want %s", what, err, code)
	}
}

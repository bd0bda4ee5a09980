package connection_test

import (
	"context"
	"errors"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
)

type world struct {
	*connection.Service
	db      *sqldb.DB
	audit   *audit.Log
	public  *url.URL
	account *account.Service
	owner   *accounttest.Human
	env     id.Environment
	org     id.Organization
	clock   atomic.Int64
	changes []string        // kinds that OnChange was told of
	ended   []id.Connection // what OnEnded was called with
	veto    error           // what OnEnded answers
}

func each(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := &world{db: db}
		w.clock.Store(time.Now().UnixMicro())
		dir := t.TempDir()
		keeper := keyringtest.File(t, filepath.Join(dir, "root.key"))
		var err error
		w.audit, err = audit.New(t.Context(), audit.Config{DB: db, Keeper: keeper, CheckpointDir: filepath.Join(dir, "checkpoints"), Node: "test"})
		check(t, err)
		w.audit.Start()
		t.Cleanup(w.audit.Stop)
		w.public, err = url.Parse("http://localhost:7420")
		check(t, err)
		w.account, err = account.New(account.Config{DB: db, Vault: vault.New(vault.Config{DB: db, Keeper: keeper, Audit: w.audit}), Audit: w.audit, PublicURL: w.public})
		check(t, err)
		w.owner = accounttest.Owner(t, w.account)
		w.env, w.org = w.owner.Environment(), w.owner.Organizations()[0].Organization
		w.Service = w.node()
		fn(t, w)
	})
}

// node is another process on the same database.
func (w *world) node() *connection.Service {
	return connection.New(connection.Config{DB: w.db, Audit: w.audit, PublicURL: w.public, Now: func() time.Time { return time.UnixMicro(w.clock.Add(1000)).UTC() },
		OnChange: func(_ context.Context, _ *sqldb.Tx, ch connection.Change) error {
			w.changes = append(w.changes, ch.Kind)
			return nil
		},
		OnEnded: func(_ context.Context, _ *sqldb.Tx, c connection.Connection) error {
			if c.State != connection.Disconnected {
				return errors.New("the hook sees a connection that has not ended")
			}
			w.ended = append(w.ended, c.ID)
			return w.veto
		}})
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func record(t testing.TB, slug, base string) provider.Record {
	t.Helper()
	r, err := provider.Parse([]byte("id: " + slug + "\nname: " + strings.ToUpper(slug) + "\nauth: oauth2\noauth2: {authorize_url: " + base + "/a, token_url: " + base + "/t}\nidentity: {path: /me, id: id}\napi: {base: [\"" + base + "\"]}\n"))
	check(t, err)
	return r
}

func (w *world) fresh(t testing.TB, owner id.User, slug, acct string) connection.Fresh {
	return connection.Fresh{ID: id.NewConnection(), Environment: w.env, Organization: w.org, Owner: owner, Record: record(t, slug, "https://"+slug+".example"),
		Account: provider.Account{ID: acct, Label: acct + "@example.com"}, AuthMethod: "oauth2", Scopes: []string{"read", "write"}, CredentialVersion: 1}
}

func (w *world) tx(ctx context.Context, fn func(ctx context.Context, tx *sqldb.Tx) error) error {
	return w.db.Update(ctx, fn)
}

func (w *world) create(ctx context.Context, f connection.Fresh) (c connection.Connection, err error) {
	err = w.tx(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		c, err = w.Create(ctx, tx, account.ByPerson(w.owner.Person), f)
		return err
	})
	return c, err
}

func (w *world) mustCreate(t testing.TB, owner id.User, slug, acct string) connection.Connection {
	t.Helper()
	c, err := w.create(t.Context(), w.fresh(t, owner, slug, acct))
	check(t, err)
	return c
}

func (w *world) reconnect(ctx context.Context, c connection.Connection, f connection.Fresh) (out connection.Connection, err error) {
	err = w.tx(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		weighed, err := w.account.Weigh(ctx, tx, account.System("test"), account.Raise{Object: string(c.ID)}, true, account.Agreement{})
		if err == nil {
			out, err = w.Reconnect(ctx, tx, account.ByPerson(w.owner.Person), weighed, c, f)
		}
		return err
	})
	return out, err
}

func (w *world) mark(ctx context.Context, c id.Connection, state connection.State, reason string) error {
	return w.tx(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		return w.Mark(ctx, tx, audit.Actor{Kind: "system", ID: "test"}, w.env, c, state, reason)
	})
}

func (w *world) byID(t testing.TB, c id.Connection) connection.Connection {
	t.Helper()
	got, err := w.ByID(t.Context(), w.db.Reader(), w.env, c)
	check(t, err)
	return got
}

func (w *world) actions(t testing.TB, c id.Connection) []string {
	t.Helper()
	page, err := w.audit.List(t.Context(), audit.Filter{Environment: w.env, Connection: c})
	check(t, err)
	var out []string
	for _, r := range page.Records {
		out = append(out, r.Action)
	}
	slices.Reverse(out)
	return out
}

var ignore = cmp.Comparer(func(a, b provider.Record) bool { return a.Digest() == b.Digest() })

func TestConnectionLife(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		me := w.owner.User()
		c := w.mustCreate(t, me, "acme", "ann")
		if d := cmp.Diff(c, w.byID(t, c.ID), ignore); d != "" {
			t.Errorf("what was made and what is read differ: %s", d)
		}
		// Another node has not parsed the record yet.
		got, err := w.node().ByID(ctx, w.db.Reader(), w.env, c.ID)
		check(t, err)
		if d := cmp.Diff(c, got, ignore); d != "" {
			t.Error(d)
		}
		if got.Pinned.Token != "https://acme.example/t" || got.Record.Name != "ACME" || !cmp.Equal(got.Scopes, []string{"read", "write"}) {
			t.Errorf("got %+v", got)
		}
		if missing := got.Missing([]string{"write", "admin"}); !cmp.Equal(missing, []string{"admin"}) {
			t.Errorf("missing scopes: got %v", missing)
		}

		check(t, w.mark(ctx, c.ID, connection.NeedsReauth, "invalid_grant"))
		check(t, w.mark(ctx, c.ID, connection.NeedsReauth, "again")) // no change, no entry
		if got := w.byID(t, c.ID); got.State != connection.NeedsReauth || got.Reason != "invalid_grant" || got.Version != 2 {
			t.Errorf("got %+v", got)
		}
		check(t, w.mark(ctx, c.ID, connection.Connected, ""))

		// Rule 6: a reconnect takes the provider's present record; nothing else does.
		f := w.fresh(t, me, "acme", "ann")
		f.Record, f.CredentialVersion, f.Scopes = record(t, "acme", "https://new.acme.example"), 2, []string{"read"}
		again, err := w.reconnect(ctx, w.byID(t, c.ID), f)
		check(t, err)
		if again.ID != c.ID || again.Pinned.Token != "https://new.acme.example/t" || again.State != connection.Connected {
			t.Errorf("got %+v", again)
		}
		if d := cmp.Diff(again, w.byID(t, c.ID), ignore); d != "" {
			t.Error(d)
		}
		if _, err := w.reconnect(ctx, c, f); !fault.Is(err, "version_conflict") {
			t.Errorf("reconnect over an old version: got %v", err)
		}

		err = w.tx(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
			for version, want := range map[int64]bool{2: false, 3: true} {
				ok, err := w.SetCredential(ctx, tx, audit.Actor{Kind: "system", ID: "test"}, w.env, c.ID, version, []string{"read", "more"})
				if err != nil || ok != want {
					t.Errorf("credential %d: got %v, %v", version, ok, err)
				}
			}
			return nil
		})
		check(t, err)
		if got := w.byID(t, c.ID); got.CredentialVersion != 3 || !cmp.Equal(got.Scopes, []string{"read", "more"}) {
			t.Errorf("got %+v", got)
		}

		end, err := w.Disconnect(ctx, account.ByPerson(w.owner.Person), c.ID)
		check(t, err)
		if end.State != connection.Disconnected || end.EndedAt.IsZero() || !cmp.Equal(w.ended, []id.Connection{c.ID}) {
			t.Errorf("got %+v, hook got %v", end, w.ended)
		}
		if d := cmp.Diff(end, w.byID(t, c.ID), ignore); d != "" {
			t.Error(d)
		}
		if _, err := w.Disconnect(ctx, account.ByPerson(w.owner.Person), c.ID); err != nil || len(w.ended) != 1 {
			t.Errorf("twice: %v, hook got %v", err, w.ended)
		}
		// Ended is for good.
		check(t, w.mark(ctx, c.ID, connection.Connected, ""))
		if got := w.byID(t, c.ID); got.State != connection.Disconnected {
			t.Errorf("revived: %+v", got)
		}
		if _, err := w.reconnect(ctx, w.byID(t, c.ID), f); !fault.Is(err, "disconnected") {
			t.Errorf("reconnect after the end: got %v", err)
		}
		want := []string{"connection.connected", "connection.needs_reauthorization", "connection.recovered", "connection.reconnected", "connection.scopes_changed", "connection.scopes_changed", "connection.disconnected"}
		if d := cmp.Diff(want, w.actions(t, c.ID)); d != "" {
			t.Error(d)
		}
		told := []string{connection.ChangeConnected, connection.ChangeNeedsReauth, connection.ChangeRecovered, connection.ChangeReauthorized, connection.ChangeScopes, connection.ChangeScopes, connection.ChangeRevoked}
		if d := cmp.Diff(told, w.changes); d != "" {
			t.Errorf("told others: %s", d)
		}
		// The account can be connected anew, as another connection.
		if fresh := w.mustCreate(t, me, "acme", "ann"); fresh.ID == c.ID {
			t.Error("the id was used again")
		}
	})
}

// O15: one live connection an account, and never another account under its id.
func TestAccountsAreNotConfused(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		me := w.owner.User()
		ann := w.mustCreate(t, me, "acme", "ann")
		if _, err := w.create(ctx, w.fresh(t, me, "acme", "ann")); !fault.Is(err, "already_connected") {
			t.Errorf("twice: got %v", err)
		}
		bob := w.mustCreate(t, me, "acme", "bob")
		shared := w.mustCreate(t, "", "acme", "ann") // the organization's own
		w.mustCreate(t, me, "other", "ann")
		w.mustCreate(t, me, "plain", "")
		w.mustCreate(t, me, "plain", "") // no identity call: nothing to tell them apart by

		for name, change := range map[string]func(*connection.Fresh){
			"account":  func(f *connection.Fresh) { f.Account.ID = "eve" },
			"owner":    func(f *connection.Fresh) { f.Owner = id.NewUser() },
			"provider": func(f *connection.Fresh) { f.Record = record(t, "other", "https://other.example") },
			"tenant":   func(f *connection.Fresh) { f.Organization = id.NewOrganization() },
		} {
			f := w.fresh(t, me, "acme", "ann")
			change(&f)
			if _, err := w.reconnect(ctx, ann, f); !fault.Is(err, "account_differs") {
				t.Errorf("another %s: got %v", name, err)
			}
		}
		for _, row := range []struct {
			name, account string
			reconnect     id.Connection
			want          id.Connection
			code          string
		}{
			{"new account", "eve", "", "", ""},
			{"known account", "bob", "", bob.ID, ""},
			{"same account", "ann", ann.ID, ann.ID, ""},
			{"another known account", "bob", ann.ID, bob.ID, ""},
			{"another new account", "eve", ann.ID, "", ""},
			{"another owner's connection", "ann", shared.ID, "", "not_found"},
			{"no such connection", "ann", id.NewConnection(), "", "not_found"},
		} {
			c, found, err := w.Target(ctx, w.fresh(t, me, "acme", row.account), row.reconnect)
			if row.code != "" && !fault.Is(err, row.code) || row.code == "" && (err != nil || c.ID != row.want || found != (row.want != "")) {
				t.Errorf("%s: got %s, %v, %v", row.name, c.ID, found, err)
			}
		}
		if n := count(t, w, "acme"); n != 3 {
			t.Errorf("in use: got %d, want 3", n)
		}
	})
}

func count(t testing.TB, w *world, slug string) (n int) {
	t.Helper()
	check(t, w.tx(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
		var err error
		n, err = w.InUse(ctx, tx, w.env, slug)
		return err
	}))
	return n
}

// Rule 7: when sessions cannot be ended with it, the connection does not end.
func TestDisconnectIsOneTransaction(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		c := w.mustCreate(t, w.owner.User(), "acme", "ann")
		w.veto = fault.New(fault.Unavailable, "no", "Not now.")
		if _, err := w.Disconnect(t.Context(), account.ByPerson(w.owner.Person), c.ID); !fault.Is(err, "no") {
			t.Errorf("got %v", err)
		}
		if got := w.byID(t, c.ID); got.State != connection.Connected {
			t.Errorf("the connection ended all the same: %+v", got)
		}
		if d := cmp.Diff([]string{"connection.connected"}, w.actions(t, c.ID)); d != "" {
			t.Error(d)
		}
	})
}

func TestWhoSeesAndEndsWhat(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		join := func(role account.Role) *accounttest.Human {
			return accounttest.Join(t, w.account, w.env, w.org, role, string(role)+"@example.com")
		}
		admin, member, auditor, approver := join(account.RoleAdmin), join(account.RoleMember), join(account.RoleAuditor), join(account.RoleApprover)
		second, err := w.account.CreateOrganization(ctx, account.System("test"), w.env, "second", "")
		check(t, err)
		stranger := accounttest.Join(t, w.account, w.env, second.ID, account.RoleOwner, "stranger@example.com")
		other, err := w.account.CreateEnvironment(ctx, account.System("test"), "other", account.Agreement{})
		check(t, err)
		key := func(env id.Environment, org id.Organization, scopes ...string) account.Actor {
			_, token, err := w.account.IssueKey(ctx, account.NewKey{Environment: env, Organization: org, Name: "k", Scopes: scopes})
			check(t, err)
			k, err := w.account.AuthenticateKey(ctx, token)
			check(t, err)
			return account.ByKey(k)
		}
		own := w.mustCreate(t, member.User(), "acme", "ann")
		shared := w.mustCreate(t, "", "acme", "team")

		for _, row := range []struct {
			name            string
			by              account.Actor
			own, shared     string // what Get answers: "" is the connection
			listed          int    // with the organization
			endOwn, endTeam string
		}{
			{"owner of the account", account.ByPerson(member.Person), "", "", 2, "", "not_allowed"},
			{"admin", account.ByPerson(admin.Person), "", "", 2, "", ""},
			{"owner of the organization", account.ByPerson(w.owner.Person), "", "", 2, "", ""},
			{"auditor", account.ByPerson(auditor.Person), "", "", 2, "not_allowed", "not_allowed"},
			{"approver", account.ByPerson(approver.Person), "not_found", "", 1, "not_found", "not_allowed"},
			{"another organization", account.ByPerson(stranger.Person), "not_found", "not_found", -1, "not_found", "not_found"},
			{"another environment", account.System("test").In(other.ID), "not_found", "not_found", 0, "not_found", "not_found"},
			{"key of the environment", key(w.env, "", account.ScopeConnectionsRead), "", "", 2, "missing_scope", "missing_scope"},
			{"key of the organization", key(w.env, w.org, account.ScopeConnectionsRead, account.ScopeConnectionsWrite), "", "", 2, "", ""},
			{"key of another organization", key(w.env, second.ID, account.ScopeConnectionsRead), "not_found", "not_found", -1, "not_found", "not_found"},
			{"key of another environment", key(other.ID, "", account.ScopeConnectionsRead), "not_found", "not_found", 0, "not_found", "not_found"},
			{"key without the scope", key(w.env, "", account.ScopeVaultRead), "missing_scope", "missing_scope", -1, "missing_scope", "missing_scope"},
			{"nobody", account.Actor{}, "unauthenticated", "unauthenticated", -1, "unauthenticated", "unauthenticated"},
		} {
			for _, look := range []struct {
				c    connection.Connection
				get  string
				away string
			}{{own, row.own, row.endOwn}, {shared, row.shared, row.endTeam}} {
				c, err := w.Get(ctx, row.by, look.c.ID)
				if look.get == "" && (err != nil || c.ID != look.c.ID) || look.get != "" && !fault.Is(err, look.get) {
					t.Errorf("%s: get: got %s, %v, want %q", row.name, c.ID, err, look.get)
				}
				if look.get != "not_found" {
					// T1: what is not there answers like what is not theirs.
					if _, err := w.Get(ctx, row.by, id.NewConnection()); look.get != "missing_scope" && look.get != "unauthenticated" && !fault.Is(err, "not_found") {
						t.Errorf("%s: get nothing: got %v", row.name, err)
					}
				}
				w.veto = errors.New("stop here")
				if _, err := w.Disconnect(ctx, row.by, look.c.ID); look.away == "" && !errors.Is(err, w.veto) || look.away != "" && !fault.Is(err, look.away) {
					t.Errorf("%s: disconnect: got %v, want %q", row.name, err, look.away)
				}
				w.veto = nil
			}
			page, err := w.List(ctx, row.by, connection.Filter{Organization: w.org})
			if row.listed < 0 && err == nil || row.listed >= 0 && (err != nil || len(page.Connections) != row.listed) {
				t.Errorf("%s: list: got %d, %v, want %d", row.name, len(page.Connections), err, row.listed)
			}
		}
		// Without an organization a person gets their own.
		for h, want := range map[*accounttest.Human]int{member: 1, admin: 0} {
			if page, err := w.List(ctx, account.ByPerson(h.Person), connection.Filter{}); err != nil || len(page.Connections) != want {
				t.Errorf("%s: own: got %d, %v, want %d", h.Email(), len(page.Connections), err, want)
			}
		}

		for _, row := range []struct {
			name  string
			by    account.Actor
			owner id.User
			code  string
		}{
			{"own", account.ByPerson(member.Person), member.User(), ""},
			{"for another", account.ByPerson(admin.Person), member.User(), "not_found"},
			{"member for the organization", account.ByPerson(member.Person), "", "not_allowed"},
			{"admin for the organization", account.ByPerson(admin.Person), "", ""},
			{"auditor", account.ByPerson(auditor.Person), auditor.User(), "not_allowed"},
			{"stranger", account.ByPerson(stranger.Person), stranger.User(), "not_found"},
			{"application", key(w.env, "", account.ScopeConnectionsWrite), member.User(), ""},
			{"reading application", key(w.env, "", account.ScopeConnectionsRead), member.User(), "missing_scope"},
		} {
			if err := connection.MayConnect(row.by, w.org, row.owner); (err != nil) != (row.code != "") || row.code != "" && !fault.Is(err, row.code) {
				t.Errorf("%s: got %v, want %q", row.name, err, row.code)
			}
		}
	})
}

func TestListPagesAndFilters(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		me := w.owner.User()
		for _, acct := range []string{"a", "b", "c", "d", "e"} {
			w.mustCreate(t, me, "acme", acct)
		}
		team := w.mustCreate(t, "", "other", "t")
		check(t, w.mark(ctx, team.ID, connection.NeedsReauth, "x"))
		by := account.ByPerson(w.owner.Person)
		var seen []string
		f := connection.Filter{Organization: w.org, Provider: "acme", Limit: 2}
		pages := 0
		for {
			page, err := w.List(ctx, by, f)
			check(t, err)
			for _, c := range page.Connections {
				seen = append(seen, c.AccountID)
			}
			if pages++; page.Next == "" {
				break
			}
			f.After = page.Next
		}
		slices.Sort(seen)
		if strings.Join(seen, "") != "abcde" || pages != 3 {
			t.Errorf("got %v on %d pages", seen, pages)
		}
		for name, row := range map[string]struct {
			f    connection.Filter
			want int
		}{
			"state": {connection.Filter{Organization: w.org, State: connection.NeedsReauth}, 1}, "owner": {connection.Filter{Organization: w.org, Owner: me}, 5},
			"all": {connection.Filter{Organization: w.org}, 6}, "unknown provider": {connection.Filter{Organization: w.org, Provider: "x' or '1'='1"}, 0},
		} {
			if page, err := w.List(ctx, by, row.f); err != nil || len(page.Connections) != row.want {
				t.Errorf("%s: got %d, %v, want %d", name, len(page.Connections), err, row.want)
			}
		}
		if _, err := w.List(ctx, by, connection.Filter{Organization: w.org, After: "conn_'; drop table connection"}); !fault.Is(err, "cursor_invalid") { // U4
			t.Errorf("forged cursor: got %v", err)
		}
	})
}

func TestUsable(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		me, you := w.owner.User(), id.NewUser()
		mine := w.mustCreate(t, me, "acme", "ann")
		w.mustCreate(t, you, "acme", "bob")
		team := w.mustCreate(t, "", "other", "team")
		broken := w.mustCreate(t, me, "broken", "ann")
		check(t, w.mark(ctx, broken.ID, connection.NeedsReauth, "x"))
		gone := w.mustCreate(t, me, "gone", "ann")
		_, err := w.Disconnect(ctx, account.ByPerson(w.owner.Person), gone.ID)
		check(t, err)
		for _, row := range []struct {
			env       id.Environment
			org       id.Organization
			user      id.User
			providers []string
			want      []id.Connection
		}{
			{w.env, w.org, me, nil, []id.Connection{mine.ID, team.ID}},
			{w.env, w.org, me, []string{"acme", "nothing"}, []id.Connection{mine.ID}},
			{w.env, w.org, "", nil, []id.Connection{team.ID}}, // an autonomous agent
			{w.env, id.NewOrganization(), me, nil, nil},
			{id.NewEnvironment(), w.org, me, nil, nil},
		} {
			list, err := w.Usable(ctx, row.env, row.org, row.user, row.providers)
			check(t, err)
			var got []id.Connection
			for _, c := range list {
				if c.Record.Name == "" {
					t.Errorf("%s has no record", c.ID)
				}
				got = append(got, c.ID)
			}
			if d := cmp.Diff(row.want, got); d != "" {
				t.Errorf("%+v: %s", row, d)
			}
		}
	})
}

func TestUserLeaves(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		me, you := w.owner.User(), id.NewUser()
		a, b := w.mustCreate(t, me, "acme", "ann"), w.mustCreate(t, me, "other", "ann")
		stays, team := w.mustCreate(t, you, "acme", "bob"), w.mustCreate(t, "", "acme", "team")
		err := w.tx(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
			n, err := w.EndOwned(ctx, tx, audit.Actor{Kind: "system", ID: "test"}, w.env, w.org, me)
			if n != 2 {
				t.Errorf("ended %d", n)
			}
			return err
		})
		check(t, err)
		for c, want := range map[id.Connection]connection.State{a.ID: connection.Disconnected, b.ID: connection.Disconnected, stays.ID: connection.Connected, team.ID: connection.Connected} {
			if got := w.byID(t, c); got.State != want {
				t.Errorf("%s is %s, want %s", c, got.State, want)
			}
		}
		if len(w.ended) != 2 {
			t.Errorf("the hook got %v", w.ended)
		}
		err = w.tx(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
			_, err := w.EndOwned(ctx, tx, audit.Actor{}, w.env, w.org, "")
			return err
		})
		if err == nil {
			t.Error("without an owner the organization's own would end")
		}
	})
}

// A record in the database is what its digest says, or it is not used.
func TestSnapshots(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		c := w.mustCreate(t, w.owner.User(), "acme", "ann")
		if _, err := w.Snapshot(ctx, w.env, c.Record.Digest()); err != nil {
			t.Error(err)
		}
		if _, err := w.node().Snapshot(ctx, id.NewEnvironment(), c.Record.Digest()); err == nil {
			t.Error("another environment's snapshot was found")
		}
		change := func(text []byte) {
			check(t, w.tx(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
				_, err := tx.ExecContext(ctx, `update provider_snapshot set record = $1`, text)
				return err
			}))
		}
		change(record(t, "acme", "https://evil.example").Source())
		if _, err := w.node().ByID(ctx, w.db.Reader(), w.env, c.ID); !fault.Is(err, "snapshot_altered") {
			t.Errorf("an altered record: got %v", err)
		}
		change([]byte("id: acme\nsome_old_field: 1\n"))
		got, err := w.node().ByID(ctx, w.db.Reader(), w.env, c.ID)
		if err != nil || got.State != connection.NeedsReauth || got.Reason != "record_outdated" {
			t.Errorf("a record that is not taken any more: got %+v, %v", got, err)
		}
		if list, err := w.node().Usable(ctx, w.env, w.org, w.owner.User(), nil); err != nil || len(list) != 0 {
			t.Errorf("it is usable: %v, %v", list, err)
		}
		if _, err := w.node().Disconnect(ctx, account.ByPerson(w.owner.Person), c.ID); err != nil {
			t.Errorf("it cannot be ended: %v", err)
		}
	})
}

// A bug: whoever adopted the tools of an MCP server was told once more that the
// account must be connected again, by the same day as before.
func TestAdoptingTellsNothingTwice(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		text := "id: notes\nname: Notes\nauth: oauth2\noauth2: {authorize_url: https://notes.example/a, token_url: https://notes.example/t, refresh: {max_days: 3}}\nmcp: {url: https://notes.example/mcp}\n"
		server := func(text string) provider.Record {
			r, err := provider.Parse([]byte(text))
			check(t, err)
			return r
		}
		f := w.fresh(t, w.owner.User(), "notes", "")
		f.Record = server(text)
		c, err := w.create(t.Context(), f)
		check(t, err)
		tell := func() {
			check(t, w.TellExpiring(t.Context(), audit.Actor{Kind: "system", ID: "test"}, 14*24*time.Hour))
		}
		tell()
		adopted, err := w.Adopt(t.Context(), account.ByPerson(w.owner.Person).In(w.env), c.ID, server(text+"tools:\n  - {name: add, effect: write, mcp: {name: add, inputSchema: {type: object}}}\n"))
		check(t, err)
		tell()
		if got := w.byID(t, c.ID); len(got.Record.Tools()) != 1 || !got.ReauthorizeBy.Equal(c.ReauthorizeBy) || got.Version != adopted.Version || got.Pinned.Token != c.Pinned.Token {
			t.Errorf("adopted: %+v", got)
		}
		told := slices.DeleteFunc(w.actions(t, c.ID), func(action string) bool { return action != "connection.expiring" })
		if len(told) != 1 {
			t.Errorf("told %d times", len(told))
		}
	})
}

package vault_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
)

func newCaller() vault.Caller {
	return vault.Caller{Actor: audit.Actor{Kind: "api_key", ID: string(id.NewKey())}, Name: "backend", Environment: id.NewEnvironment(), Reach: vault.Everything(), Address: "192.0.2.1"}
}

func mustCreate(t *testing.T, n node, c vault.Caller, name string, items map[string]string, value string) vault.Object {
	t.Helper()
	o, err := n.Create(t.Context(), c, vault.NewObject{Name: name, Context: items, Value: vault.Value{Secret: secret.FromString(value)}})
	if err != nil {
		t.Fatalf("create %q: %v", name, err)
	}
	return o
}

// wantValue reads s and compares.
func wantValue(t *testing.T, n node, c vault.Caller, s id.Secret, want string) vault.Object {
	t.Helper()
	o, value, err := n.Get(t.Context(), c, s)
	if err != nil || !value.Equal(secret.FromString(want)) {
		t.Errorf("%s: does not read as what was stored: %v", s, err)
	}
	return o
}

// actions lists what the audit log has of c's environment, oldest first.
func actions(t *testing.T, n node, c vault.Caller) (all []string) {
	t.Helper()
	page, err := n.log.List(t.Context(), audit.Filter{Environment: c.Environment, Action: "secret.*", Limit: 200})
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(page.Records)
	for _, r := range page.Records {
		if r.Actor != c.Actor || r.Address != c.Address {
			t.Errorf("%s: actor %v at %q, want %v at %q", r.Action, r.Actor, r.Address, c.Actor, c.Address)
		}
		all = append(all, r.Action+" "+r.Decision)
	}
	return all
}

func TestSecretLife(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := newNode(t, db, newKeeper(t))
		c := newCaller()
		items := map[string]string{"organization_id": "org_1", "region": "eu"}
		made := mustCreate(t, n, c, "stripe", items, "v1")
		if diff := cmp.Diff(items, made.Context); diff != "" || made.Version != 1 || made.UpdatedByName != "backend" || made.KEK == "" {
			t.Errorf("created %+v\n%s", made, diff)
		}
		if got := wantValue(t, n, c, made.ID, "v1"); !cmp.Equal(got, made) {
			t.Errorf("read differs from created: %s", cmp.Diff(made, got))
		}
		updated, err := n.Update(t.Context(), c, made.ID, vault.Value{Secret: secret.FromString("v2")}, made.VersionID)
		if err != nil || updated.Version != 2 || updated.VersionID == made.VersionID || updated.KEK != made.KEK {
			t.Fatalf("updated to %+v, %v", updated, err)
		}
		byName, value, err := n.GetByName(t.Context(), c, "stripe")
		if err != nil || !cmp.Equal(byName, updated) || !value.Equal(secret.FromString("v2")) {
			t.Errorf("by name: %v %s", err, cmp.Diff(updated, byName))
		}
		described, err := n.Describe(t.Context(), c, made.ID)
		if err != nil || !cmp.Equal(described, updated) {
			t.Errorf("described: %v %s", err, cmp.Diff(updated, described))
		}
		versions, err := n.Versions(t.Context(), c, made.ID)
		if err != nil || len(versions) != 2 || versions[0].ID != updated.VersionID || !versions[0].Current || versions[1].ID != made.VersionID ||
			versions[1].Current || versions[0].Size != 2 || versions[0].ETag == versions[1].ETag {
			t.Errorf("versions: %+v, %v", versions, err)
		}
		if _, err := n.List(t.Context(), c, vault.ListOptions{}); err != nil {
			t.Error(err)
		}
		if _, err := n.Delete(t.Context(), c, made.ID, made.VersionID); !fault.Is(err, "version_mismatch") || fault.KindOf(err) != fault.Conflict {
			t.Errorf("delete at an old version: got %v", err)
		}
		if _, err := n.Delete(t.Context(), c, made.ID, updated.VersionID); err != nil {
			t.Error(err)
		}
		if _, _, err := n.Get(t.Context(), c, made.ID); fault.KindOf(err) != fault.NotFound {
			t.Errorf("read after delete: got %v", err)
		}
		want := []string{"secret.created allow", "secret.read allow", "secret.updated allow", "secret.read allow", "secret.described allow",
			"secret.described allow", "secret.listed allow", "secret.deleted allow", "secret.read deny"}
		if diff := cmp.Diff(want, actions(t, n, c)); diff != "" {
			t.Errorf("audit (-want +got):\n%s", diff)
		}
	})
}

func TestVersionCheckUnderARace(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := newNode(t, db, newKeeper(t))
		c := newCaller()
		o := mustCreate(t, n, c, "k", nil, "v")
		var mu sync.Mutex
		var won int
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				_, err := n.Update(t.Context(), c, o.ID, vault.Value{Secret: secret.FromString(fmt.Sprint(i))}, o.VersionID)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won++
				} else if !fault.Is(err, "version_mismatch") {
					t.Errorf("got %v, want version_mismatch", err)
				}
			})
		}
		wg.Wait()
		if won != 1 {
			t.Errorf("%d updates of one version succeeded, want 1", won)
		}
		for i := range 6 { // without a check each of them lands
			wg.Go(func() {
				if _, err := n.Update(t.Context(), c, o.ID, vault.Value{Secret: secret.FromString(fmt.Sprint(i))}, ""); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		versions, err := n.Versions(t.Context(), c, o.ID)
		if err != nil || len(versions) != 8 {
			t.Errorf("got %d versions, %v; want 8", len(versions), err)
		}
		if chains := count(t, db, `select count(*) from audit_chain`); chains != 1 {
			t.Errorf("who was overtaken left the audit with %d chains, want 1", chains)
		}
	})
}

// G8: two spellings of a name are one name, or the second is refused.
func TestNamesHaveOneForm(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := newNode(t, db, newKeeper(t))
		c := newCaller()
		o := mustCreate(t, n, c, "caf\u00e9 key", nil, "v")
		for _, spelling := range []string{"cafe\u0301 key", "  caf\u00e9 key", "caf\u00e9 key\u00a0\u2003", "\u3000cafe\u0301 key "} {
			if _, err := n.Create(t.Context(), c, vault.NewObject{Name: spelling, Value: vault.Value{Secret: secret.FromString("w")}}); !fault.Is(err, "name_exists") || fault.KindOf(err) != fault.Conflict {
				t.Errorf("create %q: got %v, want name_exists", spelling, err)
			}
			if got, _, err := n.GetByName(t.Context(), c, spelling); err != nil || got.ID != o.ID {
				t.Errorf("read %q: got %v, want the one secret", spelling, err)
			}
		}
		for _, bad := range []string{"", "  ", "a\x00b", "a\nb", "a\x1bb", "a\u0085b", "a\u202eb", "a\u2028b", "a\xffb", strings.Repeat("n", 201), strings.Repeat("\u00e9", 201)} {
			if _, err := n.Create(t.Context(), c, vault.NewObject{Name: bad, Value: vault.Value{Secret: secret.FromString("w")}}); !fault.Is(err, "invalid_name") {
				t.Errorf("create %q: got %v, want invalid_name", bad, err)
			}
			if _, _, err := n.GetByName(t.Context(), c, bad); fault.KindOf(err) != fault.NotFound {
				t.Errorf("read %q: got %v, want not found", bad, err)
			}
		}
		mustCreate(t, n, c, strings.Repeat("\u00e9", 200), nil, "long")
		mustCreate(t, n, c, "CAF\u00c9 key", nil, "names are case-sensitive")
		other := newCaller()
		mustCreate(t, n, other, "caf\u00e9 key", nil, "another environment has its own names")
	})
}

func TestKeyContextLimits(t *testing.T) {
	t.Parallel()
	n := newNode(t, sqldbtest.Open(t, sqldb.SQLite), newKeeper(t))
	c := newCaller()
	many := map[string]string{}
	for i := range 11 {
		many[fmt.Sprint(i)] = ""
	}
	bad := map[string]map[string]string{
		"too many": many, "empty name": {"": "x"}, "long name": {strings.Repeat("n", 121): "x"}, "long value": {"n": strings.Repeat("v", 501)},
		"control": {"n": "a\nb"}, "control in name": {"a\x7f": "b"}, "not UTF-8": {"n": "\xff"}, "same name twice": {"\u00e9": "a", "e\u0301": "b"},
	}
	for what, items := range bad {
		if _, err := n.Create(t.Context(), c, vault.NewObject{Name: what, Context: items, Value: vault.Value{Secret: secret.FromString("v")}}); !fault.Is(err, "invalid_key_context") {
			t.Errorf("%s: got %v, want invalid_key_context", what, err)
		}
	}
	delete(many, "10")
	full := mustCreate(t, n, c, "full", many, "v")
	long := mustCreate(t, n, c, "long", map[string]string{strings.Repeat("\u00e9", 120): strings.Repeat("\u00fc", 500)}, "v")
	// One context has one key, in whichever spelling it was given.
	a := mustCreate(t, n, c, "a", map[string]string{"city": "Z\u00fcrich"}, "v")
	b := mustCreate(t, n, c, "b", map[string]string{"city": "Zu\u0308rich"}, "v")
	if a.KEK != b.KEK || a.KEK == full.KEK || a.KEK == long.KEK {
		t.Errorf("keys: %s and %s for one context, %s and %s for others", a.KEK, b.KEK, full.KEK, long.KEK)
	}
	other := newCaller()
	if o := mustCreate(t, n, other, "a", map[string]string{"city": "Z\u00fcrich"}, "v"); o.KEK == a.KEK {
		t.Error("two environments share a key")
	}
	// An item cannot pose as the environment.
	if o := mustCreate(t, n, other, "posing", map[string]string{"environment_id": string(c.Environment), "city": "Z\u00fcrich"}, "v"); o.KEK == a.KEK {
		t.Error("an item named environment_id reaches the key of another environment")
	}
	if _, err := n.Create(t.Context(), c, vault.NewObject{Name: "big", Value: vault.Value{Secret: secret.New(make([]byte, vault.MaxValue+1))}}); !fault.Is(err, "value_too_large") {
		t.Errorf("too large: got %v", err)
	}
	big := mustCreate(t, n, c, "big", nil, strings.Repeat("x", vault.MaxValue))
	wantValue(t, n, c, big.ID, strings.Repeat("x", vault.MaxValue))
	empty := mustCreate(t, n, c, "empty", nil, "")
	wantValue(t, n, c, empty.ID, "")
}

// T1: a secret of another environment or organization answers every operation
// as one that never was.
func TestForeignSecretsLookAbsent(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := newNode(t, db, newKeeper(t))
		whole := newCaller()
		mine, theirs := id.NewOrganization(), id.NewOrganization()
		limited := whole
		limited.Organization = mine
		own := mustCreate(t, n, limited, "own", map[string]string{"organization_id": string(mine)}, "own")
		foreign := mustCreate(t, n, whole, "foreign", map[string]string{"organization_id": string(theirs)}, "foreign")
		shared := mustCreate(t, n, whole, "shared", nil, "shared")
		elsewhere := newCaller()
		elsewhere.Organization = ""
		wantValue(t, n, limited, own.ID, "own")
		wantValue(t, n, whole, own.ID, "own")
		if _, err := n.Create(t.Context(), limited, vault.NewObject{Name: "x", Context: map[string]string{"organization_id": string(theirs)}, Value: vault.Value{Secret: secret.FromString("v")}}); fault.KindOf(err) != fault.Denied {
			t.Errorf("create for another organization: got %v", err)
		}
		if _, err := n.Create(t.Context(), limited, vault.NewObject{Name: "x", Value: vault.Value{Secret: secret.FromString("v")}}); fault.KindOf(err) != fault.Denied {
			t.Errorf("create for no organization: got %v", err)
		}
		type try struct {
			who vault.Caller
			s   id.Secret
			n   string
		}
		for _, x := range []try{{limited, foreign.ID, "foreign"}, {limited, shared.ID, "shared"}, {elsewhere, own.ID, "own"}, {elsewhere, foreign.ID, "foreign"}, {whole, id.NewSecret(), "unknown"}} {
			errs := map[string]error{}
			_, _, errs["get"] = n.Get(t.Context(), x.who, x.s)
			_, _, errs["get by name"] = n.GetByName(t.Context(), x.who, x.n)
			_, errs["describe"] = n.Describe(t.Context(), x.who, x.s)
			_, errs["versions"] = n.Versions(t.Context(), x.who, x.s)
			_, errs["update"] = n.Update(t.Context(), x.who, x.s, vault.Value{Secret: secret.FromString("mine now")}, "")
			_, errs["delete"] = n.Delete(t.Context(), x.who, x.s, "")
			for what, err := range errs {
				if f := fault.Of(err); f == nil || f.Kind != fault.NotFound || f.Message != "No such secret." || f.Code != "not_found" || f.Hint != "" || f.Fields != nil {
					t.Errorf("%s of %s: got %v, want what an unknown id gets", what, x.n, err)
				}
			}
		}
		wantValue(t, n, whole, foreign.ID, "foreign")
		for name, c := range map[string]vault.Caller{"own": limited, "": elsewhere, "shared foreign own": whole} {
			page, err := n.List(t.Context(), c, vault.ListOptions{})
			var got []string
			for _, o := range page.Objects {
				got = append(got, o.Name)
			}
			if err != nil || strings.Join(got, " ") != name {
				t.Errorf("list: got %q, %v, want %q", got, err, name)
			}
		}
	})
}

// L2: without a record there is no value and no change.
func TestNoRecordNoSecret(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := newNode(t, db, newKeeper(t))
		c := newCaller()
		o := mustCreate(t, n, c, "k", nil, "v1")
		exec(t, db, `alter table audit_entry rename to audit_away`)
		var value secret.Value
		errs := map[string]error{}
		_, value, errs["get"] = n.Get(t.Context(), c, o.ID)
		if !value.IsZero() {
			t.Error("get: a value left without a record")
		}
		_, value, errs["get by name"] = n.GetByName(t.Context(), c, "k")
		if !value.IsZero() {
			t.Error("get by name: a value left without a record")
		}
		described, err := n.Describe(t.Context(), c, o.ID)
		if errs["describe"] = err; described.ID != "" {
			t.Error("describe: metadata left without a record")
		}
		page, err := n.List(t.Context(), c, vault.ListOptions{})
		if errs["list"] = err; page.Objects != nil {
			t.Error("list: names left without a record")
		}
		_, errs["versions"] = n.Versions(t.Context(), c, o.ID)
		_, errs["get of an unknown one"] = n.Describe(t.Context(), c, id.NewSecret())
		for what, err := range errs {
			if !fault.Is(err, "audit_unavailable") || fault.KindOf(err) != fault.Unavailable {
				t.Errorf("%s: got %v, want audit_unavailable", what, err)
			}
		}
		if _, err := n.Create(t.Context(), c, vault.NewObject{Name: "new", Value: vault.Value{Secret: secret.FromString("v")}}); err == nil {
			t.Error("create: succeeded without a record")
		}
		if _, err := n.Update(t.Context(), c, o.ID, vault.Value{Secret: secret.FromString("v2")}, ""); err == nil {
			t.Error("update: succeeded without a record")
		}
		if _, err := n.Delete(t.Context(), c, o.ID, ""); err == nil {
			t.Error("delete: succeeded without a record")
		}
		exec(t, db, `alter table audit_away rename to audit_entry`)
		if got := wantValue(t, n, c, o.ID, "v1"); got.VersionID != o.VersionID {
			t.Error("the refused update left a version")
		}
		if got := count(t, db, `select count(*) from secret_object`); got != 1 {
			t.Errorf("%d secrets, want the 1 from before", got)
		}
	})
}

// K1: an intruder in the database cannot make one secret read as another, nor
// show it to another organization.
func TestRowsOfSecretsCannotBeExchanged(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := newNode(t, db, newKeeper(t))
		whole := newCaller()
		orgA, orgB := id.NewOrganization(), id.NewOrganization()
		a := mustCreate(t, n, whole, "a", map[string]string{"organization_id": string(orgA)}, "value a1")
		if _, err := n.Update(t.Context(), whole, a.ID, vault.Value{Secret: secret.FromString("value a2")}, ""); err != nil {
			t.Fatal(err)
		}
		b := mustCreate(t, n, whole, "b", map[string]string{"organization_id": string(orgB)}, "value b1")
		a2 := mustCreate(t, n, whole, "a again", map[string]string{"organization_id": string(orgA)}, "value of another in the same context")
		changes := map[string][]string{
			"names":            {`update secret_object set name = 'x' where name = 'a'`, `update secret_object set name = 'a' where name = 'a again'`, `update secret_object set name = 'a again' where name = 'x'`},
			"envelope":         {`update secret_version set envelope = (select envelope from secret_version where object_id = '` + string(a2.ID) + `') where object_id = '` + string(a.ID) + `' and version = 2`},
			"older envelope":   {`update secret_version set envelope = (select envelope from secret_version where object_id = '` + string(a.ID) + `' and version = 1) where object_id = '` + string(a.ID) + `' and version = 2`},
			"foreign envelope": {`update secret_version set envelope = (select envelope from secret_version where object_id = '` + string(b.ID) + `') where object_id = '` + string(a.ID) + `'`},
			"organization":     {`update secret_object set organization_id = '` + string(orgB) + `' where id = '` + string(a.ID) + `'`},
			"context": {`update secret_object set organization_id = '` + string(orgB) + `', key_context = (select key_context from secret_object where id = '` + string(b.ID) + `'),
				kek_id = (select kek_id from secret_object where id = '` + string(b.ID) + `') where id = '` + string(a.ID) + `'`},
			"environment": {`update secret_object set environment_id = 'env_other' where id = '` + string(a.ID) + `'`},
		}
		callers := []vault.Caller{whole, whole, whole, whole}
		callers[1].Organization, callers[2].Organization, callers[3].Environment = orgA, orgB, "env_other"
		for what, statements := range changes {
			save := []any{`create table save_object as select * from secret_object`, `create table save_version as select * from secret_version`}
			exec(t, db, save...)
			for _, s := range statements {
				exec(t, db, s)
			}
			v := n.restarted()
			for _, c := range callers {
				for name, s := range map[string]id.Secret{"a": a.ID, "b": b.ID, "a again": a2.ID} {
					_, byID, _ := v.Get(t.Context(), c, s)
					_, byName, _ := v.GetByName(t.Context(), c, name)
					want := map[string]string{"a": "value a2", "b": "value b1", "a again": "value of another in the same context"}[name]
					for how, got := range map[string]secret.Value{"id": byID, "name": byName} {
						if !got.IsZero() && !got.Equal(secret.FromString(want)) {
							t.Errorf("%s exchanged: %s reads as another secret, by %s", what, name, how)
						}
						if !got.IsZero() && (c.Organization == orgB && name != "b" || c.Organization == orgA && name == "b" || c.Environment != whole.Environment) {
							t.Errorf("%s exchanged: %s is shown to somebody else, by %s", what, name, how)
						}
					}
				}
			}
			exec(t, db, `delete from secret_version`, `delete from secret_object`,
				`insert into secret_object select * from save_object`, `insert into secret_version select * from save_version`,
				`drop table save_object`, `drop table save_version`)
		}
		wantValue(t, n, whole, a.ID, "value a2")
	})
}

func TestListPages(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := newNode(t, db, newKeeper(t))
		c := newCaller()
		var want []string
		var middle time.Time
		for i := range 23 {
			o := mustCreate(t, n, c, fmt.Sprintf("Key_%02d%%", i), nil, "v")
			want = append([]string{o.Name}, want...)
			if i == 11 {
				middle = o.UpdatedAt
			}
		}
		names := func(p vault.ListPage) (out []string) {
			for _, o := range p.Objects {
				out = append(out, o.Name)
			}
			return out
		}
		list := func(o vault.ListOptions) vault.ListPage {
			t.Helper()
			p, err := n.List(t.Context(), c, o)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		if p := list(vault.ListOptions{}); len(p.Objects) != 10 || p.Before != "" || p.After == "" {
			t.Errorf("first page: %d secrets, before %q, after %q", len(p.Objects), p.Before, p.After)
		}
		for _, order := range []string{"", "asc"} {
			var forth, back []string
			o := vault.ListOptions{Limit: 5, Order: order}
			for {
				p := list(o)
				forth = append(forth, names(p)...)
				if p.After == "" {
					back = names(p)
					o = vault.ListOptions{Limit: 5, Order: order, Before: p.Before}
					break
				}
				o.After = p.After
			}
			for {
				p := list(o)
				back = append(names(p), back...)
				if p.Before == "" {
					break
				}
				o.Before = p.Before
			}
			sorted := slices.Clone(want)
			if order == "asc" {
				slices.Reverse(sorted)
			}
			if diff := cmp.Diff(sorted, forth); diff != "" {
				t.Errorf("order %q forth: %s", order, diff)
			}
			if diff := cmp.Diff(sorted, back); diff != "" {
				t.Errorf("order %q back: %s", order, diff)
			}
		}
		if got := names(list(vault.ListOptions{Search: "kEy_07"})); len(got) != 1 || got[0] != "Key_07%" {
			t.Errorf("search: got %q", got)
		}
		for _, none := range []string{"Key?07", "Key-0_", "%%", `\`, "'; drop table kek; --"} {
			if got := names(list(vault.ListOptions{Search: none})); len(got) != 0 {
				t.Errorf("search %q: got %q, want nothing", none, got)
			}
		}
		if got := names(list(vault.ListOptions{Limit: 100, UpdatedAfter: middle})); len(got) != 11 {
			t.Errorf("updated after: got %d, want 11", len(got))
		}
		bad := map[string]vault.ListOptions{"limit": {Limit: 101}, "negative limit": {Limit: -1}, "order": {Order: "random"}, "cursor": {After: "x"},
			"cursor of another list": {After: "MSBldnRfMQ"}, "both cursors": {After: "MQ", Before: "MQ"}, "search": {Search: strings.Repeat("x", 201)}}
		for what, o := range bad {
			if _, err := n.List(t.Context(), c, o); fault.KindOf(err) != fault.Invalid {
				t.Errorf("%s: got %v, want invalid", what, err)
			}
		}
	})
}

// A create request that is sent again under its idempotency key is done once.
func TestCreateOnce(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		clock := time.Now()
		n := newNode(t, db, newKeeper(t))
		n.Vault = vault.New(vault.Config{DB: db, Keeper: n.keeper, Audit: n.log, Now: func() time.Time { return clock }})
		c := newCaller()
		once := vault.Once{Key: "retry-1", Digest: [32]byte{1}}
		var wg sync.WaitGroup
		objects := make([]vault.Object, 8)
		for i := range objects {
			wg.Go(func() {
				var err error
				if objects[i], _, err = n.CreateOnce(t.Context(), c, once, vault.NewObject{Name: "k", Context: map[string]string{"a": "b"}, Value: vault.Value{Secret: secret.FromString("v")}}); err != nil {
					t.Errorf("request %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		for _, o := range objects {
			if diff := cmp.Diff(objects[0], o); diff != "" {
				t.Errorf("answers differ: %s", diff)
			}
		}
		if _, err := n.Update(t.Context(), c, objects[0].ID, vault.Value{Secret: secret.FromString("v2")}, ""); err != nil {
			t.Fatal(err)
		}
		if o, replayed, err := n.CreateOnce(t.Context(), c, once, vault.NewObject{Name: "k", Context: map[string]string{"a": "b"}, Value: vault.Value{Secret: secret.FromString("v")}}); err != nil || !replayed || !cmp.Equal(o, objects[0]) {
			t.Errorf("after a change: replayed %v, %v: %s", replayed, err, cmp.Diff(objects[0], o))
		}
		if _, _, err := n.CreateOnce(t.Context(), c, vault.Once{Key: "retry-1", Digest: [32]byte{2}}, vault.NewObject{Name: "k2", Value: vault.Value{Secret: secret.FromString("v")}}); !fault.Is(err, "idempotency_mismatch") {
			t.Errorf("another request under the same key: got %v", err)
		}
		other := c
		other.Actor.ID = string(id.NewKey())
		if _, _, err := n.CreateOnce(t.Context(), other, once, vault.NewObject{Name: "k", Value: vault.Value{Secret: secret.FromString("v")}}); !fault.Is(err, "name_exists") {
			t.Errorf("the same key of another caller: got %v, want name_exists", err)
		}
		clock = clock.Add(24 * time.Hour)
		if _, _, err := n.CreateOnce(t.Context(), c, once, vault.NewObject{Name: "k3", Value: vault.Value{Secret: secret.FromString("v")}}); err != nil {
			t.Errorf("a day later: %v", err)
		}
		if got := count(t, db, `select count(*) from secret_request`); got != 1 {
			t.Errorf("%d requests are remembered a day later, want 1", got)
		}
	})
}

// G8: the canonical form of a name or key context is its own canonical form.
func FuzzCanonicalName(f *testing.F) {
	for _, s := range []string{"caf\u00e9", "cafe\u0301", " \u00a0x\u3000", "\u0301a", "a\u200db", "\U0001F468\u200d\U0001F469", "\xff", "\u1e9b\u0323"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		once, err := vault.CanonicalName(s)
		if err != nil {
			return
		}
		if twice, err := vault.CanonicalName(once); err != nil || twice != once {
			t.Errorf("%q: canonical %q, then %q (%v)", s, once, twice, err)
		}
		items, err := vault.CanonicalContext(map[string]string{once: s})
		if err != nil {
			return
		}
		if again, err := vault.CanonicalContext(items); err != nil || !cmp.Equal(items, again) {
			t.Errorf("%q: context %q, then %q (%v)", s, items, again, err)
		}
	})
}

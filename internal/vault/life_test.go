package vault_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
)

// at is a node whose time the test sets.
func at(t *testing.T, db *sqldb.DB, clock *time.Time) node {
	n := newNode(t, db, newKeeper(t))
	n.Vault = vault.New(vault.Config{DB: db, Keeper: n.keeper, Audit: n.log, Now: func() time.Time { return *clock }})
	return n
}

func text(s string) vault.Value { return vault.Value{Secret: secret.FromString(s)} }

// Issue 4: every old version is readable and can be restored; restoring shows
// nobody the value.
func TestOldVersions(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := newNode(t, db, newKeeper(t))
		c := newCaller()
		o := mustCreate(t, n, c, "k", map[string]string{"a": "b"}, "one")
		ids := []string{o.VersionID}
		for _, v := range []vault.Value{text("two"), {Secret: secret.New([]byte{0xff, 0, 1}), Content: vault.Binary}, text("four")} {
			o, err := n.Update(t.Context(), c, o.ID, v, "")
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, o.VersionID)
		}
		for i, want := range []string{"one", "two", "\xff\x00\x01", "four"} {
			got, value, err := n.GetVersion(t.Context(), c, o.ID, ids[i])
			if err != nil || !value.Equal(secret.FromString(want)) || got.VersionID != ids[i] || got.Version != int64(i+1) {
				t.Errorf("version %d: %+v, %v", i+1, got, err)
			}
		}
		if _, _, err := n.GetVersion(t.Context(), c, o.ID, "nosuchversion"); !fault.Is(err, "version_not_found") {
			t.Errorf("unknown version: got %v", err)
		}
		other := mustCreate(t, n, c, "other", nil, "x")
		if _, _, err := n.GetVersion(t.Context(), c, o.ID, other.VersionID); !fault.Is(err, "version_not_found") {
			t.Errorf("a version of another secret: got %v", err)
		}
		if _, err := n.Restore(t.Context(), c, o.ID, ids[2], ids[0]); !fault.Is(err, "version_mismatch") {
			t.Errorf("restore at an old version: got %v", err)
		}
		back, err := n.Restore(t.Context(), c, o.ID, ids[2], ids[3])
		if err != nil || back.Version != 5 || back.Content != vault.Binary || back.Size != 3 {
			t.Fatalf("restored: %+v, %v", back, err)
		}
		wantValue(t, n, c, o.ID, "\xff\x00\x01")
		versions, err := n.Versions(t.Context(), c, o.ID)
		if err != nil || len(versions) != 5 || versions[0].CreatedBy != c.Actor || versions[0].CreatedByName != c.Name || versions[2].Content != vault.Binary {
			t.Errorf("versions: %+v, %v", versions, err)
		}
		writer := c
		writer.Reach = vault.Within([]vault.Rule{{Verbs: []vault.Verb{vault.Write}}})
		if _, err := n.Restore(t.Context(), writer, o.ID, ids[0], ""); err != nil {
			t.Errorf("restore without the right to read: %v", err)
		}
	})
}

// K1: calling the bytes of a file text, or the other way round, opens nothing.
func TestContentIsSealed(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := newNode(t, db, newKeeper(t))
		c := newCaller()
		a := mustCreate(t, n, c, "a", nil, "text")
		b, err := n.Create(t.Context(), c, vault.NewObject{Name: "b", Value: vault.Value{Secret: secret.FromString("file"), Content: vault.Binary}})
		if err != nil {
			t.Fatal(err)
		}
		exec(t, db, `update secret_version set content = case content when 'text' then 'binary' else 'text' end`)
		for _, o := range []vault.Object{a, b} {
			if _, _, err := n.Get(t.Context(), c, o.ID); !fault.Is(err, "sealed_value_invalid") {
				t.Errorf("%s: got %v", o.Name, err)
			}
		}
	})
}

// A user found that a certificate with somebody else's key was taken for one.
func TestCertificateWithAnotherKey(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		clock := time.Now().UTC().Truncate(time.Second)
		n, c := at(t, db, &clock), newCaller()
		one, other := certificate(t, clock.Add(time.Hour)), certificate(t, clock.Add(time.Hour))
		const begin = "-----BEGIN CERTIFICATE-----"
		key, cert, _ := strings.Cut(one, begin)
		_, chain, _ := strings.Cut(other, begin)
		made := 0
		for text, good := range map[string]bool{
			key + begin + chain:                false,
			begin + chain + key:                false,
			begin + cert + begin + chain + key: true, // the leaf is first
			begin + chain + begin + cert + key: false,
			begin + cert:                       true,
		} {
			made++
			_, err := n.Create(t.Context(), c, vault.NewObject{Name: fmt.Sprint("cert ", made), Value: vault.Value{Secret: secret.FromString(text), Content: vault.Certificate}})
			if good != (err == nil) || !good && !fault.Is(err, "invalid_value") {
				t.Errorf("good: %v, got %v", good, err)
			}
		}
	})
}

// A user found that two spellings of one item chose two keys.
func TestContextItemsHaveOneSpelling(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		clock := time.Now()
		n, c := at(t, db, &clock), newCaller()
		_, err := n.Create(t.Context(), c, vault.NewObject{Name: "n", Context: map[string]string{"organizationId": "x"}, Value: vault.Value{Secret: secret.FromString("v")}})
		if !fault.Is(err, "invalid_key_context") || !strings.Contains(fault.Of(err).Hint, "organization_id") {
			t.Errorf("got %v", err)
		}
	})
}

// certificate is one in PEM, with its key before it.
func certificate(t *testing.T, end time.Time) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: end.Add(-time.Hour), NotAfter: end}
	doc, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})) + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: doc}))
}

// Issue 4: the end of a certificate is read from it, and what has expired is not
// handed out.
func TestExpiry(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		clock := time.Now().UTC().Truncate(time.Second)
		n := at(t, db, &clock)
		c := newCaller()
		end := clock.Add(48 * time.Hour)
		cert, err := n.Create(t.Context(), c, vault.NewObject{Name: "cert", Value: vault.Value{Secret: secret.FromString(certificate(t, end)), Content: vault.Certificate}})
		if err != nil || !cert.ExpiresAt.Equal(end) {
			t.Fatalf("certificate: ends %v, %v; want %v", cert.ExpiresAt, err, end)
		}
		short, err := n.Create(t.Context(), c, vault.NewObject{Name: "short", Value: vault.Value{Secret: secret.FromString("v"), ExpiresAt: clock.Add(time.Hour)}})
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"no pem", certificate(t, end)[:300], "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
			if _, err := n.Create(t.Context(), c, vault.NewObject{Name: "bad", Value: vault.Value{Secret: secret.FromString(bad), Content: vault.Certificate}}); !fault.Is(err, "invalid_value") {
				t.Errorf("%.20q as a certificate: got %v", bad, err)
			}
		}
		wantValue(t, n, c, short.ID, "v")
		clock = clock.Add(time.Hour)
		if _, value, err := n.Get(t.Context(), c, short.ID); !fault.Is(err, "secret_expired") || fault.KindOf(err) != fault.Expired || !value.IsZero() {
			t.Errorf("after its end: got %v", err)
		}
		if _, _, err := n.GetVersion(t.Context(), c, short.ID, short.VersionID); !fault.Is(err, "secret_expired") {
			t.Errorf("by version after its end: got %v", err)
		}
		if o, err := n.Describe(t.Context(), c, short.ID); err != nil || !o.ExpiresAt.Equal(clock) {
			t.Errorf("described: %v, %v", o.ExpiresAt, err)
		}
		if o, err := n.Update(t.Context(), c, short.ID, text("v2"), ""); err != nil || !o.ExpiresAt.IsZero() {
			t.Errorf("a new value: %+v, %v", o, err)
		}
		wantValue(t, n, c, short.ID, "v2")
	})
}

// Issue 4: description, tags, metadata and dates change without a new version, and
// a list finds by them.
func TestFactsAndSearch(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := newNode(t, db, newKeeper(t))
		c := newCaller()
		for name, items := range map[string]map[string]string{"prod/db": {"organization_id": "org_1", "region": "eu"}, "prod/api": {"organization_id": "org_1"},
			"test/db": {"region": "eu"}, "prod%": nil, "a": {"1:ab": "c"}, "b": {"a": "b"}} {
			mustCreate(t, n, c, name, items, "v")
		}
		o, err := n.DescribeByName(t.Context(), c, " prod/db")
		if err != nil {
			t.Fatal(err)
		}
		edit := func(e vault.Edit) vault.Object {
			t.Helper()
			if o, err = n.Change(t.Context(), c, o.ID, e); err != nil {
				t.Fatal(err)
			}
			return o
		}
		day := time.Date(2030, 1, 2, 0, 0, 0, 0, time.UTC)
		edit(vault.Edit{Description: ptr("The Main\ndatabase"), Tags: &[]string{"Team A", "pci", "TEAM a "}, Metadata: &map[string]string{"owner": "ops"}, RotateBy: &day})
		edit(vault.Edit{ExpiresAt: &day})
		if !slices.Equal(o.Tags, []string{"pci", "team a"}) || o.Description != "The Main\ndatabase" || o.Metadata["owner"] != "ops" || o.Version != 1 ||
			!o.RotateBy.Equal(day) || !o.ExpiresAt.Equal(day) {
			t.Errorf("edited: %+v", o)
		}
		if got, err := n.Describe(t.Context(), c, o.ID); err != nil || !cmp.Equal(got, o) {
			t.Errorf("described: %v %s", err, cmp.Diff(o, got))
		}
		find := func(l vault.ListOptions) string {
			t.Helper()
			p, err := n.List(t.Context(), c, l)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, o := range p.Objects {
				names = append(names, o.Name)
			}
			slices.Sort(names)
			return strings.Join(names, " ")
		}
		for want, l := range map[string]vault.ListOptions{
			"prod% prod/api prod/db": {Prefix: "prod"}, "prod%": {Prefix: "prod%"}, "prod/api prod/db": {Prefix: "prod/", Context: map[string]string{"organization_id": "org_1"}},
			"prod/db test/db": {Context: map[string]string{"region": "eu"}}, "prod/db": {Context: map[string]string{"region": "eu", "organization_id": "org_1"}},
			"": {Context: map[string]string{"region": "EU"}}, "a": {Context: map[string]string{"1:ab": "c"}}, "b": {Context: map[string]string{"a": "b"}},
		} {
			if got := find(l); got != want {
				t.Errorf("%+v: got %q, want %q", l, got, want)
			}
		}
		for _, l := range []vault.ListOptions{{Tags: []string{"PCI"}}, {Tags: []string{"pci", "Team A"}}, {Search: "main"}, {Search: "DATABASE"}} {
			if got := find(l); got != "prod/db" {
				t.Errorf("%+v: got %q", l, got)
			}
		}
		edit(vault.Edit{Tags: &[]string{"pci"}})
		if find(vault.ListOptions{Tags: []string{"team a"}}) != "" || find(vault.ListOptions{Tags: []string{"pci"}}) != "prod/db" {
			t.Error("tags that were taken away are still found, or others not any more")
		}
		for what, e := range map[string]vault.Edit{"tag": {Tags: &[]string{""}}, "invisible tag": {Tags: &[]string{"a\u200bb"}}, "description": {Description: ptr("a\x00")},
			"metadata": {Metadata: &map[string]string{"": "x"}}, "year": {ExpiresAt: ptr(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC))}} {
			if _, err := n.Change(t.Context(), c, o.ID, e); fault.KindOf(err) != fault.Invalid {
				t.Errorf("%s: got %v", what, err)
			}
		}
	})
}

func ptr[T any](v T) *T { return &v }

// Issue 4: what is deleted can be taken back for 30 days, its name is free at
// once, and then it is purged (threats.md K5).
func TestDeletionHasAWindow(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		clock := time.Now()
		n := at(t, db, &clock)
		c := newCaller()
		o := mustCreate(t, n, c, "k", map[string]string{"a": "b"}, "v1")
		gone, err := n.Delete(t.Context(), c, o.ID, o.VersionID)
		if err != nil || gone.Name != "k" || gone.PurgeAt.Sub(gone.DeletedAt) != vault.RestoreWindow {
			t.Fatalf("deleted: %+v, %v", gone, err)
		}
		for what, err := range map[string]error{"get": third(n.Get(t.Context(), c, o.ID)), "name": third(n.GetByName(t.Context(), c, "k")), "describe": second(n.Describe(t.Context(), c, o.ID)),
			"version": third(n.GetVersion(t.Context(), c, o.ID, o.VersionID)), "versions": second(n.Versions(t.Context(), c, o.ID)), "update": second(n.Update(t.Context(), c, o.ID, text("x"), "")),
			"change": second(n.Change(t.Context(), c, o.ID, vault.Edit{WriteOnly: true})), "restore": second(n.Restore(t.Context(), c, o.ID, o.VersionID, "")), "again": second(n.Delete(t.Context(), c, o.ID, ""))} {
			if fault.KindOf(err) != fault.NotFound {
				t.Errorf("%s of a deleted secret: got %v", what, err)
			}
		}
		page, err := n.List(t.Context(), c, vault.ListOptions{Deleted: true, Prefix: "k"})
		if err != nil || len(page.Objects) != 1 || !cmp.Equal(page.Objects[0], gone) {
			t.Errorf("deleted ones: %+v, %v", page, err)
		}
		stranger := newCaller()
		if _, err := n.Undelete(t.Context(), stranger, o.ID); fault.KindOf(err) != fault.NotFound {
			t.Errorf("undelete by a stranger: got %v", err)
		}
		again := mustCreate(t, n, c, "k", nil, "another")
		if _, err := n.Undelete(t.Context(), c, o.ID); !fault.Is(err, "name_exists") {
			t.Errorf("undelete while the name is taken: got %v", err)
		}
		if _, err := n.Delete(t.Context(), c, again.ID, ""); err != nil {
			t.Fatal(err)
		}
		clock = clock.Add(vault.RestoreWindow - time.Minute)
		if err := n.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Undelete(t.Context(), c, o.ID); err != nil {
			t.Fatal(err)
		}
		wantValue(t, n, c, o.ID, "v1")
		if _, err := n.Delete(t.Context(), c, o.ID, ""); err != nil {
			t.Fatal(err)
		}
		clock = clock.Add(vault.RestoreWindow)
		if err := n.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Undelete(t.Context(), c, o.ID); fault.KindOf(err) != fault.NotFound {
			t.Errorf("undelete after the purge: got %v", err)
		}
		if got := count(t, db, `select (select count(*) from secret_object) + (select count(*) from secret_version) + (select count(*) from secret_label)`); got != 0 {
			t.Errorf("%d rows are left after the purge", got)
		}
		p, err := n.log.List(t.Context(), audit.Filter{Environment: c.Environment, Action: "secret.purged"})
		if err != nil || len(p.Records) != 2 || p.Records[0].Detail["name"] != "k" {
			t.Errorf("purges on record: %+v, %v", p.Records, err)
		}
	})
}

func second[A any](_ A, err error) error        { return err }
func third[A, B any](_ A, _ B, err error) error { return err }

// Issue 4: a reminder a week before a date and one at it, each once; a new value
// ends them.
func TestReminders(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		clock := time.Now()
		n := at(t, db, &clock)
		c := newCaller()
		day := 24 * time.Hour
		make := func(name string, expires, rotate time.Duration) {
			v := text("v")
			if expires != 0 {
				v.ExpiresAt = clock.Add(expires)
			}
			if rotate != 0 {
				v.RotateBy = clock.Add(rotate)
			}
			if _, err := n.Create(t.Context(), c, vault.NewObject{Name: name, Value: v}); err != nil {
				t.Fatal(err)
			}
		}
		make("far", 30*day, 0)
		make("near", 6*day, 0)
		make("turn", 0, 8*day)
		make("fresh", 0, 8*day)
		told := map[string]int{}
		sweep := func() {
			t.Helper()
			for range 2 {
				if err := n.Sweep(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			clear(told)
			p, err := n.log.List(t.Context(), audit.Filter{Environment: c.Environment, Action: "secret.*", Limit: 200})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range p.Records {
				if r.Actor.Kind == "system" {
					told[r.Action+" "+r.Detail["name"]]++
				}
			}
		}
		sweep()
		want := map[string]int{"secret.expires_soon near": 1}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("at first: %s", diff)
		}
		fresh, err := n.DescribeByName(t.Context(), c, "fresh")
		if err != nil {
			t.Fatal(err)
		}
		clock = clock.Add(7 * day)
		sweep()
		if _, err := n.Update(t.Context(), c, fresh.ID, text("v2"), ""); err != nil {
			t.Fatal(err)
		}
		clock = clock.Add(day)
		sweep()
		want = map[string]int{"secret.expires_soon near": 1, "secret.expired near": 1, "secret.rotation_soon turn": 1, "secret.rotation_soon fresh": 1, "secret.rotation_due turn": 1}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("after eight days: %s", diff)
		}
	})
}

// Issue 4: a write-only secret is readable by nobody, at no version, for good.
func TestWriteOnly(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := newNode(t, db, newKeeper(t))
		c := newCaller()
		o, err := n.Create(t.Context(), c, vault.NewObject{Name: "k", Value: text("v"), WriteOnly: true})
		if err != nil || !o.WriteOnly {
			t.Fatalf("%+v, %v", o, err)
		}
		if _, err := n.Update(t.Context(), c, o.ID, text("v2"), ""); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Change(t.Context(), c, o.ID, vault.Edit{WriteOnly: false, Description: ptr("x")}); err != nil {
			t.Fatal(err)
		}
		weighed := func(context.Context, *sqldb.Tx, vault.Object) (json.RawMessage, error) { return nil, nil }
		for what, err := range map[string]error{"get": third(n.Get(t.Context(), c, o.ID)), "name": third(n.GetByName(t.Context(), c, "k")),
			"version": third(n.GetVersion(t.Context(), c, o.ID, o.VersionID)), "reveal": third(n.Reveal(t.Context(), c, o.ID, "", weighed))} {
			if !fault.Is(err, "write_only") || fault.KindOf(err) != fault.Denied {
				t.Errorf("%s: got %v", what, err)
			}
		}
	})
}

// T5: a person gets a value only as weighed, and with the record; a caller that
// is a person has no other way.
func TestRevealIsWeighed(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := newNode(t, db, newKeeper(t))
		c := newCaller()
		o := mustCreate(t, n, c, "k", nil, "v")
		c.Actor = audit.Actor{Kind: "user", ID: "user_1"}
		for what, err := range map[string]error{"get": third(n.Get(t.Context(), c, o.ID)), "name": third(n.GetByName(t.Context(), c, "k")), "version": third(n.GetVersion(t.Context(), c, o.ID, o.VersionID))} {
			if !fault.Is(err, "proof_required") {
				t.Errorf("%s by a person: got %v", what, err)
			}
		}
		no := fault.New(fault.Denied, "no", "No.")
		if _, v, err := n.Reveal(t.Context(), c, o.ID, "", func(context.Context, *sqldb.Tx, vault.Object) (json.RawMessage, error) { return nil, no }); !fault.Is(err, "no") || !v.IsZero() {
			t.Errorf("refused: got %v", err)
		}
		_, v, err := n.Reveal(t.Context(), c, o.ID, "", func(_ context.Context, _ *sqldb.Tx, w vault.Object) (json.RawMessage, error) {
			if w.VersionID != o.VersionID {
				t.Errorf("weighed %s", w.VersionID)
			}
			return json.RawMessage(`{"method":"passkey"}`), nil
		})
		if err != nil || !v.Equal(secret.FromString("v")) {
			t.Errorf("agreed: got %v", err)
		}
		p, err := n.log.List(t.Context(), audit.Filter{Environment: c.Environment, Action: "secret.read", Decision: "allow"})
		if err != nil || len(p.Records) != 1 || string(p.Records[0].Evidence) != `{"method":"passkey"}` || string(p.Records[0].User) != "user_1" {
			t.Errorf("on record: %+v, %v", p.Records, err)
		}
	})
}

// Changes that come at once share transactions; what is wrong with one is no harm to
// the others, and each is on record once.
func TestChangesShareTransactions(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := newNode(t, db, newKeeper(t))
		c := newCaller()
		const many = 40
		objects := make([]vault.Object, many)
		for i := range objects {
			objects[i] = mustCreate(t, n, c, fmt.Sprint("k", i), nil, "v1")
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		var wg sync.WaitGroup
		before := db.Stats().Commits
		for round := range 5 {
			for i, o := range objects {
				wg.Go(func() {
					ctx := t.Context()
					if i == 7 {
						ctx = gone
					}
					_, err := n.Update(ctx, c, o.ID, text(fmt.Sprint("v", round+2)), "")
					if (err != nil) != (i == 7) {
						t.Errorf("update of %d: %v", i, err)
					}
				})
			}
			wg.Wait()
		}
		if commits := db.Stats().Commits - before; commits >= 5*many {
			t.Errorf("%d changes took %d commits", 5*many, commits)
		}
		for i, o := range objects {
			want, versions := "v6", 6
			if i == 7 {
				want, versions = "v1", 1
			}
			if got := wantValue(t, n, c, o.ID, want); got.Version != int64(versions) {
				t.Errorf("%d is at version %d, want %d", i, got.Version, versions)
			}
		}
		if got := count(t, db, `select count(*) from audit_entry where action = 'secret.updated'`); got != 5*(many-1) {
			t.Errorf("%d changes on record, want %d", got, 5*(many-1))
		}
	})
}

// A change that fails, or whose caller has left, takes nobody else's with it.
func TestSharedTransactionsFailAlone(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := newNode(t, db, newKeeper(t))
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		broken := errors.New("broken")
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() {
				ctx := t.Context()
				if i%20 == 9 {
					ctx = gone
				}
				err := n.Together(ctx, fmt.Sprint(i), func(ctx context.Context, tx *sqldb.Tx) error {
					if _, err := tx.ExecContext(ctx, `insert into lease (name, owner, until) values ($1, $2, 0)`, fmt.Sprint("part ", i), "test"); err != nil {
						return err
					}
					if i%10 == 3 {
						return broken
					}
					return nil
				})
				if want := i%10 == 3; errors.Is(err, broken) != want || (err != nil) != (want || i%20 == 9) {
					t.Errorf("part %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		if got := count(t, db, `select count(*) from lease where name like 'part %'`); got != 60-6-3 {
			t.Errorf("%d changes stand, want %d", got, 60-6-3)
		}
	})
}

// F5: of nodes that sweep at once, each purge and each reminder is on record once.
func TestSweepsOfSeveralNodes(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		clock := time.Now()
		n := at(t, db, &clock)
		c := newCaller()
		const many = 250
		for i := range many {
			v := text("v")
			v.RotateBy = clock.Add(time.Hour)
			o, err := n.Create(t.Context(), c, vault.NewObject{Name: fmt.Sprint("k", i), Value: v})
			if err != nil {
				t.Fatal(err)
			}
			if i%2 == 0 {
				if _, err := n.Delete(t.Context(), c, o.ID, ""); err != nil {
					t.Fatal(err)
				}
			}
		}
		clock = clock.Add(vault.RestoreWindow)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 3 {
					if err := n.restartedAt(&clock).Sweep(t.Context()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		for action, want := range map[string]int{"secret.purged": many / 2, "secret.rotation_due": many / 2} {
			if got := count(t, db, `select count(*) from audit_entry where action = $1`, action); got != want {
				t.Errorf("%s: %d on record, want %d", action, got, want)
			}
		}
	})
}

// restartedAt is another node on the same database, with the test's time.
func (n node) restartedAt(clock *time.Time) *vault.Vault {
	return vault.New(vault.Config{DB: n.db, Keeper: n.keeper, Audit: n.log, Now: func() time.Time { return *clock }})
}

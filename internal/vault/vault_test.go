package vault_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
)

// neighbours are places that differ from the first in one respect each.
func neighbours() []vault.Place {
	base := vault.Place{Environment: id.NewEnvironment(), Organization: id.NewOrganization(), User: id.NewUser(),
		Kind: "credential", Object: "conn_1", Version: 1, Provider: "sandbox"}
	all := []vault.Place{base}
	for _, change := range []func(*vault.Place){
		func(p *vault.Place) { p.Environment = id.NewEnvironment() },
		func(p *vault.Place) { p.Organization = id.NewOrganization() },
		func(p *vault.Place) { p.Organization = "" },
		func(p *vault.Place) { p.User = id.NewUser() },
		func(p *vault.Place) { p.User = "" },
		func(p *vault.Place) { p.Organization, p.User = "", "" },
		func(p *vault.Place) { p.Organization, p.User = id.Organization(p.User), id.User(p.Organization) },
		func(p *vault.Place) { p.Kind = "totp" },
		func(p *vault.Place) { p.Object = "conn_2" },
		func(p *vault.Place) { p.Version = 2 },
		func(p *vault.Place) { p.Provider = "" },
		func(p *vault.Place) { p.Kind, p.Object = "credentialc", "onn_1" },
	} {
		p := base
		change(&p)
		all = append(all, p)
	}
	return all
}

// K1, T4: what was sealed for one place opens there and nowhere else, also while the
// keys of all of them are held in memory: no two places that differ in one component
// share a key there.
func TestOpensInItsOwnPlaceOnly(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := newNode(t, db, newKeeper(t))
		places := neighbours()
		envelopes := make([][]byte, len(places))
		for i, p := range places {
			var err error
			if envelopes[i], err = n.Seal(t.Context(), p, secret.FromString("canary")); err != nil {
				t.Fatal(err)
			}
		}
		for _, v := range []node{n, n.restarted()} {
			for i := range envelopes {
				for j, p := range places {
					got, err := v.Open(t.Context(), p, envelopes[i])
					if i == j && (err != nil || !got.Equal(secret.FromString("canary"))) {
						t.Errorf("%+v: does not open: %v", p, err)
					}
					if i != j && (!fault.Is(err, "sealed_value_invalid") || !got.IsZero()) {
						t.Errorf("sealed for %+v, opened in %+v: got %v", places[i], p, err)
					}
				}
			}
		}
	})
}

// K1: no bit of an envelope can be changed.
func TestFlippedBitDoesNotOpen(t *testing.T) {
	t.Parallel()
	n := newNode(t, sqldbtest.Open(t, sqldb.SQLite), newKeeper(t))
	p := neighbours()[0]
	envelope, err := n.Seal(t.Context(), p, secret.FromString("canary"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(envelope) * 8 {
		bad := bytes.Clone(envelope)
		bad[i/8] ^= 1 << (i % 8)
		if got, err := n.Open(t.Context(), p, bad); err == nil || !got.IsZero() {
			t.Fatalf("bit %d of byte %d: opened", i%8, i/8)
		}
	}
	for i := range envelope {
		if _, err := n.Open(t.Context(), p, envelope[:i]); !fault.Is(err, "sealed_value_invalid") {
			t.Fatalf("cut to %d bytes: got %v", i, err)
		}
	}
}

// kekRow is a row of the table kek.
type kekRow struct {
	id, environment, hash, rootRef string
	context, wrapped, commitment   []byte
	version, created               int64
}

func keks(t *testing.T, db *sqldb.DB) (all []kekRow) {
	t.Helper()
	rows, err := db.Reader().QueryContext(t.Context(), `select k.id, k.environment_id, k.context_hash, v.root_ref, k.context, v.wrapped_seed, v.commitment, k.version, k.created_at
		from kek k join kek_version v on v.kek_id = k.id order by k.created_at, k.id, v.version`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var k kekRow
		if err := rows.Scan(&k.id, &k.environment, &k.hash, &k.rootRef, &k.context, &k.wrapped, &k.commitment, &k.version, &k.created); err != nil {
			t.Fatal(err)
		}
		all = append(all, k)
	}
	return all
}

func putKEKs(t *testing.T, db *sqldb.DB, rows ...kekRow) {
	t.Helper()
	statements := []any{`delete from kek_version`, `delete from kek`}
	for _, k := range rows {
		statements = append(statements,
			[]any{`insert into kek (id, environment_id, context_hash, context, version, created_at) values ($1, $2, $3, $4, $5, $6)`,
				k.id, k.environment, k.hash, k.context, k.version, k.created},
			[]any{`insert into kek_version (kek_id, version, root_ref, wrapped_seed, commitment, wraps, created_at) values ($1, $2, $3, $4, $5, 0, $6)`,
				k.id, k.version, k.rootRef, k.wrapped, k.commitment, k.created})
	}
	exec(t, db, statements...)
}

// K1: whatever is exchanged between the rows of two tenants' keys, neither
// tenant's values open under, or are sealed under, the key of the other.
func TestRowsOfKeysCannotBeExchanged(t *testing.T) {
	t.Parallel()
	exchanges := map[string]func(a, b *kekRow){
		"wrapped seed":     func(a, b *kekRow) { a.wrapped, b.wrapped = b.wrapped, a.wrapped },
		"context":          func(a, b *kekRow) { a.context, b.context = b.context, a.context },
		"context hash":     func(a, b *kekRow) { a.hash, b.hash = b.hash, a.hash },
		"context and hash": func(a, b *kekRow) { a.context, b.context, a.hash, b.hash = b.context, a.context, b.hash, a.hash },
		"commitment":       func(a, b *kekRow) { a.commitment, b.commitment = b.commitment, a.commitment },
		"seed and commitment": func(a, b *kekRow) {
			a.wrapped, b.wrapped, a.commitment, b.commitment = b.wrapped, a.wrapped, b.commitment, a.commitment
		},
		"id":          func(a, b *kekRow) { a.id, b.id = b.id, a.id },
		"id and hash": func(a, b *kekRow) { a.id, b.id, a.hash, b.hash = b.id, a.id, b.hash, a.hash },
		"environment": func(a, b *kekRow) { a.environment, b.environment = b.environment, a.environment },
		"environment and hash": func(a, b *kekRow) {
			a.environment, b.environment, a.hash, b.hash = b.environment, a.environment, b.hash, a.hash
		},
		"version":                 func(a, b *kekRow) { a.version++; b.version++ },
		"seed of one for both":    func(a, b *kekRow) { b.wrapped, b.commitment = a.wrapped, a.commitment },
		"context of one for both": func(a, b *kekRow) { b.context = a.context },
	}
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := newNode(t, db, newKeeper(t))
		a := vault.Place{Environment: id.NewEnvironment(), Organization: id.NewOrganization(), Kind: "credential", Object: "1", Version: 1}
		b := vault.Place{Environment: id.NewEnvironment(), Organization: id.NewOrganization(), Kind: "credential", Object: "1", Version: 1}
		sealed := map[string][]byte{}
		for name, p := range map[string]vault.Place{"a": a, "b": b} {
			envelope, err := n.Seal(t.Context(), p, secret.FromString("value of "+name))
			if err != nil {
				t.Fatal(err)
			}
			sealed[name] = envelope
		}
		before := keks(t, db)
		if len(before) != 2 {
			t.Fatalf("got %d keys for two contexts", len(before))
		}
		for what, exchange := range exchanges {
			x, y := before[0], before[1]
			exchange(&x, &y)
			putKEKs(t, db, x, y)
			for name, p := range map[string]vault.Place{"a": a, "b": b} {
				other := map[string]vault.Place{"a": b, "b": a}[name]
				v := n.restarted()
				if got, err := v.Open(t.Context(), p, sealed[name]); err == nil && !got.Equal(secret.FromString("value of "+name)) {
					t.Errorf("%s exchanged: %s reads another value", what, name)
				}
				if _, err := v.Open(t.Context(), other, sealed[name]); err == nil {
					t.Errorf("%s exchanged: the value of %s opens elsewhere", what, name)
				}
				envelope, err := n.restarted().Seal(t.Context(), p, secret.FromString("new"))
				if err != nil {
					continue
				}
				putKEKs(t, db, before...)
				if _, err := n.restarted().Open(t.Context(), p, envelope); err != nil {
					t.Errorf("%s exchanged: %s was sealed under another key: %v", what, name, err)
				}
				putKEKs(t, db, x, y)
			}
		}
		putKEKs(t, db, before...)
		for name, p := range map[string]vault.Place{"a": a, "b": b} {
			if _, err := n.restarted().Open(t.Context(), p, sealed[name]); err != nil {
				t.Errorf("rows put back: %s does not open: %v", name, err)
			}
		}
	})
}

// Rule 8: another root key opens nothing and says what is wrong.
func TestWrongRootKeyIsNamed(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := newNode(t, db, newKeeper(t))
		p := neighbours()[0]
		envelope, err := n.Seal(t.Context(), p, secret.FromString("canary"))
		if err != nil {
			t.Fatal(err)
		}
		thief := n
		thief.keeper = newKeeper(t)
		thief = thief.restarted()
		if got, err := thief.Open(t.Context(), p, envelope); !fault.Is(err, "root_key_mismatch") || !got.IsZero() {
			t.Errorf("open: got %v, want root_key_mismatch", err)
		}
		if _, err := thief.Seal(t.Context(), p, secret.FromString("canary")); !fault.Is(err, "root_key_mismatch") {
			t.Errorf("seal: got %v, want root_key_mismatch", err)
		}
	})
}

// Two nodes that need the key of a new context at the same moment agree on one.
func TestOneKeyForEachContextUnderARace(t *testing.T) {
	t.Parallel()
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			cfg := sqldbtest.Migrated(t, engine)
			db := sqldbtest.OpenConfig(t, cfg)
			second := db
			if engine == sqldb.PostgreSQL {
				second = sqldbtest.OpenConfig(t, cfg)
			}
			keeper := newKeeper(t)
			nodes := []node{newNode(t, db, keeper), newNode(t, second, keeper)}
			places := neighbours()[:4]
			envelopes := make([][]byte, 32)
			var wg sync.WaitGroup
			for i := range envelopes {
				wg.Go(func() {
					var err error
					envelopes[i], err = nodes[i%2].Seal(t.Context(), places[i/8], secret.FromString(fmt.Sprint(i)))
					if err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if got := count(t, db, `select count(*) from kek`); got != len(places) {
				t.Errorf("got %d keys for %d contexts", got, len(places))
			}
			for i, envelope := range envelopes {
				got, err := nodes[(i+1)%2].restarted().Open(t.Context(), places[i/8], envelope)
				if err != nil || !got.Equal(secret.FromString(fmt.Sprint(i))) {
					t.Errorf("value %d does not open on the other node: %v", i, err)
				}
			}
		})
	}
}

func TestSealNeedsAPlace(t *testing.T) {
	t.Parallel()
	n := newNode(t, sqldbtest.Open(t, sqldb.SQLite), newKeeper(t))
	for _, p := range []vault.Place{{}, {Kind: "k", Object: "o"}, {Environment: id.NewEnvironment(), Object: "o"}, {Environment: id.NewEnvironment(), Kind: "k"}} {
		if _, err := n.Seal(t.Context(), p, secret.FromString("x")); err == nil {
			t.Errorf("sealed for %+v", p)
		}
	}
}

// Issue 4, proofs; K6: a copy of the database's files, with the write-ahead log, what
// PostgreSQL dumps and its heap, and a backup hold none of the planted values, in no
// encoding.
func TestDumpShowsNoSecret(t *testing.T) {
	t.Parallel()
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			cfg := sqldbtest.Migrated(t, engine)
			db := sqldbtest.OpenConfig(t, cfg)
			n := newNode(t, db, newKeeper(t))
			c := newCaller()
			var canaries []string
			canary := func() secret.Value {
				text := fmt.Sprintf("canary-%02d +/<%s", len(canaries), id.NewEvent())
				canaries = append(canaries, text)
				return secret.FromString(text)
			}
			for i := range 16 {
				o, err := n.Create(t.Context(), c, vault.NewObject{Name: fmt.Sprintf("secret %d", i), Context: map[string]string{"organization_id": fmt.Sprint("org", i%3)}, Value: vault.Value{Secret: canary()}})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := n.Update(t.Context(), c, o.ID, vault.Value{Secret: canary()}, ""); err != nil {
					t.Fatal(err)
				}
				if _, _, err := n.Get(t.Context(), c, o.ID); err != nil {
					t.Fatal(err)
				}
				if _, _, err := n.CreateOnce(t.Context(), c, vault.Once{Key: fmt.Sprint(i), Digest: canary().Hash()}, vault.NewObject{Name: fmt.Sprintf("once %d", i), Value: vault.Value{Secret: canary()}}); err != nil {
					t.Fatal(err)
				}
			}
			gone, err := n.Create(t.Context(), c, vault.NewObject{Name: "gone", Value: vault.Value{Secret: canary()}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := n.Delete(t.Context(), c, gone.ID, ""); err != nil {
				t.Fatal(err)
			}
			dump := dumpPostgres
			if engine == sqldb.SQLite {
				dump = func(t *testing.T, _ *sqldb.DB) []byte { return dumpFolder(t, cfg.DataDir) }
			}
			text := dump(t, db)
			if engine == sqldb.SQLite {
				path := filepath.Join(t.TempDir(), "backup.db")
				if err := db.Backup(t.Context(), path); err != nil {
					t.Fatal(err)
				}
				raw, err := os.ReadFile(path)
				if err != nil || !bytes.Contains(raw, []byte("secret 7")) {
					t.Fatalf("the backup: %v", err)
				}
				text = append(text, raw...)
			}
			if len(canaries) < 64 {
				t.Errorf("only %d canaries", len(canaries))
			}
			if !bytes.Contains(text, []byte("secret 7")) {
				t.Fatal("the dump lacks what stands in clear; it proves nothing")
			}
			for _, canary := range canaries {
				for how, form := range encodings(canary) {
					if bytes.Contains(text, []byte(form)) {
						t.Errorf("%s stands in the database as %s", canary, how)
					}
				}
			}
		})
	}
}

// encodings are forms in which a text could stand in a dump. Of base64 only
// the middle is independent of what stands around it.
func encodings(s string) map[string]string {
	sum := secret.FromString(s).Hash()
	plain, _ := json.Marshal(s) // strings always encode
	var percent, units strings.Builder
	for _, b := range []byte(s) {
		fmt.Fprintf(&percent, "%%%02X", b)
		fmt.Fprintf(&units, "\\u%04x", b)
	}
	all := map[string]string{"text": s, "hex": hex.EncodeToString([]byte(s)), "upper hex": strings.ToUpper(hex.EncodeToString([]byte(s))), "reversed": reverse(s),
		"hash": string(sum[:]), "hash in hex": hex.EncodeToString(sum[:]), "JSON": strings.Trim(string(plain), `"`), "JSON units": units.String(),
		"query": url.QueryEscape(s), "path": url.PathEscape(s), "percent": percent.String(), "percent in lower case": strings.ToLower(percent.String())}
	for shift := range 3 {
		for name, coding := range map[string]*base64.Encoding{"base64": base64.StdEncoding, "base64url": base64.URLEncoding, "raw base64": base64.RawStdEncoding} {
			all[fmt.Sprint(name, " ", shift)] = coding.EncodeToString([]byte(s[shift:]))[:len(s)-8]
		}
	}
	return all
}

func reverse(s string) string {
	b := []byte(s)
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return string(b)
}

func dumpFolder(t *testing.T, dir string) (all []byte) {
	t.Helper()
	var wal bool
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		wal = wal || strings.HasSuffix(path, "-wal")
		raw, err := os.ReadFile(path)
		all = append(all, raw...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !wal {
		t.Error("no write-ahead log among the files")
	}
	return all
}

func dumpPostgres(t *testing.T, db *sqldb.DB) (all []byte) {
	t.Helper()
	column := func(query string) (out []string) {
		rows, err := db.Reader().QueryContext(context.Background(), query)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var s string
			if err := rows.Scan(&s); err != nil {
				t.Fatal(err)
			}
			out = append(out, s)
		}
		return out
	}
	for _, table := range column(`select table_name from information_schema.tables where table_schema = current_schema()`) {
		for _, row := range column(`select r::text from "` + table + `" r`) {
			all = append(all, row...)
		}
	}
	// And what stands in its files, deleted rows among it.
	column(`checkpoint`)
	base := column(`select current_setting('data_directory')`)[0]
	for _, path := range column(`select pg_relation_filepath(c.oid) from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = current_schema() and c.relkind in ('r', 'i')
		union all select pg_relation_filepath(c.reltoastrelid) from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = current_schema() and c.reltoastrelid <> 0`) {
		raw, err := os.ReadFile(filepath.Join(base, path))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, raw...)
	}
	return all
}

// No two key contexts share a key: their canonical forms differ.
func FuzzCanonicalContextIsInjective(f *testing.F) {
	f.Add("env_a", "organization_id", "org_1", "", "", "env_a", "organization_id", "org_1", "x", "y")
	f.Add("env_a", "ab", "c", "d", "e", "env_a", "a", "bc", "d", "e")
	f.Add("env", "a", "b", "c", "d", "env", "c", "d", "a", "b")
	f.Add("env", "", "", "", "", "", "env", "", "", "")
	f.Fuzz(func(t *testing.T, env1, k1, v1, k2, v2, env2, k3, v3, k4, v4 string) {
		a, b := map[string]string{k1: v1, k2: v2}, map[string]string{k3: v3, k4: v4}
		equal := env1 == env2 && len(a) == len(b)
		for k, v := range a {
			w, ok := b[k]
			equal = equal && ok && v == w
		}
		if got := bytes.Equal(vault.Canonical(id.Environment(env1), a), vault.Canonical(id.Environment(env2), b)); got != equal {
			t.Errorf("%q %q and %q %q: same form is %v, same context is %v", env1, a, env2, b, got, equal)
		}
	})
}

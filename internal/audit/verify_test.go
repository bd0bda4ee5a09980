package audit_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// scene is a stopped server's log: two chains with a checkpoint each, and a
// copy of all of it that undoes what a case did.
type scene struct {
	world
	old, last string // ids of the chains
	files     map[string][]byte
}

func newScene(t *testing.T, w world, oldEntries, lastEntries int) scene {
	t.Helper()
	s := scene{world: w, files: map[string][]byte{}}
	for _, n := range []int{oldEntries, lastEntries} {
		l := w.start(t)
		batch := func(ctx context.Context, tx *sqldb.Tx) error {
			for range n {
				l.Append(tx, w.entry("session.requested"))
			}
			return nil
		}
		if err := w.db.Update(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		l.Stop()
	}
	s.old = scan[string](t, w.db, `select id from audit_chain order by started_at limit 1`)
	s.last = scan[string](t, w.db, `select id from audit_chain order by started_at desc limit 1`)
	names, err := os.ReadDir(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if s.files[n.Name()], err = os.ReadFile(filepath.Join(w.dir, n.Name())); err != nil {
			t.Fatal(err)
		}
	}
	for _, table := range []string{"audit_entry", "audit_chain", "audit_signer"} {
		exec(t, w.db, `create table save_`+table+` as select * from `+table)
	}
	if r := w.wantIntact(t); len(r.Unwitnessed) != 0 || r.Chains != 2 {
		t.Fatalf("the scene is not clean: %+v", r)
	}
	return s
}

// undo puts back what stood before.
func (s scene) undo(t *testing.T) {
	t.Helper()
	exec(t, s.db, `delete from audit_entry`, `delete from audit_chain`, `delete from audit_signer`,
		`insert into audit_chain select * from save_audit_chain`, `insert into audit_signer select * from save_audit_signer`,
		`insert into audit_entry select * from save_audit_entry`)
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range s.files {
		s.write(t, name, text)
	}
}

func (s scene) write(t *testing.T, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s scene) remove(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(s.dir, name)); err != nil {
		t.Fatal(err)
	}
}

// setBlob writes bytes into one column of one entry.
func (s scene) setBlob(t *testing.T, column string, chain string, seq int64, b []byte) {
	t.Helper()
	err := s.db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
		_, err := tx.ExecContext(ctx, `update audit_entry set `+column+` = $1 where chain_id = $2 and seq = $3`, b, chain, seq)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (s scene) blob(t *testing.T, column, chain string, seq int64) []byte {
	t.Helper()
	return scan[[]byte](t, s.db, `select `+column+` from audit_entry where chain_id = $1 and seq = $2`, chain, seq)
}

// where names one entry of the old chain in SQL.
func (s scene) where(seq int) string {
	return fmt.Sprintf(" where chain_id = '%s' and seq = %d", s.old, seq)
}

// forge inserts an entry that was copied from another one.
func (s scene) forge(chain string, seq int, hash string) string {
	return fmt.Sprintf(`insert into audit_entry (chain_id, seq, id, time, kind, ref, environment_id, organization_id, agent_id, user_id, session_id, connection_id, action, decision, body, hash)
		select '%s', %d, '%s', time, kind, ref, environment_id, organization_id, agent_id, user_id, session_id, connection_id, action, decision, body, %s
		from audit_entry where chain_id = '%s' and seq = 5`, chain, seq, id.NewEvent(), hash, s.old)
}

// L4: every way in which the holder of the database can change history.
func TestVerifyFindsTampering(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		s := newScene(t, w, 60, 20)
		sql := func(format string, args ...any) func() {
			return func() { exec(t, s.db, fmt.Sprintf(format, args...)) }
		}
		cases := map[string]func(){
			"body, one bit": func() {
				b := bytes.Clone(s.blob(t, "body", s.old, 30))
				b[len(b)/2] ^= 1
				s.setBlob(t, "body", s.old, 30, b)
			},
			"body and column together": func() {
				b := bytes.ReplaceAll(s.blob(t, "body", s.old, 30), []byte(`"allow"`), []byte(`"deny"`))
				s.setBlob(t, "body", s.old, 30, b)
				exec(t, s.db, `update audit_entry set decision = 'deny'`+s.where(30))
			},
			"body of no entry": func() { s.setBlob(t, "body", s.old, 30, []byte("{")) },
			"hash": func() {
				b := bytes.Clone(s.blob(t, "hash", s.old, 30))
				b[0] ^= 1
				s.setBlob(t, "hash", s.old, 30, b)
			},
			"hash of the head": func() {
				b := bytes.Clone(s.blob(t, "hash", s.old, 62))
				b[0] ^= 1
				s.setBlob(t, "hash", s.old, 62, b)
			},
			"deleted inside":  sql(`delete from audit_entry%s`, s.where(30)),
			"deleted first":   sql(`delete from audit_entry%s`, s.where(1)),
			"deleted several": sql(`delete from audit_entry where chain_id = '%s' and seq between 10 and 50`, s.old),
			"swapped": func() {
				exec(t, s.db, `update audit_entry set seq = 1000`+s.where(30), `update audit_entry set seq = 30`+s.where(31), `update audit_entry set seq = 31`+s.where(1000))
			},
			"swapped all but their place": func() {
				for _, column := range []string{"body", "hash"} {
					a, b := s.blob(t, column, s.old, 30), s.blob(t, column, s.old, 31)
					s.setBlob(t, column, s.old, 30, b)
					s.setBlob(t, column, s.old, 31, a)
				}
			},
			"cut before the checkpoint":              sql(`delete from audit_entry where chain_id = '%s' and seq > 40`, s.old),
			"newest chain cut before its checkpoint": sql(`delete from audit_entry where chain_id = '%s' and seq = 22`, s.last),
			"all entries of a chain":                 sql(`delete from audit_entry where chain_id = '%s'`, s.old),
			"old chain whole": func() {
				exec(t, s.db, `delete from audit_entry where chain_id = '`+s.old+`'`, `delete from audit_chain where id = '`+s.old+`'`)
			},
			"newest chain whole": func() {
				exec(t, s.db, `delete from audit_entry where chain_id = '`+s.last+`'`, `delete from audit_chain where id = '`+s.last+`'`)
			},
			"old chain cut, with its checkpoint file": func() {
				exec(t, s.db, `delete from audit_entry where chain_id = '`+s.old+`' and seq > 40`)
				s.remove(t, s.old+".checkpoint")
			},
			"old chain whole, with its checkpoint file": func() {
				exec(t, s.db, `delete from audit_entry where chain_id = '`+s.old+`'`, `delete from audit_chain where id = '`+s.old+`'`)
				s.remove(t, s.old+".checkpoint")
			},
			"forged at the end, made-up hash": func() {
				exec(t, s.db, s.forge(s.last, 23, "hash"))
				s.setBlob(t, "hash", s.last, 23, random(32))
			},
			"forged at the end, copied hash": func() { exec(t, s.db, s.forge(s.last, 23, "hash")) },
			"forged before the start":        func() { exec(t, s.db, s.forge(s.last, 0, "hash")) },
			"forged far before the start":    func() { exec(t, s.db, s.forge(s.last, -7, "hash")) },
			"forged chain": func() {
				exec(t, s.db, `insert into audit_chain (id, node, key_ref, key_wrapped, started_at) select 'evt_forged', node, key_ref, key_wrapped, started_at from audit_chain where id = '`+s.last+`'`,
					s.forge("evt_forged", 1, "hash"))
			},
			"moved to the other chain":   sql(`update audit_entry set chain_id = '%s', seq = 23%s`, s.last, s.where(62)),
			"node of a chain":            sql(`update audit_chain set node = 'other' where id = '%s'`, s.old),
			"start of a chain":           sql(`update audit_chain set started_at = started_at - 1 where id = '%s'`, s.old),
			"key of a chain":             sql(`update audit_chain set key_wrapped = (select key_wrapped from audit_chain where id = '%s') where id = '%s'`, s.last, s.old),
			"verifier of checkpoints":    sql(`update audit_signer set verifier = 'ambit-audit+3f1a2b4c+AYEfZC8nMFtZ0O0DVFZs4o8Aqg0JJYQzV7VxXS4nlqFk'`),
			"key of checkpoints":         sql(`update audit_signer set key_wrapped = (select key_wrapped from audit_chain where id = '%s')`, s.last),
			"key of checkpoints deleted": sql(`delete from audit_signer`),
			"everything, with all checkpoint files": func() {
				exec(t, s.db, `delete from audit_entry`, `delete from audit_chain`)
				s.remove(t, s.old+".checkpoint")
				s.remove(t, s.last+".checkpoint")
			},
			"everything, with the folder of checkpoints": func() {
				exec(t, s.db, `delete from audit_entry`, `delete from audit_chain`)
				for name := range s.files {
					s.remove(t, name)
				}
			},
			"everything but verifier.pub": func() {
				exec(t, s.db, `delete from audit_entry`, `delete from audit_chain`, `delete from audit_signer`)
				s.remove(t, s.old+".checkpoint")
				s.remove(t, s.last+".checkpoint")
			},
			"checkpoint edited": func() {
				s.write(t, s.old+".checkpoint", bytes.Replace(s.files[s.old+".checkpoint"], []byte(" 62 "), []byte(" 40 "), 1))
			},
			"checkpoint of another chain": func() { s.write(t, s.old+".checkpoint", s.files[s.last+".checkpoint"]) },
			"checkpoint cut short":        func() { s.write(t, s.old+".checkpoint", s.files[s.old+".checkpoint"][:50]) },
			"verifier beside checkpoints": func() { s.remove(t, "verifier.pub") },
			"another verifier beside them": func() {
				s.write(t, "verifier.pub", []byte("ambit-audit+3f1a2b4c+AYEfZC8nMFtZ0O0DVFZs4o8Aqg0JJYQzV7VxXS4nlqFk\n"))
			},
		}
		for _, column := range []string{"id", "kind", "ref", "environment_id", "organization_id", "agent_id", "user_id", "session_id", "connection_id", "action", "decision"} {
			cases["column "+column] = sql(`update audit_entry set %s = %s || 'x'%s`, column, column, s.where(30))
		}
		for column, value := range map[string]string{"time": "time + 1", "seq": "1000", "organization_id": "''"} {
			cases["column "+column+" to "+value] = sql(`update audit_entry set %s = %s%s`, column, value, s.where(30))
		}
		for what, tamper := range cases {
			tamper()
			if r := w.verify(t); r.Intact() {
				t.Errorf("%s: verify found nothing", what)
			}
			s.undo(t)
		}
		w.wantIntact(t)
	})
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// L4: of 1,000 entries, any one changed anyhow is found, and named.
func TestVerifyFindsAnyOneOfAThousand(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		s := newScene(t, w, 1000, 3)
		r := mathrand.New(mathrand.NewPCG(1, 2))
		trials := 15
		if os.Getenv("AMBIT_LONG") == "1" {
			trials = 50
		}
		for trial := range trials {
			seq := 1 + r.IntN(1000)
			at := int64(seq)
			what := ""
			switch trial % 5 {
			case 0:
				b := bytes.Clone(s.blob(t, "body", s.old, at))
				bit := r.IntN(8 * len(b))
				b[bit/8] ^= 1 << (bit % 8)
				s.setBlob(t, "body", s.old, at, b)
				what = "a bit of the body"
			case 1:
				exec(t, s.db, `delete from audit_entry`+s.where(seq))
				what, at = "deleted", at+1
			case 2:
				exec(t, s.db, `update audit_entry set seq = 5000`+s.where(seq), `update audit_entry set seq = `+fmt.Sprint(seq)+s.where(seq+1), `update audit_entry set seq = `+fmt.Sprint(seq+1)+s.where(5000))
				what = "swapped with the next"
			case 3:
				exec(t, s.db, `delete from audit_entry where chain_id = '`+s.old+`' and seq >= `+fmt.Sprint(seq))
				what = "cut off from here"
			case 4:
				exec(t, s.db, `update audit_entry set user_id = 'user_x'`+s.where(seq))
				what = "a column"
			}
			report := w.verify(t)
			if !slices.ContainsFunc(report.Problems, func(p audit.Problem) bool { return p.Chain == s.old && p.Seq == at }) {
				t.Errorf("entry %d, %s: found %+v", seq, what, report.Problems)
			}
			last := seq + 1
			if trial%5 == 3 {
				last = 5000
			}
			touched := fmt.Sprintf(" where chain_id = '%s' and seq between %d and %d", s.old, seq, last)
			exec(t, s.db, `delete from audit_entry`+touched, `insert into audit_entry select * from save_audit_entry`+touched)
		}
		w.wantIntact(t)
	})
}

// Issue 3, item 1, and a bug: each node writes checkpoints to a folder of its own,
// and one folder's verification said of the other nodes' chains that no checkpoint
// had seen them. It says where they lie, and takes several folders.
func TestVerifyTakesTheFoldersOfAllNodes(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		two := w
		two.dir = filepath.Join(t.TempDir(), "second")
		one := w.start(t)
		other, err := audit.New(t.Context(), audit.Config{DB: two.db, Keeper: two.keeper, CheckpointDir: two.dir, Node: "second", Every: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		other.Start()
		w.record(t, one, 3)
		w.record(t, other, 3)
		chain := scan[string](t, w.db, `select id from audit_chain where node = 'second'`)
		one.Stop()
		other.Stop()
		r := w.wantIntact(t)
		if len(r.Unwitnessed) != 1 || r.Unwitnessed[0].Chain != chain || r.Unwitnessed[0].Node != "second" || !r.Unwitnessed[0].Elsewhere {
			t.Errorf("with one folder: %+v", r.Unwitnessed)
		}
		verify := func() audit.Report {
			t.Helper()
			r, err := audit.Verify(t.Context(), audit.VerifyConfig{DB: w.db, Keeper: w.keeper, Checkpoints: []string{w.dir, two.dir}})
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		if r := verify(); !r.Intact() || len(r.Unwitnessed) != 0 || r.Checkpoints != 2 {
			t.Errorf("with both folders: %+v", r)
		}
		exec(t, w.db, fmt.Sprintf(`delete from audit_entry where chain_id = '%[1]s' and seq = (select max(seq) from audit_entry where chain_id = '%[1]s')`, chain))
		if r := verify(); r.Intact() {
			t.Error("the second folder's checkpoint does not find what was cut")
		}
	})
}

// A tail that no checkpoint saw is not called proven.
func TestVerifyNamesTheUnwitnessedTail(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		l := w.start(t)
		w.record(t, l, 5)
		r := w.wantIntact(t)
		if len(r.Unwitnessed) != 1 || r.Unwitnessed[0].From != 1 || r.Unwitnessed[0].Entries != 7 {
			t.Errorf("before the first checkpoint: %+v", r.Unwitnessed)
		}
		l.Stop()
		if r := w.wantIntact(t); len(r.Unwitnessed) != 0 {
			t.Errorf("after a clean stop: %+v", r.Unwitnessed)
		}
		// A second run ends without a checkpoint, as after kill -9.
		l = w.start(t)
		w.record(t, l, 2)
		chain := scan[string](t, w.db, `select id from audit_chain order by started_at desc limit 1`)
		if diff := cmp.Diff([]audit.Tail{{Chain: chain, From: 1, Entries: 4, Node: "node"}}, w.wantIntact(t).Unwitnessed); diff != "" {
			t.Errorf("after a crash: %s", diff)
		}
		// A third one names that head, and its own checkpoint vouches for it.
		w.start(t).Stop()
		if r := w.wantIntact(t); len(r.Unwitnessed) != 0 {
			t.Errorf("after the next clean stop: %+v", r.Unwitnessed)
		}
		l.Stop()
	})
}

// A root key that is not the log's proves nothing, and says so.
func TestVerifyUnderAnotherRootKey(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		l := w.start(t)
		w.record(t, l, 2)
		l.Stop()
		other := newWorld(t, w.db)
		other.dir = w.dir
		r := other.verify(t)
		if r.Intact() || !slices.ContainsFunc(r.Problems, func(p audit.Problem) bool { return strings.Contains(p.What, "root key") }) {
			t.Errorf("got %+v", r.Problems)
		}
		if _, err := audit.New(t.Context(), audit.Config{DB: w.db, Keeper: other.keeper, CheckpointDir: w.dir}); err == nil {
			t.Error("a log opened under another root key")
		}
		exec(t, w.db, `update audit_signer set verifier = 'ambit-audit+3f1a2b4c+AYEfZC8nMFtZ0O0DVFZs4o8Aqg0JJYQzV7VxXS4nlqFk'`)
		if _, err := audit.New(t.Context(), audit.Config{DB: w.db, Keeper: w.keeper, CheckpointDir: w.dir}); err == nil {
			t.Error("a log opened with a checkpoint key that was changed")
		}
	})
}

// Verify may run while the server writes: it must not cry wolf.
func TestVerifyBesideAWriter(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		l := w.start(t)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 100 {
				w.record(t, l, 1)
			}
		}()
		for running := true; running; {
			select {
			case <-done:
				running = false
			default:
			}
			w.wantIntact(t)
		}
	})
}

func FuzzDecodeBody(f *testing.F) {
	f.Add([]byte(`{"row":"event","row_id":"evt_1","row_time":1,"entry":{"id":"evt_1","action":"a.b","actor":{"kind":"user","id":"u"},"time":"2026-01-01T00:00:00Z"}}`))
	f.Add([]byte(`{"row":"outcome","outcome":{"status":"ok","duration_ns":1},"ref":"evt_1"}`))
	f.Add([]byte(`{"entry":null}`))
	f.Add([]byte(`{"entry":{"evidence":{},"detail":{"follows_0":"a 1 ff"}}}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		_, _ = audit.DecodeBody(doc) // whatever stands in a row must not stop verification
	})
}

func FuzzVerifyParsers(f *testing.F) {
	f.Add("evt_01 12 00ff")
	f.Add("a -1 ")
	f.Add("MSBldnRfMQ")
	f.Add("%s %d %x")
	f.Fuzz(func(t *testing.T, s string) {
		_ = audit.ParseCursor(s)
		text, err := audit.ParseHead(s)
		if err != nil {
			return
		}
		if again, err := audit.ParseHead(text); err != nil || again != text {
			t.Errorf("%q: reads as %q, then as %q (%v)", s, text, again, err)
		}
	})
}

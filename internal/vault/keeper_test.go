package vault_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/keyring/local"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
)

// faulty is a node whose keeper is on the other side of a connection, with a
// value sealed in each of two contexts; the key of the first is held.
type faulty struct {
	node
	keeper *keyring.Guard
	server *keyringtest.Server
	clock  *offset
	places []vault.Place
	sealed [][]byte
}

// offset is a clock that the test moves on.
type offset struct{ by atomic.Int64 }

func (o *offset) Now() time.Time          { return time.Now().Add(time.Duration(o.by.Load())) }
func (o *offset) Advance(d time.Duration) { o.by.Add(int64(d)) }

func newFaulty(t *testing.T, db *sqldb.DB) *faulty {
	t.Helper()
	f := &faulty{server: keyringtest.New(t), clock: &offset{}, places: neighbours()[:2]}
	f.keeper = f.server.Guard(t, keyring.Config{Timeout: 2 * time.Second, Now: f.clock.Now})
	f.node = newNode(t, db, f.keeper)
	f.log.Start()
	t.Cleanup(f.log.Stop)
	for _, p := range f.places {
		envelope, err := f.Seal(t.Context(), p, secret.FromString("canary"))
		if err != nil {
			t.Fatal(err)
		}
		f.sealed = append(f.sealed, envelope)
	}
	f.node = f.restarted()
	if err := f.open(t, 0); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *faulty) open(t *testing.T, i int) error {
	t.Helper()
	got, err := f.Open(t.Context(), f.places[i], f.sealed[i])
	if err == nil && !got.Equal(secret.FromString("canary")) || err != nil && !got.IsZero() {
		t.Fatalf("opened %v with %v", got, err)
	}
	return err
}

// alarms waits until the audit holds n entries of this action.
func alarms(t *testing.T, db *sqldb.DB, action string, n int) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		got := count(t, db, `select count(*) from audit_entry where action = $1`, action)
		if got == n {
			return
		}
		if got > n || time.Now().After(limit) {
			t.Fatalf("%d entries of %s, want %d", got, action, n)
		}
	}
}

// F5: while keys are held, the keeper is not asked; many who need one that is not
// held ask once.
func TestF5HeldKeysAskNobody(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		f := newFaulty(t, db)
		asked := f.server.Asked()
		for range 200 {
			if err := f.open(t, 0); err != nil {
				t.Fatal(err)
			}
			if _, err := f.Seal(t.Context(), f.places[0], secret.FromString("more")); err != nil {
				t.Fatal(err)
			}
		}
		if n := f.server.Asked() - asked; n != 0 {
			t.Errorf("400 uses of a held key asked %d times", n)
		}
		f.server.Be(keyringtest.Slow)
		f.server.Delay(200 * time.Millisecond)
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				if _, err := f.Open(t.Context(), f.places[1], f.sealed[1]); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := f.server.Asked() - asked; n != 1 {
			t.Errorf("64 callers asked %d times for one key, want once", n)
		}
	})
}

// F5, K4: a keeper that is down, throttles, or breaks stops what needs a key that
// is not held, and says so; what is held goes on for the grace, then stops too.
// When the keeper is back, so is everything, without a restart.
func TestF5KeeperAway(t *testing.T) {
	t.Parallel()
	for mode, want := range map[keyringtest.Mode]string{
		"down": keyring.CodeUnavailable, keyringtest.Throttled: keyring.CodeThrottled, keyringtest.Broken: keyring.CodeUnavailable, keyringtest.Garbage: keyring.CodeUnavailable,
	} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
				f := newFaulty(t, db)
				if mode == "down" {
					f.server.Down()
				} else {
					f.server.Be(mode)
				}
				if err := f.open(t, 1); !fault.Is(err, want) {
					t.Errorf("a key that is not held: got %v, want %s", err, want)
				}
				if _, err := f.Seal(t.Context(), neighbours()[0], secret.FromString("new")); err == nil {
					t.Error("a new context got a key without the keeper")
				}
				if err := f.open(t, 0); err != nil {
					t.Errorf("a key that is held: %v", err)
				}
				alarms(t, db, "key.unreachable", 1)
				f.clock.Advance(6 * time.Minute)
				if err := f.open(t, 0); !fault.Is(err, want) {
					t.Errorf("after the grace: got %v, want %s", err, want)
				}
				if n := f.Held(); n != 0 {
					t.Errorf("%d keys are held after the grace", n)
				}
				alarms(t, db, "key.unusable", 1)
				if mode == "down" {
					f.server.Up(t)
				}
				f.server.Be(keyringtest.Fine)
				f.clock.Advance(time.Minute)
				for i := range f.sealed {
					if err := f.open(t, i); err != nil {
						t.Errorf("after the outage: %v", err)
					}
				}
				alarms(t, db, "key.usable", 1)
			})
		})
	}
}

// F5, K4: a root key that was disabled makes everything under it unreadable as
// soon as the keeper says so once, and it is on record.
func TestF5KeyDisabled(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		f := newFaulty(t, db)
		f.server.Be(keyringtest.Denied)
		if err := f.open(t, 1); !fault.Is(err, keyring.CodeDenied) { // the first who asks
			t.Errorf("got %v, want %s", err, keyring.CodeDenied)
		}
		if err := f.open(t, 0); !fault.Is(err, keyring.CodeDenied) {
			t.Errorf("a key that was held: got %v, want %s", err, keyring.CodeDenied)
		}
		if n := f.Held(); n != 0 {
			t.Errorf("%d keys are still held", n)
		}
		alarms(t, db, "key.unusable", 1)
		f.server.Be(keyringtest.Fine)
		f.clock.Advance(2 * time.Second)
		if err := f.open(t, 0); err != nil {
			t.Errorf("enabled again: %v", err)
		}
	})
}

// F5: a disabled key is found by the guard itself, though only held keys are used.
func TestF5KeyDisabledWhileKeysAreHeld(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		server := keyringtest.New(t)
		keeper := server.Guard(t, keyring.Config{Every: 20 * time.Millisecond})
		n := newNode(t, db, keeper)
		keeper.Start()
		p := neighbours()[0]
		envelope, err := n.Seal(t.Context(), p, secret.FromString("canary"))
		if err != nil {
			t.Fatal(err)
		}
		server.Be(keyringtest.Denied)
		for limit := time.Now().Add(20 * time.Second); err == nil; _, err = n.Open(t.Context(), p, envelope) {
			if time.Now().After(limit) {
				t.Fatal("a value opens long after its key was disabled")
			}
		}
		if !fault.Is(err, keyring.CodeDenied) || n.Held() != 0 {
			t.Errorf("got %v with %d keys held", err, n.Held())
		}
	})
}

// F5: another root key behind the same keeper is an alarm, and opens nothing.
func TestF5WrongKey(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		f := newFaulty(t, db)
		if err := f.keeper.Prove(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.server.Be(keyringtest.WrongKey)
		if err := f.open(t, 1); !fault.Is(err, "sealed_value_invalid") { // one blob may be bad for another reason
			t.Errorf("got %v", err)
		}
		alarms(t, db, "vault.integrity_failed", 1)
		if err := f.keeper.Prove(t.Context()); !fault.Is(err, keyring.CodeMismatch) {
			t.Errorf("got %v, want %s", err, keyring.CodeMismatch)
		}
		if err := f.open(t, 0); !fault.Is(err, keyring.CodeMismatch) || f.Held() != 0 {
			t.Errorf("a key that was held: got %v", err)
		}
		alarms(t, db, "key.unusable", 1)
	})
}

// F5: a value that does not open is on record, however often it is tried once a
// minute.
func TestF5IntegrityIsAnAlarm(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		f := newFaulty(t, db)
		for range 20 {
			if _, err := f.Open(t.Context(), f.places[0], f.sealed[1]); !fault.Is(err, "sealed_value_invalid") {
				t.Errorf("got %v", err)
			}
		}
		alarms(t, db, "vault.integrity_failed", 1)
		// From inside a transaction, where nothing may wait for the log.
		err := db.Update(t.Context(), func(ctx context.Context, _ *sqldb.Tx) error {
			other := f.places[0]
			other.Object = "conn_other"
			_, err := f.Open(ctx, other, f.sealed[0])
			return err
		})
		if !fault.Is(err, "sealed_value_invalid") {
			t.Errorf("in a transaction: got %v", err)
		}
		alarms(t, db, "vault.integrity_failed", 2)
	})
}

// F5: a caller who does not wait for a slow keeper gets away, and leaves the work
// to those who do.
func TestF5CallerLeaves(t *testing.T) {
	t.Parallel()
	f := newFaulty(t, sqldbtest.Open(t, sqldb.SQLite))
	f.server.Be(keyringtest.Slow)
	f.server.Delay(500 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	stays := make(chan error, 1)
	go func() { _, err := f.Open(t.Context(), f.places[1], f.sealed[1]); stays <- err }()
	if _, err := f.Open(ctx, f.places[1], f.sealed[1]); !fault.Is(err, keyring.CodeUnavailable) {
		t.Errorf("got %v", err)
	}
	if err := <-stays; err != nil {
		t.Errorf("the one who waited: %v", err)
	}
}

// F5: the file is the keeper. Removed or unreadable, it is a keeper that is away;
// with another key in it, a mismatch; put back, all is well.
func TestF5RootKeyFileWhileRunning(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "root.key")
	file, err := local.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	original, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other.key")
	if _, err := local.Create(other); err != nil {
		t.Fatal(err)
	}
	put := func(t *testing.T, content []byte, mode os.FileMode) {
		t.Helper()
		_ = os.Remove(path)
		if err := os.WriteFile(path, content, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	clock := &offset{}
	keeper := keyring.NewGuard(file, keyring.Config{Now: clock.Now})
	n := newNode(t, sqldbtest.Open(t, sqldb.SQLite), keeper)
	p := neighbours()[0]
	envelope, err := n.Seal(t.Context(), p, secret.FromString("canary"))
	if err != nil {
		t.Fatal(err)
	}
	open := func() error { _, err := n.Open(t.Context(), p, envelope); return err }
	for name, row := range map[string]struct {
		spoil func(t *testing.T)
		code  string
		goes  bool // on for the grace
	}{
		"removed":            {func(*testing.T) { _ = os.Remove(path) }, keyring.CodeUnavailable, true},
		"open to others":     {func(*testing.T) { _ = os.Chmod(path, 0o644) }, keyring.CodeUnavailable, true},
		"empty":              {func(t *testing.T) { put(t, nil, 0o600) }, keyring.CodeUnavailable, true},
		"half written":       {func(t *testing.T) { put(t, original[:20], 0o600) }, keyring.CodeUnavailable, true},
		"a folder":           {func(*testing.T) { _ = os.Remove(path); _ = os.Mkdir(path, 0o700) }, keyring.CodeUnavailable, true},
		"a link":             {func(*testing.T) { _ = os.Remove(path); _ = os.Symlink(other, path) }, keyring.CodeUnavailable, true},
		"another key's file": {func(t *testing.T) { doc, _ := os.ReadFile(other); put(t, doc, 0o600) }, keyring.CodeMismatch, false},
	} {
		row.spoil(t)
		if err := keeper.Prove(t.Context()); !fault.Is(err, row.code) {
			t.Errorf("%s: got %v, want %s", name, err, row.code)
		}
		if err := open(); (err == nil) != row.goes {
			t.Errorf("%s: a key that is held: %v", name, err)
		}
		clock.Advance(6 * time.Minute)
		if err := open(); !fault.Is(err, row.code) || n.Held() != 0 {
			t.Errorf("%s: after the grace: got %v with %d keys held", name, err, n.Held())
		}
		put(t, original, 0o600)
		clock.Advance(time.Minute)
		if err := open(); err != nil {
			t.Errorf("%s: put back: %v", name, err)
		}
	}
}

package sqldb_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

func acquire(t *testing.T, db *sqldb.DB, ttl time.Duration, want bool) *sqldb.Lease {
	t.Helper()
	l, ok, err := db.Acquire(t.Context(), "refresh", ttl)
	if err != nil || ok != want {
		t.Fatalf("acquire: got %v, %v, want %v", ok, err, want)
	}
	return l
}

func renew(t *testing.T, l *sqldb.Lease, want bool) {
	t.Helper()
	if ok, err := l.Renew(t.Context(), time.Minute); err != nil || ok != want {
		t.Fatalf("renew: got %v, %v, want %v", ok, err, want)
	}
}

// Of twenty callers on two nodes at most one is inside at any time, and each
// gets in once.
func TestLeaseIsExclusive(t *testing.T) {
	t.Parallel()
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			cfg := sqldbtest.Config(t, engine)
			nodes := []*sqldb.DB{sqldbtest.OpenConfig(t, cfg)}
			if engine == sqldb.PostgreSQL {
				nodes = append(nodes, sqldbtest.OpenConfig(t, cfg))
			}
			var inside, entered atomic.Int64
			var wg sync.WaitGroup
			for i := range 20 {
				db := nodes[i%len(nodes)]
				wg.Go(func() {
					for {
						l, ok, err := db.Acquire(t.Context(), "refresh", time.Minute)
						if err != nil {
							t.Error(err)
							return
						}
						if !ok {
							time.Sleep(time.Millisecond)
							continue
						}
						if n := inside.Add(1); n != 1 {
							t.Errorf("%d holders at once", n)
						}
						entered.Add(1)
						time.Sleep(time.Millisecond)
						inside.Add(-1)
						if err := l.Release(t.Context()); err != nil {
							t.Error(err)
						}
						return
					}
				})
			}
			wg.Wait()
			if got := entered.Load(); got != 20 {
				t.Errorf("got %d entries, want 20", got)
			}
		})
	}
}

// The lease of a process that died is waited for where others may live, and free
// where they cannot.
func TestLeaseOfADeadProcess(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		exec(t, db, `insert into lease (name, owner, until) values ('refresh', 'dead', $1)`, sqldb.Micros(time.Now().Add(time.Hour)))
		acquire(t, db, time.Minute, db.Engine() == sqldb.SQLite)
		acquire(t, db, time.Minute, false)
	})
}

func TestLeaseLife(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		first := acquire(t, db, time.Second, true)
		acquire(t, db, time.Minute, false)
		renew(t, first, true)
		time.Sleep(1100 * time.Millisecond)
		acquire(t, db, time.Minute, false) // the renewal holds
		if err := first.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		renew(t, first, false)

		second := acquire(t, db, 50*time.Millisecond, true)
		time.Sleep(100 * time.Millisecond)
		renew(t, second, false) // ended, though nobody took it
		third := acquire(t, db, time.Minute, true)
		if err := second.Release(t.Context()); err != nil { // of a lease that is another's now
			t.Fatal(err)
		}
		renew(t, third, true)
	})
}

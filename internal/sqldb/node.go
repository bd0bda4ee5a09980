package sqldb

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
)

const (
	nodeBeat  = 5 * time.Second
	nodeRetry = 250 * time.Millisecond
	// A node that was not heard of for nodeLife counts as dead. Before that,
	// after nodeDoubt, it does not trust itself any more.
	nodeLife  = 20 * time.Second
	nodeDoubt = 15 * time.Second
	nodeKept  = 24 * time.Hour // a row that nobody renews
)

// Node is a process that has joined the database.
type Node struct {
	Name     string    // for people
	Binary   string    // its version
	Schema   int       // the last step that it knows
	Settings string    // the caller's own
	Started  time.Time // by the database's clock, as is Seen
	Seen     time.Time
}

// Membership is a node of ours among those of the database.
type Membership struct {
	db   *DB
	id   string
	node Node
	last int // the last step that this binary knows

	began    time.Time    // what beat counts from
	beat     atomic.Int64 // when the row was last renewed, in nanoseconds
	outdated atomic.Bool  // somebody migrated beyond what this binary can run beside
	lost     chan struct{}
	once     sync.Once
	cancel   context.CancelFunc
	wg       sync.WaitGroup
}

// Join makes this process known to the others on the database, and to
// migrations, which wait for nodes that could not go on beside them. check is
// given those that live and may refuse; it must not block. Start keeps the
// membership up.
func (db *DB) Join(ctx context.Context, n Node, check func(others []Node) error) (*Membership, error) {
	all, err := steps(db.engine)
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	return db.join(ctx, n, all, check)
}

func (db *DB) join(ctx context.Context, n Node, all []step, check func(others []Node) error) (*Membership, error) {
	m := &Membership{db: db, id: rand.Text(), node: n, last: all[len(all)-1].Version, began: time.Now(), lost: make(chan struct{})}
	m.node.Schema = m.last
	now, err := db.Clock(ctx)
	if err != nil {
		return nil, err
	}
	m.node.Started = now
	asked := time.Now()
	err = db.Update(ctx, func(ctx context.Context, tx *Tx) error {
		// A migration comes either before, and is seen, or after, and sees us.
		if err := tx.Serialize(ctx, migrateLock); err != nil {
			return err
		}
		if _, err := checkApplied(ctx, tx, db.engine, all); err != nil {
			return err
		}
		if err := sweepNodes(ctx, tx, now); err != nil {
			return err
		}
		others, err := liveNodes(ctx, tx, now)
		if err != nil {
			return err
		}
		if err := check(others); err != nil {
			return err
		}
		return m.write(ctx, tx, now)
	})
	if err != nil {
		return nil, Wrap("join the other nodes", err)
	}
	m.renewed(asked)
	return m, nil
}

// Nodes lists the nodes that live, the oldest first.
func (db *DB) Nodes(ctx context.Context) ([]Node, error) {
	now, err := db.Clock(ctx)
	if err != nil {
		return nil, err
	}
	list, err := liveNodes(ctx, db.Reader(), now)
	return list, Wrap("list the nodes", err)
}

// Start renews the membership until Stop. On SQLite there is nobody to tell.
func (m *Membership) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	if m.db.engine == PostgreSQL {
		m.wg.Go(func() { m.keep(ctx) })
	}
}

// Stop ends what Start began and leaves the other nodes.
func (m *Membership) Stop() {
	if m.cancel != nil {
		m.cancel()
	}
	m.wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	const query = `delete from node where id = $1`
	err := m.db.Update(ctx, func(ctx context.Context, tx *Tx) error {
		_, err := tx.ExecContext(ctx, query, m.id)
		return err
	})
	if err != nil {
		m.db.log.Warn("this node could not say that it leaves; others count it for a while", "error", err)
	}
}

// Ready is nil while this node may act: the others count it among the living,
// and the schema is one that it can run on. It asks nobody.
func (m *Membership) Ready() error {
	switch {
	case m.outdated.Load():
		return fault.New(fault.Unavailable, "schema_newer", "The database was migrated beyond what this server can run on.").
			WithHint("The operator must start the newer ambit here too.").WithRetry(10 * time.Second)
	case m.db.engine == PostgreSQL && time.Since(m.began)-time.Duration(m.beat.Load()) > nodeDoubt:
		return fault.New(fault.Unavailable, "node_lost", "This server has not reached its database for a while.").
			WithHint("Try again.").WithRetry(time.Second)
	}
	return nil
}

// Outdated is closed when somebody has migrated the database beyond what this
// binary can run on, which takes a node that was not heard of for long: this one
// must stop.
func (m *Membership) Outdated() <-chan struct{} { return m.lost }

func (m *Membership) renewed(at time.Time) { m.beat.Store(int64(at.Sub(m.began))) }

func (m *Membership) keep(ctx context.Context) {
	next := time.NewTimer(nodeBeat)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		err := m.renew(ctx)
		if err != nil && ctx.Err() == nil {
			m.db.log.Warn("this node could not say that it lives", "error", err)
		}
		next.Reset(untilBeat(err))
	}
}

// untilBeat is how long after a renewal that ended so the next one comes. A node
// that could not renew makes no calls after a while, and so tries again at once
// when the database may be back.
func untilBeat(err error) time.Duration {
	if err != nil {
		return nodeRetry
	}
	return nodeBeat
}

// renew says that this node lives, and looks whether it still can.
func (m *Membership) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, nodeBeat)
	defer cancel()
	asked := time.Now()
	now, err := m.db.Clock(ctx)
	if err != nil {
		return err
	}
	err = m.db.Update(ctx, func(ctx context.Context, tx *Tx) error {
		if err := m.write(ctx, tx, now); err != nil {
			return err
		}
		newer, err := stepsAfter(ctx, tx, m.last)
		if err != nil || len(newer) == 0 {
			return err
		}
		return mayRunBeside(ctx, tx, m.db.engine, newer, m.last)
	})
	if fault.Is(err, "schema_newer") {
		m.outdated.Store(true)
		m.once.Do(func() { close(m.lost) })
	}
	if err == nil {
		m.renewed(asked)
	}
	return Wrap("renew this node", err)
}

func (m *Membership) write(ctx context.Context, tx *Tx, now time.Time) error {
	const query = `
insert into node (id, name, binary_version, schema_step, settings, started_at, seen_at) values ($1, $2, $3, $4, $5, $6, $7)
on conflict (id) do update set seen_at = excluded.seen_at`
	_, err := tx.ExecContext(ctx, query, m.id, m.node.Name, m.node.Binary, m.node.Schema, m.node.Settings, Micros(m.node.Started), Micros(now))
	return err
}

// sweepNodes forgets rows that nobody renews. A SQLite folder has one process,
// which is us: whoever left a row there has died.
func sweepNodes(ctx context.Context, tx *Tx, now time.Time) error {
	const query = `delete from node where seen_at < $1`
	before := now.Add(-nodeKept)
	if tx.db.engine == SQLite {
		before = now.Add(nodeKept)
	}
	_, err := tx.ExecContext(ctx, query, Micros(before))
	return err
}

func liveNodes(ctx context.Context, q Querier, now time.Time) ([]Node, error) {
	const query = `select name, binary_version, schema_step, settings, started_at, seen_at from node where seen_at > $1 order by started_at, id`
	rows, err := q.QueryContext(ctx, query, Micros(now.Add(-nodeLife)))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Node
	for rows.Next() {
		var n Node
		var started, seen int64
		if err := rows.Scan(&n.Name, &n.Binary, &n.Schema, &n.Settings, &started, &seen); err != nil {
			return nil, err
		}
		n.Started, n.Seen = Time(started), Time(seen)
		list = append(list, n)
	}
	return list, rows.Err()
}

// stepsAfter lists the recorded steps beyond last.
func stepsAfter(ctx context.Context, q Querier, last int) ([]Step, error) {
	const query = `select version, name from schema_version where version > $1 order by version`
	rows, err := q.QueryContext(ctx, query, last)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Step
	for rows.Next() {
		var s Step
		if err := rows.Scan(&s.Version, &s.Name); err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, rows.Err()
}

// nobodyBefore refuses a step while a node lives that could not go on beside it.
func (tx *Tx) nobodyBefore(ctx context.Context, s Step) error {
	const query = `select (extract(epoch from clock_timestamp()) * 1000000)::bigint`
	if tx.db.engine != PostgreSQL {
		return nil // the folder's lock is ours: nobody else lives
	}
	var now int64
	if err := tx.QueryRowContext(ctx, query).Scan(&now); err != nil {
		return err
	}
	list, err := liveNodes(ctx, tx, Time(now))
	if err != nil {
		return err
	}
	var names []string
	for _, n := range list {
		if n.Schema < s.Oldest {
			names = append(names, fmt.Sprintf("%s (%s, step %04d)", n.Name, n.Binary, n.Schema))
		}
	}
	if len(names) == 0 {
		return nil
	}
	return fault.New(fault.Conflict, "schema_in_use",
		fmt.Sprintf("Step %s cannot be applied while nodes run that do not know step %04d: %s.", s, s.Oldest, strings.Join(names, ", "))).
		WithHint("Stop those nodes first; one that died is forgotten after 20 seconds.")
}

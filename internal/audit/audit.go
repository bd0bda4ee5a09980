// Package audit keeps the record of every access: who (agent, user), in which
// session, to what, decided by which rule, with what outcome. It does not know
// who may do what. A call is recorded in two steps: [Log.Begin] makes the intent
// durable before anything is sent upstream, and fails closed; [Log.Finish] adds
// the outcome. What changes in the database is recorded in the same transaction
// by [Log.Append], what only happened by [Log.Record].
//
// Entries form one chain per process run. Entry n is
//
//	hash(n) = HMAC-SHA256(chain key, hash(n-1) ‖ lp(n, body))
//
// where body is canonical JSON and lp puts a length before each part. The chain
// key is wrapped by the root key, so a holder of the database alone can neither
// forge nor bridge a gap. A signed checkpoint of the head goes to a folder
// outside the data folder every few seconds; [Verify] holds the rows against
// chains and checkpoints, and says which tail no checkpoint has witnessed.
package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-dev/ambit/internal/disk"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/throttle"
)

// Actor is who did something.
type Actor struct {
	Kind string `json:"kind"` // agent, user, api_key or system
	ID   string `json:"id"`
}

// Entry is one thing that happened. Every field is data by design; callers put
// no secret and no payload into any of them (threats.md L3).
type Entry struct {
	ID             id.Event          `json:"id"`
	Time           time.Time         `json:"time"`
	Environment    id.Environment    `json:"environment_id,omitempty"`
	Organization   id.Organization   `json:"organization_id,omitempty"`
	Actor          Actor             `json:"actor"`
	Agent          id.Agent          `json:"agent_id,omitempty"`
	User           id.User           `json:"user_id,omitempty"`
	Session        id.Session        `json:"session_id,omitempty"`
	Approval       id.Approval       `json:"approval_id,omitempty"`
	Connection     id.Connection     `json:"connection_id,omitempty"`
	Action         string            `json:"action"`           // noun.verb
	Object         string            `json:"object,omitempty"` // what was accessed or changed
	Provider       string            `json:"provider,omitempty"`
	Tool           string            `json:"tool,omitempty"`
	Effect         string            `json:"effect,omitempty"`
	ArgumentDigest string            `json:"argument_digest,omitempty"` // SHA-256 of the canonical arguments, hex
	Decision       string            `json:"decision,omitempty"`        // allow, deny or empty
	Rule           string            `json:"rule,omitempty"`
	Code           string            `json:"code,omitempty"`
	Evidence       json.RawMessage   `json:"evidence,omitempty"` // of an approval
	Detail         map[string]string `json:"detail,omitempty"`
	Address        string            `json:"address,omitempty"`
}

// Outcome is how a call ended.
type Outcome struct {
	Status         string        `json:"status"` // ok, error, unknown or cut
	Code           string        `json:"code,omitempty"`
	UpstreamStatus int           `json:"upstream_status,omitempty"`
	Duration       time.Duration `json:"duration_ns"`
	// SettledBy is the node that gave a call its outcome, unknown, because the
	// process that made the call ended while it ran.
	SettledBy string `json:"settled_by,omitempty"`
}

// The kinds of row.
const (
	KindEvent   = "event"
	KindIntent  = "intent"
	KindOutcome = "outcome"
)

// body is what a row seals.
type body struct {
	Kind    string   `json:"row"`
	Ref     id.Event `json:"ref,omitempty"` // of an outcome: its intent
	Entry   *Entry   `json:"entry,omitempty"`
	Outcome *Outcome `json:"outcome,omitempty"`
	ID      id.Event `json:"row_id"`
	Time    int64    `json:"row_time"`

	again bool   // an outcome whose first transaction may have committed after all
	run   string // of an outcome: the run in which its call began
}

// Config is what a Log needs. DB, Keeper and CheckpointDir are required.
type Config struct {
	DB *sqldb.DB
	// Keeper wraps the keys of chains: a [keyring.Guard], or a [keyring.Ring]
	// whose primary root key may change.
	Keeper keyring.Keeper
	// CheckpointDir is where signed checkpoints go. It should lie outside the
	// data folder, best on another disk or machine.
	CheckpointDir string
	Node          string        // names this process in its chain; for people
	Every         time.Duration // between checkpoints; default 5 s
	Again         time.Duration // after which one that stands is written again; default 20 s
	// Written is told of each entry that was committed, for counting. It must be
	// quick. It may be nil.
	Written func(action, decision string)
	// Overdue is how long no checkpoint can be written before it is an alarm;
	// default 1 min, or three times Every.
	Overdue time.Duration
	// Unwitnessed is how long no checkpoint can be written before calls are
	// refused. Zero: they go on, since their intents are durable (threats.md L6).
	Unwitnessed time.Duration
	// Heartbeat is how often this run is renewed; default 5 s. One that misses six
	// is over: the calls that it left open are settled by another node.
	Heartbeat time.Duration
	Now       func() time.Time
	Logger    *slog.Logger
}

// Log appends entries. One Log exists per process; it is safe for concurrent
// use. Start it before use, and Stop it after everything that writes to it.
type Log struct {
	db      *sqldb.DB
	keeper  keyring.Keeper
	dir     string
	node    string
	every   time.Duration
	witness witness
	publish func(path string, content []byte) error // a checkpoint
	again   time.Duration                           // after which one that stands is written again
	written func(action, decision string)
	now     func() time.Time
	log     *slog.Logger
	sealed  bool // see Sealed

	chain  *chain
	spares spares

	pendingMu sync.Mutex
	pending   map[*sqldb.Tx]*pendingRows // entries that an open transaction will append

	commits   *commits
	alarms    chan Entry
	alarmRate *throttle.Limiter
	stop      chan struct{}
	stopOnce  sync.Once
	committed chan struct{} // closed when the committer has written what waited
	alarmed   chan struct{} // and when the alarms that waited are written
	wg        sync.WaitGroup

	beat  time.Duration
	ahead time.Duration // the database's clock, before this process' own
	open  atomic.Int64  // calls of this run that have begun and have no outcome yet
	left  sync.Once
}

// New opens the log, which starts a new chain.
func New(ctx context.Context, cfg Config) (*Log, error) {
	if cfg.Every == 0 {
		cfg.Every = 5 * time.Second
	}
	if cfg.Again == 0 {
		cfg.Again = 20 * time.Second
	}
	if cfg.Overdue == 0 {
		cfg.Overdue = max(time.Minute, 3*cfg.Every)
	}
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = defaultBeat
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if !Recorded {
		if !measuring() {
			return nil, errors.New("audit: this build puts no call on record and serves nobody; build it without the tag unrecorded")
		}
		cfg.Logger.Error("this build puts no call on record: it is to measure with, and no product")
	}
	l := &Log{
		db: cfg.DB, keeper: cfg.Keeper, dir: cfg.CheckpointDir, node: cfg.Node, every: cfg.Every, now: cfg.Now, log: cfg.Logger, spares: newSpares(),
		publish: disk.Replace, again: cfg.Again, written: cfg.Written, witness: witness{overdue: cfg.Overdue, limit: cfg.Unwitnessed},
		pending: map[*sqldb.Tx]*pendingRows{}, stop: make(chan struct{}), committed: make(chan struct{}),
		alarms: make(chan Entry, maxAlarms), alarmRate: throttle.New(1.0/60, 1, 1000, time.Now), alarmed: make(chan struct{}),
		beat: cfg.Heartbeat,
	}
	l.commits = newCommits(l.batch)
	signer, err := openSigner(ctx, cfg.DB, cfg.Keeper, cfg.CheckpointDir)
	if err != nil {
		return nil, err
	}
	if err := l.spares.fill(ctx, l.keeper); err != nil {
		return nil, err
	}
	l.chain = newChain(signer)
	clock, err := cfg.DB.Clock(ctx)
	if err != nil {
		return nil, err
	}
	l.ahead = time.Until(clock)
	err = l.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		l.AppendEvent(tx, Entry{Actor: Actor{Kind: "system", ID: "server"}, Action: "server.started", Object: l.node})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("starting an audit chain: %w", err)
	}
	return l, nil
}

// AppendEvent is Append for callers that do not need the entry's id.
func (l *Log) AppendEvent(tx *sqldb.Tx, e Entry) { _ = l.Append(tx, e) }

// Append records e in tx: it is written last, just before the commit, and a
// failure aborts the transaction. It returns the id that e gets.
func (l *Log) Append(tx *sqldb.Tx, e Entry) id.Event {
	e = l.complete(e)
	l.add(tx, entryRow(KindEvent, e))
	return e.ID
}

// Record makes e durable in a transaction of its own: for denials and for what
// changes nothing else.
func (l *Log) Record(ctx context.Context, e Entry) error {
	return l.db.Update(ctx, func(_ context.Context, tx *sqldb.Tx) error {
		l.AppendEvent(tx, e)
		return nil
	})
}

func (l *Log) complete(e Entry) Entry {
	if e.ID == "" {
		e.ID = id.NewEvent()
	}
	if e.Time.IsZero() {
		e.Time = l.now()
	}
	e.Time = e.Time.UTC().Truncate(time.Microsecond)
	return e.storable()
}

// pendingRows are the entries of one open transaction.
type pendingRows struct {
	rows    []row
	written bool
}

// add files rows under their transaction; the first ones register the hooks.
func (l *Log) add(tx *sqldb.Tx, rows ...row) {
	if len(rows) == 0 {
		return
	}
	for _, r := range rows {
		tx.Named(r.body.Entry.Action, r.body.Kind)
	}
	if l.sealed {
		tx.BeforeCommit(errSealed)
		return
	}
	l.pendingMu.Lock()
	defer l.pendingMu.Unlock()
	if p, ok := l.pending[tx]; ok {
		p.rows = append(p.rows, rows...)
		if p.written {
			// They would be lost: the transaction must not commit without them.
			tx.BeforeCommit(func(context.Context) error {
				return fmt.Errorf("an audit entry %q came after the transaction's entries were written", rows[0].body.Entry.Action)
			})
		}
		return
	}
	p := &pendingRows{rows: rows}
	l.pending[tx] = p
	var step *step
	tx.BeforeCommit(func(ctx context.Context) error {
		l.pendingMu.Lock()
		p.written = true
		l.pendingMu.Unlock()
		var err error
		step, err = l.chain.append(ctx, l, tx, p.rows)
		return err
	})
	tx.Done(func(committed bool) {
		l.pendingMu.Lock()
		delete(l.pending, tx)
		l.pendingMu.Unlock()
		if step != nil {
			step.end(committed)
		}
		if committed && l.written != nil {
			for _, r := range p.rows {
				if r.body.Kind != KindOutcome {
					l.written(r.body.Entry.Action, r.body.Entry.Decision)
				}
			}
		}
	})
}

// Ready reports whether the intent of a call could be made durable now. It
// writes to find that out.
func (l *Log) Ready(ctx context.Context) error {
	if err := l.commits.keepsUp(); err != nil {
		return err
	}
	if l.chain.putBack.Load() {
		return errPutBack(nil)
	}
	select {
	case <-l.stop:
		return unavailable(errors.New("the log is stopped"))
	default:
		return l.db.Writable(ctx)
	}
}

// Start runs what happens beside the calls until Stop: late outcomes, alarms, keys
// of chains, checkpoints, and the settling of runs that are over.
func (l *Log) Start() {
	l.wg.Go(l.writeLate)
	l.wg.Go(l.recordAlarms)
	l.wg.Go(l.fillSpares)
	l.wg.Go(l.checkpoints)
	l.wg.Go(l.live)
}

// Stop writes what waits, a last checkpoint, and returns. Begin fails from then on.
func (l *Log) Stop() {
	l.stopOnce.Do(func() { close(l.stop) })
	l.wg.Wait()
	l.left.Do(l.leave)
}

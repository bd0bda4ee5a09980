package sqldb

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// maxQueue is how many undelivered notices the hub keeps. Beyond it a slow
// subscriber has them replaced by one "something may have been missed".
const maxQueue = 10_000

type notice struct{ channel, payload string }

// hub hands notices to subscribers, in order, on one goroutine, so that a
// subscriber may use the database and a writer never waits for one.
type hub struct {
	mu     sync.Mutex
	subs   map[string]map[*subscription]struct{}
	queue  []notice
	missed bool
	closed bool

	wake chan struct{}
	done chan struct{}
}

type subscription struct{ fn func(payload string) }

func newHub() *hub {
	h := &hub{
		subs: make(map[string]map[*subscription]struct{}),
		wake: make(chan struct{}, 1),
		done: make(chan struct{}),
	}
	go h.run()
	return h
}

func (h *hub) publish(notices ...notice) {
	if len(notices) == 0 {
		return
	}
	h.mu.Lock()
	if len(h.queue)+len(notices) > maxQueue {
		h.queue, h.missed = nil, true
	} else {
		h.queue = append(h.queue, notices...)
	}
	h.mu.Unlock()
	h.poke()
}

func (h *hub) publishMissed() {
	h.mu.Lock()
	h.missed = true
	h.mu.Unlock()
	h.poke()
}

func (h *hub) poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *hub) run() {
	defer close(h.done)
	for range h.wake {
		for {
			h.mu.Lock()
			if h.closed {
				h.mu.Unlock()
				return
			}
			queue, missed := h.queue, h.missed
			h.queue, h.missed = nil, false
			h.mu.Unlock()
			if len(queue) == 0 && !missed {
				break
			}
			if missed {
				for _, fn := range h.everyone() {
					fn("")
				}
			}
			for _, n := range queue {
				for _, fn := range h.listening(n.channel) {
					fn(n.payload)
				}
			}
		}
	}
}

func (h *hub) listening(channel string) (fns []func(string)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs[channel] {
		fns = append(fns, s.fn)
	}
	return fns
}

func (h *hub) everyone() (fns []func(string)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, subs := range h.subs {
		for s := range subs {
			fns = append(fns, s.fn)
		}
	}
	return fns
}

func (h *hub) subscribe(channel string, fn func(string)) (cancel func()) {
	s := &subscription{fn}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.subs[channel] == nil {
		h.subs[channel] = make(map[*subscription]struct{})
	}
	h.subs[channel][s] = struct{}{}
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.subs[channel], s)
		if len(h.subs[channel]) == 0 {
			delete(h.subs, channel)
		}
	}
}

func (h *hub) stop() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.poke()
	<-h.done
}

// Subscribe calls fn with the payload of every notice on channel committed
// from now on, by any node, in commit order. All subscribers share one
// goroutine: fn must be quick. An empty payload also means that notices may
// have been missed, so read everything again. After cancel returns, a call of
// fn that had begun may still be running.
func (db *DB) Subscribe(channel string, fn func(payload string)) (cancel func()) {
	cancel = db.hub.subscribe(channel, fn)
	if db.engine == PostgreSQL && db.enter() == nil {
		defer db.inflight.Done()
		db.listenOnce.Do(func() {
			l := db.newListen()
			db.mu.Lock()
			db.listener = l
			db.mu.Unlock()
		})
		db.listener.awaitFirst(5 * time.Second)
	}
	return cancel
}

// pgChannel is the one PostgreSQL channel of a schema. Notices are heard
// database-wide, and a name may have 63 bytes, hence the digest.
func pgChannel(schema string) string {
	sum := sha256.Sum256([]byte(schema))
	return "ambit_" + hex.EncodeToString(sum[:12])
}

// sendNotices hands the notices to PostgreSQL, which delivers them at commit.
// The logical channel travels in front of the payload.
func (tx *Tx) sendNotices(ctx context.Context) {
	if tx.db.engine != PostgreSQL || len(tx.notices) == 0 {
		return
	}
	var query strings.Builder
	args := []any{pgChannel(tx.db.schema)}
	for i, n := range tx.notices {
		if i == 0 {
			query.WriteString("select ")
		} else {
			query.WriteString(", ")
		}
		args = append(args, n.channel+"\n"+n.payload)
		fmt.Fprintf(&query, "pg_notify($1, $%d)", len(args))
	}
	notifying := func(err error) error { return fmt.Errorf("send notices: %w", err) }
	_ = tx.Later(ctx, notifying, query.String(), args...) // a failure ends the transaction
}

// listener owns the PostgreSQL connection that hears notices.
type listener struct {
	config  *pgx.ConnConfig
	channel string
	hub     *hub
	log     *slog.Logger

	cancel context.CancelFunc
	first  chan struct{} // closed when LISTEN first took hold
	done   chan struct{}

	began time.Time    // what heard counts from; a monotonic reading, as the wall clock may jump
	heard atomic.Int64 // when the connection last gave a sign of life, in nanoseconds; 0 while there is none
}

const (
	noticeBeat = 150 * time.Millisecond // how long a connection may be silent before it is asked
	noticeDeaf = 400 * time.Millisecond // silent for this long, it may have missed a notice
	noticeDead = 5 * time.Second        // an answer that takes longer is not waited for
)

func (l *listener) start() {
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel, l.first, l.done, l.began = cancel, make(chan struct{}), make(chan struct{}), time.Now()
	go l.run(ctx)
}

// alive notes a sign of life.
func (l *listener) alive() { l.heard.Store(int64(time.Since(l.began)) + 1) }

func (l *listener) hears() bool {
	at := l.heard.Load()
	return at > 0 && time.Since(l.began)-time.Duration(at) < noticeDeaf
}

// Hearing reports whether notices of other nodes still arrive promptly. While it
// is false they may come late or not at all, as when the connection that hears
// them is cut off or the server is slow: whoever must not miss one reads the
// database instead. On SQLite there are no other nodes, and it is always true;
// on PostgreSQL it is false until the first Subscribe.
func (db *DB) Hearing() bool {
	if db.engine != PostgreSQL {
		return true
	}
	db.mu.Lock()
	l := db.listener
	db.mu.Unlock()
	return l != nil && l.hears()
}

func (l *listener) stop() {
	l.cancel()
	<-l.done
}

func (l *listener) awaitFirst(limit time.Duration) {
	select {
	case <-l.first:
	case <-l.done:
	case <-time.After(limit):
	}
}

func (l *listener) run(ctx context.Context) {
	defer close(l.done)
	wait := 50 * time.Millisecond
	for first := true; ; {
		conn, err := l.connect(ctx)
		if err == nil {
			wait = 50 * time.Millisecond
			l.alive()
			if first {
				close(l.first)
				first = false
			} else {
				l.hub.publishMissed()
			}
			err = l.hear(ctx, conn)
			l.heard.Store(0)
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			conn.Close(closing)
			cancel()
		}
		if ctx.Err() != nil {
			return
		}
		l.log.WarnContext(ctx, "change notices interrupted", "error", err, "retry_in", wait)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, 2*time.Second)
	}
}

func (l *listener) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, l.config)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "listen "+l.channel); err != nil {
		conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

// hear passes notices on until the connection or ctx ends. A silent
// connection is asked often, since a dead peer looks like a quiet one.
func (l *listener) hear(ctx context.Context, conn *pgx.Conn) error {
	for {
		quiet, cancel := context.WithTimeout(ctx, noticeBeat)
		n, err := conn.WaitForNotification(quiet)
		cancel()
		switch {
		case err == nil:
			l.alive()
			channel, payload, _ := strings.Cut(n.Payload, "\n")
			l.hub.publish(notice{channel, payload})
		case ctx.Err() != nil:
			return ctx.Err()
		case pgconn.Timeout(err) && !conn.IsClosed():
			asked, cancel := context.WithTimeout(ctx, noticeDead)
			err := conn.Ping(asked)
			cancel()
			if err != nil {
				return err
			}
			l.alive()
		default:
			return err
		}
	}
}

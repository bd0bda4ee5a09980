package audit

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/semaphore"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// head is the end of a chain.
type head struct {
	chain string
	seq   int64
	hash  []byte
}

// chain is this process' chain. mu is held from the moment that a transaction
// computes its hashes until that transaction has ended, so that entries commit
// in the order of their hashes. Append runs last in a transaction, which then
// waits for no other lock while it holds mu.
type chain struct {
	signer *signer

	mu    *semaphore.Weighted // of one, since it hears the end of a context
	head  head                // empty chain: the next append starts a new one
	links *links
	run   atomic.Pointer[string] // that the chain belongs to; written under mu
	sure  atomic.Pointer[head]   // the last head whose commit was acknowledged; written under mu
	// putBack says that sure is no longer in the database.
	putBack atomic.Bool
}

// step is an append whose transaction is still open.
type step struct {
	c     *chain
	next  head
	links *links
	spare spare // that it took, if it began a chain
	run   string
}

// end advances the chain, or abandons it. A commit that failed may have left
// rows behind, so the chain is not continued: the next append starts another
// one, which names whatever head this one turns out to have.
func (s *step) end(committed bool) {
	if committed {
		s.c.head, s.c.links = s.next, s.links
		s.c.sure.Store(&s.next)
		if s.run != "" {
			s.c.run.Store(&s.run)
		}
	} else {
		s.c.head.chain = ""
	}
	s.c.mu.Release(1)
}

// append computes and inserts rows. On success the caller must end the step.
func (c *chain) append(ctx context.Context, l *Log, tx *sqldb.Tx, rows []row) (*step, error) {
	if c.putBack.Load() {
		return nil, errPutBack(nil)
	}
	if err := c.mu.Acquire(ctx, 1); err != nil { // whoever holds it waits for the database
		return nil, sqldb.Wrap("wait for the audit chain", err)
	}
	s := &step{c: c, next: c.head, links: c.links}
	appended := false
	defer func() { // also after a panic: later entries must not wait for ever
		if !appended {
			c.mu.Release(1) // no commit was tried, so the head stands and the chain goes on
			l.spares.put(s.spare)
		}
	}()
	if err := c.appendLocked(ctx, l, tx, s, rows); err != nil {
		return nil, err
	}
	appended = true
	return s, nil
}

func (c *chain) appendLocked(ctx context.Context, l *Log, tx *sqldb.Tx, s *step, rows []row) error {
	after := s.next
	if s.next.chain == "" {
		opened, err := c.open(ctx, l, tx, s)
		if err != nil {
			return err
		}
		rows = append([]row{opened}, rows...)
	}
	all := make([]linked, len(rows))
	for i, r := range rows {
		if r.err != nil {
			return r.err
		}
		s.next.seq++
		s.next.hash = s.links.link(s.next.hash, s.next.seq, r.doc)
		all[i] = linked{s.next, r}
	}
	err := insertEntries(ctx, tx, after, all, c.explain)
	if sqldb.IsUnique(err) {
		c.head.chain = ""
	}
	return err
}

// explain says why entries could not be inserted.
func (c *chain) explain(err error) error {
	if sqldb.IsNull(err) { // the entry that they follow
		c.putBack.Store(true)
		return errPutBack(err)
	}
	return insertFailed(err)
}

// stands looks whether the database still has what it has acknowledged. When it
// was put back, or a failover lost its last commits, what was ended since is alive
// again, and nothing more may be done with it (threats.md K7).
func (c *chain) stands(ctx context.Context, q sqldb.Querier) error {
	last := c.sure.Load()
	if last == nil {
		return nil
	}
	there, err := stands(ctx, q, *last)
	switch {
	case err != nil:
		return sqldb.Wrap("look for the last audit entry", err)
	case !there:
		c.putBack.Store(true)
		return errPutBack(nil)
	}
	return nil
}

// open begins a new chain. Its first entry names the heads of the latest other
// chains, so that cutting one of those, or removing it whole, shows here.
func (c *chain) open(ctx context.Context, l *Log, tx *sqldb.Tx, s *step) (row, error) {
	if err := c.stands(ctx, tx); err != nil {
		return row{}, err
	}
	k, ok := l.spares.take(l.keeper.Describe().Ref)
	if !ok {
		return row{}, noKey()
	}
	chainID := k.chain
	s.links, s.spare = newLinks(k.key), k
	heads, err := latestHeads(ctx, tx)
	if err != nil {
		return row{}, fmt.Errorf("reading the heads of earlier audit chains: %w", err)
	}
	if s.run, err = l.openRun(ctx, tx, c.running()); err != nil {
		return row{}, fmt.Errorf("starting a run: %w", err)
	}
	now := l.now()
	if err := insertChain(ctx, tx, chainID, l.node, s.run, k.root, k.wrapped, now); err != nil {
		return row{}, fmt.Errorf("starting an audit chain: %w", err)
	}
	s.next = head{chain: chainID}
	detail := map[string]string{"node": l.node, "run": s.run}
	for i, h := range heads {
		detail[followsPrefix+strconv.Itoa(i)] = h.String()
	}
	return entryRow(KindEvent, l.complete(Entry{
		Time: now, Actor: Actor{Kind: "system", ID: "server"}, Action: chainStarted, Object: chainID, Detail: detail,
	})), nil
}

const (
	chainStarted  = "audit.chain_started"
	followsPrefix = "follows_"
)

// String is the form of a head in entries and checkpoints.
func (h head) String() string { return fmt.Sprintf("%s %d %x", h.chain, h.seq, h.hash) }

func parseHead(s string) (head, error) {
	var h head
	if _, err := fmt.Sscanf(s, "%s %d %x", &h.chain, &h.seq, &h.hash); err != nil {
		return head{}, fmt.Errorf("reading the head of a chain: %w", err)
	}
	return h, nil
}

func (c *chain) current() head {
	defer c.lock()()
	return c.head
}

// lock waits as long as it takes, which the limit of a commit bounds.
func (c *chain) lock() (unlock func()) {
	_ = c.mu.Acquire(context.Background(), 1) // fails at the end of its context only
	return func() { c.mu.Release(1) }
}

func newChain(s *signer) *chain { return &chain{signer: s, mu: semaphore.NewWeighted(1)} }

// columns keeps of an intent what the look-up columns of its outcome repeat.
func (e *Entry) columns() *Entry {
	return &Entry{
		Environment: e.Environment, Organization: e.Organization, Actor: e.Actor, Agent: e.Agent, User: e.User,
		Session: e.Session, Connection: e.Connection, Action: e.Action, Decision: e.Decision,
	}
}

// storable is e with every text in a form that both engines keep. Bad bytes of
// a hostile caller must not keep an entry out of the log.
func (e Entry) storable() Entry {
	e.Environment, e.Organization = storable(e.Environment), storable(e.Organization)
	e.Actor = Actor{storable(e.Actor.Kind), storable(e.Actor.ID)}
	e.Agent, e.User, e.Session = storable(e.Agent), storable(e.User), storable(e.Session)
	e.Approval, e.Connection = storable(e.Approval), storable(e.Connection)
	e.Action, e.Object, e.Provider, e.Tool = storable(e.Action), storable(e.Object), storable(e.Provider), storable(e.Tool)
	e.Effect, e.ArgumentDigest, e.Decision = storable(e.Effect), storable(e.ArgumentDigest), storable(e.Decision)
	e.Rule, e.Code, e.Address = storable(e.Rule), storable(e.Code), storable(e.Address)
	if e.Detail != nil {
		clean := make(map[string]string, len(e.Detail))
		for k, v := range e.Detail {
			clean[storable(k)] = storable(v)
		}
		e.Detail = clean
	}
	return e
}

// storable puts U+FFFD in the place of what is not UTF-8, or is a zero byte.
func storable[S ~string](s S) S {
	if utf8.ValidString(string(s)) && strings.IndexByte(string(s), 0) < 0 {
		return s
	}
	const mark = "\uFFFD"
	return S(strings.ReplaceAll(strings.ToValidUTF8(string(s), mark), "\x00", mark))
}

// links computes the hashes of one chain. It belongs to one goroutine at a time.
type links struct {
	mac hash.Hash // keyed once: setting a key costs as much as a short entry
	buf []byte
}

func newLinks(key secret.Value) *links { return &links{mac: hmac.New(sha256.New, key.Reveal())} }

// link is the hash of entry seq. Everything has a length in front, so no two
// entries share an input: what is hashed is crypt.Fields(previous, seq, doc).
func (l *links) link(previous []byte, seq int64, doc []byte) []byte {
	l.mac.Reset()
	var digits [20]byte
	number := strconv.AppendInt(digits[:0], seq, 10)
	b := binary.BigEndian.AppendUint32(l.buf[:0], uint32(len(previous)))
	b = append(b, previous...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(number)))
	b = append(b, number...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(doc)))
	_, _ = l.mac.Write(b)
	_, _ = l.mac.Write(doc)
	l.buf = b
	return l.mac.Sum(nil)
}

func chainContext(chainID string) keyring.Context {
	return keyring.Context{AAD: crypt.Fields("ambit audit chain 1", chainID), Purpose: "audit-chain"}
}

// chainKey unwraps the key of a chain.
func chainKey(ctx context.Context, k keyring.Keeper, chainID string, wrapped []byte) (secret.Value, error) {
	return k.Unwrap(ctx, wrapped, chainContext(chainID))
}

func decodeBody(doc []byte) (body, error) {
	var b body
	if err := json.Unmarshal(doc, &b); err != nil {
		return body{}, fmt.Errorf("reading an audit entry: %w", err)
	}
	if b.Entry != nil {
		b.Entry.Time = b.Entry.Time.UTC().Truncate(time.Microsecond)
	}
	return b, nil
}

package audit

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// row is an entry or outcome on its way into the chain, already encoded: the
// chain waits while a row is appended, and one that does not encode must fail
// alone.
type row struct {
	body body
	doc  []byte
	err  error
}

func entryRow(kind string, e Entry) row {
	return encode(body{Kind: kind, Entry: &e, ID: e.ID, Time: sqldb.Micros(e.Time)})
}

func encode(b body) row {
	doc, err := strictjson.CanonicalOf(b)
	if err != nil {
		err = fmt.Errorf("encoding an audit entry: %w", err)
	}
	return row{b, doc, err}
}

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

	mu   sync.Mutex
	head head // empty chain: the next append starts a new one
	key  secret.Value
	run  atomic.Pointer[string] // that the chain belongs to; written under mu
}

// step is an append whose transaction is still open.
type step struct {
	c     *chain
	next  head
	key   secret.Value
	spare spare // that it took, if it began a chain
	run   string
}

// end advances the chain, or abandons it. A commit that failed may have left
// rows behind, so the chain is not continued: the next append starts another
// one, which names whatever head this one turns out to have.
func (s *step) end(committed bool) {
	if committed {
		s.c.head, s.c.key = s.next, s.key
		if s.run != "" {
			s.c.run.Store(&s.run)
		}
	} else {
		s.c.head.chain = ""
	}
	s.c.mu.Unlock()
}

// append computes and inserts rows. On success the caller must end the step.
func (c *chain) append(ctx context.Context, l *Log, tx *sqldb.Tx, rows []row) (*step, error) {
	c.mu.Lock()
	s := &step{c: c, next: c.head, key: c.key}
	if err := c.appendLocked(ctx, l, tx, s, rows); err != nil {
		c.mu.Unlock() // no commit was tried, so the head stands and the chain goes on
		l.spares.put(s.spare)
		return nil, err
	}
	return s, nil
}

func (c *chain) appendLocked(ctx context.Context, l *Log, tx *sqldb.Tx, s *step, rows []row) error {
	if s.next.chain == "" {
		opened, err := c.open(ctx, l, tx, s)
		if err != nil {
			return err
		}
		rows = append([]row{opened}, rows...)
	}
	for _, r := range rows {
		if r.err != nil {
			return r.err
		}
		s.next.seq++
		s.next.hash = link(s.key, s.next.hash, s.next.seq, r.doc)
		if err := insertEntry(ctx, tx, s.next, r.body, r.doc); err != nil {
			if sqldb.IsUnique(err) { // its place is taken: another node closed the run of this one
				c.head.chain = ""
				return errRunClosed(err)
			}
			return fmt.Errorf("appending to the audit chain: %w", err)
		}
	}
	return nil
}

// open begins a new chain. Its first entry names the heads of the latest other
// chains, so that cutting one of those, or removing it whole, shows here.
func (c *chain) open(ctx context.Context, l *Log, tx *sqldb.Tx, s *step) (row, error) {
	k, ok := l.spares.take()
	if !ok {
		return row{}, errNoKey
	}
	chainID := k.chain
	s.key, s.spare = k.key, k
	heads, err := latestHeads(ctx, tx)
	if err != nil {
		return row{}, fmt.Errorf("reading the heads of earlier audit chains: %w", err)
	}
	if s.run, err = l.openRun(ctx, tx, c.running()); err != nil {
		return row{}, fmt.Errorf("starting a run: %w", err)
	}
	now := l.now()
	if err := insertChain(ctx, tx, chainID, l.node, s.run, l.keeper.Describe().Ref, k.wrapped, now); err != nil {
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
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.head
}

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

// link is the hash of entry seq. Everything has a length in front, so no two
// entries share an input.
func link(key secret.Value, previous []byte, seq int64, doc []byte) []byte {
	m := hmac.New(sha256.New, key.Reveal())
	m.Write(crypt.Fields(string(previous), strconv.FormatInt(seq, 10), string(doc)))
	return m.Sum(nil)
}

func chainAAD(chainID string) []byte { return crypt.Fields("ambit audit chain 1", chainID) }

// chainKey unwraps the key of a chain.
func chainKey(ctx context.Context, k keyring.Keeper, chainID string, wrapped []byte) (secret.Value, error) {
	return k.Unwrap(ctx, wrapped, chainAAD(chainID))
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

package audit

import (
	"bytes"
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"strings"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Problem is one finding of Verify.
type Problem struct {
	Chain string `json:"chain,omitempty"`
	Seq   int64  `json:"seq,omitempty"`
	What  string `json:"what"`
}

// Tail is the end of a chain that no checkpoint has witnessed: whoever can
// write the database and stop the server could cut it without a trace.
type Tail struct {
	Chain   string `json:"chain"`
	From    int64  `json:"from"` // the first unwitnessed entry
	Entries int64  `json:"entries"`
	// Node is the node whose chain it is. Elsewhere says that no checkpoint of that
	// node is in the folders that were read: it keeps its own in another.
	Node      string `json:"node"`
	Elsewhere bool   `json:"elsewhere"`
}

// Report is what Verify found.
type Report struct {
	Chains      int       `json:"chains"`
	Entries     int64     `json:"entries"`
	Checkpoints int       `json:"checkpoints"`
	Problems    []Problem `json:"problems"`
	Unwitnessed []Tail    `json:"unwitnessed"`
}

// Intact reports whether nothing was found wrong.
func (r Report) Intact() bool { return len(r.Problems) == 0 }

// VerifyConfig names what Verify reads.
type VerifyConfig struct {
	DB          *sqldb.DB
	Keeper      keyring.Keeper
	Checkpoints []string            // folders: each node writes one of its own
	Progress    func(entries int64) // called now and then; may be nil
}

const verifyPageSQL = `select ` + entryColumns + ` from audit_entry where chain_id = $1 and seq > $2 order by seq limit 1000`

const verifyOrphansSQL = `select count(*) from audit_entry where seq < 1 or chain_id not in (select id from audit_chain)`

// Verify reads every entry and holds it against its chain, and every chain
// against its checkpoint and against the chains that name it. It finds any
// edit, deletion, insertion or reorder, and any cut before the last checkpoint. A
// log without a single chain has been emptied.
func Verify(ctx context.Context, cfg VerifyConfig) (Report, error) {
	q := cfg.DB.Reader()
	v := &verifying{cfg: cfg, q: q, r: Report{Problems: []Problem{}, Unwitnessed: []Tail{}}, checkpoints: map[string]checkpoint{}, heads: map[string]head{}, unread: map[string]bool{}}
	verifier, err := v.signer(ctx)
	if err != nil {
		return Report{}, err
	}
	// Checkpoints are read before chains and chains before entries: what is
	// written meanwhile then never looks like something missing.
	for _, dir := range cfg.Checkpoints {
		found, problems, err := readCheckpoints(dir, verifier)
		if err != nil {
			return Report{}, err
		}
		v.r.Problems = append(v.r.Problems, problems...)
		for chain, cp := range found {
			if cp.seq >= v.checkpoints[chain].seq { // of a copy and what it was made of, the newer one
				v.checkpoints[chain] = cp
			}
		}
	}
	v.r.Checkpoints = len(v.checkpoints)
	chains, err := allChains(ctx, q)
	if err != nil {
		return Report{}, sqldb.Wrap("list the audit chains", err)
	}
	if len(chains) == 0 {
		// New writes an entry before it returns, so no log of ours is ever empty.
		v.problem("", 0, "the log is empty: every chain is missing, though a server writes its first entry before it does anything else")
	}
	for _, c := range chains {
		if err := v.chain(ctx, c); err != nil {
			return Report{}, err
		}
	}
	v.acrossChains()
	v.unwitnessed(chains)
	var orphans int64
	if err := q.QueryRowContext(ctx, verifyOrphansSQL).Scan(&orphans); err != nil {
		return Report{}, sqldb.Wrap("look for audit entries without a chain", err)
	}
	if orphans > 0 {
		v.problem("", 0, fmt.Sprintf("%d entries belong to no chain", orphans))
	}
	return v.r, nil
}

type verifying struct {
	cfg         VerifyConfig
	q           sqldb.Querier
	r           Report
	checkpoints map[string]checkpoint
	named       []following
	heads       map[string]head // the last entry of each chain
	unread      map[string]bool // chains whose key does not unwrap
}

// following is what a chain says in its first entry: which head it found; or
// later, which end it gave to the chain of a run that was over.
type following struct {
	by   string
	at   int64 // the entry that says so
	head head
}

// signer holds the checkpoint key in the database against the root key.
func (v *verifying) signer(ctx context.Context) (verifier string, err error) {
	var wrapped []byte
	err = v.q.QueryRowContext(ctx, signerSQL).Scan(&wrapped, &verifier)
	if sqldb.NoRows(err) {
		v.problem("", 0, "the checkpoint key is missing from the database")
		return "", nil
	}
	if err != nil {
		return "", sqldb.Wrap("load the audit checkpoint key", err)
	}
	seed, err := v.cfg.Keeper.Unwrap(ctx, wrapped, signerContext)
	if errors.Is(err, crypt.ErrIntegrity) {
		v.problem("", 0, "the checkpoint key in the database does not unwrap under this root key")
		return verifier, nil
	}
	if err != nil {
		return "", fmt.Errorf("unwrapping the audit checkpoint key: %w", err)
	}
	own, err := verifierOf(seed)
	if err != nil {
		return "", err
	}
	if own != verifier {
		v.problem("", 0, "the verifier of checkpoints in the database was changed")
	}
	return own, nil
}

func (v *verifying) problem(chain string, seq int64, what string) {
	if len(v.r.Problems) < 1000 {
		v.r.Problems = append(v.r.Problems, Problem{Chain: chain, Seq: seq, What: what})
	}
}

func (v *verifying) chain(ctx context.Context, c chainRow) error {
	v.r.Chains++
	key, err := chainKey(ctx, v.cfg.Keeper, c.id, c.wrapped)
	if errors.Is(err, crypt.ErrIntegrity) {
		v.problem(c.id, 0, "its key does not unwrap under this root key")
		v.unread[c.id] = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("unwrapping the key of an audit chain: %w", err)
	}
	last, links, closed := head{chain: c.id}, newLinks(key), false
	for {
		page, err := queryEntries(ctx, v.q, verifyPageSQL, c.id, last.seq)
		if err != nil {
			return sqldb.Wrap("read an audit chain", err)
		}
		for _, s := range page {
			if closed {
				v.problem(c.id, s.seq, "stands after the entry that closed the chain")
			}
			v.entry(c, links, last, s)
			closed = closed || s.kind == KindEvent && s.action == chainClosed
			last = s.head // of a changed entry too: go on from what is stored, to find further changes
		}
		if v.cfg.Progress != nil {
			v.cfg.Progress(v.r.Entries)
		}
		if len(page) == 0 {
			break
		}
	}
	if last.seq == 0 {
		v.problem(c.id, 0, "all its entries are missing")
	}
	v.heads[c.id] = last
	if cp, ok := v.checkpoints[c.id]; ok && cp.seq > last.seq {
		v.problem(c.id, last.seq+1, fmt.Sprintf("%s missing: a checkpoint of %s saw entry %d", lastEntries(cp.seq-last.seq), cp.time.Format("2006-01-02 15:04:05Z"), cp.seq))
	}
	return nil
}

// entry checks one row against the one before it.
func (v *verifying) entry(c chainRow, links *links, last head, s stored) {
	v.r.Entries++
	v.compareWitness(s.head)
	missing := s.seq != last.seq+1
	if missing {
		v.problem(c.id, s.seq, fmt.Sprintf("%d entries before it are missing", s.seq-last.seq-1))
	}
	// After a gap the hash before is unknown, and so is whether this one is right.
	if !missing && !hmac.Equal(links.link(last.hash, s.seq, s.body), s.hash) {
		v.problem(c.id, s.seq, "was changed, or stands in another place than it was written")
	}
	b, err := decodeBody(s.body)
	if err != nil {
		v.problem(c.id, s.seq, "is not an audit entry")
		return
	}
	if diff := compareColumns(s, b); diff != "" {
		v.problem(c.id, s.seq, "its column "+diff+" does not say what the entry says")
		return
	}
	if s.seq != 1 && b.Entry.Action != runClosed {
		return
	}
	if e := b.Entry; s.seq == 1 && (e.Action != chainStarted || e.Object != c.id || e.Detail["node"] != c.node || e.Detail["run"] != c.run || sqldb.Micros(e.Time) != c.startedAt) {
		v.problem(c.id, s.seq, "does not say of the chain what its row in audit_chain says")
	}
	for k, text := range b.Entry.Detail {
		if strings.HasPrefix(k, followsPrefix) {
			if h, err := parseHead(text); err == nil {
				v.named = append(v.named, following{c.id, s.seq, h})
			}
		}
	}
}

// compareWitness holds an entry against the checkpoint that names it.
func (v *verifying) compareWitness(h head) {
	if cp, ok := v.checkpoints[h.chain]; ok && cp.seq == h.seq && !bytes.Equal(cp.hash, h.hash) {
		v.problem(h.chain, h.seq, "is not the entry that the checkpoint witnessed")
	}
}

// acrossChains checks what only several chains or files together show.
func (v *verifying) acrossChains() {
	for chain, cp := range v.checkpoints {
		if _, ok := v.heads[chain]; !ok && !v.unread[chain] {
			v.problem(chain, 0, fmt.Sprintf("the whole chain is missing: a checkpoint saw %d entries of it", cp.seq))
		}
	}
	for _, f := range v.named {
		last, ok := v.heads[f.head.chain]
		switch {
		case v.unread[f.head.chain]:
		case !ok:
			v.problem(f.head.chain, 0, fmt.Sprintf("the whole chain is missing: a later chain follows its entry %d", f.head.seq))
		case f.head.seq > last.seq:
			v.problem(f.head.chain, last.seq+1, fmt.Sprintf("entries are missing: a later chain follows its entry %d", f.head.seq))
		case f.head.seq == last.seq && !bytes.Equal(f.head.hash, last.hash):
			v.problem(f.head.chain, f.head.seq, "is not the entry that a later chain follows")
		}
	}
}

// unwitnessed lists the tails that nothing outside the database vouches for. A
// checkpoint vouches for its chain up to its entry, and so for the heads that are
// named up to there.
func (v *verifying) unwitnessed(chains []chainRow) {
	seen, here := map[string]int64{}, map[string]bool{}
	for _, c := range chains {
		if _, ok := v.checkpoints[c.id]; ok {
			here[c.node] = true
		}
	}
	for chain, cp := range v.checkpoints {
		seen[chain] = cp.seq
	}
	for changed := true; changed; {
		changed = false
		for _, f := range v.named {
			if seen[f.by] >= f.at && seen[f.head.chain] < f.head.seq {
				seen[f.head.chain] = f.head.seq
				changed = true
			}
		}
	}
	for _, c := range chains {
		if last, ok := v.heads[c.id]; ok && seen[c.id] < last.seq {
			v.r.Unwitnessed = append(v.r.Unwitnessed, Tail{Chain: c.id, From: seen[c.id] + 1, Entries: last.seq - seen[c.id], Node: c.node, Elsewhere: len(here) > 0 && !here[c.node]})
		}
	}
}

// compareColumns names the first column that differs from the sealed body.
func compareColumns(s stored, b body) string {
	e := b.Entry
	if e == nil {
		return "body"
	}
	if s.time != b.Time {
		return "time"
	}
	pairs := []struct{ name, column, body string }{
		{"id", s.id, string(b.ID)}, {"kind", s.kind, b.Kind}, {"ref", s.ref, string(b.Ref)},
		{"environment_id", s.environment, string(e.Environment)}, {"organization_id", s.organization, string(e.Organization)},
		{"agent_id", s.agent, string(e.Agent)}, {"user_id", s.user, string(e.User)}, {"session_id", s.session, string(e.Session)},
		{"connection_id", s.connection, string(e.Connection)}, {"action", s.action, e.Action}, {"decision", s.decision, e.Decision},
	}
	for _, p := range pairs {
		if p.column != p.body {
			return p.name
		}
	}
	return ""
}

func lastEntries(n int64) string {
	if n == 1 {
		return "the last entry is"
	}
	return fmt.Sprintf("the last %d entries are", n)
}

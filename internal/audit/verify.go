package audit

import (
	"bytes"
	"context"
	"crypto/hmac"
	"fmt"
	"slices"
	"strings"

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
	DB            *sqldb.DB
	Keeper        keyring.Keeper
	CheckpointDir string
	Progress      func(entries int64) // called now and then; may be nil
}

const verifyPageSQL = `select ` + entryColumns + ` from audit_entry where chain_id = $1 and seq > $2 order by seq limit 1000`

const verifyOrphansSQL = `select count(*) from audit_entry where chain_id not in (select id from audit_chain)`

// Verify reads every entry and holds it against its chain, and every chain
// against its checkpoint and against the chains that name it. It finds any
// edit, deletion, insertion or reorder, and any cut before the last checkpoint.
func Verify(ctx context.Context, cfg VerifyConfig) (Report, error) {
	q := cfg.DB.Reader()
	var wrapped []byte
	var verifier string
	if err := q.QueryRowContext(ctx, signerSQL).Scan(&wrapped, &verifier); err != nil {
		return Report{}, fmt.Errorf("loading the audit checkpoint key: %w", sqldb.Wrap("verify the audit log", err))
	}
	checkpoints, problems, err := readCheckpoints(cfg.CheckpointDir, verifier)
	if err != nil {
		return Report{}, err
	}
	v := &verifying{cfg: cfg, q: q, r: Report{Checkpoints: len(checkpoints), Problems: problems}, checkpoints: checkpoints,
		named: map[string][]head{}, heads: map[string]head{}}
	chains, err := allChains(ctx, q)
	if err != nil {
		return Report{}, sqldb.Wrap("list the audit chains", err)
	}
	for _, c := range chains {
		if err := v.chain(ctx, c); err != nil {
			return Report{}, err
		}
	}
	v.acrossChains()
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
	named       map[string][]head // heads that other chains say they follow
	heads       map[string]head   // the last entry of each chain
}

func (v *verifying) problem(chain string, seq int64, what string) {
	if len(v.r.Problems) < 1000 {
		v.r.Problems = append(v.r.Problems, Problem{Chain: chain, Seq: seq, What: what})
	}
}

func (v *verifying) chain(ctx context.Context, c chainRow) error {
	v.r.Chains++
	key, err := chainKey(ctx, v.cfg.Keeper, c.id, c.wrapped)
	if err != nil {
		v.problem(c.id, 0, "its key does not unwrap under this root key")
		return nil
	}
	last := head{chain: c.id}
	broken := false
	for {
		page, err := queryEntries(ctx, v.q, verifyPageSQL, c.id, last.seq)
		if err != nil {
			return sqldb.Wrap("read an audit chain", err)
		}
		for _, s := range page {
			if s.seq != last.seq+1 {
				v.problem(c.id, s.seq, fmt.Sprintf("%d entries before it are missing", s.seq-last.seq-1))
				broken = true
			}
			want := link(key, last.hash, s.seq, s.body)
			if !broken && !hmac.Equal(want, s.hash) {
				v.problem(c.id, s.seq, "was changed, or stands in another place than it was written")
				broken = true // every later hash rests on this one
			}
			b, err := decodeBody(s.body)
			if err != nil {
				v.problem(c.id, s.seq, "is not an audit entry")
			} else if diff := compareColumns(s, b); diff != "" {
				v.problem(c.id, s.seq, "its column "+diff+" does not say what the entry says")
			} else if b.Entry != nil && b.Entry.Action == "audit.chain_started" {
				v.remember(b.Entry.Detail)
			}
			last = s.head
			v.compareWitness(s.head)
			v.r.Entries++
			if broken {
				broken = false // go on from the stored hash, to find further changes
			}
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
	cp, ok := v.checkpoints[c.id]
	switch {
	case !ok:
		v.r.Unwitnessed = append(v.r.Unwitnessed, Tail{Chain: c.id, From: 1, Entries: last.seq})
	case cp.seq > last.seq:
		v.problem(c.id, last.seq+1, fmt.Sprintf("the last %d entries are missing: a checkpoint of %s saw entry %d", cp.seq-last.seq, cp.time.Format("2006-01-02 15:04:05Z"), cp.seq))
	case cp.seq < last.seq:
		v.r.Unwitnessed = append(v.r.Unwitnessed, Tail{Chain: c.id, From: cp.seq + 1, Entries: last.seq - cp.seq})
	}
	return nil
}

// compareWitness holds an entry against the checkpoint that names it.
func (v *verifying) compareWitness(h head) {
	if cp, ok := v.checkpoints[h.chain]; ok && cp.seq == h.seq && !bytes.Equal(cp.hash, h.hash) {
		v.problem(h.chain, h.seq, "is not the entry that the checkpoint witnessed")
	}
}

func (v *verifying) remember(detail map[string]string) {
	for k, text := range detail {
		if strings.HasPrefix(k, followsPrefix) {
			if h, err := parseHead(text); err == nil {
				v.named[h.chain] = append(v.named[h.chain], h)
			}
		}
	}
}

// acrossChains checks what only several chains or files together show.
func (v *verifying) acrossChains() {
	for chain, cp := range v.checkpoints {
		if _, ok := v.heads[chain]; !ok && !slices.ContainsFunc(v.r.Problems, func(p Problem) bool { return p.Chain == chain }) {
			v.problem(chain, 0, fmt.Sprintf("the whole chain is missing: a checkpoint saw %d entries of it", cp.seq))
		}
	}
	for chain, named := range v.named {
		last, ok := v.heads[chain]
		for _, h := range named {
			switch {
			case !ok:
				v.problem(chain, 0, fmt.Sprintf("the whole chain is missing: a later chain follows its entry %d", h.seq))
			case h.seq > last.seq:
				v.problem(chain, last.seq+1, fmt.Sprintf("entries are missing: a later chain follows its entry %d", h.seq))
			case h.seq == last.seq && !bytes.Equal(h.hash, last.hash):
				v.problem(chain, h.seq, "is not the entry that a later chain follows")
			}
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

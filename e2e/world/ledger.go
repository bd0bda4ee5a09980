package world

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the drivers "pgx" and
	_ "modernc.org/sqlite"             // "sqlite"

	"github.com/ambit-dev/ambit/internal/provider"
)

// Entry is an audit entry as it stands in the database.
type Entry struct {
	ID, Kind, Ref       string // of an outcome, Ref is its intent
	Time                time.Time
	Session, Connection string
	Action, Decision    string
	Rule, Code          string
	Digest              string // of the arguments of a call
	Status              string // of an outcome
	Chain               string
	Seq                 int64
}

// Ledger is the audit log, read past the servers.
type Ledger struct {
	Entries  []Entry          // in the order of their times
	Intents  map[string]Entry // by the digest of the arguments, which [Op.Digest] gives
	Outcomes map[string]Entry // by the id of their intent
}

// OpenDatabase opens the database of the first node, past the server.
func (w *World) OpenDatabase() (*sql.DB, error) {
	n := w.Nodes[0]
	if n.Database != "" {
		return sql.Open("pgx", n.Database)
	}
	return sql.Open("sqlite", "file:"+url.PathEscape(filepath.Join(n.DataDir(), "ambit.db"))+"?mode=rw&_pragma=busy_timeout(10000)")
}

// Ledger reads the audit log since a time.
func (w *World) Ledger(ctx context.Context, since time.Time) (Ledger, error) {
	db, err := w.OpenDatabase()
	if err != nil {
		return Ledger{}, err
	}
	defer db.Close()
	return ReadLedger(ctx, db, since)
}

// ReadLedger reads the audit log of a database since a time.
func ReadLedger(ctx context.Context, db *sql.DB, since time.Time) (Ledger, error) {
	l := Ledger{Intents: map[string]Entry{}, Outcomes: map[string]Entry{}}
	rows, err := db.QueryContext(ctx, `select id, kind, ref, time, session_id, connection_id, action, decision, chain_id, seq, body from audit_entry
where time >= $1 order by time, chain_id, seq`, since.UnixMicro())
	if err != nil {
		return l, fmt.Errorf("reading the audit log: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var e Entry
		var at int64
		var body []byte
		if err := rows.Scan(&e.ID, &e.Kind, &e.Ref, &at, &e.Session, &e.Connection, &e.Action, &e.Decision, &e.Chain, &e.Seq, &body); err != nil {
			return l, err
		}
		e.Time = time.UnixMicro(at)
		var doc struct {
			Entry struct {
				Rule   string `json:"rule"`
				Code   string `json:"code"`
				Digest string `json:"argument_digest"`
			} `json:"entry"`
			Outcome struct {
				Status string `json:"status"`
				Code   string `json:"code"`
			} `json:"outcome"`
		}
		if err := json.Unmarshal(body, &doc); err != nil {
			return l, fmt.Errorf("reading the audit entry %s: %w", e.ID, err)
		}
		e.Rule, e.Code, e.Digest, e.Status = doc.Entry.Rule, doc.Entry.Code, doc.Entry.Digest, doc.Outcome.Status
		switch e.Kind {
		case "intent":
			l.Intents[e.Digest] = e
		case "outcome":
			e.Code = doc.Outcome.Code
			l.Outcomes[e.Ref] = e
		}
		l.Entries = append(l.Entries, e)
	}
	return l, rows.Err()
}

// Digest is what the audit says of the arguments of a call.
func (op Op) Digest() string {
	doc, err := json.Marshal(op.args())
	if err == nil {
		doc, err = provider.CanonicalArgs(doc)
	}
	if err != nil {
		return err.Error() // meets no entry
	}
	sum := sha256.Sum256(doc)
	return hex.EncodeToString(sum[:])
}

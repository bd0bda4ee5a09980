package audit

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Filter selects entries. Empty fields select everything; Environment is
// required, so that no look-up crosses environments by accident.
type Filter struct {
	Environment  id.Environment
	Organization id.Organization
	Agent        id.Agent
	User         id.User
	Session      id.Session
	Connection   id.Connection
	Action       string   // exact, or a noun followed by ".*"
	Actions      []string // one of these, exactly
	Happened     bool     // leaves out what was refused
	Decision     string
	Since, Until time.Time
	After        string // cursor of the page before
	Oldest       bool   // oldest first; not together with Server
	Limit        int    // 1 to 200; default 50
	// Server adds what happened to the server itself, which belongs to no
	// environment: starts, backups, restores, another root key, and alarms of root key
	// and checkpoints.
	Server bool
}

// ofServer selects what happened to the server itself.
const ofServer = `action in ('server.started', 'server.restored', 'server.backed_up', 'audit.run_closed',
	'audit.checkpoint_overdue', 'audit.checkpoint_resumed', 'key.unreachable', 'key.unusable', 'key.usable', 'root_key.changed')`

// Record is an entry as stored, with its outcome when that is known.
type Record struct {
	Entry
	Kind    string   `json:"kind"`
	Ref     id.Event `json:"ref,omitempty"`
	Outcome *Outcome `json:"outcome,omitempty"`
	Chain   string   `json:"chain"`
	Seq     int64    `json:"seq"`
}

// Page is a list of records, newest first or as the filter says. Next is empty on the last page.
type Page struct {
	Records []Record
	Next    string
}

// List returns entries, newest first or as f says.
func (l *Log) List(ctx context.Context, f Filter) (Page, error) {
	if f.Environment == "" {
		return Page{}, fault.New(fault.Invalid, "environment_required", "Say which environment's entries to list.")
	}
	if f.Limit == 0 {
		f.Limit = 50
	}
	if f.Limit < 1 || f.Limit > 200 {
		return Page{}, fault.New(fault.Invalid, "invalid_limit", "A page has 1 to 200 entries.")
	}
	q := l.db.Lists(f.lists())
	rows, err := l.newest(ctx, q, f, "kind <> 'outcome'")
	if err == nil && f.Server {
		// Two reads along an index instead of one that sorts an environment.
		ours := f
		ours.Environment = ""
		var alarms []stored
		alarms, err = l.newest(ctx, q, ours, "kind <> 'outcome' and "+ofServer)
		rows = append(rows, alarms...)
		slices.SortFunc(rows, func(a, b stored) int { return cmp.Or(cmp.Compare(b.time, a.time), cmp.Compare(b.id, a.id)) })
		rows = rows[:min(len(rows), f.Limit+1)]
	}
	if err != nil {
		return Page{}, sqldb.Wrap("list audit entries", err)
	}
	var p Page
	if len(rows) > f.Limit {
		rows = rows[:f.Limit]
		last := rows[len(rows)-1]
		p.Next = sqldb.Cursor(last.time, last.id)
	}
	if p.Records, err = l.records(ctx, q, rows); err != nil {
		return Page{}, err
	}
	return p, nil
}

// newest reads the rows of a page that f and first select, and one more.
func (l *Log) newest(ctx context.Context, q sqldb.Querier, f Filter, first string) ([]stored, error) {
	where, args := f.where(first)
	than, direction := "<", "desc"
	if f.Oldest {
		than, direction = ">", "asc"
	}
	if f.After != "" {
		t, last, err := sqldb.ParseCursor(f.After)
		if err != nil {
			return nil, err
		}
		args = append(args, t, last)
		where += fmt.Sprintf(" and (time, id) %s ($%d, $%d)", than, len(args)-1, len(args))
	}
	args = append(args, f.Limit+1)
	return queryEntries(ctx, q, `select `+entryColumns+` from audit_entry where `+where+
		fmt.Sprintf(" order by time %s, id %s limit $%d", direction, direction, len(args)), args...)
}

const entryTimeSQL = `select time from audit_entry where environment_id = $1 and id = $2`

// After is the cursor of what comes after an entry of env, for wires whose cursors
// are ids.
func (l *Log) After(ctx context.Context, env id.Environment, entry string) (string, error) {
	var t int64
	err := l.db.Reader().QueryRowContext(ctx, entryTimeSQL, env, entry).Scan(&t)
	if sqldb.NoRows(err) {
		return "", fault.New(fault.Invalid, "invalid_cursor", "There is no such event.").WithHint("Use the id of an event that an earlier page gave, or none.")
	}
	if err != nil {
		return "", sqldb.Wrap("look up an audit entry", err)
	}
	return sqldb.Cursor(t, entry), nil
}

// oldest reads the first rows that f and first select.
func (l *Log) oldest(ctx context.Context, f Filter, first string) ([]stored, error) {
	where, args := f.where(first)
	return queryEntries(ctx, l.db.Lists(f.lists()), `select `+entryColumns+` from audit_entry where `+where+` order by time, id limit 5000`, args...)
}

// lists is whose turn it is to read lists; see sqldb.DB.Lists.
func (f Filter) lists() string { return cmp.Or(string(f.Organization), string(f.Environment)) }

// where builds the condition; only column names that are written here and
// placeholders enter the text (threats.md U4).
func (f Filter) where(first string) (string, []any) {
	conds := []string{first, "environment_id = $1"}
	args := []any{f.Environment}
	eq := func(column, value string) {
		if value != "" {
			args = append(args, value)
			conds = append(conds, fmt.Sprintf("%s = $%d", column, len(args)))
		}
	}
	eq("organization_id", string(f.Organization))
	eq("agent_id", string(f.Agent))
	eq("user_id", string(f.User))
	if f.Session != "" {
		conds = append(conds, "session_id <> ''") // for the index
		eq("session_id", string(f.Session))
	}
	eq("connection_id", string(f.Connection))
	eq("decision", f.Decision)
	if f.Happened {
		conds = append(conds, "decision <> 'deny'")
	}
	if len(f.Actions) > 0 {
		var marks []string
		for _, a := range f.Actions {
			args = append(args, a)
			marks = append(marks, fmt.Sprintf("$%d", len(args)))
		}
		conds = append(conds, "action in ("+strings.Join(marks, ", ")+")")
	}
	if noun, ok := strings.CutSuffix(f.Action, ".*"); ok {
		// Not a range: what lies between two texts depends on the collation.
		args = append(args, utf8.RuneCountInString(noun)+1, noun+".")
		conds = append(conds, fmt.Sprintf("substr(action, 1, $%d) = $%d", len(args)-1, len(args)))
	} else {
		eq("action", f.Action)
	}
	if !f.Since.IsZero() {
		args = append(args, sqldb.Micros(f.Since))
		conds = append(conds, fmt.Sprintf("time >= $%d", len(args)))
	}
	if !f.Until.IsZero() {
		args = append(args, sqldb.Micros(f.Until))
		conds = append(conds, fmt.Sprintf("time < $%d", len(args)))
	}
	return strings.Join(conds, " and "), args
}

// records decodes rows and joins the outcomes of intents.
func (l *Log) records(ctx context.Context, q sqldb.Querier, rows []stored) ([]Record, error) {
	out := make([]Record, 0, len(rows))
	at := map[string]int{}
	var marks []string
	var args []any
	for _, s := range rows {
		b, err := decodeBody(s.body)
		if err != nil {
			return nil, err
		}
		r := Record{Kind: b.Kind, Ref: b.Ref, Outcome: b.Outcome, Chain: s.chain, Seq: s.seq}
		if b.Entry != nil {
			r.Entry = *b.Entry
		}
		r.ID, r.Time = b.ID, sqldb.Time(b.Time)
		if b.Kind == KindIntent {
			at[s.id] = len(out)
			args = append(args, s.id)
			marks = append(marks, "$"+strconv.Itoa(len(args)))
		}
		out = append(out, r)
	}
	if len(args) == 0 {
		return out, nil
	}
	outcomes, err := queryEntries(ctx, q, `select `+entryColumns+` from audit_entry where kind = 'outcome' and ref <> '' and ref in (`+strings.Join(marks, ", ")+`)`, args...)
	if err != nil {
		return nil, sqldb.Wrap("read the outcomes of calls", err)
	}
	for _, s := range outcomes {
		b, err := decodeBody(s.body)
		if err != nil {
			return nil, err
		}
		out[at[s.ref]].Outcome = b.Outcome
	}
	return out, nil
}

const unfinishedSQL = `select ` + entryColumns + ` from audit_entry i where i.session_id = $1 and i.session_id <> '' and i.kind = 'intent'
and not exists (select 1 from audit_entry o where o.ref = i.id and o.ref <> '' and o.kind = 'outcome') order by i.time, i.id limit 200`

// Unfinished lists the calls of a session that have begun and whose outcome is
// not known: they run now, or their process died. Asked in the transaction that
// ends the session, it lists exactly the calls that had started, but for the
// last milliseconds of other nodes.
func (l *Log) Unfinished(ctx context.Context, q sqldb.Querier, session id.Session) ([]Record, error) {
	answered := l.commits.answered(session) // before the rows: what is written meanwhile stands in them
	rows, err := queryEntries(ctx, q, unfinishedSQL, session)
	if err != nil {
		return nil, sqldb.Wrap("list running calls", err)
	}
	rows = slices.DeleteFunc(rows, func(s stored) bool { return answered[id.Event(s.id)] })
	return l.records(ctx, q, rows)
}

const callsSQL = `select count(*) from (select 1 from audit_entry where session_id in (%s) and session_id <> '' and kind = 'intent' and action = 'tool.call' limit %d) let_through`

// Calls counts the calls that were let through in sessions, up to most; more says
// that there are others.
func (l *Log) Calls(ctx context.Context, sessions []id.Session, most int) (n int, more bool, err error) {
	if len(sessions) == 0 {
		return 0, false, nil
	}
	marks, args := sqldb.In(sessions)
	if err := l.db.Reader().QueryRowContext(ctx, fmt.Sprintf(callsSQL, marks, most+1), args...).Scan(&n); err != nil {
		return 0, false, sqldb.Wrap("count calls", err)
	}
	return min(n, most), n > most, nil
}

// followWindow is how far Follow looks back: a transaction that takes longer to
// commit than this could be passed over.
const followWindow = 35 * time.Second

// Follow calls fn for each new row, outcomes included, until ctx ends or fn
// fails. Rows of several nodes come in the order in which they become visible.
func (l *Log) Follow(ctx context.Context, f Filter, fn func(Record) error) error {
	if f.Environment == "" {
		return fault.New(fault.Invalid, "environment_required", "Say which environment's entries to follow.")
	}
	// Entries are on the hot path, and PostgreSQL lines up the commits that
	// announce something, so followers look instead of being told.
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	seen := map[string]time.Time{}
	if f.Since.IsZero() {
		f.Since = l.now()
	}
	from := f.Since
	for {
		which := f
		which.Since, which.Until = from, time.Time{}
		rows, err := l.oldest(ctx, which, "1 = 1")
		if err == nil && f.Server {
			which.Environment = ""
			var ours []stored
			ours, err = l.oldest(ctx, which, ofServer)
			rows = append(rows, ours...)
			slices.SortFunc(rows, func(a, b stored) int { return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.id, b.id)) })
		}
		if err != nil {
			return sqldb.Wrap("follow the audit log", err)
		}
		fresh := rows[:0]
		for _, s := range rows {
			if _, ok := seen[s.id]; !ok {
				seen[s.id] = sqldb.Time(s.time)
				fresh = append(fresh, s)
			}
		}
		records, err := l.records(ctx, l.db.Lists(f.lists()), fresh)
		if err != nil {
			return err
		}
		for _, r := range records {
			if r.Kind == KindIntent {
				r.Outcome = nil // it comes as a row of its own
			}
			if err := fn(r); err != nil {
				return err
			}
		}
		if w := l.now().Add(-followWindow); w.After(from) {
			from = w
		}
		for k, t := range seen {
			if t.Before(from) {
				delete(seen, k)
			}
		}
		if len(rows) == 5000 {
			from = sqldb.Time(rows[len(rows)-1].time)
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// In the very words of the index audit_entry_by_root_key.
const rootKeyChangesSQL = `select count(*) from audit_entry where environment_id = $1 and organization_id = $2 and user_id = $3 and action in ('root_key.bound', 'root_key.unbound')`

// RootKeyChanges is how often a root key was bound to exactly this scope, or taken
// from it, as far as it is on record.
func RootKeyChanges(ctx context.Context, q sqldb.Querier, env id.Environment, org id.Organization, user id.User) (n int64, err error) {
	err = q.QueryRowContext(ctx, rootKeyChangesSQL, env, org, user).Scan(&n)
	return n, err
}

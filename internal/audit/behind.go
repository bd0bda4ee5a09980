package audit

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// newestCheckpoints are as many as CheckBehind holds against the database. One
// moment of a database has all runs up to it, so the newest few tell.
const (
	newestCheckpoints = 20
	clocks            = 5 * time.Second // more than the clocks of nodes may differ by
)

const (
	restoredAtSQL = `select coalesce(max(time), 0) from audit_entry where action = $1`
	standsSQL     = `select count(*) from audit_entry where chain_id = $1 and seq = $2 and hash = $3`
	upToSQL       = `select count(*) from audit_entry where chain_id = $1 and seq <= $2`
)

// CheckBehind refuses a database that lacks entries which checkpoints in dir have
// seen: it was put back to an earlier moment, and with it whatever was ended since
// (threats.md K7). `ambit restore` ends all that, and its entry, named restored,
// settles the checkpoints up to then. Only checkpoints of this very database count.
// It writes nothing, and takes a database that nobody has migrated yet.
//
// It is for mistakes: whoever can also write the checkpoint folder, or forge the
// entry, gets past it, and not past [Verify].
func CheckBehind(ctx context.Context, db *sqldb.DB, dir, restored string) error {
	if made, err := db.HasTable(ctx, "audit_signer"); err != nil || !made {
		return err
	}
	q := db.Reader()
	var wrapped []byte
	var verifier string
	err := q.QueryRowContext(ctx, signerSQL).Scan(&wrapped, &verifier)
	if sqldb.NoRows(err) {
		return nil
	}
	if err != nil {
		return sqldb.Wrap("load the audit checkpoint key", err)
	}
	found, problems, err := readCheckpoints(dir, verifier)
	if err != nil || len(found) == 0 || slices.ContainsFunc(problems, func(p Problem) bool { return p.What == otherVerifier }) {
		return nil //nolint:nilerr // a folder that cannot be read is reported where it is written to
	}
	ahead, err := aheadOf(ctx, q, found)
	if err != nil || len(ahead) == 0 {
		return err
	}
	var restoredAt int64 // read only now: it takes the whole log
	if err := q.QueryRowContext(ctx, restoredAtSQL, restored).Scan(&restoredAt); err != nil {
		return sqldb.Wrap("look for a restore", err)
	}
	lost, at := int64(0), time.Time{}
	for _, c := range ahead {
		if !c.time.After(sqldb.Time(restoredAt).Add(clocks)) {
			continue
		}
		if lost += c.missing; c.time.After(at) {
			at = c.time
		}
	}
	if lost == 0 {
		return nil
	}
	return fault.New(fault.Conflict, codePutBack, fmt.Sprintf("This database is of an earlier moment: the audit checkpoints in %s have seen at least %s entries that it lacks, the last at %s.",
		dir, strconv.FormatInt(lost, 10), at.UTC().Format(time.RFC3339))).
		WithHint("It was put back, or a failover lost its last commits, and what was ended since would be alive again.\nStop all servers, then run: ambit restore --in-place\nambit audit verify --data DIR names what is missing.")
}

// errPutBack ends every transaction of a server whose database was put back under
// it: [chain.stands].
func errPutBack(cause error) error {
	return fault.New(fault.Unavailable, codePutBack, "The database is of an earlier moment than this server has seen: it was put back, or a failover lost its last commits. What was ended since would be alive again, so nothing is done.").
		WithHint("The operator must stop all servers and run: ambit restore --in-place").WithCause(cause)
}

const codePutBack = "database_put_back"

// sight is a checkpoint that has seen more than the log has, by so many entries.
type sight struct {
	checkpoint
	missing int64
}

// aheadOf gives those of the newest checkpoints whose very entry the log lacks, or
// any before it. The last number alone says nothing: a server that ran on after the
// database was put back has gone on counting from the head that it remembered, and
// has written checkpoints of what came then.
func aheadOf(ctx context.Context, q sqldb.Querier, found map[string]checkpoint) ([]sight, error) {
	list := slices.SortedFunc(maps.Values(found), func(a, b checkpoint) int { return b.time.Compare(a.time) })
	var ahead []sight
	for _, c := range list[:min(len(list), newestCheckpoints)] {
		there, err := stands(ctx, q, c.head)
		if err != nil {
			return nil, sqldb.Wrap("hold checkpoints against the audit log", err)
		}
		var have int64
		if err := q.QueryRowContext(ctx, upToSQL, c.chain, c.seq).Scan(&have); err != nil {
			return nil, sqldb.Wrap("hold checkpoints against the audit log", err)
		}
		if there && have == c.seq {
			continue
		}
		ahead = append(ahead, sight{c, max(c.seq-have, 1)}) // at least one: another may stand in its place
	}
	return ahead, nil
}

// stands reports whether the entry at h is in the log.
func stands(ctx context.Context, q sqldb.Querier, h head) (bool, error) {
	var n int
	err := q.QueryRowContext(ctx, standsSQL, h.chain, h.seq, h.hash).Scan(&n)
	return n > 0, err
}

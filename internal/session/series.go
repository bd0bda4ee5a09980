package session

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// MaxLike is how many more calls one approval allows at most.
const MaxLike = 20

// Like allows more calls than the one that is approved, until its session ends: of the
// same tool on the same account with the same effect, and with the same arguments but
// for those that may differ. Each is counted, and on record under the approval.
type Like struct {
	Calls  int      `json:"calls"`            // 0: none
	Differ []string `json:"differ,omitempty"` // names of arguments
}

// Series is what became of a [Like].
type Series struct {
	Like
	Used int
}

// Repeats reports whether p may allow more calls like the one that is asked for. What
// deletes, makes access or sends mail is approved one by one, and so is what the
// organization wants approved one by one.
func (a Approval) Repeats() bool {
	c := a.Call
	return c != nil && (c.Effect == policy.Read || c.Effect == policy.Write) && c.Why == "" && (c.Shown == nil || c.Shown.As != "mail") &&
		a.First.By == "" && a.rules.Settings.Approvals.Of(c.Effect) == policy.ByGrant
}

// MayDiffer names the arguments that a person may let be different in calls like it. Of
// a call in the words of HTTP that is the body alone: what the rest of it decides, where
// it goes above all, nobody can judge before it is there.
func (c CallSubject) MayDiffer() []string {
	members, _ := strictjson.Members(c.Arguments)
	names := make([]string, 0, len(members))
	for name := range members {
		if !c.Generic || name == "body" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// like checks what a person allows beside the call.
func (a Approval) like(l Like) (Like, error) {
	if l.Calls == 0 {
		return Like{}, nil
	}
	bad := func(msg string) (Like, error) {
		return Like{}, fault.New(fault.Invalid, "invalid_decision", msg).WithHint("Nothing was approved. Go back to the request and decide again.")
	}
	if !a.Repeats() {
		return bad("Calls like this are approved one by one.")
	}
	if l.Calls < 1 || l.Calls > MaxLike {
		return bad(fmt.Sprintf("The calls like this are 1 to %d.", MaxLike))
	}
	names := a.Call.MayDiffer()
	if slices.ContainsFunc(l.Differ, func(name string) bool { return !slices.Contains(names, name) }) {
		return bad("The call has no such argument that may be different.")
	}
	l.Differ = slices.Compact(slices.Sorted(slices.Values(l.Differ)))
	return l, nil
}

// likeDigest is the same for calls that are alike but for the arguments that may differ.
func likeDigest(l Live, c CallSubject, differ []string) (string, error) {
	members, ok := strictjson.Members(c.Arguments)
	if !ok {
		return "", fmt.Errorf("reading the arguments of a call")
	}
	for _, name := range differ {
		delete(members, name)
	}
	doc, err := strictjson.CanonicalOf(struct {
		Agent      id.Agent                   `json:"agent_id"`
		User       id.User                    `json:"user_id"`
		Connection id.Connection              `json:"connection_id"`
		Tool       string                     `json:"tool"`
		Digest     string                     `json:"tool_digest"`
		Effect     policy.Effect              `json:"effect"`
		Method     string                     `json:"method"`
		Arguments  map[string]json.RawMessage `json:"arguments"`
	}{l.agent, l.user, c.Connection, c.Tool, c.ToolDigest, c.Effect, c.Method, members})
	if err != nil {
		return "", err
	}
	return hexDigest(doc), nil
}

const (
	insertSeriesSQL = `insert into approval_series (approval_id, session_id, connection_id, tool, alike, differ, most, used) values ($1, $2, $3, $4, $5, $6, $7, 0)`
	seriesSQL       = `select s.approval_id, s.alike, s.differ, a.note from approval_series s join approval a on a.id = s.approval_id
where s.session_id = $1 and s.connection_id = $2 and s.tool = $3 and s.used < s.most order by a.decided_at, s.approval_id limit 50`
	seriesOfSQL  = `select differ, most, used from approval_series where approval_id = $1`
	useSeriesSQL = `update approval_series set used = used + 1 where approval_id = $1 and used < most`
)

// openSeries stores that an approval allows more calls.
func openSeries(ctx context.Context, tx *sqldb.Tx, a Approval, l Like) error {
	if l.Calls == 0 {
		return nil
	}
	alike, err := likeDigest(Live{agent: a.row.agent, user: a.row.user}, *a.Call, l.Differ)
	if err != nil {
		return err
	}
	differ, err := json.Marshal(l.Differ)
	if err != nil {
		return fmt.Errorf("encoding what may differ: %w", err)
	}
	_, err = tx.ExecContext(ctx, insertSeriesSQL, a.ID, a.Session.ID, a.Call.Connection, a.Call.Tool, alike, string(differ), l.Calls)
	return sqldb.Wrap("allow more calls", err)
}

// seriesFor finds an approval that allows a call because it is like the one that it was
// for. Only the fence counts it; empty: there is none. A person's no to just this call
// stands, however long ago, until a person says yes to just this call.
func (s *Service) seriesFor(ctx context.Context, l Live, c CallSubject, key string) (a id.Approval, note string, err error) {
	type allowed struct {
		approval    id.Approval
		alike, note string
		differ      []string
	}
	all, err := sqldb.Collect(func(row sqldb.Scanner) (allowed, error) {
		var o allowed
		var differ []byte
		if err := row.Scan(&o.approval, &o.alike, &differ, &o.note); err != nil {
			return o, err
		}
		return o, readDiffer(differ, &o.differ)
	})(s.db.Reader().QueryContext(ctx, seriesSQL, l.session, c.Connection, c.Tool))
	if err != nil {
		return "", "", sqldb.Wrap("look for approved calls", err)
	}
	for _, o := range all {
		got, err := likeDigest(l, c, o.differ)
		if err != nil {
			return "", "", err
		}
		if got != o.alike {
			continue
		}
		if denied, err := s.deniedLast(ctx, l.session, key); err != nil || denied {
			return "", "", err
		}
		return o.approval, o.note, nil
	}
	return "", "", nil
}

// deniedLast reports whether the last that a person said to just this call was no, in
// the session or anything that was handed on of it.
func (s *Service) deniedLast(ctx context.Context, sid id.Session, key string) (bool, error) {
	root, err := s.Parent(ctx, sid)
	if err != nil {
		return false, err
	}
	last, err := lastDecision(ctx, s.db.Reader(), cmp.Or(root, sid), key)
	if err != nil && !sqldb.NoRows(err) {
		return false, sqldb.Wrap("look for a denied request", err)
	}
	return last == ApprovalDenied, nil
}

func readDiffer(doc []byte, into *[]string) error {
	if err := json.Unmarshal(doc, into); err != nil {
		return fmt.Errorf("reading what may differ: %w", err)
	}
	return nil
}

// useSeries takes one of the calls that an approval allows. Who comes too late is
// refused.
func useSeries(ctx context.Context, q sqldb.Querier, a id.Approval) error {
	res, err := q.ExecContext(ctx, useSeriesSQL, a)
	return oneRow(res, err, "count an approved call",
		fault.New(fault.Denied, "approval_stale", "The calls that were approved like this one are used up.").WithHint("Make the call again to ask for a new approval."))
}

// seriesOf is what an approval allows beside its own call; nil: nothing.
func (s *Service) seriesOf(ctx context.Context, a id.Approval) (*Series, error) {
	var out Series
	var differ []byte
	err := s.db.Reader().QueryRowContext(ctx, seriesOfSQL, a).Scan(&differ, &out.Calls, &out.Used)
	if sqldb.NoRows(err) {
		return nil, nil
	}
	if err != nil {
		return nil, sqldb.Wrap("look for approved calls", err)
	}
	if err := readDiffer(differ, &out.Differ); err != nil {
		return nil, err
	}
	return &out, nil
}

// String says the calls in words.
func (x Like) String() string {
	differ := "in all of which everything is the same"
	if len(x.Differ) > 0 {
		differ = "in which only " + strings.Join(x.Differ, ", ") + " may differ"
	}
	return fmt.Sprintf("%d more calls like it, %s", x.Calls, differ)
}

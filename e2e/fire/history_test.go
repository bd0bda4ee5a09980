//go:build e2e

package fire

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/ambit-dev/ambit/e2e/world"
)

// The model (F15): one session, as everybody who looks from outside must be able
// to explain it, whichever node they ask.
//
//	pending ──grant──▶ active ──revoke──▶ revoked
//	                     └────expire────▶ expired
//
// A use succeeds while the session is active and at no other time; a refused use
// tells in which state it is. Whatever took effect did so at one moment between
// its call and its answer.
type event struct {
	session    string
	what       string // grant, use, revoke or expire
	saw        string // of a use: its code
	start, end time.Time
}

const (
	pending = "pending"
	active  = "active"
	revoked = "revoked"
	expired = "expired"
)

// step says whether e can happen in a state, and what follows.
func step(state string, e event) (possible bool, next string) {
	switch e.what {
	case "grant":
		return state == pending, active
	case "revoke":
		return true, map[string]string{pending: revoked, active: revoked, revoked: revoked, expired: expired}[state]
	case "expire":
		return true, map[string]string{pending: pending, active: expired, revoked: revoked, expired: expired}[state]
	}
	if e.saw == world.OK {
		return state == active, state
	}
	return e.saw == state, state
}

var model = porcupine.Model{
	Init: func() any { return pending },
	Step: func(state, input, _ any) (bool, any) {
		ok, next := step(state.(string), input.(event))
		return ok, next
	},
	DescribeOperation: func(input, _ any) string { e := input.(event); return e.what + " " + e.saw },
	Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
		of := map[string][]porcupine.Operation{}
		for _, op := range all {
			s := op.Input.(event).session
			of[s] = append(of[s], op)
		}
		return slices.Collect(maps.Values(of))
	},
}

// telling leaves out the uses that say no more than others do, without which the
// search takes for ever when many run beside a revoke. A session is in each state
// for one stretch of time. Uses that saw the same all fall into it if and only if
// the one that began last and the one that ended first do.
func telling(history []event) (out []event) {
	type sight struct{ session, saw string }
	last, first := map[sight]event{}, map[sight]event{}
	for _, e := range history {
		at := sight{e.session, e.saw}
		if e.what != "use" {
			out = append(out, e)
			continue
		}
		if l, seen := last[at]; !seen || e.start.After(l.start) {
			last[at] = e
		}
		if f, seen := first[at]; !seen || e.end.Before(f.end) {
			first[at] = e
		}
	}
	for at, e := range last {
		if out = append(out, e); first[at] != e {
			out = append(out, first[at])
		}
	}
	return out
}

func linearizable(history []event) porcupine.CheckResult {
	var ops []porcupine.Operation
	for _, e := range telling(history) {
		ops = append(ops, porcupine.Operation{Input: e, Call: e.start.UnixNano(), Return: e.end.UnixNano()})
	}
	return porcupine.CheckOperationsTimeout(model, ops, time.Minute)
}

// uses are the calls of a history. A call that tells nothing of its session,
// because a part of the server was away or nobody answered, constrains nothing.
func uses(ops []world.Op) (out []event) {
	for _, op := range ops {
		switch saw := op.Answer.Code; saw {
		case world.OK, pending, revoked, expired:
			out = append(out, event{op.Session.ID, "use", saw, op.Start, op.End})
		}
	}
	return out
}

func grants(sessions ...*world.Session) (out []event) {
	for _, s := range sessions {
		out = append(out, event{s.ID, "grant", "", s.Asked, s.Granted})
	}
	return out
}

// endAt moves the end of a session, past the servers, to a moment to come. Nobody
// may notice before, nor miss it after: that moment is the event. If the database
// takes longer than until then, it is some moment until it has answered.
func endAt(t *testing.T, w *world.World, s *world.Session, at time.Time) event {
	t.Helper()
	db, err := w.OpenDatabase()
	must(t, err)
	defer db.Close()
	at = at.Truncate(time.Microsecond)
	changed, err := db.ExecContext(t.Context(), `update session set expires_at = $1 where id = $2 and state = 'active'`, at.UnixMicro(), s.ID)
	must(t, err)
	if n, err := changed.RowsAffected(); n != 1 || err != nil {
		t.Fatalf("moving the end of a session: %d rows, %v", n, err)
	}
	e := event{s.ID, "expire", "", at, at}
	if now := time.Now(); now.After(at) {
		e.end = now
	}
	return e
}

// checkHistory fails the test if no order explains the history.
func checkHistory(t *testing.T, history ...[]event) {
	t.Helper()
	all := slices.Concat(history...)
	count := map[string]int{}
	for _, e := range all {
		count[e.what]++
	}
	if count["expire"] == 0 {
		t.Error("F15: no session ended by its time")
	}
	if got := linearizable(all); got != porcupine.Ok {
		t.Errorf("F15: the history %v is %s, want one that an order explains", count, got)
	}
	t.Logf("F15: a linearizable history of %v", count)
}

// A checker that accepts everything proves nothing.
func TestHistoryCheckerSees(t *testing.T) {
	t.Parallel()
	many := func(saw string, from, to int) (out []event) { // side by side
		for i := range 64 {
			out = append(out, event{"ses_1", "use", saw, time.Unix(1_800_000_000, int64(from)*1e6+int64(i)), time.Unix(1_800_000_000, int64(to)*1e6+int64(i))})
		}
		return out
	}
	at := func(ms int) time.Time { return time.Unix(1_800_000_000, 0).Add(time.Duration(ms) * time.Millisecond) }
	ev := func(what, saw string, from, to int) event { return event{"ses_1", what, saw, at(from), at(to)} }
	grant, revoke, expire := ev("grant", "", 0, 10), ev("revoke", "", 100, 120), ev("expire", "", 200, 200)
	for name, c := range map[string]struct {
		history []event
		want    porcupine.CheckResult
	}{
		"as it must be": {[]event{grant, ev("use", "ok", 20, 30), revoke, ev("use", "revoked", 121, 125)}, porcupine.Ok},
		"a use beside the revoke may go either way": {[]event{grant, ev("use", "ok", 110, 300), ev("use", "revoked", 101, 119), revoke}, porcupine.Ok},
		"a use after the revoke returned":           {[]event{grant, revoke, ev("use", "ok", 121, 125)}, porcupine.Illegal},
		"a refusal before the revoke began":         {[]event{grant, ev("use", "revoked", 20, 30), revoke}, porcupine.Illegal},
		"revoked on one node, active on the other":  {[]event{grant, revoke, ev("use", "revoked", 101, 105), ev("use", "ok", 106, 110)}, porcupine.Illegal},
		"a use before the grant":                    {[]event{ev("use", "ok", -20, -10), grant}, porcupine.Illegal},
		"a use after the end":                       {[]event{grant, expire, ev("use", "ok", 201, 230)}, porcupine.Illegal},
		"an early end":                              {[]event{grant, expire, ev("use", "expired", 180, 199)}, porcupine.Illegal},
		"ended never revives":                       {[]event{grant, expire, ev("use", "expired", 205, 210), ev("use", "ok", 220, 230)}, porcupine.Illegal},
		"a revoke that nobody made":                 {[]event{grant, ev("use", "revoked", 20, 30)}, porcupine.Illegal},
		"many beside a revoke":                      {slices.Concat([]event{grant, revoke}, many("ok", 101, 119), many("revoked", 102, 118)), porcupine.Ok},
		"one of many after the revoke":              {slices.Concat([]event{grant, revoke, ev("use", "ok", 121, 122)}, many("ok", 101, 119), many("revoked", 102, 118)), porcupine.Illegal},
		"one of many before the grant":              {slices.Concat([]event{grant, revoke, ev("use", "ok", -5, -1)}, many("ok", 20, 119)), porcupine.Illegal},
		"one of many refused too soon":              {slices.Concat([]event{grant, revoke, ev("use", "revoked", 90, 99)}, many("revoked", 102, 118)), porcupine.Illegal},
		"two sessions do not mix":                   {[]event{grant, revoke, {"ses_2", "grant", "", at(0), at(10)}, {"ses_2", "use", "ok", at(130), at(140)}}, porcupine.Ok},
	} {
		if got := linearizable(c.history); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

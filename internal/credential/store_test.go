package credential

import (
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// A token that lives for a few seconds used to be stale from its first moment, so
// that every call refreshed it.
func TestAFreshTokenIsNotStale(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	for _, life := range []time.Duration{time.Millisecond, time.Second, 6 * time.Second, 20 * time.Second, time.Minute, time.Hour, 24 * time.Hour} {
		r := row{obtainedAt: now, expiresAt: now.Add(life)}
		if r.stale(now) || r.stale(now.Add(life/2-1)) {
			t.Errorf("a token of %v is stale in the first half of its life", life)
		}
		if !r.stale(now.Add(life-min(life/2, clockSkew))) || !r.stale(r.expiresAt) {
			t.Errorf("a token of %v is not refreshed before its end", life)
		}
		if early := r.earlyWindow(); early > 5*time.Minute+30*time.Second+clockSkew {
			t.Errorf("a token of %v is refreshed %v before its end", life, early)
		}
	}
}

// Rule 11 of oauth.md §3.1: tokens that were given together are not refreshed
// together. Each has its own moment within a tenth of the window, on every node the
// same.
func TestRefreshesAreSpread(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	moments := map[time.Duration]bool{}
	for range 1000 {
		r := row{connection: id.NewConnection(), obtainedAt: now, expiresAt: now.Add(time.Hour)}
		early := r.earlyWindow() - clockSkew
		if early < 270*time.Second || early > 330*time.Second || early != r.earlyWindow()-clockSkew {
			t.Fatalf("one is refreshed %v before its end, want 5 minutes, a tenth more or less", early)
		}
		moments[early.Round(time.Second)] = true
	}
	if len(moments) < 50 {
		t.Errorf("a thousand refreshes fall into %d seconds, want a minute", len(moments))
	}
}

// A bug: with a hundred thousand connections each round of the scheduler read all of
// them, since SQLite looked up what holds for nearly every row.
func TestARoundReadsOnlyWhatIsDue(t *testing.T) {
	t.Parallel()
	db := sqldbtest.Open(t, sqldb.SQLite)
	for query, index := range map[string]string{dueKeepSQL: "credential_by_keep", dueCheckSQL: "credential_by_check", dueRevocationsSQL: "credential_by_revoke"} {
		args := []any{1, 40}[:strings.Count(query, "$2")+1]
		var id, parent, unused int
		var plan string
		if err := db.Reader().QueryRowContext(t.Context(), "explain query plan "+query, args...).Scan(&id, &parent, &unused, &plan); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(plan, "SEARCH") || !strings.Contains(plan, index) {
			t.Errorf("%s\n%s", plan, query)
		}
	}
}

package credential

import (
	"testing"
	"time"
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
		if early := r.earlyWindow(); early > 5*time.Minute+clockSkew {
			t.Errorf("a token of %v is refreshed %v before its end", life, early)
		}
	}
}

package session

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// Rule 7: what a revoke has cancelled may still be on its way to the socket. It
// used to return all the same; now it waits until those calls have let go, but
// not for one that does not.
func TestRevokeWaitsUntilCutCallsLetGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, ses, other := newRunning(), id.NewSession(), id.NewSession()
		until := time.Hour
		call, done := r.track(t.Context(), ses, until)
		_, otherDone := r.track(t.Context(), other, until) // runs on, and nobody waits for it
		defer otherDone()
		r.cut(ses, errEnded)
		if reason, cut := Cut(call); !cut || reason != Revoked {
			t.Fatalf("the call was not cut: %q", reason)
		}
		settled := make(chan struct{})
		go func() {
			defer close(settled)
			r.settle(t.Context(), []id.Session{ses})
		}()
		synctest.Wait()
		select {
		case <-settled:
			t.Fatal("the revoke did not wait for the call")
		default:
		}
		began := time.Now()
		done()
		<-settled
		if took := time.Since(began); took != 0 {
			t.Errorf("the revoke went on %v after the call", took)
		}

		_, stuck := r.track(t.Context(), ses, until)
		defer stuck()
		began = time.Now()
		r.settle(t.Context(), []id.Session{ses})
		if took := time.Since(began); took != settleFor {
			t.Errorf("a call that does not end held the revoke for %v, want %v", took, settleFor)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		began = time.Now()
		if r.settle(gone, []id.Session{ses}); time.Since(began) != 0 {
			t.Error("a revoke whose caller is gone still waits")
		}
	})
}

// F9: a running call ends when what was left of its session is over, whatever
// becomes of the wall clock meanwhile. It used to end at a time of that clock.
func TestF9RunningCallEndsByPassedTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRunning()
		began := time.Now()
		call, done := r.track(t.Context(), id.NewSession(), 30*time.Minute)
		defer done()
		<-call.Done()
		if took := time.Since(began); took != 30*time.Minute {
			t.Errorf("the call ran for %v", took)
		}
		if reason, cut := Cut(call); !cut || reason != Expired {
			t.Errorf("cut for %q", reason)
		}
	})
}

// A bug: ending more than 32,766 sessions at once asked for their sub-agents' in one
// statement with a parameter for each, which SQLite refuses, so that nothing ended.
func TestSubAgentsOfVeryManySessionsEnd(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		parents := make([]endedSession, 70_000)
		for i := range parents {
			parents[i].id = id.NewSession()
		}
		err := db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
			ended, err := endChildren(ctx, tx, parents, ending{reason: Revoked}, time.Now())
			if err == nil && len(ended) != 0 {
				t.Errorf("%d sessions ended that are none", len(ended))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

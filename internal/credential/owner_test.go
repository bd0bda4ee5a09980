package credential_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// endLeases lets every lease run out, as if the database had been away so long.
func (s scene) endLeases(t *testing.T) {
	t.Helper()
	s.exec(t, `update credential set lease_until = 1 where lease_owner <> ''`)
}

// F4, O11: the owner of a refresh has the answer and cannot store it, because the
// database was away for longer than its lease. When the database is back, another
// node used to be free to send the same refresh token at once, which ends the
// grant. Now it gives the owner time to store what it has.
func TestOwnerWithAnAnswerIsNotOvertaken(t *testing.T) {
	t.Parallel()
	eachCluster(t, func(t *testing.T, db *sqldb.DB, another func() *sqldb.DB) {
		s := newScene(t, db)
		w := s.Beside(t, another())
		s.expire()
		first, second := s.permit(t, s.World), s.permit(t, w)
		mend := gatewaytest.Break(t, s.DB, "update of version on credential")
		answers := make(chan error, 2)
		go func() { _, _, err := s.Credentials.Token(t.Context(), first); answers <- err }()
		soon(t, "the provider has answered", func() bool { return s.Stats(t).Refreshes == 1 })
		s.endLeases(t)
		go func() { _, _, err := w.Credentials.Token(t.Context(), second); answers <- err }()
		time.Sleep(300 * time.Millisecond) // the other node looks at the lease
		mend()
		for range 2 {
			if err := <-answers; err != nil {
				t.Error(err)
			}
		}
		if st := s.Stats(t); st.Refreshes != 1 || st.Reuses != 0 {
			t.Errorf("the provider counts %+v, want one refresh and no reuse", st)
		}
	})
}

// F7: the only process on SQLite knows at its start that whoever had a lease is
// gone. It used to wait for the lease's end, and all calls on the account with it.
func TestRestartEndsLeases(t *testing.T) {
	t.Parallel()
	s := newScene(t, sqldbtest.OpenConfig(t, sqldbtest.Migrated(t, sqldb.SQLite)))
	s.expire()
	s.exec(t, `update credential set lease_owner = 'killed', lease_until = $1, attempt_started_at = 7`, sqldb.Micros(s.Clock.Now().Add(time.Minute)))
	again := credential.New(credential.Config{DB: s.DB, Vault: s.Vault, Audit: s.Audit, Connections: s.Connections, Providers: s.Providers,
		Outbound: s.Outbound, PublicURL: s.PublicURL, Alone: true, Now: s.Clock.Now})
	again.Start()
	defer again.Stop()
	if r := s.stored(t); r.lease != "" || r.attempt != 7 {
		t.Errorf("stored %+v, want no lease, and the attempt still known", r)
	}
	if _, version, err := again.Token(t.Context(), s.permit(t, s.World)); err != nil || version != 2 {
		t.Errorf("version %d, %v, want the next one", version, err)
	}
}

// A lease whose taking the database did not confirm is the process's own: it goes
// on with it, and does not wait for itself until it ends.
func TestUnconfirmedLeaseIsOurs(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.expire()
		// The first attempt fails with the lease still held: giving it back fails.
		mend := gatewaytest.Break(t, s.DB, "update of failures on credential")
		s.Fault(t, map[string]any{"path": "/oauth/token", "status": 503})
		s.Fault(t, map[string]any{"path": "/oauth/token", "status": 503})
		if _, _, err := s.token(t); code(err) != "upstream_unreachable" {
			t.Fatalf("got %v, want upstream_unreachable", err)
		}
		mend()
		s.Mend(t)
		if r := s.stored(t); r.lease == "" {
			t.Fatalf("stored %+v, want the lease still held", r)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if _, version, err := s.Credentials.Token(ctx, s.permit(t, s.World)); err != nil || version != 2 {
			t.Errorf("version %d, %v, want the next one", version, err)
		}
	})
}

// F7: a request that got no answer is repeated under a lease that lasts, or not
// at all: it used to be sent also when somebody else had taken over.
func TestNoRepeatWithoutTheLease(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.expire()
		s.Fault(t, map[string]any{"path": "/oauth/token", "cut": true, "times": 2})
		before := len(s.Arrivals("/oauth/token"))
		var once sync.Once
		s.Watch(func(a gatewaytest.Arrival) {
			if a.Path == "/oauth/token" {
				once.Do(func() { s.exec(t, `update credential set lease_owner = 'another node'`) })
			}
		})
		if _, _, err := s.token(t); code(err) != "upstream_unreachable" {
			t.Errorf("got %v, want upstream_unreachable", err)
		}
		if n := len(s.Arrivals("/oauth/token")) - before; n != 1 {
			t.Errorf("%d requests were sent, want the one before the lease was lost", n)
		}
	})
}

// F7: a node that waited for another's refresh, which found that the grant is gone,
// used to tell its callers that it is tried again shortly.
func TestEndOfAGrantIsToldOnEveryNode(t *testing.T) {
	t.Parallel()
	eachCluster(t, func(t *testing.T, db *sqldb.DB, another func() *sqldb.DB) {
		s := newScene(t, db)
		w := s.Beside(t, another())
		s.expire()
		p := s.permit(t, w)
		s.Fault(t, map[string]any{"path": "/oauth/token", "status": 400, "body": map[string]any{"error": "invalid_grant"}})
		if _, _, err := s.token(t); code(err) != "reconnect" {
			t.Errorf("the node that asked: got %v, want reconnect", err)
		}
		if _, _, err := w.Credentials.Token(t.Context(), p); code(err) != "reconnect" {
			t.Errorf("the node that waited: got %v, want reconnect", err)
		}
	})
}

// F7: two nodes got tokens from one refresh token, at a provider that allows it
// for a while. Giving the later ones back would end the grant of both, and that is
// what used to be done. After a reconnect they are of another grant, and are given
// back.
func TestOvertakenTokensOfOneGrantAreNotGivenBack(t *testing.T) {
	t.Parallel()
	t.Run("by another node", func(t *testing.T) {
		overtaken(t, false, func(t *testing.T, s scene, w *gatewaytest.World) {
			s.exec(t, `update credential set lease_owner = ''`)
			s.Fault(t, map[string]any{"path": "/oauth/token", "body": map[string]any{"access_token": "made-up-access-token-1", "refresh_token": "made-up-refresh-token-1", "expires_in": 3600}})
			_, _, err := w.Credentials.Token(t.Context(), s.permit(t, w))
			gatewaytest.Must(t, err)
		})
	})
	t.Run("by a reconnect", func(t *testing.T) {
		overtaken(t, true, func(t *testing.T, s scene, _ *gatewaytest.World) {
			s.ConnectOAuth(t, s.owner, gatewaytest.Mia, func(st *credential.Start) { st.Reconnect = s.conn.ID })
		})
	})
}

// overtaken has replace store other tokens while ours are on their way.
func overtaken(t *testing.T, givenBack bool, replace func(t *testing.T, s scene, w *gatewaytest.World)) {
	eachCluster(t, func(t *testing.T, db *sqldb.DB, another func() *sqldb.DB) {
		s := newScene(t, db)
		w := s.Beside(t, another())
		s.expire()
		p := s.permit(t, s.World)
		made, release := s.HoldToken(t)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _, _ = s.Credentials.Token(t.Context(), p)
		}()
		<-made
		tokens := s.Tokens()
		ours := tokens[len(tokens)-1]
		replace(t, s, w)
		release()
		<-done
		given := false
		for _, a := range s.Arrivals("/oauth/revoke") {
			given = given || strings.Contains(a.Body, ours)
		}
		if given != givenBack {
			t.Errorf("ours was given back: %v, want %v", given, givenBack)
		}
	})
}

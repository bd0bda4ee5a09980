package credential

import (
	"context"
	"hash/fnv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// A connection that nobody uses is still looked after: a grant that a provider
// ends when it lies idle is refreshed in time (oauth.md §3.1 rule 12), a
// credential is tried once a day with the provider's own check, and who must sign
// in again by a date is told before.

const (
	upkeepEvery   = time.Minute
	upkeepRound   = 4 * time.Minute // within the lease
	upkeepWorkers = 4
	upkeepBatch   = 40
	checkEvery    = 24 * time.Hour
	checkAgain    = 10 * time.Minute // after a first refusal, which alone is no proof
	keepRetry     = time.Hour
	noticeBefore  = 14 * 24 * time.Hour
)

// What holds for nearly all rows is written so that SQLite does not look it up first:
// of its indexes only the one of what is due finds few.
const (
	dueKeepSQL = `select ` + rowColumns + ` from credential
		where keep_at > 0 and keep_at <= $1 and length(revoke_state) = 0 and refreshable <> 0 and next_attempt_at <= $1 order by keep_at limit $2`
	dueCheckSQL = `select ` + rowColumns + ` from credential where check_at > 0 and check_at <= $1 and length(revoke_state) = 0 order by check_at limit $2`
	setKeepSQL  = `update credential set keep_at = $3 where connection_id = $1 and version = $2`
	setCheckSQL = `update credential set check_at = $3, last_error = $4 where connection_id = $1 and version = $2`
)

// spread gives d, up to a tenth more or less, always the same for one credential:
// those that were made together do not come due together.
func spread(d time.Duration, r row) time.Duration {
	h := fnv.New32a()
	_, _ = h.Write([]byte(r.connection))
	return d - d/10 + time.Duration(h.Sum32()%1000)*(d/5)/1000
}

// keepAt is when the grant of r is refreshed if nothing else has refreshed it: a
// quarter of what the provider lets it lie idle, and at least a day.
func keepAt(rec provider.Record, r row, now time.Time) time.Time {
	if rec.OAuth == nil || rec.OAuth.Refresh.IdleDays == 0 || !r.refreshable {
		return time.Time{}
	}
	idle := time.Duration(rec.OAuth.Refresh.IdleDays) * 24 * time.Hour
	return now.Add(spread(max(idle/4, 24*time.Hour), r))
}

func checkAt(rec provider.Record, r row, now time.Time) time.Time {
	if rec.Health == nil && rec.Identity == nil && rec.Auth != provider.Database && rec.MCP == nil {
		return time.Time{}
	}
	return now.Add(spread(checkEvery, r))
}

// keepUp runs Upkeep until Stop.
func (s *Service) keepUp() {
	s.repeat(upkeepEvery, nil, s.Upkeep, "connections could not be looked after")
}

// repeat does something every so often, and when it is woken, until Stop.
func (s *Service) repeat(every time.Duration, wake <-chan struct{}, do func(context.Context) error, failed string) {
	defer s.work.end()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-s.running.Done():
			return
		case <-tick.C:
		case <-wake:
		}
		if err := do(s.running); err != nil && s.running.Err() == nil {
			s.log.Warn(failed, "error", err)
		}
	}
}

// Upkeep does once what is due, on one node at a time: it keeps idle grants alive,
// tries credentials, and tells of those that a person must renew soon.
func (s *Service) Upkeep(ctx context.Context) error {
	lease, ok, err := s.db.Acquire(ctx, "credential.upkeep", 5*time.Minute)
	if err != nil || !ok {
		return err
	}
	defer lease.Release(context.WithoutCancel(ctx))
	ctx, cancel := context.WithTimeout(ctx, upkeepRound)
	defer cancel()
	if err := s.connections.TellExpiring(ctx, system, noticeBefore); err != nil {
		return err
	}
	if err := s.lookAfter(ctx, dueKeepSQL, s.keepAlive); err != nil {
		return err
	}
	return s.lookAfter(ctx, dueCheckSQL, s.check)
}

func (s *Service) lookAfter(ctx context.Context, query string, do func(context.Context, row) error) error {
	list := func() ([]row, error) {
		due, err := selectRows(ctx, s.db.Reader(), query, sqldb.Micros(s.now()), upkeepBatch)
		return due, sqldb.Wrap("list credentials to look after", err)
	}
	return eachDue(ctx, upkeepWorkers, list, func(r row) error { return do(ctx, r) })
}

// eachDue works on what list finds, so many at once, until it finds nothing or ctx
// ends. do moves what it works on out of the list's sight.
func eachDue(ctx context.Context, workers int, list func() ([]row, error), do func(row) error) error {
	for ctx.Err() == nil {
		due, err := list()
		if err != nil || len(due) == 0 {
			return err
		}
		var at errgroup.Group
		at.SetLimit(workers)
		for _, r := range due {
			at.Go(func() error { return do(r) })
		}
		if err := at.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// keepAlive refreshes a grant that would lapse. A success sets the next time; a
// failure has been recorded by the refresh, and is tried again in an hour.
func (s *Service) keepAlive(ctx context.Context, r row) error {
	c, err := s.connections.ByID(ctx, s.db.Reader(), r.environment, r.connection)
	if err != nil {
		return err
	}
	next := s.now().Add(keepRetry)
	if c.State != connection.Connected {
		next = time.Time{} // a reconnect sets it again
	}
	if err := s.set(ctx, setKeepSQL, r, sqldb.Micros(next)); err != nil || next.IsZero() {
		return err
	}
	if _, err := s.refresh(ctx, r); err != nil {
		s.log.Warn("an idle grant could not be kept alive", "connection", r.connection, "provider", r.provider, "error", err)
	}
	return nil
}

func (s *Service) set(ctx context.Context, query string, r row, values ...any) error {
	err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		_, err := tx.ExecContext(ctx, query, append([]any{r.connection, r.version}, values...)...)
		return err
	})
	return sqldb.Wrap("look after a credential", err)
}

// check tries a credential. One refusal proves nothing: it takes a second one,
// with a new token where there can be one, else some minutes later.
func (s *Service) check(ctx context.Context, r row) error {
	c, err := s.connections.ByID(ctx, s.db.Reader(), r.environment, r.connection)
	if err != nil {
		return err
	}
	mended := c.State == connection.NeedsReauth && c.Reason == reasonRejected
	if c.State != connection.Connected && !mended || c.CredentialVersion != r.version {
		return s.set(ctx, setCheckSQL, r, sqldb.Micros(s.now().Add(spread(checkEvery, r))), r.lastError)
	}
	if err := s.set(ctx, setCheckSQL, r, sqldb.Micros(s.now().Add(spread(checkEvery, r))), r.lastError); err != nil {
		return err
	}
	switch err := s.try(ctx, c, r); {
	case err == nil:
		if r.lastError == reasonRejected {
			if err := s.set(ctx, setCheckSQL, r, sqldb.Micros(s.now().Add(spread(checkEvery, r))), ""); err != nil {
				return err
			}
		}
		if mended {
			return s.mark(ctx, r, connection.Connected, "")
		}
		return nil
	case !fault.Is(err, provider.CodeRefused):
		return nil // not reached, or on record already: it says nothing about the credential
	case mended:
		return nil
	case r.kind == provider.OAuth2 && r.refreshable:
		fresh, err := s.refresh(ctx, r)
		if err == nil && fault.Is(s.try(ctx, c, fresh), provider.CodeRefused) {
			return s.mark(ctx, fresh, connection.NeedsReauth, reasonRejected)
		}
		return nil // a refresh that failed has marked what it had to
	case r.lastError == reasonRejected:
		return s.mark(ctx, r, connection.NeedsReauth, reasonRejected)
	}
	return s.set(ctx, setCheckSQL, r, sqldb.Micros(s.now().Add(checkAgain)), reasonRejected)
}

// reasonRejected is the reason of a connection whose provider does not take its
// credential.
const reasonRejected = "credential_rejected"

// try asks the provider, at the connection's own place, whether a credential works.
func (s *Service) try(ctx context.Context, c connection.Connection, r row) error {
	fresh, err := s.renewed(ctx, r)
	if err != nil {
		return err
	}
	cred, err := s.open(ctx, fresh)
	if err != nil {
		return err
	}
	return provider.CheckHealth(ctx, s.outbound, c.Pinned, c.Record, cred)
}

func (s *Service) mark(ctx context.Context, r row, state connection.State, reason string) error {
	return s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		return s.connections.Mark(ctx, tx, system, r.environment, r.connection, state, reason)
	})
}

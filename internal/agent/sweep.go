package agent

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/sqldb"
)

// sweepBatch keeps each transaction short: others wait for it.
const sweepBatch = 500

// usedCodeTTL is how long a spent code is remembered, so that its second use
// is recognised.
const usedCodeTTL = 24 * time.Hour

// SweepClients removes clients that registered themselves and that nobody
// consented to in time. It returns how many.
func (s *Service) SweepClients(ctx context.Context) (int64, error) {
	const query = `delete from oauth_client where id in (
select c.id from oauth_client c where c.expires_at > 0 and c.expires_at <= $1
  and not exists (select 1 from agent a where a.client_id = c.id)
order by c.expires_at limit $2)`
	return s.sweep(ctx, "sweep clients", query, s.now())
}

// Sweep removes what has no more use: unused clients, old requests and codes,
// tokens by the end of their family, and sealed answers past the time in which
// a retry gets them. Any number of nodes may run it, every few minutes.
func (s *Service) Sweep(ctx context.Context) error {
	const (
		requests = `delete from authorize_request where id in (
select id from authorize_request where expires_at <= $1 order by expires_at limit $2)`
		devices = `delete from device_code where hash in (
select hash from device_code where expires_at <= $1 order by expires_at limit $2)`
		codes = `delete from authorization_code where hash in (
select hash from authorization_code where expires_at <= $1 order by expires_at limit $2)`
		families = `delete from token_family where id in (
select id from token_family where expires_at <= $1 order by expires_at limit $2)`
		assertions = `delete from client_assertion where hash in (
select hash from client_assertion where expires_at <= $1 order by expires_at limit $2)`
		access = `delete from agent_token where hash in (
select hash from agent_token where expires_at <= $1 and kind = 'access' order by expires_at limit $2)`
		answers = `update agent_token set sealed_access = null, sealed_refresh = null where hash in (
select hash from agent_token where replaced_at > 0 and replaced_at <= $1 and sealed_access is not null order by replaced_at limit $2)`
	)
	if _, err := s.SweepClients(ctx); err != nil {
		return err
	}
	now := s.now()
	for _, step := range []struct {
		op, query string
		before    time.Time
	}{
		{"sweep authorization requests", requests, now},
		{"sweep device codes", devices, now.Add(-usedCodeTTL)},
		{"sweep authorization codes", codes, now.Add(-usedCodeTTL)},
		{"sweep used assertions", assertions, now},
		{"sweep families of tokens", families, now.Add(-time.Hour)},
		{"sweep access tokens", access, now.Add(-time.Hour)},
		{"sweep sealed answers", answers, now.Add(-retryGrace)},
	} {
		if _, err := s.sweep(ctx, step.op, step.query, step.before); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) sweep(ctx context.Context, op, query string, before time.Time) (total int64, err error) {
	for {
		var n int64
		err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) (err error) {
			n, err = affected(tx.ExecContext(ctx, query, sqldb.Micros(before), sweepBatch))
			return err
		})
		if err != nil {
			return total, sqldb.Wrap(op, err)
		}
		if total += n; n < sweepBatch {
			return total, nil
		}
	}
}

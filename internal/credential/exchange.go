package credential

import (
	"context"
	"errors"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// An exchange turns a code into a grant at the provider, and then something can
// go wrong before the grant is stored. What is left there must not be forgotten:
// it is given back, or else told (threats.md F11). A row in oauth_exchange stands
// from the moment the state is used up until then, so that it is told of a
// process that died in between, too.

// interruptedAfter is when nobody works on an exchange any more.
const interruptedAfter = 5 * time.Minute

// What became of a grant that was not stored, besides [RevokedUpstream] and
// [Unsupported].
const (
	grantUnknown    = "unknown"     // nobody knows whether there is one
	grantNotRevoked = "not_revoked" // the provider did not take it back
)

const (
	beginExchangeSQL = `insert into oauth_exchange (flow_id, environment_id, organization_id, user_id, provider, connection_id, began_at) values ($1, $2, $3, $4, $5, $6, $7)`
	endExchangeSQL   = `delete from oauth_exchange where flow_id = $1`
	interruptedSQL   = `delete from oauth_exchange where began_at < $1 returning flow_id, environment_id, organization_id, user_id, provider, connection_id`
)

func beginExchange(ctx context.Context, tx *sqldb.Tx, f flow, now time.Time) error {
	_, err := tx.ExecContext(ctx, beginExchangeSQL, f.id, f.environment, f.organization, f.startedBy, f.provider, f.reconnect, sqldb.Micros(now))
	return err
}

func endExchange(ctx context.Context, tx *sqldb.Tx, flow id.Flow) error {
	_, err := tx.ExecContext(ctx, endExchangeSQL, flow)
	return sqldb.Wrap("end an authorization", err)
}

// abandoned gives back what a sign-in that failed has left at the provider,
// records what became of it, and gives the error that the person sees.
func (s *Service) abandoned(ctx context.Context, f flow, rec provider.Record, m material, cause error) error {
	if sqldb.Uncertain(cause) {
		return cause // it may be stored; if it is not, reportInterrupted tells
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	left := ""
	if te := (*tokenError)(nil); errors.As(cause, &te) && te.sent {
		left = grantUnknown
	}
	if !m.values[provider.FieldAccessToken].IsZero() {
		left = s.giveGrantBack(ctx, f, rec, m)
	}
	err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if left != "" {
			s.audit.AppendEvent(tx, abandonedEntry(f, fault.Of(cause).Code, left))
		}
		return endExchange(ctx, tx, f.id)
	})
	if err != nil {
		s.log.Error("what became of a sign-in at a provider could not be recorded", "provider", f.provider, "grant", left, "error", err)
	}
	if left == "" || left == RevokedUpstream {
		return cause
	}
	told := fault.Of(cause)
	return fault.New(told.Kind, told.Code, told.Message).WithRetry(told.RetryAfter).WithCause(cause).
		WithHint(told.Hint + " The provider may now list an access that Ambit does not have; remove it there.")
}

func abandonedEntry(f flow, code, left string) audit.Entry {
	return audit.Entry{Environment: f.environment, Organization: f.organization, Actor: system, User: f.startedBy, Connection: f.reconnect,
		Action: "connection.grant_abandoned", Object: f.provider, Provider: f.provider, Code: code, Detail: map[string]string{"grant": left}}
}

func (s *Service) giveGrantBack(ctx context.Context, f flow, rec provider.Record, m material) string {
	conn := connection.Connection{Environment: f.environment, Provider: f.provider, Record: rec, Pinned: rec.Pinned()}
	conn.Pinned.Client = f.client
	if conn.Pinned.Revoke == "" {
		return Unsupported
	}
	client, err := s.client(ctx, conn)
	if err == nil { // one that is not taken keeps no other from being given back: nobody tries again
		for _, t := range m.tokens(rec.OAuth) {
			err = errors.Join(err, s.giveBack(ctx, conn, client, t))
		}
	}
	if err != nil {
		s.log.Warn("a grant that was not stored could not be revoked", "provider", f.provider, "error", err)
		return grantNotRevoked
	}
	return RevokedUpstream
}

// reportInterrupted records the exchanges that a process has not lived to finish.
func (s *Service) reportInterrupted(ctx context.Context) error {
	err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		rows, err := tx.QueryContext(ctx, interruptedSQL, sqldb.Micros(s.now().Add(-interruptedAfter)))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var f flow
			if err := rows.Scan(&f.id, &f.environment, &f.organization, &f.startedBy, &f.provider, &f.reconnect); err != nil {
				return err
			}
			s.audit.AppendEvent(tx, abandonedEntry(f, "exchange_interrupted", grantUnknown))
		}
		return rows.Err()
	})
	return sqldb.Wrap("report interrupted sign-ins", err)
}

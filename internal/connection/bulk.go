package connection

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Aim says which connections are ended together, after an incident. Empty fields
// select nothing away, but not all of them are empty.
type Aim struct {
	Organization id.Organization // empty: wherever the actor manages connections, which is the environment
	Owner        id.User
	Provider     string
	From, To     time.Time // made in this time; zero: since ever, until now
}

const (
	maxAimed  = 1000 // connections that one request ends
	endsAtOne = 50   // and of these, how many in one transaction
)

// Aimed is what an aim selects.
type Aimed struct {
	Connections []Connection // at most a thousand, oldest first
	More        bool
}

// Aimed lists the live connections that an aim selects, for an actor who may end
// them all.
func (s *Service) Aimed(ctx context.Context, by account.Actor, aim Aim) (Aimed, error) {
	aim, err := aim.allowed(by)
	if err != nil {
		return Aimed{}, err
	}
	line, _ := by.Counted()
	list, err := s.aimed(ctx, s.cfg.DB.UrgentReader(line), by.Environment(), aim, maxAimed+1)
	if err != nil {
		return Aimed{}, err
	}
	return Aimed{list[:min(len(list), maxAimed)], len(list) > maxAimed}, nil
}

func (a Aim) allowed(by account.Actor) (Aim, error) {
	if a.Organization == "" {
		a.Organization = by.Organization()
	}
	if a.Organization == "" && a.Owner == "" && a.Provider == "" && a.From.IsZero() && a.To.IsZero() {
		return a, fault.New(fault.Invalid, "aim_missing", "It is not said which connections are meant.").WithHint("Name a provider, an organization, an owner or a time.")
	}
	if !a.From.IsZero() && !a.To.IsZero() && a.To.Before(a.From) {
		return a, fault.New(fault.Invalid, "aim_invalid", "The time ends before it begins.")
	}
	return a, by.May(a.Organization, account.ManageConnections)
}

func (s *Service) aimed(ctx context.Context, q sqldb.Querier, env id.Environment, a Aim, limit int) ([]Connection, error) {
	const query = `select ` + columns + ` from connection where environment_id = $1 and state <> 'disconnected'
		and ($2 = '' or organization_id = $2) and ($3 = '' or user_id = $3) and ($4 = '' or provider = $4)
		and created_at >= $5 and (created_at < $6 or $6 = 0) order by id limit $7`
	return s.many(ctx, q, query, env, a.Organization, a.Owner, a.Provider, sqldb.Micros(a.From), sqldb.Micros(a.To), limit)
}

// EndAimed ends the connections that an aim selects, a thousand at most, and with
// them the sessions that use them. It goes on where it was broken off when it is
// called again.
func (s *Service) EndAimed(ctx context.Context, by account.Actor, aim Aim) (Aimed, error) {
	aim, err := aim.allowed(by)
	if err != nil {
		return Aimed{}, err
	}
	line, _ := by.Counted()
	var out Aimed
	for len(out.Connections) < maxAimed {
		var ended []Connection
		err := s.cfg.DB.Urgent(ctx, line, func(ctx context.Context, tx *sqldb.Tx) error {
			ended = nil // a retry starts here
			list, err := s.aimed(ctx, tx, by.Environment(), aim, endsAtOne)
			if err != nil {
				return err
			}
			for _, c := range list {
				if c, err = s.end(ctx, tx, c, "bulk_revoked", by.Audit(), by.User(), by.Address()); err != nil {
					return err
				}
				ended = append(ended, c)
			}
			if len(out.Connections) == 0 {
				s.auditAim(tx, by, aim)
			}
			return nil
		})
		if err != nil {
			return out, err
		}
		out.Connections = append(out.Connections, ended...)
		if len(ended) < endsAtOne {
			return out, nil
		}
	}
	out.More = true
	return out, nil
}

// auditAim records what was meant, also when nothing was there.
func (s *Service) auditAim(tx *sqldb.Tx, by account.Actor, a Aim) {
	detail := map[string]string{}
	for name, v := range map[string]string{"owner": string(a.Owner), "from": stamp(a.From), "to": stamp(a.To)} {
		if v != "" {
			detail[name] = v
		}
	}
	s.cfg.Audit.AppendEvent(tx, audit.Entry{Environment: by.Environment(), Organization: a.Organization, Actor: by.Audit(), User: by.User(), Action: "connection.bulk_revoked",
		Object: a.Provider, Provider: a.Provider, Detail: detail, Address: by.Address()})
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

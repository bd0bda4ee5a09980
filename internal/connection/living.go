package connection

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// What happens to a connection is told to others under these names, with the id
// of the audit entry that says the same.
const (
	ChangeConnected     = "connection.connected"
	ChangeReauthorized  = "connection.reauthorized"
	ChangeRefreshFailed = "connection.refresh_failed" // once until it recovers
	ChangeRecovered     = "connection.recovered"
	ChangeNeedsReauth   = "connection.needs_reauthorization"
	ChangeScopes        = "connection.scopes_changed"
	ChangeExpiring      = "connection.expiring" // a person must connect it again by a date
	ChangeRevoked       = "connection.revoked"
)

// Changes lists these names, and the actions of the audit that each stands for.
func Changes() map[string][]string {
	return map[string][]string{
		ChangeConnected: {"connection.connected"}, ChangeReauthorized: {"connection.reconnected"}, ChangeRefreshFailed: {"credential.refresh_failed"},
		ChangeRecovered: {"connection.recovered"}, ChangeNeedsReauth: {"connection.needs_reauthorization"}, ChangeScopes: {"connection.scopes_changed"},
		ChangeExpiring: {"connection.expiring"}, ChangeRevoked: {"connection.disconnected"},
	}
}

func changeOf(action string) string {
	for kind, actions := range Changes() {
		if slices.Contains(actions, action) {
			return kind
		}
	}
	return ""
}

// Change is one of them.
type Change struct {
	ID         id.Event // of the audit entry
	Kind       string
	At         time.Time
	Connection Connection // as it is afterwards
	Code       string     // of a failed refresh
	Scopes     []string   // that went, of scopes_changed
}

// Channel carries, as sqldb notices, the organization of a connection that came,
// changed or ended.
const Channel = "connection"

// tell records in the audit what happened to c, and passes it on.
func (s *Service) tell(ctx context.Context, tx *sqldb.Tx, by audit.Actor, user id.User, address, action string, c Connection, evidence json.RawMessage, more map[string]string) error {
	detail := map[string]string{"account_id": c.AccountID, "account": c.AccountLabel}
	for k, v := range more {
		detail[k] = v
	}
	if c.Reason != "" {
		detail["reason"] = c.Reason
	}
	if c.Owner != "" {
		detail["owner"] = string(c.Owner)
	}
	event := s.cfg.Audit.Append(tx, audit.Entry{
		Environment: c.Environment, Organization: c.Organization, Actor: by, User: user, Connection: c.ID,
		Action: action, Object: string(c.ID), Provider: c.Provider, Evidence: evidence, Detail: detail, Address: address,
	})
	tx.Notify(Channel, string(c.Organization))
	return s.cfg.OnChange(ctx, tx, Change{ID: event, Kind: changeOf(action), At: s.cfg.Now(), Connection: c, Scopes: strings.Fields(more["lost"])})
}

// RefreshFailed passes on that a credential could not be renewed, which the entry
// with this id says. The connection goes on as it is.
func (s *Service) RefreshFailed(ctx context.Context, tx *sqldb.Tx, event id.Event, env id.Environment, conn id.Connection, code string) error {
	c, err := s.ByID(ctx, tx, env, conn)
	if err != nil {
		return err
	}
	return s.cfg.OnChange(ctx, tx, Change{ID: event, Kind: ChangeRefreshFailed, At: s.cfg.Now(), Connection: c, Code: code})
}

// scopesChanged tells what a new grant allows beyond the old one, and what no more.
func (s *Service) scopesChanged(ctx context.Context, tx *sqldb.Tx, by audit.Actor, c Connection, was []string) error {
	lost, gained := beyond(was, c.Scopes), beyond(c.Scopes, was)
	if len(lost)+len(gained) == 0 {
		return nil
	}
	return s.tell(ctx, tx, by, "", "", "connection.scopes_changed", c, nil, map[string]string{"lost": strings.Join(lost, " "), "gained": strings.Join(gained, " ")})
}

func beyond(a, b []string) (out []string) {
	for _, s := range a {
		if !slices.Contains(b, s) {
			out = append(out, s)
		}
	}
	return out
}

// That the state is not disconnected follows, but only the words of an index find it.
const (
	expiringSQL = `select ` + columns + ` from connection where reauthorize_by > 0 and reauthorize_by <= $1 and state <> 'disconnected' and state = 'connected' and noticed_at = 0
		order by reauthorize_by limit 100`
	overdueSQL = `select ` + columns + ` from connection where reauthorize_by > 0 and reauthorize_by <= $1 and state <> 'disconnected' and state = 'connected' and noticed_at > 0
		order by reauthorize_by limit 100`
	noticedSQL = `update connection set noticed_at = $3, version = version + 1 where environment_id = $1 and id = $2 and noticed_at = 0`
)

// TellExpiring tells once of each connection that a person must have connected
// again within before, and marks those whose time has come.
func (s *Service) TellExpiring(ctx context.Context, by audit.Actor, before time.Duration) error {
	now := s.cfg.Now()
	for ctx.Err() == nil {
		n := 0
		err := s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
			soon, err := s.many(ctx, tx, expiringSQL, sqldb.Micros(now.Add(before)))
			if err != nil {
				return err
			}
			for _, c := range soon {
				if _, err := tx.ExecContext(ctx, noticedSQL, c.Environment, c.ID, sqldb.Micros(now)); err != nil {
					return sqldb.Wrap("note a notice", err)
				}
				if err := s.tell(ctx, tx, by, "", "", "connection.expiring", c, nil, map[string]string{"reauthorize_by": stamp(c.ReauthorizeBy)}); err != nil {
					return err
				}
			}
			over, err := s.many(ctx, tx, overdueSQL, sqldb.Micros(now))
			if err != nil {
				return err
			}
			for _, c := range over {
				if err := s.Mark(ctx, tx, by, c.Environment, c.ID, NeedsReauth, "reauthorize_by"); err != nil {
					return err
				}
			}
			n = max(len(soon), len(over))
			return nil
		})
		if err != nil || n < 100 {
			return err
		}
	}
	return nil
}

// Data is what an application is told of a change. It holds no secret.
func (ch Change) Data() map[string]any {
	c := ch.Connection
	data := map[string]any{"object": "connection", "id": c.ID, "organization_id": c.Organization, "provider": c.Provider, "state": c.State, "account_id": c.AccountID,
		"account_label": c.AccountLabel, "auth_method": c.AuthMethod, "scopes": append([]string{}, c.Scopes...), "missing_scopes": append([]string{}, c.Lacking()...)}
	for name, v := range map[string]string{"owner_id": string(c.Owner), "reason": c.Reason, "reauthorize_by": stamp(c.ReauthorizeBy), "error_code": ch.Code} {
		if v != "" {
			data[name] = v
		}
	}
	if len(ch.Scopes) > 0 {
		data["scopes_lost"] = ch.Scopes
	}
	return data
}

package webhook

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// kindAsked is the one event that a person is told of for themselves.
const kindAsked = "approval.requested"

// deciders are those for whom a request waits. It is kept with what people are told of
// for themselves, and with nothing that leaves: when a mail is sent, its person must
// still be among them.
type deciders struct {
	Organization id.Organization `json:"organization_id"`
	Users        []id.User       `json:"users,omitempty"` // whose accounts are asked for
	Roles        []string        `json:"roles,omitempty"` // that decide on the organization's
}

// personally puts an event down for the people for whom it waits and who want mail of
// it. However many want some, those are found at once: an agent's request waits for it.
func (s *Service) personally(ctx context.Context, tx *sqldb.Tx, ev Event) error {
	if ev.Kind != kindAsked {
		return nil
	}
	who, err := s.cfg.People.Among(ctx, tx, ev.Organization, ev.Users, ev.Roles)
	if err != nil || len(who) == 0 {
		return err
	}
	to, err := endpointsOf(ctx, tx, ev.Environment, who)
	if err != nil || len(to) == 0 {
		return sqldb.Wrap("find who is to be told", err)
	}
	return s.emit(ctx, tx, ev, to, &deciders{ev.Organization, ev.Users, ev.Roles})
}

// waitsNow reports whether a delivery still waits for the person of e: what a member was
// to be told is not told to who has left, or decides no more. What does not say for whom
// it waits (a binary of before puts it down so, for everybody) is told to nobody.
func (s *Service) waitsNow(ctx context.Context, e Endpoint, body []byte) (bool, error) {
	var m message
	if err := json.Unmarshal(body, &m); err != nil || m.WaitsFor == nil {
		return false, nil
	}
	role, err := s.cfg.People.RoleNow(ctx, e.Environment, m.WaitsFor.Organization, e.User)
	return role != "" && (slices.Contains(m.WaitsFor.Users, e.User) || slices.Contains(m.WaitsFor.Roles, string(role))), err
}

// Mails reports whether this server sends mail.
func (s *Service) Mails() bool { return s.cfg.Mail != nil }

// Personal reports whether a person is told by mail, in an environment, of what waits
// for them; and if not, whether that is because no mail to them got through.
func (s *Service) Personal(ctx context.Context, p account.Person, env id.Environment) (on, failed bool, err error) {
	e, err := personal(ctx, s.cfg.DB.Reader(), env, p.User())
	if sqldb.NoRows(err) {
		return false, false, nil
	}
	return e.Enabled, err == nil && !e.Enabled, sqldb.Wrap("read a person's notices", err)
}

// SetPersonal has a person told by mail, in an environment, of what waits for them, or
// no more. Mail goes to the address that their account has when it is sent.
func (s *Service) SetPersonal(ctx context.Context, p account.Person, env id.Environment, on bool) error {
	if err := p.Own(); err != nil {
		return err
	}
	if on && s.cfg.Mail == nil {
		return noMail()
	}
	if on && p.Email() == "" {
		return fault.New(fault.Invalid, "no_address", "Your account has no e-mail address.").WithHint("Add one first.")
	}
	now, by := s.now(), account.ByPerson(p).In(env)
	fresh := Endpoint{ID: id.NewWebhook(), Environment: env, User: p.User(), Form: FormMail, URL: mailto, Events: []string{kindAsked}, Enabled: true, CreatedAt: now, UpdatedAt: now, Version: 1, secretVersion: 1}
	if on {
		if _, err := s.newSecret(ctx, &fresh, secret.Value{}); err != nil {
			return err
		}
	}
	return s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := tx.Serialize(ctx, "webhook of "+string(p.User())); err != nil {
			return err
		}
		e, err := personal(ctx, tx, env, p.User())
		switch {
		case err == nil && on && e.Enabled, sqldb.NoRows(err) && !on:
			return nil
		case err == nil:
			err = deleteEndpoint(ctx, tx, e.ID)
		case sqldb.NoRows(err):
			err = nil
		}
		if err != nil {
			return sqldb.Wrap("change a person's notices", err)
		}
		action := "notices.off"
		if on {
			action = "notices.on"
			if err := insertEndpoint(ctx, tx, fresh); err != nil {
				return err
			}
		}
		s.cfg.Audit.AppendEvent(tx, audit.Entry{Environment: env, Actor: by.Audit(), User: p.User(), Action: action, Object: string(p.User()), Detail: map[string]string{"by": "mail"}, Address: by.Address()})
		return nil
	})
}

func endpointsOf(ctx context.Context, q sqldb.Querier, env id.Environment, users []id.User) ([]Endpoint, error) {
	marks, args := sqldb.In(users)
	query := `select ` + endpointColumns + ` from webhook where user_id in (` + marks + `) and user_id <> '' and state = 'enabled' and environment_id = $` + strconv.Itoa(len(args)+1)
	return sqldb.Collect(scanEndpoint)(q.QueryContext(ctx, query, append(args, env)...))
}

func personal(ctx context.Context, q sqldb.Querier, env id.Environment, user id.User) (Endpoint, error) {
	const query = `select ` + endpointColumns + ` from webhook where environment_id = $1 and user_id = $2 and user_id <> ''`
	return scanEndpoint(q.QueryRowContext(ctx, query, env, user))
}

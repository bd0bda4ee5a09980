package webhook

import (
	"context"
	"slices"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// kindAsked is the one event that a person is told of for themselves.
const kindAsked = "approval.requested"

// waitsFor reports whether what happened waits for this person: their account is asked
// for, or their role decides on the organization's.
func (s *Service) waitsFor(ctx context.Context, tx *sqldb.Tx, ev Event, user id.User) (bool, error) {
	if ev.Kind != kindAsked {
		return false, nil
	}
	role, err := s.cfg.People.HoldRole(ctx, tx, ev.Organization, user)
	if err != nil || role == "" {
		return false, err
	}
	return slices.Contains(ev.Users, user) || slices.Contains(ev.Roles, string(role)), nil
}

// Mails reports whether this server sends mail.
func (s *Service) Mails() bool { return s.cfg.Mail != nil }

// Personal reports whether a person is told by mail, in an environment, of what waits
// for them.
func (s *Service) Personal(ctx context.Context, p account.Person, env id.Environment) (bool, error) {
	e, err := personal(ctx, s.cfg.DB.Reader(), env, p.User())
	if sqldb.NoRows(err) {
		return false, nil
	}
	return e.Enabled, sqldb.Wrap("read a person's notices", err)
}

// SetPersonal has a person told by mail, in an environment, of what waits for them, or
// no more. Mail goes to the address that their account has when it is sent.
func (s *Service) SetPersonal(ctx context.Context, p account.Person, env id.Environment, on bool) error {
	if err := p.Own(); err != nil {
		return err
	}
	if on && s.cfg.Mail == nil {
		return fault.New(fault.Invalid, "mail_not_set_up", "This server sends no mail.").WithHint("Its operator sets AMBIT_SMTP_URL and AMBIT_SMTP_FROM (docs/configuration.md).")
	}
	if on && p.Email() == "" {
		return fault.New(fault.Invalid, "no_address", "Your account has no e-mail address.").WithHint("Add one first.")
	}
	now, by := s.now(), account.ByPerson(p).In(env)
	fresh := Endpoint{ID: id.NewWebhook(), Environment: env, User: p.User(), Form: FormMail, URL: mailto, Events: []string{kindAsked}, Enabled: true, CreatedAt: now, UpdatedAt: now, Version: 1, secretVersion: 1}
	if _, err := s.newSecret(ctx, &fresh, secret.Value{}); err != nil {
		return err
	}
	return s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := tx.Serialize(ctx, "webhook of "+string(p.User())); err != nil {
			return err
		}
		e, err := personal(ctx, tx, env, p.User())
		switch {
		case err == nil && on == e.Enabled, sqldb.NoRows(err) && !on:
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

func personal(ctx context.Context, q sqldb.Querier, env id.Environment, user id.User) (Endpoint, error) {
	const query = `select ` + endpointColumns + ` from webhook where environment_id = $1 and user_id = $2 and user_id <> ''`
	return scanEndpoint(q.QueryRowContext(ctx, query, env, user))
}

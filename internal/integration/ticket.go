package integration

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// A ticket lets one user connect one account at one of some providers, in a window
// that a page of the product opens. It has two halves. The page of ours goes by its
// id, which says nothing to whoever is not signed in as that user. The connect
// token, which the product's page holds, tells what became of it, and nothing of
// anybody else. It ends with the first account that is connected, or with a no at
// the provider.
//
//	pending ──▶ connected
//	   └──────▶ failed         pending too long is expired
type Ticket struct {
	ID           id.Ticket
	Environment  id.Environment
	Organization id.Organization
	User         id.User
	Key          id.Key   // that asked for it
	Providers    []string // ids of their records, in the order that was asked for
	State        TicketState
	Code         string        // why it failed
	Provider     string        // at which it was begun, or is connected
	Connection   id.Connection // when connected
	ExpiresAt    time.Time

	begunUntil time.Time // an authorization that was begun in time may end by then
}

// TicketState says how far a ticket is.
type TicketState string

const (
	TicketPending    TicketState = "pending"
	TicketConnecting TicketState = "connecting" // the person is at the provider
	TicketConnected  TicketState = "connected"
	TicketFailed     TicketState = "failed"
	TicketExpired    TicketState = "expired"
)

const (
	// TicketAge is how long a person may take to begin.
	TicketAge    = 10 * time.Minute
	ticketKept   = time.Hour
	maxProviders = 20
	tokenPrefix  = "amb_connect_"

	ticketFields    = `id, environment_id, organization_id, user_id, key_id, providers, state, code, provider, connection_id, begun_until, expires_at`
	insertTicketSQL = `insert into connect_ticket (` + ticketFields + `, token_hash, created_at) values ($1, $2, $3, $4, $5, $6, 'pending', '', '', '', 0, $7, $8, $9)`
	ticketByIDSQL   = `select ` + ticketFields + ` from connect_ticket where id = $1`
	ticketByHashSQL = `select ` + ticketFields + ` from connect_ticket where token_hash = $1`
	begunTicketSQL  = `update connect_ticket set begun_until = $2, provider = $3 where id = $1 and state = 'pending'`
	failTicketSQL   = `update connect_ticket set state = 'failed', code = $2 where id = $1 and state = 'pending'`
	endTicketSQL    = `update connect_ticket set state = 'connected', connection_id = $2, provider = $3
		where id = $1 and state = 'pending' and environment_id = $4 and organization_id = $5 and user_id = $6 and (expires_at > $7 or begun_until > $7)`
	sweepTicketsSQL = `delete from connect_ticket where expires_at <= $1`
)

// Opened is a fresh ticket.
type Opened struct {
	Ticket
	Token secret.Value // for the product's page; shown once
	URL   secret.Value // what its window opens; signs the user in where that was asked for
}

// Open makes a ticket for a user. With vouch the window signs them in, on the word
// of the key that asks; see account.Vouch.
func (s *Service) Open(ctx context.Context, by account.Actor, n Names, slugs []string, vouch bool) (Opened, error) {
	if _, person := by.Person(); person || by.IsSystem() {
		return Opened{}, fault.New(fault.Denied, "api_key_required", "Connect tokens are made by an application's key.").WithHint("People connect at /ui/connections/new.")
	}
	if err := by.May(by.Organization(), account.ManageConnections); err != nil {
		return Opened{}, err
	}
	if vouch {
		if err := by.May(by.Organization(), account.VouchUsers); err != nil {
			return Opened{}, err
		}
	}
	if n.User == "" || len(slugs) == 0 || len(slugs) > maxProviders {
		return Opened{}, fault.New(fault.Invalid, "invalid_ticket", "A connect token is for one user and 1 to 20 providers.")
	}
	sub, err := s.who(ctx, by, n)
	if err != nil {
		return Opened{}, err
	}
	t := Ticket{ID: id.NewTicket(), Environment: by.Environment(), State: TicketPending, ExpiresAt: s.cfg.Now().Add(TicketAge)}
	for _, slug := range slugs {
		p, err := s.connectable(ctx, by.Environment(), sub.Organization, slug)
		if err != nil {
			return Opened{}, err
		}
		if !slices.Contains(t.Providers, p) {
			t.Providers = append(t.Providers, p)
		}
	}
	if sub, err = s.whoever(ctx, by, n); err != nil { // nobody is made for what is refused
		return Opened{}, err
	}
	t.Organization, t.User, t.Key = sub.Organization, sub.User, id.Key(by.Audit().ID)
	out := Opened{Ticket: t, Token: secret.Token(tokenPrefix), URL: secret.FromString(s.cfg.PublicURL.JoinPath(t.path()).String())}
	if vouch {
		if out.URL, err = s.cfg.People.Vouch(ctx, by, t.Organization, t.User, t.path(), t.Providers...); err != nil {
			return Opened{}, err
		}
	}
	return out, s.insertTicket(ctx, by, out)
}

func (t Ticket) path() string { return "/ui/connect/" + string(t.ID) }

// connectable gives the id of a provider at which users of an organization can
// connect.
func (s *Service) connectable(ctx context.Context, env id.Environment, org id.Organization, slug string) (string, error) {
	i, err := s.find(ctx, s.cfg.DB.Reader(), env, slug, Users)
	if err != nil {
		return "", err
	}
	c, err := s.configured(ctx, i, org)
	if err != nil {
		return "", err
	}
	if !c.Offered() {
		return "", fault.New(fault.Denied, "integration_disabled", "The data integration "+slug+" is not enabled.").WithHint("Enable it first.")
	}
	return i.Provider.Record.ID, s.usable(ctx, c)
}

func (s *Service) insertTicket(ctx context.Context, by account.Actor, o Opened) error {
	hash, now := o.Token.Hash(), s.cfg.Now()
	err := s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if _, err := tx.ExecContext(ctx, sweepTicketsSQL, sqldb.Micros(now.Add(-ticketKept))); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, insertTicketSQL, o.ID, o.Environment, o.Organization, o.User, o.Key, strings.Join(o.Providers, " "), sqldb.Micros(o.ExpiresAt), hash[:], sqldb.Micros(now))
		if err != nil {
			return err
		}
		s.cfg.Audit.AppendEvent(tx, audit.Entry{Environment: o.Environment, Organization: o.Organization, Actor: by.Audit(), User: o.User, Action: "connect_token.created",
			Object: string(o.ID), Address: by.Address(), Detail: map[string]string{"providers": strings.Join(o.Providers, " ")}})
		return nil
	})
	return sqldb.Wrap("make a connect token", err)
}

func (s *Service) scanTicket(row sqldb.Scanner) (Ticket, error) {
	var t Ticket
	var providers string
	var begun, expires int64
	err := row.Scan(&t.ID, &t.Environment, &t.Organization, &t.User, &t.Key, &providers, &t.State, &t.Code, &t.Provider, &t.Connection, &begun, &expires)
	if sqldb.NoRows(err) {
		return Ticket{}, noTicket()
	}
	t.Providers, t.begunUntil, t.ExpiresAt = strings.Fields(providers), sqldb.Time(begun), sqldb.Time(expires)
	if now := s.cfg.Now(); t.State == TicketPending {
		switch {
		case now.Before(t.begunUntil):
			t.State = TicketConnecting
		case !now.Before(t.ExpiresAt):
			t.State = TicketExpired
		}
	}
	return t, sqldb.Wrap("read a connect token", err)
}

func noTicket() error {
	return fault.New(fault.NotFound, "not_found", "There is nothing here for you.").WithHint("It may belong to somebody else, or the address is incomplete.")
}

// Ticket gives a ticket to its user; to anybody else there is none.
func (s *Service) Ticket(ctx context.Context, p account.Person, t id.Ticket) (Ticket, error) {
	out, err := s.scanTicket(s.cfg.DB.Reader().QueryRowContext(ctx, ticketByIDSQL, t))
	if err == nil && (out.User != p.User() || p.User() == "") {
		err = noTicket()
	}
	if err != nil {
		return Ticket{}, err
	}
	return out, nil
}

// Ready refuses a ticket with which nothing can be begun any more.
func (t Ticket) Ready(now time.Time) error {
	switch {
	case t.State == TicketConnected:
		return fault.New(fault.Conflict, "ticket_used", "This was used: an account is connected.").WithHint("Close this window and go on where you came from.")
	case t.State == TicketFailed:
		return fault.New(fault.Expired, "ticket_failed", "This ended without an account.").WithHint("Close this window and start again where you came from.")
	case !now.Before(t.ExpiresAt):
		return fault.New(fault.Expired, "ticket_expired", "This was open for too long.").WithHint("Close this window and start again where you came from.")
	}
	return nil
}

// Look tells who holds a connect token what became of it.
func (s *Service) Look(ctx context.Context, token secret.Value) (Ticket, error) {
	gone := fault.New(fault.Unauthenticated, "unauthenticated", "The connect token is not known, or not any more.")
	if !secret.IsToken(token, tokenPrefix) {
		return Ticket{}, gone
	}
	hash := token.Hash()
	t, err := s.scanTicket(s.cfg.DB.Reader().QueryRowContext(ctx, ticketByHashSQL, hash[:]))
	if fault.KindOf(err) == fault.NotFound {
		return Ticket{}, gone
	}
	return t, err
}

// Begun notes that the person is on the way to a provider, and has until then.
func (s *Service) Begun(ctx context.Context, t id.Ticket, provider string, until time.Time) error {
	return s.changeTicket(ctx, begunTicketSQL, t, sqldb.Micros(until), provider)
}

// Refused ends a ticket without an account; code says why.
func (s *Service) Refused(ctx context.Context, t id.Ticket, code string) error {
	return s.changeTicket(ctx, failTicketSQL, t, code)
}

func (s *Service) changeTicket(ctx context.Context, query string, args ...any) error {
	err := s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		_, err := tx.ExecContext(ctx, query, args...)
		return err
	})
	return sqldb.Wrap("change a connect token", err)
}

// Connected ends a ticket with the account that was connected, in the transaction
// that stores it. One that has ended before, or is not for this owner, refuses it.
func (s *Service) Connected(ctx context.Context, tx *sqldb.Tx, t id.Ticket, c connection.Connection) error {
	res, err := tx.ExecContext(ctx, endTicketSQL, t, c.ID, c.Provider, c.Environment, c.Organization, c.Owner, sqldb.Micros(s.cfg.Now()))
	if err != nil {
		return sqldb.Wrap("end a connect token", err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return fault.New(fault.Conflict, "ticket_used", "The connect token was used already, or is too old.").WithHint("Start again where you came from.")
	}
	return nil
}

package credential

import (
	"context"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Loan is the right to make one request with a connection's credential for an
// application, which might have the credential itself and is not given it. Only
// [Service.Lend] makes one, and only [Loan.Check] in the transaction of the
// request's intent makes it good.
type Loan struct {
	service *Service
	by      account.Actor
	conn    connection.Connection
}

// Connection is the connection as it was found.
func (l Loan) Connection() connection.Connection { return l.conn }

// Lend gives the right to make one request to the API key of an application with
// the scope connections:vend.
func (s *Service) Lend(ctx context.Context, by account.Actor, conn id.Connection) (Loan, error) {
	if err := application(by); err != nil {
		return Loan{}, err
	}
	c, err := s.lendable(ctx, s.db.Reader(), by, conn)
	return Loan{s, by, c}, err
}

func (s *Service) lendable(ctx context.Context, q sqldb.Querier, by account.Actor, conn id.Connection) (connection.Connection, error) {
	c, err := s.applications(ctx, q, by, conn)
	if err != nil {
		return c, err
	}
	if c.State != connection.Connected {
		return c, s.connections.MustReconnect(c.ID, "The account must be connected again.")
	}
	return c, nil
}

// Check is audit.Fence: it reads the connection again in the transaction of the
// intent, so that nothing is sent of what has ended.
func (l Loan) Check(ctx context.Context, tx *sqldb.Tx, all []audit.Fence) []error {
	refused := make([]error, len(all))
	for i, f := range all {
		m := f.(Loan)
		now, err := m.service.lendable(ctx, tx, m.by, m.conn.ID)
		if err == nil && now.Record.Digest() != m.conn.Record.Digest() {
			err = fault.New(fault.Conflict, "approval_stale", "The account was connected anew while this request was on its way.").WithHint("Make it again.")
		}
		refused[i] = err
	}
	return refused
}

// Credential gives what goes into a request of this tool, fresh: of several tokens the
// one that the tool goes with.
func (l Loan) Credential(ctx context.Context, tool provider.Tool) (provider.Credential, error) {
	if l.service == nil {
		return provider.Credential{}, fault.New(fault.Internal, "no_permit", "A credential was asked for without a right to it.")
	}
	s := l.service
	r, err := s.current(ctx, l.conn.ID, l.conn.CredentialVersion)
	if err != nil {
		return provider.Credential{}, err
	}
	if r, err = s.renewed(ctx, r); err != nil {
		return provider.Credential{}, err
	}
	if r.version != l.conn.CredentialVersion {
		now, err := s.connections.ByID(ctx, s.db.Reader(), l.conn.Environment, l.conn.ID)
		if err == nil && now.Record.Digest() != l.conn.Record.Digest() {
			err = fault.New(fault.Conflict, "approval_stale", "The account was connected anew while this request was on its way.").WithHint("Make it again.")
		}
		if err != nil {
			return provider.Credential{}, err
		}
	}
	return s.openSlot(ctx, r, tool.Slot)
}

package account

import (
	"context"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/throttle"
)

// way is how something reaches the database.
type way struct {
	read  sqldb.Querier
	write func(ctx context.Context, fn func(ctx context.Context, tx *sqldb.Tx) error) error
}

func (s *Service) common() way { return way{s.db.Near(), s.db.Update} }

func (s *Service) urgent(line string) way {
	return way{s.db.UrgentReader(line), func(ctx context.Context, fn func(ctx context.Context, tx *sqldb.Tx) error) error {
		return s.db.Urgent(ctx, line, fn)
	}}
}

// ending runs a transaction with which by ends somebody's access. It takes turns
// with what else by's organization ends.
func (s *Service) ending(ctx context.Context, by Actor, fn func(ctx context.Context, tx *sqldb.Tx) error) error {
	line, _ := by.Counted()
	return s.db.Urgent(ctx, line, fn)
}

// before is where what by must know before it ends somebody's access is read.
func (s *Service) before(by Actor) sqldb.Querier {
	line, _ := by.Counted()
	return s.db.UrgentReader(line)
}

// Urgently answers what a request that ends access asks before it does, as the
// Service does, on the connections that are kept for such requests (threats.md W7).
type Urgently struct{ s *Service }

// Urgently is s for a request that ends access.
func (s *Service) Urgently() Urgently { return Urgently{s} }

// Authenticate is [Service.Authenticate]. Requests of one address take turns.
func (u Urgently) Authenticate(ctx context.Context, token secret.Value, address string) (Person, error) {
	return u.s.authenticate(ctx, u.s.urgent(throttle.Address(address)), token, address)
}

// AuthenticateKey is [Service.AuthenticateKey]. Requests of one address take turns.
func (u Urgently) AuthenticateKey(ctx context.Context, bearer secret.Value, address string) (Key, error) {
	return u.s.authenticateKey(ctx, u.s.urgent(throttle.Address(address)), bearer)
}

// Organization is [Service.Organization].
func (u Urgently) Organization(ctx context.Context, env id.Environment, org id.Organization) (Organization, error) {
	return organizationIn(ctx, u.s.db.UrgentReader(string(org)), env, org)
}

// Place is [Service.Place].
func (u Urgently) Place(ctx context.Context, p Person, org id.Organization) (Membership, error) {
	line, _ := ByPerson(p).Counted()
	return placeOf(ctx, u.s.db.UrgentReader(line), p, org)
}

// User is [Service.User] where by acts.
func (u Urgently) User(ctx context.Context, by Actor, user id.User) (User, error) {
	return userIn(ctx, u.s.before(by), by.Environment(), user)
}

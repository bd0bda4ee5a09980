package connection

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

const (
	defaultPage = 50
	maxPage     = 200
	// maxUsable bounds what one session request looks at.
	maxUsable = 500
)

// ByID reads a connection for other rooms, which have established on their own
// that they may. A connection of another environment does not exist.
func (s *Service) ByID(ctx context.Context, q sqldb.Querier, env id.Environment, conn id.Connection) (Connection, error) {
	const query = `select ` + columns + ` from connection where environment_id = $1 and id = $2`
	return s.one(ctx, q, query, env, conn)
}

// Get reads a connection that the actor may see: a person's own, the
// organization's own, and those of others for its owners, admins and auditors.
// Any other looks absent.
func (s *Service) Get(ctx context.Context, by account.Actor, conn id.Connection) (Connection, error) {
	return s.get(ctx, s.cfg.DB.Reader(), by, conn)
}

func (s *Service) get(ctx context.Context, q sqldb.Querier, by account.Actor, conn id.Connection) (Connection, error) {
	if err := mayAsk(by); err != nil {
		return Connection{}, err
	}
	c, err := s.ByID(ctx, q, by.Environment(), conn)
	if err != nil {
		return Connection{}, err
	}
	if by.May(c.Organization, account.ViewConnections) != nil || c.Owner != "" && c.Owner != by.User() && !seesAll(by, c.Organization) {
		return Connection{}, notFound()
	}
	return c, nil
}

// mayAsk tells a key without the scope so, before a look-up could tell it more.
func mayAsk(by account.Actor) error {
	if _, person := by.Person(); person {
		return nil
	}
	return by.May(by.Organization(), account.ViewConnections)
}

// seesAll reports whether the actor sees connections that belong to others.
func seesAll(by account.Actor, org id.Organization) bool {
	p, person := by.Person()
	return !person || p.May(org, account.RoleOwner, account.RoleAdmin, account.RoleAuditor)
}

// OwnedBy lists the live connections of exactly one owner at one provider, oldest
// first, for other rooms, which have established on their own that they may. No
// owner is the organization itself. It gives no more than fits a page.
func (s *Service) OwnedBy(ctx context.Context, q sqldb.Querier, env id.Environment, org id.Organization, owner id.User, provider string) ([]Connection, error) {
	const query = `select ` + columns + ` from connection where environment_id = $1 and organization_id = $2 and user_id = $3 and provider = $4
		and state <> 'disconnected' order by id limit $5`
	return s.many(ctx, q, query, env, org, owner, provider, maxPage)
}

// Filter selects connections. Empty fields select nothing away.
type Filter struct {
	// Organization is the tenant. Without it a person gets their own connections
	// of all organizations, and a key those it is for.
	Organization id.Organization
	Owner        id.User
	Provider     string
	State        State
	After        string // the Next of the page before
	Limit        int    // default 50, at most 200
}

// Page is a part of a list, newest first.
type Page struct {
	Connections []Connection
	Next        string // empty at the end
}

// List gives the connections that the actor may see and the filter selects.
func (s *Service) List(ctx context.Context, by account.Actor, f Filter) (Page, error) {
	if err := mayAsk(by); err != nil {
		return Page{}, err
	}
	_, person := by.Person()
	if f.Organization == "" {
		f.Organization = by.Organization()
	}
	if f.Organization != "" {
		if err := by.May(f.Organization, account.ViewConnections); err != nil {
			return Page{}, err
		}
	}
	// Whose connections: everybody's, or the organization's and the person's
	// own, or only the person's own.
	all, shared := 1, 1
	switch {
	case person && f.Organization == "":
		all, shared = 0, 0
	case !seesAll(by, f.Organization):
		all = 0
	}
	if f.After != "" {
		if err := parseCursor(f.After); err != nil {
			return Page{}, err
		}
	}
	limit := f.Limit
	if limit <= 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	const query = `select ` + columns + ` from connection where environment_id = $1
		and ($2 = '' or organization_id = $2) and ($3 = '' or user_id = $3) and ($4 = '' or provider = $4) and ($5 = '' or state = $5)
		and ($6 = 1 or user_id = $7 or (user_id = '' and $8 = 1)) and ($9 = '' or id < $9)
		order by id desc limit $10`
	list, err := s.many(ctx, s.cfg.DB.Lists(cmp.Or(string(f.Organization), string(by.Environment()))), query, by.Environment(), f.Organization, f.Owner, f.Provider, f.State, all, by.User(), shared, f.After, limit+1)
	if err != nil {
		return Page{}, err
	}
	page := Page{Connections: list}
	if len(list) > limit {
		page.Connections = list[:limit]
		page.Next = string(list[limit-1].ID)
	}
	return page, nil
}

// Usable lists the connected connections that a session of this user could use:
// the user's own and the organization's; only the latter when there is no user.
// Without providers it lists all. The newest of each provider come first.
func (s *Service) Usable(ctx context.Context, env id.Environment, org id.Organization, user id.User, providers []string) ([]Connection, error) {
	list, err := s.inState(ctx, env, org, user, Connected)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list, func(c Connection) bool {
		return c.State != Connected || len(providers) > 0 && !slices.Contains(providers, c.Provider)
	}), nil
}

// Broken lists the connections that a session of this user could use if their
// owners reconnected them, in the order of [Service.Usable].
func (s *Service) Broken(ctx context.Context, env id.Environment, org id.Organization, user id.User) ([]Connection, error) {
	return s.inState(ctx, env, org, user, NeedsReauth)
}

func (s *Service) inState(ctx context.Context, env id.Environment, org id.Organization, user id.User, state State) ([]Connection, error) {
	const query = `select ` + columns + ` from connection where environment_id = $1 and organization_id = $2 and state = $3
		and (user_id = '' or user_id = $4) order by provider, id desc limit $5`
	return s.many(ctx, s.cfg.DB.Reader(), query, env, org, state, user, maxUsable)
}

// Among reads those of some connections that exist, for other rooms, which have
// established on their own that they may.
func (s *Service) Among(ctx context.Context, q sqldb.Querier, env id.Environment, some []id.Connection) ([]Connection, error) {
	return s.among(ctx, q, env, some, "")
}

// Hold is Among, and until the transaction ends none of them changes.
func (s *Service) Hold(ctx context.Context, tx *sqldb.Tx, env id.Environment, some []id.Connection) ([]Connection, error) {
	return s.among(ctx, tx, env, some, tx.ShareLock())
}

func (s *Service) among(ctx context.Context, q sqldb.Querier, env id.Environment, some []id.Connection, lock string) ([]Connection, error) {
	if len(some) == 0 {
		return nil, nil
	}
	const query = `select ` + columns + ` from connection where id in (%s) and environment_id = $%d order by id`
	marks, args := sqldb.In(some)
	return s.many(ctx, q, fmt.Sprintf(query, marks, len(args)+1)+lock, append(args, env)...)
}

// Told lists the live connections of a provider that it means when it tells of an
// access which ended there, or which goes on.
func (s *Service) Told(ctx context.Context, tx *sqldb.Tx, env id.Environment, slug string, e provider.Ended) ([]Connection, error) {
	if e.Account == "" && e.Place == "" {
		return nil, nil
	}
	const query = `select ` + columns + ` from connection where environment_id = $1 and provider = $2 and state <> 'disconnected'
		and ($3 = '' or account_id = $3) and ($4 = '' or place = $4) and ($5 = '' or auth_method = $5) and ($6 = 0 or state = 'needs_reauthorization' and reason = $7) order by id`
	resumes := 0
	if e.Resumes {
		resumes = 1
	}
	return s.many(ctx, tx, query, env, slug, e.Account, e.Place, e.Kind, resumes, e.Reason)
}

// InUse counts the live connections of a provider.
func (s *Service) InUse(ctx context.Context, tx *sqldb.Tx, env id.Environment, slug string) (int, error) {
	const query = `select count(*) from connection where environment_id = $1 and provider = $2 and state <> 'disconnected'`
	var n int
	err := tx.QueryRowContext(ctx, query, env, slug).Scan(&n)
	return n, sqldb.Wrap("count connections", err)
}

func parseCursor(s string) error {
	if _, err := parsedAs(id.Connection(""), s); err != nil {
		return fault.New(fault.Invalid, "cursor_invalid", "The cursor is not one of this list.").WithHint("Start again without it.")
	}
	return nil
}

// parsedAs is id.Parse for the kind of its first argument, whose marker is
// private to package id.
func parsedAs[K id.Kind](_ id.ID[K], s string) (id.ID[K], error) { return id.Parse[K](s) }

// Package integration is what the back end of a product sees of connections: the
// providers that it offers to its users and organizations, whose accounts are
// connected there, and the road on which their credentials are vended to it. It
// knows users and organizations by the product's own names for them, and makes
// them just in time. What connects, refreshes and seals is done in the rooms below.
//
// An integration is a provider of the environment with what the product's
// developers decide of it: whether it is offered, which scopes are asked for,
// whose OAuth client. A provider may be offered to users and to organizations as
// a whole, apart from each other. One that nobody made an integration of is
// offered to both as it is.
package integration

import (
	"context"
	"net/url"
	"slices"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Config is what a Service needs. All but Now are required.
type Config struct {
	DB          *sqldb.DB
	Audit       *audit.Log
	People      *account.Service
	Providers   *provider.Store
	Connections *connection.Service
	Credentials *credential.Service
	PublicURL   *url.URL // of the pages on which people connect accounts
	// Vends is what the operator says: without it no credential is handed to
	// anybody.
	Vends bool
	Now   func() time.Time
}

// Service is the room's door. It is safe for concurrent use.
type Service struct{ cfg Config }

// New makes a Service.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg: cfg}
}

// Ownership says to whom an integration's connections belong.
type Ownership string

const (
	Users         Ownership = "user"
	Organizations Ownership = "organization"
)

// Whose OAuth client signs people in.
const (
	ClientCustom       = "custom"       // the environment's own
	ClientOrganization = "organization" // each organization brings its own
)

// Integration is a provider as a product offers it.
type Integration struct {
	ID             id.Integration // empty: nobody made one, and it is offered as it is
	Environment    id.Environment
	Ownership      Ownership
	Description    string
	Enabled        bool
	Scopes         []string // nil: as the provider's record says
	ScopesRequired bool
	Clients        string
	Provider       provider.Provider
	CreatedAt      time.Time
	UpdatedAt      time.Time
	Version        int64
}

// Slug is the integration's name on the wire.
func (i Integration) Slug() string { return i.Provider.Record.Wire() }

// Asks lists the scopes that a connection is asked for: those that were chosen, or
// those of the record that are no administrator's.
func (i Integration) Asks() []string {
	o := i.Provider.Record.OAuth
	if i.Scopes != nil || o == nil {
		return slices.Clone(i.Scopes)
	}
	out := slices.Clone(o.Scopes.Base)
	for _, s := range o.Scopes.Catalog {
		if s.Risk != "admin" && !slices.Contains(out, s.ID) {
			out = append(out, s.ID)
		}
	}
	return out
}

// Usable reports whether people can be signed in there: an OAuth provider needs a
// client, its own or each organization's.
func (i Integration) Usable() bool {
	return i.Provider.Record.OAuth == nil || i.Provider.ClientID != "" || i.Clients == ClientOrganization
}

// Get finds an integration by its slug.
func (s *Service) Get(ctx context.Context, by account.Actor, slug string, o Ownership) (Integration, error) {
	if err := mayRead(by); err != nil {
		return Integration{}, err
	}
	return s.find(ctx, s.cfg.DB.Reader(), by.Environment(), slug, o)
}

// mayRead takes any of the two scopes that have to do with providers.
func mayRead(by account.Actor) error {
	err := by.May(by.Organization(), account.ViewConnections)
	if err != nil && by.May("", account.ManageProviders) == nil {
		return nil
	}
	return err
}

func notFound() error {
	return fault.New(fault.NotFound, "not_found", "There is no such data integration.").WithHint("List the integrations of this environment.")
}

// find looks an integration up for what is done with it. A provider of which
// nobody made any is offered to both.
func (s *Service) find(ctx context.Context, q sqldb.Querier, env id.Environment, slug string, o Ownership) (Integration, error) {
	p, err := s.cfg.Providers.ByWire(ctx, env, slug)
	if fault.Is(err, "not_found") {
		return Integration{}, notFound()
	}
	if err != nil {
		return Integration{}, err
	}
	rows, err := selectIntegrations(ctx, q, env, p.Record.ID)
	if err != nil {
		return Integration{}, err
	}
	if len(rows) == 0 {
		return asItIs(env, p, o), nil
	}
	for _, r := range rows {
		if r.Ownership == o {
			r.Provider = p
			return r, nil
		}
	}
	return Integration{}, notFound()
}

func asItIs(env id.Environment, p provider.Provider, o Ownership) Integration {
	return Integration{Environment: env, Ownership: o, Enabled: true, Clients: ClientCustom, Provider: p, CreatedAt: p.UpdatedAt, UpdatedAt: p.UpdatedAt}
}

// Page is a part of a list.
type Page struct {
	Integrations []Integration
	Before       string // the cursor of the page before; empty at the beginning
	Next         string // the cursor of the page after; empty at the end
}

// Filter selects integrations.
type Filter struct {
	Ownership     Ownership // empty: both
	After, Before string    // cursors of an earlier page
	Oldest        bool      // first
	Limit         int       // 1 to 100
}

// List gives the integrations of the actor's environment.
func (s *Service) List(ctx context.Context, by account.Actor, f Filter) (Page, error) {
	if err := mayRead(by); err != nil {
		return Page{}, err
	}
	all, err := s.all(ctx, by.Environment())
	if err != nil {
		return Page{}, err
	}
	all = slices.DeleteFunc(all, func(i Integration) bool { return f.Ownership != "" && i.Ownership != f.Ownership })
	if !f.Oldest {
		slices.Reverse(all)
	}
	from, to := 0, len(all)
	if f.After != "" {
		at := slices.IndexFunc(all, func(i Integration) bool { return i.Cursor() == f.After })
		if at < 0 {
			return Page{}, fault.New(fault.Invalid, "invalid_cursor", "The cursor is not one of this list.")
		}
		from = at + 1
	}
	if f.Before != "" {
		at := slices.IndexFunc(all, func(i Integration) bool { return i.Cursor() == f.Before })
		if at < 0 {
			return Page{}, fault.New(fault.Invalid, "invalid_cursor", "The cursor is not one of this list.")
		}
		to, from = at, max(from, at-f.Limit)
	}
	to = max(from, min(to, from+f.Limit))
	p := Page{Integrations: all[from:to]}
	if from > 0 && to > from {
		p.Before = all[from].Cursor()
	}
	if to < len(all) && to > from {
		p.Next = all[to-1].Cursor()
	}
	return p, nil
}

// Cursor names the integration in a list.
func (i Integration) Cursor() string {
	if i.ID != "" {
		return string(i.ID)
	}
	return i.Provider.Record.ID
}

// all lists what there is, oldest first. Of a provider of which nobody made an
// integration there is the one for users.
func (s *Service) all(ctx context.Context, env id.Environment) ([]Integration, error) {
	providers, err := s.cfg.Providers.List(ctx, env)
	if err != nil {
		return nil, err
	}
	rows, err := selectIntegrations(ctx, s.cfg.DB.Reader(), env, "")
	if err != nil {
		return nil, err
	}
	byProvider := map[string][]Integration{}
	for _, r := range rows {
		slug := r.Provider.Record.ID
		byProvider[slug] = append(byProvider[slug], r)
	}
	var out []Integration
	for _, p := range providers {
		made := byProvider[p.Record.ID]
		if len(made) == 0 {
			out = append(out, asItIs(env, p, Users))
		}
		for _, r := range made {
			r.Provider = p
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, func(a, b Integration) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return out, nil
}

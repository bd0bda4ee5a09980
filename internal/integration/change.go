package integration

import (
	"context"
	"slices"
	"strings"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Client says whose OAuth client signs people in, and which it is.
type Client struct {
	Kind   string // ClientCustom or ClientOrganization
	ID     string
	Secret secret.Value // zero keeps the one that is stored
}

// Offer says what to offer.
type Offer struct {
	Slug           string
	Ownership      Ownership
	Description    string
	Enabled        bool
	Scopes         []string          // nil: as the provider's record says
	Auth           provider.Auth     // must be that of the provider; empty is any
	Config         map[string]string // what fills the blanks of an entry of the catalogue
	Client         *Client
	Custom         *provider.Custom // describes what the catalogue does not know
	ScopesRequired bool
}

const maxScopes = 200

func checkScopes(list []string) error {
	for _, s := range list {
		if s == "" || len(s) > 500 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return fault.New(fault.Invalid, "invalid_scope", "A scope is printable ASCII without blanks.")
		}
	}
	if len(list) > maxScopes {
		return fault.New(fault.Invalid, "invalid_scope", "There are too many scopes.")
	}
	return nil
}

func checkDescription(s string) error {
	if len(s) > 1000 {
		return fault.New(fault.Invalid, "invalid_description", "A description has at most 1000 characters.")
	}
	return nil
}

// Create offers a provider: one of the environment, one that the catalogue knows,
// or one that is described here and now.
func (s *Service) Create(ctx context.Context, by account.Actor, n Offer) (Integration, error) {
	if err := by.May("", account.ManageProviders); err != nil {
		return Integration{}, err
	}
	if err := checkScopes(n.Scopes); err != nil {
		return Integration{}, err
	}
	if err := checkDescription(n.Description); err != nil {
		return Integration{}, err
	}
	env := by.Environment()
	i := Integration{ID: id.NewIntegration(), Environment: env, Ownership: n.Ownership, Description: n.Description, Enabled: n.Enabled, Scopes: n.Scopes,
		ScopesRequired: n.ScopesRequired, Clients: ClientCustom, CreatedAt: s.cfg.Now(), Version: 1}
	if n.Client != nil {
		i.Clients = n.Client.Kind
	}
	i.UpdatedAt = i.CreatedAt
	have, err := s.cfg.Providers.ByWire(ctx, env, n.Slug)
	switch {
	case err == nil && n.Custom != nil:
		return Integration{}, there()
	case err == nil:
		rows, err := selectIntegrations(ctx, s.cfg.DB.Reader(), env, have.Record.ID)
		if err != nil {
			return Integration{}, err
		}
		if slices.ContainsFunc(rows, func(r Integration) bool { return r.Ownership == n.Ownership }) {
			return Integration{}, taken()
		}
	case !fault.Is(err, "not_found"):
		return Integration{}, err
	}
	in, rec, err := s.input(have, n)
	if err != nil {
		return Integration{}, err
	}
	if n.Auth != "" && n.Auth != rec.Auth {
		return Integration{}, mismatch(rec)
	}
	also := func(ctx context.Context, tx *sqldb.Tx, p provider.Provider) error {
		i.Provider = p
		if err := insertIntegration(ctx, tx, i); err != nil {
			return err
		}
		s.audit(tx, by, "integration.created", i, "")
		return nil
	}
	if in == nil {
		err = s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error { return also(ctx, tx, have) })
		return i, err
	}
	in.Also = also
	i.Provider, err = s.cfg.Providers.Put(ctx, by, *in, account.Agreement{})
	if fault.Is(err, "provider_exists") { // under another slug with the same id, or somebody else was faster
		err = there()
	}
	return i, err
}

// there refuses to describe anew what is there: its connections would go on at
// other hosts, and its tools be gone.
func there() error {
	return fault.New(fault.Conflict, "provider_exists", "There is a provider of this name already.").
		WithHint("Change it with PUT /data-integrations/{slug}, offer it as it is without custom_provider, or choose another name.")
}

// free holds what an application describes to a name that is not the catalogue's:
// a person would take it for that provider.
func free(slug string) error {
	for _, name := range []string{slug, provider.IDOf(slug)} {
		if _, err := provider.FindEntry(name); !fault.Is(err, "not_found") {
			return orElse(err, fault.New(fault.Conflict, "provider_reserved", "The name "+slug+" is one of the catalogue.").
				WithHint("Leave custom_provider away, or choose another name."))
		}
	}
	return nil
}

func mismatch(r provider.Record) error {
	return fault.New(fault.Invalid, "auth_method_mismatch", "The provider "+r.Name+" is connected in another way.")
}

// input is what the provider becomes; nil leaves it as it is.
func (s *Service) input(have provider.Provider, n Offer) (*provider.Input, provider.Record, error) {
	rec, err := have.Record, error(nil)
	switch {
	case n.Custom != nil:
		if err = free(n.Custom.Slug); err == nil {
			rec, err = n.Custom.Record()
		}
	case have.Record.ID == "":
		rec, err = s.known(n)
	case n.Client == nil || n.Client.ID == "" && (n.Client.Kind != ClientOrganization || have.ClientID == ""):
		return nil, rec, nil
	}
	if err != nil {
		return nil, provider.Record{}, err
	}
	in := &provider.Input{YAML: rec.Source(), ClientID: have.ClientID, NoClient: true, New: have.Record.ID == ""}
	if n.Client != nil {
		n.Client.onto(in)
	}
	return in, rec, nil
}

// onto says whose client signs people in. On this wire custom is the developer's own
// for all of their organizations, which is what they say by it, and organization is
// each one's and no other.
func (c *Client) onto(in *provider.Input) {
	if c.Kind == ClientOrganization {
		if in.ClientID != "" {
			in.For = provider.ForNobody
		}
		return
	}
	if c.ID != "" {
		in.ClientID = c.ID
	}
	if in.ClientSecret = c.Secret; in.ClientID != "" {
		in.For, in.AcceptShared = provider.ForAll, true
	}
}

// known fills in an entry of the catalogue.
func (s *Service) known(n Offer) (provider.Record, error) {
	e, err := provider.FindEntry(n.Slug)
	if fault.Is(err, "not_found") {
		return provider.Record{}, fault.New(fault.NotFound, "provider_not_found", "There is no provider of this name.").
			WithHint("Describe it with custom_provider.")
	}
	if err != nil {
		return provider.Record{}, err
	}
	params := map[string]string{}
	for k, v := range n.Config {
		params[k] = v
	}
	for _, p := range e.Params {
		if p.Name == "client_id" && n.Client != nil && params["client_id"] == "" {
			params["client_id"] = n.Client.ID
		}
	}
	return e.Record(params)
}

// Change says what becomes of an integration; nil leaves a thing as it is.
type Change struct {
	Description *string
	Enabled     *bool
	Scopes      *[]string // of nil: as the provider's record says
	Client      *Client
	Custom      func(was provider.Custom) provider.Custom
	Required    *bool // scopes
}

// Update changes an integration. One that nobody made yet is made by it.
func (s *Service) Update(ctx context.Context, by account.Actor, slug string, o Ownership, c Change) (Integration, error) {
	if err := by.May("", account.ManageProviders); err != nil {
		return Integration{}, err
	}
	i, err := s.find(ctx, s.cfg.DB.Reader(), by.Environment(), slug, o)
	if err != nil {
		return Integration{}, err
	}
	if i, err = c.onto(i); err != nil {
		return Integration{}, err
	}
	i.UpdatedAt = s.cfg.Now()
	was := i.Version
	also := func(ctx context.Context, tx *sqldb.Tx, p provider.Provider) error {
		i.Provider, i.Version = p, was+1
		if i.ID == "" {
			i.ID, i.CreatedAt = id.NewIntegration(), i.UpdatedAt
			err = insertIntegration(ctx, tx, i)
		} else {
			err = updateIntegration(ctx, tx, i, was)
		}
		if err == nil {
			s.audit(tx, by, "integration.changed", i, "")
		}
		return err
	}
	in, err := c.input(i)
	if err != nil {
		return Integration{}, err
	}
	if in == nil {
		err = s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error { return also(ctx, tx, i.Provider) })
		return i, err
	}
	in.Also, in.IfVersion = also, i.Provider.Version
	i.Provider, err = s.cfg.Providers.Put(ctx, by, *in, account.Agreement{})
	return i, err
}

func (c Change) onto(i Integration) (Integration, error) {
	if c.Description != nil {
		if err := checkDescription(*c.Description); err != nil {
			return i, err
		}
		i.Description = *c.Description
	}
	if c.Enabled != nil {
		i.Enabled = *c.Enabled
	}
	if c.Required != nil {
		i.ScopesRequired = *c.Required
	}
	if c.Scopes != nil {
		if err := checkScopes(*c.Scopes); err != nil {
			return i, err
		}
		i.Scopes = *c.Scopes
	}
	if c.Client != nil {
		i.Clients = c.Client.Kind
	}
	return i, nil
}

// input is what the provider becomes; nil leaves it as it is.
func (c Change) input(i Integration) (*provider.Input, error) {
	if c.Custom == nil && (c.Client == nil || c.Client.Kind != ClientCustom && i.Provider.ClientID == "") {
		return nil, nil
	}
	if i.Provider.Builtin {
		return nil, fault.New(fault.Denied, "provider_reserved", "A built-in provider is as it is.")
	}
	in := &provider.Input{YAML: i.Provider.Record.Source(), ClientID: i.Provider.ClientID, NoClient: true}
	if c.Custom != nil {
		if _, err := provider.FindEntry(i.Slug()); err == nil {
			return nil, fault.New(fault.Invalid, "not_custom", "The provider is one of the catalogue.")
		}
		rec, err := c.Custom(provider.CustomOf(i.Provider.Record)).Record()
		if err != nil {
			return nil, err
		}
		in.YAML = rec.Source()
	}
	if c.Client != nil {
		c.Client.onto(in)
	}
	return in, nil
}

// Delete ends every connection of the integration, here and at the provider, and
// takes it away. With the last of a provider the provider goes as well.
func (s *Service) Delete(ctx context.Context, by account.Actor, slug string, o Ownership) error {
	if err := by.May("", account.ManageProviders); err != nil {
		return err
	}
	i, err := s.find(ctx, s.cfg.DB.Reader(), by.Environment(), slug, o)
	if err != nil {
		return err
	}
	rows, err := selectIntegrations(ctx, s.cfg.DB.Reader(), i.Environment, i.Provider.Record.ID)
	if err != nil {
		return err
	}
	last := len(rows) <= 1
	ours, others, err := s.connected(ctx, by, i)
	if err != nil {
		return err
	}
	if last && others > 0 {
		return fault.New(fault.Conflict, "provider_in_use", "The provider has connections that do not belong to this integration.").WithHint("Disconnect them first.")
	}
	for _, c := range ours {
		if _, err := s.cfg.Credentials.Disconnect(ctx, by, c); err != nil {
			return err
		}
	}
	err = s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if i.ID != "" {
			if err := deleteIntegration(ctx, tx, i); err != nil {
				return err
			}
		}
		if last {
			if err := forgetSettings(ctx, tx, i.Environment, i.Provider.Record.ID); err != nil {
				return err
			}
		}
		s.audit(tx, by, "integration.removed", i, "")
		return nil
	})
	if err != nil || !last || i.Provider.Builtin {
		return err
	}
	return s.cfg.Providers.Delete(ctx, by, i.Provider.Record.ID)
}

// connected lists the live connections of an integration, and counts the others of
// its provider.
func (s *Service) connected(ctx context.Context, by account.Actor, i Integration) (ours []id.Connection, others int, err error) {
	f := connection.Filter{Provider: i.Provider.Record.ID, Limit: 200}
	for {
		page, err := s.cfg.Connections.List(ctx, by, f)
		if err != nil {
			return nil, 0, err
		}
		for _, c := range page.Connections {
			switch {
			case !c.Live():
			case (c.Owner == "") == (i.Ownership == Organizations):
				ours = append(ours, c.ID)
			default:
				others++
			}
		}
		if f.After = page.Next; f.After == "" {
			return ours, others, nil
		}
	}
}

func (s *Service) audit(tx *sqldb.Tx, by account.Actor, action string, i Integration, org id.Organization) {
	s.cfg.Audit.AppendEvent(tx, audit.Entry{Environment: i.Environment, Organization: org, Actor: by.Audit(), User: by.User(), Action: action,
		Object: string(i.ID), Provider: i.Provider.Record.ID, Address: by.Address(), Detail: map[string]string{"ownership": string(i.Ownership)}})
}

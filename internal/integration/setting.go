package integration

import (
	"context"
	"slices"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Setting is what one organization changes of an integration for itself.
type Setting struct {
	Enabled   bool
	Scopes    []string // nil: those of the integration
	UpdatedAt time.Time
	Version   int64 // 0: the organization has changed nothing
}

// Configured is an integration with what an organization made of it.
type Configured struct {
	Integration
	Organization id.Organization
	Setting      Setting
	Own          *provider.ClientInfo // the organization's own client; nil: it has none
}

// Usable reports whether people of the organization can be signed in there.
func (c Configured) Usable() bool {
	p := c.Provider
	return p.Record.OAuth == nil || c.Own != nil || p.ClientID != "" && p.For.Includes(c.Organization)
}

// usable refuses where they cannot, and says why.
func (s *Service) usable(ctx context.Context, c Configured) error {
	if c.Usable() {
		return nil
	}
	_, err := s.cfg.Providers.ClientFor(ctx, c.Environment, c.Organization, c.Provider.Record.ID)
	return err
}

// Offered reports whether the organization and its users can connect there.
func (c Configured) Offered() bool { return c.Enabled && c.Setting.Enabled }

// Asks are the scopes that connections of the organization are asked for.
func (c Configured) Asks() []string {
	if c.Setting.Scopes != nil {
		return slices.Clone(c.Setting.Scopes)
	}
	return c.Integration.Asks()
}

// configuring says of an integration what an organization made of it. One that is not
// there yet has made nothing of any.
func (s *Service) configuring(ctx context.Context, env id.Environment, org id.Organization) (func(Integration) Configured, error) {
	var set map[string]Setting
	var own map[string]provider.ClientInfo
	if org != "" {
		var err error
		if set, err = selectSettings(ctx, s.cfg.DB.Reader(), env, org); err != nil {
			return nil, err
		}
		if own, err = s.cfg.Providers.OwnClients(ctx, env, org); err != nil {
			return nil, err
		}
	}
	return func(i Integration) Configured {
		c := Configured{Integration: i, Organization: org, Setting: Setting{Enabled: true}}
		if v, ok := set[i.Provider.Record.ID]; ok {
			c.Setting = v
		}
		if o, ok := own[i.Provider.Record.ID]; ok {
			c.Own = &o
		}
		return c
	}, nil
}

func (s *Service) configured(ctx context.Context, i Integration, org id.Organization) (Configured, error) {
	as, err := s.configuring(ctx, i.Environment, org)
	if err != nil {
		return Configured{}, err
	}
	return as(i), nil
}

// Settings lists the integrations for users with what an organization made of each.
func (s *Service) Settings(ctx context.Context, by account.Actor, organization string) ([]Configured, error) {
	sub, err := s.who(ctx, by, Names{Organization: organization})
	if err != nil {
		return nil, err
	}
	if err := by.May(sub.Organization, account.ViewConnections); err != nil && sub.Organization != "" {
		return nil, err
	}
	all, err := s.allConfigured(ctx, by.Environment(), sub.Organization)
	return slices.DeleteFunc(all, func(c Configured) bool { return c.Ownership != Users }), err
}

// allConfigured lists all integrations with what an organization made of each.
func (s *Service) allConfigured(ctx context.Context, env id.Environment, org id.Organization) ([]Configured, error) {
	all, err := s.all(ctx, env)
	if err != nil {
		return nil, err
	}
	as, err := s.configuring(ctx, env, org)
	if err != nil {
		return nil, err
	}
	var out []Configured
	for _, i := range all {
		out = append(out, as(i))
	}
	return out, nil
}

// SettingChange says what an organization changes; nil leaves a thing as it is.
type SettingChange struct {
	Enabled *bool
	Scopes  *[]string // of nil: those of the integration
	Client  *Client   // the organization's own; without an ID another secret of the one that is there
}

// Configure changes an integration for one organization: off, with fewer scopes, or
// with a client of its own.
func (s *Service) Configure(ctx context.Context, by account.Actor, organization, slug string, c SettingChange) (Configured, error) {
	i, err := s.find(ctx, s.cfg.DB.Reader(), by.Environment(), slug, Users)
	if err != nil {
		return Configured{}, err
	}
	sub, err := s.who(ctx, by, Names{Organization: organization})
	if err != nil {
		return Configured{}, err
	}
	if err := by.May(sub.Organization, account.ManageProviders); err != nil {
		return Configured{}, err
	}
	out, err := s.configured(ctx, i, sub.Organization)
	if err != nil {
		return Configured{}, err
	}
	if c.Enabled != nil {
		out.Setting.Enabled = *c.Enabled
	}
	if c.Scopes != nil {
		for _, scope := range *c.Scopes {
			if !slices.Contains(i.allowed(), scope) {
				return Configured{}, fault.New(fault.Invalid, "scope_not_allowed", "The integration does not allow the scope "+scope+".").
					WithHint("Choose among the scopes of the integration.")
			}
		}
		out.Setting.Scopes = *c.Scopes
	}
	if sub, err = s.whoever(ctx, by, Names{Organization: organization}); err != nil { // nobody is made for what is refused
		return Configured{}, err
	}
	out.Organization = sub.Organization
	out.Setting.UpdatedAt = s.cfg.Now()
	store := func(ctx context.Context, tx *sqldb.Tx) error {
		if err := putSetting(ctx, tx, i.Environment, sub.Organization, i.Provider.Record.ID, out.Setting); err != nil {
			return err
		}
		s.audit(tx, by, "integration.configured", i, sub.Organization)
		return nil
	}
	if c.Client != nil {
		in := provider.Input{YAML: i.Provider.Record.Source(), Organization: sub.Organization, ClientID: c.Client.ID, ClientSecret: c.Client.Secret,
			Also: func(ctx context.Context, tx *sqldb.Tx, _ provider.Provider) error { return store(ctx, tx) }}
		if in.ClientID == "" && out.Own != nil {
			in.ClientID = out.Own.ID
		}
		_, err = s.cfg.Providers.Put(ctx, by, in, account.Agreement{})
	} else {
		err = s.cfg.DB.Update(ctx, store)
	}
	if err != nil {
		return Configured{}, err
	}
	return s.configured(ctx, i, sub.Organization)
}

// allowed lists the scopes that an organization may choose from.
func (i Integration) allowed() []string {
	out := i.Asks()
	if o := i.Provider.Record.OAuth; o != nil && i.Scopes == nil {
		for _, s := range o.Scopes.Catalog {
			out = append(out, s.ID)
		}
	}
	return out
}

package web

import (
	"strconv"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
)

// providerClient shows our OAuth clients at a provider.
func (s *Server) providerClient(v *visit) (answer, error) {
	p, _, err := s.clientPage(v)
	if err != nil {
		return nil, err
	}
	return show(p), nil
}

func (s *Server) clientPage(v *visit) (*ProviderClientPage, provider.Provider, error) {
	if err := v.actor().May(v.here.Organization, account.ManageProviders); err != nil {
		return nil, provider.Provider{}, err
	}
	prov, err := s.providers.Get(v.ctx(), v.here.Environment, v.r.PathValue("provider"))
	if err != nil {
		return nil, prov, err
	}
	if prov.Record.Auth != provider.OAuth2 {
		return nil, prov, fault.New(fault.NotFound, "not_found", "This provider takes no OAuth client.").WithHint("Its accounts are connected with a key.")
	}
	list, err := s.providers.Clients(v.ctx(), v.actor(), prov.Record.ID)
	if err != nil {
		return nil, prov, err
	}
	p := &ProviderClientPage{Frame: Frame{Title: "Client at " + oneLine(prov.Record.Name), Section: "providers", Narrow: true}, Slug: prov.Record.ID, Name: prov.Record.Name}
	form := func(of id.Organization) ClientForm {
		f := ClientForm{Of: "organization", Slug: prov.Record.ID, Here: v.here.Organization, State: "None yet.", Callback: s.public.JoinPath(credential.OwnCallbackPath(v.here.Environment, prov.Record.ID, of)).String()}
		for _, c := range list {
			if c.Organization == of {
				f.ID, f.Set, f.Until, f.State = c.ID, true, c.OldSecretUntil, "One secret."
				switch {
				case c.Stale:
					f.State = "The provider's addresses have changed since it was stored. Give it again."
				case !c.OldSecretUntil.IsZero():
					f.State = "Two secrets count."
				case !c.HasSecret:
					f.State = "Without a secret."
				}
			}
		}
		return f
	}
	p.Own = form(v.here.Organization)
	p.SharedUsed = prov.ClientID != "" && prov.For.Includes(v.here.Organization)
	if v.mayProviders() && !prov.Builtin {
		f := form("")
		f.Of, f.Risk = "environment", provider.SharedClientRisk
		now := prov.For
		if prov.ClientID == "" {
			now = provider.Audience(v.here.Organization)
		}
		for _, o := range []Option{{Value: string(v.here.Organization), Label: "Only " + oneLine(v.here.OrganizationName)}, {Value: string(provider.ForAll), Label: "All organizations"},
			{Value: string(provider.ForNobody), Label: "Nobody: each organization brings its own"}} {
			o.Chosen = o.Value == string(now)
			f.For = append(f.For, o)
		}
		if now != provider.ForAll && now != provider.ForNobody && now != provider.Audience(v.here.Organization) {
			f.For = append(f.For, Option{Value: string(now), Label: "Only " + s.names(v, v.here.Environment).organization(id.Organization(now)), Chosen: true})
		}
		p.Shared = &f
	}
	return p, prov, nil
}

// providerClientPut hands a client in. It counts once the person agreed to it.
func (s *Server) providerClientPut(v *visit) (answer, error) {
	p, prov, err := s.clientPage(v)
	if err != nil {
		return nil, err
	}
	in := provider.Input{YAML: prov.Record.Source(), ClientID: v.form("client_id"), ClientSecret: secret.FromString(v.form("client_secret")), Organization: v.here.Organization}
	if v.form("of") == "environment" {
		in.Organization, in.For, in.AcceptShared, in.IfVersion = "", provider.Audience(v.form("for")), v.form("accept") == "yes", prov.Version
		if in.For == "" {
			in.For = prov.For
		}
	}
	if hours, err := strconv.Atoi(v.form("overlap")); err == nil && hours >= 0 {
		d := time.Duration(hours) * time.Hour
		in.Overlap = &d
	}
	d, err := s.providers.Draft(v.ctx(), v.actor(), in, "")
	if err != nil {
		return again(p, err)
	}
	return goTo(v.query("/ui/drafts/" + string(d.ID))), nil
}

// providerClientRemove takes the organization's own client away.
func (s *Server) providerClientRemove(v *visit) (answer, error) {
	err := s.providers.RemoveOwn(v.ctx(), v.actor(), v.r.PathValue("provider"), v.here.Organization)
	return goTo(v.query("/ui/providers/"+v.r.PathValue("provider")+"/client", "done", "removed")), err
}

// clientLines says what a client that was handed in changes.
func (s *Server) clientLines(v *visit, d provider.Draft, r account.Raise, p *ConfirmPage) {
	p.Title, p.Eyebrow, p.Label = "Confirm a client", "Confirm a client", "Use this client"
	p.Said = said("", d.ClientID, " signs people in at ", d.Record.Name, " from now on.")
	p.Lines, p.BackLabel, p.More, p.Text = nil, "Back to the form", "", ""
	switch {
	case d.Organization != "":
		p.Lines = append(p.Lines, "It is the own client of "+s.names(v, v.here.Environment).organization(d.Organization)+", and nobody else is signed in with it.")
	case d.For == provider.ForAll:
		p.Danger = d.AcceptShared
		p.Lines = append(p.Lines, "It is for all organizations. "+provider.SharedClientRisk)
	case d.For == provider.ForNobody:
		p.Said = said("Nobody is signed in with ", d.ClientID, " at ", d.Record.Name, " any more.")
		p.Lines = append(p.Lines, "Each organization brings its own client. Accounts that are connected stay connected.")
	default:
		p.Lines = append(p.Lines, "It is for "+s.names(v, v.here.Environment).organization(id.Organization(d.For))+" only.")
	}
	if r.Facts["client_secret"] != "" {
		p.Lines = append(p.Lines, "With the secret that you gave. It goes to "+andList(d.Record.Hosts())+".")
		switch {
		case d.Overlap != nil && *d.Overlap == 0:
			p.Lines = append(p.Lines, "The secret before it ends at once.")
		case d.Overlap != nil:
			p.Lines = append(p.Lines, "The secret before it counts as well for "+plural(int(*d.Overlap/time.Hour), "hour")+", where it is one of the same client.")
		}
	}
}

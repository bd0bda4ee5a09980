package web

import (
	"slices"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/integration"
	"github.com/ambit-dev/ambit/internal/provider"
)

// The connect page says who will be connected to what before anything leaves for
// the provider: the person and the organization, the kind of account, what the
// token may do, and how far the record of the provider can be relied on.

// connectFacts says so of a connection that is to be made.
func connectFacts(v *visit, r provider.Record) []Fact {
	out := []Fact{{Name: "You are", Value: v.person.Name()}, {Name: "For", Value: v.here.OrganizationName + " \u00b7 " + v.here.EnvironmentName}, {Name: "Kind of account", Value: kindWords(r.Auth)}}
	if known := relied(r.About); known != "" {
		out = append(out, Fact{Name: "How sure", Value: known})
	}
	return out
}

// kindWords is what a person gives for an account of this kind.
func kindWords(a provider.Auth) string {
	switch a {
	case provider.OAuth2:
		return "One that you sign in to"
	case provider.ClientCredentials:
		return "A client's id and secret"
	case provider.AWSAssumeRole:
		return "A role that Ambit may assume"
	case provider.GitHubApp:
		return "An app that is installed there"
	case provider.JWT, provider.JWTBearer:
		return "A service account with a private key"
	}
	return "One with a key"
}

// relied says how far a record can be relied on; empty where nothing is said.
func relied(a provider.About) string {
	switch {
	case a.Tried != "":
		return "Tried live on " + a.Tried + "."
	case a.Confidence != "":
		return "Not tried live yet. What Ambit knows of this provider is of " + a.Confidence + " confidence; if something there does not work, tell who set it up."
	}
	return ""
}

// scopeWords gives a scope of the record as a person reads it.
func scopeWords(known provider.Scopes, scope string) ScopeChoice {
	at := slices.IndexFunc(known.Catalog, func(s provider.Scope) bool { return s.ID == scope })
	if at < 0 {
		return ScopeChoice{ID: scope, Title: scope}
	}
	return ScopeChoice{ID: scope, Title: known.Catalog[at].Title, Risk: known.Catalog[at].Risk}
}

// askedScopes fills in what is asked for whatever the person chooses, and what
// they may choose. Where those who run the environment have chosen, that is all.
func (s *Server) askedScopes(v *visit, f *ProviderForm, r provider.Record, o integration.Ownership) error {
	if r.OAuth == nil {
		return nil
	}
	known := r.OAuth.Scopes
	wanted, err := s.integrations.Wanted(v.ctx(), v.here.Environment, v.here.Organization, r.ID, o)
	if err != nil {
		return err
	}
	always := known.Base
	if len(wanted) > 0 {
		always, f.Scopes = wanted, nil
	}
	for _, id := range always {
		f.Always = append(f.Always, scopeWords(known, id))
	}
	f.Scopes = slices.DeleteFunc(f.Scopes, func(c ScopeChoice) bool { return slices.Contains(always, c.ID) })
	return nil
}

// ownedBy is whose integration a connection of this owner is under.
func ownedBy(shared bool) integration.Ownership {
	if shared {
		return integration.Organizations
	}
	return integration.Users
}

// asksAbout is what a person is asked who was to reconnect one account and signed
// in with another: whether that one is to stay, beside the first (threats.md O15).
func asksAbout(v *visit, p *ResultPage, c connection.Connection, was string) {
	p.Word, p.Icon = "Another account", "warn"
	p.Lines = append(p.Lines, "You were to reconnect "+oneLine(was)+" and signed in as "+oneLine(c.AccountLabel)+". "+oneLine(was)+" is as it was. To reconnect it, sign out at the provider first, then start again.")
	if c.Version == 1 && connection.MayConnect(v.actorIn(c.Environment), c.Organization, c.Owner) == nil {
		p.Lines = append(p.Lines, "Do you want to keep "+oneLine(c.AccountLabel)+" as a second account?")
		p.Undo, p.UndoLabel, p.BackLabel = "/ui/connections/"+string(c.ID)+"/disconnect", "Take it out again", "Keep both"
	}
}

// mayShare reports whether the person can make connections of the organization.
func (v *visit) mayShare() bool { return v.may(account.ManageConnections) }

package web

import (
	"slices"
	"strings"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/integration"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
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

// ticket finds the ticket of a window, and moves to where it is for.
func (s *Server) ticket(v *visit, raw string) (integration.Ticket, error) {
	tid, err := parseID(id.Ticket(raw))
	if err != nil {
		return integration.Ticket{}, err
	}
	t, err := s.integrations.Ticket(v.ctx(), v.person, tid)
	if err != nil {
		return integration.Ticket{}, err
	}
	if v.at(t.Organization); v.here.Organization != t.Organization {
		return integration.Ticket{}, fault.New(fault.NotFound, "not_found", "There is nothing here for you.").WithHint("You are not in this organization any more.")
	}
	return t, t.Ready(s.now())
}

// connectWindow is the page that a product's window opens: to one of the providers
// that its ticket is for, or to the choice of one.
func (s *Server) connectWindow(v *visit) (answer, error) {
	t, err := s.ticket(v, v.r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	p := &ConnectionNewPage{Frame: Frame{Title: "Connect an account", Section: "connections", Plain: true, Narrow: true}, Ticket: t.ID}
	slug := v.form("provider")
	if len(t.Providers) == 1 {
		slug = t.Providers[0]
	}
	if slug != "" {
		prov, err := s.ticketProvider(v, t, slug)
		if err != nil {
			return nil, err
		}
		return show(p), s.connectForm(v, p, prov)
	}
	for _, slug := range t.Providers {
		prov, err := s.ticketProvider(v, t, slug)
		if fault.KindOf(err) == fault.NotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		row := providerRow(prov)
		row.Href = "/ui/connect/" + string(t.ID) + "?provider=" + row.Slug
		p.Providers = append(p.Providers, row)
	}
	return show(p), nil
}

func (s *Server) ticketProvider(v *visit, t integration.Ticket, slug string) (provider.Provider, error) {
	if !slices.Contains(t.Providers, slug) {
		return provider.Provider{}, fault.New(fault.NotFound, "not_found", "This provider was not offered to you here.").WithHint("Start again where you came from.")
	}
	return s.providers.Get(v.ctx(), t.Environment, slug)
}

// startOfTicket is startOf for a form in a product's window: what it connects, for
// whom and where, the ticket says.
func (s *Server) startOfTicket(v *visit, st credential.Start) (credential.Start, provider.Provider, error) {
	t, err := s.ticket(v, v.form("ticket"))
	if err != nil {
		return st, provider.Provider{}, err
	}
	prov, err := s.ticketProvider(v, t, st.Provider)
	st.Ticket, st.Environment, st.Organization, st.OrganizationOwned, st.ReturnTo = t.ID, t.Environment, t.Organization, false, ""
	return st, prov, err
}

// connecting reports whether a route is for those who are signed in on an
// application's word: what it takes to connect an account, and no more.
func connecting(pattern string) bool {
	switch pattern {
	case "GET /ui/connections/new", "POST /ui/connections", "GET /ui/connect/{id}", "GET /ui/callback/{environment}/{provider}", "GET /ui/callback/{environment}/{provider}/{organization}", "GET /ui/return/{token}",
		"POST /ui/connections/{id}/disconnect", "POST /ui/signout":
		return true
	}
	return false
}

// vouchPage is where a link on an application's word leads. Who it is for is said
// before it is followed.
func (s *Server) vouchPage(*visit) (answer, error) {
	return show(&VouchPage{Frame{Title: "Continue", Bare: true}}), nil
}

// vouchLook says whose link it is, without using it up.
func (s *Server) vouchLook(v *visit) (answer, error) {
	w, err := s.people.Voucher(v.ctx(), secret.FromString(v.form("token")))
	if err != nil {
		return nil, s.counted(v, err)
	}
	return linked{map[string]string{"who": oneLine(w.Name), "organization": oneLine(w.OrganizationName), "key": oneLine(w.KeyName)}}, nil
}

// linked answers what a page says of a link.
type linked struct {
	Says map[string]string `json:"says"`
}

func (a linked) send(_ *Server, v *visit) { writeJSON(v.w, 200, a) }

func (s *Server) vouch(v *visit) (answer, error) {
	login, next, err := s.people.FollowVouch(v.ctx(), v.person, secret.FromString(v.form("token")), s.address(v.r))
	if err != nil {
		return nil, s.counted(v, err)
	}
	if next = safeNext(next); login.IsZero() {
		return goTo(next), nil
	}
	return s.signedIn(v, login, next, "", nil)
}

// says reports whether any of the words is in a name, whatever its case.
func says(name, words string) bool {
	return strings.Contains(strings.ToLower(name), strings.ToLower(words))
}

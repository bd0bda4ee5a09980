package web

import (
	"cmp"
	"crypto/rand"
	"html/template"
	"net/url"
	"slices"
	"strings"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
)

func (s *Server) connectionList(v *visit) (answer, error) {
	f := connection.Filter{Organization: v.here.Organization, After: v.form("after")}
	ended := v.form("ended") != ""
	if ended {
		f.State = connection.Disconnected
	}
	list, err := s.connections.List(v.ctx(), v.actor(), f)
	if err != nil {
		return nil, err
	}
	upstream, err := s.credentials.Upstream(v.ctx(), list.Connections)
	if err != nil {
		return nil, err
	}
	p := &ConnectionsPage{Frame: Frame{Title: "Connections", Section: "connections"}, CanAdd: v.may(account.UseOwn), Ended: ended,
		Live: v.query("/ui/connections"), Past: v.query("/ui/connections", "ended", "1")}
	if v.may(account.ManageConnections) {
		p.Incident = v.query("/ui/connections/incident")
	}
	who := s.names(v, v.here.Environment)
	for _, c := range list.Connections {
		if c.Live() != ended {
			p.Items = append(p.Items, connectionRow(v, who, c, upstream[c.ID]))
		}
	}
	if list.Next != "" {
		p.Next = v.query("/ui/connections", "after", list.Next, "ended", v.form("ended"))
	}
	return show(p), nil
}

func connectionRow(v *visit, who *names, c connection.Connection, upstream string) ConnectionRow {
	row := ConnectionRow{ID: c.ID, Provider: c.Record.Name, Account: c.AccountLabel, Kind: kindOf(provider.Auth(c.AuthMethod)), State: string(c.State), Since: c.CreatedAt,
		CanChange: connection.MayConnect(v.actor(), c.Organization, c.Owner) == nil, CanStop: v.may(account.Revoke) || c.Owner == v.person.User(),
		Reconnect: v.query("/ui/connections/new", "provider", c.Provider, "reconnect", string(c.ID))}
	switch c.Owner {
	case "":
		row.Owner = "The organization's"
	case v.person.User():
		row.Owner = "Yours"
	default:
		row.Owner = who.user(c.Owner) + "'s"
	}
	row.By = c.ReauthorizeBy
	if c.Record.MCP != nil && c.Live() && row.CanChange {
		row.Tools = v.query("/ui/connections/" + string(c.ID) + "/tools")
	}
	if lacking := c.Lacking(); len(lacking) > 0 && c.Live() {
		row.Lacking = strings.Join(lacking, ", ")
	}
	switch {
	case c.State == connection.NeedsReauth:
		row.Reason = c.Why() + " Reconnect it, and it goes on under the same name."
	case !c.Live():
		row.CanChange, row.CanStop, row.Since = false, false, c.EndedAt
		row.Reason = strings.TrimSpace(c.Why() + " " + upstreamWords(c, upstream))
		if upstream == credential.Unsupported || upstream == credential.RevokeFailed {
			row.RemoveAt = link(c.Record.Website)
		}
	}
	return row
}

func kindOf(a provider.Auth) string {
	switch a {
	case provider.OAuth2:
		return "OAuth"
	case provider.None:
		return "open"
	}
	return "API key"
}

// connectionNew lets a person pick a provider, or, once picked, connect there.
func (s *Server) connectionNew(v *visit) (answer, error) {
	p := &ConnectionNewPage{Frame: Frame{Title: "Connect an account", Section: "connections"}, Return: returnPath(v.form("return"))}
	if back := returnPath("/ui/return/" + v.form("back")); v.form("back") != "" {
		p.Return = back
	}
	if again := v.form("reconnect"); again != "" {
		return s.reconnectNew(v, p, again)
	}
	if slug := v.form("provider"); slug != "" {
		prov, err := s.providers.Get(v.ctx(), v.here.Environment, slug)
		if err != nil {
			return nil, err
		}
		return show(p), s.connectForm(v, p, prov)
	}
	list, err := s.providers.List(v.ctx(), v.here.Environment)
	if err != nil {
		return nil, err
	}
	p.Search, p.Searchable = v.form("search"), len(list) > searchFrom
	for _, prov := range list {
		if !says(prov.Record.Name+" "+prov.Record.ID, p.Search) {
			continue
		}
		row := providerRow(prov)
		row.Href = v.query("/ui/connections/new", "provider", row.Slug, "return", p.Return)
		p.Providers = append(p.Providers, row)
	}
	return show(p), nil
}

// searchFrom is how many providers fit a page without a search.
const searchFrom = 12

// returnPath keeps a page of ours to come back to, or nothing.
func returnPath(next string) string {
	if safe := safeNext(next); safe == next {
		return safe
	}
	return ""
}

// reconnectNew shows the form for a connection that is there. One that has ended
// does not come back: the form makes a new one at the same provider.
func (s *Server) reconnectNew(v *visit, p *ConnectionNewPage, again string) (answer, error) {
	c, err := s.findConnection(v, again)
	if err != nil {
		return nil, err
	}
	prov, err := s.providers.Get(v.ctx(), c.Environment, c.Provider)
	if err != nil {
		return nil, err
	}
	if err := s.connectForm(v, p, prov); err != nil {
		return nil, err
	}
	if c.Live() {
		s.reconnectForm(v, p, c)
	}
	return show(p), nil
}

// reconnectForm makes the form that of a connection. Where nobody can tell
// whether a new key opens the same account, it takes a proof; see
// credential.AddKey.
func (s *Server) reconnectForm(v *visit, p *ConnectionNewPage, c connection.Connection) {
	p.Reconnect, p.ReconnectLabel, p.MayShare = c.ID, c.AccountLabel, false
	if c.Owner == "" {
		p.Facts[0] = Fact{Name: "Whose", Value: "The organization's own"}
	}
	for i, sc := range p.Chosen.Scopes {
		p.Chosen.Scopes[i].Chosen = sc.Chosen || slices.Contains(c.Scopes, sc.ID) || slices.Contains(c.Asked, sc.ID)
	}
	for i, t := range p.Chosen.Tenant {
		if was := c.Pinned.Values[t.Name]; was != "" {
			p.Chosen.Tenant[i].Value = was
		}
	}
	if c.AccountID == "" && c.AuthMethod != string(provider.OAuth2) {
		p.Prove, p.TOTP, p.Nonce = true, s.codeAllowed(v), rand.Text()
	}
}

func (s *Server) connectForm(v *visit, p *ConnectionNewPage, prov provider.Provider) error {
	r := prov.Record
	f := &ProviderForm{Slug: r.ID, Name: r.Name, OAuth: r.Auth == provider.OAuth2}
	for _, t := range r.Tenant {
		f.Tenant = append(f.Tenant, ParamField{Name: t.Name, Title: t.Title, Help: t.Help, Value: cmp.Or(v.form("tenant."+t.Name), t.Default), Options: t.Options})
	}
	if f.OAuth {
		f.Host = r.SignInHost()
		for _, sc := range r.OAuth.Scopes.Catalog {
			f.Scopes = append(f.Scopes, ScopeChoice{ID: sc.ID, Title: sc.Title, Risk: sc.Risk, Chosen: sc.Risk != "admin"})
		}
	} else {
		for _, part := range r.Given() {
			f.Fields = append(f.Fields, partField(v, part))
		}
	}
	p.Title, p.Narrow, p.Chosen, p.MayShare, p.Facts = "Connect "+r.Name, true, f, v.mayShare() && p.Ticket == "", connectFacts(v, r)
	return s.askedScopes(v, f, r, ownedBy(p.Shared))
}

func partField(v *visit, p provider.Part) KeyField {
	f := KeyField{Name: p.Name, Label: p.Title, Help: p.Help, Public: p.Public, Lines: p.Lines, Optional: p.Optional}
	if p.Name == provider.FieldRoleARN {
		f.Help += ": " + string(v.here.Organization)
	}
	return f
}

func (s *Server) findConnection(v *visit, raw string) (connection.Connection, error) {
	cid, err := parseID(id.Connection(raw))
	if err != nil {
		return connection.Connection{}, err
	}
	var c connection.Connection
	err = v.anywhere(func(by account.Actor) (id.Organization, error) {
		var err error
		c, err = s.connections.Get(v.ctx(), by, cid)
		return c.Organization, err
	})
	return c, err
}

// startOf reads what to connect; a reconnect names all of it by itself.
func (s *Server) startOf(v *visit) (credential.Start, provider.Provider, error) {
	st := credential.Start{Environment: v.here.Environment, Organization: v.here.Organization, Provider: v.form("provider"), Scopes: v.r.PostForm["scope"],
		OrganizationOwned: v.form("owner") == "organization", ReturnTo: returnPath(v.form("return")), Chosen: v.fields("tenant.")}
	if v.form("ticket") != "" {
		return s.startOfTicket(v, st)
	}
	if again := v.form("reconnect"); again != "" {
		c, err := s.findConnection(v, again)
		if err != nil {
			return st, provider.Provider{}, err
		}
		st.Environment, st.Organization, st.Provider, st.Reconnect, st.OrganizationOwned = c.Environment, c.Organization, c.Provider, c.ID, c.Owner == ""
	}
	prov, err := s.providers.Get(v.ctx(), st.Environment, st.Provider)
	return st, prov, err
}

// connect takes a key, or begins an authorization and gives the link there.
func (s *Server) connect(v *visit) (answer, error) {
	st, prov, err := s.startOf(v)
	if err != nil {
		return nil, err
	}
	if prov.Record.Auth != provider.OAuth2 {
		return s.confirm(v, s.connectKey(v, st, prov))
	}
	if st.Wanted, err = s.integrations.Wanted(v.ctx(), st.Environment, st.Organization, st.Provider, ownedBy(st.OrganizationOwned)); err != nil {
		return nil, err
	}
	to, err := s.credentials.Authorize(v.ctx(), v.person, st)
	if err != nil {
		return nil, err
	}
	back := v.query("/ui/connections")
	if st.Ticket != "" {
		if err := s.integrations.Begun(v.ctx(), st.Ticket, st.Provider, s.now().Add(credential.FlowAge)); err != nil {
			return nil, err
		}
	}
	if st.Ticket != "" || v.person.Vouched() {
		back = ""
	}
	return leave(to, LeavePage{Frame: Frame{Title: "Continue", Section: "connections", Narrow: true, Plain: st.Ticket != ""}, Sentence: "Now sign in at " + oneLine(prov.Record.Name) + " and say yes there.",
		Label: "Continue to " + prov.Record.Name, Back: back})
}

// connectChallenge asks for the proof that a reconnect may take.
func (s *Server) connectChallenge(v *visit) (answer, error) {
	st, prov, err := s.startOf(v)
	if err != nil {
		return nil, err
	}
	return s.confirmChallenge(v, s.connectKey(v, st, prov))
}

// connectKey stores a key. Its own form asks for the proof where one is needed,
// so that the key is typed once and never sent back.
func (s *Server) connectKey(v *visit, st credential.Start, prov provider.Provider) change {
	owner := v.person.User()
	if st.OrganizationOwned {
		owner = ""
	}
	fields := map[string]secret.Value{}
	for name, value := range v.fields("key.") {
		fields[name] = secret.FromString(value)
	}
	form := func() (page, error) {
		p := &ConnectionNewPage{Frame: Frame{Section: "connections", Plain: st.Ticket != ""}, Return: st.ReturnTo, Shared: st.OrganizationOwned, Ticket: st.Ticket}
		if err := s.connectForm(v, p, prov); err != nil {
			return nil, err
		}
		for i, t := range p.Chosen.Tenant {
			if chosen := st.Chosen[t.Name]; chosen != "" {
				p.Chosen.Tenant[i].Value = chosen
			}
		}
		if st.Reconnect == "" {
			return p, nil
		}
		c, err := s.findConnection(v, string(st.Reconnect))
		if err == nil {
			s.reconnectForm(v, p, c)
		}
		return p, err
	}
	return change{back: v.query("/ui/connections"), form: form, ask: func(account.Raise) (page, error) { return form() },
		try: func(ag account.Agreement) (answer, error) {
			c, err := s.credentials.AddKey(v.ctx(), v.actorIn(st.Environment), st, owner, fields, ag)
			if err != nil {
				return nil, err
			}
			return connected(v, credential.Connected{Connection: c, ReturnTo: st.ReturnTo, Ticket: st.Ticket}), nil
		}}
}

func connected(v *visit, done credential.Connected) answer {
	c, back, missing := done.Connection, done.ReturnTo, done.Missing
	p := &ResultPage{Frame: Frame{Title: "Connected", Section: "connections", Narrow: true}, Word: "Connected", Icon: "good",
		Sentence: oneLine(c.Record.Name) + " is connected as " + oneLine(c.AccountLabel) + ".", Back: v.query("/ui/connections"), BackLabel: "See connections"}
	switch {
	case back != "":
		p.Back, p.BackLabel = back, "Go on"
	case done.Ticket != "":
		p.Plain, p.Back = true, ""
		p.Lines = append(p.Lines, "You can close this window and go on where you came from.")
	case v.person.Vouched():
		p.Back = ""
	}
	if done.Instead != "" {
		asksAbout(v, p, c, done.Instead)
	}
	p.Lines = append(p.Lines, "Agents can now ask to use it. Nothing happens before you approve.")
	if len(missing) > 0 {
		p.Lines = append(p.Lines, "The provider did not grant: "+oneLine(strings.Join(missing, ", "))+". Calls that need it will fail. Reconnect to ask for it again.")
	}
	return show(p)
}

// goBack leads to where a product wanted its user back, which only its back end
// has said: the address in the browser names none.
func (s *Server) goBack(v *visit) (answer, error) {
	to, err := s.integrations.Return(v.ctx(), v.person, secret.FromString(v.r.PathValue("token")))
	if err != nil {
		return nil, err
	}
	return leave(to, LeavePage{Frame: Frame{Title: "Connected", Section: "connections", Narrow: true}, Sentence: "The account is connected. Go on where you came from.",
		Label: "Go on", Back: v.query("/ui/connections")})
}

// callback is where a provider sends the person back. Its state is used up
// there and counts only for the person who began (threats.md O1).
func (s *Server) callback(v *visit) (answer, error) {
	env, err := parseID(id.Environment(v.r.PathValue("environment")))
	if err != nil {
		return nil, err
	}
	done, err := s.credentials.CallbackOf(v.ctx(), v.person, env, v.r.PathValue("provider"), id.Organization(v.r.PathValue("organization")), v.r.URL.Query())
	if err != nil {
		if done.Ticket != "" {
			logFailure(s.log, "noting that a connect token ended", s.integrations.Refused(v.ctx(), done.Ticket, fault.Of(err).Code))
		}
		return nil, err
	}
	v.at(done.Connection.Organization)
	done.ReturnTo = returnPath(done.ReturnTo)
	return connected(v, done), nil
}

func (s *Server) disconnect(v *visit) (answer, error) {
	cid, err := parseID(id.Connection(v.r.PathValue("id")))
	if err != nil {
		return nil, err
	}
	var done credential.Disconnected
	err = v.anywhere(func(by account.Actor) (id.Organization, error) {
		var err error
		done, err = s.credentials.Disconnect(v.ctx(), by, cid)
		return done.Connection.Organization, err
	})
	if err != nil {
		return nil, err
	}
	c := done.Connection
	p := &ResultPage{Frame: Frame{Title: "Disconnected", Section: "connections", Narrow: true}, Word: "Disconnected", Icon: "good",
		Sentence: oneLine(c.Record.Name) + " · " + oneLine(c.AccountLabel) + " is disconnected.", Back: v.query("/ui/connections"), BackLabel: "See connections"}
	p.Lines = []string{"Its key is no longer used for anything, and the sessions that used it have ended."}
	if done.Upstream == credential.RevokedUpstream {
		p.Lines = append(p.Lines, "The provider was told and has revoked the access.")
	}
	if done.Note != "" {
		p.Lines = append(p.Lines, oneLine(done.Note))
	}
	return show(p), nil
}

// connectionRevoke ends the sessions that use an account and leaves it connected.
func (s *Server) connectionRevoke(v *visit) (answer, error) {
	cid, err := parseID(id.Connection(v.r.PathValue("id")))
	if err != nil {
		return nil, err
	}
	return s.revoke(v, session.Aim{Connection: cid}, v.query("/ui/connections"), func() (string, error) {
		c, err := s.findConnection(v, string(cid))
		return c.Record.Name + " · " + c.AccountLabel, err
	})
}

// leave answers with a link to another place, whose address was made by a room
// that checked it. Script in an address is refused here all the same.
func leave(to string, p LeavePage) (answer, error) {
	u, err := url.Parse(to)
	if err != nil || slices.Contains([]string{"", "javascript", "data", "vbscript", "blob", "file", "about"}, u.Scheme) {
		return nil, fault.New(fault.Internal, "bad_link", "The next address cannot be opened.").WithCause(err)
	}
	p.URL = template.URL(to) //nolint:gosec // the scheme is checked above; others than https are an agent's own
	if p.Host == "" {
		p.Host = u.Host
	}
	if p.Host == "" {
		p.Host = u.Scheme + ":"
	}
	if p.Label == "" {
		p.Label = "Go on at " + oneLine(p.Host)
	}
	return show(&p), nil
}

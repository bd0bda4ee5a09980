package web

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/legible"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/provider/discovery"
)

// ToolsPage compares what an MCP server lists with what a person agreed to.
type ToolsPage struct {
	Frame
	Connection        id.Connection
	Provider, Account string
	Looked            time.Time // zero: never
	Tools             []UpstreamTool
	Frozen            int    // changed or gone
	CanTake           bool   // may change the provider's record
	Adoptable         bool   // the provider's record is newer than the connection's
	Record            string // where the record is edited; empty: not by this person
}

func (*ToolsPage) template() string { return "tools" }

// UpstreamTool is one tool of an MCP server. All its words are the server's.
type UpstreamTool struct {
	Name, Tool, Title string
	State             string
	Effects           []Option
	Hint              bool // the server says that it only reads
	Diff              []legible.Line
	Text              string // all of it
	Pin               string // of what is shown here: that and nothing else is agreed to
}

// ClientPath is where the metadata document of our OAuth client at a provider is,
// whose address is the client's id (draft-ietf-oauth-client-id-metadata-document).
func ClientPath(env id.Environment, slug string) string {
	return "/ui/client/" + string(env) + "/" + slug
}

// clientDocument says who we are to an authorization server. It follows from its
// own address and tells nothing else, not even whether there is such a provider.
func (s *Server) clientDocument(w http.ResponseWriter, r *http.Request) {
	env, slug := id.Environment(r.PathValue("environment")), r.PathValue("provider")
	if parsed, err := parseID(env); err != nil || parsed != env || !provider.ValidSlug(slug) {
		http.NotFound(w, r)
		return
	}
	doc, err := json.Marshal(map[string]any{
		"client_id": s.public.JoinPath(ClientPath(env, slug)).String(), "client_name": "Ambit", "client_uri": s.public.String(),
		"redirect_uris": []string{s.public.JoinPath(credential.CallbackPath(env, slug)).String()}, "token_endpoint_auth_method": "none",
		"grant_types": []string{"authorization_code", "refresh_token"}, "response_types": []string{"code"}, "application_type": "web",
	})
	if err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "public, max-age=3600")
	_, _ = w.Write(doc)
}

// providerMCP finds out how an MCP server is authorized, and drafts its record.
func (s *Server) providerMCP(v *visit) (answer, error) {
	found, err := s.finder.Find(v.ctx(), v.actor(), discovery.Ask{URL: strings.TrimSpace(v.form("mcp_url")), ID: v.form("mcp_id"), Name: v.form("mcp_name"), Header: strings.TrimSpace(v.form("mcp_header"))})
	var d provider.Draft
	if err == nil {
		d, err = s.providers.Draft(v.ctx(), v.actor(), provider.Input{YAML: found.Record.Source(), ClientID: found.ClientID, ClientSecret: found.ClientSecret, New: true}, "")
	}
	if err != nil {
		return again(s.providerPage(v, "yaml", nil), err)
	}
	return goTo(v.query("/ui/drafts/" + string(d.ID))), nil
}

// toolsConnection is the connection of the page. Whether the person may change it is
// asked by what they do with it.
func (s *Server) toolsConnection(v *visit) (connection.Connection, account.Actor, error) {
	c, err := s.findConnection(v, v.r.PathValue("id"))
	return c, v.actorIn(c.Environment), err
}

func (s *Server) toolsPage(v *visit) (answer, error) {
	c, by, err := s.toolsConnection(v)
	if err != nil {
		return nil, err
	}
	p, err := s.toolsOf(v, by, c.ID)
	if err != nil {
		return nil, err
	}
	return show(p), nil
}

func (s *Server) toolsOf(v *visit, by account.Actor, conn id.Connection) (*ToolsPage, error) {
	c, at, listed, err := s.credentials.Listed(v.ctx(), by, conn)
	if err != nil {
		return nil, err
	}
	prov, err := s.providers.Get(v.ctx(), c.Environment, c.Provider)
	if err != nil {
		return nil, err
	}
	p := &ToolsPage{Frame: Frame{Title: "Tools of " + oneLine(c.Record.Name), Section: "connections"}, Connection: c.ID, Provider: c.Record.Name, Account: c.AccountLabel, Looked: at,
		CanTake: by.May("", account.ManageProviders) == nil, Adoptable: prov.Record.TextDigest() != c.Record.TextDigest()}
	if at.IsZero() {
		return p, nil
	}
	for _, t := range c.Record.CompareMCP(listed.Tools) {
		d := t.Now
		if t.State == provider.MCPGone {
			d = t.Was
		}
		row := UpstreamTool{Name: t.Upstream(), Tool: t.Tool.Name, Title: d.Title, State: string(t.State), Hint: d.ReadOnly, Text: legible.JSON(d.Text())}
		if t.State == provider.MCPChanged || t.State == provider.MCPGone {
			p.Frozen++
		}
		if t.State == provider.MCPChanged {
			row.Diff = legible.Diff(legible.JSON(t.Was.Text()), legible.JSON(t.Now.Text()))
		}
		if t.State != provider.MCPGone {
			for _, e := range policy.Effects() {
				row.Effects = append(row.Effects, Option{Value: string(e), Label: describe(e).Title, Chosen: e == t.Effect})
			}
			row.Effects = append(row.Effects, Option{Value: "", Label: "Leave it out"})
			row.Pin = t.Now.Pin()
		}
		p.Tools = append(p.Tools, row)
	}
	return p, nil
}

func (s *Server) toolsLook(v *visit) (answer, error) {
	c, by, err := s.toolsConnection(v)
	if err != nil {
		return nil, err
	}
	if _, _, err = s.credentials.Look(v.ctx(), by, c.ID); err != nil {
		return s.toolsAgain(v, by, c.ID, err)
	}
	return goTo(v.query("/ui/connections/" + string(c.ID) + "/tools")), nil
}

func (s *Server) toolsAgain(v *visit, by account.Actor, conn id.Connection, why error) (answer, error) {
	p, err := s.toolsOf(v, by, conn)
	if err != nil {
		return nil, err
	}
	return again(p, why)
}

// toolsTake hands in the record with the tools as they are now and the effects that
// the person chose.
func (s *Server) toolsTake(v *visit) (answer, error) {
	c, by, err := s.toolsConnection(v)
	if err != nil {
		return nil, err
	}
	effects := map[string]policy.Effect{}
	for name, value := range v.fields("effect.") {
		if value == "" {
			continue
		}
		if effects[name], err = policy.ParseEffect(value); err != nil {
			return s.toolsAgain(v, by, c.ID, err)
		}
	}
	in, err := s.credentials.Taken(v.ctx(), by, c.ID, effects, v.fields("pin."))
	var d provider.Draft
	if err == nil {
		d, err = s.providers.Draft(v.ctx(), by, in, "")
	}
	if err != nil {
		return s.toolsAgain(v, by, c.ID, err)
	}
	return goTo(v.query("/ui/drafts/" + string(d.ID))), nil
}

func (s *Server) toolsAdopt(v *visit) (answer, error) {
	c, by, err := s.toolsConnection(v)
	if err != nil {
		return nil, err
	}
	if _, err := s.credentials.Adopt(v.ctx(), by, c.ID); err != nil {
		return s.toolsAgain(v, by, c.ID, err)
	}
	return goTo(v.query("/ui/connections/" + string(c.ID) + "/tools")), nil
}

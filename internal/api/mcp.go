package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/provider/discovery"
)

// ListedTools is what an MCP server lists under a connection, held against what a
// person agreed to.
type ListedTools struct {
	ConnectionID string       `json:"connection_id"`
	Provider     string       `json:"provider"`
	Revision     string       `json:"revision" doc:"Of the protocol."`
	Tools        []ListedTool `json:"tools" nullable:"false"`
	Adoptable    bool         `json:"adoptable" doc:"The provider's record is newer than the one that the connection was made with."`
}

// ListedTool is one tool of an MCP server.
type ListedTool struct {
	Name   string          `json:"name" doc:"As the server says it."`
	Tool   string          `json:"tool,omitempty" doc:"As agents call it; absent of a new one."`
	State  string          `json:"state" enum:"unchanged,changed,new,gone" doc:"A changed one is frozen; a new one no agent sees."`
	Effect string          `json:"effect" enum:"read,write,destructive,access" doc:"As agreed to; of a new one destructive, until somebody says otherwise."`
	Hint   bool            `json:"read_only_hint" doc:"The server says that it only reads. That is its word alone."`
	Pin    string          `json:"pin,omitempty" doc:"The digest of the definition as the server lists it now; absent of one that is gone. Taking a tool names it."`
	Was    json.RawMessage `json:"was,omitempty" doc:"The definition that was agreed to."`
	Now    json.RawMessage `json:"now,omitempty" doc:"The definition as the server lists it now; absent when it is the same."`
}

type addMCPInput struct {
	Caller
	Body struct {
		URL          string `json:"url" maxLength:"2000" doc:"Of the server's endpoint."`
		ID           string `json:"id,omitempty" maxLength:"40" doc:"Of the provider; made of the host when it is left out."`
		Name         string `json:"name,omitempty" maxLength:"80"`
		Header       string `json:"header,omitempty" maxLength:"100" doc:"Which carries the key that people give. Left out, the server is asked how it is authorized."`
		Format       string `json:"format,omitempty" maxLength:"200" doc:"How the key is written there, such as Token {api_key}."`
		ClientID     string `json:"client_id,omitempty" maxLength:"500" doc:"Of an OAuth client that was registered beforehand."`
		ClientSecret Hidden `json:"client_secret,omitzero"`
	}
}

type takeToolsInput struct {
	Caller
	Connection string `path:"connection"`
	Body       struct {
		Effects map[string]string `json:"effects" doc:"An effect for each tool to take, by the server's names. Those that are left out go."`
		Pins    map[string]string `json:"pins" doc:"The pin of each of them as it was shown to whoever agrees. A tool that the server describes in another way since is refused (tools_changed)."`
	}
}

func (a *API) mcpRoutes() {
	providers := rules{scopes: []account.Scope{account.ScopeProvidersWrite}}
	connections := rules{scopes: []account.Scope{account.ScopeConnectionsRead, account.ScopeConnectionsWrite}}
	both := rules{scopes: []account.Scope{account.ScopeConnectionsRead, account.ScopeConnectionsWrite, account.ScopeProvidersWrite}}
	handle(a, route{id: "add-mcp-server", method: http.MethodPost, path: "/v1/mcp-servers", tag: "providers", summary: "Add an MCP server as a provider",
		detail: "How it is authorized is found out (RFC 9728, RFC 8414), and where need be a client is registered there (RFC 7591). A person confirms the record in the browser, at the page that the refusal names.",
		rules:  providers, conflicts: true}, a.addMCP)
	handle(a, route{id: "look-at-tools", method: http.MethodPost, path: "/v1/connections/{connection}/tools/look", tag: "connections", summary: "Ask the MCP server of a connection for its tools",
		detail: "And hold them against what was agreed to.", rules: connections}, a.lookAtTools)
	handle(a, route{id: "take-tools", method: http.MethodPut, path: "/v1/connections/{connection}/tools", tag: "connections", summary: "Take the tools that the MCP server listed last into its provider's record",
		detail: "A person confirms the record in the browser, at the page that the refusal names.", rules: both, conflicts: true}, a.takeTools)
	handle(a, route{id: "adopt-tools", method: http.MethodPost, path: "/v1/connections/{connection}/tools/adopt", tag: "connections", summary: "Give a connection to an MCP server the tools that its provider has now",
		detail: "Nothing is sent anywhere else by it: the record must name the places that the connection was made with.", rules: connections, conflicts: true}, a.adoptTools)
}

func (a *API) addMCP(ctx context.Context, by account.Actor, in *addMCPInput) (Provider, error) {
	b := in.Body
	found, err := a.cfg.Finder.Find(ctx, by, discovery.Ask{URL: b.URL, ID: b.ID, Name: b.Name, Header: b.Header, Format: b.Format, ClientID: b.ClientID, ClientSecret: b.ClientSecret.Value})
	if err != nil {
		return Provider{}, err
	}
	return a.put(ctx, by, provider.Input{YAML: found.Record.Source(), ClientID: found.ClientID, ClientSecret: found.ClientSecret, New: true}, "The record is made. "+found.How+" It counts once you confirm it with your passkey.")
}

func (a *API) lookAtTools(ctx context.Context, by account.Actor, in *connectionInput) (ListedTools, error) {
	var conn id.Connection
	if err := parseID(&conn, in.Connection); err != nil {
		return ListedTools{}, err
	}
	c, listed, err := a.cfg.Credentials.Look(ctx, by, conn)
	if err != nil {
		return ListedTools{}, err
	}
	p, err := a.cfg.Providers.Get(ctx, c.Environment, c.Provider)
	if err != nil {
		return ListedTools{}, err
	}
	return listedTools(c, p, listed), nil
}

func listedTools(c connection.Connection, p provider.Provider, listed provider.Listing) ListedTools {
	out := ListedTools{ConnectionID: string(c.ID), Provider: c.Provider, Revision: listed.Revision, Tools: []ListedTool{}, Adoptable: p.Record.TextDigest() != c.Record.TextDigest()}
	for _, t := range c.Record.CompareMCP(listed.Tools) {
		one := ListedTool{Name: t.Upstream(), Tool: t.Tool.Name, State: string(t.State), Effect: string(t.Effect), Was: t.Was.Text()}
		if t.State != provider.MCPSame {
			one.Now = t.Now.Text()
		}
		if t.State != provider.MCPGone {
			one.Pin, one.Hint = t.Now.Pin(), t.Now.ReadOnly
		}
		out.Tools = append(out.Tools, one)
	}
	return out
}

func (a *API) takeTools(ctx context.Context, by account.Actor, in *takeToolsInput) (Provider, error) {
	var conn id.Connection
	if err := parseID(&conn, in.Connection); err != nil {
		return Provider{}, err
	}
	effects := map[string]policy.Effect{}
	for name, text := range in.Body.Effects {
		e, err := policy.ParseEffect(text)
		if err != nil {
			return Provider{}, err
		}
		effects[name] = e
	}
	put, err := a.cfg.Credentials.Taken(ctx, by, conn, effects, in.Body.Pins)
	if err != nil {
		return Provider{}, err
	}
	return a.put(ctx, by, put, "The record with these tools is handed in. It counts once you confirm it with your passkey.")
}

func (a *API) adoptTools(ctx context.Context, by account.Actor, in *connectionInput) (Connection, error) {
	var conn id.Connection
	if err := parseID(&conn, in.Connection); err != nil {
		return Connection{}, err
	}
	c, err := a.cfg.Credentials.Adopt(ctx, by, conn)
	if err != nil {
		return Connection{}, err
	}
	return a.connectionOf(c), nil
}

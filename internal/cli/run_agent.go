package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/ambit-dev/ambit/internal/disk"
	"github.com/ambit-dev/ambit/internal/fault"
)

// The identity of the agent that `ambit run` is, where no person signs it in.
const (
	envAgentID     = "AMBIT_AGENT_ID"
	envAgentSecret = "AMBIT_AGENT_SECRET"
	envAgentToken  = "AMBIT_AGENT_TOKEN"
)

// What a program that is held apart should not see, so that `ambit doctor
// --isolation` can try.
const (
	envHidden = "AMBIT_HIDDEN"
)

// runAgent is an agent of the server, beside the program that it starts.
type runAgent struct {
	server string
	tokens oauth2.TokenSource
	mcp    *mcp.ClientSession
}

// runAsk is what to ask for.
type runAsk struct {
	Providers []string `json:"providers"`
	Effects   []string `json:"effects,omitempty"`
	Purpose   string   `json:"purpose"`
	Minutes   int      `json:"minutes,omitempty"`
}

// runSession is a session as its agent sees it.
type runSession struct {
	Handle       string `json:"session"`
	State        string `json:"state"`
	Reason       string `json:"reason"`
	Code         string `json:"code"`
	ApprovalURL  string `json:"approval_url"`
	Instructions string `json:"instructions"`
	DenyReason   string `json:"deny_reason"`
}

// runAccess is what the proxy gives for a session.
type runAccess struct {
	SessionID string            `json:"session_id"`
	ExpiresAt time.Time         `json:"expires_at"`
	Token     string            `json:"token"`
	ProxyURL  string            `json:"proxy_url"`
	CAPEM     string            `json:"ca_pem"`
	Hosts     []string          `json:"hosts"`
	Variables map[string]string `json:"variables"`
}

// agent signs in as the agent that the environment names, or as the one that the
// person confirmed before, or as a new one that they confirm now.
func (r *run) agent(ctx context.Context) (*runAgent, error) {
	server := r.serverURL()
	if _, err := fetch(ctx, server+"/.well-known/oauth-authorization-server"); err != nil {
		return nil, err
	}
	tokens, err := r.agentTokens(ctx, server)
	if err != nil {
		return nil, err
	}
	a := &runAgent{server: server, tokens: tokens}
	client := &http.Client{Transport: &oauth2.Transport{Source: tokens, Base: direct()}}
	a.mcp, err = mcp.NewClient(&mcp.Implementation{Name: "ambit-run", Version: Version}, nil).
		Connect(ctx, &mcp.StreamableClientTransport{Endpoint: server + "/mcp", HTTPClient: client, DisableStandaloneSSE: true, MaxRetries: -1}, nil)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "server_unreachable", "The server "+plain(server)+" did not take this agent.").
			WithHint("Is it running there, and is the agent enabled? To sign in as a new agent, remove the file " + agentFileName + " beside the stored login.").WithCause(err)
	}
	return a, nil
}

// direct is a transport that heeds no proxy variables: the server is not behind one
// of its own.
func direct() *http.Transport {
	return &http.Transport{ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: time.Minute, IdleConnTimeout: time.Minute}
}

func (a *runAgent) close() { _ = a.mcp.Close() }

func (r *run) agentTokens(ctx context.Context, server string) (oauth2.TokenSource, error) {
	ctx = context.WithValue(context.WithoutCancel(ctx), oauth2.HTTPClient, &http.Client{Transport: direct(), Timeout: time.Minute})
	if t := strings.TrimSpace(r.env[envAgentToken]); t != "" {
		return oauth2.StaticTokenSource(&oauth2.Token{AccessToken: t}), nil
	}
	if id := r.env[envAgentID]; id != "" {
		cfg := clientcredentials.Config{ClientID: id, ClientSecret: r.env[envAgentSecret], TokenURL: server + "/oauth/token", AuthStyle: oauth2.AuthStyleInHeader}
		src := cfg.TokenSource(ctx)
		if _, err := src.Token(); err != nil {
			return nil, refusedAgent(err)
		}
		return src, nil
	}
	kept, err := r.readAgents()
	if err != nil {
		return nil, err
	}
	k := kept[server]
	if k.ClientID != "" {
		src := r.keeping(ctx, server, k)
		if _, err := src.Token(); err == nil {
			return src, nil
		}
		r.tell("the agent's sign-in has ended; sign in again")
	}
	if k, err = r.signIn(ctx, server); err != nil {
		return nil, err
	}
	return r.keeping(ctx, server, k), nil
}

func refusedAgent(err error) error {
	return fault.New(fault.Unauthenticated, "agent_refused", "The server does not take this agent.").
		WithHint("Look at AMBIT_AGENT_ID and AMBIT_AGENT_SECRET, and at the agent: ambit agent list").WithCause(err)
}

// storedAgent is an agent's sign-in at one server.
type storedAgent struct {
	ClientID string        `json:"client_id"`
	Token    *oauth2.Token `json:"token"`
}

func (k storedAgent) config(server string) *oauth2.Config {
	return &oauth2.Config{ClientID: k.ClientID, Endpoint: oauth2.Endpoint{TokenURL: server + "/oauth/token", DeviceAuthURL: server + "/oauth/device_authorization", AuthStyle: oauth2.AuthStyleInParams}}
}

// signIn makes an agent that the person confirms in the browser (RFC 7591, RFC
// 8628).
func (r *run) signIn(ctx context.Context, server string) (storedAgent, error) {
	var made struct {
		ClientID string `json:"client_id"`
	}
	err := exchange(ctx, nil, server+"/oauth/register", map[string]any{"client_name": "ambit run", "token_endpoint_auth_method": "none",
		"grant_types": []string{"urn:ietf:params:oauth:grant-type:device_code", "refresh_token"}}, &made)
	if err != nil {
		return storedAgent{}, err
	}
	k := storedAgent{ClientID: made.ClientID}
	d, err := k.config(server).DeviceAuth(ctx)
	if err != nil {
		return storedAgent{}, refusedAgent(err)
	}
	page := first(d.VerificationURIComplete, d.VerificationURI)
	r.tell("sign in as an agent of yours, once: open this page and type the code\n\n  %s\n\n  %s\n", plain(page), plain(d.UserCode))
	if r.open {
		_ = r.browse(page)
	}
	if k.Token, err = k.config(server).DeviceAccessToken(ctx, d); err != nil {
		return storedAgent{}, fault.New(fault.Denied, "sign_in_refused", "The agent was not confirmed.").WithHint("Run the command again, and confirm the code in time.").WithCause(err)
	}
	return k, r.keepAgent(server, k)
}

// keeping is a source of tokens that stores what it refreshes: a refresh token
// counts once.
func (r *run) keeping(ctx context.Context, server string, k storedAgent) oauth2.TokenSource {
	return oauth2.ReuseTokenSource(k.Token, refreshing(func() (*oauth2.Token, error) {
		t, err := k.config(server).TokenSource(ctx, &oauth2.Token{RefreshToken: k.Token.RefreshToken}).Token()
		if err != nil {
			return nil, err
		}
		k.Token = t
		return t, r.keepAgent(server, k)
	}))
}

type refreshing func() (*oauth2.Token, error)

func (f refreshing) Token() (*oauth2.Token, error) { return f() }

const agentFileName = "agent.json"

func (c *command) agentFile() (string, error) {
	path, err := c.loginFile()
	return filepath.Join(filepath.Dir(path), agentFileName), err
}

func (c *command) readAgents() (map[string]storedAgent, error) {
	path, err := c.agentFile()
	if err != nil {
		return nil, err
	}
	doc, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]storedAgent{}, nil
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "agent_unreadable", "The stored agent cannot be read: "+path+".").WithCause(err)
	}
	kept := map[string]storedAgent{}
	if json.Unmarshal(doc, &kept) != nil { // whose message could quote what it found
		return nil, fault.New(fault.Invalid, "agent_unreadable", "The stored agent is damaged: "+path+".").WithHint("Remove the file, and sign in again.")
	}
	return kept, nil
}

func (c *command) keepAgent(server string, k storedAgent) error {
	kept, err := c.readAgents()
	if err != nil {
		return err
	}
	kept[server] = k
	path, err := c.agentFile()
	if err != nil {
		return err
	}
	doc, err := json.MarshalIndent(kept, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the agent: %w", err)
	}
	if err = disk.Folder(filepath.Dir(path)); err == nil {
		err = disk.Replace(path, append(doc, '\n'))
	}
	if err != nil {
		return fmt.Errorf("storing the agent: %w", err)
	}
	return nil
}

// call calls one of the server's own tools.
func (a *runAgent) call(ctx context.Context, tool string, args, into any) error {
	res, err := a.mcp.CallTool(ctx, &mcp.CallToolParams{Name: tool, Arguments: args})
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fault.New(fault.Unavailable, "server_unreachable", "The server did not answer.").WithCause(err)
	}
	doc, err := json.Marshal(res.StructuredContent)
	if err != nil {
		return fmt.Errorf("reading the answer of %s: %w", tool, err)
	}
	if res.IsError {
		var said struct{ Code, Message, Hint string }
		_ = json.Unmarshal(doc, &said)
		return fault.New(fault.Denied, first(said.Code, "refused"), first(plain(said.Message), "The server refused.")).WithHint(plain(said.Hint))
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(doc, into)
}

func (a *runAgent) request(ctx context.Context, ask runAsk) (s runSession, err error) {
	err = a.call(ctx, "request_session", ask, &s)
	return s, err
}

// await waits for a decision, half a minute at most.
func (a *runAgent) await(ctx context.Context, handle string) (s runSession, err error) {
	err = a.call(ctx, "check_session", map[string]any{"session": handle, "wait_seconds": 25}, &s)
	return s, err
}

func (a *runAgent) look(ctx context.Context, handle string) (s runSession, err error) {
	if !strings.HasPrefix(handle, "sh_") {
		return s, fault.New(fault.Invalid, "no_handle", "A session is looked at by its handle.")
	}
	err = a.call(ctx, "check_session", map[string]any{"session": handle}, &s)
	return s, err
}

func (a *runAgent) end(ctx context.Context, handle string) error {
	return a.call(ctx, "end_session", map[string]any{"session": handle}, nil)
}

// connected lists the providers at which there is an account.
func (a *runAgent) connected(ctx context.Context) ([]string, error) {
	var list struct {
		Providers []struct {
			ID        string `json:"id"`
			Connected bool   `json:"connected"`
		} `json:"providers"`
	}
	if err := a.call(ctx, "list_providers", map[string]any{}, &list); err != nil {
		return nil, err
	}
	var out []string
	for _, p := range list.Providers {
		if p.Connected {
			out = append(out, p.ID)
		}
	}
	if len(out) == 0 {
		return nil, fault.New(fault.NotFound, "nothing_connected", "No account is connected that this agent could use.").WithHint("Connect one: ambit connection add, or the page Connections")
	}
	return out, nil
}

// access gives what a program needs to work in a session.
func (a *runAgent) access(ctx context.Context, named string) (runAccess, error) {
	var out runAccess
	err := exchange(ctx, a.tokens, a.server+"/proxy/session", map[string]string{"session": named}, &out)
	return out, err
}

// exchange posts JSON and reads JSON.
func exchange(ctx context.Context, tokens oauth2.TokenSource, address string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encoding a request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("asking the server: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if tokens != nil {
		t, err := tokens.Token()
		if err != nil {
			return refusedAgent(err)
		}
		t.SetAuthHeader(req)
	}
	doc, err := answerOf(req)
	if err != nil {
		return err
	}
	return json.Unmarshal(doc, out)
}

// fetch reads what the server shows to everybody.
func fetch(ctx context.Context, address string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", fmt.Errorf("asking the server: %w", err)
	}
	doc, err := answerOf(req)
	return string(doc), err
}

// answerOf sends a request, over https or to this very machine.
func answerOf(req *http.Request) ([]byte, error) {
	if host := req.URL.Hostname(); req.URL.Scheme != "https" && host != "localhost" && !net.ParseIP(host).IsLoopback() {
		return nil, fault.New(fault.Invalid, "server_url_invalid", "Plain http would send the token in clear over the network.").WithHint("Use the https address of the server.")
	}
	client := &http.Client{Transport: direct(), Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "server_unreachable", "The server did not answer.").WithHint("Is it running there? See: ambit doctor").WithCause(err)
	}
	defer resp.Body.Close()
	doc, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("reading the server's answer: %w", err)
	}
	if resp.StatusCode >= 300 {
		var said struct {
			Code, Message, Hint string
			Error               string `json:"error"`
			Description         string `json:"error_description"`
		}
		_ = json.Unmarshal(doc, &said)
		return nil, fault.New(fault.Denied, first(said.Code, said.Error, "refused"), first(plain(said.Message), plain(said.Description), "The server refused: "+resp.Status)).WithHint(plain(said.Hint))
	}
	return doc, nil
}

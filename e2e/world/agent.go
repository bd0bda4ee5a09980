package world

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/client"
)

// Agent is a registered agent with a token.
type Agent struct {
	ID     string
	Token  string
	Tenant *Tenant
}

// NewAgent registers an agent of the tenant's and gets it a token (RFC 6749
// §4.4).
func (t *Tenant) NewAgent(ctx context.Context, name string) (*Agent, error) {
	made, err := t.w.API.CreateAgent(ctx, client.NewAgent{OrganizationID: t.Organization, Name: name, Kind: "delegated", OwnerID: t.User})
	if err != nil {
		return nil, fmt.Errorf("registering an agent: %w", err)
	}
	form := url.Values{"grant_type": {"client_credentials"}, "resource": {t.w.MCPURL}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.w.Nodes[0].URL()+"/oauth/token", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Host = t.w.Nodes[0].host()
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(made.ClientID), url.QueryEscape(made.ClientSecret))
	body, err := expect200(req)
	if err != nil {
		return nil, fmt.Errorf("getting an agent its token: %w", err)
	}
	var tokens struct {
		Access string `json:"access_token"`
	}
	if err := json.Unmarshal(body, &tokens); err != nil {
		return nil, fmt.Errorf("getting an agent its token: %w", err)
	}
	return &Agent{ID: made.ID, Token: tokens.Access, Tenant: t}, nil
}

// Ask says what a session is asked for: a connection of each provider.
type Ask struct {
	Providers []string
	Effects   []string // default read and write
	Minutes   int      // default 60
}

// Session is an approved session of an agent.
type Session struct {
	ID     string
	Handle string
	Agent  *Agent
	// Asked is before the person began to approve, Granted after they had.
	Asked, Granted time.Time
}

// Session has the agent ask at the first node, and its person approve, with no
// call that needs an approval of its own.
func (a *Agent) Session(ctx context.Context, ask Ask) (*Session, error) {
	if ask.Effects == nil {
		ask.Effects = []string{"read", "write"}
	}
	asked := a.Call(ctx, a.Tenant.w.Nodes[0], "request_session", map[string]any{"providers": ask.Providers, "effects": ask.Effects, "purpose": "Fire.", "minutes": cmp.Or(ask.Minutes, 60)})
	var request struct {
		Session     string `json:"session"`
		SessionID   string `json:"session_id"`
		ApprovalURL string `json:"approval_url"`
	}
	if err := json.Unmarshal(asked.Facts, &request); err != nil || asked.Code != OK {
		return nil, errors.Join(fmt.Errorf("asking for a session: %s %s", asked.Code, asked.Facts), asked.Err, err)
	}
	s := &Session{ID: request.SessionID, Handle: request.Session, Agent: a, Asked: time.Now()}
	if _, err := a.Tenant.Person.Approve(ctx, request.ApprovalURL, func(v url.Values) { v.Set("confirm", "none") }); err != nil {
		return nil, fmt.Errorf("approving a session: %w", err)
	}
	s.Granted = time.Now()
	return s, nil
}

// Call calls a tool in the session at one node.
func (s *Session) Call(ctx context.Context, n *Node, tool string, args map[string]any) Answer {
	with := map[string]any{"session": s.Handle}
	for k, v := range args {
		with[k] = v
	}
	return s.Agent.Call(ctx, n, tool, with)
}

// The codes of an [Answer] that do not come from Ambit.
const (
	OK       = "ok"
	NoAnswer = "no_answer" // the connection broke, or nobody listens
)

// Answer is what became of a call, as the agent saw it.
type Answer struct {
	Code       string          // OK, NoAnswer, a refusal's stable code, or "http_503" and the like
	Status     int             // of HTTP; 0 without an answer
	Event      string          // the audit entry that the answer names, of calls that reached the provider
	RetryAfter time.Duration   // 0: not said
	Facts      json.RawMessage // the structured answer or refusal
	Err        error           // of the transport, with NoAnswer
}

// Call calls a tool as a stateless request of MCP 2026-07-28.
func (a *Agent) Call(ctx context.Context, n *Node, tool string, args map[string]any) Answer {
	body, err := ToolCall(tool, args)
	if err != nil {
		return Answer{Code: NoAnswer, Err: err}
	}
	return a.Send(ctx, n, tool, body)
}

// ToolCall encodes a call of a tool.
func ToolCall(tool string, args map[string]any) ([]byte, error) {
	return json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": map[string]any{
		"name": tool, "arguments": args, "_meta": map[string]any{
			"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": map[string]any{},
			"io.modelcontextprotocol/clientInfo": map[string]any{"name": "world", "version": "1"},
		},
	}})
}

// Send sends an encoded call.
func (a *Agent) Send(ctx context.Context, n *Node, tool string, body []byte) Answer {
	resp, raw, err := a.post(ctx, n, tool, body)
	if err != nil {
		return Answer{Code: NoAnswer, Err: err}
	}
	return answerOf(resp, raw)
}

// Succeeds is Send for measuring: the answer is read and looked at, but not
// decoded, as a direct call's is not.
func (a *Agent) Succeeds(ctx context.Context, n *Node, tool string, body []byte) error {
	resp, raw, err := a.post(ctx, n, tool, body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || !bytes.Contains(raw, []byte(`"result"`)) || bytes.Contains(raw, []byte(`"isError":true`)) {
		return fmt.Errorf("%s: %s %s", tool, resp.Status, raw)
	}
	return nil
}

// Relays makes a raw request through the relay, which must succeed.
func (a *Agent) Relays(ctx context.Context, n *Node, path, handle string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL()+"/relay"+path, nil)
	if err != nil {
		return err
	}
	req.Host = n.host()
	req.Header.Set("Authorization", "Bearer "+a.Token)
	req.Header.Set("X-Ambit-Session", handle)
	resp, err := wire.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err == nil && (resp.StatusCode != http.StatusOK || resp.Header.Get("X-Relay-Upstream-Status") != "200") {
		err = fmt.Errorf("%s: %s %s", path, resp.Status, raw)
	}
	return err
}

// post sends an encoded call and reads the whole answer.
func (a *Agent) post(ctx context.Context, n *Node, tool string, body []byte) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.URL()+"/mcp", bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	req.Host = n.host()
	for k, v := range map[string]string{
		"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "Authorization": "Bearer " + a.Token,
		"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": tool,
	} {
		req.Header.Set(k, v)
	}
	resp, err := wire.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	return resp, raw, err
}

func answerOf(resp *http.Response, raw []byte) Answer {
	a := Answer{Status: resp.StatusCode, Code: fmt.Sprintf("http_%d", resp.StatusCode)}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
		a.RetryAfter = time.Duration(s) * time.Second
	}
	var doc struct {
		Result *struct {
			Structured json.RawMessage `json:"structuredContent"`
			IsError    bool            `json:"isError"`
			Meta       map[string]any  `json:"_meta"`
		} `json:"result"`
		Error *struct {
			Code int `json:"code"`
		} `json:"error"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return a
	}
	switch r := doc.Result; {
	case doc.Error != nil && resp.StatusCode == http.StatusOK:
		a.Code = fmt.Sprintf("rpc_%d", doc.Error.Code)
	case doc.Error != nil || r == nil:
	default:
		a.Code, a.Facts = OK, r.Structured
		for name, v := range r.Meta {
			if id, ok := v.(string); ok && strings.HasPrefix(id, "evt_") && strings.HasSuffix(name, "event_id") {
				a.Event = id
			}
		}
		if r.IsError {
			var refused struct {
				Code  string `json:"code"`
				Retry int    `json:"retry_after"`
			}
			_ = json.Unmarshal(r.Structured, &refused)
			a.Code, a.RetryAfter = refused.Code, time.Duration(refused.Retry)*time.Second
		}
	}
	return a
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/account/softkey"
)

func build(ctx context.Context, dir string) (string, error) {
	to := filepath.Join(dir, "ambit")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", to, "github.com/ambit-dev/ambit/cmd/ambit").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building ambit: %w\n%s", err, out)
	}
	return to, nil
}

// world is one server and an agent with a session on it.
type world struct {
	dir, name, binary string
	up                *stub

	listen string // kept over a restart, so that the public URL stays
	cmd    *exec.Cmd
	done   chan error
	log    bytes.Buffer
	ready  struct {
		URL            string `json:"url"`
		MCPURL         string `json:"mcp_url"`
		LoginURL       string `json:"login_url"`
		APIKey         string `json:"api_key"`
		OrganizationID string `json:"organization_id"`
		UserID         string `json:"user_id"`
	}
	token, handle string
	body          []byte // of the measured call
}

func (w *world) pid() int { return w.cmd.Process.Pid }

func (w *world) start(ctx context.Context, database string) error {
	if w.listen == "" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		w.listen = "localhost:" + port
		if err := l.Close(); err != nil {
			return err
		}
	}
	home := filepath.Join(w.dir, w.name)
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	ready := filepath.Join(home, "ready.json")
	if err := os.Remove(ready); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	w.cmd = exec.Command(w.binary, "dev", "--data", filepath.Join(home, "data"), "--listen", w.listen, "--ready-file", ready)
	w.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "AMBIT_OUTBOUND_ALLOW=" + w.up.address(), "AMBIT_DATABASE_URL=" + database, "AMBIT_CALL_RATE=100000"}
	w.log.Reset()
	w.cmd.Stdout, w.cmd.Stderr = &w.log, &w.log
	if err := w.cmd.Start(); err != nil {
		return err
	}
	w.done = make(chan error, 1)
	go func() { w.done <- w.cmd.Wait() }()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if doc, err := os.ReadFile(ready); err == nil {
			first := w.token == ""
			if err := json.Unmarshal(doc, &w.ready); err != nil || first {
				return err
			}
			return nil
		}
		select {
		case err := <-w.done:
			w.done <- err
			return fmt.Errorf("ambit ended before it served: %w\n%s", err, w.log.String())
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
	}
	return errors.New("ambit does not serve after a minute")
}

func (w *world) stop() error {
	if w.cmd == nil || w.cmd.Process == nil {
		return nil
	}
	_ = w.cmd.Process.Signal(syscall.SIGTERM)
	var err error
	select {
	case err = <-w.done:
	case <-time.After(20 * time.Second):
		_ = w.cmd.Process.Kill()
		err = errors.New("ambit did not stop within 20 s")
	}
	w.cmd = nil
	return err
}

const record = `id: stub
name: Stub
website: http://%[1]s
auth: api_key
identity: {path: /me, id: id, label: email}
api: {base: ["http://%[1]s"]}
inject: {header: X-Api-Key, format: "{api_key}"}
tools:
  - name: list
    title: List items
    description: Lists the items.
    effect: read
    input: {type: object, properties: {}}
    request: {method: GET, path: /items}
`

// prepare has a person, a connection, an agent and an approved session.
func (w *world) prepare(ctx context.Context) error {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	p := &person{base: w.ready.URL, http: &http.Client{Jar: jar, Timeout: 30 * time.Second}, key: softkey.New(w.ready.URL)}
	_, token, _ := strings.Cut(w.ready.LoginURL, "#")
	if err := p.prove(ctx, "/ui/enroll/begin", "/ui/enroll", url.Values{"token": {token}, "label": {"bench"}}, p.key.Register); err != nil {
		return fmt.Errorf("enrolling: %w", err)
	}
	api := client.New(w.ready.URL, w.ready.APIKey)
	if _, err := api.PutProvider(ctx, "stub", client.PutProvider{YAML: fmt.Sprintf(record, w.up.address())}); err != nil {
		return fmt.Errorf("storing the provider: %w", err)
	}
	made, err := api.Connect(ctx, client.NewConnection{OrganizationID: w.ready.OrganizationID, Provider: "stub", OwnerID: w.ready.UserID, Fields: map[string]string{"api_key": stubKey}})
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	agent, err := api.CreateAgent(ctx, client.NewAgent{OrganizationID: w.ready.OrganizationID, Name: "bench", Kind: "delegated", OwnerID: w.ready.UserID})
	if err != nil {
		return fmt.Errorf("registering the agent: %w", err)
	}
	if w.token, err = w.agentToken(ctx, agent.ClientID, agent.ClientSecret); err != nil {
		return err
	}
	asked, err := w.tool(ctx, "request_session", map[string]any{"providers": []string{"stub"}, "effects": []string{"read"}, "purpose": "Measure.", "minutes": 60})
	if err != nil {
		return err
	}
	var request struct {
		Session     string `json:"session"`
		ApprovalURL string `json:"approval_url"`
	}
	if err := json.Unmarshal(asked, &request); err != nil {
		return err
	}
	w.handle = request.Session
	u, err := url.Parse(request.ApprovalURL)
	if err != nil {
		return err
	}
	form := url.Values{"effect." + made.Connection.ID: {"read"}, "minutes": {"60"}, "confirm": {"none"}, "tool." + made.Connection.ID: {"stub_list"}}
	if err := p.prove(ctx, u.Path+"/challenge", u.Path+"/approve", form, p.key.Assert); err != nil {
		return fmt.Errorf("approving: %w", err)
	}
	w.body, err = toolCall("stub_list", map[string]any{"session": w.handle})
	return err
}

func (w *world) agentToken(ctx context.Context, id, secret string) (string, error) {
	form := url.Values{"grant_type": {"client_credentials"}, "resource": {w.ready.MCPURL}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.ready.URL+"/oauth/token", strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
	body, err := send(req)
	if err != nil {
		return "", err
	}
	var tokens struct {
		Access string `json:"access_token"`
	}
	return tokens.Access, errors.Join(json.Unmarshal(body, &tokens), nil)
}

// toolCall is a stateless request of MCP 2026-07-28.
func toolCall(name string, args any) ([]byte, error) {
	return json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": map[string]any{
		"name": name, "arguments": args, "_meta": map[string]any{
			"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": map[string]any{},
			"io.modelcontextprotocol/clientInfo": map[string]any{"name": "bench", "version": "1"},
		},
	}})
}

// tool calls a tool and gives its structured answer.
func (w *world) tool(ctx context.Context, name string, args any) (json.RawMessage, error) {
	body, err := toolCall(name, args)
	if err != nil {
		return nil, err
	}
	return w.post(ctx, name, body)
}

func (w *world) post(ctx context.Context, name string, body []byte) (json.RawMessage, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.ready.MCPURL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for k, v := range map[string]string{
		"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "Authorization": "Bearer " + w.token,
		"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": name,
	} {
		req.Header.Set(k, v)
	}
	raw, err := send(req)
	if err != nil {
		return nil, err
	}
	var doc struct {
		Result struct {
			Structured json.RawMessage `json:"structuredContent"`
			IsError    bool            `json:"isError"`
		} `json:"result"`
		Error json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil || doc.Result.IsError || doc.Error != nil || doc.Result.Structured == nil {
		return nil, errors.Join(fmt.Errorf("%s: %s", name, raw), err)
	}
	return doc.Result.Structured, nil
}

// call is the measured call.
func (w *world) call(ctx context.Context) error {
	_, err := w.post(ctx, "stub_list", w.body)
	return err
}

// person has a software passkey and sends the forms of the pages.
type person struct {
	base string
	http *http.Client
	key  *softkey.Authenticator
}

// prove asks for a challenge over a form, answers it, and posts the form.
func (p *person) prove(ctx context.Context, begin, finish string, form url.Values, answer func([]byte) ([]byte, error)) error {
	body, err := p.post(ctx, begin, "application/json", form)
	if err != nil {
		return err
	}
	var begun struct {
		Options json.RawMessage `json:"options"`
		Flow    string          `json:"flow"`
	}
	if err := json.Unmarshal(body, &begun); err != nil {
		return err
	}
	credential, err := answer(begun.Options)
	if err != nil {
		return err
	}
	form.Set("credential", string(credential))
	form.Set("flow", begun.Flow)
	_, err = p.post(ctx, finish, "text/html", form)
	return err
}

func (p *person) post(ctx context.Context, path, accept string, form url.Values) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", accept)
	req.Header.Set("Origin", p.base)
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	resp, err := p.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err == nil && resp.StatusCode >= 400 {
		err = fmt.Errorf("POST %s: %s: %s", path, resp.Status, body)
	}
	return body, err
}

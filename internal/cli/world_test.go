package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sandbox"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// sandboxKey opens the third party. Like every secret that a script gives to
// the program, it has the canary's name in it.
const sandboxKey = "sbx-canary-7d2e84b6f9c0d4f1c9a7"

// world is a real server with a third party beside it, one a script.
type world struct {
	askers map[string]asker
	t      kit
	app    *app.App
	base   *url.URL
	owner  *accounttest.Human
	org    account.Organization
	key    secret.Value
	data   string
	log    lockedBuffer
	stop   func()
}

// kit is what the kits need of a test, made of a script's.
type kit struct {
	testscript.T
	ctx context.Context
}

func (t kit) Helper()                  {}
func (t kit) Context() context.Context { return t.ctx }
func (t kit) Fatalf(format string, args ...any) {
	t.Fatal(fmt.Sprintf(format, args...))
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// newWorld starts the server and gives the script its names.
func newWorld(env *testscript.Env) error {
	ctx, cancel := context.WithCancel(context.Background())
	env.Defer(cancel)
	w := &world{t: kit{env.T(), ctx}, data: filepath.Join(env.WorkDir, "data")}
	third := httptest.NewServer(sandbox.New(sandbox.Config{APIKey: secret.FromString(sandboxKey)}).Handler())
	env.Defer(third.Close)
	err := sqldbtest.MigratedFolder(w.data)
	if err != nil {
		return err
	}
	w.app, err = app.New(ctx, app.Config{
		DataDir: w.data, Listen: "localhost:0", ProxyListen: "localhost:0", Version: "test", Drain: time.Second,
		OutboundAllow: []string{third.Listener.Addr().(*net.TCPAddr).String()},
		Logger:        slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		return err
	}
	w.owner = accounttest.Owner(w.t, w.app.People)
	w.base = w.app.PublicURL()
	environment := w.owner.Organizations()[0].Environment
	if w.org, err = w.app.People.Organization(ctx, environment, w.owner.Organizations()[0].Organization); err != nil {
		return err
	}
	_, w.key, err = w.app.People.IssueKey(ctx, account.NewKey{Environment: environment, Name: "scripts", Scopes: account.Scopes(), Expires: time.Now().Add(time.Hour)})
	if err != nil {
		return err
	}
	if _, err := w.app.Providers.Put(ctx, account.System("test").In(environment), provider.Input{YAML: []byte(sandbox.KeyRecord(third.URL))}, account.Agreement{}); err != nil {
		return err
	}
	serve, stop := context.WithCancel(ctx)
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- w.app.Run(serve, func() { close(ready) }) }()
	w.stop = sync.OnceFunc(func() {
		stop()
		if err := <-ended; err != nil {
			w.t.Fatalf("the server ended with %v", err)
		}
	})
	env.Defer(w.stop)
	select {
	case <-ready:
	case err := <-ended:
		return fmt.Errorf("the server did not start: %w", err)
	}
	env.Values["world"] = w
	for name, value := range map[string]string{
		"HOME": env.WorkDir, "AMBIT_SERVER": w.base.String(), "AMBIT_API_KEY": string(w.key.Reveal()), "ENVIRONMENT": string(environment),
		"ORG": string(w.org.ID), "OWNER": string(w.owner.User()), "SANDBOX": third.URL, "SANDBOX_KEY": sandboxKey, "DATA": w.data,
		"PROVIDER_ID": "sandbox_key", "GORACE": "atexit_sleep_ms=0" /* each command waits for a second else */, transcriptVar: filepath.Join(env.WorkDir, ".transcript"),
	} {
		env.Setenv(name, value)
	}
	env.Defer(func() { w.noCanaries(env.WorkDir) })
	return nil
}

func worldOf(ts *testscript.TestScript) *world { return ts.Value("world").(*world) }

// noCanaries holds the property of all scripts: no output and no log line holds
// a secret that was given to the program.
func (w *world) noCanaries(dir string) {
	shown, err := os.ReadFile(filepath.Join(dir, ".transcript"))
	if err != nil && !os.IsNotExist(err) {
		w.t.Fatalf("reading what was shown: %v", err)
	}
	canaries := []string{"canary", string(w.key.Reveal())}
	if doc, err := os.ReadFile(filepath.Join(dir, ".config", "ambit", "login.json")); err == nil {
		canaries = append(canaries, regexp.MustCompile(`amb_login_[\w-]{20,}|sk_[\w-]{20,}`).FindAllString(string(doc), -1)...)
	}
	for _, c := range canaries {
		if i := bytes.Index(bytes.ToLower(shown), []byte(strings.ToLower(c))); i >= 0 {
			w.t.Fatalf("the output holds a secret, after:\n%s", shown[max(0, i-400):i])
		}
		if strings.Contains(w.log.String(), c) {
			w.t.Fatalf("the server's log holds a secret")
		}
	}
}

// confirm plays the person in front of the browser: it confirms the sign-in
// code that a command line in the background shows.
func (w *world) confirm(transcript string) {
	code := ""
	for end := time.Now().Add(30 * time.Second); code == ""; time.Sleep(20 * time.Millisecond) {
		shown, _ := os.ReadFile(transcript)
		code = regexp.MustCompile(`\b[B-Z]{4}-[B-Z]{4}\b`).FindString(string(shown))
		if time.Now().After(end) {
			w.t.Fatalf("no code was shown")
		}
	}
	me := w.owner
	if err := w.app.People.ConfirmCLI(w.t.ctx, me.Person, code, me.Proof(w.t, w.app.People.CLIDigest(me.Person, code))); err != nil {
		w.t.Fatalf("confirming the code: %v", err)
	}
}

// work lets an agent, over MCP, ask for a session, be approved and call a tool.
// It gives the agent's and the session's id.
func (w *world) work(agentName string) (agent, session string) {
	a := w.agent(agentName, "read")
	defer a.Close()
	w.call(a.ClientSession, "sandbox_key_list_issues", map[string]any{"session": a.handle})
	// The outcome of a call is on record a moment after its answer, and scripts
	// look at it.
	api := client.New(w.base.String(), string(w.key.Reveal()))
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		page, err := api.Audit(w.t.ctx, client.AuditFilter{SessionID: a.session, Action: "tool.call"})
		w.must(err)
		if len(page.Data) == 1 && page.Data[0].Outcome.Status != "" {
			return a.id, a.session
		}
		if time.Now().After(end) {
			w.t.Fatalf("the call has no outcome: %+v", page.Data)
		}
	}
}

// worker is an agent over MCP with an approved session.
type worker struct {
	*mcp.ClientSession
	id, session, handle string
}

func (w *world) agent(agentName string, effects ...string) worker {
	return w.agentAt(w.base.JoinPath("mcp").String(), agentName, effects...)
}

// configured is a client of MCP that is started from the settings of a program, and
// calls a tool through the server that stands there.
func (w *world) configured(settings []byte) {
	var program struct {
		Servers map[string]struct{ Type, URL, Command string } `json:"mcpServers"`
	}
	w.must(json.Unmarshal(settings, &program))
	served := 0
	for name, s := range program.Servers {
		if s.Command != "" {
			continue
		}
		if served++; s.Type != "http" {
			w.t.Fatalf("the entry %s has the type %q", name, s.Type)
		}
		a := w.agentAt(s.URL, "from the settings", "read")
		w.call(a.ClientSession, "sandbox_key_list_issues", map[string]any{"session": a.handle})
		w.must(a.Close())
	}
	if served != 1 {
		w.t.Fatalf("the settings name %d servers by their address", served)
	}
}

func (w *world) agentAt(endpoint, agentName string, effects ...string) worker {
	agentSide, made := w.connected(endpoint, agentName)
	asked := w.call(agentSide, "request_session", map[string]any{"providers": []string{"sandbox_key"}, "effects": effects, "purpose": "Look at the issues. \x1b[31mred"})
	newest := w.newest(made)
	w.approve(id.Approval(newest.ApprovalID))
	return worker{agentSide, made, newest.ID, asked["session"].(string)}
}

// newest is what an agent asked for last.
func (w *world) newest(agent string) client.Session {
	sessions, err := client.New(w.base.String(), string(w.key.Reveal())).Sessions(w.t.ctx, client.SessionFilter{AgentID: agent})
	w.must(err)
	return sessions.Data[0]
}

// asker is an agent that goes on asking.
type asker struct {
	*mcp.ClientSession
	agent string
}

// asks has an agent of this name ask for reading; if a person is to say yes, the owner
// does, and the agent calls a tool. code is what it is refused with, if it is.
func (w *world) asks(name string, yes bool) (agent, session, code string) {
	if w.askers == nil {
		w.askers = map[string]asker{}
	}
	a, ok := w.askers[name]
	if !ok {
		a.ClientSession, a.agent = w.connected(w.base.JoinPath("mcp").String(), name)
		w.askers[name] = a
	}
	said := func(tool string, args map[string]any) map[string]any {
		res, err := a.CallTool(w.t.ctx, &mcp.CallToolParams{Name: tool, Arguments: args})
		w.must(err)
		out, _ := res.StructuredContent.(map[string]any)
		return out
	}
	got := said("request_session", map[string]any{"providers": []string{"sandbox_key"}, "effects": []string{"read"}, "purpose": "Ask."})
	if code, _ = got["code"].(string); code != "" {
		return a.agent, "", code
	}
	session = w.newest(a.agent).ID
	if yes {
		w.approve(id.Approval(w.newest(a.agent).ApprovalID))
		code, _ = said("sandbox_key_list_issues", map[string]any{"session": got["session"]})["code"].(string)
	}
	return a.agent, session, code
}

// connected is an agent of this name that has its token.
func (w *world) connected(endpoint, agentName string) (session *mcp.ClientSession, agent string) {
	ctx := w.t.ctx
	api := client.New(w.base.String(), string(w.key.Reveal()))
	made, err := api.CreateAgent(ctx, client.NewAgent{Name: agentName, Kind: "delegated", OrganizationID: string(w.org.ID), OwnerID: string(w.owner.User())})
	w.must(err)
	body := url.Values{"grant_type": {"client_credentials"}, "resource": {w.base.JoinPath("mcp").String()}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.base.JoinPath("oauth", "token").String(), strings.NewReader(body.Encode()))
	w.must(err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(made.ClientID, made.ClientSecret)
	resp, err := http.DefaultClient.Do(req)
	w.must(err)
	defer resp.Body.Close()
	var token struct {
		AccessToken string `json:"access_token"`
	}
	w.must(json.NewDecoder(resp.Body).Decode(&token))
	agentSide, err := mcp.NewClient(&mcp.Implementation{Name: "script", Version: "1"}, nil).Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint: endpoint, HTTPClient: &http.Client{Transport: bearer(token.AccessToken)}, DisableStandaloneSSE: true}, nil)
	w.must(err)
	return agentSide, made.ID
}

// runner registers an agent with credentials of its own, and from then on, if there are
// words, approves
// whatever it asks for.
func (w *world) runner(name, words string) (clientID, clientSecret string) {
	api := client.New(w.base.String(), string(w.key.Reveal()))
	made, err := api.CreateAgent(w.t.ctx, client.NewAgent{Name: name, Kind: "delegated", OrganizationID: string(w.org.ID), OwnerID: string(w.owner.User())})
	w.must(err)
	if words == "" {
		return made.ClientID, made.ClientSecret
	}
	go func() {
		for w.t.ctx.Err() == nil {
			time.Sleep(20 * time.Millisecond)
			sessions, err := api.Sessions(w.t.ctx, client.SessionFilter{AgentID: made.ID, State: "pending"})
			if err != nil {
				continue // the server is about to stop
			}
			for _, s := range sessions.Data {
				w.decide(id.Approval(s.ApprovalID), words)
			}
		}
	}()
	return made.ClientID, made.ClientSecret
}

// singleCall lets an agent make a call that needs an approval of its own, and be
// told something with it.
func (w *world) singleCall(words string) (session string) {
	a := w.agent("careful", "read", "destructive")
	defer a.Close()
	args := map[string]any{"session": a.handle, "number": 1}
	res, err := a.CallTool(w.t.ctx, &mcp.CallToolParams{Name: "sandbox_key_delete_issue", Arguments: args})
	w.must(err)
	said, _ := res.StructuredContent.(map[string]any)
	request, _ := said["request_id"].(string)
	w.decide(id.Approval(request), words)
	if got := w.call(a.ClientSession, "check_session", map[string]any{"request_id": request, "wait_seconds": 25}); got["state"] != "approved" {
		w.t.Fatalf("the approved call is %v", got)
	}
	w.call(a.ClientSession, "sandbox_key_delete_issue", args)
	return a.session
}

// rejected lets the third party refuse the key of a connection from now on, so
// that the account needs its person.
func (w *world) rejected(sandbox string) {
	resp, err := http.Post(sandbox+"/_fault", "application/json", strings.NewReader(`{"path": "/", "status": 401, "times": 2}`))
	w.must(err)
	w.must(resp.Body.Close())
	a := w.agent("unlucky", "read")
	defer a.Close()
	res, err := a.CallTool(w.t.ctx, &mcp.CallToolParams{Name: "sandbox_key_list_issues", Arguments: map[string]any{"session": a.handle}})
	w.must(err)
	if said, _ := res.StructuredContent.(map[string]any); !res.IsError || said["code"] != "reconnect" {
		w.t.Fatalf("the rejected key: got %v", said)
	}
}

func (w *world) must(err error) {
	if err != nil {
		w.t.Fatalf("%v", err)
	}
}

func (w *world) call(s *mcp.ClientSession, tool string, args map[string]any) map[string]any {
	res, err := s.CallTool(w.t.ctx, &mcp.CallToolParams{Name: tool, Arguments: args})
	w.must(err)
	out, _ := res.StructuredContent.(map[string]any)
	if res.IsError {
		w.t.Fatalf("%s was refused: %v", tool, out)
	}
	return out
}

func (w *world) approve(a id.Approval) { w.decide(a, "") }

func (w *world) decide(a id.Approval, words string) {
	ctx, me := w.t.ctx, w.owner
	ap, err := w.app.Sessions.Approval(ctx, me.Person, a)
	w.must(err)
	d := w.app.Sessions.DefaultDecision(ap)
	d.Instructions = words
	digest, err := w.app.Sessions.Digest(ctx, me.Person, a, d)
	w.must(err)
	_, err = w.app.Sessions.Approve(ctx, me.Person, a, d, me.Proof(w.t, digest))
	w.must(err)
}

type bearer string

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(b))
	return http.DefaultTransport.RoundTrip(r)
}

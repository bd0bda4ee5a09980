package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/cli/person"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

func (c *command) demoCommand() *cobra.Command {
	var approve, database string
	cmd := &cobra.Command{
		Use: "demo", Short: "See the whole thing work in a minute",
		Long: "Start a server in a temporary folder and play an agent against it: it is refused, asks, is approved,\n" +
			"works, needs a second approval, is revoked. Nothing is left behind.\n\n" +
			"You are the person who approves. With --approve auto a software passkey does it, through the same pages.\n" +
			"With --json each line is a JSON object as things happen, and the last one says whether all held.",
		Args: takes(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &demo{command: c, out: c.stdout, auto: approve == "auto", database: database}
			return d.run(cmd.Context())
		},
	}
	approve = "person"
	oneOf(cmd, &approve, "approve", "who approves: person or auto", "person", "auto")
	cmd.Flags().StringVar(&database, "database-url", "", "an empty PostgreSQL database to use instead of SQLite; its tables stay behind")
	return cmd
}

// demo plays one agent from refusal to revocation. Every step asks the server
// for proof of what it shows; the first that is not as it must be ends the demo
// with an error.
type demo struct {
	*command
	out      io.Writer
	auto     bool
	database string

	server *exec.Cmd
	ended  chan error
	ready  Ready
	base   *url.URL
	api    *client.Client
	human  *person.Person
	agent  *mcp.ClientSession
	handle string
	step   int
}

const (
	demoAccount = "mia@sandbox.example"
	demoNote    = "Go ahead: it is the duplicate."
)

func (d *demo) run(ctx context.Context) (err error) {
	// A reader that goes away must not keep the demo from cleaning up.
	signal.Ignore(syscall.SIGPIPE)
	dir, err := os.MkdirTemp("", "ambit-demo-")
	if err != nil {
		return fmt.Errorf("making a temporary folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	defer d.stop()
	if err := d.vacant(ctx); err != nil {
		return err
	}
	defer func() { d.summary(err == nil) }()
	d.intro()
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { return d.startServer(ctx, dir) },
		d.meetPerson, d.connectAccount, d.registerAgent, d.discover, d.refusedWithout, d.request,
		d.work, d.echo, d.destroy, d.revoke, d.trail,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// vacant refuses a database that holds something: the demo begins with a root key
// of its own, which opens nothing that another made.
func (d *demo) vacant(ctx context.Context) error {
	if d.database == "" {
		return nil
	}
	found, err := sqldb.Inspect(ctx, sqldb.Config{URL: d.database})
	if err != nil || found.Applied == 0 {
		return err
	}
	return fault.New(fault.Conflict, "database_not_empty", "The database "+found.Postgres.Database+" holds a server's tables in the schema "+found.Postgres.Namespace+".").
		WithHint("The demo needs an empty one: createdb ambit_demo, and name that. If an earlier demo left these tables: dropdb " + word(found.Postgres.Database) + ", and make it anew.")
}

// startServer runs `ambit dev` as a process of its own, as a user would.
func (d *demo) startServer(ctx context.Context, dir string) error {
	d.title("A server starts, in a process and a folder of its own")
	d.engine()
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	readyFile, logFile := filepath.Join(dir, "ready.json"), filepath.Join(dir, "server.log")
	log, err := os.OpenFile(logFile, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("making the server's log: %w", err)
	}
	defer log.Close()
	d.server = exec.Command(self, "dev", "--data", filepath.Join(dir, "data"), "--listen", "localhost:0", "--ready-file", readyFile)
	d.server.Env = d.serverEnvironment()
	d.server.Stdout, d.server.Stderr = log, log
	d.server.SysProcAttr = childAttributes()
	if err := d.server.Start(); err != nil {
		return fmt.Errorf("starting the server: %w", err)
	}
	d.ended = make(chan error, 1)
	go func() { d.ended <- d.server.Wait() }()
	for {
		doc, err := os.ReadFile(readyFile)
		if err == nil {
			if err := json.Unmarshal(doc, &d.ready); err != nil {
				return fmt.Errorf("reading the ready file: %w", err)
			}
			break
		}
		select {
		case err := <-d.ended:
			d.ended <- err
			said, _ := os.ReadFile(logFile)
			return fault.New(fault.Unavailable, "server_failed", "The server did not start.").WithHint(strings.TrimSpace(string(said)))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	if d.base, err = url.Parse(d.ready.URL); err != nil {
		return fmt.Errorf("reading the server's URL: %w", err)
	}
	d.api = client.New(d.ready.URL, d.ready.APIKey)
	d.fact("server", d.ready.URL)
	return nil
}

// serverEnvironment is ours, without what would point the server elsewhere: the
// demo must not touch a database that somebody means for something else.
func (d *demo) serverEnvironment() []string {
	var out []string
	for k, v := range d.env {
		if !strings.HasPrefix(k, "AMBIT_") {
			out = append(out, k+"="+v)
		}
	}
	if d.database != "" {
		out = append(out, envDatabaseURL+"="+d.database)
	}
	return out
}

func (d *demo) meetPerson(ctx context.Context) error {
	d.title("The first owner registers a passkey")
	if !d.auto {
		d.ask("Open this link and make your passkey", d.ready.LoginURL)
		for {
			page, err := d.api.Audit(ctx, client.AuditFilter{Action: "passkey.registered", Limit: 1})
			if err != nil {
				return err
			}
			if len(page.Data) > 0 {
				d.done("your passkey is registered; the link is spent")
				return nil
			}
			if err := pause(ctx, time.Second); err != nil {
				return err
			}
		}
	}
	var err error
	if d.human, err = person.New(d.base.Scheme + "://" + d.base.Host); err != nil {
		return err
	}
	if err := d.human.Enroll(ctx, d.ready.LoginURL); err != nil {
		return fmt.Errorf("registering a passkey: %w", err)
	}
	if err := d.human.Enroll(ctx, d.ready.LoginURL); err == nil {
		return fmt.Errorf("the sign-in link worked twice")
	}
	d.done("passkey registered; the link is spent")
	return nil
}

func (d *demo) connectAccount(ctx context.Context) error {
	d.title("The owner connects an account at a third party")
	if d.auto {
		if err := d.human.Connect(ctx, d.base, "sandbox", demoAccount); err != nil {
			return fmt.Errorf("connecting the sandbox: %w", err)
		}
	} else {
		d.ask("Connect the sandbox, as anybody you like", d.base.JoinPath("ui", "connections", "new").String()+"?provider=sandbox")
	}
	for {
		page, err := d.api.Connections(ctx, client.ConnectionFilter{Provider: "sandbox", State: "connected"})
		if err != nil {
			return err
		}
		if len(page.Data) > 0 {
			d.done("connected: %s", page.Data[0].AccountLabel)
			d.fact("tokens", "sealed on the server; nobody is shown them")
			return nil
		}
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
}

func (d *demo) registerAgent(ctx context.Context) error {
	d.title("An agent is registered, with an identity and no access")
	made, err := d.api.CreateAgent(ctx, client.NewAgent{Name: "Demo agent", Kind: "delegated", OrganizationID: d.ready.OrganizationID, OwnerID: d.ready.UserID})
	if err != nil {
		return err
	}
	token, err := d.token(ctx, made.ClientID, made.ClientSecret)
	if err != nil {
		return err
	}
	transport := &mcp.StreamableClientTransport{Endpoint: d.ready.MCPURL, HTTPClient: &http.Client{Transport: bearer{token}}, DisableStandaloneSSE: true}
	d.agent, err = mcp.NewClient(&mcp.Implementation{Name: "ambit-demo-agent", Version: Version}, nil).Connect(ctx, transport, nil)
	if err != nil {
		return fmt.Errorf("connecting the agent over MCP: %w", err)
	}
	d.done("%s holds a token that says who it is, and nothing else", made.Name)
	return nil
}

// bearer adds the agent's token to each request.
type bearer struct{ token string }

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return http.DefaultTransport.RoundTrip(r)
}

// token gets the agent's access token, RFC 6749 §4.4.
func (d *demo) token(ctx context.Context, id, secret string) (string, error) {
	body := url.Values{"grant_type": {"client_credentials"}, "resource": {d.ready.MCPURL}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.base.JoinPath("oauth", "token").String(), strings.NewReader(body.Encode()))
	if err != nil {
		return "", fmt.Errorf("asking for a token: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("asking for a token: %w", err)
	}
	defer resp.Body.Close()
	var answer struct {
		AccessToken string `json:"access_token"`
		Error       string `json:"error"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&answer); err != nil || answer.AccessToken == "" {
		return "", errors.Join(fmt.Errorf("asking for a token: status %d %s", resp.StatusCode, answer.Error), err)
	}
	return answer.AccessToken, nil
}

// answer is what a tool call came to.
type answer struct {
	code   string // of a denial
	fields map[string]any
	raw    []byte // everything the agent received
}

func (a answer) str(name string) string { s, _ := a.fields[name].(string); return s }

func (d *demo) call(ctx context.Context, tool string, args map[string]any) (answer, error) {
	res, err := d.agent.CallTool(ctx, &mcp.CallToolParams{Name: tool, Arguments: args})
	if err != nil {
		return answer{}, fmt.Errorf("calling %s: %w", tool, err)
	}
	raw, err := json.Marshal(res)
	if err != nil {
		return answer{}, fmt.Errorf("reading the answer of %s: %w", tool, err)
	}
	a := answer{raw: raw}
	a.fields, _ = res.StructuredContent.(map[string]any)
	if res.IsError {
		if a.code = a.str("code"); a.code == "" {
			a.code = "error"
		}
	}
	return a, nil
}

// denied makes a call that must be refused with this code.
func (d *demo) denied(ctx context.Context, tool string, args map[string]any, code string) (answer, error) {
	a, err := d.call(ctx, tool, args)
	if err != nil {
		return answer{}, err
	}
	if a.code != code {
		return answer{}, fmt.Errorf("calling %s should be refused with %q, and gave %s", tool, code, a.raw)
	}
	d.done("%s is %s: %s", tool, d.yellow("refused"), code)
	return a, nil
}

// allowed makes a call that must work.
func (d *demo) allowed(ctx context.Context, tool string, args map[string]any) (answer, error) {
	a, err := d.call(ctx, tool, args)
	if err != nil {
		return answer{}, err
	}
	if a.code != "" {
		return answer{}, fmt.Errorf("calling %s should work, and was refused: %s", tool, a.raw)
	}
	return a, nil
}

func (d *demo) discover(ctx context.Context) error {
	d.title("The agent looks around, over MCP")
	res, err := d.agent.ListTools(ctx, nil)
	if err != nil {
		return fmt.Errorf("listing tools: %w", err)
	}
	var names []string
	for _, t := range res.Tools {
		names = append(names, t.Name)
	}
	for _, want := range []string{"request_session", "sandbox_list_issues", "sandbox_delete_issue"} {
		if !slices.Contains(names, want) {
			return fmt.Errorf("the tool %s is not listed", want)
		}
	}
	d.done("%d tools, none of which it may use yet", len(names))
	return nil
}

func (d *demo) refusedWithout(ctx context.Context) error {
	d.title("It tries without asking")
	a, err := d.denied(ctx, "sandbox_list_issues", map[string]any{}, "approval_required")
	if err != nil {
		return err
	}
	// The refusal made a request for just that; this agent wants to ask for
	// the whole task instead.
	_, err = d.allowed(ctx, "end_session", map[string]any{"session": a.str("session")})
	return err
}

func (d *demo) request(ctx context.Context) error {
	d.title("It asks: what for, on which account, how long")
	a, err := d.allowed(ctx, "request_session", map[string]any{
		"providers": []string{"sandbox"}, "effects": []string{"read", "write", "destructive"}, "minutes": 10,
		"purpose": "Triage the open issues: read them, file what is missing, remove a duplicate.",
	})
	if err != nil {
		return err
	}
	if d.handle = a.str("session"); d.handle == "" {
		return fmt.Errorf("request_session gave no session: %s", a.raw)
	}
	if err := d.decide(ctx, a.str("approval_url"), ""); err != nil {
		return err
	}
	for {
		a, err := d.allowed(ctx, "check_session", map[string]any{"session": d.handle, "wait_seconds": 20})
		if err != nil {
			return err
		}
		switch state := a.str("state"); state {
		case "active":
			d.done("the session is active")
			return nil
		case "pending":
		default:
			return d.notApproved(ctx, "the session", first(a.str("code"), state))
		}
	}
}

// decide lets the person decide at the URL. The software person tells the agent
// words.
func (d *demo) decide(ctx context.Context, address, words string) error {
	if address == "" {
		return fmt.Errorf("the answer named no approval URL")
	}
	if !d.auto {
		d.ask("Decide here", address)
		return nil
	}
	d.fact("approval", address)
	sentence, err := d.human.Approve(ctx, address, func(v url.Values) { v.Set("instructions", words) })
	if err != nil {
		return fmt.Errorf("approving: %w", err)
	}
	d.fact("the page says", sentence)
	return nil
}

func (d *demo) work(ctx context.Context) error {
	d.title("It works: every call is checked, and recorded before it is sent")
	a, err := d.allowed(ctx, "sandbox_list_issues", map[string]any{"session": d.handle})
	if err != nil {
		return err
	}
	list, _ := a.fields["issues"].([]any)
	if len(list) == 0 {
		return fmt.Errorf("the list of issues is empty: %s", a.raw)
	}
	d.done("sandbox_list_issues → %d issues", len(list))
	a, err = d.allowed(ctx, "sandbox_create_issue", map[string]any{"session": d.handle, "title": "Session timeouts are not documented", "body": "Filed by the demo agent."})
	if err != nil {
		return err
	}
	d.done("sandbox_create_issue → issue %v", a.fields["number"])
	return nil
}

func (d *demo) echo(ctx context.Context) error {
	d.title("It tries to see the key: the third party echoes what it received")
	a, err := d.allowed(ctx, "sandbox_echo", map[string]any{"session": d.handle})
	if err != nil {
		return err
	}
	if !bytes.Contains(a.raw, []byte("[redacted]")) {
		return fmt.Errorf("the echo shows no sign of a credential: %s", a.raw)
	}
	// Tokens of the sandbox start with these letters.
	for _, prefix := range []string{"sbx_at_", "sbx_rt_", "Bearer sbx"} {
		if bytes.Contains(a.raw, []byte(prefix)) {
			return fmt.Errorf("the echo gave the agent bytes of the credential")
		}
	}
	d.done("the third party got the key; the agent got [redacted]")
	return nil
}

func (d *demo) destroy(ctx context.Context) error {
	d.title("Deleting needs a second approval, of exactly that call")
	args := map[string]any{"session": d.handle, "number": 1}
	a, err := d.denied(ctx, "sandbox_delete_issue", args, "approval_required")
	if err != nil {
		return err
	}
	if err := d.decide(ctx, a.str("approval_url"), demoNote); err != nil {
		return err
	}
	if err := d.awaitCall(ctx, a.str("request_id")); err != nil {
		return err
	}
	if a, err = d.allowed(ctx, "sandbox_delete_issue", args); err != nil {
		return err
	}
	if d.auto && !bytes.Contains(a.raw, []byte(demoNote)) {
		return fmt.Errorf("what the person told the agent did not come with the answer: %s", a.raw)
	}
	d.done("sandbox_delete_issue → deleted")
	// The approval was for one call; the same call again needs another.
	_, err = d.denied(ctx, "sandbox_delete_issue", args, "approval_required")
	return err
}

// awaitCall lets the agent wait for the decision on one call, without repeating
// the call.
func (d *demo) awaitCall(ctx context.Context, request string) error {
	for {
		a, err := d.allowed(ctx, "check_session", map[string]any{"request_id": request, "wait_seconds": 20})
		if err != nil {
			return err
		}
		switch state := a.str("state"); state {
		case "approved":
			if note := a.str("note"); note != "" {
				d.fact("told the agent", note)
			}
			return nil
		case "pending":
		default:
			return d.notApproved(ctx, "the call", state)
		}
	}
}

// notApproved is the end of a demo in which the person did not approve. It is
// theirs to decide, so it is told as what the agent learned, not as a failure of
// ours. It waits, so that their browser still gets the page that follows.
func (d *demo) notApproved(ctx context.Context, what, code string) error {
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	message := "You denied it: the agent got `denied`."
	if code != "denied" {
		message = "Nobody approved " + what + ": the agent got `" + code + "`."
	}
	return fault.New(fault.Denied, code, message).WithHint("The demo plays on only when you approve, so it ends here, and cleans up. From the start: ambit demo")
}

func (d *demo) revoke(ctx context.Context) error {
	d.title("Access is revoked in the middle of the session")
	sessions, err := d.api.Sessions(ctx, client.SessionFilter{OrganizationID: d.ready.OrganizationID, State: "active"})
	if err != nil {
		return err
	}
	if len(sessions.Data) != 1 {
		return fmt.Errorf("%d sessions are active, not one", len(sessions.Data))
	}
	revoked, err := d.api.Revoke(ctx, client.Revocation{SessionID: sessions.Data[0].ID})
	if err != nil {
		return err
	}
	d.done("%d session revoked", len(revoked.Sessions))
	_, err = d.denied(ctx, "sandbox_list_issues", map[string]any{"session": d.handle}, "revoked")
	return err
}

func (d *demo) trail(ctx context.Context) error {
	d.title("What happened, from the audit log")
	page, err := d.api.Audit(ctx, client.AuditFilter{Limit: 100})
	// Outcomes are written together, a moment after the call.
	for n := 0; err == nil && n < 50 && slices.ContainsFunc(page.Data, unfinished); n++ {
		if err = pause(ctx, 20*time.Millisecond); err == nil {
			page, err = d.api.Audit(ctx, client.AuditFilter{Limit: 100})
		}
	}
	if err != nil {
		return err
	}
	slices.Reverse(page.Data)
	allowed, refused, shown := 0, 0, 0
	for _, e := range page.Data {
		if e.AgentID == "" {
			continue
		}
		shown++
		what, result := e.Action, ""
		switch {
		case e.Decision == "deny":
			refused++
			what, result = e.Tool, d.yellow("refused")+"  "+e.Code
		case e.Action == "tool.call":
			allowed++
			what, result = e.Tool, d.green("allowed")+"  "+e.Outcome.Status
		case e.Tool != "":
			result = e.Tool
		}
		d.entry(e.Time, what, result)
	}
	if allowed < 4 || refused < 3 {
		return fmt.Errorf("the audit log shows %d calls and %d refusals, fewer than were made", allowed, refused)
	}
	report, err := d.api.VerifyAudit(ctx)
	if err != nil {
		return err
	}
	if !report.Intact {
		return fmt.Errorf("the audit log does not verify: %+v", report.Problems)
	}
	d.done("all %d entries verified against their chain; %d of them, those of the agent, are shown", report.Entries, shown)
	return nil
}

func unfinished(e client.Event) bool {
	return e.Action == "tool.call" && e.Decision == "allow" && e.Outcome.Status == ""
}

func (d *demo) stop() {
	if d.agent != nil {
		_ = d.agent.Close()
	}
	if d.server == nil || d.server.Process == nil {
		return
	}
	_ = d.server.Process.Signal(os.Interrupt)
	select {
	case <-d.ended:
	case <-time.After(15 * time.Second):
		_ = d.server.Process.Kill()
		<-d.ended
	}
}

func pause(ctx context.Context, t time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(t):
		return nil
	}
}

package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sandbox"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

const (
	publicHost = "localhost:7420" // of every cluster; its nodes listen elsewhere
	thirdKey   = "third-key-0123456789abcdef"
)

// cluster is some nodes on one database with a third party, an owner who has an
// account there, and an agent of hers.
type cluster struct {
	t     *testing.T
	cfg   app.Config
	third *third
	owner *accounttest.Human // signed in at the first node
	env   id.Environment
	org   id.Organization
	agent secret.Value // its token

	before func(*app.App) // unless nil: runs before a node serves
}

// node is one server of a cluster.
type node struct {
	*app.App
	stop func()        // tells it to stop
	done chan struct{} // closed when Run has returned
	err  error         // what Run returned
	http *http.Client
}

// newCluster prepares one on engine; add starts nodes.
func newCluster(t *testing.T, engine sqldb.Engine) *cluster {
	t.Helper()
	dir := t.TempDir()
	c := &cluster{t: t, third: newThird(t)}
	c.cfg = app.Config{DataDir: filepath.Join(dir, "data"), RootKey: filepath.Join(dir, "root.key"), CheckpointDir: filepath.Join(dir, "checkpoints"),
		Listen: "localhost:0", PublicURL: "http://" + publicHost, OutboundAllow: []string{c.third.Listener.Addr().String()}}
	if db := sqldbtest.Migrated(t, engine); engine == sqldb.SQLite {
		c.cfg.DataDir = db.DataDir
	} else {
		c.cfg.DatabaseURL = sqldbtest.URL(t, db)
	}
	return c
}

// databaseURL names an empty database of the test's own; "" is SQLite.
func databaseURL(t *testing.T, engine sqldb.Engine) string {
	t.Helper()
	if engine == sqldb.SQLite {
		return ""
	}
	return sqldbtest.URL(t, sqldbtest.Config(t, engine))
}

// add starts one more node. change, unless nil, alters its settings.
func (c *cluster) add(change func(*app.Config)) *node {
	c.t.Helper()
	cfg := c.cfg
	if cfg.DatabaseURL != "" {
		cfg.DataDir = filepath.Join(c.t.TempDir(), "data")
	}
	if change != nil {
		change(&cfg)
	}
	a, err := app.New(c.t.Context(), cfg)
	must(c.t, err)
	if c.before != nil {
		c.before(a)
	}
	ctx, cancel := context.WithCancel(context.Background())
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	n := &node{App: a, stop: cancel, done: make(chan struct{}), http: &http.Client{Transport: transport, Timeout: time.Minute}}
	ready := make(chan struct{})
	go func() {
		defer close(n.done)
		n.err = a.Run(ctx, func() { close(ready) })
	}()
	select {
	case <-ready:
	case <-n.done:
		c.t.Fatal(n.err)
	}
	c.t.Cleanup(func() {
		transport.CloseIdleConnections()
		cancel()
		<-n.done
		if n.err != nil {
			c.t.Errorf("a node stopped with %v", n.err)
		}
	})
	return n
}

// settle makes the owner, her connected account and her agent, at n.
func (c *cluster) settle(n *node) {
	c.t.Helper()
	t, ctx := c.t, c.t.Context()
	c.owner = accounttest.Owner(t, n.People)
	m := c.owner.Organizations()[0]
	c.env, c.org = m.Environment, m.Organization
	_, err := n.Providers.Put(ctx, account.System("test").In(c.env), provider.Input{YAML: []byte(sandbox.KeyRecord(c.third.URL))}, account.Agreement{})
	must(t, err)
	_, err = n.Credentials.AddKey(ctx, account.ByPerson(c.owner.Person).In(c.env), credential.Start{Environment: c.env, Organization: c.org, Provider: "sandbox_key"},
		c.owner.User(), map[string]secret.Value{provider.FieldAPIKey: secret.FromString(thirdKey)}, account.Agreement{})
	must(t, err)
	_, client, sec, err := n.Agents.Register(ctx, account.System("test"), agent.NewAgent{Environment: c.env, Organization: c.org, Name: "bot", Kind: agent.Delegated, Owner: c.owner.User()})
	must(t, err)
	caller, err := n.Agents.AuthenticateClient(ctx, agent.ClientAuth{ID: string(client), Secret: sec})
	must(t, err)
	tokens, err := n.Agents.ClientCredentials(ctx, caller, "http://"+publicHost+"/mcp")
	must(t, err)
	c.agent = tokens.Access
}

// approve has the owner approve a request at n, with every call allowed.
func (c *cluster) approve(n *node, request string) {
	c.t.Helper()
	t, ctx := c.t, c.t.Context()
	aid := id.Approval(request)
	me, err := n.People.Authenticate(ctx, c.owner.Token, accounttest.Address)
	must(t, err)
	a, err := n.Sessions.Approval(ctx, me, aid)
	must(t, err)
	d := n.Sessions.DefaultDecision(a)
	digest, err := n.Sessions.Digest(ctx, me, aid, d)
	must(t, err)
	_, err = n.Sessions.Approve(ctx, me, aid, d, c.proof(n, me, digest))
	must(t, err)
}

// proof is the owner's agreement to digest, for n.
func (c *cluster) proof(n *node, me account.Person, digest [32]byte) account.Proof {
	c.t.Helper()
	options, err := n.People.Challenge(c.t.Context(), me, digest)
	must(c.t, err)
	assertion, err := c.owner.Assert(options)
	must(c.t, err)
	return account.Proof{Assertion: assertion}
}

// active gives the handle of a session that was asked for and approved at n.
func (c *cluster) active(n *node, effects ...string) string {
	c.t.Helper()
	asked := c.call(n, "request_session", map[string]any{"providers": []string{"sandbox_key"}, "effects": effects, "purpose": "Test."})
	if asked.code != "" {
		c.t.Fatalf("request_session: %s", asked.raw)
	}
	c.approve(n, asked.fact("request_id"))
	return asked.fact("session")
}

// answer is what a tool call gave.
type answer struct {
	status int
	code   string // of a refusal
	facts  map[string]any
	raw    string
}

func (a answer) fact(name string) string { s, _ := a.facts[name].(string); return s }

// call calls a tool at n as the agent.
func (c *cluster) call(n *node, tool string, args map[string]any) answer {
	c.t.Helper()
	a, err := c.try(n, tool, args)
	must(c.t, err)
	return a
}

// try is call for when the connection may break.
func (c *cluster) try(n *node, tool string, args map[string]any) (answer, error) {
	body, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": map[string]any{
		"name": tool, "arguments": args, "_meta": map[string]any{"io.modelcontextprotocol/protocolVersion": "2026-07-28",
			"io.modelcontextprotocol/clientCapabilities": map[string]any{}, "io.modelcontextprotocol/clientInfo": map[string]any{"name": "test", "version": "1"}},
	}})
	if err != nil {
		return answer{}, err
	}
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, n.url("/mcp"), bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Host = publicHost
	for k, v := range map[string]string{"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "Authorization": "Bearer " + string(c.agent.Reveal()),
		"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": tool} {
		req.Header.Set(k, v)
	}
	resp, err := n.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	a := answer{status: resp.StatusCode, raw: string(raw)}
	var doc struct {
		Result struct {
			Facts   map[string]any `json:"structuredContent"`
			IsError bool           `json:"isError"`
		} `json:"result"`
	}
	_ = json.Unmarshal(raw, &doc) // what is not JSON shows in raw
	if a.facts = doc.Result.Facts; doc.Result.IsError {
		a.code = a.fact("code")
	} else if resp.StatusCode != http.StatusOK {
		a.code = fmt.Sprintf("http_%d", resp.StatusCode)
	}
	return a, err
}

func (n *node) url(path string) string { return "http://" + n.Addresses()[0] + path }

// probe asks /readyz.
func (n *node) probe(t *testing.T) (int, app.Readiness) {
	t.Helper()
	resp, body := get(t, n.http, n.url("/readyz"), "", nil)
	var r app.Readiness
	if err := json.Unmarshal([]byte(body), &r); err != nil || resp.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("/readyz: %q, %v", body, err)
	}
	return resp.StatusCode, r
}

// third is the sandbox as a third party whose /issues can be told to hang.
type third struct {
	*httptest.Server
	arrived atomic.Int64
	hang    atomic.Bool
	release chan struct{}
	box     atomic.Pointer[sandbox.Server]
}

const thirdClient = "nodes"

// open makes it the sandbox, with people sent back to redirect.
func (th *third) open(redirect string) {
	th.box.Store(sandbox.New(sandbox.Config{APIKey: secret.FromString(thirdKey), ClientID: thirdClient, ClientSecret: secret.FromString(thirdKey), RedirectURIs: []string{redirect}}))
}

func newThird(t *testing.T) *third {
	t.Helper()
	th := &third{release: make(chan struct{})}
	th.open("http://" + publicHost)
	th.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/issues") {
			th.arrived.Add(1)
			if th.hang.Load() {
				select {
				case <-th.release:
				case <-r.Context().Done():
					return
				}
			}
		}
		th.box.Load().Handler().ServeHTTP(w, r)
	}))
	t.Cleanup(th.Close)
	return th
}

// outcome is how the newest call ended, once that is on record.
func (c *cluster) outcome(n *node) (status, code string) {
	c.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		page, err := n.Audit.List(c.t.Context(), audit.Filter{Environment: c.env, Action: "tool.call", Decision: "allow", Limit: 1})
		must(c.t, err)
		if len(page.Records) > 0 && page.Records[0].Outcome != nil {
			return page.Records[0].Outcome.Status, page.Records[0].Outcome.Code
		}
		if time.Now().After(end) {
			c.t.Fatalf("no outcome is on record: %+v", page.Records)
		}
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// exec changes the database behind the nodes' backs.
func (c *cluster) exec(statement string) {
	c.t.Helper()
	c.behind(func(db *sqldb.DB) {
		must(c.t, db.Update(c.t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
			_, err := tx.ExecContext(ctx, statement)
			return err
		}))
	})
}

func codeOf(err error) string {
	if err == nil {
		return ""
	}
	return fault.Of(err).Code
}

func refused(t *testing.T, what string, err error, code string) {
	t.Helper()
	if codeOf(err) != code {
		t.Errorf("%s: got %v, want %s", what, err, code)
	}
}

// count reads one number behind the nodes' backs.
func (c *cluster) count(query string) (n int) {
	c.t.Helper()
	c.behind(func(db *sqldb.DB) { must(c.t, db.Reader().QueryRowContext(c.t.Context(), query).Scan(&n)) })
	return n
}

func (c *cluster) behind(fn func(*sqldb.DB)) {
	c.t.Helper()
	cfg := sqldb.Config{URL: c.cfg.DatabaseURL, Connections: 1}
	if cfg.URL == "" {
		cfg.DataDir = c.cfg.DataDir
	}
	db, err := sqldb.Open(c.t.Context(), cfg)
	must(c.t, err)
	defer db.Close()
	fn(db)
}

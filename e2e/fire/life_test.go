//go:build e2e

package fire

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/e2e/world"
	"github.com/ambit-dev/ambit/internal/cli/person"
	"github.com/ambit-dev/ambit/internal/sandbox"
	"github.com/ambit-dev/ambit/internal/secret"
)

// life is a tenant in which everything happens that a store must keep, and the
// client's own list of what the server has acknowledged.
type life struct {
	w   *world.World
	box *box

	tenant  *world.Tenant
	asked   int            // sessions that the tenant has been asked for: there is an hourly limit
	open    int            // of these, that may wait for a decision for ever
	denied  int            // like requests that were denied since one was approved
	session *world.Session // one that goes on

	login *oneOf // whether the tenant's person is signed in: in or out

	leased int              // accounts that a dead node was refreshing
	parked []*world.Session // of earlier tenants whose account that was

	mayLoseGrants bool // the node is killed while it refreshes
	reconnected   int  // how often a person had to connect again therefore

	mu       sync.Mutex
	serial   int
	promises []*promise
	ops      []world.Op
	unkept   []string // promises of earlier rounds that were broken
}

// promise is something that the server has acknowledged and must keep. check
// says nil if it does.
type promise struct {
	what  string
	check func(ctx context.Context) error
}

// box is a provider with OAuth whose access tokens are always about to expire, so
// that each call refreshes.
type box struct {
	url string
}

const boxSecret = "box-secret-0123456789abcdef"

// newLife starts a world of one node with the given program and a tenant in it.
func newLife(t *testing.T, engine, program string, env ...string) *life {
	t.Helper()
	third, err := world.NewThird()
	must(t, err)
	t.Cleanup(third.Close)
	database := ""
	if engine == postgres {
		database = newDatabase(t, setting(t, "AMBIT_TEST_DATABASE_URL"))
	}
	return newLifeOn(t, world.Config{Dir: t.TempDir(), Binary: program, Database: database, Env: env, Third: third})
}

// newLifeOn is newLife for a test that has its own ideas of the world.
func newLifeOn(t *testing.T, cfg world.Config) *life {
	t.Helper()
	l := &life{}
	var handler http.Handler
	var ready sync.WaitGroup
	ready.Add(1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ready.Wait()
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	l.box = &box{url: server.URL}
	cfg.Env = append(cfg.Env, "AMBIT_OUTBOUND_ALLOW="+cfg.Third.Address()+","+strings.TrimPrefix(server.URL, "http://"))
	w, err := world.New(t.Context(), cfg)
	t.Cleanup(func() {
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("node:\n%s", w.Nodes[0].Log())
		}
	})
	must(t, err)
	l.w = w
	handler = sandbox.New(sandbox.Config{AccessTTL: 6 * time.Second, ClientID: "ambit", ClientSecret: secret.FromString(boxSecret),
		RedirectURIs: []string{w.URL + "/ui/callback/" + w.EnvironmentID + "/sandbox"}}).Handler()
	ready.Done()
	_, err = w.API.PutProvider(t.Context(), "sandbox", client.PutProvider{YAML: sandbox.Record(server.URL), ClientID: "ambit", ClientSecret: boxSecret})
	must(t, err)
	must(t, l.renew(t.Context()))
	return l
}

// stats is what the provider counts.
func (b *box) stats() (sandbox.Stats, error) {
	var s sandbox.Stats
	resp, err := http.Get(b.url + "/_stats")
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

// renew gives the life a new tenant with an agent and a session.
func (l *life) renew(ctx context.Context) (err error) {
	if l.leased > 0 {
		l.parked, l.leased = append(l.parked, l.session), 0
	}
	if l.tenant, err = l.w.NewTenant(ctx, l.name("tenant")); err != nil {
		return err
	}
	if _, err := l.tenant.SignInAt(ctx, "sandbox", "mia@sandbox.example"); err != nil {
		return err
	}
	l.asked, l.open, l.denied, l.login = 0, 0, 0, &oneOf{[]string{"in"}}
	a, err := l.tenant.NewAgent(ctx, "agent")
	if err != nil {
		return err
	}
	l.session, err = l.ask(ctx, a, "none", "third", "sandbox")
	return err
}

// ask has an agent ask for reading and writing at providers, and its person
// approve. confirm says which calls need an approval of their own.
func (l *life) ask(ctx context.Context, a *world.Agent, confirm string, providers ...string) (*world.Session, error) {
	s, page, err := l.request(ctx, a, providers...)
	if err != nil {
		return nil, err
	}
	if _, err = l.tenant.Person.Approve(ctx, page, func(v url.Values) { v.Set("confirm", confirm) }); err == nil {
		l.open--
		if slices.Equal(providers, deniable) {
			l.denied = 0
		}
	}
	return s, err
}

// request has an agent ask for a session, and gives the page where its person
// decides.
func (l *life) request(ctx context.Context, a *world.Agent, providers ...string) (s *world.Session, page string, err error) {
	l.asked++
	l.open++
	asked := a.Call(ctx, l.w.Nodes[0], "request_session", map[string]any{"providers": providers, "effects": []string{"read", "write"}, "purpose": "To live.", "minutes": 60})
	var request struct {
		Session     string `json:"session"`
		SessionID   string `json:"session_id"`
		ApprovalURL string `json:"approval_url"`
	}
	if err := json.Unmarshal(asked.Facts, &request); err != nil || asked.Code != world.OK {
		return nil, "", errors.Join(fmt.Errorf("asking for a session: %s %s", asked.Code, asked.Facts), asked.Err, err)
	}
	return &world.Session{ID: request.SessionID, Handle: request.Session, Agent: a}, request.ApprovalURL, nil
}

// tired reports that the limits of the life's tenant are near, or that its account
// must be left alone for a while.
func (l *life) tired() bool { return l.asked > 70 || l.open > 12 || l.leased > 0 }

// sibling is another life in the same world.
func (l *life) sibling(ctx context.Context) (*life, error) {
	s := &life{w: l.w, box: l.box, mayLoseGrants: l.mayLoseGrants, serial: 1_000_000}
	return s, s.renew(ctx)
}

func (l *life) name(of string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serial++
	return fmt.Sprintf("%s-%d", of, l.serial)
}

// promise files what the server has acknowledged.
func (l *life) promise(what string, check func(ctx context.Context) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.promises = append(l.promises, &promise{what, check})
}

// op files a call, whatever became of it.
func (l *life) op(op world.Op) error {
	l.mu.Lock()
	l.ops = append(l.ops, op)
	l.mu.Unlock()
	if op.Answer.Code != world.OK {
		return errors.Join(fmt.Errorf("a call ended with %s %s", op.Answer.Code, op.Answer.Facts), op.Answer.Err)
	}
	return nil
}

// kept checks every promise since the last time, and forgets those that hold. An
// error means that the node could not be asked; ask again.
func (l *life) kept(ctx context.Context) error {
	l.mu.Lock()
	todo := l.promises
	l.mu.Unlock()
	for len(todo) > 0 {
		err := todo[0].check(ctx)
		if err != nil && (ctx.Err() != nil || l.unheard(err)) {
			return err
		}
		if err != nil {
			l.unkept = append(l.unkept, todo[0].what+": "+err.Error())
		}
		l.mu.Lock()
		l.promises = l.promises[1:]
		todo = l.promises
		l.mu.Unlock()
	}
	return nil
}

// unheard reports that what failed did so because the node died: the connection
// broke, and the process has ended. A node that answers, whatever it says, meant it.
func (l *life) unheard(err error) bool {
	var lost net.Error
	var command *exec.ExitError // of the operator, on the same machine
	broken := errors.As(err, &lost) || errors.As(err, &command) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errDied)
	return broken && died(l.w.Nodes[0], 10*time.Second)
}

// errDied is what an act finds that looks after the process itself.
var errDied = errors.New("the node has died")

// act is one thing that people, agents or applications do.
type act struct {
	name string
	do   func(l *life, ctx context.Context) error
}

var acts = []act{
	{"secret", (*life).secret}, {"tenant", (*life).tenants}, {"sign-in", (*life).signIn}, {"key", (*life).key}, {"agent", (*life).agents},
	{"program", (*life).program}, {"provider", (*life).provider}, {"connection", (*life).connection}, {"oauth", (*life).oauth},
	{"session", (*life).sessions}, {"call", (*life).calls}, {"denial", (*life).denial}, {"user", (*life).user}, {"expiry", (*life).expiry},
}

// oneOf is a value that an unacknowledged change may have replaced or not.
type oneOf struct{ allowed []string }

func (o *oneOf) changing(to string) { o.allowed = append(o.allowed, to) }
func (o *oneOf) changed(to string)  { o.allowed = []string{to} }
func (o *oneOf) holds(got string) error {
	if slices.Contains(o.allowed, got) {
		return nil
	}
	return fmt.Errorf("it is %q, want one of %q", got, o.allowed)
}

const gone = "gone"

// stateOf turns an answer into a state for oneOf.
func stateOf(state string, err error) (string, error) {
	var e *client.Error
	if errors.As(err, &e) && e.Status == http.StatusNotFound {
		return gone, nil
	}
	return state, err
}

func (l *life) secret(ctx context.Context) error {
	value := &oneOf{[]string{"first"}}
	made, err := l.w.API.CreateSecret(ctx, client.NewSecret{Name: l.name("secret"), SecretValue: client.SecretValue{Value: "first"}, Context: map[string]string{"shelf": l.name("shelf")}})
	if err != nil {
		return err
	}
	l.promise("a secret", func(ctx context.Context) error {
		read, err := l.w.API.SecretValue(ctx, made.ID, "", "")
		got, err := stateOf(read.Value, err)
		if err != nil {
			return err
		}
		return value.holds(got)
	})
	value.changing("second")
	if _, err := l.w.API.UpdateSecret(ctx, made.ID, "", client.SecretValue{Value: "second"}, ""); err != nil {
		return err
	}
	value.changed("second")
	if l.serial%2 == 0 {
		return nil
	}
	value.changing(gone)
	if err := l.w.API.DeleteSecret(ctx, made.ID, ""); err != nil {
		return err
	}
	value.changed(gone)
	return nil
}

func (l *life) tenants(ctx context.Context) error {
	t, err := l.w.NewTenant(ctx, l.name("tenant"))
	if err != nil {
		return err
	}
	l.promise("a tenant whose owner is signed in", func(ctx context.Context) error {
		if _, err := l.w.API.Organization(ctx, t.Organization); err != nil {
			return err
		}
		_, err := t.Person.Look(ctx, l.w.URL+"/ui/account")
		return err
	})
	return nil
}

func (l *life) signIn(ctx context.Context) error {
	p := l.tenant.Person
	state := l.login
	state.changing("out") // a new sign-in ends the one before
	if _, err := p.Submit(ctx, l.w.URL+"/ui/signin", "/ui/signin/passkey", nil); err != nil {
		return err
	}
	state.changed("in")
	l.promise("a sign-in", func(ctx context.Context) error {
		in, err := l.signedIn(ctx, p)
		if err != nil || in {
			return err
		}
		return state.holds("out")
	})
	return nil
}

// signedIn reports whether the server knows a person.
func (l *life) signedIn(ctx context.Context, p *person.Person) (bool, error) {
	page, err := p.Look(ctx, l.w.URL+"/ui/account")
	if err != nil {
		return false, err
	}
	return page.Address.Path == "/ui/account", nil
}

// wake does what a person does who finds themselves signed out, because the
// answer to their last sign-in was lost.
func (l *life) wake(ctx context.Context) error {
	in, err := l.signedIn(ctx, l.tenant.Person)
	if err == nil && !in {
		err = l.signIn(ctx)
	}
	return err
}

var keyForm = regexp.MustCompile(`sk_[A-Za-z0-9_-]{20,}`)

func (l *life) key(ctx context.Context) error {
	_, shown, err := l.w.Owner.Person.Do(ctx, l.w.URL+"/ui/apikeys/new", "/ui/apikeys", func(v url.Values) {
		v.Set("name", l.name("key"))
		v["scope"] = []string{"vault:read", "vault:write"}
	})
	if err != nil {
		return err
	}
	text := keyForm.FindString(shown.Text)
	if text == "" {
		return fmt.Errorf("no key on the page %q", shown.Text)
	}
	mine := client.New(l.w.URL, text)
	works := &oneOf{[]string{"works"}}
	who, err := mine.Whoami(ctx)
	if err != nil {
		return err
	}
	l.promise("an API key", func(ctx context.Context) error {
		state := "works"
		_, err := mine.Whoami(ctx)
		var e *client.Error
		if errors.As(err, &e) && e.Status == http.StatusUnauthorized {
			state, err = "revoked", nil
		}
		if err != nil {
			return err
		}
		return works.holds(state)
	})
	if l.serial%2 == 0 {
		return nil
	}
	works.changing("revoked")
	if _, err := l.w.Owner.Person.Submit(ctx, l.w.URL+"/ui/apikeys", "/ui/apikeys/"+who.ID+"/revoke", nil); err != nil {
		return err
	}
	works.changed("revoked")
	return nil
}

// answers says whether an agent's token is good.
func (l *life) answers(ctx context.Context, token string) (string, error) {
	a := (&world.Agent{Token: token, Tenant: l.tenant}).Call(ctx, l.w.Nodes[0], "list_providers", nil)
	switch {
	case a.Code == world.OK:
		return "works", nil
	case a.Status == http.StatusUnauthorized:
		return "refused", nil
	}
	return "", errors.Join(fmt.Errorf("asking with a token: %s %s", a.Code, a.Facts), a.Err)
}

func (l *life) promiseToken(what, token string) *oneOf {
	state := &oneOf{[]string{"works"}}
	l.promise(what, func(ctx context.Context) error {
		got, err := l.answers(ctx, token)
		if err != nil {
			return err
		}
		return state.holds(got)
	})
	return state
}

func (l *life) agents(ctx context.Context) error {
	a, err := l.tenant.NewAgent(ctx, l.name("agent"))
	if err != nil {
		return err
	}
	token := l.promiseToken("an agent's token", a.Token)
	if _, err := l.answers(ctx, a.Token); err != nil { // which is also its first sight
		return err
	}
	token.changing("refused") // a new secret ends what the old one began
	made, err := l.w.API.RotateAgentSecret(ctx, a.ID, 0)
	if err != nil {
		return err
	}
	token.changed("refused")
	secretText := made.ClientSecret
	issue := func(ctx context.Context) (string, error) {
		status, body, err := l.form(ctx, "/oauth/token", url.Values{"grant_type": {"client_credentials"}, "resource": {l.w.MCPURL}}, made.ClientID, secretText)
		if err != nil || status != http.StatusOK {
			return "", errors.Join(err, fmt.Errorf("asking for a token: %d %s", status, body))
		}
		return body["access_token"], nil
	}
	state := &oneOf{[]string{"enabled"}}
	l.promise("an agent's new secret", func(ctx context.Context) error {
		got := "enabled"
		if _, err := issue(ctx); err != nil {
			if !strings.Contains(err.Error(), "invalid_grant") && !strings.Contains(err.Error(), "disabled") {
				return err
			}
			got = "disabled"
		}
		return state.holds(got)
	})
	state.changing("disabled")
	if _, err := l.w.API.DisableAgent(ctx, a.ID); err != nil {
		return err
	}
	state.changed("disabled")
	state.changing("enabled")
	if _, err := l.w.API.EnableAgent(ctx, a.ID); err != nil {
		return err
	}
	state.changed("enabled")
	_, err = issue(ctx)
	return err
}

// form posts to the node as a confidential client, or a public one without a
// password, and reads the strings of the answer.
func (l *life) form(ctx context.Context, path string, values url.Values, user, password string) (int, map[string]string, error) {
	if password == "" {
		values.Set("client_id", user)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.w.URL+path, strings.NewReader(values.Encode()))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if password != "" {
		req.SetBasicAuth(url.QueryEscape(user), url.QueryEscape(password))
	}
	return l.send(req)
}

var plain = &http.Client{Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

func (l *life) send(req *http.Request) (int, map[string]string, error) {
	resp, err := plain.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, err
	}
	var any map[string]any
	_ = json.Unmarshal(raw, &any)
	out := map[string]string{}
	for k, v := range any {
		out[k] = fmt.Sprint(v)
	}
	return resp.StatusCode, out, nil
}

// register makes a client that registers itself, and gives its id.
func (l *life) register(ctx context.Context) (string, error) {
	doc, err := json.Marshal(map[string]any{"client_name": l.name("program"), "redirect_uris": []string{"http://127.0.0.1/callback"}, "token_endpoint_auth_method": "none",
		"grant_types": []string{"authorization_code", "refresh_token"}, "response_types": []string{"code"}})
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.w.URL+"/oauth/register", strings.NewReader(string(doc)))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	status, registered, err := l.send(req)
	if err != nil || status != http.StatusCreated {
		return "", errors.Join(err, fmt.Errorf("registering: %d %v", status, registered))
	}
	return registered["client_id"], nil
}

// program is an agent that registers itself and signs in through its person.
func (l *life) program(ctx context.Context) error {
	id, err := l.register(ctx)
	if err != nil {
		return err
	}
	verifier := strings.Repeat("v", 43)
	code, err := l.consent(ctx, l.tenant.Person, id, verifier)
	if err != nil {
		return err
	}
	exchange := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {"http://127.0.0.1/callback"}, "code_verifier": {verifier}, "resource": {l.w.MCPURL}}
	status, tokens, err := l.form(ctx, "/oauth/token", exchange, id, "")
	if err != nil || status != http.StatusOK {
		return errors.Join(err, fmt.Errorf("exchanging a code: %d %v", status, tokens))
	}
	first := l.promiseToken("a program's token", tokens["access_token"])
	refresh := tokens["refresh_token"]
	status, tokens, err = l.form(ctx, "/oauth/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}, "resource": {l.w.MCPURL}}, id, "")
	if err != nil || status != http.StatusOK {
		return errors.Join(err, fmt.Errorf("refreshing: %d %v", status, tokens))
	}
	second := l.promiseToken("a program's refreshed token", tokens["access_token"])
	if l.serial%2 == 0 {
		return nil
	}
	first.changing("refused")
	second.changing("refused")
	status, answer, err := l.form(ctx, "/oauth/revoke", url.Values{"token": {tokens["refresh_token"]}}, id, "")
	if err != nil || status != http.StatusOK {
		return errors.Join(err, fmt.Errorf("revoking: %d %v", status, answer))
	}
	first.changed("refused")
	second.changed("refused")
	return nil
}

// consent has the person let a program sign in, and gives the code.
func (l *life) consent(ctx context.Context, p *person.Person, clientID, verifier string) (string, error) {
	page, err := p.Look(ctx, l.authorizeURL(clientID, verifier))
	if err != nil {
		return "", err
	}
	_, after, err := p.Do(ctx, page.Address.String(), page.Address.Path, func(v url.Values) { v.Set("label", "Program") })
	if err != nil {
		return "", err
	}
	back, err := url.Parse(after.Link)
	if err != nil || back.Query().Get("code") == "" {
		return "", errors.Join(err, fmt.Errorf("consenting gave the link %q on %q", after.Link, after.Text))
	}
	return back.Query().Get("code"), nil
}

func (l *life) authorizeURL(clientID, verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	q := url.Values{"response_type": {"code"}, "client_id": {clientID}, "redirect_uri": {"http://127.0.0.1/callback"}, "state": {"s"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"}, "resource": {l.w.MCPURL}}
	return l.w.URL + "/oauth/authorize?" + q.Encode()
}

func (l *life) provider(ctx context.Context) error {
	slug := strings.ReplaceAll(l.name("p"), "-", "")
	state := &oneOf{[]string{gone, "there"}}
	l.promise("a provider", func(ctx context.Context) error {
		_, err := l.w.API.Provider(ctx, slug)
		got, err := stateOf("there", err)
		if err != nil {
			return err
		}
		return state.holds(got)
	})
	if _, err := l.w.API.PutProvider(ctx, slug, client.PutProvider{YAML: l.w.Third.OAuthRecord(slug, l.box.url), ClientID: "id", ClientSecret: "a-secret-0123456789"}); err != nil {
		return err
	}
	state.changed("there")
	if l.serial%2 == 0 {
		return nil
	}
	state.changing(gone)
	if err := l.w.API.DeleteProvider(ctx, slug); err != nil {
		return err
	}
	state.changed(gone)
	return nil
}

func (l *life) promiseConnection(conn string) *oneOf {
	state := &oneOf{[]string{"connected"}}
	l.promise("a connection", func(ctx context.Context) error {
		c, err := l.w.API.Connection(ctx, conn)
		if err != nil {
			return err
		}
		return state.holds(c.State)
	})
	return state
}

func (l *life) connection(ctx context.Context) error {
	t, err := l.tenant.Colleague(ctx, l.name("colleague"))
	if err != nil {
		return err
	}
	conn, err := t.Connect(ctx, "third")
	if err != nil {
		return err
	}
	state := l.promiseConnection(conn)
	state.changing("disconnected")
	if _, err := l.w.API.Disconnect(ctx, conn); err != nil {
		return err
	}
	state.changed("disconnected")
	return nil
}

// oauth connects an account by signing in there, again, and disconnects it.
func (l *life) oauth(ctx context.Context) error {
	conn, err := l.tenant.SignInAt(ctx, "sandbox", "noa@sandbox.example")
	if err != nil {
		return err
	}
	state := l.promiseConnection(conn)
	if conn, err = l.tenant.SignInAt(ctx, "sandbox", "noa@sandbox.example"); err != nil {
		return err
	}
	state.changing("disconnected")
	if _, err := l.w.API.Disconnect(ctx, conn); err != nil {
		return err
	}
	state.changed("disconnected")
	return nil
}

func (l *life) sessions(ctx context.Context) error {
	// A new agent each time: one may ask twenty times an hour, and have three
	// requests wait, of which each kill in the middle leaves one behind.
	a, err := l.tenant.NewAgent(ctx, l.name("agent"))
	if err != nil {
		return err
	}
	s, err := l.ask(ctx, a, "none", "third")
	if err != nil {
		return err
	}
	state := &oneOf{[]string{"active"}}
	l.promise("a session", func(ctx context.Context) error {
		got, err := l.w.API.Session(ctx, s.ID)
		if err != nil {
			return err
		}
		if err := state.holds(got.State); err != nil {
			return err
		}
		if got.State == "active" {
			return l.op(world.Shot{Node: l.w.Nodes[0], Session: s, Tool: "third_list"}.Do(ctx, time.Minute))
		}
		return nil
	})
	if err := l.op(world.Shot{Node: l.w.Nodes[0], Session: s, Tool: "third_list"}.Do(ctx, time.Minute)); err != nil {
		return err
	}
	state.changing("ended")
	if l.asked%2 == 0 {
		if a := s.Call(ctx, l.w.Nodes[0], "end_session", nil); a.Code != world.OK {
			return errors.Join(fmt.Errorf("ending a session: %s %s", a.Code, a.Facts), a.Err)
		}
	} else if _, err := l.w.API.Revoke(ctx, client.Revocation{SessionID: s.ID}); err != nil {
		return err
	}
	state.changed("ended")
	return nil
}

// calls calls in the session that goes on: plainly, with a refresh before it, and
// with an approval of its own.
func (l *life) calls(ctx context.Context) error {
	shot := world.Shot{Node: l.w.Nodes[0], Session: l.session, Tool: "third_list"}
	if err := l.op(shot.Do(ctx, time.Minute)); err != nil {
		return err
	}
	a := l.session.Call(ctx, l.w.Nodes[0], "sandbox_list_issues", nil)
	if a.Code == "reconnect" && l.mayLoseGrants {
		// The only refresh token may have died with the process that had asked.
		// That is known and told, and the person mends it.
		if _, err := l.tenant.SignInAt(ctx, "sandbox", "mia@sandbox.example"); err != nil {
			return err
		}
		l.reconnected++
		a = l.session.Call(ctx, l.w.Nodes[0], "sandbox_list_issues", nil)
	}
	if a.Code != world.OK {
		return errors.Join(fmt.Errorf("calling with a refresh: %s %s", a.Code, a.Facts), a.Err)
	}
	return l.approvedCall(ctx)
}

// approvedCall calls what needs an approval of its own, in a session of its own.
func (l *life) approvedCall(ctx context.Context) error {
	a, err := l.tenant.NewAgent(ctx, l.name("agent"))
	if err != nil {
		return err
	}
	s, err := l.ask(ctx, a, "write", "third")
	if err != nil {
		return err
	}
	shot := world.Shot{Node: l.w.Nodes[0], Session: s, Tool: "third_create"}
	op := shot.Do(ctx, time.Minute)
	l.mu.Lock()
	l.ops = append(l.ops, op)
	l.mu.Unlock()
	var refused struct {
		URL string `json:"approval_url"`
	}
	if err := json.Unmarshal(op.Answer.Facts, &refused); err != nil || op.Answer.Code != "approval_required" {
		return errors.Join(fmt.Errorf("a call that needs an approval ended with %s %s", op.Answer.Code, op.Answer.Facts), op.Answer.Err)
	}
	if _, err := l.tenant.Person.Approve(ctx, refused.URL, nil); err != nil {
		return err
	}
	return l.op(op.Again(ctx, time.Minute))
}

// deniable is what is asked for where it is denied.
var deniable = []string{"third"}

func (l *life) denial(ctx context.Context) error {
	a, err := l.tenant.NewAgent(ctx, l.name("agent"))
	if err != nil {
		return err
	}
	// The second denial of what is alike holds back the third request, until one of
	// that kind is approved.
	if l.denied > 0 {
		if _, err := l.ask(ctx, a, "none", deniable...); err != nil {
			return err
		}
	}
	s, page, err := l.request(ctx, a, deniable...)
	if err != nil {
		return err
	}
	state := &oneOf{[]string{"pending"}}
	l.promise("a request", func(ctx context.Context) error {
		got, err := l.w.API.Session(ctx, s.ID)
		if err != nil {
			return err
		}
		return state.holds(got.State)
	})
	state.changing("ended")
	l.denied++ // even if nobody hears of it
	if err := l.tenant.Person.Deny(ctx, page); err != nil {
		return err
	}
	state.changed("ended")
	l.open--
	return nil
}

func (l *life) user(ctx context.Context) error {
	u, err := l.w.API.CreateUser(ctx, client.NewUser{Name: l.name("user"), OrganizationID: l.tenant.Organization})
	if err != nil {
		return err
	}
	state := &oneOf{[]string{"enabled"}}
	l.promise("a user", func(ctx context.Context) error {
		got, err := l.w.API.User(ctx, u.ID)
		if err != nil {
			return err
		}
		if got.DisabledAt.IsZero() {
			return state.holds("enabled")
		}
		return state.holds("disabled")
	})
	if err := l.w.API.SetMember(ctx, l.tenant.Organization, u.ID, "approver"); err != nil {
		return err
	}
	state.changing("disabled")
	if err := l.w.API.DisableUser(ctx, u.ID); err != nil {
		return err
	}
	state.changed("disabled")
	return nil
}

// expiry moves a session's end to the present, past the server, and waits until
// that has noticed.
func (l *life) expiry(ctx context.Context) error {
	a, err := l.tenant.NewAgent(ctx, l.name("agent"))
	if err != nil {
		return err
	}
	s, err := l.ask(ctx, a, "none", "third")
	if err != nil {
		return err
	}
	db, err := l.w.OpenDatabase()
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, `update session set expires_at = approved_at + 1 where id = $1`, s.ID); err != nil {
		return err
	}
	state := &oneOf{[]string{"ended"}} // shown as ended even before it is marked
	l.promise("an expired session", func(ctx context.Context) error {
		got, err := l.w.API.Session(ctx, s.ID)
		if err != nil {
			return err
		}
		return state.holds(got.State)
	})
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var marked string
		if err := db.QueryRowContext(ctx, `select state from session where id = $1`, s.ID).Scan(&marked); err != nil {
			return err
		}
		if marked == "ended" {
			return nil
		}
		if !l.w.Nodes[0].Running() {
			return errDied
		}
	}
	return errors.New("the session is not marked as expired")
}

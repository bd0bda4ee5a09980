package app_test

import (
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sandbox"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Issue 3 item 1: any request to any node. Whatever takes two steps takes the
// second one on the other node, and whatever counts once counts once on both.
func TestEveryStepOnTheOtherNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sqldb.PostgreSQL)
	x := crossing{cluster: c, a: c.add(nil), b: c.add(nil)}
	x.enroll(t)
	x.signIn(t)
	x.signInByCode(t)
	x.proofs(t)
	x.commandLine(t)
	x.connect(t)
	x.authorizeAgent(t)
	x.session(t)
	x.signOut(t)
}

// crossing is the walk of one person and one agent over two nodes.
type crossing struct {
	*cluster
	a, b *node
}

// at is the owner as n knows her now.
func (x *crossing) at(t *testing.T, n *node) account.Person {
	t.Helper()
	p, err := n.People.Authenticate(t.Context(), x.owner.Token, accounttest.Address)
	must(t, err)
	return p
}

// The second node's start leaves the first one's link alone; the ceremony ends
// where it did not begin.
func (x *crossing) enroll(t *testing.T) {
	ctx := t.Context()
	link, needed, err := x.a.People.Bootstrap(ctx)
	must(t, err)
	other, alsoNeeded, err := x.b.People.Bootstrap(ctx)
	must(t, err)
	if !needed || !alsoNeeded {
		t.Fatal("nobody owns the server, and a node prints no link")
	}
	tok := accounttest.LinkToken(link)
	x.owner = &accounttest.Human{Authenticator: accounttest.New("http://" + publicHost)}
	options, err := x.a.People.BeginEnroll(ctx, tok)
	must(t, err)
	cred, err := x.owner.Register(options)
	must(t, err)
	x.owner.Token, err = x.b.People.FinishEnroll(ctx, tok, cred, "laptop", accounttest.Address)
	must(t, err)
	_, err = x.a.People.Link(ctx, accounttest.LinkToken(other))
	refused(t, "the other node's link", err, "link_expired")
	m := x.at(t, x.a).Organizations()[0]
	x.env, x.org = m.Environment, m.Organization
}

func (x *crossing) signIn(t *testing.T) {
	ctx := t.Context()
	flow, options, err := x.a.People.BeginSignIn(ctx)
	must(t, err)
	cred, err := x.owner.Assert(options)
	must(t, err)
	x.owner.Token, err = x.b.People.FinishSignIn(ctx, flow, cred, accounttest.Address)
	must(t, err)
	_, err = x.a.People.FinishSignIn(ctx, flow, cred, accounttest.Address)
	refused(t, "the same answer again", err, "flow_expired")
}

// G9: a code counts once on all nodes together, and so do wrong guesses.
func (x *crossing) signInByCode(t *testing.T) {
	ctx := t.Context()
	nonce := rand.Text()
	me := x.at(t, x.a)
	need, ok := errors.AsType[*account.Unproven](x.a.People.SetProfile(ctx, me, "Ada", "ada@example.com", account.Asking()))
	if !ok {
		t.Fatal("an e-mail address is changed without a proof")
	}
	agreed, err := x.b.People.Agree(ctx, me, need.Raise, nonce, x.proof(x.a, me, x.a.People.RaiseDigest(me, need.Raise, nonce)))
	must(t, err)
	must(t, x.a.People.SetProfile(ctx, me, "Ada", "ada@example.com", agreed))
	grant, err := x.b.People.Unlock(ctx, me, nonce, x.proof(x.a, me, x.a.People.UnlockDigest(me, nonce)))
	must(t, err)
	link, err := x.a.People.BeginTOTP(ctx, me, grant)
	must(t, err)
	key, err := otp.NewKeyFromURL(string(link.Reveal()))
	must(t, err)
	// This step and the next are both good, once each and upwards.
	code := func(steps int) string {
		c, err := totp.GenerateCode(key.Secret(), time.Now().Add(time.Duration(steps)*30*time.Second))
		must(t, err)
		return c
	}
	must(t, x.b.People.FinishTOTP(ctx, x.at(t, x.b), grant, code(0)))
	next := code(1)
	_, err = x.a.People.SignInTOTP(ctx, "ada@example.com", next, accounttest.Address)
	must(t, err)
	_, err = x.b.People.SignInTOTP(ctx, "ada@example.com", next, accounttest.Address)
	refused(t, "a code that the other node has taken", err, "sign_in_refused")
	limited := 0
	for i := range 8 {
		_, err := []*node{x.a, x.b}[i%2].People.SignInTOTP(ctx, "ada@example.com", "000000", accounttest.Address)
		if err == nil {
			t.Fatal("a wrong code signs in")
		}
		if code := codeOf(err); code != "sign_in_refused" {
			limited++
		}
	}
	if limited < 3 {
		t.Errorf("of 8 wrong codes over two nodes, after one before, %d were refused unread; want all beyond the fifth", limited)
	}
}

// A proof of presence acts once, wherever.
func (x *crossing) proofs(t *testing.T) {
	ctx := t.Context()
	me := x.at(t, x.a)
	u, err := x.a.People.CreateUser(ctx, account.System("test"), account.NewUser{Environment: x.env, Organization: x.org, Name: "Lee"}, account.Agreement{})
	must(t, err)
	promote := func(n *node, ag account.Agreement) error {
		return n.People.SetRole(ctx, account.ByPerson(me), x.org, u.ID, account.RoleAdmin, ag)
	}
	need, ok := errors.AsType[*account.Unproven](promote(x.a, account.Asking()))
	if !ok {
		t.Fatal("a role is given without a proof")
	}
	agreed, err := x.a.People.Agree(ctx, me, need.Raise, "n", x.proof(x.a, me, x.a.People.RaiseDigest(me, need.Raise, "n")))
	must(t, err)
	must(t, promote(x.a, agreed))
	must(t, x.b.People.SetRole(ctx, account.ByPerson(me), x.org, u.ID, account.RoleMember, account.Agreement{}))
	refused(t, "an agreement that the other node has spent", promote(x.b, agreed), "proof_used")
	n := account.NewKey{Environment: x.env, Name: "backend", Scopes: []string{account.ScopeAuditRead}}
	proof := x.proof(x.a, me, x.a.People.KeyDigest(me, n))
	_, token, err := x.b.People.CreateKey(ctx, me, n, proof)
	must(t, err)
	if _, _, err := x.a.People.CreateKey(ctx, me, n, proof); err == nil {
		t.Error("one proof made two keys")
	}
	k, err := x.a.People.AuthenticateKey(ctx, token)
	must(t, err)
	must(t, x.b.People.RevokeKey(ctx, account.ByPerson(me).In(x.env), k.ID()))
	_, err = x.a.People.AuthenticateKey(ctx, token)
	refused(t, "a key that the other node has revoked", err, "invalid_api_key")
}

func (x *crossing) commandLine(t *testing.T) {
	ctx := t.Context()
	code, poll, err := x.a.People.StartCLI(ctx, "192.0.2.7")
	must(t, err)
	_, err = x.b.People.PollCLI(ctx, poll, "192.0.2.7")
	refused(t, "a poll before the confirmation", err, "authorization_pending")
	me := x.at(t, x.b)
	must(t, x.b.People.ConfirmCLI(ctx, me, code, x.proof(x.b, me, x.a.People.CLIDigest(me, code))))
	_, err = x.a.People.PollCLI(ctx, poll, "192.0.2.7")
	must(t, err)
	_, err = x.b.People.PollCLI(ctx, poll, "192.0.2.7")
	refused(t, "a second poll", err, "flow_expired")
}

// An account is connected from one node to the other, and a record that one
// node stores is the other's at once.
func (x *crossing) connect(t *testing.T) {
	ctx := t.Context()
	by := account.System("test").In(x.env)
	x.third.open("http://" + publicHost + credential.CallbackPath(x.env, "sandbox"))
	_, err := x.a.Providers.Put(ctx, by, provider.Input{YAML: []byte(sandbox.Record(x.third.URL)), ClientID: thirdClient, ClientSecret: secret.FromString(thirdKey)}, account.Agreement{})
	must(t, err)
	at, err := x.b.Credentials.Authorize(ctx, x.at(t, x.b), credential.Start{Environment: x.env, Organization: x.org, Provider: "sandbox"})
	must(t, err)
	back := x.consentAtThird(t, at)
	done, err := x.a.Credentials.Callback(ctx, x.at(t, x.a), x.env, "sandbox", back)
	must(t, err)
	if !done.Connection.Live() || done.Connection.Owner != x.at(t, x.a).User() {
		t.Errorf("connected %+v", done.Connection)
	}
	_, err = x.b.Credentials.Callback(ctx, x.at(t, x.b), x.env, "sandbox", back)
	refused(t, "the same state again", err, "flow_expired")

	// An edited record counts on the other node with its next look.
	edited := strings.Replace(sandbox.Record(x.third.URL), "name: Sandbox", "name: Sandbox, renamed", 1)
	_, err = x.b.Providers.Put(ctx, by, provider.Input{YAML: []byte(edited), ClientID: thirdClient, ClientSecret: secret.FromString(thirdKey)}, account.Agreement{})
	must(t, err)
	p, err := x.a.Providers.Get(ctx, x.env, "sandbox")
	must(t, err)
	if p.Record.Name != "Sandbox, renamed" {
		t.Errorf("the first node still has %q", p.Record.Name)
	}
}

// consentAtThird grants everything there and gives what the browser carries back.
func (x *crossing) consentAtThird(t *testing.T, authorize string) url.Values {
	t.Helper()
	u, err := url.Parse(authorize)
	must(t, err)
	form := u.Query()
	form.Set("account", "mia@sandbox.example")
	form.Set("decision", "allow")
	form["grant"] = strings.Fields(form.Get("scope"))
	u.RawQuery = ""
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, u.String(), strings.NewReader(form.Encode()))
	must(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := plainClient(t).Do(req)
	must(t, err)
	defer resp.Body.Close()
	back, err := resp.Location()
	must(t, err)
	return back.Query()
}

// An agent's authorization begins, is consented to and ends on other nodes;
// code and refresh token count once over both.
func (x *crossing) authorizeAgent(t *testing.T) {
	ctx := t.Context()
	client, _, err := x.a.Agents.RegisterClient(ctx, agent.NewClient{RedirectURIs: []string{agenttest.Redirect}, Name: "Agent", Grants: []string{agent.GrantCode, agent.GrantRefresh}, AuthMethod: agent.AuthNone, Address: accounttest.Address})
	must(t, err)
	auth := agent.ClientAuth{ID: string(client.ID)}
	verifier, challenge := agenttest.PKCE()
	flow, err := x.b.Agents.BeginAuthorize(ctx, agent.AuthRequest{Client: agent.Client{ID: client.ID}, RedirectURI: agenttest.Redirect, State: "s", Challenge: challenge})
	must(t, err)
	me := x.at(t, x.a)
	pending, err := x.a.Agents.PendingAuthorize(ctx, flow)
	must(t, err)
	consent := agent.Consent{Organization: x.org, Label: "Gardener"}
	digest := x.b.Agents.ConsentDigest(me.User(), pending, consent)
	evidence, err := x.a.People.Prove(ctx, me, digest, x.org, x.proof(x.b, me, digest))
	must(t, err)
	redirect, err := x.a.Agents.Consent(ctx, me, flow, consent, evidence)
	must(t, err)
	u, err := url.Parse(redirect)
	must(t, err)
	code := agent.CodeGrant{Code: secret.FromString(u.Query().Get("code")), RedirectURI: agenttest.Redirect, Verifier: verifier}
	caller := func(n *node) agent.Caller {
		c, err := n.Agents.AuthenticateClient(ctx, auth)
		must(t, err)
		return c
	}
	first, err := x.b.Agents.Exchange(ctx, caller(x.b), code)
	must(t, err)
	tokens, err := x.a.Agents.Refresh(ctx, caller(x.a), agent.RefreshGrant{Refresh: first.Refresh})
	must(t, err)
	// The other node gives a lost answer again, and makes no second pair.
	same, err := x.b.Agents.Refresh(ctx, caller(x.b), agent.RefreshGrant{Refresh: first.Refresh})
	must(t, err)
	if !same.Access.Equal(tokens.Access) {
		t.Error("one refresh token gave two access tokens on two nodes")
	}
	x.cluster.agent = tokens.Access
	if _, err := x.b.Agents.Authenticate(ctx, tokens.Access); err != nil {
		t.Errorf("the token at the other node: %v", err)
	}
}

// Asked on one node, approved on the other, called and ended on either.
func (x *crossing) session(t *testing.T) {
	asked := x.call(x.a, "request_session", map[string]any{"providers": []string{"sandbox"}, "effects": []string{"read", "destructive"}, "purpose": "Sort the issues."})
	handle := asked.fact("session")
	woken, began := make(chan answer, 1), time.Now()
	go func() { woken <- x.call(x.a, "check_session", map[string]any{"session": handle, "wait_seconds": 25}) }()
	time.Sleep(300 * time.Millisecond) // most likely it waits by now
	x.approve(x.b, asked.fact("request_id"))
	if a := <-woken; a.fact("state") != session.Active || time.Since(began) > 20*time.Second {
		t.Errorf("the poll on the first node, after %v: %s", time.Since(began), a.raw)
	}
	for _, n := range []*node{x.a, x.b, x.a} {
		if a := x.call(n, "sandbox_list_issues", map[string]any{"session": handle}); a.code != "" {
			t.Errorf("a call: %s", a.raw)
		}
	}

	// One call's own approval: asked on b, given on a, used on b, and not again.
	del := map[string]any{"session": handle, "number": 1}
	one := x.call(x.b, "sandbox_delete_issue", del)
	if one.code != "approval_required" {
		t.Fatalf("a destructive call: %s", one.raw)
	}
	x.approve(x.a, one.fact("request_id"))
	if a := x.call(x.b, "sandbox_delete_issue", del); a.code != "" {
		t.Errorf("the approved call: %s", a.raw)
	}
	if a := x.call(x.a, "sandbox_delete_issue", del); a.code != "approval_required" {
		t.Errorf("the approved call again: %s", a.raw)
	}

	// Rule 7: a revoke on one node holds on the other from the next call on.
	ended, err := x.b.Sessions.Revoke(t.Context(), account.System("test").In(x.env), session.Aim{User: x.at(t, x.b).User()})
	must(t, err)
	if len(ended.Sessions) == 0 {
		t.Error("the revoke ended nothing")
	}
	if a := x.call(x.a, "sandbox_list_issues", map[string]any{"session": handle}); a.code != "revoked" {
		t.Errorf("after the revoke: %s", a.raw)
	}
}

func (x *crossing) signOut(t *testing.T) {
	ctx := t.Context()
	must(t, x.a.People.SignOutEverywhere(ctx, x.at(t, x.a)))
	_, err := x.b.People.Authenticate(ctx, x.owner.Token, accounttest.Address)
	refused(t, "a login that the other node has ended", err, "unauthenticated")
	for _, n := range []*node{x.a, x.b} {
		if report, err := n.VerifyAudit(ctx, nil); err != nil || !report.Intact() {
			t.Errorf("the audit of both: %+v, %v", report.Problems, err)
		}
	}
}

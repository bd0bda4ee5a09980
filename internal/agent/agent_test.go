package agent_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/secret"
)

func TestClientCredentials(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		ctx := t.Context()
		for _, row := range []struct {
			kind agent.Kind
			user id.User
		}{{agent.Delegated, alice.ID}, {agent.Autonomous, ""}} {
			a, auth := w.Service(t, row.kind, alice.ID)
			caller := w.Caller(t, auth)
			tokens, err := w.Agents.ClientCredentials(ctx, caller, "")
			if err != nil {
				t.Fatal(err)
			}
			who, err := w.Agents.Authenticate(ctx, tokens.Access)
			if err != nil || who.Agent() != a.ID || who.User() != row.user || who.Kind() != row.kind || who.Label() != "nightly build" || !tokens.Refresh.IsZero() {
				t.Errorf("%s: got %+v, %v", row.kind, who, err)
			}
			_, err = w.Agents.ClientCredentials(ctx, caller, "https://evil.example")
			refused(t, "another resource", err, "invalid_target")
			_, err = w.Agents.Exchange(ctx, caller, agent.CodeGrant{})
			refused(t, "a code grant", err, "unauthorized_client")
			_, err = w.Agents.Refresh(ctx, caller, agent.RefreshGrant{})
			refused(t, "a refresh", err, "unauthorized_client")
		}
		_, err := w.Agents.ClientCredentials(ctx, w.Caller(t, w.Client(t, agent.AuthBasic)), "")
		refused(t, "client credentials for a client that registered itself", err, "unauthorized_client")

		// An agent does not outlast its owner's place.
		bob := w.Person(t, "bob@example.com", account.RoleMember)
		_, auth := w.Service(t, agent.Autonomous, bob.ID)
		if err := w.Accounts.RemoveMember(ctx, w.System, w.Organization, bob.ID, account.Agreement{}); err != nil {
			t.Fatal(err)
		}
		_, err = w.Agents.ClientCredentials(ctx, w.Caller(t, auth), "")
		refused(t, "an agent whose owner left", err, "invalid_grant")
	})
}

func TestClientsProveThemselves(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		_, auth := w.Service(t, agent.Autonomous, alice.ID)
		public, confidential := w.Client(t, agent.AuthNone), w.Client(t, agent.AuthPost)
		good := string(auth.Secret.Reveal())
		var first string
		for name, a := range map[string]agent.ClientAuth{
			"unknown":                   {ID: string(id.NewClient()), Secret: auth.Secret},
			"malformed":                 {ID: "client_x", Secret: auth.Secret},
			"an agent's id":             {ID: string(id.NewAgent()), Secret: auth.Secret},
			"nothing":                   {},
			"no secret":                 {ID: auth.ID},
			"wrong secret":              {ID: auth.ID, Secret: secret.Token("amb_cs_")},
			"shorter secret":            {ID: auth.ID, Secret: secret.FromString(good[:len(good)-1])},
			"longer secret":             {ID: auth.ID, Secret: secret.FromString(good + "A")},
			"upper case":                {ID: auth.ID, Secret: secret.FromString(strings.ToUpper(good))},
			"another client's secret":   {ID: confidential.ID, Secret: auth.Secret},
			"a secret of a public one":  {ID: public.ID, Secret: auth.Secret},
			"confidential without":      {ID: confidential.ID},
			"id with a space":           {ID: auth.ID + " ", Secret: auth.Secret},
			"id in upper case":          {ID: strings.ToUpper(auth.ID), Secret: auth.Secret},
			"the hash as secret":        {ID: auth.ID, Secret: hashOf(auth.Secret)},
			"the client id as a secret": {ID: auth.ID, Secret: secret.FromString(auth.ID)},
		} {
			_, err := w.Agents.AuthenticateClient(t.Context(), a)
			refused(t, name, err, "invalid_client")
			if first == "" {
				first = fmt.Sprintf("%v %v", err, fault.Of(err).Hint)
			}
			if got := fmt.Sprintf("%v %v", err, fault.Of(err).Hint); got != first {
				t.Errorf("%s: got %q, elsewhere %q", name, got, first)
			}
		}
	})
}

func hashOf(v secret.Value) secret.Value {
	h := v.Hash()
	return secret.New(h[:])
}

func TestDisableEndsEverythingAtOnce(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		ctx := t.Context()
		g, bystander := w.Consented(t, alice, "x"), w.Consented(t, alice, "y")
		caller := g.Caller
		verifier, challenge := agenttest.PKCE()
		waiting := w.Agree(t, alice, w.Begin(t, caller.Client(), challenge), "x").Get("code")

		// What must end in the same transaction does, or nothing happens.
		w.FailEnding(errors.New("sessions cannot be ended"))
		if _, err := w.Agents.Disable(ctx, w.System, g.Identity.Agent()); err == nil {
			t.Fatal("disabled although its sessions could not be ended")
		}
		if !alive(t, w, g.Tokens.Access) {
			t.Fatal("half disabled")
		}
		w.FailEnding(nil)
		a, err := w.Agents.Disable(ctx, account.ByPerson(alice.Signed(t)), g.Identity.Agent()) // its owner may
		if err != nil || a.DisabledAt.IsZero() {
			t.Fatalf("got %+v, %v", a, err)
		}
		if alive(t, w, g.Tokens.Access) {
			t.Error("a disabled agent authenticates")
		}
		if got := w.Ended(); !slices.Contains(got, g.Identity.Agent()) || slices.Contains(got, bystander.Identity.Agent()) {
			t.Errorf("got sessions ended of %v", got)
		}
		if !alive(t, w, bystander.Tokens.Access) {
			t.Error("another agent was disturbed")
		}
		_, err = w.Agents.Refresh(ctx, caller, agent.RefreshGrant{Refresh: g.Tokens.Refresh})
		refused(t, "a refresh", err, "invalid_grant")
		_, err = w.Agents.Exchange(ctx, caller, agent.CodeGrant{Code: secret.FromString(waiting), RedirectURI: agenttest.Redirect, Verifier: verifier})
		refused(t, "a code from before", err, "invalid_grant")

		// Consenting again does not get around an admin.
		flow := w.Begin(t, caller.Client(), challenge)
		req, err := w.Agents.PendingAuthorize(ctx, flow)
		if err != nil {
			t.Fatal(err)
		}
		c := agent.Consent{Organization: w.Organization, Label: "x"}
		_, err = w.Agents.Consent(ctx, alice.Signed(t), flow, c, alice.Prove(t, w.Agents.ConsentDigest(alice.ID, req, c), w.Organization))
		refused(t, "a new consent", err, "agent_disabled")

		_, err = w.Agents.Enable(ctx, account.ByPerson(alice.Signed(t)), g.Identity.Agent(), account.Agreement{})
		refused(t, "a member who enables", err, "not_allowed")
		if _, err := w.Agents.Enable(ctx, w.System, g.Identity.Agent(), account.Agreement{}); err != nil {
			t.Fatal(err)
		}
		if alive(t, w, g.Tokens.Access) {
			t.Error("enabling revived an old token")
		}
		for _, want := range []string{"agent.disabled", "agent.enabled"} {
			if !slices.Contains(w.Actions(t), want) {
				t.Errorf("%s is not in the audit", want)
			}
		}

		_, auth := w.Service(t, agent.Autonomous, alice.ID)
		service := w.Caller(t, auth)
		list, err := w.Agents.List(ctx, w.System, agent.Filter{Environment: w.Environment, Organization: w.Organization, Limit: 1})
		if err != nil || len(list) != 1 {
			t.Fatalf("got %v, %v", list, err)
		}
		if _, err := w.Agents.Disable(ctx, w.System, list[0].ID); err != nil {
			t.Fatal(err)
		}
		_, err = w.Agents.ClientCredentials(ctx, service, "")
		refused(t, "client credentials of a disabled agent", err, "invalid_grant")
	})
}

// S14: two agents of one user share nothing; nor do two users of one client.
func TestAgentsShareNothing(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		a, b := w.Consented(t, alice, "laptop"), w.Consented(t, alice, "laptop")
		if a.Identity.Agent() == b.Identity.Agent() || a.Identity.Client() == b.Identity.Client() || a.Identity.Token() == b.Identity.Token() {
			t.Error("two clients of one user are one agent")
		}
		// The same client for another person is another agent.
		bob := w.Person(t, "bob@example.com", account.RoleMember)
		verifier, challenge := agenttest.PKCE()
		code := w.Agree(t, bob, w.Begin(t, a.Caller.Client(), challenge), "bob's").Get("code")
		tokens, err := w.Agents.Exchange(t.Context(), a.Caller, agent.CodeGrant{Code: secret.FromString(code), RedirectURI: agenttest.Redirect, Verifier: verifier})
		if err != nil {
			t.Fatal(err)
		}
		who, err := w.Agents.Authenticate(t.Context(), tokens.Access)
		if err != nil || who.Agent() == a.Identity.Agent() || who.User() != bob.ID || who.Label() != "bob's" {
			t.Errorf("got %+v, %v", who, err)
		}
		// The same client for the same person is the same agent, with the newer label.
		code = w.Agree(t, alice, w.Begin(t, a.Caller.Client(), challenge), "renamed").Get("code")
		tokens, err = w.Agents.Exchange(t.Context(), a.Caller, agent.CodeGrant{Code: secret.FromString(code), RedirectURI: agenttest.Redirect, Verifier: verifier})
		if err != nil {
			t.Fatal(err)
		}
		if who, err = w.Agents.Authenticate(t.Context(), tokens.Access); err != nil || who.Agent() != a.Identity.Agent() || who.Label() != "renamed" {
			t.Errorf("got %+v, %v", who, err)
		}
		// Ending one leaves the other.
		if _, err := w.Agents.Disable(t.Context(), w.System, a.Identity.Agent()); err != nil {
			t.Fatal(err)
		}
		if !alive(t, w, b.Tokens.Access) {
			t.Error("disabling one agent ended another")
		}
	})
}

func TestRotateSecretEndsTheOldOne(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		ctx := t.Context()
		a, auth := w.Service(t, agent.Delegated, alice.ID)
		before := w.Caller(t, auth)
		tokens, err := w.Agents.ClientCredentials(ctx, before, "")
		if err != nil {
			t.Fatal(err)
		}
		fresh, err := w.Agents.RotateSecret(ctx, w.System, a.ID, 0, account.Evidence{})
		if err != nil {
			t.Fatal(err)
		}
		if alive(t, w, tokens.Access) {
			t.Error("a token of the old secret is alive")
		}
		_, err = w.Agents.AuthenticateClient(ctx, auth)
		refused(t, "the old secret", err, "invalid_client")
		_, err = w.Agents.ClientCredentials(ctx, before, "") // authenticated before the rotation
		refused(t, "a caller from before", err, "invalid_client")
		if _, err := w.Agents.ClientCredentials(ctx, w.Caller(t, agent.ClientAuth{ID: auth.ID, Secret: fresh}), ""); err != nil {
			t.Errorf("the new secret: %v", err)
		}
		_, err = w.Agents.RotateSecret(ctx, w.System, w.Consented(t, alice, "x").Identity.Agent(), 0, account.Evidence{})
		refused(t, "an agent without a secret of ours", err, "no_secret")
	})
}

func TestWhoMayManageAgents(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		ctx := t.Context()
		admin := w.Person(t, "admin@example.com", account.RoleAdmin)
		me, she := admin.Signed(t), account.ByPerson(alice.Signed(t))
		by := account.ByPerson(me)
		n := agent.NewAgent{Environment: w.Environment, Organization: w.Organization, Name: "deployer", Kind: agent.Autonomous,
			Ceiling: policy.Ceiling{Providers: []string{"sandbox"}, Effects: []policy.Effect{policy.Read}}}

		_, _, _, err := w.Agents.Register(ctx, by, n)
		refused(t, "an admin's cookie alone", err, "proof_required")
		other := n
		other.Name = "something else"
		other.Evidence = admin.Prove(t, w.Agents.RegisterDigest(me, n), w.Organization)
		_, _, _, err = w.Agents.Register(ctx, by, other)
		refused(t, "proof for something else", err, "proof_required")
		borrowed := n
		borrowed.Evidence = alice.Prove(t, w.Agents.RegisterDigest(me, n), w.Organization)
		_, _, _, err = w.Agents.Register(ctx, by, borrowed)
		refused(t, "somebody else's proof", err, "proof_required")
		n.Evidence = admin.Prove(t, w.Agents.RegisterDigest(me, n), w.Organization)
		a, _, _, err := w.Agents.Register(ctx, by, n)
		if err != nil {
			t.Fatal(err)
		}
		_, _, _, err = w.Agents.Register(ctx, by, n)
		refused(t, "the same proof again", err, "proof_used")
		if a.Owner != me.User() || !a.Verified || a.Label() != "deployer" || !cmp.Equal(a.Ceiling, n.Ceiling) {
			t.Errorf("got %+v", a)
		}
		hers := n
		hers.Evidence = alice.Prove(t, w.Agents.RegisterDigest(alice.Signed(t), n), w.Organization)
		_, _, _, err = w.Agents.Register(ctx, she, hers)
		refused(t, "a member who registers", err, "not_allowed")
		_, err = w.Agents.SetCeiling(ctx, she, a.ID, a.Version, policy.Ceiling{}, account.Agreement{})
		refused(t, "a member who widens", err, "not_allowed")
		_, err = w.Agents.Disable(ctx, she, a.ID)
		refused(t, "a member who disables another's agent", err, "not_allowed")
		_, err = w.Agents.Get(ctx, account.Actor{}, a.ID)
		refused(t, "nobody", err, "not_found")

		var wider agent.Agent
		err = admin.Do(t, func(ag account.Agreement) error {
			wider, err = w.Agents.SetCeiling(ctx, by, a.ID, a.Version, policy.Ceiling{Effects: []policy.Effect{policy.Read, policy.Write}}, ag)
			return err
		})
		if err != nil || !wider.Ceiling.Allows("other", policy.Write) || wider.Ceiling.Allows("other", policy.Destructive) {
			t.Errorf("got %+v, %v", wider, err)
		}
		_, err = w.Agents.SetCeiling(ctx, by, a.ID, a.Version, policy.Ceiling{}, account.Agreement{})
		refused(t, "a ceiling from an old version", err, "conflict")
		for _, bad := range []policy.Ceiling{{Providers: []string{"Bad Slug"}}, {Providers: []string{""}}, {Effects: []policy.Effect{"admin"}}} {
			if _, err := w.Agents.SetCeiling(ctx, by, a.ID, wider.Version, bad, account.Agreement{}); fault.KindOf(err) != fault.Invalid {
				t.Errorf("ceiling %v: got %v, want invalid", bad, err)
			}
		}
		for _, change := range []func(*agent.NewAgent){
			func(n *agent.NewAgent) { n.Name = "" },
			func(n *agent.NewAgent) { n.Name = strings.Repeat("x", 81) },
			func(n *agent.NewAgent) { n.Name = "a\u202eb" },
			func(n *agent.NewAgent) { n.Name = "a\nb" },
			func(n *agent.NewAgent) { n.Kind = "root" },
			func(n *agent.NewAgent) { n.Owner = "" },
			func(n *agent.NewAgent) { n.Owner = id.NewUser() },
		} {
			bad := n
			bad.Owner = alice.ID
			change(&bad)
			if _, _, _, err := w.Agents.Register(ctx, w.System, bad); fault.KindOf(err) != fault.Invalid {
				t.Errorf("%+v: got %v, want invalid", bad, err)
			}
		}

		// Another environment and its organization are not there.
		elsewhere, err := w.Accounts.CreateEnvironment(ctx, w.System, "staging", account.Agreement{})
		if err != nil {
			t.Fatal(err)
		}
		far := n
		far.Environment, far.Organization, far.Owner = elsewhere.ID, elsewhere.Operator, ""
		_, _, _, err = w.Agents.Register(ctx, by, far)
		if err == nil || fault.KindOf(err) != fault.NotFound && fault.KindOf(err) != fault.Denied {
			t.Errorf("an environment where the admin has no part: got %v", err)
		}
		far.Organization, far.Owner = w.Organization, alice.ID
		_, _, _, err = w.Agents.Register(ctx, w.System, far)
		refused(t, "an organization of another environment", err, "not_found")
		_, err = w.Agents.Lookup(ctx, elsewhere.ID, a.ID)
		refused(t, "an agent of another environment", err, "not_found")
	})
}

func TestListPages(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		ctx := t.Context()
		want := map[id.Agent]bool{}
		for range 5 {
			a, _ := w.Service(t, agent.Autonomous, alice.ID)
			want[a.ID] = true
		}
		got := map[id.Agent]bool{}
		f := agent.Filter{Environment: w.Environment, Organization: w.Organization, Limit: 2}
		for range 4 {
			page, err := w.Agents.List(ctx, w.System, f)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range page {
				got[a.ID] = true
				f.Before = a.ID
			}
		}
		if !cmp.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		f = agent.Filter{Environment: w.Environment, Organization: w.Organization, Owner: id.NewUser()}
		if page, err := w.Agents.List(ctx, w.System, f); err != nil || len(page) != 0 {
			t.Errorf("a stranger's agents: got %v, %v", page, err)
		}
		if _, err := w.Agents.List(ctx, account.Actor{}, agent.Filter{Environment: w.Environment}); err == nil {
			t.Error("nobody lists agents")
		}
	})
}

func TestLastSeen(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		g := w.Consented(t, alice, "x")
		seen := func() time.Time {
			a, err := w.Agents.Lookup(t.Context(), w.Environment, g.Identity.Agent())
			if err != nil {
				t.Fatal(err)
			}
			return a.LastSeenAt
		}
		for deadline := time.Now().Add(20 * time.Second); seen().IsZero(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("an agent that called was never seen")
			}
		}
		first := seen()
		w.Clock.Advance(30 * time.Second)
		before := w.DB.Stats().Commits
		if !alive(t, w, g.Tokens.Access) {
			t.Fatal("refused")
		}
		time.Sleep(1500 * time.Millisecond)
		if !seen().Equal(first) || w.DB.Stats().Commits != before {
			t.Error("a second call within a minute was written down")
		}
	})
}

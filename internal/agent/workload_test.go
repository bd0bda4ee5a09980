package agent_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
)

// S8, S15: tokens of a platform prove an agent if they are of its issuer, about its
// workload, for us alone and of now; whatever else the same platform signs, for its
// other customers, does not.
func TestWorkloadIdentity(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		ctx := t.Context()
		key, next, stranger := agenttest.NewSigner(t, "1"), agenttest.NewSigner(t, "2"), agenttest.NewSigner(t, "1")
		iss := w.Web.URL + "/actions"
		w.Web.Put("/actions/.well-known/openid-configuration", `{"issuer":"%s/actions","jwks_uri":"%s/actions/keys"}`)
		w.Web.Put("/actions/keys", agenttest.Set(key))
		n := agent.NewAgent{Environment: w.Environment, Organization: w.Organization, Name: "deploys", Kind: agent.Delegated, Owner: alice.ID,
			Workload: agent.Workload{Issuer: iss, Subject: "repo:acme/app:environment:production", Claims: map[string]string{"repository_id": "123456", "run_number": "7", "private": "true"}}}
		a, client, sec, err := w.Agents.Register(ctx, w.System, n)
		if err != nil || !sec.IsZero() {
			t.Fatalf("registering a workload: secret %v, %v", !sec.IsZero(), err)
		}
		if with, err := w.Agents.SignsWith(ctx, a); err != nil || !strings.Contains(with, iss) || !strings.Contains(with, `"repo:acme/app:environment:production"`) || !strings.Contains(with, `repository_id "123456"`) {
			t.Errorf("proves itself with %q, %v", with, err)
		}
		now := w.Clock.Now()
		token := func(s agenttest.Signer, over map[string]any) agent.ClientAuth {
			claims := map[string]any{"iss": iss, "sub": "repo:acme/app:environment:production", "aud": agenttest.PublicURL, "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
				"repository_id": "123456", "run_number": 7, "private": true, "actor": "somebody"}
			maps.Copy(claims, over)
			maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
			return agent.ClientAuth{ID: string(client), Assertion: s.Sign(t, claims)}
		}
		good := token(key, nil)
		for _, again := range []bool{false, true} { // a platform hands out the same one while it counts
			good.Platform = again
			by, err := w.Agents.AuthenticateClient(ctx, good)
			if err != nil || by.Public() {
				t.Fatal(err)
			}
			if tokens, err := w.Agents.ClientCredentials(ctx, by, ""); err != nil || !alive(t, w, tokens.Access) {
				t.Fatal(err)
			}
		}
		by, err := w.Agents.AuthenticateClient(ctx, good)
		if err != nil {
			t.Fatal(err)
		}
		deny := func(what string, auth agent.ClientAuth) {
			t.Helper()
			_, err := w.Agents.AuthenticateClient(ctx, auth)
			refused(t, what, err, "invalid_client")
		}
		for what, over := range map[string]map[string]any{
			"another repository": {"sub": "repo:evil/app:environment:production"}, "a longer subject": {"sub": "repo:acme/app:environment:production2"}, "no subject": {"sub": nil},
			"another issuer": {"iss": iss + "/"}, "no issuer": {"iss": nil}, "for another": {"aud": "https://other.example"}, "for another too": {"aud": []string{agenttest.PublicURL, "https://other.example"}},
			"for nobody": {"aud": nil}, "over": {"exp": now.Add(-2 * time.Minute).Unix()}, "without an end": {"exp": nil}, "for days": {"exp": now.Add(49 * time.Hour).Unix()}, "not yet": {"nbf": now.Add(5 * time.Minute).Unix()},
			"another claim": {"repository_id": "123457"}, "without the claim": {"repository_id": nil}, "the claim in a list": {"repository_id": []string{"123456"}}, "a number that is near": {"run_number": 7.4}, "another truth": {"private": false},
		} {
			deny(what, token(key, over))
		}
		deny("a stranger's key of the same name", token(stranger, nil))
		deny("without the client's name", agent.ClientAuth{Assertion: good.Assertion})
		deny("its name alone", agent.ClientAuth{ID: string(client)})
		both := good
		both.Secret = text("amb_cs_x")
		deny("a secret beside it", both)

		// The platform changes its keys, as platforms do.
		w.Web.Put("/actions/keys", agenttest.Set(next))
		w.Clock.Advance(2 * time.Minute)
		if _, err := w.Agents.AuthenticateClient(ctx, token(next, nil)); err != nil {
			t.Errorf("the platform's next key: %v", err)
		}

		// A cluster that nobody can ask, named with its keys; what was proven before ends.
		cluster := agent.Workload{Issuer: "https://kubernetes.default.svc", Subject: "system:serviceaccount:jobs:report"}
		if a, err = w.Agents.SetKeys(ctx, w.System, a.ID, a.Version, agenttest.Set(stranger), cluster, account.Agreement{}); err != nil {
			t.Fatal(err)
		}
		_, err = w.Agents.ClientCredentials(ctx, by, "")
		refused(t, "a caller that another platform proved", err, "invalid_client")
		deny("the platform of before", token(next, nil))
		pod := map[string]any{"iss": cluster.Issuer, "sub": cluster.Subject}
		if _, err := w.Agents.AuthenticateClient(ctx, token(stranger, pod)); err != nil {
			t.Errorf("a pod's token: %v", err)
		}

		// SPIFFE: no issuer, the keys of the trust domain's bundle.
		svid := agent.Workload{Subject: "spiffe://acme.example/report"}
		if a, err = w.Agents.SetKeys(ctx, w.System, a.ID, a.Version, w.Web.Put("/bundle", strings.ReplaceAll(agenttest.Set(key), `"use":"sig"`, `"use":"jwt-svid"`)), svid, account.Agreement{}); err != nil {
			t.Fatal(err)
		}
		auth := token(key, map[string]any{"iss": nil, "sub": svid.Subject})
		auth.Platform = true
		if _, err := w.Agents.AuthenticateClient(ctx, auth); err != nil {
			t.Errorf("a JWT-SVID: %v", err)
		}
		deny("another SPIFFE id", token(key, map[string]any{"iss": nil, "sub": svid.Subject + "/x"}))

		// Keys of its own again: a platform's token is none of its assertions.
		if a, err = w.Agents.SetKeys(ctx, w.System, a.ID, a.Version, agenttest.Set(key), agent.Workload{}, account.Agreement{}); err != nil {
			t.Fatal(err)
		}
		own := w.Assertion(t, key, string(client), nil)
		own.ID, own.Platform = string(client), true
		deny("its own assertion as a platform's", own)
		me := account.ByPerson(w.Person(t, "admin@example.com", account.RoleAdmin).Signed(t)).In(w.Environment)
		_, err = w.Agents.SetKeys(ctx, me, a.ID, a.Version, "", n.Workload, account.Agreement{})
		refused(t, "a person without a proof", err, "proof_required")
	})
}

// What could be meant wider than it is compared, or cannot be checked, is refused
// when it is set up, and says why.
func TestWorkloadThatCannotBeTrusted(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		w.Web.Put("/p/.well-known/openid-configuration", `{"issuer":"%s/q","jwks_uri":"%s/p/keys"}`)
		iss, keys := w.Web.URL+"/p", agenttest.Set(agenttest.NewSigner(t, "1"))
		for what, c := range map[string]struct {
			agent.Workload
			keys string
		}{
			"no issuer":              {agent.Workload{Subject: "system:serviceaccount:a:b"}, keys},
			"nobody in particular":   {agent.Workload{Issuer: iss}, keys},
			"a pattern":              {agent.Workload{Issuer: iss, Subject: "repo:acme/*"}, keys},
			"a claim of ours":        {agent.Workload{Issuer: iss, Subject: "x", Claims: map[string]string{"aud": "y"}}, keys},
			"an empty claim":         {agent.Workload{Issuer: iss, Subject: "x", Claims: map[string]string{"team": ""}}, keys},
			"a line that is none":    {agent.Workload{Issuer: iss, Subject: "x", Claims: map[string]string{"": "team"}}, keys},
			"anybody's environment":  {agent.Workload{Issuer: "https://token.actions.githubusercontent.com", Claims: map[string]string{"environment": "production"}}, keys},
			"an issuer of two parts": {agent.Workload{Issuer: `https://a.example about "repo:acme/app"`, Subject: "x"}, keys},
			"hidden letters":         {agent.Workload{Issuer: iss, Subject: "repo:acme/app\u202e"}, keys},
			"a space at the end":     {agent.Workload{Issuer: iss, Subject: "repo:acme/app "}, keys},
			"another's metadata":     {agent.Workload{Issuer: iss, Subject: "x"}, ""},
			"an inner address":       {agent.Workload{Issuer: "http://169.254.169.254", Subject: "x"}, ""},
			"a bundle from nowhere":  {agent.Workload{Subject: "spiffe://acme.example/x"}, ""},
		} {
			_, _, _, err := w.Agents.Register(t.Context(), w.System, agent.NewAgent{Environment: w.Environment, Organization: w.Organization, Name: what, Kind: agent.Delegated, Owner: alice.ID, Workload: c.Workload, Keys: c.keys})
			refused(t, what, err, "invalid_workload")
		}
	})
}

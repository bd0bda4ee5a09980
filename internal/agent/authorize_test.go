package agent_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
)

// G5: consent is for one request, by one person, and answers it once.
func TestConsent(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		ctx := t.Context()
		caller := w.Caller(t, w.Client(t, agent.AuthNone))
		_, challenge := agenttest.PKCE()
		flow, other := w.Begin(t, caller.Client(), challenge), w.Begin(t, caller.Client(), challenge)
		req, err := w.Agents.PendingAuthorize(ctx, flow)
		if err != nil {
			t.Fatal(err)
		}
		if req.Host() != "this computer (localhost)" || !req.Local() || req.Resource != agenttest.PublicURL+"/mcp" {
			t.Errorf("got host %q, local %v, resource %q", req.Host(), req.Local(), req.Resource)
		}
		me := alice.Signed(t)
		bob := w.Person(t, "bob@example.com", account.RoleMember)
		auditor := w.Person(t, "auditor@example.com", account.RoleAuditor)
		c := agent.Consent{Organization: w.Organization}
		digest := w.Agents.ConsentDigest(alice.ID, req, c)

		_, err = w.Agents.Consent(ctx, me, other, c, alice.Prove(t, digest, w.Organization))
		refused(t, "proof for another request", err, "proof_required")
		_, err = w.Agents.Consent(ctx, me, flow, agent.Consent{Organization: w.Organization, Label: "Trusted"}, alice.Prove(t, digest, w.Organization))
		refused(t, "proof for another label", err, "proof_required")
		_, err = w.Agents.Consent(ctx, bob.Signed(t), flow, c, alice.Prove(t, digest, w.Organization))
		refused(t, "another person's proof", err, "proof_required")
		_, err = w.Agents.Consent(ctx, me, flow, c, account.Evidence{})
		refused(t, "no proof", err, "proof_required")
		far := agent.Consent{Organization: id.NewOrganization()}
		_, err = w.Agents.Consent(ctx, me, flow, far, alice.Prove(t, w.Agents.ConsentDigest(alice.ID, req, far), w.Organization))
		refused(t, "an organization of others", err, "not_found")
		_, err = w.Agents.Consent(ctx, auditor.Signed(t), flow, c, auditor.Prove(t, w.Agents.ConsentDigest(auditor.ID, req, c), w.Organization))
		refused(t, "an auditor", err, "not_allowed")
		bad := agent.Consent{Organization: w.Organization, Label: "a\u202eb"}
		_, err = w.Agents.Consent(ctx, me, flow, bad, alice.Prove(t, w.Agents.ConsentDigest(alice.ID, req, bad), w.Organization))
		refused(t, "a label that hides text", err, "invalid_name")

		redirect, err := w.Agents.Consent(ctx, me, flow, c, alice.Prove(t, digest, w.Organization))
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(redirect)
		if err != nil || !strings.HasPrefix(redirect, agenttest.Redirect+"?") {
			t.Fatalf("got redirect %q, %v", redirect, err)
		}
		q := u.Query()
		if q.Get("iss") != agenttest.PublicURL || q.Get("state") != "st&te=1" || len(q.Get("code")) < 26 || len(q) != 3 {
			t.Errorf("got parameters %v", q)
		}
		_, err = w.Agents.Consent(ctx, me, flow, c, alice.Prove(t, digest, w.Organization))
		refused(t, "the same request again", err, "not_found")
		_, err = w.Agents.DenyConsent(ctx, me, flow)
		refused(t, "no after yes", err, "not_found")

		// A client's own name is nowhere in what a person decides on.
		list, err := w.Agents.List(ctx, w.System, agent.Filter{Environment: w.Environment, Organization: w.Organization})
		if err != nil || len(list) != 1 {
			t.Fatalf("got %v, %v", list, err)
		}
		if got, want := list[0].Label(), "unverified client, redirects to this computer (localhost)"; got != want || list[0].Verified {
			t.Errorf("got label %q, want %q", got, want)
		}

		redirect, err = w.Agents.DenyConsent(ctx, me, other)
		if err != nil {
			t.Fatal(err)
		}
		u, _ = url.Parse(redirect)
		if q := u.Query(); q.Get("error") != "access_denied" || q.Get("iss") != agenttest.PublicURL || q.Get("state") != "st&te=1" || q.Has("code") {
			t.Errorf("got parameters %v", q)
		}
		_, err = w.Agents.Consent(ctx, me, other, c, alice.Prove(t, digest, w.Organization))
		refused(t, "yes after no", err, "not_found")

		late := w.Begin(t, caller.Client(), challenge)
		w.Clock.Advance(10 * time.Minute)
		_, err = w.Agents.PendingAuthorize(ctx, late)
		refused(t, "a request after ten minutes", err, "not_found")
		if !slices.Contains(w.Actions(t), "agent.consented") {
			t.Error("the consent is not in the audit")
		}
	})
}

// G5: however often a person clicks, one request gives one code.
func TestRacingConsentsGiveOneCode(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		caller := w.Caller(t, w.Client(t, agent.AuthNone))
		flow := w.Begin(t, caller.Client(), challengeOf(t))
		req, err := w.Agents.PendingAuthorize(t.Context(), flow)
		if err != nil {
			t.Fatal(err)
		}
		c := agent.Consent{Organization: w.Organization, Label: "x"}
		proof := alice.Prove(t, w.Agents.ConsentDigest(alice.ID, req, c), w.Organization)
		var given atomic.Int64
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range 20 {
			wg.Go(func() {
				<-start
				var err error
				if i%4 == 0 {
					_, err = w.Agents.DenyConsent(t.Context(), alice.Signed(t), flow)
				} else {
					_, err = w.Agents.Consent(t.Context(), alice.Signed(t), flow, c, proof)
				}
				if err == nil {
					given.Add(1)
				} else if !fault.Is(err, "not_found") {
					t.Errorf("got %v, want not_found", err)
				}
			})
		}
		close(start)
		wg.Wait()
		var codes int
		if err := w.DB.Reader().QueryRowContext(t.Context(), `select count(*) from authorization_code`).Scan(&codes); err != nil || given.Load() != 1 || codes > 1 {
			t.Errorf("got %d answers and %d codes for one request, want one answer; %v", given.Load(), codes, err)
		}
	})
}

// Rule 4: an organization that demands passkeys gets one, even when the proof
// was checked before it did, or for another organization.
func TestOrganizationDemandsAPasskey(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		ctx := t.Context()
		caller := w.Caller(t, w.Client(t, agent.AuthNone))
		flow := w.Begin(t, caller.Client(), challengeOf(t))
		req, err := w.Agents.PendingAuthorize(ctx, flow)
		if err != nil {
			t.Fatal(err)
		}
		c := agent.Consent{Organization: w.Organization}
		digest := w.Agents.ConsentDigest(alice.ID, req, c)
		byCode := alice.ProveByCode(t, w.Clock, digest, w.Organization)
		o, err := w.Accounts.Organization(ctx, w.Environment, w.Organization)
		if err != nil {
			t.Fatal(err)
		}
		demand := true
		if _, err := w.Accounts.UpdateOrganization(ctx, w.System, o.ID, o.Version, account.OrganizationChange{RequirePasskey: &demand}, account.Agreement{}); err != nil {
			t.Fatal(err)
		}
		_, err = w.Agents.Consent(ctx, alice.Signed(t), flow, c, byCode)
		refused(t, "a code where a passkey is demanded", err, "passkey_required")
		if _, err := w.Agents.Consent(ctx, alice.Signed(t), flow, c, alice.Prove(t, digest, w.Organization)); err != nil {
			t.Errorf("a passkey: %v", err)
		}
	})
}

func TestBeginAuthorizeChecksAgain(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		caller := w.Caller(t, w.Client(t, agent.AuthNone))
		_, challenge := agenttest.PKCE()
		good := agent.AuthRequest{Client: agent.Client{ID: caller.Client()}, RedirectURI: agenttest.Redirect, Challenge: challenge}
		_, service := w.Service(t, agent.Autonomous, alice.ID)
		for _, row := range []struct {
			name, code string
			change     func(*agent.AuthRequest)
		}{
			{"unknown client", "not_found", func(r *agent.AuthRequest) { r.Client.ID = id.NewClient() }},
			{"an agent's own client", "invalid_redirect_uri", func(r *agent.AuthRequest) { r.Client.ID = id.Client(service.ID) }},
			{"another redirect", "invalid_redirect_uri", func(r *agent.AuthRequest) { r.RedirectURI = "https://evil.example" }},
			{"no challenge", "invalid_request", func(r *agent.AuthRequest) { r.Challenge = "" }},
			{"a plain challenge", "invalid_request", func(r *agent.AuthRequest) { r.Challenge = strings.Repeat("x", 50) }},
			{"a padded challenge", "invalid_request", func(r *agent.AuthRequest) { r.Challenge = challenge + "=" }},
			{"a short challenge", "invalid_request", func(r *agent.AuthRequest) { r.Challenge = challenge[:42] }},
			{"a long state", "invalid_request", func(r *agent.AuthRequest) { r.State = strings.Repeat("x", 2049) }},
		} {
			r := good
			row.change(&r)
			_, err := w.Agents.BeginAuthorize(t.Context(), r)
			refused(t, row.name, err, row.code)
		}
	})
}

func TestRegisterClient(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		ctx := t.Context()
		reg := func(change func(*agent.NewClient)) (agent.Client, error) {
			n := agent.NewClient{RedirectURIs: []string{"https://app.example.com/cb"}, Address: "192.0.2.1"}
			change(&n)
			c, sec, err := w.Agents.RegisterClient(ctx, n)
			if err == nil && sec.IsZero() != (c.AuthMethod == agent.AuthNone) {
				t.Errorf("method %s: secret given %v", c.AuthMethod, !sec.IsZero())
			}
			return c, err
		}
		c, err := reg(func(n *agent.NewClient) {})
		if err != nil || c.AuthMethod != agent.AuthBasic || c.ApplicationType != "web" || !slices.Equal(c.Grants, []string{"authorization_code"}) {
			t.Errorf("defaults: got %+v, %v", c, err)
		}
		c, err = reg(func(n *agent.NewClient) {
			n.RedirectURIs = []string{"http://localhost/cb", "https://app.example.com/cb"}
			n.Grants = []string{"refresh_token", "client_credentials", "authorization_code", "password"}
			n.AuthMethod, n.Name = "none", "  Evil\u202e\n\x00"+strings.Repeat("x", 100)
		})
		if err != nil || c.ApplicationType != "native" || !slices.Equal(c.Grants, []string{"authorization_code", "refresh_token"}) || c.Name != "Evil"+strings.Repeat("x", 76) {
			t.Errorf("got %+v, %v", c, err)
		}
		many := make([]string, 11)
		for i := range many {
			many[i] = fmt.Sprintf("https://app.example.com/%d", i)
		}
		for _, row := range []struct {
			name, code string
			change     func(*agent.NewClient)
		}{
			{"no redirect", "invalid_redirect_uri", func(n *agent.NewClient) { n.RedirectURIs = nil }},
			{"eleven redirects", "invalid_redirect_uri", func(n *agent.NewClient) { n.RedirectURIs = many }},
			{"a long redirect", "invalid_redirect_uri", func(n *agent.NewClient) {
				n.RedirectURIs = []string{"https://app.example.com/" + strings.Repeat("x", 512)}
			}},
			{"one bad among good", "invalid_redirect_uri", func(n *agent.NewClient) {
				n.RedirectURIs = append(n.RedirectURIs, "http://app.example.com/cb")
			}},
			{"a web client on loopback", "invalid_redirect_uri", func(n *agent.NewClient) {
				n.ApplicationType, n.RedirectURIs = "web", []string{"http://localhost/cb"}
			}},
			{"another application type", "invalid_client_metadata", func(n *agent.NewClient) { n.ApplicationType = "service" }},
			{"another method", "invalid_client_metadata", func(n *agent.NewClient) { n.AuthMethod = "private_key_jwt" }},
			{"client credentials only", "invalid_client_metadata", func(n *agent.NewClient) { n.Grants = []string{"client_credentials"} }},
		} {
			_, err := reg(row.change)
			refused(t, row.name, err, row.code)
		}
	})
}

// G4: what nobody used for a day goes; what somebody consented to stays.
func TestUnusedClientsExpire(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		ctx := t.Context()
		unused, used := w.Client(t, agent.AuthNone), w.Consented(t, alice, "x")
		w.Begin(t, id.Client(unused.ID), challengeOf(t))
		w.Clock.Advance(24*time.Hour - time.Second)
		if n, err := w.Agents.SweepClients(ctx); err != nil || n != 0 {
			t.Errorf("swept %d clients before their day was over, %v", n, err)
		}
		w.Clock.Advance(time.Second)
		_, err := w.Agents.AuthenticateClient(ctx, unused)
		refused(t, "an unused client after a day", err, "invalid_client")
		if err := w.Agents.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
		if n, err := w.Agents.SweepClients(ctx); err != nil || n != 0 {
			t.Errorf("a second sweep removed %d more, %v", n, err)
		}
		if _, err := w.Agents.Client(ctx, id.Client(unused.ID)); fault.KindOf(err) != fault.NotFound {
			t.Errorf("got %v, want not found", err)
		}
		w.Clock.Advance(28 * 24 * time.Hour)
		if err := w.Agents.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Agents.Refresh(ctx, used.Caller, agent.RefreshGrant{Refresh: used.Tokens.Refresh}); err != nil {
			t.Errorf("sweeping took a live grant along: %v", err)
		}
		w.Clock.Advance(2 * 24 * time.Hour)
		if err := w.Agents.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
		var left int
		err = w.DB.Reader().QueryRowContext(ctx, `select (select count(*) from agent_token) + (select count(*) from token_family) +
			(select count(*) from authorization_code) + (select count(*) from authorize_request)`).Scan(&left)
		if err != nil || left != 0 {
			t.Errorf("%d rows are left after everything expired, %v", left, err)
		}
	})
}

func challengeOf(t *testing.T) string {
	t.Helper()
	_, c := agenttest.PKCE()
	return c
}

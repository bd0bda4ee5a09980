package authserver_test

import (
	"maps"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/secret"
)

// RFC 7662, S9: a token's names are told to the confidential client that it was
// issued to and to keys that may read agents, and to nobody else.
func TestIntrospection(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server, alice *agenttest.Person) {
		a, auth := s.Service(t, agent.Delegated, alice.ID)
		basic := func(v url.Values) answer {
			return s.post(t, "/oauth/introspect", v, "Authorization", basicAuth(auth))
		}
		access := s.post(t, "/oauth/token", url.Values{"grant_type": {"client_credentials"}}, "Authorization", basicAuth(auth)).text("access_token")
		got := basic(url.Values{"token": {access}, "token_type_hint": {"access_token"}})
		want := map[string]string{"sub": string(alice.ID), "client_id": auth.ID, "aud": agenttest.PublicURL + "/mcp", "iss": agenttest.PublicURL, "scope": "ambit",
			"environment_id": string(s.Environment), "organization_id": string(s.Organization), "token_type": "Bearer"}
		for name, v := range want {
			if got.text(name) != v {
				t.Errorf("%s: got %q, want %q", name, got.text(name), v)
			}
		}
		act, _ := got.doc["act"].(map[string]any)
		if got.doc["active"] != true || act["sub"] != string(a.ID) || got.doc["exp"].(float64)-got.doc["iat"].(float64) != time.Hour.Seconds() {
			t.Errorf("got %s", got.body)
		}

		inactive := func(what string, a answer) {
			t.Helper()
			if a.status != http.StatusOK || a.body != "{\"active\":false}\n" || a.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: got %d %s", what, a.status, a.body)
			}
		}
		inactive("a token cut short", basic(url.Values{"token": {access[:len(access)-1]}}))
		theirs := s.Consented(t, alice, "x")
		inactive("another client's token", basic(url.Values{"token": {string(theirs.Tokens.Access.Reveal())}}))
		wantError(t, "nobody", s.post(t, "/oauth/introspect", url.Values{"token": {access}}), http.StatusBadRequest, "invalid_request")
		wantError(t, "a public client", s.post(t, "/oauth/introspect", url.Values{"token": {access}, "client_id": {theirs.Auth.ID}}), http.StatusBadRequest, "unauthorized_client")
		wantError(t, "an agent's token as key", s.post(t, "/oauth/introspect", url.Values{"token": {access}}, "Authorization", "Bearer "+access), http.StatusUnauthorized, "invalid_token")

		key := func(scope account.Scope) string {
			_, token, err := s.Accounts.IssueKey(t.Context(), account.NewKey{Environment: s.Environment, Name: "resource", Scopes: []account.Scope{scope}})
			if err != nil {
				t.Fatal(err)
			}
			return "Bearer " + string(token.Reveal())
		}
		if a := s.post(t, "/oauth/introspect", url.Values{"token": {string(theirs.Tokens.Refresh.Reveal())}}, "Authorization", key(account.ScopeAgentsRead)); a.doc["active"] != true || a.text("token_type") != "refresh_token" {
			t.Errorf("a key that reads agents: got %s", a.body)
		}
		wantError(t, "a key without the scope", s.post(t, "/oauth/introspect", url.Values{"token": {access}}, "Authorization", key(account.ScopeAuditRead)), http.StatusForbidden, "insufficient_scope")
		if _, err := s.Agents.Disable(t.Context(), s.System, a.ID); err != nil {
			t.Fatal(err)
		}
		inactive("a disabled agent's token", basic(url.Values{"token": {access}}))
	})
}

// RFC 8628: the device's side of the wire.
func TestDeviceOverHTTP(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server, alice *agenttest.Person) {
		client := s.register(t, `{"client_name":"Screen","grant_types":["`+agent.GrantDevice+`"],"token_endpoint_auth_method":"none"}`).text("client_id")
		begun := s.post(t, "/oauth/device_authorization", url.Values{"client_id": {client}, "scope": {"ambit"}})
		code := begun.text("user_code")
		if begun.status != http.StatusOK || begun.text("verification_uri") != agenttest.PublicURL+"/ui/device" || begun.text("verification_uri_complete") != agenttest.PublicURL+"/ui/device?code="+code ||
			begun.doc["interval"] != 5.0 || begun.doc["expires_in"] != 600.0 || len(code) != 9 {
			t.Fatalf("got %d %s", begun.status, begun.body)
		}
		poll := url.Values{"grant_type": {agent.GrantDevice}, "client_id": {client}, "device_code": {begun.text("device_code")}}
		wantError(t, "the first poll", s.post(t, "/oauth/token", poll), http.StatusBadRequest, "authorization_pending")
		wantError(t, "too soon", s.post(t, "/oauth/token", poll), http.StatusBadRequest, "slow_down")
		flow, err := s.Agents.FindDevice(t.Context(), alice.Signed(t), code)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Agents.DenyConsent(t.Context(), alice.Signed(t), flow); err != nil {
			t.Fatal(err)
		}
		wantError(t, "after a refusal", s.post(t, "/oauth/token", poll), http.StatusBadRequest, "access_denied")
		wantError(t, "without a code", s.post(t, "/oauth/token", url.Values{"grant_type": {agent.GrantDevice}, "client_id": {client}}), http.StatusBadRequest, "invalid_request")
	})
}

func basicAuth(a agent.ClientAuth) string {
	r := &http.Request{Header: http.Header{}}
	r.SetBasicAuth(a.ID, string(a.Secret.Reveal()))
	return r.Header.Get("Authorization")
}

// A platform's token on the wire: as an assertion of the client (RFC 7523 §2.2, or
// SPIFFE's type), or as the grant itself (§2.1). Each way names the client, since
// two organizations may trust one platform about the same subject.
func TestWorkloadOverHTTP(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server, alice *agenttest.Person) {
		platform := agenttest.NewSigner(t, "1")
		trust := agent.Workload{Issuer: "https://kubernetes.default.svc", Subject: "system:serviceaccount:jobs:report"}
		_, client, _, err := s.Agents.Register(t.Context(), s.System, agent.NewAgent{Environment: s.Environment, Organization: s.Organization, Name: "report", Kind: agent.Delegated,
			Owner: alice.ID, Keys: agenttest.Set(platform), Workload: trust})
		if err != nil {
			t.Fatal(err)
		}
		token := string(s.Assertion(t, platform, "", map[string]any{"iss": trust.Issuer, "sub": trust.Subject, "jti": nil}).Assertion.Reveal())
		grant := url.Values{"grant_type": {agent.GrantAssertion}, "assertion": {token}, "client_id": {string(client)}}
		assertion := func(typ string) url.Values {
			return url.Values{"grant_type": {"client_credentials"}, "client_assertion_type": {typ}, "client_assertion": {token}, "client_id": {string(client)}}
		}
		for what, form := range map[string]url.Values{"the grant": grant, "an assertion": assertion(agent.AssertionType), "an assertion of SPIFFE": assertion(agent.AssertionSPIFFE)} {
			a := s.post(t, "/oauth/token", form)
			if a.status != http.StatusOK || a.text("access_token") == "" || a.text("refresh_token") != "" {
				t.Errorf("%s: got %d %s", what, a.status, a.body)
			}
			in := s.post(t, "/oauth/introspect", url.Values{"token": {a.text("access_token")}, "client_assertion_type": {agent.AssertionType}, "client_assertion": {token}, "client_id": {string(client)}})
			if in.doc["active"] != true || in.text("client_id") != string(client) {
				t.Errorf("%s gave a token about which is said: %d %s", what, in.status, in.body)
			}
		}
		without := func(name string, form url.Values) url.Values {
			form = maps.Clone(form)
			delete(form, name)
			return form
		}
		wantError(t, "without the client's name", s.post(t, "/oauth/token", without("client_id", grant)), http.StatusBadRequest, "invalid_request")
		wantError(t, "an assertion without it", s.post(t, "/oauth/token", without("client_id", assertion(agent.AssertionType))), http.StatusUnauthorized, "invalid_client")
		wantError(t, "without the token", s.post(t, "/oauth/token", without("assertion", grant)), http.StatusBadRequest, "invalid_request")
		grant.Set("client_secret", "x")
		wantError(t, "a secret too", s.post(t, "/oauth/token", grant), http.StatusBadRequest, "invalid_request")
	})
}

// RFC 7523 on the wire, with a client that is named by its document: one way of
// proving oneself, the right type, and the name from the assertion if need be.
func TestAssertionOverHTTP(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server, alice *agenttest.Person) {
		signer := agenttest.NewSigner(t, "1")
		_, client, _, err := s.Agents.Register(t.Context(), s.System, agent.NewAgent{Environment: s.Environment, Organization: s.Organization, Name: "ci", Kind: agent.Delegated,
			Owner: alice.ID, Keys: agenttest.Set(signer)})
		if err != nil {
			t.Fatal(err)
		}
		form := func(typ string) url.Values {
			a := s.Assertion(t, signer, string(client), nil).Assertion
			return url.Values{"grant_type": {"client_credentials"}, "client_assertion_type": {typ}, "client_assertion": {string(a.Reveal())}}
		}
		if a := s.post(t, "/oauth/token", form(agent.AssertionType)); a.status != http.StatusOK || a.text("access_token") == "" {
			t.Errorf("got %d %s", a.status, a.body)
		}
		wantError(t, "another type", s.post(t, "/oauth/token", form("saml")), http.StatusBadRequest, "invalid_request")
		wantError(t, "a header too", s.post(t, "/oauth/token", form(agent.AssertionType), "Authorization", basicAuth(agent.ClientAuth{ID: "x", Secret: secret.FromString("y")})), http.StatusBadRequest, "invalid_request")
		again := form(agent.AssertionType)
		s.post(t, "/oauth/introspect", url.Values{"token": {"x"}, "client_assertion_type": {agent.AssertionType}, "client_assertion": again["client_assertion"]})
		wantError(t, "an assertion twice", s.post(t, "/oauth/token", again), http.StatusUnauthorized, "invalid_client")

		name := s.Web.Put("/app.json", `{"client_id":"%s/app.json","redirect_uris":["`+agenttest.Redirect+`"]}`)
		_, challenge := agenttest.PKCE()
		if a := s.authorize(t, request(name, challenge)); a.status != http.StatusSeeOther {
			t.Errorf("a client named by its document: got %d %s", a.status, a.body)
		}
		if a := s.authorize(t, request(s.Web.URL+"/absent.json", challenge)); a.status != http.StatusBadRequest || a.header.Get("Location") != "" {
			t.Errorf("a document that is not there: got %d %s", a.status, a.body)
		}
	})
}

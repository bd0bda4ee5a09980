package app_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sandbox"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/webhook"
)

// Issue 5: what happens to a connection reaches an application by its webhook, and
// /events tells of the same, with the same ids.
func TestConnectionChangesAreTold(t *testing.T) {
	t.Parallel()
	third := httptest.NewServer(sandbox.New(sandbox.Config{APIKey: secret.FromString(thirdKey), ClientID: thirdClient, ClientSecret: secret.FromString(thirdKey)}).Handler())
	t.Cleanup(third.Close)
	type told struct{ id, body string }
	arrived := make(chan told, 10)
	product := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		arrived <- told{r.Header.Get("Webhook-Id"), string(body)}
	}))
	t.Cleanup(product.Close)
	host := func(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "http://") }
	a := run(t, app.Config{OutboundAllow: []string{host(third), host(product)}})
	ctx := t.Context()
	owner := accounttest.Owner(t, a.People)
	env, org := owner.Organizations()[0].Environment, owner.Organizations()[0].Organization
	by := account.ByPerson(owner.Person).In(env)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := a.Webhooks.Create(ctx, by, webhook.Input{URL: product.URL, Events: []string{connection.ChangeConnected, connection.ChangeRevoked}})
	must(err)
	_, err = a.Providers.Put(ctx, account.System("test").In(env), provider.Input{YAML: []byte(sandbox.KeyRecord(third.URL))}, account.Agreement{})
	must(err)
	c, err := a.Credentials.AddKey(ctx, by, credential.Start{Environment: env, Organization: org, Provider: "sandbox_key"}, owner.User(),
		map[string]secret.Value{provider.FieldAPIKey: secret.FromString(thirdKey)}, account.Agreement{})
	must(err)
	_, err = a.Credentials.Disconnect(ctx, by, c.ID)
	must(err)
	var ids []string
	for range 2 {
		select {
		case got := <-arrived:
			ids = append(ids, got.id)
			if !strings.Contains(got.body, string(c.ID)) || strings.Contains(got.body, thirdKey) {
				t.Errorf("told %s", got.body)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("nothing was told within 20 s")
		}
	}
	_, token, err := a.People.IssueKey(ctx, account.NewKey{Environment: env, Name: "backend", Scopes: []string{account.ScopeAuditRead}})
	must(err)
	resp, body := get(t, plainClient(t), a.PublicURL().String()+"/events?events=connection.connected,connection.revoked", "", http.Header{"Authorization": {"Bearer " + string(token.Reveal())}})
	var events struct {
		Data []struct {
			ID, Event string
			Data      map[string]any
		}
	}
	if err := json.Unmarshal([]byte(body), &events); err != nil || resp.StatusCode != http.StatusOK || len(events.Data) != 2 {
		t.Fatalf("%s: %s", resp.Status, body)
	}
	for i, want := range []string{connection.ChangeConnected, connection.ChangeRevoked} {
		if e := events.Data[i]; e.Event != want || e.Data["connection_id"] != string(c.ID) || !slices.Contains(ids, e.ID) {
			t.Errorf("event %d is %+v, want %s with one of the ids %v", i, e, want, ids)
		}
	}
}

// Issue 6: that a person is asked reaches an application by its webhook, signed, with
// the address of the page and without the agent's own words.
func TestRequestsAreToldByWebhook(t *testing.T) {
	t.Parallel()
	third := httptest.NewServer(sandbox.New(sandbox.Config{APIKey: secret.FromString(thirdKey), ClientID: thirdClient, ClientSecret: secret.FromString(thirdKey)}).Handler())
	t.Cleanup(third.Close)
	type told struct {
		header http.Header
		body   []byte
	}
	arrived := make(chan told, 10)
	product := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		arrived <- told{r.Header.Clone(), body}
	}))
	t.Cleanup(product.Close)
	host := func(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "http://") }
	a := run(t, app.Config{OutboundAllow: []string{host(third), host(product)}})
	ctx := t.Context()
	owner := accounttest.Owner(t, a.People)
	env, org := owner.Organizations()[0].Environment, owner.Organizations()[0].Organization
	by := account.ByPerson(owner.Person).In(env)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, key, err := a.Webhooks.Create(ctx, by, webhook.Input{URL: product.URL, Events: []string{session.EventAsked}})
	must(err)
	_, err = a.Providers.Put(ctx, account.System("test").In(env), provider.Input{YAML: []byte(sandbox.KeyRecord(third.URL))}, account.Agreement{})
	must(err)
	_, err = a.Credentials.AddKey(ctx, by, credential.Start{Environment: env, Organization: org, Provider: "sandbox_key"}, owner.User(),
		map[string]secret.Value{provider.FieldAPIKey: secret.FromString(thirdKey)}, account.Agreement{})
	must(err)
	_, client, sec, err := a.Agents.Register(ctx, account.System("test").In(env), agent.NewAgent{Environment: env, Organization: org, Name: "Bot", Kind: agent.Delegated, Owner: owner.User()})
	must(err)
	caller, err := a.Agents.AuthenticateClient(ctx, agent.ClientAuth{ID: string(client), Secret: sec})
	must(err)
	tokens, err := a.Agents.ClientCredentials(ctx, caller, "")
	must(err)
	who, err := a.Agents.Authenticate(ctx, tokens.Access)
	must(err)
	asked, err := a.Sessions.Request(ctx, who, session.Ask{Providers: []string{"sandbox_key"}, Purpose: "Approve me at https://evil.example."}, "")
	must(err)
	select {
	case got := <-arrived:
		var event struct {
			Type string
			Data map[string]any
		}
		must(json.Unmarshal(got.body, &event))
		seconds, err := strconv.ParseInt(got.header.Get("Webhook-Timestamp"), 10, 64)
		must(err)
		want, err := webhook.Sign(key, got.header.Get("Webhook-Id"), time.Unix(seconds, 0), got.body)
		must(err)
		if want != got.header.Get("Webhook-Signature") {
			t.Errorf("signed %q, want %q", got.header.Get("Webhook-Signature"), want)
		}
		if event.Type != session.EventAsked || event.Data["approval_id"] != string(asked.Session.Approval) || event.Data["url"] != asked.ApprovalURL || event.Data["agent_label"] != "Bot" {
			t.Errorf("told %s", got.body)
		}
		if strings.Contains(string(got.body), "evil.example") {
			t.Errorf("the agent's own words are told: %s", got.body)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was told within 20 s")
	}
}

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
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sandbox"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/webhook"
)

// toldScene is a server with the sandbox's key provider, an owner, and an application that
// its webhooks reach.
type toldScene struct {
	*app.App
	owner   *accounttest.Human
	env     id.Environment
	org     id.Organization
	by      account.Actor
	product string // the application's address
	arrived chan told
}

// told is what an application was sent.
type told struct {
	header http.Header
	body   []byte
}

func newToldScene(t *testing.T) *toldScene {
	t.Helper()
	third := httptest.NewServer(sandbox.New(sandbox.Config{APIKey: secret.FromString(thirdKey), ClientID: thirdClient, ClientSecret: secret.FromString(thirdKey)}).Handler())
	t.Cleanup(third.Close)
	s := &toldScene{arrived: make(chan told, 10)}
	product := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.arrived <- told{r.Header.Clone(), body}
	}))
	t.Cleanup(product.Close)
	s.product = product.URL
	host := func(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "http://") }
	s.App = run(t, app.Config{OutboundAllow: []string{host(third), host(product)}})
	s.owner = accounttest.Owner(t, s.People)
	s.env, s.org = s.owner.Organizations()[0].Environment, s.owner.Organizations()[0].Organization
	s.by = account.ByPerson(s.owner.Person).In(s.env)
	_, err := s.Providers.Put(t.Context(), account.System("test").In(s.env), provider.Input{YAML: []byte(sandbox.KeyRecord(third.URL))}, account.Agreement{})
	must(t, err)
	return s
}

// connect stores the owner's key.
func (s *toldScene) connect(t *testing.T) connection.Connection {
	t.Helper()
	c, err := s.Credentials.AddKey(t.Context(), s.by, credential.Start{Environment: s.env, Organization: s.org, Provider: "sandbox_key"}, s.owner.User(),
		map[string]secret.Value{provider.FieldAPIKey: secret.FromString(thirdKey)}, account.Agreement{})
	must(t, err)
	return c
}

// next is what the application is sent next.
func (s *toldScene) next(t *testing.T) told {
	t.Helper()
	select {
	case got := <-s.arrived:
		return got
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was told within 20 s")
		return told{}
	}
}

// Issue 5: what happens to a connection reaches an application by its webhook, and
// /events tells of the same, with the same ids.
func TestConnectionChangesAreTold(t *testing.T) {
	t.Parallel()
	s := newToldScene(t)
	ctx := t.Context()
	_, _, err := s.Webhooks.Create(ctx, account.System("test").In(s.env), webhook.Input{URL: s.product, Events: []string{connection.ChangeConnected, connection.ChangeRevoked}}, account.Agreement{})
	must(t, err)
	c := s.connect(t)
	_, err = s.Credentials.Disconnect(ctx, s.by, c.ID)
	must(t, err)
	var ids []string
	for range 2 {
		got := s.next(t)
		ids = append(ids, got.header.Get("Webhook-Id"))
		if body := string(got.body); !strings.Contains(body, string(c.ID)) || strings.Contains(body, thirdKey) {
			t.Errorf("told %s", body)
		}
	}
	_, token, err := s.People.IssueKey(ctx, account.NewKey{Environment: s.env, Name: "backend", Scopes: []string{account.ScopeAuditRead}})
	must(t, err)
	resp, body := get(t, plainClient(t), s.PublicURL().String()+"/events?events=connection.connected,connection.revoked", "", http.Header{"Authorization": {"Bearer " + string(token.Reveal())}})
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
	s := newToldScene(t)
	ctx := t.Context()
	_, key, err := s.Webhooks.Create(ctx, account.System("test").In(s.env), webhook.Input{URL: s.product, Events: []string{session.EventAsked}}, account.Agreement{})
	must(t, err)
	s.connect(t)
	_, client, sec, err := s.Agents.Register(ctx, account.System("test").In(s.env), agent.NewAgent{Environment: s.env, Organization: s.org, Name: "Bot", Kind: agent.Delegated, Owner: s.owner.User()})
	must(t, err)
	caller, err := s.Agents.AuthenticateClient(ctx, agent.ClientAuth{ID: string(client), Secret: sec})
	must(t, err)
	tokens, err := s.Agents.ClientCredentials(ctx, caller, "")
	must(t, err)
	who, err := s.Agents.Authenticate(ctx, tokens.Access)
	must(t, err)
	asked, err := s.Sessions.Request(ctx, who, session.Ask{Providers: []string{"sandbox_key"}, Purpose: "Approve me at https://evil.example."}, "")
	must(t, err)
	got := s.next(t)
	var event struct {
		Type string
		Data map[string]any
	}
	must(t, json.Unmarshal(got.body, &event))
	seconds, err := strconv.ParseInt(got.header.Get("Webhook-Timestamp"), 10, 64)
	must(t, err)
	want, err := webhook.Sign(key, got.header.Get("Webhook-Id"), time.Unix(seconds, 0), got.body)
	must(t, err)
	if want != got.header.Get("Webhook-Signature") {
		t.Errorf("signed %q, want %q", got.header.Get("Webhook-Signature"), want)
	}
	if event.Type != session.EventAsked || event.Data["approval_id"] != string(asked.Session.Approval) || event.Data["url"] != asked.ApprovalURL || event.Data["agent_label"] != "Bot" {
		t.Errorf("told %s", got.body)
	}
	if strings.Contains(string(got.body), "evil.example") {
		t.Errorf("the agent's own words are told: %s", got.body)
	}
}

package api_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/api/apitest"
	"github.com/ambit-dev/ambit/internal/custody"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
	"github.com/ambit-dev/ambit/internal/webhook"
)

// Rule 4: for every operation that changes something it is decided whether a
// person's stored login is enough for it.
func TestEveryOperationIsDecided(t *testing.T) {
	t.Parallel()
	w := apitest.New(t, sqldbtest.Open(t, sqldb.SQLite), nil)
	list, seen := accounttest.Decided(t, "`([a-z][a-z-]*)`"), map[string]bool{}
	for _, op := range operations(t, w.URL) {
		seen[op.ID] = true
		heading := list[op.ID]
		if op.method != http.MethodGet && heading == "" {
			t.Errorf("%s is new: decide in docs/decisions/0006-raising-authority.md whether it takes a person's proof", op.ID)
		}
		// Here nothing is disabled, and no account is at an MCP server.
		elsewhere := op.ID == "enable-agent" || op.ID == "enable-user" || op.ID == "take-tools"
		if login := routes[op.ID].login; heading == "Takes a proof" && !elsewhere && login != http.StatusForbidden {
			t.Errorf("%s takes a proof, and a stored login gets %d", op.ID, login)
		}
	}
	for name := range list {
		if !seen[name] {
			t.Errorf("the decision has %s, and there is no such operation", name)
		}
	}
}

// A9, S6: a stored login raises nothing, and is sent to the page that asks for
// exactly what was wanted; what it lowers is done at once. Applications go on.
func TestStoredLoginRaisesNothing(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := apitest.New(t, db, nil)
		login := w.Login(t, w.Owner)
		_, key := w.Key(t, w.Env, "", account.Scopes()...)
		var none account.Agreement
		ctx, org := t.Context(), string(w.Org)
		member, gone, other := w.User(t, "member"), w.User(t, "gone"), w.User(t, "other")
		if err := w.People.DisableUser(ctx, w.System(), gone, none); err != nil {
			t.Fatal(err)
		}
		if err := w.People.SetRole(ctx, w.System(), w.Org, other, account.RoleOwner, none); err != nil {
			t.Fatal(err)
		}
		tenant, err := w.People.CreateOrganization(ctx, w.System(), w.Env, "Customer", "")
		if err != nil {
			t.Fatal(err)
		}
		a, _ := w.Agent(t, "reporter")
		off, _ := w.Agent(t, "off")
		if _, err := w.Agents.Disable(ctx, w.System(), off); err != nil {
			t.Fatal(err)
		}
		hook, _, err := w.Webhooks.Create(ctx, w.System().In(w.Env), webhook.Input{Organization: w.Org, URL: w.Sandbox + "/hook"}, none)
		if err != nil {
			t.Fatal(err)
		}
		send := func(token, method, path string, body any) response {
			q := request{method: method, url: w.URL + path, token: token}
			if body != nil {
				q.body = quote(body)
			}
			return ask(t, q)
		}
		ceiling := func(effects ...string) map[string]any {
			x, err := w.Agents.Lookup(ctx, w.Env, a)
			if err != nil {
				t.Fatal(err)
			}
			return map[string]any{"version": x.Version, "ceiling": map[string]any{"providers": []string{"sandbox_key"}, "effects": effects}}
		}
		if res := send(login, "PUT", "/v1/agents/"+string(a)+"/ceiling", ceiling("read")); res.status != http.StatusOK {
			t.Fatalf("narrowing: %d %s", res.status, res.body)
		}
		for _, x := range []struct {
			method, path string
			body         any
			page         string
			query        url.Values
		}{
			{"PUT", "/v1/organizations/" + org + "/members/" + string(member), map[string]any{"role": "admin"}, "/ui/organization/members/" + string(member) + "/role", url.Values{"org": {org}, "role": {"admin"}}},
			{"PUT", "/v1/organizations/" + string(tenant.ID) + "/members/" + string(member), map[string]any{"role": "auditor"}, "/ui/organization/members/" + string(member) + "/role", url.Values{"org": {string(tenant.ID)}, "role": {"auditor"}}},
			{"PUT", "/v1/organizations/" + org + "/members/" + string(other), map[string]any{"role": "member"}, "/ui/organization/members/" + string(other) + "/role", url.Values{"org": {org}, "role": {"member"}}},
			{"DELETE", "/v1/organizations/" + org + "/members/" + string(other), nil, "/ui/organization/members/" + string(other) + "/remove", url.Values{"org": {org}}},
			{"POST", "/v1/users/" + string(other) + "/disable", nil, "/ui/users/" + string(other) + "/disable", url.Values{}},
			{"POST", "/v1/users/" + string(gone) + "/enable", nil, "/ui/users/" + string(gone) + "/enable", url.Values{}},
			{"POST", "/v1/users", map[string]any{"name": "Ada & Co", "email": "Ada@example.com", "organization_id": org, "role": "approver"}, "/ui/organization/members/new",
				url.Values{"org": {org}, "name": {"Ada & Co"}, "email": {"ada@example.com"}, "role": {"approver"}}},
			{"POST", "/v1/organizations/" + string(tenant.ID) + "/first-owner", map[string]any{"name": "Boss", "email": "boss@example.com"}, "/ui/organization/members/new",
				url.Values{"org": {string(tenant.ID)}, "name": {"Boss"}, "email": {"boss@example.com"}, "role": {"owner"}}},
			{"POST", "/v1/environments", map[string]any{"name": "mine"}, "/ui/environments/new", url.Values{"name": {"mine"}}},
			{"POST", "/v1/agents/" + string(off) + "/enable", nil, "/ui/agents/" + string(off) + "/enable", url.Values{"org": {org}}},
			{"POST", "/v1/webhooks", map[string]any{"organization_id": org, "url": w.Sandbox + "/hook", "description": "Ops & co", "events": []string{"connection.revoked"}}, "/ui/webhooks/new",
				url.Values{"org": {org}, "url": {w.Sandbox + "/hook"}, "description": {"Ops & co"}, "event": {"connection.revoked"}}},
			{"POST", "/v1/webhooks", map[string]any{"form": "slack", "url": w.Sandbox + "/slack-canary"}, "/ui/webhooks/new", url.Values{"form": {"slack"}, "reach": {"environment"}}},
			{"PUT", "/v1/webhooks/" + string(hook.ID), map[string]any{"url": w.Sandbox + "/thief", "events": []string{"connection.revoked"}}, "/ui/webhooks/" + string(hook.ID) + "/edit",
				url.Values{"org": {org}, "url": {w.Sandbox + "/thief"}, "event": {"connection.revoked"}}},
			{"POST", "/v1/webhooks/" + string(hook.ID) + "/rotate", map[string]any{"overlap_seconds": 3600}, "/ui/webhooks/" + string(hook.ID) + "/rotate", url.Values{"org": {org}, "overlap": {"1h0m0s"}}},
			{"PUT", "/v1/agents/" + string(a) + "/ceiling", ceiling("read", "write"), "/ui/agents/" + string(a) + "/ceiling",
				url.Values{"org": {org}, "version": {"2"}, "providers": {"sandbox_key"}, "effect": {"read", "write"}}},
		} {
			before := w.Actions(t, "")
			res := send(login, x.method, x.path, x.body)
			at, err := url.Parse(res.Error["url"])
			if err != nil || res.status != http.StatusForbidden || res.code() != "browser_required" {
				t.Errorf("%s %s: got %d %s", x.method, x.path, res.status, res.body)
				continue
			}
			if at.Path != x.page || at.Query().Encode() != x.query.Encode() || !strings.HasPrefix(res.Error["url"], "http://localhost:7420/ui/") || !strings.Contains(res.Error["hint"], res.Error["url"]) {
				t.Errorf("%s %s: is sent to %s, want %s?%s", x.method, x.path, res.Error["url"], x.page, x.query.Encode())
			}
			if after := w.Actions(t, ""); len(after) != len(before) {
				t.Errorf("%s %s did something: %v", x.method, x.path, after[0].Action)
			}
			if res := send(key, x.method, x.path, x.body); res.status >= 400 && res.code() != "person_required" {
				t.Errorf("%s %s by an application: got %d %s", x.method, x.path, res.status, res.body)
			}
		}

		// What was said of a platform is on the page, also what cannot be yet: it must not
		// become an agent with a secret there.
		res := send(login, "POST", "/v1/agents", map[string]any{"organization_id": org, "name": "pod", "kind": "autonomous", "owner_id": string(member), "workload": map[string]any{"claims": map[string]string{"namespace_id": "7"}}})
		if at, err := url.Parse(res.Error["url"]); err != nil || res.code() != "browser_required" || at.Query().Get("claims") != "namespace_id=7" {
			t.Errorf("an agent of a platform: %d %s", res.status, res.body)
		}
		// A record is handed in, and counts for nothing until its author agrees.
		s := &scene{t: t, w: w}
		res = send(login, "PUT", "/v1/providers/weather", map[string]any{"yaml": s.record("weather"), "if_version": 0})
		if res.code() != "browser_required" || !strings.HasPrefix(res.Error["url"], "http://localhost:7420/ui/drafts/draft_") {
			t.Errorf("a record: %d %s", res.status, res.body)
		}
		if res := send(login, "GET", "/v1/providers/weather", nil); res.status != http.StatusNotFound {
			t.Errorf("the record counts already: %d", res.status)
		}
		var made struct{ Link string }
		fresh, err := w.People.CreateOrganization(ctx, w.System(), w.Env, "Another", "")
		if err != nil {
			t.Fatal(err)
		}
		res = send(key, "POST", "/v1/organizations/"+string(fresh.ID)+"/first-owner", map[string]any{"name": "Boss", "email": "first@example.com"})
		if err := json.Unmarshal(res.body, &made); err != nil || res.status != http.StatusCreated || !strings.HasPrefix(made.Link, "http://localhost:7420/ui/enroll#amb_link_") {
			t.Errorf("a first owner: %d, %v", res.status, err)
		}
	})
}

// Issue 4, "CLI and UI": a command line that binds a root key, takes one out or destroys
// keys is sent to the page that asks for exactly that, filled in, and not to API keys.
func TestStoredLoginIsSentToKeys(t *testing.T) {
	t.Parallel()
	w := apitest.New(t, sqldbtest.Open(t, sqldb.SQLite), nil)
	login, ctx, org := w.Login(t, w.Owner), t.Context(), string(w.Org)
	member := string(w.User(t, "member"))
	bound, err := w.Custody.Bind(ctx, w.System().In(w.Env), custody.NewBinding{Organization: w.Org, User: id.User(member), URI: w.SpareRoot, Mode: vault.Required}, account.Agreement{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Vault.Seal(ctx, vault.Place{Environment: w.Env, Organization: w.Org, User: id.User(member), Kind: "credential", Object: "1", Version: 1}, secret.FromString("x")); err != nil {
		t.Fatal(err)
	}
	keys, _, err := w.Custody.Keys(ctx, w.System().In(w.Env), w.Org, id.User(member), "", 1)
	if err != nil || len(keys) != 1 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	env := string(w.Env)
	for _, x := range []struct {
		method, path string
		body         any
		page         string
		query        url.Values
	}{
		{"POST", "/v1/keys/bindings", map[string]any{"organization_id": org, "uri": w.SpareRoot, "mode": "preferred"}, "/ui/keys/bind", url.Values{"org": {org}, "reach": {"organization"}, "uri": {w.SpareRoot}, "mode": {"preferred"}}},
		{"POST", "/v1/keys/bindings", map[string]any{"organization_id": org, "user_id": member, "uri": w.SpareRoot}, "/ui/keys/bind", url.Values{"org": {org}, "reach": {"user"}, "user_id": {member}, "uri": {w.SpareRoot}, "mode": {"required"}}},
		{"POST", "/v1/keys/bindings", map[string]any{"uri": w.SpareRoot}, "/ui/keys/bind", url.Values{"reach": {"environment"}, "environment": {env}, "uri": {w.SpareRoot}, "mode": {"required"}}},
		{"DELETE", "/v1/keys/bindings/" + string(bound.ID), nil, "/ui/bindings/" + string(bound.ID) + "/end", url.Values{"org": {org}}},
		{"POST", "/v1/keys/shred", map[string]any{"organization_id": org}, "/ui/keys/shred", url.Values{"org": {org}, "reach": {"organization"}}},
		{"POST", "/v1/keys/shred", map[string]any{"user_id": member}, "/ui/keys/shred", url.Values{"reach": {"environment"}, "environment": {env}, "user_id": {member}}},
		{"POST", "/v1/keys/shred", map[string]any{"organization_id": org, "key_id": string(keys[0].ID)}, "/ui/keys/shred", url.Values{"org": {org}, "reach": {"organization"}, "key": {string(keys[0].ID)}}},
	} {
		q := request{method: x.method, url: w.URL + x.path, token: login}
		if x.body != nil {
			q.body = quote(x.body)
		}
		res := ask(t, q)
		at, err := url.Parse(res.Error["url"])
		if err != nil || res.code() != "browser_required" {
			t.Errorf("%s %s: got %d %s", x.method, x.path, res.status, res.body)
			continue
		}
		if at.Path != x.page || at.Query().Encode() != x.query.Encode() {
			t.Errorf("%s %v: is sent to %s, want %s?%s", x.path, x.body, res.Error["url"], x.page, x.query.Encode())
		}
	}
}

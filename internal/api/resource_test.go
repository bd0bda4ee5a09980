package api_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/api"
	"github.com/ambit-dev/ambit/internal/api/apitest"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
)

func field(t testing.TB, r response, name string) string {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(r.body, &v); err != nil {
		t.Fatalf("%v: %s", err, r.body)
	}
	s, _ := v[name].(string)
	return s
}

// Every list gives each thing once, in pages of any size.
func TestPages(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := apitest.New(t, db, nil)
		s := &scene{t: t, w: w}
		login := w.Login(t, w.Owner)
		_, key := w.Key(t, w.Env, "", account.Scopes()...)
		for i := range 5 {
			w.Environment(t, s.name("page"))
			ask(t, request{method: "POST", url: w.URL + "/v1/organizations", token: login, body: quote(map[string]any{"name": s.name("page")})})
			user := w.User(t, s.name("page"))
			w.Connection(t, user)
			w.Request(t, s.name("page"))
			w.Secret(t, s.name("page"), "secret-canary")
			w.Key(t, w.Env, "", account.ScopeAuditRead)
			if i < 3 {
				s.provider()
			}
		}
		for path, c := range map[string]struct {
			token string
			least int
		}{
			"/v1/environments": {login, 6}, "/v1/organizations": {key, 7}, "/v1/organizations/" + string(w.Org) + "/members": {key, 6}, "/v1/users": {key, 6},
			"/v1/agents": {key, 5}, "/v1/providers": {key, 5}, "/v1/provider-templates": {key, 2}, "/v1/connections": {key, 6}, "/v1/sessions": {key, 5},
			"/v1/approvals": {login, 5}, "/v1/audit": {key, 40}, "/v1/keys": {login, 6}, "/v1/secrets": {key, 5},
		} {
			whole := ids(t, w, path+"?limit=200", c.token, 1)
			if len(whole) < c.least {
				t.Errorf("%s gives %d things, want at least %d", path, len(whole), c.least)
			}
			for _, size := range []int{1, 2, 20, len(whole), len(whole) + 1} {
				if size > 200 || size < 20 && len(whole) > 20 {
					continue
				}
				// What is listed is itself on record, so the audit grows.
				got := ids(t, w, fmt.Sprintf("%s?limit=%d", path, size), c.token, 1000)
				if strings.HasSuffix(path, "/audit") {
					got = slices.DeleteFunc(got, func(s string) bool { return !slices.Contains(whole, s) })
				}
				if strings.HasSuffix(path, "/audit") && len(got) == len(whole) || slices.Equal(got, whole) {
					continue
				}
				t.Errorf("%s in pages of %d: got %d things, want the same %d in the same order", path, size, len(got), len(whole))
			}
		}
		// A page of exactly the highest size has a next that ends.
		if got := ids(t, w, "/v1/agents?limit=5", key, 10); len(got) != 5 {
			t.Errorf("agents in one page: got %d, want 5", len(got))
		}
	})
}

// ids reads a list to its end.
func ids(t testing.TB, w *apitest.World, path, token string, pages int) []string {
	t.Helper()
	var out []string
	after := ""
	for range pages {
		u := w.URL + path
		if after != "" {
			u += "&after=" + after
		}
		res := ask(t, request{method: "GET", url: u, token: token})
		var p struct {
			Data []struct{ ID string }
			Next string
		}
		if err := json.Unmarshal(res.body, &p); err != nil || res.status != http.StatusOK || p.Data == nil {
			t.Fatalf("%s: %d %s", u, res.status, res.body)
		}
		for _, d := range p.Data {
			if slices.Contains(out, d.ID) {
				t.Errorf("%s comes twice in %s", d.ID, path)
			}
			out = append(out, d.ID)
		}
		if after = p.Next; after == "" {
			break
		}
	}
	return out
}

// Nothing said is not everything: an empty request of an organization's key destroyed
// all keys of the organization.
func TestShreddingNeedsAnAim(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := apitest.New(t, db, nil)
		w.Connection(t, "")
		for _, org := range []id.Organization{"", w.Org} {
			_, key := w.Key(t, w.Env, org, account.ScopeKeysRead, account.ScopeKeysWrite)
			if res := ask(t, request{method: "POST", url: w.URL + "/v1/keys/shred", token: key, body: "{}"}); res.status != http.StatusBadRequest || !bytes.Contains(res.body, []byte("aim_missing")) {
				t.Errorf("a key of %q: %d %s", org, res.status, res.body)
			}
		}
		_, key := w.Key(t, w.Env, "", account.ScopeKeysRead)
		if res := ask(t, request{method: "GET", url: w.URL + "/v1/keys/contexts", token: key}); res.status != http.StatusOK || bytes.Contains(res.body, []byte(`"shredded_at":"2`)) {
			t.Errorf("the keys: %d %s", res.status, res.body)
		}
	})
}

// Rule 2: a credential leaves for an application only, when the operator allows
// it, and on record; its refresh token never does.
func TestVend(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		on := apitest.New(t, db, func(c *api.Config) { c.AllowVend = true })
		conn := on.Connection(t, "")
		url := on.URL + "/v1/connections/" + string(conn) + "/credential"
		keyID, key := on.Key(t, on.Env, "", account.ScopeConnectionsVend)
		res := ask(t, request{method: "POST", url: url, token: key})
		var got struct {
			Kind    string
			Values  map[string]string
			Version int64
		}
		if err := json.Unmarshal(res.body, &got); err != nil || res.status != http.StatusOK || got.Kind != "api_key" || got.Values["api_key"] != apitest.SandboxKey || len(got.Values) != 1 {
			t.Fatalf("got %d %s", res.status, res.body)
		}
		if res.header.Get("Cache-Control") != "no-store" {
			t.Error("a vended credential may be stored on its way")
		}
		all := on.Actions(t, "credential.vended")
		if len(all) != 1 || all[0].Actor.ID != string(keyID) || all[0].Decision != "allow" || all[0].Connection != conn || all[0].Address == "" {
			t.Errorf("the audit holds %+v", all)
		}
		signedIn := ask(t, request{method: "POST", url: on.URL + "/v1/connections/" + string(on.Authorized(t)) + "/credential", token: key})
		got.Values = nil
		if err := json.Unmarshal(signedIn.body, &got); err != nil || got.Kind != "oauth2" || got.Values["access_token"] == "" || len(got.Values) != 1 {
			t.Errorf("of an account that was signed in to: got %d %s", signedIn.status, signedIn.body)
		}
		// Refusals are on record too.
		_, tenant := on.Key(t, on.Env, on.Tenant, account.ScopeConnectionsVend)
		if res := ask(t, request{method: "POST", url: url, token: tenant}); res.status != http.StatusNotFound {
			t.Errorf("another organization's key: got %d %s", res.status, res.body)
		}
		if all := on.Actions(t, "credential.vended"); len(all) != 3 || all[0].Decision != "deny" || all[0].Code != "not_found" {
			t.Errorf("the audit holds %+v", all)
		}
		_, whole := on.Key(t, on.Env, "", account.Scopes()...)
		ask(t, request{method: "DELETE", url: on.URL + "/v1/connections/" + string(conn), token: whole})
		if res := ask(t, request{method: "POST", url: url, token: key}); res.status != http.StatusConflict || res.code() != "disconnected" {
			t.Errorf("after disconnecting: got %d %s", res.status, res.body)
		}
	})
}

func TestVendIsOffByDefault(t *testing.T) {
	t.Parallel()
	w := apitest.New(t, sqldbtest.Open(t, sqldb.SQLite), nil)
	_, key := w.Key(t, w.Env, "", account.Scopes()...)
	res := ask(t, request{method: "POST", url: w.URL + "/v1/connections/" + string(w.Connection(t, "")) + "/credential", token: key})
	if res.status != http.StatusForbidden || res.code() != "vend_disabled" || strings.Contains(string(res.body), apitest.SandboxKey) {
		t.Errorf("got %d %s", res.status, res.body)
	}
}

// A command line signs in as a person only after that person confirmed it, and
// gets the token once.
func TestCLILogin(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := apitest.New(t, db, nil)
		began := ask(t, request{method: "POST", url: w.URL + "/v1/cli/login", body: "{}"})
		code, poll := field(t, began, "user_code"), field(t, began, "poll")
		if began.status != http.StatusOK || len(code) != 9 || field(t, began, "url") != "http://localhost:7420/ui/cli" {
			t.Fatalf("got %d %s", began.status, began.body)
		}
		fetch := func() response {
			return ask(t, request{method: "POST", url: w.URL + "/v1/cli/token", body: quote(map[string]any{"poll": poll})})
		}
		if res := fetch(); res.status != http.StatusConflict || res.code() != "authorization_pending" || res.header.Get("Retry-After") == "" {
			t.Errorf("before: got %d %s %v", res.status, res.body, res.header)
		}
		h := w.Owner
		if err := w.People.ConfirmCLI(t.Context(), h.Person, code, h.Proof(t, w.People.CLIDigest(h.Person, code))); err != nil {
			t.Fatal(err)
		}
		token := field(t, fetch(), "token")
		if res := fetch(); res.status != http.StatusGone {
			t.Errorf("a second time: got %d %s, want 410", res.status, res.body)
		}
		me := ask(t, request{method: "GET", url: w.URL + "/v1/whoami", token: token})
		if me.status != http.StatusOK || field(t, me, "id") != string(h.User()) || field(t, me, "kind") != "user" {
			t.Errorf("whoami: got %d %s", me.status, me.body)
		}
		if res := ask(t, request{method: "POST", url: w.URL + "/v1/cli/logout", token: token, body: "{}"}); res.status != http.StatusNoContent {
			t.Errorf("logout: got %d %s", res.status, res.body)
		}
		if res := ask(t, request{method: "GET", url: w.URL + "/v1/whoami", token: token}); res.status != http.StatusUnauthorized {
			t.Errorf("after logout: got %d %s, want 401", res.status, res.body)
		}
	})
}

// The stream shows what happens, shows life, and ends with its key.
func TestAuditStream(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := apitest.New(t, db, func(c *api.Config) { c.Heartbeat = 100 * time.Millisecond })
		keyID, key := w.Key(t, w.Env, w.Org, account.ScopeAuditRead)
		// A bug: what happened right after the answer had begun could be passed over,
		// and this waited for it without an end.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", w.URL+"/v1/audit/stream?action=secret.*", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+key)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/x-ndjson" {
			t.Fatalf("got %d %v", resp.StatusCode, resp.Header)
		}
		made := w.Secret(t, "watched", "secret-canary")
		lines := bufio.NewScanner(resp.Body)
		beats, seen := 0, false
		for lines.Scan() {
			line := lines.Text()
			switch {
			case line == "":
				beats++
			case strings.HasPrefix(line, `{"error"`):
				if !seen || beats == 0 || !strings.Contains(line, "invalid_api_key") {
					t.Errorf("after %d signs of life and seen %v it ended with %s", beats, seen, line)
				}
				return
			default:
				var e struct{ Action, Object, Time string }
				if err := json.Unmarshal([]byte(line), &e); err != nil || e.Action != "secret.created" || e.Object != string(made) {
					t.Fatalf("%v: %s", err, line)
				}
				seen = true
				if err := w.People.RevokeKey(t.Context(), w.System(), keyID); err != nil {
					t.Fatal(err)
				}
			}
		}
		t.Errorf("the stream ended by itself: %v", lines.Err())
	})
}

// Members of a tenant see what is theirs to see, and nothing of others.
func TestMemberSeesTheirOwn(t *testing.T) {
	t.Parallel()
	w := apitest.New(t, sqldbtest.Open(t, sqldb.SQLite), nil)
	member := accounttest.Join(t, w.People, w.Env, w.Tenant, account.RoleMember, "member@example.com")
	colleague := accounttest.Join(t, w.People, w.Env, w.Tenant, account.RoleAdmin, "admin@example.com")
	login := w.Login(t, member)
	theirs, colleagues := w.ConnectionIn(t, w.Tenant, member.User()), w.ConnectionIn(t, w.Tenant, colleague.User())
	elsewhere := w.Connection(t, "")
	tenant, operator := string(w.Tenant), string(w.Org)
	for path, want := range map[string]int{
		"/v1/connections/" + string(theirs): 200, "/v1/connections/" + string(colleagues): 404, "/v1/connections/" + string(elsewhere): 404,
		"/v1/users/" + string(member.User()): 200, "/v1/users/" + string(colleague.User()): 200, "/v1/users/" + string(w.Owner.User()): 404, "/v1/users/" + string(id.NewUser()): 404,
		"/v1/users": 403, "/v1/audit": 403, "/v1/audit?organization_id=" + tenant: 403, "/v1/audit?organization_id=" + operator: 404,
		"/v1/secrets": 403, "/v1/secrets?organization_id=" + tenant: 403, "/v1/secrets?organization_id=" + operator: 404,
		"/v1/keys": 403, "/v1/keys?organization_id=" + tenant: 403, "/v1/keys?organization_id=" + operator: 404,
		"/v1/organizations/" + tenant: 200, "/v1/organizations/" + operator: 404, "/v1/organizations/" + operator + "/members": 404,
		"/v1/sessions?organization_id=" + tenant: 200, "/v1/sessions?organization_id=" + operator: 404, "/v1/approvals": 200, "/v1/agents": 200,
	} {
		if res := ask(t, request{method: "GET", url: w.URL + path, token: login}); res.status != want {
			t.Errorf("%s: got %d %s, want %d", path, res.status, res.body, want)
		}
	}
	if res := ask(t, request{method: "POST", url: w.URL + "/v1/audit/verify", token: login}); res.status != http.StatusForbidden {
		t.Errorf("verify: got %d %s, want 403", res.status, res.body)
	}
	// A person connects their own account, and starts a sign-in in the browser.
	connect := func(body map[string]any) response {
		return ask(t, request{method: "POST", url: w.URL + "/v1/connections", token: login, body: quote(body)})
	}
	if res := connect(map[string]any{"organization_id": w.Tenant, "provider": "sandbox_key", "owner_id": "me", "fields": map[string]string{"api_key": apitest.SandboxKey}}); res.status != http.StatusCreated {
		t.Errorf("own account: got %d %s", res.status, res.body)
	}
	if res := connect(map[string]any{"organization_id": w.Tenant, "provider": "sandbox_key", "fields": map[string]string{"api_key": apitest.SandboxKey}}); res.status != http.StatusForbidden {
		t.Errorf("the organization's account: got %d %s", res.status, res.body)
	}
	if res := connect(map[string]any{"organization_id": w.Tenant, "provider": "sandbox_key", "owner_id": colleague.User(), "fields": map[string]string{"api_key": apitest.SandboxKey}}); res.status != http.StatusNotFound {
		t.Errorf("somebody else's account: got %d %s", res.status, res.body)
	}
	res := connect(map[string]any{"organization_id": w.Tenant, "provider": "sandbox", "owner_id": "me"})
	if want := "http://localhost:7420/ui/connections/new?org=" + string(w.Tenant) + "&provider=sandbox"; res.status != http.StatusAccepted || field(t, res, "connect_url") != want {
		t.Errorf("sign-in at the provider: got %d %s", res.status, res.body)
	}
	if res := connect(map[string]any{"organization_id": w.Tenant, "provider": "sandbox_key", "owner_id": "me", "fields": map[string]string{"api_key": "wrong-key-canary"}}); res.status < 400 || strings.Contains(string(res.body), "canary") {
		t.Errorf("a wrong key: got %d %s", res.status, res.body)
	}
	if log := w.Log.String(); strings.Contains(log, "canary") {
		t.Errorf("the log holds a secret:\n%s", log)
	}
}

// What cannot be used for want of a credential that works names the page on
// which a person mends it (issue 2): in lists, in refusals, and on demand.
func TestConnectionNamesThePage(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := apitest.New(t, db, func(c *api.Config) { c.AllowVend = true })
		conn, fine := w.Authorized(t), w.Connection(t, "")
		_, key := w.Key(t, w.Env, "", account.Scopes()...)
		at := w.URL + "/v1/connections/" + string(conn)
		page := "http://localhost:7420/ui/connections/new?reconnect=" + string(conn)
		if res := ask(t, request{method: "GET", url: at, token: key}); strings.Contains(string(res.body), "connect_url") {
			t.Errorf("an account that works names the page: %s", res.body)
		}
		if err := db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
			_, err := tx.ExecContext(ctx, `update connection set state = 'needs_reauthorization' where id = $1`, conn)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if res := ask(t, request{method: "GET", url: at, token: key}); field(t, res, "connect_url") != page {
			t.Errorf("read: got %s, want %s", res.body, page)
		}
		if res := ask(t, request{method: "GET", url: w.URL + "/v1/connections?state=needs_reauthorization", token: key}); !strings.Contains(string(res.body), `"connect_url":"`+page+`"`) {
			t.Errorf("listed: got %s", res.body)
		}
		if res := ask(t, request{method: "POST", url: at + "/credential", token: key}); res.code() != "reconnect" || !strings.Contains(string(res.body), `"connect_url":"`+page+`"`) {
			t.Errorf("vended: got %d %s", res.status, res.body)
		}
		connect := func(body map[string]any) response {
			body["organization_id"], body["provider"] = w.Org, "sandbox"
			return ask(t, request{method: "POST", url: w.URL + "/v1/connections", token: key, body: quote(body)})
		}
		if res := connect(map[string]any{"reconnect_id": conn}); res.status != http.StatusAccepted || field(t, res, "connect_url") != page {
			t.Errorf("to be renewed: got %d %s", res.status, res.body)
		}
		for what, other := range map[string]any{"of another provider": fine, "that does not exist": id.NewConnection(), "no id": "x"} {
			if res := connect(map[string]any{"reconnect_id": other}); res.status < 400 || strings.Contains(string(res.body), "/ui/") {
				t.Errorf("a connection %s: got %d %s", what, res.status, res.body)
			}
		}
		ask(t, request{method: "DELETE", url: at, token: key})
		if res := ask(t, request{method: "POST", url: at + "/credential", token: key}); res.code() != "disconnected" || !strings.Contains(string(res.body), page) {
			t.Errorf("after disconnecting: got %d %s", res.status, res.body)
		}
	})
}

// A request that is decided shows what the person told the agent, and who and
// when it was (issue 2).
func TestDecidedRequestShowsItsWords(t *testing.T) {
	t.Parallel()
	w := apitest.New(t, sqldbtest.Open(t, sqldb.SQLite), nil)
	ses := w.Request(t, "worker")
	login := w.Login(t, w.Owner)
	read := func() response {
		return ask(t, request{method: "GET", url: w.URL + "/v1/approvals/" + string(ses.Approval), token: login})
	}
	_, key := w.Key(t, w.Env, "", account.ScopeSessionsRead)
	asked := func() string {
		return field(t, ask(t, request{method: "GET", url: w.URL + "/v1/sessions/" + string(ses.ID), token: key}), "approval_url")
	}
	if got := asked(); got != "http://localhost:7420/ui/approvals/"+string(ses.Approval) {
		t.Errorf("the pending session is decided at %q", got)
	}
	if res := read(); field(t, res, "state") != "pending" || field(t, res, "decided_at") != "" || field(t, res, "note") != "" {
		t.Errorf("before the decision: %s", res.body)
	}
	if err := w.Sessions.Deny(t.Context(), w.Owner.Person, ses.Approval, "Not today."); err != nil {
		t.Fatal(err)
	}
	if res := read(); field(t, res, "state") != "denied" || field(t, res, "note") != "Not today." || field(t, res, "decided_by") != string(w.Owner.User()) || field(t, res, "decided_at") == "" {
		t.Errorf("after it: %s", res.body)
	}
	if got := asked(); got != "" {
		t.Errorf("the denied session is decided at %q", got)
	}
}

// A revocation through the API ends the session for good.
func TestRevocation(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := apitest.New(t, db, nil)
		_, key := w.Key(t, w.Env, "", account.ScopeSessionsRevoke, account.ScopeSessionsRead)
		ses := w.Request(t, "worker")
		w.Approve(t, ses.Approval)
		revoke := func(body map[string]any) response {
			return ask(t, request{method: "POST", url: w.URL + "/v1/revocations", token: key, body: quote(body)})
		}
		if res := revoke(map[string]any{"organization_id": w.Tenant}); res.status != 200 || strings.Contains(string(res.body), "ses_") {
			t.Errorf("another organization: got %d %s", res.status, res.body)
		}
		if res := revoke(map[string]any{}); res.status != http.StatusBadRequest {
			t.Errorf("no aim: got %d %s", res.status, res.body)
		}
		if res := revoke(map[string]any{"agent_id": ses.Agent, "session_id": ses.ID}); res.status != http.StatusBadRequest {
			t.Errorf("two aims: got %d %s", res.status, res.body)
		}
		if res := revoke(map[string]any{"provider": "sandbox_key", "organization_id": w.Org}); res.status != 200 || !strings.Contains(string(res.body), string(ses.ID)) {
			t.Errorf("a provider: got %d %s", res.status, res.body)
		}
		res := ask(t, request{method: "GET", url: w.URL + "/v1/sessions/" + string(ses.ID), token: key})
		if field(t, res, "state") != "ended" || field(t, res, "reason") != "revoked" {
			t.Errorf("after: %s", res.body)
		}
	})
}

// Issue 4: what nobody reads, connections use: an application connects an account with
// a write-only secret of the organization, by name, and never holds its value.
func TestConnectWithASecret(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := apitest.New(t, db, nil)
		_, key := w.Key(t, w.Env, "", account.Scopes()...)
		_, blind := w.Key(t, w.Env, "", account.ScopeConnectionsWrite)
		store := func(name, org string) {
			body := map[string]any{"name": name, "value": apitest.SandboxKey, "write_only": true}
			if org != "" {
				body["key_context"] = map[string]string{"organization_id": org}
			}
			if res := ask(t, request{method: "POST", url: w.URL + "/v1/secrets", token: key, body: quote(body)}); res.status != http.StatusCreated {
				t.Fatalf("store: %d %s", res.status, res.body)
			}
		}
		store("tracker key", string(w.Org))
		store("of the environment", "")
		connect := func(token string, more map[string]any) response {
			body := map[string]any{"organization_id": w.Org, "provider": "sandbox_key"}
			for k, v := range more {
				body[k] = v
			}
			return ask(t, request{method: "POST", url: w.URL + "/v1/connections", token: token, body: quote(body)})
		}
		part := func(name string) map[string]any { return map[string]any{"secrets": map[string]string{"api_key": name}} }
		if res := connect(key, part(" tracker key")); res.status != http.StatusCreated || bytes.Contains(res.body, []byte(apitest.SandboxKey)) {
			t.Errorf("by name: %d %s", res.status, res.body)
		}
		for what, x := range map[string]struct {
			res    response
			status int
		}{
			"another organization's": {connect(key, part("of the environment")), http.StatusNotFound}, "none": {connect(key, part("nothing")), http.StatusNotFound},
			"without the scope": {connect(blind, part("tracker key")), http.StatusForbidden}, "by a person": {connect(w.Login(t, w.Owner), part("tracker key")), http.StatusForbidden},
			"twice": {connect(key, map[string]any{"secrets": map[string]string{"api_key": "tracker key"}, "fields": map[string]string{"api_key": "x"}}), http.StatusBadRequest},
		} {
			if x.res.status != x.status || bytes.Contains(x.res.body, []byte(apitest.SandboxKey)) {
				t.Errorf("%s: got %d %s, want %d", what, x.res.status, x.res.body, x.status)
			}
		}
		// A key for some secrets only reads none of what a source holds.
		_, some, err := w.People.IssueKey(t.Context(), account.NewKey{Environment: w.Env, Name: "some", Scopes: account.Scopes(), Secrets: []vault.Rule{{Verbs: vault.Verbs(), Prefix: "ci/"}}})
		if err != nil {
			t.Fatal(err)
		}
		if res := connect(string(some.Reveal()), map[string]any{"sources": map[string]string{"api_key": "corp/payments#key"}}); res.status != http.StatusForbidden || res.code() != "secret_rules" {
			t.Errorf("a source's place by a key for some secrets: got %d %s", res.status, res.body)
		}
		used := w.Actions(t, "secret.used")
		if len(used) != 4 || used[len(used)-1].Provider != "sandbox_key" || used[len(used)-1].Decision != "allow" || used[len(used)-1].Detail["name"] != "tracker key" {
			t.Errorf("on record: %+v", used)
		}
	})
}

package mcpserver_test

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sandbox"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// narrow is a provider whose account may read and not write.
func (w *world) narrow(t testing.TB, owner id.User, by account.Actor) {
	t.Helper()
	third := w.second
	third.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		if r.Method != http.MethodGet {
			rw.WriteHeader(http.StatusForbidden)
		}
		_, _ = io.WriteString(rw, `{"id":"7","email":"mia@narrow.example"}`)
	})
	third.Start()
	record := strings.ReplaceAll(`id: narrow
name: Narrow
website: BASE
auth: oauth2
oauth2: {authorize_url: BASE/authorize, token_url: BASE/token, scopes: {base: [things.read], catalog: [{id: things.write, title: Write, risk: write}]}}
inject: {header: Authorization, format: "Bearer {access_token}"}
identity: {path: /me, id: id, label: email}
api:
  base: [BASE]
tools:
  - {name: post, title: Post, description: Posts., effect: write, scopes: [things.read, things.write], request: {method: POST, path: /things}}
  - {name: get, title: Get, description: Gets., effect: read, scopes: [things.read], request: {method: GET, path: /me}}
`, "BASE", third.URL)
	_, err := w.providers.Put(t.Context(), system().In(w.env), provider.Input{YAML: []byte(record), ClientID: "ambit", ClientSecret: secret.FromString("narrow-client-secret-42")}, account.Agreement{})
	must(t, err)
	_, err = w.credentials.TakeOver(t.Context(), by, credential.Start{Environment: w.env, Organization: w.org, Provider: "narrow"}, owner,
		credential.Held{Access: secret.FromString("narrow-access-token-0123456789"), Scopes: []string{"things.read"}}, account.Agreement{})
	must(t, err)
}

// Every refusal has a stable code, says what to do and, where a person has to do
// it, where (rule 9). Each of the codes that docs/refusals.md promises is met here
// through the door.
func TestRefusals(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := worldOn(t, db, generous)
		a := w.agent(t, "builder")
		w.connectSandbox(t, a.owner)
		w.narrow(t, a.owner.User(), account.ByPerson(a.owner.Person).In(w.env))
		c := w.connect(t, a.token, "2026-07-28")
		const read, write, destroy = "sandbox_key_list_issues", "sandbox_key_create_issue", "sandbox_key_delete_issue"
		ask := func(effects ...string) (handle, request string) {
			t.Helper()
			r := c.worked("request_session", map[string]any{"providers": []string{"sandbox_key"}, "effects": effects, "purpose": "be refused: " + strings.Join(effects, " ")})
			return r.str("session"), r.str("request_id")
		}
		active := func(effects ...string) string {
			t.Helper()
			handle, request := ask(effects...)
			w.approve(t, a.owner, request, nil)
			return handle
		}
		in := func(handle string, more ...any) map[string]any {
			args := map[string]any{"session": handle}
			for i := 0; i < len(more); i += 2 {
				args[more[i].(string)] = more[i+1]
			}
			return args
		}
		works := active("read", "write", "destructive")
		met := []string{}
		for _, row := range []struct {
			code  string
			fact  string // besides code, message and hint
			tries func() reply
		}{
			{"approval_required", "approval_url", func() reply { return c.call(read, nil) }},
			{"approval_required", "request_id", func() reply { return c.call(destroy, in(works, "number", 1)) }},
			{"pending", "approval_url", func() reply {
				handle, _ := ask("read")
				return c.call(read, in(handle))
			}},
			{"not_granted", "", func() reply { return c.call(write, in(active("read"), "title", "no")) }},
			{"effect_mismatch", "effect", func() reply {
				return c.call("call_read", in(works, "name", write, "arguments", map[string]any{"title": "no"}))
			}},
			{"effect_mismatch", "effect", func() reply { return c.call("call_write", map[string]any{"name": destroy}) }},
			{"upstream_error", "status", func() reply { return c.call("sandbox_key_get_issue", in(works, "number", 99999)) }},
			{"outcome_unknown", "", func() reply {
				w.misbehave(t, map[string]any{"body": map[string]any{"half": "an answer"}, "cut": true})
				return c.call("sandbox_key_me", in(works))
			}},
			{"scope_missing", "connect_url", func() reply {
				r := c.worked("request_session", map[string]any{"providers": []string{"narrow"}, "effects": []string{"read", "write"}, "purpose": "post"})
				w.approve(t, a.owner, r.str("request_id"), nil)
				c.worked("narrow_get", in(r.str("session")))
				got := c.call("narrow_post", in(r.str("session")))
				if got.str("scopes") != "things.write" {
					t.Errorf("scope_missing: got %v, want things.write", got.facts)
				}
				return got
			}},
			{"approval_stale", "", func() reply {
				text := strings.ReplaceAll(sandbox.KeyRecord(w.sandbox), `{header: Authorization, format: "Bearer {api_key}"}`, `{header: X-Api-Key, format: "{api_key}"}`)
				handle := active("read")
				for _, to := range []string{"/echo", "/issues"} {
					w.put(t, strings.Replace(text, "request: {method: GET, path: /issues, ", "request: {method: GET, path: "+to+", ", 1))
					w.key(t, a.owner, "sandbox_key", a.owner.User())
					if to == "/echo" {
						c.refused("approval_stale", read, in(handle))
					}
				}
				c.worked(read, in(handle)) // as it was
				w.put(t, strings.Replace(text, "request: {method: GET, path: /issues, ", "request: {method: GET, path: /echo, ", 1))
				w.key(t, a.owner, "sandbox_key", a.owner.User())
				return c.call(read, in(handle))
			}},
			{"reconnect", "connect_url", func() reply {
				handle := active("read")
				w.misbehave(t, map[string]any{"status": 401, "times": 5, "body": "no"})
				got := c.call("sandbox_key_me", in(handle))
				w.behave(t)
				w.key(t, a.owner, "sandbox_key", a.owner.User())
				return got
			}},
			{"revoked", "", func() reply {
				handle := active("read")
				_, err := w.sessions.Revoke(t.Context(), system().In(w.env), session.Aim{Agent: a.id})
				must(t, err)
				return c.call("sandbox_key_me", in(handle))
			}},
			{"expired", "", func() reply {
				handle := active("read")
				w.later.Add(int64(9 * time.Hour))
				defer w.later.Add(-int64(9 * time.Hour))
				return c.call("sandbox_key_me", in(handle))
			}},
			{"rate_limited", "retry_after", func() reply {
				other := w.connect(t, w.agentOf(t, "eager", a.owner).token, "2026-07-28")
				for i := range 40 {
					r := other.call("request_session", map[string]any{"providers": []string{"sandbox_key"}, "purpose": strings.Repeat("more ", i+1)})
					if r.isError {
						return r
					}
				}
				return reply{}
			}},
			{"denied", "", func() reply {
				handle, request := ask("read", "write")
				must(t, w.sessions.Deny(t.Context(), a.owner.Person, id.Approval(request), "no"))
				return c.call("sandbox_key_me", in(handle))
			}},
		} {
			got := row.tries()
			if !got.isError || got.str("code") != row.code || got.str("message") == "" || got.str("hint") == "" || row.fact != "" && got.facts[row.fact] == nil {
				t.Errorf("got error %v, %v (%s), want %s with %s", got.isError, got.facts, got.text, row.code, row.fact)
			}
			if !strings.Contains(got.text, row.code) || !strings.Contains(got.text, got.str("hint")) {
				t.Errorf("%s: the words do not say what the facts do: %q", row.code, got.text)
			}
			met = append(met, row.code)
		}
		if db.Engine() == sqldb.SQLite {
			page, err := os.ReadFile("../../docs/refusals.md")
			must(t, err)
			for _, line := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|.*\\* \\|$").FindAllStringSubmatch(string(page), -1) {
				if !slices.Contains(met, line[1]) {
					t.Errorf("docs/refusals.md promises %s, which nothing here meets", line[1])
				}
			}
			for _, code := range met {
				if !strings.Contains(string(page), "| `"+code+"` |") {
					t.Errorf("docs/refusals.md does not know %s", code)
				}
			}
		}
	})
}

// The tools that call others do what the tool itself does, within their class, and
// cannot reach our own.
func TestCallTools(t *testing.T) {
	t.Parallel()
	eachEra(t, func(t *testing.T, w *world, version string) {
		a := w.agent(t, "builder")
		w.connectSandbox(t, a.owner)
		c := w.connect(t, a.token, version)
		asked := c.refused("approval_required", "call_read", map[string]any{"name": "sandbox_key_list_issues"})
		if asked.str("session") == "" {
			t.Errorf("without a session: got %v", asked.facts)
		}
		r := c.worked("request_session", map[string]any{"providers": []string{"sandbox_key"}, "effects": []string{"read", "write", "destructive"}, "purpose": "triage"})
		w.approve(t, a.owner, r.str("request_id"), nil)
		handle := r.str("session")
		direct := c.worked("sandbox_key_get_issue", map[string]any{"session": handle, "number": 1})
		for _, args := range []map[string]any{
			{"name": "sandbox_key_get_issue", "session": handle, "arguments": map[string]any{"number": 1}},
			{"name": "sandbox_key_get_issue", "arguments": map[string]any{"number": 1, "session": handle}},
		} {
			for _, by := range []string{"call_read", "call_write", "call_destructive"} {
				got := c.worked(by, args)
				one, _ := json.Marshal(direct.facts)
				if two, _ := json.Marshal(got.facts); string(one) != string(two) || got.meta["dev.ambit/content"] != "third_party" {
					t.Errorf("%s: got %s, want %s", by, two, one)
				}
			}
		}
		c.worked("call_write", map[string]any{"name": "sandbox_key_create_issue", "session": handle, "arguments": map[string]any{"title": "by class"}})
		before := w.calls(t)
		c.refused("effect_mismatch", "call_read", map[string]any{"name": "sandbox_key_create_issue", "session": handle, "arguments": map[string]any{"title": "x"}})
		c.refused("effect_mismatch", "call_write", map[string]any{"name": "sandbox_key_delete_issue", "session": handle, "arguments": map[string]any{"number": 1}})
		if n := w.calls(t) - before; n != 0 {
			t.Errorf("refused calls reached the provider %d times", n)
		}
		c.refused("approval_required", "call_destructive", map[string]any{"name": "sandbox_key_delete_issue", "session": handle, "arguments": map[string]any{"number": 1}})
		c.refused("tool_not_found", "call_read", map[string]any{"name": "sandbox_key_nothing"})
		for _, bad := range []map[string]any{
			{}, {"name": 1}, {"name": "whoami"}, {"name": "call_read"}, {"name": "sandbox_key_me", "arguments": []int{1}}, {"name": "sandbox_key_me", "more": 1},
			{"name": "sandbox_key_me", "session": handle, "arguments": map[string]any{"session": handle}},
		} {
			c.refused("invalid_arguments", "call_read", bad)
		}
	})
}

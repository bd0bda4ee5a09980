package gateway_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// rendered lists the forms in which a credential could come back.
func rendered(s string) map[string]string {
	var escaped strings.Builder
	for _, c := range s {
		fmt.Fprintf(&escaped, `\u%04x`, c)
	}
	quoted, _ := json.Marshal(s)
	out := map[string]string{
		"raw": s, "url": url.QueryEscape(s), "path": url.PathEscape(s), "json": strings.Trim(string(quoted), `"`), "escaped": escaped.String(),
		"hex": hex.EncodeToString([]byte(s)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(s))),
		"html": strings.NewReplacer("&", "&amp;", `"`, "&quot;", "<", "&lt;").Replace(s),
	}
	for _, before := range []string{"", "Bearer ", "mia:", "x"} {
		for name, enc := range map[string]*base64.Encoding{"std": base64.StdEncoding, "url": base64.URLEncoding} {
			// Without the last characters, which depend on what follows.
			text := enc.WithPadding(base64.NoPadding).EncodeToString([]byte(before + s))
			out[fmt.Sprintf("base64 %s after %q", name, before)] = text[(len(before)*8+5)/6 : len(text)-2]
		}
	}
	return out
}

// leaks says which secret stands in text, and how.
func leaks(text string, secrets []string) (found []string) {
	low := strings.ToLower(text)
	for i, s := range secrets {
		for how, form := range rendered(s) {
			if strings.Contains(text, form) || strings.Contains(low, strings.ToLower(form)) {
				found = append(found, fmt.Sprintf("secret %d as %s", i, how))
			}
		}
	}
	return found
}

// seen is everything that an agent gets from a call.
func seen(r gateway.Result, err error) string {
	doc, _ := json.Marshal(map[string]any{"status": r.Status, "header": r.Header, "withheld": r.Withheld, "event": r.Event})
	out := string(doc) + string(r.Body)
	if err != nil {
		f := fault.Of(err)
		fields, _ := json.Marshal(f.Fields)
		out += f.Code + f.Message + f.Hint + string(fields) + err.Error() // the last is for logs, which are held to the same
	}
	return out
}

// Rule 1, U1, L3, workos.md §3.6, 9: a provider that gives the credential back in its answers,
// headers, cookies, redirects, errors, compressed or broken, by OAuth, by key in
// header or query, by name and password: not one byte of it reaches the agent,
// the audit or the log.
func TestRule1NoRawCredentialToAnAgent(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		const key, password = "mk-7f3e/9A+b=c&d%20\"e'<f>\\g~h", `pa ss"w/o+rd&=<>\%41:x`
		secrets := func() []string {
			return append(append(s.Tokens(), s.Keys()...), gatewaytest.SandboxKey, "sbxs_"+gatewaytest.SandboxKey, key, password)
		}
		look := func(what string, r gateway.Result, err error) {
			t.Helper()
			if code(err) == "internal" {
				t.Errorf("%s: %v", what, err)
			}
			if found := leaks(seen(r, err), secrets()); len(found) > 0 {
				t.Errorf("%s: the agent sees %v in %.600s", what, found, seen(r, err))
			}
		}

		// Mirrors by three kinds of injection.
		handles := map[string]string{}
		for slug, row := range map[string]struct {
			inject string
			fields map[string]string
		}{
			"mh": {`{header: X-Mirror-Auth, format: "Key {api_key} v1"}`, map[string]string{"api_key": key}},
			"mq": {`{query: token, format: "{api_key}"}`, map[string]string{"api_key": key}},
			"mb": {`{basic: {username: "{username}", password: "{password}"}}`, map[string]string{"username": "mia", "password": password}},
		} {
			s.Put(t, s.MirrorRecord(slug, row.inject))
			fields := map[string]secret.Value{}
			for k, v := range row.fields {
				fields[k] = secret.FromString(v)
			}
			st := credential.Start{Environment: s.Environment, Organization: s.Organization, Provider: slug}
			_, err := s.Credentials.AddKey(t.Context(), account.ByPerson(s.owner.Signed(t)).In(s.Environment), st, s.owner.ID, fields, account.Agreement{})
			gatewaytest.Must(t, err)
			handles[slug] = s.Active(t, s.owner, s.bot, slug, policy.Read, policy.Write)
			for _, path := range gatewaytest.Mirrors() {
				r, err := s.Call(t, s.bot, handles[slug], slug+"_read", map[string]any{"path": path})
				look(slug+path, r, err)
				if r.Header.Get("Set-Cookie") != "" || r.Header.Get("Www-Authenticate") != "" {
					t.Errorf("%s%s: headers %v", slug, path, r.Header)
				}
			}
			if n := len(s.Arrivals("/mirror/landed")); n != 0 {
				t.Errorf("%s: a redirect was followed", slug)
			}
		}
		for _, path := range gatewaytest.Mirrors() { // the mirrors did show it
			if len(s.Arrivals("/mirror"+path)) != 3 {
				t.Errorf("%s was asked %d times, want by each kind of credential", path, len(s.Arrivals("/mirror"+path)))
			}
		}

		// The sandbox by OAuth and by key, with every way it can misbehave.
		s.OAuthProvider(t)
		s.ConnectOAuth(t, s.owner, gatewaytest.Mia, nil)
		handles["sandbox"] = s.Active(t, s.owner, s.bot, "sandbox", policy.Read, policy.Write, policy.Access)
		handles["tracker"] = s.handle
		for _, slug := range []string{"sandbox", "tracker"} {
			call := func(what, tool string, args map[string]any) gateway.Result {
				t.Helper()
				r, err := s.Call(t, s.bot, handles[slug], slug+tool, args)
				look(slug+" "+what, r, err)
				return r
			}
			if r := call("echo", "_echo", nil); r.Status != 200 || len(r.Body) == 0 {
				t.Errorf("%s: echo answers %d", slug, r.Status)
			}
			if r := call("whoami-token", "_whoami_token", nil); r.Status != 200 || len(r.Body) == 0 {
				t.Errorf("%s: whoami_token answers %d", slug, r.Status)
			}
			call("generic echo", "_read", map[string]any{"path": "/echo", "query": map[string]any{"a": "b"}})
			call("a missing issue", "_get_issue", map[string]any{"number": 99999})
			for _, leak := range secrets() {
				for what, f := range map[string]map[string]any{
					"an error body":  {"status": 500, "body": "no access with " + leak},
					"a JSON error":   {"status": 422, "body": map[string]any{"error": leak, "nested": []any{map[string]any{"k": "x" + leak}}}},
					"headers":        {"status": 200, "body": map[string]any{}, "headers": map[string]string{"Set-Cookie": "s=" + url.QueryEscape(leak), "X-Request-Id": url.QueryEscape(leak), "Etag": url.PathEscape(leak)}},
					"a redirect":     {"redirect": "/elsewhere?access_token=" + url.QueryEscape(leak)},
					"a far redirect": {"redirect": "https://elsewhere.example/?access_token=" + url.QueryEscape(leak)},
					"cut off":        {"body": strings.Repeat(leak, 2), "cut": true},
				} {
					if !used(leak, slug, key, password) {
						continue // what another connection holds never got there
					}
					f["path"] = "/me"
					s.Fault(t, f)
					call(what, "_me", nil)
				}
			}
			// What an access call makes is cut out.
			if _, err := s.Call(t, s.bot, handles[slug], slug+"_create_key", map[string]any{"name": "deploy"}); code(err) != "approval_required" {
				t.Fatalf("%s: create_key: %v", slug, err)
			}
			s.approve(t)
			if r := call("create_key", "_create_key", map[string]any{"name": "deploy"}); r.Status != 201 || !strings.Contains(string(r.Body), "skey_") {
				t.Errorf("%s: create_key answers %d %s", slug, r.Status, r.Body)
			}
		}
		if len(s.Keys()) != 2 {
			t.Fatalf("%d keys were made, want 2", len(s.Keys()))
		}

		// Refused, reconnected, refreshed under way.
		s.Fault(t, map[string]any{"path": "/me", "status": 401, "times": 2, "body": "bad token " + gatewaytest.SandboxKey})
		r, err := s.do(t, "tracker_me", nil)
		look("refused", r, err)
		s.Fault(t, map[string]any{"path": "/oauth/token", "status": 400, "body": map[string]any{"error": "invalid_request", "error_description": s.Tokens()[1]}})
		s.Clock.Advance(61 * time.Second)
		r, err = s.Call(t, s.bot, handles["sandbox"], "sandbox_me", nil)
		look("a refresh that fails", r, err)
		if err == nil {
			t.Error("the refresh should have failed")
		}

		// What is kept of all this.
		s.records(t)
		rows, err := s.DB.Reader().QueryContext(t.Context(), `select body from audit_entry`)
		gatewaytest.Must(t, err)
		defer rows.Close()
		var kept strings.Builder
		for rows.Next() {
			var body []byte
			gatewaytest.Must(t, rows.Scan(&body))
			kept.Write(body)
		}
		gatewaytest.Must(t, rows.Err())
		if found := leaks(kept.String(), secrets()); len(found) > 0 {
			t.Errorf("in the audit stands %v", found)
		}
		if found := leaks(s.logs.text(), secrets()); len(found) > 0 {
			t.Errorf("in the log stands %v", found)
		}
		if s.logs.text() == "" {
			t.Error("nothing was logged; this proves nothing about logs")
		}
		page, err := s.Audit.List(t.Context(), audit.Filter{Environment: s.Environment, Limit: 200})
		gatewaytest.Must(t, err)
		doc, err := json.Marshal(page)
		gatewaytest.Must(t, err)
		if found := leaks(string(doc), secrets()); len(found) > 0 {
			t.Errorf("the listed audit shows %v", found)
		}
	})
}

// used says whether the call of slug carries this secret.
func used(leak, slug, key, password string) bool {
	switch {
	case leak == key || leak == password || strings.HasPrefix(leak, "sbxs_") || strings.HasPrefix(leak, "sbx_rt_"):
		return false
	case slug == "sandbox":
		return strings.HasPrefix(leak, "sbx_at_")
	}
	return leak == gatewaytest.SandboxKey
}

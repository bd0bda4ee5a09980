package api_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/api"
	"github.com/ambit-dev/ambit/internal/api/apitest"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// A time that is none used to be answered with the pattern by which Go reads them.
func TestBadTimesSayWhatTimesLookLike(t *testing.T) {
	t.Parallel()
	w := apitest.New(t, sqldbtest.Open(t, sqldb.SQLite), nil)
	_, key := w.Key(t, w.Env, "", account.Scopes()...)
	for path, want := range map[string]string{
		"/v1/audit?since=bad": "query.since: a time such as 2026-01-31T15:04:05Z.", "/v1/audit?until=2026-01-31": "query.until: a time such as 2026-01-31T15:04:05Z.",
		"/v1/audit?limit=many": "query.limit: a whole number.",
	} {
		res := ask(t, request{method: "GET", url: w.URL + path, token: key})
		if !strings.Contains(string(res.body), want) || strings.Contains(string(res.body), "2006") {
			t.Errorf("%s: got %s, want %s", path, res.body, want)
		}
	}
}

// S13: what could be read in two ways is refused, and nothing that was sent
// comes back in the refusal.
func TestStrictRequests(t *testing.T) {
	t.Parallel()
	w := apitest.New(t, sqldbtest.Open(t, sqldb.SQLite), nil)
	_, key := w.Key(t, w.Env, "", account.Scopes()...)
	post := func(change func(*request)) response {
		t.Helper()
		q := request{method: "POST", url: w.URL + "/v1/secrets", token: key, body: `{"name":"fine","value":"canary"}`}
		change(&q)
		res := ask(t, q)
		if strings.Contains(string(res.body), "canary") {
			t.Errorf("a refusal quotes the request: %s", res.body)
		}
		return res
	}
	body := func(s string) func(*request) { return func(q *request) { q.body = s } }
	query := func(s string) func(*request) {
		return func(q *request) { q.method, q.url, q.body = "GET", w.URL+"/v1/agents"+s, "" }
	}
	header := func(k, v string) func(*request) { return func(q *request) { q.header = map[string]string{k: v} } }
	for name, c := range map[string]struct {
		change func(*request)
		status int
		code   string
	}{
		"repeated name":        {body(`{"name":"a","value":"canary","value":"canary2"}`), 400, "invalid_json"},
		"names differ by case": {body(`{"name":"a","Name":"b","value":"canary"}`), 400, "invalid_json"},
		"name of another case": {body(`{"NAME":"a","value":"canary"}`), 400, "invalid_request"},
		"unknown name":         {body(`{"name":"a","value":"canary","canary":1}`), 400, "invalid_request"},
		"unknown name inside": {func(q *request) {
			q.url, q.body = w.URL+"/v1/agents", `{"organization_id":"x","name":"a","kind":"delegated","owner_id":"x","ceiling":{"canary":["read"]}}`
		}, 400, "invalid_request"},
		"value of another type": {body(`{"name":"a","value":["canary"]}`), 400, "invalid_request"},
		"missing name":          {body(`{"value":"canary"}`), 400, "invalid_request"},
		"too short":             {body(`{"name":"","value":"canary"}`), 400, "invalid_request"},
		"no object":             {body(`"canary"`), 400, "invalid_request"},
		"null":                  {body(`null`), 400, "invalid_request"},
		"not JSON":              {body(`{"name":"canary"`), 400, "invalid_json"},
		"two documents":         {body(`{"name":"a","value":"canary"}{}`), 400, "invalid_json"},
		"not UTF-8":             {body("{\"name\":\"a\xff\",\"value\":\"canary\"}"), 400, "invalid_json"},
		"nothing":               {body(""), 400, "invalid_request"},
		"too deep":              {body(strings.Repeat(`{"a":`, 70) + "1" + strings.Repeat("}", 70)), 413, "body_too_deep"},
		"form":                  {header("Content-Type", "application/x-www-form-urlencoded"), 415, "unsupported_media_type"},
		"problem type":          {header("Content-Type", "application/problem+json"), 415, "unsupported_media_type"},
		"text":                  {header("Content-Type", "text/plain"), 415, "unsupported_media_type"},
		"compressed":            {header("Content-Encoding", "gzip"), 415, "unsupported_media_type"},
		"with charset":          {header("Content-Type", "application/json; charset=utf-8"), 201, ""},
		"over 1 MiB": {func(q *request) {
			q.url, q.body = w.URL+"/v1/organizations", `{"name":"`+strings.Repeat("x", 1<<20)+`"}`
		}, 413, "body_too_large"},
		"a value of 1 MiB":      {body(`{"name":"whole","value":"` + strings.Repeat("x", 1<<20) + `"}`), 201, ""},
		"over what a value has": {body(`{"name":"a","value":"` + strings.Repeat("x", 7<<20) + `"}`), 413, "body_too_large"},
		"10 MB":                 {body(`{"name":"a","value":"` + strings.Repeat("x", 10_000_000) + `"}`), 413, "body_too_large"},
		"body where none is":    {func(q *request) { q.url = w.URL + "/v1/audit/verify" }, 400, "invalid_request"},
		"unknown parameter":     {query("?canary=canary"), 400, "invalid_request"},
		"repeated parameter":    {query("?limit=1&limit=2"), 400, "invalid_request"},
		"broken query":          {query("?limit=%zz"), 400, "invalid_request"},
		"limit of zero":         {query("?limit=0"), 400, "invalid_request"},
		"limit too high":        {query("?limit=201"), 400, "invalid_request"},
		"limit no number":       {query("?limit=canary"), 400, "invalid_request"},
		"no cursor":             {query("?after=canary"), 400, "invalid_cursor"},
		"unknown path":          {func(q *request) { q.url = w.URL + "/v1/canaries" }, 404, "no_such_route"},
		"unknown method":        {func(q *request) { q.method, q.url = "PATCH", w.URL+"/v1/agents" }, 405, "method_not_allowed"},
		"two environments": {func(q *request) {
			q.url += "?environment=" + string(w.Other)
			q.header = map[string]string{"Ambit-Environment": string(w.Env)}
		}, 400, "invalid_request"},
		"another environment": {header("Ambit-Environment", string(w.Other)), 404, "not_found"},
		"no environment":      {header("Ambit-Environment", "canary"), 404, "not_found"},
		"own environment": {func(q *request) {
			q.body = `{"name":"own","value":"canary"}`
			q.header = map[string]string{"Ambit-Environment": string(w.Env)}
		}, 201, ""},
	} {
		res := post(c.change)
		if res.status != c.status || res.code() != c.code {
			t.Errorf("%s: got %d %s, want %d %s", name, res.status, res.body, c.status, c.code)
		}
		if res.status >= 500 {
			t.Errorf("%s: a defect of ours: %s", name, res.body)
		}
	}
	// Two Authorization headers are nobody.
	req, err := http.NewRequestWithContext(t.Context(), "GET", w.URL+"/v1/whoami", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header["Authorization"] = []string{"Bearer " + key, "Bearer " + key}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("WWW-Authenticate") == "" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("two Authorization headers: got %d %v", resp.StatusCode, resp.Header)
	}
	if log := w.Log.String(); strings.Contains(log, "canary") {
		t.Errorf("the log quotes a request:\n%s", log)
	}
}

// A person acts in the environment that they name, if they have a part in it.
func TestEnvironmentOfALogin(t *testing.T) {
	t.Parallel()
	w := apitest.New(t, sqldbtest.Open(t, sqldb.SQLite), nil)
	login := w.Login(t, w.Owner)
	named := func(env string) response {
		return ask(t, request{method: "GET", url: w.URL + "/v1/whoami", token: login, header: map[string]string{"Ambit-Environment": env}})
	}
	if res := named(string(w.Other)); res.status != http.StatusNotFound {
		t.Errorf("an environment without a part in it: got %d %s, want 404", res.status, res.body)
	}
	mine := string(w.Environment(t, "mine"))
	res := named(mine)
	if res.status != http.StatusOK || field(t, res, "environment_id") != mine {
		t.Errorf("an environment of their own: got %d %s", res.status, res.body)
	}
	byQuery := ask(t, request{method: "GET", url: w.URL + "/v1/whoami?environment=" + mine, token: login})
	if byQuery.status != http.StatusOK || field(t, byQuery, "environment_id") != mine {
		t.Errorf("by query: got %d %s", byQuery.status, byQuery.body)
	}
	// There, the things of the first environment are absent.
	agent, _ := w.Agent(t, "first")
	absent := ask(t, request{method: "GET", url: w.URL + "/v1/connections/" + string(w.Connection(t, "")), token: login, header: map[string]string{"Ambit-Environment": mine}})
	if absent.status != http.StatusNotFound {
		t.Errorf("a connection of another environment: got %d %s, want 404", absent.status, absent.body)
	}
	absent = ask(t, request{method: "GET", url: w.URL + "/v1/agents/" + string(agent), token: login, header: map[string]string{"Ambit-Environment": mine}})
	if absent.status != http.StatusNotFound {
		t.Errorf("an agent of another environment: got %d %s, want 404", absent.status, absent.body)
	}
}

// Rates hold for each caller, each address, and what nobody stands behind.
func TestRates(t *testing.T) {
	t.Parallel()
	now := time.Now()
	limits := apitest.Generous
	limits.CallerRate, limits.CallerBurst = 0.5, 3
	limits.FailureRate, limits.FailureBurst = 0.5, 2
	limits.RevocationRate, limits.RevocationBurst = 0.5, 2
	w := apitest.New(t, sqldbtest.Open(t, sqldb.SQLite), func(c *api.Config) {
		c.Limits, c.Now = limits, func() time.Time { return now }
		c.Address = func(r *http.Request) string { return r.Header.Get("X-Test-Address") }
	})
	_, one := w.Key(t, w.Env, "", account.ScopeAuditRead)
	_, two := w.Key(t, w.Env, "", account.ScopeAuditRead)
	get := func(token, address string) response {
		t.Helper()
		return ask(t, request{method: "GET", url: w.URL + "/v1/whoami", token: token, header: map[string]string{"X-Test-Address": address}})
	}
	for range 3 {
		if res := get(one, "192.0.2.1"); res.status != http.StatusOK {
			t.Fatalf("within the rate: got %d %s", res.status, res.body)
		}
	}
	if res := get(one, "192.0.2.2"); res.status != http.StatusTooManyRequests || res.header.Get("Retry-After") != "2" || res.code() != "rate_limited" {
		t.Errorf("over a key's rate: got %d, Retry-After %q", res.status, res.header.Get("Retry-After"))
	}
	if res := get(two, "192.0.2.1"); res.status != http.StatusOK {
		t.Errorf("another key: got %d %s", res.status, res.body)
	}
	for i, want := range []int{401, 401, 429} {
		if res := get("sk_wrong", "192.0.2.3"); res.status != want {
			t.Errorf("wrong key %d: got %d, want %d", i+1, res.status, want)
		}
	}
	if res := get(two, "192.0.2.4"); res.status != http.StatusOK {
		t.Errorf("a right key from elsewhere: got %d %s", res.status, res.body)
	}
	// W7: one address cannot lock its neighbours out, whatever it sends.
	for i := range 40 {
		if res := get("sk_wrong", "192.0.2.6"); i >= 2 && res.status != http.StatusTooManyRequests {
			t.Fatalf("wrong key %d: got %d, want 429", i+1, res.status)
		}
	}
	_, three := w.Key(t, w.Env, "", account.ScopeAuditRead, account.ScopeSessionsRevoke)
	if res := get(three, "192.0.2.6"); res.status != http.StatusOK {
		t.Errorf("a right key beside a flood of wrong ones: got %d %s", res.status, res.body)
	}
	// Revoking goes on when the caller's own rate is used up, to a limit.
	get(three, "192.0.2.6")
	get(three, "192.0.2.6")
	for i, want := range []int{200, 200, 429} {
		res := ask(t, request{method: "POST", url: w.URL + "/v1/revocations", token: three, body: quote(map[string]any{"organization_id": w.Tenant}), header: map[string]string{"X-Test-Address": "192.0.2.6"}})
		if res.status != want {
			t.Errorf("revocation %d over the rate: got %d %s, want %d", i+1, res.status, res.body, want)
		}
	}
	if res := get(three, "192.0.2.6"); res.status != http.StatusTooManyRequests {
		t.Errorf("anything else over the rate: got %d", res.status)
	}
	// S14, and a bug: ten sign-ins that some program at an address began had those
	// of the person there refused.
	for i := range 100 {
		res := ask(t, request{method: "POST", url: w.URL + "/v1/cli/login", body: "{}", header: map[string]string{"X-Test-Address": "192.0.2.5"}})
		if res.status != http.StatusOK {
			t.Fatalf("sign-in %d: got %d %s", i+1, res.status, res.body)
		}
	}
}

// A flood on other paths does not stand in the way of a revocation, not even at
// the ceiling of an address (W7).
func TestRevocationUnderTheCeiling(t *testing.T) {
	t.Parallel()
	limits := apitest.Generous
	limits.AddressRate, limits.AddressBurst = 0.001, 5
	w := apitest.New(t, sqldbtest.Open(t, sqldb.SQLite), func(c *api.Config) { c.Limits = limits })
	_, key := w.Key(t, w.Env, "", account.ScopeSessionsRevoke)
	last := 0
	for range 10 {
		last = ask(t, request{method: "GET", url: w.URL + "/v1/whoami", token: "sk_wrong"}).status
	}
	if last != http.StatusTooManyRequests {
		t.Fatalf("over the ceiling: got %d, want 429", last)
	}
	res := ask(t, request{method: "POST", url: w.URL + "/v1/revocations", token: key, body: quote(map[string]any{"organization_id": w.Tenant})})
	if res.status != http.StatusOK {
		t.Errorf("got %d %s, want 200", res.status, res.body)
	}
}

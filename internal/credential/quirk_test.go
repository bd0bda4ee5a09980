package credential

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
)

// quirk is one way in which a token endpoint differs from RFC 6749: what the
// record says of it, what it must be asked, how it answers, and what comes of it.
type quirk struct {
	oauth  provider.OAuth
	asked  map[string]string // members of the body that must arrive
	absent string            // a member that must not
	status int               // default 200
	media  string            // default application/json
	answer string

	access, refresh string
	lifetime        time.Duration
	scopes          []string
	fails           string // class of the error
}

var quirkNow = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// Issue 5, the quirk server: one row for every odd shape of oauth.md §2.2.
var quirks = map[string]quirk{
	"Slack: a failure with status 200":           {answer: `{"ok":false,"error":"invalid_refresh_token"}`, fails: classGrant},
	"Slack: a failure without a word":            {answer: `{"ok":false,"access_token":"xoxp-1"}`, fails: classConfig},
	"Slack: the person's token is nested":        {oauth: provider.OAuth{Answer: provider.TokenAnswer{At: "authed_user"}}, answer: `{"ok":true,"access_token":"xoxb-bot","refresh_token":"bot-r","authed_user":{"access_token":"xoxp-1","refresh_token":"r","expires_in":43200,"scope":"a,b"}}`, access: "xoxp-1", refresh: "r", lifetime: 12 * time.Hour, scopes: []string{"a", "b"}},
	"Slack: nested without a refresh token":      {oauth: provider.OAuth{Answer: provider.TokenAnswer{At: "authed_user"}}, answer: `{"ok":true,"refresh_token":"bot-r","authed_user":{"access_token":"xoxp-1"}}`, access: "xoxp-1"},
	"Slack: a refresh answers flat":              {oauth: provider.OAuth{Answer: provider.TokenAnswer{At: "authed_user"}}, answer: `{"ok":true,"access_token":"xoxp-2","refresh_token":"r2"}`, access: "xoxp-2", refresh: "r2"},
	"GitHub: an answer as a form":                {media: "application/x-www-form-urlencoded", answer: "access_token=gho_1&scope=repo%2Cgist&token_type=bearer", access: "gho_1", scopes: []string{"repo", "gist"}},
	"GitHub: an error with status 200":           {answer: `{"error":"bad_refresh_token","error_description":"..."}`, fails: classGrant},
	"GitHub: numbers as text":                    {answer: `{"access_token":"ghu_1","refresh_token":"ghr_1","expires_in":"28800"}`, access: "ghu_1", refresh: "ghr_1", lifetime: 8 * time.Hour},
	"Salesforce: no lifetime":                    {answer: `{"access_token":"00D1","instance_url":"https://evil.example","issued_at":"1700000000000"}`, access: "00D1"},
	"Mailchimp: zero means never":                {answer: `{"access_token":"m1","expires_in":0,"scope":null}`, access: "m1", scopes: []string{}},
	"Square: the end as a time":                  {oauth: provider.OAuth{TokenBody: "json"}, asked: map[string]string{"grant_type": "refresh_token"}, answer: `{"access_token":"s1","expires_at":"2026-11-29T12:00:00Z"}`, access: "s1", lifetime: 24 * time.Hour},
	"Strava: the end in seconds since 1970":      {answer: `{"access_token":"v1","expires_at":1795888800}`, access: "v1", lifetime: 6 * time.Hour},
	"the end is past":                            {answer: `{"access_token":"v1","expires_at":1000}`, access: "v1"},
	"Twitch: scopes as a list":                   {answer: `{"access_token":"t1","scope":["a","b"]}`, access: "t1", scopes: []string{"a", "b"}},
	"TikTok: another name for the client":        {oauth: provider.OAuth{ClientAuth: "post", ClientIDParam: "client_key"}, asked: map[string]string{"client_key": "us", "client_secret": "our-secret"}, absent: "client_id", answer: `{"access_token":"k1"}`, access: "k1"},
	"Notion, Atlassian, Shopify: a body of JSON": {oauth: provider.OAuth{ClientAuth: "post", TokenBody: "json"}, asked: map[string]string{"client_id": "us", "refresh_token": "old"}, answer: `{"access_token":"n1"}`, access: "n1"},
	"Zoho: a wrong code with status 200":         {answer: `{"error":"invalid_code"}`, fails: classGrant},
	"Meta: a token that has ended":               {status: http.StatusBadRequest, answer: `{"error":{"message":"Session has expired","type":"OAuthException","code":190}}`, fails: classGrant},
	"Meta: too many calls":                       {status: http.StatusBadRequest, answer: `{"error":{"type":"OAuthException","code":4}}`, fails: classTransient},
	"Meta: an error of another kind":             {answer: `{"error":{"code":100},"access_token":"a-token"}`, fails: classConfig},
	"Microsoft: sign in again":                   {status: http.StatusBadRequest, answer: `{"error":"interaction_required","error_description":"AADSTS50076: ...","suberror":"basic_action"}`, fails: classGrant},
	"HubSpot: an error in two ways":              {status: http.StatusBadRequest, answer: `{"status":"BAD_REFRESH_TOKEN","message":"...","error":"invalid_grant"}`, fails: classGrant},
	"a client that is not known, bare":           {status: http.StatusUnauthorized, answer: `{}`, fails: classClient},
	"a page instead of an answer":                {media: "text/html", answer: "<html>", fails: classConfig},
	"two answers in one":                         {answer: `{"access_token":"a"}{"access_token":"b"}`, fails: classConfig},
	"a token twice":                              {answer: `{"access_token":"a","access_token":"b"}`, fails: classConfig},
}

func TestTokenQuirks(t *testing.T) {
	t.Parallel()
	for name, q := range quirks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				q.check(t, r)
				w.Header().Set("Content-Type", orDefault(q.media, "application/json"))
				w.WriteHeader(max(q.status, 200))
				_, _ = io.WriteString(w, q.answer)
			}))
			t.Cleanup(srv.Close)
			s := quirkService(t, srv)
			g, err := s.ask(t.Context(), srv.URL+"/token", &q.oauth, quirkClient, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"old"}})
			if q.fails != "" {
				te, ok := err.(*tokenError)
				if !ok || te.class() != q.fails {
					t.Fatalf("got %v, want a failure of class %s", err, q.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := string(g.access.Reveal()); got != q.access || string(g.refresh.Reveal()) != q.refresh {
				t.Errorf("got the tokens %q and %q, want %q and %q", got, g.refresh.Reveal(), q.access, q.refresh)
			}
			if g.lifetime != q.lifetime {
				t.Errorf("it lives %s, want %s", g.lifetime, q.lifetime)
			}
			if d := cmp.Diff(q.scopes, g.scopes); d != "" {
				t.Error(d)
			}
		})
	}
}

var quirkClient = provider.Client{ID: "us", Secret: secret.FromString("our-secret")}

func quirkService(t *testing.T, srv *httptest.Server) *Service {
	t.Helper()
	client, err := outbound.New(outbound.Policy{Allow: []string{strings.TrimPrefix(srv.URL, "http://")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &Service{outbound: client, now: func() time.Time { return quirkNow }}
}

// check holds what arrived against the row.
func (q quirk) check(t *testing.T, r *http.Request) {
	got := bodyFields(t, r, q.oauth.TokenBody == "json")
	for k, v := range q.asked {
		if got[k] != v {
			t.Errorf("%s is %q, want %q", k, got[k], v)
		}
	}
	if _, there := got[q.absent]; there && q.absent != "" {
		t.Errorf("%s was sent", q.absent)
	}
	if user, pass, ok := r.BasicAuth(); q.oauth.ClientAuth == "" && (!ok || user != "us" || pass != "our-secret") {
		t.Errorf("our client is %q", user)
	}
}

func bodyFields(t *testing.T, r *http.Request, asJSON bool) map[string]string {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	out := map[string]string{}
	if asJSON {
		if err := json.Unmarshal(body, &out); err != nil || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s is no JSON: %v", body, err)
		}
		return out
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		t.Error(err)
	}
	for k := range form {
		out[k] = form.Get(k)
	}
	return out
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// Each way of giving tokens back sends the right token in the right place, and
// none that the provider has no use for.
func TestRevokeStyles(t *testing.T) {
	t.Parallel()
	for style, want := range map[string]struct{ refresh, access string }{
		"rfc7009":       {"POST basic form token=r hint=refresh_token", "POST basic form token=a hint=access_token"},
		"rfc7009_json":  {"POST basic json token=r hint=refresh_token", "POST basic json token=a hint=access_token"},
		"bearer":        {"", "POST bearer=a"},
		"bearer_delete": {"", "DELETE bearer=a"},
		"client_delete": {"", "DELETE basic json access_token=a"},
	} {
		o := &provider.OAuth{ClientAuth: "basic", RevokeStyle: style}
		for hint, c := range map[string]struct{ token, want string }{"refresh_token": {"r", want.refresh}, "access_token": {"a", want.access}} {
			header := http.Header{}
			method, body := revocation(o, quirkClient, header, hint, secret.FromString(c.token))
			if got := described(t, method, header, body); got != c.want {
				t.Errorf("%s, %s: %q, want %q", style, hint, got, c.want)
			}
		}
	}
}

func described(t *testing.T, method string, header http.Header, body []byte) string {
	if method == "" {
		return ""
	}
	r := httptest.NewRequest(method, "/", strings.NewReader(string(body)))
	r.Header = header
	out := method
	if user, pass, ok := r.BasicAuth(); ok && user == "us" && pass == "our-secret" {
		out += " basic"
	}
	if token, ok := strings.CutPrefix(header.Get("Authorization"), "Bearer "); ok {
		return out + " bearer=" + token
	}
	asJSON := header.Get("Content-Type") == "application/json"
	fields := bodyFields(t, r, asJSON)
	out += map[bool]string{true: " json", false: " form"}[asJSON]
	for _, k := range []string{"access_token", "token"} {
		if v, ok := fields[k]; ok {
			out += " " + k + "=" + v
		}
	}
	if v, ok := fields["token_type_hint"]; ok {
		out += " hint=" + v
	}
	return out
}

// A provider that says no with status 200 has not revoked anything.
func TestRevocationRefusedWithStatus200(t *testing.T) {
	t.Parallel()
	for body, ok := range map[string]bool{`{"ok":true}`: true, "": true, "null": true, `{"ok":false,"error":"not_allowed"}`: false} {
		err := revokeAnswer(&outbound.Response{Status: http.StatusOK, Body: []byte(body)})
		if (err == nil) != ok {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// Microsoft grants offline_access without listing it: it is not missing.
func TestUnlistedScopes(t *testing.T) {
	t.Parallel()
	known := provider.Scopes{Unlisted: []string{"offline_access", "never_asked"}}
	asked := []string{"Mail.Read", "offline_access"}
	if d := cmp.Diff(asked, withUnlisted([]string{"Mail.Read"}, known, asked)); d != "" {
		t.Error(d)
	}
	if got := withUnlisted(nil, known, asked); got != nil {
		t.Errorf("without a list: %v", got)
	}
}

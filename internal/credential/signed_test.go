package credential_test

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // what RFC 5849 signs with
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// signer is a provider of OAuth 1.0 (RFC 5849). It takes no request but with a
// signature that it computes itself, of this client, fresh, and never seen before.
type signer struct {
	*internet
	t       *testing.T
	slug    string
	consume map[string]string // secrets by consumer key
	tokens  map[string]string // secrets by token
	nonces  map[string]bool
	back    string // oauth_callback
	told    string // what the answer to the first request adds
	refused []string
	ended   []string
}

func newSigner(t *testing.T, db *sqldb.DB) *signer { return newSignerOf(t, db, "x_oauth1") }

func newSignerOf(t *testing.T, db *sqldb.DB, slug string) *signer {
	s := &signer{slug: slug, internet: newInternet(t, newScene(t, db)), t: t, consume: map[string]string{"our-client": "our-client-secret"}, tokens: map[string]string{}, nonces: map[string]bool{}, told: "&oauth_callback_confirmed=true"}
	s.answer = s.reply
	s.provider(t, slug, nil)
	return s
}

func (s *signer) reply(q said) reply {
	o := s.verify(q)
	if o == nil {
		s.refused = append(s.refused, q.Path)
		return reply{status: 401, body: `{"errors":[{"code":32}]}`}
	}
	form := func(token string) reply {
		s.tokens[token] = "secret-of-" + token
		return reply{media: "text/html;charset=utf-8", body: "oauth_token=" + token + "&oauth_token_secret=secret-of-" + token + s.told}
	}
	switch {
	case (q.Path == "/oauth/request_token" || q.Path == "/1/OAuthGetRequestToken") && o["oauth_token"] == "":
		s.back = o["oauth_callback"]
		return form("temporary-" + strconv.Itoa(len(s.nonces)))
	case (q.Path == "/oauth/access_token" || q.Path == "/1/OAuthGetAccessToken") && strings.HasPrefix(o["oauth_token"], "temporary-") && o["oauth_verifier"] == "verifier-of-"+o["oauth_token"]:
		delete(s.tokens, o["oauth_token"])
		return form("account-token-" + strconv.Itoa(len(s.nonces)))
	case strings.HasPrefix(o["oauth_token"], "account-token-") && q.Path == "/1.1/oauth/invalidate_token":
		delete(s.tokens, o["oauth_token"])
		s.ended = append(s.ended, o["oauth_token"])
		return reply{body: `{"access_token":"x"}`}
	case q.Method == "DELETE" && q.Path == "/1/tokens/"+o["oauth_token"]+"/":
		delete(s.tokens, o["oauth_token"])
		s.ended = append(s.ended, o["oauth_token"])
		return reply{body: `{"_value":null}`}
	case q.Path == "/1/members/me":
		return reply{body: `{"id":"42","username":"mia"}`}
	case strings.HasPrefix(o["oauth_token"], "account-token-"):
		return reply{body: `{"data":{"id":"42","username":"mia"}}`}
	}
	return reply{status: 403}
}

// verify checks a signature by hand (RFC 5849 §3.2) and gives what was signed.
func (s *signer) verify(q said) map[string]string {
	raw, ok := strings.CutPrefix(q.Header.Get("Authorization"), "OAuth ")
	if !ok {
		return nil
	}
	o := map[string]string{}
	for part := range strings.SplitSeq(raw, ", ") {
		name, value, _ := strings.Cut(part, "=")
		text, err := url.PathUnescape(strings.Trim(value, `"`))
		gatewaytest.Must(s.t, err)
		o[name] = text
	}
	escape := func(text string) string {
		var b strings.Builder
		for _, c := range []byte(text) {
			if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
				b.WriteByte(c)
			} else {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		}
		return b.String()
	}
	var pairs []string
	for name, v := range o {
		if name != "oauth_signature" {
			pairs = append(pairs, escape(name)+"="+escape(v))
		}
	}
	for name, list := range q.Query {
		for _, v := range list {
			pairs = append(pairs, escape(name)+"="+escape(v))
		}
	}
	slices.Sort(pairs)
	base := q.Method + "&" + escape(s.Sandbox.URL+"/"+q.Host+q.Path) + "&" + escape(strings.Join(pairs, "&"))
	mac := hmac.New(sha1.New, []byte(escape(s.consume[o["oauth_consumer_key"]])+"&"+escape(s.tokens[o["oauth_token"]])))
	mac.Write([]byte(base))
	if s.consume[o["oauth_consumer_key"]] == "" || o["oauth_token"] != "" && s.tokens[o["oauth_token"]] == "" || s.nonces[o["oauth_nonce"]] ||
		o["oauth_signature"] != base64.StdEncoding.EncodeToString(mac.Sum(nil)) || o["oauth_signature_method"] != "HMAC-SHA1" {
		return nil
	}
	s.nonces[o["oauth_nonce"]] = true
	return o
}

// begin goes to the provider and gives what it sends the person back with.
func (s *signer) begin(t *testing.T) url.Values {
	t.Helper()
	at, err := s.Credentials.Authorize(t.Context(), s.owner.Signed(t), start(s.World, s.slug))
	gatewaytest.Must(t, err)
	u := must(url.Parse(at))
	q := u.Query()
	if s.slug == "x_oauth1" && (!strings.HasPrefix(at, s.Sandbox.URL+"/api.x.com/oauth/authorize?") || len(q) != 1) || s.tokens[q.Get("oauth_token")] == "" {
		t.Fatalf("the person goes to %s", at)
	}
	return url.Values{"oauth_token": q["oauth_token"], "oauth_verifier": {"verifier-of-" + q.Get("oauth_token")}}
}

func (s *signer) finish(t *testing.T, q url.Values) (credential.Connected, error) {
	t.Helper()
	return s.Credentials.Callback(t.Context(), s.owner.Signed(t), s.Environment, s.slug, q)
}

// Issue 5, OAuth 1.0a: three-legged, against a provider that checks each signature:
// the account is known, calls are signed, a client's secret that is replaced counts
// at once, what is vended holds none of it, and the token is given back at the end.
func TestOAuth1(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newSigner(t, db)
		back := s.begin(t)
		if want := "http://localhost:7420" + credential.CallbackPath(s.Environment, "x_oauth1"); s.back != want {
			t.Errorf("it comes back to %s, want %s", s.back, want)
		}
		done, err := s.finish(t, back)
		gatewaytest.Must(t, err)
		c := done.Connection
		if c.State != connection.Connected || c.AccountID != "42" || c.AccountLabel != "mia" || c.AuthMethod != "oauth2" || len(s.refused) != 0 {
			t.Fatalf("connected %+v, refused %v", c, s.refused)
		}
		if _, err := s.finish(t, back); code(err) != "flow_expired" {
			t.Errorf("the same answer again: %v", err)
		}
		got, err := s.calls(t, "x_oauth1", "read", map[string]any{"path": "/tweets", "query": map[string]any{"ids": "1,2"}})
		if err != nil || got.Path != "/2/tweets" || got.Query.Get("ids") != "1,2" {
			t.Errorf("a call: %v, %+v", err, got)
		}
		rec, err := s.Providers.Get(t.Context(), s.Environment, "x_oauth1")
		gatewaytest.Must(t, err)
		s.consume["our-client"] = "our-client-secret-2"
		_, err = s.Providers.Put(t.Context(), s.System.In(s.Environment), provider.Input{YAML: rec.Record.Source(), ClientID: "our-client", ClientSecret: secretOf("our-client-secret-2")}, account.Agreement{})
		gatewaytest.Must(t, err)
		if _, err := s.calls(t, "x_oauth1", "read", map[string]any{"path": "/tweets"}); err != nil {
			t.Errorf("after our secret was replaced: %v", err)
		}
		v, err := s.Credentials.Vend(t.Context(), s.app(t, account.ScopeConnectionsVend), c.ID, "")
		gatewaytest.Must(t, err)
		for name, value := range v.Credential.Values {
			if name == provider.FieldConsumerSecret || strings.Contains(string(value.Reveal()), "our-client-secret") {
				t.Errorf("vended with %s", name)
			}
		}
		if token := string(v.Credential.Values[provider.FieldToken].Reveal()); s.tokens[token] == "" || s.tokens[token] != string(v.Credential.Values[provider.FieldTokenSecret].Reveal()) {
			t.Errorf("vended %q", token)
		}
		d, err := s.Credentials.Disconnect(t.Context(), s.me(t), c.ID)
		if err != nil || d.Upstream != credential.RevokedUpstream || len(s.ended) != 1 || len(s.tokens) != 0 {
			t.Errorf("disconnected: %+v, %v; ended %v", d, err, s.ended)
		}
		for _, q := range s.asked {
			if sent := fmt.Sprint(q.Header, q.Query, q.Body); strings.Contains(sent, "secret-of-") || strings.Contains(sent, "our-client-secret") {
				t.Errorf("%s was sent a secret", q.Path)
			}
		}
	})
}

// O1, O3, O4 with OAuth 1.0: an answer counts once, for who began; a no is told as
// one; and what is not of RFC 5849 begins nothing.
func TestOAuth1Refuses(t *testing.T) {
	t.Parallel()
	s := newSigner(t, sqldbtest.Open(t, sqldb.SQLite))
	eve := s.Person(t, "eve@example.com", account.RoleOwner)
	back := s.begin(t)
	if _, err := s.Credentials.Callback(t.Context(), eve.Signed(t), s.Environment, "x_oauth1", back); code(err) != "flow_expired" {
		t.Errorf("in somebody else's browser: %v", err)
	}
	if _, err := s.finish(t, back); code(err) != "flow_expired" {
		t.Errorf("after that: %v", err)
	}
	back = s.begin(t)
	if _, err := s.finish(t, url.Values{"denied": back["oauth_token"]}); code(err) != "access_denied" {
		t.Errorf("a no: %v", err)
	}
	back = s.begin(t)
	if _, err := s.finish(t, url.Values{"oauth_token": back["oauth_token"]}); code(err) != "access_denied" {
		t.Errorf("an answer without a verifier: %v", err)
	}
	back = s.begin(t)
	if _, err := s.finish(t, url.Values{"oauth_token": {"temporary-of-eve"}, "oauth_verifier": back["oauth_verifier"]}); code(err) != "flow_expired" {
		t.Errorf("another token: %v", err)
	}
	if _, err := s.finish(t, url.Values{"state": back["oauth_token"], "code": {"x"}}); code(err) != "invalid_callback" {
		t.Errorf("an answer of OAuth 2: %v", err)
	}
	back = s.begin(t)
	back.Add("oauth_token", "temporary-of-eve")
	if _, err := s.finish(t, back); code(err) != "invalid_callback" {
		t.Errorf("two tokens: %v", err)
	}
	back = s.begin(t)
	back.Set("oauth_verifier", "wrong")
	if _, err := s.finish(t, back); code(err) != "exchange_failed" {
		t.Errorf("a wrong verifier: %v", err)
	}
	for name, told := range map[string]string{"not confirmed": "", "denied in words": "&oauth_callback_confirmed=false", "a token twice": "&oauth_callback_confirmed=true&oauth_token=y"} {
		s.told = told
		if _, err := s.Credentials.Authorize(t.Context(), s.owner.Signed(t), start(s.World, "x_oauth1")); code(err) != "exchange_failed" {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.consume = map[string]string{}
	if _, err := s.Credentials.Authorize(t.Context(), s.owner.Signed(t), start(s.World, "x_oauth1")); code(err) != "exchange_failed" {
		t.Errorf("a client that the provider does not know: %v", err)
	}
	// Tokens of OAuth 2 that somebody has make no connection here.
	st := start(s.World, "x_oauth1")
	if _, err := s.Credentials.TakeOver(t.Context(), s.me(t), st, s.owner.ID, credential.Held{Access: secretOf("a-bearer-token")}, account.Agreement{}); code(err) != "not_oauth" {
		t.Errorf("taken over: %v", err)
	}
	list, err := s.Connections.List(t.Context(), s.me(t), connection.Filter{Organization: s.Organization, Provider: "x_oauth1"})
	if err != nil || len(list.Connections) != 0 {
		t.Errorf("connected %v, %v", list.Connections, err)
	}
}

// Issue 5, "Disconnect: revocation at the provider in its own style": Trello's token is
// deleted at its own address, signed with itself.
func TestTrelloTokenIsGivenBack(t *testing.T) {
	t.Parallel()
	s := newSignerOf(t, sqldbtest.Open(t, sqldb.SQLite), "trello_oauth1")
	done, err := s.finish(t, s.begin(t))
	gatewaytest.Must(t, err)
	if d, err := s.Credentials.Disconnect(t.Context(), s.me(t), done.Connection.ID); err != nil || d.Upstream != credential.RevokedUpstream || len(s.ended) != 1 || len(s.tokens) != 0 || len(s.refused) > 0 {
		t.Errorf("disconnected: %+v, %v; ended %v, refused %v", d, err, s.ended, s.refused)
	}
}

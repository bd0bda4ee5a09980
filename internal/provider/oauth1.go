package provider

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // what RFC 5849 signs with
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
)

// SignOAuth1 is the signature of OAuth 1.0 (RFC 5849) with HMAC-SHA1.
const SignOAuth1 = "oauth1"

// DeleteOAuth1 is the style of revocation in which a token is a thing of its own below
// the address, and is deleted there.
const DeleteOAuth1 = "oauth1_delete"

// SignsRevocation reports that what gives a token back is signed with it.
func (o OAuth) SignsRevocation() bool {
	return o.RevokeStyle == SignOAuth1 || o.RevokeStyle == DeleteOAuth1
}

// The parts of a credential of OAuth 1.0: our client's, and the token's.
const (
	FieldConsumerKey    = "consumer_key"
	FieldConsumerSecret = "consumer_secret"
	FieldToken          = "token"
	FieldTokenSecret    = "token_secret"
)

// oauth1Parts lists them.
func oauth1Parts() []string {
	return []string{FieldConsumerKey, FieldConsumerSecret, FieldToken, FieldTokenSecret}
}

// SignForOAuth1 signs req with the parts of a credential: its method, address, query
// and, where its body is a form, that too (RFC 5849 §3.4.1.3). It is the last thing
// that happens to a request. RFC 5849 leaves other bodies unsigned.
func SignForOAuth1(req *http.Request, parts map[string]secret.Value, nonce string, now time.Time) error {
	for _, name := range oauth1Parts() {
		if parts[name].IsZero() {
			return fault.New(fault.Conflict, "credential_incomplete", "The connection's credential cannot sign.").WithHint("Reconnect.")
		}
	}
	form, err := formOf(req)
	if err != nil {
		return err
	}
	text := func(name string) string { return string(parts[name].Reveal()) }
	setHeader(req.Header, "Authorization", oauth1Header(req.Method, req.URL, form, text(FieldConsumerSecret), text(FieldTokenSecret), [][2]string{
		{"oauth_consumer_key", text(FieldConsumerKey)}, {"oauth_token", text(FieldToken)}, {"oauth_signature_method", "HMAC-SHA1"},
		{"oauth_timestamp", strconv.FormatInt(now.Unix(), 10)}, {"oauth_nonce", nonce}, {"oauth_version", "1.0"},
	}))
	return nil
}

// Ask1 is one of the two requests with which the flow of OAuth 1.0 gets a token (RFC
// 5849 §2.1 and §2.3), without a body. token and its secret are those of the request
// before; empty for the first. more is what it holds besides, such as oauth_callback.
func (c Client) Ask1(endpoint string, token, tokenSecret secret.Value, more [2]string, now time.Time) (*http.Request, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, fault.New(fault.Internal, "record_invalid", "The provider record's endpoint is not a URL.")
	}
	protocol := [][2]string{{"oauth_consumer_key", c.ID}, {"oauth_signature_method", "HMAC-SHA1"}, {"oauth_timestamp", strconv.FormatInt(now.Unix(), 10)},
		{"oauth_nonce", FreshNonce()}, {"oauth_version", "1.0"}, more}
	if !token.IsZero() {
		protocol = append(protocol, [2]string{"oauth_token", string(token.Reveal())})
	}
	req := &http.Request{Method: http.MethodPost, URL: u, Header: http.Header{"Accept": {"*/*"}}}
	req.Header.Set("Authorization", oauth1Header(req.Method, u, nil, string(c.Secret.Reveal()), string(tokenSecret.Reveal()), protocol))
	return req, nil
}

// Signed is what a request is signed with on behalf of an account that our client
// has a token for.
func (c Client) Signed(token, tokenSecret secret.Value) map[string]secret.Value {
	return map[string]secret.Value{FieldConsumerKey: secret.FromString(c.ID), FieldConsumerSecret: c.Secret, FieldToken: token, FieldTokenSecret: tokenSecret}
}

// lintSigned checks a flow of OAuth 1.0, which has less than that of OAuth 2.
func (o *OAuth) lintSigned(l *linter) {
	if o.SignsRevocation() && !o.Signs() {
		l.add("oauth2.revoke_style", "Use another.", "Only with request_url is a request signed.")
	}
	if !o.Signs() {
		return
	}
	l.url("oauth2.request_url", o.RequestURL, true)
	if at, err := url.Parse(o.RequestURL); err == nil { // so that it is among the places that a person agrees to, and pinned
		if to, err := url.Parse(o.TokenURL); err == nil && at.Host != to.Host {
			l.add("oauth2.request_url", "Write the host of token_url.", "It is on another host than token_url.")
		}
	}
	for field, there := range map[string]bool{
		"oauth2.issuer": o.Issuer != "", "oauth2.client_auth": o.ClientAuth == "none", "oauth2.client_id_param": o.ClientIDParam != "",
		"oauth2.token_params": len(o.TokenParams) > 0, "oauth2.token_answer": o.Answer.At != "", "oauth2.slots": len(o.Slots) > 0, "oauth2.longer": o.Longer != nil,
		"oauth2.refresh.url": o.Refresh.URL != "", "oauth2.refresh.swap": o.Refresh.Swap != nil, "oauth2.refresh.rotates": o.Refresh.Rotates, "oauth2.authorize_drop": len(o.AuthorizeDrop) > 0,
		"oauth2.pkce": o.PKCE != nil && *o.PKCE,
	} {
		if there {
			l.add(field, "Leave it out; what the provider wants more is in authorize_params.", "OAuth 1.0 has none.")
		}
	}
	if !o.SignsRevocation() && o.RevokeStyle != "none" {
		l.add("oauth2.revoke_style", "Use oauth1 or oauth1_delete, or leave revoke_url out.", "OAuth 1.0 gives a token back in no other way.")
	}
}

// formOf reads a body that is a form.
func formOf(req *http.Request) (url.Values, error) {
	media, _, _ := strings.Cut(req.Header.Get("Content-Type"), ";")
	if req.Body == nil && req.GetBody == nil || !strings.EqualFold(strings.TrimSpace(media), "application/x-www-form-urlencoded") {
		return nil, nil
	}
	if req.GetBody == nil { // it streams, and its signature goes before it
		return nil, fault.New(fault.TooLarge, "body_too_large", "A form of this size cannot be signed.").WithHint("Send less at once, or another kind of body.")
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, err
	}
	doc, err := io.ReadAll(io.LimitReader(body, maxMaxBody))
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(doc))
	if err != nil {
		return nil, fault.New(fault.Invalid, "request_invalid", "The request's body is no form.")
	}
	return form, nil
}

// oauth1Header is the value of the header Authorization (RFC 5849 §3.5.1).
func oauth1Header(method string, u *url.URL, form url.Values, consumerSecret, tokenSecret string, protocol [][2]string) string {
	mac := hmac.New(sha1.New, []byte(percent(consumerSecret)+"&"+percent(tokenSecret)))
	_, _ = io.WriteString(mac, oauth1Base(method, u, form, protocol))
	var b strings.Builder
	b.WriteString("OAuth ")
	for _, p := range append(slices.Clone(protocol), [2]string{"oauth_signature", base64.StdEncoding.EncodeToString(mac.Sum(nil))}) {
		b.WriteString(p[0] + `="` + percent(p[1]) + `", `)
	}
	return strings.TrimSuffix(b.String(), ", ")
}

// oauth1Base is the signature base string (RFC 5849 §3.4.1).
func oauth1Base(method string, u *url.URL, form url.Values, protocol [][2]string) string {
	var all [][2]string
	add := func(name, value string) { all = append(all, [2]string{percent(name), percent(value)}) }
	for _, values := range []url.Values{u.Query(), form} {
		for name, list := range values {
			for _, v := range list {
				add(name, v)
			}
		}
	}
	for _, p := range protocol {
		add(p[0], p[1])
	}
	slices.SortFunc(all, func(a, b [2]string) int {
		if c := strings.Compare(a[0], b[0]); c != 0 {
			return c
		}
		return strings.Compare(a[1], b[1])
	})
	pairs := make([]string, len(all))
	for i, p := range all {
		pairs[i] = p[0] + "=" + p[1]
	}
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	host = strings.TrimSuffix(host, map[string]string{"http": ":80", "https": ":443"}[scheme])
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	return strings.ToUpper(method) + "&" + percent(scheme+"://"+host+path) + "&" + percent(strings.Join(pairs, "&"))
}

// percent encodes as RFC 5849 §3.6 says: all but the unreserved characters of RFC
// 3986, in capitals.
func percent(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}

// FreshNonce is one that no other request has.
func FreshNonce() string { return rand.Text() }

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

// formOf reads a body that is a form.
func formOf(req *http.Request) (url.Values, error) {
	media, _, _ := strings.Cut(req.Header.Get("Content-Type"), ";")
	if req.GetBody == nil || !strings.EqualFold(strings.TrimSpace(media), "application/x-www-form-urlencoded") {
		return nil, nil
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

// freshNonce is one that no other request has.
func freshNonce() string { return rand.Text() }

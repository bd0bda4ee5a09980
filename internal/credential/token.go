package credential

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// grant is a token endpoint's answer (RFC 6749 §5.1), read tolerantly: real
// providers send numbers as text, forms for JSON, and errors with status 200.
type grant struct {
	access   secret.Value
	refresh  secret.Value
	lifetime time.Duration                    // zero: not said
	unasked  bool                             // there is nothing that its account could be asked for with
	spent    bool                             // the access token has expired, or there is none
	scopes   []string                         // nil: as asked for
	member   func(path string) (string, bool) // of the answer, for what the record captures
	given    bool                             // somebody handed it in, and did not sign in for it
	parts    map[string]secret.Value          // what a call carries instead of an access token, or what else is kept

	part func(at string) (grant, bool) // another token that the answer holds, of a slot
	slot *provider.Slot                // it is the answer for this slot, and not for the connection's own token
	gone bool                          // the slot has no token any more
	also []string                      // scopes of slots
}

// tokenError is an error answer of a token endpoint. Its text is a code of RFC
// 6749 §5.2, never the provider's prose, which may quote what was sent.
type tokenError struct {
	code   string
	status int
	retry  time.Duration
	sent   bool // the provider may have acted although we have no answer
}

func (e *tokenError) Error() string {
	return fmt.Sprintf("token endpoint: %s (status %d)", e.code, e.status)
}

// The classes of a failed refresh, which decide what it means.
const (
	classGrant     = "grant"     // this grant is dead
	classClient    = "client"    // our client registration is refused: nobody's connection is to blame
	classConfig    = "config"    // the request itself is refused
	classTransient = "transient" // try later
)

func (e *tokenError) class() string {
	switch e.code {
	case "invalid_grant", "invalid_refresh_token", "token_revoked", "bad_refresh_token", "interaction_required", "consent_required", "login_required", "token_expired", "account_inactive", "invalid_auth",
		"invalid_code", "invalid_token", "expired_token", codeUnusable, codeRejected:
		return classGrant
	case "invalid_client", "unauthorized_client", "incorrect_client_credentials", "bad_client_secret": // the latter two are GitHub's and Slack's
		return classClient
	case "invalid_request", "invalid_scope", "unsupported_grant_type", "unreadable":
		return classConfig
	}
	return classTransient
}

// codeRejected says that what a person gave for a connection is not accepted.
const codeRejected = "credential_rejected"

var tokenLimits = outbound.Limits{Body: 1 << 20, Timeout: 30 * time.Second}

// ask posts a form to a pinned token endpoint. Redirects are not followed, and
// the answer's text goes nowhere but into the parser.
func (s *Service) ask(ctx context.Context, endpoint string, o *provider.OAuth, client provider.Client, form url.Values) (grant, error) {
	var g grant
	err := s.asClient(ctx, client, func(client provider.Client) error {
		header, form := http.Header{"Accept": {"application/json"}}, maps.Clone(form)
		authenticate(o.ClientAuth, client, header, form)
		renameClient(form, o)
		resp, err := s.send(ctx, http.MethodPost, endpoint, header, encoded(header, form, o.TokenBody == "json"))
		if err != nil {
			return unanswered(err)
		}
		g, err = parseGrant(resp, o.Answer.At, s.now())
		return err
	})
	return g, err
}

// codeClientRefused says that a revocation endpoint does not know our client.
const codeClientRefused = "client_refused"

// asClient does something as our client. While its secret is being replaced it is
// done once more with the old one where the provider does not know the new one: it
// looked at nothing else then (RFC 6749 §5.2), so no code and no token is spent. That
// the old one was still needed is on record.
func (s *Service) asClient(ctx context.Context, c provider.Client, do func(provider.Client) error) error {
	unknown := func(err error) bool {
		te := (*tokenError)(nil)
		return errors.As(err, &te) && te.class() == classClient && te.code != "unauthorized_client" || fault.Is(err, codeClientRefused)
	}
	err := do(c)
	if c.Old.IsZero() || !unknown(err) {
		return err
	}
	before := c
	before.Secret, before.Old = c.Old, secret.Value{}
	again := do(before)
	if unknown(again) {
		return err
	}
	if rerr := s.audit.Record(context.WithoutCancel(ctx), audit.Entry{Environment: c.Environment, Organization: c.Organization, Actor: system, Action: "provider.old_secret_used",
		Object: c.Provider, Provider: c.Provider, Detail: map[string]string{"client_id": c.ID}}); rerr != nil { // the answer in hand may be the only one, so it is not thrown away
		s.log.Error("that a client's old secret was needed could not be recorded", "provider", c.Provider, "error", rerr)
	}
	return again
}

// unanswered is a request to a token endpoint that came to no whole answer.
func unanswered(err error) *tokenError {
	return &tokenError{code: fault.Of(err).Code, sent: outbound.Sent(err)}
}

// encoded writes a form in the way that an endpoint takes, and says so in header.
func encoded(header http.Header, form url.Values, asJSON bool) []byte {
	if !asJSON {
		header.Set("Content-Type", "application/x-www-form-urlencoded")
		return []byte(form.Encode())
	}
	header.Set("Content-Type", "application/json")
	fields := map[string]string{}
	for k := range form {
		fields[k] = form.Get(k)
	}
	out, _ := json.Marshal(fields) // a map of texts always has a JSON form
	return out
}

// renameClient gives client_id the name that the provider has for it.
func renameClient(form url.Values, o *provider.OAuth) {
	if id := form["client_id"]; id != nil && o.ClientIDParam != "client_id" && o.ClientIDParam != "" {
		form[o.ClientIDParam] = id
		form.Del("client_id")
	}
}

// authenticate puts our client's credential where the provider wants it.
func authenticate(method string, client provider.Client, header http.Header, form url.Values) {
	switch method {
	case "post":
		form.Set("client_id", client.ID)
		form.Set("client_secret", string(client.Secret.Reveal()))
	case "none":
		form.Set("client_id", client.ID)
	case "assertion": // RFC 7523 §2.1: says who asks by itself
	default: // RFC 6749 §2.3.1: both parts are form-encoded first
		req := &http.Request{Header: header}
		req.SetBasicAuth(url.QueryEscape(client.ID), url.QueryEscape(string(client.Secret.Reveal())))
	}
}

// send makes one request to a pinned endpoint. A nil body is none.
func (s *Service) send(ctx context.Context, method, endpoint string, header http.Header, body []byte) (*outbound.Response, error) {
	return s.sendWithin(ctx, method, endpoint, endpoint, header, body)
}

// sendWithin makes one request to a place at or below a pinned one.
func (s *Service) sendWithin(ctx context.Context, method, pinned, place string, header http.Header, body []byte) (*outbound.Response, error) {
	req, err := request(method, place, header, body)
	if err != nil {
		return nil, err
	}
	return s.outbound.Do(ctx, outbound.Bound{Bases: []string{pinned}}, req, tokenLimits)
}

func request(method, place string, header http.Header, body []byte) (*http.Request, error) {
	u, err := url.Parse(place)
	if err != nil {
		return nil, fault.New(fault.Internal, "record_invalid", "The provider record's endpoint is not a URL.")
	}
	req := &http.Request{Method: method, URL: u, Header: header}
	if body != nil {
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil } // on another connection, when nothing was sent on the first
		req.Body, _ = req.GetBody()
		req.ContentLength = int64(len(body))
	}
	return req, nil
}

// parseGrant reads an answer. An error, whatever its status, is a tokenError. at
// is the member that holds the person's tokens, when the answer has it.
func parseGrant(resp *outbound.Response, at string, now time.Time) (grant, error) {
	fields := map[string]string{}
	member := func(name string) (string, bool) { v, ok := fields[name]; return v, ok }
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if media == "application/x-www-form-urlencoded" || media == "text/plain" && !strings.HasPrefix(strings.TrimSpace(string(resp.Body)), "{") {
		values, err := url.ParseQuery(string(resp.Body))
		if err == nil {
			for k := range values {
				fields[k] = values.Get(k)
			}
		}
	} else if strictjson.Check(resp.Body, strictjson.Limits{}) == nil {
		var doc map[string]json.RawMessage
		if json.Unmarshal(resp.Body, &doc) == nil {
			readFields(fields, doc, at)
			member = provider.FieldIn(resp.Body)
		}
	}
	if fields["error"] == "" {
		fields["error"] = nestedError(resp.Body)
	}
	failed := &tokenError{code: fields["error"], status: resp.Status, retry: retryAfter(resp.Header)}
	switch {
	case resp.Status == http.StatusTooManyRequests || resp.Status >= 500 || resp.Status == http.StatusRequestTimeout:
		failed.code, failed.sent = "unavailable", resp.Status >= 500
		return grant{}, failed
	case fields["error"] != "":
		if strings.ContainsFunc(failed.code, func(r rune) bool { return r < 0x21 || r > 0x7e }) || len(failed.code) > 64 {
			failed.code = "unreadable"
		}
		return grant{}, failed
	case resp.Status == http.StatusUnauthorized:
		failed.code = "invalid_client"
		return grant{}, failed
	case fields["ok"] == "false": // the house style of some, with status 200
		failed.code = "unreadable"
		return grant{}, failed
	case resp.Status < 200 || resp.Status > 299, fields["access_token"] == "":
		failed.code, failed.sent = "unreadable", resp.Status >= 200 && resp.Status <= 299
		return grant{}, failed
	}
	g := grantOf(fields, now)
	g.member = member
	g.part = func(at string) (grant, bool) {
		var whole, doc map[string]json.RawMessage
		if json.Unmarshal(resp.Body, &whole) != nil {
			return grant{}, false
		}
		if doc = whole; at != "." {
			doc = nil
			if json.Unmarshal(whole[at], &doc) != nil {
				return grant{}, false
			}
		}
		inner := map[string]string{}
		readFields(inner, doc, "")
		return grantOf(inner, now), inner["access_token"] != ""
	}
	return g, nil
}

func grantOf(fields map[string]string, now time.Time) grant {
	g := grant{access: secret.FromString(fields["access_token"]), refresh: secret.FromString(fields["refresh_token"]), lifetime: lifetime(fields["expires_in"])}
	if g.lifetime == 0 {
		g.lifetime = until(fields["expires_at"], now)
	}
	if scope, ok := fields["scope"]; ok {
		g.scopes = strings.FieldsFunc(scope, func(r rune) bool { return r == ' ' || r == ',' })
	}
	return g
}

// readFields takes an answer's members, and those of the member at instead when
// that holds a token: tokens of two parties in one answer are never mixed.
func readFields(fields map[string]string, doc map[string]json.RawMessage, at string) {
	var inner map[string]json.RawMessage
	if at != "" && json.Unmarshal(doc[at], &inner) == nil && scalar(inner["access_token"], false) != "" {
		if failure := scalar(doc["error"], false); failure != "" || scalar(doc["ok"], false) == "false" {
			fields["error"] = cmp.Or(failure, "unreadable")
			return
		}
		doc = inner
	}
	for k, v := range doc {
		fields[k] = scalar(v, k == "scope")
	}
}

// nestedError reads an error that is an object with a number, as Meta has it: 190
// is a token that has ended. What else it says is not read.
func nestedError(body []byte) string {
	var doc struct {
		Error *struct {
			Code int `json:"code"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &doc) != nil || doc.Error == nil {
		return ""
	}
	switch doc.Error.Code {
	case 190, 102, 463, 467:
		return "invalid_grant"
	case 1, 2, 4, 17, 341:
		return "temporarily_unavailable"
	case 101, 191:
		return "invalid_client"
	}
	return "unreadable"
}

// until reads expires_at: a time of RFC 3339, or seconds since 1970.
func until(s string, now time.Time) time.Duration {
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		seconds, err := strconv.ParseFloat(s, 64)
		if err != nil || !(seconds > 0 && seconds < 1e11) { // to the year 5138; milliseconds are not meant
			return 0
		}
		at = time.Unix(int64(seconds), 0)
	}
	if left := at.Sub(now); left > 0 && left <= 10*365*24*time.Hour {
		return left
	}
	return 0
}

// scalar gives the text of a JSON string, number or boolean. A list of strings is
// joined where one may be, for providers that send scopes that way.
func scalar(v json.RawMessage, list bool) string {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return s
	}
	var all []string
	if list && json.Unmarshal(v, &all) == nil {
		return strings.Join(all, " ")
	}
	if t := strings.TrimSpace(string(v)); t != "" && t != "null" && t[0] != '{' && t[0] != '[' {
		return t
	}
	return ""
}

// lifetime reads expires_in. Nonsense counts as not said: zero and negative
// numbers, and what is longer than ten years.
func lifetime(s string) time.Duration {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || f <= 0 || f > 10*365*24*3600 {
		return 0
	}
	return time.Duration(f * float64(time.Second))
}

func retryAfter(h http.Header) time.Duration {
	n, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || n < 0 {
		return 0
	}
	return min(time.Duration(n)*time.Second, time.Hour)
}

// apply makes the row and material that follow from an answer.
func (g grant) apply(rec provider.Record, r row, old material, now time.Time) (row, material) {
	slots := rec.OAuth != nil && len(rec.OAuth.Slots) > 0
	if g.slot != nil {
		m := material{values: maps.Clone(old.values)}
		g.ontoSlot(m, now)
		r.obtainedAt = now
		_, r.expiresAt = firstToEnd(rec.OAuth, m)
		return r, m
	}
	m := g.onto(old)
	if old.values == nil {
		m.values[fieldGrant] = secret.FromString(rand.Text()) // the first of its grant
	}
	life := g.lifetime
	if life == 0 && !r.expiresAt.IsZero() && !slots {
		life = r.expiresAt.Sub(r.obtainedAt) // as it was before
	}
	if life == 0 {
		life = time.Duration(rec.Endpoint().DefaultTTL) * time.Second
	}
	r.obtainedAt, r.expiresAt = now, time.Time{}
	if life > 0 {
		r.expiresAt = now.Add(life)
	}
	if g.spent {
		r.expiresAt = now
	}
	if slots {
		m.setEnds("", r.expiresAt)
		_, r.expiresAt = firstToEnd(rec.OAuth, m)
	}
	if g.scopes != nil {
		r.scopes = append(slices.Clone(g.scopes), g.also...)
	}
	r.refreshable = schemeOf(r.kind).renews(rec, m)
	return r, m
}

package provider

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
)

// Account is whose account a credential opens, as the provider says.
type Account struct {
	ID    string // stable; what a reconnect must match
	Label string // for people, such as an e-mail address

	Values map[string]string // what the answer tells of the record's names
}

const (
	maxAccountField = 256
	maxProbe        = 1 << 20
)

// Identify asks the provider whose account cred opens, at the pinned place. A
// record without an identity call gives the zero Account.
func Identify(ctx context.Context, client *outbound.Client, pinned Pinned, rec Record, cred Credential) (Account, error) {
	if rec.Auth == Database {
		return rec.identifySQL(ctx, client, pinned, cred)
	}
	if rec.MCP != nil && rec.Identity == nil {
		return Account{}, rec.identifyMCP(ctx, client, pinned, cred)
	}
	if rec.Identity == nil {
		return Account{}, nil
	}
	body, red, err := rec.probe(ctx, client, rec.Identity, pinned.Identity, pinned.Realm, cred)
	if err != nil {
		return Account{}, err
	}
	account := Account{}
	var ok bool
	if account.ID, ok = fieldOf(body, rec.Identity.ID); !ok {
		return Account{}, fault.New(fault.Unavailable, "identity_unreadable", "The provider's answer does not tell whose account this is.").
			WithHint("Check identity.id in the provider record against what the provider answers.")
	}
	if rec.Identity.Label != "" {
		account.Label, _ = fieldOf(body, rec.Identity.Label)
	}
	if account.Label == "" {
		account.Label = account.ID
	}
	if red.Finds([]byte(account.ID)) || red.Finds([]byte(account.Label)) {
		return Account{}, fault.New(fault.Unavailable, "identity_unreadable", "The provider answers with the credential where the account's name should be.").
			WithHint("Check identity.id and identity.label in the provider record.")
	}
	if account.Values, err = rec.Captured("identity", FieldIn(body)); err != nil {
		return Account{}, err
	}
	for _, v := range account.Values {
		if red.Finds([]byte(v)) {
			return Account{}, fault.New(fault.Unavailable, "identity_unreadable", "The provider answers with the credential where an address should be.").
				WithHint("Check capture in the provider record.")
		}
	}
	return account, nil
}

// CheckHealth makes the record's health call, or its identity call when there is
// none. Without either it does nothing.
func CheckHealth(ctx context.Context, client *outbound.Client, pinned Pinned, rec Record, cred Credential) error {
	if rec.Health == nil || len(pinned.API) == 0 {
		_, err := Identify(ctx, client, pinned, rec, cred)
		return err
	}
	_, _, err := rec.probe(ctx, client, &Identity{Method: http.MethodGet}, joinURL(pinned.API[0], rec.Health.Path), pinned.Realm, cred)
	return err
}

// CodeRefused says that a provider does not take a credential.
const CodeRefused = "credential_rejected"

func credentialRefused() *fault.Error {
	return fault.New(fault.Denied, CodeRefused, "The provider refused the credential.").WithHint("Check that it is complete and still valid, and reconnect.")
}

func (r Record) probe(ctx context.Context, client *outbound.Client, call *Identity, place, realm string, cred Credential) ([]byte, *Redactor, error) {
	u, err := url.Parse(place)
	if err != nil || place == "" {
		return nil, nil, fault.New(fault.Internal, "record_invalid", "The connection has no place to ask.")
	}
	q := url.Values{}
	for k, v := range call.Query {
		q.Set(k, v)
	}
	u.RawQuery = q.Encode()
	req := &Request{Method: call.Method, URL: u}
	if call.Body != nil {
		req.Body, req.Header = call.Body, http.Header{"Content-Type": {"application/json"}}
	}
	resp, red, err := r.send(ctx, client, outbound.Bound{Bases: []string{place}, Party: cred.Party}, realm, req, cred, outbound.Limits{Body: maxProbe})
	switch {
	case err != nil:
		return nil, nil, err
	case resp.Status == http.StatusUnauthorized || resp.Status == http.StatusForbidden:
		return nil, nil, credentialRefused()
	case resp.Status < 200 || resp.Status > 299:
		return nil, nil, fault.New(fault.Unavailable, "upstream_error", "The provider answered with status "+strconv.Itoa(resp.Status)+".").WithHint("Try again later.")
	}
	return resp.Body, red, nil
}

// fieldOf reads a short printable scalar by a path such as data.0.id. Numbers
// keep their digits.
func fieldOf(doc []byte, path string) (string, bool) {
	text, ok := fieldText(doc, path)
	if !ok || len(text) > maxAccountField || strings.ContainsFunc(text, unprintable) {
		return "", false
	}
	return text, true
}

// fieldValue finds a field such as data.0.title in a document.
func fieldValue(doc []byte, path string) (jsontext.Value, bool) {
	v := jsontext.Value(doc)
	for part := range strings.SplitSeq(path, ".") {
		switch v.Kind() {
		case '{':
			list, err := members(v)
			if err != nil {
				return nil, false
			}
			v = nil
			for _, m := range list {
				if m.name == part {
					v = m.value
				}
			}
		case '[':
			var list []jsontext.Value
			i, err := strconv.Atoi(part)
			if err != nil || unmarshal(v, &list) != nil || i < 0 || i >= len(list) {
				return nil, false
			}
			v = list[i]
		default:
			return nil, false
		}
		if v == nil {
			return nil, false
		}
	}
	return v, true
}

// fieldText is fieldOf for any text.
func fieldText(doc []byte, path string) (string, bool) {
	v, ok := fieldValue(doc, path)
	if !ok {
		return "", false
	}
	if k := v.Kind(); k != '"' && k != '0' {
		return "", false
	}
	s, err := scalars(v)
	if err != nil || len(s) != 1 || s[0] == "" {
		return "", false
	}
	return s[0], true
}

func validFieldPath(s string) bool {
	if len(s) > 200 {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		if part == "" || strings.ContainsFunc(part, unprintable) {
			return false
		}
	}
	return true
}

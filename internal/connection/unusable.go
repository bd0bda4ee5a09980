package connection

import (
	"net/url"
	"strings"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
)

// The refusals that mean "there is no account that works" are made here and
// nowhere else, so that none of them leaves without the page on which a person
// mends it.

// The codes of these refusals.
const (
	CodeConnect   = "connect_provider" // no account is connected there
	CodeReconnect = "reconnect"        // there is one, and its credential does not work
)

// ConnectURL is the page where a person connects an account at a provider for
// an organization.
func (s *Service) ConnectURL(org id.Organization, provider string) string {
	return s.page(url.Values{"org": {string(org)}, "provider": {provider}})
}

// ReconnectURL is the page where a person gives a connection a new credential.
// For a connection that has ended it is the page that makes a new one at the
// same provider.
func (s *Service) ReconnectURL(conn id.Connection) string {
	return s.page(url.Values{"reconnect": {string(conn)}})
}

func (s *Service) page(q url.Values) string {
	u := s.cfg.PublicURL.JoinPath("ui", "connections", "new")
	u.RawQuery = q.Encode()
	return u.String()
}

// MustConnect refuses what needs an account at a provider where none is
// connected. The field connect_url names the page.
func (s *Service) MustConnect(org id.Organization, provider string) *fault.Error {
	return fault.New(fault.Denied, CodeConnect, "No account at "+quote(provider)+" is connected.").
		WithHint("Ask the person to connect one at the URL, then ask again.").
		With("connect_url", s.ConnectURL(org, provider)).With("provider", provider)
}

// MustReconnect refuses what needs a connection whose credential does not work;
// why says so in a sentence. The field connect_url names the page.
func (s *Service) MustReconnect(conn id.Connection, why string) *fault.Error {
	return fault.New(fault.Denied, CodeReconnect, why).
		WithHint("Ask the person to connect the account again at the URL, then try again.").With("connect_url", s.ReconnectURL(conn))
}

// CodeScopes is the code of a refusal for want of scopes.
const CodeScopes = "scope_missing"

// MustWiden refuses a call that needs scopes which the account was not granted. The
// field connect_url names the page where a person grants them.
func (s *Service) MustWiden(conn id.Connection, account string, lacks []string) *fault.Error {
	return fault.New(fault.Denied, CodeScopes, "The account "+quote(account)+" was connected without what this tool needs at the provider: "+strings.Join(lacks, " ")+".").
		WithHint("Nothing was sent. Ask the person to connect the account again at the URL and to grant it there, then try again; what the account has already stays.").
		With("connect_url", s.ReconnectURL(conn)).With("scopes", strings.Join(lacks, " "))
}

func quote(s string) string {
	if len(s) > 64 {
		s = s[:64] + "\u2026"
	}
	return "\"" + s + "\""
}

// Package connection keeps the record of one owner's account at one provider:
// who owns it, whose account it is, where its credential may go, and whether it
// works. It holds no secret. A row appears when the connection is made; from
// then on its id is what sessions, policies and the audit refer to.
//
// What the connection was made with is pinned: the provider's record by its
// digest and the places taken from it. An edited record reaches a connection
// only through a reconnect, which keeps the id and takes no other account than
// the one that was there (threats.md O15).
package connection

import (
	"time"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
)

// State is where a connection is in its life.
type State string

const (
	Connected    State = "connected"
	NeedsReauth  State = "needs_reauthorization" // the credential does not work any more; a reconnect mends it
	Disconnected State = "disconnected"          // for good
)

// Connection is one owner's account at one provider.
type Connection struct {
	ID                id.Connection
	Environment       id.Environment
	Organization      id.Organization
	Owner             id.User // empty: the organization's own
	Provider          string
	State             State
	Reason            string // why the state is not connected; a stable code
	AccountID         string // the provider's id of the account; empty when its record has no identity call
	AccountLabel      string
	AuthMethod        string // kind of credential, such as oauth2 or api_key
	Pinned            provider.Pinned
	Record            provider.Record // as it was when the connection was made
	Place             string          // which tenant's account it is, in a form to compare; empty: the provider has one
	Scopes            []string        // as the provider granted them
	Asked             []string        // the scopes that were asked for
	ReauthorizeBy     time.Time       // when a person must have connected it again; zero: nobody said
	CredentialVersion int64
	CreatedAt         time.Time
	UpdatedAt         time.Time
	EndedAt           time.Time
	Version           int64
}

// Live reports whether the connection has not ended.
func (c Connection) Live() bool { return c.State != Disconnected }

// Why says in a sentence why the connection does not work, or has ended.
func (c Connection) Why() string {
	switch c.Reason {
	case "":
		return ""
	case "disconnected":
		return "Somebody disconnected it."
	case "bulk_revoked":
		return "It was disconnected together with others."
	case "owner_left":
		return "Its owner left the organization."
	case Restored:
		return "It came back with a backup, so it is not known whether it is still wanted."
	case recordOutdated:
		return "The provider's record that it was made with is not valid any more."
	case "credential_rejected":
		return "The provider does not take its key any more."
	case "no_refresh_token":
		return "Its access has expired, and the provider gave nothing to renew it with: it was made without lasting access."
	case "refresh_outcome_unknown":
		return "An answer of the provider was lost on the way, and with it perhaps the only key that works."
	case "destination_refused", "account_differs":
		return "The provider's answer led to an address that is not this account's, and was not followed."
	case "reauthorize_by":
		return "The provider ends every access after a time, and that has come."
	case "provider_revoked":
		return "The provider says that the access was revoked there."
	case provider.ReasonSuspended:
		return "The provider says that the access is suspended there."
	case "credential_unusable":
		return "The provider's new key is too short to be kept out of what agents read."
	}
	return "The provider has ended the access."
}

// Lacking lists the scopes that were asked for and not granted.
func (c Connection) Lacking() []string { return c.Missing(c.Asked) }

// Missing lists the scopes of want that the connection was not granted. A
// connection whose credential has no scopes misses none.
func (c Connection) Missing(want []string) []string {
	if len(c.Scopes) == 0 && c.AuthMethod != string(provider.OAuth2) {
		return nil
	}
	have := make(map[string]bool, len(c.Scopes))
	for _, s := range c.Scopes {
		have[s] = true
	}
	var out []string
	for _, s := range want {
		if !have[s] {
			out = append(out, s)
		}
	}
	return out
}

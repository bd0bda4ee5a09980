// Package softkey is a WebAuthn authenticator in software: it registers and
// asserts with real keys, for tests and for the client that plays the person in
// the demo. It stands on the side of the person's browser; the server trusts it
// exactly as far as it trusts any other, and nothing on the server imports it.
package softkey

import (
	"errors"
	"fmt"
	"sync"

	"github.com/descope/virtualwebauthn"
)

// Authenticator holds passkeys like a phone or a security key, and answers for
// the browser too: it says from which origin the page comes. The exported
// fields are set before use. It is safe for concurrent use.
type Authenticator struct {
	Origin string // of the page, such as http://localhost:7420
	// Unverified answers without verifying the person, as a key without a PIN.
	Unverified bool
	// Synced leaves the signature counter at zero, as cloud-synced passkeys do.
	Synced bool

	mu   sync.Mutex
	keys []*key
}

type key struct {
	party  string
	handle []byte
	cred   virtualwebauthn.Credential
}

// New makes an empty authenticator in a browser at origin.
func New(origin string) *Authenticator { return &Authenticator{Origin: origin} }

// Register makes a passkey as creation options (JSON, with or without the outer
// "publicKey") ask, and gives the credential's JSON.
func (a *Authenticator) Register(optionsJSON []byte) (credentialJSON []byte, err error) {
	options, err := virtualwebauthn.ParseAttestationOptions(string(optionsJSON))
	if err != nil {
		return nil, fmt.Errorf("reading creation options: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range a.keys {
		if k.party == options.RelyingPartyID && k.cred.IsExcludedForAttestation(*options) {
			return nil, errors.New("this authenticator holds a passkey that the server has already")
		}
	}
	k := &key{party: options.RelyingPartyID, handle: []byte(options.UserID), cred: newCredential()}
	a.keys = append(a.keys, k)
	return []byte(virtualwebauthn.CreateAttestationResponse(a.relying(k), a.as(k), k.cred, *options)), nil
}

// Assert answers request options with the passkey they allow, or with the
// newest one of that relying party if they name none.
func (a *Authenticator) Assert(optionsJSON []byte) (credentialJSON []byte, err error) {
	options, err := virtualwebauthn.ParseAssertionOptions(string(optionsJSON))
	if err != nil {
		return nil, fmt.Errorf("reading request options: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := len(a.keys) - 1; i >= 0; i-- {
		k := a.keys[i]
		if k.party != options.RelyingPartyID || len(options.AllowCredentials) > 0 && !k.cred.IsAllowedForAssertion(*options) {
			continue
		}
		if !a.Synced {
			k.cred.Counter++
		}
		return []byte(virtualwebauthn.CreateAssertionResponse(a.relying(k), a.as(k), k.cred, *options)), nil
	}
	return nil, errors.New("this authenticator holds no passkey that the server asks for")
}

// Clone copies the passkeys, and where their counters stand, into another
// authenticator.
func (a *Authenticator) Clone() *Authenticator {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := &Authenticator{Origin: a.Origin, Unverified: a.Unverified, Synced: a.Synced}
	for _, k := range a.keys {
		copied := *k
		c.keys = append(c.keys, &copied)
	}
	return c
}

func (a *Authenticator) relying(k *key) virtualwebauthn.RelyingParty {
	return virtualwebauthn.RelyingParty{ID: k.party, Name: "Ambit", Origin: a.Origin}
}

func (a *Authenticator) as(k *key) virtualwebauthn.Authenticator {
	return virtualwebauthn.NewAuthenticatorWithOptions(virtualwebauthn.AuthenticatorOptions{
		UserHandle: k.handle, UserNotVerified: a.Unverified, BackupEligible: a.Synced, BackupState: a.Synced,
	})
}

// newCredential makes a P-256 key. The library writes coordinates without
// leading zero bytes, which no COSE reader accepts, so such a key is not used.
func newCredential() virtualwebauthn.Credential {
	const wellFormed = 77 // bytes of a COSE P-256 key with 32-byte coordinates
	for {
		c := virtualwebauthn.NewCredential(virtualwebauthn.KeyTypeEC2)
		if len(c.Key.AttestationData()) == wellFormed {
			return c
		}
	}
}

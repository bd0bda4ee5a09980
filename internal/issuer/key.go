package issuer

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/strictjson"
	"github.com/ambit-dev/ambit/internal/throttle"
)

const (
	maxKeySet   = 128 << 10 // bytes
	maxKeys     = 50
	keySetFor   = 10 * time.Minute // how long one counts without another look
	keySetAgain = time.Minute      // the least between two looks because of an unknown key, or after a failure
	fetchTime   = 5 * time.Second
	maxSets     = 1000
)

// algorithms are those that somebody else's signature may have: none that takes
// a shared secret, and not "none" (threats.md S15).
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}
}

// Algorithms names the signatures that we take, for the metadata.
func Algorithms() []string {
	var out []string
	for _, a := range algorithms() {
		out = append(out, string(a))
	}
	return out
}

// ReadKeys reads a JWK Set (RFC 7517) of public keys for signatures. Keys that we
// cannot use are left out, since a set may hold others beside them.
func ReadKeys(doc []byte) (jose.JSONWebKeySet, error) {
	bad := func(msg string) (jose.JSONWebKeySet, error) { return jose.JSONWebKeySet{}, badKeys(msg) }
	if err := strictjson.Check(doc, strictjson.Limits{Bytes: maxKeySet, Depth: 8, Items: 5000}); err != nil {
		return bad("The keys are not a JWK Set: " + fault.Of(err).Message)
	}
	var raw struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(doc, &raw); err != nil || len(raw.Keys) > maxKeys {
		return bad("The keys are a JWK Set of at most 50.")
	}
	var set jose.JSONWebKeySet
	for _, one := range raw.Keys {
		var k jose.JSONWebKey
		if k.UnmarshalJSON(one) != nil {
			continue
		}
		switch pub := k.Key.(type) {
		case *rsa.PublicKey:
			if pub.N.BitLen() < 2048 || pub.N.BitLen() > 8192 {
				continue
			}
		case *ecdsa.PublicKey, ed25519.PublicKey:
		case *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey:
			return bad("A JWK Set for us holds public keys only. Treat this private key as lost.")
		default:
			continue
		}
		if k.Use == "" || k.Use == "sig" || k.Use == "jwt-svid" { // the last in bundles of SPIFFE
			set.Keys = append(set.Keys, k)
		}
	}
	if len(set.Keys) == 0 {
		return bad("The JWK Set holds no public key for signatures that we know (RSA from 2048 bits, EC, Ed25519).")
	}
	return set, nil
}

// CanonicalKeys is a JWK Set as it is stored: what ReadKeys kept of it.
func CanonicalKeys(doc string) (string, error) {
	set, err := ReadKeys([]byte(doc))
	if err != nil {
		return "", err
	}
	out, err := json.Marshal(set)
	return string(out), err
}

// Reader fetches what issuers publish, and remembers it for a while. It is safe for
// concurrent use.
type Reader struct {
	outbound *outbound.Client
	fetches  *throttle.Limiter // by address
	hosts    *throttle.Limiter // by host, which many issuers may share
	now      func() time.Time

	mu      sync.Mutex
	byPlace map[string]keySet // by kind and address
	turns   singleflight.Group
}

// NewReader makes a Reader of addresses that strangers name, of which one host gets
// few requests. Without a client it fetches nothing.
func NewReader(client *outbound.Client, now func() time.Time) *Reader {
	r := NewConfigured(client, now)
	r.hosts = throttle.New(1.0/6, 20, 20_000, now)
	return r
}

// NewConfigured makes a Reader of issuers that somebody set up here, many of which
// may be tenants of one host.
func NewConfigured(client *outbound.Client, now func() time.Time) *Reader {
	return &Reader{outbound: client, fetches: throttle.New(1.0/6, 20, 20_000, now), hosts: throttle.New(5, 100, 20_000, now), now: now, byPlace: map[string]keySet{}}
}

// keySet is what lay at one address: keys, or the metadata of an issuer.
type keySet struct {
	keys     jose.JSONWebKeySet
	metadata Metadata
	fetched  time.Time
	failed   error // of the last look, if it did
	failedAt time.Time
}

// Keys gives the JWK Set at an address. unknown says that the one from before
// lacks the key that is looked for, so that a fresh look may help. Strangers can
// cause looks, at any address: what failed is not tried again at once, and each
// place is looked at only so often (threats.md W5).
func (r *Reader) Keys(ctx context.Context, address string, unknown bool) (jose.JSONWebKeySet, error) {
	fresh := keySetFor
	if unknown {
		fresh = keySetAgain
	}
	set, err := r.look(ctx, "keys", address, fresh, maxKeySet, func(body []byte) (s keySet, err error) {
		s.keys, err = ReadKeys(body)
		return s, err
	})
	return set.keys, err
}

// look gives what lies at an address: what it was not longer than fresh ago, or
// what read makes of it now. Each kind of thing is remembered apart: one issuer can
// name another's address as that of its keys, and what is wrong with it as keys is
// nothing that the other did.
func (r *Reader) look(ctx context.Context, kind, address string, fresh time.Duration, limit int64, read func(body []byte) (keySet, error)) (keySet, error) {
	r.mu.Lock()
	place := kind + " " + address
	have, ok := r.byPlace[place]
	r.mu.Unlock()
	if ok && r.now().Sub(have.fetched) < fresh {
		return have, nil
	}
	if have.failed != nil && r.now().Sub(have.failedAt) < keySetAgain {
		return keySet{}, have.failed
	}
	got, err, _ := r.turns.Do(place, func() (any, error) {
		if u, err := url.Parse(address); err == nil {
			ok, wait := r.fetches.Allow(place)
			if ok {
				ok, wait = r.hosts.Allow(u.Host)
			}
			if !ok {
				return nil, fault.New(fault.Limited, "temporarily_unavailable", "Too many keys are looked at.").WithRetry(wait)
			}
		}
		var set keySet
		resp, err := r.Fetch(context.WithoutCancel(ctx), address, limit)
		if err == nil {
			set, err = read(resp.Body)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.byPlace) >= maxSets {
			clear(r.byPlace)
		}
		if err != nil {
			have.failed, have.failedAt = err, r.now()
			r.byPlace[place] = have
			return nil, err
		}
		set.fetched = r.now()
		r.byPlace[place] = set
		return set, nil
	})
	if err != nil {
		return keySet{}, err
	}
	return got.(keySet), nil
}

// Check judges an address before it is kept: by the rules of all egress.
func (r *Reader) Check(ctx context.Context, address string) error {
	if r.outbound == nil {
		return fault.New(fault.Invalid, "invalid_request", "The address cannot be fetched.")
	}
	return r.outbound.Check(ctx, address)
}

// Fetch gets a document from a place that somebody named: by the rules of all
// egress, in little time, without following a redirect.
func (r *Reader) Fetch(ctx context.Context, address string, limit int64) (*outbound.Response, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fault.New(fault.Invalid, "invalid_request", "The address cannot be fetched.")
	}
	if err := r.Check(ctx, address); err != nil {
		return nil, err
	}
	req := &http.Request{Method: http.MethodGet, URL: u, Header: http.Header{"Accept": {"application/json"}}}
	resp, err := r.outbound.Do(ctx, outbound.Bound{Bases: []string{u.Scheme + "://" + u.Host}}, req, outbound.Limits{Body: limit, Timeout: fetchTime})
	if err != nil {
		return nil, err
	}
	if resp.Status != http.StatusOK {
		return nil, fault.New(fault.Invalid, "invalid_request", "There is no document at the address.").WithHint("It must answer 200, without a redirect.")
	}
	return resp, nil
}

// matching are the keys that may have made a signature, those that its header
// names first.
func matching(set jose.JSONWebKeySet, kid string) []jose.JSONWebKey {
	if kid == "" {
		return set.Keys
	}
	return slices.DeleteFunc(slices.Clone(set.Keys), func(k jose.JSONWebKey) bool { return k.KeyID != kid && k.KeyID != "" })
}

func badKeys(msg string) error { return fault.New(fault.Invalid, "invalid_client_metadata", msg) }

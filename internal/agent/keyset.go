package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/strictjson"
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

// readKeys reads a JWK Set (RFC 7517) of public keys for signatures. Keys that we
// cannot use are left out, since a set may hold others beside them.
func readKeys(doc []byte) (jose.JSONWebKeySet, error) {
	bad := func(msg string) (jose.JSONWebKeySet, error) { return jose.JSONWebKeySet{}, badMetadata(msg) }
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
		if k.Use == "" || k.Use == "sig" {
			set.Keys = append(set.Keys, k)
		}
	}
	if len(set.Keys) == 0 {
		return bad("The JWK Set holds no public key for signatures that we know (RSA from 2048 bits, EC, Ed25519).")
	}
	return set, nil
}

// canonicalKeys is a JWK Set as it is stored: what readKeys kept of it.
func canonicalKeys(doc string) (string, error) {
	set, err := readKeys([]byte(doc))
	if err != nil {
		return "", err
	}
	out, err := json.Marshal(set)
	return string(out), err
}

// keySets remembers JWK Sets of other places.
type keySets struct {
	mu    sync.Mutex
	byURL map[string]keySet
	turns singleflight.Group
}

type keySet struct {
	keys     jose.JSONWebKeySet
	fetched  time.Time
	failed   error // of the last look, if it did
	failedAt time.Time
}

// keysAt gives the JWK Set at an address. unknown says that the one from before
// lacks the key that is looked for, so that a fresh look may help. Strangers can
// cause looks, at any address: what failed is not tried again at once, and each
// place is looked at only so often (threats.md W5).
func (s *Service) keysAt(ctx context.Context, address string, unknown bool) (jose.JSONWebKeySet, error) {
	s.sets.mu.Lock()
	have, ok := s.sets.byURL[address]
	s.sets.mu.Unlock()
	fresh := keySetFor
	if unknown {
		fresh = keySetAgain
	}
	if ok && s.now().Sub(have.fetched) < fresh {
		return have.keys, nil
	}
	if have.failed != nil && s.now().Sub(have.failedAt) < keySetAgain {
		return jose.JSONWebKeySet{}, have.failed
	}
	got, err, _ := s.sets.turns.Do(address, func() (any, error) {
		if u, err := url.Parse(address); err == nil {
			if ok, wait := s.fetches.Allow("to " + u.Host); !ok {
				return nil, fault.New(fault.Limited, "temporarily_unavailable", "Too many keys are looked at.").WithRetry(wait)
			}
		}
		set, err := s.lookForKeys(ctx, address)
		s.sets.mu.Lock()
		defer s.sets.mu.Unlock()
		if len(s.sets.byURL) >= maxSets {
			clear(s.sets.byURL)
		}
		if err != nil {
			have.failed, have.failedAt = err, s.now()
			s.sets.byURL[address] = have
			return nil, err
		}
		s.sets.byURL[address] = keySet{keys: set, fetched: s.now()}
		return set, nil
	})
	if err != nil {
		return jose.JSONWebKeySet{}, err
	}
	return got.(jose.JSONWebKeySet), nil
}

func (s *Service) lookForKeys(ctx context.Context, address string) (jose.JSONWebKeySet, error) {
	resp, err := s.fetch(context.WithoutCancel(ctx), address, maxKeySet)
	if err != nil {
		return jose.JSONWebKeySet{}, err
	}
	return readKeys(resp.Body)
}

// fetch gets a document from a place that somebody named: by the rules of all
// egress, in little time, without following a redirect.
func (s *Service) fetch(ctx context.Context, address string, limit int64) (*outbound.Response, error) {
	u, err := url.Parse(address)
	if err != nil || s.outbound == nil {
		return nil, fault.New(fault.Invalid, "invalid_request", "The address cannot be fetched.")
	}
	if err := s.outbound.Check(ctx, address); err != nil {
		return nil, err
	}
	req := &http.Request{Method: http.MethodGet, URL: u, Header: http.Header{"Accept": {"application/json"}}}
	resp, err := s.outbound.Do(ctx, outbound.Bound{Bases: []string{u.Scheme + "://" + u.Host}}, req, outbound.Limits{Body: limit, Timeout: fetchTime})
	if err != nil {
		return nil, err
	}
	if resp.Status != http.StatusOK {
		return nil, fault.New(fault.Invalid, "invalid_request", "There is no document at the address.").WithHint("It must answer 200, without a redirect.")
	}
	return resp, nil
}

// maxAge reads how long an answer may be kept, within bounds.
func maxAge(h http.Header, atLeast, atMost time.Duration) time.Duration {
	for _, part := range strings.Split(h.Get("Cache-Control"), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if strings.EqualFold(name, "max-age") {
			if d, err := time.ParseDuration(value + "s"); err == nil {
				return min(max(d, atLeast), atMost)
			}
		}
	}
	return atLeast
}

// matching are the keys that may have made a signature, those that its header
// names first.
func matching(set jose.JSONWebKeySet, kid string) []jose.JSONWebKey {
	if kid == "" {
		return set.Keys
	}
	return slices.DeleteFunc(slices.Clone(set.Keys), func(k jose.JSONWebKey) bool { return k.KeyID != kid && k.KeyID != "" })
}

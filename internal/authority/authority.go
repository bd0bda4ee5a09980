// Package authority is the local certificate authority of the forward proxy. An
// environment has one of its own, made when it is first needed, so that what
// trusts one environment's proxy trusts nobody else's. Its key is sealed in the
// vault and opened for each certificate that it signs; nothing of it stays in
// memory. What it signs are certificates for one host each, good for a day, with
// a key that this process made at its start and that never leaves it.
//
// The authority carries no name constraints (RFC 5280 §4.2.1.10): which hosts it
// speaks for changes with each account that is connected, and whoever trusts it
// would have to trust a new one each time. What binds it is that only the proxy
// asks, for a host that a live session may reach.
package authority

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/vault"
)

const (
	lasts     = 2 * 365 * 24 * time.Hour // an authority
	renewed   = 60 * 24 * time.Hour      // before its end there is another one beside it
	leafLasts = 24 * time.Hour
	leafKept  = leafLasts / 2 // in memory
	skew      = time.Hour     // that a client's clock may be behind
	maxLeaves = 1024
)

// Config is what a Service needs. All but Now are required.
type Config struct {
	DB    *sqldb.DB
	Vault *vault.Vault
	Audit *audit.Log
	Now   func() time.Time
}

// Service gives certificates. It is safe for concurrent use.
type Service struct {
	db    *sqldb.DB
	vault *vault.Vault
	audit *audit.Log
	now   func() time.Time
	key   *ecdsa.PrivateKey // of every leaf of this process

	mu     sync.Mutex
	leaves map[leafName]leaf
}

type leafName struct {
	environment id.Environment
	host        string
}

type leaf struct {
	cert *tls.Certificate
	made time.Time
}

// New makes a Service.
func New(cfg Config) (*Service, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the key of the proxy's certificates: %w", err)
	}
	cfg.Vault.Keeps(keeps())
	return &Service{db: cfg.DB, vault: cfg.Vault, audit: cfg.Audit, now: cfg.Now, key: key, leaves: map[leafName]leaf{}}, nil
}

// Leaf gives a certificate for a host of an environment: a lower-case name in
// ASCII, or an address.
func (s *Service) Leaf(ctx context.Context, env id.Environment, host string) (*tls.Certificate, error) {
	name, now := leafName{env, host}, s.now()
	s.mu.Lock()
	kept, ok := s.leaves[name]
	s.mu.Unlock()
	if ok && now.Sub(kept.made) < leafKept {
		return kept.cert, nil
	}
	cert, err := s.sign(ctx, env, host, now)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.leaves) >= maxLeaves {
		clear(s.leaves) // costs each host a signature
	}
	s.leaves[name] = leaf{cert, now}
	return cert, nil
}

func (s *Service) sign(ctx context.Context, env id.Environment, host string, now time.Time) (*tls.Certificate, error) {
	row, err := s.current(ctx, env)
	if err != nil {
		return nil, err
	}
	ca, err := x509.ParseCertificate(row.certificate)
	if err != nil {
		return nil, fmt.Errorf("reading the proxy's authority: %w", err)
	}
	sealed, err := s.vault.Open(ctx, row.place(), row.sealed)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(sealed)
	if err != nil {
		return nil, err
	}
	number, err := serial()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{SerialNumber: number, Subject: pkix.Name{Organization: []string{"Ambit"}, CommonName: shortName(host)},
		NotBefore: now.Add(-skew), NotAfter: earlier(now.Add(leafLasts), ca.NotAfter),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true}
	if a, err := netip.ParseAddr(host); err == nil {
		t.IPAddresses = append(t.IPAddresses, a.AsSlice())
	} else {
		t.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca, s.key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate of the proxy: %w", err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading a certificate of the proxy: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: s.key, Leaf: parsed}, nil
}

// Bundle gives, as PEM, what a client must trust: the authority of an environment,
// and for a time the one before it.
func (s *Service) Bundle(ctx context.Context, env id.Environment) ([]byte, error) {
	if _, err := s.current(ctx, env); err != nil {
		return nil, err
	}
	rows, err := authorities(ctx, s.db.Reader(), env, s.now())
	if err != nil {
		return nil, sqldb.Wrap("read the proxy's authorities", err)
	}
	var out []byte
	for _, r := range rows {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.certificate})...)
	}
	return out, nil
}

// current is the newest authority of an environment, or a new one.
func (s *Service) current(ctx context.Context, env id.Environment) (row, error) {
	if env == "" {
		return row{}, fault.New(fault.Invalid, "environment_missing", "A certificate authority belongs to an environment.")
	}
	now := s.now()
	usable := func(q sqldb.Querier) (row, bool, error) {
		rows, err := authorities(ctx, q, env, now)
		if err != nil || len(rows) == 0 {
			return row{}, false, sqldb.Wrap("read the proxy's authorities", err)
		}
		return rows[0], rows[0].expires.Sub(now) > renewed, nil
	}
	if r, ok, err := usable(s.db.Reader()); err != nil || ok {
		return r, err
	}
	made, err := s.made(ctx, env, now)
	if err != nil {
		return row{}, err
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := tx.Serialize(ctx, "proxy authority "+string(env)); err != nil {
			return sqldb.Wrap("wait for others who make an authority", err)
		}
		if r, ok, err := usable(tx); err != nil || ok {
			made = r
			return err
		}
		s.audit.Append(tx, audit.Entry{Environment: env, Actor: audit.Actor{Kind: "system", ID: "proxy"}, Action: "proxy_authority.made", Object: made.id})
		return insertAuthority(ctx, tx, made)
	})
	return made, err
}

func (s *Service) made(ctx context.Context, env id.Environment, now time.Time) (row, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return row{}, fmt.Errorf("making the key of the proxy's authority: %w", err)
	}
	number, err := serial()
	if err != nil {
		return row{}, err
	}
	r := row{id: "pca_" + rand.Text(), environment: env, created: now, expires: now.Add(lasts)}
	t := &x509.Certificate{SerialNumber: number, Subject: pkix.Name{Organization: []string{"Ambit"}, CommonName: "Ambit proxy of " + string(env)},
		NotBefore: now.Add(-skew), NotAfter: r.expires, KeyUsage: x509.KeyUsageCertSign, IsCA: true, MaxPathLenZero: true, BasicConstraintsValid: true}
	if r.certificate, err = x509.CreateCertificate(rand.Reader, t, t, key.Public(), key); err != nil {
		return row{}, fmt.Errorf("making the proxy's authority: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return row{}, fmt.Errorf("encoding the key of the proxy's authority: %w", err)
	}
	r.sealed, err = s.vault.Seal(ctx, r.place(), secret.New(der))
	return r, err
}

func parseKey(v secret.Value) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(v.Reveal())
	if err != nil {
		return nil, fmt.Errorf("reading the key of the proxy's authority: %T", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("the key of the proxy's authority is a %T", key)
	}
	return signer, nil
}

// serial is 127 random bits, never zero (RFC 5280 §4.1.2.2).
func serial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("making a serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}

// shortName is what fits into a common name (RFC 5280, upper bound of 64). The
// host itself is in the alternative names.
func shortName(host string) string {
	if len(host) > 64 {
		return strings.TrimLeft(host[len(host)-64:], ".-")
	}
	return host
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

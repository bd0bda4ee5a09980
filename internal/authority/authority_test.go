package authority_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/authority"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func service(t *testing.T, w *agenttest.World) *authority.Service {
	t.Helper()
	s, err := authority.New(authority.Config{DB: w.DB, Vault: w.Vault, Audit: w.Audit, Now: w.Clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func pool(t *testing.T, s *authority.Service, env id.Environment) (*x509.CertPool, int) {
	t.Helper()
	bundle, err := s.Bundle(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(bundle) {
		t.Fatalf("the bundle is no PEM: %q", bundle)
	}
	return p, bytes.Count(bundle, []byte("BEGIN CERTIFICATE"))
}

// Issue 7: a per-install authority with a sealed key and short-lived leaves. All
// of it rests on one table, so the tests share a database.
func TestAuthority(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := agenttest.New(t, db)
		s, env := service(t, w), w.Environment
		trusted, n := pool(t, s, env)
		if n != 1 {
			t.Fatalf("got %d authorities, want 1", n)
		}
		verify := func(t *testing.T, cert *tls.Certificate, host string, roots *x509.CertPool) error {
			t.Helper()
			_, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: w.Clock.Now()})
			return err
		}

		t.Run("a leaf is for its host and a day", func(t *testing.T) {
			for _, host := range []string{"api.github.com", "127.0.0.1", "::1", strings.Repeat("a", 60) + ".example.com"} {
				cert, err := s.Leaf(t.Context(), env, host)
				if err != nil {
					t.Fatalf("%s: %v", host, err)
				}
				if err := verify(t, cert, bracketed(host), trusted); err != nil {
					t.Errorf("%s: %v", host, err)
				}
				if err := verify(t, cert, "other.example.com", trusted); err == nil {
					t.Errorf("the certificate of %s speaks for another host", host)
				}
				if life := cert.Leaf.NotAfter.Sub(w.Clock.Now()); life > 24*time.Hour || life < 23*time.Hour || cert.Leaf.IsCA {
					t.Errorf("%s: good for %v, an authority: %v", host, life, cert.Leaf.IsCA)
				}
			}
			one, err := s.Leaf(t.Context(), env, "api.github.com")
			must(t, err)
			two, err := s.Leaf(t.Context(), env, "api.github.com")
			must(t, err)
			if one != two {
				t.Error("a leaf is signed for each handshake")
			}
			w.Clock.Advance(13 * time.Hour)
			if two, err = s.Leaf(t.Context(), env, "api.github.com"); err != nil || one == two {
				t.Errorf("half a day later it is the same leaf (%v)", err)
			}
		})

		t.Run("the key is sealed", func(t *testing.T) {
			var sealed, certificate []byte
			must(t, db.Reader().QueryRowContext(t.Context(), `select sealed_key, certificate from proxy_authority`).Scan(&sealed, &certificate))
			if _, err := x509.ParsePKCS8PrivateKey(sealed); err == nil || bytes.Contains(sealed, []byte{0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01}) { // id-ecPublicKey, RFC 5480
				t.Error("the key lies in the clear")
			}
			// Moved to another environment's row it opens nothing (threats.md K1).
			other := id.NewEnvironment()
			must(t, db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
				_, err := tx.ExecContext(ctx, `insert into proxy_authority (id, environment_id, certificate, sealed_key, created_at, expires_at)
select 'pca_moved', $1, certificate, sealed_key, created_at, expires_at from proxy_authority where environment_id = $2`, other, env)
				return err
			}))
			if _, err := s.Leaf(t.Context(), other, "api.github.com"); err == nil {
				t.Error("a moved key signs")
			}
		})

		t.Run("environments trust their own only", func(t *testing.T) {
			other := id.NewEnvironment()
			theirs, _ := pool(t, s, other)
			cert, err := s.Leaf(t.Context(), env, "api.github.com")
			must(t, err)
			if err := verify(t, cert, "api.github.com", theirs); err == nil {
				t.Error("another environment's authority vouches for this leaf")
			}
			if _, err := s.Leaf(t.Context(), "", "api.github.com"); err == nil {
				t.Error("nobody's environment has a certificate")
			}
		})

		t.Run("nodes that begin at once make one", func(t *testing.T) {
			env := id.NewEnvironment()
			var wg sync.WaitGroup
			failed := make([]error, 4)
			for i := range failed {
				node := service(t, w)
				wg.Go(func() { _, failed[i] = node.Leaf(t.Context(), env, fmt.Sprint("host", i, ".example.com")) })
			}
			wg.Wait()
			for _, err := range failed {
				must(t, err)
			}
			if _, n := pool(t, s, env); n != 1 {
				t.Errorf("got %d authorities, want 1", n)
			}
		})

		t.Run("another takes over before its end, and both are trusted", func(t *testing.T) {
			w.Clock.Advance(22*30*24*time.Hour + 15*24*time.Hour)
			cert, err := s.Leaf(t.Context(), env, "api.github.com")
			must(t, err)
			if err := verify(t, cert, "api.github.com", trusted); err == nil {
				t.Error("the old authority still signs")
			}
			both, n := pool(t, s, env)
			if n != 2 {
				t.Errorf("got %d authorities, want 2", n)
			}
			must(t, verify(t, cert, "api.github.com", both))
			w.Clock.Advance(60 * 24 * time.Hour)
			if _, n := pool(t, s, env); n != 1 {
				t.Errorf("after its end there are %d authorities, want 1", n)
			}
		})
	})
}

func bracketed(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

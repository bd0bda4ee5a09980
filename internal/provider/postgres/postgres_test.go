package postgres_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/goleak"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/provider/postgres"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func client(t *testing.T, allow ...string) *outbound.Client {
	t.Helper()
	c, err := outbound.New(outbound.Policy{Allow: allow})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func place(t *testing.T, address, database string, plain bool) postgres.Place {
	t.Helper()
	raw := postgres.Scheme + address + "/" + database
	if plain {
		raw += "?tls=off"
	}
	p, err := postgres.ParsePlace(raw)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// runner runs statements as a tenant.
type runner struct {
	sqldbtest.Tenant
	client *outbound.Client
	place  postgres.Place
	login  postgres.Login
}

func newRunner(t *testing.T) runner {
	t.Helper()
	n := sqldbtest.NewTenant(t)
	return runner{n, client(t, n.Address), place(t, n.Address, n.Database, true), postgres.Login{User: n.User, Password: secret.FromString(n.Password)}}
}

func (r runner) run(ctx context.Context, text string, readOnly bool, change func(*postgres.Statement)) (postgres.Result, error) {
	st := postgres.Statement{Text: strings.ReplaceAll(text, "SCHEMA", r.Schema), ReadOnly: readOnly, Timeout: 20 * time.Second, Rows: 100, Bytes: 1 << 16}
	if change != nil {
		change(&st)
	}
	return postgres.Run(ctx, r.client, r.place, r.login, st)
}

func refusal(err error) string {
	if r, ok := errors.AsType[*postgres.Refusal](err); ok {
		return r.Code
	}
	return fmt.Sprint(err)
}

// Issue 5: a statement that reads runs where the server itself refuses every
// change, whatever the text or a function in it does, and one statement is one.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	r.Admin(t, fmt.Sprintf(`create table %[1]s.note (id int primary key, words text); insert into %[1]s.note values (1, 'one'), (2, null);
		create function %[1]s.sly() returns int language plpgsql as $$ begin perform set_config('transaction_read_only', 'off', true); delete from %[1]s.note; return 1; end $$;
		grant all on %[1]s.note to %[2]s`, r.Schema, r.User))
	two := "2"
	got, err := r.run(t.Context(), `select id, words, true, 1.5::float8, 12345678901234567890::numeric, '{"a":1}'::jsonb, 9007199254740993 from SCHEMA.note where id <= $1 order by id`, true,
		func(st *postgres.Statement) { st.Parameters = []*string{&two} })
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`[1,"one",true,1.5,"12345678901234567890",{"a":1},"9007199254740993"]`, `[2,null,true,1.5,"12345678901234567890",{"a":1},"9007199254740993"]`}
	if d := cmp.Diff(want, slices.Collect(func(yield func(string) bool) {
		for _, row := range got.Rows {
			if !yield(string(row)) {
				return
			}
		}
	})); d != "" || got.Truncated || got.Command != "SELECT 2" {
		t.Errorf("rows (-want +got):\n%s\n%+v", d, got)
	}
	for _, row := range []struct{ text, code string }{
		{"delete from SCHEMA.note", "25006"}, {"with x as (delete from SCHEMA.note returning 1) select * from x", "25006"}, {"create table SCHEMA.x (a int)", "25006"},
		{"select nextval('pg_catalog.x')", "42P01"}, {"select 1; delete from SCHEMA.note", "42601"}, {"commit; delete from SCHEMA.note", "42601"},
		{"select SCHEMA.sly()", "25001"}, {"select 1/0", "22012"}, {"select * from SCHEMA.nothing", "42P01"},
	} {
		if _, err := r.run(t.Context(), row.text, true, nil); refusal(err) != row.code {
			t.Errorf("%s: got %v, want %s", row.text, err, row.code)
		}
	}
	if got, err := r.run(t.Context(), "select count(*) from SCHEMA.note", true, nil); err != nil || string(got.Rows[0]) != "[2]" {
		t.Errorf("the table holds %s now (%v)", got.Rows, err)
	}
}

// Issue 5: what changes something is committed, or not at all.
func TestExecute(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	r.Admin(t, fmt.Sprintf("create table %[1]s.note (id int primary key); grant all on %[1]s.note to %[2]s", r.Schema, r.User))
	got, err := r.run(t.Context(), "insert into SCHEMA.note select * from generate_series(1, 200) returning id", false, nil)
	if err != nil || got.Affected != 200 || len(got.Rows) != 100 || !got.Truncated {
		t.Errorf("got %d rows of %d, truncated %v (%v)", len(got.Rows), got.Affected, got.Truncated, err)
	}
	if _, err := r.run(t.Context(), "insert into SCHEMA.note values (201), (1)", false, nil); refusal(err) != "23505" {
		t.Errorf("a second row of one key: %v", err)
	}
	if got, err := r.run(t.Context(), "select count(*) from SCHEMA.note", true, nil); err != nil || string(got.Rows[0]) != "[200]" {
		t.Errorf("the table holds %s now (%v)", got.Rows, err)
	}
}

// Issue 5: rows, bytes and time are bounded. A call that is cut is stopped at the
// server too.
func TestBounds(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	got, err := r.run(t.Context(), "select g from generate_series(1, 100000000) g", true, nil)
	if err != nil || len(got.Rows) != 100 || !got.Truncated {
		t.Errorf("got %d rows, truncated %v (%v)", len(got.Rows), got.Truncated, err)
	}
	got, err = r.run(t.Context(), "select repeat('x', 30000) from generate_series(1, 100)", true, nil)
	if err != nil || len(got.Rows) != 2 || !got.Truncated {
		t.Errorf("got %d rows of 30000 bytes, truncated %v (%v)", len(got.Rows), got.Truncated, err)
	}
	if _, err := r.run(t.Context(), "select repeat('x', 20000000)", true, nil); err == nil || !outbound.Sent(err) {
		t.Errorf("a message over the limit: %v", err)
	}
	if _, err := r.run(t.Context(), "select pg_sleep(30)", true, func(st *postgres.Statement) { st.Timeout = 3 * time.Second }); refusal(err) != "57014" {
		t.Errorf("a statement that takes long: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(500*time.Millisecond, cancel)
	if _, err := r.run(ctx, "select pg_sleep(31)", false, nil); err == nil || outbound.Sent(err) {
		t.Errorf("a statement that was cut, and stopped: %v", err)
	}
	// The server ends what was cut when it comes to it.
	for until := time.Now().Add(15 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		got, err = r.run(t.Context(), "select count(*) from pg_stat_activity where usename = current_user and pid <> pg_backend_pid()", true, nil)
		if err != nil || string(got.Rows[0]) == "[0]" || time.Now().After(until) {
			break
		}
	}
	if err != nil || string(got.Rows[0]) != "[0]" {
		t.Errorf("%s sessions are left at the server (%v)", got.Rows, err)
	}
}

// Threats O7, O9: a database is dialled like any other place. Addresses that are
// not public need the operator's word, so does a connection without TLS, and there
// are no sockets of the file system.
func TestPlaces(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	for _, row := range []struct {
		client *outbound.Client
		place  postgres.Place
		code   string
	}{
		{client(t), place(t, r.Address, r.Database, false), "destination_denied"},
		{client(t), place(t, r.Address, r.Database, true), "destination_denied"},
		{client(t, r.Address), place(t, "localhost:"+r.Port, r.Database, false), "destination_denied"},
		{client(t, "169.254.169.254:5432"), place(t, "169.254.169.254:5432", r.Database, true), "destination_denied"},
		{client(t), place(t, "10.0.0.1:5432", r.Database, false), "destination_denied"},
	} {
		_, err := postgres.Run(t.Context(), row.client, row.place, r.login, postgres.Statement{Text: "select 1", ReadOnly: true, Timeout: 5 * time.Second, Rows: 1, Bytes: 100})
		if fault.Of(err).Code != row.code || outbound.Sent(err) || strings.Contains(err.Error(), r.Password) {
			t.Errorf("%s: got %v", row.place.Address, err)
		}
	}
	for _, raw := range []string{"postgres:///shop", "postgres://%2Fvar%2Frun/shop", "postgres:///shop?host=/tmp", "postgres://a@b/shop", "postgres://a:b@c/shop", "postgres://h/", "postgres://h/a/b",
		"postgres://h/shop?tls=prefer", "postgres://h/shop?sslmode=disable", "postgresql://h/shop", "http://h/shop", "postgres://h,i/shop", "postgres://h/%2e%2e", "postgres://h:70000/shop"} {
		p, err := postgres.ParsePlace(raw)
		if err == nil {
			err = p.Check(client(t))
		}
		if err == nil {
			t.Errorf("%s is a place", raw)
		}
	}
}

// A server that asks for the password itself gets it under TLS only, and only once
// it has proved who it is. What the process's environment says of databases counts
// for nothing.
func TestLoginIsKept(t *testing.T) {
	for k, v := range map[string]string{"PGHOST": "127.0.0.1", "PGPASSWORD": "of-the-process", "PGUSER": "of-the-process", "PGDATABASE": "of-the-process", "PGSSLMODE": "disable", "PGOPTIONS": "-c a=b", "PGREQUIREAUTH": "password"} {
		t.Setenv(k, v)
	}
	const password = "canary-4f1c9a77d2e8"
	login := postgres.Login{User: "mia", Password: secret.FromString(password)}
	run := func(t *testing.T, s *server, plain bool, roots []byte) (seen string, err error) {
		l := login
		l.Roots = roots
		_, err = postgres.Run(t.Context(), client(t, s.address), place(t, s.address, "shop", plain), l, postgres.Statement{Text: "select 1", ReadOnly: true, Timeout: 5 * time.Second, Rows: 1, Bytes: 100})
		return s.heard(), err
	}
	own, roots := authority(t)
	_, others := authority(t)
	t.Run("in the clear", func(t *testing.T) {
		s := serve(t, nil)
		if seen, err := run(t, s, true, nil); err == nil || strings.Contains(seen, password) || strings.Contains(err.Error(), password) {
			t.Errorf("the server heard %q (%v)", seen, err)
		}
	})
	t.Run("without proof", func(t *testing.T) {
		for _, roots := range [][]byte{nil, others} {
			s := serve(t, &own)
			if seen, err := run(t, s, false, roots); fault.Of(err).Code != "upstream_unreachable" || strings.Contains(seen, password) {
				t.Errorf("the server heard %q (%v)", seen, err)
			}
		}
	})
	t.Run("under TLS", func(t *testing.T) {
		s := serve(t, &own)
		seen, err := run(t, s, false, roots)
		if !errors.Is(err, postgres.ErrLogin) || !strings.Contains(seen, password) || strings.Contains(seen, "of-the-process") {
			t.Errorf("the server heard %q (%v)", seen, err)
		}
		if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, errors.Unwrap(err)), password) {
			t.Errorf("the error quotes the password: %v", err)
		}
	})
	t.Run("that refuses TLS", func(t *testing.T) {
		s := serve(t, nil)
		if seen, err := run(t, s, false, nil); err == nil || strings.Contains(seen, password) || strings.Contains(seen, "mia") {
			t.Errorf("the server heard %q (%v)", seen, err)
		}
	})
}

// server asks for the password in the clear and then refuses it, quoting it.
type server struct {
	address string
	log     atomic.Pointer[bytes.Buffer]
	done    chan struct{}
}

func (s *server) heard() string {
	<-s.done
	return s.log.Load().String()
}

func serve(t *testing.T, cert *tls.Certificate) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{address: l.Addr().String(), done: make(chan struct{})}
	s.log.Store(&bytes.Buffer{})
	go func() {
		defer close(s.done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		s.talk(c, cert)
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-s.done
	})
	return s
}

func (s *server) talk(c net.Conn, cert *tls.Certificate) {
	tapped := func(c net.Conn) *pgproto3.Backend { return pgproto3.NewBackend(io.TeeReader(c, s.log.Load()), c) }
	b := tapped(c)
	first, err := b.ReceiveStartupMessage()
	if err != nil {
		return
	}
	if _, ok := first.(*pgproto3.SSLRequest); ok {
		if cert == nil {
			_, _ = c.Write([]byte("N"))
			_, _ = b.ReceiveStartupMessage()
			return
		}
		_, _ = c.Write([]byte("S"))
		secure := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*cert}})
		b = tapped(secure)
		if _, err := b.ReceiveStartupMessage(); err != nil {
			return
		}
	}
	b.Send(&pgproto3.AuthenticationCleartextPassword{})
	if b.Flush() != nil || b.SetAuthType(pgproto3.AuthTypeCleartextPassword) != nil {
		return
	}
	said, err := b.Receive()
	if p, ok := said.(*pgproto3.PasswordMessage); err == nil && ok {
		b.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "28P01", Message: "no such password: " + p.Password})
		_ = b.Flush()
	}
}

// authority makes a certificate for 127.0.0.1, and what vouches for it.
func authority(t *testing.T) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "db"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

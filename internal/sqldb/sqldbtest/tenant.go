package sqldbtest

import (
	"crypto/rand"
	"net/url"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Tenant is somebody's own database at a PostgreSQL server, which is not ours: a
// schema with a login that has all of it and nothing else.
type Tenant struct {
	Address  string // host:port
	Host     string
	Port     string
	Database string
	Schema   string
	User     string
	Password string

	server string
}

// NewTenant makes one on the tests' server. It is gone with the test.
func NewTenant(t testing.TB) Tenant {
	t.Helper()
	cfg := Config(t, sqldb.PostgreSQL)
	u, err := url.Parse(cfg.URL)
	if err != nil {
		t.Fatal(err)
	}
	out := Tenant{Address: u.Host, Host: u.Hostname(), Port: u.Port(), Database: strings.TrimPrefix(u.Path, "/"), Schema: cfg.Schema,
		User: "u_" + strings.ToLower(rand.Text()), Password: "canary-" + rand.Text(), server: cfg.URL}
	out.Admin(t, "create role "+out.User+" login password '"+out.Password+"'")
	t.Cleanup(func() { out.Admin(t, "drop owned by "+out.User+" cascade; drop role "+out.User) })
	out.Admin(t, "grant all on schema "+out.Schema+" to "+out.User)
	return out
}

// Admin runs statements with all rights.
func (n Tenant) Admin(t testing.TB, statements string) {
	t.Helper()
	admin(t, n.server, statements)
}

// Count gives the number that a query answers with.
func (n Tenant) Count(t testing.TB, query string) (count int) {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: n.server, Connections: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := db.Reader().QueryRowContext(t.Context(), query).Scan(&count); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return count
}

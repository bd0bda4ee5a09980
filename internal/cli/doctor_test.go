package cli

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring/pkcs11"
	"github.com/ambit-dev/ambit/internal/keyring/transit"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

func doctorOf(env map[string]string) *command {
	return &command{env: env, stdin: &bytes.Buffer{}, stdout: io.Discard, stderr: io.Discard}
}

// has finds a finding of a check, with this level, that says this.
func has(list []finding, check, level, says string) bool {
	return slices.ContainsFunc(list, func(f finding) bool {
		return f.Check == check && f.Level == level && strings.Contains(f.Says+" "+f.Why+" "+f.Mend, says)
	})
}

// healthy is a database about which there is nothing to say.
func healthy() sqldb.Inspection {
	return sqldb.Inspection{Engine: sqldb.PostgreSQL, Version: "17.2", Number: 170002, Applied: 7, Known: 7, Postgres: &sqldb.Postgres{
		Database: "ambit", User: "ambit", Namespace: "public", Verified: true, Encrypted: true, CanCreate: true, RoundTrip: time.Millisecond, Limit: 100, Reserved: 3, Pool: 16,
		Settings: map[string]string{"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "data_checksums": "on", "server_encoding": "UTF8", "statement_timeout": "0"},
	}}
}

// Each row is one thing that is wrong with a database; what is wrong is a problem
// or a warning of its own, and has a reason and a cure.
func TestDoctorJudgesDatabases(t *testing.T) {
	t.Parallel()
	for _, f := range judge(healthy()) {
		if f.Level != fine {
			t.Errorf("a healthy database: got %+v", f)
		}
	}
	for _, row := range []struct {
		check, level, says string
		spoil              func(i *sqldb.Inspection, p *sqldb.Postgres)
	}{
		{"durability", problem, "alter system set fsync = on", func(_ *sqldb.Inspection, p *sqldb.Postgres) { p.Settings["fsync"] = "off" }},
		{"durability", problem, "alter system set full_page_writes = on", func(_ *sqldb.Inspection, p *sqldb.Postgres) { p.Settings["full_page_writes"] = "off" }},
		{"durability", problem, `alter database "ambit" set synchronous_commit = on`, func(_ *sqldb.Inspection, p *sqldb.Postgres) { p.Settings["synchronous_commit"] = "off" }},
		{"durability", warning, "none is waited for", func(_ *sqldb.Inspection, p *sqldb.Postgres) { p.Standbys = 2 }},
		{"durability", note, "no checksums", func(_ *sqldb.Inspection, p *sqldb.Postgres) { p.Settings["data_checksums"] = "off" }},
		{"database", problem, "read-only standby", func(_ *sqldb.Inspection, p *sqldb.Postgres) { p.Standby = true }},
		{"database", problem, "transactions are read-only", func(_ *sqldb.Inspection, p *sqldb.Postgres) { p.Settings["default_transaction_read_only"] = "on" }},
		{"database", problem, "SQL_ASCII", func(_ *sqldb.Inspection, p *sqldb.Postgres) { p.Settings["server_encoding"] = "SQL_ASCII" }},
		{"database", warning, "sslmode=verify-full", func(_ *sqldb.Inspection, p *sqldb.Postgres) { p.Verified = false }},
		{"database", problem, "in clear", func(_ *sqldb.Inspection, p *sqldb.Postgres) { p.Verified, p.Encrypted = false, false }},
		{"database", warning, "PostgreSQL 13 is older", func(i *sqldb.Inspection, _ *sqldb.Postgres) { i.Number = 130011 }},
		{"database", warning, "statement_timeout", func(_ *sqldb.Inspection, p *sqldb.Postgres) { p.Settings["statement_timeout"] = "250ms" }},
		{"clock", warning, "timedatectl", func(_ *sqldb.Inspection, p *sqldb.Postgres) { p.Skew = -900 * time.Millisecond }},
		{"clock", problem, "refuses all calls", func(_ *sqldb.Inspection, p *sqldb.Postgres) { p.Skew = 3 * time.Second }},
		{"clock", fine, "", func(_ *sqldb.Inspection, p *sqldb.Postgres) { p.Skew, p.RoundTrip = 3*time.Second, 7*time.Second }},
		{"notices", problem, "pooler", func(_ *sqldb.Inspection, p *sqldb.Postgres) {
			p.Hears = fault.New(fault.Unavailable, "x", "It timed out.")
		}},
		{"connections", problem, "max_connections = 200", func(_ *sqldb.Inspection, p *sqldb.Postgres) { p.Others = 90 }},
		{"connections", note, "rolling upgrade", func(_ *sqldb.Inspection, p *sqldb.Postgres) { p.Others = 70 }},
		{"connections", fine, "room for 5 nodes of 17", func(_ *sqldb.Inspection, p *sqldb.Postgres) { p.Ours = 34 }},
		{"rights", problem, `grant create, usage on schema "public" to "ambit"`, func(_ *sqldb.Inspection, p *sqldb.Postgres) { p.CanCreate = false }},
		{"rights", problem, `owner to "ambit"`, func(_ *sqldb.Inspection, p *sqldb.Postgres) { p.Lacking = []string{"lease"} }},
		{"rights", problem, `owner to "ambit"`, func(_ *sqldb.Inspection, p *sqldb.Postgres) { p.Foreign, p.Own = []string{"lease"}, 3 }},
		// A bug: where one role migrates and one serves, as docs/operations.md has it,
		// this was a problem for ever.
		{"rights", fine, "ambit migrate does", func(_ *sqldb.Inspection, p *sqldb.Postgres) {
			p.Foreign, p.Own, p.CanCreate = []string{"lease"}, 0, false
		}},
		{"schema", problem, "the role that owns it", func(i *sqldb.Inspection, p *sqldb.Postgres) {
			i.Applied, p.Foreign, p.Own, p.CanCreate = 6, []string{"lease"}, 0, false
		}},
		{"rights", problem, "create schema", func(_ *sqldb.Inspection, p *sqldb.Postgres) { p.Namespace, p.CanCreate = "", false }},
		{"rights", warning, "superuser", func(_ *sqldb.Inspection, p *sqldb.Postgres) { p.Superuser = true }},
		{"schema", note, "applies what is missing", func(i *sqldb.Inspection, _ *sqldb.Postgres) { i.Applied = 6 }},
		{"schema", problem, "newer", func(i *sqldb.Inspection, _ *sqldb.Postgres) {
			i.Schema = fault.New(fault.Conflict, "schema_newer", "It is newer.")
		}},
		{"leases", note, "credential.revocations", func(i *sqldb.Inspection, _ *sqldb.Postgres) {
			i.Leases = []sqldb.HeldLease{{Name: "credential.revocations", Until: time.Now().Add(-time.Hour), Over: true}, {Name: "held", Until: time.Now().Add(time.Minute)}}
		}},
		{"database", problem, "damaged", func(i *sqldb.Inspection, _ *sqldb.Postgres) { i.Damage = "row 7 missing from index" }},
	} {
		i := healthy()
		row.spoil(&i, i.Postgres)
		got := judge(i)
		if !has(got, row.check, row.level, row.says) && !has(got, "", row.level, row.says) {
			t.Errorf("%s %s %q: not in %+v", row.check, row.level, row.says, got)
		}
		for _, f := range got {
			if f.Level == problem && (f.Why == "" && f.Check != "schema" || f.Mend == "" && f.Check != "schema") {
				t.Errorf("%q says neither why nor what to do", f.Says)
			}
		}
	}
}

// A demo on a database that is used already failed with what its server said about
// root keys.
func TestDemoWantsAnEmptyDatabase(t *testing.T) {
	t.Parallel()
	cfg := sqldbtest.Config(t, sqldb.PostgreSQL)
	d := &demo{command: doctorOf(nil), database: sqldbtest.URL(t, cfg)}
	if err := d.vacant(t.Context()); err != nil {
		t.Errorf("an empty one: %v", err)
	}
	db := sqldbtest.OpenConfig(t, cfg)
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.vacant(t.Context()); !fault.Is(err, "database_not_empty") || !strings.Contains(fault.Of(err).Hint, "createdb") {
		t.Errorf("one in use: %v", err)
	}
}

// The doctor on a real PostgreSQL, empty and in use.
func TestDoctorOnPostgres(t *testing.T) {
	t.Parallel()
	cfg := sqldbtest.Config(t, sqldb.PostgreSQL)
	home := t.TempDir()
	c := doctorOf(map[string]string{"HOME": home, envDatabaseURL: sqldbtest.URL(t, cfg), envServer: "http://localhost:1", envDataDir: filepath.Join(home, "data")})
	got := c.examine(t.Context(), "", checks())
	for _, want := range []struct{ check, level, says string }{
		{"database", fine, "PostgreSQL "}, {"schema", note, "first start"}, {"notices", fine, "pass"}, {"key apart", fine, "not in the data folder"}, {"rights", warning, "superuser"},
	} {
		if !has(got, want.check, want.level, want.says) {
			t.Errorf("an empty database: %+v is not in %+v", want, got)
		}
	}
	db := sqldbtest.OpenConfig(t, cfg)
	if _, ok, err := db.Acquire(t.Context(), "left", 0); !ok || err != nil {
		t.Fatal(ok, err)
	}
	got = c.examine(t.Context(), "", checks())
	if !has(got, "schema", fine, "is at step") || !has(got, "leases", note, "left") {
		t.Errorf("a database in use: got %+v", got)
	}
	// A password is no part of what is told, nor is the URL.
	u, err := url.Parse(cfg.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User, u.Host = url.UserPassword("postgres", "canary-password"), "127.0.0.1:1"
	c.env[envDatabaseURL] = u.String()
	got = c.examine(t.Context(), "", checks())
	if !has(got, "database", problem, "cannot be reached") || strings.Contains(fmt.Sprint(got), "canary") {
		t.Errorf("no database: got %+v", got)
	}
	c.env[envDatabaseURL] = "postgres://postgres:canary-password@[bad/db"
	if got = c.examine(t.Context(), "", checks()); !has(got, "database", problem, "cannot be read") || strings.Contains(fmt.Sprint(got), "canary") {
		t.Errorf("no URL: got %+v", got)
	}
}

func TestDoctorJudgesDisks(t *testing.T) {
	t.Parallel()
	for kind, level := range map[string]string{"nfs": problem, "cifs": problem, "9p": problem, "fuse": warning, "tmpfs": warning, "overlayfs": warning, "": ""} {
		f, bad := volume{kind: kind}.unfit("/data")
		if bad != (level != "") || f.Level != level || bad && f.Mend == "" {
			t.Errorf("%s: got %+v, want %s", kind, f, level)
		}
	}
	for _, row := range []struct {
		v     volume
		level string
	}{
		{volume{free: 5 << 30}, fine}, {volume{free: 5 << 30, counted: true, files: 1 << 20}, fine}, {volume{free: 500 << 20}, warning}, {volume{free: 5 << 20}, problem},
		{volume{free: 5 << 30, counted: true, files: 3}, problem},
	} {
		if f := row.v.room("data", "/data"); f.Level != row.level {
			t.Errorf("%+v: got %+v, want %s", row.v, f, row.level)
		}
	}
}

func certificate(t *testing.T, end time.Time) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: end.Add(-time.Hour), NotAfter: end},
		&x509.Certificate{SerialNumber: big.NewInt(1)}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(doc)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestDoctorJudgesCertificates(t *testing.T) {
	t.Parallel()
	p := &patient{command: doctorOf(nil), now: time.Now, server: "http://localhost:1"}
	file := filepath.Join(t.TempDir(), "cert.pem")
	for left, level := range map[time.Duration]string{-time.Hour: problem, 3 * 24 * time.Hour: warning, 90 * 24 * time.Hour: fine} {
		cert := certificate(t, time.Now().Add(left))
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), 0o600); err != nil {
			t.Fatal(err)
		}
		if f := p.certificateFile(file); f.Level != level {
			t.Errorf("%s before its end: got %+v, want %s", left, f, level)
		}
	}
	for _, text := range []string{"", "not PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if f := p.certificateFile(file); f.Level != problem || f.Mend == "" {
			t.Errorf("%q: got %+v, want a problem", text, f)
		}
	}
	if f := p.certificateFile(file + ".missing"); f.Level != problem {
		t.Errorf("no file: got %+v, want a problem", f)
	}
	// A served one that this machine has no reason to trust.
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	p.about = &app.About{PublicURL: srv.URL}
	for _, f := range checkCertificate(t.Context(), p) {
		if f.Level != problem || !strings.Contains(f.Says, "not valid") {
			t.Errorf("got %+v, want that it is not valid", f)
		}
	}
}

// What answers at the public URL must be this server, under this very name.
func TestDoctorJudgesThePublicURL(t *testing.T) {
	t.Parallel()
	var issuer string
	status := http.StatusOK
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": issuer})
	}))
	t.Cleanup(srv.Close)
	p := &patient{command: doctorOf(nil), now: time.Now, server: srv.URL, about: &app.About{PublicURL: srv.URL}}
	for _, row := range []struct {
		issuer string
		status int
		level  string
		says   string
	}{
		{srv.URL, 200, fine, "as itself"}, {"https://ambit.example", 200, problem, "RFC 8414"}, {"", 200, problem, "no Ambit"}, {"", 404, problem, "no Ambit"}, {"", 421, problem, "AMBIT_PUBLIC_URL"},
	} {
		issuer, status = row.issuer, row.status
		if got := checkPublicURL(t.Context(), p); !has(got, "", row.level, row.says) {
			t.Errorf("issuer %q, status %d: got %+v, want %s %q", row.issuer, row.status, got, row.level, row.says)
		}
	}
	p.about.PublicURL = "http://localhost:1"
	if got := checkPublicURL(t.Context(), p); !has(got, "", problem, "does not answer") {
		t.Errorf("nothing there: got %+v", got)
	}
}

// What a login shows: credentials that nobody misses, and what stops soon.
func TestDoctorJudgesAccounts(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ago := func(days int) time.Time { return now.AddDate(0, 0, -days) }
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var page any
		switch r.URL.Path {
		case "/v1/agents":
			if r.FormValue("after") == "" {
				page = client.Page[client.Agent]{Next: "more", Data: []client.Agent{{ID: "agent_busy", Label: "Busy", LastSeenAt: ago(1)}, {ID: "agent_off", Label: "Off", LastSeenAt: ago(900), DisabledAt: ago(1)}}}
			} else {
				page = client.Page[client.Agent]{Data: []client.Agent{{ID: "agent_old", Label: "Old", LastSeenAt: ago(100)}, {ID: "agent_never", Label: "Never", CreatedAt: ago(200)}}}
			}
		case "/v1/api-keys", "/v1/keys":
			page = client.Page[client.APIKey]{Data: []client.APIKey{{ID: "key_busy", Name: "busy", CreatedAt: ago(80), LastUsedAt: ago(1), ExpiresAt: now.AddDate(0, 0, 3)},
				{ID: "key_old", Name: "old", CreatedAt: ago(300), LastUsedAt: ago(200)}, {ID: "key_over", Name: "over", CreatedAt: ago(300), ExpiresAt: ago(2)}, {ID: "key_dead", Name: "dead", CreatedAt: ago(300), RevokedAt: ago(2)}}}
		case "/v1/connections":
			page = client.Page[client.Connection]{Data: []client.Connection{{ID: "conn_x", Provider: "acme", ProviderName: "Acme", AccountLabel: "mia", Reason: "The key was revoked."}}}
		default:
			t.Errorf("asked for %s", r.URL.Path)
		}
		_ = json.NewEncoder(w).Encode(page)
	}))
	t.Cleanup(srv.Close)
	p := &patient{command: doctorOf(nil), now: time.Now, api: client.New(srv.URL, "sk_x")}
	got := checkAccounts(t.Context(), p)
	for _, want := range []struct{ check, says string }{
		{"agents", "ambit agent disable agent_old"}, {"agents", "ambit agent disable agent_never"}, {"API keys", "busy ends in 2 d"}, {"API keys", "ambit apikey revoke key_old"},
		{"connections", "ambit connection connect acme --reconnect conn_x"},
	} {
		if !has(got, want.check, warning, want.says) {
			t.Errorf("%+v is not in %+v", want, got)
		}
	}
	if len(got) != 5 {
		t.Errorf("got %d findings: %+v", len(got), got)
	}
}

// Every variable that the program reads is known to the doctor, who would else
// call it a spelling mistake, and explained.
func TestSettingsAreKnown(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, m := range regexp.MustCompile(`(?m)^\s*env\w+\s*=\s*"(AMBIT_\w+)"`).FindAllSubmatch(text, -1) {
			seen++
			name := string(m[1])
			if !slices.Contains(settingNames(), name) {
				t.Errorf("%s is not in settingNames", name)
			}
			if !strings.Contains(name, "_SANDBOX_") && name != envAPIKey && !bytes.Contains(doc, []byte("`"+name+"`")) {
				t.Errorf("docs/configuration.md does not explain %s", name)
			}
		}
	}
	for _, name := range []string{transit.EnvCredentials, pkcs11.EnvHelper, pkcs11.EnvPass} { // defined where they are read
		if seen++; !slices.Contains(settingNames(), name) || !bytes.Contains(doc, []byte("`"+name+"`")) {
			t.Errorf("%s is not known to the doctor, or not explained", name)
		}
	}
	if seen != len(settingNames()) {
		t.Errorf("found %d settings, and settingNames has %d", seen, len(settingNames()))
	}
	for name, like := range map[string]string{"AMBIT_DATADIR": envDataDir, "AMBIT_ROOT_KEYS": envRootKey, "AMBIT_PUBLICURL": envPublicURL, "AMBIT_HOME": "", "HOME": "", envDataDir: ""} {
		if got := misspelt(name); (like == "") != (got == "") || !strings.Contains(got, like) {
			t.Errorf("%s: got %q, want %q", name, got, like)
		}
	}
}

// A bug: a lease without a time was told with a comma and nothing after it.
func TestDoctorOnALeaseWithoutATime(t *testing.T) {
	t.Parallel()
	got := judge(sqldb.Inspection{Applied: 1, Known: 1, Leases: []sqldb.HeldLease{{Name: "writable", Over: true}}})
	if last := got[len(got)-1]; last.Check != "leases" || !strings.HasSuffix(last.Says, "giving it back") {
		t.Errorf("got %+v", last)
	}
}

// What a server calls its parts used to reach the terminal as it came, escape
// sequences and all.
func TestDoctorPrintsNoEscapeSequences(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = json.NewEncoder(w).Encode(app.Readiness{Status: "not_\x1b[2Jready", Parts: []app.PartState{{Name: "x\x1b[2J\u202e", State: "failed", Code: "y\x1b]0;z\x07"}}})
	}))
	t.Cleanup(srv.Close)
	var out bytes.Buffer
	c := &command{env: map[string]string{}, stdin: &bytes.Buffer{}, stdout: &out, stderr: io.Discard}
	c.printFindings(checkServer(t.Context(), &patient{command: c, server: srv.URL}))
	if text := out.String(); !strings.Contains(text, "server x") || strings.ContainsAny(text, "\x1b\x07\u202e") {
		t.Errorf("got %q, want the part's name and nothing that moves a terminal", text)
	}
}

// A bug: the server that was asked was the one of the last login, and nothing said
// so, though the settings were of another.
func TestDoctorSaysWhichServerItAsks(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"status":"ready"}`)) }))
	t.Cleanup(srv.Close)
	c := doctorOf(map[string]string{envServer: srv.URL})
	p := &patient{command: c, now: time.Now, server: c.serverURL()}
	p.cfg.PublicURL = "https://ambit.example.com"
	got := checkServer(t.Context(), p)
	if !has(got, "", fine, "is ready (of AMBIT_SERVER)") || !has(got, "", note, "settings here are of https://ambit.example.com") {
		t.Errorf("got %+v", got)
	}
}

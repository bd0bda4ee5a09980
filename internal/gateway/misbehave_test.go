package gateway_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/provider/providertest"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// rowKey is the credential that misbehaving providers get.
const rowKey = "row-key-7d3b1c90e5f24a68"

// misbehaving is a scene with an account at each listener of providertest.
type misbehaving struct {
	scene
	server *providertest.Server
	handle map[providertest.Place]string
}

const rowLimit = 5 * time.Second

func newMisbehaving(t *testing.T, db *sqldb.DB, rows []providertest.Row) misbehaving {
	t.Helper()
	m := misbehaving{scene: scene{World: gatewaytest.New(t, db)}, server: providertest.New(t, rows), handle: map[providertest.Place]string{}}
	var err error
	m.Outbound, err = outbound.New(outbound.Policy{Allow: m.server.Allow(), Roots: m.server.Roots, Timeout: rowLimit})
	gatewaytest.Must(t, err)
	t.Cleanup(m.Outbound.Close)
	m.Node(t)
	m.owner = m.Person(t, "mia@example.com", account.RoleMember)
	m.bot = m.Agent(t, m.owner, "Triage bot")
	for _, r := range rows {
		if m.handle[r.At] != "" {
			continue
		}
		slug := "at_" + strings.ReplaceAll(string(r.At), "-", "_")
		m.Put(t, fmt.Sprintf("id: %s\nname: Row\nwebsite: https://row.example\nauth: api_key\ninject: {header: %s, format: \"{api_key}\"}\napi:\n  base: [%q]\nhealth: {path: /good}\ngeneric: {read: true, write: true}\n",
			slug, providertest.AuthHeader, m.server.URL(r.At)))
		_, err := m.Credentials.AddKey(t.Context(), account.ByPerson(m.owner.Signed(t)).In(m.Environment),
			credential.Start{Environment: m.Environment, Organization: m.Organization, Provider: slug}, m.owner.ID,
			map[string]secret.Value{provider.FieldAPIKey: secret.FromString(rowKey)}, account.Agreement{})
		gatewaytest.Must(t, err)
		m.handle[r.At] = m.Active(t, m.owner, m.bot, slug, policy.Read, policy.Write)
	}
	return m
}

func (m misbehaving) call(t *testing.T, r providertest.Row, path string) (gateway.Result, error) {
	t.Helper()
	m.Clock.Advance(time.Millisecond)
	slug := "at_" + strings.ReplaceAll(string(r.At), "-", "_")
	if r.Post {
		return m.Call(t, m.bot, m.handle[r.At], slug+"_write", map[string]any{"method": "POST", "path": path, "body": map[string]any{"n": 1}})
	}
	return m.Call(t, m.bot, m.handle[r.At], slug+"_read", map[string]any{"path": path})
}

// play makes one row's call and holds it against what the row says.
func (m misbehaving) play(t *testing.T, r providertest.Row) {
	t.Helper()
	began := time.Now()
	res, err := m.call(t, r, "/"+url.PathEscape(r.Name))
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("took %v", took)
	}
	if code(err) != r.Code || res.Status != r.Status {
		t.Errorf("got status %d, error %v; want status %d, error %q", res.Status, err, r.Status, r.Code)
	}
	if err != nil && fault.Of(err).Hint == "" {
		t.Errorf("the agent is not told what to do: %v", err)
	}
	seen := string(res.Body) + res.Withheld + fmt.Sprint(res.Header)
	for e := err; e != nil; e = errors.Unwrap(e) {
		seen += fmt.Sprintf("%v %+v %v", e, e, fault.Of(e).Fields)
	}
	if r.Has != "" && !strings.Contains(seen, r.Has) {
		t.Errorf("the answer does not hold %q: %.200s", r.Has, seen)
	}
	if form := holdsKey(seen); form != "" {
		t.Errorf("the agent gets the credential, %s: %.300s", form, seen)
	}
	if strings.Contains(seen, "EVIL") {
		t.Errorf("the agent gets what was no part of the answer: %.200s", seen)
	}
	if r.Slow {
		return // others run beside it, so the last record may be theirs
	}
	if got := m.newest(t).Outcome; got == nil || got.Status != r.Outcome || got.UpstreamStatus != r.Status+r.Refused {
		t.Errorf("on record is %+v, want %s with status %d", got, r.Outcome, r.Status+r.Refused)
	}
}

// newest is the record of the last call. Time passes between calls here, so it is
// the first of a list.
func (m misbehaving) newest(t *testing.T) (r audit.Record) {
	t.Helper()
	soon(t, "the call has its outcome", func() bool {
		page, err := m.Audit.List(t.Context(), audit.Filter{Environment: m.Environment, Action: "tool.call", Limit: 1})
		gatewaytest.Must(t, err)
		if len(page.Records) == 1 {
			r = page.Records[0]
		}
		return r.Outcome != nil || r.Decision == "deny"
	})
	return r
}

// holdsKey names the form in which s holds the credential.
func holdsKey(s string) string {
	low := strings.ToLower(s)
	for form, needle := range map[string]string{
		"raw": rowKey, "in hex": hex.EncodeToString([]byte(rowKey)), "in JSON": strings.Trim(fmt.Sprintf("%q", rowKey), `"`),
		"in part": rowKey[:12], "in a query": url.QueryEscape(rowKey),
	} {
		if strings.Contains(low, strings.ToLower(needle)) {
			return form
		}
	}
	for skip := range 3 {
		enc := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", skip) + rowKey))
		if strings.Contains(s, enc[4:len(enc)-4]) {
			return "in base64"
		}
	}
	var escaped any
	if json.Unmarshal([]byte(s), &escaped) == nil && strings.Contains(fmt.Sprint(escaped), rowKey) {
		return "in escapes"
	}
	return ""
}

// F6, U1, U2: whatever a provider does, the agent gets an answer or a code that
// says what is known, within the limit of time; what is on record says the same;
// the credential goes to the agent in no form, and nowhere along a redirect; what
// was no part of the answer is in no answer, the next one included; and the next
// good call to the same place works.
func TestF6ProviderMisbehaves(t *testing.T) {
	rows := providertest.Rows()
	if len(rows) < 40 {
		t.Fatalf("only %d rows", len(rows))
	}
	t.Logf("%d rows", len(rows))
	for _, engine := range sqldbtest.Engines() {
		if raceDetector && engine == sqldb.PostgreSQL {
			continue // it is slow, and nothing here is the database's
		}
		t.Run(engine.String(), func(t *testing.T) {
			m := newMisbehaving(t, sqldbtest.Open(t, engine), rows)
			m.Outbound.Close()
			before := runtime.NumGoroutine()
			good := func(t *testing.T, r providertest.Row) {
				switch r.At {
				case providertest.Plain, providertest.TLS, providertest.HTTP2:
				default:
					return
				}
				for range 3 {
					res, err := m.call(t, providertest.Row{At: r.At}, providertest.Good)
					if err != nil || res.Status != 200 || string(res.Body) != `{"good":true}` {
						t.Errorf("the next good call: %d %.200s %v", res.Status, res.Body, err)
					}
				}
			}
			for _, r := range rows {
				// The database plays no part in how long things take, nor in TLS.
				if less := raceDetector || engine == sqldb.PostgreSQL; r.Slow || less && (r.Large || r.At == providertest.TLS) {
					continue
				}
				t.Run(r.Name, func(t *testing.T) {
					if grown := peak(func() { m.play(t, r) }); grown > 64<<20 {
						t.Errorf("took %d MiB", grown>>20)
					}
					good(t, r)
				})
			}
			if engine == sqldb.SQLite {
				t.Run("slow", func(t *testing.T) {
					for _, r := range rows {
						if r.Slow {
							t.Run(r.Name, func(t *testing.T) {
								t.Parallel()
								m.play(t, r)
								good(t, r)
							})
						}
					}
				})
			}
			if n := m.server.Lured(); n != 0 {
				t.Errorf("%d connections went along a redirect", n)
			}
			soon(t, "every goroutine has ended", func() bool { m.Outbound.Close(); return runtime.NumGoroutine() <= before+5 })
		})
	}
}

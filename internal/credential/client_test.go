package credential_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// desk is a provider that knows clients by their ids and secrets, and counts what
// each was used for.
type desk struct {
	*internet
	takes map[string][]string // secrets by client id
	used  []string            // "grant or revoke, client id:secret, accepted"
	turn  int
}

const deskRecord = `id: desk
name: Desk
auth: oauth2
oauth2:
  authorize_url: https://desk.example/authorize
  token_url: https://desk.example/token
  revoke_url: https://desk.example/revoke
  scopes: {base: [read]}
  refresh: {rotates: true}
identity: {path: /me, id: id, label: email}
api: {base: ["https://desk.example/api"]}
generic: {read: true}
`

func newDesk(t *testing.T, db *sqldb.DB) *desk {
	d := &desk{internet: newInternet(t, newScene(t, db)), takes: map[string][]string{"env-client": {"env-secret-1"}, "org-client": {"org-secret-1"}}}
	d.serve("desk.example")
	d.answer = func(s said) reply {
		if s.Path == "/api/me" {
			return reply{body: `{"id":"d1","email":"mia@desk.example"}`}
		}
		if strings.HasPrefix(s.Path, "/api/") {
			return reply{body: `{}`}
		}
		r := &http.Request{Header: s.Header}
		client, key, _ := r.BasicAuth()
		what := s.Form.Get("grant_type")
		if s.Path == "/revoke" {
			what = "revoke " + s.Form.Get("token_type_hint")
		}
		if !slices.Contains(d.takes[client], key) {
			d.used = append(d.used, what+" "+client+" "+key+" refused")
			return reply{status: 401, body: `{"error":"invalid_client"}`}
		}
		d.used = append(d.used, what+" "+client+" "+key)
		if s.Path == "/revoke" {
			return reply{}
		}
		d.turn++
		return reply{body: fmt.Sprintf(`{"access_token":"desk-access-%d","refresh_token":"desk-refresh-%d","expires_in":3600,"scope":"read"}`, d.turn, d.turn)}
	}
	return d
}

// connectedDesk is one at which the environment's client has connected an account.
func connectedDesk(t *testing.T, db *sqldb.DB) (*desk, id.Connection) {
	t.Helper()
	d := newDesk(t, db)
	gatewaytest.Must(t, d.client(t, "", "env-client", "env-secret-1", nil))
	done, _, err := d.signIn(t, "desk", nil, nil)
	gatewaytest.Must(t, err)
	d.since()
	return d, done.Connection.ID
}

// client stores a client: of org, or the environment's.
func (d *desk) client(t *testing.T, org id.Organization, client, key string, change func(*provider.Input)) error {
	t.Helper()
	in := provider.Input{YAML: []byte(d.here(deskRecord)), Organization: org, ClientID: client, ClientSecret: secretOf(key)}
	if change != nil {
		change(&in)
	}
	_, err := d.Providers.Put(t.Context(), d.System.In(d.Environment), in, account.Agreement{})
	return err
}

// since gives what clients were used for since the last time that it was asked.
func (d *desk) since() []string {
	out := d.used
	d.used = nil
	return out
}

// renewed calls a tool after the access token has ended.
func (d *desk) renewed(t *testing.T) error {
	t.Helper()
	d.Clock.Advance(2 * time.Hour)
	handle := d.Active(t, d.owner, d.bot, "desk", policy.Read)
	_, err := d.Call(t, d.bot, handle, "desk_read", map[string]any{"method": "GET", "path": "/things"})
	return err
}

// at begins to connect, and gives the address at the provider.
func (d *desk) at(t *testing.T, org id.Organization) (url.Values, error) {
	t.Helper()
	p, err := d.Accounts.Authenticate(t.Context(), d.owner.Token(), "127.0.0.1") // a member of more since
	gatewaytest.Must(t, err)
	at, err := d.Credentials.Authorize(t.Context(), p, credential.Start{Environment: d.Environment, Organization: org, Provider: "desk"})
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(at)
	gatewaytest.Must(t, err)
	return u.Query(), nil
}

// heard gives what the audit has of an action, newest first.
func (d *desk) heard(t *testing.T, action string) []audit.Record {
	t.Helper()
	page, err := d.Audit.List(t.Context(), audit.Filter{Environment: d.Environment, Action: action})
	gatewaytest.Must(t, err)
	return page.Records
}

// Issue 5: while a client's secret is replaced both count. Each is tried where it is
// needed, for a code, a refresh and a revocation; that the old one was is on record;
// after the overlap it is not sent any more.
func TestTwoSecretsCountWhileOneRotates(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		d, conn := connectedDesk(t, db)
		gatewaytest.Must(t, d.client(t, "", "env-client", "env-secret-2", nil))

		gatewaytest.Must(t, d.renewed(t))
		if got := d.since(); !slices.Equal(got, []string{"refresh_token env-client env-secret-2 refused", "refresh_token env-client env-secret-1"}) {
			t.Errorf("the provider knows the old secret only: %q", got)
		}
		if n := len(d.heard(t, "provider.old_secret_used")); n != 1 {
			t.Errorf("%d entries say that the old secret was needed", n)
		}
		again, _, err := d.signIn(t, "desk", nil, nil)
		if err != nil || again.Connection.ID != conn {
			t.Errorf("a code in the overlap: %v", err)
		}
		d.since()
		d.takes["env-client"] = []string{"env-secret-2", "env-secret-1"}
		gatewaytest.Must(t, d.renewed(t))
		if got := d.since(); !slices.Equal(got, []string{"refresh_token env-client env-secret-2"}) {
			t.Errorf("the provider knows the new one: %q", got)
		}

		d.Clock.Advance(provider.DefaultOverlap)
		d.takes["env-client"] = []string{"env-secret-1"}
		if err := d.renewed(t); code(err) != "upstream_unreachable" {
			t.Errorf("after the overlap: %v", err)
		}
		if got := d.since(); slices.Contains(got, "refresh_token env-client env-secret-1") || len(got) == 0 {
			t.Errorf("after the overlap the old secret was sent: %q", got)
		}
		gatewaytest.Must(t, d.Credentials.RetryRevocations(t.Context()))
		var left int
		gatewaytest.Must(t, db.Reader().QueryRowContext(t.Context(), `select count(*) from provider where old_client_secret is not null`).Scan(&left))
		if left != 0 {
			t.Error("the old secret is kept after it has ended")
		}
		if c, err := d.Connections.ByID(t.Context(), db.Reader(), d.Environment, conn); err != nil || c.State != connection.Connected {
			t.Errorf("our registration is refused, and the account is %s (%v)", c.State, err)
		}

		gatewaytest.Must(t, d.client(t, "", "env-client", "env-secret-3", nil)) // 2 is the old one now
		d.takes["env-client"] = []string{"env-secret-2"}
		d.since()
		_, err = d.Credentials.Disconnect(t.Context(), d.me(t), conn)
		gatewaytest.Must(t, err)
		if got := d.since(); !slices.Contains(got, "revoke refresh_token env-client env-secret-2") {
			t.Errorf("given back with %q", got)
		}
		none := time.Duration(0)
		gatewaytest.Must(t, d.client(t, "", "env-client", "env-secret-4", func(in *provider.Input) { in.Overlap = &none }))
		if _, _, err := d.signIn(t, "desk", nil, nil); code(err) != "exchange_failed" {
			t.Errorf("without an overlap the old secret counts: %v", err)
		}
		if got := d.since(); len(got) != 1 || !strings.HasSuffix(got[0], "env-secret-4 refused") {
			t.Errorf("without an overlap: %q", got)
		}
	})
}

// Issue 5, O2: an organization's own client signs its people in, at an address of its
// own, and renews what they connected. The environment's is for one organization
// unless its operator says that they know what it means.
func TestClientsAtThreeLevels(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		d := newDesk(t, db)
		ctx := t.Context()
		env, err := d.Accounts.Environment(ctx, d.Environment)
		gatewaytest.Must(t, err)
		other, err := d.Accounts.CreateOrganization(ctx, d.System, d.Environment, "Other", "")
		gatewaytest.Must(t, err)
		gatewaytest.Must(t, d.Accounts.AddMember(ctx, d.System, other.ID, d.owner.ID, account.RoleMember, account.Agreement{}))
		gatewaytest.Must(t, d.client(t, "", "env-client", "env-secret-1", nil))
		p, err := d.Providers.Get(ctx, d.Environment, "desk")
		if err != nil || p.For != provider.Audience(env.Operator) {
			t.Errorf("at first it is for %q, want the operator's organization (%v)", p.For, err)
		}
		if _, err := d.at(t, other.ID); code(err) != "client_not_shared" {
			t.Errorf("another organization with the operator's client: %v", err)
		}
		share := func(in *provider.Input) { in.For = provider.ForAll }
		if err := d.client(t, "", "env-client", "", share); code(err) != "shared_client_unaccepted" {
			t.Errorf("shared without a word: %v", err)
		}
		gatewaytest.Must(t, d.client(t, "", "env-client", "", func(in *provider.Input) { in.For, in.AcceptShared = provider.ForAll, true }))
		if q, err := d.at(t, other.ID); err != nil || q.Get("client_id") != "env-client" {
			t.Errorf("shared: %v %v", q, err)
		}
		if e := d.heard(t, "provider.updated"); len(e) == 0 || e[0].Detail["client_for"] != "all" {
			t.Errorf("the audit does not tell that it is shared: %v", e)
		}
		done, asked, err := d.signIn(t, "desk", nil, nil)
		gatewaytest.Must(t, err)
		shared := asked.Get("redirect_uri")

		// The organization brings its own: for who connects from now on.
		gatewaytest.Must(t, d.client(t, d.Organization, "org-client", "org-secret-1", nil))
		d.since()
		gatewaytest.Must(t, d.renewed(t))
		if got := d.since(); !slices.Equal(got, []string{"refresh_token env-client env-secret-1"}) {
			t.Errorf("a connection of before was renewed with %q", got)
		}
		q, err := d.at(t, d.Organization)
		gatewaytest.Must(t, err)
		if q.Get("client_id") != "org-client" || q.Get("redirect_uri") == shared || !strings.HasSuffix(q.Get("redirect_uri"), "/"+string(d.Organization)) {
			t.Errorf("signed in with %s at %s", q.Get("client_id"), q.Get("redirect_uri"))
		}
		back := url.Values{"state": {q.Get("state")}, "code": {"x"}}
		if _, err := d.Credentials.Callback(ctx, d.owner.Signed(t), d.Environment, "desk", back); code(err) != "flow_expired" {
			t.Errorf("an answer of the organization's client at the environment's address: %v", err)
		}
		q, err = d.at(t, d.Organization)
		gatewaytest.Must(t, err)
		back.Set("state", q.Get("state"))
		d.since()
		again, err := d.Credentials.CallbackOf(ctx, d.owner.Signed(t), d.Environment, "desk", d.Organization, back)
		gatewaytest.Must(t, err)
		got := d.since()
		if again.Connection.ID != done.Connection.ID || got[0] != "authorization_code org-client org-secret-1" {
			t.Errorf("connected %s with %q", again.Connection.ID, got)
		}
		if !slices.Contains(got, "revoke refresh_token env-client env-secret-1") {
			t.Errorf("what was replaced was given back with another client than it came from: %q", got)
		}
		// A rotated secret reaches what is connected at once.
		d.takes["org-client"] = []string{"org-secret-2"}
		gatewaytest.Must(t, d.client(t, d.Organization, "org-client", "org-secret-2", nil))
		gatewaytest.Must(t, d.renewed(t))
		if got := d.since(); !slices.Equal(got, []string{"refresh_token org-client org-secret-2"}) {
			t.Errorf("renewed with %q", got)
		}
		if q, err := d.at(t, other.ID); err != nil || q.Get("client_id") != "env-client" {
			t.Errorf("the other organization is signed in with %q (%v)", q.Get("client_id"), err)
		}
		list, err := d.Providers.Clients(ctx, d.appIn(t, d.Environment, other.ID, account.ScopeProvidersWrite), "desk")
		if err != nil || len(list) != 1 || list[0].ID != "env-client" {
			t.Errorf("another organization sees %+v (%v)", list, err)
		}
		key := d.appIn(t, d.Environment, other.ID, account.ScopeProvidersWrite)
		if err := d.Providers.RemoveOwn(ctx, key, "desk", d.Organization); err == nil {
			t.Error("a key of another organization removed the client")
		}
		if _, err := d.Providers.Put(ctx, key, provider.Input{YAML: []byte(d.here(deskRecord)), Organization: d.Organization, ClientID: "theirs", ClientSecret: secretOf("their-secret")}, account.Agreement{}); err == nil {
			t.Error("a key of another organization set the client")
		}
	})
}

// Rule 6: another client reaches what is connected only when its owner reconnects. Its
// secret never goes along with a grant of the one before, and an organization's secret
// goes to no place that the record was moved to since it was given.
func TestRule6AnotherClientTakesAReconnect(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		d, _ := connectedDesk(t, db)
		d.takes["next-client"] = []string{"next-secret"}
		gatewaytest.Must(t, d.client(t, "", "next-client", "next-secret", nil))
		d.since()
		if err := d.renewed(t); code(err) != "reconnect" {
			t.Errorf("another client id: %v", err)
		}
		if got := d.since(); len(got) != 0 {
			t.Errorf("the new client renewed a grant of the old one: %q", got)
		}
		done, _, err := d.signIn(t, "desk", nil, nil)
		gatewaytest.Must(t, err)
		gatewaytest.Must(t, d.renewed(t))

		gatewaytest.Must(t, d.client(t, d.Organization, "org-client", "org-secret-1", nil))
		d.serve("evil.example")
		moved := strings.Replace(d.here(deskRecord), d.here("https://desk.example/token"), d.here("https://evil.example/token"), 1)
		if _, err := d.Providers.Put(t.Context(), d.System.In(d.Environment), provider.Input{YAML: []byte(moved), ClientID: "next-client", ClientSecret: secretOf("next-secret")}, account.Agreement{}); err != nil {
			t.Fatal(err)
		}
		q, err := d.at(t, d.Organization)
		gatewaytest.Must(t, err)
		d.since()
		_, err = d.Credentials.CallbackOf(t.Context(), d.owner.Signed(t), d.Environment, "desk", d.Organization, url.Values{"state": {q.Get("state")}, "code": {"x"}})
		if code(err) != "provider_changed" || len(d.since()) != 0 {
			t.Errorf("the organization's secret at a place that it was not given for: %v", err)
		}
		if c, err := d.Connections.ByID(t.Context(), db.Reader(), d.Environment, done.Connection.ID); err != nil || c.State != connection.Connected {
			t.Errorf("it is %s (%v)", c.State, err)
		}
	})
}

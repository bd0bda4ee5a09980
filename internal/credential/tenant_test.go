package credential_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// tenantScene is the sandbox as a provider that has an address for each customer:
// the area is chosen, the host and the shard are told with the token.
func tenantScene(t *testing.T, db *sqldb.DB) scene {
	t.Helper()
	w := gatewaytest.New(t, db)
	in := oauthInput(w)
	host := strings.TrimPrefix(w.Sandbox.URL, "http://")
	text := strings.NewReplacer(
		"auth: oauth2\n", "auth: oauth2\ntenant:\n  - {name: area, title: Area, options: [north, south], default: north}\n"+
			"capture:\n  - {name: host, from: token, field: instance_url, hosts: [\""+host+"\"]}\n  - {name: shard, from: token, field: shard, pattern: 's[0-9]', example: s1}\n",
		"identity: {path: /me,", "identity: {url: \""+w.Sandbox.URL+"/me\",",
		`base: ["`+w.Sandbox.URL+`"]`, `base: ["http://{host}/mirror/{area}/{shard}"]`,
	).Replace(string(in.YAML))
	in.YAML = []byte(text)
	_, err := w.Providers.Put(t.Context(), w.System.In(w.Environment), in, account.Agreement{})
	gatewaytest.Must(t, err)
	s := scene{World: w, owner: w.Person(t, "mia@example.com", account.RoleMember)}
	s.bot = w.Agent(t, s.owner, "Triage bot")
	return s
}

// answers has the token endpoint say these members with a made-up token, for
// which the account is u1.
func (s scene) answers(t *testing.T, token string, more map[string]any) {
	t.Helper()
	s.Mend(t)
	body := map[string]any{"access_token": token, "refresh_token": token + "-refresh", "expires_in": 3600}
	for k, v := range more {
		body[k] = v
	}
	s.Fault(t, map[string]any{"path": "/oauth/token", "body": body, "times": 10})
	s.Fault(t, map[string]any{"path": "/me", "body": map[string]any{"id": "u1", "email": "mia@sandbox.example"}, "times": 10})
}

func (s scene) sign(t *testing.T, p *agenttest.Person, change func(*credential.Start)) (credential.Connected, error) {
	t.Helper()
	at := s.Begin(t, p, change)
	s.Clock.Advance(time.Second)
	return s.Credentials.Callback(t.Context(), p.Signed(t), s.Environment, "sandbox", s.Consent(t, at, gatewaytest.Mia))
}

// Issue 5: what a person chooses and what the provider tells are part of where a
// connection's credential may go (rule 6), and tell its account from others.
func TestTenantOfAConnection(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := tenantScene(t, db)
		choose := func(area string) func(*credential.Start) {
			return func(st *credential.Start) { st.Chosen = map[string]string{"area": area} }
		}
		good := map[string]any{"instance_url": s.Sandbox.URL, "shard": "s1"}
		s.answers(t, "made-up-token-1", good)
		first, err := s.sign(t, s.owner, choose("south"))
		gatewaytest.Must(t, err)
		if got, want := first.Connection.Pinned.API, []string{s.Sandbox.URL + "/mirror/south/s1"}; !slices.Equal(got, want) {
			t.Errorf("pinned %v, want %v", got, want)
		}
		s.answers(t, "made-up-token-2", good)
		second, err := s.sign(t, s.owner, choose("north"))
		gatewaytest.Must(t, err)
		if second.Connection.ID == first.Connection.ID {
			t.Error("the same id at another tenant took the first connection's place (O15)")
		}
		s.answers(t, "made-up-token-3", good)
		again, err := s.sign(t, s.owner, func(st *credential.Start) { st.Reconnect = first.Connection.ID })
		gatewaytest.Must(t, err)
		if again.Connection.ID != first.Connection.ID || again.Connection.Pinned.Values["area"] != "south" {
			t.Errorf("a reconnect without a choice: %+v", again.Connection)
		}
		if c, err := s.Connections.ByID(t.Context(), s.DB.Reader(), s.Environment, first.Connection.ID); err != nil || c.Record.API.Base[0] != s.Sandbox.URL+"/mirror/south/s1" {
			t.Errorf("read again: %v, %v", c.Record.API, err)
		}
		for name, area := range map[string]string{"not listed": "east", "a host": "south/../../evil"} {
			st := start(s.World, "sandbox")
			st.Chosen = map[string]string{"area": area}
			if _, err := s.Credentials.Authorize(t.Context(), s.owner.Signed(t), st); code(err) != "tenant_invalid" {
				t.Errorf("%s: %v", name, err)
			}
		}
		st := start(s.World, "sandbox")
		st.Chosen = map[string]string{"shard": "s9"}
		if _, err := s.Credentials.Authorize(t.Context(), s.owner.Signed(t), st); code(err) != "tenant_invalid" {
			t.Errorf("a person chose what the provider tells: %v", err)
		}
	})
}

// O3, O7, rule 6: a token answer that names a foreign host connects nothing, and
// the token goes nowhere.
func TestRule6CapturedHostIsTheProviders(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := tenantScene(t, db)
		for name, c := range map[string]struct {
			told map[string]any
			want string
		}{
			"a foreign host":   {map[string]any{"instance_url": "https://evil.example", "shard": "s1"}, "destination_refused"},
			"a foreign port":   {map[string]any{"instance_url": "http://127.0.0.1:1", "shard": "s1"}, "destination_refused"},
			"no host":          {map[string]any{"shard": "s1"}, "capture_missing"},
			"a step upwards":   {map[string]any{"instance_url": s.Sandbox.URL, "shard": "s1/../.."}, "tenant_invalid"},
			"a list of shards": {map[string]any{"instance_url": s.Sandbox.URL, "shard": []string{"s1"}}, "capture_missing"},
		} {
			s.answers(t, "made-up-token-"+strings.ReplaceAll(name, " ", "-"), c.told)
			before := len(s.Arrivals("/me"))
			if _, err := s.sign(t, s.owner, nil); code(err) != c.want {
				t.Errorf("%s: got %v, want %s", name, err, c.want)
			}
			if n := len(s.Arrivals("/me")) - before; n != 0 {
				t.Errorf("%s: the token went somewhere", name)
			}
		}
		if list, err := s.Connections.Usable(t.Context(), s.Environment, s.Organization, s.owner.ID, nil); err != nil || len(list) != 0 {
			t.Errorf("%d connections, %v", len(list), err)
		}
	})
}

// Rule 6: a refresh that names another host of the provider moves the connection,
// and what was approved for the old one is approved no more. One that leads astray
// is stored, for it may be the only token, and is sent nowhere.
func TestRule6RefreshThatMoves(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := tenantScene(t, db)
		s.answers(t, "made-up-token-1", map[string]any{"instance_url": s.Sandbox.URL, "shard": "s1"})
		done, err := s.sign(t, s.owner, nil)
		gatewaytest.Must(t, err)
		s.conn = done.Connection
		s.handle = s.Active(t, s.owner, s.bot, "sandbox", policy.Read)
		gatewaytest.Must(t, s.call(t))
		late := s.permit(t, s.World)

		s.answers(t, "made-up-token-2", map[string]any{"shard": "s2"})
		s.Clock.Advance(59 * time.Minute)
		s.handle = s.Active(t, s.owner, s.bot, "sandbox", policy.Read)
		if _, _, err := s.Credentials.Token(t.Context(), late); code(err) != "approval_stale" {
			t.Errorf("a call that was approved for the old place: %v", err)
		}
		if got := s.now(t).Pinned.API[0]; got != s.Sandbox.URL+"/mirror/north/s2" {
			t.Errorf("pinned %s", got)
		}
		if err := s.call(t); code(err) != "approval_stale" {
			t.Errorf("a session for the old place: %v", err)
		}
		s.handle = s.Active(t, s.owner, s.bot, "sandbox", policy.Read)
		gatewaytest.Must(t, s.call(t))
		if n := len(s.Arrivals("/mirror/north/s2/issues")); n != 1 {
			t.Errorf("%d calls at the new place", n)
		}

		s.answers(t, "made-up-token-3", map[string]any{"instance_url": "https://evil.example"})
		s.Clock.Advance(61 * time.Minute)
		s.handle = s.Active(t, s.owner, s.bot, "sandbox", policy.Read)
		if err := s.call(t); code(err) != connection.CodeReconnect {
			t.Errorf("a refresh that leads astray: %v", err)
		}
		c := s.now(t)
		if c.State != connection.NeedsReauth || c.Reason != "destination_refused" || c.Pinned.API[0] != s.Sandbox.URL+"/mirror/north/s2" {
			t.Errorf("afterwards %s %s %v", c.State, c.Reason, c.Pinned.API)
		}
		if r := s.stored(t); r.version != 3 || !r.sealed {
			t.Errorf("the provider's only token was thrown away: %+v", r)
		}
		if got := strings.Join(s.Actions(t), " "); !strings.Contains(got, "connection.moved") {
			t.Errorf("audit: %s", got)
		}
	})
}

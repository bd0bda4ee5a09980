package credential_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scene is a person with an account at the sandbox, connected by OAuth, and an
// agent with a session on it.
type scene struct {
	*gatewaytest.World
	owner  *agenttest.Person
	bot    agent.Identity
	conn   connection.Connection
	handle string
}

func newScene(t *testing.T, db *sqldb.DB) scene {
	t.Helper()
	w := gatewaytest.New(t, db)
	w.OAuthProvider(t)
	s := scene{World: w, owner: w.Person(t, "mia@example.com", account.RoleMember)}
	s.conn = w.ConnectOAuth(t, s.owner, gatewaytest.Mia, nil)
	s.bot = w.Agent(t, s.owner, "Triage bot")
	s.handle = w.Active(t, s.owner, s.bot, "sandbox", policy.Read, policy.Write)
	return s
}

// permit is the right to list issues once, as w's rooms give it.
func (s scene) permit(t *testing.T, w *gatewaytest.World) session.Permit {
	t.Helper()
	ctx := t.Context()
	live, err := w.Sessions.Live(ctx, s.bot, s.handle)
	gatewaytest.Must(t, err)
	target, err := live.Target("sandbox_list_issues", "")
	gatewaytest.Must(t, err)
	req, err := target.Tool.Build([]byte(`{}`), target.Bases...)
	gatewaytest.Must(t, err)
	p, _, err := w.Sessions.Permit(ctx, live, target, req)
	gatewaytest.Must(t, err)
	return p
}

// token asks for the credential, and gives what the error says.
func (s scene) token(t *testing.T) (string, int64, error) {
	t.Helper()
	c, version, err := s.Credentials.Token(t.Context(), s.permit(t, s.World))
	return string(c.Values[provider.FieldAccessToken].Reveal()), version, err
}

// call lists issues through the spine.
func (s scene) call(t *testing.T) error {
	t.Helper()
	_, err := s.Call(t, s.bot, s.handle, "sandbox_list_issues", nil)
	return err
}

// now is the connection as it stands.
func (s scene) now(t *testing.T) connection.Connection {
	t.Helper()
	c, err := s.Connections.ByID(t.Context(), s.DB.Reader(), s.Environment, s.conn.ID)
	gatewaytest.Must(t, err)
	return c
}

// me is the owner's authority.
func (s scene) me(t *testing.T) account.Actor {
	return account.ByPerson(s.owner.Signed(t)).In(s.Environment)
}

// stored is what the row says of a refresh.
type stored struct {
	version, failures, next, attempt, until int64
	lease, revoke, lastError                string
	sealed                                  bool
}

func (s scene) stored(t *testing.T) stored {
	t.Helper()
	var r stored
	var envelope []byte
	err := s.DB.Reader().QueryRowContext(t.Context(), `select version, failures, next_attempt_at, attempt_started_at, lease_until, lease_owner, revoke_state, last_error, envelope
		from credential where connection_id = $1`, s.conn.ID).Scan(&r.version, &r.failures, &r.next, &r.attempt, &r.until, &r.lease, &r.revoke, &r.lastError, &envelope)
	gatewaytest.Must(t, err)
	r.sealed = len(envelope) > 0
	return r
}

func (s scene) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	gatewaytest.Must(t, s.DB.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
		_, err := tx.ExecContext(ctx, query, args...)
		return err
	}))
}

// code is the stable code of an error, or "".
func code(err error) string {
	if err == nil {
		return ""
	}
	return fault.Of(err).Code
}

// eachCluster runs fn on both engines with a function that gives a handle for
// one more node. SQLite has one process, so its nodes share the handle.
func eachCluster(t *testing.T, fn func(t *testing.T, db *sqldb.DB, another func() *sqldb.DB)) {
	t.Helper()
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			cfg := sqldbtest.Migrated(t, engine)
			db := sqldbtest.OpenConfig(t, cfg)
			fn(t, db, func() *sqldb.DB {
				if engine == sqldb.SQLite {
					return db
				}
				return sqldbtest.OpenConfig(t, cfg)
			})
		})
	}
}

// soon waits until ok, and fails after a few seconds.
func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 200 {
		if ok() {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatalf("not within 5 s: %s", what)
}

// start is what connects the sandbox for the world's organization.
func start(w *gatewaytest.World, slug string) credential.Start {
	return credential.Start{Environment: w.Environment, Organization: w.Organization, Provider: slug}
}

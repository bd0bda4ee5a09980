package gateway_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scene is a person whose account at the sandbox is connected with a key, as
// provider "tracker", and an agent with a session on all of it.
type scene struct {
	*gatewaytest.World
	owner  *agenttest.Person
	bot    agent.Identity
	conn   connection.Connection
	handle string
	logs   *logs
}

func newScene(t *testing.T, db *sqldb.DB) scene {
	t.Helper()
	s := scene{logs: &logs{}}
	s.World = gatewaytest.NewLogging(t, db, slog.New(slog.NewJSONHandler(s.logs, &slog.HandlerOptions{Level: slog.LevelDebug})))
	s.KeyProvider(t, "tracker")
	s.owner = s.Person(t, "mia@example.com", account.RoleMember)
	s.conn = s.Connect(t, s.owner, "tracker", false)
	s.bot = s.Agent(t, s.owner, "Triage bot")
	s.handle = s.Active(t, s.owner, s.bot, "tracker", policy.Read, policy.Write, policy.Destructive, policy.Access)
	return s
}

// logs keeps what is logged.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logs) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// do calls a tool of the scene's session.
func (s scene) do(t *testing.T, tool string, args map[string]any) (gateway.Result, error) {
	t.Helper()
	return s.Call(t, s.bot, s.handle, tool, args)
}

// approve lets the owner approve the only open request.
func (s scene) approve(t *testing.T) {
	t.Helper()
	inbox, err := s.Sessions.Inbox(t.Context(), s.owner.Signed(t))
	gatewaytest.Must(t, err)
	if len(inbox) != 1 {
		t.Fatalf("%d requests are open, want one", len(inbox))
	}
	s.Approve(t, s.owner, inbox[0].ID, nil)
}

// records lists the audit of tool calls, oldest first, once all outcomes are in.
func (s scene) records(t *testing.T) []audit.Record {
	t.Helper()
	var out []audit.Record
	soon(t, "every call has its outcome", func() bool {
		page, err := s.Audit.List(t.Context(), audit.Filter{Environment: s.Environment, Action: "tool.call", Limit: 200})
		gatewaytest.Must(t, err)
		out = page.Records
		// The clock of these tests stands still, so order by the chain.
		slices.SortFunc(out, func(a, b audit.Record) int { return cmp.Compare(a.Seq, b.Seq) })
		return !slices.ContainsFunc(out, func(r audit.Record) bool { return r.Decision == "allow" && r.Outcome == nil })
	})
	return out
}

// last is the newest record of a tool call.
func (s scene) last(t *testing.T) audit.Record {
	t.Helper()
	all := s.records(t)
	if len(all) == 0 {
		t.Fatal("no call is on record")
	}
	return all[len(all)-1]
}

// outcome is how the newest call ended, in one word.
func (s scene) outcome(t *testing.T) string {
	t.Helper()
	r := s.last(t)
	if r.Outcome == nil {
		return r.Decision
	}
	return r.Outcome.Status
}

// code is the stable code of an error, or "".
func code(err error) string {
	if err == nil {
		return ""
	}
	return fault.Of(err).Code
}

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

func (s scene) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	gatewaytest.Must(t, s.DB.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
		_, err := tx.ExecContext(ctx, query, args...)
		return err
	}))
}

// raw makes a call with arguments as they are.
func (s scene) raw(t *testing.T, tool, args string) (gateway.Result, error) {
	t.Helper()
	return s.Gateway.Invoke(t.Context(), call(s.bot, s.handle, tool, args))
}

func call(who agent.Identity, handle, tool, args string) gateway.Call {
	return gateway.Call{Identity: who, Handle: handle, Tool: tool, Arguments: json.RawMessage(args), Address: "127.0.0.1"}
}

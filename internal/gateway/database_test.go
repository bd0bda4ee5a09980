package gateway_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// Issue 5: a real PostgreSQL as a provider of tools. What reads only reads, what
// destroys is approved by a person who is told which table it is about, a revoke
// stops what runs, and the login's password (a canary) comes back in no form.
func TestDatabase(t *testing.T) {
	t.Parallel()
	n := sqldbtest.NewTenant(t)
	n.Admin(t, fmt.Sprintf(`create table %[1]s.orders (id int primary key, note text); insert into %[1]s.orders values (1, 'one'), (2, '%[3]s'); analyze %[1]s.orders;
		alter table %[1]s.orders owner to %[2]s`, n.Schema, n.User, n.Password))
	s := scene{logs: &logs{}}
	s.World = gatewaytest.New(t, sqldbtest.Open(t, sqldbtest.Engines()[0]))
	e, err := provider.FindEntry("postgres")
	gatewaytest.Must(t, err)
	rec, err := e.Fill(nil)
	gatewaytest.Must(t, err)
	s.Put(t, string(rec.Source()))
	s.owner = s.Person(t, "mia@example.com", account.RoleMember)
	me := account.ByPerson(s.owner.Signed(t)).In(s.Environment)
	connect := func(tls, password string) (connection.Connection, error) {
		return s.Credentials.AddKey(t.Context(), me, credential.Start{Environment: s.Environment, Organization: s.Organization, Provider: "postgres",
			Chosen: map[string]string{"host": n.Host, "port": n.Port, "database": n.Database, "tls": tls}}, s.owner.ID,
			map[string]secret.Value{provider.FieldUsername: secret.FromString(n.User), provider.FieldPassword: secret.FromString(password)}, account.Agreement{})
	}
	if _, err := connect("verify", n.Password); code(err) != "upstream_unreachable" && code(err) != "upstream_broken" {
		t.Errorf("a server that has no TLS: got %v", err)
	}
	if _, err := connect("off", "short"); code(err) != "credential_unusable" {
		t.Errorf("a password that cannot be cut from answers: got %v", err)
	}
	s.conn, err = connect("off", n.Password)
	gatewaytest.Must(t, err)
	if want := n.User + "@" + n.Address + "/" + n.Database; s.conn.AccountLabel != want || s.conn.AccountID != want {
		t.Errorf("the account is %q, want %q", s.conn.AccountLabel, want)
	}
	s.bot = s.Agent(t, s.owner, "Shop bot")
	s.handle = s.Active(t, s.owner, s.bot, "postgres", policy.Read, policy.Write, policy.Destructive)
	run := func(tool, text string, parameters ...any) (gateway.Result, error) {
		args := map[string]any{"statement": strings.ReplaceAll(text, "SCHEMA", n.Schema)}
		if len(parameters) > 0 {
			args["parameters"] = parameters
		}
		r, err := s.do(t, "postgres_"+tool, args)
		if strings.Contains(fmt.Sprint(string(r.Body), r.Header, err), n.Password) {
			t.Errorf("%s: the password came back: %s %v", text, r.Body, err)
		}
		return r, err
	}
	for _, row := range []struct {
		tool, text string
		parameters []any
		status     int
		want       string
	}{
		{"query", "select id, note from SCHEMA.orders where id = $1", []any{1}, 200, `"rows":[[1,"one"]]`},
		{"query", "select note from SCHEMA.orders where id = $1", []any{2}, 200, `"rows":[["[redacted]"]]`},
		{"query", "select (select note from SCHEMA.orders where id = 2)::int", nil, 400, `22P02`},
		{"query", "select nothing from SCHEMA.orders", nil, 400, `42703`},
		{"query", "select * from pg_authid", nil, 403, `42501`},
		{"execute", "insert into SCHEMA.orders values (3, $1)", []any{"three"}, 200, `"affected":1`},
		{"execute", "insert into SCHEMA.orders values (3, null)", nil, 409, `23505`},
	} {
		r, err := run(row.tool, row.text, row.parameters...)
		if err != nil || r.Status != row.status || !strings.Contains(strings.ToLower(string(r.Body)), strings.ToLower(row.want)) || !r.JSON {
			t.Errorf("%s: got %d %s (%v), want %d %s", row.text, r.Status, r.Body, err, row.status, row.want)
		}
	}
	for _, text := range []string{"delete from SCHEMA.orders", "update SCHEMA.orders set id = 1", "select pg_terminate_backend(1)", "select 1; select 2; drop table SCHEMA.orders"} {
		if _, err := run("query", text); code(err) != "invalid_arguments" {
			t.Errorf("%s by a tool that reads: got %v", text, err)
		}
	}
	r, err := s.do(t, "postgres_describe", map[string]any{"table": "orders", "schema": n.Schema})
	if err != nil || !strings.Contains(string(r.Body), `["id","integer",false,null,"primary key"],["note","text",true,null,null]`) {
		t.Errorf("describe: %s (%v)", r.Body, err)
	}
	r, err = s.do(t, "postgres_list_tables", map[string]any{"schema": n.Schema})
	if err != nil || !strings.Contains(string(r.Body), `"orders","base table"`) {
		t.Errorf("list_tables: %s (%v)", r.Body, err)
	}

	// What destroys waits for a person, who reads what it is about.
	const drop = "delete from SCHEMA.orders where id = 3"
	if _, err := run("execute", drop); code(err) != "approval_required" {
		t.Fatalf("%s: got %v", drop, err)
	}
	inbox, err := s.Sessions.Inbox(t.Context(), s.owner.Signed(t))
	gatewaytest.Must(t, err)
	if want := n.Database + ": table " + n.Schema + ".orders (about 2 rows)"; len(inbox) != 1 || inbox[0].Target != want || inbox[0].Call.Effect != policy.Destructive {
		t.Fatalf("the person reads %+v, want the target %q", inbox, want)
	}
	s.approve(t)
	if r, err := run("execute", drop); err != nil || !strings.Contains(string(r.Body), `"command":"DELETE 1"`) {
		t.Errorf("the approved statement: %s (%v)", r.Body, err)
	}
	if r, err := run("query", "select count(*) from SCHEMA.orders"); err != nil || !strings.Contains(string(r.Body), `[[2]]`) {
		t.Errorf("afterwards: %s (%v)", r.Body, err)
	}

	// A revoke stops what runs, here and at the server.
	began := make(chan error, 1)
	go func() {
		_, err := run("execute", "insert into SCHEMA.orders select g, 'x' from generate_series(10, 2000000000) g")
		began <- err
	}()
	busy := func() bool {
		return n.Count(t, "select count(*) from pg_stat_activity where usename = '"+n.User+"' and state = 'active'") > 0
	}
	soon(t, "the statement runs", busy)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err = s.Credentials.Disconnect(ctx, me, s.conn.ID)
	gatewaytest.Must(t, err)
	if err := <-began; err == nil {
		t.Error("a statement went on after the account was disconnected")
	}
	soon(t, "the statement stops", func() bool { return !busy() })
	if n := n.Count(t, "select count(*) from "+n.Schema+".orders"); n != 2 {
		t.Errorf("%d rows are there, want those of before", n)
	}
	if text := s.logs.text(); strings.Contains(text, n.Password) {
		t.Error("the password is in the log")
	}
	if _, err := run("query", "select 1"); err == nil {
		t.Error("a statement ran after the account was disconnected")
	}
}

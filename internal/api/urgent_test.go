package api_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/api/apitest"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// occupied holds every connection that anybody may have, until the test ends; it
// fails when that takes half a minute.
func occupied(t *testing.T, db *sqldb.DB) {
	t.Helper()
	var all []sqldb.Rows
	for range 6 { // of 8, of which 2 are for the urgent
		rows, err := db.Reader().QueryContext(context.WithoutCancel(t.Context()), `select 1`)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rows)
	}
	release := func() {
		for _, rows := range all {
			_ = rows.Close()
		}
	}
	late := time.AfterFunc(30*time.Second, func() {
		t.Error("what ends access waits for the slow reads")
		release()
	})
	t.Cleanup(func() {
		if late.Stop() {
			release()
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := db.Reader().QueryRowContext(ctx, `select 1`).Scan(new(int)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the connections are not occupied: %v", err)
	}
}

// W7: who ends access is recognised, and what they aim at is found, while slow reads
// have every connection that anybody may have. Each of these waited for one.
func TestAccessEndsBehindSlowReads(t *testing.T) {
	t.Parallel()
	db := sqldbtest.Open(t, sqldb.PostgreSQL)
	w := apitest.New(t, db, nil)
	_, key := w.Key(t, w.Env, "", account.ScopeSessionsRevoke)
	login := w.Login(t, w.Owner)
	first, second := w.Request(t, "first"), w.Request(t, "second")
	w.Approve(t, first.Approval)
	w.Approve(t, second.Approval)
	bot, _ := w.Agent(t, "bot")
	conn := w.ConnectionIn(t, w.Org, "")
	by := account.ByPerson(w.Owner.Person)
	leaver, _ := w.Agent(t, "leaver")
	kept := w.ConnectionIn(t, w.Org, "")
	elsewhere := id.NewIdentityProvider()
	if err := db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
		_, err := tx.ExecContext(ctx, `insert into identity_provider (id, environment_id, organization_id, name, issuer, client_id, envelope, sealed_version, admits, created_at, version)
			values ($1, $2, $3, 'Example Login', 'https://login.example.com', 'ambit', $4, 1, 0, 0, 1)`, elsewhere, w.Env, w.Org, []byte("sealed"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	occupied(t, db)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for token, body := range map[string]map[string]any{
		key:   {"session_id": first.ID},
		login: {"agent_id": second.Agent},
	} {
		res := ask(t, request{method: "POST", url: w.URL + "/v1/revocations", token: token, body: quote(body)})
		if res.status != http.StatusOK || !strings.Contains(string(res.body), "ses_") {
			t.Errorf("a revocation: got %d %s", res.status, res.body)
		}
	}
	res := ask(t, request{method: "POST", url: w.URL + "/v1/revocations", token: key, body: quote(map[string]any{"organization_id": w.Tenant})})
	if res.status != http.StatusOK {
		t.Errorf("a revocation in an organization: got %d %s", res.status, res.body)
	}
	for method, path := range map[string]string{"POST": "/v1/agents/" + string(leaver) + "/disable", "DELETE": "/v1/connections/" + string(kept)} {
		if res := ask(t, request{method: method, url: w.URL + path, token: login}); res.status != http.StatusOK {
			t.Errorf("%s: got %d %s", path, res.status, res.body)
		}
	}
	if res := ask(t, request{method: "DELETE", url: w.URL + "/v1/identity-providers/" + string(elsewhere), token: login}); res.status >= 300 {
		t.Errorf("an identity provider: got %d %s", res.status, res.body)
	}
	if _, err := w.Agents.Disable(ctx, by, bot); err != nil {
		t.Errorf("disable an agent: %v", err)
	}
	if c, err := w.Connections.Disconnect(ctx, by, conn); err != nil || c.Live() {
		t.Errorf("disconnect: %+v, %v", c.State, err)
	}
	if err := w.People.SignOutEverywhere(ctx, w.Owner.Person); err != nil {
		t.Errorf("sign out everywhere: %v", err)
	}
	if _, err := w.People.Urgently().Authenticate(ctx, w.Owner.Token, ""); err == nil {
		t.Error("a login that was signed out still works")
	}
}

// W7: an agent that ends its session takes none of the turns that are kept for those
// who end the access of others.
func TestAgentsEndTakesNoUrgentTurn(t *testing.T) {
	t.Parallel()
	db := sqldbtest.Open(t, sqldb.PostgreSQL)
	w := apitest.New(t, db, nil)
	w.Connection(t, "")
	_, token := w.Agent(t, "worker")
	who, err := w.Agents.Authenticate(t.Context(), secret.FromString(token))
	if err != nil {
		t.Fatal(err)
	}
	r, err := w.Sessions.Request(t.Context(), who, session.Ask{Providers: []string{"sandbox_key"}, Purpose: "read the issues"}, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	release, began := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	for _, line := range []string{"one", "two"} { // both turns there are
		wg.Go(func() {
			if err := db.Urgent(t.Context(), line, func(context.Context, *sqldb.Tx) error { began <- struct{}{}; <-release; return nil }); err != nil {
				t.Error(err)
			}
		})
		<-began
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if ses, err := w.Sessions.Complete(ctx, who, r.Handle); err != nil || ses.State != session.Ended {
		t.Errorf("the agent's end: %s, %v", ses.State, err)
	}
	close(release)
	wg.Wait()
}

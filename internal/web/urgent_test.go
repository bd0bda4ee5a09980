package web_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// W7, and a bug: the forms that end access found their person, or what they aim
// at, on connections that slow reads may have all taken.
func TestAccessEndsBehindSlowReads(t *testing.T) {
	t.Parallel()
	db := sqldbtest.Open(t, sqldb.PostgreSQL)
	s := newScene(t, db)
	owner := s.person(t, "chief@example.com", account.RoleOwner)
	leaver := s.person(t, "leaver@example.com", account.RoleMember)
	other := s.person(t, "other@example.com", account.RoleMember)
	first := s.Ask(t, s.bot, "tracker")
	agent := string(s.bot.Agent())
	count := func(query string, args ...any) (n int) {
		t.Helper()
		if err := db.UrgentReader("test").QueryRowContext(t.Context(), query, args...).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	occupied(t, db)
	for _, path := range []string{
		"/ui/sessions/" + string(first.Session.ID) + "/revoke",
		"/ui/organization/members/" + string(leaver.User()) + "/revoke",
		"/ui/organization/revoke",
		"/ui/providers/tracker/revoke",
		"/ui/agents/" + agent + "/disable",
		"/ui/connections/" + string(s.conn.ID) + "/disconnect",
		"/ui/organization/members/" + string(leaver.User()) + "/remove",
		"/ui/users/" + string(other.User()) + "/disable",
		"/ui/account/signout",
	} {
		d := owner.post(path, url.Values{"org": {string(s.Organization)}})
		if d.status != http.StatusOK && d.status != http.StatusSeeOther {
			t.Errorf("%s: got %d, %s", path, d.status, d.text("main"))
		}
	}
	for what, n := range map[string]int{
		"sessions that wait or run":    count(`select count(*) from session where state in ('pending', 'active')`),
		"agents that are not disabled": count(`select count(*) from agent where id = $1 and disabled_at = 0`, agent),
		"connected accounts":           count(`select count(*) from connection where state <> 'disconnected'`),
		"memberships of who left":      count(`select count(*) from membership where user_id = $1`, leaver.User()),
		"enabled users who were not":   count(`select count(*) from person where id = $1 and disabled_at = 0`, other.User()),
		"logins of who signed out":     count(`select count(*) from login where user_id = $1 and revoked_at = 0`, owner.User()),
	} {
		if n != 0 {
			t.Errorf("%d %s", n, what)
		}
	}
}

// occupied holds every connection that anybody may have, until the test ends; it
// fails when that takes a minute.
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
	late := time.AfterFunc(time.Minute, func() {
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

package web_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/web"
)

// W7: refused sign-ins by code are held to a rate by address, with the limits as
// shipped, and leave only so much on record.
func TestRefusedSignInsAreLimited(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := siteWith(t, db, web.Limits{})
		b := s.open(t)
		try := func(i int) *doc {
			return b.post("/ui/signin", url.Values{"email": {fmt.Sprintf("nobody%d@example.com", i)}, "code": {"000000"}})
		}
		for i := range 10 {
			try(i).want(http.StatusUnauthorized)
		}
		for i := range 20 {
			d := try(10 + i).want(http.StatusTooManyRequests)
			if d.header.Get("Retry-After") == "" || !strings.Contains(d.text("main"), "Too many sign-ins") {
				t.Fatalf("got Retry-After %q, %s", d.header.Get("Retry-After"), d.text("main"))
			}
		}
		var n int
		if err := db.Reader().QueryRowContext(t.Context(), `select count(*) from audit_entry where action = 'signin.totp'`).Scan(&n); err != nil || n != 1 {
			t.Errorf("30 guesses left %d audit entries, %v, want 1", n, err)
		}
		s.Clock.Advance(3 * time.Second)
		try(100).want(http.StatusUnauthorized)
	})
}

// S14, W7, and a bug: a program at a person's address, which on a laptop is that
// of every agent, began sign-ins and failed others, and had the person refused.
func TestStrangersLockNobodyOut(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := siteWith(t, db, web.Limits{})
		stranger := s.open(t)
		alice := s.person(t, "alice@example.com", account.RoleMember)
		signedOut := s.open(t) // another browser at the same address
		signedOut.Human = &accounttest.Human{Authenticator: alice.Authenticator}
		count := func() (n int) {
			t.Helper()
			if err := db.Reader().QueryRowContext(t.Context(), `select (select count(*) from signin_flow) + (select count(*) from spent_proof) + (select count(*) from challenge_key)`).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		page := signedOut.get("/ui/signin?next=/ui/").want(http.StatusOK)
		before := count()
		for range 1000 {
			stranger.post("/ui/signin/begin", url.Values{}, "Accept", "application/json").want(http.StatusOK)
		}
		if n := count(); n != before {
			t.Errorf("1,000 sign-ins that were only begun left %d rows", n-before)
		}
		for range 20 {
			stranger.post("/ui/signin", url.Values{"email": {"nobody@example.com"}, "code": {"000000"}})
		}
		page.submit("/ui/signin/passkey", nil).want(http.StatusSeeOther).to("/ui/")
	})
}

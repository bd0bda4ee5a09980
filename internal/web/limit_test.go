package web_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/web"
)

// W7: whoever is not signed in leaves only so much in the database, with the
// limits as shipped: guesses at e-mails, and ceremonies that are begun.
func TestSignInIsLimitedByAddress(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := siteWith(t, db, web.Limits{})
		b := s.open(t)
		rows := func(table string) (n int) {
			t.Helper()
			if err := db.Reader().QueryRowContext(t.Context(), `select count(*) from `+table).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		guesses, flows := rows("guess"), rows("signin_flow")
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
		if n := rows("guess") - guesses; n != 10 {
			t.Errorf("30 guesses left %d rows, want 10", n)
		}
		if n := rows("audit_entry where action = 'signin.totp'"); n != 1 {
			t.Errorf("30 guesses left %d audit entries, want 1", n)
		}
		for i := range 60 {
			want := http.StatusOK
			if i >= 30 {
				want = http.StatusTooManyRequests
			}
			d := b.post("/ui/signin/begin", url.Values{}, "Accept", "application/json").want(want)
			if i >= 30 && d.header.Get("Retry-After") == "" {
				t.Fatal("429 without Retry-After")
			}
		}
		if n := rows("signin_flow") - flows; n != 30 {
			t.Errorf("60 ceremonies left %d rows, want 30", n)
		}
		s.Clock.Advance(3 * time.Second)
		try(100).want(http.StatusUnauthorized)
	})
}

package proxy_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// access asks for a token of a session.
func (w *world) access(t *testing.T, token, named string) (status int, out map[string]any) {
	t.Helper()
	doc, err := json.Marshal(map[string]string{"session": named})
	must(t, err)
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/proxy/session", strings.NewReader(string(doc)))
	r.Header.Set("Authorization", "Bearer "+token)
	rec := httptest.NewRecorder()
	w.beside.ServeHTTP(rec, r)
	must(t, json.Unmarshal(rec.Body.Bytes(), &out))
	return rec.Code, out
}

// boundTo gives a token that is bound to the session of a handle.
func (w *world) boundTo(t *testing.T, handle string) string {
	t.Helper()
	live, err := w.Sessions.Live(t.Context(), w.who, handle)
	must(t, err)
	return w.bind(t, live)
}

// Issue 7: a session's token is issued to the agent of the session only, opens
// that session only, and asks for no other one (product.md rule 4).
func TestTokenOfASession(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := newWorld(t, db, gateway.Egress{})
		mine, other := w.Consented(t, w.owner, "mine"), w.Consented(t, w.owner, "other")
		r := w.Ask(t, mine.Identity, "up")
		own, foreign := string(mine.Tokens.Access.Reveal()), string(other.Tokens.Access.Reveal())
		if status, out := w.access(t, own, r.Handle); status != 403 || out["code"] != "pending" || out["approval_url"] == "" {
			t.Errorf("before the approval: %d %v", status, out)
		}
		w.Approve(t, w.owner, r.Session.Approval, nil)
		for _, named := range []string{r.Handle, string(r.Session.ID)} {
			status, out := w.access(t, own, named)
			if status != 200 || out["session_id"] != string(r.Session.ID) || !strings.HasPrefix(out["token"].(string), "amb_at_") || !strings.Contains(out["ca_pem"].(string), "BEGIN CERTIFICATE") || out["proxy_url"] != "http://"+w.address {
				t.Fatalf("%s: %d %v", named, status, out)
			}
			if hosts := out["hosts"].([]any); len(hosts) != 2 || !slices.Contains(hosts, any(w.place)) || !slices.Contains(hosts, any(w.repos)) { // its API, and where it clones from
				t.Errorf("hosts: %v", hosts)
			}
			if _, got := w.connectTo(t, w.place, "Bearer "+out["token"].(string)); got != "200" {
				t.Errorf("its tunnel: %s", got)
			}
			// It opens no other session, not even of its own agent.
			if status, out := w.access(t, out["token"].(string), string(w.live.Session())); status != 404 {
				t.Errorf("another session by a bound token: %d %v", status, out)
			}
			if status, out := w.access(t, foreign, named); status != 404 || out["code"] != "session_not_found" {
				t.Errorf("another agent: %d %v", status, out)
			}
		}
		_, unknown := w.access(t, foreign, string(id.NewSession()))
		_, foreignAnswer := w.access(t, foreign, string(r.Session.ID))
		if unknown["message"] != foreignAnswer["message"] || unknown["code"] != foreignAnswer["code"] {
			t.Errorf("a foreign session looks unlike an absent one: %v, %v", foreignAnswer, unknown)
		}
		if status, _ := w.access(t, "amb_at_nobody", r.Handle); status != http.StatusUnauthorized {
			t.Errorf("nobody: %d", status)
		}
	})
}

// The certificates that a client trusts are public; making an authority for an
// environment that is not there would be a way to fill the database.
func TestBundle(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldbtest.Open(t, sqldb.SQLite), gateway.Egress{})
	for query, want := range map[string]int{"": 200, "?environment=" + string(w.Environment): 200, "?environment=" + string(id.NewEnvironment()): 404, "?environment=x": 404} {
		rec := httptest.NewRecorder()
		w.beside.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", "/proxy/ca.pem"+query, nil))
		if rec.Code != want || want == 200 && rec.Body.String() != string(w.trusted) {
			t.Errorf("%q: %d %q", query, rec.Code, rec.Body)
		}
	}
	var n int
	must(t, w.DB.Reader().QueryRowContext(t.Context(), `select count(*) from proxy_authority`).Scan(&n))
	if n != 1 {
		t.Errorf("there are %d authorities, want 1", n)
	}
}

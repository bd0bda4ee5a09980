package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/api/apitest"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// A bug: starts, backups and restores of the server are on record and were listed
// to nobody. The owners of who runs the environment see them, and keys of all of it.
func TestAuditShowsTheServerToThoseWhoRunIt(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := apitest.New(t, db, nil)
		_, whole := w.Key(t, w.Env, "", account.ScopeAuditRead)
		_, confined := w.Key(t, w.Env, w.Tenant, account.ScopeAuditRead)
		admin := accounttest.Join(t, w.People, w.Env, w.Org, account.RoleAdmin, "admin@example.com")
		for _, c := range []struct {
			who, token, path string
			sees             bool
		}{
			{"an owner", w.Login(t, w.Owner), "/v1/audit", true},
			{"a key of the environment", whole, "/v1/audit", true},
			{"an owner, of one organization", w.Login(t, w.Owner), "/v1/audit?organization_id=" + string(w.Org), false},
			{"a key of a tenant", confined, "/v1/audit", false},
			{"an admin", w.Login(t, admin), "/v1/audit", false},
		} {
			res := ask(t, request{method: "GET", url: w.URL + c.path, token: c.token})
			if res.status != http.StatusOK || strings.Contains(string(res.body), `"server.started"`) != c.sees {
				t.Errorf("%s: got %d, sees %v", c.who, res.status, !c.sees)
			}
		}
	})
}

package credential_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// O13, issue 5: after an incident everything at a provider, of a user or made in
// a time ends here at once, sessions with it, and the provider is told.
func TestDisconnectManyAtOnce(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		admin, noa := s.Person(t, "admin@example.com", account.RoleAdmin), s.Person(t, "noa@example.com", account.RoleMember)
		s.Clock.Advance(time.Hour)
		since := s.Clock.Now()
		hers := s.ConnectOAuth(t, noa, gatewaytest.Noa, nil)
		s.KeyProvider(t, "tracker")
		kept := s.Connect(t, s.owner, "tracker", false)
		by := account.ByPerson(admin.Signed(t)).In(s.Environment)
		for name, c := range map[string]struct {
			aim  connection.Aim
			want []string
		}{
			"a provider":        {connection.Aim{Organization: s.Organization, Provider: "sandbox"}, []string{string(s.conn.ID), string(hers.ID)}},
			"a user":            {connection.Aim{Organization: s.Organization, Owner: noa.ID}, []string{string(hers.ID)}},
			"a time":            {connection.Aim{Organization: s.Organization, From: since}, []string{string(hers.ID), string(kept.ID)}},
			"before that":       {connection.Aim{Organization: s.Organization, To: since}, []string{string(s.conn.ID)}},
			"the organization":  {connection.Aim{Organization: s.Organization}, []string{string(s.conn.ID), string(hers.ID), string(kept.ID)}},
			"both at once":      {connection.Aim{Organization: s.Organization, Provider: "sandbox", From: since}, []string{string(hers.ID)}},
			"what is not there": {connection.Aim{Organization: s.Organization, Provider: "other"}, nil},
		} {
			found, err := s.Connections.Aimed(t.Context(), by, c.aim)
			gatewaytest.Must(t, err)
			var got []string
			for _, f := range found.Connections {
				got = append(got, string(f.ID))
			}
			if slices.Sort(c.want); !slices.Equal(got, c.want) {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
		}
		member := account.ByPerson(noa.Signed(t)).In(s.Environment)
		for name, c := range map[string]struct {
			by   account.Actor
			aim  connection.Aim
			want string
		}{
			"a member":                  {member, connection.Aim{Organization: s.Organization, Provider: "sandbox"}, "not_allowed"},
			"everything":                {by, connection.Aim{}, "aim_missing"},
			"a whole environment":       {member, connection.Aim{Provider: "sandbox"}, "not_allowed"},
			"a time that ends too soon": {by, connection.Aim{Organization: s.Organization, From: since, To: since.Add(-time.Hour)}, "aim_invalid"},
		} {
			if _, err := s.Credentials.DisconnectAimed(t.Context(), c.by, c.aim); code(err) != c.want {
				t.Errorf("%s: %v, want %s", name, err, c.want)
			}
		}
		s.handle = s.Active(t, s.owner, s.bot, "sandbox", policy.Read)
		gatewaytest.Must(t, s.call(t))
		ended, err := s.Credentials.DisconnectAimed(t.Context(), by, connection.Aim{Organization: s.Organization, Provider: "sandbox"})
		if err != nil || len(ended.Connections) != 2 || ended.More {
			t.Fatalf("ended %+v, %v", ended, err)
		}
		if err := s.call(t); code(err) != "revoked" {
			t.Errorf("a call right after: %v, want revoked", err)
		}
		if c, err := s.Connections.ByID(t.Context(), s.DB.Reader(), s.Environment, kept.ID); err != nil || c.State != connection.Connected {
			t.Errorf("what was not meant: %s, %v", c.State, err)
		}
		soon(t, "the provider is told of both", func() bool {
			up, err := s.Credentials.Upstream(t.Context(), ended.Connections)
			gatewaytest.Must(t, err)
			return up[s.conn.ID] == credential.RevokedUpstream && up[hers.ID] == credential.RevokedUpstream
		})
		if left := s.alive(t); len(left) != 0 {
			t.Errorf("%d tokens still work at the provider", len(left))
		}
		if got := strings.Join(s.Actions(t), " "); !strings.Contains(got, "connection.bulk_revoked") {
			t.Errorf("audit: %s", got)
		}
	})
}

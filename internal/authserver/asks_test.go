package authserver_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/authserver"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
)

func TestAsksAreReadStrictly(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		scope, details string
		want           *agent.Asks
	}{
		{"", "", nil},
		{"ambit offline_access sessions:x repo:read", "", nil},
		{"ambit session:github", "", &agent.Asks{Type: "ambit_session", Providers: []string{"github"}, Effects: []policy.Effect{policy.Read}}},
		{"session:slack:write session:github:read session:github:write session:slack:read session:slack", "", &agent.Asks{Type: "ambit_session", Providers: []string{"github", "slack"}, Effects: []policy.Effect{policy.Read, policy.Write}}},
		{"ambit", `[{"type":"ambit_session","tools":["github_get_issue"],"minutes":5,"purpose":"Look."}]`, &agent.Asks{Type: "ambit_session", Tools: []string{"github_get_issue"}, Minutes: 5, Purpose: "Look."}},
	} {
		got, err := authserver.ParseAsks(row.scope, row.details)
		if err != nil || !cmp.Equal(got, row.want) {
			t.Errorf("%q %s: got %+v, %v", row.scope, row.details, got, err)
		}
	}
	for _, bad := range []string{"session:", "session::read", "session:github:", "session:github:everything", "session:github:read:more", "session:github:Read", "session:slack:write session:github:read", "session:slack:read session:slack:write session:github"} {
		if _, err := authserver.ParseAsks(bad, ""); !fault.Is(err, "invalid_scope") {
			t.Errorf("%q: got %v, want invalid_scope", bad, err)
		}
	}
	for _, bad := range []string{
		`{}`, `[]`, `null`, `x`, `[{"type":"ambit_session","providers":["a"]},{"type":"ambit_session","providers":["b"]}]`, `[{"type":"ambit_session","providers":["a"],"providers":["b"]}]`,
		`[{"type":"ambit_session","providers":["a"],"locations":["https://b"]}]`, `[{"type":"ambit_session","providers":"a"}]`, `[null]`, `[1]`,
	} {
		if _, err := authserver.ParseAsks("", bad); !fault.Is(err, "invalid_authorization_details") {
			t.Errorf("%s: got %v, want invalid_authorization_details", bad, err)
		}
	}
	if _, err := authserver.ParseAsks("session:github", `[{"type":"ambit_session","providers":["github"]}]`); !fault.Is(err, "invalid_authorization_details") {
		t.Errorf("asked for twice: got %v", err)
	}
}

func FuzzAsks(f *testing.F) {
	f.Add("ambit session:github:read", "")
	f.Add("session:a:b:c", "")
	f.Add("", `[{"type":"ambit_session","providers":["a"],"effects":["read"],"minutes":5}]`)
	f.Add("x", `[{"type":"ambit_session","Type":"y"}]`)
	f.Fuzz(func(t *testing.T, scope, details string) {
		got, err := authserver.ParseAsks(scope, details)
		if err != nil {
			if fault.KindOf(err) != fault.Invalid {
				t.Errorf("%q %q: got %v", scope, details, err)
			}
			return
		}
		if got == nil && (strings.TrimSpace(details) != "" || slices.ContainsFunc(strings.Fields(scope), func(w string) bool { return strings.HasPrefix(w, "session:") })) {
			t.Errorf("%q %q asks for nothing", scope, details)
		}
	})
}

// S7: what is wrong with what a client asks for is told before anybody sees a page, and
// a plain consent makes no code for what needs an approval.
func TestAsksAtTheDoor(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server, alice *agenttest.Person) {
		client := s.public(t)
		_, challenge := agenttest.PKCE()
		with := func(name, value string) url.Values {
			v := request(client, challenge)
			v.Set(name, value)
			return v
		}
		for what, v := range map[string]url.Values{
			"no effect": with("scope", "session:github:all"), "another type": with("authorization_details", `[{"type":"payment","providers":["a"]}]`),
			"nothing": with("authorization_details", `[{"type":"ambit_session"}]`), "minutes": with("authorization_details", `[{"type":"ambit_session","providers":["a"],"minutes":-1}]`),
			"a long purpose": with("authorization_details", `[{"type":"ambit_session","providers":["a"],"purpose":"`+strings.Repeat("x", 2001)+`"}]`),
		} {
			a := s.authorize(t, v)
			if a.status != http.StatusBadRequest || !strings.Contains(a.body, "error=invalid_scope") && !strings.Contains(a.body, "error=invalid_authorization_details") {
				t.Errorf("%s: got %d %s", what, a.status, a.body)
			}
		}
		a := s.authorize(t, with("scope", "ambit session:github:read"))
		flow, ok := strings.CutPrefix(a.header.Get("Location"), "/ui/consent/")
		if !ok {
			t.Fatalf("got %d %s", a.status, a.body)
		}
		r, err := s.Agents.PendingAuthorize(t.Context(), id.Flow(flow))
		if err != nil || r.Asks == nil || !cmp.Equal(r.Asks.Providers, []string{"github"}) {
			t.Fatalf("got %+v, %v", r.Asks, err)
		}
		c := agent.Consent{Organization: s.Organization, Label: "x"}
		me := alice.Signed(t)
		digest := s.Agents.ConsentDigest(alice.ID, r, c)
		evidence, err := s.Accounts.Prove(t.Context(), me, digest, c.Organization, alice.Proof(t, digest))
		if err != nil {
			t.Fatal(err)
		}
		if to, err := s.Agents.Consent(t.Context(), me, r.ID, c, evidence); to != "" || err == nil {
			t.Errorf("a consent alone answers the client: %q, %v", to, err)
		}
	})
}

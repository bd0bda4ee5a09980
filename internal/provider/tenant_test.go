package provider

import (
	"slices"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/fault"
)

const tenantRecord = `id: desk
name: Desk
auth: oauth2
tenant:
  - {name: subdomain, title: Subdomain, pattern: '[a-z0-9-]+', example: acme}
  - {name: region, title: Region, options: [eu, us], default: eu}
capture:
  - {name: api_host, from: token, field: instance_url, hosts: [desk.example], example: a.desk.example}
  - {name: realm, from: callback, field: realmId, pattern: '[0-9]+', account: true, example: "1"}
oauth2:
  authorize_url: "https://{subdomain}.{region}.desk.example/authorize"
  token_url: "https://{subdomain}.{region}.desk.example/token"
identity: {path: /me, id: id}
api: {base: ["https://{api_host}/v1/{realm}"]}
tools:
  - {name: list, title: List, description: Lists., effect: read, request: {method: GET, path: /items}}
generic: {read: true}
`

func openRecord(t *testing.T) Record {
	t.Helper()
	r, err := Parse([]byte(tenantRecord))
	if err != nil {
		t.Fatal(Problems(err))
	}
	return r
}

// Issue 5, tenants: a record is filled in by what a person chooses and what the
// provider tells, and its tools then go there and nowhere else (product.md rule 6).
func TestRecordIsFilledIn(t *testing.T) {
	t.Parallel()
	open := openRecord(t)
	chosen, err := open.Choose(map[string]string{"subdomain": "acme"})
	if err != nil {
		t.Fatal(err)
	}
	if got := chosen.Pinned().Token; got != "https://acme.eu.desk.example/token" || len(chosen.Open()) != 2 {
		t.Errorf("after the choice: %s, open %v", got, chosen.Open())
	}
	r, err := chosen.Bind(map[string]string{"api_host": "https://N7.Desk.Example/", "realm": "42"})
	if err != nil {
		t.Fatal(err)
	}
	if want := "https://n7.desk.example/v1/42"; r.API.Base[0] != want || r.Pinned().Identity != want+"/me" || len(r.Open()) != 0 {
		t.Errorf("filled in: %+v, open %v", r.Pinned(), r.Open())
	}
	tool, _ := r.Tool("desk_list")
	req, err := tool.Build(nil, r.Pinned().API...)
	if err != nil || req.URL.String() != "https://n7.desk.example/v1/42/items" {
		t.Errorf("its tool goes to %v, %v", req, err)
	}
	if unfilled, _ := open.Tool("desk_list"); unfilled.Digest() == tool.Digest() {
		t.Error("what is approved does not say where it goes (rule 5)")
	} else if _, err := unfilled.Build(nil, r.Pinned().API...); err == nil {
		t.Error("a tool of the record that is not filled in builds a request")
	}
	other, err := open.Bind(map[string]string{"subdomain": "acme", "region": "us", "api_host": "n7.desk.example", "realm": "42"})
	if err != nil || other.Digest() == r.Digest() || other.TextDigest() != r.TextDigest() || other.AccountPlace() == r.AccountPlace() {
		t.Errorf("another tenant is not another destination (%v)", err)
	}
	var l Library
	if again, err := l.Bind(open, r.Values()); err != nil || again.Digest() != r.Digest() {
		t.Errorf("from what is pinned: %v, %v", again.Pinned(), err)
	}
}

// Threats O7, O9, U3: nothing that a person chooses or a provider tells leads out
// of the hosts that the record allows.
func TestValuesThatLeadAstray(t *testing.T) {
	t.Parallel()
	open := openRecord(t)
	for name, list := range map[string][]string{
		"subdomain": {"", "a.b", "a/b", "a@evil.example", "evil.example#", "..", "ACME", "a\u202eb", "{region}", strings.Repeat("a", 300)},
		"region":    {"cn", "eu.evil.example", "eu/"},
		"realm":     {"", "x", "1/2", "1?x", ".."},
		"api_host": {"evil.example", "desk.example.evil.example", "evildesk.example", "https://desk.example@evil.example", "https://a.desk.example/../x?y", "https://a.desk.example:8443",
			"a.desk.example:8443", "javascript://a.desk.example", "https://a.desk.example#x", "//a.desk.example", "", "a..desk.example", "a.desk.example\n"},
	} {
		for _, v := range list {
			all := values{"subdomain": "acme", "region": "eu", "realm": "1", "api_host": "a.desk.example"}
			all[name] = v
			if r, err := open.Bind(all); err == nil {
				t.Errorf("%s %q was taken: %v", name, v, r.Pinned())
			}
		}
	}
	if _, err := open.Choose(map[string]string{"subdomain": "acme", "api_host": "evil.desk.example"}); !fault.Is(err, "tenant_invalid") {
		t.Errorf("a person chose what the provider tells: %v", err)
	}
}

// A refresh may name another host of the provider, and no other account.
func TestRebind(t *testing.T) {
	t.Parallel()
	open := openRecord(t)
	r, err := open.Bind(values{"subdomain": "acme", "region": "eu", "realm": "1", "api_host": "a.desk.example"})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{"https://a.desk.example": "same", "b.desk.example": "moved", "evil.example": "destination_refused"} {
		next, moved, err := r.Rebind(open, map[string]string{"api_host": host})
		got := map[bool]string{false: "same", true: "moved"}[moved]
		if err != nil {
			got = fault.Of(err).Code
		}
		if got != want || want == "moved" && next.API.Base[0] != "https://b.desk.example/v1/1" {
			t.Errorf("%s: %s, want %s (%v)", host, got, want, next.API)
		}
	}
	if _, _, err := r.Rebind(open, map[string]string{"realm": "2"}); !fault.Is(err, "account_differs") {
		t.Errorf("another account: %v", err)
	}
}

// A record whose parameters could put anything anywhere is refused.
func TestRecordsOfTenantsAreChecked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ old, new, field string }{
		"a host that anybody chooses":           {`"https://{subdomain}.{region}.desk.example/token"`, `"https://{subdomain}/token"`, "oauth2.token_url"},
		"a domain that anybody registers":       {`"https://{subdomain}.{region}.desk.example/token"`, `"https://{subdomain}.co.uk/token"`, "oauth2.token_url"},
		"told too late":                         {`"https://{subdomain}.{region}.desk.example/token"`, `"https://{api_host}/token"`, "oauth2.token_url"},
		"a name that nobody declares":           {`"https://{subdomain}.{region}.desk.example/token"`, `"https://{sub}.desk.example/token"`, "oauth2.token_url"},
		"every host of a top-level domain":      {"hosts: [desk.example]", "hosts: [com]", "capture[0].hosts[0]"},
		"neither pattern nor hosts":             {"pattern: '[0-9]+', account", "account", "capture[1]"},
		"an example that does not fit":          {"example: acme", "example: a.c", "tenant[0].example"},
		"an example elsewhere":                  {"example: a.desk.example", "example: a.evil.example", "capture[0].example"},
		"one name twice":                        {"name: realm", "name: region", "capture[1].name"},
		"a host within a host":                  {`"https://{api_host}/v1/{realm}"`, `"https://x.{api_host}/v1/{realm}"`, "api.base[0]"},
		"a pattern that is none":                {"'[a-z0-9-]+'", "'[a-z'", "tenant[0].pattern"},
		"an identity that it takes to find out": {"from: callback", "from: identity", "identity.path"},
	} {
		text := strings.Replace(tenantRecord, c.old, c.new, 1)
		if name == "an identity that it takes to find out" {
			text = strings.Replace(text, "path: /me", "path: \"/me/{realm}\"", 1)
		}
		_, err := Parse([]byte(text))
		if !slices.ContainsFunc(Problems(err), func(p Problem) bool { return p.Field == c.field }) {
			t.Errorf("%s: got %v, want a problem at %s", name, Problems(err), c.field)
		}
	}
}

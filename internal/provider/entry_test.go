package provider

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/jsonschema-go/jsonschema"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
)

func entries(t testing.TB) []Entry {
	t.Helper()
	all, err := Entries()
	if err != nil {
		for _, p := range Problems(err) {
			t.Error(p)
		}
		t.Fatal(err)
	}
	return all
}

// Issue 5: at least 100 providers, each of which lints, has a slug of its own
// and says how sure its facts are; none is claimed to have been tried.
func TestCatalogue(t *testing.T) {
	t.Parallel()
	all := entries(t)
	if len(all) < 100 {
		t.Errorf("the catalogue has %d providers, want at least 100", len(all))
	}
	ids := map[string]bool{}
	for _, e := range all {
		r := e.Shown
		if ids[e.ID] || ids[r.Wire()] {
			t.Errorf("%s: the slug %s is taken twice", e.ID, r.Wire())
		}
		ids[e.ID], ids[r.Wire()] = true, true
		if r.ID != e.ID || e.Name == "" || e.Category == "" {
			t.Errorf("%s: id %s, name %q, category %q", e.ID, r.ID, e.Name, e.Category)
		}
		if c := r.About.Confidence; c != "high" && c != "medium" {
			t.Errorf("%s: the confidence is %q: what is not known well enough stays out", e.ID, c)
		}
		if e.Tried() != "not yet tried live" && e.ID != "postgres" { // which the tests of its own room run against the real one
			t.Errorf("%s: %s, but nobody has", e.ID, e.Tried())
		}
		if r.Website == "" {
			t.Errorf("%s: there is no place to manage the account", e.ID)
		}
		for _, tool := range r.Tools() {
			if tool.Generic && tool.Effect != "read" && len(r.Access) == 0 && !slices.Contains([]string{"docker_hub", "ghcr", "google_docs", "google_sheets", "spotify", "youtube"}, e.ID) {
				t.Errorf("%s: %s may change anything, and access lists nothing", e.ID, tool.Name)
			}
		}
	}
}

// workos.md §2: the slugs of Pipes that we have the facts for are its own.
func TestCatalogueSpeaksPipes(t *testing.T) {
	t.Parallel()
	for _, slug := range strings.Fields(`asana attio box cal-dot-com calendly confluence datadog dropbox front github gitlab gmail google google-calendar
		google-drive helpscout hubspot intercom jira linear microsoft microsoft-onedrive microsoft-onenote microsoft-outlook microsoft-outlook-calendar
		microsoft-sharepoint microsoft-teams microsoft-todo notion quickbooks salesforce sentry slack snowflake stripe xero zendesk zoom airtable adobe`) {
		if e, err := FindEntry(slug); err != nil || e.Shown.Wire() != slug {
			t.Errorf("%s: %v, slug %s", slug, err, e.Shown.Wire())
		}
	}
}

// Each authorization URL goes to the pinned place and carries what the flow needs.
func TestCatalogueAuthorizes(t *testing.T) {
	t.Parallel()
	state, verifier := secret.Token(""), secret.Token("")
	for _, e := range entries(t) {
		r, o := e.Shown, e.Shown.OAuth
		if o == nil {
			continue
		}
		scopes := slices.Clone(o.Scopes.Base)
		for _, s := range o.Scopes.Catalog {
			scopes = append(scopes, s.ID)
		}
		text, err := r.AuthorizationURL(Authorization{ClientID: "client", RedirectURI: "https://ambit.example/ui/callback", State: state, Verifier: verifier, Scopes: scopes})
		if err != nil {
			t.Errorf("%s: %v", e.ID, err)
			continue
		}
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "https" || !strings.HasPrefix(text, r.Pinned().Authorize+"?") {
			t.Errorf("%s: %s does not begin with %s (%v)", e.ID, text, r.Pinned().Authorize, err)
			continue
		}
		q := u.Query()
		if o.Signs() { // RFC 5849 §2.2: who asks and where to come back to was told before
			if q.Get("oauth_token") != string(state.Reveal()) || q.Has("state") || q.Has("redirect_uri") || q.Has(o.ClientIDParam) || q.Get("scope") != strings.Join(scopes, o.Scopes.Separator) {
				t.Errorf("%s: asks with %v", e.ID, q)
			}
			continue
		}
		if q.Get(o.ClientIDParam) != "client" || q.Get("state") != string(state.Reveal()) || q.Get("redirect_uri") != "https://ambit.example/ui/callback" {
			t.Errorf("%s: %s lacks the client, the state or the redirect", e.ID, text)
		}
		for _, s := range o.Slots {
			if s.Param != "" {
				if got := q.Get(s.Param); got != strings.Join(s.Scopes, o.Scopes.Separator) {
					t.Errorf("%s: asks for %q with %s, want %v", e.ID, got, s.Name, s.Scopes)
				}
				continue
			}
			scopes = append(scopes, s.Scopes...)
		}
		if got := q.Get(o.Scopes.Param); got != strings.Join(scopes, o.Scopes.Separator) {
			t.Errorf("%s: asks for %q, want %v", e.ID, got, scopes)
		}
		if o.UsesPKCE() != (q.Get("code_challenge_method") == "S256") {
			t.Errorf("%s: PKCE is %v, and the request says %q", e.ID, o.UsesPKCE(), q.Get("code_challenge_method"))
		}
		if !o.UsesPKCE() && o.ClientAuth == "none" {
			t.Errorf("%s: neither PKCE nor a secret", e.ID)
		}
		for k, v := range q {
			if len(v) != 1 || strings.Contains(v[0], "{{") {
				t.Errorf("%s: %s is %q", e.ID, k, v)
			}
		}
		if strings.Contains(text, string(verifier.Reveal())) {
			t.Errorf("%s: the verifier itself is sent", e.ID)
		}
	}
}

// Threats O7, O9: where a provider's credentials go changes only together with
// testdata/known_hosts.txt, which a reviewer reads.
func TestCataloguePlaces(t *testing.T) {
	t.Parallel()
	var got bytes.Buffer
	for _, e := range entries(t) {
		var hosts []string
		for _, place := range e.Shown.Pinned().Places() {
			u, err := url.Parse(place)
			if e.ID == "postgres" { // a server of the person's own: the login that goes there is theirs too
				hosts = append(hosts, "any")
				continue
			}
			if err != nil || u.Scheme != "https" || u.Port() != "" || !strings.Contains(u.Host, ".") {
				t.Errorf("%s: %s is no place for a credential (%v)", e.ID, place, err)
				continue
			}
			if !slices.Contains(hosts, u.Host) {
				hosts = append(hosts, u.Host)
			}
		}
		slices.Sort(hosts)
		fmt.Fprintf(&got, "%s: %s\n", e.ID, strings.Join(hosts, " "))
	}
	name := filepath.Join("testdata", "known_hosts.txt")
	want, err := os.ReadFile(name)
	if err != nil || !bytes.Equal(want, got.Bytes()) {
		t.Errorf("the places of the catalogue differ from %s (%v). If they are meant to, put this there:\n%s", name, err, cmp.Diff(string(want), got.String()))
		if os.Getenv("AMBIT_UPDATE") != "" {
			_ = os.WriteFile(name, got.Bytes(), 0o644)
		}
	}
}

// Threats O7, U3: no parameter of a tenant leads out of the provider's own
// hosts, or changes what comes before and after it. Where people run the service
// themselves, it names one public host and nothing else.
func TestCatalogueBlanksHold(t *testing.T) {
	t.Parallel()
	hostile := []string{"evil.example/", "evil.example#", "evil.example?", "evil.example\\", "x@evil.example", "a/../b", "..", ".", "-", "a b", "a\nb", "%2e%2e", "{x}",
		"{{x}}", "a:80", "[::1]", "\u202ea", "\uff0e", "127.0.0.1", "2130706433", "0x7f000001", "localhost", "evil.example", "evil.example.", "evil", "acme.zendesk.com.evil.example"}
	own := map[string]bool{"gitlab": true, "grafana": true, "jira_data_center": true}
	for _, e := range entries(t) {
		good := map[string]string{}
		for _, p := range e.Params {
			if p.Default == "" && p.Example != "" {
				good[p.Name] = p.Example
			}
		}
		domains, shape := domainsOf(e.Shown.Pinned())
		if open, err := e.Fill(good); err == nil {
			for _, name := range open.names() {
				for _, v := range hostile {
					all := open.examples()
					all[name] = v
					r, err := open.Bind(all)
					if err != nil {
						continue
					}
					got, gotShape := domainsOf(r.Pinned())
					if e.ID == "postgres" && name == "host" { // may be any; what may be dialled is for outbound
						got = domains
					}
					if !slices.Equal(got, domains) || gotShape != shape {
						t.Errorf("%s: %s took %q: %v", e.ID, name, v, r.Pinned())
					}
				}
			}
		}
		for _, p := range e.Params[1:] {
			for _, v := range hostile {
				filled := maps.Clone(good)
				filled[p.Name] = v
				r, err := e.Fill(filled)
				if err != nil {
					continue
				}
				got, gotShape := domainsOf(r.Pinned())
				if own[e.ID] && (v == "evil.example" || strings.HasSuffix(v, ".evil.example")) {
					got = domains
				}
				if !slices.Equal(got, domains) || gotShape != shape {
					t.Errorf("%s: %s took %q: %v", e.ID, p.Name, v, r.Pinned())
				}
			}
		}
	}
}

// domainsOf gives the last two labels of every host, and of every place how many
// segments its path has.
func domainsOf(p Pinned) (domains []string, shape string) {
	for _, place := range p.Places() {
		u, err := url.Parse(place)
		if err != nil {
			return []string{place}, ""
		}
		labels := strings.Split(u.Host, ".")
		if d := strings.Join(labels[max(0, len(labels)-2):], "."); !slices.Contains(domains, d) {
			domains = append(domains, d)
		}
		shape += fmt.Sprint(strings.Count(u.Path, "/"), u.RawQuery, u.User, " ")
	}
	slices.Sort(domains)
	return domains, shape
}

// A filled entry is a record like any other: its text parses to the same places.
func TestEntryFills(t *testing.T) {
	t.Parallel()
	e, err := FindEntry("zendesk")
	if err != nil {
		t.Fatal(err)
	}
	r, err := e.Fill(map[string]string{"id": "help_desk"})
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := Parse(r.Source())
	if err != nil {
		t.Fatal(err)
	}
	again, err := parsed.Choose(map[string]string{"subdomain": "acme-help"})
	if err != nil {
		t.Fatal(err)
	}
	want := Pinned{
		Authorize: "https://acme-help.zendesk.com/oauth/authorizations/new", Token: "https://acme-help.zendesk.com/oauth/tokens",
		Revoke: "https://acme-help.zendesk.com/api/v2/oauth/tokens/current.json", Identity: "https://acme-help.zendesk.com/api/v2/users/me.json",
		API: []string{"https://acme-help.zendesk.com/api/v2"}, Values: map[string]string{"subdomain": "acme-help"},
	}
	if d := cmp.Diff(want, again.Pinned()); d != "" || again.ID != "help_desk" || again.About.Confidence != "high" {
		t.Errorf("%s, %s, %s", again.ID, again.About.Confidence, d)
	}
	if _, err := parsed.Choose(nil); !fault.Is(err, "tenant_invalid") {
		t.Errorf("without its subdomain: %v", err)
	}
	if okta, err := FindEntry("okta"); err != nil {
		t.Error(err)
	} else if _, err := okta.Fill(nil); !fault.Is(err, "template_param_missing") {
		t.Errorf("without its parameters: %v", err)
	}
	if _, err := FindEntry("../catalog/custom_oauth"); !fault.Is(err, "not_found") {
		t.Errorf("a path: %v", err)
	}
	region, err := FindEntry("intercom")
	if err != nil {
		t.Fatal(err)
	}
	for value, host := range map[string]string{"": "https://api.intercom.io", "eu.": "https://api.eu.intercom.io"} {
		if r, err := region.Fill(map[string]string{"region": value}); err != nil || r.API.Base[0] != host {
			t.Errorf("region %q: %v, %v", value, r.API.Base, err)
		}
	}
}

// A catalogue with a fault is refused as a whole, and the fault is named.
func TestCatalogueRefuses(t *testing.T) {
	t.Parallel()
	const good = "category: Work\nrecord:\n  name: One\n  about: {confidence: medium}\n  auth: api_key\n  api: {base: [\"https://one.example\"]}\n  inject: {header: X-Key, format: \"{api_key}\"}\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"good":                {map[string]string{"one": good}, ""},
		"a slug twice":        {map[string]string{"one": good, "two": strings.Replace(good, "name: One", "name: Two\n  pipes: one", 1)}, "one and two have one slug"},
		"no confidence":       {map[string]string{"one": strings.Replace(good, "  about: {confidence: medium}\n", "", 1)}, "how sure"},
		"loose parameter":     {map[string]string{"one": "params:\n  - {name: host, title: Host, example: one.example}\n" + good}, "neither pattern nor options"},
		"unknown field":       {map[string]string{"one": good + "scope: x\n"}, "one.yaml"},
		"unknown in record":   {map[string]string{"one": good + "  acess: [\"POST /x\"]\n"}, "acess"},
		"placeholder host":    {map[string]string{"one": strings.Replace(good, "https://one.example", "https://{host}.example", 1)}, "not well-formed"},
		"query in a base":     {map[string]string{"one": strings.Replace(good, "https://one.example", "https://one.example?x=1", 1)}, "query"},
		"secret not injected": {map[string]string{"one": strings.Replace(good, `"{api_key}"`, `"fixed"`, 1)}, "secret"},
	} {
		files := fstest.MapFS{}
		for id, text := range c.files {
			files["known/"+id+".yaml"] = &fstest.MapFile{Data: []byte(text)}
		}
		_, err := readEntries(files)
		said := ""
		if err != nil {
			said = err.Error()
			for _, p := range Problems(err) {
				said += "\n" + p.String()
			}
		}
		if (c.want == "") != (err == nil) || !strings.Contains(said, c.want) {
			t.Errorf("%s: got %q, want %q", name, said, c.want)
		}
	}
}

func TestSearchCatalogue(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{"GOOGLE drive": "google_drive", "microsoft-onedrive": "onedrive", "no such provider": ""} {
		found, err := Search(query)
		var ids []string
		for _, e := range found {
			ids = append(ids, e.ID)
		}
		if err != nil || strings.Join(ids, " ") != want {
			t.Errorf("%s: found %v (%v), want %s", query, ids, err, want)
		}
	}
}

// What reading the whole catalogue costs, which only its lists pay.
func BenchmarkReadCatalogue(b *testing.B) {
	for b.Loop() {
		if _, err := readEntries(knownFiles); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFindEntry(b *testing.B) {
	for b.Loop() {
		if _, err := FindEntry("salesforce"); err != nil {
			b.Fatal(err)
		}
	}
}

// JSON of a record's pinned places must stay what stored connections hold.
func TestPinnedKeepsItsForm(t *testing.T) {
	t.Parallel()
	got, err := json.Marshal(Pinned{Token: "t", API: []string{"a"}})
	if err != nil || string(got) != `{"token":"t","api":["a"]}` {
		t.Errorf("%s (%v)", got, err)
	}
	if p := (Pinned{Token: "t", Refresh: "r"}); p.Refreshing() != "r" || (Pinned{Token: "t"}).Refreshing() != "t" {
		t.Error("the refresh token goes elsewhere than to its place")
	}
}

// The schema takes every record that the linter takes, and none with a field or
// choice that does not exist.
func TestSchema(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(Schema())
	if err != nil {
		t.Fatal(err)
	}
	var s jsonschema.Schema
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	schema, err := s.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	holds := func(record string) error {
		doc, err := readYAML([]byte(record))
		if err != nil {
			t.Fatal(err)
		}
		v, err := plainValue(doc)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var plain any
		if err := json.Unmarshal(text, &plain); err != nil {
			t.Fatal(err)
		}
		return schema.Validate(plain)
	}
	tracker, err := os.ReadFile(filepath.Join("testdata", "records", "tracker.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := holds(string(tracker)); err != nil {
		t.Errorf("tracker: %v", err)
	}
	for _, e := range entries(t) {
		if err := holds(string(e.Shown.Source())); err != nil {
			t.Errorf("%s: %v", e.ID, err)
		}
	}
	const good = "id: demo\nname: Demo\nauth: oauth2\napi: {base: [\"https://demo.example\"]}\n"
	for name, record := range map[string]string{
		"unknown field": good + "acess: [x]\n", "unknown field inside": good + "oauth2: {scope: x}\n", "unknown choice": good + "oauth2: {client_auth: magic}\n",
		"text for a switch": good + "oauth2: {pkce: maybe}\n", "no id": strings.Replace(good, "id: demo\n", "", 1),
	} {
		if holds(record) == nil {
			t.Errorf("%s: the schema takes it", name)
		}
	}
	if err := holds(good); err != nil {
		t.Error(err)
	}
	server, err := MCPServer{ID: "notes", Name: "Notes", URL: "https://notes.example/mcp", Auth: None}.Record()
	if err == nil {
		err = holds(string(server.Source()))
	}
	if err != nil {
		t.Errorf("an MCP server: %v", err)
	}
	if holds(strings.Replace(good, "api: ", "cut: [x]\n#", 1)) == nil {
		t.Error("the schema takes a record without an API")
	}
}

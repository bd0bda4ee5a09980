package intake_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/api/apitest"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/intake"
	"github.com/ambit-dev/ambit/internal/intake/awssm"
	"github.com/ambit-dev/ambit/internal/intake/kv"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest/awstest"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) { keyringtest.RemoveTransit(); os.Exit(code) }))
}

// world is a served API, and a key for its vault.
type world struct {
	*apitest.World
	token string
}

func newWorld(t *testing.T, db *sqldb.DB) world {
	t.Helper()
	w := apitest.New(t, db, nil)
	_, token, err := w.People.IssueKey(t.Context(), account.NewKey{Environment: w.Env, Name: "import", Scopes: account.Scopes(), Expires: time.Now().Add(time.Hour)})
	must(t, err)
	return world{w, string(token.Reveal())}
}

func (w world) client() *client.Client { return client.New(w.URL, w.token) }

// values are those of a secret, oldest first.
func (w world) values(t *testing.T, name string) []string {
	t.Helper()
	cl := w.client()
	found, err := cl.Secrets(t.Context(), client.SecretFilter{Name: name})
	must(t, err)
	if len(found.Data) == 0 {
		return nil
	}
	versions, err := cl.SecretVersions(t.Context(), found.Data[0].ID, "")
	must(t, err)
	var out []string
	for _, v := range versions.Data {
		got, err := cl.SecretValue(t.Context(), found.Data[0].ID, "", v.ID)
		must(t, err)
		out = append(out, got.Value+string(got.Bytes))
	}
	slices.Reverse(out)
	return out
}

func (w world) wants(t *testing.T, name string, want ...string) {
	t.Helper()
	if got := w.values(t, name); !cmp.Equal(got, want) {
		t.Errorf("%s: %s", name, cmp.Diff(want, got))
	}
}

// run runs a plan and gives the results by their paths.
func (w world) run(t *testing.T, p intake.Plan) (map[string]intake.Result, intake.Summary) {
	t.Helper()
	out := map[string]intake.Result{}
	p.Done = func(r intake.Result) { out[r.Path] = r }
	if p.To == nil {
		p.To = w.client()
	}
	sum, err := intake.Run(t.Context(), p)
	must(t, err)
	doc, err := json.Marshal(out)
	must(t, err)
	if strings.Contains(string(doc), "canary") {
		t.Errorf("a value is in the results: %s", doc)
	}
	return out, sum
}

func states(all map[string]intake.Result) map[string]string {
	out := map[string]string{}
	for path, r := range all {
		out[path] = fmt.Sprintf("%s %d", r.State, r.New)
	}
	return out
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Issue 8, import from HashiCorp Vault: all versions of KV 2 in their order, KV 1,
// namespaces, fields; a dry run changes nothing, a second run does nothing, a newer
// version follows, and what was changed in Ambit is left alone. The engine is the
// real one, the client HashiCorp's.
func TestVault(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := newWorld(t, db)
		v := keyringtest.NewTransit(t)
		put := func(path string, fields map[string]any) {
			v.Do("POST", "/ns/team/v1/secret/data/"+path, map[string]any{"data": fields})
		}
		put("app/db", map[string]any{"value": "canary-1"})
		put("app/db", map[string]any{"value": "canary-2"})
		put("app/db", map[string]any{"value": "canary-3"})
		v.Do("POST", "/ns/team/v1/secret/delete/app/db", map[string]any{"versions": []int{2}})
		v.Do("POST", "/ns/team/v1/secret/metadata/app/db", map[string]any{"custom_metadata": map[string]string{"owner": "ops"}})
		put("app/api", map[string]any{"user": "u", "password": "canary-<&>"})
		put("app/api", map[string]any{"user": "u", "password": "canary-new"})
		put("top", map[string]any{"n": 5})
		env := map[string]string{"VAULT_ADDR": "http://" + v.Addr, "VAULT_TOKEN": "admin", "VAULT_NAMESPACE": "team"}
		open := func(change func(*kv.Config)) *kv.Source {
			t.Helper()
			cfg := kv.Config{Mount: "secret", Getenv: func(name string) string { return env[name] }}
			if change != nil {
				change(&cfg)
			}
			s, err := kv.Open(t.Context(), cfg)
			must(t, err)
			return s
		}
		plan := intake.Plan{Source: open(nil), Mapping: intake.Everywhere("old/", nil)}

		got, _ := w.run(t, plan)
		if want := map[string]string{"app/db": "would 2", "app/api": "would 2", "top": "would 1"}; !cmp.Equal(states(got), want) {
			t.Errorf("a dry run: %v", states(got))
		}
		w.wants(t, "old/app/db")
		plan.Apply = true
		got, sum := w.run(t, plan)
		if want := map[string]string{"app/db": "taken 2", "app/api": "taken 2", "top": "taken 1"}; !cmp.Equal(states(got), want) || got["app/db"].Gone != 1 || sum.New != 5 {
			t.Errorf("applied: %v, %+v", states(got), sum)
		}
		w.wants(t, "old/app/db", "canary-1", "canary-3")
		w.wants(t, "old/app/api", `{"password":"canary-<&>","user":"u"}`, `{"password":"canary-new","user":"u"}`)
		w.wants(t, "old/top", `{"n":5}`)
		if found, err := w.client().Secrets(t.Context(), client.SecretFilter{Name: "old/app/db"}); err != nil || found.Data[0].Metadata["owner"] != "ops" {
			t.Errorf("the metadata: %+v, %v", found.Data, err)
		}
		if got, _ = w.run(t, plan); got["app/db"].State != intake.Same || got["top"].State != intake.Same {
			t.Errorf("again: %v", states(got))
		}

		put("app/db", map[string]any{"value": "canary-4"})
		top, err := w.client().Secrets(t.Context(), client.SecretFilter{Name: "old/top"})
		must(t, err)
		_, err = w.client().UpdateSecret(t.Context(), top.Data[0].ID, "", client.SecretValue{Value: "mine"}, "")
		must(t, err)
		put("top", map[string]any{"n": 6})
		got, sum = w.run(t, plan)
		if want := map[string]string{"app/db": "taken 1", "app/api": "same 0", "top": "conflict 0"}; !cmp.Equal(states(got), want) || got["top"].Code != "changed_since" || sum.Bad() != 1 {
			t.Errorf("later: %v %+v", states(got), got["top"])
		}
		w.wants(t, "old/app/db", "canary-1", "canary-3", "canary-4")
		w.wants(t, "old/top", `{"n":5}`, "mine")

		// Each field by itself, below a path only.
		byField := intake.Plan{Source: open(func(c *kv.Config) { c.Fields, c.Prefix = true, "app" }), Mapping: intake.Everywhere("f/", nil), Apply: true}
		if got, _ = w.run(t, byField); len(got) != 3 {
			t.Errorf("by field: %v", states(got))
		}
		w.wants(t, "f/app/api/password", "canary-<&>", "canary-new")
		w.wants(t, "f/app/api/user", "u")

		v.Do("POST", "/v1/kv/plain", map[string]any{"value": "canary-v1"})
		env["VAULT_NAMESPACE"] = ""
		got, _ = w.run(t, intake.Plan{Source: open(func(c *kv.Config) { c.Mount = "kv" }), Mapping: intake.Everywhere("one/", nil), Apply: true})
		if got["plain"].State != intake.Taken {
			t.Errorf("version 1: %+v", got)
		}
		w.wants(t, "one/plain", "canary-v1")

		v.Token("weak", map[string][]string{}, 0, false)
		env["VAULT_TOKEN"] = "weak"
		_, err = intake.Run(t.Context(), intake.Plan{Source: open(nil), Mapping: intake.Everywhere("", nil), To: w.client()})
		if !fault.Is(err, "source_denied") {
			t.Errorf("a token without rights: %v", err)
		}
	})
}

// Issue 8, import from AWS Secrets Manager through Amazon's SDK, whose signatures the
// fake verifies: pages, all versions with the current one last, tags, bytes.
func TestAWS(t *testing.T) { // not parallel: the SDK reads the process' environment
	s := awstest.New(t)
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": awstest.AccessKey, "AWS_SECRET_ACCESS_KEY": awstest.SecretKey, "AWS_ENDPOINT_URL_SECRETS_MANAGER": s.URL,
		"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CA_BUNDLE": ""} {
		t.Setenv(name, value)
	}
	day := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	s.Store(
		awstest.StoredSecret{Name: "/prod/db", Description: "the database", Tags: map[string]string{"team": "ops"}, Versions: []awstest.StoredVersion{
			{ID: "c", Text: "canary-waits", Stages: []string{"AWSPENDING"}, Created: day(9)},
			{ID: "b", Text: "canary-now", Stages: []string{"AWSCURRENT"}, Created: day(5)},
			{ID: "a", Text: "canary-before", Stages: []string{"AWSPREVIOUS"}, Created: day(3)},
			{ID: "0", Created: day(1)}}},
		awstest.StoredSecret{Name: "prod/file", Versions: []awstest.StoredVersion{{ID: "x", Bytes: []byte("canary\xff"), Stages: []string{"AWSCURRENT"}, Created: day(1)}}},
		awstest.StoredSecret{Name: "prod/gone", Deleted: true, Versions: []awstest.StoredVersion{{ID: "x", Text: "canary"}}},
		awstest.StoredSecret{Name: "test/a", Versions: []awstest.StoredVersion{{ID: "x", Text: "canary-a", Stages: []string{"AWSCURRENT"}}}},
		awstest.StoredSecret{Name: "test/b", Versions: []awstest.StoredVersion{{ID: "x", Text: "canary-b", Stages: []string{"AWSCURRENT"}}}},
	)
	w := newWorld(t, sqldbtest.Open(t, sqldb.SQLite))
	src, err := awssm.Open(t.Context(), awssm.Config{Region: awstest.Region, HTTP: keyringtest.HTTP(t, s.Service).HTTP})
	must(t, err)
	mapping, err := intake.ParseMapping([]byte("rules:\n- {path: test/a, skip: true}\n- {path: '{stage}/{rest...}', name: 'aws/{stage}-{rest}', context: {stage: '{stage}'}, tags: ['{stage}']}\n"))
	must(t, err)
	got, _ := w.run(t, intake.Plan{Source: src, Mapping: mapping, Apply: true})
	if want := map[string]string{"/prod/db": "taken 2", "prod/file": "taken 1", "test/a": "skipped 0", "test/b": "taken 1"}; !cmp.Equal(states(got), want) || got["/prod/db"].Gone != 1 {
		t.Errorf("got %v", states(got))
	}
	w.wants(t, "aws/prod-db", "canary-before", "canary-now")
	w.wants(t, "aws/prod-file", "canary\xff")
	found, err := w.client().Secrets(t.Context(), client.SecretFilter{Name: "aws/prod-db"})
	must(t, err)
	if o := found.Data[0]; o.Metadata["team"] != "ops" || o.Description != "the database" || o.Context["stage"] != "prod" || !slices.Contains(o.Tags, "prod") {
		t.Errorf("what surrounds it: %+v", o)
	}
	s.Forget(awstest.AccessKey)
	if _, err := intake.Run(t.Context(), intake.Plan{Source: src, Mapping: mapping, To: w.client()}); !fault.Is(err, "source_denied") {
		t.Errorf("without rights: %v", err)
	}
}

// fixed is a source of one secret.
type fixed struct{ versions []string }

func (fixed) Name() string                                         { return "fixed" }
func (fixed) Paths(_ context.Context, fn func(string) error) error { return fn("it") }
func (f fixed) Read(context.Context, string) (intake.Item, error) {
	var item intake.Item
	for i, v := range f.versions {
		item.Versions = append(item.Versions, intake.Version{ID: fmt.Sprintf("id-%c", 'a'+i), Value: secret.FromString(v)})
	}
	return item, nil
}

// Issue 8, resumable: an import that is cut off at any of its requests, before the
// server has it or after, ends with all versions once each when it is run again.
func TestCutOffAnywhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldbtest.Open(t, sqldb.SQLite))
	base, err := url.Parse(w.URL)
	must(t, err)
	want := []string{"canary-a", "canary-b", "canary-b", "canary-c"}
	for _, arrives := range []bool{false, true} {
		for n := 1; ; n++ {
			c := &cutting{ReverseProxy: httputil.NewSingleHostReverseProxy(base), at: n, arrives: arrives}
			srv := httptest.NewServer(c)
			name := fmt.Sprintf("cut/%v/%d/it", arrives, n)
			plan := intake.Plan{Source: fixed{want}, Mapping: intake.Everywhere(strings.TrimSuffix(name, "it"), nil), To: client.New(srv.URL, w.token), Apply: true}
			_, err := intake.Run(t.Context(), plan)
			must(t, err)
			srv.Close()
			if !c.cut {
				if n < 8 {
					t.Errorf("an import took only %d requests", n)
				}
				break
			}
			plan.To = w.client()
			if got, _ := w.run(t, plan); got["it"].State != intake.Taken && got["it"].State != intake.Same {
				t.Errorf("%s: %+v", name, got["it"])
			}
			w.wants(t, name, want...)
		}
	}
}

// cutting is a way to the server that breaks at one request.
type cutting struct {
	*httputil.ReverseProxy
	mu      sync.Mutex
	n, at   int
	arrives bool // the server gets that request; its answer is lost
	cut     bool
}

func (c *cutting) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.n++
	here := c.n >= c.at
	c.cut = c.cut || here
	first := c.n == c.at
	c.mu.Unlock()
	if here {
		if first && c.arrives {
			rec := httptest.NewRecorder()
			c.ReverseProxy.ServeHTTP(rec, r)
			_, _ = io.Copy(io.Discard, rec.Body)
		}
		panic(http.ErrAbortHandler)
	}
	c.ReverseProxy.ServeHTTP(rw, r)
}

// A name that something else has is left alone, and so are two paths that come to one.
func TestNamesThatAreTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldbtest.Open(t, sqldb.SQLite))
	_, err := w.client().CreateSecret(t.Context(), client.NewSecret{Name: "it", SecretValue: client.SecretValue{Value: "mine"}})
	must(t, err)
	got, _ := w.run(t, intake.Plan{Source: fixed{[]string{"canary"}}, Mapping: intake.Everywhere("", nil), Apply: true})
	if got["it"].Code != "name_exists" {
		t.Errorf("got %+v", got["it"])
	}
	w.wants(t, "it", "mine")
	got, sum := w.run(t, intake.Plan{Source: two{}, Mapping: intake.Mapping{Rules: []intake.Rule{{Path: "{x}", Name: "same"}}}, Apply: true})
	if sum.States[intake.Taken] != 1 || sum.States[intake.Conflict] != 1 {
		t.Errorf("got %v", states(got))
	}
}

type two struct{ fixed }

func (two) Paths(_ context.Context, fn func(string) error) error {
	return errors.Join(fn("a"), fn("b"))
}
func (two) Read(ctx context.Context, p string) (intake.Item, error) {
	return fixed{[]string{"canary-" + p}}.Read(ctx, p)
}

func TestMapping(t *testing.T) {
	t.Parallel()
	m, err := intake.ParseMapping([]byte(`
rules:
- path: tenants/{org}/{rest...}
  name: "{rest}"
  context: {organization_id: "{org}"}
  replace: {org: {acme: org_1, "{base}": org_2}}
- {path: "*/old/*", skip: true}
- {path: "{a}/{b}", name: "x/{path}/{base}"}
`))
	must(t, err)
	for path, want := range map[string]string{
		"tenants/acme/db/pw": "db/pw map[organization_id:org_1]", "tenants/other/db": "not_mapped", "tenants/{base}/{org}": "{org} map[organization_id:org_2]",
		"tenants/acme": "x/tenants/acme/acme map[]", "a/old/b": "", "a/b": "x/a/b/b map[]", "/a/b": "x/a/b/b map[]", "a//c": "", "a": "", "a/b/c": "",
	} {
		got, ok, err := m.Target(path)
		says := ""
		switch {
		case err != nil:
			says = fault.Of(err).Code
		case ok:
			says = fmt.Sprint(got.Name, " ", got.Context)
		}
		if says != want {
			t.Errorf("%s: got %q, want %q", path, says, want)
		}
	}
	for _, bad := range []string{"", "rules: []", "rules: [{path: a, name: '{x}'}]", "rules: [{path: '{a...}/b', name: b}]", "rules: [{path: 'a//b', name: b}]", "rules: [{path: a}]", "rules: [{path: a, name: b, nam: c}]",
		"rules: [{path: '{a}/{a}', name: b}]", "rules: [{path: '{path}', name: b}]", "rules: [{path: a, name: b, replace: {x: {}}}]", "\x00", "rules: 5"} {
		if _, err := intake.ParseMapping([]byte(bad)); !fault.Is(err, "mapping_invalid") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

package app_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Who a mount is for. Everybody else gets what somebody without any token gets.
const (
	everybody = "everybody"         // who asks makes no difference, or is said in the form
	agents    = "agents"            // by their access token
	programs  = "applications"      // by their API key
	people    = "people"            // in a browser; each route of theirs is held in package web
	operator  = "on the own socket" // not among the doors
	documents = "the document"      // each operation is held in package api
)

// mounts must name everything that any room gives to a mux: what is not a text in the
// source goes by how it is written there. The routes of package workos are for
// applications, each of them.
var mounts = map[string]string{
	"app GET /healthz": everybody, "app GET /readyz": everybody, "app GET /metrics": everybody, "app POST /hooks/{environment}/{provider}": everybody,
	"app GET /about": operator, "app GET /people": operator, "app POST /recover": operator, "app POST /backup": operator, "app POST /keys/root": operator, "app GET /keys/root": operator,
	"app GET /debug/pprof/": operator, "app GET /debug/pprof/profile": operator, "app GET /debug/pprof/trace": operator, "app /": operator,

	"authserver path": everybody, `authserver path + "/mcp"`: everybody, // discovery
	"authserver /.well-known/oauth-protected-resource": everybody, "authserver /.well-known/oauth-protected-resource/mcp": everybody,
	"authserver GET /oauth/authorize": everybody, "authserver POST /oauth/token": everybody, "authserver POST /oauth/revoke": everybody, "authserver POST /oauth/register": everybody,
	"authserver POST /oauth/device_authorization": everybody, "authserver POST /oauth/introspect": programs,

	"mcpserver Path": agents, `proxy "POST " + SessionPath`: agents, `proxy "GET " + BundlePath`: everybody,

	"api /v1/": documents, `api op.Method + " " + op.Path`: documents,

	"web r.pattern": people, "web pattern": people, "web /ui/": people, "web GET /{$}": people, "web GET /ui/events": people,
	"web GET /ui/assets/": everybody, `web "GET " + ClientPath("{environment}", "{provider}")`: everybody,
	`web "GET " + componentPath`: everybody, `web "OPTIONS " + statePath`: everybody, `web "GET " + statePath`: everybody, // by a connect token

	"workos pattern": programs, "workos root": everybody, "workos /vault/v1/": everybody, // what is below them and is no route
}

// written are requests for what is not a text in the source, and for the relay, which
// stands before the mux.
var written = map[string][]string{
	"authserver path":             {"GET /.well-known/oauth-authorization-server", "GET /.well-known/openid-configuration"},
	`authserver path + "/mcp"`:    {"GET /.well-known/oauth-authorization-server/mcp", "GET /.well-known/openid-configuration/mcp"},
	"mcpserver Path":              {"POST /mcp"},
	`proxy "POST " + SessionPath`: {"POST /proxy/session"},
	`proxy "GET " + BundlePath`:   {"GET /proxy/ca.pem"},
	`web "GET " + componentPath`:  {},
	`web "GET " + statePath`:      {},
	"the relay":                   {"GET /relay/sandbox_key/issues", "POST /relay/sandbox_key/issues"},
	"workos root":                 {"GET /data-integrations/none/none", "GET /user_management/none", "GET /organizations/none"},
	"workos /vault/v1/":           {"GET /vault/v1/none"},
	"workos pattern":              {}, // the table, whose routes are texts
}

// mounted is what the rooms give to a mux, read off their source.
func mounted(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	route := regexp.MustCompile(`^[A-Z]+ /`)
	for _, room := range []string{"api", "app", "authserver", "mcpserver", "proxy", "rawhttp", "relay", "web", "workos"} {
		files, err := filepath.Glob(filepath.Join("..", room, "*.go"))
		must(t, err)
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			must(t, err)
			text := func(e ast.Expr) string {
				if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					s, _ := strconv.Unquote(lit.Value)
					return s
				}
				return types.ExprString(e)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CallExpr:
					if f, ok := n.Fun.(*ast.SelectorExpr); ok && len(n.Args) == 2 && (f.Sel.Name == "Handle" || f.Sel.Name == "HandleFunc") {
						found[room+" "+text(n.Args[0])] = true
					}
				case *ast.KeyValueExpr: // tables of routes
					if s := text(n.Key); room != "web" && route.MatchString(s) {
						found[room+" "+s] = true
					}
				}
				return true
			})
		}
	}
	return found
}

// S5, T1, W3, issue 6: every mount of the server against nobody, an agent, another
// tenant's agent, an API key and a browser's cookie: a credential opens the doors that it
// is for and is nothing at all at the others. A mount that nobody has decided about fails.
func TestEachMountAgainstEachCaller(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sqldb.SQLite)
	n := c.add(nil)
	c.settle(n)
	ctx := t.Context()
	_, key, err := n.People.IssueKey(ctx, account.NewKey{Environment: c.env, Name: "all", Scopes: account.Scopes()})
	must(t, err)
	tenant, err := n.People.CreateOrganization(ctx, account.System("test"), c.env, "Tenant", "")
	must(t, err)
	otto := accounttest.Join(t, n.People, c.env, tenant.ID, account.RoleOwner, "otto@example.com")
	_, client, sec, err := n.Agents.Register(ctx, account.System("test"), agent.NewAgent{Environment: c.env, Organization: tenant.ID, Name: "theirs", Kind: agent.Delegated, Owner: otto.User()})
	must(t, err)
	caller, err := n.Agents.AuthenticateClient(ctx, agent.ClientAuth{ID: string(client), Secret: sec})
	must(t, err)
	theirs, err := n.Agents.ClientCredentials(ctx, caller, "http://"+publicHost+"/mcp")
	must(t, err)
	type who struct{ name, bearer, cookie string }
	callers := []who{{name: "nobody"}, {name: agents, bearer: string(c.agent.Reveal())}, {name: "another tenant's agent", bearer: string(theirs.Access.Reveal())},
		{name: programs, bearer: string(key.Reveal())}, {name: "a cookie", cookie: string(c.owner.Token.Reveal())}}
	ask := func(w who, method, path string) int {
		t.Helper()
		body, kind := "{}", asJSON
		if strings.HasPrefix(path, "/oauth/") && path != "/oauth/register" {
			body, kind = "token=x", asForm
		}
		req, err := http.NewRequestWithContext(ctx, method, n.url(path), strings.NewReader(body))
		must(t, err)
		req.Host = publicHost
		req.Header.Set("Content-Type", kind)
		req.Header.Set("Accept", "application/json, text/event-stream")
		if w.bearer != "" {
			req.Header.Set("Authorization", "Bearer "+w.bearer)
		}
		if w.cookie != "" {
			for _, name := range []string{"ambit", "__Host-ambit"} {
				req.AddCookie(&http.Cookie{Name: name, Value: w.cookie})
			}
		}
		resp, err := n.http.Transport.RoundTrip(req)
		must(t, err)
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		must(t, err)
		if strings.Contains(string(answer), thirdKey) {
			t.Errorf("%s %s as %s: the answer holds the account's key", method, path, w.name)
		}
		return resp.StatusCode
	}
	found := mounted(t)
	found["the relay"] = true
	decided := maps.Clone(mounts)
	decided["the relay"] = agents
	opened := map[string]int{}
	for _, mount := range slices.Sorted(maps.Keys(found)) {
		kind, ok := decided[mount]
		if !ok && strings.HasPrefix(mount, "workos ") {
			kind, ok = programs, true
		}
		if !ok {
			t.Errorf("%s is a new mount: decide above whom it is for", mount)
			continue
		}
		requests, given := written[mount]
		if _, pattern, ok := strings.Cut(mount, " "); !given && ok && strings.Contains(pattern, " /") && !strings.Contains(pattern, `"`) {
			requests = []string{regexp.MustCompile(`\{[^}]*\}`).ReplaceAllStringFunc(pattern, func(name string) string {
				if name == "{id}" {
					return string(id.NewSecret())
				}
				return "none"
			})}
		}
		if kind == operator || kind == people || kind == documents {
			continue
		}
		for _, r := range requests {
			method, path, _ := strings.Cut(r, " ")
			nobody := ask(callers[0], method, path)
			form := path == "/oauth/introspect" || strings.HasPrefix(path, "/relay/") // what is not said at all is a mistake of the form there
			if kind != everybody && nobody != http.StatusUnauthorized && !(form && nobody == http.StatusBadRequest) {
				t.Errorf("%s: nobody gets %d, want 401", r, nobody)
			}
			for _, w := range callers[1:] {
				got := ask(w, method, path)
				is := w.name == kind || kind == agents && w.name == "another tenant's agent" // whose things are their own
				switch refused := got == http.StatusUnauthorized || got == http.StatusForbidden || form && got == http.StatusBadRequest; {
				case kind == everybody && got != nobody && got != http.StatusUnauthorized: // a token where a client's proof belongs
					t.Errorf("%s: %s gets %d, and nobody %d", r, w.name, got, nobody)
				case kind != everybody && !is && !refused:
					t.Errorf("%s is for %s: %s gets %d, want 401 or 403", r, kind, w.name, got)
				case kind != everybody && is && refused && strings.HasPrefix(path, "/relay"):
				case kind != everybody && is && refused:
					t.Errorf("%s is for %s, and they get %d", r, kind, got)
				default:
					opened[kind]++
				}
			}
		}
	}
	for mount := range decided {
		if !found[mount] {
			t.Errorf("there is no mount %s any more", mount)
		}
	}
	if opened[agents] == 0 || opened[programs] == 0 || opened[everybody] == 0 {
		t.Errorf("too little was asked: %v", opened)
	}
}

package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"slices"
	"strings"
	"testing"
)

// A ban keeps one thing in the rooms that own it.
type ban struct {
	name string
	// what reports whether the use of this object is what the ban is about.
	what func(o types.Object) bool
	// rooms may use it everywhere.
	rooms []string
	// files may use it too, each for the reason given.
	files map[string]string
}

func bans() []ban {
	return []ban{
		{
			name: "secret.Value.Reveal: only what seals, sends or cuts a secret looks at its bytes",
			what: func(o types.Object) bool { return fullName(o) == "("+module+"/internal/secret.Value).Reveal" },
			rooms: []string{
				"internal/secret", "internal/crypt", "internal/vault", "internal/keyring", "internal/credential", "internal/provider", "internal/outbound",
			},
			files: map[string]string{
				"internal/api/vend.go":              "answers an application that may have the credential",
				"internal/workos/vend.go":           "answers an application that may have the credential",
				"internal/integration/reveal.go":    "puts a fresh token into the address that leads back to a product",
				"internal/authority/authority.go":   "reads the sealed key of the proxy's authority, which signs",
				"internal/account/reveal.go":        "checks a one-time code against its seed, and puts a sign-in token into its link",
				"internal/session/live.go":          "reads back the sealed subject of a call approval, which is no credential",
				"internal/app/console.go":           "hands a sign-in link to the operator on the console's socket",
				"internal/cli/dev.go":               "prints the first sign-in link, writes the ready file, gives the sandbox its own settings",
				"internal/cli/serve.go":             "prints the first sign-in link on the operator's console",
				"internal/cli/recover.go":           "prints the sign-in link that the operator asked for",
				"internal/web/reveal.go":            "puts a fresh sign-in token into its cookie, shows a person once what was made for them",
				"internal/audit/chain.go":           "the chain's own key, sealed under the root, keys its hash",
				"internal/audit/checkpoint.go":      "the checkpoint's own key signs, and vouches for rows",
				"internal/proxy/reveal.go":          "hands a freshly made token of a session to its agent, once",
				"internal/intake/found/found.go":    "looks for a value in the file that holds it, sends it to the server, and tells equal ones by a keyed hash",
				"internal/intake/found/server.go":   "looks for the entry of a file that holds a value",
				"internal/intake/run.go":            "sends to the server what a source has",
				"internal/intake/workos/workos.go":  "shows WorkOS the key that reads its vault",
				"internal/intake/workos/account.go": "sends to the server the credential of an account that WorkOS gave out",
				"internal/webhook/sign.go":          "keys the signature of what an application is told, and reads the address of a Slack webhook",
				"internal/mail/mail.go":             "signs in to the operator's mail server",
				"internal/issuer/reveal.go":         "parses the JWT by which somebody proves something, and sends our own secret and a code to the issuer that they are for",
				"internal/authserver/issue.go":      "hands a freshly made token to the client that asked for it, once",
				"internal/scan/reveal.go":           "masks and fingerprints what a scan found, and takes it out of the report's other texts",
				"internal/scan/revoke.go":           "sends a key to the provider that gave it out, to be revoked",
				"internal/scan/verify.go":           "asks the provider that gave a key out whether it still works",
			},
		},
		{
			name: "an SQL driver: rooms write SQL against sqldb, and only one speaks to the databases of others",
			what: func(o types.Object) bool {
				return inPackage(o, "database/sql/driver", "modernc.org/sqlite", "github.com/jackc/pgx") || fullName(o) == "database/sql.Open" || fullName(o) == "database/sql.OpenDB"
			},
			rooms: []string{"internal/sqldb", "internal/provider/postgres"}, // the second is a client of databases that are not ours
			files: map[string]string{},
		},
		{
			name:  "C: the server has none, so what needs a C library is a helper of its own",
			what:  func(o types.Object) bool { return inPackage(o, "github.com/miekg/pkcs11") },
			rooms: []string{"cmd/ambit-pkcs11"},
			files: map[string]string{},
		},
		{
			name: "an HTTP client: egress goes through outbound",
			what: func(o types.Object) bool {
				switch fullName(o) {
				case "net/http.Client", "net/http.Transport", "net/http.DefaultClient", "net/http.DefaultTransport",
					"net/http.Get", "net/http.Head", "net/http.Post", "net/http.PostForm":
					return true
				}
				return false
			},
			rooms: []string{"internal/outbound", "client"},
			files: map[string]string{
				"internal/keyring/options.go":   "names the type in which outbound's reaches the back ends",
				"internal/cli/demo.go":          "plays an agent in front of the server",
				"internal/cli/mcp.go":           "is an agent's program in front of the server",
				"internal/cli/bridge.go":        "names the type in which mcp.go's reaches it",
				"internal/cli/run_agent.go":     "is an agent of the server, beside the program that it starts",
				"internal/cli/person/person.go": "plays a browser in front of the server",
				"internal/cli/doctor_server.go": "asks the operator's own server whether it is ready",
				"internal/cli/console.go":       "speaks to the server's console over its socket",
			},
		},
		{
			name: "the process's own input and output: the program is a function of what it is given",
			what: func(o types.Object) bool {
				switch fullName(o) {
				case "fmt.Print", "fmt.Printf", "fmt.Println", "os.Stdin", "os.Stdout", "os.Stderr":
					return true
				}
				return false
			},
			rooms: []string{"internal/cli", "cmd/ambit", "cmd/ambit-pkcs11"},
			files: map[string]string{},
		},
		{
			name: "leaving the process: only main does",
			what: func(o types.Object) bool {
				switch fullName(o) {
				case "os.Exit", "log.Fatal", "log.Fatalf", "log.Fatalln":
					return true
				}
				return false
			},
			rooms: []string{"cmd/ambit", "cmd/ambit-pkcs11"},
			files: map[string]string{},
		},
		{
			name: "flags and environment: only cli reads them",
			what: func(o types.Object) bool {
				switch fullName(o) {
				case "os.Getenv", "os.LookupEnv", "os.Environ":
					return true
				}
				return inPackage(o, "flag", "github.com/spf13/cobra")
			},
			rooms: []string{"internal/cli", "cmd/ambit", "cmd/ambit-pkcs11"},
			files: map[string]string{},
		},
		{
			name: "the process's own logger: a logger is handed in",
			what: func(o types.Object) bool {
				switch fullName(o) {
				case "log/slog.Default", "log/slog.Info", "log/slog.Warn", "log/slog.Error", "log/slog.Debug",
					"log.Default", "log.Print", "log.Printf", "log.Println":
					return true
				}
				return false
			},
			rooms: []string{},
			files: map[string]string{},
		},
	}
}

func fullName(o types.Object) string {
	if f, ok := o.(*types.Func); ok {
		return f.FullName()
	}
	// A method or field of something local is no package-level name.
	if o.Pkg() == nil || o.Parent() != o.Pkg().Scope() {
		return ""
	}
	return o.Pkg().Path() + "." + o.Name()
}

func inPackage(o types.Object, prefixes ...string) bool {
	if o.Pkg() == nil {
		return false
	}
	return slices.ContainsFunc(prefixes, func(p string) bool {
		return o.Pkg().Path() == p || strings.HasPrefix(o.Pkg().Path(), p+"/")
	})
}

// use is one place where a package does what a ban is about.
type use struct {
	file string
	line int
	name string
}

func (b ban) uses(p pkg) (found []use) {
	for name, file := range p.files {
		ast.Inspect(file, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && p.info.Uses[id] != nil && b.what(p.info.Uses[id]) {
				found = append(found, use{name, p.fset.Position(id.Pos()).Line, id.Name})
			}
			return true
		})
	}
	return found
}

func TestBans(t *testing.T) {
	t.Parallel()
	for _, p := range ours(t) {
		if p.broken != nil {
			t.Errorf("%s cannot be checked: %v", p.path, p.broken)
		}
	}
	for _, b := range bans() {
		used := map[string]bool{}
		for _, p := range ours(t) {
			if isApart(p.path) || forTests(p.path) || slices.ContainsFunc(b.rooms, func(r string) bool { return p.path == r || strings.HasPrefix(p.path, r+"/") }) {
				continue
			}
			for _, u := range b.uses(p) {
				if used[u.file] = true; b.files[u.file] == "" {
					t.Errorf("%s:%d uses %s\n\tbanned: %s", u.file, u.line, u.name, b.name)
				}
			}
		}
		for name := range b.files {
			if !used[name] && present(t, name) {
				t.Errorf("%s no longer needs its exception from %q: remove it", name, b.name)
			}
		}
	}
}

// Every ban must see what it is about, or its silence means nothing.
func TestBansSee(t *testing.T) {
	t.Parallel()
	ours(t)
	const planted = `package planted

import (
	"database/sql"
	"fmt"
	"log/slog"
	"net/http"
	"os"

	"github.com/miekg/pkcs11"

	"github.com/ambit-dev/ambit/internal/secret"
)

func planted(v secret.Value) {
	_ = v.Reveal()
	_, _ = sql.Open("", "")
	_ = http.Client{}
	fmt.Println()
	os.Exit(len(os.Getenv("")))
	slog.Info("")
	_ = pkcs11.CKA_ID
}
`
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "planted.go", planted, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := pkg{fset: fset, files: map[string]*ast.File{"planted.go": file}, info: &types.Info{Uses: map[*ast.Ident]types.Object{}}}
	if _, err := (&types.Config{Importer: exported}).Check("planted", fset, []*ast.File{file}, p.info); err != nil {
		t.Fatal(err)
	}
	for _, b := range bans() {
		if len(b.uses(p)) != 1 {
			t.Errorf("%q: got %v in the planted file, want one use", b.name, b.uses(p))
		}
	}
}

func present(t *testing.T, name string) bool {
	return slices.ContainsFunc(ours(t), func(p pkg) bool { return p.files[name] != nil })
}

// A package that does work when it is imported cannot be reasoned about by
// reading its callers.
func TestNoInit(t *testing.T) {
	t.Parallel()
	for _, p := range ours(t) {
		for name, file := range p.files {
			for _, d := range file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
					t.Errorf("%s:%d has an init function", name, p.fset.Position(f.Pos()).Line)
				}
			}
		}
	}
}

// The entry point only calls cli.Main.
func TestMainIsShort(t *testing.T) {
	t.Parallel()
	for _, p := range ours(t) {
		if p.path != "cmd/ambit" {
			continue
		}
		for name, file := range p.files {
			if n := p.fset.Position(file.End()).Line; n > 40 {
				t.Errorf("%s has %d lines, want at most 40", name, n)
			}
		}
	}
}

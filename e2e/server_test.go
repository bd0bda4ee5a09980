//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/e2e/world"
	"github.com/ambit-dev/ambit/internal/cli/person"
)

const (
	sqlite   = "sqlite"
	postgres = "postgres"
)

// onBothEngines runs a test on SQLite and on PostgreSQL, one after the other:
// two browsers at once are too much for a small machine.
func onBothEngines(t *testing.T, fn func(t *testing.T, engine string)) {
	t.Helper()
	for _, engine := range []string{sqlite, postgres} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			fn(t, engine)
		})
	}
}

// server is one `ambit dev` or `ambit serve`.
type server struct {
	world.Ready
	node *world.Node
}

// dev starts `ambit dev` and waits until it serves.
func dev(t *testing.T, engine string, env ...string) *server {
	t.Helper()
	n := &world.Node{Command: "dev", Home: t.TempDir(), Listen: "localhost:0"}
	if engine == postgres {
		n.Database = newDatabase(t)
	}
	n.Env = append(env, "AMBIT_ROOT_KEY="+filepath.Join(n.Home, "root.key"))
	s := start(t, n)
	ready := filepath.Join(n.Home, "ready.json")
	if info, err := os.Stat(ready); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the ready file has mode %v (%v), want 0600", info.Mode(), err)
	}
	return s
}

// enrolled is the first person, with a passkey.
func (s *server) enrolled(t *testing.T) *person.Person {
	t.Helper()
	p, err := person.New(s.URL)
	if err == nil {
		err = p.Enroll(t.Context(), s.LoginURL)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// connect has a person connect an account by signing in at its provider.
func (s *server) connect(t *testing.T, p *person.Person, provider, account string) {
	t.Helper()
	base, err := url.Parse(s.URL)
	if err == nil {
		err = p.Connect(t.Context(), base, provider, account)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// secondNode starts `ambit serve` on the database and root key of a first node.
// It is reached at its own address under the public URL of the first.
func (s *server) secondNode(t *testing.T, env ...string) *server {
	t.Helper()
	listen := "localhost:" + freePort(t)
	second := start(t, &world.Node{Command: "serve", Home: t.TempDir(), Listen: listen, Database: s.node.Database,
		Env: append(env, "AMBIT_ROOT_KEY="+filepath.Join(s.node.Home, "root.key"), "AMBIT_PUBLIC_URL="+s.URL)})
	second.Ready = s.Ready
	second.MCPURL = "http://" + listen + "/mcp"
	return second
}

// start runs a server until the test ends, and wants it to end well.
func start(t *testing.T, n *world.Node) *server {
	t.Helper()
	var err error
	if n.Binary, err = binary(); err != nil {
		t.Fatal(err)
	}
	s := &server{node: n}
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Errorf("ambit ended with %v", err)
		}
		if t.Failed() {
			t.Logf("output of the server:\n%s", n.Log())
		}
	})
	if s.Ready, err = n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// newDatabase makes a database that lives as long as the test.
func newDatabase(t *testing.T) string {
	t.Helper()
	address, drop, err := world.NewDatabase(t.Context(), setting(t, "AMBIT_TEST_DATABASE_URL"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := drop(); err != nil {
			t.Errorf("dropping a database: %v", err)
		}
	})
	return address
}

// script is one of e2e/node. Node's modules lie outside the clone.
func script(t *testing.T, name string, arg any) world.Script {
	t.Helper()
	return world.Script{Node: setting(t, "AMBIT_NODE"), Modules: setting(t, "AMBIT_NODE_MODULES"), Source: filepath.Join("node", name), Dir: t.TempDir(), Argument: arg}
}

// inspector runs the MCP inspector's command line against a server.
func inspector(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(setting(t, "AMBIT_NODE"), append([]string{
		filepath.Join(setting(t, "AMBIT_NODE_MODULES"), "@modelcontextprotocol", "inspector", "clients", "launcher", "build", "index.js"), "--cli",
	}, args...)...)
	cmd.Env = []string{"PATH=" + filepath.Dir(setting(t, "AMBIT_NODE")) + ":" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(complaints.String()))
	}
	return out.String(), err
}

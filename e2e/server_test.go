//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
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
		t.Run(engine, func(t *testing.T) { fn(t, engine) })
	}
}

// server is one `ambit dev` or `ambit serve`.
type server struct {
	URL            string `json:"url"`
	MCPURL         string `json:"mcp_url"`
	LoginURL       string `json:"login_url"`
	APIKey         string `json:"api_key"`
	EnvironmentID  string `json:"environment_id"`
	OrganizationID string `json:"organization_id"`
	UserID         string `json:"user_id"`

	home     string
	database string // of PostgreSQL
	cmd      *exec.Cmd
	done     chan error
	log      *output
}

// output keeps what a process printed.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// dev starts `ambit dev` and waits until it serves.
func dev(t *testing.T, engine string, env ...string) *server {
	t.Helper()
	s := &server{home: t.TempDir()}
	if engine == postgres {
		s.database = newDatabase(t)
		env = append(env, "AMBIT_DATABASE_URL="+s.database)
	}
	ready := filepath.Join(s.home, "ready.json")
	s.start(t, append(env, "AMBIT_ROOT_KEY="+s.rootKey()), "dev", "--data", filepath.Join(s.home, "data"), "--listen", "localhost:0", "--ready-file", ready)
	s.await(t, func() bool {
		b, err := os.ReadFile(ready)
		return err == nil && json.Unmarshal(b, s) == nil
	})
	if info, err := os.Stat(ready); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the ready file has mode %v (%v), want 0600", info.Mode(), err)
	}
	return s
}

// secondNode starts `ambit serve` on the database and root key of a first node.
// It is reached at its own address under the public URL of the first.
func (s *server) secondNode(t *testing.T, env ...string) *server {
	t.Helper()
	n := *s
	n.home, n.log = t.TempDir(), nil
	listen := "localhost:" + freePort(t)
	n.start(t, append(env, "AMBIT_DATABASE_URL="+s.database, "AMBIT_ROOT_KEY="+s.rootKey(), "AMBIT_PUBLIC_URL="+s.URL),
		"serve", "--data", filepath.Join(n.home, "data"), "--listen", listen)
	n.MCPURL = "http://" + listen + "/mcp"
	n.await(t, func() bool { return reachable("http://" + listen + "/readyz") })
	return &n
}

func (s *server) rootKey() string { return filepath.Join(s.home, "root.key") }

func (s *server) start(t *testing.T, env []string, args ...string) {
	t.Helper()
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	s.log, s.done = &output{}, make(chan error, 1)
	s.cmd = exec.Command(program, args...)
	s.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.home, "TMPDIR=" + os.TempDir()}, env...)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.done <- s.cmd.Wait() }()
	t.Cleanup(func() { s.stop(t) })
}

func (s *server) await(t *testing.T, serves func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		select {
		case err := <-s.done:
			s.done <- err
			t.Fatalf("ambit ended before it served: %v\n%s", err, s.log)
		default:
		}
		if serves() {
			return
		}
	}
	t.Fatalf("ambit does not serve after a minute\n%s", s.log)
}

// stop asks the process to end, and wants it to end well.
func (s *server) stop(t *testing.T) {
	t.Helper()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-s.done:
		if err != nil {
			t.Errorf("ambit ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.done
		t.Error("ambit did not stop within 20 s of SIGTERM")
	}
	s.cmd = nil
	if t.Failed() {
		t.Logf("output of the server:\n%s", s.log)
	}
}

// newDatabase makes a database that lives as long as the test.
func newDatabase(t *testing.T) string {
	t.Helper()
	u, err := url.Parse(setting(t, "AMBIT_TEST_DATABASE_URL"))
	if err != nil {
		t.Fatal(err)
	}
	var b [6]byte
	_, _ = rand.Read(b[:])
	name := "e2e_" + hex.EncodeToString(b[:])
	admin := func(sql string) error {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		conn, err := pgx.Connect(ctx, u.String())
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		_, err = conn.Exec(ctx, sql)
		return err
	}
	if err := admin("create database " + name); err != nil {
		t.Fatalf("making a database: %v", err)
	}
	t.Cleanup(func() {
		if err := admin("drop database " + name + " with (force)"); err != nil {
			t.Errorf("dropping %s: %v", name, err)
		}
	})
	own := *u
	own.Path = "/" + name
	return own.String()
}

// node runs a script of e2e/node. It lives until the test ends; the first line
// that it prints is decoded into ready when that is given, else its whole
// output is returned.
func node(t *testing.T, script string, arg, ready any) string {
	t.Helper()
	modules := setting(t, "AMBIT_NODE_MODULES")
	dir := t.TempDir()
	src, err := os.ReadFile(filepath.Join("node", script))
	if err != nil {
		t.Fatal(err)
	}
	// Modules are found from where a script lies, and they lie outside the clone.
	if err := os.WriteFile(filepath.Join(dir, script), src, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	doc, err := json.Marshal(arg)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(setting(t, "AMBIT_NODE"), filepath.Join(dir, script), string(doc))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "NODE_NO_WARNINGS=1"}
	var complaints output
	cmd.Stderr = &complaints
	if ready == nil {
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s%s", script, err, out, &complaints)
		}
		return string(out)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		_, _ = io.Copy(io.Discard, stdout)
		_ = cmd.Wait()
	})
	if err := json.NewDecoder(stdout).Decode(ready); err != nil {
		t.Fatalf("%s did not become ready: %v\n%s", script, err, &complaints)
	}
	return ""
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

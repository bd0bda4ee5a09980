package found_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/api/apitest"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/intake/found"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sandbox"
	"github.com/ambit-dev/ambit/internal/scan"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("AMBIT_TEST_TAKE"); dir != "" { // a process that TestKilledInBetween kills
		if err := takeAll(context.Background(), dir, os.Getenv("AMBIT_TEST_SERVER"), os.Getenv("AMBIT_TEST_KEY")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const text = "# a\nA_TOKEN=canaryQ7w9E2r4T6y8U1i3O5p7A9s1\nB_TOKEN=canaryZ1x3C5v7B9n2M4k6J8h1G3f5 # b\r\nC=1"

func planned(t *testing.T, file string) []found.Change {
	t.Helper()
	return plannedAs(t, file, found.Options{Risk: scan.Low})
}

func plannedAs(t *testing.T, file string, o found.Options) []found.Change {
	t.Helper()
	r, err := scan.Run(t.Context(), scan.Options{Roots: []string{file}, OS: "linux"})
	must(t, err)
	changes, _ := found.Plan(r.Findings, o)
	return changes
}

// Issue 8: an import that is cut off anywhere leaves the file as it was or as it
// becomes, and both can be put back; when it is run again it makes nothing twice.
func TestCutOffAnywhere(t *testing.T) {
	t.Parallel()
	w := apitest.New(t, sqldbtest.Open(t, sqldb.SQLite), nil)
	_, key, err := w.People.IssueKey(t.Context(), account.NewKey{Environment: w.Env, Name: "import", Scopes: account.Scopes(), Expires: time.Now().Add(time.Hour)})
	must(t, err)
	base, err := url.Parse(w.URL)
	must(t, err)
	whole := found.Vault{To: client.New(w.URL, string(key.Reveal()))}
	for _, arrives := range []bool{false, true} {
		for n := 1; ; n++ {
			file := filepath.Join(t.TempDir(), ".env")
			must(t, os.WriteFile(file, []byte(text), 0o640))
			c := &cutting{proxy: httputil.NewSingleHostReverseProxy(base), at: int64(n), arrives: arrives}
			srv := httptest.NewServer(c)
			changes := planned(t, file)
			if len(changes) != 1 || len(changes[0].Takes) != 2 {
				t.Fatalf("planned: %+v", changes)
			}
			err := found.Vault{To: client.New(srv.URL, string(key.Reveal()))}.Apply(t.Context(), &changes[0])
			srv.Close()
			now, rerr := os.ReadFile(file)
			must(t, rerr)
			if (err == nil) != !bytes.Equal(now, []byte(text)) {
				t.Errorf("cut %d: %v, and the file is %q", n, err, now)
			}
			if err != nil {
				again := planned(t, file)
				must(t, whole.Apply(t.Context(), &again[0]))
				now, rerr = os.ReadFile(file)
				must(t, rerr)
			}
			if bytes.Contains(now, []byte("canary")) || !bytes.Contains(now, []byte("# b\r\nC=1")) {
				t.Errorf("cut %d: the file is %q", n, now)
			}
			if len(planned(t, file)) != 0 {
				t.Errorf("cut %d: something is still found", n)
			}
			must(t, whole.Undo(t.Context(), file))
			back, rerr := os.ReadFile(file)
			must(t, rerr)
			info, rerr := os.Stat(file)
			must(t, rerr)
			if string(back) != text || info.Mode().Perm() != 0o640 {
				t.Errorf("cut %d: back is %q, %v", n, back, info.Mode())
			}
			if err == nil {
				if n < 5 {
					t.Errorf("it took %d requests", n)
				}
				break
			}
		}
	}
	page, err := whole.To.Secrets(context.Background(), client.SecretFilter{Prefix: "found/backup/", Limit: 100})
	must(t, err)
	for _, s := range page.Data {
		if s.Version > 1 {
			t.Errorf("the backup of %s was made %d times", s.Metadata["file"], s.Version)
		}
	}
}

// A key that becomes a connection makes one, wherever the import is cut off: also where
// the provider does not tell whose account a key opens, so that only the import's own note
// and the time tell that it was made.
func TestCutOffConnecting(t *testing.T) {
	t.Parallel()
	w := apitest.New(t, sqldbtest.Open(t, sqldb.SQLite), nil)
	_, key, err := w.People.IssueKey(t.Context(), account.NewKey{Environment: w.Env, Name: "import", Scopes: account.Scopes(), Expires: time.Now().Add(time.Hour)})
	must(t, err)
	base, err := url.Parse(w.URL)
	must(t, err)
	nameless := strings.Replace(sandbox.KeyRecord(w.Sandbox), "identity: {path: /me, id: id, label: email}\n", "", 1)
	_, err = w.Providers.Put(t.Context(), w.System(), provider.Input{YAML: []byte(strings.Replace(nameless, "id: sandbox_key", "id: nameless", 1))}, account.Agreement{})
	must(t, err)
	text := `{"mcpServers": {"hub": {"command": "x", "env": {"GITHUB_TOKEN": "` + apitest.SandboxKey + `"}}}}` + "\n"
	whole := found.Vault{To: client.New(w.URL, string(key.Reveal())), Accounts: string(w.Org)}
	for _, prov := range []string{"sandbox_key", "nameless"} {
		o := found.Options{Risk: scan.Low, Accounts: map[string]found.Account{"github": {Provider: prov, Part: "api_key", Placeholder: "ambit_placeholder"}},
			Entry: func(string, []string) map[string]any { return map[string]any{"url": "http://localhost:7420/mcp"} }}
		for _, arrives := range []bool{false, true} {
			for n := 1; ; n++ {
				file := filepath.Join(t.TempDir(), "mcp.json")
				must(t, os.WriteFile(file, []byte(text), 0o600))
				srv := httptest.NewServer(&cutting{proxy: httputil.NewSingleHostReverseProxy(base), at: int64(n), arrives: arrives})
				changes := plannedAs(t, file, o)
				if len(changes) != 1 || len(changes[0].Servers) != 1 {
					t.Fatalf("planned: %+v", changes)
				}
				v := whole
				v.To = client.New(srv.URL, string(key.Reveal()))
				err := v.Apply(t.Context(), &changes[0])
				srv.Close()
				if now, _ := os.ReadFile(file); (err == nil) != (string(now) != text) {
					t.Errorf("cut %d: %v, and the file is %q", n, err, now)
				}
				if err != nil {
					again := plannedAs(t, file, o)
					must(t, whole.Apply(t.Context(), &again[0]))
				}
				now, rerr := os.ReadFile(file)
				must(t, rerr)
				if strings.Contains(string(now), "canary") || strings.Contains(string(now), "hub") || !strings.Contains(string(now), "/mcp") {
					t.Errorf("cut %d: the file is %q", n, now)
				}
				must(t, whole.Undo(t.Context(), file))
				if back, rerr := os.ReadFile(file); rerr != nil || string(back) != text {
					t.Errorf("cut %d: back is %q, %v", n, back, rerr)
				}
				page, perr := whole.To.Connections(t.Context(), client.ConnectionFilter{Provider: prov, State: "connected", Limit: 100})
				must(t, perr)
				// Another file of the same key is another account, where nobody tells.
				if most := map[string]int{"sandbox_key": 1, "nameless": n}[prov]; len(page.Data) > most {
					t.Errorf("%s, cut %d: %d connections", prov, n, len(page.Data))
				}
				if err == nil {
					for _, c := range page.Data {
						_, derr := whole.To.Disconnect(t.Context(), c.ID)
						must(t, derr)
					}
					break
				}
			}
		}
	}
}

// More that is taken out of a file later does not cost its first state, and a file
// that somebody has changed is left.
func TestSecondTimeKeepsTheFirstState(t *testing.T) {
	t.Parallel()
	w := apitest.New(t, sqldbtest.Open(t, sqldb.SQLite), nil)
	_, key, err := w.People.IssueKey(t.Context(), account.NewKey{Environment: w.Env, Name: "import", Scopes: account.Scopes(), Expires: time.Now().Add(time.Hour)})
	must(t, err)
	v := found.Vault{To: client.New(w.URL, string(key.Reveal()))}
	file := filepath.Join(t.TempDir(), ".env")
	must(t, os.WriteFile(file, []byte(text), 0o600))
	all := planned(t, file)[0]
	one := all
	one.Takes = all.Takes[:1]
	must(t, v.Apply(t.Context(), &one))
	rest := planned(t, file)
	must(t, v.Apply(t.Context(), &rest[0]))
	must(t, v.Undo(t.Context(), file))
	if back, err := os.ReadFile(file); err != nil || string(back) != text {
		t.Errorf("back is %q, %v", back, err)
	}
	again := planned(t, file)
	must(t, os.WriteFile(file, []byte("A=mine"), 0o600))
	if err := v.Apply(t.Context(), &again[0]); !fault.Is(err, "file_changed") {
		t.Errorf("a file that changed under it: %v", err)
	}
	if err := v.Undo(t.Context(), file); !fault.Is(err, "file_changed") {
		t.Errorf("putting back over another content: %v", err)
	}
}

// A bug: the answer for a folder that is gone named none.
func TestTakenOutOfAFolderThatIsGone(t *testing.T) {
	t.Parallel()
	gone := filepath.Join(t.TempDir(), "gone")
	if _, err := (found.Vault{}).Taken(t.Context(), gone); !strings.Contains(fault.Of(err).Message, gone) {
		t.Errorf("%v", err)
	}
}

// cutting is a way to the server that breaks at one request and stays broken.
type cutting struct {
	proxy   *httputil.ReverseProxy
	n       atomic.Int64
	at      int64
	arrives bool
}

func (c *cutting) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	n := c.n.Add(1)
	if n == c.at && c.arrives {
		rec := httptest.NewRecorder()
		c.proxy.ServeHTTP(rec, r)
		_, _ = fmt.Fprint(io.Discard, rec.Body)
	}
	if n >= c.at {
		panic(http.ErrAbortHandler)
	}
	c.proxy.ServeHTTP(rw, r)
}

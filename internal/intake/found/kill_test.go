package found_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/api/apitest"
	"github.com/ambit-dev/ambit/internal/intake/found"
	"github.com/ambit-dev/ambit/internal/scan"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// takeAll takes all credentials out of the files of a folder, as a process of its own does.
func takeAll(ctx context.Context, dir, server, key string) error {
	r, err := scan.Run(ctx, scan.Options{Roots: []string{dir}, NoIgnore: true})
	if err != nil {
		return err
	}
	changes, _ := found.Plan(r.Findings, found.Options{Risk: scan.Low})
	v := found.Vault{To: client.New(server, key)}
	for i := range changes {
		if err := v.Apply(ctx, &changes[i]); err != nil {
			return err
		}
		fmt.Println("took") // the one who kills waits for the first
	}
	return nil
}

// Issue 8: kill -9 in the middle of an import leaves each file as it was or as it becomes.
// Run again, it takes the rest, and all of it goes back to the byte, with its mode.
func TestKilledInBetween(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no kill -9")
	}
	t.Parallel()
	w := apitest.New(t, sqldbtest.Open(t, sqldb.SQLite), nil)
	_, key, err := w.People.IssueKey(t.Context(), account.NewKey{Environment: w.Env, Name: "import", Scopes: account.Scopes(), Expires: time.Now().Add(time.Hour)})
	must(t, err)
	dir, was := t.TempDir(), map[string]string{}
	for n := range 40 {
		file := filepath.Join(dir, fmt.Sprintf("%02d.env", n))
		was[file] = fmt.Sprintf("# %s\nA_TOKEN=canaryQ7w9E2r4T6y8U1i3O5p7A%02d9\nB=%d", strings.Repeat("x", 200*n), n, n)
		must(t, os.WriteFile(file, []byte(was[file]), 0o640))
	}
	changed := func() (n int) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		must(t, err)
		for _, e := range entries {
			file := filepath.Join(dir, e.Name())
			now, err := os.ReadFile(file)
			must(t, err)
			before, known := was[file]
			info, err := os.Stat(file)
			must(t, err)
			head, tail, _ := strings.Cut(before, "canary")
			_, tail, _ = strings.Cut(tail, "\n")
			switch {
			case !known: // what is left of a write has no value in it
				if strings.Contains(string(now), "canary") {
					t.Errorf("%s is left, with a value", e.Name())
				}
			case info.Mode().Perm() != 0o640:
				t.Errorf("%s has the mode %v", e.Name(), info.Mode())
			case string(now) == before:
			case strings.HasPrefix(string(now), head+"ambit_secret_") && strings.HasSuffix(string(now), "\n"+tail) && !strings.Contains(string(now), "canary"):
				n++
			default:
				t.Errorf("%s is neither old nor new: %q", e.Name(), now)
			}
		}
		return n
	}
	last, killed := 0, 0
	for turn := 0; last < len(was) && turn < 40; turn++ {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), "AMBIT_TEST_TAKE="+dir, "AMBIT_TEST_SERVER="+w.URL, "AMBIT_TEST_KEY="+string(key.Reveal()))
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		if _, err := out.Read(make([]byte, 1)); err == nil { // it is at work
			time.Sleep(time.Duration(turn*7%40) * time.Millisecond)
			must(t, cmd.Process.Kill())
		}
		if cmd.Wait() != nil {
			killed++
		}
		last = changed()
	}
	if killed < 3 {
		t.Errorf("it was killed %d times only", killed)
	}
	must(t, takeAll(t.Context(), dir, w.URL, string(key.Reveal())))
	if n := changed(); n != len(was) {
		t.Errorf("%d of %d files were changed in the end", n, len(was))
	}
	v := found.Vault{To: client.New(w.URL, string(key.Reveal()))}
	for file, before := range was {
		must(t, v.Undo(t.Context(), file))
		if now, err := os.ReadFile(file); err != nil || string(now) != before {
			t.Errorf("%s is back as %q (%v)", file, now, err)
		}
	}
	changed()
}

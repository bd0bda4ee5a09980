package cli_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ambit-dev/ambit/internal/cli/person"
)

// TestScripts runs the program against a real server, one server a script. No
// output of any of them may hold a secret that went in (threats.md L1, L3).
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", Setup: newWorld, RequireUniqueNames: true,
		Condition: func(cond string) (bool, error) {
			if cond != "namespaces" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			return exec.Command("unshare", "-Urnmp", "--fork", "--mount-proc", "true").Run() == nil, nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"fails": runFails, "json": checkJSON, "keep": keepJSON, "mode": checkMode, "await": await, "awaitfile": awaitFile,
			"confirm": func(ts *testscript.TestScript, _ bool, _ []string) { worldOf(ts).confirm(ts.Getenv(transcriptVar)) },
			"work": func(ts *testscript.TestScript, _ bool, args []string) {
				agent, session := worldOf(ts).work(strings.Join(args, " "))
				ts.Setenv("AGENT", agent)
				ts.Setenv("SESSION", session)
			},
			"asks": func(ts *testscript.TestScript, _ bool, args []string) { // NAME [call]
				agent, session, code := worldOf(ts).asks(args[0], len(args) > 1)
				ts.Setenv("AGENT", agent)
				ts.Setenv("SESSION", session)
				ts.Setenv("CODE", cmp.Or(code, "none"))
			},
			"runner": func(ts *testscript.TestScript, _ bool, args []string) {
				id, secret := worldOf(ts).runner(args[0], strings.Join(args[1:], " "))
				ts.Setenv("AMBIT_AGENT_ID", id)
				ts.Setenv("AMBIT_AGENT_SECRET", secret)
			},
			"rejected": func(ts *testscript.TestScript, _ bool, _ []string) { worldOf(ts).rejected(ts.Getenv("SANDBOX")) },
			"singlecall": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Setenv("SESSION", worldOf(ts).singleCall(strings.Join(args, " ")))
			},
			"configured": func(ts *testscript.TestScript, _ bool, args []string) {
				worldOf(ts).configured([]byte(ts.ReadFile(args[0])))
			},
			"agree": agree, "denies": denies,
			"stop": func(ts *testscript.TestScript, _ bool, _ []string) { worldOf(ts).stop() },
		},
	})
}

// agree is `agree SENTENCE`: the owner opens the page that the last command
// named, reads SENTENCE on it, and confirms it with their passkey.
func agree(ts *testscript.TestScript, _ bool, args []string) {
	page := regexp.MustCompile(`http://localhost:\d+/ui/\S+`).FindString(ts.ReadFile("stderr"))
	if page == "" {
		ts.Fatalf("the last command named no page")
	}
	ts.Check(worldOf(ts).agree(page, strings.Join(args, " ")))
}

// denies is `denies session` or `denies call`: a person plays along with the demo
// that runs in the background, until they deny that.
func denies(ts *testscript.TestScript, _ bool, args []string) {
	ctx := worldOf(ts).t.ctx
	asks := func(n int) *url.URL { // the page that the demo asks for, as its n-th
		ask := regexp.MustCompile(`"event":"ask".*"url":"([^"]+)"`)
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			shown, _ := os.ReadFile(ts.Getenv(transcriptVar))
			if found := ask.FindAllStringSubmatch(string(shown), -1); len(found) > n {
				u, err := url.Parse(found[n][1])
				ts.Check(err)
				return u
			}
		}
		ts.Fatalf("the demo did not ask %d times", n+1)
		return nil
	}
	link := asks(0)
	base := &url.URL{Scheme: link.Scheme, Host: link.Host, Path: "/"}
	human, err := person.New(base.Scheme + "://" + base.Host)
	ts.Check(err)
	ts.Check(human.Enroll(ctx, link.String()))
	asks(1)
	ts.Check(human.Connect(ctx, base, "sandbox", "mia@sandbox.example"))
	page := asks(2).String()
	if args[0] == "call" {
		_, err = human.Approve(ctx, page, nil)
		ts.Check(err)
		page = asks(3).String()
	}
	err = human.Deny(ctx, page)
	// The demo may have ended before the page that follows a denial was read.
	if shown, _ := os.ReadFile(ts.Getenv(transcriptVar)); !strings.Contains(string(shown), `"event":"summary"`) {
		ts.Check(err)
	}
}

// runFails is `fails CODE ambit …`: it must end with that exit code, and say why.
func runFails(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fails code program args...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != want {
		ts.Fatalf("%s: got %v, want exit status %d", strings.Join(args[1:], " "), err, want)
	}
	if ts.ReadFile("stderr") == "" {
		ts.Fatalf("%s failed without saying why", strings.Join(args[1:], " "))
	}
}

// checkJSON is `json [stderr:]PATH [WANT]`: the output is JSON, and at PATH is
// WANT, or anything but null. With ! there must be nothing.
func checkJSON(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 || len(args) > 2 {
		ts.Fatalf("usage: json [stderr:]path [want]")
	}
	got, ok := lookup(ts, args[0])
	switch {
	case neg && ok:
		ts.Fatalf("%s: got %s, want nothing", args[0], got)
	case !neg && !ok:
		ts.Fatalf("%s: got nothing", args[0])
	case len(args) == 2 && got != args[1]:
		ts.Fatalf("%s: got %q, want %q", args[0], got, args[1])
	}
}

// keepJSON is `keep VAR PATH`: what is at PATH becomes a variable.
func keepJSON(ts *testscript.TestScript, _ bool, args []string) {
	got, ok := lookup(ts, args[1])
	if !ok {
		ts.Fatalf("%s: got nothing", args[1])
	}
	ts.Setenv(args[0], got)
}

func lookup(ts *testscript.TestScript, path string) (string, bool) {
	from := "stdout"
	if p, ok := strings.CutPrefix(path, "stderr:"); ok {
		from, path = "stderr", p
	}
	var v any
	if err := json.Unmarshal([]byte(ts.ReadFile(from)), &v); err != nil {
		ts.Fatalf("%s is not JSON: %v", from, err)
	}
	for _, step := range strings.Split(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			v = at[step]
		case []any:
			if step == "length" {
				v = len(at)
				continue
			}
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(at) {
				return "", false
			}
			v = at[i]
		default:
			return "", false
		}
	}
	return fmt.Sprint(v), v != nil
}

// await is `await REGEXP`: until a program in the background has printed it.
func await(ts *testscript.TestScript, _ bool, args []string) {
	want := regexp.MustCompile(args[0])
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		shown, _ := os.ReadFile(ts.Getenv(transcriptVar))
		if want.Match(shown) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("nothing printed %q", args[0])
		}
	}
}

// awaitFile is `awaitfile PATTERN`: until there is such a file.
func awaitFile(ts *testscript.TestScript, _ bool, args []string) {
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if found, _ := filepath.Glob(ts.MkAbs(args[0])); len(found) > 0 {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("there is no %s", args[0])
		}
	}
}

// checkMode is `mode 600 FILE`.
func checkMode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := strconv.FormatUint(uint64(info.Mode().Perm()), 8); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}

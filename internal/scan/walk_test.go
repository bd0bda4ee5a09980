package scan

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf16"

	ahocorasick "github.com/BobuSumisu/aho-corasick"
)

// token is a credential made of pieces; n tells several apart.
func token(n int) string { return "ghp_" + fmt.Sprintf("Zq7Lw2Xk9Rb4Tn6Vc1Jd8Hs3Mf5Pg0Ya%04d", n) }

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func filesOf(r *Report, dir string) (list []string) {
	for _, f := range r.Findings {
		list = append(list, strings.TrimPrefix(f.File, dir+string(filepath.Separator)))
	}
	slices.Sort(list)
	return list
}

// Issue 8, threats.md P2: links are not followed, pipes and sockets not opened, what cannot
// be read is told; compressed and wide text is read; a scan does not hang.
func TestOddFiles(t *testing.T) {
	t.Parallel()
	dir, outside := t.TempDir(), t.TempDir()
	line := "GITHUB_TOKEN=" + token(1) + "\n"
	write(t, filepath.Join(outside, "secret.env"), line)
	for _, link := range []string{"link.env", "loop"} {
		to := filepath.Join(outside, "secret.env")
		if link == "loop" {
			to = dir
		}
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.env"), 0o600); err != nil {
		t.Fatal(err)
	}
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write([]byte(line))
	_ = w.Close()
	write(t, filepath.Join(dir, "old.log.gz"), z.String())
	wide := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(line)) {
		wide = append(wide, byte(u), byte(u>>8))
	}
	write(t, filepath.Join(dir, "wide.txt"), string(wide))
	write(t, filepath.Join(dir, "state.vscdb"), "SQLite format 3\x00\x01\x02"+token(2)+"\x00\x00")
	write(t, filepath.Join(dir, "pic.png"), "\x89PNG"+line)
	locked := filepath.Join(dir, "locked.env")
	write(t, locked, line)
	if err := os.Chmod(locked, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // catches a hang
	defer cancel()
	r, err := Run(ctx, Options{Roots: []string{dir}})
	if err != nil || !r.Complete {
		t.Fatalf("%v, complete %v", err, r.Complete)
	}
	want := []string{"old.log.gz", "state.vscdb", "wide.txt"}
	if os.Geteuid() == 0 {
		want = []string{"locked.env", "old.log.gz", "state.vscdb", "wide.txt"} // root reads everything
	} else if len(r.Skipped) != 1 || r.Skipped[0].Why != "no permission" {
		t.Errorf("skipped %v", r.Skipped)
	}
	if got := filesOf(r, dir); !slices.Equal(got, want) {
		t.Errorf("found in %v, want %v", got, want)
	}
}

// What git ignores is skipped, except where secrets lie; .ambitignore has the last word.
// The patterns mean what git says they mean.
func TestIgnoreFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if out, err := exec.Command("git", "init", "-q", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	write(t, filepath.Join(dir, ".gitignore"), "*.log\n/build/\n.env\ntmp/**/cache\n!keep.log\ndoc/*.txt\n[ab].cfg\nsp\\ ace.cfg\n")
	write(t, filepath.Join(dir, ".ambitignore"), "fixtures/\nsecret.env\n")
	names := []string{"a.log", "keep.log", "build/x.txt", "sub/build/x.txt", ".env", "sub/.env", "tmp/a/b/cache/x.txt", "doc/a.txt", "doc/in/a.txt", "a.cfg", "c.cfg", "sp ace.cfg", "fixtures/.env", "secret.env", "src/main.txt", "node_modules/x/.env"}
	for _, n := range names {
		write(t, filepath.Join(dir, n), "GITHUB_TOKEN="+token(1)+"\n")
	}
	r := scanDir(t, dir, Options{})
	got := filesOf(r, dir)
	// Left out: a.log, build and tmp/a/b/cache, doc/a.txt, a.cfg, "sp ace.cfg", fixtures,
	// secret.env and node_modules.
	if r.LeftOut != 9 || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "9 files and folders were left out") || !r.Complete {
		t.Errorf("left out %d, notes %q, complete %v", r.LeftOut, r.Notes, r.Complete)
	}
	var want []string
	for _, n := range names {
		ignored := exec.Command("git", "-C", dir, "check-ignore", "-q", n).Run() == nil
		if (!ignored || strings.HasSuffix(n, ".env")) && !strings.HasPrefix(n, "fixtures") && n != "secret.env" && !strings.HasPrefix(n, "node_modules") {
			want = append(want, n)
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("found in\n%v, want\n%v", got, want)
	}
	if r = scanDir(t, dir, Options{NoIgnore: true}); r.LeftOut != 0 || len(r.Notes) != 0 {
		t.Errorf("with NoIgnore left out %d, notes %q", r.LeftOut, r.Notes)
	}
	if all := filesOf(r, dir); len(all) != len(names) {
		t.Errorf("with NoIgnore %d of %d files", len(all), len(names))
	}
}

// Large files are read in pieces: what stands over a cut is found once, with its line.
func TestLargeFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var b strings.Builder
	want := map[int]bool{}
	filler := strings.Repeat("the quick brown fox jumps over the lazy dog; ", 3) + "\n"
	line := 1
	for n := 0; b.Len() < wholeMax+3*piece; {
		if b.Len()/50_000 > n {
			n = b.Len() / 50_000
			fmt.Fprintf(&b, "found %s here\n", token(n))
			want[line] = true
		} else {
			b.WriteString(filler)
		}
		line++
	}
	write(t, filepath.Join(dir, "big.log"), b.String())
	got := map[int]bool{}
	for _, f := range scanDir(t, dir, Options{}).Findings {
		if got[f.Line] || !want[f.Line] {
			t.Errorf("a finding at line %d", f.Line)
		}
		got[f.Line] = true
	}
	if len(got) != len(want) {
		t.Errorf("found %d of %d", len(got), len(want))
	}
}

// A scan that is interrupted reports what it has and says so.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, ".env"), "GITHUB_TOKEN="+token(1)+"\n")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := Run(ctx, Options{Roots: []string{dir}})
	if err != nil || r.Complete || r.Clean() {
		t.Errorf("%v, complete %v, clean %v", err, r.Complete, r.Clean())
	}
}

// A folder in which something could not be read is not called clean, and an empty one is.
func TestCleanIsAllRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if r := scanDir(t, dir, Options{}); !r.Clean() || !r.Complete {
		t.Errorf("an empty folder: clean %v, complete %v", r.Clean(), r.Complete)
	}
	if err := os.MkdirAll(filepath.Join(dir, ".git"), 0o755); err != nil { // which git does not open
		t.Fatal(err)
	}
	r := scanDir(t, dir, Options{Git: true})
	b, err := json.Marshal(r)
	if err != nil || r.Clean() || !strings.Contains(string(b), `"complete":false`) {
		t.Errorf("%v: clean %v, %s", err, r.Clean(), b)
	}
	run := SARIF(r, dir, "1").(map[string]any)["runs"].([]any)[0].(map[string]any)["invocations"].([]any)[0].(map[string]any)
	if run["executionSuccessful"] != true {
		t.Error("a scan that went to its end is told as one that failed")
	}
}

// Marks beside a value accept it.
func TestInlineAllow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.py"), "a = '"+token(1)+"' # ambit:allow\nb = '"+token(2)+"' # gitleaks:allow\n# ambit:allow-next-line\nc = '"+token(3)+"'\nd = '"+token(4)+"'\n")
	r := scanDir(t, dir, Options{})
	if len(r.Findings) != 1 || r.Findings[0].Line != 5 || r.Accepted < 3 {
		t.Errorf("%d findings, %d accepted", len(r.Findings), r.Accepted)
	}
}

// gitIn is git in a repository of a test, and gives what it prints.
func gitIn(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// History is read without executing what a repository configures, and a finding names the
// commit that brought it and whether a remote has it.
func TestHistory(t *testing.T) {
	t.Parallel()
	dir, evil := t.TempDir(), filepath.Join(t.TempDir(), "ran")
	run := func(args ...string) { t.Helper(); gitIn(t, dir, args...) }
	run("init", "-q", "-b", "main")
	write(t, filepath.Join(dir, "app.env"), "GITHUB_TOKEN="+token(1)+"\n")
	write(t, filepath.Join(dir, ".gitattributes"), "*.env diff=evil filter=evil\n")
	run("add", "-A")
	run("commit", "-qm", "one")
	first := gitIn(t, dir, "rev-parse", "HEAD")
	write(t, filepath.Join(dir, "app.env"), "GITHUB_TOKEN=$TOKEN\n")
	run("commit", "-qam", "two")
	run("update-ref", "refs/remotes/origin/main", "HEAD")
	for _, kv := range [][2]string{{"core.fsmonitor", "touch " + evil}, {"core.pager", "touch " + evil}, {"diff.evil.textconv", "touch " + evil}, {"diff.evil.command", "touch " + evil}, {"filter.evil.smudge", "touch " + evil}, {"log.showSignature", "true"}, {"gpg.program", evil}} {
		run("config", kv[0], kv[1])
	}
	r := scanDir(t, dir, Options{Git: true})
	if len(r.Findings) != 1 {
		t.Fatalf("%d findings, want the one in history", len(r.Findings))
	}
	f := r.Findings[0]
	if f.Commit != first || !f.Exposure.Pushed || f.Key != "GITHUB_TOKEN" {
		t.Errorf("commit %q pushed %v key %q", f.Commit, f.Exposure.Pushed, f.Key)
	}
	if _, err := os.Stat(evil); err == nil {
		t.Error("the scan executed what the repository configures")
	}
}

// What a work tree holds is told apart from what was committed and pushed.
func TestCommitted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	run := func(args ...string) { t.Helper(); gitIn(t, dir, args...) }
	run("init", "-q", "-b", "main")
	write(t, filepath.Join(dir, "a.env"), "GITHUB_TOKEN="+token(1)+"\n")
	run("add", "-A")
	run("commit", "-qm", "one")
	run("update-ref", "refs/remotes/origin/main", "HEAD")
	write(t, filepath.Join(dir, "b.env"), "GITHUB_TOKEN="+token(2)+"\n")
	run("add", "-A")
	run("commit", "-qm", "two")
	write(t, filepath.Join(dir, "b.env"), "GITHUB_TOKEN="+token(2)+"\nNEW_GITHUB_TOKEN="+token(4)+"\n")
	write(t, filepath.Join(dir, "c.env"), "GITHUB_TOKEN="+token(3)+"\n")
	found := scanDir(t, dir, Options{}).Findings
	if len(found) != 4 {
		t.Errorf("%d findings", len(found))
	}
	for _, f := range found {
		e, base := f.Exposure, filepath.Base(f.File)
		if e.Committed != (base != "c.env" && f.Key == "GITHUB_TOKEN") || e.Pushed != (base == "a.env") {
			t.Errorf("%s %s: committed %v, pushed %v", base, f.Key, e.Committed, e.Pushed)
		}
	}
}

// threats.md P2, MCP01: no form of a report and no printer shows any value of the corpus,
// whole or in a part that could be used.
func TestNoValueInAnyOutput(t *testing.T) {
	t.Parallel()
	more := corpus(t, "true_2026.txt", 9)
	cases := append(corpus(t, "true.txt", 3), more[:len(more)/turns]...)
	dir := lay(t, cases)
	r := scanDir(t, dir, Options{NoIgnore: true})
	if len(r.Findings) < 300 {
		t.Fatalf("only %d findings", len(r.Findings))
	}
	var out bytes.Buffer
	_ = json.NewEncoder(&out).Encode(r)
	_ = json.NewEncoder(&out).Encode(SARIF(r, dir, "1"))
	_ = HTML(&out, r, time.Now())
	_ = json.NewEncoder(&out).Encode(NewBaseline(r.Findings, dir))
	fmt.Fprintf(&out, "%v %+v %#v\n", r, r.Findings, r.Findings)
	slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})).Debug("report", "report", r, "findings", r.Findings)
	var parts, from []string
	for _, e := range cases {
		for _, m := range e.values {
			v := m.value
			if len(v) < 8 {
				continue
			}
			if len(v) >= 16 { // what holds the value holds its end
				v = v[len(v)-10:]
			}
			parts, from = append(parts, v), append(from, fmt.Sprintf("%s, line %d", e.path, m.line))
		}
	}
	// All of them at once: the output has many megabytes.
	ahocorasick.NewTrieBuilder().AddStrings(parts).Build().Walk(out.Bytes(), func(_, _, pattern int64) bool {
		t.Errorf("%s: the output holds the value or its end", from[pattern])
		return true
	})
	if len(parts) < 300 || out.Len() < 1<<20 {
		t.Errorf("%d values were looked for in %d bytes", len(parts), out.Len())
	}
}

// A value that stands in a path or in the name of a key is taken out there too.
func TestValueInPath(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, token(1), "x.json"), `{"`+token(1)+`": {"token": "`+token(1)+`"}}`)
	b, err := json.Marshal(scanDir(t, dir, Options{}))
	if err != nil || bytes.Contains(b, []byte(token(1))) {
		t.Errorf("%v: the report holds the value", err)
	}
	if !bytes.Contains(b, []byte(`"kind"`)) {
		t.Error("nothing was found")
	}
}

// A crash of a parser says nothing of what it read.
func TestCrashShowsNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, ".env")
	write(t, name, "GITHUB_TOKEN="+token(1)+"\n")
	s := &scanner{opt: Options{Key: []byte("k")}} // without rules, reading a text panics
	s.newReader().file(t.Context(), job{path: name})
	if len(s.skips) != 1 || strings.Contains(fmt.Sprint(s.skips), "ghp_") {
		t.Errorf("told %v", s.skips)
	}
}

// The same over the corpus: whatever file a reader fails on, what is told of it, also by a
// printer that shows all fields, holds no value.
func TestNoCrashShowsAValue(t *testing.T) {
	t.Parallel()
	cases := corpus(t, "true.txt", 1)
	dir := lay(t, cases)
	s := &scanner{opt: Options{Key: []byte("k")}}
	for _, e := range cases {
		s.newReader().file(t.Context(), job{path: filepath.Join(dir, e.path)})
	}
	if len(s.skips) < 100 {
		t.Fatalf("only %d readers failed", len(s.skips))
	}
	fingerprint(s.found, s.opt.Key)
	text := fmt.Sprintf("%+v %#v %+v", s.skips, s.skips, s.found)
	for _, e := range cases {
		for _, m := range e.values {
			if v := m.value; len(v) >= 8 && strings.Contains(text, v) {
				t.Errorf("%s, line %d: what is told of a crash holds the value", e.path, m.line)
			}
		}
	}
}

// The environment and the arguments of an agent are read from its process, and those of
// others are not.
func TestProcesses(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, filepath.Join(root, "41", "cmdline"), "/usr/bin/node\x00/usr/lib/claude\x00--api-key\x00"+token(2)+"\x00")
	write(t, filepath.Join(root, "41", "environ"), "HOME=/home/a\x00GITHUB_TOKEN="+token(1)+"\x00")
	write(t, filepath.Join(root, "41", "comm"), "claude\n")
	write(t, filepath.Join(root, "42", "cmdline"), "/usr/bin/top\x00")
	write(t, filepath.Join(root, "42", "environ"), "GITHUB_TOKEN="+token(3)+"\x00")
	rules, err := loadRules()
	if err != nil {
		t.Fatal(err)
	}
	s := &scanner{rules: rules, opt: Options{Key: []byte("k"), Now: time.Now()}}
	s.procs(t.Context(), root)
	r := s.report(t.Context())
	if len(r.Findings) != 2 || r.Findings[0].File != "process 41 (claude)" || r.Findings[0].Exposure.Agent != "given" {
		b, _ := json.Marshal(r)
		t.Errorf("%s", b)
	}
}

// A token that says when it ends, and has ended, is little risk; the same one alive is more.
func TestExpiry(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, jwt := "", ""
	for _, e := range corpus(t, "true.txt", 4) {
		if e.kind == "log" {
			jwt = e.values[1].value
		}
	}
	write(t, filepath.Join(dir, "a.env"), "ACCESS_TOKEN="+jwt+"\n")
	alive := scanDir(t, dir, Options{Now: time.Unix(1_700_000_000, 0)})
	dead := scanDir(t, dir, Options{Now: time.Unix(1_999_999_999, 0)})
	if len(alive.Findings) != 1 || len(dead.Findings) != 1 {
		t.Fatal("the token was not found")
	}
	a, d := alive.Findings[0], dead.Findings[0]
	if a.Expires == nil || a.Expired || !d.Expired || d.Risk != Low || d.Score >= a.Score || !strings.Contains(d.Reason, "expired on") {
		t.Errorf("alive %+v\ndead %+v", a, d)
	}
}

// No input makes a parser panic or go on for ever, and each keeps its lines.
func FuzzParsers(f *testing.F) {
	for _, name := range []string{"true.txt", "false.txt"} {
		for i, e := range corpus(f, name, 5) {
			if i < 120 {
				f.Add([]byte(e.text), uint8(i))
			}
		}
	}
	rules, err := loadRules()
	if err != nil {
		f.Fatal(err)
	}
	names := []string{"a.json", "a.yaml", "a.toml", ".env", "a.xml", ".netrc", "a.jsonl", "a.py", "a.log", ".npmrc", "a.csv", "a.md", "a.plist"}
	f.Fuzz(func(t *testing.T, b []byte, n uint8) {
		if len(b) > 1<<16 {
			return
		}
		s := &scanner{rules: rules, opt: Options{Key: []byte("k"), Now: time.Now()}}
		d := s.newReader().doc(names[int(n)%len(names)])
		if len(b) > 0 {
			d.whole(b)
		}
		lines := bytes.Count(b, []byte{'\n'}) + 1
		for _, found := range d.found {
			if found.Line < 0 || found.Line > lines+1 {
				t.Errorf("line %d of %d", found.Line, lines)
			}
		}
		_ = parseJSON(b, 1)
		_ = parseLines(b, n%2 == 0)
		_ = parseXML(b)
	})
}

// A bug: a file with hard links was told as one place, though its other names keep the value
// when it is replaced.
func TestHardLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.env"), "GITHUB_TOKEN="+token(1)+"\n")
	write(t, filepath.Join(dir, "b.env"), "GITHUB_TOKEN="+token(2)+"\n")
	for n := range 2 {
		if err := os.Link(filepath.Join(dir, "a.env"), filepath.Join(t.TempDir(), strconv.Itoa(n))); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range scanDir(t, dir, Options{}).Findings {
		if linked := strings.HasSuffix(f.File, "a.env"); linked != strings.Contains(f.Reason, "2 other names of the file (hard links) keep it") || linked != (f.Exposure.Links == 2) {
			t.Errorf("%s: %s", f.File, f.Reason)
		}
	}
}

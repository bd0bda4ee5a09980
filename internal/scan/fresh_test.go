package scan

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Issue 8, threats.md P2: a folder called like a key showed it in every report, in the
// baseline and in the message that it does not exist, though no file holds it.
func TestKeyOnlyInPath(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, token(1), ".env"), "DB_PASSWORD=kT4vvd!9QmZr\n")
	write(t, filepath.Join(dir, "a.json"), `{"`+token(2)+`": {"password": "kT4vvd!9QmZx"}}`)
	r := scanDir(t, dir, Options{})
	if len(r.Findings) < 2 {
		t.Fatalf("%d findings", len(r.Findings))
	}
	base := NewBaseline(r.Findings, dir)
	var out bytes.Buffer
	_ = json.NewEncoder(&out).Encode(r)
	_ = json.NewEncoder(&out).Encode(SARIF(r, dir, "1"))
	_ = HTML(&out, r, time.Now())
	_ = json.NewEncoder(&out).Encode(base)
	_, err := Run(t.Context(), Options{Roots: []string{filepath.Join(dir, "none", token(3))}})
	if err == nil {
		t.Fatal("a root that does not exist was read")
	}
	text := out.String() + err.Error()
	for n := 1; n <= 3; n++ {
		if strings.Contains(text, token(n)[4:]) {
			t.Errorf("key %d is shown", n)
		}
	}
	b, _ := json.Marshal(base)
	again, err := ReadBaseline(b)
	if err != nil {
		t.Fatal(err)
	}
	if r := scanDir(t, dir, Options{Baseline: again}); len(r.Findings) != 0 {
		t.Errorf("%d findings are not accepted by their own baseline", len(r.Findings))
	}
}

// Issue 8: a pipe that was named was called clean.
func TestNamedPipe(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{name, "/dev/null"} {
		if _, err := Run(t.Context(), Options{Roots: []string{root}}); err == nil || !strings.Contains(err.Error(), "neither a file nor a folder") {
			t.Errorf("%s: %v", root, err)
		}
	}
}

// Issue 8: a key tells whose it is by its form and the name beside it.
func TestWhoseKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	body := token(1)[4:]
	write(t, filepath.Join(dir, ".env"), "WORKOS_API_KEY=sk_live_"+body+"\nVAULT_TOKEN=hvs."+body+"\nSTRIPE_KEY=sk_live_"+token(2)[4:]+"\n")
	want := map[int]string{1: "workos", 2: "vault", 3: "stripe"}
	for _, f := range scanDir(t, dir, Options{}).Findings {
		if f.Provider != want[f.Line] {
			t.Errorf("line %d: %s, want %s", f.Line, f.Provider, want[f.Line])
		}
		delete(want, f.Line)
	}
	if len(want) > 0 {
		t.Errorf("missed %v", want)
	}
}

// Issue 8: passwords that people make are found under names that tell, and what a default
// is stays one.
func TestPasswordsOfPeople(t *testing.T) {
	t.Parallel()
	for text, file := range map[string]string{
		"DB_PASSWORD=Admin123!\n": ".env", "ADMIN_PASSWORD=changeme-Prod1\n": ".env", "KEY_PASSPHRASE=\"copper lantern ribbon otter\"\n": ".env",
		"db_password = \"Rhubarb7pie\"\n": "a.py", "const dbPassword = \"Rhubarb7pie\";\n": "a.js",
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, file), text)
		if r := scanDir(t, dir, Options{}); len(r.Findings) != 1 {
			t.Errorf("%q: %d findings", text, len(r.Findings))
		}
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, ".env"), "A_PASSWORD=admin123\nB_PASSWORD=changeme\nC_PASSWORD=\"enter your own password here\"\nD_PASSWORD=change-me-please\n")
	if r := scanDir(t, dir, Options{}); len(r.Findings) != 0 {
		t.Errorf("%d defaults are called passwords", len(r.Findings))
	}
}

// Issue 8: settings in a folder of caches are read, what was fetched into it is not.
func TestSettingsBesideCaches(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "corp", ".m2", "settings.xml"), "<settings><servers><server><id>a</id><password>kT4vvd!9QmZr</password></server></servers></settings>")
	write(t, filepath.Join(dir, "corp", ".m2", "repository", "a", ".env"), "GITHUB_TOKEN="+token(1)+"\n")
	got := filesOf(scanDir(t, dir, Options{}), dir)
	if len(got) != 1 || got[0] != filepath.Join("corp", ".m2", "settings.xml") {
		t.Errorf("found in %v", got)
	}
}

// Issue 8: the history is also what commits and annotated tags say.
func TestMessages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, args := range [][]string{
		{"init", "-q", "-b", "main"}, {"commit", "-q", "--allow-empty", "-m", "try it\n\nwith " + token(1)}, {"tag", "-a", "v1", "-m", "deployed with " + token(2)},
	} {
		gitIn(t, dir, args...)
	}
	head := gitIn(t, dir, "rev-parse", "HEAD")
	r := scanDir(t, dir, Options{Git: true})
	if len(r.Findings) != 2 {
		t.Fatalf("%d findings", len(r.Findings))
	}
	commits := r.Findings[0].Commit + " " + r.Findings[1].Commit
	if !strings.Contains(commits, head) {
		t.Errorf("the commits are %s", commits)
	}
}

// A bug: below a folder that is called .git a file was taken for the message of a commit by
// its name, and its finding named the blob instead of the commit.
func TestFileIsNoMessage(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), ".git", "tree")
	write(t, filepath.Join(dir, "commit message.txt"), "GITHUB_TOKEN="+token(1)+"\n")
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "-A"}, {"commit", "-qm", "one"}, {"rm", "-q", "commit message.txt"}} {
		gitIn(t, dir, args...)
	}
	head := gitIn(t, dir, "rev-parse", "HEAD")
	rules, err := loadRules()
	if err != nil {
		t.Fatal(err)
	}
	s := &scanner{rules: rules, jobs: make(chan job), opt: Options{Key: []byte("k")}}
	s.history(t.Context(), dir)
	if len(s.found) != 1 || s.found[0].Commit != head {
		t.Errorf("found %+v, want commit %s", s.found, head)
	}
}

// docs/scan.md names whom --verify asks, and nobody else.
func TestDocumentedQuestions(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "scan.md"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for p := range questions {
		names = append(names, providerName(p))
	}
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) })
	want := "It knows " + strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1] + "."
	if !strings.Contains(strings.Join(strings.Fields(string(doc)), " "), want) {
		t.Errorf("docs/scan.md does not say: %s", want)
	}
}

// A key of which chance made no digit was taken for words: one of a thousand of GitHub's.
func TestAKeyWithoutADigit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key := "gh" + "p_FHjLKimwdIutrijDwaVupWKYHRWyTrVPIuzQ"
	if err := os.WriteFile(filepath.Join(dir, "a.txt"), []byte("GITHUB_TOKEN="+key+"\nname=theQuickBrownFoxJumpsOverTheLazyDogAgainAndAgain\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), Options{Roots: []string{dir}, OS: "linux"})
	if err != nil || len(r.Findings) != 1 || r.Findings[0].Kind != "github-pat" {
		t.Errorf("%v: %+v", err, r)
	}
}

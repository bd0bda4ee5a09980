package scan

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// repository makes one whose history holds the n-th token, and whose files no longer do.
func repository(t *testing.T, dir string, n int) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	gitIn(t, dir, "init", "-q", "-b", "main")
	write(t, filepath.Join(dir, "app.env"), "GITHUB_TOKEN="+token(n)+"\n")
	gitIn(t, dir, "add", "-A")
	gitIn(t, dir, "commit", "-qm", "one")
	write(t, filepath.Join(dir, "app.env"), "GITHUB_TOKEN=$TOKEN\n")
	gitIn(t, dir, "commit", "-qam", "two")
}

// inHistories are the repositories, by their path below a folder, in whose history a scan
// found something, once for each finding.
func inHistories(t *testing.T, r *Report, below string) (list []string) {
	t.Helper()
	for _, f := range r.Findings {
		rel, err := filepath.Rel(below, filepath.Dir(f.File))
		if f.Commit == "" || err != nil {
			t.Errorf("%s has no commit (%v)", f.File, err)
		}
		list = append(list, filepath.ToSlash(rel))
	}
	slices.Sort(list)
	return list
}

// A folder of repositories is the usual one to scan: the history of each below it is read
// once, of bare ones too, and of a work tree whose repository lies elsewhere. threats.md P2.
func TestHistoryOfRepositoriesBelow(t *testing.T) {
	t.Parallel()
	dir, elsewhere := t.TempDir(), t.TempDir()
	repository(t, filepath.Join(dir, "one"), 1)
	repository(t, filepath.Join(dir, "in", "two"), 2)
	repository(t, filepath.Join(elsewhere, "three"), 3)
	repository(t, filepath.Join(elsewhere, "four"), 4)
	gitIn(t, elsewhere, "clone", "-q", "--bare", filepath.Join(elsewhere, "three"), filepath.Join(dir, "three.git"))
	gitIn(t, filepath.Join(elsewhere, "four"), "worktree", "add", "-q", "-b", "side", filepath.Join(dir, "tree"))
	gitIn(t, filepath.Join(dir, "one"), "worktree", "add", "-q", "-b", "side", filepath.Join(dir, "same"))
	r := scanDir(t, dir, Options{Git: true, Roots: []string{filepath.Join(dir, "one")}})
	got := inHistories(t, r, dir)
	for i, g := range got { // whichever work tree of it was met first
		if g == "same" {
			got[i] = "one"
		}
	}
	slices.Sort(got)
	if want := []string{"in/two", "one", "three.git", "tree"}; !slices.Equal(got, want) || r.Repositories == nil || *r.Repositories != 4 {
		t.Errorf("found in %v, want %v; repositories %v", got, want, r.Repositories)
	}
}

// The projects that agents know are looked into when the home folder is scanned.
func TestHistoryOfKnownProjects(t *testing.T) {
	t.Parallel()
	home, work := t.TempDir(), t.TempDir()
	repository(t, filepath.Join(work, "app"), 1)
	list, err := json.Marshal(map[string]any{"projects": map[string]any{filepath.Join(work, "app"): map[string]any{}, filepath.Join(work, "gone"): map[string]any{}}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(home, ".claude.json"), string(list))
	r, err := Run(t.Context(), Options{Home: home, OS: "linux", Git: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := inHistories(t, r, work); !slices.Equal(got, []string{"app"}) || len(r.Skipped) > 0 {
		t.Errorf("found in %v, skipped %v", got, r.Skipped)
	}
}

// What git does not open is told, and its files are not read as the history of the
// repository above it. A scan that met no repository says that it read none.
func TestHistoryOfNone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := scanDir(t, dir, Options{Git: true})
	b, err := json.Marshal(r)
	if err != nil || !strings.Contains(string(b), `"repositories":0`) || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "no history") {
		t.Errorf("%v: %s", err, b)
	}
	if r = scanDir(t, dir, Options{}); r.Repositories != nil {
		t.Error("a number of repositories without looking for them")
	}
	repository(t, dir, 1)
	broken := filepath.Join(dir, "sub")
	if err := os.MkdirAll(filepath.Join(broken, ".git"), 0o755); err != nil {
		t.Fatal(err)
	}
	r = scanDir(t, broken, Options{Git: true})
	if len(r.Findings) != 0 || r.Repositories == nil || *r.Repositories != 0 || len(r.Skipped) != 1 {
		t.Errorf("%d findings, repositories %v, skipped %v", len(r.Findings), r.Repositories, r.Skipped)
	}
}

// A bug: a repository made the scan wait for ever, with a FIFO where git reads, or with a
// name that no line holds. Its history counts as not read.
func TestRepositoryThatMakesGitWait(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo, long := filepath.Join(dir, "fifo"), filepath.Join(dir, "long")
	repository(t, fifo, 1)
	repository(t, long, 2)
	blob := strings.TrimSpace(gitIn(t, long, "rev-parse", "HEAD:"+strings.TrimSpace(strings.Split(gitIn(t, long, "ls-tree", "-r", "--name-only", "HEAD"), "\n")[0])))
	mktree := exec.Command("git", "-C", long, "mktree", "-z")
	mktree.Stdin = strings.NewReader("100644 blob " + blob + "\t" + strings.Repeat("a", 1200<<10) + "\x00")
	tree, err := mktree.Output()
	if err != nil {
		t.Fatal(err)
	}
	commit := strings.TrimSpace(gitIn(t, long, "commit-tree", "-m", "long", strings.TrimSpace(string(tree))))
	gitIn(t, long, "update-ref", "refs/heads/long", commit)
	if err := os.Remove(filepath.Join(fifo, ".git", "HEAD")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(fifo, ".git", "HEAD"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := scanDir(t, dir, Options{Git: true})
	if len(r.Skipped) < 2 {
		t.Errorf("not read: %+v", r.Skipped)
	}
}

// A bug: git was given a time for its short answers only, and a FIFO that it reads for a long
// one held the scan for ever.
func TestRepositoryThatMakesGitWaitAmidAnAnswer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	repository(t, dir, 1)
	for _, name := range []string{filepath.Join(".git", "packed-refs"), ".mailmap"} {
		if err := syscall.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := scanDir(t, dir, Options{Git: true})
	if len(r.Skipped) != 1 || r.Complete {
		t.Errorf("complete %t, skipped %+v", r.Complete, r.Skipped)
	}
	if err := os.Remove(filepath.Join(dir, ".git", "packed-refs")); err != nil {
		t.Fatal(err)
	}
	if r = scanDir(t, dir, Options{Git: true}); len(r.Findings) != 1 || len(r.Skipped) > 0 {
		t.Errorf("%d findings, skipped %+v", len(r.Findings), r.Skipped)
	}
}

// A bug: a version of a file that git could not give was passed over in silence.
func TestHistoryThatLacksAVersion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	repository(t, dir, 1)
	blob := strings.TrimSpace(gitIn(t, dir, "rev-parse", "HEAD~1:app.env"))
	damaged := filepath.Join(dir, ".git", "objects", blob[:2], blob[2:])
	if err := os.Remove(damaged); err != nil { // git makes it read-only
		t.Fatal(err)
	}
	write(t, damaged, "damaged")
	r := scanDir(t, dir, Options{Git: true})
	if len(r.Findings) != 0 || len(r.Skipped) != 1 || r.Complete {
		t.Errorf("%d findings, complete %t, skipped %+v", len(r.Findings), r.Complete, r.Skipped)
	}
}

// A bug: a key that a file has had through ten versions was eleven findings.
func TestOneFindingOfManyVersions(t *testing.T) {
	t.Parallel()
	for _, still := range []bool{true, false} {
		dir := t.TempDir()
		gitIn(t, dir, "init", "-q", "-b", "main")
		for n := range 4 {
			write(t, filepath.Join(dir, "sub", "app.env"), strings.Repeat("A=1\n", n)+"GITHUB_TOKEN="+token(1)+"\n")
			gitIn(t, dir, "add", "-A")
			gitIn(t, dir, "commit", "-qm", "another")
		}
		oldest := gitIn(t, dir, "rev-list", "--max-parents=0", "HEAD")
		if !still {
			gitIn(t, dir, "rm", "-q", "sub/app.env")
			gitIn(t, dir, "commit", "-qm", "gone")
		}
		write(t, filepath.Join(dir, "other.env"), "GITHUB_TOKEN="+token(1)+"\n") // another place stays one
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(dir, link); err != nil {
			t.Fatal(err)
		}
		r := scanDir(t, link, Options{Git: true})
		if len(r.Findings) != 2 {
			t.Fatalf("%d findings, still there: %t", len(r.Findings), still)
		}
		i := slices.IndexFunc(r.Findings, func(f Finding) bool { return len(f.Versions) > 0 })
		if i < 0 {
			t.Fatal("no versions are told")
		}
		f := r.Findings[i]
		want := map[bool]int{true: 4, false: 3}[still]
		if len(f.Versions) != want || f.Copies != 2 || !f.Exposure.Committed || f.Line != map[bool]int{true: 4, false: 1}[still] || !still && f.Commit != oldest || still && f.Commit != "" {
			t.Errorf("still there: %t: %d versions, %d copies, line %d, commit %q, %+v", still, len(f.Versions), f.Copies, f.Line, f.Commit, f.Exposure)
		}
	}
}

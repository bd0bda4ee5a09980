package scan

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// git runs git so that nothing of the repository's own settings is executed: no pager,
// hook, file monitor, filter, external diff or fetch. All that is asked of it is which
// objects there are and what they hold.
func git(ctx context.Context, dir string, args ...string) *exec.Cmd {
	args = append([]string{
		"--no-pager", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=" + os.DevNull, "-c", "log.showSignature=false", "-c", "protocol.allow=never", "-c", "core.quotePath=false",
	}, args...)
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.WaitDelay = time.Second // for what it has open when it is stopped
	// A hook of git has variables that name its own repository, whichever folder is meant.
	// And what is no repository is not taken for a part of the one above it.
	cmd.Env = slices.DeleteFunc(cmd.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case "GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_CEILING_DIRECTORIES":
			return true
		}
		return false
	})
	cmd.Env = append(cmd.Env, "GIT_NO_LAZY_FETCH=1", "GIT_TERMINAL_PROMPT=0", "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
	return cmd
}

// gitPatience is how long git may take for a short answer, and may say nothing amid a long
// one. A repository can make it wait for ever: with a FIFO in the place of a file that it
// reads.
const gitPatience = 20 * time.Second

// answer is a short answer of git.
func answer(ctx context.Context, dir string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, gitPatience)
	defer cancel()
	return git(ctx, dir, args...).Output()
}

// talking is a git whose answer is read as it comes.
type talking struct {
	cmd  *exec.Cmd
	out  io.Reader
	stop context.CancelFunc
}

// start starts it, and gives it in to read. The caller calls end.
func start(ctx context.Context, dir string, in io.Reader, args ...string) (*talking, error) {
	ctx, stop := context.WithCancel(ctx)
	t := &talking{cmd: git(ctx, dir, args...), stop: stop}
	t.cmd.Stdin = in
	var err error
	if t.out, err = t.cmd.StdoutPipe(); err == nil {
		err = t.cmd.Start()
	}
	if err != nil {
		stop()
		return nil, err
	}
	return t, nil
}

// Read stops a git that is silent for too long. Only the time in which it is waited for
// counts, and not what is done with what it said.
func (t *talking) Read(b []byte) (int, error) {
	silent := time.AfterFunc(gitPatience, t.stop)
	defer silent.Stop()
	return t.out.Read(b)
}

// end waits for its end.
func (t *talking) end() error {
	defer t.stop()
	return t.cmd.Wait()
}

// maxRepositories bounds how many histories one run reads.
const maxRepositories = 1000

// histories reads the history of the repositories that the roots lie in, and of those that
// the walk met below them and in known projects, each once: work trees share one.
func (s *scanner) histories(ctx context.Context, met []string) {
	var list []string
	for _, root := range s.opt.Roots {
		if dir, err := filepath.Abs(root); err == nil {
			if info, err := os.Stat(dir); err == nil && !info.IsDir() {
				dir = filepath.Dir(dir)
			}
			list = append(list, repositoryOf(dir))
		}
	}
	tried, seen := map[string]bool{"": true}, map[string]bool{}
	n := 0
	s.repositories = &n
	for _, dir := range append(list, met...) {
		if tried[dir] || ctx.Err() != nil {
			continue
		}
		tried[dir] = true
		own, err := commonFolder(ctx, dir)
		switch {
		case err != nil && ctx.Err() == nil:
			s.skip(dir, "git does not open it, so that its history was not read")
		case err != nil || seen[own]:
		case n == maxRepositories:
			s.skip(dir, fmt.Sprintf("its history was not read: %d repositories were read before it", n))
		default:
			seen[own] = true
			n++
			s.history(ctx, dir)
		}
	}
}

// commonFolder is where git keeps what all work trees of a repository share.
func commonFolder(ctx context.Context, dir string) (string, error) {
	out, err := answer(ctx, dir, "rev-parse", "--git-common-dir")
	if err != nil {
		return "", err
	}
	own := strings.TrimRight(string(out), "\r\n")
	if !filepath.IsAbs(own) {
		own = filepath.Join(dir, own)
	}
	return filepath.EvalSymlinks(own)
}

// bare reports whether a folder is a repository without a work tree, by what git itself
// goes by.
func bare(dir string) bool {
	head, err := os.Lstat(filepath.Join(dir, "HEAD"))
	if err != nil || head.IsDir() {
		return false
	}
	for _, name := range []string{"objects", "refs"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || !info.IsDir() {
			return false
		}
	}
	return true
}

// repositoryOf is the work tree that a folder belongs to; empty: none.
func repositoryOf(dir string) string {
	for {
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			return ""
		}
		dir = up
	}
}

// history reads every version of every file once, and names the commit that brought
// what it found.
func (s *scanner) history(ctx context.Context, repo string) {
	names := map[string]string{} // of a blob
	list, err := start(ctx, repo, nil, "rev-list", "--objects", "--topo-order", "--all", "--reflog")
	if err != nil {
		s.skip(repo, "git did not start")
		return
	}
	lines := bufio.NewScanner(list)
	lines.Buffer(nil, 1<<20)
	var ids bytes.Buffer
	for lines.Scan() {
		id, name, ok := strings.Cut(lines.Text(), " ")
		if !ok { // a commit: its message is read
			ids.WriteString(id + "\n")
		} else if !dull[strings.ToLower(filepath.Ext(name))] && !elsewhere(name) {
			names[id] = name
			ids.WriteString(id + "\n")
		}
	}
	broken := lines.Err() // a name that no line holds
	if broken != nil {
		list.stop() // git waits for us to read on
	}
	if err := list.end(); (err != nil || broken != nil) && ctx.Err() == nil {
		s.skip(repo, "git could not list the history")
		return
	}
	before := len(s.found)
	commits := map[string]string{} // by what holds a finding: a blob, or a message, which is its own
	s.blobs(ctx, repo, names, &ids, commits)
	pushed := map[string]bool{} // by commit
	for i := range s.found[before:] {
		f := &s.found[before+i]
		commit, ok := commits[f.Commit]
		if !ok {
			b, _ := git(ctx, repo, "log", "--all", "--reflog", "--no-mailmap", "--no-ext-diff", "--no-textconv", "--format=%H", "--find-object="+f.Commit, "--topo-order", "--reverse").Output()
			first, _, _ := strings.Cut(string(b), "\n")
			commit = or(first, f.Commit)
			commits[f.Commit] = commit
		}
		if _, ok := pushed[commit]; !ok {
			pushed[commit] = pushedCommit(ctx, repo, commit)
		}
		f.Commit = commit
		f.Exposure.Committed, f.Exposure.Pushed = true, pushed[commit]
	}
}

func elsewhere(name string) bool {
	for _, p := range strings.Split(name, "/") {
		if others[p] {
			return true
		}
	}
	return false
}

func pushedCommit(ctx context.Context, repo, commit string) bool {
	b, err := git(ctx, repo, "for-each-ref", "--count=1", "--contains", commit, "--format=%(refname)", "refs/remotes").Output()
	return err == nil && len(bytes.TrimSpace(b)) > 0
}

// blobs reads the objects that are named, and puts those of messages in which something
// was found into commits.
func (s *scanner) blobs(ctx context.Context, repo string, names map[string]string, ids io.Reader, commits map[string]string) {
	cat, err := start(ctx, repo, ids, "cat-file", "--batch")
	if err != nil {
		s.skip(repo, "git did not start")
		return
	}
	in := bufio.NewReaderSize(cat, 1<<20)
	r := s.newReader()
	lacks := false
	for ctx.Err() == nil {
		head, err := in.ReadString('\n')
		if err != nil {
			break
		}
		id, rest, _ := strings.Cut(strings.TrimSpace(head), " ")
		kind, size, ok := strings.Cut(rest, " ")
		n, err := strconv.ParseInt(size, 10, 64)
		if !ok || err != nil {
			lacks = true // it is missing, or damaged
			continue
		}
		body := io.LimitReader(in, n)
		switch {
		case kind == "commit" || kind == "tag":
			if s.message(ctx, r, repo, kind, id, body, n) {
				commits[id] = id
			}
		case kind == "blob" && names[id] != "":
			s.blob(ctx, r, filepath.Join(repo, filepath.FromSlash(names[id])), id, body, n)
		}
		_, _ = io.Copy(io.Discard, body)
		_, _ = in.Discard(1)
	}
	if err := cat.end(); (err != nil || lacks) && ctx.Err() == nil {
		s.skip(repo, "git did not give all of its history")
	}
}

// message reads what a commit or an annotated tag says, and reports whether that holds
// something.
func (s *scanner) message(ctx context.Context, r *reader, repo, kind, id string, body io.Reader, size int64) bool {
	text, err := io.ReadAll(io.LimitReader(body, min(size, piece)))
	if err != nil {
		return false
	}
	_, text, _ = bytes.Cut(text, []byte("\n\n")) // the head names objects and people
	d := r.doc(filepath.Join(repo, ".git", kind+" message.txt"))
	d.commit, d.ended = id, ctx.Err
	func() {
		defer s.hand(d)
		d.whole(text)
	}()
	return len(d.found) > 0
}

func (s *scanner) blob(ctx context.Context, r *reader, shown, id string, body io.Reader, size int64) {
	d := r.doc(shown)
	d.commit, d.ended = id, ctx.Err
	defer s.hand(d)
	n, _ := r.content(ctx, d, body, size)
	s.count(n)
}

// tracked is a file in a work tree, with what was found in it.
type tracked struct {
	path  string // below the work tree, with slashes
	found []int  // places in the list
}

// committed looks up which findings in work trees are also in the repository's current
// commit, and in what was pushed.
func committed(ctx context.Context, list []Finding) {
	byRepo, files := map[string][]*tracked{}, map[string]*tracked{}
	for i := range list {
		if list[i].Commit != "" || strings.HasPrefix(list[i].File, "process ") {
			continue
		}
		file, ok := files[list[i].File]
		if !ok {
			if repo, path := inWorkTree(list[i].File); repo != "" {
				file = &tracked{path: path}
				byRepo[repo] = append(byRepo[repo], file)
			}
			files[list[i].File] = file // nil: it is in none
		}
		if file != nil {
			file.found = append(file.found, i)
		}
	}
	for repo, files := range byRepo {
		refs := []string{"HEAD"}
		b, err := answer(ctx, repo, "for-each-ref", "--count=8", "--sort=-committerdate", "--format=%(refname)", "refs/remotes")
		if err == nil { // what git does not answer in time, it does not answer
			inTrees(ctx, repo, append(refs, strings.Fields(string(b))...), list, files)
		}
	}
}

// inWorkTree is the work tree that a file lies in, and its path there; empty: none.
func inWorkTree(file string) (repo, path string) {
	abs, err := filepath.Abs(file)
	if err != nil {
		return "", ""
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", ""
	}
	repo = repositoryOf(dir)
	if repo == "" {
		return "", ""
	}
	path, err = filepath.Rel(repo, filepath.Join(dir, filepath.Base(abs)))
	if err != nil || strings.Contains(path, "\n") {
		return "", ""
	}
	return repo, filepath.ToSlash(path)
}

// inTrees asks one process of git for the files at each reference.
func inTrees(ctx context.Context, repo string, refs []string, list []Finding, files []*tracked) {
	type question struct {
		file *tracked
		ref  int
	}
	var asked []question
	var ids bytes.Buffer
	for _, f := range files {
		for r, ref := range refs {
			fmt.Fprintf(&ids, "%s:%s\n", ref, f.path)
			asked = append(asked, question{f, r})
		}
	}
	cat, err := start(ctx, repo, &ids, "cat-file", "--batch")
	if err != nil {
		return
	}
	in := bufio.NewReaderSize(cat, 1<<16)
	for _, q := range asked {
		head, err := in.ReadString('\n')
		if err != nil {
			break
		}
		parts := strings.Fields(head)
		if len(parts) < 3 || parts[len(parts)-1] == "missing" {
			continue
		}
		n, err := strconv.ParseInt(parts[len(parts)-1], 10, 64)
		if err != nil {
			continue
		}
		body, _ := io.ReadAll(io.LimitReader(in, min(n, wholeMax)))
		_, _ = io.CopyN(io.Discard, in, n-int64(len(body))+1)
		for _, i := range q.file.found {
			switch e := &list[i].Exposure; {
			case !holds(body, list[i].Value):
			case q.ref == 0:
				e.Committed = true
			default:
				e.Pushed = true
			}
		}
	}
	_ = cat.end()
}

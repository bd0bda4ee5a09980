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
	"strconv"
	"strings"
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
	cmd.Env = append(cmd.Environ(), "GIT_NO_LAZY_FETCH=1", "GIT_TERMINAL_PROMPT=0")
	return cmd
}

// repositories are those that the roots lie in or are.
func repositories(roots []string) (list []string) {
	seen := map[string]bool{}
	for _, root := range roots {
		dir, err := filepath.Abs(root)
		if err != nil {
			continue
		}
		if info, err := os.Stat(dir); err == nil && !info.IsDir() {
			dir = filepath.Dir(dir)
		}
		if repo := repositoryOf(dir); repo != "" && !seen[repo] {
			seen[repo] = true
			list = append(list, repo)
		}
	}
	return list
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
	list := git(ctx, repo, "rev-list", "--objects", "--all", "--reflog")
	out, err := list.StdoutPipe()
	if err == nil {
		err = list.Start()
	}
	if err != nil {
		s.skip(repo, "git did not start")
		return
	}
	lines := bufio.NewScanner(out)
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
	if err := list.Wait(); err != nil && ctx.Err() == nil {
		s.skip(repo, "git could not list the history")
		return
	}
	before := len(s.found)
	s.blobs(ctx, repo, names, &ids)
	commits := map[string]string{}
	for i := range s.found[before:] {
		f := &s.found[before+i]
		blob := f.Commit
		if _, ok := commits[blob]; !ok && strings.HasSuffix(f.File, " message.txt") && strings.Contains(f.File, string(filepath.Separator)+".git"+string(filepath.Separator)) {
			commits[blob] = blob
		} else if !ok {
			b, _ := git(ctx, repo, "log", "--all", "--reflog", "--no-ext-diff", "--no-textconv", "--format=%H", "--find-object="+blob, "--reverse").Output()
			first, _, _ := strings.Cut(string(b), "\n")
			commits[blob] = or(first, blob)
		}
		f.Commit = commits[blob]
		f.Exposure.Committed = true
		f.Exposure.Pushed = pushedCommit(ctx, repo, f.Commit)
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

// blobs reads the objects that are named.
func (s *scanner) blobs(ctx context.Context, repo string, names map[string]string, ids io.Reader) {
	cat := git(ctx, repo, "cat-file", "--batch")
	cat.Stdin = ids
	out, err := cat.StdoutPipe()
	if err == nil {
		err = cat.Start()
	}
	if err != nil {
		s.skip(repo, "git did not start")
		return
	}
	in := bufio.NewReaderSize(out, 1<<20)
	r := s.newReader()
	for ctx.Err() == nil {
		head, err := in.ReadString('\n')
		if err != nil {
			break
		}
		id, rest, _ := strings.Cut(strings.TrimSpace(head), " ")
		kind, size, ok := strings.Cut(rest, " ")
		n, err := strconv.ParseInt(size, 10, 64)
		if !ok || err != nil {
			continue // missing
		}
		body := io.LimitReader(in, n)
		switch {
		case kind == "commit" || kind == "tag":
			s.message(ctx, r, repo, kind, id, body, n)
		case kind == "blob" && names[id] != "":
			s.blob(ctx, r, filepath.Join(repo, filepath.FromSlash(names[id])), id, body, n)
		}
		_, _ = io.Copy(io.Discard, body)
		_, _ = in.Discard(1)
	}
	_ = cat.Wait()
}

// message reads what a commit or an annotated tag says.
func (s *scanner) message(ctx context.Context, r *reader, repo, kind, id string, body io.Reader, size int64) {
	text, err := io.ReadAll(io.LimitReader(body, min(size, piece)))
	if err != nil {
		return
	}
	_, text, _ = bytes.Cut(text, []byte("\n\n")) // the head names objects and people
	d := r.doc(filepath.Join(repo, ".git", kind+" message.txt"))
	d.commit, d.ended = id, ctx.Err
	defer func() {
		if recover() != nil {
			s.skip(d.shown, "the reader failed on it")
		}
		s.add(d.found, d.accepted)
	}()
	d.whole(text)
}

func (s *scanner) blob(ctx context.Context, r *reader, shown, id string, body io.Reader, size int64) {
	d := r.doc(shown)
	d.commit, d.ended = id, ctx.Err
	defer func() {
		if recover() != nil {
			s.skip(shown, "the reader failed on a version of it")
		}
		if d.tired {
			s.skip(shown, tooDense)
		}
		s.add(d.found, d.accepted)
	}()
	n, _ := r.content(ctx, d, body, size)
	s.count(n)
}

// committed looks up which findings in work trees are also in the repository's current
// commit, and in what was pushed.
func committed(ctx context.Context, list []Finding) {
	byRepo := map[string][]int{}
	for i := range list {
		if list[i].Commit != "" || strings.HasPrefix(list[i].File, "process ") {
			continue
		}
		path, err := filepath.Abs(list[i].File)
		if err != nil {
			continue
		}
		if real, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
			if repo := repositoryOf(real); repo != "" {
				byRepo[repo] = append(byRepo[repo], i)
			}
		}
	}
	for repo, which := range byRepo {
		refs := []string{"HEAD"}
		b, _ := git(ctx, repo, "for-each-ref", "--count=8", "--sort=-committerdate", "--format=%(refname)", "refs/remotes").Output()
		refs = append(refs, strings.Fields(string(b))...)
		inTrees(ctx, repo, refs, list, which)
	}
}

// inTrees asks one process of git for the files of the findings at each reference.
func inTrees(ctx context.Context, repo string, refs []string, list []Finding, which []int) {
	type question struct{ at, ref int }
	var asked []question
	var ids bytes.Buffer
	for _, i := range which {
		path, _ := filepath.Abs(list[i].File)
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			continue
		}
		rel, err := filepath.Rel(repo, filepath.Join(dir, filepath.Base(path)))
		if err != nil || strings.ContainsAny(rel, "\n") {
			continue
		}
		for r, ref := range refs {
			fmt.Fprintf(&ids, "%s:%s\n", ref, filepath.ToSlash(rel))
			asked = append(asked, question{i, r})
		}
	}
	cat := git(ctx, repo, "cat-file", "--batch")
	cat.Stdin = &ids
	out, err := cat.StdoutPipe()
	if err != nil || cat.Start() != nil {
		return
	}
	in := bufio.NewReaderSize(out, 1<<16)
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
		if holds(body, list[q.at].Value) {
			if q.ref == 0 {
				list[q.at].Exposure.Committed = true
			} else {
				list[q.at].Exposure.Pushed = true
			}
		}
	}
	_ = cat.Wait()
}

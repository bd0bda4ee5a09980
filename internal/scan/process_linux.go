package scan

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// agentProcess matches the programs in which agents run, by the last part of a command.
var agentProcess = lazily(`(?i)(?:^|[\s/\\])(?:claude(?:-code)?|codex|gemini|cursor(?:-agent)?|windsurf|goosed?|opencode|crush|aider|amp|droid|qwen|copilot|q|kiro(?:-cli)?|continue|cline|openclaw|zed(?:-editor)?|lms|mcp[\w.-]*|[\w@./-]*mcp[\w./-]*server[\w.-]*|[\w@./-]*server-[\w-]+)(?:\.js|\.mjs|\.py|\.exe)?(?:\s|$)`)

// processes reads the environment and the arguments of agents that run as this user, and
// of what they started.
func (s *scanner) processes(ctx context.Context) {
	s.procs(ctx, "/proc")
}

func (s *scanner) procs(ctx context.Context, root string) {
	dirs, _ := filepath.Glob(filepath.Join(root, "[0-9]*"))
	r := s.newReader()
	for _, dir := range dirs {
		if ctx.Err() != nil {
			return
		}
		pid := filepath.Base(dir)
		if pid == strconv.Itoa(os.Getpid()) {
			continue
		}
		args, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || len(args) == 0 {
			continue
		}
		line := string(bytes.ReplaceAll(args, []byte{0}, []byte{' '}))
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if !agentProcess.MatchString(line[:min(len(line), 400)]) && !bytes.Contains(env, []byte("CLAUDECODE=")) && !bytes.Contains(env, []byte("GEMINI_CLI=")) && !bytes.Contains(env, []byte("CODEX_SANDBOX")) {
			continue
		}
		program, _ := os.ReadFile(filepath.Join(dir, "comm"))
		shown := fmt.Sprintf("process %s (%s)", pid, strings.TrimSpace(string(program)))
		if err != nil {
			s.skip(shown, reason(err))
			continue
		}
		s.process(r, shown, env, args)
	}
}

func (s *scanner) process(r *reader, shown string, env, args []byte) {
	d := r.doc(shown)
	defer s.hand(d)
	defer func() { // before it
		for i := range d.found {
			d.found[i].Exposure.Agent, d.found[i].Exposure.Readers = "given", "owner"
			d.found[i].Line = 0
		}
	}()
	n := &node{kind: object}
	vars := &node{kind: object, key: "env"}
	for i, kv := range bytes.Split(env, []byte{0}) {
		if name, v, ok := strings.Cut(string(kv), "="); ok {
			vars.inner = append(vars.inner, &node{kind: scalar, key: name, text: v, line: i + 1})
		}
	}
	list := &node{kind: list, key: "args"}
	for i, a := range bytes.Split(bytes.TrimRight(args, "\x00"), []byte{0}) {
		list.inner = append(list.inner, &node{kind: scalar, text: string(a), line: 100_000 + i})
	}
	n.inner = []*node{vars, list}
	d.tree(n, nil, 0)
	d.settle()
	s.count(int64(len(env) + len(args)))
}

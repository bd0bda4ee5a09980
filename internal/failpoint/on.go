//go:build failpoint

package failpoint

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Enabled reports whether this binary has failpoints.
const Enabled = true

// Hit does what is armed for name, at its turn: it kills the process, sleeps, or
// returns an error, which the caller must treat as the failure of its step.
func Hit(name string) error { return loaded().hit(name) }

// Names collects what a transaction does, for its hits. It belongs to one
// goroutine.
type Names struct{ all []string }

// Add names one thing that the transaction does, as "what part".
func (n *Names) Add(what, part string) {
	if name := what + " " + part; !slices.Contains(n.all, name) {
		n.all = append(n.all, name)
	}
}

// Hit is a hit of each name at this moment.
func (n *Names) Hit(moment string) error {
	if len(n.all) == 0 {
		return Hit(caller() + ": " + moment)
	}
	for _, name := range n.all {
		if err := Hit(name + ": " + moment); err != nil {
			return err
		}
	}
	return nil
}

// caller names the function that began a transaction which names nothing itself,
// such as "credential.takeFlow".
func caller() string {
	pc := make([]uintptr, 32)
	frames := runtime.CallersFrames(pc[:runtime.Callers(3, pc)])
	for {
		f, more := frames.Next()
		name := f.Function[strings.LastIndexByte(f.Function, '/')+1:]
		room, function, _ := strings.Cut(name, ".")
		if room != "failpoint" && room != "sqldb" || !more {
			if _, method, ok := strings.Cut(function, ")."); ok {
				function = method
			}
			function, _, _ = strings.Cut(function, ".") // of a closure, the function around it
			return room + "." + function
		}
	}
}

// point is what is armed for one name.
type point struct {
	action string
	pause  time.Duration
	turn   int // the hit at which it happens
	hits   int
}

type points struct {
	mu     sync.Mutex
	byName map[string]*point
	trace  *os.File
}

// loaded reads the environment. A mistake in it ends the process: a test that
// arms nothing would prove nothing.
var loaded = sync.OnceValue(func() *points {
	p, err := parse(os.Getenv("AMBIT_FAILPOINT"))
	if path := os.Getenv("AMBIT_FAILPOINT_TRACE"); err == nil && path != "" {
		p.trace, err = os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	}
	if err != nil {
		panic(err)
	}
	return p
})

func parse(spec string) (*points, error) {
	p := &points{byName: map[string]*point{}}
	for part := range strings.SplitSeq(spec, ";") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, action, ok := strings.Cut(part, "=")
		a := &point{turn: 1}
		var turn string
		a.action, turn, _ = strings.Cut(action, "@")
		var err error
		if turn != "" {
			a.turn, err = strconv.Atoi(turn)
		}
		if kind, pause, sleeps := strings.Cut(a.action, ":"); err == nil && sleeps && kind == "sleep" {
			a.action = kind
			a.pause, err = time.ParseDuration(pause)
		}
		known := a.action == "kill" || a.action == "error" || a.action == "sleep" && a.pause > 0
		if err != nil || !ok || name == "" || a.turn < 1 || !known {
			return nil, fmt.Errorf("AMBIT_FAILPOINT: %q is not name=action[@n]", part)
		}
		p.byName[name] = a
	}
	return p, nil
}

func (p *points) hit(name string) error {
	p.mu.Lock()
	if p.trace != nil {
		// One write a line, so that several processes may share the file.
		_, _ = p.trace.WriteString(name + "\n")
	}
	a := p.byName[name]
	if a != nil {
		a.hits++
	}
	now := a != nil && a.hits == a.turn
	p.mu.Unlock()
	if !now {
		return nil
	}
	switch a.action {
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal may take a moment; nothing may go on meanwhile
	case "sleep":
		time.Sleep(a.pause)
		return nil
	}
	return fmt.Errorf("failpoint %q", name)
}

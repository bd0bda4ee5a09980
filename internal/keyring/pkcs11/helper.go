package pkcs11

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/pkcs11/wire"
)

// The settings of the environment.
const (
	// EnvHelper is the path of the helper; default ambit-pkcs11 beside the server.
	EnvHelper = "AMBIT_PKCS11_HELPER"
	// EnvPass lists the variables that the helper gets for its library, beside
	// PATH, HOME and SOFTHSM2_CONF. It gets no others.
	EnvPass = "AMBIT_PKCS11_ENV"
)

const (
	maxPending = 64
	// stuckAfter is how long a call into the library may take before the helper is
	// ended. Nothing else ends a call into C.
	stuckAfter = 25 * time.Second
	minPause   = 200 * time.Millisecond // after a helper that died
	maxPause   = 10 * time.Second
	maxLine    = 300 // of what the helper complains
)

// helper keeps one helper process at most, and starts another when it dies.
type helper struct {
	target wire.Target
	path   string
	env    []string
	log    *slog.Logger

	mu     sync.Mutex
	child  *child
	starts int
	deaths int // since the last answer
	pause  time.Time
	closed bool
	badPIN os.FileInfo // of the file whose PIN was refused; nil: none was
}

func newHelper(t wire.Target, o keyring.Options) (*helper, error) {
	path := o.Getenv(EnvHelper)
	if path == "" {
		exe, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("finding the helper: %w", err)
		}
		path = filepath.Join(filepath.Dir(exe), "ambit-pkcs11")
	}
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || !filepath.IsAbs(path) {
		return nil, fault.New(fault.Invalid, "root_key_helper", "There is no ambit-pkcs11 at "+path+".").
			WithHint("Build it with cgo (docs/keys.md) and put it beside ambit, or name its full path in " + EnvHelper + ".").WithCause(err)
	}
	h := &helper{target: t, path: path, env: []string{}, log: o.Log()}
	for _, name := range append([]string{"PATH", "HOME", "SOFTHSM2_CONF"}, strings.FieldsFunc(o.Getenv(EnvPass), func(r rune) bool { return r == ',' || r == ' ' })...) {
		if v := o.Getenv(name); v != "" {
			h.env = append(h.env, name+"="+v)
		}
	}
	return h, nil
}

// ask puts one request to the helper.
func (h *helper) ask(ctx context.Context, r wire.Request) (wire.Answer, error) {
	if err := ctx.Err(); err != nil {
		return wire.Answer{}, err
	}
	if h.pinRefused() {
		return wire.Answer{Code: wire.CodePIN, Text: "the PIN was refused and is not tried again: put another one into " + h.target.PINFile}, nil
	}
	pin, _ := os.Stat(h.target.PINFile)
	c, err := h.running()
	if err != nil {
		return wire.Answer{}, err
	}
	if end, ok := ctx.Deadline(); ok {
		r.Millis = max(time.Until(end).Milliseconds(), 1)
	}
	answer, err := c.send(r)
	if err != nil {
		return wire.Answer{}, err
	}
	select {
	case a := <-answer:
		h.learn(c, a, pin)
		return a, nil
	case <-c.dead:
		select {
		case a := <-answer: // its last words
			return a, nil
		default:
			return wire.Answer{}, errors.New("the helper died")
		}
	case <-ctx.Done():
		return wire.Answer{}, fmt.Errorf("waiting for the helper: %w", ctx.Err())
	}
}

// learn resets the back-off, and remembers a PIN that was refused: most tokens
// lock themselves after a few.
func (h *helper) learn(c *child, a wire.Answer, pin os.FileInfo) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.child == c {
		h.deaths = 0
	}
	if a.Code == wire.CodePIN {
		h.badPIN = pin
	}
}

// pinRefused is whether the file still holds the PIN that was refused.
func (h *helper) pinRefused() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.badPIN == nil {
		return false
	}
	now, err := os.Stat(h.target.PINFile)
	if err == nil && os.SameFile(now, h.badPIN) && now.ModTime().Equal(h.badPIN.ModTime()) && now.Size() == h.badPIN.Size() {
		return true
	}
	h.badPIN = nil
	return false
}

// running gives a helper that runs. One that is stuck in its library is ended, so
// that the next one may do better.
func (h *helper) running() (*child, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errors.New("the keeper is closed")
	}
	if h.child != nil {
		select {
		case <-h.child.dead:
			h.child = nil
			h.pause = time.Now().Add(min(minPause<<min(h.deaths, 10), maxPause))
			h.deaths++
		default:
			if h.child.waitsFor() < stuckAfter {
				return h.child, nil
			}
			h.log.Warn("the helper for the HSM does not answer and is ended", "key", h.target.Object)
			h.child.kill()
			return nil, errors.New("the helper does not answer")
		}
	}
	if wait := time.Until(h.pause); wait > 0 {
		return nil, errors.New("the helper died and is started again soon")
	}
	c, err := h.start()
	if err != nil {
		h.pause = time.Now().Add(min(minPause<<min(h.deaths, 10), maxPause))
		h.deaths++
		return nil, fmt.Errorf("starting the helper: %w", err)
	}
	h.child = c
	h.starts++
	return c, nil
}

func (h *helper) close() error {
	h.mu.Lock()
	h.closed = true
	c := h.child
	h.mu.Unlock()
	if c == nil {
		return nil
	}
	_ = c.in.Close() // upon which it ends
	select {
	case <-c.dead:
	case <-time.After(2 * time.Second):
		c.kill()
		<-c.dead
	}
	return nil
}

// child is one run of the helper.
type child struct {
	cmd  *exec.Cmd
	dead chan struct{} // closed when it was waited for

	writing sync.Mutex
	in      io.WriteCloser

	mu      sync.Mutex
	last    uint64
	pending map[uint64]question
}

type question struct {
	answer chan wire.Answer
	since  time.Time
}

func (h *helper) start() (*child, error) {
	c := &child{cmd: exec.Command(h.path), dead: make(chan struct{}), pending: map[uint64]question{}}
	c.cmd.Env = h.env
	c.cmd.Dir = "/"
	c.cmd.WaitDelay = 2 * time.Second
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.cmd.Stderr = &complaints{log: h.log}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go c.listen(out)
	if err := wire.Write(c.in, wire.Request{Op: wire.OpTarget, Target: &h.target}); err != nil {
		c.kill()
		return nil, err
	}
	return c, nil
}

// listen takes answers until there are no more, and sees the process off.
func (c *child) listen(out io.Reader) {
	defer close(c.dead)
	for r := bufio.NewReader(out); ; {
		var a wire.Answer
		if err := wire.Read(r, &a); err != nil {
			break
		}
		c.mu.Lock()
		q, ok := c.pending[a.ID]
		delete(c.pending, a.ID)
		c.mu.Unlock()
		if !ok {
			break // it answers what nobody asked
		}
		q.answer <- a
	}
	c.kill()
	_ = c.cmd.Wait()
}

func (c *child) send(r wire.Request) (<-chan wire.Answer, error) {
	answer := make(chan wire.Answer, 1)
	c.mu.Lock()
	if len(c.pending) >= maxPending {
		c.mu.Unlock()
		return nil, errors.New("too many wait for the helper")
	}
	c.last++
	r.ID = c.last
	c.pending[r.ID] = question{answer, time.Now()}
	c.mu.Unlock()
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := wire.Write(c.in, r); err != nil {
		c.mu.Lock()
		delete(c.pending, r.ID)
		c.mu.Unlock()
		return nil, fmt.Errorf("asking the helper: %w", err)
	}
	return answer, nil
}

// waitsFor is how long the oldest question has not been answered.
func (c *child) waitsFor() (longest time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, q := range c.pending {
		longest = max(longest, time.Since(q.since))
	}
	return longest
}

func (c *child) kill() { _ = c.cmd.Process.Kill() }

// complaints logs what the helper and its library write, in short lines.
type complaints struct{ log *slog.Logger }

func (c *complaints) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		line = strings.TrimSpace(strings.ToValidUTF8(line, ""))
		if line != "" {
			c.log.Warn("the helper for the HSM says", "text", line[:min(len(line), maxLine)])
		}
	}
	return len(p), nil
}

package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/ambit-dev/ambit/internal/disk"
	"github.com/ambit-dev/ambit/internal/fault"
)

// maxInput bounds a secret or a record that is read from a file or a pipe.
const maxInput = 1 << 20

// terminalIn gives the terminal that the person types at, if there is one.
func (c *command) terminalIn() (*os.File, bool) {
	f, ok := c.stdin.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// awaiting runs a read that cannot be interrupted, until ctx ends. The read
// itself is given up: the process ends soon after.
func awaiting[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := read()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		var zero T
		return zero, ctx.Err()
	}
}

// confirm asks before something that cannot be taken back. Where nobody can be
// asked it refuses, and names the flag.
func (c *command) confirm(ctx context.Context, yes bool, question string) error {
	return c.ask(ctx, yes, question, "this cannot be undone")
}

// ask is confirm for what can be taken back in part: why says what cannot.
func (c *command) ask(ctx context.Context, yes bool, question, why string) error {
	if yes {
		return nil
	}
	if _, ok := c.terminalIn(); !ok {
		return usageError{errors.New(why + ", and nobody can be asked here: add --yes to do it")}
	}
	fmt.Fprintf(c.stderr, "%s [y/N] ", plain(question))
	answer, err := c.line(ctx)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return fault.New(fault.Conflict, "not_confirmed", "Nothing was changed.")
}

// line reads one line that a person types.
func (c *command) line(ctx context.Context) (string, error) {
	return awaiting(ctx, func() (string, error) { return bufio.NewReader(c.stdin).ReadString('\n') })
}

// readSecret takes a secret from a pipe, or from a person who does not see it
// typed. It never comes from the command line, which other users of the machine
// and the shell's history can read.
func (c *command) readSecret(ctx context.Context, what string) (string, error) {
	var text []byte
	var err error
	if f, ok := c.terminalIn(); ok {
		text, err = c.askHidden(ctx, f, what)
	} else {
		text, err = awaiting(ctx, func() ([]byte, error) { return readAll(c.stdin) })
		text = []byte(strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"))
	}
	if err != nil {
		return "", err
	}
	return checkSecret(text, what)
}

func checkSecret(text []byte, what string) (string, error) {
	switch {
	case len(text) == 0:
		return "", usageError{fmt.Errorf("%s is empty: give it on standard input", what)}
	case !utf8.Valid(text):
		return "", fault.New(fault.Invalid, "not_text", what+" is not text.").WithHint("Encode it first, for example with base64.")
	}
	return string(text), nil
}

func (c *command) askHidden(ctx context.Context, f *os.File, what string) ([]byte, error) {
	fd := int(f.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("reading from the terminal: %w", err)
	}
	fmt.Fprintf(c.stderr, "%s: ", plain(what))
	text, err := awaiting(ctx, func() ([]byte, error) { return term.ReadPassword(fd) })
	fmt.Fprintln(c.stderr)
	if err != nil {
		_ = term.Restore(fd, state) // an interrupted read leaves the echo off
		return nil, fmt.Errorf("reading from the terminal: %w", err)
	}
	return text, nil
}

func readAll(r io.Reader) ([]byte, error) { return readUpTo(r, maxInput) }

func readUpTo(r io.Reader, limit int) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("reading the input: %w", err)
	}
	if len(text) > limit {
		return nil, fault.New(fault.TooLarge, "input_too_large", fmt.Sprintf("The input is over %d MiB.", limit>>20))
	}
	return text, nil
}

// readFile reads a file, or standard input for "-".
func (c *command) readFile(ctx context.Context, path string) ([]byte, error) {
	return c.readLarge(ctx, path, maxInput)
}

// readLarge is readFile with a limit in bytes, a multiple of 1 MiB.
func (c *command) readLarge(ctx context.Context, path string, limit int) ([]byte, error) {
	if path == "-" {
		return awaiting(ctx, func() ([]byte, error) { return readUpTo(c.stdin, limit) })
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.Invalid, "file_unreadable", "The file cannot be read: "+path+deeperThan(err)+".").WithCause(err)
	}
	defer f.Close()
	return readUpTo(f, limit)
}

// secretFile is a new file for a secret that is shown once, so there must be a
// place for it before it is made. It did not exist, and only its owner can read
// it.
type secretFile struct{ path string }

func newSecretFile(path string) (*secretFile, error) {
	if path == "" {
		return nil, nil
	}
	if err := disk.Create(path, nil); err != nil {
		return nil, fault.New(fault.Invalid, "file_unwritable", "The file for the secret cannot be made: "+path+deeperThan(err)+".").
			WithHint("Name a new file, in a folder of yours. Nothing was changed.").WithCause(err)
	}
	return &secretFile{path}, nil
}

func (s *secretFile) write(text string) error { return s.whole([]byte(text + "\n")) }

// whole writes a value as it is.
func (s *secretFile) whole(value []byte) error {
	if err := disk.Replace(s.path, value); err != nil {
		return fault.New(fault.Invalid, "file_unwritable", "The file cannot be written: "+s.path+deeperThan(err)+".").WithCause(err)
	}
	return nil
}

// drop takes the file away when there is no secret for it.
func (s *secretFile) drop() {
	if s != nil {
		_ = os.Remove(s.path)
	}
}

// madeOnce makes something with a secret that is shown this once. Where path names a
// file, the secret goes there and out of what was made; lost says what to do when it
// could not be written.
func madeOnce[T any](c *command, path string, make func() (T, error), secret func(*T) *string, lost func(T) string) (T, error) {
	var none T
	file, err := newSecretFile(path)
	if err != nil {
		return none, err
	}
	made, err := make()
	if err != nil {
		file.drop()
		return none, err
	}
	if file != nil {
		text := secret(&made)
		if err := file.write(*text); err != nil {
			c.note("%s", lost(made))
			return none, err
		}
		*text = ""
	}
	return made, nil
}

// browse opens a page that only a person in a browser can finish.
func (c *command) browse(page string) error {
	if !strings.HasPrefix(page, "https://") && !strings.HasPrefix(page, "http://") {
		return fault.New(fault.Invalid, "not_a_page", "The server named a page that is no web address.")
	}
	program := []string{"xdg-open"}
	switch runtime.GOOS {
	case "darwin":
		program = []string{"open"}
	case "windows":
		program = []string{"rundll32", "url.dll,FileProtocolHandler"}
	}
	cmd := exec.Command(program[0], append(program[1:], page)...)
	for k, v := range c.env {
		if !strings.HasPrefix(k, "AMBIT_") { // a browser needs none of our settings, and no key
			cmd.Env = append(cmd.Env, k+"="+v)
		}
	}
	if err := cmd.Start(); err != nil {
		c.note("No browser could be started here. Open the page yourself.")
		return nil
	}
	go func() { _ = cmd.Wait() }()
	return nil
}

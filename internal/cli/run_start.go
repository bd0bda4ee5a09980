package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

// start runs the program until it ends, hands it the signals that we get, and ends
// as it ended.
func (r *run) start(program string, args, env []string, attr *syscall.SysProcAttr) error {
	cmd := exec.Command(program, args[1:]...)
	cmd.Args[0], cmd.SysProcAttr = args[0], attr
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, r.stdin, r.stdout, r.stderr
	if f, ok := fileOf(r.stdout); ok {
		cmd.Stdout = f // itself, and no pipe to it: the program may ask whether it is a terminal
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", plain(args[0]), err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	in, _ := r.stdin.(*os.File)
	terminal := in != nil && term.IsTerminal(int(in.Fd()))
	for {
		select {
		case s := <-signals:
			if terminal && (s == os.Interrupt || s == syscall.SIGQUIT) {
				continue // the terminal has sent it to the program as well
			}
			_ = cmd.Process.Signal(s)
		case err := <-ended:
			return statusOf(err)
		}
	}
}

// statusOf is the end of a program as a shell would tell it.
func statusOf(err error) error {
	e, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return err
	}
	if w, ok := e.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return exitStatus(128 + int(w.Signal()))
	}
	return exitStatus(e.ExitCode())
}

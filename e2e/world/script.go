package world

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Script is a program for Node, such as those of e2e/node. It gets one argument
// as JSON.
type Script struct {
	Node     string // the node to run it with
	Modules  string // a node_modules folder, which may lie anywhere
	Source   string // the script
	Dir      string // an empty folder
	Argument any
}

func (s Script) command() (*exec.Cmd, *bytes.Buffer, error) {
	src, err := os.ReadFile(s.Source)
	if err != nil {
		return nil, nil, err
	}
	// Modules are found from where a script lies.
	here := filepath.Join(s.Dir, filepath.Base(s.Source))
	if err := os.WriteFile(here, src, 0o600); err != nil {
		return nil, nil, err
	}
	if err := os.Symlink(s.Modules, filepath.Join(s.Dir, "node_modules")); err != nil {
		return nil, nil, err
	}
	doc, err := json.Marshal(s.Argument)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(s.Node, here, string(doc))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.Dir, "NODE_NO_WARNINGS=1"}
	cmd.SysProcAttr = childAttributes()
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	return cmd, &complaints, nil
}

// Run runs the script to its end and gives what it printed.
func (s Script) Run() (string, error) {
	cmd, complaints, err := s.command()
	if err != nil {
		return "", err
	}
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", s.Source, err, out, complaints)
	}
	return string(out), nil
}

// Start runs the script until stop is called, which ends its standard input.
// The first line that it prints is decoded into ready.
func (s Script) Start(ready any) (stop func(), err error) {
	cmd, complaints, err := s.command()
	if err != nil {
		return nil, err
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() {
		_ = stdin.Close()
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		_, _ = io.Copy(io.Discard, stdout)
		_ = cmd.Wait()
	}
	if err := json.NewDecoder(stdout).Decode(ready); err != nil {
		stop()
		return nil, fmt.Errorf("%s did not become ready: %w\n%s", s.Source, err, complaints)
	}
	return stop, nil
}

package world

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Build compiles ambit into dir, with build tags if there are any.
func Build(ctx context.Context, dir string, tags ...string) (string, error) {
	to := filepath.Join(dir, strings.Join(append([]string{"ambit"}, tags...), "-"))
	if out, err := exec.CommandContext(ctx, "go", "build", "-tags", strings.Join(tags, ","), "-o", to, "github.com/ambit-dev/ambit/cmd/ambit").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building ambit: %w\n%s", err, out)
	}
	return to, nil
}

// Ready is what `ambit dev` says of itself once it serves.
type Ready struct {
	URL            string `json:"url"`
	MCPURL         string `json:"mcp_url"`
	LoginURL       string `json:"login_url"`
	APIKey         string `json:"api_key"`
	EnvironmentID  string `json:"environment_id"`
	OrganizationID string `json:"organization_id"`
	UserID         string `json:"user_id"`
}

// Node is one server process. The exported fields are set before [Node.Start]
// and may change between runs; the same Node is started again after a kill.
type Node struct {
	Binary   string   // the ambit to run
	Command  string   // "dev" or "serve"
	Home     string   // its folder: data, root key unless Env names another, log
	Data     string   // its data folder; default in Home
	Listen   string   // localhost:port
	Public   string   // host:port of the public URL, which requests must name; default Listen
	Database string   // URL of PostgreSQL; empty for SQLite in Home
	Env      []string // further settings

	cmd  *exec.Cmd
	log  *os.File
	done chan struct{} // closed when the process has ended
	end  error         // how, after done

	mu     sync.Mutex
	deaths []time.Time // when a process of it did not end well
}

// ErrEnded says that a process ended before it served.
var ErrEnded = errors.New("ambit ended before it served")

// ports are those that [FreePort] has given.
var ports sync.Map

// FreePort finds a port of both loopback addresses that nobody uses now, and
// gives none twice. It is below those that the system takes for outgoing
// connections: one of these would hold the port of a server that is just away.
func FreePort() (string, error) {
	for range 100 {
		port := strconv.Itoa(10_000 + rand.IntN(20_000))
		if _, given := ports.LoadOrStore(port, true); given {
			continue
		}
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err != nil || l.Close() != nil {
			continue
		}
		l, err := net.Listen("tcp", "[::1]:"+port)
		if err != nil && errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err == nil { // a machine without IPv6 has only the other one
			_ = l.Close()
		}
		return port, nil
	}
	return "", errors.New("no port of a hundred is free")
}

// Start runs the process and waits, at most a minute, until it serves. Of a dev
// server it gives what that wrote into its ready file.
func (n *Node) Start(ctx context.Context) (Ready, error) {
	if err := n.Launch(); err != nil {
		return Ready{}, err
	}
	return n.Await(ctx)
}

// Launch runs the process and does not wait for anything.
func (n *Node) Launch() error {
	if err := os.MkdirAll(n.Home, 0o700); err != nil {
		return err
	}
	if err := os.Remove(n.readyFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	args := []string{n.Command, "--data", n.DataDir(), "--listen", n.Listen}
	if n.Command == "dev" {
		args = append(args, "--ready-file", n.readyFile())
	}
	log, err := os.OpenFile(filepath.Join(n.Home, "node.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command(n.Binary, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + n.Home, "TMPDIR=" + os.TempDir(), "AMBIT_DATABASE_URL=" + n.Database}, n.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttributes()
	if err := cmd.Start(); err != nil {
		return errors.Join(err, log.Close())
	}
	done := make(chan struct{})
	n.cmd, n.log, n.done = cmd, log, done
	go func() {
		if n.end = cmd.Wait(); n.end != nil {
			n.mu.Lock()
			n.deaths = append(n.deaths, time.Now())
			n.mu.Unlock()
		}
		close(done)
	}()
	return nil
}

// Died reports whether a process of the node was killed, or failed, in that time.
func (n *Node) Died(from, to time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.ContainsFunc(n.deaths, func(at time.Time) bool { return !at.Before(from) && !at.After(to) })
}

// DataDir is the folder that the process locks.
func (n *Node) DataDir() string { return cmp.Or(n.Data, filepath.Join(n.Home, "data")) }

func (n *Node) readyFile() string { return filepath.Join(n.Home, "ready.json") }

// Await waits, at most a minute, until the process serves.
func (n *Node) Await(ctx context.Context) (Ready, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		var r Ready
		if n.Command == "dev" {
			if doc, err := os.ReadFile(n.readyFile()); err == nil {
				return r, json.Unmarshal(doc, &r)
			}
		} else if n.answers(ctx, "/readyz") {
			return r, nil
		}
		select {
		case <-n.done:
			return r, fmt.Errorf("%w: %w\n%s", ErrEnded, n.end, n.Log())
		case <-ctx.Done():
			return r, fmt.Errorf("ambit does not serve: %w\n%s", ctx.Err(), n.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (n *Node) answers(ctx context.Context, path string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL()+path, nil)
	if err != nil {
		return false
	}
	resp, err := wire.Do(req)
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// URL is where this very process is reached.
func (n *Node) URL() string {
	return "http://" + strings.Replace(n.Listen, "localhost", "127.0.0.1", 1)
}

// host is what requests must name, whichever node they go to.
func (n *Node) host() string {
	if n.Public != "" {
		return n.Public
	}
	return n.Listen
}

// PID is the process's, 0 when it does not run.
func (n *Node) PID() int {
	if n.Running() {
		return n.cmd.Process.Pid
	}
	return 0
}

// Running reports whether the process lives.
func (n *Node) Running() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.done:
		return false
	default:
		return true
	}
}

// Kill ends the process as a power cut would, with SIGKILL, and waits for its
// end.
func (n *Node) Kill() {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Kill()
	n.reap()
}

// Stop asks the process to end, and wants it to end well within 30 s.
func (n *Node) Stop() error {
	if n.cmd == nil {
		return nil
	}
	if !n.Running() {
		err := n.end
		n.reap()
		return fmt.Errorf("ambit had ended by itself: %w", err)
	}
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	late := time.AfterFunc(30*time.Second, func() { _ = n.cmd.Process.Kill() })
	<-n.done
	inTime, err := late.Stop(), n.end
	n.reap()
	if !inTime {
		return errors.New("ambit did not stop within 30 s of SIGTERM")
	}
	return err
}

func (n *Node) reap() {
	<-n.done
	_ = n.log.Close()
	n.cmd = nil
}

// Log is the end of what the process printed, over all its runs.
func (n *Node) Log() string {
	const most = 16 << 10
	b, err := os.ReadFile(filepath.Join(n.Home, "node.log"))
	if err != nil {
		return err.Error()
	}
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return string(b)
}

// Descriptors counts the open files of the process.
func (n *Node) Descriptors() (int, error) {
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.PID()))
	return len(list), err
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// tick is the unit of CPU time in /proc, which Linux fixes at 1/100 s.
const tick = 10 * time.Millisecond

// cpuTime is what a process has used, in user and system mode.
func cpuTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ") // the name may hold blanks
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0, errors.New("/proc: stat is too short")
	}
	u, err1 := strconv.ParseInt(f[11], 10, 64)
	s, err2 := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(u+s) * tick, errors.Join(err1, err2)
}

// rss is the memory that a process holds, in MiB.
func rss(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			return kib / 1024, err
		}
	}
	return 0, errors.New("/proc: no VmRSS")
}

// traced counts the fsync and fdatasync calls of a process per call of work.
// Without strace it gives -1.
func traced(pid int, work func() (int, error)) (float64, error) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		return -1, nil
	}
	out, err := os.CreateTemp("", "ambit-strace-")
	if err != nil {
		return 0, err
	}
	_ = out.Close()
	defer os.Remove(out.Name())
	cmd := exec.Command(strace, "-f", "-c", "-e", "trace=fsync,fdatasync", "-o", out.Name(), "-p", strconv.Itoa(pid))
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	// It says so once it is attached.
	if _, err := stderr.Read(make([]byte, 256)); err != nil {
		_ = cmd.Wait()
		return -1, nil // not allowed to trace here
	}
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
	calls, err := work()
	_ = cmd.Process.Signal(syscall.SIGINT)
	_ = cmd.Wait()
	if err != nil {
		return 0, err
	}
	b, err := os.ReadFile(out.Name())
	if err != nil {
		return 0, err
	}
	total := 0
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) >= 5 && (f[len(f)-1] == "fsync" || f[len(f)-1] == "fdatasync") {
			n, err := strconv.Atoi(f[3])
			if err != nil {
				return 0, fmt.Errorf("reading strace: %q", line)
			}
			total += n
		}
	}
	return float64(total) / float64(calls), nil
}

// cluster is a PostgreSQL with its ordinary, durable settings.
type cluster struct {
	address string
	admin   string   // where the measured database was made
	own     *url.URL // the measured database
	cmd     *exec.Cmd
}

// newCluster takes the one at use, or starts one.
func newCluster(ctx context.Context, dir, use string) (*cluster, error) {
	c := &cluster{}
	if use != "" {
		u, err := url.Parse(use)
		if err != nil {
			return nil, err
		}
		c.own, c.address = u, u.Host
		return c, c.database(ctx)
	}
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(bins) == 0 {
		return nil, errors.New("no PostgreSQL server found: install postgresql, or name one with -database")
	}
	bin := bins[len(bins)-1]
	home, err := os.MkdirTemp("", "ambit-bench-pg-")
	if err != nil {
		return nil, err
	}
	attr := &syscall.SysProcAttr{}
	if os.Getuid() == 0 { // the server refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			return nil, err
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		if err := os.Chown(home, uid, gid); err != nil {
			return nil, err
		}
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	data := filepath.Join(home, "data")
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
	initdb.SysProcAttr, initdb.Dir = attr, home
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c.address = l.Addr().String()
	_ = l.Close()
	_, port, _ := net.SplitHostPort(c.address)
	c.cmd = exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=")
	c.cmd.SysProcAttr, c.cmd.Dir = attr, home
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	c.own = &url.URL{Scheme: "postgres", User: url.User("postgres"), Host: c.address, Path: "/postgres", RawQuery: "sslmode=disable"}
	for range 100 {
		if err = c.database(ctx); err == nil {
			return c, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil, errors.Join(fmt.Errorf("PostgreSQL does not answer: %w", err), c.stop())
}

// database makes the one that is measured.
func (c *cluster) database(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, c.own.String())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	name := fmt.Sprintf("bench_%d", time.Now().UnixNano())
	if _, err := conn.Exec(ctx, "create database "+name); err != nil {
		return err
	}
	u := *c.own
	u.Path = "/" + name
	c.admin, c.own = c.own.String(), &u
	return nil
}

// url gives the database's address, behind a proxy when there is one. No
// cluster has none.
func (c *cluster) url(through string) string {
	if c == nil {
		return ""
	}
	u := *c.own
	if through != "" {
		u.Host = through
	}
	return u.String()
}

// syncs counts the flushes of PostgreSQL's log per call of work, or gives -1
// where the server does not count them in pg_stat_wal.
func (c *cluster) syncs(ctx context.Context, work func() (int, error)) (float64, error) {
	conn, err := pgx.Connect(ctx, c.own.String())
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	read := func() (n int64, err error) {
		time.Sleep(11 * time.Second) // an idle back end reports after ten
		err = conn.QueryRow(ctx, "select wal_sync from pg_stat_wal").Scan(&n)
		return n, err
	}
	before, err := read()
	if err != nil {
		return -1, nil
	}
	calls, err := work()
	if err != nil {
		return 0, err
	}
	after, err := read()
	return float64(after-before) / float64(calls), err
}

func (c *cluster) stop() error {
	if c.cmd == nil { // somebody else's: leave it as it was
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		conn, err := pgx.Connect(ctx, c.admin)
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		_, err = conn.Exec(ctx, "drop database "+strings.TrimPrefix(c.own.Path, "/")+" with (force)")
		return err
	}
	_ = c.cmd.Process.Signal(syscall.SIGINT)
	_ = c.cmd.Wait()
	return os.RemoveAll(c.cmd.Dir)
}

// proxy passes bytes on and counts round trips: each time that a connection
// sends after it has received, or for the first time.
type proxy struct {
	listener net.Listener
	to       string
	trips    atomic.Int64
}

func newProxy(to string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, to: to}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	return p, nil
}

func (p *proxy) address() string { return p.listener.Addr().String() }
func (p *proxy) close()          { _ = p.listener.Close() }

func (p *proxy) serve(c net.Conn) {
	defer c.Close()
	server, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer server.Close()
	var asked atomic.Bool // the last bytes went to the server
	var wg sync.WaitGroup
	pass := func(to, from net.Conn, toServer bool) {
		defer to.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			if n > 0 {
				if was := asked.Swap(toServer); toServer && !was {
					p.trips.Add(1)
				}
				if _, err := to.Write(buf[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
	wg.Go(func() { pass(server, c, true) })
	wg.Go(func() { pass(c, server, false) })
	wg.Wait()
}

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
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ambit-dev/ambit/e2e/world"
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

// cluster is the PostgreSQL of a run: our own, or one that runs already.
type cluster struct {
	address string
	own     *world.Postgres
	url     *url.URL // of the measured database
	drop    func() error
}

// newCluster takes the one at use, or starts one.
func newCluster(ctx context.Context, use string) (*cluster, error) {
	c := &cluster{}
	if use == "" {
		var err error
		if c.own, err = world.NewPostgres(ctx); err != nil {
			return nil, err
		}
		use = c.own.URL()
	}
	address, drop, err := world.NewDatabase(ctx, use)
	if err != nil {
		return nil, errors.Join(err, c.stop())
	}
	c.drop = drop
	if c.url, err = url.Parse(address); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	c.address = c.url.Host
	return c, nil
}

// at gives the database's address, behind a proxy when there is one. No
// cluster has none.
func (c *cluster) at(through string) string {
	if c == nil {
		return ""
	}
	u := *c.url
	if through != "" {
		u.Host = through
	}
	return u.String()
}

// syncs counts the flushes of PostgreSQL's log per call of work, or gives -1
// where the server does not count them in pg_stat_wal.
func (c *cluster) syncs(ctx context.Context, work func() (int, error)) (float64, error) {
	conn, err := pgx.Connect(ctx, c.url.String())
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

// cpu is what the server's processes have used. Those that have ended are not
// counted. ok is false for a server that is not our own.
func (c *cluster) cpu() (used time.Duration, ok bool) {
	if c == nil || c.own == nil {
		return 0, false
	}
	for _, pid := range c.own.Processes() {
		one, err := cpuTime(pid)
		if err == nil { // it may have ended
			used += one
		}
	}
	return used, true
}

func (c *cluster) stop() error {
	var err error
	if c.drop != nil {
		err = c.drop()
	}
	if c.own != nil {
		err = errors.Join(err, c.own.Stop())
	}
	return err
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

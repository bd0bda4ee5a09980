package world

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// NewDatabase makes an empty database on the server at admin, and what drops it.
func NewDatabase(ctx context.Context, admin string) (address string, drop func() error, err error) {
	u, err := url.Parse(admin)
	if err != nil {
		return "", nil, err
	}
	var b [6]byte
	_, _ = rand.Read(b[:])
	name := "world_" + hex.EncodeToString(b[:])
	run := func(ctx context.Context, sql string) error {
		conn, err := pgx.Connect(ctx, admin)
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		_, err = conn.Exec(ctx, sql)
		return err
	}
	if err := run(ctx, "create database "+name); err != nil {
		return "", nil, fmt.Errorf("making a database: %w", err)
	}
	own := *u
	own.Path = "/" + name
	return own.String(), func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		return run(ctx, "drop database if exists "+name+" with (force)")
	}, nil
}

// Postgres is a PostgreSQL server of our own, with its ordinary, durable
// settings, that may be killed.
type Postgres struct {
	Address string // host:port, which stays over restarts

	bin, home string
	settings  []string
	attr      *syscall.SysProcAttr
	cmd       *exec.Cmd
}

// NewPostgres makes a cluster and starts it. settings are further ones, such as
// "fsync=off".
func NewPostgres(ctx context.Context, settings ...string) (*Postgres, error) {
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(bins) == 0 {
		return nil, errors.New("no PostgreSQL server found: install postgresql")
	}
	home, err := os.MkdirTemp("", "ambit-pg-")
	if err != nil {
		return nil, err
	}
	p := &Postgres{bin: bins[len(bins)-1], home: home, settings: settings, attr: childAttributes()}
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
		p.attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	initdb := exec.CommandContext(ctx, filepath.Join(p.bin, "initdb"), "-D", filepath.Join(home, "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
	initdb.SysProcAttr, initdb.Dir = p.attr, home
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	p.Address = "127.0.0.1:" + port
	return p, p.Start(ctx)
}

// Copy makes a second server with what this one, which does not run, has stored,
// and starts it elsewhere: a standby that had everything.
func (p *Postgres) Copy(ctx context.Context) (*Postgres, error) {
	home, err := os.MkdirTemp("", "ambit-pg-")
	if err != nil {
		return nil, err
	}
	second := *p
	second.home, second.cmd = home, nil
	if out, err := exec.CommandContext(ctx, "cp", "-a", filepath.Join(p.home, "data"), home).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copying a cluster: %w\n%s", err, out)
	}
	_ = os.Remove(filepath.Join(home, "data", "postmaster.pid"))
	if c := p.attr.Credential; c != nil {
		if err := os.Chown(home, int(c.Uid), int(c.Gid)); err != nil {
			return nil, err
		}
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	second.Address = "127.0.0.1:" + port
	return &second, second.Start(ctx)
}

// URL is the address of the cluster's first database, for an administrator.
func (p *Postgres) URL() string {
	return (&url.URL{Scheme: "postgres", User: url.User("postgres"), Host: p.Address, Path: "/postgres", RawQuery: "sslmode=disable"}).String()
}

// Start starts the server and waits, at most 30 s, until it answers.
func (p *Postgres) Start(ctx context.Context) error {
	_, port, err := net.SplitHostPort(p.Address)
	if err != nil {
		return err
	}
	args := []string{"-D", filepath.Join(p.home, "data"), "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=300"}
	for _, s := range p.settings {
		args = append(args, "-c", s)
	}
	log, err := os.OpenFile(filepath.Join(p.home, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p.cmd = exec.Command(filepath.Join(p.bin, "postgres"), args...)
	p.cmd.SysProcAttr, p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = p.attr, p.home, log, log
	if err := p.cmd.Start(); err != nil {
		return err
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := pgx.Connect(ctx, p.URL())
		if err == nil {
			return conn.Close(ctx)
		}
		if time.Now().After(end) || ctx.Err() != nil {
			said, _ := os.ReadFile(filepath.Join(p.home, "log"))
			return fmt.Errorf("PostgreSQL does not answer: %w\n%s", err, said)
		}
	}
}

// Kill ends the server and all its back ends at once, with SIGKILL.
func (p *Postgres) Kill() { p.signal(syscall.SIGKILL) }

// Stop ends the server and removes its folder.
func (p *Postgres) Stop() error {
	p.signal(syscall.SIGINT)
	return os.RemoveAll(p.home)
}

// Processes are those of the server now, by their ids: its first one and what that
// has started.
func (p *Postgres) Processes() []int {
	if p.cmd == nil {
		return nil
	}
	return append(childrenOf(p.cmd.Process.Pid), p.cmd.Process.Pid)
}

// signal ends the postmaster and waits for its children too: a new one refuses
// to start while one of them holds the shared memory.
func (p *Postgres) signal(s syscall.Signal) {
	if p.cmd == nil {
		return
	}
	pid := p.cmd.Process.Pid
	children := childrenOf(pid)
	_ = p.cmd.Process.Signal(s)
	_ = p.cmd.Wait()
	p.cmd = nil
	for _, c := range children {
		if s == syscall.SIGKILL {
			_ = syscall.Kill(c, s)
		}
		for range 500 {
			if _, state := parentOf(c); state == "" || state == "Z" {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// childrenOf lists the processes that pid started.
func childrenOf(pid int) []int {
	var out []int
	list, _ := os.ReadDir("/proc")
	for _, e := range list {
		if c, err := strconv.Atoi(e.Name()); err == nil {
			if parent, _ := parentOf(c); parent == pid {
				out = append(out, c)
			}
		}
	}
	return out
}

// parentOf reads who started a process and its state, which is empty when it is
// gone and Z when nobody has asked yet how it ended.
func parentOf(pid int) (parent int, state string) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, ""
	}
	_, rest, _ := strings.Cut(string(b), ") ") // the name may hold blanks
	f := strings.Fields(rest)
	if len(f) < 2 {
		return 0, ""
	}
	parent, _ = strconv.Atoi(f[1])
	return parent, f[0]
}

package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ambit-dev/ambit/internal/fault"
)

// isolates says whether this system can hold a program apart.
const isolates = true

// insidePlace is where the proxy is, as the program sees it. Its network is its own.
const insidePlace = "127.0.0.1:7421"

// isolated runs the program in namespaces of its own (namespaces(7)): its user has
// no right over anything outside; its network has a loopback interface, behind
// which is a Unix socket to us and behind that the proxy; its mounts lack Ambit's
// files and every socket of the system's services; its processes see only each
// other, and end with it.
func (r *run) isolated(program string, env []string, a runAccess, dir string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	socket := filepath.Join(dir, "proxy.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("making the way to the proxy: %w", err)
	}
	bridge := &bridge{listener: l, dial: func() (net.Conn, error) { return dialProxy(a.ProxyURL) }}
	bridge.start()
	defer bridge.stop()
	hidden := r.hidden()
	args := []string{self, "run-inside", "--socket", socket}
	for _, path := range hidden {
		args = append(args, "--hide", path)
	}
	args = append(args, "--", program)
	env = append(env, envHidden+"="+strings.Join(hidden, ":"))
	return r.start(self, append(args, r.args...), env, &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	})
}

func dialProxy(address string) (net.Conn, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("reading the proxy's address: %w", err)
	}
	if u.Scheme == "https" {
		return (&tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname()}}).DialContext(context.Background(), "tcp", u.Host)
	}
	return net.Dial("tcp", u.Host)
}

// bridge carries connections from one place to another, unread.
type bridge struct {
	listener net.Listener
	dial     func() (net.Conn, error)

	mu   sync.Mutex
	open map[net.Conn]bool // at most maxBridged
	over bool
	wg   sync.WaitGroup
}

const maxBridged = 1024

func (b *bridge) start() {
	b.open = map[net.Conn]bool{}
	b.wg.Go(func() {
		for {
			c, err := b.listener.Accept()
			if err != nil {
				return
			}
			if !b.keep(c) {
				_ = c.Close()
				continue
			}
			b.wg.Go(func() { b.carry(c) })
		}
	})
}

func (b *bridge) keep(c net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over || len(b.open) >= 2*maxBridged {
		return false
	}
	b.open[c] = true
	return true
}

func (b *bridge) drop(c net.Conn) {
	_ = c.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.open, c)
}

func (b *bridge) carry(in net.Conn) {
	defer b.drop(in)
	out, err := b.dial()
	if err != nil {
		return
	}
	if !b.keep(out) {
		_ = out.Close()
		return
	}
	defer b.drop(out)
	half := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		if c, ok := to.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite()
		}
	}
	var back sync.WaitGroup
	back.Go(func() { half(in, out) })
	half(out, in)
	back.Wait()
}

func (b *bridge) stop() {
	_ = b.listener.Close()
	b.mu.Lock()
	b.over = true
	for c := range b.open {
		_ = c.Close()
	}
	b.mu.Unlock()
	b.wg.Wait()
}

// insideCommand is the first process of a program's namespaces. It makes them what
// they are to be, starts the program with no right to undo it, and carries its
// connections to the socket.
func (c *command) insideCommand() *cobra.Command {
	var socket string
	var hide []string
	cmd := &cobra.Command{
		Use: "run-inside", Hidden: true, Args: cobra.MinimumNArgs(2), Short: "Start a program that is held apart",
		RunE: func(_ *cobra.Command, args []string) error {
			runtime.LockOSThread() // what is set for the thread counts for what it starts
			if os.Getpid() != 1 {
				return usageError{errors.New("ambit run --isolate starts this")}
			}
			if err := shutIn(hide); err != nil {
				return fault.New(fault.Unavailable, "isolation_failed", "The program cannot be held apart on this system: "+err.Error()+".").
					WithHint("Namespaces of unprivileged users must be allowed, and /proc be mountable (not within most containers).").WithCause(err)
			}
			l, err := net.Listen("tcp", insidePlace)
			if err != nil {
				return fmt.Errorf("making the way to the proxy: %w", err)
			}
			b := &bridge{listener: l, dial: func() (net.Conn, error) { return net.Dial("unix", socket) }}
			b.start()
			defer b.stop()
			var env []string
			for name, value := range c.env {
				env = append(env, name+"="+value)
			}
			r := &run{command: c}
			// A user namespace below ours: over the mounts and the network, which are
			// ours, it has no rights (mount_namespaces(7)).
			return r.start(args[0], args[1:], env, &syscall.SysProcAttr{
				Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
				UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}},
				GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}},
				Pdeathsig:   syscall.SIGKILL,
			})
		},
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().StringVar(&socket, "socket", "", "socket behind which the proxy is")
	cmd.Flags().StringArrayVar(&hide, "hide", nil, "path to hide")
	return cmd
}

// shutIn makes the namespaces of this process what a program is to live in.
func shutIn(hide []string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making the mounts its own: %w", err)
	}
	for _, path := range hide {
		if err := cover(path); err != nil {
			return fmt.Errorf("hiding %s: %w", path, err)
		}
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up new privileges: %w", err)
	}
	return raise("lo")
}

// cover puts something empty over a path, if there is anything.
func cover(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := os.Stat(real)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return unix.Mount("none", real, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RDONLY, "size=4k,mode=0555")
	}
	return unix.Mount("/dev/null", real, "", unix.MS_BIND, "")
}

// raise lets an interface carry packets (netdevice(7)).
func raise(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("reaching the network's settings: %w", err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("naming the interface %s: %w", name, err)
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("raising the interface %s: %w", name, err)
	}
	return nil
}

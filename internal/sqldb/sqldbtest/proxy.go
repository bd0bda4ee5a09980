package sqldbtest

import (
	"bytes"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Proxy stands between one node and PostgreSQL. What is frozen stays connected
// and passes nothing on, as behind a network that drops packets.
type Proxy struct {
	listener net.Listener
	target   string

	mu      sync.Mutex
	changed *sync.Cond
	all     bool
	notices bool
	over    int // a message longer than this is lost, with all that follows it; 0: none
	lost    *link
	closed  bool
	conns   map[net.Conn]struct{}
	wg      sync.WaitGroup
}

// Through gives cfg with a proxy of its own in front of PostgreSQL.
func Through(t testing.TB, cfg sqldb.Config) (sqldb.Config, *Proxy) {
	t.Helper()
	u, err := url.Parse(cfg.URL)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{target: u.Host, conns: map[net.Conn]struct{}{}}
	p.changed = sync.NewCond(&p.mu)
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	u.Host = p.listener.Addr().String()
	cfg.URL = u.String()
	return cfg, p
}

// Freeze stops everything.
func (p *Proxy) Freeze() { p.set(func() { p.all = true }) }

// FreezeNotices stops the connection that hears notices, and later ones that
// would.
func (p *Proxy) FreezeNotices() { p.set(func() { p.notices = true }) }

// Lose drops the next message to the server that is longer than over bytes, and
// whatever follows on its connection. The others stay well.
func (p *Proxy) Lose(over int) { p.set(func() { p.over, p.lost = over, nil }) }

// Lost reports whether that message has come.
func (p *Proxy) Lost() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost != nil
}

// Thaw lets everything pass again, and ends the connection that lost a message.
func (p *Proxy) Thaw() {
	p.set(func() {
		p.all, p.notices, p.over = false, false, 0
		if p.lost != nil {
			p.lost.near.Close()
			p.lost.far.Close()
		}
	})
}

func (p *Proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	p.changed.Broadcast()
}

func (p *Proxy) close() {
	p.listener.Close()
	p.set(func() {
		p.closed = true
		for c := range p.conns {
			c.Close()
		}
	})
	p.wg.Wait()
}

// link is one connection through the proxy.
type link struct {
	near, far net.Conn
	hears     bool
}

func (p *Proxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.DialTimeout("tcp", p.target, 10*time.Second)
		if err != nil {
			near.Close()
			continue
		}
		p.mu.Lock()
		p.conns[near], p.conns[far] = struct{}{}, struct{}{}
		if p.closed {
			near.Close()
			far.Close()
		}
		p.mu.Unlock()
		l := &link{near: near, far: far}
		p.wg.Go(func() { p.pass(l, far, near, true) })
		p.wg.Go(func() { p.pass(l, near, far, false) })
	}
}

// pass copies until either end closes, and waits while it is frozen.
func (p *Proxy) pass(l *link, to, from net.Conn, toServer bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if !p.mayPass(l, buf[:n]) {
			return
		}
		if err == nil && p.loses(l, n, toServer) {
			continue
		}
		if _, werr := to.Write(buf[:n]); werr != nil || err != nil {
			p.mu.Lock()
			delete(p.conns, to)
			delete(p.conns, from)
			p.mu.Unlock()
			return
		}
	}
}

func (p *Proxy) loses(l *link, n int, toServer bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if toServer && p.over > 0 && n > p.over && p.lost == nil {
		p.lost = l
	}
	return l == p.lost
}

func (p *Proxy) mayPass(l *link, data []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.hears = l.hears || bytes.Contains(data, []byte("listen ambit_"))
	for !p.closed && (p.all || p.notices && l.hears) {
		p.changed.Wait()
	}
	return !p.closed
}

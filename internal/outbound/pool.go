package outbound

import (
	"container/list"
	"net/http"
	"sync"
	"time"
)

// pool decides which connection a request may use. HTTP/1 gives a connection's
// answers to its requests in their order and by nothing else: an upstream that
// sends one answer too many shifts all that follow. So parties share no HTTP/1
// connection (threats.md S14). HTTP/2 names the request of each frame, and there
// all share one, as its upstreams expect.
type pool struct {
	make    func() *http.Transport // for both protocols
	shared  *http.Transport        // HTTP/2 only
	nobody  *http.Transport        // of requests without a party: each takes its own connection
	parties int                    // transports kept
	now     func() time.Time

	mu     sync.Mutex
	own    map[string]*list.Element // by party
	recent *list.List               // of *party, most recently used first
	framed map[string]bool          // hosts that spoke HTTP/2 when last asked
}

type party struct {
	name      string
	transport *http.Transport
	last      time.Time // when it last sent
}

const (
	idle       = 90 * time.Second // that a connection is kept which nobody uses
	kept       = 2 * idle         // that a party is, which by then has none
	maxParties = 2048
	maxHosts   = 4096
)

func newPool(build func() *http.Transport) *pool {
	p := &pool{make: build, shared: build(), nobody: build(), parties: maxParties, now: time.Now, own: map[string]*list.Element{}, recent: list.New(), framed: map[string]bool{}}
	p.shared.Protocols = new(http.Protocols)
	p.shared.Protocols.SetHTTP2(true)
	p.nobody.DisableKeepAlives = true
	return p
}

// of gives the transport of a party, and whether it is the one that all share.
func (p *pool) of(name, host string) (t *http.Transport, shared bool) {
	if name == "" {
		return p.nobody, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.framed[host] {
		return p.shared, true
	}
	now := p.now()
	if e, ok := p.own[name]; ok {
		p.recent.MoveToFront(e)
		e.Value.(*party).last = now
		return e.Value.(*party).transport, false
	}
	for range 2 { // so that more is forgotten than comes
		if e := p.recent.Back(); e != nil && (len(p.own) >= p.parties || now.Sub(e.Value.(*party).last) > kept) {
			p.recent.Remove(e)
			delete(p.own, e.Value.(*party).name)
			e.Value.(*party).transport.CloseIdleConnections()
		}
	}
	n := &party{name, p.make(), now}
	p.own[name] = p.recent.PushFront(n)
	return n.transport, false
}

// learn remembers whether a host speaks HTTP/2.
func (p *pool) learn(host string, framed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.framed[host] == framed {
		return
	}
	if len(p.framed) >= maxHosts {
		clear(p.framed) // costs each host one request to learn again
	}
	if framed {
		p.framed[host] = true
	} else {
		delete(p.framed, host)
	}
}

// closeIdle drops what nobody uses now.
func (p *pool) closeIdle() {
	p.shared.CloseIdleConnections()
	p.nobody.CloseIdleConnections()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.own {
		e.Value.(*party).transport.CloseIdleConnections()
	}
}

// roundTrip sends req for a party. A host that no longer speaks HTTP/2 is tried
// again with what it speaks, when nothing was sent.
func (p *pool) roundTrip(req *http.Request, name string, a *attempt) (*http.Response, error) {
	host := req.URL.Host
	t, shared := p.of(name, host)
	resp, err := t.RoundTrip(req)
	if err != nil && shared && !a.sent.Load() && req.Context().Err() == nil && (req.Body == nil || req.GetBody != nil) {
		p.learn(host, false)
		again := req.Clone(req.Context())
		if req.GetBody != nil {
			if again.Body, err = req.GetBody(); err != nil {
				return nil, err
			}
		}
		t, _ = p.of(name, host)
		resp, err = t.RoundTrip(again)
	}
	if err == nil && name != "" {
		p.learn(host, resp.ProtoMajor == 2)
	}
	return resp, err
}

//go:build e2e

package e2e

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/e2e/world"
)

// pair is two nodes on one PostgreSQL behind one address. What a person begins on
// one node they finish on the other; agents reach the second alone, and the live
// inbox comes from the first.
type pair struct {
	nodes [2]*url.URL
	turn  atomic.Int64

	mu     sync.Mutex
	served [2]map[string]int // by the last part of the path
}

// pick chooses the node for a request: what is asked for or revoked goes to the
// first, what is proven or called to the second, and pages to each in turn.
func (p *pair) pick(r *http.Request) int {
	switch last := lastPart(r); {
	case last == "begin", last == "challenge", last == "revoke", last == "events":
		return 0
	case r.Method == http.MethodPost:
		return 1
	}
	return int(p.turn.Add(1) % 2)
}

func lastPart(r *http.Request) string { return r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:] }

func (p *pair) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := p.pick(r)
	p.mu.Lock()
	p.served[n][lastPart(r)]++
	p.mu.Unlock()
	(&httputil.ReverseProxy{FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0), Rewrite: func(pr *httputil.ProxyRequest) {
		pr.SetURL(p.nodes[n])
		pr.Out.Host = pr.In.Host
	}}).ServeHTTP(w, r)
}

// times says how often a node answered a path that ends with part.
func (p *pair) times(node int, part string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.served[node][part]
}

var sandboxAddress = regexp.MustCompile(`(?m)https?://(localhost:\d+)`)

// newPair starts two nodes: `ambit dev`, which has the sandbox, and `ambit serve`.
func newPair(t *testing.T) (*server, *pair) {
	t.Helper()
	p := &pair{served: [2]map[string]int{{}, {}}}
	front := httptest.NewServer(p)
	t.Cleanup(front.Close) // after the nodes have stopped
	_, port, err := net.SplitHostPort(front.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	public := "localhost:" + port
	n := &world.Node{Command: "dev", Home: t.TempDir(), Listen: "localhost:" + freePort(t), Public: public, Database: newDatabase(t)}
	n.Env = []string{"AMBIT_ROOT_KEY=" + n.Home + "/root.key", "AMBIT_PUBLIC_URL=http://" + public}
	p.nodes[0] = &url.URL{Scheme: "http", Host: n.Listen}
	s := start(t, n)
	p.nodes[1] = p.nodes[0] // until the second runs
	record, err := client.New(s.URL, s.APIKey).Provider(t.Context(), "sandbox")
	if err != nil {
		t.Fatal(err)
	}
	second := s.secondNode(t, "AMBIT_OUTBOUND_ALLOW="+sandboxAddress.FindStringSubmatch(record.YAML)[1])
	p.nodes[1] = &url.URL{Scheme: "http", Host: second.node.Listen}
	return s, p
}

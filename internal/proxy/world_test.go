package proxy_test

import (
	"bufio"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/websocket"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/authority"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/proxy"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// canary is the account's key. It must never come back.
const canary = gatewaytest.SandboxKey

// world is an agent with a session on an account, a third party that speaks TLS,
// and a proxy between them.
type world struct {
	*gatewaytest.World
	owner   *agenttest.Person
	who     agent.Identity
	handle  string
	live    session.Live
	token   string // bound to the session
	url     string // of the proxy, with the token
	address string // of the proxy
	trusted []byte // what clients of the proxy trust, PEM
	mux     *http.ServeMux
	up      *httptest.Server
	upPool  *x509.CertPool
	place   string // of the third party, host:port
	repos   string // of its git server, host:port
	code    *http.ServeMux
	opened  atomic.Int64
	beside  *http.ServeMux // the door's paths on the server's own port
	door    *proxy.Server
	cert    tls.Certificate // of whatever speaks TLS upstream
}

func newWorld(t testing.TB, db *sqldb.DB, egress gateway.Egress) *world {
	t.Helper()
	return newWorldWith(t, db, egress, func(*world) []string { return nil })
}

// newWorldWith has more third parties, which more starts; it gives their places.
func newWorldWith(t testing.TB, db *sqldb.DB, egress gateway.Egress, more func(*world) []string) *world {
	t.Helper()
	w := &world{World: gatewaytest.New(t, db), mux: http.NewServeMux(), beside: http.NewServeMux()}
	w.third(t)
	var err error
	w.Outbound, err = outbound.New(outbound.Policy{Allow: append(more(w), w.Sandbox.Listener.Addr().String(), w.place, w.repos), Tunnels: egress.Hosts, Roots: w.upPool})
	must(t, err)
	t.Cleanup(w.Outbound.Close)
	w.Node(t)
	w.OnUserLeft, w.OnAgentEnded = w.Sessions.OnUserLeft, w.Sessions.OnAgentEnded
	w.Gateway = gateway.New(gateway.Config{Sessions: w.Sessions, Credentials: w.Credentials, Connections: w.Connections, Providers: w.Providers, Audit: w.Audit,
		Outbound: w.Outbound, SessionRate: 1e6, Egress: egress, Now: w.Clock.Now})

	w.Put(t, fmt.Sprintf(`id: up
name: Upstream
website: https://%[1]s
auth: api_key
inject: {header: Authorization, format: "Bearer {api_key}"}
identity: {path: /me, id: id, label: id}
api:
  base: ["https://%[1]s"]
  git: {base: ["https://%[2]s"], basic: {username: x-access-token, password: "{api_key}"}, repositories: ["/{owner}/{repo}"]}
generic: {read: true, write: true, destructive: true}
`, w.place, w.repos))
	w.owner = w.Person(t, "ada@example.com", "owner")
	w.Connect(t, w.owner, "up", false)
	w.who = w.Agent(t, w.owner, "worker")
	r := w.Ask(t, w.who, "up", policy.Effects()[:3]...)
	w.Approve(t, w.owner, r.Session.Approval, func(d *session.Decision) { d.Confirm = policy.ConfirmNone })
	w.handle = r.Handle
	w.live, err = w.Sessions.Live(t.Context(), w.who, w.handle)
	must(t, err)
	w.token = w.bind(t, w.live)

	ca, err := authority.New(authority.Config{DB: w.DB, Vault: w.Vault, Audit: w.Audit, Now: time.Now})
	must(t, err)
	w.trusted, err = ca.Bundle(t.Context(), w.Environment)
	must(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	w.address = listener.Addr().String()
	w.url = "http://session:" + w.token + "@" + w.address
	s := proxy.New(proxy.Config{People: w.Accounts, Agents: w.Agents, Sessions: w.Sessions, Gateway: w.Gateway, Authority: ca, URL: "http://" + w.address, Logger: slog.New(slog.DiscardHandler)})
	w.door = s
	s.Mount(w.beside)
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_ = s.Shutdown(ctx)
		s.Close()
		must(t, <-served)
	})
	return w
}

// bind gives a token that is bound to a session of the agent.
func (w *world) bind(t testing.TB, l session.Live) string {
	t.Helper()
	tokens, err := w.Agents.TokenForSession(t.Context(), w.who, agent.SessionGrant{Agent: w.who.Agent(), Session: l.Session(), User: l.User(), Expires: l.Until()})
	must(t, err)
	return string(tokens.Access.Reveal())
}

// third starts the third party, which takes the key as bearer and shows whatever it
// was sent.
func (w *world) third(t testing.TB) {
	cert, pool := selfSigned(t)
	w.upPool, w.cert = pool, cert
	w.mux.HandleFunc("GET /me", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, `{"id": "up-1"}`) })
	w.mux.HandleFunc("/echo", func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		rw.Header().Set("X-Seen", r.Header.Get("Authorization"))
		rw.Header().Set("Trailer", "X-After")
		rw.(http.Flusher).Flush() // so that the length is not known
		_ = json.NewEncoder(rw).Encode(map[string]any{"proto": r.Proto, "method": r.Method, "host": r.Host, "path": r.URL.Path, "query": r.URL.RawQuery, "header": r.Header, "body": string(body)})
		rw.Header().Set("X-After", "the key is "+canary)
	})
	w.mux.HandleFunc("GET /events", func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		for i := 0; ; i++ {
			fmt.Fprintf(rw, "data: %d\n\n", i)
			rw.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	w.mux.Handle("GET /socket", websocket.Handler(func(c *websocket.Conn) {
		var text string
		for websocket.Message.Receive(c, &text) == nil {
			_ = websocket.Message.Send(c, c.Request().Header.Get("Authorization")+" said "+text)
		}
	}))
	w.code = http.NewServeMux()
	code := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if user, pass, _ := r.BasicAuth(); user != "x-access-token" || pass != canary {
			rw.Header().Set("Www-Authenticate", `Basic realm="code"`)
			http.Error(rw, "who are you?", http.StatusUnauthorized)
			return
		}
		w.code.ServeHTTP(rw, r)
	}))
	code.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	code.StartTLS()
	t.Cleanup(func() { code.CloseClientConnections(); code.Close() })
	_, port, _ := net.SplitHostPort(code.Listener.Addr().String())
	w.repos = "localhost:" + port
	w.up = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if _, pass, _ := r.BasicAuth(); r.Header.Get("Authorization") != "Bearer "+canary && pass != canary {
			rw.Header().Set("Www-Authenticate", `Basic realm="up"`)
			http.Error(rw, "who are you?", http.StatusUnauthorized)
			return
		}
		w.mux.ServeHTTP(rw, r)
	}))
	w.up.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	w.up.EnableHTTP2 = true
	w.up.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	w.up.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			w.opened.Add(1)
		}
	}
	w.up.StartTLS()
	t.Cleanup(func() { w.up.CloseClientConnections(); w.up.Close() })
	_, port, _ = net.SplitHostPort(w.up.Listener.Addr().String())
	w.place = "localhost:" + port
}

// secure starts a server at an address that clients take the proxy for, and gives its place.
func (w *world) secure(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	_ = s.Listener.Close()
	listener, err := net.Listen("tcp", net.JoinHostPort(ownAddress(), "0"))
	must(t, err)
	s.Listener, s.TLS = listener, &tls.Config{Certificates: []tls.Certificate{w.cert}}
	s.StartTLS()
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return listener.Addr().String()
}

func selfSigned(t testing.TB) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.ParseIP(ownAddress())},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// ownAddress is an address of this machine that is not loopback, which many clients
// take no proxy for; without one it is loopback after all.
func ownAddress() string {
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	return "127.0.0.1"
}

// clientTLS trusts the proxy's authority, and not the third party's own.
func (w *world) clientTLS() *tls.Config {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(w.trusted)
	return &tls.Config{RootCAs: pool, ServerName: "localhost"}
}

// client is a program with its library's usual transport, behind the proxy.
func (w *world) client(t testing.TB, h2 bool) *http.Client {
	t.Helper()
	via, err := url.Parse(w.url)
	must(t, err)
	tr := &http.Transport{Proxy: http.ProxyURL(via), TLSClientConfig: w.clientTLS(), ForceAttemptHTTP2: h2}
	tr.TLSClientConfig.ServerName = ""
	if !h2 {
		tr.Protocols = new(http.Protocols)
		tr.Protocols.SetHTTP1(true)
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (w *world) https(path string) string { return "https://" + w.place + path }

// tunnel is an open tunnel to the third party, by hand.
func (w *world) tunnel(t testing.TB, protocols ...string) *tls.Conn {
	t.Helper()
	conn, status := w.connectTo(t, w.place, "Bearer "+w.token)
	if status != "200" {
		t.Fatalf("CONNECT: %s", status)
	}
	cfg := w.clientTLS()
	cfg.NextProtos = protocols
	secured := tls.Client(conn, cfg)
	must(t, secured.HandshakeContext(t.Context()))
	return secured
}

// connectTo asks the proxy for a tunnel and gives the status of its answer.
func (w *world) connectTo(t testing.TB, target, credentials string) (net.Conn, string) {
	t.Helper()
	conn, err := net.Dial("tcp", w.address)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	head := "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n"
	if credentials != "" {
		head += "Proxy-Authorization: " + credentials + "\r\n"
	}
	_, err = io.WriteString(conn, head+"\r\n")
	must(t, err)
	in := bufio.NewReaderSize(conn, 1)
	line, err := in.ReadString('\n')
	if err != nil {
		return conn, "closed"
	}
	for rest := line; rest != "\r\n"; {
		if rest, err = in.ReadString('\n'); err != nil {
			break
		}
	}
	return conn, strings.Fields(line)[1]
}

// revoke ends the session as a person would.
func (w *world) revoke(t testing.TB) {
	t.Helper()
	_, err := w.Sessions.Revoke(t.Context(), w.System.In(w.Environment), session.Aim{Session: w.live.Session()})
	must(t, err)
}

// last is the newest audit entry about a call or a tunnel.
func (w *world) last(t testing.TB) audit.Record {
	t.Helper()
	page, err := w.Audit.List(t.Context(), audit.Filter{Environment: w.Environment, Actions: []string{"tool.call", "proxy.tunnel"}, Limit: 200})
	must(t, err)
	if len(page.Records) == 0 {
		t.Fatal("nothing is on record")
	}
	return slices.MaxFunc(page.Records, func(a, b audit.Record) int { return cmp.Compare(a.Seq, b.Seq) }) // the clock stands still
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// get makes a request and reads the whole answer.
func get(t testing.TB, c *http.Client, method, address, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	must(t, err)
	req.Header.Set("Authorization", "Bearer ambit_placeholder")
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.Do(req)
	must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp, string(text)
}

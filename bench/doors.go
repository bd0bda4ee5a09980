package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/e2e/world"
)

// The doors for clients that speak a provider's own HTTP, beside the same requests
// made directly: over HTTPS, with an answer of 1 KiB, each on record before it goes
// out unless the binary was built to record nothing.

const (
	keyHeader = "X-Api-Key"
	gibibyte  = 1 << 30
)

// provided is the third party of these measurements.
type provided struct {
	*httptest.Server
	place  string // localhost:port
	roots  *x509.CertPool
	pem    []byte       // its certificate, and the key of that
	opened atomic.Int64 // connections so far
}

// newProvided starts it.
func newProvided() (*provided, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), DNSNames: []string{"localhost"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	p := &provided{roots: x509.NewCertPool(), pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	p.roots.AppendCertsFromPEM(p.pem)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	p.pem = append(p.pem, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...)
	kib, part := bytes.Repeat([]byte("x"), 1<<10), make([]byte, 1<<20)
	for i := range part {
		part[i] = byte(i * 7)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /me", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"id":"1","email":"somebody@third.example"}`)
	})
	mux.HandleFunc("GET /kib", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(kib) })
	mux.HandleFunc("GET /gib", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(gibibyte))
		for range gibibyte / len(part) {
			if _, err := w.Write(part); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("GET /idle", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, ": begun\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Header.Get(keyHeader), "third-key-") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	p.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	p.EnableHTTP2 = true
	p.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			p.opened.Add(1)
		}
	}
	p.StartTLS()
	_, port, err := net.SplitHostPort(p.Listener.Addr().String())
	p.place = "localhost:" + port
	return p, err
}

// through is a client of a program that trusts roots and uses via, if not empty.
func through(roots *x509.CertPool, via string, h2 bool) (*http.Client, error) {
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: 64, DisableCompression: true, ForceAttemptHTTP2: h2}
	if via != "" {
		u, err := url.Parse(via)
		if err != nil {
			return nil, err
		}
		tr.Proxy = http.ProxyURL(u)
	}
	return &http.Client{Transport: tr}, nil
}

// fetch makes a request and reads want bytes.
func fetch(ctx context.Context, c *http.Client, address string, header http.Header, want int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	req.Header = header
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || n != want) {
		err = fmt.Errorf("%s: %s, %d bytes", address, resp.Status, n)
	}
	return err
}

// doors are a server, a session on it, and the clients of it and past it.
type doors struct {
	*broker
	up                      *provided
	trusted                 string // the file of its certificate
	direct, proxied, relays *http.Client
	fast                    *http.Client // of the proxy, over HTTP/2
	key, none, bearer       http.Header
}

func newDoors(ctx context.Context, dir, binary string, third *world.Third) (*doors, error) {
	d := &doors{broker: &broker{World: &world.World{}}, none: http.Header{}}
	var err error
	if d.up, err = newProvided(); err != nil {
		return d, err
	}
	d.trusted = filepath.Join(dir, "trusted.pem")
	if err := os.WriteFile(d.trusted, d.up.pem, 0o600); err != nil {
		return d, err
	}
	port, err := world.FreePort()
	if err != nil {
		return d, err
	}
	if d.broker, err = newBroker(ctx, world.Config{Dir: dir, Binary: binary, Third: third, Allow: []string{d.up.place},
		Env: []string{"SSL_CERT_FILE=" + d.trusted, "AMBIT_PROXY_LISTEN=localhost:" + port, "AMBIT_MEASURE_WITHOUT_RECORD=yes"}}); err != nil {
		return d, err
	}
	if _, err := d.API.PutProvider(ctx, "up", client.PutProvider{YAML: fmt.Sprintf(`id: up
name: Up
website: https://%[1]s
auth: api_key
identity: {path: /me, id: id, label: email}
inject: {header: %[2]s, format: "{api_key}"}
api: {base: ["https://%[1]s"]}
generic: {read: true}
`, d.up.place, keyHeader)}); err != nil {
		return d, err
	}
	if _, err := d.Owner.Connect(ctx, "up"); err != nil {
		return d, err
	}
	ses, err := d.agent.Session(ctx, world.Ask{Providers: []string{"up"}, Effects: []string{"read"}})
	if err != nil {
		return d, err
	}
	a, err := d.access(ctx, ses.Handle)
	if err != nil {
		return d, err
	}
	via, err := url.Parse(a.ProxyURL)
	if err != nil {
		return d, err
	}
	via.User = url.UserPassword("session", a.Token)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(a.CAPEM))
	var errs [4]error
	d.direct, errs[0] = through(d.up.roots, "", false)
	d.proxied, errs[1] = through(roots, via.String(), false)
	d.fast, errs[2] = through(roots, via.String(), true)
	d.relays, errs[3] = through(nil, "", false)
	d.key = http.Header{keyHeader: {"third-key-direct"}}
	d.bearer = http.Header{"Authorization": {"Bearer " + d.agent.Token}, "X-Ambit-Session": {ses.Handle}}
	return d, errors.Join(errs[:]...)
}

// behind is what a program needs behind the proxy.
type behind struct {
	Token    string `json:"token"`
	ProxyURL string `json:"proxy_url"`
	CAPEM    string `json:"ca_pem"`
}

// access asks for it, as `ambit run` does.
func (d *doors) access(ctx context.Context, handle string) (a behind, err error) {
	body, err := json.Marshal(map[string]string{"session": handle})
	if err != nil {
		return a, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.URL+"/proxy/session", bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	req.Header = http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + d.agent.Token}}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("a token for the session: %s %s", resp.Status, raw)
	}
	return a, errors.Join(err, json.Unmarshal(raw, &a))
}

func (d *doors) viaProxy(ctx context.Context) error {
	return fetch(ctx, d.proxied, "https://"+d.up.place+"/kib", d.none, 1<<10)
}

func (d *doors) viaRelay(ctx context.Context) error {
	return fetch(ctx, d.relays, d.URL+"/relay/up/kib", d.bearer, 1<<10)
}

func (d *doors) byItself(ctx context.Context) error {
	return fetch(ctx, d.direct, "https://"+d.up.place+"/kib", d.key, 1<<10)
}

// doorways measures all of it, for a binary that records and for one that does not.
func doorways(ctx context.Context, o options, dir, binary string, third *world.Third) error {
	unrecorded, err := world.Build(ctx, dir, "unrecorded")
	if err != nil {
		return err
	}
	report := Report{Time: time.Now().UTC(), Go: runtime.Version(), CPUs: runtime.NumCPU()}
	for _, way := range []struct{ name, dir, program string }{{"", "doors", binary}, {", no record", "unrecorded", unrecorded}} {
		rows, err := doorway(ctx, o, filepath.Join(dir, way.dir+".d"), way.program, way.name, third)
		report.Rows = append(report.Rows, rows...)
		if err != nil {
			show(report)
			return err
		}
	}
	show(report)
	return nil
}

func doorway(ctx context.Context, o options, dir, binary, name string, third *world.Third) (rows []Row, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	d, err := newDoors(ctx, dir, binary, third)
	if d.up != nil {
		defer d.up.Close()
	}
	defer func() { err = errors.Join(err, d.Stop()) }()
	if err != nil {
		return nil, err
	}
	warm := options{calls: 500, seconds: 10 * time.Second}
	for _, call := range []func(context.Context) error{d.byItself, d.viaProxy, d.viaRelay} {
		if _, err := load(ctx, warm, 16, call); err != nil {
			return nil, err
		}
	}
	pid := d.pid()
	if rows, err = taken(ctx, o, []kind{
		{"direct", 1, pid, d.byItself}, {"proxy" + name, 1, pid, d.viaProxy}, {"relay" + name, 1, pid, d.viaRelay},
		{"direct", 16, pid, d.byItself}, {"proxy" + name, 16, pid, d.viaProxy}, {"relay" + name, 16, pid, d.viaRelay},
	}); err != nil {
		return nil, err
	}
	fmt.Printf("%d connections to the third party were opened from the start on%s\n", d.up.opened.Load(), name)
	if name != "" {
		return rows, nil
	}
	for i := range rows {
		if call := map[string]func(context.Context) error{"proxy": d.viaProxy, "relay": d.viaRelay}[rows[i].Path]; call != nil {
			rows[i].Fsyncs, err = traced(pid, func() (int, error) {
				r, err := load(ctx, options{calls: 400, seconds: 20 * time.Second}, rows[i].Concurrency, call)
				return r.Calls, err
			})
			if err != nil {
				return nil, err
			}
		}
	}
	if err := d.downloads(ctx); err != nil {
		return rows, err
	}
	return rows, d.idle(ctx, 2000)
}

// downloads measures 1 GiB through the proxy beside a plain reverse proxy, which is a
// process of its own too, in turns.
func (d *doors) downloads(ctx context.Context) error {
	plain, err := d.startPlain(ctx, false)
	if err != nil {
		return err
	}
	defer func() { _ = plain.stop() }()
	secured, err := d.startPlain(ctx, true)
	if err != nil {
		return err
	}
	defer func() { _ = secured.stop() }()
	sources := []struct {
		name string
		pid  int
		get  func() error
	}{
		{"a plain reverse proxy, HTTP to it", plain.pid(), func() error { return fetch(ctx, d.direct, plain.url+"/gib", d.key, gibibyte) }},
		{"a plain reverse proxy, HTTPS to it", secured.pid(), func() error { return fetch(ctx, d.direct, secured.url+"/gib", d.key, gibibyte) }},
		{"proxy", d.pid(), func() error { return fetch(ctx, d.proxied, "https://"+d.up.place+"/gib", d.none, gibibyte) }},
		{"proxy, HTTP/2", d.pid(), func() error { return fetch(ctx, d.fast, "https://"+d.up.place+"/gib", d.none, gibibyte) }},
		{"relay", d.pid(), func() error { return fetch(ctx, d.relays, d.URL+"/relay/up/gib", d.bearer, gibibyte) }},
	}
	fmt.Println("\n| 1 GiB through | MiB/s | processor s of it |")
	fmt.Println("|---|---|---|")
	rates := make([][]Row, len(sources))
	for range 3 {
		for i, s := range sources {
			before, err := cpuTime(s.pid)
			if err != nil {
				return err
			}
			began := time.Now()
			if err := s.get(); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			took := time.Since(began)
			after, err := cpuTime(s.pid)
			if err != nil {
				return err
			}
			rates[i] = append(rates[i], Row{Rate: 1024 / took.Seconds(), CPU: (after - before).Seconds()})
		}
	}
	for i, s := range sources {
		m := median(rates[i])
		fmt.Printf("| %s | %.0f | %.2f |\n", s.name, m.Rate, m.CPU)
	}
	return nil
}

// idle measures the memory that n event streams through the proxy take on which
// nothing comes.
func (d *doors) idle(ctx context.Context, n int) error {
	before, err := rss(d.pid())
	if err != nil {
		return err
	}
	ctx, hangUp := context.WithCancel(ctx)
	defer hangUp()
	for range n {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+d.up.place+"/idle", nil)
		if err != nil {
			return err
		}
		resp, err := d.fast.Do(req)
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("an event stream: %s", resp.Status)
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, 9)); err != nil {
			return err
		}
	}
	time.Sleep(5 * time.Second)
	after, err := rss(d.pid())
	if err == nil {
		fmt.Printf("\n%d idle event streams: the server holds %.0f MiB, %.0f before them\n\n", n, after, before)
	}
	return err
}

// startPlain starts a reverse proxy to the third party, which speaks TLS itself if it
// is to.
func (d *doors) startPlain(ctx context.Context, secured bool) (*parts, error) {
	p, err := startSelf(ctx, "-plain", "https://"+d.up.place, d.trusted, strconv.FormatBool(secured))
	if err == nil && secured {
		_, port, _ := strings.Cut(strings.TrimPrefix(p.url, "http://"), ":")
		p.url = "https://localhost:" + port
	}
	return p, err
}

// servePlain is that process. The file holds a certificate, which it trusts and shows,
// and its key.
func servePlain(to, file string, secured bool) error {
	cert, err := tls.LoadX509KeyPair(file, file)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert.Leaf)
	u, err := url.Parse(to)
	if err != nil {
		return err
	}
	p := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u) },
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
	if !secured {
		return serveUntilInputEnds(nil, p.ServeHTTP)
	}
	return serveUntilInputEnds(&tls.Config{Certificates: []tls.Certificate{cert}}, p.ServeHTTP)
}

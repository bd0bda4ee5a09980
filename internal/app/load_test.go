package app_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/app"
)

// U2, W5: no door takes a body in a coding that hides its size.
func TestEncodedBodiesAreRefused(t *testing.T) {
	t.Parallel()
	a := run(t, app.Config{})
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write(make([]byte, 8<<20))
	_ = z.Close()
	for _, path := range []string{"/mcp", "/v1/organizations", "/v1/revocations", "/oauth/token", "/oauth/register", "/vault/v1/kv", "/ui/signin", "/nowhere"} {
		for _, coding := range []string{"gzip", "br", "deflate", "GZIP", "identity, gzip"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, a.PublicURL().String()+path, bytes.NewReader(bomb.Bytes()))
			must(t, err)
			req.Header.Set("Content-Encoding", coding)
			req.Header.Set("Content-Type", "application/json")
			resp, err := plainClient(t).Do(req)
			must(t, err)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusUnsupportedMediaType {
				t.Errorf("%s with %s: got %d", path, coding, resp.StatusCode)
			}
		}
	}
}

// What is turned away before a door sees it was plain text everywhere. On each
// door it has the form of that door's own refusals, which its clients parse.
func TestTurnedAwayInTheFormOfTheDoor(t *testing.T) {
	t.Parallel()
	a := run(t, app.Config{})
	base := a.PublicURL()
	send := func(path, host, coding string) (*http.Response, map[string]any) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base.String()+path, strings.NewReader("{}"))
		must(t, err)
		req.Host = host
		req.Header.Set("Content-Type", "application/json")
		if coding != "" {
			req.Header.Set("Content-Encoding", coding)
		}
		resp, err := plainClient(t).Do(req)
		must(t, err)
		defer resp.Body.Close()
		var doc map[string]any
		if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
			t.Errorf("%s: a body of %q that is no JSON: %v", path, resp.Header.Get("Content-Type"), err)
		}
		return resp, doc
	}
	at := func(doc map[string]any, path ...string) any {
		var v any = doc
		for _, p := range path {
			m, _ := v.(map[string]any)
			v = m[p]
		}
		return v
	}
	host := base.Host
	for _, row := range []struct {
		name, host, coding, code string
		fill                     bool
		status                   int
		rpc                      float64
		oauth                    string
	}{
		{"another host", "evil.example", "", "misdirected_request", false, http.StatusMisdirectedRequest, -32600, "invalid_request"},
		{"a coding", host, "gzip", "unsupported_media_type", false, http.StatusUnsupportedMediaType, -32600, "invalid_request"},
		{"no room", host, "", "overloaded", true, http.StatusServiceUnavailable, -32000, "temporarily_unavailable"},
	} {
		if row.fill {
			defer a.Fill()()
		}
		for path, want := range map[string]map[string]any{
			"/mcp":          {"jsonrpc": "2.0", "error.code": row.rpc, "error.data.code": row.code},
			"/v1/agents":    {"error.code": row.code},
			"/vault/v1/kv":  {"code": row.code},
			"/events":       {"code": row.code},
			"/oauth/token":  {"error": row.oauth},
			"/v1/nowhere/x": {"error.code": row.code},
		} {
			resp, doc := send(path, row.host, row.coding)
			if resp.StatusCode != row.status || row.status == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "" {
				t.Errorf("%s, %s: status %d, Retry-After %q", row.name, path, resp.StatusCode, resp.Header.Get("Retry-After"))
			}
			for place, v := range want {
				if got := at(doc, strings.Split(place, ".")...); got != v {
					t.Errorf("%s, %s: %s is %v, want %v in %v", row.name, path, place, got, v, doc)
				}
			}
		}
	}
}

// W7: a server with no room left says so before any work, with the time to wait;
// probes are answered, and what ends access has a place of its own.
func TestOverloadIsShed(t *testing.T) {
	t.Parallel()
	a := run(t, app.Config{})
	c, base := plainClient(t), a.PublicURL().String()
	release := a.Fill()
	for _, path := range []string{"/", "/ui/signin", "/v1/organizations", "/.well-known/oauth-authorization-server"} {
		resp, body := get(t, c, base+path, "", nil)
		if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "overloaded") && !strings.Contains(body, "temporarily_unavailable") {
			t.Errorf("%s: got %d, Retry-After %q", path, resp.StatusCode, resp.Header.Get("Retry-After"))
		}
	}
	if resp, _ := get(t, c, base+"/healthz", "", nil); resp.StatusCode != http.StatusOK {
		t.Errorf("/healthz: %d", resp.StatusCode)
	}
	resp, err := c.Post(base+"/v1/revocations", "application/json", strings.NewReader("{}"))
	must(t, err)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a revocation: got %d, want to be asked who it is", resp.StatusCode)
	}
	release()
	if resp, _ := get(t, c, base+"/ui/signin", "", nil); resp.StatusCode != http.StatusOK {
		t.Errorf("with room again: %d", resp.StatusCode)
	}
}

// W5: a client that does not read its answer is cut; one that reads slowly is not,
// and neither is an answer that lasts.
func TestSlowReadersAreCut(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	handler := app.Pace(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/lasts" {
			for range 6 {
				_, _ = io.WriteString(w, "still here\n")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(200 * time.Millisecond)
			}
			return
		}
		part := make([]byte, 16<<10)
		var err error
		for range 4096 {
			if _, err = w.Write(part); err != nil {
				break
			}
		}
		ended <- err
	}), 500*time.Millisecond)
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	must(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET /large HTTP/1.1\r\nHost: x\r\n\r\n") // and reads nothing
	must(t, err)
	select {
	case err := <-ended:
		if err == nil {
			t.Error("64 MiB went to a client that does not read")
		}
	case <-time.After(60 * time.Second):
		t.Fatal("the handler still waits for a client that does not read")
	}
	resp, body := get(t, plainClient(t), srv.URL+"/lasts", "", nil)
	if resp.StatusCode != http.StatusOK || strings.Count(body, "still here") != 6 {
		t.Errorf("an answer that lasts: %d, %q", resp.StatusCode, body)
	}
}

// W8: streams that clients abort, at any moment, leave no goroutine. 1,000 of
// them, 10,000 with AMBIT_LONG=1.
func TestW8AbortedStreamsLeaveNothing(t *testing.T) {
	a := run(t, app.Config{})
	owner := accounttest.Owner(t, a.People)
	var keys []string
	for i := range 20 { // a caller may have four at once
		_, key, err := a.People.IssueKey(t.Context(), account.NewKey{Environment: owner.Environment(), Name: fmt.Sprint("reader ", i), Scopes: []account.Scope{account.ScopeAuditRead}})
		must(t, err)
		keys = append(keys, string(key.Reveal()))
	}
	n := 1000
	if os.Getenv("AMBIT_LONG") == "1" {
		n = 10_000
	}
	tr := &http.Transport{MaxIdleConnsPerHost: 20}
	client := &http.Client{Transport: tr}
	var opened atomic.Int64
	abort := func(i int) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.PublicURL().String()+"/v1/audit/stream", nil)
		must(t, err)
		req.Header.Set("Authorization", "Bearer "+keys[i%len(keys)])
		switch i % 3 {
		case 0: // before there is an answer
			time.AfterFunc(time.Duration(i%5)*time.Millisecond, cancel)
			if resp, err := client.Do(req); err == nil {
				_ = resp.Body.Close()
			}
		default: // in the middle of it
			resp, err := client.Do(req)
			if err != nil {
				return
			}
			if resp.StatusCode == http.StatusOK {
				opened.Add(1)
			}
			_, _ = resp.Body.Read(make([]byte, 1))
			cancel()
			_ = resp.Body.Close()
		}
	}
	for i := range 20 {
		abort(i)
	}
	tr.CloseIdleConnections()
	time.Sleep(200 * time.Millisecond)
	before := runtime.NumGoroutine()
	work := make(chan int)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for i := range work {
				abort(i)
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	wg.Wait()
	if opened.Load() < int64(n/3) {
		t.Errorf("only %d of %d streams were open when they were aborted", opened.Load(), n)
	}
	tr.CloseIdleConnections()
	for limit := time.Now().Add(30 * time.Second); runtime.NumGoroutine() > before+5; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%d goroutines after %d aborted streams, %d before", runtime.NumGoroutine(), n, before)
		}
	}
}

// W8: streams of HTTP/2 that are opened and reset as fast as a client can leave
// nothing, and the server goes on answering others. It closes the connection of
// one that opens more than it may.
func TestW8RapidReset(t *testing.T) {
	cert, key := t.TempDir()+"/cert.pem", t.TempDir()+"/key.pem"
	writePair(t, cert, key, "localhost")
	a := run(t, app.Config{TLSCert: cert, TLSKey: key})
	before := runtime.NumGoroutine()
	dial := func() net.Conn {
		t.Helper()
		conn, err := tlsDial(a.PublicURL().Host)
		must(t, err)
		return conn
	}
	conn := dial()
	defer conn.Close()
	fr := http2.NewFramer(conn, conn)
	_, err := io.WriteString(conn, http2.ClientPreface)
	must(t, err)
	must(t, fr.WriteSettings())
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	sent := 0
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	_ = conn.SetWriteDeadline(time.Now().Add(30 * time.Second))
	for i := range 20_000 {
		block.Reset()
		for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", a.PublicURL().Host}, {":path", "/ui/signin"}} {
			must(t, enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
		}
		id := uint32(2*i + 1)
		if fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}) != nil || fr.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			break
		}
		sent++
	}
	t.Logf("%d streams were opened and reset", sent)
	tr := tlsTransport()
	defer tr.CloseIdleConnections()
	resp, _ := get(t, &http.Client{Transport: tr}, a.PublicURL().String()+"/healthz", "", nil)
	if resp.StatusCode != http.StatusOK {
		t.Errorf("another client gets %d", resp.StatusCode)
	}
	_ = conn.Close()
	tr.CloseIdleConnections()
	for limit := time.Now().Add(30 * time.Second); runtime.NumGoroutine() > before+8; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%d goroutines after the resets, %d before", runtime.NumGoroutine(), before)
		}
	}
}

func tlsDial(host string) (net.Conn, error) {
	return tls.Dial("tcp", host, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
}

func tlsTransport() *http.Transport {
	return &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
}

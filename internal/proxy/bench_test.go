package proxy_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// BenchmarkProxy measures requests through a tunnel beside the same ones made
// directly: HTTPS, an answer of 1 KiB, each on record before it goes out. Client,
// proxy and third party are one process.
//
//	go test ./internal/proxy -run xxx -bench Proxy -benchtime 5s
func BenchmarkProxy(b *testing.B) {
	w := newWorld(b, sqldbtest.Open(b, sqldb.SQLite), gateway.Egress{})
	body := make([]byte, 1<<10)
	w.mux.HandleFunc("GET /kib", func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(body) })
	for _, path := range []string{"direct", "proxy"} {
		for _, workers := range []int{1, 16} {
			b.Run(fmt.Sprint(path, "/", workers), func(b *testing.B) {
				clients := make([]*http.Client, workers)
				for i := range clients {
					if clients[i] = w.client(b, false); path == "direct" {
						clients[i] = w.direct(b)
					}
					w.fetch(b, clients[i], "/kib")
				}
				took := make([][]time.Duration, workers)
				b.ResetTimer()
				var wg sync.WaitGroup
				for i, c := range clients {
					wg.Go(func() {
						for n := i; n < b.N; n += workers {
							began := time.Now()
							w.fetch(b, c, "/kib")
							took[i] = append(took[i], time.Since(began))
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				all := slices.Concat(took...)
				slices.Sort(all)
				b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
				b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
				b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "req/s")
			})
		}
	}
}

// BenchmarkDownload measures one download of 1 GiB, through the proxy, with what is
// taken out of it on the way, beside a plain reverse proxy.
//
//	go test ./internal/proxy -run xxx -bench Download -benchtime 3x
func BenchmarkDownload(b *testing.B) {
	const size = 1 << 30
	w := newWorld(b, sqldbtest.Open(b, sqldb.SQLite), gateway.Egress{})
	part := make([]byte, 1<<20)
	for i := range part {
		part[i] = byte(i * 7)
	}
	w.mux.HandleFunc("GET /big", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/octet-stream")
		rw.Header().Set("Content-Length", strconv.Itoa(size))
		for range size / len(part) {
			if _, err := rw.Write(part); err != nil {
				return
			}
		}
	})
	to, err := url.Parse(w.https(""))
	must(b, err)
	cert, pool := selfSigned(b)
	plain := httptest.NewUnstartedServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Header.Set("Authorization", "Bearer "+canary)
	}, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.upPool}, ForceAttemptHTTP2: true}})
	plain.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	plain.StartTLS()
	defer plain.Close()
	beside := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "localhost"}}}
	defer beside.CloseIdleConnections()
	for name, do := range map[string]func() (*http.Response, error){
		"plain": func() (*http.Response, error) { return beside.Get(plain.URL + "/big") },
		"proxy": func() (*http.Response, error) { return w.client(b, false).Get(w.https("/big")) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				resp, err := do()
				must(b, err)
				n, err := io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if err != nil || n != size {
					b.Fatalf("%d bytes, %v", n, err)
				}
			}
		})
	}
}

// BenchmarkIdleStreams measures the memory of event streams on which nothing comes:
// of client, proxy and third party together.
//
//	go test ./internal/proxy -run xxx -bench IdleStreams -benchtime 2000x
func BenchmarkIdleStreams(b *testing.B) {
	w := newWorld(b, sqldbtest.Open(b, sqldb.SQLite), gateway.Egress{})
	w.mux.HandleFunc("GET /idle", func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(rw, ": begun\n\n")
		rw.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	c := w.client(b, true)
	before := inUse()
	var open []*http.Response
	for range b.N {
		resp, err := c.Get(w.https("/idle"))
		must(b, err)
		if resp.StatusCode != http.StatusOK {
			b.Fatal(resp.Status)
		}
		open = append(open, resp)
	}
	b.ReportMetric(float64(inUse()-before)/(1<<20), "MiB")
	for _, resp := range open {
		_ = resp.Body.Close()
	}
}

func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// direct is a client that knows the key and needs no proxy.
func (w *world) direct(b *testing.B) *http.Client {
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.upPool}}
	b.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: keyed{tr}}
}

type keyed struct{ next http.RoundTripper }

func (k keyed) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("Authorization", "Bearer "+canary)
	return k.next.RoundTrip(r)
}

func (w *world) fetch(b *testing.B, c *http.Client, path string) {
	resp, err := c.Get(w.https(path))
	if err != nil {
		b.Error(err)
		return
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b.Error(resp.Status)
	}
}

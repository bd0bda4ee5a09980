package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// load calls from n callers at once until the calls or the time are used up,
// and fails when a call does: a refusal is quicker than the work and would
// make the numbers look good.
func load(ctx context.Context, o options, n int, call func(context.Context) error) (Row, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var left atomic.Int64
	left.Store(int64(o.calls))
	took := make([][]time.Duration, n)
	errs := make([]error, n)
	began := time.Now()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for left.Add(-1) >= 0 && time.Since(began) < o.seconds {
				start := time.Now()
				if err := call(ctx); err != nil {
					errs[i] = err
					cancel()
					return
				}
				took[i] = append(took[i], time.Since(start))
			}
		})
	}
	wg.Wait()
	wall := time.Since(began)
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return Row{}, err
		}
	}
	all := slices.Concat(took...)
	if len(all) == 0 {
		return Row{}, errors.New("no call was made")
	}
	slices.Sort(all)
	at := func(q float64) float64 { return float64(all[int(q*float64(len(all)-1))].Microseconds()) / 1000 }
	return Row{Concurrency: n, Calls: len(all), P50: at(0.5), P99: at(0.99), Rate: float64(len(all)) / wall.Seconds()}, nil
}

// wire is the client of all measured calls: kept connections, no redirects.
var wire = &http.Client{
	Timeout:       30 * time.Second,
	Transport:     &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// stub is the third party: an API with a key that answers one kilobyte at once.
type stub struct {
	listener net.Listener
	server   *http.Server
	calls    atomic.Int64
}

const stubKey = "stub-key-0123456789abcdef"

func newStub() (*stub, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &stub{listener: l}
	body := `{"items":["` + strings.Repeat("0123456789", 100) + `"]}`
	mux := http.NewServeMux()
	mux.HandleFunc("GET /items", func(w http.ResponseWriter, r *http.Request) {
		s.calls.Add(1)
		if r.Header.Get("X-Api-Key") != stubKey {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, body)
	})
	mux.HandleFunc("GET /me", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":"1","email":"stub@bench.example"}`)
	})
	s.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = s.server.Serve(l) }()
	return s, nil
}

func (s *stub) close()          { _ = s.server.Close() }
func (s *stub) address() string { return s.listener.Addr().String() }

// direct is the call that an agent with the key itself would make.
func (s *stub) direct(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address()+"/items", nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-Api-Key", stubKey)
	_, err = send(req)
	return err
}

// send wants 200 and reads the whole answer.
func send(req *http.Request) ([]byte, error) {
	resp, err := wire.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(req.Method + " " + req.URL.Path + ": " + resp.Status + " " + string(body))
	}
	return body, err
}

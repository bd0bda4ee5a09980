package proxy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/net/websocket"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// W5: whoever does not read an answer held a place among the organization's streams
// until the session ended. The answer is given up, on whatever the client speaks.
func TestUnreadAnswersEnd(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(*testing.T, *world){
		"HTTP/1.1": func(t *testing.T, w *world) {
			_, err := io.WriteString(w.tunnel(t, "http/1.1"), "GET /flood HTTP/1.1\r\nHost: "+w.place+"\r\n\r\n")
			must(t, err)
		},
		"a stream of HTTP/2": func(t *testing.T, w *world) {
			frames := floodOverHTTP2(t, w)
			go func() { // which takes frames, and never says that there is room for more
				for {
					if _, err := frames.ReadFrame(); err != nil {
						return
					}
				}
			}()
		},
		"a connection of HTTP/2": func(t *testing.T, w *world) {
			must(t, floodOverHTTP2(t, w).WriteWindowUpdate(0, 1<<30))
		},
		"a WebSocket": func(t *testing.T, w *world) {
			_, err := io.WriteString(w.tunnel(t, "http/1.1"), "GET /floodsocket HTTP/1.1\r\nHost: "+w.place+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
			must(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, sqldbtest.Open(t, sqldb.SQLite), gateway.Egress{})
			w.door.Hurry(500 * time.Millisecond)
			part := bytes.Repeat([]byte("x"), 32<<10)
			w.mux.HandleFunc("GET /flood", func(rw http.ResponseWriter, _ *http.Request) {
				for {
					if _, err := rw.Write(part); err != nil {
						return
					}
				}
			})
			w.mux.Handle("GET /floodsocket", websocket.Handler(func(c *websocket.Conn) {
				for websocket.Message.Send(c, part) == nil {
				}
			}))
			ask(t, w)
			if w.outcome(t) == nil {
				t.Error("after 20 s the answer is still under way")
			}
		})
	}
}

// outcome waits for that of the one call on record; nil: there was none in 20 s.
func (w *world) outcome(t *testing.T) *audit.Outcome {
	t.Helper()
	for range 1000 {
		page, err := w.Audit.List(t.Context(), audit.Filter{Environment: w.Environment, Action: "tool.call", Limit: 10})
		must(t, err)
		if len(page.Records) == 1 && page.Records[0].Outcome != nil {
			return page.Records[0].Outcome
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

// floodOverHTTP2 asks for /flood and takes as much at once as a client may.
func floodOverHTTP2(t *testing.T, w *world) *http2.Framer {
	t.Helper()
	conn := w.tunnel(t, "h2")
	_, err := io.WriteString(conn, http2.ClientPreface)
	must(t, err)
	frames := http2.NewFramer(conn, conn)
	must(t, frames.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30}))
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", w.place}, {":path", "/flood"}} {
		must(t, enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
	}
	must(t, frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndStream: true, EndHeaders: true}))
	return frames
}

// A bug: a provider that answers before it has the whole body leaves the reading of it
// to somebody who sets its deadline after the request is over, which over HTTP/2
// ended the server. Over HTTP/1.1 the answer waited for the client.
func TestAnswersBeforeTheWholeBody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldbtest.Open(t, sqldb.SQLite), gateway.Egress{})
	w.mux.HandleFunc("POST /early", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "no need") })
	more := bytes.Repeat([]byte("x"), 3<<19)
	for range 5 {
		from, to := io.Pipe()
		req, err := http.NewRequestWithContext(t.Context(), "POST", w.https("/early"), from)
		must(t, err)
		req.Header.Set("Content-Type", "application/octet-stream")
		go func() { _, _ = to.Write(more) }()
		resp, err := w.client(t, true).Do(req)
		must(t, err)
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		_ = to.Close()
		if err != nil || string(text) != "no need" || resp.ProtoMajor != 2 {
			t.Fatalf("%s %s %q, %v", resp.Proto, resp.Status, text, err)
		}
	}

	conn := w.tunnel(t, "http/1.1")
	must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err := fmt.Fprintf(conn, "POST /early HTTP/1.1\r\nHost: %s\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n", w.place, 4*len(more))
	must(t, err)
	_, err = conn.Write(more)
	must(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), httptest.NewRequest("POST", "/early", nil))
	must(t, err)
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || string(text) != "no need" {
		t.Fatalf("HTTP/1.1: %s %q, %v", resp.Status, text, err)
	}
}

// A client that offers another protocol than WebSocket gets its answer, as a server
// may always give it (RFC 9110 §7.8).
func TestOtherUpgradesAreNotTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldbtest.Open(t, sqldb.SQLite), gateway.Egress{})
	conn := w.tunnel(t, "http/1.1")
	_, err := io.WriteString(conn, "GET /echo HTTP/1.1\r\nHost: "+w.place+"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n")
	must(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || strings.Contains(strings.ToLower(string(text)), "upgrade") || w.last(t).Effect != "read" {
		t.Errorf("%s %s, %v; on record as %s", resp.Status, text, err, w.last(t).Effect)
	}
}

// A bug: the largest length that an answer can claim was counted over the edge, and the
// handler broke off with a panic of its own before anything was read.
func TestLargestLength(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldbtest.Open(t, sqldb.SQLite), gateway.Egress{})
	w.mux.HandleFunc("GET /claims", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Length", fmt.Sprint(int64(math.MaxInt64)))
		fmt.Fprint(rw, "hello")
		_ = http.NewResponseController(rw).Flush()
		panic(http.ErrAbortHandler)
	})
	resp, err := w.client(t, false).Get(w.https("/claims"))
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
	}
	if o := w.outcome(t); err == nil || o == nil || o.Code == "answer_given_up" {
		t.Errorf("an answer that broke off: %v, on record as %+v", err, o)
	}
}

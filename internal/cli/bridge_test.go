package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// piped runs a bridge to handler and gives both ends of its streams.
func piped(t *testing.T, token tokenSource, handler http.HandlerFunc) (send func(string), next func() map[string]any, end func()) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	in, write := io.Pipe()
	read, out := io.Pipe()
	b := &stdioBridge{url: server.URL + "/mcp", token: token, http: server.Client(), out: out, running: map[string]context.CancelFunc{}}
	done := make(chan error, 1)
	go func() {
		done <- b.serve(t.Context(), in)
		_ = out.Close()
	}()
	lines := make(chan map[string]any, 64)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(read); s.Scan(); {
			var m map[string]any
			if json.Unmarshal(s.Bytes(), &m) != nil {
				m = map[string]any{"unreadable": s.Text()}
			}
			lines <- m
		}
	}()
	next = func() map[string]any {
		t.Helper()
		select {
		case m := <-lines:
			return m
		case <-time.After(30 * time.Second):
			t.Fatal("nothing comes back")
			return nil
		}
	}
	end = func() {
		t.Helper()
		_ = write.Close()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the bridge ended with %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("the bridge does not end with its input")
		}
	}
	return func(line string) { _, _ = io.WriteString(write, line+"\n") }, next, end
}

func always(token string) tokenSource {
	return givenToken(func(context.Context) ([]byte, error) { return []byte(token), nil })
}

func answered(w http.ResponseWriter, id any, result string) {
	w.Header().Set("Content-Type", "application/json")
	doc, _ := json.Marshal(id)
	_, _ = fmt.Fprintf(w, "{\"jsonrpc\":\"2.0\",\n\"id\":%s,\"result\":%s}", doc, result)
}

// A message goes as it is, with the headers that repeat it; its answer comes back
// as one line.
func TestBridgeCarries(t *testing.T) {
	t.Parallel()
	send, next, end := piped(t, always("amb_at_x"), func(w http.ResponseWriter, r *http.Request) {
		var m map[string]any
		_ = json.NewDecoder(r.Body).Decode(&m)
		if m["id"] == nil {
			w.WriteHeader(http.StatusAccepted)
			return
		}
		got, _ := json.Marshal([]string{r.Header.Get("Authorization"), r.Header.Get("Mcp-Protocol-Version"), r.Header.Get("Mcp-Method"), r.Header.Get("Mcp-Name")})
		if m["method"] == "initialize" {
			answered(w, m["id"], `{"protocolVersion":"2025-11-25"}`)
			return
		}
		answered(w, m["id"], string(got))
	})
	send(`{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"sand\u00e9","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}`)
	if m := next(); m["id"] != "a" || fmt.Sprint(m["result"]) != "[Bearer amb_at_x 2026-07-28 tools/call =?base64?c2FuZMOp?=]" {
		t.Errorf("got %v", m)
	}
	send(`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}`)
	next()
	send(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	send(`{"jsonrpc":"2.0","id":2,"method":"tools/list"}`)
	if m := next(); m["id"] != 2.0 || fmt.Sprint(m["result"]) != "[Bearer amb_at_x 2025-11-25  ]" {
		t.Errorf("got %v", m)
	}
	send(`not a message`)
	if m := next(); m["error"] == nil {
		t.Errorf("got %v, want an error", m)
	}
	end()
}

// Cancelled requests end at the server and are not answered; more than the bridge
// takes are refused at once, so that the cancelling is heard.
func TestBridgeCancelsAndIsBounded(t *testing.T) {
	t.Parallel()
	arrived, left := make(chan struct{}, 64), make(chan struct{}, 64)
	send, next, end := piped(t, always("x"), func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else the end of the connection is not seen
		arrived <- struct{}{}
		<-r.Context().Done()
		left <- struct{}{}
	})
	for i := range bridgeRequests {
		send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"x"}}`, i))
	}
	send(`{"jsonrpc":"2.0","id":"more","method":"tools/list"}`)
	if m := next(); m["id"] != "more" || m["error"] == nil {
		t.Errorf("one too many: got %v, want a refusal", m)
	}
	wait := func(for16 <-chan struct{}, what string) {
		t.Helper()
		for range bridgeRequests {
			select {
			case <-for16:
			case <-time.After(30 * time.Second):
				t.Fatal(what)
			}
		}
	}
	wait(arrived, "not all requests arrive")
	for i := range bridgeRequests {
		send(fmt.Sprintf(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%d}}`, i))
	}
	wait(left, "a cancelled request goes on at the server")
	end()
}

// A token that ended is replaced once; what may be repeated is, when a connection
// breaks; a call that may have arrived is not.
func TestBridgeGoesOn(t *testing.T) {
	t.Parallel()
	var tokens, lists, calls, streams atomic.Int64
	source := givenToken(func(context.Context) ([]byte, error) { return fmt.Appendf(nil, "t%d", tokens.Add(1)/2), nil })
	send, next, end := piped(t, source, func(w http.ResponseWriter, r *http.Request) {
		var m map[string]any
		_ = json.NewDecoder(r.Body).Decode(&m)
		switch {
		case m["method"] == "ping":
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"jsonrpc":"2.0","error":{"code":-32000,"message":"no"}}`)
		case m["method"] == "tools/list" && lists.Add(1) < 3, m["method"] == "tools/call" && calls.Add(1) < 3:
			panic(http.ErrAbortHandler)
		case m["method"] == "subscriptions/listen":
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, `data: {"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"_meta":{"s":1}}}`+"\n\n")
			if streams.Add(1) == 2 {
				_, _ = io.WriteString(w, `data: {"jsonrpc":"2.0","id":9,"result":{}}`+"\n\n")
			}
		default:
			answered(w, m["id"], `{}`)
		}
	})
	send(`{"jsonrpc":"2.0","id":1,"method":"tools/list"}`)
	if m := next(); m["result"] == nil || lists.Load() != 3 {
		t.Errorf("a list: got %v after %d tries, want an answer after 3", m, lists.Load())
	}
	send(`{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"x"}}`)
	if m := next(); m["error"] == nil || calls.Load() != 1 || !strings.Contains(fmt.Sprint(m["error"]), "may have been made") {
		t.Errorf("a call: got %v after %d tries, want an error after one", m, calls.Load())
	}
	send(`{"jsonrpc":"2.0","id":3,"method":"ping"}`)
	if m := next(); m["id"] != 3.0 || m["error"] == nil {
		t.Errorf("a token that nobody takes: got %v, want an error with the id", m)
	}
	send(`{"jsonrpc":"2.0","id":9,"method":"subscriptions/listen"}`)
	for _, want := range []string{"notifications/subscriptions/acknowledged", "notifications/tools/list_changed", "<nil>"} {
		if m := next(); fmt.Sprint(m["method"]) != want {
			t.Errorf("a stream that broke: got %v, want %s", m, want)
		}
	}
	end()
}

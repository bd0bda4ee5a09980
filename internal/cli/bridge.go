package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/provider"
)

// Bounds of the bridge.
const (
	bridgeLine     = 1 << 20 // bytes of one message; the server takes no more
	bridgeAnswer   = 32 << 20
	bridgeRequests = 16 // under way at once, streams among them
	bridgeRetry    = 30 * time.Second
	bridgeEnd      = 5 * time.Second // for what is under way when the input ends
)

// stdioBridge carries messages between a client's standard streams, one JSON text a
// line, and a server's /mcp. It understands no more of them than the transport
// asks for: headers that repeat the body, an end to what is cancelled.
type stdioBridge struct {
	url   string
	token tokenSource
	http  *http.Client

	outMu sync.Mutex
	out   io.Writer

	mu      sync.Mutex
	version string                        // that an initialize negotiated
	running map[string]context.CancelFunc // by the id of a request, as written
}

// envelope is what the transport needs of a message.
type envelope struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params struct {
		Name      string          `json:"name"`
		URI       string          `json:"uri"`
		RequestID json.RawMessage `json:"requestId"`
		Meta      struct {
			Version string `json:"io.modelcontextprotocol/protocolVersion"`
		} `json:"_meta"`
	} `json:"params"`
}

// serve runs until the input ends.
func (b *stdioBridge) serve(ctx context.Context, in io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), bridgeLine)
	for lines.Scan() {
		line := bytes.Clone(bytes.TrimSpace(lines.Bytes()))
		if len(line) == 0 {
			continue
		}
		var m envelope
		if err := json.Unmarshal(line, &m); err != nil {
			b.fail(nil, -32700, "The line is not a message of JSON-RPC.")
			continue
		}
		if m.Method == "notifications/cancelled" {
			b.stop(string(m.Params.RequestID))
			continue
		}
		one, done, ok := b.begin(ctx, string(m.ID))
		if !ok {
			b.fail(m.ID, -32000, "Too many requests are under way, or one of this id is.")
			continue
		}
		wg.Go(func() {
			defer done()
			b.carry(one, m, line)
		})
	}
	over := time.AfterFunc(bridgeEnd, cancel)
	defer over.Stop()
	wg.Wait()
	return lines.Err()
}

func (b *stdioBridge) begin(ctx context.Context, id string) (one context.Context, done func(), ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, twice := b.running[id]; len(b.running) >= bridgeRequests || twice && id != "" {
		return nil, nil, false
	}
	if id == "" { // a notification, which is answered at once
		return ctx, func() {}, true
	}
	one, cancel := context.WithCancel(ctx)
	b.running[id] = cancel
	return one, func() {
		cancel()
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.running, id)
	}, true
}

func (b *stdioBridge) stop(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if cancel := b.running[id]; cancel != nil {
		cancel()
	}
}

// carry sends one message and writes what comes back. What was not sent, and what
// may be sent twice, is tried again for a while: a server that starts anew goes
// unnoticed.
func (b *stdioBridge) carry(ctx context.Context, m envelope, line []byte) {
	began, pause := time.Now(), 100*time.Millisecond
	var acknowledged, renewed bool
	for {
		token, err := b.token.get(ctx)
		var resp *http.Response
		if err == nil {
			resp, err = b.post(ctx, m, line, token)
		}
		if err == nil && resp.StatusCode == http.StatusUnauthorized && !renewed {
			_ = resp.Body.Close()
			if renewed = true; b.token.renew(ctx, token) == nil {
				continue
			}
			b.fail(m.ID, -32000, "The server does not take this agent's token. Get a new one.")
			return
		}
		if err == nil {
			err = b.answer(m, resp, &acknowledged)
			_ = resp.Body.Close()
			if err == nil {
				return
			}
			began = time.Now()
		}
		if ctx.Err() != nil {
			return // cancelled: nobody waits for an answer
		}
		_, dial := errors.AsType[*net.OpError](err)
		again := m.Method != "tools/call" || dial && strings.Contains(err.Error(), "dial")
		if !again {
			b.fail(m.ID, -32000, "The connection broke before the answer came. The call may have been made: look before you repeat it.")
			return
		}
		if time.Since(began) > bridgeRetry {
			b.fail(m.ID, -32000, "The server cannot be reached.")
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
			pause = min(2*pause, 5*time.Second)
		}
	}
}

func (b *stdioBridge) post(ctx context.Context, m envelope, line []byte, token string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url, bytes.NewReader(line))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	req.Header.Set("Authorization", "Bearer "+token)
	if v := m.Params.Meta.Version; v != "" {
		req.Header.Set("Mcp-Protocol-Version", v)
		req.Header.Set("Mcp-Method", m.Method)
		switch m.Method {
		case "tools/call", "prompts/get":
			req.Header.Set("Mcp-Name", provider.HeaderText(m.Params.Name))
		case "resources/read":
			req.Header.Set("Mcp-Name", provider.HeaderText(m.Params.URI))
		}
	} else if m.Method != "initialize" {
		b.mu.Lock()
		if b.version != "" {
			req.Header.Set("Mcp-Protocol-Version", b.version)
		}
		b.mu.Unlock()
	}
	return b.http.Do(req)
}

// answer writes what a response holds. An error is a connection that broke.
func (b *stdioBridge) answer(m envelope, resp *http.Response, acknowledged *bool) error {
	if resp.StatusCode == http.StatusAccepted {
		return nil
	}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		return b.stream(resp.Body, acknowledged)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, bridgeAnswer+1))
	if err != nil {
		return err
	}
	var doc struct {
		ID     json.RawMessage `json:"id"`
		Result json.RawMessage `json:"result"`
		Error  json.RawMessage `json:"error"`
	}
	if len(body) > bridgeAnswer || json.Unmarshal(body, &doc) != nil || doc.Result == nil && doc.Error == nil {
		b.fail(m.ID, -32000, fmt.Sprintf("The server answered with status %d and no message of JSON-RPC.", resp.StatusCode))
		return nil
	}
	if m.Method == "initialize" && doc.Result != nil {
		var got struct {
			Version string `json:"protocolVersion"`
		}
		_ = json.Unmarshal(doc.Result, &got)
		b.mu.Lock()
		b.version = got.Version
		b.mu.Unlock()
	}
	if m.ID == nil {
		return nil
	}
	if doc.ID == nil { // refused before the message was read
		body, _ = json.Marshal(map[string]any{"jsonrpc": "2.0", "id": m.ID, "error": doc.Error})
	}
	b.write(body)
	return nil
}

// stream passes on the messages of a stream until the last, which is a result. One
// that broke is opened again, and since changes may have been missed meanwhile, its
// acknowledgement is passed on as one.
func (b *stdioBridge) stream(body io.Reader, acknowledged *bool) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 64<<10), bridgeLine)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data:"))
		if !ok {
			continue
		}
		var frame struct {
			Method string `json:"method"`
			Params struct {
				Meta json.RawMessage `json:"_meta"`
			} `json:"params"`
		}
		if json.Unmarshal(data, &frame) != nil {
			continue
		}
		if frame.Method == "notifications/subscriptions/acknowledged" {
			if *acknowledged {
				data, _ = json.Marshal(map[string]any{"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": map[string]any{"_meta": frame.Params.Meta}})
			}
			*acknowledged = true
		}
		b.write(data)
		if frame.Method == "" {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}

func (b *stdioBridge) fail(id json.RawMessage, code int, message string) {
	if id == nil && code != -32700 {
		return // nobody waits for an answer to a notification
	}
	if id == nil {
		id = json.RawMessage("null")
	}
	doc, _ := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": id, "error": map[string]any{"code": code, "message": message}})
	b.write(doc)
}

// write writes one message as one line.
func (b *stdioBridge) write(doc []byte) {
	var line bytes.Buffer
	if json.Compact(&line, doc) != nil {
		return
	}
	line.WriteByte('\n')
	b.outMu.Lock()
	defer b.outMu.Unlock()
	_, _ = b.out.Write(line.Bytes())
}

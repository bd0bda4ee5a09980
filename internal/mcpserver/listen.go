package mcpserver

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/secret"
)

// How many streams are open: of one agent, whose windows share a token, of one
// organization, of all.
const (
	maxStreams    = 16
	maxOrgStreams = 256
	maxAllStreams = 1024
)

const (
	heartbeat = 25 * time.Second
	settle    = 150 * time.Millisecond // changes come in bursts
	streamFor = time.Hour              // then the client listens again
)

type listenResult struct {
	Meta       mcp.Meta `json:"_meta"`
	ResultType string   `json:"resultType"`
}

type notification struct {
	Version string `json:"jsonrpc"`
	Method  string `json:"method"`
	Params  any    `json:"params"`
}

type notified struct {
	Meta mcp.Meta `json:"_meta"`
}

type acknowledged struct {
	notified
	Notifications mcp.NotificationSubscriptions `json:"notifications"`
}

// listen answers subscriptions/listen with a stream that tells when the list of
// tools has changed. It knows the agent anew at every message, so that it ends
// with the token, and it tells nothing but that something changed: what the new
// list is, tools/list decides (threats.md S14).
func (s *Server) listen(w http.ResponseWriter, r *http.Request, who agent.Identity, m message) *problem {
	wants, ok := m.params.object("notifications")
	if _, sent := m.params["notifications"]; !ok || !sent {
		return badParams("subscriptions/listen needs notifications, an object.")
	}
	var tools bool
	if raw, sent := wants["toolsListChanged"]; sent && json.Unmarshal(raw, &tools) != nil {
		return badParams("toolsListChanged is true or false.")
	}
	token, p := bearer(r.Header["Authorization"])
	if p != nil {
		return p
	}
	done, ok, _ := s.streams.Enter(string(who.Organization()))
	if !ok {
		return limited("Too many streams are open.", heartbeat)
	}
	defer done()
	mine, ok, _ := s.agentStreams.Enter(string(who.Agent()))
	if !ok {
		return limited("This agent has too many streams open.", heartbeat)
	}
	defer mine()
	changed, cancel := s.changes(who)
	defer cancel()
	last, err := s.listDigest(r.Context(), who) // after changes began to count
	if err != nil {
		return s.problem(r.Context(), "list tools", err)
	}

	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no")
	out := &stream{w: w, rc: http.NewResponseController(w), meta: mcp.Meta{mcp.MetaKeySubscriptionID: m.id}}
	out.send(notification{"2.0", "notifications/subscriptions/acknowledged", acknowledged{notified{out.meta}, mcp.NotificationSubscriptions{ToolsListChanged: tools}}})
	if tools {
		s.follow(r.Context(), out, token, changed, last)
	}
	out.send(response{Version: "2.0", ID: m.id, Result: listenResult{out.meta, "complete"}})
	return nil
}

// changes signals that the list of who may have changed: an account of its
// organization, or an agent.
func (s *Server) changes(who agent.Identity) (<-chan struct{}, func()) {
	signal := make(chan struct{}, 1)
	org := string(who.Organization())
	heard := func(payload string) {
		if payload != "" && payload != org {
			return
		}
		select {
		case signal <- struct{}{}:
		default:
		}
	}
	one, two := s.subscribe(connection.Channel, heard), s.subscribe(agent.Channel, heard)
	return signal, func() { one(); two() }
}

// follow tells of changes until the token, the client, the server or the hour ends.
func (s *Server) follow(ctx context.Context, out *stream, token secret.Value, changed <-chan struct{}, last [sha256.Size]byte) {
	end, beat := time.NewTimer(streamFor), time.NewTicker(heartbeat)
	defer end.Stop()
	defer beat.Stop()
	for out.err == nil {
		select {
		case <-ctx.Done():
			return
		case <-s.stop:
			return
		case <-end.C:
			return
		case <-beat.C:
			out.write(": still here\n\n")
		case <-changed:
			time.Sleep(settle)
		}
		who, err := s.agents.Authenticate(ctx, token)
		if err != nil {
			return
		}
		now, err := s.listDigest(ctx, who)
		if err != nil {
			return // the client listens again
		}
		if now != last {
			last = now
			out.send(notification{"2.0", "notifications/tools/list_changed", notified{out.meta}})
		}
	}
}

// listDigest tells whether two lists of tools are the same.
func (s *Server) listDigest(ctx context.Context, who agent.Identity) (sum [sha256.Size]byte, err error) {
	tools, err := s.gateway.Tools(ctx, who)
	if err != nil {
		return sum, err
	}
	h := sha256.New()
	for _, t := range s.visible(tools) {
		d := t.Digest()
		fmt.Fprintf(h, "%s %x\n", t.Name, d)
	}
	h.Sum(sum[:0])
	return sum, nil
}

// stream writes server-sent events until one cannot be written.
type stream struct {
	w    http.ResponseWriter
	rc   *http.ResponseController
	meta mcp.Meta
	err  error
}

func (o *stream) send(v any) {
	doc, err := encode(v)
	if err != nil {
		o.err = err
		return
	}
	o.write("event: message\ndata: " + string(doc) + "\n\n")
}

func (o *stream) write(text string) {
	if o.err != nil {
		return
	}
	if _, o.err = fmt.Fprint(o.w, text); o.err == nil {
		o.err = o.rc.Flush()
	}
}

// Stop ends the streams, which would otherwise hold a server's shutdown.
func (s *Server) Stop() { s.stopOnce.Do(func() { close(s.stop) }) }

package gateway

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/telemetry"
)

// Exchange is a raw request that was answered and whose answer is under way. It
// is one goroutine's, but for Close, which any may call.
type Exchange struct {
	Status int
	Header http.Header // without what is the connection's, cookies and the credential
	Length int64       // of the body in bytes; -1: not known
	Event  id.Event    // the audit entry of the request
	Note   string      // what the person who approved this very request told the agent
	Ours   bool        // the answer is not the provider's, which was not asked

	gateway *Gateway
	ctx     context.Context // ends with the session
	effect  policy.Effect
	in      incoming
	socket  io.ReadWriter
	intent  *audit.Intent
	started time.Time
	ended   sync.Once
	release []func() // in this order
}

// incoming is an answer under way.
type incoming interface {
	io.ReadCloser
	Trailer() http.Header
	Socket() io.ReadWriter
}

// answered takes the answer.
func (x *Exchange) answered(in *provider.Incoming) {
	x.in, x.Status, x.Header, x.Length = in, in.Status, in.Header, in.Length
	if s := in.Socket(); s != nil {
		x.socket = cutSocket{s, x}
	}
	context.AfterFunc(x.ctx, func() { x.finish(x.ctx.Err()) })
}

// Context is done when the session has ended, or the exchange was closed. Then
// the door closes what it has open to its client.
func (x *Exchange) Context() context.Context { return x.ctx }

// Cut reports whether the session has ended under the exchange, and why.
func (x *Exchange) Cut() (reason string, cut bool) { return session.Cut(x.ctx) }

// Read reads the body. An error other than io.EOF is a fault: the answer broke off
// or was cut, and the door must not let it look whole.
func (x *Exchange) Read(p []byte) (int, error) {
	n, err := x.in.Read(p)
	if err != nil {
		x.finish(err)
	}
	return n, err
}

// Trailer is what came after the body, once Read has given io.EOF; before, the
// names that were announced.
func (x *Exchange) Trailer() http.Header { return x.in.Trailer() }

// Socket is the connection after a switch of protocols (Status 101); nil: there
// was none. Reading and writing fail once the session has ended.
func (x *Exchange) Socket() io.ReadWriter { return x.socket }

// Close ends the exchange. What was not read is given up.
func (x *Exchange) Close() error {
	x.finish(errGiven)
	return nil
}

// finish writes the outcome, once, and gives back what the exchange held. why is
// io.EOF for an answer that was read whole.
func (x *Exchange) finish(why error) {
	x.ended.Do(func() {
		o := audit.Outcome{Status: "ok", UpstreamStatus: x.Status, Duration: x.gateway.now().Sub(x.started)}
		if x.Status >= http.StatusBadRequest {
			o.Status, o.Code = "error", "upstream_error"
		}
		reason, cut := session.Cut(x.ctx)
		switch {
		case why == io.EOF || x.socket != nil && !cut:
		case cut:
			o.Status, o.Code = "cut", reason
		case why == errGiven || x.ctx.Err() != nil:
			o.Code = "answer_given_up"
		default:
			o.Status, o.Code = "error", fault.Of(why).Code
		}
		_ = x.in.Close()
		if x.intent != nil {
			x.gateway.audit.Finish(x.intent, o)
		}
		x.giveBack()
	})
}

func (x *Exchange) giveBack() {
	for _, f := range x.release {
		f()
	}
}

// Exchange makes one raw request, or says why not. It holds the request against
// everything that Invoke holds a tool call against, in the same order and for each
// request anew: session, grant, policy, a durable intent before the first byte
// goes out, the credential last. An approval is for the identical request: method,
// host, path, query and body.
//
// An error is a fault of ours, and nothing of the provider is in it. Otherwise the
// answer has arrived up to its body, which is read as it comes. When the session
// ends, by whoever's will, the exchange is cut within a second: the upstream's
// connection is closed, reading gives an error, and Context is done, upon which
// the door closes what it has open to its client. The caller closes the exchange
// in any case; its outcome is on record then, once.
func (g *Gateway) Exchange(ctx context.Context, r Raw) (x *Exchange, err error) {
	ctx, seen := g.telemetry.Call(telemetry.Remote(ctx, r.Traceparent))
	entry := entryOf(r.Identity, "tool.call", r.Method, r.Address)
	entry.Detail = map[string]string{"door": r.Door, "method": printable(r.Method)}
	if r.URL != nil && r.URL.Host != "" {
		entry.Detail["host"] = printable(r.URL.Host)
	}
	defer func() {
		status, event := 0, id.Event("")
		if x != nil {
			status, event = x.Status, x.Event
		}
		seen.End(string(entry.Session), entry.Effect, ending(status, err), string(event))
	}()
	leave, err := g.enter(r.Identity)
	if err != nil {
		return nil, err
	}
	defer leave() // of the work; what streams has places of its own
	if err := g.ready(); err != nil {
		return nil, g.refuse(ctx, entry, "node.ready", err)
	}
	if err := r.check(); err != nil {
		return nil, g.refuse(ctx, entry, "request.shape", err)
	}
	if r.Handle == "" && r.Identity.Session() == "" {
		return nil, g.refuse(ctx, entry, "session.missing", fault.New(fault.Denied, "session_missing", "This request needs a session, and a person must approve one.").
			WithHint("Request a session through MCP or with ambit run, and name its handle."))
	}

	// 1. Is the session active, now, for this agent?
	seen.Enter(telemetry.Session)
	live, err := g.admitted(ctx, &entry, r.Identity, r.Handle)
	if err != nil {
		return nil, err
	}
	if x, err := g.standIn(ctx, live, &r, entry); x != nil || err != nil {
		return x, err
	}
	found, err := places(live, r)
	if err != nil {
		return nil, g.refuse(ctx, entry, "grant.place", err)
	}
	entry.Connection, entry.Provider, entry.Detail["host"] = found[0].reached.Connection(), found[0].reached.Provider(), printable(found[0].url.Host)

	// 2. What is it, and do grant and policy allow exactly that?
	first, err := readFirst(r)
	if err != nil {
		return nil, g.refuse(ctx, entry, "request.body", err)
	}
	seen.Enter(telemetry.Policy)
	header := provider.ClientHeader(r.Header)
	target, req, err := aim(found, r, provider.Raw{Method: r.Method, Header: header, Body: first.first, Whole: first.whole, Socket: r.Upgrade})
	entry.Object, entry.Tool, entry.Effect = target.Tool.Name, target.Tool.Name, string(target.Tool.Effect)
	if err != nil {
		return nil, g.refuse(ctx, entry, "grant.tool", err)
	}
	entry.Connection, entry.Provider, entry.Effect = target.Connection(), target.Provider(), string(policy.Worse(target.Tool.Effect, req.Effect))
	permit, err := g.permitted(ctx, seen, &entry, live, target, req)
	if err != nil {
		return nil, err
	}
	stay, ok, _ := g.streams.Enter(string(r.Identity.Organization()))
	if !ok {
		return nil, g.refuse(ctx, entry, "streams.full", tooManyAnswers())
	}

	// 3. The intent is durable, and no revoke came before it.
	seen.Enter(telemetry.Intent)
	running, done := permit.Track(ctx)
	intent, err := g.begin(ctx, entry, permit, "session.fence")
	if err != nil {
		done()
		stay()
		return nil, err
	}

	// 4 to 6. The credential, the request, the redaction of what comes.
	x, err = g.stream(&Exchange{Event: intent.Event, Note: permit.Note(), effect: req.Effect, ctx: running, intent: intent, release: []func(){done, stay}},
		func() (*provider.Incoming, error) {
			return g.forward(running, seen, permit, outgoing(r, target.Tool, req, header, first))
		})
	if err != nil {
		return nil, withNote(err, permit.Note())
	}

	// 7. The outcome, once the answer has ended or the session has.
	seen.Enter(telemetry.Outcome)
	return x, nil
}

func tooManyAnswers() error {
	return fault.New(fault.Limited, "overloaded", "Too many answers are under way.").WithHint("Nothing was sent. Wait, then try again.").WithRetry(time.Second)
}

// outgoing is a raw request that was decided on.
func outgoing(r Raw, tool provider.Tool, req *provider.Request, header http.Header, first body) provider.Outgoing {
	out := provider.Outgoing{Tool: tool, Request: req, Header: header, Body: first.rest, Length: r.Length, Trailer: r.Trailer, Upgrade: r.Upgrade}
	if r.Upgrade {
		out.Header.Set("Upgrade", "websocket")
	}
	if first.whole {
		out.Whole = first.first
	}
	return out
}

// cutSocket is a socket that ends with its session.
type cutSocket struct {
	io.ReadWriter
	x *Exchange
}

func (s cutSocket) Read(p []byte) (int, error) {
	n, err := s.ReadWriter.Read(p)
	if err != nil {
		s.x.finish(err)
	}
	return n, err
}

func (s cutSocket) Write(p []byte) (int, error) {
	n, err := s.ReadWriter.Write(p)
	if err != nil {
		s.x.finish(err)
	}
	return n, err
}

package gateway

import (
	"context"
	"io"
	"maps"
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
	Effect policy.Effect
	Tool   string
	Note   string // what the person who approved this very request told the agent
	Ours   bool   // the answer is not the provider's, which was not asked

	gateway *Gateway
	ctx     context.Context // ends with the session
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
		for _, f := range x.release {
			f()
		}
	})
}

func (g *Gateway) exchange(ctx context.Context, r Raw) (x *Exchange, err error) {
	ctx, seen := g.telemetry.Call(telemetry.Remote(ctx, r.Traceparent))
	entry := audit.Entry{
		Environment: r.Identity.Environment(), Organization: r.Identity.Organization(), Actor: audit.Actor{Kind: "agent", ID: string(r.Identity.Agent())},
		Agent: r.Identity.Agent(), User: r.Identity.User(), Action: "tool.call", Object: printable(r.Method), Address: r.Address,
		Detail: map[string]string{"door": r.Door, "method": printable(r.Method)},
	}
	if r.URL != nil && r.URL.Host != "" {
		entry.Detail["host"] = printable(r.URL.Host)
	}
	defer func() {
		ended, event := Result{}, id.Event("")
		if x != nil {
			ended.Status, event = x.Status, x.Event
		}
		seen.End(string(entry.Session), entry.Effect, ending(ended, err), string(event))
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
	live, err := g.sessions.Live(ctx, r.Identity, r.Handle)
	if entry.Session = live.Session(); live.User() != "" {
		entry.User = live.User()
	}
	if err != nil {
		return nil, g.refuse(ctx, entry, "session.live", err)
	}
	if err := g.within(live); err != nil {
		return nil, g.refuse(ctx, entry, "session.rate", err)
	}
	if x, err := g.standIn(ctx, live, r, entry); x != nil || err != nil {
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
	permit, decided, err := g.sessions.Permit(ctx, live, target, req)
	entry.ArgumentDigest, entry.Rule, entry.Approval = decided.ArgumentDigest, decided.Policy.Rule, decided.Approval
	maps.Copy(entry.Detail, decided.Detail())
	if err != nil {
		err = g.refuse(ctx, entry, decided.Policy.Rule, err)
		if decided.Asked {
			g.lookUp(ctx, seen, live, target, req, entry)
		}
		return nil, err
	}
	stay, ok, _ := g.streams.Enter(string(r.Identity.Organization()))
	if !ok {
		return nil, g.refuse(ctx, entry, "streams.full", fault.New(fault.Limited, "overloaded", "Too many answers are under way.").
			WithHint("Nothing was sent. Wait, then try again.").WithRetry(time.Second))
	}

	// 3. The intent is durable, and no revoke came before it.
	seen.Enter(telemetry.Intent)
	running, done := permit.Track(ctx)
	entry.Decision = string(policy.Allow)
	intent, err := g.audit.Begin(ctx, entry, permit)
	if err != nil {
		done()
		stay()
		entry.Decision = ""
		return nil, g.refuse(ctx, entry, "session.fence", unsureApproval(err, permit))
	}
	x = &Exchange{Event: intent.Event, Effect: req.Effect, Tool: target.Tool.Name, Note: permit.Note(), gateway: g, ctx: running, intent: intent, started: g.now()}

	// 4 to 6. The credential, the request, the redaction of what comes.
	in, err := g.forward(running, seen, permit, outgoing(r, target.Tool, req, header, first))
	if err != nil {
		outcome := outcomeOf(running, provider.Answer{}, err)
		outcome.Duration = g.now().Sub(x.started)
		g.audit.Finish(intent, outcome)
		done()
		stay()
		return nil, withNote(g.explain(running, err, req.Effect, outcome), permit.Note())
	}
	seen.Enter(telemetry.Outcome)

	// 7. The outcome, once the answer has ended or the session has.
	x.release = []func(){done, stay}
	x.answered(in)
	return x, nil
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

// forward sends a raw request with the credential, refreshed once when the
// provider refuses it; see [Gateway.send]. A body that was not read whole cannot
// be sent again, and then the refusal is the answer.
func (g *Gateway) forward(ctx context.Context, seen *telemetry.Call, p session.Permit, o provider.Outgoing) (*provider.Incoming, error) {
	seen.Enter(telemetry.Credential)
	cred, version, err := g.credentials.Token(ctx, p)
	if err != nil {
		return nil, err
	}
	seen.Enter(telemetry.Upstream)
	in, err := provider.Forward(ctx, g.outbound, p.Pinned(), p.Record(), o, cred)
	if err != nil || in.Status != http.StatusUnauthorized {
		return in, err
	}
	if o.Whole != nil && g.credentials.Refreshable(ctx, p) {
		_ = in.Close()
		seen.Enter(telemetry.Credential)
		if cred, version, err = g.credentials.Refresh(ctx, p, version); err != nil {
			return nil, err
		}
		seen.Enter(telemetry.Upstream)
		if in, err = provider.Forward(ctx, g.outbound, p.Pinned(), p.Record(), o, cred); err != nil || in.Status != http.StatusUnauthorized {
			return in, err
		}
	}
	if g.credentials.Rejected(ctx, p, version) {
		_ = in.Close()
		return nil, g.connections.MustReconnect(p.Connection(), "The provider no longer accepts the account's credential.")
	}
	return in, nil
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

// Package gateway is the spine: the one way in which a tool call of an agent
// becomes a request upstream. The doors turn what they receive into a [Call], or,
// where a client speaks the provider's own HTTP, into a [Raw]; they decide nothing.
//
// [Gateway.Invoke] reads from top to bottom as the picture in product.md §4:
// the session, the decision, the durable intent, the credential, the request,
// the redaction, the outcome. Every refusal on the way is recorded, and every
// error that leaves is a fault with a stable code that says what to do next.
package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/telemetry"
	"github.com/ambit-dev/ambit/internal/throttle"
)

// Call is one tool call as a door received it.
type Call struct {
	Identity   agent.Identity
	Handle     string        // of the session; empty for a token bound to one
	Connection id.Connection // which account, where several could serve
	Tool       string
	Arguments  json.RawMessage
	Address    string // of the client
	// AtMost is the worst that the call may do, as who makes it says; empty: what the
	// session allows.
	AtMost policy.Effect
	// Traceparent is the caller's place in a trace (W3C Trace Context), which the
	// call's own spans join. It decides nothing and goes no further.
	Traceparent string
}

// Result is what the agent gets back: the provider's answer without anything
// that is or looks like the credential.
type Result struct {
	provider.Answer
	Event  id.Event      // the audit entry of the call
	Effect policy.Effect // of the call
	Note   string        // what the person who approved this very call told the agent
}

// Config is what a Gateway needs. All but Now, Ready and Logger are required.
type Config struct {
	Sessions    *session.Service
	Credentials *credential.Service
	Connections *connection.Service
	Providers   *provider.Store
	Audit       *audit.Log
	Outbound    *outbound.Client
	// Ready refuses calls while this node must not make any, for example when
	// its clock is off. It may be nil.
	Ready func() error
	// SessionRate is how many calls a second one session may make over time, a
	// user's sessions together four times as many; default 50. Four times the
	// rate may come at once.
	SessionRate float64
	// Calls is how many calls may run at once; default 1024. One organization may
	// have a quarter of them.
	Calls int
	// Streams is how many answers of raw requests may be under way at once; default
	// 8192. One organization may have half of them.
	Streams   int
	Egress    Egress               // of tunnels
	Telemetry *telemetry.Telemetry // may be nil
	Now       func() time.Time
	Logger    *slog.Logger
}

// Gateway makes calls. It is safe for concurrent use.
type Gateway struct {
	sessions    *session.Service
	credentials *credential.Service
	connections *connection.Service
	providers   *provider.Store
	audit       *audit.Log
	outbound    *outbound.Client
	ready       func() error
	bySession   *throttle.Limiter
	byUser      *throttle.Limiter
	running     *throttle.Shares // by organization
	streams     *throttle.Shares // answers of raw requests, by organization
	egress      Egress
	telemetry   *telemetry.Telemetry
	now         func() time.Time
	log         *slog.Logger
}

// New makes a Gateway.
func New(cfg Config) *Gateway {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Ready == nil {
		cfg.Ready = func() error { return nil }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.SessionRate == 0 {
		cfg.SessionRate = 50
	}
	if cfg.Calls == 0 {
		cfg.Calls = 1024
	}
	if cfg.Streams == 0 {
		cfg.Streams = 8192
	}
	const users = 4 // one agent alone cannot use up its user's budget
	g := &Gateway{sessions: cfg.Sessions, credentials: cfg.Credentials, connections: cfg.Connections, providers: cfg.Providers,
		audit: cfg.Audit, outbound: cfg.Outbound, egress: cfg.Egress, ready: cfg.Ready, telemetry: cfg.Telemetry, now: cfg.Now, log: cfg.Logger}
	g.bySession = throttle.New(cfg.SessionRate, int(4*cfg.SessionRate), maxThrottled, cfg.Now)
	g.running = throttle.NewShares(cfg.Calls, max(cfg.Calls/4, 1))
	g.streams = throttle.NewShares(cfg.Streams, max(cfg.Streams/2, 1))
	g.byUser = throttle.New(users*cfg.SessionRate, int(4*users*cfg.SessionRate), maxThrottled, cfg.Now)
	return g
}

const maxThrottled = 50_000

// enter takes a place for one call, before any work is done for it: one
// organization's calls, however slow its providers, leave room for the others'. A
// call that finds none is shed, and since a flood of them would flood the record
// too, the record says so once a minute.
func (g *Gateway) enter(who agent.Identity) (leave func(), err error) {
	leave, ok, full := g.running.Enter(string(who.Organization()))
	if ok {
		return leave, nil
	}
	message := "This organization has too many calls under way."
	if full {
		message = "The server has too many calls under way."
	}
	g.audit.Alarm(audit.Entry{Environment: who.Environment(), Organization: who.Organization(), Actor: audit.Actor{Kind: "system", ID: "gateway"},
		Action: "call.shed", Object: string(who.Organization()), Decision: string(policy.Deny), Code: "overloaded"})
	return nil, fault.New(fault.Limited, "overloaded", message).WithHint("Nothing was sent. Wait, then call again.").WithRetry(time.Second)
}

// within holds a call against the budgets of its session and its user.
func (g *Gateway) within(l session.Live) error {
	ok, wait := g.bySession.Allow(string(l.Session()))
	if ok {
		ok, wait = g.byUser.Allow(string(l.Organization()) + " " + string(l.User()))
	}
	if ok {
		return nil
	}
	return fault.New(fault.Limited, "rate_limited", "This session makes too many calls.").WithHint("Slow down.").WithRetry(wait)
}

// Invoke makes one call, or says why not.
func (g *Gateway) Invoke(ctx context.Context, c Call) (result Result, err error) {
	ctx, seen := g.telemetry.Call(telemetry.Remote(ctx, c.Traceparent))
	entry := entryOf(c.Identity, "tool.call", c.Tool, c.Address)
	entry.Tool = entry.Object
	defer func() {
		seen.End(string(entry.Session), entry.Effect, ending(result.Status, err), string(result.Event))
	}()
	leave, err := g.enter(c.Identity)
	if err != nil {
		return Result{}, err
	}
	defer leave()
	if err := g.ready(); err != nil {
		return Result{}, g.refuse(ctx, entry, "node.ready", err)
	}
	if c.Handle == "" && c.Identity.Session() == "" {
		return Result{}, g.askFirst(ctx, c, entry)
	}

	// 1. Is the session active, now, for this agent?
	seen.Enter(telemetry.Session)
	live, err := g.admitted(ctx, &entry, c.Identity, c.Handle)
	if err != nil {
		return Result{}, err
	}
	target, err := live.Target(c.Tool, c.Connection)
	if err != nil {
		return Result{}, g.refuse(ctx, entry, "grant.tool", err)
	}
	entry.Connection, entry.Provider, entry.Effect = target.Connection(), target.Provider(), string(target.Tool.Effect)

	if err := g.credentials.Unchanged(ctx, c.Identity.Environment(), target.Connection(), target.Tool); err != nil {
		return Result{}, g.refuse(ctx, entry, "tool.pin", err)
	}

	// 2. Do grant and policy allow exactly this request?
	seen.Enter(telemetry.Policy)
	req, err := build(target, c.Arguments)
	if err != nil {
		return Result{}, g.refuse(ctx, entry, "tool.arguments", err)
	}
	entry.Effect = string(req.Effect)
	if err := c.within(policy.Worse(target.Tool.Effect, req.Effect)); err != nil {
		return Result{}, g.refuse(ctx, entry, "call.effect", err)
	}
	permit, err := g.permitted(ctx, seen, &entry, live, target, req)
	if err != nil {
		return Result{}, err
	}

	// 3. The intent is durable, and no revoke came before it. A revoke that comes
	// after it finds the call, which must be known before its intent commits.
	seen.Enter(telemetry.Intent)
	running, done := permit.Track(ctx)
	defer done()
	intent, err := g.begin(ctx, entry, permit, "session.fence")
	if err != nil {
		return Result{}, err
	}
	started := g.now()

	// 4 to 6. The credential, the request, the redaction.
	answer, err := g.send(running, seen, permit, target.Tool, req)

	// 7. The outcome, whatever it was.
	seen.Enter(telemetry.Outcome)
	outcome := g.settle(running, intent, started, answer, err)
	if err != nil {
		return Result{}, withNote(g.explain(running, err, req.Effect, outcome), permit.Note())
	}
	return Result{Answer: answer, Event: intent.Event, Effect: req.Effect, Note: permit.Note()}, nil
}

// withNote lets a failure carry what the approver wrote: the approval is used
// up, and the words would be lost with it.
func withNote(err error, note string) error {
	if note == "" {
		return err
	}
	return fault.Of(err).With("note", note)
}

// unsureApproval says what became of the approval of a call whose intent may have
// been committed: it may be used up, though nothing was sent.
func unsureApproval(err error, p session.Permit) error {
	if p.Approval() == "" || !sqldb.Uncertain(err) {
		return err
	}
	return fault.Of(err).WithHint("Nothing was sent to the provider, but the approval of this call may be used up. " +
		"Make the same call again: if the approval still counts, it runs; if not, the answer names a new one to ask the person for.")
}

// build makes the request of a call.
func build(t session.Target, raw json.RawMessage) (*provider.Request, error) {
	req, err := t.Tool.Build(raw, t.Bases...)
	if err == nil {
		return req, nil
	}
	if f := fault.Of(err); f.Kind == fault.Invalid && f.Code != "access_refused" {
		err = fault.New(fault.Invalid, "invalid_arguments", f.Message).WithHint(f.Hint).WithCause(err)
	}
	return nil, err
}

// askFirst answers a call without a session: it makes the request for just this
// tool, so that a person can be asked at once.
func (g *Gateway) askFirst(ctx context.Context, c Call, entry audit.Entry) error {
	if err := g.withinDeclared(ctx, c.Identity, c); err != nil {
		return g.refuse(ctx, entry, "call.effect", err)
	}
	asked, err := g.Request(ctx, c.Identity, session.Ask{Tools: []string{c.Tool}, Purpose: "Call " + printable(c.Tool)}, c.Address)
	if err != nil {
		return g.refuse(ctx, entry, "session.request", err)
	}
	entry.Session, entry.Approval = asked.Session.ID, asked.Session.Approval
	return g.refuse(ctx, entry, "session.missing", fault.New(fault.Denied, "approval_required", "This call needs a session, and a person must approve one.").
		WithHint("Ask the person to decide at the URL; check_session waits for it. Then call again with the argument session. For a larger task, request_session asks once for all of it.").
		With("approval_url", asked.ApprovalURL).With("request_id", string(asked.Session.Approval)).With("session", asked.Handle))
}

// refuse records a denial and returns it. A denial that cannot be recorded is
// still a denial.
func (g *Gateway) refuse(ctx context.Context, e audit.Entry, rule string, err error) error {
	f := fault.Of(err)
	if f.Kind == fault.Internal {
		g.log.Error("a call failed", "agent", e.Agent, "session", e.Session, "tool", e.Tool, "error", err)
	}
	if e.Rule == "" {
		e.Rule = rule
	}
	e.Decision, e.Code = string(policy.Deny), f.Code
	// The caller may be gone; what it tried is recorded all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if rerr := g.audit.Record(ctx, e); rerr != nil {
		g.log.Error("a refusal could not be recorded", "agent", e.Agent, "session", e.Session, "code", f.Code, "error", rerr)
	}
	return err
}

// ending is how a call ended, in a word: ok, or a code.
func ending(status int, err error) string {
	switch {
	case err != nil:
		return fault.Of(err).Code
	case status >= 400:
		return "upstream_error"
	}
	return "ok"
}

// codeRefused is a call that the provider answered, with an answer that nobody
// may read: too large, or in a coding that cannot be looked through for secrets.
const codeRefused = "upstream_answer_refused"

// outcomeOf classes the end of a call. What was sent and not answered may have
// happened: that is unknown, not failed. What was answered has been decided, even
// if the answer was refused.
func outcomeOf(ctx context.Context, a provider.Answer, err error) audit.Outcome {
	switch {
	case err == nil && a.Status < 400:
		return audit.Outcome{Status: "ok", UpstreamStatus: a.Status}
	case err == nil:
		return audit.Outcome{Status: "error", Code: "upstream_error", UpstreamStatus: a.Status}
	}
	if status, ok := outbound.Answered(err); ok {
		o := audit.Outcome{Status: "ok", Code: codeRefused, UpstreamStatus: status}
		if status >= http.StatusBadRequest {
			o.Status = "error"
		}
		return o
	}
	if outbound.Sent(err) {
		return audit.Outcome{Status: "unknown", Code: "outcome_unknown"}
	}
	if reason, cut := session.Cut(ctx); cut {
		return audit.Outcome{Status: "cut", Code: reason}
	}
	return audit.Outcome{Status: "error", Code: fault.Of(err).Code}
}

// explain turns the end of a call into what the agent is told.
func (g *Gateway) explain(ctx context.Context, err error, effect policy.Effect, o audit.Outcome) error {
	switch {
	case o.Code == codeRefused:
		return answerRefused(err, effect, o.UpstreamStatus)
	case o.Status == "unknown":
		if reason, _ := session.Cut(ctx); effect == policy.Read && (reason == session.Revoked || reason == session.Expired) {
			return fault.New(fault.Denied, reason, "The session ended while the call ran.").WithHint("It only reads, so nothing was changed. Stop, and ask the person.").WithCause(err)
		}
		f := fault.New(fault.Unavailable, "outcome_unknown", "The request was sent, but no whole answer came back.").WithCause(err)
		if effect == policy.Read {
			return f.WithHint("It only reads, so it may be repeated.")
		}
		return f.WithHint("Do not repeat it. Look first whether it took effect.")
	case o.Status == "cut" && (o.Code == session.Stopping || o.Code == session.Unconfirmed):
		return fault.New(fault.Unavailable, o.Code, "The server gave the call up before the request was sent.").WithHint("Call again.").WithCause(err).WithRetry(time.Second)
	case o.Status == "cut":
		return fault.New(fault.Denied, o.Code, "The session ended before the request was sent.").WithHint("Stop, and ask the person.").WithCause(err)
	case fault.KindOf(err) == fault.Internal && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
		return fault.New(fault.Unavailable, "upstream_unreachable", "The call was given up before it was sent.").WithHint("Nothing was sent. Try again later.").WithCause(err)
	}
	if f := fault.Of(err); f.Kind == fault.Internal {
		g.log.Error("a call failed after its intent", "error", err)
	}
	return err
}

// answerRefused tells what is known of a call whose answer was not passed on.
func answerRefused(err error, effect policy.Effect, status int) error {
	code, why, kind := codeRefused, "it is in a coding that was not asked for, or broken", fault.Unavailable
	switch {
	case fault.Is(err, "upstream_too_large"):
		why, kind = "it is over the size limit", fault.TooLarge
	case fault.Is(err, "answer_withheld"):
		code, why = "answer_withheld", "it may not be passed on. "+strings.TrimSuffix(fault.Of(err).Message, ".")
	}
	hint := "The provider has carried it out. Do not repeat it; read what came of it, in smaller parts."
	switch {
	case status == http.StatusTooEarly || status == http.StatusTooManyRequests:
		hint = "The provider does not take the call now. Wait, then call again."
	case effect == policy.Read && kind == fault.TooLarge:
		hint = "Nothing was changed. Ask for less, such as a smaller page or fewer fields."
	case effect == policy.Read:
		hint = "Nothing was changed. The same call will most likely end in the same way."
	case status >= http.StatusInternalServerError || status == http.StatusRequestTimeout:
		hint = "The provider reports a failure of its own. Do not repeat it; look first whether it took effect."
	case status >= http.StatusBadRequest:
		hint = "The provider did not carry it out. Change the request before trying again."
	case status >= http.StatusMultipleChoices:
		hint = "The provider redirects, and may have carried it out. Do not repeat it; look first whether it took effect."
	}
	var wait time.Duration
	if status >= http.StatusBadRequest {
		wait = outbound.RetryAfter(err)
	}
	return fault.New(kind, code, fmt.Sprintf("The provider answered with status %d, and its answer was refused: %s.", status, why)).
		WithHint(hint).With("status", strconv.Itoa(status)).WithCause(err).WithRetry(wait)
}

// printable bounds text from an agent for the audit.
func printable(s string) string {
	const most = 64
	out := make([]rune, 0, most)
	for _, r := range s {
		if len(out) == most {
			break
		}
		if r < 0x20 || r == 0x7f || r > 0x7e {
			r = '?'
		}
		out = append(out, r)
	}
	return string(out)
}

package telemetry

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Step is one step of the spine (product.md §4).
type Step int

const (
	Session    Step = iota // is it active, now, for this agent?
	Policy                 // grant and policy
	Intent                 // the durable intent, fenced against revoke
	Credential             // a fresh token, refreshed if it must be
	Upstream               // the request to the provider
	Redact                 // its answer, cleaned
	Outcome                // handed to the audit
	stepCount
)

func (s Step) String() string {
	return [...]string{"session", "policy", "intent", "credential", "upstream", "redact", "outcome"}[s]
}

// Call follows one tool call. It belongs to the goroutine that runs the call. A
// nil *Call measures nothing.
type Call struct {
	t      *Telemetry
	span   trace.Span
	step   Step // under way, or -1
	since  time.Time
	within trace.Span // of the step, where the call is traced
}

type callKey struct{}

// Call begins to follow a call. The context that it returns carries the call to
// the rooms below, which report with [Enter].
func (t *Telemetry) Call(ctx context.Context) (context.Context, *Call) {
	if t == nil {
		return ctx, nil
	}
	t.running.Inc()
	ctx, span := t.tracer.Start(ctx, "tool.call", trace.WithSpanKind(trace.SpanKindServer))
	c := &Call{t: t, span: span, step: -1}
	return context.WithValue(ctx, callKey{}, c), c
}

// Enter ends the step of the call that ctx carries and begins the next.
func Enter(ctx context.Context, next Step) {
	if c, ok := ctx.Value(callKey{}).(*Call); ok {
		c.Enter(next)
	}
}

// Enter is [Enter] for whoever has the call at hand.
func (c *Call) Enter(next Step) {
	if c == nil {
		return
	}
	now := time.Now()
	c.leave(now)
	c.step, c.since = next, now
	if c.span.IsRecording() {
		_, c.within = c.t.tracer.Start(trace.ContextWithSpan(context.Background(), c.span), next.String())
	}
}

func (c *Call) leave(now time.Time) {
	if c.step < 0 {
		return
	}
	c.t.steps[c.step].Observe(now.Sub(c.since).Seconds())
	if c.within != nil {
		c.within.End()
		c.within = nil
	}
}

// End says how the call ended: code is "ok" or that of the refusal or failure.
// session and event are ids, by which a traced call is found again in the audit;
// empty where there is none.
func (c *Call) End(session, effect, code, event string) {
	if c == nil {
		return
	}
	c.leave(time.Now())
	c.t.running.Dec()
	if effect == "" {
		effect = "none" // refused before the tool was known
	}
	c.t.calls.WithLabelValues(effect, c.t.codes.closed(code)).Inc()
	if c.span.IsRecording() {
		c.span.SetAttributes(attribute.String("ambit.session_id", session), attribute.String("ambit.effect", effect),
			attribute.String("ambit.code", code), attribute.String("ambit.event_id", event))
		if code != "ok" {
			c.span.SetStatus(codes.Error, code)
		}
	}
	c.span.End()
}

// Remote makes traceparent (W3C Trace Context) the parent of the spans under
// ctx. What is not well-formed is ignored. Neither this nor anything else of the
// caller's trace goes on to a provider.
func Remote(ctx context.Context, traceparent string) context.Context {
	if traceparent == "" {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": traceparent})
}

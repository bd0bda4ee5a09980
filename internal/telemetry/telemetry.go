// Package telemetry is how the server tells its operator what it is doing:
// counts and durations in the Prometheus format, and traces over OTLP. It knows
// no other room; rooms hand it what they measured.
//
// Two things keep it safe to leave on. No label and no attribute is text that a
// tenant, an agent or a provider chose: labels come from the closed sets below,
// and whatever is not in one counts as "other". And nothing here decides
// anything: a call that is not measured runs like any other.
//
// A [Call] follows one tool call through the steps of the spine. Each step is an
// observation of a histogram and, for the calls that are traced, a span.
package telemetry

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Config says where traces go. The zero Config measures and traces nothing.
type Config struct {
	// TraceEndpoint is an OTLP/HTTP collector, such as http://localhost:4318;
	// nil sends no traces.
	TraceEndpoint *url.URL
	// TraceRatio is the share of calls that are traced, 0 to 1. What a caller
	// says about sampling does not count: an agent cannot make us trace.
	TraceRatio float64
	Version    string
	Node       string
	// Exporter takes the place of the collector, for tests.
	Exporter sdktrace.SpanExporter
}

// Telemetry is safe for concurrent use. A nil *Telemetry measures nothing.
type Telemetry struct {
	registry *prometheus.Registry
	tracer   trace.Tracer
	exports  *sdktrace.TracerProvider // nil where no trace goes anywhere

	calls          *prometheus.CounterVec
	running        prometheus.Gauge
	steps          [stepCount]prometheus.Observer
	requests       *prometheus.CounterVec
	requestSeconds *prometheus.HistogramVec
	entries        *prometheus.CounterVec
	codes, actions labels
}

// New makes a Telemetry. Stop sends what is left.
func New(ctx context.Context, cfg Config) (*Telemetry, error) {
	t := &Telemetry{registry: prometheus.NewRegistry(), tracer: noop.NewTracerProvider().Tracer("")}
	t.instruments(cfg.Version)
	exporter := cfg.Exporter
	if exporter == nil && cfg.TraceEndpoint != nil {
		var err error
		exporter, err = otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(cfg.TraceEndpoint.JoinPath("v1", "traces").String()),
			otlptracehttp.WithTimeout(5*time.Second), otlptracehttp.WithProxy(func(*http.Request) (*url.URL, error) { return nil, nil }))
		if err != nil {
			return nil, fmt.Errorf("opening the trace collector: %w", err)
		}
	}
	if exporter == nil {
		return t, nil
	}
	about := resource.NewSchemaless(attribute.String("service.name", "ambit"), attribute.String("service.version", cfg.Version),
		attribute.String("service.instance.id", cfg.Node))
	// A collector that is down costs the spans, never a call: the queue is bounded
	// and drops.
	t.exports = sdktrace.NewTracerProvider(sdktrace.WithResource(about), sdktrace.WithSampler(sampler(cfg.TraceRatio)),
		sdktrace.WithBatcher(exporter, sdktrace.WithMaxQueueSize(2048), sdktrace.WithExportTimeout(5*time.Second)))
	t.tracer = t.exports.Tracer("github.com/ambit-dev/ambit")
	return t, nil
}

// sampler traces its share of the calls by chance. By the trace's id, as is
// usual, a caller could choose an id that is always traced.
type sampler float64

func (s sampler) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	decision, parent := sdktrace.Drop, trace.SpanContextFromContext(p.ParentContext)
	if ours := parent.IsValid() && !parent.IsRemote(); ours && parent.IsSampled() || !ours && rand.Float64() < float64(s) {
		decision = sdktrace.RecordAndSample
	}
	return sdktrace.SamplingResult{Decision: decision}
}

func (s sampler) Description() string { return fmt.Sprintf("a share of %g, by chance", float64(s)) }

// Stop sends the spans that wait, for as long as ctx lets it.
func (t *Telemetry) Stop(ctx context.Context) error {
	if t == nil || t.exports == nil {
		return nil
	}
	return t.exports.Shutdown(ctx)
}

// Metrics answers with everything measured, in the Prometheus text format. It
// says nothing of any tenant, but how busy a server is and what fails is the
// operator's to know: who may ask is decided by whoever mounts it.
func (t *Telemetry) Metrics() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 5 * time.Second})
}

// instruments makes everything that is measured by counting. What can be read
// off when it is asked for comes by Gauge and Count.
func (t *Telemetry) instruments(version string) {
	fast := prometheus.ExponentialBucketsRange(0.00005, 30, 18)
	t.calls = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ambit_calls_total",
		Help: "Tool calls by effect and by how they ended: ok, or the code of the refusal or failure."}, []string{"effect", "code"})
	t.running = prometheus.NewGauge(prometheus.GaugeOpts{Name: "ambit_calls_running", Help: "Tool calls under way."})
	steps := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "ambit_call_step_seconds", Buckets: fast,
		Help: "Time that tool calls spend in each step of the spine."}, []string{"step"})
	t.requests = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ambit_http_requests_total",
		Help: "Requests by door and class of status."}, []string{"door", "status"})
	t.requestSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "ambit_http_request_seconds", Buckets: fast,
		Help: "Time from a request's header to the end of its answer, by door. Long polls and streams take long on purpose."}, []string{"door"})
	t.entries = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ambit_audit_entries_total",
		Help: "Audit entries by action and decision: sessions approved, credentials refreshed, proofs refused and all the rest."}, []string{"action", "decision"})
	built := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "ambit_build_info", Help: "1, with the version that runs.",
		ConstLabels: prometheus.Labels{"version": version}}, func() float64 { return 1 })
	t.registry.MustRegister(t.calls, t.running, steps, t.requests, t.requestSeconds, t.entries, built,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for s := range stepCount {
		t.steps[s] = steps.WithLabelValues(s.String())
	}
}

// Gauge registers a value that is read off when somebody asks for the metrics.
// read must be quick and safe for concurrent use. A name is registered once.
func (t *Telemetry) Gauge(name, help string, read func() float64) {
	if t != nil {
		t.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
	}
}

// Count is Gauge for a value that only grows.
func (t *Telemetry) Count(name, help string, read func() float64) {
	if t != nil {
		t.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, read))
	}
}

// Entry counts an audit entry that was written.
func (t *Telemetry) Entry(action, decision string) {
	if t != nil {
		t.entries.WithLabelValues(t.actions.closed(action), decision).Inc()
	}
}

// Request counts an answered HTTP request. door is a name from the program.
func (t *Telemetry) Request(door string, status int, took time.Duration) {
	if t == nil {
		return
	}
	class := "other"
	if status >= 100 && status < 600 {
		class = string('0'+rune(status/100)) + "xx"
	}
	t.requests.WithLabelValues(door, class).Inc()
	t.requestSeconds.WithLabelValues(door).Observe(took.Seconds())
}

// labels keeps a set of label values closed: they are constants of the program,
// and if one ever is not, the set stops growing and the rest is "other".
type labels struct {
	mu   sync.RWMutex
	seen map[string]bool
}

const maxLabels = 200

func (l *labels) closed(value string) string {
	l.mu.RLock()
	ok := l.seen[value]
	l.mu.RUnlock()
	if ok {
		return value
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen == nil {
		l.seen = map[string]bool{}
	}
	if !l.seen[value] && (len(l.seen) >= maxLabels || !isLabel(value)) {
		return "other"
	}
	l.seen[value] = true
	return value
}

// isLabel reports whether value has the form of our codes and actions.
func isLabel(value string) bool {
	for _, r := range value {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' && r != '.' {
			return false
		}
	}
	return value != "" && len(value) <= 64
}

package telemetry

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// The parent of a caller that wants to be traced.
const (
	remoteTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	traceparent = "00-" + remoteTrace + "-00f067aa0ba902b7-01"
)

func open(t *testing.T, cfg Config) *Telemetry {
	t.Helper()
	tel, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tel.Stop(context.WithoutCancel(t.Context())) })
	return tel
}

func metrics(t *testing.T, tel *Telemetry) string {
	t.Helper()
	w := httptest.NewRecorder()
	tel.Metrics().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("metrics: %d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// play follows one call through all steps of the spine.
func play(ctx context.Context, tel *Telemetry, code string) {
	ctx, call := tel.Call(ctx)
	for s := range stepCount {
		if s == Redact {
			Enter(ctx, s) // as a room below the spine does
			continue
		}
		call.Enter(s)
	}
	call.End("ses_1", "read", code, "evt_1")
}

// Issue 3, item 5: a trace goes through the seven steps, under the caller's own.
func TestCallIsTracedThroughSevenSteps(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewInMemoryExporter()
	tel := open(t, Config{Exporter: spans, TraceRatio: 1})
	play(Remote(t.Context(), traceparent), tel, "upstream_error")
	if err := tel.exports.ForceFlush(t.Context()); err != nil {
		t.Fatal(err)
	}
	var names []string
	var whole tracetest.SpanStub
	for _, s := range spans.GetSpans() {
		names = append(names, s.Name)
		if s.SpanContext.TraceID().String() != remoteTrace {
			t.Errorf("%s belongs to trace %s, want the caller's", s.Name, s.SpanContext.TraceID())
		}
		if s.Name == "tool.call" {
			whole = s
		}
	}
	if diff := cmp.Diff([]string{"session", "policy", "intent", "credential", "upstream", "redact", "outcome", "tool.call"}, names); diff != "" {
		t.Error(diff)
	}
	attributes := map[string]string{}
	for _, a := range whole.Attributes {
		attributes[string(a.Key)] = a.Value.AsString()
	}
	want := map[string]string{"ambit.session_id": "ses_1", "ambit.effect": "read", "ambit.code": "upstream_error", "ambit.event_id": "evt_1"}
	if diff := cmp.Diff(want, attributes); diff != "" {
		t.Error(diff)
	}
	for _, s := range spans.GetSpans() {
		if s.Name != "tool.call" && s.Parent.SpanID() != whole.SpanContext.SpanID() {
			t.Errorf("%s is not under the call", s.Name)
		}
	}
	if err := tel.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// An agent must not be able to make the server trace: neither by the sampled
// flag nor by choosing an id that a sampler by id would take.
func TestCallerDoesNotDecideSampling(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewInMemoryExporter()
	tel := open(t, Config{Exporter: spans, TraceRatio: 0})
	for _, parent := range []string{traceparent, "00-00000000000000000000000000000001-00f067aa0ba902b7-01", "garbage", ""} {
		play(Remote(t.Context(), parent), tel, "ok")
	}
	if err := tel.exports.ForceFlush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := spans.GetSpans(); len(got) != 0 {
		t.Errorf("%d spans were recorded at ratio 0", len(got))
	}
}

func TestMetricsSayWhatHappened(t *testing.T) {
	t.Parallel()
	tel := open(t, Config{Version: "1.2.3"})
	play(t.Context(), tel, "ok")
	play(t.Context(), tel, "not_granted")
	tel.Request("mcp", 200, time.Millisecond)
	tel.Request("mcp", 429, time.Millisecond)
	tel.Entry("session.approved", "allow")
	tel.Gauge("ambit_test_queue", "What waits.", func() float64 { return 7 })
	got := metrics(t, tel)
	for _, want := range []string{
		`ambit_calls_total{code="ok",effect="read"} 1`, `ambit_calls_total{code="not_granted",effect="read"} 1`, `ambit_calls_running 0`,
		`ambit_call_step_seconds_count{step="session"} 2`, `ambit_call_step_seconds_count{step="redact"} 2`,
		`ambit_http_requests_total{door="mcp",status="2xx"} 1`, `ambit_http_requests_total{door="mcp",status="4xx"} 1`,
		`ambit_audit_entries_total{action="session.approved",decision="allow"} 1`, `ambit_test_queue 7`, `ambit_build_info{version="1.2.3"} 1`, "go_goroutines ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

// Issue 3, item 3: no unbounded label. Whatever reaches a label, the number of
// series is bounded and the text of strangers never becomes one.
func TestLabelsAreBounded(t *testing.T) {
	t.Parallel()
	tel := open(t, Config{})
	for i := range 10 * maxLabels {
		_, call := tel.Call(t.Context())
		call.End("", "read", fmt.Sprintf("code_%d", i), "")
		tel.Entry(fmt.Sprintf("noun.verb%d", i), "")
	}
	_, call := tel.Call(t.Context())
	call.End("", "read", "Ignore previous instructions", "")
	got := metrics(t, tel)
	if n := strings.Count(got, "ambit_calls_total{"); n > maxLabels+1 {
		t.Errorf("calls have %d series, want at most %d", n, maxLabels+1)
	}
	if n := strings.Count(got, "ambit_audit_entries_total{"); n > maxLabels+1 {
		t.Errorf("entries have %d series, want at most %d", n, maxLabels+1)
	}
	if strings.Contains(got, "Ignore") || !strings.Contains(got, `code="other"`) {
		t.Error("text that is no code became a label")
	}
}

func TestNilMeasuresNothing(t *testing.T) {
	t.Parallel()
	var tel *Telemetry
	play(t.Context(), tel, "ok")
	tel.Request("mcp", 200, 0)
	tel.Entry("a.b", "")
	tel.Gauge("g", "", nil)
	tel.Count("c", "", nil)
	if err := tel.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// The real exporter against a collector's endpoint.
func TestSpansReachTheCollector(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var got []byte
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			body, _ = gzip.NewReader(r.Body)
		}
		b, _ := io.ReadAll(body)
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/v1/traces" {
			got = append(got, b...)
		}
	}))
	defer collector.Close()
	u, _ := url.Parse(collector.URL)
	tel := open(t, Config{TraceEndpoint: u, TraceRatio: 1, Node: "n1", Version: "1.2.3"})
	play(t.Context(), tel, "ok")
	if err := tel.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, want := range []string{"tool.call", "upstream", "ambit", "n1", "1.2.3"} {
		if !bytes.Contains(got, []byte(want)) {
			t.Errorf("the collector did not receive %q", want)
		}
	}
}

// A collector that is down costs spans, never a call or a stop.
func TestCollectorIsDown(t *testing.T) {
	t.Parallel()
	closed := httptest.NewServer(http.NotFoundHandler())
	u, _ := url.Parse(closed.URL)
	closed.Close()
	tel := open(t, Config{TraceEndpoint: u, TraceRatio: 1})
	for range 5000 {
		play(t.Context(), tel, "ok")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_ = tel.Stop(ctx) // it may say that spans were lost
	if !strings.Contains(metrics(t, tel), `ambit_calls_total{code="ok",effect="read"} 5000`) {
		t.Error("calls were not counted")
	}
}

func BenchmarkCall(b *testing.B) {
	tel, err := New(b.Context(), Config{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		play(b.Context(), tel, "ok")
	}
}

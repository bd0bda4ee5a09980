package gateway_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/telemetry"
)

// kept holds its spans after the shutdown that sends the last of them.
type kept struct{ *tracetest.InMemoryExporter }

func (kept) Shutdown(context.Context) error { return nil }

// Issue 3, item 5: a call is traced through the seven steps, joins the trace of
// its caller, and is counted by how it ended. None of it says what a tenant, an
// agent or a provider chose, and none of it reaches the provider (S1).
func TestCallsAreMeasured(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := gatewaytest.New(t, db)
		spans := kept{tracetest.NewInMemoryExporter()}
		tel, err := telemetry.New(t.Context(), telemetry.Config{Exporter: spans, TraceRatio: 1})
		gatewaytest.Must(t, err)
		w.Telemetry = tel
		w.Node(t)
		w.KeyProvider(t, "acme_tracker")
		ada := w.Person(t, "ada@example.com", account.RoleMember)
		w.Connect(t, ada, "acme_tracker", false)
		who := w.Agent(t, ada, "Peculiar Label")
		handle := w.Active(t, ada, who, "acme_tracker", policy.Read)

		const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
		invoke := func(who agent.Identity, handle, tool string) error {
			_, err := w.Gateway.Invoke(t.Context(), gateway.Call{Identity: who, Handle: handle, Tool: tool, Arguments: json.RawMessage(`{}`),
				Address: "192.0.2.7", Traceparent: "00-" + trace + "-00f067aa0ba902b7-00"})
			return err
		}
		gatewaytest.Must(t, invoke(who, handle, "acme_tracker_echo"))
		if invoke(who, handle, "acme_tracker_delete_issue") == nil {
			t.Fatal("a tool that was not granted ran")
		}
		gatewaytest.Must(t, tel.Stop(t.Context()))

		steps := map[string][]string{} // by the session's span
		for _, s := range spans.GetSpans() {
			if got := s.SpanContext.TraceID().String(); got != trace {
				t.Errorf("%s belongs to trace %s, want the caller's", s.Name, got)
			}
			if s.Name != "tool.call" {
				steps[s.Parent.SpanID().String()] = append(steps[s.Parent.SpanID().String()], s.Name)
			}
			for _, a := range s.Attributes {
				if v := a.Value.AsString(); strings.Contains(v, "acme") || strings.Contains(v, "Peculiar") || strings.Contains(v, handle) {
					t.Errorf("attribute %s says %q", a.Key, v)
				}
			}
		}
		var got [][]string
		for _, s := range spans.GetSpans() {
			if s.Name == "tool.call" {
				got = append(got, steps[s.SpanContext.SpanID().String()])
			}
		}
		want := [][]string{{"session", "policy", "intent", "credential", "upstream", "redact", "outcome"}, {"session"}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}

		rec := httptest.NewRecorder()
		tel.Metrics().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
		text := rec.Body.String()
		for _, line := range []string{`ambit_calls_total{code="ok",effect="read"} 1`, `ambit_calls_total{code="not_granted",effect="none"} 1`} {
			if !strings.Contains(text, line) {
				t.Errorf("the metrics lack %s", line)
			}
		}
		for _, never := range []string{"acme", "Peculiar", string(who.Agent()), string(w.Organization), handle, "192.0.2.7"} {
			if strings.Contains(text, never) {
				t.Errorf("the metrics say %q", never)
			}
		}
	})
}

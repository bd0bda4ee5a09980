package app

import (
	"context"
	"fmt"
	"net/http"
	"net/http/pprof"
	"net/url"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/telemetry"
)

// observe opens what the operator sees of this process.
func (a *App) observe(ctx context.Context) error {
	cfg := telemetry.Config{TraceRatio: a.cfg.TraceRatio, Version: a.cfg.Version, Node: a.cfg.Node}
	if a.cfg.TraceEndpoint != "" {
		u, err := url.Parse(a.cfg.TraceEndpoint)
		if err != nil {
			return fmt.Errorf("reading the trace endpoint: %w", err)
		}
		cfg.TraceEndpoint = u
	}
	var err error
	a.telemetry, err = telemetry.New(ctx, cfg)
	return err
}

// stopTelemetry sends the spans that wait. A collector that is down must not
// hold the stop.
func (a *App) stopTelemetry() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := a.telemetry.Stop(ctx); err != nil {
		a.log.Warn("some spans did not reach the trace collector", "error", err)
	}
}

// gauges registers what the rooms can be asked for at any time.
func (a *App) gauges() {
	t, db := a.telemetry, a.db
	waiting := func(read func(intents, outcomes int) int) func() float64 {
		return func() float64 { return float64(read(a.Audit.Waiting())) }
	}
	pool := func(read func(c sqldb.Connections) float64) func() float64 {
		return func() float64 { return read(db.Connections()) }
	}
	t.Gauge("ambit_database_connections", "Open connections to the database.", pool(func(c sqldb.Connections) float64 { return float64(c.Open) }))
	t.Gauge("ambit_database_connections_busy", "Connections to the database that are in use.", pool(func(c sqldb.Connections) float64 { return float64(c.Busy) }))
	t.Count("ambit_database_waits_total", "Times that somebody waited for a connection to the database.", pool(func(c sqldb.Connections) float64 { return float64(c.Waits) }))
	t.Count("ambit_database_wait_seconds_total", "Time spent waiting for a connection to the database.", pool(func(c sqldb.Connections) float64 { return c.Waited.Seconds() }))
	t.Count("ambit_database_statements_total", "Statements sent to the database.", func() float64 { return float64(db.Stats().Statements) })
	t.Count("ambit_database_commits_total", "Transactions committed.", func() float64 { return float64(db.Stats().Commits) })
	t.Gauge("ambit_audit_intents_waiting", "Calls that wait for their intent to be durable.", waiting(func(intents, _ int) int { return intents }))
	t.Gauge("ambit_audit_outcomes_waiting", "Finished calls whose outcome is not durable yet. Calls are refused above 9000.", waiting(func(_, outcomes int) int { return outcomes }))
	t.Gauge("ambit_audit_unwitnessed_seconds", "Age of the oldest entry of this process that no checkpoint has seen. Above a minute the checkpoint folder cannot be written.",
		func() float64 { return a.Audit.Witness().Behind.Seconds() })
	t.Gauge("ambit_clock_skew_seconds", "How far this node's clock is from the database's. Calls are refused beyond 2 s.", func() float64 { return a.clock.Skew().Seconds() })
}

// metrics answers whoever shows the operator's token. Without a token set, or
// with another, there is no such page.
func (a *App) metrics(w http.ResponseWriter, r *http.Request) {
	scheme, shown, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if a.cfg.MetricsToken.Len() == 0 || !strings.EqualFold(scheme, "Bearer") || !secret.FromString(shown).Equal(a.cfg.MetricsToken) {
		http.NotFound(w, r)
		return
	}
	a.telemetry.Metrics().ServeHTTP(w, r)
}

// mountConsole adds metrics and profiles to the socket of those who own the
// data folder. Profiles show memory, so they are nowhere else.
func (a *App) mountConsole(mux *http.ServeMux) {
	mux.Handle("GET /metrics", a.telemetry.Metrics())
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
}

// watched counts what each door answers.
func (a *App) watched(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began, seen := time.Now(), &statusWriter{ResponseWriter: w}
		defer func() { a.telemetry.Request(door(r.URL.Path), seen.status, time.Since(began)) }()
		next.ServeHTTP(seen, r)
	})
}

// door is which of our doors a path leads to. The set is closed: it is a label.
func door(path string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch first {
	case "mcp", "oauth", "v1", "ui", "vault", "hooks", "relay", "metrics", "healthz", "readyz":
		return first
	case "events":
		return "vault"
	case "data-integrations", "user_management", "organizations":
		return "pipes"
	case ".well-known":
		return "discovery"
	case "connect":
		return "ui"
	}
	return "other"
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status < http.StatusOK {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status < http.StatusOK {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Command bench measures what a brokered call costs. It starts a stub upstream,
// a real `ambit serve` on SQLite and one on PostgreSQL, all on loopback, has a
// person with a software passkey approve a session, and then sends the same
// read to the stub directly and through MCP, one at a time and 16 at a time, in
// five turns, of which it prints the medians as a table in Markdown. Beside them
// stands what the bare parts cost that every brokered call needs (parts.go).
//
//	go run ./bench                  both engines, as a table
//	go run ./bench -json FILE       the same numbers for a program too
//	go run ./bench -database URL    PostgreSQL that runs already, instead of one of its own
//	go run ./bench -rows 1000000    the call among few rows and among many
//	go run ./bench -objects 1000000 secrets instead: written and read among 500 and among many
//	go run ./bench -scan 100000 -gitleaks PATH  what a scan for credentials costs, beside gitleaks
//	go run ./bench -streams 2000    the memory that idle live pages take
//	go run ./bench -doors           the proxy and the relay, beside direct calls and a plain reverse proxy
//
// Latency and CPU are measured on the undisturbed server. Round trips are
// counted by a proxy in front of PostgreSQL and fsyncs by strace, each in a
// short run of its own. Every run is bounded in calls and in time.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/ambit-dev/ambit/e2e/world"
)

// Row is one line of the table.
type Row struct {
	Path        string  `json:"path"` // direct, parts, sqlite or postgres, those with whoami or relay
	Concurrency int     `json:"concurrency"`
	Calls       int     `json:"calls"`
	P50         float64 `json:"p50_ms"`
	P99         float64 `json:"p99_ms"`
	AddedP50    float64 `json:"added_p50_ms"`
	AddedP99    float64 `json:"added_p99_ms"`
	Rate        float64 `json:"calls_per_second"`
	CPU         float64 `json:"server_cpu_ms_per_call"`
	RSS         float64 `json:"server_rss_mib"`
	Fsyncs      float64 `json:"fsyncs_per_call"`      // of the server, or of PostgreSQL's WAL; -1 is not measured
	RoundTrips  float64 `json:"round_trips_per_call"` // to PostgreSQL; -1 is not measured
}

// Report is what -json writes.
type Report struct {
	Time time.Time `json:"time"`
	Go   string    `json:"go"`
	CPUs int       `json:"cpus"`
	Rows []Row     `json:"rows,omitempty"`
	// Secrets are the rows of -objects.
	Secrets []SecretRow `json:"secrets,omitempty"`
}

type options struct {
	calls    int
	seconds  time.Duration
	database string
	engines  []string
	streams  int // idle live pages; 0 is the usual measurement
	rows     int // of the large database; 0 is the usual measurement
	objects  int // secrets of the large database; 0 is the usual measurement
	scan     int // small files of a tree to scan; 0 is the usual measurement
	gitleaks string
	doors    bool // the proxy and the relay instead
}

func main() {
	var o options
	out := flag.String("json", "", "write the numbers to this file too")
	only := flag.String("engine", "", "sqlite or postgres; both when empty")
	flag.IntVar(&o.calls, "calls", 10000, "most calls of one run")
	flag.DurationVar(&o.seconds, "time", 10*time.Second, "longest time of one run")
	flag.StringVar(&o.database, "database", "", "URL of a PostgreSQL that runs already")
	flag.IntVar(&o.rows, "rows", 0, "measure in a database of 1,000 and in one of this many sessions, connections and audit entries instead")
	flag.IntVar(&o.streams, "streams", 0, "measure the memory of this many idle live pages instead, 3,000 at most")
	flag.IntVar(&o.objects, "objects", 0, "measure secrets among 500 and among this many instead; 500 is among 500 only")
	flag.IntVar(&o.scan, "scan", 0, "measure a scan of this many small files and of a large one instead, 1,000,000 at most")
	flag.StringVar(&o.gitleaks, "gitleaks", "", "with -scan: the binary of gitleaks, to be measured beside")
	flag.BoolVar(&o.doors, "doors", false, "measure the proxy and the relay instead, on SQLite: calls over HTTPS, downloads, idle streams")
	plain := flag.Bool("plain", false, "be a plain reverse proxy: used by bench itself")
	part := flag.Bool("parts", false, "be the process of parts.go: used by bench itself")
	flag.Parse()
	if *plain {
		if err := servePlain(flag.Arg(0), flag.Arg(1), flag.Arg(2) == "true"); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if *part {
		if err := serveParts(flag.Arg(0), flag.Arg(1)); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	o.engines = []string{"sqlite", "postgres"}
	if *only != "" {
		o.engines = []string{*only}
	}
	if o.calls < 100 || o.calls > 200_000 || o.seconds < time.Second || o.seconds > 2*time.Minute {
		fmt.Fprintln(os.Stderr, "bench: -calls is 100 to 200000 and -time 1s to 2m")
		os.Exit(2)
	}
	if o.streams < 0 || o.streams > 3000 {
		fmt.Fprintln(os.Stderr, "bench: -streams is at most 3000")
		os.Exit(2)
	}
	if o.rows != 0 && (o.rows < maxActive || o.rows > 10_000_000) {
		fmt.Fprintln(os.Stderr, "bench: -rows is 10000 to 10000000")
		os.Exit(2)
	}
	if o.objects != 0 && (o.objects < measuredSecrets || o.objects > 10_000_000) {
		fmt.Fprintln(os.Stderr, "bench: -objects is 500 to 10000000")
		os.Exit(2)
	}
	if o.scan < 0 || o.scan > 1_000_000 {
		fmt.Fprintln(os.Stderr, "bench: -scan is at most 1000000")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, o, *out)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out string) (err error) {
	dir, err := os.MkdirTemp("", "ambit-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if o.scan > 0 {
		return scanned(ctx, dir, o.gitleaks, o.scan)
	}
	binary, err := world.Build(ctx, dir)
	if err != nil {
		return err
	}
	up, err := world.NewThird()
	if err != nil {
		return err
	}
	defer up.Close()

	if o.doors {
		return doorways(ctx, o, dir, binary, up)
	}
	if o.streams > 0 {
		return streams(ctx, dir, binary, up, o.streams)
	}
	report := Report{Time: time.Now().UTC(), Go: runtime.Version(), CPUs: runtime.NumCPU()}
	for _, engine := range o.engines {
		measure := brokered
		if o.rows > 0 {
			measure = sized
		}
		if o.objects > 0 {
			rows, err := secrets(ctx, o, dir, binary, engine, up)
			if err != nil {
				return fmt.Errorf("%s: %w", engine, err)
			}
			report.Secrets = append(report.Secrets, rows...)
			continue
		}
		rows, err := measure(ctx, o, dir, binary, engine, up)
		if err != nil {
			return fmt.Errorf("%s: %w", engine, err)
		}
		report.Rows = append(report.Rows, rows...)
	}
	if o.objects > 0 {
		showSecrets(report)
	} else {
		show(report)
	}
	if out == "" {
		return nil
	}
	doc, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(doc, '\n'), 0o644)
}

// brokered measures one engine.
func brokered(ctx context.Context, o options, dir, binary, engine string, up *world.Third) (rows []Row, err error) {
	var pg *cluster
	if engine == "postgres" {
		if pg, err = newCluster(ctx, o.database); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, pg.stop()) }()
	}
	b, err := newBroker(ctx, world.Config{Dir: filepath.Join(dir, engine), Binary: binary, Database: pg.at(""), Third: up})
	defer func() { err = errors.Join(err, b.Stop()) }()
	if err != nil {
		return nil, err
	}
	if _, err := load(ctx, options{calls: 500, seconds: 10 * time.Second}, 16, b.call); err != nil { // warm
		return nil, err
	}
	var p *parts
	if engine == "sqlite" { // which they use
		if p, err = startParts(ctx, filepath.Join(dir, engine), "http://"+up.Address()+"/items"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, p.stop()) }()
	}
	if rows, err = rounds(ctx, o, engine, b, p, up, b.call); err != nil {
		return nil, err
	}
	short := options{calls: 400, seconds: 20 * time.Second}
	for i := range rows {
		if rows[i].Path != engine {
			continue // direct, or a tool that calls nobody
		}
		switch engine {
		case "sqlite":
			rows[i].Fsyncs, err = traced(b.pid(), func() (int, error) {
				r, err := load(ctx, short, rows[i].Concurrency, b.call)
				return r.Calls, err
			})
		case "postgres":
			rows[i].Fsyncs, err = pg.syncs(ctx, func() (int, error) {
				r, err := load(ctx, short, rows[i].Concurrency, b.call)
				return r.Calls, err
			})
		}
		if err != nil {
			return nil, err
		}
	}
	if pg == nil {
		return rows, nil
	}
	// Once more behind a proxy that counts, on the same data.
	counter, err := newProxy(pg.address)
	if err != nil {
		return nil, err
	}
	defer counter.close()
	if err := b.Stop(); err != nil {
		return nil, err
	}
	b.Nodes[0].Database = pg.at(counter.address())
	if err := b.Start(ctx); err != nil {
		return nil, err
	}
	for i := range rows {
		if rows[i].Path != engine {
			continue
		}
		if _, err := load(ctx, options{calls: 200, seconds: 10 * time.Second}, rows[i].Concurrency, b.call); err != nil { // statements prepared
			return nil, err
		}
		before := counter.trips.Load()
		r, err := load(ctx, short, rows[i].Concurrency, b.call)
		if err != nil {
			return nil, err
		}
		rows[i].RoundTrips = float64(counter.trips.Load()-before) / float64(r.Calls)
	}
	return rows, nil
}

// rounds measures the direct call, the brokered one, a tool that calls nobody and,
// unless nil, the bare parts, in turns, so that whatever else the machine does meets all alike, and gives the
// medians. What is added is the median of the differences within a turn.
func rounds(ctx context.Context, o options, engine string, b *broker, p *parts, up *world.Third, brokered func(context.Context) error) ([]Row, error) {
	kinds := []kind{
		{"direct", 1, b.pid(), up.Direct}, {engine, 1, b.pid(), brokered}, {engine + " whoami", 1, b.pid(), b.whoami},
		{engine + " relay", 1, b.pid(), b.relayed},
		{"direct", 16, b.pid(), up.Direct}, {engine, 16, b.pid(), brokered}, {engine + " relay", 16, b.pid(), b.relayed},
	}
	if p != nil {
		kinds = slices.Insert(kinds, 3, kinds[0])
		kinds[3].path, kinds[3].pid, kinds[3].call = "parts", p.pid(), p.call
	}
	return taken(ctx, o, kinds)
}

// kind is one row to be: a way to call, and whose processor time counts.
type kind struct {
	path string
	n    int
	pid  int
	call func(context.Context) error
}

// taken measures them in turns. Each is beside the last direct one before it.
func taken(ctx context.Context, o options, kinds []kind) ([]Row, error) {
	turn := options{calls: max(o.calls/turns, 100), seconds: o.seconds / turns}
	taken := make([][]Row, len(kinds))
	for range turns {
		var direct Row
		for i, k := range kinds {
			before, err := cpuTime(k.pid)
			if err != nil {
				return nil, err
			}
			r, err := load(ctx, turn, k.n, k.call)
			if err != nil {
				return nil, err
			}
			after, err := cpuTime(k.pid)
			if err != nil {
				return nil, err
			}
			if r.RSS, err = rss(k.pid); err != nil {
				return nil, err
			}
			r.CPU = float64((after - before).Microseconds()) / 1000 / float64(r.Calls)
			if k.path == "direct" {
				direct = r
			}
			r.AddedP50, r.AddedP99 = r.P50-direct.P50, r.P99-direct.P99
			taken[i] = append(taken[i], r)
		}
	}
	rows := make([]Row, len(kinds))
	for i, k := range kinds {
		rows[i] = median(taken[i])
		rows[i].Path, rows[i].Concurrency, rows[i].Fsyncs, rows[i].RoundTrips = k.path, k.n, -1, -1
	}
	return rows, nil
}

const turns = 5

// median takes the median of each number.
func median(taken []Row) (m Row) {
	of := func(number func(*Row) *float64) {
		all := make([]float64, len(taken))
		for i := range taken {
			all[i] = *number(&taken[i])
		}
		slices.Sort(all)
		*number(&m) = all[len(all)/2]
	}
	of(func(r *Row) *float64 { return &r.P50 })
	of(func(r *Row) *float64 { return &r.P99 })
	of(func(r *Row) *float64 { return &r.AddedP50 })
	of(func(r *Row) *float64 { return &r.AddedP99 })
	of(func(r *Row) *float64 { return &r.Rate })
	of(func(r *Row) *float64 { return &r.CPU })
	of(func(r *Row) *float64 { return &r.RSS })
	for _, r := range taken {
		m.Calls += r.Calls
	}
	return m
}

// show prints the table of docs/performance.md.
func show(r Report) {
	fmt.Println("| path | at once | p50 ms | p99 ms | added p50 | added p99 | calls/s | server CPU ms/call | RSS MiB | fsyncs/call | round trips/call |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|---|")
	for _, row := range r.Rows {
		if row.Path == "direct" {
			fmt.Printf("| direct | %d | %.3f | %.2f | | | %.0f | | | | |\n", row.Concurrency, row.P50, row.P99, row.Rate)
			continue
		}
		fmt.Printf("| %s | %d | %.2f | %.1f | %+.2f | %+.1f | %.0f | %.3f | %.0f | %s | %s |\n", row.Path, row.Concurrency,
			row.P50, row.P99, row.AddedP50, row.AddedP99, row.Rate, row.CPU, row.RSS, known(row.Fsyncs), known(row.RoundTrips))
	}
	fmt.Printf("\n%s, %s, %d CPUs shared by client, upstream, server and database; medians of %d turns.\n", r.Time.Format("2006-01-02"), r.Go, r.CPUs, turns)
}

func known(v float64) string {
	if v < 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", v)
}

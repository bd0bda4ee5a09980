package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/e2e/world"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// measuredSecrets is how many secrets the small database has.
const measuredSecrets = 500

// atOnce is how many callers a secret's writes and reads have: as many as the
// figures that others publish of theirs.
const atOnce = 8

// anchors are what OpenBao 2.5 does on two cores with a file for its audit and no
// sync of it, in calls a second.
var anchors = map[string]string{"sqlite write": "1,670 (raft)", "sqlite read": "9,900 (raft)", "postgres write": "960", "postgres read": "1,800"}

// SecretRow is one line of the table of secrets.
type SecretRow struct {
	Path       string  `json:"path"`
	Among      int     `json:"among"`
	Calls      int     `json:"calls"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	Rate       float64 `json:"calls_per_second"`
	Anchor     string  `json:"anchor,omitempty"`
	CPU        float64 `json:"server_cpu_ms_per_call"`
	DatabaseMS float64 `json:"database_cpu_ms_per_call"` // -1 is in the server's, or not measured
	RSS        float64 `json:"server_rss_mib"`
	Fsyncs     float64 `json:"fsyncs_per_call"` // -1 is not measured
}

// secrets measures durable, audited writes and reads of values of 512 bytes over
// HTTP, as WorkOS' SDKs send them: among 500 secrets, and among as many as were
// asked for. Writes go to all of them, and reads to those that were written.
func secrets(ctx context.Context, o options, dir, binary, engine string, up *world.Third) (rows []SecretRow, err error) {
	var pg *cluster
	if engine == "postgres" {
		if pg, err = newCluster(ctx, o.database); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, pg.stop()) }()
	}
	home := filepath.Join(dir, engine+"-secrets")
	b, err := newBroker(ctx, world.Config{Dir: home, Binary: binary, Database: pg.at(""), Third: up})
	defer func() { err = errors.Join(err, b.Stop()) }()
	if err != nil {
		return nil, err
	}
	database := pg.at("")
	if pg == nil {
		database = home
	}
	p, err := startParts(ctx, database, "")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	s := &secretLoad{base: b.URL + "/vault/v1/kv", key: b.Ready.APIKey, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: atOnce, DisableCompression: true}}}
	if err := s.fill(ctx); err != nil {
		return nil, err
	}
	for _, size := range []int{measuredSecrets, o.objects} {
		if size > measuredSecrets {
			if err := b.Stop(); err != nil {
				return nil, err
			}
			cfg := sqldb.Config{URL: pg.at("")}
			if pg == nil {
				cfg.DataDir = b.Nodes[0].DataDir()
			}
			if err := s.grow(ctx, cfg, size); err != nil {
				return nil, fmt.Errorf("growing to %d secrets: %w", size, err)
			}
			if err := b.Start(ctx); err != nil {
				return nil, err
			}
		} else if len(rows) > 0 || size < measuredSecrets {
			continue
		}
		kinds := []secretKind{{"write", b.pid, s.write}, {"read", b.pid, s.read}}
		if len(rows) == 0 {
			kinds = append(kinds, secretKind{"bare parts of a read", p.pid, p.call})
		}
		for _, kind := range kinds {
			row, err := kind.measure(ctx, o, pg)
			if err != nil {
				return nil, err
			}
			row.Path, row.Among, row.Anchor = engine+", "+kind.name, size, anchors[engine+" "+kind.name]
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// secretKind is what is done with secrets, and by which process.
type secretKind struct {
	name string
	pid  func() int
	call func(context.Context) error
}

func (k secretKind) measure(ctx context.Context, o options, pg *cluster) (SecretRow, error) {
	if _, err := load(ctx, options{calls: 2 * measuredSecrets, seconds: o.seconds}, atOnce, k.call); err != nil { // warm
		return SecretRow{}, err
	}
	row := SecretRow{DatabaseMS: -1, Fsyncs: -1}
	var taken []Row
	var used time.Duration
	for range turns {
		before, err := cpuTime(k.pid())
		if err != nil {
			return SecretRow{}, err
		}
		had, _ := pg.cpu()
		r, err := load(ctx, options{calls: max(o.calls/turns, 100), seconds: o.seconds / turns}, atOnce, k.call)
		if err != nil {
			return SecretRow{}, err
		}
		has, ok := pg.cpu()
		after, err := cpuTime(k.pid())
		if err != nil {
			return SecretRow{}, err
		}
		r.CPU = float64((after - before).Microseconds()) / 1000 / float64(r.Calls)
		if r.RSS, err = rss(k.pid()); err != nil {
			return SecretRow{}, err
		}
		taken = append(taken, r)
		row.Calls += r.Calls
		if used += has - had; ok {
			row.DatabaseMS = float64(used.Microseconds()) / 1000 / float64(row.Calls)
		}
	}
	m := median(taken)
	row.P50, row.P99, row.Rate, row.CPU, row.RSS = m.P50, m.P99, m.Rate, m.CPU, m.RSS
	if pg == nil {
		var err error
		row.Fsyncs, err = traced(k.pid(), func() (int, error) {
			r, err := load(ctx, options{calls: 2000, seconds: 20 * time.Second}, atOnce, k.call)
			return r.Calls, err
		})
		return row, err
	}
	return row, nil
}

// showSecrets prints the table of secrets of docs/performance.md.
func showSecrets(r Report) {
	fmt.Println("| path | among | p50 ms | p99 ms | calls/s | OpenBao | server CPU ms/call | database CPU ms/call | RSS MiB | fsyncs/call |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|")
	for _, row := range r.Secrets {
		fmt.Printf("| %s | %d | %.2f | %.1f | %.0f | %s | %.3f | %s | %.0f | %s |\n", row.Path, row.Among, row.P50, row.P99, row.Rate, row.Anchor,
			row.CPU, known(row.DatabaseMS), row.RSS, known(row.Fsyncs))
	}
	fmt.Printf("\n%s, %s, %d CPUs shared by client, server and database; %d at once, medians of %d turns. OpenBao's figures were taken without a sync of its audit.\n",
		r.Time.Format("2006-01-02"), r.Go, r.CPUs, atOnce, turns)
}

// secretLoad writes secrets at random, and reads those that were written.
type secretLoad struct {
	base, key string
	client    *http.Client

	mu      sync.Mutex
	ids     []string
	grown   int // that are not in ids and have the id of their number
	written []string
}

func (s *secretLoad) fill(ctx context.Context) error {
	for i := range measuredSecrets {
		var made struct{ ID string }
		doc := fmt.Sprintf(`{"name":"bench/%d","value":%q,"key_context":{"organization_id":"org_bench"}}`, i, strings.Repeat("x", 512))
		if err := s.send(ctx, http.MethodPost, s.base, doc, http.StatusCreated, &made); err != nil {
			return err
		}
		s.ids = append(s.ids, made.ID)
	}
	return nil
}

// grownID is the id of a secret that a database was filled with.
func grownID(n int) string { return fmt.Sprintf("secret_%026d", n) }

const grownIDSQL = `substr('secret_00000000000000000000000000', 1, 33 - length('' || n.i)) || n.i`

func (s *secretLoad) read(ctx context.Context) error {
	s.mu.Lock()
	id := s.written[rand.IntN(len(s.written))]
	s.mu.Unlock()
	return s.send(ctx, http.MethodGet, s.base+"/"+id, "", http.StatusOK, nil)
}

func (s *secretLoad) write(ctx context.Context) error {
	n := rand.IntN(len(s.ids) + s.grown)
	id := grownID(n + 1)
	if n >= s.grown {
		id = s.ids[n-s.grown]
	}
	err := s.send(ctx, http.MethodPut, s.base+"/"+id, fmt.Sprintf(`{"value":"%0512d"}`, n), http.StatusCreated, nil)
	if err == nil {
		s.mu.Lock()
		s.written = append(s.written, id)
		s.mu.Unlock()
	}
	return err
}

func (s *secretLoad) send(ctx context.Context, method, address, body string, want int, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != want || out != nil {
		doc, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != want {
			return errors.Join(err, fmt.Errorf("%s: %d %s", method, resp.StatusCode, bytes.TrimSpace(doc)))
		}
		return json.Unmarshal(doc, out)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// grow repeats the first secret and its value until there are so many. The others
// are like it for the database, and open for nobody until they are written.
func (s *secretLoad) grow(ctx context.Context, cfg sqldb.Config, to int) error {
	db, err := sqldb.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer db.Close()
	like := s.ids[0]
	for s.grown < to-measuredSecrets {
		n := min(to-measuredSecrets-s.grown, 20_000)
		if err := copyRows(ctx, db, "secret_object", "id = '"+like+"'", s.grown, n, map[string]string{"id": grownIDSQL, "name": "'grown/' || n.i", "name_folded": "'grown/' || n.i", "current_version": "1"}); err != nil {
			return err
		}
		if err := copyRows(ctx, db, "secret_version", "object_id = '"+like+"' and version = 1", s.grown, n, map[string]string{"object_id": grownIDSQL, "version_id": "'bench' || n.i"}); err != nil {
			return err
		}
		if err := copyRows(ctx, db, "secret_label", "object_id = '"+like+"'", s.grown, n, map[string]string{"object_id": grownIDSQL}); err != nil {
			return err
		}
		s.grown += n
	}
	s.written = nil
	return nil
}

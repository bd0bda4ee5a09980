package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/ambit-dev/ambit/e2e/world"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// measuredSecrets is how many secrets are written and read in turn.
const measuredSecrets = 500

// atOnce is how many callers a secret's writes and reads have: as many as the
// figures that others publish of theirs.
const atOnce = 8

// secrets measures durable, audited writes and reads of values of 512 bytes over
// HTTP, as WorkOS' SDKs send them: among 500 secrets, and among as many as were
// asked for.
func secrets(ctx context.Context, o options, dir, binary, engine string, up *world.Third) (rows []Row, err error) {
	var pg *cluster
	if engine == "postgres" {
		if pg, err = newCluster(ctx, o.database); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, pg.stop()) }()
	}
	b, err := newBroker(ctx, world.Config{Dir: filepath.Join(dir, engine+"-secrets"), Binary: binary, Database: pg.at(""), Third: up})
	defer func() { err = errors.Join(err, b.Stop()) }()
	if err != nil {
		return nil, err
	}
	s := &secretLoad{base: b.URL + "/vault/v1/kv", key: b.Ready.APIKey, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: atOnce}}}
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
			if err := growSecrets(ctx, cfg, s.ids[0], size); err != nil {
				return nil, fmt.Errorf("growing to %d secrets: %w", size, err)
			}
			if err := b.Start(ctx); err != nil {
				return nil, err
			}
		} else if len(rows) > 0 || size < measuredSecrets {
			continue
		}
		for _, kind := range []struct {
			name string
			call func(context.Context) error
		}{{"read", s.read}, {"write", s.write}} {
			if _, err := load(ctx, options{calls: 2 * measuredSecrets, seconds: o.seconds}, atOnce, kind.call); err != nil { // warm
				return nil, err
			}
			var taken []Row
			for range turns {
				before, err := cpuTime(b.pid())
				if err != nil {
					return nil, err
				}
				r, err := load(ctx, options{calls: max(o.calls/turns, 100), seconds: o.seconds / turns}, atOnce, kind.call)
				if err != nil {
					return nil, err
				}
				after, err := cpuTime(b.pid())
				if err != nil {
					return nil, err
				}
				r.CPU = float64((after - before).Microseconds()) / 1000 / float64(r.Calls)
				if r.RSS, err = rss(b.pid()); err != nil {
					return nil, err
				}
				taken = append(taken, r)
			}
			m := median(taken)
			m.Path, m.Concurrency, m.Fsyncs, m.RoundTrips = fmt.Sprintf("%s, secret %s, among %d", engine, kind.name, size), atOnce, -1, -1
			rows = append(rows, m)
		}
	}
	return rows, nil
}

// secretLoad writes and reads secrets in turn.
type secretLoad struct {
	base, key string
	client    *http.Client
	ids       []string
	turn      atomic.Int64
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

func (s *secretLoad) next() (string, int64) {
	n := s.turn.Add(1)
	return s.base + "/" + s.ids[int(n*7919)%len(s.ids)], n
}

func (s *secretLoad) read(ctx context.Context) error {
	at, _ := s.next()
	return s.send(ctx, http.MethodGet, at, "", http.StatusOK, nil)
}

func (s *secretLoad) write(ctx context.Context) error {
	at, n := s.next()
	return s.send(ctx, http.MethodPut, at, fmt.Sprintf(`{"value":"%0512d"}`, n), http.StatusCreated, nil)
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

// growSecrets repeats a secret and its value until there are so many. The others
// are like it for the database, and open for nobody.
func growSecrets(ctx context.Context, cfg sqldb.Config, like string, to int) error {
	db, err := sqldb.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer db.Close()
	for rows := measuredSecrets; rows < to; {
		n := min(to-rows, 20_000)
		if err := copyRows(ctx, db, "secret_object", "id = '"+like+"'", rows, n, map[string]string{"id": "'secret_bench' || n.i", "name": "'grown/' || n.i", "name_folded": "'grown/' || n.i", "current_version": "1"}); err != nil {
			return err
		}
		if err := copyRows(ctx, db, "secret_version", "object_id = '"+like+"' and version = 1", rows, n, map[string]string{"object_id": "'secret_bench' || n.i", "version_id": "'bench' || n.i"}); err != nil {
			return err
		}
		if err := copyRows(ctx, db, "secret_label", "object_id = '"+like+"'", rows, n, map[string]string{"object_id": "'secret_bench' || n.i"}); err != nil {
			return err
		}
		rows += n
	}
	return nil
}

package app_test

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// Issue 3 item 1: a node with another root key is refused, is told why, and has
// done nothing: no entry, no chain, no key.
func TestAnotherRootKeyIsRefused(t *testing.T) {
	t.Parallel()
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, engine)
			first := c.add(nil)
			first.stop()
			<-first.done
			rows := `select (select count(*) from audit_chain) + (select count(*) from audit_entry) + (select count(*) from audit_signer)`
			before := c.count(rows)
			cfg := c.cfg
			cfg.RootKey = filepath.Join(t.TempDir(), "other.key")
			other, err := app.New(t.Context(), app.Config{DataDir: filepath.Join(t.TempDir(), "data"), RootKey: cfg.RootKey, CheckpointDir: t.TempDir(), Listen: "localhost:0"})
			must(t, err) // makes the key
			other.Close()
			_, err = app.New(t.Context(), cfg)
			if f := fault.Of(err); f.Code != "root_key_mismatch" || !strings.Contains(f.Hint, "AMBIT_ROOT_KEY") {
				t.Errorf("got %v, want root_key_mismatch with what to do", err)
			}
			if after := c.count(rows); after != before {
				t.Errorf("%d rows before, %d after", before, after)
			}
			if n := c.count(`select count(*) from node`); n != 0 {
				t.Errorf("%d nodes are left in the table", n)
			}
		})
	}
}

// A node under another public URL is refused while others live; other
// differences are pointed out.
func TestNodesAgreeOnTheirSettings(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sqldb.PostgreSQL)
	first := c.add(func(cfg *app.Config) { cfg.Node = "node-one" })
	cfg := c.cfg
	cfg.DataDir, cfg.PublicURL = filepath.Join(t.TempDir(), "data"), "http://localhost:7421"
	_, err := app.New(t.Context(), cfg)
	if f := fault.Of(err); f.Code != "public_url_differs" || !strings.Contains(f.Message, "node-one") || !strings.Contains(f.Message, "http://"+publicHost) || !strings.Contains(f.Hint, "AMBIT_PUBLIC_URL") {
		t.Errorf("got %v, want a refusal that names the node and its URL", err)
	}
	var log lines
	c.add(func(cfg *app.Config) {
		cfg.AllowVend, cfg.CallRate, cfg.Logger = true, 7, slog.New(slog.NewTextHandler(&log, nil))
	}).stop()
	if text := log.String(); !strings.Contains(text, "node-one: AMBIT_ALLOW_VEND, AMBIT_CALL_RATE") {
		t.Errorf("the log does not say what differs: %s", text)
	}
	first.stop()
	<-first.done
	until(t, "the URL can be changed", func() bool {
		a, err := app.New(t.Context(), cfg)
		if err == nil {
			a.Close()
		}
		return err == nil
	})
}

// lines is a log that a test reads.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/sqldb"
)

// parts is a process that does what every brokered call must, and nothing of
// Ambit's own: it reads a request, makes two rows durable in one transaction on
// SQLite, sends a request upstream, and passes the answer on. It uses the same
// server, client and storage as Ambit does, so what it adds to a direct call is
// the least that can be had with them.
type parts struct {
	process *exec.Cmd
	input   io.Closer // its end ends the process
	url     string
}

// startParts starts one with its database in a folder, or at a URL of PostgreSQL. Without
// an upstream it does what every read of a secret must: it reads a row by its key,
// makes one durable, in a transaction with those of others that came meanwhile, and
// answers.
func startParts(ctx context.Context, database, upstream string) (*parts, error) {
	return startSelf(ctx, "-parts", database, upstream)
}

// startSelf starts this program as another process, which says where it serves.
func startSelf(ctx context.Context, args ...string) (*parts, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &parts{process: exec.CommandContext(ctx, self, args...)}
	p.process.Stderr = os.Stderr
	if p.input, err = p.process.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.process.Start(); err != nil {
		return nil, err
	}
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(err, p.stop())
	}
	p.url = "http://" + strings.TrimSpace(address)
	return p, nil
}

func (p *parts) pid() int { return p.process.Process.Pid }

func (p *parts) stop() error {
	return errors.Join(p.input.Close(), p.process.Wait())
}

// call sends as many bytes as an agent's call has.
func (p *parts) call(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(make([]byte, 400)))
	if err != nil {
		return err
	}
	resp, err := partsClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		return errors.Join(fmt.Errorf("the parts answered %s", resp.Status), err)
	}
	return nil
}

var partsClient = &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}}

// serveParts is that process. It prints its address and ends with its input.
func serveParts(database, upstream string) error {
	ctx := context.Background()
	cfg, table := sqldb.Config{DataDir: filepath.Join(database, "parts")}, `create table entry (id integer primary key, body blob not null) strict`
	if strings.HasPrefix(database, "postgres://") {
		cfg, table = sqldb.Config{URL: database}, `create table entry (id bigint generated always as identity primary key, body bytea not null)`
	}
	db, err := sqldb.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer db.Close()
	err = db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		_, err := tx.ExecContext(ctx, table)
		return err
	})
	if err != nil {
		return err
	}
	if upstream == "" {
		return servePartsOfARead(ctx, db)
	}
	row := bytes.Repeat([]byte("x"), 1000)
	return serveUntilInputEnds(nil, func(w http.ResponseWriter, r *http.Request) {
		answer, err := func() ([]byte, error) {
			if _, err := io.ReadAll(io.LimitReader(r.Body, 1<<20)); err != nil {
				return nil, err
			}
			err := db.Update(r.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
				_, err := tx.ExecContext(ctx, `insert into entry (body) values ($1), ($2)`, row, row)
				return err
			})
			if err != nil {
				return nil, err
			}
			req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, upstream, nil)
			if err != nil {
				return nil, err
			}
			resp, err := partsClient.Do(req)
			if err != nil {
				return nil, err
			}
			defer resp.Body.Close()
			return io.ReadAll(resp.Body)
		}()
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		_, _ = w.Write(answer)
	})
}

// servePartsOfARead is serveParts without an upstream.
func servePartsOfARead(ctx context.Context, db *sqldb.DB) error {
	const insert, read = `insert into entry (body) values ($1)`, `select body from entry where id = $1`
	row := bytes.Repeat([]byte("x"), 700)
	add := func(ctx context.Context, tx *sqldb.Tx) error {
		return tx.Later(ctx, func(err error) error { return err }, insert, row)
	}
	line := &sqldb.Line[struct{}]{Most: 64, Work: func(batch []struct{}, answers []error) error {
		err := db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
			for range batch {
				if err := add(ctx, tx); err != nil {
					return err
				}
			}
			return nil
		})
		for i := range answers {
			answers[i] = err
		}
		return err
	}}
	if err := db.Update(ctx, add); err != nil { // the row that is read
		return err
	}
	return serveUntilInputEnds(nil, func(w http.ResponseWriter, r *http.Request) {
		var value []byte
		err := db.Near().QueryRowContext(r.Context(), read, 1).Scan(&value)
		if err == nil {
			err = line.Do(struct{}{})
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		_, _ = w.Write(value)
	})
}

// serveUntilInputEnds serves, over TLS unless secured is nil.
func serveUntilInputEnds(secured *tls.Config, handler http.HandlerFunc) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{ReadTimeout: time.Minute, Handler: handler}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = srv.Close()
	}()
	fmt.Println(l.Addr())
	if secured != nil {
		l = tls.NewListener(l, secured)
	}
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

package main

import (
	"bufio"
	"bytes"
	"context"
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

// startParts starts one with its database in dir.
func startParts(ctx context.Context, dir, upstream string) (*parts, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &parts{process: exec.CommandContext(ctx, self, "-parts", dir, upstream)}
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
func serveParts(dir, upstream string) error {
	ctx := context.Background()
	db, err := sqldb.Open(ctx, sqldb.Config{DataDir: filepath.Join(dir, "parts")})
	if err != nil {
		return err
	}
	defer db.Close()
	err = db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		_, err := tx.ExecContext(ctx, `create table entry (id integer primary key, body blob not null) strict`)
		return err
	})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	row := bytes.Repeat([]byte("x"), 1000)
	srv := &http.Server{ReadTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
	})}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = srv.Close()
	}()
	fmt.Println(l.Addr())
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

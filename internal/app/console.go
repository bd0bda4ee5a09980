package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/disk"
)

var errAddrInUse = syscall.EADDRINUSE

// ConsoleSocket is where the commands that belong to the machine itself, such
// as `ambit recover`, reach a running server. Who may open it is decided by the
// data folder's mode.
const ConsoleSocket = "console.sock"

// console answers on the socket.
type console struct {
	srv  *http.Server
	path string
	done chan struct{}
}

// openConsole answers on the socket what mux does.
func (a *App) openConsole(mux *http.ServeMux) (*console, error) {
	if err := disk.Folder(a.cfg.DataDir); err != nil {
		return nil, fmt.Errorf("making the data folder: %w", err)
	}
	path := filepath.Join(a.cfg.DataDir, ConsoleSocket)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing the console socket of an earlier run: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		a.log.Warn("the console socket could not be opened; `ambit recover` needs the server stopped", "error", err)
		return nil, nil
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("closing the console socket to others: %w", err), l.Close())
	}
	c := &console{srv: &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}, path: path, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		_ = c.srv.Serve(l)
	}()
	return c, nil
}

// consoleMux is what the console of a server that serves answers.
func (a *App) consoleMux() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /about", a.about())
	mux.HandleFunc("GET /people", a.everyone)
	mux.HandleFunc("POST /recover", func(w http.ResponseWriter, r *http.Request) {
		link, err := a.People.Recover(r.Context(), r.FormValue("user"))
		if err != nil {
			refuse(w, err)
			return
		}
		_, _ = w.Write(link.Reveal())
	})
	mux.HandleFunc("POST /backup", func(w http.ResponseWriter, r *http.Request) {
		if err := a.Backup(r.Context(), r.FormValue("path")); err != nil {
			refuse(w, err)
		}
	})
	mux.HandleFunc("POST /keys/root", func(w http.ResponseWriter, r *http.Request) {
		if err := a.UseRoot(r.Context(), r.FormValue("ref")); err != nil {
			refuse(w, err)
		}
	})
	mux.HandleFunc("GET /keys/root", func(w http.ResponseWriter, r *http.Request) {
		left, err := a.Vault.Rest(r.Context())
		if err != nil {
			refuse(w, err)
			return
		}
		_ = json.NewEncoder(w).Encode(RootRest{left})
	})
	a.mountConsole(mux)
	return mux
}

// RootRest is how much is not under the server's primary root key yet.
type RootRest struct {
	Left int64 `json:"left"` // keys of contexts and of the audit
}

func (c *console) close() {
	_ = c.srv.Close()
	<-c.done
}

// UseRoot makes another of the server's root keys the primary one, for the operator.
func (a *App) UseRoot(ctx context.Context, ref string) error {
	return a.Custody.UseRoot(ctx, account.System("console"), ref)
}

// verify is the work behind VerifyAudit.
func (a *App) verify(ctx context.Context, progress func(entries int64)) (audit.Report, error) {
	return audit.Verify(ctx, audit.VerifyConfig{DB: a.db, Keeper: a.roots, Checkpoints: []string{a.cfg.CheckpointDir}, Progress: progress})
}

// newErrorLog sends what net/http has to say to the structured log.
func newErrorLog(l *slog.Logger) *log.Logger {
	return log.New(logWriter{l}, "", 0)
}

type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.log.Debug("http server", "message", strings.TrimSpace(string(p)))
	return len(p), nil
}

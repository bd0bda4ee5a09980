package app

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/vault"
	"github.com/ambit-dev/ambit/internal/web"
)

const sealedLook = time.Second // between two looks for the root key

const codeMissing = "root_key_missing"

// whySealed are the failures that may pass by themselves, and what people hear of
// each. A wrong key is none of them, nor is a setting that cannot work.
var whySealed = map[string]string{
	codeMissing:             "its root key is not where it should be",
	keyring.CodeUnavailable: "its root key cannot be reached",
	keyring.CodeThrottled:   "the keeper of its root key is asked too often",
	keyring.CodeDenied:      "its root key may not be used: it was disabled, or the right to it was taken away",
}

// KeyAway reports whether err says that a root key cannot be used now and may be
// later: a server that meets it at its start waits, if it is told to.
func KeyAway(err error) bool { return err != nil && whySealed[fault.Of(err).Code] != "" }

// sealed is what serves while the root key cannot be used. It has a database and
// root keys of its own, so that nothing of it is left when the server goes on.
type sealed struct {
	a     *App
	db    *sqldb.DB
	roots *keyring.Ring
	pages *web.Sealed // nil while the schema is not this binary's: nobody can sign in

	waiting *account.Waiting // the sign-ins

	mu         sync.Mutex
	code       string        // why it is sealed, in whySealed
	unrecorded []audit.Entry // what was done, for the record of the server that goes on
}

// waitSealed serves sealed until the root key can be used, and leaves the sign-ins
// that were made meanwhile in waiting. A root key that turns out to be of other data
// ends it with that error.
func (a *App) waitSealed(ctx context.Context, why error, waiting *account.Waiting) (err error) {
	s := &sealed{a: a, code: fault.Of(why).Code, waiting: waiting}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.open(ctx); err != nil {
		return err
	}
	srv, err := a.server(a.watched(a.edge(s.handler())))
	if err != nil {
		return err
	}
	var serving sync.WaitGroup
	for _, l := range a.listen {
		serving.Go(func() { _ = srv.Serve(a.secure(lent{l})) })
	}
	a.log.Error("the server is sealed: it waits for its root key", "code", s.code, "error", why)
	a.tell("READY=1\nSTATUS=sealed: " + s.code)
	a.cfg.Sealed(a.public, s.reason())
	con, err := a.openConsole(s.console())
	if err == nil {
		err = s.wait(ctx)
		if con != nil {
			con.close()
		}
		s.mu.Lock()
		a.unrecorded = append(a.unrecorded, s.unrecorded...)
		s.mu.Unlock()
	}
	soon, cancel := context.WithTimeout(context.WithoutCancel(ctx), cutGrace)
	defer cancel()
	if srv.Shutdown(soon) != nil {
		_ = srv.Close()
	}
	serving.Wait()
	for _, l := range a.listen {
		lent{l}.back()
	}
	return err
}

// open opens what can be opened without a root key, and changes nothing.
func (s *sealed) open(ctx context.Context) (err error) {
	a := s.a
	if s.db, err = sqldb.Open(ctx, sqldb.Config{DataDir: a.cfg.DataDir, URL: a.cfg.DatabaseURL, Logger: a.log}); err != nil {
		return err
	}
	if s.roots, err = rootsLater(ctx, a.cfg, a.outbound); err != nil {
		return err
	}
	a.health = &health{now: time.Now, parts: []part{
		{name: "database", look: s.db.Ping},
		{name: "keeper", look: func(context.Context) error { return fault.New(fault.Unavailable, s.why(), "") }},
	}, sealed: true}
	pending, err := s.db.Pending(ctx)
	if err != nil || len(pending) > 0 {
		return err
	}
	log := audit.Sealed(s.db, a.log)
	people, err := account.New(account.Config{DB: s.db, Vault: vault.New(vault.Config{DB: s.db, Roots: s.roots, Audit: log, Logger: a.log}), Audit: log, PublicURL: a.public, Logger: a.log})
	if err != nil {
		return err
	}
	s.pages, err = web.NewSealed(web.SealedConfig{People: people, PublicURL: a.public, Why: s.reason, Waiting: s.waiting, Address: a.address, Logger: a.log})
	return err
}

func (s *sealed) close() (err error) {
	if s.roots != nil {
		s.roots.Stop()
	}
	if s.db != nil {
		err = s.db.Close()
	}
	return err
}

// handler answers probes and sign-in, and refuses everything else in the form of
// the door that was asked.
func (s *sealed) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.a.health.alive)
	mux.HandleFunc("GET /readyz", s.a.health.ready)
	mux.HandleFunc("GET /metrics", s.a.metrics)
	if s.pages != nil {
		s.pages.Mount(mux)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		turnAway(w, r, http.StatusServiceUnavailable, s.reason())
	})
	return mux
}

// console answers the commands of the server's own machine that need no root key.
func (s *sealed) console() *http.ServeMux {
	mux, started := http.NewServeMux(), time.Now()
	mux.HandleFunc("GET /about", func(w http.ResponseWriter, _ *http.Request) {
		about := s.a.aboutStart(started, s.db.Engine())
		about.Sealed = s.why()
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(about)
	})
	mux.HandleFunc("POST /backup", func(w http.ResponseWriter, r *http.Request) {
		e := backedUp(r.FormValue("path"))
		if err := s.db.Backup(r.Context(), r.FormValue("path")); err != nil {
			refuse(w, err)
			return
		}
		s.a.log.Warn("a backup was made while the server is sealed; it goes on record when the server goes on", "file", e.Object)
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.unrecorded) < maxUnrecorded {
			s.unrecorded = append(s.unrecorded, e)
		}
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { refuse(w, s.reason()) })
	return mux
}

// maxUnrecorded bounds what waits to go on record.
const maxUnrecorded = 100

func (s *sealed) why() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.code
}

// reason is what everybody is told: nothing of where the key lies.
func (s *sealed) reason() *fault.Error {
	return fault.New(fault.Unavailable, audit.CodeSealed, "This server is sealed: "+whySealed[s.why()]+".").
		WithHint("Nothing is lost. It goes on by itself when the operator has brought the root key back; the operator finds the reason in the log and at /readyz.").
		WithRetry(sealedLook)
}

// wait returns when the root key can be used, or never can.
func (s *sealed) wait(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(sealedLook):
		}
		err := s.usable(ctx)
		if err == nil {
			s.a.log.Info("the root key is back; the server goes on")
			return nil
		}
		if ctx.Err() != nil {
			continue
		}
		if fault.Is(err, keyring.CodeMismatch) {
			return err
		}
		s.note(err)
	}
}

// note remembers why the server is still sealed. What is wrong with a file that is
// there may be that it is half written, so that is waited for too.
func (s *sealed) note(err error) {
	code := keyring.CodeUnavailable
	if KeyAway(err) {
		code = fault.Of(err).Code
	}
	if path := RootFile(s.a.cfg.RootKey); path != "" {
		if _, serr := os.Stat(path); errors.Is(serr, fs.ErrNotExist) {
			code = codeMissing
		}
	}
	s.mu.Lock()
	was := s.code
	s.code = code
	s.mu.Unlock()
	if was != code {
		s.a.log.Error("the server is still sealed", "code", code, "error", err)
	}
}

// usable is nil when the server's root keys are those of the database, and the one
// that wraps what is new can be used.
func (s *sealed) usable(ctx context.Context) error { return rootsUsable(ctx, s.db, s.roots) }

func rootsUsable(ctx context.Context, db *sqldb.DB, roots *keyring.Ring) error {
	if err := audit.CheckKey(ctx, db, roots); err != nil {
		return err
	}
	primary, err := vault.PrimaryOf(ctx, db, roots)
	if err != nil {
		return err
	}
	return primary.Prove(ctx)
}

// lent is a listener that goes on to whoever serves next: closing it only ends the
// waiting for connections, and those that arrive meanwhile queue.
type lent struct{ net.Listener }

type deadlined interface{ SetDeadline(time.Time) error }

// Close ends Accept.
func (l lent) Close() error {
	if d, ok := l.Listener.(deadlined); ok {
		return d.SetDeadline(time.Unix(1, 0))
	}
	return nil
}

func (l lent) back() {
	if d, ok := l.Listener.(deadlined); ok {
		_ = d.SetDeadline(time.Time{})
	}
}

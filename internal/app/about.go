package app

import (
	"encoding/json"
	"net/http"
	"os"
	"time"

	"github.com/ambit-dev/ambit/internal/sqldb"
)

// About is what a running server tells the commands of its own machine, which
// may have been started with other settings.
type About struct {
	Version       string        `json:"version"`
	PID           int           `json:"pid"`
	UID           int           `json:"uid"` // effective user
	Engine        string        `json:"engine"`
	PublicURL     string        `json:"public_url"`
	Addresses     []string      `json:"addresses"`
	RootKey       string        `json:"root_key"` // the file, not the key
	CheckpointDir string        `json:"checkpoint_dir"`
	TLSCert       string        `json:"tls_cert"`
	Started       time.Time     `json:"started"`
	Skew          time.Duration `json:"skew_nanoseconds"` // of its clock to the database's
	Sealed        string        `json:"sealed,omitempty"` // the code of why it waits for its root key; empty: it does not
}

func (a *App) about() http.HandlerFunc {
	started := time.Now()
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a.aboutNow(started))
	}
}

func (a *App) aboutNow(started time.Time) About {
	about := a.aboutStart(started, a.db.Engine())
	about.Skew = time.Duration(a.clock.skew.Load())
	return about
}

func (a *App) aboutStart(started time.Time, engine sqldb.Engine) About {
	return About{
		Version: a.cfg.Version, PID: os.Getpid(), UID: os.Geteuid(), Engine: engine.String(), PublicURL: a.public.String(), Addresses: a.Addresses(),
		Started: started, RootKey: a.cfg.RootKey, CheckpointDir: a.cfg.CheckpointDir, TLSCert: a.cfg.TLSCert,
	}
}

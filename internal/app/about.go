package app

import (
	"encoding/json"
	"net/http"
	"os"
	"time"
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
}

func (a *App) about() http.HandlerFunc {
	started := time.Now()
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a.aboutNow(started))
	}
}

func (a *App) aboutNow(started time.Time) About {
	return About{
		Version: a.cfg.Version, PID: os.Getpid(), UID: os.Geteuid(), Engine: a.db.Engine().String(), PublicURL: a.public.String(), Addresses: a.Addresses(),
		Started: started, RootKey: a.cfg.RootKey, CheckpointDir: a.cfg.CheckpointDir, TLSCert: a.cfg.TLSCert, Skew: time.Duration(a.clock.skew.Load()),
	}
}

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring/local"
)

// finding is one line of the doctor.
type finding struct {
	Check string `json:"check"`
	Level string `json:"level"` // ok, note, warning or problem
	Says  string `json:"says"`
	Mend  string `json:"mend,omitempty"`
}

func (c *command) doctorCommand() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use: "doctor", Short: "Look for what is wrong or weak on this machine",
		Long: "Look at the data folder, the root key, the audit checkpoints, the settings and the server, and say what\n" +
			"is wrong, what is weak, and what mends it. The exit code is 1 if something is wrong.",
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings := c.examine(cmd.Context(), dataDir)
			bad := 0
			for _, f := range findings {
				if f.Level == "problem" {
					bad++
				}
			}
			if c.json {
				if err := c.printJSON(map[string]any{"findings": findings, "problems": bad}); err != nil {
					return err
				}
			} else {
				c.printFindings(findings)
			}
			if bad > 0 {
				return fault.New(fault.Invalid, "unhealthy", fmt.Sprintf("%d of %d checks found a problem.", bad, len(findings)))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dataDir, "data", "", "data folder of the server (default: AMBIT_DATA_DIR, else ~/.ambit/data)")
	return cmd
}

func (c *command) printFindings(list []finding) {
	marks := map[string]string{"ok": "✓", "note": "·", "warning": "!", "problem": "✗"}
	for _, f := range list {
		fmt.Fprintf(c.stdout, "%s %-14s %s\n", marks[f.Level], f.Check, f.Says)
		if f.Mend != "" {
			fmt.Fprintf(c.stdout, "  %-14s %s\n", "", f.Mend)
		}
	}
}

func (c *command) examine(ctx context.Context, dataDir string) []finding {
	cfg, err := c.serverConfig(dataDir, "")
	if err != nil {
		f := fault.Of(err)
		return []finding{{Check: "settings", Level: "problem", Says: f.Message, Mend: f.Hint}}
	}
	list := []finding{{Check: "settings", Level: "ok", Says: "are complete"}}
	list = append(list, checkFolder("data folder", cfg.DataDir), checkKey(cfg), checkApart(cfg), checkCheckpoints(cfg))
	list = append(list, c.checkServer(ctx, cfg)...)
	return append(list, sameUser())
}

func checkFolder(name, dir string) finding {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return finding{Check: name, Level: "note", Says: dir + " does not exist yet; the first start makes it"}
	case err != nil:
		return finding{Check: name, Level: "problem", Says: "cannot be looked at: " + err.Error()}
	case !info.IsDir():
		return finding{Check: name, Level: "problem", Says: dir + " is not a folder"}
	case info.Mode().Perm()&0o077 != 0:
		return finding{Check: name, Level: "problem", Says: fmt.Sprintf("other users can enter %s (mode %04o)", dir, info.Mode().Perm()), Mend: "Run: chmod 700 " + dir}
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return finding{Check: name, Level: "problem", Says: dir + " belongs to another user", Mend: fmt.Sprintf("Run this as that user, or: chown -R %d %s", os.Geteuid(), dir)}
	}
	return finding{Check: name, Level: "ok", Says: dir + " is private"}
}

func checkKey(cfg app.Config) finding {
	k, err := local.Open(cfg.RootKey)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, derr := os.Stat(filepath.Join(cfg.DataDir, "ambit.db")); derr == nil {
			return finding{Check: "root key", Level: "problem", Says: cfg.RootKey + " is missing, and nothing sealed can be read without it",
				Mend: "Restore it from your backup, or point AMBIT_ROOT_KEY at it."}
		}
		return finding{Check: "root key", Level: "note", Says: cfg.RootKey + " does not exist yet; the first start makes it"}
	case err != nil:
		f := fault.Of(err)
		return finding{Check: "root key", Level: "problem", Says: f.Message, Mend: f.Hint}
	}
	return finding{Check: "root key", Level: "ok", Says: k.Describe().Ref + " in " + cfg.RootKey, Mend: "Keep a copy apart from the backups of the data: together they open everything."}
}

// checkApart looks whether one stolen disk or backup would hold key and data.
func checkApart(cfg app.Config) finding {
	data, derr := os.Stat(cfg.DataDir)
	key, kerr := os.Stat(cfg.RootKey)
	if derr != nil || kerr != nil || cfg.DatabaseURL != "" {
		return finding{Check: "key apart", Level: "note", Says: "cannot be told before the first start, or with a database elsewhere"}
	}
	d, ok1 := data.Sys().(*syscall.Stat_t)
	k, ok2 := key.Sys().(*syscall.Stat_t)
	if ok1 && ok2 && d.Dev == k.Dev {
		return finding{Check: "key apart", Level: "warning", Says: "root key and data lie on the same disk", Mend: "Put the key on another one, or in a mounted secret, and set AMBIT_ROOT_KEY."}
	}
	return finding{Check: "key apart", Level: "ok", Says: "root key and data lie on different disks"}
}

func checkCheckpoints(cfg app.Config) finding {
	files, _ := filepath.Glob(filepath.Join(cfg.CheckpointDir, "*.checkpoint"))
	if len(files) == 0 {
		return finding{Check: "checkpoints", Level: "note", Says: "none in " + cfg.CheckpointDir + " yet; a running server writes one every 5 seconds"}
	}
	return finding{Check: "checkpoints", Level: "ok", Says: fmt.Sprintf("%d in %s", len(files), cfg.CheckpointDir), Mend: "Copy them off this machine: they witness the audit log. Check it with: ambit audit verify"}
}

func (c *command) checkServer(ctx context.Context, cfg app.Config) []finding {
	base := c.serverURL()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(base, "/")+"/readyz", nil)
	if err != nil {
		return []finding{{Check: "server", Level: "problem", Says: base + " is not a URL"}}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		_, serr := net.Dial("unix", filepath.Join(cfg.DataDir, app.ConsoleSocket))
		if serr == nil {
			return []finding{{Check: "server", Level: "warning", Says: "one runs on this data folder, but " + base + " does not answer", Mend: "Give its URL with --server."}}
		}
		return []finding{{Check: "server", Level: "note", Says: "none answers at " + base}}
	}
	defer resp.Body.Close()
	var ready app.Readiness
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<16)).Decode(&ready); err != nil {
		return []finding{{Check: "server", Level: "problem", Says: fmt.Sprintf("%s answers with status %d and is perhaps no Ambit", base, resp.StatusCode)}}
	}
	if resp.StatusCode == http.StatusOK {
		list := []finding{{Check: "server", Level: "ok", Says: base + " is ready"}}
		return append(list, partsOf(ready, "degraded", "warning")...)
	}
	list := []finding{{Check: "server", Level: "problem", Says: base + " is not ready: it says " + strings.ReplaceAll(ready.Status, "_", " "), Mend: "Look at its log. docs/operations.md explains each part."}}
	return append(list, partsOf(ready, "failed", "problem")...)
}

// partsOf lists what /readyz found of a kind.
func partsOf(r app.Readiness, state, level string) (list []finding) {
	for _, p := range r.Parts {
		if p.State == state {
			list = append(list, finding{Check: "server " + plainLines(p.Name), Level: level, Says: plainLines(p.State + ": " + p.Code)})
		}
	}
	return list
}

// sameUser says what no check can mend: programs of the same user can read what
// this server reads.
func sameUser() finding {
	return finding{Check: "isolation", Level: "warning",
		Says: fmt.Sprintf("agents that run as this user (uid %d) could read the root key and the data", os.Geteuid()),
		Mend: "Run the server as a user of its own, or agents in a container or as another user. See docs/threat-model.md."}
}

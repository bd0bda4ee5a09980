package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring/local"
	"github.com/ambit-dev/ambit/internal/keyring/pkcs11"
	"github.com/ambit-dev/ambit/internal/keyring/transit"
)

// settingNames are all variables that this program reads.
func settingNames() []string {
	return []string{envDataDir, envDatabaseURL, envRootKey, envRootKeysOther, envCheckpoints, envListen, envProxyListen, envProxyElsewhere, envProxyPass, envAgentID, envAgentSecret, envAgentToken, envHidden, envPublicURL, envTLSCert, envTLSKey, envTrustedProxies, envOutboundAllow,
		envNoRegistration, envDocuments, envAllowVend, envMachineID, envTransitCA, envSources, envCallRate, envKeyGrace, envCheckpointReq, envDrainDelay, envDrain,
		envTraceEndpoint, envTraceRatio, envMetricsToken, envLog, envSignInName, envSignInIssuer, envSignInClient, envSignInSecret, envSMTPURL, envSMTPPassword, envSMTPFrom, transit.EnvCredentials, pkcs11.EnvHelper, pkcs11.EnvPass, envServer, envAPIKey, envSandboxClient, envSandboxSecret, envSandboxRedirect, envSandboxKey}
}

func sortedNames(env map[string]string) []string { return slices.Sorted(maps.Keys(env)) }

// misspelt is the setting that a variable of ours was probably meant to be. Other
// programs may have variables of the same beginning, so most unknown ones are
// left alone.
func misspelt(name string) string {
	if !strings.HasPrefix(name, "AMBIT_") || slices.Contains(settingNames(), name) {
		return ""
	}
	likely := &cobra.Command{SuggestionsMinimumDistance: 2}
	for _, s := range settingNames() {
		likely.AddCommand(&cobra.Command{Use: s, Run: func(*cobra.Command, []string) {}})
	}
	return strings.Join(likely.SuggestionsFor(name), " or ")
}

// word is s as one word of a shell.
func word(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("/._-+:@,", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func checkDataFolder(_ context.Context, p *patient) []finding {
	return []finding{p.folder(p.cfg.DataDir)}
}

func (p *patient) folder(dir string) finding {
	info, err := os.Stat(dir)
	switch {
	case dir == "" || errors.Is(err, fs.ErrNotExist):
		return finding{Level: note, Says: dir + " does not exist yet; the first start makes it"}
	case err != nil:
		return finding{Level: problem, Says: "cannot be looked at: " + err.Error(), Mend: "Run this as the user that runs the server."}
	case !info.IsDir():
		return finding{Level: problem, Says: dir + " is not a folder", Mend: "Name another one with AMBIT_DATA_DIR."}
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return finding{Level: problem, Says: dir + " belongs to another user", Why: "A server does not start on a folder of somebody else.",
			Mend: fmt.Sprintf("Run this as that user (uid %d), or: chown -R %d %s", st.Uid, os.Geteuid(), word(dir))}
	}
	if info.Mode().Perm()&0o077 != 0 {
		return finding{Level: problem, Says: fmt.Sprintf("other users can enter %s (mode %04o)", dir, info.Mode().Perm()),
			Why: "They could read the database, and ask the server's console for a sign-in link.", Mend: "Run: chmod 700 " + word(dir)}
	}
	for _, name := range []string{"ambit.db", "ambit.db-wal"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Mode().Perm()&0o077 != 0 {
			return finding{Level: warning, Says: fmt.Sprintf("%s has mode %04o, and only the folder protects it", name, info.Mode().Perm()), Mend: "Run: chmod 600 " + word(filepath.Join(dir, name))}
		}
	}
	return finding{Level: fine, Says: dir + " is private"}
}

// Below these, a disk is told to be nearly full.
const (
	littleSpace = 1 << 30
	noSpace     = 100 << 20
)

func checkDisks(_ context.Context, p *patient) []finding {
	var list []finding
	seen := map[string]bool{}
	for _, at := range []struct{ what, dir string }{{"data", p.cfg.DataDir}, {"checkpoints", p.cfg.CheckpointDir}} {
		dir, ok := existing(at.dir)
		if !ok {
			continue
		}
		d, err := diskOf(dir)
		if err != nil {
			list = append(list, finding{Level: note, Says: "the disk of the " + at.what + " cannot be looked at: " + err.Error()})
			continue
		}
		if at.what == "data" && p.cfg.DatabaseURL == "" {
			if f, bad := d.unfit(dir); bad {
				list = append(list, f)
			}
		}
		if key := fmt.Sprint(d.id); !seen[key] {
			seen[key] = true
			list = append(list, d.room(at.what, dir))
		}
	}
	if len(list) == 0 {
		list = append(list, finding{Level: note, Says: "cannot be told before the first start"})
	}
	return list
}

// existing is dir, or the folder in which it will be made.
func existing(dir string) (string, bool) {
	for dir != "" && dir != filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			return dir, true
		}
		dir = filepath.Dir(dir)
	}
	return dir, dir != ""
}

// volume is what a folder lies on.
type volume struct {
	id          uint64 // of the device
	kind        string // file system, such as nfs; empty: not known here
	free, total uint64 // bytes, for us
	files       uint64 // that can still be made; 0 with no limit is unlimited
	counted     bool   // files are counted here
}

// unfit tells whether a database can live on such a disk.
func (d volume) unfit(dir string) (finding, bool) {
	switch d.kind {
	case "nfs", "smb", "cifs", "9p", "ceph", "afs", "lustre", "gpfs", "vboxsf":
		return finding{Level: problem, Says: dir + " is on a network file system (" + d.kind + ")",
			Why:  "SQLite's locks and its write-ahead log do not work there: two servers could write at once, and a crash can damage the database.",
			Mend: "Move the data to a local disk and set AMBIT_DATA_DIR, or use PostgreSQL with AMBIT_DATABASE_URL."}, true
	case "fuse":
		return finding{Level: warning, Says: dir + " is on a FUSE file system", Why: "Many of them, such as sshfs, do not keep SQLite's locks; a crash can then damage the database.",
			Mend: "Move the data to a local disk, unless you know that this one locks."}, true
	case "tmpfs", "ramfs":
		return finding{Level: warning, Says: dir + " is in memory (" + d.kind + ")", Why: "Everything in it is gone when the machine starts again.", Mend: "Set AMBIT_DATA_DIR to a folder on a disk."}, true
	case "overlayfs":
		return finding{Level: warning, Says: dir + " is in a container's own layer", Why: "It goes with the container.", Mend: "Mount a volume there, or set AMBIT_DATA_DIR to one."}, true
	}
	return finding{}, false
}

func (d volume) room(what, dir string) finding {
	says := fmt.Sprintf("%s free for %s in %s", size(d.free), what, dir)
	const why = "On a full disk no call runs: nothing happens without its audit entry."
	switch {
	case d.free < noSpace || d.counted && d.files < 100:
		if d.counted && d.files < 100 {
			says = fmt.Sprintf("room for %d files is left for %s in %s", d.files, what, dir)
		}
		return finding{Level: problem, Says: says, Why: why, Mend: "Free some: du -xh " + word(dir) + " | sort -h | tail"}
	case d.free < littleSpace:
		return finding{Level: warning, Says: "only " + says, Why: why, Mend: "Look what takes it: du -xh " + word(dir) + " | sort -h | tail"}
	}
	return finding{Level: fine, Says: says}
}

// size is a number of bytes as people read it.
func size(n uint64) string {
	switch {
	case n >= 1<<40:
		return fmt.Sprintf("%.1f TiB", float64(n)/(1<<40))
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// checkCA looks at the authorities of transit servers.
func checkCA(p *patient) (list []finding) {
	if p.cfg.TransitCA == "" {
		return nil
	}
	_, certs, err := app.ReadCA(p.cfg.TransitCA)
	if err != nil {
		f := fault.Of(err)
		return []finding{{Level: problem, Says: f.Message, Why: "A server does not start like this.", Mend: f.Hint}}
	}
	for _, c := range certs {
		if left := time.Until(c.NotAfter); left < 30*24*time.Hour {
			list = append(list, finding{Level: warning, Says: fmt.Sprintf("the authority %s in %s ends on %s", c.Subject, p.cfg.TransitCA, c.NotAfter.Format("2006-01-02")),
				Why: "From then on the keeper of the root key is not believed.", Mend: "Put the new certificate beside it and restart the server."})
		}
	}
	return append(list, finding{Level: fine, Says: fmt.Sprintf("%d more authorities are trusted for transit keys", len(certs))})
}

func checkKey(_ context.Context, p *patient) []finding {
	path := app.RootFile(p.cfg.RootKey)
	switch {
	case p.cfg.RootKey == "":
		return nil
	case path == "":
		return append([]finding{{Level: fine, Says: "the root key is elsewhere: " + p.cfg.RootKey}}, checkCA(p)...)
	}
	k, err := local.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, derr := os.Stat(filepath.Join(p.cfg.DataDir, "ambit.db")); derr == nil || p.about != nil {
			return []finding{{Level: problem, Says: path + " is missing", Why: "Nothing that was sealed can be read without it; a server waits, sealed, until it is there.",
				Mend: "Restore it from your backup, or point AMBIT_ROOT_KEY at it."}}
		}
		return []finding{{Level: note, Says: path + " does not exist yet; the first start makes it"}}
	case err != nil:
		f := fault.Of(err)
		return []finding{{Level: problem, Says: f.Message, Why: "Whoever has the root key and the data opens every secret. A server does not start like this.", Mend: f.Hint}}
	}
	list := []finding{{Level: fine, Says: k.Describe().Ref + " in " + path, Mend: "Keep a copy apart from the backups of the data: together they open everything."}}
	if info, err := os.Stat(filepath.Dir(path)); err == nil && info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		list = append(list, finding{Level: warning, Says: fmt.Sprintf("other users can write to the folder of the root key (mode %04o)", info.Mode().Perm()),
			Why: "They could put another file in its place.", Mend: "Run: chmod go-w " + word(filepath.Dir(path))})
	}
	return list
}

// checkApart looks whether one stolen disk or backup would hold key and data.
func checkApart(_ context.Context, p *patient) []finding {
	data, derr := deviceOf(p.cfg.DataDir)
	path := app.RootFile(p.cfg.RootKey)
	key, kerr := deviceOf(path)
	switch {
	case path == "" && p.cfg.RootKey != "":
		return []finding{{Level: fine, Says: "the root key is elsewhere"}}
	case p.cfg.DatabaseURL != "" || p.about != nil && p.about.Engine == "postgres":
		return []finding{{Level: fine, Says: "the database is not in the data folder"}}
	case derr != nil || kerr != nil:
		return []finding{{Level: note, Says: "cannot be told before the first start"}}
	case data == key:
		return []finding{{Level: warning, Says: "root key and data lie on the same disk", Why: "A copy of that disk opens everything.",
			Mend: "Put the key on another one, or in a mounted secret, and set AMBIT_ROOT_KEY."}}
	}
	return []finding{{Level: fine, Says: "root key and data lie on different disks"}}
}

func deviceOf(path string) (uint64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	return uint64(st.Dev), nil // of another type on other systems
}

// runs reports whether a server has run here for long enough to have written one.
func (p *patient) runs() bool {
	return p.about != nil && !p.sealed() && p.now().Sub(p.about.Started) > lateCheckpoint
}

// lateCheckpoint is how old the newest checkpoint of a running server may be; it
// writes one every 5 seconds.
const lateCheckpoint = time.Minute

func checkCheckpoints(_ context.Context, p *patient) []finding {
	dir := p.cfg.CheckpointDir
	files, _ := filepath.Glob(filepath.Join(dir, "*.checkpoint"))
	if len(files) == 0 {
		if p.runs() {
			return []finding{{Level: problem, Says: "the server has written none in " + dir, Why: "Nothing outside the database witnesses the audit log.", Mend: "Look at its log, and at the folder: ls -ld " + word(dir)}}
		}
		return []finding{{Level: note, Says: "none in " + dir + " yet; a running server writes one every 5 seconds"}}
	}
	var newest time.Time
	for _, f := range files {
		if info, err := os.Stat(f); err == nil && info.ModTime().After(newest) {
			newest = info.ModTime()
		}
	}
	var list []finding
	if age := p.now().Sub(newest); p.runs() && age > lateCheckpoint {
		list = append(list, finding{Level: problem, Says: "a server runs, and the newest is from " + when(newest, p.now()),
			Why: "What came after it could be cut off the audit log unseen.", Mend: "Look at the server's log, and at the folder: ls -ld " + word(dir)})
	}
	if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o022 != 0 {
		list = append(list, finding{Level: problem, Says: fmt.Sprintf("other users can write to %s (mode %04o)", dir, info.Mode().Perm()),
			Why: "They could remove the witnesses of the audit log.", Mend: "Run: chmod 700 " + word(dir)})
	}
	data, derr := deviceOf(p.cfg.DataDir)
	own, oerr := deviceOf(dir)
	if derr == nil && oerr == nil && data == own && p.cfg.DatabaseURL == "" {
		list = append(list, finding{Level: warning, Says: "checkpoints and data lie on the same disk", Why: "Who can change the data can change what witnesses it.",
			Mend: "Set AMBIT_CHECKPOINT_DIR to another disk, or copy them off: rsync -a " + word(dir) + "/ HOST:checkpoints/"})
	}
	return append(list, finding{Level: fine, Says: fmt.Sprintf("%d in %s, the newest from %s", len(files), dir, first(when(newest, p.now()), "never"))})
}

func checkClock(_ context.Context, p *patient) []finding {
	var list []finding
	files, _ := filepath.Glob(filepath.Join(p.cfg.CheckpointDir, "*.checkpoint"))
	for _, f := range files {
		if info, err := os.Stat(f); err == nil && info.ModTime().Sub(p.now()) > time.Minute {
			list = append(list, finding{Level: problem, Says: "a checkpoint was written in the future (" + when(info.ModTime(), p.now()) + ")",
				Why: "The clock was set back, so sessions could last longer than was approved; a server holds its time forward until the clock has caught up.", Mend: "Set the clock: timedatectl set-ntp true"})
			break
		}
	}
	switch synchronized, known := clockSynchronized(); {
	case known && !synchronized:
		list = append(list, finding{Level: warning, Says: "nothing keeps this machine's clock", Why: "Expiry is a matter of time, and a node that is off by 2 s from the database's clock refuses calls.", Mend: "Run: timedatectl set-ntp true"})
	case len(list) == 0 && known:
		list = append(list, finding{Level: fine, Says: "is synchronized"})
	case len(list) == 0:
		list = append(list, finding{Level: note, Says: "whether something keeps it cannot be told here"})
	}
	return list
}

// checkIsolation says what no check can mend: programs of the same user can read
// what this server reads.
func checkIsolation(_ context.Context, p *patient) []finding {
	uid := os.Geteuid()
	if p.about != nil {
		uid = p.about.UID
	}
	list := []finding{{Level: warning, Says: fmt.Sprintf("agents that run as the server's user (uid %d) could read the root key and the data", uid),
		Why: "Nothing within one user protects one program from another.", Mend: "Run the server as a user of its own, or agents in a container or as another user. See docs/threat-model.md."}}
	if p.about != nil && p.about.UID == 0 {
		list = append(list, finding{Level: warning, Says: "the server runs as root", Why: "It needs no rights that others have not.", Mend: "Run: useradd --system ambit, and start it as that user."})
	}
	return list
}

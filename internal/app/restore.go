package app

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/disk"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Backup writes a consistent copy of the SQLite database into a new file.
func (a *App) Backup(ctx context.Context, path string) error {
	if err := a.db.Backup(ctx, path); err != nil {
		return err
	}
	return a.Audit.Record(ctx, backedUp(path))
}

func backedUp(path string) audit.Entry {
	return audit.Entry{Time: time.Now(), Actor: audit.Actor{Kind: "system", ID: "console"}, Action: "server.backed_up", Object: filepath.Base(path)}
}

// BackupUnrecorded is Backup of a server that does not run and whose root key is
// away: nothing can be put on record then, and whoever could open the folder could
// copy it anyway.
func BackupUnrecorded(ctx context.Context, cfg Config, path string) (err error) {
	db, err := sqldb.Open(ctx, sqldb.Config{DataDir: cfg.DataDir, Logger: cfg.Logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.Backup(ctx, path)
}

// actionRestored is on record in a database that Restore was run on.
const actionRestored = "server.restored"

// Restored says what was ended in a restored database.
type Restored struct {
	Sessions    int64 `json:"sessions"`    // ended
	Tokens      int64 `json:"tokens"`      // issuances of agents, ended
	Logins      int64 `json:"logins"`      // of people, ended
	Keys        int64 `json:"keys"`        // of applications, revoked
	Connections int64 `json:"connections"` // marked, to be connected again
}

// Restore puts file in the place of a SQLite database that is not there, or with
// file empty takes the database as somebody else has restored it, and ends in it
// whatever may have ended since the backup was made: sessions, tokens, logins,
// and all that counts once. Unless keep says that nothing else was revoked since,
// also API keys, and connections must be connected again.
func Restore(ctx context.Context, cfg Config, file string, keep bool) (out Restored, err error) {
	if err := cfg.Validate(); err != nil {
		return out, err
	}
	if file != "" {
		if err := putDatabase(ctx, cfg, file); err != nil {
			return out, err
		}
	}
	cfg.Existing, cfg.restoring = true, true
	cfg.Listen = "localhost:0"
	if cfg.PublicURL == "" {
		cfg.PublicURL = "http://localhost:7420"
	}
	cfg.Node = "restore"
	a, err := New(ctx, cfg)
	if err != nil {
		return out, err
	}
	defer a.Close()
	nodes, err := a.db.Nodes(ctx)
	if err != nil {
		return out, err
	}
	if len(nodes) > 1 { // besides this one
		return out, fault.New(fault.Conflict, "nodes_run", "Servers run on this database.").WithHint("Stop them all, then run this again.")
	}
	err = a.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		out, err = a.endRestored(ctx, tx, keep)
		return err
	})
	if err != nil {
		return out, err
	}
	return out, a.Audit.Checkpoint()
}

func (a *App) endRestored(ctx context.Context, tx *sqldb.Tx, keep bool) (out Restored, err error) {
	if err = a.Audit.EndRestored(ctx, tx); err != nil {
		return out, err
	}
	if out.Sessions, err = a.Sessions.EndRestored(ctx, tx); err != nil {
		return out, err
	}
	if out.Tokens, err = a.Agents.EndRestored(ctx, tx); err != nil {
		return out, err
	}
	if out.Logins, out.Keys, err = a.People.EndRestored(ctx, tx, !keep); err != nil {
		return out, err
	}
	if err = a.Credentials.ForgetRestored(ctx, tx); err != nil {
		return out, err
	}
	if !keep {
		if out.Connections, err = a.Connections.DoubtRestored(ctx, tx); err != nil {
			return out, err
		}
	}
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	event := a.Audit.Append(tx, audit.Entry{Actor: audit.Actor{Kind: "system", ID: "console"}, Action: actionRestored, Object: a.cfg.Node, Detail: map[string]string{
		"sessions": n(out.Sessions), "tokens": n(out.Tokens), "logins": n(out.Logins), "keys": n(out.Keys), "connections": n(out.Connections),
	}})
	return out, a.People.TellRestored(ctx, tx, event)
}

// putDatabase copies a backup to where the database belongs, after looking
// whether it is one, whole and of this root key. It overwrites nothing.
func putDatabase(ctx context.Context, cfg Config, file string) error {
	if cfg.DatabaseURL != "" {
		return fault.New(fault.Invalid, "restore_elsewhere", "The database is PostgreSQL.").WithHint("Restore it with its own tools, then run: ambit restore --in-place")
	}
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "backup_missing", "There is no file "+file+".").WithHint("Name the backup to bring back.").WithCause(err)
	}
	to := filepath.Join(cfg.DataDir, "ambit.db")
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Conflict, "database_exists", "There is a database in "+cfg.DataDir+" already.").WithHint("Stop the server and move that folder away first.")
	}
	if path := RootFile(cfg.RootKey); path == "" {
		// It is somewhere else, and is asked when the server opens.
	} else if _, err := os.Stat(path); err != nil {
		return fault.New(fault.NotFound, "root_key_missing", "There is no root key in "+cfg.RootKey+".").WithHint("A backup is worth nothing without its root key. Point AMBIT_ROOT_KEY at it.")
	}
	if err := disk.Folder(cfg.DataDir); err != nil {
		return err
	}
	if err := copyNew(file, to); err != nil {
		return fault.New(fault.Invalid, "backup_unreadable", "The backup cannot be copied.").WithHint("Look at " + file + " and at the space on the disk.").WithCause(err)
	}
	found, err := sqldb.Inspect(ctx, sqldb.Config{DataDir: cfg.DataDir})
	if err == nil && found.Applied == 0 {
		err = errors.New("it has none of our tables")
	}
	if err == nil && found.Damage != "" {
		err = errors.New(found.Damage)
	}
	if err == nil {
		return nil
	}
	return errors.Join(fault.New(fault.Invalid, "backup_damaged", "The file is no whole backup of Ambit.").WithHint("Take another backup.").WithCause(err), os.Remove(to))
}

func copyNew(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		err = errors.Join(err, os.Remove(to))
	}
	return err
}

package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/fault"
)

func (c *command) backupCommand() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Copy the database into a new file",
		Long: "Copy the SQLite database into FILE, which must not exist: one moment of it, also while the server runs. The copy\n" +
			"is worth nothing without the root key, which is not in it: keep that apart. PostgreSQL has its own backups; see\n" +
			"docs/operations.md.",
		Args: takes(1, "one argument: the file to make"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := c.serverConfig(dataDir, "")
			if err != nil {
				return err
			}
			if cfg.DatabaseURL != "" {
				return fault.New(fault.Invalid, "backup_elsewhere", "The database is PostgreSQL, which has its own backups.").
					WithHint("Run: pg_dump --format=custom --file=" + word(args[0]) + ` "$AMBIT_DATABASE_URL"` + "\nor archive continuously; see docs/operations.md.")
			}
			path, err := filepath.Abs(args[0])
			if err != nil {
				return fmt.Errorf("finding the file for the backup: %w", err)
			}
			_, err = onServer(cmd.Context(), cfg, func(ctx context.Context, socket string) (struct{}, error) {
				_, err := askConsole(ctx, socket, http.MethodPost, "/backup", url.Values{"path": {path}})
				return struct{}{}, err
			}, func(ctx context.Context, a *app.App) (struct{}, error) { return struct{}{}, a.Backup(ctx, path) })
			recorded := true
			if app.KeyAway(err) { // of a server that does not run
				recorded, err = false, app.BackupUnrecorded(cmd.Context(), cfg, path)
			}
			if err != nil {
				return err
			}
			return c.show(map[string]any{"file": path, "recorded": recorded}, func() {
				if !recorded {
					c.note("The root key cannot be used now, so this backup is not in the audit.")
				}
				c.say("The backup is in %s.\nKeep the root key (%s) apart from it, and the audit checkpoints (%s) too.", plain(path), plain(cfg.RootKey), plain(cfg.CheckpointDir))
			})
		},
	}
	cmd.Flags().StringVar(&dataDir, "data", "", "data folder of the server (default: AMBIT_DATA_DIR, else ~/.ambit/data)")
	_ = cmd.MarkFlagDirname("data")
	return cmd
}

func (c *command) restoreCommand() *cobra.Command {
	var dataDir string
	var inPlace, keep bool
	cmd := &cobra.Command{
		Use: "restore [FILE]", Short: "Bring a backup back, and end what must not revive",
		Long: "Put the backup FILE in the place of a database that is gone, with every server stopped. --in-place takes a\n" +
			"database that was restored by other means, as PostgreSQL is.\n\n" +
			"Whatever has ended since the backup would be alive again, so all sessions, agents' tokens and logins are ended,\n" +
			"all API keys revoked, and every account must be connected again. --keep-access keeps keys and connections: only\n" +
			"for when none was revoked since. Roles, agents and passkeys are those of the backup: look them through.",
		Args: upTo(1, "at most one argument: the backup"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if inPlace == (len(args) == 1) {
				return usageError{fmt.Errorf("name a FILE, or give --in-place")}
			}
			cfg, err := c.serverConfig(dataDir, "")
			if err != nil {
				return err
			}
			file := ""
			if !inPlace {
				file = args[0]
			}
			done, err := app.Restore(cmd.Context(), cfg, file, keep)
			if err != nil {
				return err
			}
			return c.show(done, func() {
				c.say("Restored. Ended: %d sessions, %d agent tokens, %d logins. Revoked: %d API keys. To be connected again: %d accounts.\n"+
					"Roles, agents and passkeys are those of the backup: look them through. ambit audit verify names what was lost.",
					done.Sessions, done.Tokens, done.Logins, done.Keys, done.Connections)
			})
		},
	}
	cmd.Flags().StringVar(&dataDir, "data", "", "data folder of the server (default: AMBIT_DATA_DIR, else ~/.ambit/data)")
	cmd.Flags().BoolVar(&inPlace, "in-place", false, "the database is restored already")
	cmd.Flags().BoolVar(&keep, "keep-access", false, "keep API keys and connections: nothing was revoked since the backup")
	_ = cmd.MarkFlagDirname("data")
	return cmd
}

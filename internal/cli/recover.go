package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/fault"
)

func (c *command) recoverCommand() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use: "recover USER", Short: "Make a sign-in link for somebody who lost their passkeys",
		Long: "Make a single-use link, good for 15 minutes, with which USER (an id or e-mail address) registers a new\n" +
			"passkey. It is run on the server, by whoever may read its data folder. The audit records it, and all owners see it.",
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := c.serverConfig(dataDir, "")
			if err != nil {
				return err
			}
			link, err := c.recoveryLink(cmd.Context(), cfg, args[0])
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]string{"link": link})
			}
			fmt.Fprintf(c.stdout, "Give this link to %s. It works once, within 15 minutes:\n\n  %s\n", args[0], link)
			return nil
		},
	}
	cmd.Flags().StringVar(&dataDir, "data", "", "data folder of the server (default: AMBIT_DATA_DIR, else ~/.ambit/data)")
	return cmd
}

// recoveryLink asks the running server through its console; when none runs it
// opens the database itself.
func (c *command) recoveryLink(ctx context.Context, cfg app.Config, user string) (string, error) {
	socket := filepath.Join(cfg.DataDir, app.ConsoleSocket)
	link, err := askConsole(ctx, socket, http.MethodPost, "/recover", url.Values{"user": {user}})
	if !noServer(err) {
		return string(link), err
	}
	if cfg.DatabaseURL == "" {
		if _, err := os.Stat(filepath.Join(cfg.DataDir, "ambit.db")); err != nil {
			return "", fault.New(fault.NotFound, "no_server_here", "There is no server in "+cfg.DataDir+".").
				WithHint("Name its data folder with --data or AMBIT_DATA_DIR, or its database with AMBIT_DATABASE_URL.")
		}
	}
	cfg.Listen = "localhost:0" // the port plays no part; the link names the public URL
	if cfg.PublicURL == "" {
		cfg.PublicURL = "http://localhost:7420"
	}
	a, err := app.New(ctx, cfg)
	if err != nil {
		return "", err
	}
	defer a.Close()
	value, err := a.People.Recover(ctx, user)
	return string(value.Reveal()), err
}

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
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
		Use: "recover [USER]", Short: "Make a sign-in link for somebody who lost their passkeys",
		Long: "Make a single-use link, good for 15 minutes, with which USER (an id or e-mail address) registers a new\n" +
			"passkey. It is run on the server, by whoever may read its data folder. The audit records it, and all owners see it.\n\n" +
			"Without USER it lists whom it can be made for.",
		Example: "  ambit recover\n  ambit recover mia@example.com\n  ambit recover user_… --data /srv/ambit/data",
		Args:    upTo(1, "at most one argument: the user's id or e-mail address"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := c.serverConfig(dataDir, "")
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return c.listPeople(cmd.Context(), cfg)
			}
			link, err := onServer(cmd.Context(), cfg, func(ctx context.Context, socket string) (string, error) {
				link, err := askConsole(ctx, socket, http.MethodPost, "/recover", url.Values{"user": {args[0]}})
				return string(link), err
			}, func(ctx context.Context, a *app.App) (string, error) {
				value, err := a.People.Recover(ctx, args[0])
				return string(value.Reveal()), err
			})
			if fault.Is(err, "not_found") {
				return fault.Of(err).WithHint("See whom there is: ambit recover")
			}
			if err != nil {
				return err
			}
			return c.show(map[string]string{"link": link}, func() {
				c.say("Give this link to %s. It works once, within 15 minutes:\n\n  %s", plain(args[0]), link)
			})
		},
	}
	cmd.Flags().StringVar(&dataDir, "data", "", "data folder of the server (default: AMBIT_DATA_DIR, else ~/.ambit/data)")
	_ = cmd.MarkFlagDirname("data")
	return cmd
}

func (c *command) listPeople(ctx context.Context, cfg app.Config) error {
	all, err := onServer(ctx, cfg, func(ctx context.Context, socket string) (all []app.Someone, err error) {
		body, err := askConsole(ctx, socket, http.MethodGet, "/people", nil)
		if err == nil {
			err = json.Unmarshal(body, &all)
		}
		return all, err
	}, func(ctx context.Context, a *app.App) ([]app.Someone, error) { return a.Everyone(ctx) })
	if err != nil {
		return err
	}
	return c.show(map[string]any{"data": some(all)}, func() {
		var rows [][]string
		for _, p := range all {
			rows = append(rows, []string{p.Name, p.Email, few(p.Roles), p.ID})
		}
		c.table([]string{"NAME", "E-MAIL", "ROLE", "ID"}, rows, "Nobody is there yet: the first start prints a link for the first owner.")
		if len(rows) > 0 {
			c.note("Make a link for one of them: ambit recover USER")
		}
	})
}

// onServer asks the running server through its console; when none runs it opens
// the database itself.
func onServer[T any](ctx context.Context, cfg app.Config, ask func(ctx context.Context, socket string) (T, error), do func(ctx context.Context, a *app.App) (T, error)) (T, error) {
	out, err := ask(ctx, filepath.Join(cfg.DataDir, app.ConsoleSocket))
	if !noServer(err) {
		return out, err
	}
	if cfg.DatabaseURL == "" {
		if _, err := os.Stat(filepath.Join(cfg.DataDir, "ambit.db")); errors.Is(err, fs.ErrNotExist) {
			return out, fault.New(fault.NotFound, "no_server_here", "There is no server in "+cfg.DataDir+".").
				WithHint("Name its data folder with --data or AMBIT_DATA_DIR, or its database with AMBIT_DATABASE_URL.")
		}
	}
	cfg.Existing = true
	cfg.Listen = "localhost:0" // the port plays no part; a link names the public URL
	if cfg.PublicURL == "" {
		cfg.PublicURL = "http://localhost:7420"
	}
	a, err := app.New(ctx, cfg)
	if err != nil {
		return out, err
	}
	defer a.Close()
	return do(ctx, a)
}

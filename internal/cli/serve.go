package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/internal/app"
)

func (c *command) serveCommand() *cobra.Command {
	var dataDir, listen string
	cmd := &cobra.Command{
		Use: "serve", Short: "Run a server",
		Long: "Run a server until it is told to stop. It is set up by environment variables; see docs/configuration.md.\n\n" +
			"On first start it prints a link with which the first owner registers a passkey.",
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.serverConfig(dataDir, listen)
			if err != nil {
				return err
			}
			return c.serve(cmd.Context(), cfg)
		},
	}
	cmd.Flags().StringVar(&dataDir, "data", "", "data folder (default: AMBIT_DATA_DIR, else ~/.ambit/data)")
	cmd.Flags().StringVar(&listen, "listen", "", "address to listen on (default: AMBIT_LISTEN, else localhost:7420)")
	return cmd
}

func (c *command) serve(ctx context.Context, cfg app.Config) error {
	a, err := app.New(ctx, cfg)
	if err != nil {
		return err
	}
	link, needed, err := a.People.Bootstrap(ctx)
	if err != nil {
		a.Close()
		return err
	}
	return a.Run(ctx, func() {
		fmt.Fprintf(c.stdout, "Ambit serves %s\n", a.PublicURL())
		if needed {
			fmt.Fprintf(c.stdout, "\nNobody owns this server yet. Open this link within 15 minutes to register your passkey:\n\n  %s\n\n"+
				"It works once. A new one is printed at each start until somebody owns the server.\n", link.Reveal())
		}
	})
}

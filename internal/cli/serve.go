package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/fault"
)

func (c *command) serveCommand() *cobra.Command {
	var dataDir, listen string
	var delay time.Duration
	cmd := &cobra.Command{
		Use: "serve", Short: "Run a server",
		Long: "Run a server until it is told to stop. It is set up by environment variables; see docs/configuration.md.\n\n" +
			"On first start it prints a link with which the first owner registers a passkey.\n\n" +
			"SIGTERM or an interrupt drains it: /readyz says so at once, running calls may finish, then it ends. A second\n" +
			"one ends it without waiting.",
		Args: takes(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.serverConfig(dataDir, listen)
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("drain-delay") {
				if delay < 0 || delay > maxDrain {
					return usageError{fmt.Errorf("--drain-delay is at most an hour")}
				}
				cfg.DrainDelay = delay
			}
			force, stop := secondSignal(cmd.Context())
			defer stop()
			cfg.Force = force
			return c.serve(cmd.Context(), cfg)
		},
	}
	cmd.Flags().StringVar(&dataDir, "data", "", "data folder (default: AMBIT_DATA_DIR, else ~/.ambit/data)")
	cmd.Flags().StringVar(&listen, "listen", "", "address to listen on (default: AMBIT_LISTEN, else localhost:7420)")
	c.proxyFlag(cmd, "localhost:7421 beside localhost:7420")
	cmd.Flags().DurationVar(&delay, "drain-delay", 0, "how long to go on serving after SIGTERM while /readyz says not ready, so that a balancer notices (default: AMBIT_DRAIN_DELAY, else 0s)")
	return cmd
}

func (c *command) proxyFlag(cmd *cobra.Command, usual string) {
	cmd.Flags().StringVar(&c.proxyListen, "proxy-listen", "", "address of the forward proxy, or off (default: AMBIT_PROXY_LISTEN, else "+usual+")")
}

// secondSignal gives a channel that closes at the first signal after ctx has
// ended, which it does at the first one of all.
func secondSignal(ctx context.Context) (force <-chan struct{}, stop func()) {
	forced, over := make(chan struct{}), make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-ctx.Done():
		case <-over:
			return
		}
		again := make(chan os.Signal, 1)
		signal.Notify(again, os.Interrupt, syscall.SIGTERM)
		defer signal.Stop(again)
		select {
		case <-again:
			close(forced)
		case <-over:
		}
	}()
	return forced, func() { close(over); <-done }
}

// collectLess has a server's memory collected a fourth as often: its heap is small,
// and collecting it takes a tenth of the processor time under load. A GOGC of the
// operator's stands. restore undoes it.
func collectLess() (restore func()) {
	const usual, rare = 100, 400
	was := debug.SetGCPercent(rare)
	if was != usual {
		debug.SetGCPercent(was)
	}
	return func() { debug.SetGCPercent(was) }
}

func (c *command) serve(ctx context.Context, cfg app.Config) error {
	defer borrowLog(cfg.Logger)()
	defer collectLess()()
	cfg.Sealed = func(public *url.URL, why *fault.Error) {
		fmt.Fprintf(c.stdout, "%s\n%s\nPeople can sign in at %s meanwhile.\n", why.Message, why.Hint, public)
	}
	a, err := app.New(ctx, cfg)
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return nil // told to stop while it was sealed
		}
		return err
	}
	if err := a.People.EndFormerSignIns(ctx); err != nil {
		a.Close()
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

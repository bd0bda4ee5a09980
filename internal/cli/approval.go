package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
)

const watchEvery = 3 * time.Second

// approvalsCommand only shows: a decision takes the person's presence in the
// browser (threats.md S6).
func (c *command) approvalsCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use: "approvals", Short: "List the requests that wait for you, with where to decide",
		Long: "List the requests that wait for you, with the page where each is decided. The link carries no authority.\n" +
			"--watch goes on and prints each new one, until it is interrupted.",
		Example: "  ambit approvals --watch", Args: takes(0, "no arguments"),
		RunE: c.with(func(ctx context.Context, cl *client.Client, _ []string) error {
			if watch {
				return c.watchApprovals(ctx, cl)
			}
			page, err := waiting(ctx, cl)
			if err != nil {
				return err
			}
			return showPage(c, page, []string{"AGENT", "WANTS", "ASKED", "DECIDE AT"}, "Nothing waits for you.", func(a client.Approval, now time.Time) []string {
				return []string{a.Session.AgentLabel, wanted(a), when(a.CreatedAt, now), a.URL}
			})
		}),
	}
	cmd.Flags().StringVar(&c.environment, "env", "", "environment, by id or name (default: your own)")
	cmd.Flags().BoolVar(&watch, "watch", false, "print new requests as they come")
	return cmd
}

func waiting(ctx context.Context, cl *client.Client) (client.Page[client.Approval], error) {
	all, err := client.All(ctx, func(ctx context.Context, after string) (client.Page[client.Approval], error) {
		return cl.Approvals(ctx, client.Paging{After: after, Limit: 100})
	})
	return client.Page[client.Approval]{Data: some(all)}, err
}

// wanted says in a few words what a request is for.
func wanted(a client.Approval) string {
	if a.Call != nil {
		return a.Call.Title + ", once"
	}
	return words(grantedOn(a.Session.Grants))
}

// watchApprovals prints each request once. What a server cannot answer for a while
// is asked again.
func (c *command) watchApprovals(ctx context.Context, cl *client.Client) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	seen := map[string]bool{}
	for {
		page, err := waiting(ctx, cl)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && len(seen) == 0 {
			return err
		}
		open := map[string]bool{}
		for _, a := range page.Data {
			if open[a.ID] = true; !seen[a.ID] {
				if err := c.show(a, func() { c.say("%s wants: %s\n  %s", plain(a.Session.AgentLabel), plain(wanted(a)), plain(a.URL)) }); err != nil {
					return err
				}
			}
		}
		if err == nil {
			seen = open
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

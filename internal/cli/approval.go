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
	cmd.AddCommand(c.approvalsShow())
	return cmd
}

func (c *command) approvalsShow() *cobra.Command {
	return &cobra.Command{
		Use: "show APPROVAL", Short: "Show what a request is for, as its page does", Args: takes(1, "one argument: the request's id"),
		Long:              "Show one request that is yours to decide, or was: of a call what would be sent, and what stood there when the agent asked.\nIt is decided in the browser.",
		Example:           "  ambit approvals show apr_…\n  ambit approvals show apr_… --json",
		ValidArgsFunction: c.completion(c.approvalIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			a, err := cl.Approval(ctx, args[0])
			if err != nil {
				return err
			}
			a.Session.Grants = some(a.Session.Grants)
			return c.show(a, func() { c.sayApproval(a) })
		}),
	}
}

func (c *command) approvalIDs(ctx context.Context, cl *client.Client) ([]string, error) {
	page, err := waiting(ctx, cl)
	var out []string
	for _, a := range page.Data {
		out = append(out, a.ID+"\t"+wanted(a))
	}
	return out, err
}

func (c *command) sayApproval(a client.Approval) {
	now := time.Now()
	c.facts("agent", a.Session.AgentLabel, "wants", wanted(a), "state", a.State, "asked", stamp(a.CreatedAt, now), "open until", stamp(a.ExpiresAt, now), "risks", words(a.Risk),
		"approved first by", a.FirstBy, "decided", stamp(a.DecidedAt, now), "decided by", a.DecidedBy, "told the agent", a.Note, "its sign-in is answered at", a.SignIn, "session", a.Session.ID)
	if call := a.Call; call != nil {
		c.say("")
		read := ""
		if call.Shown != nil {
			read = call.Shown.As
		}
		c.facts("tool", call.Tool, "effect", call.Effect, "because of", call.Why, "on", first(call.ProviderName, call.Provider)+", "+call.AccountLabel, "sends", call.Method+" "+call.URL, "to be read as", read,
			"about, in the provider's words", call.Target, "not named because", call.Unnamed)
		for _, list := range []struct {
			title  string
			fields []client.ApprovalField
		}{{"What it sends:", call.Fields}, {"What stood there when the agent asked, as the provider says:", call.Stands}} {
			if len(list.fields) == 0 {
				continue
			}
			c.say("\n%s", list.title)
			for _, f := range list.fields {
				c.say("  %s: %s", plain(f.Name), plain(f.Value))
			}
		}
	} else {
		c.sayGrants(a.Session.Grants)
	}
	if a.State == "pending" {
		c.say("\nIt is decided in the browser, by the person it was sent to:\n\n  %s", plain(a.URL))
		c.showPhone(a.URL)
	}
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

package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/session"
)

func (c *command) webhookCommand() *cobra.Command {
	return c.group("webhook", "Webhooks: applications that are told of what happens to connections",
		c.webhookList(), c.webhookShow(), c.webhookAdd(), c.webhookEdit(), c.webhookRemove(), c.webhookSwitch("enable", "Enable a webhook; `ambit webhook replay` sends what it missed", (*client.Client).EnableWebhook),
		c.webhookSwitch("disable", "Disable a webhook; what happens is held for a month", (*client.Client).DisableWebhook), c.webhookRotate(), c.webhookTest(), c.webhookDeliveries(), c.webhookReplay())
}

func (c *command) webhookList() *cobra.Command {
	var org string
	cmd := &cobra.Command{
		Use: "list", Short: "List webhooks", Args: takes(0, "no arguments"),
		RunE: c.with(func(ctx context.Context, cl *client.Client, _ []string) error {
			page, err := cl.Webhooks(ctx, org)
			if err != nil {
				return err
			}
			return showPage(c, page, []string{"URL", "EVENTS", "STATE", "ORGANIZATION", "ID"}, "No webhooks. Add one with: ambit webhook add URL",
				func(v client.Webhook, _ time.Time) []string {
					return []string{v.URL, first(words(v.Events), "all"), first(v.Reason, v.State), first(v.OrganizationID, "all"), v.ID}
				})
		}),
	}
	c.orgFlag(cmd, &org, "of this organization (default: of the whole environment)")
	return cmd
}

func (c *command) webhookIDs(ctx context.Context, cl *client.Client) ([]string, error) {
	page, err := cl.Webhooks(ctx, "")
	var out []string
	for _, v := range page.Data {
		out = append(out, v.ID+"\t"+plain(v.URL))
	}
	return out, err
}

func (c *command) webhookShow() *cobra.Command {
	return &cobra.Command{
		Use: "show WEBHOOK", Short: "Show one webhook", Args: takes(1, "one argument: the webhook's id"), ValidArgsFunction: c.completion(c.webhookIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			v, err := cl.Webhook(ctx, args[0])
			if err != nil {
				return err
			}
			return c.showWebhook(v)
		}),
	}
}

func (c *command) showWebhook(v client.Webhook) error {
	v.Events = some(v.Events)
	return c.show(v, func() { c.webhookFacts(v) })
}

func (c *command) webhookFacts(v client.Webhook) {
	now := time.Now()
	c.facts("url", v.URL, "form", v.Form, "id", v.ID, "events", first(words(v.Events), "all"), "state", v.State, "reason", v.Reason, "failing", stamp(v.FailingSince, now),
		"organization", first(v.OrganizationID, "all"), "description", v.Description, "old secret signs until", stamp(v.OldSecretUntil, now), "made", stamp(v.CreatedAt, now))
}

func webhookFlags(cmd *cobra.Command, in *client.WebhookInput) {
	cmd.Flags().StringSliceVar(&in.Events, "event", nil, "only this event, such as connection.revoked (repeatable; default: all)")
	completeWith(cmd, "event", append(slices.Sorted(maps.Keys(connection.Changes())), session.EventAsked))
	cmd.Flags().StringVar(&in.Description, "description", "", "what receives it, for people")
}

func (c *command) webhookAdd() *cobra.Command {
	var in client.WebhookInput
	var file string
	var slack bool
	cmd := &cobra.Command{
		Use: "add [URL]", Short: "Have an application told of what happens, or people by Slack or mail",
		Long: "Have an application told of what happens to connections, and of requests for approval. Each delivery is signed by the\n" +
			"Standard Webhooks specification and made at least once. The secret is shown this once.\n\n" +
			"With --slack, people are told by a message: the address of the incoming webhook comes from standard input, since whoever\n" +
			"has it writes there. With mailto: and an address, by mail, if the server is set up for it. Neither decides anything.\n\n" +
			"A person adds one with their passkey: with a person's login this names the page for it. An API key goes through.",
		Example: "  ambit webhook add https://app.example/hooks --event connection.revoked --secret-file hook.secret\n" +
			"  ambit webhook add --slack --event approval.requested < slack-url.txt\n  ambit webhook add mailto:team@example.com --event approval.requested",
		Args: func(_ *cobra.Command, args []string) error {
			if slack && len(args) == 0 || !slack && len(args) == 1 {
				return nil
			}
			return usageError{errors.New("it takes the URL, or --slack and the address on standard input")}
		},
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) (err error) {
			if in.URL = strings.Join(args, ""); strings.HasPrefix(in.URL, "mailto:") {
				in.Form = "mail"
			}
			if slack {
				in.Form = "slack"
				if in.URL, err = c.readSecret(ctx, "the address of the Slack webhook"); err != nil {
					return err
				}
			}
			return c.showMadeWebhook(file, func() (client.MadeWebhook, error) { return cl.CreateWebhook(ctx, in) })
		}),
	}
	c.orgFlag(cmd, &in.OrganizationID, "of this organization only (default: of the whole environment)")
	webhookFlags(cmd, &in)
	cmd.Flags().StringVar(&file, "secret-file", "", "write the secret to this new file (mode 0600), and do not show it")
	cmd.Flags().BoolVar(&slack, "slack", false, "as messages of Slack, or of what takes the same (Mattermost, Rocket.Chat, Discord with /slack)")
	cmd.MarkFlagsMutuallyExclusive("slack", "secret-file")
	return cmd
}

func (c *command) showMadeWebhook(path string, make func() (client.MadeWebhook, error)) error {
	m, err := madeOnce(c, path, make, func(m *client.MadeWebhook) *string { return &m.Secret }, func(m client.MadeWebhook) string {
		return fmt.Sprintf("The webhook %s is there, but its secret is lost. Make another: ambit webhook rotate %s", m.ID, m.ID)
	})
	if err != nil {
		return err
	}
	m.Events = some(m.Events)
	return c.show(m, func() {
		c.webhookFacts(m.Webhook)
		if path != "" {
			c.say("\nThe secret is in %s.", path)
			return
		}
		if m.Secret == "" {
			return
		}
		c.facts("secret", m.Secret)
		c.say("\nThe secret is shown this once.")
	})
}

func (c *command) webhookEdit() *cobra.Command {
	var in client.WebhookInput
	cmd := &cobra.Command{
		Use: "edit WEBHOOK", Short: "Change a webhook's address, description and events", Args: takes(1, "one argument: the webhook's id"), ValidArgsFunction: c.completion(c.webhookIDs, 1),
	}
	cmd.Flags().StringVar(&in.URL, "url", "", "where it goes (default: as it is)")
	webhookFlags(cmd, &in)
	cmd.RunE = c.with(func(ctx context.Context, cl *client.Client, args []string) error {
		was, err := cl.Webhook(ctx, args[0])
		if err != nil {
			return err
		}
		in.URL = first(in.URL, was.URL)
		if !cmd.Flags().Changed("event") {
			in.Events = was.Events
		}
		if !cmd.Flags().Changed("description") {
			in.Description = was.Description
		}
		v, err := cl.UpdateWebhook(ctx, args[0], in)
		if err != nil {
			return err
		}
		return c.showWebhook(v)
	})
	return cmd
}

func (c *command) webhookRemove() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "remove WEBHOOK", Short: "Remove a webhook and what was still to be told", Args: takes(1, "one argument: the webhook's id"), ValidArgsFunction: c.completion(c.webhookIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			if err := c.confirm(ctx, yes, "Remove "+args[0]+"?"); err != nil {
				return err
			}
			if err := cl.DeleteWebhook(ctx, args[0]); err != nil {
				return err
			}
			return c.show(map[string]string{"id": args[0]}, func() { c.say("Removed %s.", plain(args[0])) })
		}),
	}
	yesFlag(cmd, &yes)
	return cmd
}

func (c *command) webhookSwitch(use, short string, do func(*client.Client, context.Context, string) (client.Webhook, error)) *cobra.Command {
	return &cobra.Command{
		Use: use + " WEBHOOK", Short: short, Args: takes(1, "one argument: the webhook's id"), ValidArgsFunction: c.completion(c.webhookIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			v, err := do(cl, ctx, args[0])
			if err != nil {
				return err
			}
			return c.showWebhook(v)
		}),
	}
}

func (c *command) webhookRotate() *cobra.Command {
	var overlap time.Duration
	var file string
	cmd := &cobra.Command{
		Use: "rotate WEBHOOK", Short: "Replace a webhook's secret; both sign for a while",
		Long: "Replace a webhook's secret. For the overlap each delivery carries a signature of the new one and of the old one, so that\nthe receiver can change over without missing any.\n\nA person does it with their passkey: with a person's login this names the page for it. An API key goes through.",
		Args: takes(1, "one argument: the webhook's id"), ValidArgsFunction: c.completion(c.webhookIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			return c.showMadeWebhook(file, func() (client.MadeWebhook, error) { return cl.RotateWebhook(ctx, args[0], overlap) })
		}),
	}
	cmd.Flags().DurationVar(&overlap, "overlap", 24*time.Hour, "how long the old secret signs as well; 0 for not at all")
	cmd.Flags().StringVar(&file, "secret-file", "", "write the secret to this new file (mode 0600), and do not show it")
	return cmd
}

func (c *command) webhookTest() *cobra.Command {
	return &cobra.Command{
		Use: "test WEBHOOK", Short: "Send a webhook an event that says nothing", Args: takes(1, "one argument: the webhook's id"), ValidArgsFunction: c.completion(c.webhookIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			d, err := cl.TestWebhook(ctx, args[0])
			if err != nil {
				return err
			}
			return c.show(d, func() {
				c.say("On its way as %s. See what became of it: ambit webhook deliveries %s", d.EventID, d.WebhookID)
			})
		}),
	}
}

func (c *command) webhookDeliveries() *cobra.Command {
	var p paging
	var state string
	cmd := &cobra.Command{
		Use: "deliveries WEBHOOK", Short: "List what was told, newest first; a month is kept", Args: takes(1, "one argument: the webhook's id"), ValidArgsFunction: c.completion(c.webhookIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			page, err := pages(ctx, p, func(ctx context.Context, q client.Paging) (client.Page[client.WebhookDelivery], error) {
				return cl.WebhookDeliveries(ctx, args[0], state, q)
			})
			if err != nil {
				return err
			}
			return showPage(c, page, []string{"EVENT", "STATE", "ATTEMPTS", "ANSWER", "WHEN", "ID"}, "Nothing was told yet.",
				func(v client.WebhookDelivery, now time.Time) []string {
					answer := v.Error
					if v.Status != 0 {
						answer = fmt.Sprint(v.Status)
					}
					return []string{v.Event, v.State, fmt.Sprint(v.Attempts), answer, when(v.CreatedAt, now), v.ID}
				})
		}),
	}
	oneOf(cmd, &state, "state", "pending, delivered, failed or held", "pending", "delivered", "failed", "held")
	p.flags(cmd)
	return cmd
}

func (c *command) webhookReplay() *cobra.Command {
	var r client.WebhookReplay
	var from, to string
	cmd := &cobra.Command{
		Use: "replay WEBHOOK", Short: "Send one delivery again, or what was not delivered in a time",
		Long:    "Send again what was not delivered: all that is kept, or what happened in a time, or one delivery whatever became of it.\nThe webhook-id of each is what it was, so that a receiver can tell what it has.",
		Example: "  ambit webhook replay hook_… --from 2026-11-27T08:00:00Z\n  ambit webhook replay hook_… --delivery dlv_…",
		Args:    takes(1, "one argument: the webhook's id"), ValidArgsFunction: c.completion(c.webhookIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			var err error
			if r.From, err = instant("--from", from); err != nil {
				return err
			}
			if r.To, err = instant("--to", to); err != nil {
				return err
			}
			n, err := cl.ReplayWebhook(ctx, args[0], r)
			if err != nil {
				return err
			}
			return c.show(map[string]int64{"deliveries": n}, func() { c.say("%d deliveries are sent again.", n) })
		}),
	}
	cmd.Flags().StringVar(&r.DeliveryID, "delivery", "", "this one")
	cmd.Flags().StringVar(&from, "from", "", "what happened at this time (RFC 3339) or later")
	cmd.Flags().StringVar(&to, "to", "", "what happened before this time (RFC 3339)")
	cmd.Flags().BoolVar(&r.Delivered, "delivered", false, "also what was delivered")
	return cmd
}

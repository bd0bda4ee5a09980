package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/provider"
)

func (c *command) providerClient() *cobra.Command {
	return c.group("client", "Our OAuth clients at a provider: the environment's, and those of organizations", c.clientList(), c.clientSet(), c.clientRemove())
}

// audience says for whom a client is.
func audience(v client.ProviderClient) string {
	switch {
	case v.OrganizationID != "":
		return "its organization"
	case v.For == string(provider.ForAll):
		return "all organizations"
	case v.For == string(provider.ForNobody):
		return "nobody new"
	}
	return v.For
}

func clientState(v client.ProviderClient, now time.Time) string {
	switch {
	case v.Stale:
		return "addresses changed: give it again"
	case !v.OldSecretUntil.IsZero():
		return "two secrets, the old one ends " + when(v.OldSecretUntil, now)
	case !v.HasSecret:
		return "no secret"
	}
	return "one secret"
}

func (c *command) clientList() *cobra.Command {
	return &cobra.Command{
		Use: "list PROVIDER", Short: "List the OAuth clients at a provider, with the redirect URI to register for each", Args: takes(1, "one argument: the provider's id"),
		ValidArgsFunction: c.completion(c.providerIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			list, err := cl.ProviderClients(ctx, args[0])
			if err != nil {
				return err
			}
			return c.show(map[string]any{"data": some(list)}, func() {
				var rows [][]string
				for _, v := range list {
					rows = append(rows, []string{first(v.OrganizationID, "the environment"), v.ClientID, audience(v), clientState(v, time.Now()), v.RedirectURI})
				}
				c.table([]string{"OF", "CLIENT ID", "SIGNS IN", "STATE", "REDIRECT URI"}, rows, "No client. Set one with: ambit provider client set "+plain(args[0])+" --client-id ID --client-secret-stdin")
			})
		}),
	}
}

func (c *command) clientSet() *cobra.Command {
	var in client.PutProviderClient
	var secretIn bool
	var overlap time.Duration
	cmd := &cobra.Command{
		Use: "set PROVIDER", Short: "Set an OAuth client at a provider, or rotate its secret",
		Long: "Set the environment's OAuth client at a provider, or with --org an organization's own. A new secret of the same client\n" +
			"counts at once, and the one before counts as well for --overlap: each is tried where the other is not known. Another\n" +
			"client counts for who connects from then on; accounts that were connected with the one before must be connected again.\n\n" +
			"The environment's client is for one organization, at first the operator's. With --for all it is for all of them, which\n" +
			"takes --accept-shared-client: docs/connect.md says what that means.\n\n" +
			"The secret comes from standard input. As a person, the command names the page where you confirm it.",
		Example: "  ambit provider client set github --client-secret-stdin < new-secret.txt\n" +
			"  ambit provider client set github --org org_01 --client-id abc123 --client-secret-stdin < secret.txt\n" +
			"  ambit provider client set github --overlap 0s\n" +
			"  ambit provider client set github --for all --accept-shared-client",
		Args: takes(1, "one argument: the provider's id"), ValidArgsFunction: c.completion(c.providerIDs, 1),
	}
	cmd.RunE = c.with(func(ctx context.Context, cl *client.Client, args []string) error {
		if cmd.Flags().Changed("overlap") {
			n := int64(overlap / time.Second)
			in.OverlapSeconds = &n
		}
		if secretIn {
			var err error
			if in.ClientSecret, err = c.readSecret(ctx, "Client secret"); err != nil {
				return err
			}
		}
		v, err := cl.PutProviderClient(ctx, args[0], in)
		if err != nil {
			return err
		}
		return c.show(v, func() {
			c.say("The client %s at %s is set, for %s.", plain(v.ClientID), plain(args[0]), plain(audience(v)))
			if !v.OldSecretUntil.IsZero() {
				c.say("The secret before it counts as well until %s. Then remove it at the provider.", stamp(v.OldSecretUntil, time.Now()))
			}
			c.say("Redirect URI to register there: %s", plain(v.RedirectURI))
		})
	})
	f := cmd.Flags()
	c.orgFlag(cmd, &in.OrganizationID, "this organization's own client (default: the environment's)")
	f.StringVar(&in.ClientID, "client-id", "", "id of the OAuth client (default: the one that is there)")
	f.BoolVar(&secretIn, "client-secret-stdin", false, "read its secret from standard input (default: it stays)")
	f.StringVar(&in.For, "for", "", "whom to sign in with the environment's client: an organization's id, all, or none")
	f.BoolVar(&in.AcceptShared, "accept-shared-client", false, "with --for all: you know what one client for all organizations means")
	f.DurationVar(&overlap, "overlap", provider.DefaultOverlap, "how long the secret before counts as well; 0s ends it now")
	f.Int64Var(&in.IfVersion, "if-version", 0, "only if this is the stored version")
	return cmd
}

func (c *command) clientRemove() *cobra.Command {
	var org string
	var yes bool
	cmd := &cobra.Command{
		Use: "remove PROVIDER", Short: "Remove an organization's own OAuth client", Args: takes(1, "one argument: the provider's id"), ValidArgsFunction: c.completion(c.providerIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			if err := c.confirm(ctx, yes, "Remove the organization's own client at "+args[0]+"? Accounts that were connected with it must be connected again."); err != nil {
				return err
			}
			if err := cl.DeleteProviderClient(ctx, args[0], org); err != nil {
				return err
			}
			return c.show(map[string]any{"provider": args[0], "organization_id": org, "removed": true}, func() { c.say("Removed the client at %s.", plain(args[0])) })
		}),
	}
	c.orgFlag(cmd, &org, "whose own client")
	_ = cmd.MarkFlagRequired("org")
	yesFlag(cmd, &yes)
	return cmd
}

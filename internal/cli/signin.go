package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
)

func (c *command) orgSignIn() *cobra.Command {
	return c.group("signin", "Identity providers at which the members of an organization sign in", c.orgSignInList(), c.orgSignInAdd(), c.orgSignInRemove())
}

func (c *command) orgSignInList() *cobra.Command {
	return &cobra.Command{
		Use: "list ORG", Short: "List an organization's identity providers", Args: takes(1, "one argument: the organization's id"), ValidArgsFunction: c.completion(c.organizationIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			page, err := cl.IdentityProviders(ctx, args[0])
			if err != nil {
				return err
			}
			return showPage(c, page, []string{"NAME", "ISSUER", "LETS IN", "SIGN-IN ADDRESS", "ID"}, "Members sign in with passkeys. Add a provider with: ambit org signin add",
				func(i client.IdentityProvider, _ time.Time) []string {
					return []string{i.Name, i.Issuer, map[bool]string{true: "everybody there", false: "the invited"}[i.Admits], i.SignInURL, i.ID}
				})
		}),
	}
}

func (c *command) orgSignInAdd() *cobra.Command {
	var n client.NewIdentityProvider
	var open bool
	cmd := &cobra.Command{
		Use: "add ORG NAME", Short: "Name the page where an owner adds an identity provider",
		Long: "Name the page where an owner adds an identity provider, with the form filled in but for the client secret. A command\n" +
			"line's login cannot add one: whoever runs it can be any member who signs in there, so it takes a passkey.",
		Example: "  ambit org signin add org_… 'Example Login' --issuer https://login.example.com --client-id ambit",
		Args:    takes(2, "two arguments: the organization's id and a name for the provider"), ValidArgsFunction: c.completion(c.organizationIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			n.Name = args[1]
			_, err := cl.CreateIdentityProvider(ctx, args[0], n)
			return c.sentOn(err, open)
		}),
	}
	cmd.Flags().StringVar(&n.Issuer, "issuer", "", "the provider's issuer, exactly as it calls itself")
	cmd.Flags().StringVar(&n.ClientID, "client-id", "", "what the provider knows this server as")
	cmd.Flags().BoolVar(&n.Admits, "admit", false, "make whoever signs in there for the first time a member")
	cmd.Flags().BoolVar(&open, "open", false, "open the browser")
	for _, flag := range []string{"issuer", "client-id"} {
		_ = cmd.MarkFlagRequired(flag)
	}
	return cmd
}

func (c *command) orgSignInRemove() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "remove PROVIDER", Short: "End sign-ins at an identity provider", Args: takes(1, "one argument: the provider's id (idp_…)"),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			if err := c.confirm(ctx, yes, "Remove "+args[0]+"? Whoever signed in there is signed out, and needs a passkey or a new link."); err != nil {
				return err
			}
			if err := cl.DeleteIdentityProvider(ctx, args[0]); err != nil {
				return err
			}
			return c.show(map[string]string{"id": args[0], "state": "removed"}, func() { c.say("Removed %s.", plain(args[0])) })
		}),
	}
	yesFlag(cmd, &yes)
	return cmd
}

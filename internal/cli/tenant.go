package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/fault"
)

func (c *command) keyCommand() *cobra.Command {
	return c.group("apikey", "API keys: what applications show, never agents", c.keyList(), c.keyCreate(), c.keyRevoke())
}

func (c *command) keyList() *cobra.Command {
	var p paging
	var org string
	cmd := &cobra.Command{
		Use: "list", Short: "List API keys, without their tokens", Args: takes(0, "no arguments"),
		RunE: c.with(func(ctx context.Context, cl *client.Client, _ []string) error {
			page, err := pages(ctx, p, func(ctx context.Context, q client.Paging) (client.Page[client.APIKey], error) {
				return cl.Keys(ctx, org, q)
			})
			if err != nil {
				return err
			}
			return showPage(c, page, []string{"NAME", "STATE", "SCOPES", "LAST USED", "EXPIRES", "ID"}, "No API keys. Make one with: ambit apikey create",
				func(k client.APIKey, now time.Time) []string {
					return []string{k.Name, keyState(k, now), few(k.Scopes), when(k.LastUsedAt, now), when(k.ExpiresAt, now), k.ID}
				})
		}),
	}
	c.orgFlag(cmd, &org, "of this organization (default: of the whole environment)")
	p.flags(cmd)
	return cmd
}

// few shortens a list for a table.
func few(list []string) string {
	if len(list) > 3 {
		return fmt.Sprintf("%s and %d more", words(list[:2]), len(list)-2)
	}
	return words(list)
}

func keyState(k client.APIKey, now time.Time) string {
	switch {
	case !k.RevokedAt.IsZero():
		return "revoked"
	case !k.ExpiresAt.IsZero() && k.ExpiresAt.Before(now):
		return "expired"
	}
	return "active"
}

func (c *command) keyCreate() *cobra.Command {
	var open bool
	cmd := &cobra.Command{
		Use: "create", Short: "Name the page where a person makes an API key",
		Long: "Name the page where a person makes an API key. A command line's login cannot make one: it takes a passkey.",
		Args: takes(0, "no arguments"),
		RunE: c.with(func(ctx context.Context, cl *client.Client, _ []string) error {
			return c.sentOn(cl.CreateKey(ctx), open)
		}),
	}
	cmd.Flags().BoolVar(&open, "open", false, "open the browser")
	return cmd
}

// sentOn is err. If the server said with it that a person goes on in the browser,
// and open is set, that page is opened.
func (c *command) sentOn(err error, open bool) error {
	if e, ok := errors.AsType[*client.Error](err); ok && open && e.Code == "browser_required" {
		if berr := c.browse(e.Fields["url"]); berr != nil {
			return berr
		}
	}
	return err
}

func (c *command) keyRevoke() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "revoke KEY", Short: "End an API key at once", Args: takes(1, "one argument: the key's id (key_…), not the key"),
		ValidArgsFunction: c.completion(c.keyIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			if strings.HasPrefix(args[0], "sk_") {
				return usageError{errors.New("that is a key itself; give its id (key_…), which `ambit apikey list` shows. Who saw it typed can use it: revoke it")}
			}
			if err := c.confirm(ctx, yes, "Revoke "+args[0]+"? Whatever uses it stops working."); err != nil {
				return err
			}
			if err := cl.RevokeKey(ctx, args[0]); err != nil {
				return err
			}
			return c.show(map[string]string{"id": args[0], "state": "revoked"}, func() { c.say("Revoked %s.", plain(args[0])) })
		}),
	}
	yesFlag(cmd, &yes)
	return cmd
}

func (c *command) organizationCommand() *cobra.Command {
	return c.group("org", "Organizations: the tenants of an environment", c.orgList(), c.orgCreate(), c.orgShow(), c.orgFirstOwner(), c.orgSignIn())
}

func (c *command) orgList() *cobra.Command {
	var p paging
	cmd := &cobra.Command{
		Use: "list", Short: "List organizations", Args: takes(0, "no arguments"),
		RunE: c.with(func(ctx context.Context, cl *client.Client, _ []string) error {
			page, err := pages(ctx, p, cl.Organizations)
			if err != nil {
				return err
			}
			return showPage(c, page, []string{"NAME", "EXTERNAL ID", "PASSKEY", "CREATED", "ID"}, "No organizations.", func(o client.Organization, now time.Time) []string {
				return []string{o.Name, o.ExternalID, map[bool]string{true: "required", false: "optional"}[o.RequirePasskey], when(o.CreatedAt, now), o.ID}
			})
		}),
	}
	p.flags(cmd)
	return cmd
}

func (c *command) orgCreate() *cobra.Command {
	var n client.NewOrganization
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make an organization", Args: takes(1, "one argument: the name"),
		Example: "  ambit org create 'Example Ltd' --external-id customer-42",
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			n.Name = args[0]
			o, err := cl.CreateOrganization(ctx, n)
			if err != nil {
				return err
			}
			return c.show(o, func() { c.say("Made %s: %s", plain(o.Name), o.ID) })
		}),
	}
	cmd.Flags().StringVar(&n.ExternalID, "external-id", "", "your own id for it")
	return cmd
}

func (c *command) orgShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ORG", Short: "Show one organization and its members", Args: takes(1, "one argument: the organization's id or name"),
		ValidArgsFunction: c.completion(c.organizationIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			org, err := byName(ctx, "org", args[0], cl.Organizations, func(o client.Organization) (string, string) { return o.ID, o.Name })
			if err != nil {
				return err
			}
			o, err := cl.Organization(ctx, org)
			if err != nil {
				return err
			}
			return c.show(o, func() {
				c.facts("organization", o.Name, "id", o.ID, "external id", o.ExternalID, "environment", o.EnvironmentID,
					"approving", map[bool]string{true: "only with a passkey", false: "with a passkey or a code"}[o.RequirePasskey], "created", stamp(o.CreatedAt, time.Now()))
				c.say("\nMembers: ambit user list --org %s", o.ID)
			})
		}),
	}
}

func (c *command) orgFirstOwner() *cobra.Command {
	var n client.NewUser
	var file string
	cmd := &cobra.Command{
		Use: "first-owner ORG NAME", Short: "Make the first owner of an organization, and their sign-in link",
		Long: "Make the first owner of an organization, and their sign-in link. This takes an API key for the whole environment; as a\n" +
			"person, use the page that the command names. The link works once, for 15 minutes; until the owner has signed in, the\n" +
			"same e-mail address gets a new one. Those who run the environment are told.",
		Example: "  ambit org first-owner org_… 'Ada Novak' --email ada@example.com --link-file link.txt",
		Args:    takes(2, "two arguments: the organization's id and the owner's name"), ValidArgsFunction: c.completion(c.organizationIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			if n.Email == "" {
				return usageError{errors.New("--email is missing: the owner is known by it")}
			}
			n.Name = args[1]
			made, err := madeOnce(c, file, func() (client.Invited, error) { return cl.InviteFirstOwner(ctx, args[0], n) }, func(m *client.Invited) *string { return &m.Link },
				func(m client.Invited) string {
					return fmt.Sprintf("The owner %s is there, but the link is lost. Run the command again to make another.", plain(m.User.ID))
				})
			if err != nil {
				return err
			}
			return c.show(made, func() {
				c.facts("owner", made.User.Name, "id", made.User.ID, "e-mail", made.User.Email, "sign-in link", made.Link, "works until", stamp(made.ExpiresAt, time.Now()))
				if file != "" {
					c.say("\nThe link is in %s. Whoever opens it first becomes this owner.", file)
				} else {
					c.say("\nThe link is shown this once. Whoever opens it first becomes this owner.")
				}
			})
		}),
	}
	cmd.Flags().StringVar(&n.Email, "email", "", "their e-mail address")
	cmd.Flags().StringVar(&n.ExternalID, "external-id", "", "your own id for them")
	cmd.Flags().StringVar(&file, "link-file", "", "write the link to this new file (mode 0600), and do not show it")
	return cmd
}

func (c *command) userCommand() *cobra.Command {
	return c.group("user", "Users and their roles", c.userList(), c.userCreate(), c.userShow(), c.userRole(), c.userRemove(), c.userDisable(), c.userEnable())
}

func (c *command) userList() *cobra.Command {
	var p paging
	var org string
	cmd := &cobra.Command{
		Use: "list", Short: "List the users of the environment, or the members of an organization", Args: takes(0, "no arguments"),
		RunE: c.with(func(ctx context.Context, cl *client.Client, _ []string) error {
			if org != "" {
				page, err := pages(ctx, p, func(ctx context.Context, q client.Paging) (client.Page[client.Member], error) {
					return cl.Members(ctx, org, q)
				})
				if err != nil {
					return err
				}
				return showPage(c, page, []string{"NAME", "E-MAIL", "ROLE", "STATE", "ID"}, "No members.", func(m client.Member, _ time.Time) []string {
					return []string{m.Name, m.Email, m.Role, userState(m.User), m.ID}
				})
			}
			page, err := pages(ctx, p, cl.Users)
			if err != nil {
				return err
			}
			return showPage(c, page, []string{"NAME", "E-MAIL", "EXTERNAL ID", "STATE", "ID"}, "No users.", func(u client.User, _ time.Time) []string {
				return []string{u.Name, u.Email, u.ExternalID, userState(u), u.ID}
			})
		}),
	}
	c.orgFlag(cmd, &org, "members of this organization, with their roles")
	p.flags(cmd)
	return cmd
}

func userState(u client.User) string {
	if u.DisabledAt.IsZero() {
		return "enabled"
	}
	return "disabled"
}

func (c *command) userCreate() *cobra.Command {
	var n client.NewUser
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make a user",
		Long: "Make a user. They sign in by a link that an owner makes in the web UI, under Organization. A role takes your passkey: as a\nperson, use the page that the command names, which makes the link too.",
		Args: takes(1, "one argument: the name"), Example: "  ambit user create 'Mia Okafor' --email mia@example.com --role approver",
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			n.Name = args[0]
			var err error
			if n.OrganizationID, err = c.organization(ctx, cl, n.OrganizationID); err != nil {
				return err
			}
			u, err := cl.CreateUser(ctx, n)
			if err != nil {
				return err
			}
			return c.show(u, func() {
				c.say("Made %s: %s", plain(u.Name), u.ID)
				c.say("An owner makes their sign-in link at %s/ui/organization", plain(cl.URL()))
			})
		}),
	}
	cmd.Flags().StringVar(&n.Email, "email", "", "e-mail address")
	cmd.Flags().StringVar(&n.ExternalID, "external-id", "", "your own id for them")
	c.orgFlag(cmd, &n.OrganizationID, "organization (default: your only one)")
	n.Role = "member"
	oneOf(cmd, &n.Role, "role", words(roleNames()), roleNames()...)
	return cmd
}

func (c *command) userShow() *cobra.Command {
	return &cobra.Command{
		Use: "show USER", Short: "Show one user", Args: takes(1, "one argument: the user's id"), ValidArgsFunction: c.completion(c.userIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			u, err := cl.User(ctx, args[0])
			if err != nil {
				return err
			}
			return c.showUser(u)
		}),
	}
}

func (c *command) showUser(u client.User) error {
	return c.show(u, func() {
		now := time.Now()
		c.facts("user", u.Name, "id", u.ID, "e-mail", u.Email, "external id", u.ExternalID, "environment", u.EnvironmentID, "state", userState(u),
			"created", stamp(u.CreatedAt, now), "disabled", stamp(u.DisabledAt, now))
	})
}

func (c *command) userRole() *cobra.Command {
	var org string
	cmd := &cobra.Command{
		Use: "role USER ROLE", Short: "Give a user a role in an organization, as a new or an existing member",
		Long: "Give a user a role in an organization: " + words(roleNames()) + ". A role that may do more than the\n" +
			"old one takes your passkey, as taking an owner's does: the command names the page.",
		Example: "  ambit user role user_… approver --org org_…",
		Args:    takes(2, "two arguments: the user's id and the role"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return roleNames(), cobra.ShellCompDirectiveNoFileComp
			}
			return c.completion(c.userIDs, 1)(cmd, args, part)
		},
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			if !slices.Contains(roleNames(), args[1]) {
				return usageError{errors.New("a role is one of " + words(roleNames()))}
			}
			org, err := c.organization(ctx, cl, org)
			if err != nil {
				return err
			}
			if err := cl.SetMember(ctx, org, args[0], args[1]); err != nil {
				return err
			}
			return c.show(map[string]string{"user_id": args[0], "organization_id": org, "role": args[1]}, func() {
				c.say("%s is %s in %s.", plain(args[0]), args[1], plain(org))
			})
		}),
	}
	c.orgFlag(cmd, &org, "organization (default: your only one)")
	return cmd
}

func (c *command) userRemove() *cobra.Command {
	var org string
	var yes bool
	cmd := &cobra.Command{
		Use: "remove USER", Short: "Take a user out of an organization",
		Long: "Take a user out of an organization. Their sessions and connections there end.",
		Args: takes(1, "one argument: the user's id"), ValidArgsFunction: c.completion(c.userIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			org, err := c.organization(ctx, cl, org)
			if err != nil {
				return err
			}
			if err := c.confirm(ctx, yes, "Take "+args[0]+" out of "+org+", and end their sessions and connections there?"); err != nil {
				return err
			}
			if err := cl.RemoveMember(ctx, org, args[0]); err != nil {
				return err
			}
			return c.show(map[string]string{"user_id": args[0], "organization_id": org, "role": ""}, func() {
				c.say("%s is no longer in %s.", plain(args[0]), plain(org))
			})
		}),
	}
	c.orgFlag(cmd, &org, "organization (default: your only one)")
	yesFlag(cmd, &yes)
	return cmd
}

func (c *command) userDisable() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "disable USER", Short: "Shut a user out everywhere, and end their sessions",
		Long: "Shut a user out everywhere: their logins and sessions end at once, and stay ended.\n`ambit user enable` lets them sign in again.",
		Args: takes(1, "one argument: the user's id"), ValidArgsFunction: c.completion(c.userIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			if err := c.ask(ctx, yes, "Shut "+args[0]+" out, and end all their logins and sessions?", "the logins and sessions that it ends stay ended, also after ambit user enable"); err != nil {
				return err
			}
			if err := cl.DisableUser(ctx, args[0]); err != nil {
				return err
			}
			return c.reshow(ctx, cl, args[0])
		}),
	}
	yesFlag(cmd, &yes)
	return cmd
}

func (c *command) userEnable() *cobra.Command {
	return &cobra.Command{
		Use: "enable USER", Short: "Let a disabled user sign in again",
		Args: takes(1, "one argument: the user's id"), ValidArgsFunction: c.completion(c.userIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			if err := cl.EnableUser(ctx, args[0]); err != nil {
				return err
			}
			return c.reshow(ctx, cl, args[0])
		}),
	}
}

// reshow shows a user as they are after a change, which is done whether or not
// the caller may see it.
func (c *command) reshow(ctx context.Context, cl *client.Client, user string) error {
	u, err := cl.User(ctx, user)
	if err != nil {
		return fault.New(fault.Unavailable, "done_unseen", "It is done, but the user cannot be read again.").WithCause(err)
	}
	return c.showUser(u)
}

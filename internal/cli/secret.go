package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/fault"
)

func (c *command) secretCommand() *cobra.Command {
	return c.group("secret", "Secrets: named values in the vault", c.secretList(), c.secretShow(), c.secretCreate(), c.secretUpdate(), c.secretDelete(), c.secretRead())
}

func (c *command) secretList() *cobra.Command {
	var p paging
	var f client.SecretFilter
	cmd := &cobra.Command{
		Use: "list", Short: "List secrets, last updated first, without their values", Args: takes(0, "no arguments"),
		Example: "  ambit secret list --search prod/",
		RunE: c.with(func(ctx context.Context, cl *client.Client, _ []string) error {
			page, err := pages(ctx, p, func(ctx context.Context, q client.Paging) (client.Page[client.Secret], error) {
				f.Limit, f.After = q.Limit, q.After
				return cl.Secrets(ctx, f)
			})
			if err != nil {
				return err
			}
			return showPage(c, page, []string{"NAME", "VERSION", "UPDATED", "BY", "ID"}, "No secrets. Store one with: ambit secret create NAME", func(s client.Secret, now time.Time) []string {
				return []string{s.Name, fmt.Sprint(s.Version), when(s.UpdatedAt, now), first(s.UpdatedByName, s.UpdatedBy.ID), s.ID}
			})
		}),
	}
	c.orgFlag(cmd, &f.OrganizationID, "of this organization only")
	cmd.Flags().StringVar(&f.Search, "search", "", "with this in their name")
	p.flags(cmd)
	return cmd
}

// findSecret takes an id, or a name and looks it up.
func (c *command) findSecret(ctx context.Context, cl *client.Client, org, name string) (client.Secret, error) {
	if strings.HasPrefix(name, "secret_") {
		return cl.Secret(ctx, name, org)
	}
	all, err := client.All(ctx, func(ctx context.Context, after string) (client.Page[client.Secret], error) {
		return cl.Secrets(ctx, client.SecretFilter{OrganizationID: org, Search: name, Limit: completions, After: after})
	})
	if err != nil {
		return client.Secret{}, err
	}
	var found []client.Secret
	for _, s := range all {
		if s.Name == name {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 0:
		return client.Secret{}, fault.New(fault.NotFound, "not_found", "There is no secret with this name.").WithHint("See: ambit secret list")
	case 1:
		return found[0], nil
	}
	return client.Secret{}, usageError{errors.New("several secrets have this name: give the id, or --org")}
}

func (c *command) secretShow() *cobra.Command {
	var org string
	cmd := &cobra.Command{
		Use: "show SECRET", Short: "Describe a secret, without its value", Args: takes(1, "one argument: the secret's name or id"),
		ValidArgsFunction: c.completion(c.secretNames, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			s, err := c.findSecret(ctx, cl, org, args[0])
			if err != nil {
				return err
			}
			return c.showSecret(s)
		}),
	}
	c.orgFlag(cmd, &org, "organization whose it is")
	return cmd
}

func (c *command) showSecret(s client.Secret) error {
	return c.show(s, func() {
		now := time.Now()
		var at []string
		for _, k := range []string{"organization_id", "user_id"} {
			if v := s.Context[k]; v != "" {
				at = append(at, v)
			}
		}
		c.facts("secret", s.Name, "id", s.ID, "of", first(words(at), "the environment"), "sealed under", s.KeyID, "version", fmt.Sprint(s.Version), "version id", s.VersionID,
			"updated", stamp(s.UpdatedAt, now), "by", first(s.UpdatedByName, s.UpdatedBy.ID), "created", stamp(s.CreatedAt, now))
	})
}

const secretInput = "The value comes from standard input, without its last line break, or whole from --file; never from the command line,\n" +
	"which other programs and the shell's history can read."

func (c *command) secretCreate() *cobra.Command {
	var n client.NewSecret
	var file, org string
	var parts []string
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Store a new secret", Long: "Store a new secret.\n\n" + secretInput,
		Example: "  ambit secret create prod/db-password < password.txt\n  ambit secret create deploy-key --file id_ed25519 --org org_…",
		Args:    takes(1, "one argument: the name; the value comes from standard input or --file"),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			var err error
			if n.Context, err = pairs("--context", parts); err != nil {
				return err
			}
			if org != "" {
				n.Context["organization_id"] = org
			}
			n.Name = args[0]
			if n.Value, err = c.readValue(ctx, file); err != nil {
				return err
			}
			s, err := cl.CreateSecret(ctx, n)
			if err != nil {
				return err
			}
			return c.showSecret(s)
		}),
	}
	cmd.Flags().StringVar(&file, "file", "", "read the value from this file, as it is")
	c.orgFlag(cmd, &org, "organization whose it is (default: the environment's)")
	cmd.Flags().StringArrayVar(&parts, "context", nil, "part NAME=VALUE of the key context that seals it (repeatable)")
	return cmd
}

func (c *command) readValue(ctx context.Context, file string) (string, error) {
	if file == "" {
		return c.readSecret(ctx, "the value")
	}
	text, err := c.readFile(ctx, file)
	if err != nil {
		return "", err
	}
	return checkSecret(text, "the value")
}

func (c *command) secretUpdate() *cobra.Command {
	var file, org, version string
	cmd := &cobra.Command{
		Use: "update SECRET", Short: "Store a new version of a secret", Long: "Store a new version of a secret.\n\n" + secretInput,
		Args:              takes(1, "one argument: the secret's name or id; the value comes from standard input or --file"),
		ValidArgsFunction: c.completion(c.secretNames, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			s, err := c.findSecret(ctx, cl, org, args[0])
			if err != nil {
				return err
			}
			value, err := c.readValue(ctx, file)
			if err != nil {
				return err
			}
			if s, err = cl.UpdateSecret(ctx, s.ID, org, value, version); err != nil {
				return err
			}
			return c.showSecret(s)
		}),
	}
	cmd.Flags().StringVar(&file, "file", "", "read the value from this file, as it is")
	c.orgFlag(cmd, &org, "organization whose it is")
	cmd.Flags().StringVar(&version, "if-version", "", "only if this version id is the current one")
	return cmd
}

func (c *command) secretDelete() *cobra.Command {
	var org string
	var yes bool
	cmd := &cobra.Command{
		Use: "delete SECRET", Short: "Delete a secret with all its versions", Args: takes(1, "one argument: the secret's name or id"),
		ValidArgsFunction: c.completion(c.secretNames, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			s, err := c.findSecret(ctx, cl, org, args[0])
			if err != nil {
				return err
			}
			if err := c.confirm(ctx, yes, fmt.Sprintf("Delete %s with all %d versions?", s.Name, s.Version)); err != nil {
				return err
			}
			if err := cl.DeleteSecret(ctx, s.ID, org); err != nil {
				return err
			}
			return c.show(map[string]any{"id": s.ID, "name": s.Name, "deleted": true}, func() { c.say("Deleted %s.", plain(s.Name)) })
		}),
	}
	c.orgFlag(cmd, &org, "organization whose it is")
	yesFlag(cmd, &yes)
	return cmd
}

func (c *command) secretRead() *cobra.Command {
	var org string
	cmd := &cobra.Command{
		Use: "read SECRET", Short: "Say how the value of a secret is read",
		Long: "This command line shows no values: they would stay in the terminal, its log and its scrollback. Applications read\n" +
			"them over the API, with an API key.",
		Args: takes(1, "one argument: the secret's name or id"), ValidArgsFunction: c.completion(c.secretNames, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			s, err := c.findSecret(ctx, cl, org, args[0])
			if err != nil {
				return err
			}
			return fault.New(fault.Denied, "not_shown", "The command line shows no values of secrets.").
				WithHint("An application reads it with its API key:\n" +
					`curl -H "Authorization: Bearer $AMBIT_API_KEY" ` + cl.URL() + "/v1/secrets/" + s.ID + "/value")
		}),
	}
	c.orgFlag(cmd, &org, "organization whose it is")
	return cmd
}

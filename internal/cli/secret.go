package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/fault"
)

func (c *command) secretCommand() *cobra.Command {
	return c.group("secret", "Secrets: named values in the vault", c.secretList(), c.secretShow(), c.secretPut(), c.secretGet(), c.secretVersions(),
		c.secretRestore(), c.secretTag(), c.secretDelete(), c.secretDecrypt())
}

func (c *command) secretList() *cobra.Command {
	var p paging
	var f client.SecretFilter
	var parts []string
	cmd := &cobra.Command{
		Use: "list", Short: "List secrets, last updated first, without their values", Args: takes(0, "no arguments"),
		Example: "  ambit secret list --prefix prod/ --tag pci",
		RunE: c.with(func(ctx context.Context, cl *client.Client, _ []string) error {
			var err error
			if f.Context, err = pairs("--context", parts); err != nil {
				return err
			}
			page, err := pages(ctx, p, func(ctx context.Context, q client.Paging) (client.Page[client.Secret], error) {
				f.Limit, f.After = q.Limit, q.After
				return cl.Secrets(ctx, f)
			})
			if err != nil {
				return err
			}
			return showPage(c, page, []string{"NAME", "VERSION", "UPDATED", "BY", "ID"}, "No secrets. Store one with: ambit secret put NAME", func(s client.Secret, now time.Time) []string {
				return []string{s.Name, fmt.Sprint(s.Version), when(s.UpdatedAt, now), first(s.UpdatedByName, s.UpdatedBy.ID), s.ID}
			})
		}),
	}
	c.orgFlag(cmd, &f.OrganizationID, "of this organization only")
	cmd.Flags().StringVar(&f.Search, "search", "", "with this in their name or description")
	cmd.Flags().StringVar(&f.Prefix, "prefix", "", "whose name begins so")
	cmd.Flags().StringArrayVar(&f.Tags, "tag", nil, "with this tag (repeatable)")
	cmd.Flags().StringArrayVar(&parts, "context", nil, "with the part NAME=VALUE in their key context (repeatable)")
	cmd.Flags().BoolVar(&f.Deleted, "deleted", false, "those that are deleted and can be taken back")
	p.flags(cmd)
	return cmd
}

// findSecret takes an id, or a name and looks it up.
func (c *command) findSecret(ctx context.Context, cl *client.Client, org, name string) (client.Secret, error) {
	s, found, err := c.lookSecret(ctx, cl, org, name)
	if err == nil && !found {
		return client.Secret{}, fault.New(fault.NotFound, "not_found", "There is no secret with this name.").WithHint("See: ambit secret list")
	}
	return s, err
}

func (c *command) lookSecret(ctx context.Context, cl *client.Client, org, name string) (s client.Secret, found bool, err error) {
	if strings.HasPrefix(name, "secret_") {
		s, err = cl.Secret(ctx, name, org)
		return s, true, err
	}
	p, err := cl.Secrets(ctx, client.SecretFilter{OrganizationID: org, Name: name})
	if err != nil || len(p.Data) == 0 {
		return client.Secret{}, false, err
	}
	return p.Data[0], true, nil
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
			"updated", stamp(s.UpdatedAt, now), "by", first(s.UpdatedByName, s.UpdatedBy.ID), "created", stamp(s.CreatedAt, now),
			"holds", secretHolds(s), "description", s.Description, "tags", words(s.Tags), "metadata", secretMetadata(s), "expires", stamp(s.ExpiresAt, now),
			"rotate by", stamp(s.RotateBy, now), "deleted", stamp(s.DeletedAt, now), "can be taken back until", stamp(s.PurgeAt, now))
	})
}

func secretHolds(s client.Secret) string {
	text := s.Content + ", " + count(s.Size, "byte", "bytes")
	if s.WriteOnly {
		text += ", which nobody reads"
	}
	return text
}

func secretMetadata(s client.Secret) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(s.Metadata)) {
		all = append(all, name+"="+s.Metadata[name])
	}
	return words(all)
}

package cli

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/provider"
)

func (c *command) providerCatalog() *cobra.Command {
	return &cobra.Command{
		Use: "catalog [WORD...]", Short: "Search the providers that Ambit knows, or show one",
		Long: "List the providers of the catalogue that have all words in their name, id or kind. The id of one shows what is known of\n" +
			"it, how sure that is, and what it takes. It takes no server.\n\n" +
			"ambit provider template ID makes a record of it, for ambit provider add.",
		Example: "  ambit provider catalog\n  ambit provider catalog google\n  ambit provider catalog zendesk",
		Args:    upTo(8, "at most eight words"),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				if e, err := provider.FindEntry(args[0]); err == nil {
					return c.showEntry(e)
				}
			}
			found, err := provider.Search(strings.Join(args, " "))
			if err != nil {
				return err
			}
			page := client.Page[client.CatalogEntry]{Data: []client.CatalogEntry{}}
			for _, e := range found {
				page.Data = append(page.Data, catalogEntry(e))
			}
			return c.show(page, func() {
				var rows [][]string
				for _, e := range page.Data {
					rows = append(rows, []string{e.Name, e.Category, e.Auth, e.Confidence + ", " + e.Tried, e.ID})
				}
				c.table([]string{"NAME", "KIND", "AUTH", "FACTS", "ID"}, rows, "Nothing of that name. Describe it yourself: ambit provider template")
			})
		},
	}
}

func catalogEntry(e provider.Entry) client.CatalogEntry {
	r := e.Shown
	out := client.CatalogEntry{ID: e.ID, Name: e.Name, Slug: r.Wire(), Category: e.Category, Website: r.Website, Auth: string(r.Auth), Confidence: r.About.Confidence,
		Tried: e.Tried(), Hosts: r.Hosts(), Tools: len(r.Tools()), Docs: r.About.Docs, Notes: r.About.Notes}
	for _, p := range e.Params {
		out.Params = append(out.Params, client.TemplateParam(p))
	}
	return out
}

func (c *command) showEntry(e provider.Entry) error {
	out := catalogEntry(e)
	return c.show(out, func() {
		c.facts("provider", out.Name, "id", out.ID, "slug of Pipes", out.Slug, "kind", out.Category, "website", out.Website, "authorization", out.Auth,
			"facts", out.Confidence+" confidence, "+out.Tried, "keys go to", words(out.Hosts), "tools", fmt.Sprint(out.Tools))
		for _, n := range out.Notes {
			c.say("- %s", plain(n))
		}
		for _, d := range out.Docs {
			c.say("- %s", plain(d))
		}
		c.say("")
		var rows [][]string
		for _, p := range out.Params {
			rows = append(rows, paramRow(p))
		}
		c.table([]string{"  NAME", "KIND", "", "WHAT"}, rows, "")
		c.say("")
		c.say("Next: ambit provider template %s > %s.yaml", plain(out.ID), plain(out.ID))
	})
}

func (c *command) providerSchema() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of provider records, for editors", Args: takes(0, "no arguments"),
		Example: "  ambit provider schema > ambit-provider.schema.json",
		RunE: func(*cobra.Command, []string) error {
			text, err := json.MarshalIndent(provider.Schema(), "", "  ")
			if err != nil {
				return fmt.Errorf("write the schema of provider records: %w", err)
			}
			_, err = fmt.Fprintln(c.stdout, string(text))
			return err
		},
	}
}

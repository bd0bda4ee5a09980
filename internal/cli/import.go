package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/provider/openapi"
)

func (c *command) providerImport() *cobra.Command {
	var o openapi.Options
	cmd := &cobra.Command{
		Use: "import FILE|URL", Short: "Draft a record from an OpenAPI description, to review and add",
		Long: "Draft a provider record from an OpenAPI description (3.0 or 3.1; JSON or YAML) and print it. A file (- is standard input)\n" +
			"is read here and takes no server. An https address is read by the server, under its rules for destinations.\n\n" +
			"What was left out and what was guessed is told on standard error, and stands in the record as comments that begin with\n" +
			"Review. Nothing is stored: read the record, correct it, and add it with `ambit provider add`.",
		Example: "  ambit provider import openapi.yaml > acme.yaml\n  ambit provider import https://api.acme.example/openapi.json --only /v2/orders > acme.yaml",
		Args:    takes(1, "one argument: the file or the address of the description"),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := c.drafted(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			if c.json {
				return c.show(d, nil)
			}
			fmt.Fprint(c.stdout, d.YAML)
			c.sayNotes("Left out", d.Left)
			c.sayNotes("Look at", d.Flagged)
			_, err = fmt.Fprintf(c.stderr, "Drafted %s with %d tools. Read it, then: ambit provider add FILE\n", plain(d.ID), d.Tools)
			return err
		},
	}
	cmd.Flags().StringVar(&o.ID, "id", "", "id of the record; default: made of the description's title")
	cmd.Flags().StringVar(&o.Server, "server", "", "where calls go; default: the first server of the description")
	cmd.Flags().StringArrayVar(&o.Only, "only", nil, "take only paths that begin so (repeatable)")
	return cmd
}

func (c *command) drafted(ctx context.Context, from string, o openapi.Options) (client.ImportedRecord, error) {
	if strings.HasPrefix(from, "https://") || strings.HasPrefix(from, "http://") {
		cl, err := c.api(ctx)
		if err != nil {
			return client.ImportedRecord{}, err
		}
		return cl.ImportProvider(ctx, client.ImportProvider{URL: from, ID: o.ID, Server: o.Server, Only: o.Only})
	}
	text, err := c.readLarge(ctx, from, openapi.MaxBytes)
	if err != nil {
		return client.ImportedRecord{}, err
	}
	d, err := openapi.Read(ctx, text, o)
	if err != nil {
		return client.ImportedRecord{}, err
	}
	return client.ImportedRecord{YAML: d.YAML, ID: d.ID, Tools: d.Tools, Left: notesOf(d.Left), Flagged: notesOf(d.Flagged)}, nil
}

func notesOf(list []openapi.Note) []client.ImportNote {
	out := make([]client.ImportNote, 0, len(list))
	for _, n := range list {
		out = append(out, client.ImportNote(n))
	}
	return out
}

func (c *command) sayNotes(what string, list []client.ImportNote) {
	for _, n := range list {
		fmt.Fprintf(c.stderr, "%s: %s: %s\n", what, plain(n.Where), plain(n.Text))
	}
}

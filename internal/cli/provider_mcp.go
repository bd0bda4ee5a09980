package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/legible"
)

func (c *command) providerMCP() *cobra.Command {
	return c.group("mcp", "MCP servers as providers, and what their tools are agreed to be", c.providerMCPAdd(), c.providerMCPTools(), c.providerMCPAdopt())
}

func (c *command) providerMCPAdd() *cobra.Command {
	var add client.AddMCPServer
	var secretIn bool
	cmd := &cobra.Command{
		Use: "add URL", Short: "Add a remote MCP server as a provider",
		Long: "Add the MCP server at URL (streamable HTTP) as a provider. The server finds out how it is authorized: OAuth by the\n" +
			"MCP server's own description, where Ambit registers itself if it can, or not at all. With --header accounts are\n" +
			"connected with a key that goes there. docs/upstream-mcp.md explains it.\n\n" +
			"The record decides where keys go, so it takes your passkey: the command names the page where you confirm it. With an API\n" +
			"key it is added at once. The server's tools are taken in once an account is connected: ambit provider mcp tools.",
		Example: "  ambit provider mcp add https://mcp.example.com/mcp --id notes\n  ambit provider mcp add https://mcp.example.com/mcp --header Authorization",
		Args:    takes(1, "one argument: the address of the server"),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			add.URL = args[0]
			if secretIn && add.ClientID == "" {
				return usageError{errors.New("a client secret needs its --client-id")}
			}
			if secretIn {
				var err error
				if add.ClientSecret, err = c.readSecret(ctx, "Client secret"); err != nil {
					return err
				}
			}
			v, err := cl.AddMCPServer(ctx, add)
			if err != nil {
				return err
			}
			v.Tools, v.CredentialFields = some(v.Tools), some(v.CredentialFields)
			return c.show(v, func() {
				c.say("%s is added.", plain(v.Name))
				c.say("Next: ambit connection connect %s, then ambit provider mcp tools CONNECTION", plain(v.ID))
			})
		}),
	}
	f := cmd.Flags()
	f.StringVar(&add.ID, "id", "", "id of the provider; made of the host when it is left out")
	f.StringVar(&add.Name, "name", "", "its name; the host when it is left out")
	f.StringVar(&add.Header, "header", "", "header that carries a key, such as Authorization")
	f.StringVar(&add.Format, "format", "", "how the key is written there, such as \"Token {api_key}\"")
	f.StringVar(&add.ClientID, "client-id", "", "id of an OAuth client that was registered beforehand")
	f.BoolVar(&secretIn, "client-secret-stdin", false, "read its secret from standard input")
	return cmd
}

func (c *command) providerMCPTools() *cobra.Command {
	var take, all bool
	var sets, leave []string
	cmd := &cobra.Command{
		Use: "tools CONNECTION", Short: "Compare an MCP server's tools with what was agreed to, and agree to them",
		Long: "Ask the MCP server of a connection for its tools and compare them with what a person agreed to. A tool that the server\n" +
			"describes in another way since is frozen: what changed is shown, and calls of it are refused.\n\n" +
			"With --take the tools are agreed to as they are now. Each keeps its effect; a new one is taken only if --effect gives it\n" +
			"one, or with --all as destructive. It takes your passkey: the command names the page. Then: ambit provider mcp adopt.",
		Example: "  ambit provider mcp tools conn_…\n  ambit provider mcp tools conn_… --take --effect search=read --effect add-note=write",
		Args:    takes(1, "one argument: the connection's id"), ValidArgsFunction: c.completion(c.connectionIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			if !take && (all || len(sets)+len(leave) > 0) {
				return usageError{errors.New("--all, --effect and --leave go with --take")}
			}
			chosen, err := pairs("--effect", sets)
			if err != nil {
				return err
			}
			v, err := cl.LookAtTools(ctx, args[0])
			if err != nil {
				return err
			}
			v.Tools = some(v.Tools)
			if !take {
				return c.show(v, func() { c.sayTools(v) })
			}
			effects, pins := map[string]string{}, map[string]string{}
			for _, t := range v.Tools {
				pins[t.Name] = t.Pin
				switch {
				case t.State == "gone" || slices.Contains(leave, t.Name):
				case t.State == "new" && all:
					effects[t.Name] = "destructive"
				case t.State != "new":
					effects[t.Name] = t.Effect
				}
			}
			maps.Copy(effects, chosen)
			for _, t := range v.Tools { // what is agreed to is what stands here
				if _, taken := effects[t.Name]; taken {
					c.sayChange(c.stderr, t)
				}
			}
			p, err := cl.TakeTools(ctx, args[0], effects, pins)
			if err != nil {
				return err
			}
			p.Tools, p.CredentialFields = some(p.Tools), some(p.CredentialFields)
			return c.show(p, func() {
				c.say("%s has %d tools now. Next: ambit provider mcp adopt %s", plain(p.Name), len(p.Tools), plain(args[0]))
			})
		}),
	}
	f := cmd.Flags()
	f.BoolVar(&take, "take", false, "agree to the tools as they are now")
	f.BoolVar(&all, "all", false, "take new ones, too, as destructive")
	f.StringArrayVar(&sets, "effect", nil, "TOOL=read, write, destructive or access, by the server's name (repeatable)")
	f.StringArrayVar(&leave, "leave", nil, "leave this one out (repeatable)")
	return cmd
}

func (c *command) providerMCPAdopt() *cobra.Command {
	return &cobra.Command{
		Use: "adopt CONNECTION", Short: "Give a connection to an MCP server the tools that were agreed to",
		Long: "Give a connection the tools that its provider's record has now. Its key goes nowhere else: the record must name the same\n" +
			"places. Agents must ask again for what is new or different.",
		Example: "  ambit provider mcp adopt conn_…",
		Args:    takes(1, "one argument: the connection's id"), ValidArgsFunction: c.completion(c.connectionIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			v, err := cl.AdoptTools(ctx, args[0])
			if err != nil {
				return err
			}
			v.Scopes, v.MissingScopes = some(v.Scopes), some(v.MissingScopes)
			return c.show(v, func() { c.say("%s uses the tools that were agreed to.", plain(v.ID)) })
		}),
	}
}

func (c *command) sayTools(v client.ListedTools) {
	var rows [][]string
	frozen := 0
	for _, t := range v.Tools {
		rows = append(rows, []string{plain(t.Name), t.State, t.Effect, plain(t.Tool)})
		if t.State == "changed" || t.State == "gone" {
			frozen++
		}
	}
	c.table([]string{"TOOL", "STATE", "EFFECT", "AGENTS CALL IT"}, rows, "The server lists no tools.")
	for _, t := range v.Tools {
		c.sayChange(c.stdout, t)
	}
	if frozen > 0 {
		c.say("\n%d frozen. To agree: ambit provider mcp tools %s --take", frozen, plain(v.ConnectionID))
	}
	if v.Adoptable {
		c.say("\nThe provider has other tools agreed to. To use them: ambit provider mcp adopt %s", plain(v.ConnectionID))
	}
}

// sayChange prints what there is to agree to: all of a new tool, and of a changed one
// the lines that are other than before.
func (c *command) sayChange(to io.Writer, t client.ListedTool) {
	switch t.State {
	case "new":
		word := ""
		if t.Hint {
			word = " (the server says that it only reads)"
		}
		fmt.Fprintf(to, "\n%s is new%s:\n", plain(t.Name), word)
	case "changed":
		fmt.Fprintf(to, "\n%s changed:\n", plain(t.Name))
	default:
		return
	}
	for _, l := range legible.Diff(legible.JSON(t.Was), legible.JSON(t.Now)) {
		fmt.Fprintln(to, strings.TrimRight(l.Sign+" "+plain(l.Text), " "))
	}
}

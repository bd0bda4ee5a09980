package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
)

func (c *command) providerCommand() *cobra.Command {
	return c.group("provider", "Providers: the third parties that accounts can be connected at",
		c.providerList(), c.providerShow(), c.providerAdd(), c.providerLint(), c.providerCatalog(), c.providerTemplate(), c.providerImport(), c.providerSchema(), c.providerHook(), c.providerClient(), c.providerMCP(), c.providerRemove())
}

func (c *command) providerList() *cobra.Command {
	var p paging
	cmd := &cobra.Command{
		Use: "list", Short: "List providers", Args: takes(0, "no arguments"),
		RunE: c.with(func(ctx context.Context, cl *client.Client, _ []string) error {
			page, err := pages(ctx, p, cl.Providers)
			if err != nil {
				return err
			}
			return showPage(c, page, []string{"NAME", "AUTH", "TOOLS", "FROM", "FACTS", "CHANGED", "ID"}, "No providers. Add one: docs/providers.md, or ambit provider template",
				func(v client.Provider, now time.Time) []string {
					return []string{v.Name, v.Auth, fmt.Sprint(len(v.Tools)), map[bool]string{true: "built in", false: "added"}[v.Builtin], factsOf(v), when(v.UpdatedAt, now), v.ID}
				})
		}),
	}
	p.flags(cmd)
	return cmd
}

// factsOf says how far a record can be relied on; nothing when it does not say.
func factsOf(v client.Provider) string {
	switch {
	case v.Confidence == "":
		return ""
	case v.TriedLive == "":
		return v.Confidence + ", not yet tried live"
	}
	return v.Confidence + ", tried live on " + v.TriedLive
}

func (c *command) providerShow() *cobra.Command {
	var asYAML bool
	cmd := &cobra.Command{
		Use: "show PROVIDER", Short: "Show one provider, its tools and their effects", Args: takes(1, "one argument: the provider's id"),
		Example:           "  ambit provider show acme\n  ambit provider show acme --yaml > acme.yaml",
		ValidArgsFunction: c.completion(c.providerIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			v, err := cl.Provider(ctx, args[0])
			if err != nil {
				return err
			}
			if asYAML && !c.json {
				fmt.Fprintln(c.stdout, strings.TrimRight(v.YAML, "\n"))
				return nil
			}
			v.Tools, v.CredentialFields = some(v.Tools), some(v.CredentialFields)
			return c.show(v, func() {
				secret := ""
				if v.ClientID != "" {
					secret = map[bool]string{true: "stored", false: "none"}[v.HasClientSecret]
				}
				c.facts("provider", v.Name, "id", v.ID, "website", v.Website, "authorization", v.Auth, "facts", factsOf(v), "client id", v.ClientID, "client secret", secret,
					"connecting takes", words(v.CredentialFields), "version", fmt.Sprint(v.Version), "changed", stamp(v.UpdatedAt, time.Now()))
				c.say("")
				var rows [][]string
				for _, t := range v.Tools {
					rows = append(rows, []string{t.Name, t.Effect, t.Title})
				}
				c.table([]string{"TOOL", "EFFECT", "WHAT IT DOES"}, rows, "No tools.")
			})
		}),
	}
	cmd.Flags().BoolVar(&asYAML, "yaml", false, "print the record alone")
	return cmd
}

func (c *command) providerAdd() *cobra.Command {
	var put client.PutProvider
	var secretIn bool
	cmd := &cobra.Command{
		Use: "add FILE", Short: "Add a provider, or replace its record",
		Long: "Add the provider that FILE describes (- is standard input), or replace its record. Connections that exist keep the\n" +
			"record that they were made with, until their owner reconnects. docs/providers.md explains records.\n\n" +
			"A record decides where keys go, so it takes your passkey: the command hands it in and names the page where you confirm\n" +
			"it, within an hour. With an API key it is added at once.\n\n" +
			"The client id and secret are those of the OAuth client that you register at the provider, with the redirect URI that\n" +
			"this command names when they are missing. The secret comes from standard input. Left out, the stored ones stay.",
		Example: "  ambit provider add acme.yaml\n  ambit provider add acme.yaml --client-id abc123 --client-secret-stdin < secret.txt",
		Args:    takes(1, "one argument: the file of the record"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if secretIn && args[0] == "-" {
				return usageError{errors.New("standard input cannot be both the record and the client secret")}
			}
			if secretIn && put.ClientID == "" {
				return usageError{errors.New("a client secret needs its --client-id")}
			}
			ctx := cmd.Context()
			text, err := c.readFile(ctx, args[0])
			if err != nil {
				return err
			}
			rec, err := provider.Parse(text)
			if err != nil {
				if !c.json { // the error itself tells it
					sayProblems(c.stderr, args[0], provider.Problems(err))
				}
				return invalidRecord(len(provider.Problems(err))).With("problems", fault.Of(err).Fields["problems"])
			}
			put.YAML = string(text)
			cl, err := c.api(ctx)
			if err != nil {
				return err
			}
			redirect, err := c.redirectURI(ctx, cl, rec)
			if err != nil {
				return err
			}
			if rec.NeedsClient() && put.ClientID == "" {
				if put.ClientID, err = storedClient(ctx, cl, rec, redirect); err != nil {
					return err
				}
			}
			if secretIn {
				if put.ClientSecret, err = c.readSecret(ctx, "Client secret"); err != nil {
					return err
				}
			}
			v, err := cl.PutProvider(ctx, rec.ID, put)
			if err != nil {
				return err
			}
			v.Tools, v.CredentialFields = some(v.Tools), some(v.CredentialFields)
			return c.show(struct {
				client.Provider
				RedirectURI string `json:"redirect_uri,omitempty"`
			}{v, redirect}, func() {
				if v.Version > 1 {
					c.say("%s is changed (version %d), with %d tools. Connections that exist keep the old record until their owner reconnects.", plain(v.Name), v.Version, len(v.Tools))
				} else {
					c.say("%s is added, with %d tools.", plain(v.Name), len(v.Tools))
				}
				if redirect != "" {
					c.say("Redirect URI to register there: %s", plain(redirect))
				}
				if v.Version <= 1 {
					c.say("Next: ambit connection connect %s", plain(v.ID))
				}
			})
		},
	}
	cmd.Flags().StringVar(&put.ClientID, "client-id", "", "id of our OAuth client at the provider")
	cmd.Flags().BoolVar(&secretIn, "client-secret-stdin", false, "read its secret from standard input")
	cmd.Flags().StringVar(&put.ClientFor, "client-for", "", "whom to sign in with it: an organization's id, all, or none (default: the operator's organization)")
	cmd.Flags().BoolVar(&put.AcceptShared, "accept-shared-client", false, "with --client-for all: you know what one client for all organizations means")
	cmd.Flags().Int64Var(&put.IfVersion, "if-version", 0, "only if this is the stored version, as ambit provider show tells it")
	return cmd
}

// storedClient is the client id that a provider has. The first time there is
// none, and the person learns what to register.
func storedClient(ctx context.Context, cl *client.Client, rec provider.Record, redirect string) (string, error) {
	v, err := cl.Provider(ctx, rec.ID)
	if err != nil && !client.Is(err, "not_found") {
		return "", err
	}
	if v.ClientID == "" && redirect == "" {
		return "", fault.New(fault.Invalid, "client_id_missing", rec.Name+" needs an access key of yours.").
			WithHint("Give its id with --client-id, and its secret with --client-secret-stdin.")
	}
	if v.ClientID == "" {
		return "", fault.New(fault.Invalid, "client_id_missing", rec.Name+" needs an OAuth client of yours.").
			WithHint("Register one there with the redirect URI\n       "+redirect+"\n       and give its --client-id, and its secret with --client-secret-stdin.").
			With("redirect_uri", redirect)
	}
	return v.ClientID, nil
}

// redirectURI is where an OAuth provider sends people back to.
func (c *command) redirectURI(ctx context.Context, cl *client.Client, rec provider.Record) (string, error) {
	if rec.Auth != provider.OAuth2 {
		return "", nil
	}
	// The caller's own environment, unless they named another.
	env, err := c.environmentID(ctx, cl)
	if err != nil {
		return "", err
	}
	base, err := url.Parse(cl.URL())
	if err != nil {
		return "", fmt.Errorf("reading the server's address: %w", err)
	}
	return base.JoinPath(credential.CallbackPath(id.Environment(env), rec.ID)).String(), nil
}

func (c *command) environmentID(ctx context.Context, cl *client.Client) (string, error) {
	if strings.HasPrefix(c.environment, "env_") {
		return c.environment, nil
	}
	if c.environment == "" {
		who, err := cl.Whoami(ctx)
		return who.EnvironmentID, err
	}
	envs, err := cl.Environments(ctx)
	for _, e := range envs.Data {
		if e.Name == c.environment {
			return e.ID, nil
		}
	}
	return "", err
}

func (c *command) providerTemplate() *cobra.Command {
	var sets []string
	cmd := &cobra.Command{
		Use: "template [NAME]", Short: "Make a record from a template or the catalogue; without a name, list the templates",
		Long: "Fill in a template, or an entry of the catalogue, and print the record, for `ambit provider add`. Without a name the\n" +
			"templates are listed, with what they take. It takes no server.",
		Example: "  ambit provider template\n" +
			"  ambit provider template zendesk --set subdomain=acme > zendesk.yaml\n" +
			"  ambit provider template custom_api_key --set id=acme --set name=Acme --set api_base=https://api.acme.example/v1 > acme.yaml",
		Args: upTo(1, "at most one argument: the template's name"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			all, _ := provider.Templates()
			if len(args) > 0 {
				all = nil
			}
			var out []string
			for _, t := range all {
				out = append(out, t.ID+"\t"+t.Name)
			}
			known, _ := provider.Entries()
			for _, e := range known {
				if len(args) == 0 {
					out = append(out, e.ID+"\t"+e.Name)
				}
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			params, err := pairs("--set", sets)
			if err != nil {
				return err
			}
			all, err := provider.Templates()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				if len(sets) > 0 {
					return usageError{errors.New("--set fills in a template: name it")}
				}
				return c.listTemplates(all)
			}
			t, err := findTemplate(all, args[0])
			if err != nil {
				return err
			}
			rec, err := t.Record(params)
			if err != nil {
				return err
			}
			text := string(rec.Source())
			return c.show(map[string]string{"yaml": text}, func() { fmt.Fprintln(c.stdout, strings.TrimRight(text, "\n")) })
		},
	}
	cmd.Flags().StringArrayVar(&sets, "set", nil, "fill in NAME=VALUE (repeatable)")
	return cmd
}

func findTemplate(all []provider.Template, name string) (provider.Template, error) {
	if at := slices.IndexFunc(all, func(t provider.Template) bool { return t.ID == name }); at >= 0 {
		return all[at], nil
	}
	e, err := provider.FindEntry(name)
	if err != nil {
		return provider.Template{}, fault.New(fault.NotFound, "not_found", "No such template, and nothing of that name in the catalogue.").
			WithHint("See: ambit provider template, ambit provider catalog")
	}
	return e.Template, nil
}

// pairs reads NAME=VALUE.
func pairs(flag string, list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, s := range list {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return nil, usageError{fmt.Errorf("%s takes NAME=VALUE", flag)}
		}
		if _, twice := out[name]; twice {
			return nil, usageError{fmt.Errorf("%s names %s twice", flag, plain(name))}
		}
		out[name] = value
	}
	return out, nil
}

// listTemplates prints what there is, in the shape of the API.
func (c *command) listTemplates(all []provider.Template) error {
	page := client.Page[client.Template]{}
	for _, t := range all {
		out := client.Template{ID: t.ID, Name: t.Name, Description: t.Description}
		for _, p := range t.Params {
			out.Params = append(out.Params, client.TemplateParam(p))
		}
		page.Data = append(page.Data, out)
	}
	return c.show(page, func() {
		for _, t := range page.Data {
			c.say("%s: %s", plain(t.ID), plain(t.Description))
			var rows [][]string
			for _, p := range t.Params {
				rows = append(rows, paramRow(p))
			}
			c.table([]string{"  NAME", "KIND", "", "WHAT"}, rows, "")
			c.say("")
		}
	})
}

func paramRow(p client.TemplateParam) []string {
	need := "optional"
	switch {
	case strings.TrimSpace(p.Default) != "":
		need = "default " + p.Default
	case p.Required:
		need = "required"
	case p.Default != "":
		need = "default: a blank"
	}
	what := strings.TrimSuffix(p.Title+": "+p.Help, ": ")
	switch {
	case len(p.Options) > 0:
		what += " (" + strings.Join(p.Options, ", ") + ")"
	case p.Example != "":
		what += " (such as " + p.Example + ")"
	}
	return []string{"  " + p.Name, p.Kind, need, what}
}

func (c *command) providerHook() *cobra.Command {
	var remove bool
	cmd := &cobra.Command{
		Use: "hook PROVIDER", Short: "Take a provider's notices that an access ended there",
		Long: "Store the secret with which a provider signs its notices, and print the URL to enter at the provider. The secret comes from\n" +
			"standard input. An account of which the provider then says that its access was revoked must be connected again.",
		Example: "  ambit provider hook slack < signing-secret.txt\n  ambit provider hook slack --remove",
		Args:    takes(1, "one argument: the provider's id"), ValidArgsFunction: c.completion(c.providerIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			if remove {
				if err := cl.DeleteProviderHook(ctx, args[0]); err != nil {
					return err
				}
				return c.show(map[string]any{"id": args[0], "removed": true}, func() { c.say("No notices of %s are taken any more.", plain(args[0])) })
			}
			key, err := c.readSecret(ctx, "Signing secret")
			if err != nil {
				return err
			}
			v, err := cl.SetProviderHook(ctx, args[0], key)
			if err != nil {
				return err
			}
			return c.show(v, func() { c.say("%s", v.URL) })
		}),
	}
	cmd.Flags().BoolVar(&remove, "remove", false, "take no notices any more")
	return cmd
}

func (c *command) providerRemove() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "remove PROVIDER", Short: "Remove a provider that has no live connections",
		Args: takes(1, "one argument: the provider's id"), ValidArgsFunction: c.completion(c.providerIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			if err := c.confirm(ctx, yes, "Remove the provider "+args[0]+", with its record and client secret?"); err != nil {
				return err
			}
			if err := cl.DeleteProvider(ctx, args[0]); err != nil {
				return err
			}
			return c.show(map[string]any{"id": args[0], "removed": true}, func() { c.say("Removed %s.", plain(args[0])) })
		}),
	}
	yesFlag(cmd, &yes)
	return cmd
}

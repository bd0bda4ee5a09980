package cli

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/intake"
	"github.com/ambit-dev/ambit/internal/intake/awssm"
	"github.com/ambit-dev/ambit/internal/intake/file"
	"github.com/ambit-dev/ambit/internal/intake/kv"
	"github.com/ambit-dev/ambit/internal/intake/workos"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/secret"
)

func (c *command) importCommand() *cobra.Command {
	// Without a source it is about what a scan finds, which is what most people come for.
	cmd := c.importFindings("import")
	cmd.PersistentFlags().StringVar(&c.environment, "env", "", "environment, by id or name (default: your own, or the API key's)")
	_ = cmd.RegisterFlagCompletionFunc("env", c.completion(c.environments, -1))
	cmd.Short = "Import: bring secrets that lie in files or are kept elsewhere into the vault"
	cmd.AddCommand(c.importFindings("findings"), c.importVault(), c.importAWS(), c.importWorkOS(), c.importAccounts(),
		c.importFile("dotenv", "the variables of a dotenv file", file.Dotenv), c.importFile("infisical", "an export of Infisical (JSON, YAML, CSV or dotenv)", file.Infisical),
		c.importFile("1password", "an export of 1Password (1PUX or CSV): what it hides", file.OnePassword))
	return cmd
}

// intakeFlags are those of every import.
type intakeFlags struct {
	mapping, prefix, org string
	apply, current       bool
}

const intakeHelp = "\n\nWithout --apply nothing is changed: what would be stored is listed. It can be cut off and run again at any time; it goes on\n" +
	"where it was, and takes newer versions too. The source is only read. --mapping names a YAML file that says which path comes\n" +
	"under which name and key context (docs/import.md)."

func (f *intakeFlags) add(c *command, cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.mapping, "mapping", "", "YAML file: which path becomes which name and key context")
	cmd.Flags().StringVar(&f.prefix, "prefix", "", "put this before each name, such as old/")
	cmd.Flags().BoolVar(&f.apply, "apply", false, "store what is missing")
	cmd.Flags().BoolVar(&f.current, "current-only", false, "take the current version of each secret, and no older one")
	c.orgFlag(cmd, &f.org, "organization whose they become")
	cmd.Long += intakeHelp
}

func (f *intakeFlags) plan() (intake.Mapping, error) {
	if f.mapping != "" && f.prefix+f.org != "" {
		return intake.Mapping{}, usageError{errors.New("a mapping says names and contexts itself: leave out --prefix and --org")}
	}
	if f.mapping == "" {
		context := map[string]string{}
		if f.org != "" {
			context["organization_id"] = f.org
		}
		return intake.Everywhere(f.prefix, context), nil
	}
	doc, err := os.ReadFile(f.mapping)
	if err != nil {
		return intake.Mapping{}, fault.New(fault.NotFound, "mapping_missing", "The mapping cannot be read: "+f.mapping+".").WithCause(err)
	}
	return intake.ParseMapping(doc)
}

func (c *command) importVault() *cobra.Command {
	var f intakeFlags
	cfg := kv.Config{}
	cmd := &cobra.Command{
		Use: "vault [PATH]", Short: "Import a key-value engine of HashiCorp Vault or OpenBao",
		Long: "Import the secrets of a key-value engine (version 1 or 2, with all versions), or those below PATH in it. VAULT_ADDR,\n" +
			"VAULT_TOKEN, VAULT_NAMESPACE and VAULT_CACERT say which server, as for the vault command.",
		Example: "  ambit import vault --mount secret\n  ambit import vault prod --mount secret --fields --mapping mapping.yaml --apply",
		Args:    upTo(1, "at most one argument: the path below the engine"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg.Getenv = func(name string) string { return c.env[name] }
			if len(args) == 1 {
				cfg.Prefix = args[0]
			}
			return c.intake(cmd.Context(), f, func(ctx context.Context) (intake.Source, error) { return kv.Open(ctx, cfg) })
		},
	}
	cmd.Flags().StringVar(&cfg.Mount, "mount", "secret", "where the engine is mounted")
	cmd.Flags().IntVar(&cfg.Version, "kv", 0, "version of the engine, 1 or 2 (default: ask the server)")
	cmd.Flags().BoolVar(&cfg.Fields, "fields", false, "make each field a secret of its own, instead of one JSON text")
	f.add(c, cmd)
	return cmd
}

func (c *command) importAWS() *cobra.Command {
	var f intakeFlags
	var cfg awssm.Config
	cmd := &cobra.Command{
		Use: "aws [PREFIX]", Short: "Import AWS Secrets Manager",
		Long:    "Import the secrets of an AWS account in one region, or those whose names begin with PREFIX, with the versions that AWS\nstill has. Credentials are found as by the aws command.",
		Example: "  ambit import aws prod/ --region eu-central-1 --apply",
		Args:    upTo(1, "at most one argument: how names begin"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				cfg.Prefix = args[0]
			}
			return c.intake(cmd.Context(), f, func(ctx context.Context) (intake.Source, error) { return awssm.Open(ctx, cfg) })
		},
	}
	cmd.Flags().StringVar(&cfg.Region, "region", "", "AWS region (default: as the aws command finds it)")
	f.add(c, cmd)
	return cmd
}

func (c *command) importWorkOS() *cobra.Command {
	var f intakeFlags
	var base string
	cmd := &cobra.Command{
		Use: "workos", Short: "Import the objects of a WorkOS Vault",
		Long: "Import the objects of a WorkOS Vault with their key contexts. WORKOS_API_KEY is a key of its environment. WorkOS gives out\n" +
			"current values only.",
		Args: takes(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.intake(cmd.Context(), f, func(context.Context) (intake.Source, error) { return c.workosAt(base) })
		},
	}
	cmd.Flags().StringVar(&base, "url", "", "address of the API (default: WorkOS' own)")
	f.add(c, cmd)
	return cmd
}

func (c *command) workosAt(base string) (*workos.Source, error) {
	policy := outbound.Policy{}
	if u, err := url.Parse(base); base != "" && err == nil {
		policy.Allow = []string{u.Host} // whoever runs this names it
	}
	out, err := outbound.New(policy)
	if err != nil {
		return nil, err
	}
	return workos.Open(workos.Config{BaseURL: base, Key: secret.FromString(c.env["WORKOS_API_KEY"]), Out: out})
}

func (c *command) importAccounts() *cobra.Command {
	var base string
	var apply bool
	var names []string
	cmd := &cobra.Command{
		Use: "workos-accounts", Short: "Import the accounts that people have connected at WorkOS",
		Long: "Connect here what users and organizations have connected at WorkOS (Pipes). They keep the ids that WorkOS has for\n" +
			"them, which is how an application asks for their accounts here too. WORKOS_API_KEY is a key of its environment.\n" +
			"Without --apply the lists are read, and nothing else.\n\n" +
			"WorkOS gives out API keys and access tokens, and no refresh tokens and client secrets: an account of OAuth works until\n" +
			"its token ends, then its owner connects it anew. What is connected already stays, so it can be cut off and run again at\n" +
			"any time.",
		Example: "  ambit import workos-accounts\n  ambit import workos-accounts --connect github=our_github --apply",
		Args:    takes(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			providers, err := pairs("--connect", names)
			if err != nil {
				return err
			}
			src, err := c.workosAt(base)
			if err != nil {
				return err
			}
			cl, err := c.importing(cmd.Context())
			if err != nil {
				return err
			}
			return c.bringAccounts(cmd.Context(), workos.AccountPlan{Source: src, To: cl, Providers: providers, Apply: apply})
		},
	}
	cmd.Flags().StringVar(&base, "url", "", "address of the API (default: WorkOS' own)")
	cmd.Flags().BoolVar(&apply, "apply", false, "connect what is missing")
	cmd.Flags().StringArrayVar(&names, "connect", nil, "an integration that is named otherwise here: SLUG=PROVIDER (repeatable)")
	return cmd
}

func (c *command) bringAccounts(ctx context.Context, p workos.AccountPlan) error {
	all, sum, err := imported(c, "account", "accounts", func(done func(workos.AccountResult)) (workos.AccountSummary, error) {
		p.Done = done
		return workos.ImportAccounts(ctx, p)
	})
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b workos.AccountResult) int {
		return cmp.Or(strings.Compare(a.Organization, b.Organization), strings.Compare(a.User, b.User), strings.Compare(a.Provider, b.Provider))
	})
	err = c.show(map[string]any{"source": p.Source.Name(), "applied": p.Apply, "results": some(all), "summary": sum}, func() {
		var rows [][]string
		for _, r := range all {
			if r.State != intake.Same {
				rows = append(rows, []string{first(r.User, "-"), first(r.Organization, "-"), r.Provider, r.Method, string(r.State), r.Message})
			}
		}
		c.table([]string{"USER", "ORGANIZATION", "PROVIDER", "KIND", "STATE", "WHY"}, rows, "Nothing to do: all of them are connected.")
		n, did := sum.States[intake.Would], "to connect; --apply does it"
		if p.Apply {
			n, did = sum.States[intake.Taken], "connected"
		}
		c.say("\n%s in %s: %d the same, %d skipped, %d %s.", count(int64(sum.Accounts), "account", "accounts"), plain(p.Source.Name()), sum.States[intake.Same], sum.States[intake.Skipped], n, did)
	})
	if bad := sum.Bad(); err == nil && bad > 0 {
		return incomplete(count(int64(bad), "account was", "accounts were") + " not connected.")
	}
	return err
}

func (c *command) importFile(kind, what string, open func(string) (*file.Source, error)) *cobra.Command {
	var f intakeFlags
	cmd := &cobra.Command{
		Use: kind + " FILE", Short: "Import " + what, Long: "Import " + what + ".", Args: takes(1, "one argument: the file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.intake(cmd.Context(), f, func(context.Context) (intake.Source, error) { return open(args[0]) })
		},
	}
	f.add(c, cmd)
	return cmd
}

// intake runs an import and says what became of each path.
// importing is a client for an import, which makes calls by the hundred: it waits where the
// server bounds how many.
func (c *command) importing(ctx context.Context) (*client.Client, error) {
	cl, err := c.api(ctx)
	if err != nil {
		return nil, err
	}
	return cl.Patient(), nil
}

func (c *command) intake(ctx context.Context, f intakeFlags, open func(context.Context) (intake.Source, error)) error {
	mapping, err := f.plan()
	if err != nil {
		return err
	}
	cl, err := c.importing(ctx)
	if err != nil {
		return err
	}
	src, err := open(ctx)
	if err != nil {
		return err
	}
	all, sum, err := imported(c, "secret", "secrets", func(done func(intake.Result)) (intake.Summary, error) {
		return intake.Run(ctx, intake.Plan{Source: src, Mapping: mapping, To: cl, Apply: f.apply, CurrentOnly: f.current, Done: done})
	})
	if err != nil {
		return err
	}
	if err := c.showIntake(src.Name(), all, sum, f.apply); err != nil {
		return err
	}
	if bad := sum.Bad(); bad > 0 {
		return incomplete(count(int64(bad), "secret was", "secrets were") + " not imported.")
	}
	return nil
}

// imported runs an import and gives what became of each thing that it looked at. People
// see meanwhile how many those are, and how many they were if it broke off.
func imported[R, S any](c *command, one, many string, run func(done func(R)) (S, error)) (all []R, sum S, err error) {
	shows := c.progress()
	sum, err = run(func(r R) {
		all = append(all, r)
		shows.at(int64(len(all)), one+" looked at", many+" looked at")
	})
	shows.end()
	if err != nil && len(all) > 0 {
		c.note("%s looked at before that. Run it again to go on.", count(int64(len(all)), one+" was", many+" were"))
	}
	return all, sum, err
}

func incomplete(message string) error {
	return fault.New(fault.Conflict, "import_incomplete", message).WithHint("The list says why. Mend that and run it again: it goes on where it was.")
}

// showIntake lists what became of each path: to people only what is not the same as
// it was.
func (c *command) showIntake(source string, all []intake.Result, sum intake.Summary, applied bool) error {
	slices.SortFunc(all, func(a, b intake.Result) int { return strings.Compare(a.Path, b.Path) })
	return c.show(map[string]any{"source": source, "applied": applied, "results": some(all), "summary": sum}, func() {
		var rows [][]string
		for _, r := range all {
			if r.State != intake.Same {
				rows = append(rows, []string{r.Path, first(r.Name, "-"), string(r.State), count(int64(r.New), "version", "versions"), r.Message})
			}
		}
		c.table([]string{"FROM", "TO", "STATE", "NEW", "WHY"}, rows, "Nothing to do: the vault has all of it.")
		stored := "to store; --apply does it"
		if applied {
			stored = "stored"
		}
		c.say("\n%s in %s: %d the same, %d skipped, %s %s.", count(int64(sum.Paths), "secret", "secrets"), plain(source), sum.States[intake.Same], sum.States[intake.Skipped],
			count(int64(sum.New), "version", "versions"), stored)
	})
}

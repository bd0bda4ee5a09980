package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
)

func (c *command) agentCommand() *cobra.Command {
	return c.group("agent", "Agents: who they are, and the most they may be granted",
		c.agentList(), c.agentRegister(), c.agentShow(), c.agentCeiling(), c.agentMute(), c.agentUnmute(), c.agentDisable(), c.agentEnable(), c.agentRotate(), c.agentKeys(), c.agentSetup())
}

func (c *command) agentList() *cobra.Command {
	var p paging
	var f client.AgentFilter
	cmd := &cobra.Command{
		Use: "list", Short: "List agents, newest first", Args: takes(0, "no arguments"),
		Example: "  ambit agent list\n  ambit agent list --owner user_… --json",
		RunE: c.with(func(ctx context.Context, cl *client.Client, _ []string) error {
			page, err := pages(ctx, p, func(ctx context.Context, q client.Paging) (client.Page[client.Agent], error) {
				f.Limit, f.After = q.Limit, q.After
				return cl.Agents(ctx, f)
			})
			if err != nil {
				return err
			}
			return showPage(c, page, []string{"AGENT", "KIND", "STATE", "OWNER", "LAST SEEN", "ID"}, "No agents. Connect one (docs/quickstart.md), or: ambit agent register",
				func(a client.Agent, now time.Time) []string {
					return []string{a.Label, a.Kind, agentState(a), a.OwnerID, when(a.LastSeenAt, now), a.ID}
				})
		}),
	}
	c.orgFlag(cmd, &f.OrganizationID, "of this organization only")
	cmd.Flags().StringVar(&f.OwnerID, "owner", "", "of this user only")
	c.completes(cmd, "owner", c.userIDs)
	p.flags(cmd)
	return cmd
}

func agentState(a client.Agent) string {
	switch {
	case !a.DisabledAt.IsZero():
		return "disabled"
	case a.MutedUntil.After(time.Now()):
		return "muted"
	}
	return "enabled"
}

func (c *command) agentRegister() *cobra.Command {
	var n client.NewAgent
	var ceiling client.Ceiling
	var file, keys string
	var workload workloadFlags
	cmd := &cobra.Command{
		Use: "register NAME", Short: "Register an agent with client credentials",
		Long: "Register an agent that has no browser: it gets an OAuth client id and secret for the client credentials grant.\n" +
			"They say who it is, and open nothing: access is asked for, and approved, session by session.\n\n" +
			"Agents with a browser, such as Claude Code, register themselves; see docs/quickstart.md.\n" +
			"This takes an API key. As a person, use the page that the command names.",
		Example: "  ambit agent register nightly-report --owner user_… --secret-file report.secret\n" +
			"  ambit agent register triage --kind autonomous --provider acme --effect read\n" +
			"  ambit agent register deploy --owner user_… --issuer https://token.actions.githubusercontent.com --subject repo:acme/app:environment:production",
		Args: takes(1, "one argument: the agent's name"),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			n.Name = args[0]
			var err error
			if n.Keys, err = publicKeys(keys); err != nil {
				return err
			}
			n.Workload = workload.value()
			if n.OrganizationID, err = c.organization(ctx, cl, n.OrganizationID); err != nil {
				return err
			}
			if n.OwnerID == "" {
				who, err := cl.Whoami(ctx)
				if err != nil {
					return err
				}
				if who.Kind != "user" {
					return usageError{errors.New("--owner names the user who answers for the agent, and for whom a delegated one acts")}
				}
				n.OwnerID = who.ID
			}
			if len(ceiling.Providers)+len(ceiling.Effects) > 0 {
				n.Ceiling = &ceiling
			}
			c.noteUnknown(ctx, cl, ceiling.Providers)
			return c.showMade(file, func() (client.MadeAgent, error) { return cl.CreateAgent(ctx, n) })
		}),
	}
	c.orgFlag(cmd, &n.OrganizationID, "organization (default: your only one)")
	n.Kind = "delegated"
	oneOf(cmd, &n.Kind, "kind", "delegated (acts for its owner) or autonomous", "delegated", "autonomous")
	cmd.Flags().StringVar(&n.OwnerID, "owner", "", "user who answers for it (default: you)")
	c.completes(cmd, "owner", c.userIDs)
	c.ceilingFlags(cmd, &ceiling)
	cmd.Flags().StringVar(&file, "secret-file", "", "write the client secret to this new file (mode 0600), and do not show it")
	cmd.Flags().StringVar(&keys, "keys", "", "a file with a JWK Set of public keys, or the https address of one: it signs with them and gets no secret")
	cmd.MarkFlagsMutuallyExclusive("keys", "secret-file")
	workload.flags(cmd)
	cmd.MarkFlagsMutuallyExclusive("issuer", "secret-file")
	return cmd
}

// publicKeys reads the value of --keys: an address, or a file.
func publicKeys(v string) (string, error) {
	if v == "" || strings.Contains(v, "://") {
		return v, nil
	}
	text, err := os.ReadFile(v)
	if err != nil {
		return "", usageError{err}
	}
	return string(text), nil
}

// workloadFlags say whose tokens prove an agent that holds no secret.
type workloadFlags struct{ client.Workload }

func (w *workloadFlags) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&w.Issuer, "issuer", "", "a platform whose tokens prove the agent: their iss")
	cmd.Flags().StringVar(&w.Subject, "subject", "", "of these tokens, the sub that they must have, whole (or a SPIFFE id)")
	cmd.Flags().StringToStringVar(&w.Claims, "claim", nil, "a further claim, NAME=VALUE, that must be just so (repeatable)")
}

func (w *workloadFlags) value() *client.Workload {
	if w.Issuer == "" && w.Subject == "" && len(w.Claims) == 0 {
		return nil
	}
	return &w.Workload
}

func (c *command) agentKeys() *cobra.Command {
	var workload workloadFlags
	cmd := &cobra.Command{
		Use: "keys AGENT [FILE|URL]", Short: "Replace what an agent proves itself with: public keys, or a platform's tokens",
		Long: "Replace the public keys that an agent signs its assertions with (private_key_jwt): a file with a JWK Set, or the https\n" +
			"address of one. An agent with a secret changes over to keys and loses it. Tokens that it has end. To change over without a\n" +
			"gap, give a set with the old key and the new one first. As a person, it takes your passkey: the command names the page.\n\n" +
			"With --issuer and --subject (or --claim), tokens of a platform prove it instead: Kubernetes, GitHub Actions, SPIFFE.\n" +
			"The keys are then the platform's, and needed only if its issuer publishes none.",
		Example: "  ambit agent keys agent_… keys.json\n  ambit agent keys agent_… https://ci.example.com/jwks.json\n" +
			"  ambit agent keys agent_… --issuer https://token.actions.githubusercontent.com --claim repository_id=123456 --claim environment=production\n" +
			"  ambit agent keys agent_… cluster-jwks.json --issuer https://kubernetes.default.svc --subject system:serviceaccount:jobs:report",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 2 || len(args) == 1 && workload.value() != nil {
				return nil
			}
			return usageError{errors.New("it takes the agent's id, and a file or an address with keys, or --issuer")}
		}, ValidArgsFunction: c.completion(c.agentIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			keys, err := publicKeys(strings.Join(args[1:], ""))
			if err != nil {
				return err
			}
			a, err := cl.Agent(ctx, args[0])
			if err != nil {
				return err
			}
			if a, err = cl.SetAgentKeys(ctx, a.ID, a.Version, keys, workload.value()); err != nil {
				return err
			}
			return c.showAgent(a)
		}),
	}
	workload.flags(cmd)
	return cmd
}

func (c *command) ceilingFlags(cmd *cobra.Command, into *client.Ceiling) {
	cmd.Flags().StringSliceVar(&into.Providers, "provider", nil, "ceiling: this provider (repeatable; default: all)")
	c.completes(cmd, "provider", c.providerIDs)
	c.effectsFlag(cmd, &into.Effects, "ceiling: this effect (repeatable; default: all)")
}

// noteUnknown tells of providers in a ceiling that are not there: the ceiling may
// be meant for later, and more often a name is misspelt.
func (c *command) noteUnknown(ctx context.Context, cl *client.Client, providers []string) {
	for _, p := range providers {
		if _, err := cl.Provider(ctx, p); client.Is(err, "not_found") {
			c.note("There is no provider %s yet. See: ambit provider list", plain(p))
		}
	}
}

// showMade makes a client secret and shows it, this once, or puts it into a file.
func (c *command) showMade(path string, make func() (client.MadeAgent, error)) error {
	m, err := madeOnce(c, path, make, func(m *client.MadeAgent) *string { return &m.ClientSecret }, func(m client.MadeAgent) string {
		return fmt.Sprintf("The agent %s is there, but its secret is lost. Make another: ambit agent rotate %s", m.ID, m.ID)
	})
	if err != nil {
		return err
	}
	m.Ceiling = someCeiling(m.Ceiling)
	return c.show(m, func() {
		c.facts("agent", m.Label, "id", m.ID, "client id", m.ClientID, "client secret", m.ClientSecret)
		if m.ClientSecret == "" && path == "" {
			return
		}
		if path != "" {
			c.say("\nThe client secret is in %s.", path)
		} else {
			c.say("\nThe client secret is shown this once.")
		}
	})
}

func someCeiling(v client.Ceiling) client.Ceiling {
	return client.Ceiling{Providers: some(v.Providers), Effects: some(v.Effects)}
}

func (c *command) agentShow() *cobra.Command {
	return &cobra.Command{
		Use: "show AGENT", Short: "Show one agent", Args: takes(1, "one argument: the agent's id or name"), ValidArgsFunction: c.completion(c.agentIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			agent, err := byName(ctx, "agent", args[0], func(ctx context.Context, p client.Paging) (client.Page[client.Agent], error) {
				return cl.Agents(ctx, client.AgentFilter{Limit: p.Limit, After: p.After})
			}, func(a client.Agent) (string, string) { return a.ID, a.Label })
			if err != nil {
				return err
			}
			a, err := cl.Agent(ctx, agent)
			if err != nil {
				return err
			}
			return c.showAgent(a)
		}),
	}
}

func (c *command) showAgent(a client.Agent) error {
	a.Ceiling = someCeiling(a.Ceiling)
	return c.show(a, func() {
		now := time.Now()
		c.facts("agent", a.Label, "id", a.ID, "kind", a.Kind, "state", agentState(a), "name vouched for", yesNo(a.Verified), "owner", a.OwnerID,
			"organization", a.OrganizationID, "client id", a.ClientID, "most providers", orAll(a.Ceiling.Providers), "most effects", orAll(a.Ceiling.Effects),
			"last seen", stamp(a.LastSeenAt, now), "created", stamp(a.CreatedAt, now), "disabled", stamp(a.DisabledAt, now), "muted until", stamp(a.MutedUntil, now))
	})
}

func (c *command) agentCeiling() *cobra.Command {
	var ceiling client.Ceiling
	var clear bool
	cmd := &cobra.Command{
		Use: "ceiling AGENT", Short: "Set the most that an agent may be granted",
		Long: "Set the most that an agent may ever be granted, whatever a person approves. The ceiling is replaced as a whole:\n" +
			"a kind that is not given has no limit. It holds at once, in running sessions too. Allowing more takes your passkey: the\n" +
			"command names the page.",
		Example: "  ambit agent ceiling agent_… --provider acme --effect read --effect write\n  ambit agent ceiling agent_… --clear",
		Args:    takes(1, "one argument: the agent's id"), ValidArgsFunction: c.completion(c.agentIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			if clear == (len(ceiling.Providers)+len(ceiling.Effects) > 0) {
				return usageError{errors.New("give --provider or --effect, or --clear for no limit")}
			}
			a, err := cl.Agent(ctx, args[0])
			if err != nil {
				return err
			}
			c.noteUnknown(ctx, cl, ceiling.Providers)
			if a, err = cl.SetCeiling(ctx, a.ID, a.Version, ceiling); err != nil {
				return err
			}
			return c.showAgent(a)
		}),
	}
	c.ceilingFlags(cmd, &ceiling)
	cmd.Flags().BoolVar(&clear, "clear", false, "no limit")
	return cmd
}

func (c *command) agentMute() *cobra.Command {
	var length time.Duration
	cmd := &cobra.Command{
		Use: "mute AGENT", Short: "Silence an agent's requests for a time",
		Long: "Silence an agent's requests for a time: they are refused and nobody is asked. Sessions that it has go on; what waits\n" +
			"already can still be decided. `ambit agent unmute` ends it early, and `ambit agent list` shows who is muted.",
		Example: "  ambit agent mute agent_… --for 8h",
		Args:    takes(1, "one argument: the agent's id"), ValidArgsFunction: c.completion(c.enabledAgents, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			a, err := cl.MuteAgent(ctx, args[0], length)
			if err != nil {
				return err
			}
			return c.showAgent(a)
		}),
	}
	cmd.Flags().DurationVar(&length, "for", time.Hour, "how long, from 1m to 720h")
	return cmd
}

func (c *command) agentUnmute() *cobra.Command {
	return &cobra.Command{
		Use: "unmute AGENT", Short: "Let a muted agent ask again",
		Args: takes(1, "one argument: the agent's id"), ValidArgsFunction: c.completion(c.agentIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			a, err := cl.UnmuteAgent(ctx, args[0])
			if err != nil {
				return err
			}
			return c.showAgent(a)
		}),
	}
}

func (c *command) agentDisable() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "disable AGENT", Short: "Shut an agent out: its tokens and sessions end at once",
		Long: "Shut an agent out: its tokens and sessions end at once, and stay ended. `ambit agent enable` lets it ask for new ones.",
		Args: takes(1, "one argument: the agent's id"), ValidArgsFunction: c.completion(c.enabledAgents, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			if err := c.ask(ctx, yes, "End all tokens and sessions of "+args[0]+"?", "the tokens and sessions that it ends stay ended, also after ambit agent enable"); err != nil {
				return err
			}
			a, err := cl.DisableAgent(ctx, args[0])
			if err != nil {
				return err
			}
			return c.showAgent(a)
		}),
	}
	yesFlag(cmd, &yes)
	return cmd
}

func yesFlag(cmd *cobra.Command, into *bool) {
	cmd.Flags().BoolVarP(into, "yes", "y", false, "do it without asking")
}

func (c *command) agentEnable() *cobra.Command {
	return &cobra.Command{
		Use: "enable AGENT", Short: "Let a disabled agent get tokens again",
		Long: "Let a disabled agent get tokens again. What was ended stays ended. It takes your passkey: the command names the page.",
		Args: takes(1, "one argument: the agent's id"), ValidArgsFunction: c.completion(c.disabledAgents, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			a, err := cl.EnableAgent(ctx, args[0])
			if err != nil {
				return err
			}
			return c.showAgent(a)
		}),
	}
}

func (c *command) agentRotate() *cobra.Command {
	var yes bool
	var file string
	var overlap time.Duration
	cmd := &cobra.Command{
		Use: "rotate AGENT", Short: "Replace an agent's client secret",
		Long: "Replace an agent's client secret. The old one and the tokens that it got stop working at once, or with --overlap the old one\n" +
			"counts beside the new one for that time. This takes an API key; as a person, use the page that the command names.",
		Example: "  ambit agent rotate agent_… --overlap 24h --secret-file new.secret",
		Args:    takes(1, "one argument: the agent's id"), ValidArgsFunction: c.completion(c.agentIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			if err := c.confirm(ctx, yes, "Replace the client secret of "+args[0]+"?"); err != nil {
				return err
			}
			return c.showMade(file, func() (client.MadeAgent, error) { return cl.RotateAgentSecret(ctx, args[0], overlap) })
		}),
	}
	yesFlag(cmd, &yes)
	cmd.Flags().DurationVar(&overlap, "overlap", 0, "how long the old secret counts as well, up to 168h")
	cmd.Flags().StringVar(&file, "secret-file", "", "write the client secret to this new file (mode 0600), and do not show it")
	return cmd
}

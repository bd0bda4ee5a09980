package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

func (c *command) policyCommand() *cobra.Command {
	return c.group("policy", "Policies and settings: what an organization permits on top of approvals",
		c.policyShow(), c.policySet(), c.policyTest(), c.policySchema(), c.settingsShow(), c.settingsSet())
}

func (c *command) policyShow() *cobra.Command {
	var org string
	cmd := &cobra.Command{
		Use: "show", Short: "Print an organization's policies", Args: takes(0, "no arguments"),
		RunE: c.with(func(ctx context.Context, cl *client.Client, _ []string) error {
			org, err := c.organization(ctx, cl, org)
			if err != nil {
				return err
			}
			p, err := cl.Policy(ctx, org)
			if err != nil {
				return err
			}
			return c.show(p, func() {
				if p.Policy == "" {
					c.say("No policies: grants decide alone.")
					return
				}
				c.say("%s", strings.TrimRight(plainLines(p.Policy), "\n"))
			})
		}),
	}
	c.orgFlag(cmd, &org, "organization (default: your only one)")
	return cmd
}

func (c *command) policySet() *cobra.Command {
	var org string
	var dry bool
	cmd := &cobra.Command{
		Use: "set FILE", Short: "Replace an organization's policies with those of a file",
		Long: "Replace an organization's policies with those of a file. They count from the next call on; an empty file takes all away.\n" +
			"--dry-run changes nothing and says what they would have decided on the calls since yesterday.\n" +
			"This takes an API key. As a person, use the page that the command names.",
		Example: "  ambit policy set office.cedar --dry-run", Args: takes(1, "one argument: a file"),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return usageError{err}
			}
			if _, err := policy.ParseRules(1, string(text)); err != nil {
				return err
			}
			org, err := c.organization(ctx, cl, org)
			if err != nil {
				return err
			}
			if dry {
				got, err := cl.TryPolicy(ctx, org, string(text), time.Time{})
				if err != nil {
					return err
				}
				got.Changed = some(got.Changed)
				return c.show(got, func() { c.sayTrial(got) })
			}
			now, err := cl.Policy(ctx, org)
			if err != nil {
				return err
			}
			now.Policy = string(text)
			if now, err = cl.SetPolicy(ctx, org, now); err != nil {
				return err
			}
			return c.show(now, func() { c.say("Set. They are version %d.", now.Version) })
		}),
	}
	c.orgFlag(cmd, &org, "organization (default: your only one)")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "change nothing; say what they would have decided since yesterday")
	return cmd
}

func (c *command) sayTrial(t client.PolicyTrial) {
	more := ""
	if t.More {
		more = " (the newest)"
	}
	c.say("%d calls%s: %d allowed, %d refused, %d not known, since arguments are not on record.", t.Calls, more, t.Allowed, t.Denied, t.Unknown)
	var rows [][]string
	for _, x := range t.Changed {
		rows = append(rows, []string{stamp(x.At, time.Now()), x.Tool, x.Effect, x.Was, x.Now, x.Policy, x.EventID})
	}
	c.table([]string{"WHEN", "TOOL", "EFFECT", "WAS", "WOULD BE", "BY", "EVENT"}, rows, "None would have ended otherwise.")
}

// policyCase is one case of a file for ambit policy test.
type policyCase struct {
	Name       string         `yaml:"name"`
	Agent      string         `yaml:"agent"`
	Label      string         `yaml:"label"`
	Verified   bool           `yaml:"verified"`
	User       string         `yaml:"user"`
	Connection string         `yaml:"connection"`
	Provider   string         `yaml:"provider"`
	Account    string         `yaml:"account"`
	Shared     bool           `yaml:"shared"`
	Tool       string         `yaml:"tool"`
	Effect     string         `yaml:"effect"`
	Generic    bool           `yaml:"generic"`
	Arguments  map[string]any `yaml:"arguments"`
	Time       time.Time      `yaml:"time"`
	Want       string         `yaml:"want"` // allow or deny
	By         string         `yaml:"by"`   // the policy that decides; empty: any
}

func (c *command) policyTest() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "test CASES --policy FILE", Short: "Try policies on cases of a file, without a server",
		Long: "Try policies on cases of a YAML file: a list of calls, each with what is wanted of it. Needs no server.\n" +
			"A case has tool, provider, effect, and what else matters: agent, label, verified, user, connection, account,\n" +
			"shared, generic, arguments and time (default now); want is allow or deny, and by names the policy that decides.",
		Example: "  ambit policy test cases.yaml --policy office.cedar", Args: takes(1, "one argument: a file of cases"),
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := os.ReadFile(file)
			if err != nil {
				return usageError{err}
			}
			rules, err := policy.ParseRules(1, string(text))
			if err != nil {
				return err
			}
			doc, err := os.ReadFile(args[0])
			if err != nil {
				return usageError{err}
			}
			var cases []policyCase
			if err := yaml.Load(doc, &cases, yaml.WithKnownFields()); err != nil {
				return usageError{fmt.Errorf("%s: %w", args[0], err)}
			}
			if len(cases) == 0 {
				return usageError{fmt.Errorf("%s holds no cases", args[0])}
			}
			failed := 0
			for i, x := range cases {
				wrong, err := x.try(rules)
				if err != nil {
					return usageError{fmt.Errorf("case %d: %w", i+1, err)}
				}
				if wrong != "" {
					failed++
					c.say("FAIL  %s: %s", plain(first(x.Name, fmt.Sprint(i+1))), plain(wrong))
				}
			}
			if failed > 0 {
				return fmt.Errorf("%d of %d cases failed", failed, len(cases))
			}
			c.say("All %d cases hold.", len(cases))
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "policy", "", "the file of policies")
	_ = cmd.MarkFlagRequired("policy")
	return cmd
}

// try says what is wrong with how rules decide the case; empty: nothing.
func (x policyCase) try(rules *policy.Rules) (wrong string, err error) {
	if x.Want != "allow" && x.Want != "deny" {
		return "", errors.New("want is allow or deny")
	}
	effect, err := policy.ParseEffect(x.Effect)
	if err != nil {
		return "", err
	}
	args, err := json.Marshal(x.Arguments)
	if err == nil && x.Arguments != nil {
		args, err = strictjson.Canonical(args)
	}
	if err != nil {
		return "", err
	}
	if x.Time.IsZero() {
		x.Time = time.Now()
	}
	got := rules.Judge(policy.Facts{Agent: x.Agent, AgentLabel: x.Label, Verified: x.Verified, User: x.User, Connection: x.Connection, Provider: x.Provider, Account: x.Account,
		Shared: x.Shared, Tool: x.Tool, Effect: effect, Generic: x.Generic, Arguments: args, Time: x.Time})
	verdict := map[bool]string{true: "allow", false: "deny"}[got.Allowed]
	_, by, _ := strings.Cut(got.Policy, ":")
	switch {
	case got.Failed:
		return first(by, "a policy") + " could not be evaluated, which denies", nil
	case verdict != x.Want:
		return "got " + verdict + " by " + first(by, "none") + ", want " + x.Want, nil
	case x.By != "" && x.By != by:
		return "decided by " + first(by, "none") + ", want " + x.By, nil
	}
	return "", nil
}

func (c *command) policySchema() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print what policies may speak of, as a Cedar schema", Args: takes(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			c.say("%s", strings.TrimRight(policy.Schema, "\n"))
			return nil
		},
	}
}

func (c *command) settingsShow() *cobra.Command {
	var org string
	cmd := &cobra.Command{
		Use: "settings", Short: "Show an organization's settings of sessions and approvals", Args: takes(0, "no arguments"),
		RunE: c.with(func(ctx context.Context, cl *client.Client, _ []string) error {
			org, err := c.organization(ctx, cl, org)
			if err != nil {
				return err
			}
			s, err := cl.Settings(ctx, org)
			if err != nil {
				return err
			}
			s.SecondToStart = some(s.SecondToStart)
			return c.show(s, func() { c.saySettings(s) })
		}),
	}
	c.orgFlag(cmd, &org, "organization (default: your only one)")
	return cmd
}

func (c *command) saySettings(s client.Settings) {
	quiet := "none"
	if q := s.QuietHours; q != nil {
		quiet = q.From + " to " + q.To + " in " + q.Zone
	}
	c.facts("version", fmt.Sprint(s.Version), "minutes", fmt.Sprintf("%d, at most %d", s.DefaultMinutes, s.LongestMinutes),
		"reads", s.Approvals.Read, "changes", s.Approvals.Write, "deletions", s.Approvals.Destructive, "keys, permissions", s.Approvals.Access,
		"who decides", words(s.Approvers), "two to start", first(words(s.SecondToStart), "nothing"), "quiet hours", quiet,
		"open requests", fmt.Sprintf("%d of an agent, %d of a person", s.Limits.OpenByAgent, s.Limits.OpenByUser),
		"within an hour", fmt.Sprintf("%d of an agent, %d of a person", s.Limits.HourlyByAgent, s.Limits.HourlyByUser))
}

func (c *command) settingsSet() *cobra.Command {
	var org string
	cmd := &cobra.Command{
		Use: "set-settings FILE", Short: "Replace an organization's settings with those of a JSON file",
		Long: "Replace an organization's settings with those of a JSON file, in the form that `ambit policy settings --json` prints.\n" +
			"The file's version must be the one that counts. As a person, what allows more is done on the page that the command names.",
		Example: "  ambit policy settings --json > settings.json\n  ambit policy set-settings settings.json", Args: takes(1, "one argument: a file"),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			doc, err := os.ReadFile(args[0])
			if err != nil {
				return usageError{err}
			}
			var s client.Settings
			if err := strictjson.Unmarshal(doc, &s, strictjson.Limits{}); err != nil {
				return usageError{fmt.Errorf("%s: %w", args[0], err)}
			}
			org, err := c.organization(ctx, cl, org)
			if err != nil {
				return err
			}
			s.SecondToStart, s.Approvers = some(s.SecondToStart), some(slices.Clone(s.Approvers))
			now, err := cl.SetSettings(ctx, org, s)
			if err != nil {
				return err
			}
			return c.show(now, func() { c.saySettings(now) })
		}),
	}
	c.orgFlag(cmd, &org, "organization (default: your only one)")
	return cmd
}

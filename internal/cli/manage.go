package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/policy"
)

// manageCommands are those that speak to a server.
func (c *command) manageCommands() []*cobra.Command {
	return []*cobra.Command{
		c.whoamiCommand(), c.agentCommand(), c.keyCommand(), c.organizationCommand(), c.userCommand(), c.providerCommand(),
		c.connectionCommand(), c.webhookCommand(), c.sessionCommand(), c.approvalsCommand(), c.policyCommand(), c.secretCommand(), c.importCommand(), c.custodyCommand(), c.auditCommand(),
	}
}

// group is a command that only holds others.
func (c *command) group(use, short string, subs ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{
		Use: use, Short: short}
	orHelp(g)
	g.PersistentFlags().StringVar(&c.environment, "env", "", "environment, by id or name (default: your own, or the API key's)")
	_ = g.RegisterFlagCompletionFunc("env", c.completion(c.environments, -1))
	g.AddCommand(subs...)
	return g
}

// orHelp makes a command that only holds others show its help, or what it takes
// an unknown word for.
func orHelp(cmd *cobra.Command) {
	cmd.Args, cmd.SuggestionsMinimumDistance, cmd.DisableFlagsInUseLine = cobra.ArbitraryArgs, 2, true
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		text := fmt.Sprintf("unknown command %q for %q", plain(args[0]), cmd.CommandPath())
		if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
			text += "; did you mean " + strings.Join(like, " or ") + "?"
		}
		return usageError{errors.New(text)}
	}
}

// takes checks the number of arguments. Unlike cobra's own checks it repeats
// none of them: one may be a secret that was typed at the wrong place.
func takes(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{fmt.Errorf("%s takes %s", cmd.CommandPath(), what)}
		}
		return nil
	}
}

func upTo(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return usageError{fmt.Errorf("%s takes %s", cmd.CommandPath(), what)}
		}
		return nil
	}
}

// paging are the flags of every list.
type paging struct {
	limit int
	after string
	all   bool
}

func (p *paging) flags(cmd *cobra.Command) {
	cmd.Flags().IntVar(&p.limit, "limit", 0, "at most this many (default: as the server likes)")
	cmd.Flags().StringVar(&p.after, "after", "", "go on after this cursor, which the page before gave")
	cmd.Flags().BoolVar(&p.all, "all", false, "read all pages")
}

// pages reads one page of a list, or all of them.
func pages[T any](ctx context.Context, p paging, list func(ctx context.Context, p client.Paging) (client.Page[T], error)) (client.Page[T], error) {
	if p.limit < 0 {
		return client.Page[T]{}, usageError{errors.New("--limit is a positive number")}
	}
	out := client.Page[T]{Data: []T{}, Next: p.after}
	for {
		n := largestPage
		if !p.all {
			n = min(p.limit-len(out.Data), largestPage) // 0, as the server likes, when there is no limit
		}
		page, err := list(ctx, client.Paging{Limit: n, After: out.Next})
		if err != nil {
			return out, err
		}
		same := page.Next == out.Next
		out.Data, out.Next = append(out.Data, page.Data...), page.Next
		if page.Next == "" || same || !p.all && len(out.Data) >= p.limit {
			return out, nil
		}
	}
}

// largestPage is as much as every list of the API gives at once.
const largestPage = 100

// showPage prints a list as JSON in the shape of the API, or as a table.
func showPage[T any](c *command, page client.Page[T], heading []string, empty string, row func(T, time.Time) []string) error {
	return c.show(page, func() {
		now := time.Now()
		rows := make([][]string, 0, len(page.Data))
		for _, v := range page.Data {
			rows = append(rows, row(v, now))
		}
		if c.narrowed {
			empty = "Nothing matches."
		}
		c.table(heading, rows, empty)
		if page.Next != "" {
			c.note("There is more: add --all, or --after %s", plain(page.Next))
		}
	})
}

// some is list, never null in JSON.
func some[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// The flags that name things, with their completion.

func (c *command) orgFlag(cmd *cobra.Command, into *string, what string) {
	cmd.Flags().StringVar(into, "org", "", what)
	c.completes(cmd, "org", c.organizationIDs)
}

func (c *command) effectsFlag(cmd *cobra.Command, into *[]string, what string) {
	var names []string
	for _, e := range policy.Effects() {
		names = append(names, string(e))
	}
	someOf(cmd, into, "effect", what, names...)
}

func roleNames() []string {
	return []string{string(account.RoleOwner), string(account.RoleAdmin), string(account.RoleApprover), string(account.RoleMember), string(account.RoleAuditor)}
}

// ids lists what a shell may complete: an id, a tab, and a name.
type ids func(ctx context.Context, cl *client.Client) ([]string, error)

// completes a flag from the server.
func (c *command) completes(cmd *cobra.Command, flag string, list ids) {
	_ = cmd.RegisterFlagCompletionFunc(flag, c.completion(list, -1))
}

// completion asks the server, briefly and quietly: a shell that waits is worse
// than one that does not complete. max is how many arguments the command takes,
// or -1 for a flag.
func (c *command) completion(list ids, max int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if max >= 0 && len(args) >= max {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionLimit)
		defer cancel()
		cl, err := c.api(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		found, err := list(ctx, cl)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for i, f := range found {
			name, label, _ := strings.Cut(f, "\t")
			found[i] = plain(name) + "\t" + plain(label)
		}
		return found, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder // newest first
	}
}

const (
	completions     = 100 // as many as a person would look through
	completionLimit = 1500 * time.Millisecond
)

// listed makes completions of a page, of what a command can be about.
func listed[T any](page client.Page[T], err error, entry func(T) (id, label string), fits ...func(T) bool) ([]string, error) {
	var out []string
	for _, v := range page.Data {
		if len(fits) > 0 && !fits[0](v) {
			continue
		}
		id, label := entry(v)
		out = append(out, id+"\t"+label)
	}
	return out, err
}

// byName is the id of the one thing that has this name; an id stands for itself.
// A name that several have is refused: they are told by their ids.
func byName[T any](ctx context.Context, kind, named string, list func(context.Context, client.Paging) (client.Page[T], error), entry func(T) (id, name string)) (string, error) {
	if strings.HasPrefix(named, kind+"_") {
		return named, nil
	}
	all, err := pages(ctx, paging{all: true}, list)
	if err != nil {
		return "", err
	}
	var found []string
	for _, v := range all.Data {
		if id, name := entry(v); strings.EqualFold(name, named) {
			found = append(found, id)
		}
	}
	switch len(found) {
	case 0:
		return named, nil // the server says that there is none
	case 1:
		return found[0], nil
	}
	return "", fault.New(fault.Invalid, "name_ambiguous", count(int64(len(found)), "thing has", "things have")+" this name.").WithHint("Use the id: " + words(found))
}

func (c *command) organizationIDs(ctx context.Context, cl *client.Client) ([]string, error) {
	page, err := cl.Organizations(ctx, client.Paging{Limit: completions})
	return listed(page, err, func(o client.Organization) (string, string) { return o.ID, o.Name })
}

func (c *command) userIDs(ctx context.Context, cl *client.Client) ([]string, error) {
	page, err := cl.Users(ctx, client.Paging{Limit: completions})
	return listed(page, err, func(u client.User) (string, string) { return u.ID, first(u.Email, u.Name) })
}

// environments completes names: their ids are as good, and nobody types them.
func (c *command) environments(ctx context.Context, cl *client.Client) ([]string, error) {
	page, err := cl.Environments(ctx)
	return listed(page, err, func(e client.Environment) (string, string) { return e.Name, e.ID })
}

func (c *command) agentsThat(fits func(client.Agent) bool) ids {
	return func(ctx context.Context, cl *client.Client) ([]string, error) {
		page, err := cl.Agents(ctx, client.AgentFilter{Limit: completions})
		return listed(page, err, func(a client.Agent) (string, string) { return a.ID, a.Label + ", " + agentState(a) }, fits)
	}
}

func (c *command) agentIDs(ctx context.Context, cl *client.Client) ([]string, error) {
	return c.agentsThat(func(client.Agent) bool { return true })(ctx, cl)
}

func (c *command) enabledAgents(ctx context.Context, cl *client.Client) ([]string, error) {
	return c.agentsThat(func(a client.Agent) bool { return a.DisabledAt.IsZero() })(ctx, cl)
}

func (c *command) disabledAgents(ctx context.Context, cl *client.Client) ([]string, error) {
	return c.agentsThat(func(a client.Agent) bool { return !a.DisabledAt.IsZero() })(ctx, cl)
}

func (c *command) providerIDs(ctx context.Context, cl *client.Client) ([]string, error) {
	page, err := cl.Providers(ctx, client.Paging{Limit: completions})
	return listed(page, err, func(p client.Provider) (string, string) { return p.ID, p.Name })
}

func (c *command) connectionIDs(ctx context.Context, cl *client.Client) ([]string, error) {
	page, err := cl.Connections(ctx, client.ConnectionFilter{Limit: completions})
	return listed(page, err, connectionEntry)
}

// liveConnections leaves out those that have ended for good.
func (c *command) liveConnections(ctx context.Context, cl *client.Client) ([]string, error) {
	page, err := cl.Connections(ctx, client.ConnectionFilter{Limit: completions})
	return listed(page, err, connectionEntry, func(v client.Connection) bool { return v.State != "disconnected" })
}

func connectionEntry(v client.Connection) (id, label string) {
	return v.ID, v.Provider + " " + first(v.AccountLabel, v.AccountID) + ", " + v.State
}

func (c *command) sessionIDs(ctx context.Context, cl *client.Client) ([]string, error) {
	page, err := cl.Sessions(ctx, client.SessionFilter{Limit: completions})
	return listed(page, err, sessionEntry)
}

// openSessions are those that can be revoked.
func (c *command) openSessions(ctx context.Context, cl *client.Client) ([]string, error) {
	page, err := cl.Sessions(ctx, client.SessionFilter{Limit: completions})
	return listed(page, err, sessionEntry, func(s client.Session) bool { return s.State != "ended" })
}

func sessionEntry(s client.Session) (id, label string) {
	return s.ID, s.AgentLabel + ", " + sessionState(s) + ", " + when(s.RequestedAt, time.Now())
}

func (c *command) keyIDs(ctx context.Context, cl *client.Client) ([]string, error) {
	page, err := cl.Keys(ctx, "", client.Paging{Limit: completions})
	return listed(page, err, func(k client.APIKey) (string, string) { return k.ID, k.Name }, func(k client.APIKey) bool { return keyState(k, time.Now()) == "active" })
}

func (c *command) secretNames(ctx context.Context, cl *client.Client) ([]string, error) {
	page, err := cl.Secrets(ctx, client.SecretFilter{Limit: completions})
	return listed(page, err, func(s client.Secret) (string, string) { return s.Name, s.ID })
}

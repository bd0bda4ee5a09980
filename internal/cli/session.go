package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
)

func (c *command) sessionCommand() *cobra.Command {
	return c.group("session", "Sessions: what agents asked for and were granted", c.sessionList(), c.sessionShow(), c.sessionRevoke())
}

func (c *command) sessionList() *cobra.Command {
	var p paging
	var f client.SessionFilter
	cmd := &cobra.Command{
		Use: "list", Short: "List sessions, newest first", Args: takes(0, "no arguments"),
		Example: "  ambit session list --state active\n  ambit session list --agent agent_… --json",
		RunE: c.with(func(ctx context.Context, cl *client.Client, _ []string) error {
			page, err := pages(ctx, p, func(ctx context.Context, q client.Paging) (client.Page[client.Session], error) {
				f.Limit, f.After = q.Limit, q.After
				return cl.Sessions(ctx, f)
			})
			if err != nil {
				return err
			}
			for i := range page.Data {
				page.Data[i].Grants = some(page.Data[i].Grants)
			}
			return showPage(c, page, []string{"AGENT", "STATE", "ON", "ASKED", "ENDS", "ID"}, "No sessions.", func(s client.Session, now time.Time) []string {
				return []string{s.AgentLabel, sessionState(s), words(grantedOn(s.Grants)), when(s.RequestedAt, now), sessionEnd(s, now), s.ID}
			})
		}),
	}
	c.orgFlag(cmd, &f.OrganizationID, "of this organization only")
	cmd.Flags().StringVar(&f.AgentID, "agent", "", "of this agent only")
	c.completes(cmd, "agent", c.agentIDs)
	cmd.Flags().StringVar(&f.UserID, "user", "", "of this user only")
	c.completes(cmd, "user", c.userIDs)
	oneOf(cmd, &f.State, "state", "pending, active or ended", "pending", "active", "ended")
	p.flags(cmd)
	return cmd
}

// grantedOn names each grant's provider, and its account where a provider has two.
func grantedOn(grants []client.Grant) []string {
	at, same := map[string]int{}, map[string]int{}
	for _, g := range grants {
		at[g.Provider]++
		same[g.Provider+" "+g.AccountLabel]++
	}
	var on []string
	for _, g := range grants {
		name := g.Provider
		switch {
		case same[g.Provider+" "+g.AccountLabel] > 1:
			name += " " + g.ConnectionID
		case at[g.Provider] > 1:
			name += " " + g.AccountLabel
		}
		on = append(on, name)
	}
	return on
}

func sessionState(s client.Session) string {
	if s.Reason == "" {
		return s.State
	}
	why := s.Reason
	if s.Cause != "" {
		why += ": " + strings.ReplaceAll(s.Cause, "_", " ")
	}
	return s.State + " (" + why + ")"
}

func sessionEnd(s client.Session, now time.Time) string {
	switch s.State {
	case "pending":
		return when(s.PendingUntil, now)
	case "active":
		return when(s.ExpiresAt, now)
	}
	return when(s.EndedAt, now)
}

func (c *command) sessionShow() *cobra.Command {
	return &cobra.Command{
		Use: "show SESSION", Short: "Show one session and its grants", Args: takes(1, "one argument: the session's id"),
		ValidArgsFunction: c.completion(c.sessionIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			s, err := cl.Session(ctx, args[0])
			if err != nil {
				return err
			}
			s.Grants = some(s.Grants)
			return c.show(s, func() { c.saySession(s) })
		}),
	}
}

func (c *command) saySession(s client.Session) {
	now := time.Now()
	unsure := ""
	if !s.AgentVerified {
		unsure = " (nobody vouched for this name)"
	}
	c.facts("agent", s.AgentLabel+unsure, "id", s.ID, "state", sessionState(s), "user", s.UserID, "organization", s.OrganizationID, "a part of", s.ParentID, "adds to", s.WidensID,
		"in its own words", s.Purpose, "minutes", fmt.Sprint(s.Minutes), "calls", callsText(s), "instructions", s.Instructions, "denied because", s.DenyReason,
		"asked", stamp(s.RequestedAt, now), "approved", stamp(s.ApprovedAt, now), "runs out", stamp(s.ExpiresAt, now), "ended", stamp(s.EndedAt, now))
	c.sayGrants(s.Grants)
	c.sayCallApprovals(s.CallApprovals, now)
	c.sayWidenings(s.Widenings, now)
	if s.State == "pending" {
		c.say("\nIt is decided in the browser, by the person it was sent to:\n\n  %s", plain(s.ApprovalURL))
		c.showPhone(s.ApprovalURL)
	}
}

// sayWidenings tells how a session came to have more than it was approved for.
func (c *command) sayWidenings(list []client.Widening, now time.Time) {
	if len(list) == 0 {
		return
	}
	c.say("\nRequests for more in this session:")
	for _, w := range list {
		by := ""
		if w.DecidedBy != "" {
			by = " by " + w.DecidedBy
		}
		at := w.RequestedAt
		if !w.DecidedAt.IsZero() {
			at = w.DecidedAt
		}
		c.say("  %s%s, %s", plain(w.State), plain(by), when(at, now))
		for _, g := range w.Grants {
			var added []string
			for _, t := range g.Tools {
				if g.Had == nil || !slices.Contains(g.Had.Tools, t.Name) {
					added = append(added, t.Name)
				}
			}
			if len(added) == 0 { // then it is the limits
				added = []string{"other limits: " + first(limitsText(g.Limits), "none")}
			}
			c.say("    on %s: %s", plain(first(g.ProviderName, g.Provider)+", "+g.AccountLabel), plain(words(added)))
		}
	}
}

func (c *command) sayGrants(grants []client.Grant) {
	for _, g := range grants {
		c.say("")
		c.facts("on", first(g.ProviderName, g.Provider)+", "+g.AccountLabel, "connection", g.ConnectionID, "effects", words(g.Effects), "own approval for", confirmText(g.Confirm), "only where", limitsText(g.Limits),
			"cannot be granted", map[string]string{"disconnected": "the account was disconnected", "needs_reauthorization": "the account must be connected again: ambit connection show " + g.ConnectionID, "changed": "a tool is not what the agent asked for any more"}[g.Lost])
		var rows [][]string
		for _, t := range g.Tools {
			rows = append(rows, []string{"  " + t.Name, t.Effect, t.Title})
		}
		c.table([]string{"  TOOL", "EFFECT", "WHAT IT DOES"}, rows, "")
	}
}

// callsText says how many calls a session may make, where that is limited.
func callsText(s client.Session) string {
	if s.Calls == 0 {
		return ""
	}
	return fmt.Sprintf("%d of at most %d made", s.CallsUsed, s.Calls)
}

func limitsText(list []client.Limit) string {
	var out []string
	for _, l := range list {
		out = append(out, l.String())
	}
	return strings.Join(out, "; ")
}

// sayCallApprovals lists the single calls that a person was asked about. What
// they told the agent stands below its call, since it can be long.
func (c *command) sayCallApprovals(list []client.CallApproval, now time.Time) {
	if len(list) == 0 {
		return
	}
	c.say("\nSingle calls that needed an approval of their own:")
	for _, a := range list {
		at := a.RequestedAt
		if !a.DecidedAt.IsZero() {
			at = a.DecidedAt
		}
		c.say("  %s  %s, %s", plain(a.Tool), plain(a.State), when(at, now))
		if a.Note != "" {
			c.say("    told the agent: %s", plain(a.Note))
		}
	}
}

func confirmText(rule string) string {
	switch rule {
	case "write":
		return "write, destructive and access calls"
	case "none":
		return "access calls"
	}
	return "destructive and access calls"
}

func (c *command) sessionRevoke() *cobra.Command {
	var r client.Revocation
	var yes bool
	cmd := &cobra.Command{
		Use: "revoke [SESSION]", Short: "End sessions at once: one, or all of an agent, user, connection, provider or organization",
		Long: "End sessions at once. When the command returns, no further call of them starts; calls that had started were cut, and\n" +
			"are listed. Requests that wait for a decision end too. Name one aim: a session, --agent, --user, --connection,\n" +
			"--provider, or --org. --org beside --user or --provider keeps it to that organization; without, it counts\n" +
			"wherever you may revoke. All but a single session are asked about first, unless --yes is given.",
		Example: "  ambit session revoke ses_…\n  ambit session revoke --agent agent_… --yes\n  ambit session revoke --provider acme --org org_…",
		Args:    upTo(1, "one session, or a flag that says what to revoke"), ValidArgsFunction: c.completion(c.openSessions, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				r.SessionID = args[0]
			}
			what, err := aim(r)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			cl, err := c.api(ctx)
			if err != nil {
				return err
			}
			if err := c.confirm(ctx, yes || r.SessionID != "", "End all sessions of "+what+"?"); err != nil {
				return err
			}
			done, err := cl.Revoke(ctx, r)
			if err != nil {
				return err
			}
			done.Sessions, done.Running = some(done.Sessions), some(done.Running)
			return c.show(done, func() {
				c.say("%s ended.", count(int64(len(done.Sessions)), "session", "sessions"))
				var rows [][]string
				now := time.Now()
				for _, call := range done.Running {
					rows = append(rows, []string{call.Tool, when(call.StartedAt, now), call.SessionID, call.EventID})
				}
				if len(rows) > 0 {
					c.say("\nThese calls had no outcome yet, and were cut. What they had sent may have taken effect:")
					c.table([]string{"TOOL", "STARTED", "SESSION", "ENTRY"}, rows, "")
				}
			})
		},
	}
	cmd.Flags().StringVar(&r.AgentID, "agent", "", "all sessions of this agent")
	c.completes(cmd, "agent", c.agentIDs)
	cmd.Flags().StringVar(&r.UserID, "user", "", "all sessions of this user")
	c.completes(cmd, "user", c.userIDs)
	cmd.Flags().StringVar(&r.ConnectionID, "connection", "", "all sessions that use this connection")
	c.completes(cmd, "connection", c.connectionIDs)
	cmd.Flags().StringVar(&r.Provider, "provider", "", "all sessions that use this provider")
	c.completes(cmd, "provider", c.providerIDs)
	c.orgFlag(cmd, &r.OrganizationID, "all sessions of this organization; or where --user or --provider counts")
	yesFlag(cmd, &yes)
	return cmd
}

// aim names what a revocation is about, and refuses two aims: half of what was
// meant is worse than nothing.
func aim(r client.Revocation) (string, error) {
	var what []string
	for _, a := range []struct{ noun, id string }{
		{"", r.SessionID}, {"the agent ", r.AgentID}, {"the user ", r.UserID}, {"the connection ", r.ConnectionID}, {"the provider ", r.Provider},
	} {
		if a.id != "" {
			what = append(what, a.noun+a.id)
		}
	}
	switch {
	case len(what) == 0 && r.OrganizationID != "":
		return "the organization " + r.OrganizationID, nil
	case len(what) != 1, r.OrganizationID != "" && r.Provider == "" && r.UserID == "":
		return "", usageError{errors.New("name one thing to revoke: a session, --agent, --user, --connection, --provider or --org; --org goes with --user and --provider too")}
	case r.OrganizationID != "":
		return what[0] + " in the organization " + r.OrganizationID, nil
	case r.Provider != "" || r.UserID != "":
		return what[0] + ", in every organization where you may", nil
	}
	return what[0], nil
}

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
)

func (c *command) auditCommand() *cobra.Command {
	return c.group("audit", "The audit log: who accessed what, and whether the log is whole", c.auditList(), c.auditTail(), c.auditVerify())
}

// auditFlags are the filters of list and tail.
type auditFlags struct {
	client.AuditFilter
	since, until string
}

func (f *auditFlags) add(c *command, cmd *cobra.Command) {
	c.orgFlag(cmd, &f.OrganizationID, "of this organization only")
	cmd.Flags().StringVar(&f.AgentID, "agent", "", "by this agent only")
	c.completes(cmd, "agent", c.agentIDs)
	cmd.Flags().StringVar(&f.UserID, "user", "", "for this user only")
	c.completes(cmd, "user", c.userIDs)
	cmd.Flags().StringVar(&f.SessionID, "session", "", "in this session only")
	c.completes(cmd, "session", c.sessionIDs)
	cmd.Flags().StringVar(&f.ConnectionID, "connection", "", "on this connection only")
	c.completes(cmd, "connection", c.connectionIDs)
	cmd.Flags().StringVar(&f.Action, "action", "", "this action only, such as tool.call, or all of a noun: session.*")
	oneOf(cmd, &f.Decision, "decision", "allow or deny", "allow", "deny")
	cmd.Flags().StringVar(&f.since, "since", "", "from this time on: 2026-01-31, 2026-01-31T15:04:05Z, or how long ago: 90m, 24h, 7d")
}

func (f *auditFlags) parse(now time.Time) (err error) {
	if strings.Contains(strings.TrimSuffix(f.Action, ".*"), "*") {
		return usageError{errors.New("--action is one action, such as tool.call, or all of a noun, such as 'session.*'")}
	}
	if f.Since, err = parseTime("--since", f.since, now); err != nil {
		return err
	}
	f.Until, err = parseTime("--until", f.until, now)
	return err
}

// parseTime reads a day, a time, or how long ago.
func parseTime(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, s, time.Local); err == nil {
		return t, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n <= 36500 {
			return now.AddDate(0, 0, -n), nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, usageError{fmt.Errorf("%s takes a day (2026-01-31), a time (2026-01-31T15:04:05Z), or how long ago (90m, 24h, 7d)", flag)}
}

func (c *command) auditList() *cobra.Command {
	var p paging
	var f auditFlags
	cmd := &cobra.Command{
		Use: "list", Short: "List entries, newest first", Args: takes(0, "no arguments"),
		Example: "  ambit audit list --decision deny --since 24h\n  ambit audit list --agent agent_… --action tool.call --all --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.parse(time.Now()); err != nil {
				return err
			}
			ctx := cmd.Context()
			cl, err := c.api(ctx)
			if err != nil {
				return err
			}
			line, read := c.progress(), int64(0)
			page, err := pages(ctx, p, func(ctx context.Context, q client.Paging) (client.Page[client.Event], error) {
				f.Limit, f.After = q.Limit, q.After
				got, err := cl.Audit(ctx, f.AuditFilter)
				read += int64(len(got.Data))
				line.at(read, "entry", "entries")
				return got, err
			})
			line.end()
			if err != nil {
				return err
			}
			names := map[string]string{}
			if !c.json && len(page.Data) > 0 {
				names = knownNames(ctx, cl)
			}
			named := func(id string) string { return first(names[id], id) }
			return showPage(c, page, []string{"WHEN", "WHO", "WHAT", "ON", "RESULT", "SESSION", "ENTRY"}, "No entries.", func(e client.Event, now time.Time) []string {
				return []string{when(e.Time, now), named(eventActor(e)), eventWhat(e), named(eventObject(e)), eventResult(e), e.SessionID, e.ID}
			})
		},
	}
	f.add(c, cmd)
	cmd.Flags().StringVar(&f.until, "until", "", "before this time; as --since")
	p.flags(cmd)
	return cmd
}

// knownNames are what people call the newest agents, people and accounts, by id.
// Whatever the login may not list keeps its id.
func knownNames(ctx context.Context, cl *client.Client) map[string]string {
	names := map[string]string{}
	p := client.Paging{Limit: largestPage}
	if agents, err := cl.Agents(ctx, client.AgentFilter{Limit: largestPage}); err == nil {
		for _, a := range agents.Data {
			names[a.ID] = first(a.Label, a.Name)
		}
	}
	if users, err := cl.Users(ctx, p); err == nil {
		for _, u := range users.Data {
			names[u.ID] = first(u.Name, u.Email)
		}
	}
	if accounts, err := cl.Connections(ctx, client.ConnectionFilter{Limit: largestPage}); err == nil {
		for _, a := range accounts.Data {
			names[a.ID] = first(a.ProviderName, a.Provider) + " · " + first(a.AccountLabel, a.AccountID)
		}
	}
	return names
}

// eventActor is who did it, which is not always the agent that it concerns: a
// person approves, and an application registers.
func eventActor(e client.Event) string {
	if e.Actor.Kind == "system" {
		return "system"
	}
	return first(e.Actor.ID, e.Actor.Kind, e.AgentID)
}

// eventWhat names a call by its tool, and everything else by what happened.
func eventWhat(e client.Event) string {
	if e.Action == "tool.call" {
		return first(e.Tool, e.Action)
	}
	return e.Action
}

func eventObject(e client.Event) string { return first(e.Object, e.ConnectionID, e.Provider) }

func eventResult(e client.Event) string {
	var parts []string
	switch {
	case e.Decision == "deny":
		parts = append(parts, "denied")
		if e.Code != "" {
			parts = append(parts, e.Code)
		}
	case e.Outcome.SettledBy != "":
		parts = append(parts, e.Outcome.Status, "- the server stopped while it ran")
	case e.Outcome.Status != "":
		parts = append(parts, e.Outcome.Status)
		if e.Outcome.Code != "" {
			parts = append(parts, e.Outcome.Code)
		}
		if e.Outcome.UpstreamStatus != 0 {
			parts = append(parts, strconv.Itoa(e.Outcome.UpstreamStatus))
		}
		parts = append(parts, fmt.Sprintf("%d ms", e.Outcome.DurationMillis))
	case e.Kind == "intent":
		parts = append(parts, "running")
	case e.Decision != "":
		parts = append(parts, e.Decision)
	}
	return strings.Join(parts, " ")
}

func (c *command) auditTail() *cobra.Command {
	var f auditFlags
	var follow bool
	lines := 20
	cmd := &cobra.Command{
		Use: "tail", Short: "Show the latest entries, one a line, and go on as they happen",
		Long: "Show the latest entries, oldest first, one a line. With --follow the command goes on until it is interrupted; the\n" +
			"outcome of a call then comes as a line of its own. With --json each line is one entry as JSON.",
		Example: "  ambit audit tail --follow\n  ambit audit tail --follow --decision deny --json | jq .code",
		Args:    takes(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if lines < 0 || lines > 1000 {
				return usageError{errors.New("--lines is a number up to 1000")}
			}
			if err := f.parse(time.Now()); err != nil {
				return err
			}
			cl, err := c.api(cmd.Context())
			if err != nil {
				return err
			}
			return c.tail(cmd.Context(), cl, f.AuditFilter, lines, follow)
		},
	}
	f.add(c, cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as entries happen")
	cmd.Flags().IntVarP(&lines, "lines", "n", lines, "how many entries to begin with")
	return cmd
}

func (c *command) tail(ctx context.Context, cl *client.Client, f client.AuditFilter, lines int, follow bool) error {
	shown := map[string]bool{} // by id: with its outcome, if it is a call
	var latest, oldest time.Time
	if lines > 0 {
		f.Limit = lines
		page, err := cl.Audit(ctx, f)
		if err != nil {
			return err
		}
		slices.Reverse(page.Data)
		for _, e := range page.Data {
			shown[e.ID] = e.Outcome.Status != ""
			if err := c.printEvent(e); err != nil {
				return err
			}
		}
		if n := len(page.Data); n > 0 {
			latest = page.Data[n-1].Time
			if page.Next != "" {
				oldest = page.Data[0].Time
			}
		}
	}
	if !follow {
		return nil
	}
	// The stream begins a little before the last line, since entries become
	// visible somewhat out of order; what was shown is not shown again.
	f.Limit = 0
	if !latest.IsZero() {
		f.Since = latest.Add(-10 * time.Second)
	}
	return cl.FollowAudit(ctx, f, func(e client.Event) error {
		if _, again := shown[e.ID]; again || shown[e.Ref] || e.Time.Before(oldest) {
			return nil
		}
		return c.printEvent(e)
	})
}

func (c *command) printEvent(e client.Event) error {
	if c.json {
		return json.NewEncoder(c.stdout).Encode(e) // one line, on a terminal too
	}
	_, err := fmt.Fprintln(c.stdout, c.eventLine(e, time.Now()))
	return err
}

// eventLine is an entry on one line. The columns that vary in length come last.
// At a terminal the day is left out while it is today's, and ids are cut, so that
// most entries fit on one line of it.
func (c *command) eventLine(e client.Event, now time.Time) string {
	at, day, ids := e.Time.Local(), "2006-01-02 15:04:05.000", 32
	if c.room() > 0 {
		if ids = fairly; now.Local().Format(time.DateOnly) == at.Format(time.DateOnly) {
			day = "15:04:05.000"
		}
	}
	result := plain(eventResult(e))
	switch {
	case e.Decision == "deny":
		result = c.paint(c.stdout, "31", result)
	case e.Outcome.Status == "ok":
		result = c.paint(c.stdout, "32", result)
	case e.Outcome.Status != "":
		result = c.paint(c.stdout, "33", result)
	}
	what := eventWhat(e)
	if e.Kind == "outcome" {
		what = "└ " + what
	}
	padded := func(s string, n int) string { return s + strings.Repeat(" ", max(0, n-cells(s))+gap) }
	id := func(s string) string {
		if s = plain(s); ids < 32 {
			return shorten(s, ids)
		}
		return s
	}
	line := c.paint(c.stdout, "2", at.Format(day)) + "  " + padded(id(eventActor(e)), ids) + padded(plain(what), 26) + result
	if on := eventObject(e); on != "" {
		line += "  " + id(on)
	}
	if e.SessionID != "" {
		line += "  " + c.paint(c.stdout, "2", id(e.SessionID))
	}
	return strings.TrimRight(line, " ")
}

func (c *command) auditVerify() *cobra.Command {
	var dataDir string
	var folders []string
	cmd := &cobra.Command{
		Use: "verify", Short: "Hold the whole audit log against its chains and checkpoints",
		Long: "Hold every entry of the audit log against its chain, and every chain against its checkpoint. Any edit, deletion or\n" +
			"reorder is found, and any cut before the last checkpoint; the tail that no checkpoint has seen is named. The exit code is\n" +
			"1 if something is wrong.\n\n" +
			"The running server does it. With --data it is done here instead, without believing the server: for a folder that no\n" +
			"server uses, or for the database of AMBIT_DATABASE_URL. It takes the root key and the checkpoint folder. Each of several\n" +
			"nodes writes a folder of its own: copy them together and name each with --checkpoints.",
		Example: "  ambit audit verify\n  ambit audit verify --data /srv/ambit/data\n" +
			"  ambit audit verify --data /srv/ambit/data --checkpoints /srv/copies/node-1 --checkpoints /srv/copies/node-2",
		Args: takes(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			var report client.AuditReport
			var err error
			if cmd.Flags().Changed("data") {
				report, err = c.verifyHere(ctx, dataDir, folders)
			} else if len(folders) > 0 {
				return usageError{errors.New("--checkpoints goes with --data: a server reads its own folder only")}
			} else {
				var cl *client.Client
				if cl, err = c.api(ctx); err == nil {
					if c.progress().w != nil {
						c.note("The server reads its whole log. Ctrl-C gives up; nothing is changed either way.")
					}
					report, err = cl.VerifyAudit(ctx)
				}
			}
			if err != nil {
				return err
			}
			return c.showReport(report)
		},
	}
	cmd.Flags().StringVar(&dataDir, "data", "", "verify this data folder, without a server")
	_ = cmd.MarkFlagDirname("data")
	cmd.Flags().StringArrayVar(&folders, "checkpoints", nil, "a checkpoint folder, in place of AMBIT_CHECKPOINT_DIR; may be repeated")
	_ = cmd.MarkFlagDirname("checkpoints")
	return cmd
}

func (c *command) verifyHere(ctx context.Context, dataDir string, folders []string) (client.AuditReport, error) {
	if dataDir == "" {
		return client.AuditReport{}, usageError{errors.New("--data names the data folder")}
	}
	cfg, err := c.serverConfig(dataDir, "")
	if err != nil {
		return client.AuditReport{}, err
	}
	for _, dir := range folders {
		if is, err := os.Stat(dir); err != nil || !is.IsDir() {
			return client.AuditReport{}, fault.New(fault.NotFound, "checkpoints_missing", "There is no folder "+dir+".").WithHint("Name the folders to which the nodes' checkpoints were copied.")
		}
	}
	p := c.progress()
	found, err := app.VerifyData(ctx, cfg, folders, func(n int64) { p.at(n, "entry", "entries") })
	p.end()
	if fault.Is(err, "data_folder_locked") {
		return client.AuditReport{}, fault.New(fault.Conflict, "data_folder_locked", "A server uses this folder.").
			WithHint("Leave --data out to ask that server, or stop it first.").WithCause(err)
	}
	return reportOf(found), err
}

func reportOf(r audit.Report) client.AuditReport {
	out := client.AuditReport{Intact: r.Intact(), Chains: r.Chains, Entries: r.Entries, Checkpoints: r.Checkpoints}
	for _, p := range r.Problems {
		out.Problems = append(out.Problems, client.AuditProblem(p))
	}
	for _, t := range r.Unwitnessed {
		out.Unwitnessed = append(out.Unwitnessed, client.AuditTail(t))
	}
	return out
}

func (c *command) showReport(r client.AuditReport) error {
	r.Problems, r.Unwitnessed = some(r.Problems), some(r.Unwitnessed)
	err := c.show(r, func() {
		for _, p := range r.Problems {
			where := ""
			if p.Chain != "" {
				where = "chain " + p.Chain
				if p.Seq > 0 {
					where += fmt.Sprintf(", entry %d", p.Seq)
				}
				where += ": "
			}
			c.say("✗ %s%s", plain(where), plain(p.What))
		}
		if r.Intact {
			c.say("✓ The log is whole: %s in %s, held against %s.", count(r.Entries, "entry", "entries"), count(int64(r.Chains), "chain", "chains"), count(int64(r.Checkpoints), "checkpoint", "checkpoints"))
		}
		elsewhere := false
		for _, t := range r.Unwitnessed {
			if t.Elsewhere {
				elsewhere = true
				c.say("· The checkpoints of chain %s lie elsewhere, with node %s; here nothing vouches for %s, from number %d on.", plain(t.Chain), plain(t.Node), count(t.Entries, "entry", "entries"), t.From)
				continue
			}
			c.say("· No checkpoint has seen the end of chain %s yet: %s, from number %d on.", plain(t.Chain), count(t.Entries, "entry", "entries"), t.From)
		}
		if elsewhere {
			c.say("  Copy the checkpoint folders of all nodes together, then: ambit audit verify --data DIR --checkpoints FOLDER --checkpoints FOLDER")
		}
	})
	if err != nil || r.Intact {
		return err
	}
	return fault.New(fault.Invalid, "audit_broken", "The audit log is not whole: "+count(int64(len(r.Problems)), "finding", "findings")+".").
		WithHint("Keep a copy of the database and the checkpoints as they are, and find out who could write them.")
}

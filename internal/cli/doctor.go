package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/fault"
)

// finding is what a check has to say. A problem makes the doctor fail; a warning
// is what is weak and works; a note is for information.
type finding struct {
	Check string `json:"check"`
	Level string `json:"level"` // ok, note, warning or problem
	Says  string `json:"says"`
	Why   string `json:"why,omitempty"`  // why it matters
	Mend  string `json:"mend,omitempty"` // what mends it, mostly a command
}

const (
	fine    = "ok"
	note    = "note"
	warning = "warning"
	problem = "problem"
)

// check looks at one thing. It changes nothing, and ends with its context.
type check struct {
	name string
	look func(ctx context.Context, p *patient) []finding
}

// checks are all of them, in the order in which they are told.
func checks() []check {
	return []check{
		{"settings", checkSettings},
		{"data folder", checkDataFolder},
		{"disk", checkDisks},
		{"root key", checkKey},
		{"key apart", checkApart},
		{"checkpoints", checkCheckpoints},
		{"clock", checkClock},
		{"database", checkDatabase},
		{"server", checkServer},
		{"speed", checkSpeed},
		{"certificate", checkCertificate},
		{"public URL", checkPublicURL},
		{"login", checkLogin},
		{"accounts", checkAccounts},
		{"isolation", checkIsolation},
	}
}

// patient is what is examined: this machine, its settings, and the server.
type patient struct {
	*command
	now    func() time.Time
	cfg    app.Config // as a server that starts here would have it
	bad    error      // why no server would start with cfg
	about  *app.About // what the server that runs on the data folder says; nil: none does
	server string     // where commands find the server
	api    *client.Client
}

// checkLimit bounds each check: a doctor that hangs tells nothing.
const checkLimit = 20 * time.Second

func (c *command) doctorCommand() *cobra.Command {
	var dataDir string
	var inside bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "Look for what is wrong or weak on this machine",
		Long: "Look at settings, data folder, disks, root key, audit checkpoints, clock, database and server, and at what a login can\n" +
			"see, and say what is wrong or weak, why it matters, and what mends it. It works with and without a running server, and\n" +
			"changes nothing. The exit code is 1 if something is wrong; what is only weak is 0.\n\n" +
			"Run it as the user that runs the server, with the same settings. PostgreSQL is looked at where AMBIT_DATABASE_URL is set.\n\n" +
			"With --isolation it tries, from inside of `ambit run --isolate`, what a program there must not be able to do.",
		Example: "  ambit doctor\n  ambit doctor --data /srv/ambit/data\n  ambit doctor --json | jq '.findings[] | select(.level == \"problem\")'",
		Args:    takes(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			look := checks()
			if inside {
				look = insideChecks()
			}
			findings := c.examine(cmd.Context(), dataDir, look)
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			counts := map[string]int{}
			for _, f := range findings {
				counts[f.Level]++
			}
			err := c.show(map[string]any{"findings": findings, "problems": counts[problem], "warnings": counts[warning]}, func() {
				c.printFindings(findings)
				c.say("\n%s, %s, %d in order.", count(int64(counts[problem]), "problem", "problems"), count(int64(counts[warning]), "warning", "warnings"), counts[fine])
			})
			if err != nil || counts[problem] == 0 {
				return err
			}
			return fault.New(fault.Invalid, "unhealthy", fmt.Sprintf("Something is wrong: %s.", count(int64(counts[problem]), "problem", "problems")))
		},
	}
	cmd.Flags().StringVar(&dataDir, "data", "", "data folder of the server (default: AMBIT_DATA_DIR, else ~/.ambit/data)")
	cmd.Flags().BoolVar(&inside, "isolation", false, "look at what ambit run --isolate holds apart, from inside")
	_ = cmd.MarkFlagDirname("data")
	return cmd
}

func (c *command) examine(ctx context.Context, dataDir string, checks []check) []finding {
	p := &patient{command: c, now: time.Now, server: c.serverURL()}
	p.cfg, p.bad = c.serverConfig(dataDir, "")
	if p.cfg.DataDir != "" {
		p.ask(ctx)
	}
	var all []finding
	for _, check := range checks {
		look, cancel := context.WithTimeout(ctx, checkLimit)
		found := check.look(look, p)
		cancel()
		for _, f := range found {
			if f.Check == "" {
				f.Check = check.name
			}
			all = append(all, f)
		}
	}
	return all
}

// ask lets the server that runs on the data folder tell how it was started.
func (p *patient) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	body, err := askConsole(ctx, filepath.Join(p.cfg.DataDir, app.ConsoleSocket), http.MethodGet, "/about", nil)
	var about app.About
	if err == nil && json.Unmarshal(body, &about) == nil {
		p.about = &about
		p.cfg.RootKey, p.cfg.CheckpointDir, p.cfg.TLSCert = about.RootKey, about.CheckpointDir, about.TLSCert
	}
}

func (c *command) printFindings(list []finding) {
	mark := map[string]string{fine: c.paint(c.stdout, "32", "✓"), note: "·", warning: c.paint(c.stdout, "33", "!"), problem: c.paint(c.stdout, "31", "✗")}
	names := 0
	for _, f := range list {
		names = max(names, cells(plain(f.Check)))
	}
	indent := strings.Repeat(" ", names+2+gap)
	for _, f := range list {
		check := plain(f.Check) // parts are named by the server that is asked
		c.say("%s %s%s%s", mark[f.Level], check, strings.Repeat(" ", names-cells(check)+gap), c.folded(f.Says, indent))
		if f.Why != "" {
			c.say("%s%s", indent, c.folded(f.Why, indent))
		}
		if f.Mend != "" {
			c.say("%s%s", indent, c.folded("→ "+f.Mend, indent+"  "))
		}
	}
}

// folded is text that goes on below itself in a terminal.
func (c *command) folded(s, indent string) string {
	s = plain(s)
	if room := c.room() - len(indent); room > atLeast {
		return strings.Join(wrap(s, room), "\n"+indent)
	}
	return s
}

func checkSettings(_ context.Context, p *patient) []finding {
	var list []finding
	if p.bad != nil {
		f := fault.Of(p.bad)
		list = append(list, finding{Level: problem, Says: f.Message, Why: "No server starts with these settings.", Mend: f.Hint})
	}
	for _, name := range sortedNames(p.env) {
		if like := misspelt(name); like != "" {
			list = append(list, finding{Level: warning, Says: name + " is not a setting.", Why: "What it was meant to set has its default.", Mend: "Did you mean " + like + "?"})
		}
	}
	if len(list) == 0 {
		list = append(list, finding{Level: fine, Says: "are complete"})
	}
	if p.about != nil && p.about.Version != Version {
		list = append(list, finding{Level: warning, Says: fmt.Sprintf("the server is version %s, this program %s", p.about.Version, Version), Mend: "Restart the server with the new program."})
	}
	return list
}

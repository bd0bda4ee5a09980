package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/internal/disk"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/scan"
)

// foundError says that a scan found what --fail-on asked about.
type foundError struct{ message string }

func (e foundError) Error() string { return e.message }

// scanFlags are what the command line says about a scan.
type scanFlags struct {
	home, processes, git, noIgnore, verify, sarif, html, watch bool
	baseline, write, failOn                                    string
}

func (c *command) scanCommand() *cobra.Command {
	var o scanFlags
	cmd := &cobra.Command{
		Use: "scan [FOLDER|FILE ...]", Short: "Find the credentials that lie around, and who can read them",
		Long: "Find API keys, tokens, passwords and private keys in folders and files, and with --home in the places where agents and\n" +
			"programs keep them. It reads and never executes, needs no server and no account, and sends nothing anywhere, unless\n" +
			"--verify asks each provider whether its own key still works. No output holds a value: reports show at most the last four\n" +
			"characters of a long one, and a fingerprint under a key of this run.\n\n" +
			"Without arguments it reads this folder. Files that .gitignore leaves out are skipped, but not those whose names tell of\n" +
			"secrets, such as .env; what .ambitignore leaves out is never read. A line with the mark ambit:allow is accepted.\n\n" +
			"Exit codes: 0 done, 6 found what --fail-on asks about, 130 interrupted (the report holds what was found until then).",
		Example: "  ambit scan\n  ambit scan --home --processes\n  ambit scan . --git --fail-on high\n  ambit scan --home --html > report.html\n  ambit scan . --baseline .ambit-baseline.json --sarif > scan.sarif",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.scan(cmd.Context(), args, o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.home, "home", false, "also read the places below your home folder where agents and programs keep credentials")
	f.BoolVar(&o.processes, "processes", false, "also read the environment and arguments of running agents (Linux)")
	f.BoolVar(&o.git, "git", false, "also read every version that repositories remember: those the folders are, lie in or hold, and with --home those of known projects")
	f.BoolVar(&o.noIgnore, "no-ignore", false, "read what ignore files leave out, and other people's code too")
	f.BoolVar(&o.verify, "verify", false, "ask each provider whether its key still works: sends the key to the provider that gave it out")
	f.BoolVar(&o.sarif, "sarif", false, "print SARIF 2.1.0, for code hosts")
	f.BoolVar(&o.html, "html", false, "print a page that can be kept and printed")
	f.BoolVar(&o.watch, "watch", false, "stay, and tell what is new whenever files change")
	f.StringVar(&o.baseline, "baseline", "", "leave out what this file accepts")
	f.StringVar(&o.write, "write-baseline", "", "write a baseline that accepts all that is found")
	oneOf(cmd, &o.failOn, "fail-on", "exit with 6 if something of this risk or worse is found: high, medium, low or any", "high", "medium", "low", "any")
	_ = cmd.MarkFlagFilename("baseline", "json")
	return cmd
}

// scan runs and reports. An interrupted scan reports what it has.
func (c *command) scan(ctx context.Context, args []string, o scanFlags) error {
	forms := 0
	for _, set := range []bool{c.json, o.sarif, o.html} {
		if set {
			forms++
		}
	}
	if forms > 1 || o.watch && forms > 0 {
		return usageError{errors.New("one of --json, --sarif and --html; --watch takes none of them")}
	}
	opt, err := c.scanOptions(args, o)
	if err != nil {
		return err
	}
	if o.watch {
		return c.watchScan(ctx, opt)
	}
	began := time.Now()
	p := c.progress()
	opt.Progress = p.shared("file read", "files read")
	report, err := scan.Run(ctx, opt)
	p.end()
	if err != nil {
		return err
	}
	if o.verify && ctx.Err() == nil {
		out, err := outbound.New(outbound.Policy{})
		if err != nil {
			return err
		}
		defer out.Close()
		scan.Verify(ctx, out, report, time.Now())
	}
	if o.write != "" {
		if err := c.writeBaseline(o.write, report.Findings); err != nil {
			return err
		}
	}
	if err := c.tell(report, o, time.Since(began)); err != nil {
		return err
	}
	if ctx.Err() != nil {
		c.note("Interrupted: this is what was found until then.")
		return ctx.Err()
	}
	return failOn(report, o.failOn)
}

func (c *command) scanOptions(args []string, o scanFlags) (scan.Options, error) {
	opt := scan.Options{
		Roots: args, Processes: o.processes, Git: o.git, NoIgnore: o.noIgnore,
		AppData: c.env["APPDATA"], LocalAppData: c.env["LOCALAPPDATA"], Moved: map[string]string{},
	}
	for name, folder := range map[string]string{"XDG_CONFIG_HOME": "~/.config", "XDG_DATA_HOME": "~/.local/share", "CLAUDE_CONFIG_DIR": "~/.claude", "CODEX_HOME": "~/.codex",
		"CARGO_HOME": "~/.cargo", "DOCKER_CONFIG": "~/.docker", "AZURE_CONFIG_DIR": "~/.azure", "HF_HOME": "~/.cache/huggingface", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
		"AWS_CONFIG_FILE": "~/.aws/config", "KUBECONFIG": "~/.kube/config", "NETRC": "~/.netrc", "NPM_CONFIG_USERCONFIG": "~/.npmrc", "PGPASSFILE": "~/.pgpass"} {
		if at := c.env[name]; filepath.IsAbs(at) {
			opt.Moved[folder] = at
		}
	}
	if o.home {
		home, err := c.userHome()
		if err != nil {
			return opt, err
		}
		opt.Home = home
	}
	if len(args) == 0 && !o.home && !o.processes {
		opt.Roots = []string{"."}
	}
	if o.baseline != "" {
		text, err := os.ReadFile(o.baseline)
		if err != nil {
			return opt, fault.New(fault.Invalid, "baseline_unreadable", "Cannot read the baseline.").WithCause(err)
		}
		if opt.Baseline, err = scan.ReadBaseline(text); err != nil {
			return opt, err
		}
	}
	return opt, nil
}

// userHome is the person's home folder.
func (c *command) userHome() (string, error) {
	for _, name := range []string{"HOME", "USERPROFILE"} {
		if dir := c.env[name]; dir != "" && (name == "HOME" || runtime.GOOS == "windows") {
			return dir, nil
		}
	}
	return "", fault.New(fault.Invalid, "no_home", "Your home folder is not known.").WithHint("Set HOME.")
}

// tell prints the report in the form that was asked for.
func (c *command) tell(r *scan.Report, o scanFlags, took time.Duration) error {
	dir, _ := os.Getwd()
	switch {
	case o.sarif:
		c.scanNotes(r)
		return c.printJSON(scan.SARIF(r, dir, Version))
	case o.html:
		c.scanNotes(r)
		return scan.HTML(c.stdout, r, time.Now())
	case c.json:
		return c.printJSON(r)
	}
	c.showScan(r, took)
	return nil
}

// scanNotes tells what a form that has no place for it would leave out.
func (c *command) scanNotes(r *scan.Report) {
	for _, n := range r.Notes {
		c.note("%s", n)
	}
}

func failOn(r *scan.Report, level string) error {
	if level == "" || len(r.Findings) == 0 {
		return nil
	}
	n := 0
	for _, f := range r.Findings {
		if level == "any" || f.Risk.AtLeast(scan.Risk(level)) {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	if level == "any" || level == "low" {
		return foundError{fmt.Sprintf("Found %s.", count(int64(n), "credential", "credentials"))}
	}
	return foundError{fmt.Sprintf("Found %s of %s risk or worse.", count(int64(n), "credential", "credentials"), level)}
}

func (c *command) writeBaseline(name string, list []scan.Finding) error {
	dir, err := filepath.Abs(filepath.Dir(name))
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(scan.NewBaseline(list, dir), "", "  ")
	if err != nil {
		return err
	}
	if err := putBaseline(name, append(b, '\n')); err != nil {
		return fault.New(fault.Invalid, "baseline_unwritable", "Cannot write the baseline.").WithHint("Name a file, not a link to one, in a folder that you may write to.").WithCause(err)
	}
	c.note("Wrote %s, which accepts %s.", plain(name), count(int64(len(list)), "finding", "findings"))
	return nil
}

// putBaseline writes the file itself, never what a link at its place leads to: the
// folder may be anybody's. It holds no value, and is made to be committed.
func putBaseline(name string, text []byte) error {
	is, err := os.Lstat(name)
	switch {
	case err == nil && !is.Mode().IsRegular():
		return errors.New("there is a link, or no plain file")
	case err == nil:
		return disk.Swap(name, text, disk.Kept{Is: is, Mode: is.Mode().Perm()}) // which takes a link's place, if one comes to be meanwhile
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) // which no link passes
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

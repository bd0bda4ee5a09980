// Package cli is the command line. It is the only reader of flags, environment
// and configuration; it knows no rules. Commands about this machine (serve,
// dev, recover, doctor, demo) use package app; everything else speaks to a
// server over its API, with the login that `ambit login` stored. That login
// never approves, reveals, vends, or makes keys or links: those open the browser.
//
// [Main] is the whole program, so that tests can start it in their own process.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/ambit-dev/ambit/internal/fault"
)

// Version is set when a release is built.
const Version = "0.1.0-dev"

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1 // it did not work
	exitUsage       = 2 // the command line is wrong
	exitDenied      = 3 // not signed in, or not allowed
	exitNotFound    = 4
	exitUnavailable = 5 // a server or provider could not be reached
	exitFound       = 6 // a scan found what --fail-on asks about
	exitInterrupted = 130
)

// command is what every subcommand gets.
type command struct {
	env    map[string]string
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	json   bool
	debug  bool
	server string // --server

	proxyListen string // --proxy-listen

	environment string // --env
	narrowed    bool   // flags say which things a list is about
}

// Main runs one command and returns its exit code.
func Main(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	out := &output{to: stdout}
	c := &command{env: map[string]string{}, stdin: stdin, stdout: out, stderr: stderr}
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok {
			c.env[k] = v
		}
	}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(out)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if lost := out.lost(); lost != nil && (err == nil || errors.Is(err, lost)) {
		err = fault.New(fault.Invalid, "output_unwritten", "The output could not be written whole"+deeperThan(lost)+".").
			WithHint("What the command did is done; only its words are missing. Send them where there is room.").WithCause(lost)
	}
	if err == nil {
		return exitOK
	}
	if status, ok := errors.AsType[exitStatus](err); ok {
		return int(status)
	}
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, ctx.Err())) {
		return exitInterrupted
	}
	for _, check := range []func() error{cmd.ValidateRequiredFlags, cmd.ValidateFlagGroups} { // cobra gives these errors no type
		if wrong := check(); wrong != nil && wrong.Error() == err.Error() {
			err = usageError{err}
		}
	}
	c.json = c.json || slices.Contains(args, "--json") // the flag is not read when the command is wrong
	return c.report(err, cmd)
}

func (c *command) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "ambit",
		Short: "Let AI agents work with accounts without ever holding the keys",
		Long: "Ambit stands between AI agents and the accounts that they work with. An agent asks,\n" +
			"a person approves, tools run for that time, every call is checked and recorded, and\n" +
			"the agent never sees a key.\n\nStart with: ambit demo",
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       Version,
		PersistentPreRun: func(cmd *cobra.Command, _ []string) {
			cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
				c.narrowed = c.narrowed || f.Changed && !slices.Contains([]string{"limit", "after", "all"}, f.Name)
			})
		},
	}
	orHelp(root)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{withoutValue(err)} })
	root.PersistentFlags().BoolVar(&c.json, "json", false, "print JSON")
	root.PersistentFlags().BoolVar(&c.debug, "debug", false, "log more")
	root.PersistentFlags().StringVar(&c.server, "server", "", "URL of the server (default: AMBIT_SERVER, else the one logged in to, else http://localhost:7420)")
	root.AddGroup(
		&cobra.Group{ID: "run", Title: "Run:"},
		&cobra.Group{ID: "manage", Title: "Manage:"},
		&cobra.Group{ID: "machine", Title: "This machine:"},
	)
	for group, list := range map[string][]*cobra.Command{
		"run":     {c.scanCommand(), c.demoCommand(), c.devCommand(), c.serveCommand(), c.mcpCommand(), c.runCommand()},
		"manage":  c.manageCommands(),
		"machine": {c.loginCommand(), c.logoutCommand(), c.recoverCommand(), c.migrateCommand(), c.backupCommand(), c.restoreCommand(), c.doctorCommand(), c.profileCommand(), c.proxyCommand(), c.versionCommand()},
	} {
		for _, sub := range list {
			sub.GroupID = group
			root.AddCommand(sub)
		}
	}
	root.AddCommand(c.sandboxCommand())
	if isolates {
		root.AddCommand(c.insideCommand())
	}
	root.SetCompletionCommandGroupID("machine")
	root.SetHelpCommandGroupID("machine")
	root.InitDefaultCompletionCmd("x")
	if cmd, _, err := root.Find([]string{"completion"}); err == nil {
		cmd.Short = "Print a script with which your shell completes commands, names and ids"
		orHelp(cmd)
		for _, shell := range cmd.Commands() {
			shell.Args = takes(0, "no arguments")
		}
	}
	root.InitDefaultHelpCmd()
	if cmd, _, err := root.Find([]string{"help"}); err == nil {
		cmd.Run, cmd.RunE, cmd.Args = nil, helpFor, cobra.ArbitraryArgs
	}
	return root
}

// helpFor explains a command. Unlike cobra's own it refuses one that is not there.
func helpFor(cmd *cobra.Command, args []string) error {
	about, rest, err := cmd.Root().Find(args)
	if err != nil || about.HasSubCommands() && len(rest) > 0 {
		return usageError{fmt.Errorf("there is no command %q to explain", plain(strings.Join(args, " ")))}
	}
	return about.Help()
}

// printJSON writes v indented, or as one line when stdout is not a terminal.
func (c *command) printJSON(v any) error {
	enc := json.NewEncoder(c.stdout)
	enc.SetEscapeHTML(false) // an address stays one that can be copied
	if c.terminal() {
		enc.SetIndent("", "  ")
	}
	return enc.Encode(v)
}

func (c *command) terminal() bool {
	f, ok := fileOf(c.stdout)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colour reports whether to use it: on a terminal, unless NO_COLOR is set.
func (c *command) colour() bool {
	return c.terminal() && c.env["NO_COLOR"] == "" && c.env["TERM"] != "dumb"
}

func (c *command) logger() *slog.Logger {
	level := slog.LevelInfo
	if c.debug {
		level = slog.LevelDebug
	}
	return c.loggerFrom(level)
}

func (c *command) loggerFrom(level slog.Level) *slog.Logger {
	if c.env[envLog] == "json" {
		return slog.New(slog.NewJSONHandler(c.stderr, &slog.HandlerOptions{Level: level}))
	}
	return slog.New(slog.NewTextHandler(c.stderr, &slog.HandlerOptions{Level: level}))
}

func (c *command) versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version", Args: takes(0, "no arguments"), RunE: func(*cobra.Command, []string) error {
		if c.json {
			return c.printJSON(map[string]string{"version": Version})
		}
		fmt.Fprintln(c.stdout, "ambit", Version)
		return nil
	}}
}

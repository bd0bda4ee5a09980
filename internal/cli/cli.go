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
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ambit-dev/ambit/client"
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

	environment string // --env
}

// Main runs one command and returns its exit code.
func Main(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &command{env: map[string]string{}, stdin: stdin, stdout: stdout, stderr: stderr}
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok {
			c.env[k] = v
		}
	}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, ctx.Err())) {
		return exitInterrupted
	}
	c.json = c.json || slices.Contains(args, "--json") // the flag is not read when the command is wrong
	return c.report(err)
}

// usageError marks a wrong command line.
type usageError struct{ error }

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
	}
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
		"run":     {c.demoCommand(), c.devCommand(), c.serveCommand()},
		"manage":  c.manageCommands(),
		"machine": {c.loginCommand(), c.logoutCommand(), c.recoverCommand(), c.migrateCommand(), c.doctorCommand(), c.profileCommand(), c.versionCommand()},
	} {
		for _, sub := range list {
			sub.GroupID = group
			root.AddCommand(sub)
		}
	}
	root.AddCommand(c.sandboxCommand())
	root.SetCompletionCommandGroupID("machine")
	return root
}

// noArgs and the like are cobra's checks with our exit code.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}

// report prints an error for a person, or as JSON, and gives the exit code.
func (c *command) report(err error) int {
	var ue usageError
	if errors.As(err, &ue) || strings.HasPrefix(err.Error(), "unknown command") {
		message := masked(err.Error())
		if c.json {
			c.reportJSON("usage", message, "Try: ambit --help", nil)
		} else {
			fmt.Fprintf(c.stderr, "ambit: %s\nTry: ambit --help\n", plainLines(message))
		}
		return exitUsage
	}
	code, message, hint, page := "internal", err.Error(), "", ""
	var fields map[string]string
	exit := exitFailed
	var ce *client.Error
	var f *fault.Error
	switch {
	case errors.As(err, &ce):
		code, message, hint, fields = ce.Code, ce.Message, ce.Hint, ce.Fields
		switch {
		case ce.Status == 401, ce.Status == 403:
			exit = exitDenied
		case ce.Status == 404:
			exit = exitNotFound
		case ce.Status == 429, ce.Status >= 500 && ce.Status != 500, ce.Code == "server_unreachable":
			exit = exitUnavailable
		}
		page = first(ce.Fields["url"], ce.Fields["connect_url"])
		if ce.Status == 401 {
			hint = "Run: ambit login"
			if c.env[envAPIKey] != "" {
				hint = "AMBIT_API_KEY holds no key that this server knows."
			}
		}
	case errors.As(err, &f):
		code, message, hint, fields = f.Code, f.Message, f.Hint, f.Fields
		switch f.Kind {
		case fault.Unauthenticated, fault.Denied:
			exit = exitDenied
		case fault.NotFound:
			exit = exitNotFound
		case fault.Unavailable, fault.Limited:
			exit = exitUnavailable
		}
		if c.debug {
			message = f.Error()
		}
	}
	if c.json {
		c.reportJSON(code, message, hint, fields)
		return exit
	}
	// What a server says goes to a terminal, so it must not steer one.
	fmt.Fprintf(c.stderr, "ambit: %s\n", plainLines(message))
	if hint != "" && (page == "" || !strings.Contains(hint, page)) {
		fmt.Fprintf(c.stderr, "       %s\n", plainLines(hint))
	}
	if page != "" { // on a line of its own, to be opened or copied whole
		fmt.Fprintf(c.stderr, "       Go on in your browser:\n\n  %s\n", plain(page))
	}
	return exit
}

// reportJSON prints an error as the API does: with the further facts that it has.
func (c *command) reportJSON(code, message, hint string, fields map[string]string) {
	out := map[string]string{}
	maps.Copy(out, fields)
	maps.Copy(out, map[string]string{"code": code, "message": message, "hint": hint})
	_ = json.NewEncoder(c.stderr).Encode(map[string]any{"error": out})
}

// printJSON writes v indented, or as one line when stdout is not a terminal.
func (c *command) printJSON(v any) error {
	enc := json.NewEncoder(c.stdout)
	if c.terminal() {
		enc.SetIndent("", "  ")
	}
	return enc.Encode(v)
}

func (c *command) terminal() bool {
	f, ok := c.stdout.(*os.File)
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
	if c.env[envLog] == "json" {
		return slog.New(slog.NewJSONHandler(c.stderr, &slog.HandlerOptions{Level: level}))
	}
	return slog.New(slog.NewTextHandler(c.stderr, &slog.HandlerOptions{Level: level}))
}

func (c *command) versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version", Args: usage(cobra.NoArgs), RunE: func(*cobra.Command, []string) error {
		if c.json {
			return c.printJSON(map[string]string{"version": Version})
		}
		fmt.Fprintln(c.stdout, "ambit", Version)
		return nil
	}}
}

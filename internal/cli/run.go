package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/internal/fault"
)

// run is one `ambit run`.
type run struct {
	*command
	ask     runAsk
	session string // of an approved one
	keep    []string
	open    bool
	isolate bool
	args    []string
}

func (c *command) runCommand() *cobra.Command {
	r := &run{command: c}
	cmd := &cobra.Command{
		Use: "run [flags] -- COMMAND [ARGUMENT…]", Short: "Run a program that reaches accounts through a session, and holds no key",
		Long: "Ask for a session, wait until you approve it, and start a program that works in it: its requests to the hosts of\n" +
			"the session's accounts go through the forward proxy, which puts the keys in. The program gets placeholders where its\n" +
			"keys would be, and nothing of the environment that looks like a credential. The session ends with the program.\n\n" +
			"At the first time it signs in as an agent of yours, which you confirm in the browser. Without a person at hand, set\n" +
			"AMBIT_AGENT_ID and AMBIT_AGENT_SECRET (ambit agent register) or AMBIT_AGENT_TOKEN, and name a session that was\n" +
			"approved with --session. See docs/run.md.",
		Example: "  ambit run --providers github -- claude\n  ambit run --providers github,linear --effects read,write --minutes 60 --purpose \"Triage the issues\" -- codex\n  ambit run --session ses_… -- git push",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("say what to run, after --: ambit run --providers github -- claude")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			r.args = args
			return r.run(cmd.Context())
		},
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().StringSliceVar(&r.ask.Providers, "providers", nil, "providers to ask for (default: all that are connected)")
	c.completes(cmd, "providers", c.providerIDs)
	someOf(cmd, &r.ask.Effects, "effects", "what to ask for (default: read)", "read", "write", "destructive")
	cmd.Flags().IntVar(&r.ask.Minutes, "minutes", 30, "how long the session lasts, counted from the approval")
	cmd.Flags().StringVar(&r.ask.Purpose, "purpose", "", "what it is for; the approver reads it (default: the command's name)")
	cmd.Flags().StringVar(&r.session, "session", "", "work in this approved session instead of asking for one, and leave it open at the end")
	cmd.Flags().StringSliceVar(&r.keep, "keep", nil, "keep this variable of the environment although it looks like a credential (repeatable)")
	cmd.Flags().BoolVar(&r.open, "open", false, "open the browser to approve")
	if isolates {
		cmd.Flags().BoolVar(&r.isolate, "isolate", false, "run it where the proxy is the only way out, and Ambit's own files cannot be seen")
	}
	return cmd
}

// tell writes for the person, beside the program's own output.
func (r *run) tell(format string, args ...any) { fmt.Fprintf(r.stderr, "ambit: "+format+"\n", args...) }

func (r *run) run(ctx context.Context) (err error) {
	program, err := r.program()
	if err != nil {
		return err
	}
	a, err := r.agent(ctx)
	if err != nil {
		return err
	}
	defer a.close()
	named := r.session
	if named == "" {
		handle, err := r.request(ctx, a)
		if err != nil {
			return err
		}
		named = handle
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			if eerr := a.end(ctx, handle); eerr != nil {
				r.tell("the session could not be ended, and ends by itself: %v", fault.Of(eerr).Message)
			}
		}()
	}
	access, err := a.access(ctx, named)
	if err != nil {
		return err
	}
	if access.ProxyURL == "" {
		return fault.New(fault.Unavailable, "no_proxy", "The server runs no forward proxy.").WithHint("The operator starts one with AMBIT_PROXY_LISTEN.")
	}
	dir, err := os.MkdirTemp("", "ambit-run-")
	if err != nil {
		return fmt.Errorf("making a folder for certificates: %w", err)
	}
	defer os.RemoveAll(dir)
	files, err := writeTrust(dir, access.CAPEM, r.env["SSL_CERT_FILE"])
	if err != nil {
		return err
	}
	if files.java, err = java(dir, files.all, r.proxyURL(access), r.past(access)); err != nil {
		return err
	}
	settings, err := cloudSettings(dir, access)
	if err != nil {
		return err
	}
	maps.Copy(settings, access.Variables) // the server's count more
	access.Variables = settings
	left := time.Until(access.ExpiresAt).Round(time.Minute)
	r.tell("session %s until %s (%s) on %s", access.SessionID, access.ExpiresAt.Local().Format("15:04"), left, words(access.Hosts))
	env, dropped := r.environment(access, files)
	if len(dropped) > 0 {
		r.tell("left out of the environment, since they look like credentials: %s (keep one with --keep NAME)", words(dropped))
	}
	watched, stop := context.WithCancel(ctx)
	defer stop()
	over := r.watch(watched, a, named, access.ExpiresAt)
	defer func() { stop(); <-over }()
	if r.isolate {
		return r.isolated(program, env, access, dir)
	}
	return r.start(program, r.args, env, nil)
}

// program finds what to run, before anybody is asked to approve anything.
func (r *run) program() (string, error) {
	path, err := lookPath(r.args[0], r.env["PATH"])
	if err != nil {
		return "", fault.New(fault.NotFound, "command_not_found", "There is no program "+plain(r.args[0])+".").WithHint("Name one in PATH, or by its path.")
	}
	return path, nil
}

func lookPath(name, path string) (string, error) {
	if strings.ContainsRune(name, filepath.Separator) {
		return name, executable(name)
	}
	for _, dir := range filepath.SplitList(path) {
		if full := filepath.Join(dir, name); executable(full) == nil {
			return full, nil
		}
	}
	return "", os.ErrNotExist
}

func executable(path string) error {
	info, err := os.Stat(path)
	if err == nil && (info.IsDir() || info.Mode().Perm()&0o111 == 0) {
		err = os.ErrPermission
	}
	return err
}

// request asks for a session and waits for the decision.
func (r *run) request(ctx context.Context, a *runAgent) (handle string, err error) {
	if r.ask.Purpose == "" {
		r.ask.Purpose = "Run " + filepath.Base(r.args[0])
	}
	if len(r.ask.Providers) == 0 {
		if r.ask.Providers, err = a.connected(ctx); err != nil {
			return "", err
		}
	}
	asked, err := a.request(ctx, r.ask)
	if err != nil {
		return "", err
	}
	r.tell("open this page to approve:\n\n  %s\n", plain(asked.ApprovalURL))
	if r.open {
		if err := r.browse(asked.ApprovalURL); err != nil {
			r.tell("the browser did not open: %v", err)
		}
	}
	for {
		now, err := a.await(ctx, asked.Handle)
		if err != nil {
			_ = a.end(context.WithoutCancel(ctx), asked.Handle)
			return "", err
		}
		switch now.State {
		case "active":
			if now.Instructions != "" {
				r.tell("the approver says: %s", plain(now.Instructions))
			}
			return asked.Handle, nil
		case "ended":
			f := fault.New(fault.Denied, first(now.Code, now.Reason, "denied"), "The session was not approved: "+first(now.Reason, "denied")+".")
			if now.DenyReason != "" {
				f = f.WithHint("The person says: " + plain(now.DenyReason))
			}
			return "", f
		}
	}
}

// watch tells how much time is left, and when the session ended under the program.
func (r *run) watch(ctx context.Context, a *runAgent, named string, until time.Time) (over <-chan struct{}) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(15 * time.Second)
		defer tick.Stop()
		warn := []time.Duration{5 * time.Minute, time.Minute}
		for len(warn) > 0 && time.Until(until) < warn[0] {
			warn = warn[1:]
		}
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			left := time.Until(until)
			if len(warn) > 0 && left < warn[0] {
				warn = warn[1:]
				r.tell("the session ends in %s", left.Round(time.Second))
			}
			if now, err := a.look(ctx, named); err == nil && now.State == "ended" {
				r.tell("the session has ended (%s): requests to its accounts are refused from now on", first(now.Reason, now.Code))
				return
			}
		}
	}()
	return done
}

// exitStatus ends this program as another one ended.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("the program ended with status %d", int(e)) }

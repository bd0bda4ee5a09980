package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/disk"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sandbox"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Ready is what `ambit dev` writes once it serves.
type Ready struct {
	URL            string `json:"url"`
	MCPURL         string `json:"mcp_url"`
	ProxyURL       string `json:"proxy_url"`
	LoginURL       string `json:"login_url"`
	APIKey         string `json:"api_key"`
	EnvironmentID  string `json:"environment_id"`
	OrganizationID string `json:"organization_id"`
	UserID         string `json:"user_id"`
}

func (c *command) devCommand() *cobra.Command {
	var dataDir, listen, readyFile string
	cmd := &cobra.Command{
		Use: "dev", Short: "Run everything that local work needs",
		Long: "Run a server for local work, with a small third-party service beside it (the sandbox, a process of its\n" +
			"own) that agents can be tried on. Nothing about the server itself is different from `ambit serve`.\n\n" +
			"--ready-file names a file that gets the URLs, an API key and the ids as JSON, once the server answers. The key is for a\n" +
			"day, and ends the one of the start before.",
		Args: takes(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.proxyListen == "" && c.env[envProxyListen] == "" {
				c.proxyListen = "localhost:0"
			}
			cfg, err := c.serverConfig(dataDir, listen)
			if err == nil && readyFile != "" {
				err = checkReady(readyFile)
			}
			if err != nil {
				return err
			}
			force, stop := secondSignal(cmd.Context())
			defer stop()
			cfg.Force = force
			if !c.debug && c.env[envLog] == "" { // what a person reads first is what to do
				cfg.Logger = c.loggerFrom(slog.LevelWarn)
			}
			return c.dev(cmd.Context(), cfg, readyFile)
		},
	}
	cmd.Flags().StringVar(&dataDir, "data", "", "data folder (default: AMBIT_DATA_DIR, else ~/.ambit/data)")
	cmd.Flags().StringVar(&listen, "listen", "", "address to listen on; port 0 picks one (default: localhost:7420)")
	c.proxyFlag(cmd, "a free port of localhost")
	cmd.Flags().StringVar(&readyFile, "ready-file", "", "file to write when the server answers (mode 0600)")
	return cmd
}

func (c *command) dev(ctx context.Context, cfg app.Config, readyFile string) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer borrowLog(cfg.Logger)()
	// The sandbox is reached like any provider: its place is an entry in the
	// operator's list of private destinations.
	place, err := sandboxPlace(cfg.DataDir)
	if err != nil {
		return err
	}
	cfg.OutboundAllow = append(cfg.OutboundAllow, place)
	defer collectLess()()
	a, err := app.New(ctx, cfg)
	if err != nil {
		return err
	}
	setup, err := devSetup(ctx, a)
	if err != nil {
		a.Close()
		return err
	}
	box, err := c.startSandbox(ctx, a, setup, place)
	if err != nil {
		a.Close()
		return err
	}
	defer func() { err = errors.Join(err, box.stop()) }()
	var readyErr error
	err = a.Run(ctx, func() {
		if readyFile != "" {
			if readyErr = writeReady(readyFile, setup.ready); readyErr != nil {
				cancel()
				return
			}
		}
		c.say("Ambit serves %s\n", c.paint(c.stdout, "1", setup.ready.URL))
		c.facts("  web", a.PublicURL().JoinPath("ui").String()+"/", "  MCP", setup.ready.MCPURL+" (the one URL that an agent gets)",
			"  proxy", first(setup.ready.ProxyURL, "off"), "  sandbox", "http://"+place+" (a third party to try things on)", "  data", first(cfg.DataDir, "the database"))
		if setup.needed {
			c.say("\nNobody owns this server yet. Open this link within 15 minutes to register your passkey. It works once:\n\n  %s\n", setup.ready.LoginURL)
		} else {
			c.say("\nSign in at %s", setup.ready.LoginURL)
		}
		c.say("Then, in another terminal: ambit login. Ctrl-C stops the server.")
	})
	return errors.Join(err, readyErr)
}

// devStart is the state that local work begins with.
type devStart struct {
	ready  Ready
	needed bool // nobody owns the server yet
	env    account.Environment
}

// devSetup makes what the ready file names.
func devSetup(ctx context.Context, a *app.App) (devStart, error) {
	link, needed, err := a.People.Bootstrap(ctx)
	if err != nil {
		return devStart{}, err
	}
	base := a.PublicURL()
	s := devStart{needed: needed, ready: Ready{URL: base.String(), MCPURL: base.JoinPath("mcp").String(), ProxyURL: a.ProxyURL(), LoginURL: base.JoinPath("ui", "signin").String()}}
	if needed {
		s.ready.LoginURL = string(link.Reveal())
	}
	system := account.System("dev")
	envs, err := a.People.Environments(ctx, system)
	if err != nil || len(envs) == 0 {
		return devStart{}, errors.Join(err, fmt.Errorf("finding the environment"))
	}
	s.env = envs[0]
	system = system.In(s.env.ID)
	orgs, _, err := a.People.Organizations(ctx, system, s.env.ID, account.List{})
	if err != nil || len(orgs) == 0 {
		return devStart{}, errors.Join(err, fmt.Errorf("finding the organization"))
	}
	members, _, err := a.People.Members(ctx, system, orgs[0].ID, account.List{})
	if err != nil {
		return devStart{}, err
	}
	for _, m := range members {
		if m.Role == account.RoleOwner {
			s.ready.UserID = string(m.User.ID)
			break
		}
	}
	_, key, err := a.People.ReissueKey(ctx, account.NewKey{Environment: s.env.ID, Name: "ambit dev", Scopes: account.Scopes(), Expires: time.Now().Add(24 * time.Hour)})
	if err != nil {
		return devStart{}, err
	}
	s.ready.APIKey = string(key.Reveal())
	s.ready.EnvironmentID, s.ready.OrganizationID = string(s.env.ID), string(orgs[0].ID)
	return s, nil
}

func writeReady(path string, r Ready) error {
	doc, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the ready file: %w", err)
	}
	if err := disk.Replace(path, append(doc, '\n')); err != nil { // readers see all of it or nothing
		return badReadyFile(path, err)
	}
	return nil
}

// checkReady refuses a ready file for which there is no place, before anything is
// started for it.
func checkReady(path string) error {
	info, err := os.Stat(filepath.Dir(path))
	if err == nil && !info.IsDir() {
		err = syscall.ENOTDIR
	}
	if info, lerr := os.Lstat(path); lerr == nil && info.IsDir() {
		err = syscall.EISDIR
	}
	if err != nil {
		return badReadyFile(path, err)
	}
	return nil
}

func badReadyFile(path string, err error) error {
	return fault.New(fault.Invalid, "file_unwritable", "The ready file cannot be written: "+path+deeperThan(err)+".").
		WithHint("Name a file with --ready-file, in a folder that is there and that you can write to.").WithCause(err)
}

// sandboxProcess is the third-party service beside a dev server.
type sandboxProcess struct {
	cmd  *exec.Cmd
	done chan error
}

// The settings that the sandbox process gets; not flags, which other users of
// the machine could read.
const (
	envSandboxClient   = "AMBIT_SANDBOX_CLIENT_ID"
	envSandboxSecret   = "AMBIT_SANDBOX_CLIENT_SECRET"
	envSandboxRedirect = "AMBIT_SANDBOX_REDIRECT"
	envSandboxKey      = "AMBIT_SANDBOX_API_KEY"
)

// startSandbox runs the sandbox as a process of its own and adds it to the
// environment's providers, through the same store as any other.
func (c *command) startSandbox(ctx context.Context, a *app.App, s devStart, place string) (*sandboxProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	clientID, clientSecret, apiKey := "ambit-dev", secret.Token("sbxs_"), secret.Token("sbx_")
	redirect := a.PublicURL().JoinPath(credential.CallbackPath(s.env.ID, "sandbox"))
	cmd := exec.Command(self, "sandbox", "--listen", place)
	cmd.Env = append(os.Environ(), envSandboxClient+"="+clientID, envSandboxSecret+"="+string(clientSecret.Reveal()),
		envSandboxRedirect+"="+redirect.String(), envSandboxKey+"="+string(apiKey.Reveal()))
	cmd.Stderr = c.stderr
	cmd.SysProcAttr = childAttributes()
	// The child ends when its standard input does, so it cannot outlive us.
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("starting the sandbox: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting the sandbox: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the sandbox: %w", err)
	}
	p := &sandboxProcess{cmd: cmd, done: make(chan error, 1)}
	ready := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			select {
			case ready <- lines.Text():
			default:
			}
		}
		_ = stdin.Close()
		p.done <- cmd.Wait()
	}()
	var base string
	select {
	case base = <-ready:
	case err := <-p.done:
		p.done <- err
		return nil, errors.Join(fault.New(fault.Unavailable, "sandbox_failed", "The sandbox did not start."), err)
	case <-time.After(20 * time.Second):
		return nil, errors.Join(fault.New(fault.Unavailable, "sandbox_failed", "The sandbox did not start in time."), p.stop())
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), p.stop())
	}
	by := account.System("dev").In(s.env.ID)
	_, err = a.Providers.Put(ctx, by, provider.Input{YAML: []byte(sandbox.Record(base)), ClientID: clientID, ClientSecret: clientSecret,
		For: provider.ForAll, AcceptShared: true}, account.Agreement{}) // nothing of anybody's lies there
	if err == nil {
		_, err = a.Providers.Put(ctx, by, provider.Input{YAML: []byte(sandbox.KeyRecord(base))}, account.Agreement{})
	}
	if err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

func (p *sandboxProcess) stop() error {
	_ = p.cmd.Process.Signal(os.Interrupt)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	return nil
}

// sandboxPlace gives the sandbox of a data folder the same port each time, if
// that is still free: connections are bound to where they were made.
func sandboxPlace(dataDir string) (string, error) {
	note := filepath.Join(dataDir, "sandbox.place")
	if last, err := os.ReadFile(note); err == nil {
		place := strings.TrimSpace(string(last))
		if l, err := net.Listen("tcp", place); err == nil {
			return place, l.Close()
		}
	}
	place, err := freePlace()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return "", badDataFolder(dataDir, err)
	}
	if err := os.WriteFile(note, []byte(place+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keeping the sandbox's place: %w", err)
	}
	return place, nil
}

// badDataFolder says why there can be no data folder at this path.
func badDataFolder(dataDir string, err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok && errors.Is(err, syscall.ENOTDIR) {
		return fault.New(fault.Invalid, "data_folder_missing", e.Path+" is a file, and the data needs a folder.").WithHint("Name another folder with --data.").WithCause(err)
	}
	return fault.New(fault.Invalid, "data_folder_missing", "The data folder cannot be made: "+dataDir+".").WithHint("Make it, or name another with --data: mkdir -p -m 700 " + word(dataDir)).WithCause(err)
}

// freePlace picks a port for the sandbox. It is free now and most likely still
// in the second in which the sandbox takes it.
func freePlace() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("finding a free port: %w", err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return "localhost:" + port, l.Close()
}

func (c *command) sandboxCommand() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use: "sandbox", Short: "Run the sandbox alone", Hidden: true, Args: takes(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			go func() { // until the parent goes away
				_, _ = bufio.NewReader(c.stdin).WriteTo(discard{})
				cancel()
			}()
			s := sandbox.New(sandbox.Config{
				ClientID: c.env[envSandboxClient], ClientSecret: secret.FromString(c.env[envSandboxSecret]),
				RedirectURIs: strings.Fields(c.env[envSandboxRedirect]), APIKey: secret.FromString(c.env[envSandboxKey]), Logger: c.logger(),
			})
			return s.Run(ctx, listen, func(base string) { fmt.Fprintln(c.stdout, base) })
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "localhost:0", "loopback address to listen on")
	return cmd
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

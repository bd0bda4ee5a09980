package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/fault"
)

func (c *command) loginCommand() *cobra.Command {
	var withToken, open bool
	cmd := &cobra.Command{
		Use: "login", Short: "Sign this command line in to a server",
		Long: "Sign in as yourself: the command shows a code, you type it in your browser and confirm it with your passkey. The login is\n" +
			"stored in ~/.config/ambit/login.json (or below XDG_CONFIG_HOME), readable by you alone, one a server.\n\n" +
			"It can manage, and look. It never approves, reveals secrets, or makes keys or sign-in links: those open the browser.\n\n" +
			"With --with-token an API key is read from standard input and stored instead. AMBIT_API_KEY, where it is set, wins\n" +
			"over every stored login.",
		Example: "  ambit login\n  ambit login --server https://ambit.example.com\n  ambit login --with-token < key.txt",
		Args:    takes(0, "no arguments; a key is read from standard input"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.env[envAPIKey] != "" {
				c.note("AMBIT_API_KEY is set, and will be used rather than this login.")
			}
			server := c.serverURL()
			if withToken {
				return c.loginWithKey(cmd.Context(), server)
			}
			return c.loginInBrowser(cmd.Context(), server, open)
		},
	}
	cmd.Flags().BoolVar(&withToken, "with-token", false, "read an API key from standard input")
	cmd.Flags().BoolVar(&open, "open", false, "open the browser")
	return cmd
}

func (c *command) loginInBrowser(ctx context.Context, server string, open bool) error {
	cl := client.New(server, "")
	l, err := cl.StartLogin(ctx)
	if err != nil {
		return err
	}
	if c.json {
		if err := c.printJSON(map[string]any{"user_code": l.UserCode, "url": l.URL, "expires_at": l.ExpiresAt}); err != nil {
			return err
		}
	} else {
		c.say("Open this page in your browser, and type the code:\n\n  %s\n\n  %s\n\nWaiting for you to confirm it there; Ctrl-C gives up.", plain(l.URL), c.paint(c.stdout, "1", plain(l.UserCode)))
	}
	if open {
		if err := c.browse(l.URL); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithDeadlineCause(ctx, l.ExpiresAt.Add(5*time.Second), errCodeExpired)
	defer cancel()
	token, err := cl.AwaitLogin(ctx, l)
	if errors.Is(context.Cause(ctx), errCodeExpired) {
		return fault.New(fault.Expired, "login_expired", "Nobody confirmed the code in time.").WithHint("Run ambit login again.")
	}
	if err != nil {
		return err
	}
	return c.keepLogin(ctx, server, token)
}

var errCodeExpired = errors.New("the code expired")

func (c *command) loginWithKey(ctx context.Context, server string) error {
	key, err := c.readSecret(ctx, "API key")
	if err != nil {
		return err
	}
	if key = strings.TrimSpace(key); !strings.HasPrefix(key, "sk_") || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return usageError{errors.New("what came on standard input is no API key: one starts with sk_")}
	}
	return c.keepLogin(ctx, server, key)
}

// keepLogin stores a token that the server takes.
func (c *command) keepLogin(ctx context.Context, server, token string) error {
	who, err := client.New(server, token).Whoami(ctx)
	if err != nil {
		return err
	}
	stored, err := c.readLogins()
	if err != nil {
		return err
	}
	stored.Servers[server] = login{Token: token, Kind: who.Kind, Name: who.Name}
	stored.Current = server
	if err := c.writeLogins(stored); err != nil {
		return err
	}
	return c.show(map[string]string{"server": server, "kind": who.Kind, "id": who.ID, "name": who.Name}, func() {
		c.say("Signed in to %s as %s.", plain(server), plain(callerName(who)))
	})
}

func callerName(w client.Whoami) string {
	switch {
	case w.Kind == "api_key":
		return "the API key " + first(w.Name, w.ID)
	case w.Email != "" && w.Name != "" && w.Email != w.Name:
		return w.Name + " <" + w.Email + ">"
	}
	return first(w.Name, w.Email, w.ID)
}

func (c *command) logoutCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "logout", Short: "End this command line's login",
		Long: "End the login on the server and forget it here. An API key that was stored is only forgotten here; end it with\n" +
			"`ambit apikey revoke`.",
		Args: takes(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			stored, err := c.readLogins()
			if err != nil {
				return err
			}
			servers := []string{c.serverURL()}
			if all {
				servers = slices.Sorted(maps.Keys(stored.Servers))
			}
			out := []string{}
			var failed error
			for _, s := range servers {
				l, ok := stored.Servers[s]
				if !ok {
					continue
				}
				failed = errors.Join(failed, endLogin(cmd.Context(), s, l))
				delete(stored.Servers, s)
				out = append(out, s)
			}
			if _, ok := stored.Servers[stored.Current]; !ok {
				stored.Current = ""
			}
			if len(out) > 0 {
				if err := c.writeLogins(stored); err != nil {
					return err
				}
			}
			if failed != nil {
				return failed
			}
			return c.show(map[string]any{"servers": out}, func() {
				for _, s := range out {
					c.say("Signed out of %s.", plain(s))
				}
				if len(out) == 0 {
					c.note("You were not logged in.")
				}
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "of every server")
	return cmd
}

// endLogin tells the server. A login that is over already is as good.
func endLogin(ctx context.Context, server string, l login) error {
	if l.Kind == "api_key" {
		return nil
	}
	err := client.New(server, l.Token).Logout(ctx)
	var e *client.Error
	switch {
	case err == nil, errors.As(err, &e) && e.Status == http.StatusUnauthorized:
		return nil
	}
	return fault.New(fault.Unavailable, "logout_untold", "The login was forgotten here, but "+plain(server)+" could not be told to end it.").
		WithHint("End it in the web UI, under Account.").WithCause(err)
}

func (c *command) whoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Tell as whom this command line acts", Args: takes(0, "no arguments"),
		RunE: c.with(func(ctx context.Context, cl *client.Client, _ []string) error {
			who, err := cl.Whoami(ctx)
			if err != nil {
				return err
			}
			who.Scopes, who.Memberships = some(who.Scopes), some(who.Memberships)
			return c.show(who, func() {
				c.facts("server", cl.URL(), "you", callerName(who), "id", who.ID, "environment", who.EnvironmentID,
					"organization", who.OrganizationID, "scopes", words(who.Scopes))
				var rows [][]string
				for _, m := range who.Memberships {
					rows = append(rows, []string{m.OrganizationName, m.Role, m.EnvironmentName, m.OrganizationID, m.EnvironmentID})
				}
				if len(rows) > 0 {
					c.say("")
					c.table([]string{"ORGANIZATION", "ROLE", "ENVIRONMENT", "ID", "ENVIRONMENT ID"}, rows, "")
				}
			})
		}),
	}
}

// with makes a command that speaks to the server.
func (c *command) with(run func(ctx context.Context, cl *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		cl, err := c.api(cmd.Context())
		if err != nil {
			return err
		}
		return run(cmd.Context(), cl, args)
	}
}

// api is the server that the command speaks to, in the environment it names.
func (c *command) api(ctx context.Context) (*client.Client, error) {
	server := c.serverURL()
	token, err := c.token(server)
	if err != nil {
		return nil, err
	}
	cl := client.New(server, token)
	switch {
	case c.environment == "":
		return cl, nil
	case strings.HasPrefix(c.environment, "env_"):
		return cl.In(c.environment), nil
	}
	envs, err := cl.Environments(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range envs.Data {
		if e.Name == c.environment {
			return cl.In(e.ID), nil
		}
		names = append(names, e.Name)
	}
	return nil, fault.New(fault.NotFound, "not_found", "There is no environment "+plain(c.environment)+" that you have a part in.").WithHint("There are: " + plain(words(names)))
}

// organization is the one that a command is about: the one named, or the only
// one that the caller has.
func (c *command) organization(ctx context.Context, cl *client.Client, named string) (string, error) {
	if named != "" {
		return named, nil
	}
	who, err := cl.Whoami(ctx)
	if err != nil {
		return "", err
	}
	if who.OrganizationID != "" {
		return who.OrganizationID, nil
	}
	var choice []string
	var found string
	if who.Kind == "user" {
		for _, m := range who.Memberships {
			if e := c.environment; e == "" && m.EnvironmentID != who.EnvironmentID || e != "" && e != m.EnvironmentID && e != m.EnvironmentName {
				continue
			}
			found, choice = m.OrganizationID, append(choice, m.OrganizationID+" ("+m.OrganizationName+")")
		}
	} else {
		page, err := cl.Organizations(ctx, client.Paging{Limit: 5})
		if err != nil {
			return "", err
		}
		for _, o := range page.Data {
			found, choice = o.ID, append(choice, o.ID+" ("+o.Name+")")
		}
	}
	switch len(choice) {
	case 0:
		return "", fault.New(fault.NotFound, "no_organization", "You have no organization here.").WithHint("Name one with --org.")
	case 1:
		return found, nil
	}
	return "", usageError{fmt.Errorf("say which organization with --org, such as %s", plain(words(choice)))}
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/fault"
)

func (c *command) connectionCommand() *cobra.Command {
	return c.group("connection", "Connections: accounts at providers", c.connectionList(), c.connectionShow(), c.connectionConnect(), c.connectionDisconnect(), c.connectionRevoke())
}

func (c *command) connectionList() *cobra.Command {
	var p paging
	var f client.ConnectionFilter
	cmd := &cobra.Command{
		Use: "list", Short: "List connections, newest first", Args: takes(0, "no arguments"),
		Example: "  ambit connection list\n  ambit connection list --provider acme --state needs_reauthorization",
		RunE: c.with(func(ctx context.Context, cl *client.Client, _ []string) error {
			page, err := pages(ctx, p, func(ctx context.Context, q client.Paging) (client.Page[client.Connection], error) {
				f.Limit, f.After = q.Limit, q.After
				return cl.Connections(ctx, f)
			})
			if err != nil {
				return err
			}
			return showPage(c, page, []string{"PROVIDER", "ACCOUNT", "STATE", "OWNER", "SINCE", "ID"}, "No connections. Make one with: ambit connection connect PROVIDER",
				func(v client.Connection, now time.Time) []string {
					return []string{v.Provider, first(v.AccountLabel, v.AccountID), v.State, first(v.OwnerID, "organization"), when(v.CreatedAt, now), v.ID}
				})
		}),
	}
	c.orgFlag(cmd, &f.OrganizationID, "of this organization only")
	cmd.Flags().StringVar(&f.OwnerID, "owner", "", "of this user only")
	c.completes(cmd, "owner", c.userIDs)
	cmd.Flags().StringVar(&f.Provider, "provider", "", "at this provider only")
	c.completes(cmd, "provider", c.providerIDs)
	oneOf(cmd, &f.State, "state", "connected, needs_reauthorization or disconnected", "connected", "needs_reauthorization", "disconnected")
	p.flags(cmd)
	return cmd
}

func (c *command) connectionShow() *cobra.Command {
	return &cobra.Command{
		Use: "show CONNECTION", Short: "Show one connection", Args: takes(1, "one argument: the connection's id"),
		ValidArgsFunction: c.completion(c.connectionIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			v, err := cl.Connection(ctx, args[0])
			if err != nil {
				return err
			}
			return c.showConnection(v)
		}),
	}
}

func (c *command) showConnection(v client.Connection) error {
	v.Scopes = some(v.Scopes)
	return c.show(v, func() { c.connectionFacts(v) })
}

func (c *command) connectionFacts(v client.Connection) {
	now := time.Now()
	c.facts("provider", first(v.ProviderName, v.Provider), "account", first(v.AccountLabel, v.AccountID), "id", v.ID, "state", v.State, "reason", v.Reason, "connect again at", v.ConnectURL,
		"owner", first(v.OwnerID, "the organization"), "organization", v.OrganizationID, "kind", v.AuthMethod, "scopes", words(v.Scopes), "not granted", words(v.MissingScopes), "connect again by", stamp(v.ReauthorizeBy, now), "address", assignments(v.Tenant),
		"connected", stamp(v.CreatedAt, now), "ended", stamp(v.EndedAt, now), "at the provider", upstreamWords[v.Upstream], "left to do", v.Note)
}

func (c *command) connectionConnect() *cobra.Command {
	var n client.NewConnection
	var shared, open, tokens bool
	var stored, elsewhere, tenant, captured, files []string
	cmd := &cobra.Command{
		Use: "connect PROVIDER", Short: "Connect an account",
		Long: "Connect an account. Where the provider has its own sign-in, the command names the page that you open in your browser.\n" +
			"Where it takes a key, the key is read without being shown, or from standard input; never from the command line. A\n" +
			"provider that takes several parts reads one NAME=VALUE a line.",
		Example: "  ambit connection connect github --open\n  ambit connection connect acme < key.txt\n" +
			"  printf 'username=mia\\npassword=…\\n' | ambit connection connect intranet --shared",
		Args: takes(1, "one argument: the provider's id"), ValidArgsFunction: c.completion(c.providerIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			if shared && n.OwnerID != "" {
				return usageError{errors.New("--shared and --owner exclude each other")}
			}
			v, err := cl.Provider(ctx, args[0])
			if err != nil {
				return err
			}
			n.Provider = v.ID
			if n.OrganizationID, err = c.organization(ctx, cl, n.OrganizationID); err != nil {
				return err
			}
			if !shared && n.OwnerID == "" {
				who, err := cl.Whoami(ctx)
				if err != nil {
					return err
				}
				if who.Kind == "user" {
					n.OwnerID = who.ID
				}
			}
			if n.Secrets, err = pairs("--secret", stored); err != nil {
				return err
			}
			if n.Sources, err = pairs("--source", elsewhere); err != nil {
				return err
			}
			if n.Tenant, err = pairs("--tenant", tenant); err != nil {
				return err
			}
			fromFile, err := c.fieldFiles(files)
			if err != nil {
				return err
			}
			v.CredentialFields = slices.DeleteFunc(v.CredentialFields, func(part string) bool { return n.Secrets[part]+n.Sources[part] != "" || fromFile[part] != "" })
			if n.Captured, err = pairs("--captured", captured); err != nil {
				return err
			}
			if tokens {
				if n.Fields, err = c.readTokens(ctx); err != nil {
					return err
				}
			}
			if v.Auth != "oauth2" && len(v.CredentialFields) > 0 {
				if n.Fields, err = c.readFields(ctx, v); err != nil {
					return err
				}
			}
			if len(fromFile) > 0 {
				if n.Fields == nil {
					n.Fields = map[string]string{}
				}
				maps.Copy(n.Fields, fromFile)
			}
			made, err := cl.Connect(ctx, n)
			if err != nil {
				return c.sentOn(err, open)
			}
			if made.Connection == nil {
				if open {
					if err := c.browse(made.ConnectURL); err != nil {
						return err
					}
				}
				return c.show(made, func() { c.say("Sign in at %s in your browser:\n\n  %s", plain(v.Name), plain(made.ConnectURL)) })
			}
			made.Connection.Scopes = some(made.Connection.Scopes)
			return c.show(made, func() { c.connectionFacts(*made.Connection) })
		}),
	}
	c.orgFlag(cmd, &n.OrganizationID, "organization (default: your only one)")
	cmd.Flags().StringArrayVar(&stored, "secret", nil, "take the part PART=SECRET of the key from the vault, with an API key (repeatable)")
	cmd.Flags().StringArrayVar(&elsewhere, "source", nil, "leave the part PART=SOURCE/PATH#FIELD of the key in Vault or AWS, and read it there at each use, with an API key (repeatable)")
	cmd.Flags().StringArrayVar(&tenant, "tenant", nil, "part NAME=VALUE of the provider's address, such as subdomain=acme, with a key (repeatable)")
	cmd.Flags().StringArrayVar(&files, "file", nil, "read the part PART=FILE of the credential from a file, such as private_key=key.pem (repeatable)")
	cmd.Flags().BoolVar(&tokens, "tokens", false, "take over tokens of another system with the same OAuth client: access_token=… and refresh_token=…, one a line, from standard input")
	cmd.Flags().StringArrayVar(&captured, "captured", nil, "with --tokens, part NAME=VALUE that the provider would tell, such as instance=acme.my.salesforce.com (repeatable)")
	cmd.Flags().StringSliceVar(&n.Scopes, "scope", nil, "with --tokens, a scope that was granted (repeatable)")
	cmd.Flags().BoolVar(&shared, "shared", false, "make it the organization's, not a user's")
	cmd.Flags().StringVar(&n.OwnerID, "owner", "", "user whose account it is (default: you; for an API key, the organization)")
	c.completes(cmd, "owner", c.userIDs)
	cmd.Flags().StringVar(&n.ReconnectID, "reconnect", "", "renew this connection, with the provider's record as it is now")
	c.completes(cmd, "reconnect", c.connectionIDs)
	cmd.Flags().BoolVar(&open, "open", false, "open the browser")
	return cmd
}

// assignments writes a map as NAME=VALUE, by name.
func assignments(m map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return plain(strings.Join(out, " "))
}

// fieldFiles reads parts of a credential that are files.
func (c *command) fieldFiles(list []string) (map[string]string, error) {
	names, err := pairs("--file", list)
	if err != nil {
		return nil, err
	}
	for part, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return nil, fault.New(fault.Invalid, "file_unreadable", "The file of "+plain(part)+" cannot be read.").WithCause(err)
		}
		text, err := io.ReadAll(io.LimitReader(f, 64<<10))
		_ = f.Close()
		if err != nil {
			return nil, fault.New(fault.Invalid, "file_unreadable", "The file of "+plain(part)+" cannot be read.").WithCause(err)
		}
		names[part] = strings.TrimSpace(string(text))
	}
	return names, nil
}

// readTokens reads the tokens of another system.
func (c *command) readTokens(ctx context.Context) (map[string]string, error) {
	text, err := c.readSecret(ctx, "the tokens")
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for i, line := range strings.Split(text, "\n") {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\r"), "=")
		if _, twice := out[name]; !ok || twice || value == "" || name != "access_token" && name != "refresh_token" {
			return nil, fault.New(fault.Invalid, "credential_malformed", fmt.Sprintf("Line %d of the tokens is not access_token=… or refresh_token=….", i+1))
		}
		out[name] = value
	}
	return out, nil
}

// readFields reads the parts of a key.
func (c *command) readFields(ctx context.Context, v client.Provider) (map[string]string, error) {
	names := v.CredentialFields
	_, asking := c.terminalIn()
	if len(names) == 1 || asking {
		out := map[string]string{}
		for _, name := range names {
			value, err := c.readSecret(ctx, v.Name+": "+strings.ReplaceAll(name, "_", " "))
			if err != nil {
				return nil, err
			}
			out[name] = value
		}
		return out, nil
	}
	text, err := c.readSecret(ctx, "the credential")
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for i, line := range strings.Split(text, "\n") {
		// The line itself is not repeated: it may be the secret.
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\r"), "=")
		if _, twice := out[name]; !ok || twice || value == "" || !slices.Contains(names, name) {
			return nil, fault.New(fault.Invalid, "credential_malformed", fmt.Sprintf("Line %d of the credential is not NAME=VALUE.", i+1)).
				WithHint("There is one line for each of: " + words(names))
		}
		out[name] = value
	}
	return out, nil // the server knows which may be left out
}

func (c *command) connectionDisconnect() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "disconnect CONNECTION", Short: "End a connection for good, here and at the provider",
		Long: "End a connection for good: sessions that use it end, its credential is destroyed, and it is given back at the provider\nwhere the provider can do that. The command says what is left to do there.",
		Args: takes(1, "one argument: the connection's id"), ValidArgsFunction: c.completion(c.liveConnections, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			if err := c.confirm(ctx, yes, "Disconnect "+args[0]+" for good?"); err != nil {
				return err
			}
			d, err := cl.Disconnect(ctx, args[0])
			if err != nil {
				return err
			}
			d.Connection.Scopes = some(d.Connection.Scopes)
			return c.show(d, func() {
				c.say("Disconnected %s.", plain(d.Connection.ID))
				c.facts("at the provider", upstreamWords[d.Upstream], "left to do", d.Note)
			})
		}),
	}
	yesFlag(cmd, &yes)
	return cmd
}

// upstreamWords say what became of a credential at its provider.
var upstreamWords = map[string]string{
	"revoked": "revoked there too", "pending": "not yet revoked there; tried again for a week", "failed": "could not be revoked there", "unsupported": "it cannot be told",
}

func (c *command) connectionRevoke() *cobra.Command {
	var aim client.ConnectionAim
	var from, to string
	var yes bool
	cmd := &cobra.Command{
		Use: "revoke", Short: "Disconnect many connections at once, after an incident",
		Long: "Disconnect every connection at a provider, of an organization, of a user, or that was made in a time, for good.\n" +
			"What they have in common is given with flags, at least one. Sessions that use them end at once, and the providers are\n" +
			"told right after. Look first with --dry-run.",
		Example: "  ambit connection revoke --provider acme --from 2026-11-27T08:00:00Z --dry-run\n  ambit connection revoke --provider acme --yes",
		Args:    takes(0, "no arguments"),
		RunE: c.with(func(ctx context.Context, cl *client.Client, _ []string) error {
			var err error
			if aim.From, err = instant("--from", from); err != nil {
				return err
			}
			if aim.To, err = instant("--to", to); err != nil {
				return err
			}
			dry := aim.DryRun
			aim.DryRun = true
			found, err := cl.RevokeConnections(ctx, aim)
			if err != nil {
				return err
			}
			if !dry && len(found.Connections) > 0 {
				many := fmt.Sprint(len(found.Connections))
				if found.More {
					many = "more than " + many
				}
				if err := c.confirm(ctx, yes, "Disconnect "+many+" connections for good?"); err != nil {
					return err
				}
				aim.DryRun = false
				if found, err = c.revokeAll(ctx, cl, aim); err != nil {
					return err
				}
			}
			found.DryRun = dry // also of an aim that met none
			found.Connections = some(found.Connections)
			return c.show(found, func() { c.revokedConnections(found) })
		}),
	}
	cmd.Flags().StringVar(&aim.OrganizationID, "org", "", "of this organization (default: of all that you manage)")
	c.completes(cmd, "org", c.organizationIDs)
	cmd.Flags().StringVar(&aim.Provider, "provider", "", "at this provider")
	c.completes(cmd, "provider", c.providerIDs)
	cmd.Flags().StringVar(&aim.OwnerID, "owner", "", "of this user")
	c.completes(cmd, "owner", c.userIDs)
	cmd.Flags().StringVar(&from, "from", "", "made at this time (RFC 3339) or later")
	cmd.Flags().StringVar(&to, "to", "", "made before this time (RFC 3339)")
	cmd.Flags().BoolVar(&aim.DryRun, "dry-run", false, "only list what it would disconnect")
	yesFlag(cmd, &yes)
	return cmd
}

// revokeAll repeats until nothing is left.
func (c *command) revokeAll(ctx context.Context, cl *client.Client, aim client.ConnectionAim) (client.RevokedConnections, error) {
	var all client.RevokedConnections
	for {
		part, err := cl.RevokeConnections(ctx, aim)
		all.Connections = append(all.Connections, part.Connections...)
		if err != nil || !part.More {
			return all, err
		}
	}
}

func (c *command) revokedConnections(r client.RevokedConnections) {
	for _, v := range r.Connections {
		c.say("%s  %s · %s  %s", plain(v.ID), plain(first(v.ProviderName, v.Provider)), plain(first(v.AccountLabel, v.AccountID)), plain(first(v.OwnerID, "organization")))
	}
	did := "Disconnected"
	if r.DryRun {
		did = "Would disconnect"
	}
	more := ""
	if r.More {
		more = ", and more"
	}
	c.say("%s %d%s.", did, len(r.Connections), more)
}

func instant(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, usageError{fmt.Errorf("%s takes a time such as 2026-11-27T08:00:00Z", flag)}
	}
	return at, nil
}

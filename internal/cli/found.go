package cli

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/intake/found"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/scan"
)

// foundFlags are what the command line says about taking credentials out of files.
type foundFlags struct {
	scanFlags
	vault       found.Vault
	risk        string
	apply, no   bool
	logins      bool
	connect     []string
	revoke, yes bool
	records     map[string]string
}

func (c *command) importFindings() *cobra.Command {
	o := foundFlags{risk: "high"}
	var undo bool
	cmd := &cobra.Command{
		Use: "findings [FOLDER|FILE ...]", Short: "Take the credentials that ambit scan finds out of their files",
		Long: "Scan, store each credential in the vault, and put a placeholder where it stood. Without --apply it shows what would change.\n" +
			"Where the server has a provider of that name and host, an API key becomes a connection too. An entry of an MCP server whose\n" +
			"keys all have become connections becomes one of this server's /mcp.\n\n" +
			"Each file is kept in the vault as it was; --undo puts files back, to the byte, unless they were changed since. What\n" +
			"is in a repository's history or in another form (encoded, in a process) is told and left. Then revoke the keys: the\n" +
			"places that held them have been read by whoever could. --revoke does it where the provider lets a key be revoked with itself.",
		Args:    cobra.ArbitraryArgs,
		Example: "  ambit import findings ~/project --min-risk medium\n  ambit import findings --home --apply --revoke\n  ambit import findings --undo ~/.cursor/mcp.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			if undo {
				return c.putBack(cmd.Context(), o.vault, args)
			}
			return c.takeOut(cmd.Context(), args, o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.home, "home", false, "also the places below your home folder where agents and programs keep credentials")
	f.StringVar(&o.baseline, "baseline", "", "leave out what this file accepts")
	oneOf(cmd, &o.risk, "min-risk", "take what has this risk or a higher one: high, medium or low", "high", "medium", "low")
	f.BoolVar(&o.apply, "apply", false, "store the values and change the files")
	f.BoolVar(&o.logins, "logins", false, "also take what programs keep of their own login, which signs them out, and SSH keys")
	f.BoolVar(&undo, "undo", false, "put the named files, and those in the named folders, back as they were")
	f.BoolVar(&o.no, "no-connect", false, "connect no accounts, and leave the entries of MCP servers")
	f.StringArrayVar(&o.connect, "connect", nil, "connect the keys of an issuer at this provider of the server: ISSUER=PROVIDER, such as gitlab=our_gitlab (repeatable)")
	f.StringVar(&o.vault.Owner, "owner", "", "user whose the accounts become (default: the organization's)")
	c.completes(cmd, "owner", c.userIDs)
	f.BoolVar(&o.revoke, "revoke", false, "with --apply: then revoke each key that became no connection, where its provider takes it back from whoever has it")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask before revoking")
	c.orgFlag(cmd, &o.vault.Organization, "organization whose they become")
	return cmd
}

func (c *command) takeOut(ctx context.Context, args []string, o foundFlags) error {
	if o.revoke && !o.apply {
		return usageError{errors.New("--revoke goes with --apply")}
	}
	if _, asking := c.terminalIn(); o.revoke && !o.yes && !asking {
		return usageError{errors.New("a revoked key never works again, and nobody can be asked here: add --yes to do it")}
	}
	var err error
	if o.records, err = pairs("--connect", o.connect); err != nil {
		return err
	}
	opt, err := c.scanOptions(args, o.scanFlags)
	if err != nil {
		return err
	}
	report, err := scan.Run(ctx, opt)
	if err != nil {
		return err
	}
	machine, err := c.machine(o.apply)
	if err != nil {
		return err
	}
	o.vault.Machine = machine
	take := found.Options{Machine: machine, Risk: scan.Risk(o.risk), Logins: o.logins, Named: args, Moved: opt.Moved}
	if !o.no && slices.ContainsFunc(report.Findings, scan.Finding.IsKey) {
		err := c.accounts(ctx, &o, report.Findings, &take)
		switch {
		case err != nil && (o.apply || len(o.records) > 0):
			return err
		case err != nil:
			c.note("What would be connected is not known without a server: %s", plain(fault.Of(err).Message))
		}
	}
	changes, left := found.Plan(report.Findings, take)
	if o.apply && len(changes) > 0 {
		if o.vault.To, err = c.api(ctx); err != nil {
			return err
		}
		for i := range changes {
			if err := o.vault.Apply(ctx, &changes[i]); err != nil {
				c.note("%s could not be taken out of.", plain(changes[i].File))
				if i > 0 {
					c.note("%s done before that; run it again to go on.", count(int64(i), "file was", "files were"))
				}
				return err
			}
		}
	}
	if err := c.show(map[string]any{"applied": o.apply, "changes": some(changes), "left": some(left)}, func() { c.sayTaken(changes, left, o.apply) }); err != nil {
		return err
	}
	if o.revoke {
		return c.revokeFound(ctx, changes, o.yes)
	}
	return nil
}

// revokeFound has the providers take back what was taken out and is used by no account.
// With --json it says on standard error what it says.
func (c *command) revokeFound(ctx context.Context, changes []found.Change, yes bool) error {
	var list []scan.Finding
	hosts, used := map[string]bool{}, map[string]bool{}
	for _, ch := range changes {
		for _, t := range ch.Takes {
			if t.Connection != "" {
				used[t.Finding().Fingerprint] = true
			}
		}
	}
	for _, ch := range changes {
		for _, t := range ch.Takes {
			if f := t.Finding(); !used[f.Fingerprint] && scan.RevokedAt(f) != "" {
				list, hosts[scan.RevokedAt(f)] = append(list, f), true
			}
		}
	}
	if len(list) == 0 {
		c.note("There is no key that can be revoked from here.")
		return nil
	}
	question := "Send " + count(int64(len(list)), "key", "keys") + " to " + words(slices.Sorted(maps.Keys(hosts))) + " to be revoked for good?"
	if err := c.ask(ctx, yes, question, "a revoked key never works again"); err != nil {
		return err
	}
	out, err := outbound.New(outbound.Policy{})
	if err != nil {
		return err
	}
	defer out.Close()
	said := scan.Revoke(ctx, out, list)
	kept := 0
	for _, f := range list {
		if said[f.Fingerprint] == scan.Kept {
			kept++
		}
		c.note("%s %s: %s", plain(f.Title), plain(f.Masked), map[string]string{scan.Revoked: "revoked", scan.Accepted: "the provider is revoking it", scan.Dead: "it did not work any more", scan.Kept: "NOT revoked: do it yourself at " + first(plain(f.Revoke), "the provider")}[said[f.Fingerprint]])
	}
	if kept > 0 {
		return fault.New(fault.Unavailable, "not_revoked", count(int64(kept), "key was", "keys were")+" not revoked.").WithHint("The list says where to do it. Nothing of the import is lost.")
	}
	return nil
}

// accounts finds out which providers of the server take the keys that were found.
func (c *command) accounts(ctx context.Context, o *foundFlags, list []scan.Finding, take *found.Options) error {
	cl, err := c.api(ctx)
	if err != nil {
		return err
	}
	if o.vault.Accounts, err = c.organization(ctx, cl, o.vault.Organization); err != nil {
		if _, unclear := errors.AsType[usageError](err); !unclear || len(o.records) > 0 {
			return err
		}
		c.note("Nothing is connected: %s", plain(err.Error()))
		return nil
	}
	all, err := pages(ctx, paging{all: true}, func(ctx context.Context, q client.Paging) (client.Page[client.Provider], error) {
		return cl.Providers(ctx, q)
	})
	if err != nil {
		return err
	}
	take.Accounts = map[string]found.Account{}
	for _, f := range list {
		if _, done := take.Accounts[f.Provider]; done || !f.IsKey() {
			continue
		}
		a, err := c.accountAt(ctx, cl, o, f.Provider, all.Data)
		if err != nil {
			return err
		}
		take.Accounts[f.Provider] = a
	}
	take.Entry = entryOf(strings.TrimRight(c.serverURL(), "/") + "/mcp")
	return nil
}

// accountAt is the provider of the server that takes an issuer's keys: the one that was
// named, or one of the issuer's name whose hosts are the issuer's. An empty one takes none.
func (c *command) accountAt(ctx context.Context, cl *client.Client, o *foundFlags, issuer string, all []client.Provider) (found.Account, error) {
	named := o.records[issuer]
	var best client.Provider
	var rec provider.Record
	for _, p := range all {
		if named != "" && p.ID != named || named == "" && p.ID != issuer && !strings.HasPrefix(p.ID, issuer+"_") {
			continue
		}
		whole, err := cl.Provider(ctx, p.ID)
		if err != nil {
			return found.Account{}, err
		}
		r, err := provider.Parse([]byte(whole.YAML))
		if err != nil || named == "" && slices.ContainsFunc(r.Hosts(), func(host string) bool { return !scan.Belongs(issuer, host) }) {
			continue
		}
		if best.ID == "" || best.Auth != "api_key" && p.Auth == "api_key" { // a key goes where keys go
			best, rec = p, r
		}
	}
	if best.ID == "" {
		if named != "" {
			return found.Account{}, fault.New(fault.NotFound, "not_found", "There is no provider "+plain(named)+".").WithHint("ambit provider list names them.")
		}
		return found.Account{}, nil
	}
	page, err := cl.Connections(ctx, client.ConnectionFilter{OrganizationID: o.vault.Accounts, Provider: best.ID, State: "connected", Limit: 1})
	if err != nil {
		return found.Account{}, err
	}
	a := found.Account{Provider: best.ID, Placeholder: rec.Placeholder(""), Connected: len(page.Data) > 0}
	switch parts := rec.CredentialFields(); {
	case rec.Auth == provider.APIKey && len(parts) == 1 && len(rec.Open()) == 0:
		a.Part, a.Hosts = parts[0], rec.Hosts()
	case !a.Connected:
		a.Note = "Connect an account at " + best.Name + " yourself: ambit connection connect " + best.ID
	}
	return a, nil
}

// entryOf is what connects a program to this server, by the form of the file and the
// section. Claude Desktop takes no address there.
func entryOf(url string) func(file string, section []string) map[string]any {
	return func(file string, section []string) map[string]any {
		file = filepath.ToSlash(file)
		if strings.HasSuffix(file, "/claude_desktop_config.json") {
			return nil
		}
		if len(section) == 0 {
			return map[string]any{}
		}
		name := section[len(section)-1]
		form := "claude"
		switch {
		case strings.HasSuffix(file, "/mcp_config.json"):
			form = "windsurf"
		case strings.HasSuffix(file, "/cline_mcp_settings.json"):
			return map[string]any{"type": "streamableHttp", "url": url}
		case strings.HasSuffix(file, "/mcp_settings.json"):
			return map[string]any{"type": "streamable-http", "url": url}
		case strings.Contains(file, "/.gemini/"), strings.Contains(file, "/.qwen/"):
			form = "gemini"
		case strings.Contains(file, "/.cursor/"), name == "amp.mcpServers":
			form = "cursor"
		default:
			for _, a := range agentClients {
				if a.section == name && name != "mcpServers" {
					form = a.name
				}
			}
		}
		i := slices.IndexFunc(agentClients, func(a agentClient) bool { return a.name == form })
		return agentClients[i].filled(url)
	}
}

func (c *command) sayTaken(changes []found.Change, left []found.Left, applied bool) {
	revoke := map[string]bool{}
	taken := int64(0)
	for _, ch := range changes {
		taken += int64(len(ch.Takes))
		c.say("%s", c.paint(c.stdout, "1", plain(ch.File)))
		for _, t := range ch.Takes {
			c.say("  %d  %s\n     %s\n     %s", t.Line, plain(first(t.Key, t.Title)), c.paint(c.stdout, "31", "- "+plain(t.Masked)), c.paint(c.stdout, "32", "+ "+plain(t.Placeholder)))
			switch {
			case t.Note != "":
				c.say("     %s", plain(t.Note))
			case t.Connection != "":
				c.say("     connected at %s: %s", plain(t.Provider), plain(t.Connection))
			case len(t.Hosts) > 0:
				c.say("     becomes a connection at %s: sent to %s", plain(t.Provider), plain(words(t.Hosts)))
			case t.Provider != "":
				c.say("     %s has an account already", plain(t.Provider))
			}
			if t.Revoke != "" {
				revoke[t.Title+": "+t.Revoke] = true
			}
		}
		for _, s := range ch.Servers {
			c.say("  %s", c.paint(c.stdout, "32", "MCP server "+plain(s.Name)+": its entry becomes this server's /mcp"))
		}
	}
	for _, l := range left {
		c.say("%s:%d  %s stays: %s", plain(l.File), l.Line, plain(l.Kind), plain(l.Why))
	}
	switch {
	case len(changes) == 0:
		c.note("Nothing to take out.")
		return
	case !applied:
		c.say("\nNothing was changed: %s would come out of %s. To do this: the same command with --apply.", count(taken, "credential", "credentials"), count(int64(len(changes)), "file", "files"))
		return
	}
	c.say("\nDone: %s came out of %s. The values are in the vault (ambit secret list --prefix found/); to put files back: ambit import findings --undo FILE|FOLDER",
		count(taken, "credential", "credentials"), count(int64(len(changes)), "file", "files"))
	if len(revoke) > 0 {
		c.say("Now revoke what lay there. For one that became a connection, give that a new key first (ambit connection connect PROVIDER --reconnect ID):")
		for _, line := range slices.Sorted(maps.Keys(revoke)) {
			c.say("  %s", plain(line))
		}
	}
}

func (c *command) putBack(ctx context.Context, v found.Vault, args []string) error {
	if len(args) == 0 {
		return usageError{errors.New("ambit import findings --undo takes the files to put back, or folders that they are in")}
	}
	var err error
	if v.To, err = c.api(ctx); err != nil {
		return err
	}
	if v.Machine, err = c.machine(false); err != nil {
		return err
	}
	var files, back []string
	var failed error
	for _, arg := range args {
		if info, err := os.Stat(arg); err == nil && info.IsDir() {
			below, err := v.Taken(ctx, arg)
			if err != nil {
				return err
			}
			files = append(files, below...)
			continue
		}
		files = append(files, arg)
	}
	for _, file := range files { // one that was changed since does not keep the others from it
		if err := v.Undo(ctx, file); err != nil {
			if len(files) == 1 || fault.Of(err).Kind != fault.Conflict {
				return err
			}
			f := fault.Of(err)
			c.note("%s %s", plain(f.Message), plain(f.Hint))
			failed = fault.New(fault.Conflict, "file_changed", "Not all files were put back.").WithHint("The others are as they were; the list says why.")
			continue
		}
		back = append(back, file)
	}
	if err := c.show(map[string]any{"restored": some(back)}, func() {
		for _, file := range back {
			c.say("As it was: %s", plain(file))
		}
		if len(files) == 0 {
			c.note("Nothing was taken out there.")
		}
	}); err != nil {
		return err
	}
	return failed
}

package cli

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/disk"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/intake"
	"github.com/ambit-dev/ambit/internal/intake/found"
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
	all         bool
	only        []string
	from        string
	records     map[string]string
}

func (c *command) importFindings(use string) *cobra.Command {
	o := foundFlags{risk: "high"}
	var undo, todo bool
	var done []string
	cmd := &cobra.Command{
		Use: use + " [FOLDER|FILE ...]", Short: "Take the credentials that ambit scan finds out of their files",
		Long: "Scan, store each credential in the vault, and put a placeholder where it stood. At a terminal you pick from a list, see what\n" +
			"would change, and are asked. Elsewhere it shows what would change, and --apply does it: all that was found, what --only\n" +
			"names, or what stands in a report of `ambit scan --json`, with --from.\n\n" +
			"Where the server has a provider of that name and host, an API key becomes a connection too. An entry of an MCP server whose\n" +
			"keys all have become connections becomes one of this server's /mcp.\n\n" +
			"Each file is kept in the vault as it was; --undo puts files back, to the byte, unless they were changed since. What\n" +
			"is in a repository's history or in another form (encoded, in a process) is told and left. Then revoke the keys: the\n" +
			"places that held them have been read by whoever could. --todo lists those that still work, at any time; --revoke does it\n" +
			"where the provider lets a key be revoked with itself.",
		Args: cobra.ArbitraryArgs,
		Example: "  ambit import findings ~/project --min-risk medium\n  ambit import findings --home --apply --revoke\n  ambit import findings . --only GITHUB_TOKEN --only app/.env --apply\n" +
			"  ambit scan --home --json > report.json; ambit import findings --from report.json\n  ambit import findings --todo\n  ambit import findings --undo ~/.cursor/mcp.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case undo && todo || (undo || todo) && (o.apply || o.all || len(o.only) > 0 || o.from != "") || undo && o.revoke:
				return usageError{errors.New("--undo and --todo go alone")}
			case len(done) > 0 && !todo:
				return usageError{errors.New("--done goes with --todo")}
			case o.all && len(o.only) > 0:
				return usageError{errors.New("one of --all and --only")}
			case undo:
				return c.putBack(cmd.Context(), o.vault, args)
			case todo:
				return c.openFound(cmd.Context(), o, done)
			}
			if (len(o.only) > 0 || o.from != "") && !cmd.Flags().Changed("min-risk") {
				o.risk = "low" // what is named is meant
			}
			return c.takeOut(cmd.Context(), args, o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.home, "home", false, "also the places below your home folder where agents and programs keep credentials")
	f.StringVar(&o.baseline, "baseline", "", "leave out what this file accepts")
	oneOf(cmd, &o.risk, "min-risk", "take what has this risk or a higher one: high, medium or low", "high", "medium", "low")
	f.BoolVar(&o.all, "all", false, "take all of it, and offer no list at a terminal")
	f.StringArrayVar(&o.only, "only", nil, "take only this FILE, FOLDER, FILE:LINE, KIND, PROVIDER or name of a key; with --from a FINGERPRINT of the report too (repeatable)")
	f.StringVar(&o.from, "from", "", "take what stands in this report of ambit scan --json, in the files that it names (- is standard input)")
	f.BoolVar(&o.apply, "apply", false, "store the values and change the files")
	f.BoolVar(&o.logins, "logins", false, "also take what programs keep of their own login, which signs them out, and SSH keys")
	f.BoolVar(&undo, "undo", false, "put the named files, and those in the named folders, back as they were")
	f.BoolVar(&todo, "todo", false, "list the keys that were taken out of files here and still work, with where each is revoked")
	f.StringArrayVar(&done, "done", nil, "with --todo: this one, by the name of its secret, is revoked; take it off the list (repeatable)")
	f.BoolVar(&o.no, "no-connect", false, "connect no accounts, and leave the entries of MCP servers")
	f.StringArrayVar(&o.connect, "connect", nil, "connect the keys of an issuer at this provider of the server: ISSUER=PROVIDER, such as gitlab=our_gitlab (repeatable)")
	f.StringVar(&o.vault.Owner, "owner", "", "user whose the accounts become (default: the organization's)")
	c.completes(cmd, "owner", c.userIDs)
	f.BoolVar(&o.revoke, "revoke", false, "with --apply or --todo: revoke each key that became no connection, where its provider takes it back from whoever has it")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask before changing files or revoking")
	for _, name := range []string{"baseline", "from"} {
		_ = cmd.MarkFlagFilename(name, "json")
	}
	c.orgFlag(cmd, &o.vault.Organization, "organization whose they become")
	return cmd
}

func (c *command) takeOut(ctx context.Context, args []string, o foundFlags) error {
	asks := c.asks() && !c.json
	if o.revoke && !o.apply && !asks {
		return usageError{errors.New("--revoke goes with --apply, or with --todo")}
	}
	if err := c.mayRevoke(o); err != nil {
		return err
	}
	var err error
	if o.records, err = pairs("--connect", o.connect); err != nil {
		return err
	}
	var report []scan.Finding // that was given
	if o.from != "" {
		if report, err = c.readReport(ctx, o.from); err != nil {
			return err
		}
		args = append(args, filesOf(report)...)
		if len(args) == 0 && !o.home {
			c.note("The report names no file.")
			return nil
		}
	}
	opt, err := c.scanOptions(args, o.scanFlags)
	if err != nil {
		return err
	}
	shows := c.progress()
	opt.Progress = shows.shared("file read", "files read")
	got, err := scan.Run(ctx, opt)
	shows.end()
	if err == nil {
		err = ctx.Err() // what was found until then is not all there is to pick from
	}
	if err != nil {
		return err
	}
	machine, err := c.machine(o.apply || asks)
	if err != nil {
		return err
	}
	o.vault.Machine = machine
	take := found.Options{Machine: machine, Risk: scan.Risk(o.risk), Logins: o.logins, Named: args, Moved: opt.Moved}
	if take.Only, err = onlySome(got.Findings, report, o.only, o.from != ""); err != nil {
		return err
	}
	if n := missingFrom(got.Findings, report); n > 0 {
		c.note("%s of the report: nothing is there any more, or at another line. Scan again to be sure.", count(int64(n), "place", "places"))
	}
	if !o.no && slices.ContainsFunc(got.Findings, scan.Finding.IsKey) {
		err := c.accounts(ctx, &o, got.Findings, &take)
		switch {
		case err != nil && (o.apply || len(o.records) > 0):
			return err
		case err != nil:
			_, why := intake.Told(err)
			c.note("What would be connected is not known without a server. %s", plain(why))
		}
	}
	changes, left := found.Plan(got.Findings, take)
	if asks && !o.all && len(o.only) == 0 && o.from == "" && len(changes) > 0 {
		if take.Only, err = c.pick(ctx, changes); err != nil {
			return err
		}
		changes, left = found.Plan(got.Findings, take)
	}
	shown := asks && !o.apply && len(changes) > 0
	if shown {
		c.sayChanges(changes)
		c.sayLeft(left)
		n, files := taken(changes)
		if err := c.ask(ctx, o.yes, "Take "+n+" out of "+files+" now?", "this changes files"); err != nil {
			return err
		}
		o.apply = true
	}
	var failed []notTaken
	var todo []found.Open
	if o.apply && len(changes) > 0 {
		if changes, failed, err = c.applyFound(ctx, &o, changes); err != nil {
			return err
		}
		if todo, err = o.vault.Todo(ctx); err != nil {
			return err
		}
	}
	out := map[string]any{"applied": o.apply, "changes": some(changes), "left": some(left)}
	if o.apply {
		out["failed"], out["todo"] = some(failed), some(todo)
	}
	if err := c.show(out, func() {
		if len(failed) > 0 && len(changes) == 0 {
			c.sayLeft(left)
			return
		}
		if shown {
			c.sayNotConnected(changes)
			c.sayDone(changes, todo)
			return
		}
		c.sayTaken(changes, left, o.apply, todo)
	}); err != nil {
		return err
	}
	if o.revoke {
		err = c.revokeFound(ctx, o, takenNow(todo, changes))
	}
	if len(failed) > 0 {
		for _, f := range failed {
			c.note("%s", plain(f.Why))
		}
		return fault.New(fault.Conflict, "import_incomplete", count(int64(len(failed)), "file was", "files were")+" not changed.").WithHint("The lines above say why. Mend that and run it again: it takes what is left.")
	}
	return err
}

// takenNow are those of todo that these changes took out of files: what else waits on the
// list was not meant by who has these revoked.
func takenNow(todo []found.Open, changes []found.Change) (out []found.Open) {
	now := map[string]bool{}
	for _, ch := range changes {
		for _, t := range ch.Takes {
			now[t.Secret] = true
		}
	}
	for _, o := range todo {
		if slices.ContainsFunc(o.Secrets, func(name string) bool { return now[name] }) {
			out = append(out, o)
		}
	}
	return out
}

// notTaken is a file that could not be changed.
type notTaken struct {
	File string `json:"file"`
	Code string `json:"code"`
	Why  string `json:"why"`
}

// applyFound takes the changes out of their files. A file that cannot be changed keeps no
// other from it; a server that fails ends it.
func (c *command) applyFound(ctx context.Context, o *foundFlags, changes []found.Change) (done []found.Change, failed []notTaken, err error) {
	unlock, err := c.onlyImport()
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	if o.vault.To, err = c.importing(ctx); err != nil {
		return nil, nil, err
	}
	shows := c.progress()
	defer shows.end()
	for i := range changes {
		err := o.vault.Apply(ctx, &changes[i])
		if f, ok := errors.AsType[*fault.Error](err); ok && (f.Code == "file_unwritable" || f.Code == "file_changed") {
			failed = append(failed, notTaken{changes[i].File, f.Code, strings.TrimSpace(f.Message + " " + f.Hint)})
			continue
		}
		if err != nil {
			shows.end()
			c.note("%s could not be taken out of.", plain(changes[i].File))
			if len(done) > 0 {
				c.note("%s done before that; run it again to go on.", count(int64(len(done)), "file was", "files were"))
			}
			return nil, nil, err
		}
		done = append(done, changes[i])
		shows.at(int64(len(done)), "file changed", "files changed")
	}
	return done, failed, nil
}

// onlyImport keeps two imports of this machine from changing the same files at once.
func (c *command) onlyImport() (unlock func(), err error) {
	path, err := c.loginFile()
	if err != nil {
		return nil, err
	}
	unlock, busy, err := disk.Lock(filepath.Join(filepath.Dir(path), "import.lock"))
	if busy {
		return nil, fault.New(fault.Conflict, "import_running", "Another import of yours is changing files on this machine.").WithHint("Wait for it, and run this again.")
	}
	if errors.Is(err, fs.ErrNotExist) { // nothing was ever taken here
		return func() {}, nil
	}
	return unlock, err
}

// accounts finds out which providers of the server take the keys that were found.
func (c *command) accounts(ctx context.Context, o *foundFlags, list []scan.Finding, take *found.Options) error {
	cl, err := c.importing(ctx)
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

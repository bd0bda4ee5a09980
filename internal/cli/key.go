package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring/local"
)

func (c *command) custodyCommand() *cobra.Command {
	return c.group("key", "Keys: what seals the secrets of each context, and whose root key wraps it", c.keyStatus(), c.keyMake(), c.contextKeyList(), c.keyShow(), c.keyRotate(),
		c.keyBindings(), c.keyProbe(), c.keyBind(), c.keyMigrate(), c.keyDoubt(), c.keyUnbind(), c.keyShred())
}

func (c *command) keyStatus() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show where root keys, keys and values stand, of the whole server", Args: takes(0, "no arguments"),
		RunE: c.with(func(ctx context.Context, cl *client.Client, _ []string) error {
			s, err := cl.KeyStatus(ctx)
			if err != nil {
				return err
			}
			return c.show(s, func() {
				now := time.Now()
				rows := make([][]string, 0, len(s.Roots))
				for _, r := range s.Roots {
					whose := "customer's"
					if r.Primary {
						whose = "primary"
					} else if r.Own {
						whose = "own"
					}
					rows = append(rows, []string{r.Ref, whose, r.State, when(r.Since, now), fmt.Sprint(r.Keys), fmt.Sprint(r.Audit), r.Location})
				}
				c.table([]string{"ROOT KEY", "WHOSE", "STATE", "SINCE", "KEYS", "AUDIT", "WHERE"}, rows, "")
				c.say("\n%s, %d shredded.", count(s.Keys, "key", "keys"), s.Shredded)
				if s.WaitingSeeds+s.WaitingVersions == 0 {
					c.say("Everything is under the key that it should be under.")
					return
				}
				c.say("Waiting: %s for another root key, %s under %s.", count(s.WaitingSeeds, "key", "keys"), count(s.WaitingValues, "value", "values"), count(s.WaitingVersions, "older version", "older versions"))
			})
		}),
	}
}

func (c *command) keyMake() *cobra.Command {
	return &cobra.Command{
		Use: "make FILE", Short: "Make another root key in a new file, for the server to move to", Args: takes(1, "one argument: the file to make"),
		Long: "Make a root key in FILE, which must not exist and which only this user can read. Name it in AMBIT_ROOT_KEYS_OTHER on every\n" +
			"node, restart them, and make it primary with ambit key rotate --root. The first root key is made by the first start.",
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := filepath.Abs(args[0])
			if err != nil {
				return fmt.Errorf("finding the file for the root key: %w", err)
			}
			k, err := local.Create(path)
			if err != nil {
				if errors.Is(err, fs.ErrExist) {
					err = fault.New(fault.Conflict, "file_exists", path+" exists already.").WithHint("A root key is never overwritten: name another file.").WithCause(err)
				}
				return err
			}
			ref := k.Describe().Ref
			return c.show(map[string]string{"root": ref, "file": path}, func() {
				c.say("%s is in %s. Keep a copy apart from the backups of the data.\nThen: AMBIT_ROOT_KEYS_OTHER=%s on every node, and ambit key rotate --root %s --wait", plain(ref), plain(path), word(path), word(ref))
			})
		},
	}
}

func (c *command) contextKeyList() *cobra.Command {
	var p paging
	var org, user string
	cmd := &cobra.Command{
		Use: "list", Short: "List the keys of key contexts", Args: takes(0, "no arguments"),
		RunE: c.with(func(ctx context.Context, cl *client.Client, _ []string) error {
			page, err := pages(ctx, p, func(ctx context.Context, q client.Paging) (client.Page[client.ContextKey], error) {
				return cl.ContextKeys(ctx, org, user, q)
			})
			if err != nil {
				return err
			}
			named := c.keyNames(ctx, cl)
			return showPage(c, page, []string{"CONTEXT", "VERSION", "VALUES", "STATE", "ROTATED", "NEXT", "ROOT KEY", "ID"}, "No keys yet: the first value of a context makes its key.", func(k client.ContextKey, now time.Time) []string {
				version := fmt.Sprint(k.Version)
				if !k.ShreddedAt.IsZero() {
					version = "-"
				}
				return []string{named.context(k.Context), version, fmt.Sprint(k.Values), contextKeyState(k), when(k.RotatedAt, now), when(k.DueAt, now), k.Root, k.ID}
			})
		}),
	}
	c.orgFlag(cmd, &org, "whose context names this organization")
	cmd.Flags().StringVar(&user, "user", "", "whose context names this user")
	p.flags(cmd)
	return cmd
}

// contextOf is a key context on one line.
func contextOf(items map[string]string) string {
	if len(items) == 0 {
		return "(environment)"
	}
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(items)) {
		parts = append(parts, k+"="+items[k])
	}
	return strings.Join(parts, " ")
}

// contextKeyState says in a word what somebody should know of a key.
func contextKeyState(k client.ContextKey) string {
	switch {
	case !k.ShreddedAt.IsZero():
		return "shredded"
	case k.RootState != "fine":
		return k.RootState
	case k.Moving > 0:
		return "moving"
	}
	return "fine"
}

// keyNames says organizations and users by name, each asked for once. Who may not see
// them gets their ids; so does JSON.
type keyNames struct {
	ctx   context.Context
	cl    *client.Client
	known map[string]string
}

func (c *command) keyNames(ctx context.Context, cl *client.Client) *keyNames {
	return &keyNames{ctx: ctx, cl: cl, known: map[string]string{}}
}

func (n *keyNames) name(id string, ask func(context.Context, string) (string, error)) string {
	if _, ok := n.known[id]; !ok {
		n.known[id] = id
		if name, err := ask(n.ctx, id); err == nil && name != "" {
			n.known[id] = name
		}
	}
	return n.known[id]
}

func (n *keyNames) organization(id string) string {
	return n.name(id, func(ctx context.Context, id string) (string, error) {
		o, err := n.cl.Organization(ctx, id)
		return o.Name, err
	})
}

func (n *keyNames) user(id string) string {
	return n.name(id, func(ctx context.Context, id string) (string, error) {
		u, err := n.cl.User(ctx, id)
		return u.Name, err
	})
}

// context is a key context on one line.
func (n *keyNames) context(items map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(items)) {
		switch k {
		case "organization_id":
			parts = append(parts, n.organization(items[k]))
		case "user_id":
			parts = append(parts, n.user(items[k]))
		default:
			parts = append(parts, k+"="+items[k])
		}
	}
	if len(parts) == 0 {
		return "(environment)"
	}
	return strings.Join(parts, ", ")
}

func (n *keyNames) scope(b client.RootBinding) string {
	items := map[string]string{}
	if b.OrganizationID != "" {
		items["organization_id"] = b.OrganizationID
	}
	if b.UserID != "" {
		items["user_id"] = b.UserID
	}
	if len(items) == 0 {
		return "the whole environment"
	}
	return n.context(items)
}

func (c *command) keyShow() *cobra.Command {
	var org string
	cmd := &cobra.Command{
		Use: "show KEY", Short: "Describe a key, and count what is under its older versions", Args: takes(1, "one argument: the key's id"),
		ValidArgsFunction: c.completion(c.contextKeyIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			k, err := cl.ContextKey(ctx, args[0], org)
			if err != nil {
				return err
			}
			return c.showKey(k)
		}),
	}
	c.orgFlag(cmd, &org, "organization whose it is")
	return cmd
}

func (c *command) showKey(k client.ContextKey) error {
	return c.show(k, func() {
		c.say("%s\n  context   %s", plain(k.ID), plain(contextOf(k.Context)))
		if !k.ShreddedAt.IsZero() {
			c.say("  shredded  %s", k.ShreddedAt.Format(time.RFC3339))
			return
		}
		c.say("  version   %d, since %s; the next by %s\n  root key  %s, %s\n  values    %d\n  uses      %d of %d, counted ahead", k.Version, k.RotatedAt.Format(time.RFC3339), k.DueAt.Format(time.DateOnly),
			plain(k.Root), plain(k.RootState), k.Values, k.Uses, k.MaxUses)
		for _, o := range k.Older {
			kept := ""
			if o.Kept {
				kept = "; kept for data keys that applications hold"
			}
			c.say("  older     version %d under %s: %s%s", o.Version, plain(o.Root), count(o.Values, "value", "values"), kept)
		}
	})
}

func (c *command) keyRotate() *cobra.Command {
	var org, root, dataDir string
	var reencrypt, wait bool
	cmd := &cobra.Command{
		Use: "rotate [KEY]", Short: "Replace a key, or with --root the server's root key",
		Long: "Give a key another version. What is under the old one follows in the background; nothing stops meanwhile.\n\n" +
			"With --root, make another of the server's root keys primary. It is run on the server, whose every node must have that key in\n" +
			"AMBIT_ROOT_KEY or AMBIT_ROOT_KEYS_OTHER.",
		Example:           "  ambit key rotate kek_…\n  ambit key rotate kek_… --reencrypt\n  ambit key rotate --root file:3f9c…",
		Args:              upTo(1, "at most one argument: the key's id"),
		ValidArgsFunction: c.completion(c.contextKeyIDs, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (root != "") {
				return usageError{errors.New("ambit key rotate takes a key, or --root")}
			}
			if root != "" {
				return c.rotateRoot(cmd.Context(), dataDir, root, wait)
			}
			return c.with(func(ctx context.Context, cl *client.Client, args []string) error {
				k, err := cl.RotateContextKey(ctx, args[0], org, reencrypt)
				if err == nil && wait {
					k, err = c.awaitKey(ctx, cl, k, org)
				}
				if err != nil {
					return err
				}
				return c.showKey(k)
			})(cmd, args)
		},
	}
	c.orgFlag(cmd, &org, "organization whose it is")
	cmd.Flags().BoolVar(&reencrypt, "reencrypt", false, "encrypt every value anew, and not only wrap its data key anew")
	cmd.Flags().BoolVar(&wait, "wait", false, "until nothing is under older versions any more")
	cmd.Flags().StringVar(&root, "root", "", "the server's root key to make primary, as ambit key status names it")
	cmd.Flags().StringVar(&dataDir, "data", "", "data folder of the server, for --root (default: AMBIT_DATA_DIR, else ~/.ambit/data)")
	_ = cmd.MarkFlagDirname("data")
	return cmd
}

// awaitKey waits until everything is under the version of k that seals, and shows how
// much is.
func (c *command) awaitKey(ctx context.Context, cl *client.Client, k client.ContextKey, org string) (client.ContextKey, error) {
	shows := c.progress()
	defer shows.end()
	for k.Moving > 0 {
		moved := k.Values
		for _, o := range k.Older {
			moved -= o.Values
		}
		shows.at(moved, "value moved", "values moved")
		select {
		case <-ctx.Done():
			return k, ctx.Err()
		case <-time.After(migratePause):
		}
		var err error
		if k, err = cl.ContextKey(ctx, k.ID, org); err != nil {
			return k, err
		}
	}
	return k, nil
}

func (c *command) rotateRoot(ctx context.Context, dataDir, root string, wait bool) error {
	cfg, err := c.serverConfig(dataDir, "")
	if err != nil {
		return err
	}
	left, err := onServer(ctx, cfg, func(ctx context.Context, socket string) (int64, error) {
		if _, err := askConsole(ctx, socket, http.MethodPost, "/keys/root", url.Values{"ref": {root}}); err != nil {
			return 0, err
		}
		return c.awaitRoot(ctx, socket, wait)
	}, func(ctx context.Context, a *app.App) (int64, error) {
		err := a.UseRoot(ctx, root)
		if err == nil && wait { // no server runs that would do it
			err = a.Vault.Rotate(ctx)
		}
		if err != nil {
			return 0, err
		}
		return a.Vault.Rest(ctx)
	})
	if err != nil {
		return err
	}
	return c.show(map[string]any{"root": root, "primary": true, "left": left}, func() {
		if left == 0 {
			c.say("%s is primary now, and wraps everything of the server's.", plain(root))
			return
		}
		c.say("%s is primary now. What the old root key wraps follows in the background: ambit key status", plain(root))
	})
}

// awaitRoot says how much the primary root key does not wrap yet, and with wait
// returns when that is nothing.
func (c *command) awaitRoot(ctx context.Context, socket string, wait bool) (int64, error) {
	shows := c.progress()
	defer shows.end()
	for {
		body, err := askConsole(ctx, socket, http.MethodGet, "/keys/root", nil)
		if err != nil {
			return 0, err
		}
		var rest app.RootRest
		if err := json.Unmarshal(body, &rest); err != nil {
			return 0, fmt.Errorf("reading how much is left: %w", err)
		}
		if rest.Left == 0 || !wait {
			return rest.Left, nil
		}
		shows.at(rest.Left, "key to go", "keys to go")
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(migratePause):
		}
	}
}

// scopeFlags are those that say whose keys are meant.
func (c *command) scopeFlags(cmd *cobra.Command, org, user *string) {
	c.orgFlag(cmd, org, "for this organization")
	cmd.Flags().StringVar(user, "user", "", "for this user only")
}

func (c *command) keyProbe() *cobra.Command {
	var n client.NewRootBinding
	cmd := &cobra.Command{
		Use: "probe URI", Short: "Try a customer's root key, and change nothing", Args: takes(1, "one argument: the URI of the root key"),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			n.URI = args[0]
			p, err := cl.ProbeRoot(ctx, n)
			if err != nil {
				return err
			}
			err = c.show(p, func() {
				c.say("%s", plain(p.Root))
				for _, s := range p.Steps {
					mark := "ok  "
					if !s.OK {
						mark = "FAIL"
					}
					c.say("  %s  %s", mark, plain(s.Text))
				}
			})
			if err == nil && !p.OK {
				err = fault.New(fault.Invalid, "root_key_unfit", "The root key did not pass.").WithHint("Bind it only when it does.")
			}
			return err
		}),
	}
	c.scopeFlags(cmd, &n.OrganizationID, &n.UserID)
	return cmd
}

func (c *command) keyBind() *cobra.Command {
	var n client.NewRootBinding
	cmd := &cobra.Command{
		Use: "bind URI", Short: "Let a customer's root key wrap the keys of an organization, or of a user in one",
		Long: "Let a customer's root key wrap the keys of an organization, of a user in one, or, without --org, of the whole environment.\n" +
			"It is tried first. What is sealed already follows in the background: ambit key migrate.",
		Example: "  ambit key bind 'awskms:///arn:aws:kms:…' --org org_…",
		Args:    takes(1, "one argument: the URI of the root key"),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			n.URI = args[0]
			b, err := cl.BindRoot(ctx, n)
			if err != nil {
				return err
			}
			return c.showBinding(b)
		}),
	}
	c.scopeFlags(cmd, &n.OrganizationID, &n.UserID)
	cmd.Flags().StringVar(&n.Mode, "mode", "", "required (default): never without this key; or preferred: new values under the server's while it is away")
	_ = cmd.RegisterFlagCompletionFunc("mode", cobra.FixedCompletions([]string{"required", "preferred"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (c *command) showBinding(b client.RootBinding) error {
	return c.show(b, func() {
		c.say("%s\n  for       %s\n  root key  %s (%s), %s\n  mode      %s\n  keys      %d of %d under it; %s elsewhere", plain(b.ID), plain(scopeOf(b)), plain(b.Root), plain(b.URI), plain(b.State),
			plain(b.Mode), b.Under, b.Keys, count(b.Waiting, "older version", "older versions"))
	})
}

func scopeOf(b client.RootBinding) string {
	switch {
	case b.UserID != "":
		return b.OrganizationID + " " + b.UserID
	case b.OrganizationID != "":
		return b.OrganizationID
	}
	return "the whole environment"
}

func (c *command) keyBindings() *cobra.Command {
	var org string
	cmd := &cobra.Command{
		Use: "bindings", Short: "List customers' root keys and what they are bound to", Args: takes(0, "no arguments"),
		RunE: c.with(func(ctx context.Context, cl *client.Client, _ []string) error {
			page, err := cl.RootBindings(ctx, org)
			if err != nil {
				return err
			}
			named := c.keyNames(ctx, cl)
			return showPage(c, page, []string{"FOR", "MODE", "STATE", "KEYS", "ROOT KEY", "ID"}, "No root key is bound. Bind one with: ambit key bind URI", func(b client.RootBinding, _ time.Time) []string {
				return []string{named.scope(b), b.Mode, b.State, fmt.Sprintf("%d of %d", b.Under, b.Keys), b.URI, b.ID}
			})
		}),
	}
	c.orgFlag(cmd, &org, "of this organization only")
	return cmd
}

// migratePause is how often a migration is looked at while somebody waits for it.
const migratePause = 300 * time.Millisecond

func (c *command) keyMigrate() *cobra.Command {
	var wait bool
	cmd := &cobra.Command{
		Use: "migrate BINDING", Short: "Move what is not under a binding's root key yet, and show how far it is", Args: takes(1, "one argument: the binding's id"),
		ValidArgsFunction: c.completion(c.bindingIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			shows := c.progress()
			defer shows.end()
			for {
				b, err := cl.MigrateBinding(ctx, args[0])
				if err != nil || !wait || b.Under == b.Keys {
					if err != nil {
						return err
					}
					shows.end()
					return c.showBinding(b)
				}
				shows.at(b.Under, "key moved", "keys moved")
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(migratePause):
				}
			}
		}),
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "until all keys are under it")
	return cmd
}

func (c *command) keyDoubt() *cobra.Command {
	return &cobra.Command{
		Use: "doubt BINDING", Short: "Forget what a root key unwrapped until its keeper says yes again", Args: takes(1, "one argument: the binding's id"),
		Long:              "Forget what a root key unwrapped, on every node, until its keeper says yes again. For who has disabled their key and does\nnot want to wait the minutes until that is noticed.",
		ValidArgsFunction: c.completion(c.bindingIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			if err := cl.DoubtBinding(ctx, args[0]); err != nil {
				return err
			}
			return c.show(map[string]any{"id": args[0], "doubted": true}, func() { c.say("Every node asks the keeper before it uses that root key again.") })
		}),
	}
}

func (c *command) keyUnbind() *cobra.Command {
	return &cobra.Command{
		Use: "unbind BINDING", Short: "Take a customer's root key out again", Args: takes(1, "one argument: the binding's id"),
		Long:              "Take a customer's root key out again. What it wraps comes back under the server's in the background,\nand needs the key until then.",
		ValidArgsFunction: c.completion(c.bindingIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			if err := cl.UnbindRoot(ctx, args[0]); err != nil {
				return err
			}
			return c.show(map[string]any{"id": args[0], "unbound": true}, func() {
				c.say("It is bound no more. Keep the key until nothing is under it: ambit key status")
			})
		}),
	}
}

func (c *command) keyShred() *cobra.Command {
	var s client.Shred
	var yes bool
	cmd := &cobra.Command{
		Use: "shred [KEY]", Short: "Destroy a key, or all keys of an organization or a user, for good",
		Long: "Destroy a key, or all keys of an organization or a user, for good. Nobody can read what they sealed any more, and their\n" +
			"contexts never get another key. Backups from before still hold the keys, wrapped: see docs/keys.md.",
		Example: "  ambit key shred kek_…\n  ambit key shred --org org_…\n  ambit key shred --user user_…",
		Args:    upTo(1, "at most one argument: the key's id"), ValidArgsFunction: c.completion(c.contextKeyIDs, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			what := "all keys of " + strings.TrimSpace(s.OrganizationID+" "+s.UserID)
			if len(args) == 1 {
				s.KeyID, what = args[0], "the key "+args[0]
			} else if s.OrganizationID == "" && s.UserID == "" {
				return usageError{errors.New("ambit key shred takes a key, --org or --user")}
			}
			if err := c.confirm(ctx, yes, "Destroy "+what+" for good? Nobody can read what they sealed any more."); err != nil {
				return err
			}
			n, err := cl.ShredKeys(ctx, s)
			if err != nil {
				return err
			}
			return c.show(map[string]any{"keys": n}, func() { c.say("Destroyed %s.", count(int64(n), "key", "keys")) })
		}),
	}
	c.scopeFlags(cmd, &s.OrganizationID, &s.UserID)
	yesFlag(cmd, &yes)
	return cmd
}

func (c *command) contextKeyIDs(ctx context.Context, cl *client.Client) ([]string, error) {
	page, err := cl.ContextKeys(ctx, "", "", client.Paging{Limit: completions})
	return listed(page, err, func(k client.ContextKey) (string, string) { return k.ID, contextOf(k.Context) })
}

func (c *command) bindingIDs(ctx context.Context, cl *client.Client) ([]string, error) {
	page, err := cl.RootBindings(ctx, "")
	return listed(page, err, func(b client.RootBinding) (string, string) { return b.ID, scopeOf(b) })
}

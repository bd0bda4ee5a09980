package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/intake/found"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/scan"
)

// taken says how many credentials come out of how many files.
func taken(changes []found.Change) (credentials, files string) {
	n := 0
	for _, ch := range changes {
		n += len(ch.Takes)
	}
	return count(int64(n), "credential", "credentials"), count(int64(len(changes)), "file", "files")
}

func (c *command) sayChanges(changes []found.Change) {
	for _, ch := range changes {
		c.say("%s", c.paint(c.stdout, "1", plain(ch.File)))
		for _, t := range ch.Takes {
			c.say("  %d  %s\n     %s\n     %s", t.Line, plain(first(t.Key, t.Title)), c.paint(c.stdout, "31", "- "+plain(t.Masked)), c.paint(c.stdout, "32", "+ "+plain(t.Placeholder)))
			if len(t.Also) > 0 {
				c.say("     and so where else the same value stands: line %s", strings.Trim(strings.ReplaceAll(fmt.Sprint(t.Also), " ", ", "), "[]"))
			}
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
		}
		for _, s := range ch.Servers {
			c.say("  %s", c.paint(c.stdout, "32", "MCP server "+plain(s.Name)+": its entry becomes this server's /mcp"))
		}
		if ch.OtherNames > 0 {
			c.say("  %s of this file (hard links) keep the old content. To find them: find / -xdev -inum %d", count(int64(ch.OtherNames), "other name", "other names"), ch.Inode)
		}
	}
}

func (c *command) sayLeft(left []found.Left) {
	for _, l := range left {
		line := fmt.Sprintf("%s:%d  %s stays: %s", plain(l.File), l.Line, plain(l.Kind), plain(l.Why))
		if l.Line == 0 {
			line = fmt.Sprintf("%s  %s stays: %s", plain(l.File), plain(l.Kind), plain(l.Why))
		}
		c.say("%s", line)
		if l.Revoke != "" {
			c.say("     to revoke it: %s", plain(l.Revoke))
		}
	}
}

func (c *command) sayTaken(changes []found.Change, left []found.Left, applied bool, todo []found.Open) {
	c.sayChanges(changes)
	c.sayLeft(left)
	n, files := taken(changes)
	switch {
	case len(changes) == 0:
		c.note("Nothing to take out.")
		return
	case !applied:
		c.say("\nNothing was changed: %s would come out of %s. To do this: the same command with --apply.", n, files)
		return
	}
	c.sayDone(changes, todo)
}

// sayNotConnected tells what became no connection, which is known only afterwards.
func (c *command) sayNotConnected(changes []found.Change) {
	for _, ch := range changes {
		for _, t := range ch.Takes {
			if t.Note != "" {
				c.say("%s:%d  %s", plain(ch.File), t.Line, plain(t.Note))
			}
		}
	}
}

func (c *command) sayDone(changes []found.Change, todo []found.Open) {
	n, files := taken(changes)
	c.say("\nDone: %s came out of %s. The values are in the vault (ambit secret list --prefix found/); to put files back: ambit import findings --undo FILE|FOLDER", n, files)
	c.sayTodo(todo)
}

// sayTodo lists the keys that still work.
func (c *command) sayTodo(todo []found.Open) {
	if len(todo) == 0 {
		c.note("No key that was taken out of files here is left to be revoked.")
		return
	}
	c.say("\n%s. Whoever could read the files can use them until each is revoked:", c.paint(c.stdout, "1", count(int64(len(todo)), "key still works", "keys still work")))
	byItself := 0
	for _, o := range todo {
		c.say("\n  %s  %s", c.paint(c.stdout, "1", plain(o.Title)), plain(o.Masked))
		for _, place := range o.Places {
			c.say("    lay in   %s", plain(place))
		}
		for _, conn := range o.Connections {
			c.say("    used by  %s: give that a new key first, ambit connection connect PROVIDER --reconnect %s", plain(conn), plain(conn))
		}
		switch {
		case o.Revoke != "":
			c.say("    revoke   %s", plain(o.Revoke))
		default:
			c.say("    change   where it was given out")
		}
		if o.RevokedAt != "" && len(o.Connections) == 0 {
			byItself++
			c.say("    or       let --todo --revoke do it, at %s", plain(o.RevokedAt))
		}
		c.say("    done     ambit import findings --todo --done %s", quoted(plain(o.Secrets[0])))
	}
	c.say("\nThis list again: ambit import findings --todo")
	if byItself > 0 {
		c.say("Ambit can revoke %d of them: ambit import findings --todo --revoke", byItself)
	}
}

// quoted is a word for a shell.
func quoted(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("/._-:@%+=", r) && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}

// openFound lists what still works, after taking off what is done and revoking what can be.
func (c *command) openFound(ctx context.Context, o foundFlags, done []string) error {
	if err := c.mayRevoke(o); err != nil {
		return err
	}
	var err error
	if o.vault.To, err = c.importing(ctx); err != nil {
		return err
	}
	if o.vault.Machine, err = c.machine(false); err != nil {
		return err
	}
	for _, name := range done {
		if err := o.vault.Close(ctx, name, found.ByHand); err != nil {
			return err
		}
	}
	todo, err := o.vault.Todo(ctx)
	if err != nil {
		return err
	}
	var failed error
	if o.revoke {
		if failed = c.revokeFound(ctx, o, todo); failed != nil && !fault.Is(failed, "not_revoked") {
			return failed
		}
		if todo, err = o.vault.Todo(ctx); err != nil {
			return err
		}
	}
	if err := c.show(map[string]any{"todo": some(todo)}, func() { c.sayTodo(todo) }); err != nil {
		return err
	}
	return failed
}

// mayRevoke reports whether somebody can be asked before keys are revoked.
func (c *command) mayRevoke(o foundFlags) error {
	if _, asking := c.terminalIn(); o.revoke && !o.yes && !asking {
		return usageError{errors.New("a revoked key never works again, and nobody can be asked here: add --yes to do it")}
	}
	return nil
}

// revokeFound has the providers take back what is used by no account. With --json it says
// on standard error what it says.
func (c *command) revokeFound(ctx context.Context, o foundFlags, todo []found.Open) error {
	var keys []scan.Finding
	hosts := map[string]bool{}
	for _, t := range todo {
		if t.RevokedAt == "" || len(t.Connections) > 0 {
			continue
		}
		f, err := o.vault.Finding(ctx, t)
		if err != nil {
			return err
		}
		// By the value, not by the note beside it, which others may edit: it is what is sent.
		if at := scan.RevokedAt(f); at != "" {
			keys, hosts[at] = append(keys, f), true
		}
	}
	if len(keys) == 0 {
		c.note("There is no key that can be revoked from here.")
		return nil
	}
	question := "Send " + count(int64(len(keys)), "key", "keys") + " to " + words(slices.Sorted(maps.Keys(hosts))) + " to be revoked for good?"
	if err := c.ask(ctx, o.yes, question, "a revoked key never works again"); err != nil {
		return err
	}
	out, err := outbound.New(outbound.Policy{})
	if err != nil {
		return err
	}
	defer out.Close()
	said := scan.Revoke(ctx, out, keys)
	kept := 0
	for _, f := range keys {
		state := first(said[f.Fingerprint], scan.Kept)
		c.note("%s %s: %s", plain(f.Title), plain(f.Masked), map[string]string{scan.Revoked: "revoked", scan.Accepted: "the provider is revoking it", scan.Dead: "it did not work any more", scan.Kept: "NOT revoked: do it yourself at " + first(plain(f.Revoke), "the provider")}[state])
		if state == scan.Kept {
			kept++
			continue
		}
		if err := o.vault.Close(ctx, f.Fingerprint, state); err != nil {
			return err
		}
	}
	if kept > 0 {
		return fault.New(fault.Unavailable, "not_revoked", count(int64(kept), "key was", "keys were")+" not revoked.").WithHint("The list says where to do it. Nothing of the import is lost.")
	}
	return nil
}

func (c *command) putBack(ctx context.Context, v found.Vault, args []string) error {
	if len(args) == 0 {
		return usageError{errors.New("ambit import findings --undo takes the files to put back, or folders that they are in")}
	}
	var err error
	if v.To, err = c.importing(ctx); err != nil {
		return err
	}
	if v.Machine, err = c.machine(false); err != nil {
		return err
	}
	unlock, err := c.onlyImport()
	if err != nil {
		return err
	}
	defer unlock()
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
	for _, file := range files { // one that was changed or moved since does not keep the others from it
		if err := v.Undo(ctx, file); err != nil {
			if k := fault.KindOf(err); len(files) == 1 || k != fault.Conflict && k != fault.NotFound {
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

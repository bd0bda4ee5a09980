package cli

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/internal/intake/found"
	"github.com/ambit-dev/ambit/internal/scan"
)

func (c *command) importFindings() *cobra.Command {
	var o scanFlags
	var v found.Vault
	var apply, undo bool
	risk := "high"
	cmd := &cobra.Command{
		Use: "findings [FOLDER|FILE ...]", Short: "Take the credentials that ambit scan finds out of their files",
		Long: "Scan, store each credential in the vault, and put a placeholder where it stood. Without --apply it shows what would change.\n" +
			"Each file is kept in the vault as it was; --undo puts files back, to the byte, unless they were changed since. What\n" +
			"is in a repository's history or in another form (encoded, in a process) is told and left. Then revoke the keys: the\n" +
			"places that held them have been read by whoever could.",
		Args:    cobra.ArbitraryArgs,
		Example: "  ambit import findings ~/project --min-risk medium\n  ambit import findings --home --apply\n  ambit import findings --undo ~/.cursor/mcp.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			if undo {
				return c.putBack(cmd.Context(), v, args)
			}
			return c.takeOut(cmd.Context(), v, args, o, scan.Risk(risk), apply)
		},
	}
	cmd.Flags().BoolVar(&o.home, "home", false, "also the places below your home folder where agents and programs keep credentials")
	cmd.Flags().StringVar(&o.baseline, "baseline", "", "leave out what this file accepts")
	cmd.Flags().Var(choice{&risk, []string{"high", "medium", "low"}}, "min-risk", "take what has this risk or a higher one: high, medium or low")
	cmd.Flags().BoolVar(&apply, "apply", false, "store the values and change the files")
	cmd.Flags().BoolVar(&undo, "undo", false, "put the named files back as they were")
	c.orgFlag(cmd, &v.Organization, "organization whose they become")
	return cmd
}

func (c *command) takeOut(ctx context.Context, v found.Vault, args []string, o scanFlags, risk scan.Risk, apply bool) error {
	opt, err := c.scanOptions(args, o)
	if err != nil {
		return err
	}
	report, err := scan.Run(ctx, opt)
	if err != nil {
		return err
	}
	var wanted []scan.Finding
	for _, f := range report.Findings {
		if f.Risk.AtLeast(risk) {
			wanted = append(wanted, f)
		}
	}
	changes, left := found.Plan(wanted)
	if apply && len(changes) > 0 {
		if v.To, err = c.api(ctx); err != nil {
			return err
		}
		for i := range changes {
			if err := v.Apply(ctx, &changes[i]); err != nil {
				if i > 0 {
					c.note("%s done before that; run it again to go on.", count(int64(i), "file was", "files were"))
				}
				return err
			}
		}
	}
	return c.show(map[string]any{"applied": apply, "changes": some(changes), "left": some(left)}, func() { c.sayTaken(changes, left, apply) })
}

func (c *command) sayTaken(changes []found.Change, left []found.Left, applied bool) {
	revoke := map[string]bool{}
	for _, ch := range changes {
		c.say("%s", c.paint(c.stdout, "1", plain(ch.File)))
		for _, t := range ch.Takes {
			c.say("  %d  %s\n     %s\n     %s", t.Line, plain(first(t.Key, t.Title)), c.paint(c.stdout, "31", "- "+plain(t.Masked)), c.paint(c.stdout, "32", "+ "+plain(t.Placeholder)))
			if t.Revoke != "" {
				revoke[t.Title+": "+t.Revoke] = true
			}
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
		c.say("\nNothing was changed. To do this: the same command with --apply.")
		return
	}
	c.say("\nDone. The values are in the vault (ambit secret list --prefix found/); to put a file back: ambit import findings --undo FILE")
	if len(revoke) > 0 {
		c.say("Now revoke what lay there:")
		for _, line := range slices.Sorted(maps.Keys(revoke)) {
			c.say("  %s", plain(line))
		}
	}
}

func (c *command) putBack(ctx context.Context, v found.Vault, files []string) error {
	if len(files) == 0 {
		return usageError{errors.New("ambit import findings --undo takes the files to put back")}
	}
	var err error
	if v.To, err = c.api(ctx); err != nil {
		return err
	}
	for _, file := range files {
		if err := v.Undo(ctx, file); err != nil {
			return err
		}
	}
	return c.show(map[string]any{"restored": files}, func() { c.say("As it was: %s", plain(strings.Join(files, ", "))) })
}

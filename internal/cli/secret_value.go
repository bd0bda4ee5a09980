package cli

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/fault"
)

const secretInput = "The value comes from standard input, without its last line break, or whole from --file; never from the command line,\n" +
	"which other programs and the shell's history can read. A file that is not text is stored as bytes; one that holds a\n" +
	"certificate is stored as that, and its end is read from it."

func (c *command) secretPut() *cobra.Command {
	var n client.NewSecret
	var file, org, version, expires, rotate string
	var parts, metadata []string
	var fresh bool
	cmd := &cobra.Command{
		Use: "put NAME", Short: "Store a secret, or a new version of one", Long: "Store a secret, or a new version of the one that has this name or id.\n\n" + secretInput,
		Example: "  ambit secret put prod/db-password < password.txt\n  ambit secret put deploy-key --file id_ed25519 --org org_… --rotate-by 90d",
		Args:    takes(1, "one argument: the name; the value comes from standard input or --file"), ValidArgsFunction: c.completion(c.secretNames, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			var err error
			if n.Context, err = pairs("--context", parts); err != nil {
				return err
			}
			if n.Metadata, err = pairs("--metadata", metadata); err != nil {
				return err
			}
			s, found := client.Secret{}, false
			if !fresh {
				if s, found, err = c.lookSecret(ctx, cl, org, args[0]); err != nil {
					return err
				}
			}
			switch {
			case found && (len(parts) > 0 || len(metadata) > 0 || len(n.Tags) > 0 || n.Description != "" || n.WriteOnly):
				return usageError{errors.New("that secret exists: its key context stays, and `ambit secret tag` changes the rest")}
			case !found && version != "":
				return fault.New(fault.NotFound, "not_found", "There is no secret with this name.").WithHint("See: ambit secret list")
			}
			if n.SecretValue, err = c.readValue(ctx, file); err != nil {
				return err
			}
			if n.ExpiresAt, err = moment("--expires", expires); err != nil {
				return err
			}
			if n.RotateBy, err = moment("--rotate-by", rotate); err != nil {
				return err
			}
			if found {
				s, err = cl.UpdateSecret(ctx, s.ID, org, n.SecretValue, version)
			} else {
				if org != "" {
					n.Context["organization_id"] = org
				}
				n.Name = args[0]
				s, err = cl.CreateSecret(ctx, n)
			}
			if err != nil {
				return err
			}
			return c.showSecret(s)
		}),
	}
	cmd.Flags().StringVar(&file, "file", "", "read the value from this file, as it is")
	c.orgFlag(cmd, &org, "organization whose it is (default: the environment's)")
	cmd.Flags().BoolVar(&fresh, "new", false, "only if no secret has this name")
	cmd.Flags().StringVar(&version, "if-version", "", "only if this version id is the current one")
	cmd.Flags().StringArrayVar(&parts, "context", nil, "part NAME=VALUE of the key context that seals it (repeatable)")
	cmd.Flags().StringVar(&expires, "expires", "", "from when the value is not handed out: a date, a time, or days as in 30d")
	cmd.Flags().StringVar(&rotate, "rotate-by", "", "remind of it then; a date, a time, or days as in 90d")
	cmd.Flags().StringArrayVar(&n.Tags, "tag", nil, "tag (repeatable)")
	cmd.Flags().StringArrayVar(&metadata, "metadata", nil, "NAME=TEXT to note with it (repeatable)")
	cmd.Flags().StringVar(&n.Description, "description", "", "what it is")
	cmd.Flags().BoolVar(&n.WriteOnly, "write-only", false, "nobody reads the value, for good")
	return cmd
}

// readValue reads what a secret shall hold.
func (c *command) readValue(ctx context.Context, file string) (client.SecretValue, error) {
	if file == "" {
		text, err := c.readSecret(ctx, "the value")
		return client.SecretValue{Value: text}, err
	}
	raw, err := c.readFile(ctx, file)
	switch block, _ := pem.Decode(raw); {
	case err != nil:
		return client.SecretValue{}, err
	case len(raw) == 0:
		return client.SecretValue{}, usageError{errors.New("the value is empty: the file has nothing in it")}
	case block != nil && bytes.Contains(raw, []byte("-----BEGIN CERTIFICATE-----")):
		return client.SecretValue{Value: string(raw), Content: "certificate"}, nil
	case utf8.Valid(raw):
		return client.SecretValue{Value: string(raw)}, nil
	}
	return client.SecretValue{Bytes: raw}, nil
}

// moment reads a time of the future as people say it: days from now, a date,
// whose first moment is meant, or a time. Nothing and "never" are no time.
func moment(flag, s string) (time.Time, error) {
	if s == "" || s == "never" {
		return time.Time{}, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n <= 36500 {
			return time.Now().AddDate(0, 0, n), nil
		}
	}
	if t, err := time.ParseInLocation(time.DateOnly, s, time.Local); err == nil {
		return future(flag, s, t)
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return future(flag, s, t)
	}
	return time.Time{}, usageError{fmt.Errorf("%s takes a date as 2027-01-31, a time as 2027-01-31T12:00:00Z, or days as 30d", flag)}
}

func future(flag, s string, t time.Time) (time.Time, error) {
	if !t.After(time.Now()) {
		return time.Time{}, usageError{fmt.Errorf("%s is in the past: %s", flag, s)}
	}
	return t, nil
}

func (c *command) secretGet() *cobra.Command {
	var org, version, output string
	var open, show bool
	cmd := &cobra.Command{
		Use: "get SECRET", Short: "Write the value of a secret to standard output or a file",
		Long: "Write the value of a secret to standard output or a file, exactly as it was stored. It takes an API key in AMBIT_API_KEY;\n" +
			"a person's login is shown the page where a passkey reveals it. To a terminal, whose log and scrollback would keep it,\n" +
			"a value is written with --show only.",
		Example: "  AMBIT_API_KEY=… ambit secret get prod/db-password | psql-login\n  ambit secret get deploy-key --output id_ed25519",
		Args:    takes(1, "one argument: the secret's name or id"), ValidArgsFunction: c.completion(c.secretNames, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			if output == "" && !show && !c.json && c.terminal() {
				return usageError{errors.New("a terminal would keep the value: send it on through a pipe, or use --output, or --show")}
			}
			s, err := c.findSecret(ctx, cl, org, args[0])
			if err != nil {
				return err
			}
			file, err := newSecretFile(output)
			if err != nil {
				return err
			}
			v, err := cl.SecretValue(ctx, s.ID, org, version)
			if err != nil {
				file.drop()
				return c.sentOn(err, open)
			}
			return c.giveValue(file, v.Value, v.Bytes, v)
		}),
	}
	c.orgFlag(cmd, &org, "organization whose it is")
	cmd.Flags().StringVar(&version, "version", "", "the id of an old version")
	cmd.Flags().StringVar(&output, "output", "", "write it to this new file, which only you can read")
	cmd.Flags().BoolVar(&show, "show", false, "write it to a terminal too")
	cmd.Flags().BoolVar(&open, "open", false, "open the browser where only a person goes on")
	return cmd
}

// giveValue writes a value as it is, or as a part of v with --json.
func (c *command) giveValue(file *secretFile, text string, raw []byte, v any) error {
	if len(raw) == 0 {
		raw = []byte(text)
	}
	switch {
	case file != nil:
		return file.whole(raw)
	case c.json:
		return c.printJSON(v)
	}
	_, err := c.stdout.Write(raw)
	return err
}

func (c *command) secretVersions() *cobra.Command {
	var org string
	cmd := &cobra.Command{
		Use: "versions SECRET", Short: "List the kept versions of a secret, newest first", Args: takes(1, "one argument: the secret's name or id"),
		ValidArgsFunction: c.completion(c.secretNames, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			s, err := c.findSecret(ctx, cl, org, args[0])
			if err != nil {
				return err
			}
			page, err := cl.SecretVersions(ctx, s.ID, org)
			if err != nil {
				return err
			}
			return showPage(c, page, []string{"VERSION", "HOLDS", "STORED", "BY", "ID"}, "No versions.", func(v client.SecretVersion, now time.Time) []string {
				number := fmt.Sprint(v.Version)
				if v.Current {
					number += " (current)"
				}
				return []string{number, v.Content + ", " + count(v.Size, "byte", "bytes"), when(v.CreatedAt, now), first(v.CreatedByName, v.CreatedBy.ID), v.ID}
			})
		}),
	}
	c.orgFlag(cmd, &org, "organization whose it is")
	return cmd
}

func (c *command) secretRestore() *cobra.Command {
	var org, version string
	cmd := &cobra.Command{
		Use: "restore SECRET", Short: "Take back a deleted secret, or make an old version the current one",
		Long: "Take back a deleted secret, within 30 days, by its id (see: ambit secret list --deleted). With --version, make the\n" +
			"value of an old version the current one, as a new version.",
		Args: takes(1, "one argument: the secret's name or id"), ValidArgsFunction: c.completion(c.secretNames, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			s := client.Secret{ID: args[0]}
			var err error
			if version != "" || !strings.HasPrefix(args[0], "secret_") {
				if s, err = c.deletedOr(ctx, cl, org, args[0], version); err != nil {
					return err
				}
			}
			if version == "" {
				s, err = cl.UndeleteSecret(ctx, s.ID, org)
			} else {
				s, err = cl.RestoreSecretVersion(ctx, s.ID, org, version)
			}
			if err != nil {
				return err
			}
			return c.showSecret(s)
		}),
	}
	c.orgFlag(cmd, &org, "organization whose it is")
	cmd.Flags().StringVar(&version, "version", "", "the id of the version to restore")
	return cmd
}

// deletedOr finds the secret that a restore is about: one that stands if a version
// is to be restored, else the one deleted secret of that name.
func (c *command) deletedOr(ctx context.Context, cl *client.Client, org, name, version string) (client.Secret, error) {
	if version != "" {
		return c.findSecret(ctx, cl, org, name)
	}
	all, err := client.All(ctx, func(ctx context.Context, after string) (client.Page[client.Secret], error) {
		return cl.Secrets(ctx, client.SecretFilter{OrganizationID: org, Prefix: name, Deleted: true, Limit: completions, After: after})
	})
	if err != nil {
		return client.Secret{}, err
	}
	all = slices.DeleteFunc(all, func(s client.Secret) bool { return s.Name != name })
	switch len(all) {
	case 0:
		return client.Secret{}, fault.New(fault.NotFound, "not_found", "No deleted secret has this name.").WithHint("See: ambit secret list --deleted")
	case 1:
		return all[0], nil
	}
	return client.Secret{}, usageError{errors.New("several deleted secrets had this name: give the id, which `ambit secret list --deleted` shows")}
}

func (c *command) secretTag() *cobra.Command {
	var org, description, expires, rotate string
	var remove, metadata, unset []string
	var writeOnly bool
	cmd := &cobra.Command{
		Use: "tag SECRET [TAG...]", Short: "Change tags, description, metadata and dates of a secret",
		Long:    "Add tags to a secret, and with flags take some away or change what else is noted with it. No new version is made.",
		Example: "  ambit secret tag prod/db-password pci team-a --remove old\n  ambit secret tag prod/db-password --rotate-by 90d --metadata owner=ops",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("this takes the secret's name or id, and tags")}
			}
			return nil
		},
		ValidArgsFunction: c.completion(c.secretNames, 1),
	}
	cmd.RunE = c.with(func(ctx context.Context, cl *client.Client, args []string) error {
		set, err := pairs("--metadata", metadata)
		if err != nil {
			return err
		}
		s, err := c.findSecret(ctx, cl, org, args[0])
		if err != nil {
			return err
		}
		e := client.SecretEdit{WriteOnly: writeOnly}
		if len(args) > 1 || len(remove) > 0 {
			tags := append(slices.DeleteFunc(slices.Clone(s.Tags), func(t string) bool { return slices.Contains(remove, t) }), args[1:]...)
			e.Tags = &tags
		}
		if len(set) > 0 || len(unset) > 0 {
			all := maps.Clone(s.Metadata)
			maps.Copy(all, set)
			for _, name := range unset {
				delete(all, name)
			}
			e.Metadata = &all
		}
		if cmd.Flags().Changed("description") {
			e.Description = &description
		}
		for _, d := range []struct {
			flag, given string
			to          **string
		}{{"expires", expires, &e.ExpiresAt}, {"rotate-by", rotate, &e.RotateBy}} {
			t, err := moment("--"+d.flag, d.given)
			if err != nil {
				return err
			}
			if cmd.Flags().Changed(d.flag) {
				text := ""
				if !t.IsZero() {
					text = t.UTC().Format(time.RFC3339)
				}
				*d.to = &text
			}
		}
		if e == (client.SecretEdit{}) {
			return usageError{errors.New("nothing to change: give tags or flags")}
		}
		if s, err = cl.EditSecret(ctx, s.ID, org, e); err != nil {
			return err
		}
		return c.showSecret(s)
	})
	c.orgFlag(cmd, &org, "organization whose it is")
	cmd.Flags().StringArrayVar(&remove, "remove", nil, "tag to take away (repeatable)")
	cmd.Flags().StringArrayVar(&metadata, "metadata", nil, "NAME=TEXT to note with it (repeatable)")
	cmd.Flags().StringArrayVar(&unset, "unset", nil, "NAME of a note to take away (repeatable)")
	cmd.Flags().StringVar(&description, "description", "", "what it is")
	cmd.Flags().StringVar(&expires, "expires", "", "from when the value is not handed out: a date, a time, days as in 30d, or never")
	cmd.Flags().StringVar(&rotate, "rotate-by", "", "remind of it then; a date, a time, days as in 90d, or never")
	cmd.Flags().BoolVar(&writeOnly, "write-only", false, "nobody reads the value any more, for good")
	return cmd
}

func (c *command) secretDelete() *cobra.Command {
	var org string
	var yes bool
	cmd := &cobra.Command{
		Use: "delete SECRET", Short: "Delete a secret with all its versions", Args: takes(1, "one argument: the secret's name or id"),
		Long:              "Delete a secret with all its versions. For 30 days `ambit secret restore` takes it back; then it is purged.",
		ValidArgsFunction: c.completion(c.secretNames, 1),
		RunE: c.with(func(ctx context.Context, cl *client.Client, args []string) error {
			s, err := c.findSecret(ctx, cl, org, args[0])
			if err != nil {
				return err
			}
			if err := c.ask(ctx, yes, fmt.Sprintf("Delete %s with all %d versions?", s.Name, s.Version), "whatever uses it stops working"); err != nil {
				return err
			}
			if err := cl.DeleteSecret(ctx, s.ID, org); err != nil {
				return err
			}
			return c.show(map[string]any{"id": s.ID, "name": s.Name, "deleted": true}, func() {
				c.say("Deleted %s. For 30 days it can be taken back: ambit secret restore %s", plain(s.Name), plain(s.ID))
			})
		}),
	}
	c.orgFlag(cmd, &org, "organization whose it is")
	yesFlag(cmd, &yes)
	return cmd
}

func (c *command) secretDecrypt() *cobra.Command {
	var org, file, data, output string
	var show bool
	cmd := &cobra.Command{
		Use: "decrypt-blob", Short: "Decrypt what an SDK of WorkOS encrypted locally",
		Long: "Decrypt what an SDK of WorkOS encrypted locally, under a data key of this server. The order of parts that Node, Python,\n" +
			"Go and older SDKs use is recognised. The blob, in base64, comes from standard input or --file. It takes an API key in\n" +
			"AMBIT_API_KEY.",
		Example: "  ambit secret decrypt-blob --file blob.txt --associated-data row-17 > plain.bin", Args: takes(0, "no arguments: the blob comes from standard input or --file"),
		RunE: c.with(func(ctx context.Context, cl *client.Client, _ []string) error {
			if output == "" && !show && !c.json && c.terminal() {
				return usageError{errors.New("a terminal would keep the value: send it on through a pipe, or use --output, or --show")}
			}
			var blob []byte
			var err error
			if file == "" {
				file = "-"
			}
			if blob, err = c.readFile(ctx, file); err != nil {
				return err
			}
			to, err := newSecretFile(output)
			if err != nil {
				return err
			}
			d, err := cl.DecryptBlob(ctx, org, strings.TrimSpace(string(blob)), data)
			if err != nil {
				to.drop()
				return err
			}
			return c.giveValue(to, d.Value, d.Bytes, d)
		}),
	}
	c.orgFlag(cmd, &org, "organization whose it is")
	cmd.Flags().StringVar(&file, "file", "", "read the blob from this file")
	cmd.Flags().StringVar(&data, "associated-data", "", "what it was encrypted with")
	cmd.Flags().StringVar(&output, "output", "", "write it to this new file, which only you can read")
	cmd.Flags().BoolVar(&show, "show", false, "write it to a terminal too")
	return cmd
}

package web

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/vault"
)

// vaultCaller is the person as the vault knows callers: confined to the
// organization of the page, except for those who run the environment, who see all
// of it from their own.
func (v *visit) vaultCaller(p account.Permission) (vault.Caller, error) {
	by, org := v.actor(), v.here.Organization
	c := vault.Caller{Actor: by.Audit(), Name: by.Name(), Environment: by.Environment(), Organization: org, Reach: by.Reach(), Address: by.Address()}
	if v.here.Operates() && by.May("", p) == nil {
		c.Organization = ""
		return c, nil
	}
	err := by.May(org, p)
	if err != nil && v.here.Runs && by.May("", p) == nil {
		err = nil
	}
	return c, err
}

func (s *Server) secretList(v *visit) (answer, error) {
	c, err := v.vaultCaller(account.ViewSecrets)
	if err != nil {
		return nil, err
	}
	p := &SecretsPage{Frame: Frame{Title: "Secrets", Section: "secrets"}, Search: v.form("search"), Tag: v.form("tag"), Deleted: v.form("state") == "deleted", CanAdd: v.may(account.WriteSecrets)}
	p.Tabs = []Tab{{"In use", v.query("/ui/secrets"), !p.Deleted}, {"Deleted", v.query("/ui/secrets", "state", "deleted"), p.Deleted}}
	p.Set = p.Search != "" || p.Tag != ""
	o := vault.ListOptions{Limit: 50, After: v.form("after"), Search: p.Search, Deleted: p.Deleted}
	if p.Tag != "" {
		o.Tags = []string{p.Tag}
	}
	list, err := s.vault.List(v.ctx(), c, o)
	if err != nil {
		return again(p, err)
	}
	for _, o := range list.Objects {
		p.Items = append(p.Items, s.secretRow(v, c, o))
	}
	if list.After != "" {
		p.Next = v.query("/ui/secrets", "after", list.After, "search", p.Search, "tag", p.Tag, "state", v.form("state"))
	}
	return show(p), nil
}

func (s *Server) secretRow(v *visit, c vault.Caller, o vault.Object) SecretRow {
	r := SecretRow{ID: o.ID, Href: v.query("/ui/secrets/" + string(o.ID)), Name: o.Name, Tags: o.Tags, Version: o.Version, Updated: o.UpdatedAt, By: o.UpdatedByName, Purge: o.PurgeAt}
	if c.Organization == "" {
		switch r.Of = o.Context["organization_id"]; r.Of {
		case "":
			r.Of = "All of " + v.here.EnvironmentName
		case string(v.here.Organization):
			r.Of = v.here.OrganizationName
		}
	}
	soon := s.now().Add(7 * 24 * time.Hour)
	switch {
	case !o.DeletedAt.IsZero():
		r.Chip = Mark{"Deleted", "bad"}
	case due(o.ExpiresAt, s.now()):
		r.Chip = Mark{"Expired", "bad"}
	case due(o.RotateBy, s.now()):
		r.Chip = Mark{"Rotation due", "warn"}
	case due(o.ExpiresAt, soon):
		r.Chip = Mark{"Expires soon", "warn"}
	case due(o.RotateBy, soon):
		r.Chip = Mark{"Rotate soon", "warn"}
	case o.WriteOnly:
		r.Chip = Mark{"Write-only", ""}
	}
	return r
}

func due(t, by time.Time) bool { return !t.IsZero() && !t.After(by) }

// findSecret finds the secret that the address names, in any organization that the
// person is in, and moves here to that.
func (s *Server) findSecret(v *visit, p account.Permission) (vault.Caller, vault.Object, error) {
	sid, err := parseID(id.Secret(v.r.PathValue("id")))
	if err != nil {
		return vault.Caller{}, vault.Object{}, err
	}
	here := v.here
	found := error(fault.New(fault.NotFound, "not_found", "No such secret.").WithHint("It may belong to somebody else, or the address is incomplete."))
	for i, m := range append([]account.Membership{here}, v.person.Organizations()...) {
		if i > 0 && m.Organization == here.Organization {
			continue
		}
		v.here = m
		c, err := v.vaultCaller(p)
		if err != nil {
			if i == 0 && fault.KindOf(err) != fault.NotFound {
				found = err
			}
			continue
		}
		o, err := s.vault.DescribeAny(v.ctx(), c, sid)
		if err == nil || fault.KindOf(err) != fault.NotFound {
			return c, o, err
		}
	}
	v.here = here
	return vault.Caller{}, vault.Object{}, found
}

func (s *Server) secretShow(v *visit) (answer, error) {
	c, o, err := s.findSecret(v, account.ViewSecrets)
	if err != nil {
		return nil, err
	}
	p, err := s.secretPage(v, c, o)
	if err != nil {
		return nil, err
	}
	return show(p), nil
}

func secretAt(v *visit, o vault.Object, more ...string) string {
	return v.query("/ui/secrets/"+string(o.ID), more...)
}

func (s *Server) secretPage(v *visit, c vault.Caller, o vault.Object) (*SecretPage, error) {
	p := &SecretPage{Frame: Frame{Title: oneLine(o.Name), Section: "secrets", Narrow: true}, SecretRow: s.secretRow(v, c, o), Description: o.Description, TagText: strings.Join(o.Tags, ", "),
		Expires: day(o.ExpiresAt), Rotate: day(o.RotateBy), Version: o.VersionID, WriteOnly: o.WriteOnly}
	standing := o.DeletedAt.IsZero()
	p.CanWrite, p.CanDelete = v.may(account.WriteSecrets) && standing, v.may(account.DeleteSecrets)
	p.CanReveal = v.may(account.RevealSecrets) && standing && !o.WriteOnly && !due(o.ExpiresAt, s.now())
	p.Reveal = v.query("/ui/secrets/" + string(o.ID) + "/reveal")
	fact := func(name, value string) {
		if value != "" {
			p.Facts = append(p.Facts, Fact{Name: name, Value: value})
		}
	}
	fact("Holds", holds(o.Content, o.Size))
	for _, name := range slices.Sorted(maps.Keys(o.Context)) {
		fact(name, o.Context[name])
	}
	p.Facts = append(p.Facts, Fact{Name: "Sealed under", Value: string(o.KEK), ID: true}, Fact{Name: "Id", Value: string(o.ID), ID: true})
	for _, name := range slices.Sorted(maps.Keys(o.Metadata)) {
		fact(name, o.Metadata[name])
		p.Metadata += name + "=" + o.Metadata[name] + "\n"
	}
	if !standing {
		return p, nil
	}
	versions, err := s.vault.Versions(v.ctx(), c, o.ID)
	if err != nil {
		return nil, err
	}
	for _, x := range versions[:min(len(versions), 50)] {
		row := SecretVersionRow{ID: x.ID, Number: x.Version, Current: x.Current, Holds: holds(x.Content, x.Size), At: x.CreatedAt, By: x.CreatedByName}
		row.Reveal = v.query("/ui/secrets/"+string(o.ID)+"/reveal", "version", x.ID)
		row.Save = v.query("/ui/secrets/"+string(o.ID)+"/reveal", "version", x.ID, "as", "file")
		p.Versions = append(p.Versions, row)
	}
	return p, nil
}

func holds(c vault.Content, size int64) string {
	word := map[vault.Content]string{vault.Text: "Text", vault.Binary: "A file", vault.Certificate: "A certificate"}[c]
	return fmt.Sprintf("%s, %d bytes", word, size)
}

func day(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.DateOnly)
}

// dayOf reads a day, to its end in UTC. A day that the form shows already is the
// moment that it was.
func dayOf(text string, was time.Time) (time.Time, error) {
	if text == day(was) {
		return was, nil
	}
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return time.Time{}, fault.New(fault.Invalid, "invalid_time", "That is not a day.")
	}
	return t.AddDate(0, 0, 1).Add(-time.Second), nil
}

func tagsOf(text string) []string {
	var out []string
	for _, t := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '\n' }) {
		if t = strings.TrimSpace(t); t != "" {
			out = append(out, t)
		}
	}
	return out
}

// pairsOf reads lines of the form NAME=VALUE. Lines of white space are passed over;
// any other is not ok.
func pairsOf(text string) (pairs map[string]string, ok bool) {
	pairs = map[string]string{}
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, false
		}
		pairs[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return pairs, true
}

func (s *Server) secretNew(v *visit) (answer, error) {
	if _, err := v.vaultCaller(account.WriteSecrets); err != nil {
		return nil, err
	}
	return show(s.secretNewPage(v)), nil
}

func (s *Server) secretNewPage(v *visit) *SecretNewPage {
	return &SecretNewPage{Frame: Frame{Title: "Store a secret", Section: "secrets", Narrow: true}, Name: v.form("name"), Description: v.form("description"), TagText: v.form("tags"),
		Expires: v.form("expires"), Rotate: v.form("rotate"), MayWhole: v.here.Operates() && v.actor().May("", account.WriteSecrets) == nil, Whole: v.form("reach") == "environment", WriteOnly: v.form("write_only") != ""}
}

// valueOf reads the value of a form: what was typed, in which browsers send line breaks
// as two characters, or a file, as it is.
func (v *visit) valueOf() (vault.Value, error) {
	raw, err := v.file("file")
	if err != nil {
		return vault.Value{}, err
	}
	text := strings.ReplaceAll(v.r.PostForm.Get("value"), "\r\n", "\n")
	switch {
	case text == "" && len(raw) == 0:
		return vault.Value{}, fault.New(fault.Invalid, "invalid_value", "The value is empty.").WithHint("Type it, or choose a file.")
	case text != "" && len(raw) > 0:
		return vault.Value{}, fault.New(fault.Invalid, "invalid_value", "There is a text and a file.").WithHint("A value is one of the two.")
	case text != "":
		raw = []byte(text)
	}
	out := vault.Value{Secret: secret.New(raw)}
	switch {
	case bytes.Contains(raw, []byte("-----BEGIN CERTIFICATE-----")):
		out.Content = vault.Certificate
	case !utf8.Valid(raw) || bytes.IndexByte(raw, 0) >= 0:
		out.Content = vault.Binary
	}
	if out.ExpiresAt, err = dayOf(v.form("expires"), time.Time{}); err == nil {
		out.RotateBy, err = dayOf(v.form("rotate"), time.Time{})
	}
	return out, err
}

// file reads the file of a form, whole; empty: none was chosen.
func (v *visit) file(name string) ([]byte, error) {
	f, _, err := v.r.FormFile(name)
	if errors.Is(err, http.ErrMissingFile) || errors.Is(err, http.ErrNotMultipart) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "invalid_form", "The file could not be read.").WithCause(err)
	}
	defer f.Close()
	return io.ReadAll(f)
}

func (s *Server) secretCreate(v *visit) (answer, error) {
	c, err := v.vaultCaller(account.WriteSecrets)
	if err != nil {
		return nil, err
	}
	n := vault.NewObject{Name: v.form("name"), Context: map[string]string{"organization_id": string(v.here.Organization)}, WriteOnly: v.form("write_only") != "",
		Facts: vault.Facts{Description: v.form("description"), Tags: tagsOf(v.form("tags"))}}
	if v.form("reach") == "environment" && c.Organization == "" {
		n.Context = nil
	}
	if n.Value, err = v.valueOf(); err != nil {
		return again(s.secretNewPage(v), err)
	}
	o, err := s.vault.Create(v.ctx(), c, n)
	if err != nil {
		return again(s.secretNewPage(v), err)
	}
	return goTo(secretAt(v, o, "done", "stored")), nil
}

// secretChange runs a change of one secret and shows it, or why it was refused.
func (s *Server) secretChange(v *visit, p account.Permission, done string, change func(vault.Caller, vault.Object) error) (answer, error) {
	c, o, err := s.findSecret(v, p)
	if err != nil {
		return nil, err
	}
	if err := change(c, o); err != nil {
		page, broken := s.secretPage(v, c, o)
		if broken != nil {
			return nil, err
		}
		return again(page, err)
	}
	return goTo(secretAt(v, o, "done", done)), nil
}

func (s *Server) secretPut(v *visit) (answer, error) {
	return s.secretChange(v, account.WriteSecrets, "stored", func(c vault.Caller, o vault.Object) error {
		value, err := v.valueOf()
		if err == nil {
			_, err = s.vault.Update(v.ctx(), c, o.ID, value, v.form("version"))
		}
		return err
	})
}

func (s *Server) secretEdit(v *visit) (answer, error) {
	return s.secretChange(v, account.WriteSecrets, "saved", func(c vault.Caller, o vault.Object) error {
		description, tags := v.form("description"), tagsOf(v.form("tags"))
		metadata, ok := pairsOf(v.form("metadata"))
		if !ok {
			return fault.New(fault.Invalid, "invalid_facts", "A note has the form NAME=TEXT, one on a line.")
		}
		expires, err := dayOf(v.form("expires"), o.ExpiresAt)
		if err != nil {
			return err
		}
		rotate, err := dayOf(v.form("rotate"), o.RotateBy)
		if err != nil {
			return err
		}
		_, err = s.vault.Change(v.ctx(), c, o.ID, vault.Edit{Description: &description, Tags: &tags, Metadata: &metadata, ExpiresAt: &expires, RotateBy: &rotate, WriteOnly: v.form("write_only") != ""})
		return err
	})
}

func (s *Server) secretRestore(v *visit) (answer, error) {
	return s.secretChange(v, account.WriteSecrets, "restored", func(c vault.Caller, o vault.Object) error {
		_, err := s.vault.Restore(v.ctx(), c, o.ID, v.form("restore"), v.form("version"))
		return err
	})
}

func (s *Server) secretDelete(v *visit) (answer, error) {
	return s.secretChange(v, account.DeleteSecrets, "secret_deleted", func(c vault.Caller, o vault.Object) error {
		_, err := s.vault.Delete(v.ctx(), c, o.ID, v.form("version"))
		return err
	})
}

func (s *Server) secretUndelete(v *visit) (answer, error) {
	return s.secretChange(v, account.DeleteSecrets, "undeleted", func(c vault.Caller, o vault.Object) error {
		_, err := s.vault.Undelete(v.ctx(), c, o.ID)
		return err
	})
}

// secretReveal shows one value to the person who proves presence for exactly it.
func (s *Server) secretReveal(v *visit) (change, error) {
	c, o, err := s.findSecret(v, account.RevealSecrets)
	if err != nil {
		return change{}, err
	}
	return change{back: secretAt(v, o),
		try: func(ag account.Agreement) (answer, error) {
			shown, value, err := s.people.RevealSecret(v.ctx(), v.actor(), c, o.ID, v.form("version"), ag)
			if err != nil {
				return nil, err
			}
			if v.form("as") == "file" {
				return attachment{name: fileName(shown.Name), value: value}, nil
			}
			p := &SecretValuePage{Frame: Frame{Title: "Value", Section: "secrets", Narrow: true}, Name: shown.Name, Holds: holds(shown.Content, shown.Size), Back: secretAt(v, o)}
			p.Value, p.Encoded = revealValue(value)
			return show(p), nil
		},
		ask: func(r account.Raise) (page, error) {
			p := s.confirming(v, "Show a value", "secrets", said("", "You", " see the value of ", o.Name, "."), "Show it")
			if v.form("as") == "file" {
				p.Label, p.Lines = "Save it as a file", []string{"On this device, where nothing seals it."}
			}
			p.Lines = append(p.Lines, fmt.Sprintf("Version %d. It stands in the audit that you saw it.", r.Version))
			return p, nil
		}}, nil
}

// keyRules are the rules of the form for a new key: one, for secrets whose names
// begin with a text and whose key context has some items.
func keyRules(form url.Values) ([]vault.Rule, error) {
	prefix, lines := form.Get("secret_prefix"), form.Get("secret_context")
	if prefix == "" && lines == "" {
		return nil, nil
	}
	items, ok := pairsOf(lines)
	if !ok || prefix == "" && len(items) == 0 {
		return nil, fault.New(fault.Invalid, "invalid_secret_rule", "A part of a key context has the form NAME=VALUE, one on a line.")
	}
	return vault.CanonicalRules([]vault.Rule{{Verbs: vault.Verbs(), Prefix: prefix, Context: items}})
}

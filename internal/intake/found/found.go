// Package found takes credentials out of the files in which a scan found them: each
// goes into the vault, and a placeholder stands in its place. One whose provider the
// server knows becomes a connection too, and where that leaves an MCP server's entry
// without a use for its key, the entry becomes ours.
//
// A file is changed in an order that loses nothing wherever it is cut off: the values
// are stored, then the whole file as it was is stored, and only then it is replaced,
// at once. Before that nothing on disk has changed; after it, [Undo] puts back the
// file as it was, to the byte and with its mode, unless somebody has changed it since.
// Doing it again takes what is still there and makes nothing twice.
package found

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/disk"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/scan"
	"github.com/ambit-dev/ambit/internal/secret"
)

// MaxFile is the largest file that is changed, in bytes: one that the vault can keep.
const MaxFile = 1 << 20

// grows is how much longer a file is thought to become, in bytes, when it is tried whether
// there is room for it.
const grows = 4096

// Take is one credential that comes out of a file.
type Take struct {
	Kind        string `json:"kind"`
	Title       string `json:"title"`
	Line        int    `json:"line"`
	Also        []int  `json:"also_lines,omitempty"` // other lines that hold the same value, and change too
	Key         string `json:"key,omitempty"`
	Masked      string `json:"masked"`
	Secret      string `json:"secret"`      // its name in the vault
	Placeholder string `json:"placeholder"` // that stands in the file; before it is stored, its form
	Revoke      string `json:"revoke,omitempty"`
	// Provider is the server's, where this can be connected, and Connection the account
	// that it became. Note says what stands in the way, or what a person does.
	Provider   string   `json:"provider,omitempty"`
	Hosts      []string `json:"sent_to,omitempty"` // to be connected
	Connection string   `json:"connection,omitempty"`
	Note       string   `json:"note,omitempty"`

	finding scan.Finding
	account Account
}

// Finding is what the scan said.
func (t Take) Finding() scan.Finding { return t.finding }

// Pick names a credential in its file, within one scan.
func Pick(f scan.Finding) string { return itself(f.File) + "\x00" + f.Fingerprint }

// connects reports whether the server has an account that this opens, or is about to.
// Where keys can be connected, another key's account does not stand for this one.
func (t Take) connects() bool {
	if t.account.Part == "" {
		return t.account.Connected
	}
	return t.Note == ""
}

// Account is a provider of the server's at which credentials of one issuer are used.
type Account struct {
	Provider    string // its id there
	Part        string // what a key becomes of the credential; empty: people sign in
	Hosts       []string
	Placeholder string // what a client is given in the key's place
	Connected   bool   // the organization has an account there that works
	Note        string // what a person does, where no key can be connected
}

// Options say how findings are taken.
type Options struct {
	Risk scan.Risk // the least
	// Accounts are those of the server, by issuer as a scan names it; nil connects none.
	Accounts map[string]Account
	// Entry is what connects the program whose settings a file is, in the section of this
	// path; nil for a program that cannot be connected so, and for section nil whether the
	// program can. Nil: entries stay.
	Entry func(file string, section []string) map[string]any
	// Only says which findings are taken; nil: all. Others stay as if they were of too low a risk.
	Only func(scan.Finding) bool
	// Logins takes the logins of programs too, which are signed out by that; those of the
	// files in Named are taken anyway.
	Logins bool
	Named  []string
	// Machine is what only this machine knows, so that another's file of the same path
	// has other secrets, and nobody else makes a backup that counts here.
	Machine string
	// Moved are folders and files of programs, such as ~/.codex, that the environment
	// has elsewhere.
	Moved map[string]string
}

// logins are the files in which programs keep what their own login gave them, and keys
// that they cannot work without: whoever takes those signs the program out.
var logins = [...]string{
	"/.claude/.credentials.json", "/.codex/auth.json", "/.gemini/oauth_creds.json", "/.gemini/mcp-oauth-tokens.json", "/.local/share/opencode/", "/.mcp-auth/", "/github-copilot/apps.json", "/github-copilot/hosts.json",
	"/amp/secrets.json", "/.ssh/", "/.gnupg/", "/gh/hosts.yml", "/glab-cli/", "/gcloud/", "/.azure/", "/.aws/sso/cache/", "/.aws/cli/cache/", "/.aws/login/cache/", "/.docker/config.json", "/containers/auth.json",
	"/.kube/", "/jupyter/runtime/", "/com.vercel.cli/", "/.fly/", "/.terraform.d/", "/.vault-token", "/.pulumi/", "/.wrangler/", "/huggingface/", "/.config/stripe/",
}

// login reports whether a file is a program's own.
func (o Options) login(file string) bool {
	full, err := filepath.Abs(file)
	if err != nil || o.Logins {
		return false
	}
	low := strings.ToLower(filepath.ToSlash(full))
	names := []string{low} // what it is called, also where its folder is by default
	for folder, at := range o.Moved {
		if rest, ok := strings.CutPrefix(low, strings.ToLower(filepath.ToSlash(at))); ok && (rest == "" || rest[0] == '/') {
			names = append(names, strings.TrimPrefix(folder, "~")+rest)
		}
	}
	known := func(l string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return strings.Contains(name, l) })
	}
	return slices.ContainsFunc(logins[:], known) &&
		!slices.ContainsFunc(o.Named, func(n string) bool { at, err := filepath.Abs(n); return err == nil && at == full })
}

// Change is what becomes of one file.
type Change struct {
	File   string `json:"file"`
	Takes  []Take `json:"takes"`
	Left   []Left `json:"left,omitempty"`
	Backup string `json:"backup"` // the secret that keeps the file as it was
	// Servers are the entries of MCP servers that become one of ours.
	Servers []Server `json:"servers,omitempty"`

	// OtherNames are those of the file (hard links) that nothing is taken out of here: they
	// keep the old content, under this number of their file system.
	OtherNames int    `json:"other_names,omitempty"`
	Inode      uint64 `json:"inode,omitempty"`

	path   string // of the file itself, behind links
	was    []byte
	is     fs.FileInfo
	others []scan.Finding // that are not taken
	entry  func(file string, section []string) map[string]any
}

// Left is a finding that stays where it is, and why.
type Left struct {
	File string `json:"file"`
	Line int    `json:"line,omitempty"`
	Kind string `json:"kind"`
	Why  string `json:"why"`
	// What it is, and the provider's page where it is revoked: it works as before.
	Title  string `json:"title"`
	Masked string `json:"masked"`
	Revoke string `json:"revoke,omitempty"`
}

func leave(f scan.Finding, why string) Left {
	l := Left{File: f.File, Line: f.Line, Kind: f.Kind, Why: why, Title: f.Title, Masked: f.Masked, Revoke: f.Revoke}
	if strings.HasPrefix(f.File, "process ") {
		l.Line = 0
	}
	return l
}

// Plan says what would be taken out of where. It reads files and changes nothing.
func Plan(findings []scan.Finding, o Options) (changes []Change, left []Left) {
	byFile, others := map[string][]scan.Finding{}, map[string][]scan.Finding{}
	for _, f := range findings {
		at := itself(f.File)
		switch {
		case !f.Risk.AtLeast(o.Risk), o.Only != nil && !o.Only(f):
			others[at] = append(others[at], f)
		case f.Commit != "":
			left = append(left, leave(f, "it is in the history of the repository, which is not rewritten"))
		case o.login(f.File):
			left = append(left, leave(f, "a program of yours is signed in with it: name the file, or add --logins"))
		case strings.HasPrefix(f.File, "process "):
			left = append(left, leave(f, "a running program has it"))
		default:
			byFile[at] = append(byFile[at], f)
		}
	}
	for at, list := range byFile {
		c, why := plan(at, list, o)
		if why != "" {
			for _, f := range list {
				left = append(left, leave(f, why))
			}
			continue
		}
		c.others = append(c.others, others[at]...)
		c.Servers = c.servers()
		if left = append(left, c.Left...); len(c.Takes) > 0 {
			changes = append(changes, c)
		}
	}
	for i := range changes {
		n := 0
		for _, c := range changes {
			if os.SameFile(changes[i].is, c.is) {
				n++
			}
		}
		if names, inode := disk.Names(changes[i].is); names > n {
			changes[i].OtherNames, changes[i].Inode = names-n, inode
		}
	}
	slices.SortFunc(changes, func(a, b Change) int { return cmp.Compare(a.File, b.File) })
	slices.SortFunc(left, func(a, b Left) int { return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line)) })
	return changes, left
}

// itself is the path of a file behind links, by which it is told from others: two links to
// one file are one. Of what is gone it is the name.
func itself(file string) string {
	if at, err := realPath(file); err == nil {
		return at
	}
	return file
}

// plan is of the file at a path behind links.
func plan(path string, list []scan.Finding, o Options) (c Change, why string) {
	c = Change{File: list[0].File, entry: o.Entry, path: path}
	var err error
	if _, err = os.Lstat(c.path); err != nil {
		return c, "the file is gone"
	}
	if c.path != clipTo(maxMark, c.path) {
		return c, "its path is too long or has odd signs in it, and could not be noted to put it back"
	}
	if c.was, c.is, err = read(c.path); err != nil {
		return c, fault.Of(err).Message
	}
	at := place(o.Machine, c.path)
	c.Backup = backups + at
	slices.SortFunc(list, func(a, b scan.Finding) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key)) })
	taken := map[string]int{}
	for _, f := range list {
		value := f.Value.Reveal()
		switch {
		case len(value) < 8:
			c.Left, c.others = append(c.Left, leave(f, "it is too short to be told from other text")), append(c.others, f)
			continue
		case !slices.ContainsFunc(written(value), func(form []byte) bool { return bytes.Contains(c.was, form) }):
			c.Left, c.others = append(c.Left, leave(f, "it stands there in another form, such as encoded")), append(c.others, f)
			continue
		case slices.ContainsFunc(c.Takes, func(t Take) bool { return t.finding.Value.Equal(f.Value) }):
			continue // one placeholder stands in all its places
		}
		base := cmp.Or(clip(f.Key), f.Kind)
		taken[base]++
		if n := taken[base]; n > 1 {
			base += "-" + strconv.Itoa(n)
		}
		t := Take{Kind: f.Kind, Title: f.Title, Line: f.Line, Key: f.Key, Masked: f.Masked, Secret: stored + at + "/" + base, Placeholder: "ambit_secret_…", Revoke: f.Revoke, finding: f}
		if a, ok := o.Accounts[f.Provider]; ok && f.IsKey() {
			t.account, t.Provider, t.Note = a, a.Provider, a.Note
			if a.Part != "" {
				t.Hosts = a.Hosts
			}
			if a.Placeholder != "" && (a.Part != "" || a.Connected) {
				t.Placeholder = a.Placeholder
			}
		}
		c.Takes = append(c.Takes, t)
	}
	c.also()
	return c, ""
}

// also notes where else in the file each value stands: the name of a user or a host may be
// somebody's password too, and changes with it.
func (c *Change) also() {
	for i := range c.Takes {
		t := &c.Takes[i]
		for _, form := range written(t.finding.Value.Reveal()) {
			line := 1
			for rest := c.was; ; {
				n := bytes.Index(rest, form)
				if n < 0 {
					break
				}
				line += bytes.Count(rest[:n], []byte{'\n'})
				if line != t.Line && !slices.Contains(t.Also, line) && !c.longer(t, line) && len(t.Also) < maxAlso {
					t.Also = append(t.Also, line)
				}
				line += bytes.Count(form, []byte{'\n'})
				rest = rest[n+len(form):]
			}
		}
		slices.Sort(t.Also)
	}
}

// maxAlso is how many other lines are told.
const maxAlso = 20

// longer reports whether a line has another credential, which t is a part of.
func (c *Change) longer(t *Take, line int) bool {
	return slices.ContainsFunc(c.Takes, func(o Take) bool {
		return o.Line == line && o.finding.Value.Len() > t.finding.Value.Len() && bytes.Contains(o.finding.Value.Reveal(), t.finding.Value.Reveal())
	})
}

// written are the forms in which a value may stand in a file: as it is and, such as a key of
// several lines, with the escapes of JSON, or of JSON in a string of JSON.
func written(value []byte) [][]byte {
	forms := [][]byte{value}
	for utf8.Valid(value) && len(forms) < 3 {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if e.Encode(string(value)) != nil {
			break
		}
		next := bytes.TrimSuffix(bytes.TrimPrefix(bytes.TrimSpace(b.Bytes()), []byte{'"'}), []byte{'"'})
		if bytes.Equal(next, value) {
			break
		}
		forms, value = append(forms, next), next
	}
	return forms
}

// Of the names of secrets: those of all that is kept here, and of files as they were.
const (
	stored  = "found/"
	backups = stored + "backup/"
)

// realPath is where a file or a folder lies, whatever links lead there.
func realPath(path string) (string, error) {
	at, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	return filepath.Abs(at)
}

// place names a file of a machine.
func place(machine, path string) string {
	sum := sha256.Sum256([]byte(machine + "\x00" + path))
	return hex.EncodeToString(sum[:10])
}

// maxMark is how long a text in a secret's metadata may be, in characters.
const maxMark = 500

// clip makes a part of a secret's name of a key, whatever stands in that.
func clip(s string) string { return clipTo(120, s) }

func clipTo(most int, s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, s)
	if r := []rune(s); len(r) > most {
		return string(r[len(r)-most:])
	}
	return s
}

// read gives a file that can be replaced, whole.
func read(path string) ([]byte, fs.FileInfo, error) {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return nil, nil, fault.New(fault.Invalid, "file_unfit", "it is no plain file").WithCause(err)
	}
	if info.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != 0 {
		return nil, nil, fault.New(fault.Invalid, "file_unfit", "its mode has a special bit (setuid, setgid or sticky), which would be lost")
	}
	if info.Size() > MaxFile {
		return nil, nil, fault.New(fault.TooLarge, "file_unfit", "the file has over 1 MiB")
	}
	doc, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fault.New(fault.Invalid, "file_unfit", "it cannot be read").WithCause(err)
	}
	return doc, info, nil
}

// Vault is where values go: the vault of one organization, or of the environment.
type Vault struct {
	To           *client.Client
	Organization string // may be empty
	Accounts     string // organization whose accounts become; empty: nothing is connected
	Owner        string // user whose they are; empty: the organization's
	Machine      string // as in Options
}

func (v Vault) context() map[string]string {
	if v.Organization == "" {
		return nil
	}
	return map[string]string{"organization_id": v.Organization}
}

// marks of a backup, in its metadata.
const (
	pathMark  = "file"
	modeMark  = "mode"
	timeMark  = "modified"
	afterMark = "sha256_after"
)

// connectionMark of a credential says which account it became.
const connectionMark = "connection"

// Apply takes what c says out of its file. Where the file cannot be replaced, nothing is
// stored either.
func (v Vault) Apply(ctx context.Context, c *Change) error {
	kept := disk.Kept{Is: c.is, Mode: c.is.Mode().Perm()}
	if err := disk.TrySwap(c.path, len(c.was)+grows, kept); err != nil {
		return unwritable(c.path, err)
	}
	now := slices.Clone(c.was)
	// The longest first, so that none is replaced inside another.
	order := make([]*Take, len(c.Takes))
	for i := range c.Takes {
		order[i] = &c.Takes[i]
	}
	slices.SortStableFunc(order, func(a, b *Take) int { return cmp.Compare(b.finding.Value.Len(), a.finding.Value.Len()) })
	for _, t := range order {
		s, err := v.store(ctx, t.Secret, client.SecretValue{Value: string(t.finding.Value.Reveal())}, t.Title+" from "+c.File, v.marksOf(c, t))
		if err != nil {
			return err
		}
		if t.Placeholder, err = v.connected(ctx, t, s); err != nil {
			return err
		}
		for _, form := range written(t.finding.Value.Reveal()) {
			now = bytes.ReplaceAll(now, form, []byte(t.Placeholder))
		}
	}
	// Only now is it known which accounts there are.
	c.Servers = c.servers()
	var ok bool
	if now, ok = c.rewritten(now, c.Servers); !ok {
		c.Servers = nil
	}
	if err := v.keep(ctx, c, now); err != nil {
		return err
	}
	return replace(c.path, c.was, now, kept)
}

// connected makes an account of a credential where the server knows its provider, and
// gives what stands in its place: for the server's own door where there is an account,
// else the name of the secret. What the server or the provider says against it is noted,
// and the credential is in the vault all the same.
func (v Vault) connected(ctx context.Context, t *Take, s client.Secret) (placeholder string, err error) {
	bare := "ambit_" + s.ID
	switch {
	case t.account.Provider == "":
		return bare, nil
	case t.account.Part == "":
		if t.account.Connected {
			return cmp.Or(t.account.Placeholder, bare), nil
		}
		return bare, nil
	}
	t.Connection, err = v.connect(ctx, t, s)
	if e, ok := errors.AsType[*client.Error](err); ok {
		t.Note = "It was not connected: " + e.Message
		return bare, nil
	}
	return cmp.Or(t.account.Placeholder, bare), err
}

func (v Vault) connect(ctx context.Context, t *Take, s client.Secret) (string, error) {
	if was := s.Metadata[connectionMark]; was != "" {
		if c, err := v.To.Connection(ctx, was); err == nil && c.State == "connected" {
			return c.ID, nil
		}
	}
	n := client.NewConnection{OrganizationID: v.Accounts, Provider: t.account.Provider, OwnerID: v.Owner, Fields: map[string]string{t.account.Part: string(t.finding.Value.Reveal())}}
	// A run that was cut off right after this has made an account that no mark names.
	// Where providers tell whose a key is the server finds it; elsewhere it is the one
	// without an account that is younger than the secret.
	page, err := v.To.Connections(ctx, client.ConnectionFilter{OrganizationID: v.Accounts, Provider: n.Provider, OwnerID: v.Owner, State: "connected"})
	if err != nil {
		return "", err
	}
	for _, c := range page.Data {
		if c.AccountID == "" && c.OwnerID == v.Owner && c.CreatedAt.After(s.CreatedAt) {
			n.ReconnectID = c.ID
		}
	}
	made, err := v.To.Connect(ctx, n)
	if err != nil || made.Connection == nil {
		return "", err
	}
	return made.Connection.ID, v.mark(ctx, s, connectionMark, made.Connection.ID)
}

// keep stores the file as it was before anything was taken out of it. What was kept
// when more is taken out of the same file stays.
func (v Vault) keep(ctx context.Context, c *Change, now []byte) error {
	marks := map[string]string{pathMark: c.path, modeMark: fmt.Sprintf("%04o", c.is.Mode().Perm()), timeMark: strconv.FormatInt(c.is.ModTime().UnixNano(), 10), afterMark: digest(now)}
	s, ok, err := v.find(ctx, c.Backup)
	if err != nil {
		return err
	}
	if ok && slices.Contains(strings.Fields(s.Metadata[afterMark]), digest(c.was)) {
		marks[modeMark], marks[timeMark], marks[afterMark] = s.Metadata[modeMark], s.Metadata[timeMark], digest(c.was)+" "+digest(now)
		_, err := v.To.EditSecret(ctx, s.ID, v.Organization, client.SecretEdit{Metadata: &marks})
		return err
	}
	_, err = v.store(ctx, c.Backup, client.SecretValue{Bytes: c.was, Content: "binary"}, "The file "+c.File+" before credentials were taken out of it", marks)
	return err
}

// store makes a secret, or gives an existing one this value, unless it has it.
func (v Vault) store(ctx context.Context, name string, value client.SecretValue, about string, marks map[string]string) (client.Secret, error) {
	s, ok, err := v.find(ctx, name)
	if err != nil {
		return s, err
	}
	if !ok {
		return v.To.CreateSecret(ctx, client.NewSecret{Name: name, SecretValue: value, Context: v.context(), Description: clip(about), Tags: []string{"found"}, Metadata: marks})
	}
	has, err := v.To.SecretValue(ctx, s.ID, v.Organization, "")
	if err != nil {
		return s, err
	}
	if !bytes.Equal(content(has.Value, has.Bytes), content(value.Value, value.Bytes)) {
		if s, err = v.To.UpdateSecret(ctx, s.ID, v.Organization, value, s.VersionID); err != nil {
			return s, err
		}
	} else {
		for _, mark := range []string{connectionMark, closedMark} {
			if was := s.Metadata[mark]; was != "" {
				marks[mark] = was
			}
		}
	}
	return v.To.EditSecret(ctx, s.ID, v.Organization, client.SecretEdit{Metadata: &marks})
}

func (v Vault) find(ctx context.Context, name string) (client.Secret, bool, error) {
	page, err := v.To.Secrets(ctx, client.SecretFilter{Name: name, OrganizationID: v.Organization})
	if err != nil || len(page.Data) == 0 {
		return client.Secret{}, false, err
	}
	return page.Data[0], true, nil
}

// Undo puts back a file as it was before Apply.
func (v Vault) Undo(ctx context.Context, file string) error {
	path := itself(file)
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	s, ok, err := v.find(ctx, backups+place(v.Machine, path))
	if err != nil {
		return err
	}
	if _, err := os.Lstat(path); err != nil {
		gone := fault.New(fault.NotFound, "file_unfit", "There is no file "+file+".").WithCause(err)
		if ok && s.Metadata[pathMark] == path {
			gone = gone.WithHint("Its old content is in the vault: ambit secret get " + s.Name + " --output FILE")
		}
		return gone
	}
	if !ok || s.Metadata[pathMark] != path {
		return fault.New(fault.NotFound, "no_backup", "Nothing was taken out of "+file+".")
	}
	now, is, err := read(path)
	if err != nil {
		return fault.New(fault.Conflict, "file_unfit", file+" cannot be put back: "+fault.Of(err).Message+".").WithCause(err)
	}
	was, err := v.To.SecretValue(ctx, s.ID, v.Organization, "")
	if err != nil {
		return err
	}
	before := content(was.Value, was.Bytes)
	mode, merr := strconv.ParseUint(s.Metadata[modeMark], 8, 32)
	switch {
	case bytes.Equal(now, before):
		return v.putBack(ctx, path) // it is as it was
	case !slices.Contains(strings.Fields(s.Metadata[afterMark]), digest(now)) || merr != nil:
		return fault.New(fault.Conflict, "file_changed", file+" was changed since.").
			WithHint("Its old content is in the vault: ambit secret get " + s.Name + " --output FILE")
	}
	kept := disk.Kept{Is: is, Mode: fs.FileMode(mode) & fs.ModePerm}
	if at, err := strconv.ParseInt(s.Metadata[timeMark], 10, 64); err == nil {
		kept.Modified = time.Unix(0, at)
	}
	if err := replace(path, now, before, kept); err != nil {
		return err
	}
	return v.putBack(ctx, path)
}

// putBack notes that what was taken out of a file lies there again, where a scan finds it.
// To take it out once more takes the note away.
func (v Vault) putBack(ctx context.Context, path string) error {
	all, err := v.under(ctx, stored+place(v.Machine, path)+"/")
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.Metadata[backMark] != "" {
			continue
		}
		if err := v.mark(ctx, s, backMark, "yes"); err != nil {
			return err
		}
	}
	return nil
}

// mark adds to what is noted of a secret.
func (v Vault) mark(ctx context.Context, s client.Secret, name, text string) error {
	marks := maps.Clone(s.Metadata)
	if marks == nil {
		marks = map[string]string{}
	}
	marks[name] = text
	_, err := v.To.EditSecret(ctx, s.ID, v.Organization, client.SecretEdit{Metadata: &marks})
	return err
}

// Taken are the files in a folder that something was taken out of.
func (v Vault) Taken(ctx context.Context, folder string) (files []string, err error) {
	at, err := realPath(folder)
	if err != nil {
		return nil, fault.New(fault.NotFound, "file_unfit", "There is no folder "+folder+".").WithCause(err)
	}
	all, err := v.under(ctx, backups)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		file := s.Metadata[pathMark]
		if rel, err := filepath.Rel(at, file); err != nil || !filepath.IsLocal(rel) || s.Name != backups+place(v.Machine, file) {
			continue // elsewhere, or not of this machine
		}
		if _, err := os.Stat(file); err == nil {
			files = append(files, file)
		}
	}
	slices.Sort(files)
	return files, nil
}

// under are the secrets whose names begin so.
func (v Vault) under(ctx context.Context, prefix string) ([]client.Secret, error) {
	return client.All(ctx, func(ctx context.Context, after string) (client.Page[client.Secret], error) {
		return v.To.Secrets(ctx, client.SecretFilter{Prefix: prefix, OrganizationID: v.Organization, Limit: 100, After: after})
	})
}

// same is equal for equal values. Under what only the machine knows it tells nothing of a
// value to who reads the metadata.
func (v Vault) same(value secret.Value) string {
	h := hmac.New(sha256.New, []byte("found "+v.Machine))
	h.Write(value.Reveal())
	return hex.EncodeToString(h.Sum(nil)[:10])
}

// content is a value, in whichever of its two forms the server gave it.
func content(text string, raw []byte) []byte {
	if raw != nil {
		return raw
	}
	return []byte(text)
}

func digest(doc []byte) string {
	sum := sha256.Sum256(doc)
	return hex.EncodeToString(sum[:])
}

// replace puts content in the place of a file that is still as it was.
func replace(path string, was, content []byte, kept disk.Kept) error {
	now, is, err := read(path)
	if err != nil || !bytes.Equal(now, was) || !os.SameFile(is, kept.Is) {
		return fault.New(fault.Conflict, "file_changed", path+" was changed meanwhile.").WithHint("Run it again.").WithCause(err)
	}
	if err := disk.Swap(path, content, kept); err != nil {
		return unwritable(path, err)
	}
	return nil
}

// unwritable is why a file stays as it was.
func unwritable(path string, err error) error {
	f := fault.New(fault.Invalid, "file_unwritable", path+" cannot be replaced.").WithHint("Its content is as before.")
	switch {
	case errors.Is(err, disk.ErrAttribute):
		f.Message = path + " has an extended attribute or an access list that a new file cannot be given here."
		f.Hint += " Take it away, or run this as somebody who may set it."
	case errors.Is(err, syscall.EROFS):
		f.Message = path + " lies on a file system that is read only."
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		f.Message = path + " cannot be replaced: there is no room left beside it."
		f.Hint += " Make room and run it again."
	default:
		f.Hint += " Look at the rights of its folder, and at whose it is."
	}
	return f.WithCause(err)
}

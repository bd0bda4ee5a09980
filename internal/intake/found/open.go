package found

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/scan"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Open is a credential that was taken out of files of this machine and still works, as far
// as is known: whoever read it there can use it. It holds no value.
type Open struct {
	Title    string   `json:"title"`
	Provider string   `json:"provider,omitempty"` // as a scan names it
	Masked   string   `json:"masked,omitempty"`
	Places   []string `json:"places"` // where it lay: FILE, or FILE:LINE
	Secrets  []string `json:"secrets"`
	Revoke   string   `json:"revoke,omitempty"` // the provider's page
	// RevokedAt is the host that takes the key back from whoever has it.
	RevokedAt   string   `json:"revoked_at_host,omitempty"`
	Connections []string `json:"connections,omitempty"` // that use it
}

// Marks of a credential that say what is to be done about it.
const (
	titleMark  = "found_title"
	issuerMark = "found_provider"
	maskedMark = "found_masked"
	pageMark   = "found_revoke"
	hostMark   = "found_revoked_at"
	lineMark   = "found_line"
	onMark     = "found_on" // the machine
	sameMark   = "found_same"
	closedMark = "found_closed" // what became of it; there is none while it works
	backMark   = "found_back"   // it lies in its file again
)

// ByHand is what closes a credential that a person has revoked.
const ByHand = "by hand"

// marksOf says of a taken credential what Todo tells later.
func (v Vault) marksOf(c *Change, t *Take) map[string]string {
	f := t.finding
	out := map[string]string{pathMark: clipTo(maxMark, c.path), "found_at": clip(cmp.Or(t.Key, t.Kind)), titleMark: clip(t.Title), issuerMark: clip(f.Provider), maskedMark: clip(t.Masked),
		pageMark: clipTo(maxMark, t.Revoke), hostMark: scan.RevokedAt(f), lineMark: strconv.Itoa(t.Line), onMark: v.on(), sameMark: v.same(f.Value)}
	maps.DeleteFunc(out, func(_, text string) bool { return text == "" })
	return out
}

// on names a machine without telling what only it knows.
func (v Vault) on() string { return place(v.Machine, "") }

// entries are the credentials that were taken out of files of this machine and are open.
func (v Vault) entries(ctx context.Context) (groups [][]client.Secret, err error) {
	all, err := v.under(ctx, stored)
	if err != nil {
		return nil, err
	}
	at := map[string]int{}
	for _, s := range all {
		if strings.HasPrefix(s.Name, backups) || s.Metadata[onMark] != v.on() || s.Metadata[closedMark] != "" || s.Metadata[backMark] != "" {
			continue
		}
		same := cmp.Or(s.Metadata[sameMark], s.Name)
		i, ok := at[same]
		if !ok {
			i, at[same] = len(groups), len(groups)
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], s)
	}
	return groups, nil
}

// Todo lists what still works, each credential once however often it lay there.
func (v Vault) Todo(ctx context.Context) ([]Open, error) {
	groups, err := v.entries(ctx)
	if err != nil {
		return nil, err
	}
	var out []Open
	for _, g := range groups {
		out = append(out, openOf(g))
	}
	slices.SortFunc(out, func(a, b Open) int {
		return cmp.Or(cmp.Compare(a.Provider, b.Provider), cmp.Compare(a.Title, b.Title), slices.Compare(a.Places, b.Places))
	})
	return out, nil
}

func openOf(g []client.Secret) Open {
	m := g[0].Metadata
	o := Open{Title: cmp.Or(m[titleMark], "Credential"), Provider: m[issuerMark], Masked: m[maskedMark], Revoke: m[pageMark], RevokedAt: m[hostMark]}
	for _, e := range g {
		where := e.Metadata[pathMark]
		if line := e.Metadata[lineMark]; line != "" && line != "0" {
			where += ":" + line
		}
		o.Places, o.Secrets = append(o.Places, where), append(o.Secrets, e.Name)
		if c := e.Metadata[connectionMark]; c != "" && !slices.Contains(o.Connections, c) {
			o.Connections = append(o.Connections, c)
		}
	}
	slices.Sort(o.Places)
	slices.Sort(o.Secrets)
	return o
}

// Finding reads an open credential from the vault, to have it revoked. Its fingerprint is
// the name of its first secret.
func (v Vault) Finding(ctx context.Context, o Open) (scan.Finding, error) {
	s, ok, err := v.find(ctx, o.Secrets[0])
	if err != nil || !ok {
		return scan.Finding{}, cmp.Or(err, error(fault.New(fault.NotFound, "not_found", "There is no secret "+o.Secrets[0]+" any more.")))
	}
	has, err := v.To.SecretValue(ctx, s.ID, v.Organization, "")
	if err != nil {
		return scan.Finding{}, err
	}
	return scan.Finding{Title: o.Title, Provider: o.Provider, Masked: o.Masked, Revoke: o.Revoke, Fingerprint: o.Secrets[0], Value: secret.New(content(has.Value, has.Bytes))}, nil
}

// Close notes what became of the credential that a secret keeps, in all its places.
func (v Vault) Close(ctx context.Context, name, how string) error {
	groups, err := v.entries(ctx)
	if err != nil {
		return err
	}
	for _, g := range groups {
		if !slices.ContainsFunc(g, func(e client.Secret) bool { return e.Name == name }) {
			continue
		}
		for _, e := range g {
			if err := v.mark(ctx, e, closedMark, how); err != nil {
				return err
			}
		}
		return nil
	}
	return fault.New(fault.NotFound, "not_found", "Nothing open has the name "+name+".").WithHint("ambit import findings --todo --json has the names, in secrets.")
}

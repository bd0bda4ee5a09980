package web

import (
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/custody"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/vault"
)

const keysPerPage = 50

// whole reports whether the page is about all of the environment: for those who run
// it, from its own organization.
func (v *visit) whole(p account.Permission) bool {
	return v.here.Operates() && v.actor().May("", p) == nil
}

// keysOf is the organization to which keys are confined; empty: all of the environment.
func (v *visit) keysOf() id.Organization {
	if v.whole(account.ViewKeys) {
		return ""
	}
	return v.here.Organization
}

func (s *Server) keyList(v *visit) (answer, error) {
	org := v.keysOf()
	p := &KeysPage{Frame: Frame{Title: "Keys", Section: "keys"}, CanRule: v.may(account.ManageRootKeys), Bind: v.query("/ui/keys/bind"), Shred: v.query("/ui/keys/shred", "reach", "organization")}
	list, next, err := s.custody.Keys(v.ctx(), v.actor(), org, "", id.KEK(v.form("after")), keysPerPage)
	if err != nil {
		return nil, err
	}
	bindings, err := s.custody.Bindings(v.ctx(), v.actor(), org)
	if err != nil {
		return nil, err
	}
	n := s.names(v, v.here.Environment)
	for _, b := range bindings {
		p.Bindings = append(p.Bindings, s.bindingRow(v, n, b))
	}
	for _, k := range list {
		p.Items = append(p.Items, s.keyRow(v, n, k, bindings))
	}
	if next != "" {
		p.Next = v.query("/ui/keys", "after", string(next))
	}
	if org == "" {
		p.Whole, p.Shred = v.here.EnvironmentName, ""
		st, err := s.custody.Status(v.ctx(), v.actor())
		if err != nil {
			return nil, err
		}
		p.Moving = wholeProgress(st)
		for _, r := range st.Roots {
			if !slices.ContainsFunc(bindings, func(b custody.Binding) bool { return b.RootRef == r.Ref && !r.Own }) { // which stands above
				p.Roots = append(p.Roots, s.rootRow(r))
			}
		}
	}
	return show(p), nil
}

// health says in words what a guard knows about its keeper.
func health(is keyring.State) Health {
	h := Health{Since: is.Since}
	switch is.Class {
	case keyring.Fine:
		h.Mark, h.Text = Mark{"Works", "good"}, "It answers."
		if is.Proven.IsZero() {
			h.Mark, h.Text = Mark{"Not asked yet", ""}, "Nothing has needed it since this server started."
		}
	case keyring.Unavailable:
		h.Mark, h.Text = Mark{"Out of reach", "warn"}, "It does not answer. What was unwrapped is used a few minutes more."
	case keyring.Throttled:
		h.Mark, h.Text = Mark{"Asked too often", "warn"}, "It wants to be asked less. What was unwrapped is used a few minutes more."
	case keyring.Denied:
		h.Mark, h.Text = Mark{"Refused", "bad"}, "Its owner disabled it, or took the right to it away. Nothing under it can be read until it is allowed again; nothing is lost."
	case keyring.Mismatch:
		h.Mark, h.Text = Mark{"Another key", "bad"}, "Where it should be is another key, or none. Nothing under it can be read until it is put back."
	}
	return h
}

func (s *Server) rootRow(r vault.RootInfo) RootRow {
	row := RootRow{Ref: r.Ref, Where: oneLine(r.Location), Whose: "A customer's", Keys: int(r.Keys), Audit: int(r.Audit), Health: health(r.State)}
	switch {
	case r.Missing:
		row.Where, row.Whose, row.Health = "Not on this server", "Missing", health(keyring.State{Class: keyring.Mismatch})
	case r.Primary:
		row.Whose = "Wraps new keys"
	case r.Own:
		row.Whose, row.Command = "The server's, older or spare", "ambit key rotate --root "+r.Ref
	}
	return row
}

func (n *names) organization(org id.Organization) string {
	if org == n.v.here.Organization {
		return oneLine(n.v.here.OrganizationName)
	}
	name, ok := n.organizations[org]
	if !ok {
		name = string(org)
		if o, err := n.s.people.Organization(n.v.ctx(), n.env, org); err == nil {
			name = oneLine(o.Name)
		}
		n.organizations[org] = name
	}
	return name
}

// context says whose a key context is.
func (n *names) context(items map[string]string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(items)) {
		switch value := items[name]; name {
		case "organization_id":
			parts = append([]string{n.organization(id.Organization(value))}, parts...)
		case "user_id":
			parts = append(parts, n.user(id.User(value)))
		default:
			parts = append(parts, oneLine(name)+" "+oneLine(value))
		}
	}
	if len(parts) == 0 {
		return "All of " + oneLine(n.v.here.EnvironmentName)
	}
	return strings.Join(parts, " · ")
}

func (s *Server) keyRow(v *visit, n *names, k vault.KeyInfo, bindings []custody.Binding) KeyRow {
	row := KeyRow{ID: k.ID, Href: v.query("/ui/keys/" + string(k.ID)), Of: n.context(k.Context), Version: k.Version, Values: counted(k.Values), Changed: k.RotatedAt, Due: k.DueAt,
		Root: rootWords(k.Own, k.Root, bindings)}
	h := health(k.State)
	switch {
	case !k.ShreddedAt.IsZero():
		row.Chip, row.Changed = Mark{"Destroyed", "bad"}, k.ShreddedAt
	case h.Mark.Kind == "warn" || h.Mark.Kind == "bad":
		row.Chip = h.Mark
	case k.Moving > 0:
		row.Chip = Mark{"Moving", "warn"}
	}
	return row
}

// rootWords says whose root key it is.
func rootWords(own bool, ref string, bindings []custody.Binding) string {
	if !own || slices.ContainsFunc(bindings, func(b custody.Binding) bool { return b.RootRef == ref }) {
		return "the customer's own root key"
	}
	return "the server's root key"
}

// counted says a number that lists count no further than to a limit.
func counted(n int64) string {
	if n >= vault.MaxCounted {
		return thousands(vault.MaxCounted) + " values or more"
	}
	return plural(int(n), "value")
}

// wholeProgress says how far the whole server is; nil: everything is where it
// should be.
func wholeProgress(s vault.Status) *Progress {
	p := &Progress{}
	for _, r := range s.Roots {
		p.Max += r.Keys + r.Audit
	}
	p.Max, p.Value = max(p.Max, s.WaitingSeeds), max(p.Max-s.WaitingSeeds, 0)
	if s.WaitingValues > 0 {
		p.Max += s.WaitingValues
	}
	var parts []string
	if s.WaitingSeeds > 0 {
		parts = append(parts, plural(int(s.WaitingSeeds), "key")+" still to be wrapped by another root key")
	}
	if s.WaitingValues > 0 {
		parts = append(parts, plural(int(s.WaitingValues), "value")+" still under older versions")
	}
	if len(parts) == 0 {
		p.Text = "Everything is under the key that it should be under."
		return p
	}
	p.Href, p.Text = "/ui/keys/progress", upper(andList(parts))+"."
	return p
}

// progressAnswer is a Progress for the script of the page.
type progressAnswer struct {
	Value int64  `json:"value"`
	Max   int64  `json:"max"`
	Text  string `json:"text"`
	Done  bool   `json:"done"`
}

func (a progressAnswer) send(_ *Server, v *visit) { writeJSON(v.w, http.StatusOK, a) }

func (p *Progress) answer() answer { return progressAnswer{p.Value, p.Max, p.Text, p.Href == ""} }

func (s *Server) keysProgress(v *visit) (answer, error) {
	st, err := s.custody.Status(v.ctx(), v.actor())
	if err != nil {
		return nil, err
	}
	return wholeProgress(st).answer(), nil
}

// findKey finds the key that the address names, in any organization that the person
// is in, and moves here to that. org is to which it is confined.
func (s *Server) findKey(v *visit, kid string) (k vault.KeyInfo, org id.Organization, err error) {
	kek, err := parseID(id.KEK(kid))
	if err != nil {
		return vault.KeyInfo{}, "", err
	}
	here := v.here
	found := error(fault.New(fault.NotFound, "not_found", "No such key.").WithHint("It may belong to somebody else, or the address is incomplete."))
	for i, m := range append([]account.Membership{here}, v.person.Organizations()...) {
		if i > 0 && m.Organization == here.Organization {
			continue
		}
		v.here = m
		org = v.keysOf()
		k, err := s.custody.Key(v.ctx(), v.actor(), org, kek)
		switch {
		case err == nil:
			return k, org, nil
		case fault.KindOf(err) != fault.NotFound && fault.KindOf(err) != fault.Denied:
			return vault.KeyInfo{}, "", err
		case i == 0 && fault.KindOf(err) == fault.Denied:
			found = err
		}
	}
	v.here = here
	return vault.KeyInfo{}, "", found
}

func (s *Server) keyShow(v *visit) (answer, error) {
	k, org, err := s.findKey(v, v.r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	p, err := s.keyPage(v, k, org)
	if err != nil {
		return nil, err
	}
	return show(p), nil
}

func (s *Server) keyPage(v *visit, k vault.KeyInfo, org id.Organization) (*KeyPage, error) {
	bindings, err := s.custody.Bindings(v.ctx(), v.actor(), org)
	if err != nil {
		return nil, err
	}
	n := s.names(v, v.here.Environment)
	p := &KeyPage{Frame: Frame{Section: "keys", Narrow: true}, KeyRow: s.keyRow(v, n, k, bindings), Health: health(k.State), Used: k.Wraps, Max: k.MaxWraps,
		CanRule: v.may(account.ManageRootKeys) && k.ShreddedAt.IsZero(), Shred: v.query("/ui/keys/shred", "key", string(k.ID)), Progress: keyProgress(v, k)}
	p.Title = "Key of " + p.Of
	p.Uses = fmt.Sprintf("%s of %s", thousands(int(k.Wraps)), thousands(int(k.MaxWraps)))
	for _, name := range slices.Sorted(maps.Keys(k.Context)) {
		p.Facts = append(p.Facts, Fact{Name: name, Value: k.Context[name]})
	}
	p.Facts = append(p.Facts, Fact{Name: "Id", Value: string(k.ID), ID: true})
	newest := k.Values
	for _, o := range k.Older {
		newest -= o.Values
		p.Versions = append(p.Versions, KeyVersionRow{Number: o.Version, Root: o.Root, Values: int(o.Values), Kept: o.Kept})
	}
	p.Versions = append(p.Versions, KeyVersionRow{Number: k.Version, Current: true, Root: k.Root, Values: int(newest)})
	slices.Reverse(p.Versions)
	return p, nil
}

// keyProgress says how far everything under a key is moved to its newest version.
func keyProgress(v *visit, k vault.KeyInfo) *Progress {
	p := &Progress{Value: k.Values, Max: k.Values}
	for _, o := range k.Older {
		p.Value -= o.Values
	}
	p.Text = fmt.Sprintf("All %s under version %d.", plural(int(k.Values), "value"), k.Version)
	if p.Value < p.Max {
		p.Href = v.query("/ui/keys/" + string(k.ID) + "/progress")
		p.Text = fmt.Sprintf("%s of %s under version %d.", thousands(int(p.Value)), plural(int(p.Max), "value"), k.Version)
	}
	return p
}

func (s *Server) keyProgress(v *visit) (answer, error) {
	k, _, err := s.findKey(v, v.r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return keyProgress(v, k).answer(), nil
}

func (s *Server) keyRotate(v *visit) (answer, error) {
	k, org, err := s.findKey(v, v.r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	reencrypt := v.form("reencrypt") != ""
	if _, err := s.custody.Replace(v.ctx(), v.actor(), org, k.ID, reencrypt); err != nil {
		return nil, err
	}
	done := "key_rotated"
	if reencrypt {
		done = "key_reencrypted"
	}
	return goTo(v.query("/ui/keys/"+string(k.ID), "done", done)), nil
}

func (s *Server) bindingRow(v *visit, n *names, b custody.Binding) BindingRow {
	row := BindingRow{ID: b.ID, Href: v.query("/ui/bindings/" + string(b.ID)), Root: oneLine(b.URI), Mode: modeWords(b.Mode), Under: int(b.Moved.Under), Keys: int(b.Moved.Keys), Health: health(b.Moved.State), Changed: b.UpdatedAt}
	items := map[string]string{}
	if b.Organization != "" {
		items["organization_id"] = string(b.Organization)
	}
	if b.User != "" {
		items["user_id"] = string(b.User)
	}
	row.For = n.context(items)
	return row
}

func modeWords(m vault.Mode) string {
	if m == vault.Preferred {
		return "Preferred: new values are sealed under the server's root key while this one is away"
	}
	return "Required: without this key nothing is sealed or opened"
}

// findBinding finds the binding that the address names, wherever the person sees it,
// and moves here to that.
func (s *Server) findBinding(v *visit) (b custody.Binding, err error) {
	bid, err := parseID(id.Binding(v.r.PathValue("id")))
	if err != nil {
		return b, err
	}
	err = v.anywhere(func(by account.Actor) (id.Organization, error) {
		b, err = s.custody.Binding(v.ctx(), by, bid)
		return b.Organization, err
	})
	return b, err
}

func (s *Server) bindingShow(v *visit) (answer, error) {
	b, err := s.findBinding(v)
	if err != nil {
		return nil, err
	}
	n := s.names(v, b.Environment)
	p := &BindingPage{Frame: Frame{Section: "keys", Narrow: true}, BindingRow: s.bindingRow(v, n, b), Progress: bindingProgress(v, b), Required: b.Mode == vault.Required,
		CanRule: v.may(account.ManageRootKeys), End: v.query("/ui/bindings/" + string(b.ID) + "/end")}
	p.Title = "Root key of " + p.For
	if service := serviceOf(b.URI); service != nil {
		p.Take = service.take
	}
	p.Facts = []Fact{{Name: "For", Value: p.For}, {Name: "Mode", Value: p.Mode}, {Name: "Where it is", Value: b.URI}, {Name: "Known as", Value: b.RootRef, ID: true}, {Name: "Id", Value: string(b.ID), ID: true}}
	return show(p), nil
}

// bindingProgress says how far a binding is carried out.
func bindingProgress(v *visit, b custody.Binding) *Progress {
	p := &Progress{Value: b.Moved.Under, Max: b.Moved.Keys + b.Moved.Holding, Text: fmt.Sprintf("%s of %s under this root key.", thousands(int(b.Moved.Under)), plural(int(b.Moved.Keys), "key"))}
	if b.Moved.Keys == 0 {
		p.Text = "There is no key of it yet: the first value makes one, under this root key."
	}
	if b.Moved.Holding > 0 {
		p.Text += " What is under " + plural(int(b.Moved.Holding), "older version") + " of another root key is being moved."
	} else if b.Moved.Waiting > 0 {
		p.Text += " " + upper(plural(int(b.Moved.Waiting), "empty version")) + " of another root key will be destroyed within about an hour."
	}
	if p.Value < p.Max {
		p.Href = v.query("/ui/bindings/" + string(b.ID) + "/progress")
	}
	return p
}

func (s *Server) bindingProgress(v *visit) (answer, error) {
	b, err := s.findBinding(v)
	if err != nil {
		return nil, err
	}
	return bindingProgress(v, b).answer(), nil
}

func (s *Server) bindingMigrate(v *visit) (answer, error) {
	b, err := s.findBinding(v)
	if err != nil {
		return nil, err
	}
	if _, err := s.custody.Migrate(v.ctx(), v.actorIn(b.Environment), b.ID); err != nil {
		return nil, err
	}
	return goTo(v.query("/ui/bindings/"+string(b.ID), "done", "migrating")), nil
}

func (s *Server) bindingDoubt(v *visit) (answer, error) {
	b, err := s.findBinding(v)
	if err != nil {
		return nil, err
	}
	if err := s.custody.Doubt(v.ctx(), v.actorIn(b.Environment), b.ID); err != nil {
		return nil, err
	}
	return goTo(v.query("/ui/bindings/"+string(b.ID), "done", "doubted")), nil
}

// bindingEnd takes a customer's root key out again.
func (s *Server) bindingEnd(v *visit) (change, error) {
	b, err := s.findBinding(v)
	if err != nil {
		return change{}, err
	}
	row := s.bindingRow(v, s.names(v, b.Environment), b)
	return change{back: row.Href,
		try: func(ag account.Agreement) (answer, error) {
			if err := s.custody.Unbind(v.ctx(), v.actorIn(b.Environment), b.ID, ag); err != nil {
				return nil, err
			}
			return goTo(v.query("/ui/keys", "done", "unbound")), nil
		},
		ask: func(account.Raise) (page, error) {
			p := s.confirming(v, "Take a root key out", "keys", said("", row.For, " is no longer sealed under ", b.URI, "."), "Take it out")
			p.Danger = true
			p.Lines = []string{"What it wraps comes back under the server's root key by itself, and needs this key until that is done: do not disable it before.",
				"From then on its owner can no longer switch the data off."}
			return p, nil
		}}, nil
}

// reach reads whose keys a form is about: all of the environment, if the form says so
// and the person may, or the organization of here.
func (v *visit) reachOf(p account.Permission) (id.Organization, error) {
	if v.form("reach") != "environment" {
		return v.here.Organization, nil
	}
	if env := id.Environment(v.form("environment")); env != "" && env != v.here.Environment {
		for _, m := range v.person.Organizations() {
			if m.Environment == env && m.Operates() {
				v.here = m
			}
		}
	}
	return "", v.actor().May("", p)
}

// keyShred destroys keys for good.
func (s *Server) keyShred(v *visit) (change, error) {
	org, err := v.reachOf(account.ManageRootKeys)
	if err != nil {
		return change{}, err
	}
	user, kek := id.User(v.form("user_id")), id.KEK(v.form("key"))
	var k vault.KeyInfo
	if kek != "" {
		if k, org, err = s.findKey(v, string(kek)); err != nil {
			return change{}, err
		}
		kek, user = k.ID, ""
	}
	p, err := s.shredPage(v, org, user, k)
	if err != nil {
		return change{}, err
	}
	return change{back: p.Back,
		try: func(ag account.Agreement) (answer, error) {
			if v.r.Method == http.MethodPost && v.form("typed") != p.Type {
				return nil, fault.New(fault.Invalid, "not_typed", "What you typed is not "+p.Type+".").WithHint("Type it exactly: nothing can undo this.")
			}
			n, err := s.custody.Shred(v.ctx(), v.actor(), org, user, kek, ag)
			if err != nil {
				return nil, err
			}
			return show(&ResultPage{Frame: Frame{Title: "Destroyed", Section: "keys", Narrow: true}, Word: "Destroyed", Tone: "off", Icon: "good",
				Sentence: "What " + plural(n, "key") + " sealed can be read by nobody any more.", Back: v.query("/ui/keys"), BackLabel: "Keys",
				Lines: []string{"It is gone on every node and from the database's files. Backups from before hold the keys, wrapped: they open as long as the root key of then exists."}}), nil
		},
		form: func() (page, error) { return p, nil },
		ask:  func(account.Raise) (page, error) { return p, nil }}, nil
}

func (s *Server) shredPage(v *visit, org id.Organization, user id.User, k vault.KeyInfo) (*ShredPage, error) {
	kek := k.ID
	loss, err := s.custody.Loss(v.ctx(), v.actor(), org, user, kek)
	if err != nil {
		return nil, err
	}
	n := s.names(v, v.here.Environment)
	p := &ShredPage{Frame: Frame{Title: "Destroy keys", Section: "keys", Narrow: true}, Keys: loss.Keys, More: loss.More, Typed: v.form("typed"), Nonce: rand.Text(), TOTP: s.codeAllowed(v), Back: v.query("/ui/keys")}
	switch {
	case kek != "":
		p.What, p.Type, p.Back = "the key of "+n.context(k.Context), string(kek), v.query("/ui/keys/"+string(kek))
	case user != "" && org != "":
		p.What, p.Type = "all keys of "+n.user(user)+" in "+n.organization(org), string(user)
	case user != "":
		p.What, p.Type = "all keys of "+n.user(user), string(user)
	default:
		p.What, p.Type = "all keys of "+n.organization(org), strings.Join(strings.Fields(n.organization(org)), " ")
	}
	p.Accounts = loss.Values["credential"] > 0
	for _, kind := range lossKinds {
		switch n := loss.Values[kind.table]; n {
		case 0:
		case 1:
			p.Lost = append(p.Lost, "1 "+kind.one)
		default:
			p.Lost = append(p.Lost, thousands(int(n))+" "+kind.many)
		}
		delete(loss.Values, kind.table)
	}
	rest := int64(0)
	for _, n := range loss.Values {
		rest += n
	}
	if rest > 0 {
		p.Lost = append(p.Lost, plural(int(rest), "other value"))
	}
	for _, f := range [][2]string{{"reach", v.form("reach")}, {"environment", v.form("environment")}, {"user_id", string(user)}, {"key", string(kek)}, {"org", string(v.here.Organization)}} {
		if f[1] != "" {
			p.Fields = append(p.Fields, Fact{Name: f[0], Value: f[1]})
		}
	}
	return p, nil
}

// lossKinds say what the tables hold that keys seal, in the order of how much it
// matters.
var lossKinds = []struct{ table, one, many string }{
	{"secret_version", "version of a secret", "versions of secrets"}, {"credential", "credential of a connection", "credentials of connections"},
	{"provider", "client secret of a provider", "client secrets of providers"}, {"totp", "authenticator app", "authenticator apps"},
	{"agent_token", "token of an agent", "tokens of agents"}, {"approval", "request and what was approved", "requests and what was approved"},
}

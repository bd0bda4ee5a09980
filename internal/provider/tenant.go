package provider

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/provider/postgres"
)

// Many providers have an address of its own for each customer. A record then has
// names in braces where the address differs: what a person chooses when they
// connect (tenant), and what the provider tells when it gives a token (capture).
// A connection is made with a record in which all of them are filled in, by
// [Record.Bind]; its values are part of what it pins (product.md rule 6). An
// agent can change none of them.

// TenantParam is one part of a provider's addresses that a person chooses.
type TenantParam struct {
	Name    string   `yaml:"name"`
	Title   string   `yaml:"title"`
	Help    string   `yaml:"help"`
	Pattern string   `yaml:"pattern"` // a regular expression that all of the value matches
	Options []string `yaml:"options"` // or the values that there are
	Default string   `yaml:"default"`
	Example string   `yaml:"example"`
}

// Capture is one part that the provider tells.
type Capture struct {
	Name    string   `yaml:"name"`
	From    string   `yaml:"from" enum:"token,callback,identity"` // where it stands
	Field   string   `yaml:"field"`                               // path in the answer, or the callback's parameter
	Hosts   []string `yaml:"hosts"`                               // it is a host, or a URL of one: below one of these
	Pattern string   `yaml:"pattern"`                             // or a text that matches this
	Account bool     `yaml:"account"`                             // another value is another account
	Default string   `yaml:"default"`                             // when it is not told
	Example string   `yaml:"example"`
}

const (
	maxPlaceParams = 10
	maxPlaceValue  = 200
)

var (
	placeName = regexp.MustCompile(`\{([a-z][a-z0-9_]*)\}`)
	// plainPart is what a value may hold, whatever its pattern says: nothing that
	// ends a host or a path segment, and no empty label.
	plainPart = regexp.MustCompile(`\A[A-Za-z0-9_~-]+(?:\.[A-Za-z0-9_~-]+)*\z`)
)

// values is what fills a record's names.
type values = map[string]string

// Open lists the names that are still to be filled in.
func (r Record) Open() []string {
	var out []string
	for _, name := range r.names() {
		if _, ok := r.values[name]; !ok {
			out = append(out, name)
		}
	}
	return out
}

// Opaque reports whether names are left that only a sign-in tells, or the token that
// it gives; what the answer of identity tells can be asked for later.
func (r Record) Opaque() bool {
	return slices.ContainsFunc(r.Open(), func(name string) bool {
		return !slices.ContainsFunc(r.Capture, func(c Capture) bool { return c.Name == name && c.From == "identity" })
	})
}

func (r Record) names() []string {
	var out []string
	for _, p := range r.Tenant {
		out = append(out, p.Name)
	}
	for _, c := range r.Capture {
		out = append(out, c.Name)
	}
	return out
}

// Values are those that the record was bound to.
func (r Record) Values() map[string]string { return maps.Clone(r.values) }

// Account is the part of the values that tells one account from another, in a
// form that can be compared; empty when there is none.
func (r Record) AccountPlace() string {
	q := url.Values{}
	for _, p := range r.Tenant {
		q.Set(p.Name, r.values[p.Name])
	}
	for _, c := range r.Capture {
		if c.Account {
			q.Set(c.Name, r.values[c.Name])
		}
	}
	return q.Encode()
}

// Choose binds the record to what a person chose. Each parameter has a value or
// a default, and there are no others: what is captured cannot be chosen.
func (r Record) Choose(chosen map[string]string) (Record, error) {
	all := values{}
	for _, p := range r.Tenant {
		v, given := chosen[p.Name]
		if v = strings.TrimSpace(v); !given || v == "" {
			v = p.Default
		}
		if v == "" {
			return Record{}, badValue(p.Name, orText(p.Title, p.Name)+" is missing.", p.hint())
		}
		all[p.Name] = v
	}
	for _, name := range sortedKeys(chosen) {
		if _, ok := all[name]; !ok {
			return Record{}, badValue(name, "The provider has no parameter "+quoted(name)+" that is chosen.", "Leave it out.")
		}
	}
	return r.Bind(all)
}

// MayChoose checks some of what a person could choose, so that somebody else can
// fill it in for them.
func (r Record) MayChoose(some map[string]string) error {
	for _, name := range sortedKeys(some) {
		if !slices.ContainsFunc(r.Tenant, func(p TenantParam) bool { return p.Name == name }) {
			return fault.New(fault.Invalid, "template_param_unknown", "The provider has no parameter "+quoted(name)+" that is chosen.")
		}
		if _, err := r.checkValue(name, some[name]); err != nil {
			return err
		}
	}
	return nil
}

// Bind fills in names, after it has held each value against the record. It can be
// called again with more of them, as a provider tells them.
func (r Record) Bind(more map[string]string) (Record, error) {
	if len(more) == 0 {
		return r, nil
	}
	all := maps.Clone(r.values)
	if all == nil {
		all = values{}
	}
	for _, name := range sortedKeys(more) {
		v, err := r.checkValue(name, more[name])
		if err != nil {
			return Record{}, err
		}
		if was, ok := all[name]; ok && was != v {
			return Record{}, badValue(name, "The value of "+name+" is set already.", "Start connecting again.")
		}
		all[name] = v
	}
	out := r
	out.values = all
	out.own()
	out.eachPlace(func(s *string) { *s = fillNames(*s, all) })
	if problems := out.compile(); len(problems) > 0 {
		return Record{}, fault.Of(problemFault(problems)).WithHint("An admin should check the parameters of the provider's record.")
	}
	return out, nil
}

func (r Record) checkValue(name, v string) (string, error) {
	if len(v) > maxPlaceValue {
		return "", badValue(name, "The value of "+name+" is too long.", "")
	}
	for _, p := range r.Tenant {
		if p.Name == name {
			return v, matchesValue(name, orText(p.Title, name), v, p.Pattern, p.Options, p.hint())
		}
	}
	for _, c := range r.Capture {
		if c.Name != name {
			continue
		}
		if len(c.Hosts) > 0 {
			host, ok := hostBelow(v, c.Hosts)
			if !ok {
				return "", fault.New(fault.Denied, "destination_refused", "The provider named an address that its record does not allow.").
					WithHint("An admin should check capture." + name + ".hosts in the provider's record.")
			}
			return host, nil
		}
		return v, matchesValue(name, name, v, c.Pattern, nil, "")
	}
	return "", badValue(name, "The provider has no parameter "+quoted(name)+".", "Leave it out.")
}

func matchesValue(name, title, v, pattern string, options []string, hint string) error {
	ok := slices.Contains(options, v)
	if pattern != "" {
		re, err := regexp.Compile(`\A(?:` + pattern + `)\z`)
		ok = err == nil && re.MatchString(v)
	}
	if !ok || !plainPart.MatchString(v) {
		return badValue(name, title+" cannot be "+quoted(v)+".", hint)
	}
	return nil
}

func (p TenantParam) hint() string {
	switch {
	case len(p.Options) > 0:
		return "One of: " + strings.Join(p.Options, ", ") + "."
	case p.Help != "":
		return p.Help + "."
	}
	return "Such as " + p.Example + "."
}

func badValue(name, msg, hint string) error {
	return fault.New(fault.Invalid, "tenant_invalid", msg).WithHint(hint).With("parameter", name)
}

func orText(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// hostBelow gives the host of v, which is a host or the URL of one, if it is one
// of suffixes or below it. A port counts only when the suffix names it. What else
// a URL may hold, a provider's answer does not get to say.
func hostBelow(v string, suffixes []string) (string, bool) {
	host := v
	if strings.Contains(v, "://") {
		u, err := url.Parse(v)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.Opaque != "" || u.RawQuery != "" || u.Fragment != "" {
			return "", false
		}
		host = u.Host
	}
	host = strings.ToLower(strings.TrimSuffix(host, "/"))
	name, port, hasPort := strings.Cut(host, ":")
	if !plainPart.MatchString(name) || !asciiHost(name) || hasPort && !decimal(port) {
		return "", false
	}
	return host, slices.ContainsFunc(suffixes, func(s string) bool { return host == s || strings.HasSuffix(host, "."+s) })
}

func decimal(s string) bool {
	return s != "" && len(s) <= 5 && !strings.ContainsFunc(s, func(c rune) bool { return c < '0' || c > '9' })
}

// Told reads the values that stand in an answer, or in the callback's parameters.
func (r Record) Told(from string, find func(field string) (string, bool)) map[string]string {
	out := values{}
	for _, c := range r.Capture {
		if v, ok := find(c.Field); c.From == from && ok && v != "" {
			out[c.Name] = v
		}
	}
	return out
}

// Captured is Told, where all that is to be told must be, or has a default.
func (r Record) Captured(from string, find func(field string) (string, bool)) (map[string]string, error) {
	out := r.Told(from, find)
	for _, c := range r.Capture {
		if c.From != from || out[c.Name] != "" {
			continue
		}
		v := c.Default
		if v == "" {
			return nil, fault.New(fault.Unavailable, "capture_missing", "The provider did not tell which of its addresses this account has.").
				WithHint("An admin should check capture." + c.Name + " in the provider's record against what the provider answers.")
		}
		out[c.Name] = v
	}
	return out, nil
}

// FieldIn reads a scalar of a JSON document by a path such as data.0.id.
func FieldIn(doc []byte) func(path string) (string, bool) {
	return func(path string) (string, bool) { return fieldOf(doc, path) }
}

// Rebind gives the record with values that a refresh told in place of what they
// were; unbound is the same record without any. moved says whether any differs.
// One that tells accounts apart does not change.
func (r Record) Rebind(unbound Record, told map[string]string) (next Record, moved bool, err error) {
	all := maps.Clone(r.values)
	for _, name := range sortedKeys(told) {
		v, err := unbound.checkValue(name, told[name])
		if err != nil {
			return Record{}, true, err
		}
		if all[name] == v {
			continue
		}
		if slices.ContainsFunc(r.Capture, func(c Capture) bool { return c.Name == name && c.Account }) {
			return Record{}, true, fault.New(fault.Denied, "account_differs", "The provider renewed the access with that of another account.").WithHint("Reconnect.")
		}
		moved, all[name] = true, v
	}
	if !moved {
		return r, false, nil
	}
	next, err = unbound.Bind(all)
	return next, true, err
}

// own gives the record parts of its own where eachPlace writes.
func (r *Record) own() {
	if r.OAuth != nil {
		o := *r.OAuth
		o.Slots = slices.Clone(o.Slots)
		for i := range o.Slots {
			o.Slots[i].Scopes = slices.Clone(o.Slots[i].Scopes)
		}
		r.OAuth = &o
	}
	if r.Mint != nil {
		m := *r.Mint
		m.Claims = maps.Clone(m.Claims)
		r.Mint = &m
	}
	if r.Identity != nil {
		i := *r.Identity
		r.Identity = &i
	}
	r.API.Base = slices.Clone(r.API.Base)
	if r.API.Git != nil {
		g := *r.API.Git
		g.Base = slices.Clone(g.Base)
		r.API.Git = &g
	}
	r.API.Open = slices.Clone(r.API.Open)
	if r.Injection.Realm != nil {
		m := *r.Injection.Realm
		r.Injection.Realm = &m
	}
	r.ToolSpecs = slices.Clone(r.ToolSpecs)
	for i, t := range r.ToolSpecs {
		if t.SQL != nil {
			s := *t.SQL
			r.ToolSpecs[i].SQL = &s
		}
	}
	r.DefaultHeaders = maps.Clone(r.DefaultHeaders)
}

// eachPlace visits every text that may hold a name, always in the same order.
func (r *Record) eachPlace(visit func(*string)) {
	visit(&r.Website)
	if o := r.OAuth; o != nil {
		for i := range o.Slots {
			for j := range o.Slots[i].Scopes {
				visit(&o.Slots[i].Scopes[j])
			}
		}
		for _, s := range []*string{&o.AuthorizeURL, &o.TokenURL, &o.RevokeURL, &o.Refresh.URL, &o.RequestURL} {
			visit(s)
		}
	}
	if m := r.Mint; m != nil {
		visit(&m.TokenURL)
		visit(&m.RevokeURL)
		aud := m.Claims["aud"]
		if visit(&aud); aud != "" {
			m.Claims["aud"] = aud
		}
	}
	if i := r.Identity; i != nil {
		visit(&i.URL)
		visit(&i.Path)
	}
	for i := range r.API.Base {
		visit(&r.API.Base[i])
	}
	if g := r.API.Git; g != nil {
		for i := range g.Base {
			visit(&g.Base[i])
		}
	}
	for i := range r.API.Open {
		visit(&r.API.Open[i])
	}
	if m := r.Injection.Realm; m != nil {
		visit(&m.URL)
	}
	for i := range r.ToolSpecs {
		visit(&r.ToolSpecs[i].Request.Base)
		if s := r.ToolSpecs[i].SQL; s != nil {
			visit(&s.Base)
		}
	}
	for _, k := range sortedKeys(r.DefaultHeaders) {
		v := r.DefaultHeaders[k]
		visit(&v)
		r.DefaultHeaders[k] = v
	}
}

func fillNames(s string, with values) string {
	return placeName.ReplaceAllStringFunc(s, func(in string) string {
		if v, ok := with[strings.Trim(in, "{}")]; ok {
			return v
		}
		return in
	})
}

// compile checks the record and builds its tools. One that has open names is
// compiled with examples in their place, so that what is wrong is told now; its
// own texts keep the names, with which nothing can be reached.
func (r *Record) compile() []Problem {
	open := r.Open()
	if len(open) == 0 && len(r.values) == 0 {
		return r.compileBound()
	}
	l := &linter{}
	r.lintPlaces(l)
	if len(l.problems) > 0 {
		return l.problems
	}
	examples := r.examples()
	var texts []string
	r.own()
	r.eachPlace(func(s *string) {
		texts = append(texts, *s)
		*s = fillNames(*s, examples)
	})
	problems := r.compileBound()
	r.own()
	r.eachPlace(func(s *string) { *s, texts = texts[0], texts[1:] })
	return problems
}

func (r *Record) examples() values {
	out := values{}
	for _, p := range r.Tenant {
		out[p.Name] = p.example()
	}
	for _, c := range r.Capture {
		out[c.Name] = c.example()
	}
	return out
}

// withExamples is the record with every open name filled in, to look at.
func (r Record) withExamples() Record {
	r.own()
	r.eachPlace(func(s *string) { *s = fillNames(*s, r.examples()) })
	return r
}

func (p TenantParam) example() string {
	for _, v := range append([]string{p.Example, p.Default}, p.Options...) {
		if v != "" {
			return v
		}
	}
	return ""
}

func (c Capture) example() string {
	for _, v := range append([]string{c.Example, c.Default}, c.Hosts...) {
		if v != "" {
			return v
		}
	}
	return ""
}

// lintPlaces checks the names, what may fill them, and where they stand.
func (r *Record) lintPlaces(l *linter) {
	if len(r.Tenant)+len(r.Capture) > maxPlaceParams {
		l.add("tenant", "Remove some.", "There are over %d parameters.", maxPlaceParams)
		return
	}
	seen := map[string]bool{}
	named := func(field, name string) {
		if !placeName.MatchString("{"+name+"}") || len(name) > 40 || seen[name] {
			l.add(field+".name", "Use another of a-z, 0-9 and _, starting with a letter.", "%s cannot name a parameter.", quoted(name))
		}
		seen[name] = true
	}
	for i, p := range r.Tenant {
		field := fmt.Sprintf("tenant[%d]", i)
		named(field, p.Name)
		l.text(field+".title", p.Title, 80, true, false)
		l.text(field+".help", p.Help, 200, false, false)
		l.onePattern(field, p.Pattern, p.Options, "options")
		if v := p.example(); v == "" || matchesValue(p.Name, "", v, p.Pattern, p.Options, "") != nil {
			l.add(field+".example", "Give one that fits.", "There is no example that fits the parameter.")
		}
	}
	for i, c := range r.Capture {
		field := fmt.Sprintf("capture[%d]", i)
		named(field, c.Name)
		if !slices.Contains([]string{"token", "callback", "identity"}, c.From) {
			l.add(field+".from", "Use token, callback or identity.", "%s is not known.", quoted(c.From))
		}
		if c.From == "identity" && r.Identity == nil {
			l.add(field+".from", "Add the section identity.", "There is no identity call.")
		}
		if asked := r.Auth == ClientCredentials || r.Auth == JWTBearer; r.Auth != OAuth2 && c.From != "identity" && (c.From != "token" || !asked) {
			l.add(field+".from", "Use identity.", "A provider of this kind answers with no token, or has no callback.")
		}
		if !validFieldPath(c.Field) {
			l.add(field+".field", "Name the field, such as instance_url.", "%s is not a field path.", quoted(c.Field))
		}
		l.onePattern(field, c.Pattern, c.Hosts, "hosts")
		for j, h := range c.Hosts {
			if !hostSuffix(h) {
				l.add(fmt.Sprintf("%s.hosts[%d]", field, j), "Write the provider's own domain, such as salesforce.com.", "%s is not a domain of one owner.", quoted(h))
			}
		}
		if _, err := r.checkValue(c.Name, c.example()); err != nil {
			l.add(field+".example", "Give one that fits.", "There is no example that fits.")
		}
	}
	r.lintUse(l, seen)
}

func (l *linter) onePattern(field, pattern string, list []string, other string) {
	if (pattern == "") == (len(list) == 0) {
		l.add(field, "Give pattern, or "+other+".", "Exactly one of pattern and %s is needed.", other)
	}
	if _, err := regexp.Compile(pattern); err != nil {
		l.add(field+".pattern", "Correct it.", "The pattern is no regular expression.")
	}
}

// hostSuffix accepts a domain that has one owner: no top-level domain, nor what
// counts as one, such as co.uk. One with a port is exact.
func hostSuffix(s string) bool {
	name, port, hasPort := strings.Cut(s, ":")
	if s != strings.ToLower(s) || !plainPart.MatchString(name) || hasPort && !decimal(port) {
		return false
	}
	suffix, icann := publicsuffix.PublicSuffix(name)
	return (hasPort || strings.Contains(name, ".")) && (suffix != name || !icann)
}

// lintUse holds each place against the names that are known by the time that it
// is used, and each host against its fixed end.
func (r *Record) lintUse(l *linter, declared map[string]bool) {
	hosts, captured := map[string]bool{}, map[string]string{}
	for _, c := range r.Capture {
		captured[c.Name] = c.From
		hosts[c.Name] = len(c.Hosts) > 0
	}
	listed := values{} // the choices that the record itself lists
	for _, p := range r.Tenant {
		if len(p.Options) > 0 {
			listed[p.Name] = p.Options[0]
		}
	}
	check := func(field, text string, allowed ...string) {
		for _, m := range placeName.FindAllStringSubmatch(text, -1) {
			from, isCapture := captured[m[1]]
			switch {
			case !declared[m[1]]:
				l.add(field, "Declare it under tenant or capture.", "{%s} is not declared.", m[1])
			case isCapture && !slices.Contains(allowed, from):
				l.add(field, "Use a parameter of tenant.", "{%s} is not known yet when this address is used.", m[1])
			}
		}
		if _, rest, isURL := strings.Cut(text, "://"); isURL && !strings.HasPrefix(text, postgres.Scheme) { // there goes a login that is whose who chose the host
			host, _, _ := strings.Cut(rest, "/")
			l.fixedEnd(field, fillNames(host, listed), hosts)
		}
	}
	if o := r.OAuth; o != nil {
		check("oauth2.authorize_url", o.AuthorizeURL)
		check("oauth2.token_url", o.TokenURL)
		check("oauth2.request_url", o.RequestURL)
		check("oauth2.revoke_url", o.RevokeURL)
		check("oauth2.refresh.url", o.Refresh.URL)
		for _, s := range []*Swap{o.Longer, o.Refresh.Swap} {
			if s != nil && placeName.MatchString(s.URL) {
				l.add("oauth2", "Write the address out.", "A swap's address has no parameters.")
			}
		}
	}
	if m := r.Mint; m != nil {
		check("mint.token_url", m.TokenURL)
		check("mint.revoke_url", m.RevokeURL)
	}
	if i := r.Identity; i != nil {
		check("identity.url", i.URL, "token", "callback")
		check("identity.path", i.Path, "token", "callback")
	}
	for i, b := range r.API.Base {
		before := []string{"token", "callback"}
		if i > 0 || r.Identity == nil || r.Identity.URL != "" {
			before = append(before, "identity")
		}
		check(fmt.Sprintf("api.base[%d]", i), b, before...)
	}
	if g := r.API.Git; g != nil {
		for i, b := range g.Base {
			check(fmt.Sprintf("api.git.base[%d]", i), b, "token", "callback", "identity")
		}
	}
	for i, b := range r.API.Open {
		check(fmt.Sprintf("api.open[%d]", i), b, "token", "callback", "identity")
	}
	if m := r.Injection.Realm; m != nil {
		check("inject.realm.url", m.URL)
	}
	for _, k := range sortedKeys(r.DefaultHeaders) {
		if r.Identity != nil {
			check("default_headers."+k, r.DefaultHeaders[k], "token", "callback")
		} else {
			check("default_headers."+k, r.DefaultHeaders[k], "token", "callback", "identity")
		}
	}
	check("website", r.Website, "token", "callback", "identity")
}

// fixedEnd requires that a host with names in it ends in a domain of one owner:
// whoever fills them in chooses among that owner's hosts. A host that the provider
// tells stands alone; its own list bounds it.
func (l *linter) fixedEnd(field, host string, hosts map[string]bool) {
	at := placeName.FindAllStringSubmatchIndex(host, -1)
	if at == nil {
		return
	}
	for _, m := range at {
		if name := host[m[2]:m[3]]; hosts[name] {
			if m[0] != 0 || m[1] != len(host) {
				l.add(field, "Write https://{"+name+"}/path.", "{%s} is a whole host.", name)
			}
			return
		}
	}
	end := host[at[len(at)-1][1]:]
	if !strings.HasPrefix(end, ".") || !hostSuffix(end[1:]) {
		l.add(field, "End the host with the provider's own domain, such as .example.com.", "Whoever chooses this could choose any host.")
	}
}

// digestOf identifies a record's text with the values that it is bound to.
func digestOf(text [32]byte, v values) [32]byte {
	if len(v) == 0 {
		return text
	}
	doc, _ := json.Marshal(v) // a map of texts always has a JSON form, with its keys sorted
	return sha256.Sum256(bytes.Join([][]byte{text[:], doc}, []byte{0}))
}

// Bind is [Record.Bind], remembered as [Library.Parse] is.
func (l *Library) Bind(r Record, v map[string]string) (Record, error) {
	if len(v) == 0 {
		return r, nil
	}
	if known, ok := l.Known(digestOf(r.TextDigest(), v)); ok {
		return known, nil
	}
	bound, err := r.Bind(v)
	if err == nil {
		l.keep(bound.Digest(), bound)
	}
	return bound, err
}

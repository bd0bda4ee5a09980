package provider

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/net/http/httpguts"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider/postgres"
)

var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}

const (
	maxTools       = 500
	maxToolName    = 64
	defaultMaxBody = 256 << 10
	maxMaxBody     = 10 << 20
)

// linter collects problems.
type linter struct{ problems []Problem }

// A variable's name must not be one that steers programs, so each says what it is.
var (
	variableName = regexp.MustCompile(`\A[A-Z][A-Z0-9_]{2,60}(TOKEN|KEY|KEY_ID|SECRET|PAT)\z`)
	keyPrefix    = regexp.MustCompile(`\A[A-Za-z0-9_.-]{0,20}\z`)
)

func (l *linter) add(field, fix, format string, args ...any) {
	l.problems = append(l.problems, Problem{Field: field, Message: fmt.Sprintf(format, args...), Fix: fix})
}

// compileBound fills in defaults, checks every field and builds the tools.
func (r *Record) compileBound() []Problem {
	l := &linter{}
	r.tools = nil
	if !validSlug(r.ID) {
		l.add("id", "Use 2 to 40 of a-z, 0-9 and _, starting with a letter.", "%s is not a slug.", quoted(r.ID))
	}
	l.text("name", r.Name, 80, true, false)
	if r.Website != "" {
		l.url("website", r.Website, false)
	}
	r.lintAbout(l)
	r.lintAuth(l)
	r.lintFields(l)
	r.lintMint(l)
	r.lintMCP(l)
	r.lintAPI(l)
	r.lintIdentity(l)
	r.lintDatabase(l)
	r.lintWebhooks(l)
	r.lintSlots(l)
	r.lintInjection(l)
	r.lintHeaders(l)
	for name, prefix := range r.Variables {
		if !variableName.MatchString(name) || !keyPrefix.MatchString(prefix) {
			l.add("variables."+name, `For example GITHUB_TOKEN: ghp_`, "It is no environment variable with the beginning of a key.")
		}
	}
	for i, name := range r.Cut {
		l.text(fmt.Sprintf("cut[%d]", i), name, 200, true, false)
	}
	r.guard, r.refuse = l.rules("access", r.Access), l.rules("generic.refuse", r.Generic.Refuse)
	r.compileTools(l)
	return l.problems
}

func (l *linter) rules(field string, list []string) (rules []accessRule) {
	for i, s := range list {
		rule, problem := parseRule(s)
		if problem != "" {
			l.add(fmt.Sprintf("%s[%d]", field, i), `Write it as "POST /keys", "* /admin/**" or "DELETE /users/{id}".`, "The rule %s", problem)
			continue
		}
		rules = append(rules, rule)
	}
	return rules
}

// knownAuth is false for a record whose kind of credential is itself wrong, and
// told as that.
func (r *Record) knownAuth() bool {
	return r.Auth == APIKey || r.Auth == OAuth2 || r.Auth == Database || r.Auth == None || r.Auth.Minted()
}

func (r *Record) lintAuth(l *linter) {
	switch {
	case !r.knownAuth():
		l.add("auth", "Write auth: oauth2 or auth: api_key.", "%s is not a kind of authorization.", quoted(string(r.Auth)))
		return
	case r.Auth != OAuth2:
		if r.OAuth != nil {
			l.add("oauth2", "Remove the section, or set auth: oauth2.", "The section is there, but auth is %s.", r.Auth)
		}
		return
	}
	if r.OAuth == nil {
		l.add("oauth2", "Add the section with authorize_url and token_url.", "The section is missing.")
		return
	}
	o := r.OAuth
	l.url("oauth2.authorize_url", o.AuthorizeURL, true)
	l.url("oauth2.token_url", o.TokenURL, true)
	if o.RevokeStyle == "" {
		o.RevokeStyle = "none"
		if o.RevokeURL != "" {
			o.RevokeStyle = "rfc7009"
		}
	}
	switch {
	case !slices.Contains(revokeStyles, o.RevokeStyle):
		l.add("oauth2.revoke_style", "Use one of "+strings.Join(revokeStyles, ", ")+".", "%s is not known.", quoted(o.RevokeStyle))
	case o.RevokeStyle != "none":
		l.url("oauth2.revoke_url", o.RevokeURL, true)
	case o.RevokeURL != "":
		l.add("oauth2.revoke_url", "Remove it, or set revoke_style: rfc7009.", "There is a URL, but revoke_style is none.")
	}
	o.lintSigned(l)
	if o.RevokeStyle == "client_delete" && o.ClientAuth == "none" {
		l.add("oauth2.revoke_style", "Use another, or a client with a secret.", "client_delete takes the client's secret.")
	}
	if o.Issuer != "" {
		l.url("oauth2.issuer", o.Issuer, true)
	}
	if o.ClientAuth == "" {
		o.ClientAuth = "basic"
	}
	if !slices.Contains([]string{"basic", "post", "none"}, o.ClientAuth) {
		l.add("oauth2.client_auth", "Use basic, post or none.", "%s is not known.", quoted(o.ClientAuth))
	}
	if o.ClientAuth == "none" && !o.UsesPKCE() {
		l.add("oauth2.pkce", "Leave pkce on, or use a client secret.", "A client without a secret needs PKCE.")
	}
	l.scopes(o)
	l.tokens(o)
	authorizing := append([]string{"client_secret", "request", "request_uri", "oauth_token", "oauth_callback", o.ClientIDParam, o.Scopes.Param}, authorizeParams...)
	asking := []string{o.ClientIDParam, "client_id", "client_secret", "redirect_uri", "grant_type", "code", "code_verifier",
		"refresh_token", "scope", "client_assertion", "client_assertion_type"}
	for _, list := range []struct {
		field    string
		params   map[string]string
		reserved []string
	}{
		{"oauth2.authorize_params", o.AuthorizeParams, authorizing}, {"oauth2.token_params", o.TokenParams, asking}, {"oauth2.refresh.params", o.Refresh.Params, asking},
	} {
		for _, k := range sortedKeys(list.params) {
			if slices.ContainsFunc(list.reserved, func(r string) bool { return strings.EqualFold(r, k) }) {
				l.add(list.field+"."+k, "Remove it.", "The flow itself sets this parameter.")
			}
			l.text(list.field+"."+k, k+list.params[k], 1000, true, false)
		}
	}
	if o.DefaultTTL < 0 || o.DefaultTTL > 366*24*3600 {
		l.add("oauth2.default_ttl_seconds", "Use 0 (unknown) to one year.", "%d is out of range.", o.DefaultTTL)
	}
	for _, days := range []struct {
		field string
		n     int64
	}{{"oauth2.refresh.idle_days", o.Refresh.IdleDays}, {"oauth2.refresh.max_days", o.Refresh.MaxDays}} {
		if days.n < 0 || days.n > 3660 {
			l.add(days.field, "Use 0 (not said) to 3660.", "%d is out of range.", days.n)
		}
	}
	if o.Refresh.Leeway < 0 || o.Refresh.Leeway > 24*3600 {
		l.add("oauth2.refresh.leeway_seconds", "Use 0 to one day.", "%d is out of range.", o.Refresh.Leeway)
	}
	if r.Identity == nil && r.MCP == nil && (len(r.ToolSpecs) > 0 || r.Generic.Read || r.Generic.Write || r.Generic.Destructive) {
		l.add("identity", "Add identity with path (or url) and id.", "An OAuth connection counts for agents only once it is known whose account it opens.")
	}
}

func (l *linter) scopes(o *OAuth) {
	if o.Scopes.Separator == "" {
		o.Scopes.Separator = " "
	}
	if o.Scopes.Separator != " " && o.Scopes.Separator != "," {
		l.add("oauth2.scopes.separator", `Use " " or ",".`, "%s is not a separator in use.", quoted(o.Scopes.Separator))
	}
	if o.Scopes.Param == "" {
		o.Scopes.Param = "scope"
	}
	if !validParam(o.Scopes.Param) {
		l.add("oauth2.scopes.param", "Use the parameter's name, such as user_scope.", "%s is not a plain parameter name.", quoted(o.Scopes.Param))
	}
	for i, s := range o.Scopes.Unlisted {
		l.scope(fmt.Sprintf("oauth2.scopes.unlisted[%d]", i), s)
	}
	seen := map[string]bool{}
	for i, s := range o.Scopes.Base {
		l.scope(fmt.Sprintf("oauth2.scopes.base[%d]", i), s)
	}
	for i, s := range o.Scopes.Catalog {
		field := fmt.Sprintf("oauth2.scopes.catalog[%d]", i)
		l.scope(field+".id", s.ID)
		l.text(field+".title", s.Title, 200, true, false)
		if !slices.Contains([]string{"read", "write", "admin"}, s.Risk) {
			l.add(field+".risk", "Use read, write or admin.", "%s is not known.", quoted(s.Risk))
		}
		for j, other := range s.Covers {
			l.scope(fmt.Sprintf("%s.covers[%d]", field, j), other)
		}
		if seen[s.ID] {
			l.add(field+".id", "Remove one of the two.", "%s is listed twice.", quoted(s.ID))
		}
		seen[s.ID] = true
	}
}

// scope checks the characters of RFC 6749 §3.3, without the comma that some
// providers separate with.
func (l *linter) scope(field, s string) {
	bad := func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' || r == ',' }
	if s == "" || len(s) > 300 || strings.ContainsFunc(s, bad) {
		l.add(field, "Write one scope exactly as the provider spells it.", "%s is not a scope.", quoted(s))
	}
}

func (r *Record) lintAPI(l *linter) {
	r.lintBases(l, "api.base", r.API.Base)
	r.lintGit(l)
	r.lintOpen(l)
	if h := r.Health; h != nil {
		l.fixedPath("health.path", h.Path)
	}
}

// lintBases checks the list of places in a field.
func (r *Record) lintBases(l *linter, list string, bases []string) {
	if len(bases) == 0 || len(bases) > 20 {
		l.add(list, "List 1 to 20 bases such as https://api.example.com/v1.", "There are %d.", len(bases))
	}
	for i, b := range bases {
		field := fmt.Sprintf("%s[%d]", list, i)
		if r.Auth == Database {
			if _, err := postgres.ParsePlace(b); err != nil {
				l.add(field, fault.Of(err).Hint, "%s", fault.Of(err).Message)
			}
		} else {
			l.url(field, b, true)
		}
		if strings.HasSuffix(b, "/") {
			l.add(field, "Remove the slash at the end.", "Tool paths start with a slash.")
		}
		if slices.Contains(bases[:i], b) {
			l.add(field, "Remove one of the two.", "The base is listed twice.")
		}
	}
}

func (r *Record) lintIdentity(l *linter) {
	i := r.Identity
	if i == nil {
		return
	}
	if i.Method == "" {
		i.Method = "GET"
	}
	if i.Method != "GET" && i.Method != "POST" {
		l.add("identity.method", "Use GET or POST.", "%s cannot be used.", quoted(i.Method))
	}
	switch {
	case (i.URL == "") == (i.Path == ""):
		l.add("identity", "Give url for another host, or path for the first API base.", "Exactly one of url and path is needed.")
	case i.URL != "":
		l.url("identity.url", i.URL, true)
	default:
		l.fixedPath("identity.path", i.Path)
	}
	for _, k := range sortedKeys(i.Query) {
		if !validParam(k) {
			l.add("identity.query."+k, "Use the parameter's name.", "%s is not a plain parameter name.", quoted(k))
		}
		l.text("identity.query."+k, i.Query[k], 500, true, false)
	}
	if i.Body != nil && i.Method != "POST" {
		l.add("identity.body", "Remove it, or set method: POST.", "Only a POST has a body.")
	}
	if !validFieldPath(i.ID) {
		l.add("identity.id", "Name the field of the answer, such as id or data.id.", "%s is not a field path.", quoted(i.ID))
	}
	if i.Label != "" && !validFieldPath(i.Label) {
		l.add("identity.label", "Name the field of the answer, such as email.", "%s is not a field path.", quoted(i.Label))
	}
}

func (l *linter) fixedPath(field, path string) {
	t, problem := parsePath(path, false)
	if problem == "" && slices.ContainsFunc(t.segments, func(s segment) bool { return s.arg != "" }) {
		problem = "has a placeholder."
	}
	if problem != "" {
		l.add(field, "Write a plain path such as /v1/me.", "The path %s", problem)
	}
}

// url checks the shape of a URL. Whether it may be reached is for outbound.
// Plain http is for outbound's list as well, so it passes here.
func (l *linter) url(field, raw string, fixed bool) {
	u, err := url.Parse(raw)
	problem := ""
	switch {
	case raw == "":
		problem = "The URL is missing."
	case err != nil || len(raw) > 2000:
		problem = "The URL is not well-formed."
	case u.Scheme != "https" && u.Scheme != "http":
		problem = "The URL does not start with https://."
	case u.Host == "" || u.Opaque != "" || !asciiHost(u.Hostname()):
		problem = "The URL names no plain ASCII host."
	case u.User != nil:
		problem = "The URL holds a user name or password."
	case u.Fragment != "" || strings.Contains(raw, "#"):
		problem = "The URL has a fragment."
	case fixed && (u.RawQuery != "" || u.ForceQuery):
		problem = "The URL has a query."
	case strings.ContainsAny(raw, "{}\\ "):
		problem = "The URL has a placeholder, blank or backslash."
	case strings.Contains(u.Path, "//") || slices.ContainsFunc(pathSegments(u), func(s string) bool { return !oneSegment(s) }):
		problem = "The URL's path has an empty, dot or encoded segment."
	}
	if problem != "" {
		l.add(field, "Write a full URL such as https://example.com/path.", "%s", problem)
	}
}

func asciiHost(h string) bool {
	if _, err := netip.ParseAddr(h); err == nil {
		return true
	}
	for i := range len(h) {
		if !isAlnum(h[i]) && h[i] != '-' && h[i] != '.' {
			return false
		}
	}
	return h != ""
}

func (r *Record) lintInjection(l *linter) {
	in := r.Injection
	if r.Auth == Database {
		return
	}
	if r.Auth == None {
		if !in.empty() || len(r.Fields) > 0 || r.MCP == nil {
			l.add("auth", "Say how it is authorized: auth: api_key.", "Only an MCP server may be open to everybody, and then nothing is put into a request.")
		}
		return
	}
	r.lintPlaceholder(l)
	if r.Auth == OAuth2 && r.OAuth != nil && r.OAuth.Signs() {
		if in.empty() {
			r.Injection = Injection{Sign: SignOAuth1, Placeholder: in.Placeholder}
		} else if in.Sign != SignOAuth1 {
			l.add("inject", "Leave it out.", "With OAuth 1.0 every request is signed.")
		}
		return
	}
	if in.empty() && (r.Auth == OAuth2 || r.Auth.Minted() && r.Auth != AWSAssumeRole) {
		r.Injection = Injection{Header: "Authorization", Format: "Bearer {access_token}", Placeholder: in.Placeholder}
		return
	}
	n := 0
	for _, set := range []bool{in.Header != "", in.Query != "", in.Basic != nil, len(in.Headers) > 0, in.Sign != ""} {
		if set {
			n++
		}
	}
	if n != 1 && (n != 0 || !in.Certificate) {
		l.add("inject", `Write for example header: Authorization and format: "Bearer {api_key}".`, "Exactly one of header, query, basic, headers and sign is needed.")
		return
	}
	if in.Certificate && r.Auth != APIKey {
		l.add("inject.client_certificate", "Remove it, or set auth: api_key.", "Only what a person gave can be presented.")
	}
	r.lintSign(l)
	r.lintRealm(l)
	if in.Format != "" && in.Header == "" && in.Query == "" {
		l.add("inject.format", "Remove it.", "Only header and query have it.")
	}
	switch {
	case in.Header != "":
		l.carrier("inject.header", in.Header)
	case in.Query != "" && !httpguts.ValidHeaderFieldName(in.Query):
		l.add("inject.query", "Use the parameter's name, such as api_key.", "%s is not a plain parameter name.", quoted(in.Query))
	}
	for _, name := range sortedKeys(in.Headers) {
		l.carrier("inject.headers."+name, name)
	}
	r.lintTemplates(l)
}

func (in Injection) empty() bool {
	return in.Header == "" && in.Query == "" && in.Format == "" && in.Basic == nil && len(in.Headers) == 0 && in.Sign == "" && !in.Certificate && in.Realm == nil
}

// carrier checks the name of a header that carries a credential.
func (l *linter) carrier(field, name string) {
	if !httpguts.ValidHeaderFieldName(name) || forbiddenHeader(name) && !strings.EqualFold(name, "authorization") {
		l.add(field, "Use Authorization or the provider's own header.", "%s cannot carry a credential.", quoted(name))
	}
}

// lintTemplates checks that the injection's texts hold parts that there are, and
// a secret among them.
func (r *Record) lintTemplates(l *linter) {
	in, names := r.Injection, r.partNames()
	r.lintTexts(l, "inject", in.templates(), in.Sign != "" || in.Certificate)
	for _, name := range in.parts() {
		if len(r.Fields) > 0 && r.Auth == APIKey && !slices.Contains(names, name) {
			l.add("fields", "Ask for it.", "The part %s is used and not asked for.", name)
		}
	}
}

// lintTexts checks the texts of a field; found says that there is a secret elsewhere.
func (r *Record) lintTexts(l *linter, field string, texts []template, found bool) {
	names := r.partNames()
	for _, t := range texts {
		parts, problem := parseFormat(t.text)
		if problem != "" {
			l.add(t.field, `Write for example "Bearer {api_key}".`, "The template %s", problem)
		}
		for _, p := range parts {
			if p.arg == "" {
				continue
			}
			if r.knownAuth() && !slices.Contains(names, p.arg) {
				l.add(t.field, "Use one of "+strings.Join(names, ", ")+".", "{%s} is not part of this kind of credential.", p.arg)
			}
			found = found || !r.Public(p.arg)
		}
	}
	if !found {
		l.add(field, `Put a placeholder such as {api_key} into the template.`, "The template holds no secret.")
	}
}

func (r *Record) lintHeaders(l *linter) {
	for _, k := range sortedKeys(r.DefaultHeaders) {
		l.header("default_headers."+k, k, r.DefaultHeaders[k], r.Injection)
	}
}

func (l *linter) header(field, name, value string, in Injection) {
	injected := append(sortedKeys(in.Headers), in.Header)
	switch {
	case !httpguts.ValidHeaderFieldName(name) || forbiddenHeader(name) || slices.ContainsFunc(injected, func(i string) bool { return strings.EqualFold(name, i) }):
		l.add(field, "Remove it.", "This header cannot be set by a record.")
	case !httpguts.ValidHeaderFieldValue(value) || len(value) > 1000:
		l.add(field, "Write one line of plain text.", "The value is not a header value.")
	}
}

// text checks what people and agents get to read: printable, and without the
// characters that make text look like other text.
func (l *linter) text(field, s string, limit int, required, lines bool) {
	bad := func(r rune) bool {
		return r == '\n' && !lines || r != '\n' && unprintable(r)
	}
	switch {
	case required && strings.TrimSpace(s) == "":
		l.add(field, "Write it.", "The text is missing.")
	case len(s) > limit:
		l.add(field, "Shorten it.", "The text is over %d bytes.", limit)
	case strings.ContainsFunc(s, bad):
		l.add(field, "Write plain printable text.", "The text holds a control or direction character.")
	}
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }

// effectFits holds a tool's effect against its method. A method that only reads
// may be declared stricter, never milder: hints do not lower an effect.
func effectFits(effect policy.Effect, method string) bool {
	switch method {
	case "DELETE":
		return effect == policy.Destructive || effect == policy.Access
	case "PUT", "PATCH":
		return effect != policy.Read
	}
	return true // POST may be a search
}

// ValidSlug reports whether s can be the id of a record.
func ValidSlug(s string) bool { return validSlug(s) }

func validSlug(s string) bool {
	if len(s) < 2 || len(s) > 40 || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for i := range len(s) {
		if b := s[i]; (b < 'a' || b > 'z') && (b < '0' || b > '9') && b != '_' {
			return false
		}
	}
	return true
}

func quoted(s string) string {
	if len(s) > 60 {
		s = s[:60] + "…"
	}
	return fmt.Sprintf("%q", s)
}

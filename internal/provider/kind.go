package provider

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Auth says what kind of credential a connection holds.
type Auth string

// The kinds of credentials. Of the first two, what a connection holds is what a
// call carries. The others are minted: a person gives parts that live long, and
// what a call carries is made of them, for a short time, again and again.
const (
	OAuth2            Auth = "oauth2"             // RFC 6749 §4.1
	APIKey            Auth = "api_key"            // keys, names and passwords, certificates, as they are
	ClientCredentials Auth = "client_credentials" // RFC 6749 §4.4
	JWT               Auth = "jwt"                // a token that we sign ourselves
	JWTBearer         Auth = "jwt_bearer"         // RFC 7523 §2.1: a signed assertion for a token
	GitHubApp         Auth = "github_app"         // an installation of a GitHub App
	AWSAssumeRole     Auth = "aws_assume_role"    // a role in a customer's AWS account
	Database          Auth = "database"           // the login of a PostgreSQL server, as it is
	None              Auth = "none"               // nothing: an MCP server that is open to everybody
)

// Minted reports whether what a call carries is made of what a person gave.
func (a Auth) Minted() bool {
	switch a {
	case ClientCredentials, JWT, JWTBearer, GitHubApp, AWSAssumeRole:
		return true
	}
	return false
}

// NeedsClient reports whether there must be a client of ours at the provider: of
// OAuth, or the keys with which we assume a customer's role.
func (r Record) NeedsClient() bool { return r.Auth == OAuth2 || r.Auth == AWSAssumeRole }

// Part is one part of a credential that a person gives.
type Part struct {
	Name     string   `yaml:"name"`
	Title    string   `yaml:"title"`
	Help     string   `yaml:"help"`
	Public   bool     `yaml:"public"`   // names something, and is no secret on its own
	Lines    bool     `yaml:"lines"`    // several lines, such as PEM
	Optional bool     `yaml:"optional"` // may be left out
	Upper    bool     `yaml:"upper"`    // kept in capitals
	Pattern  string   `yaml:"pattern"`  // a regular expression that all of it must match
	Unpack   []string `yaml:"unpack"`   // it is a JSON object, and these members of it are the parts
}

// Mint says how what a call carries is made of what a person gave.
type Mint struct {
	TokenURL    string            `yaml:"token_url"`                     // where it is asked for; of jwt: none
	ClientAuth  string            `yaml:"client_auth" enum:"basic,post"` // of client_credentials; default basic
	TokenBody   string            `yaml:"token_body" enum:"form,json"`   // default form
	TokenParams map[string]string `yaml:"token_params"`
	Scopes      []string          `yaml:"scopes"`                             // of client_credentials a parameter, of jwt_bearer a claim
	Claims      map[string]string `yaml:"claims"`                             // of a JWT, beside iat and exp: templates over the parts, and {key_fingerprint}
	KeyID       string            `yaml:"key_id"`                             // template of the header kid
	Algorithm   string            `yaml:"algorithm" enum:"RS256,ES256,EdDSA"` // default RS256
	Lifetime    int64             `yaml:"lifetime_seconds"`                   // asked for; 0: the kind's own
	DefaultTTL  int64             `yaml:"default_ttl_seconds"`                // when an answer has no expires_in; 0: unknown
	RevokeURL   string            `yaml:"revoke_url"`
	RevokeStyle string            `yaml:"revoke_style" enum:"rfc7009,bearer,bearer_delete,none"` // default follows RevokeURL
}

// OAuth is how the token endpoint of a minted kind is spoken to, in the words of
// the flow that has one.
func (m Mint) OAuth() *OAuth {
	return &OAuth{TokenURL: m.TokenURL, ClientAuth: m.ClientAuth, TokenBody: m.TokenBody, TokenParams: m.TokenParams, RevokeURL: m.RevokeURL,
		RevokeStyle: m.RevokeStyle, DefaultTTL: m.DefaultTTL, ClientIDParam: "client_id", Scopes: Scopes{Separator: " ", Param: "scope"}}
}

// Endpoint is how the record's token endpoint is spoken to; nil: it has none.
func (r Record) Endpoint() *OAuth {
	if r.Mint != nil {
		return r.Mint.OAuth()
	}
	return r.OAuth
}

// The names of a credential's parts that mean something to this package. Others
// are a record's own.
const (
	FieldAccessToken     = "access_token"
	FieldAPIKey          = "api_key"
	FieldUsername        = "username" // names an account; not a secret on its own
	FieldPassword        = "password"
	FieldClientID        = "client_id"
	FieldClientSecret    = "client_secret"
	FieldPrivateKey      = "private_key" // PEM, without a passphrase
	FieldCertificate     = "certificate" // PEM, with what leads to its root
	FieldAppID           = "app_id"
	FieldInstallationID  = "installation_id"
	FieldRoleARN         = "role_arn"
	FieldAccessKeyID     = "access_key_id"
	FieldSecretAccessKey = "secret_access_key"
	FieldSessionToken    = "session_token"
	FieldCA              = "ca_certificate" // PEM of the authorities that vouch for a server
)

// known describes the parts that records need not describe.
func known(name string) Part {
	switch name {
	case FieldAPIKey:
		return Part{Title: "API key"}
	case FieldUsername:
		return Part{Title: "User name", Public: true}
	case FieldPassword:
		return Part{Title: "Password"}
	case FieldClientID:
		return Part{Title: "Client id", Public: true}
	case FieldClientSecret:
		return Part{Title: "Client secret"}
	case FieldPrivateKey:
		return Part{Title: "Private key", Help: "PEM, without a passphrase", Lines: true}
	case FieldCertificate:
		return Part{Title: "Certificate", Help: "PEM, with the certificates that lead to its root", Public: true, Lines: true}
	case FieldCA:
		return Part{Title: "Certificate authority", Help: "PEM; for a server whose certificate no public authority vouches for", Public: true, Lines: true, Optional: true}
	case FieldAppID:
		return Part{Title: "App id", Public: true, Pattern: `[0-9]{1,20}|Iv[0-9A-Za-z.]{8,60}`}
	case FieldInstallationID:
		return Part{Title: "Installation id", Help: "The number at the end of the installation's address", Public: true, Pattern: `[0-9]{1,20}`}
	case FieldRoleARN:
		return Part{Title: "Role", Help: "Its ARN. The role's trust policy must ask for your organization's id as sts:ExternalId", Public: true, Pattern: `arn:aws[a-z-]{0,10}:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]{1,512}`}
	case FieldAccessKeyID:
		return Part{Title: "Access key id", Public: true, Pattern: `[A-Z0-9]{16,128}`}
	case FieldSecretAccessKey:
		return Part{Title: "Secret access key"}
	case FieldConsumerKey:
		return Part{Title: "Consumer key", Public: true}
	case FieldConsumerSecret:
		return Part{Title: "Consumer secret"}
	case FieldTokenSecret:
		return Part{Title: "Token secret"}
	}
	return Part{}
}

// Given lists the parts of a credential that a person gives.
func (r Record) Given() []Part {
	if len(r.Fields) > 0 {
		return r.Fields
	}
	var names []string
	switch r.Auth {
	case ClientCredentials:
		names = []string{FieldClientID, FieldClientSecret}
	case GitHubApp:
		names = []string{FieldAppID, FieldInstallationID, FieldPrivateKey}
	case AWSAssumeRole:
		names = []string{FieldRoleARN}
	case Database:
		names = []string{FieldUsername, FieldPassword, FieldCA}
	case APIKey:
		names = r.Injection.parts()
	}
	out := make([]Part, len(names))
	for i, n := range names {
		out[i] = known(n)
		out[i].Name = n
	}
	return out
}

// CredentialFields lists the parts that a person fills in to connect without
// signing in, by name.
func (r Record) CredentialFields() []string {
	var names []string
	for _, f := range r.Given() {
		names = append(names, f.Name)
	}
	return names
}

// parts lists what the injection uses, each once.
func (in Injection) parts() []string {
	var used []string
	for _, t := range in.templates() {
		parts, _ := parseFormat(t.text)
		for _, p := range parts {
			if p.arg != "" && !slices.Contains(used, p.arg) {
				used = append(used, p.arg)
			}
		}
	}
	if in.Sign == SignAWS {
		used = append(used, FieldAccessKeyID, FieldSecretAccessKey)
	}
	if in.Sign == SignOAuth1 {
		used = append(used, oauth1Parts()...)
	}
	if in.Certificate {
		used = append(used, FieldCertificate, FieldPrivateKey)
	}
	return used
}

// template is one text of an injection.
type template struct{ field, text string }

func (in Injection) templates() []template {
	if b := in.Basic; b != nil {
		return []template{{"inject.basic.username", b.Username}, {"inject.basic.password", b.Password}}
	}
	if len(in.Headers) > 0 {
		var out []template
		for _, name := range sortedKeys(in.Headers) {
			out = append(out, template{"inject.headers." + name, in.Headers[name]})
		}
		return out
	}
	if in.Header == "" && in.Query == "" {
		return nil
	}
	return []template{{"inject.format", in.Format}}
}

// Public reports whether a part of the record's credential is no secret.
func (r Record) Public(name string) bool {
	for _, f := range r.Fields {
		if f.Name == name {
			return f.Public
		}
	}
	return known(name).Public
}

// Carried lists the parts that a call carries, of which secrets must be such as
// can be cut from an answer.
func (r Record) Carried() []string {
	if r.Auth == Database {
		return []string{FieldUsername, FieldPassword}
	}
	if r.OAuth != nil && r.OAuth.Signs() {
		return []string{FieldAccessToken, FieldTokenSecret}
	}
	used := slices.DeleteFunc(r.Injection.parts(), func(n string) bool {
		return n == FieldCertificate || n == FieldPrivateKey
	})
	if r.Injection.Sign == SignAWS && r.Auth.Minted() {
		used = append(used, FieldSessionToken)
	}
	return used
}

const maxFields = 12

// lintFields checks what a person is asked for.
func (r *Record) lintFields(l *linter) {
	if len(r.Fields) > 0 && r.Auth == OAuth2 {
		l.add("fields", "Remove it.", "An account that is connected by signing in has no fields.")
		return
	}
	if len(r.Fields) > 0 && r.Auth == Database {
		l.add("fields", "Remove it.", "A database's login is a user name, a password and, if need be, a certificate authority.")
		return
	}
	if len(r.Fields) > maxFields {
		l.add("fields", "Ask for less.", "There are more than %d.", maxFields)
	}
	seen := map[string]bool{}
	for i, f := range r.Fields {
		at := fmt.Sprintf("fields[%d]", i)
		for _, name := range append([]string{f.Name}, f.Unpack...) {
			if !validArg(name) || seen[name] || name == FieldAccessToken || name == FieldSessionToken {
				l.add(at+".name", "Use a-z, 0-9 and _, each name once.", "%s cannot name a part.", quoted(name))
			}
			seen[name] = true
		}
		l.text(at+".title", f.Title, 80, true, false)
		l.text(at+".help", f.Help, 200, false, false)
		if _, err := regexp.Compile(f.Pattern); err != nil || len(f.Pattern) > 500 {
			l.add(at+".pattern", "Write a regular expression of RE2.", "%s is none.", quoted(f.Pattern))
		}
		if f.Public && len(f.Unpack) > 0 {
			l.add(at+".public", "Remove it.", "What is unpacked holds secrets.")
		}
	}
}

// partNames lists every part that a template of the injection may name.
func (r *Record) partNames() []string {
	switch {
	case r.Auth == AWSAssumeRole:
		return []string{FieldAccessKeyID, FieldSecretAccessKey, FieldSessionToken}
	case r.Auth == OAuth2 || r.Auth.Minted():
		return []string{FieldAccessToken}
	case len(r.Fields) == 0:
		return []string{FieldAPIKey, FieldUsername, FieldPassword, FieldAccessKeyID, FieldSecretAccessKey, FieldCertificate, FieldPrivateKey}
	}
	return r.fieldNames()
}

// fieldNames lists the parts that there are once a person gave what is asked for.
func (r *Record) fieldNames() []string {
	var names []string
	for _, f := range r.Given() {
		if len(f.Unpack) > 0 {
			names = append(names, f.Unpack...)
		} else {
			names = append(names, f.Name)
		}
	}
	return names
}

// lintMint checks how a token is made.
func (r *Record) lintMint(l *linter) {
	m := r.Mint
	switch {
	case !r.Auth.Minted():
		if m != nil && r.knownAuth() {
			l.add("mint", "Remove it, or set another auth.", "The section is there, but auth is %s.", r.Auth)
		}
		return
	case m == nil:
		l.add("mint", "Add the section.", "The section is missing: it says how the token is made.")
		return
	}
	if r.Auth == JWT {
		if m.TokenURL != "" {
			l.add("mint.token_url", "Remove it.", "A token that we sign ourselves is asked for nowhere.")
		}
	} else {
		l.url("mint.token_url", m.TokenURL, true)
	}
	if m.ClientAuth == "" {
		m.ClientAuth = "basic"
	}
	l.oneOf("mint.client_auth", m.ClientAuth, "basic", "post")
	if m.TokenBody == "" {
		m.TokenBody = "form"
	}
	l.oneOf("mint.token_body", m.TokenBody, "form", "json")
	if m.Algorithm == "" {
		m.Algorithm = "RS256"
	}
	l.oneOf("mint.algorithm", m.Algorithm, "RS256", "ES256", "EdDSA")
	if m.RevokeStyle == "" {
		m.RevokeStyle = "none"
		if m.RevokeURL != "" {
			m.RevokeStyle = "rfc7009"
		}
	}
	l.oneOf("mint.revoke_style", m.RevokeStyle, "rfc7009", "bearer", "bearer_delete", "none")
	if m.RevokeStyle != "none" {
		l.url("mint.revoke_url", m.RevokeURL, true)
	}
	for i, s := range m.Scopes {
		l.scope(fmt.Sprintf("mint.scopes[%d]", i), s)
	}
	for _, n := range []struct {
		field string
		value int64
	}{{"mint.lifetime_seconds", m.Lifetime}, {"mint.default_ttl_seconds", m.DefaultTTL}} {
		if n.value < 0 || n.value > 12*3600 {
			l.add(n.field, "Use 0 to 12 hours.", "%d is out of range.", n.value)
		}
	}
	asking := []string{"client_id", "client_secret", "grant_type", "scope", "assertion", "client_assertion", "client_assertion_type"}
	for _, k := range sortedKeys(m.TokenParams) {
		if slices.Contains(asking, strings.ToLower(k)) {
			l.add("mint.token_params."+k, "Remove it.", "The flow itself sets this parameter.")
		}
		l.text("mint.token_params."+k, k+m.TokenParams[k], 1000, true, false)
	}
	r.lintMintParts(l)
}

// lintMintParts checks that what is given is enough.
func (r *Record) lintMintParts(l *linter) {
	m, have := r.Mint, r.fieldNames()
	needs := map[Auth][]string{
		ClientCredentials: {FieldClientID, FieldClientSecret}, JWT: {FieldPrivateKey}, JWTBearer: {FieldPrivateKey},
		GitHubApp: {FieldAppID, FieldInstallationID, FieldPrivateKey}, AWSAssumeRole: {FieldRoleARN},
	}[r.Auth]
	for _, name := range needs {
		if !slices.Contains(have, name) {
			l.add("fields", "Ask for it.", "The part %s is missing, of which the token is made.", name)
		}
	}
	for _, name := range []string{FieldInstallationID, FieldAppID} {
		i := slices.IndexFunc(r.Fields, func(f Part) bool { return f.Name == name })
		if r.Auth == GitHubApp && i >= 0 && r.Fields[i].Pattern != known(name).Pattern {
			l.add(fmt.Sprintf("fields[%d].pattern", i), "Leave fields out.", "The part %s goes into an address, and has its own pattern.", name)
		}
	}
	if (r.Auth == AWSAssumeRole) != (r.Injection.Sign == SignAWS) {
		l.add("inject.sign", "Write sign: aws_sigv4 with auth: aws_assume_role.", "A role's keys sign, and nothing else of this kind does.")
	}
	signed := r.Auth == JWT || r.Auth == JWTBearer
	if signed && m.Claims["iss"] == "" {
		l.add("mint.claims.iss", "Say who signs.", "The claim is missing.")
	}
	if r.Auth == JWTBearer && m.Claims["aud"] == "" { // one text, never a list (RFC 7523bis)
		l.add("mint.claims.aud", "Say for whom it is: the provider's issuer or token endpoint.", "The claim is missing.")
	}
	texts := map[string]string{"mint.key_id": m.KeyID}
	for _, k := range sortedKeys(m.Claims) {
		at := "mint.claims." + k
		if !signed || slices.Contains([]string{"iat", "exp", "nbf", "jti"}, k) || k == "scope" && len(m.Scopes) > 0 {
			l.add(at, "Remove it.", "This claim cannot be set here.")
		}
		texts[at] = m.Claims[k]
	}
	for _, at := range sortedKeys(texts) {
		parts, problem := parseFormat(texts[at])
		if problem != "" {
			l.add(at, "Write text with parts in braces.", "The template %s", problem)
		}
		for _, p := range parts {
			if p.arg == PartFingerprint {
				continue
			}
			if p.arg != "" && (!slices.Contains(have, p.arg) || p.arg == FieldPrivateKey) {
				l.add(at, "Use one of "+strings.Join(have, ", ")+".", "{%s} is not a part that it may show.", p.arg)
			}
		}
	}
}

// PartFingerprint stands for the SHA-256 of the public key in a claim, as
// Snowflake writes it.
const PartFingerprint = "key_fingerprint"

func (l *linter) oneOf(field, value string, options ...string) {
	if !slices.Contains(options, value) {
		l.add(field, "Use one of "+strings.Join(options, ", ")+".", "%s is not known.", quoted(value))
	}
}

// Package provider knows third parties: how to authorize at one, what its tools
// are, and how a tool call becomes an HTTP request and its answer something an
// agent may see. All of that is data, a [Record] in YAML, which [Parse] checks
// and compiles once. Nothing of a record is code, and no argument of a call can
// change where the request goes: a path argument becomes one encoded segment,
// and the result always lies below one of the record's API bases.
//
// A call goes [Tool.Build], [Call]: the request is made from validated arguments,
// the credential is put in last ([Record.Inject]), and what comes back passes a
// [Redactor] that knows every form in which the credential could return. The
// [Store] keeps the records that an environment adds to the built-in catalogue.
package provider

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/policy"
)

// Record describes one provider. [Parse] makes it; it is immutable and safe to
// share.
type Record struct {
	ID             string            `yaml:"id"`      // slug; prefix of every tool's name
	Name           string            `yaml:"name"`    // what people read
	Website        string            `yaml:"website"` // where a person manages the account
	Pipes          string            `yaml:"pipes"`   // its slug on the WorkOS wire, when that is not ID
	About          About             `yaml:"about"`
	Auth           Auth              `yaml:"auth" enum:"oauth2,api_key,client_credentials,jwt,jwt_bearer,github_app,aws_assume_role,database,none"`
	Tenant         []TenantParam     `yaml:"tenant"`
	Capture        []Capture         `yaml:"capture"`
	OAuth          *OAuth            `yaml:"oauth2"` // set exactly when Auth is OAuth2
	Fields         []Part            `yaml:"fields"` // what a person gives, where inject does not say it all
	Mint           *Mint             `yaml:"mint"`   // set exactly when Auth is minted
	Identity       *Identity         `yaml:"identity"`
	API            API               `yaml:"api"`
	Injection      Injection         `yaml:"inject"`
	DefaultHeaders map[string]string `yaml:"default_headers"`
	Cut            []string          `yaml:"cut"` // names of answer fields that are credentials
	ToolSpecs      []ToolSpec        `yaml:"tools"`
	Generic        Generic           `yaml:"generic"`
	Access         []string          `yaml:"access"` // "METHOD /path/{x}": refused on generic tools
	Health         *Health           `yaml:"health"`
	Webhooks       *Webhooks         `yaml:"webhooks"` // how the provider tells what happens there
	MCP            *MCP              `yaml:"mcp"`      // set: an MCP server, whose tools are its own
	// Variables are the environment variables in which programs look for the key,
	// each with what the provider's keys begin with.
	Variables map[string]string `yaml:"variables"`

	source []byte
	values map[string]string // that it is bound to
	tools  []Tool
	guard  []accessRule
	refuse []accessRule // of Generic
	git    []pathTemplate
}

// About says how far a record can be relied on. It changes nothing that happens.
type About struct {
	Confidence string   `yaml:"confidence" enum:"high,medium,low"` // empty: nothing is said
	Tried      string   `yaml:"tried"`                             // YYYY-MM-DD of the last trial with the provider itself; empty: not yet tried live
	Docs       []string `yaml:"docs"`
	Notes      []string `yaml:"notes"` // what a person who sets it up should know
}

// OAuth is the authorization half of a record.
type OAuth struct {
	RequestURL      string            `yaml:"request_url"` // set: the flow is that of OAuth 1.0 (RFC 5849), which begins here
	AuthorizeURL    string            `yaml:"authorize_url"`
	TokenURL        string            `yaml:"token_url"`
	RevokeURL       string            `yaml:"revoke_url"`
	RevokeStyle     string            `yaml:"revoke_style" enum:"rfc7009,rfc7009_json,bearer,bearer_delete,client_delete,oauth1,oauth1_delete,none"` // default follows RevokeURL
	RevokesGrant    bool              `yaml:"revokes_grant"`                                                                                         // one token given back ends all that our client has of the account
	Issuer          string            `yaml:"issuer"`                                                                                                // expected iss of RFC 9207; empty: not checked
	IssuerOptional  bool              `yaml:"issuer_optional"`                                                                                       // the answer may leave iss out; one that has it has this one
	ClientAuth      string            `yaml:"client_auth" enum:"basic,post,none"`                                                                    // default basic
	ClientIDParam   string            `yaml:"client_id_param"`                                                                                       // default client_id
	PKCE            *bool             `yaml:"pkce"`                                                                                                  // default true
	Scopes          Scopes            `yaml:"scopes"`
	AuthorizeParams map[string]string `yaml:"authorize_params"`
	AuthorizeDrop   []string          `yaml:"authorize_drop"` // parameters of the flow that the provider does not take
	TokenParams     map[string]string `yaml:"token_params"`
	TokenBody       string            `yaml:"token_body" enum:"form,json"` // default form
	Answer          TokenAnswer       `yaml:"token_answer"`
	Slots           []Slot            `yaml:"slots"`  // more tokens beside the connection's own
	Longer          *Swap             `yaml:"longer"` // what makes the first token one that lives long
	Refresh         Refresh           `yaml:"refresh"`
	DefaultTTL      int64             `yaml:"default_ttl_seconds"` // when an answer has no expires_in; 0: unknown
}

// RevokesByAccess reports that giving the access token back ends the grant, and
// that nothing takes the refresh token.
func (o OAuth) RevokesByAccess() bool {
	return o.RevokeStyle == "bearer" || o.RevokeStyle == "bearer_delete" || o.RevokeStyle == "client_delete"
}

// Signs reports that the flow is that of OAuth 1.0: our client's id and secret are
// its consumer key and secret, and every request is signed with them and with the
// token's own secret.
func (o OAuth) Signs() bool { return o.RequestURL != "" }

// UsesPKCE reports whether S256 is sent.
func (o OAuth) UsesPKCE() bool { return o.PKCE == nil || *o.PKCE }

// Scopes says how scopes are written and which there are.
type Scopes struct {
	Separator string   `yaml:"separator"` // default one space
	Param     string   `yaml:"param"`     // of the authorization request; default scope
	Unlisted  []string `yaml:"unlisted"`  // granted when asked for, although answers do not list them
	Base      []string `yaml:"base"`      // always asked for
	Catalog   []Scope  `yaml:"catalog"`
}

// Scope is one entry of the catalogue that a person picks from.
type Scope struct {
	ID    string `yaml:"id"`
	Title string `yaml:"title"`
	Risk  string `yaml:"risk" enum:"read,write,admin"`
	// Covers lists others that it stands for: tools that need those may be called
	// with it alone.
	Covers []string `yaml:"covers"`
}

// Refresh tells how the provider treats refresh tokens.
type Refresh struct {
	Rotates bool  `yaml:"rotates"`        // every refresh kills the token that was used
	Leeway  int64 `yaml:"leeway_seconds"` // how long the killed one still works, for a lost answer

	URL      string            `yaml:"url"`       // default the token URL
	Params   map[string]string `yaml:"params"`    // over token_params
	Swap     *Swap             `yaml:"swap"`      // in place of a refresh token
	IdleDays int64             `yaml:"idle_days"` // a grant that is not used for so long ends; 0: not said
	MaxDays  int64             `yaml:"max_days"`  // a person must sign in again after so many; 0: not said
}

// ReauthorizeBy is when a person must have signed in again, for a grant that was
// made at a time; zero when the provider does not say.
func (r Record) ReauthorizeBy(made time.Time) time.Time {
	if r.OAuth == nil || r.OAuth.Refresh.MaxDays == 0 {
		return time.Time{}
	}
	return made.AddDate(0, 0, int(r.OAuth.Refresh.MaxDays))
}

// Swap asks for a newer access token with the one that there is, by GET, as Meta
// does in place of refresh tokens.
type Swap struct {
	URL    string `yaml:"url"`
	Grant  string `yaml:"grant_type"`
	Token  string `yaml:"token_param"`                    // which carries the token; default access_token
	Client string `yaml:"client" enum:"both,secret,none"` // what of our client is sent; default none
}

// TokenAnswer says how a token endpoint's answer differs from RFC 6749 §5.1.
type TokenAnswer struct {
	At string `yaml:"at"` // the member that holds the person's tokens, when the answer has it
}

// Identity is the call that tells whose account a credential opens.
type Identity struct {
	Method string `yaml:"method" enum:"GET,POST"` // default GET
	URL    string `yaml:"url"`                    // absolute, or
	Path   string `yaml:"path"`                   // below the first API base

	Query map[string]string `yaml:"query"`
	Body  document          `yaml:"body"` // of a POST, sent as JSON
	ID    string            `yaml:"id"`   // field path such as data.id
	Label string            `yaml:"label"`
}

// API names where calls may go.
type API struct {
	// Base is "https://host[:port][/prefix]", or of a database
	// "postgres://host[:port]/database"; the first is the default.
	Base []string `yaml:"base"`
	// Git says where the provider's repositories are, when that is beside its API.
	Git *GitHosts `yaml:"git"`
	// Open are bases, of the same form, that answers of the API lead to, such as where
	// its files lie. Only downloads pass there, and no credential goes along.
	Open []string `yaml:"open"`
}

// Injection says where the credential goes: one of header, query, basic, headers
// and sign.
type Injection struct {
	Header  string            `yaml:"header"`
	Query   string            `yaml:"query"`
	Format  string            `yaml:"format"` // for header and query, such as "Bearer {access_token}"
	Basic   *Basic            `yaml:"basic"`
	Headers map[string]string `yaml:"headers"` // templates by name, where it takes several
	Sign    string            `yaml:"sign" enum:"aws_sigv4,oauth1"`
	// Service and Region are what a signature is for, where the host does not say.
	Service string `yaml:"service"`
	Region  string `yaml:"region"`
	// Certificate presents the parts certificate and private_key in the TLS
	// handshake, alone or beside the others.
	Certificate bool `yaml:"client_certificate"`
	// Realm is where Basic buys a token for each request.
	Realm *Realm `yaml:"realm"`
	// Placeholder is what stands for it in clients that speak HTTP themselves.
	Placeholder Placeholder `yaml:"placeholder"`
}

// Basic holds the templates of RFC 7617's two parts.
type Basic struct {
	Username string `yaml:"username"`
	Password string `yaml:"password"`
}

// Generic switches the generic request tools on.
type Generic struct {
	Read        bool `yaml:"read"`
	Write       bool `yaml:"write"`
	Destructive bool `yaml:"destructive"`
	// Refuse is "METHOD /path/{x}", as in Access: what the generic tools leave to
	// tools of the record's own, such as sending, which are asked about one by one.
	Refuse []string `yaml:"refuse"`
	// GraphQL lists the paths that take GraphQL, such as /graphql. A query there
	// reads, a mutation writes.
	GraphQL []string `yaml:"graphql"`
	// QueriesOnly refuses there whatever is not known to be a query, where a mutation
	// could make keys or permissions.
	QueriesOnly bool `yaml:"queries_only"`
	// Git lists the paths of git repositories, such as /{owner}/{repo}, or /** where
	// every path is one: a fetch there reads, and a push is read for what it does.
	// Elsewhere a POST is a write, whatever its path ends in.
	Git []string `yaml:"git"`
}

// Health is a cheap call that succeeds while the credential works.
type Health struct {
	Path string `yaml:"path"`
}

// ToolSpec is a tool as written in the record.
type ToolSpec struct {
	Name        string        `yaml:"name"`
	Title       string        `yaml:"title"`
	Description string        `yaml:"description"`
	Effect      policy.Effect `yaml:"effect" enum:"read,write,destructive,access"`
	Scopes      []string      `yaml:"scopes"`
	Slot        string        `yaml:"slot"`  // of oauth2.slots, whose token a call carries; default the connection's own
	Tried       string        `yaml:"tried"` // YYYY-MM-DD of the last trial with the provider itself; default what about says
	Input       document      `yaml:"input"`
	Request     RequestSpec   `yaml:"request"`
	SQL         *SQLSpec      `yaml:"sql"` // in place of request, of a database
	MCP         document      `yaml:"mcp"` // in place of all else, of an MCP server: the tool as the server listed it
	Classify    *ClassifySpec `yaml:"classify"`
	Target      *TargetSpec   `yaml:"target"` // what names the thing that the call is about
	Show        *ShowSpec     `yaml:"show"`   // what the fields of its body are to a person
	Poll        *PollSpec     `yaml:"poll"`
	Output      Output        `yaml:"output"`
}

// ClassifySpec names the argument that is a statement. What it can change raises
// the effect of the call over that of the tool (package statement).
type ClassifySpec struct {
	Language string `yaml:"language" enum:"sql,graphql"`
	Dialect  string `yaml:"dialect" enum:"postgres,snowflake"` // of SQL, which needs one
	Argument string `yaml:"argument"`
}

// TargetSpec says how a person learns what a call is about, when an argument is
// only an id: by another tool of the record that reads, or not at all.
type TargetSpec struct {
	Tool      string            `yaml:"tool"`                     // by its name in the record; of effect read
	Arguments map[string]string `yaml:"arguments"`                // of that tool; default: those of the same name
	Name      []string          `yaml:"name"`                     // fields of its answer, such as data.title
	Inside    string            `yaml:"inside" json:",omitempty"` // the field of its answer that holds the thing's own, to compare with an update; default: the answer itself
	Unnamed   string            `yaml:"unnamed"`                  // instead of all that: why nothing can name it
}

// PollSpec follows up an answer that says "not yet". The credential goes along.
type PollSpec struct {
	Status  int    `yaml:"status"`  // of the answer that is no answer yet; default 202
	Path    string `yaml:"path"`    // below the tool's base; "{name}" is a field of that answer
	Seconds int    `yaml:"seconds"` // for how long at most; default 30
}

// RequestSpec is the template of a tool's request. "{name}" stands for an
// argument: within a path segment, or as a whole value elsewhere.
type RequestSpec struct {
	Method  string            `yaml:"method"`
	Base    string            `yaml:"base"` // one of api.base; default the first
	Path    string            `yaml:"path"`
	Query   map[string]string `yaml:"query"`
	Headers map[string]string `yaml:"headers"`
	Body    document          `yaml:"body"`
	Encode  string            `yaml:"encode" enum:"json,form,multipart,related,raw"` // default json
	Parts   []PartSpec        `yaml:"parts"`                                         // instead of body, for the last three
}

// PartSpec is one part of a multipart body (RFC 2046, RFC 7578), or the whole of
// a raw one. It is left out when none of the arguments that it names is given.
type PartSpec struct {
	Name     string   `yaml:"name"`     // of multipart; a constant
	Filename string   `yaml:"filename"` // of multipart
	Type     string   `yaml:"type"`     // media type; default by the kind of content
	Text     string   `yaml:"text"`     // one of these three
	Base64   string   `yaml:"base64"`   // text that is decoded before it is sent
	JSON     document `yaml:"json"`
}

// Output limits what an answer shows.
type Output struct {
	Keep     []string `yaml:"keep"`   // fields that are kept of a good JSON answer, such as files.id; empty: all
	Decode   []string `yaml:"decode"` // names of fields whose base64 text is shown decoded
	Cut      []string `yaml:"cut"`
	MaxBytes int      `yaml:"max_bytes"` // default 256 KiB
}

// Tool is one operation, compiled. Its zero value builds nothing.
type Tool struct {
	Name        string // <provider>_<name>
	Provider    string
	Title       string
	Description string
	Effect      policy.Effect
	Scopes      []string
	Input       json.RawMessage // JSON Schema 2020-12 of an object
	Generic     bool
	Output      Output
	// Tried is the day on which somebody tried it with the provider itself. Empty
	// in a record that says how sure it is means "not yet tried live".
	Tried  string
	Target *Target // what names the thing that a call is about; nil: not said
	Slot   string  // whose token a call carries; empty: the connection's own

	sure bool // the record says how sure it is
	plan *plan
}

// Untried reports that people and agents are to read "not yet tried live": the
// record says how sure it is, and nobody has tried this tool.
func (t Tool) Untried() bool { return t.Tried == "" && t.sure }

// Arguments lists the names of what the tool takes, in order.
func (t Tool) Arguments() []string {
	if t.plan != nil && t.plan.names != nil {
		return slices.Sorted(maps.Keys(t.plan.names))
	}
	var schema struct {
		Properties map[string]json.RawMessage `json:"properties"`
	}
	if json.Unmarshal(t.Input, &schema) != nil {
		return nil
	}
	return slices.Sorted(maps.Keys(schema.Properties))
}

// Source is the YAML that the record was parsed from.
func (r Record) Source() []byte { return r.source }

// TextDigest identifies the record's text.
func (r Record) TextDigest() [32]byte { return sha256.Sum256(r.source) }

// Digest identifies the record's text and the values that it is bound to.
func (r Record) Digest() [32]byte { return digestOf(r.TextDigest(), r.values) }

// Tools lists the record's own tools in their order, then the generic ones.
func (r Record) Tools() []Tool { return r.tools }

// Tool finds a tool by its full name.
func (r Record) Tool(name string) (Tool, bool) {
	for _, t := range r.tools {
		if t.Name == name {
			return t, true
		}
	}
	return Tool{}, false
}

// Pinned is where a connection's credential may go, fixed when the connection
// is made (product.md rule 6). Empty fields mean that there is no such place.
type Pinned struct {
	Authorize string   `json:"authorize,omitempty"`
	Token     string   `json:"token,omitempty"`
	Refresh   string   `json:"refresh,omitempty"` // when it is not Token
	Longer    string   `json:"longer,omitempty"`  // where the first token is swapped
	Revoke    string   `json:"revoke,omitempty"`
	Identity  string   `json:"identity,omitempty"`
	API       []string `json:"api"`
	Git       []string `json:"git,omitempty"`   // see [GitHosts]
	Open      []string `json:"open,omitempty"`  // where no credential goes; see [API]
	Realm     string   `json:"realm,omitempty"` // see [Realm]

	Values map[string]string `json:"values,omitempty"` // that fill the record's names

	Client ClientRef `json:"client,omitzero"` // that the grant was given to
}

// Refreshing is where a refresh token goes.
func (p Pinned) Refreshing() string { return cmp.Or(p.Refresh, p.Token) }

// Places lists every URL that p names.
func (p Pinned) Places() []string {
	all := append([]string{p.Authorize, p.Token, p.Refresh, p.Longer, p.Revoke, p.Identity, p.Realm}, slices.Concat(p.API, p.Git)...)
	return slices.DeleteFunc(all, func(s string) bool { return s == "" })
}

// Hosts are those that what a connection holds is sent to, each once. In one
// that is still to be filled in, names stand in braces.
func (r Record) Hosts() []string {
	var out []string
	for _, place := range r.Pinned().Places() {
		_, rest, _ := strings.Cut(place, "://")
		host, _, _ := strings.Cut(rest, "/")
		named := []string{host}
		for _, c := range r.Capture {
			if host == "{"+c.Name+"}" { // any host below these
				named = c.Hosts
			}
		}
		for _, h := range named {
			if h != "" && !slices.Contains(out, h) {
				out = append(out, h)
			}
		}
	}
	return out
}

// Wire is the record's slug on the WorkOS wire.
func (r Record) Wire() string { return cmp.Or(r.Pipes, r.ID) }

// Pinned takes the places from the record as it is now.
func (r Record) Pinned() Pinned {
	p := Pinned{API: append([]string(nil), r.API.Base...), Values: r.Values()}
	if r.API.Git != nil {
		p.Git = slices.Clone(r.API.Git.Base)
	}
	p.Open = slices.Clone(r.API.Open)
	if r.Injection.Realm != nil {
		p.Realm = r.Injection.Realm.URL
	}
	if r.OAuth != nil {
		p.Authorize, p.Token = r.OAuth.AuthorizeURL, r.OAuth.TokenURL
		p.Refresh = r.OAuth.Refresh.URL
		if s := r.OAuth.Refresh.Swap; s != nil {
			p.Refresh = s.URL
		}
		if r.OAuth.Longer != nil {
			p.Longer = r.OAuth.Longer.URL
		}
		if r.OAuth.RevokeStyle != "none" {
			p.Revoke = r.OAuth.RevokeURL
		}
	}
	if r.Mint != nil {
		p.Token = r.Mint.TokenURL
		if r.Mint.RevokeStyle != "none" {
			p.Revoke = r.Mint.RevokeURL
		}
	}
	if r.Identity != nil {
		p.Identity = r.Identity.URL
		if p.Identity == "" {
			p.Identity = joinURL(r.API.Base[0], r.Identity.Path)
		}
	}
	return p
}

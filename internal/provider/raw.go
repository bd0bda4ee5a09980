package provider

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// MaxRead is how much of a raw request's body is read before it is decided on, in
// bytes. What is larger cannot be approved.
const MaxRead = 1 << 20

// Raw is one HTTP request that a client wrote itself, and that no tool built.
type Raw struct {
	Method string
	URL    *url.URL    // absolute
	Header http.Header // as it is to go out, without what belongs to a connection
	Body   []byte      // the first MaxRead bytes
	Whole  bool        // Body is all of it
	Socket bool        // it asks for a WebSocket
}

// Reading is a tool that a raw request is a call of, and the request as it is
// decided on.
type Reading struct {
	Tool    Tool
	Request *Request
}

// Read tells what a raw request is, best first: a call of one of the record's own
// tools, when that tool could have built exactly this request, else of the generic
// tool of the request's effect. api lists the bases that the connection pins.
//
// GET, HEAD and a fetch of git read; POST, PUT, PATCH and a push write; DELETE, a
// forced push and what cannot be told destroy. What a GraphQL document can change
// decides over the method, and so does an own tool at the same place. What makes
// access, replaces the method or bundles requests is refused.
func (r Record) Read(raw Raw, api ...string) ([]Reading, error) {
	d, err := r.dissect(raw, api)
	if err != nil {
		return nil, err
	}
	if d.meets(r.guard, r.API.Base) {
		return nil, accessRefused("This request makes keys, members, webhooks or permissions.")
	}
	var out []Reading
	worst := policy.Read
	for _, t := range r.tools {
		if t.Generic || !t.plan.near(d) {
			continue
		}
		worst = policy.Worse(worst, t.Effect)
		if t.plan.method != d.method || !t.plan.at(d) {
			continue
		}
		if req, ok := t.built(d, api); ok {
			out = append(out, Reading{t, req})
		}
	}
	slices.SortStableFunc(out, func(a, b Reading) int { // the strongest first
		return slices.Index(policy.Effects(), policy.Worse(b.Tool.Effect, b.Request.Effect)) - slices.Index(policy.Effects(), policy.Worse(a.Tool.Effect, a.Request.Effect))
	})
	generic, err := r.generically(d, worst)
	if err != nil && len(out) == 0 {
		return nil, err
	}
	if err == nil {
		out = append(out, generic)
	}
	return out, nil
}

func accessRefused(message string) *fault.Error {
	return fault.New(fault.Denied, "access_refused", message).WithHint("Use the provider's own tool for it through MCP, which a person approves call by call.")
}

// dissected is a raw request in parts.
type dissected struct {
	raw     Raw
	method  string
	base    string
	path    string   // below base, as it was written
	one     []string // its segments, each decoded
	many    []string // what a server that decodes first would see
	asOne   routed
	asMany  routed
	query   []param
	media   string
	params  map[string]string // of the media type
	text    []byte            // the body without its coding; nil when it cannot be read whole
	json    jsontext.Value    // the body, when it is strictly JSON
	form    []param           // or a form
	opaque  string            // why the body cannot be looked through; empty: it can, or need not
	encoded bool              // the body came in a coding
	own     []string          // headers that the record sets, whatever the client sends
}

func (r Record) dissect(raw Raw, api []string) (*dissected, error) {
	d := &dissected{raw: raw, method: raw.Method, own: r.ownHeaders()}
	for _, base := range api {
		if len(base) > len(d.base) && (outbound.Bound{Bases: []string{base}}).Contains(raw.URL) {
			d.base = base
		}
	}
	if d.base == "" || !slices.Contains(r.API.Base, d.base) && !r.API.Git.has(d.base) && !r.API.opens(d.base) {
		return nil, fault.New(fault.Denied, "destination_denied", "The request goes to a place that this connection is not bound to.").
			WithHint("If the provider's record changed, reconnect.")
	}
	if err := d.headers(); err != nil {
		return nil, err
	}
	if err := d.place(); err != nil {
		return nil, err
	}
	d.asOne, d.asMany = route(d.method, d.base, d.one), route(d.method, d.base, d.many)
	if err := d.parameters(r.Injection.Query); err != nil {
		return nil, err
	}
	if err := d.content(); err != nil {
		return nil, err
	}
	if err := r.onlyDownload(d); err != nil {
		return nil, err
	}
	return d, r.onlyGit(d)
}

func overrideRefused(what string) *fault.Error {
	return fault.New(fault.Denied, "method_override_refused", what+" could replace the request's method, so what the request does cannot be told.").
		WithHint("Send the request with its real method.")
}

func (d *dissected) headers() error {
	for name := range d.raw.Header {
		switch plain := strings.ToLower(strings.ReplaceAll(name, "_", "-")); {
		case strings.HasPrefix(plain, "x-http-method") || strings.HasPrefix(plain, "x-method") || plain == "x-restli-method":
			return overrideRefused("The header " + name)
		}
	}
	return nil
}

// place reads the path twice: as it is written, and as a server that decodes
// before it routes would.
func (d *dissected) place() error {
	base, err := url.Parse(d.base)
	if err != nil {
		return fault.New(fault.Internal, "record_invalid", "The provider record's API base is not a URL.").WithCause(err)
	}
	d.path = strings.TrimPrefix(d.raw.URL.EscapedPath(), strings.TrimRight(base.EscapedPath(), "/"))
	if len(d.path) > 8192 {
		return fault.New(fault.Invalid, "path_refused", "The path is over 8 KiB.")
	}
	trimmed := strings.Trim(d.path, "/")
	if trimmed == "" {
		return nil
	}
	for part := range strings.SplitSeq(trimmed, "/") {
		s, err := url.PathUnescape(part)
		if err != nil {
			return fault.New(fault.Invalid, "path_refused", "The path holds a percent sign that starts no valid escape.")
		}
		d.one = append(d.one, s)
	}
	whole := trimmed
	for range maxLayers {
		whole = outbound.DecodeOnce(whole)
	}
	for part := range strings.SplitSeq(strings.ReplaceAll(whole, "\\", "/"), "/") {
		if plain := lenient(part); plain != "" { // nor what is left of a dot, or of parameters alone
			d.many = append(d.many, part)
		}
	}
	return nil
}

// parameters reads the query. reserved carries the credential.
func (d *dissected) parameters(reserved string) error {
	if d.raw.URL.RawQuery == "" {
		return nil
	}
	for part := range strings.SplitSeq(d.raw.URL.RawQuery, "&") {
		if part == "" {
			continue
		}
		for _, piece := range strings.Split(part, ";") { // which some servers split at
			name, _, _ := strings.Cut(piece, "=")
			decoded, err := url.QueryUnescape(name)
			if err != nil || !plainName(decoded) {
				return badArguments("A query parameter has a name that cannot be read.")
			}
			if overridesMethod(decoded) {
				return overrideRefused("The query parameter " + quoted(decoded))
			}
		}
		name, value, _ := strings.Cut(part, "=")
		n, err := url.QueryUnescape(name)
		v, verr := url.QueryUnescape(value)
		if err != nil || verr != nil {
			return badArguments("The query holds a percent sign that starts no valid escape.")
		}
		if reserved == "" || !strings.EqualFold(n, reserved) {
			d.query = append(d.query, param{name: n, value: v})
		}
	}
	return nil
}

// content looks through the body for what could replace the method, and reads it
// when it is JSON or a form.
func (d *dissected) content() error {
	if kinds := d.raw.Header.Values("Content-Type"); len(kinds) > 1 || len(kinds) == 1 && kinds[0] != "" {
		var err error
		if d.media, d.params, err = mime.ParseMediaType(kinds[0]); err != nil || len(kinds) > 1 {
			return fault.New(fault.Invalid, "content_type_refused", "The type of the body cannot be told.").WithHint("Send one Content-Type that is well-formed.")
		}
	}
	if d.media == "multipart/mixed" || d.media == "application/http" {
		return accessRefused("This request bundles other requests, which nobody could approve one by one.")
	}
	if len(d.raw.Body) == 0 && d.raw.Whole {
		return nil
	}
	d.text = d.raw.Body
	if coding := strings.ToLower(strings.TrimSpace(d.raw.Header.Get("Content-Encoding"))); coding != "" && coding != "identity" {
		d.encoded = true
		d.text = unzip(d.raw, coding)
	}
	if !d.raw.Whole {
		d.text = nil
	}
	shaped := d.media == "" || d.media == "text/plain" || strings.HasSuffix(d.media, "json") || d.media == "application/x-www-form-urlencoded" || strings.HasPrefix(d.media, "multipart/")
	if d.text == nil {
		if shaped {
			d.opaque = "its body is too large to look through"
		}
		return nil
	}
	return d.shape()
}

// unzip gives a body out of its coding; nil when that cannot be told.
func unzip(raw Raw, coding string) []byte {
	if coding != "gzip" && coding != "x-gzip" || !raw.Whole {
		return nil
	}
	zr, err := gzip.NewReader(bytes.NewReader(raw.Body))
	if err != nil {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(zr, MaxRead+1))
	if err != nil || len(text) > MaxRead {
		return nil
	}
	return text
}

func (d *dissected) shape() error {
	trimmed := bytes.TrimLeft(d.text, " \t\r\n")
	switch looksJSON := len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '['); {
	case strings.HasPrefix(d.media, "multipart/"):
		return d.parts()
	case d.media == "application/x-www-form-urlencoded", d.media == "" && !looksJSON && d.method == http.MethodPost: // which some servers take for a form
		values, err := url.ParseQuery(string(d.text))
		if err != nil {
			d.opaque = "its form cannot be read"
			return nil
		}
		for _, name := range sortedKeys(values) {
			if overridesMethod(name) {
				return overrideRefused("The form field " + quoted(name))
			}
			if d.media == "" {
				d.opaque = "nothing says what its body is"
				continue
			}
			for _, v := range values[name] {
				d.form = append(d.form, param{name: name, value: v})
			}
		}
	case looksJSON || strings.HasSuffix(d.media, "json"):
		if strictjson.Check(d.text, strictjson.Limits{}) != nil {
			if strings.HasSuffix(d.media, "json") || d.media == "" {
				d.opaque = "its body is not strictly JSON"
			}
			return nil
		}
		if err := bodyNames(d.text, 0); err != nil {
			return overrideRefused("A field of the body")
		}
		d.json = jsontext.Value(d.text)
	}
	return nil
}

func (d *dissected) parts() error {
	mr := multipart.NewReader(bytes.NewReader(d.text), d.params["boundary"])
	for range 1000 {
		p, err := mr.NextRawPart()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			break
		}
		if overridesMethod(p.FormName()) || overridesMethod(strings.Trim(p.Header.Get("Content-Id"), "<>")) {
			return overrideRefused("The form field " + quoted(p.FormName()))
		}
		if p.FormName() == "" {
			d.opaque = "a part of its body has no name"
		}
	}
	d.opaque = "its form cannot be read"
	return nil
}

// meets reports whether the request meets a rule, in either reading of its path.
func (d *dissected) meets(rules []accessRule, bases []string) bool {
	return d.asOne.meets(rules, bases) || d.asMany.meets(rules, bases)
}

// at reports whether a tool's template is at the path of a request.
func (p *plan) at(d *dissected) bool {
	if p.base != d.base {
		return false
	}
	have, t := d.one, p.path
	if len(have) < len(t.segments) || len(have) > len(t.segments) && (len(t.segments) == 0 || !t.segments[len(t.segments)-1].many) {
		return false
	}
	for i, seg := range t.segments {
		if seg.many {
			return true
		}
		if !seg.fits(have[i]) {
			return false
		}
	}
	return true
}

// near reports whether a server that is forgiving of spelling could take the path of
// a request for that of the template: without case, with empty and dot segments,
// escapes, a slash or a suffix at its end. Such a request is no call of the tool, but
// may do what the tool does.
func (p *plan) near(d *dissected) bool {
	same := p.method == d.method || p.method == http.MethodGet && d.method == http.MethodHead
	return same && d.meets([]accessRule{{method: p.method, path: p.path.asRule()}}, []string{p.base})
}

// generically reads a request as a call of the generic tool of its effect. worst
// is that of the record's own tools at the same place.
func (r Record) generically(d *dissected, worst policy.Effect) (Reading, error) {
	if d.meets(r.refuse, r.API.Base) {
		return Reading{}, fault.New(fault.Denied, "access_refused", "This request is left to a tool of the provider's own, and is not exactly a call of it.").
			WithHint("Send what that tool takes, or use the tool through MCP.")
	}
	effect, why, err := r.effect(d)
	if err != nil {
		return Reading{}, err
	}
	if policy.Worse(effect, worst) != effect {
		effect, why = worst, "one of the provider's own tools at this place is"
	}
	name := map[policy.Effect]string{policy.Read: "_read", policy.Write: "_write", policy.Destructive: "_destroy"}[effect]
	t, ok := r.Tool(r.ID + name)
	if !ok || effect == policy.Access {
		return Reading{}, fault.New(fault.Denied, "not_granted", "No tool of this provider makes this request.").
			WithHint("Use what its tools offer; search_tools lists them.")
	}
	req, err := d.request()
	if err != nil {
		return Reading{}, err
	}
	req.Effect, req.Why = effect, why
	return Reading{t, req}, nil
}

// effect is what a request can change, by what is known of it.
func (r Record) effect(d *dissected) (policy.Effect, string, error) {
	var rules []accessRule
	for _, t := range r.tools {
		if t.Generic {
			rules = t.plan.generic.graphQL
		}
	}
	if d.meets(rules, r.API.Base) {
		v := graphQL(&draft{query: d.query, body: d.json})
		if d.opaque != "" || !d.raw.Whole || d.raw.Socket || d.json == nil && len(d.raw.Body) > 0 {
			v = unreadable()
		}
		if r.Generic.QueriesOnly && v.Effect != policy.Read {
			return "", "", queriesOnly()
		}
		return v.Effect, v.Why, nil
	}
	if r.API.opens(d.base) { // where nothing else passes
		return policy.Read, "", nil
	}
	if r.API.Git.has(d.base) { // the same
		if effect, why, ok := r.gitEffect(d); ok {
			return effect, why, nil
		}
		return policy.Read, "", nil
	}
	if bundles(d.base, d.one) || bundles(d.base, d.many) {
		return "", "", accessRefused("This path takes other requests or queries inside a request, which nobody could approve one by one.")
	}
	if effect, why, ok := r.gitEffect(d); ok {
		return effect, why, nil
	}
	if effect, why, ok := r.Injection.awsEffect(d); ok {
		if effect == policy.Access {
			return "", "", accessRefused("This request makes keys, roles or permissions.")
		}
		return effect, why, nil
	}
	effect := d.methodEffect()
	switch {
	case effect == policy.Read && d.raw.Socket:
		return policy.Write, "over a socket anything can be said", nil
	case effect == policy.Write && d.opaque != "":
		return policy.Destructive, d.opaque, nil
	}
	return effect, "", nil
}

// methodEffect is what a request's method says.
func (d *dissected) methodEffect() policy.Effect {
	switch d.method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return policy.Read
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		return policy.Write
	}
	return policy.Destructive
}

// request is the request as it is decided on: what it says becomes the arguments,
// in the words of the generic tools where those can say it.
func (d *dissected) request() (*Request, error) {
	u := *d.raw.URL
	req := &Request{Method: d.method, URL: &u, Header: http.Header{}, base: d.base, Partial: !d.raw.Whole}
	req.Summary = Summary{Method: d.method, Host: u.Host, Path: u.EscapedPath()}
	args := map[string]any{"method": d.method, "base": d.base, "path": "/" + strings.TrimPrefix(d.path, "/")}
	query := map[string]any{}
	for _, q := range d.query {
		req.Summary.Query = append(req.Summary.Query, Field{label("query ", q.name), q.value})
		switch have := query[q.name].(type) {
		case nil:
			query[q.name] = q.value
		case string:
			query[q.name] = []string{have, q.value}
		case []string:
			query[q.name] = append(have, q.value)
		}
	}
	if len(query) > 0 {
		args["query"] = query
	}
	if telling := d.telling(); len(telling) > 0 {
		args["header"] = telling
		for _, name := range sortedKeys(telling) {
			req.Summary.Header = append(req.Summary.Header, Field{label("header ", name), strings.Join(telling[name], ", ")})
		}
	}
	d.describe(req, args)
	var err error
	req.Args, err = strictjson.CanonicalOf(args)
	return req, err
}

// describe tells of the body, in args for the digest and in req for people.
func (d *dissected) describe(req *Request, args map[string]any) {
	if len(d.raw.Body) == 0 && d.raw.Whole {
		return
	}
	show := func(name, value string) { req.Summary.Body = append(req.Summary.Body, Field{name, value}) }
	// How a server reads a body is a part of what the body says.
	if media := d.raw.Header.Get("Content-Type"); media != "" {
		args["body_type"] = media
		req.Summary.Header = append(req.Summary.Header, Field{"header Content-Type", media})
	}
	switch {
	case !d.raw.Whole:
		show("body", "over 1 MiB, not read")
	case d.json != nil && exactNumbers(d.json) == nil:
		args["body"] = d.json
		for _, f := range flatten(nil, "", d.json) {
			show(strings.TrimSuffix("body "+f.Name, " "), f.Value)
		}
	default:
		sum := sha256.Sum256(d.raw.Body)
		args["body_sha256"] = hex.EncodeToString(sum[:])
		for _, f := range d.form {
			show(label("body ", f.name), f.value)
		}
		if d.media == "application/x-git-receive-pack-request" {
			p, _ := readPush(d.raw.Body)
			for _, u := range p.updates[:min(len(p.updates), maxUpdates)] {
				show(label("push to ", u.ref), u.words())
			}
			if more := len(p.updates) - maxUpdates; more > 0 {
				show("push to", strconv.Itoa(more)+" more refs, which are not shown")
			}
			for _, o := range p.options {
				show("push option", o)
			}
		}
		if len(d.form) == 0 {
			if preview, ok := shownText(d.text); ok {
				show("body", preview)
			}
			show("body (bytes)", strconv.Itoa(len(d.raw.Body)))
			show("body (SHA-256)", hex.EncodeToString(sum[:]))
		}
	}
}

// quiet are headers that say nothing of what a request does: how the client wants
// its answer, what it is, and how the body is written. All others may decide it (whose
// account, what is copied, which action), so they are part of what is decided on.
var quiet = map[string]bool{
	"accept": true, "accept-charset": true, "accept-encoding": true, "accept-language": true, "authorization": true, "baggage": true, "cache-control": true,
	"connect-protocol-version": true, "connect-timeout-ms": true, "content-encoding": true, "content-length": true, "content-md5": true, "content-type": true, "date": true, "dnt": true,
	"git-protocol": true, "grpc-accept-encoding": true, "grpc-encoding": true, "grpc-timeout": true, "idempotency-key": true, "if-match": true, "if-modified-since": true,
	"if-none-match": true, "if-range": true, "if-unmodified-since": true, "origin": true, "pragma": true, "priority": true, "range": true, "referer": true,
	"sec-websocket-accept": true, "sec-websocket-extensions": true, "sec-websocket-key": true, "sec-websocket-protocol": true, "sec-websocket-version": true, "te": true,
	"traceparent": true, "tracestate": true, "upgrade-insecure-requests": true, "user-agent": true, "x-amz-content-sha256": true, "x-amz-date": true, "x-amz-security-token": true,
	"x-correlation-id": true, "x-goog-api-client": true, "x-request-id": true, "x-requested-with": true,
}

// telling are the headers of a request that may decide what it does.
func (d *dissected) telling() map[string][]string {
	out := map[string][]string{}
	for name, values := range d.raw.Header {
		plain := strings.ToLower(name)
		if quiet[plain] || strings.HasPrefix(plain, "x-stainless-") || strings.HasPrefix(plain, "amz-sdk-") || slices.ContainsFunc(d.own, func(own string) bool { return strings.EqualFold(own, name) }) {
			continue
		}
		out[http.CanonicalHeaderKey(name)] = values
	}
	return out
}

// shownText is a body as a person reads it, when it is text.
func shownText(text []byte) (string, bool) {
	const most = 16 << 10
	if len(text) == 0 || len(text) > most || bytes.IndexByte(text, 0) >= 0 || !utf8.Valid(text) {
		return "", false
	}
	return string(text), true
}

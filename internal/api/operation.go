package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// route says what one operation is and who may come as far as its handler.
type route struct {
	id      string // kebab-case; also how logs name it
	method  string
	path    string
	tag     string
	summary string
	detail  string
	status  int // of success; default 200, or 204 without a body
	rules
	also      map[int]any // further statuses of success, with their bodies
	conflicts bool        // may answer 409
	expires   bool        // may answer 410
}

// rules hold before a handler runs. The rooms decide again, in full.
type rules struct {
	open   bool            // needs nobody
	scopes []account.Scope // an API key needs all of them
	anyOf  []account.Scope // and one of these
	person bool            // API keys are refused
	value  bool            // its body carries a value of the vault, which may be large
	ends   bool            // ends access: its caller is found on connections that are kept for that
	urgent bool            // ends sessions: the same, and an allowance beyond the caller's rate
}

const rulesKey = "rules"

func rulesOf(op *huma.Operation) rules {
	r, ok := op.Metadata[rulesKey].(rules)
	if !ok {
		return rules{person: true, scopes: []account.Scope{"none"}} // a route without rules is nobody's
	}
	return r
}

func (r rules) check(c *call) error {
	if c.key.ID() == "" {
		return nil
	}
	if r.person {
		return fault.New(fault.Denied, "person_required", "API keys cannot do this; a person must.").WithHint("Run ambit login, or use the web UI.")
	}
	lacks := func(s account.Scope) error {
		return fault.New(fault.Denied, "missing_scope", "The API key lacks the scope "+s+".").WithHint("Make a key with that scope.")
	}
	for _, s := range r.scopes {
		if !c.key.Has(s) {
			return lacks(s)
		}
	}
	if len(r.anyOf) > 0 && !slices.ContainsFunc(r.anyOf, c.key.Has) {
		return lacks(r.anyOf[0])
	}
	return nil
}

// Caller is part of every input: it brings the caller to the handler.
type Caller struct {
	ByHeader string `header:"Ambit-Environment" doc:"The environment in which a person's login acts; default the person's own. An API key stays in its environment."`
	ByQuery  string `query:"environment" doc:"The same as the header Ambit-Environment."`

	call *call
}

// Resolve is called by huma with the request's own context.
func (c *Caller) Resolve(ctx huma.Context) []error {
	c.call = ctx.(*call)
	return nil
}

func (c *Caller) from() *call { return c.call }

// input is a pointer to a struct that embeds Caller.
type input[I any] interface {
	*I
	from() *call
}

// answer is what huma encodes.
type answer[T any] struct {
	Status int
	Body   T
}

// handle adds an operation with an answer. The authority is an argument of fn
// and comes from nowhere else.
func handle[I, T any, P input[I]](a *API, rt route, fn func(ctx context.Context, by account.Actor, in *I) (T, error)) {
	huma.Register(a.huma, a.operation(rt), func(ctx context.Context, in *I) (*answer[T], error) {
		c := P(in).from()
		body, err := fn(ctx, c.by, in)
		if err != nil {
			return nil, a.failed(ctx, c, err)
		}
		out := &answer[T]{Status: max(rt.status, http.StatusOK), Body: body}
		if s, ok := any(body).(interface{ status() int }); ok {
			out.Status = s.status()
		}
		return out, nil
	})
}

// act adds an operation without an answer.
func act[I any, P input[I]](a *API, rt route, fn func(ctx context.Context, by account.Actor, in *I) error) {
	huma.Register(a.huma, a.operation(rt), func(ctx context.Context, in *I) (*struct{}, error) {
		c := P(in).from()
		if err := fn(ctx, c.by, in); err != nil {
			return nil, a.failed(ctx, c, err)
		}
		return nil, nil
	})
}

// written is an answer that its handler writes itself.
type written struct {
	Body func(huma.Context)
}

// write adds such an operation. Its success is described by rt.status and media.
func write[I any, P input[I]](a *API, rt route, media string, schema *huma.Schema, fn func(ctx context.Context, c *call, in *I) (func(), error)) {
	op := a.operation(rt)
	op.Responses["200"] = &huma.Response{Description: http.StatusText(http.StatusOK), Content: map[string]*huma.MediaType{media: {Schema: schema}}}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*written, error) {
		c := P(in).from()
		run, err := fn(ctx, c, in)
		if err != nil {
			return nil, a.failed(ctx, c, err)
		}
		return &written{Body: func(huma.Context) { run() }}, nil
	})
}

// adapter lets huma register on our mux, behind our door.
type adapter struct{ a *API }

func (d adapter) Handle(op *huma.Operation, handler func(huma.Context)) {
	d.a.mux.HandleFunc(op.Method+" "+op.Path, func(w http.ResponseWriter, r *http.Request) { d.a.enter(w, r, op, handler) })
}

func (d adapter) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.a.ServeHTTP(w, r) }

func newHuma(a *API, version string) huma.API {
	if version == "" {
		version = "dev"
	}
	format := huma.Format{Marshal: encode, Unmarshal: func(doc []byte, v any) error {
		return strictjson.Unmarshal(doc, v, strictjson.Limits{Bytes: maxValueBody})
	}}
	return huma.NewAPI(huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{Title: "Ambit management API", Version: version, License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
				Description: "For applications with an API key and for command lines with a person's login. Agents are refused: they work through /mcp. " +
					"Ids are opaque; times are RFC 3339 in UTC; lists are pages {data, next}, and next is the after of the page that follows. " +
					"A thing that is not the caller's looks absent. Requests that are refused with 429 or 503 say in Retry-After when to come back."},
			Servers: []*huma.Server{{URL: a.base}},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"bearer": {Type: "http", Scheme: "bearer", Description: "An API key (sk_…) or a command line's stored login (amb_login_…)."},
				},
			},
		},
		// A second name without a type: huma looks for it when it answers an
		// error in the form of a problem document, which shape replaces.
		Formats:                      map[string]huma.Format{"application/json": format, "json": format},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{shape},
	}, adapter{a})
}

// encode writes one line of JSON, with <, > and & as they are.
func encode(w io.Writer, v any) error {
	var doc bytes.Buffer
	enc := json.NewEncoder(&doc)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("encoding an answer: %w", err)
	}
	_, _ = w.Write(doc.Bytes()) // a client that has left is no failure of ours
	return nil
}

// operation describes rt to huma.
func (a *API) operation(rt route) huma.Operation {
	op := huma.Operation{
		OperationID: rt.id, Method: rt.method, Path: rt.path, Tags: []string{rt.tag}, Summary: rt.summary, Description: rt.detail,
		DefaultStatus: rt.status, MaxBodyBytes: -1, // the door has its own limit
		Metadata: map[string]any{rulesKey: rt.rules}, Extensions: map[string]any{}, Responses: map[string]*huma.Response{},
	}
	statuses := []int{http.StatusBadRequest, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusForbidden}
	who := ""
	if rt.open {
		op.Security = []map[string][]string{}
		op.Extensions["x-ambit-open"] = true
	} else {
		op.Security = []map[string][]string{{"bearer": {}}}
		statuses = append(statuses, http.StatusUnauthorized)
	}
	switch {
	case rt.person:
		op.Extensions["x-ambit-person"] = true
		who = "A person's login only."
	case len(rt.scopes) > 0:
		op.Extensions["x-ambit-scopes"] = rt.scopes
		who = "An API key needs the scope " + strings.Join(rt.scopes, " and ") + "."
	case len(rt.anyOf) > 0:
		op.Extensions["x-ambit-scopes-any"] = rt.anyOf
		who = "An API key needs one of the scopes " + strings.Join(rt.anyOf, ", ") + "."
	}
	op.Description = strings.TrimSpace(op.Description + " " + who)
	if strings.Contains(rt.path, "{") || !rt.open {
		statuses = append(statuses, http.StatusNotFound)
	}
	if rt.method != http.MethodGet {
		statuses = append(statuses, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	if rt.conflicts {
		statuses = append(statuses, http.StatusConflict)
	}
	if rt.expires {
		statuses = append(statuses, http.StatusGone)
	}
	describe := func(status int, body any) {
		op.Responses[strconv.Itoa(status)] = &huma.Response{Description: http.StatusText(status), Content: map[string]*huma.MediaType{"application/json": {Schema: a.schemaOf(body)}}}
	}
	for status, body := range rt.also {
		describe(status, body)
	}
	for _, s := range statuses {
		describe(s, Error{})
	}
	return op
}

// finish removes from the document what huma put in and we do not use, and
// encodes it.
func finish(doc *huma.OpenAPI) ([]byte, error) {
	schemas := doc.Components.Schemas.Map()
	for _, name := range []string{"ErrorModel", "ErrorDetail"} {
		delete(schemas, name)
	}
	out, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encoding the OpenAPI document: %w", err)
	}
	return append(out, '\n'), nil
}

type documentInput struct{ Caller }

func (a *API) documentRoutes() {
	write(a, route{id: "get-openapi", method: http.MethodGet, path: "/v1/openapi.json", tag: "meta", summary: "This document", rules: rules{open: true}},
		"application/json", &huma.Schema{Type: huma.TypeObject}, func(_ context.Context, c *call, _ *documentInput) (func(), error) {
			return func() {
				c.w.Header().Set("Content-Type", "application/json")
				_, _ = c.w.Write(a.document)
			}, nil
		})
}

// Paging is how every list is asked for.
type Paging struct {
	Limit int    `query:"limit" minimum:"1" maximum:"200" doc:"How many at most; default 50."`
	After string `query:"after" maxLength:"500" doc:"The next of the page before."`
}

func (p Paging) limit() int {
	if p.Limit == 0 {
		return 50
	}
	return p.Limit
}

// Page is a part of a list.
type Page[T any] struct {
	Data []T    `json:"data" nullable:"false"`
	Next string `json:"next" doc:"What to send as after for the part that follows; empty at the end."`
}

func page[S, T any](rows []S, next string, view func(S) T) Page[T] {
	p := Page[T]{Data: make([]T, 0, len(rows)), Next: next}
	for _, r := range rows {
		p.Data = append(p.Data, view(r))
	}
	return p
}

// window cuts a page out of a whole list that is in the order of its keys.
func window[S, T any](rows []S, p Paging, key func(S) string, view func(S) T) Page[T] {
	start := 0
	for p.After != "" && start < len(rows) && key(rows[start]) <= p.After {
		start++
	}
	rows = rows[start:]
	next := ""
	if n := p.limit(); len(rows) > n {
		rows, next = rows[:n], key(rows[n-1])
	}
	return page(rows, next, view)
}

// parseID is id.Parse for the kind that dst has.
func parseID[K id.Kind](dst *id.ID[K], s string) (err error) {
	*dst, err = id.Parse[K](s)
	return err
}

// optionalID is parseID where nothing means none.
func optionalID[K id.Kind](dst *id.ID[K], s string) error {
	if s == "" {
		return nil
	}
	return parseID(dst, s)
}

// cursor is optionalID for a list whose cursors are ids: what is none is a wrong
// cursor, not a thing that is absent.
func cursor[K id.Kind](dst *id.ID[K], s string) error {
	if err := optionalID(dst, s); err != nil {
		return fault.New(fault.Invalid, "invalid_cursor", "That is not a page cursor of this list.").
			WithHint("Use the cursor that the page before gave, or start without one.").WithCause(err)
	}
	return nil
}

// organization reads the id of an organization of the actor's environment. One
// of another looks absent, also to a key of a whole environment.
func (a *API) organization(ctx context.Context, by account.Actor, s string) (org id.Organization, err error) {
	if s == "" {
		return by.Organization(), nil
	}
	if err := parseID(&org, s); err != nil {
		return "", err
	}
	_, err = a.cfg.People.Organization(ctx, by.Environment(), org)
	return org, err
}

// browserRequired sends a person to the page where they can prove presence.
func (a *API) browserRequired(path, what string) error {
	return fault.New(fault.Denied, "browser_required", what).WithHint("Open "+a.base+path+" in a browser.").With("url", a.base+path)
}

// schemaOf names v's type in the document.
func (a *API) schemaOf(v any) *huma.Schema {
	t := reflect.TypeOf(v)
	return a.huma.OpenAPI().Components.Schemas.Schema(t, true, t.Name())
}

package workos

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/strictjson"
	"github.com/ambit-dev/ambit/internal/vault"
)

// metadata is ObjectMetadata of the wire.
type metadata struct {
	ID          string            `json:"id"`
	Environment id.Environment    `json:"environment_id"`
	Key         id.KEK            `json:"key_id"`
	Context     map[string]string `json:"context"`
	UpdatedAt   string            `json:"updated_at"`
	UpdatedBy   actor             `json:"updated_by"`
	Version     string            `json:"version_id"`
}

type actor struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

func metadataOf(o vault.Object) metadata {
	m := metadata{ID: string(o.ID), Environment: o.Environment, Key: o.KEK, Context: o.Context, UpdatedAt: stamp(o.UpdatedAt),
		UpdatedBy: actor{o.UpdatedBy.ID, o.UpdatedByName}, Version: o.VersionID}
	if m.Context == nil {
		m.Context = map[string]string{}
	}
	return m
}

// object is a secret, as described: without its value.
type object struct {
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	Metadata metadata `json:"metadata"`
}

func objectOf(o vault.Object) object { return object{string(o.ID), o.Name, metadataOf(o)} }

// listMetadata holds cursors; null is the end of the list.
type listMetadata struct {
	Before *string `json:"before"`
	After  *string `json:"after"`
}

func cursorOf(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// text is a JSON string that goes straight into a secret.Value; null and
// absent are not given.
type text struct {
	value secret.Value
	given bool
}

func (t *text) UnmarshalJSON(doc []byte) error {
	if string(doc) == "null" {
		return nil
	}
	var s string
	if err := json.Unmarshal(doc, &s); err != nil {
		return err
	}
	t.value, t.given = secret.FromString(s), true
	return nil
}

func (s *Server) createObject(ctx context.Context, c vault.Caller, r *http.Request) (answer, error) {
	var in struct {
		Name    *string           `json:"name"`
		Value   text              `json:"value"`
		Context map[string]string `json:"key_context"`
	}
	doc, err := decode(r, &in)
	if err != nil {
		return answer{}, err
	}
	if in.Name == nil || !in.Value.given || in.Context == nil {
		return answer{}, unprocessable{fault.New(fault.Invalid, "missing_field", "name, value and key_context are required.")}
	}
	once, err := onceOf(r, doc)
	if err != nil {
		return answer{}, err
	}
	o, _, err := s.vault.CreateOnce(ctx, c, once, vault.NewObject{Name: *in.Name, Context: contextOf(in.Context), Value: vault.Value{Secret: in.Value.value}})
	if err != nil {
		return answer{}, unprocessable{err}
	}
	return answer{http.StatusCreated, metadataOf(o)}, nil
}

// contextOf is a key context under the names that everything else knows. WorkOS'
// own command line and some of its examples write two of them in another way; as
// they stand, they would choose a key that nothing else is bound to.
func contextOf(items map[string]string) map[string]string {
	for alias, name := range map[string]string{"organizationId": "organization_id", "userId": "user_id"} {
		if v, ok := items[alias]; ok {
			if _, both := items[name]; !both {
				delete(items, alias)
				items[name] = v
			}
		}
	}
	return items
}

// decode reads the body into v, and gives it as it came. What is no JSON
// is a bad request; JSON of another shape cannot be processed.
func decode(r *http.Request, v any) ([]byte, error) {
	doc, err := body(r)
	if err != nil {
		return nil, err
	}
	limits := strictjson.Limits{Bytes: maxBody, Depth: 4, Items: 100}
	if err := strictjson.Unmarshal(doc, v, limits); err != nil {
		if bad := strictjson.Check(doc, limits); bad != nil {
			return nil, bad
		}
		return nil, unprocessable{err}
	}
	return doc, nil
}

// onceOf names the request by its Idempotency-Key, if it has one. However its body
// is written, it is the same request.
func onceOf(r *http.Request, doc []byte) (vault.Once, error) {
	keys := r.Header.Values("Idempotency-Key")
	if len(keys) == 0 {
		return vault.Once{}, nil
	}
	if len(keys) > 1 || len(keys[0]) < 1 || len(keys[0]) > 255 {
		return vault.Once{}, fault.New(fault.Invalid, "invalid_idempotency_key", "An Idempotency-Key has 1 to 255 characters, and a request has one of them.")
	}
	canonical, err := strictjson.Canonical(doc)
	if err != nil {
		return vault.Once{}, err
	}
	route := append([]byte(r.Method+" "+r.URL.Path+"\n"), canonical...)
	return vault.Once{Key: keys[0], Digest: sha256.Sum256(route)}, nil
}

func (s *Server) listObjects(ctx context.Context, c vault.Caller, r *http.Request) (answer, error) {
	o, err := listOptions(r.URL.RawQuery)
	if err != nil {
		return answer{}, err
	}
	page, err := s.vault.List(ctx, c, o)
	if err != nil {
		return answer{}, err
	}
	type digest struct {
		ID        id.Secret `json:"id"`
		Name      string    `json:"name"`
		UpdatedAt string    `json:"updated_at"`
	}
	out := struct {
		Data     []digest     `json:"data"`
		Metadata listMetadata `json:"list_metadata"`
	}{[]digest{}, listMetadata{cursorOf(page.Before), cursorOf(page.After)}}
	for _, o := range page.Objects {
		out.Data = append(out.Data, digest{o.ID, o.Name, stamp(o.UpdatedAt)})
	}
	return answer{http.StatusOK, out}, nil
}

// listOptions reads the query. The SDKs disagree about the name of updatedAfter,
// and some ask for pages beyond our greatest, which they then get.
func listOptions(raw string) (vault.ListOptions, error) {
	bad := func(name string) error {
		return fault.New(fault.Invalid, "invalid_parameter", "The parameter "+name+" is not valid.")
	}
	query, err := url.ParseQuery(raw)
	if err != nil {
		return vault.ListOptions{}, fault.New(fault.Invalid, "invalid_parameter", "The query is not valid.")
	}
	known := []string{"limit", "before", "after", "order", "search", "updatedAfter", "updated_after"}
	for _, name := range known {
		if len(query[name]) > 1 {
			return vault.ListOptions{}, bad(name)
		}
	}
	o := vault.ListOptions{Before: query.Get("before"), After: query.Get("after"), Order: query.Get("order"), Search: query.Get("search")}
	if v := query.Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return vault.ListOptions{}, bad("limit")
		}
		o.Limit = min(n, 100)
	}
	for _, name := range []string{"updatedAfter", "updated_after"} {
		if v := query.Get(name); v != "" {
			if o.UpdatedAfter, err = time.Parse(time.RFC3339, v); err != nil {
				return vault.ListOptions{}, bad(name)
			}
		}
	}
	return o, nil
}

func (s *Server) readObject(ctx context.Context, c vault.Caller, r *http.Request) (answer, error) {
	sid, err := secretID(r.PathValue("id"))
	if err != nil {
		return answer{}, err
	}
	o, value, err := s.vault.Get(ctx, c, sid)
	if err != nil {
		return answer{}, err
	}
	return vend(o, value)
}

// readFurther serves name/{name}, {id}/metadata and {id}/versions.
func (s *Server) readFurther(ctx context.Context, c vault.Caller, r *http.Request) (answer, error) {
	first, second := r.PathValue("first"), r.PathValue("second")
	if first == "name" {
		o, value, err := s.vault.GetByName(ctx, c, second)
		if err != nil {
			return answer{}, err
		}
		return vend(o, value)
	}
	sid, err := secretID(first)
	if err != nil {
		return answer{}, err
	}
	switch second {
	case "metadata":
		o, err := s.vault.Describe(ctx, c, sid)
		return answer{http.StatusOK, objectOf(o)}, err
	case "versions":
		versions, err := s.vault.Versions(ctx, c, sid)
		return answer{http.StatusOK, versionsOf(versions)}, err
	}
	return answer{}, fault.New(fault.NotFound, "not_found", "There is no such endpoint.")
}

func versionsOf(versions []vault.VersionInfo) any {
	type version struct {
		ID        string `json:"id"`
		CreatedAt string `json:"created_at"`
		Current   bool   `json:"current_version"`
		Size      int64  `json:"size"`
		ETag      string `json:"etag"`
	}
	out := struct {
		Data     []version    `json:"data"`
		Metadata listMetadata `json:"list_metadata"`
	}{Data: []version{}}
	for _, v := range versions {
		out.Data = append(out.Data, version{v.ID, stamp(v.CreatedAt), v.Current, v.Size, v.ETag})
	}
	return out
}

func (s *Server) updateObject(ctx context.Context, c vault.Caller, r *http.Request) (answer, error) {
	sid, err := secretID(r.PathValue("id"))
	if err != nil {
		return answer{}, err
	}
	var in struct {
		Value   text    `json:"value"`
		Version *string `json:"version_check"` // null and absent: no check
	}
	if _, err := decode(r, &in); err != nil {
		return answer{}, fault.Of(err) // this route knows no 422
	}
	if !in.Value.given {
		return answer{}, fault.New(fault.Invalid, "missing_field", "value is required.")
	}
	var check string
	if in.Version != nil {
		if check = *in.Version; check == "" {
			return answer{}, fault.New(fault.Invalid, "invalid_version_check", "version_check is empty.").WithHint("Leave it out, or send the version_id that you read.")
		}
	}
	o, err := s.vault.Update(ctx, c, sid, vault.Value{Secret: in.Value.value}, check)
	if err != nil {
		return answer{}, err
	}
	return answer{http.StatusCreated, objectOf(o)}, nil
}

func (s *Server) deleteObject(ctx context.Context, c vault.Caller, r *http.Request) (answer, error) {
	sid, err := secretID(r.PathValue("id"))
	if err != nil {
		return answer{}, err
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	checks := query["version_check"]
	if err != nil || len(checks) > 1 || len(checks) == 1 && checks[0] == "" {
		return answer{}, fault.New(fault.Invalid, "invalid_version_check", "The parameter version_check is not valid.").
			WithHint("Leave it out, or send the version_id that you read.")
	}
	o, err := s.vault.Delete(ctx, c, sid, query.Get("version_check"))
	if err != nil {
		return answer{}, err
	}
	return answer{http.StatusOK, struct {
		Success bool   `json:"success"`
		Name    string `json:"name"`
	}{true, o.Name}}, nil
}

func secretID(s string) (sid id.Secret, err error) {
	err = parse(&sid, s)
	return sid, err
}

func parse[K id.Kind](dst *id.ID[K], s string) (err error) {
	*dst, err = id.Parse[K](s)
	return err
}

package api

import (
	"context"
	"net/http"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/custody"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/vault"
)

// ContextKey describes the key of one key context.
type ContextKey struct {
	ID            string            `json:"id"`
	EnvironmentID string            `json:"environment_id"`
	Context       map[string]string `json:"key_context"`
	Version       int64             `json:"version" doc:"That seals; 0 of a key that was shredded."`
	Root          string            `json:"root" doc:"The root key that wraps it."`
	RootState     string            `json:"root_state,omitempty" enum:"fine,unavailable,throttled,denied,mismatch" doc:"Of that root key, as it was last asked. Absent of a key that was shredded."`
	Uses          int64             `json:"uses" doc:"How many values that version may have sealed, counted ahead."`
	MaxUses       int64             `json:"max_uses" doc:"How many it seals at most; before that another version takes its place."`
	Values        int64             `json:"values" doc:"How many are under all its versions. Lists count no more than 10,000 of a kind."`
	Moving        int64             `json:"moving" doc:"Older versions under which there may be values that are still to be moved."`
	CreatedAt     time.Time         `json:"created_at"`
	RotatedAt     time.Time         `json:"rotated_at,omitzero"`
	DueAt         time.Time         `json:"due_at,omitzero" doc:"When its age alone replaces it."`
	ShreddedAt    time.Time         `json:"shredded_at,omitzero"`
	Older         []OlderKey        `json:"older" nullable:"false" doc:"Versions that still open what is under them. Lists leave it empty."`
}

// OlderKey is a version of a key that no longer seals.
type OlderKey struct {
	Version int64  `json:"version"`
	Root    string `json:"root"`
	Values  int64  `json:"values" doc:"How many are still under it."`
	Kept    bool   `json:"kept" doc:"Applications hold data keys under it, so it stays."`
}

func contextKeyOf(k vault.KeyInfo) ContextKey {
	out := ContextKey{ID: string(k.ID), EnvironmentID: string(k.Environment), Context: notNil(k.Context), Version: k.Version, Root: k.Root, Uses: k.Wraps, MaxUses: k.MaxWraps, Values: k.Values, Moving: k.Moving,
		CreatedAt: k.CreatedAt, RotatedAt: k.RotatedAt, DueAt: k.DueAt, ShreddedAt: k.ShreddedAt, Older: []OlderKey{}}
	if k.Root != "" {
		out.RootState = k.State.Class.String()
	}
	for _, o := range k.Older {
		out.Older = append(out.Older, OlderKey(o))
	}
	return out
}

// RootKey describes a root key and what it wraps.
type RootKey struct {
	Ref      string    `json:"ref"`
	Location string    `json:"location"`
	Own      bool      `json:"own" doc:"Of the server; else a customer brought it."`
	Primary  bool      `json:"primary" doc:"Wraps new keys that no binding is for."`
	State    string    `json:"state" enum:"fine,unavailable,throttled,denied,mismatch,missing" doc:"As it was last asked."`
	Usable   bool      `json:"usable" doc:"Whether keys that it unwrapped may be used."`
	Since    time.Time `json:"since,omitzero"`
	Keys     int64     `json:"keys" doc:"Versions of keys that it wraps."`
	Audit    int64     `json:"audit" doc:"Keys of the audit that it wraps."`
}

func rootKeyOf(r vault.RootInfo) RootKey {
	out := RootKey{Ref: r.Ref, Location: r.Location, Own: r.Own, Primary: r.Primary, State: r.State.Class.String(), Usable: r.State.Usable, Since: r.State.Since, Keys: r.Keys, Audit: r.Audit}
	if r.Missing {
		out.State = "missing"
	}
	return out
}

// KeyStatus is where everything stands.
type KeyStatus struct {
	Roots           []RootKey `json:"roots" nullable:"false"`
	Keys            int64     `json:"keys" doc:"Contexts that have or had a key."`
	Shredded        int64     `json:"shredded"`
	WaitingSeeds    int64     `json:"waiting_seeds" doc:"Keys that another root key should wrap, and does not yet."`
	WaitingVersions int64     `json:"waiting_versions" doc:"Versions that no longer seal and still hold values, or may."`
	WaitingValues   int64     `json:"waiting_values" doc:"Values under them."`
}

// RootBinding is a customer's root key for a scope.
type RootBinding struct {
	ID             string    `json:"id"`
	EnvironmentID  string    `json:"environment_id"`
	OrganizationID string    `json:"organization_id,omitempty" doc:"Absent: the whole environment."`
	UserID         string    `json:"user_id,omitempty" doc:"Absent: the whole organization."`
	Mode           string    `json:"mode" enum:"required,preferred"`
	Root           string    `json:"root"`
	URI            string    `json:"uri"`
	State          string    `json:"state" enum:"fine,unavailable,throttled,denied,mismatch" doc:"Of the root key, as it was last asked."`
	Usable         bool      `json:"usable"`
	Keys           int64     `json:"keys" doc:"Of the scope."`
	Under          int64     `json:"under" doc:"Of them under this root key."`
	Waiting        int64     `json:"waiting" doc:"Older versions that other root keys still wrap."`
	CreatedAt      time.Time `json:"created_at"`
	UpdatedAt      time.Time `json:"updated_at"`
	Version        int64     `json:"version"`
}

func bindingOf(b custody.Binding) RootBinding {
	return RootBinding{ID: string(b.ID), EnvironmentID: string(b.Environment), OrganizationID: string(b.Organization), UserID: string(b.User), Mode: string(b.Mode), Root: b.RootRef,
		URI: b.URI, State: b.Moved.State.Class.String(), Usable: b.Moved.State.Usable, Keys: b.Moved.Keys, Under: b.Moved.Under, Waiting: b.Moved.Waiting,
		CreatedAt: b.CreatedAt, UpdatedAt: b.UpdatedAt, Version: b.Version}
}

// Probe is what was found out about a root key.
type Probe struct {
	OK    bool        `json:"ok"`
	Root  string      `json:"root"`
	Steps []ProbeStep `json:"steps" nullable:"false"`
}

// ProbeStep is one of them.
type ProbeStep struct {
	Name string `json:"name" enum:"wrap,unwrap,other_context,other_blob"`
	OK   bool   `json:"ok"`
	Text string `json:"text"`
}

type contextKeysInput struct {
	Caller
	Paging
	OrganizationID string `query:"organization_id" doc:"Whose context names it. Needed by a person who does not run the whole environment."`
	UserID         string `query:"user_id" doc:"Whose context names this user too."`
}

type contextKeyInput struct {
	Caller
	Kek            string `path:"kek"`
	OrganizationID string `query:"organization_id" doc:"As in list-context-keys."`
}

type rotateKeyInput struct {
	Caller
	Kek            string `path:"kek"`
	OrganizationID string `query:"organization_id" doc:"As in list-context-keys."`
	Body           struct {
		Reencrypt bool `json:"reencrypt,omitempty" doc:"Encrypt every value anew under a new data key, and not only wrap its data key anew."`
	}
}

type shredInput struct {
	Caller
	Body struct {
		KeyID          string `json:"key_id,omitempty" doc:"This key only."`
		OrganizationID string `json:"organization_id,omitempty" doc:"All keys whose context names it."`
		UserID         string `json:"user_id,omitempty" doc:"All keys whose context names this user, and the organization if there is one."`
	}
}

type bindingsInput struct {
	Caller
	OrganizationID string `query:"organization_id" doc:"As in list-context-keys."`
}

type bindingInput struct {
	Caller
	Binding string `path:"binding"`
}

type newBindingInput struct {
	Caller
	Body struct {
		OrganizationID string `json:"organization_id,omitempty" doc:"Left out: the whole environment."`
		UserID         string `json:"user_id,omitempty" doc:"Of the organization. Left out: all of it."`
		URI            string `json:"uri" minLength:"1" maxLength:"2000" doc:"Of the root key; it holds no secret."`
		Mode           string `json:"mode,omitempty" enum:"required,preferred" doc:"Default: required."`
	}
}

// Shredded says how many keys are gone.
type Shredded struct {
	Keys int `json:"keys"`
}

func (a *API) custodyRoutes() {
	read, write := rules{scopes: []account.Scope{account.ScopeKeysRead}}, rules{scopes: []account.Scope{account.ScopeKeysWrite}}
	handle(a, route{id: "key-status", method: http.MethodGet, path: "/v1/keys/status", tag: "keys", summary: "Where root keys, keys and values stand, of the whole server", rules: read}, a.keyStatus)
	handle(a, route{id: "list-context-keys", method: http.MethodGet, path: "/v1/keys/contexts", tag: "keys", summary: "List the keys of key contexts", rules: read}, a.contextKeys)
	handle(a, route{id: "get-context-key", method: http.MethodGet, path: "/v1/keys/contexts/{kek}", tag: "keys", summary: "Describe a key, and count what is under its older versions", rules: read}, a.contextKey)
	handle(a, route{id: "rotate-context-key", method: http.MethodPost, path: "/v1/keys/contexts/{kek}/rotate", tag: "keys", summary: "Give a key another version",
		detail: "What is under the old one follows in the background; reads go on.", rules: write, expires: true}, a.rotateKey)
	handle(a, route{id: "shred-keys", method: http.MethodPost, path: "/v1/keys/shred", tag: "keys", summary: "Destroy keys for good",
		detail: "What they sealed can be read by nobody any more, and their contexts never get another key.", rules: write}, a.shredKeys)
	handle(a, route{id: "probe-root-key", method: http.MethodPost, path: "/v1/keys/probe", tag: "keys", summary: "Try a customer's root key, and change nothing", rules: write}, a.probeRoot)
	handle(a, route{id: "list-bindings", method: http.MethodGet, path: "/v1/keys/bindings", tag: "keys", summary: "List customers' root keys and what they are bound to", rules: read}, a.bindings)
	handle(a, route{id: "create-binding", method: http.MethodPost, path: "/v1/keys/bindings", tag: "keys", summary: "Bind a customer's root key, or change what is bound",
		status: http.StatusCreated, rules: write, conflicts: true}, a.bind)
	handle(a, route{id: "get-binding", method: http.MethodGet, path: "/v1/keys/bindings/{binding}", tag: "keys", summary: "Describe a binding and how far it is carried out", rules: read}, a.binding)
	act(a, route{id: "delete-binding", method: http.MethodDelete, path: "/v1/keys/bindings/{binding}", tag: "keys", summary: "Take a customer's root key out again", rules: write, conflicts: true}, a.unbind)
	handle(a, route{id: "migrate-binding", method: http.MethodPost, path: "/v1/keys/bindings/{binding}/migrate", tag: "keys", summary: "Move now what is not under the root key yet", rules: write}, a.migrate)
	act(a, route{id: "doubt-binding", method: http.MethodPost, path: "/v1/keys/bindings/{binding}/doubt", tag: "keys", summary: "Forget what the root key unwrapped until its keeper says yes again",
		detail: "For who has disabled their key and does not want to wait the minutes until that is noticed.", rules: write}, a.doubt)
}

func (a *API) keyStatus(ctx context.Context, by account.Actor, _ *callerInput) (KeyStatus, error) {
	s, err := a.cfg.Custody.Status(ctx, by)
	if err != nil {
		return KeyStatus{}, err
	}
	out := KeyStatus{Roots: []RootKey{}, Keys: s.Keys, Shredded: s.Shredded, WaitingSeeds: s.WaitingSeeds, WaitingVersions: s.WaitingVersions, WaitingValues: s.WaitingValues}
	for _, r := range s.Roots {
		out.Roots = append(out.Roots, rootKeyOf(r))
	}
	return out, nil
}

func (a *API) contextKeys(ctx context.Context, by account.Actor, in *contextKeysInput) (Page[ContextKey], error) {
	org, err := a.organization(ctx, by, in.OrganizationID)
	if err != nil {
		return Page[ContextKey]{}, err
	}
	var user id.User
	if err := optionalID(&user, in.UserID); err != nil {
		return Page[ContextKey]{}, err
	}
	var after id.KEK
	if err := cursor(&after, in.After); err != nil {
		return Page[ContextKey]{}, err
	}
	rows, next, err := a.cfg.Custody.Keys(ctx, by, org, user, after, in.limit())
	return page(rows, string(next), contextKeyOf), err
}

func (a *API) contextKeyOf(ctx context.Context, by account.Actor, in *contextKeyInput) (org id.Organization, kek id.KEK, err error) {
	if org, err = a.organization(ctx, by, in.OrganizationID); err == nil {
		err = parseID(&kek, in.Kek)
	}
	return org, kek, err
}

func (a *API) contextKey(ctx context.Context, by account.Actor, in *contextKeyInput) (ContextKey, error) {
	org, kek, err := a.contextKeyOf(ctx, by, in)
	if err != nil {
		return ContextKey{}, err
	}
	k, err := a.cfg.Custody.Key(ctx, by, org, kek)
	return contextKeyOf(k), err
}

func (a *API) rotateKey(ctx context.Context, by account.Actor, in *rotateKeyInput) (ContextKey, error) {
	org, kek, err := a.contextKeyOf(ctx, by, &contextKeyInput{Kek: in.Kek, OrganizationID: in.OrganizationID})
	if err != nil {
		return ContextKey{}, err
	}
	k, err := a.cfg.Custody.Replace(ctx, by, org, kek, in.Body.Reencrypt)
	return contextKeyOf(k), err
}

func (a *API) shredKeys(ctx context.Context, by account.Actor, in *shredInput) (Shredded, error) {
	if in.Body.OrganizationID == "" && in.Body.UserID == "" && in.Body.KeyID == "" { // nothing said must not be everything
		return Shredded{}, fault.New(fault.Invalid, "aim_missing", "Nothing is named that should be destroyed.").
			WithHint("Name organization_id, user_id or key_id. Shredding cannot be undone.")
	}
	org, err := a.organization(ctx, by, in.Body.OrganizationID)
	if err != nil {
		return Shredded{}, err
	}
	var user id.User
	var kek id.KEK
	if err := optionalID(&user, in.Body.UserID); err != nil {
		return Shredded{}, err
	}
	if err := optionalID(&kek, in.Body.KeyID); err != nil {
		return Shredded{}, err
	}
	n, err := a.cfg.Custody.Shred(ctx, by, org, user, kek, account.Agreement{})
	return Shredded{Keys: n}, err
}

func (a *API) newBinding(ctx context.Context, by account.Actor, in *newBindingInput) (n custody.NewBinding, err error) {
	n = custody.NewBinding{URI: in.Body.URI, Mode: vault.Required}
	if in.Body.Mode != "" {
		n.Mode = vault.Mode(in.Body.Mode)
	}
	if n.Organization, err = a.organization(ctx, by, in.Body.OrganizationID); err != nil {
		return n, err
	}
	return n, optionalID(&n.User, in.Body.UserID)
}

func (a *API) probeRoot(ctx context.Context, by account.Actor, in *newBindingInput) (Probe, error) {
	n, err := a.newBinding(ctx, by, in)
	if err != nil {
		return Probe{}, err
	}
	r, err := a.cfg.Custody.Probe(ctx, by, n)
	if err != nil {
		return Probe{}, err
	}
	out := Probe{OK: r.Err() == nil, Root: r.Key.Ref, Steps: []ProbeStep{}}
	for _, f := range r.Findings {
		out.Steps = append(out.Steps, ProbeStep{Name: f.Step, OK: f.OK, Text: f.Text})
	}
	return out, nil
}

func (a *API) bindings(ctx context.Context, by account.Actor, in *bindingsInput) (Page[RootBinding], error) {
	org, err := a.organization(ctx, by, in.OrganizationID)
	if err != nil {
		return Page[RootBinding]{}, err
	}
	rows, err := a.cfg.Custody.Bindings(ctx, by, org)
	return page(rows, "", bindingOf), err
}

func (a *API) bind(ctx context.Context, by account.Actor, in *newBindingInput) (RootBinding, error) {
	n, err := a.newBinding(ctx, by, in)
	if err != nil {
		return RootBinding{}, err
	}
	b, err := a.cfg.Custody.Bind(ctx, by, n, account.Agreement{})
	return bindingOf(b), err
}

func (a *API) binding(ctx context.Context, by account.Actor, in *bindingInput) (RootBinding, error) {
	var binding id.Binding
	if err := parseID(&binding, in.Binding); err != nil {
		return RootBinding{}, err
	}
	b, err := a.cfg.Custody.Binding(ctx, by, binding)
	return bindingOf(b), err
}

func (a *API) unbind(ctx context.Context, by account.Actor, in *bindingInput) error {
	var binding id.Binding
	if err := parseID(&binding, in.Binding); err != nil {
		return err
	}
	return a.cfg.Custody.Unbind(ctx, by, binding, account.Agreement{})
}

func (a *API) migrate(ctx context.Context, by account.Actor, in *bindingInput) (RootBinding, error) {
	var binding id.Binding
	if err := parseID(&binding, in.Binding); err != nil {
		return RootBinding{}, err
	}
	b, err := a.cfg.Custody.Migrate(ctx, by, binding)
	return bindingOf(b), err
}

func (a *API) doubt(ctx context.Context, by account.Actor, in *bindingInput) error {
	var binding id.Binding
	if err := parseID(&binding, in.Binding); err != nil {
		return err
	}
	return a.cfg.Custody.Doubt(ctx, by, binding)
}

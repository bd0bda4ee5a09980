package workos

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/integration"
	"github.com/ambit-dev/ambit/internal/vault"
)

// events are the actions of the audit that this wire tells of, by its names for
// them. Those that only Ambit has are named in the same way.
func events() map[string][]string {
	all := connection.Changes()
	for event, actions := range vaultEvents() {
		all[event] = actions
	}
	for event, actions := range pipesEvents() {
		all[event] = actions
	}
	return all
}

// pipesEvents are the names that Pipes has for some of what Ambit tells of
// connections by names of its own; who asks for these gets them in that shape.
func pipesEvents() map[string][]string {
	return map[string][]string{
		pipesPrefix + "connected":              {"connection.connected", "connection.reconnected", "connection.recovered"},
		pipesPrefix + "reauthorization_needed": {"connection.needs_reauthorization"},
		pipesPrefix + "disconnected":           {"connection.disconnected"},
		pipesFailed:                            {"connection.refused"},
	}
}

const (
	pipesPrefix = "pipes.connected_account."
	pipesFailed = pipesPrefix + "connection_failed"
)

func vaultEvents() map[string][]string {
	return map[string][]string{
		"vault.data.created":       {"secret.created"},
		"vault.data.read":          {"secret.read", "secret.used"},
		"vault.data.updated":       {"secret.updated", "secret.restored"},
		"vault.data.deleted":       {"secret.deleted"},
		"vault.data.undeleted":     {"secret.undeleted"},
		"vault.data.purged":        {"secret.purged"},
		"vault.data.expires_soon":  {"secret.expires_soon"},
		"vault.data.expired":       {"secret.expired"},
		"vault.data.rotation_soon": {"secret.rotation_soon"},
		"vault.data.rotation_due":  {"secret.rotation_due"},
		"vault.metadata.read":      {"secret.described"},
		"vault.metadata.updated":   {"secret.edited"},
		"vault.names.listed":       {"secret.listed"},
		"vault.kek.created":        {"key.created"},
		"vault.kek.deleted":        {"key.shredded"},
		"vault.dek.read":           {"data_key.created", "data_key.rekeyed"},
		"vault.dek.decrypted":      {"data_key.decrypted"},
	}
}

// eventOf is the inverse of events.
func eventOf(action string) string {
	for event, actions := range events() {
		if slices.Contains(actions, action) && !strings.HasPrefix(event, pipesPrefix) {
			return event
		}
	}
	return ""
}

// pipesEventOf is the name that Pipes has for an action, if it was asked for.
func pipesEventOf(action string, asked []string) string {
	for event, actions := range pipesEvents() {
		if slices.Contains(asked, event) && slices.Contains(actions, action) {
			return event
		}
	}
	return ""
}

// event is one of the wire. Its data say more than theirs: whose agent, person and
// session it was, where there are any.
type event struct {
	Object  string         `json:"object"`
	ID      id.Event       `json:"id"`
	Event   string         `json:"event"`
	Data    map[string]any `json:"data"`
	Created string         `json:"created_at"`
	Context map[string]any `json:"context"`
}

// listEvents answers oldest first, so that who asks again after the last event
// that it has gets those that came since.
func (s *Server) listEvents(ctx context.Context, c vault.Caller, r *http.Request) (answer, error) {
	f, asked, err := s.eventFilter(ctx, c, r.URL.RawQuery)
	if err != nil {
		return answer{}, err
	}
	out := struct {
		Object   string       `json:"object"`
		Data     []event      `json:"data"`
		Metadata listMetadata `json:"list_metadata"`
	}{"list", []event{}, listMetadata{}}
	if len(f.Actions) == 0 { // asked for events of other products only
		return answer{http.StatusOK, out}, nil
	}
	page, err := s.audit.List(ctx, f)
	if err != nil {
		return answer{}, err
	}
	var about []id.Connection
	for _, rec := range page.Records {
		if rec.Connection != "" && pipesEventOf(rec.Action, asked) != "" {
			about = append(about, rec.Connection)
		}
	}
	var accounts map[id.Connection]integration.Described
	if len(about) > 0 {
		if accounts, err = s.integrations.Described(ctx, c.Environment, about); err != nil {
			return answer{}, err
		}
	}
	for _, rec := range page.Records {
		if rec.Decision == "deny" && pipesEventOf(rec.Action, asked) != pipesFailed {
			continue
		}
		if name := pipesEventOf(rec.Action, asked); name != "" {
			out.Data = append(out.Data, event{Object: "event", ID: rec.ID, Event: name, Data: pipesData(name, rec, accounts), Created: stamp(rec.Time), Context: map[string]any{}})
			continue
		}
		// What a key may not list, it does not hear of either.
		if rec.Connection != "" && strings.HasPrefix(eventOf(rec.Action), "connection.") || c.Reach.Lists(rec.Detail["name"], keyContext(rec)) {
			out.Data = append(out.Data, wireEvent(rec))
		}
	}
	if page.Next != "" {
		out.Metadata.After = cursorOf(string(page.Records[len(page.Records)-1].ID))
	}
	return answer{http.StatusOK, out}, nil
}

func (s *Server) eventFilter(ctx context.Context, c vault.Caller, raw string) (f audit.Filter, asked []string, err error) {
	bad := func(name string) error {
		return fault.New(fault.Invalid, "invalid_parameter", "The parameter "+name+" is not valid.")
	}
	query, err := url.ParseQuery(raw)
	if err != nil {
		return audit.Filter{}, nil, bad("query")
	}
	f = audit.Filter{Environment: c.Environment, Organization: c.Organization, Oldest: true, Happened: true, Limit: 10}
	for _, name := range slices.Concat(query["events"], query["events[]"]) {
		for part := range strings.SplitSeq(name, ",") {
			asked = append(asked, strings.TrimSpace(part))
			f.Actions = append(f.Actions, events()[strings.TrimSpace(part)]...)
		}
	}
	f.Happened = !slices.Contains(asked, pipesFailed) // which tells of what was refused
	slices.Sort(f.Actions)
	f.Actions = slices.Compact(f.Actions)
	if len(query["events"])+len(query["events[]"]) == 0 {
		return f, nil, unprocessable{fault.New(fault.Invalid, "missing_field", "events is required.")}
	}
	if v := query.Get("limit"); v != "" {
		if f.Limit, err = strconv.Atoi(v); err != nil || f.Limit < 1 {
			return f, nil, bad("limit")
		}
		f.Limit = min(f.Limit, 100)
	}
	for name, at := range map[string]*time.Time{"range_start": &f.Since, "range_end": &f.Until} {
		if v := query.Get(name); v != "" {
			if *at, err = time.Parse(time.RFC3339, v); err != nil {
				return f, nil, bad(name)
			}
		}
	}
	switch v := query.Get("order"); v {
	case "", "asc", "desc":
		f.Oldest = v != "desc"
	default:
		return f, nil, bad("order")
	}
	if v := query.Get("organization_id"); v != "" {
		var org id.Organization
		if err := parse(&org, v); err != nil || c.Organization != "" && org != c.Organization {
			return f, nil, bad("organization_id")
		}
		f.Organization = org
	}
	if v := query.Get("after"); v != "" {
		if f.After, err = s.audit.After(ctx, c.Environment, v); err != nil {
			return f, nil, err
		}
	}
	return f, asked, nil
}

func wireEvent(r audit.Record) event {
	source := "api"
	if r.Actor.Kind == "user" {
		source = "dashboard"
	}
	data := map[string]any{"actor_id": r.Actor.ID, "actor_source": source, "actor_name": r.Detail["actor_name"]}
	more := map[string]string{"kv_name": r.Detail["name"], "key_id": r.Detail["key_id"], "version_id": r.Detail["version_id"], "organization_id": string(r.Organization),
		"agent_id": string(r.Agent), "user_id": string(r.User), "session_id": string(r.Session), "ip_address": r.Address}
	switch {
	case strings.HasPrefix(r.Action, "connection."), r.Action == "credential.refresh_failed":
		more["connection_id"], more["provider"], more["reason"], more["error_code"] = r.Object, r.Provider, r.Detail["reason"], r.Code
		more["account_label"], more["owner_id"], more["reauthorize_by"] = r.Detail["account"], r.Detail["owner"], r.Detail["reauthorize_by"]
	case strings.HasPrefix(r.Action, "secret."):
		more["kv_id"] = r.Object
	case strings.HasPrefix(r.Action, "key."):
		more["key_id"], more["key_name"] = r.Object, r.Object
	case r.Action == "data_key.created", r.Action == "data_key.rekeyed":
		data["key_ids"] = []string{more["key_id"]}
		delete(more, "key_id")
		more["data_key_id"] = r.Object
	default:
		more["data_key_id"] = r.Object
	}
	for name, v := range more {
		if v != "" {
			data[name] = v
		}
	}
	if items := keyContext(r); items != nil {
		data["key_context"] = items
	}
	return event{Object: "event", ID: r.ID, Event: eventOf(r.Action), Data: data, Created: stamp(r.Time), Context: map[string]any{}}
}

// pipesData is what Pipes tells of a connected account, or of one that was not
// connected.
func pipesData(name string, r audit.Record, accounts map[id.Connection]integration.Described) map[string]any {
	a := accounts[r.Connection]
	slug, user := r.Provider, r.Detail["owner"]
	if a.Integration.Provider.Record.ID != "" {
		slug = a.Integration.Slug()
	}
	data := map[string]any{"data_integration_id": wireID(a.Integration), "provider_slug": slug, "organization_id": cursorOf(string(r.Organization))}
	if name == pipesFailed {
		for member, v := range map[string]any{"object": "connection_failed", "user_id": cursorOf(string(r.User)), "error_code": r.Code, "error_reason": r.Rule,
			"provider_error": nil, "provider_error_description": nil, "created_at": stamp(r.Time)} {
			data[member] = v
		}
		return data
	}
	state := map[string]string{"connected": "connected", "reauthorization_needed": "needs_reauthorization", "disconnected": "disconnected"}[strings.TrimPrefix(name, pipesPrefix)]
	for member, v := range map[string]any{"object": "connected_account", "id": r.Connection, "user_id": cursorOf(user), "scopes": append([]string{}, a.Connection.Scopes...), "state": state,
		"created_at": stamp(a.Connection.CreatedAt), "updated_at": stamp(r.Time)} {
		data[member] = v
	}
	return data
}

// keyContext is that of what an entry is about; nil: none.
func keyContext(r audit.Record) (items map[string]string) {
	if json.Unmarshal([]byte(r.Detail["key_context"]), &items) != nil {
		return nil
	}
	return items
}

package api

import (
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/webhook"
)

// confirmation sends a person whose change needs their agreement to the page
// that asks for exactly this. Every other error stays what it is.
func (a *API) confirmation(err error) error {
	need, ok := errors.AsType[*account.Unproven](err)
	if !ok {
		return err
	}
	return a.browserRequired(pageOf(need.Raise), "This takes your passkey; a command line's stored login is not enough.")
}

// whose says whose keys a change is about, as the forms for keys read it.
func whose(q url.Values, r account.Raise) {
	q.Set("reach", "organization")
	if r.Organization == "" {
		q.Set("reach", "environment")
		q.Set("environment", string(r.Environment))
	}
	if user := r.Facts["user_id"]; user != "" {
		q.Set("user_id", user)
		if r.Organization != "" {
			q.Set("reach", "user")
		}
	}
}

// pageOf is where the web UI asks for a change. The address carries what is
// wanted and no authority: the page says it in words, and takes a proof.
func pageOf(r account.Raise) string {
	q := url.Values{}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	set("org", string(r.Organization))
	path := "/ui/"
	switch r.Action {
	case "user.created":
		path = "/ui/organization/members/new"
		set("role", r.To)
		for _, fact := range []string{"name", "email", "external_id"} {
			set(fact, r.Facts[fact])
		}
	case "member.added", "member.role_changed":
		path = "/ui/organization/members/" + r.Object + "/role"
		set("role", r.To)
	case "member.removed":
		path = "/ui/organization/members/" + r.Object + "/remove"
	case "user.disabled":
		path = "/ui/users/" + r.Object + "/disable"
	case "user.enabled":
		path = "/ui/users/" + r.Object + "/enable"
	case "environment.created":
		path = "/ui/environments/new"
		set("name", r.To)
	case "identity_provider.added":
		path = "/ui/organization/signin" // where the client secret is typed
		set("name", r.Facts["name"])
		set("issuer", r.To)
		set("client_id", r.Facts["client_id"])
		if r.Facts["admits"] == account.Admitting {
			set("admits", "yes")
		}
	case "agent.enabled":
		path = "/ui/agents/" + r.Object + "/enable"
	case "agent.keys_changed":
		path = "/ui/agents/" + r.Object
	case "agent.ceiling_changed":
		path = "/ui/agents/" + r.Object + "/ceiling"
		set("version", strconv.FormatInt(r.Version, 10))
		var c policy.Ceiling
		_ = json.Unmarshal([]byte(r.To), &c) // as the room made it
		set("providers", strings.Join(c.Providers, ","))
		for _, e := range policy.Effects() {
			if len(c.Effects) == 0 || slices.Contains(c.Effects, e) {
				q.Add("effect", string(e))
			}
		}
	case "settings.changed", "policy.changed":
		path = "/ui/rules" // where it is filled in: it is more than an address holds
	case "root_key.bound":
		path = "/ui/keys/bind"
		set("uri", r.To)
		set("mode", r.Facts["mode"])
		whose(q, r)
	case "root_key.unbound":
		path = "/ui/bindings/" + r.Facts["binding"] + "/end"
	case "key.shredded":
		path = "/ui/keys/shred"
		whose(q, r)
		if strings.HasPrefix(r.Object, "kek_") {
			set("key", r.Object)
		}
	case "webhook.created":
		path = "/ui/webhooks/new"
		if r.Organization == "" {
			set("reach", "environment")
		}
		set("form", r.Facts["form"])
		if r.Facts["form"] != string(webhook.FormSlack) { // whose address is a secret, and typed there
			set("url", r.To)
		}
		set("description", r.Facts["description"])
		q["event"] = strings.Fields(r.Facts["events"])
	case "webhook.updated":
		path = "/ui/webhooks/" + r.Object
		if r.Facts["form"] != string(webhook.FormSlack) { // as above; of the others, all that is to be confirmed
			path += "/edit"
			set("url", r.To)
			set("description", r.Facts["description"])
			q["event"] = strings.Fields(r.Facts["events"])
		}
	case "webhook.rotated":
		path = "/ui/webhooks/" + r.Object + "/rotate"
		set("overlap", r.Facts["overlap"])
	case "connection.reconnected":
		path = "/ui/connections/new"
		set("reconnect", r.Object)
		set("provider", r.Facts["provider"])
	}
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return path
}

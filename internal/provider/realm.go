package provider

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Realm is the token server of a registry of container images (the distribution
// project's token authentication). A registry takes no password: at the realm, which
// often is another host, the password buys a token that opens one repository for a few
// minutes. Here every request buys its own, for exactly what it is a request for, so
// that no client is asked to, and none is ever handed a token.
type Realm struct {
	URL     string `yaml:"url"`
	Service string `yaml:"service"` // its name for the registry
}

// fieldRealm is a token of a realm, among the values of one request.
const fieldRealm = "realm_token"

// buys reports that a request at a base needs a token of a realm.
func (r Record) buys(base *url.URL) bool {
	return r.Injection.Realm != nil && (outbound.Bound{Bases: r.API.Base}).Contains(base)
}

// bought is cred with a token for one request, where the record has a realm.
func (r Record) bought(ctx context.Context, client *outbound.Client, pinned string, out *http.Request, cred Credential) (Credential, error) {
	if !r.buys(out.URL) {
		return cred, nil
	}
	u, err := url.Parse(pinned)
	if err != nil || pinned == "" {
		return cred, fault.New(fault.Conflict, "record_invalid", "The connection has no place where its credential buys a token.").WithHint("Reconnect.")
	}
	u.RawQuery = url.Values{"service": {r.Injection.Realm.Service}, "scope": registryScopes(out.Method, out.URL)}.Encode()
	ask := &http.Request{Method: http.MethodGet, URL: u, Header: http.Header{"Accept": {"application/json"}}}
	if err := r.Injection.Basic.put(ask, cred, &formSet{}); err != nil {
		return cred, err
	}
	resp, err := client.Do(ctx, outbound.Bound{Bases: []string{pinned}, Party: cred.Party}, ask, outbound.Limits{Body: 256 << 10, Timeout: 30 * time.Second})
	status, answered := outbound.Answered(err)
	if err == nil {
		status = resp.Status
	} else if !answered {
		return cred, err
	}
	if status == http.StatusUnauthorized {
		return cred, credentialRefused()
	}
	token, ok := "", false
	if err == nil && status == http.StatusOK {
		if token, ok = fieldText(resp.Body, "token"); !ok {
			token, ok = fieldText(resp.Body, "access_token") // the other name that the specification has
		}
	}
	if !ok {
		return cred, fault.New(fault.Unavailable, "upstream_error", "The provider's token server gave no token for this request; it answered with status "+strconv.Itoa(status)+".").
			WithHint("Nothing was sent. The account may have no access to this repository.").With("status", strconv.Itoa(status))
	}
	values := maps.Clone(cred.Values)
	values[fieldRealm] = secret.FromString(token)
	cred.Values = values
	return cred, nil
}

// repositoryPart is one part of a repository's name.
var repositoryPart = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$`)

// registryScopes are what a request to a registry needs, as registries themselves ask
// for it in their challenges. What names no repository needs none.
func registryScopes(method string, u *url.URL) []string {
	path, ok := strings.CutPrefix(u.EscapedPath(), "/v2/")
	if !ok {
		return nil
	}
	if path = strings.TrimSuffix(path, "/"); path == "_catalog" {
		return []string{"registry:catalog:*"}
	}
	parts := strings.Split(path, "/")
	n := len(parts)
	var name []string
	upload := false
	switch {
	case n > 3 && parts[n-3] == "blobs" && parts[n-2] == "uploads":
		name = parts[:n-3]
	case n > 2 && parts[n-2] == "blobs":
		name, upload = parts[:n-2], parts[n-1] == "uploads"
	case n > 2 && (parts[n-2] == "manifests" || parts[n-2] == "referrers" || parts[n-2] == "tags" && parts[n-1] == "list"):
		name = parts[:n-2]
	}
	whole := func(name []string) bool {
		return len(name) > 0 && !slices.ContainsFunc(name, func(p string) bool { return !repositoryPart.MatchString(p) })
	}
	if !whole(name) {
		return nil
	}
	actions := "pull,push"
	switch method {
	case http.MethodGet, http.MethodHead:
		actions = "pull"
	case http.MethodDelete:
		actions = "delete"
	}
	out := []string{"repository:" + strings.Join(name, "/") + ":" + actions}
	if from := u.Query().Get("from"); upload && method == http.MethodPost && whole(strings.Split(from, "/")) { // a layer of another repository
		out = append(out, "repository:"+from+":pull")
	}
	return out
}

func (r *Record) lintRealm(l *linter) {
	in := r.Injection
	if in.Realm == nil {
		return
	}
	if in.Basic == nil || r.MCP != nil {
		l.add("inject.realm", "Set inject.basic, or remove it.", "A token server takes a user name and a password.")
	}
	l.url("inject.realm.url", in.Realm.URL, true)
	l.text("inject.realm.service", in.Realm.Service, 200, true, false)
}

// opens reports whether a base is one where answers of the API lead, and no credential
// goes.
func (a API) opens(base string) bool { return slices.Contains(a.Open, base) }

func (r *Record) lintOpen(l *linter) {
	if len(r.API.Open) == 0 {
		return
	}
	r.lintBases(l, "api.open", r.API.Open)
	for i, b := range r.API.Open {
		if slices.Contains(r.API.Base, b) || r.API.Git.has(b) {
			l.add(fmt.Sprintf("api.open[%d]", i), "Name it once.", "The credential goes to this base.")
		}
	}
	if r.Auth == Database || !r.Generic.Read {
		l.add("api.open", "Set generic.read, or remove it.", "Only the generic tool that reads asks there.")
	}
}

// onlyDownload refuses at a place without a credential whatever is no download.
func (r Record) onlyDownload(d *dissected) error {
	if !r.API.opens(d.base) || (d.method == http.MethodGet || d.method == http.MethodHead) && len(d.raw.Body) == 0 && d.raw.Whole && !d.raw.Socket {
		return nil
	}
	return fault.New(fault.Denied, "not_granted", "At this host only downloads pass.").WithHint("Use the provider's API for anything else.")
}

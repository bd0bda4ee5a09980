package openapi

import (
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// auth decides how the record authorizes: by the first scheme, in the order in
// which the description asks for them, that a record can hold alone.
func (d *draft) auth() {
	var schemes openapi3.SecuritySchemes
	if d.doc.Components != nil {
		schemes = d.doc.Components.SecuritySchemes
	}
	var order []string
	add := func(requirements openapi3.SecurityRequirements) {
		for _, r := range requirements {
			names := slices.Sorted(maps.Keys(r))
			if len(names) == 1 && !slices.Contains(order, names[0]) {
				order = append(order, names[0])
			}
		}
	}
	add(d.doc.Security)
	for _, path := range slices.Sorted(maps.Keys(d.doc.Paths.Map())) {
		if item := d.doc.Paths.Value(path); item != nil {
			for _, method := range methods {
				if op := item.GetOperation(method); op != nil && op.Security != nil {
					add(*op.Security)
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(schemes)) {
		if !slices.Contains(order, name) {
			order = append(order, name)
		}
	}
	for _, name := range order {
		ref := schemes[name]
		if ref == nil || ref.Value == nil {
			continue
		}
		where := "security scheme " + oneLine(name, 60)
		if d.scheme != "" {
			d.left(where, "A record has one kind of credential, and "+oneLine(d.scheme, 60)+" comes first.")
			continue
		}
		if why := d.take(ref.Value); why != "" {
			d.left(where, why)
			continue
		}
		d.scheme = name
	}
	if d.scheme == "" {
		d.out.Auth, d.out.Inject = "api_key", &inject{Header: "Authorization", Format: "Bearer {api_key}"}
		d.flag("credential", "The description names no credential that a record can hold, so that a key sent as Bearer is assumed.")
	}
}

// take puts a scheme into the record, or says why it cannot.
func (d *draft) take(s *openapi3.SecurityScheme) (why string) {
	switch s.Type {
	case "apiKey":
		if !plainName(s.Name) {
			return "Its name is no plain name."
		}
		switch s.In {
		case "header":
			d.out.Inject = &inject{Header: s.Name, Format: "{api_key}"}
			if strings.EqualFold(s.Name, "Authorization") {
				d.flag("credential", "The key is sent as it is in Authorization; look up whether a word such as Bearer belongs before it.")
			}
		case "query":
			d.out.Inject = &inject{Query: s.Name, Format: "{api_key}"}
		default:
			return "A record sends no credential in a cookie."
		}
		d.out.Auth = "api_key"
	case "http":
		switch strings.ToLower(s.Scheme) {
		case "bearer":
			d.out.Inject = &inject{Header: "Authorization", Format: "Bearer {api_key}"}
		case "basic":
			d.out.Inject = &inject{Basic: &basic{Username: "{username}", Password: "{password}"}}
		default:
			return "A record does not know this scheme of HTTP."
		}
		d.out.Auth = "api_key"
	case "oauth2":
		return d.oauth(s.Flows)
	default:
		return "A record does not know this kind."
	}
	return ""
}

func (d *draft) oauth(flows *openapi3.OAuthFlows) (why string) {
	if flows == nil || flows.AuthorizationCode == nil {
		return "A record knows only the flow with a code, in which a person signs in."
	}
	f := flows.AuthorizationCode
	if d.whoAmI() == nil {
		return "A record of OAuth needs a call that tells whose account it is, and none was found."
	}
	o := &oauth{AuthorizeURL: d.absolute(f.AuthorizationURL), TokenURL: d.absolute(f.TokenURL)}
	if o.AuthorizeURL == "" || o.TokenURL == "" {
		return "Its addresses are not of a place on the web."
	}
	if refresh := d.absolute(f.RefreshURL); refresh != "" && refresh != o.TokenURL {
		o.Refresh = &refreshing{URL: refresh}
	}
	o.Scopes = &scopes{}
	for _, id := range slices.Sorted(maps.Keys(f.Scopes)) {
		if !plainScope(id) {
			d.left("scope "+oneLine(id, 60), "It is no scope that a record can hold.")
			continue
		}
		title := oneLine(f.Scopes[id], 200)
		if title == "" {
			title = id
		}
		o.Scopes.Catalog = append(o.Scopes.Catalog, scope{ID: id, Title: title, Risk: riskOf(id)})
	}
	d.out.Auth, d.out.OAuth = "oauth2", o
	d.flag("credential", "How the client's secret is sent, whether PKCE is taken and where tokens are given back are not in a description: see the provider's own.")
	if len(o.Scopes.Catalog) > 0 {
		d.flag("scopes", "The risk of each scope was guessed from its name.")
	}
	return ""
}

func riskOf(id string) string {
	for _, w := range wordsOf(id) {
		switch w {
		case "admin", "manage", "delete", "all", "full", "owner", "root":
			return "admin"
		case "write", "create", "update", "edit", "modify", "send", "post":
			return "write"
		}
	}
	for _, w := range wordsOf(id) {
		switch w {
		case "read", "readonly", "view", "list", "get", "profile", "email", "openid":
			return "read"
		}
	}
	return "write"
}

// whoAmI finds the call that tells whose account a credential opens.
func (d *draft) whoAmI() *identity {
	for _, path := range []string{"/me", "/user", "/users/me", "/user/me", "/userinfo", "/whoami", "/account", "/v1/me", "/v1/user", "/v1/users/me", "/v1/userinfo", "/v1/account"} {
		item := d.doc.Paths.Value(path)
		if item == nil || item.Get == nil {
			continue
		}
		props := map[string]bool{}
		eachAnswer(item.Get, func(name string) { props[name] = true })
		who := &identity{Path: path}
		for _, name := range []string{"id", "sub", "user_id", "userId", "uuid", "account_id"} {
			if props[name] {
				who.ID = name
				break
			}
		}
		for _, name := range []string{"email", "login", "username", "name", "display_name"} {
			if props[name] {
				who.Label = name
				break
			}
		}
		if who.ID != "" {
			return who
		}
	}
	return nil
}

// server decides where calls go: the first server that the description names,
// and no other, for the credential goes there.
func (d *draft) server(given string) error {
	if given != "" {
		base := d.absolute(given)
		if base == "" {
			return invalid("The server "+quoted(given)+" is no address of a place on the web.", "Write it as https://api.example.com/v1.")
		}
		d.base = base
	}
	for _, s := range d.doc.Servers {
		if s == nil {
			continue
		}
		text := s.URL
		var filled []string
		for _, name := range slices.Sorted(maps.Keys(s.Variables)) {
			if v := s.Variables[name]; v != nil {
				text = strings.ReplaceAll(text, "{"+name+"}", v.Default)
				filled = append(filled, oneLine(name, 40)+" as "+quoted(v.Default))
			}
		}
		where := "server " + oneLine(s.URL, 100)
		base := d.absolute(text)
		switch {
		case base == "":
			d.left(where, "It is no address of a place on the web.")
		case d.base != "" && base != d.base:
			d.left(where, "The credential goes to one server; add it to api.base if it may go there, too.")
		case d.base == "":
			d.base = base
			if len(filled) > 0 {
				d.flag(where, "It has parameters, which were filled in: "+strings.Join(filled, ", ")+".")
			}
			if strings.HasPrefix(base, "http:") {
				d.flag(where, "It is not reached by https, so that the operator has to allow it.")
			}
		}
	}
	if d.base == "" {
		if u, err := url.Parse(d.options.Source); err == nil && u.Host != "" {
			d.base = d.absolute(u.Scheme + "://" + u.Host)
			d.flag("server", "The description names none, so that the place where it was read is assumed.")
		}
	}
	if d.base == "" {
		return invalid("The description names no server that calls could go to.", "Say which with the server's address.")
	}
	return nil
}

// absolute writes an address in full, as a record takes it; empty when it is
// none.
func (d *draft) absolute(text string) string {
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil || text == "" {
		return ""
	}
	if !u.IsAbs() {
		source, err := url.Parse(d.options.Source)
		if err != nil || source.Host == "" {
			return ""
		}
		u = source.ResolveReference(u)
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(u.Path, "{}") {
		return ""
	}
	return strings.TrimRight(u.String(), "/")
}

package sandbox

import (
	"html/template"
	"net/http"
	"net/url"
)

type signInPage struct {
	Accounts []account
	Scopes   []string
	Hidden   url.Values
}

const pageStyle = `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Sandbox</title><style>
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 3rem auto; padding: 0 1rem; color: #23201b; background: #fbf8f1 }
form { border: 1px solid #d8cfbb; border-radius: .5rem; padding: 1rem 1.25rem; margin: 1rem 0; background: #fff }
fieldset { border: 0; padding: 0; margin: .75rem 0 } label { display: block } code { font-size: .95em }
button { font: inherit; padding: .45rem 1rem; border-radius: .35rem; border: 1px solid #8a5a00; background: #8a5a00; color: #fff; cursor: pointer }
button[value=deny] { background: none; color: #8a5a00 }
</style>`

func (s *Server) authorizePage(w http.ResponseWriter, r *http.Request) {
	a, ok := s.readAuthRequest(w, r, r.URL.Query())
	if !ok {
		return
	}
	page := signInPage{Accounts: accounts[:], Scopes: a.Scopes, Hidden: url.Values{}}
	for _, name := range []string{"client_id", "redirect_uri", "response_type", "scope", "state", "code_challenge", "code_challenge_method"} {
		page.Hidden.Set(name, r.URL.Query().Get(name))
	}
	render(w, signIn(), page)
}

func signIn() *template.Template {
	return template.Must(template.New("sign-in").Parse(pageStyle + `
<main><h1>Sandbox: sign in</h1>
<p>An application asks for access to an account here. Choose whose, and untick what it should not get.</p>
{{range .Accounts}}<form method="post" action="/oauth/authorize">
<h2>{{.Name}}</h2><p>{{.Email}}</p>
{{range $name, $values := $.Hidden}}{{range $values}}<input type="hidden" name="{{$name}}" value="{{.}}">
{{end}}{{end}}<input type="hidden" name="account" value="{{.Email}}">
<fieldset><legend>Access</legend>
{{range $.Scopes}}<label><input type="checkbox" name="grant" value="{{.}}" checked> <code>{{.}}</code></label>
{{end}}</fieldset>
<button name="decision" value="allow">Sign in as {{.Email}}</button>
<button name="decision" value="deny">Deny</button>
</form>{{end}}</main></html>`))
}

func (s *Server) home(w http.ResponseWriter, _ *http.Request) {
	render(w, template.Must(template.New("home").Parse(pageStyle+`
<main><h1>Sandbox</h1><p>A small issue tracker to try things on. It forgets everything when it stops.
Its OAuth metadata is at <a href="/.well-known/oauth-authorization-server"><code>/.well-known/oauth-authorization-server</code></a>,
its API starts at <code>/issues</code>.</p></main></html>`)), nil)
}

func render(w http.ResponseWriter, t *template.Template, data any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'")
	w.Header().Set("Referrer-Policy", "no-referrer")
	_ = t.Execute(w, data)
}

package web

import (
	"net/http"
	"net/url"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/secret"
)

// cookie carries a browser's login token. Under https its name binds it to the
// exact host, path / and TLS; plain http is only ever the person's own machine,
// where browsers refuse that prefix (threats.md W2).
type cookie struct {
	name   string
	secure bool
}

func newCookie(public *url.URL) cookie {
	if public.Scheme == "https" {
		return cookie{name: "__Host-ambit", secure: true}
	}
	return cookie{name: "ambit"}
}

func (c cookie) set(w http.ResponseWriter, token secret.Value) {
	http.SetCookie(w, c.with(reveal(token), int(account.LoginAge.Seconds())))
}

func (c cookie) clear(w http.ResponseWriter) { http.SetCookie(w, c.with("", -1)) }

// Lax, not Strict: a person comes here from an agent's link and back from a
// provider, and must be known then. No such request changes anything of theirs.
func (c cookie) with(value string, age int) *http.Cookie {
	return &http.Cookie{Name: c.name, Value: value, Path: "/", MaxAge: age, Secure: c.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

// token reads the cookie; two of one name are nobody's.
func (c cookie) token(r *http.Request) (secret.Value, bool) {
	found := r.CookiesNamed(c.name)
	if len(found) != 1 || found[0].Value == "" {
		return secret.Value{}, len(found) > 0
	}
	return secret.FromString(found[0].Value), true
}

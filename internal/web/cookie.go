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

// tokens reads the cookies of the name. On plain http any program behind another
// port of the host can plant more, for other paths, of which as many reach a page
// as its path has parts, and twice that (RFC 6265 §5.4).
func (c cookie) tokens(r *http.Request) (found []secret.Value, sent bool) {
	for _, k := range r.CookiesNamed(c.name) {
		if sent = true; k.Value != "" && len(found) < maxCookies {
			found = append(found, secret.FromString(k.Value))
		}
	}
	return found, sent
}

const maxCookies = 20

package provider

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// forbiddenHeader lists what no record and no argument may set: credentials,
// what belongs to the connection, and what makes a server see another method,
// host or sender than the request's own.
func forbiddenHeader(name string) bool {
	name = strings.ToLower(name)
	for _, prefix := range []string{"proxy-", "cookie", "set-cookie", "x-forwarded-", "x-http-method", "x-method-override", "sec-", "x-original-", "x-rewrite-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return slices.Contains([]string{"authorization", "host", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
		"expect", "content-length", "content-encoding", "accept-encoding", "forwarded", "via", "x-real-ip", "origin", "referer", "www-authenticate"}, name)
}

// argumentHeader lists the headers whose value may come from an argument.
func argumentHeader(name string) bool {
	return slices.Contains([]string{"accept-language", "idempotency-key", "if-match", "if-none-match", "if-modified-since",
		"if-unmodified-since", "prefer", "range"}, strings.ToLower(name))
}

// overridesMethod names the parameters by which frameworks let a body or query
// replace the request's method, as they read them: PHP trims a name, cuts it at
// NUL and turns brackets, dots and blanks into underscores; others take
// _method[] apart.
func overridesMethod(name string) bool {
	name, _, _ = strings.Cut(strings.TrimLeft(norm.NFKC.String(name), "\x00"), "\x00")
	name = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || strings.ContainsRune("[].-_", r) {
			return '_'
		}
		return unicode.ToLower(r)
	}, name)
	leading := strings.HasPrefix(name, "_") // a plain "method" is a name like any other
	name = strings.Join(strings.FieldsFunc(name, func(r rune) bool { return r == '_' }), "_")
	return leading && name == "method" || slices.Contains([]string{"x_http_method", "http_method", "x_http_method_override", "http_method_override", "x_method_override",
		"method_override", "httpmethod", "methodoverride", "xhttpmethodoverride"}, name)
}

// OverridesMethod reports whether a server may take a parameter or field of this
// name for the request's method. No tool can have one.
func OverridesMethod(name string) bool { return overridesMethod(name) }

// plainName reports whether a parameter's name is one that every reader on the
// way takes for the same.
func plainName(name string) bool {
	return utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == utf8.RuneError })
}

// answerHeader keeps what an agent can use. Everything else stays here:
// cookies, challenges, and whatever an upstream invents.
func answerHeader(from http.Header, at *url.URL, red *Redactor) http.Header {
	out := http.Header{}
	for name, values := range from {
		if !passes(name) || red.Finds([]byte(name)) {
			continue
		}
		for _, v := range values {
			if name == "Link" && !sameHostLinks(v, at) {
				continue
			}
			out.Add(name, string(red.Text([]byte(v))))
		}
	}
	return out
}

func passes(name string) bool {
	switch name = strings.ToLower(name); name {
	case "content-type", "content-language", "content-range", "content-disposition", "etag", "last-modified", "link", "retry-after",
		"x-request-id", "request-id", "x-correlation-id", "x-github-request-id", "x-amzn-requestid", "x-total-count", "ratelimit", "ratelimit-policy":
		return true
	}
	return strings.HasPrefix(name, "x-ratelimit-") || strings.HasPrefix(name, "ratelimit-")
}

// sameHostLinks reports whether every target of a Link header (RFC 8288) lies on
// the host that answered. A header that cannot be read does not pass.
func sameHostLinks(v string, at *url.URL) bool {
	for v = strings.TrimSpace(v); v != ""; {
		rest, ok := strings.CutPrefix(v, "<")
		if !ok {
			return false
		}
		target, params, ok := strings.Cut(rest, ">")
		if !ok || !sameHost(target, at) {
			return false
		}
		_, v = cutUnquoted(params, ',')
		v = strings.TrimSpace(v)
	}
	return true
}

// cutUnquoted cuts at the first sep outside double quotes.
func cutUnquoted(s string, sep byte) (before, after string) {
	inside := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && inside:
			i++
		case s[i] == '"':
			inside = !inside
		case s[i] == sep && !inside:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

func sameHost(target string, at *url.URL) bool {
	if strings.ContainsAny(target, "\\\t\r\n") {
		return false
	}
	u, err := at.Parse(target)
	return err == nil && u.User == nil && u.Scheme == at.Scheme && strings.EqualFold(u.Host, at.Host)
}

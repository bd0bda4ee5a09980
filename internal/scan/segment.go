package scan

import (
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// hiddenText stands for what no output may hold.
const hiddenText = "••••••"

// seen makes a text of others one that cannot act on a terminal or lie about its order:
// what controls, and what formats without being seen, is shown as a mark.
func seen(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) {
			return '�'
		}
		return r
	}, s)
}

// variable matches the name of a variable, which looks random when it is full of numbers.
var variable = lazily(`^[A-Z][A-Z0-9]{0,11}(?:_[A-Z0-9]{1,12})+$`)

// name takes out of a key path what may itself be a key: maps whose keys are tokens
// are common, and a text holds any word before its sign of equality.
func (h *hider) name(s string) string {
	s = h.hide(seen(s))
	if h == nil || len(s) < 8 {
		return s
	}
	var b strings.Builder
	above := plain
	for len(s) > 0 {
		n := strings.IndexAny(s, ".[]› ")
		if n < 0 {
			n = len(s)
		}
		part := s[:n]
		_, size := utf8.DecodeRuneInString(s[n:])
		if secretPart(part, above) {
			b.WriteString(hiddenText)
		} else {
			b.WriteString(part)
		}
		if part != "" {
			above = classOf(part)
		}
		b.WriteString(s[n : n+size])
		s = s[n+size:]
	}
	return b.String()
}

// secretPart reports whether a part of a key path is likely a secret; above is what the part
// before it tells.
func secretPart(p string, above class) bool {
	if pathLike.MatchString(p) {
		for _, q := range strings.FieldsFunc(p, func(r rune) bool { return r == '/' || r == '\\' }) {
			if namesItself(q) {
				return true
			}
		}
		return false
	}
	switch {
	case len(p) < 8:
		return false
	case above >= telling && (uuid.MatchString(p) || hexOnly.MatchString(p) && len(p) >= 12 || !wordy(p) && passwordLike(p, config)):
		return true
	}
	return random(p, 16) && (len(p) >= 24 || strings.ContainsAny(p, "0123456789")) && !variable.MatchString(p)
}

// path takes out of a path what may itself be a key: what has a form of its own, written
// plainly or as addresses escape it, and what a name says to be one. Any other random name
// stays, since the report would not say where to look.
func (h *hider) path(s string) string {
	s = h.hide(seen(s))
	if h == nil || len(s) < 12 {
		return s
	}
	parts := strings.FieldsFunc(s, func(r rune) bool { return r == '/' || r == '\\' })
	above := plain
	for _, p := range parts {
		if plainText := unescapedPart(p); plainText != p && h.hide(plainText) != plainText || namesItself(p) || above >= telling && secretPart(stem(p), above) {
			s = strings.ReplaceAll(s, p, hiddenText)
		}
		above = classOf(p)
	}
	return s
}

// unescapedPart undoes what %XX hides, twice at most.
func unescapedPart(p string) string {
	for range 2 {
		next, err := url.PathUnescape(p)
		if err != nil {
			return p
		}
		p = next
	}
	return p
}

// stem is a name without what follows its last dot.
func stem(p string) string {
	if i := strings.LastIndexByte(p, '.'); i > 0 {
		return p[:i]
	}
	return p
}

var tellingName = lazily(`(?i)(?:token|secret|key|passw(?:or)?d|passphrase|pat|credential|pwd)s?[-_.=:@ ]+(.+)$`)

// namesItself reports whether a name goes on, after a word that tells, with what looks
// like the thing itself: token-4f….txt.
func namesItself(p string) bool {
	m := tellingName.FindStringSubmatch(p)
	if m == nil {
		return false
	}
	rest := m[1]
	return random(rest, 16) || random(stem(rest), 16)
}

// escapedForms are how a value reads in an address.
func escapedForms(v string) (list []string) {
	for _, e := range []string{url.QueryEscape(v), url.PathEscape(v)} {
		if e != v {
			list = append(list, e)
		}
	}
	return list
}

package openapi

import (
	"strings"
	"unicode"
)

// slug makes an id of a title.
func slug(title string) string {
	s := strings.Join(wordsAndNumbers(title), "_")
	for _, end := range []string{"_api", "_rest", "_openapi"} {
		s = strings.TrimSuffix(s, end)
	}
	s = strings.TrimRight(strings.TrimLeft(s, "0123456789_")[:min(24, len(strings.TrimLeft(s, "0123456789_")))], "_")
	if len(s) < 2 {
		return "imported"
	}
	return s
}

// wordsAndNumbers splits a name into lower-case words of ASCII, at signs and where
// capitals begin a word.
func wordsAndNumbers(s string) []string {
	return split(s, func(r rune) bool { return r < 0x80 && (unicode.IsLetter(r) || unicode.IsDigit(r)) }, false)
}

// plainName reports whether a header or parameter of this name can be sent.
func plainName(s string) bool {
	return s != "" && len(s) <= 100 && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

// plainScope is RFC 6749 §3.3, without the comma that some separate with.
func plainScope(s string) bool {
	return s != "" && len(s) <= 300 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' || r == ',' })
}

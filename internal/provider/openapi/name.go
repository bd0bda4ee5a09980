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
	var out []string
	var word strings.Builder
	end := func() {
		if word.Len() > 0 {
			out = append(out, word.String())
			word.Reset()
		}
	}
	lower := false
	for _, r := range s {
		letter := r < 0x80 && unicode.IsLetter(r)
		if !letter && !(r >= '0' && r <= '9') {
			end()
			lower = false
			continue
		}
		if unicode.IsUpper(r) && lower {
			end()
		}
		lower = unicode.IsLower(r)
		word.WriteRune(unicode.ToLower(r))
	}
	end()
	return out
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

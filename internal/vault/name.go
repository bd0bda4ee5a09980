package vault

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/ambit-dev/ambit/internal/fault"
)

// The limits of named secrets.
const (
	MaxName         = 200     // characters of a name
	MaxValue        = 1 << 20 // bytes of a value
	MaxContextItems = 10
	MaxContextName  = 120 // characters of the name of a key context item
	MaxContextValue = 500 // characters of its value
)

// canonicalName gives the one form under which a name is stored and looked up,
// so that two spellings of one name never name two secrets.
func canonicalName(s string) (string, error) {
	name, ok := plain(s)
	name = strings.TrimSpace(name)
	if n := utf8.RuneCountInString(name); !ok || n < 1 || n > MaxName {
		return "", fault.New(fault.Invalid, "invalid_name", fmt.Sprintf("The name must have 1 to %d characters, none of them a control character.", MaxName))
	}
	return name, nil
}

// folded is the form of a name, or of a part of one, in which it is searched.
func folded(name string) string { return norm.NFC.String(strings.ToLower(name)) }

// canonicalContext gives the one form of a key context that an application
// sent. It refuses one whose names become equal only then.
func canonicalContext(c map[string]string) (map[string]string, error) {
	invalid := func(why string) error {
		return fault.New(fault.Invalid, "invalid_key_context", "The key context is not valid: "+why+".")
	}
	if len(c) > MaxContextItems {
		return nil, invalid(fmt.Sprintf("it has over %d items", MaxContextItems))
	}
	out := make(map[string]string, len(c))
	for k, v := range c {
		name, okName := plain(k)
		value, okValue := plain(v)
		if !okName || !okValue {
			return nil, invalid("it holds a control character")
		}
		if n := utf8.RuneCountInString(name); n < 1 || n > MaxContextName {
			return nil, invalid(fmt.Sprintf("the name of an item must have 1 to %d characters", MaxContextName))
		}
		if utf8.RuneCountInString(value) > MaxContextValue {
			return nil, invalid(fmt.Sprintf("a value has over %d characters", MaxContextValue))
		}
		if _, twice := out[name]; twice {
			return nil, invalid("two of its names are the same text")
		}
		out[name] = value
	}
	return out, nil
}

// plain is s in normalization form C. It is false for text with control
// characters, line separators or marks that turn the direction of writing: they
// make one name look like another.
func plain(s string) (string, bool) {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Bidi_Control)
	}) {
		return "", false
	}
	return norm.NFC.String(s), true
}

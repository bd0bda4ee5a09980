package session

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ambit-dev/ambit/internal/fault"
)

const maxWords = 2000 // bytes of what a person tells the agent

// words is what a person wrote to the agent, in the one form in which it is
// signed, stored, shown and sent: without what the person could not see when
// they wrote or pasted it, since that is nobody's word (threats.md U5).
func words(s string) (string, error) {
	bad := func(message string) (string, error) {
		return "", fault.New(fault.Invalid, "invalid_decision", message).WithHint("Go back to the request and decide again.")
	}
	if !utf8.ValidString(s) {
		return bad("The instructions are not text.")
	}
	if s = inked(s); len(s) > maxWords {
		return bad(fmt.Sprintf("The instructions are over %d bytes.", maxWords))
	}
	return s, nil
}

// reason is words for a denial, which is not refused for being long.
func reason(s string) string {
	if s = inked(strings.ToValidUTF8(s, "\uFFFD")); len(s) > maxWords {
		s = strings.ToValidUTF8(s[:maxWords], "")
	}
	return s
}

// inked drops controls, marks of direction and format, tags, private use and
// the like. Lines stay, and the joiners that letters and emoji are written with.
func inked(s string) string {
	s = strings.NewReplacer("\r\n", "\n", "\r", "\n", "\t", " ").Replace(s)
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == 0x200C, r == 0x200D, r == 0xFE0E, r == 0xFE0F: // joiners, text and emoji form
			return r
		case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs, unicode.Zl, unicode.Zp, unicode.Variation_Selector,
			unicode.Other_Default_Ignorable_Code_Point, unicode.Noncharacter_Code_Point):
			return -1
		}
		return r
	}, s))
}

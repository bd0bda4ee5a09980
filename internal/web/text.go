package web

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"github.com/ambit-dev/ambit/internal/legible"
	"github.com/ambit-dev/ambit/internal/policy"
)

// The limits of the one box in which an agent speaks for itself (threats.md A2).
const (
	maxWords = 280 // graphemes
	maxLines = 3
	maxMarks = 4 // combining marks on one letter
)

// plainWords makes text that somebody else wrote safe to show in one text node:
// at most three lines and 280 graphemes, one space at a time, and whatever
// reorders, hides or joins text written out as its code point.
func plainWords(s string) string {
	short, _ := cutWords(s)
	return short
}

// cutWords is plainWords, and whether that is not all there is.
func cutWords(s string) (words string, short bool) {
	var lines []string
	for line := range strings.SplitSeq(visible(s), "\n") {
		if line = strings.Join(strings.FieldsFunc(line, func(r rune) bool { return r == ' ' }), " "); line != "" {
			lines = append(lines, line)
		}
	}
	cut := len(lines) > maxLines
	if cut {
		lines = lines[:maxLines]
	}
	s = strings.Join(lines, "\n")
	if _, long := firstGraphemes(s, maxWords); long || cut {
		first, _ := firstGraphemes(s, maxWords-1)
		return strings.TrimRight(first, " \n…") + "…", true
	}
	return s, false
}

// visible keeps lines and letters and writes out every other code point that a
// reader could not see or that would change how its neighbours read. It loses
// nothing, so it is fit for what must be shown exactly.
func visible(s string) string {
	s = norm.NFC.String(strings.ToValidUTF8(s, "\uFFFD"))
	s = strings.NewReplacer("\r\n", "\n", "\r", "\n", "\t", " ").Replace(s)
	var b strings.Builder
	marks := 0
	for _, r := range s {
		if unicode.In(r, unicode.Mn, unicode.Me) {
			marks++
		} else {
			marks = 0
		}
		switch {
		case r == '\n', r == ' ':
			b.WriteRune(r)
		case unicode.Is(unicode.Zs, r):
			b.WriteByte(' ')
		case marks > maxMarks, legible.Hidden(r):
			fmt.Fprintf(&b, "⟨U+%04X⟩", r)
			marks = 0
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// exact is visible for a value that a person must be able to read to its end:
// padding that would push the rest out of sight is counted instead.
func exact(s string) string { return eachLine(s, countSpaces) }

// exactCode is exact for a statement: lines keep how far they are set in.
func exactCode(s string) string {
	const most = 24
	return eachLine(s, func(line string) string {
		text := strings.TrimLeft(line, " ")
		if in := len(line) - len(text); in <= most {
			return line[:in] + countSpaces(text)
		}
		return countSpaces(line)
	})
}

// eachLine is visible with each line written by shown, and empty ones that stand
// together counted.
func eachLine(s string, shown func(line string) string) string {
	var out []string
	blank := 0
	flush := func() {
		if blank > 1 {
			out = append(out, "⟨"+plural(blank, "empty line")+"⟩")
		} else if blank == 1 {
			out = append(out, "")
		}
		blank = 0
	}
	for line := range strings.SplitSeq(visible(s), "\n") {
		if strings.TrimSpace(line) == "" {
			blank++
			continue
		}
		flush()
		out = append(out, shown(line))
	}
	flush()
	return strings.Join(out, "\n")
}

// countSpaces writes out how many spaces stand where more than four do.
func countSpaces(line string) string {
	var b strings.Builder
	for line != "" {
		text := strings.TrimLeft(line, " ")
		if n := len(line) - len(text); n > 4 {
			fmt.Fprintf(&b, " ⟨%s⟩ ", plural(n, "space"))
		} else {
			b.WriteString(line[:n])
		}
		end := strings.IndexByte(text, ' ')
		if end < 0 {
			end = len(text)
		}
		b.WriteString(text[:end])
		line = text[end:]
	}
	return b.String()
}

// oneLine is visible for a name or a label.
func oneLine(s string) string { return strings.ReplaceAll(visible(s), "\n", "⟨U+000A⟩") }

// firstGraphemes cuts s after n letters with their marks.
func firstGraphemes(s string, n int) (string, bool) {
	count := 0
	for i, r := range s {
		if i > 0 && unicode.In(r, unicode.Mn, unicode.Me) {
			continue
		}
		if count++; count > n {
			return s[:i], true
		}
	}
	return s, false
}

// short cuts s to n letters.
func short(s string, n int) string {
	if _, long := firstGraphemes(s, n); !long {
		return s
	}
	cut, _ := firstGraphemes(s, n-1)
	return strings.TrimRight(cut, " ") + "…"
}

// verbs says in plain words what a set of effects allows.
func verbs(effects []policy.Effect) string {
	has := map[policy.Effect]bool{}
	for _, e := range effects {
		has[e] = true
	}
	var data []string
	for _, v := range []struct {
		effect policy.Effect
		word   string
	}{{policy.Read, "read"}, {policy.Write, "change"}, {policy.Destructive, "delete"}} {
		if has[v.effect] {
			data = append(data, v.word)
		}
	}
	var parts []string
	if len(data) > 0 {
		parts = append(parts, andList(data)+" data")
	}
	if has[policy.Access] {
		parts = append(parts, "make keys or permissions")
	}
	if len(parts) == 0 {
		return "do nothing"
	}
	return strings.Join(parts, " and ")
}

func andList(words []string) string {
	switch len(words) {
	case 0:
		return ""
	case 1:
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%s %ss", thousands(n), noun)
}

// times says how often.
func times(n int) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	}
	return thousands(n) + " times"
}

func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// span says a number of minutes as a person would.
func span(minutes int) string {
	hours, rest := minutes/60, minutes%60
	switch {
	case hours == 0:
		return plural(rest, "minute")
	case rest == 0:
		return plural(hours, "hour")
	}
	return plural(hours, "hour") + " " + plural(rest, "minute")
}

// ago says a time as seen from now; the browser keeps it up to date.
func ago(now, t time.Time) string {
	d, future := now.Sub(t), false
	if d < 0 {
		d, future = -d, true
	}
	var s string
	switch {
	case d < time.Minute && future:
		return "in a moment"
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		s = plural(int(d/time.Minute), "minute")
	case d < 24*time.Hour:
		s = plural(int(d/time.Hour), "hour")
	default:
		s = plural(int(d/(24*time.Hour)), "day")
	}
	if future {
		return "in " + s
	}
	return s + " ago"
}

// left says how long until t as a clock would.
func left(now, t time.Time) string {
	d := max(t.Sub(now), 0)
	h, m, s := int(d/time.Hour), int(d/time.Minute)%60, int(d/time.Second)%60
	if h > 0 {
		return fmt.Sprintf("%d:%02d:%02d", h, m, s)
	}
	return fmt.Sprintf("%d:%02d", m, s)
}

// took says a duration in at most three digits.
func took(d time.Duration) string {
	switch {
	case d <= 0:
		return ""
	case d < time.Millisecond:
		return "< 1 ms"
	case d < 10*time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%d s", int(d.Seconds()))
}

package web

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/ambit-dev/ambit/internal/policy"
)

// A2: what an agent writes is shown, and cannot steer how it is read.
func TestPlainWords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in, want string }{
		{"plain", "Summarise new issues", "Summarise new issues"},
		{"bidi override", "safe\u202Eevil", "safe⟨U+202E⟩evil"},
		{"isolates", "a\u2066b\u2069", "a⟨U+2066⟩b⟨U+2069⟩"},
		{"zero width", "ap\u200Bprove\uFEFF", "ap⟨U+200B⟩prove⟨U+FEFF⟩"},
		{"tags block", "x\U000E0041", "x⟨U+E0041⟩"},
		{"controls", "a\x00b\x1b[31m\u0085", "a⟨U+0000⟩b⟨U+001B⟩[31m⟨U+0085⟩"},
		{"fillers", "\u3164\u2800", "⟨U+3164⟩⟨U+2800⟩"},
		{"padding", "a \u00a0\u2003\t  b", "a b"},
		{"line separators", "a\u2028b", "a⟨U+2028⟩b"},
		{"blank lines pushed in", "a\n\n\n\n\nb", "a\nb"},
		{"too many lines", "1\n2\n3\n4", "1\n2\n3…"},
		{"markup stays text", "<b onclick=x>hi</b>", "<b onclick=x>hi</b>"},
		{"composed", "e\u0301", "é"},
		{"stacked marks", "a" + strings.Repeat("\u0336", 5), "a" + strings.Repeat("\u0336", 4) + "⟨U+0336⟩"},
		{"broken bytes", "a\xffb", "a\uFFFDb"},
		{"empty", " \n\t ", ""},
	} {
		if got := plainWords(c.in); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	if got := plainWords(strings.Repeat("x", 5000)); utf8.RuneCountInString(got) != maxWords || !strings.HasSuffix(got, "…") {
		t.Errorf("a long text: got %d letters ending in %q, want %d ending in …", utf8.RuneCountInString(got), got[len(got)-3:], maxWords)
	}
}

func FuzzPlainWords(f *testing.F) {
	for _, s := range []string{"", "hello", "a\u202Eb", "e\u0301\u0301", "x\r\ny\rz\n\n", "\U000E0041", strings.Repeat("é\u0336", 400), "⟨U+202E⟩", "a \u0301 b", "\u0301"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := plainWords(s)
		if again := plainWords(got); again != got {
			t.Fatalf("not idempotent: %q became %q", got, again)
		}
		if n := strings.Count(got, "\n"); n >= maxLines {
			t.Fatalf("%d line breaks", n)
		}
		if _, more := firstGraphemes(got, maxWords); more {
			t.Fatalf("longer than %d graphemes", maxWords)
		}
		for _, r := range got {
			if r != '\n' && (unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp) || unicode.Is(unicode.Bidi_Control, r)) {
				t.Fatalf("%U came through in %q", r, got)
			}
		}
	})
}

func TestVerbs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		want    string
		effects []policy.Effect
	}{
		{"read data", []policy.Effect{policy.Read}},
		{"read and change data", []policy.Effect{policy.Write, policy.Read}},
		{"read, change and delete data and make keys or permissions", policy.Effects()},
		{"make keys or permissions", []policy.Effect{policy.Access}},
		{"do nothing", nil},
	} {
		if got := verbs(c.effects); got != c.want {
			t.Errorf("verbs(%v): got %q, want %q", c.effects, got, c.want)
		}
	}
}

// A3: what a call would send is shown to its end, however it is padded.
func TestExact(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in, want string }{
		{"as it is", "a  b\nc", "a  b\nc"},
		{"indented code", "if x {\n    y()\n}", "if x {\n    y()\n}"},
		{"one empty line", "a\n\nb", "a\n\nb"},
		{"pushed down", "a" + strings.Repeat("\n", 501) + "delete everything", "a\n⟨500 empty lines⟩\ndelete everything"},
		{"pushed down with spaces", "a\n \n \n \nb", "a\n⟨3 empty lines⟩\nb"},
		{"pushed aside", "a" + strings.Repeat(" ", 1000) + "b", "a ⟨1,000 spaces⟩ b"},
		{"hidden", "a\u200Bb\r\n\x00", "a⟨U+200B⟩b\n⟨U+0000⟩"},
		{"only spaces", "      ", ""},
	} {
		if got := exact(c.in); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func FuzzExact(f *testing.F) {
	for _, s := range []string{"", " ", "\n\n", "a      b", "é\u0301  \n", "\u202E"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := exact(s)
		if strings.Contains(got, "\n\n\n") || strings.Contains(got, "      ") {
			t.Fatalf("padding came through: %q", got)
		}
		for _, r := range got {
			if r != '\n' && (unicode.In(r, unicode.Cc, unicode.Cf) || unicode.Is(unicode.Bidi_Control, r)) {
				t.Fatalf("%U came through in %q", r, got)
			}
		}
	})
}

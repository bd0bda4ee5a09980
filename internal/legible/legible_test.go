package legible_test

import (
	"testing"

	"github.com/ambit-dev/ambit/internal/legible"
)

// Two texts of the same lines in another order differ, whatever is in them.
func TestDiffShowsSwaps(t *testing.T) {
	t.Parallel()
	var signs string
	for _, l := range legible.Diff("a\nb\nc", "b\na\nc") {
		signs += l.Sign + l.Text
	}
	if signs != "-a b+a c" && signs != "+b a-b c" {
		t.Errorf("got %q", signs)
	}
}

// Code points without ink, by which a text says more than people see (A1).
func TestHidden(t *testing.T) {
	t.Parallel()
	for _, r := range []rune{0xfe00, 0xfe0f, 0xe0100, 0xe01ef, 0x034f, 0x3164, 0x2800, 0xe0041, 0x202e, 0x2066, 0x200b, 0xfeff, 0xad, 0x2028} {
		if !legible.Hidden(r) {
			t.Errorf("%U is taken for visible", r)
		}
	}
	for _, r := range "aé漢😀 ́ß" {
		if legible.Hidden(r) {
			t.Errorf("%U is taken for hidden", r)
		}
	}
}

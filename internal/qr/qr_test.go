package qr_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/qr"
)

const uri = "otpauth://totp/Ambit:mia@example.com?secret=JBSWY3DPEHPK3PXP&issuer=Ambit"

func encode(t *testing.T, text string) qr.Code {
	t.Helper()
	c, err := qr.Encode(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A reader finds a code by its three corners and by the white around it.
func TestCornersAndBorder(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"x", uri, "https://ambit.example.com/ui/approvals/apr_01m858rd3wgn99gqweq9st1rtn", strings.Repeat("long ", 200)} {
		c := encode(t, text)
		if n := c.Side() - 8; n < 21 || (n-17)%4 != 0 {
			t.Fatalf("%.20q: %d modules are no QR code", text, n)
		}
		for y := range c.Side() {
			for x := range c.Side() {
				if in := x >= 4 && y >= 4 && x < c.Side()-4 && y < c.Side()-4; !in && c.Dark(x, y) {
					t.Fatalf("%.20q: the border is dark at %d, %d", text, x, y)
				}
			}
		}
		far := c.Side() - 4 - 7
		for _, corner := range [][2]int{{4, 4}, {far, 4}, {4, far}} {
			for y := range 7 {
				for x := range 7 {
					ring := max(max(x, 6-x), max(y, 6-y)) // 6 and up to 4 are dark, 5 is the white ring
					if got := c.Dark(corner[0]+x, corner[1]+y); got != (ring != 5) {
						t.Fatalf("%.20q: corner %v is wrong at %d, %d", text, corner, x, y)
					}
				}
			}
		}
	}
	if encode(t, "a").Path() == encode(t, "b").Path() {
		t.Error("two texts have one code")
	}
	if _, err := qr.Encode(strings.Repeat("x", 5000)); err == nil {
		t.Error("5000 bytes were taken")
	}
}

// Path and Text draw exactly the modules.
func TestDrawings(t *testing.T) {
	t.Parallel()
	c := encode(t, uri)
	drawn := map[[2]int]bool{}
	run := regexp.MustCompile(`M(\d+) (\d+)h(\d+)v1H(\d+)z`)
	for _, m := range run.FindAllStringSubmatch(c.Path(), -1) {
		x, _ := strconv.Atoi(m[1])
		y, _ := strconv.Atoi(m[2])
		n, _ := strconv.Atoi(m[3])
		if m[4] != m[1] {
			t.Errorf("%s does not close", m[0])
		}
		for i := range n {
			drawn[[2]int{x + i, y}] = true
		}
	}
	if rest := run.ReplaceAllString(c.Path(), ""); rest != "" {
		t.Errorf("the path holds %q", rest)
	}
	for _, colour := range []bool{true, false} {
		text := c.Text(colour)
		if colour != strings.Contains(text, "\x1b[30;107m") {
			t.Errorf("colour %v: %q", colour, text[:20])
		}
		lines := strings.Split(strings.TrimSuffix(strings.NewReplacer("\x1b[30;107m", "", "\x1b[0m", "").Replace(text), "\n"), "\n")
		if len(lines) != (c.Side()+1)/2 {
			t.Fatalf("%d lines for %d rows", len(lines), c.Side())
		}
		for y := range c.Side() {
			row := []rune(lines[y/2])
			for x := range c.Side() {
				inked := row[x] == '█' || row[x] == map[int]rune{0: '▀', 1: '▄'}[y%2]
				if inked != (c.Dark(x, y) == colour) {
					t.Fatalf("colour %v: the terminal shows %q at %d, %d", colour, row[x], x, y)
				}
			}
		}
	}
	for y := range c.Side() {
		for x := range c.Side() {
			if drawn[[2]int{x, y}] != c.Dark(x, y) {
				t.Fatalf("the path is wrong at %d, %d", x, y)
			}
		}
	}
}

// Package legible makes the texts of strangers fit for people to read: which code
// points have no ink of their own, a JSON document on lines, and in what two texts
// differ. A text in which something can hide is a way to mislead whoever agrees to
// it (threats.md A1).
package legible

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode"
)

// Hidden reports code points without ink of their own: controls, format and
// bidi marks, tags, variation selectors, fillers, private use.
func Hidden(r rune) bool {
	switch r {
	case 0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0:
		return true
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs, unicode.Zl, unicode.Zp, unicode.Variation_Selector,
		unicode.Other_Default_Ignorable_Code_Point, unicode.Noncharacter_Code_Point) || !unicode.IsPrint(r) && r != ' '
}

// JSON writes a document on lines, for people to compare. The lines of a text
// within it stand below one another.
func JSON(doc []byte) string {
	var b bytes.Buffer
	if json.Indent(&b, doc, "", "  ") != nil {
		return string(doc)
	}
	return strings.ReplaceAll(b.String(), `\n`, "\\n\n    ")
}

// Line is a line that both texts have (a blank as its sign), or only one of them.
type Line struct{ Sign, Text string }

// maxDiff bounds the lines that are compared one by one.
const maxDiff = 600

// Diff compares two texts by their lines: what both have stands once.
func Diff(was, now string) []Line {
	a, b := strings.Split(was, "\n"), strings.Split(now, "\n")
	if len(a) > maxDiff || len(b) > maxDiff {
		var out []Line
		for _, l := range a {
			out = append(out, Line{"-", l})
		}
		for _, l := range b {
			out = append(out, Line{"+", l})
		}
		return out
	}
	common := make([][]int, len(a)+1) // length of what the rests have in common
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var out []Line
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out = append(out, Line{" ", a[i]})
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			out = append(out, Line{"-", a[i]})
			i++
		default:
			out = append(out, Line{"+", b[j]})
			j++
		}
	}
	return out
}

// Package qr draws QR codes (ISO/IEC 18004) where a person goes on with a phone:
// as the path of an inline SVG, and as text for a terminal.
package qr

import (
	"fmt"
	"image/color"
	"strings"

	"github.com/boombuler/barcode/qr"
)

// quiet is the white border in modules. Readers need it to find the code.
const quiet = 4

// Code is the matrix of a QR code with its border.
type Code struct {
	side int
	dark []bool // row by row
}

// Encode makes the code of a text, with medium error correction. It fails for
// texts of over about 2,300 bytes.
func Encode(text string) (Code, error) {
	bars, err := qr.Encode(text, qr.M, qr.Auto)
	if err != nil {
		return Code{}, fmt.Errorf("making a QR code: %w", err)
	}
	size := bars.Bounds().Dx()
	c := Code{side: size + 2*quiet}
	c.dark = make([]bool, c.side*c.side)
	for y := range size {
		for x := range size {
			c.dark[(y+quiet)*c.side+x+quiet] = color.GrayModel.Convert(bars.At(x, y)).(color.Gray).Y < 128
		}
	}
	return c, nil
}

// Side is the number of modules along one side, border included.
func (c Code) Side() int { return c.side }

// Dark reports whether the module at column x of row y is dark. What lies outside
// is not.
func (c Code) Dark(x, y int) bool {
	return x >= 0 && y >= 0 && x < c.side && y < c.side && c.dark[y*c.side+x]
}

// Path is the d attribute of an SVG path that fills the dark modules, one unit
// each, in a view box of Side by Side. It holds letters, digits and blanks only.
func (c Code) Path() string {
	var b strings.Builder
	for y := range c.side {
		for x := 0; x < c.side; x++ {
			from := x
			for c.Dark(x, y) {
				x++
			}
			if n := x - from; n > 0 {
				fmt.Fprintf(&b, "M%d %dh%dv1H%dz", from, y, n, from)
			}
		}
	}
	return b.String()
}

// Text is the code in half blocks, two rows a line. With colour it is dark on
// white whatever the terminal's own colours are; without, the light modules are
// drawn, as they are right on a dark terminal.
func (c Code) Text(colour bool) string {
	var b strings.Builder
	for y := 0; y < c.side; y += 2 {
		if colour {
			b.WriteString("\x1b[30;107m")
		}
		for x := range c.side {
			up, down := c.Dark(x, y), c.Dark(x, y+1)
			if !colour {
				up, down = !up, !down && y+1 < c.side
			}
			switch {
			case up && down:
				b.WriteString("█")
			case up:
				b.WriteString("▀")
			case down:
				b.WriteString("▄")
			default:
				b.WriteString(" ")
			}
		}
		if colour {
			b.WriteString("\x1b[0m")
		}
		b.WriteString("\n")
	}
	return b.String()
}

package cli

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/term"
	"golang.org/x/text/width"
)

const (
	gap     = 2  // between columns
	fairly  = 14 // cells that tell an id from its neighbours
	barely  = 10 // cells that mostly do
	hardly  = 8  // cells that tell something
	atLeast = 20 // cells below which text is not wrapped
)

// room is how many cells a line of the output has; 0 where it has no end: in a
// file or a pipe nothing is ever cut.
func (c *command) room() int {
	f, ok := fileOf(c.stdout)
	if !ok || !c.terminal() {
		return 0
	}
	n, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return max(0, n)
}

// table prints rows under a heading, in columns that fit the terminal.
func (c *command) table(heading []string, rows [][]string, empty string) {
	if len(rows) == 0 {
		c.note("%s", empty)
		return
	}
	text, cut := layout(heading, rows, c.room(), func(code, s string) string { return c.paint(c.stdout, code, s) })
	fmt.Fprint(c.stdout, text)
	if cut {
		c.note("Ids are cut to fit. A wider window, a pipe or --json shows them whole.")
	}
}

// layout is a table as text. Where it is too wide, columns in which no row has
// anything go, and cells are cut in their middle: ids first, then texts, and the
// last column, which holds what a person copies, when nothing else helps; cut
// tells that. On a screen that is too narrow for any columns each row becomes a
// list.
func layout(heading []string, rows [][]string, room int, paint func(code, s string) string) (text string, cut bool) {
	for _, row := range rows {
		for i := range row {
			if row[i] = plain(row[i]); row[i] == "" {
				row[i] = "-"
			}
		}
	}
	size, ids := measure(heading, rows)
	if room > 0 && tooWide(size, room) > 0 {
		heading, rows = withoutEmpty(heading, rows)
		size, ids = measure(heading, rows)
	}
	last := len(size) - 1
	whole := size[last]
	if !squeeze(size, ids, heading, room) {
		return stacked(heading, rows, room, paint), false
	}
	var b strings.Builder
	line := func(row []string, painted func(string) string) {
		pad := 0
		for i, text := range row {
			if i == last && size[last] < whole && isID(text) {
				cut = true
			}
			text = shorten(text, size[i])
			b.WriteString(strings.Repeat(" ", pad) + painted(text))
			pad = size[i] - cells(text) + gap
		}
		b.WriteByte('\n')
	}
	line(heading, func(s string) string { return paint("1", s) })
	for _, row := range rows {
		line(row, func(s string) string { return paint(tint(s), s) })
	}
	return b.String(), cut
}

// measure tells how wide each column is, and which hold ids.
func measure(heading []string, rows [][]string) (size []int, ids []bool) {
	size, ids = make([]int, len(heading)), make([]bool, len(heading))
	for i, h := range heading {
		size[i] = cells(h)
		for _, row := range rows {
			size[i], ids[i] = max(size[i], cells(row[i])), ids[i] || isID(row[i])
		}
	}
	return size, ids
}

// tooWide is by how many cells columns are wider than room.
func tooWide(size []int, room int) int {
	over := gap*(len(size)-1) - room
	for _, n := range size {
		over += n
	}
	return over
}

// withoutEmpty leaves the columns in which some row has something, and the last.
func withoutEmpty(heading []string, rows [][]string) ([]string, [][]string) {
	var kept []string
	out := make([][]string, len(rows))
	for i, h := range heading {
		if i < len(heading)-1 && !slices.ContainsFunc(rows, func(row []string) bool { return row[i] != "-" }) {
			continue
		}
		kept = append(kept, h)
		for j, row := range rows {
			out[j] = append(out[j], row[i])
		}
	}
	return kept, out
}

// squeeze makes columns narrower until they fit, and reports whether they do.
func squeeze(size []int, ids []bool, heading []string, room int) bool {
	if room == 0 {
		return true
	}
	over := tooWide(size, room)
	last := len(size) - 1
	for _, round := range []struct {
		least int
		gives func(i int) bool
	}{
		{fairly, func(i int) bool { return ids[i] && i != last }},
		{2 * fairly, func(i int) bool { return !ids[i] && i != last }},
		{barely, func(i int) bool { return ids[i] && i != last }},
		{fairly, func(i int) bool { return !ids[i] && i != last }},
		{fairly, func(i int) bool { return i == last }},
		{hardly, func(i int) bool { return i != last }},
	} {
		for over > 0 {
			widest := -1
			for i := range size {
				if round.gives(i) && size[i] > max(round.least, cells(heading[i])) && (widest < 0 || size[i] > size[widest]) {
					widest = i
				}
			}
			if widest < 0 {
				break
			}
			size[widest]--
			over--
		}
	}
	return over <= 0
}

// stacked shows each row as a list of its cells.
func stacked(heading []string, rows [][]string, room int, paint func(code, s string) string) string {
	names := 0
	for _, h := range heading {
		names = max(names, cells(strings.TrimSpace(h)))
	}
	var b strings.Builder
	for i, row := range rows {
		if i > 0 {
			b.WriteByte('\n')
		}
		for j, cell := range row {
			h := strings.TrimSpace(heading[j])
			pad := strings.Repeat(" ", names-cells(h)+gap)
			text := shorten(strings.TrimSpace(cell), max(fairly, room-names-gap))
			fmt.Fprintf(&b, "%s%s%s\n", paint("1", h), pad, paint(tint(text), text))
		}
	}
	return b.String()
}

// facts prints one thing: pairs of a name and a value. Empty values are left
// out, and long ones go on below themselves.
func (c *command) facts(pairs ...string) {
	names := 0
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			names = max(names, cells(pairs[i]))
		}
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			continue
		}
		indent := strings.Repeat(" ", names+gap)
		value := plain(pairs[i+1])
		if room := c.room(); room > names+gap+atLeast {
			value = strings.Join(wrap(value, room-names-gap), "\n"+indent)
		}
		c.say("%s%s%s", c.paint(c.stdout, "2", pairs[i]), indent[cells(pairs[i]):], value)
	}
}

// wrap breaks s at blanks into lines of at most n cells, as far as words allow.
func wrap(s string, n int) []string {
	var lines []string
	line, used := "", 0
	for _, word := range strings.Split(s, " ") {
		if w := cells(word); line != "" && used+1+w > n {
			lines, line, used = append(lines, line), word, w
		} else if line == "" {
			line, used = word, w
		} else {
			line, used = line+" "+word, used+1+w
		}
	}
	return append(lines, line)
}

// cells is how much room s takes in a terminal: wide letters take two, and marks
// that stand on another letter take none.
func cells(s string) int {
	n := 0
	for _, r := range s {
		n += cell(r)
	}
	return n
}

func cell(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// shorten cuts s in its middle to at most n cells.
func shorten(s string, n int) string {
	if cells(s) <= n {
		return s
	}
	head, used := 0, 0
	for i, r := range s {
		if used+cell(r) > (n-1)/2 {
			head = i
			break
		}
		used += cell(r)
	}
	tail, rest := len(s), n-1-used
	letters := []rune(s)
	for _, r := range slices.Backward(letters) {
		if cell(r) > rest {
			break
		}
		rest -= cell(r)
		tail -= len(string(r))
	}
	// A mark whose letter is gone would stand on the dots.
	return s[:head] + "…" + strings.TrimLeftFunc(s[tail:], func(r rune) bool { return cell(r) == 0 })
}

// isID reports whether s looks like one of our ids, such as
// ses_01m8fadvjtq801xk1a97rw7s49.
func isID(s string) bool {
	prefix, rest, ok := strings.Cut(s, "_")
	return ok && prefix != "" && len(rest) == 26 && !strings.ContainsFunc(rest, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z')
	})
}

// tint is the colour of a cell that says how something stands.
func tint(cell string) string {
	word, _, _ := strings.Cut(cell, " ")
	switch word {
	case "active", "connected", "enabled", "ok":
		return "32"
	case "pending", "needs_reauthorization", "unknown":
		return "33"
	case "denied", "disabled", "revoked", "expired", "error", "cut":
		return "31"
	case "-", "ended", "disconnected":
		return "2"
	}
	return ""
}

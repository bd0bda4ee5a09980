package provider

import (
	"bytes"

	"github.com/ambit-dev/ambit/internal/outbound"
)

// A filter tells quickly that a text holds no form of a secret in any view, which
// is so for nearly all text. What it cannot tell is searched.
//
// As it stands, a form is looked for by its first characters, with a table that
// says how far one may skip (Wu and Manber). Disguised, it has an escape or a line
// break in it, and as forms have at least shortForm characters, at least four
// others on one side of that, each two of which stand side by side in some form.
type filter struct {
	least  int         // characters of each probe that are looked at
	probes [][]byte    // so many of each
	skip   [4096]uint8 // by two characters
	pairs  [8192]uint8 // bits: what stands side by side in a form
	chars  [256]bool   // what stands in a form, or in an escape
	within [256]bool   // what stands in a form
	high   bool        // a form holds a byte over 0x7f
	reach  int         // raw bytes that a form under way may take
}

var folded = func() (t [256]byte) {
	for i := range t {
		t[i] = foldByte(byte(i))
	}
	return t
}()

func skipAt(a, b byte) int { return (int(folded[a])<<4 ^ int(folded[b])) & 4095 }

func newFilter(n *needles) *filter {
	f := &filter{least: 64}
	for _, form := range n.probe {
		f.least = min(f.least, len(form))
	}
	for i := range f.skip {
		f.skip[i] = uint8(f.least - 1)
	}
	for _, form := range n.probe {
		form = form[:f.least]
		f.probes = append(f.probes, form)
		for i := 1; i < f.least; i++ {
			at := skipAt(form[i-1], form[i])
			f.skip[at] = min(f.skip[at], uint8(f.least-1-i))
		}
	}
	for _, form := range n.long {
		f.reach = max(f.reach, maxEscape*len(form))
		for i, c := range form {
			f.chars[c], f.within[c] = true, true
			f.high = f.high || c >= 0x80
			if i > 0 {
				f.pairs[int(form[i-1])<<5|int(c)>>3] |= 1 << (c & 7)
			}
		}
	}
	for _, c := range []byte("0123456789abcdefux#;mpltgtquotosnr\"'/%\\&\r\n\x00") {
		f.chars[c] = true
	}
	return f
}

func (f *filter) pair(a, b byte) bool {
	a, b = folded[a], folded[b]
	return f.pairs[int(a)<<5|int(b)>>3]&(1<<(b&7)) != 0
}

// clean reports that no form is in text in any view, whole or, unless last, begun.
// from is where one may have begun as it stands; it is len(text) when none has.
func (f *filter) clean(r *Redactor, text []byte, last bool) (from, chars int, ok bool) {
	if f.literal(text) || f.disguised(r, text) {
		return 0, 0, false
	}
	if last || len(text) == 0 {
		return len(text), 0, true
	}
	// The end of the text, as far back as a form may be under way in it.
	start := len(text)
	special := false
	for start > 0 && len(text)-start < f.reach && f.chars[folded[text[start-1]]] {
		start--
		special = special || isSpecial[text[start]]
	}
	if special {
		s := search{r: r, size: len(text) - start}
		from, chars := s.underWay(s.whole(text[start:], viewLayers, false), s.size)
		return start + from, chars, true
	}
	tail := fold(text[max(start, len(text)-f.reach/maxEscape):])
	k := (&search{r: r}).begun(tail)
	return len(text) - k, k, true
}

// literal reports that the beginning of a probe stands in text.
func (f *filter) literal(text []byte) bool {
	for i := f.least - 1; i < len(text); {
		if n := f.skip[skipAt(text[i-1], text[i])]; n > 0 {
			i += int(n)
			continue
		}
		window := text[i-f.least+1 : i+1]
		for _, p := range f.probes {
			if folded[window[0]] == p[0] && folded[window[1]] == p[1] && bytes.Equal(fold(window), p) {
				return true
			}
		}
		i++
	}
	return false
}

var isSpecial = func() (t [256]bool) {
	for _, c := range []byte("%\\&\r\n\x00") {
		t[c] = true
	}
	return t
}()

func dropped(c byte) bool { return c == 0 || c == '\r' || c == '\n' }

// disguised reports that a form may stand in text with an escape or a break in it.
func (f *filter) disguised(r *Redactor, text []byte) bool {
	var known before
	for i := 0; i < len(text); i++ {
		if !isSpecial[text[i]] {
			continue
		}
		end, c, stands := i+1, byte(0), false
		if dropped(text[i]) {
			for end < len(text) && dropped(text[end]) {
				end++
			}
		} else {
			char, used, _ := escapeAt(text[i:])
			if used == 0 {
				continue
			}
			end = i + used
			switch c, stands = byte(char), true; {
			case char >= 0x80 && !f.high: // in no form
				known, i = before{end: end}, end-1
				continue
			case char >= 0x80, nested(c, text[end:]):
				return true
			case dropped(c):
				stands = false
			}
		}
		if (f.across(text, known, i, end, c, stands) || dropped(text[i]) && tears(text, i, end) || stands && completes(text, i)) && f.around(r, text, i, end) {
			return true
		}
		if dropped(text[i]) {
			known = before{end: end, over: true, at: i, from: known.end}
		} else {
			known = before{end: end}
		}
		i = end - 1
	}
	return false
}

// completes reports that what the escape at i stands for may go on with one that begins
// before it: in %%36 the first character begins none as it is written, and does in the
// next view.
func completes(text []byte, i int) bool {
	for k := i - 1; k >= 0 && i-k < maxEscape; k-- {
		if isSpecial[text[k]] {
			return unfinished(text[k:i])
		}
		if text[k] != '#' && !isAlnum(text[k]) { // in no escape
			return false
		}
	}
	return false
}

// tears reports that an escape may go over the break from at to end.
func tears(text []byte, at, end int) bool {
	k := at - 1
	for ; ; k-- {
		if k < 0 || at-k >= maxEscape || dropped(text[k]) {
			return false // or it was the break before that may
		}
		if isSpecial[text[k]] {
			break
		}
		if text[k] != '#' && !isAlnum(text[k]) { // in no escape
			return false
		}
	}
	var room [2 * maxEscape]byte
	joined := append(room[:0], text[k:at]...)
	for j := end; j < len(text) && len(joined) < len(room); j++ {
		if !dropped(text[j]) {
			joined = append(joined, text[j])
		}
	}
	for i, c := range joined[1:] {
		if isSpecial[c] && unfinished(joined[:i+1]) { // and another escape in it
			return true
		}
	}
	_, used, _ := escapeAt(joined)
	return used > at-k || unfinished(joined)
}

// before tells which text before a place stands for itself: what follows the last
// escape or break, at end, and if that was a break, what lies between it and the one
// before.
type before struct {
	end      int
	over     bool
	at, from int
}

// around searches about a place over which a form may go. It leaves what has long
// breaks, through which a form may reach far, to the search of the whole.
func (f *filter) around(r *Redactor, text []byte, i, end int) bool {
	text = text[max(0, i-f.reach):min(len(text), end+f.reach)]
	for run, j := 0, 0; j < len(text); j++ {
		if run++; !dropped(text[j]) {
			run = 0
		}
		if run > 16 {
			return true
		}
	}
	return r.marks(text, viewLayers) != nil
}

// nested reports that an escape that stands for c may begin another with rest.
func nested(c byte, rest []byte) bool {
	if len(rest) == 0 || isSpecial[rest[0]] {
		return isSpecial[c] && !dropped(c)
	}
	switch c {
	case '%':
		return outbound.Unhex(rest[0]) >= 0
	case '\\':
		return bytes.IndexByte([]byte("uxnrtbf\"/'"), rest[0]) >= 0
	case '&':
		return bytes.IndexByte([]byte("#algq"), rest[0]) >= 0
	}
	return false
}

// across reports that a form may go over the place from i to end of text, which
// stands for c, or for nothing.
func (f *filter) across(text []byte, b before, i, end int, c byte, stands bool) bool {
	const side = shortForm / 2
	left := func(at byte, known bool) bool {
		low, over := b.end, b.over
		for n, j := 0, i-1; n < side; n, j = n+1, j-1 {
			if j < low && over {
				j, low, over = b.at-1, b.from, false // a form goes on over a break
			}
			if j < low {
				return j >= 0 // it may be anything, but for the beginning of the text
			}
			if known && !f.pair(text[j], at) {
				return false
			}
			at, known = text[j], true
		}
		return true
	}
	right := func(at byte, known bool) bool {
		for n, j := 0, end; n < side; n, j = n+1, j+1 {
			for j < len(text) && dropped(text[j]) {
				j++
			}
			if j >= len(text) {
				return false // that would be under way
			}
			if opaque(text[j:]) {
				return true
			}
			if known && !f.pair(at, text[j]) {
				return false
			}
			at, known = text[j], true
		}
		return true
	}
	if stands {
		return left(c, true) || right(c, true)
	}
	var next, last byte
	hasNext, hasLast := end < len(text) && !opaque(text[end:]), i > b.end
	if hasLast && !f.within[folded[text[i-1]]] {
		return false // no form comes to this place
	}
	if hasNext {
		next = text[end]
	}
	if hasLast {
		last = text[i-1]
	}
	return left(next, hasNext) || i > 0 && right(last, hasLast)
}

// opaque reports that text begins with an escape or a break.
func opaque(text []byte) bool {
	if !isSpecial[text[0]] {
		return false
	}
	_, used, _ := escapeAt(text)
	return used > 0 || dropped(text[0])
}

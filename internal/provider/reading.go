package provider

import (
	"bytes"
	"slices"
	"unicode/utf8"
)

// A text is read in windows: each view hands what it has unescaped to the next
// and keeps only what a form that is still open may need. So the memory that a
// search takes does not grow with the text, except by one bit a byte for what
// was found, however many escapes a hostile upstream nests.

const (
	window    = 32 << 10
	maxEscape = 12 // the longest escape that escapeAt knows
	// wholeText bounds a text that may be nothing but a short secret.
	wholeText = 4 << 10
)

// marks has one bit for each byte of the text that belongs to a secret.
type marks []uint64

func (m marks) has(i int) bool { return m[i/64]&(1<<(i%64)) != 0 }

// marks searches text; nil means that nothing was found.
func (r *Redactor) marks(text []byte, layers int) marks {
	if r.least == 0 || len(text) < r.least {
		return nil
	}
	s := search{r: r, size: len(text)}
	if r.isShort(text, layers) {
		s.mark(extent{0, len(text)})
		return s.found
	}
	if len(r.forms().long) == 0 {
		return nil
	}
	s.whole(text, layers, true)
	return s.found
}

// whole searches all of text. last means that no more text comes after it.
func (s *search) whole(text []byte, layers int, last bool) *layer {
	first := &layer{below: layers}
	for from := 0; from < len(text); from += window {
		part := text[from:min(from+window, len(text))]
		first.text = slices.Grow(first.text, len(part))
		for _, c := range part {
			first.text = append(first.text, foldByte(c))
		}
		s.read(first, last && from+len(part) == len(text))
	}
	return first
}

// isShort reports whether the whole text is a form too short to be looked for
// inside other text.
func (r *Redactor) isShort(text []byte, layers int) bool {
	const blank = " \t\r\n\"'"
	short := r.forms().short
	if text = bytes.Trim(text, blank); len(short) == 0 || len(text) > wholeText {
		return false
	}
	view := fold(text)
	for ; view != nil && layers >= 0; layers-- {
		whole := bytes.Trim(view, blank)
		if slices.ContainsFunc(short, func(form []byte) bool { return bytes.Equal(whole, form) }) {
			return true
		}
		view = reading(view)
	}
	return false
}

// extent is a range of the original text.
type extent struct{ from, to int }

// search is one search of one text.
type search struct {
	r     *Redactor
	size  int
	found marks
}

func (s *search) mark(e extent) {
	if s.found == nil {
		s.found = make(marks, (s.size+63)/64)
	}
	for i := e.from; i < e.to; i++ {
		s.found[i/64] |= 1 << (i % 64)
	}
}

// read looks through what is new in l and all views below it. last means that
// no more text comes.
func (s *search) read(l *layer, last bool) {
	open := l.text[max(0, l.fresh-s.r.reach):]
	forms := s.r.forms()
	if slices.ContainsFunc(forms.probe, func(form []byte) bool { return bytes.Contains(open, form) }) {
		for _, form := range forms.long {
			s.all(l, len(l.text)-len(open), form)
		}
	}
	l.fresh = len(l.text)
	if l.below == 0 {
		l.done = len(l.text)
	} else {
		l.unescape(last, s.r.reach)
	}
	if l.next != nil {
		s.read(l.next, last)
	}
	l.forget(s.r.reach)
}

func (s *search) all(l *layer, from int, needle []byte) {
	for {
		i := bytes.Index(l.text[from:], needle)
		if i < 0 {
			return
		}
		start := from + i
		from = start + len(needle)
		s.mark(extent{l.place(start).from, l.place(from - 1).to})
	}
}

// layer is a stretch of one view of the text. Each view is the one before it,
// unescaped; the first is the original, folded.
type layer struct {
	text  []byte
	at    []place // where each byte comes from; nil in the first
	base  int     // in the first: where text begins in the original
	fresh int     // text before it has been searched
	done  int     // text before it has been unescaped
	below int     // how many more views may follow
	next  *layer  // nil until the next view differs
}

// place is an extent in half the room; no answer reaches 2 GiB.
type place struct{ from, to int32 }

func (l *layer) place(i int) extent {
	if l.at == nil {
		return extent{l.base + i, l.base + i + 1}
	}
	return extent{int(l.at[i].from), int(l.at[i].to)}
}

// reading gives text unescaped once, or nil when that changes nothing.
func reading(text []byte) []byte {
	if !slices.ContainsFunc(text, special) {
		return nil
	}
	l := &layer{text: text}
	l.unescape(true, len(text))
	if l.next == nil {
		return nil
	}
	return l.next.text
}

// unescape reads on: escapes undone, line breaks and NUL gone. What may be the
// beginning of an escape waits for more text unless this is the last.
func (l *layer) unescape(last bool, reach int) {
	for {
		plain := l.done
		for plain < len(l.text) && !special(l.text[plain]) {
			plain++
		}
		l.pass(plain)
		if l.done == len(l.text) {
			return
		}
		rest := l.text[l.done:]
		if c := rest[0]; c == 0 || c == '\r' || c == '\n' {
			l.open(reach)
			l.done++
			continue
		}
		if !last && unfinished(rest) {
			return
		}
		r, used, raw := escapeAt(rest)
		if used == 0 {
			l.pass(l.done + 1)
			continue
		}
		l.open(reach)
		n := l.next
		if raw || r < utf8.RuneSelf {
			n.text = append(n.text, foldByte(byte(r)))
		} else {
			n.text = utf8.AppendRune(n.text, r)
		}
		from, to := l.place(l.done).from, l.place(l.done+used-1).to
		for len(n.at) < len(n.text) {
			n.at = append(n.at, place{int32(from), int32(to)})
		}
		l.done += used
	}
}

func special(c byte) bool {
	return c == '%' || c == '\\' || c == '&' || c == '\r' || c == '\n' || c == 0
}

// pass hands text up to to on as it is.
func (l *layer) pass(to int) {
	if n := l.next; n != nil {
		n.text = append(n.text, l.text[l.done:to]...)
		n.at = l.places(n.at, l.done, to)
	}
	l.done = to
}

func (l *layer) places(out []place, from, to int) []place {
	if l.at != nil {
		return append(out, l.at[from:to]...)
	}
	for i := from; i < to; i++ {
		out = append(out, place{int32(l.base + i), int32(l.base + i + 1)})
	}
	return out
}

// open begins the next view where it first differs from this one. It takes
// along what a form that ends later may begin with, and leaves the last bytes
// to be read again: with what follows they may make an escape.
func (l *layer) open(reach int) {
	if l.next != nil {
		return
	}
	from := max(0, l.done-reach)
	n := &layer{text: slices.Clone(l.text[from:l.done]), at: l.places(make([]place, 0, l.done-from), from, l.done), below: l.below - 1}
	n.fresh, n.done = len(n.text), max(0, len(n.text)-maxEscape)
	l.next = n
}

// forget drops what no form and no escape needs any more.
func (l *layer) forget(reach int) {
	from := max(0, l.done-reach)
	l.text = l.text[:copy(l.text, l.text[from:])]
	if l.at != nil {
		l.at = l.at[:copy(l.at, l.at[from:])]
	}
	l.base += from
	l.done -= from
	l.fresh -= from
}

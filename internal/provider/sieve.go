package provider

import (
	"bytes"
	"io"

	"github.com/ambit-dev/ambit/internal/outbound"
)

// A stream is read in pieces, each together with that end of the text before it in
// which a form may still be under way. What is taken out is replaced by as many
// bytes, so that lengths and ranges stay true.

const (
	masked  = '*'
	maxOpen = 256 << 10 // of text in which a form may be under way, however much an upstream disguises it
	keptOf  = 64 << 10  // of that, when it is too much
	// One piece in some thousands ends in more characters by chance and waits, and two
	// of a secret help nobody to the rest.
	eagerMost = 2
)

// sieve takes secrets out of a stream.
type sieve struct {
	red *Redactor
	// eager passes on the first characters of what may become a secret, rather than
	// wait for the next piece, which may be long in coming: at most eagerMost.
	eager  bool
	filter *filter // nil until a text is long enough
	part   bool    // the text may begin within a form, and its beginning is not known yet
	end    bool    // the text may end within a form

	open   []byte // text in which a form may be under way
	marked []bool // of open: what belongs to a secret
	passed int    // of open: what has been given out
}

// next takes a piece and gives what can be passed on. last means that none follows.
func (s *sieve) next(piece []byte, last bool) []byte {
	if s.red.least == 0 || len(s.red.forms().long) == 0 {
		return piece
	}
	if s.part {
		var ok bool
		if piece, ok = s.head(piece, last); !ok {
			return nil
		}
	}
	text := piece
	if len(s.open) > 0 {
		text = append(s.open, piece...)
	}
	found := search{r: s.red, size: len(text)}
	from, chars, clean := s.quick(text, last)
	if !clean {
		view := found.whole(text, viewLayers, last)
		if from, chars = len(text), 0; !last {
			from, chars = found.underWay(view, len(text))
		}
	}
	if len(text)-from > maxOpen {
		from = len(text) - keptOf
	}
	until := from
	if last || s.eager && chars <= eagerMost {
		until = len(text)
	}
	until = max(until, s.passed)
	torn := len(text)
	if last && s.end {
		torn = s.torn(text)
	}
	if clean && len(s.open)+len(s.marked) == 0 && from == len(text) && torn == len(text) {
		return text
	}
	if found.found == nil && torn == len(text) && len(s.marked) <= s.passed { // nothing to hide: no copy, no look at each byte
		out := text[s.passed:until:until]
		s.open, s.marked, s.passed = append([]byte(nil), text[from:]...), nil, until-from
		return out
	}
	out := make([]byte, until-s.passed)
	copy(out, text[s.passed:until])
	hidden := func(i int) bool {
		return i >= torn || found.found != nil && found.found.has(i) || i < len(s.marked) && s.marked[i]
	}
	for i := range out {
		if hidden(s.passed + i) {
			out[i] = masked
		}
	}
	marked := make([]bool, len(text)-from)
	for i := range marked {
		marked[i] = hidden(from + i)
	}
	s.open, s.marked, s.passed = append([]byte(nil), text[from:]...), marked, until-from
	return out
}

// quick spares most texts the search: it is not worth its tables for a short one.
func (s *sieve) quick(text []byte, last bool) (from, chars int, clean bool) {
	const worth = 2 << 10
	if s.filter == nil {
		if len(text) < worth {
			return 0, 0, false
		}
		s.filter = newFilter(s.red.forms())
	}
	return s.filter.clean(s.red, text, last)
}

// underWay tells where the text begins in which a form may have begun that is not
// complete, and how many characters of it are known in the view that knows most.
func (s *search) underWay(first *layer, size int) (from, chars int) {
	from = size
	for l := first; l != nil; l = l.next {
		text := l.text[:l.done]
		if l.below == 0 {
			text = l.text
		}
		k := s.begun(text)
		if k > 0 {
			from, chars = min(from, l.place(len(text)-k).from), max(chars, k)
		}
		if rest := len(l.text) - len(text); rest > 0 { // an escape that may go on
			from, chars = min(from, l.place(len(text)).from), max(chars, k+1)
			if l.next == nil {
				at, k := s.nested(l, text)
				from, chars = min(from, l.place(at).from), max(chars, k+1)
			}
		}
	}
	return from, chars
}

// nested tells where a form may have begun in the views below that are not there yet,
// when text ends before an escape that is not complete, and how many of its characters
// come before that. What the escape stands for may go on with one that nothing in this
// view is: in %%36 the first character is none, and in the next view it begins %6.
func (s *search) nested(l *layer, text []byte) (at, chars int) {
	at = len(text)
	for range l.below {
		from := max(0, at-maxEscape)
		for from < at && !(isSpecial[text[from]] && unfinished(text[from:at])) {
			from++
		}
		if from == at {
			break
		}
		at = from
	}
	k := s.begun(text[:at])
	return at - k, k
}

// begun is the length of the longest end of text that a form begins with.
func (s *search) begun(text []byte) int {
	longest := 0
	for _, form := range s.r.forms().long {
		for k := min(len(form)-1, len(text)); k > longest; k-- {
			if text[len(text)-1] == form[k-1] && bytes.HasSuffix(text, form[:k]) {
				longest = k
				break
			}
		}
	}
	return longest
}

// unfinished reports whether s, which starts with a special character, may be the
// beginning of an escape whose rest is still to come.
func unfinished(s []byte) bool {
	digits := func(from, want, base int) bool { // all that is there of want digits
		for i := from; i < min(len(s), from+want); i++ {
			if n := outbound.Unhex(s[i]); n < 0 || n >= base {
				return false
			}
		}
		return len(s) < from+want
	}
	switch {
	case len(s) >= maxEscape:
		return false
	case s[0] == '%':
		return digits(1, 2, 16)
	case s[0] == '\\' && len(s) == 1:
		return true
	case s[0] == '\\' && s[1] == 'x':
		return digits(2, 2, 16)
	case s[0] == '\\' && s[1] == 'u':
		if digits(2, 4, 16) {
			return true
		}
		surrogate := len(s) >= 6 && foldByte(s[2]) == 'd' && bytes.IndexByte([]byte("89ab"), foldByte(s[3])) >= 0
		return surrogate && (len(s) == 6 || s[6] == '\\' && (len(s) == 7 || s[7] == 'u' && digits(8, 4, 16)))
	case s[0] == '&':
		return bytes.IndexByte(s, ';') < 0
	}
	return false
}

// Reader gives what comes from src without the secrets. length is of src; -1: not
// known, and then what comes is passed on without waiting for more.
func (r *Redactor) Reader(src io.Reader, length int64) io.Reader {
	size := int64(8 << 10)
	if length >= 0 {
		size = min(max(length, 512), 64<<10)
	}
	return &sieving{src: src, left: length, buf: make([]byte, size), s: sieve{red: r, eager: length < 0}}
}

type sieving struct {
	src   io.Reader
	left  int64 // -1: not known
	buf   []byte
	clean []byte // not yet read
	err   error
	s     sieve
}

func (s *sieving) Read(p []byte) (int, error) {
	for len(s.clean) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		n, err := s.src.Read(s.buf)
		if s.left >= 0 {
			s.left = max(0, s.left-int64(n))
		}
		s.err = err
		switch {
		case n > 0 || err == io.EOF:
			s.clean = s.s.next(s.buf[:n], err == io.EOF || s.left == 0)
		case err != nil:
			return 0, err // what was held back may have begun a secret
		}
		if n == len(s.buf) && n < 64<<10 {
			s.buf = make([]byte, 2*n)
		}
	}
	n := copy(p, s.clean)
	s.clean = s.clean[n:]
	return n, nil
}

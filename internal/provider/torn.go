package provider

import (
	"bytes"
	"io"
)

// tornLeast is how much of a form must stand at the border of a part for it to be
// taken out: less would hit by chance.
const tornLeast = 4

// Part is Reader for a part of a longer text, whose borders may lie within a secret:
// a beginning that ends one and an end that begins one go too, and all of a part
// that lies within one.
func (r *Redactor) Part(src io.Reader, length int64) io.Reader {
	s := r.Reader(src, length).(*sieving)
	s.s.part, s.s.eager = true, false
	return s
}

// head collects the beginning of a part until it can be told whether a form ends
// there. ok is false while it cannot.
func (s *sieve) head(piece []byte, last bool) (whole []byte, ok bool) {
	s.open = append(s.open, piece...)
	whole = s.open
	views := viewsOf(whole, last)
	within := func(v *layer) bool {
		for _, form := range s.red.forms().long {
			if bytes.Contains(form, v.text) {
				return true
			}
		}
		return false
	}
	upTo := 0
	for _, v := range views {
		if len(whole) < keptOf && within(v) {
			if !last {
				return nil, false
			}
			upTo = len(whole)
		}
		if k := s.ended(v.text); k > 0 {
			upTo = max(upTo, v.place(k-1).to)
		}
	}
	s.open, s.part = nil, false
	s.end = true
	if upTo > 0 {
		s.marked = make([]bool, upTo)
		for i := range s.marked {
			s.marked[i] = true
		}
	}
	return whole, true
}

// ended is the length of the longest beginning of text that a form ends with, at
// least tornLeast.
func (s *sieve) ended(text []byte) int {
	longest := 0
	for _, form := range s.red.forms().long {
		for k := min(len(form), len(text)); k > longest && k >= tornLeast; k-- {
			if bytes.HasPrefix(text, form[len(form)-k:]) {
				longest = k
			}
		}
	}
	return longest
}

// torn is where in text, the end of a part, a form begins that goes on after it.
func (s *sieve) torn(text []byte) int {
	from := len(text)
	start := max(0, from-min(maxEscape*s.red.reach, keptOf))
	found := search{r: s.red}
	for _, v := range viewsOf(text[start:], false) {
		if k := found.begun(v.text); k >= tornLeast {
			from = min(from, start+v.place(len(v.text)-k).from)
		}
	}
	return from
}

// viewsOf gives text in all its views, each whole.
func viewsOf(text []byte, last bool) []*layer {
	l := &layer{text: fold(text), below: viewLayers}
	out := []*layer{l}
	for l.below > 0 {
		l.unescape(last, len(l.text))
		if l.next == nil {
			break
		}
		l = l.next
		out = append(out, l)
	}
	return out
}

// quotedSecrets masks each JSON string (RFC 8259 §7) that is, whole, a secret too
// short to be looked for inside other text. The text keeps its length.
type quotedSecrets struct {
	src  io.Reader
	red  *Redactor
	buf  []byte
	out  []byte
	held []byte // of the string under way, while it may be one
	err  error

	inside, long, escaped bool
}

// mostQuoted is the length of a string from which it cannot be a short secret,
// however it is escaped.
const mostQuoted = shortForm * maxEscape

func (q *quotedSecrets) Read(p []byte) (int, error) {
	for len(q.out) == 0 {
		if q.err != nil {
			return 0, q.err
		}
		if q.buf == nil {
			q.buf = make([]byte, 16<<10)
		}
		n, err := q.src.Read(q.buf)
		for _, c := range q.buf[:n] {
			q.take(c)
		}
		if q.err = err; err == io.EOF {
			q.let()
		}
	}
	n := copy(p, q.out)
	q.out = q.out[n:]
	return n, nil
}

func (q *quotedSecrets) take(c byte) {
	switch {
	case q.inside && (c == '"' && !q.escaped || c < ' '): // its end, or it was none
		q.let()
		q.inside = false
	case q.inside:
		q.escaped = c == '\\' && !q.escaped
		if q.long {
			break
		}
		if q.held = append(q.held, c); len(q.held) > mostQuoted {
			q.let()
			q.long = true
		}
		return
	case c == '"':
		q.inside, q.long, q.escaped = true, false, false
	}
	q.out = append(q.out, c)
}

// let passes on what was held.
func (q *quotedSecrets) let() {
	if len(q.held) <= mostQuoted && q.red.isShort(q.held, viewLayers+1) {
		for i := range q.held {
			q.held[i] = masked
		}
	}
	q.out, q.held = append(q.out, q.held...), q.held[:0]
}

package provider

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
)

const (
	maxSegment = 2048
	// maxLayers is how often a value is decoded in search of a step upwards:
	// each server and proxy on the way may decode once.
	maxLayers = 5
)

// encodeSegment writes s as exactly one path segment (RFC 3986 §3.3). A value
// that some reader on the way could take for more than one segment, or for a
// step upwards, is refused whatever its encoding (threats.md U3).
func encodeSegment(s string) (string, error) {
	if !oneSegment(s) {
		return "", fault.New(fault.Invalid, "path_argument_refused",
			`A value that goes into the path is empty or too long, or it holds "/", "\", ".." or a control character, possibly encoded.`).
			WithHint("Give one plain name or number.")
	}
	return escape(s), nil
}

func oneSegment(s string) bool {
	if s == "" || len(s) > maxSegment || !utf8.ValidString(s) {
		return false
	}
	for range maxLayers {
		if !plainSegment(s) || !plainSegment(norm.NFKC.String(s)) {
			return false
		}
		next := outbound.DecodeOnce(s)
		if next == s {
			return true
		}
		s = next
	}
	return false
}

func plainSegment(s string) bool {
	for i := range len(s) {
		if b := s[i]; b < ' ' || b == 0x7f || b == '/' || b == '\\' {
			return false
		}
	}
	// A server that cuts path parameters or blanks reads "..;x" or ".. " as "..".
	name, _, _ := strings.Cut(s, ";")
	name = strings.TrimSpace(name)
	return name != "." && name != ".." && name != ""
}

// escape percent-encodes all but unreserved characters and those of the others
// that no server treats as structure.
func escape(s string) string {
	const hex = "0123456789ABCDEF"
	var out strings.Builder
	for i := range len(s) {
		b := s[i]
		if isAlnum(b) || strings.IndexByte("-._~!$'()*,:@", b) >= 0 {
			out.WriteByte(b)
			continue
		}
		out.WriteByte('%')
		out.WriteByte(hex[b>>4])
		out.WriteByte(hex[b&15])
	}
	return out.String()
}

func isAlnum(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9'
}

// splitPath reads a path that an agent wrote: encoded once, no query. It returns
// the decoded segments and whether a slash ends the path.
func splitPath(path string) (segments []string, slash bool, err error) {
	refuse := func(msg string) error {
		return fault.New(fault.Invalid, "path_refused", msg).
			WithHint(`Give the path as "/a/b", percent-encoded where needed; parameters go into query.`)
	}
	rest, ok := strings.CutPrefix(path, "/")
	switch {
	case !ok:
		return nil, false, refuse(`The path does not start with "/".`)
	case len(path) > 8192:
		return nil, false, refuse("The path is over 8 KiB.")
	case strings.ContainsAny(path, "?#"):
		return nil, false, refuse(`The path holds "?" or "#".`)
	case rest == "":
		return nil, true, nil
	}
	rest, slash = strings.CutSuffix(rest, "/")
	for part := range strings.SplitSeq(rest, "/") {
		s, err := url.PathUnescape(part)
		if err != nil {
			return nil, false, refuse("The path holds a percent sign that starts no valid escape.")
		}
		if !oneSegment(s) {
			return nil, false, refuse(`The path holds an empty or too long part, or "/", "\", ".." or a control character inside a part, possibly encoded.`)
		}
		segments = append(segments, s)
	}
	return segments, slash, nil
}

// pathTemplate is a path of literal segments and segments with one argument.
type pathTemplate struct {
	segments []segment
	slash    bool // ends in "/"
	subtree  bool // ends in "/**"; only in access rules
}

// segment is literal text, or text around one argument.
type segment struct {
	before, arg, after string
	many               bool // {arg*}: one or more whole segments, at the end
}

// parsePath reads "/issues/{number}".
func parsePath(s string, rule bool) (pathTemplate, string) {
	var t pathTemplate
	rest, ok := strings.CutPrefix(s, "/")
	if !ok {
		return t, `does not start with "/".`
	}
	if rule {
		if head, cut := strings.CutSuffix("/"+rest, "/**"); cut {
			t.subtree, rest = true, strings.TrimPrefix(head, "/")
		}
	}
	if rest == "" {
		t.slash = true
		return t, ""
	}
	rest, t.slash = strings.CutSuffix(rest, "/")
	for part := range strings.SplitSeq(rest, "/") {
		var seg segment
		seg.before = part
		if open := strings.IndexByte(part, '{'); open >= 0 {
			length := strings.IndexByte(part[open:], '}')
			if length < 0 {
				return t, "has a { without }."
			}
			seg = segment{before: part[:open], arg: part[open+1 : open+length], after: part[open+length+1:]}
			seg.arg, seg.many = strings.CutSuffix(seg.arg, "*")
			if !validArg(seg.arg) {
				return t, "has a placeholder that is not a name of letters, digits and _."
			}
		} else if part == "" || part == "." || part == ".." {
			return t, "has an empty or dot segment."
		}
		for _, lit := range []string{seg.before, seg.after} {
			for i := range len(lit) {
				if !isAlnum(lit[i]) && strings.IndexByte("-._~!$'()*,:@=", lit[i]) < 0 {
					return t, "has a character that a path does not take as it is, or two placeholders in one segment."
				}
			}
		}
		t.segments = append(t.segments, seg)
	}
	for i, seg := range t.segments {
		if seg.many && (rule || t.slash || seg.before+seg.after != "" || i < len(t.segments)-1) {
			return t, "has a {name*} that is not its whole last segment."
		}
	}
	return t, ""
}

// asRule is the template as an access rule reads it: many segments are a subtree.
func (t pathTemplate) asRule() pathTemplate {
	if n := len(t.segments); n > 0 && t.segments[n-1].many {
		return pathTemplate{segments: t.segments[:n-1], subtree: true}
	}
	return t
}

// written leaves the "=" that a record itself has in a segment, as in a function of
// OData, search(q='{query}'): some servers know it only as it is. Those of an argument
// stay encoded.
func (seg segment) written(s, encoded string) string {
	if !strings.Contains(seg.before+seg.after, "=") {
		return encoded
	}
	if seg.arg == "" {
		return seg.before
	}
	return seg.before + escape(s[len(seg.before):len(s)-len(seg.after)]) + seg.after
}

// fits reports whether s, decoded, is in the place of a segment that is one.
func (seg segment) fits(s string) bool {
	if seg.arg == "" {
		return seg.before == s
	}
	return strings.HasPrefix(s, seg.before) && strings.HasSuffix(s, seg.after) && len(s) > len(seg.before)+len(seg.after)
}

func validArg(s string) bool {
	if s == "" || len(s) > 64 || s[0] >= '0' && s[0] <= '9' {
		return false
	}
	for i := range len(s) {
		if !isAlnum(s[i]) && s[i] != '_' {
			return false
		}
	}
	return true
}

// joinURL puts a path that starts with "/" below a base.
func joinURL(base, path string) string { return strings.TrimRight(base, "/") + path }

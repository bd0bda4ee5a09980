package provider

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// A record's text is judged in two passes, so that one mistake hides no other:
// shape holds the tree of YAML nodes against the fields that a record has, and
// takes out what does not fit; what is left always decodes, and the linter judges
// what it means. Both name fields in one way, and shape knows where each one
// stands in the text.

// shaper is the first pass. It tells maxProblems at most, so that a hostile text
// costs no more than an honest one.
type shaper struct {
	problems []Problem
	out      []string // fields that were taken out
}

func (s *shaper) full() bool { return len(s.problems) >= maxProblems }

func (s *shaper) add(at *spot, fix string, n *yaml.Node, format string, args ...any) {
	if !s.full() {
		s.problems = append(s.problems, Problem{Field: at.String(), Message: fmt.Sprintf(format, args...), Fix: fix, Line: n.Line, Column: n.Column})
	}
}

// drop remembers what was taken out. It comes with a problem, so it is bounded
// with them.
func (s *shaper) drop(at *spot) {
	if len(s.out) < maxProblems {
		s.out = append(s.out, at.String())
	}
}

// spot names a field: only those that are told become text.
type spot struct {
	in    *spot // nil: the record itself
	key   string
	index int // in a list, when key is empty
}

func (p *spot) String() string {
	if p == nil {
		return ""
	}
	if p.key == "" {
		return fmt.Sprintf("%s[%d]", p.in, p.index)
	}
	return strings.TrimPrefix(p.in.String()+"."+p.key, ".")
}

// plain refuses the parts of YAML that let two readers see two things. It
// reports whether the node itself can be read.
func (s *shaper) plain(n *yaml.Node, at *spot) bool {
	before := len(s.problems)
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		s.add(at, "Write the value out.", n, "Anchors and aliases are not taken.")
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!merge":
		s.add(at, "Write the values out.", n, "Merge keys are not taken.")
	case n.Style&yaml.TaggedStyle != 0:
		s.add(at, "Quote the value instead.", n, "Tags are not taken.")
	}
	return len(s.problems) == before
}

// value holds n against t and reports whether n may stay.
func (s *shaper) value(n *yaml.Node, t reflect.Type, at *spot) bool {
	if !s.plain(n, at) {
		return false
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	want, fix := "", ""
	switch {
	case t == reflect.TypeFor[document]():
		s.content(n, at)
		return true
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		return true // as good as absent
	case t.Kind() == reflect.Struct || t.Kind() == reflect.Map:
		if n.Kind == yaml.MappingNode {
			s.mapping(n, t, at)
			return true
		}
		want, fix = "a group of fields", "Write them below it, indented, each as name: value."
	case t.Kind() == reflect.Slice:
		if n.Kind == yaml.SequenceNode {
			s.items(n, t.Elem(), at)
			return true
		}
		want, fix = "a list", "Write [a, b], or one item a line, each after a dash."
	default:
		if n.Kind == yaml.ScalarNode && n.Load(reflect.New(t).Interface()) == nil {
			return true
		}
		want, fix = "text", "Write one text, in quotes if need be."
		switch t.Kind() {
		case reflect.Bool:
			want, fix = "a switch", "Write true or false."
		case reflect.Int, reflect.Int64:
			want, fix = "a whole number", "Write it in digits."
		case reflect.String:
			if n.Kind == yaml.MappingNode && n.Style&yaml.FlowStyle != 0 {
				fix = `Quote a value that starts with a brace: state: "{state}".`
			}
		}
	}
	s.add(at, fix, n, "This is not %s.", want)
	return false
}

// items keeps the place of an item that is taken out, so that those behind it
// keep their numbers.
func (s *shaper) items(n *yaml.Node, t reflect.Type, in *spot) {
	for i, item := range n.Content {
		at := &spot{in: in, index: i}
		if !s.value(item, t, at) {
			s.drop(at)
			n.Content[i] = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str"}
			if t.Kind() == reflect.Struct {
				n.Content[i] = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
			}
		}
	}
}

// mapping judges keys, and what stands behind them.
func (s *shaper) mapping(n *yaml.Node, t reflect.Type, in *spot) {
	known := fieldTypes(t)
	s.pairs(n, in, func(key, value *yaml.Node, at *spot) bool {
		of, ok := known[key.Value]
		switch {
		case t.Kind() == reflect.Map:
			of = t.Elem()
		case !ok:
			s.add(at, unknownFix(key.Value, known), key, "There is no such field.")
			return false
		}
		return s.value(value, of, at)
	})
}

// content judges a part that is JSON by nature, whose names are its own.
func (s *shaper) content(n *yaml.Node, in *spot) {
	switch n.Kind {
	case yaml.MappingNode:
		s.pairs(n, in, func(_, value *yaml.Node, at *spot) bool {
			if !s.plain(value, at) {
				return false
			}
			s.content(value, at)
			return true
		})
	case yaml.SequenceNode:
		for i, item := range n.Content {
			if at := (&spot{in: in, index: i}); s.plain(item, at) {
				s.content(item, at)
			}
		}
	}
}

// pairs goes through a mapping and takes out the pairs that keep refuses, and
// those whose key is a second one or no text.
func (s *shaper) pairs(n *yaml.Node, in *spot, keep func(key, value *yaml.Node, at *spot) bool) {
	first := map[string]int{} // line of each key
	var kept []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := &spot{in: in, key: key.Value}
		switch line, twice := first[key.Value]; {
		case key.Kind != yaml.ScalarNode || key.Value == "" || len(key.Value) > maxKeyBytes:
			s.add(in, "Use a plain name before the colon.", key, "A key is no text of 1 to %d bytes.", maxKeyBytes)
		case !s.plain(key, at):
			s.drop(at)
		case twice:
			s.add(at, "Remove one of the two.", key, "This key is there already, in line %d.", line)
		default:
			first[key.Value] = key.Line
			if keep(key, value, at) {
				kept = append(kept, key, value)
			} else {
				s.drop(at)
			}
		}
	}
	n.Content = kept
}

func fieldTypes(t reflect.Type) map[string]reflect.Type {
	if t.Kind() != reflect.Struct {
		return nil
	}
	out := map[string]reflect.Type{}
	for f := range t.Fields() {
		if name := f.Tag.Get("yaml"); name != "" {
			out[name] = f.Type
		}
	}
	return out
}

func unknownFix(name string, known map[string]reflect.Type) string {
	best, least := "", 3
	for _, k := range sortedKeys(known) {
		if d := distance(strings.ToLower(name), k, least); d < least && d < len(k) {
			best, least = k, d
		}
	}
	if best != "" {
		return "Did you mean " + best + "?"
	}
	return "Remove it, or move it to where it belongs. Here belong: " + strings.Join(sortedKeys(known), ", ") + "."
}

// distance counts the letters to change, add, drop or exchange between a and b,
// up to limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	var before, last []int
	for i := range len(a) + 1 {
		row := make([]int, len(b)+1)
		for j := range row {
			switch {
			case i == 0 || j == 0:
				row[j] = i + j
			case a[i-1] == b[j-1]:
				row[j] = last[j-1]
			default:
				row[j] = 1 + min(last[j-1], last[j], row[j-1])
				if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
					row[j] = min(row[j], 1+before[j-2])
				}
			}
		}
		before, last = last, row
	}
	return min(last[len(b)], limit)
}

// place gives the linter's problems their places in root, leaves out those that
// only follow from something that was taken out, and sorts all.
func (s *shaper) place(root *yaml.Node, found []Problem) []Problem {
	for _, p := range found {
		follows := slices.ContainsFunc(s.out, func(out string) bool { return within(p.Field, out) })
		if !follows && !s.full() {
			n := standing(root, p.Field)
			p.Line, p.Column = n.Line, n.Column
			s.problems = append(s.problems, p)
		}
	}
	slices.SortStableFunc(s.problems, func(a, b Problem) int {
		return cmp.Or(a.Line-b.Line, a.Column-b.Column)
	})
	return s.problems
}

func within(field, outer string) bool {
	rest, ok := strings.CutPrefix(field, outer)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// standing finds the node of a field, or of the nearest one around it.
func standing(n *yaml.Node, field string) *yaml.Node {
	best := n
	for field != "" {
		var next, key *yaml.Node
		if rest, ok := strings.CutPrefix(field, "["); ok {
			number, after, _ := strings.Cut(rest, "]")
			if i, err := strconv.Atoi(number); err == nil && n.Kind == yaml.SequenceNode && i < len(n.Content) {
				next, field = n.Content[i], after
			}
		} else if n.Kind == yaml.MappingNode {
			// A key may itself hold a dot: the longest that fits is meant.
			field = strings.TrimPrefix(field, ".")
			for i := 0; i+1 < len(n.Content); i += 2 {
				if k := n.Content[i]; k.Value != "" && within(field, k.Value) && (key == nil || len(k.Value) > len(key.Value)) {
					key, next = k, n.Content[i+1]
				}
			}
			if key != nil {
				field = field[len(key.Value):]
			}
		}
		if next == nil {
			break
		}
		n, best = next, next
		// A list or a group below its key is best found by the key.
		if key != nil && next.Kind != yaml.ScalarNode && next.Line > key.Line {
			best = key
		}
	}
	return best
}

package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// Limits of a record's text.
const (
	maxRecordBytes = 256 << 10
	maxRecordDepth = 32
	maxRecordNodes = 20_000
	maxProblems    = 100 // told at once
	maxKeyBytes    = 200
)

// Parse reads one YAML document, checks it and compiles its tools. [Problems]
// lists everything that is wrong with a text that it refuses.
func Parse(text []byte) (Record, error) {
	doc, err := readYAML(text)
	if err != nil {
		return Record{}, err
	}
	root := doc.Content[0]
	shape := &shaper{}
	var r Record
	shape.value(root, reflect.TypeFor[Record](), nil)
	if err := doc.Load(&r, yaml.WithKnownFields()); err != nil && len(shape.problems) == 0 {
		return Record{}, badYAML(err, text)
	}
	r.source = bytes.Clone(text)
	if problems := shape.place(root, r.compile()); len(problems) > 0 {
		return Record{}, problemFault(problems)
	}
	return r, nil
}

// Problem is one defect of a record.
type Problem struct {
	Field        string // such as tools[2].request.path; empty: the text as a whole
	Line, Column int    // from 1; of a field that is missing, where it belongs; 0: nowhere
	Message, Fix string
}

// String is the problem on one line.
func (p Problem) String() string {
	var b strings.Builder
	if p.Line > 0 {
		fmt.Fprintf(&b, "%d:%d: ", p.Line, p.Column)
	}
	if p.Field != "" {
		b.WriteString(p.Field + ": ")
	}
	return strings.TrimSpace(b.String() + p.Message + " " + p.Fix)
}

// problemList is the cause of a fault, from which Problems takes it.
type problemList []Problem

func (l problemList) Error() string {
	return fmt.Sprintf("%d problems", len(l))
}

// Problems lists what [Parse] found wrong, in the order of the text.
func Problems(err error) []Problem {
	if err == nil {
		return nil
	}
	if l, ok := errors.AsType[problemList](err); ok {
		return l
	}
	f := fault.Of(err)
	return []Problem{{Message: f.Message, Fix: f.Hint}}
}

func problemFault(problems []Problem) error {
	lines := make([]string, len(problems))
	for i, p := range problems {
		lines[i] = p.String()
	}
	msg := Problem{Field: problems[0].Field, Message: problems[0].Message}.String()
	if n := len(problems) - 1; n > 0 {
		msg += fmt.Sprintf(" (and %d more)", n)
	}
	return fault.New(fault.Invalid, "record_invalid", "The provider record is not valid. "+msg).
		WithHint(problems[0].Fix).With("problems", strings.Join(lines, "\n")).WithCause(problemList(problems))
}

// readYAML returns the single document of text, a mapping.
func readYAML(text []byte) (*yaml.Node, error) {
	if len(text) > maxRecordBytes {
		return nil, fault.New(fault.TooLarge, "record_too_large", fmt.Sprintf("The provider record is over %d KiB.", maxRecordBytes>>10))
	}
	if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
		return nil, fault.New(fault.Invalid, "record_invalid", "The provider record is not UTF-8 text.")
	}
	loader, err := yaml.NewLoader(bytes.NewReader(text), yaml.WithUniqueKeys())
	if err != nil {
		return nil, badYAML(err, text)
	}
	var doc, more yaml.Node
	if err := loader.Load(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, badYAML(err, text)
	}
	if err := loader.Load(&more); !errors.Is(err, io.EOF) {
		if err != nil {
			return nil, badYAML(err, text)
		}
		return nil, problemFault([]Problem{{Message: "There is more than one YAML document.", Fix: "Remove the line ---.", Line: more.Line, Column: max(1, more.Column)}})
	}
	rest := maxRecordNodes
	if !bounded(&doc, 0, &rest) {
		return nil, fault.New(fault.TooLarge, "record_too_complex",
			fmt.Sprintf("The provider record has over %d values or %d levels.", maxRecordNodes, maxRecordDepth))
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, fault.New(fault.Invalid, "record_invalid", "The provider record is not a YAML mapping.").
			WithHint("Start with id: and name: at the left margin.")
	}
	return &doc, nil
}

func bounded(n *yaml.Node, depth int, rest *int) bool {
	if *rest--; *rest < 0 || depth > maxRecordDepth {
		return false
	}
	return !slices.ContainsFunc(n.Content, func(c *yaml.Node) bool { return !bounded(c, depth+1, rest) })
}

// badYAML is text that cannot be read at all. What the parser says is put in our
// words where people meet it often.
func badYAML(err error, text []byte) error {
	p := Problem{Message: "This is not YAML.", Fix: "Compare it with the example in docs/providers.md."}
	e, ok := errors.AsType[*yaml.LoadError](err)
	if all, many := errors.AsType[*yaml.LoadErrors](err); many && len(all.Errors) > 0 {
		e, ok = all.Errors[0], true
	}
	if !ok {
		return problemFault([]Problem{p})
	}
	p.Line, p.Column = e.Mark.Line, e.Mark.Column
	if e.ContextMsg != "" && e.ContextMark.Line > 0 && strings.Contains(e.Message, "end of stream") {
		p.Line, p.Column = e.ContextMark.Line, e.ContextMark.Column // where it began; the end is the end of the text
	}
	switch said := e.ContextMsg + ": " + e.Message; {
	case strings.Contains(said, "mapping values are not allowed"):
		p.Message, p.Fix = "A colon stands where none can be.", "Quote a text that holds a colon and a blank, and indent fields of one group alike."
	case strings.Contains(said, "cannot start any token") && at(text, p.Line, p.Column) == '\t':
		p.Message, p.Fix = "The line is indented with a tab.", "Indent with blanks."
	case strings.Contains(said, "cannot start any token"):
		p.Message, p.Fix = "A value cannot start with this character.", "Quote the value."
	case strings.Contains(said, "did not find expected"):
		p.Message, p.Fix = "The line does not fit those above it.", "Indent fields of one group alike, and close every quote, bracket and brace."
	case strings.Contains(said, "end of stream"):
		p.Message, p.Fix = "What begins here is not closed.", "Add the quote, bracket or brace that is missing."
	default:
		p.Message = "This is not YAML: " + strings.Join(strings.Fields(fmt.Sprintf("%.200s", e.Message)), " ") + "."
	}
	return problemFault([]Problem{p})
}

// at is the byte at a place of text, or 0.
func at(text []byte, line, column int) byte {
	lines := bytes.Split(text, []byte("\n"))
	if line < 1 || line > len(lines) || column < 1 || column > len(lines[line-1]) {
		return 0
	}
	return lines[line-1][column-1]
}

// document is a part of a record that is JSON by nature: a schema, a body.
// It holds the canonical JSON of its YAML.
type document json.RawMessage

// UnmarshalYAML implements the decoder's interface.
func (d *document) UnmarshalYAML(n *yaml.Node) error {
	v, err := plainValue(n)
	if err != nil {
		return err
	}
	doc, err := strictjson.CanonicalOf(v)
	if err != nil {
		return errors.New("the value has no JSON form")
	}
	*d = doc
	return nil
}

func plainValue(n *yaml.Node) (any, error) {
	switch n.Kind {
	case yaml.DocumentNode:
		return plainValue(n.Content[0])
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			v, err := plainValue(n.Content[i+1])
			if err != nil {
				return nil, err
			}
			m[n.Content[i].Value] = v
		}
		return m, nil
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, c := range n.Content {
			v, err := plainValue(c)
			if err != nil {
				return nil, err
			}
			list[i] = v
		}
		return list, nil
	}
	var v any
	switch n.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!bool":
		var b bool
		if err := n.Load(&b); err != nil {
			return nil, err
		}
		return b, nil
	case "!!int", "!!float":
		if err := n.Load(&v); err != nil {
			return nil, err
		}
		return v, nil
	}
	return n.Value, nil
}

// sortedKeys makes iteration over a map of a record repeatable.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
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
)

// Parse reads one YAML document, checks it with [Lint] and compiles its tools.
// The fault's field "problems" lists everything that is wrong.
func Parse(text []byte) (Record, error) {
	doc, err := readYAML(text)
	if err != nil {
		return Record{}, err
	}
	var r Record
	if err := doc.Load(&r, yaml.WithKnownFields()); err != nil {
		return Record{}, badYAML(err)
	}
	r.source = bytes.Clone(text)
	if problems := r.compile(); len(problems) > 0 {
		return Record{}, problemFault(problems)
	}
	return r, nil
}

// Lint lists what is wrong with r; an empty list means that Parse takes it.
func Lint(r Record) []Problem {
	// compile fills in defaults, so it works on copies of what it may change.
	if r.OAuth != nil {
		o := *r.OAuth
		r.OAuth = &o
	}
	if r.Identity != nil {
		i := *r.Identity
		r.Identity = &i
	}
	r.ToolSpecs = slices.Clone(r.ToolSpecs)
	return r.compile()
}

// Problem is one defect of a record.
type Problem struct {
	Field   string // such as tools[2].request.path
	Message string
	Fix     string
}

func (p Problem) String() string { return p.Field + ": " + p.Message + " " + p.Fix }

func problemFault(problems []Problem) error {
	lines := make([]string, len(problems))
	for i, p := range problems {
		lines[i] = p.String()
	}
	msg := problems[0].Field + ": " + problems[0].Message
	if n := len(problems) - 1; n > 0 {
		msg += fmt.Sprintf(" (and %d more)", n)
	}
	return fault.New(fault.Invalid, "record_invalid", "The provider record is not valid. "+msg).
		WithHint(problems[0].Fix).With("problems", strings.Join(lines, "\n"))
}

// readYAML returns the single document of text, without the parts of YAML that
// let two readers see two things: anchors, aliases, merge keys, own tags,
// repeated keys.
func readYAML(text []byte) (*yaml.Node, error) {
	if len(text) > maxRecordBytes {
		return nil, fault.New(fault.TooLarge, "record_too_large", fmt.Sprintf("The provider record is over %d KiB.", maxRecordBytes>>10))
	}
	if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
		return nil, fault.New(fault.Invalid, "record_invalid", "The provider record is not UTF-8 text.")
	}
	loader, err := yaml.NewLoader(bytes.NewReader(text), yaml.WithUniqueKeys())
	if err != nil {
		return nil, badYAML(err)
	}
	var doc, more yaml.Node
	if err := loader.Load(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, badYAML(err)
	}
	if err := loader.Load(&more); !errors.Is(err, io.EOF) {
		return nil, fault.New(fault.Invalid, "record_invalid", "The provider record holds more than one YAML document.").WithHint("Remove the line ---.")
	}
	rest := maxRecordNodes
	if err := plainNode(&doc, 0, &rest); err != nil {
		return nil, err
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, fault.New(fault.Invalid, "record_invalid", "The provider record is not a YAML mapping.").
			WithHint("Start with id: and name: at the left margin.")
	}
	return &doc, nil
}

func plainNode(n *yaml.Node, depth int, rest *int) error {
	if *rest--; *rest < 0 || depth > maxRecordDepth {
		return fault.New(fault.TooLarge, "record_too_complex",
			fmt.Sprintf("The provider record has over %d values or %d levels.", maxRecordNodes, maxRecordDepth))
	}
	at := func(msg string) error {
		return fault.New(fault.Invalid, "record_invalid", fmt.Sprintf("Line %d of the provider record: %s", n.Line, msg))
	}
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return at("anchors and aliases are not taken; write the value out.")
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!merge":
		return at("merge keys are not taken; write the values out.")
	case n.Style&yaml.TaggedStyle != 0:
		return at("tags are not taken; quote the value instead.")
	}
	if n.Kind == yaml.MappingNode {
		for i := 0; i < len(n.Content); i += 2 {
			if n.Content[i].Kind != yaml.ScalarNode {
				return at("a key is not plain text.")
			}
		}
	}
	for _, c := range n.Content {
		if err := plainNode(c, depth+1, rest); err != nil {
			return err
		}
	}
	return nil
}

func badYAML(err error) error {
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > 300 {
		text = strings.ToValidUTF8(text[:300], "") + "…"
	}
	f := fault.New(fault.Invalid, "record_invalid", "The provider record cannot be read: "+text).WithCause(err)
	if strings.Contains(text, "!!map") {
		return f.WithHint(`A value that starts with a brace needs quotes: state: "{state}".`)
	}
	return f.WithHint("Remove or correct the named line. The reference lists all fields of a record.")
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

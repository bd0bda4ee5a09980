// Package openapi drafts a provider record from an OpenAPI description (3.0 and
// 3.1). What it makes is text for a person to read, with a list of what was left
// out and of what was guessed; it takes effect only as any other record does,
// once somebody has agreed to it.
//
// A description is somebody else's text. It is read as data of bounded size and
// depth, without aliases; a reference leads within the document or the document
// is refused, so that reading it opens no file and makes no request. Texts that
// agents will read are cut to one plain line.
package openapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
	"go.yaml.in/yaml/v4"

	"github.com/ambit-dev/ambit/internal/fault"
)

// Limits of a description.
const (
	// MaxBytes is the largest text that is read.
	MaxBytes = 8 << 20

	maxNodes = 600_000
	maxDepth = 60
	maxRefs  = 40_000
	maxChain = 100 // references that lead through one another
)

// Options say what to make of a description.
type Options struct {
	ID     string   // of the record; empty: made of the title
	Server string   // the API's base, when the description names none or another one is meant
	Source string   // where the description was read from, for addresses that are relative to it
	Only   []string // beginnings of paths; empty: all
}

// Draft is a record to be reviewed.
type Draft struct {
	YAML    string
	ID      string
	Tools   int
	Left    []Note // what of the description is not in the record
	Flagged []Note // what a person should look at, for it was guessed
}

// Note says one thing about one place of the description.
type Note struct {
	Where string // such as "DELETE /pets/{id}"
	Text  string // a sentence
}

// Read drafts a record from the text of a description, in JSON or YAML.
func Read(ctx context.Context, text []byte, o Options) (Draft, error) {
	doc, err := load(ctx, text)
	if err != nil {
		return Draft{}, err
	}
	return newDraft(doc, o).record()
}

// load reads the text into the library's types. The library sees JSON that was
// checked before: it has no aliases, and no reference leads out of it.
func load(ctx context.Context, text []byte) (*openapi3.T, error) {
	root, err := parse(text)
	if err != nil {
		return nil, err
	}
	version, _ := root["openapi"].(string)
	if !strings.HasPrefix(version, "3.0.") && !strings.HasPrefix(version, "3.1.") {
		if _, old := root["swagger"]; old {
			return nil, invalid("The description is of Swagger 2.0.", "Convert it to OpenAPI 3.0 or 3.1 first.")
		}
		return nil, invalid("The description does not say that it is of OpenAPI 3.0 or 3.1.", `It begins with a line such as openapi: 3.1.0.`)
	}
	if err := checkRefs(root); err != nil {
		return nil, err
	}
	clean, err := json.Marshal(root)
	if err != nil {
		return nil, invalid("The description has no JSON form.", "Correct it.")
	}
	loader := openapi3.NewLoader()
	loader.Context = ctx
	loader.ReadFromURIFunc = func(*openapi3.Loader, *url.URL) ([]byte, error) { return nil, errElsewhere }
	doc, err := loader.LoadFromData(clean)
	if err != nil {
		return nil, invalid("The description does not hold together: "+oneLine(err.Error(), 200), "Correct it; validators of OpenAPI say more.").WithCause(err)
	}
	if doc.Paths == nil || doc.Paths.Len() == 0 {
		return nil, invalid("The description names no paths.", "")
	}
	return doc, nil
}

var errElsewhere = errors.New("a reference leads out of the description")

func invalid(message, hint string) *fault.Error {
	return fault.New(fault.Invalid, "description_invalid", message).WithHint(hint)
}

// parse reads JSON or YAML into plain values. YAML is the wider of the two, but
// JSON is read as JSON: it is what large descriptions are in.
func parse(text []byte) (map[string]any, error) {
	if len(text) > MaxBytes {
		return nil, fault.New(fault.TooLarge, "description_too_large", fmt.Sprintf("The description is over %d MiB.", MaxBytes>>20))
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
		return nil, invalid("The description is not UTF-8 text.", "")
	}
	var v any
	if trimmed := bytes.TrimSpace(text); len(trimmed) > 0 && trimmed[0] == '{' {
		d := json.NewDecoder(bytes.NewReader(trimmed))
		d.UseNumber()
		if err := d.Decode(&v); err == nil {
			return bounded(v)
		}
	}
	loader, err := yaml.NewLoader(bytes.NewReader(text), yaml.WithUniqueKeys())
	if err != nil {
		return nil, invalid("The description is neither JSON nor YAML.", "").WithCause(err)
	}
	var doc yaml.Node
	if err := loader.Load(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, invalid("The description is neither JSON nor YAML.", "").WithCause(err)
	}
	rest := maxNodes
	if v, err = plain(&doc, 0, &rest); err != nil {
		return nil, err
	}
	return bounded(v)
}

func tooComplex() error {
	return fault.New(fault.TooLarge, "description_too_large", fmt.Sprintf("The description has over %d values or %d levels.", maxNodes, maxDepth))
}

// plain makes values of YAML. An alias is refused: a few lines of them can stand
// for more than fits in memory.
func plain(n *yaml.Node, depth int, rest *int) (any, error) {
	if *rest--; *rest < 0 || depth > maxDepth {
		return nil, tooComplex()
	}
	switch n.Kind {
	case yaml.DocumentNode:
		return plain(n.Content[0], depth, rest)
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			v, err := plain(n.Content[i+1], depth+1, rest)
			if err != nil {
				return nil, err
			}
			if n.Content[i].Kind != yaml.ScalarNode {
				return nil, invalid("The description has a name that is no text.", "")
			}
			m[n.Content[i].Value] = v
		}
		return m, nil
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, c := range n.Content {
			var err error
			if list[i], err = plain(c, depth+1, rest); err != nil {
				return nil, err
			}
		}
		return list, nil
	case yaml.ScalarNode:
		var v any
		switch n.ShortTag() {
		case "!!null":
			return nil, nil
		case "!!bool", "!!int", "!!float":
			if err := n.Load(&v); err == nil {
				if _, err := json.Marshal(v); err == nil {
					return v, nil
				}
			}
		}
		return n.Value, nil
	case yaml.AliasNode:
		return nil, invalid("The description uses aliases of YAML.", "Write it out, or use $ref.")
	}
	return nil, invalid("The description is empty.", "")
}

func bounded(v any) (map[string]any, error) {
	root, ok := v.(map[string]any)
	if !ok {
		return nil, invalid("The description is not an object.", "")
	}
	rest := maxNodes
	if !within(v, 0, &rest) {
		return nil, tooComplex()
	}
	return root, nil
}

func within(v any, depth int, rest *int) bool {
	if *rest--; *rest < 0 || depth > maxDepth {
		return false
	}
	switch v := v.(type) {
	case map[string]any:
		for _, inner := range v {
			if !within(inner, depth+1, rest) {
				return false
			}
		}
	case []any:
		return !slices.ContainsFunc(v, func(inner any) bool { return !within(inner, depth+1, rest) })
	}
	return true
}

// checkRefs refuses references that lead out of the document or that lead on and
// on.
func checkRefs(root map[string]any) error {
	r := refs{from: map[string][]string{}, depth: map[string]int{}}
	if err := r.collect("#", root); err != nil {
		return err
	}
	for _, at := range slices.Sorted(keys(r.from)) {
		if r.chain(at) > maxChain {
			return fault.New(fault.TooLarge, "description_too_large", fmt.Sprintf("References lead through one another over %d times, from %s.", maxChain, oneLine(at, 100)))
		}
	}
	return nil
}

type refs struct {
	count int
	from  map[string][]string // a component, and those that it refers to
	depth map[string]int      // -1: being looked at
}

// collect finds the references below v. at is the component that they stand in.
func (r *refs) collect(at string, v any) error {
	switch v := v.(type) {
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok {
			if !strings.HasPrefix(ref, "#/") {
				return invalid("The reference "+quoted(ref)+" leads out of the description.", "Bundle the description into one document first.")
			}
			if r.count++; r.count > maxRefs {
				return fault.New(fault.TooLarge, "description_too_large", fmt.Sprintf("The description has over %d references.", maxRefs))
			}
			r.from[at] = append(r.from[at], component(ref))
		}
		for name, inner := range v {
			place := at
			if strings.Count(at, "/") < 3 && (at == "#" || strings.HasPrefix(at, "#/components")) {
				place = at + "/" + name
			}
			if err := r.collect(place, inner); err != nil {
				return err
			}
		}
	case []any:
		for _, inner := range v {
			if err := r.collect(at, inner); err != nil {
				return err
			}
		}
	}
	return nil
}

// component cuts a reference to the component that it leads into.
func component(ref string) string {
	parts := strings.SplitN(ref, "/", 5)
	return strings.Join(parts[:min(len(parts), 4)], "/")
}

// chain is how many references follow one another from a component, at most.
// A way that comes back to itself is counted once.
func (r *refs) chain(at string) int {
	if d, known := r.depth[at]; known {
		return max(d, 0)
	}
	r.depth[at] = -1
	longest := 0
	for _, to := range r.from[at] {
		if longest = max(longest, 1+r.chain(to)); longest > maxChain {
			break
		}
	}
	r.depth[at] = longest
	return longest
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func quoted(s string) string { return fmt.Sprintf("%q", oneLine(s, 80)) }

// oneLine makes text plain: no control, direction or invisible characters, single
// blanks, at most limit bytes.
func oneLine(s string, limit int) string {
	var b strings.Builder
	blank := false
	for _, r := range s {
		switch {
		case r == ' ' || r == '\n' || r == '\r' || r == '\t' || r == '\u00a0':
			blank = b.Len() > 0
			continue
		case !printable(r):
			continue
		case blank:
			b.WriteByte(' ')
			blank = false
		}
		if b.Len()+utf8.RuneLen(r)+len("…") > limit {
			return strings.TrimRight(b.String(), " ") + "…"
		}
		b.WriteRune(r)
	}
	return b.String()
}

package provider

import (
	"cmp"
	"embed"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/ambit-dev/ambit/internal/fault"
)

//go:embed catalog/*.yaml
var catalogFiles embed.FS

// Template is a record with blanks. {{name}} stands for a whole value, and, in
// one whose parameter has a pattern or options, for a part of it.
type Template struct {
	ID          string  `yaml:"template"`
	Name        string  `yaml:"name"`
	Description string  `yaml:"description"`
	Params      []Param `yaml:"params"`

	record *yaml.Node
}

// Param is one blank of a template.
type Param struct {
	Name     string `yaml:"name"`
	Title    string `yaml:"title"`
	Help     string `yaml:"help"`
	Kind     string `yaml:"kind"` // text, slug, bool, words (separated by blanks or commas) or lines
	Default  string `yaml:"default"`
	Required bool   `yaml:"required"`

	Pattern string   `yaml:"pattern"` // a regular expression that all of the value must match
	Options []string `yaml:"options"` // or the values that there are
	Example string   `yaml:"example"`
}

// catalog is what the binary brings along.
type catalog struct {
	records   map[string]Record
	templates map[string]Template
}

func readCatalog(files fs.FS) (catalog, error) {
	c := catalog{records: map[string]Record{}, templates: map[string]Template{}}
	paths, err := fs.Glob(files, "catalog/*.yaml")
	if err != nil {
		return c, fmt.Errorf("list the built-in providers: %w", err)
	}
	for _, path := range paths {
		text, err := fs.ReadFile(files, path)
		if err != nil {
			return c, fmt.Errorf("read the built-in provider %s: %w", path, err)
		}
		id, err := c.add(text)
		if err != nil {
			return c, fmt.Errorf("read the built-in provider %s: %w", path, err)
		}
		if path != "catalog/"+id+".yaml" {
			return c, fmt.Errorf("the built-in provider %s has the id %s", path, id)
		}
	}
	return c, nil
}

func (c catalog) add(text []byte) (string, error) {
	doc, err := readYAML(text)
	if err != nil {
		return "", err
	}
	if mapValue(doc.Content[0], "template") == nil {
		r, err := Parse(text)
		c.records[r.ID] = r
		return r.ID, err
	}
	var t struct {
		Template `yaml:",inline"`
		Record   yaml.Node `yaml:"record"`
	}
	if err := doc.Load(&t, yaml.WithKnownFields()); err != nil {
		return "", badYAML(err, text)
	}
	t.record = &t.Record
	c.templates[t.ID] = t.Template
	return t.ID, nil
}

// Templates lists the templates that this binary brings along, by id.
func Templates() ([]Template, error) {
	c, err := readCatalog(catalogFiles)
	return c.list(), err
}

func (c catalog) list() (all []Template) {
	for _, k := range sortedKeys(c.templates) {
		all = append(all, c.templates[k])
	}
	return all
}

// taken reports whether a slug belongs to the catalogue.
func (c catalog) taken(slug string) bool {
	_, record := c.records[slug]
	_, template := c.templates[slug]
	return record || template
}

func mapValue(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// Record fills the blanks. What is filled in stays one value of the YAML,
// whatever characters it holds; a blank left empty is left out with its name.
// The record's Source can be stored and edited further.
func (t Template) Record(params map[string]string) (Record, error) {
	values := map[string]*yaml.Node{}
	for _, name := range sortedKeys(params) {
		if !slices.ContainsFunc(t.Params, func(p Param) bool { return p.Name == name }) {
			return Record{}, fault.New(fault.Invalid, "template_param_unknown", "The template has no parameter "+quoted(name)+".")
		}
	}
	var missing, help []string
	for _, p := range t.Params {
		v, given := params[p.Name]
		if !given {
			v = p.Default
		}
		if v == "" && p.Required {
			missing, help = append(missing, p.Name), append(help, p.Title+": "+cmp.Or(p.Help, "required"))
			continue
		}
		if err := p.check(v); err != nil {
			return Record{}, err
		}
		n, err := p.node(v)
		if err != nil {
			return Record{}, err
		}
		values[p.Name] = n
	}
	if len(missing) == 1 {
		return Record{}, fault.New(fault.Invalid, "template_param_missing", "The parameter "+missing[0]+" is missing.").WithHint(help[0])
	}
	if len(missing) > 1 {
		return Record{}, fault.New(fault.Invalid, "template_param_missing", "Parameters are missing: "+strings.Join(missing, ", ")+".").WithHint(strings.Join(help, "; "))
	}
	filled := fillNode(t.record, values)
	if filled == nil {
		return Record{}, fault.New(fault.NotFound, "not_found", "No such template.")
	}
	text, err := yaml.Dump(filled)
	if err != nil {
		return Record{}, fmt.Errorf("write a provider record from a template: %w", err)
	}
	return Parse(text)
}

// node makes the YAML of a value; nil means that it is left out.
func (p Param) node(v string) (*yaml.Node, error) {
	if v == "" {
		return nil, nil
	}
	switch p.Kind {
	case "bool":
		if v != "true" && v != "false" {
			return nil, fault.New(fault.Invalid, "template_param_invalid", "The parameter "+p.Name+" is true or false.")
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: v}, nil
	case "words", "lines":
		split := func(r rune) bool { return r == '\n' || r == ',' || r == ' ' && p.Kind == "words" }
		list := &yaml.Node{Kind: yaml.SequenceNode}
		for _, item := range strings.FieldsFunc(v, split) {
			if item = strings.TrimSpace(item); item != "" {
				list.Content = append(list.Content, textNode(item))
			}
		}
		return list, nil
	}
	return textNode(v), nil
}

func textNode(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Style: yaml.DoubleQuotedStyle}
}

// fillNode copies n with its blanks filled; nil when nothing of it is left.
func fillNode(n *yaml.Node, values map[string]*yaml.Node) *yaml.Node {
	if n == nil {
		return nil
	}
	switch {
	case n.Kind == yaml.ScalarNode:
		return fillText(n, values)
	case len(n.Content) == 0:
		return n // it was meant to be empty
	}
	switch n.Kind {
	case yaml.MappingNode:
		out := &yaml.Node{Kind: n.Kind}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if v := fillNode(n.Content[i+1], values); v != nil {
				out.Content = append(out.Content, n.Content[i], v)
			}
		}
		return orNone(out)
	}
	out := &yaml.Node{Kind: n.Kind}
	for _, c := range n.Content {
		if v := fillNode(c, values); v != nil {
			out.Content = append(out.Content, v)
		}
	}
	return orNone(out)
}

// fillText fills the blanks of one value. A blank within a text that is left
// empty is nothing there.
func fillText(n *yaml.Node, values map[string]*yaml.Node) *yaml.Node {
	names := blanks.FindAllStringSubmatch(n.Value, -1)
	if len(names) == 0 {
		return n
	}
	if names[0][0] == n.Value {
		return values[names[0][1]]
	}
	return textNode(blanks.ReplaceAllStringFunc(n.Value, func(blank string) string {
		if v := values[strings.Trim(blank, "{}")]; v != nil {
			return v.Value
		}
		return ""
	}))
}

var blanks = regexp.MustCompile(`\{\{([a-z][a-z0-9_]*)\}\}`)

// check holds a value against the parameter's pattern and options.
func (p Param) check(v string) error {
	if p.Pattern == "" && len(p.Options) == 0 || v == "" {
		return nil
	}
	help := "One of: " + strings.Join(p.Options, ", ")
	ok := slices.Contains(p.Options, v)
	if p.Pattern != "" {
		re, err := regexp.Compile(`\A(?:` + p.Pattern + `)\z`)
		if err != nil {
			return fmt.Errorf("the pattern of %s: %w", p.Name, err)
		}
		ok, help = re.MatchString(v), "Such as "+p.Example
	}
	if ok {
		return nil
	}
	return fault.New(fault.Invalid, "template_param_invalid", "The parameter "+p.Name+" cannot be "+quoted(v)+".").WithHint(cmp.Or(p.Help, help) + ".")
}

func orNone(n *yaml.Node) *yaml.Node {
	if len(n.Content) == 0 {
		return nil
	}
	return n
}

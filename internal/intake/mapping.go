package intake

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/ambit-dev/ambit/internal/fault"
)

// Mapping says what becomes of the paths of a source. The first rule that a path fits
// counts; a path that fits none is left where it is.
type Mapping struct {
	Rules []Rule `yaml:"rules"`
}

// Rule maps the paths of one form. In Path a segment in braces takes any segment and
// gives it a name, {name...} at the end takes all that is left, and * takes any
// segment. Name, Context and Tags use what was taken, in braces; {path} is all of it
// and {base} its last segment.
type Rule struct {
	Path    string            `yaml:"path"`
	Name    string            `yaml:"name"`
	Context map[string]string `yaml:"context"`
	Tags    []string          `yaml:"tags"`
	// Replace gives other values for what was taken, such as an organization's id for
	// its name in a path. What it does not list is an error of that path.
	Replace map[string]map[string]string `yaml:"replace"`
	Skip    bool                         `yaml:"skip"` // leave these where they are
}

// Target is where a secret comes to.
type Target struct {
	Name    string
	Context map[string]string
	Tags    []string
}

// Everywhere maps every path to prefix and itself.
func Everywhere(prefix string, context map[string]string) Mapping {
	return Mapping{Rules: []Rule{{Path: "{all...}", Name: prefix + "{path}", Context: context}}}
}

// ParseMapping reads a mapping in YAML.
func ParseMapping(doc []byte) (Mapping, error) {
	var m Mapping
	if err := yaml.Load(doc, &m, yaml.WithKnownFields()); err != nil {
		return Mapping{}, invalid("it is not well-formed: " + strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if len(m.Rules) == 0 {
		return Mapping{}, invalid("it has no rules")
	}
	for i, r := range m.Rules {
		if problem := r.problem(); problem != "" {
			return Mapping{}, invalid(fmt.Sprintf("rule %d: %s", i+1, problem))
		}
	}
	return m, nil
}

func invalid(why string) error {
	return fault.New(fault.Invalid, "mapping_invalid", "The mapping cannot be used: "+why+".").
		WithHint("docs/import.md shows its form.")
}

func (r Rule) problem() string {
	names := []string{"path", "base"}
	segments := strings.Split(r.Path, "/")
	for i, s := range segments {
		name, braced := inBraces(s)
		rest := strings.HasSuffix(name, "...")
		switch {
		case s == "":
			return "its path has an empty segment"
		case !braced:
			continue
		case rest && i < len(segments)-1:
			return s + " stands only at the end of a path"
		}
		if name = strings.TrimSuffix(name, "..."); name == "" || slices.Contains(names, name) {
			return s + " needs a name of its own"
		}
		names = append(names, name)
	}
	if r.Skip {
		return ""
	}
	if r.Name == "" {
		return "it needs a name, or skip"
	}
	for of := range r.Replace {
		if !slices.Contains(names, of) {
			return "it replaces {" + of + "}, which its path does not take"
		}
	}
	used := append([]string{r.Name}, r.Tags...)
	for _, v := range r.Context {
		used = append(used, v)
	}
	for _, text := range used {
		for _, name := range placeholders(text) {
			if !slices.Contains(names, name) {
				return "it uses {" + name + "}, which its path does not take"
			}
		}
	}
	return ""
}

func inBraces(s string) (string, bool) {
	if len(s) > 1 && s[0] == '{' && s[len(s)-1] == '}' {
		return s[1 : len(s)-1], true
	}
	return s, false
}

func placeholders(text string) (names []string) {
	for {
		_, after, ok := strings.Cut(text, "{")
		if !ok {
			return names
		}
		name, rest, ok := strings.Cut(after, "}")
		if !ok {
			return names
		}
		names, text = append(names, name), rest
	}
}

// Target says where a path comes to; ok is false where it stays.
func (m Mapping) Target(p string) (t Target, ok bool, err error) {
	p = strings.Trim(p, "/") // as some of AWS' names have
	for _, r := range m.Rules {
		taken, fits := r.fits(p)
		if !fits {
			continue
		}
		if r.Skip {
			return Target{}, false, nil
		}
		t, err := r.target(p, taken)
		return t, err == nil, err
	}
	return Target{}, false, nil
}

func (r Rule) fits(p string) (map[string]string, bool) {
	taken := map[string]string{}
	form, have := strings.Split(r.Path, "/"), strings.Split(p, "/")
	for i, f := range form {
		name, braced := inBraces(f)
		if rest, ok := strings.CutSuffix(name, "..."); braced && ok {
			if i >= len(have) {
				return nil, false
			}
			taken[rest] = strings.Join(have[i:], "/")
			return taken, true
		}
		switch {
		case i >= len(have), have[i] == "":
			return nil, false
		case braced:
			taken[name] = have[i]
		case f != "*" && f != have[i]:
			return nil, false
		}
	}
	return taken, len(form) == len(have)
}

func (r Rule) target(p string, taken map[string]string) (Target, error) {
	for name, by := range r.Replace {
		to, ok := by[taken[name]]
		if !ok {
			return Target{}, fault.New(fault.Invalid, "not_mapped", fmt.Sprintf("The mapping has no replacement for %q.", taken[name])).WithHint("List it under replace, or skip these paths.")
		}
		taken[name] = to
	}
	taken["path"], taken["base"] = p, path.Base(p)
	var pairs []string
	for name, v := range taken {
		pairs = append(pairs, "{"+name+"}", v)
	}
	fill := strings.NewReplacer(pairs...).Replace // in one pass: what was taken is not looked at again
	t := Target{Name: fill(r.Name), Context: map[string]string{}}
	for k, v := range r.Context {
		t.Context[k] = fill(v)
	}
	for _, tag := range r.Tags {
		t.Tags = append(t.Tags, fill(tag))
	}
	return t, nil
}

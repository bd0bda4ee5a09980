package provider

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// Target is how Ambit finds out what a call is about, for the person who decides
// on it. Unnamed says why nothing can.
type Target struct {
	Unnamed string

	plan   *plan // of the tool that looks it up
	tool   string
	args   []param
	names  []string
	inside string
}

const maxTargetName = 200

// compileTargets joins tools with those that name what they are about.
func (r *Record) compileTargets(l *linter, places []int) {
	for i, t := range r.tools {
		spec := r.ToolSpecs[places[i]].Target
		if spec == nil {
			continue
		}
		r.tools[i].Target = r.compileTarget(l, fmt.Sprintf("tools[%d].target", places[i]), t, spec)
	}
}

func (r *Record) compileTarget(l *linter, field string, t Tool, s *TargetSpec) *Target {
	l.text(field+".unnamed", s.Unnamed, 300, false, false)
	if s.Unnamed != "" {
		if s.Tool != "" || len(s.Arguments) > 0 || len(s.Name) > 0 || s.Inside != "" {
			l.add(field, "Give unnamed alone, or tool and name.", "The target is both looked up and unnamed.")
		}
		return &Target{Unnamed: s.Unnamed}
	}
	found, ok := Tool{}, false
	for _, other := range r.tools {
		if other.Name == r.ID+"_"+s.Tool {
			found, ok = other, true
		}
	}
	if t.Effect == policy.Read && t.plan.classify == nil {
		l.add(field, "Remove it.", "Nobody is asked about a tool that only reads.")
		return nil
	}
	if broken := func(spec ToolSpec) bool {
		return spec.Name == s.Tool && spec.Effect == policy.Read && spec.Classify == nil
	}; !ok && slices.ContainsFunc(r.ToolSpecs, broken) {
		return nil // what is wrong with it is told where it stands
	}
	if !ok || found.Effect != policy.Read || found.plan.classify != nil {
		l.add(field+".tool", "Name a tool of this record that reads.", "%s is no tool that reads.", quoted(s.Tool))
		return nil
	}
	out := &Target{plan: found.plan, tool: found.Name, names: s.Name, inside: s.Inside}
	if s.Inside != "" && !validFieldPath(s.Inside) {
		l.add(field+".inside", "Name a field such as data.", "%s is not a field path.", quoted(s.Inside))
	}
	if len(s.Name) == 0 {
		l.add(field+".name", "Name the field of its answer that people know it by, such as name or data.title.", "The name is missing.")
	}
	for i, path := range s.Name {
		if !validFieldPath(path) {
			l.add(fmt.Sprintf("%s.name[%d]", field, i), "Name a field such as data.title.", "%s is not a field path.", quoted(path))
		}
	}
	given := s.Arguments
	if given == nil {
		given = map[string]string{}
		for _, name := range found.plan.needs {
			given[name] = "{" + name + "}"
		}
	}
	for _, name := range sortedKeys(given) {
		at := field + ".arguments." + name
		v := param{name: name, value: given[name]}
		if !found.plan.names[name] {
			l.add(at, "Name an argument of that tool.", "%s takes no %s.", quoted(s.Tool), quoted(name))
		}
		if v.arg = l.placeholder(at, v.value, t.plan, map[string]bool{}); v.arg != "" && !slices.Contains(t.plan.needs, v.arg) {
			l.add(at, "Make it required, or use a constant.", "{%s} is not a required argument.", v.arg)
		}
		out.args = append(out.args, v)
	}
	for _, name := range found.plan.needs {
		if _, ok := given[name]; !ok {
			l.add(field+".arguments", "Add it.", "%s needs %s.", quoted(s.Tool), quoted(name))
		}
	}
	return out
}

// LookUp makes the request that names what a call is about. req is that call as
// [Tool.Build] made it, and api what the connection pins. It is nil when there is
// nothing to look up.
func (t Tool) LookUp(rec Record, req *Request, api ...string) (Tool, *Request, error) {
	if t.Target == nil || t.Target.plan == nil {
		return Tool{}, nil, nil
	}
	found, ok := rec.Tool(t.Target.tool)
	if !ok {
		return Tool{}, nil, fault.New(fault.NotFound, "not_found", "No such tool.")
	}
	given := arguments{}
	if err := unmarshal(req.Args, &given); err != nil {
		return Tool{}, nil, badArguments("The arguments are not a JSON object.")
	}
	args := map[string]json.RawMessage{}
	for _, a := range t.Target.args {
		switch v, ok := given[a.arg]; {
		case a.arg == "":
			doc, err := json.Marshal(a.value)
			if err != nil {
				return Tool{}, nil, err
			}
			args[a.name] = doc
		case ok:
			args[a.name] = json.RawMessage(v)
		}
	}
	doc, err := strictjson.CanonicalOf(args)
	if err != nil {
		return Tool{}, nil, err
	}
	built, err := found.Build(doc, api...)
	return found, built, err
}

// maxStands bounds what is kept of a look-up's answer, in bytes of values.
const maxStands = 256 << 10

// Stands reads out of a look-up's answer what stands now where a call changes
// something: the fields of the thing, named as the call's own are, "body title". nil
// says that nobody knows.
func (t *Target) Stands(req *Request, a Answer) []Field {
	if t == nil || !a.JSON || a.Status < 200 || a.Status > 299 || req.Method != http.MethodPatch && req.Method != http.MethodPut && req.Method != http.MethodPost {
		return nil
	}
	thing := jsontext.Value(a.Body)
	if t.inside != "" {
		var ok bool
		if thing, ok = fieldValue(a.Body, t.inside); !ok {
			return nil
		}
	}
	if thing.Kind() != '{' {
		return nil
	}
	changed := map[string]bool{}
	for _, f := range req.Summary.Body {
		changed[topField(f.Name)] = true
	}
	var out []Field
	size := 0
	for _, f := range flatten(nil, "", thing) {
		if name := "body " + f.Name; changed[topField(name)] {
			if size += len(name) + len(f.Value); size > maxStands {
				return nil
			}
			out = append(out, Field{name, f.Value})
		}
	}
	return out
}

// topField is the first part of the name of a body's field: "body a.b[0]" is of a.
func topField(name string) string {
	name = strings.TrimPrefix(name, "body ")
	if i := strings.IndexAny(name, ".[ "); i > 0 {
		return name[:i]
	}
	return name
}

// Named reads the name out of a look-up's answer. It is the provider's text,
// which may say anything: one printable line of at most 200 characters.
func (t *Target) Named(a Answer) (string, bool) {
	if t == nil || !a.JSON || a.Status < 200 || a.Status > 299 {
		return "", false
	}
	var words []string
	for _, path := range t.names {
		if text, ok := fieldText(a.Body, path); ok {
			words = append(words, text)
		}
	}
	name := strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if unprintable(r) {
			return '\uFFFD'
		}
		return r
	}, strings.Join(words, " · "))
	runes := []rune(strings.Join(strings.Fields(name), " "))
	if len(runes) > maxTargetName {
		runes = append(runes[:maxTargetName], '…')
	}
	return string(runes), len(runes) > 0
}

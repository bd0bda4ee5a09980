package provider

import (
	"fmt"
	"slices"
	"strings"
)

// Shown says what the fields of a call are, so that a person reads a mail as a mail
// and a statement as a statement. It comes from the tool's record and from the form
// of its body, never from an agent.
type Shown struct {
	As    string            `json:"as"`    // mail, sql or graphql
	Parts map[string]string `json:"parts"` // names of fields, without places in lists, by what they are
}

// ShowSpec is Shown as a record says it, for a body that does not tell by itself.
type ShowSpec struct {
	As    string            `yaml:"as" enum:"mail,sql,graphql"`
	Parts map[string]string `yaml:"parts"` // fields of the body, such as message.subject
}

// The parts that people read, by what is shown, in their order.
func shownParts(as string) []string {
	switch as {
	case "mail":
		return []string{"from", "to", "cc", "bcc", "subject", "text", "html"}
	case "sql", "graphql":
		return []string{"statement"}
	}
	return nil
}

// PartsOf lists what can be a part of what is shown as as, in the order to read it.
func (s Shown) PartsOf() []string { return shownParts(s.As) }

// Part is which part of it a field of the call is; empty: none.
func (s *Shown) Part(field string) string {
	if s == nil {
		return ""
	}
	name := withoutPlaces(field)
	for _, part := range shownParts(s.As) {
		if at, ok := s.Parts[part]; ok && at == name {
			return part
		}
	}
	return ""
}

// withoutPlaces takes the places in lists out of a name: to[0].name is to.name.
func withoutPlaces(name string) string {
	var out strings.Builder
	for name != "" {
		before, rest, found := strings.Cut(name, "[")
		out.WriteString(before)
		if !found {
			break
		}
		digits, after, closed := strings.Cut(rest, "]")
		if !closed || strings.Trim(digits, "0123456789") != "" || digits == "" {
			out.WriteString("[")
			name = rest
			continue
		}
		name = after
	}
	return out.String()
}

// compileShow finds what people read of a tool's calls.
func (p *plan) compileShow(l *linter, field string, spec ToolSpec) {
	if s := spec.Show; s != nil {
		if shownParts(s.As) == nil {
			l.add(field+".as", "Say mail, sql or graphql.", "%s is nothing that can be shown.", quoted(s.As))
			return
		}
		if len(s.Parts) == 0 {
			l.add(field+".parts", "Name the fields of the body.", "The parts are missing.")
		}
		p.shown = &Shown{As: s.As, Parts: map[string]string{}}
		for _, part := range sortedKeys(s.Parts) {
			if !slices.Contains(shownParts(s.As), part) {
				l.add(field+".parts."+part, "Use "+strings.Join(shownParts(s.As), ", ")+".", "%s is no part of it.", quoted(part))
			}
			if !validFieldPath(s.Parts[part]) {
				l.add(fmt.Sprintf("%s.parts.%s", field, part), "Name a field such as message.subject.", "%s is not a field path.", quoted(s.Parts[part]))
			}
			p.shown.Parts[part] = "body " + s.Parts[part]
		}
		return
	}
	if p.body == nil {
		return
	}
	if at, ok := p.body.find("body ", func(t *bodyTemplate) bool { return t.kind == 'm' }); ok {
		p.shown = &Shown{As: "mail", Parts: map[string]string{}}
		for _, part := range shownParts("mail") {
			p.shown.Parts[part] = under(at, part)
		}
		return
	}
	if c := spec.Classify; c != nil {
		if at, ok := p.body.find("body ", func(t *bodyTemplate) bool { return t.arg == c.Argument }); ok {
			p.shown = &Shown{As: c.Language, Parts: map[string]string{"statement": at}}
		}
	}
}

// find gives the name of the first part of a template that is looked for, as the
// fields of a call have it, without places in lists.
func (t *bodyTemplate) find(name string, is func(*bodyTemplate) bool) (string, bool) {
	if is(t) {
		return strings.TrimSuffix(name, " "), true
	}
	for _, m := range t.members {
		if at, ok := m.value.find(under(name, plainLabel(m.name)), is); ok {
			return at, true
		}
	}
	for _, item := range t.items {
		if at, ok := item.find(name, is); ok {
			return at, true
		}
	}
	return "", false
}

func under(name, part string) string {
	if strings.HasSuffix(name, " ") {
		return name + part
	}
	return name + "." + part
}

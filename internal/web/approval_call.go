package web

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
)

// What of a call is shown at once; the rest is opened, and has to be before a yes.
const (
	shownFields = 12
	shownText   = 600 // letters of one value
	shownLines  = 10
	shownBlock  = 1200 // of a mail's text, or a statement
	blockLines  = 16
)

// callView shows a call as what it is: a mail, a statement, an update of what
// stands there, or fields. What is what the tool's record says (threats.md A1). nil: it
// is the request of a session.
func callView(a session.Approval) *CallView {
	c := a.Call
	if c == nil {
		return nil
	}
	out := &CallView{Method: c.Method, Effect: c.Effect, Path: c.URL, Target: a.Target}
	if c.Shown != nil {
		out.As = c.Shown.As
	}
	if u, err := url.Parse(c.URL); err == nil {
		out.Host, out.Path = u.Host, strings.TrimPrefix(c.URL, u.Scheme+"://"+u.Host)
	}
	path, whole := cutText(exact(out.Path), shownText, shownLines)
	if !whole {
		out.More = append(out.More, Fact{Name: "address", Value: out.Path})
	}
	out.Path = path
	if a.Target == "" && out.As != "mail" && (c.Effect == policy.Destructive || c.Effect == policy.Access) {
		out.Unnamed = cmp.Or(c.Unnamed, "Nobody could name it. The ids below are all there is.")
	}
	parts := map[string][]string{}
	var fields []CallField
	for _, f := range c.Fields {
		if part := c.Shown.Part(f.Name); part != "" {
			parts[part] = append(parts[part], f.Value)
			continue
		}
		fields = append(fields, out.field(f))
	}
	if c.Shown != nil {
		for _, part := range c.Shown.PartsOf() {
			if values := parts[part]; len(values) > 0 {
				out.Parts = append(out.Parts, out.part(part, values))
			}
		}
	}
	fields = append(fields, compare(fields, a.Stands)...)
	out.Compared = slices.ContainsFunc(fields, func(f CallField) bool { return f.Was != "" || f.Same })
	plainNames(fields, out.More)
	out.Fields = fields[:min(len(fields), shownFields)]
	for i, f := range fields {
		beyond := i >= shownFields
		if (f.Was != "" || f.Gone) && (beyond || f.WasCut) {
			out.More = append(out.More, Fact{Name: f.Name + map[bool]string{true: ", which is taken out", false: ", now"}[f.Gone], Value: f.FullWas})
		}
		switch {
		case !beyond, f.Gone:
		case f.Was != "":
			out.More = append(out.More, Fact{Name: f.Name + ", then", Value: f.Full})
		case !f.Cut: // else it stands there already
			out.More = append(out.More, Fact{Name: f.Name, Value: f.Full})
		}
	}
	return out
}

// plainNames leaves the place out of the names of fields that are all of the body.
func plainNames(fields []CallField, more []Fact) {
	body := func(name string) bool { return strings.HasPrefix(name, "body ") }
	if slices.ContainsFunc(fields, func(f CallField) bool { return !body(f.Name) }) {
		return
	}
	for i := range fields {
		fields[i].Name = strings.TrimPrefix(fields[i].Name, "body ")
	}
	for i := range more {
		more[i].Name = strings.TrimPrefix(more[i].Name, "body ")
	}
}

// field is one value as it is shown at once; what is cut off is opened.
func (c *CallView) field(f session.Field) CallField {
	text, whole := cutText(exact(f.Value), shownText, shownLines)
	if !whole {
		c.More = append(c.More, Fact{Name: f.Name, Value: f.Value})
	}
	return CallField{Name: f.Name, Value: text, Full: f.Value, Cut: !whole}
}

// part is a part of a mail or a statement.
func (c *CallView) part(name string, values []string) CallPart {
	p := CallPart{Label: strings.ToUpper(name[:1]) + name[1:]}
	if p.Label == "Html" {
		p.Label = "HTML"
	}
	switch name {
	case "text", "html", "statement":
		p.Block = true
		full := strings.Join(values, "\n")
		shown := exact(full)
		if name == "statement" {
			shown = exactCode(full)
		}
		text, whole := cutText(shown, shownBlock, blockLines)
		if !whole {
			c.More = append(c.More, Fact{Name: p.Label, Value: full})
		}
		p.Values, p.Cut = []string{text}, !whole
		return p
	}
	for i, v := range values {
		text, whole := cutText(exact(v), shownText, shownLines)
		if i >= shownFields {
			c.More, p.Cut = append(c.More, Fact{Name: p.Label, Value: v}), true
			continue
		}
		if !whole {
			c.More, p.Cut = append(c.More, Fact{Name: p.Label, Value: v}), true
		}
		p.Values = append(p.Values, text)
	}
	return p
}

// compare tells of each field what stands there now. Of a list of single values, what
// counts is what is in it, not where; gone are those that would be in it no more.
func compare(fields []CallField, stands []session.Field) (gone []CallField) {
	now, lists := map[string]string{}, listsOf(stands)
	for _, f := range stands {
		now[untyped(f.Name)] = f.Value
	}
	kept := map[string]map[string]bool{}
	for i, f := range fields {
		name := untyped(f.Name)
		list, place, isList := strings.Cut(name, "[")
		if !isList && strings.HasSuffix(f.Name, " (list)") { // an empty one
			list, isList, place = name, true, "]"
		}
		if values, single := lists[list]; isList && single {
			if kept[list] == nil {
				kept[list] = map[string]bool{}
			}
			if strings.HasSuffix(place, "]") { // a single value here as well
				kept[list][f.Full] = true
				fields[i].Same = slices.Contains(values, f.Full)
			}
			continue
		}
		switch was, known := now[name]; {
		case !known:
		case was == f.Full:
			fields[i].Same = true
		case was == "":
			fields[i].Was, fields[i].FullWas = "(empty)", "(empty)"
		default:
			fields[i].stood(was)
		}
	}
	for _, list := range slices.Sorted(maps.Keys(kept)) {
		for _, v := range lists[list] {
			if !kept[list][v] {
				f := CallField{Name: list, Gone: true}
				f.stood(v)
				gone = append(gone, f)
			}
		}
	}
	return gone
}

// stood notes what stands where a field would be.
func (f *CallField) stood(text string) {
	shown, whole := cutText(exact(text), shownText, shownLines)
	f.Was, f.FullWas, f.WasCut = shown, text, !whole
}

// listsOf gives the values of those lists whose entries are one value each, such as
// labels[0] or labels[0].name.
func listsOf(stands []session.Field) map[string][]string {
	out, form, broken := map[string][]string{}, map[string]string{}, map[string]bool{}
	for _, f := range stands {
		list, rest, ok := strings.Cut(untyped(f.Name), "[")
		if !ok {
			if strings.HasSuffix(f.Name, " (list)") {
				out[untyped(f.Name)] = nil
			}
			continue
		}
		place, after, _ := strings.Cut(rest, "]")
		if had, seen := form[list]; place != strconv.Itoa(len(out[list])) || strings.Contains(after, "[") || seen && had != after {
			broken[list] = true
		}
		form[list], out[list] = after, append(out[list], f.Value)
	}
	for list := range broken {
		delete(out, list)
	}
	return out
}

// untyped is the name of a field without what says that it is no text.
func untyped(name string) string {
	for _, kind := range []string{" (number)", " (boolean)", " (null)", " (list)", " (object)"} {
		name = strings.TrimSuffix(name, kind)
	}
	return name
}

// cutText cuts a text after so many letters or lines; whole reports that nothing
// was cut.
func cutText(s string, letters, lines int) (text string, whole bool) {
	whole = true
	if all := strings.SplitAfterN(s, "\n", lines+1); len(all) > lines {
		s, whole = strings.TrimRight(strings.Join(all[:lines], ""), "\n"), false
	}
	if cut, long := firstGraphemes(s, letters); long {
		s, whole = cut, false
	}
	if !whole {
		s += " …"
	}
	return s, whole
}

// unread are the marks of those texts of a request that are not shown in full
// until somebody opens them. Nobody says yes to what they have not opened.
func unread(a session.Approval, shown *CallView) (call, words string) {
	mark := func(kind string, texts ...string) string {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %q", kind, a.ID, texts))
		return kind + "." + hex.EncodeToString(sum[:8])
	}
	if shown != nil && len(shown.More) > 0 {
		var texts []string // all of it, with what the provider says that stands there now
		for _, f := range shown.More {
			texts = append(texts, f.Name, f.Value)
		}
		call = mark("call", texts...)
	}
	if _, cut := cutWords(a.Session.Purpose); cut {
		words = mark("words", a.Session.Purpose)
	}
	return call, words
}

// allRead refuses a yes to what was not shown in full and not opened.
func allRead(form url.Values, a session.Approval) error {
	call, words := unread(a, callView(a))
	for _, mark := range []string{call, words} {
		if mark != "" && !slices.Contains(form["read"], mark) {
			return fault.New(fault.Invalid, "not_all_read", "Not all of this request is shown at once, and you have not opened the rest.").
				WithHint("Open what is cut off, and tick that you have read it. Nothing was approved.")
		}
	}
	return nil
}

package provider

import (
	"fmt"
	"slices"
	"strings"
)

// Slot is one more token that a connection holds beside its own: the bot's beside
// the person's, or one for another API of the same provider. Each has an end of its
// own and is renewed by itself; a tool says which one it goes with.
type Slot struct {
	Name string `yaml:"name"`
	// At is the member of the token endpoint's answer that holds it, or "." for the
	// answer itself. Without it, the token is asked for with the connection's own
	// refresh token, for Scopes.
	At     string   `yaml:"at"`
	Param  string   `yaml:"param"`  // of the authorization request, for Scopes; default: they go with the others
	Scopes []string `yaml:"scopes"` // that are asked for with it
}

const maxSlots = 5

// Slot finds a slot by name.
func (o OAuth) Slot(name string) (Slot, bool) {
	i := slices.IndexFunc(o.Slots, func(s Slot) bool { return s.Name == name })
	if i < 0 {
		return Slot{}, false
	}
	return o.Slots[i], true
}

// Mark writes a scope of a slot so that it is none of another.
func (s Slot) Mark(scope string) string { return s.Name + "/" + scope }

// granted are those of a connection's scopes that belong to a slot, or to none.
func (o OAuth) granted(slot string, all []string) []string {
	var out []string
	for _, scope := range all {
		of := ""
		for _, s := range o.Slots {
			if rest, ok := strings.CutPrefix(scope, s.Name+"/"); ok {
				of, scope = s.Name, rest
				break
			}
		}
		if of == slot {
			out = append(out, scope)
		}
	}
	return out
}

// lintSlots checks the slots, and that tools name those that there are.
func (r *Record) lintSlots(l *linter) {
	var known []string
	if r.OAuth != nil {
		if len(r.OAuth.Slots) > maxSlots {
			l.add("oauth2.slots", "Remove some.", "There are over %d.", maxSlots)
		}
		for i, s := range r.OAuth.Slots {
			at := fmt.Sprintf("oauth2.slots[%d]", i)
			if !validArg(s.Name) || len(s.Name) > 30 || slices.Contains(known, s.Name) {
				l.add(at+".name", "Use a-z, 0-9 and _, each name once.", "%s cannot name a slot.", quoted(s.Name))
			}
			if s.At == "" && len(s.Scopes) == 0 {
				l.add(at, "Say at which member of the answer it stands, or for which scopes it is asked.", "Nothing says where the token comes from.")
			}
			if s.At != "" && s.At != "." && !validFieldPath(s.At) || strings.Contains(strings.Trim(s.At, "."), ".") {
				l.add(at+".at", "Name a member of the answer, such as authed_user, or write \".\".", "%s is no member.", quoted(s.At))
			}
			if s.Param != "" && !validParam(s.Param) {
				l.add(at+".param", "Use the parameter's name, such as user_scope.", "%s is not a plain parameter name.", quoted(s.Param))
			}
			for j, scope := range s.Scopes {
				l.scope(fmt.Sprintf("%s.scopes[%d]", at, j), scope)
			}
			known = append(known, s.Name)
		}
	}
	for i, t := range r.ToolSpecs {
		if t.Slot != "" && !slices.Contains(known, t.Slot) {
			l.add(fmt.Sprintf("tools[%d].slot", i), "Name one of oauth2.slots.", "There is no slot %s.", quoted(t.Slot))
		}
	}
}

package provider

import (
	"slices"
	"strings"
)

// Lacks lists what a tool needs of the scopes that a person can decline and that a
// connection with these scopes was not granted. Nothing is lacking where nobody
// said what was granted. A scope that covers another stands for it: where it only
// may, the provider has the last word.
func (r Record) Lacks(t Tool, granted []string) []string {
	if r.OAuth == nil || len(granted) == 0 {
		return nil
	}
	granted = r.OAuth.granted(t.Slot, granted)
	slot, inSlot := r.OAuth.Slot(t.Slot)
	if inSlot && (slot.At == "" || len(granted) == 0) {
		return nil // nobody said
	}
	var out []string
	for _, need := range t.Scopes {
		declinable := inSlot || slices.ContainsFunc(r.OAuth.Scopes.Catalog, func(s Scope) bool { return s.ID == need })
		if declinable && !slices.ContainsFunc(granted, func(have string) bool { return r.OAuth.Scopes.covers(have, need) }) {
			out = append(out, need)
		}
	}
	return out
}

func (s Scopes) covers(have, need string) bool {
	if sameScope(have, need) {
		return true
	}
	return slices.ContainsFunc(s.Catalog, func(c Scope) bool {
		return sameScope(c.ID, have) && slices.ContainsFunc(c.Covers, func(o string) bool { return sameScope(o, need) })
	})
}

// sameScope compares scopes as providers write them back: Microsoft in any case,
// with the address of its API before them or without.
func sameScope(a, b string) bool {
	const graph = "https://graph.microsoft.com/"
	return strings.EqualFold(strings.TrimPrefix(a, graph), strings.TrimPrefix(b, graph))
}

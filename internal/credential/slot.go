package credential

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
)

// A connection may hold more tokens than its own, in slots (provider.Slot). All lie
// in one envelope under one version, and a renewal renews exactly one of them, the
// one that ends first: its answer is durable before the next is asked for, so that
// no process that dies takes two grants along.

const slotPrefix = "slot."

func slotToken(name string) string   { return slotPrefix + name }
func slotRefresh(name string) string { return slotPrefix + name + ".refresh" }

// slotEnds names when a token of a slot ends, in RFC 3339; of "" the connection's own.
func slotEnds(name string) string { return slotPrefix + name + ".ends" }

// ends is when a token ends; zero: never, or it is not there.
func (m material) ends(slot string) time.Time {
	at, err := time.Parse(time.RFC3339, string(m.values[slotEnds(slot)].Reveal()))
	if err != nil {
		return time.Time{}
	}
	return at
}

func (m material) setEnds(slot string, at time.Time) {
	delete(m.values, slotEnds(slot))
	if !at.IsZero() {
		m.values[slotEnds(slot)] = secret.FromString(at.UTC().Format(time.RFC3339))
	}
}

// firstToEnd names the slot whose token ends first, "" for the connection's own, and
// says when.
func firstToEnd(o *provider.OAuth, m material) (slot string, at time.Time) {
	at = m.ends("")
	for _, s := range o.Slots {
		if end := m.ends(s.Name); !end.IsZero() && (at.IsZero() || end.Before(at)) {
			slot, at = s.Name, end
		}
	}
	return slot, at
}

// first puts the tokens of slots that an answer to a code holds into m. Those that
// it cannot hold are due at once.
func (g grant) first(o *provider.OAuth, m material, now time.Time) (scopes []string) {
	for _, s := range o.Slots {
		if s.At == "" {
			if !g.refresh.IsZero() {
				m.setEnds(s.Name, now)
			}
			continue
		}
		if g.part == nil {
			continue
		}
		got, ok := g.part(s.At)
		if !ok || got.access.Equal(g.access) {
			continue
		}
		m.values[slotToken(s.Name)], m.values[slotRefresh(s.Name)] = got.access, got.refresh
		if got.lifetime > 0 && !got.refresh.IsZero() {
			m.setEnds(s.Name, now.Add(got.lifetime))
		}
		of := got.scopes
		if of == nil {
			of = s.Scopes
		}
		for _, scope := range of {
			scopes = append(scopes, s.Mark(scope))
		}
	}
	return scopes
}

// renewSlot asks for a newer token of one slot.
func (s *Service) renewSlot(ctx context.Context, o order, slot provider.Slot, form url.Values) (grant, error) {
	p := o.record.OAuth
	if slot.At != "" {
		form.Set("refresh_token", string(o.have.values[slotRefresh(slot.Name)].Reveal()))
	} else {
		form.Set("scope", strings.Join(slot.Scopes, p.Scopes.Separator))
	}
	g, err := s.ask(ctx, o.pinned.Refreshing(), p, o.client, form)
	g.slot, g.scopes = &slot, nil
	if te := (*tokenError)(nil); slot.At == "" && errors.As(err, &te) && (te.class() == classGrant || te.class() == classConfig) {
		// The grant that it is asked with is the connection's own, and works: nobody
		// consented to this one.
		return grant{slot: &slot, gone: true, member: g.member}, nil
	}
	return g, err
}

// ontoSlot puts what a renewal of a slot brought over what there was.
func (g grant) ontoSlot(m material, now time.Time) {
	name := g.slot.Name
	if g.gone {
		delete(m.values, slotToken(name))
		m.setEnds(name, time.Time{})
		return
	}
	m.values[slotToken(name)] = g.access
	switch {
	case g.refresh.IsZero():
	case g.slot.At != "":
		m.values[slotRefresh(name)] = g.refresh
	default:
		m.values[fieldRefreshToken] = g.refresh // the connection's own, rotated
	}
	m.setEnds(name, time.Time{})
	if g.lifetime > 0 {
		m.setEnds(name, now.Add(g.lifetime))
	}
}

// keptSlots adds to the scopes of an answer those of the slots, which it is not about.
func keptSlots(listed []string, o *provider.OAuth, had []string) []string {
	if listed == nil {
		return nil
	}
	for _, scope := range had {
		for _, s := range o.Slots {
			if strings.HasPrefix(scope, s.Name+"/") {
				listed = append(listed, scope)
			}
		}
	}
	return listed
}

// inSlot gives what a call with a tool of this slot carries. The other tokens go
// along to be cut from its answer, and nowhere else.
func (m material) inSlot(slot string, carried map[string]secret.Value) (map[string]secret.Value, bool) {
	for name, v := range m.values {
		if rest, ok := strings.CutPrefix(name, slotPrefix); ok && rest != "" && !strings.Contains(rest, ".") {
			carried[name] = v
		}
	}
	if slot == "" {
		return carried, true
	}
	v, ok := m.values[slotToken(slot)]
	if !ok || v.IsZero() {
		return nil, false
	}
	carried[slotToken("")], carried[provider.FieldAccessToken] = carried[provider.FieldAccessToken], v
	return carried, true
}

// slotTokens lists the tokens of slots, to be given back.
func (m material) slotTokens(o *provider.OAuth) (out []struct{ hint, field string }) {
	if o == nil {
		return nil
	}
	for _, s := range o.Slots {
		if s.At != "" {
			out = append(out, struct{ hint, field string }{"refresh_token", slotRefresh(s.Name)})
		}
		out = append(out, struct{ hint, field string }{"access_token", slotToken(s.Name)})
	}
	return out
}

package credential

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
)

// elsewhereMark begins the name of a part whose value stays in a source: what is sealed is
// its place there. No part that a person gives is named so.
const elsewhereMark = "~"

// leaving is m with the places of these parts in place of their values.
func (m material) leaving(places map[string]string) material {
	if len(places) == 0 {
		return m
	}
	out := material{values: maps.Clone(m.values)}
	for part, place := range places {
		delete(out.values, part)
		out.values[elsewhereMark+part] = secret.FromString(place)
	}
	return out
}

// fetched reads the parts that stay in a source, now. What is there now is held to the
// same as what was there at the beginning: it could not be kept out of what agents read
// otherwise (threats.md U1).
func (s *Service) fetched(ctx context.Context, r row, values map[string]secret.Value) (map[string]secret.Value, error) {
	out, copied := values, false
	for name, place := range values {
		part, ok := strings.CutPrefix(name, elsewhereMark)
		if !ok {
			continue
		}
		v, err := s.sources.Read(ctx, r.organization, string(place.Reveal()))
		if err != nil {
			return nil, err
		}
		if why := unusable(part, v); why != "" {
			return nil, fault.New(fault.Unavailable, "source_unusable", "What the source of this secret gives "+why+".").WithHint("Put a whole key there, without spaces or an end of line.")
		}
		if !copied {
			out, copied = maps.Clone(values), true
		}
		delete(out, name)
		out[part] = v
	}
	return out, nil
}

// ReadElsewhere reads a part of a key of organization org from a source, to connect it. It
// is on record before the value is used; of the later uses those that are calls are on
// record as such.
func (s *Service) ReadElsewhere(ctx context.Context, by account.Actor, org id.Organization, prov provider.Record, part, place string) (secret.Value, error) {
	plain := slices.ContainsFunc(prov.Given(), func(p provider.Part) bool { return p.Name == part && len(p.Unpack) == 0 && !p.Upper })
	if prov.Auth != provider.APIKey || !plain {
		return secret.Value{}, fault.New(fault.Invalid, "source_not_for_this", "Only a key that is used as it is can stay in a source.").WithHint("Give the parts of this credential themselves.")
	}
	v, err := s.sources.Read(ctx, org, place)
	e := audit.Entry{Environment: by.Environment(), Organization: org, Actor: by.Audit(), Action: "source.read", Object: place, Provider: prov.ID, Decision: "allow", Address: by.Address()}
	if err != nil {
		e.Decision, e.Code = "deny", fault.Of(err).Code
	}
	if rerr := s.audit.Record(ctx, e); rerr != nil {
		return secret.Value{}, rerr
	}
	return v, err
}

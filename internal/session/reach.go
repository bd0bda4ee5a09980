package session

import (
	"fmt"
	"strings"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
)

// Reached is a granted connection that a raw request may be for. Only
// [Live.Reach] makes one.
type Reached struct{ grant liveGrant }

// Provider, Record and Pinned are those of the connection.
func (r Reached) Provider() string          { return r.grant.policy.Provider }
func (r Reached) Connection() id.Connection { return r.grant.connection }
func (r Reached) Record() provider.Record   { return r.grant.record }
func (r Reached) Pinned() provider.Pinned   { return r.grant.pinned }

// Reach lists the granted connections: all of them, or the one account, or those
// of one provider.
func (l Live) Reach(providerID string, account id.Connection) []Reached {
	var out []Reached
	for _, g := range l.grants {
		if (account == "" || g.connection == account) && (providerID == "" || g.policy.Provider == providerID) {
			out = append(out, Reached{g})
		}
	}
	return out
}

// Choose takes the first of readings whose tool the connection's grant includes.
// ok is false when it includes none; then the target is that of the first, which
// [Service.Permit] refuses.
func (r Reached) Choose(readings []provider.Reading) (t Target, req *provider.Request, ok bool) {
	for _, reading := range readings {
		if _, granted := r.grant.digests[reading.Tool.Name]; granted {
			return Target{Tool: reading.Tool, Bases: r.grant.pinned.API, grant: r.grant}, reading.Request, true
		}
	}
	if len(readings) == 0 {
		return Target{}, nil, false
	}
	return Target{Tool: readings[0].Tool, Bases: r.grant.pinned.API, grant: r.grant}, readings[0].Request, false
}

// Ambiguous refuses a request that several accounts could make.
func Ambiguous(all []Reached) error {
	names := make([]string, len(all))
	for i, r := range all {
		names[i] = fmt.Sprintf("%s (%s)", r.grant.connection, r.grant.account)
	}
	return fault.New(fault.Invalid, "ambiguous_account", "Several accounts can make this request: "+strings.Join(names, ", ")+".").
		WithHint("Name one.")
}

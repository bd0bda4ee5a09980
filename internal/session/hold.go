package session

import (
	"context"
	"slices"
	"time"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/id"
)

// Environment and Agent say where the session runs and whose it is.
func (l Live) Environment() id.Environment { return l.environment }
func (l Live) Agent() id.Agent             { return l.agent }

// Until is when the session ends at the latest.
func (l Live) Until() time.Time { return l.expiresAt }

// Providers are those of the session's accounts.
func (l Live) Providers() []string {
	out := []string{}
	for _, g := range l.grants {
		out = append(out, g.policy.Provider)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Variables are those in which programs look for the keys of the session's
// accounts, each with a placeholder that has the form of a key and opens nothing.
func (l Live) Variables() map[string]string {
	out := map[string]string{}
	for _, g := range l.grants {
		for name, prefix := range g.record.Variables {
			out[name] = g.record.Variable(prefix)
		}
	}
	return out
}

// LiveNamed is [Service.Live] for a session that the agent names by its id or by
// a handle: the id is as good, since only the agent's own sessions are found.
func (s *Service) LiveNamed(ctx context.Context, who agent.Identity, named string) (Live, error) {
	ref := reference{session: who.Session()}
	if err := parseID(&ref.session, named); err != nil {
		return s.Live(ctx, who, named)
	}
	if who.Agent() == "" || who.Session() != "" && who.Session() != ref.session {
		return Live{}, notFound()
	}
	return s.live(ctx, who, ref)
}

// parseID is id.Parse for the kind that dst has.
func parseID[K id.Kind](dst *id.ID[K], text string) (err error) {
	*dst, err = id.Parse[K](text)
	return err
}

// Places are the API places of the accounts that the session was granted, each
// "scheme://host[:port][/path]".
func (l Live) Places() []string {
	var out []string
	for _, g := range l.grants {
		out = append(out, g.pinned.Raw("")...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Hold gives a context that ends when the session does, for what stays open
// between calls, such as a tunnel: it permits nothing, and is cut like a call.
// done must be called when nothing of it is open any more.
func (s *Service) Hold(ctx context.Context, l Live) (held context.Context, done func()) {
	return s.running.track(ctx, l.session, l.expiresAt.Sub(s.now()))
}

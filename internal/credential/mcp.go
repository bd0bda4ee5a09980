package credential

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// An MCP server can say tomorrow that its tool does something else. So it is
// looked at again before a call when the last look is older than this; between
// looks agents read the words that a person agreed to, whatever the server says.
const lookEvery = 5 * time.Minute

// lookTimeout is how long a look may take, whoever waits for it.
const lookTimeout = 25 * time.Second

// Unchanged refuses a call of a tool that its MCP server describes in another way
// than when a person agreed to it, or lists no more. It is asked before the call is
// permitted, so that nothing is used up and nothing is sent. For every other tool
// it says yes at once.
func (s *Service) Unchanged(ctx context.Context, env id.Environment, conn id.Connection, t provider.Tool) error {
	def, upstream := t.Upstream()
	if !upstream {
		return nil
	}
	at, pins, err := s.providers.Pins(ctx, conn)
	if err != nil {
		return err
	}
	if age := s.now().Sub(at); age >= lookEvery || age < 0 {
		c, err := s.connections.ByID(ctx, s.db.Reader(), env, conn)
		if err != nil {
			return err
		}
		listed, err := s.lookAt(ctx, account.System(system.ID), c)
		if err != nil {
			return err
		}
		pins = listed.Pins()
	}
	now, listed := pins[def.Name]
	if now == def.Pin() {
		return nil
	}
	what := "The server now describes the tool " + t.Name + " in another way than when a person agreed to it."
	if !listed {
		what = "The server does not list the tool " + t.Name + " any more."
	}
	return fault.New(fault.Denied, "approval_stale", what).
		WithHint("Nothing was called. The tool stays frozen until a person has compared the two at review_url and agreed. Tell them; asking again does not change it.").
		With("review_url", s.public.JoinPath("/ui/connections", string(conn), "tools").String())
}

// Look lists the tools of a connection's MCP server as they are now, for whoever
// may see the connection, and keeps the list.
func (s *Service) Look(ctx context.Context, by account.Actor, conn id.Connection) (connection.Connection, provider.Listing, error) {
	c, err := s.ofServer(ctx, by, conn)
	if err != nil {
		return c, provider.Listing{}, err
	}
	listed, err := s.lookAt(ctx, by, c)
	return c, listed, err
}

// ofServer is a connection to an MCP server whose tools by may look at.
func (s *Service) ofServer(ctx context.Context, by account.Actor, conn id.Connection) (connection.Connection, error) {
	c, err := s.connections.Get(ctx, by, conn)
	if err == nil {
		err = connection.MayConnect(by, c.Organization, c.Owner)
	}
	if err == nil && c.Record.MCP == nil {
		err = fault.New(fault.Invalid, "not_mcp", c.Record.Name+" is not an MCP server.").WithHint("Only those list tools of their own.")
	}
	return c, err
}

// lookAt asks the server with the connection's credential: upkeep, whose answer goes
// to no agent. Calls that come at once share one look, which is on record as that of
// whoever came first.
func (s *Service) lookAt(ctx context.Context, by account.Actor, c connection.Connection) (provider.Listing, error) {
	wait := s.looking.DoChan(string(c.ID), func() (any, error) {
		ctx, cancel := context.WithTimeout(s.background, lookTimeout)
		defer cancel()
		return s.lookNow(ctx, by, c)
	})
	select {
	case <-ctx.Done():
		return provider.Listing{}, fault.New(fault.Unavailable, "upstream_unreachable", "The MCP server was still being looked at.").WithHint("Nothing was called. Try again.").WithCause(ctx.Err())
	case r := <-wait:
		listed, _ := r.Val.(provider.Listing)
		return listed, r.Err
	}
}

// refusedList puts on record that a server's list was not taken, and gives why. A
// server that hides something in one, or gives the credential away there, is not
// passed over in silence.
func (s *Service) refusedList(ctx context.Context, by account.Actor, c connection.Connection, why error) error {
	if !fault.Is(why, provider.CodeListRefused) {
		return why
	}
	e := lookedAt(by, c)
	e.Action, e.Decision, e.Code = "provider.tools_refused", "deny", provider.CodeListRefused
	if err := s.audit.Record(ctx, e); err != nil {
		s.log.Error("that a list of tools was refused could not be recorded", "connection", c.ID, "error", err)
	}
	return why
}

// lookedAt begins the entry of a look.
func lookedAt(by account.Actor, c connection.Connection) audit.Entry {
	return audit.Entry{Environment: c.Environment, Organization: c.Organization, Actor: by.Audit(), User: by.User(), Address: by.Address(), Connection: c.ID, Object: c.Provider, Provider: c.Provider}
}

func (s *Service) lookNow(ctx context.Context, by account.Actor, c connection.Connection) (provider.Listing, error) {
	if !s.work.begin() {
		return provider.Listing{}, fault.New(fault.Unavailable, "stopping", "The server is stopping.").WithRetry(time.Second)
	}
	defer s.work.end()
	// The credential goes to the places of this record only, and what is listed there
	// counts for it alone (rule 6).
	same := func(now connection.Connection) error {
		switch {
		case now.State != connection.Connected:
			return s.connections.MustReconnect(c.ID, now.Why())
		case now.Record.Digest() != c.Record.Digest():
			return fault.New(fault.Denied, "approval_stale", "The account was connected anew while its server was looked at.").WithHint("Nothing was called. Try again.")
		}
		return nil
	}
	if err := same(c); err != nil {
		return provider.Listing{}, err
	}
	r, err := s.load(ctx, c.ID)
	if err == nil {
		r, err = s.renewed(ctx, r)
	}
	if err != nil {
		return provider.Listing{}, err
	}
	still := func(ctx context.Context, q sqldb.Querier) error {
		now, err := s.connections.ByID(ctx, q, c.Environment, c.ID)
		if err != nil {
			return err
		}
		return same(now)
	}
	list := func(r row) (provider.Listing, error) {
		cred, err := s.open(ctx, r)
		if err != nil {
			return provider.Listing{}, err
		}
		return c.Record.ListMCP(ctx, s.outbound, c.Pinned, cred, func(ctx context.Context) error { return still(ctx, s.db.Reader()) })
	}
	listed, err := list(r)
	if fault.Is(err, provider.CodeRefused) && r.refreshable {
		if r, err = s.refresh(ctx, r); err != nil {
			return provider.Listing{}, err
		}
		listed, err = list(r)
	}
	if fault.Is(err, provider.CodeRefused) {
		return provider.Listing{}, s.connections.MustReconnect(c.ID, "The MCP server does not accept the account's credential.")
	}
	if err != nil {
		return provider.Listing{}, s.refusedList(ctx, by, c, err)
	}
	return listed, s.providers.KeepLook(ctx, lookedAt(by, c), c.Record, listed, still)
}

// Listed is what the server of a connection listed when it was last looked at.
func (s *Service) Listed(ctx context.Context, by account.Actor, conn id.Connection) (connection.Connection, time.Time, provider.Listing, error) {
	c, err := s.ofServer(ctx, by, conn)
	if err != nil {
		return c, time.Time{}, provider.Listing{}, err
	}
	at, listed, err := s.providers.Looked(ctx, conn)
	return c, at, listed, err
}

// Taken is the provider's record with the tools that the server of a connection
// listed last and for which effects has one, by the server's names: for a person to
// agree to, as to any record. Pins are the digests of the definitions that were
// shown. The server is looked at by calls as well, so what it lists may be another
// thing by now, and nobody has compared that.
func (s *Service) Taken(ctx context.Context, by account.Actor, conn id.Connection, effects map[string]policy.Effect, pins map[string]string) (provider.Input, error) {
	c, at, listed, err := s.Listed(ctx, by, conn)
	if err != nil {
		return provider.Input{}, err
	}
	if at.IsZero() {
		return provider.Input{}, fault.New(fault.Conflict, "not_looked", "The server has not been asked for its tools yet.").WithHint("Look at them first.")
	}
	for _, name := range slices.Sorted(maps.Keys(effects)) {
		i := slices.IndexFunc(listed.Tools, func(d provider.Definition) bool { return d.Name == name })
		if i < 0 {
			return provider.Input{}, fault.New(fault.Invalid, "unknown_tool", "The server lists no tool "+name+".").WithHint("Name tools as the server does.")
		}
		if pins[name] != listed.Tools[i].Pin() {
			return provider.Input{}, fault.New(fault.Conflict, "tools_changed", "The server describes the tool "+name+" in another way than what you were shown.").
				WithHint("Nothing was taken. Look at the tools again, compare them, and agree to what you see then.")
		}
	}
	p, err := s.providers.Get(ctx, c.Environment, c.Provider)
	if err != nil {
		return provider.Input{}, err
	}
	rec, err := p.Record.TakeMCP(listed, effects)
	return provider.Input{YAML: rec.Source(), ClientID: p.ClientID, IfVersion: p.Version}, err
}

// Adopt gives a connection to an MCP server the tools that its provider has now.
func (s *Service) Adopt(ctx context.Context, by account.Actor, conn id.Connection) (connection.Connection, error) {
	c, err := s.connections.Get(ctx, by, conn)
	if err != nil {
		return c, err
	}
	p, err := s.providers.Get(ctx, c.Environment, c.Provider)
	if err != nil {
		return c, err
	}
	return s.connections.Adopt(ctx, by, conn, p.Record)
}

package session

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// Ask is what an agent requests. Providers or Tools name what for; Effects
// defaults to what the named tools need, or to reading.
type Ask struct {
	Providers []string
	Tools     []string
	Effects   []policy.Effect
	Purpose   string // shown to the approver as the agent's own words
	Minutes   int    // default 30
	Calls     int    // the most calls that may start; 0: no limit
	Limits    []AskedLimit
	Widen     string // the handle of a session that runs, to which this is to be added; empty: for another session

	consent *Consent // that it comes with; nil: it comes of a token
}

// AskedLimit is a limit that an agent asks for itself. Provider may be empty
// where the request is for one provider only.
type AskedLimit struct {
	Provider string `json:"provider,omitempty"`
	policy.Limit
}

// Requested is the answer to a request. The handle names the session to this
// agent; it is shown only here.
type Requested struct {
	Session     Session
	Handle      string
	ApprovalURL string
}

// Request makes a pending session and a request for a person's decision. The
// same request while the first still waits gives the same session.
func (s *Service) Request(ctx context.Context, who agent.Identity, ask Ask, address string) (Requested, error) {
	if who.Session() != "" {
		return Requested{}, fault.New(fault.Denied, "not_granted", "This token belongs to one session and cannot ask for another.")
	}
	ask.consent = nil
	return s.request(ctx, who, ask, address)
}

func (s *Service) request(ctx context.Context, who agent.Identity, ask Ask, address string) (Requested, error) {
	rules, err := s.asking(ctx, who)
	if err != nil {
		return Requested{}, s.held(ctx, who, err, address)
	}
	var base Session // to widen
	if ask.Widen != "" {
		if base, err = s.widenable(ctx, who, ask); err != nil {
			return Requested{}, err
		}
	}
	ask, err = ask.normal(rules.Settings)
	if err != nil {
		return Requested{}, err
	}
	grants, err := s.resolve(ctx, who, ask, base.Grants)
	if err != nil {
		return Requested{}, err
	}
	now := s.now()
	ses := Session{
		ID: id.NewSession(), Environment: who.Environment(), Organization: who.Organization(), Agent: who.Agent(), AgentLabel: who.Label(),
		AgentVerified: who.Verified(), User: who.User(), Purpose: ask.Purpose, State: Pending, Minutes: ask.Minutes, Calls: ask.Calls, RequestedAt: now,
		PendingUntil: now.Add(pendingFor), Grants: grants, asked: asked{Grants: grants}, Approval: id.NewApproval(), Version: 1,
	}
	if base.ID != "" {
		ses.Widens, ses.base, ses.PendingUntil = base.ID, base.Version, notAfter(ses.PendingUntil, base.ExpiresAt)
		ses.Minutes = wholeMinutes(base, now) + 1
	}
	for _, g := range grants {
		ses.needsUser = ses.needsUser || g.Owner != ""
		ses.needsApprover = ses.needsApprover || g.Owner == ""
	}
	doc, err := strictjson.CanonicalOf(struct {
		Asked   asked      `json:"asked"`
		Minutes int        `json:"minutes"`
		Calls   int        `json:"calls,omitempty"`
		Purpose string     `json:"purpose"`
		Widens  id.Session `json:"widens,omitempty"`
		Base    int64      `json:"base,omitempty"` // what was asked of the session before it changed cannot be granted any more
		Consent string     `json:"consent,omitempty"`
	}{ses.asked, ask.Minutes, ses.Calls, ses.Purpose, ses.Widens, ses.base, ask.consent.to()})
	if err != nil {
		return Requested{}, err
	}
	digest := hexDigest(doc)
	handle := newHandle()
	detail := map[string]string{"minutes": fmt.Sprint(ses.Minutes), "connections": fmt.Sprint(len(grants))}
	if ses.Widens != "" {
		detail["widens"] = string(ses.Widens)
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := tx.Serialize(ctx, "request "+cmp.Or(string(who.User()), string(who.Agent()))); err != nil {
			return sqldb.Wrap("wait for other requests", err)
		}
		if same, err := pendingSame(ctx, tx, who.Agent(), who.User(), digest, now); err == nil {
			ses.ID, ses.Approval, ses.PendingUntil = same.ID, same.Approval, same.PendingUntil
			return insertHandle(ctx, tx, handleHash(handle), ses.ID, now)
		} else if !sqldb.NoRows(err) {
			return sqldb.Wrap("look for the same request", err)
		}
		if err := s.withinLimits(ctx, tx, who, ses.asked, rules.Settings.Limits, now); err != nil {
			return err
		}
		// From here to the commit no account of these ends, so that whoever ends one
		// after it finds this request.
		if err := s.stillUsable(ctx, tx, ses.Environment, grants); fault.Is(err, "approval_stale") {
			return stale().WithHint("Ask again.")
		} else if err != nil {
			return err
		}
		if err := insertSession(ctx, tx, ses, digest); err != nil {
			return sqldb.Wrap("store a session request", err)
		}
		if ses.Widens != "" {
			if err := insertWidening(ctx, tx, ses); err != nil {
				return sqldb.Wrap("store a session request", err)
			}
		}
		if ask.consent != nil {
			if err := s.bindConsent(ctx, tx, ses, *ask.consent); err != nil {
				return err
			}
		}
		if err := insertHandle(ctx, tx, handleHash(handle), ses.ID, now); err != nil {
			return sqldb.Wrap("store a session request", err)
		}
		err := insertApproval(ctx, tx, approvalRow{
			id: ses.Approval, kind: KindSession, environment: ses.Environment, organization: ses.Organization, session: ses.ID,
			agent: ses.Agent, user: ses.User, subjectDigest: digest, state: ApprovalPending, createdAt: now, expiresAt: ses.PendingUntil,
		})
		if err != nil {
			return sqldb.Wrap("store a session request", err)
		}
		event := s.audit.Append(tx, audit.Entry{
			Environment: ses.Environment, Organization: ses.Organization, Actor: audit.Actor{Kind: "agent", ID: string(ses.Agent)},
			Agent: ses.Agent, User: ses.User, Session: ses.ID, Approval: ses.Approval, Action: "session.requested", Object: string(ses.ID),
			ArgumentDigest: digest, Detail: detail, Address: address,
		})
		changed(tx, ses.Organization)
		return s.onAsked(ctx, tx, s.askedForSession(event, ses, rules.Settings))
	})
	if err != nil {
		return Requested{}, s.held(ctx, who, err, address)
	}
	return Requested{Session: ses, Handle: handle, ApprovalURL: s.approvalURL(ses.Approval)}, nil
}

// held records a request that a limit held back, and gives err back.
func (s *Service) held(ctx context.Context, who agent.Identity, err error, address string) error {
	if f := fault.Of(err); f.Kind == fault.Limited {
		s.recordDenial(ctx, who, "session.request_refused", f.Code, address)
	}
	return err
}

func (s *Service) recordDenial(ctx context.Context, who agent.Identity, action, code, address string) {
	err := s.audit.Record(ctx, audit.Entry{
		Environment: who.Environment(), Organization: who.Organization(), Actor: audit.Actor{Kind: "agent", ID: string(who.Agent())},
		Agent: who.Agent(), User: who.User(), Action: action, Decision: "deny", Code: code, Rule: "session.limits", Address: address,
	})
	if err != nil {
		s.log.Error("a refusal could not be recorded", "action", action, "error", err)
	}
}

// normal checks a request and puts it into one form.
func (a Ask) normal(set policy.Settings) (Ask, error) {
	bad := func(msg, hint string) (Ask, error) {
		return Ask{}, fault.New(fault.Invalid, "invalid_arguments", msg).WithHint(hint)
	}
	if len(a.Providers) == 0 && len(a.Tools) == 0 {
		return bad("The request names neither providers nor tools.", "Name providers (see list_providers) or tools (see search_tools).")
	}
	if len(a.Providers) > 20 || len(a.Tools) > 100 {
		return bad("The request names too much: at most 20 providers and 100 tools.", "Ask for what this task needs.")
	}
	for _, e := range a.Effects {
		if _, err := policy.ParseEffect(string(e)); err != nil {
			return Ask{}, err
		}
	}
	if a.Purpose = strings.TrimSpace(a.Purpose); a.Purpose == "" && a.consent == nil { // scopes have no room for one
		return bad("The request has no purpose.", "Say in one or two sentences what the access is for; a person will read it.")
	}
	if len(a.Purpose) > MaxPurpose || !utf8.ValidString(a.Purpose) {
		return bad(fmt.Sprintf("The purpose is over %d bytes.", MaxPurpose), "Say it shorter.")
	}
	if a.Minutes == 0 {
		a.Minutes = set.DefaultMinutes
	}
	if a.Minutes < 1 || a.Minutes > set.LongestMinutes {
		return bad(fmt.Sprintf("A session lasts 1 to %d minutes.", set.LongestMinutes), "Say another number of minutes.")
	}
	if a.Calls < 0 || a.Calls > MaxCalls {
		return bad(fmt.Sprintf("A session has 1 to %d calls, or no limit of them.", MaxCalls), "Say another number of calls, or none.")
	}
	if len(a.Limits) > policy.MaxLimits {
		return bad(fmt.Sprintf("A request has at most %d limits.", policy.MaxLimits), "Ask for fewer things at once.")
	}
	for _, l := range a.Limits {
		if err := l.Check(); err != nil {
			return Ask{}, err
		}
	}
	for _, list := range []*[]string{&a.Providers, &a.Tools} {
		*list = slices.Compact(slices.Sorted(slices.Values(*list)))
	}
	a.Effects = slices.Compact(slices.Sorted(slices.Values(a.Effects)))
	return a, nil
}

// resolve turns a request into grants on connections that could serve it, beside what
// a session that is to be widened has.
func (s *Service) resolve(ctx context.Context, who agent.Identity, ask Ask, has []Grant) ([]Grant, error) {
	usable, err := s.connections.Usable(ctx, who.Environment(), who.Organization(), who.User(), nil)
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, p := range ask.Providers {
		wanted[p] = false
	}
	toolFound := map[string]bool{}
	var grants []Grant
	for _, c := range usable {
		tools, whole := s.wantedTools(c, ask, toolFound)
		if _, named := wanted[c.Provider]; named {
			wanted[c.Provider] = true
		}
		if len(tools) == 0 {
			continue
		}
		effects := ask.Effects
		if len(effects) == 0 {
			effects = effectsOf(tools, whole)
		}
		g := Grant{Connection: c.ID, Provider: c.Provider, ProviderName: c.Record.Name, AccountLabel: c.AccountLabel, Owner: c.Owner, Confirm: policy.ConfirmDestructive}
		if g.Had = had(has, c.ID); g.Had != nil {
			g.Confirm = g.Had.Confirm
		}
		for _, t := range c.Record.Tools() {
			wants := (whole || slices.Contains(ask.Tools, t.Name)) && slices.Contains(effects, t.Effect)
			if (wants || g.Had.named(t.Name)) && who.Ceiling().Allows(c.Provider, t.Effect) {
				g.Tools = append(g.Tools, refOf(t))
			}
		}
		if g.Effects = presentEffects(g.Tools); len(g.Tools) > 0 {
			g.arguments = argumentsOf(c.Record, g.Tools)
			grants = append(grants, g)
		}
	}
	for _, p := range ask.Providers {
		if !wanted[p] {
			return nil, s.noAccount(ctx, who, p)
		}
	}
	for _, t := range ask.Tools {
		if !toolFound[t] {
			return nil, s.NoTool(ctx, who, t)
		}
	}
	if len(grants) == 0 {
		return nil, fault.New(fault.Denied, "not_granted", "Nothing that was asked for is within what this agent may be granted.").
			WithHint("Ask for other effects, or have an admin raise the agent's ceiling.")
	}
	if grants, err = limited(grants, ask); err != nil {
		return nil, err
	}
	if ask.Widen != "" {
		if grants, err = widened(grants, ask); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(grants, func(a, b Grant) int {
		return cmp.Or(cmp.Compare(a.Provider, b.Provider), cmp.Compare(a.Connection, b.Connection))
	})
	return grants, nil
}

func refOf(t provider.Tool) ToolRef {
	d := t.Digest()
	return ToolRef{Name: t.Name, Title: t.Title, Effect: t.Effect, Digest: fmt.Sprintf("%x", d), Untried: t.Untried()}
}

// noAccount refuses a request for a provider without an account that works.
func (s *Service) noAccount(ctx context.Context, who agent.Identity, slug string) error {
	broken, err := s.connections.Broken(ctx, who.Environment(), who.Organization(), who.User())
	if err != nil {
		return err
	}
	for _, c := range broken {
		if c.Provider == slug && slices.ContainsFunc(c.Record.Tools(), func(t provider.Tool) bool { return who.Ceiling().Allows(c.Provider, t.Effect) }) {
			return s.mustReconnect(c)
		}
	}
	return s.connections.MustConnect(who.Organization(), slug)
}

// NoTool is the refusal of a tool that no account of the agent's offers.
func (s *Service) NoTool(ctx context.Context, who agent.Identity, tool string) error {
	broken, err := s.connections.Broken(ctx, who.Environment(), who.Organization(), who.User())
	if err != nil {
		return err
	}
	for _, c := range broken {
		if t, ok := c.Record.Tool(tool); ok && who.Ceiling().Allows(c.Provider, t.Effect) {
			return s.mustReconnect(c)
		}
	}
	return fault.New(fault.NotFound, "tool_not_found", "No tool "+quote(tool)+" among the connected accounts.").
		WithHint("Use search_tools to find the name, or connect_provider if its provider is not connected yet.").With("tool", tool)
}

func (s *Service) mustReconnect(c connection.Connection) error {
	return s.connections.MustReconnect(c.ID, "The account "+quote(c.AccountLabel)+" at "+quote(c.Provider)+" must be connected again before it can be used.")
}

// wantedTools selects the tools of a connection that the request names. whole
// is true when its provider was named, so that no tool was picked by name.
func (s *Service) wantedTools(c connection.Connection, ask Ask, found map[string]bool) (tools []provider.Tool, whole bool) {
	whole = slices.Contains(ask.Providers, c.Provider)
	for _, t := range c.Record.Tools() {
		named := slices.Contains(ask.Tools, t.Name)
		if named {
			found[t.Name] = true
		}
		if whole || named {
			tools = append(tools, t)
		}
	}
	return tools, whole
}

func effectsOf(tools []provider.Tool, whole bool) []policy.Effect {
	if whole {
		return []policy.Effect{policy.Read}
	}
	var out []policy.Effect
	for _, t := range tools {
		if !slices.Contains(out, t.Effect) {
			out = append(out, t.Effect)
		}
	}
	return out
}

// presentEffects lists the effects of tools, mildest first.
func presentEffects(tools []ToolRef) []policy.Effect {
	var out []policy.Effect
	for _, e := range policy.Effects() {
		if slices.ContainsFunc(tools, func(t ToolRef) bool { return t.Effect == e }) {
			out = append(out, e)
		}
	}
	return out
}

// ofAgent loads a session by handle for the agent that it belongs to; a token
// that is bound to a session needs no handle, and names no other session with one.
// For any other caller it does not exist.
func (s *Service) ofAgent(ctx context.Context, who agent.Identity, handle string) (Session, error) {
	var ses Session
	var err error
	if handle == "" && who.Session() != "" {
		ses, err = sessionByID(ctx, s.db.Reader(), who.Session())
	} else {
		ses, err = sessionByHandle(ctx, s.db.Reader(), handleHash(handle), who)
	}
	if sqldb.NoRows(err) {
		return Session{}, notFound()
	}
	if err != nil {
		return Session{}, sqldb.Wrap("load a session", err)
	}
	if who.Session() != "" && who.Session() != ses.ID {
		return Session{}, notFound()
	}
	return s.seen(ctx, ses)
}

// seen is a session as it stands now: aged, and with what was asked for and is
// lost.
func (s *Service) seen(ctx context.Context, ses Session) (Session, error) {
	ses = s.aged(ses)
	if ses.State != Pending && ses.Cause != CauseAccount {
		return ses, nil
	}
	now, err := s.connections.Among(ctx, s.db.Reader(), ses.Environment, connectionsOf(ses.Grants))
	for i, g := range ses.Grants {
		ses.Grants[i].Lost = lost(g, now)
		if at := slices.IndexFunc(now, func(c connection.Connection) bool { return c.ID == g.Connection }); at >= 0 && ses.State == Pending {
			ses.Grants[i].arguments = argumentsOf(now[at].Record, g.Tools)
		}
	}
	return ses, err
}

func connectionsOf(grants []Grant) []id.Connection {
	out := make([]id.Connection, len(grants))
	for i, g := range grants {
		out[i] = g.Connection
	}
	return out
}

// lost says why g cannot be granted as its connection stands now.
func lost(g Grant, now []connection.Connection) string {
	i := slices.IndexFunc(now, func(c connection.Connection) bool { return c.ID == g.Connection })
	switch {
	case i < 0 || !now[i].Live():
		return LostAccount
	case now[i].State != connection.Connected:
		return LostKey
	}
	for _, ref := range g.Tools {
		if t, ok := now[i].Record.Tool(ref.Name); !ok || fmt.Sprintf("%x", t.Digest()) != ref.Digest {
			return LostTool
		}
	}
	return ""
}

// aged shows a session whose time is over as ended even before the sweep has
// marked it.
func (s *Service) aged(ses Session) Session {
	now := s.now()
	if ses.State == Pending && !now.Before(ses.PendingUntil) || ses.State == Active && !now.Before(ses.ExpiresAt) {
		ses.State, ses.Reason = Ended, Expired
	}
	return ses
}

// Complete ends a session at its agent's wish; a pending one is withdrawn. It takes
// none of the turns of people who end access.
func (s *Service) Complete(ctx context.Context, who agent.Identity, handle string) (Session, error) {
	ses, err := s.ofAgent(ctx, who, handle)
	if err != nil {
		return Session{}, err
	}
	if ses.State == Ended {
		return ses, nil
	}
	reason := Completed
	if ses.State == Pending {
		reason = Withdrawn
	}
	by := audit.Actor{Kind: "agent", ID: string(who.Agent())}
	if _, err := s.end(ctx, s.db.Update, endWhere{session: ses.ID}, ending{reason: reason}, by, ""); err != nil {
		return Session{}, err
	}
	return s.ofAgent(ctx, who, handle)
}

func quote(s string) string {
	if len(s) > 64 {
		s = s[:64] + "…"
	}
	return fmt.Sprintf("%q", s)
}

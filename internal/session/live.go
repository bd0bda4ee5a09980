package session

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/strictjson"
	"github.com/ambit-dev/ambit/internal/vault"
)

// Live is a session that the database showed active, for this agent, just now.
// Only [Service.Live] makes one; the zero Live permits nothing.
type Live struct {
	session      id.Session
	environment  id.Environment
	organization id.Organization
	agent        id.Agent
	user         id.User
	expiresAt    time.Time
	calls        int // the most that may start; 0: no limit
	label        string
	verified     bool
	rules        ruleKey // which of its organization counted when this was read
	ceiling      policy.Ceiling
	grants       []liveGrant
}

// liveGrant is a grant with its connection as it stands now.
type liveGrant struct {
	connection id.Connection
	policy     policy.Grant
	digests    map[string]string // of the approved tools, by name
	state      connection.State
	account    string
	owner      id.User
	pinned     provider.Pinned
	record     provider.Record
	version    int64    // of the credential
	scopes     []string // that it was granted
}

// Session names the session; Organization and User say for whom it runs.
func (l Live) Session() id.Session           { return l.session }
func (l Live) Organization() id.Organization { return l.organization }
func (l Live) User() id.User                 { return l.user }

// Live finds the agent's session and reads, in one statement, everything that
// this call's decision rests on. A token that is bound to a session needs no
// handle. Whoever holds a handle without the agent's token gets the same answer
// as for a handle that does not exist (threats.md S3, S4).
func (s *Service) Live(ctx context.Context, who agent.Identity, handle string) (Live, error) {
	if who.Agent() == "" {
		return Live{}, fault.New(fault.Unauthenticated, "unauthenticated", "No agent is authenticated.")
	}
	if who.Session() != "" && handle != "" {
		if err := s.names(ctx, who, handle); err != nil {
			return Live{}, err
		}
	}
	return s.live(ctx, who, reference{who.Session(), handle})
}

// names refuses a handle that is not of the session that a token is bound to.
func (s *Service) names(ctx context.Context, who agent.Identity, handle string) error {
	const query = `select exists (select 1 from session_handle where hash = $1 and session_id = $2)`
	var same bool
	if err := s.db.Reader().QueryRowContext(ctx, query, handleHash(handle), who.Session()).Scan(&same); err != nil {
		return sqldb.Wrap("look a session's handle up", err)
	}
	if !same {
		return notFound()
	}
	return nil
}

func (s *Service) live(ctx context.Context, who agent.Identity, ref reference) (Live, error) {
	ses, l, err := s.readLive(ctx, who, ref)
	if err != nil {
		return Live{}, err
	}
	// A refused call is recorded with its session. A Live without grants
	// permits nothing.
	ended := Live{session: l.session, organization: l.organization, user: l.user}
	switch ses = s.aged(ses); {
	case ses.State == Pending:
		return ended, fault.New(fault.Denied, "pending", "The request still waits for a person's decision.").
			WithHint("Ask the person to decide at the URL; check_session waits for it.").
			With("approval_url", s.approvalURL(ses.Approval)).With("request_id", string(ses.Approval))
	case ses.State != Active:
		if ses, err = sessionByID(ctx, s.db.Reader(), ses.ID); err == nil {
			ses, err = s.seen(ctx, ses)
		}
		if err != nil {
			return ended, sqldb.Wrap("load a session", err)
		}
		return ended, s.Refusal(ses)
	}
	return l, nil
}

// Refusal is what an ended session answers to its agent. When the end of an
// account ended it, connect_url names the page to connect one at.
func (s *Service) Refusal(ses Session) *fault.Error {
	f := endedFault(ses)
	for _, g := range ses.Grants {
		if ses.Cause == CauseAccount && g.Lost == LostAccount {
			return f.WithHint("The account "+quote(g.AccountLabel)+" was disconnected. Stop, and ask the person; one can be connected again at the URL.").
				With("connect_url", s.connections.ReconnectURL(g.Connection))
		}
	}
	return f
}

// endedFault says why a session no longer permits anything.
func endedFault(ses Session) *fault.Error {
	again := "Request a new session if the task still needs access."
	switch ses.Reason {
	case Revoked:
		return fault.New(fault.Denied, "revoked", "The session was revoked.").WithHint("Stop, and ask the person before requesting another session.")
	case Denied:
		return fault.New(fault.Denied, "denied", "A person denied this request.").WithHint("Do not repeat it. Ask the person what they would approve.")
	case Expired:
		return fault.New(fault.Expired, "expired", "The session has expired.").WithHint(again)
	case Withdrawn:
		return fault.New(fault.Expired, "withdrawn", "The request was withdrawn before anybody decided.").WithHint(again)
	}
	return fault.New(fault.Expired, "ended", "The session has ended.").WithHint(again)
}

// Permit is the right to make one call. Only [Service.Permit] makes one, and
// only [Permit.Check] in the transaction of the call's intent makes it good.
type Permit struct {
	session      id.Session
	environment  id.Environment
	organization id.Organization
	agent        id.Agent
	user         id.User
	until        time.Time
	calls        int // the most that may start in the session; 0: this one is not counted
	grant        liveGrant
	tool         string
	digest       string      // of the canonical arguments, hex
	approval     id.Approval // of this very call, if it needed one
	note         string      // what its approver told the agent
	series       bool        // approval was of a call like this one
	service      *Service
}

// Valid reports whether this is a Permit that a Service made. The zero Permit
// is not.
func (p Permit) Valid() bool { return p.service != nil }

func (p Permit) Session() id.Session           { return p.session }
func (p Permit) Environment() id.Environment   { return p.environment }
func (p Permit) Organization() id.Organization { return p.organization }
func (p Permit) User() id.User                 { return p.user }
func (p Permit) Connection() id.Connection     { return p.grant.connection }
func (p Permit) Tool() string                  { return p.tool }
func (p Permit) ConnectionOwner() id.User      { return p.grant.owner }
func (p Permit) Provider() string              { return p.grant.policy.Provider }
func (p Permit) Record() provider.Record       { return p.grant.record }
func (p Permit) Pinned() provider.Pinned       { return p.grant.pinned }
func (p Permit) CredentialVersion() int64      { return p.grant.version }
func (p Permit) Approval() id.Approval         { return p.approval }
func (p Permit) Until() time.Time              { return p.until }

// Note is what the person who approved this very call told the agent.
func (p Permit) Note() string { return p.note }

// Target is the tool that a call names, on the connection that serves it.
type Target struct {
	Tool  provider.Tool
	Bases []string // the API hosts that the connection pins

	grant liveGrant
}

// Target finds the granted connection that a tool runs on. account chooses one
// where several could serve; empty means the only one.
func (l Live) Target(tool string, account id.Connection) (Target, error) {
	var found []Target
	var known bool
	named := account == ""
	for _, g := range l.grants {
		if account != "" && g.connection != account {
			continue
		}
		named = true
		if t, ok := g.record.Tool(tool); ok {
			known = true
			if _, granted := g.digests[tool]; granted {
				found = append(found, Target{Tool: t, Bases: g.pinned.API, grant: g})
			}
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		var names []string
		for _, t := range found {
			names = append(names, fmt.Sprintf("%s (%s)", t.grant.connection, t.grant.account))
		}
		return Target{}, fault.New(fault.Invalid, "ambiguous_account", "Several accounts can run this tool: "+strings.Join(names, ", ")+".").
			WithHint("Name one with the argument connection.")
	case !named:
		return Target{}, fault.New(fault.Denied, "not_granted", "This session does not include the account that connection names.").
			WithHint("Leave connection out, or request_session it with this session as widen, and tell the person why.")
	case known:
		return Target{}, fault.New(fault.Denied, "not_granted", "This session does not include "+quote(tool)+".").
			WithHint("request_session the tool with this session as widen, and tell the person why.")
	}
	return Target{}, fault.New(fault.Denied, "not_granted", "This session has no account with a tool "+quote(tool)+".").
		WithHint("Request a session for the tool; search_tools finds its name.")
}

// Decided is what a decision was, for the audit.
type Decided struct {
	Policy         policy.Decision
	ArgumentDigest string
	Approval       id.Approval
	Asked          bool // Approval was asked for by this very call
}

// Detail is what else the audit keeps of the decision: the organization's policy
// that had a say, with its version.
func (d Decided) Detail() map[string]string {
	if d.Policy.Policy == "" {
		return nil
	}
	return map[string]string{"policy": d.Policy.Policy}
}

// Permit decides one call: grant and policy give a Permit, a request for a
// person's approval of exactly this call, or a refusal. req is the request that
// would be sent, built from canonical arguments.
func (s *Service) Permit(ctx context.Context, l Live, t Target, req *provider.Request) (Permit, Decided, error) {
	if l.session == "" {
		return Permit{}, Decided{}, notFound()
	}
	d := Decided{ArgumentDigest: hexDigest(req.Args)}
	if t.grant.state != connection.Connected {
		d.Policy = policy.Decision{Verdict: policy.Deny, Rule: "connection.state", Code: connection.CodeReconnect}
		return Permit{}, d, s.connections.MustReconnect(t.grant.connection, "The account "+quote(t.grant.account)+" must be connected again before it can be used.")
	}
	rules, err := s.rulesAt(ctx, l.rules)
	if err != nil {
		d.Policy = policy.Decision{Verdict: policy.Deny, Rule: "policy.failed", Code: fault.Of(err).Code}
		return Permit{}, d, err
	}
	toolDigest := t.Tool.Digest()
	r := policy.Request{
		Ceiling: l.ceiling, Grant: t.grant.policy, Provider: t.grant.policy.Provider, Tool: t.Tool.Name, Effect: effectOf(t, req), Generic: t.Tool.Generic, Arguments: req.Args,
		Approvals: rules.Settings.Approvals, Rules: rules.compiled, Facts: s.factsOf(l, t, req),
		ToolApproved: t.grant.digests[t.Tool.Name] == hex.EncodeToString(toolDigest[:]),
	}
	if err := s.callsLeft(ctx, l); err != nil {
		d.Policy = policy.Decision{Verdict: policy.Deny, Rule: "grant.calls", Code: fault.Of(err).Code}
		return Permit{}, d, err
	}
	d.Policy = policy.Decide(r)
	if lacks := t.grant.record.Lacks(t.Tool, t.grant.scopes); len(lacks) > 0 && d.Policy.Verdict != policy.Deny {
		d.Policy = policy.Decision{Verdict: policy.Deny, Rule: "connection.scopes", Code: connection.CodeScopes}
		return Permit{}, d, s.connections.MustWiden(t.grant.connection, t.grant.account, lacks)
	}
	var subject CallSubject
	var note string
	var series bool
	if d.Policy.Verdict == policy.NeedApproval {
		subject = callSubject(t, req)
		key, err := subjectDigest(l, subject)
		if err != nil {
			return Permit{}, d, err
		}
		approved, words, err := approvedCall(ctx, s.db.Reader(), l.session, key, s.now())
		if sqldb.NoRows(err) && !req.Partial && rules.Settings.Approvals.Of(subject.Effect) == policy.ByGrant {
			found, said, serr := s.seriesFor(ctx, l, subject, key)
			if serr != nil {
				return Permit{}, d, serr
			}
			if found != "" {
				approved, words, err, series = found, said, nil, true
			}
		}
		if err == nil {
			r.CallApproved, note = true, words
			d.Policy, d.Approval = policy.Decide(r), approved
		} else if !sqldb.NoRows(err) {
			return Permit{}, d, sqldb.Wrap("look for the approval of a call", err)
		} else if req.Partial {
			return Permit{}, d, fault.New(fault.Denied, "not_approvable", "A person would have to approve exactly this call, and its body is too large for that.").
				WithHint("Send at most 1 MiB, with a Content-Length, or ask for a session that does not confirm such calls.")
		} else {
			a, asked, err := s.askForCall(ctx, l, rules.Settings, subject, key)
			d.Approval, d.Asked = a, asked
			if err != nil {
				return Permit{}, d, err
			}
			return Permit{}, d, fault.New(fault.Denied, "approval_required", "A person must approve exactly this call.").
				WithHint("Ask the person to decide at the URL. check_session with this request_id waits for the decision; once it is approved, make the identical call again, once.").
				With("approval_url", s.approvalURL(a)).With("request_id", string(a))
		}
	}
	if d.Policy.Verdict != policy.Allow {
		return Permit{}, d, refusal(d.Policy, t, req)
	}
	return Permit{session: l.session, environment: l.environment, organization: l.organization, agent: l.agent, user: l.user, until: l.expiresAt,
		calls: l.calls, grant: t.grant, tool: t.Tool.Name, digest: d.ArgumentDigest, approval: d.Approval, note: note, series: series, service: s}, d, nil
}

// effectOf is what a call can change: what its tool declares, or its statement
// shows, whichever is the stronger.
func effectOf(t Target, req *provider.Request) policy.Effect {
	return policy.Worse(t.Tool.Effect, req.Effect)
}

func refusal(d policy.Decision, t Target, req *provider.Request) error {
	tool := t.Tool.Name
	if l := d.Outside; l != nil {
		return fault.New(fault.Denied, d.Code, "This call is outside of what was approved: "+quote(l.Argument)+" "+l.Condition()+" "+quote(strings.Join(l.Values(), ", "))+".").
			WithHint("Stay within it, or request a session without that limit, and tell the person why.").With("argument", l.Argument)
	}
	switch d.Code {
	case "policy_denied":
		if d.Rule == "policy.failed" {
			return fault.New(fault.Denied, d.Code, "A policy of the organization could not be evaluated for this call, so it is refused.").
				WithHint("Tell the person: an owner or admin of the organization can mend it.").With("policy", d.Policy)
		}
		return fault.New(fault.Denied, d.Code, "A policy of the organization does not allow this call.").
			WithHint("Asking for another session does not change that. Tell the person.").With("policy", d.Policy)
	case "approval_stale":
		return fault.New(fault.Denied, d.Code, "The tool "+quote(tool)+" is no longer the one that was approved.").WithHint("Request a new session.")
	case "access_refused":
		return fault.New(fault.Denied, d.Code, "Generic tools cannot make keys, members, webhooks or permissions.").WithHint("Use the provider's own tool for it.")
	}
	if effect := effectOf(t, req); effect != t.Tool.Effect {
		return fault.New(fault.Denied, "not_granted", fmt.Sprintf("This call is %s: %s. The session does not include that.", effect, req.Why)).
			WithHint(fmt.Sprintf("Request a session with the effect %s, for this tool and one of the provider's tools that has it, and tell the person why.", effect))
	}
	return fault.New(fault.Denied, "not_granted", "This session does not include "+quote(tool)+".").WithHint("request_session the tool with this session as widen, and tell the person why.")
}

// Check makes Permits good or refuses them: it is the fence (audit.Fence) of the
// transaction that writes their intents. It takes a share lock on the sessions'
// rows, so that this transaction and a revoke have an order, and it uses up the
// approval of a call that needed one, and one of the calls of a session that has a
// number of them. For what it refuses it has written nothing.
func (p Permit) Check(ctx context.Context, tx *sqldb.Tx, all []audit.Fence) []error {
	now := p.service.now()
	sessions := make([]id.Session, len(all))
	for i, f := range all {
		sessions[i] = f.(Permit).session
	}
	refused := requireActive(ctx, tx, sessions, now)
	for _, i := range inOrder(all, func(p Permit) string { return string(p.session) }) {
		if q := all[i].(Permit); refused[i] == nil && q.calls > 0 {
			refused[i] = countCall(ctx, tx, q.session, q.calls)
		}
	}
	for _, i := range inOrder(all, func(p Permit) string { return string(p.approval) }) {
		q := all[i].(Permit)
		if refused[i] != nil || q.approval == "" {
			continue
		}
		if q.series {
			refused[i] = useSeries(ctx, tx, q.approval)
		} else {
			refused[i] = useApproval(ctx, tx, q.approval, now)
		}
		if refused[i] != nil && q.calls > 0 {
			if err := uncountCall(ctx, tx, q.session); err != nil {
				refused[i] = err
			}
		}
	}
	return refused
}

// inOrder are the places of Permits by the row that each changes: in one order for all
// transactions, so that none waits for another that waits for it.
func inOrder(all []audit.Fence, row func(Permit) string) []int {
	out := make([]int, len(all))
	for i := range out {
		out[i] = i
	}
	slices.SortStableFunc(out, func(a, b int) int { return strings.Compare(row(all[a].(Permit)), row(all[b].(Permit))) })
	return out
}

// Track gives the context that the permitted call runs under: it ends when the
// session does. done must be called when the call has ended.
func (p Permit) Track(ctx context.Context) (tracked context.Context, done func()) {
	return p.service.running.track(ctx, p.session, p.until.Sub(p.service.now()))
}

func callSubject(t Target, req *provider.Request) CallSubject {
	digest := t.Tool.Digest()
	sum := req.Summary
	c := CallSubject{
		Tool: t.Tool.Name, Title: t.Tool.Title, ToolDigest: hex.EncodeToString(digest[:]), Generic: t.Tool.Generic, Effect: effectOf(t, req), Why: req.Why, Connection: t.grant.connection,
		Provider: t.grant.policy.Provider, ProviderName: t.grant.record.Name, AccountLabel: t.grant.account,
		Method: sum.Method, URL: "https://" + sum.Host + sum.Path, Arguments: json.RawMessage(req.Args), Shown: sum.Shown,
	}
	if req.URL != nil {
		c.URL = req.URL.Scheme + "://" + sum.Host + sum.Path
		if req.URL.RawQuery != "" {
			c.URL += "?" + req.URL.RawQuery
		}
	}
	if t.Tool.Target != nil {
		c.Unnamed = t.Tool.Target.Unnamed
	}
	for _, part := range [][]Field{sum.Query, sum.Header, sum.Body} {
		c.Fields = append(c.Fields, part...)
	}
	return c
}

// subjectDigest identifies a call for matching it with its approval, beside the
// session: the same agent, user, connection, tool definition and arguments. The same
// call in a session that was handed on has the same digest.
func subjectDigest(l Live, c CallSubject) (string, error) {
	doc, err := strictjson.CanonicalOf(struct {
		Agent id.Agent    `json:"agent_id"`
		User  id.User     `json:"user_id"`
		Call  CallSubject `json:"call"`
	}{l.agent, l.user, c})
	if err != nil {
		return "", err
	}
	return hexDigest(doc), nil
}

// notAfter is t, or the end of what it is for.
func notAfter(t, end time.Time) time.Time {
	if end.Before(t) {
		return end
	}
	return t
}

// askForCall makes a request for the approval of one call, or finds the one
// that already waits. made says which.
func (s *Service) askForCall(ctx context.Context, l Live, set policy.Settings, c CallSubject, key string) (asked id.Approval, made bool, err error) {
	now := s.now()
	switch waiting, err := pendingCall(ctx, s.db.Reader(), l.session, key, now); {
	case err == nil:
		return waiting, false, nil
	case !sqldb.NoRows(err):
		return "", false, sqldb.Wrap("look for an open request", err)
	}
	root, err := s.Parent(ctx, l.session)
	if err != nil {
		return "", false, err
	}
	root = cmp.Or(root, l.session)
	if err := s.deniedBefore(ctx, root, key, now); err != nil {
		return "", false, err
	}
	if err := s.quiet(set); err != nil {
		return "", false, err
	}
	doc, err := json.Marshal(c)
	if err != nil {
		return "", false, fmt.Errorf("encoding a call: %w", err)
	}
	r := approvalRow{
		id: id.NewApproval(), kind: KindCall, environment: l.environment, organization: l.organization, session: l.session, agent: l.agent, user: l.user,
		connection: c.Connection, tool: c.Tool, subjectDigest: key, state: ApprovalPending, createdAt: now, expiresAt: notAfter(now.Add(callPendingFor), l.expiresAt),
	}
	for _, g := range l.grants {
		if g.connection == c.Connection {
			r.connectionOwner = g.owner
		}
	}
	// What the agent wants to send may hold anything, so it is sealed.
	if r.subject, err = s.vault.Seal(ctx, r.place(), secret.New(doc)); err != nil {
		return "", false, err
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := tx.Serialize(ctx, "call "+string(root)); err != nil {
			return sqldb.Wrap("wait for other requests", err)
		}
		switch waiting, err := pendingCall(ctx, tx, l.session, key, now); {
		case err == nil:
			asked = waiting // asked for elsewhere in this moment
			return nil
		case !sqldb.NoRows(err):
			return sqldb.Wrap("look for an open request", err)
		}
		if err := s.callsWithin(ctx, tx, l, root, c, set.Limits, now); err != nil {
			return err
		}
		asked, made = r.id, true
		if err := insertApproval(ctx, tx, r); err != nil {
			return sqldb.Wrap("store a request", err)
		}
		event := s.audit.Append(tx, audit.Entry{
			Environment: l.environment, Organization: l.organization, Actor: audit.Actor{Kind: "agent", ID: string(l.agent)}, Agent: l.agent, User: l.user,
			Session: l.session, Approval: r.id, Connection: c.Connection, Action: "call.requested", Object: c.Tool, Provider: c.Provider, Tool: c.Tool,
			Effect: string(c.Effect), ArgumentDigest: hexDigest(c.Arguments),
		})
		changed(tx, l.organization)
		return s.onAsked(ctx, tx, s.askedForCall(event, l, r, c, set))
	})
	if err != nil {
		return "", false, err
	}
	return asked, made, nil
}

// deniedBefore answers a call that a person has denied with their words, for as
// long as repeating it is held back.
func (s *Service) deniedBefore(ctx context.Context, ses id.Session, key string, now time.Time) error {
	note, at, err := deniedCall(ctx, s.db.Reader(), ses, key)
	wait := denials{1, at}.hold(0, now)
	if sqldb.NoRows(err) || err == nil && wait == 0 {
		return nil
	}
	if err != nil {
		return sqldb.Wrap("look for a denied request", err)
	}
	f := fault.New(fault.Denied, "denied", "A person denied this call.").WithHint("Do not repeat it. Ask the person what they would approve.").WithRetry(wait)
	if note != "" {
		f = f.With("note", note)
	}
	return f
}

// place is where the sealed subject of a call approval belongs.
func (r approvalRow) place() vault.Place {
	return vault.Place{Environment: r.environment, Organization: r.organization, User: r.user, Kind: "approval", Object: string(r.id), Version: 1}
}

// targetPlace is where the sealed name of what a call is about belongs.
func (r approvalRow) targetPlace() vault.Place {
	p := r.place()
	p.Kind = "approval_target"
	return p
}

// keeps lists the columns of sealed subjects and targets.
func keeps() []vault.Sealed {
	column := func(name string, place func(approvalRow) vault.Place) vault.Sealed {
		return vault.Sealed{
			Table: "approval", Column: name, Key: []string{"id"}, Fields: `s.id, s.environment_id, s.organization_id, s.user_id`,
			Place: func(scan func(dest ...any) error) (vault.Place, error) {
				var r approvalRow
				err := scan(&r.id, &r.environment, &r.organization, &r.user)
				return place(r), err
			},
		}
	}
	return []vault.Sealed{column("subject", approvalRow.place), column("target", approvalRow.targetPlace)}
}

func decodeSubject(v secret.Value) (*CallSubject, error) {
	var c CallSubject
	if err := json.Unmarshal(v.Reveal(), &c); err != nil {
		return nil, fmt.Errorf("reading the subject of an approval: %w", err)
	}
	return &c, nil
}

// textOf is what a provider said that a call is about, which is no credential.
func textOf(v secret.Value) string { return string(v.Reveal()) }

// Connection and Provider say where the call would go.
func (t Target) Connection() id.Connection { return t.grant.connection }
func (t Target) Provider() string          { return t.grant.policy.Provider }

package session

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// The kinds and states of an approval.
const (
	KindSession = "session"
	KindCall    = "call"

	ApprovalPending   = "pending"
	ApprovalApproved  = "approved"
	ApprovalDenied    = "denied"
	ApprovalExpired   = "expired"
	ApprovalWithdrawn = "withdrawn"
	ApprovalUsed      = "used" // an approved call that was made
)

// Approval is a person's decision on one exact thing, pending or made.
type Approval struct {
	ID        id.Approval
	Kind      string
	State     string
	Session   Session // with what is asked for, or was granted
	Call      *CallSubject
	CreatedAt time.Time
	ExpiresAt time.Time
	DecidedAt time.Time
	DecidedBy id.User
	Note      string // what the person told the agent, or why it was denied
	Risk      []string
	Target    string   // of a call: what it is about, as the provider says; empty: nobody knows
	Stands    []Field  // of a call that changes something: what stood there when the agent asked, as the provider says
	Series    *Series  // of a call: what it allows beside; nil: nothing
	Lost      string   // of an open call: why it could not be made as its connection stands now
	Widened   *Session // of a request to widen a session that runs: that session, as it is now
	First     First    // who approved already, where a second person must
	Consent   *Consent // the sign-in that it answers too; nil: none

	row    approvalRow
	rules  Rules
	handOn bool // as the first of two persons ticked
}

// First is the first of two persons who approve. While the second is awaited, the
// session shows what the first allowed.
type First struct {
	By id.User // empty: nobody yet, or one person is enough
	At time.Time
}

// Seconds reports whether p would be the second of two persons: not the first, nor
// the one for whom the agent acts, and of a role that decides for the organization.
func (a Approval) Seconds(p account.Person) bool {
	return a.First.By != "" && a.First.By != p.User() && a.user() != p.User() && a.deciding(p)
}

// user is for whom the agent acts, or empty: nobody yet. A request to widen the session
// of an autonomous agent names nobody, but that session does.
func (a Approval) user() id.User {
	if a.Widened != nil {
		return cmp.Or(a.Session.User, a.Widened.User)
	}
	return a.Session.User
}

// Mine reports whether p can approve now what is open.
func (a Approval) Mine(p account.Person) bool {
	return a.First.By == "" || a.Seconds(p)
}

// deciding reports whether the organization lets p's role decide on its accounts.
func (a Approval) deciding(p account.Person) bool {
	role, ok := p.Role(a.Session.Organization)
	return ok && slices.Contains(a.rules.Settings.Approvers, string(role)) &&
		account.ByPerson(p).In(a.Session.Environment).May(a.Session.Organization, account.ApproveSessions) == nil
}

// CallSubject is the call that a call approval is about.
type CallSubject struct {
	Tool         string          `json:"tool"`
	Title        string          `json:"title"`
	ToolDigest   string          `json:"tool_digest"`
	Generic      bool            `json:"generic,omitempty"` // in the words of HTTP, by no tool of the provider's own
	Effect       policy.Effect   `json:"effect"`
	Why          string          `json:"why,omitempty"` // what in its statement makes it worse than its tool
	Connection   id.Connection   `json:"connection_id"`
	Provider     string          `json:"provider"`
	ProviderName string          `json:"provider_name"`
	AccountLabel string          `json:"account"`
	Method       string          `json:"method"`
	URL          string          `json:"url"`
	Unnamed      string          `json:"unnamed,omitempty"` // why nothing can name what it is about
	Fields       []Field         `json:"fields"`            // what will be sent, readable, in order
	Shown        *provider.Shown `json:"shown,omitempty"`   // what those fields are, as the tool's record says; nil: fields
	Arguments    json.RawMessage `json:"arguments"`         // canonical
}

// Field is one readable part of a call.
type Field = provider.Field

// Decision is what a person allows of what was asked. It can only narrow.
type Decision struct {
	Grants       []Choice       `json:"grants"`
	Minutes      int            `json:"minutes"`
	Calls        int            `json:"calls"` // the most that may start; 0: as asked
	Confirm      policy.Confirm `json:"confirm"`
	HandOn       bool           `json:"hand_on"` // the agent may hand it on to sub-agents of its own
	Like         Like           `json:"like"`    // of a call: more calls that need no approval of their own
	Instructions string         `json:"instructions"`
}

// Choice is what a person allows on one connection. Empty Tools means every
// asked tool with one of the effects. Tools that do not take a limited argument
// are left out.
type Choice struct {
	Connection id.Connection   `json:"connection_id"`
	Effects    []policy.Effect `json:"effects"`
	Tools      []string        `json:"tools"`
	Limits     []policy.Limit  `json:"limits"` // beside those that the agent asked for
}

// DefaultDecision allows what was asked, on the only account of each provider;
// where several accounts could serve, the person picks.
func (s *Service) DefaultDecision(a Approval) Decision {
	d := Decision{Minutes: a.Session.Minutes, Calls: a.Session.Calls, Confirm: defaultConfirm(a.Session.Grants)}
	accounts := map[string]int{}
	for _, g := range a.Session.Grants {
		if g.Lost == "" {
			accounts[g.Provider]++
		}
	}
	for _, g := range a.Session.Grants {
		if g.Lost == "" && (accounts[g.Provider] == 1 || g.Had != nil) {
			d.Grants = append(d.Grants, Choice{Connection: g.Connection, Effects: g.Effects})
		}
	}
	return d
}

// Inbox lists the undecided requests that p may decide, oldest first.
func (s *Service) Inbox(ctx context.Context, p account.Person) ([]Approval, error) {
	now := s.now()
	var out []Approval
	for _, m := range p.Organizations() {
		rows, err := pendingApprovals(ctx, s.db.Reader(), m.Organization, now)
		if err != nil {
			return nil, sqldb.Wrap("list open requests", err)
		}
		if len(rows) == 0 {
			continue
		}
		rules, err := rulesOf(ctx, s.db.Reader(), m.Organization)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			a, err := s.load(ctx, r, rules)
			if err != nil {
				return nil, err
			}
			if mayDecide(p, a) && a.Mine(p) {
				out = append(out, a)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Approval) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return out, nil
}

// Approval gives one request to a person who may decide it. For anyone else it
// does not exist.
func (s *Service) Approval(ctx context.Context, p account.Person, aid id.Approval) (Approval, error) {
	r, err := approvalByID(ctx, s.db.Reader(), aid)
	if sqldb.NoRows(err) {
		return Approval{}, noApproval()
	}
	if err != nil {
		return Approval{}, sqldb.Wrap("load a request", err)
	}
	if _, ok := p.Role(r.organization); !ok {
		return Approval{}, noApproval()
	}
	rules, err := rulesOf(ctx, s.db.Reader(), r.organization)
	if err != nil {
		return Approval{}, err
	}
	a, err := s.load(ctx, r, rules)
	if err != nil {
		return Approval{}, err
	}
	if !mayDecide(p, a) {
		return Approval{}, noApproval()
	}
	return a, nil
}

// load completes a row with its session and, for a call, its sealed subject.
func (s *Service) load(ctx context.Context, r approvalRow, rules Rules) (Approval, error) {
	ses, err := sessionByID(ctx, s.db.Reader(), r.session)
	if err != nil {
		return Approval{}, sqldb.Wrap("load the session of a request", err)
	}
	if ses, err = s.seen(ctx, ses); err != nil {
		return Approval{}, err
	}
	a := Approval{ID: r.id, Kind: r.kind, State: r.state, Session: ses, CreatedAt: r.createdAt, ExpiresAt: r.expiresAt,
		DecidedAt: r.decidedAt, DecidedBy: r.decidedBy, Note: r.note, row: r, rules: rules}
	if r.state == ApprovalPending && !s.now().Before(r.expiresAt) {
		a.State = ApprovalExpired
	}
	if ses.Widens != "" {
		base, err := sessionByID(ctx, s.db.Reader(), ses.Widens)
		if err != nil {
			return Approval{}, sqldb.Wrap("load the session of a request", err)
		}
		base = s.aged(base)
		a.Widened = &base
	}
	if r.kind == KindSession {
		if a.Consent, err = consentOf(ctx, s.db.Reader(), ses.ID); err != nil {
			return Approval{}, err
		}
	}
	if r.firstBy != "" {
		a.First = First{By: r.firstBy, At: r.firstAt}
		if err := a.showFirst(); err != nil {
			return Approval{}, err
		}
	}
	if r.kind == KindCall {
		plain, err := s.vault.Open(ctx, r.place(), r.subject)
		if err != nil {
			return Approval{}, err
		}
		if a.Call, err = decodeSubject(plain); err != nil {
			return Approval{}, err
		}
		if a.Target, a.Stands, err = s.target(ctx, r); err != nil {
			return Approval{}, err
		}
	}
	if a.Call != nil && a.State != ApprovalPending {
		if a.Series, err = s.seriesOf(ctx, r.id); err != nil {
			return Approval{}, err
		}
	}
	if a.Call != nil && a.State == ApprovalPending {
		now, err := s.connections.Among(ctx, s.db.Reader(), r.environment, []id.Connection{r.connection})
		if err != nil {
			return Approval{}, err
		}
		a.Lost = lost(Grant{Connection: r.connection}, now)
	}
	a.Risk = risks(a)
	if a.handOn { // the second person reads what the first ticked
		a.Risk = append(a.Risk, "The first person let it hand this on to sub-agents.")
	}
	return a, nil
}

// mayDecide holds product.md §5.4: a user-owned connection is its owner's to
// grant, who must also be the agent's user; an organization's is an approver's.
// Once a first person has approved, whoever may be the second decides too.
func mayDecide(p account.Person, a Approval) bool {
	if a.Seconds(p) {
		return true
	}
	if a.Kind == KindCall {
		return a.MayGrant(p, a.row.connectionOwner)
	}
	return slices.ContainsFunc(a.Session.Grants, func(g Grant) bool { return a.MayGrant(p, g.Owner) })
}

// MayGrant reports whether p may grant an account of this owner; empty is the
// organization.
func (a Approval) MayGrant(p account.Person, owner id.User) bool {
	if owner != "" {
		_, member := p.Role(a.Session.Organization)
		return member && owner == p.User() && a.Session.User == p.User()
	}
	return a.deciding(p)
}

func risks(a Approval) []string {
	var out []string
	if !a.Session.AgentVerified {
		out = append(out, "Nobody has confirmed who this agent is.")
	}
	effects := map[policy.Effect]bool{}
	if a.Call != nil {
		effects[a.Call.Effect] = true
		if a.Call.Why != "" {
			out = append(out, "It is worse than the tool says: "+a.Call.Why+".")
		}
	} else {
		for _, g := range a.Session.Grants {
			for _, e := range g.Effects {
				effects[e] = true
			}
		}
	}
	switch {
	case a.Call != nil && a.Call.Shown != nil && a.Call.Shown.As == "mail":
		out = append(out, "It sends mail. What is sent cannot be taken back.")
	case effects[policy.Destructive]:
		out = append(out, "It can delete things. What is deleted may not come back.")
	}
	if effects[policy.Access] {
		out = append(out, "It can make keys or permissions that stay after the session has ended.")
	}
	return out
}

// narrowed applies a decision to what was asked. What was not asked, is no
// longer connected the same way, or is not this person's to grant is refused.
func (s *Service) narrowed(p account.Person, a Approval, d Decision) ([]Grant, Decision, error) {
	bad := func(msg string) ([]Grant, Decision, error) {
		return nil, Decision{}, fault.New(fault.Invalid, "invalid_decision", msg).WithHint("Go back to the request and decide again.")
	}
	if a.Widened != nil { // these are as they were approved
		d.Minutes, d.Calls, d.HandOn = 0, 0, false
	}
	if d.Minutes == 0 {
		d.Minutes = a.Session.Minutes
	}
	if d.Minutes < 1 || d.Minutes > a.Session.Minutes {
		return bad(fmt.Sprintf("The session can last 1 to %d minutes.", a.Session.Minutes))
	}
	if d.Calls == 0 {
		d.Calls = a.Session.Calls
	}
	if most := a.Session.Calls; d.Calls < 0 || d.Calls > MaxCalls || most > 0 && d.Calls > most {
		return bad(fmt.Sprintf("The session can have 1 to %d calls.", cmp.Or(most, MaxCalls)))
	}
	confirm, err := policy.ParseConfirm(string(d.Confirm))
	if err != nil {
		return nil, Decision{}, err
	}
	d.Confirm = confirm
	var grants []Grant
	for _, g := range a.Session.asked.Grants {
		i := slices.IndexFunc(d.Grants, func(c Choice) bool { return c.Connection == g.Connection })
		if i < 0 {
			continue
		}
		if !a.MayGrant(p, g.Owner) {
			return bad("One of the accounts is not yours to grant.")
		}
		if g.Lost != "" {
			return nil, Decision{}, stale()
		}
		c := d.Grants[i]
		for _, e := range c.Effects {
			if !slices.Contains(g.Effects, e) {
				return bad("An effect was chosen that the agent did not ask for.")
			}
		}
		for _, t := range c.Tools {
			if !slices.ContainsFunc(g.Tools, func(r ToolRef) bool { return r.Name == t }) {
				return bad("A tool was chosen that the agent did not ask for.")
			}
		}
		g.Tools = slices.DeleteFunc(slices.Clone(g.Tools), func(r ToolRef) bool {
			return !slices.Contains(c.Effects, r.Effect) || len(c.Tools) > 0 && !slices.Contains(c.Tools, r.Name)
		})
		for _, l := range c.Limits {
			if err := l.Check(); err != nil {
				return nil, Decision{}, err
			}
		}
		if g = g.within(c.Limits); len(g.Limits) > policy.MaxLimits {
			return bad(fmt.Sprintf("An account has at most %d limits.", policy.MaxLimits))
		}
		if len(g.Tools) == 0 {
			if len(c.Limits) > 0 {
				return bad("No ticked tool takes the argument that you limit, so nothing would be left of this account.")
			}
			continue
		}
		g.Effects, g.Confirm = presentEffects(g.Tools), d.Confirm
		grants = append(grants, g)
	}
	if len(grants) == 0 {
		return bad("Nothing is left to approve: tick an account and something that may be done with it.")
	}
	return grants, d, nil
}

// Digest is what an approval proves: a SHA-256 over everything that it allows.
// It is the WebAuthn challenge (product.md rules 4 and 5).
func (s *Service) Digest(ctx context.Context, p account.Person, aid id.Approval, d Decision) ([32]byte, error) {
	a, err := s.Approval(ctx, p, aid)
	if err != nil {
		return [32]byte{}, err
	}
	if err := open(a); err != nil {
		return [32]byte{}, err
	}
	if err := theirs(p, a); err != nil {
		return [32]byte{}, err
	}
	v, err := s.decide(p, a, d)
	return v.digest, err
}

// open refuses requests that are no longer open.
func open(a Approval) error {
	switch a.State {
	case ApprovalPending:
	case ApprovalExpired:
		return fault.New(fault.Expired, "expired", "This request has expired.").WithHint("The agent can ask again.")
	case ApprovalWithdrawn:
		return fault.New(fault.Conflict, "withdrawn", "This request was withdrawn meanwhile.").WithHint("Reload the page to see why. Nothing was granted.")
	default:
		return fault.New(fault.Conflict, "already_decided", "This request has already been decided.")
	}
	if a.Kind == KindCall && a.Session.State != Active {
		return callOver()
	}
	if a.Widened != nil && (a.Widened.State != Active || a.Widened.Version != a.Session.base) {
		return widenStale()
	}
	return nil
}

// theirs refuses a yes of who has given it already, or may not be the second.
func theirs(p account.Person, a Approval) error {
	if a.Mine(p) {
		return nil
	}
	return fault.New(fault.Denied, "second_person", "A second person must approve this: neither the first, nor the one for whom the agent acts.").
		WithHint("Ask somebody who decides for the organization. The request is in their inbox.")
}

// verdict is a decision as it will be carried out.
type verdict struct {
	second bool // a second person must decide too
	grants []Grant
	length int      // minutes
	calls  int      // 0: no limit
	handOn bool     // to sub-agents
	note   string   // to the agent
	like   Like     // of a call: more that need no approval of their own
	digest [32]byte // what its proof must be made over
}

func (s *Service) decide(p account.Person, a Approval, d Decision) (verdict, error) {
	note, err := words(d.Instructions)
	if err != nil {
		return verdict{}, err
	}
	allowed := struct {
		Form         string          `json:"form"`
		Approval     id.Approval     `json:"approval_id"`
		Environment  id.Environment  `json:"environment_id"`
		Organization id.Organization `json:"organization_id"`
		Session      id.Session      `json:"session_id"`
		Agent        id.Agent        `json:"agent_id"`
		User         id.User         `json:"user_id"`
		Approver     id.User         `json:"approver_id"`
		Grants       []Grant         `json:"grants,omitempty"`
		Minutes      int             `json:"minutes,omitempty"`
		Calls        int             `json:"calls,omitempty"`
		Call         *CallSubject    `json:"call,omitempty"`
		HandOn       bool            `json:"hand_on,omitempty"`
		Widens       id.Session      `json:"widens,omitempty"`
		Base         int64           `json:"widens_version,omitempty"`
		Like         *Like           `json:"like,omitempty"`
		Instructions string          `json:"instructions"`
		First        string          `json:"first,omitempty"`   // the digest that the first of two persons proved
		Consent      string          `json:"consent,omitempty"` // to whom its token goes
	}{
		Form: "ambit approval 1", Approval: a.ID, Environment: a.Session.Environment, Organization: a.Session.Organization,
		Session: a.Session.ID, Agent: a.Session.Agent, User: a.user(), Approver: p.User(), Call: a.Call,
		Instructions: note, First: a.row.firstDigest, Widens: a.Session.Widens, Base: a.Session.base, Consent: a.Consent.to(),
	}
	if a.First.By != "" { // the second says yes to exactly what the first allowed
		f, err := a.row.first()
		if err != nil {
			return verdict{}, err
		}
		allowed.Grants, allowed.Minutes, allowed.Calls, allowed.HandOn, allowed.Instructions = f.Grants, f.Minutes, f.Calls, f.HandOn, f.Note
	} else if a.Kind == KindSession {
		grants, d, err := s.narrowed(p, a, d)
		if err != nil {
			return verdict{}, err
		}
		allowed.Grants, allowed.Minutes, allowed.Calls, allowed.HandOn = grants, d.Minutes, d.Calls, d.HandOn
	}
	var like Like
	if a.Kind == KindCall {
		if like, err = a.like(d.Like); err != nil {
			return verdict{}, err
		}
		if like.Calls > 0 {
			allowed.Like = &like
		}
	}
	doc, err := strictjson.CanonicalOf(allowed)
	if err != nil {
		return verdict{}, err
	}
	return verdict{like: like, second: a.needsSecond(allowed.Grants), grants: allowed.Grants, length: allowed.Minutes, calls: allowed.Calls, handOn: allowed.HandOn, note: allowed.Instructions,
		digest: sha256.Sum256(doc)}, nil
}

// Approve carries out a decision that proof proves. Of several decisions on
// one request exactly one takes effect.
func (s *Service) Approve(ctx context.Context, p account.Person, aid id.Approval, d Decision, proof account.Proof) (Approval, error) {
	a, err := s.Approval(ctx, p, aid)
	if err != nil {
		return Approval{}, err
	}
	if err := open(a); err != nil {
		return Approval{}, err
	}
	if err := theirs(p, a); err != nil {
		return Approval{}, err
	}
	v, err := s.decide(p, a, d)
	if err != nil {
		return Approval{}, err
	}
	evidence, err := s.people.Prove(ctx, p, v.digest, a.Session.Organization, proof)
	if err != nil {
		return Approval{}, err
	}
	now := s.now()
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := s.firstStands(ctx, tx, a, v.grants); err != nil {
			return err
		}
		if err := s.stillUsable(ctx, tx, a.Session.Environment, v.grants); err != nil {
			return err
		}
		if v.second && a.First.By == "" {
			return s.approveFirst(ctx, tx, p, a, v, evidence.JSON(), now)
		}
		r := a.row
		r.state, r.decidedAt, r.decidedBy, r.note = ApprovalApproved, now, p.User(), v.note
		if a.Kind == KindCall {
			r.expiresAt = notAfter(now.Add(callUsableFor), a.Session.ExpiresAt)
		}
		if err := decideApproval(ctx, tx, r, now); err != nil {
			return err
		}
		if a.Kind == KindSession {
			if err := s.activate(ctx, tx, a, p, v, now); err != nil {
				return err
			}
		} else if err := requireActive(ctx, tx, []id.Session{a.Session.ID}, now)[0]; err != nil {
			if k := fault.KindOf(err); k == fault.Denied || k == fault.Expired {
				return callOver() // the refusal is for agents
			}
			return err
		} else if err := openSeries(ctx, tx, a, v.like); err != nil {
			return err
		}
		entry := s.decisionEntry(p, a, "approved", hex.EncodeToString(v.digest[:]), evidence.JSON())
		if v.like.Calls > 0 {
			entry.Detail = map[string]string{"like": fmt.Sprint(v.like.Calls), "may_differ": strings.Join(v.like.Differ, " ")}
		}
		s.audit.AppendEvent(tx, entry)
		changed(tx, a.Session.Organization)
		return nil
	})
	if err != nil {
		return Approval{}, err
	}
	return s.Approval(ctx, p, aid)
}

func (s *Service) decisionEntry(p account.Person, a Approval, what, digest string, evidence json.RawMessage) audit.Entry {
	e := audit.Entry{
		Environment: a.Session.Environment, Organization: a.Session.Organization, Actor: audit.Actor{Kind: "user", ID: string(p.User())},
		Agent: a.Session.Agent, User: cmp.Or(a.user(), a.First.By, p.User()), Session: a.Session.ID, Approval: a.ID, Action: a.Kind + "." + what,
		Object: string(a.Session.ID), ArgumentDigest: digest, Evidence: evidence, Address: p.Address(),
	}
	if a.Call != nil {
		e.Connection, e.Provider, e.Tool, e.Effect, e.Object = a.Call.Connection, a.Call.Provider, a.Call.Tool, string(a.Call.Effect), a.Call.Tool
	}
	return e
}

func stale() *fault.Error {
	return fault.New(fault.Conflict, "approval_stale", "An account or a tool has changed since the agent asked.").WithHint("Let the agent ask again.")
}

// callOver refuses to decide about a call that can no longer be made, in words
// for a person.
func callOver() *fault.Error {
	return fault.New(fault.Expired, "expired", "The session of this call has ended.").WithHint("Nothing was sent. There is nothing more to do.")
}

// stillUsable checks that every connection of grants is connected and defines
// its tools as they were shown, and keeps it so to the end of the transaction.
func (s *Service) stillUsable(ctx context.Context, tx *sqldb.Tx, env id.Environment, grants []Grant) error {
	if len(grants) == 0 {
		return nil
	}
	now, err := s.connections.Hold(ctx, tx, env, connectionsOf(grants))
	if err != nil {
		return err
	}
	for _, g := range grants {
		if lost(g, now) != "" {
			return stale()
		}
	}
	return nil
}

func (s *Service) activate(ctx context.Context, tx *sqldb.Tx, a Approval, p account.Person, v verdict, now time.Time) error {
	if a.Widened != nil {
		return s.widen(ctx, tx, a, p, v, now)
	}
	user := cmp.Or(a.Session.User, a.First.By, p.User())
	if err := activateSession(ctx, tx, a.Session.ID, user, v, now); err != nil {
		return err
	}
	if v.calls > 0 {
		if err := openCalls(ctx, tx, a.Session.ID); err != nil {
			return err
		}
	}
	if v.handOn {
		if err := allowHandOn(ctx, tx, a.Session.ID); err != nil {
			return err
		}
	}
	return insertGrants(ctx, tx, a.Session.ID, v.grants)
}

// Deny refuses a request; why is told to the agent. It needs no proof: a denial takes nothing but time.
func (s *Service) Deny(ctx context.Context, p account.Person, aid id.Approval, why string) error {
	a, err := s.Approval(ctx, p, aid)
	if err != nil {
		return err
	}
	if err := open(a); err != nil {
		return err
	}
	why = reason(why)
	now := s.now()
	return s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		r := a.row
		r.state, r.decidedAt, r.decidedBy, r.note = ApprovalDenied, now, p.User(), why
		if err := decideApproval(ctx, tx, r, now); err != nil {
			return err
		}
		if a.Kind == KindSession {
			if _, err := endSessions(ctx, tx, endWhere{session: a.Session.ID}, ending{reason: Denied, denyReason: why}, now); err != nil {
				return err
			}
		}
		s.audit.AppendEvent(tx, s.decisionEntry(p, a, "denied", "", nil))
		changed(tx, a.Session.Organization)
		return nil
	})
}

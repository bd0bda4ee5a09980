package web

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
)

// inboxShown is how many requests one inbox page holds.
const inboxShown = 50

func (s *Server) inbox(v *visit) (answer, error) {
	open, err := s.sessions.Inbox(v.ctx(), v.person)
	if err != nil {
		return nil, err
	}
	p := &InboxPage{Frame: Frame{Title: "Inbox", Section: "inbox"}, Seen: fingerprint(open), Items: inboxItems(open)}
	p.Shown, p.More = len(p.Items), len(open) > len(p.Items)
	if len(open) == 0 {
		p.FirstSteps = s.connectCommand()
	}
	return show(p), nil
}

// connectCommand gives an agent its way in.
func (s *Server) connectCommand() string {
	return "claude mcp add --transport http ambit " + s.agents.Resource()
}

func inboxItems(open []session.Approval) []InboxItem {
	var out []InboxItem
	for _, a := range open[:min(len(open), inboxShown)] {
		out = append(out, InboxItem{ID: a.ID, Ask: askOf(a), Target: target(a), Asked: a.CreatedAt, Expires: a.ExpiresAt, Risk: shortRisk(a)})
	}
	return out
}

// The lengths in an inbox row, in letters: of its target, and of one value in it.
const (
	maxTarget = 160
	maxValue  = 40
)

// target tells a request from others of the same agent on the same account: of
// a call what it would send where, of a session the tools that it is for.
func target(a session.Approval) string {
	if c := a.Call; c != nil {
		parts := []string{c.Method + " " + strings.TrimPrefix(c.URL, "https://")}
		for _, f := range c.Fields {
			name, inside, _ := strings.Cut(f.Name, " ")
			switch name {
			case "query", "header": // the one is in the address, and the other seldom tells calls apart
				continue
			case "body", "argument":
				name = cmp.Or(inside, name)
			}
			parts = append(parts, name+"="+short(oneLine(f.Value), maxValue))
		}
		return short(oneLine(strings.Join(parts, " ")), maxTarget)
	}
	var names []string
	for _, g := range within(a.Session.Grants) {
		for _, t := range g.New() {
			names = append(names, t.Name)
		}
	}
	if len(names) > 3 {
		return fmt.Sprintf("%s, %s and %d more", names[0], names[1], len(names)-2)
	}
	return short(oneLine(strings.Join(names, ", ")), maxTarget)
}

// within are the grants that can still be given; all, when none can.
func within(grants []session.Grant) []session.Grant {
	left := slices.DeleteFunc(slices.Clone(grants), func(g session.Grant) bool { return g.Lost != "" })
	if len(left) == 0 {
		return grants
	}
	return left
}

// fingerprint names the state of an inbox.
func fingerprint(open []session.Approval) string {
	h := fnv.New64a()
	for _, a := range open {
		h.Write([]byte(a.ID))
		for _, g := range a.Session.Grants {
			h.Write([]byte(g.Lost))
		}
		h.Write([]byte(a.Lost))
	}
	return strconv.FormatUint(h.Sum64(), 36)
}

func shortRisk(a session.Approval) string {
	effects := grantedEffects(a.Session.Grants)
	if a.Call != nil {
		effects = []policy.Effect{a.Call.Effect}
	}
	switch {
	case a.Lost != "" || a.Call == nil && !slices.ContainsFunc(a.Session.Grants, func(g session.Grant) bool { return g.Lost == "" }):
		return "Reconnect first"
	case slices.Contains(effects, policy.Access):
		return "Keys or permissions"
	case slices.Contains(effects, policy.Destructive):
		return "Can delete"
	case !a.Session.AgentVerified:
		return "Unverified"
	}
	return ""
}

func agentMark(ses session.Session) AgentMark {
	return AgentMark{Label: ses.AgentLabel, Verified: ses.AgentVerified}
}

func askOf(a session.Approval) Ask {
	if c := a.Call; c != nil {
		return Ask{Agent: agentMark(a.Session), Call: c.Title, Accounts: []Account{{Provider: c.ProviderName, Label: c.AccountLabel}}}
	}
	grants := a.Session.Grants
	if a.State == session.ApprovalPending {
		grants = within(grants)
	}
	ask := Ask{Agent: agentMark(a.Session), Verbs: verbs(grantedEffects(grants)), Accounts: accounts(grants), Minutes: a.Session.Minutes, Calls: a.Session.Calls}
	if a.Widened != nil {
		ask.Widens, ask.Verbs = true, verbs(newEffects(grants))
	}
	return ask
}

// newEffects are those of the tools that a session would have beside what it has.
func newEffects(grants []session.Grant) []policy.Effect {
	return slices.DeleteFunc(policy.Effects(), func(e policy.Effect) bool {
		return !slices.ContainsFunc(grants, func(g session.Grant) bool {
			return slices.ContainsFunc(g.New(), func(t session.ToolRef) bool { return t.Effect == e })
		})
	})
}

func accounts(grants []session.Grant) []Account {
	var out []Account
	apart := apart(grants)
	for _, g := range grants {
		out = append(out, Account{Provider: g.ProviderName, Label: apart(g)})
	}
	return out
}

// apart gives the label of each grant's account. Where a provider does not tell
// whose account a key opens, two have one label, and the end of their ids tells
// them from each other.
func apart(grants []session.Grant) func(session.Grant) string {
	same := map[[2]string]int{}
	for _, g := range grants {
		same[[2]string{g.Provider, g.AccountLabel}]++
	}
	return func(g session.Grant) string {
		if same[[2]string{g.Provider, g.AccountLabel}] < 2 {
			return g.AccountLabel
		}
		return g.AccountLabel + " …" + string(g.Connection[max(0, len(g.Connection)-4):])
	}
}

// grantedEffects is the union over grants, mildest first.
func grantedEffects(grants []session.Grant) []policy.Effect {
	return slices.DeleteFunc(policy.Effects(), func(e policy.Effect) bool {
		return !slices.ContainsFunc(grants, func(g session.Grant) bool { return slices.Contains(g.Effects, e) })
	})
}

func (s *Server) approval(v *visit) (answer, error) {
	a, err := s.findApproval(v)
	if err != nil {
		return nil, err
	}
	return show(s.approvalPage(v, a, s.sessions.DefaultDecision(a))), nil
}

func (s *Server) findApproval(v *visit) (session.Approval, error) {
	aid, err := parseID(id.Approval(v.r.PathValue("id")))
	if err != nil {
		return session.Approval{}, err
	}
	a, err := s.sessions.Approval(v.ctx(), v.person, aid)
	if err == nil {
		v.at(a.Session.Organization)
	}
	return a, err
}

// parseID is id.Parse for the kind of its argument.
func parseID[K id.Kind](raw id.ID[K]) (id.ID[K], error) { return id.Parse[K](string(raw)) }

func (s *Server) approvalPage(v *visit, a session.Approval, d session.Decision) *ApprovalPage {
	p := &ApprovalPage{Frame: Frame{Title: "Request", Section: "inbox", Narrow: true}, ID: a.ID, Session: a.Session.ID, Organization: v.here.OrganizationName,
		Ask: askOf(a), Asked: a.CreatedAt, Expires: a.ExpiresAt, Risks: a.Risk, HandOn: d.HandOn, Instructions: d.Instructions, TOTP: s.codeAllowed(v), For: s.forWhom(v, a.Session)}
	if a.Widened != nil {
		p.Session = a.Widened.ID
	}
	if a.Consent != nil {
		p.Risks = append([]string{answerTo(*a.Consent)}, p.Risks...)
		if a.Session.User == v.person.User() {
			p.Consent = a.Consent.Flow
		}
	}
	if a.State != session.ApprovalPending || a.Kind == session.KindCall && a.Session.State != session.Active {
		p.Decided = s.verdict(v, a)
		p.Title, p.Ask.Past, p.Ask.Granted = p.Decided.Word, true, a.State == session.ApprovalApproved && a.Kind != session.KindCall
		return p
	}
	s.about(v, a, p)
	if a.First.By != "" {
		s.seconding(v, a, p)
	}
	if a.Kind == session.KindCall {
		if a.Lost != "" {
			p.Reconnect = a.Call.Connection
			p.Risks = append([]string{"The account must be connected again before this call can be made."}, p.Risks...)
		}
		return p
	}
	if p.First != "" {
		return p
	}
	p.Cards = cards(v, a, d)
	p.Nothing = !slices.ContainsFunc(p.Cards, func(c GrantCard) bool { return !c.Locked })
	p.Confirm = confirmOptions(d.Confirm)
	if a.Widened == nil {
		p.Calls, p.MostCalls, p.Minutes = a.Session.Calls, v.form("calls"), minuteOptions(a.Session.Minutes, d.Minutes)
	}
	return p
}

// about adds what the person knows the agent by: its past, its session and its own
// words. What cannot be looked up is left out: the decision does not rest on it.
func (s *Server) about(v *visit, a session.Approval, p *ApprovalPage) {
	if h, err := s.sessions.History(v.ctx(), a); err == nil {
		p.Past = pastOf(h, a.Call != nil)
	} else {
		logFailure(s.log, "looking up the past of an agent", err)
	}
	p.Parent = a.Session.Parent
	if a.Widened != nil {
		p.RunsIn = runsIn(*a.Widened)
	}
	shown := callView(a)
	call, words := unread(a, shown)
	var cut bool
	if p.Words, cut = cutWords(a.Session.Purpose); cut {
		p.AllWords, p.WordsMark, p.WordsRead = a.Session.Purpose, words, slices.Contains(v.r.PostForm["read"], words)
	}
	if shown != nil {
		p.Call, p.RunsIn = shown, runsIn(a.Session)
		if a.Repeats() {
			p.MostLike, p.Like = session.MaxLike, v.form("like")
			for _, name := range a.Call.MayDiffer() {
				label := name
				if a.Call.Generic {
					label = "what it sends (the whole " + name + ")"
				}
				p.Differ = append(p.Differ, Option{Value: name, Label: label, Chosen: slices.Contains(v.r.PostForm["differ"], name)})
			}
		}
		p.Call.Unread, p.Call.Read = call, slices.Contains(v.r.PostForm["read"], call)
	}
}

// seconding turns the page into that of a second person: what the first allowed,
// to agree to or not.
func (s *Server) seconding(v *visit, a session.Approval, p *ApprovalPage) {
	p.First, p.FirstNote = s.names(v, a.Session.Environment).user(a.First.By), a.Note
	if a.First.By == v.person.User() {
		p.First = "You"
	}
	p.Waits = !a.Mine(v.person)
	for _, g := range a.Session.Grants {
		view := grantView(g)
		for i, t := range g.Tools {
			view.Tools[i].New = a.Widened != nil && !g.Has(t)
		}
		p.Granted = append(p.Granted, view)
	}
}

// forWhom says for whom an agent asks.
func (s *Server) forWhom(v *visit, ses session.Session) string {
	switch {
	case ses.User == v.person.User():
		return "you"
	case ses.User == "":
		return "your organization"
	}
	return s.names(v, ses.Environment).user(ses.User)
}

// cards shows what is asked on each connection, ticked as d decides.
func cards(v *visit, a session.Approval, d session.Decision) []GrantCard {
	perProvider := map[string]int{}
	for _, g := range within(a.Session.Grants) {
		perProvider[g.Provider]++
	}
	var out []GrantCard
	apart := apart(a.Session.Grants)
	for _, g := range a.Session.Grants {
		c := GrantCard{Connection: g.Connection, Provider: g.ProviderName, Account: apart(g), Shared: g.Owner == "", Locked: g.Lost != "" || !a.MayGrant(v.person, g.Owner),
			Limits: limitViews(g.Limits), Arguments: g.Arguments(), Narrowed: limitForm(v.r.PostForm, g.Connection)}
		chosen := choice(d, g)
		switch {
		case g.Lost == session.LostKey:
			c.Hint, c.Reconnect = "This account must be connected again before it can be granted.", g.Owner == v.person.User() || g.Owner == ""
		case g.Lost != "":
			c.Hint = lostWords(g)
		case c.Locked && c.Shared:
			c.Hint = "Only an approver of the organization can grant this account."
		case c.Locked:
			c.Hint = "Only the account's owner can grant it."
		case perProvider[g.Provider] > 1:
			c.Hint = "There are several accounts at " + g.ProviderName + ". Tick what it may do with this one, or leave it out."
		}
		c.Widens, c.New = a.Widened != nil, a.Widened != nil && g.Had == nil
		if g.Relimited() {
			c.Relimited, c.HadLimits = true, limitViews(g.Had.Limits)
		}
		for _, e := range g.Effects {
			ec := EffectChoice{Effect: e, Had: g.Had != nil && slices.Contains(g.Had.Effects, e), Chosen: !c.Locked && slices.Contains(chosen.Effects, e)}
			for _, t := range g.Tools {
				if t.Effect == e {
					ec.Tools = append(ec.Tools, ToolChoice{Name: t.Name, Title: t.Title, Effect: e, Untried: t.Untried, New: a.Widened != nil && !g.Has(t),
						Chosen: len(chosen.Tools) == 0 || slices.Contains(chosen.Tools, t.Name)})
				}
			}
			c.Effects = append(c.Effects, ec)
		}
		out = append(out, c)
	}
	return out
}

// lostWords says why what was asked for on an account cannot be granted.
func lostWords(g session.Grant) string {
	switch g.Lost {
	case session.LostAccount:
		return "This account was disconnected after the agent asked. It cannot be granted."
	case session.LostKey:
		return "This account must be connected again before it can be granted."
	case session.LostTool:
		return "A tool of this account has changed since the agent asked. It has to ask again."
	}
	return ""
}

// choice finds what d decides on one grant.
func choice(d session.Decision, g session.Grant) session.Choice {
	for _, c := range d.Grants {
		if c.Connection == g.Connection {
			return c
		}
	}
	return session.Choice{}
}

func minuteOptions(asked, chosen int) []Option {
	var out []Option
	for _, m := range []int{5, 15, 30, 60, 120, 240, asked} {
		if m < asked || m == asked && len(out) < 7 {
			out = append(out, Option{Value: strconv.Itoa(m), Label: span(m), Chosen: m == chosen})
		}
	}
	return slices.CompactFunc(out, func(a, b Option) bool { return a.Value == b.Value })
}

func confirmOptions(chosen policy.Confirm) []Option {
	return []Option{
		{Value: string(policy.ConfirmDestructive), Label: "it deletes something", Chosen: chosen == policy.ConfirmDestructive},
		{Value: string(policy.ConfirmWrite), Label: "it changes anything", Chosen: chosen == policy.ConfirmWrite},
		{Value: string(policy.ConfirmNone), Label: "nothing of this", Chosen: chosen == policy.ConfirmNone},
	}
}

// decision reads what the person decided. It can only narrow: an effect without
// a ticked tool is left out, and so is an account without any.
func decision(form url.Values, a session.Approval) (session.Decision, error) {
	d := session.Decision{Instructions: strings.TrimSpace(strings.ReplaceAll(form.Get("instructions"), "\r\n", "\n"))}
	if a.Kind == session.KindCall {
		like, err := likeForm(form)
		d.Like = like
		return d, err
	}
	if a.First.By != "" {
		return d, nil
	}
	var err error
	if d.Minutes, err = strconv.Atoi(form.Get("minutes")); err != nil && a.Widened == nil {
		return d, fault.New(fault.Invalid, "invalid_decision", "The form does not say for how long.").WithHint("Reload the page and decide again.")
	}
	if d.Confirm, err = policy.ParseConfirm(form.Get("confirm")); err != nil {
		return d, err
	}
	if calls := strings.TrimSpace(form.Get("calls")); calls != "" {
		if d.Calls, err = strconv.Atoi(calls); err != nil || d.Calls < 1 {
			return d, fault.New(fault.Invalid, "invalid_decision", "The most calls is a number from 1.").WithHint("Leave it empty for as many as it asks for.")
		}
	}
	d.HandOn = form.Get("hand_on") == "yes"
	for _, g := range a.Session.Grants {
		c := session.Choice{Connection: g.Connection}
		if l, ok, err := limitForm(form, g.Connection).limit(); err != nil {
			return d, err
		} else if ok {
			c.Limits = []policy.Limit{l}
		}
		effects, tools := form["effect."+string(g.Connection)], form["tool."+string(g.Connection)]
		for _, t := range g.Tools {
			if slices.Contains(effects, string(t.Effect)) && slices.Contains(tools, t.Name) {
				c.Tools = append(c.Tools, t.Name)
				if !slices.Contains(c.Effects, t.Effect) {
					c.Effects = append(c.Effects, t.Effect)
				}
			}
		}
		if len(c.Tools) > 0 {
			d.Grants = append(d.Grants, c)
		}
	}
	return d, nil
}

// likeForm reads which calls a person allows beside the one that they are asked for.
func likeForm(form url.Values) (l session.Like, err error) {
	if calls := strings.TrimSpace(form.Get("like")); calls != "" {
		if l.Calls, err = strconv.Atoi(calls); err != nil || l.Calls < 0 {
			return l, fault.New(fault.Invalid, "invalid_decision", "How many more calls is a number.").WithHint("Leave it empty for this one call only.")
		}
	}
	if l.Calls > 0 {
		l.Differ = form["differ"]
	}
	return l, nil
}

func (s *Server) approvalChallenge(v *visit) (answer, error) {
	a, d, err := s.decided(v)
	if err != nil {
		return nil, err
	}
	if err := allRead(v.r.PostForm, a); err != nil {
		return nil, err
	}
	digest, err := s.sessions.Digest(v.ctx(), v.person, a.ID, d)
	if err != nil {
		return nil, err
	}
	return s.challenge(v, digest)
}

func (s *Server) decided(v *visit) (session.Approval, session.Decision, error) {
	a, err := s.findApproval(v)
	if err != nil {
		return a, session.Decision{}, err
	}
	d, err := decision(v.r.PostForm, a)
	return a, d, err
}

func (s *Server) approve(v *visit) (answer, error) {
	a, d, err := s.decided(v)
	if err != nil {
		return nil, err
	}
	if err := allRead(v.r.PostForm, a); err != nil {
		return again(s.approvalPage(v, a, d), err)
	}
	if _, err := s.sessions.Approve(v.ctx(), v.person, a.ID, d, v.proof()); err != nil {
		if now, nerr := s.sessions.Approval(v.ctx(), v.person, a.ID); nerr == nil {
			a = now // it may have been decided elsewhere meanwhile
		}
		return again(s.approvalPage(v, a, d), err)
	}
	return s.afterDecision(v, a)
}

// afterDecision leads to what became of a request: back to the program, where it came
// with a sign-in of the person's own and nobody else must decide.
func (s *Server) afterDecision(v *visit, a session.Approval) (answer, error) {
	if a.Consent != nil && a.Session.User == v.person.User() {
		back, err := s.consentBack(v, a.Consent.Flow)
		if fault.Is(err, "pending") {
			return goTo("/ui/consent/" + string(a.Consent.Flow)), nil
		}
		return back, err
	}
	return goTo("/ui/approvals/" + string(a.ID)), nil
}

func (s *Server) deny(v *visit) (answer, error) {
	a, err := s.findApproval(v)
	if err != nil {
		return nil, err
	}
	reason := v.form("reason")
	if reason == "" {
		reason = v.form("instructions")
	}
	if err := s.sessions.Deny(v.ctx(), v.person, a.ID, reason); err != nil {
		return again(s.approvalPage(v, a, session.Decision{Instructions: reason}), err)
	}
	return s.afterDecision(v, a)
}

// verdict says what became of a request.
func (s *Server) verdict(v *visit, a session.Approval) *Verdict {
	who := "Somebody"
	if a.DecidedBy == v.person.User() {
		who = "You"
	} else if u, err := s.people.User(v.ctx(), a.Session.Environment, a.DecidedBy); err == nil {
		who = oneLine(u.Name)
	}
	done := &Verdict{At: a.DecidedAt, Note: a.Note, NoteTitle: who + " told the agent"}
	switch a.State {
	case session.ApprovalApproved:
		done.Word, done.Icon, done.Sentence = "Approved", "good", who+" approved this"
		done.Next = approvedNext(a)
	case session.ApprovalUsed:
		done.Word, done.Icon, done.Sentence, done.Next = "Approved and used", "good", who+" approved this", "The call was made. It cannot be made again without asking."
		if a.Series != nil {
			done.Next = fmt.Sprintf("The call was made. While its session runs the agent can make %s. It has made %d of those.", a.Series, a.Series.Used)
		}
	case session.ApprovalDenied:
		done.Word, done.Icon, done.Tone, done.Sentence, done.Next = "Denied", "bad", "bad", who+" denied this", "Nothing was granted. The agent was told."
	case session.ApprovalWithdrawn:
		done.Word, done.Icon, done.Tone, done.Sentence, done.Next = "Withdrawn", "clock", "off", withdrawn(a.Session), "Nothing was granted, and there is nothing more to do."
		if ended := a.Session.EndedAt; a.Kind == session.KindCall && (ended.IsZero() || a.DecidedAt.Before(ended)) {
			done.Sentence = firstLeft
		}
	default:
		done.Word, done.Icon, done.Tone, done.Sentence, done.Next = "Expired", "clock", "off", "Nobody answered in time. It expired", "Nothing was granted. The agent can ask again."
		done.At = a.ExpiresAt
		if a.Kind == session.KindCall && a.State == session.ApprovalPending {
			done.Word, done.Sentence, done.At = "Too late", "The session of this call has ended", a.Session.EndedAt
		}
	}
	return done
}

const firstLeft = "The person who approved it first has left"

// withdrawn says why a request is no longer open that nobody has decided.
func withdrawn(ses session.Session) string {
	switch ses.Cause {
	case session.CauseAgent:
		return "The agent was disabled"
	case session.CauseWidened:
		return "It was granted, and is a part of the session that it was asked for"
	case session.CauseParent:
		if ses.Widens != "" {
			return "The session that it was to widen has ended"
		}
		return "The session that it was a part of has ended"
	case session.CauseUser:
		return "The person whom it was for has left"
	case session.CauseFirst:
		return firstLeft
	case session.CauseAccount:
		var gone []string
		for _, g := range ses.Grants {
			if g.Lost == session.LostAccount {
				gone = append(gone, oneLine(g.ProviderName)+" · "+oneLine(g.AccountLabel))
			}
		}
		if len(gone) > 0 {
			return andList(gone) + " was disconnected"
		}
		return "The account was disconnected"
	}
	if ses.Reason == session.Revoked {
		return "Somebody ended it before it was decided"
	}
	return "The agent took the request back"
}

func approvedNext(a session.Approval) string {
	switch {
	case a.Series != nil:
		return fmt.Sprintf("The agent can make this one call, once, within the next minutes, and while its session runs %s. It has made %d of those.", a.Series, a.Series.Used)
	case a.Kind == session.KindCall:
		return "The agent can make this one call, once, within the next minutes. There is nothing more to do here."
	case a.Widened != nil && a.Widened.State == session.Active:
		return "The agent can do this too until its session ends, which is when it would have ended. There is nothing more to do here."
	case a.Session.State == session.Active:
		return "The agent can work until the session ends. There is nothing more to do here."
	}
	return fmt.Sprintf("The session has ended (%s).", a.Session.Reason)
}

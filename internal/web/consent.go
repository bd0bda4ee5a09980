package web

import (
	"fmt"
	"slices"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/session"
)

func (s *Server) findFlow(v *visit) (agent.AuthRequest, error) {
	flow, err := parseID(id.Flow(v.r.PathValue("flow")))
	if err != nil {
		return agent.AuthRequest{}, err
	}
	return s.agents.PendingAuthorize(v.ctx(), flow)
}

// deviceEnter takes the code that a device shows (RFC 8628 §3.3) and leads to the
// page where a person decides on any sign-in.
func (s *Server) deviceEnter(v *visit) (answer, error) {
	p := &CodePage{Frame: Frame{Title: "Sign in an agent", Section: "agents", Narrow: true}, Device: true, Code: v.form("code")}
	if p.Code == "" || ledHere(v.r) {
		return show(p), nil
	}
	flow, err := s.agents.FindDevice(v.ctx(), v.person, p.Code)
	if err != nil {
		return codeAgain(p, err)
	}
	return goTo("/ui/consent/" + string(flow)), nil
}

func (s *Server) consent(v *visit) (answer, error) {
	flow, err := parseID(id.Flow(v.r.PathValue("flow")))
	if err != nil {
		return nil, err
	}
	r, err := s.agents.OpenAuthorize(v.ctx(), v.person, flow)
	if err != nil {
		return nil, err
	}
	if r.Asks != nil {
		if ses, err := s.sessions.AtConsent(v.ctx(), v.person, flow); err == nil {
			return s.consentAsked(v, r, ses)
		} else if !fault.Is(err, "session_not_found") {
			return nil, err
		}
	}
	return show(s.consentPage(v, r, "")), nil
}

// consentAsked is where a sign-in stands whose session was asked for: at the decision,
// with others who decide, or on the way back to the program.
func (s *Server) consentAsked(v *visit, r agent.AuthRequest, ses session.Session) (answer, error) {
	here := "/ui/consent/" + string(r.ID)
	if ses.State == session.Pending {
		if a, err := s.sessions.Approval(v.ctx(), v.person, ses.Approval); err == nil && a.Mine(v.person) {
			return goTo("/ui/approvals/" + string(ses.Approval)), nil
		}
		return show(&ResultPage{Frame: Frame{Title: "Waiting", Section: "agents", Narrow: true}, Word: "Waiting", Icon: "clock", Tone: "off",
			Sentence: "Somebody else must decide this too. It is in their inbox. Keep this page: the way back to the program leads over it.", Back: here, BackLabel: "Look again"}), nil
	}
	p := s.consentPage(v, r, "")
	p.Title, p.Done = "Back to the program", "It was not approved. Nothing was granted."
	if ses.State == session.Active {
		p.Done = "It was approved, until the session ends."
	}
	return show(p), nil
}

// consentFinish brings the decision to the program. The session is the person's, and
// whoever approved it proved it: what is left is the way of their browser.
func (s *Server) consentFinish(v *visit) (answer, error) {
	flow, err := parseID(id.Flow(v.r.PathValue("flow")))
	if err != nil {
		return nil, err
	}
	return s.consentBack(v, flow)
}

func (s *Server) consentBack(v *visit, flow id.Flow) (answer, error) {
	r, err := s.agents.PendingAuthorize(v.ctx(), flow)
	if err != nil {
		return nil, err
	}
	to, ses, err := s.sessions.Answer(v.ctx(), v.person, r)
	if err != nil {
		return nil, err
	}
	if ses.State != session.Active {
		return leave(to, LeavePage{Frame: Frame{Title: "Refused", Section: "agents", Narrow: true}, Sentence: "Nothing was granted.", Host: r.Host(), Label: "Tell the program", Back: home})
	}
	return leave(to, LeavePage{Frame: Frame{Title: "Approved", Section: "agents", Narrow: true}, Sentence: "It may do this until the session ends. Go back to it to finish.", Host: r.Host(), Label: "Back to the program"})
}

// answerTo is who gets the answer to what is asked for with a sign-in, for the person who
// decides (threats.md G4).
func answerTo(c session.Consent) string {
	if c.Local {
		return "Whoever started this gets the access: a program on the machine of whoever opened the page. Approve only if you started it just now."
	}
	return "Whoever started this gets the access: the answer goes to " + oneLine(c.Host) + ". Approve only if you know that place and started it just now."
}

// askedFor is what a program asks for with its sign-in, in words.
func askedFor(a agent.Asks) string {
	what := verbs(a.Effects)
	if len(a.Effects) == 0 {
		what = "read"
		if len(a.Providers) == 0 {
			what = "use tools"
		}
	}
	where := append(slices.Clone(a.Providers), a.Tools...)
	for i := range where {
		where[i] = short(oneLine(where[i]), maxValue)
	}
	if len(where) > 3 {
		where = append(where[:2], fmt.Sprintf("%d more", len(where)-2))
	}
	out := what + " in " + andList(where)
	if a.Minutes > 0 {
		out += " for " + span(a.Minutes)
	}
	return out
}

// consentPage shows what we know of the client: where its answer goes. The name
// that it gave itself stands below the decision, in the box for such words.
func (s *Server) consentPage(v *visit, r agent.AuthRequest, label string) *ConsentPage {
	p := &ConsentPage{Frame: Frame{Title: "A program wants to sign in", Section: "agents", Narrow: true}, Flow: r.ID, Host: r.Host(), Local: r.Local(), Document: r.Client.DocumentHost(), Label: label,
		ClientName: r.Client.Name, TOTP: s.codeAllowed(v)}
	if r.Asks != nil {
		p.Asks = askedFor(*r.Asks)
	}
	if r.UserCode != "" {
		p.UserCode, p.Address = account.ShowUserCode(r.UserCode), r.Address
	}
	for _, m := range v.person.Organizations() {
		if v.actorIn(m.Environment).May(m.Organization, account.UseOwn) == nil {
			p.Places = append(p.Places, Option{Value: string(m.Organization), Label: m.OrganizationName + " · " + m.EnvironmentName, Chosen: m.Organization == v.here.Organization})
		}
	}
	return p
}

func consentOf(v *visit) agent.Consent {
	return agent.Consent{Organization: v.here.Organization, Label: v.form("label")}
}

func (s *Server) consentChallenge(v *visit) (answer, error) {
	r, err := s.findFlow(v)
	if err != nil {
		return nil, err
	}
	return s.challenge(v, s.agents.ConsentDigest(v.person.User(), r, consentOf(v)))
}

func (s *Server) consentGive(v *visit) (answer, error) {
	r, err := s.findFlow(v)
	if err != nil {
		return nil, err
	}
	c := consentOf(v)
	evidence, err := s.people.Prove(v.ctx(), v.person, s.agents.ConsentDigest(v.person.User(), r, c), c.Organization, v.proof())
	if err != nil {
		return again(s.consentPage(v, r, c.Label), err)
	}
	if r.Asks != nil {
		who, r, err := s.agents.ConsentToAsk(v.ctx(), v.person, r.ID, c, evidence)
		if err == nil {
			_, err = s.sessions.RequestAtConsent(v.ctx(), who, r, v.person.Address())
		}
		if err != nil {
			return again(s.consentPage(v, r, c.Label), err)
		}
		return goTo("/ui/consent/" + string(r.ID)), nil
	}
	to, err := s.agents.Consent(v.ctx(), v.person, r.ID, c, evidence)
	if err != nil {
		return again(s.consentPage(v, r, c.Label), err)
	}
	if to == "" {
		return show(&ResultPage{Frame: Frame{Title: "Signed in", Section: "agents", Narrow: true}, Word: "Signed in", Icon: "good", Sentence: "It may sign in. Go back to the device.", Back: home, BackLabel: "To the inbox"}), nil
	}
	return leave(to, LeavePage{Frame: Frame{Title: "Signed in", Section: "agents", Narrow: true}, Sentence: "It may sign in. Go back to it to finish.", Host: r.Host(), Label: "Back to the program"})
}

func (s *Server) consentDeny(v *visit) (answer, error) {
	r, err := s.findFlow(v)
	if err != nil {
		return nil, err
	}
	to, err := s.agents.DenyConsent(v.ctx(), v.person, r.ID)
	if err != nil {
		return nil, err
	}
	if to == "" {
		return show(&ResultPage{Frame: Frame{Title: "Refused", Section: "agents", Narrow: true}, Word: "Refused", Icon: "bad", Tone: "bad", Sentence: "Refused. Nothing was granted, and the device is told.", Back: home, BackLabel: "To the inbox"}), nil
	}
	return leave(to, LeavePage{Frame: Frame{Title: "Refused", Section: "agents", Narrow: true}, Sentence: "Refused. Nothing was granted.", Host: r.Host(), Label: "Tell the program", Back: home})
}

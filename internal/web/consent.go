package web

import (
	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/id"
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
	return show(s.consentPage(v, r, "")), nil
}

// consentPage shows what we know of the client: where its answer goes. The name
// that it gave itself stands below the decision, in the box for such words.
func (s *Server) consentPage(v *visit, r agent.AuthRequest, label string) *ConsentPage {
	p := &ConsentPage{Frame: Frame{Title: "A program wants to sign in", Section: "agents", Narrow: true}, Flow: r.ID, Host: r.Host(), Local: r.Local(), Document: r.Client.DocumentHost(), Label: label,
		ClientName: r.Client.Name, TOTP: s.codeAllowed(v)}
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

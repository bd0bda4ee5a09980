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
	p := &ConsentPage{Frame: Frame{Title: "A program wants to sign in", Section: "agents", Narrow: true}, Flow: r.ID, Host: r.Host(), Local: r.Local(), Label: label,
		ClientName: r.Client.Name, TOTP: s.codeAllowed(v)}
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
	return leave(to, LeavePage{Frame: Frame{Title: "Refused", Section: "agents", Narrow: true}, Sentence: "Refused. Nothing was granted.", Host: r.Host(), Label: "Tell the program", Back: home})
}

package web

import (
	"cmp"
	"crypto/rand"
	"slices"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
)

const agentPageSize = 50

func (s *Server) agentList(v *visit) (answer, error) {
	list, err := s.agents.List(v.ctx(), v.actor(), agent.Filter{Environment: v.here.Environment, Organization: v.here.Organization, Before: id.Agent(v.form("before")), Limit: agentPageSize})
	if err != nil {
		return nil, err
	}
	p := &AgentsPage{Frame: Frame{Title: "Agents", Section: "agents"}, CanAdd: v.may(account.ManageAgents), Command: s.connectCommand()}
	who := s.names(v, v.here.Environment)
	for _, a := range list {
		p.Items = append(p.Items, s.agentRow(who, a))
	}
	if len(list) == agentPageSize {
		p.Next = v.query("/ui/agents", "before", string(list[len(list)-1].ID))
	}
	return show(p), nil
}

func (s *Server) agentRow(who *names, a agent.Agent) AgentRow {
	row := AgentRow{ID: a.ID, Label: a.Label(), Kind: "Acts for itself", Host: a.ClientHost, Verified: a.Verified, Disabled: !a.DisabledAt.IsZero(), LastSeen: a.LastSeenAt}
	if a.MutedUntil.After(s.now()) {
		row.Muted = a.MutedUntil
	}
	if a.Kind == agent.Delegated {
		row.Kind, row.Owner = "Acts", who.user(a.Owner)
	}
	return row
}

func (s *Server) findAgent(v *visit) (agent.Agent, error) {
	aid, err := parseID(id.Agent(v.r.PathValue("id")))
	if err != nil {
		return agent.Agent{}, err
	}
	a, err := s.agents.Get(v.ctx(), v.actor(), aid)
	if err == nil {
		v.at(a.Organization)
	}
	return a, err
}

func (s *Server) agent(v *visit) (answer, error) {
	a, err := s.findAgent(v)
	if err != nil {
		return nil, err
	}
	p, err := s.agentPage(v, a)
	if err != nil {
		return nil, err
	}
	return show(p), nil
}

func (s *Server) agentPage(v *visit, a agent.Agent) (*AgentPage, error) {
	p := &AgentPage{Frame: Frame{Title: "Agent", Section: "agents", Narrow: true}, AgentRow: s.agentRow(s.names(v, a.Environment), a), Client: a.Client, Created: a.CreatedAt,
		Ceiling: ceilingForm(a.Ceiling), Version: a.Version, CanChange: v.may(account.ManageAgents), CanStop: v.may(account.Revoke) || a.Owner == v.person.User(),
		CanMute: v.may(account.ManageAgents) || v.may(account.ApproveSessions) || a.Owner == v.person.User(), Rotatable: a.ClientHost == ""}
	if p.Rotatable {
		var err error
		if p.SignsWith, err = s.agents.SignsWith(v.ctx(), a); err != nil {
			return nil, err
		}
		p.Rotatable = p.SignsWith == "a secret"
	}
	for _, state := range []string{session.Active, session.Pending} {
		list, _, err := s.sessions.List(v.ctx(), v.actorIn(a.Environment), session.Filter{Organization: a.Organization, Agent: a.ID, State: state})
		if err != nil {
			return nil, err
		}
		p.Sessions = append(p.Sessions, sessionRows(list)...)
	}
	return p, nil
}

func ceilingForm(c policy.Ceiling) CeilingForm {
	f := CeilingForm{Providers: strings.Join(c.Providers, ", ")}
	for _, e := range policy.Effects() {
		f.Effects = append(f.Effects, CeilingEffect{Effect: e, Chosen: len(c.Effects) == 0 || slices.Contains(c.Effects, e)})
	}
	return f
}

// ceiling reads the form. All effects ticked sets no limit, so that a new kind
// of effect is not silently left out; none ticked leaves reading.
func ceiling(v *visit) policy.Ceiling {
	var c policy.Ceiling
	for _, e := range policy.Effects() {
		if slices.Contains(v.r.Form["effect"], string(e)) {
			c.Effects = append(c.Effects, e)
		}
	}
	if len(c.Effects) == len(policy.Effects()) {
		c.Effects = nil
	} else if len(c.Effects) == 0 {
		c.Effects = []policy.Effect{policy.Read}
	}
	c.Providers = strings.FieldsFunc(v.form("providers"), func(r rune) bool { return r == ',' || r == ' ' })
	return c
}

func (s *Server) agentNew(v *visit) (answer, error) {
	if err := v.actor().May(v.here.Organization, account.ManageAgents); err != nil {
		return nil, err
	}
	n := newAgent(v) // what a command line was told, for the person to look at
	if len(v.r.Form["effect"]) == 0 {
		n.Ceiling.Effects = []policy.Effect{policy.Read, policy.Write}
	}
	return show(s.agentNewPage(v, n)), nil
}

func (s *Server) agentNewPage(v *visit, n agent.NewAgent) *AgentNewPage {
	return &AgentNewPage{Frame: Frame{Title: "Register an agent", Section: "agents", Narrow: true}, Name: n.Name, Autonomous: n.Kind == agent.Autonomous,
		Ceiling: ceilingForm(n.Ceiling), Keys: n.Keys, Workload: n.Workload, TOTP: s.codeAllowed(v), Nonce: rand.Text()}
}

func newAgent(v *visit) agent.NewAgent {
	return agent.NewAgent{Environment: v.here.Environment, Organization: v.here.Organization, Name: v.form("name"), Kind: agent.Kind(v.form("kind")),
		Owner: v.person.User(), Ceiling: ceiling(v), Keys: v.form("keys"), Workload: workload(v), Nonce: v.form("nonce")}
}

func (s *Server) agentChallenge(v *visit) (answer, error) {
	return s.challenge(v, s.agents.RegisterDigest(v.person, newAgent(v)))
}

func (s *Server) agentRegister(v *visit) (answer, error) {
	n := newAgent(v)
	evidence, err := s.people.Prove(v.ctx(), v.person, s.agents.RegisterDigest(v.person, n), n.Organization, v.proof())
	if err != nil {
		return again(s.agentNewPage(v, n), err)
	}
	n.Evidence = evidence
	a, client, sec, err := s.agents.Register(v.ctx(), v.actor(), n)
	if err != nil {
		return again(s.agentNewPage(v, n), err)
	}
	if sec.IsZero() {
		return goTo(agentAt(a) + "?done=saved"), nil
	}
	return show(&OncePage{Frame: Frame{Title: "Registered", Section: "agents", Narrow: true}, Word: "Registered", Sentence: oneLine(a.Label()) + " can now sign in.",
		Values: []Fact{{Name: "Client id", Value: string(client)}, {Name: "Client secret", Value: reveal(sec)}, {Name: "Token address", Value: s.public.JoinPath("oauth", "token").String()},
			{Name: "MCP address", Value: s.agents.Resource()}}, Back: "/ui/agents/" + string(a.ID)}), nil
}

func (s *Server) agentCeiling(v *visit) (change, error) {
	a, err := s.findAgent(v)
	if err != nil {
		return change{}, err
	}
	version := v.version()
	c := ceiling(v)
	return change{back: agentAt(a),
		try: func(ag account.Agreement) (answer, error) {
			_, err := s.agents.SetCeiling(v.ctx(), v.actor(), a.ID, version, c, ag)
			return goTo(agentAt(a) + "?done=saved"), err
		},
		ask: func(r account.Raise) (page, error) { return s.ceilingPage(v, a.Label(), r), nil },
		form: func() (page, error) {
			p, err := s.agentPage(v, a)
			if err == nil {
				p.Ceiling = ceilingForm(c)
			}
			return p, err
		}}, nil
}

func agentAt(a agent.Agent) string { return "/ui/agents/" + string(a.ID) }

func (s *Server) agentDisable(v *visit) (answer, error) {
	aid, err := parseID(id.Agent(v.r.PathValue("id")))
	if err != nil {
		return nil, err
	}
	err = v.anywhere(func(by account.Actor) (id.Organization, error) {
		a, err := s.agents.Disable(v.ctx(), by, aid)
		return a.Organization, err
	})
	if err != nil {
		return nil, err
	}
	return goTo("/ui/agents/" + string(aid) + "?done=disabled"), nil
}

func (s *Server) agentMute(v *visit) (answer, error) {
	a, err := s.findAgent(v)
	if err != nil {
		return nil, err
	}
	length, err := time.ParseDuration(v.form("length"))
	if err != nil {
		length = 0 // which the agents' room refuses
	}
	if _, err := s.agents.Mute(v.ctx(), v.actorIn(a.Environment), a.ID, length); err != nil {
		return nil, err
	}
	return goTo(agentAt(a) + "?done=muted"), nil
}

func (s *Server) agentUnmute(v *visit) (answer, error) {
	a, err := s.findAgent(v)
	if err != nil {
		return nil, err
	}
	if _, err := s.agents.Unmute(v.ctx(), v.actorIn(a.Environment), a.ID); err != nil {
		return nil, err
	}
	return goTo(agentAt(a) + "?done=unmuted"), nil
}

func (s *Server) agentEnable(v *visit) (change, error) {
	a, err := s.findAgent(v)
	if err != nil {
		return change{}, err
	}
	return change{back: agentAt(a), form: func() (page, error) { return s.agentPage(v, a) },
		try: func(ag account.Agreement) (answer, error) {
			_, err := s.agents.Enable(v.ctx(), v.actor(), a.ID, ag)
			return goTo(agentAt(a) + "?done=enabled"), err
		},
		ask: func(account.Raise) (page, error) { return s.agentEnablePage(v, a.Label()), nil }}, nil
}

func (s *Server) agentRevoke(v *visit) (answer, error) {
	aid, err := parseID(id.Agent(v.r.PathValue("id")))
	if err != nil {
		return nil, err
	}
	return s.revoke(v, session.Aim{Agent: aid}, "/ui/agents/"+string(aid), func() (string, error) {
		a, err := s.findAgent(v)
		return a.Label(), err
	})
}

func (s *Server) agentSecret(v *visit) (answer, error) {
	a, err := s.findAgent(v)
	if err != nil {
		return nil, err
	}
	return show(s.agentSecretPage(v, a)), nil
}

func (s *Server) agentSecretPage(v *visit, a agent.Agent) *ConfirmPage {
	to := "/ui/agents/" + string(a.ID) + "/secret"
	return &ConfirmPage{Choice: &Pick{Name: "overlap", Label: "How long does the old secret count?", Options: []Option{
		{Value: "0s", Label: "Not at all: it and the tokens it got stop at once", Chosen: true}, {Value: "1h0m0s", Label: "One hour beside the new one"},
		{Value: "24h0m0s", Label: "One day beside the new one"}, {Value: "168h0m0s", Label: "Seven days beside the new one"}}},
		Frame: Frame{Title: "Replace a secret", Section: "agents", Narrow: true}, Eyebrow: "Client secret", Sentence: "Replace the secret of " + oneLine(a.Label()) + "?",
		Lines: []string{"The new one is shown one time."}, Action: to, Begin: to + "/challenge", Label: "Replace it",
		Danger: true, Back: "/ui/agents/" + string(a.ID), TOTP: s.codeAllowed(v)}
}

func (s *Server) agentSecretChallenge(v *visit) (answer, error) {
	a, err := s.findAgent(v)
	if err != nil {
		return nil, err
	}
	return s.challenge(v, s.agents.RotateDigest(v.person, a, overlap(v)))
}

// overlap reads for how long an old secret counts; what is no time counts as more
// than the agents' room allows.
func overlap(v *visit) time.Duration {
	d, err := time.ParseDuration(cmp.Or(v.form("overlap"), "0s"))
	if err != nil {
		return -1
	}
	return d
}

func (s *Server) agentKeys(v *visit) (change, error) {
	a, err := s.findAgent(v)
	if err != nil {
		return change{}, err
	}
	version := v.version()
	return change{back: agentAt(a), form: func() (page, error) { return s.agentPage(v, a) },
		try: func(ag account.Agreement) (answer, error) {
			_, err := s.agents.SetKeys(v.ctx(), v.actor(), a.ID, version, v.form("keys"), workload(v), ag)
			return goTo(agentAt(a) + "?done=saved"), err
		},
		ask: func(r account.Raise) (page, error) { return s.agentKeysPage(v, a.Label(), r), nil }}, nil
}

// workload reads of a form whose tokens prove an agent. A line that names no claim is
// one without a name, which the agents' room refuses.
func workload(v *visit) agent.Workload {
	w := agent.Workload{Issuer: strings.TrimSpace(v.form("issuer")), Subject: strings.TrimSpace(v.form("subject"))}
	for line := range strings.FieldsFuncSeq(strings.Join(v.r.Form["claims"], "\n"), func(r rune) bool { return r == '\n' || r == '\r' }) {
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			name, value = "", line
		}
		if w.Claims == nil {
			w.Claims = map[string]string{}
		}
		w.Claims[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return w
}

func (s *Server) agentRotate(v *visit) (answer, error) {
	a, err := s.findAgent(v)
	if err != nil {
		return nil, err
	}
	evidence, err := s.people.Prove(v.ctx(), v.person, s.agents.RotateDigest(v.person, a, overlap(v)), a.Organization, v.proof())
	if err != nil {
		return again(s.agentSecretPage(v, a), err)
	}
	sec, err := s.agents.RotateSecret(v.ctx(), v.actor(), a.ID, overlap(v), evidence)
	if err != nil {
		return again(s.agentSecretPage(v, a), err)
	}
	return show(&OncePage{Frame: Frame{Title: "Replaced", Section: "agents", Narrow: true}, Word: "Replaced", Sentence: oneLine(a.Label()) + " has a new secret.",
		Values: []Fact{{Name: "Client id", Value: string(a.Client)}, {Name: "Client secret", Value: reveal(sec)}}, Back: "/ui/agents/" + string(a.ID)}), nil
}

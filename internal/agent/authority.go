package agent

import (
	"context"
	"crypto/subtle"
	"encoding/json"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
)

// within gives by acting in env, or not found if it cannot: an actor of one
// environment never sees that a thing of another exists.
func within(by account.Actor, env id.Environment) (account.Actor, error) {
	by = by.In(env)
	if env == "" || by.Environment() != env {
		return account.Actor{}, notFound()
	}
	return by, nil
}

// mayManage says whether by may make and change everybody's agents in org.
func mayManage(by account.Actor, env id.Environment, org id.Organization) error {
	by, err := within(by, env)
	if err != nil {
		return err
	}
	if org == "" {
		return notFound()
	}
	return by.May(org, account.ManageAgents)
}

// mayView says whether by may see the agents of org, or of the whole
// environment if org is empty. Whoever may not see all of an environment sees
// what own names.
func mayView(by account.Actor, env id.Environment, org id.Organization) (own id.User, err error) {
	by, err = within(by, env)
	if err != nil {
		return "", err
	}
	err = by.May(org, account.View)
	if p, ok := by.Person(); err != nil && org == "" && ok {
		return p.User(), nil
	}
	return "", err
}

// consents says in which environment a person may have an agent of their own
// in org.
func consents(p account.Person, org id.Organization) (id.Environment, error) {
	for _, m := range p.Organizations() {
		if m.Organization == org {
			return m.Environment, account.ByPerson(p).In(m.Environment).May(org, account.UseOwn)
		}
	}
	return "", fault.New(fault.NotFound, "not_found", "No such organization.")
}

// owns reports whether by is the person in whose name the agent acts.
func owns(by account.Actor, a Agent) bool {
	p, ok := by.Person()
	return ok && p.User() != "" && p.User() == a.Owner
}

// proven checks that a person's evidence is theirs and is about exactly this,
// and gives the form that the audit keeps.
func proven(p account.Person, ev account.Evidence, digest [32]byte) (json.RawMessage, error) {
	got := ev.Digest()
	if ev.IsZero() || p.CLI() || ev.User() != p.User() || subtle.ConstantTimeCompare(got[:], digest[:]) != 1 {
		return nil, fault.New(fault.Denied, "proof_required", "This needs your passkey, for exactly this.").
			WithHint("Open the page in a browser and confirm it there.")
	}
	return json.Marshal(ev)
}

// checkOwner asks the database whether the agent's owner is still an active
// member of its organization. An agent does not outlast its owner's place.
func (s *Service) checkOwner(ctx context.Context, a Agent) error {
	ok, err := s.people.Active(ctx, a.Environment, a.Organization, a.Owner)
	if err != nil {
		return err
	}
	if !ok {
		return invalidGrant("The agent's owner is no longer an active member of its organization.")
	}
	return nil
}

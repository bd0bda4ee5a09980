package agent

import (
	"context"
	"crypto/subtle"
	"encoding/json"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
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
	err = by.May(org, account.ManageAgents)
	if _, ok := by.Person(); ok && fault.Is(err, "not_found") {
		err = by.May("", account.ManageAgents) // who runs the environment runs its tenants
	}
	return err
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
	if p, ok := by.Person(); err != nil && ok {
		if by.May("", account.View) == nil {
			return "", nil
		}
		if org == "" {
			return p.User(), nil
		}
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

// proven checks that a person's evidence is theirs, is about exactly this, and
// is of the kind that org demands, and gives the form that the audit keeps. The
// demand is checked here too, because whoever asked for the proof named the
// organization that it was checked for.
func (s *Service) proven(ctx context.Context, p account.Person, env id.Environment, org id.Organization, ev account.Evidence, digest [32]byte) (json.RawMessage, error) {
	got := ev.Digest()
	if ev.IsZero() || p.CLI() || ev.User() != p.User() || subtle.ConstantTimeCompare(got[:], digest[:]) != 1 {
		return nil, fault.New(fault.Denied, "proof_required", "This needs your passkey, for exactly this.").
			WithHint("Open the page in a browser and confirm it there.")
	}
	o, err := s.people.Organization(ctx, env, org)
	if err != nil {
		return nil, err
	}
	if o.RequirePasskey && ev.Method() != account.MethodPasskey {
		return nil, fault.New(fault.Denied, "passkey_required", "This organization demands a passkey.").
			WithHint("Register a passkey and use it.")
	}
	return ev.JSON(), nil
}

// spend lets a person's proof act once, in the transaction that acts.
func (s *Service) spend(ctx context.Context, tx *sqldb.Tx, by account.Actor, ev account.Evidence) error {
	if _, ok := by.Person(); !ok {
		return nil
	}
	return s.people.Spend(ctx, tx, ev.Digest())
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

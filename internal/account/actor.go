package account

import (
	"cmp"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/vault"
)

// Actor is the authority behind a management call: a person, an application's
// key, or the server itself. It is an argument of every such call; the zero
// Actor may do nothing.
type Actor struct {
	kind    string // audit.Actor.Kind
	person  Person
	key     Key
	system  string
	env     id.Environment
	address string
}

// ByPerson acts in the environment in which the person was made; see In.
func ByPerson(p Person) Actor {
	if p.user == "" {
		return Actor{}
	}
	return Actor{kind: "user", person: p, env: p.home, address: p.address}
}

// ByKey acts in the environment of the key.
func ByKey(k Key) Actor {
	if k.id == "" {
		return Actor{}
	}
	return Actor{kind: "api_key", key: k, env: k.environment}
}

// System acts for the server itself, such as its console. It may do everything,
// so its name is a constant of the caller and never comes from a request.
func System(name string) Actor { return Actor{kind: "system", system: name} }

// In gives the same actor acting in another environment. A key stays where it
// is; a person has there what their memberships say.
func (a Actor) In(env id.Environment) Actor {
	if a.kind != "api_key" {
		a.env = env
	}
	return a
}

// From gives the same actor with the address of its client, for the audit.
func (a Actor) From(address string) Actor { a.address = address; return a }

// Environment is where the actor acts. What it names must be looked up under
// this environment, so that things of another one look absent.
func (a Actor) Environment() id.Environment { return a.env }

// Organization is the one to which an API key or a person's login is confined;
// empty for all others, for the system and for keys of a whole environment.
func (a Actor) Organization() id.Organization {
	if a.person.confined != "" {
		return a.person.confined
	}
	return a.key.organization
}

// User is the person's id, or empty.
func (a Actor) User() id.User { return a.person.user }

// Person gives the person, if the actor is one.
func (a Actor) Person() (Person, bool) { return a.person, a.kind == "user" }

// IsSystem reports whether the actor is the server itself.
func (a Actor) IsSystem() bool { return a.kind == "system" }

// Address is where the request came from.
func (a Actor) Address() string { return a.address }

// Name is how people and logs call the actor.
func (a Actor) Name() string {
	switch a.kind {
	case "user":
		return a.person.name
	case "api_key":
		return a.key.name
	}
	return a.system
}

// Audit is the actor as the audit names it.
func (a Actor) Audit() audit.Actor {
	switch a.kind {
	case "user":
		return audit.Actor{Kind: a.kind, ID: string(a.person.user)}
	case "api_key":
		return audit.Actor{Kind: a.kind, ID: string(a.key.id)}
	}
	return audit.Actor{Kind: a.kind, ID: a.system}
}

// Reach is what the actor may do with secrets that May lets it see.
func (a Actor) Reach() vault.Reach {
	switch a.kind {
	case "api_key":
		return a.key.Reach()
	case "user", "system":
		return vault.Everything()
	}
	return vault.Reach{}
}

// Counted is under what a caller's load is counted (package throttle): a group,
// which is the organization of an application's key, the first of a person's, or
// else the environment, and the caller in it. It says how much
// somebody may have at once and never what they may do.
func (a Actor) Counted() (group, caller string) {
	org := a.Organization()
	if list := a.person.memberships; len(list) > 0 {
		org = list[0].Organization
	}
	env := a.env
	if a.person.user != "" {
		env = a.person.home // wherever they act
	}
	return cmp.Or(string(org), string(env)), a.Audit().ID
}

// May says whether the actor has p in org, or in the whole environment when org
// is empty; a person has it there through the organization that runs the
// environment. What is not the actor's looks absent; what is, but is not
// allowed, is denied. May does not know which environment org is of: for a key
// of a whole environment the caller's look-up under Environment must show it.
func (a Actor) May(org id.Organization, p Permission) error {
	switch a.kind {
	case "system":
		return nil
	case "user":
		r, ok := a.role(org)
		if !ok {
			return absent(org)
		}
		if a.person.Vouched() && !vouchedMay(p) {
			return vouchedOnly()
		}
		if !r.May(p) {
			return fault.New(fault.Denied, "not_allowed", "Your role "+string(r)+" does not allow this.").
				WithHint("Ask an owner or admin of the organization.")
		}
		return nil
	case "api_key":
		if a.key.organization != "" && org != a.key.organization {
			return absent(org)
		}
		scope := rules(p).scope
		if scope == "" {
			return fault.New(fault.Denied, "person_required", "API keys cannot do this; a person must.").
				WithHint("Sign in to the web UI.")
		}
		if !a.key.Has(scope) {
			return fault.New(fault.Denied, "missing_scope", "The API key lacks the scope "+scope+".").
				WithHint("Make a key with that scope.")
		}
		return nil
	}
	return fault.New(fault.Unauthenticated, "unauthenticated", "Nobody is signed in.")
}

func (a Actor) role(org id.Organization) (Role, bool) {
	if org == "" {
		// Working for whoever runs an environment does not show its tenants.
		r, ok := a.person.operator(a.env)
		return r, ok && (r == RoleOwner || r == RoleAdmin || r == RoleAuditor)
	}
	for _, m := range a.person.memberships {
		if m.Organization == org && m.Environment == a.env {
			return m.Role, true
		}
	}
	return "", false
}

func absent(org id.Organization) error {
	if org == "" {
		return fault.New(fault.Denied, "not_allowed", "This is for those who run the environment.").
			WithHint("Ask an owner of the environment's own organization, or use an API key of the whole environment.")
	}
	return notFound("organization")
}

func notFound(noun string) *fault.Error {
	return fault.New(fault.NotFound, "not_found", "No such "+noun+".")
}

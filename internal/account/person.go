package account

import (
	"slices"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/vault"
)

// The methods of a login.
const (
	MethodPasskey = "passkey"
	MethodTOTP    = "totp"
	MethodLink    = "link"    // enrolled through a link just now
	MethodVouched = "vouched" // on the word of an application that made the user; see Vouch
	MethodCLI     = "cli"     // a stored login of the command line; it never proves presence
)

// Membership is a person's place in one organization.
type Membership struct {
	Organization     id.Organization
	OrganizationName string
	Environment      id.Environment
	EnvironmentName  string
	Role             Role
	Runs             bool // no member, but one who runs the environment; see Place

	requirePasskey bool
	operates       bool // the organization runs its environment
}

// Operates reports whether the organization runs its environment.
func (m Membership) Operates() bool { return m.operates }

// Person is a human who is signed in, as the database knew them at this
// request. Only this package makes one; the zero Person may do nothing.
type Person struct {
	user            id.User
	name            string
	email           string
	home            id.Environment
	login           id.Login
	method          string
	authenticatedAt time.Time
	memberships     []Membership
	confined        id.Organization // the only one in which this login counts; empty: everywhere
	provider        id.IdentityProvider
	address         string
	providers       []string // of who is vouched for: where they connect; none: everywhere
}

func (p Person) User() id.User               { return p.user }
func (p Person) Name() string                { return p.name }
func (p Person) Email() string               { return p.email }
func (p Person) Environment() id.Environment { return p.home } // where the user was made
func (p Person) Login() id.Login             { return p.login }
func (p Person) Method() string              { return p.method }
func (p Person) AuthenticatedAt() time.Time  { return p.authenticatedAt } // of the passkey or code, not of the last request
func (p Person) CLI() bool                   { return p.method == MethodCLI }

// Vouched reports whether the person is signed in on an application's word, which
// is enough to connect accounts and nothing else.
func (p Person) Vouched() bool { return p.method == MethodVouched }

// ConnectsAt refuses who is signed in on an application's word for other providers.
func (p Person) ConnectsAt(provider string) error {
	if !p.Vouched() || len(p.providers) == 0 || slices.Contains(p.providers, provider) {
		return nil
	}
	return fault.New(fault.Denied, "provider_not_named", "The application that you came from did not name this provider.").WithHint("Start again there, or sign in by yourself.")
}

// guesser is by whom a person's wrong codes are counted. Whoever runs an
// organization's identity provider can be there as them, and uses up nothing of
// what they have elsewhere.
func (p Person) guesser() string {
	if p.confined != "" {
		return string(p.user) + " " + string(p.confined)
	}
	return string(p.user)
}

func (p Person) Address() string             { return p.address }
func (p Person) Organizations() []Membership { return slices.Clone(p.memberships) }
func (p Person) Role(org id.Organization) (Role, bool) {
	for _, m := range p.memberships {
		if m.Organization == org {
			return m.Role, true
		}
	}
	return "", false
}

// May reports whether the person has one of roles in org.
func (p Person) May(org id.Organization, roles ...Role) bool {
	r, ok := p.Role(org)
	return ok && !p.Vouched() && slices.Contains(roles, r)
}

// operator gives the role that the person has in the organization that runs env.
func (p Person) operator(env id.Environment) (Role, bool) {
	for _, m := range p.memberships {
		if m.Environment == env && m.operates {
			return m.Role, true
		}
	}
	return "", false
}

// Key is an authenticated API key. Only this package makes one.
type Key struct {
	id           id.Key
	name         string
	environment  id.Environment
	organization id.Organization
	scopes       []Scope
	secrets      []vault.Rule
}

func (k Key) ID() id.Key                    { return k.id }
func (k Key) Name() string                  { return k.name }
func (k Key) Environment() id.Environment   { return k.environment }
func (k Key) Organization() id.Organization { return k.organization } // empty: the whole environment
func (k Key) Scopes() []Scope               { return slices.Clone(k.scopes) }

// Reach is what the key may do with the secrets that it could see; its scopes say
// whether it may come that far.
func (k Key) Reach() vault.Reach {
	if len(k.secrets) == 0 {
		return vault.Everything()
	}
	return vault.Within(k.secrets)
}
func (k Key) Has(scope Scope) bool { return slices.Contains(k.scopes, scope) }

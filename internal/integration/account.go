package integration

import (
	"context"
	"slices"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Account is a live connection as its owner's application sees it.
type Account struct {
	connection.Connection
	// Standard says that it was made beside the owner's first one. A look-up that
	// knows of one connection only does not find it.
	Standard bool
}

// Aim says which account of whom a request is about.
type Aim struct {
	Slug      string
	Ownership Ownership
	Names
	Connection string // exactly this one; empty: the owner's only one
	Plural     bool   // who asks knows that there may be several
}

// aimed is an Aim that was looked up.
type aimed struct {
	Configured
	subject Subject
	list    []Account // oldest first
}

// aim finds the integration, whom the application means, and what they have there.
// For what writes, somebody who is not there is made later, with make.
func (s *Service) aim(ctx context.Context, by account.Actor, a Aim, write bool) (aimed, error) {
	i, err := s.find(ctx, s.cfg.DB.Reader(), by.Environment(), a.Slug, a.Ownership)
	if err != nil {
		return aimed{}, err
	}
	out := aimed{}
	if out.subject, err = s.who(ctx, by, a.Names); err != nil {
		return aimed{}, err
	}
	if a.Ownership == Organizations && a.Names.Organization == "" && by.Organization() == "" {
		return aimed{}, fault.New(fault.Invalid, "organization_required", "organization_id is missing.")
	}
	if a.Ownership == Organizations && out.subject.unknown && !write {
		return aimed{}, fault.New(fault.NotFound, "user_not_found", "The user is no active member of the organization.")
	}
	if out.Configured, err = s.configured(ctx, i, out.subject.Organization); err != nil {
		return aimed{}, err
	}
	out.list, err = s.accounts(ctx, by.Environment(), out.subject, a.Ownership, i.Provider.Record.ID)
	return out, err
}

func (s *Service) accounts(ctx context.Context, env id.Environment, sub Subject, o Ownership, slug string) ([]Account, error) {
	if !sub.known() || o == Users && sub.User == "" {
		return nil, nil
	}
	h := sub.Holder(o)
	list, err := s.cfg.Connections.OwnedBy(ctx, s.cfg.DB.Reader(), env, h.Organization, h.User, slug)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	added, err := selectAdded(ctx, s.cfg.DB.Reader(), env, h, slug)
	if err != nil {
		return nil, err
	}
	var out []Account
	first := true
	for _, c := range list {
		a := Account{Connection: c, Standard: added[c.ID] || !first}
		first = first && a.Standard
		out = append(out, a)
	}
	return out, nil
}

// What a look-up of an account says when there is none that it could mean.
const (
	NotInstalled  = "not_installed"
	NeedsReauth   = "needs_reauthorization"
	MustBeChosen  = "account_selection_required"
	codeNoAccount = "connected_account_not_found"
)

// one picks the account that is meant, or says why there is none.
func (a aimed) one(which Aim) (Account, string) {
	if which.Connection != "" {
		for _, c := range a.list {
			if string(c.ID) == which.Connection {
				return c, ""
			}
		}
		return Account{}, NotInstalled
	}
	if which.Plural && len(a.list) > 1 {
		return Account{}, MustBeChosen
	}
	for _, c := range a.list {
		if !c.Standard || which.Plural {
			return c, ""
		}
	}
	return Account{}, NotInstalled
}

// must is one, as a refusal.
func (a aimed) must(which Aim) (Account, error) {
	c, why := a.one(which)
	switch why {
	case "":
		return c, nil
	case MustBeChosen:
		return c, fault.New(fault.Conflict, MustBeChosen, "There are several connected accounts.").WithHint("Name one with connected_account_id.")
	}
	return c, fault.New(fault.NotFound, codeNoAccount, "There is no such connected account.")
}

// Account finds the account that is meant.
func (s *Service) Account(ctx context.Context, by account.Actor, which Aim) (Configured, Account, error) {
	if err := by.May(by.Organization(), account.ViewConnections); err != nil {
		return Configured{}, Account{}, err
	}
	a, err := s.aim(ctx, by, which, false)
	if err != nil {
		return Configured{}, Account{}, err
	}
	c, err := a.must(which)
	return a.Configured, c, err
}

// Offered is a provider as one user or organization sees it.
type Offered struct {
	Configured
	Subject  Subject
	Accounts []Account
}

// Providers lists what is offered to a user, or to an organization as a whole, and
// what they have connected there.
func (s *Service) Providers(ctx context.Context, by account.Actor, n Names, only Ownership) ([]Offered, error) {
	if err := by.May(by.Organization(), account.ViewConnections); err != nil {
		return nil, err
	}
	sub, err := s.who(ctx, by, n)
	if err != nil {
		return nil, err
	}
	all, err := s.allConfigured(ctx, by.Environment(), sub.Organization)
	if err != nil {
		return nil, err
	}
	var out []Offered
	for _, c := range all {
		if only == Organizations && c.Ownership != Organizations || !c.Offered() {
			continue
		}
		o := Offered{Configured: c, Subject: sub}
		if o.Accounts, err = s.accounts(ctx, c.Environment, sub, c.Ownership, c.Provider.Record.ID); err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

// Intent says whether a new account may stand beside one that is there.
type Intent string

const (
	Replace Intent = "" // the owner's one account, made or renewed
	Create  Intent = "create"
	Add     Intent = "add"
	Renew   Intent = "reauthorize" // one that is there
)

// start says what is connected: anew, or in place of what it names.
func (a aimed) start(which Aim, intent Intent) (credential.Start, id.User, error) {
	none := func(err error) (credential.Start, id.User, error) { return credential.Start{}, "", err }
	if !a.Offered() {
		return none(fault.New(fault.Denied, "integration_disabled", "The data integration is not enabled.").WithHint("Enable it first."))
	}
	st := credential.Start{Environment: a.Environment, Organization: a.subject.Organization, Provider: a.Provider.Record.ID, OrganizationOwned: a.Ownership == Organizations}
	h := a.subject.Holder(a.Ownership)
	there, why := a.one(which)
	switch {
	case intent == Add:
	case why == MustBeChosen:
		return none(fault.New(fault.Conflict, MustBeChosen, "There are several connected accounts.").WithHint("Name one with connected_account_id."))
	case why != "" && (intent == Renew || which.Connection != ""):
		return none(fault.New(fault.NotFound, codeNoAccount, "There is no such connected account."))
	case why != "":
	case intent == Create:
		return none(fault.New(fault.Conflict, "connected_account_exists", "There is a connected account already.").
			WithHint("Update it, or add another with connection_intent: add."))
	default:
		st.Reconnect = there.ID
	}
	if intent == Add {
		env := a.Environment
		st.Also = func(ctx context.Context, tx *sqldb.Tx, c connection.Connection) error {
			return insertAdded(ctx, tx, env, c.ID)
		}
	}
	return st, h.User, nil
}

// PutKey gives an account the credential that its owner handed to the application:
// an API key, or the client credentials of an account.
func (s *Service) PutKey(ctx context.Context, by account.Actor, which Aim, intent Intent, kind provider.Auth, fields map[string]secret.Value, chosen map[string]string) (Configured, Account, error) {
	a, err := s.writable(ctx, by, which)
	if err != nil {
		return Configured{}, Account{}, err
	}
	if a.Provider.Record.Auth != kind {
		return Configured{}, Account{}, mismatch(a.Provider.Record)
	}
	st, owner, err := a.start(which, intent)
	if err != nil {
		return Configured{}, Account{}, err
	}
	st.Chosen, st.Whose = chosen, s.maker(by, which, &a)
	c, err := s.cfg.Credentials.AddKey(ctx, by, st, owner, fields, account.Agreement{})
	if err != nil {
		return Configured{}, Account{}, err
	}
	return s.now(ctx, by, a, which, c)
}

// make makes whom a request names, once nothing else refuses it: of what fails
// nobody stays behind.
func (s *Service) make(ctx context.Context, by account.Actor, which Aim, a *aimed) error {
	sub, err := s.whoever(ctx, by, which.Names)
	if err == nil {
		a.subject, a.Organization = sub, sub.Organization
	}
	return err
}

// maker is make, as connecting calls it.
func (s *Service) maker(by account.Actor, which Aim, a *aimed) func(context.Context) (id.Organization, id.User, error) {
	return func(ctx context.Context) (id.Organization, id.User, error) {
		err := s.make(ctx, by, which, a)
		h := a.subject.Holder(a.Ownership)
		return h.Organization, h.User, err
	}
}

// writable finds what an application is about to change.
func (s *Service) writable(ctx context.Context, by account.Actor, which Aim) (aimed, error) {
	if err := by.May(by.Organization(), account.ManageConnections); err != nil {
		return aimed{}, err
	}
	return s.aim(ctx, by, which, true)
}

// now reads an account again after it was changed.
func (s *Service) now(ctx context.Context, by account.Actor, a aimed, which Aim, c connection.Connection) (Configured, Account, error) {
	list, err := s.accounts(ctx, by.Environment(), a.subject, which.Ownership, a.Provider.Record.ID)
	if err != nil {
		return Configured{}, Account{}, err
	}
	at := slices.IndexFunc(list, func(x Account) bool { return x.ID == c.ID })
	if at < 0 {
		return a.Configured, Account{Connection: c}, nil
	}
	return a.Configured, list[at], nil
}

// Imported says what an application knows of an account.
type Imported struct {
	credential.Tokens
	State connection.State // empty: what follows from the tokens
}

// Import makes an account of tokens that the application has.
func (s *Service) Import(ctx context.Context, by account.Actor, which Aim, intent Intent, in Imported) (Configured, Account, error) {
	a, err := s.writable(ctx, by, which)
	if err != nil {
		return Configured{}, Account{}, err
	}
	return s.imported(ctx, by, a, which, intent, in)
}

func (s *Service) imported(ctx context.Context, by account.Actor, a aimed, which Aim, intent Intent, in Imported) (Configured, Account, error) {
	st, owner, err := a.start(which, intent)
	if err != nil {
		return Configured{}, Account{}, err
	}
	st.Whose = s.maker(by, which, &a)
	c, err := s.cfg.Credentials.Import(ctx, by, st, owner, in.Tokens)
	if err == nil && in.State == connection.NeedsReauth {
		c, err = s.cfg.Credentials.SetState(ctx, by, c.ID, in.State, nil)
	}
	if err != nil {
		return Configured{}, Account{}, err
	}
	return s.now(ctx, by, a, which, c)
}

// Change gives an account other tokens, or another state or other scopes alone.
func (s *Service) Change(ctx context.Context, by account.Actor, which Aim, in Imported) (Configured, Account, error) {
	a, err := s.writable(ctx, by, which)
	if err != nil {
		return Configured{}, Account{}, err
	}
	c, err := a.must(which)
	if err != nil {
		return Configured{}, Account{}, err
	}
	if !in.Access.IsZero() || !in.Refresh.IsZero() {
		if in.Scopes == nil {
			in.Scopes = c.Scopes
		}
		which.Connection = string(c.ID)
		return s.imported(ctx, by, a, which, Renew, in)
	}
	if in.State == "" && in.Scopes == nil {
		return Configured{}, Account{}, fault.New(fault.Invalid, "invalid_token_combination", "There is nothing to change.")
	}
	changed, err := s.cfg.Credentials.SetState(ctx, by, c.ID, in.State, in.Scopes)
	if err != nil {
		return Configured{}, Account{}, err
	}
	return s.now(ctx, by, a, which, changed)
}

// Disconnect ends an account, here and at the provider.
func (s *Service) Disconnect(ctx context.Context, by account.Actor, which Aim) error {
	if err := by.May(by.Organization(), account.ManageConnections); err != nil {
		return err
	}
	a, err := s.aim(ctx, by, which, false)
	if err != nil {
		return err
	}
	c, err := a.must(which)
	if err != nil {
		return err
	}
	_, err = s.cfg.Credentials.Disconnect(ctx, by, c.ID)
	return err
}

// Vended is a credential on its way to an application, with what its account lacks.
type Vended struct {
	credential.Vended
	Missing []string // scopes that are asked for and were not granted
}

// Vend gives the credential of the account that is meant to an application whose
// key has the scope for it. why says that there is no account, or none that works;
// then there is no error either. Each answer is on record first.
func (s *Service) Vend(ctx context.Context, by account.Actor, which Aim, kinds ...provider.Auth) (v Vended, why string, err error) {
	if err := by.May(by.Organization(), account.VendConnections); err != nil {
		return v, "", err
	}
	if !s.cfg.Vends {
		return v, "", fault.New(fault.Denied, "vend_disabled", "This server hands out no credentials.").
			WithHint("The operator can allow it with AMBIT_ALLOW_VEND; a tool call in a session needs no such thing.")
	}
	a, err := s.aim(ctx, by, which, false)
	if err != nil {
		return v, "", err
	}
	if len(kinds) > 0 && (!slices.Contains(kinds, a.Provider.Record.Auth) || a.Provider.Record.OAuth != nil && a.Provider.Record.OAuth.Signs()) { // this wire has one value, and signing takes more
		return v, "", mismatch(a.Provider.Record)
	}
	c, why := a.one(which)
	if why == "" && !a.Offered() {
		why = NotInstalled
	}
	if why != "" {
		return v, why, s.nothing(ctx, by, a, why)
	}
	got, err := s.cfg.Credentials.Vend(ctx, by, c.ID, a.subject.User)
	switch {
	case fault.Is(err, connection.CodeReconnect):
		return v, NeedsReauth, nil
	case fault.Is(err, "disconnected"), fault.Is(err, "not_found"):
		return v, NotInstalled, nil
	case err != nil:
		return v, "", err
	}
	return Vended{got, got.Connection.Missing(a.Asks())}, "", nil
}

// nothing records that there was nothing to vend.
func (s *Service) nothing(ctx context.Context, by account.Actor, a aimed, why string) error {
	err := s.cfg.Audit.Record(ctx, audit.Entry{Environment: a.Environment, Organization: a.subject.Organization, Actor: by.Audit(), User: a.subject.User,
		Action: "credential.vended", Object: a.Provider.Record.ID, Provider: a.Provider.Record.ID, Decision: "deny", Rule: "vend", Code: why, Address: by.Address()})
	if err != nil {
		return fault.New(fault.Unavailable, "audit_unavailable", "The audit log cannot be written.").WithHint("Try again shortly.").WithCause(err)
	}
	return nil
}

// Described is a connection with the integration that it is under, if there is one.
type Described struct {
	Connection  connection.Connection
	Integration Integration
}

// Described reads what some connections of an environment are now, for who has
// established on their own that they may know.
func (s *Service) Described(ctx context.Context, env id.Environment, some []id.Connection) (map[id.Connection]Described, error) {
	list, err := s.cfg.Connections.Among(ctx, s.cfg.DB.Reader(), env, some)
	if err != nil {
		return nil, err
	}
	out := map[id.Connection]Described{}
	for _, c := range list {
		o := Users
		if c.Owner == "" {
			o = Organizations
		}
		i, err := s.find(ctx, s.cfg.DB.Reader(), env, c.Record.Wire(), o)
		if err != nil && fault.KindOf(err) != fault.NotFound {
			return nil, err
		}
		out[c.ID] = Described{c, i}
	}
	return out, nil
}

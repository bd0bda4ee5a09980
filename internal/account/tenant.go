package account

import (
	"context"
	"fmt"
	"slices"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// CreateEnvironment makes an environment and the organization that runs it,
// whose first owner is the person who made it. It takes a person who runs the
// environment in which they act, and agrees, or the server's console.
func (s *Service) CreateEnvironment(ctx context.Context, by Actor, name string, ag Agreement) (Environment, error) {
	if err := checkName("An environment's name", name); err != nil {
		return Environment{}, err
	}
	if !by.IsSystem() {
		if _, ok := by.Person(); !ok {
			return Environment{}, fault.New(fault.Denied, "person_required", "An API key belongs to one environment and cannot make another.").
				WithHint("Sign in to the web UI.")
		}
		if err := by.May("", ManageTenants); err != nil {
			return Environment{}, err
		}
	}
	e := Environment{ID: id.NewEnvironment(), Name: name, Operator: id.NewOrganization(), CreatedAt: s.now(), Version: 1}
	err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		taken := fault.New(fault.Conflict, "name_taken", "There is an environment of this name.")
		all, err := selectEnvironments(ctx, tx)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(all, func(e Environment) bool { return e.Name == name }) {
			return taken
		}
		// Whoever makes it owns it, whatever else they may lose.
		w, err := s.Weigh(ctx, tx, by, Raise{Action: "environment.created", Environment: by.Environment(), To: name}, true, ag)
		if err != nil {
			return err
		}
		made, err := s.addEnvironment(ctx, tx, by, w.made(string(e.ID)), e)
		if err != nil {
			return err
		}
		if !made {
			return taken
		}
		if u := by.User(); u != "" {
			_, err = insertMember(ctx, tx, w.made(string(u)), e.Operator, u, RoleOwner, sqldb.Micros(e.CreatedAt))
		}
		return err
	})
	if err != nil {
		return Environment{}, sqldb.Wrap("create an environment", err)
	}
	return e, nil
}

// addEnvironment reports whether the name was free.
func (s *Service) addEnvironment(ctx context.Context, tx *sqldb.Tx, by Actor, w Weighed, e Environment) (bool, error) {
	made, err := insertEnvironment(ctx, tx, w, e)
	if err != nil || !made {
		return false, err
	}
	err = insertOrganization(ctx, tx, Organization{ID: e.Operator, Environment: e.ID, Name: "default", CreatedAt: e.CreatedAt})
	if err != nil {
		return false, err
	}
	s.audit.Append(tx, w.enter(entry(by, e.ID, "", "environment.created", string(e.ID))))
	s.audit.Append(tx, entry(by, e.ID, e.Operator, "organization.created", string(e.Operator)))
	return true, nil
}

// Environments lists those that the actor has a part in; the system has it in all.
func (s *Service) Environments(ctx context.Context, by Actor) ([]Environment, error) {
	all, err := selectEnvironments(ctx, s.db.Reader())
	if err != nil {
		return nil, sqldb.Wrap("list environments", err)
	}
	var out []Environment
	for _, e := range all {
		if by.IsSystem() || by.kind == "api_key" && by.env == e.ID || by.kind == "user" && by.person.in(e.ID) {
			out = append(out, e)
		}
	}
	return out, nil
}

// Environment looks an environment up. It is a look-up, not an authorization.
func (s *Service) Environment(ctx context.Context, env id.Environment) (Environment, error) {
	e, err := selectEnvironment(ctx, s.db.Reader(), env)
	if sqldb.NoRows(err) {
		return Environment{}, notFound("environment")
	}
	return e, sqldb.Wrap("read an environment", err)
}

// CreateOrganization makes a tenant in env. A person who makes one is not its
// member; they run it through the environment's operator organization.
func (s *Service) CreateOrganization(ctx context.Context, by Actor, env id.Environment, name, externalID string) (Organization, error) {
	by, err := s.within(ctx, by, env)
	if err != nil {
		return Organization{}, err
	}
	if err := by.May("", ManageTenants); err != nil {
		return Organization{}, err
	}
	if err := checkName("An organization's name", name); err != nil {
		return Organization{}, err
	}
	if err := checkExternalID(externalID); err != nil {
		return Organization{}, err
	}
	o := Organization{ID: id.NewOrganization(), Environment: env, Name: name, ExternalID: externalID, CreatedAt: s.now(), Version: 1}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := insertOrganization(ctx, tx, o); err != nil {
			return err
		}
		s.audit.Append(tx, entry(by, env, o.ID, "organization.created", string(o.ID)))
		return nil
	})
	if sqldb.IsUnique(err) {
		return Organization{}, fault.New(fault.Conflict, "external_id_taken", "Another organization has this external id.")
	}
	if err != nil {
		return Organization{}, sqldb.Wrap("create an organization", err)
	}
	return o, nil
}

// Organization looks an organization up in its environment; one of another
// environment is not found. It is a look-up, not an authorization.
func (s *Service) Organization(ctx context.Context, env id.Environment, org id.Organization) (Organization, error) {
	return organizationIn(ctx, s.db.Reader(), env, org)
}

func organizationIn(ctx context.Context, q sqldb.Querier, env id.Environment, org id.Organization) (Organization, error) {
	o, err := selectOrganization(ctx, q, org)
	if sqldb.NoRows(err) || err == nil && o.Environment != env {
		return Organization{}, notFound("organization")
	}
	return o, sqldb.Wrap("read an organization", err)
}

// CodeNoVending is the refusal to hand an application a credential of an
// organization that has said that it has no standing access.
const CodeNoVending = "no_standing_access"

// Vends refuses where an organization lets no credential be handed to an
// application. It reads with q, so that the answer belongs to its transaction.
func (s *Service) Vends(ctx context.Context, q sqldb.Querier, org id.Organization) error {
	o, err := selectOrganization(ctx, q, org)
	if err == nil && o.NoVending {
		return fault.New(fault.Denied, CodeNoVending, "This organization lets no credential be handed to an application.").
			WithHint("Work through a session that a person approves, or have an owner of the organization allow it.")
	}
	return sqldb.Wrap("read an organization", err)
}

// OrganizationByExternalID is Organization by the product's own name.
func (s *Service) OrganizationByExternalID(ctx context.Context, env id.Environment, external string) (Organization, error) {
	o, err := selectOrganizationByExternalID(ctx, s.db.Reader(), env, external)
	if sqldb.NoRows(err) {
		return Organization{}, notFound("organization")
	}
	return o, sqldb.Wrap("read an organization", err)
}

// Organizations lists those of env that the actor may see, and the id to pass
// as After for the next page.
func (s *Service) Organizations(ctx context.Context, by Actor, env id.Environment, l List) ([]Organization, string, error) {
	by, err := s.within(ctx, by, env)
	if err != nil {
		return nil, "", err
	}
	of := by.User()
	switch err := by.May("", View); {
	case err == nil:
		of = ""
	case by.Organization() != "":
		// A key of one organization sees that one.
		o, err := s.Organization(ctx, env, by.Organization())
		if err != nil || l.After >= string(o.ID) {
			return nil, "", err
		}
		return []Organization{o}, "", nil
	case of == "":
		return nil, "", err
	}
	rows, err := selectOrganizations(ctx, s.db.Lists(string(env)), env, of, l.After, l.limit()+1)
	if err != nil {
		return nil, "", sqldb.Wrap("list organizations", err)
	}
	rows, next := page(rows, l.limit(), func(o Organization) string { return string(o.ID) })
	return rows, next, nil
}

// OrganizationChange says what to change; nil leaves a thing as it is.
type OrganizationChange struct {
	Name           *string
	RequirePasskey *bool
	NoVending      *bool
}

// UpdateOrganization changes an organization that is still at version. Who
// takes back the demand for passkeys, or lets credentials be vended again, is an
// owner, and agrees: it lowers what guards the organization. Making the demand
// shuts nobody out for good, since a code still registers a first passkey (see
// Unlock).
func (s *Service) UpdateOrganization(ctx context.Context, by Actor, org id.Organization, version int64, c OrganizationChange, ag Agreement) (Organization, error) {
	o, by, err := s.reach(ctx, by, org, ManageSettings)
	if err != nil {
		return Organization{}, err
	}
	was := o
	moved := fault.New(fault.Conflict, "version_conflict", "The organization was changed meanwhile.").WithHint("Read it again.")
	if o.Version != version {
		return Organization{}, moved
	}
	lowers := false
	detail := map[string]string{}
	if c.Name != nil {
		if err := checkName("An organization's name", *c.Name); err != nil {
			return Organization{}, err
		}
		o.Name = *c.Name
		detail["name"] = "changed"
	}
	if c.RequirePasskey != nil && *c.RequirePasskey != o.RequirePasskey {
		if !by.ownerOf(o) {
			return Organization{}, fault.New(fault.Denied, "not_allowed", "Only an owner changes what approving needs.")
		}
		lowers = o.RequirePasskey
		o.RequirePasskey = *c.RequirePasskey
		detail["require_passkey"] = fmt.Sprint(o.RequirePasskey)
	}
	if c.NoVending != nil && *c.NoVending != o.NoVending {
		if o.NoVending && !by.ownerOf(o) {
			return Organization{}, fault.New(fault.Denied, "not_allowed", "Only an owner lets credentials be handed to applications again.")
		}
		lowers = lowers || o.NoVending
		o.NoVending = *c.NoVending
		detail["no_vending"] = fmt.Sprint(o.NoVending)
	}
	r := Raise{Action: "organization.changed", Environment: o.Environment, Organization: o.ID, Object: string(o.ID), Version: version,
		From: was.guards(), To: o.guards()}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		w, err := s.Weigh(ctx, tx, by, r, lowers, ag)
		if err != nil {
			return err
		}
		ok, err := updateOrganization(ctx, tx, w, o)
		if err != nil {
			return err
		}
		if !ok {
			return moved
		}
		e := w.enter(entry(by, o.Environment, o.ID, "organization.changed", string(o.ID)))
		e.Detail = detail
		s.audit.Append(tx, e)
		return nil
	})
	if err != nil {
		return Organization{}, sqldb.Wrap("change an organization", err)
	}
	o.Version++
	return o, nil
}

// guards says in words what guards an organization.
func (o Organization) guards() string {
	approving, vending := "passkey or code", ""
	if o.RequirePasskey {
		approving = "passkey"
	}
	if o.NoVending {
		vending = ", no vending"
	}
	return approving + vending
}

// within gives by acting in env, which exists.
func (s *Service) within(ctx context.Context, by Actor, env id.Environment) (Actor, error) {
	by = by.In(env)
	if env == "" || by.Environment() != env {
		return Actor{}, notFound("environment")
	}
	if _, err := s.Environment(ctx, env); err != nil {
		return Actor{}, err
	}
	if p, ok := by.Person(); ok && !p.in(env) {
		return Actor{}, notFound("environment")
	}
	return by, nil
}

// reach gives an organization and the actor acting in its environment, if they
// have permission there: as a member or key of it, or as one who runs the
// environment.
func (s *Service) reach(ctx context.Context, by Actor, org id.Organization, p Permission) (Organization, Actor, error) {
	return reachIn(ctx, s.db.Reader(), by, org, p)
}

func reachIn(ctx context.Context, q sqldb.Querier, by Actor, org id.Organization, p Permission) (Organization, Actor, error) {
	o, err := selectOrganization(ctx, q, org)
	if sqldb.NoRows(err) {
		return Organization{}, Actor{}, notFound("organization")
	}
	if err != nil {
		return Organization{}, Actor{}, sqldb.Wrap("read an organization", err)
	}
	by = by.In(o.Environment)
	if by.Environment() != o.Environment {
		return Organization{}, Actor{}, notFound("organization")
	}
	err = by.May(org, p)
	if fault.Is(err, "not_found") && by.kind == "user" && by.May("", p) == nil {
		err = nil
	}
	return o, by, err
}

// Place gives what a person is in an organization: their membership, or for
// those who run its environment and are no members of it their role there.
func (s *Service) Place(ctx context.Context, p Person, org id.Organization) (Membership, error) {
	return placeOf(ctx, s.db.Reader(), p, org)
}

func placeOf(ctx context.Context, q sqldb.Querier, p Person, org id.Organization) (Membership, error) {
	for _, m := range p.memberships {
		if m.Organization == org {
			return m, nil
		}
	}
	o, err := selectOrganization(ctx, q, org)
	if err != nil && !sqldb.NoRows(err) {
		return Membership{}, sqldb.Wrap("read an organization", err)
	}
	for _, m := range p.memberships {
		if err == nil && m.operates && m.Environment == o.Environment && ByPerson(p).In(m.Environment).May("", View) == nil {
			return Membership{Organization: o.ID, OrganizationName: o.Name, Environment: m.Environment, EnvironmentName: m.EnvironmentName, Role: m.Role, Runs: true}, nil
		}
	}
	return Membership{}, notFound("organization")
}

// ownerOf reports whether a, acting in o's environment, stands above owners.
func (a Actor) ownerOf(o Organization) bool {
	switch a.kind {
	case "system":
		return true
	case "user":
		if r, ok := a.person.Role(o.ID); ok {
			return r == RoleOwner
		}
		r, _ := a.person.operator(o.Environment)
		return r == RoleOwner
	}
	return false
}

// in reports whether the person has a part in env.
func (p Person) in(env id.Environment) bool {
	if p.home == env {
		return true
	}
	for _, m := range p.memberships {
		if m.Environment == env {
			return true
		}
	}
	return false
}

// refused records that something was tried and denied. A denial that cannot be
// recorded is still a denial. What concerns nobody we know is recorded where the
// server itself is run: in the first environment.
func (s *Service) refused(ctx context.Context, e audit.Entry, code string) {
	e.Decision, e.Code = "deny", code
	if e.Environment == "" {
		if envs, err := selectEnvironments(ctx, s.db.Reader()); err == nil && len(envs) > 0 {
			e.Environment = envs[0].ID
		}
	}
	if err := s.audit.Record(ctx, e); err != nil {
		s.log.ErrorContext(ctx, "a denial could not be recorded", "action", e.Action, "code", code, "error", err)
	}
}

func browserRequired() error {
	return fault.New(fault.Denied, "browser_required", "A command line's stored login cannot do this.").
		WithHint("Open the web UI in a browser and do it there.")
}

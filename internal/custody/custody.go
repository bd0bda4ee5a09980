// Package custody decides who rules over keys: who sees which context has which
// key, who replaces keys, who lets a customer's root key count and takes it back,
// and who destroys keys for good. Package vault does it; what it writes takes an
// [account.Weighed], so that nothing here forgets to weigh.
package custody

import (
	"cmp"
	"context"
	"strings"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/vault"
)

// Config is what a Service needs; all of it.
type Config struct {
	DB     *sqldb.DB
	Vault  *vault.Vault
	Audit  *audit.Log
	People *account.Service
}

// Service is safe for concurrent use.
type Service struct{ Config }

// New makes a Service.
func New(cfg Config) *Service { return &Service{cfg} }

// may decides, and gives the organization to which what by sees is confined. An
// organization of another environment looks absent.
func (s *Service) may(ctx context.Context, by account.Actor, org id.Organization, p account.Permission) error {
	if org != "" {
		if _, err := s.People.Organization(ctx, by.Environment(), org); err != nil {
			return err
		}
	}
	return over(by, org, p)
}

// over decides about what org has. Who runs the environment rules over all of it,
// and so over the keys of each organization in it.
func over(by account.Actor, org id.Organization, p account.Permission) error {
	err := by.May(org, p)
	if fault.KindOf(err) == fault.NotFound && by.May("", p) == nil {
		return nil
	}
	return err
}

func entry(by account.Actor) audit.Entry {
	e := audit.Entry{Environment: by.Environment(), Actor: by.Audit(), Decision: "allow", Address: by.Address()}
	e.User = by.User()
	return e
}

// Keys lists the keys of contexts that name org, or of the whole environment
// without one, in the order of their ids.
func (s *Service) Keys(ctx context.Context, by account.Actor, org id.Organization, user id.User, after id.KEK, limit int) (list []vault.KeyInfo, next id.KEK, err error) {
	if err := s.may(ctx, by, org, account.ViewKeys); err != nil {
		return nil, "", err
	}
	if list, err = s.Vault.Keys(ctx, by.Environment(), org, user, after, limit+1); err != nil {
		return nil, "", err
	}
	if len(list) > limit {
		list = list[:limit]
		next = list[limit-1].ID
	}
	return list, next, nil
}

// Key describes one, and says what is still under its older versions.
func (s *Service) Key(ctx context.Context, by account.Actor, org id.Organization, kek id.KEK) (vault.KeyInfo, error) {
	if err := s.may(ctx, by, org, account.ViewKeys); err != nil {
		return vault.KeyInfo{}, err
	}
	return s.Vault.Key(ctx, by.Environment(), org, kek)
}

// Replace gives a key another version; see [vault.Vault.Replace].
func (s *Service) Replace(ctx context.Context, by account.Actor, org id.Organization, kek id.KEK, reencrypt bool) (vault.KeyInfo, error) {
	if err := s.may(ctx, by, org, account.ManageRootKeys); err != nil {
		return vault.KeyInfo{}, err
	}
	k, err := s.Vault.Key(ctx, by.Environment(), org, kek)
	if err != nil {
		return vault.KeyInfo{}, err
	}
	e := entry(by)
	e.Action, e.Object, e.Organization = "key.rotation_asked", string(kek), org
	if err := s.Audit.Record(ctx, e); err != nil {
		return vault.KeyInfo{}, err
	}
	if err := s.Vault.Replace(ctx, k.ID, reencrypt); err != nil {
		return vault.KeyInfo{}, err
	}
	return s.Vault.Key(ctx, by.Environment(), org, kek)
}

// Status says where everything stands, of the whole server: for who runs the
// environment.
func (s *Service) Status(ctx context.Context, by account.Actor) (vault.Status, error) {
	if err := by.May("", account.ViewKeys); err != nil {
		return vault.Status{}, err
	}
	return s.Vault.Status(ctx)
}

// UseRoot makes another of the server's root keys the primary one. Only the server's
// own console may: it concerns every environment.
func (s *Service) UseRoot(ctx context.Context, by account.Actor, ref string) error {
	if !by.IsSystem() {
		return fault.New(fault.Denied, "console_required", "The server's root key is changed on the server itself.").WithHint("Run there: ambit key rotate --root " + ref)
	}
	return s.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error { return s.Vault.UseRoot(ctx, tx, ref, entry(by)) })
}

// Binding is a customer's root key for a scope, and how far it is carried out.
type Binding struct {
	vault.Binding
	Moved vault.Moved
}

// Bindings lists those of org, or of the whole environment.
func (s *Service) Bindings(ctx context.Context, by account.Actor, org id.Organization) ([]Binding, error) {
	if err := s.may(ctx, by, org, account.ViewKeys); err != nil {
		return nil, err
	}
	all, err := s.Vault.Bindings(ctx, by.Environment(), org)
	if err != nil {
		return nil, err
	}
	out := make([]Binding, len(all))
	for i, b := range all {
		if out[i], err = s.measured(ctx, b); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *Service) measured(ctx context.Context, b vault.Binding) (Binding, error) {
	m, err := s.Vault.Progress(ctx, b)
	return Binding{b, m}, err
}

// find reads a binding where by has p over what it is for. Another looks absent.
func (s *Service) find(ctx context.Context, by account.Actor, binding id.Binding, p account.Permission) (vault.Binding, error) {
	b, err := s.Vault.Binding(ctx, by.Environment(), by.Organization(), binding)
	if err == nil {
		err = over(by, b.Organization, p)
	}
	if fault.Is(err, "not_found") {
		err = fault.New(fault.NotFound, "not_found", "No such binding.")
	}
	return b, err
}

// Binding gives one.
func (s *Service) Binding(ctx context.Context, by account.Actor, binding id.Binding) (Binding, error) {
	b, err := s.find(ctx, by, binding, account.ViewKeys)
	if err != nil {
		return Binding{}, err
	}
	return s.measured(ctx, b)
}

// NewBinding is what Bind makes: Organization empty means the whole environment,
// User all of an organization.
type NewBinding struct {
	Organization id.Organization
	User         id.User
	URI          string
	Mode         vault.Mode
}

func (n NewBinding) scope(env id.Environment) vault.Scope {
	return vault.Scope{Environment: env, Organization: n.Organization, User: n.User}
}

const maxURI = 2000

// Over refuses who may not replace, bind and destroy keys of org, or without one of the
// whole environment.
func (s *Service) Over(ctx context.Context, by account.Actor, org id.Organization) error {
	return s.may(ctx, by, org, account.ManageRootKeys)
}

// Check says what is wrong with the URI of a root key. It asks no keeper.
func (s *Service) Check(ctx context.Context, by account.Actor, n NewBinding) error {
	if err := s.may(ctx, by, n.Organization, account.ManageRootKeys); err != nil {
		return err
	}
	if err := n.valid(); err != nil {
		return err
	}
	return s.Vault.CheckRoot(ctx, n.URI)
}

func (n NewBinding) valid() error {
	if len(n.URI) > maxURI || strings.TrimSpace(n.URI) == "" {
		return fault.New(fault.Invalid, "root_key_scheme", "That is not the URI of a root key.")
	}
	return nil
}

// Probe tries a root key for a scope, and changes nothing.
func (s *Service) Probe(ctx context.Context, by account.Actor, n NewBinding) (keyring.Report, error) {
	if err := s.may(ctx, by, n.Organization, account.ManageRootKeys); err != nil {
		return keyring.Report{}, err
	}
	if err := n.valid(); err != nil {
		return keyring.Report{}, err
	}
	scope := n.scope(by.Environment())
	report, err := s.Vault.Try(ctx, scope, n.URI)
	e := entry(by)
	e.Action, e.Object, e.Organization = "root_key.probed", scope.String(), n.Organization
	e.Detail = map[string]string{"result": "passed"}
	if no := cmp.Or(err, report.Err()); no != nil {
		e.Detail["result"] = fault.Of(no).Code
	}
	if rerr := s.Audit.Record(ctx, e); rerr != nil {
		return keyring.Report{}, rerr
	}
	return report, err
}

// Bind lets a customer's root key count, once it has passed the probe. It decides who
// can make everything of the scope unreadable, so a person agrees to exactly that.
func (s *Service) Bind(ctx context.Context, by account.Actor, n NewBinding, ag account.Agreement) (Binding, error) {
	report, err := s.Probe(ctx, by, n)
	if err != nil {
		return Binding{}, err
	}
	if err := report.Err(); err != nil {
		return Binding{}, err
	}
	scope := n.scope(by.Environment())
	r := account.Raise{Action: "root_key.bound", Environment: scope.Environment, Organization: scope.Organization, Object: scope.String(), To: n.URI,
		Facts: map[string]string{"root": report.Key.Ref, "mode": string(n.Mode), "user_id": string(n.User)}}
	var b vault.Binding
	err = s.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		w, err := s.People.Weigh(ctx, tx, by, r, true, ag)
		if err != nil {
			return err
		}
		b, err = s.Vault.Bind(ctx, tx, w, vault.Binding{Environment: scope.Environment, Organization: scope.Organization, User: scope.User, Mode: n.Mode,
			RootRef: report.Key.Ref, URI: n.URI}, agreed(by, w))
		return err
	})
	if err != nil {
		return Binding{}, err
	}
	return s.measured(ctx, b)
}

func agreed(by account.Actor, w account.Weighed) audit.Entry {
	e := entry(by)
	e.Evidence = w.Evidence()
	return e
}

// Unbind takes a customer's root key back out. It ends the customer's say, so a
// person agrees to exactly that.
func (s *Service) Unbind(ctx context.Context, by account.Actor, binding id.Binding, ag account.Agreement) error {
	b, err := s.find(ctx, by, binding, account.ManageRootKeys)
	if err != nil {
		return err
	}
	r := account.Raise{Action: "root_key.unbound", Environment: b.Environment, Organization: b.Organization, Object: b.Scope().String(), Version: b.Version, From: b.URI,
		Facts: map[string]string{"binding": string(b.ID)}}
	return s.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		w, err := s.People.Weigh(ctx, tx, by, r, true, ag)
		if err != nil {
			return err
		}
		return s.Vault.Unbind(ctx, tx, w, b, agreed(by, w))
	})
}

// Migrate has what is not under a binding's root key yet moved now, and says how far
// it is.
func (s *Service) Migrate(ctx context.Context, by account.Actor, binding id.Binding) (Binding, error) {
	b, err := s.find(ctx, by, binding, account.ManageRootKeys)
	if err != nil {
		return Binding{}, err
	}
	s.Vault.Wake()
	return s.measured(ctx, b)
}

// Doubt makes every node forget what a binding's root key unwrapped, until its keeper
// says yes again.
func (s *Service) Doubt(ctx context.Context, by account.Actor, binding id.Binding) error {
	b, err := s.find(ctx, by, binding, account.ManageRootKeys)
	if err != nil {
		return err
	}
	return s.DB.Update(ctx, func(_ context.Context, tx *sqldb.Tx) error {
		s.Vault.Doubt(tx, b, entry(by))
		return nil
	})
}

// Loss counts what Shred would make unreadable.
func (s *Service) Loss(ctx context.Context, by account.Actor, org id.Organization, user id.User, kek id.KEK) (vault.Loss, error) {
	if err := s.may(ctx, by, org, account.ManageRootKeys); err != nil {
		return vault.Loss{}, err
	}
	if kek != "" {
		if _, err := s.Vault.Key(ctx, by.Environment(), org, kek); err != nil {
			return vault.Loss{}, err
		}
	}
	return s.Vault.Loss(ctx, vault.Scope{Environment: by.Environment(), Organization: org, User: user}, kek)
}

// Shred destroys keys for good: that of one context if kek is given, or all of an
// organization, of a user, or of a user in an organization. A person agrees to
// exactly that. It gives how many keys are gone.
func (s *Service) Shred(ctx context.Context, by account.Actor, org id.Organization, user id.User, kek id.KEK, ag account.Agreement) (keys int, err error) {
	if err := s.may(ctx, by, org, account.ManageRootKeys); err != nil {
		return 0, err
	}
	scope, object := vault.Scope{Environment: by.Environment(), Organization: org, User: user}, ""
	if object = scope.String(); kek != "" {
		if _, err := s.Vault.Key(ctx, by.Environment(), org, kek); err != nil {
			return 0, err
		}
		object = string(kek)
	}
	r := account.Raise{Action: "key.shredded", Environment: scope.Environment, Organization: org, Object: object, To: "destroyed", Facts: map[string]string{"user_id": string(user)}}
	err = s.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		w, err := s.People.Weigh(ctx, tx, by, r, true, ag)
		if err != nil {
			return err
		}
		keys, err = s.Vault.Shred(ctx, tx, w, scope, kek, agreed(by, w))
		return err
	})
	if err != nil {
		return 0, err
	}
	// The keys are gone in any case; where somebody is in the way of this, it is done
	// again in the background.
	_ = s.Vault.Scrub(ctx)
	return keys, nil
}

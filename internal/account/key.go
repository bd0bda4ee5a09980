package account

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/vault"
)

// NewKey says which API key to make.
type NewKey struct {
	Environment  id.Environment
	Organization id.Organization // empty: the whole environment
	Name         string
	Scopes       []Scope
	// Secrets narrows the scopes about the vault to some secrets; see [vault.Rule].
	// Empty: all that the key could see.
	Secrets []vault.Rule
	Expires time.Time // zero: never

	replaces bool // what was issued before under this name
}

// APIKey is an API key as stored; its token is shown once, when it is made.
type APIKey struct {
	ID           id.Key
	Environment  id.Environment
	Organization id.Organization
	Name         string
	Scopes       []Scope
	Secrets      []vault.Rule // empty: all that it could see
	CreatedBy    string       // user id, or the name of the system that made it
	CreatedAt    time.Time
	ExpiresAt    time.Time
	LastUsedAt   time.Time // to the minute
	RevokedAt    time.Time
}

// canonical puts scopes into one order, without repetitions.
func (n NewKey) canonical() NewKey {
	var out []Scope
	for _, s := range Scopes() {
		if slices.Contains(n.Scopes, s) {
			out = append(out, s)
		}
	}
	for _, s := range n.Scopes { // unknown ones stay, for check to refuse
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	n.Scopes, n.Expires = out, sqldb.Time(sqldb.Micros(n.Expires))
	if rules, err := vault.CanonicalRules(n.Secrets); err == nil { // else check refuses them
		n.Secrets = rules
	}
	return n
}

func (n NewKey) check(now time.Time) error {
	if err := checkName("A key's name", n.Name); err != nil {
		return err
	}
	if len(n.Scopes) == 0 {
		return fault.New(fault.Invalid, "invalid_scope", "An API key needs at least one scope.")
	}
	for _, s := range n.Scopes {
		if !slices.Contains(Scopes(), s) {
			return fault.New(fault.Invalid, "invalid_scope", "There is no such scope.").WithHint("Scopes are " + strings.Join(Scopes(), ", ") + ".")
		}
	}
	if _, err := vault.CanonicalRules(n.Secrets); err != nil {
		return err
	}
	if len(n.Secrets) > 0 && !slices.ContainsFunc(n.Scopes, func(s Scope) bool { return strings.HasPrefix(s, "vault:") }) {
		return fault.New(fault.Invalid, "invalid_secret_rule", "Rules about secrets are for keys with a scope of the vault.")
	}
	if !n.Expires.IsZero() && !n.Expires.After(now) {
		return fault.New(fault.Invalid, "invalid_expiry", "The key would have expired already.")
	}
	return nil
}

// KeyDigest is what a person proves presence for to make a key.
func (s *Service) KeyDigest(p Person, n NewKey) [32]byte {
	n = n.canonical()
	rules, _ := vault.RulesJSON(n.Secrets) // strings always encode
	return sha256.Sum256(crypt.Fields("ambit api key 2", s.origin, string(p.user), string(p.login), string(n.Environment), string(n.Organization), n.Name,
		strings.Join(n.Scopes, " "), string(rules), strconv.FormatInt(sqldb.Micros(n.Expires), 10)))
}

// CreateKey makes a key for an application. The proof must be over KeyDigest;
// one proof makes one key. The token is returned once.
func (s *Service) CreateKey(ctx context.Context, p Person, n NewKey, proof Proof) (APIKey, secret.Value, error) {
	if err := p.browser(); err != nil {
		return APIKey{}, secret.Value{}, err
	}
	n = n.canonical()
	by := ByPerson(p)
	if err := s.mayMakeKey(ctx, by, n); err != nil {
		return APIKey{}, secret.Value{}, err
	}
	if err := n.check(s.now()); err != nil {
		return APIKey{}, secret.Value{}, err
	}
	digest := s.KeyDigest(p, n)
	org := n.Organization
	if _, ok := p.Role(org); !ok {
		org = "" // one who runs the environment is no member; their own rules hold
	}
	ev, err := s.Prove(ctx, p, digest, org, proof)
	if err != nil {
		return APIKey{}, secret.Value{}, err
	}
	return s.makeKey(ctx, by, n, digest[:], &ev)
}

// mayMakeKey says whether a person may make this key. A key must not be a way
// around what roles forbid: values of secrets and tokens of connections are
// for owners to hand out (threats.md T5).
func (s *Service) mayMakeKey(ctx context.Context, by Actor, n NewKey) error {
	by, err := s.within(ctx, by, n.Environment)
	if err != nil {
		return err
	}
	o := Organization{Environment: n.Environment}
	if n.Organization == "" {
		err = by.May("", CreateKeys)
	} else {
		o, by, err = s.reach(ctx, by, n.Organization, CreateKeys)
	}
	if err != nil {
		return err
	}
	if o.Environment != n.Environment {
		return notFound("organization")
	}
	if (slices.Contains(n.Scopes, ScopeVaultRead) || slices.Contains(n.Scopes, ScopeConnectionsVend)) && !by.ownerOf(o) {
		return fault.New(fault.Denied, "not_allowed", "Only an owner makes keys that read secrets or vend credentials.")
	}
	if n.invitesOwners() && !by.ownerOf(o) {
		return fault.New(fault.Denied, "not_allowed", "Only an owner makes keys that may invite the first owner of an organization.").
			WithHint("Leave out one of organizations:write and users:write, or make the key for one organization.")
	}
	return nil
}

// invitesOwners reports whether a key could make an owner (see InviteFirstOwner).
func (n NewKey) invitesOwners() bool {
	return n.Organization == "" && slices.Contains(n.Scopes, ScopeOrganizationsWrite) && slices.Contains(n.Scopes, ScopeUsersWrite)
}

// IssueKey makes a key for the server's own console and for local development.
// Its caller is the server itself.
func (s *Service) IssueKey(ctx context.Context, n NewKey) (APIKey, secret.Value, error) {
	n = n.canonical()
	if _, err := s.Environment(ctx, n.Environment); err != nil {
		return APIKey{}, secret.Value{}, err
	}
	if n.Organization != "" {
		if _, err := s.Organization(ctx, n.Environment, n.Organization); err != nil {
			return APIKey{}, secret.Value{}, err
		}
	}
	if err := n.check(s.now()); err != nil {
		return APIKey{}, secret.Value{}, err
	}
	return s.makeKey(ctx, console(), n, nil, nil)
}

// ReissueKey is IssueKey for a key of which one lives at a time: those that were
// issued before under its name end as it begins. Keys that people made stay,
// whatever they are called.
func (s *Service) ReissueKey(ctx context.Context, n NewKey) (APIKey, secret.Value, error) {
	n.replaces = true
	return s.IssueKey(ctx, n)
}

func (s *Service) endIssued(ctx context.Context, tx *sqldb.Tx, by Actor, n NewKey) error {
	before, err := selectIssued(ctx, tx, n, by.Audit())
	if err != nil {
		return err
	}
	for _, k := range before {
		if ok, err := revokeKey(ctx, tx, k.ID, s.now()); err != nil || !ok {
			return err
		}
		s.audit.Append(tx, entry(by, k.Environment, k.Organization, "api_key.revoked", string(k.ID)))
	}
	return nil
}

func (s *Service) makeKey(ctx context.Context, by Actor, n NewKey, digest []byte, ev *Evidence) (APIKey, secret.Value, error) {
	token := secret.Token(keyPrefix)
	k := APIKey{ID: id.NewKey(), Environment: n.Environment, Organization: n.Organization, Name: n.Name, Scopes: n.Scopes, Secrets: n.Secrets,
		CreatedBy: by.Audit().ID, CreatedAt: s.now(), ExpiresAt: n.Expires}
	err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if ev != nil {
			if err := s.codeCounts(ctx, tx, n.Organization, *ev); err != nil {
				return err
			}
		}
		if n.replaces {
			if err := s.endIssued(ctx, tx, by, n); err != nil {
				return err
			}
		}
		if err := insertKey(ctx, tx, k, by.Audit().Kind, token.Hash(), digest); err != nil {
			return err
		}
		e := entry(by, k.Environment, k.Organization, "api_key.created", string(k.ID))
		e.Detail = map[string]string{"name": k.Name, "scopes": strings.Join(k.Scopes, " ")}
		if len(k.Secrets) > 0 {
			rules, err := vault.RulesJSON(k.Secrets)
			if err != nil {
				return err
			}
			e.Detail["secret_rules"] = string(rules)
		}
		if ev != nil {
			e.Evidence = ev.JSON()
		}
		s.audit.Append(tx, e)
		return nil
	})
	if sqldb.IsUnique(err) {
		return APIKey{}, secret.Value{}, fault.New(fault.Conflict, "key_exists", "This very key was made already.").WithHint("Give the new key another name.")
	}
	if err != nil {
		return APIKey{}, secret.Value{}, sqldb.Wrap("make an API key", err)
	}
	return k, token, nil
}

// Keys lists the keys of an organization, or of the actor's whole environment
// if org is empty: newest first, revoked ones too.
func (s *Service) Keys(ctx context.Context, by Actor, org id.Organization, l List) ([]APIKey, string, error) {
	env := by.Environment()
	if org == "" {
		if err := by.May("", CreateKeys); err != nil {
			return nil, "", err
		}
	} else {
		o, _, err := s.reach(ctx, by, org, CreateKeys)
		if err != nil {
			return nil, "", err
		}
		env = o.Environment
	}
	rows, err := selectKeys(ctx, s.db.Lists(cmp.Or(string(org), string(env))), env, org, l.After, l.limit()+1)
	if err != nil {
		return nil, "", sqldb.Wrap("list API keys", err)
	}
	rows, next := page(rows, l.limit(), func(k APIKey) string { return string(k.ID) })
	return rows, next, nil
}

// RevokeKey ends a key at once.
func (s *Service) RevokeKey(ctx context.Context, by Actor, key id.Key) error {
	line, _ := by.Counted()
	k, err := selectKey(ctx, s.db.UrgentReader(line), key)
	if sqldb.NoRows(err) {
		return notFound("API key")
	}
	if err != nil {
		return sqldb.Wrap("read an API key", err)
	}
	at := by.In(k.Environment)
	if at.Environment() != k.Environment {
		return notFound("API key")
	}
	err = at.May(k.Organization, CreateKeys)
	if err != nil && at.May("", CreateKeys) == nil {
		err = nil
	}
	if _, member := at.role(k.Organization); err != nil && at.kind == "user" && !member {
		return notFound("API key")
	}
	if err != nil {
		return err
	}
	return sqldb.Wrap("revoke an API key", s.db.Urgent(ctx, cmp.Or(string(k.Organization), string(k.Environment)), func(ctx context.Context, tx *sqldb.Tx) error {
		ok, err := revokeKey(ctx, tx, key, s.now())
		if err != nil || !ok {
			return err
		}
		s.audit.Append(tx, entry(at, k.Environment, k.Organization, "api_key.revoked", string(key)))
		return nil
	}))
}

// AuthenticateKey gives the application behind a bearer token.
func (s *Service) AuthenticateKey(ctx context.Context, bearer secret.Value) (Key, error) {
	return s.authenticateKey(ctx, s.common(), bearer)
}

func (s *Service) authenticateKey(ctx context.Context, way way, bearer secret.Value) (Key, error) {
	refused := fault.New(fault.Unauthenticated, "invalid_api_key", "The API key is unknown, revoked or expired.").WithHint("Make a new key in the web UI.")
	if !secret.IsToken(bearer, keyPrefix) {
		return Key{}, refused
	}
	now, hash := s.now(), bearer.Hash()
	k, stored, err := selectKeyByHash(ctx, way.read, hash)
	if sqldb.NoRows(err) || err == nil && subtle.ConstantTimeCompare(stored, hash[:]) != 1 {
		return Key{}, refused
	}
	if err != nil {
		return Key{}, sqldb.Wrap("authenticate an API key", err)
	}
	if !k.RevokedAt.IsZero() || !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt) {
		return Key{}, refused
	}
	if now.Sub(k.LastUsedAt) >= time.Minute {
		err := way.write(ctx, func(ctx context.Context, tx *sqldb.Tx) error { return touchKey(ctx, tx, k.ID, now) })
		if err != nil {
			s.log.WarnContext(ctx, "the last use of an API key could not be noted", "key", k.ID, "error", err)
		}
	}
	return Key{id: k.ID, name: k.Name, environment: k.Environment, organization: k.Organization, scopes: k.Scopes, secrets: k.Secrets}, nil
}

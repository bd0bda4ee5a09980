package agent

import (
	"cmp"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/issuer"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// NewAgent is what an admin registers.
type NewAgent struct {
	Environment  id.Environment
	Organization id.Organization
	Name         string
	Kind         Kind
	Owner        id.User // a member of the organization; empty: the admin who registers
	Ceiling      policy.Ceiling
	// Keys is a JWK Set of public keys, or the address of one. An agent with keys
	// signs assertions with them (private_key_jwt) and gets no secret.
	Keys string
	// Workload names the platform whose tokens prove the agent instead; Keys are then
	// the platform's, and may be empty where its issuer publishes them.
	Workload Workload
	// Evidence is the admin's proof over RegisterDigest. A person must bring
	// it, because a cookie alone never makes a key (product.md rule 4); an API
	// key needs none. Nonce tells two honest wishes for the same agent apart,
	// since one proof registers one.
	Nonce    string
	Evidence account.Evidence
}

// RegisterDigest is what an admin's proof of presence signs to register n.
func (s *Service) RegisterDigest(p account.Person, n NewAgent) [32]byte {
	return sha256.Sum256(crypt.Fields("ambit agent 4", s.issuer, string(p.User()), string(p.Login()), n.Nonce, string(n.Environment), string(n.Organization), n.Name,
		string(n.Kind), string(n.Owner), ceilingText(n.Ceiling), n.Keys, n.Workload.text()))
}

// RotateDigest is what an admin's proof of presence signs to make a new secret
// for this version of an agent, beside which the old one counts for overlap.
func (s *Service) RotateDigest(p account.Person, a Agent, overlap time.Duration) [32]byte {
	return sha256.Sum256(crypt.Fields("ambit agent secret 3", s.issuer, string(p.User()), string(p.Login()), string(a.ID), fmt.Sprint(a.Version), overlap.String()))
}

// Register makes an agent with client credentials. The secret is shown once and
// is nowhere to be read again; an agent with keys of its own has none.
func (s *Service) Register(ctx context.Context, by account.Actor, n NewAgent) (Agent, id.Client, secret.Value, error) {
	none := func(err error) (Agent, id.Client, secret.Value, error) { return Agent{}, "", secret.Value{}, err }
	if err := mayManage(by, n.Environment, n.Organization); err != nil {
		return none(err)
	}
	// A key or a person of a whole environment names organizations freely.
	if _, err := s.people.Organization(ctx, n.Environment, n.Organization); err != nil {
		return none(err)
	}
	var proof json.RawMessage
	if p, ok := by.Person(); ok {
		var err error
		if proof, err = s.proven(ctx, p, n.Environment, n.Organization, n.Evidence, s.RegisterDigest(p, n)); err != nil {
			return none(err)
		}
		if n.Owner == "" {
			n.Owner = p.User()
		}
	}
	if err := checkName(n.Name); err != nil {
		return none(err)
	}
	if n.Kind != Delegated && n.Kind != Autonomous {
		return none(fault.New(fault.Invalid, "invalid_kind", "An agent is delegated or autonomous."))
	}
	if n.Owner == "" {
		return none(fault.New(fault.Invalid, "owner_missing", "An agent has an owner.").WithHint("Name a member of the organization as owner."))
	}
	if err := checkCeiling(n.Ceiling); err != nil {
		return none(err)
	}
	now := s.now()
	client := Client{ID: id.NewClient(), Environment: n.Environment, Organization: n.Organization, Name: n.Name, RedirectURIs: []string{},
		Grants: []string{GrantClientCredentials}, AuthMethod: AuthBasic, ApplicationType: "service", CreatedAt: now, Version: 1}
	var sec secret.Value
	if n.Keys != "" || !n.Workload.IsZero() {
		var err error
		if client, err = s.signing(ctx, client, n.Keys, n.Workload); err != nil {
			return none(err)
		}
	} else {
		sec = secret.Token(secretPrefix)
		hash := sec.Hash()
		client.secretHash = hash[:]
	}
	a := Agent{ID: id.NewAgent(), Environment: n.Environment, Organization: n.Organization, Name: n.Name, Verified: true, Kind: n.Kind,
		Owner: n.Owner, Client: client.ID, Ceiling: n.Ceiling, CreatedAt: now, Version: 1}
	if err := s.checkOwner(ctx, a); err != nil {
		if fault.Is(err, "invalid_grant") {
			err = fault.New(fault.Invalid, "owner_not_member", "The owner is not an active member of the organization.")
		}
		return none(err)
	}
	err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := s.spend(ctx, tx, by, n.Evidence); err != nil {
			return err
		}
		if err := insertClient(ctx, tx, client, by.Address()); err != nil {
			return err
		}
		if err := insertAgent(ctx, tx, a); err != nil {
			return err
		}
		s.record(tx, by, a, "agent.registered", proof, map[string]string{"name": a.Name, "kind": string(a.Kind), "owner": string(a.Owner),
			"ceiling": describe(a.Ceiling), "signs_with": client.keyNames()})
		return nil
	})
	if err != nil {
		return none(sqldb.Wrap("register an agent", err))
	}
	return a, client.ID, sec, nil
}

// MaxOverlap is the longest that a replaced secret counts beside the new one.
const MaxOverlap = 7 * 24 * time.Hour

// RotateSecret replaces an agent's client secret. Without an overlap the old one
// and the tokens that it got stop at once; with one, it counts beside the new
// secret for that time, so that what uses it can change over. Evidence is as in
// NewAgent, over RotateDigest.
func (s *Service) RotateSecret(ctx context.Context, by account.Actor, agent id.Agent, overlap time.Duration, evidence account.Evidence) (secret.Value, error) {
	a, err := s.managed(ctx, by, agent)
	if err != nil {
		return secret.Value{}, err
	}
	if overlap < 0 || overlap > MaxOverlap {
		return secret.Value{}, fault.New(fault.Invalid, "invalid_overlap", "A replaced secret counts for seven days at most.")
	}
	c, err := s.Client(ctx, a.Client)
	if err != nil {
		return secret.Value{}, err
	}
	if len(c.secretHash) == 0 || !slices.Contains(c.Grants, GrantClientCredentials) {
		return secret.Value{}, fault.New(fault.Invalid, "no_secret", "This agent has no secret of ours: it signs in through its OAuth client, or with keys of its own.")
	}
	var proof json.RawMessage
	if p, ok := by.Person(); ok {
		if proof, err = s.proven(ctx, p, a.Environment, a.Organization, evidence, s.RotateDigest(p, a, overlap)); err != nil {
			return secret.Value{}, err
		}
	}
	sec := secret.Token(secretPrefix)
	hash := sec.Hash()
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := s.spend(ctx, tx, by, evidence); err != nil {
			return err
		}
		// The client's row first: an issuance that still holds it commits
		// before the tokens are ended, any other sees the new secret.
		if err := updateClientSecret(ctx, tx, a.Client, hash[:], overlap, s.now()); err != nil {
			return err
		}
		if err := bumpAgent(ctx, tx, a.ID, a.Version); err != nil {
			return err
		}
		if overlap == 0 {
			if _, err := revokeFamiliesOfAgent(ctx, tx, a.ID, s.now()); err != nil {
				return err
			}
		}
		s.record(tx, by, a, "agent.secret_rotated", proof, map[string]string{"overlap": overlap.String()})
		return nil
	})
	return sec, sqldb.Wrap("rotate an agent's secret", err)
}

// signing is c as a client that keys of its own prove, or the tokens of a platform.
func (s *Service) signing(ctx context.Context, c Client, keys string, w Workload) (Client, error) {
	if !w.IsZero() {
		return s.trusting(ctx, c, w, keys)
	}
	return withKeys(ctx, s.keys, c, keys)
}

// withKeys is c with keys that prove it: a JWK Set, or the address of one.
func withKeys(ctx context.Context, from *issuer.Reader, c Client, keys string) (Client, error) {
	c.AuthMethod, c.keys, c.keysURL, c.workload = AuthKeys, "", "", ""
	if isDocument(keys) && !strings.HasPrefix(keys, "{") {
		c.keysURL = keys
		if _, err := from.Keys(ctx, keys, true); err != nil {
			return Client{}, fault.New(fault.Invalid, "invalid_keys", "There are no keys to be had at that address.").
				WithHint("It answers an https request with a JWK Set.").WithCause(err)
		}
		return c, nil
	}
	var err error
	c.keys, err = issuer.CanonicalKeys(keys)
	return c, err
}

// keyNames is what a person reads, and the audit keeps, of a client's keys.
func (c Client) keyNames() string {
	if w, err := readWorkload(c.workload); err == nil && !w.IsZero() {
		c.workload = ""
		if c.keys == "" && c.keysURL == "" {
			return w.String()
		}
		return w.String() + ", signed by " + c.keyNames()
	}
	if c.keysURL != "" {
		return "the keys at " + c.keysURL
	}
	set, err := issuer.ReadKeys([]byte(c.keys))
	if err != nil {
		return "a secret"
	}
	var out []string
	for _, k := range set.Keys {
		if sum, err := k.Thumbprint(crypto.SHA256); err == nil {
			out = append(out, base64.RawURLEncoding.EncodeToString(sum))
		}
	}
	return "keys " + strings.Join(out, ", ")
}

// SignsWith says what an agent proves itself with: a secret, or which keys.
func (s *Service) SignsWith(ctx context.Context, a Agent) (string, error) {
	c, err := s.Client(ctx, a.Client)
	return c.keyNames(), err
}

// SetKeys replaces the keys that an agent signs with, by a JWK Set or the address
// of one, or lets a platform's tokens prove it (see NewAgent); an agent with a secret changes over and loses it. The tokens that the old
// credentials got end. For an overlap the set holds the old key and the new one. A
// person agrees to exactly these keys.
func (s *Service) SetKeys(ctx context.Context, by account.Actor, agent id.Agent, version int64, keys string, w Workload, ag account.Agreement) (Agent, error) {
	a, err := s.managed(ctx, by, agent)
	if err != nil {
		return Agent{}, err
	}
	c, err := s.Client(ctx, a.Client)
	if err != nil {
		return Agent{}, err
	}
	if !slices.Contains(c.Grants, GrantClientCredentials) {
		return Agent{}, fault.New(fault.Invalid, "no_secret", "This agent signs in through its OAuth client.")
	}
	if a.Version != version {
		return Agent{}, errStale
	}
	after, err := s.signing(ctx, c, keys, w)
	if err != nil {
		return Agent{}, err
	}
	r := account.Raise{Action: "agent.keys_changed", Environment: a.Environment, Organization: a.Organization, Object: string(a.ID), Version: a.Version,
		From: c.keyNames(), To: after.keyNames()}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		weighed, err := s.people.Weigh(ctx, tx, by, r, r.From != r.To, ag)
		if err != nil {
			return err
		}
		if err := updateClientKeys(ctx, tx, weighed, a, after); err != nil {
			return err
		}
		if err := bumpAgent(ctx, tx, a.ID, version); err != nil {
			return err
		}
		if _, err := revokeFamiliesOfAgent(ctx, tx, a.ID, s.now()); err != nil {
			return err
		}
		s.record(tx, by, a, r.Action, weighed.Evidence(), map[string]string{"before": r.From, "after": r.To})
		return nil
	})
	if err != nil {
		return Agent{}, sqldb.Wrap("change an agent's keys", err)
	}
	return s.read(ctx, s.db.Reader(), a.ID)
}

// Filter selects agents for List.
type Filter struct {
	Environment  id.Environment
	Organization id.Organization
	Owner        id.User
	Before       id.Agent // page: agents older than this one
	Limit        int      // 1 to 200; default 50
}

// List gives agents, newest first: those of an organization to its members,
// those of a whole environment to who runs it, and to any other person their
// own.
func (s *Service) List(ctx context.Context, by account.Actor, f Filter) ([]Agent, error) {
	if f.Limit <= 0 || f.Limit > 200 {
		f.Limit = 50
	}
	if f.Organization == "" {
		f.Organization = by.Organization()
	}
	own, err := mayView(by, f.Environment, f.Organization)
	if err != nil {
		return nil, err
	}
	if own != "" {
		if f.Owner != "" && f.Owner != own {
			return nil, nil
		}
		f.Owner = own
	}
	list, err := listAgents(ctx, s.db.Lists(cmp.Or(string(f.Organization), string(f.Environment))), f.Environment, f.Organization, f.Owner, f.Before, f.Limit)
	return list, sqldb.Wrap("list agents", err)
}

// Get reads one agent. One that is not the caller's to see is not found.
func (s *Service) Get(ctx context.Context, by account.Actor, agent id.Agent) (Agent, error) {
	return s.get(ctx, s.db.Reader(), by, agent)
}

func (s *Service) get(ctx context.Context, q sqldb.Querier, by account.Actor, agent id.Agent) (Agent, error) {
	a, err := s.read(ctx, q, agent)
	if err != nil {
		return Agent{}, err
	}
	own, err := mayView(by, a.Environment, a.Organization)
	if err != nil || own != "" && own != a.Owner {
		return Agent{}, notFound().WithCause(err)
	}
	return a, nil
}

// Lookup reads one agent for other rooms, which decide themselves who may know.
func (s *Service) Lookup(ctx context.Context, env id.Environment, agent id.Agent) (Agent, error) {
	a, err := s.read(ctx, s.db.Reader(), agent)
	if err == nil && a.Environment != env {
		return Agent{}, notFound()
	}
	return a, err
}

// LookupUrgently is Lookup where by acts, for what ends an agent's access.
func (s *Service) LookupUrgently(ctx context.Context, by account.Actor, agent id.Agent) (Agent, error) {
	line, _ := by.Counted()
	a, err := s.read(ctx, s.db.UrgentReader(line), agent)
	if err == nil && a.Environment != by.Environment() {
		return Agent{}, notFound()
	}
	return a, err
}

func (s *Service) read(ctx context.Context, q sqldb.Querier, agent id.Agent) (Agent, error) {
	a, err := selectAgent(ctx, q, agent, "")
	if sqldb.NoRows(err) {
		return Agent{}, notFound()
	}
	return a, sqldb.Wrap("read an agent", err)
}

// managed reads an agent that by may change.
func (s *Service) managed(ctx context.Context, by account.Actor, agent id.Agent) (Agent, error) {
	a, err := s.Get(ctx, by, agent)
	if err != nil {
		return Agent{}, err
	}
	return a, mayManage(by, a.Environment, a.Organization)
}

// SetCeiling replaces the most that an agent may be granted, from the version
// that the admin saw. It counts from the agent's next call on. A person who
// lets it be granted anything more agrees to exactly that.
func (s *Service) SetCeiling(ctx context.Context, by account.Actor, agent id.Agent, version int64, c policy.Ceiling, ag account.Agreement) (Agent, error) {
	a, err := s.managed(ctx, by, agent)
	if err != nil {
		return Agent{}, err
	}
	if err := checkCeiling(c); err != nil {
		return Agent{}, err
	}
	if a.Version != version {
		return Agent{}, errStale
	}
	r := account.Raise{Action: "agent.ceiling_changed", Environment: a.Environment, Organization: a.Organization, Object: string(a.ID), Version: a.Version,
		From: ceilingText(a.Ceiling), To: ceilingText(c)}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		w, err := s.people.Weigh(ctx, tx, by, r, !c.Within(a.Ceiling), ag)
		if err != nil {
			return err
		}
		if err := updateCeiling(ctx, tx, w, a.ID, version, r.To); err != nil {
			return err
		}
		s.record(tx, by, a, r.Action, w.Evidence(), map[string]string{"before": describe(a.Ceiling), "after": describe(c)})
		return nil
	})
	if err != nil {
		return Agent{}, sqldb.Wrap("change an agent's ceiling", err)
	}
	return s.read(ctx, s.db.Reader(), a.ID)
}

// Disable ends an agent's tokens and what it has running, at once and in one
// transaction. Its owner may do it too. Doing it again changes nothing more.
func (s *Service) Disable(ctx context.Context, by account.Actor, agent id.Agent) (Agent, error) {
	line, _ := by.Counted()
	a, err := s.get(ctx, s.db.UrgentReader(line), by, agent)
	if err != nil {
		return Agent{}, err
	}
	if !owns(by, a) {
		if err := mayManage(by, a.Environment, a.Organization); err != nil {
			return Agent{}, err
		}
	}
	now := s.now()
	var after Agent
	err = s.db.Urgent(ctx, line, func(ctx context.Context, tx *sqldb.Tx) error {
		w, err := s.people.Weigh(ctx, tx, by, account.Raise{Object: string(a.ID)}, false, account.Agreement{})
		if err != nil {
			return err
		}
		if after, err = setDisabled(ctx, tx, w, a.ID, now); err != nil {
			return err
		}
		if _, err := revokeFamiliesOfAgent(ctx, tx, a.ID, now); err != nil {
			return err
		}
		if err := endDevices(ctx, tx, a.ID, now); err != nil {
			return err
		}
		s.record(tx, by, a, "agent.disabled", nil, nil)
		return s.onEnded(ctx, tx, a.Environment, a.ID)
	})
	return after, sqldb.Wrap("disable an agent", err)
}

// Enable lets a disabled agent get tokens again; the old ones stay dead. A
// person who does it agrees to it.
func (s *Service) Enable(ctx context.Context, by account.Actor, agent id.Agent, ag account.Agreement) (Agent, error) {
	a, err := s.managed(ctx, by, agent)
	if err != nil {
		return Agent{}, err
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		var err error
		if a, err = selectAgent(ctx, tx, agent, ""); err != nil {
			return err
		}
		enabled := a.DisabledAt.IsZero()
		r := account.Raise{Action: "agent.enabled", Environment: a.Environment, Organization: a.Organization, Object: string(a.ID), Version: a.Version, From: "disabled", To: "enabled"}
		w, err := s.people.Weigh(ctx, tx, by, r, !enabled, ag)
		if err != nil || enabled {
			return err
		}
		if a, err = setDisabled(ctx, tx, w, a.ID, time.Time{}); err != nil {
			return err
		}
		s.record(tx, by, a, r.Action, w.Evidence(), nil)
		return nil
	})
	if err != nil {
		return Agent{}, sqldb.Wrap("enable an agent", err)
	}
	return a, nil
}

// Channel carries, as sqldb notices, the organization of an agent that was changed.
const Channel = "agent"

// record appends what by did to a.
func (s *Service) record(tx *sqldb.Tx, by account.Actor, a Agent, action string, proof json.RawMessage, detail map[string]string) {
	e := entry(a, action, string(a.ID))
	e.Actor, e.Address, e.Evidence, e.Detail = by.Audit(), by.Address(), proof, detail
	s.audit.Append(tx, e)
	tx.Notify(Channel, string(a.Organization))
}

// ceilingText is a ceiling as it is stored.
func ceilingText(c policy.Ceiling) string {
	doc, _ := json.Marshal(c) // strings only: cannot fail
	return string(doc)
}

// describe writes a ceiling for the audit.
func describe(c policy.Ceiling) string {
	all := func(list []string) string {
		if len(list) == 0 {
			return "any"
		}
		return strings.Join(list, ",")
	}
	effects := make([]string, len(c.Effects))
	for i, e := range c.Effects {
		effects[i] = string(e)
	}
	return "providers " + all(c.Providers) + "; effects " + all(effects)
}

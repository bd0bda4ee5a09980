package session

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// Rules are what an organization has decided about sessions and approvals. A
// version of 0 means that it has decided nothing.
type Rules struct {
	Settings        policy.Settings
	SettingsVersion int64
	Policy          string // Cedar
	PolicyVersion   int64

	compiled *policy.Rules
}

// The kinds of document that are kept of an organization, every version of each.
const (
	ruleSettings = "settings"
	rulePolicy   = "policy"
)

// Rules gives an organization's rules to those who may see its sessions.
func (s *Service) Rules(ctx context.Context, by account.Actor, org id.Organization) (Rules, error) {
	if _, err := s.ruled(ctx, by, org, account.ViewSessions); err != nil {
		return Rules{}, err
	}
	return rulesOf(ctx, s.db.Reader(), org)
}

// ruled gives the organization whose rules the actor may see or change.
func (s *Service) ruled(ctx context.Context, by account.Actor, org id.Organization, p account.Permission) (account.Organization, error) {
	o, err := s.people.Organization(ctx, by.Environment(), org)
	if err != nil {
		return o, err
	}
	err = by.May(org, p)
	if fault.Is(err, "not_found") && by.User() != "" && by.May("", p) == nil {
		err = nil // one who runs the environment
	}
	return o, err
}

// SetSettings replaces the settings that are at version; 0 is where there are
// none. What loosens them takes a person's agreement (rule 4).
func (s *Service) SetSettings(ctx context.Context, by account.Actor, org id.Organization, version int64, set policy.Settings, ag account.Agreement) (Rules, error) {
	if err := set.Check(); err != nil {
		return Rules{}, err
	}
	o, err := s.ruled(ctx, by, org, account.ManageSettings)
	if err != nil {
		return Rules{}, err
	}
	doc, err := strictjson.CanonicalOf(set)
	if err != nil {
		return Rules{}, err
	}
	change := func(was Rules) (account.Raise, bool, error) {
		from, err := strictjson.CanonicalOf(was.Settings)
		r := account.Raise{Action: "settings.changed", Environment: o.Environment, Organization: org, Object: string(org), Version: version, From: string(from), To: string(doc)}
		return r, set.Loosens(was.Settings), err
	}
	return s.setRule(ctx, by, o, ruleSettings, version, doc, change, ag)
}

// SetPolicy replaces the policies that are at version; 0 is where there are none.
// Nobody can tell in general whether new policies allow more than the old ones,
// so that each change takes a person's agreement.
func (s *Service) SetPolicy(ctx context.Context, by account.Actor, org id.Organization, version int64, text string, ag account.Agreement) (Rules, error) {
	if _, err := policy.ParseRules(version+1, text); err != nil {
		return Rules{}, err
	}
	o, err := s.ruled(ctx, by, org, account.ManageSettings)
	if err != nil {
		return Rules{}, err
	}
	change := func(was Rules) (account.Raise, bool, error) {
		r := account.Raise{Action: "policy.changed", Environment: o.Environment, Organization: org, Object: string(org), Version: version,
			From: textDigest(was.Policy), To: textDigest(text)}
		return r, was.Policy != text, nil
	}
	return s.setRule(ctx, by, o, rulePolicy, version, []byte(text), change, ag)
}

func textDigest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (s *Service) setRule(ctx context.Context, by account.Actor, o account.Organization, kind string, version int64, doc []byte,
	change func(was Rules) (account.Raise, bool, error), ag account.Agreement) (Rules, error) {
	var now Rules
	err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := tx.Serialize(ctx, "rules "+string(o.ID)); err != nil {
			return sqldb.Wrap("wait for other changes", err)
		}
		was, err := rulesOf(ctx, tx, o.ID)
		if err != nil {
			return err
		}
		if at := map[string]int64{ruleSettings: was.SettingsVersion, rulePolicy: was.PolicyVersion}[kind]; at != version {
			return fault.New(fault.Conflict, "version_conflict", fmt.Sprintf("This was changed meanwhile: it is at version %d.", at)).WithHint("Read it again, and change that.")
		}
		r, raises, err := change(was)
		if err != nil {
			return err
		}
		w, err := s.people.Weigh(ctx, tx, by, r, raises, ag)
		if err != nil {
			return err
		}
		if err := w.For(string(o.ID)); err != nil {
			return err
		}
		if err := insertRule(ctx, tx, o.ID, kind, version+1, doc, s.now(), by.User()); err != nil {
			return sqldb.Wrap("store the rules of an organization", err)
		}
		e := audit.Entry{Environment: o.Environment, Organization: o.ID, Actor: by.Audit(), Action: r.Action, Object: string(o.ID), Evidence: w.Evidence(), Address: by.Address(),
			Detail: map[string]string{"version": fmt.Sprint(version + 1), "from": r.From, "to": r.To}}
		s.audit.AppendEvent(tx, e)
		changed(tx, o.ID)
		now, err = rulesOf(ctx, tx, o.ID)
		return err
	})
	return now, err
}

// Replayed is what policies would have said of the calls of the past.
type Replayed struct {
	Since   time.Time
	Calls   int  // that were looked at
	More    bool // there were more than are looked at
	Allowed int
	Denied  int
	Unknown int // it depends on arguments, which are not on record
	// Changed lists calls that would have ended otherwise than they did: allowed
	// and now denied, or refused by the policies of then and now not. At most 100.
	Changed []ReplayedCall
}

// ReplayedCall is one call of the past.
type ReplayedCall struct {
	Event    id.Event
	At       time.Time
	Agent    id.Agent
	Provider string
	Tool     string
	Effect   policy.Effect
	Was, Now policy.Recall
	Policy   string // what decides now
}

const (
	replayPages   = 50 // of 200 calls
	replayChanged = 100
)

// TryPolicy says what policies would have decided on the calls since a moment,
// newest first, and changes nothing. Calls that something else refused are left
// out: policies only narrow.
func (s *Service) TryPolicy(ctx context.Context, by account.Actor, org id.Organization, text string, since time.Time) (Replayed, error) {
	rules, err := policy.ParseRules(0, text)
	if err != nil {
		return Replayed{}, err
	}
	o, err := s.ruled(ctx, by, org, account.ReadAudit)
	if err != nil {
		return Replayed{}, err
	}
	out := Replayed{Since: since, Changed: []ReplayedCall{}}
	f := audit.Filter{Environment: o.Environment, Organization: org, Action: "tool.call", Since: since, Limit: 200}
	seen := recalledBefore{map[id.Connection]policy.Facts{}, map[id.Session]labelled{}}
	for range replayPages {
		page, err := s.audit.List(ctx, f)
		if err != nil {
			return Replayed{}, err
		}
		for _, r := range page.Records {
			if r.Decision == string(policy.Deny) && r.Code != "policy_denied" || r.Connection == "" {
				continue
			}
			facts, err := s.recalled(ctx, o.Environment, seen, r)
			if err != nil {
				return Replayed{}, err
			}
			out.add(r, rules, facts)
		}
		if f.After = page.Next; f.After == "" {
			return out, nil
		}
	}
	out.More = true
	return out, nil
}

func (out *Replayed) add(r audit.Record, rules *policy.Rules, f policy.Facts) {
	was := policy.RecallAllow
	if r.Decision == string(policy.Deny) {
		was = policy.RecallDeny
	}
	now, why := rules.Recall(f)
	out.Calls++
	switch now {
	case policy.RecallAllow:
		out.Allowed++
	case policy.RecallDeny:
		out.Denied++
	default:
		out.Unknown++
	}
	if now != was && now != policy.RecallUnknown && len(out.Changed) < replayChanged {
		out.Changed = append(out.Changed, ReplayedCall{Event: r.ID, At: r.Time, Agent: r.Agent, Provider: r.Provider, Tool: r.Tool, Effect: policy.Effect(r.Effect), Was: was, Now: now, Policy: why})
	}
}

// recalledBefore keeps what many calls of the past have in common.
type recalledBefore struct {
	accounts map[id.Connection]policy.Facts
	labels   map[id.Session]labelled
}

type labelled struct {
	name     string
	verified bool
}

// recalled is what policies are told of a call of the past, with its agent and
// account as they are known today.
func (s *Service) recalled(ctx context.Context, env id.Environment, seen recalledBefore, r audit.Record) (policy.Facts, error) {
	f, ok := seen.accounts[r.Connection]
	if !ok {
		now, err := s.connections.Among(ctx, s.db.Reader(), env, []id.Connection{r.Connection})
		if err != nil {
			return f, err
		}
		for _, c := range now {
			f.Account, f.Shared = c.AccountLabel, c.Owner == ""
		}
		seen.accounts[r.Connection] = f
	}
	f.Agent, f.User, f.Connection, f.Provider = string(r.Agent), string(r.User), string(r.Connection), r.Provider
	f.Tool, f.Effect, f.Time = r.Tool, policy.Effect(r.Effect), r.Time
	l, ok := seen.labels[r.Session]
	if !ok {
		var err error
		if l.name, l.verified, err = labelOf(ctx, s.db.Reader(), r.Session); err != nil {
			return f, err
		}
		seen.labels[r.Session] = l
	}
	f.AgentLabel, f.Verified = l.name, l.verified
	return f, nil
}

// factsOf are what policies are told of a call.
func (s *Service) factsOf(l Live, t Target, req *provider.Request) policy.Facts {
	return policy.Facts{Agent: string(l.agent), AgentLabel: l.label, Verified: l.verified, User: string(l.user), Connection: string(t.grant.connection),
		Provider: t.grant.policy.Provider, Account: t.grant.account, Shared: t.grant.owner == "", Tool: t.Tool.Name, Effect: effectOf(t, req), Generic: t.Tool.Generic,
		Arguments: req.Args, Hidden: req.Partial, Time: s.now()}
}

// ruleCache keeps compiled rules by organization and versions. Which version
// counts is read from the database for each call.
type ruleCache struct {
	mu    sync.Mutex
	rules map[ruleKey]Rules
}

type ruleKey struct {
	org              id.Organization
	settings, policy int64
}

func newRuleCache() *ruleCache { return &ruleCache{rules: map[ruleKey]Rules{}} }

func (s *Service) rulesAt(ctx context.Context, key ruleKey) (Rules, error) {
	if key.settings == 0 && key.policy == 0 {
		return Rules{Settings: policy.Defaults()}, nil
	}
	s.rules.mu.Lock()
	r, ok := s.rules.rules[key]
	s.rules.mu.Unlock()
	if ok {
		return r, nil
	}
	r, err := readRules(ctx, s.db.Reader(), key)
	if err != nil {
		return Rules{}, err
	}
	if r.compiled, err = policy.ParseRules(key.policy, r.Policy); err != nil {
		return Rules{}, fault.New(fault.Denied, "policy_denied", "The organization's policies cannot be read, so nothing is permitted.").
			WithHint("An owner or admin of the organization must mend them.").WithCause(err)
	}
	s.rules.mu.Lock()
	defer s.rules.mu.Unlock()
	if len(s.rules.rules) >= maxCached {
		clear(s.rules.rules)
	}
	s.rules.rules[key] = r
	return r, nil
}

// asking gives the rules that an agent's request is held to, and refuses it in
// quiet hours.
func (s *Service) asking(ctx context.Context, who agent.Identity) (Rules, error) {
	r, err := rulesOf(ctx, s.db.Reader(), who.Organization())
	if err != nil {
		return r, err
	}
	return r, s.quiet(r.Settings)
}

func (s *Service) quiet(set policy.Settings) error {
	now := s.now()
	until, quiet := set.QuietUntil(now)
	if !quiet {
		return nil
	}
	return fault.New(fault.Limited, "quiet_hours", "Nobody is asked for anything at this hour.").
		WithHint("Ask again after the time in retry_after. Sessions that run, and calls that need no approval, go on.").WithRetry(until.Sub(now))
}

const (
	ruleVersionsSQL = `select coalesce((select max(version) from organization_rule where organization_id = $1 and kind = 'settings'), 0),
	coalesce((select max(version) from organization_rule where organization_id = $1 and kind = 'policy'), 0)`
	ruleSQL       = `select document from organization_rule where organization_id = $1 and kind = $2 and version = $3`
	insertRuleSQL = `insert into organization_rule (organization_id, kind, version, document, made_at, made_by) values ($1, $2, $3, $4, $5, $6)`
	labelSQL      = `select agent_label, agent_verified from session where id = $1`
)

// rulesOf reads the rules of an organization as they are now.
func rulesOf(ctx context.Context, q sqldb.Querier, org id.Organization) (Rules, error) {
	key := ruleKey{org: org}
	if err := q.QueryRowContext(ctx, ruleVersionsSQL, org).Scan(&key.settings, &key.policy); err != nil {
		return Rules{}, sqldb.Wrap("read the rules of an organization", err)
	}
	return readRules(ctx, q, key)
}

func readRules(ctx context.Context, q sqldb.Querier, key ruleKey) (Rules, error) {
	r := Rules{Settings: policy.Defaults(), SettingsVersion: key.settings, PolicyVersion: key.policy}
	read := func(kind string, version int64) (doc []byte, err error) {
		if version > 0 {
			err = q.QueryRowContext(ctx, ruleSQL, key.org, kind, version).Scan(&doc)
		}
		return doc, sqldb.Wrap("read the rules of an organization", err)
	}
	doc, err := read(ruleSettings, key.settings)
	if err == nil && len(doc) > 0 {
		dec := json.NewDecoder(bytes.NewReader(doc))
		if r.Settings = (policy.Settings{}); dec.Decode(&r.Settings) != nil || r.Settings.Check() != nil {
			err = fmt.Errorf("the settings of %s in version %d cannot be read", key.org, key.settings)
		}
	}
	if err != nil {
		return Rules{}, err
	}
	if doc, err = read(rulePolicy, key.policy); err != nil {
		return Rules{}, err
	}
	r.Policy = string(doc)
	return r, nil
}

func insertRule(ctx context.Context, q sqldb.Querier, org id.Organization, kind string, version int64, doc []byte, at time.Time, by id.User) error {
	_, err := q.ExecContext(ctx, insertRuleSQL, org, kind, version, doc, sqldb.Micros(at), by)
	return err
}

func labelOf(ctx context.Context, q sqldb.Querier, s id.Session) (label string, verified bool, err error) {
	err = q.QueryRowContext(ctx, labelSQL, s).Scan(&label, &verified)
	if sqldb.NoRows(err) {
		return "", false, nil
	}
	return label, verified, sqldb.Wrap("look a session up", err)
}

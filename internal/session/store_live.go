package session

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// The joined read of the hot path: the session, the agent's ceiling, the grants
// and the state of their connections, in one statement. The records' texts stay
// out of it; their digests find them in a cache of parsed records.
const (
	liveColumns = `s.id, s.environment_id, s.organization_id, s.agent_id, s.user_id, s.state, s.reason, s.pending_until, s.expires_at, s.approval_id, s.calls, s.agent_label, s.agent_verified,
	coalesce((select max(r.version) from organization_rule r where r.organization_id = s.organization_id and r.kind = 'settings'), 0),
	coalesce((select max(r.version) from organization_rule r where r.organization_id = s.organization_id and r.kind = 'policy'), 0),
	g.connection_id, g.provider, g.effects, g.confirm, g.tools, g.limits, c.state, c.account_label, c.user_id, c.pinned, c.record_digest, c.credential_version, c.scopes`
	liveFrom = ` left join session_grant g on g.session_id = s.id
left join connection c on c.id = g.connection_id and c.environment_id = s.environment_id
where s.agent_id = $2 and s.environment_id = $3 and s.organization_id = $4 and ($5 = '' or s.user_id = $5)`
	liveByHandleSQL = `select ` + liveColumns + ` from session_handle h join session s on s.id = h.session_id` + liveFrom + ` and h.hash = $1`
	liveByIDSQL     = `select ` + liveColumns + ` from session s` + liveFrom + ` and s.id = $1`
)

// reference names a session: by its id, if that is set, or by a handle.
type reference struct {
	session id.Session
	handle  string
}

func (s *Service) readLive(ctx context.Context, who agent.Identity, ref reference) (Session, Live, error) {
	query, key := liveByHandleSQL, handleHash(ref.handle)
	if ref.session != "" {
		query, key = liveByIDSQL, string(ref.session)
	}
	rows, err := s.db.Near().QueryContext(ctx, query, key, who.Agent(), who.Environment(), who.Organization(), who.User())
	if err != nil {
		return Session{}, Live{}, sqldb.Wrap("load a session", err)
	}
	defer rows.Close()
	var ses Session
	var grants []grantRow
	var rules ruleKey
	for rows.Next() {
		var g grantRow
		var pending, expires int64
		if err := rows.Scan(&ses.ID, &ses.Environment, &ses.Organization, &ses.Agent, &ses.User, &ses.State, &ses.Reason, &pending, &expires, &ses.Approval, &ses.Calls, &ses.AgentLabel, &ses.AgentVerified, &rules.settings, &rules.policy,
			&g.connection, &g.provider, &g.effects, &g.confirm, &g.tools, &g.limits, &g.state, &g.account, &g.owner, &g.pinned, &g.digest, &g.version, &g.scopes); err != nil {
			return Session{}, Live{}, sqldb.Wrap("load a session", err)
		}
		ses.PendingUntil, ses.ExpiresAt = sqldb.Time(pending), sqldb.Time(expires)
		if g.connection.Valid {
			grants = append(grants, g)
		}
	}
	if err := rows.Err(); err != nil {
		return Session{}, Live{}, sqldb.Wrap("load a session", err)
	}
	rows.Close()
	if ses.ID == "" {
		return Session{}, Live{}, notFound()
	}
	rules.org = ses.Organization
	l := Live{label: ses.AgentLabel, verified: ses.AgentVerified, rules: rules, session: ses.ID, environment: ses.Environment, organization: ses.Organization, agent: ses.Agent, user: ses.User,
		expiresAt: ses.ExpiresAt, calls: ses.Calls, ceiling: who.Ceiling()}
	for _, g := range grants {
		if !g.state.Valid {
			continue // the connection's row is gone
		}
		live, err := s.liveGrant(ctx, ses.Environment, g)
		if err != nil {
			return Session{}, Live{}, err
		}
		l.grants = append(l.grants, live)
	}
	return ses, l, nil
}

// grantRow is one joined row: a grant and its connection.
type grantRow struct {
	connection, provider, effects, confirm, state, account, owner, scopes sql.NullString
	tools, limits, pinned, digest                                         []byte
	version                                                               sql.NullInt64
}

func (s *Service) liveGrant(ctx context.Context, env id.Environment, g grantRow) (liveGrant, error) {
	parsed, err := s.parsed.grant(g)
	if err != nil {
		return liveGrant{}, err
	}
	var digest [32]byte
	copy(digest[:], g.digest)
	rec, err := s.connections.Bound(ctx, env, digest, parsed.pinned)
	if err != nil {
		return liveGrant{}, err
	}
	return liveGrant{
		connection: id.Connection(g.connection.String),
		policy:     policy.Grant{Provider: g.provider.String, Effects: splitEffects(g.effects.String), Confirm: policy.Confirm(g.confirm.String), Limits: parsed.limits},
		digests:    parsed.digests, pinned: parsed.pinned, state: connection.State(g.state.String), account: g.account.String, owner: id.User(g.owner.String),
		record: rec, version: g.version.Int64, scopes: strings.Fields(g.scopes.String),
	}, nil
}

// grantCache keeps parsed forms of texts, by the text. Nothing in it says that
// anything is allowed: which text counts is read from the database for each
// call.
type grantCache struct {
	mu     sync.Mutex
	grants map[string]parsedGrant
}

type parsedGrant struct {
	digests map[string]string
	limits  []policy.Limit
	pinned  provider.Pinned
}

const maxCached = 2048

func newGrantCache() *grantCache {
	return &grantCache{grants: map[string]parsedGrant{}}
}

func (c *grantCache) grant(g grantRow) (parsedGrant, error) {
	key := string(g.tools) + "\x00" + string(g.limits) + "\x00" + string(g.pinned)
	c.mu.Lock()
	p, ok := c.grants[key]
	c.mu.Unlock()
	if ok {
		return p, nil
	}
	var refs []ToolRef
	if err := json.Unmarshal(g.tools, &refs); err != nil {
		return parsedGrant{}, fmt.Errorf("reading a grant: %w", err)
	}
	p.digests = make(map[string]string, len(refs))
	for _, r := range refs {
		p.digests[r.Name] = r.Digest
	}
	limits, err := readLimits(g.limits)
	if err != nil {
		return parsedGrant{}, err
	}
	p.limits = limits
	if err := json.Unmarshal(g.pinned, &p.pinned); err != nil {
		return parsedGrant{}, fmt.Errorf("reading the hosts of a connection: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.grants) >= maxCached {
		clear(c.grants)
	}
	c.grants[key] = p
	return p, nil
}

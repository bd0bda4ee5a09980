package session

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// LookUp gives the right to ask the provider what a call is about, for the person
// who is to decide on it. The look-up belongs to the tool as it was approved, only
// reads, and its answer is not for the agent. look is nil when the tool declares
// none.
func (s *Service) LookUp(l Live, t Target, req *provider.Request) (p Permit, tool provider.Tool, look *provider.Request, err error) {
	tool, look, err = t.Tool.LookUp(t.grant.record, req, t.Bases...)
	if err != nil || look == nil {
		return Permit{}, provider.Tool{}, nil, err
	}
	digest := t.Tool.Digest()
	switch {
	case l.session == "" || t.grant.state != connection.Connected || t.grant.digests[t.Tool.Name] != hex.EncodeToString(digest[:]):
		err = stale()
	case tool.Effect != policy.Read || look.Effect != policy.Read:
		err = fault.New(fault.Internal, "record_invalid", "A look-up does more than read.")
	}
	if err != nil {
		return Permit{}, provider.Tool{}, nil, err
	}
	return Permit{session: l.session, environment: l.environment, organization: l.organization, agent: l.agent, user: l.user, until: l.expiresAt,
		grant: t.grant, tool: tool.Name, digest: hexDigest(look.Args), service: s}, tool, look, nil
}

// ArgumentDigest identifies the arguments of the permitted call.
func (p Permit) ArgumentDigest() string { return p.digest }

// named is what the provider says that a call is about, as it is sealed.
type named struct {
	Name   string  `json:"name"`
	Stands []Field `json:"stands,omitempty"`
}

// Named keeps what the provider says that the call of an open request is about,
// and what stands now where it changes something. It is the provider's text, shown as
// such; no decision rests on it.
func (s *Service) Named(ctx context.Context, a id.Approval, target string, stands []Field) error {
	r, err := approvalByID(ctx, s.db.Reader(), a)
	if err != nil {
		return sqldb.Wrap("load a request", err)
	}
	doc, err := json.Marshal(named{target, stands})
	if err != nil {
		return fmt.Errorf("encoding what a call is about: %w", err)
	}
	sealed, err := s.vault.Seal(ctx, r.targetPlace(), secret.New(doc))
	if err != nil {
		return err
	}
	return s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := nameTarget(ctx, tx, a, sealed); err != nil {
			return err
		}
		changed(tx, r.organization)
		return nil
	})
}

// target is what Named kept of a request.
func (s *Service) target(ctx context.Context, r approvalRow) (string, []Field, error) {
	sealed, err := targetOf(ctx, s.db.Reader(), r.id)
	if err != nil || len(sealed) == 0 {
		return "", nil, err
	}
	plain, err := s.vault.Open(ctx, r.targetPlace(), sealed)
	if err != nil {
		return "", nil, err
	}
	var n named
	if err := json.Unmarshal([]byte(textOf(plain)), &n); err != nil {
		return textOf(plain), nil, nil // as it was kept before there was more than a name
	}
	return n.Name, n.Stands, nil
}

const (
	nameTargetSQL = `update approval set target = $2 where id = $1 and state = 'pending'`
	targetSQL     = `select target from approval where id = $1`
)

func nameTarget(ctx context.Context, q sqldb.Querier, a id.Approval, sealed []byte) error {
	_, err := q.ExecContext(ctx, nameTargetSQL, a, sealed)
	return sqldb.Wrap("name the target of a call", err)
}

func targetOf(ctx context.Context, q sqldb.Querier, a id.Approval) (sealed []byte, err error) {
	err = q.QueryRowContext(ctx, targetSQL, a).Scan(&sealed)
	return sealed, sqldb.Wrap("read the target of a call", err)
}

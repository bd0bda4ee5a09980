package credential

import (
	"context"
	"encoding/hex"
	"net/http"
	"strconv"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// noticeKept is how long it is known that a notice was told. A text of before it
// that comes again would be believed; its connections are long gone or made anew.
const noticeKept = 400 * 24 * time.Hour

const (
	keepNoticeSQL   = `insert into provider_notice (environment_id, provider, digest, received_at) values ($1, $2, $3, $4) on conflict (environment_id, provider, digest) do nothing`
	sweepNoticesSQL = `delete from provider_notice where received_at < $1`
)

var teller = audit.Actor{Kind: "system", ID: "provider"}

// Notice takes what a provider told of accesses that ended there, signed with the
// secret that is stored for it. Calls on those connections fail from then on, with
// the page where a person connects the account again, and whoever is told of changes
// is told. The same text a second time does nothing. The result is what is to be
// answered, if anything.
func (s *Service) Notice(ctx context.Context, env id.Environment, slug, address string, header http.Header, body []byte) (string, error) {
	n, slugs, err := s.providers.Notice(ctx, env, slug, header, body)
	if fault.Is(err, "signature_invalid") {
		s.audit.Alarm(audit.Entry{Environment: env, Actor: teller, Action: "provider.notice_refused", Object: slug, Provider: slug, Decision: "deny", Code: "signature_invalid", Address: address})
	}
	if err != nil || n.Challenge != "" || len(n.Ends) == 0 {
		return n.Challenge, err
	}
	for _, of := range slugs {
		if err := s.told(ctx, env, of, address, n); err != nil {
			return "", err
		}
	}
	return "", nil
}

// told marks the connections of one provider.
func (s *Service) told(ctx context.Context, env id.Environment, slug, address string, n provider.Notice) error {
	return s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		first, err := changed(tx.ExecContext(ctx, keepNoticeSQL, env, slug, n.Digest[:], sqldb.Micros(s.now())))
		if err != nil || !first {
			return sqldb.Wrap("keep a notice", err)
		}
		marked := 0
		for _, e := range n.Ends {
			list, err := s.connections.Told(ctx, tx, env, slug, e)
			if err != nil {
				return err
			}
			for _, c := range list {
				state, reason := connection.NeedsReauth, e.Reason
				if e.Resumes {
					state, reason = connection.Connected, ""
				}
				if err := s.connections.Mark(ctx, tx, teller, env, c.ID, state, reason); err != nil {
					return err
				}
				marked++
			}
		}
		s.audit.AppendEvent(tx, audit.Entry{Environment: env, Actor: teller, Action: "provider.notice", Object: slug, Provider: slug, Code: n.Event, Address: address,
			Detail: map[string]string{"digest": hex.EncodeToString(n.Digest[:]), "connections": strconv.Itoa(marked)}})
		return nil
	})
}

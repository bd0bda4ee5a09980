package account

import (
	"context"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// EndRestored signs everybody out of a database that was restored from a backup
// and voids what counts once: links, codes and ceremonies under way. With keys it
// also revokes every API key, since any may have been revoked since the backup.
func (s *Service) EndRestored(ctx context.Context, tx *sqldb.Tx, keys bool) (logins, revoked int64, err error) {
	const (
		signOut  = `update login set revoked_at = $1, version = version + 1 where revoked_at = 0`
		endKeys  = `update api_key set revoked_at = $1, version = version + 1 where revoked_at = 0`
		links    = `delete from enroll_link`
		vouched  = `delete from vouch_link`
		flows    = `delete from signin_flow`
		begun    = `delete from challenge_key`
		setups   = `delete from totp_setup`
		codes    = `delete from fresh_code`
		commands = `delete from cli_request`
	)
	for _, query := range []string{links, vouched, flows, begun, setups, codes, commands} {
		if _, err := tx.ExecContext(ctx, query); err != nil {
			return 0, 0, sqldb.Wrap("void links and codes", err)
		}
	}
	now := sqldb.Micros(s.now())
	res, err := tx.ExecContext(ctx, signOut, now)
	if err != nil {
		return 0, 0, sqldb.Wrap("sign everybody out", err)
	}
	if logins, err = res.RowsAffected(); err != nil || !keys {
		return logins, 0, err
	}
	if res, err = tx.ExecContext(ctx, endKeys, now); err != nil {
		return 0, 0, sqldb.Wrap("revoke API keys", err)
	}
	revoked, err = res.RowsAffected()
	return logins, revoked, err
}

// TellRestored gives a notice to the owners of every environment: the database was
// put back, by the entry event.
func (s *Service) TellRestored(ctx context.Context, tx *sqldb.Tx, event id.Event) error {
	_, err := tx.ExecContext(ctx, noticeToAllSQL, event, NoticeRestored, sqldb.Micros(s.now()))
	return sqldb.Wrap("tell the owners", err)
}

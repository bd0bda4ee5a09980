package account

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

const (
	firstOwnerSQL = userColumns + ` join membership m on m.user_id = p.id where m.organization_id = $1 and m.role = 'owner' and p.disabled_at = 0 order by p.id limit 1`
	ownerCountSQL = `select count(*), coalesce(sum(case when n > 0 then 1 else 0 end), 0), coalesce(sum(case when n > 1 then 1 else 0 end), 0) from (
		select (select count(*) from passkey k where k.user_id = p.id) as n from membership m join person p on p.id = m.user_id
		where m.organization_id = (select operator_id from environment where id = $1) and m.role = 'owner' and p.disabled_at = 0) as owners`

	ownersOfSQL = userColumns + ` join membership m on m.user_id = p.id where m.organization_id = $1 and m.role = 'owner' order by p.id limit 2`

	insertNoticeSQL = `insert into owner_notice (event_id, owner_id, kind, user_id, created_at, dismissed_at) values ($1, $2, $3, $4, $5, 0)`
	noticeToAllSQL  = `insert into owner_notice (event_id, owner_id, kind, user_id, created_at, dismissed_at)
		select distinct cast($1 as text), m.user_id, cast($2 as text), m.user_id, cast($3 as bigint), 0 from membership m join environment e on e.operator_id = m.organization_id where m.role = 'owner'`
	noticeToOwnersSQL = noticeToAllSQL + ` and e.id = $4`
	noticesSQL        = `select n.event_id, n.kind, n.user_id, p.name, n.created_at from owner_notice n join person p on p.id = n.user_id
		where n.owner_id = $1 and n.dismissed_at = 0 order by n.event_id desc limit 100`
	dismissSQL = `update owner_notice set dismissed_at = $1 where owner_id = $2 and event_id = $3 and dismissed_at = 0`
)

func selectFirstOwner(ctx context.Context, q sqldb.Querier, org id.Organization) (User, error) {
	return scanUser(q.QueryRowContext(ctx, firstOwnerSQL, org))
}

func selectOwnerCount(ctx context.Context, q sqldb.Querier, env id.Environment) (OwnerCount, error) {
	var n OwnerCount
	err := q.QueryRowContext(ctx, ownerCountSQL, env).Scan(&n.Owners, &n.WithPasskey, &n.WithPasskeys)
	return n, err
}

// selectOwnersOf gives up to two owners of org, disabled ones too.
func selectOwnersOf(ctx context.Context, q sqldb.Querier, org id.Organization) ([]User, error) {
	return sqldb.Collect(scanUser)(q.QueryContext(ctx, ownersOfSQL, org))
}

func insertNotice(ctx context.Context, tx *sqldb.Tx, n Notice, owner id.User) error {
	_, err := tx.ExecContext(ctx, insertNoticeSQL, n.ID, owner, n.Kind, n.User, sqldb.Micros(n.At))
	return err
}

func selectNotices(ctx context.Context, q sqldb.Querier, owner id.User) ([]Notice, error) {
	return sqldb.Collect(func(row sqldb.Scanner) (Notice, error) {
		var n Notice
		var at int64
		err := row.Scan(&n.ID, &n.Kind, &n.User, &n.UserName, &at)
		n.At = sqldb.Time(at)
		return n, err
	})(q.QueryContext(ctx, noticesSQL, owner))
}

func dismissNotice(ctx context.Context, tx *sqldb.Tx, owner id.User, event id.Event, at time.Time) (bool, error) {
	return changed(tx.ExecContext(ctx, dismissSQL, sqldb.Micros(at), owner, event))
}

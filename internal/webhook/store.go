package webhook

import (
	"context"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/vault"
)

// keeps lists what this room has sealed.
func keeps() []vault.Sealed {
	const fields = `s.id, s.environment_id, s.organization_id, s.secret_version`
	place := func(back int64) func(scan func(dest ...any) error) (vault.Place, error) {
		return func(scan func(dest ...any) error) (vault.Place, error) {
			var e Endpoint
			err := scan(&e.ID, &e.Environment, &e.Organization, &e.secretVersion)
			return e.place(e.secretVersion - back), err
		}
	}
	return []vault.Sealed{
		{Table: "webhook", Column: "secret", Key: []string{"id"}, Fields: fields, Place: place(0)},
		{Table: "webhook", Column: "old_secret", Key: []string{"id"}, Fields: fields, Place: place(1)},
	}
}

const (
	endpointColumns = `id, environment_id, organization_id, url, description, events, state, reason, secret, secret_version, old_secret, old_until,
	failures, failing_since, paused_until, created_at, updated_at, version, form, user_id`
	deliveryColumns = `id, webhook_id, environment_id, event_id, kind, body, state, attempts, next_at, status, error, created_at, updated_at`
)

const (
	insertEndpointSQL = `insert into webhook (` + endpointColumns + `) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)`
	saveEndpointSQL   = `update webhook set url = $2, description = $3, events = $4, state = $5, reason = $6, secret = $7, secret_version = $8, old_secret = $9, old_until = $10,
	failures = $11, failing_since = $12, paused_until = $13, updated_at = $14, version = $15 where id = $1`
	endpointSQL        = `select ` + endpointColumns + ` from webhook where environment_id = $1 and id = $2`
	endpointsSQL       = `select ` + endpointColumns + ` from webhook where environment_id = $1 and organization_id = $2 and user_id = '' order by id desc`
	listeningSQL       = `select ` + endpointColumns + ` from webhook where environment_id = $1 and (organization_id = '' or organization_id = $2) and user_id = ''`
	countEndpointsSQL  = `select count(*) from webhook where environment_id = $1 and organization_id = $2 and user_id = ''`
	deleteEndpointSQL  = `delete from webhook where id = $1`
	deleteDeliveredSQL = `delete from webhook_delivery where webhook_id = $1`

	insertDeliverySQL = `insert into webhook_delivery (` + deliveryColumns + `) values ($1, $2, $3, $4, $5, $6, $7, 0, $8, 0, '', $9, $9) on conflict (webhook_id, event_id) do nothing`
	saveDeliverySQL   = `update webhook_delivery set state = $2, attempts = $3, next_at = $4, status = $5, error = $6, updated_at = $7 where id = $1`
	anyDueSQL         = `select exists (select 1 from webhook_delivery where state = 'pending' and next_at <= $1)`
	dueSQL            = `select ` + deliveryColumns + ` from webhook_delivery where state = 'pending' and next_at <= $1 order by next_at limit $2`
	deliveriesSQL     = `select ` + deliveryColumns + ` from webhook_delivery where webhook_id = $1 and ($2 = '' or state = $2) and ($3 = '' or id < $3) order by id desc limit $4`
	deliveryOfSQL     = `select ` + deliveryColumns + ` from webhook_delivery where webhook_id = $1 and event_id = $2`
	holdAllSQL        = `update webhook_delivery set state = 'held', updated_at = $2 where webhook_id = $1 and state = 'pending'`
	replaySQL         = `update webhook_delivery set state = 'pending', attempts = 0, next_at = $2, updated_at = $2 where webhook_id = $1
	and ($3 = '' or id = $3) and created_at >= $4 and ($5 = 0 or created_at < $5) and ($6 = 1 or state <> 'delivered')`
	sweepSQL = `delete from webhook_delivery where created_at < $1`
)

func (e Endpoint) state() string {
	if e.Enabled {
		return "enabled"
	}
	return "disabled"
}

func insertEndpoint(ctx context.Context, q sqldb.Querier, e Endpoint) error {
	_, err := q.ExecContext(ctx, insertEndpointSQL, e.ID, e.Environment, e.Organization, e.URL, e.Description, strings.Join(e.Events, " "), e.state(), e.Reason, e.secret, e.secretVersion,
		e.old, sqldb.Micros(e.OldUntil), e.failures, sqldb.Micros(e.FailingSince), sqldb.Micros(e.pausedUntil), sqldb.Micros(e.CreatedAt), sqldb.Micros(e.UpdatedAt), e.Version, e.Form, e.User)
	return sqldb.Wrap("write a webhook", err)
}

func saveEndpoint(ctx context.Context, q sqldb.Querier, e Endpoint) error {
	_, err := q.ExecContext(ctx, saveEndpointSQL, e.ID, e.URL, e.Description, strings.Join(e.Events, " "), e.state(), e.Reason, e.secret, e.secretVersion, e.old, sqldb.Micros(e.OldUntil),
		e.failures, sqldb.Micros(e.FailingSince), sqldb.Micros(e.pausedUntil), sqldb.Micros(e.UpdatedAt), e.Version)
	return sqldb.Wrap("write a webhook", err)
}

func scanEndpoint(from sqldb.Scanner) (Endpoint, error) {
	var e Endpoint
	var events, state string
	var old, failing, paused, created, updated int64
	err := from.Scan(&e.ID, &e.Environment, &e.Organization, &e.URL, &e.Description, &events, &state, &e.Reason, &e.secret, &e.secretVersion, &e.old, &old,
		&e.failures, &failing, &paused, &created, &updated, &e.Version, &e.Form, &e.User)
	e.Events, e.Enabled = strings.Fields(events), state == "enabled"
	e.OldUntil, e.FailingSince, e.pausedUntil, e.CreatedAt, e.UpdatedAt = sqldb.Time(old), sqldb.Time(failing), sqldb.Time(paused), sqldb.Time(created), sqldb.Time(updated)
	return e, err
}

func endpoint(ctx context.Context, q sqldb.Querier, env id.Environment, hook id.Webhook) (Endpoint, error) {
	return scanEndpoint(q.QueryRowContext(ctx, endpointSQL, env, hook))
}

func endpoints(ctx context.Context, q sqldb.Querier, env id.Environment, org id.Organization) ([]Endpoint, error) {
	return sqldb.Collect(scanEndpoint)(q.QueryContext(ctx, endpointsSQL, env, org))
}

func listening(ctx context.Context, q sqldb.Querier, env id.Environment, org id.Organization) ([]Endpoint, error) {
	return sqldb.Collect(scanEndpoint)(q.QueryContext(ctx, listeningSQL, env, org))
}

func countEndpoints(ctx context.Context, q sqldb.Querier, env id.Environment, org id.Organization) (int, error) {
	var n int
	err := q.QueryRowContext(ctx, countEndpointsSQL, env, org).Scan(&n)
	return n, sqldb.Wrap("count webhooks", err)
}

func deleteEndpoint(ctx context.Context, q sqldb.Querier, hook id.Webhook) error {
	for _, query := range []string{deleteDeliveredSQL, deleteEndpointSQL} {
		if _, err := q.ExecContext(ctx, query, hook); err != nil {
			return sqldb.Wrap("remove a webhook", err)
		}
	}
	return nil
}

func insertDelivery(ctx context.Context, q sqldb.Querier, d Delivery, next int64) error {
	_, err := q.ExecContext(ctx, insertDeliverySQL, d.ID, d.Webhook, d.environment, d.Event, d.Kind, d.body, d.State, next, sqldb.Micros(d.CreatedAt))
	return err
}

func saveDelivery(ctx context.Context, q sqldb.Querier, d Delivery) error {
	_, err := q.ExecContext(ctx, saveDeliverySQL, d.ID, d.State, d.Attempts, sqldb.Micros(d.NextAt), d.Status, d.Error, sqldb.Micros(d.UpdatedAt))
	return sqldb.Wrap("record a delivery", err)
}

func scanDelivery(from sqldb.Scanner) (Delivery, error) {
	var d Delivery
	var next, created, updated int64
	err := from.Scan(&d.ID, &d.Webhook, &d.environment, &d.Event, &d.Kind, &d.body, &d.State, &d.Attempts, &next, &d.Status, &d.Error, &created, &updated)
	d.NextAt, d.CreatedAt, d.UpdatedAt = sqldb.Time(next), sqldb.Time(created), sqldb.Time(updated)
	return d, err
}

func anyDue(ctx context.Context, q sqldb.Querier, now time.Time) (ok bool, err error) {
	err = q.QueryRowContext(ctx, anyDueSQL, sqldb.Micros(now)).Scan(&ok)
	return ok, err
}

func due(ctx context.Context, q sqldb.Querier, now time.Time, limit int) ([]Delivery, error) {
	return sqldb.Collect(scanDelivery)(q.QueryContext(ctx, dueSQL, sqldb.Micros(now), limit))
}

func deliveries(ctx context.Context, q sqldb.Querier, hook id.Webhook, state string, after id.Delivery, limit int) ([]Delivery, error) {
	return sqldb.Collect(scanDelivery)(q.QueryContext(ctx, deliveriesSQL, hook, state, after, limit))
}

func deliveryOf(ctx context.Context, q sqldb.Querier, hook id.Webhook, event id.Event) (Delivery, error) {
	return scanDelivery(q.QueryRowContext(ctx, deliveryOfSQL, hook, event))
}

func holdAll(ctx context.Context, q sqldb.Querier, hook id.Webhook, now time.Time) error {
	_, err := q.ExecContext(ctx, holdAllSQL, hook, sqldb.Micros(now))
	return sqldb.Wrap("hold deliveries", err)
}

func replay(ctx context.Context, q sqldb.Querier, hook id.Webhook, w Window, now time.Time) (int64, error) {
	all := 0
	if w.All || w.Delivery != "" {
		all = 1
	}
	res, err := q.ExecContext(ctx, replaySQL, hook, sqldb.Micros(now), w.Delivery, sqldb.Micros(w.From), sqldb.Micros(w.To), all)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func sweep(ctx context.Context, q sqldb.Querier, before time.Time) error {
	_, err := q.ExecContext(ctx, sweepSQL, sqldb.Micros(before))
	return err
}

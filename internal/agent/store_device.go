package agent

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// device is a device's code as a poll finds it.
type device struct {
	hash            []byte
	agent           id.Agent // once a person has agreed
	family          string   // once it gave tokens
	denied, expires time.Time
	early           bool // this poll came before its time
}

func insertDevice(ctx context.Context, tx *sqldb.Tx, hash []byte, r AuthRequest) error {
	const query = `
insert into device_code (hash, flow_id, client_id, user_code, poll_every, poll_after, expires_at, agent_id, denied_at, family_id, used_at)
values ($1, $2, $3, $4, $5, 0, $6, '', 0, '', 0)`
	_, err := tx.ExecContext(ctx, query, hash, r.ID, r.Client.ID, r.UserCode, pollEvery.Microseconds(), sqldb.Micros(r.ExpiresAt))
	return err
}

// waitingDevice finds the request behind a user code that nobody has answered.
func waitingDevice(ctx context.Context, q sqldb.Querier, userCode string, now time.Time) (flow id.Flow, err error) {
	const query = `select flow_id from device_code where user_code = $1 and agent_id = '' and denied_at = 0 and expires_at > $2`
	err = q.QueryRowContext(ctx, query, userCode, sqldb.Micros(now)).Scan(&flow)
	return flow, err
}

func agentOfDevice(ctx context.Context, q sqldb.Querier, hash []byte) (Agent, error) {
	const query = `select ` + agentColumns + ` from device_code d join agent a on a.id = d.agent_id where d.hash = $1`
	return scanAgent(q.QueryRowContext(ctx, query, hash))
}

// pollDevice takes the row of a client's device code for this transaction, and
// notes when the next poll may come. One that comes too early moves it further.
func pollDevice(ctx context.Context, tx *sqldb.Tx, hash []byte, client id.Client, now time.Time) (device, error) {
	const (
		hold = `update device_code set poll_every = poll_every where hash = $1 and client_id = $2
returning poll_every, poll_after, expires_at, agent_id, denied_at, family_id`
		note = `update device_code set poll_every = $2, poll_after = $3 where hash = $1`
	)
	d := device{hash: hash}
	var every, after, expires, denied int64
	if err := tx.QueryRowContext(ctx, hold, hash, client).Scan(&every, &after, &expires, &d.agent, &denied, &d.family); err != nil {
		return device{}, err
	}
	d.expires, d.denied = sqldb.Time(expires), sqldb.Time(denied)
	interval := time.Duration(every) * time.Microsecond
	if d.early = now.Before(sqldb.Time(after)); d.early {
		interval = min(interval+pollEvery, pollAtMost)
	}
	_, err := tx.ExecContext(ctx, note, hash, interval.Microseconds(), sqldb.Micros(now.Add(interval-pollSlack)))
	return d, err
}

// agreeDevice and refuseDevice carry a person's decision to the device. They run
// where the request itself is decided, which happens once.
func agreeDevice(ctx context.Context, tx *sqldb.Tx, flow id.Flow, agent id.Agent) error {
	const query = `update device_code set agent_id = $2 where flow_id = $1 and agent_id = '' and denied_at = 0`
	return one(tx.ExecContext(ctx, query, flow, agent))
}

func refuseDevice(ctx context.Context, tx *sqldb.Tx, flow id.Flow, now time.Time) error {
	const query = `update device_code set denied_at = $2 where flow_id = $1 and agent_id = '' and denied_at = 0`
	return one(tx.ExecContext(ctx, query, flow, sqldb.Micros(now)))
}

// endDevices refuses the codes by which devices would become an agent and that
// have given no tokens yet.
func endDevices(ctx context.Context, tx *sqldb.Tx, agent id.Agent, now time.Time) error {
	const query = `update device_code set denied_at = $2 where agent_id = $1 and used_at = 0 and denied_at = 0`
	_, err := tx.ExecContext(ctx, query, agent, sqldb.Micros(now))
	return err
}

func useDevice(ctx context.Context, tx *sqldb.Tx, hash []byte, familyID string, now time.Time) error {
	const query = `update device_code set used_at = $2, family_id = $3 where hash = $1 and used_at = 0`
	return one(tx.ExecContext(ctx, query, hash, sqldb.Micros(now), familyID))
}

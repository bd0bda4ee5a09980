package agent_test

import (
	"context"
	"testing"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// S14, W7, and a bug: a program at a person's address, which on a laptop is that
// of every agent, began authorizations, and the person's own was refused. Now any
// number of them is taken, only so many are kept, and the request that a person
// has before them stays.
func TestBegunAuthorizationsMakeWay(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		ctx := t.Context()
		client := w.Caller(t, w.Client(t, agent.AuthNone)).Client()
		begin := func(address string) id.Flow {
			t.Helper()
			flow, err := w.Agents.BeginAuthorize(ctx, agent.AuthRequest{Client: agent.Client{ID: client}, RedirectURI: agenttest.Redirect, Challenge: challengeOf(t), Address: address})
			if err != nil {
				t.Fatal(err)
			}
			return flow
		}
		elsewhere, opened := begin("192.0.2.9"), begin("192.0.2.1")
		if _, err := w.Agents.OpenAuthorize(ctx, alice.Signed(t), opened); err != nil {
			t.Fatal(err)
		}
		w.Clock.Advance(1)
		oldest := begin("192.0.2.1")
		if err := w.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
			_, err := tx.ExecContext(ctx, `insert into authorize_request (id, client_id, redirect_uri, state, challenge, resource, scope, address, created_at, expires_at, decided_at)
				with recursive n (i) as (select 1 union all select i + 1 from n where i < $2)
				select 'flow_' || i, client_id, redirect_uri, state, challenge, resource, scope, '192.0.2.1', created_at + 1 + i, expires_at, 0 from authorize_request, n where id = $1`, oldest, agent.MaxRequests-3)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			begin("192.0.2.1")
		}
		late := begin("192.0.2.1")
		for what, flow := range map[string]id.Flow{"of another address": elsewhere, "that a person has opened": opened, "that came last": late} {
			if _, err := w.Agents.PendingAuthorize(ctx, flow); err != nil {
				t.Errorf("the request %s: %v", what, err)
			}
		}
		_, err := w.Agents.PendingAuthorize(ctx, oldest)
		refused(t, "the oldest of the flood", err, "not_found")
		var n int
		if err := w.DB.Reader().QueryRowContext(ctx, `select count(*) from authorize_request`).Scan(&n); err != nil || n > agent.MaxRequests || n < agent.MaxRequests*9/10 {
			t.Errorf("%d wait, %v", n, err)
		}
	})
}

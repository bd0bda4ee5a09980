//go:build e2e

package fire

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/e2e/world"
)

// F11: the process dies while a person approves, consents, or comes back from a
// provider. Their browser shows nothing, so they load the page again: it says
// what holds and how to go on, nothing is granted twice or to nobody, and no code
// goes to the provider a second time.
func TestRestartWhileAPersonDecides(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{sqlite, postgres} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			program, err := breakable()
			must(t, err)
			k := &killing{life: newLife(t, engine, program)}
			k.life.mayLoseGrants = true
			k.midApproval(t)
			k.midConsent(t)
			k.midCallback(t)
			for _, b := range k.examine(t) {
				t.Error(b)
			}
			k.finish(t)
		})
	}
}

// dies has the node die at a point while fn runs, starts it again, and gives the
// address that the browser had asked for, if it was told to.
func (k *killing) dies(t *testing.T, at string, fn func(ctx context.Context) error) string {
	t.Helper()
	n := k.life.w.Nodes[0]
	n.Kill()
	k.start(t, at+"=kill")
	err := fn(t.Context())
	if err == nil || !died(n, time.Second) {
		t.Fatalf("the node did not die at %q: %v", at, err)
	}
	n.Kill()
	k.start(t, "")
	if asked := (*url.Error)(nil); errors.As(err, &asked) {
		return asked.URL
	}
	return ""
}

func (k *killing) midApproval(t *testing.T) {
	t.Helper()
	l, ctx := k.life, t.Context()
	a, err := l.tenant.NewAgent(ctx, "approved")
	must(t, err)
	s, page, err := l.request(ctx, a, "third")
	must(t, err)
	approve := func(ctx context.Context) error { _, err := l.tenant.Person.Approve(ctx, page, nil); return err }
	k.dies(t, "session.approved event: before commit", approve)
	must(t, l.wake(ctx))
	if seen, err := l.tenant.Person.Look(ctx, page); err != nil || strings.Contains(seen.Text, "Approved") {
		t.Errorf("after a kill before the commit the page says %q, %v, want it open", seen.Text, err)
	}
	k.dies(t, "session.approved event: after commit", approve)
	must(t, l.wake(ctx))
	seen, err := l.tenant.Person.Look(ctx, page)
	if err != nil || !strings.Contains(seen.Text, "pproved") {
		t.Errorf("after a kill after the commit the page says %q, %v, want it approved", seen.Text, err)
	}
	must(t, l.op(world.Shot{Node: l.w.Nodes[0], Session: s, Tool: "third_list"}.Do(ctx, time.Minute)))
}

func (k *killing) midConsent(t *testing.T) {
	t.Helper()
	l, ctx := k.life, t.Context()
	client, err := l.register(ctx)
	must(t, err)
	verifier := strings.Repeat("v", 43)
	var page string
	consent := func(ctx context.Context) error {
		at, err := l.tenant.Person.Look(ctx, l.authorizeURL(client, verifier))
		if err != nil {
			return err
		}
		page = at.Address.String()
		_, _, err = l.tenant.Person.Do(ctx, page, at.Address.Path, func(v url.Values) { v.Set("label", "Program") })
		return err
	}
	k.dies(t, "agent.consented event: before commit", consent)
	must(t, l.wake(ctx))
	if _, err := l.tenant.Person.Look(ctx, page); err != nil {
		t.Errorf("after a kill before the commit the request is no longer open: %v", err)
	}
	k.dies(t, "agent.consented event: after commit", consent)
	must(t, l.wake(ctx))
	if _, err := l.tenant.Person.Look(ctx, page); err == nil || !strings.Contains(err.Error(), "Start again from the agent") {
		t.Errorf("after a kill after the commit: %v, want to be told to start again", err)
	}
	must(t, l.program(ctx)) // and that works
}

func (k *killing) midCallback(t *testing.T) {
	t.Helper()
	l, ctx := k.life, t.Context()
	before, err := l.box.stats()
	must(t, err)
	connect := func(ctx context.Context) error {
		_, err := l.tenant.SignInAt(ctx, "sandbox", "noa@sandbox.example")
		return err
	}
	points := []string{"credential.takeFlow: before commit", "credential.takeFlow: after commit", "exchange: answered", "connect: identified", "connection.connected event: before commit"}
	for _, at := range points {
		back := k.dies(t, at, connect)
		if !strings.Contains(back, "/ui/callback/") {
			t.Fatalf("at %q the browser was at %q", at, back)
		}
		must(t, l.wake(ctx))
		_, err := l.tenant.Person.Look(ctx, back)
		if at == points[0] { // nothing had happened: the same address does it now
			must(t, err)
			conn, err := l.tenant.SignInAt(ctx, "sandbox", "noa@sandbox.example")
			must(t, err)
			_, err = l.w.API.Disconnect(ctx, conn)
			must(t, err)
			continue
		}
		if err == nil || !strings.Contains(err.Error(), "Start connecting again") || !strings.Contains(err.Error(), "Start again") {
			t.Errorf("at %q: loading the page again gives %v, want the way to start again", at, err)
		}
	}
	db, err := l.w.OpenDatabase()
	must(t, err)
	defer db.Close()
	var unknown int
	must(t, db.QueryRowContext(ctx, `select count(*) from oauth_exchange`).Scan(&unknown))
	if unknown != len(points)-1 {
		t.Errorf("%d of %d interrupted exchanges are noted", unknown, len(points)-1)
	}
	must(t, connect(ctx))
	after, err := l.box.stats()
	must(t, err)
	if after.Reuses != before.Reuses {
		t.Errorf("%d codes or tokens went to the provider twice", after.Reuses-before.Reuses)
	}
}

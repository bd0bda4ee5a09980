package keyring_test

import (
	"context"
	"testing"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/secret"
)

// blind binds nothing to its context, like an RSA key used as it comes; loose
// does not notice a change either.
type blind struct {
	keyring.Keeper
	loose bool
	known secret.Value
}

func (b *blind) Wrap(ctx context.Context, seed secret.Value, _ keyring.Context) ([]byte, error) {
	b.known = seed
	return b.Keeper.Wrap(ctx, seed, keyring.Context{})
}

func (b *blind) Unwrap(ctx context.Context, blob []byte, c keyring.Context) (secret.Value, error) {
	if b.loose && string(c.AAD) == string(crypt.Fields("ambit set-up probe 1")) {
		return b.known, nil
	}
	if b.loose {
		return secret.Value{}, crypt.ErrIntegrity
	}
	return b.Keeper.Unwrap(ctx, blob, keyring.Context{})
}

// Issue 4, set-up probe: a key that works and does not bind is not taken, and a
// service that cannot be asked has proven nothing.
func TestProbeRefusesAnUnfitKey(t *testing.T) {
	t.Parallel()
	s := keyringtest.New(t)
	for _, row := range []struct {
		name   string
		keeper keyring.Keeper
		mode   keyringtest.Mode
		step   string
		code   string
	}{
		{"context-blind", &blind{Keeper: s.Keeper(t)}, keyringtest.Fine, keyring.StepOtherContext, "root_key_unfit"},
		{"not authenticated", &blind{Keeper: s.Keeper(t), loose: true}, keyringtest.Fine, keyring.StepOtherBlob, "root_key_unfit"},
		{"denied", s.Keeper(t), keyringtest.Denied, keyring.StepWrap, keyring.CodeDenied},
		{"throttled", s.Keeper(t), keyringtest.Throttled, keyring.StepWrap, keyring.CodeThrottled},
		{"broken", s.Keeper(t), keyringtest.Broken, keyring.StepWrap, keyring.CodeUnavailable},
		{"a seed that is none", s.Keeper(t), keyringtest.Short, keyring.StepUnwrap, keyring.CodeUnavailable},
	} {
		s.Be(row.mode)
		r := keyring.Probe(t.Context(), row.keeper, keyring.Context{Environment: "env_1"})
		last := r.Findings[len(r.Findings)-1]
		if !fault.Is(r.Err(), row.code) || last.Step != row.step || last.OK || last.Text == "" {
			t.Errorf("%s: %v at %+v, want %s at %s", row.name, r.Err(), last, row.code, row.step)
		}
	}
}

// The guard asks with the labels of those whose key it is: a policy that makes
// conditions of them would refuse it otherwise.
func TestGuardAsksWithItsLabels(t *testing.T) {
	t.Parallel()
	k := &picky{Keeper: keyringtest.New(t).Keeper(t)}
	bare := keyring.NewGuard(k, keyring.Config{})
	t.Cleanup(bare.Stop)
	if err := bare.Prove(t.Context()); !fault.Is(err, keyring.CodeDenied) {
		t.Errorf("without labels: got %v", err)
	}
	g := keyring.NewGuard(k, keyring.Config{Labels: keyring.Context{Environment: "env_1", Organization: "org_1"}})
	t.Cleanup(g.Stop)
	if err := g.Prove(t.Context()); err != nil {
		t.Errorf("with labels: got %v", err)
	}
}

// picky is a key whose owner allows one organization.
type picky struct{ keyring.Keeper }

func (p *picky) Wrap(ctx context.Context, seed secret.Value, c keyring.Context) ([]byte, error) {
	if c.Organization != "org_1" {
		return nil, keyring.Failure(keyring.CodeDenied, nil)
	}
	return p.Keeper.Wrap(ctx, seed, c)
}

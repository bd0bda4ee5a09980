package app_test

import (
	"testing"

	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// Issue 4, rotation: when the keys of every context are replaced, what all rooms
// have sealed follows, whether it is wrapped anew or encrypted anew, and accounts
// go on to work, also on a node that has nothing in memory.
func TestRotationTakesEveryRoomAlong(t *testing.T) {
	t.Parallel()
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, engine)
			n := c.add(nil)
			c.settle(n)
			handle := c.active(n, "read")
			works := func(n *node, when string) {
				t.Helper()
				if a := c.call(n, "sandbox_key_list_issues", map[string]any{"session": handle}); a.code != "" {
					t.Errorf("%s: %s", when, a.raw)
				}
			}
			works(n, "before")
			for i := range 2 {
				keys, err := n.Vault.Keys(t.Context(), c.env, "", "", "", 100)
				must(t, err)
				if len(keys) == 0 {
					t.Fatal("no context has a key")
				}
				for _, k := range keys {
					must(t, n.Vault.Replace(t.Context(), k.ID, i == 1))
				}
				until(t, "everything follows", func() bool {
					s, err := n.Vault.Status(t.Context())
					must(t, err)
					return s.WaitingVersions == 0
				})
				for _, k := range keys {
					info, err := n.Vault.Key(t.Context(), c.env, "", k.ID)
					must(t, err)
					if info.Version != int64(i+2) {
						t.Errorf("%v seals with version %d", info.Context, info.Version)
					}
					for _, o := range info.Older {
						if o.Values != 0 {
							t.Errorf("%d values of %v are under version %d", o.Values, info.Context, o.Version)
						}
					}
				}
				works(n, "after")
			}
			n.stop()
			<-n.done
			works(c.add(nil), "after a restart")
		})
	}
}

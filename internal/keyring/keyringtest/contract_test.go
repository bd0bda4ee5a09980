package keyringtest_test

import (
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
)

// The contract holds for the kit's own keeper, whose service has every lever.
func TestContract(t *testing.T) {
	t.Parallel()
	keyringtest.Contract(t, func(t *testing.T) *keyringtest.Bench {
		s, other := keyringtest.New(t), keyringtest.New(t)
		be := func(m keyringtest.Mode) func() { return func() { s.Be(m) } }
		s.Delay(time.Hour)
		k := s.Keeper(t)
		return &keyringtest.Bench{
			Keeper: k, Again: s.Keeper, Other: other.Keeper(t),
			Disable: be(keyringtest.Denied), Enable: be(keyringtest.Fine),
			Throttle: be(keyringtest.Throttled), Silence: be(keyringtest.Slow), Break: be(keyringtest.Broken), Garble: be(keyringtest.Garbage),
			Restore: be(keyringtest.Fine),
		}
	})
}

package keyringtest

import (
	"testing"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/keyring"
)

// Benchmark measures one wrap and one unwrap.
func Benchmark(b *testing.B, k keyring.Keeper) {
	seed, p := crypt.NewSeed(), place("a")
	blob, err := k.Wrap(b.Context(), seed, p)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("wrap", func(b *testing.B) {
		for b.Loop() {
			if _, err := k.Wrap(b.Context(), seed, p); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("unwrap", func(b *testing.B) {
		for b.Loop() {
			if _, err := k.Unwrap(b.Context(), blob, p); err != nil {
				b.Fatal(err)
			}
		}
	})
}

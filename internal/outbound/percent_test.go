package outbound_test

import (
	"testing"

	"github.com/ambit-dev/ambit/internal/outbound"
)

// Bound and the arguments of tools are judged by the same decoding (threats.md
// U3): what one of them misses, the other must not wave through.
func TestDecodeOnce(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":             "",
		"plain":        "plain",
		"%2e%2E":       "..",
		"%252e":        "%2e", // one layer only
		"a%2Fb%5Cc":    "a/b\\c",
		"%":            "%",
		"%2":           "%2",
		"%zz%4":        "%zz%4",
		"%%32e":        "%2e",
		"100%":         "100%",
		"%00%7F":       "\x00\x7f",
		"caf%C3%A9+%2": "caf\u00e9+%2",
	} {
		if got := outbound.DecodeOnce(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

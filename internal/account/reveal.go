package account

import (
	"crypto/subtle"
	"slices"
	"strings"
	"time"

	"github.com/pquerna/otp/hotp"

	"github.com/ambit-dev/ambit/internal/secret"
)

// This file holds all that looks inside a secret.Value in this room.

func linkURL(base string, token secret.Value) secret.Value {
	return secret.New(append([]byte(base+"/ui/enroll#"), token.Reveal()...))
}

func vouchURL(base string, token secret.Value) secret.Value {
	return secret.New(append([]byte(base+"/ui/vouch#"), token.Reveal()...))
}

const (
	totpPeriod = 30 // seconds
	totpSkew   = 1  // steps, for clocks that differ
)

// totpStep gives the time step around now whose code this is. It looks at all
// steps in any case, so that its duration says nothing.
func totpStep(seed secret.Value, code string, now time.Time) (step int64, ok bool) {
	key, current := string(seed.Reveal()), now.Unix()/totpPeriod
	for s := current - totpSkew; s <= current+totpSkew; s++ {
		want, err := hotp.GenerateCode(key, uint64(s))
		if err == nil && subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 {
			step, ok = s, true
		}
	}
	return step, ok
}

// joined is a token with text behind it, which is kept together.
func joined(token secret.Value, rest string) secret.Value {
	return secret.New(append(slices.Clone(token.Reveal()), rest...))
}

// cut gives what is before and behind the first sep.
func cut(v secret.Value, sep string) (before secret.Value, after string, found bool) {
	head, after, found := strings.Cut(string(v.Reveal()), sep)
	return secret.FromString(head), after, found
}

package credential

import (
	"bytes"
	"strconv"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
)

// minSecret is the shortest secret that can be told from other text, and so be
// kept out of what an agent reads.
const minSecret = 8

const codeUnusable = "credential_unusable"

// usable refuses a credential whose secret parts the redactor could not find in
// every form (threats.md U1).
func usable(rec provider.Record, m material) error {
	names := rec.Carried()
	if rec.OAuth != nil {
		for _, s := range rec.OAuth.Slots {
			names = append(names, slotToken(s.Name))
		}
	}
	for _, name := range names {
		if rec.Public(name) {
			continue
		}
		v, ok := m.values[name]
		if !ok || v.IsZero() {
			continue
		}
		if why := unusable(name, v); why != "" {
			return fault.New(fault.Invalid, codeUnusable, "The "+name+" "+why+", so it could not be kept out of what agents read.").
				WithHint("Use a credential of at least " + strconv.Itoa(minSecret) + " printable ASCII characters.")
		}
	}
	return nil
}

func unusable(name string, v secret.Value) string {
	b := v.Reveal()
	if len(bytes.TrimSpace(b)) < minSecret {
		return "has under " + strconv.Itoa(minSecret) + " characters"
	}
	for _, c := range b {
		if c == ' ' && name == provider.FieldPassword {
			continue
		}
		if c < 0x21 || c > 0x7e {
			return "holds a character that is not printable ASCII"
		}
	}
	return ""
}

package accounttest

import (
	"strings"

	"github.com/ambit-dev/ambit/internal/secret"
)

// LinkToken gives the token of an enrolment link: its fragment, which a person's
// browser reads and sends.
func LinkToken(link secret.Value) secret.Value {
	_, token, _ := strings.Cut(string(link.Reveal()), "#")
	return secret.FromString(token)
}

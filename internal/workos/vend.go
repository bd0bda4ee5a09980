package workos

import (
	"net/http"
	"unicode/utf8"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/vault"
)

// vend is the one place of this room where a value leaves: to the application
// whose key was allowed to read it, with the read already on record.
func vend(o vault.Object, value secret.Value) (answer, error) {
	raw := value.Reveal()
	if !utf8.Valid(raw) {
		return answer{}, fault.New(fault.Invalid, "value_not_text", "The value is binary, and this interface carries text only.")
	}
	return answer{http.StatusOK, struct {
		object
		Value string `json:"value"`
	}{objectOf(o), string(raw)}}, nil
}

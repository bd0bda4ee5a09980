package workos

import (
	"encoding/base64"
	"net/http"
	"unicode/utf8"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/vault"
)

// This file is the one place of this room where secrets leave: to the application
// whose key was allowed to have them, with that already on record.

// vend answers with a value.
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

// vendDataKey answers with a data key; whole adds what the application keeps
// beside its data.
func vendDataKey(k vault.DataKey, whole bool) answer {
	type plain struct {
		ID  id.DataKey `json:"id"`
		Key string     `json:"data_key"`
	}
	out := plain{k.ID, base64.StdEncoding.EncodeToString(k.Key.Reveal())}
	if !whole {
		return answer{http.StatusOK, out}
	}
	items := k.Context
	if items == nil {
		items = map[string]string{}
	}
	return answer{http.StatusOK, struct {
		plain
		Keys    string            `json:"encrypted_keys"`
		Context map[string]string `json:"context"`
	}{out, base64.StdEncoding.EncodeToString(k.Wrapped), items}}
}

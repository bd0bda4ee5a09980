package secret_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/secret"
)

type outer struct {
	Exported secret.Value
	hidden   secret.Value
	ptr      *secret.Value
	Map      map[string]secret.Value
	List     []secret.Value
}

// K8: no printer, encoder or logger reaches the bytes, through any shape.
func TestNothingPrintsAValue(t *testing.T) {
	t.Parallel()
	const canary = "canary-7f3a9c"
	v := secret.FromString(canary)
	shapes := map[string]any{
		"bare": v, "pointer": &v,
		"struct": outer{Exported: v, hidden: v, ptr: &v, Map: map[string]secret.Value{"k": v}, List: []secret.Value{v}},
		"slice":  []secret.Value{v}, "map": map[string]any{"v": v},
		"error": fmt.Errorf("using %v: %w", v, fmt.Errorf("%s", v)),
	}
	for name, shape := range shapes {
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, verb+"\n", shape)
		}
		_ = json.NewEncoder(&out).Encode(shape)
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "v", shape)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "v", shape)
		_ = gob.NewEncoder(&out).Encode(shape)
		text := out.String()
		for _, form := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprint([]byte(canary))} {
			if strings.Contains(text, form) {
				t.Errorf("%s: printed the secret as %q", name, form)
			}
		}
	}
}

func TestValueIsACopy(t *testing.T) {
	t.Parallel()
	b := []byte("abc")
	v := secret.New(b)
	clear(b)
	if got := string(v.Reveal()); got != "abc" {
		t.Errorf("got %q after the caller cleared its slice, want abc", got)
	}
	if !v.Equal(secret.FromString("abc")) || v.Equal(secret.FromString("abd")) || v.Equal(secret.Value{}) {
		t.Error("Equal does not compare contents")
	}
}

// S9: only the exact form of a token passes the filter.
func TestIsTokenRefusesEveryVariation(t *testing.T) {
	t.Parallel()
	tok := string(secret.Token("amb_at_").Reveal())
	if !secret.IsToken(secret.FromString(tok), "amb_at_") {
		t.Fatal("a fresh token is refused")
	}
	for i := range tok {
		if secret.IsToken(secret.FromString(tok[:i]), "amb_at_") {
			t.Errorf("prefix of length %d accepted", i)
		}
	}
	for _, bad := range []string{tok + "A", tok + "=", " " + tok, tok + "\n", strings.ToUpper(tok), "amb_rt_" + tok[7:]} {
		if secret.IsToken(secret.FromString(bad), "amb_at_") {
			t.Errorf("variation %q accepted", bad)
		}
	}
}

// K9: two secrets cannot be compared in a time that tells how much of them agrees: ==
// on values does not compile, and Equal looks at all of both.
func TestK9ComparedInConstantTimeOnly(t *testing.T) {
	t.Parallel()
	if reflect.TypeFor[secret.Value]().Comparable() {
		t.Error("values can be compared with ==")
	}
	v := secret.FromString("canary-7f3a9c")
	for other, want := range map[string]bool{"canary-7f3a9c": true, "canary-7f3a9d": false, "danary-7f3a9c": false, "canary-7f3a9": false, "canary-7f3a9cc": false, "": false} {
		if got := v.Equal(secret.FromString(other)); got != want {
			t.Errorf("equal to %q: %v", other, got)
		}
	}
}

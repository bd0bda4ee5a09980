package strictjson_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// S13: ambiguous documents are refused before dispatch.
func TestCheck(t *testing.T) {
	t.Parallel()
	good := []string{`{}`, `[]`, `null`, `"a"`, `{"a":{"b":[1,2,{"a":1}]},"c":{"a":2}}`, `{"a":"A","b":"a"}`, ` {"a":1} `}
	for _, s := range good {
		if err := strictjson.Check([]byte(s), strictjson.Limits{}); err != nil {
			t.Errorf("%s: refused: %v", s, err)
		}
	}
	bad := map[string]string{
		"duplicate":         `{"method":"a","method":"b"}`,
		"nested duplicate":  `{"p":{"x":1,"x":2}}`,
		"case variant":      `{"method":"a","Method":"b"}`,
		"long s":            `{"scope":"a","ſcope":"b"}`,
		"kelvin":            `{"key":1,"\u212aey":2}`,
		"escaped duplicate": `{"a":1,"\u0061":2}`,
		"invalid utf-8":     "{\"a\":\"\xff\"}",
		"nul":               `{"a":"\u0000"}`,
		"trailing":          `{} {}`,
		"empty":             ``,
		"cut":               `{"a":`,
		"lone surrogate":    `{"a":"\ud800"}`,
		"comment":           `{"a":1/*x*/}`,
		"nan":               `{"a":NaN}`,
		"too deep":          strings.Repeat("[", 65) + strings.Repeat("]", 65),
		"too big":           `"` + strings.Repeat("a", 1<<20) + `"`,
		"too many":          "[" + strings.Repeat("1,", 100_000) + "1]",
	}
	for name, s := range bad {
		err := strictjson.Check([]byte(s), strictjson.Limits{})
		if k := fault.KindOf(err); err == nil || k != fault.Invalid && k != fault.TooLarge {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
}

func TestUnmarshalMatchesNamesByCase(t *testing.T) {
	t.Parallel()
	var v struct {
		Method string `json:"method"`
	}
	for _, s := range []string{`{"METHOD":"x"}`, `{"method":"x","extra":1}`, `{"method":1}`} {
		if err := strictjson.Unmarshal([]byte(s), &v, strictjson.Limits{}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: got %v, want invalid", s, err)
		}
	}
	if err := strictjson.Unmarshal([]byte(`{"method":"x"}`), &v, strictjson.Limits{}); err != nil || v.Method != "x" {
		t.Errorf("got %q, %v", v.Method, err)
	}
}

func FuzzCheck(f *testing.F) {
	for _, s := range []string{`{"a":1,"b":[true,null,"x"]}`, `{"a":1,"A":2}`, `[[[]]]`, `"\u0061"`, `1e5`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		if strictjson.Check(doc, strictjson.Limits{}) != nil {
			return
		}
		if !json.Valid(doc) {
			t.Fatalf("accepted what is not JSON: %q", doc)
		}
		once, err := strictjson.Canonical(doc)
		if err != nil {
			t.Fatalf("accepted, but has no canonical form: %q: %v", doc, err)
		}
		twice, err := strictjson.Canonical(once)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("canonical form is not stable: %q then %q (%v)", once, twice, err)
		}
	})
}

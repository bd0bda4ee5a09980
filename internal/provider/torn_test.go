package provider

import (
	"io"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/secret"
)

// U1, and the hole of a Range that goes through the credential: however an echo is
// sliced, the parts together do not show it, and what lies around it stays.
func TestPartsDoNotShowTheCredential(t *testing.T) {
	t.Parallel()
	red := redactorOf(t)
	for name, form := range echoes() {
		if name == "escaped" || name == "twice" || name == "broken" { // a part may begin within an escape of the upstream's own making
			continue
		}
		form = strings.TrimPrefix(form, "Bearer ")
		text := "you sent: " + form + " and no more"
		for _, size := range []int{1, 2, 3, 5, 9, 13, 25} {
			for first := range size {
				var shown strings.Builder
				for from := -first; from < len(text); from += size {
					part := text[max(0, from):min(len(text), from+size)]
					for _, length := range []int64{int64(len(part)), -1} {
						out, err := io.ReadAll(red.Part(&pieces{text: part, size: 4}, length))
						if err != nil || len(out) != len(part) {
							t.Fatalf("%s: a part of %d bytes has %d, %v", name, len(part), len(out), err)
						}
						if length < 0 {
							shown.Write(out)
						}
					}
				}
				// Three characters at a border may be anything.
				for i := 0; i+8 <= len(form); i++ {
					if strings.Contains(shown.String(), form[i:i+8]) {
						t.Fatalf("%s in parts of %d shows %q: %s", name, size, form[i:i+8], shown.String())
					}
				}
			}
		}
	}
	for _, text := range []string{"nothing of it", "say \\u00", "", "~", strings.Repeat("a long text ", 20_000)} {
		out, err := io.ReadAll(red.Part(&pieces{text: text, size: 4096}, int64(len(text))))
		if string(out) != text || err != nil {
			t.Errorf("a part that holds nothing of it is changed: %.60q, %v", out, err)
		}
	}
}

// A part ends within the credential behind a text long enough for the filter.
func TestTornEndOfLongPart(t *testing.T) {
	t.Parallel()
	red := redactorOf(t)
	text := canary[10:] + strings.Repeat(" between ", 10_000) + canary[:12]
	out, err := io.ReadAll(red.Part(strings.NewReader(text), int64(len(text))))
	want := strings.Repeat("*", len(canary)-10) + strings.Repeat(" between ", 10_000) + strings.Repeat("*", 12)
	if string(out) != want || err != nil {
		t.Errorf("%.40q … %q, %v", out, out[len(out)-20:], err)
	}
}

// A short secret is too common to be looked for inside text; as a whole string of
// JSON it is one, whatever the door.
func TestShortSecretInStreamedJSON(t *testing.T) {
	t.Parallel()
	var f formSet
	f.add(secret.FromString("hunt\"2").Reveal())
	red := newRedactor(&f)
	long := `"` + strings.Repeat("x", 300) + `\"hunt\"2",`
	for text, want := range map[string]string{
		`{"password":"hunt\"2","n":1}`:        `{"password":"*******","n":1}`,
		`{"hunt\u00222":"HUNT\"2"}`:           `{"***********":"*******"}`,
		`["hunt\"2x","a hunt\"2"]`:            `["hunt\"2x","a hunt\"2"]`,
		"data: {\"a\":\"\\\"q\\\"\"}\n\nit's": "data: {\"a\":\"\\\"q\\\"\"}\n\nit's",
		"[" + long + `"hunt\"2"]`:             "[" + long + `"*******"]`,
		`["hunt\"2`:                           `["*******`,
	} {
		for _, size := range []int{1, 3, 1000} {
			out, err := io.ReadAll(&quotedSecrets{src: &pieces{text: text, size: size}, red: red})
			if string(out) != want || err != nil {
				t.Errorf("%s in pieces of %d: %s, %v", text, size, out, err)
			}
		}
	}
}

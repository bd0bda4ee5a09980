//go:build !race

// The race detector keeps more memory than the code does, and its slowness lets
// garbage pile up; ./check runs this test by itself.

package provider_test

import (
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"testing"

	"github.com/ambit-dev/ambit/internal/provider/providertest"
)

// U5: an upstream cannot make the process run out of memory with an answer full
// of escapes, nor with many at once. It is not parallel, so that nothing else
// uses memory meanwhile.
func TestHostileAnswersTakeBoundedMemory(t *testing.T) {
	// Garbage that waits for its collection is not what is looked for here.
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	const size = 10<<20 - 64
	fill := func(s string) string { return strings.Repeat(s, size/len(s)) }
	for name, body := range map[string]string{
		"percent": fill("%2525"), "backslash": fill(`\\\\`), "entities": fill("&amp;amp;"), "lines": fill("a\n"), "ampersands": fill("&"),
		"echo": fill(apiKey + " "), "JSON string": `"` + fill(`\\\\`) + `"`, "JSON list": "[" + strings.TrimSuffix(fill(`"\\n",`), ",") + "]",
		"JSON echo": "[" + strings.TrimSuffix(fill(`"`+apiKey+`",`), ",") + "]", "JSON long echo": `"` + fill(apiKey+" ") + `"`,
	} {
		media := "text/plain"
		switch {
		case strings.HasPrefix(name, "JSON"):
			media = "application/json"
		case name == "ampersands":
			media = "application/x-www-form-urlencoded"
		}
		raw := []byte(body)
		k := keyed(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", media)
			_, _ = w.Write(raw)
		})
		ask := func() {
			if a, err := k.call(t, "get_issue", `{"number":1}`); err != nil || strings.Contains(string(a.Body), apiKey) {
				t.Errorf("%s: got %v with %d bytes", name, err, len(a.Body))
			}
		}
		if got := providertest.Peak(ask); got > 64<<20 {
			t.Errorf("%s: one call takes %d MiB", name, got>>20)
		} else {
			t.Logf("%s: one call takes %d MiB", name, got>>20)
		}
		if name != "percent" && name != "JSON echo" {
			continue
		}
		got := providertest.Peak(func() {
			var wg sync.WaitGroup
			for range 12 {
				wg.Go(ask)
			}
			wg.Wait()
		})
		if got > 256<<20 {
			t.Errorf("%s: 12 calls take %d MiB", name, got>>20)
		} else {
			t.Logf("%s: 12 calls take %d MiB", name, got>>20)
		}
	}
}

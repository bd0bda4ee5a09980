//go:build e2e

package e2e

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The judges of pages must see what is planted, or their silence means nothing.
func TestJudgesSee(t *testing.T) {
	t.Parallel()
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'nonce-known'; require-trusted-types-for 'script'; trusted-types 'none'")
		_, _ = io.WriteString(w, `<!doctype html><html lang="en"><title>Bad</title><main><h1 id="h">Bad</h1><img src="/x.png"><form><input></form></main>
			<script>inline</script><script nonce="known">setTimeout(() => { throw new Error("planted") })</script>`)
	}))
	t.Cleanup(bad.Close)
	b := newBrowser(t, bad.URL)
	b.open("/")
	b.until("the page ran", `document.readyState === "complete"`)
	var axe []string
	for _, f := range b.axe() {
		axe = append(axe, f.ID)
	}
	for _, want := range []string{"image-alt", "label"} {
		if !strings.Contains(strings.Join(axe, " "), want) {
			t.Errorf("axe-core: got %v, want %s among them", axe, want)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	all := strings.Join(b.problems, "\n")
	for _, want := range []string{"script-src", "img-src", "script error"} {
		if !strings.Contains(all, want) {
			t.Errorf("problems of the page: got %s, want %s among them", all, want)
		}
	}
	b.problems = nil
}

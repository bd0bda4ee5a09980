package web

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// Writes every page into a folder, to be looked at in a browser.
func TestWritePages(t *testing.T) {
	dir := os.Getenv("AMBIT_RENDER_DIR")
	if dir == "" {
		t.Skip("AMBIT_RENDER_DIR names no folder")
	}
	r := testRenderer(t)
	for name, p := range fixtures() {
		w := httptest.NewRecorder()
		r.render(w, 200, p)
		if w.Code != 200 {
			t.Errorf("%s: got status %d, want 200", name, w.Code)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".html"), w.Body.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for address, a := range r.assets {
		to := filepath.Join(dir, filepath.FromSlash(address))
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, a.body, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

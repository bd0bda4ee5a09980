package scan

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

func packed(b []byte, times int) string {
	for range times {
		var out bytes.Buffer
		z, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed)
		_, _ = z.Write(b)
		_ = z.Close()
		b = out.Bytes()
	}
	return string(b)
}

// What is too deep or too wide to be parsed is read as text, and what is not read at all is
// told.
func TestTooMuchToParse(t *testing.T) {
	t.Parallel()
	deep := func(open, end string) string { return strings.Repeat(open, 100) + "%s" + strings.Repeat(end, 100) }
	for name, form := range map[string]string{
		"a.json": "{\"a\":" + deep("[", "]") + "}", "a.toml": "a = " + deep("[", "]"), "a.yaml": deep("[", "]"), "a.xml": "<?xml version=\"1.0\"?>" + deep("<a>", "</a>"),
		"b.toml": strings.Repeat("a = 1\n", maxNodes+1) + "a = %s\n", "b.yaml": strings.Repeat("- a\n", maxYAML+1) + "- %s\n",
		"section.toml": "[" + strings.Repeat("a.", 100) + "a]\nb = %s\n", "key.toml": strings.Repeat("a.", 100) + "b = %s\n",
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, name), fmt.Sprintf(form, `"`+token(1)+`"`))
		if r := scanDir(t, dir, Options{}); len(r.Findings) != 1 || !r.Complete {
			t.Errorf("%s: %d findings, skipped %v", name, len(r.Findings), r.Skipped)
		}
	}
	for name, text := range map[string]string{"a.gz": packed([]byte(token(1)), maxPacked+1), ".gitignore": strings.Repeat("a*\n", maxPatterns+1), ".ambitignore": strings.Repeat("a", maxPattern+1)} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, name), text)
		if r := scanDir(t, dir, Options{}); len(r.Skipped) != 1 || r.Complete || filepath.Base(r.Skipped[0].Path) != name {
			t.Errorf("%s: skipped %v", name, r.Skipped)
		}
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.gz"), packed([]byte("GITHUB_TOKEN="+token(1)), maxPacked))
	if r := scanDir(t, dir, Options{}); len(r.Findings) != 1 || !r.Complete {
		t.Errorf("packed: %d findings, skipped %v", len(r.Findings), r.Skipped)
	}
}

//go:build !race

// The race detector keeps more memory than the code does; ./check runs this test by itself.

package scan

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// hostile are files that are small and take much.
func hostile() map[string]string {
	const all = 4 << 20
	fill := func(s string) string { return strings.Repeat(s, all/len(s)) }
	half := func(s string) string { return strings.Repeat(s, (2<<20-8)/len(s)) }
	distinct := func(form string, n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, form, i)
		}
		return b.String()
	}
	return map[string]string{
		"deep.toml":       "a = " + fill("["),
		"deep2.toml":      "a = " + fill("{a="),
		"wide.toml":       "a = [" + fill("1,"),
		"lines.toml":      fill("a=\n"),
		"section.toml":    "[" + fill("a.") + "a]\nb=1\n",
		"key.toml":        fill("a.") + "b = 1\n",
		"sections.toml":   fill("[a]\n"),
		"comments.ini":    fill("#\n"),
		"junk.ini":        fill("x\n"),
		"more.properties": "a=" + fill("b\\\n"),
		"wide.json":       "[" + fill("1,") + "1]",
		"objects.json":    "[" + fill("{},") + "{}]",
		"deep.json":       fill("["),
		"comments.json":   "{\n" + fill("#\n") + "}",
		"strings.json":    "[" + fill("\"\",") + "\"\"]",
		"inner.json":      `{"a":"` + fill(`[\"a\"],`) + `"}`,
		"text.json":       `{"a":"[` + fill(`1,`) + `1]"}`,
		"book.ipynb":      `{"cells":[` + fill(`{"source":["a"]},`) + `{}]}`,
		"a.jsonl":         fill("{}\n"),
		"deep.yaml":       half("["),
		"deep2.yaml":      half("- "),
		"wide.yaml":       half("- a\n"),
		"flow.yaml":       "[" + half("a,") + "a]",
		"docs.yaml":       half("---\n"),
		"alias.yaml":      "a: &a b\n" + half("- *a\n"),
		"anchor.yaml":     distinct("a%[1]d: &a%[1]d [*a0]\n", 90_000),
		"laughs.yaml":     "a: &a [x,x,x,x,x,x,x,x,x]\n" + distinct("b%[1]d: &b%[1]d [*a,*a,*a,*a]\n", 1000),
		"wide.xml":        "<?xml version=\"1.0\"?><a>" + fill("<b/>") + "</a>",
		"deep.xml":        "<?xml version=\"1.0\"?>" + fill("<a>"),
		"attrs.xml":       "<?xml version=\"1.0\"?><a " + distinct("a%d=\"\" ", 300_000) + "/>",
		"names.txt":       strings.Repeat("key ", 1<<18),
		"flags.txt":       strings.Repeat("-u", 1<<18),
		"urls.txt":        strings.Repeat("://", 1<<18),
		"eyj.txt":         fill("eyJ"),
		"line.env":        "A=" + fill("x"),
		"tokens.env":      distinct("T%d="+token(1)[:8]+"kZ9qW3vLm2Rt5YbN8cXs7Df4GhJ1\n", 20_000),
		".pgpass":         fill("a\n"),
		".netrc":          fill("machine "),
		"deep.gz":         packed(bytes.Repeat([]byte("x"), 100), 2000),
		"bomb.gz":         packed(make([]byte, 64<<20), 1),
	}
}

// TestHostileChild is what TestSmallFilesThatTakeMuch runs in a process of its own.
func TestHostileChild(t *testing.T) {
	dir := os.Getenv("AMBIT_SCAN_HOSTILE")
	if dir == "" {
		t.Skip("it is run by another test")
	}
	start := time.Now()
	r := scanDir(t, dir, Options{})
	status, _ := os.ReadFile("/proc/self/status") // Maxrss counts what was before exec
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	n, _ := strconv.Atoi(strings.Fields(peak)[0])
	t.Logf("peak %d kB, took %s, %d findings, skipped %v", n, time.Since(start).Round(time.Millisecond), len(r.Findings), r.Skipped)
}

// Issue 8 bounds the memory of a scan at 200 MiB. A bug: small files took up to 954 MiB:
// brackets in TOML, 340,000 patterns of an ignore file, gzip in gzip. threats.md F14.
func TestSmallFilesThatTakeMuch(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long")
	}
	if runtime.GOOS != "linux" {
		t.Skip("it asks /proc")
	}
	dirs := map[string]string{}
	for name, text := range hostile() {
		dir := t.TempDir()
		for i := range 2 { // read at the same time
			write(t, filepath.Join(dir, fmt.Sprint(i), name), text)
		}
		dirs[name] = dir
	}
	for name, text := range map[string]string{".gitignore": strings.Repeat("a*\n", 340_000), ".ambitignore": strings.Repeat("[a-z]*?\n", 100_000)} {
		dir := t.TempDir()
		at := dir
		for range 4 { // one below the other
			write(t, filepath.Join(at, name), text)
			write(t, filepath.Join(at, "a.env"), "A=1\n")
			at = filepath.Join(at, "x")
		}
		dirs[name] = dir
	}
	for name, dir := range dirs {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHostileChild$", "-test.v")
			cmd.Env = append(os.Environ(), "AMBIT_SCAN_HOSTILE="+dir)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out[max(0, len(out)-2000):])
			}
			_, said, _ := strings.Cut(string(out), "peak ")
			peak, err := strconv.Atoi(strings.Fields(said + " ?")[0])
			t.Logf("%d MiB, %.300s", peak>>10, said)
			if err != nil || peak >= 200<<10 {
				t.Errorf("%d MiB", peak>>10)
			}
		})
	}
}

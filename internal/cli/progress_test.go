package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"
)

func TestProgressIsForWhoeverWatches(t *testing.T) {
	t.Parallel()
	file, err := os.Create(t.TempDir() + "/stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for what, c := range map[string]*command{"a file": {stderr: file}, "a pipe": {stderr: &bytes.Buffer{}}} {
		if c.progress().w != nil {
			t.Errorf("%s is shown progress", what)
		}
	}
	var screen bytes.Buffer
	now := time.Unix(1, 0)
	p := &progress{w: &screen, now: func() time.Time { return now }}
	p.at(1000, "entry", "entries")
	p.at(2000, "entry", "entries") // too soon
	now = now.Add(time.Second)
	p.at(3000, "entry", "entries")
	p.end()
	if got := screen.String(); !strings.Contains(got, "1000 entries") || strings.Contains(got, "2000") || !strings.Contains(got, "3000 entries") || !strings.HasSuffix(got, "\r\x1b[K") {
		t.Errorf("shown: %q", got)
	}
}

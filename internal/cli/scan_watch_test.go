package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// shown is what a command has printed so far.
type shown struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *shown) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *shown) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// Issue 8: a watch stays, tells what comes and goes in a real folder, once each, and ends
// when it is interrupted. Its output holds no value. threats.md P2.
func TestScanWatch(t *testing.T) {
	t.Parallel()
	dir, value := planted(t)
	later := "sk-" + "proj-" + "b7Qw9Xz2Lk4Rt6Vn8Mc1Jd3Hs5Pf0GyAeUiOr7Tq"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, errs shown
	ended := make(chan int, 1)
	go func() { ended <- Main(ctx, []string{"scan", dir, "--watch"}, nil, &bytes.Buffer{}, &out, &errs) }()
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s was not told:\n%s\n%s", what, out.String(), errs.String())
			}
		}
	}
	lay := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	until("the beginning", func() bool { return strings.Contains(errs.String(), "Watching: 1 finding so far") })
	if n := strings.Count(out.String(), ".mcp.json"); n != 1 {
		t.Errorf("what was there is told %d times", n)
	}
	lay("notes.md", "Nothing of note.\n")
	lay(".env", "OPENAI_API_KEY="+later+"\n")
	until("what came", func() bool { return strings.Contains(out.String(), ".env") })
	lay(".mcp.json", `{"mcpServers": {}}`)
	until("what went", func() bool { return strings.Contains(out.String(), "gone: ") })
	lay(".env", "# moved down\n\nOPENAI_API_KEY="+later+"\n") // the same one at the same key
	lay("c.env", "OPENAI_API_KEY="+later+"\n")
	until("a copy", func() bool { return strings.Contains(out.String(), "c.env") })
	cancel()
	if code := <-ended; code != exitInterrupted {
		t.Errorf("it ended with %d", code)
	}
	all := out.String() + errs.String()
	if strings.Count(all, "gone: ") != 1 || !strings.Contains(all, "gone: "+filepath.Join(dir, ".mcp.json")) || strings.Contains(all, "notes.md") {
		t.Errorf("told:\n%s", all)
	}
	for _, v := range []string{value, value[8:20], later, later[10:22]} {
		if strings.Contains(all, v) {
			t.Error("the output holds a value")
		}
	}
}

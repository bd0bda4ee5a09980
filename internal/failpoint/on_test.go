//go:build failpoint

package failpoint

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A name acts at its turn and at no other.
func TestTurn(t *testing.T) {
	t.Parallel()
	p, err := parse("a: before=error@3; b=sleep:1ms")
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 5; n++ {
		if err := p.hit("a: before"); (err != nil) != (n == 3) {
			t.Errorf("hit %d: %v", n, err)
		}
		if err := p.hit("a: after"); err != nil {
			t.Errorf("another moment failed: %v", err)
		}
	}
	began := time.Now()
	if err := p.hit("b"); err != nil || time.Since(began) < time.Millisecond {
		t.Errorf("it slept %s, %v", time.Since(began), err)
	}
}

func TestMistakesAreRefused(t *testing.T) {
	t.Parallel()
	for _, spec := range []string{"a", "a=", "=kill", "a=kil", "a=kill@0", "a=kill@x", "a=sleep", "a=sleep:x", "a=error;b"} {
		if _, err := parse(spec); err == nil {
			t.Errorf("%q was taken", spec)
		}
	}
}

func TestNamesHitEach(t *testing.T) {
	path := t.TempDir() + "/trace"
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), "AMBIT_FAILPOINT=two row: after=kill@2", "AMBIT_FAILPOINT_TRACE="+path, "FAILPOINT_CHILD=1")
	err := cmd.Run()
	if st, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); err == nil || !ok || st.Signal() != syscall.SIGKILL {
		t.Fatalf("the child ended with %v", err)
	}
	trace, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const want = "testing.tRunner: after\none row: after\ntwo row: after\none row: after\ntwo row: after\n"
	if string(trace) != want {
		t.Errorf("the child passed\n%swant\n%s", trace, strings.TrimSpace(want))
	}
}

// TestChild is the process that dies.
func TestChild(t *testing.T) {
	if os.Getenv("FAILPOINT_CHILD") == "" {
		t.Skip("only as a child")
	}
	var none, n Names
	_ = none.Hit("after")
	for range 3 {
		n.Add("one", "row")
		n.Add("two", "row")
		_ = n.Hit("after")
	}
}

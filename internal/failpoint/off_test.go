//go:build !failpoint

package failpoint

import (
	"os/exec"
	"strings"
	"testing"
)

// In the product no call of this package and no name of a failpoint is left in
// the code of those who use it; with the tag there is.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", `{{$p := .ImportPath}}{{range .Imports}}{{if eq . "github.com/ambit-dev/ambit/internal/failpoint"}}{{$p}}{{end}}{{end}}`, "../...").Output()
	if err != nil {
		t.Fatal(err)
	}
	users := strings.Fields(string(out))
	if len(users) == 0 {
		t.Fatal("nothing uses failpoints")
	}
	for _, user := range users {
		if calls := calls(t, user); len(calls) > 0 {
			t.Errorf("%s still calls failpoints:\n%s", user, calls[0])
		}
		if calls := calls(t, user, "-tags", "failpoint"); len(calls) == 0 {
			t.Errorf("%s calls no failpoint with the tag, so its silence without it says nothing", user)
		}
	}
}

// calls gives the lines of a package's assembly that call failpoints or hold the
// name of a moment.
func calls(t *testing.T, pkg string, args ...string) (found []string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", append(append([]string{"build", "-gcflags=-S"}, args...), pkg)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", pkg, err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "CALL") && strings.Contains(line, "internal/failpoint.") || strings.Contains(line, `go:string."before commit"`) {
			found = append(found, line)
		}
	}
	return found
}

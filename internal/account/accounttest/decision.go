package accounttest

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// Decided reads from decision 6 what takes a person's proof: the names that
// match the one group of pattern, each with the heading of the table that it
// stands in. The test runs in a folder two below the module's.
func Decided(t testing.TB, pattern string) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/decisions/0006-raising-authority.md")
	if err != nil {
		t.Fatal(err)
	}
	name, out, heading := regexp.MustCompile(pattern), map[string]string{}, ""
	for line := range strings.Lines(string(text)) {
		if h, ok := strings.CutPrefix(line, "## "); ok {
			heading = strings.TrimSpace(h)
		}
		if !strings.HasPrefix(line, "|") || heading == "" {
			continue
		}
		for _, m := range name.FindAllStringSubmatch(line, -1) {
			if out[m[1]] != "" {
				t.Errorf("%s stands twice in the decision", m[1])
			}
			out[m[1]] = heading
		}
	}
	return out
}

package house

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// rulesOfTheProduct reads docs/rules.md: for each rule its tests, as
// "internal/room TestName".
func rulesOfTheProduct(t *testing.T) map[int][]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`^\| (\d+) \| [^|]+ \| ([^|]+) \|$`)
	list := regexp.MustCompile("^`([a-z/]+)`: (.+)$")
	out := map[int][]string{}
	for line := range strings.Lines(string(text)) {
		m := row.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		n, _ := strconv.Atoi(m[1])
		for part := range strings.SplitSeq(m[2], ";") {
			p := list.FindStringSubmatch(strings.TrimSpace(part))
			if p == nil {
				t.Fatalf("docs/rules.md, rule %d: %q does not read `internal/room`: tests", n, part)
			}
			for name := range strings.SplitSeq(p[2], ",") {
				out[n] = append(out[n], p[1]+" "+strings.TrimSpace(name))
			}
		}
	}
	return out
}

// Each of the nine rules has tests, they exist, and the patch that breaks the
// rule is held by some of them.
func TestEveryRuleHasItsTests(t *testing.T) {
	t.Parallel()
	rules := rulesOfTheProduct(t)
	for n := 1; n <= 9; n++ {
		numbered := false
		patch, err := os.ReadFile(fmt.Sprintf("../../testdata/break/%d.patch", n))
		if err != nil {
			t.Errorf("rule %d: %v", n, err)
		}
		command, _, _ := strings.Cut(string(patch), "\n")
		pattern := regexp.MustCompile(`-run '([^']+)'`).FindStringSubmatch(command)
		if pattern == nil {
			t.Errorf("%d.patch: the first line names no tests", n)
			continue
		}
		named, held := regexp.MustCompile(pattern[1]), false
		for _, entry := range rules[n] {
			room, name, _ := strings.Cut(entry, " ")
			if !defined(t, room, name) {
				t.Errorf("rule %d: %s has no %s", n, room, name)
			}
			numbered = numbered || strings.HasPrefix(name, fmt.Sprintf("TestRule%d", n))
			held = held || named.MatchString(name) && strings.Contains(command, "./"+room)
		}
		if !numbered {
			t.Errorf("rule %d has no test that bears its number", n)
		}
		if !held {
			t.Errorf("%d.patch names none of the rule's tests: %s", n, command)
		}
	}
}

// defined reports whether a test of that name stands in the room.
func defined(t *testing.T, room, name string) bool {
	t.Helper()
	files, err := filepath.Glob("../../" + room + "/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+name+"(t *testing.T)") {
			return true
		}
	}
	return false
}

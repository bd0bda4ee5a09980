package house

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
)

// Direct dependencies are a budget: each has its reason in docs/decisions.
func TestEachDependencyHasAReason(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	mod, err := modfile.Parse("go.mod", text, nil)
	if err != nil {
		t.Fatal(err)
	}
	notes, err := filepath.Glob(filepath.Join(root, "docs", "decisions", "*.md"))
	if err != nil || len(notes) == 0 {
		t.Fatalf("docs/decisions holds no notes (%v)", err)
	}
	var all strings.Builder
	for _, n := range notes {
		b, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	for _, r := range mod.Require {
		if !r.Indirect && !strings.Contains(all.String(), r.Mod.Path) {
			t.Errorf("%s is a direct dependency and docs/decisions does not say why", r.Mod.Path)
		}
	}
	for _, tool := range mod.Tool {
		if !strings.Contains(all.String(), strings.TrimSuffix(tool.Path, "/cmd/staticcheck")) {
			t.Errorf("the tool %s has no line in docs/decisions", tool.Path)
		}
	}
}

//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// folder holds what all tests share; it goes away with the process.
var folder string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if folder, err = os.MkdirTemp("", "ambit-e2e-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(folder)
		return m.Run()
	}())
}

// binary is the ambit that all tests run, built once.
var binary = sync.OnceValues(func() (string, error) {
	to := filepath.Join(folder, "ambit")
	if out, err := exec.Command("go", "build", "-o", to, "github.com/ambit-dev/ambit/cmd/ambit").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building ambit: %w\n%s", err, out)
	}
	return to, nil
})

// setting reads what ./check found or started.
func setting(t testing.TB, name string) string {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		t.Fatalf("%s is not set: run ./check --only e2e", name)
	}
	return v
}

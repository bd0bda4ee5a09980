//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/ambit-dev/ambit/e2e/world"
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
var binary = sync.OnceValues(func() (string, error) { return world.Build(context.Background(), folder) })

// setting reads what ./check found or started.
func setting(t testing.TB, name string) string {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		t.Fatalf("%s is not set: run ./check --only e2e", name)
	}
	return v
}

//go:build !linux

package sqldb_test

import (
	"os"
	"testing"
)

func mountTiny(t *testing.T, dir string) {
	t.Helper()
	t.Skip("a small file system is mounted on Linux only")
}

func sealFolder(t *testing.T, dir string) {
	t.Helper()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
}

func requireFull(t *testing.T, err error) { t.Helper() }

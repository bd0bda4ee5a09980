//go:build !linux

package sqldb_test

import "testing"

func mountTiny(t *testing.T, dir string) {
	t.Helper()
	t.Skip("a small file system is mounted on Linux only")
}

func requireFull(t *testing.T, err error) { t.Helper() }

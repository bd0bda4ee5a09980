package sqldb_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashFolder); dir != "" {
		crashWriter(dir)
		return
	}
	if place := os.Getenv(migratePlace); place != "" {
		migrateChild(place)
		return
	}
	if place := os.Getenv(leasePlace); place != "" {
		leaseChild(place)
		return
	}
	goleak.VerifyTestMain(m)
}

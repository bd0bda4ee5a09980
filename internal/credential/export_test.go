package credential

import (
	"context"
	"testing"

	"github.com/ambit-dev/ambit/internal/id"
)

// RefreshAfter refreshes as the owner of the lease, with between happening once
// the credential was read and the lease taken. It gives the version that the
// caller would use.
func (s *Service) RefreshAfter(t *testing.T, conn id.Connection, between func()) (int64, error) {
	t.Helper()
	r, err := s.load(t.Context(), conn)
	if err != nil {
		return 0, err
	}
	if mine, err := s.take(t.Context(), r, s.now()); err != nil || !mine {
		t.Fatalf("the lease: %v, %v", mine, err)
	}
	between()
	fresh, err := s.refreshOwned(context.WithoutCancel(t.Context()), r)
	return fresh.version, err
}

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

// RefreshUncertain refreshes as the owner of the lease, up to a commit that was not
// carried out and that the database does not speak about; between happens before
// anybody looks. It says whether the outcome was known then, and gives the version
// that the caller would use.
func (s *Service) RefreshUncertain(t *testing.T, conn id.Connection, between func()) (version int64, known bool, err error) {
	t.Helper()
	r, err := s.load(t.Context(), conn)
	if err != nil {
		return 0, false, err
	}
	if mine, err := s.take(t.Context(), r, s.now()); err != nil || !mine {
		t.Fatalf("the lease: %v, %v", mine, err)
	}
	ctx := context.WithoutCancel(t.Context())
	got, err := s.askAnew(ctx, &r)
	if err != nil {
		return 0, false, err
	}
	next := got.row
	if next.envelope, err = s.seal(ctx, next, got.material); err != nil {
		return 0, false, err
	}
	between()
	fresh, known, err := s.look(ctx, got, next, false)
	return fresh.version, known, err
}

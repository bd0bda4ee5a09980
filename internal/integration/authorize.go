package integration

import (
	"context"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/provider"
)

// Authorize gives the page where the person connects their account.
func (s *Service) Authorize(ctx context.Context, by account.Actor, which Aim, returnTo string, chosen map[string]string) (string, error) {
	a, err := s.writable(ctx, by, which)
	if err != nil {
		return "", err
	}
	if a.Provider.Record.Auth != provider.OAuth2 {
		return "", mismatch(a.Provider.Record)
	}
	if !a.Offered() {
		return "", fault.New(fault.Denied, "integration_disabled", "The data integration is not enabled.").WithHint("Enable it first.")
	}
	return s.cfg.Connections.ConnectURL(a.subject.Organization, a.Provider.Record.ID), nil
}

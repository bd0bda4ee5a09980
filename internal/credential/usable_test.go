package credential_test

import (
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// U1: what redaction could not take out of an answer is not connected at all.
func TestUnusableSecretDoesNotConnect(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.KeyProvider(t, "sandbox_key")
		for _, key := range []string{"short-7", "       1", "pässwörter", "with a blank", "line\nbreak-1", "nul\x00nul-12", "del\x7fdel-12", "half\xffbytes"} {
			_, err := s.Credentials.AddKey(t.Context(), s.me(t), start(s.World, "sandbox_key"), s.owner.ID, map[string]secret.Value{"api_key": secret.FromString(key)}, account.Agreement{})
			if code(err) != "credential_unusable" {
				t.Errorf("%q: got %v, want credential_unusable", key, err)
			}
		}
		if _, err := s.Credentials.AddKey(t.Context(), s.me(t), start(s.World, "sandbox_key"), s.owner.ID,
			map[string]secret.Value{"api_key": secret.FromString(gatewaytest.SandboxKey)}, account.Agreement{}); err != nil {
			t.Errorf("a good key: %v", err)
		}
		noa := s.Person(t, "noa@example.com", account.RoleMember)
		for _, token := range []string{"short-7", "made-up-tökén-1"} {
			back := s.Consent(t, s.Begin(t, noa, nil), gatewaytest.Mia)
			s.Fault(t, map[string]any{"path": "/oauth/token", "body": map[string]any{"access_token": token, "token_type": "Bearer"}})
			if _, err := s.Credentials.Callback(t.Context(), noa.Signed(t), s.Environment, "sandbox", back); code(err) != "credential_unusable" {
				t.Errorf("a sign-in that brings %q: got %v, want credential_unusable", token, err)
			}
			s.Mend(t)
		}
	})
}

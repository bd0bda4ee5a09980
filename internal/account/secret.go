package account

import (
	"context"
	"encoding/json"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/vault"
)

// RevealSecret gives a person the value of one version of a secret of org, or of
// the environment if org is empty; an empty versionID is the current one. It takes
// the role and an agreement to seeing exactly this value, which counts once: a
// stored login of the command line never gets one (threats.md T5, A9).
func (s *Service) RevealSecret(ctx context.Context, by Actor, c vault.Caller, sid id.Secret, versionID string, ag Agreement) (vault.Object, secret.Value, error) {
	if _, person := by.Person(); !person {
		return vault.Object{}, secret.Value{}, absent("")
	}
	if err := by.May(c.Organization, RevealSecrets); err != nil {
		return vault.Object{}, secret.Value{}, err
	}
	return s.vault.Reveal(ctx, c, sid, versionID, func(ctx context.Context, tx *sqldb.Tx, o vault.Object) (json.RawMessage, error) {
		w, err := s.Weigh(ctx, tx, by, Raise{Action: "secret.read", Environment: o.Environment, Organization: c.Organization, Object: string(o.ID),
			Version: o.Version, To: "shown", Facts: map[string]string{"name": o.Name, "version_id": o.VersionID}}, true, ag)
		if err != nil {
			return nil, err
		}
		return w.Evidence(), w.For(string(o.ID))
	})
}

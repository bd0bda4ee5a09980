package account

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Raise is one exact change that gives somebody or something more than it had,
// or takes from others the power to undo that. A person who makes it proves
// that they are there and agree to exactly this; whoever holds their cookie
// cannot (product.md rule 4, threats.md A9, W2). It names what it changes as it
// is now, so that a proof over what was shown does not count for what has
// become of it since.
type Raise struct {
	Action       string            `json:"action"` // of the audit entry that the change leaves
	Environment  id.Environment    `json:"environment_id"`
	Organization id.Organization   `json:"organization_id,omitempty"` // empty: more than one
	Object       string            `json:"object,omitempty"`          // what changes; empty: something new
	Version      int64             `json:"version,omitempty"`         // of the object, where it has one
	From         string            `json:"from,omitempty"`
	To           string            `json:"to"`
	Facts        map[string]string `json:"facts,omitempty"` // what else it depends on; no secret
}

// agreed is the document whose SHA-256 is what a person signs.
type agreed struct {
	Format string   `json:"format"`
	Origin string   `json:"origin"`
	User   id.User  `json:"user_id"`
	Login  id.Login `json:"login_id"`
	Nonce  string   `json:"nonce"` // tells two wishes for the same thing apart, since each proof acts once
	Raise
}

func (s *Service) document(p Person, r Raise, nonce string) []byte {
	// Strings and a number always encode, and the keys of a map in order.
	doc, _ := json.Marshal(agreed{Format: "ambit raise 1", Origin: s.origin, User: p.user, Login: p.login, Nonce: nonce, Raise: r})
	return doc
}

// RaiseDigest is what p proves presence for to agree to r.
func (s *Service) RaiseDigest(p Person, r Raise, nonce string) [32]byte {
	return sha256.Sum256(s.document(p, r, nonce))
}

// Agreement is a person's yes to one Raise. Only Agree makes one that counts.
// The zero Agreement agrees to nothing, which is right for every actor but a
// person, and for every change that raises nothing.
type Agreement struct {
	asks     bool
	nonce    string
	evidence Evidence
}

// Asking is what a method takes to change nothing and say, as an Unproven, to
// what a person would have to agree. Where nothing would be asked of them the
// answer is nothing_to_confirm.
func Asking() Agreement { return Agreement{asks: true} }

// Asks reports whether ag is Asking, for methods that make something ready before
// their transaction.
func (ag Agreement) Asks() bool { return ag.asks }

const maxNonce = 64

// Agree verifies that p agrees to exactly r, by their passkey or, where the
// organization allows it, by a code. Whether p may make the change, and whether
// r is still what it changes, is decided by the method that the agreement is
// for.
func (s *Service) Agree(ctx context.Context, p Person, r Raise, nonce string, proof Proof) (Agreement, error) {
	if nonce == "" || len(nonce) > maxNonce {
		return Agreement{}, fault.New(fault.Invalid, "invalid_nonce", "The form is incomplete.").WithHint("Open it again.")
	}
	org := r.Organization
	if _, ok := p.Role(org); !ok {
		org = "" // one who runs the environment is no member; Weigh holds the organization's own rules
	}
	doc := s.document(p, r, nonce)
	ev, err := s.Prove(ctx, p, sha256.Sum256(doc), org, proof)
	if err != nil {
		return Agreement{}, err
	}
	ev.fields.Document = string(doc)
	return Agreement{nonce: nonce, evidence: ev}, nil
}

// Unproven says that a change needs a person's agreement, and to what. Its
// fault is proof_required, or browser_required for a command line.
type Unproven struct {
	Raise Raise
	fault *fault.Error
}

func (u *Unproven) Error() string { return u.fault.Error() }
func (u *Unproven) Unwrap() error { return u.fault }

// Weighed says that a change may be made: by somebody who needs no proof for
// it, or with one that is now spent. Only Weigh makes one, in the transaction
// that makes the change, and what writes a row of authority takes it.
type Weighed struct {
	object   string
	evidence Evidence
	done     bool
}

// Weigh decides whether by may make the change r in tx, which raises authority
// or not. Applications and the server itself go on: they are not what a stolen
// cookie is. So does everybody with what raises nothing, so that shutting
// somebody out stays quick. A person needs an agreement to exactly r, of their
// own browser's login, which acts once. That by may do such a thing at all is
// for the caller to have decided before.
func (s *Service) Weigh(ctx context.Context, tx *sqldb.Tx, by Actor, r Raise, raises bool, ag Agreement) (Weighed, error) {
	free := Weighed{object: r.Object, done: true}
	p, person := by.Person()
	switch {
	case by.kind == "":
		return Weighed{}, fault.New(fault.Unauthenticated, "unauthenticated", "Nobody is signed in.")
	case ag.asks && (!person || !raises):
		return Weighed{}, fault.New(fault.Conflict, "nothing_to_confirm", "This takes no confirmation, or is so already.").WithHint("Go back and look.")
	case !person || !raises:
		return free, nil
	case p.CLI():
		return Weighed{}, &Unproven{r, fault.Of(browserRequired())}
	case ag.evidence.IsZero():
		return Weighed{}, &Unproven{r, fault.New(fault.Denied, "proof_required", "This needs your passkey, for exactly this.").
			WithHint("Open the page in a browser and confirm it there.")}
	case ag.evidence.user != p.user || ag.evidence.digest != s.RaiseDigest(p, r, ag.nonce):
		return Weighed{}, fault.New(fault.Conflict, "changed_meanwhile", "What you confirmed is not what this would change now.").
			WithHint("Look at it again, then confirm it anew.")
	}
	if err := s.codeCounts(ctx, tx, r.Organization, ag.evidence); err != nil {
		return Weighed{}, err
	}
	if err := s.Spend(ctx, tx, ag.evidence.digest); err != nil {
		return Weighed{}, err
	}
	free.evidence = ag.evidence
	return free, nil
}

// codeCounts refuses a code in an organization that demands passkeys, also of
// those who run its environment and are no members.
func (s *Service) codeCounts(ctx context.Context, tx *sqldb.Tx, org id.Organization, ev Evidence) error {
	if org == "" || ev.Method() == MethodPasskey {
		return nil
	}
	o, err := selectOrganization(ctx, tx, org)
	if err != nil {
		return sqldb.Wrap("read an organization", err)
	}
	if o.RequirePasskey {
		return fault.New(fault.Denied, "passkey_required", "This organization demands a passkey.").WithHint("Register a passkey and use it.")
	}
	return nil
}

// For refuses unless the change of exactly this object was weighed. It guards
// what writes, as a Permit guards a credential.
func (w Weighed) For(object string) error {
	if !w.done || w.object != object {
		return errors.New("a change of authority was written without being weighed")
	}
	return nil
}

// made gives a Weighed of something new the name that it now has.
func (w Weighed) made(object string) Weighed {
	if w.object == "" {
		w.object = object
	}
	return w
}

// Evidence is that of a person's agreement, for the audit entry of the change;
// nil where none was needed.
func (w Weighed) Evidence() json.RawMessage {
	if w.evidence.IsZero() {
		return nil
	}
	return w.evidence.JSON()
}

func (w Weighed) enter(e audit.Entry) audit.Entry {
	e.Evidence = w.Evidence()
	return e
}

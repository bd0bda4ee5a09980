package provider

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/vault"
)

// DraftAge is how long a person may take to agree to a record.
const DraftAge = time.Hour

// maxDrafts is how many a person may have; the oldest gives way.
const maxDrafts = 20

// Draft is a record that a person has handed in, from a form or a command line,
// and that counts for nothing until they agree to it in a browser. Whoever
// handed it in finds it again, and nobody else.
type Draft struct {
	ID        id.Draft
	Record    Record
	ClientID  string
	NewSecret bool // a client secret came with it
	ExpiresAt time.Time

	// As in Input.
	IfVersion    int64
	Organization id.Organization
	For          Audience
	AcceptShared bool
	Overlap      *time.Duration
}

// draftRow is a stored draft.
type draftRow struct {
	id        id.Draft
	slug      string
	record    []byte
	clientID  string
	envelope  []byte
	ifVersion int64
	expires   int64

	organization id.Organization
	audience     Audience
	accepted     int64
	overlap      int64 // in microseconds; negative: not said
}

func draftPlace(env id.Environment, user id.User, r draftRow) vault.Place {
	return vault.Place{Environment: env, User: user, Kind: "provider_draft", Object: string(r.id), Version: 1, Provider: r.slug}
}

// Draft checks what Put would be given and keeps it. A draft that it follows, or
// one that says the same, gives its client secret when there is no new one, and
// is forgotten.
func (s *Store) Draft(ctx context.Context, by account.Actor, in Input, follows id.Draft) (Draft, error) {
	env, user := by.Environment(), by.User()
	if user == "" {
		return Draft{}, fault.New(fault.Denied, "person_required", "A draft is a person's.")
	}
	if follows == "" {
		var err error
		if follows, err = s.sameDraft(ctx, by, in); err != nil {
			return Draft{}, err
		}
	}
	if follows != "" && in.ClientSecret.IsZero() {
		var err error
		if in.ClientSecret, err = s.secretBefore(ctx, by, follows, in); err != nil {
			return Draft{}, err
		}
	}
	rec, err := s.checked(ctx, by, in)
	if err != nil {
		return Draft{}, err
	}
	now := s.cfg.Now()
	r := draftRow{id: id.NewDraft(), slug: rec.ID, record: in.YAML, clientID: in.ClientID, ifVersion: in.IfVersion, expires: sqldb.Micros(now.Add(DraftAge)),
		organization: in.Organization, audience: in.For, overlap: -1}
	if in.AcceptShared {
		r.accepted = 1
	}
	if in.Overlap != nil {
		r.overlap = in.Overlap.Microseconds()
	}
	if !in.ClientSecret.IsZero() {
		if r.envelope, err = s.cfg.Vault.Seal(ctx, draftPlace(env, user, r), in.ClientSecret); err != nil {
			return Draft{}, err
		}
	}
	err = s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := s.namesFree(ctx, tx, env, rec); err != nil {
			return err
		}
		if err := deleteDraft(ctx, tx, user, follows); err != nil {
			return err
		}
		return insertDraft(ctx, tx, env, user, r, sqldb.Micros(now))
	})
	if err != nil {
		return Draft{}, err
	}
	return r.public(rec), nil
}

func (s *Store) checked(ctx context.Context, by account.Actor, in Input) (rec Record, err error) {
	if in.Organization != "" {
		rec, _, _, err = s.checkOwn(ctx, by, in)
	} else {
		rec, _, _, err = s.check(ctx, by, in)
	}
	return rec, err
}

// secretBefore gives the client secret of an earlier draft, unless it would now
// go to another place (see next).
func (s *Store) secretBefore(ctx context.Context, by account.Actor, draft id.Draft, in Input) (secret.Value, error) {
	r, err := s.draft(ctx, by, draft)
	if fault.Is(err, "not_found") {
		return secret.Value{}, nil
	}
	if err != nil {
		return secret.Value{}, err
	}
	was, errWas := s.library.Parse(r.record)
	now, errNow := s.library.Parse(in.YAML)
	if errWas != nil || errNow != nil || !sameClient(was, now) || r.clientID != in.ClientID || r.organization != in.Organization {
		return secret.Value{}, nil
	}
	return s.draftSecret(ctx, by, r)
}

func (r draftRow) public(rec Record) Draft {
	in := r.input()
	return Draft{ID: r.id, Record: rec, ClientID: r.clientID, NewSecret: r.envelope != nil, ExpiresAt: sqldb.Time(r.expires),
		IfVersion: in.IfVersion, Organization: in.Organization, For: in.For, AcceptShared: in.AcceptShared, Overlap: in.Overlap}
}

// input is what Put is given, but for the secret.
func (r draftRow) input() Input {
	in := Input{YAML: r.record, ClientID: r.clientID, IfVersion: r.ifVersion, Organization: r.organization, For: r.audience, AcceptShared: r.accepted != 0}
	if r.overlap >= 0 {
		d := time.Duration(r.overlap) * time.Microsecond
		in.Overlap = &d
	}
	return in
}

// Drafted finds a draft of the person who acts.
func (s *Store) Drafted(ctx context.Context, by account.Actor, draft id.Draft) (Draft, error) {
	r, err := s.draft(ctx, by, draft)
	if err != nil {
		return Draft{}, err
	}
	rec, err := s.library.Parse(r.record)
	return r.public(rec), err
}

// Accept puts what a draft says, with the person's agreement to it, and forgets
// the draft.
func (s *Store) Accept(ctx context.Context, by account.Actor, draft id.Draft, ag account.Agreement) (Provider, error) {
	r, err := s.draft(ctx, by, draft)
	if err != nil {
		return Provider{}, err
	}
	in := r.input()
	if in.ClientSecret, err = s.draftSecret(ctx, by, r); err != nil {
		return Provider{}, err
	}
	return s.put(ctx, by, in, ag, func(ctx context.Context, tx *sqldb.Tx) error { return deleteDraft(ctx, tx, by.User(), draft) })
}

func (s *Store) draftSecret(ctx context.Context, by account.Actor, r draftRow) (secret.Value, error) {
	if r.envelope == nil {
		return secret.Value{}, nil
	}
	return s.cfg.Vault.Open(ctx, draftPlace(by.Environment(), by.User(), r), r.envelope)
}

const (
	insertDraftSQL = `insert into provider_draft (id, environment_id, user_id, slug, record, client_id, client_secret, if_version, created_at, expires_at, organization_id, client_for, accept_shared, overlap)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`
	draftSQL = `select id, slug, record, client_id, client_secret, if_version, expires_at, organization_id, client_for, accept_shared, overlap from provider_draft
		where id = $1 and environment_id = $2 and user_id = $3 and expires_at > $4`
	sameDraftSQL = `select id from provider_draft where environment_id = $1 and user_id = $2 and record = $3 and client_id = $4 and if_version = $5 and expires_at > $6
		and organization_id = $7 order by id desc limit 1`
	deleteDraftSQL = `delete from provider_draft where user_id = $1 and id = $2`
	sweepDraftsSQL = `delete from provider_draft where expires_at <= $1 or user_id = $2 and id not in (
		select id from provider_draft where user_id = $2 order by id desc limit $3)`
)

func (s *Store) draft(ctx context.Context, by account.Actor, draft id.Draft) (draftRow, error) {
	var r draftRow
	err := s.cfg.DB.Reader().QueryRowContext(ctx, draftSQL, draft, by.Environment(), by.User(), sqldb.Micros(s.cfg.Now())).
		Scan(&r.id, &r.slug, &r.record, &r.clientID, &r.envelope, &r.ifVersion, &r.expires,
			&r.organization, &r.audience, &r.accepted, &r.overlap)
	if sqldb.NoRows(err) {
		return draftRow{}, fault.New(fault.NotFound, "not_found", "This record was confirmed already, or was handed in too long ago.").
			WithHint("Look under Providers, or hand it in again.")
	}
	return r, sqldb.Wrap("read a draft", err)
}

// sameDraft finds what the person has handed in with the same words.
func (s *Store) sameDraft(ctx context.Context, by account.Actor, in Input) (id.Draft, error) {
	var found id.Draft
	err := s.cfg.DB.Reader().QueryRowContext(ctx, sameDraftSQL, by.Environment(), by.User(), in.YAML, in.ClientID, in.IfVersion, sqldb.Micros(s.cfg.Now()), in.Organization).Scan(&found)
	if sqldb.NoRows(err) {
		return "", nil
	}
	return found, sqldb.Wrap("look for the same draft", err)
}

// insertDraft also forgets what is too old or too many.
func insertDraft(ctx context.Context, tx *sqldb.Tx, env id.Environment, user id.User, r draftRow, now int64) error {
	_, err := tx.ExecContext(ctx, insertDraftSQL, r.id, env, user, r.slug, r.record, r.clientID, r.envelope, r.ifVersion, now, r.expires,
		r.organization, r.audience, r.accepted, r.overlap)
	if err == nil {
		_, err = tx.ExecContext(ctx, sweepDraftsSQL, now, user, maxDrafts)
	}
	return sqldb.Wrap("keep a draft", err)
}

func deleteDraft(ctx context.Context, tx *sqldb.Tx, user id.User, draft id.Draft) error {
	_, err := tx.ExecContext(ctx, deleteDraftSQL, user, draft)
	return sqldb.Wrap("forget a draft", err)
}

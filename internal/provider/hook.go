package provider

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/strictjson"
	"github.com/ambit-dev/ambit/internal/vault"
)

// A provider can tell us that an access has ended there: somebody removed the app,
// or revoked its tokens. It signs what it tells with a secret that an admin stores
// for the provider. A notice decides nothing but that, and what it says counts only
// for connections of providers that have this very secret.

// Webhooks says in whose way the provider tells what happens there.
type Webhooks struct {
	Style string `yaml:"style" enum:"slack,github"`
}

// HookPath is where a provider of an environment sends its notices.
func HookPath(env id.Environment, slug string) string {
	return "/hooks/" + string(env) + "/" + slug
}

// MaxNotice bounds a notice, in bytes.
const MaxNotice = 1 << 20

// noticeWindow is how far the time of a notice may be from ours, where it has one.
const noticeWindow = 5 * time.Minute

// Notice is what a provider told.
type Notice struct {
	Event     string // such as tokens_revoked
	Challenge string // to be given back, and nothing else
	Ends      []Ended
	Digest    [32]byte // of its text: the same one twice is told once
}

// Ended names connections whose access ended at the provider, or goes on again.
// Those fields that are set must all fit.
type Ended struct {
	Kind    Auth   // empty: any
	Account string // the account's id
	Place   string // as [Record.AccountPlace] writes it
	Reason  string
	Resumes bool // what ended for this reason goes on
}

// The reasons of what a provider tells.
const (
	ReasonRevoked   = "provider_revoked"
	ReasonSuspended = "provider_suspended"
)

func badNotice() *fault.Error {
	return fault.New(fault.Unauthenticated, "signature_invalid", "The notice is not signed with the secret of this provider, or not now.").
		WithHint("Store the signing secret that the provider shows for the app.")
}

// readNotice checks the signature of a notice and reads it.
func readNotice(style string, key secret.Value, header http.Header, body []byte, now time.Time) (Notice, error) {
	var of func([]byte) (Notice, error)
	switch style {
	case "slack":
		stamp := header.Get("X-Slack-Request-Timestamp")
		at, err := strconv.ParseInt(stamp, 10, 64)
		if age := now.Sub(time.Unix(at, 0)).Abs(); err != nil || age > noticeWindow || !signed(key, header.Get("X-Slack-Signature"), "v0=", "v0:"+stamp+":", body) {
			return Notice{}, badNotice()
		}
		of = slackNotice
	case "github":
		if !signed(key, header.Get("X-Hub-Signature-256"), "sha256=", "", body) {
			return Notice{}, badNotice()
		}
		event := header.Get("X-GitHub-Event")
		of = func(b []byte) (Notice, error) { return githubNotice(event, b) }
	default:
		return Notice{}, notFound()
	}
	if err := strictjson.Check(body, strictjson.Limits{}); err != nil {
		return Notice{}, fault.New(fault.Invalid, "notice_unreadable", "The notice is not JSON.").WithHint("Have the provider send JSON.")
	}
	n, err := of(body)
	n.Digest = sha256.Sum256(body)
	return n, err
}

// signed compares in constant time.
func signed(key secret.Value, got, prefix, before string, body []byte) bool {
	hexed, ok := strings.CutPrefix(got, prefix)
	sum, err := hex.DecodeString(hexed)
	if !ok || err != nil || key.IsZero() {
		return false
	}
	mac := hmac.New(sha256.New, key.Reveal())
	mac.Write([]byte(before))
	mac.Write(body)
	return hmac.Equal(sum, mac.Sum(nil))
}

func slackNotice(body []byte) (Notice, error) {
	var doc struct {
		Type      string `json:"type"`
		Challenge string `json:"challenge"`
		Team      string `json:"team_id"`
		Event     struct {
			Type   string `json:"type"`
			Tokens struct {
				OAuth []string `json:"oauth"`
				Bot   []string `json:"bot"`
			} `json:"tokens"`
		} `json:"event"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return Notice{}, unreadableNotice()
	}
	if doc.Type == "url_verification" {
		if doc.Challenge == "" || len(doc.Challenge) > 500 || strings.ContainsFunc(doc.Challenge, unprintable) {
			return Notice{}, unreadableNotice()
		}
		return Notice{Event: doc.Type, Challenge: doc.Challenge}, nil
	}
	n := Notice{Event: doc.Event.Type}
	if doc.Team == "" || len(doc.Team) > maxAccountField {
		return n, nil
	}
	place := "team=" + doc.Team
	switch doc.Event.Type {
	case "app_uninstalled":
		n.Ends = []Ended{{Place: place, Reason: ReasonRevoked}}
	case "tokens_revoked":
		for _, user := range slices.Concat(doc.Event.Tokens.OAuth, doc.Event.Tokens.Bot) {
			if user != "" && len(n.Ends) < maxEnded {
				n.Ends = append(n.Ends, Ended{Account: user, Place: place, Reason: ReasonRevoked})
			}
		}
	}
	return n, nil
}

const maxEnded = 1000

func githubNotice(event string, body []byte) (Notice, error) {
	var doc struct {
		Action       string `json:"action"`
		Installation struct {
			ID json.Number `json:"id"`
		} `json:"installation"`
		Sender struct {
			ID json.Number `json:"id"`
		} `json:"sender"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return Notice{}, unreadableNotice()
	}
	n := Notice{Event: event + "." + doc.Action}
	ends := func(e Ended) {
		if e.Account != "" {
			n.Ends = []Ended{e}
		}
	}
	switch n.Event {
	case "installation.deleted":
		ends(Ended{Kind: GitHubApp, Account: doc.Installation.ID.String(), Reason: ReasonRevoked})
	case "installation.suspend":
		ends(Ended{Kind: GitHubApp, Account: doc.Installation.ID.String(), Reason: ReasonSuspended})
	case "installation.unsuspend":
		ends(Ended{Kind: GitHubApp, Account: doc.Installation.ID.String(), Reason: ReasonSuspended, Resumes: true})
	case "github_app_authorization.revoked":
		ends(Ended{Kind: OAuth2, Account: doc.Sender.ID.String(), Reason: ReasonRevoked})
	}
	return n, nil
}

func unreadableNotice() error {
	return fault.New(fault.Invalid, "notice_unreadable", "The notice does not have the form of this provider's.")
}

// hookRow is the secret that a provider's notices are signed with.
type hookRow struct {
	slug     string
	envelope []byte
	version  int64
}

func (h hookRow) place(env id.Environment) vault.Place {
	return vault.Place{Environment: env, Kind: "provider_hook", Object: h.slug, Version: h.version, Provider: h.slug}
}

const (
	hooksSQL   = `select slug, envelope, version from provider_hook where environment_id = $1 order by slug`
	putHookSQL = `insert into provider_hook (environment_id, slug, envelope, created_at, version) values ($1, $2, $3, $4, $5)
		on conflict (environment_id, slug) do update set envelope = excluded.envelope, created_at = excluded.created_at, version = excluded.version where provider_hook.version = excluded.version - 1`
	dropHookSQL   = `delete from provider_hook where environment_id = $1 and slug = $2`
	hookVersion   = `select version from provider_hook where environment_id = $1 and slug = $2`
	minHookSecret = 8
	maxHookSecret = 1000
)

// SetHook stores the secret with which a provider signs its notices, over what was
// there. It gives the path that they are sent to.
func (s *Store) SetHook(ctx context.Context, by account.Actor, slug string, key secret.Value) (string, error) {
	env := by.Environment()
	if err := by.May("", account.ManageProviders); err != nil {
		return "", err
	}
	p, err := s.Get(ctx, env, slug)
	if err != nil {
		return "", err
	}
	if p.Record.Webhooks == nil {
		return "", fault.New(fault.Invalid, "no_notices", p.Record.Name+" has no notices that are understood.").WithHint("Its record needs the section webhooks.")
	}
	if n := key.Len(); n < minHookSecret || n > maxHookSecret {
		return "", fault.New(fault.Invalid, "secret_invalid", "A signing secret has 8 to 1000 characters.").WithHint("Give the one that the provider shows for the app.")
	}
	h := hookRow{slug: slug}
	err = s.cfg.DB.Reader().QueryRowContext(ctx, hookVersion, env, slug).Scan(&h.version)
	if err != nil && !sqldb.NoRows(err) {
		return "", sqldb.Wrap("read a signing secret", err)
	}
	h.version++
	if h.envelope, err = s.cfg.Vault.Seal(ctx, h.place(env), key); err != nil {
		return "", err
	}
	err = s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := one(tx.ExecContext(ctx, putHookSQL, env, slug, h.envelope, sqldb.Micros(s.cfg.Now()), h.version)); err != nil {
			return err
		}
		s.audit(tx, by, "provider.hook_set", slug, nil, nil)
		return nil
	})
	return HookPath(env, slug), err
}

// DropHook removes the secret, if there is one: notices are not taken any more.
func (s *Store) DropHook(ctx context.Context, by account.Actor, slug string) error {
	env := by.Environment()
	if err := by.May("", account.ManageProviders); err != nil {
		return err
	}
	if _, err := s.Get(ctx, env, slug); err != nil {
		return err
	}
	return s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		res, err := tx.ExecContext(ctx, dropHookSQL, env, slug)
		if err != nil {
			return sqldb.Wrap("remove a signing secret", err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return sqldb.Wrap("remove a signing secret", err)
		}
		s.audit(tx, by, "provider.hook_removed", slug, nil, nil)
		return nil
	})
}

// Notice reads what a provider sent to its path. It counts for each provider of the
// environment that has the same way and the same secret: one app of GitHub's tells of
// people and of installations at one address, and here they are two providers.
func (s *Store) Notice(ctx context.Context, env id.Environment, slug string, header http.Header, body []byte) (Notice, []string, error) {
	rows, err := sqldb.Collect(func(from sqldb.Scanner) (h hookRow, err error) {
		return h, from.Scan(&h.slug, &h.envelope, &h.version)
	})(s.cfg.DB.Reader().QueryContext(ctx, hooksSQL, env))
	if err != nil {
		return Notice{}, nil, sqldb.Wrap("read signing secrets", err)
	}
	read := func(h hookRow) (Notice, error) {
		p, err := s.Get(ctx, env, h.slug)
		if err != nil {
			return Notice{}, err
		}
		if p.Record.Webhooks == nil {
			return Notice{}, notFound()
		}
		key, err := s.cfg.Vault.Open(ctx, h.place(env), h.envelope)
		if err != nil {
			return Notice{}, err
		}
		return readNotice(p.Record.Webhooks.Style, key, header, body, s.cfg.Now())
	}
	at := slices.IndexFunc(rows, func(h hookRow) bool { return h.slug == slug })
	if at < 0 {
		return Notice{}, nil, notFound()
	}
	n, err := read(rows[at])
	if err != nil {
		return Notice{}, nil, err
	}
	slugs := []string{slug}
	for i, h := range rows {
		if i == at {
			continue
		}
		if _, err := read(h); err == nil {
			slugs = append(slugs, h.slug)
		}
	}
	return n, slugs, nil
}

// lintWebhooks checks the section webhooks.
func (r *Record) lintWebhooks(l *linter) {
	w := r.Webhooks
	if w == nil {
		return
	}
	l.oneOf("webhooks.style", w.Style, "slack", "github")
	if w.Style == "slack" && !slices.ContainsFunc(r.Capture, func(c Capture) bool { return c.Name == "team" && c.Account }) {
		l.add("webhooks.style", "Add {name: team, from: identity, field: team_id, account: true} to capture.", "A notice of Slack names a workspace, and the record does not tell it.")
	}
}

// Package webhook tells applications of what happens. A telling is written in the
// transaction of what happened, so that none is lost, and then delivered at least
// once: a POST of JSON, signed as the Standard Webhooks specification says, to an
// address that passes the same gates as every other that leaves for a place that a
// tenant chose (package outbound). Its webhook-id is that of the audit entry which
// says the same, so that who gets it twice can tell.
//
// An endpoint that does not answer is asked less and less often; after five days of
// failures it is switched off, and the owners of its environment are told. What was
// not delivered stays for a month and can be sent again, one telling or all of a
// time.
package webhook

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/mail"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/throttle"
	"github.com/ambit-dev/ambit/internal/vault"
)

// Config is what a Service needs.
type Config struct {
	DB       *sqldb.DB
	Vault    *vault.Vault
	Audit    *audit.Log
	People   *account.Service
	Outbound *outbound.Client
	Kinds    []string // of events that there are
	Mail     Mailer   // nil: this server sends none
	Now      func() time.Time
	Logger   *slog.Logger
}

// Mailer sends mail. An error of kind fault.Invalid says that the server refused it.
type Mailer interface {
	Send(ctx context.Context, m mail.Message) error
}

// Service keeps endpoints and delivers to them. Start it.
type Service struct {
	cfg   Config
	log   *slog.Logger
	mails *throttle.Limiter // that somebody asks for: by address, and by organization
	stop  context.CancelFunc
	done  chan struct{}
}

// KindTest is the event that only a person asks for, to try an endpoint.
const KindTest = "webhook.test"

const (
	maxEndpoints = 50 // of one environment or organization
	maxURL       = 2000
	maxText      = 200
	// An admin chooses to whom the operator's domain writes, so what they ask for
	// themselves is few: five trials or replays at once, then one in five minutes.
	mailRate   = 1.0 / 300
	mailBurst  = 5
	mailReplay = 20 // in one replay
	// DefaultOverlap is how long both secrets sign when one is replaced.
	DefaultOverlap = 24 * time.Hour
	maxOverlap     = 30 * 24 * time.Hour
)

// New makes a Service.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Vault.Keeps(keeps()...)
	return &Service{cfg: cfg, log: cfg.Logger, mails: throttle.New(mailRate, mailBurst, 20_000, cfg.Now)}
}

// Kinds lists the events that an endpoint can ask for.
func (s *Service) Kinds() []string { return slices.Clone(s.cfg.Kinds) }

// Endpoint is where an application is told.
type Endpoint struct {
	ID           id.Webhook
	Environment  id.Environment
	Organization id.Organization // empty: of the whole environment
	User         id.User         // whose own notices go there; empty: nobody's
	Form         Form
	URL          string // of Slack, its host only; of mail, mailto: and the address
	Description  string
	Events       []string // empty: all
	Enabled      bool
	Reason       string    // why it is not: failing, gone or switched_off
	OldUntil     time.Time // until when a replaced secret signs too; zero: there is none
	FailingSince time.Time
	CreatedAt    time.Time
	UpdatedAt    time.Time
	Version      int64

	secret, old   []byte
	secretVersion int64
	failures      int
	pausedUntil   time.Time
}

// Input is what is said of an endpoint.
type Input struct {
	Organization id.Organization // of a new one; empty: the whole environment
	Form         Form            // of a new one
	URL          string          // empty in a change of Slack's: as it was
	Description  string
	Events       []string
}

// Create adds an endpoint and gives the secret that its deliveries are signed
// with, which is shown this once. What people read is not signed, and has none. An
// endpoint outlives the login that makes it, so a person agrees to exactly it.
func (s *Service) Create(ctx context.Context, by account.Actor, in Input, ag account.Agreement) (Endpoint, secret.Value, error) {
	if in.Organization == "" {
		in.Organization = by.Organization()
	}
	if err := by.May(in.Organization, account.ManageWebhooks); err != nil {
		return Endpoint{}, secret.Value{}, err
	}
	if err := s.check(ctx, in); err != nil {
		return Endpoint{}, secret.Value{}, err
	}
	now := s.now()
	shown, hidden := in.address()
	e := Endpoint{ID: id.NewWebhook(), Environment: by.Environment(), Organization: in.Organization, Form: in.Form, URL: shown, Description: in.Description, Events: in.Events, Enabled: true,
		CreatedAt: now, UpdatedAt: now, Version: 1, secretVersion: 1}
	sec, err := s.sealed(ctx, &e, hidden, ag)
	if err != nil {
		return Endpoint{}, secret.Value{}, err
	}
	r := account.Raise{Action: "webhook.created", Environment: e.Environment, Organization: e.Organization, To: e.URL,
		Facts: map[string]string{"form": string(e.Form), "description": e.Description, "events": strings.Join(e.Events, " ")}}
	if in.Form == FormSlack {
		r.Facts["address_sha256"] = addressHash(hidden)
	}
	err = s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		w, err := s.cfg.People.Weigh(ctx, tx, by, r, true, ag)
		if err != nil {
			return err
		}
		n, err := countEndpoints(ctx, tx, e.Environment, e.Organization)
		if err != nil {
			return err
		}
		if n >= maxEndpoints {
			return fault.New(fault.TooLarge, "too_many_webhooks", "There are as many webhooks here as there can be.").WithHint("Remove one that is not used any more.")
		}
		if err := insertEndpoint(ctx, tx, e); err != nil {
			return err
		}
		s.audit(tx, by, r.Action, e, w)
		return nil
	})
	if err != nil {
		return Endpoint{}, secret.Value{}, err
	}
	return e, sec, nil
}

// sealed is newSecret, but for who only asks what is to be agreed to, for whom nothing
// is made.
func (s *Service) sealed(ctx context.Context, e *Endpoint, address secret.Value, ag account.Agreement) (secret.Value, error) {
	if ag.Asks() {
		return secret.Value{}, nil
	}
	return s.newSecret(ctx, e, address)
}

// newSecret gives e what it keeps sealed: of Slack the address, which is not told
// again; else 256 random bits, as Standard Webhooks writes them. Mail is not signed, so
// nobody is told them.
func (s *Service) newSecret(ctx context.Context, e *Endpoint, address secret.Value) (secret.Value, error) {
	v := address
	if e.Form != FormSlack {
		raw := make([]byte, 32)
		_, _ = rand.Read(raw)
		v = secret.FromString("whsec_" + base64.StdEncoding.EncodeToString(raw))
	}
	var err error
	e.secret, err = s.cfg.Vault.Seal(ctx, e.place(e.secretVersion), v)
	if e.Form != FormEvent {
		return secret.Value{}, err
	}
	return v, err
}

func (e Endpoint) place(version int64) vault.Place {
	return vault.Place{Environment: e.Environment, Organization: e.Organization, Kind: "webhook", Object: string(e.ID), Version: version}
}

func (s *Service) check(ctx context.Context, in Input) error {
	if err := s.checkForm(in); err != nil {
		return err
	}
	if err := s.checkPlace(ctx, in); err != nil {
		return err
	}
	if len(in.Description) > maxText {
		return fault.New(fault.TooLarge, "description_too_long", "The description is over 200 bytes.")
	}
	for _, kind := range in.Events {
		if !slices.Contains(s.cfg.Kinds, kind) {
			return fault.New(fault.Invalid, "unknown_event", "There is no such event.").WithHint("The events are: " + strings.Join(s.cfg.Kinds, ", ") + ".")
		}
	}
	return nil
}

func (s *Service) checkPlace(ctx context.Context, in Input) error {
	if in.Form == FormMail {
		to, ok := strings.CutPrefix(in.URL, mailto)
		if !ok {
			return fault.New(fault.Invalid, "webhook_url", "Mail goes to an address such as mailto:team@example.com.")
		}
		return mail.CheckAddress(to)
	}
	u, err := url.Parse(in.URL)
	if err != nil || len(in.URL) > maxURL || u.Fragment != "" || u.User != nil {
		return fault.New(fault.Invalid, "webhook_url", "That is not an address to send to.").WithHint("Give a URL such as https://example.com/hooks, without a user name or fragment.")
	}
	return s.cfg.Outbound.Check(ctx, bare(in.URL))
}

// bare is a URL without its query.
func bare(raw string) string {
	before, _, _ := strings.Cut(raw, "?")
	return before
}

// Get finds an endpoint that the actor manages.
func (s *Service) Get(ctx context.Context, by account.Actor, hook id.Webhook) (Endpoint, error) {
	return s.get(ctx, s.cfg.DB.Reader(), by, hook)
}

// alone makes transactions about an endpoint run one after another. An endpoint is
// written whole, so what another read of it before would undo this one's change; and
// those that count failures hold each other's deliveries.
func alone(ctx context.Context, tx *sqldb.Tx, hook id.Webhook) error {
	return tx.Serialize(ctx, "webhook "+string(hook))
}

func (s *Service) get(ctx context.Context, q sqldb.Querier, by account.Actor, hook id.Webhook) (Endpoint, error) {
	if _, person := by.Person(); !person {
		if err := by.May(by.Organization(), account.ManageWebhooks); err != nil { // before a look-up could tell more
			return Endpoint{}, err
		}
	}
	e, err := endpoint(ctx, q, by.Environment(), hook)
	if sqldb.NoRows(err) || err == nil && (e.User != "" || by.May(e.Organization, account.ManageWebhooks) != nil) {
		return Endpoint{}, fault.New(fault.NotFound, "not_found", "No such webhook.")
	}
	return e, sqldb.Wrap("read a webhook", err)
}

// List gives the endpoints of an organization, or of the whole environment when org
// is empty.
func (s *Service) List(ctx context.Context, by account.Actor, org id.Organization) ([]Endpoint, error) {
	if org == "" {
		org = by.Organization()
	}
	if err := by.May(org, account.ManageWebhooks); err != nil {
		return nil, err
	}
	list, err := endpoints(ctx, s.cfg.DB.Reader(), by.Environment(), org)
	return list, sqldb.Wrap("list webhooks", err)
}

// Edit changes address, description and events. What is said replaces all three. Another
// address, and an event more, is somebody who is told what they were not before, so a
// person agrees to it as to a new endpoint.
func (s *Service) Edit(ctx context.Context, by account.Actor, hook id.Webhook, in Input, ag account.Agreement) (Endpoint, error) {
	now, err := s.Get(ctx, by, hook)
	if err != nil {
		return Endpoint{}, err
	}
	in.Form = now.Form
	if in.Form == FormSlack && in.URL == "" {
		in.URL = now.URL
	}
	moves := in.Form == FormSlack && in.URL != now.URL // else its address stays as it is sealed
	if err := s.check(ctx, in); err != nil {
		return Endpoint{}, err
	}
	shown, hidden := in.address()
	next := now
	if moves {
		next.secretVersion++
		if _, err := s.sealed(ctx, &next, hidden, ag); err != nil {
			return Endpoint{}, err
		}
	}
	weigh := func(ctx context.Context, tx *sqldb.Tx, e Endpoint) (account.Weighed, error) {
		r := account.Raise{Action: "webhook.updated", Environment: e.Environment, Organization: e.Organization, Object: string(e.ID), Version: e.Version, From: e.URL, To: shown,
			Facts: map[string]string{"form": string(e.Form), "description": in.Description, "events": strings.Join(in.Events, " ")}}
		if moves {
			r.Facts["address_sha256"] = addressHash(hidden)
		}
		return s.cfg.People.Weigh(ctx, tx, by, r, moves || shown != e.URL || more(e.Events, in.Events), ag)
	}
	return s.weighed(ctx, by, hook, "webhook.updated", weigh, func(e *Endpoint) error {
		if e.secretVersion != now.secretVersion {
			return moved()
		}
		if moves {
			e.secret, e.secretVersion = next.secret, next.secretVersion
		}
		e.URL, e.Description, e.Events = shown, in.Description, in.Events
		return nil
	})
}

// more reports whether an endpoint would be told what it is not told now.
func more(now, then []string) bool {
	return len(now) > 0 && (len(then) == 0 || slices.ContainsFunc(then, func(kind string) bool { return !slices.Contains(now, kind) }))
}

// addressHash stands for an address that is a secret.
func addressHash(v secret.Value) string {
	hash := v.Hash()
	return hex.EncodeToString(hash[:])
}

// Enable switches an endpoint on again; what is delivered from then on is what
// happens from then on. Replay sends the rest.
func (s *Service) Enable(ctx context.Context, by account.Actor, hook id.Webhook) (Endpoint, error) {
	return s.change(ctx, by, hook, "webhook.enabled", func(e *Endpoint) error {
		e.Enabled, e.Reason, e.failures, e.FailingSince, e.pausedUntil = true, "", 0, time.Time{}, time.Time{}
		return nil
	})
}

// Disable switches an endpoint off until somebody enables it.
func (s *Service) Disable(ctx context.Context, by account.Actor, hook id.Webhook) (Endpoint, error) {
	return s.change(ctx, by, hook, "webhook.disabled", func(e *Endpoint) error {
		e.Enabled, e.Reason = false, "switched_off"
		return nil
	})
}

// Rotate gives an endpoint a new secret, which is shown this once. For overlap the
// old one signs as well: there is then a signature of each. Whoever has the secret
// signs as Ambit does, so a person agrees to it.
func (s *Service) Rotate(ctx context.Context, by account.Actor, hook id.Webhook, overlap time.Duration, ag account.Agreement) (Endpoint, secret.Value, error) {
	if overlap < 0 || overlap > maxOverlap {
		return Endpoint{}, secret.Value{}, fault.New(fault.Invalid, "overlap_invalid", "Both secrets sign for 0 seconds to 30 days.")
	}
	now, err := s.Get(ctx, by, hook)
	if err != nil {
		return Endpoint{}, secret.Value{}, err
	}
	if now.Form != FormEvent {
		return Endpoint{}, secret.Value{}, fault.New(fault.Invalid, "no_secret", "What people read is not signed.").WithHint("To send it elsewhere, change its address.")
	}
	next := now
	next.secretVersion++
	sec, err := s.sealed(ctx, &next, secret.Value{}, ag)
	if err != nil {
		return Endpoint{}, secret.Value{}, err
	}
	e, err := s.weighed(ctx, by, hook, "webhook.rotated", func(ctx context.Context, tx *sqldb.Tx, e Endpoint) (account.Weighed, error) {
		r := account.Raise{Action: "webhook.rotated", Environment: e.Environment, Organization: e.Organization, Object: string(e.ID), Version: e.Version, To: "a new secret",
			Facts: map[string]string{"overlap": overlap.String()}}
		return s.cfg.People.Weigh(ctx, tx, by, r, true, ag)
	}, func(e *Endpoint) error {
		if e.secretVersion != now.secretVersion {
			return moved()
		}
		e.old, e.OldUntil = nil, time.Time{}
		if overlap > 0 {
			e.old, e.OldUntil = e.secret, s.now().Add(overlap)
		}
		e.secret, e.secretVersion = next.secret, next.secretVersion
		return nil
	})
	if err != nil {
		return Endpoint{}, secret.Value{}, err
	}
	return e, sec, nil
}

func moved() error {
	return fault.New(fault.Conflict, "version_conflict", "The webhook was changed in the meantime.").WithHint("Read it again and repeat the change.")
}

func (s *Service) change(ctx context.Context, by account.Actor, hook id.Webhook, action string, fn func(*Endpoint) error) (Endpoint, error) {
	return s.weighed(ctx, by, hook, action, nil, fn)
}

// weighed changes an endpoint as fn says once weigh, if there is one, lets it.
func (s *Service) weighed(ctx context.Context, by account.Actor, hook id.Webhook, action string, weigh func(context.Context, *sqldb.Tx, Endpoint) (account.Weighed, error), fn func(*Endpoint) error) (Endpoint, error) {
	var e Endpoint
	err := s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		var err error
		if err = alone(ctx, tx, hook); err != nil {
			return err
		}
		if e, err = s.get(ctx, tx, by, hook); err != nil {
			return err
		}
		var w account.Weighed
		if weigh != nil {
			if w, err = weigh(ctx, tx, e); err != nil {
				return err
			}
		}
		if err := fn(&e); err != nil {
			return err
		}
		e.UpdatedAt = s.now()
		e.Version++
		if err := saveEndpoint(ctx, tx, e); err != nil {
			return err
		}
		s.audit(tx, by, action, e, w)
		return nil
	})
	return e, err
}

// Delete removes an endpoint and what was to be told to it.
func (s *Service) Delete(ctx context.Context, by account.Actor, hook id.Webhook) error {
	return s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := alone(ctx, tx, hook); err != nil {
			return err
		}
		e, err := s.get(ctx, tx, by, hook)
		if err != nil {
			return err
		}
		if err := deleteEndpoint(ctx, tx, e.ID); err != nil {
			return err
		}
		s.audit(tx, by, "webhook.deleted", e, account.Weighed{})
		return nil
	})
}

// audit names where an endpoint is by its host only: the rest of an address may be
// what keeps others from sending there.
func (s *Service) audit(tx *sqldb.Tx, by account.Actor, action string, e Endpoint, w account.Weighed) {
	s.cfg.Audit.AppendEvent(tx, audit.Entry{Environment: e.Environment, Organization: e.Organization, Actor: by.Audit(), User: by.User(), Action: action, Object: string(e.ID),
		Detail: map[string]string{"host": e.Host(), "events": strings.Join(e.Events, " ")}, Evidence: w.Evidence(), Address: by.Address()})
}

// Host is the host of its address, and its port where it has one; of mail, the
// address.
func (e Endpoint) Host() string {
	if e.Form == FormMail {
		return strings.TrimPrefix(e.URL, mailto)
	}
	u, err := url.Parse(e.URL)
	if err != nil {
		return ""
	}
	return u.Host
}

// Event is one thing that happened.
type Event struct {
	ID           id.Event // of its audit entry
	Environment  id.Environment
	Organization id.Organization
	Kind         string
	At           time.Time
	Data         map[string]any
	Users        []id.User // for whom it waits, and
	Roles        []string  // who else decides in Organization
}

// message is the body of a delivery.
type message struct {
	Type      string         `json:"type"`
	Timestamp string         `json:"timestamp"`
	ID        id.Event       `json:"id"`
	Data      map[string]any `json:"data"`
	WaitsFor  *deciders      `json:"waits_for,omitempty"` // of what a person is told for themselves; never sent
}

// Emit puts an event down for every endpoint that asked for it, in the transaction
// in which it happens. For one that is switched off it is kept, to be replayed.
func (s *Service) Emit(ctx context.Context, tx *sqldb.Tx, ev Event) error {
	to, err := listening(ctx, tx, ev.Environment, ev.Organization)
	if err != nil {
		return sqldb.Wrap("find who is to be told", err)
	}
	to = slices.DeleteFunc(to, func(e Endpoint) bool { return len(e.Events) > 0 && !slices.Contains(e.Events, ev.Kind) })
	if err := s.emit(ctx, tx, ev, to, nil); err != nil {
		return err
	}
	return s.personally(ctx, tx, ev)
}

func (s *Service) emit(ctx context.Context, tx *sqldb.Tx, ev Event, to []Endpoint, who *deciders) error {
	if len(to) == 0 {
		return nil
	}
	body, err := json.Marshal(message{WaitsFor: who, Type: ev.Kind, Timestamp: ev.At.UTC().Format(time.RFC3339Nano), ID: ev.ID, Data: ev.Data})
	if err != nil {
		return err
	}
	for _, e := range to {
		d := Delivery{ID: id.NewDelivery(), Webhook: e.ID, Event: ev.ID, Kind: ev.Kind, State: Pending, CreatedAt: s.now(), environment: e.Environment, body: body}
		if !e.Enabled {
			d.State = Held
		}
		if err := insertDelivery(ctx, tx, d, sqldb.Micros(s.now())); err != nil {
			return sqldb.Wrap("put a delivery down", err)
		}
	}
	return nil
}

// mayMail refuses a trial or a replay by mail where there were many to its address or
// from its organization.
func (s *Service) mayMail(ctx context.Context, by account.Actor, hook id.Webhook) error {
	e, err := s.Get(ctx, by, hook)
	if err != nil || e.Form != FormMail {
		return err
	}
	for _, key := range []string{"to " + strings.ToLower(e.URL), "of " + string(e.Environment) + " " + string(e.Organization)} {
		if ok, wait := s.mails.Allow(key); !ok {
			return fault.New(fault.Limited, "too_many_mails", "Much mail was asked for here just now.").WithHint("Wait some minutes.").WithRetry(wait)
		}
	}
	return nil
}

// Test sends an endpoint an event that says nothing, to see whether it arrives.
func (s *Service) Test(ctx context.Context, by account.Actor, hook id.Webhook) (Delivery, error) {
	var event id.Event
	if err := s.mayMail(ctx, by, hook); err != nil {
		return Delivery{}, err
	}
	err := s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		e, err := s.get(ctx, tx, by, hook)
		if err != nil {
			return err
		}
		if !e.Enabled {
			return fault.New(fault.Conflict, "webhook_disabled", "The webhook is switched off.").WithHint("Enable it first.")
		}
		event = s.cfg.Audit.Append(tx, audit.Entry{Environment: e.Environment, Organization: e.Organization, Actor: by.Audit(), User: by.User(), Action: "webhook.tested", Object: string(e.ID), Address: by.Address()})
		return s.emit(ctx, tx, Event{ID: event, Environment: e.Environment, Kind: KindTest, At: s.now(), Data: map[string]any{"object": "test"}}, []Endpoint{e}, nil)
	})
	if err != nil {
		return Delivery{}, err
	}
	d, err := deliveryOf(ctx, s.cfg.DB.Reader(), hook, event)
	return d, sqldb.Wrap("read a delivery", err)
}

func (s *Service) now() time.Time { return s.cfg.Now().UTC().Truncate(time.Microsecond) }

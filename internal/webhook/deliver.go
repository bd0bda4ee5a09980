package webhook

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/mail"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// The states of a delivery.
const (
	Pending   = "pending"
	Delivered = "delivered"
	Failed    = "failed" // every attempt was made
	Held      = "held"   // the endpoint was switched off
)

// Delivery is one event on its way to one endpoint.
type Delivery struct {
	ID        id.Delivery
	Webhook   id.Webhook
	Event     id.Event
	Kind      string
	State     string
	Attempts  int
	NextAt    time.Time // of one that is pending
	Status    int       // that the endpoint answered last; 0: it did not
	Error     string    // the code of why an attempt failed
	CreatedAt time.Time
	UpdatedAt time.Time

	environment id.Environment
	body        []byte
}

const (
	lookEvery  = time.Second
	sendRound  = 2 * time.Minute // within the lease
	sendLimit  = 15 * time.Second
	workers    = 8
	batch      = 40
	keepFor    = 30 * 24 * time.Hour
	failsFor   = 5 * 24 * time.Hour // until an endpoint is switched off
	firstPause = 30 * time.Second   // of an endpoint that fails
	maxPause   = 15 * time.Minute
)

// waits are those before each further attempt: ten in about three days.
func waits() []time.Duration {
	return []time.Duration{5 * time.Second, time.Minute, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour}
}

// Start delivers until Stop.
func (s *Service) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.stop, s.done = cancel, make(chan struct{})
	go func() {
		defer close(s.done)
		tick, sweep := time.NewTicker(lookEvery), time.NewTicker(time.Hour)
		defer tick.Stop()
		defer sweep.Stop()
		for {
			var err error
			select {
			case <-ctx.Done():
				return
			case <-sweep.C:
				err = s.Sweep(ctx)
			case <-tick.C:
				err = s.Deliver(ctx)
			}
			if err != nil && ctx.Err() == nil {
				s.log.Warn("webhooks could not be delivered", "error", err)
			}
		}
	}()
}

// Stop waits for attempts that are under way, 15 s at most.
func (s *Service) Stop() {
	if s.stop != nil {
		s.stop()
		<-s.done
	}
}

// Deliver makes the attempts that are due, on one node at a time.
func (s *Service) Deliver(ctx context.Context) error {
	if ok, err := anyDue(ctx, s.cfg.DB.Reader(), s.now()); err != nil || !ok {
		return sqldb.Wrap("look for deliveries", err)
	}
	lease, ok, err := s.cfg.DB.Acquire(ctx, "webhook.deliveries", 3*time.Minute)
	if err != nil || !ok {
		return err
	}
	defer lease.Release(context.WithoutCancel(ctx))
	round, cancel := context.WithTimeout(ctx, sendRound)
	defer cancel()
	for round.Err() == nil {
		list, err := due(round, s.cfg.DB.Reader(), s.now(), batch)
		if err != nil {
			return sqldb.Wrap("list deliveries", err)
		}
		if len(list) == 0 {
			return nil
		}
		var at errgroup.Group
		at.SetLimit(workers)
		for _, d := range list {
			at.Go(func() error { return s.attempt(context.WithoutCancel(ctx), d) })
		}
		if err := at.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// outcome is how an attempt ended.
type outcome struct {
	status int
	code   string // empty: it was taken
	final  bool   // trying again is no use, and says nothing of the endpoint
	retry  time.Duration
}

// attempt sends one delivery and records what came of it.
func (s *Service) attempt(ctx context.Context, d Delivery) error {
	e, err := endpoint(ctx, s.cfg.DB.Reader(), d.environment, d.Webhook)
	if sqldb.NoRows(err) {
		return nil
	}
	if err != nil {
		return sqldb.Wrap("read a webhook", err)
	}
	if e.Enabled && s.now().Before(e.pausedUntil) {
		return s.later(ctx, d, e.pausedUntil) // another delivery has just found that it does not answer
	}
	got := outcome{code: "webhook_disabled"}
	if e.Enabled {
		got = s.tell(ctx, e, d)
	}
	return s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error { return s.settle(ctx, tx, d, got) })
}

func (s *Service) later(ctx context.Context, d Delivery, at time.Time) error {
	return s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		d.NextAt, d.UpdatedAt = at, s.now()
		return saveDelivery(ctx, tx, d)
	})
}

// settle writes an outcome, and what it means for the endpoint.
func (s *Service) settle(ctx context.Context, tx *sqldb.Tx, d Delivery, got outcome) error {
	if err := alone(ctx, tx, d.Webhook); err != nil {
		return err
	}
	now := s.now()
	e, err := endpoint(ctx, tx, d.environment, d.Webhook)
	if err != nil {
		if sqldb.NoRows(err) {
			return nil
		}
		return err
	}
	d.UpdatedAt = now
	if got.code == "webhook_disabled" {
		d.State = Held
		return saveDelivery(ctx, tx, d)
	}
	d.Status, d.Error = got.status, got.code
	if got.final {
		d.State, d.Attempts = Failed, d.Attempts+1
		return saveDelivery(ctx, tx, d)
	}
	if got.code == "" {
		d.State, d.Attempts = Delivered, d.Attempts+1
		if e.failures > 0 {
			e.failures, e.FailingSince, e.pausedUntil = 0, time.Time{}, time.Time{}
			if err := saveEndpoint(ctx, tx, e); err != nil {
				return err
			}
		}
		return saveDelivery(ctx, tx, d)
	}
	if wait := waits(); d.Attempts < len(wait) {
		d.NextAt = now.Add(max(wait[d.Attempts], got.retry))
	} else {
		d.State = Failed
	}
	d.Attempts++
	if err := saveDelivery(ctx, tx, d); err != nil {
		return err
	}
	return s.failing(ctx, tx, e, got)
}

// failing counts a failure of an endpoint, and switches it off when it has failed
// for long, or says that it is gone.
func (s *Service) failing(ctx context.Context, tx *sqldb.Tx, e Endpoint, got outcome) error {
	now := s.now()
	if e.FailingSince.IsZero() {
		e.FailingSince = now
	}
	e.pausedUntil = now.Add(min(firstPause<<min(e.failures, 6), maxPause))
	e.failures++
	if e.failures == 1 {
		e.pausedUntil = time.Time{} // one failure may be the delivery's own
	}
	if off := now.Sub(e.FailingSince) >= failsFor; e.Enabled && (off || got.status == http.StatusGone) {
		e.Enabled, e.Reason, e.UpdatedAt = false, "failing", now
		if got.status == http.StatusGone {
			e.Reason = "gone"
		}
		e.Version++
		if err := holdAll(ctx, tx, e.ID, now); err != nil {
			return err
		}
		if e.User != "" { // their own affair, of which their account page tells
			s.cfg.Audit.AppendEvent(tx, audit.Entry{Environment: e.Environment, Actor: audit.Actor{Kind: "system", ID: "webhook"}, User: e.User, Action: "notices.off", Object: string(e.User),
				Code: e.Reason, Detail: map[string]string{"by": "mail"}})
			return saveEndpoint(ctx, tx, e)
		}
		event := s.cfg.Audit.Append(tx, audit.Entry{Environment: e.Environment, Organization: e.Organization, Actor: audit.Actor{Kind: "system", ID: "webhook"}, Action: "webhook.disabled",
			Object: string(e.ID), Code: e.Reason, Detail: map[string]string{"host": e.Host()}})
		if err := s.cfg.People.NoticeOwners(ctx, tx, e.Environment, account.NoticeWebhook, event, now); err != nil {
			return err
		}
	}
	return saveEndpoint(ctx, tx, e)
}

// tell delivers in the endpoint's form. People are not told of a request that is over.
func (s *Service) tell(ctx context.Context, e Endpoint, d Delivery) outcome {
	if e.Form == FormEvent {
		return s.send(ctx, e, d)
	}
	words := plain
	if e.Form == FormMail {
		words = unlinked
	}
	n, err := read(d.body, words)
	if err != nil {
		s.log.Error("an event cannot be told", "delivery", d.ID, "error", err)
		return outcome{code: "event_unreadable", final: true}
	}
	if !n.until.IsZero() && !s.now().Before(n.until) {
		return outcome{code: "too_late", final: true}
	}
	if e.Form == FormMail {
		return s.mail(ctx, e, d, n)
	}
	address, err := s.cfg.Vault.Open(ctx, e.place(e.secretVersion), e.secret)
	if err != nil {
		s.log.Error("a webhook's address cannot be opened", "webhook", e.ID, "error", err)
		return outcome{code: "secret_unreadable"}
	}
	return s.post(ctx, e, slackAddress(address), http.Header{}, n.slack())
}

func (s *Service) mail(ctx context.Context, e Endpoint, d Delivery, n notice) outcome {
	if s.cfg.Mail == nil {
		return outcome{code: "mail_not_set_up"}
	}
	to := strings.TrimPrefix(e.URL, mailto)
	if e.User != "" { // where the person is now, if it is still theirs
		if theirs, err := s.waitsNow(ctx, e, d.body); err != nil {
			return outcome{code: fault.Of(err).Code}
		} else if !theirs {
			return outcome{code: "not_theirs", final: true}
		}
		u, err := s.cfg.People.User(ctx, e.Environment, e.User)
		if err != nil || !u.DisabledAt.IsZero() {
			return outcome{code: "no_such_person", final: true}
		}
		if to = u.Email; to == "" {
			return outcome{code: "no_address", final: true}
		}
	}
	err := s.cfg.Mail.Send(ctx, mail.Message{To: to, Subject: n.subject(), Text: n.text(), ID: string(d.Event) + "." + string(e.ID) + "@ambit"})
	if err == nil {
		return outcome{status: 250}
	}
	code := fault.Of(err).Code
	if fault.KindOf(err) == fault.Invalid {
		s.log.Warn("a mail was refused", "webhook", e.ID, "code", code) // the server's own words may hold the address
	}
	return outcome{code: code}
}

// send posts a signed event. Nothing of the answer but its status is looked at.
func (s *Service) send(ctx context.Context, e Endpoint, d Delivery) outcome {
	keys, err := s.secrets(ctx, e)
	if err != nil {
		s.log.Error("a webhook's secret cannot be opened", "webhook", e.ID, "error", err)
		return outcome{code: "secret_unreadable"}
	}
	at := s.now()
	var signatures []string
	for _, key := range keys {
		sig, err := Sign(key, string(d.Event), at, d.body)
		if err != nil {
			return outcome{code: "secret_unreadable"}
		}
		signatures = append(signatures, sig)
	}
	return s.post(ctx, e, e.URL, http.Header{"Webhook-Id": {string(d.Event)}, "Webhook-Timestamp": {strconv.FormatInt(at.Unix(), 10)}, "Webhook-Signature": {strings.Join(signatures, " ")}}, d.body)
}

func (s *Service) post(ctx context.Context, e Endpoint, address string, h http.Header, body []byte) outcome {
	u, err := url.Parse(address)
	if err != nil {
		return outcome{code: "webhook_url"}
	}
	h.Set("Content-Type", "application/json")
	h.Set("User-Agent", "Ambit-Webhooks/1")
	req := &http.Request{Method: http.MethodPost, URL: u, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Header: h}
	resp, err := s.cfg.Outbound.Do(ctx, outbound.Bound{Bases: []string{bare(address)}, Party: string(e.ID)}, req, outbound.Limits{Body: 64 << 10, Timeout: sendLimit})
	switch {
	case err != nil:
		return outcome{code: fault.Of(err).Code}
	case resp.Status >= 200 && resp.Status <= 299:
		return outcome{status: resp.Status}
	}
	got := outcome{status: resp.Status, code: "status_" + strconv.Itoa(resp.Status)}
	if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 {
		got.retry = min(time.Duration(n)*time.Second, 24*time.Hour)
	}
	return got
}

// secrets are those that sign now: the present one, then one that was replaced.
func (s *Service) secrets(ctx context.Context, e Endpoint) ([]secret.Value, error) {
	now, err := s.cfg.Vault.Open(ctx, e.place(e.secretVersion), e.secret)
	if err != nil || e.old == nil || !s.now().Before(e.OldUntil) {
		return []secret.Value{now}, err
	}
	old, err := s.cfg.Vault.Open(ctx, e.place(e.secretVersion-1), e.old)
	return []secret.Value{now, old}, err
}

// Deliveries lists what was or is to be told to an endpoint, newest first. after is
// the last id of the page before.
func (s *Service) Deliveries(ctx context.Context, by account.Actor, hook id.Webhook, state string, after id.Delivery, limit int) (list []Delivery, more bool, err error) {
	e, err := s.Get(ctx, by, hook)
	if err != nil {
		return nil, false, err
	}
	if limit <= 0 || limit > 200 {
		limit = 50
	}
	list, err = deliveries(ctx, s.cfg.DB.Reader(), e.ID, state, after, limit+1)
	if len(list) > limit {
		list, more = list[:limit], true
	}
	return list, more, sqldb.Wrap("list deliveries", err)
}

// Window says what is sent again.
type Window struct {
	Delivery id.Delivery // this one, or
	From, To time.Time   // what happened in this time; zero: as far back as is kept, until now
	All      bool        // also what was delivered
}

// Replay sends again, with the same ids, and gives how many deliveries that are.
func (s *Service) Replay(ctx context.Context, by account.Actor, hook id.Webhook, w Window) (n int64, err error) {
	if err := s.mayMail(ctx, by, hook); err != nil {
		return 0, err
	}
	err = s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := alone(ctx, tx, hook); err != nil {
			return err
		}
		e, err := s.get(ctx, tx, by, hook)
		if err != nil {
			return err
		}
		if !e.Enabled {
			return fault.New(fault.Conflict, "webhook_disabled", "The webhook is switched off.").WithHint("Enable it first.")
		}
		if n, err = replay(ctx, tx, e.ID, w, s.now()); err != nil {
			return sqldb.Wrap("replay deliveries", err)
		}
		if e.Form == FormMail && n > mailReplay {
			return fault.New(fault.TooLarge, "too_many_mails", "That would be over "+strconv.Itoa(mailReplay)+" mails at once.").WithHint("Send single ones, or those of a shorter time.")
		}
		if n == 0 && w.Delivery != "" {
			return fault.New(fault.NotFound, "not_found", "No such delivery.")
		}
		if e.failures > 0 { // whoever asks has mended it, or wants to know
			e.pausedUntil = time.Time{}
			if err := saveEndpoint(ctx, tx, e); err != nil {
				return err
			}
		}
		s.cfg.Audit.AppendEvent(tx, audit.Entry{Environment: e.Environment, Organization: e.Organization, Actor: by.Audit(), User: by.User(), Action: "webhook.replayed", Object: string(e.ID),
			Detail: map[string]string{"deliveries": strconv.FormatInt(n, 10)}, Address: by.Address()})
		return nil
	})
	return n, err
}

// Sweep forgets deliveries that are older than a month.
func (s *Service) Sweep(ctx context.Context) error {
	return s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		return sqldb.Wrap("forget deliveries", sweep(ctx, tx, s.now().Add(-keepFor)))
	})
}

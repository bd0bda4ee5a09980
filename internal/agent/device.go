package agent

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/throttle"
)

const (
	devicePrefix = "amb_dc_"
	pollEvery    = 5 * time.Second
	pollSlack    = time.Second // of a device whose clock or network is not exact
	pollAtMost   = time.Minute
)

// Device is what a device without a browser gets to begin with (RFC 8628 §3.2).
type Device struct {
	Code      secret.Value // for the device alone, to poll with
	UserCode  string       // for the person, who types it at the page /ui/device
	ExpiresIn time.Duration
	Interval  time.Duration // the least between two polls
}

// BeginDevice stores a request for which a person will type a code in a browser
// of their own. What they decide there is what they decide on any authorization
// request, under the same proof.
func (s *Service) BeginDevice(ctx context.Context, by Caller, resource, address string) (Device, error) {
	if err := by.may(GrantDevice); err != nil {
		return Device{}, err
	}
	audience, err := s.audience(resource)
	if err != nil {
		return Device{}, err
	}
	now := s.now()
	r := AuthRequest{ID: id.NewFlow(), Client: by.client, Resource: audience, Scope: Scope, UserCode: account.NewUserCode(), Address: throttle.Address(address), ExpiresAt: now.Add(requestTTL)}
	code := secret.Token(devicePrefix)
	hash := code.Hash()
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := s.stillProven(ctx, tx, by); err != nil {
			return err
		}
		if err := s.storeRequest(ctx, tx, r, now); err != nil {
			return err
		}
		return insertDevice(ctx, tx, hash[:], r)
	})
	if err != nil {
		return Device{}, sqldb.Wrap("begin a device's authorization", err)
	}
	return Device{Code: code, UserCode: account.ShowUserCode(r.UserCode), ExpiresIn: requestTTL, Interval: pollEvery}, nil
}

// FindDevice gives the request behind a code that a person typed. Wrong codes
// are counted for the person, over all nodes (threats.md A12).
func (s *Service) FindDevice(ctx context.Context, person account.Person, typed string) (id.Flow, error) {
	var flow id.Flow
	err := s.people.GuessUserCode(ctx, person, typed, "Start again on the device.", func(code string) (found bool, err error) {
		flow, err = waitingDevice(ctx, s.db.Reader(), code, s.now())
		if sqldb.NoRows(err) {
			return false, nil
		}
		return err == nil, sqldb.Wrap("find a device's request", err)
	})
	return flow, err
}

// ExchangeDevice answers a device that polls: with tokens, once, when the person
// has agreed; before that with authorization_pending or slow_down, after a
// refusal with access_denied, and in the end with expired_token (RFC 8628 §3.5).
func (s *Service) ExchangeDevice(ctx context.Context, by Caller, code secret.Value, resource string) (Tokens, error) {
	if err := by.may(GrantDevice); err != nil {
		return Tokens{}, err
	}
	audience, err := s.audience(resource)
	if err != nil {
		return Tokens{}, err
	}
	if !secret.IsToken(code, devicePrefix) {
		return Tokens{}, unknownDevice()
	}
	h := code.Hash()
	if err := s.checkDeviceOwner(ctx, h[:]); err != nil {
		return Tokens{}, err
	}
	now := s.now()
	var next issued
	var d device
	var wait error // what a poll that came too early or too late is told; its time counts nevertheless
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) (err error) {
		next, wait = issued{}, nil
		if err := s.stillProven(ctx, tx, by); err != nil {
			return err
		}
		if d, err = pollDevice(ctx, tx, h[:], by.Client(), now); sqldb.NoRows(err) {
			return unknownDevice()
		} else if err != nil {
			return err
		}
		if wait = d.wait(now); wait != nil {
			return nil
		}
		a, err := s.live(ctx, tx, d.agent)
		if err != nil {
			return err
		}
		next, err = s.issueDevice(ctx, tx, by, d, a, audience, now)
		return err
	})
	switch {
	case err != nil:
		return Tokens{}, sqldb.Wrap("answer a device", err)
	case d.family != "": // it was answered before: two parties hold the code
		if err := s.endFamily(ctx, d.family, d.agent, "token.code_replayed"); err != nil {
			return Tokens{}, err
		}
		return Tokens{}, invalidGrant("The device code was used before; what it gave is revoked.")
	case wait != nil:
		return Tokens{}, wait
	}
	return next.tokens(now, Scope), nil
}

// checkDeviceOwner is checkOwner for the agent that a device will be. It comes
// before the transaction that issues; who leaves in between is caught by the hook
// that ends their tokens.
func (s *Service) checkDeviceOwner(ctx context.Context, hash []byte) error {
	a, err := agentOfDevice(ctx, s.db.Reader(), hash)
	if sqldb.NoRows(err) {
		return nil // nobody has agreed yet
	}
	if err != nil {
		return sqldb.Wrap("read the agent of a device", err)
	}
	return s.checkOwner(ctx, a)
}

func (s *Service) issueDevice(ctx context.Context, tx *sqldb.Tx, by Caller, d device, a Agent, audience string, now time.Time) (issued, error) {
	f := newFamily(a, Scope, now, refreshTTL)
	f.audience = audience
	next := freshTokens(by.may(GrantRefresh) == nil, now, now.Add(refreshTTL))
	if err := useDevice(ctx, tx, d.hash, f.id, now); err != nil {
		return issued{}, err
	}
	if err := insertFamily(ctx, tx, f); err != nil {
		return issued{}, err
	}
	if err := next.store(ctx, tx, f, now); err != nil {
		return issued{}, err
	}
	s.audit.Append(tx, entry(a, "token.issued", GrantDevice))
	return next, nil
}

func unknownDevice() error { return invalidGrant("The device code is unknown.") }

// wait says why a device gets no tokens yet, or not any more; nil: it gets them.
// A code that was used has a family.
func (d device) wait(now time.Time) error {
	switch {
	case d.family != "":
		return invalidGrant("The device code was used before.")
	case !d.denied.IsZero():
		return fault.New(fault.Denied, "access_denied", "The person refused.")
	case !now.Before(d.expires):
		return fault.New(fault.Expired, "expired_token", "Nobody typed the code in time.").WithHint("Start again.")
	case d.early:
		return fault.New(fault.Denied, "slow_down", "The device polls too often.").WithHint("Wait five seconds longer between two polls from now on.")
	case d.agent == "":
		return fault.New(fault.Denied, "authorization_pending", "The person has not decided yet.").WithHint("Poll again after the interval.")
	}
	return nil
}

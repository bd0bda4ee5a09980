package integration

import (
	"context"
	"net/netip"
	"net/url"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// returnFor is how long a person may take to come back.
const returnFor = time.Hour

const (
	insertReturnSQL = `insert into integration_return (token_hash, environment_id, user_id, url, expires_at) values ($1, $2, $3, $4, $5)`
	returnSQL       = `select url from integration_return where token_hash = $1 and user_id = $2 and expires_at > $3`
	sweepReturnsSQL = `delete from integration_return where expires_at <= $1`
)

// Authorize gives the page where a person connects their account: they sign in
// there, or are signed in on the way where the key may vouch for them, and see what is connected for whom. The address that the product wants
// them back at never stands in ours: whoever makes up a link cannot send anybody
// anywhere (threats.md G10).
//
// config is what is known already of the provider's address, such as a subdomain. It
// stands in the form, where the person sees it and may change it.
func (s *Service) Authorize(ctx context.Context, by account.Actor, which Aim, returnTo string, config map[string]string) (string, error) {
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
	if err := s.usable(ctx, a.Configured); err != nil {
		return "", err
	}
	if err := checkReturn(returnTo); err != nil {
		return "", err
	}
	if err := a.Provider.Record.MayChoose(config); err != nil {
		return "", err
	}
	if err := s.make(ctx, by, which, &a); err != nil {
		return "", err
	}
	to := s.cfg.Connections.ConnectURL(a.subject.Organization, a.Provider.Record.ID)
	if there, why := a.one(which); why == "" {
		to = s.cfg.Connections.ReconnectURL(there.ID)
	}
	for name, v := range config {
		to += "&" + url.Values{"tenant." + name: {v}}.Encode()
	}
	if returnTo != "" {
		back, err := s.keepReturn(ctx, by.Environment(), a.subject.User, returnTo)
		if err != nil {
			return "", err
		}
		to += "&back=" + back
	}
	if which.Ownership == Organizations {
		return to, nil
	}
	return s.vouched(ctx, by, a.subject, to, a.Provider.Record.ID)
}

// vouched gives a link that signs the user in on the way to a page of ours, where
// the key may say who they are, and else the page itself.
func (s *Service) vouched(ctx context.Context, by account.Actor, sub Subject, page, provider string) (string, error) {
	if by.May(sub.Organization, account.VouchUsers) != nil {
		return page, nil
	}
	u, err := url.Parse(page)
	if err != nil {
		return "", err
	}
	link, err := s.cfg.People.Vouch(ctx, by, sub.Organization, sub.User, u.RequestURI(), provider)
	if fault.KindOf(err) == fault.Denied { // who signs in by themselves
		return page, nil
	}
	if err != nil {
		return "", err
	}
	return pathOf(link), nil
}

// checkReturn takes an address to come back to, or none.
func checkReturn(to string) error {
	if to == "" {
		return nil
	}
	u, err := url.Parse(to)
	if err != nil || len(to) > 2000 || u.User != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())) {
		return fault.New(fault.Invalid, "invalid_return_to", "return_to is no https URL.").WithHint("Loopback may be http.")
	}
	return nil
}

func (s *Service) keepReturn(ctx context.Context, env id.Environment, user id.User, to string) (string, error) {
	token, now := secret.Token(""), s.cfg.Now()
	hash := token.Hash()
	err := s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if _, err := tx.ExecContext(ctx, sweepReturnsSQL, sqldb.Micros(now)); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, insertReturnSQL, hash[:], env, user, to, sqldb.Micros(now.Add(returnFor)))
		return err
	})
	return pathOf(token), sqldb.Wrap("keep where to return to", err)
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// Return gives where a product wanted this person back.
func (s *Service) Return(ctx context.Context, p account.Person, token secret.Value) (string, error) {
	hash := token.Hash()
	var to string
	err := s.cfg.DB.Reader().QueryRowContext(ctx, returnSQL, hash[:], p.User(), sqldb.Micros(s.cfg.Now())).Scan(&to)
	if sqldb.NoRows(err) || p.User() == "" {
		return "", fault.New(fault.Expired, "return_expired", "The way back to where you came from is no longer known.").WithHint("Go back there by yourself; the account is connected.")
	}
	return to, sqldb.Wrap("read where to return to", err)
}

// Wanted gives the scopes that connections of an organization are asked for where
// those who set the provider up have chosen them, and nil where they have not. A
// provider that is switched off is refused.
func (s *Service) Wanted(ctx context.Context, env id.Environment, org id.Organization, slug string, o Ownership) ([]string, error) {
	i, err := s.find(ctx, s.cfg.DB.Reader(), env, slug, o)
	if fault.Is(err, "not_found") { // offered to the others only: nobody chose anything here
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c, err := s.configured(ctx, i, org)
	if err != nil {
		return nil, err
	}
	if !c.Offered() {
		return nil, fault.New(fault.Denied, "integration_disabled", "The provider is switched off here.").WithHint("Ask who set it up.")
	}
	if c.Scopes == nil && c.Setting.Scopes == nil {
		return nil, nil
	}
	return c.Asks(), nil
}

// Package mail hands short plain messages to the operator's own mail server. It says
// what is waiting and where; nothing in a message decides anything, because whoever
// reads somebody's mail must not be able to (product.md rule 4).
package mail

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Config names the operator's mail server.
type Config struct {
	// URL is smtps://USER@HOST[:465], or smtp://USER@HOST[:587], which is refused
	// where the server has no STARTTLS, unless it is on this machine (RFC 8314).
	URL      string
	Password secret.Value // of USER; empty: the server wants none
	From     string       // the sender's address, or a name and the address (RFC 5322)
}

// IsZero reports whether no mail server is named.
func (c Config) IsZero() bool { return c.URL == "" && c.From == "" && c.Password.IsZero() }

// Sender sends through one mail server. It is safe for concurrent use.
type Sender struct {
	host     string
	options  []gomail.Option
	from     string
	password secret.Value
}

const sendLimit = 30 * time.Second

// New makes a Sender. It connects to nothing yet.
func New(c Config) (*Sender, error) {
	bad := func(msg, hint string) (*Sender, error) {
		return nil, fault.New(fault.Invalid, "mail_invalid", msg).WithHint(hint)
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Hostname() == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "smtp" && u.Scheme != "smtps" {
		return bad("The mail server is not named as a URL.", "Set AMBIT_SMTP_URL to smtps://user@mail.example.com, or smtp:// for a server with STARTTLS.")
	}
	if _, ok := u.User.Password(); ok {
		return bad("The mail server's URL holds a password.", "Put it into AMBIT_SMTP_PASSWORD: URLs are shown.")
	}
	if (u.User.Username() == "") != c.Password.IsZero() {
		return bad("A user name for the mail server and its password come together.", "Set both, or neither.")
	}
	if err := gomail.NewMsg().From(c.From); err != nil {
		return bad("The sender of mails is no address.", "Set AMBIT_SMTP_FROM, such as Ambit <ambit@example.com>.")
	}
	s := &Sender{host: u.Hostname(), from: c.From, password: c.Password}
	port, policy, proof := 587, gomail.TLSMandatory, gomail.SMTPAuthAutoDiscover // which sends no password in the clear
	if ip, err := netip.ParseAddr(u.Hostname()); u.Hostname() == "localhost" || err == nil && ip.IsLoopback() {
		policy, proof = gomail.TLSOpportunistic, gomail.SMTPAuthPlainNoEnc
	}
	if u.Scheme == "smtps" {
		port, proof = 465, gomail.SMTPAuthAutoDiscover
		s.options = append(s.options, gomail.WithSSL())
	} else {
		s.options = append(s.options, gomail.WithTLSPolicy(policy))
	}
	if p := u.Port(); p != "" {
		if port, err = strconv.Atoi(p); err != nil || port < 1 || port > 65535 {
			return bad("The mail server's port is none.", "It is a number from 1 to 65535.")
		}
	}
	s.options = append(s.options, gomail.WithPort(port), gomail.WithTimeout(sendLimit), gomail.WithoutNoop())
	if u.User != nil {
		s.options = append(s.options, gomail.WithSMTPAuth(proof), gomail.WithUsername(u.User.Username()))
	}
	return s, nil
}

// CheckAddress reports whether mail could be sent to an address: one, without a name.
func CheckAddress(to string) error {
	m := gomail.NewMsg()
	if err := m.To(to); err != nil || len(to) > 254 || strings.ContainsAny(to, "<>\r\n,;") || !strings.Contains(to, "@") {
		return fault.New(fault.Invalid, "mail_address", "That is no mail address.").WithHint("It is one address, such as team@example.com.")
	}
	return nil
}

// Message is what is sent.
type Message struct {
	To      string
	Subject string // one line
	Text    string
	ID      string // the same for another attempt, so that receivers can drop the second
}

// Send hands m to the mail server. An error of kind fault.Invalid says that the
// server wants it never; every other may pass.
func (s *Sender) Send(ctx context.Context, m Message) error {
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	if err := errors.Join(msg.From(s.from), msg.To(m.To)); err != nil {
		return fault.New(fault.Invalid, "mail_address", "That is no mail address.").WithCause(err)
	}
	msg.Subject(m.Subject)
	msg.SetMessageIDWithValue(m.ID)
	msg.SetDate()
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: nobody's absence answers it
	msg.SetBodyString(gomail.TypeTextPlain, m.Text)
	options := s.options
	if !s.password.IsZero() {
		options = append(options[:len(options):len(options)], gomail.WithPassword(string(s.password.Reveal())))
	}
	client, err := gomail.NewClient(s.host, options...)
	if err != nil {
		return fault.New(fault.Internal, "mail_failed", "The mail could not be made.").WithCause(err)
	}
	ctx, cancel := context.WithTimeout(ctx, sendLimit)
	defer cancel()
	if err = client.DialWithContext(ctx); err == nil {
		err = client.Send(msg)
	}
	_ = client.Close() // also after a refusal, which leaves the connection open
	var refused *gomail.SendError
	var away net.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused) && !refused.IsTemp() && refused.ErrorCode() >= 500:
		return fault.New(fault.Invalid, "mail_refused", "The mail server refused it.").WithCause(err)
	case errors.As(err, &away):
		return fault.New(fault.Unavailable, "mail_unreachable", "The mail server cannot be reached.").WithCause(err)
	}
	return fault.New(fault.Unavailable, "mail_failed", "The mail server did not take it now.").WithCause(err)
}

package webhook

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/legible"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Form is how something is told.
type Form string

const (
	FormEvent Form = ""      // signed JSON, for programs
	FormSlack Form = "slack" // a Slack message, to an incoming webhook or one that takes the same
	FormMail  Form = "mail"  // a mail
)

const mailto = "mailto:"

// Forms lists them.
func Forms() []Form { return []Form{FormEvent, FormSlack, FormMail} }

// slackURL is what is kept in the clear of the address of a Slack webhook, all of
// which is a secret: whoever has it writes there.
func slackURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// notice is what people read of an event: a line, and where to go. It says what is
// waiting and never what an agent wrote; it decides nothing.
type notice struct {
	line, url string
	until     time.Time // when what it asks for is over; zero: it asks nothing
}

// read makes a notice of a stored event, with the words that records hold made plain:
// some of them come from providers.
func read(body []byte, plain func(string) string) (notice, error) {
	var m struct {
		Type string `json:"type"`
		Data struct {
			URL, Provider      string
			AgentLabel         string    `json:"agent_label"`
			AgentVerified      bool      `json:"agent_verified"`
			AccountLabel       string    `json:"account_label"`
			ReauthorizeBy      string    `json:"reauthorize_by"`
			ExpiresAt          time.Time `json:"expires_at"`
			Providers, Effects []string
			Tool               string
			Minutes            int
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return notice{}, fmt.Errorf("reading an event that is to be told: %w", err)
	}
	d := m.Data
	who := "An agent that nobody has confirmed"
	if d.AgentVerified {
		who = plain(d.AgentLabel)
	}
	account := plain(d.Provider)
	if d.AccountLabel != "" {
		account += " (" + plain(d.AccountLabel) + ")"
	}
	n := notice{url: d.URL}
	if m.Type == kindAsked {
		n.until = d.ExpiresAt
	}
	switch {
	case m.Type == KindTest:
		n.line = "This is a trial from Ambit. Notices arrive here."
	case m.Type == kindAsked && d.Tool != "":
		n.line = fmt.Sprintf("%s asks to make one call: %s at %s.", who, plain(d.Tool), plain(strings.Join(d.Providers, ", ")))
	case m.Type == kindAsked:
		n.line = fmt.Sprintf("%s asks for access: %s at %s, for %d min.", who, plain(strings.Join(d.Effects, ", ")), plain(strings.Join(d.Providers, ", ")), d.Minutes)
	default:
		_, what, _ := strings.Cut(m.Type, ".")
		n.line = "The connection to " + account + ": " + strings.ReplaceAll(what, "_", " ") + "."
		if d.ReauthorizeBy != "" {
			n.line += " It needs a person by " + plain(d.ReauthorizeBy) + "."
		}
	}
	return n, nil
}

// plain is text of others on one line, with nothing hidden, and not too long.
func plain(s string) string {
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if legible.Hidden(r) {
			return -1
		}
		return r
	}, s)), " ")
	if r := []rune(s); len(r) > 120 {
		s = string(r[:119]) + "…"
	}
	return s
}

// unlinked is plain without what a program that shows mail makes a link of: an agent's or
// an account's name is written by others, and the mail comes from the operator's domain.
func unlinked(s string) string {
	out := []rune(strings.Map(func(r rune) rune {
		if strings.ContainsRune("@/\\:。．｡․", r) {
			return ' '
		}
		return r
	}, plain(s)))
	for i := 1; i+1 < len(out); i++ {
		if out[i] == '.' && out[i-1] != ' ' && out[i+1] != ' ' {
			out[i] = ' '
		}
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

// slack is n as Slack's incoming webhooks take it: without markup, links that are not
// ours, or calls of everybody (which need a bare <).
func (n notice) slack() []byte {
	line := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(n.line)
	if n.url != "" {
		line += "\nDecide in Ambit: <" + n.url + ">"
	}
	out, err := json.Marshal(map[string]any{"text": line, "mrkdwn": false, "unfurl_links": false, "unfurl_media": false})
	if err != nil {
		panic("webhook: a text does not encode: " + err.Error())
	}
	return out
}

func (n notice) subject() string {
	if n.url != "" {
		return "Ambit: somebody waits for your decision"
	}
	return "Ambit: " + n.line
}

func (n notice) text() string {
	text := n.line + "\n"
	if n.url != "" {
		text += "\nDecide in Ambit: " + n.url + "\n\nThis mail decides nothing. Ambit asks for your passkey there.\n"
	}
	return text
}

// address is what an endpoint's form makes of the URL that was given: what is kept in
// the clear, and what is sealed instead.
func (in Input) address() (shown string, sealed secret.Value) {
	if in.Form == FormSlack {
		return slackURL(in.URL), secret.FromString(in.URL)
	}
	return in.URL, secret.Value{}
}

func (s *Service) checkForm(in Input) error {
	switch {
	case !slices.Contains(Forms(), in.Form):
		return fault.New(fault.Invalid, "webhook_form", "There is no such form.").WithHint("It is slack, mail, or left out for signed events.")
	case in.Form == FormMail && s.cfg.Mail == nil:
		return noMail()
	}
	return nil
}

func noMail() error {
	return fault.New(fault.Invalid, "mail_not_set_up", "This server sends no mail.").WithHint("Its operator sets AMBIT_SMTP_URL and AMBIT_SMTP_FROM (docs/configuration.md).")
}

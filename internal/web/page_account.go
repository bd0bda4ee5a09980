package web

import (
	"html/template"
	"time"

	"github.com/ambit-dev/ambit/internal/id"
)

// AccountPage shows a person their own ways in.
type AccountPage struct {
	Frame
	Name, Email string
	Passkeys    []PasskeyRow
	Removable   bool
	TOTP        bool
	SignIns     []SignInRow
	Addable     []SignInRow
	Logins      []LoginRow
	Notices     []NoticeRow
	Mails       bool // the server sends mail
	MailFailed  bool // none got through for long, so it was switched off
	Mailed      bool // the person is told by it of what waits for them, in this environment
}

func (*AccountPage) template() string { return "account" }

// PasskeyRow is one passkey.
type PasskeyRow struct {
	ID                id.Passkey
	Label             string
	Created, LastUsed time.Time
}

// LoginRow is one place where the person is signed in.
type LoginRow struct {
	ID            id.Login
	What, Address string
	Current       bool
	Created, Seen time.Time
}

// NoticeRow tells about something done to the account.
type NoticeRow struct {
	ID    id.Event
	Text  string
	At    time.Time
	About id.User // whom to look for in the audit, for those who read all of it
}

// AuthenticatorPage shows the secret of an authenticator app to be.
type AuthenticatorPage struct {
	Frame
	Secret        string
	URL           template.URL
	QR            *QRView // of URL, for the phone; nil if it could not be drawn
	Action, Token string
	Grant         string
}

func (*AuthenticatorPage) template() string { return "authenticator" }

// QRView is a QR code to draw inline: modules of one unit each.
type QRView struct {
	Side int
	Path string
}

// Pixels is how wide to draw it. A module has whole pixels: an edge within one
// makes modules of different widths, which readers do not take.
func (v QRView) Pixels() int { return v.Side * max(240/v.Side, 3) }

// PasskeyNewPage registers one more passkey.
type PasskeyNewPage struct {
	Frame
	Grant string
}

func (*PasskeyNewPage) template() string { return "passkey_new" }

// EnrollPage registers a first passkey.
type EnrollPage struct{ Frame }

func (*EnrollPage) template() string { return "enroll" }

// SignInPage signs a person in.
type SignInPage struct {
	Frame
	Next, Email string
	Providers   []SignInRow
}

func (*SignInPage) template() string { return "signin" }

// ConfirmPage asks for a proof of presence for one thing.
type ConfirmPage struct {
	Frame
	Eyebrow, Sentence, Code string
	Said                    []string // the sentence as plain words and names in turn
	Lines                   []string
	More, Text              string // what is behind a disclosure, and its title
	Action, Begin, Label    string
	Danger                  bool
	Back, BackLabel         string
	Refuse                  string // where a refusal goes, in place of Back
	TOTP                    bool
	Nonce                   string // makes each confirmation one of its kind
	Fields                  []Fact // what the form was filled in with
	Choice                  *Pick
}

// Pick is one thing to choose on a ConfirmPage; the proof is about it too.
type Pick struct {
	Name, Label string
	Options     []Option
}

func (*ConfirmPage) template() string { return "confirm" }

// ErrorPage says what went wrong and what to do.
type ErrorPage struct {
	Frame
	Message, Hint, Back, BackLabel, Request string
}

func (*ErrorPage) template() string { return "error" }

// CodePage asks for the code that a command line or another device shows.
type CodePage struct {
	Frame
	Device bool   // it is no command line of ours
	Code   string // as it was typed
}

func (*CodePage) template() string { return "code" }

package mail_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/mail"
	"github.com/ambit-dev/ambit/internal/mail/mailtest"
	"github.com/ambit-dev/ambit/internal/secret"
)

// A mail arrives as it was meant, and what would add a header or a second receiver is
// part of its line or refused.
func TestSend(t *testing.T) {
	t.Parallel()
	server := mailtest.New(t)
	s, err := mail.New(mail.Config{URL: "smtp://ambit@" + server.Address, Password: secret.FromString("pass-canary"), From: "Ambit <ambit@example.com>"})
	if err != nil {
		t.Fatal(err)
	}
	m := mail.Message{To: "mia@example.com", Subject: "Waits\r\nBcc: evil@example.com", Text: "Café\n.\nend\n", ID: "evt_1.hook@ambit"}
	if err := s.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	got := server.Mails()
	if len(got) != 1 || got[0].To != "mia@example.com" || !strings.Contains(got[0].Data, "Message-ID: <evt_1.hook@ambit>") || !strings.Contains(got[0].Data, "Auto-Submitted: auto-generated") {
		t.Fatalf("arrived: %+v", got)
	}
	for line := range strings.Lines(got[0].Data) {
		if strings.HasPrefix(line, "Bcc") {
			t.Error("a subject made a header")
		}
	}
	_, proof, _ := strings.Cut(got[0].Login, " ")
	if plain, _ := base64.StdEncoding.DecodeString(proof); string(plain) != "\x00ambit\x00pass-canary" {
		t.Errorf("signed in with %q", plain)
	}
	if strings.Contains(got[0].Data, "pass-canary") {
		t.Error("the password is in the mail")
	}
	server.Refuse("550 5.1.1 no such user")
	if err := s.Send(t.Context(), m); fault.KindOf(err) != fault.Invalid || !fault.Is(err, "mail_refused") {
		t.Errorf("refused for good: %v", err)
	}
	server.Refuse("451 4.7.1 later")
	if err := s.Send(t.Context(), m); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("refused for now: %v", err)
	}
	m.To = "mia@example.com, evil@example.com"
	if err := s.Send(t.Context(), m); !fault.Is(err, "mail_address") {
		t.Errorf("two receivers: %v", err)
	}
}

// A mail server that would take the password in the clear, or is not one, is refused
// when the server is configured or at the first mail.
func TestNew(t *testing.T) {
	t.Parallel()
	from, pass := "Ambit <ambit@example.com>", secret.FromString("x")
	for what, c := range map[string]mail.Config{
		"no URL": {From: from}, "another scheme": {URL: "https://mail.example.com", From: from}, "a password in the URL": {URL: "smtps://a:b@mail.example.com", Password: pass, From: from},
		"a user without a password": {URL: "smtps://a@mail.example.com", From: from}, "a password without a user": {URL: "smtps://mail.example.com", Password: pass, From: from},
		"no sender": {URL: "smtps://mail.example.com"}, "a sender that is none": {URL: "smtps://mail.example.com", From: "Ambit"}, "a port that is none": {URL: "smtps://mail.example.com:99999", From: from},
		"a path": {URL: "smtps://mail.example.com/x", From: from},
	} {
		if _, err := mail.New(c); !fault.Is(err, "mail_invalid") {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, to := range []string{"", "mia", "Mia <mia@example.com>", "a@example.com,b@example.com", "a@example.com\r\nb"} {
		if err := mail.CheckAddress(to); !fault.Is(err, "mail_address") {
			t.Errorf("%q is taken as an address: %v", to, err)
		}
	}
	if err := mail.CheckAddress("team@example.com"); err != nil {
		t.Error(err)
	}
}

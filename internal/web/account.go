package web

import (
	"crypto/rand"
	"html/template"
	"net/http"
	"net/url"
	"strings"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/qr"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/throttle"
)

func (s *Server) signInPage(v *visit) (answer, error) {
	return show(s.signInForm(safeNext(v.form("next")), "")), nil
}

func (s *Server) signInForm(next, email string) *SignInPage {
	return &SignInPage{Frame: Frame{Title: "Sign in", Bare: true}, Next: next, Email: email, Providers: signInRows(s.people.OperatorProviders())}
}

func (s *Server) signInBegin(v *visit) (answer, error) {
	flow, o, err := s.people.BeginSignIn(v.ctx())
	return options{Options: o, Flow: flow}, err
}

func (s *Server) signInByPasskey(v *visit) (answer, error) {
	token, err := s.people.FinishSignIn(v.ctx(), v.form("flow"), []byte(v.form("credential")), s.address(v.r))
	return s.signedIn(v, token, safeNext(v.form("next")), "", err)
}

func (s *Server) signInByCode(v *visit) (answer, error) {
	token, err := s.people.SignInTOTP(v.ctx(), v.form("email"), strings.ReplaceAll(v.form("code"), " ", ""), s.address(v.r))
	return s.signedIn(v, token, safeNext(v.form("next")), v.form("email"), s.counted(v, err))
}

// counted holds the refused sign-ins of an address to a rate, whatever each was
// refused for. It is asked after the fact: whoever signs in is let in, however
// many strangers at their address fail (threats.md W7).
func (s *Server) counted(v *visit, err error) error {
	if k := fault.KindOf(err); err == nil || k == fault.Internal || k == fault.Unavailable {
		return err
	}
	if ok, wait := s.refusals.Allow(throttle.Address(s.address(v.r))); !ok {
		return fault.New(fault.Limited, "too_many_attempts", "Too many sign-ins from your network were refused.").
			WithHint("Wait a few seconds and try again, or use a passkey.").WithRetry(wait)
	}
	return err
}

// signedIn puts the new login into the cookie and ends the one that the browser
// came with (threats.md W2).
func (s *Server) signedIn(v *visit, token secret.Value, next, email string, err error) (answer, error) {
	if err != nil {
		f := fault.Of(err)
		if f.Kind == fault.Internal || f.Kind == fault.Unavailable {
			return nil, err
		}
		retryAfter(v.w, f)
		p := s.signInForm(next, email)
		p.Problem = &Notice{Kind: "bad", Message: f.Message, Hint: f.Hint}
		return shown{status(f.Kind), p}, nil
	}
	if v.signedIn() {
		logFailure(s.log, "ending the login that a new one replaces", s.people.SignOut(v.ctx(), v.person, v.person.Login()))
	}
	s.cookie.set(v.w, token)
	return goTo(next), nil
}

func (s *Server) enrollPage(*visit) (answer, error) {
	return show(&EnrollPage{Frame{Title: "Your sign-in link", Bare: true}}), nil
}

// enrollLook says whether a link still works, without using it up, so that
// nobody is welcomed by one that does not.
func (s *Server) enrollLook(v *visit) (answer, error) {
	_, err := s.people.Link(v.ctx(), secret.FromString(v.form("token")))
	return options{}, err
}

func (s *Server) enrollBegin(v *visit) (answer, error) {
	o, err := s.people.BeginEnroll(v.ctx(), secret.FromString(v.form("token")))
	return options{Options: o}, err
}

func (s *Server) enroll(v *visit) (answer, error) {
	token, err := s.people.FinishEnroll(v.ctx(), secret.FromString(v.form("token")), []byte(v.form("credential")), v.form("label"), s.address(v.r))
	if err != nil {
		return nil, err
	}
	return s.signedIn(v, token, "/ui/account?done=second", "", nil)
}

// enrollAuthenticator is for whoever cannot have a passkey where they are.
func (s *Server) enrollAuthenticator(v *visit) (answer, error) {
	seed, err := s.people.BeginEnrollTOTP(v.ctx(), secret.FromString(v.form("token")))
	if err != nil {
		return nil, err
	}
	p := authenticatorPage(seed, "/ui/enroll/authenticator/confirm")
	p.Token, p.Bare = v.form("token"), true
	return show(p), nil
}

func (s *Server) enrollAuthenticatorConfirm(v *visit) (answer, error) {
	token, err := s.people.FinishEnrollTOTP(v.ctx(), secret.FromString(v.form("token")), v.proof().TOTP, s.address(v.r))
	if err != nil {
		return nil, err
	}
	return s.signedIn(v, token, "/ui/account?done=authenticator", "", nil)
}

func authenticatorPage(otpauth secret.Value, action string) *AuthenticatorPage {
	raw := reveal(otpauth)
	p := &AuthenticatorPage{Frame: Frame{Title: "Authenticator app", Section: "account", Narrow: true}, Action: action}
	if u, err := url.Parse(raw); err == nil && u.Scheme == "otpauth" {
		p.Secret, p.URL = inFours(u.Query().Get("secret")), template.URL(raw) //nolint:gosec // made by package account
		if code, err := qr.Encode(raw); err == nil {                          // without it, the secret can still be typed
			p.QR = &QRView{Side: code.Side(), Path: code.Path()}
		}
	}
	return p
}

func inFours(s string) string {
	var parts []string
	for len(s) > 4 {
		parts, s = append(parts, s[:4]), s[4:]
	}
	return strings.Join(append(parts, s), " ")
}

func (s *Server) signOut(v *visit) (answer, error) {
	err := s.people.SignOut(v.ctx(), v.person, v.person.Login())
	if err != nil {
		return nil, err
	}
	s.cookie.clear(v.w)
	return goTo("/ui/signin"), nil
}

func (s *Server) signOutEverywhere(v *visit) (answer, error) {
	if err := s.people.SignOutEverywhere(v.ctx(), v.person); err != nil {
		return nil, err
	}
	s.cookie.clear(v.w)
	return goTo("/ui/signin"), nil
}

func (s *Server) loginSignOut(v *visit) (answer, error) {
	login, err := parseID(id.Login(v.r.PathValue("id")))
	if err != nil {
		return nil, err
	}
	if login == v.person.Login() {
		return s.signOut(v)
	}
	if err := s.people.SignOut(v.ctx(), v.person, login); err != nil {
		return nil, err
	}
	return goTo("/ui/account?done=signed_out"), nil
}

func (s *Server) account(v *visit) (answer, error) {
	p, err := s.accountPage(v, v.person.Name(), v.person.Email())
	if err != nil {
		return nil, err
	}
	return show(p), nil
}

// accountPage has the form of the profile filled in.
func (s *Server) accountPage(v *visit, name, email string) (*AccountPage, error) {
	p := &AccountPage{Frame: Frame{Title: "Your account", Section: "account"}, Name: name, Email: email}
	passkeys, err := s.people.Passkeys(v.ctx(), v.person)
	if err != nil {
		return nil, err
	}
	for _, k := range passkeys {
		p.Passkeys = append(p.Passkeys, PasskeyRow{ID: k.ID, Label: k.Label, Created: k.CreatedAt, LastUsed: k.LastUsedAt})
	}
	if p.TOTP, err = s.people.HasTOTP(v.ctx(), v.person); err != nil {
		return nil, err
	}
	p.Removable = len(passkeys) > 1 || p.TOTP
	if err := s.accountSignIns(v, p); err != nil {
		return nil, err
	}
	p.Mails = s.webhooks.Mails() && v.here.Environment != ""
	if p.Mailed, p.MailFailed, err = s.webhooks.Personal(v.ctx(), v.person, v.here.Environment); err != nil {
		return nil, err
	}
	return p, s.accountLists(v, p)
}

// accountMail has the person told by mail of what waits for them, or no more.
func (s *Server) accountMail(v *visit) (answer, error) {
	if err := s.webhooks.SetPersonal(v.ctx(), v.person, v.here.Environment, v.form("on") == "yes"); err != nil {
		p, broken := s.accountPage(v, v.person.Name(), v.person.Email())
		if broken != nil {
			return nil, broken
		}
		return again(p, err)
	}
	return goTo("/ui/account?done=saved"), nil
}

// accountSignIns adds the sign-ins elsewhere that the person has, and could add.
func (s *Server) accountSignIns(v *visit, p *AccountPage) error {
	have, err := s.people.Identities(v.ctx(), v.person)
	if err != nil {
		return err
	}
	known := map[id.IdentityProvider]bool{}
	for _, i := range have {
		known[i.Provider.ID] = true
		row := signInRow(i.Provider)
		row.Issuer, row.Subject = i.Issuer, i.Subject
		p.SignIns = append(p.SignIns, row)
	}
	more, err := s.people.Addable(v.ctx(), v.person)
	for _, i := range more {
		if !known[i.ID] {
			p.Addable = append(p.Addable, signInRow(i))
		}
	}
	return err
}

func (s *Server) accountLists(v *visit, p *AccountPage) error {
	logins, err := s.people.Logins(v.ctx(), v.person)
	if err != nil {
		return err
	}
	what := map[string]string{account.MethodPasskey: "Browser, by passkey", account.MethodTOTP: "Browser, by authenticator code", account.MethodLink: "Browser, by sign-in link", account.MethodVouched: "Browser, on an application's word", account.MethodCLI: "Command line", account.MethodFederated: "Browser, by an identity provider"}
	for _, l := range logins {
		p.Logins = append(p.Logins, LoginRow{ID: l.ID, What: what[l.Method], Address: l.Address, Current: l.Current, Created: l.AuthenticatedAt, Seen: l.LastSeenAt})
	}
	p.Notices, err = s.notices(v)
	return err
}

// notices are what the person must be told, until they say that they know.
func (s *Server) notices(v *visit) ([]NoticeRow, error) {
	list, err := s.people.Notices(v.ctx(), v.person)
	var out []NoticeRow
	for _, n := range list {
		row := NoticeRow{ID: n.ID, Text: "A recovery link was made on the server for " + oneLine(n.UserName) + ".", At: n.At}
		if v.actor().May("", account.ReadAudit) == nil {
			row.About = n.User
		}
		if n.Kind == account.NoticeRestored {
			row.About, row.Text = "", "The database was put back from a backup. Sessions and sign-ins of then were ended; what was revoked or changed after the backup may be as it was before."
		}
		if n.Kind == account.NoticeWebhook {
			row.About, row.Text = "", "A webhook did not answer for days, so nothing is sent there any more. Mend it, then: ambit webhook enable."
		}
		if n.Kind == account.NoticeFirstOwner {
			row.Text = "An application made a sign-in link for " + oneLine(n.UserName) + ", as the first owner of an organization."
		}
		out = append(out, row)
	}
	return out, err
}

func (s *Server) profile(v *visit) (change, error) {
	name, email := v.form("name"), v.form("email")
	return change{back: "/ui/account", form: func() (page, error) { return s.accountPage(v, name, email) },
		try: func(ag account.Agreement) (answer, error) {
			return goTo("/ui/account?done=saved"), s.people.SetProfile(v.ctx(), v.person, name, email, ag)
		},
		ask: func(r account.Raise) (page, error) { return s.profilePage(v, r), nil }}, nil
}

// unlockPage asks who is there before another way to sign in is registered.
func (s *Server) unlockPage(v *visit, eyebrow, line, action string) (*ConfirmPage, error) {
	keys, err := s.people.Passkeys(v.ctx(), v.person)
	if err != nil {
		return nil, err
	}
	code, err := s.people.HasCode(v.ctx(), v.person)
	return &ConfirmPage{Frame: Frame{Title: eyebrow, Section: "account", Narrow: true}, Eyebrow: eyebrow, Sentence: "First show that it is you.", Lines: []string{line}, Nonce: rand.Text(),
		Action: action, Begin: "/ui/account/unlock", Label: "It is me", Back: "/ui/account", TOTP: code && (len(keys) == 0 || s.codeAllowed(v))}, err
}

func (s *Server) unlockChallenge(v *visit) (answer, error) {
	return s.challenge(v, s.people.UnlockDigest(v.person, v.form("nonce")))
}

func (s *Server) passkeyNew(v *visit) (answer, error) {
	p, err := s.passkeyNewPage(v)
	if err != nil {
		return nil, err
	}
	return show(p), nil
}

func (s *Server) passkeyNewPage(v *visit) (*ConfirmPage, error) {
	return s.unlockPage(v, "Add a passkey", "Use a way to sign in that you already have. Then you make the new passkey.", "/ui/account/passkeys/new")
}

func (s *Server) passkeyUnlock(v *visit) (answer, error) {
	grant, err := s.people.Unlock(v.ctx(), v.person, v.form("nonce"), v.proof())
	if err != nil {
		p, broken := s.passkeyNewPage(v)
		if broken != nil {
			return nil, broken
		}
		return again(p, err)
	}
	return show(&PasskeyNewPage{Frame: Frame{Title: "Add a passkey", Section: "account", Narrow: true}, Grant: reveal(grant)}), nil
}

// grant is the permission that a proof of presence gave to this form.
func grant(v *visit) secret.Value { return secret.FromString(v.form("grant")) }

func (s *Server) passkeyBegin(v *visit) (answer, error) {
	flow, o, err := s.people.BeginAddPasskey(v.ctx(), v.person, grant(v))
	return options{Options: o, Flow: flow}, err
}

func (s *Server) passkeyAdd(v *visit) (answer, error) {
	if _, err := s.people.FinishAddPasskey(v.ctx(), v.person, grant(v), v.form("flow"), []byte(v.form("credential")), v.form("label")); err != nil {
		return nil, err
	}
	return goTo("/ui/account?done=passkey"), nil
}

func (s *Server) findPasskey(v *visit) (account.Passkey, error) {
	kid, err := parseID(id.Passkey(v.r.PathValue("id")))
	if err != nil {
		return account.Passkey{}, err
	}
	list, err := s.people.Passkeys(v.ctx(), v.person)
	for _, k := range list {
		if k.ID == kid {
			return k, nil
		}
	}
	if err == nil {
		err = fault.New(fault.NotFound, "not_found", "No such passkey.")
	}
	return account.Passkey{}, err
}

func (s *Server) passkeyRemovePage(v *visit) (answer, error) {
	k, err := s.findPasskey(v)
	if err != nil {
		return nil, err
	}
	return show(s.removePage(v, k)), nil
}

func (s *Server) removePage(v *visit, k account.Passkey) *ConfirmPage {
	to := "/ui/account/passkeys/" + string(k.ID)
	return &ConfirmPage{Frame: Frame{Title: "Remove a passkey", Section: "account", Narrow: true}, Eyebrow: "Passkeys", Sentence: "Remove the passkey " + oneLine(k.Label) + "?",
		Lines: []string{"Wherever you signed in with it, you are signed out. Confirm with any of your passkeys."}, Action: to, Begin: to + "/challenge", Label: "Remove it", Danger: true, Back: "/ui/account", TOTP: s.codeAllowed(v)}
}

func (s *Server) passkeyRemoveChallenge(v *visit) (answer, error) {
	k, err := s.findPasskey(v)
	if err != nil {
		return nil, err
	}
	return s.challenge(v, s.people.RemovePasskeyDigest(v.person, k.ID))
}

func (s *Server) passkeyRemove(v *visit) (answer, error) {
	k, err := s.findPasskey(v)
	if err != nil {
		return nil, err
	}
	if err := s.people.RemovePasskey(v.ctx(), v.person, k.ID, v.proof()); err != nil {
		return again(s.removePage(v, k), err)
	}
	return goTo("/ui/account?done=passkey_removed"), nil
}

func (s *Server) authenticatorNew(v *visit) (answer, error) {
	p, err := s.authenticatorNewPage(v)
	if err != nil {
		return nil, err
	}
	return show(p), nil
}

func (s *Server) authenticatorNewPage(v *visit) (*ConfirmPage, error) {
	return s.unlockPage(v, "Set up an authenticator app", "Use a way to sign in that you already have. Then you set the app up; one that is registered now stops working.", "/ui/account/authenticator")
}

func (s *Server) authenticator(v *visit) (answer, error) {
	grant, err := s.people.Unlock(v.ctx(), v.person, v.form("nonce"), v.proof())
	if err != nil {
		p, broken := s.authenticatorNewPage(v)
		if broken != nil {
			return nil, broken
		}
		return again(p, err)
	}
	seed, err := s.people.BeginTOTP(v.ctx(), v.person, grant)
	if err != nil {
		return nil, err
	}
	p := authenticatorPage(seed, "/ui/account/authenticator/confirm")
	p.Grant = reveal(grant)
	return show(p), nil
}

func (s *Server) authenticatorConfirm(v *visit) (answer, error) {
	if err := s.people.FinishTOTP(v.ctx(), v.person, grant(v), v.proof().TOTP); err != nil {
		return nil, err
	}
	return goTo("/ui/account?done=authenticator"), nil
}

func (s *Server) noticeDismiss(v *visit) (answer, error) {
	event, err := parseID(id.Event(v.r.PathValue("id")))
	if err != nil {
		return nil, err
	}
	if err := s.people.DismissNotice(v.ctx(), v.person, event); err != nil {
		return nil, err
	}
	return goTo(safeNext(v.form("next"))), nil
}

// cliEnter takes the code that a command line shows.
func (s *Server) cliEnter(v *visit) (answer, error) {
	if code := v.form("code"); code != "" {
		if ledHere(v.r) {
			return show(codePage(code)), nil
		}
		r, err := s.people.CLIRequest(v.ctx(), v.person, code)
		if err != nil {
			return codeAgain(codePage(code), err)
		}
		return goTo("/ui/cli/" + r.Code), nil
	}
	return show(codePage("")), nil
}

// ledHere reports whether another site's page led the browser here. A code that
// such a page brings is shown and not looked up before the person sends it, so
// that no page uses up the wrong codes that a person may type.
func ledHere(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	return true
}

func codePage(code string) *CodePage {
	return &CodePage{Frame: Frame{Title: "Sign in a command line", Narrow: true}, Code: code}
}

// codeAgain asks for a code again with what was typed, so that one letter can be
// put right.
func codeAgain(p *CodePage, err error) (answer, error) {
	if f := fault.Of(err); f.Kind == fault.NotFound {
		p.Problem = &Notice{Kind: "bad", Message: f.Message, Hint: f.Hint}
		return shown{status(f.Kind), p}, nil
	}
	return again(p, err)
}

func (s *Server) cli(v *visit) (answer, error) {
	if ledHere(v.r) {
		return show(codePage(v.r.PathValue("code"))), nil
	}
	r, err := s.people.CLIRequest(v.ctx(), v.person, v.r.PathValue("code"))
	if err != nil {
		return codeAgain(codePage(v.r.PathValue("code")), err)
	}
	return show(s.cliPage(v, r)), nil
}

func (s *Server) cliPage(v *visit, r account.CLIRequest) *ConfirmPage {
	to := "/ui/cli/" + r.Code
	return &ConfirmPage{Frame: Frame{Title: "Sign in a command line", Narrow: true}, Eyebrow: "Sign in a command line", Sentence: "Does your terminal show this code?", Code: r.Code[:4] + "-" + r.Code[4:],
		Lines:  []string{"It asked from " + oneLine(r.Address) + ".", "Then that command line acts as you, except for approving, revealing, making keys, and giving anybody more than they have. If you did not start this yourself, refuse it."},
		Action: to, Begin: to + "/challenge", Label: "Yes, sign it in", Refuse: to + "/refuse", TOTP: s.codeAllowed(v)}
}

func (s *Server) cliChallenge(v *visit) (answer, error) {
	r, err := s.people.CLIRequest(v.ctx(), v.person, v.r.PathValue("code"))
	if err != nil {
		return nil, err
	}
	return s.challenge(v, s.people.CLIDigest(v.person, r.Code))
}

func (s *Server) cliConfirm(v *visit) (answer, error) {
	r, err := s.people.CLIRequest(v.ctx(), v.person, v.r.PathValue("code"))
	if err != nil {
		return codeAgain(codePage(v.r.PathValue("code")), err)
	}
	if err := s.people.ConfirmCLI(v.ctx(), v.person, r.Code, v.proof()); err != nil {
		return again(s.cliPage(v, r), err)
	}
	return show(&ResultPage{Frame: Frame{Title: "Signed in", Narrow: true}, Word: "Signed in", Icon: "good", Sentence: "The command line is signed in. Go back to it.", Back: home, BackLabel: "To the inbox"}), nil
}

// cliRefuse ends what waits behind a code.
func (s *Server) cliRefuse(v *visit) (answer, error) {
	if err := s.people.RefuseCLI(v.ctx(), v.person, v.r.PathValue("code")); err != nil {
		return codeAgain(codePage(v.r.PathValue("code")), err)
	}
	return show(&ResultPage{Frame: Frame{Title: "Refused", Narrow: true}, Word: "Refused", Icon: "bad", Sentence: "The command line is not signed in, and its code is void.", Back: home, BackLabel: "To the inbox"}), nil
}

package web

import (
	"encoding/base64"
	"net/http"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
)

// leftCookie keeps what a browser needs for the answer of an identity provider to
// count; see package account.
func (s *Server) leftCookie(value string, age int) *http.Cookie {
	c := s.cookie.with(value, age)
	c.Name += "-signin"
	return c
}

func identityProvider(v *visit) (id.IdentityProvider, error) {
	if raw := v.r.PathValue("provider"); raw != string(account.OperatorProvider) {
		return parseID(id.IdentityProvider(raw))
	}
	return account.OperatorProvider, nil
}

func signInRow(i account.IdentityProvider) SignInRow {
	return SignInRow{ID: i.ID, Name: i.Name, Host: i.Host(), Issuer: i.Issuer, ClientID: i.ClientID, Admits: i.Admits, Version: i.Version}
}

func signInRows(list []account.IdentityProvider) (rows []SignInRow) {
	for _, i := range list {
		rows = append(rows, signInRow(i))
	}
	return rows
}

// away sends a browser to an identity provider.
type away struct{ account.Leaving }

func (a away) send(s *Server, v *visit) {
	s.keepFor(v, a.Leaving)
	http.Redirect(v.w, v.r, a.Address, http.StatusSeeOther)
}

func (s *Server) keepFor(v *visit, l account.Leaving) {
	http.SetCookie(v.w, s.leftCookie(base64.RawURLEncoding.EncodeToString([]byte(reveal(l.Keep))), int(account.FlowAge.Seconds())))
}

// leavePage is away for the answer to a form, which the policy of our pages lets
// lead to no other origin.
func (s *Server) leavePage(v *visit, sentence, back string, l account.Leaving) (answer, error) {
	s.keepFor(v, l)
	return leave(l.Address, LeavePage{Frame: Frame{Title: "Sign in", Bare: !v.signedIn(), Narrow: true}, Sentence: sentence, Back: back})
}

func (s *Server) signInWith(v *visit) (answer, error) {
	i, err := identityProvider(v)
	if err != nil {
		return nil, err
	}
	l, err := s.people.LeaveToSignIn(v.ctx(), i, safeNext(v.form("next")))
	return s.leaveAsked(v, "Sign in here with an account that you have elsewhere?", l, err)
}

// leaveAsked sends a browser to a provider at once if the person asked for it here.
// Another site's page leads no further than to a link: else it could sign somebody
// in as another, at a provider that answers by itself (threats.md W2).
func (s *Server) leaveAsked(v *visit, sentence string, l account.Leaving, err error) (answer, error) {
	if err != nil {
		return nil, err
	}
	if ledHere(v.r) {
		return s.leavePage(v, sentence, home, l)
	}
	return away{l}, nil
}

// signInFrom takes the answer of an identity provider.
func (s *Server) signInFrom(v *visit) (answer, error) {
	i, err := identityProvider(v)
	if err != nil {
		return nil, err
	}
	kept := v.r.CookiesNamed(s.leftCookie("", 0).Name)
	http.SetCookie(v.w, s.leftCookie("", -1))
	gone := fault.New(fault.Expired, "flow_expired", "This took too long, or was answered already.").WithHint("Start again.")
	if len(kept) != 1 { // a second one is another program's (threats.md W2)
		return nil, gone
	}
	keep, err := base64.RawURLEncoding.DecodeString(kept[0].Value)
	if err != nil {
		return nil, gone
	}
	got, err := s.people.Arrive(v.ctx(), v.person, i, account.Arrival{State: v.form("state"), Code: v.form("code"), Issuer: v.form("iss"), Error: v.form("error"),
		Keep: secret.New(keep), Address: s.address(v.r)})
	switch {
	case err != nil:
		if err = s.counted(v, err); !v.signedIn() {
			return s.signedIn(v, secret.Value{}, home, "", err)
		}
		return nil, err
	case got.Code != "":
		return show(&FreshPage{Frame: Frame{Title: "Your code", Section: "account", Narrow: true}, Code: got.Code}), nil
	case got.Login.IsZero():
		return goTo("/ui/account?done=identity"), nil
	}
	return s.signedIn(v, got.Login, safeNext(got.Next), "", nil)
}

// enrollWith accepts a link with a sign-in elsewhere.
func (s *Server) enrollWith(v *visit) (answer, error) {
	token := secret.FromString(v.form("token"))
	e, list, err := s.people.Beginnings(v.ctx(), token)
	if err != nil {
		return nil, err
	}
	p := &BeginningsPage{Frame: Frame{Title: "Your sign-in link", Bare: true}, Name: e.Name, Token: v.form("token"), Providers: signInRows(list)}
	chosen := id.IdentityProvider(v.form("provider"))
	if len(list) == 1 {
		chosen = list[0].ID
	}
	if chosen == "" {
		return show(p), nil
	}
	l, err := s.people.LeaveToEnroll(v.ctx(), token, chosen)
	if err != nil {
		return again(p, err)
	}
	return s.leavePage(v, "You become "+oneLine(e.Name)+" here, with your sign-in elsewhere.", "", l)
}

// signInAdd adds a sign-in elsewhere to what a person can sign in with.
func (s *Server) signInAdd(v *visit) (answer, error) {
	p, _, err := s.signInAddPage(v)
	if err != nil {
		return nil, err
	}
	return show(p), nil
}

func (s *Server) signInAddPage(v *visit) (*ConfirmPage, account.IdentityProvider, error) {
	want, err := identityProvider(v)
	if err != nil {
		return nil, account.IdentityProvider{}, err
	}
	list, err := s.people.Addable(v.ctx(), v.person)
	if err != nil {
		return nil, account.IdentityProvider{}, err
	}
	for _, i := range list {
		if i.ID == want {
			p, err := s.unlockPage(v, "Add a sign-in", "From then on you can sign in at "+oneLine(i.Name)+" ("+oneLine(i.Host())+").", "/ui/account/signins/"+string(want))
			return p, i, err
		}
	}
	return nil, account.IdentityProvider{}, fault.New(fault.NotFound, "not_found", "No such identity provider.")
}

func (s *Server) signInUnlock(v *visit) (answer, error) {
	p, i, err := s.signInAddPage(v)
	if err != nil {
		return nil, err
	}
	grant, err := s.people.Unlock(v.ctx(), v.person, v.form("nonce"), v.proof())
	if err != nil {
		return again(p, err)
	}
	l, err := s.people.LeaveToAdd(v.ctx(), v.person, grant, i.ID)
	if err != nil {
		return nil, err
	}
	return s.leavePage(v, "Sign in at "+oneLine(i.Name)+" as yourself.", "/ui/account", l)
}

func (s *Server) signInForget(v *visit) (answer, error) {
	if err := s.people.ForgetIdentity(v.ctx(), v.person, id.IdentityProvider(v.form("provider")), v.form("issuer"), v.form("subject")); err != nil {
		return nil, err
	}
	return goTo("/ui/account?done=identity_gone"), nil
}

// freshPage offers the ways to get a code for another page's form.
func (s *Server) freshPage(v *visit) (answer, error) {
	list, err := s.people.FreshIdentities(v.ctx(), v.person)
	return show(&FreshPage{Frame: Frame{Title: "A code for a form", Section: "account", Narrow: true}, Providers: signInRows(list)}), err
}

func (s *Server) freshLeave(v *visit) (answer, error) {
	i, err := identityProvider(v)
	if err != nil {
		return nil, err
	}
	l, err := s.people.LeaveForCode(v.ctx(), v.person, i)
	return s.leaveAsked(v, "Sign in there again, for a code?", l, err)
}

// signInSettings shows how the members of an organization sign in.
func (s *Server) signInSettings(v *visit) (answer, error) {
	p, err := s.signInSettingsPage(v)
	if err != nil {
		return nil, err
	}
	return show(p), nil
}

func (s *Server) signInSettingsPage(v *visit) (*SignInSettingsPage, error) {
	list, err := s.people.IdentityProviders(v.ctx(), v.actor(), v.here.Organization)
	if err != nil {
		return nil, err
	}
	p := &SignInSettingsPage{Frame: Frame{Title: "Sign-in", Section: "organization"}, Name: v.form("name"), Issuer: v.form("issuer"), ClientID: v.form("client_id"), Admits: v.form("admits") == "yes",
		CanChange: v.here.Role == account.RoleOwner, Return: s.people.ReturnAddress("idp_…")}
	p.Providers = signInRows(list)
	for n, i := range list {
		p.Providers[n].Begin, p.Providers[n].Return = s.people.SignInAddress(i.ID), s.people.ReturnAddress(i.ID)
	}
	return p, nil
}

func (s *Server) signInSettingsForm(v *visit) func() (page, error) {
	return func() (page, error) { return s.signInSettingsPage(v) }
}

func (s *Server) signInProviderAdd(v *visit) (change, error) {
	n := account.NewIdentityProvider{Name: v.form("name"), Issuer: v.form("issuer"), ClientID: v.form("client_id"), Secret: secret.FromString(v.form("client_secret")), Admits: v.form("admits") == "yes"}
	return change{back: v.query("/ui/organization/signin"), form: s.signInSettingsForm(v),
		try: func(ag account.Agreement) (answer, error) {
			_, err := s.people.AddIdentityProvider(v.ctx(), v.actor(), v.here.Organization, n, ag)
			return goTo(v.query("/ui/organization/signin", "done", "signin_added")), err
		},
		ask: func(r account.Raise) (page, error) { return s.signInProviderPage(v, r), nil }}, nil
}

func (s *Server) signInAdmits(v *visit) (change, error) {
	i, err := identityProvider(v)
	if err != nil {
		return change{}, err
	}
	yes := v.form("admits") == "yes"
	return change{back: v.query("/ui/organization/signin"), form: s.signInSettingsForm(v),
		try: func(ag account.Agreement) (answer, error) {
			_, err := s.people.ChangeIdentityProvider(v.ctx(), v.actor(), i, v.version(), account.IdentityProviderChange{Admits: &yes}, ag)
			return goTo(v.query("/ui/organization/signin", "done", "saved")), err
		},
		ask: func(r account.Raise) (page, error) { return s.signInProviderPage(v, r), nil }}, nil
}

func (s *Server) signInSecret(v *visit) (answer, error) {
	i, err := identityProvider(v)
	if err != nil {
		return nil, err
	}
	key := secret.FromString(v.form("client_secret"))
	if _, err := s.people.ChangeIdentityProvider(v.ctx(), v.actor(), i, v.version(), account.IdentityProviderChange{Secret: &key}, account.Agreement{}); err != nil {
		return nil, err
	}
	return goTo(v.query("/ui/organization/signin", "done", "saved")), nil
}

func (s *Server) signInRemove(v *visit) (answer, error) {
	i, err := identityProvider(v)
	if err != nil {
		return nil, err
	}
	if err := s.people.RemoveIdentityProvider(v.ctx(), v.actor(), i); err != nil {
		return nil, err
	}
	return goTo(v.query("/ui/organization/signin", "done", "signin_removed")), nil
}

// signInProviderPage asks for a provider, or for its admitting people.
func (s *Server) signInProviderPage(v *visit, r account.Raise) *ConfirmPage {
	i := account.IdentityProvider{Issuer: r.To}
	if r.Action == "identity_provider.changed" {
		i.Issuer = r.Facts["issuer"]
		p := s.confirming(v, "Who gets in", "organization", said("Whoever signs in at ", i.Host(), " becomes a member of ", v.here.OrganizationName, "."), "Admit them")
		p.Lines = []string{"Until now: those who are invited. A member has agents and accounts of their own here; other roles you give one by one."}
		return p
	}
	p := s.confirming(v, "Sign in elsewhere", "organization", said("Members of ", v.here.OrganizationName, " may sign in at ", i.Host(), "."), "Allow it")
	p.Lines = []string{"Issuer " + oneLine(r.To) + ", client id " + oneLine(r.Facts["client_id"]) + ".",
		"Whoever runs it can be any of the members who use it, here and in no other organization.",
		"Let in are " + oneLine(r.Facts["admits"]) + "."}
	return p
}

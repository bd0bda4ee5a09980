package web

import "github.com/ambit-dev/ambit/internal/id"

// SignInRow is one identity provider.
type SignInRow struct {
	ID               id.IdentityProvider
	Name, Host       string
	Issuer, ClientID string
	Subject          string // whom it knows the person as
	Begin, Return    string
	Admits           bool
	Version          int64
}

// BeginningsPage offers the sign-ins elsewhere with which a link can be accepted.
type BeginningsPage struct {
	Frame
	Name, Token string
	Providers   []SignInRow
}

func (*BeginningsPage) template() string { return "beginnings" }

// FreshPage leads to a code for a form of another page, and shows it.
type FreshPage struct {
	Frame
	Code      string
	Providers []SignInRow
}

func (*FreshPage) template() string { return "fresh" }

// SignInSettingsPage shows how the members of an organization sign in.
type SignInSettingsPage struct {
	Frame
	Providers              []SignInRow
	Name, Issuer, ClientID string // as typed
	Admits                 bool
	CanChange              bool
	Return                 string // what to tell a new provider, with the id still open
}

func (*SignInSettingsPage) template() string { return "signin_settings" }

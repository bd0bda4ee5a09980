package account_test

import (
	"fmt"
	"maps"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/issuer/issuertest"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// federation is a world, reached at base, with an identity provider beside it.
type federation struct {
	*world
	owner *accounttest.Human
	idp   *issuertest.Issuer
	org   id.Organization
}

func eachFederation(t *testing.T, base string, operator bool, fn func(t *testing.T, f *federation)) {
	t.Helper()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		f := &federation{}
		f.idp = issuertest.New(t, "alice@idp", func() time.Time { return f.now() })
		f.world = newFederated(t, db, base, f.idp, operator)
		f.owner = accounttest.Owner(t, f.Service)
		f.env, f.org = f.owner.Environment(), org(f.owner.Person).Organization
		fn(t, f)
	})
}

func (f *federation) add(t *testing.T, in id.Organization, by *accounttest.Human, admits bool) account.IdentityProvider {
	t.Helper()
	i, err := agreed(t, by, func(ag account.Agreement) (account.IdentityProvider, error) {
		return f.AddIdentityProvider(t.Context(), account.ByPerson(by.Person), in, account.NewIdentityProvider{Name: "Example Login", Issuer: f.idp.URL, ClientID: issuertest.ClientID,
			Secret: secret.FromString(issuertest.Secret), Admits: admits}, ag)
	})
	check(t, err)
	return i
}

// back takes a browser to the provider and gives what it brings back.
func (f *federation) back(t *testing.T, l account.Leaving) account.Arrival {
	t.Helper()
	q := f.idp.Answer(t, l.Address)
	return account.Arrival{State: q.Get("state"), Code: q.Get("code"), Issuer: q.Get("iss"), Error: q.Get("error"), Keep: l.Keep, Address: "203.0.113.5"}
}

func (f *federation) signIn(t *testing.T, provider id.IdentityProvider) (account.Person, error) {
	t.Helper()
	l, err := f.LeaveToSignIn(t.Context(), provider, "/ui/")
	check(t, err)
	got, err := f.Arrive(t.Context(), account.Person{}, provider, f.back(t, l))
	if err != nil {
		return account.Person{}, err
	}
	return f.Authenticate(t.Context(), got.Login, "203.0.113.5")
}

// invite makes a user of f.org and gives their link.
func (f *federation) invite(t *testing.T, name string, role account.Role) (link secret.Value) {
	t.Helper()
	n := account.NewUser{Environment: f.env, Organization: f.org, Name: name, Email: strings.ToLower(name) + "@example.com", Role: role}
	check(t, f.owner.Do(t, func(ag account.Agreement) (err error) {
		_, link, err = f.InviteUser(t.Context(), f.owner.Person, n, ag)
		return err
	}))
	return link
}

// invited is invite for somebody who accepts with their sign-in.
func (f *federation) invited(t *testing.T, name string, provider id.IdentityProvider, role account.Role) account.Person {
	t.Helper()
	got, err := f.accept(t, f.invite(t, name, role), provider)
	check(t, err)
	p, err := f.Authenticate(t.Context(), got.Login, "203.0.113.5")
	check(t, err)
	return p
}

func (f *federation) accept(t *testing.T, link secret.Value, provider id.IdentityProvider) (account.Arrived, error) {
	t.Helper()
	l, err := f.LeaveToEnroll(t.Context(), accounttest.LinkToken(link), provider)
	check(t, err)
	return f.Arrive(t.Context(), account.Person{}, provider, f.back(t, l))
}

// ownerAdds gives the owner a sign-in at a provider.
func (f *federation) ownerAdds(t *testing.T, provider id.IdentityProvider) error {
	t.Helper()
	l, err := f.LeaveToAdd(t.Context(), f.owner.Person, f.owner.Unlock(t), provider)
	check(t, err)
	_, err = f.Arrive(t.Context(), f.owner.Person, provider, f.back(t, l))
	return err
}

// fresh has a person sign in anew for a code.
func (f *federation) fresh(t *testing.T, p account.Person, provider id.IdentityProvider) (string, error) {
	t.Helper()
	l, err := f.LeaveForCode(t.Context(), p, provider)
	check(t, err)
	if u, _ := url.Parse(l.Address); u.Query().Get("prompt") != "login" || u.Query().Get("max_age") != "0" {
		t.Errorf("the provider is not asked for a fresh sign-in: %s", l.Address)
	}
	got, err := f.Arrive(t.Context(), p, provider, f.back(t, l))
	return got.Code, err
}

// letIn has a person let a command line in with a fresh sign-in, and gives what it
// polls with.
func (f *federation) letIn(t *testing.T, p account.Person, provider id.IdentityProvider) secret.Value {
	t.Helper()
	shown, poll, err := f.StartCLI(t.Context(), "203.0.113.5")
	check(t, err)
	code, err := f.fresh(t, p, provider)
	check(t, err)
	check(t, f.ConfirmCLI(t.Context(), p, shown, account.Proof{TOTP: code}))
	return poll
}

// G8, O1, W2: a sign-in at a provider is who its issuer and subject say, for the
// browser that asked, once; nobody is known by their e-mail, and whoever is not
// known gets in by an invitation only.
func TestFederatedSignIn(t *testing.T) {
	t.Parallel()
	eachFederation(t, publicURL, true, func(t *testing.T, f *federation) {
		ctx := t.Context()
		f.join(t, f.owner, account.RoleMember, "somebody@example.com") // the address that the provider says
		_, err := f.signIn(t, account.OperatorProvider)
		wantCode(t, err, "identity_unknown")
		f.audited(t, "signin.federated/deny/identity_unknown")

		p := f.invited(t, "Alice", account.OperatorProvider, account.RoleApprover)
		if p.Name() != "Alice" || p.Method() != account.MethodFederated || account.ByPerson(p).Organization() != "" || !p.May(f.org, account.RoleApprover) {
			t.Errorf("the invitation made %+v", p)
		}
		page, err := f.audit.List(ctx, audit.Filter{Environment: f.env, Action: "identity.added", Limit: 1})
		check(t, err)
		if want := map[string]string{"provider": string(account.OperatorProvider), "issuer": f.idp.URL, "subject": "alice@idp"}; len(page.Records) != 1 || !maps.Equal(page.Records[0].Detail, want) {
			t.Errorf("the audit has %+v", page.Records)
		}
		again, err := f.signIn(t, account.OperatorProvider)
		check(t, err)
		if again.User() != p.User() {
			t.Error("the same sign-in is somebody else the second time")
		}
		f.idp.Sit("mallory@idp")
		_, err = f.signIn(t, account.OperatorProvider)
		wantCode(t, err, "identity_unknown")
		f.idp.Sit("alice@idp")

		// The answer counts in the browser that asked, for what it asked, once.
		leave := func() account.Leaving {
			l, err := f.LeaveToSignIn(ctx, account.OperatorProvider, "/ui/")
			check(t, err)
			return l
		}
		mine, other := leave(), leave()
		a := f.back(t, mine)
		stolen := a
		stolen.Keep = other.Keep
		_, err = f.Arrive(ctx, account.Person{}, account.OperatorProvider, stolen)
		wantCode(t, err, "flow_expired")
		elsewhere := a
		elsewhere.Issuer = "https://other.example"
		_, err = f.Arrive(ctx, account.Person{}, account.OperatorProvider, elsewhere)
		wantCode(t, err, "id_token_refused")
		_, err = f.Arrive(ctx, account.Person{}, account.OperatorProvider, a)
		wantCode(t, err, "flow_expired") // the first answer used the request up
		late := f.back(t, leave())
		f.advance(account.FlowAge + time.Second)
		_, err = f.Arrive(ctx, account.Person{}, account.OperatorProvider, late)
		wantCode(t, err, "flow_expired")

		// Whoever is shut out stays out.
		check(t, f.owner.Do(t, func(ag account.Agreement) error {
			return f.DisableUser(ctx, account.ByPerson(f.owner.Person), p.User(), ag)
		}))
		_, err = f.signIn(t, account.OperatorProvider)
		wantCode(t, err, "identity_unknown")
	})
}

// S15, O3, G6: an ID token counts only if the issuer signed it with a key of its own, for
// us alone, for this very request, now.
func TestIDTokensRefused(t *testing.T) {
	t.Parallel()
	eachFederation(t, publicURL, true, func(t *testing.T, f *federation) {
		f.invited(t, "Alice", account.OperatorProvider, account.RoleMember)
		for what, c := range map[string]struct {
			reason string
			bend   func(c map[string]any)
		}{
			"another issuer":            {"issuer", func(c map[string]any) { c["iss"] = "https://other.example" }},
			"another audience":          {"audience", func(c map[string]any) { c["aud"] = "other" }},
			"several, no party":         {"authorized party", func(c map[string]any) { c["aud"] = []string{issuertest.ClientID, "other"} }},
			"another party":             {"authorized party", func(c map[string]any) { c["azp"] = "other" }},
			"too old":                   {"time", func(c map[string]any) { c["exp"] = f.now().Add(-2 * time.Minute).Unix() }},
			"no end":                    {"time", func(c map[string]any) { delete(c, "exp") }},
			"from the future":           {"time", func(c map[string]any) { c["iat"] = f.now().Add(time.Hour).Unix() }},
			"no time":                   {"time", func(c map[string]any) { delete(c, "iat") }},
			"another nonce":             {"nonce", func(c map[string]any) { c["nonce"] = "x" }},
			"no nonce":                  {"nonce", func(c map[string]any) { delete(c, "nonce") }},
			"no subject":                {"subject", func(c map[string]any) { c["sub"] = "" }},
			"a subject that is control": {"subject", func(c map[string]any) { c["sub"] = "alice@idp\n" }},
		} {
			f.idp.Bend(c.bend)
			f.advance(time.Minute) // the first entry of a network's minute counts the others of the last
			for range 2 {
				if _, err := f.signIn(t, account.OperatorProvider); err == nil {
					t.Errorf("%s: signed in", what)
				} else {
					wantCode(t, err, "id_token_refused")
				}
			}
			page, err := f.audit.List(t.Context(), audit.Filter{Environment: f.env, Action: "signin.federated", Limit: 1})
			check(t, err)
			if r := page.Records[0]; r.Code != "id_token_refused" || r.Detail["reason"] != c.reason || r.Detail["issuer"] != f.idp.URL || r.Detail["provider"] != string(account.OperatorProvider) {
				t.Errorf("%s: the audit has %s %v", what, r.Code, r.Detail)
			}
		}
		f.idp.Bend(func(c map[string]any) {
			c["aud"], c["azp"] = []string{"other", issuertest.ClientID}, issuertest.ClientID
		})
		_, err := f.signIn(t, account.OperatorProvider)
		check(t, err)
		f.idp.Bend(nil)
		f.idp.Rotate() // a key that we have not seen is looked for, after a minute at the earliest
		f.advance(time.Minute)
		_, err = f.signIn(t, account.OperatorProvider)
		check(t, err)
		f.idp.Hide() // which no answer to a sign-in can help
		f.advance(time.Hour)
		_, err = f.signIn(t, account.OperatorProvider)
		wantCode(t, err, "issuer_unusable")
	})
}

// A9, G8: an organization's provider opens that organization only, whatever its
// administrator makes it say; removing it ends what it opened.
func TestOrganizationsProvider(t *testing.T) {
	t.Parallel()
	eachFederation(t, publicURL, false, func(t *testing.T, f *federation) {
		ctx := t.Context()
		boss := account.ByPerson(f.owner.Person)
		other, err := f.CreateOrganization(ctx, boss, f.env, "Other", "")
		check(t, err)
		mallory := accounttest.Join(t, f.Service, f.env, other.ID, account.RoleOwner, "mallory@example.com")
		theirs := f.add(t, other.ID, mallory, true)

		// Who could be anybody there is a new member there, and nothing else.
		f.idp.Sit("mallory-says-owner")
		p, err := f.signIn(t, theirs.ID)
		check(t, err)
		if len(p.Organizations()) != 1 || p.Organizations()[0].Organization != other.ID || p.Email() != "" || p.Organizations()[0].Role != account.RoleMember {
			t.Errorf("admitted as %+v", p)
		}
		// A user of both organizations who accepts there is confined to it.
		both := f.invited(t, "Alice", f.add(t, f.org, f.owner, false).ID, account.RoleAdmin)
		if account.ByPerson(both).Organization() != f.org {
			t.Errorf("accepted at an organization's provider, and confined to %q", account.ByPerson(both).Organization())
		}
		again, err := f.signIn(t, theirs.ID)
		check(t, err)
		if again.User() != p.User() || account.ByPerson(again).Organization() != other.ID {
			t.Errorf("the second time they are %+v", again)
		}
		if list, _, err := f.Service.Organizations(ctx, account.ByPerson(again), f.env, account.List{}); err != nil || len(list) != 1 || list[0].ID != other.ID {
			t.Errorf("a confined login sees %v, %v", list, err)
		}
		if _, _, err := f.Members(ctx, account.ByPerson(again), f.org, account.List{}); err == nil {
			t.Error("a confined login sees members elsewhere")
		}
		// Nor by running the environment, if the organization does.
		if role, ok := both.Role(f.org); !ok || role != account.RoleAdmin {
			t.Fatalf("no admin of the operator's organization: %v", both)
		}
		_, _, err = f.Members(ctx, account.ByPerson(both), other.ID, account.List{})
		wantCode(t, err, "not_found")
		_, err = f.Place(ctx, both, other.ID)
		wantCode(t, err, "not_found")
		_, _, err = f.Users(ctx, account.ByPerson(both), f.env, account.List{})
		wantCode(t, err, "not_allowed")
		err = f.DisableUser(ctx, account.ByPerson(both), mallory.Person.User(), none)
		wantCode(t, err, "not_found")
		if list, _, err := f.Service.Organizations(ctx, account.ByPerson(both), f.env, account.List{}); err != nil || len(list) != 1 || list[0].ID != f.org {
			t.Errorf("a confined admin of the operator's organization sees %v, %v", list, err)
		}

		// W2: an answer signs nobody in where somebody else is.
		l0, err := f.LeaveToSignIn(ctx, theirs.ID, "/ui/")
		check(t, err)
		_, err = f.Arrive(ctx, f.owner.Person, theirs.ID, f.back(t, l0))
		wantCode(t, err, "signed_in_already")

		wantCode(t, f.SetProfile(ctx, again, "Another name", "", none), "sign_in_confined")
		wantCode(t, f.DismissNotice(ctx, again, id.NewEvent()), "not_found")
		if err := f.SignOutEverywhere(ctx, again); err == nil {
			t.Error("a confined login ends logins elsewhere")
		}

		// Not an owner, and not a key, adds one; a cookie alone does not either.
		member := f.join(t, f.owner, account.RoleAdmin, "admin@example.com")
		_, err = f.AddIdentityProvider(ctx, account.ByPerson(member.Person), f.org, account.NewIdentityProvider{Name: "x", Issuer: f.idp.URL, ClientID: "x"}, none)
		wantCode(t, err, "not_allowed")
		_, err = f.AddIdentityProvider(ctx, boss, f.org, account.NewIdentityProvider{Name: "x", Issuer: f.idp.URL, ClientID: "x"}, none)
		wantCode(t, err, "proof_required")
		_, err = f.AddIdentityProvider(ctx, account.ByPerson(mallory.Person), f.org, account.NewIdentityProvider{Name: "x", Issuer: f.idp.URL, ClientID: "x"}, none)
		wantCode(t, err, "not_found")

		// A member who left does not come back by signing in.
		check(t, f.RemoveMember(ctx, account.ByPerson(mallory.Person), other.ID, p.User(), none))
		_, err = f.signIn(t, theirs.ID)
		wantCode(t, err, "not_a_member")

		f.idp.Sit("another one")
		q, err := f.signIn(t, theirs.ID)
		check(t, err)
		l, err := f.LeaveToSignIn(ctx, theirs.ID, "/ui/")
		check(t, err)
		check(t, f.RemoveIdentityProvider(ctx, account.ByPerson(mallory.Person), theirs.ID))
		if rest, err := f.Logins(ctx, q); err != nil || len(rest) != 0 {
			t.Errorf("logins after the provider is gone: %v, %v", rest, err)
		}
		_, err = f.Arrive(ctx, account.Person{}, theirs.ID, f.back(t, l))
		wantCode(t, err, "not_found")
	})
}

// A9, product.md rule 4: a fresh sign-in stands in for a code, once, in the login and
// the organization that it is of; not on loopback, not where passkeys are demanded.
func TestFreshSignIn(t *testing.T) {
	t.Parallel()
	eachFederation(t, "https://ambit.example", true, func(t *testing.T, f *federation) {
		ctx := t.Context()
		p := f.invited(t, "Alice", account.OperatorProvider, account.RoleApprover)
		code, err := f.fresh(t, p, account.OperatorProvider)
		check(t, err)
		digest := [32]byte{1}
		second, err := f.signIn(t, account.OperatorProvider)
		check(t, err)
		_, err = f.Prove(ctx, second, digest, f.org, account.Proof{TOTP: code})
		wantCode(t, err, "proof_refused") // another login of the same person
		ev, err := f.Prove(ctx, p, digest, f.org, account.Proof{TOTP: code})
		check(t, err)
		if ev.Method() != account.MethodFederated || ev.Digest() != digest {
			t.Errorf("evidence %s", ev.JSON())
		}
		_, err = f.Prove(ctx, p, digest, f.org, account.Proof{TOTP: code})
		wantCode(t, err, "proof_refused") // once
		refusedAs := func(method string) {
			t.Helper()
			page, err := f.audit.List(ctx, audit.Filter{Environment: f.env, Action: "proof.refused", Limit: 1})
			check(t, err)
			if len(page.Records) != 1 || page.Records[0].Detail["method"] != method {
				t.Errorf("refused as %+v, want %s", page.Records, method)
			}
		}
		refusedAs(account.MethodFederated)
		old, err := f.fresh(t, p, account.OperatorProvider)
		check(t, err)
		f.advance(account.FreshCodeAge)
		_, err = f.Prove(ctx, p, digest, f.org, account.Proof{TOTP: old})
		wantCode(t, err, "proof_refused")

		for what, bend := range map[string]func(map[string]any){
			"an old login": func(c map[string]any) { c["auth_time"] = f.now().Add(-time.Hour).Unix() },
			"no auth_time": func(c map[string]any) { delete(c, "auth_time") },
		} {
			f.idp.Bend(bend)
			if _, err := f.fresh(t, p, account.OperatorProvider); err == nil {
				t.Errorf("%s gave a code", what)
			} else {
				wantCode(t, err, "sign_in_not_fresh")
			}
		}
		f.idp.Bend(nil)
		f.idp.Sit("mallory@idp")
		_, err = f.fresh(t, p, account.OperatorProvider)
		wantCode(t, err, "identity_unknown")
		f.idp.Sit("alice@idp")

		// An organization's provider proves nothing outside of it.
		theirs := f.add(t, f.org, f.owner, false)
		f.idp.Sit("bob@idp")
		bob := f.invited(t, "Bob", theirs.ID, account.RoleApprover)
		code, err = f.fresh(t, bob, theirs.ID)
		check(t, err)
		_, err = f.Prove(ctx, bob, digest, "", account.Proof{TOTP: code})
		wantCode(t, err, "sign_in_confined")
		refusedAs(account.MethodFederated)
		_, err = f.Prove(ctx, bob, digest, f.org, account.Proof{TOTP: code})
		check(t, err)

		o, err := f.Organization(ctx, f.env, f.org)
		check(t, err)
		yes := true
		_, err = f.UpdateOrganization(ctx, account.ByPerson(f.owner.Person), f.org, o.Version, account.OrganizationChange{RequirePasskey: &yes}, none)
		check(t, err)
		bob, err = f.signIn(t, theirs.ID)
		check(t, err)
		code, err = f.fresh(t, bob, theirs.ID)
		check(t, err)
		_, err = f.Prove(ctx, bob, digest, f.org, account.Proof{TOTP: code})
		wantCode(t, err, "passkey_required")
	})
	eachFederation(t, publicURL, true, func(t *testing.T, f *federation) {
		p := f.invited(t, "Alice", account.OperatorProvider, account.RoleApprover)
		if list, err := f.FreshIdentities(t.Context(), p); err != nil || len(list) != 0 {
			t.Errorf("on loopback a sign-in stands in: %v, %v", list, err)
		}
		_, err := f.LeaveForCode(t.Context(), p, account.OperatorProvider)
		wantCode(t, err, "not_found")
	})
}

// T5: a command line that a confined browser lets in is confined too, and ends with
// the provider.
func TestConfinedCommandLine(t *testing.T) {
	t.Parallel()
	eachFederation(t, "https://ambit.example", false, func(t *testing.T, f *federation) {
		ctx := t.Context()
		i := f.add(t, f.org, f.owner, true)
		p, err := f.signIn(t, i.ID)
		check(t, err)
		login, err := f.PollCLI(ctx, f.letIn(t, p, i.ID), "203.0.113.5")
		check(t, err)
		cli, err := f.Authenticate(ctx, login, "203.0.113.5")
		check(t, err)
		if account.ByPerson(cli).Organization() != f.org || !cli.CLI() {
			t.Errorf("the command line is %+v", cli)
		}
		check(t, f.RemoveIdentityProvider(ctx, account.ByPerson(f.owner.Person), i.ID))
		_, err = f.Authenticate(ctx, login, "203.0.113.5")
		wantCode(t, err, "unauthenticated")
	})
}

// A9, G8: a provider that is removed, or told to admit nobody, while it is being asked
// who somebody is lets nobody in. It may take ten seconds to answer.
func TestProviderGoesMeanwhile(t *testing.T) {
	t.Parallel()
	eachFederation(t, publicURL, false, func(t *testing.T, f *federation) {
		ctx := t.Context()
		boss := account.ByPerson(f.owner.Person)
		removed := func(i account.IdentityProvider) {
			f.idp.Bend(func(map[string]any) { check(t, f.RemoveIdentityProvider(ctx, boss, i.ID)) })
		}
		i := f.add(t, f.org, f.owner, false)
		link := f.invite(t, "Alice", account.RoleMember)
		removed(i)
		_, err := f.accept(t, link, i.ID)
		wantCode(t, err, "not_found")
		f.idp.Bend(nil)
		if _, err := f.Link(ctx, accounttest.LinkToken(link)); err != nil {
			t.Errorf("the link of who could not accept it there is gone: %v", err)
		}

		i = f.add(t, f.org, f.owner, false)
		removed(i)
		wantCode(t, f.ownerAdds(t, i.ID), "not_found")
		f.idp.Bend(nil)
		if list, err := f.Identities(ctx, f.owner.Person); err != nil || len(list) != 0 {
			t.Errorf("a provider that is gone is a way to sign in: %v, %v", list, err)
		}

		i = f.add(t, f.org, f.owner, true)
		no := false
		f.idp.Bend(func(map[string]any) {
			_, err := f.ChangeIdentityProvider(ctx, boss, i.ID, i.Version, account.IdentityProviderChange{Admits: &no}, none)
			check(t, err)
		})
		_, err = f.signIn(t, i.ID)
		wantCode(t, err, "identity_unknown")
		f.idp.Bend(nil)
		i.Version++
		yes := true
		_, err = agreed(t, f.owner, func(ag account.Agreement) (account.IdentityProvider, error) {
			return f.ChangeIdentityProvider(ctx, boss, i.ID, i.Version, account.IdentityProviderChange{Admits: &yes}, ag)
		})
		check(t, err)
		removed(i)
		_, err = f.signIn(t, i.ID)
		wantCode(t, err, "not_found")
	})
}

// T5: a command line that was confirmed and has not come for its login yet ends with
// the sign-in behind it.
func TestWaitingCommandLineEndsWithItsSignIn(t *testing.T) {
	t.Parallel()
	eachFederation(t, "https://ambit.example", false, func(t *testing.T, f *federation) {
		ctx := t.Context()
		i := f.add(t, f.org, f.owner, false)
		check(t, f.ownerAdds(t, i.ID))
		p, err := f.signIn(t, i.ID)
		check(t, err)
		poll := f.letIn(t, p, i.ID)
		check(t, f.ForgetIdentity(ctx, f.owner.Person, i.ID, f.idp.URL, "alice@idp"))
		_, err = f.PollCLI(ctx, poll, "203.0.113.5")
		wantCode(t, err, "flow_expired")

		f.idp.Sit("bob@idp")
		bob := f.invited(t, "Bob", i.ID, account.RoleApprover)
		poll = f.letIn(t, bob, i.ID)
		check(t, f.RemoveIdentityProvider(ctx, account.ByPerson(f.owner.Person), i.ID))
		_, err = f.PollCLI(ctx, poll, "203.0.113.5")
		wantCode(t, err, "flow_expired")
	})
}

// A9, W7: whoever runs an organization's provider can be its members there, and takes
// nothing from what they have elsewhere: not their wrong codes. What is refused to
// somebody who is signed in is on record as theirs.
func TestConfinedLoginTakesNothingElsewhere(t *testing.T) {
	t.Parallel()
	eachFederation(t, "https://ambit.example", false, func(t *testing.T, f *federation) {
		ctx := t.Context()
		i := f.add(t, f.org, f.owner, false)
		check(t, f.ownerAdds(t, i.ID))
		p, err := f.signIn(t, i.ID)
		check(t, err)
		for range 5 {
			_, err := f.CLIRequest(ctx, p, "BCDF-GHJK")
			wantCode(t, err, "not_found")
		}
		_, err = f.CLIRequest(ctx, p, "BCDF-GHJK")
		wantCode(t, err, "too_many_attempts")
		_, err = f.CLIRequest(ctx, f.owner.Person, "BCDF-GHJK")
		wantCode(t, err, "not_found")
		for range 6 {
			_, err := f.Prove(ctx, p, [32]byte{1}, f.org, account.Proof{TOTP: "000000"})
			if err == nil {
				t.Fatal("a made-up code counts")
			}
		}
		_, err = f.Prove(ctx, f.owner.Person, [32]byte{1}, f.org, account.Proof{TOTP: "000000"})
		wantCode(t, err, "proof_refused")

		f.idp.Sit("mallory@idp")
		_, err = f.fresh(t, p, i.ID)
		wantCode(t, err, "identity_unknown")
		page, err := f.audit.List(ctx, audit.Filter{Environment: f.env, Action: "signin.federated", Limit: 50})
		check(t, err)
		found := false
		for _, r := range page.Records {
			found = found || r.Code == "identity_unknown" && r.User == p.User() && r.Actor.ID == string(p.User()) && r.Object == string(p.User())
		}
		if !found {
			t.Errorf("no refusal of theirs on record: %+v", page.Records)
		}
	})
}

// G8: when the operator takes their identity provider away, or names another, whoever
// came through the former one is out at the next start, and it counts as no way in.
func TestFormerOperatorsProvider(t *testing.T) {
	t.Parallel()
	eachFederation(t, publicURL, true, func(t *testing.T, f *federation) {
		ctx := t.Context()
		link := f.invite(t, "Alice", account.RoleMember)
		got, err := f.accept(t, link, account.OperatorProvider)
		check(t, err)
		check(t, f.EndFormerSignIns(ctx)) // nothing has changed
		p, err := f.Authenticate(ctx, got.Login, "203.0.113.5")
		check(t, err)
		_, err = agreed(t, f.owner, func(ag account.Agreement) (secret.Value, error) { return f.Invite(ctx, f.owner.Person, p.User(), ag) })
		wantCode(t, err, "already_enrolled")

		for _, next := range []string{"https://login.example.com", ""} {
			got, err = f.arrived(t)
			check(t, err)
			after := f.restarted(t, account.OperatorSignIn{Name: "Another", Issuer: next, ClientID: "x"})
			check(t, after.EndFormerSignIns(ctx))
			_, err = after.Authenticate(ctx, got.Login, "203.0.113.5")
			wantCode(t, err, "unauthenticated")
			if _, err := after.Authenticate(ctx, f.owner.Token, "203.0.113.5"); err != nil {
				t.Errorf("somebody with a passkey is signed out too: %v", err)
			}
			check(t, f.owner.Do(t, func(ag account.Agreement) error {
				_, err := after.Invite(ctx, f.owner.Person, p.User(), ag)
				return err
			}))
		}
	})
}

// arrived is signIn at the operator's provider up to the new login.
func (f *federation) arrived(t *testing.T) (account.Arrived, error) {
	t.Helper()
	l, err := f.LeaveToSignIn(t.Context(), account.OperatorProvider, "/ui/")
	check(t, err)
	return f.Arrive(t.Context(), account.Person{}, account.OperatorProvider, f.back(t, l))
}

// T5: whoever is known only at an organization's provider gets a way in of their own by
// a link; whoever has one does not.
func TestInviteForWhoHasNoWayInOfTheirOwn(t *testing.T) {
	t.Parallel()
	eachFederation(t, publicURL, false, func(t *testing.T, f *federation) {
		ctx := t.Context()
		i := f.add(t, f.org, f.owner, true)
		p, err := f.signIn(t, i.ID)
		check(t, err)
		invite := func() (secret.Value, error) {
			return agreed(t, f.owner, func(ag account.Agreement) (secret.Value, error) { return f.Invite(ctx, f.owner.Person, p.User(), ag) })
		}
		link, err := invite()
		check(t, err)
		a := accounttest.New(f.Origin())
		options, err := f.BeginEnroll(ctx, accounttest.LinkToken(link))
		check(t, err)
		credential, err := a.Register(options)
		check(t, err)
		login, err := f.FinishEnroll(ctx, accounttest.LinkToken(link), credential, "laptop", "203.0.113.5")
		check(t, err)
		own, err := f.Authenticate(ctx, login, "203.0.113.5")
		check(t, err)
		if own.User() != p.User() || account.ByPerson(own).Organization() != "" {
			t.Errorf("the link made %+v", own)
		}
		_, err = invite()
		wantCode(t, err, "already_enrolled")
	})
}

// W7: a stranger's answers neither fill the database nor make us ask a provider
// without end; from elsewhere people go on signing in.
func TestArrivalsAreLimited(t *testing.T) {
	t.Parallel()
	eachFederation(t, publicURL, true, func(t *testing.T, f *federation) {
		for range 60 {
			_, err := f.signIn(t, account.OperatorProvider)
			wantCode(t, err, "identity_unknown")
		}
		before := f.idp.Looks("/token")
		_, err := f.signIn(t, account.OperatorProvider)
		wantCode(t, err, "too_many_attempts")
		if f.idp.Looks("/token") != before {
			t.Error("the provider was asked all the same")
		}
		l, err := f.LeaveToSignIn(t.Context(), account.OperatorProvider, "/ui/")
		check(t, err)
		a := f.back(t, l)
		a.Address = "198.51.100.7"
		_, err = f.Arrive(t.Context(), account.Person{}, account.OperatorProvider, a)
		wantCode(t, err, "identity_unknown")
	})
}

// G8, S14: who was a member does not come back by the provider's word alone: not after a
// removal, not by forgetting the sign-in first, not when the provider is set up anew. An
// invitation, which is the organization's word, lets them in with the same sign-in.
func TestWhoLeftIsNotAdmittedAgain(t *testing.T) {
	t.Parallel()
	eachFederation(t, publicURL, false, func(t *testing.T, f *federation) {
		ctx := t.Context()
		boss := account.ByPerson(f.owner.Person)
		remove := func(user id.User) {
			t.Helper()
			check(t, f.owner.Do(t, func(ag account.Agreement) error { return f.RemoveMember(ctx, boss, f.org, user, ag) }))
		}
		i := f.add(t, f.org, f.owner, true)
		members := func(subject string) account.Person {
			t.Helper()
			f.idp.Sit(subject)
			p, err := f.signIn(t, i.ID)
			check(t, err)
			return p
		}
		ann, cara := members("ann@idp"), members("cara@idp")

		remove(ann.User())
		f.idp.Sit("ann@idp")
		_, err := f.signIn(t, i.ID)
		wantCode(t, err, "not_a_member")

		second := f.add(t, f.org, f.owner, true) // of the same issuer
		_, err = f.signIn(t, second.ID)
		wantCode(t, err, "not_a_member")

		// Ben has another way in, and takes this one off before he is removed.
		ben := accounttest.Join(t, f.Service, f.env, f.org, account.RoleMember, "ben@example.com")
		f.idp.Sit("ben@idp")
		l, err := f.LeaveToAdd(ctx, ben.Person, ben.Unlock(t), i.ID)
		check(t, err)
		_, err = f.Arrive(ctx, ben.Person, i.ID, f.back(t, l))
		check(t, err)
		check(t, f.ForgetIdentity(ctx, ben.Person, i.ID, f.idp.URL, "ben@idp"))
		remove(ben.User())
		_, err = f.signIn(t, i.ID)
		wantCode(t, err, "not_a_member")

		remove(cara.User())
		check(t, f.RemoveIdentityProvider(ctx, boss, i.ID))
		i = f.add(t, f.org, f.owner, true)
		for _, subject := range []string{"ann@idp", "ben@idp", "cara@idp"} {
			f.idp.Sit(subject)
			_, err = f.signIn(t, i.ID)
			wantCode(t, err, "not_a_member")
		}
		members("dora@idp") // others are admitted as ever

		f.idp.Sit("ann@idp")
		again := f.invited(t, "Ann", i.ID, account.RoleMember)
		if p, err := f.signIn(t, i.ID); err != nil || p.User() != again.User() || again.User() == ann.User() {
			t.Errorf("who was invited anew: %s, %v", p.User(), err)
		}
		// And when they are removed once more, and invited once more, with their sign-in there all the time.
		remove(again.User())
		_, err = f.signIn(t, i.ID)
		wantCode(t, err, "not_a_member")
		f.invited(t, "Anne", i.ID, account.RoleMember)
		page, err := f.audit.List(ctx, audit.Filter{Environment: f.env, Action: "identity.removed", Limit: 1})
		check(t, err)
		if len(page.Records) != 1 || page.Records[0].User != again.User() {
			t.Errorf("that it is taken from who had it is on record as %+v", page.Records)
		}
	})
}

// W7: a provider that makes up people makes so many members and no more; those who are
// members come in meanwhile.
func TestAdmissionsAreSlow(t *testing.T) {
	t.Parallel()
	eachFederation(t, publicURL, false, func(t *testing.T, f *federation) {
		i := f.add(t, f.org, f.owner, true)
		var err error
		n := 0
		for ; err == nil && n < 200; n++ {
			f.idp.Sit(fmt.Sprintf("made-up-%d@idp", n))
			_, err = f.signIn(t, i.ID)
			f.advance(time.Second) // for the limit of one network
		}
		if fault.KindOf(err) != fault.Limited || n < 100 || n > 130 {
			t.Fatalf("the %dth got %v, want it held back after a hundred or so", n, err)
		}
		f.idp.Sit("made-up-0@idp")
		if _, err := f.signIn(t, i.ID); err != nil {
			t.Errorf("a member: %v", err)
		}
	})
}

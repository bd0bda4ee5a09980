package account_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Rule 4: a proof is good for one person, one digest, one origin, with the
// person verified (A6, A9).
func TestProofIsForExactlyThis(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		mia := w.join(t, owner, account.RoleMember, "mia@example.com")
		o := org(owner.Person).Organization
		digest, other := [32]byte{1, 2, 3}, [32]byte{1, 2, 4}

		good := owner.Proof(t, digest)
		ev, err := w.Prove(ctx, owner.Person, digest, o, good)
		check(t, err)
		if ev.User() != owner.User() || ev.Digest() != digest || ev.Method() != account.MethodPasskey || ev.IsZero() {
			t.Errorf("got %+v", ev)
		}
		check(t, account.VerifyEvidence(ev.JSON(), digest, publicURL))

		as := func(change func(*accounttest.Authenticator)) account.Proof {
			h := *owner
			h.Authenticator = owner.Clone()
			change(h.Authenticator)
			return h.Proof(t, digest)
		}
		cases := map[string]struct {
			p     account.Person
			about [32]byte
			proof account.Proof
		}{
			"another digest":         {owner.Person, other, owner.Proof(t, digest)},
			"evidence sent again":    {owner.Person, digest, good},
			"another origin":         {owner.Person, digest, as(func(a *accounttest.Authenticator) { a.Origin = "http://evil.example" })},
			"another port":           {owner.Person, digest, as(func(a *accounttest.Authenticator) { a.Origin = "http://localhost:8080" })},
			"another host":           {owner.Person, digest, as(func(a *accounttest.Authenticator) { a.Origin = "http://app.localhost:7420" })},
			"unverified":             {owner.Person, digest, as(func(a *accounttest.Authenticator) { a.Unverified = true })},
			"another's passkey":      {owner.Person, digest, mia.Proof(t, digest)},
			"for another person":     {mia.Person, digest, owner.Proof(t, digest)},
			"a registration":         {owner.Person, digest, account.Proof{Assertion: registration(t, w, owner)}},
			"no JSON":                {owner.Person, digest, account.Proof{Assertion: []byte("null")}},
			"a signature that lies":  {owner.Person, digest, forged(t, owner.Proof(t, digest), "signature")},
			"data that was changed":  {owner.Person, digest, forged(t, owner.Proof(t, digest), "authenticatorData")},
			"client data of another": {owner.Person, digest, swapped(t, owner.Proof(t, digest), owner.Proof(t, other))},
		}
		for name, c := range cases {
			if ev, err := w.Prove(ctx, c.p, c.about, "", c.proof); !fault.Is(err, "proof_refused") || !ev.IsZero() {
				t.Errorf("%s: got %v", name, err)
			}
		}
		w.audited(t, "proof.refused/deny/not_verified")

		for name, proof := range map[string]account.Proof{"nothing": {}, "both": {Assertion: good.Assertion, TOTP: "123456"}} {
			if _, err := w.Prove(ctx, owner.Person, digest, o, proof); !fault.Is(err, "proof_required") {
				t.Errorf("%s: got %v", name, err)
			}
		}
		_, err = w.Prove(ctx, owner.Person, digest, id.NewOrganization(), owner.Proof(t, digest))
		wantCode(t, err, "not_found")
		_, err = w.Prove(ctx, account.Person{}, digest, o, owner.Proof(t, digest))
		wantCode(t, err, "unauthenticated")
		if _, err = w.Prove(ctx, owner.Person, [32]byte{}, o, owner.Proof(t, [32]byte{})); err == nil {
			t.Error("a proof for nothing was accepted")
		}
	})
}

// A passkey that is synced by a cloud has no counter; its assertion is still
// good for its own digest only.
func TestSyncedPasskey(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		u := must(w.CreateUser(ctx, account.System("test"), account.NewUser{Environment: w.env, Organization: org(owner.Person).Organization, Name: "Lee"}, none))(t)
		tok := accounttest.LinkToken(must(w.Recover(ctx, string(u.ID)))(t))
		a := accounttest.New(publicURL)
		a.Synced = true
		cred := must(a.Register(must(w.BeginEnroll(ctx, tok))(t)))(t)
		login := must(w.FinishEnroll(ctx, tok, cred, "", ""))(t)
		lee := must(w.Authenticate(ctx, login, ""))(t)
		for range 3 {
			assertion := must(a.Assert(must(w.Challenge(ctx, lee, [32]byte{7}))(t)))(t)
			_, err := w.Prove(ctx, lee, [32]byte{7}, "", account.Proof{Assertion: assertion})
			check(t, err)
			_, err = w.Prove(ctx, lee, [32]byte{8}, "", account.Proof{Assertion: assertion})
			wantCode(t, err, "proof_refused")
		}
		if keys := must(w.Passkeys(ctx, lee))(t); !keys[0].Synced {
			t.Errorf("got %+v", keys[0])
		}
	})
}

// An organization can demand passkeys; a code proves nothing there.
func TestPasskeyRequired(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		a := w.registerApp(t, owner)
		o := org(owner.Person).Organization
		digest := [32]byte{1}
		ev, err := w.Prove(ctx, owner.Person, digest, o, account.Proof{TOTP: a.code(t, w.now())})
		check(t, err)
		var doc map[string]any
		check(t, json.Unmarshal(ev.JSON(), &doc))
		if doc["method"] != "totp" || doc["step"] != float64(w.now().Unix()/30) || doc["digest"] != base64.RawURLEncoding.EncodeToString(digest[:]) {
			t.Errorf("got %v", doc)
		}
		_, err = w.Prove(ctx, owner.Person, digest, o, account.Proof{TOTP: a.code(t, w.now())})
		wantCode(t, err, "proof_refused") // G9: the code was used

		yes, no := true, false
		have := must(w.Organization(ctx, w.env, o))(t)
		admin := w.join(t, owner, account.RoleAdmin, "admin@example.com")
		_, err = w.UpdateOrganization(ctx, account.ByPerson(admin.Person), o, have.Version, account.OrganizationChange{RequirePasskey: &yes}, none)
		wantCode(t, err, "not_allowed")
		have = must(w.Organization(ctx, w.env, o))(t)
		_, err = w.UpdateOrganization(ctx, account.ByPerson(owner.Person), o, have.Version+7, account.OrganizationChange{RequirePasskey: &yes}, none)
		wantCode(t, err, "version_conflict")
		have = must(w.UpdateOrganization(ctx, account.ByPerson(owner.Person), o, have.Version, account.OrganizationChange{RequirePasskey: &yes}, none))(t)
		w.advance(time.Minute)
		owner.Reload(t)
		for _, where := range []id.Organization{o, ""} {
			_, err = w.Prove(ctx, owner.Person, digest, where, account.Proof{TOTP: a.code(t, w.now())})
			wantCode(t, err, "passkey_required")
		}
		_, err = w.Prove(ctx, owner.Person, digest, o, owner.Proof(t, digest))
		check(t, err)
		cli := w.commandLine(t, owner)
		_, err = w.UpdateOrganization(ctx, account.ByPerson(cli), o, have.Version, account.OrganizationChange{RequirePasskey: &no}, none)
		wantCode(t, err, "browser_required")
	})
}

func TestEvidenceIsVerifiedAgain(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		digest := [32]byte{9}
		ev := must(w.Prove(t.Context(), owner.Person, digest, "", owner.Proof(t, digest)))(t)
		ev2 := must(w.Prove(t.Context(), owner.Person, [32]byte{8}, "", owner.Proof(t, [32]byte{8})))(t)
		check(t, account.VerifyEvidence(ev.JSON(), digest, publicURL))
		change := func(field, value string) json.RawMessage {
			var doc map[string]string
			check(t, json.Unmarshal(ev.JSON(), &doc))
			doc[field] = value
			return must(json.Marshal(doc))(t)
		}
		var second map[string]string
		check(t, json.Unmarshal(ev2.JSON(), &second))
		bad := map[string]json.RawMessage{
			"another's evidence": ev2.JSON(),
			"not JSON":           []byte("}"),
			"empty":              []byte("{}"),
			"the digest edited":  change("digest", base64.RawURLEncoding.EncodeToString(make([]byte, 32))),
			"no signature":       change("signature", ""),
			"another signature":  change("signature", second["signature"]),
			"another statement":  change("client_data_json", second["client_data_json"]),
			"another's key":      change("public_key", base64.RawURLEncoding.EncodeToString([]byte("key"))),
			"a code":             change("method", "totp"),
		}
		for name, doc := range bad {
			if err := account.VerifyEvidence(doc, digest, publicURL); err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
		if err := account.VerifyEvidence(ev.JSON(), digest, "http://localhost:7421"); err == nil {
			t.Error("evidence of another origin was accepted")
		}
		if b, err := json.Marshal(account.Evidence{}); err != nil || string(b) != "null" {
			t.Errorf("no evidence is %s, %v", b, err)
		}
	})
}

// A command line's stored login lies on a disk that agents can read.
func TestCommandLineProvesNothing(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		cli := w.commandLine(t, owner)
		if !cli.CLI() || cli.User() != owner.User() || cli.Method() != account.MethodCLI {
			t.Fatalf("got %s by %s", cli.User(), cli.Method())
		}
		digest := [32]byte{1}
		key := account.NewKey{Environment: w.env, Name: "k", Scopes: []string{account.ScopeAuditRead}}
		forbidden := map[string]func() error{
			"Prove":     func() error { _, err := w.Prove(ctx, cli, digest, "", owner.Proof(t, digest)); return err },
			"Challenge": func() error { _, err := w.Challenge(ctx, cli, digest); return err },
			"CreateKey": func() error {
				_, _, err := w.CreateKey(ctx, cli, key, owner.Proof(t, w.KeyDigest(cli, key)))
				return err
			},
			"Invite":           func() error { _, err := w.Invite(ctx, cli, owner.User(), none); return err },
			"BeginAddPasskey":  func() error { _, _, err := w.BeginAddPasskey(ctx, cli, secret.Value{}); return err },
			"FinishAddPasskey": func() error { _, err := w.FinishAddPasskey(ctx, cli, secret.Value{}, "x", nil, ""); return err },
			"BeginTOTP":        func() error { _, err := w.BeginTOTP(ctx, cli, secret.Value{}); return err },
			"FinishTOTP":       func() error { return w.FinishTOTP(ctx, cli, secret.Value{}, "123456") },
			"Unlock":           func() error { _, err := w.Unlock(ctx, cli, "", account.Proof{}); return err },
			"RemoveTOTP":       func() error { return w.RemoveTOTP(ctx, cli, "", account.Proof{TOTP: "123456"}) },
			"RemovePasskey": func() error {
				return w.RemovePasskey(ctx, cli, must(w.Passkeys(ctx, cli))(t)[0].ID, account.Proof{})
			},
			"ConfirmCLI":    func() error { return w.ConfirmCLI(ctx, cli, "BCDF-GHJK", account.Proof{}) },
			"RefuseCLI":     func() error { return w.RefuseCLI(ctx, cli, "BCDF-GHJK") },
			"CLIRequest":    func() error { _, err := w.CLIRequest(ctx, cli, "BCDF-GHJK"); return err },
			"SetProfile":    func() error { return w.SetProfile(ctx, cli, "x", "", none) },
			"DismissNotice": func() error { return w.DismissNotice(ctx, cli, id.NewEvent()) },
		}
		for name, do := range forbidden {
			if err := do(); !fault.Is(err, "browser_required") {
				t.Errorf("%s: got %v", name, err)
			}
		}
	})
}

// commandLine signs a command line in as h.
func (w *world) commandLine(t testing.TB, h *accounttest.Human) account.Person {
	t.Helper()
	ctx := t.Context()
	code, poll, err := w.StartCLI(ctx, "192.0.2.7")
	check(t, err)
	check(t, w.ConfirmCLI(ctx, h.Person, code, h.Proof(t, w.CLIDigest(h.Person, code))))
	login, err := w.PollCLI(ctx, poll, "192.0.2.7")
	check(t, err)
	p, err := w.Authenticate(ctx, login, "192.0.2.7")
	check(t, err)
	return p
}

// T5: a command line that was let in and has not come for its login yet ends with all
// that signs its person out everywhere, and none is let in by a login that has ended.
func TestWaitingCommandLineEndsWithItsPersonsLogins(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx, boss, o := t.Context(), account.ByPerson(owner.Person), org(owner.Person).Organization
		for what, end := range map[string]func(h *accounttest.Human) error{
			"removed":    func(h *accounttest.Human) error { return w.RemoveMember(ctx, boss, o, h.Person.User(), none) },
			"signed-out": func(h *accounttest.Human) error { return w.SignOutEverywhere(ctx, h.Person) },
			"disabled": func(h *accounttest.Human) error {
				check(t, w.DisableUser(ctx, boss, h.Person.User(), none))
				return owner.Do(t, func(ag account.Agreement) error { return w.EnableUser(ctx, boss, h.Person.User(), ag) })
			},
		} {
			h := w.join(t, owner, account.RoleMember, what+"@example.com")
			code, poll, err := w.StartCLI(ctx, "192.0.2.7")
			check(t, err)
			late, _, err := w.StartCLI(ctx, "192.0.2.7")
			check(t, err)
			check(t, w.ConfirmCLI(ctx, h.Person, code, h.Proof(t, w.CLIDigest(h.Person, code))))
			check(t, end(h))
			if _, err := w.PollCLI(ctx, poll, "192.0.2.7"); !fault.Is(err, "flow_expired") {
				t.Errorf("%s: the command line that they had let in gets %v", what, err)
			}
			if err := w.ConfirmCLI(ctx, h.Person, late, h.Proof(t, w.CLIDigest(h.Person, late))); !fault.Is(err, "flow_expired") {
				t.Errorf("%s: the login that ended lets a command line in: %v", what, err)
			}
		}
	})
}

// A12: a device-style code is shown on both sides, lives ten minutes, serves
// once, and is confirmed by proof for that very code.
func TestCommandLineSignIn(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		code, poll, err := w.StartCLI(ctx, "192.0.2.7")
		check(t, err)
		_, err = w.PollCLI(ctx, poll, "")
		wantCode(t, err, "authorization_pending")
		r, err := w.CLIRequest(ctx, owner.Person, strings.ToLower(strings.ReplaceAll(code, "-", " ")))
		check(t, err)
		if r.Address != "192.0.2.7" || r.Code != strings.ReplaceAll(code, "-", "") {
			t.Errorf("got %+v", r)
		}
		other, otherPoll, err := w.StartCLI(ctx, "198.51.100.9")
		check(t, err)
		err = w.ConfirmCLI(ctx, owner.Person, other, owner.Proof(t, w.CLIDigest(owner.Person, code)))
		wantCode(t, err, "proof_refused")
		check(t, w.ConfirmCLI(ctx, owner.Person, code, owner.Proof(t, w.CLIDigest(owner.Person, code))))
		err = w.ConfirmCLI(ctx, owner.Person, code, owner.Proof(t, w.CLIDigest(owner.Person, code)))
		wantCode(t, err, "not_found")
		login, err := w.PollCLI(ctx, poll, "")
		check(t, err)
		_, err = w.PollCLI(ctx, poll, "")
		wantCode(t, err, "flow_expired")
		_, err = w.PollCLI(ctx, login, "")
		wantCode(t, err, "flow_expired")

		unwanted, unwantedPoll, err := w.StartCLI(ctx, "203.0.113.4")
		check(t, err)
		check(t, w.RefuseCLI(ctx, owner.Person, unwanted))
		err = w.ConfirmCLI(ctx, owner.Person, unwanted, owner.Proof(t, w.CLIDigest(owner.Person, unwanted)))
		wantCode(t, err, "not_found")
		_, err = w.PollCLI(ctx, unwantedPoll, "")
		wantCode(t, err, "flow_expired")

		w.advance(account.FlowAge)
		err = w.ConfirmCLI(ctx, owner.Person, other, owner.Proof(t, w.CLIDigest(owner.Person, other)))
		wantCode(t, err, "not_found")
		_, err = w.PollCLI(ctx, otherPoll, "")
		wantCode(t, err, "flow_expired")

		// It lives thirty days, used or not, and ends with the rest.
		w.advance(account.CLIAge - account.FlowAge - time.Minute)
		_, err = w.Authenticate(ctx, login, "")
		check(t, err)
		owner.SignIn(t)
		w.advance(time.Minute)
		_, err = w.Authenticate(ctx, login, "")
		wantCode(t, err, "unauthenticated")
		w.audited(t, "cli.confirmed")
		w.audited(t, "signin.cli/allow")

		for i := range 7 { // W7
			_, err = w.CLIRequest(ctx, owner.Person, "BCDF-GHJK")
			if want := map[bool]string{true: "not_found", false: "too_many_attempts"}[i < 5]; !fault.Is(err, want) {
				t.Errorf("guess %d: got %v, want %s", i+1, err, want)
			}
		}
	})
}

func TestRemovePasskey(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		first := must(w.Passkeys(ctx, owner.Person))(t)[0]
		digest := w.RemovePasskeyDigest(owner.Person, first.ID)
		wantCode(t, w.RemovePasskey(ctx, owner.Person, first.ID, owner.Proof(t, digest)), "last_factor")

		grant := owner.Unlock(t)
		flow, options, err := w.BeginAddPasskey(ctx, owner.Person, grant)
		check(t, err)
		spare := &accounttest.Human{Authenticator: accounttest.New(publicURL)}
		_, err = w.FinishAddPasskey(ctx, owner.Person, grant, flow, must(spare.Register(options))(t), "spare")
		check(t, err)
		flow, options, err = w.BeginSignIn(ctx)
		check(t, err)
		login := must(w.FinishSignIn(ctx, flow, must(spare.Assert(options))(t), ""))(t)
		me := must(w.Authenticate(ctx, login, ""))(t)

		stolen := owner.Token // of the passkey that is removed
		assertion := must(spare.Assert(must(w.Challenge(ctx, me, w.RemovePasskeyDigest(me, first.ID)))(t)))(t)
		check(t, w.RemovePasskey(ctx, me, first.ID, account.Proof{Assertion: assertion}))
		_, err = w.Authenticate(ctx, stolen, "")
		wantCode(t, err, "unauthenticated")
		_ = must(w.Authenticate(ctx, login, ""))(t)
		flow, options, err = w.BeginSignIn(ctx)
		check(t, err)
		_, err = w.FinishSignIn(ctx, flow, must(owner.Assert(options))(t), "")
		wantCode(t, err, "sign_in_refused")
		w.audited(t, "passkey.removed")
	})
}

// registration is a well-formed answer of the wrong ceremony.
func registration(t testing.TB, w *world, h *accounttest.Human) []byte {
	t.Helper()
	_, options, err := w.BeginAddPasskey(t.Context(), h.Person, h.Unlock(t))
	check(t, err)
	return must(accounttest.New(publicURL).Register(options))(t)
}

func response(t testing.TB, p account.Proof) (outer map[string]any, inner map[string]any) {
	t.Helper()
	check(t, json.Unmarshal(p.Assertion, &outer))
	return outer, outer["response"].(map[string]any)
}

// forged changes the last byte of one part of an assertion.
func forged(t testing.TB, p account.Proof, field string) account.Proof {
	t.Helper()
	outer, inner := response(t, p)
	b := must(base64.RawURLEncoding.DecodeString(inner[field].(string)))(t)
	b[len(b)-1] ^= 1
	inner[field] = base64.RawURLEncoding.EncodeToString(b)
	return account.Proof{Assertion: must(json.Marshal(outer))(t)}
}

// swapped puts the client data of q under the signature of p.
func swapped(t testing.TB, p, q account.Proof) account.Proof {
	t.Helper()
	outer, inner := response(t, p)
	_, from := response(t, q)
	inner["clientDataJSON"] = from["clientDataJSON"]
	return account.Proof{Assertion: must(json.Marshal(outer))(t)}
}

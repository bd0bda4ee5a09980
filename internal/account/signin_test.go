package account_test

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// T6: an empty server has no way in but the link on its console.
func TestFirstOwner(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := newWorld(t, db)
		ctx := t.Context()
		first, needed, err := w.Bootstrap(ctx)
		check(t, err)
		if !needed || !strings.HasPrefix(token(first), publicURL+"/ui/enroll#amb_link_") {
			t.Fatalf("got %q, needed %v", token(first), needed)
		}
		second, _, err := w.Bootstrap(ctx) // a second node started
		check(t, err)
		if _, err := w.Link(ctx, accounttest.LinkToken(first)); err != nil {
			t.Errorf("the start of a second node voids the link that the first one printed: %v", err)
		}
		e, err := w.Link(ctx, accounttest.LinkToken(second))
		check(t, err)
		if !e.First || e.Name != "Owner" {
			t.Errorf("got %+v", e)
		}
		owner := accounttest.Enroll(t, w.Service, second)
		if _, err := w.Link(ctx, accounttest.LinkToken(first)); !fault.Is(err, "link_expired") {
			t.Errorf("the other node's link works after somebody owns the server: %v", err)
		}
		m := org(owner.Person)
		if m.Role != account.RoleOwner || m.OrganizationName != "default" || m.EnvironmentName != "production" || owner.Method() != account.MethodPasskey {
			t.Errorf("got %+v by %s", m, owner.Method())
		}
		if _, needed, err := w.Bootstrap(ctx); err != nil || needed {
			t.Errorf("needed %v, %v after the owner has a passkey", needed, err)
		}
		n, err := w.Owners(ctx, m.Environment)
		check(t, err)
		if n != (account.OwnerCount{Owners: 1, WithPasskey: 1}) {
			t.Errorf("got %+v", n)
		}

		grant := owner.Unlock(t)
		flow, options, err := w.BeginAddPasskey(ctx, owner.Person, grant)
		check(t, err)
		if _, err := owner.Register(options); err == nil {
			t.Error("the same authenticator was not excluded")
		}
		key := accounttest.New(publicURL)
		cred, err := key.Register(options)
		check(t, err)
		_, err = w.FinishAddPasskey(ctx, owner.Person, grant, flow, cred, "security key")
		check(t, err)
		if _, err = w.FinishAddPasskey(ctx, owner.Person, grant, flow, cred, "again"); !fault.Is(err, "unlock_required") {
			t.Errorf("got %v for a second answer", err)
		}
		if n, _ = w.Owners(ctx, m.Environment); n.WithPasskeys != 1 {
			t.Errorf("got %+v, want a second passkey counted", n)
		}
		keys, err := w.Passkeys(ctx, owner.Person)
		check(t, err)
		if len(keys) != 2 || keys[1].Label != "security key" {
			t.Errorf("got %+v", keys)
		}
		for _, a := range []*accounttest.Authenticator{owner.Authenticator, key} {
			h := &accounttest.Human{Authenticator: a}
			flow, options, err := w.BeginSignIn(ctx)
			check(t, err)
			cred, err := h.Assert(options)
			check(t, err)
			_, err = w.FinishSignIn(ctx, flow, cred, "")
			check(t, err)
		}
	})
}

// Nodes that start together on an empty database make one of everything, and
// each prints a link that works; when all are used at once, one is.
func TestBootstrapRace(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := newWorld(t, db)
		links := make([]secret.Value, 8)
		var wg sync.WaitGroup
		for i := range links {
			wg.Go(func() {
				var err error
				if links[i], _, err = w.Bootstrap(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for table, want := range map[string]int{"environment": 1, "organization": 1, "person": 1, "membership": 1, "enroll_link": 8} {
			var n int
			check(t, db.Reader().QueryRowContext(t.Context(), `select count(*) from `+table).Scan(&n))
			if n != want {
				t.Errorf("got %d rows in %s", n, table)
			}
		}
		var mu sync.Mutex
		codes := map[string]int{}
		var tries []func() error
		for _, l := range links {
			tok := accounttest.LinkToken(l)
			options, err := w.BeginEnroll(t.Context(), tok)
			check(t, err)
			cred, err := accounttest.New(publicURL).Register(options)
			check(t, err)
			tries = append(tries, func() error {
				_, err := w.FinishEnroll(t.Context(), tok, cred, "", "")
				return err
			})
		}
		for _, try := range tries {
			wg.Go(func() {
				code := "ok"
				if err := try(); err != nil {
					code = fault.Of(err).Code
				}
				mu.Lock()
				defer mu.Unlock()
				codes[code]++
			})
		}
		wg.Wait()
		if codes["ok"] != 1 || codes["link_expired"]+codes["flow_expired"] != 7 {
			t.Errorf("got %v, want one of 8 links used", codes)
		}
	})
}

func TestSignInIsRefused(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		type attempt struct{ flow, cred string }
		begin := func(a *accounttest.Authenticator) attempt {
			flow, options, err := w.BeginSignIn(ctx)
			check(t, err)
			cred, err := a.Assert(options)
			check(t, err)
			return attempt{flow, string(cred)}
		}
		with := func(change func(*accounttest.Authenticator)) attempt {
			a := owner.Clone()
			change(a)
			return begin(a)
		}
		good := begin(owner.Authenticator)
		cases := map[string]attempt{
			"unverified":        with(func(a *accounttest.Authenticator) { a.Unverified = true }),
			"another port":      with(func(a *accounttest.Authenticator) { a.Origin = "http://localhost:7421" }),
			"no port":           with(func(a *accounttest.Authenticator) { a.Origin = "http://localhost" }),
			"another scheme":    with(func(a *accounttest.Authenticator) { a.Origin = "https://localhost:7420" }),
			"another case":      with(func(a *accounttest.Authenticator) { a.Origin = "http://LOCALHOST:7420" }),
			"another challenge": {flow: begin(owner.Authenticator).flow, cred: good.cred},
			"not JSON":          {flow: begin(owner.Authenticator).flow, cred: "{"},
			"empty":             {flow: begin(owner.Authenticator).flow},
		}
		host := 0 // strangers at one address share an entry
		for name, c := range cases {
			host++
			if _, err := w.FinishSignIn(ctx, c.flow, []byte(c.cred), fmt.Sprintf("192.0.2.%d", host)); !fault.Is(err, "sign_in_refused") {
				t.Errorf("%s: got %v", name, err)
			}
		}
		// A refusal takes nothing from the person: a right answer still counts, once.
		if _, err := w.FinishSignIn(ctx, good.flow, []byte(good.cred), ""); err != nil {
			t.Errorf("a right answer: %v", err)
		}
		if _, err := w.FinishSignIn(ctx, good.flow, []byte(good.cred), ""); !fault.Is(err, "flow_expired") {
			t.Errorf("the flow was good for a second sign-in: %v", err)
		}
		parts := strings.Split(good.flow, ".")
		other := strings.Split(begin(owner.Authenticator).flow, ".")
		if _, err := w.FinishSignIn(ctx, parts[0]+"."+parts[1]+"."+other[2], []byte(good.cred), ""); !fault.Is(err, "sign_in_refused") {
			t.Errorf("a flow that was put together: got %v", err)
		}
		for _, flow := range []string{"", "nonsense", string(id.NewFlow()), "a.b.c", parts[0] + ".-1." + parts[2], "unknown." + parts[1] + "." + parts[2]} {
			if _, err := w.FinishSignIn(ctx, flow, []byte(good.cred), ""); !fault.Is(err, "flow_expired") {
				t.Errorf("flow %q: got %v", flow, err)
			}
		}
		old := begin(owner.Authenticator)
		w.advance(account.FlowAge)
		if _, err := w.FinishSignIn(ctx, old.flow, []byte(old.cred), ""); !fault.Is(err, "flow_expired") {
			t.Errorf("an old flow: got %v", err)
		}
		late := strings.Split(old.flow, ".")
		late[1] = "zzzzzzzzzzz"
		if _, err := w.FinishSignIn(ctx, strings.Join(late, "."), []byte(old.cred), ""); !fault.Is(err, "sign_in_refused") {
			t.Errorf("an old flow that was made to last: got %v", err)
		}
		// Keys are changed each hour; what was begun with the last one still counts.
		w.advance(time.Hour - account.FlowAge - time.Minute)
		last := begin(owner.Authenticator)
		w.advance(2 * time.Minute)
		next := begin(owner.Authenticator)
		if strings.Split(last.flow, ".")[0] == strings.Split(next.flow, ".")[0] {
			t.Error("the key was not changed")
		}
		if _, err := w.FinishSignIn(ctx, last.flow, []byte(last.cred), ""); err != nil {
			t.Errorf("a flow of the last key: %v", err)
		}
		w.audited(t, "signin.passkey/deny/not_verified")
		w.audited(t, "signin.passkey/deny/malformed")
		w.audited(t, "signin.passkey/allow")
	})
}

// An answer is good for one sign-in, also from a passkey that does not count.
func TestChallengeIsGoodOnce(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		grant := owner.Unlock(t)
		flow, options, err := w.BeginAddPasskey(ctx, owner.Person, grant)
		check(t, err)
		key := accounttest.New(publicURL)
		key.Synced = true
		cred, err := key.Register(options)
		check(t, err)
		_, err = w.FinishAddPasskey(ctx, owner.Person, grant, flow, cred, "synced")
		check(t, err)
		flow, options, err = w.BeginSignIn(ctx)
		check(t, err)
		cred, err = key.Assert(options)
		check(t, err)
		var wg sync.WaitGroup
		var in, out atomic.Int64
		for range 8 {
			wg.Go(func() {
				switch _, err := w.FinishSignIn(ctx, flow, cred, ""); {
				case err == nil:
					in.Add(1)
				case fault.Is(err, "flow_expired"):
					out.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if in.Load() != 1 || out.Load() != 7 {
			t.Errorf("%d signed in, %d refused", in.Load(), out.Load())
		}
	})
}

// A copied authenticator is found out by its counter, whichever of the two
// comes second.
func TestClonedAuthenticator(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		clone := owner.Clone()
		owner.SignIn(t)
		flow, options, err := w.BeginSignIn(ctx)
		check(t, err)
		cred, err := clone.Assert(options)
		check(t, err)
		_, err = w.FinishSignIn(ctx, flow, cred, "")
		wantCode(t, err, "sign_in_refused")
		w.audited(t, "signin.passkey/deny/clone_suspected")
	})
}

func TestLinkIsGoodOnce(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := newWorld(t, db)
		ctx := t.Context()
		link, _, err := w.Bootstrap(ctx)
		check(t, err)
		tok := accounttest.LinkToken(link)
		options, err := w.BeginEnroll(ctx, tok)
		check(t, err)
		var wg sync.WaitGroup
		var mu sync.Mutex
		codes := map[string]int{}
		for range 20 {
			a := accounttest.New(publicURL)
			cred, err := a.Register(options)
			check(t, err)
			wg.Go(func() {
				_, err := w.FinishEnroll(ctx, tok, cred, "", "")
				code := "ok"
				if err != nil {
					code = fault.Of(err).Code
				}
				mu.Lock()
				defer mu.Unlock()
				codes[code]++
			})
		}
		wg.Wait()
		if codes["ok"] != 1 || codes["flow_expired"]+codes["link_expired"] != 19 {
			t.Errorf("got %v, want one success", codes)
		}
		if _, err := w.BeginEnroll(ctx, tok); !fault.Is(err, "link_expired") {
			t.Errorf("got %v for a used link", err)
		}
		var n int
		check(t, db.Reader().QueryRowContext(ctx, `select count(*) from passkey`).Scan(&n))
		if n != 1 {
			t.Errorf("got %d passkeys", n)
		}
	})
}

func TestLinkExpires(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := newWorld(t, db)
		ctx := t.Context()
		link, _, err := w.Bootstrap(ctx)
		check(t, err)
		tok := accounttest.LinkToken(link)
		w.advance(account.LinkAge - time.Minute)
		options, err := w.BeginEnroll(ctx, tok)
		check(t, err)
		cred, err := accounttest.New(publicURL).Register(options)
		check(t, err)
		w.advance(time.Minute)
		_, err = w.Link(ctx, tok)
		wantCode(t, err, "link_expired")
		_, err = w.FinishEnroll(ctx, tok, cred, "", "")
		wantCode(t, err, "link_expired")

		// S9: nothing but the exact token is looked up.
		link, _, err = w.Bootstrap(ctx)
		check(t, err)
		text := token(accounttest.LinkToken(link))
		for _, bad := range []string{text[:len(text)-1], text + "A", strings.ToUpper(text), " " + text, ""} {
			if _, err := w.Link(ctx, secret.FromString(bad)); !fault.Is(err, "link_expired") {
				t.Errorf("%q: got %v", bad, err)
			}
		}
	})
}

func TestRegistrationIsRefused(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := newWorld(t, db)
		ctx := t.Context()
		link, _, err := w.Bootstrap(ctx)
		check(t, err)
		tok := accounttest.LinkToken(link)
		for name, change := range map[string]func(*accounttest.Authenticator){
			"unverified":   func(a *accounttest.Authenticator) { a.Unverified = true },
			"another port": func(a *accounttest.Authenticator) { a.Origin = "http://localhost:9999" },
		} {
			options, err := w.BeginEnroll(ctx, tok)
			check(t, err)
			a := accounttest.New(publicURL)
			change(a)
			cred, err := a.Register(options)
			check(t, err)
			if _, err := w.FinishEnroll(ctx, tok, cred, "", ""); !fault.Is(err, "passkey_refused") {
				t.Errorf("%s: got %v", name, err)
			}
		}
		options, err := w.BeginEnroll(ctx, tok)
		check(t, err)
		cred, err := accounttest.New(publicURL).Register(options)
		check(t, err)
		doubled := bytes.Replace(cred, []byte(`{"type"`), []byte(`{"Type":"x","type"`), 1)
		if _, err := w.FinishEnroll(ctx, tok, doubled, "", ""); !fault.Is(err, "passkey_refused") {
			t.Errorf("two spellings of one name: got %v", err)
		}
		accounttest.Enroll(t, w.Service, link) // the link survived all that
	})
}

func TestLoginEnds(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		alive := func(tok secret.Value) bool {
			_, err := w.Authenticate(ctx, tok, "")
			if err != nil && !fault.Is(err, "unauthenticated") {
				t.Fatal(err)
			}
			return err == nil
		}
		// Used every eleven hours it lives seven days, and no longer.
		start := w.now()
		for w.now().Add(11*time.Hour).Sub(start) < account.LoginAge {
			w.advance(11 * time.Hour)
			if !alive(owner.Token) {
				t.Fatalf("ended after %v of use", w.now().Sub(start))
			}
		}
		w.clock.Store(start.Add(account.LoginAge).UnixMicro())
		if alive(owner.Token) {
			t.Error("lives beyond seven days")
		}
		owner.SignIn(t)
		w.advance(account.LoginIdle)
		if alive(owner.Token) {
			t.Error("lives beyond twelve idle hours")
		}

		owner.SignIn(t)
		first := owner.Token
		owner.SignIn(t)
		logins, err := w.Logins(ctx, owner.Person)
		check(t, err)
		if len(logins) != 2 || !logins[0].Current || logins[1].Current {
			t.Fatalf("got %+v", logins)
		}
		check(t, w.SignOut(ctx, owner.Person, logins[1].ID))
		if alive(first) || !alive(owner.Token) {
			t.Error("signing one login out did not end just that one")
		}
		mia := w.join(t, owner, account.RoleMember, "mia@example.com")
		wantCode(t, w.SignOut(ctx, mia.Person, logins[0].ID), "not_found")
		wantCode(t, w.SignOut(ctx, mia.Person, ""), "not_found")
		again := owner.Token
		owner.SignIn(t)
		check(t, w.SignOutEverywhere(ctx, owner.Person))
		if alive(owner.Token) || alive(again) || !alive(mia.Token) {
			t.Error("signing out everywhere did not end exactly one's own logins")
		}
		w.audited(t, "login.all_revoked")

		text := token(mia.Token) // S9
		for i := range text {
			if alive(secret.FromString(text[:i])) {
				t.Fatalf("a prefix of %d signs in", i)
			}
		}
		for _, bad := range []string{text + "=", " " + text, strings.ToUpper(text), strings.Replace(text, "login", "link", 1)} {
			if alive(secret.FromString(bad)) {
				t.Errorf("%q signs in", bad)
			}
		}
	})
}

// app is a registered authenticator app.
type app struct{ seed string }

func newApp(t testing.TB, otpauth secret.Value) app {
	t.Helper()
	_, rest, ok := strings.Cut(token(otpauth), "secret=")
	if !ok {
		t.Fatal("no secret in the otpauth URL")
	}
	seed, _, _ := strings.Cut(rest, "&")
	return app{seed}
}

func (a app) code(t testing.TB, at time.Time) string {
	t.Helper()
	c, err := totp.GenerateCode(a.seed, at)
	check(t, err)
	return c
}

func (w *world) registerApp(t testing.TB, h *accounttest.Human) app {
	t.Helper()
	grant := h.Unlock(t)
	url, err := w.BeginTOTP(t.Context(), h.Person, grant)
	check(t, err)
	a := newApp(t, url)
	check(t, w.FinishTOTP(t.Context(), h.Person, grant, a.code(t, w.now())))
	w.advance(time.Minute) // past the step that registering used
	return a
}

// G9: each code is good for one success, in one spelling.
func TestTOTP(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		mia := w.join(t, owner, account.RoleMember, "Mia@Example.com")
		a := w.registerApp(t, mia)
		code := a.code(t, w.now())
		wide := strings.Map(func(r rune) rune { return r - '0' + '０' }, code)
		for _, bad := range []string{wide, " " + code, code + " ", "0" + code} {
			if _, err := w.SignInTOTP(ctx, "mia@example.com", bad, ""); !fault.Is(err, "sign_in_refused") {
				t.Errorf("%q: got %v", bad, err)
			}
		}
		w.advance(15 * time.Minute)
		code = a.code(t, w.now())
		var wg sync.WaitGroup
		var mu sync.Mutex
		var won []secret.Value
		for range 4 {
			wg.Go(func() {
				tok, err := w.SignInTOTP(ctx, " MIA@example.com", code, "")
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won = append(won, tok)
				} else if !fault.Is(err, "sign_in_refused") {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("one code signed in %d times", len(won))
		}
		p, err := w.Authenticate(ctx, won[0], "")
		check(t, err)
		if p.User() != mia.User() || p.Method() != account.MethodTOTP {
			t.Errorf("got %s by %s", p.User(), p.Method())
		}
		w.advance(15 * time.Minute)
		newer := a.code(t, w.now().Add(30*time.Second))
		older := a.code(t, w.now())
		_, err = w.SignInTOTP(ctx, "mia@example.com", newer, "")
		check(t, err)
		_, err = w.SignInTOTP(ctx, "mia@example.com", older, "") // of a step before the used one
		wantCode(t, err, "sign_in_refused")

		check(t, mia.Do(t, func(ag account.Agreement) error {
			return w.SetProfile(ctx, mia.Person, "Mia", "mia.okafor@example.com", ag)
		}))
		w.advance(15 * time.Minute)
		_, err = w.SignInTOTP(ctx, "mia.okafor@example.com", a.code(t, w.now()), "")
		check(t, err)
	})
}

// G7, W7: an unknown e-mail, a person without an app and a wrong code look
// alike, take as long, and meet the same limit.
func TestTOTPGuesses(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		mia := w.join(t, owner, account.RoleMember, "mia@example.com")
		w.join(t, owner, account.RoleMember, "noapp@example.com")
		a := w.registerApp(t, mia)
		wrong := "000000"
		if a.code(t, w.now()) == wrong {
			wrong = "000001"
		}
		for _, email := range []string{"mia@example.com", "noapp@example.com", "nobody@example.com", "not an address"} {
			for i := range 7 {
				begin := time.Now()
				_, err := w.SignInTOTP(ctx, email, wrong, "")
				want := "sign_in_refused"
				if i >= 5 {
					want = "too_many_attempts"
				}
				f := fault.Of(err)
				if f == nil || f.Code != want {
					t.Fatalf("%s, attempt %d: got %v, want %s", email, i+1, err, want)
				}
				if took := time.Since(begin); took < 95*time.Millisecond {
					t.Errorf("%s, attempt %d: answered after %v", email, i+1, took)
				}
			}
		}
		_, err := w.SignInTOTP(ctx, "mia@example.com", a.code(t, w.now()), "")
		wantCode(t, err, "too_many_attempts")
		if d := fault.Of(err).RetryAfter; d <= 0 || d > 15*time.Minute {
			t.Errorf("got retry after %v", d)
		}
		// Whoever is signed in can still prove presence: guessing at the door
		// does not lock the house.
		digest := [32]byte{1}
		_, err = w.Prove(ctx, mia.Person, digest, "", account.Proof{TOTP: a.code(t, w.now())})
		check(t, err)
		w.advance(15 * time.Minute)
		_, err = w.SignInTOTP(ctx, "mia@example.com", a.code(t, w.now()), "")
		check(t, err)
		w.audited(t, "signin.totp/deny/not_verified")
		w.audited(t, "signin.totp/allow")
	})
}

// A9: no login, however it was made and however fresh, registers another way
// to sign in without a proof by one that is there, and one proof does it once.
func TestAddingFactors(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		refused := func(p account.Person, grant secret.Value) {
			t.Helper()
			_, _, err := w.BeginAddPasskey(ctx, p, grant)
			wantCode(t, err, "unlock_required")
			_, err = w.FinishAddPasskey(ctx, p, grant, "x", nil, "")
			wantCode(t, err, "unlock_required")
			_, err = w.BeginTOTP(ctx, p, grant)
			wantCode(t, err, "unlock_required")
			wantCode(t, w.FinishTOTP(ctx, p, grant, "123456"), "unlock_required")
		}
		refused(owner.Person, secret.Value{})
		refused(owner.Person, owner.Token)
		refused(owner.Person, secret.Token("amb_unlock_"))
		_, err := w.Unlock(ctx, owner.Person, "n", account.Proof{})
		wantCode(t, err, "proof_required")
		_, err = w.Unlock(ctx, owner.Person, "n", owner.Proof(t, w.UnlockDigest(owner.Person, "other")))
		wantCode(t, err, "proof_refused")

		// A proof makes one grant, the grant registers one thing, of this login.
		proof := owner.Proof(t, w.UnlockDigest(owner.Person, "n"))
		grant := must(w.Unlock(ctx, owner.Person, "n", proof))(t)
		_, err = w.Unlock(ctx, owner.Person, "n", owner.Proof(t, w.UnlockDigest(owner.Person, "n")))
		wantCode(t, err, "proof_used")
		mia := w.join(t, owner, account.RoleMember, "mia@example.com")
		refused(mia.Person, grant)
		before := owner.Person
		owner.SignIn(t)
		refused(owner.Person, grant)
		a := newApp(t, must(w.BeginTOTP(ctx, before, grant))(t))
		wantCode(t, w.FinishTOTP(ctx, before, grant, "12345"), "code_refused")
		check(t, w.FinishTOTP(ctx, before, grant, a.code(t, w.now())))
		refused(before, grant)
		grant = owner.Unlock(t)
		_, _, err = w.BeginAddPasskey(ctx, owner.Person, grant)
		check(t, err)
		w.advance(account.GrantAge)
		refused(owner.Person, grant)
		w.audited(t, "user.unlocked")

		// A link's login has no more than the passkey that was just made.
		link, err := w.Recover(ctx, string(mia.User()))
		check(t, err)
		tok := accounttest.LinkToken(link)
		if e, err := w.Link(ctx, tok); err != nil || e.First {
			t.Errorf("got %+v, %v", e, err)
		}
		_, err = w.BeginEnrollTOTP(ctx, tok)
		wantCode(t, err, "passkey_required")
		options, err := w.BeginEnroll(ctx, tok)
		check(t, err)
		again := &accounttest.Human{Authenticator: accounttest.New(publicURL)}
		login := must(w.FinishEnroll(ctx, tok, must(again.Register(options))(t), "", ""))(t)
		recovered := must(w.Authenticate(ctx, login, ""))(t)
		if recovered.Method() != account.MethodLink {
			t.Errorf("got method %s", recovered.Method())
		}
		refused(recovered, secret.Value{})
		digest := w.UnlockDigest(recovered, "n")
		grant = must(w.Unlock(ctx, recovered, "n", account.Proof{Assertion: must(again.Assert(must(w.Challenge(ctx, recovered, digest))(t)))(t)}))(t)
		_ = must(w.BeginTOTP(ctx, recovered, grant))(t)
	})
}

// A9: who has only an app adds a passkey with a code, also where passkeys are
// demanded, which is where they need it most.
func TestAddingAPasskeyByCode(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		o := must(w.Organization(ctx, w.env, org(owner.Person).Organization))(t)
		_ = must(w.CreateUser(ctx, account.System("test"), account.NewUser{Environment: w.env, Organization: o.ID, Name: "Lee", Email: "lee@example.com"}, none))(t)
		tok := accounttest.LinkToken(must(w.Recover(ctx, "lee@example.com"))(t))
		a := newApp(t, must(w.BeginEnrollTOTP(ctx, tok))(t))
		_ = must(w.FinishEnrollTOTP(ctx, tok, a.code(t, w.now()), ""))(t)
		demand := true
		_ = must(w.UpdateOrganization(ctx, account.System("test"), o.ID, o.Version, account.OrganizationChange{RequirePasskey: &demand}, none))(t)
		lee := must(w.Authenticate(ctx, tokenOf(t, w, "lee@example.com", a), ""))(t)
		w.advance(time.Minute)
		grant := must(w.Unlock(ctx, lee, "n", account.Proof{TOTP: a.code(t, w.now())}))(t)
		flow, options, err := w.BeginAddPasskey(ctx, lee, grant)
		check(t, err)
		_ = must(w.FinishAddPasskey(ctx, lee, grant, flow, must(accounttest.New(publicURL).Register(options))(t), "first"))(t)
		w.advance(time.Minute)
		_, err = w.Unlock(ctx, lee, "m", account.Proof{TOTP: a.code(t, w.now())})
		wantCode(t, err, "passkey_required")
	})
}

// tokenOf signs in by code.
func tokenOf(t testing.TB, w *world, email string, a app) secret.Value {
	t.Helper()
	w.advance(time.Minute)
	return must(w.SignInTOTP(t.Context(), email, a.code(t, w.now()), ""))(t)
}

// Somebody without a device for passkeys enrols with an app alone.
func TestEnrollByApp(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		_, err := w.CreateUser(ctx, account.System("test"), account.NewUser{Environment: w.env, Organization: org(owner.Person).Organization, Name: "Lee", Email: "lee@example.com"}, none)
		check(t, err)
		link, err := w.Recover(ctx, "lee@example.com")
		check(t, err)
		tok := accounttest.LinkToken(link)
		url, err := w.BeginEnrollTOTP(ctx, tok)
		check(t, err)
		a := newApp(t, url)
		login, err := w.FinishEnrollTOTP(ctx, tok, a.code(t, w.now()), "")
		check(t, err)
		_, err = w.Authenticate(ctx, login, "")
		check(t, err)
		_, err = w.FinishEnrollTOTP(ctx, tok, a.code(t, w.now()), "")
		wantCode(t, err, "link_expired")
		w.advance(time.Minute)
		login, err = w.SignInTOTP(ctx, "lee@example.com", a.code(t, w.now()), "")
		check(t, err)
		lee, err := w.Authenticate(ctx, login, "")
		check(t, err)
		_, err = w.Challenge(ctx, lee, [32]byte{1})
		wantCode(t, err, "no_passkey")
		w.advance(time.Minute)
		wantCode(t, w.RemoveTOTP(ctx, lee, "", account.Proof{TOTP: a.code(t, w.now())}), "last_factor")
	})
}

// Recovering is seen by every owner, voids old links, and works for anybody.
func TestRecover(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		second := w.join(t, owner, account.RoleOwner, "second@example.com")
		mia := w.join(t, owner, account.RoleMember, "mia@example.com")
		for _, n := range must(w.Notices(ctx, owner.Person))(t) { // of joining
			check(t, w.DismissNotice(ctx, owner.Person, n.ID))
		}
		first, err := w.Recover(ctx, "Mia@example.com ")
		check(t, err)
		_, err = w.Recover(ctx, string(mia.User()))
		check(t, err)
		_, err = w.Link(ctx, accounttest.LinkToken(first))
		wantCode(t, err, "link_expired")
		for _, h := range []*accounttest.Human{owner, second} {
			notices := must(w.Notices(ctx, h.Person))(t)
			if len(notices) < 2 || notices[0].User != mia.User() || notices[0].UserName != "mia@example.com" || notices[0].Kind != "user.recovery_link" {
				t.Errorf("got %+v", notices)
			}
		}
		n := must(w.Notices(ctx, owner.Person))(t)
		wantCode(t, w.DismissNotice(ctx, mia.Person, n[0].ID), "not_found")
		check(t, w.DismissNotice(ctx, owner.Person, n[0].ID))
		if left := must(w.Notices(ctx, owner.Person))(t); len(left) != len(n)-1 {
			t.Errorf("got %d notices after dismissing one of %d", len(left), len(n))
		}
		if left := must(w.Notices(ctx, mia.Person))(t); len(left) != 0 {
			t.Errorf("a member was told: %+v", left)
		}
		w.audited(t, "user.recovery_link")
		for _, who := range []string{"", "nobody@example.com", string(id.NewUser()), "env_1"} {
			_, err := w.Recover(ctx, who)
			wantCode(t, err, "not_found")
		}
	})
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		check(t, err)
		return v
	}
}

func TestInvite(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx, sys := t.Context(), account.System("test")
		admin := w.join(t, owner, account.RoleAdmin, "admin@example.com")
		m := org(owner.Person)
		u := must(w.CreateUser(ctx, sys, account.NewUser{Environment: m.Environment, Organization: m.Organization, Name: "Lee"}, none))(t)
		invite := func(who *accounttest.Human, user id.User) func(account.Agreement) (secret.Value, error) {
			return func(ag account.Agreement) (secret.Value, error) { return w.Invite(ctx, who.Person, user, ag) }
		}
		_, err := w.Invite(ctx, admin.Person, u.ID, none)
		wantCode(t, err, "proof_required")
		var kept account.Agreement
		first := must(agreed(t, admin, func(ag account.Agreement) (secret.Value, error) { kept = ag; return invite(admin, u.ID)(ag) }))(t)
		_, err = w.Invite(ctx, admin.Person, u.ID, kept)
		wantCode(t, err, "proof_used") // T5: what the audit keeps of a proof makes no second link
		link := must(agreed(t, admin, invite(admin, u.ID)))(t)
		_, err = w.Link(ctx, accounttest.LinkToken(first))
		wantCode(t, err, "link_expired")
		// It is a link for what they may do now, whoever else may hold it.
		check(t, w.SetRole(ctx, sys, m.Organization, u.ID, account.RoleAdmin, none))
		_, err = w.Link(ctx, accounttest.LinkToken(link))
		wantCode(t, err, "link_expired")
		lee := accounttest.Enroll(t, w.Service, must(agreed(t, admin, invite(admin, u.ID)))(t))
		check(t, w.SetRole(ctx, sys, m.Organization, u.ID, account.RoleMember, none))
		lee.SignIn(t)
		// T5: an admin cannot get into an account that somebody uses.
		_, err = agreed(t, admin, invite(admin, u.ID))
		wantCode(t, err, "already_enrolled")
		_, err = w.Invite(ctx, lee.Person, admin.User(), none)
		wantCode(t, err, "not_found")
		boss := must(w.CreateUser(ctx, sys, account.NewUser{Environment: m.Environment, Organization: m.Organization, Role: account.RoleOwner, Name: "Boss"}, none))(t)
		_, err = agreed(t, admin, invite(admin, boss.ID))
		wantCode(t, err, "not_allowed")

		// One agreement makes a user and their link.
		n := account.NewUser{Environment: m.Environment, Organization: m.Organization, Name: "Ada", Role: account.RoleApprover}
		both := must(agreed(t, admin, func(ag account.Agreement) (secret.Value, error) {
			_, link, err := w.InviteUser(ctx, admin.Person, n, ag)
			return link, err
		}))(t)
		if ada := accounttest.Enroll(t, w.Service, both); !ada.May(m.Organization, account.RoleApprover) {
			t.Errorf("got %+v", ada.Organizations())
		}
	})
}

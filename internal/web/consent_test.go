package web_test

import (
	"context"
	"net/http"
	"net/url"
	"path"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/issuer/issuertest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// signIn is a client that asks for a session with its sign-in.
type signIn struct {
	scene
	caller   agent.Caller
	verifier secret.Value
	page     string
}

func (s scene) signsIn(t *testing.T, asks agent.Asks) signIn {
	t.Helper()
	c := signIn{scene: s, caller: s.Caller(t, s.Client(t, agent.AuthNone))}
	verifier, challenge := agenttest.PKCE()
	flow, err := s.Agents.BeginAuthorize(t.Context(), agent.AuthRequest{Client: agent.Client{ID: c.caller.Client()}, RedirectURI: agenttest.Redirect, State: "s", Challenge: challenge, Asks: &asks})
	gatewaytest.Must(t, err)
	c.verifier, c.page = verifier, "/ui/consent/"+string(flow)
	return c
}

// named lets the program be an agent, and gives the page that decides on what it asks for.
func (c signIn) named(b *browser) *doc {
	at := b.get(c.page).want(http.StatusOK).submit(c.page, func(v url.Values) { v.Set("label", "Plain client"); v.Set("org", string(c.Organization)) })
	for at.status == http.StatusSeeOther {
		at = b.get(at.header.Get("Location"))
	}
	return at.want(http.StatusOK)
}

func (c signIn) code(t *testing.T, done *doc) secret.Value {
	t.Helper()
	back, err := url.Parse(done.want(http.StatusOK).link("Back to the program"))
	gatewaytest.Must(t, err)
	if back.Query().Get("iss") != agenttest.PublicURL || back.Query().Get("state") != "s" || back.Query().Get("code") == "" {
		t.Fatalf("the way back is %s", back)
	}
	return secret.FromString(back.Query().Get("code"))
}

func (c signIn) exchange(t *testing.T, code secret.Value) (agent.Tokens, error) {
	t.Helper()
	return c.Agents.Exchange(t.Context(), c.caller, agent.CodeGrant{Code: code, RedirectURI: agenttest.Redirect, Verifier: c.verifier})
}

var asksToChange = agent.Asks{Type: agent.AsksType, Providers: []string{"tracker"}, Effects: []policy.Effect{policy.Read, policy.Write}, Minutes: 20, Purpose: "Sort the issues."}

// product.md 5.3, S7: the sign-in of a plain OAuth client asks for a session, and what it
// gets is a token for just what the person left of it, that ends with it and is not refreshed.
func TestConsentIsTheApproval(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		c := s.signsIn(t, asksToChange)
		s.mia.get(c.page).says("read and change data in tracker for 20 minutes", "this alone gives it no access")
		page := c.named(s.mia).says("Plain client wants to read and change data in", "for 20 minutes", "Whoever started this gets the access: a program on the machine", "Sort the issues.")
		done := page.submit(page.url.Path+"/approve", func(v url.Values) {
			v["effect."+string(s.conn.ID)] = []string{"read"}
			v.Set("minutes", "5")
		}).want(http.StatusOK).says("It may do this until the session ends")
		tokens, err := c.exchange(t, c.code(t, done))
		gatewaytest.Must(t, err)
		if !tokens.Refresh.IsZero() || tokens.ExpiresIn > 5*time.Minute || tokens.Scope != "ambit session:tracker:read" {
			t.Errorf("got %v refreshable %v, %s", tokens.ExpiresIn, !tokens.Refresh.IsZero(), tokens.Scope)
		}
		who, err := s.Agents.Authenticate(t.Context(), tokens.Access)
		gatewaytest.Must(t, err)
		if _, err := s.Call(t, who, "", "tracker_list_issues", map[string]any{}); err != nil {
			t.Errorf("a call of what was approved: %v", err)
		}
		if _, err := s.Call(t, who, "", "tracker_create_issue", map[string]any{"title": "x"}); !fault.Is(err, "not_granted") {
			t.Errorf("a call of what was left out: got %v", err)
		}
		if _, err := s.Sessions.Request(t.Context(), who, session.Ask{Providers: []string{"tracker"}, Purpose: "More."}, ""); !fault.Is(err, "not_granted") {
			t.Errorf("asking for another session: got %v", err)
		}
		// The page says what became of it, and gives no second code.
		s.mia.get(c.page).want(http.StatusNotFound)
		s.mia.post(c.page+"/finish", nil).want(http.StatusNotFound)
		_, err = s.Sessions.Revoke(t.Context(), account.ByPerson(s.mia.Person).In(s.Environment), session.Aim{Session: who.Session()})
		gatewaytest.Must(t, err)
		if _, err := s.Agents.Authenticate(t.Context(), tokens.Access); err == nil {
			t.Error("the token outlives its session")
		}
	})
}

// S7, G2: a code whose session ends before it is exchanged gives nothing.
func TestConsentCodeEndsWithTheSession(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		for name, end := range map[string]func(c signIn, id session.Session){
			"revoked": func(c signIn, ses session.Session) {
				_, err := s.Sessions.Revoke(t.Context(), account.ByPerson(s.mia.Person).In(s.Environment), session.Aim{Session: ses.ID})
				gatewaytest.Must(t, err)
			},
			// On PostgreSQL by a node whose clock is ahead of that of the one that exchanges.
			"revoked elsewhere": func(c signIn, ses session.Session) {
				s.Clock.Advance(time.Second)
				_, err := s.Sessions.Revoke(t.Context(), account.ByPerson(s.mia.Person).In(s.Environment), session.Aim{Session: ses.ID})
				s.Clock.Advance(-time.Second)
				gatewaytest.Must(t, err)
			},
			"run out": func(c signIn, ses session.Session) { s.Clock.Advance(time.Minute) },
		} {
			c := s.signsIn(t, asksToChange)
			page := c.named(s.mia)
			code := c.code(t, page.submit(page.url.Path+"/approve", func(v url.Values) { v.Set("minutes", "5") }))
			list, _, err := s.Sessions.List(t.Context(), account.ByPerson(s.mia.Person).In(s.Environment), session.Filter{Organization: s.Organization})
			gatewaytest.Must(t, err)
			if len(list) == 0 {
				t.Fatal("no session was made")
			}
			var challenge string
			gatewaytest.Must(t, db.Reader().QueryRowContext(t.Context(), `select challenge from authorization_code where session_id = $1`, list[0].ID).Scan(&challenge))
			if len(challenge) == 43 { // a node of the version before makes an identity of it, with a refresh token
				t.Error("a binary that does not know of sessions in codes could exchange it")
			}
			end(c, list[0])
			if _, err := c.exchange(t, code); !fault.Is(err, "invalid_grant") {
				t.Errorf("%s: got %v, want the code to be worth nothing", name, err)
			}
		}
	})
}

// Rule 4, G4: nothing but the proof of the approval makes a code: neither the sign-in's own,
// nor the cookie, nor somebody else; and a no is brought to the program.
func TestConsentGivesNoCodeBeforeTheApproval(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		c := s.signsIn(t, asksToChange)
		s.mia.post(c.page, url.Values{"label": {"x"}, "org": {string(s.Organization)}}).want(http.StatusUnprocessableEntity)
		page := c.named(s.mia)
		s.mia.post(c.page+"/finish", nil).want(http.StatusForbidden).not("code=")
		s.mia.post(page.url.Path+"/approve", fields(page.form(page.url.Path+"/approve"))).want(http.StatusUnprocessableEntity)
		other := s.person(t, "otto@example.com", account.RoleOwner)
		other.post(c.page+"/finish", nil).want(http.StatusNotFound)
		// Who goes back to the sign-in is led to the same request.
		s.mia.get(c.page).to(page.url.Path)
		done := s.mia.post(page.url.Path+"/deny", nil).want(http.StatusOK).says("Nothing was granted")
		back, err := url.Parse(done.link("Tell the program"))
		gatewaytest.Must(t, err)
		if back.Query().Get("error") != "access_denied" || back.Query().Get("code") != "" {
			t.Errorf("the way back is %s", back)
		}
		// Another who opens the same sign-in cannot take it over.
		c = s.signsIn(t, asksToChange)
		c.named(s.mia)
		other.get("/ui/connections/new?provider=tracker").submit("/ui/connections", func(v url.Values) { v.Set("key.api_key", gatewaytest.SandboxKey) }).want(http.StatusOK)
		other.get(c.page).want(http.StatusOK).submit(c.page, func(v url.Values) { v.Set("label", "Mine") }).want(http.StatusConflict).says("has asked for a session already")
	})
}

// G4: the code goes to whom the approval named: a request that changed since gets none.
func TestConsentAnswersWhatWasApproved(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		for _, change := range []string{`redirect_uri = 'https://thief.example/cb'`, `challenge = 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM'`, `state = 'other'`} {
			c := s.signsIn(t, asksToChange)
			page := c.named(s.mia)
			gatewaytest.Must(t, db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
				_, err := tx.ExecContext(ctx, `update authorize_request set `+change+` where id = $1`, path.Base(c.page))
				return err
			}))
			page.submit(page.url.Path+"/approve", nil).want(http.StatusConflict).says("not the one that was approved").not("code=")
			s.mia.post(c.page+"/finish", nil).want(http.StatusConflict).not("code=")
		}
		var codes int
		gatewaytest.Must(t, db.Reader().QueryRowContext(t.Context(), `select count(*) from authorization_code where session_id <> ''`).Scan(&codes))
		if codes != 0 {
			t.Errorf("%d codes were made", codes)
		}
	})
}

// G4, T1: a login that counts in one organization only neither sees nor answers what the
// same person asked for in another.
func TestConsentIsOfTheLoginsOrganizations(t *testing.T) {
	t.Parallel()
	on, idp := newFederatedSite(t, "mia@idp")
	s := sceneOf(t, on)
	other, err := s.Accounts.CreateOrganization(t.Context(), account.System("test"), s.Environment, "Other", "")
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, s.Accounts.AddMember(t.Context(), account.System("test"), other.ID, s.mia.Person.User(), account.RoleOwner, account.Agreement{}))
	s.mia.Reload(t)
	var login account.IdentityProvider
	gatewaytest.Must(t, s.mia.Do(t, func(ag account.Agreement) (err error) {
		login, err = s.Accounts.AddIdentityProvider(t.Context(), account.ByPerson(s.mia.Person), other.ID, account.NewIdentityProvider{Name: "Other's login", Issuer: idp.URL, ClientID: issuertest.ClientID,
			Secret: secret.FromString(issuertest.Secret)}, ag)
		return err
	}))
	leaves, err := s.Accounts.LeaveToAdd(t.Context(), s.mia.Person, s.mia.Unlock(t), login.ID)
	gatewaytest.Must(t, err)
	q := idp.Answer(t, leaves.Address)
	_, err = s.Accounts.Arrive(t.Context(), s.mia.Person, login.ID, account.Arrival{State: q.Get("state"), Code: q.Get("code"), Issuer: q.Get("iss"), Keep: leaves.Keep, Address: "203.0.113.5"})
	gatewaytest.Must(t, err)
	confined := s.open(t)
	q = idp.Answer(t, confined.get("/ui/signin/with/"+string(login.ID)).want(http.StatusSeeOther).header.Get("Location"))
	confined.get("/ui/signin/from/" + string(login.ID) + "?" + q.Encode()).to("/ui/")

	c := s.signsIn(t, asksToChange)
	request := id.Approval(path.Base(c.named(s.mia).url.Path))
	s.mia.post(c.page+"/finish", nil).want(http.StatusForbidden)
	turnedAway := func() {
		t.Helper()
		confined.get(c.page).want(http.StatusOK).says("wants to sign in").not("Back to the program")
		confined.post(c.page+"/finish", nil).want(http.StatusNotFound).not("code=")
	}
	turnedAway()
	a, err := s.Sessions.Approval(t.Context(), s.mia.Person, request)
	gatewaytest.Must(t, err)
	d := s.Sessions.DefaultDecision(a)
	digest, err := s.Sessions.Digest(t.Context(), s.mia.Person, request, d)
	gatewaytest.Must(t, err)
	_, err = s.Sessions.Approve(t.Context(), s.mia.Person, request, d, s.mia.Proof(t, digest))
	gatewaytest.Must(t, err)
	turnedAway()
	c.code(t, s.mia.post(c.page+"/finish", nil))
}

// Where others decide too, the person waits at the sign-in's page, and takes the answer
// to the program there.
func TestConsentWaitsForTheSecondPerson(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.KeyProvider(t, "shared")
		otto := s.person(t, "otto@example.com", account.RoleAdmin)
		otto.get("/ui/connections/new?provider=shared").submit("/ui/connections", func(v url.Values) {
			v.Set("key.api_key", gatewaytest.SandboxKey)
			v.Set("owner", "organization")
		}).want(http.StatusOK).says("Connected")
		nora := s.person(t, "nora@example.com", account.RoleMember)
		c := s.signsIn(t, agent.Asks{Type: agent.AsksType, Providers: []string{"shared"}})
		c.named(nora).says("Somebody else must decide this too")
		open, err := s.Sessions.Inbox(t.Context(), otto.Person)
		gatewaytest.Must(t, err)
		if len(open) != 1 {
			t.Fatalf("the approver has %d requests, want one", len(open))
		}
		page := "/ui/approvals/" + string(open[0].ID)
		otto.get(page).says("Whoever started this gets the access").submit(page+"/approve", nil).follow().says("Approved")
		otto.post(c.page+"/finish", nil).want(http.StatusNotFound)
		done := nora.get(c.page).says("It was approved").submit(c.page+"/finish", nil)
		tokens, err := c.exchange(t, c.code(t, done))
		gatewaytest.Must(t, err)
		who, err := s.Agents.Authenticate(t.Context(), tokens.Access)
		gatewaytest.Must(t, err)
		if who.Session() == "" || who.User() != nora.Person.User() {
			t.Errorf("the token is %s's for %q", who.User(), who.Session())
		}
	})
}

package agent_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// each runs fn in a world of its own on each engine, with a member in it.
func each(t *testing.T, fn func(t *testing.T, w *agenttest.World, alice *agenttest.Person)) {
	t.Helper()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := agenttest.New(t, db)
		fn(t, w, w.Person(t, "alice@example.com", account.RoleMember))
	})
}

// refused checks that err is a fault with this code.
func refused(t *testing.T, what string, err error, code string) {
	t.Helper()
	if err == nil || !fault.Is(err, code) {
		t.Errorf("%s: got %v, want %s", what, err, code)
	}
}

// alive reports whether an access token still authenticates.
func alive(t *testing.T, w *agenttest.World, access secret.Value) bool {
	t.Helper()
	_, err := w.Agents.Authenticate(t.Context(), access)
	if err != nil && !fault.Is(err, "invalid_token") {
		t.Errorf("authenticating: %v", err)
	}
	return err == nil
}

func TestCodeGivesTokensOfTheConsentedAgent(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		g := w.Consented(t, alice, "Alice's laptop")
		i := g.Identity
		if i.User() != alice.ID || i.Organization() != w.Organization || i.Environment() != w.Environment || i.Kind() != agent.Delegated ||
			i.Client() != g.Caller.Client() || i.Label() != "Alice's laptop" || i.Session() != "" || i.Token() == "" {
			t.Errorf("got identity %+v", i)
		}
		if g.Tokens.ExpiresIn != time.Hour || g.Tokens.Refresh.IsZero() || g.Tokens.Scope != "ambit" {
			t.Errorf("got tokens %+v", g.Tokens)
		}
		w.Clock.Advance(time.Hour - time.Microsecond)
		if !alive(t, w, g.Tokens.Access) {
			t.Error("the access token died before its hour")
		}
		w.Clock.Advance(time.Microsecond)
		if alive(t, w, g.Tokens.Access) {
			t.Error("the access token outlived its hour")
		}
	})
}

// G2: everything the code is bound to, each alone, refuses; none spends it.
func TestCodeIsBound(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		caller, other := w.Caller(t, w.Client(t, agent.AuthNone)), w.Caller(t, w.Client(t, agent.AuthNone))
		verifier, challenge := agenttest.PKCE()
		foreign, _ := agenttest.PKCE()
		code := w.Agree(t, alice, w.Begin(t, caller.Client(), challenge), "x").Get("code")
		good := agent.CodeGrant{Code: secret.FromString(code), RedirectURI: agenttest.Redirect, Verifier: verifier}
		for _, row := range []struct {
			name, code string
			by         agent.Caller
			change     func(*agent.CodeGrant)
		}{
			{"another client", "invalid_grant", other, func(g *agent.CodeGrant) {}},
			{"no client", "invalid_client", agent.Caller{}, func(g *agent.CodeGrant) {}},
			{"wrong verifier", "invalid_grant", caller, func(g *agent.CodeGrant) { g.Verifier = foreign }},
			{"no verifier", "invalid_grant", caller, func(g *agent.CodeGrant) { g.Verifier = secret.Value{} }},
			{"the challenge as verifier", "invalid_grant", caller, func(g *agent.CodeGrant) { g.Verifier = secret.FromString(challenge) }},
			{"another port", "invalid_grant", caller, func(g *agent.CodeGrant) { g.RedirectURI = "http://localhost:3001/callback" }},
			{"no redirect", "invalid_grant", caller, func(g *agent.CodeGrant) { g.RedirectURI = "" }},
			{"another resource", "invalid_target", caller, func(g *agent.CodeGrant) { g.Resource = "https://evil.example/mcp" }},
			{"a longer code", "invalid_grant", caller, func(g *agent.CodeGrant) { g.Code = secret.FromString(code + "A") }},
			{"a shorter code", "invalid_grant", caller, func(g *agent.CodeGrant) { g.Code = secret.FromString(code[:len(code)-1]) }},
			{"a code in lower case", "invalid_grant", caller, func(g *agent.CodeGrant) { g.Code = secret.FromString(strings.ToLower(code)) }},
			{"no code", "invalid_grant", caller, func(g *agent.CodeGrant) { g.Code = secret.Value{} }},
		} {
			g := good
			row.change(&g)
			_, err := w.Agents.Exchange(t.Context(), row.by, g)
			refused(t, row.name, err, row.code)
		}
		if _, err := w.Agents.Exchange(t.Context(), caller, good); err != nil {
			t.Errorf("the code was spent by a wrong attempt: %v", err)
		}

		late := w.Agree(t, alice, w.Begin(t, caller.Client(), challenge), "x").Get("code")
		w.Clock.Advance(time.Minute)
		good.Code = secret.FromString(late)
		_, err := w.Agents.Exchange(t.Context(), caller, good)
		refused(t, "a code after 60 s", err, "invalid_grant")
	})
}

// G2: the second use of a code revokes what the first issued, successors too.
func TestCodeReplayRevokes(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		g, bystander := w.Consented(t, alice, "x"), w.Consented(t, alice, "y")
		next, err := w.Agents.Refresh(t.Context(), g.Caller, agent.RefreshGrant{Refresh: g.Tokens.Refresh})
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Agents.Exchange(t.Context(), g.Caller, g.CodeGrant())
		refused(t, "the second use", err, "invalid_grant")
		if alive(t, w, g.Tokens.Access) || alive(t, w, next.Access) {
			t.Error("tokens of a replayed code are alive")
		}
		_, err = w.Agents.Refresh(t.Context(), g.Caller, agent.RefreshGrant{Refresh: next.Refresh})
		refused(t, "a refresh after the replay", err, "invalid_grant")
		if !alive(t, w, bystander.Tokens.Access) {
			t.Error("another agent lost its token")
		}
		if !slices.Contains(w.Actions(t), "token.code_replayed") {
			t.Error("the replay is not in the audit")
		}
	})
}

func TestRacingExchangesGiveNobodyALastingToken(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		caller := w.Caller(t, w.Client(t, agent.AuthNone))
		verifier, challenge := agenttest.PKCE()
		code := w.Agree(t, alice, w.Begin(t, caller.Client(), challenge), "x").Get("code")
		won := race(t, func() (agent.Tokens, error) {
			return w.Agents.Exchange(t.Context(), caller, agent.CodeGrant{Code: secret.FromString(code), RedirectURI: agenttest.Redirect, Verifier: verifier})
		})
		if len(won) != 1 {
			t.Fatalf("%d of 20 racing exchanges got tokens, want 1", len(won))
		}
		if alive(t, w, won[0].Access) {
			t.Error("the token of a code used 20 times is alive")
		}
	})
}

// race runs fn 20 times at once and gives the successes; all others must be
// invalid_grant.
func race(t *testing.T, fn func() (agent.Tokens, error)) (won []agent.Tokens) {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	start := make(chan struct{})
	for range 20 {
		wg.Go(func() {
			<-start
			tokens, err := fn()
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won = append(won, tokens)
			} else if !fault.Is(err, "invalid_grant") {
				t.Errorf("got %v, want invalid_grant", err)
			}
		})
	}
	close(start)
	wg.Wait()
	return won
}

// G3: rotation, the same answer for a retry, and what ends the family.
func TestRefreshRotates(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		ctx := t.Context()
		refresh := func(g agenttest.Grant, v secret.Value) (agent.Tokens, error) {
			return w.Agents.Refresh(ctx, g.Caller, agent.RefreshGrant{Refresh: v})
		}
		t.Run("a retry within 120 s gets the same answer", func(t *testing.T) {
			g := w.Consented(t, alice, "x")
			first, err := refresh(g, g.Tokens.Refresh)
			if err != nil {
				t.Fatal(err)
			}
			w.Clock.Advance(119 * time.Second)
			again, err := refresh(g, g.Tokens.Refresh)
			if err != nil {
				t.Fatal(err)
			}
			if !first.Access.Equal(again.Access) || !first.Refresh.Equal(again.Refresh) || again.ExpiresIn != time.Hour-119*time.Second {
				t.Errorf("the retry got other tokens, or %v", again.ExpiresIn)
			}
			if !alive(t, w, g.Tokens.Access) || !alive(t, w, again.Access) {
				t.Error("a retry killed a token")
			}
			w.Clock.Advance(time.Second)
			_, err = refresh(g, g.Tokens.Refresh)
			refused(t, "re-use after 120 s", err, "invalid_grant")
			if alive(t, w, again.Access) {
				t.Error("the family outlived a re-use")
			}
			if !slices.Contains(w.Actions(t), "token.refresh_reused") {
				t.Error("the re-use is not in the audit")
			}
		})
		t.Run("re-use after the successor was used ends the family", func(t *testing.T) {
			g := w.Consented(t, alice, "x")
			second, err := refresh(g, g.Tokens.Refresh)
			if err != nil {
				t.Fatal(err)
			}
			third, err := refresh(g, second.Refresh)
			if err != nil {
				t.Fatal(err)
			}
			_, err = refresh(g, g.Tokens.Refresh)
			refused(t, "re-use", err, "invalid_grant")
			_, err = refresh(g, third.Refresh)
			refused(t, "the newest of the family", err, "invalid_grant")
			if alive(t, w, third.Access) {
				t.Error("an access token outlived its family")
			}
		})
		t.Run("swept answers are gone, not guessed", func(t *testing.T) {
			g := w.Consented(t, alice, "x")
			if _, err := refresh(g, g.Tokens.Refresh); err != nil {
				t.Fatal(err)
			}
			w.Clock.Advance(3 * time.Minute)
			if err := w.Agents.Sweep(ctx); err != nil {
				t.Fatal(err)
			}
			var sealed int
			err := w.DB.Reader().QueryRowContext(ctx, `select count(*) from agent_token where sealed_access is not null or sealed_refresh is not null`).Scan(&sealed)
			if err != nil || sealed != 0 {
				t.Errorf("got %d sealed answers, %v", sealed, err)
			}
			_, err = refresh(g, g.Tokens.Refresh)
			refused(t, "re-use", err, "invalid_grant")
		})
		t.Run("thirty days from the consent, however often", func(t *testing.T) {
			g := w.Consented(t, alice, "x")
			tokens := g.Tokens
			for range 10 {
				w.Clock.Advance(3*24*time.Hour - time.Minute)
				var err error
				if tokens, err = refresh(g, tokens.Refresh); err != nil {
					t.Fatal(err)
				}
			}
			if tokens.ExpiresIn != 10*time.Minute {
				t.Errorf("ten minutes before the end the access token lasts %v", tokens.ExpiresIn)
			}
			w.Clock.Advance(10 * time.Minute)
			_, err := refresh(g, tokens.Refresh)
			refused(t, "a refresh after 30 days", err, "invalid_grant")
		})
		t.Run("another client", func(t *testing.T) {
			g, other := w.Consented(t, alice, "x"), w.Consented(t, alice, "y")
			_, err := w.Agents.Refresh(ctx, other.Caller, agent.RefreshGrant{Refresh: g.Tokens.Refresh})
			refused(t, "another client's refresh token", err, "invalid_grant")
			_, err = w.Agents.Refresh(ctx, g.Caller, agent.RefreshGrant{Refresh: g.Tokens.Access})
			refused(t, "an access token", err, "invalid_grant")
			_, err = w.Agents.Refresh(ctx, g.Caller, agent.RefreshGrant{Refresh: g.Tokens.Refresh, Resource: "https://evil.example"})
			refused(t, "another resource", err, "invalid_target")
			if _, err := refresh(g, g.Tokens.Refresh); err != nil {
				t.Errorf("a wrong attempt spent the token: %v", err)
			}
		})
		t.Run("its owner has left", func(t *testing.T) {
			bob := w.Person(t, "bob@example.com", account.RoleMember)
			g := w.Consented(t, bob, "x")
			if err := w.Accounts.RemoveMember(ctx, w.System, w.Organization, bob.ID, account.Agreement{}); err != nil {
				t.Fatal(err)
			}
			_, err := refresh(g, g.Tokens.Refresh)
			refused(t, "a refresh for somebody who left", err, "invalid_grant")
			if alive(t, w, g.Tokens.Access) {
				t.Error("a token outlived its user's membership")
			}
		})
		t.Run("its owner has left and nobody ended the tokens", func(t *testing.T) {
			carol := w.Person(t, "carol@example.com", account.RoleMember)
			g := w.Consented(t, carol, "x")
			exec(t, w, `delete from membership where user_id = $1`, carol.ID)
			_, err := refresh(g, g.Tokens.Refresh)
			refused(t, "a first refresh", err, "invalid_grant")
		})
		t.Run("its owner left between a refresh and its retry", func(t *testing.T) {
			dave := w.Person(t, "dave@example.com", account.RoleMember)
			g := w.Consented(t, dave, "x")
			if _, err := refresh(g, g.Tokens.Refresh); err != nil {
				t.Fatal(err)
			}
			exec(t, w, `delete from membership where user_id = $1`, dave.ID)
			_, err := refresh(g, g.Tokens.Refresh)
			refused(t, "a retry", err, "invalid_grant")
		})
	})
}

// Each of the two things that disabling changes is enough alone.
func TestEitherMarkOfADisabledAgentIsEnough(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		marked, ended := w.Consented(t, alice, "x"), w.Consented(t, alice, "y")
		exec(t, w, `update agent set disabled_at = 1 where id = $1`, marked.Identity.Agent())
		exec(t, w, `update token_family set revoked_at = 1 where agent_id = $1`, ended.Identity.Agent())
		if alive(t, w, marked.Tokens.Access) || alive(t, w, ended.Tokens.Access) {
			t.Error("an agent that is disabled, or whose tokens are revoked, authenticates")
		}
		_, err := w.Agents.Refresh(t.Context(), marked.Caller, agent.RefreshGrant{Refresh: marked.Tokens.Refresh})
		refused(t, "a refresh", err, "invalid_grant")
	})
}

// G3: exactly one successor, however many processes share one credential.
func TestRacingRefreshesGetOneSuccessor(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		g := w.Consented(t, alice, "x")
		won := race(t, func() (agent.Tokens, error) {
			return w.Agents.Refresh(t.Context(), g.Caller, agent.RefreshGrant{Refresh: g.Tokens.Refresh})
		})
		if len(won) != 20 {
			t.Errorf("%d of 20 racing refreshes got an answer, want all, with the same successor", len(won))
		}
		for _, tokens := range won {
			if !tokens.Refresh.Equal(won[0].Refresh) || !tokens.Access.Equal(won[0].Access) {
				t.Fatal("two racing refreshes got different successors")
			}
		}
		var n int
		if err := w.DB.Reader().QueryRowContext(t.Context(), `select count(*) from agent_token where kind = 'refresh'`).Scan(&n); err != nil || n != 2 {
			t.Errorf("got %d refresh tokens, want the first and its one successor; %v", n, err)
		}
		if !alive(t, w, won[0].Access) {
			t.Error("the successor does not authenticate")
		}
	})
}

// S9: nothing but the token itself authenticates.
func TestAlteredTokensAreRefused(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		g := w.Consented(t, alice, "x")
		text := string(g.Tokens.Access.Reveal())
		body := strings.TrimPrefix(text, "amb_at_")
		raw, err := base64.RawURLEncoding.DecodeString(body)
		if err != nil {
			t.Fatal(err)
		}
		hash := g.Tokens.Access.Hash()
		variants := []string{
			"", text + "A", text + "=", text + "==", text + " ", " " + text, text + "\n", "\n" + text, text + "\x00", text[:10] + "\n" + text[10:],
			strings.ToUpper(text), strings.ToLower(text), "AMB_AT_" + body, body, "amb_rt_" + body, "amb_cs_" + body, "sk_" + body,
			"amb_at_" + hex.EncodeToString(raw), "amb_at_" + base64.StdEncoding.EncodeToString(raw), "amb_at_" + base64.URLEncoding.EncodeToString(raw),
			"amb_at_" + base64.RawURLEncoding.EncodeToString(hash[:]), hex.EncodeToString(hash[:]), string(hash[:]), "Bearer " + text, text + "," + text,
			string(g.Tokens.Refresh.Reveal()), g.Code, string(g.Verifier.Reveal()), string(g.Identity.Agent()), g.Identity.Token(),
		}
		for i := range text {
			variants = append(variants, text[:i], text[i+1:])
			if c := text[i]; c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
				variants = append(variants, text[:i]+string(c^0x20)+text[i+1:])
			}
		}
		// The last character carries unused bits: other characters decode alike.
		for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
			if v := text[:len(text)-1] + string(c); v != text {
				variants = append(variants, v)
			}
		}
		for _, v := range variants {
			if v == text {
				continue
			}
			if _, err := w.Agents.Authenticate(t.Context(), secret.FromString(v)); !fault.Is(err, "invalid_token") {
				t.Errorf("%q: got %v, want invalid_token", v, err)
			}
		}
		if !alive(t, w, g.Tokens.Access) {
			t.Error("the token itself is refused")
		}
	})
}

// S1: a token for another audience is none of ours.
func TestAudience(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		caller := w.Caller(t, w.Client(t, agent.AuthNone))
		_, challenge := agenttest.PKCE()
		begin := func(resource string) error {
			_, err := w.Agents.BeginAuthorize(t.Context(), agent.AuthRequest{Client: agent.Client{ID: caller.Client()}, RedirectURI: agenttest.Redirect, Challenge: challenge, Resource: resource})
			return err
		}
		for _, ok := range []string{"", agenttest.PublicURL, agenttest.PublicURL + "/", agenttest.PublicURL + "/mcp", agenttest.PublicURL + "/mcp/"} {
			if err := begin(ok); err != nil {
				t.Errorf("%q: %v", ok, err)
			}
		}
		for _, bad := range []string{
			"https://evil.example/mcp", agenttest.PublicURL + "/mcp/x", agenttest.PublicURL + "//mcp", agenttest.PublicURL + "/mcp?x", agenttest.PublicURL + "/mcp#x",
			agenttest.PublicURL + ".evil.example/mcp", agenttest.PublicURL + "@evil.example/mcp", "https://localhost:7420/mcp", "http://127.0.0.1:7420/mcp",
			"http://localhost/mcp", agenttest.PublicURL + "/relay", "mcp", "*", " ",
		} {
			refused(t, bad, begin(bad), "invalid_target")
		}
		g := w.Consented(t, alice, "x")
		exec(t, w, `update token_family set audience = 'https://other.example/mcp' where agent_id = $1`, g.Identity.Agent())
		if alive(t, w, g.Tokens.Access) {
			t.Error("a token for another audience authenticates")
		}
	})
}

func exec(t *testing.T, w *agenttest.World, query string, args ...any) {
	t.Helper()
	err := w.DB.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
		_, err := tx.ExecContext(ctx, query, args...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// S8: what the database holds of a token cannot be used as one.
func TestOnlyHashesAreStored(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		g := w.Consented(t, alice, "x")
		next, err := w.Agents.Refresh(t.Context(), g.Caller, agent.RefreshGrant{Refresh: g.Tokens.Refresh})
		if err != nil {
			t.Fatal(err)
		}
		_, auth := w.Service(t, agent.Autonomous, alice.ID)
		dump := dumpAll(t, w)
		for name, v := range map[string]string{
			"access": string(g.Tokens.Access.Reveal()), "refresh": string(g.Tokens.Refresh.Reveal()), "code": g.Code,
			"successor": string(next.Refresh.Reveal()), "successor's access": string(next.Access.Reveal()), "client secret": string(auth.Secret.Reveal()),
		} {
			body := v[strings.LastIndex(v[:7], "_")+1:]
			raw, _ := base64.RawURLEncoding.DecodeString(body)
			for _, form := range [][]byte{[]byte(body), raw} {
				if len(form) > 0 && bytes.Contains(dump, form) {
					t.Errorf("the database holds the %s", name)
				}
			}
			if len(body) < 22 {
				t.Errorf("the %s has %d characters, fewer than 128 bits", name, len(body))
			}
		}
	})
}

// dumpAll reads every value of this room's tables, and of the audit.
func dumpAll(t *testing.T, w *agenttest.World) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, table := range []string{"oauth_client", "agent", "authorize_request", "authorization_code", "token_family", "agent_token", "audit_entry"} {
		rows, err := w.DB.Reader().QueryContext(t.Context(), "select * from "+table)
		if err != nil {
			t.Fatal(err)
		}
		columns, _ := rows.Columns()
		for rows.Next() {
			values := make([]any, len(columns))
			for i := range values {
				values[i] = new(any)
			}
			if err := rows.Scan(values...); err != nil {
				t.Fatal(err)
			}
			for _, v := range values {
				if b, ok := (*v.(*any)).([]byte); ok {
					out.Write(b)
				}
				fmt.Fprintln(&out, *v.(*any))
			}
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

func TestRevokeToken(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		ctx := t.Context()
		g, other := w.Consented(t, alice, "x"), w.Consented(t, alice, "y")
		for _, v := range []secret.Value{g.Tokens.Access, g.Tokens.Refresh, secret.FromString("nonsense"), {}} {
			if err := w.Agents.RevokeToken(ctx, other.Caller, v); err != nil {
				t.Errorf("revoking what is not one's own: %v, want success without effect", err)
			}
		}
		if !alive(t, w, g.Tokens.Access) {
			t.Fatal("another client revoked the token")
		}
		if err := w.Agents.RevokeToken(ctx, g.Caller, g.Tokens.Access); err != nil || alive(t, w, g.Tokens.Access) {
			t.Errorf("the access token is alive after revocation: %v", err)
		}
		next, err := w.Agents.Refresh(ctx, g.Caller, agent.RefreshGrant{Refresh: g.Tokens.Refresh})
		if err != nil {
			t.Fatalf("revoking an access token took the refresh token along: %v", err)
		}
		if err := w.Agents.RevokeToken(ctx, g.Caller, next.Refresh); err != nil || alive(t, w, next.Access) {
			t.Errorf("the family is alive after its refresh token was revoked: %v", err)
		}
		refused(t, "nobody", w.Agents.RevokeToken(ctx, agent.Caller{}, other.Tokens.Access), "invalid_client")
	})
}

func TestTokenBoundToASession(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		g := w.Consented(t, alice, "x")
		session := id.NewSession()
		issue := func(s agent.SessionGrant) (tokens agent.Tokens, err error) {
			err = w.DB.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) (err error) {
				tokens, err = w.Agents.IssueForSession(ctx, tx, s)
				return err
			})
			return tokens, err
		}
		grant := agent.SessionGrant{Agent: g.Identity.Agent(), Session: session, User: alice.ID, Expires: w.Clock.Now().Add(3 * time.Hour)}
		tokens, err := issue(grant)
		if err != nil {
			t.Fatal(err)
		}
		who, err := w.Agents.Authenticate(t.Context(), tokens.Access)
		if err != nil || who.Session() != session || who.User() != alice.ID || !tokens.Refresh.IsZero() || !who.Expires().Equal(grant.Expires) {
			t.Errorf("got %+v, %v, refresh token %v", who, err, !tokens.Refresh.IsZero())
		}
		ended, stranger := grant, grant
		ended.Expires = w.Clock.Now()
		stranger.User = id.NewUser()
		_, err = issue(ended)
		refused(t, "an ended session", err, "session_ended")
		_, err = issue(stranger)
		refused(t, "another user", err, "not_owner")

		w.Clock.Advance(3*time.Hour - time.Second)
		if !alive(t, w, tokens.Access) {
			t.Error("the token died before its session")
		}
		w.Clock.Advance(time.Second)
		if alive(t, w, tokens.Access) {
			t.Error("the token outlived its session")
		}

		grant.Expires = w.Clock.Now().Add(time.Hour)
		if tokens, err = issue(grant); err != nil {
			t.Fatal(err)
		}
		err = w.DB.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error { return w.Agents.RevokeSession(ctx, tx, session) })
		if err != nil || alive(t, w, tokens.Access) {
			t.Errorf("the token is alive after its session was revoked: %v", err)
		}
	})
}

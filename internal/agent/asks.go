package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// AsksType is the type of authorization details (RFC 9396) that ask for a session.
const AsksType = "ambit_session"

// sessionScope starts the scopes that ask for a session: session:PROVIDER:EFFECT.
const sessionScope = "session:"

const (
	maxAsked = 20
	maxWords = 2000
	// answerFor is how long after the latest decision a person can bring its answer
	// to the client.
	answerFor = 10 * time.Minute
)

// Asks is what a client that does nothing but the authorization code flow asks for with
// it: one session. It comes as authorization details or as scopes.
type Asks struct {
	Type      string          `json:"type"`
	Providers []string        `json:"providers,omitempty"`
	Tools     []string        `json:"tools,omitempty"`
	Effects   []policy.Effect `json:"effects,omitempty"`
	Minutes   int             `json:"minutes,omitempty"`
	Purpose   string          `json:"purpose,omitempty"` // in the client's own words
}

// AsksOfScope reads what scopes ask for; nil: an identity. A scope that is none of ours
// is left out, as ever.
func AsksOfScope(scope string) (*Asks, error) {
	a := Asks{Type: AsksType}
	type pair struct {
		provider string
		effect   policy.Effect
	}
	named := map[pair]bool{}
	for _, word := range strings.Fields(scope) {
		rest, ours := strings.CutPrefix(word, sessionScope)
		if !ours {
			continue
		}
		provider, effect, said := strings.Cut(rest, ":")
		e := policy.Effect(effect)
		if !said {
			e = policy.Read
		}
		if provider == "" || !slices.Contains(policy.Effects(), e) {
			return nil, fault.New(fault.Invalid, "invalid_scope", "A scope for a session is session:PROVIDER:EFFECT, and an effect is one of read, write, destructive, access.")
		}
		a.Providers, a.Effects = append(a.Providers, provider), append(a.Effects, e)
		named[pair{provider, e}] = true
	}
	if len(a.Providers) == 0 {
		return nil, nil
	}
	a.Providers, a.Effects = slices.Compact(slices.Sorted(slices.Values(a.Providers))), slices.Compact(slices.Sorted(slices.Values(a.Effects)))
	if len(named) != len(a.Providers)*len(a.Effects) { // nobody is asked for more than the client names
		return nil, fault.New(fault.Invalid, "invalid_scope", "The scopes ask for other effects of one provider than of another.").
			WithHint("Ask for the same of each, or name tools in authorization_details.")
	}
	if a.check() != nil {
		return nil, fault.New(fault.Invalid, "invalid_scope", fmt.Sprintf("The scopes name too much: at most %d providers.", maxAsked))
	}
	return &a, nil
}

// check holds the bounds that need no organization: its own rules count when it is asked.
func (a *Asks) check() error {
	bad := func(msg string) error { return fault.New(fault.Invalid, "invalid_authorization_details", msg) }
	switch {
	case a.Type != AsksType:
		return bad("The type of authorization details is " + AsksType + ".")
	case len(a.Providers) == 0 && len(a.Tools) == 0:
		return bad("The details name neither providers nor tools.")
	case len(a.Providers) > maxAsked || len(a.Tools) > 5*maxAsked:
		return bad(fmt.Sprintf("The details name too much: at most %d providers and %d tools.", maxAsked, 5*maxAsked))
	case a.Minutes < 0:
		return bad("minutes is a whole number from 1.")
	case len(a.Purpose) > maxWords:
		return bad(fmt.Sprintf("The purpose is over %d bytes.", maxWords))
	}
	for _, list := range [][]string{a.Providers, a.Tools} {
		for _, name := range list {
			if name == "" || len(name) > 200 {
				return bad("A provider or tool has no name, or a long one.")
			}
		}
	}
	for _, e := range a.Effects {
		if !slices.Contains(policy.Effects(), e) {
			return bad("An effect is one of read, write, destructive, access.")
		}
	}
	return nil
}

// document is the form that is stored and signed; empty: it asks for no session.
func (a *Asks) document() string {
	if a == nil {
		return ""
	}
	doc, _ := json.Marshal(a) // strings and numbers
	return string(doc)
}

func readAsks(doc string) (*Asks, error) {
	if doc == "" {
		return nil, nil
	}
	var a Asks
	if err := json.Unmarshal([]byte(doc), &a); err != nil {
		return nil, fmt.Errorf("reading what a client asks for: %w", err)
	}
	return &a, nil
}

// Digest names to whom the answer to a request goes: what the approval of a session
// that is asked for with it proves beside the session.
func (r AuthRequest) Digest() string {
	h := sha256.Sum256(crypt.Fields("ambit authorization request 1", string(r.ID), string(r.Client.ID), r.RedirectURI, r.State, r.Challenge, r.Resource))
	return hex.EncodeToString(h[:])
}

// Await keeps a request until its session must be decided, and a while for its answer.
func (s *Service) Await(ctx context.Context, tx *sqldb.Tx, flow id.Flow, until time.Time) error {
	const query = `update authorize_request set expires_at = $2 where id = $1 and decided_at = 0 and asks <> '' and expires_at > $3`
	err := one(tx.ExecContext(ctx, query, flow, sqldb.Micros(until.Add(answerFor)), sqldb.Micros(s.now())))
	if errors.Is(err, errStale) {
		return requestGone()
	}
	return sqldb.Wrap("keep an authorization request", err)
}

// Granted is what a session that was asked for at consent gives on one account, in the
// form in which the client is told (RFC 9396 §7).
type Granted struct {
	Asks
	Expires time.Time `json:"expires_at"`
}

// scopeOf is the same in scopes.
func scopeOf(granted []Granted) string {
	words := []string{Scope}
	for _, g := range granted {
		for _, p := range g.Providers {
			for _, e := range g.Effects {
				if word := sessionScope + p + ":" + string(e); !slices.Contains(words, word) {
					words = append(words, word)
				}
			}
		}
	}
	return strings.Join(words, " ")
}

// CodeForSession answers a request whose session runs: with a code for one token that is
// bound to the session and ends with it. It runs in the transaction that holds the
// session, and gives the redirect for the person's browser.
func (s *Service) CodeForSession(ctx context.Context, tx *sqldb.Tx, person account.Person, r AuthRequest, g SessionGrant, of []Granted) (redirect string, err error) {
	now := s.now()
	a, err := s.live(ctx, tx, g.Agent)
	if err != nil {
		return "", err
	}
	if a.Owner != person.User() || g.User != a.Owner || a.Client != r.Client.ID || g.Session == "" {
		return "", requestGone()
	}
	if err := decideRequest(ctx, tx, r.ID, now); err != nil {
		if errors.Is(err, errStale) {
			return "", requestGone()
		}
		return "", err
	}
	details, err := json.Marshal(of)
	if err != nil {
		return "", fmt.Errorf("encoding what was granted: %w", err)
	}
	redirect, err = s.newCode(ctx, tx, r, code{agent: a.ID, scope: scopeOf(of), session: g.Session, sessionEnds: g.Expires, details: string(details)}, now)
	if err != nil {
		return "", err
	}
	e := entry(a, "agent.answered", string(a.ID))
	e.Actor, e.Address, e.Session, e.User = account.ByPerson(person).Audit(), person.Address(), g.Session, g.User
	e.Detail = map[string]string{"client": string(r.Client.ID), "redirects_to": r.Host(), "flow": string(r.ID)}
	s.audit.Append(tx, e)
	return redirect, nil
}

// dropCodes makes the codes of a session that ends worth nothing. A code that is being
// exchanged has its token when this is through, or never gets one.
func dropCodes(ctx context.Context, tx *sqldb.Tx, session id.Session, now time.Time) error {
	// As used, whatever the time: the clock of the node that exchanges it may be behind.
	const query = `update authorization_code set used_at = $2 where session_id = $1 and used_at = 0`
	_, err := tx.ExecContext(ctx, query, session, sqldb.Micros(now))
	return sqldb.Wrap("end the codes of a session", err)
}

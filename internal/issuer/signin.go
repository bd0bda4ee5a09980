package issuer

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

const (
	maxMetadata  = 128 << 10
	metadataFor  = time.Hour
	maxAnswer    = 128 << 10 // of a token endpoint
	maxSubject   = 255       // OpenID Connect Core §2
	maxIssuerLen = 500
)

// Metadata is what an OpenID provider says about itself (OpenID Connect Discovery).
type Metadata struct {
	Issuer        string   `json:"issuer"`
	Authorization string   `json:"authorization_endpoint"`
	Token         string   `json:"token_endpoint"`
	Keys          string   `json:"jwks_uri"`
	Methods       []string `json:"token_endpoint_auth_methods_supported"`
	NamesItself   bool     `json:"authorization_response_iss_parameter_supported"` // RFC 9207
}

// Discover reads an issuer's metadata: at its own address, about exactly this
// issuer, and naming only places that may be reached.
func (r *Reader) Discover(ctx context.Context, issuer string) (Metadata, error) {
	if err := r.CheckIssuer(ctx, issuer); err != nil {
		return Metadata{}, err
	}
	address := strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
	got, err := r.look(ctx, "metadata", address, metadataFor, maxMetadata, func(body []byte) (keySet, error) {
		m, err := readMetadata(body)
		if err == nil && m.Issuer != issuer {
			err = fault.New(fault.Invalid, "issuer_mismatch", "The metadata there is another issuer's.").WithHint("Name the issuer exactly as it names itself, with or without a slash at its end.")
		}
		for _, place := range []string{m.Authorization, m.Token, m.Keys} {
			if err == nil && place != "" {
				err = r.Check(ctx, place)
			}
		}
		if err == nil && m.Keys == "" {
			err = fault.New(fault.Invalid, "issuer_unusable", "The issuer does not say where its keys are.")
		}
		return keySet{metadata: m}, err
	})
	return got.metadata, err
}

// WellFormed judges an issuer's identifier by itself.
func WellFormed(issuer string) bool {
	u, err := url.Parse(issuer)
	return err == nil && len(issuer) <= maxIssuerLen && u.String() == issuer && u.Host != "" && u.User == nil && u.RawQuery == "" && !u.ForceQuery && !strings.Contains(issuer, "#")
}

// CheckIssuer judges an issuer's identifier before it is kept: whether it may be
// reached too.
func (r *Reader) CheckIssuer(ctx context.Context, issuer string) error {
	if !WellFormed(issuer) {
		return fault.New(fault.Invalid, "invalid_issuer", "An issuer is an https URL without query, fragment or user name.")
	}
	return r.Check(ctx, issuer)
}

func readMetadata(body []byte) (Metadata, error) {
	var m Metadata
	bad := fault.New(fault.Invalid, "issuer_unusable", "There is no OpenID Connect metadata at the issuer's address.").
		WithHint("It lies below the issuer, at /.well-known/openid-configuration.")
	if strictjson.Check(body, strictjson.Limits{Bytes: maxMetadata, Depth: 8, Items: 5000}) != nil || json.Unmarshal(body, &m) != nil {
		return Metadata{}, bad
	}
	return m, nil
}

// Party is us at an OpenID provider: a client of it.
type Party struct {
	Issuer   string
	ClientID string
	Secret   secret.Value // empty: a public client, with PKCE only
	Redirect string
}

// Ask is one authorization request.
type Ask struct {
	State, Nonce, Challenge string
	Fresh                   bool // the person must prove anew who they are
}

// AuthorizationURL is where a browser goes to sign in (OpenID Connect Core §3.1.2.1).
func (p Party) AuthorizationURL(m Metadata, a Ask) (string, error) {
	u, err := url.Parse(m.Authorization)
	// It goes to a browser, which follows more than the web's addresses.
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || m.Token == "" {
		return "", fault.New(fault.Unavailable, "issuer_unusable", "The identity provider does not say where people sign in.")
	}
	q := u.Query()
	for name, value := range map[string]string{"response_type": "code", "client_id": p.ClientID, "redirect_uri": p.Redirect, "scope": "openid profile",
		"state": a.State, "nonce": a.Nonce, "code_challenge": a.Challenge, "code_challenge_method": "S256"} {
		q.Set(name, value)
	}
	if a.Fresh {
		q.Set("prompt", "login")
		q.Set("max_age", "0")
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// Identity is who signed in, as an issuer says.
type Identity struct {
	Issuer, Subject string
	Name            string    // as the issuer has it, cleaned; may be empty
	AuthTime        time.Time // when they proved it; zero if the issuer does not say
}

// Redeem turns an authorization code into who signed in.
func (r *Reader) Redeem(ctx context.Context, p Party, m Metadata, code, verifier secret.Value, a Ask) (Identity, error) {
	req, err := p.exchange(m, code, verifier)
	if err != nil {
		return Identity{}, err
	}
	resp, err := r.outbound.Do(ctx, outbound.Bound{Bases: []string{req.URL.Scheme + "://" + req.URL.Host}}, req, outbound.Limits{Body: maxAnswer, Timeout: 2 * fetchTime})
	if err != nil {
		return Identity{}, err
	}
	var answer struct {
		IDToken string `json:"id_token"`
		Error   string `json:"error"`
	}
	if strictjson.Check(resp.Body, strictjson.Limits{Bytes: maxAnswer, Depth: 8, Items: 5000}) != nil || json.Unmarshal(resp.Body, &answer) != nil {
		return Identity{}, refused("answer")
	}
	if resp.Status != http.StatusOK || answer.IDToken == "" {
		if answer.Error == "invalid_client" || answer.Error == "unauthorized_client" {
			return Identity{}, fault.New(fault.Unavailable, "issuer_refused_client", "The identity provider does not accept this server as its client.").
				WithHint("Who set it up checks client id, secret and the redirect address there.")
		}
		return Identity{}, refused("code")
	}
	return r.identify(ctx, p, m, secret.FromString(answer.IDToken), a)
}

// refused says that an issuer's word was not taken. why is for the audit only.
func refused(why string) *fault.Error {
	return fault.New(fault.Denied, "id_token_refused", "The identity provider's answer was not accepted.").WithHint("Start the sign-in again.").WithCause(Refusal(why))
}

// Refusal is, for the audit, why an issuer's word was not taken: which part of it did
// not hold, or the error that it named.
type Refusal string

func (r Refusal) Error() string { return "not taken for its " + string(r) }

// identify checks an ID token (OpenID Connect Core §3.1.3.7): signed by the issuer's
// keys, of this issuer, for us alone, now, and the answer to this very request.
func (r *Reader) identify(ctx context.Context, p Party, m Metadata, raw secret.Value, a Ask) (Identity, error) {
	t, err := Read(raw)
	if err != nil {
		return Identity{}, refused("token")
	}
	var more struct {
		Nonce    string `json:"nonce"`
		Party    string `json:"azp"`
		AuthTime int64  `json:"auth_time"`
		Name     string `json:"name"`
	}
	claims, signed, err := r.ByKeysAt(ctx, m.Keys, t, &more)
	if fault.KindOf(err) == fault.Invalid { // what lies there is wrong, and no sign-in is to blame
		err = fault.New(fault.Unavailable, "issuer_unusable", "The identity provider's keys cannot be read.").WithCause(err)
	}
	if err != nil {
		return Identity{}, err
	}
	now := r.now()
	switch {
	case !signed:
		return Identity{}, refused("signature")
	case claims.Issuer != p.Issuer:
		return Identity{}, refused("issuer")
	case !slices.Contains(claims.Audience, p.ClientID):
		return Identity{}, refused("audience")
	case more.Party != "" && more.Party != p.ClientID, len(claims.Audience) > 1 && more.Party == "":
		return Identity{}, refused("authorized party")
	case claims.IssuedAt == nil || !Current(claims, now):
		return Identity{}, refused("time")
	case a.Nonce == "" || subtle.ConstantTimeCompare([]byte(more.Nonce), []byte(a.Nonce)) != 1:
		return Identity{}, refused("nonce")
	case claims.Subject == "" || len(claims.Subject) > maxSubject || strings.ContainsFunc(claims.Subject, func(c rune) bool { return c < ' ' || c == 0x7f || c == unicode.ReplacementChar }):
		return Identity{}, refused("subject")
	}
	who := Identity{Issuer: claims.Issuer, Subject: claims.Subject, Name: cleanName(more.Name)}
	if more.AuthTime > 0 {
		who.AuthTime = time.Unix(more.AuthTime, 0).UTC()
	}
	return who, nil
}

// cleanName keeps what is printable of a name that somebody else gives a person.
func cleanName(s string) string {
	runes := []rune(strings.TrimSpace(strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) || c == unicode.ReplacementChar {
			return -1
		}
		return c
	}, s)))
	return strings.TrimSpace(string(runes[:min(len(runes), 80)]))
}

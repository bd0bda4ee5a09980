package credential

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
)

const (
	assertionLife = 3 * time.Minute  // what Salesforce takes at most
	tokenLife     = 50 * time.Minute // Snowflake takes an hour
	appLife       = 9 * time.Minute  // GitHub takes ten
	skew          = time.Minute      // that a provider's clock may be behind ours
)

func badKey(message string) error {
	return fault.New(fault.Invalid, codeUnusable, message).WithHint("Give the key as PEM, PKCS #8 or PKCS #1, without a passphrase.")
}

// signer reads a private key. What is wrong with it is said without a byte of it.
func signer(pemText secret.Value) (crypto.Signer, error) {
	block, _ := pem.Decode(pemText.Reveal())
	switch {
	case block == nil:
		return nil, badKey("The private key is not PEM.")
	case strings.Contains(block.Type, "ENCRYPTED") || block.Headers["DEK-Info"] != "":
		return nil, badKey("The private key has a passphrase.")
	}
	defer clear(block.Bytes)
	var key any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	s, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return nil, badKey("The private key cannot be read.")
	}
	return s, nil
}

// method is how a key signs; the record names it, and the key must be of its kind.
func method(name string, key crypto.Signer) (jwt.SigningMethod, error) {
	var m jwt.SigningMethod
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if k.N.BitLen() < 2048 {
			return nil, badKey("The private key has under 2048 bits.")
		}
		m = jwt.SigningMethodRS256
	case *ecdsa.PrivateKey:
		if k.Curve.Params().BitSize == 256 {
			m = jwt.SigningMethodES256
		}
	case ed25519.PrivateKey:
		m = jwt.SigningMethodEdDSA
	}
	if m == nil || m.Alg() != name {
		return nil, badKey("The private key is not one for " + name + ".")
	}
	return m, nil
}

// sign makes the JWT that the record describes, and says how long it lives. Its
// audience is one text, never a list (threats.md O6).
func sign(o order, now time.Time, life time.Duration) (secret.Value, time.Duration, error) {
	m := o.record.Mint
	if m == nil {
		return secret.Value{}, 0, badKey("The provider record does not say how a token is made.")
	}
	if m.Lifetime > 0 {
		life = time.Duration(m.Lifetime) * time.Second
	}
	key, err := signer(o.have.values[provider.FieldPrivateKey])
	if err != nil {
		return secret.Value{}, 0, err
	}
	parts := map[string]secret.Value{}
	for name, v := range o.have.values {
		parts[name] = v
	}
	if parts[provider.PartFingerprint], err = fingerprint(key); err != nil {
		return secret.Value{}, 0, err
	}
	claims := jwt.MapClaims{"iat": now.Add(-skew).Unix(), "exp": now.Add(life).Unix(), "jti": rand.Text()}
	for name, format := range m.Claims {
		if text, ok := provider.Fill(format, parts); ok { // a part that may be left out takes its claim along
			claims[name] = text
		}
	}
	if len(m.Scopes) > 0 {
		claims["scope"] = strings.Join(m.Scopes, " ")
	}
	kid, _ := provider.Fill(m.KeyID, parts)
	token, err := signClaims(key, m.Algorithm, claims, kid)
	return token, life, err
}

// signApp makes the JWT by which a GitHub App says who it is.
func signApp(o order, now time.Time) (secret.Value, error) {
	key, err := signer(o.have.values[provider.FieldPrivateKey])
	if err != nil {
		return secret.Value{}, err
	}
	app := string(o.have.values[provider.FieldAppID].Reveal())
	return signClaims(key, "RS256", jwt.MapClaims{"iss": app, "iat": now.Add(-skew).Unix(), "exp": now.Add(appLife).Unix()}, "")
}

func signClaims(key crypto.Signer, algorithm string, claims jwt.MapClaims, kid string) (secret.Value, error) {
	how, err := method(algorithm, key)
	if err != nil {
		return secret.Value{}, err
	}
	t := jwt.NewWithClaims(how, claims)
	if kid != "" {
		t.Header["kid"] = kid
	}
	text, err := t.SignedString(key)
	if err != nil {
		return secret.Value{}, badKey("The private key does not sign.")
	}
	return secret.FromString(text), nil
}

// fingerprint is the SHA-256 of a public key, as Snowflake writes it.
func fingerprint(key crypto.Signer) (secret.Value, error) {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return secret.Value{}, badKey("The private key cannot be read.")
	}
	sum := sha256.Sum256(der)
	return secret.FromString("SHA256:" + base64.StdEncoding.EncodeToString(sum[:])), nil
}

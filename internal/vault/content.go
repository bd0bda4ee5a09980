package vault

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Content says how the bytes of a value are to be understood.
type Content string

// The kinds of content. A certificate is PEM: one certificate or a chain with
// the leaf first, and where there is one its private key.
const (
	Text        Content = "text" // UTF-8
	Binary      Content = "binary"
	Certificate Content = "certificate"
)

// Value is what a version of a secret holds.
type Value struct {
	Secret  secret.Value
	Content Content // empty is Text
	// ExpiresAt is from when the value is not handed out any more; zero: never. A
	// certificate without it gets its own end.
	ExpiresAt time.Time
	// RotateBy is when somebody should have stored a newer value; zero: never.
	RotateBy time.Time
}

// checked is v with everything decided.
func (v Value) checked() (Value, error) {
	if v.Content == "" {
		v.Content = Text
	}
	invalid := func(why string) *fault.Error { return fault.New(fault.Invalid, "invalid_value", why) }
	if n := v.Secret.Len(); n > MaxValue {
		return Value{}, fault.New(fault.TooLarge, "value_too_large", fmt.Sprintf("The value has over %d bytes.", MaxValue))
	}
	switch v.Content {
	case Text:
		if !isText(v.Secret) {
			return Value{}, invalid("The value is not UTF-8.").WithHint("Store it as binary.")
		}
	case Binary:
	case Certificate:
		end, ok, fits := certificateEnd(v.Secret)
		if !ok {
			return Value{}, invalid("The value is not a certificate in PEM.").WithHint("The certificate itself comes first; its chain and its key may follow.")
		}
		if !fits {
			return Value{}, invalid("The private key is not that of the certificate.").WithHint("The first certificate is that of the key; its chain follows.")
		}
		if v.ExpiresAt.IsZero() {
			v.ExpiresAt = end
		}
	default:
		return Value{}, invalid("The content is text, binary or certificate.")
	}
	for _, t := range []time.Time{v.ExpiresAt, v.RotateBy} {
		if !t.IsZero() && (t.Year() < 2000 || t.Year() > 9999) {
			return Value{}, fault.New(fault.Invalid, "invalid_time", "A date lies between the years 2000 and 9999.")
		}
	}
	v.ExpiresAt, v.RotateBy = micro(v.ExpiresAt), micro(v.RotateBy)
	return v, nil
}

// micro is t as the database keeps it.
func micro(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}

// isText and certificateEnd look inside a value: what comes in must be what it is
// said to be, and a certificate says itself how long it lasts.
func isText(v secret.Value) bool { return utf8.Valid(v.Reveal()) }

// certificateEnd reads the first certificate. fits is false if there is a private key
// beside it that is another's; one of a form that is not known may be its own.
func certificateEnd(v secret.Value) (end time.Time, ok, fits bool) {
	var leaf *x509.Certificate
	var keys []crypto.PublicKey
	for block, rest := pem.Decode(v.Reveal()); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" { // its key may stand before it
			if k := publicKey(block); k != nil {
				keys = append(keys, k)
			}
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		switch {
		case leaf != nil: // of the chain
		case err != nil:
			return time.Time{}, false, false
		default:
			leaf = c
		}
	}
	if leaf == nil {
		return time.Time{}, false, false
	}
	for _, k := range keys {
		if same, ok := k.(interface{ Equal(crypto.PublicKey) bool }); ok && !same.Equal(leaf.PublicKey) {
			return leaf.NotAfter, true, false
		}
	}
	return leaf.NotAfter, true, true
}

// publicKey is that of a private key in PEM; nil: it is none that can be read.
func publicKey(block *pem.Block) crypto.PublicKey {
	for _, parse := range []func([]byte) (any, error){
		x509.ParsePKCS8PrivateKey,
		func(der []byte) (any, error) { return x509.ParsePKCS1PrivateKey(der) },
		func(der []byte) (any, error) { return x509.ParseECPrivateKey(der) },
	} {
		if k, err := parse(block.Bytes); err == nil {
			if s, ok := k.(crypto.Signer); ok {
				return s.Public()
			}
		}
	}
	return nil
}

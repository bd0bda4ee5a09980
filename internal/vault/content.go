package vault

import (
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
		end, ok := certificateEnd(v.Secret)
		if !ok {
			return Value{}, invalid("The value is not a certificate in PEM.").WithHint("The certificate itself comes first; its chain and its key may follow.")
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

func certificateEnd(v secret.Value) (end time.Time, ok bool) {
	rest := v.Reveal()
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return time.Time{}, false
		}
		if block.Type != "CERTIFICATE" {
			continue // its key may stand before it
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return time.Time{}, false
		}
		return c.NotAfter, true
	}
}

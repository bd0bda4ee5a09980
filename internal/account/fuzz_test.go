package account_test

import (
	"net/url"
	"strings"
	"testing"
	"unicode"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// G8: spellings of one address are one address.
func TestCanonicalEmail(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"mia@example.com":       "mia@example.com",
		" Mia@Example.COM\n":    "mia@example.com",
		"ｍｉａ@ｅｘａｍｐｌｅ．ｃｏｍ":       "mia@example.com",
		"mia@\u212Aelvin.com":   "mia@kelvin.com",
		"o\u0308l@example.com":  "\u00f6l@example.com",
		"\u00d6L@example.com":   "\u00f6l@example.com",
		"ΟΔΟΣ@example.com":      "οδοσ@example.com",
		"οδος@example.com":      "οδοσ@example.com",
		"stra\u00dfe@a.example": "strasse@a.example",
	} {
		if got, err := account.CanonicalEmail(in); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "mia", "@", "mia@", "@example.com", "a@b@c", "mi a@example.com", "mia@example.com\x00", "mia\u200b@example.com", "\xff@example.com",
		"mia\u202e@example.com", strings.Repeat("a", 250) + "@example.com"} {
		if got, err := account.CanonicalEmail(bad); !fault.Is(err, "invalid_email") {
			t.Errorf("%q: got %q, %v", bad, got, err)
		}
	}
}

func FuzzCanonicalEmail(f *testing.F) {
	for _, s := range []string{"mia@example.com", "İ@ǅ.com", "ﬃ@ẞ", "\u0345@\u1fb4", "a@b@c", " \u00a0x@y", "\u1e9b\u0323@x", "ΐ@ΐ"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := account.CanonicalEmail(s)
		if err != nil {
			return
		}
		again, err := account.CanonicalEmail(c)
		if err != nil || again != c {
			t.Errorf("%q became %q, which becomes %q, %v", s, c, again, err)
		}
		for _, same := range []string{" " + s, s + "\n", strings.ToUpper(c), strings.ToTitle(c)} {
			// Upper case is not always undone, but where it is an address it is
			// the same one or folds to itself.
			if got, err := account.CanonicalEmail(same); err == nil && got != c && strings.EqualFold(same, c) && isASCII(c) {
				t.Errorf("%q and %q are two addresses: %q, %q", s, same, c, got)
			}
		}
		if strings.ContainsFunc(c, unicode.IsSpace) || strings.Count(c, "@") != 1 {
			t.Errorf("%q became %q", s, c)
		}
	})
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > unicode.MaxASCII }) < 0
}

// Whatever a browser sends as a credential is refused, not a panic.
func FuzzCredential(f *testing.F) {
	db := sqldbtest.Open(f, sqldb.SQLite)
	w := fuzzWorld(f, db)
	owner := accounttest.Owner(f, w)
	digest := [32]byte{1}
	f.Add(owner.Proof(f, digest).Assertion)
	options, err := w.Challenge(f.Context(), owner.Person, digest)
	check(f, err)
	f.Add(options)
	_, options, err = w.BeginAddPasskey(f.Context(), owner.Person, owner.Unlock(f))
	check(f, err)
	cred, err := accounttest.New(publicURL).Register(options)
	check(f, err)
	f.Add(cred)
	f.Add([]byte(`{"id":"AA","rawId":"AA","type":"public-key","response":{"clientDataJSON":"e30","authenticatorData":"AA","signature":""}}`))
	f.Add([]byte(`{"id":"AA","rawId":"AA","type":"public-key","response":{"clientDataJSON":"e30","attestationObject":"o2NmbXRkbm9uZWdhdHRTdG10oGhhdXRoRGF0YUA"}}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		if w.ReadCredential(doc) {
			t.Errorf("accepted %q", doc)
		}
		if err := account.VerifyEvidence(doc, digest, publicURL); err == nil {
			t.Errorf("evidence %q", doc)
		}
	})
}

func TestPublicURL(t *testing.T) {
	t.Parallel()
	db := sqldbtest.Open(t, sqldb.SQLite)
	for raw, want := range map[string]string{
		"http://localhost:7420":     "http://localhost:7420",
		"http://localhost:7420/":    "http://localhost:7420",
		"HTTPS://Ambit.Example:443": "https://ambit.example",
		"https://ambit.example":     "https://ambit.example",
		"http://ambit.example:8080": "http://ambit.example:8080",
		"http://127.0.0.1:7420":     "",
		"http://":                   "",
		"ftp://localhost":           "",
		"/":                         "",
	} {
		u, err := url.Parse(raw)
		check(t, err)
		s, err := withURL(t, db, u)
		if (err != nil) != (want == "") || err == nil && s.Origin() != want {
			t.Errorf("%s: got %v, want %q", raw, err, want)
		}
	}
}

package pkcs11

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring/pkcs11/wire"
)

const maxURI = 2048

func bad(what string) *fault.Error {
	return fault.New(fault.Invalid, "root_key_uri", "The address of the HSM's key is not one: "+what+".").
		WithHint("For example pkcs11:token=ambit;object=root?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/ambit/hsm.pin")
}

// attributes that RFC 7512 defines, and how long their values may be in bytes. The
// standard gives the fields of a token their lengths (PKCS#11 v2.40, §3.2).
var (
	pathAttributes  = map[string]int{"token": 32, "serial": 16, "manufacturer": 32, "model": 16, "slot-id": 20, "object": 128, "id": 64, "type": 16}
	queryAttributes = map[string]int{"module-path": 1024, "pin-source": 1024}
	pathPlain       = regexp.MustCompile(`^([A-Za-z0-9._~:\[\]@!$'()*+,=&-]|%[0-9A-Fa-f]{2})*$`)
	queryPlain      = regexp.MustCompile(`^([A-Za-z0-9._~:\[\]@!$'()*+,=/?|-]|%[0-9A-Fa-f]{2})*$`)
)

// Parse reads a URI of RFC 7512 that names one secret key, the library to use and
// the file of the PIN. Attributes that it does not know are refused, since what
// they would narrow is not narrowed; so is a PIN in the URI.
func Parse(uri string) (wire.Target, error) {
	rest, ok := strings.CutPrefix(uri, "pkcs11:")
	if !ok || len(uri) > maxURI {
		return wire.Target{}, bad("it does not begin with pkcs11: or is too long")
	}
	path, query, _ := strings.Cut(rest, "?")
	p, err := split(path, ";", pathPlain, pathAttributes)
	if err != nil {
		return wire.Target{}, err
	}
	q, err := split(query, "&", queryPlain, queryAttributes)
	if err != nil {
		return wire.Target{}, err
	}
	t := wire.Target{Token: p["token"], Serial: p["serial"], Manufacturer: p["manufacturer"], Model: p["model"], Object: p["object"], Module: q["module-path"]}
	if v, ok := p["id"]; ok {
		t.ID = []byte(v)
	}
	if v, ok := p["slot-id"]; ok {
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil || strconv.FormatUint(n, 10) != v {
			return wire.Target{}, bad("slot-id is a number")
		}
		slot := uint(n)
		t.Slot = &slot
	}
	t.PINFile, ok = strings.CutPrefix(q["pin-source"], "file:")
	if rest, found := strings.CutPrefix(t.PINFile, "//"); found { // file:///path
		t.PINFile = rest
	}
	kind, typed := p["type"]
	switch {
	case t.Object == "" || t.Token == "" && t.Serial == "":
		return wire.Target{}, bad("it must name the token (or its serial) and the object")
	case typed && kind != "secret-key":
		return wire.Target{}, bad("the type of the key is secret-key")
	case !cleanPath(t.Module):
		return wire.Target{}, bad("module-path is the full path of the library")
	case !ok || !cleanPath(t.PINFile):
		return wire.Target{}, bad("pin-source is file: and the full path of the file with the PIN")
	}
	return t, nil
}

func cleanPath(p string) bool { return filepath.IsAbs(p) && filepath.Clean(p) == p }

// split reads attributes, each at most once and none empty.
func split(text, separator string, plain *regexp.Regexp, known map[string]int) (map[string]string, error) {
	found := map[string]string{}
	if text == "" {
		return found, nil
	}
	for part := range strings.SplitSeq(text, separator) {
		name, raw, ok := strings.Cut(part, "=")
		limit := known[name]
		_, twice := found[name]
		switch {
		case name == "pin-value":
			return nil, bad("it holds a PIN, which belongs into the file that pin-source names")
		case !ok || limit == 0 || twice:
			return nil, bad("each of its attributes may come once, and only those that are listed in the documentation")
		case !plain.MatchString(raw):
			return nil, bad("a value has a character that must be escaped")
		}
		value, err := url.PathUnescape(raw)
		if err != nil || value == "" || len(value) > limit || name != "id" && !printable(value) {
			return nil, bad("the value of an attribute is empty, too long, or no text")
		}
		found[name] = value
	}
	return found, nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// name gives the key's ref, from what identifies it and not the way to it.
func name(t wire.Target) string {
	sum := sha256.Sum256(crypt.Fields("ambit pkcs11 ref 1", t.Token, t.Serial, t.Manufacturer, t.Model, t.Object))
	short := strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("._-", r)) {
			return r
		}
		return '_'
	}, t.Object)
	return "pkcs11:" + short[:min(len(short), 40)] + ":" + hex.EncodeToString(sum[:8])
}

func location(t wire.Target) string {
	token := t.Token
	if token == "" {
		token = "with the serial number " + t.Serial
	}
	return "the key " + t.Object + " on the token " + token + ", by " + t.Module
}

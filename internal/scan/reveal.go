package scan

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"strings"

	"github.com/ambit-dev/ambit/internal/secret"
)

// This file is the only one of the room that looks into values once they are
// found, beside verify.go, which sends one to its provider.

// tail is how many characters of a value are shown, and tailOf how long it must be
// for that to give nothing away.
const (
	tail   = 4
	tailOf = 24
)

// mask is what may be shown of a value: the end of one that is long and random.
func mask(v secret.Value, weak bool) string {
	b := v.Reveal()
	if weak || len(b) < tailOf || strings.ContainsAny(string(b), " \n") {
		return "••••••"
	}
	for _, c := range b[len(b)-tail:] {
		if c <= ' ' || c > '~' {
			return "••••••"
		}
	}
	return "…" + string(b[len(b)-tail:])
}

// fingerprint names equal values alike, under a key, and counts them.
func fingerprint(list []Finding, key []byte) {
	count := map[string]int{}
	for i := range list {
		mac := hmac.New(sha256.New, key)
		mac.Write(list[i].Value.Reveal())
		list[i].Fingerprint = hex.EncodeToString(mac.Sum(nil)[:12])
		list[i].Masked = mask(list[i].Value, list[i].weak)
		count[list[i].Fingerprint]++
	}
	for i := range list {
		list[i].Copies = count[list[i].Fingerprint]
	}
}

// scrub takes every value that was found out of the texts of a report: a key path or
// a file's name may hold one.
func scrub(list []Finding, skips []Skip) {
	var pairs []string
	seen := map[string]bool{}
	for _, f := range list {
		for _, form := range append(f.also[:len(f.also):len(f.also)], f.Value) {
			if v := string(form.Reveal()); len(v) >= 4 && !seen[v] {
				seen[v] = true
				pairs = append(pairs, v, "••••••")
			}
		}
	}
	if len(pairs) == 0 {
		return
	}
	r := strings.NewReplacer(pairs...)
	hit := func(s string) string {
		if s == "" {
			return s
		}
		return r.Replace(s)
	}
	for i := range list {
		f := &list[i]
		f.Key, f.Opens, f.Reason, f.Advice = hit(f.Key), hit(f.Opens), hit(f.Reason), hit(f.Advice)
		if !f.weak || len(f.Value.Reveal()) >= 8 { // a short password may be a common word of paths
			f.File = hit(f.File)
		}
	}
	for i := range skips {
		skips[i].Path = hit(skips[i].Path)
	}
}

// holds reports whether a text has the value in it.
func holds(text []byte, v secret.Value) bool {
	return len(v.Reveal()) > 0 && strings.Contains(string(text), string(v.Reveal()))
}

// within reports whether one of two values is a part of the other.
func within(a, b secret.Value) bool {
	x, y := string(a.Reveal()), string(b.Reveal())
	return strings.Contains(x, y) || strings.Contains(y, x) && len(x) >= 8
}

// awsOpens says what the form of an access key id tells.
func awsOpens(id secret.Value, otherwise string) string {
	if strings.HasPrefix(string(id.Reveal()), "ASIA") {
		return "temporary credentials of AWS"
	}
	return otherwise
}

// addValue adds a finding's value to a keyed hash.
func addValue(mac hash.Hash, f Finding) { mac.Write(f.Value.Reveal()) }

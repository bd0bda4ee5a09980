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
// found, beside verify.go and revoke.go, which send one to its provider.

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

// fingerprint names equal values alike, under a key.
func fingerprint(list []Finding, key []byte) {
	for i := range list {
		mac := hmac.New(sha256.New, key)
		mac.Write(list[i].Value.Reveal())
		list[i].Fingerprint = hex.EncodeToString(mac.Sum(nil)[:12])
		list[i].Masked = mask(list[i].Value, list[i].weak)
	}
}

// copies counts the places of equal values.
func copies(list []Finding) {
	count := map[string]int{}
	for i := range list {
		count[list[i].Fingerprint]++
	}
	for i := range list {
		list[i].Copies = count[list[i].Fingerprint]
	}
}

// hider takes credentials that have a form of their own out of paths and names, whether
// they were found in a file or not.
type hider struct {
	r    *reader
	done map[string]string
}

func newHider(rules *ruleSet) *hider {
	return &hider{&reader{s: &scanner{rules: rules}}, map[string]string{}}
}

// anyHider is one for callers that have no rules at hand; without rules it leaves no text.
func anyHider() *hider {
	rules, err := loadRules()
	if err != nil {
		return &hider{}
	}
	return newHider(rules)
}

func (h *hider) hide(s string) string {
	if h == nil || len(s) < 12 { // nil: it was done before
		return s
	}
	if h.r == nil {
		return hiddenText
	}
	if out, ok := h.done[s]; ok {
		return out
	}
	out := s
	d := h.r.doc("")
	d.text(&unit{text: []byte(s), line: 1, flat: true, mode: forms})
	for _, f := range d.found {
		out = strings.ReplaceAll(out, string(f.Value.Reveal()), hiddenText)
	}
	h.done[s] = out
	return out
}

// hidden is a path as messages may have it.
func hidden(path string) string { return seen(anyHider().path(path)) }

// words takes out of what is said of a finding what its file had no business to say.
func (h *hider) words(list []Finding) {
	for i := range list {
		f := &list[i]
		f.Title, f.Opens = seen(h.hide(f.Title)), seen(h.name(f.Opens))
	}
}

// scrub takes every value that was found out of the texts of a report, and whatever else
// in a path or the name of a key is a credential.
func scrub(list []Finding, skips []Skip, h *hider) {
	defer func() { // last: a value that was found may hold any sign
		for i := range list {
			f := &list[i]
			f.File, f.Key, f.Exposure.Owner = seen(f.File), seen(f.Key), seen(f.Exposure.Owner)
		}
		for i := range skips {
			skips[i].Path = seen(skips[i].Path)
		}
	}()
	for i := range list {
		list[i].File, list[i].Key = h.path(list[i].File), h.name(list[i].Key)
	}
	for i := range skips {
		skips[i].Path = h.path(skips[i].Path)
	}
	var pairs []string
	known := map[string]bool{}
	for _, f := range list {
		for _, form := range append(f.also[:len(f.also):len(f.also)], f.Value) {
			if v := string(form.Reveal()); len(v) >= 4 && !known[v] {
				known[v] = true
				pairs = append(pairs, v, hiddenText)
				if marked := seen(v); marked != v { // as names and paths have it
					pairs = append(pairs, marked, hiddenText)
				}
				for _, e := range escapedForms(v) {
					pairs = append(pairs, e, hiddenText)
				}
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
		f.Title, f.Key, f.Opens, f.Reason, f.Advice = hit(f.Title), hit(f.Key), hit(f.Opens), hit(f.Reason), hit(f.Advice)
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

// awsTemporary is what an AWS key opens that ends by itself.
const awsTemporary = "temporary credentials of AWS"

// awsAccount is what an AWS secret opens.
const awsAccount = "the account of the access key beside it"

// awsOpens says what the form of an access key id tells.
func awsOpens(id secret.Value, otherwise string) string {
	if strings.HasPrefix(string(id.Reveal()), "ASIA") {
		return awsTemporary
	}
	if otherwise == awsAccount && strings.HasPrefix(string(id.Reveal()), "AKIA") {
		return "permanently, " + otherwise
	}
	return otherwise
}

// addValue adds a finding's value to a keyed hash.
func addValue(mac hash.Hash, f Finding) { mac.Write(f.Value.Reveal()) }

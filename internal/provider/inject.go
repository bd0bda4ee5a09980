package provider

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Credential is the material that goes into one request. It prints nothing.
type Credential struct {
	Kind   Auth
	Values map[string]secret.Value
	// Party is whose it is. Requests of one party may share what is left open to
	// the provider; see outbound.Bound.
	Party string
}

// formatPart is literal text or one placeholder.
type formatPart struct{ text, arg string }

func parseFormat(s string) ([]formatPart, string) {
	var parts []formatPart
	for s != "" {
		open := strings.IndexByte(s, '{')
		if open < 0 {
			open = len(s)
		}
		if lit := s[:open]; lit != "" {
			if strings.ContainsFunc(lit, func(r rune) bool { return r < ' ' || r > '~' || r == '}' }) {
				return nil, "holds a character that a header does not take."
			}
			parts = append(parts, formatPart{text: lit})
		}
		if s = s[open:]; s == "" {
			break
		}
		end := strings.IndexByte(s, '}')
		if end < 0 || !validArg(s[1:end]) {
			return nil, "has a { that starts no placeholder."
		}
		parts = append(parts, formatPart{arg: s[1:end]})
		s = s[end+1:]
	}
	return parts, ""
}

// render fills a template, in bytes that only this package holds.
func (c Credential) render(template string) ([]byte, error) {
	parts, _ := parseFormat(template)
	var out []byte
	for _, p := range parts {
		if p.arg == "" {
			out = append(out, p.text...)
			continue
		}
		v, ok := c.Values[p.arg]
		if !ok || v.IsZero() {
			return nil, fault.New(fault.Conflict, "credential_incomplete", "The connection's credential has no "+p.arg+".").
				WithHint("Reconnect.")
		}
		out = append(out, v.Reveal()...)
	}
	for _, b := range out {
		if b < ' ' || b == 0x7f {
			return nil, fault.New(fault.Conflict, "credential_unusable", "The connection's credential holds a control character or line break.").
				WithHint("Reconnect and give the credential without line breaks.")
		}
	}
	return out, nil
}

// Inject puts the credential into req, over whatever is there, and returns what
// takes it out of the answer again, in every form in which it must never come
// back (threats.md U1). Call it last.
func (r Record) Inject(req *http.Request, c Credential) (*Redactor, error) {
	var forms formSet
	for _, name := range sortedKeys(c.Values) {
		if !r.Public(name) {
			forms.add(c.Values[name].Reveal())
		}
	}
	if err := r.put(req, c, &forms); err != nil {
		return nil, err
	}
	return newRedactor(&forms), nil
}

// put puts the credential into req, and every text that it became into forms.
func (r Record) put(req *http.Request, c Credential, forms *formSet) error {
	in := r.Injection
	switch {
	case r.buys(req.URL):
		value, err := c.render("Bearer {" + fieldRealm + "}")
		if err != nil {
			return err
		}
		setHeader(req.Header, "Authorization", string(value))
		forms.add(value)
	case in.Basic != nil:
		return in.Basic.put(req, c, forms)
	case in.Header != "":
		value, err := c.render(in.Format)
		if err != nil {
			return err
		}
		setHeader(req.Header, in.Header, string(value))
		forms.add(value)
	case in.Query != "":
		value, err := c.render(in.Format)
		if err != nil {
			return err
		}
		setQuery(req.URL, in.Query, string(value))
		forms.add(value)
	case len(in.Headers) > 0:
		for _, name := range sortedKeys(in.Headers) {
			value, err := c.render(in.Headers[name])
			if err != nil {
				return err
			}
			setHeader(req.Header, name, string(value))
			if !r.onlyPublic(in.Headers[name]) {
				forms.add(value)
			}
		}
	case in.Sign == SignAWS:
		if err := SignForAWS(req, c.Values, in.Service, in.Region, time.Now()); err != nil {
			return err
		}
		forms.add([]byte(req.Header.Get("Authorization")))
	case in.Sign == SignOAuth1:
		if err := SignForOAuth1(req, c.Values, FreshNonce(), time.Now()); err != nil {
			return err
		}
		forms.add([]byte(req.Header.Get("Authorization")))
	case in.Certificate: // is in the handshake
	case r.Auth == None:
	default:
		return fault.New(fault.Internal, "record_invalid", "The provider record says nowhere where the credential goes.")
	}
	return nil
}

func (b Basic) put(req *http.Request, c Credential, forms *formSet) error {
	user, err := c.render(b.Username)
	if err != nil {
		return err
	}
	pass, err := c.render(b.Password)
	if err != nil {
		return err
	}
	if slices.Contains(user, ':') {
		return fault.New(fault.Conflict, "credential_unusable", "The user name holds a colon, which Basic authentication does not take.").WithHint("Reconnect.")
	}
	pair := slices.Concat(user, []byte(":"), pass)
	value := "Basic " + base64.StdEncoding.EncodeToString(pair)
	setHeader(req.Header, "Authorization", value)
	forms.add(pair)
	forms.add([]byte(value))
	return nil
}

// onlyPublic reports whether a template holds no secret.
func (r Record) onlyPublic(format string) bool {
	parts, _ := parseFormat(format)
	return !slices.ContainsFunc(parts, func(p formatPart) bool { return p.arg != "" && !r.Public(p.arg) })
}

// setHeader leaves exactly one field of this name, whatever its spelling was.
func setHeader(h http.Header, name, value string) {
	for have := range h {
		if strings.EqualFold(have, name) {
			delete(h, have)
		}
	}
	h.Set(name, value)
}

func setQuery(u *url.URL, name, value string) {
	var kept []string
	for part := range strings.SplitSeq(u.RawQuery, "&") {
		key, _, _ := strings.Cut(part, "=")
		if decoded, err := url.QueryUnescape(key); part == "" || err != nil || strings.EqualFold(decoded, name) {
			continue
		}
		kept = append(kept, part)
	}
	u.RawQuery = strings.Join(append(kept, url.QueryEscape(name)+"="+url.QueryEscape(value)), "&")
}

// formSet collects the forms in which secrets may come back, folded, each once.
// They lie one after the other in one piece of memory.
type formSet struct {
	text  []byte
	spans []span
}

type span struct{ from, to int }

func (f *formSet) at(i int) []byte { return f.text[f.spans[i].from:f.spans[i].to] }

// add takes every form of raw.
func (f *formSet) add(raw []byte) {
	if len(raw) == 0 {
		return
	}
	f.text = slices.Grow(f.text, 16*len(raw)+64)
	f.one(raw)
	if s := string(raw); !isPlain(raw) {
		quoted, _ := json.Marshal(s) // with < > & escaped, as Go and others write it
		f.one([]byte(url.QueryEscape(s)))
		f.one([]byte(url.PathEscape(s)))
		f.one(bytes.Trim(quoted, `"`))
		f.one(bytes.ReplaceAll(raw, []byte("/"), []byte(`\/`)))
	}
	f.keep(func(out []byte) []byte { return hex.AppendEncode(out, raw) })
	padded := append([]byte{0, 0}, raw...)
	for _, enc := range []struct{ padded, bare *base64.Encoding }{{base64.StdEncoding, base64.RawStdEncoding}, {base64.URLEncoding, base64.RawURLEncoding}} {
		f.keep(func(out []byte) []byte { return enc.padded.AppendEncode(out, raw) })
		f.keep(func(out []byte) []byte { return enc.bare.AppendEncode(out, raw) })
		for offset := range 3 {
			f.keep(func(out []byte) []byte { return appendCore(out, enc.bare, padded[2-offset:], offset) })
		}
	}
}

// isPlain reports that no way of writing text in a URL or in JSON changes b.
func isPlain(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

// one takes a text in all its readings: a secret that itself holds what looks
// like an escape reads differently in each view of an answer.
func (f *formSet) one(text []byte) {
	f.keep(func(out []byte) []byte { return append(out, text...) })
	text = fold(text)
	for range viewLayers + 1 {
		if text = reading(text); text == nil {
			return
		}
		f.keep(func(out []byte) []byte { return append(out, text...) })
	}
}

// keep takes what write appends, unless it is empty or known.
func (f *formSet) keep(write func(out []byte) []byte) {
	from := len(f.text)
	f.text = write(f.text)
	for i := from; i < len(f.text); i++ {
		f.text[i] = foldByte(f.text[i])
	}
	form := bytes.TrimSpace(f.text[from:])
	known := len(form) == 0
	for i := range f.spans {
		known = known || bytes.Equal(f.at(i), form)
	}
	if known {
		f.text = f.text[:from]
		return
	}
	n := copy(f.text[from:], form)
	f.text = f.text[:from+n]
	f.spans = append(f.spans, span{from, from + n})
}

// appendCore appends the part of an encoding of a longer text that only a secret
// decides which starts at offset (mod 3) in that text. padded is the secret after
// that many zero bytes.
func appendCore(out []byte, enc *base64.Encoding, padded []byte, offset int) []byte {
	from := len(out)
	out = enc.AppendEncode(out, padded)
	first := (offset*8 + 5) / 6 // characters that hold bits from before the secret
	last := len(padded) * 8 / 6 // characters that hold only bits up to its end
	if first >= last {
		return out[:from]
	}
	n := copy(out[from:], out[from+first:from+last])
	return out[:from+n]
}

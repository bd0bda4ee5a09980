package provider

import (
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/net/http/httpguts"

	"github.com/ambit-dev/ambit/internal/fault"
)

// Placeholder says what stands for the credential in a client of the provider's,
// and where it is replaced. In Authorization it is everywhere; where else it is
// must be said here, since what goes into other places may be kept or shown by the
// provider: a credential in the text of an issue would be everybody's.
type Placeholder struct {
	Prefix string `yaml:"prefix"` // that clients look for, such as ghp_
	JWT    bool   `yaml:"jwt"`    // clients take it apart as a JWT (RFC 7519)
	// Places are header:NAME, query:NAME, path, json:NAME and form:NAME (of a field of
	// the body, not of one inside another), and socket:NAME.NAME: a member of a text
	// message over a WebSocket, by its path.
	Places []string `yaml:"places"`
}

const (
	placeholderMark = "ambit_"
	anySecret       = "placeholder" // stands for the one secret that matters
)

// Placeholder is what a client of the provider's can be given in place of the
// part of a credential, such as access_token. Empty stands for the secret itself.
// It opens nothing.
func (r Record) Placeholder(part string) string {
	if part == "" {
		part = anySecret
	}
	if r.Injection.Placeholder.JWT {
		enc := base64.RawURLEncoding.EncodeToString
		return enc([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + enc([]byte(`{"iss":"ambit","exp":4102444800}`)) + "." + placeholderMark + part
	}
	return r.Injection.Placeholder.Prefix + placeholderMark + part
}

// Variable is what stands for the secret in an environment variable that begins with
// prefix: as long as most keys are, for clients that count.
func (r Record) Variable(prefix string) string {
	if r.Injection.Placeholder.JWT {
		return r.Placeholder("")
	}
	const size = 40
	text := placeholderMark + anySecret + "_"
	return prefix + text + strings.Repeat("0", max(0, size-len(prefix)-len(text)))
}

// prefixes are those that stand before a placeholder, longest first.
func (r Record) prefixes() []string {
	out := []string{r.Injection.Placeholder.Prefix}
	for _, prefix := range r.Variables {
		out = append(out, prefix)
	}
	slices.SortFunc(out, func(a, b string) int { return len(b) - len(a) })
	return out
}

// IsPlaceholder reports whether text is one, of whatever provider.
func IsPlaceholder(text string) bool { return strings.Contains(text, placeholderMark) }

// filling replaces placeholders in one request.
type filling struct {
	rec    Record
	cred   Credential
	forms  *formSet
	filled bool
}

// text replaces the placeholders in s.
func (f *filling) text(s string) string {
	var out strings.Builder
	for {
		i := strings.Index(s, placeholderMark)
		if i < 0 {
			break
		}
		end := i + len(placeholderMark)
		for end < len(s) && (isAlnum(s[end]) || s[end] == '_') {
			end++
		}
		value, ok := f.value(strings.TrimRight(s[i+len(placeholderMark):end], "0_"))
		if !ok {
			out.WriteString(s[:end])
			s = s[end:]
			continue
		}
		head := s[:i]
		for _, prefix := range f.rec.prefixes() {
			if cut, ok := strings.CutSuffix(head, prefix); ok && prefix != "" {
				head = cut
				break
			}
		}
		if f.rec.Injection.Placeholder.JWT {
			head = withoutJWT(s[:i])
		}
		out.WriteString(head)
		out.WriteString(value)
		f.filled = true
		s = s[end:]
	}
	out.WriteString(s)
	return out.String()
}

func (f *filling) value(name string) (string, bool) {
	names := []string{name}
	if name == anySecret {
		names = []string{FieldAccessToken, FieldAPIKey, FieldPassword}
	}
	for _, n := range names {
		if n == FieldConsumerSecret || n == FieldTokenSecret {
			continue // what signs is sent to nobody
		}
		if v, ok := f.cred.Values[n]; ok && !v.IsZero() {
			return string(v.Reveal()), true
		}
	}
	return "", false
}

// withoutJWT cuts the first two parts of a JWT off the end of s.
func withoutJWT(s string) string {
	cut := s
	for range 2 {
		t, ok := strings.CutSuffix(cut, ".")
		if !ok {
			return s
		}
		cut = strings.TrimRightFunc(t, func(r rune) bool { return r < 0x80 && (isAlnum(byte(r)) || r == '-' || r == '_') })
	}
	return cut
}

// request replaces the placeholders in a request wherever the record lets them
// stand. One anywhere else of its head is refused, for the provider would refuse
// it in words that nobody understands.
func (f *filling) request(out *http.Request, client http.Header) error {
	if v := client.Get("Authorization"); v != "" {
		if filled := f.authorization(v); f.filled {
			if !httpguts.ValidHeaderFieldValue(filled) {
				return fault.New(fault.Conflict, "credential_unusable", "The connection's credential holds a control character or line break.").WithHint("Reconnect.")
			}
			out.Header.Set("Authorization", filled)
			f.forms.add([]byte(filled))
		}
	}
	for _, place := range f.rec.Injection.Placeholder.Places {
		kind, name, _ := strings.Cut(place, ":")
		switch kind {
		case "header":
			for i, v := range out.Header.Values(name) {
				out.Header[http.CanonicalHeaderKey(name)][i] = f.text(v)
			}
		case "query":
			f.query(out.URL, name)
		case "path":
			if path, err := url.PathUnescape(out.URL.EscapedPath()); err == nil && strings.Contains(path, placeholderMark) {
				filled := f.text(out.URL.EscapedPath())
				if u, err := url.Parse(filled); err == nil {
					out.URL.Path, out.URL.RawPath = u.Path, u.RawPath
				}
			}
		}
	}
	return f.body(out)
}

// authorization replaces in Basic what it stands for, which nobody sees as it is
// written.
func (f *filling) authorization(v string) string {
	scheme, text, _ := strings.Cut(v, " ")
	if !strings.EqualFold(scheme, "basic") {
		return f.text(v)
	}
	pair, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return v
	}
	filled := f.text(string(pair))
	f.forms.add([]byte(filled))
	return scheme + " " + base64.StdEncoding.EncodeToString([]byte(filled))
}

func (f *filling) query(u *url.URL, name string) {
	parts := strings.Split(u.RawQuery, "&")
	for i, part := range parts {
		key, value, _ := strings.Cut(part, "=")
		k, kerr := url.QueryUnescape(key)
		v, verr := url.QueryUnescape(value)
		if kerr == nil && verr == nil && k == name && strings.Contains(v, placeholderMark) {
			parts[i] = key + "=" + url.QueryEscape(f.text(v))
		}
	}
	u.RawQuery = strings.Join(parts, "&")
}

// body replaces in the fields of a JSON or form body.
func (f *filling) body(out *http.Request) error {
	fields := map[string][]string{}
	for _, place := range f.rec.Injection.Placeholder.Places {
		if kind, name, _ := strings.Cut(place, ":"); kind == "json" || kind == "form" {
			fields[kind] = append(fields[kind], name)
		}
	}
	if len(fields) == 0 || out.Body == nil {
		return nil
	}
	if out.GetBody == nil {
		return nil // too large to be looked through, and so without a placeholder that could be replaced
	}
	from, err := out.GetBody()
	if err != nil {
		return err
	}
	text, err := io.ReadAll(from)
	if err != nil {
		return err
	}
	if coding := strings.ToLower(out.Header.Get("Content-Encoding")); coding != "" && coding != "identity" {
		if text = unzip(Raw{Body: text, Whole: true}, coding); text == nil {
			return nil
		}
	}
	before := f.filled
	f.filled = false
	switch media := mediaOf(out.Header); {
	case strings.HasSuffix(media, "json"):
		for _, name := range fields["json"] {
			text = f.member(text, []string{name})
		}
	case media == "application/x-www-form-urlencoded":
		u := url.URL{RawQuery: string(text)}
		for _, name := range fields["form"] {
			f.query(&u, name)
		}
		text = []byte(u.RawQuery)
	}
	if f.filled {
		out.Header.Del("Content-Encoding")
		setBody(out, text)
	}
	f.filled = f.filled || before
	return nil
}

// member replaces the placeholders in the string at path in an object of JSON.
func (f *filling) member(text []byte, path []string) []byte {
	list, err := members(text)
	if err != nil {
		return text
	}
	out := []byte{'{'}
	for i, m := range list {
		if i > 0 {
			out = append(out, ',')
		}
		out, _ = jsontext.AppendQuote(out, m.name)
		out = append(out, ':')
		var s string
		switch {
		case m.name != path[0]:
			out = append(out, m.value...)
		case len(path) > 1:
			out = append(out, f.member(m.value, path[1:])...)
		case m.value.Kind() == '"' && unmarshal(m.value, &s) == nil:
			out, _ = jsontext.AppendQuote(out, f.text(s))
		default:
			out = append(out, m.value...)
		}
	}
	return append(out, '}')
}

// misplaced refuses a placeholder that is left in the head of a request.
func (f *filling) misplaced(out *http.Request) error {
	at := ""
	path, _ := url.PathUnescape(out.URL.EscapedPath())
	query, _ := url.QueryUnescape(out.URL.RawQuery)
	for name, values := range out.Header {
		if slices.ContainsFunc(values, f.holds) {
			at = "The header " + name
		}
	}
	switch {
	case f.holds(path):
		at = "The path"
	case f.holds(query):
		at = "The query"
	}
	if at == "" {
		return nil
	}
	return fault.New(fault.Invalid, "placeholder_misplaced", at+" holds a placeholder where the provider's record has none.").
		WithHint("Put it into Authorization or where the provider takes its key, or leave it out: then the key is put where it belongs.")
}

// holds reports whether text holds a placeholder that stands for something.
func (f *filling) holds(text string) bool {
	probe := filling{rec: f.rec, cred: f.cred, forms: &formSet{}}
	probe.text(text)
	return probe.filled
}

// lintPlaceholder checks the places.
func (r *Record) lintPlaceholder(l *linter) {
	p := r.Injection.Placeholder
	if strings.ContainsFunc(p.Prefix, func(c rune) bool { return c > 0x7f || !isAlnum(byte(c)) && c != '-' && c != '_' }) || len(p.Prefix) > 24 {
		l.add("inject.placeholder.prefix", "Use letters, digits, - and _.", "%s is no beginning of a key.", quoted(p.Prefix))
	}
	plain := func(s string) bool { return s != "" && len(s) <= 100 && plainName(s) }
	for i, place := range p.Places {
		kind, name, _ := strings.Cut(place, ":")
		ok := place == "path"
		switch kind {
		case "header":
			ok = httpguts.ValidHeaderFieldName(name) && !forbiddenHeader(name)
		case "query", "json", "form":
			ok = plain(name)
		case "socket":
			ok = !slices.ContainsFunc(strings.Split(name, "."), func(s string) bool { return !plain(s) })
		}
		if !ok {
			l.add(fmt.Sprintf("inject.placeholder.places[%d]", i), "Use header:NAME, query:NAME, path, json:NAME, form:NAME or socket:NAME.NAME.", "%s is no place.", quoted(place))
		}
	}
}

func mediaOf(h http.Header) string {
	media, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	return media
}

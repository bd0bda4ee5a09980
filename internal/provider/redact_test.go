package provider_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
)

const canary = `cnry/9+Z"x=<7>_aQ\k~§mW`

func credential(kind provider.Auth, pairs ...string) provider.Credential {
	c := provider.Credential{Kind: kind, Values: map[string]secret.Value{}}
	for i := 0; i < len(pairs); i += 2 {
		c.Values[pairs[i]] = secret.FromString(pairs[i+1])
	}
	return c
}

func keyRecord(t testing.TB, inject string) provider.Record {
	t.Helper()
	return parse(t, "id: demo\nname: Demo\nauth: api_key\napi: {base: [\"https://api.example.com\"]}\ngeneric: {read: true}\ninject: "+inject+"\n")
}

func inject(t testing.TB, r provider.Record, req *http.Request, c provider.Credential) *provider.Redactor {
	t.Helper()
	red, err := r.Inject(req, c)
	if err != nil {
		t.Fatal(err)
	}
	return red
}

func request(t testing.TB, raw string) *http.Request {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Request{Method: "GET", URL: u, Header: http.Header{}}
}

func TestInjectReplacesWhatIsThere(t *testing.T) {
	t.Parallel()
	req := request(t, "https://api.example.com/x?a=1&KEY=mine&%6bey=mine&b=2")
	odd := "authorization" // as a hand-made request may spell it
	req.Header[odd] = []string{"Bearer mine"}
	req.Header["X-Key"] = []string{"mine", "again"}
	inject(t, keyRecord(t, `{header: X-Key, format: "k {api_key}"}`), req, credential(provider.APIKey, "api_key", "s3cret-key"))
	if got := req.Header.Values("X-Key"); len(got) != 1 || got[0] != "k s3cret-key" {
		t.Errorf("header: got %q", got)
	}
	inject(t, keyRecord(t, `{query: key, format: "{api_key}"}`), req, credential(provider.APIKey, "api_key", "a&b=c d"))
	if got := req.URL.RawQuery; got != "a=1&b=2&key=a%26b%3Dc+d" {
		t.Errorf("query: got %s", got)
	}
	inject(t, keyRecord(t, `{basic: {username: "{username}", password: "{password}"}}`), req, credential(provider.APIKey, "username", "ann", "password", "s3cret-pass"))
	if user, pass, ok := req.BasicAuth(); !ok || user != "ann" || pass != "s3cret-pass" || len(req.Header[odd]) != 0 {
		t.Errorf("basic: got %q %q %v %v", user, pass, ok, req.Header)
	}
}

func TestInjectRefusesWhatCannotBeSent(t *testing.T) {
	t.Parallel()
	header := keyRecord(t, `{header: X-Key, format: "{api_key}"}`)
	basic := keyRecord(t, `{basic: {username: "{username}", password: "{password}"}}`)
	for _, row := range []struct {
		rec  provider.Record
		cred provider.Credential
		code string
	}{
		{header, credential(provider.APIKey), "credential_incomplete"},
		{header, credential(provider.APIKey, "api_key", "a\r\nHost: evil"), "credential_unusable"},
		{header, credential(provider.APIKey, "api_key", "a\n"), "credential_unusable"},
		{basic, credential(provider.APIKey, "username", "a:b", "password", "x"), "credential_unusable"},
	} {
		req := request(t, "https://api.example.com/")
		if _, err := row.rec.Inject(req, row.cred); !fault.Is(err, row.code) || len(req.Header) != 0 {
			t.Errorf("got %v with headers %v, want %s", err, req.Header, row.code)
		}
	}
}

// forms are ways in which an upstream renders s.
func forms(s string) map[string]string {
	b := []byte(s)
	quoted, _ := json.Marshal(s)
	twice, _ := json.Marshal(string(quoted))
	var percent, unicode, entities strings.Builder
	for _, c := range b {
		fmt.Fprintf(&percent, "%%%02x", c)
	}
	for _, r := range s {
		fmt.Fprintf(&unicode, `\u%04x`, r)
		fmt.Fprintf(&entities, "&#%d;", r)
	}
	out := map[string]string{
		"raw": s, "query": url.QueryEscape(s), "path": url.PathEscape(s), "every byte percent": percent.String(), "percent twice": url.QueryEscape(url.QueryEscape(s)),
		"json": strings.Trim(string(quoted), `"`), "json twice": strings.Trim(string(twice), `"`), "every rune escaped": unicode.String(), "slash escaped": strings.ReplaceAll(strings.Trim(string(quoted), `"`), "/", `\/`),
		"html": html.EscapeString(s), "entities": entities.String(), "hex": hex.EncodeToString(b), "HEX": strings.ToUpper(hex.EncodeToString(b)),
		"upper case": strings.ToUpper(s), "json in percent": url.QueryEscape(string(quoted)), "over lines": s[:9] + "\r\n" + s[9:],
	}
	for name, enc := range map[string]*base64.Encoding{"std": base64.StdEncoding, "url": base64.URLEncoding, "raw std": base64.RawStdEncoding} {
		for pad := range 4 {
			out[fmt.Sprintf("base64 %s after %d", name, pad)] = enc.EncodeToString([]byte("xyzw"[:pad] + s + "tail"))
		}
		out["base64 "+name] = enc.EncodeToString(b)
	}
	return out
}

// holds undoes, one after another, what a reader could undo, and reports whether
// the canary shows. It shares no code with the redactor.
func holds(text, s string) bool {
	views := []string{text}
	for range 4 {
		last := views[len(views)-1]
		next := html.UnescapeString(last)
		if u, err := url.PathUnescape(next); err == nil {
			next = u
		}
		var j string
		if json.Unmarshal([]byte(`"`+strings.ReplaceAll(next, `"`, `\"`)+`"`), &j) == nil {
			next = j
		} else if json.Unmarshal([]byte(`"`+next+`"`), &j) == nil {
			next = j
		}
		views = append(views, next)
	}
	for _, v := range views {
		v = strings.NewReplacer("\r", "", "\n", "").Replace(v)
		if strings.Contains(strings.ToLower(v), strings.ToLower(s)) {
			return true
		}
	}
	lower := strings.ToLower(text)
	if strings.Contains(lower, hex.EncodeToString([]byte(s))) {
		return true
	}
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for _, word := range strings.FieldsFunc(text, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("+/-_", r))
		}) {
			for cut := range 4 {
				if len(word) > cut {
					part := word[cut:]
					b, _ := enc.DecodeString(part[:len(part)/4*4])
					if bytes.Contains(b, []byte(s)) {
						return true
					}
				}
			}
		}
	}
	return false
}

// U1: the credential comes back in no form, in text or in JSON.
func TestRedactEveryForm(t *testing.T) {
	t.Parallel()
	for _, s := range []string{canary, "sk_live_0123456789abcdef", "12345678901234567890", `holds %20 and \u0041 and "&lt;"`} {
		r := keyRecord(t, `{header: X-Key, format: "Token {api_key}"}`)
		red := inject(t, r, request(t, "https://api.example.com/"), credential(provider.APIKey, "api_key", s))
		for name, form := range forms(s) {
			text := "before " + form + " after"
			got := string(red.Text([]byte(text)))
			if holds(got, s) || !strings.Contains(got, provider.Redacted) || !strings.HasPrefix(got, "before ") || !strings.HasSuffix(got, " after") {
				t.Errorf("%s: got %q", name, got)
			}
			doc, _ := json.Marshal(map[string]any{"a": []any{"x" + form, 1.50, "y"}, form: true, "n": map[string]any{"deep": form}})
			out, ok := red.JSON(doc, nil)
			if !ok || !json.Valid(out) || holds(string(out), s) || !strings.Contains(string(out), `"y"`) {
				t.Errorf("%s in JSON: got %s (%v)", name, out, ok)
			}
		}
	}
}

func TestRedactBasic(t *testing.T) {
	t.Parallel()
	req := request(t, "https://api.example.com/")
	red := inject(t, keyRecord(t, `{basic: {username: "{username}", password: "{password}"}}`), req, credential(provider.APIKey, "username", "ann@example.com", "password", "hunter2hunter2"))
	header := req.Header.Get("Authorization")
	for _, s := range []string{header, strings.TrimPrefix(header, "Basic "), "ann@example.com:hunter2hunter2", "hunter2hunter2"} {
		if got := string(red.Text([]byte("x " + s + " y"))); strings.Contains(got, s) || strings.Contains(got, "hunter2") {
			t.Errorf("%q: got %q", s, got)
		}
	}
	if got := string(red.Text([]byte("mail to ann@example.com"))); got != "mail to ann@example.com" {
		t.Errorf("the user's own name was taken out: %q", got)
	}
}

// A short secret is looked for only as a whole value: inside text it would take
// out what has nothing to do with it.
func TestRedactShortSecrets(t *testing.T) {
	t.Parallel()
	red := inject(t, keyRecord(t, `{header: X-Key, format: "{api_key}"}`), request(t, "https://api.example.com/"), credential(provider.APIKey, "api_key", "abc12"))
	for in, want := range map[string]string{
		`{"key":"abc12","text":"xabc12y"}`: `{"key":"[redacted]","text":"xabc12y"}`,
		`{"key":"\u0061bc12"}`:             `{"key":"[redacted]"}`,
		`["YWJjMTI="]`:                     `["[redacted]"]`,
	} {
		if got, ok := red.JSON([]byte(in), nil); !ok || string(got) != want {
			t.Errorf("%s: got %s (%v), want %s", in, got, ok, want)
		}
	}
	if got := string(red.Text([]byte(" abc12\n"))); strings.Contains(got, "abc12") {
		t.Errorf("as the whole text: %q", got)
	}
}

func TestRedactKeepsTheRest(t *testing.T) {
	t.Parallel()
	red := inject(t, keyRecord(t, `{header: X-Key, format: "{api_key}"}`), request(t, "https://api.example.com/"), credential(provider.APIKey, "api_key", "0123456789abcdef"))
	for in, want := range map[string]string{
		`{"a":1.0,"b":12345678901234567890,"c":"é\u00e9","d":[],"e":{},"f":null}`: `{"a":1.0,"b":12345678901234567890,"c":"éé","d":[],"e":{},"f":null}`,
		"{\"Token\":1,\"x\":[{\"token\":{\"deep\":1},\"y\":2}],\"tokens\":3}":     `{"x":[{"y":2}],"tokens":3}`,
		"{\"a\":1,\"a\":2}": `{"a":1,"a":2}`,
		"1\n{\"token\":1}":  "1\n{}",
		`"t"`:               `"t"`,
	} {
		if got, ok := red.JSON([]byte(in), map[string]bool{"token": true}); !ok || string(got) != want {
			t.Errorf("%s: got %s (%v), want %s", in, got, ok, want)
		}
	}
	for _, in := range []string{"", "{", "<html>", `{"a":}`, `{"a":1}}`, "[1"} {
		if got, ok := red.JSON([]byte(in), nil); ok {
			t.Errorf("%q: taken for JSON: %s", in, got)
		}
	}
	text := []byte("100% of \\users & more \r\n \x00 \xff")
	if got := red.Text(text); !bytes.Equal(got, text) {
		t.Errorf("got %q", got)
	}
}

// anyString reports whether f holds for a name or a string of v.
func anyString(v any, f func(string) bool) bool {
	switch v := v.(type) {
	case string:
		return f(v)
	case []any:
		for _, item := range v {
			if anyString(item, f) {
				return true
			}
		}
	case map[string]any:
		for k, item := range v {
			if f(k) || anyString(item, f) {
				return true
			}
		}
	}
	return false
}

// A form that lies across the borders of what is read at once is found all the
// same, at every place and with what belongs to it far apart.
func TestRedactAcrossBorders(t *testing.T) {
	t.Parallel()
	const s = "sk_live_0123456789abcdef"
	red := inject(t, keyRecord(t, `{header: X-Key, format: "Token {api_key}"}`), request(t, "https://api.example.com/"), credential(provider.APIKey, "api_key", s))
	fills := []string{"x", "%2525", "a\n"}
	for name, form := range forms(s) {
		for _, fill := range fills {
			for _, border := range []int{32 << 10} {
				for _, back := range []int{1, len(form) / 2, len(form), len(form) + 3} {
					pad := strings.Repeat(fill, border/len(fill)+1)[:border-back]
					got := string(red.Text([]byte(pad + " " + form + " " + pad)))
					if !strings.Contains(got, provider.Redacted) || len(got) < 2*len(pad)-len(form) || holds(got[len(pad)-100:len(pad)+100], s) {
						t.Errorf("%s, %d before %d after %q: got %q", name, back, border, fill, got[len(pad)-100:len(pad)+100])
					}
				}
			}
		}
	}
	for _, gap := range []string{strings.Repeat("\r\n", 100<<10), strings.Repeat("\x00", 200<<10)} {
		if got := string(red.Text([]byte("<" + s[:9] + gap + s[9:] + ">"))); got != "<"+provider.Redacted+">" {
			t.Errorf("over many lines: got %d bytes", len(got))
		}
	}
}

// FuzzRedact's oracle: after redaction no rendered form of the canary shows to a
// reader that undoes encodings.
func FuzzRedact(f *testing.F) {
	for _, s := range []string{canary, "sk_live_0123456789abcdef", "12345678901234567890", `holds %20 and \u0041 and "&lt;"`} {
		for _, form := range forms(s) {
			f.Add(s, form, `{"a":"`, `"}`)
			f.Add(s, form, "", "")
		}
	}
	for _, fill := range []string{"x", "%2525", `\\\\`, "&amp;"} {
		f.Add(canary, canary, strings.Repeat(fill, (32<<10)/len(fill)-2), fill)
	}
	f.Add("a%41b%42c%43", "a%41b%42c%43", "%", "%25")
	r := keyRecord(f, `{header: X-Key, format: "Bearer {api_key}"}`)
	f.Fuzz(func(t *testing.T, s, form, before, after string) {
		if len(s) < 8 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == 0xfffd }) || s != strings.TrimSpace(s) {
			t.Skip()
		}
		red, err := r.Inject(request(t, "https://api.example.com/"), credential(provider.APIKey, "api_key", s))
		if err != nil {
			t.Skip()
		}
		// Also across the border of a window, with what was given repeated up to it.
		if pad := before; pad != "" && len(before)+len(form) < 4<<10 {
			pad = strings.Repeat(before, (32<<10)/len(before)+1)[:32<<10-len(s)/2]
			if got := red.Text([]byte(pad + s + after)); bytes.Contains(got, []byte(s)) && !strings.Contains(provider.Redacted, s) {
				t.Fatalf("%q across a border is still there", s)
			}
		}
		for _, text := range []string{before + form + after, before + s + after, before + url.QueryEscape(s) + after, before + hex.EncodeToString([]byte(s)) + after,
			before + base64.StdEncoding.EncodeToString([]byte(form+s)) + after} {
			got := red.Text([]byte(text))
			// What was put in plainly must be gone.
			for _, plain := range []string{s, url.QueryEscape(s), hex.EncodeToString([]byte(s)), base64.StdEncoding.EncodeToString([]byte(s))} {
				if bytes.Contains(got, []byte(plain)) && !strings.Contains(provider.Redacted, plain) {
					t.Fatalf("%q holds %q", got, plain)
				}
			}
			if again := red.Text(got); red.Finds(got) && !bytes.Equal(again, got) && strings.Contains(string(again), s) {
				t.Fatalf("a second pass still finds %q in %q", s, got)
			}
			if out, ok := red.JSON([]byte(text), nil); ok {
				var v any
				if json.Unmarshal(out, &v) == nil && anyString(v, func(text string) bool { return strings.Contains(text, s) }) {
					t.Fatalf("JSON %q holds %q", out, s)
				}
			}
		}
	})
}

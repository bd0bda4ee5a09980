package provider

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"mime"
	"net/mail"
	"strings"
	"unicode"

	"github.com/ambit-dev/ambit/internal/fault"
)

// messageFields are what an e-mail is made of. Who sends it is the account.
const messageFields = "to, cc, bcc, subject, text, html, in_reply_to, references"

// message writes the e-mail (RFC 5322, RFC 2045) that the arguments describe, as
// JSON text in base64url. No argument can begin a header of its own: addresses
// are read and written anew, and every other value is one encoded line.
func (t *bodyTemplate) message(args arguments) ([]byte, error) {
	given := map[string][]string{}
	for _, m := range t.members {
		v, err := m.value.render(args, false)
		if err != nil {
			return nil, err
		}
		if v == nil {
			continue
		}
		if given[m.name], err = scalars(v); err != nil {
			return nil, badArguments("The " + m.name + " of a message is text, or a list of texts.")
		}
	}
	var out bytes.Buffer
	for _, to := range []struct{ field, header string }{{"to", "To"}, {"cc", "Cc"}, {"bcc", "Bcc"}} {
		list, err := addresses(to.field, given[to.field])
		if err != nil {
			return nil, err
		}
		if list != "" {
			out.WriteString(to.header + ": " + list + "\r\n")
		}
	}
	subject := strings.Join(given["subject"], " ")
	if strings.ContainsFunc(subject, unicode.IsControl) {
		return nil, badArguments("The subject is more than one line.")
	}
	out.WriteString("Subject: " + mime.QEncoding.Encode("utf-8", subject) + "\r\n")
	for _, ref := range []struct{ field, header string }{{"in_reply_to", "In-Reply-To"}, {"references", "References"}} {
		ids := strings.Fields(strings.Join(given[ref.field], " "))
		for _, id := range ids {
			if !messageID(id) {
				return nil, badArguments("The " + ref.field + " is not a message id such as <1@mail.example>.")
			}
		}
		if len(ids) > 0 {
			out.WriteString(ref.header + ": " + strings.Join(ids, "\r\n ") + "\r\n")
		}
	}
	out.WriteString("MIME-Version: 1.0\r\n")
	text, html := strings.Join(given["text"], "\n"), strings.Join(given["html"], "\n")
	switch {
	case html == "":
		textPart(&out, "text/plain", text)
	case text == "":
		textPart(&out, "text/html", html)
	default:
		mark := boundary([]byte(text), []byte(html))
		out.WriteString("Content-Type: multipart/alternative; boundary=" + mark + "\r\n\r\n--" + mark + "\r\n")
		textPart(&out, "text/plain", text)
		out.WriteString("--" + mark + "\r\n")
		textPart(&out, "text/html", html)
		out.WriteString("--" + mark + "--\r\n")
	}
	return json.Marshal(base64.URLEncoding.EncodeToString(out.Bytes()))
}

// addresses writes a list of addresses, each given alone or several to a text.
func addresses(field string, given []string) (string, error) {
	var out []string
	for _, text := range given {
		list, err := mail.ParseAddressList(text)
		if err != nil || strings.ContainsFunc(text, unicode.IsControl) {
			return "", fault.New(fault.Invalid, "invalid_arguments", "The "+field+" of the message holds what is not an e-mail address.").
				WithHint("Write ada@example.com or Ada <ada@example.com>.")
		}
		for _, a := range list {
			out = append(out, a.String())
		}
	}
	return strings.Join(out, ",\r\n "), nil
}

func messageID(s string) bool {
	return len(s) > 4 && len(s) <= 500 && s[0] == '<' && s[len(s)-1] == '>' && strings.Contains(s, "@") &&
		!strings.ContainsFunc(s[1:len(s)-1], func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '<' || r == '>' })
}

// textPart writes a text in base64, which no line of it can break out of.
func textPart(out *bytes.Buffer, media, text string) {
	out.WriteString("Content-Type: " + media + "; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	const line = 76
	enc := base64.StdEncoding.EncodeToString([]byte(text))
	for len(enc) > line {
		out.WriteString(enc[:line] + "\r\n")
		enc = enc[line:]
	}
	out.WriteString(enc + "\r\n")
}

package scan

import (
	"bytes"
	"strings"
)

// taking is where a call takes its secret, and what that is.
type taking struct {
	arg   int // from 0; -1 is the last
	least int // how many arguments there are when the secret is among them
	class class
	title string
}

// calls take a secret by its place, so that no name stands before it.
var calls = map[string]taking{
	"getconnection(":          {2, 3, password, "Password of a database"},
	"mysqli_connect(":         {2, 3, password, "Password of a database"},
	"new mysqli(":             {2, 3, password, "Password of a database"},
	"new pdo(":                {2, 3, password, "Password of a database"},
	"auth=(":                  {1, 2, password, "Password of a call"},
	"httpbasicauth(":          {1, 2, password, "Password of a call"},
	"setbasicauth(":           {1, 2, password, "Password of a call"},
	"passwordcredentials(":    {1, 2, password, "Password of a call"},
	"networkcredential(":      {1, 2, password, "Password of a call"},
	"passwordauthentication(": {1, 2, password, "Password of a call"},
	".login(":                 {-1, 2, password, "Password of a call"},
	"apikeycredential(":       {0, 1, telling, "API key"},
	"sharedkeycredential(":    {1, 2, telling, "Key of Azure"},
	"clientsecretcredential(": {2, 3, telling, "OAuth client secret"},
	"secretkeyspec(":          {0, 2, telling, "Secret key"},
	"fernet(":                 {0, 1, telling, "Secret key"},
	"createcipheriv(":         {1, 3, telling, "Secret key"},
	"azurekeycredential(":     {0, 1, telling, "Key of Azure"},
	"securitykey(":            {0, 1, telling, "Signing key"},
	"createhmac(":             {1, 2, telling, "Signing key"},
	"hmac.new(":               {0, 2, telling, "Signing key"},
	"jwt.sign(":               {1, 2, telling, "Signing key"},
	"jwt.verify(":             {1, 2, telling, "Signing key"},
	"jwt.encode(":             {1, 2, telling, "Signing key"},
	"jwt.decode(":             {1, 2, telling, "Signing key"},
	"client.new(":             {1, 2, telling, "Secret of a call"},
	"twilio(":                 {1, 2, telling, "Secret of a call"},
}

// maxCall bounds how far the arguments of a call are read.
const maxCall = 400

// call reads the secret among the arguments of a call.
func (d *doc) call(u *unit, at int) {
	t := u.text[at:min(len(u.text), at+maxCall)]
	open := bytes.IndexByte(t, '(')
	if open < 0 || u.mode == config || u.afford(len(t)) < len(t) {
		return
	}
	g, ok := calls[strings.ToLower(string(t[:open+1]))]
	if !ok {
		return
	}
	args := arguments(t[open+1:])
	n := g.arg
	if n < 0 {
		n += len(args)
	}
	if len(args) < g.least || n < 0 {
		return
	}
	m := literal.FindSubmatchIndex(t[open+1+args[n].from : open+1+args[n].to])
	if m == nil {
		return
	}
	from := at + open + 1 + args[n].from + m[2]
	v := string(u.text[from : from+m[3]-m[2]])
	if !plausible(g.class, v, code, true) || !u.take(from, from+len(v)) {
		return
	}
	d.add(u, found{kind: kindOf("", g.class, v).kind, title: g.title, base: 55, value: v, at: from, weak: g.class == password})
}

// literal matches an argument that is one text, in bytes or not.
var literal = lazily(`^\s*(?:[\w.:]*\()?[bfru@]?["'` + "`" + `]([^"'` + "`" + `\\\n]{4,300})["'` + "`" + `](?:\.\w+\(\))?\)?\s*$`)

// arguments parts what stands between the brackets of a call; without the closing one
// there are none.
func arguments(t []byte) []span {
	var list []span
	depth, from := 0, 0
	var quote byte
	for i := 0; i < len(t); i++ {
		switch c := t[i]; {
		case quote != 0 && c == '\\':
			i++
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'' || c == '`':
			quote = c
		case c == '(' || c == '[' || c == '{':
			depth++
		case c == ',' && depth == 0:
			list = append(list, span{from, i})
			from = i + 1
		case c == ')' && depth == 0:
			return append(list, span{from, i})
		case c == ')' || c == ']' || c == '}':
			depth--
		}
	}
	return nil
}

// dsn reads the password before @tcp( in user:password@tcp(host)/db.
func (d *doc) dsn(u *unit, at int) {
	t := u.text[max(0, at-160):at]
	m := dsnForm.FindSubmatchIndex(t)
	if m == nil {
		return
	}
	from, user, v := at-len(t)+m[4], string(t[m[2]:m[3]]), string(t[m[4]:])
	if placeholder(v) || strings.EqualFold(v, user) || !passwordLike(v, config) || !u.take(from, at) {
		return
	}
	d.add(u, found{kind: "database-url", title: "Database address with a password", provider: "mysql", base: 70, weak: !random(v, 20), value: v, at: from})
}

var dsnForm = lazily(`([\w.-]{1,64}):([^\s"'` + "`" + `:/]{4,120})$`)

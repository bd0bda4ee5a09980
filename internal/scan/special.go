package scan

import (
	"bytes"
	"strings"
)

// special reads files of programs whose form is like no other.
func (d *doc) special(b []byte) {
	switch d.base {
	case ".pgpass", "pgpass.conf":
		for i, line := range strings.Split(string(b), "\n") {
			parts := strings.Split(strings.TrimSpace(line), ":")
			if strings.HasPrefix(line, "#") || len(parts) < 5 {
				continue
			}
			if pass := strings.Join(parts[4:], ":"); !placeholder(pass) && passwordLike(pass, config) {
				d.addParsed(found{kind: "password", title: "PostgreSQL password", provider: "postgres", base: 60, weak: true, value: pass, line: i + 1, opens: opensAt(parts[3], parts[0])})
			}
		}
	case "kaggle.json":
		if n := parseJSON(b, 1); n != nil && random(n.string("key"), 24) {
			d.addParsed(found{kind: "api-key", title: "Kaggle API key", base: 50, value: n.string("key"), key: "key", line: n.child("key").line, opens: n.string("username")})
		}
	}
	if bytes.HasPrefix(b, []byte("PuTTY-User-Key-File-")) && bytes.Contains(b, []byte("Encryption: none")) {
		if m := puttyForm.FindSubmatchIndex(b); m != nil {
			u := &unit{text: b, line: 1}
			d.add(u, found{kind: "private-key", title: "Private key of PuTTY", base: 80, value: string(b[m[2]:m[3]]), at: m[2], end: m[3] - 1})
		}
	}
}

var puttyForm = lazily(`(?m)^Private-Lines: \d+\r?\n((?:[A-Za-z0-9+/=]+\r?\n)+)`)

var netrcWords = lazily(`(?s)\b(machine|default|login|password|account|port)\b[ \t\r\n]*("[^"]*"|[^\s"]\S*)?`)

// netrc reads machines with their passwords.
func (d *doc) netrc(b []byte) {
	machine, login := "", ""
	u := &unit{text: b, line: 1}
	for _, m := range netrcWords.FindAllSubmatchIndex(b, 2000) {
		word, v := string(b[m[2]:m[3]]), ""
		if m[4] >= 0 {
			v = strings.Trim(string(b[m[4]:m[5]]), `"`)
		}
		if i := bytes.LastIndexByte(b[:m[0]], '\n'); bytes.HasPrefix(bytes.TrimLeft(b[i+1:m[0]+1], " \t"), []byte("#")) {
			continue
		}
		switch word {
		case "machine":
			machine, login = v, ""
		case "login":
			login = v
		case "password":
			if placeholder(v) || !passwordLike(v, config) && !random(v, 10) {
				continue
			}
			d.add(u, found{kind: "netrc-password", title: "Password for " + or(machine, "any host"), provider: providerOfHost(machine), base: 65, weak: !random(v, 20), value: v, at: m[4], opens: opensAt(login, machine)})
		}
	}
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// oneToken reads a file that is nothing but a token.
func (d *doc) oneToken(b []byte) {
	v := strings.TrimSpace(string(b))
	if v == "" || strings.ContainsAny(v, " \t\n") || placeholder(v) || !random(v, 16) {
		return
	}
	before := len(d.found)
	d.text(&unit{text: []byte(v), line: 1, flat: true, mode: forms})
	if len(d.found) > before {
		return
	}
	f := kindOf("token", telling, v)
	if f.provider = providerOf(nameWords(d.path)); f.provider != "" {
		f.title = providerName(f.provider) + " token"
		f.base = issuers[f.provider].base
	}
	f.value, f.line = v, 1
	d.addParsed(f)
}

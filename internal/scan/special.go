package scan

import (
	"bytes"
	"path"
	"strconv"
	"strings"
	"time"
)

// special reads files of programs whose form is like no other.
func (d *doc) special(b []byte) {
	switch d.base {
	case ".pgpass", "pgpass.conf":
		i := -1
		for line := range strings.Lines(string(b)) {
			i++
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
	d.tables(b)
	if bytes.Contains(b[:min(len(b), 200)], []byte("HTTP Cookie File")) {
		d.cookies(b)
	}
	if bytes.HasPrefix(b, []byte("PuTTY-User-Key-File-")) && bytes.Contains(b, []byte("Encryption: none")) {
		if m := puttyForm.FindSubmatchIndex(b); m != nil {
			u := &unit{text: b, line: 1}
			d.add(u, found{kind: "private-key", title: "Private key of PuTTY", base: 80, value: string(b[m[2]:m[3]]), at: m[2], end: m[3] - 1})
		}
	}
}

// cookies reads a jar in Netscape's form, as curl and browsers' exports have it: sessions
// that open an account like its password.
func (d *doc) cookies(b []byte) {
	line := 0
	for l := range bytes.Lines(b) {
		line++
		parts := strings.Split(strings.TrimRight(string(l), "\r\n"), "\t")
		if len(parts) != 7 || !sessionName.MatchString(parts[5]) || !random(parts[6], 16) || placeholder(parts[6]) {
			continue
		}
		host := strings.TrimPrefix(strings.TrimPrefix(parts[0], "#HttpOnly_"), ".")
		f := found{kind: "session-cookie", title: "Session cookie of " + host, provider: providerOfHost(host), base: 60, value: parts[6], key: parts[5], line: line}
		if n, err := strconv.ParseInt(parts[4], 10, 64); err == nil && n > 0 && n < 1<<37 {
			f.expires = time.Unix(n, 0).UTC()
		}
		d.addParsed(f)
	}
}

var (
	sessionName = lazily(`(?i)sess|auth|token|jwt|(?:^|[_.-])s?sid$|remember|login`)
	puttyForm   = lazily(`(?m)^Private-Lines: \d+\r?\n((?:[A-Za-z0-9+/=]+\r?\n)+)`)
)

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
	if strings.ContainsAny(v, " \t\n") || placeholder(v) || !random(v, 16) {
		return
	}
	before := len(d.found)
	d.text(&unit{text: []byte(v), line: 1, flat: true, mode: forms})
	if len(d.found) > before {
		return
	}
	name := strings.TrimSuffix(d.base, path.Ext(d.base))
	if classOf(name) < telling {
		name = "token"
	}
	if path.Ext(d.base) == ".key" {
		name = "secret_key"
	}
	f := kindOf(name, telling, v)
	if f.provider = providerOf(nameWords(d.path)); f.provider != "" {
		f.title = providerName(f.provider) + " token"
		f.base = issuers[f.provider].base
	}
	f.value, f.line = v, 1
	d.addParsed(f)
}

// tables reads the columns of a list, as password managers and browsers write them
// (CSV), or of a table in Markdown, whose head names what stands below it.
func (d *doc) tables(b []byte) {
	ext := path.Ext(d.base)
	csv := ext == ".csv" || ext == ".tsv"
	if !csv && ext != ".md" {
		return
	}
	var head []class
	var names []string
	line, lines := 0, 0 // lines of the table
	for l := range bytes.Lines(b) {
		line++
		text := strings.TrimSpace(string(l))
		if !csv && !strings.HasPrefix(text, "|") || len(text) > 4096 {
			head, lines = nil, 0
			if csv {
				return
			}
			continue
		}
		cells := row(text, csv)
		if lines++; lines == 1 {
			tells := false
			head, names = nil, nil
			for _, c := range cells {
				k := classOf(c)
				tells = tells || k >= telling
				head, names = append(head, k), append(names, c)
			}
			if !tells {
				if head = nil; csv {
					return
				}
			}
			continue
		}
		if len(cells) != len(head) {
			continue
		}
		for i, v := range cells {
			if head[i] < telling || v == "" || uuid.MatchString(v) || strings.Contains(v, " ") || !plausible(head[i], v, config, true) {
				continue
			}
			f := kindOf(names[i], head[i], v)
			f.value, f.key, f.line = v, names[i], line
			d.addParsed(f)
		}
	}
}

// row parts a line of a table.
func row(text string, csv bool) (cells []string) {
	sep := "|"
	if csv {
		sep = ","
		for _, s := range []string{"\t", ";"} {
			if strings.Contains(text, s) && !strings.Contains(text, ",") {
				sep = s
			}
		}
	} else {
		text = strings.Trim(text, "|")
	}
	for c := range strings.SplitSeq(text, sep) {
		cells = append(cells, strings.Trim(strings.TrimSpace(c), "\"`"))
	}
	return cells
}

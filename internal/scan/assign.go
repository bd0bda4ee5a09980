package scan

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
)

// found is a credential before it is known who can read it.
type found struct {
	kind, title, provider string
	base                  int
	value                 string
	also                  string // a second form of the value, which no output may hold either
	at, end               int    // in the unit; end 0: the same line
	key                   string // of a value that was parsed
	line                  int    // of a value that was parsed
	weak                  bool
	opens                 string
	expires               time.Time
}

func nameByte(c byte) bool { return wordByte(c) || c == '-' || c == '.' }

// value is what stands after a name, and how.
type value struct {
	from, to int
	quoted   bool
	spaced   bool // only a space parts it from its name
	called   bool // it is an argument
}

// assigned reads what the name at a place is given, and returns where that name began;
// last is where the name before began.
func (d *doc) assigned(u *unit, at, last int) int {
	t := u.text
	from := at
	for from > 0 && at-from < 80 && nameByte(t[from-1]) {
		from--
	}
	if from == last {
		return last
	}
	to := at
	for to < len(t) && to-from < 120 && nameByte(t[to]) {
		to++
	}
	// In an escaped text the name may begin with what was \n.
	if from > 0 && t[from-1] == '\\' && from < at && strings.IndexByte("ntr", t[from]) >= 0 {
		from++
	}
	name := strings.Trim(string(t[from:to]), ".-")
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		name = name[i+1:]
	}
	if from > 0 && t[from-1] == ':' && resource(t[max(0, from-200):from]) {
		return from
	}
	c := classOf(name)
	if c == hinting && name != "" && from > 1 && t[from-1] == ' ' { // "api key is …"
		k := from - 1
		for k > 0 && wordByte(t[k-1]) {
			k--
		}
		if w := strings.ToLower(string(t[k : from-1])); before[w] {
			name, c = w+" "+name, telling
		}
	}
	if c == hinting && strings.EqualFold(name, "key") && bytes.Contains(bytes.ToLower(t[max(0, from-24):from]), []byte("crypt")) {
		c = telling // 'crypt' => ['key' => …
	}
	if c == plain || len(name) > 80 {
		return from
	}
	if u.mode == config && c >= telling && d.several(u, name, c, from, to) {
		return from
	}
	v, ok := d.valueAfter(u, from, to)
	if !ok {
		return from
	}
	if n := v.to - v.from; n > cheap && u.afford(judging*n) < judging*n {
		return from
	}
	text := string(t[v.from:v.to])
	if !v.quoted {
		text = strings.TrimRight(text, ".,;")
	}
	if !v.quoted && schemes[strings.ToLower(text)] && v.to+1 < len(t) && t[v.to] == ' ' { // Authorization: token …
		if v, ok = readValue(u, v.to, false); !ok {
			return from
		}
		v.quoted, text = true, strings.TrimRight(string(t[v.from:v.to]), ".,;")
	}
	if scheme, rest, ok := strings.Cut(text, " "); v.quoted && ok && schemes[strings.ToLower(scheme)] && rest != "" { // Authorization:'Token …'
		v.from, text = v.from+len(scheme)+1, rest
	}
	d.named(u, name, c, text, v, from)
	return from
}

var (
	severalForm = lazily(`^\s*[=:]\s*(?:toset\()?([\[{])`)
	quotedForm  = lazily(`"([^"\n]{4,400})"\s*([=:]?)`)
)

// several reads the lists and maps of Terraform: api_keys = ["…"], passwords = {a = "…"}.
func (d *doc) several(u *unit, name string, c class, from, to int) bool {
	if !strings.HasSuffix(strings.ToLower(name), "s") {
		return false
	}
	t := u.text[to:min(len(u.text), to+4096)]
	m := severalForm.FindSubmatchIndex(t[:min(len(t), 60)])
	if m == nil {
		return false
	}
	end := bytes.IndexByte(t[m[3]:], map[byte]byte{'[': ']', '{': '}'}[t[m[2]]])
	if end < 0 || u.afford(end) < end {
		return false
	}
	for _, q := range quotedForm.FindAllSubmatchIndex(t[m[3]:m[3]+end], 100) {
		if q[4] != q[5] { // the key of a map
			continue
		}
		v := value{from: to + m[3] + q[2], to: to + m[3] + q[3], quoted: true}
		d.named(u, name, c, string(u.text[v.from:v.to]), v, from)
	}
	return true
}

// schemes stand before a credential in a header.
var schemes = set("token bearer apikey api-key key bot ssws basic")

// named judges a value under a telling name in a text.
func (d *doc) named(u *unit, name string, c class, text string, v value, from int) {
	m := u.mode
	if v.quoted && m == prose {
		m = code
	}
	if !v.quoted && m == prose && variableLine(u.text, from) { // the output of env
		m = config
	}
	if !v.quoted && m == code && from > 0 && u.text[from-1] == ';' { // amid a connection string
		m = config
	}
	if !v.quoted && (m == code || m == prose) && c == password && from > 0 && libpq.Match(u.text[max(0, from-160):min(len(u.text), v.to+160)]) {
		m = config
	}
	if !v.quoted && m == prose && c == password && lineStart(u.text, from) && lineEnd(u.text, v.to) {
		m = config // a line of its own, in a note or a mail
	}
	if from > 0 && u.text[from-1] == '[' && (strings.HasPrefix(text, "/") || strings.HasPrefix(text, "#")) { // where a link of Markdown leads
		return
	}
	if strings.HasSuffix(strings.ToLower(name), "cookie") && d.cookie(u, v.from, text) {
		return
	}
	if !plausible(c, text, m, v.quoted) || echoes(name, text) || workingFolder(name, text, false) || siteKey(name, text) {
		return
	}
	if !v.quoted && m == code && (c != telling || !random(text, 16) || expression(u.text, v.to) || !inString(u.text, from)) {
		return
	}
	if !v.quoted && m == prose && c == password && (len(text) < 7 || classes(text) < 2) {
		return
	}
	if c == hinting && m != config && !symbolic(text) && (!v.quoted || !random(text, 24) || classes(text) < 3) {
		return
	}
	if v.spaced && c != telling && !(m == config && c == password) {
		return
	}
	if !u.take(v.from, v.from+len(text)) {
		return
	}
	f := kindOf(name, c, text)
	f.value, f.at, f.key = text, v.from, joinKey(u.path, name)
	d.add(u, f)
}

var assignment = lazily(`^[A-Z][A-Z0-9_]{2,60}=\S`)

// variableLine reports whether a line begins, as far as a text has it, with the name of a
// variable and what it is set to.
func variableLine(t []byte, from int) bool {
	for from > 0 && wordByte(t[from-1]) {
		from--
	}
	return (from == 0 || t[from-1] == '\n') && assignment.Match(t[from:min(len(t), from+64)])
}

// siteKey reports whether a value is the key of a page for reCAPTCHA, which everyone sees;
// the secret looks alike.
func siteKey(name, v string) bool {
	return len(v) == 40 && strings.HasPrefix(v, "6L") && strings.Contains(strings.ToLower(name), "captcha") && !strings.Contains(strings.ToLower(name), "secret")
}

var cookiePair = lazily(`^([\w.-]{2,60})=([^;\s"']{16,1000})`)

// cookie reads the sessions that a header of HTTP holds, which may stand among others.
func (d *doc) cookie(u *unit, at int, text string) (any bool) {
	for pair := range strings.SplitAfterSeq(text, ";") {
		from := at + len(pair) - len(strings.TrimLeft(pair, " "))
		at += len(pair)
		m := cookiePair.FindStringSubmatch(strings.TrimLeft(pair, " "))
		if m == nil || !sessionName.MatchString(m[1]) || strings.Contains(strings.ToLower(m[1]), "csrf") || strings.Contains(strings.ToLower(m[1]), "xsrf") || !random(m[2], 20) || placeholder(m[2]) {
			continue
		}
		any = true
		if from += len(m[1]) + 1; u.take(from, from+len(m[2])) {
			d.add(u, found{kind: "session-cookie", title: "Session cookie", base: 55, value: m[2], at: from, key: joinKey(u.path, m[1])})
		}
	}
	return any
}

// resource reports whether a text ends amid the name of a resource at AWS, which has words
// like secret between its colons.
func resource(t []byte) bool {
	return bytes.HasPrefix(t[1+bytes.LastIndexAny(t, " \t\n\"'`=,"):], []byte("arn:"))
}

// libpq matches what stands beside a password in a connection string of PostgreSQL.
var libpq = lazily(`\b(?:dbname|host|user)=\S+ (?:[^"\n]* )?(?:password|user|host|dbname)=`)

// symbolic reports whether a value is long and random over all signs of a keyboard, as
// WordPress makes them; it is no text of a program.
func symbolic(v string) bool {
	return len(v) >= 32 && len(v) <= 128 && classes(v) == 4 && entropy(v) > 4.3 && strings.IndexByte("{[<(\"", v[0]) < 0 &&
		!strings.Contains(v, `":`) && !strings.Contains(v, "</") && strings.Count(v, " ") <= 4 && strings.ContainsAny(v, "!#$%^&*~") && !strings.Contains(v, "://")
}

// echoes reports whether a value repeats its name: encryptionKey: encryptionKey1024.
func echoes(name, v string) bool {
	bare := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r >= 'A' && r <= 'Z' {
				return r + 'a' - 'A'
			}
			if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
				return r
			}
			return -1
		}, s)
	}
	n := bare(name)
	return len(n) >= 6 && strings.Contains(bare(v), n)
}

// inString reports whether a name stands amid a literal, as those of an address's query do.
func inString(t []byte, from int) bool {
	if from > 0 && (t[from-1] == '?' || t[from-1] == '&') {
		return true
	}
	line := t[max(0, from-400):from]
	if i := bytes.LastIndexByte(line, '\n'); i >= 0 {
		line = line[i+1:]
	}
	return bytes.Count(line, []byte{'"'})%2 == 1 || bytes.Count(line, []byte{'\''})%2 == 1 || bytes.Count(line, []byte{'`'})%2 == 1
}

// expression reports whether code goes on after a value as no literal would.
func expression(t []byte, at int) bool {
	return at < len(t) && strings.IndexByte("([.?+*<", t[at]) >= 0
}

func joinKey(path, name string) string {
	if path == "" {
		return name
	}
	return path + " › " + name
}

var (
	typed = lazily(`^\s*:\s*(?:&?'?\w+\s+)?[&*]?(?:[Ss]tring|str|&str|text|TEXT|Optional\[str\]|String\?|SecretStr|varchar|any|const char\s*\*)\s*=|^\s+(?:string|\[\]byte|str|String)\s*:?=`)
	// ofWhat matches between a password and what it is: "password for the admin account is".
	netrcLine = lazily(`\bmachine \S+\s+login \S+\s+$`)
	ofWhat    = lazily(`^(?:for|of|to|on)(?: [\w@.'-]+){1,6}? (?:is|=|:) `)
	xmlIn     = lazily(`^\s*(?:value|content|secret)\s*=`)
)

// valueAfter finds the value that a text gives the name between two places.
func (d *doc) valueAfter(u *unit, from, to int) (value, bool) {
	t := u.text
	i := to
	quoted := false
	for i < len(t) && (t[i] == '"' || t[i] == '\'' || t[i] == '`' || t[i] == ']' || t[i] == ')' && quoted || t[i] == '\\') && i-to < 4 {
		quoted = true
		i++
	}
	if m := typed.FindIndex(t[i:min(len(t), i+60)]); m != nil {
		return readValue(u, i+m[1], false)
	}
	if quoted {
		if m := xmlIn.FindIndex(t[i:min(len(t), i+40)]); m != nil {
			return readValue(u, i+m[1], false)
		}
	}
	j := i
	for j < len(t) && (t[j] == ' ' || t[j] == '\t') {
		j++
	}
	if j >= len(t) {
		return value{}, false
	}
	rest := t[j:]
	for _, sep := range []string{":=", "=>", "?=", "||=", "??=", "+=", "->", "::"} {
		if bytes.HasPrefix(rest, []byte(sep)) {
			return readValue(u, j+len(sep), false)
		}
	}
	switch {
	case bytes.HasPrefix(rest, []byte("==")), bytes.HasPrefix(rest, []byte("!=")):
		return value{}, false
	case rest[0] == '=', rest[0] == ':' && (u.mode != code || quoted || j+1 < len(t)):
		return readValue(u, j+1, false)
	case rest[0] == '>' && from > 0 && t[from-1] == '<':
		k := bytes.IndexByte(rest, '<')
		if k < 2 || k > 2000 {
			return value{}, false
		}
		return value{from: j + 1, to: j + k, quoted: true}, true
	case rest[0] == ',' && quoted && from > 0 && strings.IndexByte("\"'`", t[from-1]) >= 0, rest[0] == '(' && !quoted:
		v, ok := readValue(u, j+1, false)
		v.called = true
		return v, ok && v.quoted
	case j > i && rest[0] != 'i' && classOf(string(t[from:to])) > plain && ofWhat.Match(rest[:min(len(rest), 100)]):
		return d.said(u, j+len(ofWhat.Find(rest[:min(len(rest), 100)])))
	case bytes.HasPrefix(rest, []byte("is ")), bytes.HasPrefix(rest, []byte("is: ")):
		return d.said(u, j+3)
	case j > i && (rest[0] == '\'' || rest[0] == '"' || rest[0] == '`' && u.mode == prose) && classOf(string(t[from:to])) == password:
		v, ok := readValue(u, j, true)
		v.spaced = false
		return v, ok
	case j > i && netrcLine.Match(t[max(0, from-200):from]):
		v, ok := readValue(u, j, true)
		v.spaced = false
		return v, ok
	case j > i && (from > 0 && t[from] == '-' || lineCommand(t, from)):
		return readValue(u, j, true)
	case j > i && u.mode == config && lineStart(t, from):
		v, ok := readValue(u, j, true)
		return v, ok && lineEnd(t, v.to) && (!u.flat || classes(string(t[v.from:v.to])) >= 3) // "Passwort vergessen?"
	}
	return value{}, false
}

// said reads what a sentence says that a secret is.
func (d *doc) said(u *unit, at int) (value, bool) {
	v, ok := readValue(u, at, true)
	if !ok || v.quoted {
		v.spaced = false
		return v, ok
	}
	text := string(u.text[v.from:v.to])
	v.spaced = len(text) < 8 || wordy(strings.TrimRight(text, ".!?"))
	return v, classes(text) >= 3
}

var commands = lazily(`(?:^|\n)\s*(?:setenv|ENV|ARG|set\s+-\w+|setx|export|fly\s+secrets\s+set|aws\s+configure\s+set|.*\bconfigure\s+set|SetEnv|env|fastcgi_param|proxy_set_header)\s+$`)

// lineCommand reports whether a command that sets a variable stands before a name.
func lineCommand(t []byte, from int) bool { return commands.Match(t[max(0, from-24):from]) }

func lineStart(t []byte, from int) bool {
	for i := from - 1; i >= 0; i-- {
		if t[i] == '\n' {
			return true
		}
		if t[i] != ' ' && t[i] != '\t' {
			return false
		}
	}
	return true
}

func lineEnd(t []byte, at int) bool {
	for ; at < len(t) && t[at] != '\n'; at++ {
		if t[at] != ' ' && t[at] != '\t' && t[at] != '\r' && t[at] != '"' && t[at] != '\'' {
			return false
		}
	}
	return true
}

// readValue reads a literal: in quotes, or up to what ends a word.
func readValue(u *unit, i int, spaced bool) (value, bool) {
	t := u.text
	for i < len(t) && (t[i] == ' ' || t[i] == '\t') {
		i++
	}
	for n := 0; n < 2 && i+1 < len(t) && strings.IndexByte("fbruFBRU@$L", t[i]) >= 0; n++ { // f"…", @"…"
		if t[i+1] == '"' || t[i+1] == '\'' || n == 0 && i+2 < len(t) && (t[i+2] == '"' || t[i+2] == '\'') && strings.IndexByte("fbruFBRU@$", t[i+1]) >= 0 {
			i++
		} else {
			break
		}
	}
	if i >= len(t) {
		return value{}, false
	}
	start, end := i, i+min(4096, len(t)-i)
	if u.budget < end-i && end-i > cheap {
		end = i + cheap
	}
	defer func() {
		if i-start > cheap {
			u.budget -= i - start
		}
	}()
	if t[i] == '\\' && i+1 < len(t) && (t[i+1] == '"' || t[i+1] == '\'') {
		q := t[i : i+2]
		if e := bytes.Index(t[i+2:max(i+2, end)], q); e > 0 {
			return value{from: i + 2, to: i + 2 + e, quoted: true, spaced: spaced}, true
		}
		return value{}, false
	}
	if q := t[i]; q == '"' || q == '\'' || q == '`' {
		if bytes.HasPrefix(t[i:], []byte{q, q, q}) {
			start, i = i+2, i+2
		}
		for i++; i < end && t[i] != '\n'; i++ {
			if t[i] == '\\' {
				i++
				continue
			}
			if t[i] == q {
				return value{from: start + 1, to: i, quoted: true, spaced: spaced}, i > start+1
			}
		}
		return value{}, false
	}
	stop := " \t\r\n\"'`<>|"
	switch u.mode {
	case code, prose:
		stop += ",;(){}[]&\\"
	default:
		stop += ";&\\"
	}
	for i < end && strings.IndexByte(stop, t[i]) < 0 {
		i++
	}
	if i == start+cheap && i == end && i < len(t) {
		u.tired = true
		return value{}, false
	}
	if i < len(t) && t[i] == '\\' && u.mode != code { // an escaped end of the line
		if i+1 < len(t) && strings.IndexByte(`nrt"'`, t[i+1]) < 0 {
			return value{}, false
		}
	}
	return value{from: start, to: i, spaced: spaced}, i > start
}

// classes counts the kinds of characters in a value.
func classes(v string) int {
	var lower, upper, digit, other int
	for i := range len(v) {
		switch c := v[i]; {
		case c >= 'a' && c <= 'z':
			lower = 1
		case c >= 'A' && c <= 'Z':
			upper = 1
		case c >= '0' && c <= '9':
			digit = 1
		default:
			other = 1
		}
	}
	return lower + upper + digit + other
}

// defaults are what people write where a password has to stand, with a number or without.
var defaults = lazily(`^(?i)(?:my|the|our|db|user|usr|admin|administrator|root|test|testing|demo|dev|devel|local|localhost|app|default|guest|pass|password|passwd|passw0rd|secret|pw|pwd|change|me|temp|temporary|initial|dummy|sample|postgres|mysql|redis|mongo|rabbit|service|value|new|old|some|any|enter|type|choose|strong|secure|super|very|long|random|in|here|this|a|an|is|not|real|only|string|token|key|api|database|example|of|for|use|put|insert|must|be|set|from|vault|env|file|with|and|or|at|least|chars|characters|[_\s.-])+[\d!@#$]{0,4}$`)

// varied2 matches a default that meets a policy, and is then in use: Admin123!.
var varied2 = lazily(`^[A-Z][a-z]{3,}\d{2,4}[!@#$%]$|^change-?me[-_.]`)

// passwordLike reports whether a person may have chosen a value as their password.
func passwordLike(v string, m mode) bool {
	n, kinds := len(v), classes(v)
	letters := strings.ContainsFunc(v, func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' })
	switch {
	case n < 5 || n > 200 || defaults.MatchString(v) && !(m == config && varied2.MatchString(v)) || strings.HasPrefix(v, "--") || strings.HasPrefix(v, "//"):
		return false
	case strings.ContainsAny(v, " \t"):
		words := len(strings.Fields(v))
		return m == config && (kinds >= 3 && words <= 2 && n <= 40 && !wordy(v) || appPassword.MatchString(v))
	case pathLike.MatchString(v) && wordyPath(v), dateLike.MatchString(v), version.MatchString(v), strings.Contains(v, "://"), cloudID.MatchString(v):
		return false
	case !letters:
		return m == config && n >= 8 && entropy(v) > 2
	case wordy(v):
		switch {
		case m == code && kinds >= 3 && n >= 8 && n <= 24 && midDigit.MatchString(v):
			return true
		case m != config:
			return kinds == 4 && n >= 9 && n <= 40 && strings.ContainsAny(v, "+^*~#$%&") && !pathTail.MatchString(v)
		case kinds == 4 && n >= 8 && !pathTail.MatchString(v):
			return true
		case kinds >= 2 && n >= 8 && strings.ContainsAny(v, "0123456789") && !strings.ContainsAny(v, "./:"):
			return true
		}
		return n >= 18 && len(strings.FieldsFunc(v, func(r rune) bool { return r == '-' || r == '.' || r == '_' })) >= 4 && !strings.Contains(v, "password")
	case m == code:
		return n >= 7 && kinds >= 2 && !strings.ContainsAny(v, "{}()[]<>\\") && !dotted.MatchString(v)
	}
	return kinds >= 2 || n >= 10
}

// midDigit matches a word with a number in it, as people make passwords.
var midDigit = lazily(`^[A-Z][a-z]{3,}[0-9]{1,4}[a-z]{2,}$`)

var (
	appPassword = lazily(`^[a-z]{4} [a-z]{4} [a-z]{4} [a-z]{4}$`)
	dotted      = lazily(`^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+$`)
	sentence    = lazily(`^[A-Z]?[a-z]+(?: [a-z]+){2,}`)
	keyDER      = lazily(`^(?:MII[A-Za-z0-9+/]{3}|AAAAB3Nza|AAAAC3Nza|AAAAE2Vj|LS0tLS1CRUdJTiBDRVJU|LS0tLS1CRUdJTiBQVUJM|ssh-(?:rsa|ed25519)|ecdsa-sha2)`)
	number      = lazily(`^[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?$`)
	digestLen   = map[int]bool{32: true, 40: true, 56: true, 64: true, 96: true, 128: true}
)

// plausible reports whether a value can be what its name says.
func plausible(c class, v string, m mode, quoted bool) bool {
	if c != password && number.MatchString(v) {
		return false
	}
	if placeholder(v) || sentence.MatchString(v) || keyDER.MatchString(v) || strings.Contains(v, "://") || strings.HasPrefix(v, "/") && pathTail.MatchString(v) || strings.HasPrefix(v, "data:") {
		return false
	}
	if m == code && !symbolic(v) && strings.ContainsAny(v, "{}\"`<>") || v[0] == '*' || v[0] == '&' {
		return false
	}
	if c != password && symbolic(v) {
		return true
	}
	if c != password && strings.ContainsAny(v, "{}\"'`<>() ,;") {
		return false
	}
	switch c {
	case password:
		return passwordLike(v, m) || random(v, 12) || m == config && uuid.MatchString(v)
	case telling:
		least := 16
		if m == config {
			least = 10
		}
		if dotted.MatchString(v) && wordy(v) || pathTail.MatchString(v) && wordyPath(v) && len(v) < 40 {
			return false
		}
		return random(v, least) || m == config && chancy(v) || uuid.MatchString(v) && (m == config || quoted) || m == config && len(v) >= 8 && classes(v) >= 3 && !wordy(v) && passwordLike(v, m)
	case hinting:
		digest := v[1+strings.LastIndexByte(v, '-'):] // build-<digest> is the key of a cache
		return random(v, 20) && classes(v) >= 2 && !(hexOnly.MatchString(digest) && digestLen[len(digest)])
	}
	return false
}

// chancy reports whether a piece of small letters has a number amid them and too few vowels
// for a word, as chance makes them.
func chancy(v string) bool {
	if len(v) < 12 || countLetters(v) < 8 || !amid.MatchString(v) {
		return false
	}
	vowels := 0
	for i := range len(v) {
		if strings.IndexByte("aeiouy", v[i]) >= 0 {
			vowels++
		}
	}
	return 10*vowels < 3*countLetters(v)
}

var amid = lazily(`^[a-z0-9]*\d[a-z0-9]*[a-z]$`)

// kindOf names what a value under a telling name is.
func kindOf(name string, c class, v string) found {
	w := nameWords(name)
	p := providerOf(w)
	has := func(x ...string) bool {
		for _, y := range x {
			found := false
			for _, z := range w {
				found = found || z == y
			}
			if !found {
				return false
			}
		}
		return true
	}
	f := found{kind: "secret", title: "Secret", provider: p, base: 55}
	if i, ok := issuers[p]; ok {
		f.base = i.base
	}
	switch {
	case c == password:
		f.kind, f.title, f.base, f.weak = "password", "Password", 55, true
	case has("secret", "access", "key") && (p == "aws" || p == "" && len(v) == 40):
		f.kind, f.title, f.provider, f.base = "aws-secret-key", "AWS secret access key", "aws", 85
	case has("session", "token") && p == "aws":
		f.kind, f.title, f.base = "aws-session-token", "AWS session token", 60
	case has("client", "secret"):
		f.kind, f.title = "client-secret", "OAuth client secret"
	case has("refresh", "token"):
		f.kind, f.title, f.base = "refresh-token", "Refresh token", max(f.base, 65)
	case has("private", "key"), has("signing", "key"), has("encryption", "key"), has("master", "key"), has("secret", "key"):
		f.kind, f.title, f.base = "secret-key", "Secret key", max(f.base, 60)
	case has("key"):
		f.kind, f.title = "api-key", "API key"
	case has("token"), has("pat"), has("jwt"), has("bearer"), has("auth"), has("authorization"):
		f.kind, f.title = "token", "Access token"
	}
	if f.provider != "" && f.kind != "aws-secret-key" {
		f.title = providerName(f.provider) + " " + strings.ToLower(f.title[:1]) + f.title[1:]
		f.title = strings.Replace(strings.Replace(f.title, " aPI", " API", 1), " oAuth", " OAuth", 1)
	}
	return f
}

// claims are the parts of a token that tell what it is.
type claims struct {
	Iss, Sub, Scope, Role, Name string
	Exp                         json.Number
	Ref                         string
}

func readClaims(b []byte) claims {
	var raw map[string]any
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var c claims
	if dec.Decode(&raw) != nil {
		return c
	}
	text := func(k string) string { s, _ := raw[k].(string); return s }
	c = claims{Iss: text("iss"), Sub: text("sub"), Scope: text("scope"), Role: text("role"), Name: text("name"), Ref: text("ref")}
	c.Exp, _ = raw["exp"].(json.Number)
	return c
}

// public reports whether a token is meant to be seen by everyone, or is the example
// that everyone uses.
func (c claims) public() bool {
	return c.Role == "anon" || c.Iss == "supabase-demo" || c.Sub == "1234567890" && c.Name == "John Doe"
}

func (c claims) expires() time.Time {
	n, err := c.Exp.Int64()
	if err != nil || n <= 0 || n > 253402300799 {
		return time.Time{}
	}
	return time.Unix(n, 0).UTC()
}

func (c claims) provider() string {
	if c.Ref != "" && c.Iss == "supabase" {
		return "supabase"
	}
	_, rest, ok := strings.Cut(c.Iss, "://")
	if !ok {
		return providerOf(nameWords(c.Iss))
	}
	host, _, _ := strings.Cut(rest, "/")
	return providerOfHost(host)
}

func (c claims) opens() string {
	if s := c.Scope; s != "" && len(s) < 120 {
		return "scopes " + s
	}
	if c.Role != "" && len(c.Role) < 40 {
		return "role " + c.Role
	}
	return ""
}

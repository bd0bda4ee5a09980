package scan

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// mode says what a text is, which decides what a value without quotes is worth.
type mode int

const (
	code   mode = iota // an expression, mostly
	prose              // a word, mostly
	config             // a value
	forms              // only tokens with a form of their own are looked for
)

// unit is a text that is read in one go.
type unit struct {
	text []byte
	low  []byte
	line int    // of its first byte
	flat bool   // all of it stands on that line of the file: it is a value that was unescaped
	path string // of the value in its file
	mode mode

	spans  []span // sorted
	lines  lineCounter
	budget int
	tired  bool // something was left unread: the budget was spent
}

const (
	// cheap is how many bytes may always be looked at around one word.
	cheap = 256
	// effort bounds the work on a text: so many times its length. Names and keywords that
	// stand so close that each sees the same kilobytes would make it the square.
	effort = 64
	// judging a value costs so many times as much as looking at it.
	judging = 16
	// maxSpans bounds what is found in one text.
	maxSpans = 50_000
)

// afford is how many of n bytes may be looked at.
func (u *unit) afford(n int) int {
	switch {
	case n <= cheap:
		return n
	case u.budget >= n:
		u.budget -= n
		return n
	}
	u.tired = true
	return cheap
}

type span struct{ from, to int }

// lineCounter counts on from where it was asked last.
type lineCounter struct{ at, line int }

func (u *unit) lineAt(off int) int {
	if u.flat {
		return u.line
	}
	if off < u.lines.at {
		u.lines.line -= bytes.Count(u.text[off:u.lines.at], []byte{'\n'})
	} else {
		u.lines.line += bytes.Count(u.text[u.lines.at:off], []byte{'\n'})
	}
	u.lines.at = off
	return u.line + u.lines.line
}

// take claims a part of the text for one finding.
func (u *unit) take(from, to int) bool {
	i, _ := slices.BinarySearchFunc(u.spans, from, func(s span, at int) int { return cmp.Compare(s.from, at) })
	if i > 0 && from < u.spans[i-1].to || i < len(u.spans) && u.spans[i].from < to {
		return false
	}
	if len(u.spans) >= maxSpans {
		u.tired = true
		return false
	}
	u.spans = slices.Insert(u.spans, i, span{from, to})
	return true
}

// hit is small: a text may be full of them.
type hit struct {
	at   int32
	mark mark
}

// text looks for credentials in a text, from the surest signs to the vaguest, so
// that what is known by its form is not told a second time by its name.
func (d *doc) text(u *unit) {
	if len(u.text) < 8 {
		return
	}
	u.low = d.r.lower(u.text)
	u.budget = effort*len(u.text) + 1<<20
	defer func() { d.tired = d.tired || u.tired }()
	var later []hit
	d.r.s.rules.trie.Walk(u.low, func(end, n, pattern int64) bool {
		if d.stopped() {
			return false
		}
		h := &d.r.s.rules.hooks[pattern]
		at := int(end - n + 1)
		for _, r := range h.rules {
			d.token(u, r, at, int(n))
		}
		switch h.mark {
		case pemMark:
			d.pem(u, at)
		case jwtMark:
			d.jwt(u, at)
		case packedMark:
			d.packed(u, at)
		case noMark:
		default:
			later = append(later, hit{int32(at), h.mark})
		}
		return true
	})
	d.r.release(u.low)
	u.low = nil
	if u.mode == forms && len(later) > 0 {
		later = slices.DeleteFunc(later, func(h hit) bool { return h.mark != urlMark && h.mark != headerMark })
	}
	for _, h := range later {
		if d.stopped() {
			return
		}
		switch h.mark {
		case urlMark:
			d.url(u, int(h.at))
		case headerMark:
			d.header(u, int(h.at))
		case userMark:
			d.userFlag(u, int(h.at))
		case dsnMark:
			d.dsn(u, int(h.at))
		case callMark:
			d.call(u, int(h.at))
		}
	}
	last := -1
	for _, h := range later {
		if d.stopped() {
			return
		}
		if h.mark == nameMark || h.mark == headerMark && u.mode != forms {
			last = d.assigned(u, int(h.at), last)
		}
	}
}

func wordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}

// begins reports whether a word begins at a place: before it is no part of a word, or
// an escape such as \n.
func begins(t []byte, at int) bool {
	if at == 0 || !wordByte(t[at-1]) {
		return true
	}
	if at >= 2 && t[at-2] == '\\' && strings.IndexByte("ntr", t[at-1]) >= 0 {
		return true
	}
	return at >= 3 && t[at-3] == '%' && strings.IndexByte("0123456789abcdefABCDEF", t[at-2]) >= 0 && strings.IndexByte("0123456789abcdefABCDEF", t[at-1]) >= 0
}

const (
	behind = 120  // bytes before a keyword that an expression sees
	ahead  = 1600 // and after it
)

// token tries a rule at a keyword.
func (d *doc) token(u *unit, r *rule, at, keyword int) {
	t := u.text
	from, to := at, min(len(t), at+ahead)
	if r.anchored {
		if !begins(t, at) || at > 0 && (t[at-1] == '.' || t[at-1] == '-') && keyword < 4 {
			return
		}
		if n := at + keyword; n < len(t) && (t[n] == ' ' || t[n] == '\n') && r.id != "okta-token" {
			return
		}
	} else {
		from = max(0, at-behind)
		if i := bytes.LastIndexByte(t[from:at], '\n'); i >= 0 {
			from += i + 1
		}
	}
	if i := bytes.IndexByte(t[at:to], '\n'); i >= 0 {
		to = at + i + 1
	}
	if !r.anchored {
		to = max(at+keyword, min(to, from+u.afford(to-from)))
	}
	re, allow := r.compile()
	window := t[from:to]
	for _, m := range re.FindAllSubmatchIndex(window, 8) {
		a, b := m[0], m[1]
		switch {
		case r.group > 0 && len(m) > 2*r.group+1 && m[2*r.group] >= 0:
			a, b = m[2*r.group], m[2*r.group+1]
		case r.group == 0 && !r.anchored:
			for g := 2; g+1 < len(m); g += 2 {
				if m[g] >= 0 && m[g+1] >= m[g]+8 { // a shorter group only counts something
					a, b = m[g], m[g+1]
					break
				}
			}
		}
		v := string(window[a:b])
		if i := strings.IndexByte(v, '='); r.anchored && i > 0 && i < 16 && strings.HasSuffix(r.keywords[0], "=") {
			a += i + 1
			v = v[i+1:]
		}
		body := v
		if r.anchored {
			body = v[min(len(v), keywordIn(v, r.keywords)):]
		}
		if !r.anchored && r.group == 0 && !begins(window, a) && wordByte(window[a]) || entropy(v) < r.entropy || printed(v) || fakeBody(body) || len(body) >= 10 && (wordy(body) && r.provider != "huggingface" || entropy(body) < 2.4) {
			continue
		}
		if slices.ContainsFunc(allow, func(x *regexp.Regexp) bool { return x.MatchString(v) }) {
			continue
		}
		if !u.take(from+a, from+b) {
			continue
		}
		f := found{kind: r.id, title: r.title, provider: r.provider, base: r.base, value: v, at: from + a}
		if r.provider == "stripe" && d.workos(u, from+a) {
			f.kind, f.title, f.provider, f.base = "workos-key", "WorkOS API key", "workos", issuers["workos"].base
		}
		d.add(u, f)
		if r.id == awsID {
			d.awsPair(u, from+a, from+b)
		}
	}
}

// workos reports whether a key in Stripe's form stands under a name that speaks of WorkOS,
// whose keys begin alike.
func (d *doc) workos(u *unit, at int) bool {
	if strings.Contains(strings.ToLower(u.path), "workos") {
		return true
	}
	line := u.text[max(0, at-80):at]
	line = line[bytes.LastIndexByte(line, '\n')+1:]
	return bytes.Contains(bytes.ToLower(line), []byte("workos"))
}

func keywordIn(v string, keywords []string) int {
	low := strings.ToLower(v)
	for _, k := range keywords {
		if strings.HasPrefix(low, k) {
			return len(k)
		}
	}
	return 0
}

var awsSecret = lazily(`(?:^|[^A-Za-z0-9/+=])([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|$)`)

// awsPair looks for the secret beside an access key id that stands in plain text.
func (d *doc) awsPair(u *unit, from, to int) {
	window := u.text[to:min(len(u.text), to+300)]
	for _, m := range awsSecret.FindAllSubmatchIndex(window, 4) {
		v := string(window[m[2]:m[3]])
		if hexOnly.MatchString(v) || !random(v, 40) || fakeBody(v) || strings.Count(v, "/") > 6 {
			continue
		}
		if a := to + m[2]; u.take(a, to+m[3]) {
			d.add(u, found{kind: "aws-secret-key", title: "AWS secret access key", provider: "aws", base: 85, value: v, at: a})
		}
		return
	}
}

var (
	pemHead = lazily(`^(?i:-----BEGIN ?)([A-Z0-9 ]*?)PRIVATE KEY( BLOCK)?-----`)
	pemRest = lazily(`-----END[A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----`)
)

// maxKey bounds a private key in a text, with the escapes it may have.
const maxKey = 32 << 10

// pem reads a private key, over lines or with its line ends escaped.
func (d *doc) pem(u *unit, at int) {
	t := u.text[at:min(len(u.text), at+maxKey)]
	m := pemHead.FindSubmatchIndex(t[:min(len(t), cheap)])
	if m == nil {
		return
	}
	t = t[:max(m[1], u.afford(len(t)))]
	end := len(t)
	body := t[m[1]:]
	if e := pemRest.FindIndex(body); e != nil {
		end = m[1] + e[1]
		body = body[:e[0]]
	} else if n := bytes.Index(body, []byte("-----BEGIN")); n >= 0 {
		end, body = m[1]+n, body[:n]
	}
	key := keyText(body)
	kind := strings.TrimSpace(string(t[m[2]:m[3]]))
	low := strings.ToLower(string(key))
	if len(key) < 32 || monotone(string(key)) || strings.Contains(low, "xxxxxx") || strings.Contains(low, "private_key") || strings.Contains(low, "example") || bytes.Contains(key, []byte("...")) || entropy(string(key)) < 3.5 || base64Share(key) < 0.95 {
		return
	}
	if !u.take(at, at+end) {
		return
	}
	f := found{kind: "private-key", title: "Private key", base: 80, value: string(t[:end]), at: at, end: at + end - 1, opens: strings.TrimSpace(strings.ToUpper(kind))}
	if f.opens != "" {
		f.opens = f.opens + " key"
	}
	if sealedKey(kind, body, key) {
		f.underPassphrase()
	}
	d.add(u, f)
}

// needsPassphrase is what a private key under a passphrase opens.
const needsPassphrase = "needs its passphrase"

// underPassphrase makes a private key one that is encrypted: little risk where it lies, and
// still to be replaced where others can guess at its passphrase.
func (f *found) underPassphrase() {
	f.title, f.base, f.opens = "Private key under a passphrase", 25, needsPassphrase
}

// sealedKey reports whether a private key is encrypted: PKCS #8 and the older forms
// say so in their head, OpenSSH's own by the name of a cipher other than none (PROTOCOL.key).
func sealedKey(kind string, body, key []byte) bool {
	if kind != "OPENSSH" {
		return kind == "ENCRYPTED" || bytes.Contains(body, []byte("ENCRYPTED"))
	}
	head, err := base64.StdEncoding.DecodeString(string(key[:min(len(key), 88)/4*4]))
	rest, ok := bytes.CutPrefix(head, []byte("openssh-key-v1\x00"))
	if err != nil || !ok || len(rest) < 4 {
		return false
	}
	n := binary.BigEndian.Uint32(rest)
	rest = rest[4:]
	return n > 0 && int64(n) <= int64(len(rest)) && string(rest[:n]) != "none"
}

// keyText is what stands between the lines of a private key, without what only shapes it.
func keyText(body []byte) (key []byte) {
	for line := range bytes.Lines(unescaped(body)) {
		line = bytes.Trim(line, " \t\r\n\"',+>#*/|;")
		if bytes.Contains(line, []byte(": ")) { // Proc-Type, DEK-Info
			continue
		}
		key = append(key, line...)
	}
	return key
}

// unescaped gives a key back its line ends.
func unescaped(b []byte) []byte {
	for _, esc := range []string{`\\\\n`, `\\n`, `\r\n`, `\n`} {
		b = bytes.ReplaceAll(b, []byte(esc), []byte{'\n'})
	}
	return b
}

// packed reads a private key that was encoded as a whole, as kubectl keeps it.
func (d *doc) packed(u *unit, at int) {
	if !begins(u.text, at) {
		return
	}
	end := at
	for end < len(u.text) && end-at < maxKey && (wordByte(u.text[end]) && u.text[end] != '_' || u.text[end] == '+' || u.text[end] == '/' || u.text[end] == '=') {
		end++
	}
	end = at + u.afford(end-at)
	v := string(u.text[at:end])
	b, err := base64.StdEncoding.DecodeString(v)
	if err != nil {
		b, err = base64.RawStdEncoding.DecodeString(v)
	}
	m := pemHead.FindSubmatchIndex(b)
	if err != nil || m == nil || !u.take(at, end) {
		return
	}
	f := found{kind: "private-key", title: "Private key", base: 80, value: v, at: at}
	if body := b[m[1]:]; sealedKey(strings.TrimSpace(string(b[m[2]:m[3]])), body, keyText(body)) {
		f.underPassphrase()
	}
	d.add(u, f)
}

func base64Share(b []byte) float64 {
	n := 0
	for _, c := range b {
		if wordByte(c) && c != '_' || c == '+' || c == '/' || c == '=' || c == '-' || c == '_' {
			n++
		}
	}
	return float64(n) / float64(len(b))
}

var jwtForm = lazily(`^eyJ[A-Za-z0-9_-]{8,}\.(eyJ[A-Za-z0-9_-]{8,})\.([A-Za-z0-9_-]{20,})`)

// jwt reads a JSON Web Token (RFC 7519), with its expiry. What is signed with nothing, or
// meant for the public, is none.
func (d *doc) jwt(u *unit, at int) {
	if !begins(u.text, at) {
		return
	}
	end := at
	for end < len(u.text) && end-at < 8<<10 && (wordByte(u.text[end]) || u.text[end] == '-' || u.text[end] == '.') {
		end++
	}
	m := jwtForm.FindSubmatchIndex(u.text[at : at+u.afford(end-at)])
	if m == nil {
		return
	}
	t := u.text[at:]
	claims, err := base64.RawURLEncoding.DecodeString(string(t[m[2]:m[3]]))
	if err != nil {
		return
	}
	sig := string(t[m[4]:m[5]])
	if fakeBody(sig) || wordy(sig) || entropy(sig) < 3 {
		return
	}
	c := readClaims(claims)
	if c.public() {
		return
	}
	if !u.take(at, at+m[1]) {
		return
	}
	f := found{kind: "jwt", title: "JSON Web Token", provider: c.provider(), base: 55, value: string(t[:m[1]]), at: at, expires: c.expires(), opens: c.opens()}
	if strings.Contains(c.Role, "service_role") && (c.Ref != "" || strings.Contains(c.Iss, "supabase")) { // others have such a role too
		f.kind, f.title, f.base, f.provider = "supabase-service-key", "Supabase service key", 85, "supabase"
	}
	d.add(u, f)
}

var databases = set(`postgres postgresql mysql mariadb mongodb mongodb+srv redis rediss amqp amqps mssql sqlserver cockroachdb clickhouse snowflake oracle cassandra neo4j neo4j+s bolt influxdb couchdb elasticsearch nats kafka mysql2 postgresql+asyncpg postgresql+psycopg2 postgresql+psycopg mysql+pymysql ldap ldaps smtp smtps ftp sftp imap imaps memcached libsql`)

// url reads the user's part of an address.
func (d *doc) url(u *unit, at int) {
	t := u.text
	from := at
	for from > 0 && at-from < 24 && (wordByte(t[from-1]) && t[from-1] != '_' || t[from-1] == '+' || t[from-1] == '.' || t[from-1] == '-') {
		from--
	}
	scheme := strings.ToLower(string(t[from:at]))
	a := at + 3
	end := a
	for end < len(t) && end-a < 600 && strings.IndexByte(" \t\r\n\"'`<>\\|", t[end]) < 0 {
		end++
	}
	rest := string(t[a:end])
	host := rest
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		host = rest[:i]
	}
	if !strings.Contains(host, "@") { // a password that should have been escaped
		if i := strings.LastIndexByte(rest, '@'); i > 0 && strings.IndexByte(rest[:i], ':') > 0 && databases[scheme] && !(strings.Contains(rest[:i], "?") && strings.Contains(rest[:i], "/")) {
			j := strings.IndexAny(rest[i:], "/?#")
			if j < 0 {
				j = len(rest) - i
			}
			host = rest[:i+j]
		}
	}
	i := strings.LastIndexByte(host, '@')
	if i <= 0 {
		return
	}
	info, place := host[:i], host[i+1:]
	user, pass, has := strings.Cut(info, ":")
	if scheme == "" || place == "" || strings.ContainsAny(info, "{}$<>()[]") && reference.MatchString(pass) {
		return
	}
	start := a
	if has && pass != "" && pass != "x-oauth-basic" && pass != "x" {
		start = a + len(user) + 1
	} else {
		if strings.Contains(place, "sentry") || strings.Contains(place, "ingest") || scheme == "ssh" || scheme == "git+ssh" {
			return
		}
		pass, user = user, ""
		if !random(pass, 18) {
			return
		}
	}
	plainPass := pass
	if p, err := url.PathUnescape(pass); err == nil {
		plainPass = p
	}
	if strings.EqualFold(plainPass, user) || placeholder(plainPass) || !passwordLike(plainPass, config) && !(len(plainPass) >= 7 && !wordy(plainPass)) {
		return
	}
	if !u.take(start, start+len(pass)) {
		return
	}
	f := found{kind: "url-credential", title: "Address with a password", base: 60, value: pass, at: start, weak: !random(pass, 20), provider: providerOfHost(place), opens: opensAt(user, place)}
	if databases[scheme] {
		f.kind, f.title, f.base = "database-url", "Database address with a password", 70
		if issuers[scheme].name != "" {
			f.provider = scheme
		}
		if local(place) {
			f.base = 40
		}
	}
	d.add(u, f)
}

func opensAt(user, place string) string {
	if user == "" {
		return place
	}
	return user + " at " + place
}

func local(host string) bool {
	h, _, _ := strings.Cut(host, ":")
	return h == "localhost" || h == "127.0.0.1" || h == "host.docker.internal" || h == "db" || h == "postgres" || h == "mysql" || h == "redis" || h == "mongo" || strings.HasPrefix(host, "[::1]")
}

// providerOfHost is whose host an address names.
func providerOfHost(host string) string {
	h, _, _ := strings.Cut(strings.ToLower(host), ":")
	parts := strings.Split(h, ".")
	slices.Reverse(parts)
	for i, p := range parts {
		if i > 0 && issuerWords[p] != "" {
			return issuerWords[p]
		}
	}
	return ""
}

var tokenForm = lazily(`^[A-Za-z0-9._~+/:=-]{8,1000}`)

// header reads the credential after Bearer or Basic.
func (d *doc) header(u *unit, at int) {
	t := u.text
	n := at + 6
	basic := t[at]|0x20 == 'b' && t[at+1]|0x20 == 'a'
	if basic {
		n = at + 5
	}
	if !begins(t, at) || n >= len(t) || t[n] != ' ' && t[n] != '+' && t[n] != '%' {
		return
	}
	for n < len(t) && t[n] == ' ' {
		n++
	}
	if n-at > 12 || n >= len(t) {
		return
	}
	m := tokenForm.Find(t[n:min(len(t), n+2000)])
	v := strings.TrimRight(string(m), ".:")
	if v == "" {
		return
	}
	if basic {
		user, pass, ok := basicPair(v)
		if !ok || (placeholder(pass) || wordy(pass) && !passwordLike(pass, config)) && !strings.EqualFold(user, "x") || strings.EqualFold(user, pass) || !u.take(n, n+len(v)) {
			return
		}
		d.add(u, found{kind: "basic-auth", title: "Basic authorization", base: 60, value: v, at: n, weak: true, also: pass})
		return
	}
	if placeholder(v) || !random(v, 14) && !uuid.MatchString(v) || !u.take(n, n+len(v)) {
		return
	}
	d.add(u, found{kind: "bearer-token", title: "Bearer token", base: 60, value: v, at: n})
}

// basicPair opens what RFC 7617 sends.
func basicPair(v string) (user, pass string, ok bool) {
	b, err := base64.StdEncoding.DecodeString(v)
	if err != nil {
		if b, err = base64.RawStdEncoding.DecodeString(v); err != nil {
			return "", "", false
		}
	}
	for _, c := range b {
		if c < ' ' || c > '~' {
			return "", "", false
		}
	}
	user, pass, ok = strings.Cut(string(b), ":")
	if ok && pass == "" {
		user, pass = "", user
	}
	return user, pass, ok && pass != ""
}

var (
	byForm    = lazily(`^(?i:identified\s+(?:with\s+\S+\s+)?by)\s+(?:values\s+)?["']([^"'\n]{4,200})["']`)
	userForm  = lazily(`^(?:-u|--user|--proxy-user)(?:[= ]\s*)?["']?([\w.@+-]{1,64}):([^\s"'` + "`" + `]{4,200})`)
	passForm  = lazily(`^-p\s*["']?([^\s"'` + "`" + `-][^\s"'` + "`" + `]{3,200})`)
	passUsers = lazily(`(?i)\b(?:mysql|mysqldump|mysqladmin|mariadb|sshpass|docker\s+login|podman\s+login|helm\s+registry|mongo(?:sh|dump|restore)?|az\s+login|7z|rar)\b`)
)

// commandForms are programs with flags of their own for a secret.
var commandForms = [...]struct {
	form            form
	title, provider string
}{
	{lazily(`^redis-cli\b[^\n|;]{0,120}?\s(?:-a|--pass)\s+["']?([^\s"']{6,200})`), "Redis password on a command line", "redis"},
	{lazily(`^(?i:convertto-securestring)\s+(?:(?i:-string)\s+)?["']([^"'\n$]{5,200})["']`), "Password in a script", ""},
	{lazily(`^sqlplus\s+(?:-\w+\s+)*[\w.]+/["']?([^\s"'@]{5,200})["']?@`), "Password on a command line", "oracle"},
	{lazily(`^sqlcmd\b[^\n|;]{0,160}?\s-P\s*["']?([^\s"']{5,200})`), "Password on a command line", ""},
	{lazily(`^htpasswd\s+-\w*b\w*\s+\S+\s+\S+\s+["']?([^\s"']{5,200})`), "Password on a command line", ""},
	{lazily(`^smbclient\b[^\n|;]{0,160}?\s-U\s*["']?[\w.\\-]+%([^\s"']{5,200})`), "Password on a command line", ""},
	{lazily(`^ssh-keygen\b[^\n|;]{0,160}?\s-[NP]\s+["']([^"'\n]{5,200})["']`), "Passphrase on a command line", ""},
	{lazily(`^ldap(?:search|add|modify|delete|whoami|passwd)\b[^\n|;]{0,160}?\s-w\s*["']?([^\s"']{5,200})`), "LDAP password on a command line", ""},
	{lazily(`^gh secret set\b[^\n|;]{0,120}?\s(?:--body|-b)[= ]\s*["']?([^\s"']{8,300})`), "Secret of a GitHub repository on a command line", ""},
	{lazily(`^openssl\b[^\n|;]{0,160}?\s(?:-k\s+|-pass(?:in|out)?\s+pass:)["']?([^\s"'$-][^\s"']{4,200})`), "Passphrase on a command line", ""},
	{lazily(`^echo\s+(?:-n\s+)?["']?([^\s"'$|]{6,300})["']?\s*\|[^\n|]{0,160}--password-stdin`), "Password on a command line", ""},
}

// command reads a secret in the flags of a program that begins at a place.
func (d *doc) command(u *unit, at int) bool {
	window := u.text[at:min(len(u.text), at+600)]
	window = window[:u.afford(len(window))]
	for _, c := range commandForms {
		m := c.form.FindSubmatchIndex(window)
		if m == nil {
			continue
		}
		v := string(window[m[2]:m[3]])
		if !placeholder(v) && (passwordLike(v, config) || random(v, 12)) && u.take(at+m[2], at+m[3]) {
			d.add(u, found{kind: "command-password", title: c.title, provider: c.provider, base: 50, value: v, at: at + m[2], weak: true})
		}
		return true
	}
	return false
}

// userFlag reads the flags with which programs are given passwords.
func (d *doc) userFlag(u *unit, at int) {
	t := u.text
	if m := byForm.FindSubmatchIndex(t[at:min(len(t), at+260)]); m != nil {
		v := string(t[at+m[2] : at+m[3]])
		if !placeholder(v) && passwordLike(v, config) && u.take(at+m[2], at+m[3]) {
			d.add(u, found{kind: "password", title: "Password of a database user", base: 55, value: v, at: at + m[2], weak: true})
		}
		return
	}
	if d.command(u, at) {
		return
	}
	if at > 0 && t[at-1] != ' ' && t[at-1] != '\t' && t[at-1] != '"' && t[at-1] != '\'' && t[at-1] != '\n' {
		return
	}
	window := t[at:min(len(t), at+400)]
	if i := bytes.IndexByte(window, '\n'); i >= 0 {
		window = window[:i]
	}
	m := userForm.FindSubmatchIndex(window)
	g := 4
	if m == nil {
		if m = passForm.FindSubmatchIndex(window); m == nil {
			return
		}
		g = 2
		line := t[max(0, at-200):at]
		if i := bytes.LastIndexByte(line, '\n'); i >= 0 {
			line = line[i+1:]
		}
		if !passUsers.Match(line) {
			return
		}
	}
	v := string(window[m[g]:m[g+1]])
	if placeholder(v) || !passwordLike(v, config) || g == 4 && strings.EqualFold(v, string(window[m[2]:m[3]])) || !u.take(at+m[g], at+m[g+1]) {
		return
	}
	d.add(u, found{kind: "command-password", title: "Password on a command line", base: 55, value: v, at: at + m[g], weak: true})
}

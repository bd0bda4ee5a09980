package statement

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Dialect is whose SQL a text is. They disagree on where a string, a comment or a
// statement ends, which is where another can hide.
type Dialect string

const (
	Postgres  Dialect = "postgres"
	Snowflake Dialect = "snowflake"
)

// Dialects lists those that can be read. There is none for what is unknown: in one
// dialect two hyphens begin a comment only before a space, in another no semicolon
// stands between statements.
func Dialects() []Dialect { return []Dialect{Postgres, Snowflake} }

type kind byte

const (
	word   kind = iota + 1 // text in capitals
	name                   // quoted; text without the quotes
	text                   // a string; its content is not kept
	number                 // or a parameter
	op                     // one character, or one of :: => ->>
)

type token struct {
	kind kind
	text string
}

func (t token) is(words ...string) bool {
	for _, w := range words {
		if t.kind == word && t.text == w {
			return true
		}
	}
	return false
}

func (t token) op(text string) bool { return t.kind == op && t.text == text }

var errUnreadable = errors.New("unreadable")

type lexer struct {
	src     string
	at      int
	dialect Dialect
	out     []token
}

// lex reads a text into tokens, without comments.
func lex(src string, d Dialect) ([]token, error) {
	if len(src) > maxText || !utf8.ValidString(src) {
		return nil, errUnreadable
	}
	l := lexer{src: src, dialect: d}
	for l.at < len(l.src) {
		if err := l.next(); err != nil {
			return nil, err
		}
	}
	return l.out, nil
}

// emit refuses a string after a string: dialects join them, and what a backslash
// means in the second then depends on the first.
func (l *lexer) emit(k kind, content string) error {
	if k == text && len(l.out) > 0 && l.out[len(l.out)-1].kind == text {
		return errUnreadable
	}
	l.out = append(l.out, token{k, content})
	return nil
}

func (l *lexer) has(prefix string) bool { return strings.HasPrefix(l.src[l.at:], prefix) }

func (l *lexer) next() error {
	c := l.src[l.at]
	switch {
	case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f':
		l.at++
		return nil
	case l.has("--"):
		return l.line()
	case l.has("/*"):
		return l.comment()
	case l.has("//"):
		if l.dialect == Snowflake {
			return l.line()
		}
		return errUnreadable // an operator here, a comment there
	case c == '#' && l.dialect != Postgres, c == '`':
		return errUnreadable
	case c == '\'':
		return l.quoted(l.dialect == Snowflake)
	case c == '"':
		return l.identifier()
	case c == '$':
		return l.dollar()
	case c >= '0' && c <= '9' || c == '.' && l.at+1 < len(l.src) && digit(l.src[l.at+1]):
		return l.number()
	case c == '_' || c >= utf8.RuneSelf || letter(c):
		return l.word()
	case c < ' ' || c == 0x7f || c == '\\':
		return errUnreadable
	}
	for _, long := range []string{"->>", "::", "=>"} {
		if l.has(long) {
			l.at += len(long)
			return l.emit(op, long)
		}
	}
	if c == '@' && l.dialect != Postgres && l.hides() {
		return errUnreadable
	}
	l.at++
	return l.emit(op, string(c))
}

func letter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
func digit(c byte) bool  { return c >= '0' && c <= '9' }

// hides reports that the path of a stage (@name/path) holds what outside of it
// would begin a comment or a string.
func (l *lexer) hides() bool {
	path := l.src[l.at:]
	if end := strings.IndexAny(path, " \t\r\n;"); end >= 0 {
		path = path[:end]
	}
	return strings.Contains(path, "--") || strings.Contains(path, "//") || strings.Contains(path, "/*") || strings.ContainsAny(path, `'"$`)
}

// line skips a comment to the end of its line. A carriage return alone ends it
// for some and not for others.
func (l *lexer) line() error {
	rest := l.src[l.at:]
	end := strings.IndexAny(rest, "\r\n")
	if end < 0 {
		l.at = len(l.src)
		return nil
	}
	if rest[end] == '\r' && (end+1 == len(rest) || rest[end+1] != '\n') {
		return errUnreadable
	}
	l.at += end
	return nil
}

// comment skips one that does not nest. Nested ones end elsewhere for each
// dialect, and /*! is code for one of them.
func (l *lexer) comment() error {
	rest := l.src[l.at+2:]
	end := strings.Index(rest, "*/")
	if end < 0 || strings.Contains(rest[:end], "/*") || strings.HasPrefix(rest, "!") || end > 0 && strings.HasSuffix(rest[:end], "/") {
		return errUnreadable
	}
	l.at += 2 + end + 2
	return nil
}

// quoted reads a string. escapes says that a backslash hides the next character.
func (l *lexer) quoted(escapes bool) error {
	for i := l.at + 1; i < len(l.src); i++ {
		switch c := l.src[i]; {
		case c == '\\' && escapes:
			i++
		case c == '\'' && i+1 < len(l.src) && l.src[i+1] == '\'':
			i++
		case c == '\'':
			l.at = i + 1
			return l.emit(text, "")
		}
	}
	return errUnreadable
}

func (l *lexer) identifier() error {
	var b strings.Builder
	for i := l.at + 1; i < len(l.src); i++ {
		switch c := l.src[i]; {
		case c == '"' && i+1 < len(l.src) && l.src[i+1] == '"':
			b.WriteByte('"')
			i++
		case c == '"':
			l.at = i + 1
			return l.emit(name, b.String())
		default:
			b.WriteByte(c)
		}
	}
	return errUnreadable
}

// dollar reads a parameter ($1), a variable ($x) or a string ($$…$$, and with a
// tag in PostgreSQL).
func (l *lexer) dollar() error {
	rest := l.src[l.at+1:]
	n := 0
	for n < len(rest) && (rest[n] == '_' || letter(rest[n]) || digit(rest[n]) || rest[n] >= utf8.RuneSelf) {
		n++
	}
	opens := n < len(rest) && rest[n] == '$'
	switch {
	case opens && (n == 0 || l.dialect == Postgres && !digit(rest[0])):
		tag := "$" + rest[:n+1]
		end := strings.Index(rest[n+1:], tag)
		if end < 0 {
			return errUnreadable
		}
		l.at += len(tag) + end + len(tag)
		return l.emit(text, "")
	case opens || n == 0:
		return errUnreadable
	}
	if digits := len(rest) - len(strings.TrimLeft(rest, "0123456789")); digits > 0 {
		return l.plain(1 + digits)
	}
	l.at += 1 + n
	return l.emit(number, "")
}

// number reads 12, 1_000, 1.5 and 1e5. What letters follow directly, some take
// for a word of its own.
func (l *lexer) number() error {
	rest := l.src[l.at:]
	n := 0
	digits := func() {
		for n < len(rest) && (digit(rest[n]) || rest[n] == '_') {
			n++
		}
	}
	digits()
	if n < len(rest) && rest[n] == '.' {
		n++
		digits()
	}
	if n < len(rest) && (rest[n] == 'e' || rest[n] == 'E') {
		if n++; n < len(rest) && (rest[n] == '+' || rest[n] == '-') {
			n++
		}
		digits()
	}
	return l.plain(n)
}

// plain ends a number or parameter of n bytes.
func (l *lexer) plain(n int) error {
	l.at += n
	if l.at < len(l.src) {
		if c := l.src[l.at]; letter(c) || c == '_' || c == '$' || c >= utf8.RuneSelf {
			return errUnreadable
		}
	}
	return l.emit(number, "")
}

// word reads a name or keyword. A letter before a quote makes another kind of
// string of it.
func (l *lexer) word() error {
	from := l.at
	for l.at < len(l.src) {
		r, size := utf8.DecodeRuneInString(l.src[l.at:])
		if r != '_' && r != '$' && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.Is(unicode.Mn, r) {
			break
		}
		l.at += size
	}
	if l.at == from {
		return errUnreadable // a character that is no letter to all readers
	}
	w := strings.Map(func(r rune) rune { // other letters fold differently for each reader
		if r >= 'a' && r <= 'z' {
			return r - 'a' + 'A'
		}
		return r
	}, l.src[from:l.at])
	if l.at < len(l.src) && (l.src[l.at] == '\'' || w == "U" && l.has(`&`)) {
		switch {
		case w == "E" && l.dialect == Postgres:
			return l.quoted(true)
		case w == "B" || w == "X" || w == "N":
			return l.quoted(l.dialect == Snowflake)
		case w == "U" && (l.has(`&'`) || l.has(`&"`)):
			return errUnreadable // its escapes can be chosen
		}
	}
	if strings.Contains(w, "$$") {
		return errUnreadable
	}
	return l.emit(word, w)
}

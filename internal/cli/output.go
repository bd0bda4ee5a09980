package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
)

// output is where a command's answer goes. It remembers the first write that failed, so
// that no command has to look at each of its own: an answer that was lost is a failure.
type output struct {
	to     io.Writer
	mu     sync.Mutex
	failed error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	if err != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.failed == nil {
			o.failed = err
		}
	}
	return n, err
}

func (o *output) lost() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failed
}

// fileOf is the file that is written to, if it is one.
func fileOf(w io.Writer) (*os.File, bool) {
	if o, ok := w.(*output); ok {
		w = o.to
	}
	f, ok := w.(*os.File)
	return f, ok
}

// plain makes text that others wrote fit for a terminal: one line, and nothing
// that moves the cursor, changes colours or reverses the direction of reading.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// plainLines is plain for text of several lines.
func plainLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = plain(l)
	}
	return strings.Join(lines, "\n")
}

func (c *command) say(format string, args ...any) { fmt.Fprintf(c.stdout, format+"\n", args...) }

// note tells the person at the terminal something that is no part of the
// output, so it goes to standard error.
func (c *command) note(format string, args ...any) { fmt.Fprintf(c.stderr, format+"\n", args...) }

// show prints v as JSON, or as text does.
func (c *command) show(v any, text func()) error {
	if c.json {
		return c.printJSON(v)
	}
	text()
	return nil
}

func (c *command) paint(w io.Writer, code, s string) string {
	if code == "" || !c.colour() || w != c.stdout {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// when is a time as a person thinks of it. Zero is nothing.
func when(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := now.Sub(t)
	past := d >= 0
	if !past {
		d = -d
	}
	var size string
	switch {
	case d < 5*time.Second && past:
		return "just now"
	case d < time.Minute:
		size = fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		size = fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		size = fmt.Sprintf("%d h", int(d.Hours()))
	case d < 60*24*time.Hour:
		size = fmt.Sprintf("%d d", int(d.Hours()/24))
	default:
		return t.Local().Format(time.DateOnly)
	}
	if past {
		return size + " ago"
	}
	return "in " + size
}

// stamp is a time in full, with what it means now.
func stamp(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05 -0700") + " (" + when(t, now) + ")"
}

// words joins a list for a table.
func words(list []string) string { return strings.Join(list, ", ") }

// orAll says what an empty list of limits means.
func orAll(list []string) string {
	if len(list) == 0 {
		return "all"
	}
	return words(list)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func count(n int64, one, many string) string {
	if n == 1 {
		many = one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// withoutValue takes what was typed out of a complaint about a flag: it may be a
// secret that was typed at the wrong place.
func withoutValue(err error) error {
	text := err.Error()
	var bad interface{ GetValue() string }
	if errors.As(err, &bad) {
		rest := strings.TrimPrefix(text, "invalid argument "+strconv.Quote(bad.GetValue())+" for ")
		name, _, _ := strings.Cut(rest, " flag:")
		if of, ok := errors.AsType[notOneOf](err); ok {
			return fmt.Errorf("%s %w", lastName(name), of)
		}
		return fmt.Errorf("%s does not take this value", strings.Trim(name, `"`))
	}
	for _, known := range []string{"unknown shorthand flag", "bad flag syntax"} {
		if strings.HasPrefix(text, known) {
			return errors.New(known)
		}
	}
	return err
}

// lastName is a flag's long name, of what a complaint calls it: "-n, --lines".
func lastName(name string) string {
	name = strings.Trim(name, `"`)
	return name[strings.LastIndexByte(name, ' ')+1:]
}

// masked hides tokens of ours in what was typed.
func masked(s string) string {
	return regexp.MustCompile(`\b(sk|sh|amb_[a-z]+)_[\w-]{6,}`).ReplaceAllString(s, "${1}_…")
}

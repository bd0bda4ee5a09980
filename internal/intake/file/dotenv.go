package file

import (
	"fmt"
	"strings"

	"github.com/ambit-dev/ambit/internal/fault"
)

// entry is one variable of a dotenv file.
type entry struct {
	name, value string
	line        int // of the name, from 1
}

// dotenv reads a file of NAME=VALUE lines. Nothing is expanded: a dollar in a value
// is that dollar, since it is a secret that is read here and no configuration.
//
//	# a comment, also after an unquoted value and a space
//	export NAME=value
//	NAME='as it stands, over several lines too'
//	NAME="with \n, \t, \\, \" and \$, over several lines too"
//
// Its error names every line that is none of this.
func dotenv(text string) ([]entry, error) {
	var out []entry
	var wrong []string
	text = strings.ReplaceAll(strings.TrimPrefix(text, "\ufeff"), "\r\n", "\n")
	for line := 1; text != ""; {
		at := line
		head, rest, _ := strings.Cut(text, "\n")
		bad := func(why string) { // and go on behind it
			wrong = append(wrong, fmt.Sprintf("line %d (%s)", at, why))
			text, line = rest, line+1
		}
		trimmed := strings.TrimLeft(head, " \t")
		if t := strings.TrimRight(trimmed, " \t"); t == "" || t[0] == '#' {
			text, line = rest, line+1
			continue
		}
		if after, ok := strings.CutPrefix(trimmed, "export "); ok {
			trimmed = strings.TrimLeft(after, " \t")
		}
		name, _, ok := strings.Cut(trimmed, "=")
		if name = strings.TrimRight(name, " \t"); !ok || !isName(name) {
			bad("it has no name of a variable")
			continue
		}
		value := text[strings.IndexByte(text, '=')+1:]
		value = strings.TrimLeft(value, " \t")
		got, after, err := one(value)
		if err != "" {
			bad(err)
			continue
		}
		out = append(out, entry{name, got, at})
		line += strings.Count(text[:len(text)-len(after)], "\n")
		text = after
	}
	if n := len(wrong); n > 0 {
		if n > maxWrong {
			wrong = append(wrong[:maxWrong], fmt.Sprintf("and %d more", n-maxWrong))
		}
		return nil, fault.New(fault.Invalid, "source_unreadable", "Not NAME=VALUE: "+strings.Join(wrong, ", ")+".").WithHint("Nothing was imported. Mend these lines and run it again.")
	}
	return out, nil
}

// maxWrong is how many lines an error names.
const maxWrong = 50

// one reads a value and the rest of its line.
func one(text string) (value, rest, bad string) {
	if text == "" || text[0] != '"' && text[0] != '\'' {
		line, rest, _ := strings.Cut(text, "\n")
		if strings.HasPrefix(line, "#") {
			line = ""
		}
		for _, mark := range []string{" #", "\t#"} {
			line, _, _ = strings.Cut(line, mark)
		}
		return strings.TrimSpace(line), rest, ""
	}
	var b strings.Builder
	quote := text[0]
	i := 1
	for ; i < len(text) && text[i] != quote; i++ {
		if quote == '"' && text[i] == '\\' && i+1 < len(text) {
			i++
			switch c := text[i]; c {
			case 'n':
				b.WriteByte('\n')
			case 'r':
				b.WriteByte('\r')
			case 't':
				b.WriteByte('\t')
			case '"', '\\', '$', '`', '\'':
				b.WriteByte(c)
			default:
				b.WriteByte('\\')
				b.WriteByte(c)
			}
			continue
		}
		b.WriteByte(text[i])
	}
	if i == len(text) {
		return "", "", "its quotation mark is not closed"
	}
	tail, rest, _ := strings.Cut(text[i+1:], "\n")
	if t := strings.TrimSpace(tail); t != "" && t[0] != '#' {
		return "", "", "something follows its quotation mark"
	}
	return b.String(), rest, ""
}

func isName(s string) bool {
	for i, r := range s {
		if r != '_' && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (i == 0 || (r < '0' || r > '9') && r != '.' && r != '-') {
			return false
		}
	}
	return s != ""
}

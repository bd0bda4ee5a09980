package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/term"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/intake/found"
	"github.com/ambit-dev/ambit/internal/scan"
)

// maxReport bounds a report that is read, in bytes.
const maxReport = 64 << 20

// asks reports whether a person can be asked: they type at a terminal and see what is said.
func (c *command) asks() bool {
	_, typed := c.terminalIn()
	f, ok := c.stderr.(*os.File)
	return typed && (!ok || term.IsTerminal(int(f.Fd())))
}

// pick lets a person choose from the credentials that can be taken. It is a list of lines
// and an answer in a line, which works on every terminal and with a screen reader.
func (c *command) pick(ctx context.Context, changes []found.Change) (func(scan.Finding) bool, error) {
	var all []found.Take
	for _, ch := range changes {
		all = append(all, ch.Takes...)
	}
	chosen := make([]bool, len(all))
	for i := range chosen {
		chosen[i] = true
	}
	list := func() {
		n := 0
		for _, ch := range changes {
			c.note("%s", plain(ch.File))
			for _, t := range ch.Takes {
				mark := " "
				if chosen[n] {
					mark = "x"
				}
				n++
				f := t.Finding()
				c.note("  %3d [%s] %-6s  %s %s  %s", n, mark, string(f.Risk), plain(t.Title), plain(t.Masked), plain(first(t.Key, "line "+strconv.Itoa(t.Line))))
			}
		}
	}
	c.note("These can be taken out of their files. A number takes it off the list or puts it back.")
	list()
	for {
		n := int64(0)
		for _, on := range chosen {
			if on {
				n++
			}
		}
		fmt.Fprintf(c.stderr, "%d of %d chosen. Numbers (2 or 1-3), a all, n none, l list, Enter to go on, q to give up: ", n, len(all))
		line, err := c.line(ctx)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		word := strings.ToLower(strings.TrimSpace(line))
		switch {
		case word == "q" || word == "quit" || errors.Is(err, io.EOF):
			return nil, fault.New(fault.Conflict, "not_confirmed", "Nothing was changed.")
		case word == "" && n == 0:
			c.note("Nothing is chosen.")
		case word == "":
			picked := map[string]bool{}
			for i, t := range all {
				picked[found.Pick(t.Finding())] = chosen[i]
			}
			return func(f scan.Finding) bool { return picked[found.Pick(f)] }, nil
		case word == "l" || word == "list":
			list()
		case word == "a" || word == "all" || word == "n" || word == "none":
			for i := range chosen {
				chosen[i] = word[0] == 'a'
			}
			list()
		default:
			numbers, ok := numbersIn(word, len(all))
			if !ok {
				c.note("That is none of them.")
				continue
			}
			for _, i := range numbers {
				chosen[i-1] = !chosen[i-1]
			}
			list()
		}
	}
}

// numbersIn reads "2", "1-3" or several of these, each number once.
func numbersIn(text string, most int) (out []int, ok bool) {
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
		from, to, many := strings.Cut(part, "-")
		a, err := strconv.Atoi(from)
		b := a
		if err == nil && many {
			b, err = strconv.Atoi(to)
		}
		if err != nil || a < 1 || b > most || a > b {
			return nil, false
		}
		for i := a; i <= b; i++ {
			if !slices.Contains(out, i) {
				out = append(out, i)
			}
		}
	}
	return out, len(out) > 0
}

// readReport reads what `ambit scan --json` wrote.
func (c *command) readReport(ctx context.Context, file string) ([]scan.Finding, error) {
	text, err := c.readLarge(ctx, file, maxReport)
	if err != nil {
		return nil, err
	}
	var r struct {
		Findings *[]scan.Finding `json:"findings"`
	}
	if err := json.Unmarshal(text, &r); err != nil || r.Findings == nil {
		return nil, fault.New(fault.Invalid, "report_unreadable", plain(file)+" is no report of ambit scan --json.").WithHint("Make one: ambit scan --json > report.json").WithCause(err)
	}
	return *r.Findings, nil
}

// filesOf are the files that a report names and that are still there.
func filesOf(report []scan.Finding) (files []string) {
	for _, f := range report {
		if _, err := os.Stat(f.File); err == nil && !slices.Contains(files, f.File) {
			files = append(files, f.File)
		}
	}
	return files
}

// onlySome selects what the command line names, and what a report has; nil: everything.
// A name that nothing has is an error: it was meant to be there.
func onlySome(list, report []scan.Finding, only []string, reported bool) (func(scan.Finding) bool, error) {
	if len(only) == 0 && !reported {
		return nil, nil
	}
	prints := map[string]string{} // of the report, by place: each run has other ones
	for _, f := range report {
		prints[placeOf(f)] = f.Fingerprint
	}
	fits := func(f scan.Finding, name string) bool {
		_, key, _ := cutLast(f.Key, ".")
		at := absolute(name)
		return name == f.Kind || name == f.Provider || name == f.Key || name == key || name == prints[placeOf(f)] ||
			at == absolute(f.File) || strings.HasPrefix(absolute(f.File), at+string(filepath.Separator)) || name == f.File+":"+strconv.Itoa(f.Line)
	}
	for _, name := range only {
		if name == "" || !slices.ContainsFunc(list, func(f scan.Finding) bool { return fits(f, name) }) {
			return nil, fault.New(fault.NotFound, "nothing_named", "Nothing was found that is "+plain(name)+".").
				WithHint("--only takes a file, a folder, FILE:LINE, a kind, a provider or the name of a key, as ambit scan shows them; a fingerprint goes with --from.")
		}
	}
	return func(f scan.Finding) bool {
		if _, ok := prints[placeOf(f)]; reported && !ok {
			return false
		}
		return len(only) == 0 || slices.ContainsFunc(only, func(name string) bool { return fits(f, name) })
	}, nil
}

// placeOf is where a finding is, the same in each run.
func placeOf(f scan.Finding) string {
	return absolute(f.File) + "\x00" + strconv.Itoa(f.Line) + "\x00" + f.Key
}

// missingFrom counts the places of a report at which nothing was found now.
func missingFrom(list, report []scan.Finding) (n int) {
	has := map[string]bool{}
	for _, f := range list {
		has[placeOf(f)] = true
	}
	for _, f := range report {
		if !has[placeOf(f)] {
			n++
		}
	}
	return n
}

func absolute(path string) string {
	if full, err := filepath.Abs(path); err == nil {
		return full
	}
	return path
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

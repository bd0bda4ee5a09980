package cli

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/scan"
)

// riskMarks are how the report tells risks apart, with and without colour.
var riskMarks = map[scan.Risk]struct{ colour, sign, title string }{
	scan.High:   {"1;31", "●", "High risk: act now"},
	scan.Medium: {"1;33", "◐", "Medium risk: act soon"},
	scan.Low:    {"1;32", "○", "Low risk"},
}

// showScan is the report for a person, the worst first.
func (c *command) showScan(r *scan.Report, took time.Duration) {
	for _, risk := range []scan.Risk{scan.High, scan.Medium, scan.Low} {
		var list []scan.Finding
		for _, f := range r.Findings {
			if f.Risk == risk {
				list = append(list, f)
			}
		}
		if len(list) == 0 {
			continue
		}
		m := riskMarks[risk]
		c.say("%s", c.paint(c.stdout, m.colour, fmt.Sprintf("%s %s (%d)", m.sign, m.title, len(list))))
		for _, f := range list {
			c.say("")
			c.showFinding(f)
		}
		c.say("")
	}
	c.summary(r, took)
}

func (c *command) showFinding(f scan.Finding) {
	m := riskMarks[f.Risk]
	where := f.File
	if f.Line > 0 {
		where += ":" + strconv.Itoa(f.Line)
	}
	if f.Commit != "" {
		where += " @ " + f.Commit[:min(10, len(f.Commit))]
	}
	c.say("  %s %s  %s", c.paint(c.stdout, m.colour, m.sign), c.paint(c.stdout, "1", plain(f.Title)), f.Masked)
	line := func(label, text string) {
		if text != "" {
			const indent = "               "
			c.say("    %s %s", c.paint(c.stdout, "2", label+strings.Repeat(" ", max(0, 10-len(label)))), c.folded(text, indent))
		}
	}
	line("where", where)
	line("name", f.Key)
	line("readable", readable(f))
	if f.Expires != nil {
		over := ""
		if f.Expired {
			over = " (over)"
		}
		line("expires", f.Expires.UTC().Format("2006-01-02 15:04 MST")+over)
	}
	line("why", f.Reason)
	if f.Live != "" {
		line("provider", map[string]string{"live": "says that it works", "dead": "no longer takes it", "unknown": "gave no clear answer"}[f.Live])
	}
	line("do", f.Advice)
	line("revoke", f.Revoke)
}

// readable says who can read a finding, in a few words.
func readable(f scan.Finding) string {
	e := f.Exposure
	var parts []string
	switch e.Readers {
	case "owner":
		parts = append(parts, "only by "+first(e.Owner, "its owner"))
	case "group":
		parts = append(parts, "by its group")
	case "everyone":
		parts = append(parts, "by everyone on this machine")
	}
	if e.Mode != "" && len(parts) > 0 {
		parts[0] += " (" + e.Mode + ")"
	}
	if e.Synced != "" {
		parts = append(parts, e.Synced+" copies it")
	}
	switch {
	case e.Pushed:
		parts = append(parts, "pushed to a remote")
	case e.Committed:
		parts = append(parts, "committed")
	}
	switch e.Agent {
	case "given":
		parts = append(parts, "handed to an agent")
	case "transcript":
		parts = append(parts, "in a transcript")
	case "beside":
		parts = append(parts, "where an agent works")
	}
	return strings.Join(parts, ", ")
}

func (c *command) summary(r *scan.Report, took time.Duration) {
	counts, values := map[scan.Risk]int{}, map[string]bool{}
	for _, f := range r.Findings {
		counts[f.Risk]++
		values[f.Fingerprint] = true
	}
	read := fmt.Sprintf("%s, %d MiB in %s", count(r.Files, "file read", "files read"), r.Bytes>>20, took.Round(100*time.Millisecond))
	switch {
	case len(r.Findings) == 0 && !r.Clean():
		c.say("No credentials found in what was read, and not everything was. %s.", read)
	case len(r.Findings) == 0:
		c.say("%s No credentials found. %s.", c.paint(c.stdout, "32", "✓"), read)
	default:
		c.say("%s (%s): %d high, %d medium, %d low. %s.", count(int64(len(r.Findings)), "place", "places"), count(int64(len(values)), "credential", "credentials"),
			counts[scan.High], counts[scan.Medium], counts[scan.Low], read)
	}
	if list := scan.Withdrawals(r.Findings); len(list) > 0 {
		c.say("")
		c.say("%s", c.paint(c.stdout, "1", "To revoke or change:"))
		for _, w := range list {
			c.say("  %d × %s: %s", w.Count, plain(w.Title), first(w.Page, "where it is used"))
		}
		c.say("")
	}
	if r.Accepted > 0 {
		c.say("%s left out, accepted before.", count(int64(r.Accepted), "finding", "findings"))
	}
	for _, n := range r.Notes {
		c.say("%s", n)
	}
	if n := len(r.Skipped); n > 0 {
		c.say("%s not read:", count(int64(n), "place", "places"))
		for i, s := range r.Skipped {
			if i == 5 && n > 6 && !c.debug {
				c.say("  … and %d more (--debug names them)", n-i)
				break
			}
			c.say("  %s: %s", plain(s.Path), s.Why)
		}
	}
}

// leastPause is how long a watch waits between two looks; it waits ten times as long as a
// look took when that is more, so that it costs a tenth of a processor at most.
const leastPause = 2 * time.Second

// watchScan scans again and again, and tells what is new.
func (c *command) watchScan(ctx context.Context, opt scan.Options) error {
	opt.Key = make([]byte, 32)
	_, _ = rand.Read(opt.Key) // never fails: crypto/rand aborts the process instead
	seen := map[string]bool{}
	for first := true; ; first = false {
		began := time.Now()
		r, err := scan.Run(ctx, opt)
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		now := map[string]bool{}
		for _, f := range r.Findings {
			id := f.Fingerprint + "\x00" + f.File + "\x00" + f.Key
			now[id] = true
			if !seen[id] {
				c.showFinding(f)
				c.say("")
			}
		}
		for id := range seen {
			if !now[id] {
				_, rest, _ := strings.Cut(id, "\x00")
				file, key, _ := strings.Cut(rest, "\x00")
				c.say("  ✓ gone: %s %s", plain(file), plain(key))
			}
		}
		seen = now
		if first {
			c.note("Watching: %s so far. Stop with Ctrl+C.", count(int64(len(r.Findings)), "finding", "findings"))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(max(leastPause, 10*time.Since(began))):
		}
	}
}

package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// How the demo looks: to a person, or with --json as one object a line. Both are
// told the same, as it happens.

// told is a line of `ambit demo --json`.
type told struct {
	Event  string   `json:"event"` // step, fact, done, ask, audit or summary
	Step   int      `json:"step,omitempty"`
	Text   string   `json:"text,omitempty"`
	Name   string   `json:"name,omitempty"` // of a fact
	URL    string   `json:"url,omitempty"`  // where a person goes
	Time   string   `json:"time,omitempty"`
	Result string   `json:"result,omitempty"` // of an entry of the audit
	OK     *bool    `json:"ok,omitempty"`     // of the summary
	Proved []string `json:"proved,omitempty"`
}

func (d *demo) tell(t told) {
	t.Step = d.step
	enc := json.NewEncoder(d.out)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(t)
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

func (d *demo) intro() {
	if d.json {
		return
	}
	d.say("%s: an agent works with somebody's account and never holds its key. Each step is", d.bold("Ambit"))
	d.say("done for real, by processes of their own, and checked; the first that fails ends it.")
	if !d.auto {
		d.say("You are the person who approves, in your browser. Ctrl-C ends it and cleans up.")
	}
}

func (d *demo) title(s string) {
	if d.step++; d.json {
		d.tell(told{Event: "step", Text: s})
		return
	}
	d.say("\n%s  %s", d.dim(fmt.Sprintf("%2d", d.step)), d.bold(s))
}

func (d *demo) done(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if d.json {
		d.tell(told{Event: "done", Text: text})
		return
	}
	d.say("    %s %s", d.green("✓"), text)
}

func (d *demo) fact(name, value string) {
	if d.json {
		d.tell(told{Event: "fact", Name: name, Text: value})
		return
	}
	d.say("      %s %s", d.dim(name+":"), value)
}

func (d *demo) ask(what, address string) {
	if d.json {
		d.tell(told{Event: "ask", Text: what, URL: address})
		return
	}
	d.say("    %s %s:\n\n      %s\n", d.bold("→"), what, address)
	if !strings.Contains(address, "#") { // a sign-in link belongs on this screen only
		d.showPhone(address)
	}
}

// engine says which database the demo uses, and what it leaves alone: whoever
// set the variable would believe that they saw their PostgreSQL at work.
func (d *demo) engine() {
	text := "SQLite, in that folder"
	switch {
	case d.database != "":
		text = "PostgreSQL, from --database-url"
	case d.env[envDatabaseURL] != "":
		text += "; " + envDatabaseURL + " is left alone: the demo uses PostgreSQL only by --database-url"
	}
	d.fact("database", text)
}

// entry shows one of the audit.
func (d *demo) entry(at time.Time, what, result string) {
	if d.json {
		d.tell(told{Event: "audit", Time: at.UTC().Format(time.RFC3339Nano), Text: what, Result: strings.Join(strings.Fields(result), " ")})
		return
	}
	d.say("    %s  %s", d.dim(at.Local().Format("15:04:05.000")), strings.TrimRight(fmt.Sprintf("%-22s %s", what, result), " "))
}

// summary says what the steps come to, if all have passed. As JSON it is there
// also when one has not; why is then on standard error.
func (d *demo) summary(ok bool) {
	proved := []string{
		"Identity is not access: with a valid token and no session, nothing ran.",
		"A person decided on exactly what was allowed, and their passkey signed it.",
		"The third party received the key; the agent received [redacted].",
		"Deleting took an approval of its own, for one call, which could not be used twice.",
		"A revoke held at once, in the middle of the session.",
		"Every call and every refusal is in the audit log, and the log is whole.",
	}
	if !ok {
		proved = nil
	}
	if d.json {
		d.tell(told{Event: "summary", OK: &ok, Proved: proved})
		return
	}
	if !ok {
		return
	}
	d.say("\n%s", d.bold("What this proved"))
	for _, p := range proved {
		d.say("  %s %s", d.green("✓"), p)
	}
	d.say("\nThe server and its folder go away now. Next: %s, then docs/quickstart.md", d.bold("ambit dev"))
}

func (d *demo) bold(s string) string   { return d.paint("1", s) }
func (d *demo) dim(s string) string    { return d.paint("2", s) }
func (d *demo) green(s string) string  { return d.paint("32", s) }
func (d *demo) yellow(s string) string { return d.paint("33", s) }

func (d *demo) paint(code, s string) string {
	if d.json || !d.colour() {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

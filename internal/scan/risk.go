package scan

import (
	"fmt"
	"strings"
	"time"
)

// weigh gives a finding its risk, and says why and what to do.
func (f *Finding) weigh(now time.Time) {
	base := f.base
	if base == 0 {
		base = 50
		if i, ok := issuers[f.Provider]; ok {
			base = i.base
		}
	}
	score := base
	var why []string
	add := func(points int, format string, args ...any) {
		score += points
		why = append(why, fmt.Sprintf(format, args...))
	}
	e := f.Exposure
	if e.Pushed {
		add(25, "it was pushed to a remote")
	} else if e.Committed {
		add(15, "it is in the repository's history")
	}
	if e.Readers == "everyone" {
		add(10, "everyone on this machine can read it")
	} else if e.Readers == "group" {
		add(4, "its group can read it")
	}
	switch {
	case e.Links == 1:
		add(4, "another name of the file (a hard link) keeps it")
	case e.Links > 1:
		add(4, "%d other names of the file (hard links) keep it", e.Links)
	}
	if e.Synced != "" {
		add(12, "%s copies it elsewhere", e.Synced)
	}
	switch e.Agent {
	case "given":
		add(10, "it is handed to an agent")
	case "transcript":
		add(12, "an agent has read it already")
	case "beside":
		add(6, "it lies where an agent works")
	}
	if f.Copies > 1 {
		add(min(10, 2*f.Copies), "the same value lies in %d places", f.Copies)
	}
	if f.Live == "live" {
		add(15, "its provider says that it works")
	}
	f.Expired = f.Expires != nil && f.Expires.Before(now)
	switch {
	case f.Live == "dead":
		score = min(score, 10)
		why = []string{"its provider no longer takes it"}
	case f.Expired:
		score = min(score-40, 20)
		why = append(why, "it expired on "+f.Expires.Format(time.DateOnly))
	case f.Expires != nil && f.Expires.Sub(now) < 24*time.Hour:
		add(-10, "it expires within a day")
	case f.Expires != nil:
		why = append(why, "it expires on "+f.Expires.Format(time.DateOnly))
	case f.Expires == nil && f.Kind != "password":
		why = append(why, "nothing tells that it expires")
	}
	if f.Kind == awsID {
		score = min(score, 40)
	}
	f.Score = max(1, min(100, score))
	switch {
	case f.Score >= 70:
		f.Risk = High
	case f.Score >= 45:
		f.Risk = Medium
	default:
		f.Risk = Low
	}
	f.Reason = reasonOf(*f, why)
	f.Revoke = issuers[f.Provider].revoke
	f.Advice = adviceOf(*f)
}

func reasonOf(f Finding, why []string) string {
	what := f.Title
	if f.Opens != "" {
		what += " (" + f.Opens + ")"
	}
	if len(why) == 0 {
		return what + "."
	}
	list := why[0]
	if n := len(why); n > 1 {
		list = strings.Join(why[:n-1], ", ") + ", and " + why[n-1]
	}
	return what + ": " + list + "."
}

func adviceOf(f Finding) string {
	switch {
	case f.Expired || f.Live == "dead":
		return "It opens nothing any more. Remove it from the file."
	case f.Exposure.Pushed:
		return "Revoke it first: removing it does not take it out of what was pushed. Then put the new one where no file holds it."
	case f.Exposure.Agent == "given":
		return "Connect the account in Ambit instead, take the value out of the agent's settings, and revoke it."
	case f.Exposure.Agent == "transcript":
		return "Revoke it and delete the transcript: it was shown to a model."
	case f.Opens == needsPassphrase:
		return "It is under a passphrase: keep that where no file holds it, and replace the key where others can read its file."
	case f.Kind == "private-key" || f.Kind == "ssh-key":
		return "Put it under a passphrase or into an agent of the system, and replace it where others could read it."
	case f.weak:
		return "Change it, and keep the new one where no file holds it."
	}
	return "Replace it, keep the new one in a vault, and revoke this one."
}

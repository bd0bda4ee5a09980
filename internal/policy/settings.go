package policy

import (
	"fmt"
	"slices"
	"time"
	_ "time/tzdata" // quiet hours name a zone, which the machine may not know

	"github.com/ambit-dev/ambit/internal/fault"
)

// Kind is the approval that calls with an effect need.
type Kind string

const (
	ByGrant  Kind = "grant"  // none beside the session's, unless its approver asked for one
	ByCall   Kind = "call"   // each call its own
	BySecond Kind = "second" // each call its own, by two persons
)

// kinds, mildest first.
func kinds() []Kind { return []Kind{ByGrant, ByCall, BySecond} }

// Approvals says what kind of approval the calls of each effect need at least.
// Access calls always need their own. The zero value demands nothing more.
type Approvals struct {
	Read        Kind `json:"read"`
	Write       Kind `json:"write"`
	Destructive Kind `json:"destructive"`
	Access      Kind `json:"access"`
}

// Of is the kind for one effect.
func (a Approvals) Of(e Effect) Kind {
	k := map[Effect]Kind{Read: a.Read, Write: a.Write, Destructive: a.Destructive, Access: a.Access}[e]
	switch {
	case k == "" && e == Access:
		return ByCall
	case k == "":
		return ByGrant
	}
	return k
}

// Longest is the most minutes that an organization can allow a session.
const Longest = 24 * 60

// Settings are what an organization has decided about sessions and approvals.
type Settings struct {
	DefaultMinutes int       `json:"default_minutes"` // of a request that names none
	LongestMinutes int       `json:"longest_minutes"` // 1 to [Longest]
	Approvals      Approvals `json:"approvals"`
	// Approvers are the roles that decide on accounts of the organization, of
	// owner, admin and approver.
	Approvers []string `json:"approvers"`
	// SecondToStart lists effects with which a session needs a second person to
	// start. They are neither the first nor whom the agent acts for.
	SecondToStart []Effect `json:"second_to_start"`
	Quiet         *Quiet   `json:"quiet_hours"` // nobody is asked anything in them; null: there are none
	Limits        Fatigue  `json:"limits"`
}

// Quiet are hours of each day in which agents' requests are refused, with the time
// at which they may ask. From and To are 15:04; a To before From is of the next day.
type Quiet struct {
	From string `json:"from"`
	To   string `json:"to"`
	Zone string `json:"zone"` // of the IANA database, such as Europe/Berlin
}

// Fatigue bounds how much agents may ask of people (threats.md A8).
type Fatigue struct {
	OpenByAgent   int `json:"open_by_agent"` // requests that wait
	OpenByUser    int `json:"open_by_user"`
	HourlyByAgent int `json:"hourly_by_agent"`
	HourlyByUser  int `json:"hourly_by_user"`
}

// Defaults are the settings of an organization that has made none.
func Defaults() Settings {
	return Settings{DefaultMinutes: 30, LongestMinutes: 8 * 60, Approvals: Approvals{Read: ByGrant, Write: ByGrant, Destructive: ByGrant, Access: ByCall},
		Approvers: []string{"owner", "admin", "approver"}, SecondToStart: []Effect{}, Limits: Fatigue{OpenByAgent: 3, OpenByUser: 20, HourlyByAgent: 20, HourlyByUser: 100}}
}

// Check refuses settings that contradict themselves or switch a rule off that
// is not theirs.
func (s Settings) Check() error {
	bad := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "invalid_settings", fmt.Sprintf(format, args...)).WithHint("Nothing was changed.")
	}
	if s.LongestMinutes < 1 || s.LongestMinutes > Longest {
		return bad("The longest session is 1 to %d minutes.", Longest)
	}
	if s.DefaultMinutes < 1 || s.DefaultMinutes > s.LongestMinutes {
		return bad("The usual length is 1 minute to the longest.")
	}
	for _, k := range []Kind{s.Approvals.Read, s.Approvals.Write, s.Approvals.Destructive, s.Approvals.Access} {
		if !slices.Contains(kinds(), k) {
			return bad("The approval of an effect is grant, call or second.")
		}
	}
	if s.Approvals.Access == ByGrant {
		return bad("Calls that make keys or permissions always need their own approval.")
	}
	if len(s.Approvers) == 0 {
		return bad("Somebody must be able to decide: owner, admin or approver.")
	}
	for _, r := range s.Approvers {
		if !slices.Contains(Defaults().Approvers, r) {
			return bad("Who decides is one of owner, admin and approver.")
		}
	}
	for _, e := range s.SecondToStart {
		if _, err := ParseEffect(string(e)); err != nil {
			return err
		}
	}
	if q := s.Quiet; q != nil {
		if _, _, err := q.span(time.Time{}); err != nil {
			return bad("Quiet hours are from and to, as 22:00, in a zone such as Europe/Berlin.")
		}
		if q.From == q.To {
			return bad("Quiet hours that begin when they end would never end.")
		}
	}
	for _, l := range []struct{ value, most int }{{s.Limits.OpenByAgent, 20}, {s.Limits.OpenByUser, 200}, {s.Limits.HourlyByAgent, 200}, {s.Limits.HourlyByUser, 1000}} {
		if l.value < 1 || l.value > l.most {
			return bad("A limit is out of its range: open requests 1 to 20 of an agent, to 200 of a person; within an hour 1 to 200 and 1 to 1000.")
		}
	}
	return nil
}

// Loosens reports whether s allows anything that old does not.
func (s Settings) Loosens(old Settings) bool {
	for _, e := range Effects() {
		if slices.Index(kinds(), s.Approvals.Of(e)) < slices.Index(kinds(), old.Approvals.Of(e)) || slices.Contains(old.SecondToStart, e) && !slices.Contains(s.SecondToStart, e) {
			return true
		}
	}
	if old.Quiet != nil && (s.Quiet == nil || *s.Quiet != *old.Quiet) {
		return true
	}
	return s.LongestMinutes > old.LongestMinutes || s.DefaultMinutes > old.DefaultMinutes ||
		slices.ContainsFunc(s.Approvers, func(r string) bool { return !slices.Contains(old.Approvers, r) }) ||
		s.Limits.OpenByAgent > old.Limits.OpenByAgent || s.Limits.OpenByUser > old.Limits.OpenByUser ||
		s.Limits.HourlyByAgent > old.Limits.HourlyByAgent || s.Limits.HourlyByUser > old.Limits.HourlyByUser
}

// QuietUntil is when the quiet hours end that now is in; false if it is in none.
// Hours that cannot be read count as quiet for an hour.
func (s Settings) QuietUntil(now time.Time) (time.Time, bool) {
	if s.Quiet == nil {
		return time.Time{}, false
	}
	for _, day := range []int{-1, 0} {
		from, to, err := s.Quiet.span(now.AddDate(0, 0, day))
		if err != nil {
			return now.Add(time.Hour), true
		}
		if !now.Before(from) && now.Before(to) {
			return to, true
		}
	}
	return time.Time{}, false
}

// span is the quiet time that begins on the day of t, in their own zone.
func (q Quiet) span(t time.Time) (from, to time.Time, err error) {
	zone, err := time.LoadLocation(q.Zone)
	if err != nil || q.Zone == "" || q.Zone == "Local" {
		return from, to, fault.New(fault.Invalid, "invalid_settings", "No such time zone.").WithCause(err)
	}
	t = t.In(zone)
	at := func(clock string) (time.Time, error) {
		c, err := time.Parse("15:04", clock)
		return time.Date(t.Year(), t.Month(), t.Day(), c.Hour(), c.Minute(), 0, 0, zone), err
	}
	if from, err = at(q.From); err != nil {
		return from, to, err
	}
	if to, err = at(q.To); err == nil && !to.After(from) {
		to = to.AddDate(0, 0, 1)
	}
	return from, to, err
}

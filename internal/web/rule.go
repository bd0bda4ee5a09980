package web

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
)

func (s *Server) rulesShow(v *visit) (answer, error) {
	p, err := s.rulesPage(v)
	if err != nil {
		return nil, err
	}
	return show(p), nil
}

// rulesPage is also the form that a change came from, as it was filled in.
func (s *Server) rulesPage(v *visit) (*RulesPage, error) {
	r, err := s.sessions.Rules(v.ctx(), v.actor(), v.here.Organization)
	if err != nil {
		return nil, err
	}
	set := r.Settings
	if v.r.PostForm.Has("default_minutes") {
		if given, err := settingsForm(v); err == nil {
			set = given
		}
	}
	p := &RulesPage{Frame: Frame{Title: "Sessions and approvals", Section: "organization"}, CanChange: v.may(account.ManageSettings), SettingsVersion: r.SettingsVersion, PolicyVersion: r.PolicyVersion,
		DefaultMinutes: strconv.Itoa(set.DefaultMinutes), LongestMinutes: strconv.Itoa(set.LongestMinutes), OpenByAgent: strconv.Itoa(set.Limits.OpenByAgent),
		OpenByUser: strconv.Itoa(set.Limits.OpenByUser), HourlyByAgent: strconv.Itoa(set.Limits.HourlyByAgent), HourlyByUser: strconv.Itoa(set.Limits.HourlyByUser), Policy: r.Policy}
	if q := set.Quiet; q != nil {
		p.QuietFrom, p.QuietTo, p.QuietZone = q.From, q.To, q.Zone
	}
	if v.r.PostForm.Has("policy") {
		p.Policy = strings.ReplaceAll(v.r.PostForm.Get("policy"), "\r\n", "\n")
	}
	for _, e := range policy.Effects() {
		p.Kinds = append(p.Kinds, KindChoice{Effect: string(e), Title: effectWord(e), Options: kindOptions(e, set.Approvals.Of(e))})
		p.Second = append(p.Second, Option{Value: string(e), Label: effectWord(e), Chosen: slices.Contains(set.SecondToStart, e)})
	}
	for _, role := range policy.Defaults().Approvers {
		p.Approvers = append(p.Approvers, Option{Value: role, Label: role, Chosen: slices.Contains(set.Approvers, role)})
	}
	return p, nil
}

func effectWord(e policy.Effect) string {
	return map[policy.Effect]string{policy.Read: "Reads", policy.Write: "Changes", policy.Destructive: "Deletions", policy.Access: "Keys and permissions"}[e]
}

func kindOptions(e policy.Effect, chosen policy.Kind) []Option {
	var out []Option
	for _, o := range []Option{{Value: string(policy.ByGrant), Label: "as the session's approver says"}, {Value: string(policy.ByCall), Label: "each its own approval"},
		{Value: string(policy.BySecond), Label: "each its own, by two persons"}} {
		if o.Value == string(policy.ByGrant) && e == policy.Access {
			continue
		}
		o.Chosen = o.Value == string(chosen)
		out = append(out, o)
	}
	return out
}

// settingsForm reads settings as they were filled in.
func settingsForm(v *visit) (policy.Settings, error) {
	var broken error
	number := func(name string) int {
		n, err := strconv.Atoi(v.form(name))
		if err != nil {
			broken = fault.New(fault.Invalid, "invalid_settings", "A field that takes a number is empty or holds something else.").WithHint("Nothing was changed.")
		}
		return n
	}
	kind := func(e policy.Effect) policy.Kind { return policy.Kind(v.form("kind." + string(e))) }
	out := policy.Settings{DefaultMinutes: number("default_minutes"), LongestMinutes: number("longest_minutes"), Approvers: v.r.PostForm["approver"], SecondToStart: []policy.Effect{},
		Approvals: policy.Approvals{Read: kind(policy.Read), Write: kind(policy.Write), Destructive: kind(policy.Destructive), Access: kind(policy.Access)},
		Limits:    policy.Fatigue{OpenByAgent: number("open_by_agent"), OpenByUser: number("open_by_user"), HourlyByAgent: number("hourly_by_agent"), HourlyByUser: number("hourly_by_user")}}
	for _, e := range v.r.PostForm["second"] {
		out.SecondToStart = append(out.SecondToStart, policy.Effect(e))
	}
	if q := (policy.Quiet{From: v.form("quiet_from"), To: v.form("quiet_to"), Zone: v.form("quiet_zone")}); q.From != "" || q.To != "" {
		out.Quiet = &q
	}
	return out, broken
}

func (s *Server) rulesForm(v *visit) func() (page, error) {
	return func() (page, error) { return s.rulesPage(v) }
}

func (s *Server) rulesSettings(v *visit) (change, error) {
	version := v.version()
	set, broken := settingsForm(v)
	return change{back: v.query("/ui/rules"), form: s.rulesForm(v),
		try: func(ag account.Agreement) (answer, error) {
			if broken != nil {
				return nil, broken
			}
			_, err := s.sessions.SetSettings(v.ctx(), v.actor(), v.here.Organization, version, set, ag)
			return goTo(v.query("/ui/rules", "done", "saved")), err
		},
		ask: func(r account.Raise) (page, error) { return s.loosenPage(v, r), nil }}, nil
}

func (s *Server) rulesPolicy(v *visit) (change, error) {
	version := v.version()
	text := strings.ReplaceAll(v.r.Form.Get("policy"), "\r\n", "\n")
	return change{back: v.query("/ui/rules"), form: s.rulesForm(v),
		try: func(ag account.Agreement) (answer, error) {
			_, err := s.sessions.SetPolicy(v.ctx(), v.actor(), v.here.Organization, version, text, ag)
			return goTo(v.query("/ui/rules", "done", "saved")), err
		},
		ask: func(account.Raise) (page, error) { return s.policyPage(v, text) }}, nil
}

// rulesTrial says what policies would have decided since yesterday.
func (s *Server) rulesTrial(v *visit) (answer, error) {
	p, err := s.rulesPage(v)
	if err != nil {
		return nil, err
	}
	got, err := s.sessions.TryPolicy(v.ctx(), v.actor(), v.here.Organization, p.Policy, s.now().Add(-24*time.Hour))
	if err != nil {
		return again(p, err)
	}
	p.Tried = s.tried(v, got)
	return show(p), nil
}

func (s *Server) tried(v *visit, got session.Replayed) *TriedPolicy {
	out := &TriedPolicy{Since: got.Since, Calls: got.Calls, Allowed: got.Allowed, Denied: got.Denied, Unknown: got.Unknown, More: got.More}
	names := s.names(v, v.here.Environment)
	for _, c := range got.Changed[:min(len(got.Changed), 20)] {
		out.Changed = append(out.Changed, TriedCall{At: c.At, Agent: names.agent(c.Agent), Tool: oneLine(c.Tool), Was: string(c.Was), Now: string(c.Now), Policy: c.Policy})
	}
	return out
}

// loosenPage says in words what new settings allow more.
func (s *Server) loosenPage(v *visit, r account.Raise) *ConfirmPage {
	var from, to policy.Settings
	_ = json.Unmarshal([]byte(r.From), &from) // as the room wrote them
	_ = json.Unmarshal([]byte(r.To), &to)
	p := s.confirming(v, "Sessions and approvals", "organization", said("In ", v.here.OrganizationName, ", agents may ", "more", " than until now."), "Allow it")
	p.Lines = differences(from, to)
	return p
}

// differences says what changes, one line each.
func differences(from, to policy.Settings) []string {
	var out []string
	line := func(what, a, b string) {
		if a != b {
			out = append(out, what+": "+b+". Until now: "+a+".")
		}
	}
	line("A session lasts", span(from.DefaultMinutes)+", at most "+span(from.LongestMinutes), span(to.DefaultMinutes)+", at most "+span(to.LongestMinutes))
	kind := func(k policy.Kind) string {
		return map[policy.Kind]string{policy.ByGrant: "as the session's approver says", policy.ByCall: "an approval each", policy.BySecond: "an approval each, by two persons"}[k]
	}
	for _, e := range policy.Effects() {
		line(effectWord(e)+" need", kind(from.Approvals.Of(e)), kind(to.Approvals.Of(e)))
	}
	line("Who decides for the organization", andList(from.Approvers), andList(to.Approvers))
	second := func(list []policy.Effect) string {
		if len(list) == 0 {
			return "nothing"
		}
		var words []string
		for _, e := range list {
			words = append(words, strings.ToLower(effectWord(e)))
		}
		return andList(words)
	}
	line("A second person must start sessions with", second(from.SecondToStart), second(to.SecondToStart))
	quiet := func(q *policy.Quiet) string {
		if q == nil {
			return "none"
		}
		return oneLine(q.From + " to " + q.To + " in " + q.Zone)
	}
	line("Quiet hours", quiet(from.Quiet), quiet(to.Quiet))
	limits := func(f policy.Fatigue) string {
		return fmt.Sprintf("%d open and %d an hour of an agent, %d and %d of a person", f.OpenByAgent, f.HourlyByAgent, f.OpenByUser, f.HourlyByUser)
	}
	line("Requests", limits(from.Limits), limits(to.Limits))
	return out
}

// policyPage shows the policies that somebody would agree to, and what they would
// have decided since yesterday.
func (s *Server) policyPage(v *visit, text string) (page, error) {
	p := s.confirming(v, "Policies", "organization", said("From the next call on, these policies decide in ", v.here.OrganizationName, "."), "Set the policies")
	p.More, p.Text = "The policies", visible(text)
	if strings.TrimSpace(text) == "" {
		p.Said, p.More = said("In ", v.here.OrganizationName, ", no policy has a say any more: grants decide alone."), ""
	}
	got, err := s.sessions.TryPolicy(v.ctx(), v.actor(), v.here.Organization, text, s.now().Add(-24*time.Hour))
	if err != nil {
		return p, nil // who may set policies and not read the audit decides without
	}
	p.Lines = append(p.Lines, triedWords(got))
	return p, nil
}

func triedWords(got session.Replayed) string {
	if got.Calls == 0 {
		return "There were no calls within a day that could show what they would change."
	}
	words := fmt.Sprintf("Of %s within a day, %s would have ended otherwise.", plural(got.Calls, "call"), thousands(len(got.Changed)))
	if got.Unknown > 0 {
		words += " For " + thousands(got.Unknown) + " it depends on arguments, which are not on record."
	}
	return words
}

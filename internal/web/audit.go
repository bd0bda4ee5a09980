package web

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
)

// auditList shows entries: the organization's to those who may read its audit,
// the whole environment's in the organization that runs it, to anybody else what
// was done by them or for them.
func (s *Server) auditList(v *visit) (answer, error) {
	p := &AuditPage{Frame: Frame{Title: "Audit", Section: "audit"}, Filter: auditForm(v)}
	if err := v.actor().May(v.here.Organization, account.View); err != nil {
		return nil, err
	}
	p.Own = !v.may(account.ReadAudit)
	f, err := auditFilter(v)
	if err != nil {
		return again(p, err)
	}
	if p.Own {
		f.User = v.person.User()
	} else if v.actor().May("", account.ReadAudit) == nil {
		// Who runs the environment looks for somebody in all of it. What belongs to
		// no organization, such as providers and sign-ins, shows where it is run.
		if p.Whole = v.here.Operates(); p.Whole || p.Filter.About != "" {
			f.Organization = ""
		}
		f.Server = p.Whole && v.person.May(v.here.Organization, account.RoleOwner)
		p.Server = f.Server
	}
	list, err := s.audit.List(v.ctx(), f)
	if err != nil {
		return again(p, err)
	}
	who := s.names(v, v.here.Environment)
	for _, r := range list.Records {
		p.Items = append(p.Items, auditRow(who, r))
	}
	if list.Next != "" {
		p.Next = v.query("/ui/audit", "action", f.Action, "decision", f.Decision, "about", p.Filter.About, "since", p.Filter.Since, "after", list.Next)
	}
	return show(p), nil
}

func auditForm(v *visit) AuditFilter {
	f := AuditFilter{Action: v.form("action"), About: v.form("about"), Since: v.form("since")}
	for _, d := range []struct{ value, label string }{{"", "Any"}, {"allow", "Allowed"}, {"deny", "Denied"}} {
		f.Decisions = append(f.Decisions, Option{Value: d.value, Label: d.label, Chosen: d.value == v.form("decision")})
	}
	f.Set = f.Action != "" || f.About != "" || f.Since != "" || v.form("decision") != ""
	return f
}

func auditFilter(v *visit) (audit.Filter, error) {
	f := audit.Filter{Environment: v.here.Environment, Organization: v.here.Organization, Action: v.form("action"), Decision: v.form("decision"), After: v.form("after")}
	if since := v.form("since"); since != "" {
		var err error
		if f.Since, err = time.Parse(time.DateOnly, since); err != nil {
			return f, fault.New(fault.Invalid, "invalid_date", "A date looks like 2026-11-23.")
		}
	}
	about := v.form("about")
	kind, _, _ := strings.Cut(about, "_")
	var err error
	switch kind {
	case "":
	case "agent":
		f.Agent, err = parseID(id.Agent(about))
	case "user":
		f.User, err = parseID(id.User(about))
	case "ses":
		f.Session, err = parseID(id.Session(about))
	case "conn":
		f.Connection, err = parseID(id.Connection(about))
	default:
		err = fault.New(fault.Invalid, "invalid_filter", "Give the id of an agent, a user, a session or a connection.").WithHint("Ids begin with agent_, user_, ses_ or conn_.")
	}
	if f := fault.Of(err); f != nil && f.Kind == fault.NotFound {
		err = fault.New(fault.Invalid, "invalid_filter", "That id is incomplete.").WithHint("Copy it whole.")
	}
	return f, err
}

func auditRow(who *names, r audit.Record) AuditRow {
	row := AuditRow{At: r.Time, Action: r.Action, Tool: oneLine(r.Tool), Who: who.actor(r.Entry), Result: r.Decision}
	if r.Outcome != nil || r.Kind == audit.KindIntent {
		row.Result, row.Why = stateOf(r.Outcome)
	}
	add := func(name, value string, isID bool) {
		if value != "" {
			row.Facts = append(row.Facts, Fact{Name: name, Value: value, ID: isID})
		}
	}
	add("Entry", string(r.ID), true)
	add("Time", r.Time.UTC().Format(time.RFC3339Nano), false)
	add("Agent", string(r.Agent), true)
	add("User", string(r.User), true)
	add("Session", string(r.Session), true)
	add("Approval", string(r.Approval), true)
	add("Connection", string(r.Connection), true)
	add("Object", r.Object, false)
	add("Provider", r.Provider, false)
	add("Effect", r.Effect, false)
	add("Decided by rule", r.Rule, false)
	add("Code", r.Code, false)
	if o := r.Outcome; o != nil {
		add("Outcome", strings.TrimSpace(o.Status+" "+o.Code), false)
		if o.SettledBy != "" {
			add("Why", "The server stopped while it ran. Nobody knows whether it took effect.", false)
			add("Settled by", o.SettledBy, false)
		}
		if o.UpstreamStatus != 0 {
			add("Provider answered", fmt.Sprint(o.UpstreamStatus), false)
		}
		add("Took", took(o.Duration), false)
	}
	add("Digest", r.ArgumentDigest, true)
	add("Address", r.Address, false)
	for _, k := range slices.Sorted(keys(r.Detail)) {
		add(upper(strings.ReplaceAll(k, "_", " ")), r.Detail[k], false)
	}
	add("Confirmed with", confirmedWith(r.Evidence), false)
	add("Chain", fmt.Sprintf("%s, entry %d", r.Chain, r.Seq), false)
	return row
}

// stateOf is how a call stands: running without an outcome. why is set when nobody
// knows how it ended because its server stopped.
func stateOf(o *audit.Outcome) (state, why string) {
	switch {
	case o == nil:
		return "running", ""
	case o.SettledBy != "":
		return o.Status, "the server stopped while it ran"
	}
	return o.Status, ""
}

func keys(m map[string]string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// confirmedWith names the method of an approval's evidence. The evidence itself
// is for the command line, which can verify it.
func confirmedWith(evidence json.RawMessage) string {
	var e struct {
		Method string `json:"method"`
	}
	if len(evidence) == 0 || json.Unmarshal(evidence, &e) != nil {
		return ""
	}
	return map[string]string{account.MethodPasskey: "a passkey", account.MethodTOTP: "an authenticator code"}[e.Method]
}

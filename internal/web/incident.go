package web

import (
	"html/template"
	"net/url"
	"time"

	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
)

// IncidentPage disconnects many accounts at once. It shows first which.
type IncidentPage struct {
	Frame
	Provider, Owner, From, To string
	Providers                 []ProviderRow
	Looked                    bool
	Items                     []ConnectionRow
	More                      bool
	Back                      string
}

func (*IncidentPage) template() string { return "incident" }

// Total is how many were found.
func (p *IncidentPage) Total() int { return len(p.Items) }

// connectionsAim shows the form, and what it would disconnect once something is
// filled in.
func (s *Server) connectionsAim(v *visit) (answer, error) {
	p := s.incidentPage(v)
	aim, asked, err := incidentAim(v)
	if err != nil {
		return again(p, err)
	}
	list, err := s.providers.List(v.ctx(), v.here.Environment)
	if err != nil {
		return nil, err
	}
	for _, prov := range list {
		p.Providers = append(p.Providers, providerRow(prov))
	}
	if !asked {
		return show(p), nil
	}
	found, err := s.connections.Aimed(v.ctx(), v.actor(), aim)
	if err != nil {
		return again(p, err)
	}
	who := s.names(v, v.here.Environment)
	p.Looked, p.More = true, found.More
	for _, c := range found.Connections {
		p.Items = append(p.Items, connectionRow(v, who, c, ""))
	}
	return show(p), nil
}

func (s *Server) incidentPage(v *visit) *IncidentPage {
	return &IncidentPage{Frame: Frame{Title: "Disconnect many accounts", Section: "connections"}, Provider: v.form("provider"), Owner: v.form("owner"),
		From: v.form("from"), To: v.form("to"), Back: v.query("/ui/connections")}
}

// incidentAim reads the form. An organization's page never reaches beyond it.
func incidentAim(v *visit) (aim connection.Aim, asked bool, err error) {
	aim = connection.Aim{Organization: v.here.Organization, Provider: v.form("provider")}
	if raw := v.form("owner"); raw != "" {
		if aim.Owner, err = parseID(id.User(raw)); err != nil {
			return aim, false, fault.New(fault.Invalid, "owner_invalid", "That is not the id of a user.")
		}
	}
	for name, to := range map[string]*time.Time{"from": &aim.From, "to": &aim.To} {
		if raw := v.form(name); raw != "" {
			if *to, err = time.Parse("2006-01-02T15:04", raw); err != nil {
				return aim, false, fault.New(fault.Invalid, "time_invalid", "That is not a time such as 2026-11-27T08:00, in UTC.")
			}
		}
	}
	return aim, v.r.Form.Has("provider"), nil
}

func (s *Server) connectionsRevoke(v *visit) (answer, error) {
	aim, _, err := incidentAim(v)
	if err != nil {
		return again(s.incidentPage(v), err)
	}
	ended, err := s.credentials.DisconnectAimed(v.ctx(), v.actor(), aim)
	if err != nil {
		return nil, err
	}
	p := &ResultPage{Frame: Frame{Title: "Disconnected", Section: "connections", Narrow: true}, Word: "Disconnected", Icon: "good",
		Sentence: plural(len(ended.Connections), "account") + " disconnected.", Back: v.query("/ui/connections", "ended", "1"), BackLabel: "See what became of them"}
	p.Lines = []string{"Their sessions have ended, and their keys are no longer used for anything. The providers are being told."}
	if ended.More {
		p.Lines = append(p.Lines, "There are more: do it again for the rest.")
		p.Back, p.BackLabel = v.query("/ui/connections/incident", "provider", aim.Provider, "owner", string(aim.Owner), "from", v.form("from"), "to", v.form("to")), "Go on"
	}
	return show(p), nil
}

// upstreamWords say what became of an ended connection's credential.
func upstreamWords(c connection.Connection, upstream string) string {
	if upstream == credential.RevokedUpstream {
		return "The provider has revoked it too."
	}
	if upstream == credential.RevokePending {
		return "The provider could not be told yet. It is tried again for a week."
	}
	if upstream == credential.Unsupported || upstream == credential.RevokeFailed {
		return "The provider has not taken it back: remove the access there."
	}
	return ""
}

// link is an address of a record as a link, if it is one of the web.
func link(raw string) template.URL {
	if u, err := url.Parse(raw); err == nil && (u.Scheme == "https" || u.Scheme == "http") {
		return template.URL(raw) //nolint:gosec // the scheme is checked
	}
	return ""
}

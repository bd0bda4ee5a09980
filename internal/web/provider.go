package web

import (
	"strconv"
	"strings"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
)

func providerRow(p provider.Provider) ProviderRow {
	return ProviderRow{Slug: p.Record.ID, Name: p.Record.Name, Kind: kindOf(p.Record.Auth), Tools: len(p.Record.Tools()), BuiltIn: p.Builtin}
}

func (v *visit) mayProviders() bool { return v.actor().May("", account.ManageProviders) == nil }

func (s *Server) providerList(v *visit) (answer, error) {
	list, err := s.providers.List(v.ctx(), v.here.Environment)
	if err != nil {
		return nil, err
	}
	p := &ProvidersPage{Frame: Frame{Title: "Providers", Section: "providers"}, CanAdd: v.mayProviders(), CanStop: v.may(account.Revoke)}
	for _, prov := range list {
		p.Items = append(p.Items, providerRow(prov))
	}
	return show(p), nil
}

// providerRevoke ends every session with a provider in this organization.
func (s *Server) providerRevoke(v *visit) (answer, error) {
	prov, err := s.providers.Get(v.ctx(), v.here.Environment, v.r.PathValue("provider"))
	if err != nil {
		return nil, err
	}
	return s.revoke(v, session.Aim{Provider: prov.Record.ID, Organization: v.here.Organization}, prov.Record.Name, v.query("/ui/providers"))
}

// providerNew shows the form of a template, of a bare record, or, with from, of
// a stored record.
func (s *Server) providerNew(v *visit) (answer, error) {
	if err := v.actor().May("", account.ManageProviders); err != nil {
		return nil, err
	}
	if from := v.form("from"); from != "" {
		prov, err := s.providers.Get(v.ctx(), v.here.Environment, from)
		if err != nil {
			return nil, err
		}
		return show(s.providerPage(v, "", &prov)), nil
	}
	name := v.form("template")
	if list := s.providers.Templates(); name == "" && len(list) > 0 {
		name = list[len(list)-1].ID
	}
	if _, err := s.providers.Template(name); err != nil && name != "yaml" {
		return nil, err
	}
	return show(s.providerPage(v, name, nil)), nil
}

func (s *Server) providerPage(v *visit, template string, stored *provider.Provider) *ProviderNewPage {
	p := &ProviderNewPage{Frame: Frame{Title: "Describe a provider", Section: "providers", Narrow: true}, Help: "Write the record yourself. Every field is described in the manual.", OAuth: true}
	slug := "SHORT-NAME"
	if stored != nil {
		p.Title, p.Editing, p.YAML, p.ClientID, p.Version = "Edit a provider", true, string(stored.Record.Source()), stored.ClientID, stored.Version
		p.OAuth, slug = stored.Record.Auth == provider.OAuth2, stored.Record.ID
	}
	p.Callback = s.public.JoinPath(credential.CallbackPath(v.here.Environment, slug)).String()
	for _, t := range s.providers.Templates() {
		p.Templates = append(p.Templates, Tab{Label: t.Name, Href: v.query("/ui/providers/new", "template", t.ID), Chosen: t.ID == template})
		if t.ID != template {
			continue
		}
		p.Template, p.Help, p.OAuth = t.ID, t.Description, strings.Contains(t.ID, "oauth")
		for _, param := range t.Params {
			p.Params = append(p.Params, ParamField{Name: param.Name, Title: param.Title, Help: param.Help, Kind: param.Kind, Value: param.Default, Required: param.Required})
		}
	}
	p.Templates = append(p.Templates, Tab{Label: "YAML", Href: v.query("/ui/providers/new", "template", "yaml"), Chosen: template == "yaml"})
	return p
}

func (s *Server) providerPut(v *visit) (answer, error) {
	in := provider.Input{YAML: []byte(strings.ReplaceAll(v.r.PostForm.Get("yaml"), "\r\n", "\n")), ClientID: v.form("client_id"), ClientSecret: secret.FromString(v.form("client_secret"))}
	in.IfVersion, _ = strconv.ParseInt(v.form("version"), 10, 64)
	template := v.form("template")
	err := error(nil)
	if template != "" {
		in.YAML, err = s.filled(v, template)
	}
	if err == nil {
		_, err = s.providers.Put(v.ctx(), v.actor(), in)
	}
	if err != nil {
		return again(s.providerRetry(v, template, in, err), err)
	}
	return goTo(v.query("/ui/providers", "done", "saved")), nil
}

func (s *Server) filled(v *visit, name string) ([]byte, error) {
	t, err := s.providers.Template(name)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for _, p := range t.Params {
		values[p.Name] = v.r.PostForm.Get("param." + p.Name)
		if p.Kind == "bool" && values[p.Name] == "" {
			values[p.Name] = "false"
		}
		values[p.Name] = strings.ReplaceAll(values[p.Name], "\r\n", "\n")
		if values[p.Name] == "" && p.Required {
			return nil, fault.New(fault.Invalid, "template_param_missing", "Fill in: "+p.Title+".")
		}
	}
	r, err := t.Record(values)
	return r.Source(), err
}

// providerRetry is the form again, as it was filled in; a secret is not sent
// back.
func (s *Server) providerRetry(v *visit, template string, in provider.Input, err error) *ProviderNewPage {
	p := s.providerPage(v, template, nil)
	p.YAML, p.ClientID, p.Version, p.Editing = string(in.YAML), in.ClientID, in.IfVersion, in.IfVersion > 0
	for i := range p.Params {
		p.Params[i].Value = v.r.PostForm.Get("param." + p.Params[i].Name)
	}
	if fault.Is(err, "record_invalid") {
		for _, found := range provider.Problems(err) {
			line := found.Line
			if template != "" {
				line = 0
			}
			p.Problems = append(p.Problems, RecordProblem{Line: line, Field: found.Field, Message: found.Message, Fix: found.Fix})
		}
	}
	return p
}

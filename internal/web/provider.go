package web

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/provider/openapi"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
)

func providerRow(p provider.Provider) ProviderRow {
	return ProviderRow{Slug: p.Record.ID, Name: p.Record.Name, Kind: kindOf(p.Record.Auth), Tools: len(p.Record.Tools()), BuiltIn: p.Builtin, Client: p.Record.Auth == provider.OAuth2}
}

func (v *visit) mayProviders() bool { return v.actor().May("", account.ManageProviders) == nil }

func (s *Server) providerList(v *visit) (answer, error) {
	list, err := s.providers.List(v.ctx(), v.here.Environment)
	if err != nil {
		return nil, err
	}
	p := &ProvidersPage{Frame: Frame{Title: "Providers", Section: "providers"}, CanAdd: v.mayProviders(), CanStop: v.may(account.Revoke), CanClient: v.may(account.ManageProviders)}
	for _, prov := range list {
		p.Items = append(p.Items, providerRow(prov))
	}
	return show(p), nil
}

// catalogPage is how many entries of the catalogue are shown at once.
const catalogPage = 25

// providerCatalog searches what the catalogue knows.
func (s *Server) providerCatalog(v *visit) (answer, error) {
	p := &CatalogPage{Frame: Frame{Title: "Catalogue", Section: "providers"}, Search: oneLine(v.form("search")), CanAdd: v.mayProviders()}
	found, err := provider.Search(p.Search)
	if err != nil {
		return nil, err
	}
	p.Found = len(found)
	after := v.form("after")
	from, _ := slices.BinarySearchFunc(found, after, func(e provider.Entry, id string) int { return cmp.Compare(e.ID, id) })
	if from < len(found) && found[from].ID == after {
		from++
	}
	for _, e := range found[from:] {
		if len(p.Items) == catalogPage {
			p.Next = v.query("/ui/providers/catalog", "search", p.Search, "after", p.Items[len(p.Items)-1].ID)
			break
		}
		p.Items = append(p.Items, CatalogRow{ID: e.ID, Name: e.Name, Category: e.Category, Kind: kindOf(e.Shown.Auth), Facts: e.Shown.About.Confidence + " confidence, " + e.Tried(),
			Hosts: andList(e.Shown.Hosts()), Href: v.query("/ui/providers/new", "template", e.ID)})
	}
	return show(p), nil
}

// providerRevoke ends every session with a provider in this organization.
func (s *Server) providerRevoke(v *visit) (answer, error) {
	slug := v.r.PathValue("provider")
	return s.revoke(v, session.Aim{Provider: slug, Organization: v.here.Organization}, v.query("/ui/providers"), func() (string, error) {
		prov, err := s.providers.Get(v.ctx(), v.here.Environment, slug)
		return prov.Record.Name, err
	})
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
	if v.form("draft") != "" {
		d, err := s.findDraft(v, v.form("draft"))
		if err != nil {
			return nil, err
		}
		return show(s.draftForm(v, d)), nil
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
		p.OAuth, slug = stored.Record.NeedsClient(), stored.Record.ID
	}
	p.Callback = s.public.JoinPath(credential.CallbackPath(v.here.Environment, slug)).String()
	for _, t := range s.providers.Templates() {
		p.Templates = append(p.Templates, Tab{Label: t.Name, Href: v.query("/ui/providers/new", "template", t.ID), Chosen: t.ID == template})
		if t.ID == template {
			p.fill(t, t.Description, strings.Contains(t.ID, "oauth"))
		}
	}
	if e, err := provider.FindEntry(template); p.Template == "" && template != "" && err == nil {
		about := e.Shown.About
		p.Title = "Add " + oneLine(e.Name)
		p.fill(e.Template, strings.Join(append([]string{"From the catalogue: " + about.Confidence + " confidence, " + e.Tried() + "."}, about.Notes...), " "), e.Shown.Auth == provider.OAuth2)
		p.Callback = s.public.JoinPath(credential.CallbackPath(v.here.Environment, e.ID)).String()
	}
	p.Templates = append(p.Templates, Tab{Label: "YAML", Href: v.query("/ui/providers/new", "template", "yaml"), Chosen: template == "yaml"})
	p.Import = template == "yaml"
	return p
}

// fill asks for what a template takes.
func (p *ProviderNewPage) fill(t provider.Template, help string, oauth bool) {
	p.Template, p.Help, p.OAuth = t.ID, help, oauth
	for _, param := range t.Params {
		p.Params = append(p.Params, ParamField{Name: param.Name, Title: param.Title, Help: param.Help, Kind: param.Kind, Value: param.Default, Required: param.Required, Options: param.Options})
		p.Switches = p.Switches || param.Kind == "bool"
	}
}

// providerImport drafts a record from an OpenAPI description and shows it in the
// form, with what was left out and guessed. Nothing is kept.
func (s *Server) providerImport(v *visit) (answer, error) {
	p := s.providerPage(v, "yaml", nil)
	d, err := s.importer.Import(v.ctx(), v.actor(), []byte(v.r.PostForm.Get("document")), openapi.Options{Source: v.form("url")})
	if err != nil {
		return again(p, err)
	}
	rec, err := provider.Parse([]byte(d.YAML))
	if err != nil {
		return nil, err
	}
	p.YAML, p.OAuth, p.Left, p.Flagged = d.YAML, rec.Auth == provider.OAuth2, d.Left, d.Flagged
	p.Help = "Drafted from the description, with " + plural(d.Tools, "tool") + ". Read it, above all what each tool is said to do, and correct it."
	return show(p), nil
}

// providerPut takes a record in. It counts once the person agreed to it.
func (s *Server) providerPut(v *visit) (answer, error) {
	in := provider.Input{YAML: []byte(strings.ReplaceAll(v.r.PostForm.Get("yaml"), "\r\n", "\n")), ClientID: v.form("client_id"), ClientSecret: secret.FromString(v.form("client_secret"))}
	in.IfVersion = v.version()
	template := v.form("template")
	err := error(nil)
	if template != "" {
		in.YAML, err = s.filled(v, template)
	}
	var d provider.Draft
	if err == nil {
		d, err = s.providers.Draft(v.ctx(), v.actor(), in, id.Draft(v.form("draft")))
	}
	if err != nil {
		return again(s.providerRetry(v, template, in, err), err)
	}
	return goTo(v.query("/ui/drafts/" + string(d.ID))), nil
}

// findDraft finds a draft of the person in whichever environment they made it.
func (s *Server) findDraft(v *visit, raw string) (provider.Draft, error) {
	did, err := parseID(id.Draft(raw))
	if err != nil {
		return provider.Draft{}, err
	}
	var d provider.Draft
	err = v.anywhere(func(by account.Actor) (id.Organization, error) {
		var err error
		if d, err = s.providers.Drafted(v.ctx(), by, did); err == nil && by.Environment() != v.here.Environment {
			for _, m := range v.person.Organizations() {
				if m.Environment == by.Environment() {
					v.here = m
				}
			}
		}
		return v.here.Organization, err
	})
	return d, err
}

// providerAccept makes a draft count.
func (s *Server) providerAccept(v *visit) (change, error) {
	d, err := s.findDraft(v, v.r.PathValue("id"))
	if err != nil {
		return change{}, err
	}
	back, form := v.query("/ui/providers/new", "draft", string(d.ID)), func() (page, error) { return s.draftForm(v, d), nil }
	if d.Organization != "" || d.For != "" { // its form is that of clients
		back, form = v.query("/ui/providers/"+d.Record.ID+"/client"), nil
	}
	return change{back: back,
		try: func(ag account.Agreement) (answer, error) {
			_, err := s.providers.Accept(v.ctx(), v.actor(), d.ID, ag)
			return goTo(v.query("/ui/providers", "done", "saved")), err
		},
		ask:  func(r account.Raise) (page, error) { return s.draftPage(v, d, r), nil },
		form: form}, nil
}

// draftForm is the form of a record that was handed in.
func (s *Server) draftForm(v *visit, d provider.Draft) *ProviderNewPage {
	p := s.providerPage(v, "", nil)
	p.YAML, p.ClientID, p.OAuth, p.Version, p.Editing, p.Draft = string(d.Record.Source()), d.ClientID, d.Record.NeedsClient(), d.IfVersion, true, d.ID
	return p
}

// draftPage says where credentials will go.
func (s *Server) draftPage(v *visit, d provider.Draft, r account.Raise) *ConfirmPage {
	p := s.confirming(v, "Confirm a provider", "providers", said("", d.Record.Name, " may be connected. Its keys go to ", andList(d.Record.Hosts()), "."), "Add the provider")
	if r.Action == "provider.updated" {
		p.Label, p.Said = "Change the provider", said("", d.Record.Name, " changes. Its keys then go to ", andList(d.Record.Hosts()), ".")
		p.Lines = []string{"Accounts that are connected keep the record they have, until their owner reconnects."}
		if d.Record.MCP != nil {
			p.Lines = []string{"Accounts that are connected keep the record they have, until somebody uses the provider's tools there (Connections, Tools), or their owner reconnects."}
		}
	}
	counts := map[policy.Effect]int{}
	for _, t := range d.Record.Tools() {
		counts[t.Effect]++
	}
	var tools []string
	for _, e := range policy.Effects() {
		if n := counts[e]; n > 0 {
			tools = append(tools, strconv.Itoa(n)+" to "+verbs([]policy.Effect{e}))
		}
	}
	p.Lines = append(p.Lines, strings.TrimSuffix("It has "+plural(len(d.Record.Tools()), "tool")+": "+andList(tools), ": ")+".")
	if d.Organization != "" || d.For != "" {
		s.clientLines(v, d, r, p)
		return p
	}
	if d.ClientID != "" {
		p.Lines = append(p.Lines, "Our client there is "+oneLine(d.ClientID)+map[bool]string{true: ", with the secret that you gave.", false: "."}[d.NewSecret])
	}
	p.BackLabel, p.More, p.Text = "Back to the form", "The whole record", string(d.Record.Source())
	return p
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
	p.YAML, p.ClientID, p.Version, p.Editing, p.Draft = string(in.YAML), in.ClientID, in.IfVersion, in.IfVersion > 0, id.Draft(v.form("draft"))
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

package web

import (
	"cmp"
	"net/http"
	"net/url"
	"strings"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/custody"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/vault"
)

// wish is what somebody wants to bind, as far as they have filled it in.
type wish struct {
	custody.NewBinding
	service *keyService
	fields  url.Values
}

// wished reads the form of the wizard, or the URI that a command line wants bound.
func (s *Server) wished(v *visit) (w wish, err error) {
	w.Mode = vault.Mode(v.form("mode"))
	if w.Mode != vault.Preferred {
		w.Mode = vault.Required
	}
	if w.Organization, err = v.reachOf(account.ManageRootKeys); err != nil {
		return w, err
	}
	if v.form("reach") == "user" && v.form("user_id") != "" {
		if w.User, err = parseID(id.User(v.form("user_id"))); err != nil {
			return w, err
		}
	}
	if uri := v.form("uri"); uri != "" {
		w.URI, w.service = uri, serviceOf(uri)
		if w.service == nil {
			return w, nil
		}
		w.fields = w.service.split(uri)
	} else if w.service, w.fields = serviceNamed(v.form("service")), v.r.Form; w.service == nil {
		return w, nil
	}
	if w.service.fill != nil {
		w.service.fill(w.fields, cmp.Or(string(w.Organization), string(v.here.Environment)))
	}
	if w.service.complete(w.fields) {
		w.URI = w.service.uri(trimmed(w.service, w.fields))
	}
	return w, nil
}

// trimmed are the fields of a service, without space around them.
func trimmed(k *keyService, f url.Values) url.Values {
	out := url.Values{}
	for _, x := range k.fields {
		out.Set(x.Name, strings.TrimSpace(f.Get(x.Name)))
	}
	if k.ID == "azurekv" {
		out.Set("algorithm", strings.TrimSpace(f.Get("algorithm")))
	}
	return out
}

func (s *Server) bindWizard(v *visit) (answer, error) {
	w, err := s.wished(v)
	if err != nil {
		return nil, err
	}
	p, err := s.bindPage(v, w)
	if err != nil {
		return nil, err
	}
	if w.URI == "" {
		return show(p), nil
	}
	if err := s.custody.Check(v.ctx(), v.actor(), w.NewBinding); err != nil {
		f := fault.Of(err)
		p.Problem = &Notice{Kind: "warn", Message: f.Message, Hint: f.Hint}
		if f.Kind != fault.Unavailable && f.Code != "root_key_credentials" { // else it is the server that is not ready
			p.URI, p.Problem.Kind = "", "bad"
		}
	}
	return show(p), nil
}

func (s *Server) bindPage(v *visit, w wish) (*BindPage, error) {
	if err := s.custody.Over(v.ctx(), v.actor(), w.Organization); err != nil {
		return nil, err
	}
	p := &BindPage{Frame: Frame{Title: "Bring your own key", Section: "keys", Narrow: true}, URI: w.URI, Mode: string(w.Mode), Reach: "organization", User: string(w.User), MayWhole: v.actor().May("", account.ManageRootKeys) == nil}
	switch {
	case w.Organization == "":
		p.Reach = "environment"
	case w.User != "":
		p.Reach = "user"
	}
	for i := range keyServices {
		k := &keyServices[i]
		p.Services = append(p.Services, Choice{Name: k.Name, About: k.About, Chosen: k == w.service,
			Href: v.query("/ui/keys/bind", "service", k.ID, "reach", v.form("reach"), "user_id", v.form("user_id"), "mode", v.form("mode"))})
	}
	members, _, err := s.people.Members(v.ctx(), v.actor(), v.here.Organization, account.List{Limit: 200})
	if k := fault.KindOf(err); err != nil && k != fault.Denied && k != fault.NotFound { // who runs the environment is no member
		return nil, err
	}
	for _, m := range members {
		p.Users = append(p.Users, Option{Value: string(m.User.ID), Label: oneLine(m.User.Name), Chosen: m.User.ID == w.User})
	}
	if w.service == nil {
		return p, nil
	}
	p.Service, p.ServiceName, p.Take = w.service.ID, w.service.Name, w.service.take
	for _, x := range w.service.fields {
		f := ServiceField{keyField: x, Value: strings.TrimSpace(w.fields.Get(x.Name))}
		for _, o := range x.Options {
			f.Choices = append(f.Choices, Option{Value: o, Label: o, Chosen: o == f.Value})
		}
		p.Fields = append(p.Fields, f)
	}
	whose := [2]string{"organization", string(w.Organization)}
	if w.Organization == "" {
		whose = [2]string{"environment", string(v.here.Environment)}
	}
	p.Allow = w.service.allow(trimmed(w.service, w.fields), whose)
	p.Carried = []Fact{{Name: "service", Value: p.Service}, {Name: "org", Value: string(v.here.Organization)}, {Name: "reach", Value: p.Reach}, {Name: "user_id", Value: p.User}, {Name: "mode", Value: p.Mode}}
	for _, f := range p.Fields {
		if f.Value != "" {
			p.Carried = append(p.Carried, Fact{Name: f.Name, Value: f.Value})
		}
	}
	return p, nil
}

// bindProbe tries the root key, and shows what came of each step.
func (s *Server) bindProbe(v *visit) (answer, error) {
	w, err := s.wished(v)
	if err != nil {
		return nil, err
	}
	p, err := s.bindPage(v, w)
	if err != nil {
		return nil, err
	}
	r, err := s.custody.Probe(v.ctx(), v.actor(), w.NewBinding)
	if err != nil {
		f := fault.Of(err)
		p.Problem = &Notice{Kind: "bad", Message: f.Message, Hint: f.Hint}
		return shown{http.StatusUnprocessableEntity, p}, nil
	}
	p.Tried, p.Passed, p.Root = true, r.Err() == nil, r.Key.Ref
	for i, step := range []struct{ id, name string }{{keyring.StepWrap, "Wrap"}, {keyring.StepUnwrap, "Unwrap"}, {keyring.StepOtherContext, "Refuse it for another context"}, {keyring.StepOtherBlob, "Refuse what was changed"}} {
		line := ProbeLine{Name: step.name, Text: "Not tried, since the step before failed."}
		if i < len(r.Findings) {
			line.Tried, line.OK, line.Text = true, r.Findings[i].OK, upper(r.Findings[i].Text)
		}
		p.Lines = append(p.Lines, line)
	}
	return show(p), nil
}

// bind lets a customer's root key count.
func (s *Server) bind(v *visit) (change, error) {
	w, err := s.wished(v)
	if err != nil {
		return change{}, err
	}
	return change{back: v.query("/ui/keys"),
		try: func(ag account.Agreement) (answer, error) {
			b, err := s.custody.Bind(v.ctx(), v.actor(), w.NewBinding, ag)
			if err != nil {
				return nil, err
			}
			return goTo(v.query("/ui/bindings/"+string(b.ID), "done", "bound")), nil
		},
		form: func() (page, error) { return s.bindPage(v, w) },
		ask: func(r account.Raise) (page, error) {
			items := map[string]string{}
			if w.Organization != "" {
				items["organization_id"] = string(w.Organization)
			}
			if w.User != "" {
				items["user_id"] = string(w.User)
			}
			p := s.confirming(v, "Bind a root key", "keys", said("", s.names(v, v.here.Environment).context(items), " is sealed under ", "a root key of your own", "."), "Bind it")
			p.Lines = []string{w.URI, modeWords(w.Mode) + ".", "Whoever rules over that key can make everything of it unreadable, for as long as they like or for good. What is sealed already follows by itself."}
			return p, nil
		}}, nil
}

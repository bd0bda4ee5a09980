package web

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/webhook"
)

// webhookList shows those of the organization, and those of the whole environment
// to who manages it.
func (s *Server) webhookList(v *visit) (answer, error) {
	p := &WebhooksPage{Frame: Frame{Title: "Webhooks", Section: "webhooks"}}
	if v.mayTellAll() {
		list, err := s.webhooks.List(v.ctx(), v.actor(), "")
		if err != nil {
			return nil, err
		}
		p.Items = s.webhookRows(v, list)
	}
	if v.actor().May(v.here.Organization, account.ManageWebhooks) == nil {
		list, err := s.webhooks.List(v.ctx(), v.actor(), v.here.Organization)
		if err != nil {
			return nil, err
		}
		p.Items, p.CanAdd = append(p.Items, s.webhookRows(v, list)...), true
	} else if !v.mayTellAll() {
		return nil, v.actor().May(v.here.Organization, account.ManageWebhooks)
	}
	return show(p), nil
}

func (v *visit) mayTellAll() bool { return v.actor().May("", account.ManageWebhooks) == nil }

func (s *Server) webhookRows(v *visit, list []webhook.Endpoint) (rows []WebhookRow) {
	for _, e := range list {
		rows = append(rows, s.webhookRow(v, e))
	}
	return rows
}

func (s *Server) webhookRow(v *visit, e webhook.Endpoint) WebhookRow {
	r := WebhookRow{ID: e.ID, Signed: e.Form == webhook.FormEvent, Slack: e.Form == webhook.FormSlack, Href: v.query("/ui/webhooks/" + string(e.ID)), URL: e.URL, Description: e.Description, Reach: v.here.OrganizationName, Tells: "everything", Created: e.CreatedAt, Enabled: e.Enabled, Mark: Mark{"On", "good"}}
	if e.Organization == "" {
		r.Reach = "All of " + v.here.EnvironmentName
	}
	if len(e.Events) > 0 {
		r.Tells = plural(len(e.Events), "kind") + " of event"
	}
	switch {
	case e.Enabled && !e.FailingSince.IsZero():
		r.Mark, r.Since = Mark{"Failing", "warn"}, e.FailingSince
	case e.Reason == "gone":
		r.Mark, r.Why = Mark{"Off", "bad"}, "It answered that it is gone (410)."
	case e.Reason == "failing":
		r.Mark, r.Why = Mark{"Off", "bad"}, "It failed for five days."
	case !e.Enabled:
		r.Mark, r.Why = Mark{"Off", ""}, "Somebody switched it off."
	}
	return r
}

func (s *Server) webhookNew(v *visit) (answer, error) {
	if err := v.actor().May(v.here.Organization, account.ManageWebhooks); err != nil && !v.mayTellAll() {
		return nil, err
	}
	return show(s.webhookForm(v)), nil
}

// webhookForm is the form for a new one as it was last filled in.
func (s *Server) webhookForm(v *visit) *WebhookNewPage {
	p := &WebhookNewPage{Frame: Frame{Title: "Add a webhook", Section: "webhooks", Narrow: true}, Forms: s.formChoices(webhook.Form(v.form("form"))), Description: v.form("description"),
		Events: s.eventChoices(v.r.Form["event"]), MayWhole: v.mayTellAll(), Whole: v.form("reach") == "environment"}
	if v.form("form") != string(webhook.FormSlack) { // whose address is a secret
		p.URL = v.form("url")
	}
	return p
}

func (s *Server) formChoices(chosen webhook.Form) (list []Option) {
	for _, f := range webhook.Forms() {
		if f != webhook.FormMail || s.webhooks.Mails() {
			list = append(list, Option{Value: string(f), Label: formLabel(f), Chosen: f == chosen})
		}
	}
	return list
}

func formLabel(f webhook.Form) string {
	return map[webhook.Form]string{webhook.FormEvent: "Signed events, for a program", webhook.FormSlack: "Messages in Slack, or what takes the same", webhook.FormMail: "Mail"}[f]
}

func (s *Server) eventChoices(chosen []string) (list []Option) {
	for _, kind := range s.webhooks.Kinds() {
		list = append(list, Option{Value: kind, Label: eventLabel(kind), Chosen: slices.Contains(chosen, kind)})
	}
	return list
}

func eventLabel(kind string) string {
	label := map[string]string{
		"connection.connected": "An account is connected", "connection.reauthorized": "It is connected again", "connection.refresh_failed": "A refresh failed",
		"connection.recovered": "It works again", "connection.needs_reauthorization": "It needs a person", "connection.scopes_changed": "Other permissions at the provider",
		"connection.expiring": "It ends soon unless a person signs in", "connection.revoked": "It is disconnected", "approval.requested": "A person is asked for approval",
	}[kind]
	if label == "" {
		return kind
	}
	return label
}

func toldOf(events []string) string {
	if len(events) == 0 {
		return "everything that there is to tell"
	}
	return plural(len(events), "kind") + " of event"
}

func webhookInput(v *visit) webhook.Input {
	in := webhook.Input{Organization: v.here.Organization, Form: webhook.Form(v.form("form")), URL: strings.TrimSpace(v.form("url")), Description: v.form("description"), Events: v.r.Form["event"]}
	if v.form("reach") == "environment" {
		in.Organization = ""
	}
	return in
}

// webhookCreate adds one. It tells on when the person is long signed out, and its
// secret is shown, so they agree to it.
func (s *Server) webhookCreate(v *visit) (change, error) {
	in := webhookInput(v)
	return change{back: v.query("/ui/webhooks"), form: func() (page, error) { return s.webhookForm(v), nil },
		try: func(ag account.Agreement) (answer, error) {
			e, key, err := s.webhooks.Create(v.ctx(), v.actor(), in, ag)
			if err != nil {
				return nil, err
			}
			if key.IsZero() {
				return goTo(webhookAt(v, e, "done", "saved")), nil
			}
			return s.webhookSecret("Added", "Events go to "+e.Host()+" from now on.", reveal(key), webhookAt(v, e)), nil
		},
		ask: func(r account.Raise) (page, error) {
			reach := v.here.OrganizationName
			if r.Organization == "" {
				reach = "all of " + v.here.EnvironmentName
			}
			p := s.confirming(v, "Add a webhook", "webhooks", said("", r.To, " is told of ", toldOf(in.Events), " in ", reach, "."), "Add it")
			p.Lines = []string{formLabel(in.Form) + ". It goes on when you are signed out, until somebody switches it off."}
			if in.Form == webhook.FormEvent {
				p.Lines = append(p.Lines, "The secret that signs is shown one time, on the next page.")
			}
			return p, nil
		}}, nil
}

// webhookSecret shows a fresh secret, with which the receiver checks what it is sent.
func (s *Server) webhookSecret(word, sentence, key, back string) answer {
	return show(&OncePage{Frame: Frame{Title: "Signing secret", Section: "webhooks", Narrow: true}, Word: word, Sentence: oneLine(sentence), Sealed: true,
		Values: []Fact{{Name: "Signing secret", Value: key}}, Back: back})
}

func webhookAt(v *visit, e webhook.Endpoint, more ...string) string {
	return v.query("/ui/webhooks/"+string(e.ID), more...)
}

// onWebhook does something with the webhook that the address names, wherever the
// person manages it.
func onWebhook(v *visit, do func(by account.Actor, hook id.Webhook) (webhook.Endpoint, error)) (webhook.Endpoint, error) {
	hook, err := parseID(id.Webhook(v.r.PathValue("id")))
	if err != nil {
		return webhook.Endpoint{}, err
	}
	var e webhook.Endpoint
	err = v.anywhere(func(by account.Actor) (org id.Organization, err error) {
		e, err = do(by, hook)
		return e.Organization, err
	})
	return e, err
}

func (s *Server) findWebhook(v *visit) (webhook.Endpoint, error) {
	return onWebhook(v, func(by account.Actor, hook id.Webhook) (webhook.Endpoint, error) {
		return s.webhooks.Get(v.ctx(), by, hook)
	})
}

func (s *Server) webhookShow(v *visit) (answer, error) {
	e, err := s.findWebhook(v)
	if err != nil {
		return nil, err
	}
	p, err := s.webhookPage(v, e)
	if err != nil {
		return nil, err
	}
	return show(p), nil
}

func (s *Server) webhookPage(v *visit, e webhook.Endpoint) (*WebhookPage, error) {
	p := &WebhookPage{Frame: Frame{Title: "Webhook", Section: "webhooks"}, WebhookRow: s.webhookRow(v, e), Events: s.eventChoices(e.Events), OldUntil: e.OldUntil}
	p.Title = oneLine(e.Host())
	if !e.OldUntil.IsZero() && !s.now().Before(e.OldUntil) {
		p.OldUntil = time.Time{}
	}
	state := v.form("state")
	for _, t := range []struct{ state, label string }{{"", "All"}, {webhook.Pending, "Waiting"}, {webhook.Delivered, "Delivered"}, {webhook.Failed, "Failed"}, {webhook.Held, "Held back"}} {
		p.Tabs = append(p.Tabs, Tab{t.label, webhookAt(v, e, "state", t.state), t.state == state})
	}
	var after id.Delivery
	if raw := v.form("after"); raw != "" {
		var err error
		if after, err = parseID(id.Delivery(raw)); err != nil {
			return nil, err
		}
	}
	list, more, err := s.webhooks.Deliveries(v.ctx(), v.actorIn(e.Environment), e.ID, state, after, 50)
	if err != nil {
		return nil, err
	}
	for _, d := range list {
		p.Deliveries = append(p.Deliveries, deliveryRow(d))
	}
	if more {
		p.Next = webhookAt(v, e, "state", state, "after", string(list[len(list)-1].ID))
	}
	return p, nil
}

func deliveryRow(d webhook.Delivery) DeliveryRow {
	r := DeliveryRow{ID: d.ID, Event: d.Event, Kind: d.Kind, Label: eventLabel(d.Kind), At: d.CreatedAt, Attempts: d.Attempts}
	if d.Kind == webhook.KindTest {
		r.Label = "A trial"
	}
	switch d.State {
	case webhook.Delivered:
		r.Chip = Mark{"Delivered", "good"}
	case webhook.Failed:
		r.Chip = Mark{"Failed", "bad"}
	case webhook.Held:
		r.Chip = Mark{"Held back", ""}
	default:
		r.Chip, r.Again = Mark{"Waiting", "warn"}, d.NextAt
	}
	switch {
	case d.Status != 0:
		r.Answer = "It answered " + strconv.Itoa(d.Status) + "."
	case d.Error != "":
		r.Answer = "It could not be reached (" + d.Error + ")."
	}
	return r
}

// webhookEdit changes one. Where it then goes elsewhere, or is told more, the person
// agrees to it.
func (s *Server) webhookEdit(v *visit) (change, error) {
	in := webhookInput(v)
	now, err := s.findWebhook(v)
	if err != nil {
		return change{}, err
	}
	form := func() (page, error) {
		p, err := s.webhookPage(v, now)
		if err != nil {
			return nil, err
		}
		if !p.Slack {
			p.URL = in.URL
		}
		p.Description, p.Events, p.Editing = in.Description, s.eventChoices(in.Events), true
		return p, nil
	}
	return change{back: webhookAt(v, now), form: form,
		try: func(ag account.Agreement) (answer, error) {
			e, err := onWebhook(v, func(by account.Actor, hook id.Webhook) (webhook.Endpoint, error) {
				return s.webhooks.Edit(v.ctx(), by, hook, in, ag)
			})
			if err != nil {
				return nil, err
			}
			return goTo(webhookAt(v, e, "done", "saved")), nil
		},
		ask: func(r account.Raise) (page, error) {
			p := s.confirming(v, "Change a webhook", "webhooks", said("", r.To, " is told of ", toldOf(in.Events), "."), "Change it")
			if r.From != r.To {
				p.Lines = []string{"Until now it was " + oneLine(r.From) + "."}
			}
			p.Lines = append(p.Lines, "It goes on when you are signed out, until somebody switches it off.")
			return p, nil
		}}, nil
}

// changeWebhook does something that does not give the webhook itself.
func (s *Server) changeWebhook(v *visit, do func(v *visit, by account.Actor, hook id.Webhook) error) (webhook.Endpoint, error) {
	return onWebhook(v, func(by account.Actor, hook id.Webhook) (webhook.Endpoint, error) {
		e, err := s.webhooks.Get(v.ctx(), by, hook)
		if err != nil {
			return e, err
		}
		return e, do(v, by, hook)
	})
}

// webhookChange is a form that only says to do something, and goes back.
func (s *Server) webhookChange(done string, do func(v *visit, by account.Actor, hook id.Webhook) error) func(*visit) (answer, error) {
	return func(v *visit) (answer, error) {
		e, err := s.changeWebhook(v, do)
		if err != nil {
			return nil, err
		}
		return goTo(webhookAt(v, e, "done", done)), nil
	}
}

func (s *Server) webhookOn(v *visit, by account.Actor, hook id.Webhook) error {
	_, err := s.webhooks.Enable(v.ctx(), by, hook)
	return err
}

func (s *Server) webhookOff(v *visit, by account.Actor, hook id.Webhook) error {
	_, err := s.webhooks.Disable(v.ctx(), by, hook)
	return err
}

func (s *Server) webhookTest(v *visit, by account.Actor, hook id.Webhook) error {
	_, err := s.webhooks.Test(v.ctx(), by, hook)
	return err
}

// webhookReplay sends again all that was not delivered.
func (s *Server) webhookReplay(v *visit, by account.Actor, hook id.Webhook) error {
	_, err := s.webhooks.Replay(v.ctx(), by, hook, webhook.Window{})
	return err
}

// webhookAgain sends one delivery again, whatever became of it.
func (s *Server) webhookAgain(v *visit, by account.Actor, hook id.Webhook) error {
	d, err := parseID(id.Delivery(v.form("delivery")))
	if err == nil {
		_, err = s.webhooks.Replay(v.ctx(), by, hook, webhook.Window{Delivery: d})
	}
	return err
}

// webhookRotate replaces the secret of one and shows the new one, so the person agrees
// to it.
func (s *Server) webhookRotate(v *visit) (change, error) {
	now, err := s.findWebhook(v)
	if err != nil {
		return change{}, err
	}
	overlap, err := time.ParseDuration(cmp.Or(v.form("overlap"), webhook.DefaultOverlap.String()))
	if err != nil {
		overlap = -1 // which the room refuses
	}
	signs := now.Host() + " is signed with the new one alone."
	if overlap > 0 {
		signs = now.Host() + " is signed with the new one, and for " + overlap.String() + " with the old one too."
	}
	return change{back: webhookAt(v, now), form: func() (page, error) { return s.webhookPage(v, now) },
		try: func(ag account.Agreement) (answer, error) {
			var key string
			e, err := onWebhook(v, func(by account.Actor, hook id.Webhook) (webhook.Endpoint, error) {
				e, fresh, err := s.webhooks.Rotate(v.ctx(), by, hook, overlap, ag)
				if err == nil {
					key = reveal(fresh)
				}
				return e, err
			})
			if err != nil {
				return nil, err
			}
			return s.webhookSecret("Replaced", "What goes to "+signs, key, webhookAt(v, e)), nil
		},
		ask: func(account.Raise) (page, error) {
			p := s.confirming(v, "Signing secret", "webhooks", said("Replace the secret of ", now.Host(), "?"), "Replace it")
			p.Lines = []string{"What goes to " + oneLine(signs), "The new one is shown one time. Whoever has it signs as Ambit does."}
			return p, nil
		}}, nil
}

func (s *Server) webhookDelete(v *visit) (answer, error) {
	_, err := s.changeWebhook(v, func(v *visit, by account.Actor, hook id.Webhook) error { return s.webhooks.Delete(v.ctx(), by, hook) })
	if err != nil {
		return nil, err
	}
	return goTo(v.query("/ui/webhooks", "done", "removed")), nil
}

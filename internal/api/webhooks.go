package api

import (
	"context"
	"net/http"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/webhook"
)

// Webhook is where an application is told of what happens.
type Webhook struct {
	ID             string    `json:"id"`
	EnvironmentID  string    `json:"environment_id"`
	OrganizationID string    `json:"organization_id,omitempty" doc:"Absent: the whole environment."`
	Form           string    `json:"form,omitempty" enum:"slack,mail" doc:"How it is told. Absent: signed events."`
	URL            string    `json:"url" doc:"Of Slack the host only: the rest is a secret. Of mail, mailto: and the address."`
	Description    string    `json:"description"`
	Events         []string  `json:"events" nullable:"false" doc:"Empty: all."`
	State          string    `json:"state" enum:"enabled,disabled"`
	Reason         string    `json:"reason,omitempty" doc:"Why it is disabled: switched_off, failing (for five days), or gone (it answered 410)."`
	FailingSince   time.Time `json:"failing_since,omitzero"`
	OldSecretUntil time.Time `json:"old_secret_until,omitzero" doc:"Until when a secret that was replaced signs as well."`
	CreatedAt      time.Time `json:"created_at"`
	UpdatedAt      time.Time `json:"updated_at"`
	Version        int64     `json:"version"`
}

// MadeWebhook is a webhook with its fresh secret.
type MadeWebhook struct {
	Webhook
	Secret string `json:"secret,omitempty" doc:"Of signed events. Signs deliveries by the Standard Webhooks specification. Shown once."`
}

// WebhookDelivery is one event on its way to one webhook.
type WebhookDelivery struct {
	ID        string    `json:"id"`
	WebhookID string    `json:"webhook_id"`
	EventID   string    `json:"event_id" doc:"The webhook-id of each attempt, and the audit entry that says the same."`
	Event     string    `json:"event"`
	State     string    `json:"state" enum:"pending,delivered,failed,held" doc:"held: the webhook was disabled."`
	Attempts  int       `json:"attempts"`
	NextAt    time.Time `json:"next_at,omitzero"`
	Status    int       `json:"status,omitempty" doc:"What the receiver answered last."`
	Error     string    `json:"error,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// Replayed says how many deliveries are sent again.
type Replayed struct {
	Deliveries int64 `json:"deliveries"`
}

func webhookOf(e webhook.Endpoint) Webhook {
	out := Webhook{ID: string(e.ID), EnvironmentID: string(e.Environment), OrganizationID: string(e.Organization), Form: string(e.Form), URL: e.URL, Description: e.Description,
		Events: append([]string{}, e.Events...), State: "enabled", Reason: e.Reason, FailingSince: e.FailingSince, OldSecretUntil: e.OldUntil, CreatedAt: e.CreatedAt, UpdatedAt: e.UpdatedAt, Version: e.Version}
	if !e.Enabled {
		out.State = "disabled"
	}
	return out
}

func deliveryOf(d webhook.Delivery) WebhookDelivery {
	out := WebhookDelivery{ID: string(d.ID), WebhookID: string(d.Webhook), EventID: string(d.Event), Event: d.Kind, State: d.State, Attempts: d.Attempts, Status: d.Status, Error: d.Error,
		CreatedAt: d.CreatedAt, UpdatedAt: d.UpdatedAt}
	if d.State == webhook.Pending {
		out.NextAt = d.NextAt
	}
	return out
}

type webhooksInput struct {
	Caller
	OrganizationID string `query:"organization_id" doc:"Left out: those of the whole environment."`
}

type webhookInput struct {
	Caller
	Webhook string `path:"webhook"`
}

type newWebhookInput struct {
	Caller
	Body struct {
		Form           string   `json:"form,omitempty" enum:"slack,mail" doc:"slack: a message to an incoming webhook of Slack or what takes the same. mail: to an address. Left out: signed events, for programs."`
		URL            string   `json:"url" minLength:"1" maxLength:"2000" doc:"https, and on the public internet unless the operator listed it; for mail, mailto: and an address."`
		Description    string   `json:"description,omitempty" maxLength:"200"`
		Events         []string `json:"events,omitempty" maxItems:"50" doc:"Left out or empty: all."`
		OrganizationID string   `json:"organization_id,omitempty" doc:"Left out: the whole environment, or the organization of an API key that has one."`
	}
}

type editWebhookInput struct {
	Caller
	Webhook string `path:"webhook"`
	Body    struct {
		URL         string   `json:"url" minLength:"1" maxLength:"2000" doc:"As for a new one. The host alone, as it is shown, leaves Slack's address as it was."`
		Description string   `json:"description,omitempty" maxLength:"200"`
		Events      []string `json:"events,omitempty" maxItems:"50" doc:"Left out or empty: all."`
	}
}

type rotateWebhookInput struct {
	Caller
	Webhook string `path:"webhook"`
	Body    struct {
		OverlapSeconds *int64 `json:"overlap_seconds,omitempty" minimum:"0" maximum:"2592000" doc:"How long the old secret signs as well; default a day."`
	}
}

type deliveriesInput struct {
	Caller
	Paging
	Webhook string `path:"webhook"`
	State   string `query:"state" enum:"pending,delivered,failed,held"`
}

type replayInput struct {
	Caller
	Webhook string `path:"webhook"`
	Body    struct {
		DeliveryID string    `json:"delivery_id,omitempty" doc:"This one, whatever became of it."`
		From       time.Time `json:"from,omitzero" doc:"Else what happened at this time or later,"`
		To         time.Time `json:"to,omitzero" doc:"and before this time."`
		Delivered  bool      `json:"delivered,omitempty" doc:"Also what was delivered."`
	}
}

func (a *API) webhookRoutes() {
	r := rules{scopes: []account.Scope{account.ScopeWebhooksWrite}}
	handle(a, route{id: "list-webhooks", method: http.MethodGet, path: "/v1/webhooks", tag: "webhooks", summary: "List webhooks, newest first", rules: r}, a.webhooks)
	handle(a, route{id: "create-webhook", method: http.MethodPost, path: "/v1/webhooks", tag: "webhooks", summary: "Have an application told of what happens to connections",
		detail: "Signed by the Standard Webhooks specification and delivered at least once. For applications; a person does it in the browser.", status: http.StatusCreated, rules: r}, a.newWebhook)
	handle(a, route{id: "get-webhook", method: http.MethodGet, path: "/v1/webhooks/{webhook}", tag: "webhooks", summary: "Read a webhook", rules: r}, a.webhook)
	handle(a, route{id: "update-webhook", method: http.MethodPut, path: "/v1/webhooks/{webhook}", tag: "webhooks", summary: "Change a webhook's address, description and events",
		detail: "A person gives it another address, or more events, in the browser.", rules: r, conflicts: true}, a.editWebhook)
	act(a, route{id: "delete-webhook", method: http.MethodDelete, path: "/v1/webhooks/{webhook}", tag: "webhooks", summary: "Remove a webhook and what was still to be told", rules: r}, a.deleteWebhook)
	handle(a, route{id: "enable-webhook", method: http.MethodPost, path: "/v1/webhooks/{webhook}/enable", tag: "webhooks", summary: "Enable a webhook; replay sends what it missed", rules: r}, a.enableWebhook)
	handle(a, route{id: "disable-webhook", method: http.MethodPost, path: "/v1/webhooks/{webhook}/disable", tag: "webhooks", summary: "Disable a webhook; what happens is held", rules: r}, a.disableWebhook)
	handle(a, route{id: "rotate-webhook-secret", method: http.MethodPost, path: "/v1/webhooks/{webhook}/rotate", tag: "webhooks", summary: "Replace a webhook's secret; both sign for a while",
		detail: "For applications; a person does it in the browser.", rules: r, conflicts: true}, a.rotateWebhook)
	handle(a, route{id: "test-webhook", method: http.MethodPost, path: "/v1/webhooks/{webhook}/test", tag: "webhooks", summary: "Send a webhook an event that says nothing", rules: r, conflicts: true}, a.testWebhook)
	handle(a, route{id: "list-webhook-deliveries", method: http.MethodGet, path: "/v1/webhooks/{webhook}/deliveries", tag: "webhooks", summary: "List what was told, newest first; a month is kept", rules: r}, a.deliveries)
	handle(a, route{id: "replay-webhook", method: http.MethodPost, path: "/v1/webhooks/{webhook}/replay", tag: "webhooks", summary: "Send one delivery again, or what was not delivered in a time", rules: r, conflicts: true}, a.replay)
}

func (a *API) webhooks(ctx context.Context, by account.Actor, in *webhooksInput) (Page[Webhook], error) {
	org, err := a.organization(ctx, by, in.OrganizationID)
	if err != nil {
		return Page[Webhook]{}, err
	}
	list, err := a.cfg.Webhooks.List(ctx, by, org)
	return page(list, "", webhookOf), err
}

func (a *API) newWebhook(ctx context.Context, by account.Actor, in *newWebhookInput) (MadeWebhook, error) {
	org, err := a.organization(ctx, by, in.Body.OrganizationID)
	if err != nil {
		return MadeWebhook{}, err
	}
	e, key, err := a.cfg.Webhooks.Create(ctx, by, webhook.Input{Organization: org, Form: webhook.Form(in.Body.Form), URL: in.Body.URL, Description: in.Body.Description, Events: in.Body.Events}, account.Agreement{})
	if err != nil {
		return MadeWebhook{}, err
	}
	return MadeWebhook{webhookOf(e), webhookSecret(key)}, nil
}

func (a *API) webhook(ctx context.Context, by account.Actor, in *webhookInput) (Webhook, error) {
	return onWebhook(ctx, by, in.Webhook, a.cfg.Webhooks.Get)
}

// onWebhook does something with the webhook of a path.
func onWebhook(ctx context.Context, by account.Actor, raw string, do func(context.Context, account.Actor, id.Webhook) (webhook.Endpoint, error)) (Webhook, error) {
	var hook id.Webhook
	if err := parseID(&hook, raw); err != nil {
		return Webhook{}, err
	}
	e, err := do(ctx, by, hook)
	if err != nil {
		return Webhook{}, err
	}
	return webhookOf(e), nil
}

func (a *API) editWebhook(ctx context.Context, by account.Actor, in *editWebhookInput) (Webhook, error) {
	return onWebhook(ctx, by, in.Webhook, func(ctx context.Context, by account.Actor, hook id.Webhook) (webhook.Endpoint, error) {
		return a.cfg.Webhooks.Edit(ctx, by, hook, webhook.Input{URL: in.Body.URL, Description: in.Body.Description, Events: in.Body.Events}, account.Agreement{})
	})
}

func (a *API) deleteWebhook(ctx context.Context, by account.Actor, in *webhookInput) error {
	var hook id.Webhook
	if err := parseID(&hook, in.Webhook); err != nil {
		return err
	}
	return a.cfg.Webhooks.Delete(ctx, by, hook)
}

func (a *API) enableWebhook(ctx context.Context, by account.Actor, in *webhookInput) (Webhook, error) {
	return onWebhook(ctx, by, in.Webhook, a.cfg.Webhooks.Enable)
}

func (a *API) disableWebhook(ctx context.Context, by account.Actor, in *webhookInput) (Webhook, error) {
	return onWebhook(ctx, by, in.Webhook, a.cfg.Webhooks.Disable)
}

func (a *API) rotateWebhook(ctx context.Context, by account.Actor, in *rotateWebhookInput) (MadeWebhook, error) {
	var hook id.Webhook
	if err := parseID(&hook, in.Webhook); err != nil {
		return MadeWebhook{}, err
	}
	overlap := webhook.DefaultOverlap
	if in.Body.OverlapSeconds != nil {
		overlap = time.Duration(*in.Body.OverlapSeconds) * time.Second
	}
	e, key, err := a.cfg.Webhooks.Rotate(ctx, by, hook, overlap, account.Agreement{})
	if err != nil {
		return MadeWebhook{}, err
	}
	return MadeWebhook{webhookOf(e), webhookSecret(key)}, nil
}

func (a *API) testWebhook(ctx context.Context, by account.Actor, in *webhookInput) (WebhookDelivery, error) {
	var hook id.Webhook
	if err := parseID(&hook, in.Webhook); err != nil {
		return WebhookDelivery{}, err
	}
	d, err := a.cfg.Webhooks.Test(ctx, by, hook)
	if err != nil {
		return WebhookDelivery{}, err
	}
	return deliveryOf(d), nil
}

func (a *API) deliveries(ctx context.Context, by account.Actor, in *deliveriesInput) (Page[WebhookDelivery], error) {
	var hook id.Webhook
	var after id.Delivery
	if err := parseID(&hook, in.Webhook); err != nil {
		return Page[WebhookDelivery]{}, err
	}
	if err := cursor(&after, in.After); err != nil {
		return Page[WebhookDelivery]{}, err
	}
	list, more, err := a.cfg.Webhooks.Deliveries(ctx, by, hook, in.State, after, in.limit())
	if err != nil {
		return Page[WebhookDelivery]{}, err
	}
	next := ""
	if more {
		next = string(list[len(list)-1].ID)
	}
	return page(list, next, deliveryOf), nil
}

func (a *API) replay(ctx context.Context, by account.Actor, in *replayInput) (Replayed, error) {
	var hook id.Webhook
	if err := parseID(&hook, in.Webhook); err != nil {
		return Replayed{}, err
	}
	w := webhook.Window{From: in.Body.From, To: in.Body.To, All: in.Body.Delivered}
	if err := optionalID(&w.Delivery, in.Body.DeliveryID); err != nil {
		return Replayed{}, err
	}
	n, err := a.cfg.Webhooks.Replay(ctx, by, hook, w)
	return Replayed{n}, err
}

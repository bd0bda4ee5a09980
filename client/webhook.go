package client

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Webhook is where an application is told of what happens.
type Webhook struct {
	ID             string    `json:"id"`
	EnvironmentID  string    `json:"environment_id"`
	OrganizationID string    `json:"organization_id"` // empty: the whole environment
	Form           string    `json:"form"`            // how it is told: slack, mail, or empty for signed events
	URL            string    `json:"url"`             // of Slack the host only
	Description    string    `json:"description"`
	Events         []string  `json:"events"` // empty: all
	State          string    `json:"state"`  // enabled or disabled
	Reason         string    `json:"reason"` // why it is disabled: switched_off, failing or gone
	FailingSince   time.Time `json:"failing_since,omitzero"`
	OldSecretUntil time.Time `json:"old_secret_until,omitzero"` // until when a replaced secret signs as well
	CreatedAt      time.Time `json:"created_at"`
	UpdatedAt      time.Time `json:"updated_at"`
	Version        int64     `json:"version"`
}

// MadeWebhook is a webhook with its secret, which is shown once. What people read is not
// signed, and has none.
type MadeWebhook struct {
	Webhook
	Secret string `json:"secret"`
}

// WebhookInput is what is said of a webhook.
type WebhookInput struct {
	OrganizationID string   `json:"organization_id,omitempty"` // of a new one only
	Form           string   `json:"form,omitempty"`            // of a new one only: slack, mail; empty: signed events
	URL            string   `json:"url"`
	Description    string   `json:"description,omitempty"`
	Events         []string `json:"events,omitempty"`
}

// WebhookDelivery is one event on its way to one webhook.
type WebhookDelivery struct {
	ID        string    `json:"id"`
	WebhookID string    `json:"webhook_id"`
	EventID   string    `json:"event_id"`
	Event     string    `json:"event"`
	State     string    `json:"state"` // pending, delivered, failed or held
	Attempts  int       `json:"attempts"`
	NextAt    time.Time `json:"next_at,omitzero"`
	Status    int       `json:"status"` // that the receiver answered last
	Error     string    `json:"error"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// WebhookReplay says what is sent again: one delivery, or what was not delivered
// in a time.
type WebhookReplay struct {
	DeliveryID string    `json:"delivery_id,omitempty"`
	From       time.Time `json:"from,omitzero"`
	To         time.Time `json:"to,omitzero"`
	Delivered  bool      `json:"delivered,omitempty"` // also what was
}

// Webhooks lists those of an organization, or with none of the whole environment.
func (c *Client) Webhooks(ctx context.Context, organization string) (Page[Webhook], error) {
	return read[Page[Webhook]](ctx, c, "/v1/webhooks", ofOrganization(organization))
}

// CreateWebhook has an application told of what happens to connections. A person does it
// in the browser: the error then has the code browser_required and the page in url.
func (c *Client) CreateWebhook(ctx context.Context, in WebhookInput) (MadeWebhook, error) {
	return send[MadeWebhook](ctx, c, http.MethodPost, "/v1/webhooks", in, false)
}

// Webhook reads one.
func (c *Client) Webhook(ctx context.Context, id string) (Webhook, error) {
	return read[Webhook](ctx, c, "/v1/webhooks/"+seg(id), nil)
}

// UpdateWebhook replaces a webhook's address, description and events.
func (c *Client) UpdateWebhook(ctx context.Context, id string, in WebhookInput) (Webhook, error) {
	in.OrganizationID = ""
	return send[Webhook](ctx, c, http.MethodPut, "/v1/webhooks/"+seg(id), in, true)
}

// DeleteWebhook removes a webhook and what was still to be told.
func (c *Client) DeleteWebhook(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: "/v1/webhooks/" + seg(id), repeat: true}, nil)
}

// EnableWebhook enables a webhook; ReplayWebhook sends what it missed.
func (c *Client) EnableWebhook(ctx context.Context, id string) (Webhook, error) {
	return send[Webhook](ctx, c, http.MethodPost, "/v1/webhooks/"+seg(id)+"/enable", nil, true)
}

// DisableWebhook disables a webhook; what happens is held for a month.
func (c *Client) DisableWebhook(ctx context.Context, id string) (Webhook, error) {
	return send[Webhook](ctx, c, http.MethodPost, "/v1/webhooks/"+seg(id)+"/disable", nil, true)
}

// RotateWebhook replaces a webhook's secret. For overlap the old one signs as well. A
// person does it in the browser, as with CreateWebhook.
func (c *Client) RotateWebhook(ctx context.Context, id string, overlap time.Duration) (MadeWebhook, error) {
	return send[MadeWebhook](ctx, c, http.MethodPost, "/v1/webhooks/"+seg(id)+"/rotate", map[string]int64{"overlap_seconds": int64(overlap / time.Second)}, false)
}

// TestWebhook sends a webhook an event that says nothing.
func (c *Client) TestWebhook(ctx context.Context, id string) (WebhookDelivery, error) {
	return send[WebhookDelivery](ctx, c, http.MethodPost, "/v1/webhooks/"+seg(id)+"/test", nil, false)
}

// WebhookDeliveries lists what was told, newest first; an empty state is any.
func (c *Client) WebhookDeliveries(ctx context.Context, id, state string, p Paging) (Page[WebhookDelivery], error) {
	q := p.add(url.Values{})
	set(q, "state", state)
	return read[Page[WebhookDelivery]](ctx, c, "/v1/webhooks/"+seg(id)+"/deliveries", q)
}

// ReplayWebhook sends again, and gives how many deliveries that are.
func (c *Client) ReplayWebhook(ctx context.Context, id string, r WebhookReplay) (int64, error) {
	out, err := send[struct {
		Deliveries int64 `json:"deliveries"`
	}](ctx, c, http.MethodPost, "/v1/webhooks/"+seg(id)+"/replay", r, true)
	return out.Deliveries, err
}

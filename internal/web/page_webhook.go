package web

import (
	"time"

	"github.com/ambit-dev/ambit/internal/id"
)

// WebhooksPage lists the applications that are told of what happens.
type WebhooksPage struct {
	Frame
	Items  []WebhookRow
	CanAdd bool
}

func (*WebhooksPage) template() string { return "webhooks" }

// WebhookRow is one of them.
type WebhookRow struct {
	ID               id.Webhook
	Href             string
	URL, Description string
	Reach, Tells     string
	Signed, Slack    bool // how it is told; neither: by mail
	Created          time.Time
	Enabled          bool
	Why              string    // it is off
	Since            time.Time // when it fails: from when
	Mark             Mark
}

// WebhookNewPage is the form for a new one.
type WebhookNewPage struct {
	Frame
	URL, Description string
	Forms            []Option
	Events           []Option
	MayWhole, Whole  bool
}

func (*WebhookNewPage) template() string { return "webhook_new" }

// WebhookPage is one webhook, with what it was told.
type WebhookPage struct {
	Frame
	WebhookRow
	Events     []Option
	Editing    bool      // the form was refused
	OldUntil   time.Time // until when the secret before signs too
	Tabs       []Tab
	Deliveries []DeliveryRow
	Next       string
}

func (*WebhookPage) template() string { return "webhook" }

// DeliveryRow is one event on its way to it.
type DeliveryRow struct {
	ID          id.Delivery
	Event       id.Event
	Kind, Label string
	Answer      string
	Attempts    int
	At, Again   time.Time
	Chip        Mark
}

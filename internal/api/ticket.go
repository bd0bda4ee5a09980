package api

import (
	"context"
	"net/http"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/integration"
)

// ConnectToken lets one user connect one account, in a window that a product's page
// opens.
type ConnectToken struct {
	ID             string    `json:"id"`
	Token          string    `json:"token" doc:"For the page of the product, which asks with it what became of it. Shown once."`
	URL            string    `json:"url" doc:"What the window opens. With sign_in_link whoever opens it is that user, once: give it to nobody else."`
	UserID         string    `json:"user_id"`
	OrganizationID string    `json:"organization_id"`
	Providers      []string  `json:"providers" nullable:"false"`
	ExpiresAt      time.Time `json:"expires_at" doc:"When it can no longer be begun with."`
}

type connectTokenInput struct {
	Caller
	Body struct {
		UserID         string   `json:"user_id" minLength:"1" maxLength:"200" doc:"Our id, or the product's own name for the user."`
		OrganizationID string   `json:"organization_id,omitempty" maxLength:"200" doc:"Our id or the product's own name. Left out: that of the API key, or the user's own."`
		Providers      []string `json:"providers" minItems:"1" maxItems:"20" doc:"Where the user may connect; one of them is chosen."`
		SignInLink     bool     `json:"sign_in_link,omitempty" doc:"The window signs the user in, once, for connecting only. Needs users:vouch, and a user that an API key of this environment made."`
	}
}

func (a *API) ticketRoutes() {
	handle(a, route{id: "create-connect-token", method: http.MethodPost, path: "/v1/connect-tokens", tag: "connections",
		summary: "Let one user connect an account in a window of a product's page",
		detail:  "For applications. For ten minutes, and for one account. Users and organizations that are not there are made where the key may make them.",
		status:  http.StatusCreated, rules: rules{scopes: []account.Scope{account.ScopeConnectionsWrite}}, conflicts: true}, a.newConnectToken)
}

func (a *API) newConnectToken(ctx context.Context, by account.Actor, in *connectTokenInput) (ConnectToken, error) {
	b := in.Body
	t, err := a.cfg.Integrations.Open(ctx, by, integration.Names{User: b.UserID, Organization: b.OrganizationID}, b.Providers, b.SignInLink)
	if err != nil {
		return ConnectToken{}, err
	}
	return ConnectToken{ID: string(t.ID), Token: once(t.Token), URL: once(t.URL), UserID: string(t.User), OrganizationID: string(t.Organization), Providers: t.Providers, ExpiresAt: t.ExpiresAt}, nil
}

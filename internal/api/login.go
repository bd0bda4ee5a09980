package api

import (
	"context"
	"net/http"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
)

// Whoami is who the caller is.
type Whoami struct {
	Kind           string          `json:"kind" enum:"user,api_key"`
	ID             string          `json:"id"`
	Name           string          `json:"name"`
	Email          string          `json:"email,omitempty"`
	EnvironmentID  string          `json:"environment_id"`
	OrganizationID string          `json:"organization_id,omitempty" doc:"Of an API key that is confined to one organization."`
	Scopes         []account.Scope `json:"scopes,omitempty" nullable:"false" doc:"Of an API key."`
	LoginID        string          `json:"login_id,omitempty" doc:"Of a person."`
	Memberships    []Membership    `json:"memberships,omitempty" nullable:"false" doc:"Of a person."`
}

// Membership is a person's place in one organization.
type Membership struct {
	EnvironmentID    string `json:"environment_id"`
	EnvironmentName  string `json:"environment_name"`
	OrganizationID   string `json:"organization_id"`
	OrganizationName string `json:"organization_name"`
	Role             string `json:"role"`
}

// CLILogin is a command line that waits to be confirmed.
type CLILogin struct {
	UserCode  string    `json:"user_code" doc:"To be typed and compared by the person."`
	URL       string    `json:"url" doc:"Where the person types it."`
	Poll      string    `json:"poll" doc:"Secret; for /v1/cli/token."`
	ExpiresAt time.Time `json:"expires_at"`
	Interval  int       `json:"interval" doc:"Seconds between polls."`
}

// CLIToken is the login of a command line.
type CLIToken struct {
	Token string `json:"token" doc:"Shown once."`
}

type callerInput struct{ Caller }

type pollInput struct {
	Caller
	Body struct {
		Poll Hidden `json:"poll"`
	}
}

const pollSeconds = 2

func (a *API) loginRoutes() {
	handle(a, route{id: "whoami", method: http.MethodGet, path: "/v1/whoami", tag: "meta", summary: "Whose token this is"}, a.whoami)
	handle(a, route{id: "start-cli-login", method: http.MethodPost, path: "/v1/cli/login", tag: "cli", summary: "Begin the sign-in of a command line",
		detail: "As of RFC 8628: the person opens the URL in a browser, types the code and confirms it with their passkey.", rules: rules{open: true}}, a.startLogin)
	handle(a, route{id: "poll-cli-login", method: http.MethodPost, path: "/v1/cli/token", tag: "cli", summary: "Fetch the login once it is confirmed",
		detail: "Answers 409 authorization_pending until then.", rules: rules{open: true}, conflicts: true, expires: true}, a.pollLogin)
	act(a, route{id: "end-cli-login", method: http.MethodPost, path: "/v1/cli/logout", tag: "cli", summary: "End this login", rules: rules{person: true, ends: true}}, a.endLogin)
}

func (a *API) whoami(_ context.Context, by account.Actor, in *callerInput) (Whoami, error) {
	w := Whoami{Kind: by.Audit().Kind, ID: by.Audit().ID, Name: by.Name(), EnvironmentID: string(by.Environment()), OrganizationID: string(by.Organization())}
	p, person := by.Person()
	if !person {
		w.Scopes = in.call.key.Scopes()
		return w, nil
	}
	w.Email, w.LoginID = p.Email(), string(p.Login())
	for _, m := range p.Organizations() {
		w.Memberships = append(w.Memberships, Membership{EnvironmentID: string(m.Environment), EnvironmentName: m.EnvironmentName,
			OrganizationID: string(m.Organization), OrganizationName: m.OrganizationName, Role: string(m.Role)})
	}
	return w, nil
}

func (a *API) startLogin(ctx context.Context, _ account.Actor, in *callerInput) (CLILogin, error) {
	address := a.cfg.Address(in.call.r)
	code, poll, err := a.cfg.People.StartCLI(ctx, address)
	if err != nil {
		return CLILogin{}, err
	}
	return CLILogin{UserCode: code, URL: a.base + "/ui/cli", Poll: once(poll), ExpiresAt: a.now().Add(account.FlowAge).UTC().Truncate(time.Second), Interval: pollSeconds}, nil
}

func (a *API) pollLogin(ctx context.Context, _ account.Actor, in *pollInput) (CLIToken, error) {
	token, err := a.cfg.People.PollCLI(ctx, in.Body.Poll.Value, a.cfg.Address(in.call.r))
	if err != nil {
		return CLIToken{}, err
	}
	return CLIToken{Token: once(token)}, nil
}

func (a *API) endLogin(ctx context.Context, by account.Actor, _ *callerInput) error {
	p, _ := by.Person()
	return a.cfg.People.SignOut(ctx, p, p.Login())
}

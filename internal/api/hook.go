package api

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
)

// ProviderHook is where a provider sends its notices.
type ProviderHook struct {
	URL string `json:"url" doc:"What to enter at the provider, in the settings of the app."`
}

type hookInput struct {
	Caller
	Provider string `path:"provider"`
	Body     struct {
		Secret Hidden `json:"secret" doc:"The signing secret that the provider shows for the app, or that you chose there."`
	}
}

func (a *API) hookRoutes() {
	write := rules{scopes: []account.Scope{account.ScopeProvidersWrite}}
	handle(a, route{id: "set-provider-hook", method: http.MethodPut, path: "/v1/providers/{provider}/hook", tag: "providers", summary: "Take a provider's notices of accesses that ended there",
		detail: "Stores the secret with which the provider signs them, over what was there. Connections of which it tells must then be connected again.", rules: write, conflicts: true}, a.setHook)
	act(a, route{id: "delete-provider-hook", method: http.MethodDelete, path: "/v1/providers/{provider}/hook", tag: "providers", summary: "Take no notices any more", rules: write}, a.deleteHook)
}

func (a *API) setHook(ctx context.Context, by account.Actor, in *hookInput) (ProviderHook, error) {
	path, err := a.cfg.Providers.SetHook(ctx, by, in.Provider, in.Body.Secret.Value)
	if err != nil {
		return ProviderHook{}, err
	}
	return ProviderHook{URL: a.cfg.PublicURL.JoinPath(path).String()}, nil
}

func (a *API) deleteHook(ctx context.Context, by account.Actor, in *providerInput) error {
	return a.cfg.Providers.DropHook(ctx, by, in.Provider)
}

// Notices is the door for what providers tell. Nobody signs in there: a notice is
// signed with the secret that is stored for its provider, and can do nothing but
// have people connect accounts again.
func (a *API) Notices() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		answer, err := a.notice(w, r)
		if err != nil {
			status := http.StatusInternalServerError
			switch fault.KindOf(err) {
			case fault.NotFound:
				status = http.StatusNotFound
			case fault.Unauthenticated:
				status = http.StatusUnauthorized
			case fault.Invalid:
				status = http.StatusBadRequest
			case fault.TooLarge:
				status = http.StatusRequestEntityTooLarge
			case fault.Unavailable:
				status = http.StatusServiceUnavailable
			}
			Refuse(w, status, fault.Of(err))
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, answer)
	})
}

func (a *API) notice(w http.ResponseWriter, r *http.Request) (string, error) {
	var env id.Environment
	if err := parseID(&env, r.PathValue("environment")); err != nil {
		return "", fault.New(fault.NotFound, "not_found", "No such provider.")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, provider.MaxNotice))
	if over := (*http.MaxBytesError)(nil); errors.As(err, &over) {
		return "", fault.New(fault.TooLarge, "notice_too_large", "A notice has at most 1 MiB.")
	}
	if err != nil {
		return "", fault.New(fault.Invalid, "notice_unreadable", "The notice did not arrive whole.")
	}
	return a.cfg.Credentials.Notice(r.Context(), env, r.PathValue("provider"), a.cfg.Address(r), r.Header, body)
}

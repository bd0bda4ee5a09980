// Package web is the door for people: pages rendered on the server, forms, and
// a little script for passkeys and what moves. It knows no rule. A handler reads
// a form, calls a room with the signed-in person as an argument, and fills the
// typed struct of a page; every page is executed whole before its first byte
// goes out. What agents and other third parties wrote reaches a page as one text
// node, with everything that hides or reorders written out (see plainWords).
//
// The cookie says who browses and nothing more: whatever approves, makes keys,
// signs somebody else in or raises anybody's authority is a form that first asks
// for a challenge over exactly its own fields, and carries a passkey's answer to
// it (see confirmed). No GET changes state but
// the one with which a provider sends a person back, whose state is single-use.
// All forms work without script, except where a passkey is the point.
package web

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/custody"
	"github.com/ambit-dev/ambit/internal/integration"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/provider/discovery"
	"github.com/ambit-dev/ambit/internal/provider/openapi"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/throttle"
	"github.com/ambit-dev/ambit/internal/vault"
	"github.com/ambit-dev/ambit/internal/webhook"
)

// Config is what a Server needs. All but Address, Now and Logger are required.
type Config struct {
	People       *account.Service
	Agents       *agent.Service
	Providers    *provider.Store
	Importer     *openapi.Importer
	Finder       *discovery.Finder
	Connections  *connection.Service
	Credentials  *credential.Service
	Integrations *integration.Service
	Sessions     *session.Service
	Audit        *audit.Log
	Vault        *vault.Vault
	Custody      *custody.Service
	Webhooks     *webhook.Service
	// Subscribe calls fn on every notice of a channel, as sqldb.DB does.
	Subscribe func(channel string, fn func(payload string)) (cancel func())
	PublicURL *url.URL
	// Address gives the client's address; default the peer's.
	Address func(*http.Request) string
	Limits  Limits
	Now     func() time.Time
	Logger  *slog.Logger
}

// Limits say how often the sign-ins by code of an address may be refused, a second
// and at once, before each is told to wait. A family or an office may sit behind
// one address. Zero values take the defaults.
type Limits struct {
	RefusalRate  float64
	RefusalBurst int
}

func (l Limits) withDefaults() Limits {
	if l.RefusalRate == 0 {
		l.RefusalRate = 1.0 / 3
	}
	if l.RefusalBurst == 0 {
		l.RefusalBurst = 10
	}
	return l
}

// Server serves the pages below /ui. It is safe for concurrent use.
type Server struct {
	people       *account.Service
	agents       *agent.Service
	providers    *provider.Store
	importer     *openapi.Importer
	finder       *discovery.Finder
	connections  *connection.Service
	credentials  *credential.Service
	integrations *integration.Service
	sessions     *session.Service
	audit        *audit.Log
	vault        *vault.Vault
	custody      *custody.Service
	webhooks     *webhook.Service
	subscribe    func(string, func(string)) func()
	public       *url.URL
	address      func(*http.Request) string
	now          func() time.Time
	log          *slog.Logger

	renderer *renderer
	cookie   cookie
	streams  streams
	live     *throttle.Shares  // live streams by person
	refusals *throttle.Limiter // of sign-ins, by address
	stop     chan struct{}
	stopOnce sync.Once
}

// New makes a Server and parses its templates.
func New(cfg Config) (*Server, error) {
	if cfg.People == nil || cfg.Agents == nil || cfg.Providers == nil || cfg.Importer == nil || cfg.Finder == nil || cfg.Connections == nil || cfg.Credentials == nil || cfg.Integrations == nil ||
		cfg.Sessions == nil || cfg.Audit == nil || cfg.Vault == nil || cfg.Custody == nil || cfg.Webhooks == nil || cfg.Subscribe == nil || cfg.PublicURL == nil {
		return nil, errors.New("web: the configuration is incomplete")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Address == nil {
		cfg.Address = peer
	}
	r, err := newRenderer(cfg.Now, cfg.Logger)
	if err != nil {
		return nil, err
	}
	const addresses = 20_000
	l := cfg.Limits.withDefaults()
	return &Server{refusals: throttle.New(l.RefusalRate, l.RefusalBurst, addresses, cfg.Now),
		people: cfg.People, agents: cfg.Agents, providers: cfg.Providers, importer: cfg.Importer, finder: cfg.Finder, connections: cfg.Connections, credentials: cfg.Credentials, integrations: cfg.Integrations,
		sessions: cfg.Sessions, audit: cfg.Audit, vault: cfg.Vault, custody: cfg.Custody, webhooks: cfg.Webhooks, subscribe: cfg.Subscribe, public: cfg.PublicURL, address: cfg.Address, now: cfg.Now, log: cfg.Logger,
		renderer: r, cookie: newCookie(cfg.PublicURL), streams: streams{open: map[string]int{}}, live: throttle.NewShares(perServer, perPerson), stop: make(chan struct{})}, nil
}

func peer(r *http.Request) string {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	return host
}

// Stop ends the live streams, which would otherwise hold a server's shutdown.
func (s *Server) Stop() { s.stopOnce.Do(func() { close(s.stop) }) }

// route is one line of the table below.
type route struct {
	pattern string
	open    bool // for whoever is not signed in too
	serve   func(*visit) (answer, error)
}

// Ends reports whether a POST to a path below /ui ends access: it then finds its
// person, and what it aims at, on the connections that are kept for that.
func Ends(path string) bool {
	at := strings.LastIndexByte(path, '/') + 1
	switch path[at:] {
	case "revoke", "disconnect", "disable", "remove", "signout":
		return true
	}
	return false
}

func (rt route) urgent() bool {
	path, post := strings.CutPrefix(rt.pattern, "POST ")
	return post && Ends(path)
}

// routes is every page and form there is. What is not open needs a sign-in.
// docs/decisions/0006-raising-authority.md says of each form why it takes a
// proof, or none; a test holds it to that.
func (s *Server) routes() []route {
	const open, signedIn = true, false
	return slices.Concat(s.raisingForms(), []route{
		{"GET /ui/signin", open, s.signInPage},
		{"POST /ui/signin", open, s.signInByCode},
		{"POST /ui/signin/begin", open, s.signInBegin},
		{"POST /ui/signin/passkey", open, s.signInByPasskey},
		{"GET /ui/enroll", open, s.enrollPage},
		{"POST /ui/enroll/look", open, s.enrollLook},
		{"POST /ui/enroll/begin", open, s.enrollBegin},
		{"POST /ui/enroll", open, s.enroll},
		{"POST /ui/enroll/authenticator", open, s.enrollAuthenticator},
		{"POST /ui/enroll/authenticator/confirm", open, s.enrollAuthenticatorConfirm},
		{"GET /ui/vouch", open, s.vouchPage},
		{"POST /ui/vouch/look", open, s.vouchLook},
		{"POST /ui/vouch", open, s.vouch},
		{"GET /ui/signin/with/{provider}", open, s.signInWith},
		{"GET /ui/signin/from/{provider}", open, s.signInFrom},
		{"POST /ui/enroll/with", open, s.enrollWith},
		{"POST /ui/signout", signedIn, s.signOut},

		{"GET /ui/{$}", signedIn, s.inbox},
		{"GET /ui/approvals/{id}", signedIn, s.approval},
		{"POST /ui/approvals/{id}/challenge", signedIn, s.approvalChallenge},
		{"POST /ui/approvals/{id}/approve", signedIn, s.approve},
		{"POST /ui/approvals/{id}/deny", signedIn, s.deny},

		{"GET /ui/sessions", signedIn, s.sessionList},
		{"GET /ui/sessions/{id}", signedIn, s.session},
		{"POST /ui/sessions/{id}/revoke", signedIn, s.revokeSession},

		{"GET /ui/connections", signedIn, s.connectionList},
		{"GET /ui/connections/new", signedIn, s.connectionNew},
		{"POST /ui/connections", signedIn, s.connect},
		{"POST /ui/connections/challenge", signedIn, s.connectChallenge},
		{"GET /ui/connections/incident", signedIn, s.connectionsAim},
		{"POST /ui/connections/revoke", signedIn, s.connectionsRevoke},
		{"GET /ui/connections/{id}/tools", signedIn, s.toolsPage},
		{"POST /ui/connections/{id}/tools/look", signedIn, s.toolsLook},
		{"POST /ui/connections/{id}/tools/take", signedIn, s.toolsTake},
		{"POST /ui/connections/{id}/tools/adopt", signedIn, s.toolsAdopt},
		{"POST /ui/connections/{id}/disconnect", signedIn, s.disconnect},
		{"POST /ui/connections/{id}/revoke", signedIn, s.connectionRevoke},
		{"GET /ui/callback/{environment}/{provider}", signedIn, s.callback},
		{"GET /ui/callback/{environment}/{provider}/{organization}", signedIn, s.callback},
		{"GET /ui/return/{token}", signedIn, s.goBack},
		{"GET /ui/connect/{id}", signedIn, s.connectWindow},
		{"GET /ui/providers", signedIn, s.providerList},
		{"GET /ui/providers/catalog", signedIn, s.providerCatalog},
		{"GET /ui/providers/new", signedIn, s.providerNew},
		{"POST /ui/providers", signedIn, s.providerPut},
		{"POST /ui/providers/import", signedIn, s.providerImport},
		{"POST /ui/providers/mcp", signedIn, s.providerMCP},
		{"POST /ui/providers/{provider}/revoke", signedIn, s.providerRevoke},
		{"GET /ui/providers/{provider}/client", signedIn, s.providerClient},
		{"POST /ui/providers/{provider}/client", signedIn, s.providerClientPut},
		{"POST /ui/providers/{provider}/client/remove", signedIn, s.providerClientRemove},

		{"GET /ui/agents", signedIn, s.agentList},
		{"GET /ui/agents/new", signedIn, s.agentNew},
		{"POST /ui/agents/challenge", signedIn, s.agentChallenge},
		{"POST /ui/agents", signedIn, s.agentRegister},
		{"GET /ui/agents/{id}", signedIn, s.agent},
		{"POST /ui/agents/{id}/disable", signedIn, s.agentDisable},
		{"POST /ui/agents/{id}/mute", signedIn, s.agentMute},
		{"POST /ui/agents/{id}/unmute", signedIn, s.agentUnmute},
		{"POST /ui/agents/{id}/revoke", signedIn, s.agentRevoke},
		{"GET /ui/agents/{id}/secret", signedIn, s.agentSecret},
		{"POST /ui/agents/{id}/secret/challenge", signedIn, s.agentSecretChallenge},
		{"POST /ui/agents/{id}/secret", signedIn, s.agentRotate},
		{"GET /ui/device", signedIn, s.deviceEnter},
		{"GET /ui/consent/{flow}", signedIn, s.consent},
		{"POST /ui/consent/{flow}/challenge", signedIn, s.consentChallenge},
		{"POST /ui/consent/{flow}", signedIn, s.consentGive},
		{"POST /ui/consent/{flow}/deny", signedIn, s.consentDeny},
		{"POST /ui/consent/{flow}/finish", signedIn, s.consentFinish},

		{"GET /ui/secrets", signedIn, s.secretList},
		{"GET /ui/secrets/new", signedIn, s.secretNew},
		{"POST /ui/secrets", signedIn, s.secretCreate},
		{"GET /ui/secrets/{id}", signedIn, s.secretShow},
		{"POST /ui/secrets/{id}/value", signedIn, s.secretPut},
		{"POST /ui/secrets/{id}/notes", signedIn, s.secretEdit},
		{"POST /ui/secrets/{id}/restore", signedIn, s.secretRestore},
		{"POST /ui/secrets/{id}/delete", signedIn, s.secretDelete},
		{"POST /ui/secrets/{id}/undelete", signedIn, s.secretUndelete},

		{"GET /ui/keys", signedIn, s.keyList},
		{"GET /ui/keys/progress", signedIn, s.keysProgress},
		{"GET /ui/keys/new", signedIn, s.apiKeyMoved},
		{"GET /ui/keys/bind", signedIn, s.bindWizard},
		{"POST /ui/keys/probe", signedIn, s.bindProbe},
		{"GET /ui/keys/{id}", signedIn, s.keyShow},
		{"GET /ui/keys/{id}/progress", signedIn, s.keyProgress},
		{"POST /ui/keys/{id}/rotate", signedIn, s.keyRotate},
		{"GET /ui/bindings/{id}", signedIn, s.bindingShow},
		{"GET /ui/bindings/{id}/progress", signedIn, s.bindingProgress},
		{"POST /ui/bindings/{id}/migrate", signedIn, s.bindingMigrate},
		{"POST /ui/bindings/{id}/doubt", signedIn, s.bindingDoubt},

		{"GET /ui/apikeys", signedIn, s.apiKeyList},
		{"GET /ui/apikeys/new", signedIn, s.apiKeyNew},
		{"POST /ui/apikeys/challenge", signedIn, s.apiKeyChallenge},
		{"POST /ui/apikeys", signedIn, s.apiKeyCreate},
		{"POST /ui/apikeys/{id}/revoke", signedIn, s.apiKeyRevoke},

		{"GET /ui/webhooks", signedIn, s.webhookList},
		{"GET /ui/webhooks/new", signedIn, s.webhookNew},
		{"GET /ui/webhooks/{id}", signedIn, s.webhookShow},
		{"POST /ui/webhooks/{id}/on", signedIn, s.webhookChange("enabled", s.webhookOn)},
		{"POST /ui/webhooks/{id}/off", signedIn, s.webhookChange("webhook_off", s.webhookOff)},
		{"POST /ui/webhooks/{id}/test", signedIn, s.webhookChange("webhook_test", s.webhookTest)},
		{"POST /ui/webhooks/{id}/replay", signedIn, s.webhookChange("webhook_replay", s.webhookReplay)},
		{"POST /ui/webhooks/{id}/again", signedIn, s.webhookChange("webhook_replay", s.webhookAgain)},
		{"POST /ui/webhooks/{id}/delete", signedIn, s.webhookDelete},

		{"GET /ui/audit", signedIn, s.auditList},

		{"GET /ui/organization", signedIn, s.organization},
		{"POST /ui/organization/members/{id}/revoke", signedIn, s.memberRevoke},
		{"POST /ui/organization/revoke", signedIn, s.organizationRevoke},
		{"GET /ui/organization/signin", signedIn, s.signInSettings},
		{"POST /ui/organization/signin/{provider}/secret", signedIn, s.signInSecret},
		{"POST /ui/organization/signin/{provider}/remove", signedIn, s.signInRemove},

		{"GET /ui/account", signedIn, s.account},
		{"POST /ui/account/unlock", signedIn, s.unlockChallenge},
		{"GET /ui/account/passkeys/new", signedIn, s.passkeyNew},
		{"POST /ui/account/passkeys/new", signedIn, s.passkeyUnlock},
		{"POST /ui/account/passkeys/begin", signedIn, s.passkeyBegin},
		{"POST /ui/account/passkeys", signedIn, s.passkeyAdd},
		{"GET /ui/account/passkeys/{id}", signedIn, s.passkeyRemovePage},
		{"POST /ui/account/passkeys/{id}/challenge", signedIn, s.passkeyRemoveChallenge},
		{"POST /ui/account/passkeys/{id}", signedIn, s.passkeyRemove},
		{"GET /ui/account/authenticator", signedIn, s.authenticatorNew},
		{"POST /ui/account/authenticator", signedIn, s.authenticator},
		{"POST /ui/account/authenticator/confirm", signedIn, s.authenticatorConfirm},
		{"GET /ui/account/signins/{provider}", signedIn, s.signInAdd},
		{"POST /ui/account/signins/{provider}", signedIn, s.signInUnlock},
		{"POST /ui/account/signins/forget", signedIn, s.signInForget},
		{"GET /ui/account/code", signedIn, s.freshPage},
		{"GET /ui/account/code/{provider}", signedIn, s.freshLeave},
		{"POST /ui/account/logins/{id}/signout", signedIn, s.loginSignOut},
		{"POST /ui/account/signout", signedIn, s.signOutEverywhere},
		{"POST /ui/account/mail", signedIn, s.accountMail},
		{"POST /ui/account/notices/{id}/dismiss", signedIn, s.noticeDismiss},

		{"GET /ui/cli", signedIn, s.cliEnter},
		{"GET /ui/cli/{code}", signedIn, s.cli},
		{"POST /ui/cli/{code}/challenge", signedIn, s.cliChallenge},
		{"POST /ui/cli/{code}", signedIn, s.cliConfirm},
		{"POST /ui/cli/{code}/refuse", signedIn, s.cliRefuse},

		{"GET /ui/rules", signedIn, s.rulesShow},
		{"POST /ui/rules/trial", signedIn, s.rulesTrial},
		{"/ui/", signedIn, s.absent},
	})
}

// raisingForms are those that may raise authority; see confirmed.
func (s *Server) raisingForms() []route {
	return slices.Concat(
		s.confirmed("/ui/agents/{id}/ceiling", s.agentCeiling),
		s.confirmed("/ui/agents/{id}/enable", s.agentEnable),
		s.confirmed("/ui/agents/{id}/keys", s.agentKeys),
		s.confirmed("/ui/drafts/{id}", s.providerAccept),
		s.confirmed("/ui/organization/members/new", s.memberAdd),
		s.confirmed("/ui/organization/members/{id}/role", s.memberRole),
		s.confirmed("/ui/organization/members/{id}/remove", s.memberRemove),
		s.confirmed("/ui/organization/members/{id}/invite", s.invite),
		s.confirmed("/ui/organization/settings", s.organizationSettings),
		s.confirmed("/ui/organization/signin/new", s.signInProviderAdd),
		s.confirmed("/ui/organization/signin/{provider}/admits", s.signInAdmits),
		s.confirmed("/ui/rules/settings", s.rulesSettings),
		s.confirmed("/ui/rules/policy", s.rulesPolicy),
		s.confirmed("/ui/users/{id}/disable", s.userDisable),
		s.confirmed("/ui/users/{id}/enable", s.userEnable),
		s.confirmed("/ui/environments/new", s.environmentNew),
		s.confirmed("/ui/account/profile", s.profile),
		s.confirmed("/ui/secrets/{id}/reveal", s.secretReveal),
		s.confirmed("/ui/keys/shred", s.keyShred),
		s.confirmed("/ui/bindings/{id}/end", s.bindingEnd),
		s.confirmed("/ui/keys/bind", s.bind)[1:],         // its GET is the wizard: trying a root key asks its keeper
		s.confirmed("/ui/webhooks", s.webhookCreate)[1:], // its GET is the list
		s.confirmed("/ui/webhooks/{id}/edit", s.webhookEdit),
		s.confirmed("/ui/webhooks/{id}/rotate", s.webhookRotate),
	)
}

// Mount adds the pages to a server's routes.
func (s *Server) Mount(mux *http.ServeMux) {
	ui := http.NewServeMux()
	for _, r := range s.routes() {
		ui.Handle(r.pattern, s.handle(r))
	}
	ui.HandleFunc("GET /ui/events", s.events)
	ui.HandleFunc("GET /ui/assets/", s.renderer.serveAsset)
	ui.HandleFunc("GET "+ClientPath("{environment}", "{provider}"), s.clientDocument)
	mux.Handle("/ui/", s.guarded(ui))
	s.mountComponent(mux)
	mux.Handle("GET /{$}", s.guarded(http.RedirectHandler("/ui/", http.StatusSeeOther)))
}

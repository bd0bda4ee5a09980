package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/fault"
)

// get asks the server for a page, without a login and without following it
// elsewhere.
func (p *patient) get(ctx context.Context, address string) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the address: %w", err)
	}
	hc := &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := hc.Do(req)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp, body, err
}

// public is the address under which the server wants to be reached.
func (p *patient) public() string {
	if p.about != nil {
		return p.about.PublicURL
	}
	return first(p.cfg.PublicURL, p.server)
}

func checkServer(ctx context.Context, p *patient) []finding {
	if p.sealed() {
		return []finding{{Level: problem, Says: "the one on this data folder is sealed: it waits for its root key (" + p.about.Sealed + ")", Why: "It lets people sign in, makes backups, and refuses everything else. Nothing is lost.",
			Mend: "Bring the root key back, or have its use allowed again; the server goes on by itself. docs/keys.md explains it under Sealed."}}
	}
	list := askServer(ctx, p)
	if own := serverName(p.cfg.PublicURL); p.about == nil && own != "" && own != p.server {
		list = append(list, finding{Level: note, Says: "the settings here are of " + own + ", and " + p.server + " is what was asked: the server " + p.serverFrom(), Mend: "To look at its own server: ambit doctor --server " + word(own)})
	}
	return list
}

func (p *patient) sealed() bool { return p.about != nil && p.about.Sealed != "" }

func askServer(ctx context.Context, p *patient) []finding {
	resp, body, err := p.get(ctx, p.server+"/readyz")
	if err != nil {
		switch {
		case p.about == nil:
			return []finding{{Level: note, Says: "none answers at " + p.server + ", " + p.serverFrom() + deeperThan(err)}}
		case p.about.PublicURL == p.server:
			return []finding{{Level: problem, Says: "one runs on this data folder, and " + p.server + " does not answer" + deeperThan(err), Why: "Neither people nor agents reach it.", Mend: "Look at the proxy in front of it, and at the name's address."}}
		}
		return []finding{{Level: note, Says: "none answers at " + p.server + ", and one runs on this data folder as " + p.about.PublicURL, Mend: "Run: ambit login --server " + word(p.about.PublicURL)}}
	}
	var ready app.Readiness
	if err := json.Unmarshal(body, &ready); err != nil {
		return []finding{{Level: problem, Says: fmt.Sprintf("%s answers with status %d and is perhaps no Ambit", p.server, resp.StatusCode), Mend: "Name another server with --server."}}
	}
	if resp.StatusCode != http.StatusOK {
		list := []finding{{Level: problem, Says: p.server + " is not ready: it says " + strings.ReplaceAll(ready.Status, "_", " "), Why: "It refuses calls.", Mend: "Look at its log. docs/operations.md explains each part."}}
		return append(list, partsOf(ready, "failed", problem)...)
	}
	list := append([]finding{{Level: fine, Says: p.server + " is ready (" + p.serverFrom() + ")"}}, partsOf(ready, "degraded", warning)...)
	if p.about != nil && p.about.Skew.Abs() > muchSkew {
		list = append(list, finding{Check: "clock", Level: problem, Says: "the server's is " + p.about.Skew.Round(time.Millisecond).Abs().String() + " from the database's",
			Why: "From 2 s on it refuses all calls.", Mend: "Run: timedatectl set-ntp true"})
	}
	return list
}

// partsOf lists what /readyz found of a kind.
func partsOf(r app.Readiness, state, level string) (list []finding) {
	for _, part := range r.Parts {
		if part.State == state {
			list = append(list, finding{Check: "server " + part.Name, Level: level, Says: part.State + ": " + part.Code})
		}
	}
	return list
}

// deeperThan is the reason of an error, in short.
func deeperThan(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	return fmt.Sprintf(" (%.200s)", text)
}

// soon is how long before its end a certificate should have been renewed.
const soon = 14 * 24 * time.Hour

// checkCertificate looks at what is served, and at the file that will be.
func checkCertificate(ctx context.Context, p *patient) []finding {
	var list []finding
	if path := p.cfg.TLSCert; path != "" {
		list = append(list, p.certificateFile(path))
	}
	u, err := url.Parse(p.public())
	if err != nil || u.Scheme != "https" {
		if len(list) == 0 {
			list = append(list, finding{Level: fine, Says: "none is needed: the server is on this machine alone"})
		}
		return list
	}
	port := first(u.Port(), "443")
	dialer := tls.Dialer{Config: &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}}
	conn, err := dialer.DialContext(ctx, "tcp", u.Hostname()+":"+port)
	if bad, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return append(list, finding{Level: problem, Says: "the one of " + u.Host + " is not valid for this machine" + deeperThan(bad), Why: "Browsers and agents refuse the connection.",
			Mend: "Renew it for this name. If it comes from an authority of your own, let this machine and those of the agents know it (SSL_CERT_FILE)."})
	}
	if err != nil {
		return append(list, finding{Level: note, Says: u.Host + " could not be asked for its own" + deeperThan(err)})
	}
	defer conn.Close()
	if secure, ok := conn.(*tls.Conn); ok {
		list = append(list, p.lasts("the one of "+u.Host, secure.ConnectionState().PeerCertificates[0]))
	}
	return list
}

func (p *patient) certificateFile(path string) finding {
	text, err := os.ReadFile(path)
	if err != nil {
		return finding{Level: problem, Says: path + " cannot be read" + deeperThan(err), Why: "No server starts with these settings.", Mend: "Set AMBIT_TLS_CERT to a PEM file that this user can read."}
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return finding{Level: problem, Says: path + " holds no PEM certificate", Why: "No server starts with these settings.", Mend: "Set AMBIT_TLS_CERT to the certificate with its chain, in PEM."}
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return finding{Level: problem, Says: path + " holds no certificate" + deeperThan(err), Why: "No server starts with these settings.", Mend: "Set AMBIT_TLS_CERT to the certificate with its chain, in PEM."}
	}
	return p.lasts(path, cert)
}

func (p *patient) lasts(what string, cert *x509.Certificate) finding {
	end := cert.NotAfter
	f := finding{Level: fine, Says: what + " is good until " + end.Format(time.DateOnly)}
	const why, mend = "When it ends, browsers and agents refuse the connection.", "Renew it. The server reads its files again by itself."
	switch left := end.Sub(p.now()); {
	case left <= 0:
		f.Level, f.Says, f.Why, f.Mend = problem, what+" ended on "+end.Format(time.DateOnly), "Browsers and agents refuse the connection.", mend
	case left < soon:
		f.Level, f.Says, f.Why, f.Mend = warning, what+" ends "+when(end, p.now()), why, mend
	}
	return f
}

// checkPublicURL asks for the document that agents find the server by. Its issuer
// must be the very address that it was asked at.
func checkPublicURL(ctx context.Context, p *patient) []finding {
	base := p.public()
	resp, body, err := p.get(ctx, base+"/.well-known/oauth-authorization-server")
	if err != nil {
		if p.about == nil {
			return nil // told of the server
		}
		return []finding{{Level: problem, Says: base + " does not answer from here" + deeperThan(err), Why: "Agents find nothing there.", Mend: "Look at the proxy in front of the server, and at the name's address."}}
	}
	var doc struct {
		Issuer string `json:"issuer"`
	}
	switch {
	case resp.StatusCode == http.StatusMisdirectedRequest:
		return []finding{{Level: problem, Says: "the server does not call itself " + base, Why: "It refuses requests for any other address than its public URL.", Mend: "Set AMBIT_PUBLIC_URL of the server to the address in use, and let a proxy in front pass the Host header on."}}
	case resp.StatusCode != http.StatusOK || json.Unmarshal(body, &doc) != nil || doc.Issuer == "":
		return []finding{{Level: problem, Says: fmt.Sprintf("what answers at %s is no Ambit (status %d)", base, resp.StatusCode), Why: "Agents cannot sign in.", Mend: "Look at the proxy in front of the server."}}
	case doc.Issuer != base:
		return []finding{{Level: problem, Says: base + " says that it is " + doc.Issuer, Why: "Agents refuse an issuer that is not the address they asked (RFC 8414).", Mend: "Set AMBIT_PUBLIC_URL of the server to " + base + ", or use its own address."}}
	}
	return []finding{{Level: fine, Says: base + " answers as itself"}}
}

// checkLogin looks at the stored login.
func checkLogin(ctx context.Context, p *patient) []finding {
	_, err := p.token(p.server)
	if fault.Is(err, "not_logged_in") {
		return []finding{{Level: note, Says: "there is none for " + p.server + ", so agents, keys and connections are not looked at", Mend: p.loginAt(p.server)}}
	}
	if err != nil {
		f := fault.Of(err)
		return []finding{{Level: problem, Says: f.Message, Why: "Whoever reads it acts as you, within what needs no passkey.", Mend: f.Hint}}
	}
	cl, err := p.command.api(ctx)
	if err == nil {
		var who client.Whoami
		if who, err = cl.Whoami(ctx); err == nil {
			p.api = cl
			return []finding{{Level: fine, Says: "you act as " + callerName(who)}}
		}
	}
	if client.Is(err, "server_unreachable") {
		return nil // told of the server
	}
	if ce, ok := errors.AsType[*client.Error](err); ok && ce.Status == http.StatusUnauthorized {
		if p.env[envAPIKey] != "" {
			return []finding{{Level: warning, Says: "AMBIT_API_KEY holds no key that " + p.server + " knows", Mend: "Make one: ambit apikey create"}}
		}
		return []finding{{Level: warning, Says: "yours for " + p.server + " has ended", Mend: p.loginAt(p.server)}}
	}
	return []finding{{Level: warning, Says: "it could not be tried" + deeperThan(err)}}
}

const (
	forgotten = 90 * 24 * time.Hour // since an agent was last seen, or a key used
	manyPages = 20                  // of a hundred; what is beyond is not looked at
)

// checkAccounts looks, with the login, for what was left open or will stop soon.
func checkAccounts(ctx context.Context, p *patient) []finding {
	if p.api == nil {
		return nil
	}
	var list []finding
	for _, look := range []func(context.Context) ([]finding, error){p.agents, p.keys, p.connected} {
		found, err := look(ctx)
		if ce, ok := errors.AsType[*client.Error](err); ok && (ce.Status == http.StatusForbidden || ce.Status == http.StatusNotFound) {
			continue // not for this login to see
		}
		if err != nil {
			return append(list, finding{Level: warning, Says: "could not be read" + deeperThan(err)})
		}
		list = append(list, found...)
	}
	if len(list) == 0 {
		list = append(list, finding{Level: fine, Says: "no agent, key or connection needs you"})
	}
	return list
}

// every reads a list, up to a bound.
func every[T any](ctx context.Context, list func(ctx context.Context, p client.Paging) (client.Page[T], error), look func(T)) error {
	after := ""
	for range manyPages {
		page, err := list(ctx, client.Paging{Limit: 100, After: after})
		if err != nil {
			return err
		}
		for _, v := range page.Data {
			look(v)
		}
		if after = page.Next; after == "" {
			break
		}
	}
	return nil
}

func (p *patient) agents(ctx context.Context) (found []finding, err error) {
	err = every(ctx, func(ctx context.Context, q client.Paging) (client.Page[client.Agent], error) {
		return p.api.Agents(ctx, client.AgentFilter{Limit: q.Limit, After: q.After})
	}, func(a client.Agent) {
		seen := a.LastSeenAt
		if seen.IsZero() {
			seen = a.CreatedAt
		}
		if a.DisabledAt.IsZero() && p.now().Sub(seen) > forgotten {
			found = append(found, finding{Check: "agents", Level: warning, Says: fmt.Sprintf("%s was last seen %s, and can still sign in", a.Label, when(seen, p.now())),
				Why: "A credential that nobody uses is one that nobody misses.", Mend: "Run: ambit agent disable " + a.ID})
		}
	})
	return found, err
}

func (p *patient) keys(ctx context.Context) (found []finding, err error) {
	err = every(ctx, func(ctx context.Context, q client.Paging) (client.Page[client.APIKey], error) {
		return p.api.Keys(ctx, "", q)
	}, func(k client.APIKey) {
		used := k.LastUsedAt
		if used.IsZero() {
			used = k.CreatedAt
		}
		switch left := k.ExpiresAt.Sub(p.now()); {
		case !k.RevokedAt.IsZero():
		case !k.ExpiresAt.IsZero() && left <= 0: // over
		case !k.ExpiresAt.IsZero() && left < soon && k.ExpiresAt.Sub(k.CreatedAt) > 2*soon:
			found = append(found, finding{Check: "API keys", Level: warning, Says: k.Name + " ends " + when(k.ExpiresAt, p.now()), Why: "The application that uses it stops working then.", Mend: "Make the next one: ambit apikey create"})
		case p.now().Sub(used) > forgotten:
			found = append(found, finding{Check: "API keys", Level: warning, Says: k.Name + " was last used " + when(used, p.now()), Why: "A key that nobody uses is one that nobody misses.", Mend: "Run: ambit apikey revoke " + k.ID})
		}
	})
	return found, err
}

func (p *patient) connected(ctx context.Context) (found []finding, err error) {
	err = every(ctx, func(ctx context.Context, q client.Paging) (client.Page[client.Connection], error) {
		return p.api.Connections(ctx, client.ConnectionFilter{State: "needs_reauthorization", Limit: q.Limit, After: q.After})
	}, func(v client.Connection) {
		found = append(found, finding{Check: "connections", Level: warning, Says: fmt.Sprintf("%s as %s needs to be connected again", first(v.ProviderName, v.Provider), first(v.AccountLabel, v.AccountID)),
			Why: first(v.Reason, "The provider no longer takes its credential.") + " Calls on it are refused.", Mend: "Run: ambit connection connect " + v.Provider + " --reconnect " + v.ID})
	})
	return found, err
}

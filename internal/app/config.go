package app

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/issuer"
	"github.com/ambit-dev/ambit/internal/mail"
	"github.com/ambit-dev/ambit/internal/mcpserver"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Config says how a server runs. Only package cli reads flags, environment and
// files; here everything is a value.
type Config struct {
	// DataDir is the folder of the SQLite database and of the console's socket.
	// It is made with mode 0700 and locked while the server runs.
	DataDir string
	// DatabaseURL chooses PostgreSQL instead of SQLite.
	DatabaseURL string
	// RootKey is the file of the root key; default DataDir with ".key" appended,
	// so that a copy of the data folder never holds it.
	//
	// It can also be the URI of a root key elsewhere; see backEnds.
	RootKey string
	// RootKeysOther are further root keys of the server: those that it may move to,
	// and those that something is still wrapped by.
	RootKeysOther []string
	// MachineIdentity lets customers' root keys be asked for as the identity that
	// the cloud gives this machine. For the server's own root keys it always may be.
	MachineIdentity bool
	// TransitCA is a PEM file of certificate authorities that servers of transit keys
	// may have their certificates from, beside those that the system trusts.
	TransitCA string
	// Sources is the operator's file of sources of secrets; see package source. Empty: none.
	Sources string
	// Env looks up one setting of the environment, for what back ends of root keys
	// want to know. Nil knows none.
	Env func(string) string
	// CheckpointDir is where signed audit checkpoints go; default DataDir with
	// ".checkpoints" appended.
	CheckpointDir string

	// Existing refuses a database in which no server has ever been: what wants to
	// find something there should not make it, and a key with it.
	Existing bool

	// Sealed is told when the server cannot use its root key at its start and waits
	// for it: until then it serves sealed, which is health and sign-in, and refuses
	// everything else. Nil: New refuses instead.
	Sealed func(public *url.URL, why *fault.Error)

	restoring bool // a database of an earlier moment is what is wanted

	// Listen is "host:port". localhost means both loopback addresses; port 0
	// picks one.
	Listen string
	// ProxyListen is where the forward proxy listens, as Listen; empty: nowhere. It
	// is loopback, unless there are certificates.
	ProxyListen string
	// Egress is what tunnels of the proxy may do beside the accounts of a session.
	Egress gateway.Egress
	// PublicURL is the one origin under which people and agents reach the
	// server: issuer, MCP resource and WebAuthn origin. Default
	// http://localhost:<port>.
	PublicURL string
	// TLSCert and TLSKey are PEM files, read again when they change.
	TLSCert, TLSKey string
	// TrustedProxies are the networks whose X-Forwarded-For is believed.
	TrustedProxies []netip.Prefix

	// OutboundAllow lists the private "host:port" destinations that providers
	// may have. Everything else must be on the public internet.
	OutboundAllow []string
	// SignIn is the identity provider at which everybody here can sign in; zero: none.
	SignIn account.OperatorSignIn
	// Mail is the server that notices go to people through; zero: none does.
	Mail mail.Config
	// NoRegistration refuses clients that register themselves (RFC 7591).
	NoRegistration bool
	// ClientDocuments are the hosts at which documents of OAuth clients may lie, or
	// none; empty: every host.
	ClientDocuments []string
	// AllowVend lets applications with the scope for it fetch credentials.
	AllowVend bool

	// KeyGrace is how long stored secrets can be used after the keeper of the
	// root key last answered; default 5 min. A keeper that refuses ends it at once.
	KeyGrace time.Duration
	// CheckpointRequired is how long no audit checkpoint can be written before
	// calls are refused. Zero: they go on, and it is an alarm after a minute.
	CheckpointRequired time.Duration

	// CallRate is how many requests a second an agent, and calls a second a
	// session, may make over time; default 50.
	CallRate float64

	// TraceEndpoint is the OTLP/HTTP collector to which traces go, such as
	// http://localhost:4318; empty traces nothing. TraceRatio is the share of
	// calls that are traced; 0 means all.
	TraceEndpoint string
	TraceRatio    float64
	// MetricsToken opens /metrics to whoever shows it as a bearer token. Without
	// one the metrics are on the console socket only.
	MetricsToken secret.Value

	Version string
	Node    string // names this process in the audit; default host name and pid
	Logger  *slog.Logger

	// DrainDelay is how long the server goes on serving after it was told to
	// stop, while /readyz already says that it is not ready; default 0.
	DrainDelay time.Duration
	// Drain is how long running requests may then take before they are cut;
	// default 10 s.
	Drain time.Duration
	// Force, when closed, ends a drain at once. Nil never does.
	Force <-chan struct{}
	// NotifySocket is where a service manager hears that the server is ready
	// and that it stops, as systemd names it in NOTIFY_SOCKET.
	NotifySocket string
}

// Validate fills defaults and refuses what is unsafe.
func (c *Config) Validate() error {
	if c.DataDir == "" {
		return invalid("data_dir_missing", "No data folder is named.", "Give --data DIR or set AMBIT_DATA_DIR.")
	}
	abs, err := filepath.Abs(c.DataDir)
	if err != nil {
		return fmt.Errorf("finding the data folder: %w", err)
	}
	c.DataDir = filepath.Clean(abs)
	if c.RootKey == "" {
		c.RootKey = c.DataDir + ".key"
	}
	if c.CheckpointDir == "" {
		c.CheckpointDir = c.DataDir + ".checkpoints"
	}
	inside := func(name string) error {
		return invalid("inside_data_dir", "The "+name+" lies inside the data folder, where a copy of the data would hold it too.", "Put it elsewhere.")
	}
	for _, key := range append([]string{c.RootKey}, c.RootKeysOther...) {
		if insideData(c.DataDir, RootFile(key)) {
			return inside("root key")
		}
	}
	if insideData(c.DataDir, c.CheckpointDir) {
		return inside("checkpoint folder")
	}
	if c.Listen == "" {
		c.Listen = "localhost:7420"
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return invalid("listen_invalid", "The address to listen on is not host:port.", "For example localhost:7420.")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return invalid("listen_invalid", "The address to listen on has no port from 0 to 65535.", "For example localhost:7420. Port 0 picks one that is free.")
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return invalid("tls_incomplete", "Certificate and key belong together.", "Set both AMBIT_TLS_CERT and AMBIT_TLS_KEY.")
	}
	if !isLoopback(host) && c.TLSCert == "" && len(c.TrustedProxies) == 0 {
		return invalid("listen_plain", "Listening on "+c.Listen+" without TLS would send tokens in clear over the network.",
			"Set AMBIT_TLS_CERT and AMBIT_TLS_KEY, or AMBIT_TRUSTED_PROXIES if a proxy in front does TLS, or listen on localhost.")
	}
	if err := c.checkProxy(); err != nil {
		return err
	}
	if c.PublicURL != "" {
		if _, err := parsePublic(c.PublicURL); err != nil {
			return err
		}
	} else if !isLoopback(host) {
		return invalid("public_url_missing", "The public URL is not set.", "Set AMBIT_PUBLIC_URL to the https URL under which people reach this server.")
	}
	if c.CallRate == 0 {
		c.CallRate = 50
	}
	if c.CallRate < 0 {
		return invalid("call_rate_invalid", "The call rate is negative.", "Set AMBIT_CALL_RATE to calls a second.")
	}
	if c.KeyGrace < 0 || c.KeyGrace > time.Hour {
		return invalid("key_grace_invalid", "The grace of unwrapped keys is over an hour.", "Set AMBIT_KEY_GRACE to 5m or the like.")
	}
	if c.CheckpointRequired != 0 && c.CheckpointRequired < time.Minute {
		return invalid("checkpoint_required_invalid", "Calls would be refused before a late checkpoint is even an alarm.", "Set AMBIT_CHECKPOINT_REQUIRED to a minute or more.")
	}
	if c.Drain < 0 || c.DrainDelay < 0 {
		return invalid("drain_invalid", "A time to drain is negative.", "For example 10s.")
	}
	if c.TraceRatio == 0 {
		c.TraceRatio = 1
	}
	if c.TraceRatio < 0 || c.TraceRatio > 1 {
		return invalid("trace_ratio_invalid", "The trace ratio is not between 0 and 1.", "Set AMBIT_TRACE_RATIO to the share of calls to trace, such as 0.01.")
	}
	if u, err := url.Parse(c.TraceEndpoint); c.TraceEndpoint != "" && (err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https") {
		return invalid("trace_endpoint_invalid", "The trace endpoint is not an http or https URL.", "Set AMBIT_TRACE_ENDPOINT to an OTLP/HTTP collector, such as http://localhost:4318.")
	}
	if n := c.MetricsToken.Len(); n > 0 && n < 16 {
		return invalid("metrics_token_weak", "The metrics token is shorter than 16 characters.", "Make one with: openssl rand -hex 24")
	}
	if !c.Mail.IsZero() {
		if _, err := mail.New(c.Mail); err != nil {
			return err
		}
	}
	if _, err := agent.ParseHosts(c.ClientDocuments); err != nil {
		return err
	}
	if err := c.checkSignIn(); err != nil {
		return err
	}
	if c.Drain == 0 {
		c.Drain = 10 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

func (c *Config) checkSignIn() error {
	i := &c.SignIn
	if i.Issuer == "" {
		if i.ClientID != "" || i.Name != "" || i.Secret.Len() > 0 {
			return invalid("signin_incomplete", "An identity provider is set up without its issuer.", "Set AMBIT_SIGNIN_ISSUER.")
		}
		return nil
	}
	u, err := url.Parse(i.Issuer)
	if err != nil || !issuer.WellFormed(i.Issuer) || u.Scheme != "https" && u.Scheme != "http" {
		return invalid("signin_issuer_invalid", "The issuer of the identity provider is not an https URL.", "Set AMBIT_SIGNIN_ISSUER to what the provider calls its issuer.")
	}
	if i.ClientID == "" {
		return invalid("signin_incomplete", "The identity provider has no client id.", "Register this server there, and set AMBIT_SIGNIN_CLIENT_ID and AMBIT_SIGNIN_CLIENT_SECRET.")
	}
	if i.Name == "" {
		i.Name = u.Host
	}
	return nil
}

func (c *Config) checkProxy() error {
	switch c.Egress.Elsewhere {
	case "":
		c.Egress.Elsewhere = gateway.DenyElsewhere
	case gateway.DenyElsewhere, gateway.ObserveElsewhere, gateway.PassElsewhere:
	default:
		return invalid("proxy_elsewhere_invalid", "What the proxy does with other hosts is not deny, observe or pass.", "Set AMBIT_PROXY_ELSEWHERE to one of them.")
	}
	for i, h := range c.Egress.Hosts {
		h = strings.ToLower(h)
		name := strings.TrimPrefix(h, "*.")
		if name == "" || strings.ContainsAny(name, "*:/ ") || strings.HasPrefix(name, ".") {
			return invalid("proxy_pass_invalid", "The proxy cannot let "+h+" pass: it is no host name.", "Set AMBIT_PROXY_PASS to names such as api.anthropic.com or *.example.com, without ports.")
		}
		c.Egress.Hosts[i] = h
	}
	if c.ProxyListen == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(c.ProxyListen)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return invalid("proxy_listen_invalid", "The address of the forward proxy is not host:port.", "For example localhost:7421, or off.")
	}
	if !isLoopback(host) && c.TLSCert == "" {
		return invalid("proxy_listen_plain", "A forward proxy on "+c.ProxyListen+" without TLS would take tokens in clear over the network.",
			"Let it listen on localhost, or set AMBIT_TLS_CERT and AMBIT_TLS_KEY.")
	}
	return nil
}

// limits are those of the MCP door. Many agents may sit behind one address, whose
// ceiling is for the database's sake only.
func (c Config) limits() mcpserver.Limits {
	return mcpserver.Limits{AgentRate: c.CallRate, AgentBurst: int(4 * c.CallRate), AddressRate: 200 * c.CallRate, AddressBurst: int(400 * c.CallRate)}
}

// parsePublic accepts an origin: https, or http on a loopback host.
func parsePublic(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
		return nil, invalid("public_url_invalid", "The public URL is not an origin.", "For example https://ambit.example.com, without a path.")
	}
	u.Path = ""
	switch {
	case u.Scheme == "https":
	case u.Scheme == "http" && isLoopback(u.Hostname()):
		if ip, err := netip.ParseAddr(u.Hostname()); err == nil {
			return nil, invalid("public_url_invalid", "Passkeys do not work on "+ip.String()+".", "Use http://localhost with the port instead.")
		}
	default:
		return nil, invalid("public_url_invalid", "The public URL is not https.", "Plain http is only for localhost.")
	}
	u.Host = strings.ToLower(u.Host)
	return u, nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

func invalid(code, msg, hint string) error {
	return fault.New(fault.Invalid, code, msg).WithHint(hint)
}

package cli

import (
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/mail"
	"github.com/ambit-dev/ambit/internal/secret"
)

// The environment variables of a server. docs/configuration.md lists them.
const (
	envDataDir        = "AMBIT_DATA_DIR"
	envDatabaseURL    = "AMBIT_DATABASE_URL"
	envRootKey        = "AMBIT_ROOT_KEY"
	envRootKeysOther  = "AMBIT_ROOT_KEYS_OTHER"
	envCheckpoints    = "AMBIT_CHECKPOINT_DIR"
	envListen         = "AMBIT_LISTEN"
	envProxyListen    = "AMBIT_PROXY_LISTEN"
	envProxyElsewhere = "AMBIT_PROXY_ELSEWHERE"
	envProxyPass      = "AMBIT_PROXY_PASS"
	envPublicURL      = "AMBIT_PUBLIC_URL"
	envTLSCert        = "AMBIT_TLS_CERT"
	envTLSKey         = "AMBIT_TLS_KEY"
	envTrustedProxies = "AMBIT_TRUSTED_PROXIES"
	envOutboundAllow  = "AMBIT_OUTBOUND_ALLOW"
	envNoRegistration = "AMBIT_NO_REGISTRATION"
	envDocuments      = "AMBIT_CLIENT_DOCUMENTS"
	envAllowVend      = "AMBIT_ALLOW_VEND"
	envMachineID      = "AMBIT_MACHINE_IDENTITY"
	envTransitCA      = "AMBIT_TRANSIT_CA"
	envSources        = "AMBIT_SOURCES"
	envCallRate       = "AMBIT_CALL_RATE"
	envKeyGrace       = "AMBIT_KEY_GRACE"
	envCheckpointReq  = "AMBIT_CHECKPOINT_REQUIRED"
	envDrainDelay     = "AMBIT_DRAIN_DELAY"
	envDrain          = "AMBIT_DRAIN"
	envNotifySocket   = "NOTIFY_SOCKET" // systemd's own
	envTraceEndpoint  = "AMBIT_TRACE_ENDPOINT"
	envTraceRatio     = "AMBIT_TRACE_RATIO"
	envMetricsToken   = "AMBIT_METRICS_TOKEN"
	envLog            = "AMBIT_LOG"

	envSignInName   = "AMBIT_SIGNIN_NAME"
	envSignInIssuer = "AMBIT_SIGNIN_ISSUER"
	envSignInClient = "AMBIT_SIGNIN_CLIENT_ID"
	envSignInSecret = "AMBIT_SIGNIN_CLIENT_SECRET"

	envSMTPURL      = "AMBIT_SMTP_URL"
	envSMTPPassword = "AMBIT_SMTP_PASSWORD"
	envSMTPFrom     = "AMBIT_SMTP_FROM"
)

const maxDrain = time.Hour

// serverConfig reads the settings of a server from the environment. Flags,
// where given, win.
func (c *command) serverConfig(dataDir, listen string) (app.Config, error) {
	cfg := app.Config{
		DataDir: first(dataDir, c.env[envDataDir], c.defaultDataDir()), DatabaseURL: c.env[envDatabaseURL],
		RootKey: c.env[envRootKey], RootKeysOther: list(c.env[envRootKeysOther]), Env: func(name string) string { return c.env[name] }, CheckpointDir: c.env[envCheckpoints],
		Listen: first(listen, c.env[envListen]), PublicURL: c.env[envPublicURL], TLSCert: c.env[envTLSCert], TLSKey: c.env[envTLSKey],
		OutboundAllow: list(c.env[envOutboundAllow]), ClientDocuments: list(c.env[envDocuments]), Egress: gateway.Egress{Elsewhere: gateway.Elsewhere(c.env[envProxyElsewhere]), Hosts: list(c.env[envProxyPass])}, NotifySocket: c.env[envNotifySocket],
		TransitCA: c.env[envTransitCA], Sources: c.env[envSources], TraceEndpoint: c.env[envTraceEndpoint], MetricsToken: secret.FromString(c.env[envMetricsToken]), Version: Version, Logger: c.logger(),
		SignIn: account.OperatorSignIn{Name: c.env[envSignInName], Issuer: c.env[envSignInIssuer], ClientID: c.env[envSignInClient], Secret: secret.FromString(c.env[envSignInSecret])},
		Mail:   mail.Config{URL: c.env[envSMTPURL], Password: secret.FromString(c.env[envSMTPPassword]), From: c.env[envSMTPFrom]},
	}
	for name, into := range map[string]*bool{envNoRegistration: &cfg.NoRegistration, envAllowVend: &cfg.AllowVend, envMachineID: &cfg.MachineIdentity} {
		if v := c.env[name]; v != "" {
			b, err := strconv.ParseBool(v)
			if err != nil {
				return app.Config{}, badSetting(name, "is true or false")
			}
			*into = b
		}
	}
	for name, into := range map[string]*time.Duration{envKeyGrace: &cfg.KeyGrace, envCheckpointReq: &cfg.CheckpointRequired} {
		if v := c.env[name]; v != "" {
			d, err := time.ParseDuration(v)
			if err != nil || d <= 0 {
				return app.Config{}, badSetting(name, "is a time such as 5m")
			}
			*into = d
		}
	}
	if v := c.env[envCallRate]; v != "" {
		rate, err := strconv.ParseFloat(v, 64)
		if err != nil || rate <= 0 || rate > 1e6 {
			return app.Config{}, badSetting(envCallRate, "is a number of calls a second")
		}
		cfg.CallRate = rate
	}
	for name, into := range map[string]*time.Duration{envDrainDelay: &cfg.DrainDelay, envDrain: &cfg.Drain} {
		if v := c.env[name]; v != "" {
			d, err := time.ParseDuration(v)
			if err != nil || d < 0 || d > maxDrain {
				return app.Config{}, badSetting(name, "is a time such as 10s, at most an hour")
			}
			*into = d
		}
	}
	if v := c.env[envTraceRatio]; v != "" {
		ratio, err := strconv.ParseFloat(v, 64)
		if err != nil || !(ratio > 0 && ratio <= 1) {
			return app.Config{}, badSetting(envTraceRatio, "is a share of calls, more than 0 and at most 1")
		}
		cfg.TraceRatio = ratio
	}
	for _, s := range list(c.env[envTrustedProxies]) {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, aerr := netip.ParseAddr(s)
			if aerr != nil {
				return app.Config{}, badSetting(envTrustedProxies, "is a list of addresses or networks, such as 10.0.0.0/8")
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		cfg.TrustedProxies = append(cfg.TrustedProxies, p)
	}
	cfg.ProxyListen = proxyPlace(first(c.proxyListen, c.env[envProxyListen]), cfg.Listen)
	return cfg, cfg.Validate()
}

// proxyPlace is where the forward proxy listens. By itself it does beside a server
// at its usual place, or at any free port; elsewhere it is asked for.
func proxyPlace(asked, server string) string {
	switch {
	case asked == "off":
		return ""
	case asked != "":
		return asked
	case server == "" || server == "localhost:7420":
		return "localhost:7421"
	case strings.HasSuffix(server, ":0"):
		return "localhost:0"
	}
	return ""
}

func (c *command) defaultDataDir() string {
	home := c.env["HOME"]
	if home == "" {
		home, _ = os.UserHomeDir()
	}
	return filepath.Join(home, ".ambit", "data")
}

func badSetting(name, what string) error {
	return fault.New(fault.Invalid, "setting_invalid", name+" "+what+".")
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// list splits at commas and blanks.
func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' })
}

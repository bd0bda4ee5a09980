package cli

import (
	"encoding/pem"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/ambit-dev/ambit/internal/fault"
)

// preset is what is known of a program that agents are.
type preset struct {
	// hosts are those of the service in which its model runs. They go past the proxy,
	// unless the session has an account there.
	hosts []string
	env   map[string]string
}

var presets = map[string]preset{
	"claude":       {hosts: []string{"api.anthropic.com", "platform.claude.com", "claude.ai", "statsig.anthropic.com"}},
	"codex":        {hosts: []string{"api.openai.com", "chatgpt.com", "auth.openai.com"}},
	"gemini":       {hosts: []string{"generativelanguage.googleapis.com", "cloudcode-pa.googleapis.com", "oauth2.googleapis.com"}},
	"opencode":     {hosts: []string{"opencode.ai", "models.dev", "api.anthropic.com", "api.openai.com"}},
	"cursor-agent": {hosts: []string{".cursor.sh", ".cursor.com"}},
}

// They are compiled when a program is started by "ambit run", and by no other command.
var (
	secretName = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?i)(token|secret|passw(or)?d|passphrase|api_?key|access_?key|private_?key|signing_?key|credential|cookie|bearer|webhook|conn(ection)?_?str|_auth$|^auth_|_pat$|_key$|_dsn$|_jwt$|_creds?$|_pwd$|(^|_)pass($|_)|(db|pg|redis|sql|mail|smtp|ftp|ssh|user)pass$|^op_session|^bw_session$|^ssh_auth_sock$|^gpg_agent_info$|^ambit_)`)
	})
	// secretValue is what keys look like wherever they stand: known prefixes, JWTs, PEM,
	// URLs with a password or with a key as their user name, header fields that prove
	// who asks, connection strings, and the addresses of webhooks.
	secretValue = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(strings.Join([]string{
			`^(sk-|sk_|rk_|gh[opusr]_|github_pat_|glpat-|xox[abpr]-|AKIA|ASIA|AIza|ya29\.|ntn_|lin_api_|npm_|pypi-|hf_|dop_v1_|amb_|sbx)[A-Za-z0-9_.\-]{8,}`,
			`[\s"'=:,;](sk-|gh[opusr]_|github_pat_|glpat-|xox[abpr]-|AKIA|ASIA|AIza|ya29\.|npm_|pypi-|amb_)[A-Za-z0-9_.\-]{16,}`,
			`eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{5,}`,
			`-----BEGIN `,
			`://[^/@\s:]*:[^/@\s]+@`,
			`://(sk-|sk_|gh[opusr]_|github_pat_|glpat-|[^/@\s:]{20,}@)`,
			`(?i:\bbearer\s+[A-Za-z0-9+/=_.~\-]{8,})`,
			`(?i:(authorization|api-?key|-token)["']?\s*[:=]\s*["']?[^\s"']{4,})`,
			`(?i:(^|[;\s])(accountkey|sharedaccesskey|sharedaccesssignature|password|pwd)\s*=\s*[^;\s]+)`,
			`[?&;](sig|token|access_token|api_?key|key|password|secret)=[^&\s]{8,}`,
			`://hooks\.slack\.com/|/api/webhooks/`,
		}, "|"))
	})
	gitConfig = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^GIT_CONFIG_(COUNT|(KEY|VALUE)_[0-9]+)$`) })
)

// paths are variables that look like credentials by their names and name files.
var paths = []string{"SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"}

// environment is what the program gets, and the names of what it does not get.
func (r *run) environment(a runAccess, trust trustFiles) (env, dropped []string) {
	out := map[string]string{}
	git := false // whether some of git's numbered settings are among it
	for name, value := range r.env {
		if r.leavesOut(name, value) {
			dropped = append(dropped, name)
			git = git || gitConfig().MatchString(name)
			continue
		}
		out[name] = value
	}
	for name := range out {
		if git && gitConfig().MatchString(name) { // git takes all that it counts, or does not start
			dropped = append(dropped, name)
			delete(out, name)
		}
	}
	maps.Copy(out, a.Variables)
	maps.Copy(out, r.proxyVariables(a))
	for _, name := range []string{"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "AWS_CA_BUNDLE", "CARGO_HTTP_CAINFO", "PIP_CERT", "DENO_CERT", "NIX_SSL_CERT_FILE",
		"NPM_CONFIG_CAFILE", "CODEX_CA_CERTIFICATE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE"} {
		out[name] = trust.all
	}
	out["NODE_EXTRA_CA_CERTS"] = trust.own
	out["NODE_USE_ENV_PROXY"] = "1"
	out["DENO_TLS_CA_STORE"] = "system,mozilla"
	if trust.java != "" {
		out["JAVA_TOOL_OPTIONS"] = strings.TrimSpace(out["JAVA_TOOL_OPTIONS"] + " " + trust.java)
	}
	out["GIT_TERMINAL_PROMPT"] = "0" // what a person would type is what they should not have to
	// For the relay. The token is the one in the proxy's address.
	out["AMBIT_SESSION"], out["AMBIT_TOKEN"] = a.SessionID, a.Token
	maps.Copy(out, r.preset().env)
	for name, value := range out {
		env = append(env, name+"="+value)
	}
	slices.Sort(env)
	slices.Sort(dropped)
	dropped = slices.DeleteFunc(dropped, func(n string) bool { return strings.HasPrefix(n, "AMBIT_") || a.Variables[n] != "" })
	return env, dropped
}

// leavesOut reports whether a variable looks like a credential, and nobody keeps it.
func (r *run) leavesOut(name, value string) bool {
	return !slices.Contains(r.keep, name) && !slices.Contains(paths, name) && (secretName().MatchString(name) || secretValue().MatchString(value))
}

func (r *run) preset() preset { return presets[filepath.Base(r.args[0])] }

// proxyVariables name the proxy, with the session's token as its password.
func (r *run) proxyVariables(a runAccess) map[string]string {
	u := r.proxyURL(a)
	out := map[string]string{}
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "NPM_CONFIG_PROXY", "NPM_CONFIG_HTTPS_PROXY"} {
		out[name] = u.String()
	}
	past := strings.Join(r.past(a), ",")
	out["NO_PROXY"], out["no_proxy"] = past, past
	return out
}

func (r *run) proxyURL(a runAccess) *url.URL {
	u, err := url.Parse(a.ProxyURL)
	if r.isolate {
		u, err = &url.URL{Scheme: "http", Host: insidePlace}, nil
	}
	if err != nil {
		u = &url.URL{Scheme: "http", Host: a.ProxyURL}
	}
	u.User = url.UserPassword("session", a.Token)
	return u
}

// past lists what goes past the proxy: this machine, the server itself, and the
// program's own model, as long as no account of the session is there.
func (r *run) past(a runAccess) []string {
	granted := func(host string) bool {
		return slices.ContainsFunc(a.Hosts, func(h string) bool {
			if name, _, err := net.SplitHostPort(h); err == nil {
				h = name
			}
			return h == host || strings.HasPrefix(host, ".") && strings.HasSuffix(h, host)
		})
	}
	var out []string
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if !r.isolate {
		hosts = append(hosts, r.preset().hosts...)
	}
	for _, h := range hosts {
		if !granted(h) {
			out = append(out, h)
		}
	}
	if u, err := url.Parse(r.serverURL()); err == nil && !r.isolate {
		out = append(out, u.Host)
	}
	return out
}

// trustFiles are the files that the program's libraries read.
type trustFiles struct {
	own string // the proxy's authority
	all string // and those of the system

	java string // the option of Java that names what it reads
}

// systemTrust are the places at which systems keep what they trust.
var systemTrust = []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem", "/usr/local/share/certs/ca-root-nss.crt"}

func writeTrust(dir, authority, named string) (trustFiles, error) {
	if block, _ := pem.Decode([]byte(authority)); block == nil {
		return trustFiles{}, fault.New(fault.Unavailable, "no_authority", "The server named no certificate authority for its proxy.")
	}
	all := []byte(authority)
	for _, path := range append([]string{named}, systemTrust...) {
		if doc, err := os.ReadFile(path); err == nil {
			all = append(append(doc, '\n'), authority...)
			break
		}
	}
	t := trustFiles{own: filepath.Join(dir, "proxy.pem"), all: filepath.Join(dir, "all.pem")}
	for path, doc := range map[string][]byte{t.own: []byte(authority), t.all: all} {
		if err := os.WriteFile(path, doc, 0o600); err != nil {
			return trustFiles{}, fmt.Errorf("writing what to trust: %w", err)
		}
	}
	return t, nil
}

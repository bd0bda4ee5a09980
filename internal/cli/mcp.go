package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
)

func (c *command) mcpCommand() *cobra.Command {
	var tokenEnv, tokenFile, clientID, secretFile string
	cmd := &cobra.Command{
		Use: "mcp", Short: "Speak MCP over standard streams, for agents that know no HTTP",
		Long: "Carry MCP between an agent's standard streams and the server's /mcp.\n\n" +
			"The agent's token comes from the environment variable " + envAgentToken + ", or the one that --token-env names, or from\n" +
			"a file, which is read again when the server no longer takes it. Or the agent has client credentials (ambit agent\n" +
			"register): then tokens are got with them. A token says who the agent is; access is approved, session by session.",
		Example: "  ambit mcp --token-file agent.token\n  ambit mcp --client-id cli_… --secret-file report.secret",
		Args:    takes(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			server := c.serverURL()
			if err := client.Check(server); err != nil {
				return err
			}
			hc := &http.Client{
				// A stream lasts, and an approval is waited for: contexts bound the rest.
				Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 10 * time.Second, MaxIdleConnsPerHost: bridgeRequests, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true},
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // it would take the token along
			}
			defer hc.CloseIdleConnections()
			b := &stdioBridge{url: strings.TrimRight(server, "/") + "/mcp", http: hc, out: c.stdout, running: map[string]context.CancelFunc{}}
			switch {
			case clientID != "" && secretFile != "" && tokenEnv == "" && tokenFile == "":
				b.token = &credentialsToken{client: clientID, secret: func(ctx context.Context) ([]byte, error) { return c.readFile(ctx, secretFile) }, server: strings.TrimRight(server, "/"), http: hc}
			case clientID != "" || secretFile != "" || tokenEnv != "" && tokenFile != "":
				return usageError{errors.New("give one of --token-env, --token-file, or --client-id with --secret-file")}
			case tokenFile != "":
				b.token = givenToken(func(ctx context.Context) ([]byte, error) { return c.readFile(ctx, tokenFile) })
			default:
				name := first(tokenEnv, envAgentToken)
				if c.env[name] == "" {
					return usageError{fmt.Errorf("the environment has no %s with the agent's token", plain(name))}
				}
				b.token = givenToken(func(context.Context) ([]byte, error) { return []byte(c.env[name]), nil })
			}
			return b.serve(cmd.Context(), c.stdin)
		},
	}
	cmd.Flags().StringVar(&tokenEnv, "token-env", "", "name of the environment variable with the token (default "+envAgentToken+")")
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "file with the token")
	cmd.Flags().StringVar(&clientID, "client-id", "", "client id of a registered agent")
	cmd.Flags().StringVar(&secretFile, "secret-file", "", "file with its client secret")
	return cmd
}

// tokenSource gives an agent's access token. renew is asked for another one after
// the server refused old; an error says that there is none.
type tokenSource interface {
	get(ctx context.Context) (string, error)
	renew(ctx context.Context, old string) error
}

// givenToken is one that somebody else puts in its place.
type givenToken func(ctx context.Context) ([]byte, error)

func (g givenToken) get(ctx context.Context) (string, error) {
	text, err := g(ctx)
	return strings.TrimSpace(string(text)), err
}

func (g givenToken) renew(ctx context.Context, old string) error {
	now, err := g.get(ctx)
	if err == nil && now == old {
		err = errors.New("it is still the same")
	}
	return err
}

// credentialsToken gets tokens by the client credentials grant (RFC 6749 §4.4).
type credentialsToken struct {
	client, server string
	secret         func(ctx context.Context) ([]byte, error)
	http           *http.Client

	mu  sync.Mutex
	now string
}

func (k *credentialsToken) get(ctx context.Context) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var err error
	if k.now == "" {
		k.now, err = k.fetch(ctx)
	}
	return k.now, err
}

func (k *credentialsToken) renew(ctx context.Context, old string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.now != old {
		return nil // another request was first
	}
	got, err := k.fetch(ctx)
	if err == nil {
		k.now = got
	}
	return err
}

func (k *credentialsToken) fetch(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	secret, err := k.secret(ctx)
	if err != nil {
		return "", err
	}
	form := url.Values{"grant_type": {"client_credentials"}, "resource": {k.server + "/mcp"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, k.server+"/oauth/token", strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(k.client), url.QueryEscape(strings.TrimSpace(string(secret))))
	resp, err := k.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return "", err
	}
	var got struct {
		Access string `json:"access_token"`
	}
	if json.Unmarshal(body, &got) != nil || resp.StatusCode != http.StatusOK || got.Access == "" {
		return "", fmt.Errorf("the server gives no token: status %d", resp.StatusCode)
	}
	return got.Access, nil
}

package cli

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
)

func (c *command) proxyCommand() *cobra.Command {
	return c.group("proxy", "The forward proxy", &cobra.Command{
		Use: "ca", Short: "Print the certificates that clients of the proxy must trust", Args: takes(0, "no arguments"),
		Long:    "Print, as PEM, the certificate authority of the environment's forward proxy. `ambit run` hands it to its program by itself.",
		Example: "  ambit proxy ca > ambit-proxy.pem",
		RunE: c.with(func(ctx context.Context, cl *client.Client, _ []string) error {
			who, err := cl.Whoami(ctx)
			if err != nil {
				return err
			}
			env := who.EnvironmentID
			if strings.HasPrefix(c.environment, "env_") {
				env = c.environment
			}
			pem, err := fetch(ctx, cl.URL()+"/proxy/ca.pem?environment="+url.QueryEscape(env))
			if err != nil {
				return err
			}
			return c.show(map[string]string{"ca_pem": pem}, func() { fmt.Fprint(c.stdout, pem) })
		}),
	})
}

package awskms

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"

	"github.com/ambit-dev/ambit/internal/keyring"
)

// session is the name under which an assumed role is seen.
const session = "ambit"

// settings makes what all clients of AWS share. The SDK's own loader is not used:
// it reads the process's environment and shared files, and with AWS_CA_BUNDLE it
// insists on an HTTP client of its own.
func settings(p place, o keyring.Options) (aws.Config, error) {
	cfg := aws.Config{
		Region: p.region, HTTPClient: o.HTTP, Logger: logging.Nop{},
		Retryer: func() aws.Retryer {
			return retry.NewStandard(func(so *retry.StandardOptions) { so.MaxAttempts, so.MaxBackoff = attempts, maxBackoff })
		},
	}
	endpoint, err := o.Endpoint("AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL")
	if err != nil {
		return cfg, err
	}
	stsClient := func() *sts.Client {
		return sts.NewFromConfig(cfg, func(so *sts.Options) {
			if endpoint != "" {
				so.BaseEndpoint = aws.String(endpoint)
			}
		})
	}
	own, err := provider(cfg, o, stsClient)
	if err != nil {
		return cfg, err
	}
	cfg.Credentials = aws.NewCredentialsCache(own)
	if p.role != "" {
		cfg.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(stsClient(), p.role, func(ro *stscreds.AssumeRoleOptions) {
			ro.RoleSessionName = session
			if p.external != "" {
				ro.ExternalID = aws.String(p.external)
			}
		}))
	}
	return cfg, nil
}

// provider finds the server's own credentials, in the order of the SDK: keys in
// the environment, a web identity (EKS, or any OIDC issuer), the agent of a
// container (ECS, EKS Pod Identity), the instance.
func provider(cfg aws.Config, o keyring.Options, stsClient func() *sts.Client) (aws.CredentialsProvider, error) {
	if id, key := o.Getenv("AWS_ACCESS_KEY_ID"), o.Getenv("AWS_SECRET_ACCESS_KEY"); id != "" && key != "" {
		return credentials.NewStaticCredentialsProvider(id, key, o.Getenv("AWS_SESSION_TOKEN")), nil
	}
	if file, role := o.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE"), o.Getenv("AWS_ROLE_ARN"); file != "" && role != "" {
		return stscreds.NewWebIdentityRoleProvider(stsClient(), role, stscreds.IdentityTokenFile(file), func(wo *stscreds.WebIdentityRoleOptions) {
			wo.RoleSessionName = session
		}), nil
	}
	agent, err := containerAgent(o)
	if err != nil {
		return nil, err
	}
	if agent != "" {
		return endpointcreds.New(agent, func(eo *endpointcreds.Options) {
			eo.HTTPClient, eo.Retryer = o.HTTP, cfg.Retryer()
			eo.AuthorizationTokenProvider = endpointcreds.TokenProviderFunc(func() (string, error) { return containerToken(o) })
		}), nil
	}
	client := imds.New(imds.Options{HTTPClient: o.HTTP, Logger: logging.Nop{}, Retryer: cfg.Retryer(), EnableFallback: aws.FalseTernary})
	return ec2rolecreds.New(func(eo *ec2rolecreds.Options) { eo.Client = client }), nil
}

// containerAgent is where the agent of a container hands credentials out; empty
// when there is none. Whether it may be asked is outbound's to say.
func containerAgent(o keyring.Options) (string, error) {
	if path := o.Getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"); path != "" {
		return "http://169.254.170.2/" + strings.TrimPrefix(path, "/"), nil
	}
	full := o.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
	if full == "" {
		return "", nil
	}
	if u, err := url.Parse(full); err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("AWS_CONTAINER_CREDENTIALS_FULL_URI is not the address of an agent")
	}
	return full, nil
}

func containerToken(o keyring.Options) (string, error) {
	file := o.Getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
	if file == "" {
		return o.Getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN"), nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", errors.New("the token of the container's agent cannot be read")
	}
	return strings.TrimSpace(string(text)), nil
}

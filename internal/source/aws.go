package source

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/smithy-go"
)

// awsReader asks AWS Secrets Manager with the operator's credentials, as the SDK finds them.
type awsReader struct {
	name   string
	client *secretsmanager.Client
}

func openAWS(ctx context.Context, c Config, client Doer) (reader, error) {
	conf, err := config.LoadDefaultConfig(ctx, config.WithRegion(c.Region), config.WithHTTPClient(client), config.WithRetryMaxAttempts(2))
	if err != nil {
		return nil, invalid("the settings for AWS cannot be used; AWS_CA_BUNDLE must not be set").WithCause(fmt.Errorf("loading the settings (%T)", err))
	}
	return &awsReader{c.Name, secretsmanager.NewFromConfig(conf)}, nil
}

func (a *awsReader) read(ctx context.Context, path string) (map[string]string, error) {
	got, err := a.client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &path})
	if err == nil {
		if got.SecretString == nil {
			return nil, missing() // bytes are no key of an API
		}
		return map[string]string{"": *got.SecretString}, nil
	}
	if _, gone := errors.AsType[*types.ResourceNotFoundException](err); gone {
		return nil, missing()
	}
	e, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return nil, unavailable(fmt.Errorf("asking %s (%T)", a.name, err))
	}
	switch e.ErrorCode() {
	case "AccessDeniedException", "UnrecognizedClientException", "InvalidClientTokenId", "ExpiredTokenException", "InvalidSignatureException", "DecryptionFailure":
		return nil, denied(fmt.Errorf("%s answered %s", a.name, e.ErrorCode()))
	}
	return nil, unavailable(fmt.Errorf("%s answered %s", a.name, e.ErrorCode()))
}

// Package awssm reads AWS Secrets Manager, through Amazon's own SDK, with the
// credentials that the SDK finds (environment, profile, SSO, instance).
package awssm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/smithy-go"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/intake"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Config says what is read.
type Config struct {
	Region string         // empty: as the SDK finds it
	Prefix string         // only names that begin so; empty: all
	HTTP   aws.HTTPClient // nil: the SDK's own
}

// Source is the secrets of one account in one region. It is safe for concurrent use.
type Source struct {
	cfg    Config
	client *secretsmanager.Client
	name   string
}

// Open finds credentials and region. It asks for no secret yet.
func Open(ctx context.Context, cfg Config) (*Source, error) {
	var options []func(*config.LoadOptions) error
	if cfg.Region != "" {
		options = append(options, config.WithRegion(cfg.Region))
	}
	if cfg.HTTP != nil {
		options = append(options, config.WithHTTPClient(cfg.HTTP))
	}
	conf, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fault.New(fault.Invalid, "source_unset", "The settings for AWS cannot be used.").WithHint("Look at AWS_PROFILE, AWS_REGION and ~/.aws/config.").WithCause(fmt.Errorf("loading the settings (%T)", err))
	}
	if conf.Region == "" {
		return nil, fault.New(fault.Invalid, "source_unset", "No region is set.").WithHint("Name one with --region or AWS_REGION.")
	}
	if _, err := conf.Credentials.Retrieve(ctx); err != nil && ctx.Err() == nil {
		return nil, fault.New(fault.Invalid, "source_unset", "No credentials for AWS were found.").
			WithHint("Sign in (aws sso login), name a profile (AWS_PROFILE), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. aws sts get-caller-identity says whether they are there.").
			WithCause(fmt.Errorf("finding credentials (%T)", err))
	}
	return &Source{cfg: cfg, client: secretsmanager.NewFromConfig(conf), name: "aws secretsmanager " + conf.Region}, nil
}

// Name says which region it is. The account is part of what each secret says of
// itself: its path is its name, and two accounts are two runs with two mappings.
func (s *Source) Name() string { return s.name }

// Paths lists the names of all secrets that are not on their way to deletion.
func (s *Source) Paths(ctx context.Context, fn func(path string) error) error {
	in := &secretsmanager.ListSecretsInput{MaxResults: aws.Int32(100)}
	if s.cfg.Prefix != "" {
		in.Filters = []types.Filter{{Key: types.FilterNameStringTypeName, Values: []string{s.cfg.Prefix}}}
	}
	for pages := secretsmanager.NewListSecretsPaginator(s.client, in); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return said("list secrets", err)
		}
		for _, e := range page.SecretList {
			name := aws.ToString(e.Name)
			if e.DeletedDate != nil || !strings.HasPrefix(name, s.cfg.Prefix) {
				continue
			}
			if err := fn(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// Read gives a secret with all versions that AWS still has, the one that is current
// there last. What only waits to become current is left out.
func (s *Source) Read(ctx context.Context, path string) (intake.Item, error) {
	about, err := s.client.DescribeSecret(ctx, &secretsmanager.DescribeSecretInput{SecretId: &path})
	if err != nil {
		return intake.Item{}, said("describe "+path, err)
	}
	out := intake.Item{Description: aws.ToString(about.Description), Metadata: map[string]string{"aws_arn": aws.ToString(about.ARN)}}
	for _, tag := range about.Tags {
		if name, value := aws.ToString(tag.Key), aws.ToString(tag.Value); len(out.Metadata) < maxTags && name != "" && len(name) <= 64 && len(value) <= 500 {
			out.Metadata[name] = value
		}
	}
	versions, err := s.versions(ctx, path)
	if err != nil {
		return intake.Item{}, err
	}
	for _, v := range versions {
		got, err := s.client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &path, VersionId: v.VersionId})
		if e, ok := errors.AsType[*types.ResourceNotFoundException](err); ok && e != nil {
			out.Gone++
			continue
		}
		if err != nil {
			return intake.Item{}, said("read "+path, err)
		}
		version := intake.Version{ID: aws.ToString(v.VersionId), Binary: got.SecretString == nil}
		if version.Value = secret.New(got.SecretBinary); !version.Binary {
			version.Value = secret.FromString(*got.SecretString)
		}
		out.Versions = append(out.Versions, version)
	}
	return out, nil
}

// maxTags leaves room for what an import notes itself.
const maxTags = 28

func (s *Source) versions(ctx context.Context, path string) ([]types.SecretVersionsListEntry, error) {
	var all []types.SecretVersionsListEntry
	in := &secretsmanager.ListSecretVersionIdsInput{SecretId: &path, IncludeDeprecated: aws.Bool(true), MaxResults: aws.Int32(100)}
	for pages := secretsmanager.NewListSecretVersionIdsPaginator(s.client, in); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, said("list the versions of "+path, err)
		}
		for _, v := range page.Versions {
			if !slices.Contains(v.VersionStages, "AWSPENDING") || current(v) {
				all = append(all, v)
			}
		}
	}
	slices.SortFunc(all, func(a, b types.SecretVersionsListEntry) int {
		if x, y := current(a), current(b); x != y {
			if x {
				return 1
			}
			return -1
		}
		return cmp.Or(when(a).Compare(when(b)), cmp.Compare(aws.ToString(a.VersionId), aws.ToString(b.VersionId)))
	})
	return all, nil
}

func current(v types.SecretVersionsListEntry) bool {
	return slices.Contains(v.VersionStages, "AWSCURRENT")
}

func when(v types.SecretVersionsListEntry) time.Time { return aws.ToTime(v.CreatedDate) }

// said turns the SDK's error into ours. Nothing of the service's text is kept: it may
// quote what was signed.
func said(doing string, err error) error {
	f := fault.New(fault.Unavailable, "source_failed", "AWS did not "+doing+".").WithHint("Try again; what was imported stays.")
	e, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return f.WithHint("It does not answer: look at the network and at the region. What was imported stays.").WithCause(fmt.Errorf("asking AWS (%T)", err))
	}
	switch code := e.ErrorCode(); code {
	case "AccessDeniedException", "UnrecognizedClientException", "InvalidClientTokenId", "ExpiredTokenException", "InvalidSignatureException":
		f = fault.New(fault.Denied, "source_denied", "AWS does not let these credentials "+doing+".").
			WithHint("They need secretsmanager:ListSecrets, DescribeSecret, ListSecretVersionIds and GetSecretValue, and kms:Decrypt with the secrets' key.")
	case "DecryptionFailure":
		f = fault.New(fault.Denied, "source_denied", "AWS cannot decrypt what it should "+doing+".").WithHint("Is the KMS key of this secret enabled, and may these credentials use it?")
	}
	return f.WithCause(fmt.Errorf("AWS answered %s", e.ErrorCode()))
}

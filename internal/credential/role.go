package credential

import (
	"context"
	"encoding/xml"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
)

const roleLife = time.Hour // what every role takes

func (role) renew(ctx context.Context, s *Service, o order) (grant, error) {
	life := roleLife
	if o.record.Mint.Lifetime > 0 {
		life = time.Duration(o.record.Mint.Lifetime) * time.Second
	}
	form := url.Values{"Action": {"AssumeRole"}, "Version": {"2011-06-15"}, "RoleArn": {string(o.have.values[provider.FieldRoleARN].Reveal())},
		"RoleSessionName": {"ambit"}, "ExternalId": {string(o.organization)}, "DurationSeconds": {strconv.Itoa(int(life / time.Second))}}
	header := http.Header{}
	body := encoded(header, form, false)
	req, err := request(http.MethodPost, o.pinned.Token, header, body)
	if err != nil {
		return grant{}, err
	}
	ours := map[string]secret.Value{provider.FieldAccessKeyID: secret.FromString(o.client.ID), provider.FieldSecretAccessKey: o.client.Secret}
	if err := provider.SignForAWS(req, ours, "sts", o.record.Injection.Region, s.now()); err != nil {
		return grant{}, err
	}
	resp, err := s.outbound.Do(ctx, outbound.Bound{Bases: []string{o.pinned.Token}}, req, tokenLimits)
	if err != nil {
		return grant{}, unanswered(err)
	}
	return roleGrant(resp, s.now())
}

// roleGrant reads what AWS STS answers.
func roleGrant(resp *outbound.Response, now time.Time) (grant, error) {
	var said struct {
		XMLName xml.Name
		Keys    struct {
			ID         string `xml:"AccessKeyId"`
			Secret     string `xml:"SecretAccessKey"`
			Token      string `xml:"SessionToken"`
			Expiration string `xml:"Expiration"`
		} `xml:"AssumeRoleResult>Credentials"`
		Code string `xml:"Error>Code"`
	}
	readable := xml.Unmarshal(resp.Body, &said) == nil
	failed := &tokenError{code: "unreadable", status: resp.Status, retry: retryAfter(resp.Header)}
	k := said.Keys
	switch code := said.Code; {
	case resp.Status >= 500 || resp.Status == http.StatusTooManyRequests:
		failed.code = "unavailable"
	case !readable:
	case code == "Throttling" || code == "ThrottlingException" || code == "RequestLimitExceeded":
		failed.code = "unavailable"
	case code == "AccessDenied" || code == "RegionDisabledException":
		failed.code = codeRejected // the role does not trust us for this organization
	case code == "InvalidClientTokenId" || code == "SignatureDoesNotMatch" || code == "ExpiredToken" || code == "ExpiredTokenException":
		failed.code = "invalid_client" // our own keys
	case code != "":
		failed.code = "invalid_request"
	case resp.Status == http.StatusOK && k.ID != "" && k.Secret != "" && k.Token != "":
		return grant{lifetime: until(k.Expiration, now), parts: map[string]secret.Value{provider.FieldAccessKeyID: secret.FromString(k.ID),
			provider.FieldSecretAccessKey: secret.FromString(k.Secret), provider.FieldSessionToken: secret.FromString(k.Token)}}, nil
	}
	return grant{}, failed
}

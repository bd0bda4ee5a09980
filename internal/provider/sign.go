package provider

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
)

// SignAWS is AWS Signature Version 4.
const SignAWS = "aws_sigv4"

// awsScope is the service and region that a host of AWS serves, as its name says.
func awsScope(host string) (service, region string, ok bool) {
	name, _, _ := strings.Cut(strings.ToLower(host), ":")
	stem, ok := strings.CutSuffix(strings.TrimSuffix(name, ".cn"), ".amazonaws.com")
	if !ok || stem == "" {
		return "", "", false
	}
	labels := strings.Split(stem, ".")
	last := labels[len(labels)-1]
	if strings.Count(last, "-") < 2 || len(labels) < 2 { // sts.amazonaws.com, BUCKET.s3.amazonaws.com
		return last, "us-east-1", true
	}
	return labels[len(labels)-2], last, true
}

// SignForAWS signs req with the keys in parts: whatever is in it by now, and its
// whole body. It is the last thing that happens to a request. Service and region
// may be empty where the host says them.
func SignForAWS(req *http.Request, parts map[string]secret.Value, service, region string, now time.Time) error {
	if s, r, ok := awsScope(req.URL.Host); ok {
		service, region = cmp.Or(service, s), cmp.Or(region, r)
	}
	hash := sha256.New()
	if req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return err
		}
		if _, err := io.Copy(hash, body); err != nil {
			return err
		}
	}
	for have := range req.Header { // an argument's own would count beside ours
		if strings.HasPrefix(strings.ToLower(have), "x-amz-") && !strings.EqualFold(have, "X-Amz-Target") {
			delete(req.Header, have)
		}
	}
	return signWith(req, parts, scope{service, region}, hex.EncodeToString(hash.Sum(nil)), now)
}

// scope is what a signature is for.
type scope struct{ service, region string }

// signWith signs req, whose payload has the hash sum.
func signWith(req *http.Request, parts map[string]secret.Value, at scope, sum string, now time.Time) error {
	if parts[FieldAccessKeyID].IsZero() || parts[FieldSecretAccessKey].IsZero() || at.service == "" || at.region == "" {
		return fault.New(fault.Conflict, "credential_incomplete", "The connection's credential cannot sign.").WithHint("Reconnect.")
	}
	if at.service == "s3" {
		req.Header.Set("X-Amz-Content-Sha256", sum)
	}
	keys := aws.Credentials{AccessKeyID: string(parts[FieldAccessKeyID].Reveal()), SecretAccessKey: string(parts[FieldSecretAccessKey].Reveal()),
		SessionToken: string(parts[FieldSessionToken].Reveal())}
	// The signer writes into the query of the URL that it is given.
	u := *req.URL
	signed := &http.Request{Method: req.Method, URL: &u, Host: u.Host, Header: req.Header, ContentLength: req.ContentLength}
	err := v4.NewSigner().SignHTTP(context.Background(), keys, signed, sum, at.service, at.region, now.UTC(), func(o *v4.SignerOptions) {
		o.DisableURIPathEscaping = at.service == "s3"
		o.DisableHeaderHoisting = true
	})
	if err != nil {
		return fault.New(fault.Internal, "request_invalid", "The request could not be signed.")
	}
	req.Header = signed.Header
	req.URL.RawQuery = signed.URL.RawQuery // in the order in which it was signed
	return nil
}

// certificate makes what is presented in the TLS handshake of a call; nil: nothing.
func (r Record) certificate(c Credential) (*tls.Certificate, error) {
	if !r.Injection.Certificate {
		return nil, nil
	}
	pair, err := tls.X509KeyPair(c.Values[FieldCertificate].Reveal(), c.Values[FieldPrivateKey].Reveal())
	if err != nil {
		return nil, fault.New(fault.Conflict, "credential_unusable", "The certificate and its private key are not a pair of PEM texts.").
			WithHint("Give the certificate of that key, both as PEM and the key without a passphrase.")
	}
	return &pair, nil
}

// lintSign checks that every base says what a signature is for.
func (r *Record) lintSign(l *linter) {
	in := r.Injection
	if in.Sign == "" {
		for _, f := range []template{{"inject.service", in.Service}, {"inject.region", in.Region}} {
			if f.text != "" {
				l.add(f.field, "Remove it.", "Nothing is signed.")
			}
		}
		return
	}
	l.oneOf("inject.sign", in.Sign, SignAWS, SignOAuth1)
	if in.Sign == SignOAuth1 {
		if in.Service+in.Region != "" {
			l.add("inject.service", "Remove it.", "Only AWS has services and regions.")
		}
		if r.Auth != APIKey && r.knownAuth() {
			l.add("inject.sign", "Set auth: api_key, or oauth2 with request_url.", "What a person gave is signed with, or what came of signing in.")
		}
		return
	}
	for _, f := range []template{{"inject.service", in.Service}, {"inject.region", in.Region}} {
		if f.text != "" && (strings.ContainsFunc(f.text, func(c rune) bool { return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' }) || len(f.text) > 60) {
			l.add(f.field, "Write it as AWS does, such as s3 or eu-central-1.", "%s is none.", quoted(f.text))
		}
	}
	if in.Service != "" && in.Region != "" {
		return
	}
	for _, b := range r.API.Base {
		if u, err := url.Parse(b); err == nil {
			if _, _, ok := awsScope(u.Host); !ok {
				l.add("inject.service", "Write service and region.", "The host %s does not say what a signature is for.", u.Host)
			}
		}
	}
}

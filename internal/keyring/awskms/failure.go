package awskms

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
)

// classes says what KMS and STS mean by their codes. What is not here is
// Unavailable: an expired session, a clock that is wrong, a failure of theirs.
var classes = map[string]string{
	"DisabledException":           keyring.CodeDenied,
	"KMSInvalidStateException":    keyring.CodeDenied, // pending deletion or import, among others
	"NotFoundException":           keyring.CodeDenied,
	"InvalidKeyUsageException":    keyring.CodeDenied,
	"InvalidGrantTokenException":  keyring.CodeDenied,
	"AccessDeniedException":       keyring.CodeDenied,
	"AccessDenied":                keyring.CodeDenied, // of STS
	"UnrecognizedClientException": keyring.CodeDenied, // the access key was deleted
	"InvalidClientTokenId":        keyring.CodeDenied,

	"ThrottlingException":       keyring.CodeThrottled,
	"Throttling":                keyring.CodeThrottled,
	"TooManyRequestsException":  keyring.CodeThrottled,
	"RequestLimitExceeded":      keyring.CodeThrottled,
	"LimitExceededException":    keyring.CodeThrottled,
	"RequestThrottledException": keyring.CodeThrottled,
}

// classify turns the SDK's error into one of ours. Nothing of the service's own
// text is kept: a signature that does not match is explained there with the
// session token that was signed.
func classify(ctx context.Context, operation string, err error) error {
	if ctx.Err() != nil {
		return keyring.Failure(keyring.CodeUnavailable, ctx.Err())
	}
	said := &keyring.Refusal{Operation: operation}
	code := keyring.CodeUnavailable
	var retryAfter time.Duration
	if answer, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		said.Status, said.Request = answer.HTTPStatusCode(), answer.RequestID
		if answer.Response != nil && answer.Response.Response != nil {
			seconds, _ := strconv.Atoi(answer.Response.Header.Get("Retry-After"))
			retryAfter = time.Duration(max(0, seconds)) * time.Second
		}
		if said.Status == http.StatusTooManyRequests {
			code = keyring.CodeThrottled
		}
	}
	api, ok := errors.AsType[smithy.APIError](err)
	switch {
	case ok && (api.ErrorCode() == "InvalidCiphertextException" || api.ErrorCode() == "IncorrectKeyException"):
		return fmt.Errorf("AWS KMS: %s: %w", api.ErrorCode(), crypt.ErrIntegrity)
	case ok:
		said.Code = api.ErrorCode()
		if c := classes[said.Code]; c != "" {
			code = c
		}
	case said.Status == 0:
		return keyring.Failure(keyring.CodeUnavailable, unasked(err))
	}
	f := keyring.Failure(code, said)
	if retryAfter > 0 {
		f = f.WithRetry(retryAfter)
	}
	return f
}

// unasked is why no answer came: outbound's own reason, or that there was nobody
// to ask as.
func unasked(err error) error {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f
	}
	return fmt.Errorf("AWS was not asked: no credentials were found, or they could not be renewed (%T)", err)
}

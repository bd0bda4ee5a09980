package azurekv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
)

// status is that of an answer; 0: there was none.
func status(err error) int {
	if api, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return api.StatusCode
	}
	return 0
}

// classify turns the SDK's error into one of ours, and keeps nothing of the
// service's own text.
func classify(ctx context.Context, operation string, err error) error {
	if ctx.Err() != nil {
		return keyring.Failure(keyring.CodeUnavailable, ctx.Err())
	}
	if token, ok := errors.AsType[*azidentity.AuthenticationFailedError](err); ok {
		return unauthorized(token, err)
	}
	api, ok := errors.AsType[*azcore.ResponseError](err)
	if !ok {
		return unasked(err)
	}
	code := keyring.CodeUnavailable
	switch api.StatusCode {
	case http.StatusBadRequest:
		if operation == "unwrapkey" {
			return fmt.Errorf("azure: %w", crypt.ErrIntegrity)
		}
	case http.StatusForbidden, http.StatusNotFound: // disabled, expired, no right, the vault's firewall; deleted
		code = keyring.CodeDenied
	case http.StatusTooManyRequests:
		code = keyring.CodeThrottled
	}
	said := &keyring.Refusal{Operation: operation, Status: api.StatusCode, Code: api.ErrorCode}
	f := keyring.Failure(code, said)
	if api.RawResponse != nil {
		said.Request = api.RawResponse.Header.Get("x-ms-request-id")
		if seconds, err := strconv.Atoi(api.RawResponse.Header.Get("Retry-After")); err == nil && seconds > 0 {
			f = f.WithRetry(time.Duration(seconds) * time.Second)
		}
	}
	return f
}

// unauthorized is a token that was not given: our identity was deleted, its secret
// ended, or it is not known in that tenant; or a service that is out of order.
func unauthorized(token *azidentity.AuthenticationFailedError, err error) error {
	if token.RawResponse == nil {
		return unasked(err)
	}
	said := &keyring.Refusal{Operation: "asking for a token", Status: token.RawResponse.StatusCode}
	var body struct {
		Error string `json:"error"`
	}
	if text, err := runtime.Payload(token.RawResponse); err == nil {
		_ = json.Unmarshal(text, &body) // what is no JSON has no code
	}
	said.Code = body.Error
	switch body.Error {
	case "invalid_client", "unauthorized_client", "invalid_grant", "access_denied":
		return keyring.Failure(keyring.CodeDenied, said)
	}
	return keyring.Failure(keyring.CodeUnavailable, said)
}

// unasked is why no answer came: outbound's own reason, or none that can be told.
func unasked(err error) error {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return keyring.Failure(keyring.CodeUnavailable, f)
	}
	return keyring.Failure(keyring.CodeUnavailable, fmt.Errorf("the SDK of Azure failed before an answer was understood (%T)", err))
}

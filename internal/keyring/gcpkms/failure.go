package gcpkms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/auth"
	"google.golang.org/api/googleapi"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
)

// classes says what KMS means by its statuses (google.rpc.Code). What is not here
// is Unavailable: a token that is not taken, a deadline, a failure of theirs.
var classes = map[string]string{
	"PERMISSION_DENIED":   keyring.CodeDenied,
	"NOT_FOUND":           keyring.CodeDenied,
	"FAILED_PRECONDITION": keyring.CodeDenied, // the version is disabled, scheduled for destruction or destroyed
	"RESOURCE_EXHAUSTED":  keyring.CodeThrottled,
}

// classify turns the SDK's error into one of ours, and keeps nothing of the
// service's own text.
func classify(ctx context.Context, operation string, err error) error {
	if ctx.Err() != nil {
		return keyring.Failure(keyring.CodeUnavailable, ctx.Err())
	}
	if api, ok := errors.AsType[*googleapi.Error](err); ok {
		return answered(operation, api)
	}
	if token, ok := errors.AsType[*auth.Error](err); ok {
		return unauthorized(token)
	}
	if f, ok := errors.AsType[*fault.Error](err); ok { // outbound's own reason
		return keyring.Failure(keyring.CodeUnavailable, f)
	}
	for status, code := range map[int]string{http.StatusForbidden: keyring.CodeDenied, http.StatusNotFound: keyring.CodeDenied, http.StatusTooManyRequests: keyring.CodeThrottled} {
		// The SDK says this in no other way than as text.
		if strings.Contains(err.Error(), fmt.Sprintf("impersonate: status code %d:", status)) {
			return keyring.Failure(code, &keyring.Refusal{Operation: "acting as another account", Status: status})
		}
	}
	return keyring.Failure(keyring.CodeUnavailable, fmt.Errorf("the SDK of Google Cloud failed before an answer was understood (%T)", err))
}

func answered(operation string, api *googleapi.Error) error {
	var body struct {
		Error struct {
			Status  string `json:"status"`
			Message string `json:"message"`
		} `json:"error"`
	}
	_ = json.Unmarshal([]byte(api.Body), &body) // what is no JSON has no status
	status := body.Error.Status
	if status == "INVALID_ARGUMENT" && operation == "decrypt" && !strings.Contains(strings.ToLower(body.Error.Message), "checksum") {
		return fmt.Errorf("cloud KMS: %s: %w", status, crypt.ErrIntegrity)
	}
	code := classes[status]
	switch {
	case code != "":
	case api.Code == http.StatusTooManyRequests:
		code = keyring.CodeThrottled
	default:
		code = keyring.CodeUnavailable
	}
	f := keyring.Failure(code, &keyring.Refusal{Operation: operation, Status: api.Code, Code: status})
	if seconds, err := strconv.Atoi(api.Header.Get("Retry-After")); err == nil && seconds > 0 {
		f = f.WithRetry(time.Duration(seconds) * time.Second)
	}
	return f
}

// unauthorized is a token that was not given: our account was deleted or disabled,
// or may not act as the other one; or a service that is out of order.
func unauthorized(err *auth.Error) error {
	said := &keyring.Refusal{Operation: "asking for a token"}
	if err.Response != nil {
		said.Status = err.Response.StatusCode
	}
	var body struct {
		Error json.RawMessage `json:"error"`
	}
	_ = json.Unmarshal(err.Body, &body)
	grant := string(body.Error) == `"invalid_grant"` || string(body.Error) == `"unauthorized_client"`
	if grant || said.Status == http.StatusForbidden || said.Status == http.StatusNotFound {
		return keyring.Failure(keyring.CodeDenied, said)
	}
	return keyring.Failure(keyring.CodeUnavailable, said)
}

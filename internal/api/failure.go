package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"math"
	"net/http"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ambit-dev/ambit/internal/fault"
)

// statusOf is the one place where kinds of fault become HTTP.
func statusOf(f *fault.Error) int {
	switch f.Kind {
	case fault.Invalid:
		if f.Code == "unsupported_media_type" {
			return http.StatusUnsupportedMediaType
		}
		return http.StatusBadRequest
	case fault.Unauthenticated:
		return http.StatusUnauthorized
	case fault.Denied:
		return http.StatusForbidden
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Conflict:
		return http.StatusConflict
	case fault.Expired:
		return http.StatusGone
	case fault.Limited:
		return http.StatusTooManyRequests
	case fault.TooLarge:
		return http.StatusRequestEntityTooLarge
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// errorBody is how every refusal looks. Further facts, such as url, stand
// beside the four names that are always known.
type errorBody map[string]map[string]string

func bodyOf(f *fault.Error, requestID string) errorBody {
	e := map[string]string{}
	for k, v := range f.Fields {
		e[k] = v
	}
	e["code"], e["message"], e["request_id"] = f.Code, f.Message, requestID
	delete(e, "hint")
	if f.Hint != "" {
		e["hint"] = f.Hint
	}
	return errorBody{"error": e}
}

// Error describes errorBody in the document.
type Error struct {
	Error Problem `json:"error"`
}

// Problem is what was wrong.
type Problem struct {
	_         struct{} `additionalProperties:"true"`
	Code      string   `json:"code" doc:"Stable name of what went wrong."`
	Message   string   `json:"message" doc:"For people. It holds no secret."`
	Hint      string   `json:"hint,omitempty" doc:"What to do next."`
	RequestID string   `json:"request_id" doc:"Names this request in the server's log."`
	URL       string   `json:"url,omitempty" doc:"A page to open, with code browser_required."`
}

func headersOf(f *fault.Error) http.Header {
	h := http.Header{}
	if f.RetryAfter > 0 || f.Kind == fault.Limited || f.Kind == fault.Unavailable {
		wait := max(f.RetryAfter, time.Second)
		h.Set("Retry-After", strconv.FormatInt(int64(math.Ceil(min(wait, 24*time.Hour).Seconds())), 10))
	}
	if f.Kind == fault.Unauthenticated {
		h.Set("WWW-Authenticate", `Bearer realm="ambit"`)
	}
	return h
}

// failure is a fault in the form in which huma passes an error on.
type failure struct {
	fault     *fault.Error
	requestID string
}

func (f *failure) Error() string           { return f.fault.Message }
func (f *failure) GetStatus() int          { return statusOf(f.fault) }
func (f *failure) GetHeaders() http.Header { return headersOf(f.fault) }

// failed turns what a room returned into what the caller gets. Causes stay in
// the log.
func (a *API) failed(ctx context.Context, c *call, err error) error {
	f := fault.Of(a.confirmation(err))
	rid := c.w.Header().Get("X-Request-ID")
	switch {
	case ctx.Err() != nil || errors.Is(err, context.Canceled): // nobody reads the answer
	case f.Kind == fault.Internal:
		a.log.ErrorContext(ctx, "a request failed", "request_id", rid, "route", c.Operation().OperationID, "error", f.Error())
	case f.Kind == fault.Unavailable:
		a.log.WarnContext(ctx, "a request could not be served", "request_id", rid, "route", c.Operation().OperationID, "error", f.Error())
	}
	return &failure{fault: f, requestID: rid}
}

// refuse answers at the door.
func (a *API) refuse(w http.ResponseWriter, r *http.Request, err error) {
	f := fault.Of(err)
	if f.Kind == fault.Internal && r.Context().Err() == nil {
		a.log.ErrorContext(r.Context(), "a request failed at the door", "request_id", w.Header().Get("X-Request-ID"), "error", f.Error())
	}
	writeFailure(w, statusOf(f), f)
}

// Refuse writes an error that was found before the API saw the request, in the
// form of all its errors.
func Refuse(w http.ResponseWriter, status int, f *fault.Error) { writeFailure(w, status, f) }

func writeFailure(w http.ResponseWriter, status int, f *fault.Error) {
	for k, v := range headersOf(f) {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = encode(w, bodyOf(f, w.Header().Get("X-Request-ID"))) // maps of strings always encode
}

// shape is the last step before an answer is encoded: it gives our errors and
// huma's the one form. What huma refused is named by place and rule; the value,
// which huma would send back, may be a secret.
func shape(ctx huma.Context, _ string, v any) (any, error) {
	c, ok := ctx.(*call)
	if !ok {
		return v, nil
	}
	switch e := v.(type) {
	case *failure:
		ctx.SetHeader("Content-Type", "application/json")
		return bodyOf(e.fault, e.requestID), nil
	case *huma.ErrorModel:
		ctx.SetHeader("Content-Type", "application/json")
		f := fault.New(fault.Invalid, "invalid_request", "The request is not valid.")
		if e.Status >= 500 {
			f = fault.Of(errors.New("huma: " + e.Detail))
		}
		for i, d := range e.Errors {
			if i == 5 {
				break
			}
			f = f.With(where(i), place(d))
		}
		switch {
		case len(e.Errors) > 0:
			f = f.WithHint(place(e.Errors[0]) + ".")
		case e.Status < 500:
			f = f.WithHint("This route needs a JSON body.")
		}
		return bodyOf(f, c.w.Header().Get("X-Request-ID")), nil
	}
	return v, nil
}

func where(i int) string { return "problem_" + strconv.Itoa(i+1) }

// place says what huma found without quoting the request: the names of unknown
// fields are the caller's own words and stay out.
func place(d *huma.ErrorDetail) string {
	message, location := d.Message, d.Location
	if message == "unexpected property" || message == "unknown query parameter" {
		if i := strings.LastIndexByte(location, '.'); i > 0 {
			location = location[:i]
		}
		return location + ": there is a name that this route does not know"
	}
	if location == "body" && d.Value != nil && reflect.TypeOf(d.Value).Kind() == reflect.String {
		return "body: it does not have the expected fields" // a decoder's text may quote the input
	}
	return location + ": " + plainRule(message)
}

// rules are huma's words for a rule, and ours.
var plainRules = []struct {
	huma *regexp.Regexp
	ours string
}{
	{regexp.MustCompile(`^expected length >= 1$`), "at least 1 character"},
	{regexp.MustCompile(`^expected length >= (\d+)$`), "at least $1 characters"},
	{regexp.MustCompile(`^expected length <= (\d+)$`), "at most $1 characters"},
	{regexp.MustCompile(`^expected number >= (\S+)$`), "at least $1"},
	{regexp.MustCompile(`^expected number <= (\S+)$`), "at most $1"},
	{regexp.MustCompile(`^expected array length <= (\d+)$`), "at most $1 of them"},
	{regexp.MustCompile(`^expected value to be one of "(.*)"$`), "one of $1"},
	{regexp.MustCompile(`^expected required property (\S+) to be present$`), "$1 is missing"},
	{regexp.MustCompile(`^(?:invalid date/time for format|expected string to be RFC 3339 date-time).*$`), "a time such as 2026-01-31T15:04:05Z"},
	{regexp.MustCompile(`^invalid integer$`), "a whole number"},
	{regexp.MustCompile(`^required (?:query|header|path) parameter is missing$`), "it is missing"},
}

// power is how huma writes a large number.
var power = regexp.MustCompile(`\b\d+(?:\.\d+)?e\+\d+$`)

func plainRule(message string) string {
	message = power.ReplaceAllStringFunc(message, func(n string) string {
		v, _ := strconv.ParseFloat(n, 64)
		return strconv.FormatFloat(v, 'f', -1, 64)
	})
	for _, r := range plainRules {
		if r.huma.MatchString(message) {
			return r.huma.ReplaceAllString(message, r.ours)
		}
	}
	return message
}

func newRequestID() string {
	var b [9]byte
	_, _ = rand.Read(b[:])
	return "req_" + hex.EncodeToString(b[:])
}

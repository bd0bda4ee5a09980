package keyring

import (
	"log/slog"
	"net/http"
)

// Options is what every back end is opened with. A back end reads no environment
// and makes no HTTP client of its own.
type Options struct {
	// HTTP reaches the keeper, through outbound. A back end that needs no network
	// ignores it; one that does refuses to open without.
	HTTP *http.Client
	// Env looks up one setting of the server's environment; nil knows none.
	Env func(string) string
	// Logger hears what people should know; nil keeps silent.
	Logger *slog.Logger
}

// Getenv is Env, and empty where there is none.
func (o Options) Getenv(name string) string {
	if o.Env == nil {
		return ""
	}
	return o.Env(name)
}

// Log is Logger, and silent where there is none.
func (o Options) Log() *slog.Logger {
	if o.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Logger
}

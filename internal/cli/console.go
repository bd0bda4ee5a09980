package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/fault"
)

// askConsole asks the server of a data folder over its socket, which only the
// folder's owner can open, and gives the whole answer.
func askConsole(ctx context.Context, socket, method, path string, form url.Values) ([]byte, error) {
	hc := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	defer hc.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "http://console"+path, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, fmt.Errorf("asking the server: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := hc.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking the server: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 256<<20))
	if err != nil {
		return nil, fmt.Errorf("asking the server: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var no app.Refusal
		if err := json.Unmarshal(body, &no); err != nil || no.Code == "" { // of the profiler, or of another version
			return nil, fault.New(fault.Invalid, "console_refused", "The server refuses: "+strings.TrimSpace(string(body)))
		}
		return nil, fault.New(no.Kind, no.Code, no.Message).WithHint(no.Hint)
	}
	return body, nil
}

// noServer reports that nobody answers on the socket.
func noServer(err error) bool {
	_, ok := errors.AsType[*net.OpError](err)
	return ok
}

package world

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// wire is the client of everything here: kept connections, no redirects.
var wire = &http.Client{
	Timeout:       2 * time.Minute,
	Transport:     &http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true, IdleConnTimeout: time.Minute},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// expect200 sends, wants 200, and reads the whole answer.
func expect200(req *http.Request) ([]byte, error) {
	resp, err := wire.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(req.Method + " " + req.URL.Path + ": " + resp.Status + " " + string(body))
	}
	return body, err
}

// CloseIdle closes the connections to nodes that no call uses now.
func CloseIdle() { wire.CloseIdleConnections() }

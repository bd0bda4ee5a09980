package app

import (
	"net/http"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/throttle"
)

// What the whole server takes at once (threats.md W5, W8). Requests over it are
// shed before any work; they hold no goroutine and no memory while they wait,
// because they do not wait. A place is taken before it is known who asks and
// before the body is there, so each client address has a share only.
const (
	maxRequests     = 4096 // event streams and long polls among them
	addressShare    = 4    // one address has a fourth of the requests
	maxRevocations  = 64   // on top: what ends access is not shed with the rest
	revocationShare = 16   // one address has a sixteenth of the revocations
	maxStreams      = 250  // requests at once on one HTTP/2 connection

	writeTime  = 30 * time.Second // for the client to take what is written
	writeSpeed = 64 << 10         // and a second more for each so many bytes
)

// load counts the requests under way.
type load struct{ requests, revocations *throttle.Shares }

func newLoad(requests, revocations int) load {
	return load{throttle.NewShares(requests, requests/addressShare), throttle.NewShares(revocations, revocations/revocationShare)}
}

// enter takes a place for r, which comes from the client address.
func (l load) enter(r *http.Request, address string) (leave func(), ok bool) {
	address = throttle.Address(address)
	if leave, ok, _ = l.requests.Enter(address); !ok && urgent(r) {
		leave, ok, _ = l.revocations.Enter(address)
	}
	return leave, ok
}

// urgent reports whether r ends access.
func urgent(r *http.Request) bool {
	return r.Method == http.MethodPost && (r.URL.Path == "/v1/revocations" || strings.HasPrefix(r.URL.Path, "/ui/") && strings.HasSuffix(r.URL.Path, "/revoke"))
}

func shed(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	http.Error(w, "The server has too many requests under way (overloaded). Try again in a moment.", http.StatusServiceUnavailable)
}

// encoded reports whether the body of r comes in a coding, which would hide its
// size. No door takes one.
func encoded(r *http.Request) bool {
	coding := r.Header["Content-Encoding"]
	return len(coding) > 0 && !strings.EqualFold(strings.Join(coding, ","), "identity")
}

// paced gives each write a time of its own, so that a client that does not read
// holds nothing for long, while an answer that is large, or lasts, may take what
// it needs.
type paced struct {
	http.ResponseWriter
	rc   *http.ResponseController
	time time.Duration
}

func pace(w http.ResponseWriter, limit time.Duration) *paced {
	return &paced{w, http.NewResponseController(w), limit}
}

func (p *paced) Write(b []byte) (int, error) {
	_ = p.rc.SetWriteDeadline(time.Now().Add(p.time + time.Duration(len(b)/writeSpeed)*time.Second)) // not every writer has one
	return p.ResponseWriter.Write(b)
}

// FlushError sends what is buffered.
func (p *paced) FlushError() error { return p.rc.Flush() }

// Flush is FlushError for those who do not look.
func (p *paced) Flush() { _ = p.rc.Flush() }

// Unwrap lets a ResponseController through.
func (p *paced) Unwrap() http.ResponseWriter { return p.ResponseWriter }

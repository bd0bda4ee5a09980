package app

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/throttle"
	"github.com/ambit-dev/ambit/internal/web"
)

// What the whole server takes at once (threats.md W5, W8). Requests over it are
// shed before any work; they hold no goroutine and no memory while they wait,
// because they do not wait.
//
// A request begins as a stranger's, of its client address, and is that for as long
// as it takes to find out who asks. While the client is to move, to send more of a
// body or to take an answer, a stranger is in the lobby, where those who come later
// take the places of those who do not move. Whoever is known counts as themselves
// and under their organization, from however many addresses and with however many
// keys they come.
const (
	maxStrangers = 1024 // whose sender is not known yet
	addressShare = 8    // one address has an eighth of those, and of the lobby
	maxLobby     = 512  // of them, those whose client is to move

	maxKnown    = 4096 // event streams and long polls among them
	groupShare  = 4    // one organization has a fourth of them
	callerShare = 8    // one agent, person or application an eighth

	maxRevocations     = 64  // on top, for strangers and for the known: what ends access is not shed with the rest
	addressRevocations = 16  // one address has a sixteenth of the strangers'
	groupRevocations   = 8   // one organization an eighth of the others
	callerRevocations  = 16  // one caller a sixteenth
	maxStreams         = 250 // requests at once on one HTTP/2 connection
)

// load counts the requests under way.
type load struct {
	strangers, urgentStrangers *throttle.Shares // by address
	lobby                      *throttle.Lobby  // by address
	known, urgentKnown         shares
}

func newLoad(strangers, known, revocations int) *load {
	return &load{
		strangers: throttle.NewShares(strangers, strangers/addressShare), lobby: throttle.NewLobby(strangers/2, strangers/2/addressShare),
		urgentStrangers: throttle.NewShares(revocations, revocations/addressRevocations),
		known:           newShares(known, groupShare, callerShare),
		urgentKnown:     newShares(revocations, groupRevocations, callerRevocations),
	}
}

// shares are places of which a group has a part only, and a caller in it another.
type shares struct{ groups, callers *throttle.Shares }

func newShares(all, group, caller int) shares {
	return shares{throttle.NewShares(all, all/group), throttle.NewShares(all, all/caller)}
}

func (s shares) enter(group, caller string) (leave func(), ok, full bool) {
	leaveGroup, ok, full := s.groups.Enter(group)
	if !ok {
		return nil, false, full
	}
	leaveCaller, ok, _ := s.callers.Enter(group + " " + caller)
	if !ok {
		leaveGroup()
		return nil, false, false
	}
	return func() { leaveCaller(); leaveGroup() }, true, false
}

// place is what one request holds of the load.
type place struct {
	load    *load
	address string
	urgent  bool
	cut     atomic.Bool // the place in the lobby went to somebody else

	mu     sync.Mutex
	known  bool
	leave  func()   // gives the place back
	moving []func() // give the places in the lobby back
}

// enter takes a place for r, which comes from the client address.
func (l *load) enter(r *http.Request, address string) (p *place, ok bool) {
	p = &place{load: l, address: throttle.Address(address), urgent: urgent(r)}
	if p.leave, ok, _ = l.strangers.Enter(p.address); !ok && p.urgent {
		p.leave, ok, _ = l.urgentStrangers.Enter(p.address)
	}
	return p, ok
}

// Known moves the request from the strangers to those of its caller.
func (p *place) Known(group, caller string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known {
		return nil
	}
	leave, ok, full := p.load.known.enter(group, caller)
	if !ok && p.urgent {
		leave, ok, full = p.load.urgentKnown.enter(group, caller)
	}
	switch {
	case ok:
	case full:
		return fault.New(fault.Unavailable, "overloaded", overloaded).WithHint(tryAgain).WithRetry(time.Second)
	default:
		return fault.New(fault.Limited, "overloaded", "Too many requests of yours or of your organization are under way.").WithHint(tryAgain).WithRetry(time.Second)
	}
	p.end()
	p.known, p.leave = true, leave
	return nil
}

// waits says that the client is to move next. A stranger's request waits in the
// lobby from here on, until done is called, its sender is known, or it ends. cut
// makes it end when somebody else needs the place.
func (p *place) waits(cut func()) (done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known {
		return func() {}
	}
	done = p.load.lobby.Enter(p.address, func() {
		p.cut.Store(true)
		cut()
	})
	p.moving = append(p.moving, done)
	return done
}

// over gives back whatever the request holds.
func (p *place) over() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end()
}

func (p *place) end() {
	for _, done := range p.moving {
		done()
	}
	p.moving = nil
	p.leave()
}

// urgent reports whether r ends access.
func urgent(r *http.Request) bool {
	return r.Method == http.MethodPost && (r.URL.Path == "/v1/revocations" || strings.HasPrefix(r.URL.Path, "/ui/") && web.Ends(r.URL.Path))
}

const (
	overloaded = "The server has too many requests under way."
	tryAgain   = "Try again in a moment."
)

// encoded reports whether the body of r comes in a coding, which would hide its
// size. No door takes one.
func encoded(r *http.Request) bool {
	coding := r.Header["Content-Encoding"]
	return len(coding) > 0 && !strings.EqualFold(strings.Join(coding, ","), "identity")
}

// counted is what a request is answered on. It says who asks to the one who counts
// requests.
type counted struct {
	*throttle.Paced
	place *place // nil: not counted
	wrote bool
}

var errCut = errors.New("the client took too long for the answer while others waited")

func (c *counted) Write(b []byte) (int, error) {
	if c.place != nil && !c.wrote {
		c.wrote = true
		c.place.waits(func() { _ = c.SetWriteDeadline(time.Unix(1, 0)) })
	}
	if c.place != nil && c.place.cut.Load() {
		return 0, errCut
	}
	return c.Paced.Write(b)
}

// Known is for throttle.Known.
func (c *counted) Known(group, caller string) error {
	if c.place == nil {
		return nil
	}
	return c.place.Known(group, caller)
}

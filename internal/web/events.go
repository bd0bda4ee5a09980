package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/session"
)

const (
	heartbeat    = 15 * time.Second
	streamFor    = 10 * time.Minute // then the browser connects again
	settle       = 150 * time.Millisecond
	perLogin     = 20 // streams
	perPerson    = 60
	perServer    = 3000
	writeTimeout = 10 * time.Second
)

// streams counts the open streams of each login.
type streams struct {
	mu   sync.Mutex
	open map[string]int
}

func (s *streams) enter(login string) (leave func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[login] >= perLogin {
		return nil, false
	}
	s.open[login]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.open[login]--; s.open[login] == 0 {
			delete(s.open, login)
		}
	}, true
}

// news is one message of the live stream.
type news struct {
	Type  string     `json:"type"` // inbox
	Count int        `json:"count"`
	Seen  string     `json:"seen"`
	Items []newsItem `json:"items"`
}

type newsItem struct {
	ID       id.Approval `json:"id"`
	Agent    string      `json:"agent"`
	Verbs    string      `json:"verbs"`
	Target   string      `json:"target"`
	Accounts string      `json:"accounts"`
	For      string      `json:"for"`
	Call     bool        `json:"call"`
	Session  bool        `json:"session"`
	Risk     string      `json:"risk"`
	Asked    string      `json:"asked"`
	Expires  string      `json:"expires"`
}

func newsOf(open []session.Approval) news {
	n := news{Type: "inbox", Count: len(open), Seen: fingerprint(open), Items: []newsItem{}}
	for _, it := range inboxItems(open) {
		i := newsItem{ID: it.ID, Agent: oneLine(it.Ask.Agent.Label), Verbs: it.Ask.Verbs, Target: it.Target, For: forHowMuch(it.Ask), Session: true, Risk: it.Risk,
			Asked: it.Asked.UTC().Format(time.RFC3339), Expires: it.Expires.UTC().Format(time.RFC3339)}
		if !it.Ask.Agent.Verified {
			i.Agent += ","
		}
		if it.Ask.Call != "" {
			i.Verbs, i.Call, i.Session, i.For = oneLine(it.Ask.Call), true, false, ""
		}
		var names []string
		for _, a := range it.Ask.Accounts {
			names = append(names, oneLine(a.Provider)+" · "+oneLine(a.Label))
		}
		if i.Accounts = andList(names); len(names) > 3 {
			i.Accounts = fmt.Sprintf("%d accounts", len(names))
		}
		n.Items = append(n.Items, i)
	}
	return n
}

func forHowMuch(a Ask) string {
	switch {
	case a.Widens:
		return "the rest of a session that runs"
	case a.Calls == 0:
		return span(a.Minutes)
	}
	return span(a.Minutes) + ", at most " + plural(a.Calls, "call")
}

// events is the live stream of one person (text/event-stream). It knows the
// person anew at every message, so it ends with the sign-in.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	v := &visit{w: w, r: r}
	err := s.recognise(v)
	if err == nil && v.person.Vouched() {
		err = fault.New(fault.Unauthenticated, "unauthenticated", "This needs a sign-in of your own.")
	}
	if err != nil {
		http.Error(w, fault.Of(err).Message, status(fault.KindOf(err)))
		return
	}
	leave, ok := s.streams.enter(string(v.person.Login()))
	if !ok {
		w.Header().Set("Retry-After", "30")
		http.Error(w, "Too many live pages are open.", http.StatusTooManyRequests)
		return
	}
	defer leave()
	done, ok, _ := s.live.Enter(string(v.person.User()))
	if !ok {
		w.Header().Set("Retry-After", "30")
		http.Error(w, "Too many live pages are open.", http.StatusTooManyRequests)
		return
	}
	defer done()
	changed, cancel := s.changes(v.person)
	defer cancel()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	s.stream(v, changed)
}

// changes signals that something changed in one of the person's organizations.
func (s *Server) changes(p account.Person) (changed <-chan struct{}, cancel func()) {
	signal := make(chan struct{}, 1)
	mine := organizations(p)
	cancel = s.subscribe(session.Channel, func(payload string) {
		org, _, _ := strings.Cut(payload, " ")
		if org != "" && !mine[id.Organization(org)] {
			return
		}
		select {
		case signal <- struct{}{}:
		default:
		}
	})
	return signal, cancel
}

func organizations(p account.Person) map[id.Organization]bool {
	out := map[id.Organization]bool{}
	for _, m := range p.Organizations() {
		out[m.Organization] = true
	}
	return out
}

func (s *Server) stream(v *visit, changed <-chan struct{}) {
	end, beat := time.NewTimer(streamFor), time.NewTicker(heartbeat)
	defer end.Stop()
	defer beat.Stop()
	out := http.NewResponseController(v.w)
	defer func() { _ = out.SetWriteDeadline(time.Time{}) }() // the connection may serve another request
	last := ""
	for {
		if s.recognise(v) != nil {
			return
		}
		open, err := s.sessions.Inbox(v.ctx(), v.person)
		if err != nil {
			return // the browser connects again
		}
		message := ": still here\n\n"
		if n := newsOf(open); n.Seen != last {
			body, err := json.Marshal(n)
			if err != nil {
				return
			}
			last, message = n.Seen, "data: "+string(body)+"\n\n"
		}
		_ = out.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := fmt.Fprint(v.w, message); err != nil || out.Flush() != nil {
			return
		}
		select {
		case <-v.ctx().Done():
			return
		case <-s.stop:
			return
		case <-end.C:
			return
		case <-beat.C:
		case <-changed:
			time.Sleep(settle) // changes come in bursts
		}
	}
}

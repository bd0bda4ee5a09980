//go:build e2e

package fire

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/e2e/world"
)

// line is the network between the nodes and PostgreSQL.
type line struct {
	t     *testing.T
	proxy *toxiproxy.Proxy
}

// newLine gives a line to the server at address, and where it begins.
func newLine(t *testing.T, address string) *line {
	t.Helper()
	port, err := world.FreePort()
	must(t, err)
	l := &line{t: t, proxy: toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), "postgres", "127.0.0.1:"+port, address)}
	must(t, l.proxy.Start())
	t.Cleanup(l.proxy.Stop)
	return l
}

func (l *line) disturb(toxic string) {
	l.t.Helper()
	_, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(toxic))
	must(l.t, err)
}

func (l *line) mend() { l.proxy.Toxics.ResetToxics(context.Background()) }

// move leads the line to another server.
func (l *line) move(address string) {
	l.t.Helper()
	must(l.t, l.proxy.Update(&toxiproxy.Proxy{Listen: l.proxy.Listen, Upstream: address, Enabled: true}))
	if !l.proxy.Enabled {
		must(l.t, l.proxy.Start())
	}
}

// siege is a world of two nodes under load, whose database is taken away again
// and again. Each round makes things whose making is acknowledged; at the end all
// of them must be there.
type siege struct {
	t *testing.T
	*foreign
	pg   *world.Postgres
	line *line
	stop func() []world.Op

	lastOK  []atomic.Int64                // of each node, Unix ns
	target  atomic.Pointer[world.Session] // revoked in the round
	ending  atomic.Pointer[world.Session] // ends in it, by its time
	mu      sync.Mutex
	codes   map[string]int
	silent  map[string]int // refusals for want of a part that say no time
	history []event
	orgs    []string // acknowledged
	gaps    []time.Duration
}

func newSiege(t *testing.T) *siege {
	t.Helper()
	// A killed server loses nothing that the system has; syncing all of it again
	// at each start would be most of the time.
	pg, err := world.NewPostgres(t.Context(), "fsync=off")
	must(t, err)
	t.Cleanup(func() { must(t, pg.Stop()) })
	s := &siege{t: t, pg: pg, line: newLine(t, pg.Address), lastOK: make([]atomic.Int64, 2), codes: map[string]int{}, silent: map[string]int{}}
	u, err := url.Parse(newDatabase(t, pg.URL()))
	must(t, err)
	u.Host = s.line.proxy.Listen
	s.foreign = newForeignOn(t, u.String(), 2, time.Second, "storm")
	s.w.Third.Refuse = func(*http.Request) int { return 0 }
	base := newSession(t, s.w.Owner, "third")
	fresh := newSession(t, s.w.Owner, "storm") // its token ends every second
	s.history = append(s.history, grants(base, fresh)...)
	s.target.Store(base)
	s.ending.Store(base)
	s.stop = world.Load{Workers: 16, Rate: 60, Timeout: time.Minute, Next: func(i int) world.Shot {
		shot := world.Shot{Node: s.w.Nodes[i%2], Session: base, Tool: []string{"third_list", "third_create"}[i/2%2]}
		switch i / 4 % 3 {
		case 1:
			shot.Session, shot.Tool = fresh, "storm_list"
		case 2:
			shot.Session = []*world.Session{s.target.Load(), s.ending.Load()}[i/12%2]
		}
		return shot
	}, Seen: s.saw}.Background(t.Context())
	return s
}

func (s *siege) saw(op world.Op) {
	for i, n := range s.w.Nodes {
		if op.Node == n && op.Answer.Code == world.OK {
			s.lastOK[i].Store(op.Start.UnixNano())
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes[op.Answer.Code]++
	if slices.Contains([]string{"database_unavailable", "audit_unavailable", "http_503", "upstream_timeout"}, op.Answer.Code) && op.Answer.RetryAfter == 0 {
		s.silent[op.Answer.Code]++
	}
}

// recovered waits until both nodes have made a call that began after back.
func (s *siege) recovered(what string, back time.Time) {
	s.t.Helper()
	for i := range s.lastOK {
		eventually(s.t, fmt.Sprintf("a call on node %d after %s", i, what), func() bool { return s.lastOK[i].Load() > back.UnixNano() })
	}
	s.gaps = append(s.gaps, time.Since(back))
}

// work makes two sessions while all is well, of which one will end by its time
// just before the fault or in it.
func (s *siege) work(round int) {
	s.t.Helper()
	a, err := s.w.Owner.NewAgent(s.t.Context(), fmt.Sprintf("round %d", round))
	must(s.t, err)
	for _, of := range []*atomic.Pointer[world.Session]{&s.target, &s.ending} {
		ses, err := a.Session(s.t.Context(), world.Ask{Providers: []string{"third"}})
		must(s.t, err)
		s.history = append(s.history, grants(ses)...)
		of.Store(ses)
	}
	ended := endAt(s.t, s.w, s.ending.Load(), time.Now().Add(150*time.Millisecond+rand.N(300*time.Millisecond)))
	s.history = append(s.history, ended)
	time.Sleep(150 * time.Millisecond)
}

// revoke ends the session of the round, in the middle of the fault, and tries
// until it is told that it did.
func (s *siege) revoke(n *world.Node) (done chan struct{}) {
	done = make(chan struct{})
	ses := s.target.Load()
	start := time.Now()
	go func() {
		defer close(done)
		for s.t.Context().Err() == nil {
			ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
			_, err := s.w.Revoke(ctx, n, client.Revocation{SessionID: ses.ID})
			cancel()
			if err == nil {
				s.mu.Lock()
				s.history = append(s.history, event{ses.ID, "revoke", "", start, time.Now()})
				s.mu.Unlock()
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}()
	return done
}

// promise makes something during the fault and keeps its name if that was
// acknowledged.
func (s *siege) promise(round int) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Second)
	defer cancel()
	org, err := s.w.API.CreateOrganization(ctx, client.NewOrganization{Name: fmt.Sprintf("round %d", round)})
	if err == nil {
		s.orgs = append(s.orgs, org.ID)
	}
}

// judge ends the siege.
func (s *siege) judge() {
	s.t.Helper()
	ops := s.stop()
	for i, n := range s.w.Nodes {
		if !n.Running() {
			s.t.Errorf("node %d did not live through it", i)
		}
	}
	acked := checkCalls(s.t, s.w, ops)
	for _, org := range s.orgs {
		if _, err := s.w.API.Organization(s.t.Context(), org); err != nil {
			s.t.Errorf("an organization that was acknowledged: %v", err)
		}
	}
	checkHistory(s.t, uses(ops), s.history)
	version, state, reason := s.stored(s.t, "storm")
	granted, refused := s.count("storm")
	if s.twice() != 0 || refused != 0 || granted != version-1 || state != "connected" {
		s.t.Errorf("the provider refreshed %d times, refused %d, saw %d tokens twice; stored is version %d, %s %s", granted, refused, s.twice(), version, state, reason)
	}
	slices.Sort(s.gaps)
	s.t.Logf("F4: %d faults, %d calls, %d acknowledged, %d refreshes; until both nodes called again: %v at the median, %v at most; codes %v",
		len(s.gaps), len(ops), acked, granted, s.gaps[len(s.gaps)/2].Round(time.Millisecond), s.gaps[len(s.gaps)-1].Round(time.Millisecond), s.codes)
	if len(s.silent) > 0 {
		s.t.Errorf("refusals for want of the database that name no time to wait: %v", s.silent)
	}
	known := []string{world.OK, revoked, expired, "database_unavailable", "audit_unavailable", "http_503", "outcome_unknown", "upstream_timeout", "upstream_unreachable", "session_unconfirmed", "clock_skew", "node_lost"}
	for _, code := range slices.Sorted(maps.Keys(s.codes)) {
		if !slices.Contains(known, code) {
			s.t.Errorf("while the database was away, %d calls got %s", s.codes[code], code)
		}
	}
}

// F4: PostgreSQL is killed and started again under load. Calls are refused with a
// code and a time, none runs without its entry, nothing acknowledged is lost, no
// token is refreshed twice, and both nodes go on by themselves.
func TestPostgresKilled(t *testing.T) {
	t.Parallel()
	s := newSiege(t)
	for round := range rounds(30) {
		s.work(round)
		s.pg.Kill()
		done := s.revoke(s.w.Nodes[round%2])
		s.promise(round)
		time.Sleep(300 * time.Millisecond)
		must(t, s.pg.Start(t.Context()))
		s.recovered("PostgreSQL was killed", time.Now())
		<-done
	}
	s.judge()
}

// F4: the network to PostgreSQL is slow, cuts connections, swallows everything,
// or leads to another server, which has what the first one had.
func TestPostgresNetwork(t *testing.T) {
	t.Parallel()
	s := newSiege(t)
	for round, toxic := range []string{
		`{"name": "slow", "type": "latency", "stream": "downstream", "attributes": {"latency": 300, "jitter": 100}}`,
		`{"name": "reset", "type": "reset_peer", "stream": "downstream", "attributes": {"timeout": 0}}`,
		`{"name": "gone", "type": "timeout", "stream": "upstream", "attributes": {"timeout": 0}}`,
		`{"name": "deaf", "type": "timeout", "stream": "downstream", "attributes": {"timeout": 0}}`,
	} {
		s.work(round)
		s.line.disturb(toxic)
		done := s.revoke(s.w.Nodes[round%2])
		s.promise(round)
		time.Sleep(2 * time.Second)
		s.line.mend()
		s.recovered(toxic, time.Now())
		<-done
	}
	s.work(4)
	s.pg.Kill()
	second, err := s.pg.Copy(t.Context())
	must(t, err)
	t.Cleanup(func() { must(t, second.Stop()) })
	done := s.revoke(s.w.Nodes[0])
	s.line.move(second.Address)
	s.recovered("the move to another server", time.Now())
	<-done
	s.judge()
	must(t, s.pg.Start(t.Context())) // for those who clean up there
}

package mcpserver

import (
	"sync"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/throttle"
)

// How many long polls are held: of one agent, of one organization, of all.
const (
	maxWaits    = 8
	maxOrgWaits = 512
	maxAllWaits = 2048
)

// waits counts the long polls of each agent, so that one agent cannot hold
// more than a few connections open. A poll over the limit answers at once.
type waits struct {
	mu      sync.Mutex
	byAgent map[id.Agent]int
	shares  *throttle.Shares // by organization
}

func newWaits() *waits {
	return &waits{byAgent: map[id.Agent]int{}, shares: throttle.NewShares(maxAllWaits, maxOrgWaits)}
}

// begin reports whether the agent may wait; if so the caller calls end.
func (w *waits) begin(a id.Agent, org id.Organization) (ok bool, end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byAgent[a] >= maxWaits {
		return false, func() {}
	}
	leave, ok, _ := w.shares.Enter(string(org))
	if !ok {
		return false, func() {}
	}
	w.byAgent[a]++
	return true, func() {
		leave()
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.byAgent[a]--; w.byAgent[a] == 0 {
			delete(w.byAgent, a)
		}
	}
}

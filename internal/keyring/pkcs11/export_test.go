package pkcs11

import (
	"fmt"
	"syscall"
	"time"
)

// What tests do to the process of a keeper.

func (h *helper) now() *child {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.child
}

// Stop halts the helper, as a library that hangs; Continue lets it go on.
func Stop(k *Keeper) { _ = k.helper.now().cmd.Process.Signal(syscall.SIGSTOP) }

// Continue is the inverse of Stop. Without a helper there is nothing to do.
func Continue(k *Keeper) {
	if c := k.helper.now(); c != nil {
		_ = c.cmd.Process.Signal(syscall.SIGCONT)
	}
}

// Kill ends the helper and waits for it.
func Kill(k *Keeper) {
	c := k.helper.now()
	c.kill()
	<-c.dead
}

// Pending is how many questions have no answer.
func Pending(k *Keeper) int {
	c := k.helper.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pending)
}

// StuckNow makes the questions that wait old.
func StuckNow(k *Keeper) {
	c := k.helper.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, q := range c.pending {
		q.since = q.since.Add(-time.Hour)
		c.pending[id] = q
	}
}

// Started is how many helpers were started.
func Started(k *Keeper) int {
	k.helper.mu.Lock()
	defer k.helper.mu.Unlock()
	return k.helper.starts
}

// Proc is a file about the helper's process.
func Proc(k *Keeper, file string) string {
	return fmt.Sprintf("/proc/%d/%s", k.helper.now().cmd.Process.Pid, file)
}

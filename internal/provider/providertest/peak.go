package providertest

import (
	"runtime"
	"runtime/debug"
	"time"
)

// Peak runs f and gives the most heap that was in use meanwhile, beyond what was
// before, in bytes. Nothing else may run. Under the race detector, which keeps
// memory of its own, it means nothing.
func Peak(f func()) uint64 {
	defer debug.SetGCPercent(debug.SetGCPercent(20)) // garbage that waits is not what is looked for
	inUse := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	runtime.GC()
	before := inUse()
	var top uint64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			top = max(top, inUse())
			select {
			case <-stop:
				return
			case <-time.After(3 * time.Millisecond):
			}
		}
	}()
	f()
	close(stop)
	<-stopped
	return top - min(before, top)
}

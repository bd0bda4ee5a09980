package world

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Vitals are what a process needs to live.
type Vitals struct {
	Goroutines  int
	Descriptors int
	Heap        int64 // bytes that live after a collection
	Resident    int64 // bytes of memory, the program's own text among them
}

func (v Vitals) String() string {
	return fmt.Sprintf("%d goroutines, %d files, heap %.1f MiB, resident %.1f MiB", v.Goroutines, v.Descriptors, float64(v.Heap)/(1<<20), float64(v.Resident)/(1<<20))
}

// Vitals has the process collect its garbage, and asks what it needs then,
// through the socket in its data folder.
func (n *Node) Vitals(ctx context.Context) (Vitals, error) {
	if _, err := n.console(ctx, "/debug/pprof/heap?gc=1"); err != nil {
		return Vitals{}, err
	}
	text, err := n.console(ctx, "/metrics")
	if err != nil {
		return Vitals{}, err
	}
	found := map[string]float64{}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), " "); ok {
			found[name], _ = strconv.ParseFloat(value, 64) // comments give nothing
		}
	}
	v := Vitals{int(found["go_goroutines"]), int(found["process_open_fds"]), int64(found["go_memstats_heap_alloc_bytes"]), int64(found["process_resident_memory_bytes"])}
	if v.Goroutines == 0 || v.Descriptors == 0 || v.Heap == 0 || v.Resident == 0 {
		return v, fmt.Errorf("the metrics say only %v", v)
	}
	return v, nil
}

// Peak is the most memory that the process has had, in bytes.
func (n *Node) Peak() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.PID()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("the system does not say how much memory process %d has had", n.PID())
}

// Signal sends the process a signal.
func (n *Node) Signal(s syscall.Signal) error { return n.cmd.Process.Signal(s) }

// console asks through the socket in the data folder.
func (n *Node) console(ctx context.Context, path string) ([]byte, error) {
	socket := filepath.Join(n.DataDir(), "console.sock")
	hc := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	defer hc.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://console"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, resp.Status)
	}
	return body, err
}

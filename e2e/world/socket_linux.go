package world

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// NodeAt finds the node whose process has the connection from address, a
// host:port of the loopback network over IPv4.
func (w *World) NodeAt(address string) (*Node, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return nil, err
	}
	local := fmt.Sprintf("0100007F:%04X", n)
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) < 10 || f[1] != local {
			continue
		}
		for _, node := range w.Nodes {
			if holds(node.PID(), "socket:["+f[9]+"]") {
				return node, nil
			}
		}
	}
	return nil, errors.New("no node has a connection from " + address)
}

func holds(pid int, file string) bool {
	open, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range open {
		if to, err := os.Readlink(fd); err == nil && to == file {
			return true
		}
	}
	return false
}

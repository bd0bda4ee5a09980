//go:build unix

package outbound

import (
	"net"
	"syscall"
)

// pending reports whether the socket holds something that nobody has read, or its
// end.
func pending(c net.Conn) bool {
	s, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return true
	}
	came := false
	err = raw.Control(func(fd uintptr) {
		var one [1]byte
		n, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		came = n > 0 || err == nil || err != syscall.EAGAIN && err != syscall.EINTR
	})
	return came || err != nil
}

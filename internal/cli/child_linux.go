package cli

import "syscall"

// childAttributes lets the kernel end the child should we be killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}

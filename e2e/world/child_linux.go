package world

import "syscall"

// childAttributes lets the kernel end the child should the test be killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

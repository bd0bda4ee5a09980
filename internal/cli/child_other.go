//go:build !linux

package cli

import "syscall"

// childAttributes has nothing to add here: the child ends with its input.
func childAttributes() *syscall.SysProcAttr { return nil }

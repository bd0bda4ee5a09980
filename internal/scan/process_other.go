//go:build !linux

package scan

import "context"

// processes says that it cannot: other systems show a process's environment to debuggers
// only.
func (s *scanner) processes(context.Context) {
	s.skip("processes", "this system does not show the environment of running programs")
}

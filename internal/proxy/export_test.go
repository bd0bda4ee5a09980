package proxy

import "time"

// For tests: the readers of what strangers send.
var (
	ParseTarget = parseTarget
	Credentials = credentials
	Agrees      = agrees
)

// Hurry gives clients less time to take what is written.
func (s *Server) Hurry(limit time.Duration) { s.writeTime = limit }

package session

import (
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/id"
)

// PermitLike is the Permit of a call that is like the one that an approval was for.
func PermitLike(s *Service, ses id.Session, like id.Approval) audit.Fence {
	return Permit{service: s, session: ses, approval: like, series: true}
}

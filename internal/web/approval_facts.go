package web

import (
	"fmt"

	"github.com/ambit-dev/ambit/internal/session"
)

// pastOf says what is on record of the agent of a request.
func pastOf(h session.History, call bool) *Past {
	p := &Past{New: h.New(), Approved: h.Approved, Denied: h.Denied, Last: h.LastApproved, Like: h.Like, LikeDenied: h.LikeDenied, LastDenied: h.LastDenied,
		Calls: callsMade(h.Calls, h.MoreCalls)}
	if call {
		p.Call, p.InSession = true, callsMade(h.SessionCalls, h.MoreInSession)
		p.Singles, p.SinglesDenied, p.This, p.ThisDenied = h.SingleApproved, h.SingleDenied, h.ThisApproved, h.ThisDenied
	}
	return p
}

// callsMade is how many, or that there were more than are counted.
func callsMade(n int, more bool) string {
	if more {
		return fmt.Sprintf("over %s calls", thousands(n))
	}
	return plural(n, "call")
}

// runsIn is the session that a call is to be made in, or that is to be widened.
func runsIn(ses session.Session) *RunsIn {
	return &RunsIn{ID: ses.ID, Verbs: verbs(grantedEffects(ses.Grants)), Accounts: accounts(ses.Grants), Started: ses.ApprovedAt, Ends: ses.ExpiresAt, Instructions: ses.Instructions}
}

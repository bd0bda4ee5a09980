package mcpserver

import (
	"fmt"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
)

// sessionView is a session as its agent sees it.
type sessionView struct {
	Handle       string      `json:"session,omitempty"` // only where it is made
	ID           id.Session  `json:"session_id"`
	State        string      `json:"state"`
	Reason       string      `json:"reason,omitempty"`
	Code         string      `json:"code,omitempty"` // once it has ended: what a call under its handle is refused with
	Next         string      `json:"next,omitempty"`
	ConnectURL   string      `json:"connect_url,omitempty"`
	Request      id.Approval `json:"request_id,omitempty"`
	ApprovalURL  string      `json:"approval_url,omitempty"`
	Widens       id.Session  `json:"widens,omitempty"` // the session that this asks to be added to
	Purpose      string      `json:"purpose"`
	Minutes      int         `json:"minutes"`
	Calls        int         `json:"calls,omitempty"` // the most that may start
	CallsUsed    int         `json:"calls_used,omitempty"`
	PendingUntil string      `json:"pending_until,omitempty"`
	ExpiresAt    string      `json:"expires_at,omitempty"`
	Instructions string      `json:"instructions,omitempty"`
	DenyReason   string      `json:"deny_reason,omitempty"`
	Grants       []grantView `json:"grants"`
}

type grantView struct {
	Connection id.Connection   `json:"connection"`
	Provider   string          `json:"provider"`
	Account    string          `json:"account"`
	Effects    []policy.Effect `json:"effects"`
	Tools      []string        `json:"tools"`
	Confirm    policy.Confirm  `json:"needs_approval_for"`
	Limits     []policy.Limit  `json:"limits,omitempty"`
	Lost       string          `json:"lost,omitempty"` // why a person cannot grant it any more
}

// seen is a session as its agent sees it, for programs and for a model.
func (s *Server) seen(ses session.Session) answer {
	v := view(ses)
	if ses.State == session.Ended {
		f := s.sessions.Refusal(ses)
		v.Code, v.Next = f.Code, f.Hint
		v.ConnectURL = f.Fields["connect_url"]
	}
	return answer{facts: v, text: describe(ses, v)}
}

func view(s session.Session) sessionView {
	v := sessionView{
		ID: s.ID, State: string(s.State), Reason: string(s.Reason), Request: s.Approval, Widens: s.Widens, Purpose: s.Purpose, Minutes: s.Minutes, Calls: s.Calls, CallsUsed: s.Used,
		ExpiresAt: stampOf(s.ExpiresAt), Instructions: s.Instructions, DenyReason: s.DenyReason, Grants: []grantView{},
	}
	if s.State == session.Pending {
		v.PendingUntil = stampOf(s.PendingUntil)
	}
	for _, g := range s.Grants {
		w := grantView{Connection: g.Connection, Provider: g.Provider, Account: g.AccountLabel, Effects: g.Effects, Tools: []string{}, Confirm: g.Confirm, Limits: g.Limits, Lost: g.Lost}
		for _, t := range g.Tools {
			w.Tools = append(w.Tools, t.Name)
		}
		v.Grants = append(v.Grants, w)
	}
	return v
}

// describe says a session's state to a model. What the approver wrote is the
// one text in here that is meant to be followed.
func describe(s session.Session, v sessionView) string {
	var b strings.Builder
	switch s.State {
	case session.Pending:
		fmt.Fprintf(&b, "pending: no decision yet; the request lapses at %s. Call check_session again with wait_seconds 25.", stampOf(s.PendingUntil))
	case session.Active:
		fmt.Fprintf(&b, "active until %s. Pass the handle as session to the granted tools.", stampOf(s.ExpiresAt))
	default:
		fmt.Fprintf(&b, "ended (%s). Its handle gives no access any more. %s", s.Reason, v.Next)
		if v.ConnectURL != "" {
			b.WriteString("\nThe person connects an account here: " + v.ConnectURL)
		}
	}
	for _, g := range s.Grants {
		fmt.Fprintf(&b, "\n%s, account %s, connection %s: %s", g.Provider, g.AccountLabel, g.Connection, joinEffects(g.Effects))
		if g.Lost != "" {
			fmt.Fprintf(&b, " (no longer to be had: %s)", strings.ReplaceAll(g.Lost, "_", " "))
		}
	}
	if s.Instructions != "" {
		b.WriteString("\nThe approver's instructions to you: " + s.Instructions)
	}
	if s.DenyReason != "" {
		b.WriteString("\nThe reason given for the denial: " + s.DenyReason)
	}
	return b.String()
}

// requestView is a request for the approval of one call as its agent sees it.
type requestView struct {
	ID          id.Approval `json:"request_id"`
	Session     id.Session  `json:"session_id"`
	Tool        string      `json:"tool"`
	State       string      `json:"state"`
	Note        string      `json:"note,omitempty"` // from the person
	Like        *likeView   `json:"like,omitempty"`
	ApprovalURL string      `json:"approval_url,omitempty"`
	ExpiresAt   string      `json:"expires_at,omitempty"`
	Next        string      `json:"next"`
}

// likeView is what the approval of a call allows beside.
type likeView struct {
	Calls  int      `json:"calls"`
	Used   int      `json:"used"`
	Differ []string `json:"may_differ"`
}

func callView(r session.CallRequest) requestView {
	v := requestView{ID: r.ID, Session: r.Session, Tool: r.Tool, State: r.State, Note: r.Note}
	switch r.State {
	case session.ApprovalPending:
		v.ApprovalURL, v.ExpiresAt = r.ApprovalURL, stampOf(r.ExpiresAt)
		v.Next = "No decision yet. Call check_session again with this request_id and wait_seconds 25. Do not repeat the call meanwhile."
	case session.ApprovalApproved:
		v.ExpiresAt = stampOf(r.ExpiresAt)
		v.Next = "Make the identical call once, before the approval lapses."
	case session.ApprovalDenied:
		v.Next = "Do not repeat the call. Ask the person what they would approve."
	case session.ApprovalUsed:
		v.Next = "The approved call was made. The same call again needs another approval."
	case session.ApprovalWithdrawn:
		v.Next = "The session ended before the call was made. Request a new session if the task still needs it."
	default:
		v.Next = "Nobody decided, or the approved call was not made, in time. Make the call again to ask again, if the task still needs it."
	}
	if x := r.Series; x != nil {
		v.Like = &likeView{Calls: x.Calls, Used: x.Used, Differ: append([]string{}, x.Differ...)}
		v.Next += " While the session runs, the approval also allows " + x.String() + "; " + fmt.Sprint(x.Used) + " of them made."
	}
	return v
}

// describeCall says it to a model. What the person wrote is meant to be followed.
func describeCall(v requestView) string {
	var b strings.Builder
	b.WriteString(v.State)
	if v.ExpiresAt != "" {
		b.WriteString(" until " + v.ExpiresAt)
	}
	fmt.Fprintf(&b, ": the call of %s. %s", v.Tool, v.Next)
	if v.Note != "" {
		b.WriteString("\nThe person wrote to you: " + v.Note)
	}
	if v.ApprovalURL != "" {
		b.WriteString("\nThe person decides here: " + v.ApprovalURL)
	}
	return b.String()
}

func joinEffects(effects []policy.Effect) string {
	words := make([]string, len(effects))
	for i, e := range effects {
		words[i] = string(e)
	}
	return strings.Join(words, ", ")
}

func stampOf(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

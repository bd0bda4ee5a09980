package session

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// MaxWait is the longest that one question after a decision waits.
const MaxWait = 25 * time.Second

// CallRequest is the request for the approval of one call, without what the call
// would send.
type CallRequest struct {
	ID          id.Approval
	Session     id.Session
	Tool        string
	State       string  // one of the states of an approval
	Series      *Series // what it allows beside; nil: nothing
	Note        string  // what the person told the agent, or why it was denied
	CreatedAt   time.Time
	ExpiresAt   time.Time // pending: until when it can be decided; approved: until when the call can be made
	DecidedAt   time.Time
	DecidedBy   id.User
	ApprovalURL string
}

// Check gives the agent its session's state. It waits up to wait (at most
// [MaxWait]) while the session is pending.
func (s *Service) Check(ctx context.Context, who agent.Identity, handle string, wait time.Duration) (Session, error) {
	var ses Session
	err := s.await(ctx, wait, func() (until time.Time, pending bool, err error) {
		ses, err = s.ofAgent(ctx, who, handle)
		return ses.PendingUntil, ses.State == Pending, err
	})
	return ses, err
}

// CheckCall gives the agent the state of its request for the approval of one
// call. It waits up to wait (at most [MaxWait]) while nobody has decided. For
// any other agent or user the request does not exist (threats.md S3). A handle
// that is given too must be of the request's session.
func (s *Service) CheckCall(ctx context.Context, who agent.Identity, handle string, request id.Approval, wait time.Duration) (CallRequest, error) {
	if handle != "" {
		ses, err := s.ofAgent(ctx, who, handle)
		if err != nil {
			return CallRequest{}, err
		}
		if r, err := s.callOfAgent(ctx, who, request); err != nil || r.Session != ses.ID {
			return CallRequest{}, noRequest()
		}
	}
	var r CallRequest
	err := s.await(ctx, wait, func() (until time.Time, pending bool, err error) {
		r, err = s.callOfAgent(ctx, who, request)
		return r.ExpiresAt, r.State == ApprovalPending, err
	})
	return r, err
}

// CheckRequest is [Service.Check] for a session named by the request for it.
func (s *Service) CheckRequest(ctx context.Context, who agent.Identity, request id.Approval, wait time.Duration) (Session, error) {
	var ses Session
	err := s.await(ctx, wait, func() (until time.Time, pending bool, err error) {
		ses, err = sessionByRequest(ctx, s.db.Reader(), request, who)
		if sqldb.NoRows(err) {
			return time.Time{}, false, noRequest()
		}
		if err != nil {
			return time.Time{}, false, sqldb.Wrap("load a session", err)
		}
		if ses.Cause == CauseWidened { // what was asked for is a part of it
			if ses, err = sessionByID(ctx, s.db.Reader(), ses.Widens); err != nil {
				return time.Time{}, false, sqldb.Wrap("load a session", err)
			}
		}
		ses, err = s.seen(ctx, ses)
		return ses.PendingUntil, ses.State == Pending, err
	})
	return ses, err
}

// await looks until nothing is pending any more or wait is over: now, at every
// change that any node announces, and when what is pending lapses.
func (s *Service) await(ctx context.Context, wait time.Duration, look func() (until time.Time, pending bool, err error)) error {
	wake := make(chan struct{}, 1)
	if wait > 0 {
		cancel := s.db.Subscribe(Channel, func(string) {
			select {
			case wake <- struct{}{}:
			default:
			}
		})
		defer cancel()
	}
	deadline := time.NewTimer(min(wait, MaxWait))
	defer deadline.Stop()
	for {
		until, pending, err := look()
		if err != nil || !pending || wait <= 0 {
			return err
		}
		lapse := time.NewTimer(until.Sub(s.now()))
		select {
		case <-wake:
		case <-lapse.C:
		case <-deadline.C:
			wait = 0
		case <-s.waits: // the server stops: what is known now is the answer
			wait = 0
		case <-ctx.Done():
			err = ctx.Err()
		}
		lapse.Stop()
		if err != nil {
			return err
		}
	}
}

func noRequest() error {
	return fault.New(fault.NotFound, "request_not_found", "No such request.").
		WithHint("Use the request_id that an answer to a call of yours named.")
}

// callOfAgent loads a request by the agent and user that it belongs to, and by
// the session of a token that is bound to one.
func (s *Service) callOfAgent(ctx context.Context, who agent.Identity, request id.Approval) (CallRequest, error) {
	r, err := callRequest(ctx, s.db.Reader(), who, request)
	if sqldb.NoRows(err) {
		return CallRequest{}, noRequest()
	}
	if err != nil {
		return CallRequest{}, sqldb.Wrap("load a request", err)
	}
	r = s.agedCall(r)
	if r.State == ApprovalApproved || r.State == ApprovalUsed {
		r.Series, err = s.seriesOf(ctx, r.ID)
	}
	return r, err
}

func (s *Service) agedCall(r CallRequest) CallRequest {
	if (r.State == ApprovalPending || r.State == ApprovalApproved) && !s.now().Before(r.ExpiresAt) {
		r.State = ApprovalExpired
	}
	r.ApprovalURL = s.approvalURL(r.ID)
	return r
}

// CallRequests lists the requests for the approval of single calls in a session
// that the actor may see, newest first, at most 100.
func (s *Service) CallRequests(ctx context.Context, by account.Actor, sid id.Session) ([]CallRequest, error) {
	if _, err := s.Get(ctx, by, sid); err != nil {
		return nil, err
	}
	list, err := callRequests(ctx, s.db.Reader(), sid)
	if err != nil {
		return nil, sqldb.Wrap("list the requests of a session", err)
	}
	for i := range list {
		list[i] = s.agedCall(list[i])
	}
	return list, nil
}

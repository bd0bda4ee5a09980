package credential

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/failpoint"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

const (
	// A lease outlasts one request (30 s) and the write after it; a repeated
	// request has it prolonged first. An owner that was killed is replaced when
	// it ends, within the time that callers wait.
	leaseFor     = 45 * time.Second
	waitForOwner = leaseFor + 10*time.Second
	// Whoever finds an ended lease watches it this long before taking over. An
	// owner that could not reach the database with the answer in its hands
	// writes it in this time, once the database is back.
	watchFor     = 3 * time.Second
	keepPause    = 500 * time.Millisecond // at most, between attempts to write an answer
	firstBackOff = 30 * time.Second
	confirmAfter = 60 * time.Second // between the first answer that calls a grant dead and the one that confirms it
	maxBackOff   = time.Hour
	stopGrace    = 45 * time.Second // for a request that is under way, and the write after it
	askLimit     = 75 * time.Second // for a request and its repetition
	writeLimit   = 10 * time.Second // for one attempt to read or write
)

var system = audit.Actor{Kind: "system", ID: "credential"}

// refresh gives a newer version than r. In this process one goroutine per
// connection works on it; the caller waits with its own deadline, while the
// work runs on a context that no caller can cancel: the provider's answer may
// carry the only token that still works.
func (s *Service) refresh(ctx context.Context, r row) (row, error) {
	ch := s.refreshing.DoChan(fmt.Sprintf("%s %d", r.connection, r.version), func() (any, error) {
		if !s.work.begin() {
			return row{}, fault.New(fault.Unavailable, "upstream_unreachable", "This server is stopping.").WithHint("Try again in a moment.").WithRetry(time.Second)
		}
		defer s.work.end()
		return s.refreshOnce(s.background, r)
	})
	ctx, cancel := context.WithTimeout(ctx, waitForOwner) // the work may have to wait for the database
	defer cancel()
	select {
	case res := <-ch:
		if res.Err != nil {
			return row{}, res.Err
		}
		return res.Val.(row), nil
	case <-ctx.Done():
		return row{}, fault.New(fault.Unavailable, "upstream_timeout", "The account's credential is being refreshed.").
			WithHint("Try again in a moment.").WithRetry(2 * time.Second).WithCause(ctx.Err())
	}
}

// refreshOnce owns the refresh of one version, or waits for its owner.
func (s *Service) refreshOnce(ctx context.Context, r row) (row, error) {
	waiting, cancel := context.WithTimeout(s.running, waitForOwner)
	defer cancel()
	var watched watch
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		now := s.now()
		fresh, err := s.load(waiting, r.connection)
		if err != nil {
			return row{}, err
		}
		if fresh.version != r.version {
			s.sealed.put(fresh)
			return fresh, nil // somebody else did it
		}
		if err := s.mayAttempt(waiting, fresh, now); err != nil {
			return row{}, err
		}
		// A lease of ours that nobody here works under is one whose taking or
		// giving back the database did not confirm.
		if fresh.leaseOwner == s.owner || watched.free(fresh, now) {
			mine, err := s.take(ctx, fresh, now)
			if err != nil {
				return row{}, err
			}
			if mine {
				return s.refreshOwned(ctx, fresh)
			}
		}
		select {
		case <-waiting.Done():
			return row{}, fault.New(fault.Unavailable, "upstream_timeout", "The account's credential is being refreshed elsewhere.").
				WithHint("Try again in a moment.").WithRetry(5 * time.Second)
		case <-time.After(pause):
		}
	}
}

// take takes the lease on r.
func (s *Service) take(ctx context.Context, r row, now time.Time) (mine bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		var err error
		mine, err = takeLease(ctx, tx, r, s.owner, now)
		return err
	})
	return mine, sqldb.Wrap("take the lease of a credential", err)
}

// watch looks at somebody's lease from here.
type watch struct {
	owner       string
	since, last time.Time // by this process's own clock, as long as the database answered
}

// free reports whether the lease on r may be taken: nobody has it, or it has
// ended and its owner had time to write what it may have.
func (w *watch) free(r row, now time.Time) bool {
	if r.leaseOwner == "" {
		return true
	}
	seen := time.Now()
	if w.owner != r.leaseOwner || seen.Sub(w.last) > watchFor/2 {
		w.owner, w.since = r.leaseOwner, seen
	}
	w.last = seen
	return !r.leased(now) && seen.Sub(w.since) >= watchFor
}

// mayAttempt holds a broken credential back, so that calls on it do not storm
// the provider.
func (s *Service) mayAttempt(ctx context.Context, r row, now time.Time) error {
	if r.revokeState != "" {
		return s.connections.MustReconnect(r.connection, "The account was disconnected.")
	}
	if !r.refreshable {
		if r.expired(now) {
			if err := s.needsReauthorization(ctx, r, "no_refresh_token"); err != nil {
				return err
			}
		}
		return s.connections.MustReconnect(r.connection, "The account's access has expired, and the provider gave no means to renew it.")
	}
	if (&tokenError{code: r.lastError}).class() == classGrant {
		return s.ended(r, r.lastError) // another caller was told just now
	}
	if wait := r.nextAttempt.Sub(now); wait > 0 {
		if (&tokenError{code: r.lastError}).class() == classGrant { // then waiting mends nothing
			return s.connections.MustReconnect(r.connection, "The provider has ended this account's access.")
		}
		return fault.New(fault.Unavailable, "upstream_unreachable", "The account's credential could not be refreshed: "+r.lastError+".").
			WithHint("It is tried again shortly.").WithRetry(wait)
	}
	return nil
}

// refreshOwned sends the refresh token. We hold the lease of this version.
func (s *Service) refreshOwned(ctx context.Context, r row) (row, error) {
	got, err := s.askAnew(ctx, &r)
	if errors.Is(err, errReplaced) {
		if theirs, lerr := s.load(ctx, r.connection); lerr != nil || theirs.version != r.version {
			return theirs, lerr
		}
	}
	if err != nil {
		return row{}, s.failed(ctx, r, err)
	}
	return s.keep(ctx, r, got)
}

// errReplaced says that a reconnect replaced a credential before its refresh
// token was sent.
var errReplaced = errors.New("the credential was replaced")

// renewal is what the answer to a refresh token makes, with the connection as it
// was when the token was sent: what came from its places goes back to no others.
type renewal struct {
	conn     connection.Connection
	row      row
	material material
	moved    *provider.Record // the answer names other places, which the record allows
	astray   string           // or ones that it does not: the code of why
}

// askAnew sends the refresh token of r. It marks r when a request may have been
// carried out without an answer.
func (s *Service) askAnew(ctx context.Context, r *row) (renewal, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	conn, err := s.connections.ByID(ctx, s.db.Reader(), r.environment, r.connection)
	if err != nil {
		return renewal{}, err
	}
	if conn.CredentialVersion != r.version {
		return renewal{}, errReplaced // its places are not those of r any more
	}
	old, err := s.material(ctx, *r)
	if err != nil {
		return renewal{}, err
	}
	client, err := s.client(ctx, conn)
	if err != nil {
		return renewal{}, err
	}
	o := conn.Record.Endpoint()
	if o == nil {
		return renewal{}, s.connections.MustReconnect(r.connection, "The account's credential cannot be refreshed.")
	}
	unbound, err := s.connections.Snapshot(ctx, r.environment, conn.Record.TextDigest()) // before there is an answer that could be lost
	if err != nil {
		return renewal{}, err
	}
	renew := func() (grant, error) {
		return s.renew(ctx, order{organization: r.organization, record: conn.Record, pinned: conn.Pinned, client: client, have: old})
	}
	if err := failpoint.Hit("refresh: before send"); err != nil {
		return renewal{}, err
	}
	g, err := renew()
	if te := (*tokenError)(nil); errors.As(err, &te) && te.sent && te.class() == classTransient {
		// The request may have been carried out. If the provider did rotate,
		// the grant is lost either way; if it did not, once more saves it.
		r.attemptAt = s.now()
		select {
		case <-ctx.Done():
		case <-time.After(250 * time.Millisecond):
			if s.prolong(ctx, *r) {
				g, err = renew()
			}
		}
	}
	if err != nil {
		return renewal{}, err
	}
	if err := failpoint.Hit("refresh: answered"); err != nil {
		return renewal{}, &tokenError{code: "unavailable", sent: true}
	}
	g.scopes = keptSlots(withUnlisted(g.scopes, o.Scopes, r.scopes), o, r.scopes)
	next, m := g.apply(conn.Record, *r, old, s.now())
	next.version = r.version + 1
	next.keepAt = keepAt(conn.Record, next, s.now())
	if err := usable(conn.Record, m); err != nil {
		s.log.Error("a provider renewed a credential into one that cannot be kept safe", "provider", r.provider, "connection", r.connection)
		return renewal{}, &tokenError{code: codeUnusable}
	}
	got := renewal{conn: conn, row: next, material: m}
	s.follow(ctx, &got, unbound, g)
	return got, nil
}

// follow holds the places that an answer names against the record that the
// connection was made with. Where they may not be, the tokens are kept all the
// same, since they may be the only ones; they are sent nowhere before a person has
// connected the account again (product.md rule 6).
func (s *Service) follow(ctx context.Context, got *renewal, unbound provider.Record, g grant) {
	next, moved, err := got.conn.Record.Rebind(unbound, got.conn.Record.Told("token", g.member))
	if err == nil && moved {
		for _, place := range next.Pinned().Raw("") {
			if err == nil {
				err = s.outbound.Check(ctx, place)
			}
		}
	}
	switch {
	case err != nil:
		got.astray = fault.Of(err).Code
	case moved:
		got.moved = &next
	}
}

// prolong makes our lease last for one more request. Without a lease nothing is
// sent: somebody else may be sending.
func (s *Service) prolong(ctx context.Context, r row) bool {
	ctx, cancel := context.WithTimeout(ctx, watchFor)
	defer cancel()
	ours := false
	err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		var err error
		ours, err = prolongLease(ctx, tx, r, s.owner, s.now().Add(leaseFor))
		return err
	})
	if err != nil {
		s.log.Warn("a refresh is not repeated: its lease could not be prolonged", "connection", r.connection, "error", err)
	}
	return err == nil && ours
}

// keep makes a refreshed credential durable before anybody gets it. The answer
// in hand may be the only one that works, so a database that is down is waited
// for, as long as this process lives.
func (s *Service) keep(ctx context.Context, was row, got renewal) (row, error) {
	next := got.row
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, keepPause) {
		var stored, ended bool
		envelope, err := s.seal(ctx, next, got.material)
		if err == nil {
			next.envelope = envelope
			err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
				var err error
				if stored, err = storeRefreshed(ctx, tx, was, next); err != nil || !stored {
					return err
				}
				current, err := s.connections.SetCredential(ctx, tx, system, next.environment, next.connection, next.version, next.scopes)
				if err != nil {
					return err
				}
				if ended = !current; ended {
					// The account was disconnected while the provider answered:
					// these tokens came after the ones that were given back.
					conn, err := s.connections.ByID(ctx, tx, next.environment, next.connection)
					if err != nil {
						return err
					}
					return s.OnConnectionEnded(ctx, tx, conn)
				}
				if err := s.settle(ctx, tx, got); err != nil {
					return err
				}
				s.audit.AppendEvent(tx, s.entry(next, "credential.refreshed", ""))
				return nil
			})
		}
		switch {
		case err == nil && stored, sqldb.Uncertain(err):
			if fresh, known, lerr := s.look(ctx, got, next, err == nil); known {
				if lerr == nil && got.astray != "" {
					lerr = s.connections.MustReconnect(next.connection, "The provider's answer leads to an address that is not the account's.")
				}
				return fresh, lerr
			}
		case err == nil:
			return s.overtaken(ctx, got)
		}
		s.log.Error("a refreshed credential cannot be stored yet", "connection", next.connection, "error", err)
		select {
		case <-ctx.Done():
			return row{}, fmt.Errorf("storing a refreshed credential: %w", errors.Join(err, ctx.Err()))
		case <-time.After(pause):
		}
	}
}

// settle tells the connection what a refresh has made of it.
func (s *Service) settle(ctx context.Context, tx *sqldb.Tx, got renewal) error {
	if got.astray != "" {
		return s.connections.Mark(ctx, tx, system, got.row.environment, got.row.connection, connection.NeedsReauth, got.astray)
	}
	if got.moved != nil {
		if err := s.connections.Move(ctx, tx, system, got.row.environment, got.row.connection, *got.moved); err != nil {
			return err
		}
	}
	return s.connections.Mark(ctx, tx, system, got.row.environment, got.row.connection, connection.Connected, "")
}

// look finds what became of next after a commit that is certain, or is not. It is
// not known while the database does not say, or has not taken it. What then stands
// in its place may have come after it or instead of it, which nobody can tell: next
// is overtaken either way.
func (s *Service) look(ctx context.Context, got renewal, next row, certain bool) (fresh row, known bool, err error) {
	fresh, err = s.load(ctx, next.connection)
	if err != nil || fresh.version < next.version {
		return row{}, false, nil
	}
	if !certain && (fresh.version > next.version || !bytes.Equal(fresh.envelope, next.envelope)) {
		fresh, err = s.overtaken(ctx, got)
		return fresh, true, err
	}
	if fresh.revokeState == RevokePending {
		s.revokeNow(ctx, fresh)
	}
	if fresh.revokeState != "" {
		return row{}, true, s.connections.MustReconnect(next.connection, "The account was disconnected.")
	}
	s.sealed.put(fresh)
	return fresh, true, nil
}

// overtaken gives way to what was stored while we asked the provider: by a
// reconnect, or by another owner if a lease or a clock is wrong. Theirs is
// durable, so theirs counts. Ours goes back to where it came from if theirs come
// from a reconnect, which may have been to other places (product.md rule 6); if
// both come from one grant, that would end theirs too.
func (s *Service) overtaken(ctx context.Context, ours renewal) (row, error) {
	s.log.Warn("a credential was replaced while it was refreshed", "connection", ours.conn.ID, "version", ours.row.version)
	theirs, err := s.load(ctx, ours.conn.ID)
	if err != nil {
		return row{}, err
	}
	kept := material{}
	if len(theirs.envelope) > 0 {
		kept, err = s.material(ctx, theirs)
	}
	switch {
	case err != nil:
		s.log.Error("it is not known whether a refreshed credential that was not stored is of the grant that is", "connection", ours.conn.ID, "error", err)
	case len(theirs.envelope) == 0 || !kept.sameGrant(ours.material):
		s.replaced(ctx, ours.conn, ours.material, kept)
	}
	return theirs, nil
}

// failed records a failed attempt and gives the lease back. It never throws a
// token away: a failure only marks, guarded by version.
func (s *Service) failed(ctx context.Context, r row, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	te := &tokenError{code: fault.Of(cause).Code}
	isToken := errors.As(cause, &te)
	class := classTransient
	if isToken {
		class = te.class()
	} else if k := fault.KindOf(cause); k == fault.Denied || k == fault.Conflict || k == fault.NotFound {
		class = classConfig
	}
	// Once a lost answer, always perhaps a spent token: until a refresh succeeds.
	open := te.sent || !r.attemptAt.IsZero()
	now := s.now()
	next := now.Add(max(te.retry, min(firstBackOff<<min(r.failures, 7), maxBackOff)))
	// A grant that one answer calls dead may be the victim of a lost answer to
	// an earlier attempt. The reason says so.
	reason := te.code
	if class == classGrant && open && te.code != codeUnusable && r.kind == provider.OAuth2 {
		reason = "refresh_outcome_unknown"
	}
	dead, told := class == classGrant, te.code
	if dead && s.unconfirmed(ctx, r, te.code) {
		dead, told, next = false, unconfirmed+te.code, now.Add(confirmAfter)
	}
	err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		mine, err := storeFailure(ctx, tx, r, s.owner, next, told, open, told != te.code)
		if err != nil || !mine {
			return err
		}
		if dead {
			if err := s.connections.Mark(ctx, tx, system, r.environment, r.connection, connection.NeedsReauth, reason); err != nil {
				return err
			}
		}
		event := s.audit.Append(tx, s.entry(r, "credential.refresh_failed", reason))
		if r.failures > 0 {
			return nil // told already
		}
		return s.connections.RefreshFailed(ctx, tx, event, r.environment, r.connection, reason)
	})
	if err != nil {
		s.log.Error("a failed refresh could not be recorded", "connection", r.connection, "error", err)
	}
	switch {
	case class == classGrant && !dead:
		return fault.New(fault.Unavailable, "upstream_unreachable", "The provider says that this account's access has ended. It is asked once more before that is believed.").
			WithHint("It is tried again shortly.").WithRetry(next.Sub(now)).WithCause(cause)
	case dead:
		return s.ended(r, te.code).WithCause(cause)
	case class == classClient || class == classConfig:
		if !isToken {
			return s.connections.MustReconnect(r.connection, fault.Of(cause).Message).WithCause(cause)
		}
		s.log.Error("a provider refuses our requests; its connections are not to blame", "provider", r.provider, "code", te.code)
		return fault.New(fault.Unavailable, "upstream_unreachable", "The provider refuses Ambit's own registration.").
			WithHint("An admin must check the provider's client id and secret.").WithCause(cause)
	}
	return fault.New(fault.Unavailable, "upstream_unreachable", "The provider could not refresh the account's credential.").
		WithHint("It is tried again shortly.").WithRetry(next.Sub(now)).WithCause(cause)
}

// unconfirmed begins the last error of a credential whose grant one answer called
// dead.
const unconfirmed = "unconfirmed "

// unconfirmed reports whether an answer that calls a grant dead is to be confirmed
// by a second one (oauth.md §3.1 rule 7). A provider that rotates cannot: the token
// that it would be asked with again may be the one that it has just ended.
func (s *Service) unconfirmed(ctx context.Context, r row, code string) bool {
	if r.kind != provider.OAuth2 || code == codeUnusable || strings.HasPrefix(r.lastError, unconfirmed) {
		return false
	}
	c, err := s.connections.ByID(ctx, s.db.Reader(), r.environment, r.connection)
	return err == nil && c.Record.OAuth != nil && !c.Record.OAuth.Refresh.Rotates
}

// ended says that only a person can mend an account.
func (s *Service) ended(r row, why string) *fault.Error {
	if why == codeUnusable {
		return s.connections.MustReconnect(r.connection, "The provider renewed this account's access with a token that could not be kept out of what agents read.")
	}
	return s.connections.MustReconnect(r.connection, "The provider has ended this account's access.")
}

func (s *Service) needsReauthorization(ctx context.Context, r row, reason string) error {
	return s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		return s.connections.Mark(ctx, tx, system, r.environment, r.connection, connection.NeedsReauth, reason)
	})
}

func (s *Service) entry(r row, action, code string) audit.Entry {
	return audit.Entry{
		Environment: r.environment, Organization: r.organization, User: r.user, Actor: system, Connection: r.connection, Provider: r.provider,
		Action: action, Object: string(r.connection), Code: code, Detail: map[string]string{"version": fmt.Sprint(r.version)},
	}
}

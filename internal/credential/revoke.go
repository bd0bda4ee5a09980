package credential

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/failpoint"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// What became of a credential at its provider.
const (
	RevokedUpstream = "revoked"
	RevokePending   = "pending"     // the provider could not be asked; it is tried again for a week
	RevokeFailed    = "failed"      // a week went by
	Unsupported     = "unsupported" // the provider has no way to revoke it
)

const (
	revokeRetries  = 7 * 24 * time.Hour
	maxRevokePause = 6 * time.Hour
	revokeWorkers  = 8 // revocations at once, so that a slow provider does not hold up the others
	revokeRound    = 4 * time.Minute
)

// Disconnected says what disconnecting did.
type Disconnected struct {
	Connection connection.Connection
	Upstream   string
	Note       string // what the person still has to do, if anything
}

// Disconnect ends a connection: here first, so that calls fail at once, then at
// the provider. What the provider answers does not bring it back.
func (s *Service) Disconnect(ctx context.Context, by account.Actor, conn id.Connection) (Disconnected, error) {
	c, err := s.connections.Disconnect(ctx, by, conn)
	if err != nil {
		return Disconnected{}, err
	}
	s.sealed.drop(conn)
	line, _ := by.Counted()
	r, err := loadRow(ctx, s.db.UrgentReader(line), conn)
	if err != nil {
		return Disconnected{}, sqldb.Wrap("load a credential", err)
	}
	d := Disconnected{Connection: c, Upstream: r.revokeState}
	if r.revokeState == RevokePending {
		d.Upstream = s.revokeNow(context.WithoutCancel(ctx), r)
	}
	d.Note = Note(c, d.Upstream)
	return d, nil
}

// Note says what is left to do about a connection that has ended.
func Note(c connection.Connection, upstream string) string {
	switch upstream {
	case Unsupported:
		return "The provider cannot be told to forget this access. Remove it there: " + c.Record.Website
	case RevokePending:
		return "The provider could not be reached. It is tried again for a week."
	case RevokeFailed:
		return "The provider did not take it back within a week. Remove the access there: " + c.Record.Website
	}
	return ""
}

// DisconnectAimed ends the connections that an aim selects, here before it returns.
// The providers are told right after, as for one.
func (s *Service) DisconnectAimed(ctx context.Context, by account.Actor, aim connection.Aim) (connection.Aimed, error) {
	ended, err := s.connections.EndAimed(ctx, by, aim)
	for _, c := range ended.Connections {
		s.sealed.drop(c.ID)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return ended, err
}

// Upstream says what became of the credentials of connections that have ended.
func (s *Service) Upstream(ctx context.Context, list []connection.Connection) (map[id.Connection]string, error) {
	var ended []id.Connection
	for _, c := range list {
		if !c.Live() {
			ended = append(ended, c.ID)
		}
	}
	out := map[id.Connection]string{}
	if len(ended) == 0 {
		return out, nil
	}
	const query = `select connection_id, revoke_state from credential where connection_id in (%s)`
	marks, args := sqldb.In(ended)
	rows, err := s.db.Reader().QueryContext(ctx, fmt.Sprintf(query, marks), args...)
	if err != nil {
		return nil, sqldb.Wrap("read revocations", err)
	}
	defer rows.Close()
	for rows.Next() {
		var conn id.Connection
		var state string
		if err := rows.Scan(&conn, &state); err != nil {
			return nil, sqldb.Wrap("read revocations", err)
		}
		out[conn] = state
	}
	return out, sqldb.Wrap("read revocations", rows.Err())
}

// OnConnectionEnded puts a credential down for revocation in the transaction in
// which its connection ends, whatever ended it. What a provider cannot revoke is
// destroyed at once.
func (s *Service) OnConnectionEnded(ctx context.Context, tx *sqldb.Tx, c connection.Connection) error {
	if err := s.providers.ForgetLook(ctx, tx, c.ID); err != nil {
		return err
	}
	if c.Pinned.Revoke != "" {
		_, err := tx.ExecContext(ctx, beginRevokeSQL, c.ID, sqldb.Micros(s.now()))
		return sqldb.Wrap("put a credential down for revocation", err)
	}
	_, err := tx.ExecContext(ctx, destroySQL, c.ID, flag(false), Unsupported)
	return sqldb.Wrap("destroy a credential", err)
}

// revokeNow tries once and records what came of it.
func (s *Service) revokeNow(ctx context.Context, r row) string {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	state, next := RevokedUpstream, time.Time{}
	if err := s.revokeUpstream(ctx, r); err != nil {
		s.log.Warn("a provider did not take a revocation", "connection", r.connection, "provider", r.provider, "error", err)
		pause := min(time.Minute<<min(r.revokeTries, 9), maxRevokePause)
		state, next = RevokePending, s.now().Add(pause)
		if c, err := s.connections.ByID(ctx, s.db.Reader(), r.environment, r.connection); err == nil && s.now().Sub(c.EndedAt) > revokeRetries {
			state = RevokeFailed
		}
	}
	err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if state == RevokePending {
			_, err := tx.ExecContext(ctx, setRevokeSQL, r.connection, state, sqldb.Micros(next))
			return err
		}
		done, err := changed(tx.ExecContext(ctx, destroyVersionSQL, r.connection, flag(false), state, r.version))
		if err != nil {
			return err
		}
		if !done {
			state = RevokePending // a refresh that was under way brought newer tokens, and revokes them
			return nil
		}
		s.audit.AppendEvent(tx, s.entry(r, "credential.revoked", state))
		return nil
	})
	if err != nil {
		s.log.Error("a revocation could not be recorded", "connection", r.connection, "error", err)
		return RevokePending
	}
	return state
}

// revokeUpstream gives both tokens back (RFC 7009): the refresh token first,
// which at many providers ends the whole grant.
func (s *Service) revokeUpstream(ctx context.Context, r row) error {
	conn, err := s.connections.ByID(ctx, s.db.Reader(), r.environment, r.connection)
	if err != nil {
		return err
	}
	m, err := s.material(ctx, r)
	if err != nil {
		return err
	}
	client, err := s.client(ctx, conn)
	if err != nil {
		return err
	}
	if conn.Record.Auth == provider.ClientCredentials {
		client = ownClient(m)
	}
	for _, t := range m.tokens(conn.Record.OAuth) {
		if err := s.giveBack(ctx, conn, client, t); err != nil {
			return err // it is tried again with all of them
		}
	}
	return nil
}

// handed is a token that a provider gave, and what RFC 7009 calls its kind.
type handed struct {
	hint   string
	token  secret.Value
	secret secret.Value // of the token, with OAuth 1.0
}

// tokens lists what there is to give back, those of slots first.
func (m material) tokens(o *provider.OAuth) (out []handed) {
	for _, t := range append(m.slotTokens(o), []struct{ hint, field string }{{"refresh_token", fieldRefreshToken}, {"access_token", provider.FieldAccessToken}}...) {
		if v := m.values[t.field]; !v.IsZero() {
			out = append(out, handed{t.hint, v, m.values[provider.FieldTokenSecret]})
		}
	}
	return out
}

func (s *Service) giveBack(ctx context.Context, conn connection.Connection, client provider.Client, t handed) error {
	o := conn.Record.Endpoint()
	if o == nil { // of a release that read records otherwise
		return fault.New(fault.Conflict, "record_outdated", "The provider record that this connection was made with is not valid any more.").
			WithHint("Remove the access at the provider.")
	}
	return s.asClient(ctx, client, func(client provider.Client) error {
		header := http.Header{"Accept": {"application/json"}}
		method, body := revocation(o, client, header, t.hint, t.token)
		if method == "" {
			return nil
		}
		place := conn.Pinned.Revoke
		if o.RevokeStyle == provider.DeleteOAuth1 {
			place = strings.TrimSuffix(place, "/") + "/" + url.PathEscape(string(t.token.Reveal())) + "/"
		}
		req, err := request(method, place, header, body)
		if err == nil && o.SignsRevocation() {
			err = provider.SignForOAuth1(req, client.Signed(t.token, t.secret), provider.FreshNonce(), s.now())
		}
		if err != nil {
			return err
		}
		resp, err := s.outbound.Do(ctx, outbound.Bound{Bases: []string{conn.Pinned.Revoke}}, req, tokenLimits)
		if err == nil {
			err = failpoint.Hit("revoke: answered")
		}
		if err != nil {
			return err
		}
		return revokeAnswer(resp)
	})
}

// revocation is the request that gives a token back in the provider's way. There
// is none for a refresh token where the access token ends the grant.
func revocation(o *provider.OAuth, client provider.Client, header http.Header, hint string, token secret.Value) (method string, body []byte) {
	if hint != "access_token" && o.RevokesByAccess() {
		return "", nil
	}
	switch o.RevokeStyle {
	case provider.SignOAuth1:
		return http.MethodPost, []byte{}
	case provider.DeleteOAuth1:
		return http.MethodDelete, nil
	case "bearer", "bearer_delete":
		header.Set("Authorization", "Bearer "+string(token.Reveal()))
		if o.RevokeStyle == "bearer_delete" {
			return http.MethodDelete, nil
		}
		return http.MethodPost, []byte{}
	case "client_delete":
		authenticate("basic", client, header, nil)
		return http.MethodDelete, encoded(header, url.Values{"access_token": {string(token.Reveal())}}, true)
	}
	form := url.Values{"token": {string(token.Reveal())}, "token_type_hint": {hint}} // RFC 7009 §2.1
	authenticate(o.ClientAuth, client, header, form)
	renameClient(form, o)
	return http.MethodPost, encoded(header, form, o.RevokeStyle == "rfc7009_json")
}

func revokeAnswer(resp *outbound.Response) error {
	var said struct {
		OK    *bool  `json:"ok"`
		Error string `json:"error"`
	}
	refused := json.Unmarshal(resp.Body, &said) == nil && said.OK != nil && !*said.OK // with status 200
	if !refused && (resp.Status == http.StatusOK || resp.Status == http.StatusNoContent) {
		return nil
	}
	if resp.Status == http.StatusUnauthorized || said.Error == "invalid_client" { // RFC 7009 §2.2.1
		return fault.New(fault.Unavailable, codeClientRefused, "The provider does not take our client's secret.").With("status", http.StatusText(resp.Status))
	}
	return fault.New(fault.Unavailable, "revocation_refused", "The provider did not revoke the token.").With("status", http.StatusText(resp.Status))
}

// replaced gives back the tokens that a reconnect replaced, so that no grant
// lives on that nobody uses. A provider that kept the same tokens keeps them.
// conn is the connection as it was with the old ones: they go to its places, or
// nowhere once the record has moved, or when the provider takes none back, and
// then the audit tells where to remove the access.
func (s *Service) replaced(ctx context.Context, conn connection.Connection, old, now material) {
	was := handed{"refresh_token", old.values[fieldRefreshToken], secret.Value{}}
	if o := conn.Record.Endpoint(); was.token.IsZero() || o != nil && o.RevokesByAccess() {
		was = handed{"access_token", old.values[provider.FieldAccessToken], old.values[provider.FieldTokenSecret]}
	}
	if o := conn.Record.OAuth; o != nil && o.RevokesGrant {
		return // that would end the new one with it
	}
	if was.token.IsZero() || was.token.Equal(now.values[fieldRefreshToken]) || was.token.Equal(now.values[provider.FieldAccessToken]) {
		return
	}
	if conn.Pinned.Revoke == "" {
		s.leftBehind(ctx, conn, Unsupported, Unsupported)
		return
	}
	client, err := s.client(ctx, conn)
	if err == nil {
		err = s.giveBack(ctx, conn, client, was)
	}
	if err != nil {
		s.log.Warn("a replaced credential could not be revoked at the provider; remove its access there", "connection", conn.ID, "website", conn.Record.Website, "error", err)
		s.leftBehind(ctx, conn, grantNotRevoked, fault.Of(err).Code)
		return
	}
	for _, t := range old.slotTokens(conn.Record.OAuth) {
		if v := old.values[t.field]; !v.IsZero() && !v.Equal(now.values[t.field]) {
			if err := s.giveBack(ctx, conn, client, handed{hint: t.hint, token: v}); err != nil {
				s.leftBehind(ctx, conn, grantNotRevoked, fault.Of(err).Code)
			}
		}
	}
}

// leftBehind records that a provider still has a grant that nobody uses.
func (s *Service) leftBehind(ctx context.Context, conn connection.Connection, grant, code string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeLimit)
	defer cancel()
	err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		s.audit.AppendEvent(tx, audit.Entry{Environment: conn.Environment, Organization: conn.Organization, User: conn.Owner, Actor: system, Connection: conn.ID,
			Action: "connection.grant_abandoned", Object: conn.Provider, Provider: conn.Provider, Code: code,
			Detail: map[string]string{"grant": grant, "remove_at": conn.Record.Website}})
		return nil
	})
	if err != nil {
		s.log.Error("a grant that was left at a provider could not be recorded", "connection", conn.ID, "error", err)
	}
}

// retryRevocations works off what providers could not take.
func (s *Service) retryRevocations() {
	s.repeat(30*time.Second, s.wake, s.RetryRevocations, "revocations could not be retried")
}

// RetryRevocations tries each revocation that is due once, on one node at a
// time, and forgets authorizations that were never finished.
func (s *Service) RetryRevocations(ctx context.Context) error {
	lease, ok, err := s.db.Acquire(ctx, "credential.revocations", 5*time.Minute)
	if err != nil || !ok {
		return err
	}
	defer lease.Release(context.WithoutCancel(ctx))
	if err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := s.providers.ForgetOldSecrets(ctx, tx); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, sweepNoticesSQL, sqldb.Micros(s.now().Add(-noticeKept))); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, sweepFlowsSQL, sqldb.Micros(s.now()))
		return err
	}); err != nil {
		return sqldb.Wrap("forget open authorizations", err)
	}
	if err := s.reportInterrupted(ctx); err != nil {
		return err
	}
	round, cancel := context.WithTimeout(ctx, revokeRound) // within the lease
	defer cancel()
	list := func() ([]row, error) {
		due, err := selectRows(round, s.db.Reader(), dueRevocationsSQL, sqldb.Micros(s.now()))
		return due, sqldb.Wrap("list open revocations", err)
	}
	return eachDue(round, revokeWorkers, list, func(r row) error {
		s.revokeNow(ctx, r)
		return nil
	})
}

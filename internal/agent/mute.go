package agent

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// How long an agent may be muted.
const (
	ShortestMute = time.Minute
	LongestMute  = 30 * 24 * time.Hour
)

// Mute silences an agent for a time, in whole seconds: its requests are refused
// and nobody is asked (threats.md A8). What it was granted goes on. Its owner may,
// whoever decides on requests in its organization, and whoever manages its agents.
func (s *Service) Mute(ctx context.Context, by account.Actor, agent id.Agent, length time.Duration) (Agent, error) {
	if length < ShortestMute || length > LongestMute {
		return Agent{}, fault.New(fault.Invalid, "invalid_arguments", "An agent is muted for a minute to 30 days.").
			WithHint("To shut it out for good, disable it.")
	}
	return s.mute(ctx, by, agent, s.now().Add(length).Truncate(time.Second))
}

// Unmute lets a muted agent ask again. It gives the agent nothing: a person decides
// on what it asks for.
func (s *Service) Unmute(ctx context.Context, by account.Actor, agent id.Agent) (Agent, error) {
	return s.mute(ctx, by, agent, time.Time{})
}

func (s *Service) mute(ctx context.Context, by account.Actor, agent id.Agent, until time.Time) (Agent, error) {
	a, err := s.Get(ctx, by, agent)
	if err != nil {
		return Agent{}, err
	}
	if err := mayMute(by, a); err != nil {
		return Agent{}, err
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		var err error
		if a, err = selectAgent(ctx, tx, agent, ""); err != nil || a.MutedUntil.Equal(until) {
			return err
		}
		if a, err = setMuted(ctx, tx, agent, until); err != nil {
			return err
		}
		if until.IsZero() {
			s.record(tx, by, a, "agent.unmuted", nil, nil)
			return nil
		}
		s.record(tx, by, a, "agent.muted", nil, map[string]string{"until": until.UTC().Format(time.RFC3339)})
		return nil
	})
	return a, sqldb.Wrap("mute an agent", err)
}

func mayMute(by account.Actor, a Agent) error {
	if owns(by, a) {
		return nil
	}
	err := mayManage(by, a.Environment, a.Organization)
	if err == nil {
		return nil
	}
	if in, _ := within(by, a.Environment); in.May(a.Organization, account.ApproveSessions) == nil {
		return nil
	}
	return err
}

// Muted says until when agent is silenced, as q sees it; zero if it is not.
func (s *Service) Muted(ctx context.Context, q sqldb.Querier, agent id.Agent) (time.Time, error) {
	const query = `select muted_until from agent where id = $1`
	var micros int64
	if err := q.QueryRowContext(ctx, query, agent).Scan(&micros); err != nil {
		return time.Time{}, sqldb.Wrap("read whether an agent is muted", err)
	}
	if until := sqldb.Time(micros); s.now().Before(until) {
		return until, nil
	}
	return time.Time{}, nil
}

package account

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// A sign-in that has only begun leaves nothing here, so that no flood of them
// takes anything from the people at the same address (threats.md W7). Its flow
// says which key, until when, and a random part; the challenge is the HMAC of
// all that under the key, which nobody can know before it is given out. That it
// is good once is noted when somebody signs in with it.
//
// The key is in the database for the other nodes, and lives shortly: whoever
// reads it there could know a challenge beforehand, and still needs a person's
// passkey to answer it.

// challengeKeyAge is how long a node makes challenges with one key.
const challengeKeyAge = time.Hour

type challengeKey struct {
	id   string
	key  []byte
	made time.Time
}

// challenges holds this node's own key.
type challenges struct {
	mu      sync.Mutex
	current challengeKey
}

// challengeKey is the key that this node now makes challenges with.
func (s *Service) challengeKey(ctx context.Context) (challengeKey, error) {
	s.challenges.mu.Lock()
	defer s.challenges.mu.Unlock()
	now := s.now()
	if age := now.Sub(s.challenges.current.made); s.challenges.current.id != "" && age >= 0 && age < challengeKeyAge {
		return s.challenges.current, nil
	}
	k := challengeKey{id: rand.Text(), key: make([]byte, sha256.Size), made: now}
	_, _ = rand.Read(k.key) // never fails
	if err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error { return insertChallengeKey(ctx, tx, k) }); err != nil {
		return challengeKey{}, sqldb.Wrap("make a key for sign-in ceremonies", err)
	}
	s.challenges.current = k
	return k, nil
}

func (k challengeKey) challenge(flow string) []byte {
	mac := hmac.New(sha256.New, k.key)
	mac.Write(crypt.Fields("ambit sign-in 1", flow))
	return mac.Sum(nil)
}

// newChallenge begins a sign-in.
func (s *Service) newChallenge(ctx context.Context) (flow string, challenge []byte, err error) {
	k, err := s.challengeKey(ctx)
	if err != nil {
		return "", nil, err
	}
	flow = s.newFlow(k)
	return flow, k.challenge(flow), nil
}

// newFlow names something that has begun: under which key, until when, and by chance.
func (s *Service) newFlow(k challengeKey) string {
	return k.id + "." + strconv.FormatInt(sqldb.Micros(s.now().Add(FlowAge)), 36) + "." + rand.Text()
}

// beginningOf is when a flow began.
func beginningOf(flow string) (time.Time, error) {
	parts := strings.Split(flow, ".")
	if len(parts) != 3 || len(flow) > 100 {
		return time.Time{}, flowGone()
	}
	expires, err := strconv.ParseInt(parts[1], 36, 64)
	if err != nil {
		return time.Time{}, flowGone()
	}
	return sqldb.Time(expires).Add(-FlowAge), nil
}

// challengeOf is the challenge of a sign-in that any node has begun, while it may
// still be answered.
func (s *Service) challengeOf(ctx context.Context, flow string) ([]byte, error) {
	k, err := s.flowKey(ctx, flow)
	if err != nil {
		return nil, err
	}
	return k.challenge(flow), nil
}

// flowKey is the key of a flow that has not expired.
func (s *Service) flowKey(ctx context.Context, flow string) (challengeKey, error) {
	began, err := beginningOf(flow)
	if err != nil || !s.now().Before(began.Add(FlowAge)) {
		return challengeKey{}, flowGone()
	}
	name, _, _ := strings.Cut(flow, ".")
	s.challenges.mu.Lock()
	k := s.challenges.current
	s.challenges.mu.Unlock()
	if k.id != name {
		k, err = selectChallengeKey(ctx, s.db.Reader(), name)
		if sqldb.NoRows(err) {
			return challengeKey{}, flowGone()
		}
		if err != nil {
			return challengeKey{}, sqldb.Wrap("read a key for sign-in ceremonies", err)
		}
	}
	return k, nil
}

func flowGone() *fault.Error {
	return fault.New(fault.Expired, "flow_expired", "This took too long, or was answered already.").WithHint("Start again.")
}

package workos

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/vault"
)

// keptLimit is how long a request under an Idempotency-Key may go on after who sent
// it has left: their client sends it again, and is to get its answer.
const keptLimit = time.Minute

// keptAnswer is what is stored of an answer.
type keptAnswer struct {
	Status int             `json:"status"`
	Body   json.RawMessage `json:"body"`
}

// kept has a request that makes something make it once under an Idempotency-Key, for
// 24 hours: the SDKs send each POST again when its answer did not come. Two of one
// key at the same time are one, whatever node they came to. Only what was made is kept; who was refused may try
// again. It is for answers without a credential or a link that signs in.
func (s *Server) kept(h productHandler) productHandler {
	return func(ctx context.Context, by account.Actor, r *http.Request) (answer, error) {
		doc, err := body(r)
		if err != nil {
			return answer{}, err
		}
		r.Body = io.NopCloser(bytes.NewReader(doc))
		if len(r.Header.Values("Idempotency-Key")) == 0 {
			return h(ctx, by, r)
		}
		once, err := onceOf(r, doc)
		if err != nil {
			return answer{}, err
		}
		c := vault.Caller{Actor: by.Audit(), Name: by.Name(), Environment: by.Environment(), Organization: by.Organization(), Reach: by.Reach(), Address: by.Address()}
		do := func() (any, error) {
			ctx := context.WithoutCancel(ctx)
			// The lease outlasts the work, and the wait is for one of another node, dead or alive.
			wait, stop := context.WithTimeout(ctx, keptLimit+15*time.Second)
			defer stop()
			release, err := s.vault.Alone(wait, c, once, keptLimit+10*time.Second)
			if err != nil {
				return answer{}, err
			}
			defer release()
			ctx, cancel := context.WithTimeout(ctx, keptLimit)
			defer cancel()
			var was keptAnswer
			if found, err := s.vault.Kept(ctx, c, once, &was); err != nil || found {
				return answer{was.Status, was.Body}, err
			}
			a, err := h(ctx, by, r.WithContext(ctx))
			if err != nil || a.status < 200 || a.status > 299 {
				return a, err
			}
			doc, err := json.Marshal(a.body)
			if err == nil {
				err = s.vault.Keep(ctx, c, once, keptAnswer{a.status, doc})
			}
			if err != nil { // it is made all the same
				s.log.WarnContext(ctx, "an answer could not be kept for a repetition", "route", r.Pattern, "error", err)
			}
			return a, nil
		}
		out, err, _ := s.once.Do(c.Actor.ID+" "+once.Key+" "+hex.EncodeToString(once.Digest[:]), do)
		if err != nil {
			return answer{}, mismatched(err)
		}
		return out.(answer), nil
	}
}

// mismatched has a key of another request answered as one that cannot be processed.
func mismatched(err error) error {
	if fault.Is(err, "idempotency_mismatch") {
		return unprocessable{err}
	}
	return err
}

package audit

import (
	"context"
	"log/slog"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/throttle"
)

// Sealed is the log of a server whose root key cannot be reached: there is no key
// for a chain, so nothing can be put on record, and no transaction that wants to
// commits. What would be recorded of strangers goes to logger alone. It is neither
// started nor stopped.
func Sealed(db *sqldb.DB, logger *slog.Logger) *Log {
	return &Log{db: db, log: logger, now: time.Now, sealed: true, alarmRate: throttle.New(1.0/60, 1, 1000, time.Now)}
}

// CodeSealed is the code of everything that a sealed server refuses.
const CodeSealed = "server_sealed"

func errSealed(context.Context) error {
	return fault.New(fault.Unavailable, CodeSealed, "This server is sealed: its root key cannot be used, so nothing can be put on record and nothing was done.").
		WithHint("It goes on by itself when its root key is back.").WithRetry(5 * time.Second)
}

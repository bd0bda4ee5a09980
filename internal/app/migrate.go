package app

import (
	"context"
	"errors"

	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Migrate brings a database to this binary's schema without serving, and gives
// the steps that it applied. With look it applies none and gives those that it
// would.
func Migrate(ctx context.Context, cfg Config, look bool) (steps []sqldb.Step, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	db, err := sqldb.Open(ctx, sqldb.Config{DataDir: cfg.DataDir, URL: cfg.DatabaseURL, Logger: cfg.Logger})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if steps, err = db.Pending(ctx); err != nil || look {
		return steps, err
	}
	return steps, db.Migrate(ctx)
}

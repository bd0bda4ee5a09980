package app

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Migrate brings a database to this binary's schema without serving, and gives
// the steps that it applied. With look it applies none and gives those that it
// would: of a SQLite database that is not there, all, and nothing is made.
func Migrate(ctx context.Context, cfg Config, look bool) (steps []sqldb.Step, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if look && cfg.DatabaseURL == "" {
		if _, err := os.Stat(filepath.Join(cfg.DataDir, "ambit.db")); errors.Is(err, fs.ErrNotExist) {
			return sqldb.AllSteps(sqldb.SQLite)
		}
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

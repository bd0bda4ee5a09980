package app

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// VerifyData holds the audit log against its chains and checkpoints without a
// server. checkpoints are the folders of all nodes; none means that of cfg.
// Nothing is written: no migration, no new chain. progress, unless nil, is
// called now and then with the number of entries read.
func VerifyData(ctx context.Context, cfg Config, checkpoints []string, progress func(entries int64)) (report audit.Report, err error) {
	if err := cfg.Validate(); err != nil {
		return audit.Report{}, err
	}
	if len(checkpoints) == 0 {
		checkpoints = []string{cfg.CheckpointDir}
	}
	if cfg.DatabaseURL == "" {
		// Opening would make an empty database.
		if _, err := os.Stat(filepath.Join(cfg.DataDir, "ambit.db")); errors.Is(err, fs.ErrNotExist) {
			return audit.Report{}, fault.New(fault.NotFound, "no_database", "There is no database in "+cfg.DataDir+".").WithHint("Name the data folder of the server with --data.")
		}
	}
	client, err := cfg.newOutbound()
	if err != nil {
		return audit.Report{}, err
	}
	defer client.Close()
	keys, err := roots(ctx, cfg, client, false)
	if err != nil {
		return audit.Report{}, err
	}
	defer keys.Stop()
	db, err := sqldb.Open(ctx, sqldb.Config{DataDir: cfg.DataDir, URL: cfg.DatabaseURL, Logger: cfg.Logger})
	if err != nil {
		return audit.Report{}, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return audit.Verify(ctx, audit.VerifyConfig{DB: db, Keeper: keys, Checkpoints: checkpoints, Progress: progress})
}

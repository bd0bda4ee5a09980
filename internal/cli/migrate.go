package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/internal/app"
)

// migration is one step as it is printed.
type migration struct {
	Step   int    `json:"step"`
	Name   string `json:"name"`
	Oldest int    `json:"oldest,omitempty"` // the last step that a binary must know to run beside it
}

func (c *command) migrateCommand() *cobra.Command {
	var dataDir string
	var look bool
	cmd := &cobra.Command{
		Use: "migrate", Short: "Bring the database to this version's schema",
		Long: "Apply the migrations that this version brings, without serving. A server does the same when it starts; this is\n" +
			"for databases whose servers may not change the schema, and for looking first (--check) whether nodes of the\n" +
			"version before may go on meanwhile. See docs/operations.md.",
		Args: takes(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.serverConfig(dataDir, "")
			if err != nil {
				return err
			}
			steps, err := app.Migrate(cmd.Context(), cfg, look)
			if err != nil {
				return err
			}
			list := []migration{}
			for _, s := range steps {
				list = append(list, migration{s.Version, s.Name, s.Oldest})
			}
			if c.json {
				return c.printJSON(map[string]any{"migrations": list, "applied": !look})
			}
			c.printMigrations(list, look)
			return nil
		},
	}
	cmd.Flags().StringVar(&dataDir, "data", "", "data folder of the server (default: AMBIT_DATA_DIR, else ~/.ambit/data)")
	cmd.Flags().BoolVar(&look, "check", false, "only show what would be applied")
	return cmd
}

func (c *command) printMigrations(list []migration, look bool) {
	if len(list) == 0 {
		fmt.Fprintln(c.stdout, "The database is up to date.")
		return
	}
	if look && list[0].Step == 1 {
		fmt.Fprintln(c.stdout, "There is no database yet; ambit migrate, or a server's first start, makes all of it:")
	}
	verb := map[bool]string{true: "would apply", false: "applied"}[look]
	for _, m := range list {
		beside := "older nodes may go on"
		if m.Oldest > 0 {
			beside = fmt.Sprintf("only nodes that know step %04d may go on", m.Oldest)
		}
		fmt.Fprintf(c.stdout, "%s %04d_%s: %s\n", verb, m.Step, m.Name, beside)
	}
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/fault"
)

// profiles are the kinds that the runtime knows; the first two take time.
var profiles = []string{"cpu", "trace", "heap", "allocs", "goroutine", "mutex", "block", "threadcreate"}

func (c *command) profileCommand() *cobra.Command {
	var dataDir, out string
	var seconds int
	cmd := &cobra.Command{
		Use: "profile KIND", Short: "Take a profile of the server that runs on this machine",
		Long: "Take a profile of the running server over the console socket in its data folder. KIND is one of\n" + strings.Join(profiles, ", ") + ".\n" +
			"Read it with: go tool pprof FILE (a trace with: go tool trace FILE). A profile shows what the server was doing, and\n" +
			"may hold pieces of its memory: treat it like the data folder.",
		Example:   "  ambit profile cpu --seconds 10 --out cpu.pprof\n  ambit profile heap --out heap.pprof",
		Args:      takes(1, "one argument: the kind of profile"),
		ValidArgs: profiles,
		RunE: func(cmd *cobra.Command, args []string) error {
			kind := args[0]
			if !slices.Contains(profiles, kind) {
				return usageError{fmt.Errorf("there is no profile %q; take one of %s", kind, strings.Join(profiles, ", "))}
			}
			if seconds < 1 || seconds > 300 {
				return usageError{errors.New("--seconds is from 1 to 300")}
			}
			cfg, err := c.serverConfig(dataDir, "")
			if err != nil {
				return err
			}
			return c.profile(cmd.Context(), cfg.DataDir, kind, seconds, first(out, kind+".pprof"))
		},
	}
	cmd.Flags().StringVar(&dataDir, "data", "", "data folder of the server (default: AMBIT_DATA_DIR, else ~/.ambit/data)")
	cmd.Flags().StringVar(&out, "out", "", "file to write, which must not exist (default: KIND.pprof)")
	cmd.Flags().IntVar(&seconds, "seconds", 10, "how long to watch, for cpu and trace")
	return cmd
}

func (c *command) profile(ctx context.Context, dataDir, kind string, seconds int, out string) error {
	// The file first: a long profile that cannot be kept would be a waste.
	f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fault.New(fault.Conflict, "file_exists", out+" exists already.").WithHint("Name another file with --out.")
	}
	if err != nil {
		return fault.New(fault.Invalid, "file_not_writable", out+" cannot be written.").WithHint("Name another file with --out.").WithCause(err)
	}
	err = c.takeProfile(ctx, f, dataDir, kind, seconds)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return errors.Join(err, os.Remove(out))
	}
	if c.json {
		return c.printJSON(map[string]string{"kind": kind, "file": out})
	}
	tool := "pprof"
	if kind == "trace" {
		tool = "trace"
	}
	fmt.Fprintf(c.stdout, "Wrote %s. Read it with: go tool %s %s\n", out, tool, out)
	return nil
}

func (c *command) takeProfile(ctx context.Context, f *os.File, dataDir, kind string, seconds int) error {
	path, query := "/debug/pprof/"+kind, url.Values{}
	if kind == "cpu" || kind == "trace" {
		if kind == "cpu" {
			path = "/debug/pprof/profile"
		}
		query.Set("seconds", strconv.Itoa(seconds))
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds+30)*time.Second)
	defer cancel()
	socket := filepath.Join(dataDir, app.ConsoleSocket)
	_, err := askConsole(ctx, socket, http.MethodGet, "/about", nil) // whether there is anything to watch
	if noServer(err) {
		return fault.New(fault.Unavailable, "no_server_here", "No server runs on "+dataDir+".").WithHint("Name its data folder with --data or AMBIT_DATA_DIR.").WithCause(err)
	}
	if err != nil {
		return err
	}
	if query.Has("seconds") {
		c.note(fmt.Sprintf("Watching for %d seconds.", seconds))
	}
	body, err := askConsole(ctx, socket, http.MethodGet, path+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	return err
}

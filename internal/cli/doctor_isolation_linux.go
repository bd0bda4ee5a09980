package cli

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// insideUndoing tries to take away what hides files, and to get rights back. A path
// that is not there cannot be uncovered.
func insideUndoing(_ context.Context, p *patient) []finding {
	var undone []string
	for _, path := range strings.Split(p.env[envHidden], ":") {
		if real, err := filepath.EvalSymlinks(path); err == nil && unix.Unmount(real, unix.MNT_DETACH) == nil {
			undone = append(undone, path)
		}
	}
	if p.env[envHidden] == "" {
		return held(false, "", "nothing says what is hidden: this program was not started by ambit run --isolate")
	}
	privileges, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil || privileges != 1 {
		undone = append(undone, "programs of other users' rights")
	}
	return held(len(undone) == 0, "nothing of it can be undone", "can be undone: "+words(undone))
}

// insideProcesses looks for processes from outside: a process of the same user
// could be told to do what this one may not.
func insideProcesses(context.Context, *patient) []finding {
	name, err := os.ReadFile("/proc/1/cmdline")
	first := strings.Split(string(name), "\x00")
	ours := err == nil && len(first) > 1 && first[1] == "run-inside"
	_, notOurs := os.Stat("/proc/" + strconv.Itoa(os.Getpid()))
	return held(ours && notOurs == nil, "only its own processes can be seen", "processes of the machine can be seen")
}

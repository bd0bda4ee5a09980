//go:build !linux

package cli

import "github.com/spf13/cobra"

// isolates says whether this system can hold a program apart.
const isolates = false

const insidePlace = ""

func (r *run) isolated(string, []string, runAccess, string) error {
	panic("ambit run --isolate is for Linux")
}

func (c *command) insideCommand() *cobra.Command { return nil }

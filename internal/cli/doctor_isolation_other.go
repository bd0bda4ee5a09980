//go:build !linux

package cli

import "context"

func insideUndoing(context.Context, *patient) []finding {
	return held(false, "", "programs are held apart on Linux only")
}

func insideProcesses(context.Context, *patient) []finding {
	return held(false, "", "programs are held apart on Linux only")
}

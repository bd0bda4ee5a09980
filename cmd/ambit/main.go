// Command ambit lets AI agents work with people's accounts without holding
// their keys.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/ambit-dev/ambit/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

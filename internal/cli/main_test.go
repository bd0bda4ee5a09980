package cli_test

import (
	"context"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ambit-dev/ambit/internal/cli"
)

// transcriptVar names the file that gets a copy of everything that `ambit`
// prints in a script.
const transcriptVar = "TRANSCRIPT"

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ambit": func() { os.Exit(ambit()) }})
}

// ambit is what cmd/ambit does, with a copy of the output kept.
func ambit() int {
	var stdout, stderr io.Writer = os.Stdout, os.Stderr
	if path := os.Getenv(transcriptVar); path != "" {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			panic(err)
		}
		defer f.Close()
		stdout, stderr = io.MultiWriter(stdout, f), io.MultiWriter(stderr, f)
	}
	environ := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, transcriptVar+"=") })
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return cli.Main(ctx, os.Args[1:], environ, os.Stdin, stdout, stderr)
}

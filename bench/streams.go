package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/ambit-dev/ambit/e2e/world"
)

// perSignIn is how many live pages a sign-in keeps here; it may have 20.
const perSignIn = 20

// streams measures the memory of a server that keeps n idle live pages open.
func streams(ctx context.Context, dir, binary string, up *world.Third, n int) (err error) {
	b, err := newBroker(ctx, world.Config{Dir: filepath.Join(dir, "streams"), Binary: binary, Third: up})
	defer func() { err = errors.Join(err, b.Stop()) }()
	if err != nil {
		return err
	}
	if _, err := load(ctx, options{calls: 500, seconds: 10 * time.Second}, 16, b.call); err != nil { // warm
		return err
	}
	before, err := rss(b.pid())
	if err != nil {
		return err
	}
	ctx, hangUp := context.WithCancel(ctx)
	defer hangUp()
	for open := 0; open < n; {
		someone, err := b.NewTenant(ctx, fmt.Sprintf("reader %d", open))
		if err != nil {
			return err
		}
		for range min(perSignIn, n-open) {
			stream, err := someone.Person.Listen(ctx, b.URL+"/ui/events")
			if err != nil {
				return err
			}
			defer stream.Close()
			if _, err := io.ReadAtLeast(stream, make([]byte, 256), 1); err != nil {
				return fmt.Errorf("a live page says nothing: %w", err)
			}
			open++
		}
	}
	idle := time.NewTimer(10 * time.Second)
	defer idle.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-idle.C:
	}
	after, err := rss(b.pid())
	if err != nil {
		return err
	}
	fmt.Printf("%d idle live pages: %.0f MiB, %.0f MiB before them\n", n, after, before)
	return nil
}

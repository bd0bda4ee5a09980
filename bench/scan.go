package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ambit-dev/ambit/e2e/world"
)

// scanned measures `ambit scan`: a tree of small files, beside gitleaks when its binary is
// given, in three turns of which the medians are told (a tree of over 100,000 files in one:
// what it asks about is memory); then a file of ten gigabytes that is a hole, with one
// credential in its middle.
func scanned(ctx context.Context, dir, gitleaks string, files int) error {
	binary, err := world.Build(ctx, dir)
	if err != nil {
		return err
	}
	tree := filepath.Join(dir, "tree")
	size, planted, err := growTree(tree, files)
	if err != nil {
		return err
	}
	fmt.Printf("%d files, %.0f MiB, %d credentials\n\n| | MiB/s | processor s | peak RSS MiB | found |\n|---|---|---|---|---|\n", files, float64(size)/(1<<20), planted)
	programs := []struct {
		name string
		args []string
	}{{"ambit scan", []string{binary, "scan", tree, "--json"}}}
	if gitleaks != "" {
		programs = append(programs, struct {
			name string
			args []string
		}{"gitleaks", []string{gitleaks, "dir", tree, "--no-banner", "--exit-code", "0", "--report-format", "json", "--report-path", filepath.Join(dir, "gitleaks.json")}})
	}
	runs := make([][]scanRun, len(programs))
	turns := 3
	if files > 100_000 {
		turns = 1
	}
	for range turns {
		for i, p := range programs {
			r, err := runScan(ctx, p.args)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			runs[i] = append(runs[i], r)
		}
	}
	for i, p := range programs {
		slices.SortFunc(runs[i], func(a, b scanRun) int { return int(a.wall - b.wall) })
		r := runs[i][turns/2]
		found := fmt.Sprint(r.found)
		if i > 0 {
			found = fmt.Sprint(countJSON(filepath.Join(dir, "gitleaks.json")))
		}
		fmt.Printf("| %s | %.1f | %.1f | %d | %s |\n", p.name, float64(size)/(1<<20)/r.wall.Seconds(), r.cpu.Seconds(), r.rss, found)
	}
	hole := filepath.Join(dir, "hole.log")
	if err := sparse(hole); err != nil {
		return err
	}
	r, err := runScan(ctx, []string{binary, "scan", hole, "--json"})
	if err != nil {
		return err
	}
	fmt.Printf("| ambit scan, a hole of 10 GiB | %.0f | %.1f | %d | %d |\n", 10240/r.wall.Seconds(), r.cpu.Seconds(), r.rss, r.found)
	return nil
}

// pieced is a credential that opens nothing, made so that this file holds none.
func pieced(r *rand.Rand) string {
	const set = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	b := make([]byte, 36)
	for i := range b {
		b[i] = set[r.IntN(len(set))]
	}
	return "gh" + "p_" + string(b)
}

// growTree writes files as projects have them, a credential in each thousandth.
func growTree(tree string, files int) (size int64, planted int, err error) {
	r := rand.New(rand.NewPCG(8, 8))
	kinds := []struct{ ext, line string }{
		{".go", "func handler%d(w http.ResponseWriter, r *http.Request) { token := r.Header.Get(\"X-Token\"); _ = token }\n"},
		{".json", "\"item%d\": {\"name\": \"thing\", \"url\": \"https://example.com/a/b\", \"size\": 42, \"key\": \"value\"},\n"},
		{".md", "Section %d tells how a session starts, which keys it has and when the password of a user must be changed.\n"},
		{".yaml", "key%d: {image: nginx, replicas: 3, secretName: web-tls}\n"},
		{".log", "2026-11-28T10:00:00Z INFO request %d GET /v1/items status=200 trace=4bf92f3577b34da6a3ce929d0e0e4736\n"},
	}
	for i := range files {
		folder := filepath.Join(tree, fmt.Sprint(i/1000))
		if i%1000 == 0 {
			if err := os.MkdirAll(folder, 0o700); err != nil {
				return 0, 0, err
			}
		}
		k := kinds[i%len(kinds)]
		var b strings.Builder
		for n := range 4 + r.IntN(12) {
			fmt.Fprintf(&b, k.line, n)
		}
		if i%1000 == 500 {
			fmt.Fprintf(&b, "GITHUB_TOKEN=%s\n", pieced(r))
			planted++
		}
		size += int64(b.Len())
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("f%d%s", i, k.ext)), []byte(b.String()), 0o600); err != nil {
			return 0, 0, err
		}
	}
	return size, planted, nil
}

// sparse writes ten gigabytes of nothing with a credential in the middle.
func sparse(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte("\nGITHUB_TOKEN="+pieced(rand.New(rand.NewPCG(9, 9)))+"\n"), 5<<30); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Truncate(10 << 30); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

type scanRun struct {
	wall, cpu time.Duration
	rss       int64 // MiB
	found     int
}

func runScan(ctx context.Context, args []string) (scanRun, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	began := time.Now()
	out, err := cmd.Output()
	if err != nil {
		return scanRun{}, err
	}
	r := scanRun{wall: time.Since(began), cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		r.rss = u.Maxrss >> 10
	}
	var report struct{ Findings []json.RawMessage }
	_ = json.Unmarshal(out, &report)
	r.found = len(report.Findings)
	return r, nil
}

func countJSON(name string) int {
	b, err := os.ReadFile(name)
	var list []json.RawMessage
	if err != nil || json.Unmarshal(b, &list) != nil {
		return -1
	}
	return len(list)
}

package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// planted lays one credential into a folder, made of pieces.
func planted(t *testing.T) (dir, value string) {
	t.Helper()
	dir = t.TempDir()
	value = "ghp_" + "Zq7Lw2Xk9Rb4Tn6Vc1Jd8Hs3Mf5Pg0YaUeWi"
	text := `{"mcpServers":{"github":{"command":"npx","env":{"GITHUB_TOKEN":"` + value + `"}}}}`
	if err := os.WriteFile(filepath.Join(dir, ".mcp.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, value
}

func runScan(t *testing.T, env []string, args ...string) (int, string, string) {
	t.Helper()
	var out, errs bytes.Buffer
	code := Main(t.Context(), append([]string{"scan"}, args...), env, &bytes.Buffer{}, &out, &errs)
	return code, out.String(), errs.String()
}

// Issue 8: every form tells the finding and where it lies, none holds the value, and
// --fail-on has a code of its own. threats.md P2.
func TestScanForms(t *testing.T) {
	t.Parallel()
	dir, value := planted(t)
	for form, must := range map[string]string{"": "High risk", "--json": `"findings"`, "--sarif": `"2.1.0"`, "--html": "<!doctype html>", "--debug": "High risk"} {
		args := []string{dir}
		if form != "" {
			args = append(args, form)
		}
		code, out, errs := runScan(t, nil, args...)
		if code != exitOK || !strings.Contains(out, must) || !strings.Contains(out, ".mcp.json") || !strings.Contains(out, "GITHUB_TOKEN") {
			t.Errorf("%q: code %d\n%s\n%s", form, code, out, errs)
		}
		if strings.Contains(out+errs, value) || strings.Contains(out+errs, value[8:20]) {
			t.Errorf("%q: the output holds the value", form)
		}
	}
	if code, _, errs := runScan(t, nil, dir, "--fail-on", "high"); code != exitFound || !strings.Contains(errs, "1 credential") {
		t.Errorf("--fail-on high: code %d, %s", code, errs)
	}
	if code, _, _ := runScan(t, nil, t.TempDir(), "--fail-on", "any"); code != exitOK {
		t.Errorf("an empty folder: code %d", code)
	}
	if code, _, _ := runScan(t, nil, dir, "--json", "--sarif"); code != exitUsage {
		t.Errorf("two forms at once: code %d", code)
	}
}

// A baseline accepts what was there, holds no value, and tells what comes later.
func TestScanBaseline(t *testing.T) {
	t.Parallel()
	dir, value := planted(t)
	base := filepath.Join(t.TempDir(), "baseline.json")
	if code, _, errs := runScan(t, nil, dir, "--write-baseline", base); code != exitOK {
		t.Fatal(errs)
	}
	text, err := os.ReadFile(base)
	if err != nil || bytes.Contains(text, []byte(value)) {
		t.Fatalf("the baseline: %v\n%s", err, text)
	}
	if code, out, _ := runScan(t, nil, dir, "--baseline", base, "--fail-on", "any"); code != exitOK || !strings.Contains(out, "accepted") {
		t.Errorf("code %d with everything accepted\n%s", code, out)
	}
	later := "OPENAI_API_KEY=sk-" + "proj-" + "b7Qw9Xz2Lk4Rt6Vn8Mc1Jd3Hs5Pf0GyAeUiOr7Tq\n"
	if err := os.WriteFile(filepath.Join(dir, ".env"), []byte(later), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, _ := runScan(t, nil, dir, "--baseline", base, "--json", "--fail-on", "any")
	var r struct{ Findings []struct{ File, Kind string } }
	if err := json.Unmarshal([]byte(out), &r); code != exitFound || err != nil || len(r.Findings) != 1 || filepath.Base(r.Findings[0].File) != ".env" {
		t.Errorf("code %d, %v: %s", code, err, out)
	}
}

// --home reads the known places below the home folder, also through a link.
func TestScanHome(t *testing.T) {
	t.Parallel()
	dir, value := planted(t)
	home := t.TempDir()
	if err := os.MkdirAll(filepath.Join(home, ".cursor"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, ".mcp.json"), filepath.Join(home, ".cursor", "mcp.json")); err != nil {
		t.Fatal(err)
	}
	code, out, errs := runScan(t, []string{"HOME=" + home}, "--home", "--json")
	if code != exitOK || !strings.Contains(out, `"client":"Cursor"`) || !strings.Contains(out, `"agent":"given"`) || strings.Contains(out, value) {
		t.Errorf("code %d\n%s\n%s", code, out, errs)
	}
}

// An attack that went through: a link in a folder of somebody else's had the baseline
// written over a file elsewhere. No link is followed, whether it leads to a file or not.
func TestABaselineFollowsNoLink(t *testing.T) {
	t.Parallel()
	dir, _ := planted(t)
	kept := filepath.Join(t.TempDir(), "profile")
	if err := os.WriteFile(kept, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	absent := filepath.Join(filepath.Dir(kept), "absent")
	for _, to := range []string{kept, absent} {
		link := filepath.Join(dir, filepath.Base(to)+".json")
		if err := os.Symlink(to, link); err != nil {
			t.Skip("no links here")
		}
		if code, _, errs := runScan(t, nil, dir, "--write-baseline", link); code == exitOK || !strings.Contains(errs, "not a link") {
			t.Errorf("a link to %s: code %d, %s", filepath.Base(to), code, errs)
		}
	}
	if text, err := os.ReadFile(kept); err != nil || string(text) != "mine" {
		t.Errorf("the file elsewhere: %q, %v", text, err)
	}
	if _, err := os.Lstat(absent); err == nil {
		t.Error("a file elsewhere was made")
	}
	base := filepath.Join(dir, "baseline.json")
	for range 2 { // a file that is there is written over
		if code, _, errs := runScan(t, nil, dir, "--write-baseline", base); code != exitOK {
			t.Errorf("a plain file: code %d, %s", code, errs)
		}
	}
}

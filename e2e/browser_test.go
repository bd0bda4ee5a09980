//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
)

// patience is how long a page may take on a small machine under load.
const patience = 30 * time.Second

// browser is one person's Chromium: one tab, and an authenticator that
// verifies its user. Whatever a page does against its own policy, and every
// script error, fails the test.
type browser struct {
	t    *testing.T
	ctx  context.Context
	base string

	mu       sync.Mutex
	muted    bool // while a judge of ours runs within the page
	problems []string
}

func newBrowser(t *testing.T, base string) *browser {
	t.Helper()
	opts := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(setting(t, "AMBIT_CHROMIUM")), chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(time.Minute),
	}
	for _, flag := range []string{
		"headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking", "disable-component-update",
		"disable-sync", "disable-dev-shm-usage", "hide-scrollbars", "force-color-profile=srgb",
	} {
		name, value, ok := strings.Cut(flag, "=")
		if ok {
			opts = append(opts, chromedp.Flag(name, value))
		} else {
			opts = append(opts, chromedp.Flag(name, true))
		}
	}
	alloc, stop := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, cancel := chromedp.NewContext(alloc)
	b := &browser{t: t, ctx: ctx, base: base}
	t.Cleanup(func() {
		b.mu.Lock()
		for _, p := range b.problems {
			t.Errorf("the page: %s", p)
		}
		b.mu.Unlock()
		if t.Failed() {
			b.shoot("failed")
			t.Logf("the page is at %s:\n%s", b.location(), b.text("body"))
		}
		_ = chromedp.Cancel(ctx)
		cancel()
		stop()
	})
	// The browser lives as long as the context of the first call.
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting Chromium: %v", err)
	}
	if err := chromedp.Listen(ctx, b.watch); err != nil {
		t.Fatal(err)
	}
	b.do("making an authenticator",
		command(audits.Enable, cdp.Empty{}), command(cdplog.Enable, cdp.Empty{}), command(runtime.Enable, cdp.Empty{}),
		command(webauthn.Enable, webauthn.EnableParams{}),
		command(webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
			Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal,
			HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
		}}))
	b.desktop()
	return b
}

// command sends one command of the protocol and forgets its answer.
func command[P, R any](c cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, c, params)
		return err
	})
}

func (b *browser) watch(event any) {
	switch e := event.(type) {
	case *audits.EventIssueAdded:
		if d := e.Issue.Details.ContentSecurityPolicyIssueDetails; d != nil {
			b.complain(fmt.Sprintf("content security policy: %s blocked %s (%s)", d.ViolatedDirective, d.BlockedURL, d.ContentSecurityPolicyViolationType))
		}
	case *cdplog.EventEntryAdded:
		if e.Entry.Source == cdplog.EntrySourceSecurity && e.Entry.Level == cdplog.EntryLevelError {
			b.complain(e.Entry.Text)
		}
	case *runtime.EventExceptionThrown:
		b.complain("script error: " + e.ExceptionDetails.Text)
	}
}

func (b *browser) complain(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.muted {
		b.problems = append(b.problems, text)
	}
}

func (b *browser) mute(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.muted = on
}

func (b *browser) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("%s at %s: %v", what, b.location(), err)
	}
}

// ask evaluates an expression in the page.
func ask[T any](b *browser, js string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](js))
	if err != nil {
		b.t.Fatalf("evaluating %s at %s: %v", js, b.location(), err)
	}
	return v
}

// open goes to a path of the server, or to a whole URL.
func (b *browser) open(to string) {
	b.t.Helper()
	if strings.HasPrefix(to, "/") {
		to = b.base + to
	}
	b.do("opening "+to, chromedp.Navigate(to))
	b.settled()
}

// settled waits until the page is shown whole.
func (b *browser) settled() {
	b.t.Helper()
	b.until("the page is shown", `document.readyState === "complete"`)
}

// until waits for a condition in the page, over navigations.
func (b *browser) until(what, js string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	var err error
	for ctx.Err() == nil {
		var ok bool
		// A navigation in between loses the answer: ask again.
		if ok, err = chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+js+")")); err == nil && ok {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.t.Fatalf("waiting until %s: still not true after %s: %s (%v)", what, patience, js, err)
}

// arrives waits for the server's own page at a path that begins with prefix.
func (b *browser) arrives(prefix string) {
	b.t.Helper()
	b.until("the browser is at "+prefix, fmt.Sprintf(`location.origin === %q && location.pathname.startsWith(%q) && document.readyState === "complete"`, b.base, prefix))
}

func (b *browser) click(selector string) {
	b.t.Helper()
	b.until(selector+" can be used", fmt.Sprintf(`(e => e && !e.disabled && e.checkVisibility())(document.querySelector(%q))`, selector))
	b.do("clicking "+selector, chromedp.Click(chromedp.CSS(selector)))
}

// clickText clicks the first link or button that says text.
func (b *browser) clickText(text string) {
	b.t.Helper()
	b.until("something says "+text, fmt.Sprintf(`(() => {
		const e = [...document.querySelectorAll("a, button, summary")].find((e) => !e.disabled && e.checkVisibility() && e.textContent.trim().includes(%q));
		for (const old of document.querySelectorAll("[data-e2e-target]")) old.removeAttribute("data-e2e-target");
		e?.setAttribute("data-e2e-target", "");
		return e;
	})()`, text))
	b.do("clicking "+text, chromedp.Click(chromedp.CSS("[data-e2e-target]")))
}

// fill types into a field after emptying it.
func (b *browser) fill(selector, value string) {
	b.t.Helper()
	b.do("filling "+selector, chromedp.WaitVisible(chromedp.CSS(selector)), chromedp.SetValue(chromedp.CSS(selector), value))
}

func (b *browser) keys(keys string) { b.t.Helper(); b.do("typing", chromedp.KeyEvent(keys)) }

// text is what a person reads in an element; empty when there is none.
func (b *browser) text(selector string) string {
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	s, _ := chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf(`document.querySelector(%q)?.innerText ?? ""`, selector)))
	return s
}

func (b *browser) location() string {
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	s, _ := chromedp.Run(ctx, chromedp.Location())
	return s
}

func (b *browser) phone()   { b.t.Helper(); b.size(390, 844, true) }
func (b *browser) desktop() { b.t.Helper(); b.size(1280, 800, false) }

func (b *browser) size(width, height int64, mobile bool) {
	b.t.Helper()
	b.do("resizing", command(emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1, Mobile: mobile}))
}

func (b *browser) theme(name string) {
	b.t.Helper()
	b.do("choosing a theme", command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: name}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}}))
}

// inspect judges the page that is shown, at two widths and in two themes:
// nothing serious for axe-core, and nothing wider than the screen. With
// AMBIT_SHOTS set it keeps pictures there.
func (b *browser) inspect(name string) {
	b.t.Helper()
	b.settled()
	defer func() { b.theme("light"); b.desktop() }()
	b.size(360, 780, true)
	b.fits(name)
	for _, theme := range []string{"light", "dark"} {
		b.theme(theme)
		for _, width := range []string{"phone", "desktop"} {
			if width == "phone" {
				b.phone()
			} else {
				b.desktop()
			}
			b.fits(name)
			b.shoot(name + "-" + width + "-" + theme)
			for _, f := range b.axe() {
				b.t.Errorf("axe-core on %s (%s, %s): %s %s: %s\n\t%s", name, width, theme, f.Impact, f.ID, f.Help, strings.Join(f.Nodes, "\n\t"))
			}
		}
	}
}

func (b *browser) fits(name string) {
	b.t.Helper()
	if over := ask[float64](b, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); over > 0 {
		b.t.Errorf("%s is %v px wider than a screen of %v px", name, over, ask[float64](b, `screen.width`))
	}
}

func (b *browser) shoot(name string) {
	dir := os.Getenv("AMBIT_SHOTS")
	if dir == "" {
		return
	}
	ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, strings.ReplaceAll(b.t.Name(), "/", "-")+"-"+name+".png"), png, 0o644)
	}
	if err != nil {
		b.t.Logf("no picture of %s: %v", name, err)
	}
}

// finding is one serious or critical rule that a page breaks.
type finding struct {
	ID     string   `json:"id"`
	Impact string   `json:"impact"`
	Help   string   `json:"help"`
	Nodes  []string `json:"nodes"`
}

// axe runs axe-core in a world of its own beside the page's scripts, where the
// page's policy does not bind it.
func (b *browser) axe() []finding {
	b.t.Helper()
	src, err := os.ReadFile(filepath.Join(setting(b.t, "AMBIT_NODE_MODULES"), "axe-core", "axe.min.js"))
	if err != nil {
		b.t.Fatal(err)
	}
	b.mute(true)
	defer b.mute(false)
	var findings []finding
	b.do("running axe-core", chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		frames, err := cdp.Call(ctx, t, page.GetFrameTree, cdp.Empty{})
		if err != nil {
			return err
		}
		world, err := cdp.Call(ctx, t, page.CreateIsolatedWorld, page.CreateIsolatedWorldParams{FrameID: frames.FrameTree.Frame.ID, WorldName: "axe"})
		if err != nil {
			return err
		}
		yes := true
		run := func(js string) (*runtime.RemoteObject, error) {
			r, err := cdp.Call(ctx, t, runtime.Evaluate, runtime.EvaluateParams{
				Expression: js, ContextID: world.ExecutionContextID, AwaitPromise: &yes, ReturnByValue: &yes,
			})
			if err == nil && r.ExceptionDetails != nil {
				err = errors.New(r.ExceptionDetails.Text)
			}
			return r.Result, err
		}
		if _, err := run(string(src) + "\n;undefined"); err != nil {
			return err
		}
		r, err := run(`axe.run(document, {preload: false, resultTypes: ["violations"]}).then((r) => r.violations
			.filter((v) => v.impact === "serious" || v.impact === "critical")
			.map((v) => ({id: v.id, impact: v.impact, help: v.help, nodes: v.nodes.map((n) => n.target.join(" ") + " " + n.html.slice(0, 160) + " " + n.any.map((c) => c.message).join("; "))})))`)
		if err != nil {
			return err
		}
		return json.Unmarshal(r.Value, &findings)
	}))
	return findings
}

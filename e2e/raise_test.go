//go:build e2e

package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// says wants the sentence that the person decides on.
func (b *browser) says(want string) {
	b.t.Helper()
	if got := b.text("h1"); !strings.Contains(got, want) {
		b.t.Fatalf("%s says %q, want %q", b.location(), got, want)
	}
}

// submit sends the form with this action by its own button.
func (b *browser) submit(action string) {
	b.t.Helper()
	b.click(`form[action="` + action + `"] .actions button`)
}

// What gives somebody more than they had is asked for in plain words, on any
// screen, and made with a passkey (product.md rule 4).
func TestRaisingAuthority(t *testing.T) {
	t.Parallel()
	s := dev(t, sqlite)
	b := signIn(t, s)

	b.open("/ui/organization")
	b.fill("#new-name", "Ada Novak")
	b.fill("#new-email", "ada@example.com")
	ask[bool](b, `(() => { document.getElementById("new-role").value = "approver"; return true })()`)
	b.clickText("Add")
	b.until("the page asks", `document.querySelector("form[data-passkey=get]")`)
	b.says("Ada Novak becomes an approver of default.")
	b.inspect("raise-person")
	b.click("[data-prove]")
	b.until("the link is shown", `document.querySelector(".once")`)
	b.inspect("raise-person-made")

	b.open("/ui/organization")
	b.inspect("organization")
	ask[bool](b, `(() => { const f = [...document.querySelectorAll("form[action$='/role']")].at(-1); f.role.value = "admin"; f.querySelector("button").click(); return true })()`)
	b.until("the page asks", `document.querySelector("form[data-passkey=get]")`)
	b.says("Ada Novak becomes an admin of default.")
	b.inspect("raise-role")
	b.click("[data-prove]")
	b.until("the role is changed", `document.querySelector(".notice.good")`)

	b.open("/ui/providers/new?template=yaml")
	ask[bool](b, `(() => { document.getElementById("yaml").value = "id: acme\nname: Acme\nwebsite: https://acme.example\nauth: api_key\napi: {base: [\"https://api.acme.example\"]}\ninject: {header: Authorization, format: \"Bearer {api_key}\"}\ngeneric: {read: true, write: true}\n"; return true })()`)
	b.clickText("Continue")
	b.until("the page asks", `document.querySelector("form[data-passkey=get]")`)
	b.says("Its keys go to api.acme.example.")
	b.inspect("raise-provider")
	b.clickText("Back to the form")
	b.until("the form is filled in", `document.getElementById("yaml")?.value.includes("api.acme.example")`)
	b.clickText("Continue")
	b.until("the page asks", `document.querySelector("form[data-passkey=get]")`)
	b.click("[data-prove]")
	b.until("the provider is there", `location.pathname === "/ui/providers" && document.readyState === "complete" && document.querySelector("main").textContent.includes("Acme")`)

	b.open("/ui/account")
	b.fill("#email", "owner@example.com")
	b.submit("/ui/account/profile")
	b.until("the page asks", `document.querySelector("form[data-passkey=get]")`)
	b.says("You will be known as owner@example.com.")
	b.inspect("raise-profile")
	b.click("[data-prove]")
	b.until("the address is changed", `document.querySelector(".notice.good")`)

	// A recovery is told on every page, until the owner says that they know.
	cmd := exec.CommandContext(t.Context(), s.node.Binary, "recover", "ada@example.com", "--data", filepath.Join(s.node.Home, "data"))
	cmd.Env = append([]string{"HOME=" + s.node.Home}, s.node.Env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ambit recover: %v\n%s", err, out)
	}
	b.open("/ui/sessions")
	b.inspect("recovery-told")
	if got := b.text("main"); !strings.Contains(got, "A recovery link was made on the server for Ada Novak.") {
		t.Fatalf("the owner is not told: %s", got)
	}
	b.clickText("I know about it")
	b.until("the notice is gone, and the page the same", `location.pathname === "/ui/sessions" && document.readyState === "complete" && !document.querySelector("main").textContent.includes("recovery link")`)
}

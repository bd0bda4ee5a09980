package scan

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A bug: a report named where to revoke a key beside each finding only, and at its end
// nowhere; when a key expires was told only once it had.
func TestWhatIsToBeWithdrawn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.env"), "GITHUB_TOKEN="+token(1)+"\nDB_PASSWORD=kT4vvd!9QmZr\n")
	write(t, filepath.Join(dir, "b.env"), "A="+token(1)+"\nB="+token(2)+"\nAWS_ACCESS_KEY_ID=AKIA"+"Q7ZL2XKRB4TN6VCJ\nAWS_SECRET_ACCESS_KEY="+random40(1)+"\n")
	r := scanDir(t, dir, Options{})
	got := map[string]int{}
	for _, w := range Withdrawals(r.Findings) {
		got[w.Title+" "+w.Page] = w.Count
	}
	if len(got) != 3 || got["GitHub personal access token https://github.com/settings/tokens"] != 2 || got["Password "] != 1 || got["AWS secret access key https://console.aws.amazon.com/iam/home#/security_credentials"] != 1 {
		t.Errorf("%v", got)
	}
	var page strings.Builder
	if err := HTML(&page, r, time.Now()); err != nil || !strings.Contains(page.String(), "GitHub personal access token (2): <a href=\"https://github.com/settings/tokens\"") {
		t.Errorf("%v: the page does not say it", err)
	}
	later := time.Unix(1_800_000_000, 0)
	f := Finding{Kind: "jwt", Title: "JSON Web Token", Expires: &later}
	if f.weigh(later.AddDate(0, -1, 0)); !strings.Contains(f.Reason, "it expires on 2027-01-15") {
		t.Errorf("%s", f.Reason)
	}
}

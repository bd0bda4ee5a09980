package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// Issue 7, "aws": the program signs with keys that open nothing, and what arrives is
// signed with the account's. What an action does decides, where its method says less.
func TestAWS(t *testing.T) {
	t.Parallel()
	aws := another(t, "aws")
	var mu sync.Mutex
	var seen []string
	var place, stored string
	w := newWorldWith(t, sqldbtest.Open(t, sqldb.SQLite), gateway.Egress{}, func(w *world) []string {
		place = w.secure(t, func(rw http.ResponseWriter, r *http.Request) {
			_ = r.ParseForm()
			auth := r.Header.Get("Authorization")
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, r.Method+" "+r.URL.Path+" "+r.Form.Get("Action"))
			if !strings.HasPrefix(auth, "AWS4-HMAC-SHA256 Credential=AKIAACCOUNT000000001/") || strings.Contains(fmt.Sprint(r.Header, r.URL), "ambit") {
				t.Errorf("%s %s came with %q", r.Method, r.URL, auth)
			}
			rw.Header().Set("X-Seen", auth)
			switch {
			case r.Form.Get("Action") == "DescribeRegions":
				fmt.Fprint(rw, `<DescribeRegionsResponse><regionInfo><item><regionName>eu-central-1</regionName></item></regionInfo></DescribeRegionsResponse>`)
			case r.URL.Path == "/":
				fmt.Fprint(rw, `<ListAllMyBucketsResult><Buckets><Bucket><Name>acme-data</Name><CreationDate>2026-01-01T00:00:00.000Z</CreationDate></Bucket></Buckets></ListAllMyBucketsResult>`)
			default:
				rw.Header().Set("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
				rw.Header().Set("Etag", `"0"`)
				if body, _ := io.ReadAll(r.Body); r.Method == "PUT" {
					stored = string(body)
					return
				}
				fmt.Fprint(rw, "what is in it")
			}
		})
		return []string{place}
	})
	w.Put(t, fmt.Sprintf("id: images\nname: Cloud\nauth: api_key\napi: {base: [\"https://%s\"]}\ninject: {sign: aws_sigv4, service: s3, region: eu-central-1}\ngeneric: {read: true, write: true, destructive: true}\n", place))
	_, err := w.Credentials.AddKey(t.Context(), account.ByPerson(w.owner.Signed(t)).In(w.Environment), credential.Start{Environment: w.Environment, Organization: w.Organization, Provider: "images"}, w.owner.ID,
		map[string]secret.Value{"access_key_id": secret.FromString("AKIAACCOUNT000000001"), "secret_access_key": secret.FromString(canary)}, account.Agreement{})
	must(t, err)
	w.images(t, policy.Read, policy.Write)
	f := foreignOf(t, w)
	must(t, os.MkdirAll(filepath.Join(f.dir, ".aws"), 0o700))
	must(t, os.WriteFile(filepath.Join(f.dir, ".aws", "config"), []byte("[default]\nregion = eu-central-1\ns3 =\n  addressing_style = path\n"), 0o600))
	run := func(args ...string) (string, error) {
		return f.command(t, "", "/usr/bin/env", append([]string{"AWS_CA_BUNDLE=" + f.ca, "AWS_ACCESS_KEY_ID=AKIAambit_placeholder_000", "AWS_SECRET_ACCESS_KEY=ambit_placeholder", "AWS_MAX_ATTEMPTS=1", "AWS_PAGER=",
			aws, "--endpoint-url", "https://" + place}, args...)...)
	}
	for _, c := range []struct {
		args         []string
		says, effect string
	}{
		{[]string{"s3", "ls"}, "acme-data", "read"},
		{[]string{"s3api", "get-object", "--bucket", "acme-data", "--key", "a/b.txt", "/dev/stdout"}, "what is in it", "read"},
		{[]string{"s3api", "put-object", "--bucket", "acme-data", "--key", "a/b.txt", "--body", f.ca}, "ETag", "write"},
		{[]string{"ec2", "describe-regions"}, "eu-central-1", "write"}, // a POST: at a record of S3 an action makes it no less
	} {
		out, err := run(c.args...)
		if e := w.last(t); err != nil || !strings.Contains(out, c.says) || e.Effect != c.effect || e.Provider != "images" {
			t.Errorf("%v: %v, on record as %q: %s", c.args, err, e.Effect, out)
		}
	}
	mu.Lock()
	before := len(seen)
	mu.Unlock()
	for _, args := range [][]string{
		{"sts", "assume-role", "--role-arn", "arn:aws:iam::000000000000:role/r", "--role-session-name", "s"},
		{"s3api", "put-object-acl", "--bucket", "acme-data", "--key", "k", "--acl", "public-read"},
		{"ec2", "terminate-instances", "--instance-ids", "i-0"},
	} {
		if out, err := run(args...); err == nil {
			t.Errorf("%v: %s", args, out)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if stored != string(w.trusted) { // sent in pieces that the client signed, and stored without those
		t.Errorf("stored is %q", stored)
	}
	if len(seen) != before {
		t.Errorf("arrived: %q", seen[before:])
	}
}

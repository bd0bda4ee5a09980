package provider_test

import (
	"net/http"
	"net/url"
	"regexp"
	"testing"

	"github.com/ambit-dev/ambit/internal/provider"
)

// Whatever the path of a request, the token that is bought for it opens one repository,
// and for a reading request nothing but to pull (threats.md U4).
func FuzzRegistryScopes(f *testing.F) {
	for _, path := range []string{"", "_catalog", "acme/app/manifests/latest", "a/blobs/uploads/", "a/blobs/uploads/7/", "a/b/tags/list", "a/manifests/manifests/x", "a%2fb/manifests/x", "a,push/manifests/x", "a:pull/manifests/x",
		"../a/manifests/x", "a//manifests/x", "a b/manifests/x", "a/referrers/sha256:0", "a/blobs/sha256:0"} {
		f.Add(path, "acme/base")
	}
	one := regexp.MustCompile(`^repository:[a-z0-9._/-]+:(pull|pull,push|delete)$`)
	f.Fuzz(func(t *testing.T, path, from string) {
		u := &url.URL{Scheme: "https", Host: "registry.example.com", Path: "/v2/" + path, RawQuery: url.Values{"from": {from}}.Encode()}
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
			got := provider.RegistryScopes(method, u)
			for i, s := range got {
				pull := method == http.MethodGet || i > 0 // of another repository
				if s != "registry:catalog:*" && !one.MatchString(s) || i > 1 || pull && s != "registry:catalog:*" && s[len(s)-5:] != ":pull" {
					t.Fatalf("%s %q from %q asks for %q", method, path, from, got)
				}
			}
		}
	})
}

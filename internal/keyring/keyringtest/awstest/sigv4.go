package awstest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// verify checks a request's Signature Version 4 and gives the access key, or the
// code with which the service refuses it.
func verify(r *http.Request, body []byte, secrets map[string]string, now time.Time) (access, code string) {
	fields, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ")
	if !ok {
		return "", "MissingAuthenticationTokenException"
	}
	auth := map[string]string{}
	for part := range strings.SplitSeq(fields, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		auth[name] = value
	}
	scope := strings.Split(auth["Credential"], "/")
	if len(scope) != 5 || scope[4] != "aws4_request" || scope[2] != Region {
		return "", "IncompleteSignatureException"
	}
	key, ok := secrets[scope[0]]
	if !ok {
		return "", "UnrecognizedClientException"
	}
	stamp := r.Header.Get("X-Amz-Date")
	at, err := time.Parse("20060102T150405Z", stamp)
	if err != nil || now.Sub(at).Abs() > 5*time.Minute || !strings.HasPrefix(stamp, scope[1]) {
		return "", "InvalidSignatureException"
	}
	signed := strings.Split(auth["SignedHeaders"], ";")
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Amz-") && !slices.Contains(signed, strings.ToLower(name)) {
			return "", "InvalidSignatureException"
		}
	}
	if !slices.IsSorted(signed) || !slices.Contains(signed, "host") {
		return "", "InvalidSignatureException"
	}
	toSign := strings.Join([]string{"AWS4-HMAC-SHA256", stamp, strings.Join(scope[1:], "/"), hexHash([]byte(canonical(r, body, signed)))}, "\n")
	mac := []byte("AWS4" + key)
	for _, part := range append(scope[1:], toSign) {
		mac = sum(mac, part)
	}
	if !hmac.Equal([]byte(hex.EncodeToString(mac)), []byte(auth["Signature"])) {
		return "", "InvalidSignatureException"
	}
	return scope[0], ""
}

func canonical(r *http.Request, body []byte, signed []string) string {
	var headers strings.Builder
	for _, name := range signed {
		value := strings.Join(r.Header.Values(name), ",")
		switch name {
		case "host":
			value = r.Host
		case "content-length":
			value = fmt.Sprint(len(body))
		}
		fmt.Fprintf(&headers, "%s:%s\n", name, strings.Join(strings.Fields(value), " "))
	}
	query, _ := url.ParseQuery(r.URL.RawQuery)
	return strings.Join([]string{r.Method, r.URL.EscapedPath(), query.Encode(), headers.String(), strings.Join(signed, ";"), hexHash(body)}, "\n")
}

func sum(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

func hexHash(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

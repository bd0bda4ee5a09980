package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/secret"
)

// slackAddress is where a Slack webhook takes messages.
func slackAddress(v secret.Value) string { return string(v.Reveal()) }

// Sign gives the signature of a message by the Standard Webhooks specification:
// "v1," and the base64 of HMAC-SHA256 over id, seconds and body with dots between.
// The key is written whsec_ and its base64.
func Sign(key secret.Value, event string, at time.Time, body []byte) (string, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(string(key.Reveal()), "whsec_"))
	if err != nil {
		return "", fmt.Errorf("reading the key of a webhook: %T", err)
	}
	mac := hmac.New(sha256.New, raw)
	fmt.Fprintf(mac, "%s.%d.", event, at.Unix())
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)), nil
}

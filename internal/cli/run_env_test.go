package cli

import (
	"slices"
	"strings"
	"testing"
)

// An attack that went through: the program of "ambit run" found these secrets in its
// environment. What is none stays, or the program does not work.
func TestRunLeavesSecretsOut(t *testing.T) {
	t.Parallel()
	secrets := []string{
		"DB_PASS=hunter2hunter2", "SMTP_PASS=hunter2", "REDIS_PASS=x", "SSHPASS=x", "PASS=x", "MYSQL_PWD=x", "OP_SESSION_acme=x", "BW_SESSION=x",
		"SLACK_WEBHOOK_URL=https://hooks.slack.test/x", "NOTIFY=https://hooks.slack" + ".com/services/T0/B0/x", "CHAT=https://discord.test/api/webhooks/1/x",
		"PIP_INDEX_URL=https://ghp_" + "canary0123456789@pip.test/simple", "MIRROR=https://canary0123456789canary@pip.test/simple",
		"AZURE_STORAGE_CONNECTION_STRING=x", "STORE=DefaultEndpointsProtocol=https;AccountName=a;AccountKey=Y2FuYXJ5;EndpointSuffix=x", "BUS=Endpoint=sb://x/;SharedAccessKey=Y2FuYXJ5",
		"PG=host=db user=me password=canary", "BLOB=https://a.blob.test/c?sv=1&sig=Y2FuYXJ5Y2FuYXJ5",
		"CURL_ARGS=-H 'Authorization: Basic bWU6Y2FuYXJ5'", "NOTE=say Bearer canary0123456789 to it", "HEADERS={\"X-Api-Key\": \"canary\"}",
		"LOGIN=user ghp_" + "canary0123456789canary",
	}
	plain := []string{
		"PATH=/usr/bin:/opt/sk-tools-of-somebody/bin:/home/me/npm_modules_global/bin", "PWD=/home/me", "OLDPWD=/home/me", "DESKTOP_SESSION=gnome", "XDG_SESSION_ID=4",
		"ORIGIN=ssh://git@github.test/a/b", "SHOP=https://shop.test/a?page=2&key=1", "GIT_ASKPASS=/usr/bin/ask", "COMPASS=north", "LS_COLORS=*.key=00;33:*.tar=01;31",
		"PS1=\\u@\\h:\\w\\$ ", "TERM=xterm-256color", "LANG=C.UTF-8", "HOME=/home/me",
	}
	git := []string{"GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=http.extraHeader", "GIT_CONFIG_VALUE_0=Authorization: Basic bWU6Y2FuYXJ5", "GIT_CONFIG_KEY_1=safe.directory", "GIT_CONFIG_VALUE_1=/src"}
	lists := func(keep ...string) (env, dropped []string) {
		r := &run{command: &command{env: map[string]string{}}, args: []string{"true"}, keep: keep}
		for _, v := range slices.Concat(secrets, plain, git) {
			name, value, _ := strings.Cut(v, "=")
			r.env[name] = value
		}
		return r.environment(runAccess{ProxyURL: "http://127.0.0.1:7421", Token: "t"}, trustFiles{})
	}
	env, dropped := lists()
	for _, v := range slices.Concat(secrets, git) { // git does not start with half of its settings
		name, _, _ := strings.Cut(v, "=")
		if slices.Contains(env, v) || !slices.Contains(dropped, name) {
			t.Errorf("%s stays", name)
		}
	}
	for _, v := range plain {
		if !slices.Contains(env, v) {
			t.Errorf("%s is left out", v)
		}
	}
	env, _ = lists("GIT_CONFIG_VALUE_0", "DB_PASS")
	for _, v := range append(git, secrets[0]) {
		if !slices.Contains(env, v) {
			t.Errorf("%s is to be kept", v)
		}
	}
}

package cli

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Issue 7, "aws, gcloud": their programs get files of the session's own, so that neither
// a profile nor a sign-in of the person's is used in it.
func TestRunWritesSettingsOfClouds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := runAccess{ProxyURL: "http://127.0.0.1:7421", Token: "t", Hosts: []string{"s3.eu-central-1.amazonaws.com", "storage.googleapis.com"},
		Variables: map[string]string{"AWS_ACCESS_KEY_ID": "AKIAambit_placeholder_", "AWS_SECRET_ACCESS_KEY": "ambit_placeholder_"}}
	set, err := cloudSettings(dir, a)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(set, a.Variables)
	a.Variables = set
	r := &run{command: &command{env: map[string]string{"AWS_PROFILE": "production", "AWS_SESSION_TOKEN": "x", "AWS_CONFIG_FILE": "/home/me/.aws/config"}}, args: []string{"true"}}
	env, _ := r.environment(a, trustFiles{})
	text := "\n" + strings.Join(env, "\n") + "\n"
	for _, want := range []string{"\nAWS_PROFILE=default\n", "\nAWS_CONFIG_FILE=" + dir, "\nAWS_SHARED_CREDENTIALS_FILE=" + dir, "\nAWS_ACCESS_KEY_ID=AKIAambit_placeholder_\n", "\nCLOUDSDK_AUTH_ACCESS_TOKEN_FILE=" + dir} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing: %s", want, text)
		}
	}
	if strings.Contains(text, "AWS_SESSION_TOKEN") {
		t.Errorf("a session token stays: %s", text)
	}
	for name, want := range map[string]string{"aws-config": "region = eu-central-1\n", "aws-credentials": "", "gcloud-token": "ambit_placeholder"} {
		if doc, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !strings.Contains(string(doc), want) || want == "" && len(doc) > 0 {
			t.Errorf("%s holds %q, %v", name, doc, err)
		}
	}
	if set, err := cloudSettings(dir, runAccess{Hosts: []string{"api.github.com", "generativelanguage.googleapis.com"}}); err != nil || len(set) > 0 {
		t.Errorf("without a cloud: %v, %v", set, err)
	}
}

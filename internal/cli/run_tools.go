package cli

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

var awsHost = regexp.MustCompile(`^s3\.([a-z0-9-]+)\.amazonaws\.com$`)

// cloudSettings are variables for the programs of clouds that read files: those are
// made anew, so that what is in the person's own is not used in the session. dir is where.
func cloudSettings(dir string, a runAccess) (map[string]string, error) {
	out, files := map[string]string{}, map[string]string{}
	if a.Variables["AWS_ACCESS_KEY_ID"] != "" {
		region := ""
		for _, h := range a.Hosts {
			if m := awsHost.FindStringSubmatch(h); m != nil {
				region = "region = " + m[1] + "\n"
			}
		}
		// A bucket in the host's name would be a host that the account is not bound to.
		files["aws-config"], files["aws-credentials"] = "[default]\n"+region+"s3 =\n  addressing_style = path\n", ""
		maps.Copy(out, map[string]string{"AWS_CONFIG_FILE": "aws-config", "AWS_SHARED_CREDENTIALS_FILE": "aws-credentials"})
	}
	for _, h := range a.Hosts {
		if strings.HasSuffix(h, ".googleapis.com") && h != "generativelanguage.googleapis.com" { // which takes keys
			files["gcloud-token"], out["CLOUDSDK_AUTH_ACCESS_TOKEN_FILE"] = "ambit_placeholder", "gcloud-token"
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("writing settings for the program: %w", err)
		}
	}
	for name, file := range out {
		out[name] = filepath.Join(dir, file)
	}
	if out["AWS_CONFIG_FILE"] != "" {
		out["AWS_PROFILE"] = "default" // the only one in that file
	}
	return out, nil
}

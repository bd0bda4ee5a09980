package awstest

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// assume answers STS AssumeRole, and AssumeRoleWithWebIdentity, whose requests
// are not signed.
func (s *Server) assume(w http.ResponseWriter, body, quote string) {
	form, err := url.ParseQuery(body)
	s.mu.Lock()
	external, known := s.roles[form.Get("RoleArn")]
	s.mu.Unlock()
	action, may := form.Get("Action"), external == form.Get("ExternalId")
	if action == "AssumeRoleWithWebIdentity" {
		may = form.Get("WebIdentityToken") == WebIdentity
	}
	w.Header().Set("Content-Type", "text/xml")
	if err != nil || action != "AssumeRole" && action != "AssumeRoleWithWebIdentity" || !known || !may {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>`)
		_ = xml.EscapeText(w, []byte(quote))
		fmt.Fprint(w, `</Message></Error><RequestId>r-1</RequestId></ErrorResponse>`)
		return
	}
	fmt.Fprintf(w, `<%[6]sResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><%[6]sResult><Credentials><AccessKeyId>%[1]s</AccessKeyId><SecretAccessKey>%[2]s</SecretAccessKey><SessionToken>%[3]s</SessionToken><Expiration>%[4]s</Expiration></Credentials><AssumedRoleUser><Arn>%[5]s</Arn><AssumedRoleId>a:b</AssumedRoleId></AssumedRoleUser></%[6]sResult></%[6]sResponse>`,
		roleAccess, RoleSecret, RoleToken, time.Now().Add(time.Hour).UTC().Format(time.RFC3339), form.Get("RoleArn"), action)
}

// Agent plays the agent of a container, which hands out the credentials of a role
// to whoever shows the token.
func (s *Server) Agent(token string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != token {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, `{"AccessKeyId":%q,"SecretAccessKey":%q,"Token":%q,"Expiration":%q}`, roleAccess, RoleSecret, RoleToken, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	})
}

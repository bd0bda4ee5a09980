package awstest

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// StoredSecret is one of Secrets Manager.
type StoredSecret struct {
	Name, Description string
	Tags              map[string]string
	Versions          []StoredVersion
	Deleted           bool // it is on its way out
}

// StoredVersion is a value. One with neither text nor bytes has been removed.
type StoredVersion struct {
	ID      string
	Text    string
	Bytes   []byte
	Stages  []string
	Created time.Time
}

// Store makes Secrets Manager hold these, and no others.
func (s *Server) Store(all ...StoredSecret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored = all
}

// secretsPage is how many the service gives at once, so that clients have to page.
const secretsPage = 2

// secretsManager answers what a reader asks of Secrets Manager.
func (s *Server) secretsManager(w http.ResponseWriter, operation string, body []byte, quote string) {
	var in struct {
		SecretID  string `json:"SecretId"`
		VersionID string `json:"VersionId"`
		NextToken string
		Filters   []struct {
			Key    string
			Values []string
		}
	}
	if json.Unmarshal(body, &in) != nil {
		fail(w, http.StatusBadRequest, "InvalidRequestException", quote)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	from, _ := strconv.Atoi(in.NextToken)
	out := map[string]any{}
	if operation == "ListSecrets" {
		var list []map[string]any
		for _, v := range s.stored {
			if v.Deleted || len(in.Filters) > 0 && !strings.HasPrefix(v.Name, in.Filters[0].Values[0]) {
				continue
			}
			list = append(list, map[string]any{"Name": v.Name, "ARN": v.arn()})
		}
		out["SecretList"] = pageOf(list, from, out)
		answer(w, out)
		return
	}
	i := slices.IndexFunc(s.stored, func(v StoredSecret) bool { return v.Name == in.SecretID })
	if i < 0 {
		fail(w, http.StatusBadRequest, "ResourceNotFoundException", quote)
		return
	}
	v := s.stored[i]
	switch operation {
	case "DescribeSecret":
		var tags []map[string]string
		for k, t := range v.Tags {
			tags = append(tags, map[string]string{"Key": k, "Value": t})
		}
		answer(w, map[string]any{"Name": v.Name, "ARN": v.arn(), "Description": v.Description, "Tags": tags})
	case "ListSecretVersionIds":
		var list []map[string]any
		for _, version := range v.Versions {
			list = append(list, map[string]any{"VersionId": version.ID, "VersionStages": version.Stages, "CreatedDate": float64(version.Created.Unix())})
		}
		out["Versions"] = pageOf(list, from, out)
		answer(w, out)
	case "GetSecretValue":
		i := slices.IndexFunc(v.Versions, func(x StoredVersion) bool {
			return x.ID == in.VersionID || in.VersionID == "" && slices.Contains(x.Stages, "AWSCURRENT")
		})
		if i < 0 || v.Versions[i].Text == "" && v.Versions[i].Bytes == nil {
			fail(w, http.StatusBadRequest, "ResourceNotFoundException", quote)
			return
		}
		x := v.Versions[i]
		out["Name"], out["VersionId"] = v.Name, x.ID
		if out["SecretString"] = x.Text; x.Bytes != nil {
			delete(out, "SecretString")
			out["SecretBinary"] = base64.StdEncoding.EncodeToString(x.Bytes)
		}
		answer(w, out)
	default:
		fail(w, http.StatusBadRequest, "UnknownOperationException", quote)
	}
}

func (v StoredSecret) arn() string {
	return "arn:aws:secretsmanager:eu-central-1:111122223333:secret:" + v.Name + "-AbCdEf"
}

func pageOf(list []map[string]any, from int, out map[string]any) []map[string]any {
	end := min(from+secretsPage, len(list))
	if end < len(list) {
		out["NextToken"] = strconv.Itoa(end)
	}
	return list[min(from, end):end]
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(v)
}

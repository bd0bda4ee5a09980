package provider_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
)

const rawKey = "cnry-9f3c77aa01b2d4e5"

// received is the last request of each test as it arrived.
var received sync.Map

type arrival struct {
	uri    string
	header http.Header
	body   string
}

// arrived writes it out.
func arrived(t *testing.T) string {
	t.Helper()
	v, ok := received.Load(t.Name())
	if !ok {
		t.Fatal("nothing arrived")
	}
	a := v.(arrival)
	var out strings.Builder
	out.WriteString(a.uri + "\n")
	for name, values := range a.header {
		out.WriteString(name + ": " + strings.Join(values, ", ") + "\n")
	}
	return out.String() + "\n" + a.body
}

// echoHost answers with what arrived.
func echoHost(t *testing.T) (*outbound.Client, string) {
	t.Helper()
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Arrived", "yes")
		_, _ = fmt.Fprintf(w, "%s %s\n", r.Method, r.URL.RequestURI())
		for _, name := range []string{"Authorization", "X-Api-Key", "X-Other", "X-Amz-Date", "X-Amz-Content-Sha256", "X-Amz-Meta-Note", "X-Amz-Trailer", "Content-Encoding", "Content-Length"} {
			if v := r.Header.Get(name); v != "" {
				_, _ = fmt.Fprintf(w, "%s: %s\n", name, v)
			}
		}
		_, _ = w.Write(body)
		received.Store(t.Name(), arrival{r.URL.RequestURI(), r.Header.Clone(), string(body)})
	}))
	t.Cleanup(up.Close)
	client, err := outbound.New(outbound.Policy{Allow: []string{up.Listener.Addr().(*net.TCPAddr).String()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client, up.URL
}

// forward reads a raw request as the gateway does and sends it.
func forward(t *testing.T, client *outbound.Client, rec provider.Record, cred provider.Credential, method, place, body string, stream bool, header ...string) (string, error) {
	t.Helper()
	u, err := url.Parse(place)
	if err != nil {
		t.Fatal(err)
	}
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	raw := provider.Raw{Method: method, URL: u, Header: provider.ClientHeader(h), Body: []byte(body), Whole: !stream}
	readings, err := rec.Read(raw, rec.API.Base...)
	if err != nil {
		return "", err
	}
	out := provider.Outgoing{Tool: readings[0].Tool, Request: readings[0].Request, Header: raw.Header, Whole: []byte(body)}
	if stream {
		out.Whole, out.Body, out.Length = nil, strings.NewReader(body), int64(len(body))
	}
	in, err := provider.Forward(t.Context(), client, rec.Pinned(), rec, out, cred)
	if err != nil {
		return "", err
	}
	defer in.Close()
	text, err := io.ReadAll(in)
	return string(text), err
}

// Issue 7, "Credentials into requests": a placeholder is replaced where it may
// stand, in Basic too, and the credential is attached where there is none. What
// comes back shows neither (each case is an echo).
func TestPlaceholders(t *testing.T) {
	t.Parallel()
	client, place := echoHost(t)
	rec := parse(t, fmt.Sprintf(`id: demo
name: Demo
auth: api_key
api: {base: [%q]}
generic: {read: true, write: true, destructive: true}
inject:
  header: X-Api-Key
  format: "{api_key}"
  placeholder: {prefix: "sk-", places: ["header:X-Other", "query:key", path, "json:token", "form:token"]}
`, place))
	cred := credential(provider.APIKey, "api_key", rawKey)
	mark := rec.Placeholder("")
	if mark != "sk-ambit_placeholder" {
		t.Fatal(mark)
	}
	basic := func(user, password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	}
	tests := []struct {
		name, method, path, body string
		header                   []string
		arrives, absent          string
	}{
		{"absent", "GET", "/a", "", nil, "X-Api-Key: " + rawKey, "Authorization"},
		{"another's key", "GET", "/a", "", []string{"Authorization", "Bearer theirs"}, "X-Api-Key: " + rawKey, "theirs"},
		{"bearer", "GET", "/a", "", []string{"Authorization", "Bearer " + mark}, "Authorization: Bearer " + rawKey, "X-Api-Key"},
		{"token", "GET", "/a", "", []string{"Authorization", "token ambit_api_key_000000"}, "Authorization: token " + rawKey, "ambit_"},
		{"basic", "GET", "/a", "", []string{"Authorization", basic("x-access-token", mark)}, "Authorization: " + basic("x-access-token", rawKey), "X-Api-Key"},
		{"header", "GET", "/a", "", []string{"X-Other", "k " + mark}, "X-Other: k " + rawKey, "X-Api-Key"},
		{"query", "GET", "/a?x=1&key=" + mark, "", nil, "/a?x=1&key=" + rawKey, "X-Api-Key"},
		{"path", "GET", "/bot" + mark + "/me", "", nil, "/bot" + rawKey + "/me", "X-Api-Key"},
		{"json", "POST", "/a", `{"token":"` + mark + `","text":"` + mark + `"}`, []string{"Content-Type", "application/json"}, `{"token":"` + rawKey + `","text":"` + mark + `"}`, "X-Api-Key"},
		{"form", "POST", "/a", "token=" + mark + "&text=" + mark, []string{"Content-Type", "application/x-www-form-urlencoded"}, "token=" + rawKey + "&text=" + mark, "X-Api-Key"},
	}
	for _, test := range tests {
		shown, err := forward(t, client, rec, cred, test.method, place+test.path, test.body, false, test.header...)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		got := arrived(t)
		if !strings.Contains(got, test.arrives) || strings.Contains(got, test.absent) {
			t.Errorf("%s: %s arrived", test.name, got)
		}
		if strings.Contains(shown, rawKey) || strings.Contains(shown, base64.StdEncoding.EncodeToString([]byte(rawKey))) || !strings.Contains(shown, "****") {
			t.Errorf("%s shows %s", test.name, shown)
		}
	}
	for _, test := range [][]string{{"/a?other=" + mark}, {"/a", "X-Elsewhere", mark}} {
		if _, err := forward(t, client, rec, cred, "GET", place+test[0], "", false, test[1:]...); code(err) != "placeholder_misplaced" {
			t.Errorf("%v: %v", test, err)
		}
	}
	jwt := parse(t, fmt.Sprintf("id: demo\nname: Demo\nauth: api_key\napi: {base: [%q]}\ngeneric: {read: true}\ninject: {header: Authorization, format: \"Bearer {api_key}\", placeholder: {jwt: true}}\n", place))
	if parts := strings.Split(jwt.Placeholder(""), "."); len(parts) != 3 {
		t.Errorf("%v is no JWT", parts)
	}
	if _, err := forward(t, client, jwt, cred, "GET", place+"/a", "", false, "Authorization", "Bearer "+jwt.Placeholder("")); err != nil || !strings.Contains(arrived(t), "Authorization: Bearer "+rawKey+"\n") {
		t.Errorf("a JWT: %v %s", err, arrived(t))
	}
}

// A client of AWS signs with keys that open nothing: its signature is taken off,
// whatever it signed with, and the request is signed anew, streamed bodies too.
func TestAWSIsSignedAnew(t *testing.T) {
	t.Parallel()
	client, place := echoHost(t)
	rec := parse(t, fmt.Sprintf("id: store\nname: Store\nauth: api_key\napi: {base: [%q]}\ngeneric: {read: true, write: true, destructive: true}\ninject: {sign: aws_sigv4, service: s3, region: eu-central-1}\nfields: [{name: access_key_id, title: Key id}, {name: secret_access_key, title: Secret}]\n", place))
	cred := credential(provider.APIKey, "access_key_id", "AKIAREALREALREALREAL", "secret_access_key", rawKey)
	mine := []string{"Authorization", "AWS4-HMAC-SHA256 Credential=AKIAFAKE/20260101/eu-central-1/s3/aws4_request, SignedHeaders=host, Signature=00", "X-Amz-Date", "20260101T000000Z", "X-Amz-Meta-Note", "mine"}
	chunked := "5;chunk-signature=aa\r\nhello\r\n6;chunk-signature=bb\r\n world\r\n0;chunk-signature=cc\r\nx-amz-checksum-crc32:AAAA\r\n\r\n"
	sum := sha256.Sum256([]byte("hello world"))
	for name, test := range map[string]struct {
		body   string
		stream bool
		header []string
		hash   string
	}{
		"whole":            {"hello world", false, append(mine, "X-Amz-Content-Sha256", "00"), hex.EncodeToString(sum[:])},
		"streamed":         {"hello world", true, append(mine, "X-Amz-Content-Sha256", "00"), "UNSIGNED-PAYLOAD"},
		"pieces":           {chunked, false, append(mine, "X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "Content-Encoding", "aws-chunked", "X-Amz-Decoded-Content-Length", "11", "X-Amz-Trailer", "x-amz-checksum-crc32"), hex.EncodeToString(sum[:])},
		"pieces, streamed": {chunked, true, append(mine, "X-Amz-Content-Sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "Content-Encoding", "aws-chunked", "X-Amz-Decoded-Content-Length", "11", "X-Amz-Trailer", "x-amz-checksum-crc32"), "UNSIGNED-PAYLOAD"},
	} {
		shown, err := forward(t, client, rec, cred, "PUT", place+"/bucket/key?X-Amz-Signature=00&x-id=PutObject", test.body, test.stream, test.header...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := arrived(t)
		for _, want := range []string{"/bucket/key?x-id=PutObject", "Credential=AKIAREALREALREALREAL/", "x-amz-meta-note", "X-Amz-Content-Sha256: " + test.hash + "\n", "\nhello world"} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: no %q in %s", name, want, got)
			}
		}
		if strings.Contains(got, "AKIAFAKE") || strings.Contains(got, "20260101T000000Z") || strings.Contains(got, "aws-chunked") || strings.Contains(got, "chunk-signature") || strings.Contains(got, "X-Amz-Trailer") {
			t.Errorf("%s: the client's signature arrived: %s", name, got)
		}
		if i := strings.Index(got, "Signature="); i < 0 || strings.Contains(shown, got[i:i+40]) {
			t.Errorf("%s shows the signature: %s", name, shown)
		}
	}
	if _, err := forward(t, client, rec, cred, "PUT", place+"/b/k", "5;chunk-signature=aa\r\nhel", false, "X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "X-Amz-Decoded-Content-Length", "5"); code(err) != "request_invalid" {
		t.Errorf("broken pieces: %v", err)
	}
}

// A bug: what a session gave programs in their variables was no placeholder to what
// replaces them, and so opened nothing inside Basic or where a record lets one stand.
func TestVariablesArePlaceholders(t *testing.T) {
	t.Parallel()
	client, place := echoHost(t)
	for _, jwt := range []bool{false, true} {
		rec := parse(t, fmt.Sprintf(`id: demo
name: Demo
auth: api_key
api: {base: [%q]}
generic: {read: true, write: true}
variables: {DEMO_TOKEN: demo_, DEMO_KEY: "sk-"}
inject: {header: X-Api-Key, format: "{api_key}", placeholder: {jwt: %v, prefix: "x-", places: ["query:key", "json:token"]}}
`, place, jwt))
		cred := credential(provider.APIKey, "api_key", rawKey)
		for _, prefix := range []string{"demo_", "sk-"} {
			v := rec.Variable(prefix)
			if !provider.IsPlaceholder(v) || len(v) < 40 || !jwt && !strings.HasPrefix(v, prefix) || jwt && strings.Count(v, ".") != 2 {
				t.Errorf("the variable is %q", v)
			}
			for name, header := range map[string][]string{
				"bearer": {"Authorization", "Bearer " + v},
				"basic":  {"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("me:"+v))},
			} {
				if _, err := forward(t, client, rec, cred, "GET", place+"/x?key="+v, "", false, header...); err != nil {
					t.Errorf("%s of %s: %v", name, prefix, err)
					continue
				}
				got, _ := received.Load(t.Name())
				a := got.(arrival)
				want := "Bearer " + rawKey
				if name == "basic" {
					want = "Basic " + base64.StdEncoding.EncodeToString([]byte("me:"+rawKey))
				}
				if a.header.Get("Authorization") != want || a.uri != "/x?key="+url.QueryEscape(rawKey) {
					t.Errorf("%s of %s: %s with %s arrived", name, prefix, a.uri, a.header.Get("Authorization"))
				}
			}
		}
	}
}

// What a request to AWS does, its action says, not its method.
func TestAWSEffects(t *testing.T) {
	t.Parallel()
	at := func(service string) provider.Record {
		return parse(t, "id: aws\nname: AWS\nauth: api_key\napi: {base: [\"https://aws.example\"]}\ngeneric: {read: true, write: true, destructive: true}\ninject: {sign: aws_sigv4, service: "+service+", region: eu-central-1}\nfields: [{name: access_key_id, title: Key id}, {name: secret_access_key, title: Secret}]\n")
	}
	for _, test := range []struct {
		service, method, path, body string
		header                      []string
		want                        string
	}{
		{"dynamodb", "POST", "/", "{}", []string{"X-Amz-Target", "DynamoDB_20120810.GetItem"}, "read"},
		{"dynamodb", "POST", "/", "{}", []string{"X-Amz-Target", "DynamoDB_20120810.PutItem"}, "write"},
		{"dynamodb", "POST", "/", "{}", []string{"X-Amz-Target", "DynamoDB_20120810.DeleteTable"}, "destructive"},
		{"ec2", "GET", "/?Action=TerminateInstances", "", nil, "destructive"},
		{"ec2", "POST", "/", "Action=DescribeInstances", []string{"Content-Type", "application/x-www-form-urlencoded"}, "read"},
		{"ec2", "POST", "/?Action=DescribeInstances", "Action=TerminateInstances", []string{"Content-Type", "application/x-www-form-urlencoded"}, "destructive"},
		{"iam", "POST", "/", "Action=CreateAccessKey", []string{"Content-Type", "application/x-www-form-urlencoded"}, "access_refused"},
		{"sts", "GET", "/?Action=AssumeRole", "", nil, "access_refused"},
		// An attacker: what makes access by its name passed at a record or host of another service.
		{"lambda", "POST", "/?Action=AddPermission", "", nil, "access_refused"},
		{"ec2", "POST", "/", "Action=CreateAccessKey", []string{"Content-Type", "application/x-www-form-urlencoded"}, "access_refused"},
		{"ec2", "GET", "/?Action=AssumeRole", "", nil, "access_refused"},
		{"ec2", "GET", "/?Action=GetFederationToken", "", nil, "access_refused"},
		{"ec2", "GET", "/?Action=GetPasswordData", "", nil, "access_refused"},
		{"ec2", "POST", "/?Action=DescribeInstances", "Action=CreateKeyPair", []string{"Content-Type", "application/x-www-form-urlencoded"}, "access_refused"},
		{"ec2", "POST", "/?Action=ModifySnapshotAttribute", "", nil, "access_refused"},
		{"ecr", "POST", "/", "{}", []string{"X-Amz-Target", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"}, "access_refused"},
		{"kms", "POST", "/", "{}", []string{"X-Amz-Target", "TrentService.CreateGrant"}, "access_refused"},
		{"cognito-identity", "POST", "/", "{}", []string{"X-Amz-Target", "AWSCognitoIdentityService.GetCredentialsForIdentity"}, "access_refused"},
		{"lambda", "POST", "/2015-03-31/functions/f/policy", "{}", nil, "access_refused"},
		{"lambda", "POST", "/2021-10-31/functions/f/url", "{}", nil, "access_refused"},
		{"lambda", "POST", "/2015-03-31/functions/f/%70olicy/", "{}", nil, "access_refused"},
		{"codeartifact", "POST", "/v1/authorization-token", "", nil, "access_refused"},
		{"lightsail", "POST", "/", "{}", []string{"X-Amz-Target", "Lightsail_20161128.GetInstanceAccessDetails"}, "access_refused"},
		{"ssm", "POST", "/", "{}", []string{"X-Amz-Target", "AmazonSSM.StartSession"}, "access_refused"},
		{"ssm", "POST", "/", "{}", []string{"X-Amz-Target", "AmazonSSM.CreateActivation"}, "access_refused"},
		{"sagemaker", "POST", "/", "{}", []string{"X-Amz-Target", "SageMaker.CreatePresignedDomainUrl"}, "access_refused"},
		{"ecs", "POST", "/", "{}", []string{"X-Amz-Target", "AmazonEC2ContainerServiceV20141113.ExecuteCommand"}, "access_refused"},
		{"ec2", "POST", "/?Action=AssociateIamInstanceProfile", "", nil, "access_refused"},
		{"airflow", "POST", "/clitoken/env", "", nil, "access_refused"},
		{"monitoring", "POST", "/service/GraniteServiceVersion20100801/operation/PutResourcePolicy", "", nil, "access_refused"},
		{"monitoring", "POST", "/service/GraniteServiceVersion20100801/operation/DeleteAlarms", "", nil, "destructive"},
		{"s3", "GET", "/?session", "", nil, "access_refused"},
		{"lambda", "GET", "/2015-03-31/functions/f/policy", "", nil, "read"},
		{"lambda", "POST", "/2015-03-31/functions", "{}", nil, "write"},
		{"logs", "POST", "/", "{}", []string{"X-Amz-Target", "Logs_20140328.CreateLogGroup"}, "write"},
		{"ec2", "POST", "/?Action=ListAccessKeys", "", nil, "read"},
		{"sts", "GET", "/?Action=GetCallerIdentity", "", nil, "read"},
		{"s3", "GET", "/b/k", "", nil, "read"},
		{"s3", "PUT", "/b/k", "x", nil, "write"},
		{"s3", "PUT", "/b/k", "x", []string{"X-Amz-Acl", "public-read"}, "access_refused"},
		{"s3", "PUT", "/b?policy", "{}", nil, "access_refused"},
		{"s3", "POST", "/b?delete", "<Delete/>", nil, "destructive"},
		// An attacker: a service of paths passes over a word that is said to be the action (threats.md A10).
		{"s3", "DELETE", "/b/k?Action=ListBuckets", "", nil, "destructive"},
		{"s3", "DELETE", "/b/k", "", []string{"X-Amz-Target", "x.GetObject"}, "destructive"},
		{"s3", "PUT", "/b/k", "x", []string{"X-Amz-Target", "x.GetObject"}, "write"},
		{"s3", "POST", "/b?delete&Action=GetCallerIdentity", "<Delete/>", nil, "destructive"},
		{"s3", "PUT", "/service/b/operation/GetObject", "x", nil, "write"},
		{"s3", "PUT", "/b?policy&Action=GetCallerIdentity", "{}", nil, "access_refused"},
		{"lambda", "DELETE", "/2015-03-31/functions/f?Action=GetFunction", "", nil, "destructive"},
		{"lambda", "POST", "/2015-03-31/functions/f/invocations?Action=GetFunction", "{}", nil, "destructive"},
		{"lambda", "PUT", "/2021-10-31/functions/f/url?Action=GetFunction", "{}", nil, "access_refused"},
		{"lambda", "POST", "/2015-03-31/functions/f/invocations", "{}", []string{"X-Amz-Target", "x.GetFunction"}, "destructive"},
		{"ec2", "POST", "/?Action=DescribeInstances", "Action=TerminateInstances", []string{"Content-Type", "text/plain"}, "destructive"},
		{"ec2", "POST", "/", "Action=TerminateInstances", []string{"X-Amz-Target", "x.DescribeInstances", "Content-Type", "text/plain"}, "destructive"},
		{"ec2", "DELETE", "/?Action=DescribeInstances", "", nil, "destructive"},
		{"sts", "DELETE", "/x?Action=GetCallerIdentity", "", nil, "access_refused"},
	} {
		u, _ := url.Parse("https://aws.example" + test.path)
		raw := provider.Raw{Method: test.method, URL: u, Header: http.Header{}, Body: []byte(test.body), Whole: true}
		for i := 0; i+1 < len(test.header); i += 2 {
			raw.Header.Set(test.header[i], test.header[i+1])
		}
		readings, err := at(test.service).Read(raw, "https://aws.example")
		got := code(err)
		if err == nil {
			got = string(policy.Worse(readings[0].Tool.Effect, readings[0].Request.Effect))
		}
		if got != test.want {
			t.Errorf("%v: %s", test, got)
		}
		if test.method != "GET" || test.body != "" || len(test.header) > 0 {
			continue
		}
		// An attacker: through MCP the generic tools went by the method alone.
		tool, _ := at(test.service).Tool("aws_read")
		query := map[string]string{}
		for name := range u.Query() {
			query[name] = u.Query().Get(name)
		}
		args, _ := json.Marshal(map[string]any{"path": u.Path, "query": query})
		req, err := tool.Build(args, "https://aws.example")
		if got = code(err); err == nil {
			got = string(req.Effect)
		}
		if got != test.want {
			t.Errorf("%v through aws_read: %s", test, got)
		}
	}
}

// An attacker: a POST to any path that ended in git's words was a read, and an own
// tool's effect was that of its path in one spelling alone.
func TestEffectIsOfTheWholePath(t *testing.T) {
	t.Parallel()
	rec := parse(t, `id: host
name: Host
auth: api_key
api: {base: ["https://host.example/api"]}
generic: {read: true, write: true, destructive: true, git: ["/{owner}/{repo}.git", "/code/**"]}
inject: {header: X-Api-Key, format: "{api_key}"}
tools:
  - name: purge
    title: Purge
    description: Deletes all of it.
    effect: destructive
    input: {type: object, required: [name], properties: {name: {type: string}}}
    request: {method: POST, path: "/things/{name}/purge"}
`)
	const fetch, push = "application/x-git-upload-pack-request", "application/x-git-receive-pack-request"
	for _, test := range []struct{ path, media, want string }{
		{"/o/r.git/git-upload-pack", fetch, "read"},
		{"/code/a/b/c/git-upload-pack", fetch, "read"},
		{"/things/one/git-upload-pack", fetch, "write"},
		{"/o/r/git-upload-pack", fetch, "write"},
		{"/code//a/git-upload-pack", fetch, "write"},
		{"/code/%2561/git-upload-pack", fetch, "write"},
		{"/git-upload-pack", fetch, "write"},
		{"/o/r.git/git-upload-pack", "application/json", "destructive"}, // not JSON either
		{"/o/r.git/git-receive-pack", push, "destructive"},              // which cannot be read
		{"/elsewhere/git-receive-pack", push, "destructive"},
		{"/things/one/purge", "application/octet-stream", "destructive"},
		{"/Things/one/PURGE", "application/octet-stream", "destructive"},
		{"/things//one/purge", "application/octet-stream", "destructive"},
		{"/things/one/purge/", "application/octet-stream", "destructive"},
		{"/things/./one/purge", "application/octet-stream", "destructive"},
		{"/things/%2e/one/purge", "application/octet-stream", "destructive"},
		{"/things/one/purge.json", "application/octet-stream", "destructive"},
		{"/things/one/purge;a=b", "application/octet-stream", "destructive"},
		{"/things/one/%70urge", "application/octet-stream", "destructive"},
		{"/things/one/%2570urge", "application/octet-stream", "destructive"},
		{"/things\\one\\purge", "application/octet-stream", "destructive"},
		{"/things/one/two", "application/octet-stream", "write"},
	} {
		u, err := url.Parse("https://host.example/api" + test.path)
		if err != nil {
			t.Fatal(err)
		}
		raw := provider.Raw{Method: "POST", URL: u, Header: http.Header{"Content-Type": {test.media}}, Body: []byte("x"), Whole: true}
		readings, err := rec.Read(raw, "https://host.example/api")
		got := code(err)
		if err == nil {
			got = string(policy.Worse(readings[0].Tool.Effect, readings[0].Request.Effect))
		}
		if got != test.want && got != "destination_denied" {
			t.Errorf("%s %s: %s, want %s", test.path, test.media, got, test.want)
		}
	}
}

func code(err error) string {
	if err == nil {
		return ""
	}
	return fault.Of(err).Code
}

// Whatever stands in a client's Authorization, the credential goes nowhere but in
// place of a placeholder, and no request panics or breaks out of its header.
func FuzzPlaceholders(f *testing.F) {
	rec := parse(f, "id: demo\nname: Demo\nauth: api_key\napi: {base: [\"https://api.example.com\"]}\ngeneric: {read: true, write: true, destructive: true}\ninject: {header: X-Api-Key, format: \"{api_key}\", placeholder: {prefix: sk-, places: [path, \"query:key\", \"json:token\"]}}\n")
	for _, v := range []string{"Bearer sk-ambit_placeholder", "Basic c2stYW1iaXRfcGxhY2Vob2xkZXI6eA==", "Basic !", "ambit_api_key_000", "ambit_other", "x ambit_ambit_api_key"} {
		f.Add(v, "/a?key=ambit_api_key", `{"token":"ambit_api_key"}`)
	}
	cred := credential(provider.APIKey, "api_key", rawKey)
	f.Fuzz(func(t *testing.T, authorization, path, body string) {
		u, err := url.Parse("https://api.example.com" + path)
		if err != nil || u.Host != "api.example.com" || strings.Contains(authorization+path+body, rawKey) {
			t.Skip()
		}
		h := http.Header{"Authorization": {authorization}, "Content-Type": {"application/json"}}
		out := provider.Filled(rec, &http.Request{Method: "POST", URL: u, Header: http.Header{"Content-Type": {"application/json"}}}, h, []byte(body), cred)
		if out == nil {
			return // refused
		}
		for name, values := range out.Header {
			for _, v := range values {
				if strings.ContainsAny(v, "\r\n\x00") {
					t.Errorf("%s breaks out: %q", name, v)
				}
			}
		}
		if !strings.Contains(authorization+path+body, "ambit_") && out.Header.Get("X-Api-Key") != rawKey && !strings.HasPrefix(authorization, "Basic ") {
			t.Errorf("nothing was attached: %v", out.Header)
		}
		if out.URL.Host != "api.example.com" {
			t.Errorf("it goes to %s", out.URL.Host)
		}
	})
}

package web

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

// keyService is a service that keeps root keys: what somebody fills in to name a key
// there, what they paste there so that Ambit may use it, and how they take it back.
// docs/keys.md says the same at length.
type keyService struct {
	ID, Name, About string
	fields          []keyField
	uri             func(f url.Values) string
	read            func(u *url.URL, f url.Values)   // the inverse
	fill            func(f url.Values, owner string) // what follows from whose data it is; nil: nothing
	allow           func(f url.Values, whose [2]string) []Statement
	take            []string
}

// keyField is one thing to fill in.
type keyField struct {
	Name, Label, Hint, Sample string
	Required                  bool
	Options                   []string
}

// Statement is something to paste, and where.
type Statement struct{ Title, Where, Text string }

// serviceNamed finds one by its id; nil: there is none.
func serviceNamed(name string) *keyService {
	for i := range keyServices {
		if keyServices[i].ID == name {
			return &keyServices[i]
		}
	}
	return nil
}

// serviceOf finds the one that a URI is of; nil: none.
func serviceOf(uri string) *keyService {
	scheme, _, _ := strings.Cut(uri, ":")
	switch scheme {
	case "transit+https", "transit+http":
		return serviceNamed("transit")
	case "awskms", "gcpkms", "azurekv":
		return serviceNamed(scheme)
	case "pkcs11", "file":
		return serviceNamed("own")
	}
	return nil
}

// complete reports whether everything is filled in that the URI needs.
func (k *keyService) complete(f url.Values) bool {
	return !slices.ContainsFunc(k.fields, func(x keyField) bool { return x.Required && f.Get(x.Name) == "" })
}

// split fills in what a URI says.
func (k *keyService) split(uri string) url.Values {
	f := url.Values{}
	if u, err := url.Parse(uri); err == nil {
		k.read(u, f)
		for name, values := range u.Query() {
			if f.Get(name) == "" && len(values) == 1 {
				f.Set(name, values[0])
			}
		}
	}
	return f
}

// query writes parameters in the one order and spelling that Ambit gives them.
func query(f url.Values, names ...string) string {
	q := url.Values{}
	for _, name := range names {
		if v := f.Get(name); v != "" {
			q.Set(name, v)
		}
	}
	if len(q) == 0 {
		return ""
	}
	return "?" + q.Encode()
}

// or is what stands where something is not filled in.
func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

func indented(v any) string {
	text, _ := json.MarshalIndent(v, "", "  ") // maps, lists and texts always encode
	return string(text)
}

// awsPolicy and awsStatement are in the order in which people write them.
type awsPolicy struct {
	Version   string
	Statement []awsStatement
}

type awsStatement struct {
	Sid       string `json:",omitempty"`
	Effect    string
	Principal map[string]string `json:",omitempty"`
	Action    any
	Resource  string                       `json:",omitempty"`
	Condition map[string]map[string]string `json:",omitempty"`
}

func equals(item, value string) map[string]map[string]string {
	return map[string]map[string]string{"StringEquals": {item: value}}
}

var keyServices = []keyService{
	{
		ID: "awskms", Name: "AWS KMS", About: "A symmetric key in your AWS account. CloudTrail shows every use, with the organization.",
		fields: []keyField{
			{Name: "arn", Label: "ARN of the key", Sample: "arn:aws:kms:eu-central-1:444455556666:key/1234abcd-…", Required: true, Hint: "A symmetric key for encryption. Not an alias: one can be pointed at another key."},
			{Name: "role", Label: "ARN of the role that Ambit assumes", Sample: "arn:aws:iam::444455556666:role/ambit-key", Hint: "In your account. Empty where Ambit uses the key as itself."},
			{Name: "external_id", Label: "External id", Hint: "Filled in where there is a role: the id of the organization, or of the environment for a key of all of it. The role's trust policy asks for it."},
			{Name: "principal", Label: "ARN of Ambit's own role", Sample: "arn:aws:iam::111122223333:role/ambit", Hint: "Whoever runs this server tells you. It stands in what you paste, and nowhere else."},
		},
		uri:  func(f url.Values) string { return "awskms:///" + f.Get("arn") + query(f, "role", "external_id") },
		read: func(u *url.URL, f url.Values) { f.Set("arn", strings.TrimPrefix(u.Path, "/")) },
		fill: func(f url.Values, owner string) {
			if f.Get("role") != "" && f.Get("external_id") == "" {
				f.Set("external_id", owner)
			}
		},
		allow: func(f url.Values, whose [2]string) []Statement {
			self := or(f.Get("principal"), "arn:aws:iam::ACCOUNT:role/AMBIT")
			user := or(f.Get("role"), self)
			allowed := func(sid, item, value string) awsStatement {
				return awsStatement{Sid: sid, Effect: "Allow", Principal: map[string]string{"AWS": user}, Action: []string{"kms:Encrypt", "kms:Decrypt"}, Resource: "*", Condition: equals("kms:EncryptionContext:"+item, value)}
			}
			out := []Statement{{"Key policy", "Add both statements to the policy of the key. The first lets Ambit use it for this data only, the second lets it ask whether it still may.",
				indented([]awsStatement{allowed("AmbitUsesTheKey", whose[0], whose[1]), allowed("AmbitAsksWhetherItMay", "purpose", "probe")})}}
			if f.Get("role") == "" {
				return out
			}
			trust := awsStatement{Effect: "Allow", Principal: map[string]string{"AWS": self}, Action: "sts:AssumeRole", Condition: equals("sts:ExternalId", f.Get("external_id"))}
			return append(out,
				Statement{"Trust policy of the role", "In your account: who may assume " + f.Get("role") + ".", indented(awsPolicy{"2012-10-17", []awsStatement{trust}})},
				Statement{"Policy of Ambit's role", "For whoever runs this server: its role may assume yours.",
					indented(awsPolicy{"2012-10-17", []awsStatement{{Effect: "Allow", Action: "sts:AssumeRole", Resource: f.Get("role")}}})})
		},
		take: []string{"Disable the key (aws kms disable-key), schedule its deletion, or remove the statements.", "The data can be read again once the key is enabled. After its deletion, never."},
	},
	{
		ID: "gcpkms", Name: "Google Cloud KMS", About: "A symmetric key in your Google Cloud project.",
		fields: []keyField{
			{Name: "project", Label: "Project", Sample: "acme-prod", Required: true},
			{Name: "location", Label: "Location", Sample: "europe-west3", Required: true},
			{Name: "ring", Label: "Key ring", Sample: "ambit", Required: true},
			{Name: "key", Label: "Key", Sample: "ambit", Required: true, Hint: "Its name, without a version."},
			{Name: "impersonate", Label: "Service account that Ambit acts as", Sample: "ambit-key@acme-prod.iam.gserviceaccount.com", Hint: "In your project. Empty where Ambit uses the key as itself."},
			{Name: "principal", Label: "Ambit's own service account", Sample: "ambit@operator.iam.gserviceaccount.com", Hint: "Whoever runs this server tells you. It stands in what you paste, and nowhere else."},
		},
		uri: func(f url.Values) string {
			return "gcpkms://projects/" + f.Get("project") + "/locations/" + f.Get("location") + "/keyRings/" + f.Get("ring") + "/cryptoKeys/" + f.Get("key") + query(f, "impersonate")
		},
		read: func(u *url.URL, f url.Values) {
			if parts := strings.Split(u.Path, "/"); u.Host == "projects" && len(parts) == 8 {
				f.Set("project", parts[1])
				f.Set("location", parts[3])
				f.Set("ring", parts[5])
				f.Set("key", parts[7])
			}
		},
		allow: func(f url.Values, _ [2]string) []Statement {
			self := or(f.Get("principal"), "AMBIT@OPERATOR.iam.gserviceaccount.com")
			out := []Statement{{"The right to use the key", "Run this in your project. The role can encrypt and decrypt with this key, and nothing else.",
				"gcloud kms keys add-iam-policy-binding " + f.Get("key") + " \\\n  --project=" + f.Get("project") + " --keyring=" + f.Get("ring") + " --location=" + f.Get("location") + " \\\n  --member=serviceAccount:" +
					or(f.Get("impersonate"), self) + " \\\n  --role=roles/cloudkms.cryptoKeyEncrypterDecrypter"}}
			if as := f.Get("impersonate"); as != "" {
				out = append(out, Statement{"The right to act as your service account", "In your project too.",
					"gcloud iam service-accounts add-iam-policy-binding " + as + " \\\n  --member=serviceAccount:" + self + " \\\n  --role=roles/iam.serviceAccountTokenCreator"})
			}
			return out
		},
		take: []string{"Disable all versions of the key, or remove the role.", "The data can be read again once a version that wrapped it is enabled. After its destruction, never."},
	},
	{
		ID: "azurekv", Name: "Azure Key Vault or Managed HSM", About: "A key in a vault of your Azure tenant; an AES key of Managed HSM where you have one.",
		fields: []keyField{
			{Name: "host", Label: "Host of the vault", Sample: "acme.vault.azure.net", Required: true, Hint: "NAME.vault.azure.net, or NAME.managedhsm.azure.net."},
			{Name: "key", Label: "Key", Sample: "ambit", Required: true, Hint: "Its name, without a version. RSA with 3072 bits, or AES in Managed HSM."},
			{Name: "tenant", Label: "Your tenant", Sample: "acme.onmicrosoft.com", Hint: "Its id or domain. Empty: that of this server."},
			{Name: "client_id", Label: "Client id of Ambit's application", Sample: "00000000-0000-0000-0000-000000000000", Hint: "Whoever runs this server tells you. Empty: as the server is set up."},
		},
		uri: func(f url.Values) string {
			return "azurekv://" + f.Get("host") + "/keys/" + f.Get("key") + query(f, "tenant", "client_id", "algorithm")
		},
		read: func(u *url.URL, f url.Values) {
			f.Set("host", u.Host)
			f.Set("key", strings.TrimPrefix(u.Path, "/keys/"))
		},
		allow: func(f url.Values, _ [2]string) []Statement {
			name, _, _ := strings.Cut(f.Get("host"), ".")
			client, key := or(f.Get("client_id"), "CLIENT_ID"), f.Get("key")
			role := "az role assignment create --role \"Key Vault Crypto User\" \\\n  --assignee " + client + " \\\n  --scope \"$(az keyvault show --name " + name + " --query id -o tsv)/keys/" + key + "\""
			make := "az keyvault key create --vault-name " + name + " --name " + key + " \\\n  --kty RSA --size 3072 --ops wrapKey unwrapKey sign"
			if strings.HasSuffix(f.Get("host"), ".managedhsm.azure.net") {
				role = "az keyvault role assignment create --hsm-name " + name + " \\\n  --role \"Managed HSM Crypto User\" --assignee " + client + " \\\n  --scope /keys/" + key
				make = "az keyvault key create --hsm-name " + name + " --name " + key + " \\\n  --kty oct-HSM --size 256 --ops wrapKey unwrapKey"
			}
			out := []Statement{{"The key", "If there is none yet.", make}, {"The right to use it", "This key only.", role}}
			if f.Get("tenant") != "" {
				out = append([]Statement{{"Ambit's application in your tenant", "Once.", "az ad sp create --id " + client}}, out...)
			}
			return out
		},
		take: []string{"Disable or delete the key, remove the role, or close the firewall of the vault.", "The data can be read again once the key is enabled. After it was purged, never."},
	},
	{
		ID: "transit", Name: "HashiCorp Vault or OpenBao", About: "A key of the transit engine, in your own cluster.",
		fields: []keyField{
			{Name: "address", Label: "Address", Sample: "https://vault.example.com:8200", Required: true, Hint: "With https. This server must be able to reach it."},
			{Name: "mount", Label: "Where the engine is mounted", Sample: "transit", Required: true},
			{Name: "key", Label: "Key", Sample: "ambit", Required: true, Hint: "Of the type aes256-gcm96."},
			{Name: "namespace", Label: "Namespace", Hint: "Of Vault Enterprise or OpenBao, if there is one."},
			{Name: "auth", Label: "How Ambit signs in", Options: []string{"token", "approle", "kubernetes"}},
			{Name: "auth-mount", Label: "Where that method is mounted", Hint: "Empty: under its own name."},
			{Name: "as", Label: "Name of the credentials", Hint: "If this server has several for that address."},
		},
		uri: func(f url.Values) string {
			uri, sign := "transit+"+strings.TrimRight(f.Get("address"), "/")+"/"+strings.Trim(f.Get("mount"), "/")+"/keys/"+f.Get("key"), "?"
			for _, name := range []string{"as", "auth", "auth-mount", "namespace"} { // which has one spelling, without escapes
				if v := f.Get(name); v != "" && (name != "auth" || v != "token") {
					uri, sign = uri+sign+name+"="+v, "&"
				}
			}
			return uri
		},
		read: func(u *url.URL, f url.Values) {
			f.Set("address", strings.TrimPrefix(u.Scheme, "transit+")+"://"+u.Host)
			if mount, key, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/keys/"); ok {
				f.Set("mount", mount)
				f.Set("key", key)
			}
		},
		allow: func(f url.Values, _ [2]string) []Statement {
			mount, key := strings.Trim(f.Get("mount"), "/"), f.Get("key")
			host := f.Get("address")
			if _, rest, ok := strings.Cut(host, "://"); ok {
				host = strings.TrimRight(rest, "/")
			}
			folder := "$AMBIT_TRANSIT_CREDENTIALS/" + host + "/"
			if as := f.Get("as"); as != "" {
				folder += as + "/"
			}
			files := map[string]string{"approle": "role-id and secret-id", "kubernetes": "role, and jwt if it is not the pod's own"}[f.Get("auth")]
			return []Statement{
				{"The key", "If there is none yet.", "vault write -f " + mount + "/keys/" + key},
				{"Policy", "Paste this into a file and write it: vault policy write ambit ambit.hcl. Do not add create: Vault makes a key when it is asked to encrypt for one that is not there.",
					"path \"" + mount + "/encrypt/" + key + "\" { capabilities = [\"update\"] }\npath \"" + mount + "/decrypt/" + key + "\" { capabilities = [\"update\"] }\npath \"" + mount + "/keys/" + key + "\" { capabilities = [\"read\"] }"},
				{"Credentials on this server", "For whoever runs it: the file " + or(files, "token") + ", mode 0600, in this folder.", folder},
			}
		},
		take: []string{"Remove the policy, revoke the token, or delete the key. Sealing Vault is an outage, not a refusal: what was unwrapped is then used for some minutes more.", "The data can be read again once the policy is back. After the key was deleted, never."},
	},
	{
		ID: "own", Name: "HSM (PKCS#11), or another key of this server", About: "An HSM that is connected to this server, or a file: whoever runs the server sets it up first.",
		fields: []keyField{{Name: "ref", Label: "Name of the root key", Sample: "pkcs11:root:1f0c…", Required: true, Hint: "As the page Keys and ambit key status name it."}},
		uri:    func(f url.Values) string { return f.Get("ref") },
		read:   func(u *url.URL, f url.Values) { f.Set("ref", u.String()) },
		allow: func(url.Values, [2]string) []Statement {
			return []Statement{
				{"The key in the HSM", "On the server. The key never leaves the HSM; the PIN lies in a file, mode 0600.", "ambit-pkcs11 new-key 'pkcs11:token=ambit;object=acme?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/ambit/hsm.pin'"},
				{"The setting", "On every node, which are restarted one by one.", "AMBIT_ROOT_KEYS_OTHER='pkcs11:token=ambit;object=acme?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/ambit/hsm.pin'"},
			}
		},
		take: []string{"Set CKA_DECRYPT of the key to false, lock the PIN, or destroy the key. A token that is taken out is an outage, not a refusal.", "The data can be read again once the key is back. After its destruction, never."},
	},
}

package scan

import (
	"strings"
)

// class says how much the name of a value tells about it.
type class int

const (
	plain    class = iota // nothing, or that it is no secret
	hinting               // may be one: its value must look random
	telling               // names a key or token
	password              // names something that a person chose: its value need not look random
)

var (
	// harmless end a name that speaks about a secret and holds none.
	harmless = set(`id ids name names file files filename path paths dir folder url uri urls endpoint endpoints host hosts hostname port type types length len size count counts limit limits max min ttl expiry expires expired expiration expire lifetime
		hint field fields prefix suffix policy policies rotation enabled enable disabled required optional header headers param params parameter label labels description desc title format alg algorithm version arn ref refs reference provider providers
		store manager namespace location locations regex pattern patterns placeholder help text message messages error errors class input button form reset strength rule rules scope scopes issuer audience age days hours minutes timeout seconds interval
		at by usage cost budget used left total fingerprint digest checksum sum sha sha1 sha256 sha512 md5 etag integrity thumbprint kid index hash hashes hashed encrypted ciphertext encryption algo bits curve mode method methods
		status state kind schema template variable var vars envvar env_var column table group groups role roles user users username email domain account region zone bucket queue topic model models template exists valid verified validation validator
		link links page icon color colour css selector element component handler callback factory service client class getter setter function func helper utils util config configs options option settings setting source sources backend engine cmd command script
		changed updated created date time timestamp last next count per reason event events action actions grant grants flow strategy family keyid number no num available present set missing invalid confirm confirmation confirmed again repeat reuse history
		public pub publishable anon cert certificate certs ca chain bundle crt issuer jwk jwks list map attempts retries retry visible visibility show toggle autocomplete pages tab caption legend tooltip`)
	// known words, anywhere in a name, say that the value is meant to be known.
	known  = set(`public publishable pub anon pubkey pk publickey csrf xsrf authenticity`)
	phrase = set(`password passwd pwd passphrase pass passwort kennwort pw passcode psk passwords userpassword dbpassword`)
	strong = set(`secret secrets token tokens credential credentials creds auth authorization jwt pat bearer authtoken accesstoken refreshtoken apitoken clientsecret sharedsecret cookie webhook sas dsn`)
	// before, with key, tell that it opens something.
	before = set(`api access auth secret private signing sign encryption encrypt master service admin license licence app application client server storage deploy deployment root hmac aes crypto session jwt webhook shared sas write ingest ingestion
		integration org project sdk team personal rpc subscription account connection bot data search management platform read readwrite publish subscriber developer partner merchant customer backend token authentication security enc wrapping transit unseal recovery
		secure functions function host routing automation agent gateway llm model pro prod production live staging dev test fernet cookie salt`)
	// notKeys, with key, are about data.
	notKeys = set(`primary foreign partition sort cache row hash object idempotency translation group dedupe dedup lookup index unique composite natural range lock message event metric feature flag public property config registry
		hot short arrow enter shift ctrl alt meta tab escape press map dict dictionary json field column parent child order storage_key i18n locale label menu query react item list node tree attribute answer legend major minor host_key known`)
	// trailing words say which of several it is.
	trailing = set(`prod production dev development staging stage live test testing old new current previous primary secondary default value values raw plain plaintext b64 base64 main backup string str 1 2 3 v1 v2 v3 a b base local remote master slave replica readonly ro rw eu us`)
	joined   = strings.NewReplacer(
		"apikey", "api_key", "accesskey", "access_key", "secretkey", "secret_key", "privatekey", "private_key", "authkey", "auth_key", "accesstoken", "access_token", "authtoken", "auth_token", "refreshtoken", "refresh_token",
		"clientsecret", "client_secret", "apitoken", "api_token", "apisecret", "api_secret", "bearertoken", "bearer_token", "accountkey", "account_key", "sharedkey", "shared_key", "sharedaccesskey", "shared_access_key",
		"signingkey", "signing_key", "masterkey", "master_key", "encryptionkey", "encryption_key", "publickey", "public_key", "dbpassword", "db_password", "userpassword", "user_password", "secretaccesskey", "secret_access_key", "connectionstring", "connection_string",
		"passwordhash", "password_hash", "keypassword", "key_password", "storepassword", "store_password", "servicekey", "service_key", "identitytoken", "identity_token", "idtoken", "id_token", "sessiontoken", "session_token", "securitytoken", "security_token", "licensekey", "license_key", "appkey", "app_key", "appsecret", "app_secret", "dbpass", "db_pass",
		"rootpassword", "root_password", "adminpassword", "admin_password", "oauthtoken", "oauth_token", "authpassword", "auth_password", "ghtoken", "gh_token", "consumersecret", "consumer_secret", "botToken", "bot_token", "bottoken", "bot_token", "requirepass", "require_pass", "masterauth", "master_auth")
)

// nameWords parts a name at punctuation, capitals and known compounds.
func nameWords(name string) []string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if i > 0 && c >= 'A' && c <= 'Z' {
			p := name[i-1]
			next := i+1 < len(name) && name[i+1] >= 'a' && name[i+1] <= 'z'
			if p >= 'a' && p <= 'z' || p >= '0' && p <= '9' || p >= 'A' && p <= 'Z' && next {
				b.WriteByte('_')
			}
		}
		b.WriteByte(c)
	}
	low := joined.Replace(strings.ToLower(b.String()))
	w := strings.FieldsFunc(low, func(r rune) bool { return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9') })
	for i, x := range w { // password3, key2: one of several
		if b := strings.TrimRight(x, "0123456789"); b != x && (phrase[b] || strong[b] && b != "auth" || b == "key" || b == "keys") {
			w[i] = b
		}
	}
	return w
}

// numbered says which of several a name means.
var numbered = lazily(`^v?\d{1,3}$`)

// classOf judges the last part of a key path.
func classOf(name string) class {
	if head, _, ok := strings.Cut(name, "/"); ok && strings.Contains(strings.ToLower(head), "checksum") {
		return plain // an annotation of Kubernetes
	}
	w := nameWords(name)
	if n := len(w); n > 2 && w[n-3] == "request" && w[n-2] == "verification" && w[n-1] == "token" { // of ASP.NET's forms
		return plain
	}
	if len(w) > 1 && (w[0] == "forgot" || w[0] == "forgotten" || w[0] == "reset" || w[0] == "checksum" || w[0] == "hashed" || w[0] == "encrypted") {
		return plain
	}
	for len(w) > 1 && (trailing[w[len(w)-1]] || numbered.MatchString(w[len(w)-1])) {
		w = w[:len(w)-1]
	}
	if n := len(w); n > 1 && issuerWords[w[n-1]] != "" && (strong[w[n-2]] && w[n-2] != "auth" || phrase[w[n-2]] || w[n-2] == "key") { // TOKEN_GITHUB
		w = w[:n-1]
	}
	if len(w) == 0 {
		return plain
	}
	last, prev := w[len(w)-1], ""
	if len(w) > 1 {
		prev = w[len(w)-2]
	}
	secretive := false
	for _, x := range w {
		if known[x] && last != "password" {
			return plain
		}
		secretive = secretive || x == "secret" || x == "private"
	}
	switch {
	case phrase[last], len(last) > 8 && strings.HasSuffix(last, "password"), len(last) > 6 && strings.HasSuffix(last, "passwd"):
		return password
	case len(last) > 6 && strings.HasSuffix(last, "secret"), len(last) > 5 && strings.HasSuffix(last, "token") && last != "csrftoken" && last != "xsrftoken" && last != "pagetoken" && last != "nextoken":
		return telling
	case last == "string" && prev == "connection", last == "auth" && prev == "require":
		return password
	case strong[last] && last != "cookie" && last != "webhook":
		if last == "auth" && prev == "" || last == "token" && (prev == "next" || prev == "page" || prev == "continuation" || prev == "pagination" || prev == "csrf" || prev == "xsrf" || prev == "sync" || prev == "resume" || prev == "cancellation" || prev == "syntax" || prev == "eos" || prev == "bos" || prev == "pad" || prev == "unk" || prev == "mask") {
			if last == "auth" {
				return hinting
			}
			return plain
		}
		if last == "tokens" && prev == "max" {
			return plain
		}
		return telling
	case last == "key" || last == "keys":
		switch {
		case notKeys[prev] || prev == "ssh" || prev == "host":
			return plain
		case before[prev] || strings.HasSuffix(prev, "api") || providerOf(w) != "" || secretive:
			return telling
		}
		return hinting
	case (last == "access" || last == "refresh") && prev == "": // of OAuth, in stores of logins
		return hinting
	case last == "sid" && prev == "connect", last == "salt", last == "cookie", last == "webhook", last == "otp", last == "seed", last == "mnemonic":
		return hinting
	}
	return plain
}

// absolutePath matches how the path of a folder begins.
var absolutePath = lazily(`^(?:/|~|[A-Za-z]:[\\/]|\\\\)`)

// workingFolder reports whether a name is the one under which a shell keeps the folder that
// it is or was in. PWD also names a password, in connections of ODBC; a variable of an
// environment (env) never does.
func workingFolder(name, v string, env bool) bool {
	return (name == "PWD" || name == "OLDPWD") && (env || absolutePath.MatchString(v))
}

// secretParent reports whether a group of a file holds secrets by its name.
func secretParent(path string) bool {
	parts := strings.Split(path, ".")
	for _, p := range parts[:max(0, len(parts)-1)] {
		w := nameWords(p)
		if len(w) == 0 {
			continue
		}
		switch w[len(w)-1] {
		case "secrets", "secret", "credentials", "tokens", "passwords", "keys":
			return true
		}
	}
	return false
}

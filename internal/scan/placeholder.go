package scan

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"math"
	"strings"
)

// reference matches what stands for a value and is none: a variable, a template, a
// call, an address in a secret store, or a value that is encrypted in place.
var reference = lazily(`^(?:` +
	`\$\{[^}]*\}?.*|\$\(.*|\$[A-Za-z_]\w*(?:[./:-].*)?|\$env:.*|\$\{\{.*|%[A-Za-z_]\w*%|!?%\w+%?|\{\{.*|\{[\w.:/ -]*\}|<[^>]*>?|` +
	`\[[\w .:-]*\]|#\{.*|@\w+@|%[sdvq]|` + "`.*|" + `\(.*\)|=\s.*|\\?"?\$\{.*|` +
	`(?i:env|environ|process\.env|os\.environ|os\.getenv|getenv|system\.getenv|config|settings|secrets?|vars?|var|local|data|module|self|this|ctx|req|request|params|props|options|opts|args|env_file|import\.meta|deno\.env|rails\.application|builtins|random_\w+)[.\[(:].*|` +
	`(?i:op|vault|bao|openbao|ssm|aws|awssm|asm|gcpsm|sm|gsm|secret|secrets|secretsmanager|keyvault|akv|keychain|keyring|file|env|infisical|doppler|bws|bw|pass|gopass|kms|sops|ref|conjur|cyberark|lastpass|keeper|chamber|berglas|1password|dashlane|ejson|k8s|kubernetes|azurekv|parameterstore|input|prompt|cmd|exec|command|credstore|arn|projects|resolve|ambit)(?:://|:|\+[\w]+://).*|` +
	`\{resolve:.*|\{\w+:.*\}.*|projects/.+/secrets/.+|(?i:@microsoft\.keyvault)\(.*|(?i:enc)[\[(].*|\{cipher\}.*|\{aes\}.*|\{[A-Za-z0-9+/=]{20,}\}|\$ANSIBLE_VAULT.*|!(?i:vault|ref|sub|getatt|secret|env|include|reference)\b.*|` +
	`vault:v\d+:.*|AQICAH.*|/run/secrets/.*|ambit_\w*|\$\d.*|[\w.]+\(.*|(?i:bearer|basic|token)\s+[\$<{\[%].*|__\w+__|\w+\.\w+\.result|[a-z_][\w.]*\[[^\]]*\][\w.\[\]]*|.*/aws4_request|\*+|•+.*|\.{2,}.*|…+.*` +
	`)$`)

// hashed matches the hash of a password, a digest and other values that say nothing.
var hashed = lazily(`^(?:\$(?:2[abxy]?|argon2(?:id|i|d)|5|6|1|y|apr1|pbkdf2[\w-]*|scrypt|bcrypt)\$.*|\{(?:SSHA|SHA|MD5|CRYPT|BCRYPT|SSHA512|noop|bcrypt|pbkdf2|argon2)\}.*|SCRAM-SHA-(?:1|256|512)\$.*|pbkdf2[:_]\w+[:$].*|scrypt:\d+:.*|(?:sha1|sha224|sha256|sha384|sha512|md5)[-:=$].*|md5[0-9a-f]{32})$`)

// forAll matches keys that vendors hand out to be put into pages.
var forAll = lazily(`^(?:pk_(?:live|test)_\w+|pk\.eyJ.*|pk-lf-.*|phc_\w+|sb_publishable_.*|ca-pub-\d+|(?:price|prod|cus|sub|acct|evt|pm|seti|req|msg|toolu|call|chatcmpl|file|asst|thread|run|resp|org|proj|user|ses|conn|kek)_[A-Za-z0-9]{8,}|price_\w+|G-[A-Z0-9]{8,12}|UA-\d+-\d+|GTM-\w+|AW-\d+|[a-z]{2,10}_01[0-9a-hjkmnp-tv-z]{24})$`)

var (
	uuid     = lazily(`^(?i)\{?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\}?$`)
	hexOnly  = lazily(`^(?:0x)?[0-9a-fA-F]+$`)
	pathLike = lazily(`^(?:~?/|\.{1,2}/|[A-Za-z]:\\|file:)[^\s]*$`)
	pathTail = lazily(`(?i)\.(?:pem|key|crt|cer|txt|json|ya?ml|toml|env|p12|pfx|jks|conf|cfg|ini|sock|db|log|js|ts|py|go|rb|java|php|html?|css|md|sh|xml|csv|png|jpe?g|svg)$`)
	dateLike = lazily(`^\d{4}-\d\d-\d\d(?:[T ][\d:.]+(?:Z|[+-]\d\d:?\d\d)?)?$`)
	version  = lazily(`^[v^~=<>]*\d+(?:\.\d+)+(?:[-+][\w.]+)?$`)
	cloudID  = lazily(`^(?:arn:[\w-]+:|urn:|(?:vpc|subnet|sg|ami|i|vol|eni|rtb|igw|acl|snap|tgw|eipalloc|lt)-[0-9a-f]{8,17}$|projects/|/subscriptions/|gid://|did:|spiffe://)`)
)

// fake are words that only an example has, wherever they stand in a value.
var fake = []string{
	"example", "placeholder", "changeme", "change-me", "change_me", "changeit", "change_it", "change-it", "changethis", "change_this", "change-this", "replaceme", "replace_me", "replace-me", "replace_with", "replace-with", "replacewith",
	"your_", "your-", "yourapi", "yoursecret", "yourtoken", "yourpassword", "yourkey", "insert_", "insert-", "inserthere", "_here", "-here", "goes-here", "goes_here", "redacted", "xxxx", "dummy", "notareal", "not-a-real", "not_a_real", "notreal", "not-real", "not_real",
	"sample", "foobar", "lorem", "ipsum", "fixme", "abcdefgh", "12345678", "01234567", "qwerty", "deadbeef", "cafebabe", "masked", "removed", "***", "....", "•••", "<your", "put_your", "enter_your", "fill_in", "fill-in", "fill_me", "set_me", "set-me", "setme",
	"to_be_set", "to-be-set", "tobeset", "not-a-secret", "not_a_secret", "notasecret", "no-secret", "obviously", "some-secret", "some_secret", "somesecret", "supersecret", "super-secret", "super_secret", "my-secret", "my_secret", "mysecret", "mytoken", "my-token", "my_token", "mypassword", "my-password", "my_password", "my-api-key", "my_api_key", "myapikey",
	"secret-key", "secret_key", "secretkey", "api-key", "api_key", "apikey", "access-token", "access_token", "test-token", "test_token", "test-key", "test_key", "test-secret", "test_secret", "testsecret", "testtoken", "test-password", "test_password", "testpassword", "dev-only", "dev_only", "for-testing", "for_testing", "local-dev", "devsecret", "dev-secret", "dev_secret", "default-secret", "keyboard cat", "unused", "ignored", "generate", "undefined", "min-32", "at-least", "at_least", "please", "rotate-me", "rotate_me",
}

// whole are values that are defaults, words of a form, or nothing.
var whole = set(`password passwd pass pwd passphrase passw0rd p@ssw0rd p@ssword pa$$word pa55word password1 password123 password1234 secret secrets secret123 secretpassword token tokens key apikey none null nil undefined
	true false yes no on off empty blank default test testing test123 test1234 tester testpass testuser testpw root toor admin administrator admin123 admin1234 user username guest postgres postgresql mysql mariadb mongo mongodb redis rabbitmq
	minioadmin minio elastic kibana grafana sa oracle changeme letmein welcome welcome1 hello hello123 foo bar baz qux foobar foobaz abc abc123 abcd1234 abcdef xyz 123 1234 12345 123456 1234567 12345678 123456789 1234567890 111111 000000
	string text str int integer number boolean bool object array any unknown required optional hidden value values auto manual basic bearer oauth oauth2 jwt apikey api-key http https digest ntlm kerberos local ldap saml oidc sso mfa otp totp
	production prod staging development dev ci live sandbox public private internal external enabled disabled allow deny read write example demo dummy sample temp tmp todo tbd n/a na password: environment env file vault prompt ask interactive
	keychain keyring credential credentials authorization x-api-key same-origin include omit plaintext plain hashed encrypted sops current new old app application web service server client docker compose kubernetes hunter2 hunter1 insecure trust peer md5 scram-sha-256 username:password user:pass user:password foo:bar
	pass123 passpass passwort kennwort contraseña geheim s3cr3t s3cret sekret secr3t p4ssw0rd iloveyou monkey dragon qwerty qwerty123 master superuser localhost`)

// published are the SHA-256 sums of keys that vendors print in their documentation
// or build into their emulators and programs. They open nothing, and this file does not trip a scanner.
var published = set(`cf4d418ed3de92d71f767db5391d5a2dacd40e1ce49e75d1137e2ecf4982d844 78314b11be2e581549ac1c4f616563fad3fdf0c3b71678f6e2299182080e0598 2cafc0970149a84f3b9e62eaf169f36f59907a3b3e31f7b82e68c69cd27f7326
	0011cc25eb4320717494d2703e8cba85743e71b500283c21c8b88147992f9059 aa6547439583c3a275d4542a0df6c1ad6a863971be9f2a2220f027cc02aef615
	f2d6ca16515033e5dce14eba840b979d27b5cbae24bb3e5bf484339667f86397 2d1f7723aabc5c7a51fcdc2463c99b5f3fdbc57cf3134db4ac12913c35976e6f
	1a5d44a2dca19669d72edf4c4f1c27c4c1ca4b4408fbb17f6ce4ad452d78ddb3 051d093c4bdedbf23f905ad01d9c6111414d54e2170e1d7f76657c4e76e3e65b
	08831f80b56414a9a76dacd6b428d735b56cbbb222d96efbbc0c18f3e9acaafc e21b597ba6b9cafa59d9ebc4d65c0385f5eb3fa56abab2607fa76589ad849a33
	7e8de44ea9ecf6d53415c90f5b249a8591f7abafbf7d65a2c0d855afeca3ec09 89da12d4a56213d09ab7338e3558cd1da66d31b51eb7a6f50af6e20ce3ec928e
	f0386f9be1fe905fb2f97a8daff11a9baa9988ceca7c2ecae4aec8db182db1b4 456a51b1f1b3cf3ed76de579926f0727797eb6efb4b7e6a53c74f9a94c95d87a`)

func printed(v string) bool {
	sum := sha256.Sum256([]byte(v))
	return published[hex.EncodeToString(sum[:])]
}

func set(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}

// placeholder reports whether a value stands for one that is put in elsewhere, is an
// example, or is a hash: whatever opens nothing.
func placeholder(v string) bool {
	v = strings.TrimSpace(v)
	if forAll.MatchString(v) {
		return true
	}
	if m := jwtForm.FindStringSubmatch(v); m != nil {
		if b, err := base64.RawURLEncoding.DecodeString(m[1]); err == nil && readClaims(b).public() {
			return true
		}
	}
	if len(v) < 3 || whole[strings.ToLower(v)] || reference.MatchString(v) || hashed.MatchString(v) {
		return true
	}
	if printed(v) {
		return true
	}
	low := strings.ToLower(v)
	for _, w := range fake {
		if strings.Contains(low, w) && !(strings.HasPrefix(w, "change") && varied.MatchString(v)) {
			return true
		}
	}
	if len(v) < 12 || wordy(v) { // chance puts short words into long values
		for _, w := range []string{"fake", "todo", "tbd", "mock"} {
			if strings.Contains(low, w) {
				return true
			}
		}
	}
	for _, w := range strings.FieldsFunc(low, func(r rune) bool { return !(r >= 'a' && r <= 'z') }) {
		if (w == "your" || w == "my" || w == "here" || w == "test" && wordy(v) || w == "xxx" || w == "foo" || w == "bar") && len(v) < 60 && wordy(v) {
			return true
		}
	}
	if strings.Contains(v, "…") || strings.Contains(v, "...") || formatted.MatchString(v) {
		return true
	}
	if strings.Contains(v, "${") || strings.Contains(v, "{{") || strings.Contains(v, "<%") || strings.Contains(v, "$(") {
		return true
	}
	return monotone(v) || encodedWords(v)
}

// encodedWords reports whether a value is a sentence in base64, as tests and manuals have it
// where a token stands.
func encodedWords(v string) bool {
	if len(v) < 16 || len(v) > 400 || v[0] < 'A' {
		return false
	}
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(v, "="))
	return err == nil && printable(b) && bytes.Count(b, []byte{' '}) >= 2 && wordy(string(b))
}

// varied matches a default that somebody made their own password of: changeme-Prod1.
var varied = lazily(`^change-?me[-_.!](?:[A-Z][a-z]+\d+|[A-Z]\w*\d+!?)$`)

// formatted matches what a program fills in: %d, %[1]s, %(name)s.
var formatted = lazily(`%(?:\[\d\]|\(\w+\))?[-+#0]?\d*[sdvqx](?:[^0-9A-Za-z]|$)`)

// fakeBody is placeholder for the random part of a token whose form is known: words
// count only where chance cannot have put them.
func fakeBody(v string) bool {
	if reference.MatchString(v) {
		return true
	}
	if printed(v) {
		return true
	}
	low := strings.ToLower(v)
	for _, w := range []string{"example", "placeholder", "changeme", "xxxx", "your", "dummy", "redacted", "sample", "fake", "abcdefgh", "12345678", "deadbeef", "insert", "replace", "....", "****", "testtest", "foobar", "<", "${", "notreal", "not-real", "not_real", "-here", "_here", "goes"} {
		if strings.Contains(low, w) {
			return true
		}
	}
	return monotone(v)
}

// monotone reports whether a value repeats itself: few signs, one run, or a sequence.
func monotone(v string) bool {
	seen := map[byte]int{}
	steps, same := 0, 0
	for i := range len(v) {
		seen[v[i]]++
		if i > 0 {
			switch int(v[i]) - int(v[i-1]) {
			case 1:
				steps++
			case 0:
				same++
			}
		}
	}
	n := len(v)
	if n >= 8 && (len(seen) <= 3 || len(seen) <= 5 && n >= 24) {
		return true
	}
	if n >= 10 && (steps*2 > n || same*2 > n) {
		return true
	}
	for _, period := range []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16} { // abcabcabc
		if n >= 3*period && n >= 12 && strings.Repeat(v[:period], n/period+1)[:n] == v {
			return true
		}
	}
	return false
}

// wordy reports whether a value is made of words: letters with an occasional number,
// parted by punctuation or capitals, as names and sentences are.
func wordy(v string) bool {
	parts := strings.FieldsFunc(v, func(r rune) bool { return strings.ContainsRune("-_./: ,@+=|", r) })
	if len(parts) == 0 {
		return true
	}
	all, read, letters := 0, 0, 0
	for _, p := range parts {
		if !word(p) {
			return false
		}
		n := countLetters(p)
		all, letters = all+len(p), letters+n
		if n >= 3 {
			read += len(p)
		}
	}
	return letters == 0 || 2*read >= all
}

func countLetters(s string) (n int) {
	for i := range len(s) {
		if c := s[i] | 0x20; c >= 'a' && c <= 'z' {
			n++
		}
	}
	return n
}

// word reports whether a piece reads as a word, an abbreviation or a small number.
func word(p string) bool {
	if humped(p) {
		return true
	}
	letters, digits, upper, change, run, longest := 0, 0, 0, 0, 0, 0
	last := byte(0)
	for i := range len(p) {
		c := p[i]
		switch {
		case c >= '0' && c <= '9':
			digits++
			run = 0
			if last == 'a' && i+1 < len(p) && (p[i+1] > '9') {
				change++ // a digit amid letters
			}
			last = '0'
			continue
		case c >= 'A' && c <= 'Z':
			upper++
			letters++
			if last == 'a' {
				change++
			}
			last = 'A'
		case c >= 'a' && c <= 'z':
			letters++
			last = 'a'
		default:
			return false
		}
		if strings.IndexByte("aeiouyAEIOUY", c) < 0 {
			run++
			longest = max(longest, run)
		} else {
			run = 0
		}
	}
	switch {
	case letters >= 12 && upper > 0 && upper < letters && byChance(p):
		return false
	case letters == 0:
		return digits <= 6
	case digits > 4 || digits > 0 && digits >= letters:
		return letters <= 2 && digits <= 3
	case longest > 5 && letters > 8 && upper != letters, longest > 7:
		return false
	case len(p) >= 10 && (change > 1 || upper > 0 && upper < letters && len(numbers.FindAllSubmatchIndex([]byte(p), 2)) > 1): // numbers here and there
		return false
	case digits > 0 && change > 0 && (len(p) > 4 && upper > 0 || len(p) > 7 && letters < 8):
		return false
	case upper > 0 && upper < letters && (change > 1+letters/5 || letters >= 24 && 5*change > letters): // a long key by chance has no digit
		return false
	case upper == letters && letters > 11 && digits > 0, upper == letters && letters > 20:
		return false
	}
	return len(p) <= 40
}

var numbers = lazily(`[A-Za-z]\d+[A-Za-z]`)

// byChance reports whether most humps of a piece, four at least, read as none: two letters,
// or none that is a vowel. Abbreviations in capitals count for neither.
func byChance(p string) bool {
	humps, odd := 0, 0
	for i := 0; i < len(p); {
		j := i + 1
		for j < len(p) && p[j] >= 'A' && p[j] <= 'Z' && p[j-1] >= 'A' && p[j-1] <= 'Z' && (j+1 == len(p) || p[j+1] >= 'A' && p[j+1] <= 'Z') {
			j++
		}
		capitals := j-i > 1
		for !capitals && j < len(p) && p[j] >= 'a' && p[j] <= 'z' {
			j++
		}
		if !capitals {
			humps++
			if j-i <= 2 || !strings.ContainsAny(p[i:j], "aeiouAEIOU") {
				odd++
			}
		}
		i = j
	}
	return humps >= 4 && 2*odd > humps
}

// humped reports whether a piece is words run together: TestRule2CredentialsLeave. Chance
// gives humps of one or two letters.
func humped(p string) bool {
	humps, letters, run, longest, digits := 0, 0, 0, 0, 0
	last := byte(' ')
	for i := range len(p) {
		c := p[i]
		switch {
		case c >= '0' && c <= '9':
			digits++
			last = '0'
			run = 0
			continue
		case c >= 'A' && c <= 'Z':
			if last != 'A' || i+1 < len(p) && p[i+1] >= 'a' && p[i+1] <= 'z' {
				humps++
			}
			last = 'A'
		case c >= 'a' && c <= 'z':
			if last != 'a' && last != 'A' {
				humps++
			}
			last = 'a'
		default:
			return false
		}
		letters++
		if strings.IndexByte("aeiouyAEIOUY", c) < 0 {
			if run++; run > longest {
				longest = run
			}
		} else {
			run = 0
		}
	}
	return len(p) >= 10 && len(p) <= 80 && humps >= 2 && letters >= 4*humps && longest <= 5 && digits <= 4 && 8*digits <= letters
}

// entropy is Shannon's, in bits a byte.
func entropy(s string) float64 {
	if s == "" {
		return 0
	}
	var n [256]int
	for i := range len(s) {
		n[s[i]]++
	}
	e := 0.0
	for _, c := range n {
		if c > 0 {
			p := float64(c) / float64(len(s))
			e -= p * math.Log2(p)
		}
	}
	return e
}

// random reports whether a value looks as though a machine made it, with at least
// least characters.
func random(v string, least int) bool {
	if len(v) < least || strings.ContainsAny(v, " \t\n") || uuid.MatchString(v) {
		return false
	}
	if pathLike.MatchString(v) && strings.Count(v, "/")+strings.Count(v, `\`) > 1 && wordyPath(v) || dateLike.MatchString(v) || version.MatchString(v) || cloudID.MatchString(v) {
		return false
	}
	floor := 2.6
	switch n := len(v); {
	case n >= 32:
		floor = 3.1
	case n >= 20:
		floor = 2.9
	}
	if hexOnly.MatchString(v) {
		return len(v) >= max(least, 16) && entropy(v) > 2.6 && strings.ContainsAny(v, "0123456789") && strings.ContainsAny(v, "abcdefABCDEF")
	}
	return entropy(v) >= floor && !wordy(v)
}

func wordyPath(v string) bool {
	if strings.HasPrefix(v, "~/") || strings.HasPrefix(v, "./") || strings.HasPrefix(v, "../") {
		return true
	}
	for _, p := range strings.FieldsFunc(v, func(r rune) bool { return r == '/' || r == '\\' }) {
		if !wordy(p) {
			return false
		}
	}
	return true
}

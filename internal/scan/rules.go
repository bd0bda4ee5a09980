package scan

import (
	"fmt"
	"regexp"
	"strings"
	"sync"

	ahocorasick "github.com/BobuSumisu/aho-corasick"
	"github.com/pelletier/go-toml/v2"
	gitleaks "github.com/zricethezav/gitleaks/v8/config"
)

// rule finds tokens by their own form.
type rule struct {
	id, title, provider string
	base                int
	keywords            []string // lower case; one stands in every match
	pattern             string
	// anchored says that a match begins with its keyword, at the beginning of a word.
	anchored bool
	entropy  float64
	group    int
	allow    []string
	compile  func() (*regexp.Regexp, []*regexp.Regexp)
}

// hook is what a word in a text makes the reader look at.
type hook struct {
	rules []*rule
	mark  mark
}

// mark is a word that no rule has and that leads somewhere.
type mark int8

const (
	noMark     mark = iota
	nameMark        // part of a telling name
	urlMark         // ://
	pemMark         // -----BEGIN
	jwtMark         // eyJ
	headerMark      // bearer and basic
	userMark        // flags and commands that give a password
	packedMark      // LS0tLS1CRUdJTi, which is -----BEGIN and a space in base64
	dsnMark         // @tcp(, amid an address of Go's MySQL driver
	callMark        // a call that is given a secret by its place
)

type ruleSet struct {
	trie  *ahocorasick.Trie
	hooks []hook // by number of the pattern
}

// loadRules makes the rules once. Expressions are compiled when a keyword of
// theirs is met for the first time: most scans need a few of them.
var loadRules = sync.OnceValues(func() (*ruleSet, error) {
	theirs, err := gitleaksRules()
	if err != nil {
		return nil, err
	}
	var words []string
	number := map[string]int{}
	var hooks []hook
	at := func(word string) *hook {
		n, ok := number[word]
		if !ok {
			n = len(words)
			number[word] = n
			words = append(words, word)
			hooks = append(hooks, hook{})
		}
		return &hooks[n]
	}
	for _, r := range append(ownRules(), theirs...) {
		r.compile = sync.OnceValues(r.build)
		for _, k := range r.keywords {
			h := at(k)
			h.rules = append(h.rules, r)
		}
	}
	for word, m := range marks {
		at(word).mark = m
	}
	for word := range calls {
		at(word).mark = callMark
	}
	return &ruleSet{trie: ahocorasick.NewTrieBuilder().AddStrings(words).Build(), hooks: hooks}, nil
})

var marks = map[string]mark{
	"pass": nameMark, "pwd": nameMark, "secret": nameMark, "token": nameMark, "key": nameMark, "cred": nameMark, "_pat": nameMark, "auth": nameMark, "jwt": nameMark, "psk": nameMark, "bearer": headerMark, "basic ": headerMark, "cookie": nameMark, "_pw": nameMark, "passwort": nameMark, "kennwort": nameMark, "_salt": nameMark, "webhook": nameMark, "_dsn": nameMark, "sig=": nameMark, "connection": nameMark,
	"://": urlMark, "-----begin": pemMark, "ls0tls1crudjti": packedMark, "eyj": jwtMark, "-u": userMark, "--user": userMark, "-p": userMark, "identified by": userMark, "identified with": userMark, "pw is": nameMark, "redis-cli": userMark, "ldap": userMark, "gh secret set": userMark, "echo ": userMark, "openssl": userMark, "convertto-securestring": userMark, "sqlplus ": userMark, "sqlcmd": userMark, "htpasswd": userMark, "smbclient": userMark, "ssh-keygen": userMark, "pw:": nameMark, "pw=": nameMark, "@tcp(": dsnMark,
}

func (r *rule) build() (*regexp.Regexp, []*regexp.Regexp) {
	p := r.pattern
	if r.anchored {
		p = "^(?:" + p + ")"
	}
	var allow []*regexp.Regexp
	for _, a := range r.allow {
		allow = append(allow, regexp.MustCompile(a))
	}
	return regexp.MustCompile(p), allow
}

// gitleaksRules are the rules that gitleaks ships for tokens with a form of their own.
// Its rules that go by the name of a value are left out: names are read by this
// package, with the structure around them. So are those for what is no secret.
func gitleaksRules() ([]*rule, error) {
	var cfg struct {
		Rules []struct {
			ID, Description, Path, Regex string
			SecretGroup                  int
			Entropy                      float64
			Keywords                     []string
			Allowlists                   []struct {
				Regexes     []string
				RegexTarget string
			}
		}
	}
	if err := toml.Unmarshal([]byte(gitleaks.DefaultConfig), &cfg); err != nil {
		return nil, fmt.Errorf("the rules of gitleaks: %w", err)
	}
	var list []*rule
	for _, r := range cfg.Rules {
		if r.Regex == "" || r.Path != "" || len(r.Keywords) == 0 || leftOut[r.ID] || strings.Contains(r.Regex, `[\w.-]{0,50}?`) {
			continue
		}
		own := &rule{id: r.ID, provider: providerOf(strings.Split(r.ID, "-")), pattern: r.Regex, entropy: r.Entropy, group: r.SecretGroup}
		for _, k := range r.Keywords {
			own.keywords = append(own.keywords, strings.ToLower(k))
		}
		for _, a := range r.Allowlists {
			if a.RegexTarget == "" {
				own.allow = append(own.allow, a.Regexes...)
			}
		}
		own.title = titleOf(own)
		list = append(list, own)
	}
	return list, nil
}

// titleOf is a rule's name in words: "GitHub app token".
func titleOf(r *rule) string {
	words := strings.ReplaceAll(r.id, "-", " ")
	if name := providerName(r.provider); name != "" {
		words = strings.TrimSpace(strings.TrimPrefix(words, r.provider))
		return name + " " + words
	}
	return strings.ToUpper(words[:1]) + words[1:]
}

// leftOut are rules of gitleaks for what this package reads itself, and for what is public.
var leftOut = set(`generic-api-key jwt jwt-base64 private-key curl-auth-header curl-auth-user kubernetes-secret-yaml flutterwave-public-key nuget-config-password hashicorp-tf-password
	microsoft-teams-webhook freemius-secret-key sidekiq-sensitive-url aws-access-token alibaba-access-key-id`)

// own is shorthand for a rule whose match begins with one of the keywords.
func own(id, provider, title string, base int, pattern string, keywords ...string) *rule {
	return &rule{id: id, provider: provider, title: title, base: base, pattern: pattern, keywords: keywords, anchored: true}
}

// ownRules are for forms that gitleaks does not know, or knows too narrowly.
func ownRules() []*rule {
	const word = `[A-Za-z0-9_-]`
	return []*rule{
		own("github-fine-grained-pat", "github", "GitHub fine-grained token", 70, `github_pat_`+`\w{36,255}`, "github_pat_"),
		own("github-pat", "github", "GitHub personal access token", 80, `ghp_[A-Za-z0-9]{30,251}`, "ghp_"),
		own("github-oauth", "github", "GitHub OAuth token", 75, `gho_[A-Za-z0-9]{30,251}`, "gho_"),
		own("github-app-token", "github", "GitHub app token", 65, `gh[us]_[A-Za-z0-9]{30,251}`, "ghu_", "ghs_"),
		own("github-refresh-token", "github", "GitHub refresh token", 75, `ghr_[A-Za-z0-9]{30,251}`, "ghr_"),
		own("gitlab-token", "gitlab", "GitLab token", 75, `gl(?:pat|dt|rt|rtr|cbt|ptt|ft|soat|agent|oas|ffct|imt|wt)-[0-9A-Za-z_.-]{18,300}`, "glpat-", "gldt-", "glrt-", "glrtr-", "glcbt-", "glptt-", "glft-", "glsoat-", "glagent-", "gloas-", "glffct-", "glimt-", "glwt-"),
		own("github-copilot-token", "github", "GitHub Copilot session token", 45, `tid=[0-9a-f]{32};[A-Za-z0-9=;:._-]+`, "tid="),
		own("microsoft-teams-webhook", "azure", "Microsoft Teams webhook", 45, `webhook\.office\.com/webhookb2/[0-9a-f-]{36}@[0-9a-f-]{36}/IncomingWebhook/[0-9a-f]{32}/[0-9a-f-]{36}(?:/[\w-]+)?`, "webhook.office.com"),
		own("anthropic-key", "anthropic", "Anthropic API key", 65, `sk-ant-(?:api|admin|oat|ort|sid)\d\d-`+word+`{24,}`, "sk-ant-"),
		own("openrouter-key", "openrouter", "OpenRouter API key", 55, `sk-or-v1-[0-9a-f]{48,}`, "sk-or-"),
		own("langfuse-key", "langfuse", "Langfuse secret key", 45, `sk-lf-[0-9a-f-]{32,}`, "sk-lf-"),
		own("openai-key", "openai", "OpenAI API key", 65, `sk-(?:proj|svcacct|admin|service|None)-`+word+`{20,}|sk-[A-Za-z0-9]{32,}`, "sk-"),
		own("aws-access-key-id", "aws", "AWS access key", 60, `(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b`, "akia", "asia", "abia", "acca"),
		own("google-api-key", "google", "Google API key", 55, `AIza[0-9A-Za-z_-]{35}`, "aiza"),
		own("google-oauth-token", "google", "Google OAuth access token", 60, `ya29\.[0-9A-Za-z_.-]{20,}`, "ya29."),
		own("google-refresh-token", "google", "Google OAuth refresh token", 80, `1//0[0-9A-Za-z_-]{30,}`, "1//0"),
		own("google-client-secret", "google", "Google OAuth client secret", 65, `GOCSPX-[0-9A-Za-z_-]{24,}`, "gocspx-"),
		own("slack-token", "slack", "Slack token", 65, `xox[baprseco]-(?:\d-)?[0-9A-Za-z-]{16,}|xoxe\.xox[bp]-\d-[0-9A-Za-z-]{16,}`, "xoxb-", "xoxa-", "xoxp-", "xoxr-", "xoxs-", "xoxe", "xoxc-", "xoxo-"),
		own("slack-app-token", "slack", "Slack app token", 65, `xapp-\d-[0-9A-Za-z]+-\d+-[0-9A-Za-z]{16,}`, "xapp-"),
		own("slack-webhook", "slack", "Slack webhook", 45, `hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/_+-]{36,}`, "hooks.slack.com"),
		own("discord-webhook", "discord", "Discord webhook", 40, `discord(?:app)?\.com/api/webhooks/\d{15,20}/`+word+`{50,}`, "discord.com/api", "discordapp.com/api"),
		own("stripe-key", "stripe", "Stripe secret key", 85, `[sr]k_live_[0-9A-Za-z]{16,}(?:[+/][0-9A-Za-z+/]+)?={0,2}`, "sk_live_", "rk_live_"),
		own("stripe-test-key", "stripe", "Stripe test key", 35, `[sr]k_test_[0-9A-Za-z]{16,}`, "sk_test_", "rk_test_"),
		own("stripe-webhook-secret", "stripe", "Webhook signing secret", 50, `whsec_[0-9A-Za-z+/=]{24,}`, "whsec_"),
		own("huggingface-token", "huggingface", "Hugging Face token", 55, `hf_[A-Za-z]{30,}|hf_[A-Za-z0-9]{30,}`, "hf_"),
		own("groq-key", "groq", "Groq API key", 50, `gsk_[A-Za-z0-9]{40,}`, "gsk_"),
		own("xai-key", "xai", "xAI API key", 50, `xai-[A-Za-z0-9]{40,}`, "xai-"),
		own("replicate-token", "replicate", "Replicate token", 50, `r8_[A-Za-z0-9]{30,}`, "r8_"),
		own("perplexity-key", "perplexity", "Perplexity API key", 45, `pplx-[A-Za-z0-9]{32,}`, "pplx-"),
		own("fireworks-key", "fireworks", "Fireworks API key", 50, `fw_[A-Za-z0-9]{20,}`, "fw_"),
		own("together-key", "together", "Together API key", 50, `tgp_v1_`+word+`{32,}`, "tgp_v1_"),
		own("nvidia-key", "nvidia", "NVIDIA API key", 45, `nvapi-`+word+`{40,}`, "nvapi-"),
		own("cerebras-key", "cerebras", "Cerebras API key", 50, `csk-[a-z0-9]{32,}`, "csk-"),
		own("voyage-key", "voyage", "Voyage API key", 40, `pa-`+word+`{40,}`, "pa-"),
		own("jina-key", "jina", "Jina API key", 35, `jina_[A-Za-z0-9_-]{40,}`, "jina_"),
		own("tavily-key", "tavily", "Tavily API key", 35, `tvly-[A-Za-z0-9-]{20,}`, "tvly-"),
		own("firecrawl-key", "firecrawl", "Firecrawl API key", 40, `fc-[0-9a-f]{32}\b`, "fc-"),
		own("context7-key", "context7", "Context7 API key", 35, `ctx7sk-[0-9a-f-]{32,}`, "ctx7sk-"),
		own("langsmith-key", "langsmith", "LangSmith API key", 45, `lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{8,}`, "lsv2_"),
		own("pinecone-key", "pinecone", "Pinecone API key", 50, `pcsk_[A-Za-z0-9_]{32,}`, "pcsk_"),
		own("e2b-key", "", "E2B API key", 45, `e2b_[0-9a-f]{32,}`, "e2b_"),
		own("elevenlabs-key", "elevenlabs", "ElevenLabs API key", 45, `sk_[0-9a-f]{48}\b`, "sk_"),
		own("figma-token", "figma", "Figma token", 55, `figd_`+word+`{36,}`, "figd_"),
		own("linear-token", "linear", "Linear token", 60, `lin_(?:api|oauth|wh)_[A-Za-z0-9]{32,}`, "lin_api_", "lin_oauth_", "lin_wh_"),
		own("notion-token", "notion", "Notion token", 60, `ntn_[A-Za-z0-9]{40,}|secret_[A-Za-z0-9]{43}\b`, "ntn_", "secret_"),
		own("airtable-token", "airtable", "Airtable token", 60, `pat[A-Za-z0-9]{14}\.[0-9a-f]{64}`, "pat"),
		own("square-token", "square", "Square token", 75, `sq0(?:atp|csp|idp)-`+word+`{22,}|EAAA[A-Za-z0-9_-]{56,}`, "sq0atp-", "sq0csp-", "eaaa"),
		own("facebook-token", "facebook", "Meta access token", 65, `EAA[A-Za-z0-9]{80,}`, "eaa"),
		own("shopify-token", "shopify", "Shopify token", 70, `shp(?:at|ca|pa|ss|tka|rt)_[0-9a-fA-F]{32,}`, "shpat_", "shpca_", "shppa_", "shpss_", "shptka_", "shprt_"),
		own("sendgrid-key", "sendgrid", "SendGrid API key", 60, `SG\.`+word+`{16,32}\.`+word+`{30,64}`, "sg."),
		own("mailgun-key", "mailgun", "Mailgun API key", 60, `key-[0-9a-f]{32}\b`, "key-"),
		own("resend-key", "resend", "Resend API key", 50, `re_[A-Za-z0-9]{6,12}_[A-Za-z0-9]{18,}`, "re_"),
		own("clickup-token", "clickup", "ClickUp token", 55, `pk_\d{5,10}_[A-Z0-9]{32}\b`, "pk_"),
		own("supabase-token", "supabase", "Supabase token", 75, `sbp_[0-9a-f]{40}|sb_secret_[A-Za-z0-9_-]{20,}`, "sbp_", "sb_secret_"),
		own("vercel-token", "vercel", "Vercel token", 70, `vc[pkiar]_[A-Za-z0-9]{24,}|vercel_blob_rw_[A-Za-z0-9_]{24,}`, "vcp_", "vck_", "vci_", "vca_", "vcr_", "vercel_blob_rw_"),
		own("netlify-token", "netlify", "Netlify token", 65, `nf[pcoub]_[A-Za-z0-9]{36,}`, "nfp_", "nfc_", "nfo_", "nfu_", "nfb_"),
		own("render-key", "render", "Render API key", 70, `rnd_[A-Za-z0-9]{24,}`, "rnd_"),
		own("contentful-token", "contentful", "Contentful token", 50, `CFPAT-`+word+`{40,}`, "cfpat-"),
		own("atlassian-token", "atlassian", "Atlassian API token", 65, `AT(?:ATT|CTT)3[A-Za-z0-9_=-]{60,}`, "atatt3", "atctt3"),
		own("bitbucket-app-password", "bitbucket", "Bitbucket app password", 70, `ATBB[A-Za-z0-9]{28,}`, "atbb"),
		own("twilio-key", "twilio", "Twilio API key", 55, `SK[0-9a-f]{32}\b`, "sk"),
		own("docker-token", "docker", "Docker access token", 70, `dckr_[po]at_`+word+`{20,}`, "dckr_pat_", "dckr_oat_"),
		own("npm-token", "npm", "npm access token", 75, `npm_[A-Za-z0-9]{30,}`, "npm_"),
		own("pypi-token", "pypi", "PyPI upload token", 75, `pypi-`+word+`{50,}`, "pypi-"),
		own("crates-token", "cargo", "crates.io token", 75, `cio[A-Za-z0-9]{32}\b`, "cio"),
		own("nuget-key", "nuget", "NuGet API key", 70, `oy2[a-z0-9]{43}\b`, "oy2"),
		own("vault-token", "vault", "HashiCorp Vault token", 85, `hv[sbr]\.[A-Za-z0-9_-]{20,}`, "hvs.", "hvb.", "hvr."),
		own("doppler-token", "doppler", "Doppler token", 85, `dp\.(?:pt|ct|sa|scim|audit|st(?:\.[a-z0-9_-]+)?)\.[A-Za-z0-9]{40,}`, "dp."),
		own("1password-token", "1password", "1Password service account token", 90, `ops_eyJ[A-Za-z0-9+/=_-]{100,}`, "ops_eyj"),
		own("tailscale-key", "tailscale", "Tailscale key", 75, `tskey-[a-z]+-[A-Za-z0-9]+-[A-Za-z0-9]{16,}`, "tskey-"),
		own("tencent-key", "", "Tencent Cloud secret id", 60, `AKID[A-Za-z0-9]{28,36}\b`, "akid"),
		own("posthog-key", "posthog", "PostHog personal key", 50, `phx_[A-Za-z0-9]{32,}`, "phx_"),
		own("braintree-token", "paypal", "Braintree token", 80, `access_token\$(?:production|sandbox)\$[0-9a-z]{16}\$[0-9a-f]{32}`, "access_token$"),
		own("mapbox-token", "mapbox", "Mapbox secret token", 50, `sk\.eyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{16,}`, "sk.ey"),
		own("buildkite-token", "buildkite", "Buildkite token", 65, `bkua_[0-9a-f]{40}`, "bkua_"),
		own("circleci-token", "circleci", "CircleCI token", 65, `CCIP(?:AT|RJ)_[A-Za-z0-9]{16,}_[0-9a-f]{40}`, "ccipat_", "cciprj_"),
		own("sonar-token", "sonar", "Sonar token", 50, `sq[pua]_[0-9a-f]{40}`, "sqp_", "squ_", "sqa_"),
		own("grafana-token", "grafana", "Grafana token", 55, `glsa_[A-Za-z0-9]{32}_[0-9A-Fa-f]{8}|glc_[A-Za-z0-9+/=]{32,}`, "glsa_", "glc_"),
		own("newrelic-key", "newrelic", "New Relic key", 50, `NR(?:AK|II|AL)-[A-Za-z0-9-]{24,}`, "nrak-", "nrii-", "nral-"),
		own("databricks-token", "databricks", "Databricks token", 75, `dapi[0-9a-f]{32}(?:-\d)?\b`, "dapi"),
		own("dynatrace-token", "dynatrace", "Dynatrace token", 55, `dt0[cs]\d\d\.[A-Z0-9]{24}\.[A-Z0-9]{64}`, "dt0"),
		own("fly-token", "fly", "Fly.io token", 75, `fm[12][ar]?_[A-Za-z0-9+/=_,-]{80,}|fo1_`+word+`{40,}`, "fm1", "fm2_", "fo1_"),
		own("cloudflare-token", "cloudflare", "Cloudflare token", 75, `cf(?:ut|at|k)_[A-Za-z0-9]{36,}|v1\.0-[0-9a-f]{24}-[0-9a-f]{140,}`, "cfut_", "cfat_", "cfk_", "v1.0-"),
		own("planetscale-token", "planetscale", "PlanetScale credential", 75, `pscale_(?:tkn|oauth|pw)_[A-Za-z0-9_.=-]{32,}`, "pscale_"),
		own("age-key", "", "age secret key", 80, `AGE-SECRET-KEY-1[0-9A-Z]{58}`, "age-secret-key-1"),
		own("azure-sas", "azure", "Azure shared access signature", 60, `sig=[A-Za-z0-9%+/]{40,}(?:=|%3[dD])`, "sig="),
		own("azure-account-key", "azure", "Azure storage account key", 85, `(?i:AccountKey|SharedAccessKey)=[A-Za-z0-9+/]{42,86}={1,2}`, "accountkey=", "sharedaccesskey="),
		own("ambit-key", "ambit", "Ambit key", 80, `(?:amb_[a-z]{2}|sk)_[A-Za-z0-9_-]{43}\b`, "amb_", "sk_"),
		own("dropbox-token", "dropbox", "Dropbox access token", 65, `sl\.(?:u\.)?[A-Za-z0-9_-]{100,}`, "sl."),
		own("hubspot-token", "hubspot", "HubSpot private app token", 65, `pat-(?:na|eu|ap)\d-[0-9a-f-]{36}`, "pat-na", "pat-eu", "pat-ap"),
		own("okta-token", "okta", "Okta API token", 80, `SSWS\s+00[A-Za-z0-9_-]{40}`, "ssws"),
		own("sourcegraph-token", "", "Sourcegraph token", 55, `sgp_(?:[0-9a-f]{16}_|local_)?[0-9a-f]{40}`, "sgp_"),
		own("infisical-token", "", "Infisical token", 85, `st\.[0-9a-f]{24}\.[0-9a-f]{32}\.[0-9a-f]{32}`, "st."),
		own("neon-key", "", "Neon API key", 70, `napi_[a-z0-9]{40,}`, "napi_"),
		own("google-api-key", "google", "Google API key", 55, `AQ\.Ab[0-9A-Za-z_-]{40,}`, "aq.ab"),
		own("razorpay-key", "", "Razorpay key", 65, `rzp_live_[0-9A-Za-z]{14,}`, "rzp_live_"),
		own("apify-token", "", "Apify token", 55, `apify_api_[0-9A-Za-z]{30,}`, "apify_api_"),
		own("llamacloud-key", "", "LlamaCloud key", 40, `llx-[0-9A-Za-z]{40,}`, "llx-"),
		own("django-secret-key", "", "Secret key of Django", 45, `django-insecure-[^\s"'\x60]{30,}`, "django-insecure-"),
		own("brave-key", "brave", "Brave Search key", 40, `BSA[A-Za-z0-9_-]{24,}`, "bsa"),
		{id: "telegram-bot-token", provider: "telegram", title: "Telegram bot token", base: 50, pattern: `\b[0-9]{8,10}:AA[A-Za-z0-9_-]{33}\b`, keywords: []string{":aa"}},
		{id: "telegram-bot-token", provider: "telegram", title: "Telegram bot token", base: 50, pattern: `/bot([0-9]{8,10}:AA[A-Za-z0-9_-]{33})\b`, keywords: []string{"/bot"}, group: 1},
		{id: "terraform-token", provider: "hashicorp", title: "Terraform Cloud token", base: 80, pattern: `\b[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,}`, keywords: []string{".atlasv1."}},
		{id: "mailchimp-key", provider: "mailchimp", title: "Mailchimp API key", base: 60, pattern: `\b[0-9a-f]{32}-us\d{1,2}\b`, keywords: []string{"-us"}},
		{id: "asana-token", provider: "asana", title: "Asana token", base: 60, pattern: `\b[0-2]/\d{13,18}(?:/\d{13,18})?:[0-9a-f]{32}\b`, keywords: []string{"0/1", "1/1", "2/1"}},
		{id: "discord-bot-token", provider: "discord", title: "Discord bot token", base: 60, pattern: `\b[MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,40}\b`, keywords: []string{"discord"}},
		{id: "azure-client-secret", provider: "azure", title: "Microsoft Entra client secret", base: 80, pattern: `[A-Za-z0-9_~.-]{3}\dQ~[A-Za-z0-9_~.-]{31,34}`, keywords: []string{"q~"}},
	}
}

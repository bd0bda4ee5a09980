package scan

import (
	"net/url"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// issuer is who gave a credential out, and where it is taken back.
type issuer struct {
	name   string
	words  string // by which names of values speak of it
	revoke string // page
	base   int    // of the score of its ordinary keys
}

// issuers are those that are known by name. What a word means is decided by the
// longest that fits: github before git.
var issuers = map[string]issuer{
	"1password":    {"1Password", "1password onepassword op", "https://my.1password.com/developer-tools/infrastructure-secrets", 85},
	"adobe":        {"Adobe", "adobe", "https://developer.adobe.com/console", 60},
	"airtable":     {"Airtable", "airtable", "https://airtable.com/create/tokens", 60},
	"algolia":      {"Algolia", "algolia", "https://dashboard.algolia.com/account/api-keys", 50},
	"alibaba":      {"Alibaba Cloud", "alibaba aliyun alicloud", "https://ram.console.aliyun.com/manage/ak", 80},
	"anthropic":    {"Anthropic", "anthropic claude", "https://console.anthropic.com/settings/keys", 65},
	"artifactory":  {"JFrog Artifactory", "artifactory jfrog", "", 65},
	"asana":        {"Asana", "asana", "https://app.asana.com/0/my-apps", 60},
	"atlassian":    {"Atlassian", "atlassian jira confluence", "https://id.atlassian.com/manage-profile/security/api-tokens", 65},
	"auth0":        {"Auth0", "auth0", "https://manage.auth0.com", 75},
	"aws":          {"AWS", "aws amazon bedrock", "https://console.aws.amazon.com/iam/home#/security_credentials", 80},
	"azure":        {"Microsoft Azure", "azure entra cosmos arm", "https://portal.azure.com", 80},
	"bitbucket":    {"Bitbucket", "bitbucket", "https://bitbucket.org/account/settings/app-passwords/", 70},
	"brave":        {"Brave Search", "brave", "https://api-dashboard.search.brave.com/app/keys", 40},
	"buildkite":    {"Buildkite", "buildkite", "https://buildkite.com/user/api-access-tokens", 65},
	"cargo":        {"crates.io", "cargo crates", "https://crates.io/settings/tokens", 75},
	"cerebras":     {"Cerebras", "cerebras", "https://cloud.cerebras.ai", 50},
	"circleci":     {"CircleCI", "circleci circle", "https://app.circleci.com/settings/user/tokens", 65},
	"clerk":        {"Clerk", "clerk", "https://dashboard.clerk.com", 75},
	"clickup":      {"ClickUp", "clickup", "https://app.clickup.com/settings/apps", 55},
	"cloudflare":   {"Cloudflare", "cloudflare cf", "https://dash.cloudflare.com/profile/api-tokens", 75},
	"cohere":       {"Cohere", "cohere", "https://dashboard.cohere.com/api-keys", 55},
	"contentful":   {"Contentful", "contentful", "https://app.contentful.com/account/profile/cma_tokens", 50},
	"context7":     {"Context7", "context7", "https://context7.com/dashboard", 35},
	"databricks":   {"Databricks", "databricks", "https://accounts.cloud.databricks.com", 75},
	"datadog":      {"Datadog", "datadog dd", "https://app.datadoghq.com/organization-settings/api-keys", 60},
	"deepseek":     {"DeepSeek", "deepseek", "https://platform.deepseek.com/api_keys", 50},
	"digitalocean": {"DigitalOcean", "digitalocean", "https://cloud.digitalocean.com/account/api/tokens", 75},
	"discord":      {"Discord", "discord", "https://discord.com/developers/applications", 60},
	"docker":       {"Docker Hub", "docker dockerhub", "https://app.docker.com/settings/personal-access-tokens", 70},
	"doppler":      {"Doppler", "doppler", "https://dashboard.doppler.com", 85},
	"dropbox":      {"Dropbox", "dropbox", "https://www.dropbox.com/account/connected_apps", 65},
	"dynatrace":    {"Dynatrace", "dynatrace", "", 55},
	"elevenlabs":   {"ElevenLabs", "elevenlabs", "https://elevenlabs.io/app/settings/api-keys", 45},
	"exa":          {"Exa", "exa", "https://dashboard.exa.ai/api-keys", 40},
	"facebook":     {"Meta", "facebook instagram whatsapp meta", "https://developers.facebook.com/apps", 65},
	"fastly":       {"Fastly", "fastly", "https://manage.fastly.com/account/personal/tokens", 65},
	"figma":        {"Figma", "figma", "https://www.figma.com/settings", 55},
	"firecrawl":    {"Firecrawl", "firecrawl", "https://www.firecrawl.dev/app/api-keys", 40},
	"fireworks":    {"Fireworks", "fireworks", "https://fireworks.ai/account/api-keys", 50},
	"fly":          {"Fly.io", "fly flyio", "https://fly.io/user/personal_access_tokens", 75},
	"gitea":        {"Gitea", "gitea forgejo codeberg", "", 65},
	"github":       {"GitHub", "github gh", "https://github.com/settings/tokens", 75},
	"gitlab":       {"GitLab", "gitlab glab gl", "https://gitlab.com/-/user_settings/personal_access_tokens", 75},
	"google":       {"Google", "google gemini gcp gcloud gmail firebase vertex youtube", "https://console.cloud.google.com/apis/credentials", 65},
	"grafana":      {"Grafana", "grafana", "", 55},
	"groq":         {"Groq", "groq", "https://console.groq.com/keys", 50},
	"hashicorp":    {"HashiCorp", "hashicorp terraform tfc tfe tf hcp consul nomad", "https://app.terraform.io/app/settings/tokens", 80},
	"heroku":       {"Heroku", "heroku", "https://dashboard.heroku.com/account/applications", 70},
	"hubspot":      {"HubSpot", "hubspot", "https://app.hubspot.com/private-apps", 65},
	"huggingface":  {"Hugging Face", "huggingface hf", "https://huggingface.co/settings/tokens", 55},
	"intercom":     {"Intercom", "intercom", "https://app.intercom.com", 60},
	"jina":         {"Jina", "jina", "https://jina.ai/api-dashboard", 35},
	"langsmith":    {"LangSmith", "langsmith langchain", "https://smith.langchain.com/settings", 45},
	"langfuse":     {"Langfuse", "langfuse", "https://cloud.langfuse.com", 45},
	"linear":       {"Linear", "linear", "https://linear.app/settings/account/security", 60},
	"mailchimp":    {"Mailchimp", "mailchimp mandrill", "https://admin.mailchimp.com/account/api/", 60},
	"mailgun":      {"Mailgun", "mailgun", "https://app.mailgun.com/settings/api_security", 60},
	"mapbox":       {"Mapbox", "mapbox", "https://console.mapbox.com/account/access-tokens", 50},
	"microsoft":    {"Microsoft", "microsoft teams outlook sharepoint office365", "https://entra.microsoft.com", 70},
	"mistral":      {"Mistral", "mistral", "https://console.mistral.ai/api-keys", 50},
	"mongodb":      {"MongoDB", "mongodb mongo atlas", "https://cloud.mongodb.com", 70},
	"netlify":      {"Netlify", "netlify", "https://app.netlify.com/user/applications", 65},
	"newrelic":     {"New Relic", "newrelic", "https://one.newrelic.com/api-keys", 50},
	"notion":       {"Notion", "notion", "https://www.notion.so/my-integrations", 60},
	"npm":          {"npm", "npm", "https://www.npmjs.com/settings/~/tokens", 75},
	"nuget":        {"NuGet", "nuget", "https://www.nuget.org/account/apikeys", 70},
	"nvidia":       {"NVIDIA", "nvidia nvapi ngc", "https://org.ngc.nvidia.com/setup/api-keys", 45},
	"okta":         {"Okta", "okta", "", 80},
	"openai":       {"OpenAI", "openai", "https://platform.openai.com/api-keys", 65},
	"openrouter":   {"OpenRouter", "openrouter", "https://openrouter.ai/settings/keys", 55},
	"paypal":       {"PayPal", "paypal braintree", "https://developer.paypal.com/dashboard/", 80},
	"perplexity":   {"Perplexity", "perplexity pplx", "https://www.perplexity.ai/settings/api", 45},
	"pinecone":     {"Pinecone", "pinecone", "https://app.pinecone.io", 50},
	"plaid":        {"Plaid", "plaid", "https://dashboard.plaid.com/developers/keys", 80},
	"planetscale":  {"PlanetScale", "planetscale pscale", "https://app.planetscale.com", 75},
	"postgres":     {"PostgreSQL", "postgres postgresql pg", "", 60},
	"mysql":        {"MySQL", "mysql mariadb", "", 60},
	"redis":        {"Redis", "redis", "", 50},
	"posthog":      {"PostHog", "posthog", "https://app.posthog.com/settings/user-api-keys", 50},
	"postman":      {"Postman", "postman", "https://go.postman.co/settings/me/api-keys", 60},
	"postmark":     {"Postmark", "postmark", "https://account.postmarkapp.com", 55},
	"pulumi":       {"Pulumi", "pulumi", "https://app.pulumi.com/account/tokens", 75},
	"pypi":         {"PyPI", "pypi twine", "", 75},
	"railway":      {"Railway", "railway", "https://railway.com/account/tokens", 70},
	"render":       {"Render", "render", "https://dashboard.render.com/u/settings#api-keys", 70},
	"replicate":    {"Replicate", "replicate", "https://replicate.com/account/api-tokens", 50},
	"resend":       {"Resend", "resend", "https://resend.com/api-keys", 50},
	"rubygems":     {"RubyGems", "rubygems", "https://rubygems.org/profile/api_keys", 75},
	"salesforce":   {"Salesforce", "salesforce sfdc", "", 70},
	"sendgrid":     {"SendGrid", "sendgrid", "https://app.sendgrid.com/settings/api_keys", 60},
	"brevo":        {"Brevo", "brevo sendinblue", "https://app.brevo.com/settings/keys/api", 55},
	"sentry":       {"Sentry", "sentry", "https://sentry.io/settings/account/api/auth-tokens/", 50},
	"shopify":      {"Shopify", "shopify", "https://admin.shopify.com", 70},
	"slack":        {"Slack", "slack", "https://api.slack.com/apps", 65},
	"snowflake":    {"Snowflake", "snowflake", "", 75},
	"snyk":         {"Snyk", "snyk", "https://app.snyk.io/account", 50},
	"sonar":        {"Sonar", "sonar sonarqube sonarcloud", "https://sonarcloud.io/account/security", 50},
	"square":       {"Square", "square", "https://developer.squareup.com/apps", 75},
	"stripe":       {"Stripe", "stripe", "https://dashboard.stripe.com/apikeys", 80},
	"supabase":     {"Supabase", "supabase", "https://supabase.com/dashboard/account/tokens", 75},
	"tailscale":    {"Tailscale", "tailscale", "https://login.tailscale.com/admin/settings/keys", 75},
	"tavily":       {"Tavily", "tavily", "https://app.tavily.com", 35},
	"telegram":     {"Telegram", "telegram", "https://t.me/BotFather", 50},
	"together":     {"Together", "together togetherai", "https://api.together.ai/settings/api-keys", 50},
	"twilio":       {"Twilio", "twilio", "https://console.twilio.com/us1/account/keys-credentials/api-keys", 65},
	"twitter":      {"X", "twitter", "https://developer.x.com/en/portal/dashboard", 55},
	"upstash":      {"Upstash", "upstash", "https://console.upstash.com", 55},
	"vault":        {"HashiCorp Vault", "vault", "", 85},
	"vercel":       {"Vercel", "vercel", "https://vercel.com/account/settings/tokens", 70},
	"voyage":       {"Voyage", "voyage voyageai", "https://dashboard.voyageai.com", 40},
	"workos":       {"WorkOS", "workos", "https://dashboard.workos.com/api-keys", 80},
	"xai":          {"xAI", "xai grok", "https://console.x.ai", 50},
	"zendesk":      {"Zendesk", "zendesk", "", 60},
	"ambit":        {"Ambit", "ambit", "", 80},
}

// issuerWords is the way back from words of names.
var issuerWords = func() map[string]string {
	m := map[string]string{}
	for id, p := range issuers {
		m[id] = id
		for _, w := range strings.Fields(p.words) {
			m[w] = id
		}
	}
	return m
}()

// providerOf is whom the words of a name speak of; empty: nobody known.
func providerOf(words []string) string {
	for i, w := range words {
		if i+1 < len(words) {
			if id := issuerWords[w+words[i+1]]; id != "" {
				return id
			}
		}
		if id := issuerWords[w]; id != "" {
			return id
		}
	}
	return ""
}

// Belongs reports whether a host is known to be one of an issuer's: it is under the
// domain of the page where its keys are revoked, or of the call that tells whose one is.
func Belongs(issuer, host string) bool {
	domain, err := publicsuffix.EffectiveTLDPlusOne(host)
	if err != nil {
		return false
	}
	for _, at := range []string{issuers[issuer].revoke, questions[issuer].url} {
		if u, err := url.Parse(at); err == nil && u.Host != "" {
			if d, err := publicsuffix.EffectiveTLDPlusOne(u.Hostname()); err == nil && d == domain {
				return true
			}
		}
	}
	return false
}

// providerName is a provider in words.
func providerName(id string) string {
	if p, ok := issuers[id]; ok {
		return p.name
	}
	return id
}

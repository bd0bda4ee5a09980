package scan

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Place is where a program keeps what may hold credentials. Path begins with ~ (the
// home folder), %APPDATA% or %LOCALAPPDATA%; its last parts may have wildcards, and
// /** at the end is everything below.
type Place struct {
	Client string
	OS     string // linux, darwin, windows, or several; empty: all
	Path   string
	format format
}

// mcpClients are the programs in which agents run, with where each keeps the servers
// that it starts and the keys that it hands them.
var mcpClients = []Place{
	{Client: "Claude Desktop", OS: "darwin", Path: "~/Library/Application Support/Claude/claude_desktop_config.json", format: asJSON},
	{Client: "Claude Desktop", OS: "darwin", Path: "~/Library/Application Support/Claude/Claude Extensions Settings/*.json", format: asJSON},
	{Client: "Claude Desktop", OS: "darwin", Path: "~/Library/Logs/Claude/*.log"},
	{Client: "Claude Desktop", OS: "linux", Path: "~/.config/Claude/claude_desktop_config.json", format: asJSON},
	{Client: "Claude Desktop", OS: "linux", Path: "~/.config/Claude/logs/*.log"},
	{Client: "Claude Desktop", OS: "windows", Path: "%APPDATA%/Claude/claude_desktop_config.json", format: asJSON},
	{Client: "Claude Desktop", OS: "windows", Path: "%LOCALAPPDATA%/Packages/Claude_*/LocalCache/Roaming/Claude/claude_desktop_config.json", format: asJSON},
	{Client: "Claude Desktop", OS: "windows", Path: "%APPDATA%/Claude/logs/*.log"},
	{Client: "Claude Code", Path: "~/.claude.json", format: asJSON},
	{Client: "Claude Code", Path: "~/.claude/settings.json", format: asJSON},
	{Client: "Claude Code", Path: "~/.claude/settings.local.json", format: asJSON},
	{Client: "Claude Code", Path: "~/.claude/.credentials.json", format: asJSON},
	{Client: "Claude Code", Path: "~/.claude/history.jsonl", format: asJSONLines},
	{Client: "Claude Code", Path: "~/.claude/projects/**"},
	{Client: "Claude Code", Path: "~/.claude/shell-snapshots/**"},
	{Client: "Claude Code", Path: "~/.claude/file-history/**"},
	{Client: "Claude Code", Path: "~/.claude/plugins/**"},
	{Client: "Claude Code", OS: "linux", Path: "/etc/claude-code/*.json", format: asJSON},
	{Client: "Claude Code", OS: "darwin", Path: "/Library/Application Support/ClaudeCode/*.json", format: asJSON},
	{Client: "Claude Code", OS: "windows", Path: "C:/Program Files/ClaudeCode/*.json", format: asJSON},
	{Client: "Claude Code", Path: "~/.claude/todos/*.json", format: asJSON},
	{Client: "Cursor", Path: "~/.cursor/mcp.json", format: asJSON},
	{Client: "Cursor", Path: "~/.cursor/projects/**"},
	{Client: "Cursor", OS: "darwin", Path: "~/Library/Application Support/Cursor/User/globalStorage/state.vscdb"},
	{Client: "Cursor", OS: "linux", Path: "~/.config/Cursor/User/globalStorage/state.vscdb"},
	{Client: "Cursor", OS: "windows", Path: "%APPDATA%/Cursor/User/globalStorage/state.vscdb"},
	{Client: "Cursor", OS: "darwin", Path: "~/Library/Application Support/Cursor/User/workspaceStorage/*/state.vscdb"},
	{Client: "Cursor", OS: "linux", Path: "~/.config/Cursor/User/workspaceStorage/*/state.vscdb"},
	{Client: "Cursor", OS: "windows", Path: "%APPDATA%/Cursor/User/workspaceStorage/*/state.vscdb"},
	{Client: "Cursor", Path: "~/.cursor/cli-config.json", format: asJSON},
	{Client: "Windsurf", Path: "~/.codeium/windsurf/mcp_config.json", format: asJSON},
	{Client: "Windsurf", Path: "~/.codeium/windsurf-next/mcp_config.json", format: asJSON},
	{Client: "Windsurf", Path: "~/.codeium/mcp_config.json", format: asJSON},
	{Client: "Zed", OS: "linux darwin", Path: "~/.config/zed/settings.json", format: asJSON},
	{Client: "Zed", OS: "darwin", Path: "~/Library/Application Support/Zed/settings.json", format: asJSON},
	{Client: "Zed", OS: "windows", Path: "%APPDATA%/Zed/settings.json", format: asJSON},
	{Client: "Codex", Path: "~/.codex/config.toml", format: asTOML},
	{Client: "Codex", Path: "~/.codex/auth.json", format: asJSON},
	{Client: "Codex", Path: "~/.codex/.env", format: asINI},
	{Client: "Codex", Path: "~/.codex/history.jsonl", format: asJSONLines},
	{Client: "Codex", Path: "~/.codex/sessions/**"},
	{Client: "Codex", Path: "~/.codex/archived_sessions/**"},
	{Client: "Codex", Path: "~/.codex/log/*.log"},
	{Client: "Gemini CLI", Path: "~/.gemini/settings.json", format: asJSON},
	{Client: "Gemini CLI", Path: "~/.gemini/.env", format: asINI},
	{Client: "Gemini CLI", Path: "~/.gemini/oauth_creds.json", format: asJSON},
	{Client: "Gemini CLI", Path: "~/.gemini/mcp-oauth-tokens.json", format: asJSON},
	{Client: "Gemini CLI", Path: "~/.gemini/extensions/**"},
	{Client: "Gemini CLI", Path: "~/.gemini/tmp/**"},
	{Client: "Antigravity", Path: "~/.gemini/antigravity/mcp_config.json", format: asJSON},
	{Client: "Qwen Code", Path: "~/.qwen/*.json", format: asJSON},
	{Client: "Qwen Code", Path: "~/.qwen/.env", format: asINI},
	{Client: "Qwen Code", Path: "~/.qwen/tmp/**"},
	{Client: "Qwen Code", Path: "~/.qwen/projects/**"},
	{Client: "OpenCode", Path: "~/.config/opencode/*.json", format: asJSON},
	{Client: "OpenCode", Path: "~/.config/opencode/*.jsonc", format: asJSON},
	{Client: "OpenCode", Path: "~/.local/share/opencode/*.json", format: asJSON},
	{Client: "OpenCode", Path: "~/.local/share/opencode/storage/**"},
	{Client: "OpenCode", Path: "~/.local/share/opencode/*.db"},
	{Client: "Goose", OS: "linux darwin", Path: "~/.config/goose/*.yaml", format: asYAML},
	{Client: "Goose", OS: "linux darwin", Path: "~/.config/goose/history.txt"},
	{Client: "Goose", OS: "linux darwin", Path: "~/.local/share/goose/sessions/**"},
	{Client: "Goose", OS: "linux darwin", Path: "~/.local/state/goose/logs/**"},
	{Client: "Goose", OS: "windows", Path: "%APPDATA%/Block/goose/config/*.yaml", format: asYAML},
	{Client: "Goose", OS: "windows", Path: "%APPDATA%/Block/goose/data/sessions/**"},
	{Client: "Cline", Path: "~/.cline/**"},
	{Client: "Continue", Path: "~/.continue/config.yaml", format: asYAML},
	{Client: "Continue", Path: "~/.continue/config.json", format: asJSON},
	{Client: "Continue", Path: "~/.continue/.env", format: asINI},
	{Client: "Continue", Path: "~/.continue/mcpServers/*"},
	{Client: "Continue", Path: "~/.continue/sessions/*.json", format: asJSON},
	{Client: "LM Studio", Path: "~/.lmstudio/mcp.json", format: asJSON},
	{Client: "LM Studio", Path: "~/.cache/lm-studio/mcp.json", format: asJSON},
	{Client: "LM Studio", Path: "~/.lmstudio/conversations/**"},
	{Client: "Amazon Q", Path: "~/.aws/amazonq/*.json", format: asJSON},
	{Client: "Amazon Q", Path: "~/.aws/amazonq/cli-agents/*.json", format: asJSON},
	{Client: "Amazon Q", Path: "~/.aws/amazonq/agents/*.json", format: asJSON},
	{Client: "Kiro", Path: "~/.kiro/settings/*.json", format: asJSON},
	{Client: "Copilot CLI", Path: "~/.copilot/*.json", format: asJSON},
	{Client: "Copilot CLI", Path: "~/.copilot/session-state/**"},
	{Client: "Copilot CLI", Path: "~/.copilot/history-session-state/**"},
	{Client: "Copilot CLI", Path: "~/.copilot/session-store.db"},
	{Client: "Copilot CLI", Path: "~/.copilot/logs/**"},
	{Client: "GitHub Copilot", OS: "linux darwin", Path: "~/.config/github-copilot/*.json", format: asJSON},
	{Client: "GitHub Copilot", OS: "linux darwin", Path: "~/.config/github-copilot/intellij/mcp.json", format: asJSON},
	{Client: "GitHub Copilot", OS: "windows", Path: "%LOCALAPPDATA%/github-copilot/*.json", format: asJSON},
	{Client: "Junie", Path: "~/.junie/mcp/mcp.json", format: asJSON},
	{Client: "Crush", Path: "~/.config/crush/crush.json", format: asJSON},
	{Client: "Crush", Path: "~/.local/share/crush/crush.json", format: asJSON},
	{Client: "Crush", OS: "windows", Path: "%LOCALAPPDATA%/crush/crush.json", format: asJSON},
	{Client: "Amp", Path: "~/.config/amp/settings.json*", format: asJSON},
	{Client: "Amp", Path: "~/.local/share/amp/secrets.json", format: asJSON},
	{Client: "Amp", Path: "~/.local/share/amp/threads/**"},
	{Client: "Amp", OS: "linux", Path: "/etc/ampcode/managed-settings.json", format: asJSON},
	{Client: "Amp", OS: "darwin", Path: "/Library/Application Support/ampcode/managed-settings.json", format: asJSON},
	{Client: "Factory", Path: "~/.factory/*.json", format: asJSON},
	{Client: "Factory", Path: "~/.factory/sessions/**"},
	{Client: "Warp", Path: "~/.warp/.mcp.json", format: asJSON},
	{Client: "Warp", OS: "darwin", Path: "~/Library/Group Containers/2BBY89MBSN.dev.warp/Library/Application Support/dev.warp.Warp-Stable/mcp/*.log"},
	{Client: "Kilo Code", Path: "~/.kilocode/cli/**"},
	{Client: "Kilo Code", Path: "~/.config/kilo/*.json*", format: asJSON},
	{Client: "Kilo Code", Path: "~/.local/share/kilo/*.json", format: asJSON},
	{Client: "Jan", OS: "linux", Path: "~/.local/share/Jan/data/*.json", format: asJSON},
	{Client: "Jan", OS: "linux", Path: "~/.config/Jan/data/*.json", format: asJSON},
	{Client: "Jan", OS: "darwin", Path: "~/Library/Application Support/Jan/data/*.json", format: asJSON},
	{Client: "Jan", OS: "windows", Path: "%APPDATA%/Jan/data/*.json", format: asJSON},
	{Client: "Pi", Path: "~/.pi/agent/*.json", format: asJSON},
	{Client: "Pi", Path: "~/.pi/agent/sessions/**"},
	{Client: "Kimi CLI", Path: "~/.kimi/*.json", format: asJSON},
	{Client: "Kimi CLI", Path: "~/.kimi/*.toml", format: asTOML},
	{Client: "Kimi CLI", Path: "~/.kimi/sessions/**"},
	{Client: "Mistral Vibe", Path: "~/.vibe/.env", format: asINI},
	{Client: "Mistral Vibe", Path: "~/.vibe/config.toml", format: asTOML},
	{Client: "Rovo Dev", Path: "~/.rovodev/*.json", format: asJSON},
	{Client: "Rovo Dev", Path: "~/.rovodev/config.yml", format: asYAML},
	{Client: "iFlow", Path: "~/.iflow/*.json", format: asJSON},
	{Client: "Grok CLI", Path: "~/.grok/*.json", format: asJSON},
	{Client: "OpenHands", Path: "~/.openhands/*.json", format: asJSON},
	{Client: "Codebuff", Path: "~/.config/manicode/credentials.json", format: asJSON},
	{Client: "Deep Agents", Path: "~/.deepagents/.mcp.json", format: asJSON},
	{Client: "Trae", Path: "~/.trae/mcp.json", format: asJSON},
	{Client: "Visual Studio", Path: "~/.mcp.json", format: asJSON},
	{Client: "JetBrains AI", OS: "linux", Path: "~/.config/JetBrains/*/options/llm.mcpServers.xml", format: asXML},
	{Client: "JetBrains AI", OS: "darwin", Path: "~/Library/Application Support/JetBrains/*/options/llm.mcpServers.xml", format: asXML},
	{Client: "JetBrains AI", OS: "windows", Path: "%APPDATA%/JetBrains/*/options/llm.mcpServers.xml", format: asXML},
	{Client: "aichat", OS: "linux", Path: "~/.config/aichat/config.yaml", format: asYAML},
	{Client: "aichat", OS: "darwin", Path: "~/Library/Application Support/aichat/config.yaml", format: asYAML},
	{Client: "aichat", OS: "windows", Path: "%APPDATA%/aichat/config.yaml", format: asYAML},
	{Client: "n8n", Path: "~/.n8n/config", format: asJSON},
	{Client: "n8n", Path: "~/.n8n/.env", format: asINI},
	{Client: "n8n", Path: "~/.n8n/database.sqlite"},
	{Client: "Augment", Path: "~/.augment/*.json", format: asJSON},
	{Client: "Aider", Path: "~/.aider.conf.yml", format: asYAML},
	{Client: "Aider", Path: "~/.aider/**"},
	{Client: "Aider", Path: "~/.aider.*"},
	{Client: "OpenClaw", Path: "~/.openclaw/*.json", format: asJSON},
	{Client: "OpenClaw", Path: "~/.openclaw/credentials/**"},
	{Client: "OpenClaw", Path: "~/.clawdbot/*.json", format: asJSON},
	{Client: "mcp-remote", Path: "~/.mcp-auth/**"},
	{Client: "Docker MCP", Path: "~/.docker/mcp/**"},
	{Client: "Hermes", Path: "~/.hermes/.env", format: asINI},
	{Client: "llm", OS: "linux", Path: "~/.config/io.datasette.llm/keys.json", format: asJSON},
	{Client: "llm", OS: "darwin", Path: "~/Library/Application Support/io.datasette.llm/keys.json", format: asJSON},
}

// editors are the settings folders of VS Code and what descends from it, below which
// extensions keep theirs.
var editors = []string{"Code", "Code - Insiders", "VSCodium", "Cursor", "Windsurf", "Trae", "Kiro", "Antigravity"}

// extensions are agents that run inside such an editor.
var extensions = []struct{ client, path string }{
	{"Cline", "saoudrizwan.claude-dev/settings/cline_mcp_settings.json"}, {"Cline", "saoudrizwan.claude-dev/tasks/**"},
	{"Roo Code", "rooveterinaryinc.roo-cline/settings/*.json"}, {"Roo Code", "rooveterinaryinc.roo-cline/tasks/**"},
	{"Kilo Code", "kilocode.kilo-code/settings/*.json"}, {"Kilo Code", "kilocode.kilo-code/tasks/**"},
}

// remotes are the folders in which those editors keep, on a machine that they work on from
// afar, what they keep in their settings folder elsewhere.
var remotes = []struct{ client, folder string }{
	{"VS Code", "~/.vscode-server/data"}, {"VS Code", "~/.vscode-server-insiders/data"}, {"VS Code", "~/.vscode-remote/data"}, {"VS Code", "~/.local/share/code-server"}, {"VSCodium", "~/.vscodium-server/data"},
	{"Cursor", "~/.cursor-server/data"}, {"Windsurf", "~/.windsurf-server/data"}, {"Trae", "~/.trae-server/data"}, {"Kiro", "~/.kiro-server/data"}, {"Antigravity", "~/.antigravity-server/data"},
}

// programs keep credentials that an agent of the same user can read.
var programs = []Place{
	{Client: "dotenv", Path: "~/.env*", format: asINI},
	{Client: "shell", Path: "~/.bashrc", format: asConfigText}, {Client: "shell", Path: "~/.bash_profile", format: asConfigText}, {Client: "shell", Path: "~/.bash_aliases", format: asConfigText}, {Client: "shell", Path: "~/.profile", format: asConfigText},
	{Client: "shell", Path: "~/.zshrc", format: asConfigText}, {Client: "shell", Path: "~/.zshenv", format: asConfigText}, {Client: "shell", Path: "~/.zprofile", format: asConfigText}, {Client: "shell", Path: "~/.config/fish/**", format: asConfigText},
	{Client: "shell", Path: "~/.config/environment.d/*.conf", format: asINI}, {Client: "shell", Path: "~/.pam_environment", format: asINI},
	{Client: "systemd", OS: "linux", Path: "~/.config/systemd/user/*.service", format: asINI}, {Client: "systemd", OS: "linux", Path: "~/.config/systemd/user/*.d/*.conf", format: asINI}, {Client: "systemd", OS: "linux", Path: "~/.config/containers/systemd/*.container", format: asINI},
	{Client: "launchd", OS: "darwin", Path: "~/Library/LaunchAgents/*.plist", format: asXML},
	{Client: "PowerShell", OS: "windows", Path: "~/Documents/PowerShell/*.ps1", format: asConfigText},
	{Client: "PowerShell", OS: "linux darwin", Path: "~/.config/powershell/*.ps1", format: asConfigText},
	{Client: "history", Path: "~/.bash_history", format: asConfigText}, {Client: "history", Path: "~/.zsh_history", format: asConfigText}, {Client: "history", Path: "~/.zsh_sessions/*", format: asConfigText}, {Client: "history", Path: "~/.local/share/fish/fish_history", format: asConfigText},
	{Client: "history", Path: "~/.python_history", format: asCode}, {Client: "history", Path: "~/.node_repl_history", format: asCode}, {Client: "history", Path: "~/.psql_history", format: asText}, {Client: "history", Path: "~/.mysql_history", format: asText}, {Client: "history", Path: "~/.rediscli_history", format: asText}, {Client: "history", Path: "~/.sqlite_history", format: asText},
	{Client: "history", OS: "windows", Path: "%APPDATA%/Microsoft/Windows/PowerShell/PSReadLine/ConsoleHost_history.txt", format: asConfigText},
	{Client: "history", OS: "linux darwin", Path: "~/.local/share/powershell/PSReadLine/ConsoleHost_history.txt", format: asConfigText},
	{Client: "AWS", Path: "~/.aws/credentials", format: asINI}, {Client: "AWS", Path: "~/.aws/config", format: asINI}, {Client: "AWS", Path: "~/.aws/sso/cache/*.json", format: asJSON}, {Client: "AWS", Path: "~/.aws/cli/cache/*.json", format: asJSON}, {Client: "AWS", Path: "~/.aws/login/cache/*.json", format: asJSON},
	{Client: "gcloud", OS: "linux darwin", Path: "~/.config/gcloud/application_default_credentials.json", format: asJSON}, {Client: "gcloud", OS: "linux darwin", Path: "~/.config/gcloud/legacy_credentials/**"}, {Client: "gcloud", OS: "linux darwin", Path: "~/.config/gcloud/*.db"}, {Client: "gcloud", OS: "linux darwin", Path: "~/.config/gcloud/*.json", format: asJSON},
	{Client: "gcloud", OS: "windows", Path: "%APPDATA%/gcloud/**"},
	{Client: "gsutil", Path: "~/.boto", format: asINI}, {Client: "gsutil", Path: "~/.gsutil/**"},
	{Client: "Alibaba Cloud", Path: "~/.aliyun/*.json", format: asJSON}, {Client: "Alibaba Cloud", Path: "~/.alibabacloud/credentials", format: asINI}, {Client: "Tencent Cloud", Path: "~/.tccli/*.credential", format: asJSON},
	{Client: "Hetzner", OS: "linux darwin", Path: "~/.config/hcloud/cli.toml", format: asTOML}, {Client: "Hetzner", OS: "windows", Path: "%APPDATA%/hcloud/cli.toml", format: asTOML}, {Client: "Linode", Path: "~/.config/linode-cli", format: asINI}, {Client: "Scaleway", Path: "~/.config/scw/config.yaml", format: asYAML}, {Client: "OVH", Path: "~/.ovh.conf", format: asINI}, {Client: "Vultr", Path: "~/.vultr-cli.yaml", format: asYAML}, {Client: "Akamai", Path: "~/.edgerc", format: asINI},
	{Client: "Argo CD", Path: "~/.config/argocd/config", format: asYAML}, {Client: "Argo CD", Path: "~/.argocd/config", format: asYAML}, {Client: "JFrog", Path: "~/.jfrog/jfrog-cli.conf*", format: asJSON}, {Client: "Neon", Path: "~/.config/neonctl/credentials.json", format: asJSON}, {Client: "PlanetScale", OS: "linux darwin", Path: "~/.config/planetscale/access-token", format: asWhole}, {Client: "Modal", Path: "~/.modal.toml", format: asTOML}, {Client: "RunPod", Path: "~/.runpod/config.toml", format: asTOML},
	{Client: "Azure", Path: "~/.azure/*.json", format: asJSON}, {Client: "Azure", Path: "~/.azure/config", format: asINI},
	{Client: "kubectl", Path: "~/.kube/config", format: asYAML}, {Client: "kubectl", Path: "~/.kube/*.y*ml", format: asYAML},
	{Client: "Docker", Path: "~/.docker/config.json", format: asJSON}, {Client: "Podman", Path: "~/.config/containers/auth.json", format: asJSON}, {Client: "Helm", Path: "~/.config/helm/registry/config.json", format: asJSON}, {Client: "Helm", Path: "~/.config/helm/repositories.yaml", format: asYAML},
	{Client: "netrc", Path: "~/.netrc", format: asNetrc}, {Client: "netrc", Path: "~/_netrc", format: asNetrc}, {Client: "netrc", Path: "~/.authinfo", format: asNetrc},
	{Client: "npm", Path: "~/.npmrc", format: asINI}, {Client: "Yarn", Path: "~/.yarnrc.yml", format: asYAML}, {Client: "Yarn", Path: "~/.yarnrc", format: asConfigText}, {Client: "bun", Path: "~/.bunfig.toml", format: asTOML},
	{Client: "PyPI", Path: "~/.pypirc", format: asINI}, {Client: "pip", Path: "~/.config/pip/pip.conf", format: asINI}, {Client: "pip", Path: "~/.pip/pip.conf", format: asINI}, {Client: "Poetry", Path: "~/.config/pypoetry/auth.toml", format: asTOML}, {Client: "uv", Path: "~/.local/share/uv/credentials/*"},
	{Client: "Cargo", Path: "~/.cargo/credentials.toml", format: asTOML}, {Client: "Cargo", Path: "~/.cargo/credentials", format: asTOML}, {Client: "Cargo", Path: "~/.cargo/config.toml", format: asTOML},
	{Client: "RubyGems", Path: "~/.gem/credentials", format: asYAML}, {Client: "RubyGems", Path: "~/.local/share/gem/credentials", format: asYAML}, {Client: "Bundler", Path: "~/.bundle/config", format: asYAML}, {Client: "Maven", Path: "~/.m2/settings.xml", format: asXML}, {Client: "Gradle", Path: "~/.gradle/gradle.properties", format: asINI}, {Client: "NuGet", Path: "~/.nuget/NuGet/NuGet.Config", format: asXML}, {Client: "NuGet", OS: "windows", Path: "%APPDATA%/NuGet/NuGet.Config", format: asXML}, {Client: "Composer", Path: "~/.composer/auth.json", format: asJSON}, {Client: "Composer", Path: "~/.config/composer/auth.json", format: asJSON},
	{Client: "GitHub CLI", OS: "linux darwin", Path: "~/.config/gh/*.yml", format: asYAML}, {Client: "GitHub CLI", OS: "windows", Path: "%APPDATA%/GitHub CLI/*.yml", format: asYAML}, {Client: "hub", Path: "~/.config/hub", format: asYAML},
	{Client: "GitLab CLI", OS: "linux", Path: "~/.config/glab-cli/*.yml", format: asYAML}, {Client: "GitLab CLI", OS: "darwin", Path: "~/Library/Application Support/glab-cli/*.yml", format: asYAML}, {Client: "GitLab CLI", OS: "windows", Path: "%LOCALAPPDATA%/glab-cli/*.yml", format: asYAML}, {Client: "tea", Path: "~/.config/tea/config.yml", format: asYAML},
	{Client: "git", Path: "~/.git-credentials", format: asConfigText}, {Client: "git", Path: "~/.config/git/credentials", format: asConfigText}, {Client: "git", Path: "~/.gitconfig", format: asINI}, {Client: "git", Path: "~/.config/git/config", format: asINI},
	{Client: "Terraform", Path: "~/.terraform.d/credentials.tfrc.json", format: asJSON}, {Client: "Terraform", Path: "~/.terraformrc", format: asConfigText}, {Client: "Terraform", OS: "windows", Path: "%APPDATA%/terraform.rc", format: asConfigText}, {Client: "Pulumi", Path: "~/.pulumi/credentials.json", format: asJSON}, {Client: "Vault", Path: "~/.vault-token", format: asWhole}, {Client: "Consul", Path: "~/.consul-token", format: asWhole},
	{Client: "SSH", Path: "~/.ssh/*"}, {Client: "GnuPG", Path: "~/.gnupg/*.asc"}, {Client: "age", Path: "~/.config/sops/age/keys.txt"},
	{Client: "PostgreSQL", OS: "linux darwin", Path: "~/.pgpass"}, {Client: "PostgreSQL", Path: "~/.pg_service.conf", format: asINI}, {Client: "PostgreSQL", OS: "windows", Path: "%APPDATA%/postgresql/pgpass.conf"}, {Client: "MySQL", Path: "~/.my.cnf", format: asINI}, {Client: "Snowflake", Path: "~/.snowsql/config", format: asINI}, {Client: "Snowflake", Path: "~/.snowflake/*.toml", format: asTOML}, {Client: "dbt", Path: "~/.dbt/profiles.yml", format: asYAML}, {Client: "Databricks", Path: "~/.databrickscfg", format: asINI}, {Client: "DBeaver", Path: "~/.local/share/DBeaverData/workspace6/General/.dbeaver/*.json", format: asJSON},
	{Client: "Hugging Face", Path: "~/.cache/huggingface/token", format: asWhole}, {Client: "Hugging Face", Path: "~/.cache/huggingface/stored_tokens", format: asINI}, {Client: "Hugging Face", Path: "~/.huggingface/token", format: asWhole}, {Client: "Kaggle", Path: "~/.kaggle/kaggle.json", format: asJSON}, {Client: "Weights & Biases", Path: "~/.config/wandb/settings", format: asINI}, {Client: "OpenAI", Path: "~/.openai/*"}, {Client: "Jupyter", Path: "~/.jupyter/*.json", format: asJSON}, {Client: "Jupyter", Path: "~/.jupyter/*.py", format: asCode}, {Client: "Jupyter", Path: "~/.local/share/jupyter/runtime/*.json", format: asJSON},
	{Client: "Fly.io", Path: "~/.fly/config.yml", format: asYAML}, {Client: "Heroku", Path: "~/.local/share/heroku/*"}, {Client: "Vercel", OS: "linux", Path: "~/.local/share/com.vercel.cli/auth.json", format: asJSON}, {Client: "Vercel", OS: "darwin", Path: "~/Library/Application Support/com.vercel.cli/auth.json", format: asJSON}, {Client: "Netlify", OS: "linux", Path: "~/.config/netlify/config.json", format: asJSON}, {Client: "Netlify", OS: "darwin", Path: "~/Library/Preferences/netlify/config.json", format: asJSON}, {Client: "Cloudflare", OS: "linux", Path: "~/.config/.wrangler/config/*.toml", format: asTOML}, {Client: "Cloudflare", Path: "~/.wrangler/config/*.toml", format: asTOML}, {Client: "DigitalOcean", OS: "linux", Path: "~/.config/doctl/config.yaml", format: asYAML}, {Client: "DigitalOcean", OS: "darwin", Path: "~/Library/Application Support/doctl/config.yaml", format: asYAML}, {Client: "Railway", Path: "~/.railway/config.json", format: asJSON}, {Client: "Stripe CLI", Path: "~/.config/stripe/config.toml", format: asTOML}, {Client: "Sentry", Path: "~/.sentryclirc", format: asINI}, {Client: "ngrok", Path: "~/.config/ngrok/ngrok.yml", format: asYAML}, {Client: "ngrok", Path: "~/.ngrok2/ngrok.yml", format: asYAML}, {Client: "Doppler", Path: "~/.doppler/.doppler.yaml", format: asYAML}, {Client: "rclone", Path: "~/.config/rclone/rclone.conf", format: asINI}, {Client: "s3cmd", Path: "~/.s3cfg", format: asINI}, {Client: "MinIO", Path: "~/.mc/config.json", format: asJSON}, {Client: "Supabase", Path: "~/.supabase/access-token", format: asWhole}, {Client: "CircleCI", Path: "~/.circleci/cli.yml", format: asYAML}, {Client: "Firebase", Path: "~/.config/configstore/*.json", format: asJSON}, {Client: "Expo", Path: "~/.expo/state.json", format: asJSON}, {Client: "OCI", Path: "~/.oci/*"}, {Client: "curl", Path: "~/.curlrc", format: asConfigText}, {Client: "wget", Path: "~/.wgetrc", format: asINI},
}

// Places are all known places of one system, or of all when goos is empty.
func Places(goos string) []Place {
	var list []Place
	take := func(p Place) {
		if goos == "" || p.OS == "" || strings.Contains(p.OS, goos) {
			list = append(list, p)
		}
	}
	for _, p := range mcpClients {
		take(p)
	}
	for _, base := range []struct{ os, path string }{{"linux", "~/.config/"}, {"darwin", "~/Library/Application Support/"}, {"windows", "%APPDATA%/"}} {
		for _, e := range editors {
			client := map[string]string{"Code": "VS Code", "Code - Insiders": "VS Code"}[e]
			client = or(client, e)
			take(Place{Client: client, OS: base.os, Path: base.path + e + "/User/mcp.json", format: asJSON})
			take(Place{Client: client, OS: base.os, Path: base.path + e + "/User/settings.json", format: asJSON})
			take(Place{Client: client, OS: base.os, Path: base.path + e + "/User/profiles/*/mcp.json", format: asJSON})
			inEditor(take, client, base.os, base.path+e)
		}
	}
	for _, r := range remotes {
		for _, name := range []string{"/Machine/*.json", "/User/*.json"} {
			take(Place{Client: r.client, Path: r.folder + name, format: asJSON})
		}
		inEditor(take, r.client, "", r.folder)
	}
	for _, p := range programs {
		take(p)
	}
	return list
}

// inEditor takes what agents keep below the folder of an editor's user.
func inEditor(take func(Place), client, os, folder string) {
	for _, path := range []string{"workspaceStorage/*/chatSessions/*", "globalStorage/emptyWindowChatSessions/*"} {
		take(Place{Client: client, OS: os, Path: folder + "/User/" + path})
	}
	for _, x := range extensions {
		p := Place{Client: x.client, OS: os, Path: folder + "/User/globalStorage/" + x.path}
		if strings.HasSuffix(x.path, ".json") {
			p.format = asJSON
		}
		take(p)
	}
}

func isAgentClient(client string) bool {
	for _, p := range programs {
		if p.Client == client {
			return false
		}
	}
	return client != ""
}

// listings are the files in which agents and editors list the projects that they know.
func listings() []string {
	list := []string{"~/.claude.json", "~/.codex/config.toml", "~/.gemini/trustedFolders.json"}
	for _, base := range []string{"~/.config/", "~/Library/Application Support/", "%APPDATA%/"} {
		for _, e := range editors {
			list = append(list, base+e+"/User/workspaceStorage/*/workspace.json")
		}
	}
	for _, r := range remotes {
		list = append(list, r.folder+"/User/workspaceStorage/*/workspace.json")
	}
	return list
}

// home reads the known places below the home folder, and those of the projects that the
// agents there know. A link is followed: people keep their dot files in a repository.
func (w *walker) home(ctx context.Context) {
	o := w.s.opt
	appData, local := o.AppData, o.LocalAppData
	if appData == "" {
		appData = filepath.Join(o.Home, "AppData", "Roaming")
	}
	if local == "" {
		local = filepath.Join(o.Home, "AppData", "Local")
	}
	find := func(path string) (matches []string, all bool) {
		path, all = strings.CutSuffix(path, "/**")
		for _, at := range append([]string{path}, o.moved(path)...) {
			at = strings.NewReplacer("~", o.Home, "%APPDATA%", appData, "%LOCALAPPDATA%", local).Replace(at)
			more, _ := filepath.Glob(filepath.FromSlash(at))
			matches = append(matches, more...)
		}
		return matches, all
	}
	for _, p := range Places(o.OS) {
		matches, all := find(p.Path)
		for _, m := range matches {
			w.place(ctx, m, p, all)
		}
	}
	var lists []string
	for _, l := range listings() {
		matches, _ := find(l)
		lists = append(lists, matches...)
	}
	for _, dir := range w.projects(lists) {
		w.project(ctx, dir)
	}
}

// moved says where else a place is, if a variable of the environment moved its folder.
func (o Options) moved(path string) (list []string) {
	for from, to := range o.Moved {
		if rest, ok := strings.CutPrefix(path, from); ok && (rest == "" || rest[0] == '/') {
			list = append(list, filepath.ToSlash(to)+rest)
		}
	}
	return list
}

func (w *walker) place(ctx context.Context, path string, p Place, all bool) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return
	}
	info, err := os.Stat(real)
	if err != nil {
		w.s.skip(path, reason(err))
		return
	}
	if info.Mode().IsRegular() {
		if real == path || !strings.HasSuffix(strings.ToLower(path), ".pub") {
			w.send(ctx, job{path: real, shown: path, place: &p})
		}
		return
	}
	if !info.IsDir() || !all {
		return
	}
	_ = filepath.WalkDir(real, func(name string, e fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return fs.SkipAll
		case err != nil:
			w.s.skip(name, reason(err))
			return nil
		case e.IsDir() && (others[e.Name()] || e.Name() == ".git"):
			return fs.SkipDir
		case e.Type().IsRegular() && !dull[strings.ToLower(filepath.Ext(name))]:
			own := p
			w.send(ctx, job{path: name, place: &own})
		}
		return nil
	})
}

// A certified OpenID provider as a foreign third party: rotating refresh tokens
// whose reuse kills the grant, revocation, consent that may grant less than was
// asked for, short tokens. It signs anybody in, so it listens on loopback only.
//
// Settings come as one JSON argument; one JSON line on standard output says that
// it is ready. It ends with its standard input.
import { createServer } from "node:http";
import Provider, { errors } from "oidc-provider";

const { port = 0, redirect_uris, client_id, client_secret, ttl = 20, reject = [], resource = "" } = JSON.parse(process.argv[2]);

const stats = { exchanges: 0, refreshes: 0, refused: 0, revocations: 0, userinfo: 0, scopes: [] };
let latest = "";

const server = createServer();
await new Promise((resolve) => server.listen(port, "127.0.0.1", resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  clients: [{
    client_id, client_secret, redirect_uris,
    grant_types: ["authorization_code", "refresh_token", "client_credentials"], response_types: ["code"],
    token_endpoint_auth_method: "client_secret_basic",
  }],
  scopes: ["openid", "offline_access", "email", "files:read", "files:write"],
  claims: { openid: ["sub"], email: ["email"] },
  findAccount: async (ctx, id) => ({ accountId: id, claims: async () => ({ sub: id, email: `${id}@foreign.example` }) }),
  cookies: { keys: ["only for tests"] },
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  pkce: { required: () => true },
  rotateRefreshToken: true,
  issueRefreshToken: async () => true,
  ttl: { AccessToken: ttl, ClientCredentials: 600, AuthorizationCode: 60, RefreshToken: 3600, Grant: 3600, Interaction: 600, Session: 3600, IdToken: 60 },
  features: { clientCredentials: { enabled: true }, devInteractions: { enabled: false }, revocation: { enabled: true }, introspection: { enabled: true }, userinfo: { enabled: true },
    // With a resource, anybody may register a client, and tokens are for the resource that was named (RFC 7591, RFC 8707).
    registration: { enabled: Boolean(resource) },
    resourceIndicators: {
      enabled: Boolean(resource),
      getResourceServerInfo: async (ctx, named) => {
        if (named !== resource) throw new errors.InvalidTarget();
        return { scope: "files:read files:write", audience: resource, accessTokenFormat: "opaque", accessTokenTTL: ttl };
      },
      useGrantedResource: async () => true,
    },
  },
});

provider.on("access_token.saved", (token) => { latest = token.jti; });
provider.on("grant.success", (ctx) => {
  if (ctx.oidc.params.grant_type === "refresh_token") stats.refreshes++;
  else stats.exchanges++;
  stats.scopes = String(ctx.body.scope ?? "").split(" ");
});
provider.on("grant.error", (ctx) => { if (ctx.oidc.params?.grant_type === "refresh_token") stats.refused++; });

// Login and consent without a person, and what a test wants to know.
provider.use(async (ctx, next) => {
  if (ctx.path === "/_stats") {
    ctx.body = { ...stats, latest };
    return;
  }
  if (ctx.path === "/token/revocation" && ctx.method === "POST") stats.revocations++;
  if (ctx.path === "/me") stats.userinfo++;
  if (!ctx.path.startsWith("/interaction/")) return next();
  const { prompt, params, session } = await provider.interactionDetails(ctx.req, ctx.res);
  let result = { login: { accountId: params.login_hint ?? "mallory" } };
  if (prompt.name === "consent") {
    const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    const asked = String(params.scope).split(" ");
    grant.addOIDCScope(asked.filter((s) => !reject.includes(s)).join(" "));
    if (resource) grant.addResourceScope(resource, asked.join(" "));
    if (reject.length) grant.rejectOIDCScope(reject.join(" "));
    result = { consent: { grantId: await grant.save() } };
  }
  ctx.respond = false;
  await provider.interactionFinished(ctx.req, ctx.res, result, { mergeWithLastSubmission: true });
});

server.on("request", provider.callback());
process.stdin.on("end", () => process.exit(0)).resume();
process.stdout.write(JSON.stringify({ issuer }) + "\n");

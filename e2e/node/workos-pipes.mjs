// The unmodified WorkOS SDK for Node against Pipes: every method that it has for it,
// in two halves, between which a person connects an account at the page that the
// first names. It stops at the first answer that is not what the SDK promises.
import assert from "node:assert/strict";
import { WorkOS } from "@workos-inc/node";

const { host, port, key, organization, user, foreign, half, called: before = [] } = JSON.parse(process.argv[2]);
const workos = new WorkOS(key, { apiHostname: host, port: Number(port), https: false });
// Counts, so that a method which a later SDK adds is not passed over.
const called = new Set(before);
const pipes = new Proxy(workos.pipes, {
  get: (target, name) => typeof target[name] === "function" ? (...args) => (called.add(name), target[name](...args)) : target[name],
});
const fails = async (status, promise) => {
  const error = await promise.then(() => null, (e) => e);
  assert.equal(error?.status, status, `${error}`);
  return error;
};
const done = (more) => process.stdout.write(JSON.stringify({ called: [...called], ...more }) + "\n");

if (half === 1) {
  // A provider of the catalogue, one that is described here, and one with keys.
  const github = await pipes.createDataIntegration({ provider: "github", ownership: "user", authMethods: ["oauth"], description: "d", enabled: true, scopes: ["repo"],
    credentials: { type: "custom", clientId: "Iv1.0123456789abcdef", clientSecret: "a-client-secret" } });
  assert.deepEqual([github.slug, github.enabled, github.state, github.scopes], ["github", true, "valid", ["repo"]]);
  assert.equal(github.credentials.clientId, "Iv1.0123456789abcdef");
  assert.ok(!JSON.stringify(github).includes("a-client-secret"));
  assert.equal((await fails(409, pipes.createDataIntegration({ provider: "github" }))).code, "integration_exists");
  await fails(404, pipes.createDataIntegration({ provider: "no-such-provider" }));
  const made = await pipes.createDataIntegration({ provider: "foreign-idp", enabled: true, scopes: ["openid", "offline_access", "email", "files:read"],
    credentials: { type: "custom", clientId: foreign.client_id, clientSecret: foreign.client_secret },
    customProvider: { name: "Foreign", authorizationUrl: `${foreign.issuer}/auth`, tokenUrl: `${foreign.issuer}/token`, pkceEnabled: true, authenticateVia: "basic_auth_header" } });
  assert.equal(made.customProvider.name, "Foreign");
  assert.equal(made.redirectUri, foreign.redirect_uri);
  assert.ok(made.createdAt instanceof Date && !Number.isNaN(+made.createdAt));
  await pipes.createDataIntegration({ provider: "foreign-idp", ownership: "organization", enabled: true });
  const { url } = await pipes.authorizeDataIntegration({ slug: "foreign-idp", userId: user, organizationId: organization, returnTo: "https://product.example/done?x=1" });
  await fails(422, pipes.authorizeDataIntegration({ slug: "foreign-idp", userId: user, organizationId: organization, returnTo: "javascript:alert(1)" }));
  assert.deepEqual(await pipes.getAccessToken({ provider: "foreign-idp", userId: user, organizationId: organization }), { active: false, error: "not_installed" });
  done({ url });
} else {
  const vended = await pipes.getAccessToken({ provider: "foreign-idp", userId: user, organizationId: organization });
  assert.equal(vended.active, true);
  const { accessToken } = vended.accessToken;
  assert.ok(accessToken && vended.accessToken.expiresAt instanceof Date);
  assert.deepEqual(vended.accessToken.missingScopes, ["offline_access"]); // which this provider grants only when asked to prompt
  assert.equal((await fetch(`${foreign.issuer}/me`, { headers: { authorization: `Bearer ${accessToken}` } })).status, 200);
  const credential = await pipes.createDataIntegrationCredential({ slug: "foreign-idp", userId: user, organizationId: organization });
  assert.equal(credential.credential.authMethod, "oauth");
  assert.equal(credential.credential.value, accessToken);
  assert.equal((await pipes.getUserConnectedAccount({ userId: user, slug: "foreign-idp", organizationId: organization })).state, "connected");

  // Integrations.
  assert.equal((await pipes.getDataIntegration({ slug: "github" })).description, "d");
  assert.equal((await pipes.updateDataIntegration({ slug: "github", enabled: false, scopes: null })).scopes, null);
  const all = await (await pipes.listDataIntegrations()).autoPagination();
  assert.equal(new Set(all.map((i) => i.id)).size, all.length);
  assert.ok(all.some((i) => i.slug === "sandbox"));
  assert.equal((await pipes.listDataIntegrations({ ownership: "organization", limit: 2 })).data.length, 1);
  assert.equal((await pipes.getOrganizationDataIntegration({ slug: "foreign-idp" })).ownership, "organization");
  assert.equal((await pipes.updateOrganizationDataIntegration({ slug: "foreign-idp", enabled: true })).enabled, true);

  // Keys, and several of one user, who is called as the product calls them.
  const openai = await pipes.createDataIntegration({ provider: "openai", authMethods: ["api_key"], enabled: true, apiKey: { secret: "sk-of-the-first-user", userId: "u-0" } });
  assert.equal(openai.installation.connectionRole, "compatibility");
  const first = await pipes.updateDataIntegrationApiKey({ slug: "openai", userId: "u-1", organizationId: "acme", secret: "sk-number-one" });
  assert.equal((await pipes.updateDataIntegrationApiKey({ slug: "openai", userId: "u-1", organizationId: "acme", secret: "sk-number-one-b" })).id, first.id);
  const second = await pipes.createDataIntegrationApiKey({ slug: "openai", userId: "u-1", organizationId: "acme", secret: "sk-number-two", connectionIntent: "add" });
  assert.equal(second.connectionRole, "standard");
  assert.equal((await pipes.createDataIntegrationCredential({ slug: "openai", userId: "u-1", organizationId: "acme" })).credential.value, "sk-number-one-b");
  assert.equal((await pipes.createDataIntegrationCredential({ slug: "openai", userId: "u-1", organizationId: "acme", connectedAccountId: second.id, supportsMultipleConnections: true })).credential.value, "sk-number-two");
  assert.deepEqual(await pipes.createDataIntegrationCredential({ slug: "openai", userId: "u-1", organizationId: "acme", supportsMultipleConnections: true }),
    { active: false, error: "account_selection_required" });
  const providers = await pipes.listUserDataProviders({ userId: "u-1", organizationId: "acme", supportsMultipleConnections: true });
  assert.equal(providers.data.find((p) => p.slug === "openai").connectedAccounts.length, 2);
  await fails(422, pipes.getAccessToken({ provider: "openai", userId: "u-1", organizationId: "acme" }));

  // Client credentials, at a provider that gives tokens for them.
  const machine = { slug: "machine", userId: "u-1", organizationId: "acme", clientId: foreign.client_id, clientSecret: foreign.client_secret };
  const robot = await pipes.createDataIntegrationClientCredential(machine);
  assert.equal(robot.authMethod, "client_credentials");
  assert.equal((await pipes.updateDataIntegrationClientCredentials(machine)).id, robot.id);
  const minted = await pipes.createDataIntegrationCredential({ slug: "machine", userId: "u-1", organizationId: "acme" });
  assert.ok(minted.credential.authMethod === "client_credentials" && minted.credential.value && minted.credential.metadata);

  // Tokens that the product has already, of a user and of an organization.
  const imported = await pipes.createUserConnectedAccount({ userId: "u-2", slug: "foreign-idp", accessToken, expiresAt: new Date(Date.now() + 60_000), scopes: ["openid"] });
  assert.equal(imported.state, "connected");
  await fails(409, pipes.createUserConnectedAccount({ userId: "u-2", slug: "foreign-idp", accessToken }));
  await fails(422, pipes.createUserConnectedAccount({ userId: "u-3", slug: "foreign-idp" }));
  assert.equal((await pipes.updateUserConnectedAccount({ userId: "u-2", slug: "foreign-idp", state: "needs_reauthorization" })).state, "needs_reauthorization");
  assert.deepEqual(await pipes.getAccessToken({ provider: "foreign-idp", userId: "u-2" }), { active: false, error: "needs_reauthorization" });
  await pipes.deleteUserConnectedAccount({ userId: "u-2", slug: "foreign-idp" });
  await fails(404, pipes.getUserConnectedAccount({ userId: "u-2", slug: "foreign-idp" }));
  const shared = await pipes.createOrganizationConnectedAccount({ organizationId: "acme", slug: "foreign-idp", accessToken, userId: "u-1" });
  assert.equal((await pipes.getOrganizationConnectedAccount({ organizationId: "acme", slug: "foreign-idp" })).id, shared.id);
  assert.equal((await pipes.updateOrganizationConnectedAccount({ organizationId: "acme", slug: "foreign-idp", accessToken, userId: "u-1" })).userId, null);
  assert.equal((await pipes.getAccessToken({ provider: "foreign-idp", userId: "u-1", organizationId: "acme", connectionOwner: "organization" })).accessToken.accessToken, accessToken);
  assert.deepEqual((await pipes.listOrganizationDataProviders({ organizationId: "acme" })).data.map((p) => p.slug), ["foreign-idp"]);
  await pipes.deleteOrganizationConnectedAccount({ organizationId: "acme", slug: "foreign-idp" });

  // The end.
  await pipes.deleteOrganizationDataIntegration({ slug: "foreign-idp" });
  await pipes.deleteDataIntegration({ slug: "foreign-idp" });
  await fails(404, pipes.getDataIntegration({ slug: "foreign-idp" }));
  await fails(401, new WorkOS("sk_wrong", { apiHostname: host, port: Number(port), https: false }).pipes.listDataIntegrations());
  await fails(403, new WorkOS("amb_at_" + "A".repeat(43), { apiHostname: host, port: Number(port), https: false }).pipes.getAccessToken({ provider: "openai", userId: "u-1" }));

  const methods = Object.getOwnPropertyNames(Object.getPrototypeOf(workos.pipes)).filter((m) => m !== "constructor");
  assert.deepEqual(methods.filter((m) => !called.has(m)), []);
  done({ methods: methods.length });
}

// openid-client, a certified relying party, against the authorization server: each
// of its ways to authenticate gets through each grant that it may have. What takes a
// person is asked of the test at `person`. It stops at the first answer that is not
// what the RFCs promise, and prints what it did.
import assert from "node:assert/strict";
import * as oidc from "openid-client";

const { issuer, resource, person, robot } = JSON.parse(process.argv[2]);
const options = { algorithm: "oauth2", execute: [oidc.allowInsecureRequests] };
const redirect_uri = "http://127.0.0.1:1/callback";
const DEVICE = "urn:ietf:params:oauth:grant-type:device_code", EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS = "urn:ietf:params:oauth:token-type:access_token";

const ask = async (what) => {
  const r = await fetch(person, { method: "POST", body: JSON.stringify(what) });
  assert.equal(r.status, 200, await r.clone().text());
  return r.json();
};
const refused = async (error, promise) => {
  const e = await promise.then(() => ({ error: "nothing" }), (e) => e);
  assert.equal(e.error, error, `${e}`);
};
const active = async (config, token) => (await oidc.tokenIntrospection(config, token)).active;

const keys = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"]);
const jwk = { ...(await crypto.subtle.exportKey("jwk", keys.publicKey)), kid: "one", alg: "ES256", use: "sig" };
const ways = {
  client_secret_basic: (m) => oidc.ClientSecretBasic(m.client_secret),
  client_secret_post: (m) => oidc.ClientSecretPost(m.client_secret),
  private_key_jwt: () => oidc.PrivateKeyJwt({ key: keys.privateKey, kid: "one" }),
  none: () => oidc.None(),
};

// A person consents, and the code comes back with state and iss, which the library checks.
const signIn = async (config, more) => {
  const verifier = oidc.randomPKCECodeVerifier(), state = oidc.randomState();
  const { back } = await ask({ page: oidc.buildAuthorizationUrl(config, {
    redirect_uri, resource, state, code_challenge: await oidc.calculatePKCECodeChallenge(verifier), code_challenge_method: "S256", ...more }).href });
  const trade = (pkceCodeVerifier) => oidc.authorizationCodeGrant(config, new URL(back), { pkceCodeVerifier, expectedState: state }, { resource });
  return { trade, verifier };
};

const steps = {
  async discovery(way, c) {
    for (const algorithm of ["oauth2", "oidc"]) {
      const found = (await oidc.discovery(new URL(issuer), "nobody", undefined, oidc.None(), { ...options, algorithm })).serverMetadata();
      assert.equal(found.issuer, issuer);
      assert.ok(found.supportsPKCE("S256") && found.authorization_response_iss_parameter_supported);
      assert.ok([DEVICE, EXCHANGE].every((g) => found.grant_types_supported.includes(g)));
    }
  },
  async registration(way, c) {
    const asked = { client_name: "Judge", redirect_uris: [redirect_uri], token_endpoint_auth_method: way,
      grant_types: ["authorization_code", "refresh_token", DEVICE], response_types: ["code"], ...(way === "private_key_jwt" && { jwks: { keys: [jwk] } }) };
    const made = (await oidc.dynamicClientRegistration(new URL(issuer), asked, oidc.None(), options)).clientMetadata();
    assert.equal(made.token_endpoint_auth_method, way);
    assert.equal(!!made.client_secret, way.startsWith("client_secret"));
    c.config = await oidc.discovery(new URL(issuer), made.client_id, undefined, ways[way](made), options);
  },
  async code(way, c) {
    const other = await signIn(c.config);
    await refused("invalid_grant", other.trade(oidc.randomPKCECodeVerifier()));
    c.code = await signIn(c.config);
    c.tokens = await c.code.trade(c.code.verifier);
    assert.ok(c.tokens.token_type === "bearer" && c.tokens.refresh_token && c.tokens.expiresIn() > 0);
  },
  async introspection(way, c) {
    if (way === "none") { // a name is no proof
      await refused("unauthorized_client", oidc.tokenIntrospection(c.config, c.tokens.access_token));
      return;
    }
    const told = await oidc.tokenIntrospection(c.config, c.tokens.access_token);
    assert.equal(told.active, true);
    assert.deepEqual([told.iss, told.aud, told.client_id], [issuer, resource, c.config.clientMetadata().client_id]);
    assert.ok(told.sub.startsWith("user_") && told.act.sub.startsWith("agent_"), JSON.stringify(told));
    if (c.before) assert.equal(await active(c.before, c.tokens.access_token), false); // another client learns nothing
    c.introspects = true;
  },
  async exchange(way, c) {
    const { session: held } = await ask({ token: c.tokens.access_token });
    const { session } = await ask({ token: c.tokens.access_token, hand_on: true });
    const trade = (more) => oidc.genericGrantRequest(c.config, EXCHANGE, { subject_token: c.tokens.access_token, subject_token_type: ACCESS, resource, ...more });
    await refused("invalid_grant", trade({ session: held })); // the approval did not say that it may
    const child = await trade({ session, effects: "read", minutes: "5" });
    assert.equal(child.issued_token_type, ACCESS);
    assert.equal(child.refresh_token, undefined);
    assert.ok(child.expiresIn() <= 300);
    if (c.introspects) {
      const told = await oidc.tokenIntrospection(c.config, child.access_token);
      assert.ok(told.active && told.sid.startsWith("ses_"), JSON.stringify(told));
    }
    assert.deepEqual(await ask({ token: child.access_token, call: "sandbox_list_issues" }), { code: "" });
    assert.deepEqual(await ask({ token: child.access_token, call: "sandbox_create_issue", args: { title: "By a sub-agent" } }), { code: "not_granted" });
    await refused("invalid_grant", oidc.genericGrantRequest(c.config, EXCHANGE, { subject_token: child.access_token, subject_token_type: ACCESS, resource }));
  },
  // A client that knows nothing but this flow gets a token for one session, as the person left it.
  async session(way, c) {
    const asks = [{ type: "ambit_session", providers: ["sandbox"], effects: ["read", "write"], minutes: 10, purpose: "Be judged." }];
    const asked = [{ scope: "ambit session:sandbox:read" }, { authorization_details: JSON.stringify(asks) }];
    for (const [i, more] of asked.entries()) {
      const held = await signIn(c.config, more);
      const got = await held.trade(held.verifier);
      assert.equal(got.refresh_token, undefined);
      assert.equal(got.scope, ["ambit session:sandbox:read", "ambit session:sandbox:read session:sandbox:write"][i]);
      assert.equal(got.authorization_details[0].type, "ambit_session");
      assert.ok(got.expiresIn() <= 60 * [30, 10][i], `${got.expiresIn()}`);
      assert.deepEqual(await ask({ token: got.access_token, call: "sandbox_list_issues" }), { code: "" });
      assert.deepEqual(await ask({ token: got.access_token, call: "sandbox_create_issue", args: { title: "By a plain client" } }), { code: ["not_granted", ""][i] });
      if (c.introspects) assert.ok((await oidc.tokenIntrospection(c.config, got.access_token)).sid.startsWith("ses_"));
      await refused("invalid_grant", held.trade(held.verifier)); // a second use ends what the first gave
      assert.equal((await ask({ token: got.access_token, call: "sandbox_list_issues" })).code, "unauthorized");
    }
    const elsewhere = await signIn(c.config, { scope: "session:sandbox:everything" }).then(() => "a code", (e) => `${e}`);
    assert.ok(!elsewhere.includes("a code"), elsewhere);
  },
  async rotation(way, c) {
    const first = c.tokens.refresh_token;
    const refresh = (token) => oidc.refreshTokenGrant(c.config, token, { resource });
    const second = await refresh(first);
    assert.notEqual(second.refresh_token, first);
    assert.equal((await refresh(first)).refresh_token, second.refresh_token); // a retry gets the same answer
    const third = await refresh(second.refresh_token);
    if (c.introspects) assert.equal(await active(c.config, third.access_token), true);
    await refused("invalid_grant", refresh(first)); // a reuse ends all of it
    await refused("invalid_grant", refresh(third.refresh_token));
    if (c.introspects) assert.equal(await active(c.config, third.access_token), false);
    await refused("invalid_grant", c.code.trade(c.code.verifier));
  },
  async device(way, c) {
    const shown = await oidc.initiateDeviceAuthorization(c.config, { resource });
    await refused("authorization_pending", oidc.genericGrantRequest(c.config, DEVICE, { device_code: shown.device_code, resource }));
    await ask({ page: shown.verification_uri_complete });
    c.tokens = await oidc.pollDeviceAuthorizationGrant(c.config, shown, { resource });
    assert.ok(c.tokens.access_token && c.tokens.refresh_token);
  },
  async revocation(way, c) {
    if (c.introspects) assert.equal(await active(c.config, c.tokens.access_token), true);
    if (c.before) { // another client's token stays
      await oidc.tokenRevocation(c.before, c.tokens.refresh_token).catch(() => {});
      if (c.introspects) assert.equal(await active(c.config, c.tokens.refresh_token), true);
    }
    await oidc.tokenRevocation(c.config, c.tokens.refresh_token);
    if (c.introspects) assert.equal(await active(c.config, c.tokens.access_token), false);
    assert.equal((await ask({ token: c.tokens.access_token, call: "sandbox_list_issues" })).code, "unauthorized");
    await refused("invalid_grant", oidc.refreshTokenGrant(c.config, c.tokens.refresh_token, { resource }));
  },
};

const done = [];
const through = async (way, before) => {
  const c = { before };
  for (const [name, step] of Object.entries(steps)) {
    await step(way, c).catch((e) => { throw new Error(`${way}: ${name}: ${e.stack}`, { cause: e }); });
    done.push(`${way}: ${name}`);
  }
  return c.config;
};
// The first is who asks about the tokens of the others.
const before = await through("client_secret_basic");
await Promise.all(["client_secret_post", "private_key_jwt", "none"].map((way) => through(way, before)));

// An agent with the secret that an admin gave it.
const own = await oidc.discovery(new URL(issuer), robot.id, undefined, oidc.ClientSecretBasic(robot.secret), options);
const alone = await oidc.clientCredentialsGrant(own, { resource });
assert.equal(alone.refresh_token, undefined);
assert.ok((await oidc.tokenIntrospection(own, alone.access_token)).act.sub.startsWith("agent_"));
await refused("invalid_target", oidc.clientCredentialsGrant(own, { resource: "https://elsewhere.example/mcp" }));
process.stdout.write(JSON.stringify({ done }) + "\n");

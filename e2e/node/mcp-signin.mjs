// The TypeScript MCP client does the whole way by itself: it finds the authorization server,
// registers, and a person decides at the pages that it names. Once it asks for a session with
// its sign-in, and once it is told a page in the middle of a call, opens that and calls again.
import assert from "node:assert/strict";
import { Client, StreamableHTTPClientTransport, UnauthorizedError, UrlElicitationRequiredError } from "@modelcontextprotocol/client";

const { url, person } = JSON.parse(process.argv[2]);
const ask = async (what) => {
  const r = await fetch(person, { method: "POST", body: JSON.stringify(what) });
  assert.equal(r.status, 200, await r.clone().text());
  return r.json();
};

const signedIn = async (more, capabilities) => {
  const kept = {};
  const provider = {
    redirectUrl: "http://127.0.0.1:1/callback",
    clientMetadata: { client_name: "TypeScript", redirect_uris: ["http://127.0.0.1:1/callback"], grant_types: ["authorization_code", "refresh_token"], response_types: ["code"], token_endpoint_auth_method: "none" },
    clientInformation: () => kept.client, saveClientInformation: (c) => { kept.client = c; },
    tokens: () => kept.tokens, saveTokens: (t) => { kept.tokens = t; },
    saveCodeVerifier: (v) => { kept.verifier = v; }, codeVerifier: () => kept.verifier,
    redirectToAuthorization: (page) => {
      for (const [name, value] of Object.entries(more)) page.searchParams.set(name, value);
      kept.page = page;
    },
  };
  const transport = () => new StreamableHTTPClientTransport(new URL(url), { authProvider: provider });
  const client = () => new Client({ name: "foreign-agent", version: "1.0.0" }, { capabilities });
  const first = transport();
  await assert.rejects(client().connect(first), UnauthorizedError);
  const { back } = await ask({ page: kept.page.href });
  await first.finishAuth(new URL(back).searchParams);
  const c = client();
  await c.connect(transport());
  return { c, tokens: kept.tokens };
};

const said = (r) => { assert.ok(!r.isError, JSON.stringify(r)); return r.structuredContent; };
const done = [];

const details = [{ type: "ambit_session", providers: ["sandbox"], effects: ["read"], minutes: 10, purpose: "List the issues." }];
const held = await signedIn({ authorization_details: JSON.stringify(details) }, {});
assert.equal(held.tokens.refresh_token, undefined);
said(await held.c.callTool({ name: "sandbox_list_issues", arguments: {} }));
const refused = await held.c.callTool({ name: "sandbox_create_issue", arguments: { title: "x" } });
assert.equal(refused.structuredContent.code, "not_granted");
done.push("session");

const opens = await signedIn({}, { elicitation: { url: {} } });
assert.ok(opens.tokens.refresh_token);
const call = () => opens.c.callTool({ name: "sandbox_list_issues", arguments: {} });
const told = await call().then(() => null, (e) => e);
assert.ok(told instanceof UrlElicitationRequiredError, `${told}`);
await ask({ approve: told.elicitations[0].url });
said(await call());
done.push("elicitation");

process.stdout.write(JSON.stringify({ done, protocol: opens.c.getNegotiatedProtocolVersion?.() }) + "\n");
await held.c.close();
await opens.c.close();

// The unmodified WorkOS SDK for Node against the vault: every method that it has for
// it. It stops at the first answer that is not what the SDK promises its callers.
import assert from "node:assert/strict";
import { WorkOS } from "@workos-inc/node";

const { host, port, key, organization } = JSON.parse(process.argv[2]);
const workos = new WorkOS(key, { apiHostname: host, port: Number(port), https: false });
// Counts, so that a method which a later SDK adds is not passed over.
const called = new Set();
const vault = new Proxy(workos.vault, {
  get: (target, name) => typeof target[name] === "function" ? (...args) => (called.add(name), target[name](...args)) : target[name],
});
const context = { organization_id: organization };
const fails = async (status, promise) => {
  const error = await promise.then(() => null, (e) => e);
  assert.equal(error?.status, status, `${error}`);
  return error;
};

// Objects.
const name = "prod/a b%é";
const made = await vault.createObject({ name, value: "first <&> é", context });
assert.deepEqual(made.context, context);
assert.ok(made.id && made.keyId && made.environmentId && made.versionId && made.updatedBy.id);
assert.ok(made.updatedAt instanceof Date && !Number.isNaN(+made.updatedAt));
assert.match((await fails(409, vault.createObject({ name, value: "x", context }))).message, /already exists/);

const read = await vault.readObject({ id: made.id });
assert.equal(read.value, "first <&> é");
assert.equal(read.name, name);
assert.equal(read.metadata.versionId, made.versionId);
assert.equal((await vault.readObjectByName(name)).value, "first <&> é");
const described = await vault.describeObject({ id: made.id });
assert.equal(described.name, name);
assert.equal(described.value, undefined);

const second = await vault.updateObject({ id: made.id, value: "second" });
await fails(409, vault.updateObject({ id: made.id, value: "x", versionCheck: made.versionId }));
await vault.updateObject({ id: made.id, value: "third", versionCheck: second.metadata.versionId });
const versions = await vault.listObjectVersions({ id: made.id });
assert.equal(versions.length, 3);
assert.deepEqual(versions.map((v) => v.currentVersion), [true, false, false]);
assert.equal(versions[2].id, made.versionId);

for (let i = 0; i < 24; i++) await vault.createObject({ name: `page ${i}`, value: `${i}`, context: {} });
const page = await vault.listObjects({ limit: 5 });
assert.equal(page.data.length, 5);
assert.ok(page.listMetadata.after);
const everything = await (await vault.listObjects()).autoPagination();
assert.equal(everything.length, 25);
assert.equal(new Set(everything.map((o) => o.id)).size, 25);
assert.deepEqual((await vault.listObjects({ search: "A B%" })).data.map((o) => o.name), [name]);
assert.equal((await vault.listObjects({ updatedAfter: new Date(Date.now() + 86_400_000).toISOString() })).data.length, 0);
assert.equal((await vault.listObjects({ order: "asc", limit: 100 })).data.length, 25);

// Data keys, and what is encrypted with them in this process.
const pair = await vault.createDataKey({ context });
const plainKey = await vault.decryptDataKey({ keys: pair.encryptedKeys });
assert.deepEqual(plainKey, pair.dataKey);
assert.equal(Buffer.from(pair.dataKey.key, "base64").length, 32);
const rekeyed = await vault.createRekey({ context: { ...context, tier: "1" }, encryptedKeys: pair.encryptedKeys });
assert.equal(rekeyed.dataKey, pair.dataKey.key);
assert.notEqual(rekeyed.encryptedKeys, pair.encryptedKeys);
await fails(400, vault.decryptDataKey({ keys: Buffer.from("nothing").toString("base64") }));

const blob = await vault.encrypt("kept by the application é", context, "row 1");
assert.equal(await vault.decrypt(blob, "row 1"), "kept by the application é");
await assert.rejects(vault.decrypt(blob, "row 2"));
const bare = await vault.encrypt("", {});
assert.equal(await vault.decrypt(bare), "");

// What happened.
const events = await workos.events.listEvents({ events: ["vault.data.created", "vault.data.read", "vault.dek.read"], limit: 100 });
const seen = new Map();
for (const e of events.data) seen.set(e.event, (seen.get(e.event) ?? 0) + 1);
assert.equal(seen.get("vault.data.created"), 25);
assert.ok(seen.get("vault.data.read") >= 2 && seen.get("vault.dek.read") >= 3, `${[...seen]}`);

// The end.
await fails(409, vault.deleteObject({ id: made.id, versionCheck: made.versionId }));
await vault.deleteObject({ id: made.id });
await fails(404, vault.readObject({ id: made.id }));
await fails(404, vault.readObjectByName(name));
assert.ok((await vault.createObject({ name, value: "again", context })).id !== made.id);
await fails(401, new WorkOS("sk_wrong", { apiHostname: host, port: Number(port), https: false }).vault.listObjects());

const methods = Object.getOwnPropertyNames(Object.getPrototypeOf(workos.vault)).filter((m) => !["constructor", "decode"].includes(m));
assert.deepEqual(methods.filter((m) => !called.has(m)), []);
process.stdout.write(JSON.stringify({ blob }) + "\n");

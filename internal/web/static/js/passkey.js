// Passkey forms. A form with data-begin asks that address for WebAuthn options,
// sending its own fields, so that the challenge is bound to exactly what the
// person sees; the answer goes into the form, which is then posted as usual.

const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
const descriptor = (credential) => ({ ...credential, id: bytes(credential.id) });

function decode(options) {
  const out = { ...options, challenge: bytes(options.challenge) };
  if (options.user) out.user = { ...options.user, id: bytes(options.user.id) };
  if (options.allowCredentials) out.allowCredentials = options.allowCredentials.map(descriptor);
  if (options.excludeCredentials) out.excludeCredentials = options.excludeCredentials.map(descriptor);
  return out;
}

function encode(credential) {
  const response = { clientDataJSON: text(credential.response.clientDataJSON) };
  for (const name of ["authenticatorData", "signature", "userHandle", "attestationObject"]) {
    if (credential.response[name]) response[name] = text(credential.response[name]);
  }
  if (credential.response.getTransports) response.transports = credential.response.getTransports();
  return JSON.stringify({
    id: credential.id, rawId: text(credential.rawId), type: credential.type, response,
    authenticatorAttachment: credential.authenticatorAttachment ?? undefined,
    clientExtensionResults: credential.getClientExtensionResults(),
  });
}

async function ceremony(form) {
  const answer = await fetch(form.dataset.begin, {
    method: "POST", body: new URLSearchParams(new FormData(form)), headers: { Accept: "application/json" },
  });
  const begun = await answer.json();
  if (!answer.ok) throw new Error([begun.message, begun.hint].filter(Boolean).join(" "));
  const publicKey = decode(begun.options.publicKey ?? begun.options);
  const credential = form.dataset.passkey === "create"
    ? await navigator.credentials.create({ publicKey })
    : await navigator.credentials.get({ publicKey });
  form.elements.credential.value = encode(credential);
  if (form.elements.flow) form.elements.flow.value = begun.flow ?? "";
}

function explain(error) {
  if (error.name === "NotAllowedError") return "The passkey was not used. Nothing has changed; you can try again.";
  if (error.name === "InvalidStateError") return "This device already holds a passkey of yours here. Use another device or security key.";
  if (error.name === "SecurityError") return "Passkeys do not work at this address. Open Ambit at its public address.";
  return error.message;
}

// submit goes ahead when there is a code instead: the server checks it.
async function submit(event) {
  const form = event.target;
  if (!event.submitter?.matches("[data-prove]") || form.elements.code?.value) return;
  event.preventDefault();
  const problem = form.querySelector("[data-problem]");
  event.submitter.disabled = true;
  problem.textContent = "";
  try {
    await ceremony(form);
    form.submit();
  } catch (error) {
    problem.textContent = explain(error);
    event.submitter.disabled = false;
  }
}

// The link of a first sign-in carries its token behind the #, where no server
// log sees it; it leaves the address bar before anything else happens. Then the
// server says whether the link still works.
async function enroll() {
  const form = document.querySelector("form[data-token]");
  if (!form) return;
  const token = location.hash.slice(1);
  form.elements.token.value = token;
  history.replaceState(null, "", location.pathname);
  const show = (id) => { document.getElementById(id).hidden = false; };
  if (token === "") return show("link-cut");
  const look = await fetch(form.dataset.token, { method: "POST", body: new URLSearchParams({ token }), headers: { Accept: "application/json" } }).catch(() => null);
  if (look?.ok) for (const [name, text] of Object.entries((await look.json()).says ?? {})) {
    document.querySelector(`[data-says="${name}"]`).textContent = text;
  }
  if (look?.status !== 410) return show("link-works"); // what else is wrong, the form says
  document.querySelector("#link-gone [data-message]").textContent = (await look.json()).message;
  show("link-gone");
}

// passkeys wires the forms. Their buttons work only once the page has been
// shown whole, so that nobody approves what is not yet on the screen.
export function passkeys() {
  enroll();
  for (const form of document.querySelectorAll("form[data-begin]")) form.addEventListener("submit", submit);
  const ready = () => requestAnimationFrame(() => requestAnimationFrame(() => {
    for (const button of document.querySelectorAll("[data-prove]")) button.disabled = !window.PublicKeyCredential;
    for (const hint of document.querySelectorAll("[data-no-passkey]")) hint.hidden = Boolean(window.PublicKeyCredential);
  }));
  if (document.readyState === "complete") ready();
  else addEventListener("load", ready);
}

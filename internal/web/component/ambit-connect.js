// <ambit-connect token="amb_connect_…" url="https://…/ui/connect/…">Connect</ambit-connect>
//
// A button for the page of a product. A click opens a window of Ambit, where the
// user connects an account; meanwhile the element asks with its token what became
// of it, and tells the page:
//
//   ambit-connected  detail: { connection, provider }
//   ambit-failed     detail: { code }
//   ambit-expired
//   ambit-blocked    the browser opened no window; open the url yourself
//
// token and url come from POST /v1/connect-tokens, asked for by the product's back
// end. The attribute "state" says how far it is, for style sheets. The button is
// the part "button".

const home = new URL(import.meta.url).origin;
const final = ["connected", "failed", "expired"];
const pause = (ms) => new Promise((wake) => setTimeout(wake, ms));

class AmbitConnect extends HTMLElement {
  static observedAttributes = ["token", "url"];
  #button = document.createElement("button");
  #asking = null;

  constructor() {
    super();
    this.#button.type = "button";
    this.#button.part = "button";
    const label = document.createElement("slot");
    label.textContent = "Connect an account";
    this.#button.append(label);
    this.attachShadow({ mode: "open", delegatesFocus: true }).append(this.#button);
    this.#button.addEventListener("click", () => this.#open());
  }

  attributeChangedCallback(name, was, now) {
    if (was === now) return;
    this.#asking?.abort();
    this.#to("ready");
  }

  disconnectedCallback() { this.#asking?.abort(); }

  #to(state, detail) {
    if (this.getAttribute("state") === state) return;
    this.setAttribute("state", state);
    this.#button.disabled = final.includes(state);
    if (final.includes(state) || state === "blocked") {
      this.dispatchEvent(new CustomEvent(`ambit-${state}`, { detail, bubbles: true, composed: true }));
    }
  }

  #open() {
    let url;
    try { url = new URL(this.getAttribute("url")); } catch { return this.#to("failed", { code: "invalid_url" }); }
    if (url.origin !== home) return this.#to("failed", { code: "other_origin" });
    // Its pages are apart from their opener, so that only the token tells more.
    if (!window.open(url, "ambit-connect", "popup,width=560,height=760")) return this.#to("blocked");
    this.#asking?.abort();
    this.#asking = new AbortController();
    this.#ask(this.#asking.signal);
  }

  async #ask(signal) {
    const headers = { Authorization: `Bearer ${this.getAttribute("token")}` };
    this.#to("open");
    while (!signal.aborted) {
      await pause(1500);
      const answer = await fetch(`${home}/connect/state`, { headers, signal, credentials: "omit", cache: "no-store" }).catch(() => null);
      if (signal.aborted) return;
      if (answer?.status === 401) return this.#to("expired");
      if (!answer?.ok) continue;
      const now = await answer.json().catch(() => ({}));
      if (final.includes(now.state)) return this.#to(now.state, { connection: now.connection_id, provider: now.provider, code: now.code });
    }
  }
}

customElements.define("ambit-connect", AmbitConnect);

// Everything here only adds to pages that work without it: copy buttons, times
// that move, the live inbox. Text reaches the page through textContent alone.
import { passkeys } from "./passkey.js";

const all = (selector, root = document) => root.querySelectorAll(selector);

for (const button of all("[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.dataset.copied = "";
    setTimeout(() => delete button.dataset.copied, 1500);
  });
}

const units = [["day", 86400], ["hour", 3600], ["minute", 60]];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "always" });
const absolute = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });

function ago(time) {
  const seconds = (new Date(time.dateTime) - Date.now()) / 1000;
  const unit = units.find(([, size]) => Math.abs(seconds) >= size);
  time.textContent = unit ? relative.format(Math.trunc(seconds / unit[1]), unit[0]) : seconds > 0 ? "in a moment" : "just now";
}

function left(time) {
  const seconds = Math.max(0, Math.floor((new Date(time.dateTime) - Date.now()) / 1000));
  const pad = (n) => String(n).padStart(2, "0");
  const hours = Math.floor(seconds / 3600), minutes = Math.floor(seconds / 60) % 60;
  time.textContent = seconds === 0 ? "0:00" : (hours ? `${hours}:${pad(minutes)}` : String(minutes)) + `:${pad(seconds % 60)}`;
}

function times() {
  all("time[data-ago]").forEach(ago);
  for (const time of all("time[title]:not([data-local])")) {
    time.title = absolute.format(new Date(time.dateTime));
    time.dataset.local = "";
  }
}
times();
setInterval(times, 20_000);
all("time[data-left]").forEach(left);
setInterval(() => all("time[data-left]").forEach(left), 1000);

// The live inbox: the count in title and navigation on every page, and the
// requests themselves on the inbox page.
const title = document.title.replace(/^\(\d+\) /, "");

function fill(list, items) {
  const template = document.getElementById("inbox-item");
  list.replaceChildren(...items.map((item) => {
    const row = template.content.cloneNode(true);
    for (const slot of all("[data-slot]", row)) slot.textContent = item[slot.dataset.slot] ?? "";
    for (const part of all("[data-if]", row)) part.hidden = !item[part.dataset.if];
    row.querySelector("a").href = `/ui/approvals/${encodeURIComponent(item.id)}`;
    for (const time of all("time", row)) time.dateTime = item[time.dataset.at];
    return row;
  }));
  times();
  all("time[data-left]", list).forEach(left);
}

// What is new while nobody looks at the page: who asks, and for what. It only
// says that something waits; one such notice at a time.
let known;
function tell(items) {
  const fresh = known ? items.filter((item) => !known.has(item.id)) : [];
  known = new Set(items.map((item) => item.id));
  if (!fresh.length || !document.hidden || globalThis.Notification?.permission !== "granted") return;
  const [item] = fresh;
  const body = fresh.length > 1 ? `${fresh.length} requests wait for you.` : `${item.agent} wants to ${item.call ? "run " : ""}${item.verbs}.`;
  const notice = new Notification("Ambit", { body, tag: "inbox" });
  notice.onclick = () => { window.focus(); location.assign("/ui/"); notice.close(); };
}

const notify = document.getElementById("notify");
if (notify && globalThis.Notification?.permission === "default") {
  notify.hidden = false;
  notify.addEventListener("click", async () => { notify.hidden = await Notification.requestPermission() !== "default"; });
}

function inbox(message) {
  tell(message.items);
  document.title = message.count ? `(${message.count}) ${title}` : title;
  for (const badge of all("[data-count]")) {
    badge.textContent = message.count;
    badge.hidden = message.count === 0;
  }
  const list = document.getElementById("inbox");
  if (list && list.dataset.seen !== message.seen) {
    list.dataset.seen = message.seen;
    fill(list, message.items);
    list.hidden = message.count === 0;
    document.getElementById("inbox-empty").hidden = message.count !== 0;
    document.getElementById("inbox-more").hidden = message.count <= message.items.length;
    document.getElementById("inbox-news").textContent = message.count === 1 ? "1 request waits for you." : `${message.count} requests wait for you.`;
  }
}

if (document.body.dataset.events) {
  const events = new EventSource(document.body.dataset.events);
  events.addEventListener("message", (event) => {
    const message = JSON.parse(event.data);
    if (message.type === "inbox") inbox(message);
  });
  addEventListener("pagehide", () => events.close());
  addEventListener("pageshow", (event) => event.persisted && location.reload());
}

// Work that goes on by itself: how far it is, until it is done; then the page is
// shown as it is now.
async function follow(box) {
  const [bar, text] = [box.querySelector("progress"), box.querySelector("p")];
  for (let wait = 500; ; wait = 1500) {
    await new Promise((wake) => setTimeout(wake, wait));
    const answer = document.hidden ? null : await fetch(box.dataset.progress, { headers: { Accept: "application/json" } }).catch(() => null);
    if (answer && !answer.ok) return;
    if (!answer) continue;
    const at = await answer.json();
    if (bar) [bar.max, bar.value] = [at.max, at.value];
    if (text.textContent !== at.text) text.textContent = at.text;
    if (at.done) return location.reload();
  }
}
all("[data-progress]").forEach(follow);

passkeys();

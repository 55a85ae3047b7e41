// Somebody who opens a mailed link in the least of a browser: only as much of a document as the page's script asks for,
// and everything else real: the page, its script and the hub come over HTTP. Prints what the page says in the end.
//
//   node reader.mjs <origin> <path and #token> <what to type, as a JSON list> [another link, opened in the same tab]

import crypto from "node:crypto";
import vm from "node:vm";

const [origin, link, typed, another] = process.argv.slice(2);
const answer = await fetch(new URL(link, origin));
const html = await answer.text();
const policy = answer.headers.get("content-security-policy");

const script = /<script>([^]*)<\/script>/.exec(html)[1];
const named = "'sha256-" + crypto.createHash("sha256").update(script).digest("base64") + "'";
if (!policy.split("; ").includes(`script-src ${named}`)) throw new Error("a browser would not run this script");

const attributes = (tag) =>
  Object.fromEntries([...tag.matchAll(/ ([a-z-]+)(?:="([^"]*)")?/g)].map(([, name, value]) => [name, value ?? ""]));

class Element {
  constructor(tag) {
    const all = attributes(tag);
    this.hidden = "hidden" in all;
    this.value = this.textContent = this.className = "";
    this.disabled = false;
    this.dataset = {};
    this.listeners = {};
    for (const name in all) if (name.startsWith("data-")) this.dataset[name.slice(5)] = all[name];
  }
  addEventListener(name, listener) {
    this.listeners[name] = listener;
  }
}

let elements, listeners;
const location = new URL(link, origin);
location.reload = open;
const sent = [];

function open() {
  elements = {};
  listeners = {};
  for (const [selector, pattern] of [
    ["form", /<form[^>]*>/],
    ["button", /<button[^>]*>/],
    ["#password", /<input id="password"[^>]*>/],
    ["#again", /<input id="again"[^>]*>/],
    ["#said", /<p id="said"[^>]*>/],
  ]) {
    const tag = pattern.exec(html);
    elements[selector] = tag && new Element(tag[0]);
  }
  const page = vm.createContext({
    document: { querySelector: (selector) => elements[selector] },
    addEventListener: (name, listener) => (listeners[name] = listener),
    location,
    history: { replaceState: (_state, _title, path) => (location.href = new URL(path, origin).href) },
    fetch: (path, options) => {
      const url = new URL(path, location);
      sent.push(url.pathname);
      if (url.origin !== origin) throw new Error("a browser would not let this page ask there");
      return fetch(url, options);
    },
  });
  vm.runInContext(script, page);
}

open();
if (another) {
  location.href = new URL(another, origin).href; // only what is behind the # differs: the document stays
  listeners.hashchange?.();
}

const values = JSON.parse(typed);
elements["#password"].value = values[0];
if (elements["#again"]) elements["#again"].value = values[1] ?? values[0];
if (!elements.form.hidden) await elements.form.listeners.submit({ preventDefault() {} });
const { textContent, className } = elements["#said"];
console.log(
  JSON.stringify({ said: textContent, kind: className, form: !elements.form.hidden, address: location.href, sent })
);

/* Where the state is kept: the address, which can be sent on, the browser's storage, and files. */

import { $, el } from "../dom.mjs";
import { count } from "../numbers.mjs";
import { fromAddress, fromFile, isEmpty, steps, toAddress, toFile } from "./store.mjs";
import { AT_FIRST, itemOf, nodes, payload, select, store, view } from "./state.mjs";

const STORED = `circuit ${payload.graph}`;
const ADDRESS_AT_MOST = 6000; // letters; a longer state is in the storage only
const framed = location.protocol === "about:"; // inside a notebook there is no address to write to
const graphKeys = new Set(nodes.map((node) => node.key));

const filters = () =>
  Object.fromEntries(
    Object.entries(AT_FIRST)
      .filter(([name, value]) => JSON.stringify(view[name]) !== JSON.stringify(value))
      .map(([name]) => [name, view[name]]),
  );
const kept = () => ({ ...toFile(store.state), view: filters() });

/* The selection and the state, in the address and in the storage. `how` is push or replace: a
   node that was gone to can be gone back from. */
export function remember(how = "replace") {
  storage((place) => {
    if (isEmpty(store.state) && !Object.keys(filters()).length) place.removeItem(STORED);
    else place.setItem(STORED, JSON.stringify(kept()));
  });
  if (framed) return;
  const parts = new URLSearchParams();
  if (view.selected) parts.set("node", view.selected.key);
  const state = isEmpty(store.state) ? "" : toAddress(kept());
  if (state && state.length <= ADDRESS_AT_MOST) parts.set("state", state);
  const hash = parts.size ? `#${parts}` : "";
  if (location.hash === hash) return;
  const address = hash || location.pathname + location.search;
  history[`${how}State`]({ circuit: true }, "", address);
}

/* Storage is closed to pages in some frames. */
function storage(use) {
  try {
    return use(localStorage);
  } catch {
    return null;
  }
}

export const fromHash = () => new URLSearchParams(location.hash.slice(1));

/* The state of the address comes before that of the storage; a broken one is told and left. */
export function restoreAtFirst() {
  const letters = fromHash().get("state");
  try {
    const text = letters ? fromAddress(letters) : storage((place) => place.getItem(STORED));
    if (!text) return;
    const { state } = fromFile(text, graphKeys);
    const { view: shown = {} } = JSON.parse(text);
    for (const name of Object.keys(AT_FIRST)) if (Object.hasOwn(shown, name)) view[name] = shown[name];
    store.reset(state);
  } catch (error) {
    say(`The state in the address cannot be read: ${error.message}`);
  }
}

/* Back and forward go through nodes; an address that somebody pasted brings its state along. */
export function onAddress(event) {
  const asked = fromHash();
  if (location.hash.length > 1 && !asked.has("node") && !asked.has("state")) return; // another part
  if (!event.state?.circuit) restoreAtFirst();
  const key = asked.get("node");
  select(key === null ? null : itemOf(key), { focus: true, keep: "replace" });
  remember("replace");
}

export function download(name, content, type) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

export const fileName = (suffix) =>
  `${document.title
    .normalize("NFKD")
    .replace(/[^\p{L}\p{N}]+/gu, "-")
    .replace(/^-+|-+$/g, "")
    .slice(0, 60)
    .toLowerCase() || "circuit"}.${suffix}`;

export const saveState = () =>
  download(
    fileName("state.json"),
    `${JSON.stringify(toFile(store.state), null, 2)}\n`,
    "application/json",
  );

export async function loadState(file) {
  try {
    const { state, unknown } = fromFile(await file.text(), graphKeys);
    store.change(steps.load(state));
    const left = unknown.length
      ? `; ${count(unknown.length, "node")} that this graph does not have left out: ` +
        `${unknown.slice(0, 3).join(", ")}${unknown.length > 3 ? ", …" : ""}`
      : "";
    say(`Loaded ${file.name}${left}`);
  } catch (error) {
    say(`${file.name} was not loaded: ${error.message}`);
  }
}

/* One line that is seen for a while and read out. */
export function say(text) {
  $("told").textContent = text;
  $("told").hidden = false;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => {
    $("told").hidden = true;
  }, 8000);
}

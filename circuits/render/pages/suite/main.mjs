/* Wiring: what is asked for, what is found, and which feature is open. */

import { $, el } from "../dom.mjs";
import { count } from "../numbers.mjs";
import { sheet } from "../feature/card.mjs";
import { cardOf, featureCalled, features, load, nameOf } from "./data.mjs";
import { search } from "./search.mjs";
import { bringToView, drawDictionaries, drawFeatures } from "./list.mjs";

const view = { dictionary: null, found: [], chosen: null };

function asked() {
  return {
    query: $("search").value,
    scope: $("scope").value,
    order: $("order").value,
    silent: $("silent").checked,
    dictionary: view.dictionary,
  };
}

function find() {
  view.found = search(asked());
  $("found-features").scrollTop = 0;
  $("counts").textContent =
    `${count(view.found.length, "feature")} of ${features.toLocaleString("en")}`;
  drawDictionaries(view.dictionary, chooseDictionary);
  drawList();
}

const drawList = () => drawFeatures(view.found, view.chosen, choose);

function chooseDictionary(name) {
  view.dictionary = name;
  find();
}

function choose(feature) {
  view.chosen = feature;
  const place = view.found.indexOf(feature);
  if (place !== -1) bringToView(place);
  drawList();
  $("card").replaceChildren(...sheet(cardOf(feature), (name) => choose(featureCalled(name))));
  $("card").scrollTop = 0;
  const hash = `#feature=${encodeURIComponent(nameOf(feature))}`;
  if (location.hash !== hash && location.protocol !== "about:")
    history.replaceState(null, "", hash);
}

function step(by) {
  if (!view.found.length) return;
  const at = view.found.indexOf(view.chosen);
  const next = at === -1 ? 0 : Math.max(0, Math.min(view.found.length - 1, at + by));
  choose(view.found[next]);
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const inList = event.target.matches("#search, #found-features") || event.target === document.body;
  const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 }[event.key];
  if (by && inList) {
    step(by);
    event.preventDefault();
  } else if (event.key === "/" && !event.target.matches("#search")) {
    $("search").focus();
    event.preventDefault();
  } else if (event.key === "Enter" && event.target.matches("#search")) step(0);
  else if (event.key === "Escape" && $("search").value) {
    $("search").value = "";
    find();
  }
}

function openFromHash() {
  const called = featureCalled(new URLSearchParams(location.hash.slice(1)).get("feature") ?? "");
  if (called !== null) choose(called);
  else $("card").replaceChildren(el("p", { class: "note" }, "Select a feature to see its card."));
}

async function start() {
  await load();
  for (const id of ["scope", "order", "silent"]) $(id).addEventListener("change", find);
  $("search").addEventListener("input", find);
  $("found-features").addEventListener("scroll", drawList, { passive: true });
  document.addEventListener("keydown", keys);
  window.addEventListener("hashchange", openFromHash);
  new ResizeObserver(drawList).observe($("found-features"));
  find();
  openFromHash();
}

/* `suite` is the handle that tests and notebooks use. */
window.suite = {
  ready: start(),
  card: (name) => cardOf(featureCalled(name)),
  found: () => view.found.map(nameOf),
};

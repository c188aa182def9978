/* The table of dictionaries, and the list of features, of which only the rows in view exist. */

import { $, el } from "../dom.mjs";
import { number, percent } from "../numbers.mjs";
import { sparkline } from "../histogram.mjs";
import { data, features, histogramOf, nameOf, record } from "./data.mjs";

const ROW = 46;
const SPARE = 6;
const FIGURES = [
  ["l0", "L0", (v) => v.toFixed(1), "features active on a token"],
  ["fvu", "FVU", (v) => v.toFixed(3), "fraction of variance unexplained"],
  ["dead", "dead", percent, "share of features that never fired"],
  ["loss_recovered", "loss rec.", (v) => v.toFixed(3), "share of the loss recovered"],
  ["kl", "KL", (v) => v.toFixed(3), "to the next-token distribution with it spliced in, nats"],
];

function dictionaryRow(dictionary, chosen, choose) {
  const name = dictionary?.name ?? null;
  const cells = FIGURES.map(([key, , write]) => {
    const value = dictionary?.quality[key];
    return el("td", {}, dictionary ? (value === undefined ? "–" : write(value)) : "");
  });
  return el(
    "tr",
    { "aria-selected": String(chosen === name), click: () => choose(name) },
    el("th", { scope: "row" }, el("button", { type: "button" }, name ?? "all")),
    el("td", {}, (dictionary?.features ?? features).toLocaleString("en")),
    cells,
  );
}

export function drawDictionaries(chosen, choose) {
  const head = FIGURES.map(([, label, , title]) => el("th", { scope: "col", title }, label));
  const rows = [null, ...record.dictionaries].map((d) => dictionaryRow(d, chosen, choose));
  $("dictionaries").replaceChildren(
    el(
      "table",
      { class: "plain", "aria-label": "Dictionaries" },
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          el("th", { scope: "col" }, "dictionary"),
          el("th", { scope: "col" }, "features"),
          head,
        ),
      ),
      el("tbody", {}, rows),
    ),
  );
}

function featureRow(feature, place, chosen, choose) {
  const active = data.largest[feature] > 0;
  return el(
    "div",
    {
      class: "row",
      role: "option",
      id: `feature-${feature}`,
      "aria-selected": String(feature === chosen),
      "aria-posinset": place + 1,
      style: { top: `${place * ROW}px` },
      click: () => choose(feature),
    },
    el("div", {}, el("bdi", {}, record.labels[feature]), sparkline(histogramOf(feature))),
    el(
      "div",
      { class: "soft" },
      el("span", { class: "mono" }, nameOf(feature)),
      el(
        "span",
        { class: "number" },
        active
          ? `${percent(data.density[feature])}, max ${number(data.largest[feature])}`
          : "never active",
      ),
    ),
  );
}

export function drawFeatures(found, chosen, choose) {
  const box = $("found-features");
  const first = Math.max(0, Math.floor(box.scrollTop / ROW) - SPARE);
  const last = Math.min(found.length, Math.ceil((box.scrollTop + box.clientHeight) / ROW) + SPARE);
  const rows = found
    .slice(first, last)
    .map((feature, i) => featureRow(feature, first + i, chosen, choose));
  const height = { style: { height: `${found.length * ROW}px` }, role: "presentation" };
  box.replaceChildren(
    ...(found.length
      ? [el("div", height), ...rows]
      : [el("div", { class: "empty" }, "No feature matches.")]),
  );
  // Only a row that is there may be named.
  if ($(`feature-${chosen}`)) box.setAttribute("aria-activedescendant", `feature-${chosen}`);
  else box.removeAttribute("aria-activedescendant");
}

/* Scroll so that the row at `place` is in view. */
export function bringToView(place) {
  const box = $("found-features");
  const top = place * ROW;
  if (top < box.scrollTop) box.scrollTop = top;
  else if (top + ROW > box.scrollTop + box.clientHeight)
    box.scrollTop = top + ROW - box.clientHeight;
}

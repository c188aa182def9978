/* The scores of every method beside each other, and the circuit's features to judge. */

import { $, el, read } from "../dom.mjs";
import { count, number } from "../numbers.mjs";
import { passages, scoredTokens } from "../feature/card.mjs";
import { intervalStrip } from "../interval_strip.mjs";

const record = read("data-record");
const COLUMNS = [
  ["label", record.label[0], "share of test texts whose class it says"],
  ["spurious", record.spurious[0], "share whose spurious class it says; 0.5 is chance"],
  ["worst", "worst group", "smallest share right of the four groups"],
];
const two = (value) => value.toFixed(2);
const GROUPS = [0, 1].flatMap((l) =>
  [0, 1].map((s) => `${record.label[1 + l]}, ${record.spurious[1 + s]}`),
);

function cell(score) {
  const ends = score.interval ? `${two(score.interval[0])} to ${two(score.interval[1])}` : "–";
  return el(
    "td",
    {},
    el("span", { class: "number" }, two(score.value)),
    intervalStrip(score, { width: 92, ticks: [0.5] }),
    el("span", { class: "number soft" }, ends),
  );
}

function scoreTable() {
  const rows = Object.entries(record.methods).map(([name, method]) =>
    el(
      "tr",
      { class: name.startsWith("SHIFT") ? "own" : null },
      el(
        "th",
        { scope: "row" },
        name,
        method.draws > 1 && el("span", { class: "soft" }, ` (${method.draws} draws)`),
      ),
      COLUMNS.map(([key]) => cell(method[key])),
      method.groups.map((group) => el("td", { class: "number" }, two(group.value))),
    ),
  );
  const head = el(
    "tr",
    {},
    el("th", { scope: "col" }, "method"),
    COLUMNS.map(([, title, tip]) => el("th", { scope: "col", title: tip }, title)),
    GROUPS.map((group) => el("th", { scope: "col", class: "group" }, group)),
  );
  return el("table", { class: "plain" }, el("thead", {}, head), el("tbody", {}, rows));
}

/* What has been judged here, over what the record says. */
const judged = new Map(record.features[0].map((f) => [f.node, { cut: f.cut, reason: f.reason }]));

function save() {
  const features = record.features[0]
    .map(({ node }) => ({ node, ...judged.get(node), by: "person" }))
    .filter((feature) => feature.cut !== null);
  const text = JSON.stringify({ schema: "judgements/1", features }, null, 1);
  const link = el("a", {
    href: URL.createObjectURL(new Blob([text], { type: "application/json" })),
    download: "judgements.json",
  });
  link.click();
  URL.revokeObjectURL(link.href);
}

function tally() {
  const cut = [...judged.values()].filter((j) => j.cut).length;
  $("tally").textContent = `${count(cut, "feature")} of ${judged.size} to be cut`;
}

function choice(node, value, title) {
  const box = el("input", {
    type: "radio",
    name: node,
    value: title,
    change: () => {
      judged.set(node, { ...judged.get(node), cut: value });
      tally();
    },
  });
  box.checked = judged.get(node).cut === value;
  return el("label", {}, box, ` ${title}`);
}

function effects({ label, spurious }) {
  const parts = [[`on ${record.label[0]}`, label]];
  if (spurious !== null) parts.push([`on ${record.spurious[0]}`, spurious]);
  return el(
    "dl",
    { class: "figures" },
    parts.map(([term, value]) =>
      el("div", {}, el("dt", {}, term), el("dd", { class: "number" }, number(value, true))),
    ),
  );
}

function feature(entry) {
  const card = record.cards[entry.node];
  const reason = el("input", {
    type: "text",
    "aria-label": `Reason, ${entry.node}`,
    placeholder: "reason",
    input: (event) =>
      judged.set(entry.node, { ...judged.get(entry.node), reason: event.target.value }),
  });
  reason.value = entry.reason;
  return el(
    "article",
    { "aria-label": entry.node },
    el("h3", {}, el("span", { class: "mono" }, entry.node)),
    effects(entry),
    el(
      "fieldset",
      {},
      el("legend", { class: "unseen" }, `Keep or cut ${entry.node}`),
      choice(entry.node, false, "keep"),
      choice(entry.node, true, "cut"),
      reason,
    ),
    card &&
      el(
        "details",
        {},
        el("summary", {}, card.promoted.slice(0, 5).map(([token]) => token.trim()).join("  ")),
        el(
          "div",
          { class: "two" },
          scoredTokens("Promotes", card.promoted),
          scoredTokens("Suppresses", card.suppressed),
        ),
        passages("Top examples", card.examples, card.max_activation || 1),
      ),
  );
}

$("scores").replaceChildren(
  el("h2", {}, "Where the two signals are independent"),
  scoreTable(),
  record.notes.map((note) => el("p", { class: "soft" }, note)),
);
$("judging").replaceChildren(
  el("h2", {}, "Features of the probe's circuit"),
  el(
    "p",
    { class: "bar" },
    el("output", { id: "tally", "aria-live": "polite" }),
    el("button", { type: "button", click: save }, "Save judgements"),
    el("span", { class: "soft" }, "then: circuits shift … --judgements judgements.json"),
  ),
  el("div", { class: "features" }, record.features[0].map(feature)),
);
tally();

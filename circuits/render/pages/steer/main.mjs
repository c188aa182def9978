/* A sweep: what does best, the heat map, the texts, the features. */

import { $, el } from "../dom.mjs";
import { intervalStrip } from "../interval_strip.mjs";
import { number, percent } from "../numbers.mjs";
import { cells, column, ends, fixed, note, record, right, table, title, word } from "../rerun/parts.mjs";
import { MEASURES, colourKey, heatMap, two } from "./map.mjs";
import { continuations } from "./written.mjs";

const told = (figure) => `${signed(figure.value)} ${ends(figure, signed)}`.trim();
const FEATURES = ["given", "output", "activation"];
const simple = record.methods.find((method) => method.group === record.baseline).name;
const signed = (value) => fixed(value, 2, true);

function methods() {
  const rows = record.methods.map((method) =>
    el(
      "tr",
      { class: FEATURES.includes(method.group) ? "own" : null },
      el("th", { scope: "row" }, method.name),
      el("td", {}, intervalStrip(method.score, { width: 120 })),
      cells(method.score, two),
      cells(method.difference ?? { value: null }, signed),
      cells(method.concept, two),
      cells(method.fluency, two),
      el("td", { class: "number" }, String(method.tried)),
      el(
        "td",
        { class: "mono" },
        method.chosen.map((one) => `${one.direction} ${number(one.strength)}`).join("; "),
      ),
    ),
  );
  const pair = (text) => column(text, { class: "right", colspan: 2 });
  const head = [
    column("method"),
    column("", { name: "both, drawn" }),
    pair("both"),
    pair("difference"),
    pair("concept"),
    pair("fluency"),
    column("tried", right),
    column("chosen"),
  ];
  return table("Table of methods", head, rows);
}

function features() {
  const rows = record.features.map((one) =>
    el(
      "tr",
      {},
      el("th", { scope: "row", class: "mono" }, one.feature),
      el("td", {}, el("bdi", {}, one.label)),
      el("td", {}, one.by.join(", ") || "named"),
      el("td", { class: "number" }, number(one.output_score)),
      el("td", { class: "number" }, fixed(one.input_score, 2)),
      el("td", { class: "number" }, fixed(one.effect, 2, true)),
      el("td", { class: "number" }, number(one.largest)),
      el("td", { class: "number" }, percent(one.density)),
      el(
        "td",
        { class: "words" },
        one.promoted.map((token) => [word(token), " "]),
      ),
    ),
  );
  const head = [
    column("feature"),
    column("known by"),
    column("chosen by"),
    column("output score", right),
    column("input score", right),
    column("effect", right),
    column("largest", right),
    column("tokens on", right),
    column("promotes"),
  ];
  return table("Table of features", head, rows);
}

const shown = { key: "score", cell: null };

function draw() {
  const buttons = Object.entries(MEASURES).map(([key, [name, , said]]) =>
    el(
      "button",
      {
        type: "button",
        title: said,
        "aria-pressed": String(shown.key === key),
        click: () => {
          shown.key = key;
          draw();
        },
      },
      name,
    ),
  );
  const choose = (cell) => {
    shown.cell = shown.cell === cell ? null : cell;
    draw();
  };
  $("map").replaceChildren(
    title("map", "Strengths and directions"),
    el("div", { class: "choice", role: "group", "aria-label": "Measure" }, buttons),
    colourKey(shown.key),
    heatMap(shown.key, shown.cell, choose),
    note(`${MEASURES[shown.key][0]}: ${MEASURES[shown.key][2]}. ${record.note}. A cell, pressed, shows its texts below.`),
  );
  $("written").replaceChildren(
    title("written", "What is written"),
    note(
      "As the model is, and by the methods that do best, each at the first strength that was ",
      "chosen; the number is the concept in that text.",
      record.instruction ? ` The instruction: ${record.instruction}` : "",
    ),
    ...continuations(shown.cell),
  );
}

$("best").replaceChildren(
  title("best", "What does best"),
  el("p", { class: "verdict" }, record.verdict),
  methods(),
  note(
    "Both: the harmonic mean of the share of what is asked for and of fluency. ",
    `${record.judged} Difference: from the best simple method, ${simple}, prompt by prompt.`,
    record.selection
      ? ` A feature by output score less one by activation: ${told(record.selection.difference)}.`
      : "",
  ),
);
$("features").replaceChildren(
  title("features", "Features"),
  features(),
  ...record.notes.map((text) => note(text)),
);
draw();

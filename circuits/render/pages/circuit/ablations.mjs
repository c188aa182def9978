/* The Ablations tab: what became of the metric, and of each prompt. */

import { el, svg } from "../dom.mjs";
import { count, linear, number, percent } from "../numbers.mjs";
import { payload } from "./state.mjs";
import { nodeLink, plainTable } from "./check.mjs";

/* Bars of the metric before, after, and under the controls, on one axis through zero. */
function bars(rows) {
  const values = rows
    .map((row) => row.value)
    .filter((value) => value !== null && value !== undefined);
  const low = Math.min(0, ...values),
    high = Math.max(0, ...values);
  const x = linear(low, high, 0, 100);
  return el(
    "table",
    { class: "plain bars" },
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        el("td"),
        el("th", { style: { width: "32%" } }, payload.units),
        el("td"),
        el("th", { class: "right" }, "accuracy"),
      ),
    ),
    el(
      "tbody",
      {},
      rows.map((row) =>
        el(
          "tr",
          {},
          el("td", {}, row.name),
          el(
            "td",
            {},
            svg(
              "svg",
              { width: "100%", height: 12, "aria-hidden": "true" },
              svg("rect", {
                x: `${Math.min(x(0), x(row.value ?? 0))}%`,
                y: 1,
                height: 10,
                width: `${Math.abs(x(row.value ?? 0) - x(0))}%`,
                style: { fill: `var(--${row.group})` },
              }),
              svg("line", {
                x1: `${x(0)}%`,
                x2: `${x(0)}%`,
                y1: 0,
                y2: 12,
                style: { stroke: "var(--mute)" },
              }),
            ),
          ),
          el("td", { class: "number" }, number(row.value, true)),
          el("td", { class: "number" }, percent(row.accuracy)),
        ),
      ),
    ),
  );
}

function featureLinks(names) {
  return el(
    "ul",
    { class: "nodes", "aria-label": "Ablated" },
    names.map((name) => el("li", {}, nodeLink(name))),
  );
}

/* To the page of the graph that an ablation leaves, where there is one. */
function leftLink(name) {
  const href = payload.links?.left?.[name];
  return href ? el("p", {}, el("a", { href }, "the graph that is left")) : [];
}

function promptTable(prompts) {
  const change = (row) => Math.abs((row.after ?? 0) - (row.before ?? 0));
  const sorted = [...prompts].sort((a, b) => change(b) - change(a));
  return plainTable(
    ["prompt", "right / wrong", "before", "after"],
    2,
    sorted.map((row) => [
      el("td", { dir: "auto" }, row.clean),
      el("td", { class: "token" }, `${row.answer ?? ""} /${row.wrong ?? ""}`),
      el("td", { class: "number" }, number(row.before, true)),
      el("td", { class: "number" }, number(row.after, true)),
    ]),
  );
}

function ablation([name, run], index) {
  const rows = [
    { name: "before", value: run.before, accuracy: run.accuracy_before, group: "neutral" },
    { name: "ablated", value: run.after, accuracy: run.accuracy_after, group: "opposes" },
    ...(run.controls ?? []).map((c) => ({
      name: c.name,
      value: c.after,
      accuracy: c.accuracy_after,
      group: "same",
    })),
  ];
  const named = run.kept ?? run.features ?? [];
  const ablated = run.kept
    ? `Everything but the graph's ${count(named.length, "node")}`
    : count(named.length, "feature");
  return el(
    "details",
    { open: index === 0 },
    el(
      "summary",
      {},
      name,
      el("span", { class: "soft" }, `${number(run.before, true)} → ${number(run.after, true)}`),
    ),
    el(
      "div",
      {},
      el(
        "p",
        { class: "note" },
        `${ablated} set to ${run.to ?? "zero"}; ` +
          "means over the prompts.",
      ),
      run.kept ? [] : featureLinks(named),
      leftLink(name),
      bars(rows),
      el("h3", {}, "Prompts, most changed first"),
      promptTable(run.prompts ?? []),
    ),
  );
}

export const ablationsPanel = () => [
  el("h2", { class: "unseen" }, "Ablations"),
  Object.entries(payload.ablations).map(ablation),
];

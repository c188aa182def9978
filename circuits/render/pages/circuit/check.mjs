/* The Check tab: is the circuit faithful, are the estimates right? */

import { el } from "../dom.mjs";
import { count, number, percent } from "../numbers.mjs";
import { byKey, nodes, payload } from "./state.mjs";
import { featureOf } from "./card.mjs";
import { lineChart, lineKeys, scatter } from "./charts.mjs";
import { goTo } from "./tabs.mjs";

const CURVES = [
  [
    "faithfulness",
    "Faithfulness",
    1,
    "How much of the metric so many nodes keep on their own: the strongest of the ranking, connected or not, and the controls. 1 is the whole model.",
  ],
  [
    "completeness",
    "Completeness",
    0,
    "How much the rest keeps once the strongest are ablated. 0 means they were all there is.",
  ],
];

const span = ([low, high], form = number) =>
  `${form(low).replace(/\s*%$/, "")} to ${form(high)}`;

/* A number, its 95 % interval small under it. */
const measured = (value, interval, form = number) => [
  form(value),
  interval ? el("small", {}, span(interval, form)) : "",
];

/* A table whose headings stand right from the column `right` on; `rows` are lists of cells. */
export function plainTable(headings, right, rows) {
  const heads = headings.map((name, i) =>
    el("th", { class: i >= right ? "right" : "", scope: "col" }, name),
  );
  return el(
    "table",
    { class: "plain" },
    el("thead", {}, el("tr", {}, heads)),
    el(
      "tbody",
      {},
      rows.map((cells) => el("tr", {}, cells)),
    ),
  );
}

/* A node that leads to its card, by label; by its key alone where the graph does not have it. */
export function nodeLink(key) {
  const node = byKey.get(key) ?? nodes.find((each) => featureOf(each) === key);
  if (!node) return el("span", { class: "mono" }, key);
  return el(
    "button",
    { type: "button", class: "node", title: key, click: () => goTo(node) },
    el("bdi", {}, node.name),
    el("span", { class: "where" }, key),
  );
}

/* The areas of all rows under one chart. */
function areas(found) {
  const rows = Object.entries(found ?? {});
  return rows.length
    ? plainTable(
        ["area, 95 %", "CPR", "CMD"],
        1,
        rows.map(([name, row]) => [
          el("td", {}, name),
          ["cpr", "cmd"].map((area) =>
            el("td", { class: "number" }, measured(row[area], row[`${area}_interval`])),
          ),
        ]),
      )
    : [];
}

/* `names` give each row the same line in every chart. */
function curves(record, names = Object.keys(record.rows ?? {})) {
  const sizes = record.sizes ?? [];
  if (!sizes.length) return [];
  return CURVES.map(([key, title, ideal, words]) => {
    const rows = Object.entries(record.rows ?? {})
      .map(([name, row]) => ({
        name,
        style: names.indexOf(name),
        values: row[key] ?? [],
        ...(key === "faithfulness"
          ? { low: row.low, high: row.high }
          : { low: row.completeness_low, high: row.completeness_high }),
      }))
      .filter(({ values }) => values.some((value) => value !== null));
    return rows.length
      ? [
          el("h3", {}, title),
          el("p", { class: "note" }, words),
          lineChart({ sizes, rows, title: title.toLowerCase(), ideal }),
          lineKeys(rows),
          key === "faithfulness" ? areas(record.areas) : [],
        ]
      : [];
  });
}

function agreement(rows, what) {
  const cells = (row) => [
    el("td", { class: "number" }, number(row.n)),
    ["spearman", "slope"].map((key) =>
      el("td", { class: "number" }, measured(row[key], row.intervals?.[key])),
    ),
  ];
  return plainTable(
    [...what, "Spearman", "slope", "same sign"],
    1,
    rows.map(([name, row]) => [
      el("td", { class: "mono" }, name),
      cells(row),
      el(
        "td",
        { class: "number" },
        measured(row.sign_agreement, row.intervals?.sign_agreement, percent),
      ),
    ]),
  );
}

/* A replacement graph's predictions against interventions: by how much freezing matters. */
function modes(record) {
  if (!record.node_modes) return [];
  const rows = (of) => of.map((row) => [`${row.attention}, ${row.mlps}`, row]);
  return [
    el("h3", {}, "How much freezing matters"),
    el(
      "p",
      { class: "note" },
      "The graph holds attention and norms (frozen), and its features respond one to one (linear). " +
        "Its predictions stand against interventions where this much is held: nodes are set to the " +
        "reference, edges lose their source.",
    ),
    agreement(rows(record.node_modes), ["attention, MLPs", "nodes"]),
    agreement(rows(record.edge_modes), ["attention, MLPs", "edges"]),
  ];
}

/* Nodes that matter and are not in the graph: the estimate missed them, or no path kept them. */
function missed(pool) {
  const rows = pool?.missed ?? [];
  return pool
    ? [
        el(
          "p",
          { class: "note" },
          `Chosen otherwise: ${count(pool.n, "node")} that ${payload.verification.estimator} did ` +
            "not choose, the strongest by a gradient at the clean run and along the path to the " +
            "reference, and others at random.",
        ),
        rows.length
          ? [
              el("h3", {}, "Strong but not in the graph"),
              plainTable(
                ["node", "left out by", "estimate", "exact"],
                2,
                rows.slice(0, 10).map((row) => [
                  el("td", {}, nodeLink(row.id)),
                  el("td", {}, row.by === "estimate" ? "its estimate" : "the rule for nodes"),
                  [row.estimate, row.exact].map((value) =>
                    el("td", { class: "number" }, number(value)),
                  ),
                ]),
              ),
            ]
          : [],
      ]
    : [];
}

/* What the circuit loses without each node, most first. */
function eachAdds(record) {
  const rows = [...(record?.nodes ?? [])].sort((a, b) => b.adds - a.adds).slice(0, 10);
  return rows.length
    ? [
        el("h3", {}, "What each node adds"),
        el(
          "p",
          { class: "note" },
          `Faithfulness that the graph as it stands, its ${count(record.circuit, "node")} connected (${number(record.faithfulness)}` +
            `${record.interval ? `, 95 % ${span(record.interval)}` : ""}) lose without one of them.`,
        ),
        el(
          "table",
          { class: "plain" },
          el(
            "tbody",
            {},
            rows.map(({ id, adds, interval }) =>
              el(
                "tr",
                {},
                el("td", {}, nodeLink(id)),
                el("td", { class: "number" }, measured(adds, interval)),
              ),
            ),
          ),
        ),
      ]
    : [];
}

export function checkPanel() {
  const record = payload.verification;
  const found = record.nodes ?? {};
  const edges = Object.entries(record.edges ?? {}).filter(([name]) => name !== "points");
  const curve = record.curves ?? {};
  const tiles = [
    ["Spearman", found.spearman, number, found.intervals?.spearman],
    ["slope", found.slope, number, found.intervals?.slope],
    ["same sign", found.sign_agreement, percent, found.intervals?.sign_agreement],
  ];
  return [
    el("h2", {}, "Are the estimates right?"),
    el(
      "p",
      { class: "note" },
      `Estimator ${record.estimator ?? ""} against exact ablation of ${count(found.n, "node")} ` +
        `(tokens apart) on ${count(found.n_prompts, "prompt")}. On the dotted line the two agree. ` +
        "Small: 95 % intervals over prompts.",
    ),
    el(
      "dl",
      { class: "figures" },
      tiles.map(([term, value, form, interval]) =>
        el("div", {}, el("dt", {}, term), el("dd", {}, measured(value, interval, form))),
      ),
    ),
    el("h3", {}, "Estimate against exact"),
    scatter(found.points ?? []),
    el("h3", {}, "By site"),
    agreement(
      [
        ["all sites", found],
        ...Object.entries(found.by_site ?? {}),
        ...(found.tokens?.n ? [["tokens, apart", found.tokens]] : []),
        ...(record.pool ? [["chosen otherwise", record.pool]] : []),
      ],
      ["site", "nodes"],
    ),
    missed(record.pool),
    edges.length
      ? [
          el(
            "h3",
            {},
            record.edge_modes ? "Edges, other MLPs frozen" : "Edges against path patching",
          ),
          agreement(edges, ["edges", "number"]),
        ]
      : [],
    modes(record),
    el("h2", { style: { marginTop: "26px" } }, "Is the circuit enough?"),
    el(
      "p",
      { class: "note" },
      `Ablated nodes take their ${curve.baseline ?? "baseline"} value. ` +
        `Metric of the whole model ${number(curve.full)}, ` +
        `with everything ablated ${number(curve.empty)}.`,
    ),
    curves(curve),
    record.held_out
      ? [
          el("h2", { style: { marginTop: "26px" } }, "On prompts it was not found on"),
          curves(record.held_out, Object.keys(curve.rows ?? {})),
        ]
      : [],
    eachAdds(record.each_adds),
  ];
}

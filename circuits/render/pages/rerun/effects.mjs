/* Side effects as a forest: the edit and each control on one scale, whiskers their intervals. */

import { el, svg } from "../dom.mjs";
import { count, percent } from "../numbers.mjs";
import {
  axis, cells, column, fixed, narrow, note, plot, right, scaleOf, table, title,
} from "./parts.mjs";

const EDIT = "the edit";
const MARKS = [
  (x, y) => svg("circle", { cx: x, cy: y, r: 4 }),
  (x, y) => svg("path", { d: `M${x} ${y - 4}l4 4-4 4-4-4Z` }),
  (x, y) => svg("rect", { x: x - 3.1, y: y - 3.1, width: 6.2, height: 6.2 }),
  (x, y) => svg("path", { d: `M${x} ${y - 3.8}l4 6.8h-8Z` }),
  (x, y) => svg("path", { d: `M${x - 3.2} ${y - 3.2}l6.4 6.4m0-6.4l-6.4 6.4`, class: "cross" }),
];
const LINE = 13;

const mark = (i, x, y) => svg("g", { class: `mark mark-${i % MARKS.length}` }, MARKS[i % MARKS.length](x, y));

function whisker(i, figure, scale, y) {
  if (figure.value === null) return null;
  const [low, high] = figure.interval ?? [figure.value, figure.value];
  return [
    svg("line", {
      class: `whisker mark-${i % MARKS.length}`,
      x1: scale.x(low),
      x2: scale.x(high),
      y1: y,
      y2: y,
    }),
    mark(i, scale.x(figure.value), y),
  ];
}

function legend(names) {
  return el(
    "div",
    { class: "keys" },
    names.map((name, i) =>
      el(
        "span",
        {},
        svg("svg", { width: 14, height: 14, class: "plot", "aria-hidden": "true" }, mark(i, 7, 7)),
        name,
      ),
    ),
  );
}

const reach = (figure) => [figure.value, ...(figure.interval ?? [])].filter((v) => v !== null);

/* One row: the edit's share and below it each control's. */
function forestRow(row, kinds, scale) {
  const all = [row.share, ...kinds.map((kind) => row.controls[kind].share)];
  const height = LINE * all.length + 8;
  return plot(
    scale,
    height,
    all.map((figure, i) => whisker(i, figure, scale, 4 + LINE * (i + 0.5))),
  );
}

function behaviourRow(row, kinds, scale) {
  const two = (value) => fixed(value, 2, true);
  const known = row.share.value !== null;
  return el(
    "tr",
    { class: "behaviour" },
    el(
      "th",
      { scope: "row" },
      el("bdi", {}, row.name),
      el(
        "div",
        { class: "soft" },
        `${count(row.n, "pair")}, right `,
        `${percent(row.accuracy_before.value)} → ${percent(row.accuracy_after.value)}`,
      ),
    ),
    el(
      "td",
      {},
      known
        ? forestRow(row, kinds, scale)
        : el("span", { class: "soft" }, "the model does not tell clean from patch here"),
    ),
    cells(row.share, two),
    el("td", { class: "number" }, fixed(row.kl.value, 3)),
  );
}

function behaviours(found, kinds) {
  const values = found.behaviours.flatMap((row) =>
    [row.share, ...kinds.map((kind) => row.controls[kind].share)].flatMap(reach),
  );
  const scale = scaleOf(values, narrow.matches ? 260 : 520);
  return table(
    "Behaviours that change, beside controls",
    [
      column("behaviour"),
      column(axis(scale), { name: "share" }),
      column("share", right),
      column("95 %"),
      column("KL", right),
    ],
    found.behaviours.map((row) => behaviourRow(row, kinds, scale)),
    [column(""), el("td", {}, axis(scale)), column(""), column(""), column("")],
  );
}

/* What a text costs by one measure: the edit, each control, and the edit less each control. */
function costs(text, kinds, name, told, what) {
  const rows = [[EDIT, text], ...kinds.map((kind) => [kind, text.controls[kind]])];
  const scale = scaleOf(rows.flatMap(([, figures]) => reach(figures[name])), narrow.matches ? 200 : 400);
  const signed = (value) => fixed(value, 3, true);
  const less = name === "kl";
  return table(
    what,
    [
      column(""),
      column(axis(scale), { name: what }),
      column(what, right),
      column("95 %"),
      less && [column("edit less it", right), column("95 %")],
    ].flat(),
    rows.map(([kind, figures], i) =>
      el(
        "tr",
        {},
        el("th", { scope: "row" }, kind),
        el("td", {}, plot(scale, 20, whisker(i, figures[name], scale, 10))),
        cells(figures[name], told),
        less && (figures.beyond ? cells(figures.beyond, signed) : [el("td"), el("td")]),
      ),
    ),
  );
}

/* Every number behind the forest. */
function everyNumber(found, kinds) {
  const two = (value) => fixed(value, 2, true);
  const rows = found.behaviours.flatMap((row) =>
    kinds.map((kind, i) => {
      const control = row.controls[kind];
      return el(
        "tr",
        {},
        i === 0 && el("th", { scope: "rowgroup", rowspan: kinds.length }, el("bdi", {}, row.name)),
        el("td", {}, kind),
        cells(control.share, two),
        el("td", { class: "number soft" }, control.draws.map((d) => fixed(d, 2, true)).join("  ")),
        cells(control.beyond, two),
        el("td", { class: "number" }, fixed(control.kl.value, 3)),
      );
    }),
  );
  return el(
    "details",
    {},
    el("summary", {}, "Every control in numbers"),
    table(
      "Every control in numbers",
      [
        column("behaviour"),
        column("control"),
        column("share", right),
        column("95 %"),
        column("each draw", right),
        column("edit less it", right),
        column("95 %"),
        column("KL", right),
      ],
      rows,
    ),
  );
}

export function effectsPart(found) {
  const kinds = Object.keys(found.text.controls);
  const left = Object.entries(found.left_out ?? {});
  return [
    title("side_effects", "Side effects"),
    note(
      "Change of the logit difference as a share of what swapping clean for patch does: at −1 as ",
      "much as swapping, at 0 nothing. Behaviours that the edit changes most come first. Controls do ",
      `as much at the same sites; each stands at the mean of ${count(found.draws, "draw")}. `,
      "Whiskers are 95 % intervals over pairs.",
    ),
    legend([EDIT, ...kinds]),
    behaviours(found, kinds),
    everyNumber(found, kinds),
    el("h3", {}, `Other text, ${count(found.text.tokens, "token")}: what prediction costs, in nats a token`),
    costs(found.text, kinds, "kl", (value) => fixed(value, 3), "KL"),
    costs(found.text, kinds, "change", (value) => fixed(value, 3, true), "cross-entropy, change"),
    left.length > 0 && [
      el("h3", {}, "Left out"),
      el("ul", { class: "left-out" }, left.map(([name, why]) => el("li", {}, `${name}: ${why}`))),
    ],
  ];
}

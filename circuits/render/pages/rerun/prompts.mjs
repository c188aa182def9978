/* Prompts before and after: a hollow dot where the metric was, a full one where it is. */

import { el, svg } from "../dom.mjs";
import { number, percent } from "../numbers.mjs";
import {
  axis, column, ends, figures, fixed, narrow, note, plot, right, scaleOf, table, title, turned,
} from "./parts.mjs";
import { drawPart } from "./main.mjs";

const SHOWN = 24;
const sortings = { "as in the file": null, "by change": (row) => -Math.abs(row.after - row.before) };
const prompts = { all: false, by: "as in the file" };

function moved(row, scale) {
  const from = scale.x(row.before);
  const to = scale.x(row.after);
  const ahead = Math.sign(to - from);
  return plot(
    scale,
    22,
    svg("line", { class: "way", x1: from + 4 * ahead, x2: to, y1: 11, y2: 11 }),
    svg("circle", { class: "was", cx: from, cy: 11, r: 4 }),
    svg("circle", { class: "is", cx: to, cy: 11, r: 4 }),
  );
}

function promptRow(row, scale) {
  return el(
    "tr",
    { class: row.preferred_before === row.preferred_after ? null : "flips" },
    el("th", { scope: "row" }, el("bdi", {}, row.clean)),
    el("td", {}, moved(row, scale)),
    el("td", { class: "number" }, fixed(row.before, 2, true)),
    el("td", { class: "number" }, fixed(row.after, 2, true)),
    el("td", { class: "number" }, fixed(row.after - row.before, 2, true)),
    el("td", {}, turned(row.preferred_before, row.preferred_after)),
    el("td", {}, turned(row.likeliest_before, row.likeliest_after)),
    el("td", { class: "number" }, fixed(row.kl, 2)),
  );
}

export function promptsPart(found) {
  const scale = scaleOf(
    found.prompts.flatMap((row) => [row.before, row.after]),
    narrow.matches ? 130 : 260,
  );
  const by = sortings[prompts.by];
  const sorted = by ? [...found.prompts].sort((a, b) => by(a) - by(b)) : found.prompts;
  const rows = prompts.all ? sorted : sorted.slice(0, SHOWN);
  const differs = found.prompts.filter((row) => row.preferred_before !== row.preferred_after);
  const redraw = (change) => () => {
    Object.assign(prompts, change);
    drawPart("prompts");
  };
  const ordered = el(
    "span",
    { role: "group", "aria-label": "Order of the prompts", class: "choice" },
    Object.keys(sortings).map((name) =>
      el(
        "button",
        { type: "button", "aria-pressed": String(prompts.by === name), click: redraw({ by: name }) },
        name,
      ),
    ),
  );
  const two = (value) => fixed(value, 2, true);
  return [
    title("prompts", "Prompts"),
    figures([
      ["prompts", number(found.n)],
      [`${found.metric}, before`, two(found.before.value), ends(found.before, two)],
      ["after", two(found.after.value), ends(found.after, two)],
      ["change", two(found.change.value), ends(found.change, two)],
      [
        "right answer preferred",
        `${percent(found.accuracy_before.value)} → ${percent(found.accuracy_after.value)}`,
        ends(found.accuracy_after, percent),
      ],
      ["KL of the next token, nats", fixed(found.kl.value, 3), ends(found.kl, (v) => fixed(v, 3))],
    ]),
    el(
      "div",
      { class: "bar" },
      el("span", { class: "keys" }, key("was", "before"), key("is", "after")),
      ordered,
      el("span", { class: "soft" }, `the preferred answer changes in ${differs.length} of ${found.n}`),
    ),
    table(
      "Prompts before and after",
      [
        column("prompt"),
        column(axis(scale), { name: found.metric }),
        column("before", right),
        column("after", right),
        column("change", right),
        column("prefers", { class: "words" }),
        column("likeliest", { class: "words" }),
        column("KL", right),
      ],
      rows.map((row) => promptRow(row, scale)),
    ),
    sorted.length > rows.length &&
      el(
        "button",
        { type: "button", class: "more", click: redraw({ all: true }) },
        `show all ${sorted.length} prompts`,
      ),
    note(
      "Intervals are 95 %, by drawing prompts again. ",
      found.metric === "logit-difference" &&
        "Right of the line at 0 the right answer has the larger logit.",
    ),
  ];
}

function key(name, text) {
  const dot = svg("circle", { class: name, cx: 6, cy: 6, r: 4 });
  return el("span", {}, svg("svg", { width: 12, height: 12, "aria-hidden": "true" }, dot), text);
}

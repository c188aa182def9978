/* A text before and after: what prediction costs, and the tokens that moved most. */

import { el, svg } from "../dom.mjs";
import { linear, number, percent } from "../numbers.mjs";
import {
  column, ends, figures, fixed, note, right, table, title, turned, word,
} from "./parts.mjs";

/* Probability before and after on a line from 0 to 1. */
export function probabilities(before, after) {
  const x = linear(0, 1, 5, 75);
  return svg(
    "svg",
    { class: "plot", width: 80, height: 16, "aria-hidden": "true" },
    svg("line", { class: "rail", x1: x(0), x2: x(1), y1: 8, y2: 8 }),
    svg("line", { class: "way", x1: x(before), x2: x(after), y1: 8, y2: 8 }),
    svg("circle", { class: "was", cx: x(before), cy: 8, r: 3.5 }),
    svg("circle", { class: "is", cx: x(after), cy: 8, r: 3.5 }),
  );
}

export function textPart(found) {
  const three = (value) => fixed(value, 3);
  const four = (value) => fixed(value, 4, true);
  const rows = found.most.map((row) =>
    el(
      "tr",
      {},
      el("td", { class: "passage-cell" }, el("bdi", { class: "token" }, row.before)),
      el("td", {}, el("strong", {}, word(row.token))),
      el("td", {}, probabilities(row.p_before, row.p_after)),
      el("td", { class: "number" }, fixed(row.p_before, 3)),
      el("td", { class: "number" }, fixed(row.p_after, 3)),
      el("td", { class: "number" }, fixed(row.kl, 2)),
      el("td", {}, turned(row.likeliest_before, row.likeliest_after)),
    ),
  );
  return [
    title("text", "Text"),
    figures([
      ["tokens", number(found.tokens)],
      ["cross-entropy, nats, before", three(found.ce_before.value), ends(found.ce_before, three)],
      ["after", three(found.ce_after.value), ends(found.ce_after, three)],
      ["change", four(found.change.value), ends(found.change, four)],
      ["KL a token", fixed(found.kl.value, 4), ends(found.kl, (v) => fixed(v, 4))],
      ["likeliest token stays", percent(found.same.value), ends(found.same, percent)],
    ]),
    el("h3", {}, "Tokens whose prediction changes most"),
    table(
      "Tokens whose prediction changes most",
      [
        column("what stands before", { class: "right" }),
        column("next token"),
        column("its probability"),
        column("before", right),
        column("after", right),
        column("KL", right),
        column("likeliest", { class: "words" }),
      ],
      rows,
    ),
    note("Intervals are 95 %, by drawing blocks of 128 tokens again."),
  ];
}

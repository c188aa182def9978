/* What the parts of the page share: numbers with intervals, scales, and marks on them. */

import { el, read, svg } from "../dom.mjs";
import { linear, number, ticks } from "../numbers.mjs";

export const record = read("data-record");
export const narrow = matchMedia("(max-width: 1000px)");

/* As many decimals as asked for, a true minus sign. */
export function fixed(value, digits = 2, signed = false) {
  if (value === null || value === undefined) return "–";
  const text = Math.abs(value).toFixed(digits);
  const zero = Number(text) === 0;
  return (zero ? "" : value < 0 ? "−" : signed ? "+" : "") + text;
}

export function ends(figure, told) {
  return figure.interval ? `[${told(figure.interval[0])}, ${told(figure.interval[1])}]` : "";
}

/* A number in one cell and its interval in the next, so that both stand in columns. */
export function cells(figure, told) {
  return [
    el("td", { class: "number" }, figure.value === null ? "–" : told(figure.value)),
    el("td", { class: "number soft ends" }, figure.value === null ? "" : ends(figure, told)),
  ];
}

/* Figures beside each other: a term, what it was, what it is, and the change with its interval. */
export function figures(rows) {
  return el(
    "dl",
    { class: "figures" },
    rows.map(([term, value, soft]) =>
      el(
        "div",
        {},
        el("dt", {}, term),
        el("dd", {}, value, soft && el("small", {}, soft)),
      ),
    ),
  );
}

export const title = (id, text) => el("h2", { id: `${id}-title` }, text);
export const note = (...text) => el("p", { class: "note" }, ...text);
export const word = (text) => el("span", { class: "token", dir: "auto" }, text);

/* One token, or two with an arrow where the edit changes it. */
export function turned(before, after) {
  if (before === after) return word(before);
  return el("span", { class: "turned" }, word(before), " → ", word(after));
}

/* A scale for values that all stand on it, zero too, with room at both ends. */
export function scaleOf(values, width) {
  const low = Math.min(0, ...values);
  const high = Math.max(0, ...values);
  const room = 0.04 * (high - low || 1);
  const x = linear(low - room, high + room, 8, width - 8);
  return { x, width, marks: ticks(low - room, high + room, width < 200 ? 3 : 5) };
}

/* What lies behind a row: a line at each tick, a stronger one at zero. */
function rails({ x, marks }, height) {
  return marks.map((at) =>
    svg("line", { class: at === 0 ? "zero" : "rail", x1: x(at), x2: x(at), y1: 0, y2: height }),
  );
}

export function plot(scale, height, ...marks) {
  return svg(
    "svg",
    { class: "plot", width: scale.width, height, "aria-hidden": "true" },
    rails(scale, height),
    marks,
  );
}

/* The numbers of a scale; they stand over the rows and under them. */
export function axis({ x, width, marks }) {
  const told = marks.map((at) =>
    svg("text", { x: x(at), y: 11, "text-anchor": "middle" }, number(at)),
  );
  return svg("svg", { class: "plot axis", width, height: 14, "aria-hidden": "true" }, told);
}

export function table(name, head, rows, foot = null) {
  return el(
    "div",
    { class: "scrolls", tabindex: "0", role: "region", "aria-label": name },
    el(
      "table",
      { class: "plain", "aria-label": name },
      el("thead", {}, el("tr", {}, head)),
      el("tbody", {}, rows),
      foot && el("tfoot", {}, el("tr", {}, foot)),
    ),
  );
}

/* A heading; what is only drawn has a `name` that is read out. One without text is no heading. */
export const column = (content, { name = null, ...attributes } = {}) =>
  content || name
    ? el(
        "th",
        { scope: "col", ...attributes },
        name && el("span", { class: "unseen" }, name),
        content,
      )
    : el("td", attributes);
export const right = { class: "right" };

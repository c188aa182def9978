/* How often which activation of a feature comes, as a figure on cards and as a picture in rows. */

import { el, svg } from "./dom.mjs";
import { count, number } from "./numbers.mjs";
import { barsOf, outline, stepOf, valueAt } from "./bars.mjs";

/* A bar for each step of the scale, which doubles every few; a line at the activation `here`. */
export function histogram(record, here = null) {
  if (!record?.counts.length) return null;
  const room = { width: 320, height: 54 };
  const all = record.counts.length;
  const at = here > 0 ? (stepOf(record, here) * room.width) / all : null;
  const value = (step) => number(valueAt(record, step));
  const bars = barsOf(record, room).map((bar, i) =>
    svg("rect", bar, svg("title", {}, `${value(i)} to ${value(i + 1)}: ${count(record.counts[i], "token")}`)),
  );
  const x = at === null ? null : Math.min(room.width - 1, Math.max(1, at));
  const tokens = count(record.counts.reduce((a, b) => a + b, 0), "token");
  return el(
    "figure",
    { class: "histogram" },
    svg(
      "svg",
      {
        viewBox: `0 -6 ${room.width} ${room.height + 7}`,
        role: "img",
        "aria-label":
          `Activations from ${value(0)} to ${value(all)} on ${tokens}` +
          (at === null ? "" : `; here ${number(here)}`),
      },
      bars,
      svg("line", { x1: 0, x2: room.width, y1: room.height, y2: room.height, class: "base" }),
      x !== null && svg("line", { x1: x, x2: x, y1: -6, y2: room.height, class: "here" }),
    ),
    el("figcaption", { class: "soft number" }, [0, all / 2, all].map((step) => el("span", {}, value(step)))),
    el("div", { class: "soft" }, "tokens by activation, on a logarithmic scale"),
  );
}

/* The same in a row of a list: its shape, without numbers. */
export function sparkline(record) {
  if (!record) return null;
  const room = { width: 64, height: 14 };
  return svg(
    "svg",
    { class: "spark", viewBox: `0 0 ${room.width} ${room.height}`, "aria-hidden": "true" },
    svg("path", { d: outline(record, room) }),
  );
}

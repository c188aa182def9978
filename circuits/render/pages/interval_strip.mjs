/* A number with its interval as a picture beside it. */

import { svg } from "./dom.mjs";

/* A dot with its interval on a line between the values `from` and `to`, a mark at each of `ticks`. */
export function intervalStrip(
  { value, interval },
  { width, height = 18, from = 0, to = 1, ticks = [] },
) {
  const [pad, middle] = [5, height / 2];
  const share = (v) => Math.min(1, Math.max(0, (v - from) / (to - from)));
  const x = (v) => pad + share(v) * (width - 2 * pad);
  const line = (className, x1, x2, y1 = middle, y2 = middle) =>
    svg("line", { class: className, x1, x2, y1, y2 });
  return svg(
    "svg",
    { width, height, "aria-hidden": "true", class: "strip" },
    line("rail", x(from), x(to)),
    ticks.map((tick) => line("rail", x(tick), x(tick), 3, height - 3)),
    interval && line("whisker", x(interval[0]), x(interval[1])),
    svg("circle", { cx: x(value), cy: middle, r: height / 5 }),
  );
}

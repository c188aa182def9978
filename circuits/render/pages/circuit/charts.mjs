/* Line charts and scatters as inline SVG. */

import { el, svg, swatch } from "../dom.mjs";
import { count, linear, number, ticks } from "../numbers.mjs";
import { byKey, scene } from "./state.mjs";
import { goTo } from "./tabs.mjs";

const CHART = { width: 420, height: 230, left: 40, right: 10, top: 10, bottom: 34 };
const OUTSIDE = [-0.6, 1.6];
const LINES = [
  ["var(--supports)", ""],
  ["var(--opposes)", "7 3"],
  ["var(--neutral)", "2 3"],
  ["var(--only-a)", "9 3 2 3"],
  ["var(--only-b)", "4 2"],
  ["var(--changed)", "1 3"],
  ["var(--ink)", "10 2 1 2"],
  ["color-mix(in srgb, var(--supports) 55%, var(--paper))", "3 2"],
  ["color-mix(in srgb, var(--only-b) 50%, var(--ink))", "12 4"],
  ["color-mix(in srgb, var(--opposes) 50%, var(--ink))", "5 1 1 1"],
  ["color-mix(in srgb, var(--only-a) 55%, var(--paper))", "6 2 1 2 1 2"],
  ["color-mix(in srgb, var(--changed) 55%, var(--ink))", "14 2"],
  ["color-mix(in srgb, var(--supports) 50%, var(--only-a))", "2 1"],
  ["color-mix(in srgb, var(--neutral) 50%, var(--ink))", "8 6"],
];

/* Frame, grid, tick labels and axis titles; returns the elements. */
function frame({ x, y, xTicks, yTicks, xTitle, yTitle, box = CHART }) {
  const bottom = box.height - box.bottom;
  const parts = [];
  for (const value of yTicks) {
    parts.push(
      svg("line", {
        class: "grid",
        x1: box.left,
        x2: box.width - box.right,
        y1: y(value),
        y2: y(value),
      }),
      svg("text", { x: box.left - 6, y: y(value) + 3.5, "text-anchor": "end" }, number(value)),
    );
  }
  for (const value of xTicks) {
    parts.push(
      svg("text", { x: x(value), y: bottom + 14, "text-anchor": "middle" }, number(value)),
    );
  }
  parts.push(
    svg("line", {
      class: "frame",
      x1: box.left,
      x2: box.width - box.right,
      y1: bottom,
      y2: bottom,
    }),
    svg(
      "text",
      { x: (box.left + box.width - box.right) / 2, y: box.height - 4, "text-anchor": "middle" },
      xTitle,
    ),
    svg(
      "text",
      { transform: `translate(11 ${(box.top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" },
      yTitle,
    ),
  );
  return parts;
}

/* Lines over circuit size. `rows` are {name, style, values, low, high}: `style` picks colour and
   dash, null values break a line. Values far off the scale of 0 to 1 leave the chart, so that they
   do not flatten the rest. */
export function lineChart({ sizes, rows, title, ideal }) {
  const all = rows.flatMap((row) => row.values).filter((value) => value !== null);
  const low = Math.max(OUTSIDE[0], Math.min(0, ...all) - 0.05),
    high = Math.min(OUTSIDE[1], Math.max(1, ...all) + 0.05);
  const bottom = CHART.height - CHART.bottom;
  const y = linear(low, high, bottom, CHART.top);
  const scale = (s) => Math.log10(Math.max(s, 0.5));
  const across = linear(
    scale(sizes[0]),
    scale(sizes.at(-1)),
    CHART.left + 8,
    CHART.width - CHART.right - 8,
  );
  const x = (value) => across(scale(value));
  const path = (values) => {
    const point = (value, i) => `${x(sizes[i]).toFixed(1)} ${y(value).toFixed(1)}`;
    const pen = (i) => (i && values[i - 1] !== null ? "L" : "M");
    return values.map((value, i) => (value === null ? "" : pen(i) + point(value, i))).join("");
  };
  const area = (row) => {
    const known = sizes
      .map((s, i) => [s, row.low?.[i], row.high?.[i]])
      .filter(([, a, b]) => a !== null && a !== undefined && b !== null && b !== undefined);
    const line = (end) => known.map((k) => `${x(k[0]).toFixed(1)} ${y(k[end]).toFixed(1)}`);
    return known.length > 1 ? `M${line(2).join("L")}L${line(1).reverse().join("L")}Z` : "";
  };
  const spaced = [];
  sizes.forEach((s) => {
    if (!spaced.length || x(s) - x(spaced.at(-1)) > 30) spaced.push(s);
  });
  const drawn = rows.map((row) => {
    const i = row.style;
    const [stroke, dash] = LINES[i % LINES.length];
    return [
      svg("path", { d: area(row), style: { fill: stroke, opacity: 0.13 } }),
      svg("path", {
        d: path(row.values),
        fill: "none",
        "stroke-width": i ? 1.6 : 2.2,
        "stroke-dasharray": dash,
        style: { stroke },
      }),
      row.values.map(
        (value, k) =>
          value !== null &&
          value !== undefined &&
          svg(
            "circle",
            { cx: x(sizes[k]), cy: y(value), r: i ? 2 : 2.6, style: { fill: stroke } },
            svg("title", {}, `${row.name}, ${count(sizes[k], "node")}: ${number(value)}`),
          ),
      ),
    ];
  });
  return svg(
    "svg",
    {
      class: "chart",
      viewBox: `0 0 ${CHART.width} ${CHART.height}`,
      role: "img",
      "aria-label": `${title} over circuit size`,
    },
    frame({
      x,
      y,
      xTicks: spaced,
      yTicks: ticks(low, high),
      xTitle: "nodes in the circuit",
      yTitle: title,
    }),
    svg("line", {
      class: "ideal",
      x1: CHART.left,
      x2: CHART.width - CHART.right,
      y1: y(ideal),
      y2: y(ideal),
    }),
    svg(
      "svg",
      {
        x: 0,
        y: CHART.top - 4,
        width: CHART.width,
        height: bottom - CHART.top + 4,
        viewBox: `0 ${CHART.top - 4} ${CHART.width} ${bottom - CHART.top + 4}`,
      },
      drawn,
    ),
  );
}

export function lineKeys(rows) {
  return el(
    "div",
    { class: "keys" },
    rows.map((row) => {
      const [stroke, dash] = LINES[row.style % LINES.length];
      return el("span", {}, swatch(stroke, dash), row.name);
    }),
  );
}

/* Estimate against exact; a point that is drawn selects its node. */
export function scatter(points) {
  const known = points.filter((p) => p.estimate !== null && p.exact !== null);
  const extent = known.flatMap((p) => [p.estimate, p.exact]);
  const low = Math.min(0, ...extent),
    high = Math.max(0, ...extent);
  const room = (high - low) * 0.06 || 1;
  const box = { ...CHART, height: 330, width: 360, left: 46 };
  const x = linear(low - room, high + room, box.left, box.width - box.right);
  const y = linear(low - room, high + room, box.height - box.bottom, box.top);
  const dots = known.map((point) => {
    const node = byKey.get(point.id);
    const group = point.exact < 0 ? "opposes" : "supports";
    return svg(
      "circle",
      {
        cx: x(point.estimate),
        cy: y(point.exact),
        r: 3.2,
        "fill-opacity": 0.55,
        "stroke-width": 0.8,
        style: {
          fill: `var(--${group})`,
          stroke: `var(--${group})`,
          cursor: node ? "pointer" : "",
          opacity: !node || scene.shown.has(node.id) ? 1 : 0.08,
        },
        click: () => {
          if (node) goTo(node);
        },
      },
      svg(
        "title",
        {},
        `${node?.name ?? ""} ${point.id}\nestimate ${number(point.estimate, true)}, exact ${number(
          point.exact,
          true,
        )}`,
      ),
    );
  });
  const marks = ticks(low - room, high + room, 4);
  return svg(
    "svg",
    {
      class: "chart",
      viewBox: `0 0 ${box.width} ${box.height}`,
      role: "img",
      "aria-label": "Estimated against exact support of every verified node",
    },
    frame({
      x,
      y,
      xTicks: marks,
      yTicks: marks,
      xTitle: "support, estimate",
      yTitle: "support, exact",
      box,
    }),
    svg("line", {
      class: "ideal",
      x1: x(low - room),
      y1: y(low - room),
      x2: x(high + room),
      y2: y(high + room),
    }),
    dots,
  );
}

/* The heat map: a row a direction, a column a strength; a cell is a button that shows its texts. */

import { el } from "../dom.mjs";
import { number } from "../numbers.mjs";
import { fixed, record } from "../rerun/parts.mjs";

export const two = (value) => fixed(value, 2);
export const MEASURES = {
  score: ["both", two, "harmonic mean of what is asked for and fluency"],
  concept: ["concept", two, record.scorer.said],
  fluency: ["fluency", two, "perplexity beside the plain text's, times what is not repeated"],
  perplexity: ["perplexity", number, "under the model as it is"],
  repetition: ["repetition", two, "share of repeated runs of four tokens"],
  kl: [
    "KL",
    number,
    record.during === "generated"
      ? "of the second token written, the first that can differ, in nats"
      : "of the next token after the prompt, in nats",
  ],
};
const DEEPEST = 50; // % of the colour behind a number, which stays readable
const SHARES = new Set(["score", "concept", "fluency", "repetition"]);

const strengths = [
  ...new Set(record.rows.flatMap((row) => row.cells.map((cell) => cell.strength))),
].sort((a, b) => (a === null ? -1 : b === null ? 1 : a - b));

const valuesOf = (key) =>
  record.rows.flatMap((row) => row.cells.map((cell) => cell[key].value ?? 0));
const mostOf = (key) => (SHARES.has(key) ? 1 : Math.max(...valuesOf(key), 1e-9));

/* Colour by size: shares from 0 to 1, other measures up to the largest on the map. */
function depthOf(key) {
  const most = mostOf(key);
  return (value) =>
    SHARES.has(key)
      ? Math.min(1, Math.abs(value))
      : Math.log1p(Math.max(0, value)) / Math.log1p(most);
}

/* The colours and their ends; below 0 only where something is. */
export function colourKey(key) {
  const told = MEASURES[key][1];
  const ramp = (tone, turned) => {
    const box = el("span", { class: turned ? "ramp turned" : "ramp", "aria-hidden": "true" });
    box.style.setProperty("--tone", `var(--${tone})`);
    box.style.setProperty("--share", `${DEEPEST}%`);
    return box;
  };
  const below = valuesOf(key).some((value) => value < 0) && ["−1", ramp("opposes", true)];
  const scale = SHARES.has(key) ? "" : " by its logarithm";
  return el(
    "p",
    { class: "key" },
    el("span", {}, `${MEASURES[key][0]}, colour${scale}:`),
    below,
    "0",
    ramp("supports", false),
    SHARES.has(key) ? "1" : told(mostOf(key)),
    el("span", {}, "blank: not tried"),
  );
}

function cellButton(row, cell, key, chosen, choose) {
  const [title, told] = MEASURES[key];
  const { value, interval } = cell[key];
  const ends = interval ? `, 95 % from ${told(interval[0])} to ${told(interval[1])}` : "";
  const at = cell.strength === null ? "" : ` at ${number(cell.strength)}`;
  return el(
    "button",
    {
      type: "button",
      title: `${row.name}${at}: ${title} ${told(value)}${ends}`,
      "aria-label": `${row.name}${at}: ${title} ${told(value)}`,
      "aria-pressed": String(chosen === cell),
      click: () => choose(cell),
    },
    told(value),
  );
}

export function heatMap(key, chosen, choose) {
  const depth = depthOf(key);
  const rows = record.rows.map((row) =>
    el(
      "tr",
      {},
      el("th", { scope: "row", title: row.name }, el("bdi", {}, row.name)),
      strengths.map((strength) => {
        const cell = row.cells.find((each) => each.strength === strength);
        const box = el("td", {}, cell && cellButton(row, cell, key, chosen, choose));
        if (!cell) return box;
        const button = box.firstChild;
        const value = cell[key].value ?? 0;
        button.style.setProperty("--tone", `var(--${value < 0 ? "opposes" : "supports"})`);
        button.style.setProperty("--share", `${(DEEPEST * depth(value)).toFixed(1)}%`);
        return box;
      }),
    ),
  );
  const head = strengths.map((strength) =>
    el("th", { scope: "col" }, strength === null ? "none" : number(strength)),
  );
  return el(
    "div",
    { class: "scrolls", tabindex: "0", role: "region", "aria-label": "Heat map" },
    el(
      "table",
      { class: "map" },
      el("thead", {}, el("tr", {}, el("td", { class: "axis" }, "strength"), head)),
      el("tbody", {}, rows),
    ),
  );
}

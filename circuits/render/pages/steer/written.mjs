/* What is written after each prompt: as the model is, by the best of each method, by one cell. */

import { el } from "../dom.mjs";
import { number } from "../numbers.mjs";
import { fixed, record } from "../rerun/parts.mjs";

const SHOWN = 4;

/* The texts of a method's strongest choice. */
function cellOf(method) {
  if (method.group === "plain") return record.rows[0].cells[0];
  if (method.group === "instruction") return record.rows[1].cells[0];
  const [first] = method.chosen;
  return record.rows
    .flatMap((row) => row.cells)
    .find(
      (cell) =>
        cell.direction === first.direction &&
        cell.strength === first.strength &&
        cell.groups.includes(method.group),
    );
}

const at = (cell) =>
  cell.strength === null || cell.strength === undefined
    ? ""
    : `${cell.method} ${cell.direction} at ${number(cell.strength)}`;

function side(name, cell, i) {
  const text = cell.texts[i];
  return el(
    "div",
    { class: "side" },
    el("h3", {}, name, el("span", { class: "soft" }, fixed(cell.by_prompt[i], 2))),
    el(
      "p",
      { class: "written", dir: "auto", title: at(cell) },
      text || el("span", { class: "soft" }, "(nothing)"),
    ),
  );
}

/* The plain text, the best methods in their order, and the cell that was chosen on the map. */
export function continuations(chosen) {
  const methods = record.methods.filter((method) => method.group !== "plain").slice(0, SHOWN);
  const sides = [
    ["as it is", record.rows[0].cells[0]],
    ...(chosen ? [[`chosen: ${at(chosen) || "without steering"}`, chosen]] : []),
    ...methods.map((method) => [method.name, cellOf(method)]),
  ];
  return record.prompts.map((prompt, i) =>
    el(
      "article",
      { class: "sides", "aria-label": prompt },
      el("p", {}, el("bdi", { class: "mono" }, prompt)),
      sides.map(([name, cell]) => side(name, cell, i)),
    ),
  );
}

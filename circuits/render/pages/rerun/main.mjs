/* The parts of the page that were run, one after another, and the way to each. */

import { $, el } from "../dom.mjs";
import { count, number } from "../numbers.mjs";
import { column, figures, narrow, note, record, table, title } from "./parts.mjs";
import { promptsPart } from "./prompts.mjs";
import { textPart } from "./text.mjs";
import { generatePart } from "./written.mjs";
import { effectsPart } from "./effects.mjs";

const PARTS = {
  prompts: ["Prompts", promptsPart],
  text: ["Text", textPart],
  generate: ["Generation", generatePart],
  side_effects: ["Side effects", effectsPart],
};
const OPERATIONS_SHOWN = 12;

function editPart() {
  const rows = record.operations;
  const list = table(
    "Operations",
    [column("node"), column("known by"), column("what is done"), column("where"), column("when")],
    rows.map((row) =>
      el(
        "tr",
        {},
        el("td", { class: "mono" }, row.node),
        el("td", {}, row.label ? el("bdi", {}, row.label) : el("span", { class: "soft" }, "–")),
        el("td", {}, row.does),
        el("td", {}, row.where),
        el("td", {}, row.when || el("span", { class: "soft" }, "always")),
      ),
    ),
  );
  const more = record.n_operations - rows.length;
  return [
    title("edit", "The edit"),
    record.edit.map((line) => el("p", { class: "said" }, line)),
    el(
      "details",
      { open: rows.length <= OPERATIONS_SHOWN },
      el("summary", {}, count(record.n_operations, "operation")),
      list,
      more > 0 && note(`and ${more.toLocaleString("en")} more in the edit's file`),
    ),
  ];
}

function graphPart({ before, after, statuses }) {
  const { nodes, edges } = { nodes: [before.nodes, after.nodes], edges: [before.edges, after.edges] };
  return [
    title("graph", "Graph before and after"),
    figures([
      ["nodes", nodes.map((n) => n.toLocaleString("en")).join(" → ")],
      ["edges", edges.map((n) => n.toLocaleString("en")).join(" → ")],
      ["pinned by the edit", number(statuses.ablated)],
      ["gone", number(statuses["only-a"])],
      ["new", number(statuses["only-b"])],
      ["changed", number(statuses.changed)],
      ["the same", number(statuses.same)],
    ]),
    note(
      "Both graphs over each other. A node that the edit pins stands still and has no effect; one ",
      "that it scales, moves or clamps keeps its own. Changed: by more than a tenth of its larger ",
      "effect. Arrow keys move through the graph once it has the focus; the Table tab lists every node.",
    ),
  ];
}

/* Draw a part, again too: what was open stays open, and the button with the focus keeps it. */
export function drawPart(name) {
  const part = $(name);
  const open = [...part.querySelectorAll("details")].map((each) => each.open);
  const focus = [...part.querySelectorAll("button")].indexOf(document.activeElement);
  part.replaceChildren(...PARTS[name][1](record[name]).flat(4).filter(Boolean));
  part.querySelectorAll("details").forEach((each, i) => {
    each.open = open[i] ?? each.open;
  });
  part.querySelectorAll("button")[focus]?.focus();
}

const there = Object.keys(PARTS).filter((name) => record[name]);
$("edit").replaceChildren(...editPart().flat(4).filter(Boolean));
there.forEach(drawPart);
const shown = [["edit", "The edit"], ...there.map((name) => [name, PARTS[name][0]])];
if (record.graph && $("graph-words")) {
  $("graph-words").replaceChildren(...graphPart(record.graph));
  shown.push(["graph", "Graph"]);
}
$("parts").replaceChildren(
  ...shown.map(([name, text]) => el("a", { href: `#${name}` }, text)),
);
narrow.addEventListener("change", () => there.forEach(drawPart));

/* Lists of nodes that can be clicked, each with a number and a bar; of edges, how they run. */

import { el } from "../dom.mjs";
import { number } from "../numbers.mjs";
import { groups, nodes, openEdge } from "./state.mjs";
import { pathsOf } from "./heads.mjs";
import { goTo } from "./tabs.mjs";

/* A node that two graphs have at different places says both. */
export const keyOf = (node) => node.where ?? node.key;
export const where = (node) =>
  node.members ? "" : node.key.startsWith("logit/") ? "output" : keyOf(node);

/* A clickable list of nodes, each with a signed number and a bar as long as it is strong. */
export function links(rows) {
  const largest = Math.max(...rows.map((row) => Math.abs(row.value ?? 0)), 1e-30);
  return el(
    "ul",
    { class: "links" },
    rows.map((row) => el("li", {}, nodeRow(row, largest), row.edge && edgeButton(row.edge))),
  );
}

const nodeRow = ({ node, value, group }, largest) =>
  el(
    "button",
    { type: "button", click: () => goTo(node), title: keyOf(node) },
    el(
      "span",
      { class: "who" },
      el("bdi", {}, node.name),
      el("span", { class: "where" }, where(node)),
    ),
    el("span", { class: "number", style: { color: `var(--${group})` } }, number(value, true)),
    el("span", {
      class: `bar${groups.get(group)?.dashed ? " dashed" : ""}`,
      style: {
        color: `var(--${group})`,
        width: `${(100 * Math.abs(value ?? 0)) / largest}%`,
      },
    }),
  );

/* Opens the edge's card, where it is known how the edge runs. */
function edgeButton(edge) {
  if (!pathsOf(edge)) return null;
  const [from, to] = [nodes[edge.from], nodes[edge.to]];
  const title = `How ${from.name} (${where(from)}) reaches ${to.name} (${where(to)})`;
  return el(
    "button",
    { type: "button", class: "how", click: () => openEdge(edge), title, "aria-label": title },
    "⋯",
  );
}

export function neighbourList(title, found, end) {
  if (!found.length) return el("div", {}, el("h3", {}, title), el("p", { class: "soft" }, "none"));
  const rows = found.map((edge) => ({
    node: nodes[edge[end]],
    value: edge.support,
    group: edge.group,
    edge,
  }));
  const first = 14;
  const list = links(rows.slice(0, first));
  const more =
    rows.length > first &&
    el(
      "button",
      {
        type: "button",
        class: "more",
        click: (event) => {
          list.replaceWith(links(rows));
          event.target.remove();
        },
      },
      `show all ${rows.length}`,
    );
  return el("div", {}, el("h3", {}, `${title} (${rows.length})`), list, more);
}

export const sign = (value) => (value < 0 ? "opposes" : "supports");

export const bar = (value, largest, group) =>
  el("span", {
    class: `bar${groups.get(group)?.dashed ? " dashed" : ""}`,
    style: { color: `var(--${group})`, width: `${(100 * Math.abs(value)) / largest}%` },
  });

/* One row of a list: a button where there is something to go to. */
export function row({ title, soft, text, value, largest, group, click, below }) {
  const parts = [
    el(
      "span",
      { class: "who" },
      el("bdi", {}, title),
      soft && el("span", { class: "where" }, soft),
    ),
    el("span", { class: "number", style: { color: `var(--${group})` } }, text),
    below && el("span", { class: "below" }, below),
    bar(value, largest, group),
  ];
  return el(
    "li",
    {},
    click
      ? el("button", { type: "button", click }, parts)
      : el("div", { class: "row-of-number" }, parts),
  );
}

/* The card of an edge: what it adds, path by path, each as two factors. */

import { el } from "../dom.mjs";
import { number } from "../numbers.mjs";
import { pathsIn, positionIn } from "./paths.mjs";
import { nodes, openHead } from "./state.mjs";
import { back, cardOfHead, pathsOf, scoreOf } from "./heads.mjs";
import { keyOf, links, row, sign, where } from "./links.mjs";

const figure = (label, text) => el("div", {}, el("dt", {}, label), el("dd", {}, text));
const WORDS = {
  direct: "direct, through no head",
  others: "other heads, together",
  rest: "several heads, a skip connection or a layer without heads",
};

/* The two factors of a path: what is of the prompt, what of the weights alone. */
function factorsIn(factors) {
  if (!factors) return null;
  const pattern =
    factors.pattern === undefined ? "" : ` (attention ${number(factors.pattern)})`;
  return `${number(factors.prompt)} of the prompt${pattern} × ${number(factors.weights)} of the weights`;
}

function pathRows(paths) {
  const rows = pathsIn(paths);
  const largest = Math.max(...rows.map(({ value }) => Math.abs(value)), 1e-30);
  return rows.map(({ kind, name, value, factors }) =>
    row({
      title: kind === "head" ? `head ${name}` : WORDS[kind],
      text: number(value, true),
      value,
      largest,
      group: sign(value),
      click: kind === "head" ? () => openHead(name) : null,
      below: factorsIn(factors),
    }),
  );
}

export function edgeCard(edge) {
  const [from, to] = [nodes[edge.from], nodes[edge.to]];
  const paths = pathsOf(edge);
  const heads = paths.heads.reduce((sum, [, value]) => sum + value, paths.other);
  return [
    back(),
    el(
      "h2",
      { class: "name" },
      el("bdi", {}, from.name),
      el("span", { class: "soft" }, " to "),
      el("bdi", {}, to.name),
    ),
    el(
      "div",
      { class: "facts" },
      el("span", { class: "mono" }, `${keyOf(from)} → ${where(to)}`),
      el("span", {}, "edge"),
      el("span", {}, edge.support < 0 ? "lowers its target" : "raises its target"),
    ),
    el(
      "dl",
      { class: "figures" },
      figure("weight", number(edge.support, true)),
      figure("direct", number(paths.direct, true)),
      figure("through one head", number(heads, true)),
      figure("rest", number(paths.rest, true)),
      figure("influence", number(paths.influence)),
    ),
    el("h3", {}, "Paths"),
    el("ul", { class: "links" }, pathRows(paths)),
    el("h3", {}, "From and to"),
    links([from, to].map((node) => ({ node, value: node.support, group: node.group }))),
    paths.heads.map(([name]) => whyThere(name, from, to)),
  ];
}

/* Why a head looks from an edge's target at its source, where that was taken apart. */
function whyThere(name, from, to) {
  const asked = [positionIn(to.key), positionIn(from.key)];
  const query = cardOfHead(name)?.queries.find(
    ({ query: at, scored }) => (asked[0] === null || at === asked[0]) && scored === asked[1],
  );
  return query ? scoreOf(query, `Why head ${name} looks at`) : null;
}

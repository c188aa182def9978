/* What there is to draw, and which part of it is in view. Nodes come strongest first. */

import { read } from "../dom.mjs";
import { count, number } from "../numbers.mjs";
import { boxKey, createStore } from "./store.mjs";
import { cellsOf, fold, makeBox } from "./scene.mjs";
import { remember } from "./keep.mjs";
import { bringIntoView } from "./view.mjs";

export const nodes = read("data-nodes");
export const edges = read("data-edges");
export const options = read("data-options");
export const payload = read("data-payload");

export const size = (edge) => Math.abs(edge.support);
edges
  .sort((a, b) => size(b) - size(a))
  .forEach((edge, index) => {
    edge.id = index;
  });
export const strongestEdge = edges.length ? size(edges[0]) || 1 : 1;
export const groups = new Map(payload.groups.map((group) => [group.name, group]));
export const byKey = new Map(nodes.map((node) => [node.key, node]));
const lists = (pick) => {
  const found = nodes.map(() => []);
  for (const edge of edges) found[edge[pick]].push(edge);
  return found;
};
export const inputs = lists("to");
export const outputs = lists("from");
const columnOf = (node) =>
  payload.columns.findIndex((c) => Math.abs(node.place.x - c.place.x) <= c.place.width / 2);
nodes.forEach((node) => {
  node.place = { x: node.x, y: node.y }; // where the layout put it, before it is stretched
});
payload.columns.forEach((column) => {
  column.place = { x: column.x, width: column.width };
});
payload.bands.forEach((band) => {
  band.place = { y: band.y, height: band.height };
});
nodes.forEach((node) => {
  node.column = columnOf(node);
  node.band = payload.bands.findIndex((band) => band.site === node.site);
});

/* Enough edges to see the circuit, not so many that they hide it. */
const EDGES_AT_FIRST = Math.max(40, Math.min(1.4 * nodes.length, 170));
/* More nodes than this are drawn by cell at first: one by one they would be a texture. */
export const MANY = 800;
export const AT_FIRST = {
  nodes: nodes.length,
  edges: Math.min(edges.length, Math.round(EDGES_AT_FIRST)),
  errors: true,
  hidden: [], // sites
  cells: nodes.length > MANY,
  pinnedOnly: false,
};
export const view = { ...AT_FIRST, selected: null, edge: null, head: null };
export const store = createStore();
export const listeners = [];
export const changed = () => listeners.forEach((listener) => listener());

/* The colour of a box or a line that stands for several: theirs where they agree. */
export const SIGNED = groups.has("supports");
function grouped(parts, sum) {
  const names = new Set(parts.map((part) => part.group));
  if (names.size === 1) return parts[0].group;
  return SIGNED ? (sum > 0 ? "supports" : sum < 0 ? "opposes" : "neutral") : "changed";
}

/* What is pinned, by id; members of groups are. */
export const pinnedIds = () =>
  new Set(store.state.pinned.filter((key) => byKey.has(key)).map((key) => byKey.get(key).id));
export const groupOf = (node) =>
  Object.keys(store.state.groups).find((name) => store.state.groups[name].includes(node.key));

/* The ids of the nodes in view: outputs always, selected and pinned ones always, then the
   strongest. */
function visibleNodes() {
  const pinned = pinnedIds();
  if (view.pinnedOnly && pinned.size) return pinned;
  const chosen = new Set(view.selected?.members ?? [view.selected]);
  const shown = new Set();
  nodes.forEach((node, index) => {
    const kept = chosen.has(node) || pinned.has(node.id) || node.kind === "logit";
    if (kept || (index < view.nodes && passes(node))) shown.add(node.id);
  });
  return shown;
}

/* What the layout makes room for: what the filters let through. */
export function laidOut() {
  const pinned = pinnedIds();
  const kept = (node, i) =>
    node.kind === "logit" || pinned.has(node.id) || (i < view.nodes && passes(node));
  return new Set(nodes.filter(kept).map((node) => node.id));
}

const passes = (node) =>
  (view.errors || node.kind !== "error") && !view.hidden.includes(node.site);

/* Boxes: groups that are not open, and cells where nodes are too many to draw one by one. */
function boxesOf(shown) {
  const { groups: named, collapsed } = store.state;
  const taken = new Set();
  const boxes = collapsed
    .filter((name) => Object.hasOwn(named, name))
    .map((name) => {
      const members = named[name].map((key) => byKey.get(key)).filter(Boolean);
      members.forEach((node) => taken.add(node));
      return members.length && summed(makeBox(boxKey(name), name, "group", members, grouped));
    })
    .filter(Boolean);
  if (!view.cells || view.pinnedOnly) return boxes;
  const pinned = pinnedIds();
  const apart = (node) =>
    !shown.has(node.id) ||
    taken.has(node) ||
    pinned.has(node.id) ||
    node.kind === "logit" ||
    node.kind === "token" ||
    node === view.selected ||
    opened.has(cellOf(node));
  const at = (node) => (payload.columns.length > 1 ? `@${node.column}` : "");
  return [
    ...boxes,
    ...cellsOf(nodes, apart, at).map(([cell, members]) =>
      summed(makeBox(`cell/${cell}`, `${members.length}`, "cell", members, grouped)),
    ),
  ];
}

/* The numbers of a box: sums, except of those `apart`, which are of one feature each. */
function summed(box) {
  for (const { key, apart } of payload.fields) {
    if (apart) box[key] = null;
    if (key in box) continue;
    const values = box.members.map((node) => node[key]).filter((value) => (value ?? null) !== null);
    box[key] = values.length ? values.reduce((sum, value) => sum + value, 0) : null;
  }
  return box;
}

export const opened = new Set();
export const cellOf = (node) =>
  `${node.site}${payload.columns.length > 1 ? `@${node.column}` : ""}`;

/* What is drawn: nodes and boxes, and all lines between them, strongest first. */
export let scene = { items: [], lines: [], owner: new Map() };
export let itemById = new Map();
let neighboursOf = new Map();

export function makeScene() {
  const shown = visibleNodes();
  const boxes = boxesOf(shown);
  scene = { shown, ...fold({ nodes, edges, shown, boxes, grouped }) };
  itemById = new Map(scene.items.map((item) => [item.id, item]));
  const all = new Map(boxes.map((box) => [box.key, box]));
  if (view.selected?.members) view.selected = all.get(view.selected.key) ?? null;
  neighboursOf = new Map();
  scene.drawn = inView();
  return scene;
}

/* A node or box by its key. */
export const itemOf = (key) => byKey.get(key) ?? scene.items.find((item) => item.key === key) ?? null;
/* What the selected node is drawn as: itself, or the box that it is in. */
export const drawnAs = (node) => (node?.members ? node : (scene.owner.get(node?.id) ?? node));

/* Lines in view: the strongest, and every one of what is selected. */
function inView() {
  const at = drawnAs(view.selected)?.id;
  const many = linesAtMost();
  return scene.lines.filter((line, rank) => rank < many || line.from === at || line.to === at);
}

export const linesAtMost = () =>
  view.pinnedOnly && store.state.pinned.length ? scene.lines.length : view.edges;

/* Lines of one drawn node or box, strongest first. */
export const linesInto = (item) => scene.lines.filter((line) => line.to === item.id);
export const linesOutOf = (item) => scene.lines.filter((line) => line.from === item.id);

/* The ids of a drawn node or box and of what it has a line to. */
export function neighbours(item) {
  const drawn = drawnAs(item);
  if (!neighboursOf.has(drawn.id))
    neighboursOf.set(
      drawn.id,
      new Set([
        drawn.id,
        ...linesInto(drawn).map((line) => line.from),
        ...linesOutOf(drawn).map((line) => line.to),
      ]),
    );
  return neighboursOf.get(drawn.id);
}

/* Why the rest is hidden, in words. */
export function reasons() {
  const why = [];
  if (view.pinnedOnly && store.state.pinned.length) return "pinned only";
  if (payload.total.nodes > nodes.length) {
    why.push(`the strongest ${nodes.length.toLocaleString("en")} nodes are drawn`);
  }
  const weakest = nodes
    .slice(0, view.nodes)
    .filter((n) => n.support !== null)
    .at(-1);
  if (view.nodes < nodes.length && weakest)
    why.push(`|effect| ≥ ${number(Math.abs(weakest.support))}`);
  const last = scene.lines[Math.min(view.edges, scene.lines.length) - 1];
  if (view.edges < scene.lines.length && last) why.push(`|weight| ≥ ${number(size(last))}`);
  const errors = nodes.filter((n) => n.kind === "error" && !scene.shown.has(n.id)).length;
  if (!view.errors && errors) why.push(`${count(errors, "error node")} off`);
  if (view.hidden.length) why.push(`${count(view.hidden.length, "site")} off`);
  const cells = scene.items.filter((item) => item.kind === "cell");
  if (cells.length) {
    const inside = cells.reduce((sum, cell) => sum + cell.members.length, 0);
    why.push(`${inside.toLocaleString("en")} nodes as ${count(cells.length, "cell")}`);
  }
  return why.join(", ");
}

export function select(node, { focus = false, keep = "push" } = {}) {
  const before = view.selected;
  Object.assign(view, { selected: node, edge: null, head: null });
  changed();
  if (before !== node) remember(keep);
  if (node && focus) bringIntoView(drawnAs(node));
}

/* The card of an edge or a head stands in place of the selected node's. */
export function openEdge(edge) {
  const ends = [nodes[edge.from], nodes[edge.to]];
  if (!ends.includes(view.selected)) view.selected = ends[1];
  Object.assign(view, { edge, head: null });
  changed();
}

export function openHead(head) {
  Object.assign(view, { head });
  changed();
}

/* From a head's card back to the edge's it was opened from, and from there to the node's. */
export function closeInner() {
  Object.assign(view, view.head === null ? { edge: null } : { head: null });
  changed();
}

/* Names after the labels that a person gave. */
function rename() {
  const { labels } = store.state;
  nodes.forEach((node) => {
    node.name = Object.hasOwn(labels, node.key) ? labels[node.key] : node.label;
  });
}
rename();
store.subscribe(() => {
  rename();
  changed();
  remember("replace");
});

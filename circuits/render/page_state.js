/* What there is to draw, and which part of it is in view. Nodes come strongest first. */

const nodes = read("data-nodes");
const edges = read("data-edges");
const options = read("data-options");
const payload = read("data-payload");

nodes.forEach((node) => {
  node.name = node.label;
});
const size = (edge) => Math.abs(edge.support);
edges
  .sort((a, b) => size(b) - size(a))
  .forEach((edge, index) => {
    edge.id = index;
  });
const strongestEdge = edges.length ? size(edges[0]) || 1 : 1;
const groups = new Map(payload.groups.map((group) => [group.name, group]));
const byKey = new Map(nodes.map((node) => [node.key, node]));
const lists = (pick) => {
  const found = nodes.map(() => []);
  for (const edge of edges) found[edge[pick]].push(edge);
  return found;
};
const inputs = lists("to");
const outputs = lists("from");

/* Enough edges to see the circuit, not so many that they hide it. */
const EDGES_AT_FIRST = Math.max(60, Math.min(2.5 * nodes.length, 300));
const view = {
  nodes: nodes.length,
  edges: Math.min(edges.length, Math.round(EDGES_AT_FIRST)),
  errors: true,
  selected: null,
};
const listeners = [];
const changed = () => listeners.forEach((listener) => listener());

/* The ids of the nodes in view: outputs always, the selected one always, then the strongest. */
function visibleNodes() {
  const shown = new Set();
  nodes.forEach((node, index) => {
    const chosen = view.selected === node || node.kind === "logit";
    if (chosen || (index < view.nodes && (view.errors || node.kind !== "error")))
      shown.add(node.id);
  });
  return shown;
}

/* Edges in view: the strongest, and every one of the selected node. */
function visibleEdges(shown) {
  const touches = (edge) =>
    view.selected && (edge.from === view.selected.id || edge.to === view.selected.id);
  return edges.filter(
    (edge, rank) =>
      (rank < view.edges || touches(edge)) && shown.has(edge.from) && shown.has(edge.to),
  );
}

function neighbours(node) {
  return new Set([
    node.id,
    ...inputs[node.id].map((e) => e.from),
    ...outputs[node.id].map((e) => e.to),
  ]);
}

/* Why the rest is hidden, in words. */
function reasons(shown) {
  const why = [];
  if (payload.total.nodes > nodes.length) {
    why.push(`the strongest ${nodes.length.toLocaleString("en")} nodes are drawn`);
  }
  const weakest = nodes
    .slice(0, view.nodes)
    .filter((n) => n.support !== null)
    .at(-1);
  if (view.nodes < nodes.length && weakest)
    why.push(`|effect| ≥ ${number(Math.abs(weakest.support))}`);
  if (view.edges < payload.total.edges && view.edges > 0) {
    why.push(`|weight| ≥ ${number(size(edges[view.edges - 1]))}`);
  }
  const errors = nodes.filter((node) => node.kind === "error" && !shown.has(node.id)).length;
  if (!view.errors && errors) why.push(`${count(errors, "error node")} off`);
  return why.join(", ");
}

function select(node, { focus = false } = {}) {
  view.selected = node;
  remember(node ? `#node=${encodeURIComponent(node.key)}` : "");
  changed();
  if (node && focus) bringIntoView(node);
}

/* The selection lives in the address; a page inside a notebook's frame has none to write to. */
function remember(hash) {
  if (location.hash === hash || location.protocol === "about:") return;
  history.replaceState(null, "", hash || location.pathname + location.search);
}

function fromHash() {
  const key = new URLSearchParams(location.hash.slice(1)).get("node");
  return key === null ? null : (byKey.get(key) ?? null);
}

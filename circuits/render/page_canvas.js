/* The network itself: vis-network with fixed places, bands behind it, axes beside it. */

const nodeSet = new vis.DataSet();
const edgeSet = new vis.DataSet();
const network = new vis.Network($("network"), { nodes: nodeSet, edges: edgeSet }, options);
const canvas = $("network");
const FEW = 400; // above it the dashes of borders cannot be seen and slow the drawing down
let palette = {};

function readPalette() {
  const names = [
    "paper",
    "ink",
    "soft",
    "line",
    "stripe",
    "focus",
    ...[...groups.keys(), "neutral"].flatMap((name) => [name, `${name}-fill`]),
  ];
  palette = Object.fromEntries(names.map((name) => [name, colour(name)]));
}

function nodeStyle(node, lit) {
  return {
    id: node.id,
    shape: node.shape,
    size: node.size,
    x: node.x,
    y: node.y,
    title: [
      node.name,
      node.key,
      ...payload.fields.map((field) => `${field.label}: ${shownOr(field, node[field.key])}`),
    ].join("\n"),
    color: {
      background: palette[`${node.group}-fill`],
      border: palette[node.group],
      hover: { background: palette[`${node.group}-fill`], border: palette.ink },
    },
    opacity: lit ? 1 : 0.18,
    shapeProperties: {
      borderDashes: groups.get(node.group)?.dashed && nodes.length <= FEW ? [3, 2] : false,
    },
  };
}

function edgeStyle(edge, crowd, touched) {
  const resting = Math.max(0.2, Math.min(0.75, 80 / crowd));
  return {
    id: edge.id,
    from: edge.from,
    to: edge.to,
    width: 0.7 + 4.8 * (size(edge) / strongestEdge),
    dashes: groups.get(edge.group)?.dashed ? [6, 4] : false,
    color: {
      color: palette[edge.group],
      hover: palette[edge.group],
      opacity: touched === null ? resting : touched ? 0.95 : 0.05,
    },
  };
}

/* Make `set` hold exactly the `wanted` items, touching only those that look different: vis takes
   0.1 ms for every item it is given. */
const looks = new Map([
  [nodeSet, new Map()],
  [edgeSet, new Map()],
]);

function sync(set, wanted) {
  const look = looks.get(set);
  const keep = new Set(wanted.map((item) => item.id));
  const gone = [...look.keys()].filter((id) => !keep.has(id));
  const fresh = wanted.filter((item) => {
    const text = JSON.stringify(item);
    const same = look.get(item.id) === text;
    look.set(item.id, text);
    return !same;
  });
  gone.forEach((id) => look.delete(id));
  if (gone.length) set.remove(gone);
  if (fresh.length) set.update(fresh);
}

/* Give vis the nodes and edges in view and take the others away. */
function draw() {
  const shown = visibleNodes();
  const lines = visibleEdges(shown);
  const near = view.selected && neighbours(view.selected);
  const touched = (e) => near && (e.from === view.selected.id || e.to === view.selected.id);
  sync(
    nodeSet,
    nodes
      .filter((node) => shown.has(node.id))
      .map((node) => nodeStyle(node, !near || near.has(node.id))),
  );
  sync(
    edgeSet,
    lines.map((edge) => edgeStyle(edge, lines.length, touched(edge))),
  );
  const why = reasons(shown);
  $("counts").textContent =
    `showing ${shown.size} of ${count(payload.total.nodes, "node")}, ` +
    `${lines.length} of ${count(payload.total.edges, "edge")}${why && ` (${why})`}`;
}

function fit() {
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = Math.min(
    (width - 24) / payload.size.width,
    (height - 16) / payload.size.height,
    1.35,
  );
  network.moveTo({ position: { x: payload.size.width / 2, y: payload.size.height / 2 }, scale });
}

function zoomBy(factor) {
  network.moveTo({ scale: Math.min(6, Math.max(0.05, network.getScale() * factor)) });
}

function bringIntoView(node) {
  const at = network.canvasToDOM(node);
  const margin = 40;
  const inside =
    at.x > margin &&
    at.y > margin &&
    at.x < canvas.clientWidth - margin &&
    at.y < canvas.clientHeight - margin;
  if (!inside) network.moveTo({ position: { x: node.x, y: node.y } });
}

/* Bands behind the nodes, every other layer shaded, and hairlines between columns. */
function drawBands(ctx) {
  const from = network.DOMtoCanvas({ x: 0, y: 0 });
  const to = network.DOMtoCanvas({ x: canvas.clientWidth, y: canvas.clientHeight });
  ctx.fillStyle = palette.stripe;
  payload.bands
    .filter((band) => band.layer !== null && band.layer % 2 === 0)
    .forEach((band) => ctx.fillRect(from.x, band.y - band.height / 2, to.x - from.x, band.height));
  ctx.strokeStyle = palette.line;
  ctx.lineWidth = 0.6 / network.getScale();
  ctx.beginPath();
  payload.columns.slice(1).forEach(({ x, width }) => {
    ctx.moveTo(x - width / 2, from.y);
    ctx.lineTo(x - width / 2, to.y);
  });
  ctx.stroke();
}

const bandLabels = payload.bands.map((band) =>
  el("span", {}, band.site === "logit" ? "output" : band.site === "embed" ? "tokens" : band.site),
);
const tokenLabels = payload.columns.map((column) =>
  el("span", { title: column.token, dir: "auto" }, column.token),
);
$("axis").append(...bandLabels);
$("tokens").append(...tokenLabels);

/* Axis labels follow the canvas; those that would overlap the one before are left out. */
function placeAxes() {
  const scale = network.getScale();
  const chosen = view.selected;
  let last = -Infinity;
  payload.bands.forEach((band, index) => {
    const y = network.canvasToDOM({ x: 0, y: band.y }).y;
    const lit = chosen?.site === band.site;
    bandLabels[index].hidden = y - last < 12 && !lit;
    if (!bandLabels[index].hidden) last = y;
    bandLabels[index].style.transform = `translateY(${y - 7}px)`;
    bandLabels[index].classList.toggle("lit", lit);
  });
  const narrow = payload.columns.some((c) => c.width * scale < 34) && payload.columns.length > 1;
  $("tokens").classList.toggle("upright", narrow);
  const at = chosen && columnOf(chosen);
  last = -Infinity;
  payload.columns.forEach((column, index) => {
    const { x } = network.canvasToDOM({ x: column.x, y: 0 });
    const room = narrow ? 20 : Math.max(column.width * scale - 4, 12);
    const label = tokenLabels[index];
    label.hidden = x - last < 15;
    if (!label.hidden) last = x;
    label.style.maxWidth = `${room}px`;
    label.style.transform = `translateX(${x}px) translateX(-50%)`;
    label.classList.toggle("lit", at === index);
  });
}

function columnOf(node) {
  return payload.columns.findIndex((c) => Math.abs(node.x - c.x) <= c.width / 2);
}

function drawLegend() {
  const kinds = [
    ["feature", svg("circle", { cx: 6, cy: 6, r: 4.5 })],
    ["error", svg("path", { d: "M6 1 11 6 6 11 1 6Z" })],
    ["token, output", svg("rect", { x: 1.5, y: 1.5, width: 9, height: 9 })],
  ];
  const shapes = kinds.map(([name, shape]) =>
    el(
      "span",
      {},
      svg(
        "svg",
        {
          width: 12,
          height: 12,
          "aria-hidden": "true",
          fill: "none",
          stroke: "currentColor",
          "stroke-width": 1.4,
        },
        shape,
      ),
      name,
    ),
  );
  const lines = payload.groups.map((group) =>
    el("span", {}, swatch(`var(--${group.name})`, group.dashed ? "5 3" : ""), group.label),
  );
  $("legend").replaceChildren(...shapes, ...lines, el("span", {}, payload.note));
}

network.on("beforeDrawing", drawBands);
network.on("afterDrawing", placeAxes);
network.on("click", ({ nodes: hit }) => {
  if (hit.length) openTab("node");
  select(hit.length ? nodes[hit[0]] : null);
});
network.on("hoverNode", () => {
  canvas.style.cursor = "pointer";
});
network.on("blurNode", () => {
  canvas.style.cursor = "";
});

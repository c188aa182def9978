/* The network itself: vis-network with fixed places, bands behind it, axes beside it. */

const nodeSet = new vis.DataSet();
const edgeSet = new vis.DataSet();
const network = new vis.Network($("network"), { nodes: nodeSet, edges: edgeSet }, options);
const canvas = $("network");
const FEW = 400; // above it the dashes of borders cannot be seen and slow the drawing down
/* px on the screen at any zoom: what is thinner or smaller cannot be seen. */
const THINNEST = 1.1,
  SMALLEST = 2.2,
  BOX_FONT = 12,
  RESTING = 0.85; // opacity of a line: 3:1 against paper and more
let palette = {};

function readPalette() {
  const names = [
    ...["paper", "ink", "soft", "line", "stripe", "faint", "focus"],
    ...[...groups.keys(), "neutral"].flatMap((name) => [name, `${name}-fill`]),
  ];
  palette = Object.fromEntries(names.map((name) => [name, colour(name)]));
}

/* How much larger than on the screen a thing is drawn when the picture is zoomed out: steps, so
   that few zooms draw everything anew. */
const magnified = () => Math.max(1, 1.2 ** Math.ceil(Math.log(1 / network.getScale()) / Math.log(1.2)));

const radius = (node) => Math.max(node.size, SMALLEST * magnified());
const dashedLine = (line) => Boolean(groups.get(line.group)?.dashed);
const lineWidth = (line) =>
  Math.max(
    THINNEST * magnified(),
    0.9 + 4.6 * Math.min(1, size(line) / strongestEdge),
  );

/* Where a node or box stands: in the layout, or where it was dragged to in the view of its own. */
function placeOf(item) {
  return scene.places?.get(item.key) ?? { x: item.x, y: item.y };
}

function nodeStyle(item, lit) {
  const k = magnified();
  const { x, y } = placeOf(item);
  const pale = item.kind === "cell";
  const style = {
    id: item.id,
    shape: item.shape,
    size: radius(item),
    x,
    y,
    title: [
      item.members ? boxTitle(item) : item.name,
      item.members ? count(item.members.length, "node") : item.key,
      ...payload.fields.map((field) => `${field.label}: ${shownOr(field, item[field.key])}`),
    ].join("\n"),
    color: {
      background: palette[`${item.group}-fill`],
      border: palette[item.group] || palette.neutral,
      hover: { background: palette[`${item.group}-fill`], border: palette.ink },
    },
    opacity: lit ? 1 : 0.25,
    shapeProperties: {
      borderDashes: groups.get(item.group)?.dashed && scene.items.length <= FEW ? [3, 2] : false,
      borderRadius: 4,
    },
  };
  if (!item.members) return style;
  return {
    ...style,
    label: pale ? item.name : `${cutText(item.name, 28)} (${item.members.length})`,
    color: { ...style.color, background: palette.paper, hover: style.color.hover },
    borderWidth: pale ? 1 : 1.8,
    margin: 4 * k,
    font: { size: (pale ? 10 : BOX_FONT) * k, color: palette.ink, face: bodyFont() },
    widthConstraint: pale ? false : { maximum: 130 * k },
  };
}

const bodyFont = () => getComputedStyle(document.body).fontFamily;
const cutText = (text, most) =>
  [...text].length > most ? `${[...text].slice(0, most - 1).join("").trimEnd()}…` : text;

function edgeStyle(line, touched) {
  const k = magnified();
  return {
    id: line.id,
    from: line.from,
    to: line.to,
    width: lineWidth(line),
    dashes: dashedLine(line) ? [6 * k, 4 * k] : false,
    color: {
      color: palette[line.group] || palette.neutral,
      hover: palette[line.group] || palette.neutral,
      opacity: touched === null ? RESTING : touched ? 1 : 0.07,
    },
    label: scene.places ? number(line.support, true) : "",
    font: {
      ...{ size: 11 * k, color: palette.ink, face: bodyFont() },
      ...{ strokeWidth: 4, strokeColor: palette.paper },
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

/* What stays lit while something is selected; null where all does. */
const fading = (at) => (at && !scene.places && itemById.has(at.id) ? neighbours(at) : null);

let drawnAt = 1;

/* Give vis the nodes and edges in view and take the others away. */
function draw() {
  drawnAt = magnified();
  makeScene();
  scene.places = ownPlaces();
  const at = drawnAs(view.selected);
  const near = fading(at);
  const touched = (line) => (near ? line.from === at.id || line.to === at.id : null);
  sync(
    nodeSet,
    scene.items.map((item) => nodeStyle(item, !near || near.has(item.id))),
  );
  sync(
    edgeSet,
    scene.drawn.map((line) => edgeStyle(line, touched(line))),
  );
  const why = reasons();
  const lines = scene.drawn.reduce((sum, line) => sum + edgesOf(line), 0);
  $("counts").textContent =
    `showing ${scene.shown.size.toLocaleString("en")} of ${count(payload.total.nodes, "node")}, ` +
    `${lines.toLocaleString("en")} of ${count(payload.total.edges, "edge")}${why && ` (${why})`}`;
  $("picture").classList.toggle("own", Boolean(scene.places));
}

/* In the view of pinned nodes alone these stand in rows of their own, and can be dragged. */
function ownPlaces() {
  const own = view.pinnedOnly && store.state.pinned.length > 0;
  if (own !== Boolean(ownPlaces.on)) {
    network.setOptions({ interaction: { dragNodes: own }, nodes: { fixed: !own } });
    ownPlaces.on = own;
  }
  if (!own) return null;
  const places = compactPlaces(scene.items);
  for (const [key, [x, y]] of Object.entries(store.state.places))
    if (places.has(key)) places.set(key, { x, y });
  return places;
}

/* What has to fit: the layout, or the nodes in rows of their own. */
function extent() {
  if (!scene.places?.size) {
    const [width, height] = [shape.width * stretched.x, shape.height * stretched.y];
    return { x: width / 2, y: height / 2, width, height, most: 1.35 };
  }
  const at = [...scene.places.values()];
  const [left, right] = [Math.min, Math.max].map((f) => f(...at.map((p) => p.x)));
  const [top, bottom] = [Math.min, Math.max].map((f) => f(...at.map((p) => p.y)));
  return {
    ...{ x: (left + right) / 2, y: (top + bottom) / 2 },
    ...{ width: right - left + 220, height: bottom - top + 90, most: 1.5 },
  };
}

let stretched = { x: 1, y: 1 };
let shape = { ...payload.size, of: "" };

/* Close the gaps that filters leave and give the picture the canvas's shape; only another choice of
   nodes, or a canvas of quite another shape, moves anything. */
function reshape() {
  const shown = laidOut();
  const of = [...shown].join();
  const flowed = of === shape.of ? shape : { of, ...flowOf(shown) };
  const { clientWidth: width, clientHeight: height } = canvas;
  const wanted = stretch(flowed, { width: width - 24, height: height - 16 });
  const near = (a, b) => Math.abs(Math.log(a / b)) < 0.08;
  if (flowed === shape && near(wanted.x, stretched.x) && near(wanted.y, stretched.y)) return false;
  shape = flowed;
  stretched = wanted;
  const { x: kx, y: ky } = wanted;
  nodes.forEach((node, i) => {
    Object.assign(node, { x: shape.places[i].x * kx, y: shape.places[i].y * ky });
  });
  payload.columns.forEach((column, i) => {
    const { x, width: room } = shape.columns[i];
    Object.assign(column, { x: x * kx, width: room * kx });
  });
  payload.bands.forEach((band, i) => {
    const { y, height: room } = shape.bands[i];
    Object.assign(band, { y: y * ky, height: room * ky });
  });
  return true;
}

const flowOf = (shown) =>
  flow({
    ...{ nodes, shown },
    bands: payload.bands.map((band) => band.place),
    columns: payload.columns.map((column) => column.place),
  });

/* Tokens stand upright where columns are narrow at the scale that fits; not by zoom, which would
   change the room that there is. */
function turnTokens() {
  const { clientWidth: width, clientHeight: height } = canvas;
  const room = extent();
  const scale = Math.min((width - 24) / room.width, (height - 16) / room.height, room.most);
  const narrow = payload.columns.some((c) => c.width * scale < 34) && payload.columns.length > 1;
  $("tokens").classList.toggle("upright", narrow);
}

/* Whether the picture stands where a person moved it. */
let moved = false;

function fit() {
  if (!canvas.clientWidth || !canvas.clientHeight) return;
  moved = false;
  turnTokens();
  if (reshape()) draw();
  const { clientWidth: width, clientHeight: height } = canvas;
  const room = extent();
  const scale = Math.min((width - 24) / room.width, (height - 16) / room.height, room.most);
  network.moveTo({ position: { x: room.x, y: room.y }, scale });
  if (magnified() !== drawnAt) draw();
}

/* After another choice of nodes; a view that was zoomed into stays. */
function refilter() {
  changed();
  refit();
}

/* vis keeps its own view of a canvas that changed its size; this gives it ours again. */
function refit() {
  if (moved) return;
  fit();
  if (view.selected) bringIntoView(drawnAs(view.selected));
}

function zoomBy(factor) {
  moved = true;
  network.moveTo({ scale: Math.min(6, Math.max(0.05, network.getScale() * factor)) });
  if (magnified() !== drawnAt) draw();
}

/* Move the picture just as far as it takes for a node to be seen with some of what is around it. */
function bringIntoView(item) {
  const at = network.canvasToDOM(placeOf(item));
  const [roomX, roomY] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.min(36, side / 4));
  const beyond = (value, room, side) =>
    value < room ? value - room : value > side - room ? value - (side - room) : 0;
  const dx = beyond(at.x, roomX, canvas.clientWidth);
  const dy = beyond(at.y, roomY, canvas.clientHeight);
  if (!dx && !dy) return;
  const { x, y } = network.getViewPosition();
  const scale = network.getScale();
  network.moveTo({ position: { x: x + dx / scale, y: y + dy / scale } });
}

/* Bands behind the nodes, every other layer shaded, and hairlines between columns. */
function drawBands(ctx) {
  if (scene.places) return;
  const from = network.DOMtoCanvas({ x: 0, y: 0 });
  const to = network.DOMtoCanvas({ x: canvas.clientWidth, y: canvas.clientHeight });
  ctx.fillStyle = palette.stripe;
  payload.bands
    .filter((band) => band.shaded)
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

/* A token of spaces alone has a sign for each. */
const bandNames = { logit: "output", embed: "tokens" };
const bandLabels = payload.bands.map((band) => el("span", {}, bandNames[band.site] ?? band.site));
const tokenLabels = payload.columns.map((column) =>
  el("span", { title: column.token, dir: "auto" }, seen(column.token)),
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
    bandLabels[index].hidden = !band.height || (y - last < 12 && !lit);
    if (!bandLabels[index].hidden) last = y;
    bandLabels[index].style.transform = `translateY(${y - 7}px)`;
    bandLabels[index].classList.toggle("lit", lit);
  });
  const narrow = $("tokens").classList.contains("upright");
  const at = chosen && (chosen.members ? chosen.strongest.column : chosen.column);
  last = -Infinity;
  payload.columns.forEach((column, index) => {
    const { x } = network.canvasToDOM({ x: column.x, y: 0 });
    const room = narrow ? 20 : Math.max(column.width * scale - 4, 12);
    const label = tokenLabels[index];
    label.hidden = x - last < 13 && at !== index;
    if (!label.hidden) last = x;
    label.style.maxWidth = `${room}px`;
    label.style.transform = `translateX(${x}px) translateX(-50%)`;
    label.classList.toggle("lit", at === index);
  });
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
network.on("click", ({ nodes: hit, event }) => {
  const item = hit.length ? itemById.get(hit[0]) : null;
  if (item && event.srcEvent?.shiftKey) {
    togglePin(item);
    return;
  }
  if (item) openTab("node");
  select(item ?? null);
});
network.on("doubleClick", ({ nodes: hit }) => {
  const item = hit.length ? itemById.get(hit[0]) : null;
  if (item?.members) openBox(item);
});
network.on("dragEnd", ({ nodes: hit }) => {
  moved ||= !hit.length || !scene.places;
  if (!hit.length || !scene.places) return;
  const places = Object.entries(network.getPositions(hit)).map(([id, { x, y }]) => [
    hit.find((each) => String(each) === id),
    [Math.round(x), Math.round(y)],
  ]);
  store.change(
    steps.move(Object.fromEntries(places.map(([id, at]) => [itemById.get(id).key, at]))),
  );
});
let zooming;
network.on("zoom", () => {
  moved = true;
  clearTimeout(zooming);
  zooming = setTimeout(() => magnified() !== drawnAt && draw(), 60);
});
network.on("hoverNode", () => {
  canvas.style.cursor = "pointer";
});
network.on("blurNode", () => {
  canvas.style.cursor = "";
});

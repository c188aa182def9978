/* Labels at one size whatever the zoom, placed strongest first where nothing else stands. */

/* ROOM: square pixels of canvas per label; more of them read as noise. */
const FONT = 11.5,
  ROW = 20,
  WIDEST = 170,
  NARROW = 92,
  ROOM = 3600;
const texts = new Map();

/* The label cut to WIDEST and to NARROW pixels, measured once. */
function textOf(ctx, node) {
  const name = node.name;
  if (!texts.has(name))
    texts.set(
      name,
      [WIDEST, NARROW].map((room) => cut(ctx, seen(name), room)),
    );
  return texts.get(name);
}

function cut(ctx, text, room) {
  const letters = [...text];
  let kept = letters.length,
    shown = text;
  while (kept > 1 && ctx.measureText(shown).width > room) {
    kept = Math.min(kept - 1, Math.floor((kept * room) / ctx.measureText(shown).width) + 1);
    shown = `${letters.slice(0, kept).join("").trimEnd()}…`;
  }
  return { text: shown, width: ctx.measureText(shown).width };
}

/* Boxes already taken, kept by the rows of pixels they touch. */
function occupancy() {
  const rows = new Map();
  const touched = (box, visit) => {
    for (let r = Math.floor(box.top / ROW); r <= Math.floor(box.bottom / ROW); r += 1) visit(r);
  };
  const meet = (a, b) =>
    a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  return {
    take: (box) => touched(box, (r) => rows.set(r, [...(rows.get(r) ?? []), box])),
    free: (box) => {
      let clear = true;
      touched(box, (r) => {
        clear &&= !(rows.get(r) ?? []).some((other) => meet(box, other));
      });
      return clear;
    },
  };
}

/* Where a label may stand: below the node, to its right, to its left; long before short. */
function places(ctx, node, at, radius) {
  return textOf(ctx, node).flatMap(({ text, width }) => {
    const box = (left, top) => ({ text, left, top, right: left + width, bottom: top + FONT + 1 });
    return [
      box(at.x - width / 2, at.y + radius + 2),
      box(at.x + radius + 4, at.y - FONT / 2),
      box(at.x - radius - 4 - width, at.y - FONT / 2),
      box(at.x - width / 2, at.y - radius - FONT - 3),
    ];
  });
}

/* Farther places, ring after ring, for a label that a line leads to. */
const RINGS = [26, 44, 64, 88, 116, 150, 190, 240];

function* fartherPlaces(ctx, node, at) {
  for (const { text, width } of textOf(ctx, node).slice(1))
    for (const away of RINGS)
      for (let turn = 0; turn < 16; turn += 1) {
        const angle = (turn * Math.PI) / 8;
        const left = at.x + away * 1.4 * Math.cos(angle) - width / 2;
        const top = at.y + away * Math.sin(angle) - FONT / 2;
        yield { text, left, top, right: left + width, bottom: top + FONT + 1, led: at };
      }
}

/* The selected node and its neighbours come first; errors and column tokens need no label. */
function wanted(spots) {
  const shown = [...spots.keys()].filter((item) => !item.members);
  const at = drawnAs(view.selected);
  const near = fading(at);
  if (near) {
    const rest = shown.filter((item) => near.has(item.id) && item !== at);
    return (at.members ? rest : [at, ...rest]).map((item) => [item, true]);
  }
  const pinned = pinnedIds();
  const mute = (node) =>
    node.kind === "error" || (node.kind === "token" && payload.columns.length > 1);
  const first = (node) => Number(node.kind === "logit" || pinned.has(node.id));
  return shown
    .filter((node) => scene.places || pinned.has(node.id) || !mute(node))
    .sort((a, b) => first(b) - first(a))
    .map((node) => [node, Boolean(scene.places)]);
}

/* Where everything in view stands on the canvas, px: the centre and radius, or the box. */
function spotsOf() {
  const scale = network.getScale();
  const spots = new Map();
  for (const item of scene.items) {
    const at = network.canvasToDOM(placeNow(item));
    const box = item.members && network.getBoundingBox(item.id);
    const half = box
      ? { x: ((box.right - box.left) * scale) / 2, y: ((box.bottom - box.top) * scale) / 2 }
      : { x: radius(item) * scale, y: radius(item) * scale };
    const { clientWidth: width, clientHeight: height } = canvas;
    const outside =
      at.x < -half.x || at.y < -half.y || at.x > width + half.x || at.y > height + half.y;
    if (!outside) spots.set(item, { at, r: half.y, half });
  }
  return spots;
}

/* The labels that find room: text and corner in px, and where a line leads to them from. */
function labelSpots(ctx, spots) {
  ctx.font = `${FONT}px ${bodyFont()}`;
  const taken = occupancy();
  const inside = { right: canvas.clientWidth, bottom: canvas.clientHeight };
  const near = fading(drawnAs(view.selected));
  for (const [item, { at: { x, y }, half }] of spots)
    if (!near || near.has(item.id))
      taken.take({ left: x - half.x, right: x + half.x, top: y - half.y, bottom: y + half.y });
  const stands = (box) =>
    box.left > 2 &&
    box.right < inside.right - 2 &&
    box.top > 0 &&
    box.bottom < inside.bottom &&
    taken.free(box);
  const found = [];
  let room = Math.max(30, (inside.right * inside.bottom) / ROOM);
  for (const [item, needed] of wanted(spots)) {
    if (!spots.has(item) || (room < 1 && !needed)) continue;
    const { at: spot, r } = spots.get(item);
    let place = places(ctx, item, spot, item === view.selected ? r + 6 : r).find(stands);
    if (!place && needed)
      for (const farther of fartherPlaces(ctx, item, spot))
        if (stands(farther)) {
          place = farther;
          break;
        }
    if (!place) continue;
    taken.take(place);
    room -= 1;
    found.push({ ...place, key: item.key });
  }
  return found;
}

/* Labels and rings at the last drawing, for the export and for tests. */
let marks = { labels: [], rings: [], spots: new Map() };

function ringsOf(spots) {
  const pinned = pinnedIds();
  const chosen = drawnAs(view.selected);
  return [...spots]
    .filter(([item]) => item === chosen || item.id === chosen?.id || (!scene.places && pinned.has(item.id)))
    .map(([item, { at, half }]) => ({
      ...at,
      rx: half.x + (item.id === chosen?.id ? 5 : 3),
      ry: half.y + (item.id === chosen?.id ? 5 : 3),
      box: Boolean(item.members),
      width: item.id === chosen?.id ? 2 : 1.3,
    }));
}

function drawLabels(ctx) {
  const ratio = ctx.canvas.width / ctx.canvas.clientWidth;
  const spots = spotsOf();
  ctx.save();
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  marks = { labels: labelSpots(ctx, spots), rings: ringsOf(spots), spots };
  Object.assign(ctx, {
    textBaseline: "top",
    textAlign: "left",
    lineJoin: "round",
    fillStyle: palette.ink,
  });
  for (const label of marks.labels) {
    if (label.led) leader(ctx, label);
    ctx.strokeStyle = palette.paper;
    ctx.lineWidth = 3.5;
    ctx.strokeText(label.text, label.left, label.top);
    ctx.fillText(label.text, label.left, label.top);
  }
  ctx.strokeStyle = palette.ink;
  for (const ring of marks.rings) {
    ctx.lineWidth = ring.width;
    ctx.beginPath();
    if (ring.box) ctx.rect(ring.x - ring.rx, ring.y - ring.ry, 2 * ring.rx, 2 * ring.ry);
    else ctx.arc(ring.x, ring.y, ring.rx, 0, 2 * Math.PI);
    ctx.stroke();
  }
  ctx.restore();
}

const leaderEnds = ({ led, left, right, top, bottom }) => ({
  x1: led.x,
  y1: led.y,
  x2: Math.max(left, Math.min(right, led.x)),
  y2: Math.max(top, Math.min(bottom, led.y)),
});

function leader(ctx, label) {
  const { x1, y1, x2, y2 } = leaderEnds(label);
  ctx.strokeStyle = palette.soft;
  ctx.lineWidth = 0.8;
  ctx.beginPath();
  ctx.moveTo(x1, y1);
  ctx.lineTo(x2, y2);
  ctx.stroke();
}

network.on("afterDrawing", drawLabels);

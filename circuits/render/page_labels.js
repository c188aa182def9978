/* Labels at one size whatever the zoom, placed strongest first where nothing else stands. */

/* ROOM: square pixels of canvas per label; more of them read as noise. */
const FONT = 11.5,
  ROW = 20,
  WIDEST = 170,
  NARROW = 92,
  ROOM = 8500;
const texts = new Map();

/* The label cut to WIDEST and to NARROW pixels, measured once. */
function textOf(ctx, node) {
  if (!texts.has(node.id))
    texts.set(
      node.id,
      [WIDEST, NARROW].map((room) => cut(ctx, node.name, room)),
    );
  return texts.get(node.id);
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
    ];
  });
}

/* The selected node and its neighbours come first; errors and column tokens need no label. */
function wanted() {
  const shown = nodes.filter((node) => nodeSet.get(node.id));
  if (view.selected) {
    const near = neighbours(view.selected);
    return [view.selected, ...shown.filter((node) => near.has(node.id) && node !== view.selected)];
  }
  const mute = (node) =>
    node.kind === "error" || (node.kind === "token" && payload.columns.length > 1);
  return shown
    .filter((node) => !mute(node))
    .sort((a, b) => (b.kind === "logit") - (a.kind === "logit"));
}

function drawLabels(ctx) {
  const ratio = ctx.canvas.width / ctx.canvas.clientWidth;
  const scale = network.getScale();
  ctx.save();
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.font = `${FONT}px ${getComputedStyle(document.body).fontFamily}`;
  Object.assign(ctx, {
    textBaseline: "top",
    textAlign: "left",
    lineJoin: "round",
    lineWidth: 3.5,
    strokeStyle: palette.paper,
    fillStyle: palette.ink,
  });
  const taken = occupancy();
  const spots = new Map();
  const inside = { right: canvas.clientWidth, bottom: canvas.clientHeight };
  for (const node of nodes) {
    if (!nodeSet.get(node.id)) continue;
    const at = network.canvasToDOM(node),
      r = node.size * scale;
    if (at.x < -r || at.y < -r || at.x > inside.right + r || at.y > inside.bottom + r) continue;
    spots.set(node, { at, r });
    taken.take({ left: at.x - r, right: at.x + r, top: at.y - r, bottom: at.y + r });
  }
  let room = Math.max(30, (inside.right * inside.bottom) / ROOM);
  for (const node of wanted()) {
    if (!spots.has(node) || room < 1) continue;
    const { at, r } = spots.get(node);
    const spot = places(ctx, node, at, node === view.selected ? r + 6 : r).find(
      (box) =>
        box.left > 2 &&
        box.right < inside.right - 2 &&
        box.top > 0 &&
        box.bottom < inside.bottom &&
        taken.free(box),
    );
    if (!spot) continue;
    taken.take(spot);
    room -= 1;
    ctx.strokeText(spot.text, spot.left, spot.top);
    ctx.fillText(spot.text, spot.left, spot.top);
  }
  if (spots.has(view.selected)) ring(ctx, spots.get(view.selected));
  ctx.restore();
}

function ring(ctx, { at, r }) {
  ctx.beginPath();
  ctx.arc(at.x, at.y, r + 5, 0, 2 * Math.PI);
  ctx.strokeStyle = palette.ink;
  ctx.lineWidth = 2;
  ctx.stroke();
}

network.on("afterDrawing", drawLabels);

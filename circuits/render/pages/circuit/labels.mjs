/* Labels at one size whatever the zoom, placed strongest first where nothing else stands. */

import { seen } from "../dom.mjs";
import { number } from "../numbers.mjs";
import { FONT, cut, labelsPlaced, occupancy } from "./places.mjs";
import { drawnAs, payload, pinnedIds, scene, view } from "./state.mjs";
import { canvas, fading, network } from "./network.mjs";
import { bodyFont, magnified, palette, placeNow, radius } from "./look.mjs";
import { WEIGHT_FONT, middleOf } from "./lines.mjs";

/* ROOM: square pixels of canvas per label; more of them read as noise. */
const WIDEST = 170;
const NARROW = 92;
const ROOM = 3600;
const texts = new Map();

/* The label cut to WIDEST and to NARROW pixels, measured once. */
function textsOf(ctx, node) {
  const name = node.name;
  const measure = (text) => ctx.measureText(text).width;
  if (!texts.has(name))
    texts.set(
      name,
      [WIDEST, NARROW].map((room) => cut(seen(name), room, measure)),
    );
  return texts.get(name);
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

/* Where the weights stand in the view of pinned nodes alone, px. */
function weightBoxes(ctx) {
  const high = WEIGHT_FONT * magnified() * network.getScale();
  return scene.drawn.map((line) => {
    const { x, y } = network.canvasToDOM(middleOf(line));
    const wide = (ctx.measureText(number(line.support, true)).width * high) / FONT;
    return { left: x - wide / 2, right: x + wide / 2, top: y - high / 2, bottom: y + high / 2 };
  });
}

/* The labels that find room: text and corner in px, and where a line leads to them from. */
function labelSpots(ctx, spots) {
  ctx.font = `${FONT}px ${bodyFont()}`;
  const taken = occupancy();
  const size = { width: canvas.clientWidth, height: canvas.clientHeight };
  const near = fading(drawnAs(view.selected));
  for (const [item, { at: { x, y }, half }] of spots)
    if (!near || near.has(item.id))
      taken.take({ left: x - half.x, right: x + half.x, top: y - half.y, bottom: y + half.y });
  if (scene.places) weightBoxes(ctx).forEach(taken.take);
  const wishes = wanted(spots)
    .filter(([item]) => spots.has(item))
    .map(([item, needed]) => {
      const { at, r } = spots.get(item);
      const radius = item === view.selected ? r + 6 : r;
      return { key: item.key, at, radius, needed, texts: () => textsOf(ctx, item) };
    });
  return labelsPlaced(wishes, { taken, size, most: Math.max(30, (size.width * size.height) / ROOM) });
}

/* Labels and rings at the last drawing, for the export and for tests. */
export let marks = { labels: [], rings: [], spots: new Map() };

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

export const leaderEnds = ({ led, left, right, top, bottom }) => ({
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

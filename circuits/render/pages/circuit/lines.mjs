/* The lines between nodes, behind them: a few are drawn with every frame, many by a layer. */

import { el } from "../dom.mjs";
import { number } from "../numbers.mjs";
import { createLayer, curve, meets, nearest } from "./layer.mjs";
import { drawnAs, itemById, linesAtMost, options, scene, view } from "./state.mjs";
import { canvas, drawnAt, fading, network } from "./network.mjs";
import {
  FADED, RESTING, bodyFont, dashedLine, lineWidth, magnified, palette, paletteAt, placeNow,
} from "./look.mjs";
import { reshaped } from "./view.mjs";

const AT_ONCE = 300; // lines that a frame has the time for
export const BEND_OF_LINES = options.edges.smooth.roundness;

const placeOfEnd = (id) => placeNow(itemById.get(id));

function stroke(ctx, lines, opacity, part = null) {
  const k = magnified();
  ctx.globalAlpha = opacity;
  for (const line of lines) {
    const [a, b] = [placeOfEnd(line.from), placeOfEnd(line.to)];
    const width = lineWidth(line);
    if (part && !meets(a, b, part, width)) continue;
    const [x, y, ...rest] = curve(a, b, BEND_OF_LINES);
    ctx.setLineDash(dashedLine(line) ? [6 * k, 4 * k] : []);
    ctx.lineWidth = width;
    ctx.strokeStyle = palette[line.group] || palette.neutral;
    ctx.beginPath();
    ctx.moveTo(x, y);
    ctx.bezierCurveTo(...rest);
    ctx.stroke();
  }
}

export const layer = createLayer({
  newCanvas: (width, height) => el("canvas", { width, height }),
  changed: () => network.body.emitter.emit("_requestRedraw"),
  later: (step, wait) => {
    let frame;
    const timer = setTimeout(() => {
      frame = requestAnimationFrame(step);
    }, wait);
    return () => {
      clearTimeout(timer);
      cancelAnimationFrame(frame);
    };
  },
  /* The strongest lines come first and lie on top. */
  paint: (ctx, lines, part) => {
    ctx.globalCompositeOperation = "destination-over";
    stroke(ctx, lines, RESTING, part);
  },
});

/* What the layer holds: lines of the selected node are drawn over it, others do not change with
   the selection. */
export let resting = { id: null, lines: [], touching: [] };

export function layLines() {
  const at = drawnAs(view.selected)?.id;
  const touching = scene.drawn.filter((line) => line.from === at || line.to === at);
  const lines = scene.drawn.slice(0, linesAtMost());
  const where = (item) => (item.members ? [item.key, item.x, item.y] : []);
  const id = [
    ...[paletteAt, drawnAt, reshaped, scene.items.flatMap(where).join(" ")],
    lines.map((line) => `${line.id}:${line.support}`).join(),
  ].join("\n");
  const layered = lines.length > AT_ONCE && !scene.places;
  resting = { id: layered ? id : null, lines, touching };
  layer.only(resting.id);
}

/* The part of the plane that the canvas shows. */
function partInView() {
  const { x, y } = network.DOMtoCanvas({ x: 0, y: 0 });
  const scale = network.getScale();
  const [width, height] = [canvas.clientWidth / scale, canvas.clientHeight / scale];
  return { x, y, width, height, scale };
}

function drawLines(ctx) {
  const { id, lines, touching } = resting;
  const chosen = fading(drawnAs(view.selected)) !== null;
  ctx.save();
  if (id !== null) {
    const ratio = ctx.canvas.width / ctx.canvas.clientWidth;
    const picture = layer.at({ ...partInView(), ratio }, resting);
    ctx.globalAlpha = chosen ? FADED / RESTING : 1;
    if (picture) ctx.drawImage(picture.canvas, picture.x, picture.y, picture.width, picture.height);
  } else {
    const drawn = chosen ? lines.filter((line) => !touching.includes(line)) : scene.drawn;
    stroke(ctx, [...drawn].reverse(), chosen ? FADED : scene.places ? 1 : RESTING);
  }
  if (chosen) stroke(ctx, [...touching].reverse(), 1);
  if (scene.places) drawWeights(ctx);
  ctx.restore();
}

export const WEIGHT_FONT = 11; // px

export function middleOf(line) {
  const [a, b] = [placeOfEnd(line.from), placeOfEnd(line.to)];
  return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
}

const REACH = 6; // px on the screen

/* The line that is drawn where a person clicked, null where none is. */
export const lineAt = (place) =>
  nearest(
    scene.drawn,
    place,
    (line) => [placeOfEnd(line.from), placeOfEnd(line.to)],
    BEND_OF_LINES,
    REACH / network.getScale(),
  );

/* In the view of pinned nodes alone each line has its weight beside it. */
function drawWeights(ctx) {
  const k = magnified();
  Object.assign(ctx, { font: `${WEIGHT_FONT * k}px ${bodyFont()}`, textAlign: "center", textBaseline: "middle" });
  Object.assign(ctx, { lineJoin: "round", lineWidth: 7 * k, globalAlpha: 1 });
  Object.assign(ctx, { strokeStyle: palette.paper, fillStyle: palette.ink });
  ctx.setLineDash([]);
  for (const line of scene.drawn) {
    const { x, y } = middleOf(line);
    ctx.strokeText(number(line.support, true), x, y);
    ctx.fillText(number(line.support, true), x, y);
  }
}

network.on("beforeDrawing", drawLines);

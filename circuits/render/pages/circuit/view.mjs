/* Which part of the picture is seen, at what scale, and the shape that the picture takes. */

import { flow, stretch } from "./scene.mjs";
import { changed, drawnAs, laidOut, nodes, payload, scene, view } from "./state.mjs";
import { canvas, draw, drawnAt, network } from "./network.mjs";
import { magnified, placeOf } from "./look.mjs";
import { turnTokens } from "./axes.mjs";

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
export let reshaped = 0; // how often places changed
let shape = { ...payload.size, of: "" };

/* Close the gaps that filters leave and give the picture the canvas's shape; only another choice of
   nodes, or a canvas of quite another shape, moves anything. */
export function reshape() {
  const shown = laidOut();
  const of = [...shown].join();
  const flowed = of === shape.of ? shape : { of, ...flowOf(shown) };
  const { clientWidth: width, clientHeight: height } = canvas;
  const wanted = stretch(flowed, { width: width - 24, height: height - 16 });
  const near = (a, b) => Math.abs(Math.log(a / b)) < 0.08;
  if (flowed === shape && near(wanted.x, stretched.x) && near(wanted.y, stretched.y)) return false;
  shape = flowed;
  stretched = wanted;
  reshaped += 1;
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

/* Where all of the picture is seen. */
function whole() {
  const { clientWidth: width, clientHeight: height } = canvas;
  const room = extent();
  const scale = Math.min((width - 24) / room.width, (height - 16) / room.height, room.most);
  return { position: { x: room.x, y: room.y }, scale };
}

/* Whether the picture stands where a person moved it. */
let moved = false;
export const keepPlace = () => {
  moved = true;
};

export function fit() {
  if (!canvas.clientWidth || !canvas.clientHeight) return;
  moved = false;
  if (reshape()) draw();
  // What the labels of columns take is taken from the picture's height.
  if (turnTokens(whole()) && reshape()) draw();
  network.moveTo(whole());
  if (magnified() !== drawnAt) draw();
}

/* After another choice of nodes; a view that was zoomed into stays. */
export function refilter() {
  changed();
  refit();
}

/* vis keeps its own view of a canvas that changed its size; this gives it ours again. */
export function refit() {
  if (moved) return;
  fit();
  if (view.selected) bringIntoView(drawnAs(view.selected));
}

export function zoomBy(factor) {
  moved = true;
  network.moveTo({ scale: Math.min(6, Math.max(0.05, network.getScale() * factor)) });
  if (magnified() !== drawnAt) draw();
}

/* Move the picture just as far as it takes for a node to be seen with some of what is around it. */
export function bringIntoView(item) {
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

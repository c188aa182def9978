/* What the pointer does on the canvas: select, pin, open, drag. */

import { steps } from "./store.mjs";
import { itemById, openEdge, scene, select, store } from "./state.mjs";
import { lineAt } from "./lines.mjs";
import { pathsOf } from "./heads.mjs";
import { canvas, draw, drawnAt, network } from "./network.mjs";
import { magnified } from "./look.mjs";
import { keepPlace } from "./view.mjs";
import { openBox, togglePin } from "./pins.mjs";
import { openTab } from "./tabs.mjs";

network.on("click", ({ nodes: hit, event, pointer }) => {
  const item = hit.length ? itemById.get(hit[0]) : null;
  if (item && event.srcEvent?.shiftKey) {
    togglePin(item);
    return;
  }
  const line = item ? null : lineAt(pointer.canvas);
  if (item || line) openTab("node");
  if (line && !line.parts && pathsOf(line)) openEdge(line);
  else select(item ?? null);
});
network.on("doubleClick", ({ nodes: hit }) => {
  const item = hit.length ? itemById.get(hit[0]) : null;
  if (item?.members) openBox(item);
});
network.on("dragEnd", ({ nodes: hit }) => {
  if (!hit.length || !scene.places) {
    keepPlace();
    return;
  }
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
  keepPlace();
  clearTimeout(zooming);
  zooming = setTimeout(() => magnified() !== drawnAt && draw(), 60);
});
network.on("hoverNode", () => {
  canvas.style.cursor = "pointer";
});
network.on("blurNode", () => {
  canvas.style.cursor = "";
});

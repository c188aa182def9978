/* The network itself: vis-network with nodes at fixed places. Lines are ours, behind them. */

import { $ } from "../dom.mjs";
import { count } from "../numbers.mjs";
import { compactPlaces, edgesOf } from "./scene.mjs";
import {
  drawnAs, itemById, makeScene, neighbours, options, payload, reasons, scene, store, view,
} from "./state.mjs";
import { PALE, lookOf, magnified, nodeStyle, radius } from "./look.mjs";
import { layLines } from "./lines.mjs";

const nodeSet = new vis.DataSet();
export const network = new vis.Network($("network"), { nodes: nodeSet }, options);
export const canvas = $("network");

/* Make vis have exactly these nodes and boxes, giving it only those that look different: it takes
   0.1 ms for every one that it is given. */
const looks = new Map();

function sync(items) {
  const keep = new Set(items.map((item) => item.id));
  const gone = [...looks.keys()].filter((id) => !keep.has(id));
  const fresh = items.filter((item) => {
    const look = lookOf(item);
    const same = looks.get(item.id) === look;
    looks.set(item.id, look);
    return !same;
  });
  gone.forEach((id) => looks.delete(id));
  if (gone.length) nodeSet.remove(gone);
  if (fresh.length) nodeSet.update(fresh.map(nodeStyle));
}

/* Sizes change with the zoom and opacity with the selection, for all nodes at once: they are set on
   vis's own nodes. */
function adjust(items, near) {
  for (const item of items) {
    const drawn = network.body.nodes[item.id];
    const wanted = radius(item);
    if (drawn.options.size !== wanted) {
      drawn.options.size = wanted;
      drawn.needsRefresh();
    }
    drawn.options.opacity = !near || near.has(item.id) ? 1 : PALE;
  }
}

/* What stays lit while something is selected; null where all does. */
export const fading = (at) => (at && !scene.places && itemById.has(at.id) ? neighbours(at) : null);

export let drawnAt = 1;

/* Give vis the nodes in view and take the others away. */
export function draw() {
  drawnAt = magnified();
  makeScene();
  scene.places = ownPlaces();
  layLines();
  sync(scene.items);
  letDrag(scene.places !== null);
  adjust(scene.items, fading(drawnAs(view.selected)));
  const why = reasons();
  const lines = scene.drawn.reduce((sum, line) => sum + edgesOf(line), 0);
  $("counts").textContent =
    `showing ${scene.shown.size.toLocaleString("en")} of ${count(payload.total.nodes, "node")}, ` +
    `${lines.toLocaleString("en")} of ${count(payload.total.edges, "edge")}${why && ` (${why})`}`;
  $("picture").classList.toggle("own", Boolean(scene.places));
  network.body.emitter.emit("_requestRedraw");
}

/* In the view of pinned nodes alone these stand in rows of their own. */
function ownPlaces() {
  if (!view.pinnedOnly || !store.state.pinned.length) return null;
  const places = compactPlaces(scene.items);
  for (const [key, [x, y]] of Object.entries(store.state.places))
    if (places.has(key)) places.set(key, { x, y });
  return places;
}

/* Only there can nodes be dragged. vis draws at once when it is told so. */
let dragged = false;

function letDrag(own) {
  if (own === dragged) return;
  dragged = own;
  network.setOptions({ interaction: { dragNodes: own }, nodes: { fixed: !own } });
}

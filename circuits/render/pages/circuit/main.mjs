/* Wiring: sliders, boxes, buttons, and the handle that tests and notebooks use. */

import { $, el } from "../dom.mjs";
import { toFile } from "./store.mjs";
import {
  MANY, changed, drawnAs, edges, groups, itemById, itemOf, listeners, makeScene, nodes, opened,
  scene, select, store, view,
} from "./state.mjs";
import { fromHash, onAddress, remember, restoreAtFirst } from "./keep.mjs";
import { canvas, draw, network } from "./network.mjs";
import { RESTING, lineWidth, palette, placeNow, radius, readPalette } from "./look.mjs";
import { bringIntoView, fit, refilter, refit, reshape, zoomBy } from "./view.mjs";
import { drawLegend } from "./axes.mjs";
import { layer, resting } from "./lines.mjs";
import { marks } from "./labels.mjs";
import { beforePrint, svgText } from "./drawing.mjs";
import { drawCard, unpackCards } from "./card.mjs";
import { drawPins } from "./pins.mjs";
import { followFilters, markRow } from "./table.mjs";
import { wireMenus } from "./menus.mjs";
import { makeTabs, openTab } from "./tabs.mjs";
import { drawFound, readCards, searchAnew, searchKeys } from "./search.mjs";
import { keys, toggleKeys } from "./keys.mjs";

/* The picture is fitted once more when the canvas has its size; then all is ready. */
let settle;
const settled = new Promise((done) => {
  settle = done;
});

function wire() {
  $("search").addEventListener("input", searchAnew);
  $("search").addEventListener("keydown", searchKeys);
  $("search").addEventListener("blur", () => {
    $("found").hidden = true;
  });
  $("search").addEventListener("focus", () => {
    if ($("search").value) drawFound();
  });
  for (const name of ["nodes", "edges"]) {
    const slider = $(`${name.slice(0, -1)}-count`);
    slider.max = name === "nodes" ? nodes.length : edges.length;
    slider.value = view[name];
    slider.addEventListener("input", () => {
      view[name] = Number(slider.value);
      changed();
    });
    slider.addEventListener("change", () => {
      refilter();
      remember();
    });
  }
  for (const name of ["errors", "cells"]) {
    $(name).checked = view[name];
    $(name).addEventListener("change", () => {
      view[name] = $(name).checked;
      opened.clear();
      refilter();
      remember();
    });
  }
  $("cells").parentElement.hidden = nodes.length <= MANY;
  wireMenus();
  window.addEventListener("beforeprint", beforePrint);
  $("keys-button").addEventListener("click", toggleKeys);
  $("zoom").addEventListener(
    "click",
    ({
      target: {
        dataset: { zoom },
      },
    }) => {
      if (zoom === "fit") fit();
      else if (zoom) zoomBy(zoom === "in" ? 1.3 : 1 / 1.3);
    },
  );
  document.addEventListener("keydown", keys);
  window.addEventListener("popstate", onAddress);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readPalette();
    draw();
  });
  let resized;
  new ResizeObserver(() => {
    network.redraw();
    // A window of another shape has another fit, once it is still.
    clearTimeout(resized);
    resized = setTimeout(() => {
      refit();
      settle();
    }, 120);
  }).observe(canvas);
}

readPalette();
const chosenAtFirst = fromHash().get("node");
restoreAtFirst();
readCards();
makeTabs();
openTab("node");
wire();
drawLegend();
makeScene();
reshape();
store.subscribe(readCards);
listeners.push(draw, drawCard, followFilters, markRow, drawPins);
view.selected = itemOf(chosenAtFirst);
changed();
remember();
refit();
if (view.selected) bringIntoView(drawnAs(view.selected));
const ready = Promise.all([unpackCards(), settled]).then(() => {});

/* The colour that a line or a fill of this name has on the screen, over paper: red, green, blue. */
function painted(name) {
  const dot = el("canvas", { width: 1, height: 1 }).getContext("2d");
  dot.fillStyle = palette.paper;
  dot.fillRect(0, 0, 1, 1);
  dot.globalAlpha = groups.has(name) ? RESTING : 1;
  dot.fillStyle = palette[name];
  dot.fillRect(0, 0, 1, 1);
  return [...dot.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}

/* `circuit.position(key)`: where a node stands on the page, in CSS pixels. */
window.circuit = {
  ready,
  select: (key) => select(itemOf(key), { focus: true }),
  selected: () => view.selected?.key ?? null,
  edge: () => view.edge && [nodes[view.edge.from].key, nodes[view.edge.to].key],
  head: () => view.head,
  visible: () => nodes.filter((node) => scene.shown.has(node.id)).map((node) => node.key),
  drawn: () => scene.items.map((item) => item.key),
  lines: () =>
    scene.drawn.map((line) => ({
      source: itemById.get(line.from).key,
      target: itemById.get(line.to).key,
      support: line.support,
      width: lineWidth(line) * network.getScale(),
    })),
  state: () => toFile(store.state),
  whole: () => resting.id === null || layer.whole(resting.id),
  svg: svgText,
  painted,
  labelled: () => marks.labels.map((label) => label.key),
  scale: () => network.getScale(),
  radius: (key) => radius(itemOf(key)) * network.getScale(),
  position: (key) => {
    const at = network.canvasToDOM(placeNow(itemOf(key)));
    const box = canvas.getBoundingClientRect();
    return { x: box.left + at.x, y: box.top + at.y };
  },
};

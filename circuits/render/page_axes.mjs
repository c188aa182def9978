/* Around the network: bands behind it, axes beside it, the legend below. */

import { $, el, seen, svg, swatch } from "./page_dom.mjs";
import { payload, scene, view } from "./page_state.mjs";
import { canvas, network } from "./page_network.mjs";
import { palette } from "./page_look.mjs";

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
export const bandNames = { logit: "output", embed: "tokens" };
export const bandLabels = payload.bands.map((band) => el("span", {}, bandNames[band.site] ?? band.site));
export const tokenLabels = payload.columns.map((column) =>
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

export function drawLegend() {
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

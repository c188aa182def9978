/* Around the network: bands behind it, axes beside it, the legend below. */

import { $, el, seen, svg, swatch } from "../dom.mjs";
import { payload, scene, view } from "./state.mjs";
import { canvas, network } from "./network.mjs";
import { palette } from "./look.mjs";
import { inRow } from "./tokens.mjs";

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

/* How long the text of each token's label is, px, with its padding. */
let tokenLengths = null;
function lengths() {
  if (tokenLengths) return tokenLengths;
  const ruler = document.createElement("canvas").getContext("2d");
  ruler.font = getComputedStyle(tokenLabels[0]).font;
  const length = (text) => Math.ceil(ruler.measureText(text).width) + 9;
  tokenLengths = tokenLabels.map((label) => length(label.textContent));
  return tokenLengths;
}

/* The left ends of the labels of columns with these centres in one row, null where they do not all
   fit; of none but those that are seen. */
function rowOf(centres) {
  const room = canvas.clientWidth;
  const shown = centres.map((x, i) => [x, i]).filter(([x]) => x >= 0 && x <= room);
  const row = inRow(
    shown.map(([x]) => x),
    shown.map(([, i]) => lengths()[i]),
    room,
  );
  return row && new Map(shown.map(([, i], at) => [i, row[at]]));
}

/* Labels stand upright, each at its whole length as far as a picture can spare the height, where
   they do not fit into a row where all of the picture is seen; not by zoom, which would change the
   room that there is. Whether that is another way than they stood. */
const TALLEST = 132; // px
export function turnTokens({ position, scale }) {
  const at = (column) => canvas.clientWidth / 2 + (column.x - position.x) * scale;
  const narrow = payload.columns.length > 1 && !rowOf(payload.columns.map(at));
  const turned = narrow !== $("tokens").classList.contains("upright");
  $("tokens").classList.toggle("upright", narrow);
  const height = Math.min(Math.max(...lengths()) + 14, TALLEST);
  $("tokens").style.setProperty("--upright", `${height}px`);
  return turned;
}

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
  const centres = payload.columns.map(({ x }) => network.canvasToDOM({ x, y: 0 }).x);
  const row = narrow ? null : rowOf(centres);
  payload.columns.forEach((column, index) => {
    const x = centres[index];
    const label = tokenLabels[index];
    const left = row?.get(index);
    const room = narrow ? 20 : Math.max(column.width * scale - 4, 12);
    label.hidden = left === undefined && x - last < 13 && at !== index;
    if (!label.hidden) last = x;
    label.style.maxWidth = left === undefined ? `${room}px` : "";
    label.style.transform =
      left === undefined ? `translateX(${x}px) translateX(-50%)` : `translateX(${left}px)`;
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

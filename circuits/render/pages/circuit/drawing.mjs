/* What is seen as an SVG of its own: bands, axes, edges, nodes and labels, text as text. */

import { $, el, svg } from "../dom.mjs";
import { number } from "../numbers.mjs";
import { curve } from "./layer.mjs";
import { FONT } from "./places.mjs";
import { drawnAs, groups, itemById, payload, scene, view } from "./state.mjs";
import { download, fileName } from "./keep.mjs";
import { canvas, fading, network } from "./network.mjs";
import { cutText, dashedLine, lineWidth, palette, placeNow } from "./look.mjs";
import { bandLabels, tokenLabels } from "./axes.mjs";
import { BEND_OF_LINES } from "./lines.mjs";
import { leaderEnds, marks } from "./labels.mjs";

const LEFT = 94; // px of the site axis
const LEGEND = 26;

/* A picture of the canvas as it stands; `paint` gives the colour that a name of the palette has. */
function drawing(paint) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const tokens = scene.places ? 0 : $("tokens").clientHeight;
  const left = scene.places ? 0 : LEFT;
  const total = { width: width + left, height: height + tokens + LEGEND };
  const font = { "font-family": "Helvetica, Arial, sans-serif", "font-size": FONT };
  return svg(
    "svg",
    {
      xmlns: "http://www.w3.org/2000/svg",
      width: total.width,
      height: total.height,
      viewBox: `0 0 ${total.width} ${total.height}`,
      role: "img",
      "aria-label": document.title,
      ...font,
    },
    svg("title", {}, document.title),
    svg("defs", {}, svg("clipPath", { id: "canvas" }, svg("rect", { width, height }))),
    svg("rect", { ...total, fill: paint("paper") }),
    svg(
      "g",
      { transform: `translate(${left} 0)`, "clip-path": "url(#canvas)" },
      scene.places ? null : drawnBands(paint, width, height),
      svg("g", { class: "edges", fill: "none" }, drawnEdges(paint)),
      svg("g", { class: "nodes" }, [...marks.spots].map((spot) => drawnNode(paint, ...spot))),
      svg("g", { class: "rings", fill: "none", stroke: paint("ink") }, marks.rings.map(drawnRing)),
      svg("g", { class: "labels", fill: paint("ink") }, drawnLabels(paint)),
    ),
    scene.places ? null : drawnAxes(paint, height, left),
    drawnLegend(paint, height + tokens),
  );
}

const near = (value) => Math.round(value * 100) / 100;

function drawnBands(paint, width, height) {
  const scale = network.getScale();
  const y = (value) => near(network.canvasToDOM({ x: 0, y: value }).y);
  const x = (value) => near(network.canvasToDOM({ x: value, y: 0 }).x);
  const stripes = payload.bands
    .filter((band) => band.shaded)
    .map((band) =>
      svg("rect", {
        ...{ class: "band", x: 0, y: y(band.y - band.height / 2) },
        ...{ width, height: near(band.height * scale), fill: paint("stripe") },
      }),
    );
  const rules = payload.columns.slice(1).map((column) => {
    const at = x(column.x - column.width / 2);
    return svg("line", { x1: at, x2: at, y1: 0, y2: height, stroke: paint("line"), "stroke-width": 0.6 });
  });
  return [...stripes, ...rules];
}

function drawnEdges(paint) {
  const scale = network.getScale();
  const at = (id) => network.canvasToDOM(placeNow(itemById.get(id)));
  const here = drawnAs(view.selected)?.id;
  const some = fading(drawnAs(view.selected));
  return [...scene.drawn].reverse().map((line) => {
    const [a, b] = [at(line.from), at(line.to)];
    const [x, y, ...rest] = curve(a, b, BEND_OF_LINES).map(near);
    const faded = some && line.from !== here && line.to !== here;
    const path = svg("path", {
      d: `M${x} ${y}C${rest.join(" ")}`,
      stroke: paint(line.group),
      "stroke-width": near(lineWidth(line) * scale),
      "stroke-dasharray": dashedLine(line) ? "6 4" : null,
      opacity: faded ? 0.07 : null,
    });
    if (!scene.places) return path;
    const middle = { x: near((a.x + b.x) / 2), y: near((a.y + b.y) / 2) };
    const wide = { "text-anchor": "middle", "stroke-width": 7 };
    return [path, outlined(paint, number(line.support, true), middle, wide)];
  });
}

/* Text that can be read over lines. */
const outlined = (paint, text, at, more = {}) =>
  svg(
    "text",
    {
      ...at,
      ...{ stroke: paint("paper"), "stroke-width": 3.5, "stroke-linejoin": "round" },
      ...{ "paint-order": "stroke", fill: paint("ink") },
      ...more,
    },
    text,
  );

function drawnNode(paint, item, { at, half }) {
  const lit = fading(drawnAs(view.selected));
  const faded = lit && !lit.has(item.id);
  const look = {
    fill: paint(item.members ? "paper" : `${item.group}-fill`),
    stroke: paint(item.group),
    "stroke-width": item.members ? 2 : 1.3,
    "stroke-dasharray": groups.get(item.group)?.dashed ? "3 2" : null,
    "data-key": item.key,
    opacity: faded ? 0.25 : null,
  };
  const [x, y] = [near(at.x), near(at.y)];
  const [w, h] = [near(half.x), near(half.y)];
  const box = { x: near(x - w), y: near(y - h), width: 2 * w, height: 2 * h };
  if (item.members)
    return svg("g", {}, svg("rect", { ...box, rx: 4, ...look }), boxText(paint, item, at));
  if (item.shape === "dot") return svg("circle", { cx: x, cy: y, r: w, ...look });
  if (item.shape === "diamond")
    return svg("path", { d: `M${x} ${near(y - h)}L${near(x + w)} ${y} ${x} ${near(y + h)} ${near(x - w)} ${y}Z`, ...look });
  return svg("rect", { ...box, ...look });
}

function boxText(paint, item, at) {
  const text = item.kind === "cell" ? item.name : `${item.name} (${item.members.length})`;
  return svg(
    "text",
    { x: near(at.x), y: near(at.y), "text-anchor": "middle", dy: "0.35em", fill: paint("ink") },
    text,
  );
}

const drawnRing = (ring) =>
  ring.box
    ? svg("rect", {
        ...{ x: near(ring.x - ring.rx), y: near(ring.y - ring.ry) },
        ...{ width: near(2 * ring.rx), height: near(2 * ring.ry), "stroke-width": ring.width },
      })
    : svg("circle", { cx: near(ring.x), cy: near(ring.y), r: near(ring.rx), "stroke-width": ring.width });

function drawnLabels(paint) {
  return marks.labels.flatMap((label) => [
    label.led && svg("line", { ...leaderEnds(label), stroke: paint("soft"), "stroke-width": 0.8 }),
    outlined(paint, label.text, { x: near(label.left), y: near(label.top + FONT * 0.82) }),
  ]);
}

/* Sites to the left, tokens below: those that the page shows, where it shows them. */
function drawnAxes(paint, height, left) {
  const sites = payload.bands.flatMap((band, i) => {
    const y = network.canvasToDOM({ x: 0, y: band.y }).y;
    if (bandLabels[i].hidden || y < 0 || y > height) return [];
    const at = { x: left - 10, y: near(y), "text-anchor": "end", dy: "0.35em" };
    return svg("text", { ...at, class: "site", fill: paint("soft") }, bandLabels[i].textContent);
  });
  const upright = $("tokens").classList.contains("upright");
  const tokens = payload.columns.flatMap((column, i) => {
    const x = network.canvasToDOM({ x: column.x, y: 0 }).x;
    if (tokenLabels[i].hidden || x < 0 || x > canvas.clientWidth) return [];
    const { left: from, width } = tokenLabels[i].getBoundingClientRect();
    const seenAt = upright ? x : from + width / 2 - canvas.getBoundingClientRect().left;
    const at = { x: near(seenAt + left), y: height + 18 };
    const turned = upright
      ? { "text-anchor": "start", transform: `rotate(90 ${at.x} ${height + 8})`, y: height + 12 }
      : { "text-anchor": "middle" };
    const text = cutText(tokenLabels[i].textContent, 14);
    return svg("text", { ...at, ...turned, class: "token", fill: paint("ink") }, text);
  });
  const edge = { stroke: paint("line") };
  return svg(
    "g",
    { class: "axes" },
    svg("line", { x1: left, x2: left, y1: 0, y2: height, ...edge }),
    svg("line", { x1: left, x2: left + canvas.clientWidth, y1: height, y2: height, ...edge }),
    sites,
    tokens,
  );
}

function drawnLegend(paint, top) {
  let x = 12;
  const rows = payload.groups.map((group) => {
    const line = svg("line", {
      ...{ x1: x, x2: x + 24, y1: top + 13, y2: top + 13, stroke: paint(group.name) },
      ...{ "stroke-width": 2, "stroke-dasharray": group.dashed ? "5 3" : null },
    });
    const text = svg("text", { x: x + 30, y: top + 17, fill: paint("soft") }, group.label);
    x += 52 + 6.2 * group.label.length;
    return [line, text];
  });
  return svg("g", { class: "legend" }, rows);
}

const inPalette = (name) => palette[name] || palette.neutral;
export const svgText = () => new XMLSerializer().serializeToString(drawing(inPalette));
export const saveSvg = () => download(fileName("svg"), svgText(), "image/svg+xml");

/* Twice as many pixels as on the screen, so that text stays sharp in slides. */
export async function savePng() {
  const picture = drawing(inPalette);
  const [width, height] = ["width", "height"].map((side) => Number(picture.getAttribute(side)));
  const image = new Image(width, height);
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(new XMLSerializer().serializeToString(picture))}`;
  await image.decode();
  const sheet = el("canvas", { width: 2 * width, height: 2 * height });
  sheet.getContext("2d").drawImage(image, 0, 0, 2 * width, 2 * height);
  const blob = await new Promise((done) => {
    sheet.toBlob(done, "image/png");
  });
  download(fileName("png"), blob, "image/png");
}

/* Paper gets the drawing: a canvas would be stretched away from its axes. Its colours are names,
   so that print has the light ones. */
export function beforePrint() {
  if (!canvas.clientWidth) return; // hidden already: there is nothing to draw after
  $("print").replaceChildren(drawing((name) => `var(--${name}, var(--neutral))`));
}

/* What nodes, boxes and lines look like: colours, sizes on the screen, places. */

import { colour } from "../dom.mjs";
import { count } from "../numbers.mjs";
import { groups, payload, scene, size, strongestEdge } from "./state.mjs";
import { network } from "./network.mjs";
import { shownOr } from "./card.mjs";
import { boxTitle } from "./pins.mjs";

const FEW = 400; // above it the dashes of borders cannot be seen and slow the drawing down
/* px on the screen at any zoom: what is thinner or smaller cannot be seen. */
const THINNEST = 1.1;
const SMALLEST = 2.2;
const BOX_FONT = 12;
export const RESTING = 0.85; // opacity of a line: 3:1 against paper and more
export const FADED = 0.07; // of a line beside a selected node's
export const PALE = 0.25; // of a node beside it
export let palette = {};
export let paletteAt = 0; // how often colours were read

export function readPalette() {
  const names = [
    ...["paper", "ink", "soft", "line", "stripe", "faint", "focus"],
    ...[...groups.keys(), "neutral"].flatMap((name) => [name, `${name}-fill`]),
  ];
  palette = Object.fromEntries(names.map((name) => [name, colour(name)]));
  paletteAt += 1;
}

/* How much larger than on the screen a thing is drawn when the picture is zoomed out: steps, so
   that few zooms draw everything anew. */
export const magnified = () => Math.max(1, 1.2 ** Math.ceil(Math.log(1 / network.getScale()) / Math.log(1.2)));

export const radius = (node) => Math.max(node.size, SMALLEST * magnified());
export const dashedLine = (line) => Boolean(groups.get(line.group)?.dashed);
export const lineWidth = (line) =>
  Math.max(
    THINNEST * magnified(),
    0.9 + 4.6 * Math.min(1, size(line) / strongestEdge),
  );

/* Where a node or box stands: in the layout, or where it was dragged to in the view of its own. */
export function placeOf(item) {
  return scene.places?.get(item.key) ?? { x: item.x, y: item.y };
}

/* While it is dragged, a node is where vis has it. */
export function placeNow(item) {
  return scene.places ? network.getPosition(item.id) : placeOf(item);
}

/* All that decides how vis draws a node or box, except its size and opacity. */
export function lookOf(item) {
  const { x, y } = placeOf(item);
  const dashed = scene.items.length <= FEW;
  const box = item.members && [item.members.length, item.support, magnified()];
  return [x, y, item.name, item.group, dashed, paletteAt, box].join("\n");
}

export function nodeStyle(item) {
  const { x, y } = placeOf(item);
  const style = {
    id: item.id,
    shape: item.shape,
    x,
    y,
    title: [
      item.members ? boxTitle(item) : item.name,
      item.members ? count(item.members.length, "node") : item.key,
      ...payload.fields.map((field) => `${field.label}: ${shownOr(field, item[field.key])}`),
    ].join("\n"),
    color: {
      background: palette[`${item.group}-fill`],
      border: palette[item.group] || palette.neutral,
      hover: { background: palette[`${item.group}-fill`], border: palette.ink },
    },
    shapeProperties: {
      borderDashes: groups.get(item.group)?.dashed && scene.items.length <= FEW ? [3, 2] : false,
      borderRadius: 4,
    },
  };
  return item.members ? { ...style, ...boxStyle(item, style.color) } : style;
}

function boxStyle(item, color) {
  const k = magnified();
  const pale = item.kind === "cell";
  return {
    label: pale ? item.name : `${cutText(item.name, 28)} (${item.members.length})`,
    color: { ...color, background: palette.paper },
    borderWidth: pale ? 1 : 1.8,
    margin: 4 * k,
    font: { size: (pale ? 10 : BOX_FONT) * k, color: palette.ink, face: bodyFont() },
    widthConstraint: pale ? false : { maximum: 130 * k },
  };
}

export const bodyFont = () => getComputedStyle(document.body).fontFamily;
export const cutText = (text, most) =>
  [...text].length > most ? `${[...text].slice(0, most - 1).join("").trimEnd()}…` : text;

/* The layer of many lines, with canvases that only count and a clock that is turned by hand. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { createLayer, curve, meets } from "../../../../../circuits/render/pages/circuit/layer.mjs";

const VIEW = { x: 0, y: 0, width: 100, height: 50, scale: 2, ratio: 1 };
const LINES = Array.from({ length: 10 }, (_, i) => i);

function layerOf({ slice = 4 } = {}) {
  const waiting = [];
  const painted = [];
  let told = 0;
  const layer = createLayer({
    newCanvas: (width, height) => ({ width, height, getContext: () => ({ setTransform() {} }) }),
    paint: (_, lines) => painted.push([...lines]),
    later: (step) => {
      waiting.push(step);
      return () => waiting.splice(waiting.indexOf(step), 1);
    },
    changed: () => {
      told += 1;
    },
    ...{ slice, margin: 0.2 },
  });
  const turn = () => waiting.shift()?.();
  const finish = () => {
    while (waiting.length) turn();
  };
  return { layer, painted, turn, finish, waiting, told: () => told };
}

test("lines are painted once, a slice a frame, strongest first", () => {
  const { layer, painted, finish } = layerOf();
  layer.at(VIEW, { id: "a", lines: LINES });
  finish();
  assert.deepEqual(painted, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]);
  assert.equal(layer.whole("a"), true);
});

test("a view inside the margin is shown without any painting", () => {
  const { layer, painted, finish, waiting } = layerOf();
  layer.at(VIEW, { id: "a", lines: LINES });
  finish();
  const before = painted.length;
  const picture = layer.at({ ...VIEW, x: 19, y: -9 }, { id: "a", lines: LINES });
  assert.equal(waiting.length, 0);
  assert.equal(painted.length, before);
  assert.deepEqual([picture.x, picture.y, picture.width, picture.height], [-20, -10, 140, 70]);
  assert.deepEqual([picture.canvas.width, picture.canvas.height], [280, 140]);
});

test("the picture before is shown until the one of another scale is whole", () => {
  const { layer, turn, finish } = layerOf();
  layer.at(VIEW, { id: "a", lines: LINES });
  finish();
  const old = layer.at(VIEW, { id: "a", lines: LINES }).canvas;
  const near = { ...VIEW, scale: 3 };
  assert.equal(layer.at(near, { id: "a", lines: LINES }).canvas, old);
  turn();
  assert.equal(layer.at(near, { id: "a", lines: LINES }).canvas, old);
  assert.equal(layer.whole("a"), false);
  finish();
  assert.notEqual(layer.at(near, { id: "a", lines: LINES }).canvas, old);
  assert.equal(layer.whole("a"), true);
});

test("a view that keeps moving begins no painting but the last", () => {
  const { layer, painted, finish, waiting } = layerOf();
  layer.at(VIEW, { id: "a", lines: LINES });
  finish();
  const before = painted.length;
  for (let scale = 3; scale < 9; scale += 1) layer.at({ ...VIEW, scale }, { id: "a", lines: LINES });
  assert.equal(waiting.length, 1);
  finish();
  assert.equal(painted.length - before, 3);
});

test("other lines never show the picture of those before, but what there is of them", () => {
  const { layer, turn, finish, told } = layerOf();
  layer.at(VIEW, { id: "a", lines: LINES });
  finish();
  layer.only("b");
  assert.equal(layer.at(VIEW, { id: "b", lines: LINES.slice(2) }), null);
  const before = told();
  turn();
  assert.equal(told(), before + 1);
  assert.notEqual(layer.at(VIEW, { id: "b", lines: LINES.slice(2) }), null);
  assert.equal(layer.whole("b"), false);
  finish();
  assert.equal(layer.whole("b"), true);
});

test("while the view of other lines moves, those painted so far stay in sight", () => {
  const { layer, turn, finish } = layerOf();
  layer.at(VIEW, { id: "a", lines: LINES });
  turn();
  const moved = { ...VIEW, x: 90 };
  assert.notEqual(layer.at(moved, { id: "a", lines: LINES }), null);
  finish();
  assert.equal(layer.whole("a"), true);
  assert.equal(layer.at(moved, { id: "a", lines: LINES }).x, 70);
});

test("lines of another content are painted no further", () => {
  const { layer, painted, turn, waiting } = layerOf();
  layer.at(VIEW, { id: "a", lines: LINES });
  turn();
  layer.only("a");
  assert.equal(waiting.length, 1);
  layer.only("b");
  assert.equal(waiting.length, 0);
  assert.equal(painted.length, 1);
  assert.equal(layer.whole("a"), false);
});

test("a curve leaves and arrives upright and stays in the box of its ends", () => {
  const [a, b] = [{ x: 3, y: 40 }, { x: -9, y: 7 }];
  const [x0, y0, x1, y1, x2, y2, x3, y3] = curve(a, b, 0.45);
  assert.deepEqual([x0, y0, x3, y3], [3, 40, -9, 7]);
  assert.deepEqual([x1, x2], [x0, x3]);
  for (const y of [y1, y2]) assert.ok(y < 40 && y > 7);
});

test("lines are left out only where no part of them can be seen", () => {
  const part = { x: 0, y: 0, width: 10, height: 10 };
  const at = (x, y) => ({ x, y });
  assert.ok(meets(at(-5, -5), at(20, 20), part, 0));
  assert.ok(meets(at(-5, 5), at(-1, 6), part, 2));
  assert.ok(!meets(at(-5, 5), at(-3, 6), part, 2));
  assert.ok(!meets(at(2, 11), at(8, 30), part, 0));
  assert.ok(meets(at(5, 5), at(5, 6), part, 0));
});

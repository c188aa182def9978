/* Finding nodes, walking between them, and room for labels, without a browser. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { around, goingFrom, matching, textOf } from "../../../../../circuits/render/pages/circuit/find.mjs";
import { cut, FONT, labelsPlaced, occupancy } from "../../../../../circuits/render/pages/circuit/places.mjs";

test("a node is found by every word of its names, token, key and what it promotes", () => {
  const texts = [
    textOf({ name: "Plural", label: "verbs", key: "mlp_out.1/7@2", token: " keys" }, [[" are", 1]]),
    textOf({ name: "singular", label: "", key: "mlp_out.1/8@2", token: null }, undefined),
  ];
  assert.deepEqual(matching(texts, "PLURAL keys"), [0]);
  assert.deepEqual(matching(texts, " are "), [0]);
  assert.deepEqual(matching(texts, "mlp_out.1"), [0, 1]);
  assert.deepEqual(matching(texts, "plural 8@2"), []);
  assert.deepEqual(matching(texts, "  "), []);
});

test("a list goes on at its other end", () => {
  assert.deepEqual([-1, 0, 2, 3].map((place) => around(place, 3)), [2, 0, 2, 0]);
});

test("arrows follow the strongest line and the band, and stop where there is nothing", () => {
  const item = (id, site, x) => ({ id, site, x, y: 0 });
  const items = [item(1, "a", 30), item(2, "a", 10), item(3, "a", 20), item(4, "b", 0)];
  const lines = [
    { from: 3, to: 4 },
    { from: 3, to: 9 },
    { from: 8, to: 3 },
  ];
  const from = (id, key) => goingFrom(items.find((each) => each.id === id), key, { items, lines });
  assert.equal(from(3, "ArrowUp"), 4);
  assert.equal(from(3, "ArrowDown"), 8);
  assert.deepEqual([from(2, "ArrowRight"), from(3, "ArrowRight"), from(1, "ArrowRight")], [3, 1, undefined]);
  assert.deepEqual([from(1, "ArrowLeft"), from(2, "ArrowLeft")], [3, undefined]);
  assert.equal(from(4, "ArrowDown"), 3);
  assert.equal(from(4, "ArrowUp"), undefined);
});

const measure = (text) => 6 * [...text].length;

test("a text is cut to its room, whole letters at a time", () => {
  assert.deepEqual(cut("plural", 60, measure), { text: "plural", width: 36 });
  assert.equal(cut("Who, value… → rocket", 72, measure).text, "Who, value…");
  for (const room of [12, 30, 55]) {
    const { text, width } = cut("複数名詞 and more of it", room, measure);
    assert.ok(width <= room && text.endsWith("…"), text);
  }
});

/* Many wishes on a small canvas, from a generator with a seed. */
function crowd(n, needed) {
  let seed = 7;
  const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
  return Array.from({ length: n }, (_, i) => ({
    key: `k${i}`,
    at: { x: 600 * random(), y: 400 * random() },
    radius: 5,
    needed: i < needed,
    texts: () => [170, 90].map((room) => cut(`label number ${i} of many`, room, measure)),
  }));
}

test("labels lie on the canvas, on no node, and do not touch another label", () => {
  const wishes = crowd(120, 10);
  const nodes = wishes.map(({ at: { x, y }, radius: r }) => ({ left: x - r, right: x + r, top: y - r, bottom: y + r }));
  const taken = occupancy();
  nodes.forEach(taken.take);
  const found = labelsPlaced(wishes, { taken, size: { width: 600, height: 400 }, most: 40 });
  const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  assert.ok(found.length > 15);
  found.forEach((label, i) => {
    assert.ok(label.left > 0 && label.right < 600 && label.top > 0 && label.bottom < 400);
    assert.ok(!nodes.some((node) => meet(node, label)));
    const wide = { ...label, left: label.left - 5, right: label.right + 5 };
    assert.ok(!found.slice(i + 1).some((other) => meet(other, wide)));
    assert.ok(Math.abs(label.bottom - label.top - FONT - 1) < 1e-9);
  });
});

test("no more labels than asked for, except those that are needed; the rest is not measured", () => {
  let measured = 0;
  const wishes = crowd(60, 5).map((wish) => ({ ...wish, texts: () => (measured += 1, wish.texts()) }));
  const apart = wishes.map((wish, i) => ({ ...wish, at: { x: 200 + 4000 * (i % 8), y: 50 + 60 * i } }));
  const size = { width: 40000, height: 4000 };
  const found = labelsPlaced([...apart].reverse(), { taken: occupancy(), size, most: 8 });
  assert.equal(found.length, 13);
  assert.equal(measured, 13);
  for (let i = 0; i < 5; i += 1) assert.ok(found.some((label) => label.key === `k${i}`));
});

test("a label that is needed stands farther away, with a line to its node", () => {
  const taken = occupancy();
  taken.take({ left: 200, right: 400, top: 150, bottom: 250 });
  const wish = { key: "k", at: { x: 300, y: 200 }, radius: 5, texts: () => [{ text: "long", width: 80 }, { text: "l", width: 20 }] };
  const at = (needed) => labelsPlaced([{ ...wish, needed }], { taken, size: { width: 600, height: 400 }, most: 9 });
  assert.deepEqual(at(false), []);
  const [found] = at(true);
  assert.deepEqual(found.led, wish.at);
});
